//! Descriptors of processes, and kcmp(2).

use crate::harness::{child, child_passes, ok, pause_ms, pipe, read, wait_for, write};
use libc::*;

cases! {
    a_descriptor_is_readable_when_the_process_has_ended,
    signals_go_to_the_process_and_not_to_its_number,
    clone_returns_a_descriptor,
    waitid_takes_a_descriptor,
    descriptors_of_another_process_can_be_copied,
    descriptors_are_checked,
    kcmp_tells_what_is_shared,
}

const PIDFD_NONBLOCK: u32 = O_NONBLOCK as u32;

fn pidfd_open(pid: pid_t, flags: u32) -> i32 {
    unsafe { syscall(SYS_pidfd_open, pid, flags) as i32 }
}

fn send(fd: i32, signal: i32) -> i64 {
    unsafe { syscall(SYS_pidfd_send_signal, fd, signal, 0, 0) }
}

fn ended(fd: i32, ms: i32) -> bool {
    let mut poll = pollfd { fd, events: POLLIN, revents: 0 };
    ok(unsafe { libc::poll(&mut poll, 1, ms) }) == 1 && poll.revents & POLLIN != 0
}

fn a_descriptor_is_readable_when_the_process_has_ended() {
    let (gate, go) = pipe();
    let pid = child(|| {
        unsafe { close(go) };
        read(gate, 1);
        3
    });
    let fd = ok(pidfd_open(pid, 0));
    assert_eq!(unsafe { fcntl(fd, F_GETFD) }, FD_CLOEXEC);
    assert!(!ended(fd, 0));
    write(go, b"!");
    assert!(ended(fd, 10_000));
    assert!(WEXITSTATUS(wait_for(pid)) == 3 && ended(fd, 0));
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    assert_eq!(link.to_str(), Some("anon_inode:[pidfd]"));
    unsafe {
        let mut byte = 0u8;
        fails!(libc::read(fd, (&raw mut byte).cast(), 1), EINVAL);
    }
}

fn signals_go_to_the_process_and_not_to_its_number() {
    let pid = child(|| {
        pause_ms(20_000);
        0
    });
    let fd = ok(pidfd_open(pid, 0));
    assert_eq!(send(fd, 0), 0);
    // A directory of /proc stands for its process, and no other does.
    let directory = std::fs::File::open(format!("/proc/{pid}")).unwrap();
    let other = std::fs::File::open("/proc").unwrap();
    assert_eq!(send(std::os::fd::AsRawFd::as_raw_fd(&directory), 0), 0);
    unsafe { fails!(send(std::os::fd::AsRawFd::as_raw_fd(&other), 0), EBADF) };
    assert_eq!(send(fd, SIGTERM), 0);
    assert_eq!(WTERMSIG(wait_for(pid)), SIGTERM);
    unsafe {
        fails!(send(fd, 0), ESRCH);
        fails!(send(0, SIGTERM), EBADF);
        let own = ok(pidfd_open(getpid(), 0));
        fails!(send(own, 65), EINVAL);
        fails!(syscall(SYS_pidfd_send_signal, own, SIGUSR1, 0, 0x100), EINVAL);
        // With information of its own, as rt_sigqueueinfo(2).
        let mut set: sigset_t = std::mem::zeroed();
        sigaddset(&mut set, SIGUSR1);
        sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut());
        let mut info: siginfo_t = std::mem::zeroed();
        info.si_signo = SIGUSR1;
        info.si_code = SI_QUEUE;
        assert_eq!(syscall(SYS_pidfd_send_signal, own, SIGUSR1, &info, 0), 0);
        let mut got: siginfo_t = std::mem::zeroed();
        assert_eq!(sigwaitinfo(&set, &mut got), SIGUSR1);
        assert_eq!(got.si_code, SI_QUEUE);
        fails!(syscall(SYS_pidfd_send_signal, own, SIGUSR2, &info, 0), EINVAL);
    }
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    rest: [u64; 3],
}

