//! mmap(2) and friends.

use crate::harness::*;
use crate::harness::{pipe, read, write};
use libc::*;
use std::ptr::null_mut;

cases![
    anonymous_memory_is_zero,
    file_mappings_show_the_file,
    private_mappings_keep_changes_to_themselves,
    shared_mappings_reach_the_file_and_other_processes,
    protection_changes_split_mappings,
    equal_protection_joins_mappings,
    protection_comes_and_goes_under_threads,
    fixed_mappings_replace,
    fixed_noreplace_refuses,
    invalid_requests_fail,
    access_past_the_end_raises_sigbus,
    brk_grows_and_shrinks,
    mremap_grows_moves_and_shrinks,
    dontneed_zeroes_anonymous_memory,
    stack_grows_down,
    stack_overflow_is_a_fault,
    mincore_and_msync_answer,
    memory_locks_respect_arguments,
    memfd_can_be_sealed,
    system_v_shared_memory_works,
    execute_protection_holds,
    fork_after_partial_unmap,
    large_sparse_mapping_costs_nothing,
    vm_read_between_processes,
    cow_under_threads,
    memory_policies_of_one_node,
];

const PAGE: usize = 4096;
const RW: c_int = PROT_READ | PROT_WRITE;
const ANON: c_int = MAP_PRIVATE | MAP_ANONYMOUS;

