//! What public test suites found in the kernel, each as a case of our own.

use crate::harness::{c, child, child_passes, in_vm, ok, pause_ms, pipe, scratch, wait_for};
use std::time::{Duration, Instant};

cases![
    a_timer_with_a_tiny_period_leaves_time_for_others,
    a_signal_without_room_for_its_frame_is_a_segmentation_fault,
    kill_takes_the_number_of_a_thread,
    cpu_time_limit,
    pwritev2_with_dsync_and_offset_on_pipes,
    set_user_id_survives_a_privileged_write,
    unlink_announces_a_changed_attribute_first,
    a_name_is_gone_when_its_end_is_told,
    watches_end_after_one_event_or_with_the_name,
    files_do_not_run_as_a_group_of_others,
    proc_files_are_not_pollable,
    unshare_gives_own_files_and_directory,
    namespaces_are_refused_for_the_right_reason,
    address_lengths_are_checked_first,
    socketpair_refuses_by_kind_and_protocol,
    options_of_unknown_levels,
    mapping_nothing_is_invalid,
    robust_lists_of_others_are_private,
    scheduling_arguments,
    io_priorities,
    kcmp_compares,
    process_vm_checks_its_vectors,
    clock_adjustment_is_readable,
    system_v_objects_are_listed,
    what_of_a_segment_is_in_memory_is_told,
    loop_device_shows_a_file,
    counters_name_what_exists,
    handlers_are_cleared_for_a_child,
    readiness_is_told_by_signals,
    signals_are_not_told_by_signals,
    owners_of_signals_are_remembered,
    only_files_are_allocated,
    nothing_is_looked_up_by_an_empty_name,
    removed_directories_list_nothing,
    directories_are_not_truncated,
    futexes_are_private_or_shared,
    shrinking_by_moving_unmaps_the_rest,
    sizes_and_flags_that_make_no_sense,
    dropping_caches_keeps_what_is_in_use,
    removed_directories_are_given_back,
    shared_futexes_must_be_mapped,
    kernel_signals_come_from_the_task_itself,
    what_was_raised_is_reset_by_fork,
    timer_slack_is_a_file_too,
    an_id_stands_for_its_slot,
    descriptors_tell_what_they_wait_for,
    the_largest_pipe_is_a_setting,
    splicing_between_pipes_moves_what_there_is_room_for,
];

fn a_timer_with_a_tiny_period_leaves_time_for_others() {
    unsafe {
        child_passes(|| {
            let mut event: libc::sigevent = std::mem::zeroed();
            (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_SIGNAL, libc::SIGUSR1);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&mut set, libc::SIGUSR1);
            ok(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()));
            let mut timer: libc::timer_t = std::mem::zeroed();
            ok(libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer));
            let nanosecond = libc::timespec { tv_sec: 0, tv_nsec: 1 };
            let spec = libc::itimerspec { it_interval: nanosecond, it_value: nanosecond };
            ok(libc::timer_settime(timer, 0, &spec, std::ptr::null_mut()));
            let fd = ok(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0));
            ok(libc::timerfd_settime(fd, 0, &spec, std::ptr::null_mut()));
            pause_ms(20);
            let mut info: libc::siginfo_t = std::mem::zeroed();
            assert_eq!(libc::sigwaitinfo(&set, &mut info), libc::SIGUSR1);
            assert!(libc::timer_getoverrun(timer) > 1_000_000);
            let mut count = 0u64;
            assert_eq!(libc::read(fd, (&raw mut count).cast(), 8), 8);
            assert!(count > 1_000_000, "{count}");
        });
    }
}

fn a_signal_without_room_for_its_frame_is_a_segmentation_fault() {
    extern "C" fn nothing(_: i32) {}
    extern "C" fn end(_: i32) {
        unsafe { libc::_exit(7) };
    }
    let status = wait_for(child(|| unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            65536,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        let stack = libc::stack_t { ss_sp: page, ss_flags: 0, ss_size: 65536 };
        ok(libc::sigaltstack(&stack, std::ptr::null_mut()));
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = end as *const () as usize;
        ok(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()));
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        ok(libc::sigaction(libc::SIGHUP, &action, std::ptr::null_mut()));
        libc::raise(libc::SIGHUP);
        0
    }));
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:#x}");
}

fn kill_takes_the_number_of_a_thread() {
    let pid = child(|| unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut set, libc::SIGUSR1);
        ok(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()));
        let (read_end, write_end) = pipe();
        std::thread::spawn(move || {
            let tid = libc::syscall(libc::SYS_gettid) as i32;
            libc::write(write_end, (&raw const tid).cast(), 4);
            loop {
                libc::pause();
            }
        });
        let mut tid = 0i32;
        assert_eq!(libc::read(read_end, (&raw mut tid).cast(), 4), 4);
        ok(libc::kill(tid, libc::SIGUSR1));
        let mut info: libc::siginfo_t = std::mem::zeroed();
        assert_eq!(libc::sigwaitinfo(&set, &mut info), libc::SIGUSR1);
        libc::_exit(0)
    });
    assert_eq!(wait_for(pid), 0);
}

fn cpu_time_limit() {
    let spend = |soft, hard| {
        let status = wait_for(child(|| unsafe {
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            ok(libc::setrlimit(libc::RLIMIT_CPU, &limit));
            libc::signal(libc::SIGXCPU, if hard == 1 { libc::SIG_IGN } else { libc::SIG_DFL });
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(50) {
                std::hint::spin_loop();
            }
            0
        }));
        assert!(libc::WIFSIGNALED(status), "{status:#x}");
        libc::WTERMSIG(status)
    };
    assert_eq!(spend(1, 2), libc::SIGXCPU);
    assert_eq!(spend(1, 1), libc::SIGKILL);
}

