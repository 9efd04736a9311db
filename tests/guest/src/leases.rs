//! Leases (fcntl(2): `F_SETLEASE`), signals for changes of directories (`F_NOTIFY`), and files by their
//! handles (name_to_handle_at(2), open_by_handle_at(2)).

use crate::harness::{c, child, child_passes, ok, scratch, wait_for};
use libc::*;
use std::fs;

cases![
    leases_are_for_files_nobody_else_has_open,
    whoever_opens_a_leased_file_waits_for_it,
    a_reader_is_content_with_a_lease_for_reading,
    without_waiting_a_leased_file_is_not_opened,
    a_lease_that_is_not_given_back_ends,
    directories_tell_of_changes_by_signals,
    a_file_is_found_by_its_handle,
];

const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_NOTIFY: i32 = 1026;
const DN_CREATE: i32 = 4;
const DN_DELETE: i32 = 8;
const DN_RENAME: i32 = 0x10;
const DN_ATTRIB: i32 = 0x20;
const DN_MULTISHOT: i32 = 1 << 31;

fn open_file(path: &str, flags: i32) -> i32 {
    ok(unsafe { open(c(path).as_ptr(), flags | O_CLOEXEC, 0o600) })
}

fn lease(fd: i32, kind: i32) -> i32 {
    unsafe { fcntl(fd, F_SETLEASE, kind) }
}

fn held(fd: i32) -> i32 {
    unsafe { fcntl(fd, F_GETLEASE) }
}

fn set_of(signal: i32) -> sigset_t {
    unsafe {
        let mut set = std::mem::zeroed();
        sigemptyset(&mut set);
        sigaddset(&mut set, signal);
        set
    }
}

fn block(signal: i32) {
    ok(unsafe { sigprocmask(SIG_BLOCK, &set_of(signal), std::ptr::null_mut()) });
}

/// The next signal of that number, if one comes within so many seconds: its code and descriptor.
fn next(signal: i32, seconds: i64) -> Option<(i32, i32)> {
    unsafe {
        let mut info: siginfo_t = std::mem::zeroed();
        let limit = timespec { tv_sec: seconds, tv_nsec: 0 };
        let got = sigtimedwait(&set_of(signal), &mut info, &limit);
        // `si_fd` lies behind the eight bytes of `si_band`.
        let fd = *(&raw const info).cast::<i32>().add(6);
        (got == signal).then_some((info.si_code, fd))
    }
}

fn leases_are_for_files_nobody_else_has_open() {
    let path = format!("{}/file", scratch());
    fs::write(&path, "x").unwrap();
    unsafe {
        let fd = open_file(&path, O_RDONLY);
        assert_eq!(held(fd), F_UNLCK);
        fails!(lease(fd, F_UNLCK), EAGAIN);
        fails!(lease(fd, 77), EINVAL);
        assert_eq!(lease(fd, F_RDLCK), 0);
        assert_eq!(held(fd), F_RDLCK);
        // Another reader may have one too, but none of its own then.
        let other = open_file(&path, O_RDONLY);
        assert_eq!(held(other), F_UNLCK);
        assert_eq!(lease(other, F_RDLCK), 0);
        fails!(lease(fd, F_WRLCK), EAGAIN);
        close(other);
        assert_eq!(lease(fd, F_WRLCK), 0);
        assert_eq!(held(fd), F_WRLCK);
        assert_eq!(lease(fd, F_UNLCK), 0);
        close(fd);
        // Not to read what oneself may write.
        let fd = open_file(&path, O_RDWR);
        fails!(lease(fd, F_RDLCK), EAGAIN);
        assert_eq!(lease(fd, F_WRLCK), 0);
        // Copies of the descriptor are the same description, whose end is the lease's.
        let copy = ok(dup(fd));
        close(fd);
        assert_eq!(held(copy), F_WRLCK);
        close(copy);
        drop(fs::File::open(&path).unwrap());
        let dir = open_file(&scratch(), O_RDONLY);
        fails!(lease(dir, F_RDLCK), EINVAL);
        close(dir);
    }
    // Of files that belong to others, only with the capability.
    child_passes(|| unsafe {
        ok(chmod(c(&path).as_ptr(), 0o644));
        if setresuid(65534, 65534, 65534) != 0 {
            return;
        }
        let fd = open_file(&path, O_RDONLY);
        fails!(lease(fd, F_RDLCK), EACCES);
    });
}

