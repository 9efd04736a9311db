//! From a call's number and registers to the function that serves it.

use super::fs_attr::XattrTarget;
use super::{
    aio, cred, event, fs_attr, fs_control, fs_dir, fs_handle, fs_io, fs_mount, fs_notify, fs_open,
    fs_space, fs_stat, futex, keys, misc, mm, mqueue, msg, net, numa, pidfd, process, ptrace,
    sched, sem, shm, signal, system, time,
};
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::task::{current, fork, rseq, seccomp};
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general::*;

/// Serves call `number` with its six argument registers.
///
/// Arguments are 64-bit registers of which a call may look at the lower half only (`i`, `u` below),
/// exactly as Linux declares its parameters.
#[expect(non_upper_case_globals, reason = "the names are those of the kernel headers")]
pub fn dispatch(context: &mut UserContext, number: usize, a: &[usize; 6]) -> Result<usize> {
    let i = |n: usize| a[n] as i32;
    let u = |n: usize| a[n] as u32;
    let l = |n: usize| a[n] as i64;
    match number as u32 {
        _ if number > u32::MAX as usize => Err(Errno::ENOSYS),

        // Reading and writing
        __NR_read => fs_io::counted(0, fs_io::read(i(0), a[1], a[2])),
        __NR_write => fs_io::counted(1, fs_io::write(i(0), a[1], a[2])),
        __NR_readv => fs_io::counted(0, fs_io::readv(i(0), a[1], a[2])),
        __NR_writev => fs_io::counted(1, fs_io::writev(i(0), a[1], a[2])),
        __NR_pread64 => fs_io::counted(0, fs_io::pread64(i(0), a[1], a[2], l(3))),
        __NR_pwrite64 => fs_io::counted(1, fs_io::pwrite64(i(0), a[1], a[2], l(3))),
        __NR_preadv => fs_io::counted(0, fs_io::preadv(i(0), a[1], a[2], l(3))),
        __NR_pwritev => fs_io::counted(1, fs_io::pwritev(i(0), a[1], a[2], l(3))),
        __NR_preadv2 => fs_io::counted(0, fs_io::preadv2(i(0), a[1], a[2], l(3), u(5))),
        __NR_pwritev2 => fs_io::counted(1, fs_io::pwritev2(i(0), a[1], a[2], l(3), u(5))),
        __NR_lseek => fs_io::lseek(i(0), l(1), u(2)),
        __NR_sendfile => {
            fs_io::counted(0, fs_io::counted(1, fs_io::sendfile(i(0), i(1), a[2], a[3])))
        }
        __NR_splice => fs_io::splice(i(0), a[1], i(2), a[3], a[4], u(5)),
        __NR_tee => fs_io::tee(i(0), i(1), a[2], u(3)),
        __NR_vmsplice => fs_io::vmsplice(i(0), a[1], a[2], u(3)),
        __NR_copy_file_range => fs_io::counted(
            0,
            fs_io::counted(1, fs_io::copy_file_range(i(0), a[1], i(2), a[3], a[4], u(5))),
        ),

        // Descriptors
        __NR_open => fs_open::open(a[0], u(1), u(2)),
        __NR_creat => fs_open::creat(a[0], u(1)),
        __NR_openat => fs_open::openat(i(0), a[1], u(2), u(3)),
        __NR_openat2 => fs_open::openat2(i(0), a[1], a[2], a[3]),
        __NR_close => fs_open::close(i(0)),
        __NR_close_range => fs_open::close_range(u(0), u(1), u(2)),
        __NR_dup => fs_open::dup(i(0)),
        __NR_dup2 => fs_open::dup2(i(0), i(1)),
        __NR_dup3 => fs_open::dup3(i(0), i(1), u(2)),
        __NR_pipe => fs_open::pipe(a[0]),
        __NR_pipe2 => fs_open::pipe2(a[0], u(1)),
        __NR_fcntl => fs_control::fcntl(i(0), u(1), a[2]),
        __NR_flock => fs_control::flock(i(0), u(1)),
        __NR_ioctl => fs_control::ioctl(i(0), u(1), a[2]),

        // Attributes
        __NR_stat => fs_stat::stat(a[0], a[1]),
        __NR_lstat => fs_stat::lstat(a[0], a[1]),
        __NR_fstat => fs_stat::fstat(i(0), a[1]),
        __NR_newfstatat => fs_stat::newfstatat(i(0), a[1], a[2], u(3)),
        __NR_statx => fs_stat::statx(i(0), a[1], u(2), u(3), a[4]),
        __NR_statfs => fs_stat::statfs(a[0], a[1]),
        __NR_fstatfs => fs_stat::fstatfs(i(0), a[1]),
        __NR_access => fs_stat::access(a[0], u(1)),
        __NR_faccessat => fs_stat::faccessat(i(0), a[1], u(2)),
        __NR_faccessat2 => fs_stat::faccessat2(i(0), a[1], u(2), u(3)),
        __NR_umask => fs_attr::umask(u(0)),
        __NR_chmod => fs_attr::chmod(a[0], u(1)),
        __NR_fchmod => fs_attr::fchmod(i(0), u(1)),
        __NR_fchmodat => fs_attr::fchmodat(i(0), a[1], u(2)),
        __NR_fchmodat2 => fs_attr::fchmodat2(i(0), a[1], u(2), u(3)),
        __NR_chown => fs_attr::chown(a[0], u(1), u(2)),
        __NR_lchown => fs_attr::lchown(a[0], u(1), u(2)),
        __NR_fchown => fs_attr::fchown(i(0), u(1), u(2)),
        __NR_fchownat => fs_attr::fchownat(i(0), a[1], u(2), u(3), u(4)),
        __NR_utimensat => fs_attr::utimensat(i(0), a[1], a[2], u(3)),
        __NR_futimesat => fs_attr::futimesat(i(0), a[1], a[2]),
        __NR_utimes => fs_attr::utimes(a[0], a[1]),
        __NR_utime => fs_attr::utime(a[0], a[1]),
        __NR_setxattr => fs_attr::setxattr(XattrTarget::Path(a[0]), a[1], a[2], a[3], u(4)),
        __NR_lsetxattr => fs_attr::setxattr(XattrTarget::Link(a[0]), a[1], a[2], a[3], u(4)),
        __NR_fsetxattr => fs_attr::setxattr(XattrTarget::Fd(i(0)), a[1], a[2], a[3], u(4)),
        __NR_getxattr => fs_attr::getxattr(XattrTarget::Path(a[0]), a[1], a[2], a[3]),
        __NR_lgetxattr => fs_attr::getxattr(XattrTarget::Link(a[0]), a[1], a[2], a[3]),
        __NR_fgetxattr => fs_attr::getxattr(XattrTarget::Fd(i(0)), a[1], a[2], a[3]),
        __NR_listxattr => fs_attr::listxattr(XattrTarget::Path(a[0]), a[1], a[2]),
        __NR_llistxattr => fs_attr::listxattr(XattrTarget::Link(a[0]), a[1], a[2]),
        __NR_flistxattr => fs_attr::listxattr(XattrTarget::Fd(i(0)), a[1], a[2]),
        __NR_removexattr => fs_attr::removexattr(XattrTarget::Path(a[0]), a[1]),
        __NR_lremovexattr => fs_attr::removexattr(XattrTarget::Link(a[0]), a[1]),
        __NR_fremovexattr => fs_attr::removexattr(XattrTarget::Fd(i(0)), a[1]),

        // Names
        __NR_getdents => fs_dir::getdents(i(0), a[1], a[2]),
        __NR_getdents64 => fs_dir::getdents64(i(0), a[1], a[2]),
        __NR_mkdir => fs_dir::mkdir(a[0], u(1)),
        __NR_mkdirat => fs_dir::mkdirat(i(0), a[1], u(2)),
        __NR_mknod => fs_dir::mknod(a[0], u(1), a[2] as u64),
        __NR_mknodat => fs_dir::mknodat(i(0), a[1], u(2), a[3] as u64),
        __NR_rmdir => fs_dir::rmdir(a[0]),
        __NR_unlink => fs_dir::unlink(a[0]),
        __NR_unlinkat => fs_dir::unlinkat(i(0), a[1], u(2)),
        __NR_rename => fs_dir::rename(a[0], a[1]),
        __NR_renameat => fs_dir::renameat2(i(0), a[1], i(2), a[3], 0),
        __NR_renameat2 => fs_dir::renameat2(i(0), a[1], i(2), a[3], u(4)),
        __NR_link => fs_dir::link(a[0], a[1]),
        __NR_linkat => fs_dir::linkat(i(0), a[1], i(2), a[3], u(4)),
        __NR_symlink => fs_dir::symlink(a[0], a[1]),
        __NR_symlinkat => fs_dir::symlinkat(a[0], i(1), a[2]),
        __NR_readlink => fs_dir::readlink(a[0], a[1], a[2]),
        __NR_readlinkat => fs_dir::readlinkat(i(0), a[1], a[2], a[3]),
        __NR_chdir => fs_dir::chdir(a[0]),
        __NR_fchdir => fs_dir::fchdir(i(0)),
        __NR_chroot => fs_dir::chroot(a[0]),
        __NR_getcwd => fs_dir::getcwd(a[0], a[1]),
        __NR_mount => fs_mount::mount(a[0], a[1], a[2], u(3), a[4]),
        __NR_umount2 => fs_mount::umount2(a[0], u(1)),
        __NR_name_to_handle_at => fs_handle::name_to_handle_at(i(0), a[1], a[2], a[3], u(4)),
        __NR_open_by_handle_at => fs_handle::open_by_handle_at(i(0), a[1], u(2)),
        __NR_pivot_root => fs_mount::pivot_root(a[0], a[1]),
        __NR_fsopen => fs_mount::fsopen(a[0], u(1)),
        __NR_fsconfig => fs_mount::fsconfig(i(0), u(1), a[2], a[3], i(4)),
        __NR_fsmount => fs_mount::fsmount(i(0), u(1), u(2)),
        __NR_fspick => fs_mount::fspick(i(0), a[1], u(2)),
        __NR_open_tree => fs_mount::open_tree(i(0), a[1], u(2)),
        __NR_move_mount => fs_mount::move_mount(i(0), a[1], i(2), a[3], u(4)),
        __NR_mount_setattr => fs_mount::mount_setattr(i(0), a[1], u(2), a[3], a[4]),

        // Space and durability
        __NR_truncate => fs_space::truncate(a[0], l(1)),
        __NR_ftruncate => fs_space::ftruncate(i(0), l(1)),
        __NR_fallocate => fs_space::fallocate(i(0), u(1), l(2), l(3)),
        __NR_fadvise64 => fs_space::fadvise64(i(0), l(1), l(2), u(3)),
        __NR_readahead => fs_space::readahead(i(0), l(1), a[2]),
        __NR_fsync => fs_space::fsync(i(0)),
        __NR_fdatasync => fs_space::fdatasync(i(0)),
        __NR_sync => fs_space::sync(),
        __NR_syncfs => fs_space::syncfs(i(0)),
        __NR_sync_file_range => fs_space::sync_file_range(i(0), l(1), l(2), u(3)),

        // Readiness
        __NR_poll => event::poll(a[0], a[1], i(2)),
        __NR_ppoll => event::ppoll(a[0], a[1], a[2], a[3], a[4]),
        __NR_select => event::select(i(0), a[1], a[2], a[3], a[4]),
        __NR_pselect6 => event::pselect6(i(0), a[1], a[2], a[3], a[4], a[5]),
        __NR_epoll_create => event::epoll_create(i(0)),
        __NR_epoll_create1 => event::epoll_create1(u(0)),
        __NR_epoll_ctl => event::epoll_ctl(i(0), u(1), i(2), a[3]),
        __NR_epoll_wait => event::epoll_wait(i(0), a[1], i(2), i(3)),
        __NR_epoll_pwait => event::epoll_pwait(i(0), a[1], i(2), i(3), a[4], a[5]),
        __NR_epoll_pwait2 => event::epoll_pwait2(i(0), a[1], i(2), a[3], a[4], a[5]),
        __NR_inotify_init => fs_notify::inotify_init1(0),
        __NR_inotify_init1 => fs_notify::inotify_init1(u(0)),
        __NR_inotify_add_watch => fs_notify::inotify_add_watch(i(0), a[1], u(2)),
        __NR_inotify_rm_watch => fs_notify::inotify_rm_watch(i(0), i(1)),
        __NR_eventfd => event::eventfd2(u(0), 0),
        __NR_eventfd2 => event::eventfd2(u(0), u(1)),
        __NR_signalfd => event::signalfd4(i(0), a[1], a[2], 0),
        __NR_signalfd4 => event::signalfd4(i(0), a[1], a[2], u(3)),
        __NR_timerfd_create => event::timerfd_create(u(0), u(1)),
        __NR_timerfd_settime => event::timerfd_settime(i(0), u(1), a[2], a[3]),
        __NR_timerfd_gettime => event::timerfd_gettime(i(0), a[1]),

        // Asynchronous I/O
        __NR_io_setup => aio::io_setup(u(0), a[1]),
        __NR_io_destroy => aio::io_destroy(a[0]),
        __NR_io_submit => aio::io_submit(a[0], l(1), a[2]),
        __NR_io_cancel => aio::io_cancel(a[0], a[1]),
        __NR_io_getevents => aio::io_getevents(a[0], l(1), l(2), a[3], a[4]),
        __NR_io_pgetevents => aio::io_pgetevents(a[0], l(1), l(2), a[3], a[4], a[5]),

        // Futexes
        __NR_futex => futex::futex(a[0], u(1), u(2), a[3], a[4], u(5)),
        __NR_futex_waitv => futex::futex_waitv(a[0], a[1], u(2), a[3], u(4)),
        __NR_set_robust_list => futex::set_robust_list(a[0], a[1]),
        __NR_get_robust_list => futex::get_robust_list(i(0), a[1], a[2]),

        // Time
        __NR_clock_gettime => time::clock_gettime(i(0), a[1]),
        __NR_clock_settime => time::clock_settime(i(0), a[1]),
        __NR_clock_getres => time::clock_getres(i(0), a[1]),
        __NR_clock_nanosleep => time::clock_nanosleep(i(0), u(1), a[2], a[3]),
        __NR_nanosleep => time::nanosleep(a[0], a[1]),
        __NR_gettimeofday => time::gettimeofday(a[0], a[1]),
        __NR_settimeofday => time::settimeofday(a[0], a[1]),
        __NR_time => time::time(a[0]),
        __NR_getitimer => time::getitimer(u(0), a[1]),
        __NR_setitimer => time::setitimer(u(0), a[1], a[2]),
        __NR_alarm => time::alarm(u(0)),
        __NR_timer_create => time::timer_create(i(0), a[1], a[2]),
        __NR_timer_settime => time::timer_settime(i(0), u(1), a[2], a[3]),
        __NR_timer_gettime => time::timer_gettime(i(0), a[1]),
        __NR_timer_getoverrun => time::timer_getoverrun(i(0)),
        __NR_timer_delete => time::timer_delete(i(0)),
        __NR_restart_syscall => time::restart_syscall(),

        // The system
        __NR_uname => misc::uname(a[0]),
        __NR_sethostname => misc::sethostname(a[0], i(1)),
        __NR_setdomainname => misc::setdomainname(a[0], i(1)),
        __NR_sysinfo => misc::sysinfo(a[0]),
        __NR_getrandom => misc::getrandom(a[0], a[1], u(2)),
        __NR_clock_adjtime => system::clock_adjtime(i(0), a[1]),
        __NR_adjtimex => system::clock_adjtime(0, a[0]),
        __NR_acct => system::acct(a[0]),
        __NR_vhangup => system::vhangup(),
        __NR_syslog => system::syslog(i(0), a[1], i(2)),
        __NR_sysfs => system::sysfs(i(0), a[1], a[2]),
        __NR_getcpu => misc::getcpu(a[0], a[1]),

        // Memory
        __NR_mmap => mm::mmap(a[0], a[1], u(2), u(3), i(4), a[5] as u64),
        __NR_munmap => mm::munmap(a[0], a[1]),
        __NR_mprotect => mm::mprotect(a[0], a[1], u(2)),
        __NR_pkey_mprotect => mm::pkey_mprotect(a[0], a[1], u(2), i(3)),
        // What Linux says on processors without protection keys.
        __NR_pkey_alloc | __NR_pkey_free => Err(Errno::EINVAL),
        __NR_brk => mm::brk(a[0]),
        __NR_mremap => mm::mremap(a[0], a[1], a[2], u(3), a[4]),
        __NR_madvise => mm::madvise(a[0], a[1], i(2)),
        __NR_msync => mm::msync(a[0], a[1], u(2)),
        __NR_mincore => mm::mincore(a[0], a[1], a[2]),
        __NR_mlock => mm::mlock(a[0], a[1]),
        __NR_mlock2 => mm::mlock2(a[0], a[1], u(2)),
        __NR_munlock => mm::munlock(a[0], a[1]),
        __NR_mbind => numa::mbind(a[0], a[1], u(2), a[3], a[4], u(5)),
        __NR_set_mempolicy => numa::set_mempolicy(u(0), a[1], a[2]),
        __NR_get_mempolicy => numa::get_mempolicy(a[0], a[1], a[2], a[3], u(4)),
        __NR_mlockall => mm::mlockall(u(0)),
        __NR_munlockall => mm::munlockall(),
        __NR_memfd_create => mm::memfd_create(a[0], u(1)),
        __NR_process_vm_readv => mm::process_vm(i(0), (a[1], a[2]), (a[3], a[4]), a[5], false),
        __NR_process_vm_writev => mm::process_vm(i(0), (a[1], a[2]), (a[3], a[4]), a[5], true),
        __NR_shmget => shm::shmget(i(0), a[1], u(2)),
        __NR_shmat => shm::shmat(i(0), a[1], u(2)),
        __NR_shmdt => shm::shmdt(a[0]),
        __NR_shmctl => shm::shmctl(i(0), u(1), a[2]),

        // Semaphores and messages
        __NR_semget => sem::semget(i(0), i(1), u(2)),
        __NR_semop => sem::semtimedop(i(0), a[1], a[2], 0),
        __NR_semtimedop => sem::semtimedop(i(0), a[1], a[2], a[3]),
        __NR_semctl => sem::semctl(i(0), i(1), u(2), a[3]),
        __NR_msgget => msg::msgget(i(0), u(1)),
        __NR_msgsnd => msg::msgsnd(i(0), a[1], a[2], u(3)),
        __NR_msgrcv => msg::msgrcv(i(0), a[1], a[2], l(3), u(4)),
        __NR_msgctl => msg::msgctl(i(0), u(1), a[2]),
        __NR_mq_open => mqueue::mq_open(a[0], u(1), u(2), a[3]),
        __NR_mq_unlink => mqueue::mq_unlink(a[0]),
        __NR_mq_timedsend => mqueue::mq_timedsend(i(0), a[1], a[2], u(3), a[4]),
        __NR_mq_timedreceive => mqueue::mq_timedreceive(i(0), a[1], a[2], a[3], a[4]),
        __NR_mq_notify => mqueue::mq_notify(i(0), a[1]),
        __NR_mq_getsetattr => mqueue::mq_getsetattr(i(0), a[1], a[2]),

        // Keys
        __NR_add_key => keys::add_key(a[0], a[1], a[2], a[3], i(4)),
        __NR_request_key => keys::request_key(a[0], a[1], a[2], i(3)),
        __NR_keyctl => keys::keyctl(i(0), [a[1], a[2], a[3], a[4]]),

        // Sockets
        __NR_socket => net::socket(u(0), u(1), u(2)),
        __NR_socketpair => net::socketpair(u(0), u(1), u(2), a[3]),
        __NR_bind => net::bind(i(0), a[1], u(2)),
        __NR_listen => net::listen(i(0), i(1)),
        __NR_accept => net::accept(i(0), a[1], a[2]),
        __NR_accept4 => net::accept4(i(0), a[1], a[2], u(3)),
        __NR_connect => net::connect(i(0), a[1], u(2)),
        __NR_getsockname => net::getsockname(i(0), a[1], a[2]),
        __NR_getpeername => net::getpeername(i(0), a[1], a[2]),
        __NR_sendto => net::sendto(i(0), a[1], a[2], u(3), a[4], u(5)),
        __NR_recvfrom => net::recvfrom(i(0), a[1], a[2], u(3), a[4], a[5]),
        __NR_sendmsg => net::sendmsg(i(0), a[1], u(2)),
        __NR_recvmsg => net::recvmsg(i(0), a[1], u(2)),
        __NR_sendmmsg => net::sendmmsg(i(0), a[1], u(2), u(3)),
        __NR_recvmmsg => net::recvmmsg(i(0), a[1], u(2), u(3), a[4]),
        __NR_shutdown => net::shutdown(i(0), u(1)),
        __NR_setsockopt => net::setsockopt(i(0), u(1), u(2), a[3], u(4)),
        __NR_getsockopt => net::getsockopt(i(0), u(1), u(2), a[3], a[4]),

        // Processes
        __NR_clone => process::clone(context, *a),
        __NR_clone3 => process::clone3(context, a[0], a[1]),
        __NR_fork => process::fork(context),
        __NR_vfork => process::vfork(context),
        __NR_execve => process::execve(context, a[0], a[1], a[2]),
        __NR_execveat => process::execveat(context, i(0), a[1], a[2], a[3], u(4)),
        __NR_exit => process::exit(i(0)),
        __NR_exit_group => process::exit_group(i(0)),
        __NR_wait4 => process::wait4(i(0), a[1], u(2), a[3]),
        __NR_waitid => process::waitid(u(0), i(1), a[2], u(3), a[4]),
        __NR_getpid => Ok(current().pid() as usize),
        __NR_gettid => Ok(current().tid() as usize),
        __NR_getppid => Ok(current().process().ppid() as usize),
        __NR_getpgrp => process::getpgid(0),
        __NR_getpgid => process::getpgid(i(0)),
        __NR_setpgid => process::setpgid(i(0), i(1)),
        __NR_getsid => process::getsid(i(0)),
        __NR_setsid => process::setsid(),
        __NR_getrusage => process::getrusage(i(0), a[1]),
        __NR_times => process::times(a[0]),
        __NR_prlimit64 => process::prlimit64(i(0), u(1), a[2], a[3]),
        __NR_getrlimit => process::prlimit64(0, u(0), 0, a[1]),
        __NR_setrlimit => process::prlimit64(0, u(0), a[1], 0),
        __NR_prctl => process::prctl(u(0), [a[1], a[2], a[3], a[4]]),
        __NR_arch_prctl => process::arch_prctl(context, u(0), a[1]),
        __NR_set_tid_address => process::set_tid_address(a[0]),
        __NR_personality => process::personality(u(0)),
        __NR_reboot => process::reboot(u(0), u(1), u(2)),
        __NR_membarrier => process::membarrier(i(0), u(1)),
        __NR_rseq => rseq::register(a[0], u(1), u(2), u(3)),
        __NR_pidfd_open => pidfd::open(i(0), u(1)),
        __NR_pidfd_send_signal => pidfd::send_signal(i(0), i(1), a[2], u(3)),
        __NR_pidfd_getfd => pidfd::getfd(i(0), i(1), u(2)),
        __NR_kcmp => pidfd::kcmp(i(0), i(1), u(2), a[3], a[4]),
        __NR_ptrace => ptrace::ptrace(u(0), i(1), a[2], a[3]),
        __NR_unshare => fork::unshare(u(0)),
        __NR_setns => system::setns(i(0), u(1)),
        __NR_seccomp => seccomp::seccomp(u(0), u(1), a[2]),

        // Identity
        __NR_getuid => Ok(current().with_creds(|creds| creds.uid) as usize),
        __NR_geteuid => Ok(current().with_creds(|creds| creds.euid) as usize),
        __NR_getgid => Ok(current().with_creds(|creds| creds.gid) as usize),
        __NR_getegid => Ok(current().with_creds(|creds| creds.egid) as usize),
        __NR_setuid => cred::setuid(u(0)),
        __NR_setgid => cred::setgid(u(0)),
        __NR_setreuid => cred::setreuid(u(0), u(1)),
        __NR_setregid => cred::setregid(u(0), u(1)),
        __NR_setresuid => cred::setresuid(u(0), u(1), u(2)),
        __NR_setresgid => cred::setresgid(u(0), u(1), u(2)),
        __NR_getresuid => cred::getresuid([a[0], a[1], a[2]]),
        __NR_getresgid => cred::getresgid([a[0], a[1], a[2]]),
        __NR_setfsuid => cred::setfsuid(u(0)),
        __NR_setfsgid => cred::setfsgid(u(0)),
        __NR_getgroups => cred::getgroups(i(0), a[1]),
        __NR_setgroups => cred::setgroups(i(0), a[1]),
        __NR_capget => cred::capget(a[0], a[1]),
        __NR_capset => cred::capset(a[0], a[1]),

        // Signals
        __NR_rt_sigaction => signal::rt_sigaction(i(0), a[1], a[2], a[3]),
        __NR_rt_sigprocmask => signal::rt_sigprocmask(i(0), a[1], a[2], a[3]),
        __NR_rt_sigpending => signal::rt_sigpending(a[0], a[1]),
        __NR_rt_sigsuspend => signal::rt_sigsuspend(a[0], a[1]),
        __NR_rt_sigtimedwait => signal::rt_sigtimedwait(a[0], a[1], a[2], a[3]),
        __NR_rt_sigqueueinfo => signal::rt_sigqueueinfo(i(0), i(1), a[2]),
        __NR_rt_tgsigqueueinfo => signal::rt_tgsigqueueinfo(i(0), i(1), i(2), a[3]),
        __NR_sigaltstack => signal::sigaltstack(context, a[0], a[1]),
        __NR_pause => signal::pause(),
        __NR_kill => signal::kill(i(0), i(1)),
        __NR_tkill => signal::tkill(i(0), i(1)),
        __NR_tgkill => signal::tgkill(i(0), i(1), i(2)),

        // Scheduling
        __NR_sched_yield => sched::sched_yield(),
        __NR_sched_getaffinity => sched::sched_getaffinity(i(0), a[1], a[2]),
        __NR_sched_setaffinity => sched::sched_setaffinity(i(0), a[1], a[2]),
        __NR_sched_getscheduler => sched::sched_getscheduler(i(0)),
        __NR_sched_setscheduler => sched::sched_setscheduler(i(0), Some(u(1)), a[2]),
        __NR_sched_getparam => sched::sched_getparam(i(0), a[1]),
        __NR_sched_setparam => sched::sched_setscheduler(i(0), None, a[1]),
        __NR_sched_getattr => sched::sched_getattr(i(0), a[1], u(2), u(3)),
        __NR_sched_setattr => sched::sched_setattr(i(0), a[1], u(2)),
        __NR_sched_get_priority_max => sched::sched_get_priority_max(u(0)),
        __NR_sched_get_priority_min => sched::sched_get_priority_min(u(0)),
        __NR_sched_rr_get_interval => sched::sched_rr_get_interval(i(0), a[1]),
        __NR_ioprio_get => system::ioprio_get(u(0), i(1)),
        __NR_ioprio_set => system::ioprio_set(u(0), i(1), u(2)),
        __NR_getpriority => sched::getpriority(u(0), i(1)),
        __NR_setpriority => sched::setpriority(u(0), i(1), i(2)),

        // libuv and others ask, and do without in silence: containers mostly aren't allowed these.
        __NR_io_uring_setup | __NR_io_uring_enter | __NR_io_uring_register => Err(Errno::ENOSYS),
        _ => unimplemented(number),
    }
}

/// ENOSYS; each number is named on the console once, with the program that asked for it.
#[cold]
fn unimplemented(number: usize) -> Result<usize> {
    static NAMED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
    if let Some(word) = NAMED.get(number / 64) {
        let bit = 1 << (number % 64);
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let program = crate::task::current().comm();
            let name = super::name(number).unwrap_or("?");
            crate::error!("unimplemented syscall {name}({number}) by {program}");
        }
    }
    Err(Errno::ENOSYS)
}