fn pwritev2_with_dsync_and_offset_on_pipes() {
    unsafe {
        let path = c(&format!("{}/file", scratch()));
        let fd = ok(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600));
        let iov = libc::iovec { iov_base: c"data".as_ptr() as *mut libc::c_void, iov_len: 4 };
        let flags = libc::RWF_DSYNC | libc::RWF_APPEND;
        assert_eq!(libc::pwritev2(fd, &iov, 1, 0, flags), 4);
        assert_eq!(libc::pwritev2(fd, &iov, 1, 0, libc::RWF_SYNC), 4);
        let (read_end, write_end) = pipe();
        fails!(libc::pwritev2(read_end, &iov, 1, 0, 0), ESPIPE);
        fails!(libc::preadv2(write_end, &iov, 1, 0, 0), ESPIPE);
        let readable = ok(libc::open(path.as_ptr(), libc::O_RDONLY));
        fails!(libc::pwritev2(readable, &iov, 1, 0, 0), EBADF);
    }
}

fn set_user_id_survives_a_privileged_write() {
    unsafe {
        let path = c(&format!("{}/program", scratch()));
        let fd = ok(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600));
        ok(libc::fchmod(fd, 0o6755));
        assert_eq!(libc::write(fd, b"x".as_ptr().cast(), 1), 1);
        let mode = |fd| {
            let mut stat: libc::stat = std::mem::zeroed();
            ok(libc::fstat(fd, &mut stat));
            stat.st_mode & 0o7777
        };
        assert_eq!(mode(fd), 0o6755);
        child_passes(|| {
            ok(libc::setgid(65534));
            ok(libc::setuid(65534));
            assert_eq!(libc::write(fd, b"x".as_ptr().cast(), 1), 1);
        });
        assert_eq!(mode(fd), 0o755);
    }
}

fn unlink_announces_a_changed_attribute_first() {
    unsafe {
        let path = c(&format!("{}/watched", scratch()));
        let fd = ok(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600));
        libc::close(fd);
        let notify = ok(libc::inotify_init1(libc::IN_NONBLOCK));
        ok(libc::inotify_add_watch(notify, path.as_ptr(), libc::IN_ALL_EVENTS));
        ok(libc::unlink(path.as_ptr()));
        let mut events = [0u32; 64];
        let len = ok(libc::read(notify, events.as_mut_ptr().cast(), 256)) as usize;
        let masks: Vec<u32> = events[..len / 4].chunks(4).map(|event| event[1]).collect();
        assert_eq!(masks, [libc::IN_ATTRIB, libc::IN_DELETE_SELF, libc::IN_IGNORED]);
        let path = c(&format!("{}/watched-dir", scratch()));
        ok(libc::mkdir(path.as_ptr(), 0o700));
        ok(libc::inotify_add_watch(notify, path.as_ptr(), libc::IN_ALL_EVENTS));
        ok(libc::rmdir(path.as_ptr()));
        let len = ok(libc::read(notify, events.as_mut_ptr().cast(), 256)) as usize;
        let masks: Vec<u32> = events[..len / 4].chunks(4).map(|event| event[1]).collect();
        assert_eq!(masks, [libc::IN_DELETE_SELF, libc::IN_IGNORED]);
    }
}

fn proc_files_are_not_pollable() {
    unsafe {
        let epoll = ok(libc::epoll_create1(0));
        let add = |path: &std::ffi::CStr| {
            let fd = ok(libc::open(path.as_ptr(), libc::O_RDONLY));
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event)
        };
        fails!(add(c"/proc/self/maps"), EPERM);
        ok(add(c"/proc/uptime"));
        ok(add(c"/proc/self/mounts"));
    }
}

fn unshare_gives_own_files_and_directory() {
    unsafe {
        fails!(libc::unshare(1), EINVAL);
        ok(libc::unshare(0));
        let fd = ok(libc::open(c"/".as_ptr(), libc::O_RDONLY));
        std::thread::spawn(move || {
            ok(libc::unshare(libc::CLONE_FILES | libc::CLONE_FS));
            ok(libc::close(fd));
            ok(libc::chdir(c"/tmp".as_ptr()));
            fails!(libc::unshare(libc::CLONE_THREAD), EINVAL);
        })
        .join()
        .unwrap();
        ok(libc::fcntl(fd, libc::F_GETFD));
        assert_ne!(std::env::current_dir().unwrap().to_str(), Some("/tmp"));
    }
}

fn namespaces_are_refused_for_the_right_reason() {
    unsafe {
        let clone = |flags: i32| {
            libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0usize, 0usize, 0usize, 0usize)
        };
        fails!(clone(libc::CLONE_NEWNS | libc::CLONE_FS), EINVAL);
        fails!(clone(libc::CLONE_NEWIPC | libc::CLONE_SYSVSEM), EINVAL);
        fails!(libc::setns(1_000_000, 0), EBADF);
        let fd = ok(libc::open(c"/".as_ptr(), libc::O_RDONLY));
        fails!(libc::setns(fd, 0), EINVAL);
    }
}

