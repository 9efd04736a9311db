//! A server with very many connections at once, all of which are served, idle and closed.
//!
//! ```text
//! guest-tests --connections COUNT
//! ```
//!
//! Both ends are in this machine, so it holds twice as many sockets. Counters of the kernel say
//! whether everything came back.

use crate::fuzz::{counter, grown, settle};
use crate::harness::ok;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// Descriptors that are not connections.
const SPARE: u64 = 64;
/// Heap that a closed connection may keep for the minute of its TIME_WAIT, in bytes.
const REMEMBERED: i64 = 512;
/// What the two ends of an idle connection may cost, in bytes.
const IDLE: i64 = 64 << 10;

/// Echoes single bytes to whoever connects, until `count` have come and gone. Returns how many were
/// open at once.
fn serve(listener: TcpListener, count: usize) -> usize {
    listener.set_nonblocking(true).unwrap();
    let epoll = ok(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
    let watch = |fd: RawFd, number: u64| {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
        ok(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) });
    };
    watch(listener.as_raw_fd(), u64::MAX);
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let (mut open, mut most) = (0, 0);
    while streams.len() < count || open > 0 {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        let found = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 256, -1) };
        for event in &events[..ok(found) as usize] {
            if event.u64 == u64::MAX {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    watch(stream.as_raw_fd(), streams.len() as u64);
                    streams.push(Some(stream));
                    open += 1;
                    most = most.max(open);
                }
                continue;
            }
            let slot = &mut streams[event.u64 as usize];
            let mut byte = [0];
            match slot.as_mut().unwrap().read(&mut byte).unwrap() {
                0 => {
                    *slot = None;
                    open -= 1;
                }
                _ => slot.as_mut().unwrap().write_all(&byte).unwrap(),
            }
        }
    }
    ok(unsafe { libc::close(epoll) });
    most
}

/// One byte there and back on each.
fn ask_all(streams: &mut [TcpStream], salt: u8) {
    for (at, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&[at as u8 ^ salt]).unwrap();
    }
    for (at, stream) in streams.iter_mut().enumerate() {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], at as u8 ^ salt, "connection {at}");
    }
}

/// Bytes that programs could still get.
fn available() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() * 1024
}

fn allow(descriptors: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    ok(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) });
    limit.rlim_cur = limit.rlim_cur.max(descriptors);
    limit.rlim_max = limit.rlim_max.max(descriptors);
    ok(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) });
}

/// Opens, serves and closes `count` connections; returns what one cost while it was idle, in bytes.
fn crowd(count: usize) -> i64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Beyond the standard library's 128, as servers ask for.
    ok(unsafe { libc::listen(listener.as_raw_fd(), 4096) });
    let address: SocketAddr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || serve(listener, count));
    let before = available();
    let mut streams: Vec<TcpStream> = (0..count)
        .map(|at| TcpStream::connect(address).unwrap_or_else(|error| panic!("{at}: {error}")))
        .collect();
    ask_all(&mut streams, 0x5a);
    let cost = (before - available()) / count as i64;
    ask_all(&mut streams, 0xa5);
    drop(streams);
    assert_eq!(server.join().unwrap(), count, "open at once");
    cost
}

/// Runs it; returns the exit status.
pub fn main(words: &[String]) -> i32 {
    let Some(count) = words.first().and_then(|word| word.parse::<usize>().ok()) else {
        eprintln!("usage: guest-tests --connections COUNT");
        return 2;
    };
    allow(2 * count as u64 + SPARE);
    crowd(count.min(64));
    let before = settle();
    let started = Instant::now();
    let cost = crowd(count);
    let took = started.elapsed();
    // Closed, but the last segments may be under way.
    let deadline = Instant::now() + Duration::from_secs(60);
    let heap = counter("heap_bytes");
    let wrong = loop {
        let mut wrong = grown(&before, &settle());
        wrong.retain(|line| !line.starts_with("heap_bytes"));
        if wrong.is_empty() || Instant::now() > deadline {
            break wrong;
        }
    };
    let mut leaks = wrong;
    if let (Some(before), Some(after)) = (heap, counter("heap_bytes"))
        && after > before + REMEMBERED * count as i64 + (1 << 20)
    {
        leaks.push(format!("the heap grew from {before} to {after}"));
    }
    if cost >= IDLE {
        leaks.push(format!("{cost} bytes for a connection that is idle"));
    }
    for line in &leaks {
        println!("leak: {line}");
    }
    println!(
        "connections: {count} at once in {} ms, {cost} bytes for the two ends of one; {} leaks",
        took.as_millis(),
        leaks.len()
    );
    i32::from(!leaks.is_empty())
}

cases!(many_connections_are_served_at_once);

/// Fewer than [`main`] is asked for in its own test, since this runs on every kind of machine. What
/// they cost is asked there alone: on Linux, others change how much memory is available.
fn many_connections_are_served_at_once() {
    allow(2 * 300 + SPARE);
    crowd(300);
}
