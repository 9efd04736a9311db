//! System V semaphores and message queues, POSIX message queues, Linux asynchronous I/O.

use crate::harness::{c, child, child_passes, ok, pause_ms, pipe, scratch, wait_for};
use std::time::{Duration, Instant};

cases![
    semaphores_by_key_and_id,
    semaphore_operations_are_atomic,
    a_semaphore_operation_waits_until_it_can_be_done,
    semaphore_waits_end_by_removal_signal_and_timeout,
    semaphore_undo_at_exit,
    semaphore_permissions,
    messages_by_type,
    message_queue_limits_and_removal,
    message_copy_looks_without_taking,
    mqueue_orders_by_priority,
    mqueue_waits_and_times_out,
    mqueue_attributes_and_names,
    mqueue_notifies_once,
    mqueue_tells_threads_by_netlink,
    mqueue_is_pollable,
    aio_reads_and_writes,
    aio_refuses_what_is_wrong,
    aio_signals_an_eventfd,
];

fn semget(key: i32, count: i32, flags: i32) -> i32 {
    unsafe { libc::semget(key, count, flags) }
}

fn private_set(count: i32) -> i32 {
    ok(semget(libc::IPC_PRIVATE, count, 0o600))
}

fn sem_op(number: u16, change: i16, flags: i32) -> libc::sembuf {
    libc::sembuf { sem_num: number, sem_op: change, sem_flg: flags as i16 }
}

fn semop(id: i32, ops: &mut [libc::sembuf]) -> i32 {
    unsafe { libc::semop(id, ops.as_mut_ptr(), ops.len()) }
}

fn value(id: i32, number: i32) -> i32 {
    ok(unsafe { libc::semctl(id, number, libc::GETVAL) })
}

fn remove_set(id: i32) {
    ok(unsafe { libc::semctl(id, 0, libc::IPC_RMID) });
}

/// A key that nobody else uses.
fn key() -> i32 {
    0x6432_0000 | std::process::id() as i32 & 0xffff
}

fn semaphores_by_key_and_id() {
    unsafe {
        let create = libc::IPC_CREAT | 0o640;
        let id = ok(semget(key(), 3, create | libc::IPC_EXCL));
        fails!(semget(key(), 3, create | libc::IPC_EXCL), EEXIST);
        assert_eq!(semget(key(), 2, 0), id);
        fails!(semget(key(), 4, 0), EINVAL);
        fails!(semget(key() + 1, 1, 0), ENOENT);
        fails!(semget(libc::IPC_PRIVATE, 0, create), EINVAL);
        fails!(semget(libc::IPC_PRIVATE, -1, create), EINVAL);
        fails!(semget(libc::IPC_PRIVATE, 32001, create), EINVAL);
        let values = [3u16, 0, 32767];
        ok(libc::semctl(id, 0, libc::SETALL, values.as_ptr()));
        let mut seen = [9u16; 3];
        ok(libc::semctl(id, 0, libc::GETALL, seen.as_mut_ptr()));
        assert_eq!(seen, values);
        fails!(libc::semctl(id, 0, libc::SETVAL, 32768), ERANGE);
        fails!(libc::semctl(id, 0, libc::SETVAL, -1), ERANGE);
        fails!(libc::semctl(id, 3, libc::SETVAL, 1), EINVAL);
        fails!(libc::semctl(id, 0, libc::SETALL, 8usize), EFAULT);
        let mut stat: libc::semid_ds = std::mem::zeroed();
        ok(libc::semctl(id, 0, libc::IPC_STAT, &mut stat));
        assert_eq!((stat.sem_nsems, stat.sem_otime), (3, 0));
        assert_eq!((stat.sem_perm.__key, stat.sem_perm.mode), (key(), 0o640));
        assert!(stat.sem_ctime > 1_600_000_000);
        stat.sem_perm.mode = 0o7600;
        ok(libc::semctl(id, 0, libc::IPC_SET, &stat));
        ok(semop(id, &mut [sem_op(0, -1, 0)]));
        ok(libc::semctl(id, 0, libc::IPC_STAT, &mut stat));
        assert_eq!(stat.sem_perm.mode, 0o600);
        assert!(stat.sem_otime >= stat.sem_ctime - 1);
        assert_eq!(libc::semctl(id, 0, libc::GETPID), libc::getpid());
        remove_set(id);
        fails!(libc::semctl(id, 0, libc::GETVAL), EINVAL);
        fails!(semop(id, &mut [sem_op(0, 1, 0)]), EINVAL);
    }
}

