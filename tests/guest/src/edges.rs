//! Small rules that suites from outside check.

use crate::harness::{c, child, child_passes, ok, pause_ms, pipe, scratch, until_asleep, wait_for};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::ptr::null_mut;

cases!(
    locking_pages_without_access_fails,
    without_a_limit_for_locked_memory_nothing_is_locked,
    a_new_owner_loses_file_capabilities,
    descriptor_limits_end_at_nr_open,
    calls_without_a_descriptor_do_nothing,
    a_call_under_way_has_its_descriptor,
    the_processor_may_be_asked_what_it_is,
    sockets_bind_with_the_mode_of_their_descriptor,
    listings_fill_a_buffer_that_ends_early,
    arguments_that_mean_nothing_must_be_nothing,
    pipes_are_spliced_without_waiting,
    a_child_starts_with_the_timer_slack_of_its_parent,
    what_must_not_wait_does_not,
    strict_mode_ends_by_a_kill,
    locked_and_private_pages_are_not_removed,
    names_and_numbers_of_the_system_can_be_set,
    the_clock_says_how_it_is_kept,
    ended_processes_are_accounted_for,
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

fn calls_without_a_descriptor_do_nothing() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
    client.write_all(b"kept").unwrap();
    let path = format!("{}/never", scratch());
    let (name, queue) = (c(&path), c("/d2u-never"));
    unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        ok(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit));
        let none = libc::rlimit { rlim_cur: 0, ..limit };
        ok(libc::setrlimit(libc::RLIMIT_NOFILE, &none));
        fails!(libc::accept(server.as_raw_fd(), null_mut(), null_mut()), EMFILE);
        let flags = libc::O_CREAT | libc::O_RDWR;
        fails!(libc::open(name.as_ptr(), flags, 0o600), EMFILE);
        fails!(libc::mq_open(queue.as_ptr(), flags, 0o600, null_mut::<libc::mq_attr>()), EMFILE);
        ok(libc::setrlimit(libc::RLIMIT_NOFILE, &limit));
        fails!(libc::mq_unlink(queue.as_ptr()), ENOENT);
    }
    assert!(!std::fs::exists(&path).unwrap());
    // The connection is still there.
    let mut text = [0; 4];
    server.accept().unwrap().0.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"kept");
}

fn a_call_under_way_has_its_descriptor() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let free = || unsafe {
        let fd = ok(libc::dup(0));
        ok(libc::close(fd));
        fd
    };
    let expected = free();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            tell.send(unsafe { libc::gettid() }).unwrap();
            server.accept().unwrap().0
        });
        until_asleep(told.recv().unwrap());
        // It may have slept on its way.
        while free() == expected {
            pause_ms(1);
        }
        unsafe {
            fails!(libc::fcntl(expected, libc::F_GETFD), EBADF);
            fails!(libc::dup2(0, expected), EBUSY);
            fails!(libc::close(expected), EBADF);
        }
        let client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(accepted.join().unwrap().as_raw_fd(), expected);
        assert_ne!(client.as_raw_fd(), expected);
    });
}

fn the_processor_may_be_asked_what_it_is() {
    const ARCH_GET_CPUID: i32 = 0x1011;
    unsafe { assert_eq!(libc::syscall(libc::SYS_arch_prctl, ARCH_GET_CPUID, 0), 1) };
    assert_ne!(core::arch::x86_64::__cpuid(0).eax, 0);
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

fn arguments_that_mean_nothing_must_be_nothing() {
    unsafe {
        let prctl = |option: i32, args: [u64; 4]| {
            libc::syscall(libc::SYS_prctl, option, args[0], args[1], args[2], args[3])
        };
        fails!(prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 1, 0, 0]), EINVAL);
        fails!(prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 1]), EINVAL);
        fails!(prctl(libc::PR_GET_NO_NEW_PRIVS, [0, 1, 0, 0]), EINVAL);
        fails!(prctl(libc::PR_SET_THP_DISABLE, [0, 1, 0, 0]), EINVAL);
        fails!(prctl(libc::PR_GET_THP_DISABLE, [1, 1, 0, 0]), EINVAL);
        fails!(prctl(libc::PR_SET_TIMING, [1, 0, 0, 0]), EINVAL);
        fails!(prctl(libc::PR_CAP_AMBIENT, [4, 1, 0, 0]), EINVAL);
        fails!(prctl(libc::PR_CAP_AMBIENT, [1, 0, 1, 0]), EINVAL);
        // Flags are looked at before huge pages are.
        let memfd = |flags: u32| libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), flags);
        for flags in [-500i32 as u32, 0x100, !1, !2, !0, 0x8000_0000] {
            fails!(memfd(flags), EINVAL);
        }
        // FICLONE, where blocks aren't shared.
        let (one, two) = (memfd(0) as i32, memfd(0) as i32);
        fails!(libc::ioctl(one, 0x4004_9409, two), EOPNOTSUPP);
    }
}

