//! Large directories and large files.
//!
//! ```text
//! guest-tests --directory DIR COUNT     a directory with so many names, emptied again by half
//! guest-tests --large-file DIR MIB REAL_MIB  a sparse file of that length, and one of written data
//! ```

use crate::harness::{c, ok};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

cases!(directories_with_many_names_are_listed_whole, large_sparse_files_keep_what_is_written);

/// How much longer a lookup may take where there are a hundred times as many names.
const STEEPEST: u32 = 30;

/// A directory as getdents64(2) shows it: names and positions, by buffers of `room` bytes. Goes back
/// to an earlier position now and then, and expects the same names from there.
fn list(dir: &Path, room: usize) -> Vec<String> {
    let file = File::open(dir).unwrap();
    let fd = file.as_raw_fd();
    let mut names = Vec::new();
    let mut calls = 0;
    loop {
        let start = ok(unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) });
        let records = records(fd, room);
        if records.is_empty() {
            break;
        }
        calls += 1;
        if calls % 64 == 1 {
            // From the start of this piece again, and from within it.
            let end = ok(unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) });
            for (from, at) in [(0, start), (1, records[0].1)] {
                ok(unsafe { libc::lseek(fd, at, libc::SEEK_SET) });
                let again = self::records(fd, room);
                let len = again.len().min(records.len() - from);
                assert!(len > 0 && again[..len] == records[from..from + len], "from {at}");
            }
            ok(unsafe { libc::lseek(fd, end, libc::SEEK_SET) });
        }
        names.extend(records.into_iter().map(|(name, _)| name));
    }
    names.retain(|name| name != "." && name != "..");
    names
}

/// One call's names, each with the position behind it.
fn records(fd: i32, room: usize) -> Vec<(String, i64)> {
    let mut buf = vec![0u8; room];
    let len = unsafe { libc::syscall(libc::SYS_getdents64, fd, buf.as_mut_ptr(), room) };
    let mut rest = &buf[..ok(len) as usize];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let next = i64::from_ne_bytes(rest[8..16].try_into().unwrap());
        let len = usize::from(u16::from_ne_bytes(rest[16..18].try_into().unwrap()));
        let name = rest[19..len].split(|&byte| byte == 0).next().unwrap();
        records.push((String::from_utf8(name.to_vec()).unwrap(), next));
        rest = &rest[len..];
    }
    records
}

/// The shortest time of a few for a batch of names that aren't there, each new to everybody.
fn absent(dir: &Path, round: &str) -> Duration {
    let batch = |batch: u32| {
        let started = Instant::now();
        for n in 0..100 {
            let path = dir.join(format!("absent-{round}-{batch}-{n}"));
            let path = c(path.to_str().unwrap());
            unsafe { fails!(libc::access(path.as_ptr(), libc::F_OK), ENOENT) };
        }
        started.elapsed()
    };
    (0..8).map(batch).min().unwrap()
}

fn make(dir: &Path, names: impl Iterator<Item = usize>) {
    for n in names {
        // A few have contents; links of a few files make the rest cheap for everybody.
        let path = dir.join(name(n));
        if n % 100 == 0 {
            fs::write(&path, n.to_string()).unwrap();
        } else {
            let first = dir.join(name(n - n % 100));
            fs::hard_link(first, &path).unwrap();
        }
    }
}