fn semaphore_operations_are_atomic() {
    unsafe {
        let id = private_set(2);
        let no = libc::IPC_NOWAIT;
        ok(semop(id, &mut [sem_op(0, 5, 0), sem_op(1, 1, 0)]));
        fails!(semop(id, &mut [sem_op(0, -5, no), sem_op(1, -2, no)]), EAGAIN);
        assert_eq!((value(id, 0), value(id, 1)), (5, 1));
        // Later operations of a list see what earlier ones did.
        ok(semop(id, &mut [sem_op(1, -1, no), sem_op(1, 0, no), sem_op(1, 4, no)]));
        assert_eq!(value(id, 1), 4);
        fails!(semop(id, &mut [sem_op(0, -1, no), sem_op(1, 32767, no)]), ERANGE);
        assert_eq!(value(id, 0), 5);
        fails!(semop(id, &mut [sem_op(2, 1, 0)]), EFBIG);
        fails!(semop(id, &mut []), EINVAL);
        let mut many = vec![sem_op(0, 0, no); 501];
        fails!(semop(id, &mut many), E2BIG);
        fails!(libc::semop(id, 16 as *mut libc::sembuf, 1), EFAULT);
        fails!(semop(-1, &mut [sem_op(0, 1, 0)]), EINVAL);
        remove_set(id);
    }
}

fn a_semaphore_operation_waits_until_it_can_be_done() {
    let id = private_set(2);
    let taker = child(|| {
        ok(semop(id, &mut [sem_op(0, -2, 0), sem_op(1, 1, 0)]));
        0
    });
    let count = |command| ok(unsafe { libc::semctl(id, 0, command) });
    while count(libc::GETNCNT) == 0 {
        pause_ms(1);
    }
    ok(semop(id, &mut [sem_op(0, 1, 0)]));
    pause_ms(20);
    assert_eq!((count(libc::GETNCNT), value(id, 1)), (1, 0));
    ok(semop(id, &mut [sem_op(0, 2, 0)]));
    assert_eq!(wait_for(taker), 0);
    assert_eq!((value(id, 0), value(id, 1), count(libc::GETNCNT)), (1, 1, 0));
    let waits_for_zero = child(|| {
        ok(semop(id, &mut [sem_op(0, 0, 0)]));
        0
    });
    while count(libc::GETZCNT) == 0 {
        pause_ms(1);
    }
    ok(semop(id, &mut [sem_op(0, -1, 0)]));
    assert_eq!(wait_for(waits_for_zero), 0);
    remove_set(id);
}

fn semaphore_waits_end_by_removal_signal_and_timeout() {
    unsafe {
        let id = private_set(1);
        let removed = child(|| {
            fails!(semop(id, &mut [sem_op(0, -1, 0)]), EIDRM);
            0
        });
        extern "C" fn nothing(_: i32) {}
        let interrupted = child(|| {
            // Not restarted although the handler asks for it.
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            ok(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()));
            let mut timer: libc::itimerval = std::mem::zeroed();
            // Again and again: the first may come before the wait has begun.
            (timer.it_value.tv_usec, timer.it_interval.tv_usec) = (20_000, 20_000);
            ok(libc::syscall(libc::SYS_setitimer, 0, &timer, 0));
            fails!(semop(id, &mut [sem_op(0, -1, 0)]), EINTR);
            0
        });
        assert_eq!(wait_for(interrupted), 0);
        let started = Instant::now();
        let timeout = libc::timespec { tv_sec: 0, tv_nsec: 30_000_000 };
        let timed = |timeout: &libc::timespec| {
            libc::syscall(libc::SYS_semtimedop, id, &mut sem_op(0, -1, 0), 1, timeout)
        };
        fails!(timed(&timeout), EAGAIN);
        assert!(started.elapsed() >= Duration::from_millis(30));
        let wrong = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
        fails!(timed(&wrong), EINVAL);
        while libc::semctl(id, 0, libc::GETNCNT) == 0 {
            pause_ms(1);
        }
        remove_set(id);
        assert_eq!(wait_for(removed), 0);
    }
}

