//! Volumes that are full or whose disk fails, and a resolver that changes: prints what programs see.
//!
//! ```text
//! guest-tests --fill DIR            until there is no room; room comes back
//! guest-tests --failing DIR MIB     writes and reads so much, whatever fails
//! guest-tests --resolver ADDRESS    prints /etc/resolv.conf again and again; writes its own once it
//!                                   has ADDRESS
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// Prints how a call ended: `ok`, or the error's number.
fn say(what: &str, result: io::Result<()>) {
    match result {
        Ok(()) => println!("{what}: ok"),
        Err(error) => println!("{what}: errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

fn failing(dir: &Path, mib: usize) {
    let path = dir.join("large");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let piece = vec![0x61; 64 << 10];
    say("write", (0..mib * 16).try_for_each(|_| file.write_all(&piece)));
    say("fsync", file.sync_all());
    say("fsync again", file.sync_all());
    say("fsync by another", File::open(&path).and_then(|file| file.sync_all()));
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    let mut bytes = Vec::new();
    say("read", File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).map(drop));
    let other = dir.join("other");
    say("other write", fs::write(&other, "other"));
    say("other fsync", File::open(&other).and_then(|file| file.sync_all()));
    println!("end");
}

fn errno<T>(result: io::Result<T>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

fn fill(dir: &Path) {
    let path = dir.join("fill");
    let mut file = File::create(&path).unwrap();
    let piece = vec![0x62; 128 << 10];
    let mut written = 0u64;
    let error = loop {
        match file.write(&piece) {
            // A part, then nothing.
            Ok(n) => written += n as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(file.metadata().unwrap().len(), written);
    file.sync_all().unwrap();
    // All that was acknowledged has its place, and nothing else gets one.
    let read = fs::read(&path).unwrap();
    assert!(read.len() as u64 == written && read.iter().all(|&byte| byte == 0x62));
    assert_eq!(errno(fs::write(dir.join("more"), &piece)), libc::ENOSPC);
    let fallocated =
        unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, written as i64 + (64 << 20)) };
    assert_eq!((fallocated, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOSPC)));
    // A mapping of a hole has no error to return: SIGBUS.
    let status = crate::harness::wait_for(crate::harness::child(|| unsafe {
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let file = options.open(dir.join("sparse")).unwrap();
        file.set_len(8 << 20).unwrap();
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        let at = libc::mmap(std::ptr::null_mut(), 8 << 20, prot, libc::MAP_SHARED, fd, 0);
        for page in 0..2048 {
            at.cast::<u8>().add(page * 4096).write_volatile(1);
        }
        0
    }));
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGBUS, "{status:#x}");
    println!("full after {written} bytes");
    for name in ["more", "sparse"] {
        let _ = fs::remove_file(dir.join(name));
    }
    file.set_len(written / 2).unwrap();
    let mut again = File::create(dir.join("again")).unwrap();
    for _ in 0..written / 4 / piece.len() as u64 {
        again.write_all(&piece).unwrap();
    }
    again.sync_all().unwrap();
    println!("room again");
}

fn resolver(address: &str) -> ! {
    let path = "/etc/resolv.conf";
    loop {
        let text = fs::read_to_string(path).unwrap();
        println!("resolv.conf: {}", text.trim_end().replace('\n', ", "));
        let _ = io::stdout().flush();
        if text.contains(address) {
            fs::write(path, "nameserver 192.0.2.1\n").unwrap();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs one of the programs; returns the exit status.
pub fn main(words: &[String]) -> i32 {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--fill", dir] => fill(dir.as_ref()),
        ["--failing", dir, mib] => failing(dir.as_ref(), mib.parse().unwrap()),
        ["--resolver", address] => resolver(address),
        _ => {
            eprintln!("usage: guest-tests --fill DIR | --failing DIR MIB | --resolver ADDRESS");
            return 2;
        }
    }
    0
}