fn address_lengths_are_checked_first() {
    unsafe {
        let fd = ok(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        let at = (&raw mut address).cast::<libc::sockaddr>();
        let mut len = 16;
        fails!(libc::getsockname(fd, std::ptr::null_mut(), &mut len), EFAULT);
        fails!(libc::getsockname(fd, at, std::ptr::null_mut()), EFAULT);
        len = u32::MAX;
        fails!(libc::getsockname(fd, at, &mut len), EINVAL);
    }
}

fn socketpair_refuses_by_kind_and_protocol() {
    let pair = |family, kind, protocol| unsafe {
        libc::socketpair(family, kind, protocol, [0; 2].as_mut_ptr())
    };
    unsafe {
        fails!(pair(libc::AF_INET, 75, 0), EINVAL);
        fails!(pair(libc::AF_INET, libc::SOCK_RAW, 0), EPROTONOSUPPORT);
        fails!(pair(libc::AF_INET, libc::SOCK_DGRAM, 17), EOPNOTSUPP);
        fails!(pair(libc::AF_INET, libc::SOCK_DGRAM, 6), EPROTONOSUPPORT);
        fails!(pair(libc::AF_INET, libc::SOCK_STREAM, 6), EOPNOTSUPP);
        fails!(pair(libc::AF_INET, libc::SOCK_STREAM, 1), EPROTONOSUPPORT);
        fails!(pair(0, libc::SOCK_STREAM, 0), EAFNOSUPPORT);
    }
}

fn options_of_unknown_levels() {
    unsafe {
        let fd = ok(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let (mut value, mut len) = (0i32, 4);
        let at = (&raw mut value).cast();
        fails!(libc::getsockopt(fd, 500, 1, at, &mut len), EOPNOTSUPP);
        fails!(libc::setsockopt(fd, 500, 1, at, len), ENOPROTOOPT);
        fails!(libc::getsockopt(fd, libc::IPPROTO_TCP, 9999, at, &mut len), ENOPROTOOPT);
    }
}

fn mapping_nothing_is_invalid() {
    unsafe {
        let path = c(&format!("{}/write-only", scratch()));
        let fd = ok(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o600));
        let map = |len| {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, 0) as i64
        };
        fails!(map(0), EINVAL);
        fails!(map(4096), EACCES);
    }
}

fn robust_lists_of_others_are_private() {
    let parent = std::process::id() as i32;
    child_passes(|| unsafe {
        let (mut head, mut len) = (0usize, 0usize);
        let get = |pid: i32, head: &mut usize, len: &mut usize| {
            libc::syscall(libc::SYS_get_robust_list, pid, head, len)
        };
        ok(get(parent, &mut head, &mut len));
        assert_eq!(len, 24);
        ok(libc::setgid(65534));
        ok(libc::setuid(65534));
        fails!(get(1, &mut head, &mut len), EPERM);
        ok(get(0, &mut head, &mut len));
    });
}

fn scheduling_arguments() {
    unsafe {
        const DEADLINE: i32 = 6;
        assert_eq!(libc::sched_get_priority_max(DEADLINE), 0);
        fails!(libc::sched_get_priority_max(99), EINVAL);
        fails!(libc::syscall(libc::SYS_sched_getparam, 0, 0usize), EINVAL);
        fails!(libc::syscall(libc::SYS_sched_setparam, 0, 0usize), EINVAL);
        let mut attributes = [0u32; 12];
        let at = attributes.as_mut_ptr();
        fails!(libc::syscall(libc::SYS_sched_getattr, 0, 0usize, 48, 0), EINVAL);
        fails!(libc::syscall(libc::SYS_sched_getattr, 0, at, 48, 1), EINVAL);
        fails!(libc::syscall(libc::SYS_sched_getattr, 0, at, 4097, 0), EINVAL);
        ok(libc::syscall(libc::SYS_sched_getattr, 0, at, 48, 0));
        child_passes(|| {
            let param = libc::sched_param { sched_priority: 1 };
            ok(libc::sched_setscheduler(0, libc::SCHED_FIFO, &param));
            let mut interval: libc::timespec = std::mem::zeroed();
            ok(libc::sched_rr_get_interval(0, &mut interval));
            assert_eq!((interval.tv_sec, interval.tv_nsec), (0, 0));
        });
    }
}

fn io_priorities() {
    unsafe {
        let get = |which: i32, who: i32| libc::syscall(libc::SYS_ioprio_get, which, who);
        let set = |priority: i32| libc::syscall(libc::SYS_ioprio_set, 1, 0, priority);
        ok(set(2 << 13 | 6));
        assert_eq!(get(1, 0), 2 << 13 | 6);
        ok(set(3 << 13));
        fails!(set(4 << 13), EINVAL);
        fails!(get(4, 0), EINVAL);
        fails!(get(1, 1_000_000_000), ESRCH);
    }
}

fn kcmp_compares() {
    unsafe {
        let pid = libc::getpid();
        let compare = |other: i32, kind: i32, a: i32, b: i32| {
            libc::syscall(libc::SYS_kcmp, pid, other, kind, a, b)
        };
        let (read_end, write_end) = pipe();
        let again = ok(libc::dup(read_end));
        assert_eq!(compare(pid, 0, read_end, again), 0);
        assert!([1, 2].contains(&compare(pid, 0, read_end, write_end)));
        assert_eq!(compare(pid, 1, 0, 0), 0);
        fails!(compare(pid, 0, read_end, 1_000_000), EBADF);
        fails!(compare(pid, 99, 0, 0), EINVAL);
        fails!(compare(1_000_000_000, 1, 0, 0), ESRCH);
        child_passes(|| {
            assert!(compare(libc::getpid(), 1, 0, 0) > 0);
            assert_eq!(compare(libc::getpid(), 0, read_end, again), 0);
        });
    }
}

fn process_vm_checks_its_vectors() {
    unsafe {
        let mut bytes = [0u8; 8];
        let at = bytes.as_mut_ptr().cast::<libc::c_void>();
        let good = libc::iovec { iov_base: at, iov_len: 8 };
        let long = libc::iovec { iov_base: at, iov_len: usize::MAX };
        let read = |local: &libc::iovec, remote: &libc::iovec| {
            libc::process_vm_readv(libc::getpid(), local, 1, remote, 1, 0)
        };
        assert_eq!(read(&good, &good), 8);
        fails!(read(&long, &good), EINVAL);
        fails!(read(&good, &long), EINVAL);
    }
}

fn clock_adjustment_is_readable() {
    unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        assert!((0..=5).contains(&libc::adjtimex(&mut timex)));
        assert!(timex.time.tv_sec > 1_600_000_000 && timex.tick > 8000 && timex.tick < 12_000);
        assert!((0..=5).contains(&libc::clock_adjtime(libc::CLOCK_REALTIME, &mut timex)));
        child_passes(|| {
            ok(libc::setuid(65534));
            let mut timex: libc::timex = std::mem::zeroed();
            assert!((0..=5).contains(&libc::adjtimex(&mut timex)));
            timex.modes = libc::ADJ_SETOFFSET;
            fails!(libc::adjtimex(&mut timex), EPERM);
        });
    }
}