fn semaphore_undo_at_exit() {
    let id = private_set(2);
    ok(semop(id, &mut [sem_op(0, 5, 0)]));
    child_passes(|| {
        ok(semop(id, &mut [sem_op(0, -3, libc::SEM_UNDO), sem_op(1, 2, libc::SEM_UNDO)]));
        assert_eq!((value(id, 0), value(id, 1)), (2, 2));
        // A child has nothing to undo.
        child_passes(|| ());
        assert_eq!(value(id, 0), 2);
    });
    assert_eq!((value(id, 0), value(id, 1)), (5, 0));
    // Setting a value forgets what would be undone.
    child_passes(|| {
        ok(semop(id, &mut [sem_op(0, -3, libc::SEM_UNDO)]));
        ok(unsafe { libc::semctl(id, 0, libc::SETVAL, 7) });
    });
    assert_eq!(value(id, 0), 7);
    remove_set(id);
}

fn semaphore_permissions() {
    // The child has a process ID of its own.
    let parent_key = key();
    let id = ok(semget(parent_key, 1, libc::IPC_CREAT | 0o604));
    child_passes(|| unsafe {
        ok(libc::setgroups(0, std::ptr::null()));
        ok(libc::setgid(65534));
        ok(libc::setuid(65534));
        assert_eq!(semget(parent_key, 1, 0o004), id);
        fails!(semget(parent_key, 1, 0o002), EACCES);
        assert_eq!(value(id, 0), 0);
        fails!(semop(id, &mut [sem_op(0, 1, 0)]), EACCES);
        ok(semop(id, &mut [sem_op(0, 0, 0)]));
        fails!(libc::semctl(id, 0, libc::SETVAL, 1), EACCES);
        fails!(libc::semctl(id, 0, libc::IPC_RMID), EPERM);
    });
    remove_set(id);
}

#[repr(C)]
struct Message {
    kind: libc::c_long,
    text: [u8; 64],
}

fn send(id: i32, kind: i64, text: &[u8], flags: i32) -> i32 {
    let mut message = Message { kind, text: [0; 64] };
    message.text[..text.len()].copy_from_slice(text);
    unsafe { libc::msgsnd(id, (&raw const message).cast(), text.len(), flags) }
}

/// Type and text of what arrives.
fn receive(id: i32, kind: i64, flags: i32) -> (i64, String) {
    let mut message = Message { kind: 0, text: [0; 64] };
    let n = ok(unsafe { libc::msgrcv(id, (&raw mut message).cast(), 64, kind, flags) });
    (message.kind, String::from_utf8_lossy(&message.text[..n as usize]).into_owned())
}

fn msgrcv(id: i32, max: usize, kind: i64, flags: i32) -> isize {
    let mut message = Message { kind: 0, text: [0; 64] };
    unsafe { libc::msgrcv(id, (&raw mut message).cast(), max, kind, flags) }
}

fn private_queue() -> i32 {
    ok(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) })
}

