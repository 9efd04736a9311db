//! Files: those of the image, and new ones in memory.

use crate::peer::{close, read, write};
use crate::{Case, fastest, ok};
use std::ffi::CString;

pub const CASES: &[Case] = &[
    ("file: open, close", open_close),
    ("file: stat", stat),
    ("file: fstat", fstat),
    ("file: pread 1 byte", || pread(1)),
    ("file: pread 4 KiB", || pread(4096)),
    ("file: pread 64 KiB", || pread(65536)),
    ("image file: pread 64 KiB", image_pread),
    ("image file: mmap, read 1 MiB, munmap", image_map),
    ("file: pwrite 4 KiB", pwrite),
    ("file: create, write 4 KiB, unlink", create),
    ("file: rename", rename),
    ("directory: list 100", list),
    ("/dev/zero: read 1 byte", zero),
];

const SIZE: usize = 1 << 20;

/// A new file of so many bytes; removed when dropped.
pub struct Scratch {
    path: CString,
    fd: i32,
}

/// Makes one.
pub fn scratch(size: usize) -> Scratch {
    let path = CString::new("/micro-scratch").unwrap();
    let fd = make(&path);
    write(fd, &vec![7; size]);
    Scratch { path, fd }
}

impl Scratch {
    /// Open for reading and writing.
    pub fn fd(&self) -> i32 {
        self.fd
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        close(&[self.fd]);
        ok(unsafe { libc::unlink(self.path.as_ptr()) });
    }
}

fn make(path: &CString) -> i32 {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    ok(unsafe { libc::open(path.as_ptr(), flags, 0o644) }) as i32
}

/// Makes this program's file larger than what is mapped of it.
#[used]
static FILLER: [u8; SIZE] = [1; SIZE];

/// This program, a file of the image.
fn image_file() -> CString {
    CString::new(std::env::current_exe().unwrap().to_str().unwrap()).unwrap()
}

fn open(path: &CString) -> i32 {
    ok(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) }) as i32
}

fn open_close() -> f64 {
    let path = image_file();
    fastest(|count| {
        for _ in 0..count {
            close(&[open(&path)]);
        }
    })
}

fn stat() -> f64 {
    let path = image_file();
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    fastest(|count| {
        for _ in 0..count {
            ok(unsafe { libc::stat(path.as_ptr(), &mut status) });
        }
    })
}

fn fstat() -> f64 {
    let file = open(&image_file());
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    let result = fastest(|count| {
        for _ in 0..count {
            ok(unsafe { libc::fstat(file, &mut status) });
        }
    });
    close(&[file]);
    result
}

fn reads(file: i32, size: usize, total: usize) -> f64 {
    let mut buffer = vec![0u8; size];
    let mut at = 0;
    fastest(|count| {
        for _ in 0..count {
            let got = unsafe { libc::pread(file, buffer.as_mut_ptr().cast(), size, at as i64) };
            assert_eq!(ok(got) as usize, size);
            at = (at + size) % (total - size + 1);
        }
    })
}

fn pread(size: usize) -> f64 {
    let file = scratch(SIZE);
    reads(file.fd(), size, SIZE)
}

fn image_pread() -> f64 {
    let path = image_file();
    let file = open(&path);
    // Brings it into the page cache: what the disk takes is not the matter here.
    let size = std::fs::read(path.to_str().unwrap()).unwrap().len();
    let result = reads(file, 65536, size);
    close(&[file]);
    result
}

fn image_map() -> f64 {
    let file = open(&image_file());
    let mut sum = 0u64;
    let result = fastest(|count| {
        for _ in 0..count {
            let memory = crate::memory::map(SIZE, file);
            let words = unsafe { std::slice::from_raw_parts(memory.cast::<u64>(), SIZE / 8) };
            sum = words.iter().step_by(8).fold(sum, |sum, word| sum.wrapping_add(*word));
            crate::memory::unmap(memory, SIZE);
        }
    });
    close(&[file]);
    std::hint::black_box(sum);
    result
}

fn pwrite() -> f64 {
    let file = scratch(SIZE);
    let buffer = [1u8; 4096];
    let mut at = 0;
    fastest(|count| {
        for _ in 0..count {
            let done = unsafe { libc::pwrite(file.fd(), buffer.as_ptr().cast(), 4096, at) };
            assert_eq!(ok(done), 4096);
            at = (at + 4096) % SIZE as i64;
        }
    })
}

fn create() -> f64 {
    let path = CString::new("/micro-new").unwrap();
    let buffer = [1u8; 4096];
    fastest(|count| {
        for _ in 0..count {
            let file = make(&path);
            write(file, &buffer);
            close(&[file]);
            ok(unsafe { libc::unlink(path.as_ptr()) });
        }
    })
}

fn rename() -> f64 {
    let mut names = ["/micro-one", "/micro-two"].map(|name| CString::new(name).unwrap());
    close(&[make(&names[0])]);
    let result = fastest(|count| {
        for _ in 0..count {
            ok(unsafe { libc::rename(names[0].as_ptr(), names[1].as_ptr()) });
            names.swap(0, 1);
        }
    });
    ok(unsafe { libc::unlink(names[0].as_ptr()) });
    result
}

fn list() -> f64 {
    std::fs::create_dir("/micro-list").unwrap();
    for number in 0..100 {
        std::fs::write(format!("/micro-list/{number}"), "").unwrap();
    }
    let result = fastest(|count| {
        for _ in 0..count {
            assert_eq!(std::fs::read_dir("/micro-list").unwrap().count(), 100);
        }
    });
    std::fs::remove_dir_all("/micro-list").unwrap();
    result
}

fn zero() -> f64 {
    let file = open(&CString::new("/dev/zero").unwrap());
    let result = fastest(|count| {
        for _ in 0..count {
            assert_eq!(read(file, &mut [0]), 1);
        }
    });
    close(&[file]);
    result
}
