//! Mappings and page faults.

use crate::peer::wait;
use crate::{Case, fastest, files, ok};
use std::ptr::null_mut;

pub const CASES: &[Case] = &[
    ("mmap, munmap", map_unmap),
    ("mmap, touch, munmap", map_touch_unmap),
    ("mprotect, 2 calls", protect),
    ("page fault, anonymous", fault_anonymous),
    ("fresh memory, 1 MiB of 16", fresh),
    ("page fault, file, read", fault_file),
    ("page fault, file, private write", fault_private),
    ("page fault, copy after fork", fault_after_fork),
];

const PAGE: usize = 4096;
const PAGES: usize = 256;
const SIZE: usize = PAGES * PAGE;

/// Maps private memory: anonymous, or of a file.
pub fn map(size: usize, file: i32) -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let anonymous = if file < 0 { libc::MAP_ANONYMOUS } else { 0 };
    let flags = libc::MAP_PRIVATE | anonymous;
    let memory = unsafe { libc::mmap(null_mut(), size, access, flags, file, 0) };
    assert_ne!(memory, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    memory.cast()
}

/// Unmaps it.
pub fn unmap(memory: *mut u8, size: usize) {
    ok(unsafe { libc::munmap(memory.cast(), size) });
}

/// Writes to each page.
pub fn touch(memory: *mut u8, size: usize) {
    for at in (0..size).step_by(PAGE) {
        unsafe { memory.add(at).write_volatile(1) };
    }
}

fn look(memory: *mut u8, size: usize) {
    for at in (0..size).step_by(PAGE) {
        unsafe { memory.add(at).read_volatile() };
    }
}

fn map_unmap() -> f64 {
    fastest(|count| {
        for _ in 0..count {
            unmap(map(SIZE, -1), SIZE);
        }
    })
}

fn map_touch_unmap() -> f64 {
    fastest(|count| {
        for _ in 0..count {
            let memory = map(PAGE, -1);
            touch(memory, PAGE);
            unmap(memory, PAGE);
        }
    })
}

fn protect() -> f64 {
    let memory = map(16 * PAGE, -1);
    touch(memory, 16 * PAGE);
    let result = fastest(|count| {
        for _ in 0..count {
            for access in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE] {
                ok(unsafe { libc::mprotect(memory.cast(), 16 * PAGE, access) });
            }
        }
    });
    unmap(memory, 16 * PAGE);
    result
}

/// A page of `SIZE` bytes that are mapped, used by `used` and unmapped; the mapping's own cost is
/// small among so many.
fn each_page(file: i32, used: fn(*mut u8, usize)) -> f64 {
    let all = fastest(|count| {
        for _ in 0..count {
            let memory = map(SIZE, file);
            if file < 0 {
                unsafe { libc::madvise(memory.cast(), SIZE, libc::MADV_NOHUGEPAGE) };
            }
            used(memory, SIZE);
            unmap(memory, SIZE);
        }
    });
    all / PAGES as f64
}

fn fault_anonymous() -> f64 {
    each_page(-1, touch)
}

/// Large pages are welcome.
fn fresh() -> f64 {
    const ALL: usize = 16 << 20;
    let all = fastest(|count| {
        for _ in 0..count {
            let memory = map(ALL, -1);
            touch(memory, ALL);
            unmap(memory, ALL);
        }
    });
    all / 16.0
}

fn fault_file() -> f64 {
    let file = files::scratch(SIZE);
    each_page(file.fd(), look)
}

fn fault_private() -> f64 {
    let file = files::scratch(SIZE);
    each_page(file.fd(), touch)
}

/// A page that a child writes to, fork and the child's end included.
fn fault_after_fork() -> f64 {
    let memory = map(SIZE, -1);
    unsafe { libc::madvise(memory.cast(), SIZE, libc::MADV_NOHUGEPAGE) };
    touch(memory, SIZE);
    let all = fastest(|count| {
        for _ in 0..count {
            match ok(unsafe { libc::fork() }) {
                0 => {
                    touch(memory, SIZE);
                    unsafe { libc::_exit(0) }
                }
                child => wait(child as libc::pid_t),
            }
        }
    });
    unmap(memory, SIZE);
    all / PAGES as f64
}