fn system_v_objects_are_listed() {
    unsafe {
        let id = ok(libc::msgget(libc::IPC_PRIVATE, 0o640));
        let text = std::fs::read_to_string("/proc/sysvipc/msg").unwrap();
        let line =
            text.lines().find(|line| line.split_whitespace().nth(1) == Some(&id.to_string()));
        assert_eq!(line.unwrap().split_whitespace().nth(2), Some("640"));
        ok(libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()));
        for (name, column) in [("sem", "semid"), ("shm", "shmid")] {
            let text = std::fs::read_to_string(format!("/proc/sysvipc/{name}")).unwrap();
            assert!(text.lines().next().unwrap().contains(column), "{text}");
        }
    }
}

fn what_of_a_segment_is_in_memory_is_told() {
    const PAGE: usize = 4096;
    const SHM_INFO: i32 = 14;
    unsafe {
        let id = ok(libc::shmget(libc::IPC_PRIVATE, 5 * PAGE - 1, 0o600));
        // Size and bytes in memory of it, as /proc tells them.
        let row = || {
            let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
            let lines =
                text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
            let row = lines.into_iter().find(|row| row[1] == id.to_string()).unwrap();
            [3, 14].map(|column| row[column].parse::<usize>().unwrap())
        };
        // used_ids, shm_tot, shm_rss, shm_swp, swap_attempts, swap_successes
        let totals = || {
            let mut info = [0u64; 6];
            ok(libc::shmctl(0, SHM_INFO, info.as_mut_ptr().cast()));
            [info[1], info[2]].map(|pages| pages as usize)
        };
        assert_eq!(row(), [5 * PAGE - 1, 0]);
        let at = libc::shmat(id, std::ptr::null(), 0).cast::<u8>();
        for page in [0, 3] {
            at.add(page * PAGE).write_volatile(1);
        }
        assert_eq!(row(), [5 * PAGE - 1, 2 * PAGE]);
        let [pages, resident] = totals();
        assert!(pages >= 5 && resident >= 2 && resident <= pages, "{pages} {resident}");
        ok(libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()));
        ok(libc::shmdt(at.cast()));
    }
}

fn loop_device_shows_a_file() {
    const SET_FD: libc::c_ulong = 0x4c00;
    const CLR_FD: libc::c_ulong = 0x4c01;
    const GET_STATUS64: libc::c_ulong = 0x4c05;
    const GET_FREE: libc::c_ulong = 0x4c82;
    const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
    unsafe {
        let control = libc::open(c"/dev/loop-control".as_ptr(), libc::O_RDWR);
        let number = if control < 0 { -1 } else { libc::ioctl(control, GET_FREE) };
        let path = c(&format!("/dev/loop{number}"));
        let device = libc::open(path.as_ptr(), libc::O_RDWR);
        if device < 0 {
            // A Linux without the driver, or a container without the devices.
            return;
        }
        let name = c(&format!("{}/backing", scratch()));
        let file = ok(libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600));
        ok(libc::ftruncate(file, 100_000));
        let mut info = [0u64; 29];
        fails!(libc::ioctl(device, GET_STATUS64, info.as_mut_ptr()), ENXIO);
        ok(libc::ioctl(device, SET_FD, file));
        fails!(libc::ioctl(device, SET_FD, file), EBUSY);
        ok(libc::ioctl(device, GET_STATUS64, info.as_mut_ptr()));
        let mut size = 0u64;
        ok(libc::ioctl(device, BLKGETSIZE64, &mut size));
        assert_eq!(size, 99_840, "whole sectors");
        assert_eq!(libc::pwrite(device, b"sector".as_ptr().cast(), 6, 512), 6);
        ok(libc::fsync(device));
        let mut seen = [0u8; 6];
        assert_eq!(libc::pread(file, seen.as_mut_ptr().cast(), 6, 512), 6);
        assert_eq!(&seen, b"sector");
        assert_eq!(libc::pread(device, seen.as_mut_ptr().cast(), 6, 99_840), 0);
        ok(libc::ioctl(device, CLR_FD));
        libc::close(device);
    }
}

fn counters_name_what_exists() {
    let Ok(before) = std::fs::read_to_string("/proc/dock2uni/counters") else {
        // Linux has none.
        return;
    };
    let number = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    };
    let (read_end, _write_end) = pipe();
    let after = std::fs::read_to_string("/proc/dock2uni/counters").unwrap();
    assert_eq!(number(&after, "files"), number(&before, "files") + 2);
    assert!(number(&after, "frames_free") < number(&after, "frames_total"));
    for name in [
        "frames_heap",
        "heap_bytes",
        "frames_stacks",
        "frames_other",
        "tasks",
        "processes",
        "address_spaces",
        "sockets",
        "names",
    ] {
        number(&after, name);
    }
    unsafe { libc::close(read_end) };
}

fn handlers_are_cleared_for_a_child() {
    extern "C" fn nothing(_: i32) {}
    const CLEAR_SIGHAND: u64 = 1 << 32;
    unsafe {
        child_passes(|| {
            libc::signal(libc::SIGUSR1, nothing as *const () as usize);
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
            let mut args = [0u64; 11];
            (args[0], args[4]) = (CLEAR_SIGHAND, libc::SIGCHLD as u64);
            let clone = |args: &[u64; 11]| libc::syscall(libc::SYS_clone3, args.as_ptr(), 88);
            let pid = ok(clone(&args)) as i32;
            if pid == 0 {
                let handler = |signal| {
                    let mut action: libc::sigaction = std::mem::zeroed();
                    libc::sigaction(signal, std::ptr::null(), &mut action);
                    action.sa_sigaction
                };
                let kept = handler(libc::SIGUSR2) == libc::SIG_IGN;
                libc::_exit(i32::from(handler(libc::SIGUSR1) != libc::SIG_DFL || !kept));
            }
            assert_eq!(wait_for(pid), 0);
            args[0] = CLEAR_SIGHAND | (libc::CLONE_SIGHAND | libc::CLONE_VM) as u64;
            fails!(clone(&args), EINVAL);
            args[0] = 1 << 40;
            fails!(clone(&args), EINVAL);
        });
    }
}

