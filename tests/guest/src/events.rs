//! poll(2), select(2), epoll(7), eventfd(2), timerfd_create(2), signalfd(2), inotify(7).

use crate::harness::*;
use crate::harness::{pipe, read, write};
use libc::*;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

cases![
    poll_reports_bad_descriptors_and_skips_negative,
    poll_waits_and_times_out,
    ppoll_uses_the_mask,
    select_sets_are_rewritten,
    select_looks_at_what_is_below_its_count,
    epoll_level_and_edge,
    epoll_oneshot_and_modify,
    epoll_refuses_what_it_should,
    epoll_sees_events_from_other_processes,
    epoll_exclusive_wakes_one,
    epoll_forgets_closed_files,
    epoll_nests,
    eventfd_counts,
    eventfd_blocks_and_wakes,
    timerfd_expires,
    timerfd_absolute_and_disarm,
    signalfd_reads_signals,
    inotify_tells_of_changes,
];

fn watch(epoll: i32, op: c_int, fd: i32, events: c_int) -> i32 {
    let mut event = epoll_event { events: events as u32, u64: fd as u64 };
    unsafe { epoll_ctl(epoll, op, fd, &mut event) }
}

fn ready(epoll: i32, timeout: i32) -> Vec<(u64, u32)> {
    let mut events = [epoll_event { events: 0, u64: 0 }; 16];
    let n = ok(unsafe { epoll_wait(epoll, events.as_mut_ptr(), 16, timeout) });
    events[..n as usize].iter().map(|event| (event.u64, event.events)).collect()
}

fn poll_reports_bad_descriptors_and_skips_negative() {
    unsafe {
        let (r, w) = pipe();
        write(w, b"x");
        let mut fds = [
            pollfd { fd: 999, events: POLLIN, revents: 0 },
            pollfd { fd: -5, events: POLLIN, revents: 77 },
            pollfd { fd: r, events: POLLIN, revents: 0 },
        ];
        assert_eq!(poll(fds.as_mut_ptr(), 3, 0), 2);
        assert_eq!([fds[0].revents, fds[1].revents, fds[2].revents], [POLLNVAL, 0, POLLIN]);
        fails!(poll(8 as *mut pollfd, 1, 0), EFAULT);
        let file = ok(open(c"/proc/self/exe".as_ptr(), O_RDONLY));
        let mut fds = [pollfd { fd: file, events: POLLIN | POLLOUT, revents: 0 }];
        assert_eq!(poll(fds.as_mut_ptr(), 1, 0), 1);
        assert_eq!(fds[0].revents, POLLIN | POLLOUT);
    }
}

fn poll_waits_and_times_out() {
    unsafe {
        let (r, w) = pipe();
        let mut fds = [pollfd { fd: r, events: POLLIN, revents: 0 }];
        let start = Instant::now();
        assert_eq!(poll(fds.as_mut_ptr(), 1, 40), 0);
        assert!(start.elapsed() >= Duration::from_millis(40));
        let pid = child(|| {
            pause_ms(20);
            write(w, b"x");
            0
        });
        assert_eq!(poll(fds.as_mut_ptr(), 1, -1), 1);
        wait_for(pid);
        assert_eq!(poll(null_mut(), 0, 10), 0);
    }
}

extern "C" fn nothing(_signal: c_int) {}

fn ppoll_uses_the_mask() {
    unsafe {
        signal(SIGUSR1, nothing as *const () as usize);
        let mut blocked: sigset_t = zeroed();
        sigaddset(&mut blocked, SIGUSR1);
        sigprocmask(SIG_BLOCK, &blocked, null_mut());
        kill(getpid(), SIGUSR1);
        let open_mask: sigset_t = zeroed();
        let long = timespec { tv_sec: 20, tv_nsec: 0 };
        fails!(ppoll(null_mut(), 0, &long, &open_mask), EINTR);
        let none = timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(ppoll(null_mut(), 0, &none, &blocked), 0);
        let epoll = ok(epoll_create1(0));
        kill(getpid(), SIGUSR1);
        let mut event: epoll_event = zeroed();
        fails!(epoll_pwait(epoll, &mut event, 1, -1, &open_mask), EINTR);
    }
}

fn select_sets_are_rewritten() {
    unsafe {
        let (r, w) = pipe();
        let (r2, _w2) = pipe();
        write(w, b"x");
        let mut readable: fd_set = zeroed();
        let mut writable: fd_set = zeroed();
        FD_SET(r, &mut readable);
        FD_SET(r2, &mut readable);
        FD_SET(w, &mut writable);
        let mut time = timeval { tv_sec: 5, tv_usec: 0 };
        assert_eq!(select(64, &mut readable, &mut writable, null_mut(), &mut time), 2);
        assert!(FD_ISSET(r, &readable) && !FD_ISSET(r2, &readable) && FD_ISSET(w, &writable));
        FD_ZERO(&mut readable);
        FD_SET(60, &mut readable);
        fails!(select(61, &mut readable, null_mut(), null_mut(), null_mut()), EBADF);
        fails!(select(-1, null_mut(), null_mut(), null_mut(), null_mut()), EINVAL);
        let mut time = timeval { tv_sec: 0, tv_usec: 20_000 };
        assert_eq!(select(0, null_mut(), null_mut(), null_mut(), &mut time), 0);
        assert_eq!((time.tv_sec, time.tv_usec), (0, 0), "what is left of the time");
    }
}