fn messages_by_type() {
    unsafe {
        let id = private_queue();
        for (kind, text) in [(5, "five"), (3, "three"), (4, "four"), (3, "drei"), (9, "")] {
            ok(send(id, kind, text.as_bytes(), 0));
        }
        assert_eq!(receive(id, 4, 0), (4, "four".into()));
        assert_eq!(receive(id, -4, 0), (3, "three".into()));
        assert_eq!(receive(id, 5, libc::MSG_EXCEPT), (3, "drei".into()));
        let no = libc::IPC_NOWAIT;
        fails!(msgrcv(id, 64, -4, no), ENOMSG);
        fails!(msgrcv(id, 2, 5, no), E2BIG);
        assert_eq!(msgrcv(id, 2, 5, no | libc::MSG_NOERROR), 2);
        assert_eq!(receive(id, 0, 0), (9, String::new()));
        fails!(send(id, 0, b"x", 0), EINVAL);
        fails!(send(id, -1, b"x", 0), EINVAL);
        fails!(msgrcv(id, usize::MAX, 0, no), EINVAL);
        fails!(libc::msgsnd(id, 8 as *const libc::c_void, 1, 0), EFAULT);
        let big = Box::new((1i64, [0u8; 8193]));
        fails!(libc::msgsnd(id, (&raw const *big).cast(), 8193, 0), EINVAL);
        let reader = child(|| {
            assert_eq!(receive(id, 2, 0), (2, "at last".into()));
            0
        });
        pause_ms(20);
        ok(send(id, 1, b"not yet", 0));
        ok(send(id, 2, b"at last", 0));
        assert_eq!(wait_for(reader), 0);
        ok(libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()));
    }
}

fn message_queue_limits_and_removal() {
    unsafe {
        let id = private_queue();
        let mut stat: libc::msqid_ds = std::mem::zeroed();
        ok(libc::msgctl(id, libc::IPC_STAT, &mut stat));
        assert_eq!((stat.msg_qnum, stat.msg_qbytes, stat.msg_lspid), (0, 16384, 0));
        stat.msg_qbytes = 10;
        ok(libc::msgctl(id, libc::IPC_SET, &mut stat));
        ok(send(id, 1, b"123456", 0));
        fails!(send(id, 1, b"12345", libc::IPC_NOWAIT), EAGAIN);
        let writer = child(|| {
            ok(send(id, 1, b"12345", 0));
            0
        });
        pause_ms(20);
        ok(libc::msgctl(id, libc::IPC_STAT, &mut stat));
        assert_eq!((stat.msg_qnum, stat.msg_lspid), (1, libc::getpid()));
        assert_eq!(receive(id, 0, 0).1, "123456");
        assert_eq!(wait_for(writer), 0);
        let reader = child(|| {
            receive(id, 0, 0);
            fails!(msgrcv(id, 64, 0, 0), EIDRM);
            0
        });
        pause_ms(20);
        ok(libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()));
        assert_eq!(wait_for(reader), 0);
        fails!(send(id, 1, b"x", 0), EINVAL);
    }
}

fn message_copy_looks_without_taking() {
    const MSG_COPY: i32 = 0o40000;
    unsafe {
        let id = private_queue();
        ok(send(id, 7, b"first", 0));
        ok(send(id, 8, b"second", 0));
        assert_eq!(receive(id, 1, MSG_COPY | libc::IPC_NOWAIT), (8, "second".into()));
        assert_eq!(receive(id, 0, MSG_COPY | libc::IPC_NOWAIT), (7, "first".into()));
        fails!(msgrcv(id, 64, 2, MSG_COPY | libc::IPC_NOWAIT), ENOMSG);
        fails!(msgrcv(id, 64, 0, MSG_COPY), EINVAL);
        assert_eq!(receive(id, 0, 0), (7, "first".into()));
        ok(libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()));
    }
}

fn mq_attr(messages: i64, len: i64) -> libc::mq_attr {
    let mut attr: libc::mq_attr = unsafe { std::mem::zeroed() };
    (attr.mq_maxmsg, attr.mq_msgsize) = (messages, len);
    attr
}