const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;

fn readiness_is_told_by_signals() {
    unsafe {
        child_passes(|| {
            let (input, output) = pipe();
            let signal = libc::SIGRTMIN() + 1;
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&mut set, signal);
            libc::sigaddset(&mut set, libc::SIGIO);
            ok(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()));
            ok(libc::fcntl(input, libc::F_SETOWN, libc::getpid()));
            let flags = ok(libc::fcntl(input, libc::F_GETFL));
            ok(libc::fcntl(input, libc::F_SETFL, flags | libc::O_ASYNC));
            assert_ne!(ok(libc::fcntl(input, libc::F_GETFL)) & libc::O_ASYNC, 0);
            let wait = |seconds| {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                let limit = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
                (libc::sigtimedwait(&set, &mut info, &limit), info)
            };
            crate::harness::write(output, b"x");
            assert_eq!(wait(20).0, libc::SIGIO);
            crate::harness::read(input, 1);
            // A signal of one's own choice tells what and where.
            ok(libc::fcntl(input, F_SETSIG, signal));
            crate::harness::write(output, b"x");
            let (got, info) = wait(20);
            let fd = *(&raw const info).cast::<i32>().add(6);
            assert_eq!((got, info.si_code, fd), (signal, 1, input));
            ok(libc::fcntl(input, libc::F_SETFL, flags));
            while wait(0).0 > 0 {}
            crate::harness::write(output, b"x");
            assert_eq!(wait(0).0, -1);
        });
    }
}

/// A signal that says that there is a signal would never come to an end.
fn signals_are_not_told_by_signals() {
    unsafe {
        child_passes(|| {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&mut set, libc::SIGIO);
            ok(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()));
            let fd = ok(libc::signalfd(-1, &set, libc::SFD_NONBLOCK));
            ok(libc::fcntl(fd, libc::F_SETOWN, libc::getpid()));
            let flags = ok(libc::fcntl(fd, libc::F_GETFL));
            ok(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_ASYNC));
            assert_eq!(ok(libc::fcntl(fd, libc::F_GETFL)), flags);
            fails!(libc::ioctl(fd, libc::FIOASYNC, &1), ENOTTY);
            ok(libc::ioctl(fd, libc::FIOASYNC, &0));
            ok(libc::kill(libc::getpid(), libc::SIGIO));
            let mut info = [0u8; 128];
            let mut read = || libc::read(fd, info.as_mut_ptr().cast(), info.len());
            assert_eq!(read(), 128);
            fails!(read(), EAGAIN);
        });
    }
}

fn owners_of_signals_are_remembered() {
    const SETOWN_EX: i32 = 15;
    const GETOWN_EX: i32 = 16;
    unsafe {
        let (fd, _) = pipe();
        assert_eq!(libc::fcntl(fd, F_GETSIG), 0);
        let mut owner = [9, 9];
        ok(libc::fcntl(fd, GETOWN_EX, &mut owner));
        assert_eq!(owner[1], 0);
        ok(libc::fcntl(fd, libc::F_SETOWN, -libc::getpgrp()));
        ok(libc::fcntl(fd, GETOWN_EX, &mut owner));
        assert_eq!(owner, [2, libc::getpgrp()]);
        let me = [0, libc::gettid()];
        ok(libc::fcntl(fd, SETOWN_EX, &me));
        ok(libc::fcntl(fd, GETOWN_EX, &mut owner));
        assert_eq!(owner, me);
        fails!(libc::fcntl(fd, SETOWN_EX, &[7, 1]), EINVAL);
        fails!(libc::fcntl(fd, SETOWN_EX, &[1, 4_000_000]), ESRCH);
        fails!(libc::fcntl(fd, libc::F_SETOWN, 4_000_000), ESRCH);
        fails!(libc::fcntl(fd, libc::F_SETOWN, i32::MIN), EINVAL);
        fails!(libc::fcntl(fd, F_SETSIG, 65), EINVAL);
        ok(libc::fcntl(fd, F_SETSIG, 40));
        assert_eq!(libc::fcntl(fd, F_GETSIG), 40);
    }
}

fn only_files_are_allocated() {
    unsafe {
        let event = ok(libc::eventfd(0, 0));
        fails!(libc::fallocate(event, 0, 0, 10), ENODEV);
        fails!(libc::fallocate(pipe().1, 0, 0, 10), ESPIPE);
        let zero = ok(libc::open(c"/dev/zero".as_ptr(), libc::O_RDWR));
        fails!(libc::readahead(zero, 0, 10), EINVAL);
    }
}

fn nothing_is_looked_up_by_an_empty_name() {
    unsafe {
        let empty = c"".as_ptr();
        fails!(libc::fchmodat(-1, empty, 0o444, 0), ENOENT);
        fails!(libc::openat(-1, empty, 0), ENOENT);
        fails!(libc::unlinkat(-1, empty, 0), ENOENT);
        fails!(libc::openat(-1, c"x".as_ptr(), 0), EBADF);
    }
}

fn removed_directories_list_nothing() {
    unsafe {
        let path = c(&format!("{}/gone", scratch()));
        ok(libc::mkdir(path.as_ptr(), 0o700));
        let fd = ok(libc::open(path.as_ptr(), libc::O_DIRECTORY));
        let mut room = [0u8; 512];
        let list = |size: u64, room: &mut [u8]| {
            libc::syscall(libc::SYS_getdents64, fd, room.as_mut_ptr(), size)
        };
        assert!(list(512, &mut room) > 0);
        ok(libc::lseek(fd, 0, libc::SEEK_SET));
        fails!(list(1 << 31, &mut room), EINVAL);
        ok(libc::rmdir(path.as_ptr()));
        fails!(list(512, &mut room), ENOENT);
    }
}