fn pipes_are_spliced_without_waiting() {
    unsafe {
        let (r, w) = pipe();
        let size = libc::fcntl(w, libc::F_GETPIPE_SZ) as usize;
        let bytes = vec![7u8; size + PAGE];
        let iov = |len: usize| libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: len };
        let vmsplice = |fd: i32, iov: &libc::iovec, flags: u32| libc::vmsplice(fd, iov, 1, flags);
        fails!(vmsplice(r, &iov(1), libc::SPLICE_F_NONBLOCK), EAGAIN);
        // Waits for room, but not for enough of it.
        let put = vmsplice(w, &iov(size + PAGE), 0);
        assert!(put > 0 && put as usize <= size, "{put}");
        fails!(vmsplice(w, &iov(1), libc::SPLICE_F_NONBLOCK), EAGAIN);
        fails!(vmsplice(w, &iov(1), 0x100), EINVAL);
        // A file that is appended to has no place to put them.
        let path = c(&format!("{}/file", scratch()));
        let file =
            ok(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_APPEND, 0o600));
        fails!(libc::splice(r, null_mut(), file, null_mut(), 10, 0), EINVAL);
    }
}

fn a_child_starts_with_the_timer_slack_of_its_parent() {
    child_passes(|| unsafe {
        ok(libc::prctl(libc::PR_SET_TIMERSLACK, 70_000));
        child_passes(|| {
            assert_eq!(libc::prctl(libc::PR_GET_TIMERSLACK), 70_000);
            ok(libc::prctl(libc::PR_SET_TIMERSLACK, 60_000));
            ok(libc::prctl(libc::PR_SET_TIMERSLACK, 0));
            assert_eq!(libc::prctl(libc::PR_GET_TIMERSLACK), 70_000);
        });
        ok(libc::prctl(libc::PR_SET_TIMERSLACK, 0));
        assert_eq!(libc::prctl(libc::PR_GET_TIMERSLACK), 50_000);
        // Without a terminal there is nothing to hang up; not for everybody, though.
        ok(libc::setsid());
        let hung_up = libc::syscall(libc::SYS_vhangup);
        assert!(hung_up == 0 || *libc::__errno_location() == libc::EPERM);
        ok(libc::setresuid(65534, 65534, 65534));
        fails!(libc::syscall(libc::SYS_vhangup), EPERM);
    });
}

fn what_must_not_wait_does_not() {
    unsafe {
        const NOWAIT: i32 = libc::RWF_NOWAIT;
        let (r, w) = pipe();
        let mut byte = [0u8; 1];
        let iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        fails!(libc::preadv2(r, &iov, 1, -1, NOWAIT), EAGAIN);
        // struct iocb: data; key and flags; opcode, priority and descriptor; buffer, length, offset.
        let mut context = 0u64;
        ok(libc::syscall(libc::SYS_io_setup, 1, &mut context));
        let request =
            [0, (NOWAIT as u64) << 32, (r as u64) << 32, byte.as_ptr() as u64, 1, 0, 0, 0];
        let requests = [request.as_ptr()];
        ok(libc::syscall(libc::SYS_io_submit, context, 1, requests.as_ptr()));
        let mut event = [0i64; 4];
        ok(libc::syscall(
            libc::SYS_io_getevents,
            context,
            1,
            1,
            event.as_mut_ptr(),
            null_mut::<u8>(),
        ));
        assert_eq!(event[2], -i64::from(libc::EAGAIN));
        ok(libc::syscall(libc::SYS_io_destroy, context));
        ok(libc::write(w, b"x".as_ptr().cast(), 1));
        assert_eq!(libc::preadv2(r, &iov, 1, -1, NOWAIT), 1);
        libc::close(w);
        assert_eq!(libc::preadv2(r, &iov, 1, -1, NOWAIT), 0);
    }
}

fn strict_mode_ends_by_a_kill() {
    for allowed in [true, false] {
        let pid = child(|| unsafe {
            ok(libc::prctl(libc::PR_SET_SECCOMP, 1, 0, 0, 0));
            libc::write(1, b"".as_ptr().cast(), 0);
            if !allowed {
                libc::close(0);
            }
            libc::syscall(libc::SYS_exit, 0);
            1
        });
        let status = wait_for(pid);
        if allowed {
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        } else {
            assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
        }
    }
    // A program that asks to be traced twice is told so, and ends as any.
    child_passes(|| unsafe {
        ok(libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<u8>(), null_mut::<u8>()));
        fails!(libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<u8>(), null_mut::<u8>()), EPERM);
    });
}

fn locked_and_private_pages_are_not_removed() {
    unsafe {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let shared = map(PAGE, prot, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        *shared.cast::<u8>() = 7;
        ok(libc::mlock(shared, PAGE));
        fails!(libc::madvise(shared, PAGE, libc::MADV_REMOVE), EINVAL);
        ok(libc::munlock(shared, PAGE));
        ok(libc::madvise(shared, PAGE, libc::MADV_REMOVE));
        assert_eq!(*shared.cast::<u8>(), 0);
        fails!(libc::madvise(map(PAGE, prot, PRIVATE), PAGE, libc::MADV_REMOVE), EINVAL);
        let file = ok(libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), 0)) as i32;
        ok(libc::ftruncate(file, PAGE as i64));
        let private = libc::mmap(null_mut(), PAGE, prot, libc::MAP_PRIVATE, file, 0);
        fails!(libc::madvise(private, PAGE, libc::MADV_REMOVE), EACCES);
    }
}