fn select_looks_at_what_is_below_its_count() {
    unsafe {
        let (r, w) = pipe();
        write(w, b"x");
        let (r, w) = (ok(dup2(r, 130)), ok(dup2(w, 70)));
        let sets = || {
            let (mut readable, mut writable): (fd_set, fd_set) = (zeroed(), zeroed());
            FD_SET(r, &mut readable);
            FD_SET(w, &mut writable);
            (readable, writable)
        };
        let mut now = timeval { tv_sec: 0, tv_usec: 0 };
        let (mut readable, mut writable) = sets();
        let mut urgent = readable;
        assert_eq!(select(131, &mut readable, &mut writable, &mut urgent, &mut now), 2);
        assert!(FD_ISSET(r, &readable) && FD_ISSET(w, &writable) && !FD_ISSET(r, &urgent));
        // What isn't open doesn't matter beyond the count; what shares a word with it is cleared.
        let (mut readable, mut writable) = sets();
        FD_SET(100, &mut readable);
        assert_eq!(select(71, &mut readable, &mut writable, null_mut(), &mut now), 1);
        assert!(FD_ISSET(r, &readable) && !FD_ISSET(100, &readable) && FD_ISSET(w, &writable));
        // In two sets it counts twice.
        let mut pair = [0; 2];
        ok(socketpair(AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()));
        write(pair[1], b"x");
        let mut readable: fd_set = zeroed();
        FD_SET(pair[0], &mut readable);
        let mut writable = readable;
        assert_eq!(select(128, &mut readable, &mut writable, null_mut(), &mut now), 2);
    }
}

fn epoll_level_and_edge() {
    let epoll = ok(unsafe { epoll_create1(EPOLL_CLOEXEC) });
    let ((r1, w1), (r2, w2)) = (pipe(), pipe());
    ok(watch(epoll, EPOLL_CTL_ADD, r1, EPOLLIN));
    ok(watch(epoll, EPOLL_CTL_ADD, r2, EPOLLIN | EPOLLET));
    assert_eq!(ready(epoll, 0), []);
    write(w1, b"a");
    write(w2, b"b");
    let mut both = ready(epoll, 1000);
    both.sort();
    assert_eq!(both, [(r1 as u64, 1), (r2 as u64, 1)]);
    assert_eq!(ready(epoll, 0), [(r1 as u64, 1)]);
    write(w2, b"more");
    assert_eq!(ready(epoll, 0).len(), 2);
    read(r1, 9);
    assert_eq!(ready(epoll, 0), []);
}

fn epoll_oneshot_and_modify() {
    unsafe {
        let epoll = ok(epoll_create1(0));
        let (r, w) = pipe();
        ok(watch(epoll, EPOLL_CTL_ADD, r, EPOLLIN | EPOLLONESHOT));
        write(w, b"a");
        assert_eq!(ready(epoll, 0).len(), 1);
        write(w, b"b");
        assert_eq!(ready(epoll, 10), []);
        ok(watch(epoll, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLONESHOT));
        assert_eq!(ready(epoll, 0).len(), 1);
        ok(watch(epoll, EPOLL_CTL_DEL, r, 0));
        assert_eq!(watch(epoll, EPOLL_CTL_DEL, r, 0), -1);
        assert_eq!(*__errno_location(), ENOENT);
        // Hang-ups are told unasked.
        ok(watch(epoll, EPOLL_CTL_ADD, r, 0));
        read(r, 9);
        close(w);
        assert_eq!(ready(epoll, 0), [(r as u64, EPOLLHUP as u32)]);
    }
}

fn epoll_refuses_what_it_should() {
    unsafe {
        let epoll = ok(epoll_create1(0));
        let (r, _w) = pipe();
        ok(watch(epoll, EPOLL_CTL_ADD, r, EPOLLIN));
        fails!(watch(epoll, EPOLL_CTL_ADD, r, EPOLLIN), EEXIST);
        fails!(watch(epoll, EPOLL_CTL_ADD, epoll, EPOLLIN), EINVAL);
        fails!(watch(epoll, EPOLL_CTL_ADD, 999, EPOLLIN), EBADF);
        fails!(watch(r, EPOLL_CTL_ADD, epoll, EPOLLIN), EINVAL);
        fails!(watch(epoll, 9, r, EPOLLIN), EINVAL);
        let file = ok(open(c"/proc/self/exe".as_ptr(), O_RDONLY));
        fails!(watch(epoll, EPOLL_CTL_ADD, file, EPOLLIN), EPERM);
        let mut event: epoll_event = zeroed();
        fails!(epoll_wait(epoll, &mut event, 0, 0), EINVAL);
        fails!(epoll_wait(r, &mut event, 1, 0), EINVAL);
        fails!(epoll_create(0), EINVAL);
    }
}

