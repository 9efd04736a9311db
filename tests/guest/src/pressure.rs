//! Less memory than files: what can be read again makes room, what can't is kept.
//!
//! ```text
//! guest-tests --pressure FILE DIR
//! ```
//!
//! `FILE` has many pages made by [`page`], more than the machine has memory; `DIR` is on a volume.

use crate::harness::{child, ok, wait_for};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

const PAGE: usize = 4096;

/// A number of /proc/meminfo in bytes.
fn meminfo(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// The first word of a page is its number, the last its complement.
fn is_page(bytes: &[u8], number: usize) -> bool {
    let word = |at: usize| usize::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    word(0) == number && word(PAGE - 8) == !number
}

/// Anonymous memory with a pattern.
struct Own(&'static [[AtomicUsize; PAGE / 8]]);

impl Own {
    fn new(pages: usize) -> Own {
        let at = map(-1, pages * PAGE, WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let own = Own(unsafe { std::slice::from_raw_parts(at.cast(), pages) });
        own.0.iter().enumerate().for_each(|(n, page)| page[0].store(n ^ 0x5555, Relaxed));
        own
    }

    fn check(&self) {
        for (n, page) in self.0.iter().enumerate() {
            assert_eq!(page[0].load(Relaxed), n ^ 0x5555, "page {n} of our own");
        }
    }
}

const WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn map(fd: i32, len: usize, prot: i32, flags: i32) -> *mut u8 {
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    at.cast()
}

fn read_all(path: &Path, own: &Own) -> usize {
    let file = File::open(path).unwrap();
    let pages = file.metadata().unwrap().len() as usize / PAGE;
    let mut bytes = vec![0; 16 * PAGE];
    for first in (0..pages).step_by(16) {
        let len = (pages - first).min(16) * PAGE;
        file.read_exact_at(&mut bytes[..len], (first * PAGE) as u64).unwrap();
        for (at, page) in bytes[..len].chunks_exact(PAGE).enumerate() {
            assert!(is_page(page, first + at), "page {} by read", first + at);
        }
        if first % 4096 == 0 {
            own.check();
        }
    }
    pages
}

fn map_all(path: &Path, own: &Own) {
    let file = File::open(path).unwrap();
    let pages = file.metadata().unwrap().len() as usize / PAGE;
    let at = map(file.as_raw_fd(), pages * PAGE, libc::PROT_READ, libc::MAP_PRIVATE);
    // Forwards, then in strides, so that neither read-ahead nor age is all that helps.
    for page in (0..pages).chain((0..pages).map(|n| n * 7919 % pages).take(pages / 4)) {
        let bytes = unsafe { std::slice::from_raw_parts(at.add(page * PAGE), PAGE) };
        assert!(is_page(bytes, page), "page {page} by mmap");
    }
    own.check();
    ok(unsafe { libc::munmap(at.cast(), pages * PAGE) });
}

/// Makes more pages dirty through a shared mapping than there is memory, and reads them back.
fn dirty_all(path: &Path, pages: usize, own: &Own) {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.unwrap();
    file.set_len((pages * PAGE) as u64).unwrap();
    let at = map(file.as_raw_fd(), pages * PAGE, WRITE, libc::MAP_SHARED);
    for page in 0..pages {
        unsafe {
            at.add(page * PAGE).cast::<usize>().write_volatile(page);
            at.add((page + 1) * PAGE - 8).cast::<usize>().write_volatile(!page);
        }
    }
    own.check();
    file.sync_all().unwrap();
    ok(unsafe { libc::munmap(at.cast(), pages * PAGE) });
    assert_eq!(read_all(path, own), pages);
}

/// Runs it; returns the exit status.
pub fn main(words: &[String]) -> i32 {
    let [file, dir] = words else {
        eprintln!("usage: guest-tests --pressure FILE DIR");
        return 2;
    };
    let started = Instant::now();
    let step = |what: &str| println!("{what} after {} ms", started.elapsed().as_millis());
    let (total, available) = (meminfo("MemTotal"), meminfo("MemAvailable"));
    let own = Own::new(available / 2 / PAGE);
    let pages = read_all(file.as_ref(), &own);
    assert!(pages * PAGE > total, "the file has to be larger than memory");
    step("read");
    map_all(file.as_ref(), &own);
    step("mapped");
    std::thread::scope(|scope| {
        scope.spawn(|| read_all(file.as_ref(), &own));
        scope.spawn(|| map_all(file.as_ref(), &own));
    });
    step("both");
    dirty_all(&Path::new(dir).join("dirty"), total * 5 / 4 / PAGE, &own);
    step("dirtied");
    // A child that takes all there is ends, and nobody else.
    let greedy = child(|| {
        std::fs::write("/proc/self/oom_score_adj", "500").unwrap();
        std::fs::write("/proc/self/comm", "greedy").unwrap();
        // In pieces: more than there is at once is refused before it is tried.
        let more: Vec<Own> = (0..16).map(|_| Own::new(total / 8 / PAGE)).collect();
        more.iter().for_each(Own::check);
        0
    });
    let status = wait_for(greedy);
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL, "{status:#x}");
    own.check();
    println!("pressure: {pages} pages of a file in {total} bytes of memory, own pages kept");
    0
}