fn names_and_numbers_of_the_system_can_be_set() {
    // Where it is for us to set them.
    let set = |name: &str, value: &str| {
        let path = format!("/proc/sys/kernel/{name}");
        let old = std::fs::read_to_string(&path).unwrap();
        if std::fs::write(&path, value).is_err() {
            return;
        }
        let now = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, old.trim()).unwrap();
        assert_eq!(now.trim(), value);
    };
    set("domainname", "a.domain");
    // The next object gets the id that was asked for, and only that one.
    type Make = unsafe fn() -> i32;
    type Remove = unsafe fn(i32) -> i32;
    let kinds: [(&str, Make, Remove); 2] = [
        (
            "msg",
            || unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) },
            |id| unsafe { libc::msgctl(id, libc::IPC_RMID, null_mut()) },
        ),
        (
            "shm",
            || unsafe { libc::shmget(libc::IPC_PRIVATE, 1, 0o600) },
            |id| unsafe { libc::shmctl(id, libc::IPC_RMID, null_mut()) },
        ),
    ];
    for (kind, make, remove) in kinds {
        let path = format!("/proc/sys/kernel/{kind}_next_id");
        if std::fs::write(&path, "4321").is_err() {
            continue;
        }
        unsafe {
            let first = ok(make());
            let other = ok(make());
            let next = std::fs::read_to_string(&path).unwrap();
            // One that is taken is not to be had.
            std::fs::write(&path, "4321").unwrap();
            let third = ok(make());
            for id in [first, other, third] {
                ok(remove(id));
            }
            assert_eq!((first, next.trim()), (4321, "-1"), "{kind}");
            assert!(other != first && third != first && third != other, "{kind}");
        }
    }
    set("pid_max", "40000");
    let most: i32 =
        std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
    fails_to_find(most);
}

fn fails_to_find(pid: i32) {
    unsafe {
        fails!(libc::kill(pid, 0), ESRCH);
    }
}

fn the_clock_says_how_it_is_kept() {
    unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        assert!((0..=5).contains(&libc::adjtimex(&mut timex)));
        let old = timex;
        // What it is now may be set, where anything may.
        timex.modes = libc::ADJ_OFFSET
            | libc::ADJ_FREQUENCY
            | libc::ADJ_MAXERROR
            | libc::ADJ_ESTERROR
            | libc::ADJ_STATUS
            | libc::ADJ_TIMECONST
            | libc::ADJ_TICK;
        if libc::adjtimex(&mut timex) == -1 {
            assert_eq!(*libc::__errno_location(), libc::EPERM);
            return;
        }
        assert_eq!((timex.tick, timex.freq), (old.tick, old.freq));
        timex = std::mem::zeroed();
        timex.modes = libc::ADJ_TICK;
        timex.tick = 8999;
        fails!(libc::adjtimex(&mut timex), EINVAL);
        timex.tick = 11_001;
        fails!(libc::adjtimex(&mut timex), EINVAL);
        timex.modes = libc::ADJ_OFFSET_SINGLESHOT;
        timex.offset = 0;
        assert!((0..=5).contains(&libc::adjtimex(&mut timex)));
    }
}

fn ended_processes_are_accounted_for() {
    unsafe {
        if libc::acct(std::ptr::null()) != 0 {
            // Without the right to it, or in a kernel without it.
            assert!(matches!(*libc::__errno_location(), libc::EPERM | libc::ENOSYS));
            return;
        }
        let dir = scratch();
        let path = format!("{dir}/acct");
        // Linux writes no records where less than 4 % of the blocks are free (acct(5)).
        let mut room: libc::statvfs = std::mem::zeroed();
        ok(libc::statvfs(c(&dir).as_ptr(), &mut room));
        if room.f_bavail < room.f_blocks / 20 {
            return;
        }
        std::fs::write(&path, "").unwrap();
        fails!(libc::acct(c(&dir).as_ptr()), EISDIR);
        fails!(libc::acct(c"/dev/null".as_ptr()), EACCES);
        fails!(libc::acct(c(&format!("{dir}/nothing")).as_ptr()), ENOENT);
        ok(libc::acct(c(&path).as_ptr()));
        let pid = child(|| {
            libc::prctl(libc::PR_SET_NAME, c"accounted".as_ptr());
            7
        });
        wait_for(pid);
        ok(libc::acct(std::ptr::null()));
        let records = std::fs::read(&path).unwrap();
        let word =
            |record: &[u8], at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
        let ours = records.chunks_exact(64).find(|record| word(record, 16) == pid as u32);
        let ours = ours.expect("a record of the child");
        assert_eq!(ours[1] & 0xf, 3);
        assert_eq!(word(ours, 4), 7 << 8);
        assert_eq!((word(ours, 8), word(ours, 12)), (libc::getuid(), libc::getgid()));
        assert_eq!(word(ours, 20), libc::getpid() as u32);
        assert!(ours[48..].starts_with(b"accounted\0"));
    }
}