fn map(len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut u8 {
    let at = unsafe { mmap(null_mut(), len, prot, flags, fd, offset) };
    assert_ne!(at, MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    at.cast()
}

fn file_of(name: &str, bytes: &[u8]) -> i32 {
    let path = format!("{}/{name}", scratch());
    std::fs::write(&path, bytes).unwrap();
    ok(unsafe { open(c(&path).as_ptr(), O_RDWR) })
}

/// The signal that ends a child which runs `body`, or 0.
fn fatal_signal(body: impl FnOnce()) -> i32 {
    let status = wait_for(child(|| {
        body();
        0
    }));
    if WIFSIGNALED(status) { WTERMSIG(status) } else { 0 }
}

fn anonymous_memory_is_zero() {
    let at = map(64 * PAGE, RW, ANON, -1, 0);
    let bytes = unsafe { std::slice::from_raw_parts_mut(at, 64 * PAGE) };
    assert!(bytes.iter().all(|&byte| byte == 0));
    bytes.fill(7);
    ok(unsafe { munmap(at.cast(), 64 * PAGE) });
    let again = map(64 * PAGE, RW, ANON, -1, 0);
    assert!(unsafe { std::slice::from_raw_parts(again, 64 * PAGE) }.iter().all(|&byte| byte == 0));
}

fn file_mappings_show_the_file() {
    let mut content = vec![b'a'; PAGE + 100];
    content[PAGE] = b'b';
    let fd = file_of("mapped", &content);
    let at = map(2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    unsafe {
        close(fd);
        assert_eq!((*at, *at.add(PAGE), *at.add(PAGE + 99)), (b'a', b'b', b'a'));
        assert_eq!(*at.add(PAGE + 100), 0, "the tail of the last page is zero");
        let fd = file_of("mapped", &content);
        let second = map(PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE as i64);
        assert_eq!(*second, b'b');
    }
}

fn private_mappings_keep_changes_to_themselves() {
    let fd = file_of("private", b"hello");
    let at = map(PAGE, RW, MAP_PRIVATE, fd, 0);
    unsafe {
        *at = b'J';
        assert_eq!(pread_all(fd), b"hello");
        ok(pwrite(fd, c"HELLO".as_ptr().cast(), 5, 0));
        assert_eq!(*at, b'J');
    }
}

fn pread_all(fd: i32) -> Vec<u8> {
    let mut buf = vec![0; 1 << 16];
    let n = ok(unsafe { pread(fd, buf.as_mut_ptr().cast(), buf.len(), 0) as i64 });
    buf.truncate(n as usize);
    buf
}

fn shared_mappings_reach_the_file_and_other_processes() {
    let fd = file_of("shared", b"hello");
    let at = map(PAGE, RW, MAP_SHARED, fd, 0);
    unsafe {
        wait_for(child(|| {
            *at = b'J';
            0
        }));
        assert_eq!(pread_all(fd), b"Jello");
        ok(pwrite(fd, c"y".as_ptr().cast(), 1, 4));
        assert_eq!(*at.add(4), b'y');
        ok(ftruncate(fd, 2 * PAGE as i64));
        assert_eq!(pread_all(fd).len(), 2 * PAGE);
    }
    let anonymous = map(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    wait_for(child(|| {
        unsafe { *anonymous = 42 };
        0
    }));
    assert_eq!(unsafe { *anonymous }, 42);
}

fn protection_changes_split_mappings() {
    let at = map(3 * PAGE, RW, ANON, -1, 0);
    unsafe {
        ok(mprotect(at.add(PAGE).cast(), PAGE, PROT_READ));
        *at = 1;
        *at.add(2 * PAGE) = 1;
        assert_eq!(fatal_signal(|| at.add(PAGE).write_volatile(1)), SIGSEGV);
        ok(mprotect(at.add(PAGE).cast(), PAGE, PROT_NONE));
        assert_eq!(fatal_signal(|| touch(at.add(PAGE))), SIGSEGV);
        ok(mprotect(at.cast(), 3 * PAGE, RW));
        *at.add(PAGE) = 1;
        ok(munmap(at.add(PAGE).cast(), PAGE));
        fails!(mprotect(at.cast(), 3 * PAGE, PROT_READ), ENOMEM);
        fails!(mprotect(at.add(1).cast(), PAGE, PROT_READ), EINVAL);
        let fd = ok(open(c("/proc/self/exe").as_ptr(), O_RDONLY));
        let shared = map(PAGE, PROT_READ, MAP_SHARED, fd, 0);
        fails!(mprotect(shared.cast(), PAGE, RW), EACCES);
    }
}

fn equal_protection_joins_mappings() {
    let at = map(3 * PAGE, RW, ANON, -1, 0);
    let pieces = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let hex = |text: &str| usize::from_str_radix(text, 16).unwrap();
        let ranges = maps.lines().map(|line| line.split_once(' ').unwrap().0);
        let ranges = ranges.map(|range| range.split_once('-').unwrap());
        let ours = (at as usize, at as usize + 3 * PAGE);
        ranges.filter(|(start, end)| hex(start) < ours.1 && hex(end) > ours.0).count()
    };
    let protect = |page: usize, count: usize, prot| unsafe {
        ok(mprotect(at.add(page * PAGE).cast(), count * PAGE, prot));
    };
    protect(1, 1, PROT_READ);
    assert_eq!(pieces(), 3);
    protect(1, 1, PROT_NONE);
    assert_eq!(pieces(), 3);
    protect(0, 1, PROT_NONE);
    assert_eq!(pieces(), 2);
    protect(2, 1, PROT_NONE);
    assert_eq!(pieces(), 1);
    protect(0, 3, RW);
    (0..3).for_each(|page| unsafe { at.add(page * PAGE).write_volatile(1) });
}

fn protection_comes_and_goes_under_threads() {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    const ROUNDS: usize = 300;
    let at = map(PAGE, RW, ANON, -1, 0) as usize;
    let stage = AtomicUsize::new(0);
    let wait_for = |wanted: usize| {
        while stage.load(SeqCst) != wanted {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                // Its CPU still knows the page as it was in the round before.
                wait_for(2 * round + 1);
                unsafe { (at as *mut usize).write_volatile(round + 1) };
                stage.store(2 * round + 2, SeqCst);
            }
        });
        for round in 0..ROUNDS {
            let page = at as *mut c_void;
            unsafe {
                assert_eq!(*(at as *const usize), round);
                ok(mprotect(page, PAGE, PROT_READ));
                assert_eq!((at as *const usize).read_volatile(), round);
                ok(mprotect(page, PAGE, RW));
            }
            stage.store(2 * round + 1, SeqCst);
            wait_for(2 * round + 2);
        }
    });
    assert_eq!(unsafe { (at as *const usize).read_volatile() }, ROUNDS);
    unsafe { ok(mprotect(at as *mut c_void, PAGE, PROT_READ)) };
    assert_eq!(fatal_signal(|| unsafe { (at as *mut u8).write_volatile(1) }), SIGSEGV);
}

