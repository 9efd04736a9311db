//! What language runtimes rely on without saying so.

use crate::harness::*;
use crate::harness::{pipe, write};
use libc::*;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;

cases![
    reads_into_fresh_pages_return_all_there_is,
    peeks_see_around_the_end_of_a_buffer,
    protection_keys_are_refused_as_without_hardware,
];

const PAGE: usize = 4096;

/// An address `before` bytes before the end of a page, with untouched pages from there on.
unsafe fn fresh(before: usize) -> *mut c_void {
    unsafe {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS;
        let pages = mmap(null_mut(), 8 * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
        assert_ne!(pages, MAP_FAILED);
        pages.add(PAGE - before)
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Waits until so many bytes can be read.
unsafe fn await_bytes(fd: c_int, count: usize) {
    for _ in 0..5000 {
        let mut there: c_int = 0;
        ok(unsafe { ioctl(fd, FIONREAD, &mut there) });
        if there as usize >= count {
            return;
        }
        pause_ms(1);
    }
    panic!("{count} bytes don't arrive");
}

// Who waits for edges takes a short count to mean that nothing is left (tokio does).
fn reads_into_fresh_pages_return_all_there_is() {
    const SENT: usize = 9000;
    let bytes: Vec<u8> = (0..SENT).map(|at| at as u8).collect();
    unsafe {
        let check = |kind: &str, count: isize, at: *mut c_void| {
            assert_eq!(count, SENT as isize, "{kind}");
            assert_eq!(std::slice::from_raw_parts(at.cast::<u8>(), SENT), &bytes[..], "{kind}");
        };
        let (mut sender, receiver) = tcp_pair();
        let fd = receiver.as_raw_fd();
        sender.write_all(&bytes).unwrap();
        await_bytes(fd, SENT);
        let at = fresh(100);
        check("MSG_PEEK", recv(fd, at, 2 * SENT, MSG_PEEK | MSG_DONTWAIT), at);
        let at = fresh(100);
        check("TCP", recv(fd, at, 2 * SENT, MSG_DONTWAIT), at);

        let (mut sender, receiver) = UnixStream::pair().unwrap();
        sender.write_all(&bytes).unwrap();
        let at = fresh(100);
        check("unix", recv(receiver.as_raw_fd(), at, 2 * SENT, MSG_DONTWAIT), at);

        let (from, to) = pipe();
        write(to, &bytes);
        let at = fresh(100);
        check("pipe", libc::read(from, at, 2 * SENT), at);
    }
}

fn peeks_see_around_the_end_of_a_buffer() {
    unsafe {
        let (mut sender, receiver) = tcp_pair();
        let fd = receiver.as_raw_fd();
        let mut sent = 0u8;
        // Each round moves on by less than any buffer's size, so that one of them meets its end.
        for _ in 0..40 {
            let bytes: Vec<u8> = (0..5000).map(|at| sent.wrapping_add(at as u8)).collect();
            sent = sent.wrapping_add(17);
            sender.write_all(&bytes).unwrap();
            await_bytes(fd, bytes.len());
            let mut seen = vec![0u8; 6000];
            assert_eq!(recv(fd, seen.as_mut_ptr().cast(), seen.len(), MSG_PEEK), 5000);
            assert_eq!(&seen[..5000], &bytes[..]);
            assert_eq!(recv(fd, seen.as_mut_ptr().cast(), seen.len(), 0), 5000);
            assert_eq!(&seen[..5000], &bytes[..]);
        }
    }
}

// V8 asks for one and does without.
fn protection_keys_are_refused_as_without_hardware() {
    unsafe {
        fails!(syscall(SYS_pkey_alloc, 1, 0), EINVAL);
        fails!(syscall(SYS_pkey_alloc, 0, 4), EINVAL);
        fails!(syscall(SYS_pkey_free, 77), EINVAL);
        let key = syscall(SYS_pkey_alloc, 0, 0);
        if key < 0 {
            // None left, or none there.
            let errno = *__errno_location();
            assert!(errno == ENOSPC || errno == EINVAL, "errno {errno}");
        } else {
            ok(syscall(SYS_pkey_free, key) as i32);
        }
        let at = fresh(PAGE);
        assert_eq!(syscall(SYS_pkey_mprotect, at, PAGE, PROT_READ, -1), 0);
        fails!(syscall(SYS_pkey_mprotect, at, PAGE, PROT_READ, 77), EINVAL);
    }
}