/// Takes a lease, lets a child do something to the file, and waits until the holder is told.
fn broken(path: &str, kind: i32, what: impl FnOnce() -> i32) -> (i32, pid_t) {
    block(SIGIO);
    let fd = open_file(path, O_RDONLY);
    ok(lease(fd, kind));
    let breaker = child(|| {
        // Else it had the lease itself.
        unsafe { close(fd) };
        what()
    });
    assert!(next(SIGIO, 30).is_some(), "nobody told the holder");
    (fd, breaker)
}

fn passes(pid: pid_t) -> bool {
    let status = wait_for(pid);
    WIFEXITED(status) && WEXITSTATUS(status) == 0
}

fn whoever_opens_a_leased_file_waits_for_it() {
    let path = format!("{}/file", scratch());
    fs::write(&path, "x").unwrap();
    let opens = |flags: i32| i32::from(unsafe { open(c(&path).as_ptr(), flags) } < 0);
    let truncates = || unsafe { truncate(c(&path).as_ptr(), 0) };
    for kind in [F_RDLCK, F_WRLCK] {
        for flags in [O_WRONLY, O_RDWR] {
            let (fd, breaker) = broken(&path, kind, || opens(flags));
            // It is as good as gone, and can't become one for reading.
            assert_eq!(held(fd), F_UNLCK);
            unsafe {
                fails!(lease(fd, F_RDLCK), EAGAIN);
                assert_eq!(waitpid(breaker, std::ptr::null_mut(), WNOHANG), 0);
            }
            ok(lease(fd, F_UNLCK));
            assert!(passes(breaker));
            unsafe { close(fd) };
        }
        let (fd, breaker) = broken(&path, kind, truncates);
        // The end of the description is the end of the lease.
        unsafe { close(fd) };
        assert!(passes(breaker));
    }
    // A signal of one's choice says which descriptor it is about.
    unsafe {
        block(SIGUSR1);
        let fd = open_file(&path, O_RDONLY);
        ok(fcntl(fd, F_SETSIG, SIGUSR1));
        ok(lease(fd, F_RDLCK));
        assert_eq!(fcntl(fd, F_GETOWN), getpid());
        let breaker = child(|| opens(O_WRONLY));
        // POLL_MSG
        assert_eq!(next(SIGUSR1, 30), Some((3, fd)));
        ok(lease(fd, F_UNLCK));
        assert_eq!(fcntl(fd, F_GETSIG), 0);
        assert!(passes(breaker));
    }
}

fn a_reader_is_content_with_a_lease_for_reading() {
    let path = format!("{}/file", scratch());
    fs::write(&path, "x").unwrap();
    let reads = || i32::from(fs::read(&path).is_err());
    let (fd, breaker) = broken(&path, F_WRLCK, reads);
    assert_eq!(held(fd), F_RDLCK);
    ok(lease(fd, F_RDLCK));
    assert!(passes(breaker));
    assert_eq!(held(fd), F_RDLCK);
    // Nobody is told of readers now.
    fs::read(&path).unwrap();
    assert_eq!(next(SIGIO, 0), None);
    // A breaker that a signal calls away leaves it broken.
    let pid = child(|| i32::from(unsafe { open(c(&path).as_ptr(), O_WRONLY) } < 0));
    assert!(next(SIGIO, 30).is_some());
    unsafe { kill(pid, SIGKILL) };
    wait_for(pid);
    assert_eq!(held(fd), F_UNLCK);
    ok(lease(fd, F_UNLCK));
}