/// A new queue of the case's own, already without a name.
fn queue(messages: i64, len: i64, flags: i32) -> i32 {
    let name = c(&format!("/guest-tests-{}", std::process::id()));
    let mut attr = mq_attr(messages, len);
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | flags;
    unsafe {
        let fd = ok(libc::mq_open(name.as_ptr(), flags, 0o600, &raw mut attr));
        ok(libc::mq_unlink(name.as_ptr()));
        fd
    }
}

fn mq_send(fd: i32, text: &str, priority: u32) -> i32 {
    unsafe { libc::mq_send(fd, text.as_ptr().cast(), text.len(), priority) }
}

fn mq_receive(fd: i32) -> (String, u32) {
    let (mut text, mut priority) = ([0u8; 64], 0);
    let n = ok(unsafe { libc::mq_receive(fd, text.as_mut_ptr().cast(), 64, &mut priority) } as i64);
    (String::from_utf8_lossy(&text[..n as usize]).into_owned(), priority)
}

fn mqueue_orders_by_priority() {
    unsafe {
        let fd = queue(5, 64, 0);
        for (text, priority) in [("low", 1), ("high", 32767), ("mid", 5), ("mid too", 5)] {
            ok(mq_send(fd, text, priority));
        }
        fails!(mq_send(fd, "x", 32768), EINVAL);
        assert_eq!(mq_receive(fd), ("high".into(), 32767));
        assert_eq!(mq_receive(fd), ("mid".into(), 5));
        assert_eq!(mq_receive(fd), ("mid too".into(), 5));
        assert_eq!(mq_receive(fd), ("low".into(), 1));
        fails!(mq_send(fd, &"x".repeat(65), 0), EMSGSIZE);
        let mut text = [0u8; 63];
        fails!(libc::mq_receive(fd, text.as_mut_ptr().cast(), 63, std::ptr::null_mut()), EMSGSIZE);
        fails!(mq_send(1_000_000, "x", 0), EBADF);
        let (read_end, _write_end) = pipe();
        fails!(mq_send(read_end, "x", 0), EBADF);
    }
}

fn mqueue_waits_and_times_out() {
    unsafe {
        let fd = queue(1, 64, 0);
        let in_ms = |ms: i64| {
            let mut now: libc::timespec = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_REALTIME, &mut now);
            let ns = now.tv_nsec + ms * 1_000_000;
            libc::timespec { tv_sec: now.tv_sec + ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 }
        };
        let started = Instant::now();
        let mut text = [0u8; 64];
        let none = std::ptr::null_mut();
        fails!(
            libc::mq_timedreceive(fd, text.as_mut_ptr().cast(), 64, none, &in_ms(30)),
            ETIMEDOUT
        );
        assert!(started.elapsed() >= Duration::from_millis(25));
        let wrong = libc::timespec { tv_sec: 1, tv_nsec: -1 };
        fails!(libc::mq_timedreceive(fd, text.as_mut_ptr().cast(), 64, none, &wrong), EINVAL);
        ok(mq_send(fd, "one", 0));
        fails!(libc::mq_timedsend(fd, b"x".as_ptr().cast(), 1, 0, &in_ms(20)), ETIMEDOUT);
        let sender = child(|| ok(mq_send(fd, "two", 0)));
        pause_ms(20);
        assert_eq!(mq_receive(fd).0, "one");
        assert_eq!(mq_receive(fd).0, "two");
        assert_eq!(wait_for(sender), 0);
        let mut attr = mq_attr(0, 0);
        attr.mq_flags = libc::O_NONBLOCK.into();
        ok(libc::mq_setattr(fd, &attr, none.cast()));
        fails!(libc::mq_receive(fd, text.as_mut_ptr().cast(), 64, none), EAGAIN);
        ok(mq_send(fd, "three", 0));
        fails!(mq_send(fd, "four", 0), EAGAIN);
    }
}