fn fixed_mappings_replace() {
    unsafe {
        let at = map(3 * PAGE, RW, ANON, -1, 0);
        at.write_bytes(9, 3 * PAGE);
        let middle = mmap(at.add(PAGE).cast(), PAGE, RW, ANON | MAP_FIXED, -1, 0);
        assert_eq!(middle, at.add(PAGE).cast());
        assert_eq!((*at, *at.add(PAGE), *at.add(2 * PAGE)), (9, 0, 9));
        fails!(mmap(at.add(1).cast(), PAGE, RW, ANON | MAP_FIXED, -1, 0) as i64, EINVAL);
    }
}

fn fixed_noreplace_refuses() {
    unsafe {
        let at = map(PAGE, RW, ANON, -1, 0);
        fails!(mmap(at.cast(), PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) as i64, EEXIST);
        munmap(at.cast(), PAGE);
        let again = mmap(at.cast(), PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0);
        assert_eq!(again, at.cast());
    }
}

fn invalid_requests_fail() {
    unsafe {
        fails!(mmap(null_mut(), 0, RW, ANON, -1, 0) as i64, EINVAL);
        fails!(mmap(null_mut(), PAGE, RW, MAP_ANONYMOUS, -1, 0) as i64, EINVAL);
        fails!(mmap(null_mut(), PAGE, RW, MAP_PRIVATE, -1, 0) as i64, EBADF);
        fails!(mmap(null_mut(), PAGE, RW, MAP_PRIVATE, 0, 100) as i64, EINVAL);
        fails!(mmap(null_mut(), 1 << 47, RW, ANON, -1, 0) as i64, ENOMEM);
        fails!(munmap(std::ptr::without_provenance_mut(1), PAGE), EINVAL);
        fails!(munmap(null_mut(), 0), EINVAL);
        ok(munmap(PAGE as *mut c_void, PAGE));
        let (r, _w) = pipe();
        fails!(mmap(null_mut(), PAGE, PROT_READ, MAP_PRIVATE, r, 0) as i64, ENODEV);
        let fd = file_of("mode", b"x");
        let write_only = ok(open(c(&format!("{}/mode", scratch())).as_ptr(), O_WRONLY));
        fails!(mmap(null_mut(), PAGE, PROT_READ, MAP_PRIVATE, write_only, 0) as i64, EACCES);
        let read_only = ok(open(c(&format!("{}/mode", scratch())).as_ptr(), O_RDONLY));
        fails!(mmap(null_mut(), PAGE, RW, MAP_SHARED, read_only, 0) as i64, EACCES);
        close(fd);
    }
}