fn without_waiting_a_leased_file_is_not_opened() {
    let path = format!("{}/file", scratch());
    fs::write(&path, "x").unwrap();
    block(SIGIO);
    unsafe {
        let fd = open_file(&path, O_RDONLY);
        ok(lease(fd, F_RDLCK));
        fails!(open(c(&path).as_ptr(), O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
        // Even to oneself; and a descriptor that does nothing is no matter.
        assert!(next(SIGIO, 30).is_some());
        ok(close(ok(open(c(&path).as_ptr(), O_PATH))));
        fails!(open(c(&path).as_ptr(), O_RDWR | O_NONBLOCK), EWOULDBLOCK);
        ok(lease(fd, F_UNLCK));
        ok(open(c(&path).as_ptr(), O_WRONLY | O_NONBLOCK));
    }
}

fn a_lease_that_is_not_given_back_ends() {
    const LIMIT: &str = "/proc/sys/fs/lease-break-time";
    let path = format!("{}/file", scratch());
    fs::write(&path, "x").unwrap();
    let old = fs::read_to_string(LIMIT).unwrap();
    if fs::write(LIMIT, "1").is_err() {
        return;
    }
    let (fd, breaker) =
        broken(&path, F_RDLCK, || i32::from(unsafe { open(c(&path).as_ptr(), O_WRONLY) } < 0));
    let passed = passes(breaker);
    fs::write(LIMIT, old.trim()).unwrap();
    assert!(passed);
    assert_eq!(held(fd), F_UNLCK);
    unsafe {
        fails!(lease(fd, F_UNLCK), EAGAIN);
    }
}

fn directories_tell_of_changes_by_signals() {
    let dir = scratch();
    let sub = format!("{dir}/sub");
    fs::create_dir(&sub).unwrap();
    let signal = SIGRTMIN() + 1;
    block(signal);
    unsafe {
        let fd = open_file(&dir, O_RDONLY);
        let below = open_file(&sub, O_RDONLY);
        for fd in [fd, below] {
            ok(fcntl(fd, F_SETSIG, signal));
        }
        let file = fs::File::create(format!("{dir}/file")).unwrap();
        fails!(fcntl(std::os::fd::AsRawFd::as_raw_fd(&file), F_NOTIFY, DN_CREATE), ENOTDIR);
        // Once, unless more is asked for.
        ok(fcntl(fd, F_NOTIFY, DN_CREATE));
        fs::write(format!("{dir}/one"), "").unwrap();
        assert_eq!(next(signal, 30).unwrap().1, fd);
        fs::write(format!("{dir}/two"), "").unwrap();
        assert_eq!(next(signal, 0), None);
        ok(fcntl(fd, F_NOTIFY, DN_RENAME | DN_MULTISHOT));
        ok(fcntl(below, F_NOTIFY, DN_RENAME | DN_MULTISHOT));
        // Only within the directory it counts as a rename.
        fs::rename(format!("{dir}/one"), format!("{sub}/one")).unwrap();
        assert_eq!(next(signal, 0), None);
        fs::rename(&sub, format!("{dir}/other")).unwrap();
        assert_eq!(next(signal, 30).unwrap().1, fd);
        assert_eq!(next(signal, 0), None);
        // More is added; nothing at all ends it.
        ok(fcntl(fd, F_NOTIFY, DN_ATTRIB | DN_DELETE | DN_MULTISHOT));
        ok(chmod(c(&format!("{dir}/two")).as_ptr(), 0o600));
        assert_eq!(next(signal, 30).unwrap().1, fd);
        fs::remove_file(format!("{dir}/two")).unwrap();
        assert!(next(signal, 30).is_some());
        while next(signal, 0).is_some() {}
        ok(fcntl(fd, F_NOTIFY, 0));
        fs::remove_file(format!("{dir}/file")).unwrap();
        assert_eq!(next(signal, 0), None);
    }
}

/// `struct file_handle`, with as much room as there may be.
#[repr(C)]
#[derive(Clone, Copy)]
struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; 128],
}

const EMPTY: Handle = Handle { bytes: 128, kind: 0, data: [0; 128] };

fn handle_of(path: &str, flags: i32, handle: &mut Handle) -> i64 {
    let mut mount = 0;
    unsafe { syscall(SYS_name_to_handle_at, AT_FDCWD, c(path).as_ptr(), handle, &mut mount, flags) }
}