fn name(n: usize) -> String {
    format!("{:016x}-{n}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn check(dir: &Path, count: usize) {
    let names = list(dir, 32 << 10);
    let set: HashSet<&String> = names.iter().collect();
    assert_eq!((names.len(), set.len()), (count, count), "listed, and different");
    assert!((0..count).all(|n| set.contains(&name(n))));
}

/// Makes, lists, looks up, renames and removes; leaves the names below `keep`.
fn directory(dir: &Path, count: usize, keep: usize) {
    let (small, large) = (dir.join("small"), dir.join("large"));
    fs::create_dir_all(&small).unwrap();
    fs::create_dir_all(&large).unwrap();
    make(&small, 0..count / 100);
    make(&large, 0..count);
    check(&large, count);
    let (few, many) = (absent(&small, "small"), absent(&large, "large"));
    assert!(many < few * STEEPEST, "{few:?} among {}, {many:?} among {count}", count / 100);
    for n in (0..count).step_by(97) {
        let text = fs::read_to_string(large.join(name(n))).unwrap();
        assert_eq!(text, (n - n % 100).to_string(), "contents of {n}");
        fs::rename(large.join(name(n)), large.join(format!("moved-{n}"))).unwrap();
        fs::rename(large.join(format!("moved-{n}")), large.join(name(n))).unwrap();
    }
    for n in keep..count {
        fs::remove_file(large.join(name(n))).unwrap();
    }
    check(&large, keep);
}

fn directories_with_many_names_are_listed_whole() {
    let dir = crate::harness::scratch();
    directory(dir.as_ref(), 1500, 0);
    fs::remove_dir(Path::new(&dir).join("large")).unwrap();
}

const MIB: u64 = 1 << 20;

/// A file of `len` bytes with a few that are written, the last one among them.
fn sparse(path: &Path, len: u64) {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    let places = [0u64, len / 3, len / 2 + 4095, (1 << 31) - 2, (1 << 31) + 40_000, len - 4];
    let places = places.into_iter().filter(|&at| at + 4 <= len);
    for at in places.clone() {
        file.write_all_at(&(at as u32).to_le_bytes(), at).unwrap();
    }
    file.sync_all().unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), len);
    assert!(meta.blocks() * 512 < MIB, "{} blocks", meta.blocks());
    for at in places {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(bytes, (at as u32).to_le_bytes(), "at {at}");
    }
    let hole = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_HOLE) };
    assert!((4096..=MIB as i64).contains(&ok(hole)), "a hole at {hole}");
    let data = unsafe { libc::lseek(file.as_raw_fd(), len as i64 - 8 * 4096, libc::SEEK_DATA) };
    assert!(ok(data) as u64 >= len - 8 * 4096);
}

fn large_sparse_files_keep_what_is_written() {
    let dir = crate::harness::scratch();
    sparse(&Path::new(&dir).join("sparse"), 3 << 30);
}

fn piece(number: u64) -> Vec<u8> {
    let mut word = number.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    let mut bytes = Vec::with_capacity(MIB as usize);
    while bytes.len() < MIB as usize {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend(word.to_le_bytes().repeat(64));
    }
    bytes
}

/// Runs one of the programs; returns the exit status.
pub fn main(words: &[String]) -> i32 {
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let started = Instant::now();
    match words {
        [option, dir, _] if option == "--directory" && number(2).is_some() => {
            let count = number(2).unwrap() as usize;
            directory(dir.as_ref(), count, count / 2);
            println!("directory: {count} names in {} ms", started.elapsed().as_millis());
        }
        [option, dir, ..] if option == "--large-file" => {
            let (Some(mib), Some(real)) = (number(2), number(3)) else { return usage() };
            let dir = Path::new(dir);
            sparse(&dir.join("sparse"), mib * MIB);
            let path = dir.join("real");
            let mut file = File::create(&path).unwrap();
            for at in 0..real {
                std::io::Write::write_all(&mut file, &piece(at)).unwrap();
            }
            file.sync_all().unwrap();
            let _ = fs::write("/proc/sys/vm/drop_caches", "3");
            let file = File::open(&path).unwrap();
            let mut bytes = vec![0; MIB as usize];
            for at in (0..real).rev() {
                file.read_exact_at(&mut bytes, at * MIB).unwrap();
                assert!(bytes == piece(at), "MiB {at}");
            }
            println!("large file: {real} MiB in {} ms", started.elapsed().as_millis());
        }
        _ => return usage(),
    }
    0
}

fn usage() -> i32 {
    eprintln!("usage: guest-tests --directory DIR COUNT | --large-file DIR MIB REAL_MIB");
    2
}
