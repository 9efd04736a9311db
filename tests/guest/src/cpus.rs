//! Several processors: affinity, work that moves to idle ones, and how much more they do.
//!
//! ```text
//! guest-tests --scale SECONDS       CPU-bound threads, and a server of several processes
//! guest-tests --fork-resident MIB   how long fork(2) takes for a process of that size
//! ```

use crate::harness::{ok, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

cases!(threads_stay_where_they_are_pinned, idle_processors_take_work_over);

/// Processors that this process may use.
fn allowed() -> (libc::cpu_set_t, Vec<usize>) {
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        ok(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set));
        let cpus = (0..16).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect();
        (set, cpus)
    }
}

fn pin(cpu: usize) {
    unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut one);
        ok(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one));
    }
}

fn here() -> usize {
    ok(unsafe { libc::sched_getcpu() }) as usize
}

fn threads_stay_where_they_are_pinned() {
    let (_, cpus) = allowed();
    let barrier = Barrier::new(2 * cpus.len());
    std::thread::scope(|scope| {
        // Two on each, so that there is something to move them for.
        for &cpu in cpus.iter().chain(&cpus) {
            let barrier = &barrier;
            scope.spawn(move || {
                pin(cpu);
                barrier.wait();
                for round in 0..200 {
                    assert_eq!(here(), cpu, "round {round}");
                    match round % 3 {
                        0 => std::thread::yield_now(),
                        1 => std::thread::sleep(Duration::from_micros(50)),
                        _ => drop(spin(2000)),
                    }
                }
            });
        }
    });
}

fn spin(rounds: u64) -> u64 {
    (0..rounds).fold(1, |word, round| std::hint::black_box(word ^ word << 7 ^ round))
}

fn idle_processors_take_work_over() {
    let (all, cpus) = allowed();
    let seen: Vec<AtomicBool> = (0..16).map(|_| AtomicBool::new(false)).collect();
    let everywhere = || cpus.iter().all(|&cpu| seen[cpu].load(Relaxed));
    // All of them begin on one processor, and nobody tells them to leave it.
    pin(cpus[0]);
    let barrier = Barrier::new(cpus.len());
    let deadline = Instant::now() + Duration::from_secs(50);
    std::thread::scope(|scope| {
        for _ in &cpus {
            scope.spawn(|| {
                barrier.wait();
                let len = size_of::<libc::cpu_set_t>();
                ok(unsafe { libc::sched_setaffinity(0, len, &all) });
                while !everywhere() && Instant::now() < deadline {
                    spin(1000);
                    seen[here()].store(true, Relaxed);
                }
            });
        }
    });
    assert!(everywhere(), "{seen:?}");
}

/// Rounds of work that so many threads do in that time.
fn compute(threads: usize, time: Duration) -> u64 {
    let (done, end) = (AtomicU64::new(0), Instant::now() + time);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = 0;
                while Instant::now() < end {
                    spin(20_000);
                    mine += 1;
                }
                done.fetch_add(mine, Relaxed);
            });
        }
    });
    done.load(Relaxed)
}

/// A listening socket of several for one address.
fn listen(address: SocketAddr) -> TcpListener {
    unsafe {
        let fd = ok(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let (level, one) = (libc::SOL_SOCKET, 1i32);
        for option in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
            ok(libc::setsockopt(fd, level, option, (&raw const one).cast(), 4));
        }
        let SocketAddr::V4(v4) = address else { unreachable!("callers give IPv4") };
        let mut name: libc::sockaddr_in = std::mem::zeroed();
        name.sin_family = libc::AF_INET as u16;
        name.sin_port = v4.port().to_be();
        name.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
        ok(libc::bind(fd, (&raw const name).cast(), size_of::<libc::sockaddr_in>() as u32));
        ok(libc::listen(fd, 128));
        TcpListener::from_raw_fd(fd)
    }
}

/// Requests that a server of so many processes answers in that time, each with clients of its own.
fn serve(workers: usize, time: Duration) -> u64 {
    const CLIENTS: usize = 4;
    let first = listen("127.0.0.1:0".parse().unwrap());
    let address = first.local_addr().unwrap();
    let mut listeners = vec![first];
    listeners.resize_with(workers, || listen(address));
    // Connections are made first, so that each worker has some whatever the balance is.
    let children: Vec<i32> = (0..workers)
        .map(|worker| {
            crate::harness::child(|| {
                for stream in listeners[worker].incoming() {
                    let mut stream = stream.unwrap();
                    std::thread::spawn(move || {
                        let mut request = [0; 512];
                        while let Ok(n @ 1..) = stream.read(&mut request) {
                            // A little of what a server does besides.
                            spin(2000);
                            if stream.write_all(&request[..n]).is_err() {
                                return;
                            }
                        }
                    });
                }
                0
            })
        })
        .collect();
    drop(listeners);
    let (done, end) = (AtomicU64::new(0), Instant::now() + time);
    std::thread::scope(|scope| {
        for _ in 0..workers * CLIENTS {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(address).unwrap();
                let (mut mine, mut reply) = (0, [0; 128]);
                while Instant::now() < end {
                    stream.write_all(&[7; 128]).unwrap();
                    stream.read_exact(&mut reply).unwrap();
                    mine += 1;
                }
                done.fetch_add(mine, Relaxed);
            });
        }
    });
    for child in children {
        ok(unsafe { libc::kill(child, libc::SIGKILL) });
        wait_for(child);
    }
    done.load(Relaxed)
}

fn scale(seconds: u64) {
    let time = Duration::from_secs(seconds);
    let count = allowed().1.len();
    println!("scale: {count} CPUs, {} rounds/s of {count} threads", compute(count, time) / seconds);
    println!("scale: {count} CPUs, {} requests/s by {count} workers", serve(count, time) / seconds);
}

fn fork_resident(mib: usize) {
    let len = mib << 20;
    unsafe {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let at = libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0);
        assert_ne!(at, libc::MAP_FAILED);
        // In pages, as a program's heap is after a while.
        libc::madvise(at, len, libc::MADV_NOHUGEPAGE);
        for page in (0..len).step_by(4096) {
            at.cast::<u8>().add(page).write_volatile(1);
        }
        let mut best = [Duration::MAX; 2];
        for _ in 0..5 {
            let started = Instant::now();
            let pid = ok(libc::fork());
            if pid == 0 {
                libc::_exit(0);
            }
            let forked = started.elapsed();
            wait_for(pid);
            best = [best[0].min(forked), best[1].min(started.elapsed())];
        }
        let [fork, all] = best.map(|time| time.as_nanos());
        println!("fork of {mib} MiB: {fork} ns until it returns, {all} ns with exit and wait");
    }
}

/// Runs one of the programs; returns the exit status.
pub fn main(words: &[String]) -> i32 {
    let number = words.get(1).and_then(|word| word.parse().ok());
    match (words[0].as_str(), number) {
        ("--scale", Some(seconds)) => scale(seconds),
        ("--fork-resident", Some(mib)) => fork_resident(mib as usize),
        _ => {
            eprintln!("usage: guest-tests --scale SECONDS | --fork-resident MIB");
            return 2;
        }
    }
    0
}
