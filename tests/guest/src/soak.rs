//! The same things again and again: requests over TCP and unix sockets, and processes that fork,
//! run a program and end. Counters of the kernel say whether everything came back.
//!
//! ```text
//! guest-tests --soak REQUESTS FORKS
//! ```

use crate::fuzz::{counters, frames_in_use, grown, settle};
use crate::harness::wait_for;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Requests of one connection.
const PER_CONNECTION: u64 = 10;
/// Frames that may stay in use: heap and page tables keep some for the next time.
const FRAME_SLACK: i64 = 2048;

fn serve(mut stream: impl Read + Write) {
    let mut request = [0; 64];
    while let Ok(n) = stream.read(&mut request) {
        if n == 0 || stream.write_all(&request[..n]).is_err() {
            return;
        }
    }
}

fn ask(mut stream: impl Read + Write, requests: u64) {
    let mut reply = [0; 64];
    for number in 0..requests {
        let request = number.to_le_bytes();
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut reply[..8]).unwrap();
        assert_eq!(reply[..8], request);
    }
}

/// So many requests, half over TCP and half over a unix socket, each connection in turn.
fn requests(count: u64) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let path = format!("/tmp/soak-{}", std::process::id());
    let _ = std::fs::remove_file(&path);
    let unix = UnixListener::bind(&path).unwrap();
    let connections = count.div_ceil(2 * PER_CONNECTION);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..connections).for_each(|_| serve(tcp.accept().unwrap().0)));
        scope.spawn(|| (0..connections).for_each(|_| serve(unix.accept().unwrap().0)));
        scope.spawn(|| {
            for _ in 0..connections {
                ask(TcpStream::connect(address).unwrap(), PER_CONNECTION);
            }
        });
        for _ in 0..connections {
            ask(UnixStream::connect(&path).unwrap(), PER_CONNECTION);
        }
    });
    std::fs::remove_file(&path).unwrap();
}

/// A child that runs this program again (`--soak-child`), which ends at once.
fn fork_exec_exit() {
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let words = [c"guest-tests".as_ptr(), c"--soak-child".as_ptr(), std::ptr::null()];
            libc::execv(c"/proc/self/exe".as_ptr(), words.as_ptr());
            libc::_exit(1);
        }
        assert_eq!(wait_for(pid), 0);
    }
}

/// Runs it; returns the exit status.
pub fn main(words: &[String]) -> i32 {
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let (Some(count), Some(forks)) = (number(0), number(1)) else {
        eprintln!("usage: guest-tests --soak REQUESTS FORKS");
        return 2;
    };
    // The first of each fill caches that stay.
    requests(20 * PER_CONNECTION);
    (0..20).for_each(|_| fork_exec_exit());
    let (before, frames) = (settle(), frames_in_use());
    let started = Instant::now();
    // In pieces, so that the log shows how far it is.
    const PIECES: u64 = 10;
    for piece in 1..=PIECES {
        requests(count / PIECES);
        (0..forks / PIECES).for_each(|_| fork_exec_exit());
        println!("soak: {}0 % after {} s: {}", piece, started.elapsed().as_secs(), counters());
        let _ = std::io::stdout().flush();
    }
    let mut after = settle();
    if !grown(&before, &after).is_empty() {
        // Connections rest for a minute after their end (TIME_WAIT).
        std::thread::sleep(Duration::from_secs(75));
        after = settle();
    }
    let frames_after = frames_in_use();
    println!("soak: at the end: {}", counters());
    let mut wrong = grown(&before, &after);
    if let (Some(before), Some(after)) = (frames, frames_after)
        && after > before + FRAME_SLACK
    {
        wrong.push(format!("frames in use grew from {before} to {after}"));
    }
    for line in &wrong {
        println!("leak: {line}");
    }
    println!(
        "soak: {count} requests and {forks} processes in {} s; {} leaks; frames in use {frames:?} \
         before, {frames_after:?} after",
        started.elapsed().as_secs(),
        wrong.len()
    );
    i32::from(!wrong.is_empty())
}