fn mqueue_attributes_and_names() {
    unsafe {
        let name = c(&format!("/guest-tests-{}", std::process::id()));
        fails!(libc::mq_open(name.as_ptr(), libc::O_RDWR), ENOENT);
        let create = libc::O_RDWR | libc::O_CREAT;
        let none = std::ptr::null_mut::<libc::mq_attr>();
        let fd = ok(libc::mq_open(name.as_ptr(), create, 0o600, none));
        fails!(libc::mq_open(name.as_ptr(), create | libc::O_EXCL, 0o600, none), EEXIST);
        let mut attr = mq_attr(0, 0);
        ok(libc::mq_getattr(fd, &mut attr));
        assert_eq!((attr.mq_maxmsg, attr.mq_msgsize, attr.mq_curmsgs), (10, 8192, 0));
        for (messages, len) in [(0, 1), (1, 0), (-1, 1), (1, -1), (65537, 1)] {
            let other = c(&format!("/guest-tests-x-{}", std::process::id()));
            let mut attr = mq_attr(messages, len);
            fails!(libc::mq_open(other.as_ptr(), create, 0o600, &raw mut attr), EINVAL);
        }
        fails!(libc::mq_open(c"/a/b".as_ptr(), create, 0o600, none), EACCES);
        let long = c(&format!("/{}", "n".repeat(256)));
        fails!(libc::mq_open(long.as_ptr(), create, 0o600, none), ENAMETOOLONG);
        // Descriptors don't survive execve(2).
        assert_eq!(libc::fcntl(fd, libc::F_GETFD), libc::FD_CLOEXEC);
        let reader = ok(libc::mq_open(name.as_ptr(), libc::O_RDONLY));
        fails!(mq_send(reader, "x", 0), EBADF);
        child_passes(|| {
            ok(libc::setgid(65534));
            ok(libc::setuid(65534));
            fails!(libc::mq_open(name.as_ptr(), libc::O_RDONLY), EACCES);
            fails!(libc::mq_unlink(name.as_ptr()), EACCES);
        });
        ok(libc::mq_unlink(name.as_ptr()));
        fails!(libc::mq_unlink(name.as_ptr()), ENOENT);
        ok(mq_send(fd, "still here", 0));
    }
}

fn mqueue_notifies_once() {
    unsafe {
        let fd = queue(4, 64, 0);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut set, libc::SIGUSR1);
        ok(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()));
        let mut event: libc::sigevent = std::mem::zeroed();
        (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_SIGNAL, libc::SIGUSR1);
        event.sigev_value.sival_ptr = 77 as *mut libc::c_void;
        let notify = |event: *const libc::sigevent| libc::syscall(libc::SYS_mq_notify, fd, event);
        ok(notify(&event));
        fails!(notify(&event), EBUSY);
        ok(mq_send(fd, "one", 0));
        let mut info: libc::siginfo_t = std::mem::zeroed();
        assert_eq!(ok(libc::sigwaitinfo(&set, &mut info)), libc::SIGUSR1);
        assert_eq!((info.si_code, info.si_pid()), (libc::SI_MESGQ, libc::getpid()));
        assert_eq!(info.si_value().sival_ptr as usize, 77);
        mq_receive(fd);
        ok(mq_send(fd, "two", 0));
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        fails!(libc::sigtimedwait(&set, &mut info, &at_once), EAGAIN);
        // Not for a queue that isn't empty; and a registration can be taken back.
        ok(notify(&event));
        ok(mq_send(fd, "three", 0));
        fails!(libc::sigtimedwait(&set, &mut info, &at_once), EAGAIN);
        ok(notify(std::ptr::null()));
        ok(notify(&event));
    }
}

