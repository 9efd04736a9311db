//! Small rules that suites from outside check.

use crate::harness::{c, child_passes, ok, scratch};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::ptr::null_mut;

cases!(
    locking_pages_without_access_fails,
    without_a_limit_for_locked_memory_nothing_is_locked,
    a_new_owner_loses_file_capabilities,
    descriptor_limits_end_at_nr_open,
    sockets_bind_with_the_mode_of_their_descriptor,
    listings_fill_a_buffer_that_ends_early,
);

const PAGE: usize = 4096;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

unsafe fn map(len: usize, prot: i32, flags: i32) -> *mut libc::c_void {
    unsafe { libc::mmap(null_mut(), len, prot, flags, -1, 0) }
}

fn locking_pages_without_access_fails() {
    unsafe {
        let at = map(4 * PAGE, libc::PROT_NONE, PRIVATE);
        fails!(libc::mlock(at, 4 * PAGE), ENOMEM);
        ok(libc::mprotect(at, 2 * PAGE, libc::PROT_READ));
        ok(libc::mlock(at, 2 * PAGE));
        fails!(libc::mlock(at, 3 * PAGE), ENOMEM);
        // Those that come after the failure are locked all the same.
        fails!(libc::madvise(at.add(2 * PAGE), PAGE, libc::MADV_DONTNEED), EINVAL);
        // Nobody asks whether a mapping that is to be locked can be touched.
        let locked = map(PAGE, libc::PROT_NONE, PRIVATE | libc::MAP_LOCKED);
        assert_ne!(locked, libc::MAP_FAILED);
    }
}

fn without_a_limit_for_locked_memory_nothing_is_locked() {
    child_passes(|| unsafe {
        let limit = |bytes| libc::rlimit { rlim_cur: bytes, rlim_max: 4 * PAGE as u64 };
        ok(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit(0)));
        ok(libc::setresuid(65534, 65534, 65534));
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        fails!(map(PAGE, prot, PRIVATE | libc::MAP_LOCKED) as isize, EPERM);
        let at = map(8 * PAGE, prot, PRIVATE);
        fails!(libc::mlock(at, PAGE), EPERM);
        ok(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit(4 * PAGE as u64)));
        fails!(map(5 * PAGE, prot, PRIVATE | libc::MAP_LOCKED) as isize, EAGAIN);
        fails!(libc::mlock(at, 5 * PAGE), ENOMEM);
        ok(libc::mlock(at, 4 * PAGE));
    });
}

fn a_new_owner_loses_file_capabilities() {
    let path = format!("{}/able", scratch());
    std::fs::write(&path, "x").unwrap();
    let (path, name) = (c(&path), c"security.capability".as_ptr());
    // Revision 2, effective: CAP_NET_BIND_SERVICE.
    let mut value = [0u8; 20];
    value[..8].copy_from_slice(&[1, 0, 0, 2, 0, 4, 0, 0]);
    unsafe {
        let len = value.len();
        let set = || ok(libc::setxattr(path.as_ptr(), name, value.as_ptr().cast(), len, 0));
        let get = || libc::getxattr(path.as_ptr(), name, null_mut(), 0);
        set();
        assert_eq!(ok(get()), 20);
        ok(libc::chmod(path.as_ptr(), 0o755));
        assert_eq!(ok(get()), 20, "a new mode changes nothing");
        ok(libc::chown(path.as_ptr(), 1, u32::MAX));
        fails!(get(), ENODATA);
        set();
        ok(libc::chown(path.as_ptr(), u32::MAX, u32::MAX));
        fails!(get(), ENODATA);
    }
}

fn descriptor_limits_end_at_nr_open() {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap();
    let most: u64 = text.trim().parse().unwrap();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    unsafe {
        ok(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit));
        limit.rlim_max = most + 1;
        fails!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), EPERM);
        limit.rlim_max = libc::RLIM_INFINITY;
        fails!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), EPERM);
    }
}

fn sockets_bind_with_the_mode_of_their_descriptor() {
    for (umask, chmod, expected) in [
        (0, None, 0o777),
        (0o027, None, 0o750),
        (0, Some(0o640), 0o640),
        (0o077, Some(0o750), 0o700),
    ] {
        let path = format!("{}/socket-{umask:o}-{expected:o}", scratch());
        unsafe {
            libc::umask(umask);
            let fd = ok(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
            if let Some(mode) = chmod {
                ok(libc::fchmod(fd, mode));
                let mut stat: libc::stat = std::mem::zeroed();
                ok(libc::fstat(fd, &mut stat));
                assert_eq!(stat.st_mode & 0o777, mode);
            }
            let mut address: libc::sockaddr_un = std::mem::zeroed();
            address.sun_family = libc::AF_UNIX as u16;
            for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
                *to = from as _;
            }
            let len = size_of::<libc::sockaddr_un>() as u32;
            ok(libc::bind(fd, (&raw const address).cast(), len));
            ok(libc::close(fd));
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, expected, "umask {umask:o}, fchmod {chmod:?}: {mode:o}");
    }
}

fn listings_fill_a_buffer_that_ends_early() {
    let dir = scratch();
    for n in 0..40 {
        std::fs::write(format!("{dir}/a-name-that-takes-room-{n}"), "").unwrap();
    }
    let file = std::fs::File::open(&dir).unwrap();
    let list = |at: *mut u8| unsafe {
        libc::syscall(libc::SYS_getdents64, file.as_raw_fd(), at, 2 * PAGE)
    };
    let names = |bytes: &[u8]| {
        let (mut at, mut names) = (0, Vec::new());
        while at < bytes.len() {
            let len = usize::from(u16::from_ne_bytes([bytes[at + 16], bytes[at + 17]]));
            names.push(bytes[at + 19..at + len].to_vec());
            at += len;
        }
        assert_eq!(at, bytes.len(), "whole records");
        names
    };
    unsafe {
        let at = map(2 * PAGE, libc::PROT_READ | libc::PROT_WRITE, PRIVATE).cast::<u8>();
        ok(libc::mprotect(at.add(PAGE).cast(), PAGE, libc::PROT_NONE));
        // Room for a few records only, then for none.
        let near = at.add(PAGE - 200);
        let len = ok(list(near)) as usize;
        assert!((100..=200).contains(&len), "{len}");
        let mut found = names(std::slice::from_raw_parts(near, len));
        fails!(list(at.add(PAGE - 8)), EFAULT);
        loop {
            let len = ok(list(at.add(100))) as usize;
            if len == 0 {
                break;
            }
            found.extend(names(std::slice::from_raw_parts(at.add(100), len)));
        }
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 42, "each name once, with the two dots");
    }
}