fn access_past_the_end_raises_sigbus() {
    let fd = file_of("short", &[1; 100]);
    let at = map(2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    assert_eq!(fatal_signal(|| touch(unsafe { at.add(PAGE) })), SIGBUS);
    // Truncation takes pages away from a mapping that has touched them.
    unsafe {
        ok(ftruncate(fd, 2 * PAGE as i64));
        assert_eq!(at.add(PAGE).read_volatile(), 0);
        ok(ftruncate(fd, 10));
        assert_eq!(fatal_signal(|| touch(at.add(PAGE))), SIGBUS);
        assert_eq!((at.read_volatile(), at.add(10).read_volatile()), (1, 0));
    }
}

fn brk_grows_and_shrinks() {
    unsafe {
        let start = sbrk(0);
        assert_eq!(sbrk(3 * PAGE as isize), start);
        start.cast::<u8>().write_bytes(5, 3 * PAGE);
        sbrk(-(3 * PAGE as isize));
        sbrk(3 * PAGE as isize);
        assert_eq!(
            start.cast::<u8>().add(2 * PAGE).read_volatile(),
            0,
            "pages given back come back zeroed"
        );
        let now = syscall(SYS_brk, 0);
        assert_eq!(syscall(SYS_brk, 1i64 << 46), now, "an impossible request changes nothing");
    }
}

fn mremap_grows_moves_and_shrinks() {
    unsafe {
        let at = map(4 * PAGE, RW, ANON, -1, 0);
        at.write_bytes(3, 4 * PAGE);
        let half = mremap(at.cast(), 4 * PAGE, 2 * PAGE, 0);
        assert_eq!(half, at.cast());
        assert_eq!(fatal_signal(|| touch(at.add(3 * PAGE))), SIGSEGV);
        // Something right behind it, so that growing has to move.
        mmap(at.add(2 * PAGE).cast(), PAGE, RW, ANON | MAP_FIXED, -1, 0);
        fails!(mremap(at.cast(), 2 * PAGE, 8 * PAGE, 0) as i64, ENOMEM);
        let moved = mremap(at.cast(), 2 * PAGE, 8 * PAGE, MREMAP_MAYMOVE).cast::<u8>();
        assert!(moved != MAP_FAILED.cast() && moved != at);
        assert_eq!((*moved, *moved.add(2 * PAGE - 1), *moved.add(2 * PAGE)), (3, 3, 0));
        let target = map(8 * PAGE, PROT_NONE, ANON, -1, 0);
        let fixed = mremap(moved.cast(), 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target);
        assert_eq!(fixed, target.cast());
        assert_eq!(*target, 3);
        fails!(mremap(moved.cast(), PAGE, 2 * PAGE, MREMAP_MAYMOVE) as i64, EFAULT);
        fails!(mremap(target.add(1).cast(), PAGE, PAGE, 0) as i64, EINVAL);
    }
}

fn dontneed_zeroes_anonymous_memory() {
    unsafe {
        let at = map(2 * PAGE, RW, ANON, -1, 0);
        at.write_bytes(1, 2 * PAGE);
        ok(madvise(at.cast(), PAGE, MADV_DONTNEED));
        assert_eq!((*at, *at.add(PAGE)), (0, 1));
        let fd = file_of("advice", b"data");
        let file = map(PAGE, RW, MAP_PRIVATE, fd, 0);
        *file = b'X';
        ok(madvise(file.cast(), PAGE, MADV_DONTNEED));
        assert_eq!(*file, b'd', "a private file page comes back from the file");
        fails!(madvise(at.cast(), PAGE, 9999), EINVAL);
        fails!(madvise(at.add(1).cast(), PAGE, MADV_DONTNEED), EINVAL);
    }
}

fn stack_grows_down() {
    #[inline(never)]
    fn deep(level: usize) -> usize {
        let mut frame = [level as u8; 8192];
        std::hint::black_box(&mut frame);
        if level == 0 { frame[0] as usize } else { deep(level - 1) + frame[100] as usize % 2 }
    }
    assert!(deep(300) > 0, "2.4 MB of stack");
}

fn stack_overflow_is_a_fault() {
    #[allow(unconditional_recursion, reason = "the overflow is the point")]
    #[inline(never)]
    fn endless(level: usize) -> usize {
        let mut frame = [level; 512];
        std::hint::black_box(&mut frame);
        endless(level + 1) + std::hint::black_box(frame[0])
    }
    unsafe { signal(SIGSEGV, SIG_DFL) };
    assert_eq!(
        fatal_signal(|| {
            std::hint::black_box(endless(1));
        }),
        SIGSEGV
    );
}

fn mincore_and_msync_answer() {
    unsafe {
        let at = map(2 * PAGE, RW, ANON, -1, 0);
        *at = 1;
        let mut vec = [0u8; 2];
        ok(mincore(at.cast(), 2 * PAGE, vec.as_mut_ptr()));
        assert_eq!(vec[0] & 1, 1);
        ok(msync(at.cast(), PAGE, MS_SYNC));
        fails!(msync(at.cast(), PAGE, MS_SYNC | MS_ASYNC), EINVAL);
        munmap(at.add(PAGE).cast(), PAGE);
        fails!(mincore(at.cast(), 2 * PAGE, vec.as_mut_ptr()), ENOMEM);
        fails!(msync(at.cast(), 2 * PAGE, MS_SYNC), ENOMEM);
    }
}

fn memory_locks_respect_arguments() {
    unsafe {
        let at = map(PAGE, RW, ANON, -1, 0);
        ok(mlock(at.cast(), PAGE));
        ok(munlock(at.cast(), PAGE));
        ok(munmap(at.cast(), PAGE));
        fails!(mlock(at.cast(), PAGE), ENOMEM);
        fails!(mlockall(0), EINVAL);
    }
}

fn memfd_can_be_sealed() {
    unsafe {
        let fd = ok(memfd_create(c"test".as_ptr(), MFD_ALLOW_SEALING | MFD_CLOEXEC));
        ok(ftruncate(fd, PAGE as i64));
        let at = map(PAGE, RW, MAP_SHARED, fd, 0);
        *at = 4;
        fails!(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
        munmap(at.cast(), PAGE);
        ok(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW));
        assert_eq!(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
        fails!(libc::write(fd, c"x".as_ptr().cast(), 1), EPERM);
        fails!(ftruncate(fd, 0), EPERM);
        fails!(ftruncate(fd, 8192), EPERM);
        fails!(mmap(null_mut(), PAGE, RW, MAP_SHARED, fd, 0) as i64, EPERM);
        assert_eq!(pread_all(fd)[0], 4);
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        assert_eq!(link.to_str().unwrap(), "/memfd:test (deleted)");
    }
}

fn system_v_shared_memory_works() {
    unsafe {
        let id = ok(shmget(IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0o600));
        let at = shmat(id, null_mut(), 0).cast::<u32>();
        assert_ne!(at as usize, usize::MAX);
        wait_for(child(|| {
            let again = shmat(id, null_mut(), 0).cast::<u32>();
            *again = 77;
            0
        }));
        assert_eq!(*at, 77);
        let mut info: shmid_ds = std::mem::zeroed();
        ok(shmctl(id, IPC_STAT, &mut info));
        assert_eq!((info.shm_segsz, info.shm_nattch), (3 * PAGE, 1));
        ok(shmctl(id, IPC_RMID, null_mut()));
        assert_eq!(*at, 77, "attached memory outlives removal");
        ok(shmdt(at.cast()));
        fails!(shmat(id, null_mut(), 0) as i64, EINVAL);
        fails!(shmdt(at.cast()), EINVAL);
        fails!(shmget(0x1234_5678, PAGE, 0), ENOENT);
    }
}

fn execute_protection_holds() {
    unsafe {
        let at = map(PAGE, RW, ANON, -1, 0);
        at.cast::<[u8; 6]>().write([0xb8, 42, 0, 0, 0, 0xc3]); // mov eax, 42; ret
        let function: extern "C" fn() -> i32 = std::mem::transmute(at);
        assert_eq!(
            fatal_signal(|| {
                function();
            }),
            SIGSEGV
        );
        ok(mprotect(at.cast(), PAGE, PROT_READ | PROT_EXEC));
        assert_eq!(function(), 42);
    }
}

fn fork_after_partial_unmap() {
    unsafe {
        let at = map(64 * PAGE, RW, ANON, -1, 0);
        at.write_bytes(6, 64 * PAGE);
        for page in (1..64).step_by(2) {
            munmap(at.add(page * PAGE).cast(), PAGE);
        }
        child_passes(|| {
            for page in (0..64).step_by(2) {
                assert_eq!(*at.add(page * PAGE), 6);
                *at.add(page * PAGE) = 1;
            }
        });
        assert_eq!(*at.add(62 * PAGE), 6);
        assert_eq!(fatal_signal(|| touch(at.add(PAGE))), SIGSEGV);
    }
}

fn large_sparse_mapping_costs_nothing() {
    unsafe {
        let len = 64usize << 30;
        let at = map(len, RW, ANON | MAP_NORESERVE, -1, 0);
        for gib in 0..64usize {
            *at.add(gib << 30) = gib as u8;
        }
        assert_eq!((*at.add(63 << 30), *at.add((63 << 30) + PAGE)), (63, 0));
        ok(munmap(at.cast(), len));
    }
}

fn vm_read_between_processes() {
    unsafe {
        let at = map(2 * PAGE, RW, ANON, -1, 0);
        let (r, w) = pipe();
        let (hold_r, hold_w) = pipe();
        let pid = child(|| {
            close(hold_w);
            at.write_bytes(8, 2 * PAGE);
            write(w, b"x");
            read(hold_r, 1);
            0
        });
        read(r, 1);
        let mut got = vec![0u8; 100];
        let local = iovec { iov_base: got.as_mut_ptr().cast(), iov_len: 100 };
        let remote = iovec { iov_base: at.add(PAGE - 50).cast(), iov_len: 100 };
        assert_eq!(process_vm_readv(pid, &local, 1, &remote, 1, 0), 100);
        assert_eq!(got, [8; 100]);
        close(hold_w);
        wait_for(pid);
    }
}

fn cow_under_threads() {
    let at = map(256 * PAGE, RW, ANON, -1, 0) as usize;
    for round in 0..10u8 {
        unsafe { (at as *mut u8).write_bytes(round, 256 * PAGE) };
        let pid = child(|| {
            pause_ms(5);
            let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, 256 * PAGE) };
            i32::from(!bytes.iter().all(|&byte| byte == round))
        });
        let threads: Vec<_> = (0..4)
            .map(|part| {
                std::thread::spawn(move || unsafe {
                    ((at + part * 64 * PAGE) as *mut u8).write_bytes(100 + part as u8, 64 * PAGE)
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(wait_for(pid), 0, "round {round}");
        assert_eq!(unsafe { *((at + 255 * PAGE) as *const u8) }, 103);
    }
}

fn memory_policies_of_one_node() {
    let get = |mode: *mut i32, mask: *mut u64, max: u64, addr: usize, flags: u32| unsafe {
        syscall(SYS_get_mempolicy, mode, mask, max, addr, flags)
    };
    let set = |mode: i32, mask: *const u64, max: u64| unsafe {
        syscall(SYS_set_mempolicy, mode, mask, max)
    };
    let (default, bind, local, static_nodes, mems_allowed, by_addr) = (0, 2, 4, 1 << 15, 4, 2);
    let (mut mode, mut mask) = (-1, [u64::MAX; 16]);
    ok(get(&mut mode, mask.as_mut_ptr(), 1024, 0, mems_allowed));
    assert_eq!((mode, mask[0] & 1), (0, 1), "there is always node 0");
    let here = 1u64;
    unsafe {
        ok(set(bind, &here, 64));
        ok(get(&mut mode, mask.as_mut_ptr(), 1024, 0, 0));
        assert_eq!((mode, &mask[..]), (bind, &[&[1][..], &[0; 15]].concat()[..]));
        child_passes(|| {
            let mut mode = -1;
            ok(get(&mut mode, null_mut(), 0, 0, 0));
            assert_eq!(mode, 2, "children inherit it");
        });
        // Preferring no node in particular is preferring the nearest.
        ok(set(1, std::ptr::null(), 0));
        ok(get(&mut mode, null_mut(), 0, 0, 0));
        assert_eq!(mode, local);
        fails!(set(default, &here, 64), EINVAL);
        fails!(set(bind, std::ptr::null(), 0), EINVAL);
        fails!(set(local, &here, 64), EINVAL);
        fails!(set(local | static_nodes, std::ptr::null(), 0), EINVAL);
        fails!(set(99, &here, 64), EINVAL);
        fails!(set(bind, std::ptr::without_provenance(8), 64), EFAULT);
        ok(set(default, std::ptr::null(), 0));

        let at = map(4 * PAGE, RW, ANON, -1, 0);
        let mbind = |at: *mut u8, len: usize, mode: i32, mask: *const u64, flags: u32| {
            syscall(SYS_mbind, at, len, mode, mask, 64, flags)
        };
        ok(mbind(at, 4 * PAGE, bind, &here, 0));
        at.write(1);
        ok(get(&mut mode, null_mut(), 0, at as usize, by_addr | 1));
        assert_eq!(mode, 0, "the page lies on node 0");
        fails!(mbind(at.add(1), PAGE, bind, &here, 0), EINVAL);
        fails!(mbind(at, PAGE, bind, &here, 1 << 30), EINVAL);
        munmap(at.add(PAGE).cast(), PAGE);
        fails!(mbind(at, 4 * PAGE, bind, &here, 0), EFAULT);
        fails!(get(&mut mode, null_mut(), 0, at as usize + PAGE, by_addr), EFAULT);
        fails!(get(&mut mode, null_mut(), 0, at as usize, 0), EINVAL);
        fails!(get(&mut mode, null_mut(), 0, 0, 1 << 20), EINVAL);
    }
}