fn mqueue_tells_threads_by_netlink() {
    unsafe {
        let fd = queue(4, 64, 0);
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let netlink = ok(libc::socket(libc::AF_NETLINK, kind, 0));
        // As glibc does for SIGEV_THREAD: the socket in the signal's place, and bytes to send there.
        let cookie = [5u8; 32];
        let mut event: libc::sigevent = std::mem::zeroed();
        (event.sigev_notify, event.sigev_signo) = (2, netlink);
        event.sigev_value.sival_ptr = (&raw const cookie).cast_mut().cast();
        let notify = |event: *const libc::sigevent| libc::syscall(libc::SYS_mq_notify, fd, event);
        let told = || {
            let mut got = [0u8; 64];
            assert_eq!(libc::recv(netlink, got.as_mut_ptr().cast(), 64, 0), 32);
            assert_eq!(got[..31], cookie[..31]);
            got[31]
        };
        ok(notify(&event));
        ok(mq_send(fd, "one", 0));
        assert_eq!(told(), 1);
        mq_receive(fd);
        ok(notify(&event));
        ok(notify(std::ptr::null()));
        assert_eq!(told(), 2);
        event.sigev_signo = fd;
        fails!(notify(&event), ENOTSOCK);
        event.sigev_signo = ok(libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0));
        fails!(notify(&event), EINVAL);
    }
}

fn mqueue_is_pollable() {
    unsafe {
        let fd = queue(1, 64, 0);
        let ready = || {
            let mut poll = libc::pollfd { fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
            ok(libc::poll(&mut poll, 1, 0));
            poll.revents
        };
        assert_eq!(ready(), libc::POLLOUT);
        ok(mq_send(fd, "x", 0));
        assert_eq!(ready(), libc::POLLIN);
        mq_receive(fd);
        assert_eq!(ready(), libc::POLLOUT);
    }
}

/// `struct iocb`
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

fn io_setup(count: u32) -> u64 {
    let mut context = 0u64;
    ok(unsafe { libc::syscall(libc::SYS_io_setup, count, &mut context) });
    context
}

fn io_submit(context: u64, requests: &[&Iocb]) -> i64 {
    unsafe { libc::syscall(libc::SYS_io_submit, context, requests.len(), requests.as_ptr()) }
}

/// Events: data, request, result, second result.
fn io_getevents(context: u64, least: i64, most: i64) -> Vec<[i64; 4]> {
    let mut events = vec![[0i64; 4]; most as usize];
    let timeout = libc::timespec { tv_sec: 5, tv_nsec: 0 };
    let n = ok(unsafe {
        let to = events.as_mut_ptr();
        libc::syscall(libc::SYS_io_getevents, context, least, most, to, &timeout)
    });
    events.truncate(n as usize);
    events
}

fn data_file() -> i32 {
    let path = c(&format!("{}/aio", scratch()));
    ok(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC, 0o600) })
}

fn aio_reads_and_writes() {
    let (context, fd) = (io_setup(4), data_file());
    let text = b"asynchronous";
    let write = Iocb {
        data: 1,
        opcode: 1,
        fd: fd as u32,
        buf: text.as_ptr() as u64,
        len: 12,
        offset: 4,
        ..Iocb::default()
    };
    assert_eq!(io_submit(context, &[&write]), 1);
    assert_eq!(io_getevents(context, 1, 4), [[1, (&raw const write) as i64, 12, 0]]);
    let mut bytes = [9u8; 20];
    let read = Iocb { data: 2, opcode: 0, buf: bytes.as_mut_ptr() as u64, len: 20, ..write };
    let read = Iocb { offset: 0, ..read };
    let parts = [(bytes.as_mut_ptr() as u64, 0u64)];
    let vector = Iocb { data: 3, opcode: 7, buf: parts.as_ptr() as u64, len: 1, ..read };
    let sync = Iocb { data: 4, opcode: 2, fd: fd as u32, ..Iocb::default() };
    assert_eq!(io_submit(context, &[&read, &vector, &sync]), 3);
    let mut events = io_getevents(context, 3, 4);
    events.sort();
    assert_eq!(events.iter().map(|e| (e[0], e[2])).collect::<Vec<_>>(), [(2, 16), (3, 0), (4, 0)]);
    assert_eq!(&bytes[..16], b"\0\0\0\0asynchronous");
    // The error of a request is its result.
    let unreadable = Iocb { buf: 4096, ..read };
    assert_eq!(io_submit(context, &[&unreadable]), 1);
    assert_eq!(io_getevents(context, 1, 1)[0][2], -i64::from(libc::EFAULT));
    unsafe {
        ok(libc::syscall(libc::SYS_io_destroy, context));
        fails!(libc::syscall(libc::SYS_io_destroy, context), EINVAL);
    }
}

