//! pipe(7).

use crate::harness::*;
use crate::harness::{pipe, read, write};
use libc::*;
use std::ptr::null_mut;

cases![
    bytes_come_out_in_order,
    end_of_file_when_writers_are_gone,
    nonblocking_ends_say_eagain,
    small_writes_are_atomic,
    blocked_writer_continues,
    capacity_can_be_changed,
    readiness_follows_content,
    wrong_ends_refuse,
    packets_keep_their_borders,
    fionread_counts,
    shell_like_pipeline,
    users_have_limits,
    splicing_takes_whole_pages_of_room,
];

fn bytes_come_out_in_order() {
    let (r, w) = pipe();
    write(w, b"ab");
    write(w, b"cd");
    assert_eq!(read(r, 3), b"abc");
    assert_eq!(read(r, 3), b"d");
}

fn end_of_file_when_writers_are_gone() {
    unsafe {
        let (r, w) = pipe();
        let copy = dup(w);
        write(w, b"x");
        close(w);
        assert_eq!(read(r, 9), b"x");
        close(copy);
        assert_eq!(read(r, 9), b"");
    }
}

fn nonblocking_ends_say_eagain() {
    unsafe {
        let mut fds = [0; 2];
        ok(pipe2(fds.as_mut_ptr(), O_NONBLOCK | O_CLOEXEC));
        let mut buf = [0u8; 65536];
        fails!(libc::read(fds[0], buf.as_mut_ptr().cast(), 1), EAGAIN);
        assert_eq!(libc::write(fds[1], buf.as_ptr().cast(), 65536), 65536);
        fails!(libc::write(fds[1], buf.as_ptr().cast(), 1), EAGAIN);
        assert_eq!(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
        read(fds[0], 4096);
        assert_eq!(
            libc::write(fds[1], buf.as_ptr().cast(), 65536),
            4096,
            "what fits of a large write"
        );
        fails!(pipe2(fds.as_mut_ptr(), 1), EINVAL);
    }
}

fn small_writes_are_atomic() {
    let (r, w) = pipe();
    let writers: Vec<i32> = (0..4u8)
        .map(|me| {
            child(move || {
                for _ in 0..200 {
                    write(w, &[me; 1000]);
                }
                0
            })
        })
        .collect();
    unsafe { close(w) };
    let mut rest = Vec::new();
    loop {
        let got = read(r, 60_000);
        if got.is_empty() {
            break;
        }
        rest.extend(got);
        while rest.len() >= 1000 {
            assert!(rest[..1000].iter().all(|&byte| byte == rest[0]), "a write was torn");
            rest.drain(..1000);
        }
    }
    assert!(rest.is_empty());
    writers.into_iter().for_each(|pid| assert_eq!(wait_for(pid), 0));
}

fn blocked_writer_continues() {
    let (r, w) = pipe();
    let pid = child(|| {
        write(w, &vec![7; 300_000]);
        0
    });
    unsafe { close(w) };
    let mut total = 0;
    loop {
        let got = read(r, 10_000).len();
        if got == 0 {
            break;
        }
        total += got;
    }
    assert_eq!((total, wait_for(pid)), (300_000, 0));
}

fn capacity_can_be_changed() {
    unsafe {
        let (_r, w) = pipe();
        assert_eq!(fcntl(w, F_GETPIPE_SZ), 65536);
        assert_eq!(fcntl(w, F_SETPIPE_SZ, 5000), 8192);
        assert_eq!(fcntl(w, F_SETPIPE_SZ, 1 << 20), 1 << 20);
        write(w, &vec![0; 100_000]);
        fails!(fcntl(w, F_SETPIPE_SZ, 4096), EBUSY);
    }
}

fn events(fd: i32, want: i16) -> i16 {
    let mut fds = [pollfd { fd, events: want, revents: 0 }];
    ok(unsafe { poll(fds.as_mut_ptr(), 1, 0) });
    fds[0].revents
}

fn readiness_follows_content() {
    unsafe {
        let (r, w) = pipe();
        assert_eq!((events(r, POLLIN), events(w, POLLOUT)), (0, POLLOUT));
        write(w, &vec![0; 65536]);
        assert_eq!((events(r, POLLIN), events(w, POLLOUT)), (POLLIN, 0));
        close(w);
        assert_eq!(events(r, POLLIN), POLLIN | POLLHUP);
        let (r, w) = pipe();
        close(r);
        assert_eq!(events(w, POLLOUT), POLLOUT | POLLERR);
    }
}

fn wrong_ends_refuse() {
    unsafe {
        let (r, w) = pipe();
        fails!(libc::write(r, c"x".as_ptr().cast(), 1), EBADF);
        fails!(libc::read(w, null_mut(), 1), EBADF);
        fails!(libc::pipe(8 as *mut c_int), EFAULT);
    }
}

fn packets_keep_their_borders() {
    unsafe {
        let mut fds = [0; 2];
        ok(pipe2(fds.as_mut_ptr(), O_DIRECT));
        write(fds[1], b"first");
        write(fds[1], b"second");
        assert_eq!(read(fds[0], 3), b"fir", "the rest of a packet is dropped");
        assert_eq!(read(fds[0], 99), b"second");
    }
}

fn fionread_counts() {
    unsafe {
        let (r, w) = pipe();
        write(w, b"12345");
        let mut n = 0;
        ok(ioctl(r, FIONREAD, &mut n));
        assert_eq!(n, 5);
    }
}

fn shell_like_pipeline() {
    // Like `printf | cat | wc -c`: three processes, two pipes, everything by descriptors 0 and 1.
    unsafe {
        let (r1, w1) = pipe();
        let (r2, w2) = pipe();
        let first = child(|| {
            dup2(w1, 1);
            for fd in [r1, w1, r2, w2] {
                close(fd);
            }
            for _ in 0..100 {
                write(1, &[b'x'; 999]);
            }
            0
        });
        let second = child(|| {
            dup2(r1, 0);
            dup2(w2, 1);
            for fd in [r1, w1, r2, w2] {
                close(fd);
            }
            loop {
                let got = read(0, 4096);
                if got.is_empty() {
                    return 0;
                }
                write(1, &got);
            }
        });
        for fd in [r1, w1, w2] {
            close(fd);
        }
        let mut total = 0;
        loop {
            let got = read(r2, 65536).len();
            if got == 0 {
                break;
            }
            total += got;
        }
        assert_eq!((total, wait_for(first), wait_for(second)), (99_900, 0, 0));
    }
}

fn users_have_limits() {
    let limit = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/{name}")).unwrap();
        text.trim().parse::<i32>().unwrap()
    };
    let (most, soft) = (limit("pipe-max-size"), limit("pipe-user-pages-soft"));
    child_passes(|| unsafe {
        let many = rlimit { rlim_cur: 4096, rlim_max: 4096 };
        ok(setrlimit(RLIMIT_NOFILE, &many));
        ok(setuid(4321));
        let (_, w) = pipe();
        let full = fcntl(w, F_GETPIPE_SZ);
        fails!(fcntl(w, F_SETPIPE_SZ, most * 2), EPERM);
        assert_eq!(ok(fcntl(w, F_SETPIPE_SZ, most)), most);
        // One pipe after the other takes what the user may have.
        let mut pages = most / 4096;
        let mut last = w;
        while pages + most / 4096 <= soft {
            last = pipe().1;
            assert_eq!(fcntl(last, F_GETPIPE_SZ), full);
            if fcntl(last, F_SETPIPE_SZ, most) != most {
                break;
            }
            pages += most / 4096;
        }
        while pages + full / 4096 <= soft {
            last = pipe().1;
            pages += full / 4096;
        }
        // Further ones are small, and don't grow.
        let (_, small) = pipe();
        assert_eq!(fcntl(small, F_GETPIPE_SZ), 8192);
        fails!(fcntl(small, F_SETPIPE_SZ, full), EPERM);
        assert_eq!(ok(fcntl(small, F_SETPIPE_SZ, 4096)), 4096);
        close(last);
    });
    // It is the user's limit, not everybody's.
    assert_eq!(unsafe { fcntl(pipe().1, F_GETPIPE_SZ) }, 65536);
}

fn splicing_takes_whole_pages_of_room() {
    unsafe {
        let (from, to) = (pipe(), pipe());
        ok(fcntl(to.1, F_SETPIPE_SZ, 4096));
        write(from.1, &[1; 4096]);
        write(to.1, &[2; 4096 - 128]);
        // A page that has room yet is not shared with what is spliced.
        let none = null_mut();
        fails!(splice(from.0, none, to.1, none, 4096, SPLICE_F_NONBLOCK), EAGAIN);
        read(to.0, 4096);
        assert_eq!(ok(splice(from.0, none, to.1, none, 4096, SPLICE_F_NONBLOCK)), 4096);
        // No file reaches beyond what an offset can say.
        let file = ok(memfd_create(c"far".as_ptr(), 0));
        let mut at = i64::MAX - 1;
        fails!(splice(to.0, none, file, &mut at, 3, 0), EINVAL);
        assert_eq!(read(to.0, 8192), [1; 4096]);
    }
}