fn open_handle(mount: i32, handle: &Handle, flags: i32) -> i64 {
    unsafe { syscall(SYS_open_by_handle_at, mount, handle, flags) }
}

fn a_file_is_found_by_its_handle() {
    let dir = scratch();
    let path = format!("{dir}/file");
    fs::write(&path, "contents").unwrap();
    let mount = open_file(&dir, O_RDONLY);
    let mut handle = EMPTY;
    unsafe {
        if handle_of(&path, 0, &mut handle) != 0 {
            // An overlay on Linux has none.
            assert_eq!(*__errno_location(), EOPNOTSUPP);
            return;
        }
        let len = handle.bytes;
        assert!(len > 0 && len < 128);
        let mut small = Handle { bytes: 1, ..EMPTY };
        fails!(handle_of(&path, 0, &mut small), EOVERFLOW);
        assert_eq!(small.bytes, len);
        fails!(handle_of(&path, 0, &mut Handle { bytes: 129, ..EMPTY }), EINVAL);
        fails!(handle_of(&path, 0x4000_0000, &mut small), EINVAL);
        fails!(handle_of(&format!("{dir}/nothing"), 0, &mut small), ENOENT);
        fails!(handle_of("", 0, &mut small), ENOENT);
        fails!(handle_of("/proc/self/status", 0, &mut small), EOPNOTSUPP);
        // One name after another.
        let mut again = EMPTY;
        fs::rename(&path, format!("{dir}/renamed")).unwrap();
        ok(handle_of(&format!("{dir}/renamed"), 0, &mut again));
        assert_eq!((again.kind, again.data), (handle.kind, handle.data));
        let fd = open_handle(mount, &handle, O_RDWR);
        if fd == -1 && matches!(*__errno_location(), EPERM) {
            return;
        }
        let mut bytes = [0u8; 16];
        assert_eq!(read(ok(fd) as i32, bytes.as_mut_ptr().cast(), 16), 8);
        assert_eq!(&bytes[..8], b"contents");
        close(fd as i32);
        fails!(open_handle(-1, &handle, O_RDONLY), EBADF);
        fails!(open_handle(mount, &Handle { bytes: 0, ..handle }, O_RDONLY), EINVAL);
        fails!(open_handle(mount, &Handle { bytes: 129, ..handle }, O_RDONLY), EINVAL);
        fails!(open_handle(mount, &Handle { kind: 0x55, ..handle }, O_RDONLY), ESTALE);
        fails!(syscall(SYS_open_by_handle_at, mount, 1, O_RDONLY), EFAULT);
        // A link is a link, and a directory leads on.
        let link = format!("{dir}/link");
        std::os::unix::fs::symlink("renamed", &link).unwrap();
        let mut other = EMPTY;
        ok(handle_of(&link, 0, &mut other));
        fails!(open_handle(mount, &other, O_RDONLY), ELOOP);
        ok(handle_of(&link, AT_SYMLINK_FOLLOW, &mut other));
        assert_eq!(other.data, handle.data);
        fs::create_dir(format!("{dir}/sub")).unwrap();
        ok(handle_of(&format!("{dir}/sub"), 0, &mut other));
        let sub = ok(open_handle(mount, &other, O_RDONLY | O_DIRECTORY)) as i32;
        ok(faccessat(sub, c("../renamed").as_ptr(), F_OK, 0));
        ok(fchdir(sub));
        assert_eq!(std::env::current_dir().unwrap().to_str().unwrap(), format!("{dir}/sub"));
        ok(chdir(c("/").as_ptr()));
        close(sub);
        // It ends with the file.
        fs::remove_file(format!("{dir}/renamed")).unwrap();
        fails!(open_handle(mount, &handle, O_RDONLY), ESTALE);
        // Whoever may not look everywhere may not do it at all.
        child_passes(|| {
            ok(setresuid(65534, 65534, 65534));
            fails!(open_handle(mount, &other, O_RDONLY), EPERM);
        });
    }
}
