//! Waiting for files.

use crate::peer::{Pair, close, pipe, read, write};
use crate::{Case, fastest, ok};

pub const CASES: &[Case] = &[
    ("poll, 100 idle pipes", poll),
    ("select, 100 idle pipes", select),
    ("epoll_wait, 1 ready of 100", epoll),
    ("epoll_ctl, add and remove", epoll_change),
    ("eventfd, write and read", eventfd),
];

fn pipes() -> Vec<Pair> {
    (0..100).map(|_| pipe()).collect()
}

fn end(pipes: &[Pair]) {
    pipes.iter().for_each(|pair| close(pair));
}

fn poll() -> f64 {
    let pipes = pipes();
    let entry = |pair: &Pair| libc::pollfd { fd: pair[0], events: libc::POLLIN, revents: 0 };
    let mut set: Vec<libc::pollfd> = pipes.iter().map(entry).collect();
    let result = fastest(|count| {
        for _ in 0..count {
            ok(unsafe { libc::poll(set.as_mut_ptr(), set.len() as u64, 0) });
        }
    });
    end(&pipes);
    result
}

fn select() -> f64 {
    let pipes = pipes();
    let highest = pipes.iter().map(|pair| pair[0]).max().unwrap_or(0);
    let result = fastest(|count| {
        for _ in 0..count {
            unsafe {
                let mut set: libc::fd_set = std::mem::zeroed();
                pipes.iter().for_each(|pair| libc::FD_SET(pair[0], &mut set));
                let mut now = libc::timeval { tv_sec: 0, tv_usec: 0 };
                let null = std::ptr::null_mut();
                ok(libc::select(highest + 1, &mut set, null, null, &mut now));
            }
        }
    });
    end(&pipes);
    result
}

fn change(epoll: i32, operation: i32, file: i32) {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    ok(unsafe { libc::epoll_ctl(epoll, operation, file, &mut event) });
}

fn epoll() -> f64 {
    let pipes = pipes();
    let epoll = ok(unsafe { libc::epoll_create1(0) }) as i32;
    pipes.iter().for_each(|pair| change(epoll, libc::EPOLL_CTL_ADD, pair[0]));
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
    let result = fastest(|count| {
        for turn in 0..count {
            let [from, to] = pipes[turn as usize % pipes.len()];
            write(to, &[0]);
            assert_eq!(ok(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 8, -1) }), 1);
            assert_eq!(read(from, &mut [0]), 1);
        }
    });
    close(&[epoll]);
    end(&pipes);
    result
}

fn epoll_change() -> f64 {
    let pair = pipe();
    let epoll = ok(unsafe { libc::epoll_create1(0) }) as i32;
    let result = fastest(|count| {
        for _ in 0..count {
            change(epoll, libc::EPOLL_CTL_ADD, pair[0]);
            change(epoll, libc::EPOLL_CTL_DEL, pair[0]);
        }
    });
    close(&[epoll]);
    close(&pair);
    result
}

fn eventfd() -> f64 {
    let file = ok(unsafe { libc::eventfd(0, 0) }) as i32;
    let result = fastest(|count| {
        for _ in 0..count {
            write(file, &1u64.to_ne_bytes());
            assert_eq!(read(file, &mut [0; 8]), 8);
        }
    });
    close(&[file]);
    result
}