fn epoll_sees_events_from_other_processes() {
    let epoll = ok(unsafe { epoll_create1(0) });
    let (r, w) = pipe();
    ok(watch(epoll, EPOLL_CTL_ADD, r, EPOLLIN));
    let pid = child(|| {
        pause_ms(30);
        write(w, b"x");
        0
    });
    let start = Instant::now();
    assert_eq!(ready(epoll, 30_000).len(), 1);
    assert!(start.elapsed() < Duration::from_secs(20));
    wait_for(pid);
    let start = Instant::now();
    read(r, 1);
    assert_eq!(ready(epoll, 30), []);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

fn epoll_exclusive_wakes_one() {
    let fd = ok(unsafe { eventfd(0, EFD_NONBLOCK) });
    let (r, w) = pipe();
    let pids: Vec<i32> = (0..4)
        .map(|_| {
            child(|| {
                let epoll = ok(unsafe { epoll_create1(0) });
                ok(watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET));
                write(w, b"r");
                if ready(epoll, 2000).is_empty() { 0 } else { 1 }
            })
        })
        .collect();
    let mut waiting = 0;
    while waiting < 4 {
        waiting += read(r, 4).len();
    }
    pids.iter().copied().for_each(crate::harness::until_asleep);
    write(fd, &1u64.to_ne_bytes());
    let woken: i32 = pids.into_iter().map(|pid| WEXITSTATUS(wait_for(pid))).sum();
    assert!((1..4).contains(&woken), "{woken} woken");
}

fn epoll_forgets_closed_files() {
    unsafe {
        let epoll = ok(epoll_create1(0));
        let (r, w) = pipe();
        ok(watch(epoll, EPOLL_CTL_ADD, r, EPOLLIN));
        let copy = dup(r);
        close(r);
        write(w, b"x");
        assert_eq!(ready(epoll, 0).len(), 1, "the description is still open");
        close(copy);
        assert_eq!(ready(epoll, 0), []);
    }
}

fn epoll_nests() {
    let (outer, inner) = unsafe { (ok(epoll_create1(0)), ok(epoll_create1(0))) };
    let (r, w) = pipe();
    ok(watch(inner, EPOLL_CTL_ADD, r, EPOLLIN));
    ok(watch(outer, EPOLL_CTL_ADD, inner, EPOLLIN));
    assert_eq!(ready(outer, 0), []);
    write(w, b"x");
    assert_eq!(ready(outer, 1000), [(inner as u64, 1)]);
    unsafe { fails!(watch(inner, EPOLL_CTL_ADD, outer, EPOLLIN), ELOOP) };
}