fn aio_refuses_what_is_wrong() {
    unsafe {
        let mut context = 0u64;
        fails!(libc::syscall(libc::SYS_io_setup, 0, &mut context), EINVAL);
        fails!(libc::syscall(libc::SYS_io_setup, u32::MAX, &mut context), EINVAL);
        fails!(libc::syscall(libc::SYS_io_setup, 1, 8), EFAULT);
        context = 5;
        fails!(libc::syscall(libc::SYS_io_setup, 1, &mut context), EINVAL);
        let (context, fd) = (io_setup(2), data_file());
        let mut byte = 0u8;
        let buf = (&raw mut byte) as u64;
        let good = Iocb { opcode: 1, fd: fd as u32, buf, len: 1, ..Iocb::default() };
        fails!(io_submit(context + 4096, &[&good]), EINVAL);
        fails!(libc::syscall(libc::SYS_io_submit, context, -1i64, 0usize), EINVAL);
        assert_eq!(io_submit(context, &[]), 0);
        fails!(libc::syscall(libc::SYS_io_submit, context, 1i64, 8usize), EFAULT);
        fails!(io_submit(context, &[&Iocb { opcode: 99, ..good }]), EINVAL);
        fails!(io_submit(context, &[&Iocb { fd: 1_000_000, ..good }]), EBADF);
        fails!(io_submit(context, &[&Iocb { reserved: 1, ..good }]), EINVAL);
        fails!(io_submit(context, &[&Iocb { flags: 1, resfd: fd as u32, ..good }]), EINVAL);
        // What comes before the wrong one is done.
        assert_eq!(io_submit(context, &[&good, &Iocb { opcode: 99, ..good }, &good]), 1);
        assert_eq!(io_getevents(context, 0, 2).len(), 1);
        fails!(libc::syscall(libc::SYS_io_getevents, context, 2i64, 1i64, 0usize, 0usize), EINVAL);
        fails!(libc::syscall(libc::SYS_io_getevents, context, -1i64, 1i64, 0usize, 0usize), EINVAL);
        let nothing = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let mut events = [[0u64; 4]; 1];
        let to = events.as_mut_ptr();
        assert_eq!(libc::syscall(libc::SYS_io_getevents, context, 1i64, 1i64, to, &nothing), 0);
    }
}

fn aio_signals_an_eventfd() {
    let (context, fd) = (io_setup(8), data_file());
    let event = ok(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK) });
    let byte = b'x';
    let write = Iocb {
        opcode: 1,
        fd: fd as u32,
        buf: (&raw const byte) as u64,
        len: 1,
        flags: 1,
        resfd: event as u32,
        ..Iocb::default()
    };
    assert_eq!(io_submit(context, &[&write, &write, &write]), 3);
    assert_eq!(io_getevents(context, 3, 8).len(), 3);
    let mut count = 0u64;
    ok(unsafe { libc::read(event, (&raw mut count).cast(), 8) });
    assert_eq!(count, 3);
    // What write(2) can't exceed, the kernel can: an overflow, which poll(2) tells of.
    let most = (u64::MAX - 1).to_ne_bytes();
    ok(unsafe { libc::write(event, most.as_ptr().cast(), 8) });
    assert_eq!(io_submit(context, &[&write]), 1);
    assert_eq!(io_getevents(context, 1, 1).len(), 1);
    let mut poll = libc::pollfd { fd: event, events: libc::POLLIN, revents: 0 };
    ok(unsafe { libc::poll(&mut poll, 1, 60_000) });
    assert_eq!(poll.revents, libc::POLLIN | libc::POLLERR);
    ok(unsafe { libc::read(event, (&raw mut count).cast(), 8) });
    assert_eq!(count, u64::MAX);
}