fn directories_are_not_truncated() {
    unsafe {
        let dir = c(&scratch());
        fails!(libc::open(dir.as_ptr(), libc::O_TRUNC), EISDIR);
        // Neither reading nor writing: for ioctl(2) alone.
        let path = c(&format!("{}/strange", scratch()));
        let fd = ok(libc::open(path.as_ptr(), libc::O_CREAT | 3, 0o600));
        let mut byte = 0u8;
        fails!(libc::read(fd, (&raw mut byte).cast(), 1), EBADF);
        fails!(libc::write(fd, (&raw const byte).cast(), 1), EBADF);
        let fd = ok(libc::open(path.as_ptr(), libc::O_RDWR));
        assert_eq!(libc::write(fd, (&raw const byte).cast(), 1), 1);
        fails!(libc::lseek(fd, i64::MAX, libc::SEEK_END), EINVAL);
    }
}

fn futexes_are_private_or_shared() {
    let word = std::sync::atomic::AtomicU32::new(1);
    let call = |operation: i32, value: u32, limit: *const libc::timespec| unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, limit)
    };
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let limit = libc::timespec { tv_sec: 60, tv_nsec: 0 };
            call(libc::FUTEX_WAIT, 1, &limit)
        });
        let none = std::ptr::null();
        // Until it waits, a shared wake-up finds nobody either.
        pause_ms(50);
        assert_eq!(call(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1, none), 0);
        while call(libc::FUTEX_WAKE, 1, none) == 0 {
            pause_ms(5);
        }
        assert_eq!(waiter.join().unwrap(), 0);
    });
}

fn shrinking_by_moving_unmaps_the_rest() {
    const PAGE: usize = 4096;
    unsafe {
        let map = |len: usize, flags| {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = flags | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0).cast::<u8>()
        };
        let (old, new) = (map(3 * PAGE, libc::MAP_PRIVATE), map(PAGE, libc::MAP_PRIVATE));
        old.write(7);
        // Two mappings: what is cut off need not be of the first.
        ok(libc::mprotect(old.add(PAGE).cast(), 2 * PAGE, libc::PROT_READ));
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let got = libc::mremap(old.cast(), 3 * PAGE, PAGE, flags, new);
        assert_eq!((got, new.read()), (new.cast(), 7));
        let mut resident = 0u8;
        fails!(libc::mincore(old.add(2 * PAGE).cast(), PAGE, &mut resident), ENOMEM);
        // What is moved must be of one mapping. By then the destination and the rest are gone, but on
        // kernels from 6.17 on, which look first.
        let (old, new) = (map(3 * PAGE, libc::MAP_PRIVATE), map(2 * PAGE, libc::MAP_PRIVATE));
        ok(libc::mprotect(old.cast(), PAGE, libc::PROT_READ));
        fails!(libc::mremap(old.cast(), 3 * PAGE, 2 * PAGE, flags, new) as i64, EFAULT);
        let mut gone = |at: *mut u8| libc::mincore(at.cast(), PAGE, &mut resident) == -1;
        assert_eq!(gone(old.add(2 * PAGE)), gone(new));
        assert!(!gone(old) && !gone(old.add(PAGE)));
        let shared = map(PAGE, libc::MAP_SHARED);
        fails!(libc::mremap(shared.cast(), 0, PAGE, 0) as i64, ENOMEM);
        let private = map(PAGE, libc::MAP_PRIVATE);
        fails!(libc::mremap(private.cast(), 0, PAGE, libc::MREMAP_MAYMOVE) as i64, EINVAL);
        fails!(map(PAGE, libc::MAP_PRIVATE | libc::MAP_SHARED) as i64, EINVAL);
    }
}

fn sizes_and_flags_that_make_no_sense() {
    unsafe {
        let mut stat: libc::statx = std::mem::zeroed();
        let both = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;
        fails!(libc::statx(libc::AT_FDCWD, c"/".as_ptr(), both, 0, &mut stat), EINVAL);
        let mut place: libc::statfs = std::mem::zeroed();
        ok(libc::fstatfs(pipe().0, &mut place));
        assert_eq!(place.f_type, 0x5049_5045);
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&one);
        ok(libc::fstatfs(fd, &mut place));
        assert_eq!(place.f_type, 0x534f_434b);
        let mut byte = 0u8;
        let mut len = u32::MAX;
        std::io::Write::write_all(&mut &_other, b"x").unwrap();
        let mut name: libc::sockaddr_un = std::mem::zeroed();
        let at = (&raw mut name).cast();
        fails!(libc::recvfrom(fd, (&raw mut byte).cast(), 1, 0, at, &mut len), EINVAL);
        let queue = ok(libc::msgget(libc::IPC_PRIVATE, 0o600));
        let message = [1u64, u64::MAX];
        ok(libc::msgsnd(queue, message.as_ptr().cast(), 8, 0));
        let mut got = [0u64; 2];
        let copy = 0o40000 | libc::IPC_NOWAIT | libc::MSG_NOERROR;
        let copied = libc::msgrcv(queue, got.as_mut_ptr().cast(), 7, 0, copy);
        // A kernel without checkpoints (CONFIG_CHECKPOINT_RESTORE) knows no copies.
        if copied != -1 || *libc::__errno_location() != libc::ENOSYS {
            assert_eq!((copied, *libc::__errno_location()), (-1, libc::EINVAL));
        }
        ok(libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()));
    }
}

fn dropping_caches_keeps_what_is_in_use() {
    if !in_vm() {
        // Not on somebody's Linux.
        return;
    }
    let path = format!("{}/kept", scratch());
    std::fs::write(&path, b"kept").unwrap();
    assert!(std::fs::metadata(format!("{path}-not-there")).is_err());
    for what in ["1", "2", "3"] {
        std::fs::write("/proc/sys/vm/drop_caches", what).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
        assert_eq!(
            std::fs::read_to_string("/proc/sys/vm/drop_caches").unwrap(),
            what.to_owned() + "\n"
        );
    }
    assert!(std::fs::write("/proc/sys/vm/drop_caches", "9").is_err());
}