fn clone_returns_a_descriptor() {
    unsafe {
        let mut fd = -1;
        let args = CloneArgs {
            flags: CLONE_PIDFD as u64,
            pidfd: &raw mut fd as u64,
            exit_signal: SIGCHLD as u64,
            ..Default::default()
        };
        let pid = ok(syscall(SYS_clone3, &args, 64)) as pid_t;
        if pid == 0 {
            pause_ms(50);
            _exit(4);
        }
        assert!(fd > 2 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
        assert!(ended(fd, 10_000));
        assert_eq!(WEXITSTATUS(wait_for(pid)), 4);
        // The old call has one place for two results.
        let both = CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD;
        fails!(syscall(SYS_clone, both, 0, &raw mut fd, 0, 0), EINVAL);
    }
}

fn waitid_takes_a_descriptor() {
    const P_PIDFD: idtype_t = 3;
    unsafe {
        let (gate, go) = pipe();
        let pid = child(|| {
            read(gate, 1);
            9
        });
        let fd = ok(pidfd_open(pid, PIDFD_NONBLOCK));
        let mut info: siginfo_t = std::mem::zeroed();
        fails!(waitid(P_PIDFD, fd as u32, &mut info, WEXITED), EAGAIN);
        write(go, b"!");
        assert!(ended(fd, 10_000));
        ok(waitid(P_PIDFD, fd as u32, &mut info, WEXITED));
        assert_eq!((info.si_pid(), info.si_status()), (pid, 9));
        fails!(waitid(P_PIDFD, fd as u32, &mut info, WEXITED), ECHILD);
        fails!(waitid(P_PIDFD, gate as u32, &mut info, WEXITED), EBADF);
    }
}

fn descriptors_of_another_process_can_be_copied() {
    let (out, into) = pipe();
    let (gate, go) = pipe();
    let pid = child(|| unsafe {
        let (r, w) = pipe();
        libc::write(w, b"theirs".as_ptr().cast(), 6);
        write(into, &r.to_ne_bytes());
        close(go);
        read(gate, 1);
        0
    });
    let theirs = i32::from_ne_bytes(read(out, 4).try_into().unwrap());
    let fd = ok(pidfd_open(pid, 0));
    unsafe {
        let copy = ok(syscall(SYS_pidfd_getfd, fd, theirs, 0)) as i32;
        assert_eq!(fcntl(copy, F_GETFD), FD_CLOEXEC);
        assert_eq!(read(copy, 10), b"theirs");
        fails!(syscall(SYS_pidfd_getfd, fd, 999, 0), EBADF);
        fails!(syscall(SYS_pidfd_getfd, fd, theirs, 1), EINVAL);
        write(go, b"!");
        wait_for(pid);
        fails!(syscall(SYS_pidfd_getfd, fd, theirs, 0), ESRCH);
    }
    // Not from everybody.
    let fd = ok(pidfd_open(unsafe { getpid() }, 0));
    child_passes(|| unsafe {
        ok(setresuid(65534, 65534, 65534));
        fails!(syscall(SYS_pidfd_getfd, fd, 0, 0), EPERM);
    });
}

fn descriptors_are_checked() {
    unsafe {
        fails!(pidfd_open(0, 0), EINVAL);
        fails!(pidfd_open(-1, 0), EINVAL);
        fails!(pidfd_open(getpid(), 1), EINVAL);
        fails!(pidfd_open(4_000_000, 0), ESRCH);
        let text =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", ok(pidfd_open(getpid(), 0))));
        assert!(text.unwrap().contains(&format!("\nPid:\t{}\n", getpid())));
    }
}

fn kcmp_tells_what_is_shared() {
    const FILE: i32 = 0;
    const VM: i32 = 1;
    const FILES: i32 = 2;
    let kcmp = |pid: pid_t, kind: i32, left: i32, right: i32| unsafe {
        syscall(SYS_kcmp, getpid(), pid, kind, left, right)
    };
    let (r, w) = pipe();
    let copy = ok(unsafe { dup(r) });
    let me = unsafe { getpid() };
    if kcmp(me, VM, 0, 0) == -1 {
        // Linux may be built without it.
        let errno = std::io::Error::last_os_error().raw_os_error();
        assert_eq!(errno, Some(ENOSYS));
        return;
    }
    assert_eq!(kcmp(me, VM, 0, 0), 0);
    assert_eq!(kcmp(me, FILE, r, copy), 0);
    let order = kcmp(me, FILE, r, w);
    assert!(order == 1 || order == 2);
    assert_eq!(kcmp(me, FILE, w, r), 3 - order);
    let pid = child(|| {
        pause_ms(20_000);
        0
    });
    assert_eq!(kcmp(pid, FILE, r, r), 0);
    assert!(kcmp(pid, VM, 0, 0) > 0 && kcmp(pid, FILES, 0, 0) > 0);
    unsafe {
        kill(pid, SIGKILL);
        fails!(kcmp(me, FILE, 999, 0), EBADF);
        fails!(kcmp(me, 99, 0, 0), EINVAL);
        wait_for(pid);
        fails!(kcmp(pid, VM, 0, 0), ESRCH);
    }
}