fn eventfd_counts() {
    unsafe {
        let fd = ok(eventfd(3, EFD_NONBLOCK));
        write(fd, &4u64.to_ne_bytes());
        assert_eq!(read(fd, 8), 7u64.to_ne_bytes());
        fails!(libc::read(fd, [0u8; 8].as_mut_ptr().cast(), 8), EAGAIN);
        fails!(libc::read(fd, [0u8; 4].as_mut_ptr().cast(), 4), EINVAL);
        fails!(libc::write(fd, u64::MAX.to_ne_bytes().as_ptr().cast(), 8), EINVAL);
        let semaphore = ok(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
        assert_eq!(
            (read(semaphore, 8), read(semaphore, 8)),
            (1u64.to_ne_bytes().to_vec(), 1u64.to_ne_bytes().to_vec())
        );
        fails!(eventfd(0, 0x100), EINVAL);
    }
}

fn eventfd_blocks_and_wakes() {
    let fd = ok(unsafe { eventfd(0, 0) });
    let pid = child(|| {
        pause_ms(30);
        write(fd, &9u64.to_ne_bytes());
        0
    });
    assert_eq!(read(fd, 8), 9u64.to_ne_bytes());
    wait_for(pid);
}

fn timerfd_expires() {
    unsafe {
        let fd = ok(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
        let tick = timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let later = timespec { tv_sec: 100, tv_nsec: 0 };
        ok(timerfd_settime(fd, 0, &itimerspec { it_interval: tick, it_value: later }, null_mut()));
        fails!(libc::read(fd, [0u8; 8].as_mut_ptr().cast(), 8), EAGAIN);
        ok(timerfd_settime(fd, 0, &itimerspec { it_interval: tick, it_value: tick }, null_mut()));
        pause_ms(110);
        let count = u64::from_ne_bytes(read(fd, 8).try_into().unwrap());
        assert!(count >= 4, "{count} expirations in 110 ms of 20 ms");
        let epoll = ok(epoll_create1(0));
        ok(watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN));
        assert_eq!(ready(epoll, 5000).len(), 1);
        let mut now: itimerspec = zeroed();
        ok(timerfd_gettime(fd, &mut now));
        assert_eq!(now.it_interval.tv_nsec, 20_000_000);
        assert!(now.it_value.tv_nsec <= 20_000_000);
    }
}

fn timerfd_absolute_and_disarm() {
    unsafe {
        let fd = ok(timerfd_create(CLOCK_REALTIME, 0));
        let mut at: timespec = zeroed();
        clock_gettime(CLOCK_REALTIME, &mut at);
        at.tv_sec -= 5;
        let past = itimerspec { it_interval: zeroed(), it_value: at };
        ok(timerfd_settime(fd, TFD_TIMER_ABSTIME, &past, null_mut()));
        assert_eq!(read(fd, 8), 1u64.to_ne_bytes());
        let far =
            itimerspec { it_interval: zeroed(), it_value: timespec { tv_sec: 100, tv_nsec: 0 } };
        ok(timerfd_settime(fd, 0, &far, null_mut()));
        let mut old: itimerspec = zeroed();
        ok(timerfd_settime(fd, 0, &zeroed(), &mut old));
        assert!(old.it_value.tv_sec >= 98);
        let bad = itimerspec {
            it_interval: zeroed(),
            it_value: timespec { tv_sec: 0, tv_nsec: 1_000_000_000 },
        };
        fails!(timerfd_settime(fd, 0, &bad, null_mut()), EINVAL);
        fails!(timerfd_create(99, 0), EINVAL);
    }
}

fn signalfd_reads_signals() {
    unsafe {
        let mut set: sigset_t = zeroed();
        sigaddset(&mut set, SIGUSR1);
        sigaddset(&mut set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, null_mut());
        let fd = ok(signalfd(-1, &set, SFD_NONBLOCK));
        fails!(libc::read(fd, [0u8; 128].as_mut_ptr().cast(), 128), EAGAIN);
        kill(getpid(), SIGUSR2);
        kill(getpid(), SIGUSR1);
        let epoll = ok(epoll_create1(0));
        ok(watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN));
        assert_eq!(ready(epoll, 0).len(), 1);
        let got = read(fd, 1024);
        assert_eq!(got.len(), 256);
        let info = &*got.as_ptr().cast::<signalfd_siginfo>();
        assert_eq!((info.ssi_signo, info.ssi_pid), (SIGUSR1 as u32, getpid() as u32));
        assert_eq!(ready(epoll, 0), []);
        let pid = getpid();
        let helper = child(|| {
            pause_ms(30);
            kill(pid, SIGUSR1);
            0
        });
        assert_eq!(ready(epoll, 20_000).len(), 1);
        wait_for(helper);
    }
}

fn inotify_tells_of_changes() {
    unsafe {
        let dir = scratch();
        let fd = ok(inotify_init1(IN_NONBLOCK));
        let wd = ok(inotify_add_watch(
            fd,
            c(&dir).as_ptr(),
            IN_CREATE | IN_DELETE | IN_MODIFY | IN_MOVE,
        ));
        fails!(libc::read(fd, [0u8; 256].as_mut_ptr().cast(), 256), EAGAIN);
        std::fs::write(format!("{dir}/file"), b"x").unwrap();
        std::fs::rename(format!("{dir}/file"), format!("{dir}/other")).unwrap();
        std::fs::remove_file(format!("{dir}/other")).unwrap();
        let raw = read(fd, 4096);
        let mut seen = Vec::new();
        let mut at = 0;
        while at < raw.len() {
            let event = &*raw[at..].as_ptr().cast::<inotify_event>();
            assert_eq!(event.wd, wd);
            let name = &raw[at + 16..at + 16 + event.len as usize];
            let name =
                String::from_utf8(name.iter().copied().take_while(|&byte| byte != 0).collect())
                    .unwrap();
            seen.push((event.mask, name));
            at += 16 + event.len as usize;
        }
        let expected = [
            (IN_CREATE, "file"),
            (IN_MODIFY, "file"),
            (IN_MOVED_FROM, "file"),
            (IN_MOVED_TO, "other"),
            (IN_DELETE, "other"),
        ];
        assert_eq!(seen, expected.map(|(mask, name)| (mask, name.to_owned())));
        ok(inotify_rm_watch(fd, wd));
        fails!(inotify_rm_watch(fd, wd), EINVAL);
    }
}