fn removed_directories_are_given_back() {
    let names = || crate::fuzz::counter("names").unwrap_or(0);
    let before = names();
    for round in 0..100 {
        let path = format!("{}/round-{round}", scratch());
        std::fs::create_dir(&path).unwrap();
        for name in ["a", "b", "c"] {
            assert!(std::fs::metadata(format!("{path}/{name}")).is_err());
        }
        std::fs::remove_dir(&path).unwrap();
    }
    assert!(names() < before + 50, "{before} names, now {}", names());
}

fn shared_futexes_must_be_mapped() {
    unsafe {
        let anywhere = std::ptr::null_mut();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(anywhere, 8192, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        let word = page.cast::<u32>();
        ok(libc::mprotect(page.byte_add(4096), 4096, libc::PROT_NONE));
        let hidden = page.byte_add(4096).cast::<u32>();
        let call = |addr: *mut u32, operation: i32, value: i32, second: i64, other: *mut u32| {
            libc::syscall(libc::SYS_futex, addr, operation, value, second, other, 0)
        };
        let (wake, requeue) = (libc::FUTEX_WAKE, libc::FUTEX_CMP_REQUEUE);
        assert_eq!(call(word, wake, 1, 0, word), 0);
        fails!(call(hidden, wake, 1, 0, word), EFAULT);
        fails!(call(word, requeue, 1, 1, hidden), EFAULT);
        fails!(call(hidden, requeue, 1, 1, word), EFAULT);
        // A private word is known by its address alone.
        assert_eq!(call(hidden, wake | libc::FUTEX_PRIVATE_FLAG, 1, 0, word), 0);
        fails!(call(word, requeue, -1, 1, word.add(1)), EINVAL);
        fails!(call(word, requeue, 1, -1, word.add(1)), EINVAL);
        fails!(libc::syscall(libc::SYS_futex_waitv, 0, 1, 0, 0, 1), EINVAL);
    }
}

fn kernel_signals_come_from_the_task_itself() {
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut set, libc::SIGPIPE);
        libc::sigaddset(&mut set, libc::SIGXFSZ);
        ok(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()));
        let told = |signal: i32| {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            assert_eq!(libc::sigwaitinfo(&set, &mut info), signal);
            assert_eq!((info.si_code, info.si_pid()), (libc::SI_USER, libc::getpid()));
        };
        let (read_end, write_end) = pipe();
        libc::close(read_end);
        fails!(libc::write(write_end, b"x".as_ptr().cast(), 1), EPIPE);
        told(libc::SIGPIPE);
        let path = c(&format!("{}/limited", scratch()));
        let fd = ok(libc::open(path.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600));
        let limit = libc::rlimit { rlim_cur: 4, rlim_max: libc::RLIM_INFINITY };
        ok(libc::setrlimit(libc::RLIMIT_FSIZE, &limit));
        assert_eq!(libc::write(fd, b"123456".as_ptr().cast(), 6), 4);
        fails!(libc::write(fd, b"56".as_ptr().cast(), 2), EFBIG);
        told(libc::SIGXFSZ);
    }
}

fn what_was_raised_is_reset_by_fork() {
    unsafe {
        let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        let param = libc::sched_param { sched_priority: 1 };
        if libc::sched_setscheduler(0, policy, &param) != 0 {
            // Without the right to it.
            assert_eq!(*libc::__errno_location(), libc::EPERM);
            return;
        }
        assert_eq!(libc::sched_getscheduler(0), policy);
        let mut attributes = [0u32; 12];
        let at = attributes.as_mut_ptr();
        ok(libc::syscall(libc::SYS_sched_getattr, 0, at, 48, 0));
        assert_eq!(attributes[1..3], [libc::SCHED_FIFO as u32, 1]);
        child_passes(|| assert_eq!(libc::sched_getscheduler(0), libc::SCHED_OTHER));
        attributes = [48, libc::SCHED_OTHER as u32, 1, 0, -3i32 as u32, 0, 0, 0, 0, 0, 0, 0];
        ok(libc::syscall(libc::SYS_sched_setattr, 0, attributes.as_ptr(), 0));
        child_passes(|| {
            assert_eq!(libc::sched_getscheduler(0), libc::SCHED_OTHER);
            assert_eq!(libc::getpriority(libc::PRIO_PROCESS, 0), 0);
        });
        attributes[2] = 1 << 9;
        fails!(libc::syscall(libc::SYS_sched_setattr, 0, attributes.as_ptr(), 0), EINVAL);
    }
}

fn timer_slack_is_a_file_too() {
    ok(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1234) });
    assert_eq!(std::fs::read_to_string("/proc/self/timerslack_ns").unwrap(), "1234\n");
    std::fs::write("/proc/self/timerslack_ns", "777").unwrap();
    assert_eq!(unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }, 777);
}

fn an_id_stands_for_its_slot() {
    const MSG_STAT_ANY: i32 = 13;
    unsafe {
        let queue = ok(libc::msgget(libc::IPC_PRIVATE, 0o600));
        let mut stat: libc::msqid_ds = std::mem::zeroed();
        assert_eq!(libc::msgctl(queue, MSG_STAT_ANY, &mut stat), queue);
        assert_eq!(stat.msg_perm.mode & 0o777, 0o600);
        ok(libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()));
        let segment = ok(libc::shmget(libc::IPC_PRIVATE, 4096, 0o600));
        let mut stat: libc::shmid_ds = std::mem::zeroed();
        const SHM_STAT_ANY: i32 = 15;
        assert_eq!(libc::shmctl(segment, SHM_STAT_ANY, &mut stat), segment);
        ok(libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()));
    }
}

fn descriptors_tell_what_they_wait_for() {
    let told = |fd: i32| std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    unsafe {
        let counter = ok(libc::eventfd(18, 0));
        assert!(told(counter).contains("eventfd-count:               12\n"), "{}", told(counter));
        let epoll = ok(libc::epoll_create1(0));
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0xabc };
        ok(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, counter, &mut event));
        let line = told(epoll);
        let line = line.lines().find(|line| line.starts_with("tfd:")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!((words[1], words[5]), (&*counter.to_string(), "abc"), "{line}");
        let watcher = ok(libc::inotify_init1(0));
        // Nobody else writes to it: the watch would be gone then.
        let quiet = c"/etc/passwd".as_ptr();
        ok(libc::inotify_add_watch(watcher, quiet, libc::IN_MODIFY | libc::IN_ONESHOT));
        let line = told(watcher);
        let line = line.lines().find(|line| line.starts_with("inotify wd:1 ino:")).unwrap();
        assert!(line.contains(" mask:80000002 "), "{line}");
    }
}

fn the_largest_pipe_is_a_setting() {
    const PATH: &str = "/proc/sys/fs/pipe-max-size";
    let before = std::fs::read_to_string(PATH).unwrap();
    if std::fs::write(PATH, "2000000").is_err() {
        // Not for everybody on somebody's Linux.
        return;
    }
    assert_eq!(std::fs::read_to_string(PATH).unwrap(), "2097152\n");
    std::fs::write(PATH, before).unwrap();
    assert!(std::fs::write(PATH, "-1").is_err());
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    timex.modes = 0x8000;
    unsafe { fails!(libc::adjtimex(&mut timex), EINVAL) };
}

fn splicing_between_pipes_moves_what_there_is_room_for() {
    const PAGE: usize = 4096;
    let (from, fill) = pipe();
    let (_end, to) = pipe();
    let bytes = [7u8; 2 * PAGE];
    let none = std::ptr::null_mut();
    unsafe {
        assert_eq!(libc::write(fill, bytes.as_ptr().cast(), 2 * PAGE), 2 * PAGE as isize);
        ok(libc::fcntl(to, libc::F_SETPIPE_SZ, 2 * PAGE));
        assert_eq!(libc::write(to, bytes.as_ptr().cast(), PAGE), PAGE as isize);
        assert_eq!(libc::splice(from, none, to, none, 2 * PAGE, 0), PAGE as isize);
        fails!(libc::splice(from, none, to, none, PAGE, libc::SPLICE_F_NONBLOCK), EAGAIN);
    }
}

fn a_name_is_gone_when_its_end_is_told() {
    unsafe {
        let dir = scratch();
        let notify = ok(libc::inotify_init1(0));
        ok(libc::inotify_add_watch(notify, c(&dir).as_ptr(), libc::IN_DELETE));
        const FILES: usize = 300;
        let busy = child(|| {
            for at in 0..FILES {
                let path = format!("{dir}/{at}");
                std::fs::write(&path, b"1").unwrap();
                std::fs::remove_file(&path).unwrap();
            }
            0
        });
        let mut told = 0;
        while told < FILES {
            let mut events = [0u32; 512];
            let len = ok(libc::read(notify, events.as_mut_ptr().cast(), 2048)) as usize / 4;
            let mut at = 0;
            while at < len {
                let name = std::ffi::CStr::from_ptr(events[at + 4..].as_ptr().cast());
                let name = name.to_str().unwrap();
                assert!(std::fs::File::open(format!("{dir}/{name}")).is_err(), "{name} is there");
                told += 1;
                at += 4 + events[at + 3] as usize / 4;
            }
        }
        assert_eq!(crate::harness::wait_for(busy), 0);
    }
}

fn watches_end_after_one_event_or_with_the_name() {
    unsafe {
        let dir = scratch();
        for (flag, expected) in [(0, 2), (libc::IN_ONESHOT, 1), (libc::IN_EXCL_UNLINK, 1)] {
            let notify = ok(libc::inotify_init1(libc::IN_NONBLOCK));
            let path = format!("{dir}/watched");
            std::fs::write(&path, b"1").unwrap();
            ok(libc::inotify_add_watch(notify, c(&dir).as_ptr(), libc::IN_MODIFY | flag));
            let fd = ok(libc::open(c(&path).as_ptr(), libc::O_RDWR));
            let mut modified = 0;
            for _ in 0..2 {
                crate::harness::write(fd, b"2");
                std::fs::remove_file(&path).unwrap_or_default();
                let mut events = [0u32; 64];
                let len = libc::read(notify, events.as_mut_ptr().cast(), 256).max(0) as usize / 4;
                let mut at = 0;
                while at < len {
                    modified += usize::from(events[at + 1] == libc::IN_MODIFY);
                    at += 4 + events[at + 3] as usize / 4;
                }
            }
            assert_eq!(modified, expected, "{flag:#x}");
            libc::close(fd);
            libc::close(notify);
        }
    }
}

fn files_do_not_run_as_a_group_of_others() {
    unsafe {
        let dir = c(&scratch());
        ok(libc::chown(dir.as_ptr(), 65534, 4444));
        ok(libc::chmod(dir.as_ptr(), 0o2777));
        child_passes(|| {
            ok(libc::setgroups(0, std::ptr::null()));
            ok(libc::setgid(65534));
            ok(libc::setuid(65534));
            for umask in [0, 0o010] {
                libc::umask(umask);
                for (at, exclusive) in [0, libc::O_EXCL].into_iter().enumerate() {
                    let path = c(&format!("{}/{umask}-{at}", dir.to_str().unwrap()));
                    let flags = libc::O_CREAT | libc::O_RDWR | exclusive;
                    let fd = ok(libc::open(path.as_ptr(), flags, 0o2777));
                    let mut stat: libc::stat = std::mem::zeroed();
                    ok(libc::fstat(fd, &mut stat));
                    assert_eq!((stat.st_gid, stat.st_mode & 0o2000), (4444, 0), "{umask:o}");
                }
            }
        });
    }
}
