//! Files and directories.

use crate::harness::*;
use crate::harness::{pipe, read, write};
use libc::*;
use std::ffi::CString;
use std::mem::zeroed;
use std::ptr::{null, null_mut};

cases![
    open_flags_mean_what_they_say,
    reads_writes_and_offsets,
    append_always_writes_at_the_end,
    vectors_and_positions,
    reads_end_at_the_byte_that_has_no_place,
    holes_read_as_zero,
    rename_replaces_and_refuses,
    rename_flags_work,
    links_count,
    unlinked_files_live_on,
    symlinks_resolve_and_loop,
    directories_list_themselves,
    a_large_directory_lists_every_name_once,
    rmdir_refuses_what_it_should,
    permissions_bind_users,
    umask_and_modes,
    sticky_directories_protect,
    times_are_kept_and_set,
    reading_sets_the_access_time,
    stat_family_agrees,
    at_calls_use_the_directory,
    current_directory_moves,
    descriptors_are_lowest_first,
    dup_and_fcntl_flags,
    descriptor_limit_holds,
    close_range_closes,
    file_locks_exclude,
    record_locks_follow_posix,
    open_file_description_locks,
    locks_are_listed,
    sendfile_copies,
    copy_file_range_copies,
    splice_moves_between_pipe_and_file,
    fallocate_modes,
    extended_attributes,
    long_names_and_paths,
    special_files_behave,
    fifo_connects_reader_and_writer,
    chroot_confines,
    dev_fd_paths_reopen,
    tmpfile_can_be_linked,
    statfs_answers,
    truncate_extends_and_cuts,
    o_path_is_only_a_name,
    read_only_root_is_writable_above,
];

fn path(name: &str) -> CString {
    c(&format!("{}/{name}", scratch()))
}

fn create(name: &str, bytes: &[u8]) -> CString {
    let at = path(name);
    std::fs::write(at.to_str().unwrap(), bytes).unwrap();
    at
}

fn content(at: &CString) -> Vec<u8> {
    std::fs::read(at.to_str().unwrap()).unwrap()
}

fn open_at(at: &CString, flags: c_int) -> i32 {
    ok(unsafe { open(at.as_ptr(), flags, 0o644) })
}

fn stat_of(at: &CString) -> stat {
    unsafe {
        let mut st: stat = zeroed();
        ok(lstat(at.as_ptr(), &mut st));
        st
    }
}

/// Runs `body` as an ordinary user in a child.
fn as_user(body: impl FnOnce()) {
    child_passes(|| unsafe {
        ok(setgroups(0, null()));
        ok(setgid(1234));
        ok(setuid(1234));
        body();
    });
}

fn open_flags_mean_what_they_say() {
    unsafe {
        let file = create("flags", b"abc");
        fails!(open(file.as_ptr(), O_RDWR | O_CREAT | O_EXCL, 0o600), EEXIST);
        fails!(open(path("none").as_ptr(), O_RDONLY), ENOENT);
        fails!(open(c(&scratch()).as_ptr(), O_WRONLY), EISDIR);
        fails!(open(c(&scratch()).as_ptr(), O_RDONLY | O_CREAT, 0o600), EISDIR);
        fails!(open(file.as_ptr(), O_RDONLY | O_DIRECTORY), ENOTDIR);
        fails!(open(path("flags/x").as_ptr(), O_RDONLY), ENOTDIR);
        fails!(open(path("flags/").as_ptr(), O_RDONLY), ENOTDIR);
        fails!(open(null(), O_RDONLY), EFAULT);
        fails!(open(c"".as_ptr(), O_RDONLY), ENOENT);
        let fd = open_at(&file, O_RDONLY);
        fails!(libc::write(fd, c"x".as_ptr().cast(), 1), EBADF);
        let fd = open_at(&file, O_WRONLY | O_TRUNC);
        fails!(libc::read(fd, null_mut(), 1), EBADF);
        assert_eq!(stat_of(&file).st_size, 0);
        let fd = open_at(&file, O_RDWR | O_CLOEXEC);
        assert_eq!(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_eq!(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    }
}

fn reads_writes_and_offsets() {
    unsafe {
        let fd = open_at(&path("rw"), O_RDWR | O_CREAT);
        write(fd, b"0123456789");
        assert_eq!(lseek(fd, 2, SEEK_SET), 2);
        assert_eq!(read(fd, 3), b"234");
        assert_eq!(lseek(fd, -2, SEEK_END), 8);
        assert_eq!(read(fd, 99), b"89");
        assert_eq!(read(fd, 99), b"");
        assert_eq!(lseek(fd, 5, SEEK_CUR), 15);
        fails!(lseek(fd, -1, SEEK_SET), EINVAL);
        fails!(lseek(fd, 0, 99), EINVAL);
        write(fd, b"x");
        lseek(fd, 10, SEEK_SET);
        assert_eq!(read(fd, 99), b"\0\0\0\0\0x");
        lseek(fd, 0, SEEK_SET);
        fails!(libc::read(fd, 8 as *mut c_void, 4), EFAULT);
        assert_eq!(libc::read(fd, null_mut(), 0), 0);
        let (r, _w) = pipe();
        fails!(lseek(r, 0, SEEK_CUR), ESPIPE);
        fails!(lseek(77, 0, SEEK_CUR), EBADF);
    }
}

fn append_always_writes_at_the_end() {
    unsafe {
        let file = create("append", b"ab");
        let fd = open_at(&file, O_RDWR | O_APPEND);
        lseek(fd, 0, SEEK_SET);
        write(fd, b"cd");
        assert_eq!(lseek(fd, 0, SEEK_CUR), 4);
        assert_eq!(pwrite(fd, c"e".as_ptr().cast(), 1, 0), 1, "Linux appends even here");
        assert_eq!(content(&file), b"abcde");
    }
}

fn vectors_and_positions() {
    unsafe {
        let fd = open_at(&path("vec"), O_RDWR | O_CREAT);
        let parts = [
            iovec { iov_base: c"ab".as_ptr() as *mut c_void, iov_len: 2 },
            iovec { iov_base: null_mut(), iov_len: 0 },
            iovec { iov_base: c"cde".as_ptr() as *mut c_void, iov_len: 3 },
        ];
        assert_eq!(writev(fd, parts.as_ptr(), 3), 5);
        assert_eq!(pwritev(fd, parts.as_ptr(), 3, 10), 5);
        assert_eq!(lseek(fd, 0, SEEK_CUR), 5);
        let (mut a, mut b) = ([0u8; 3], [0u8; 9]);
        let parts = [
            iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 3 },
            iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 9 },
        ];
        assert_eq!(preadv(fd, parts.as_ptr(), 2, 10), 5);
        assert_eq!((&a, &b[..2]), (b"abc", &b"de"[..]));
        fails!(readv(fd, parts.as_ptr(), -1), EINVAL);
        fails!(readv(fd, parts.as_ptr(), 1025), EINVAL);
        fails!(pread(fd, a.as_mut_ptr().cast(), 1, -1), EINVAL);
        let (r, _w) = pipe();
        fails!(pread(r, a.as_mut_ptr().cast(), 1, 0), ESPIPE);
    }
}

fn reads_end_at_the_byte_that_has_no_place() {
    unsafe {
        const PAGE: usize = 4096;
        let bytes: Vec<u8> = (0..20 * PAGE).map(|at| (at * 7 + at / PAGE) as u8 | 1).collect();
        let fd = open_at(&create("placed", &bytes), O_RDWR);
        let private = MAP_PRIVATE | MAP_ANONYMOUS;
        let map = mmap(null_mut(), 4 * PAGE, PROT_READ | PROT_WRITE, private, -1, 0);
        assert_ne!(map, MAP_FAILED);
        ok(mprotect(map.add(3 * PAGE), PAGE, PROT_NONE));
        let room = std::slice::from_raw_parts_mut(map.cast::<u8>(), 3 * PAGE);
        // Lengths around those at which copies change their ways, from places of every alignment.
        let lengths = (1..=140).chain(505..=520).chain([PAGE - 1, PAGE, PAGE + 1, 3 * PAGE - 9]);
        for (count, n) in lengths.enumerate() {
            room.fill(0);
            let to = 3 * PAGE - n;
            let at = count * 397;
            let got = pread(fd, room[to..].as_mut_ptr().cast(), 5 * PAGE, at as off_t);
            assert_eq!(got, n as isize, "{n} bytes from {at}");
            assert!(room[to..] == bytes[at..at + n], "{n} bytes from {at}");
            assert!(room[..to].iter().all(|&byte| byte == 0), "{n} bytes from {at}");
            // The other way, what can't be read ends a write.
            let out = pwrite(fd, room[to..].as_ptr().cast(), 5 * PAGE, 64 * PAGE as off_t);
            assert_eq!(out, n as isize, "{n} bytes written");
            let mut back = vec![0; n];
            assert_eq!(pread(fd, back.as_mut_ptr().cast(), n, 64 * PAGE as off_t), n as isize);
            assert!(back == bytes[at..at + n], "{n} bytes written");
        }
        fails!(pread(fd, map.add(3 * PAGE), PAGE, 0), EFAULT);
        munmap(map, 4 * PAGE);
    }
}

fn holes_read_as_zero() {
    unsafe {
        let file = path("hole");
        let fd = open_at(&file, O_RDWR | O_CREAT);
        assert_eq!(pwrite(fd, c"end".as_ptr().cast(), 3, 1 << 20), 3);
        let mut byte = 1u8;
        assert_eq!(pread(fd, (&raw mut byte).cast(), 1, 5000), 1);
        assert_eq!(byte, 0);
        let st = stat_of(&file);
        assert_eq!(st.st_size, (1 << 20) + 3);
        assert!(st.st_blocks < 256, "{} blocks", st.st_blocks);
        assert_eq!(lseek(fd, 0, SEEK_DATA), 1 << 20);
        assert_eq!(lseek(fd, 0, SEEK_HOLE), 0);
        fails!(lseek(fd, 2 << 20, SEEK_DATA), ENXIO);
    }
}

fn rename_replaces_and_refuses() {
    unsafe {
        let (a, b, dir) = (create("a", b"a"), create("b", b"b"), path("dir"));
        ok(rename(a.as_ptr(), b.as_ptr()));
        assert_eq!(content(&b), b"a");
        fails!(rename(a.as_ptr(), b.as_ptr()), ENOENT);
        ok(mkdir(dir.as_ptr(), 0o755));
        fails!(rename(b.as_ptr(), dir.as_ptr()), EISDIR);
        fails!(rename(dir.as_ptr(), b.as_ptr()), ENOTDIR);
        fails!(rename(dir.as_ptr(), path("dir/inside").as_ptr()), EINVAL);
        ok(mkdir(path("full").as_ptr(), 0o755));
        create("full/x", b"");
        fails!(rename(dir.as_ptr(), path("full").as_ptr()), ENOTEMPTY);
        ok(mkdir(path("empty").as_ptr(), 0o755));
        ok(rename(path("full").as_ptr(), path("empty").as_ptr()));
        assert_eq!(stat_of(&path("empty/x")).st_size, 0);
        // Two names of one file: nothing happens, both stay.
        ok(link(b.as_ptr(), path("b2").as_ptr()));
        ok(rename(b.as_ptr(), path("b2").as_ptr()));
        assert_eq!(stat_of(&b).st_nlink, 2);
    }
}

fn rename_flags_work() {
    unsafe {
        let (a, b) = (create("fa", b"a"), create("fb", b"b"));
        let call = |flags: u32| renameat2(AT_FDCWD, a.as_ptr(), AT_FDCWD, b.as_ptr(), flags);
        fails!(call(RENAME_NOREPLACE), EEXIST);
        ok(call(RENAME_EXCHANGE));
        assert_eq!((content(&a), content(&b)), (b"b".to_vec(), b"a".to_vec()));
        fails!(call(RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
        ok(unlink(b.as_ptr()));
        fails!(call(RENAME_EXCHANGE), ENOENT);
    }
}

fn links_count() {
    unsafe {
        let (a, b) = (create("la", b"x"), path("lb"));
        ok(link(a.as_ptr(), b.as_ptr()));
        assert_eq!((stat_of(&a).st_nlink, stat_of(&a).st_ino), (2, stat_of(&b).st_ino));
        fails!(link(a.as_ptr(), b.as_ptr()), EEXIST);
        fails!(link(c(&scratch()).as_ptr(), path("ld").as_ptr()), EPERM);
        ok(unlink(a.as_ptr()));
        assert_eq!(stat_of(&b).st_nlink, 1);
        let before = stat_of(&c(&scratch())).st_nlink;
        ok(mkdir(path("sub").as_ptr(), 0o755));
        assert_eq!(stat_of(&c(&scratch())).st_nlink, before + 1);
        assert_eq!(stat_of(&path("sub")).st_nlink, 2);
    }
}

fn unlinked_files_live_on() {
    unsafe {
        let file = create("gone", b"still here");
        let fd = open_at(&file, O_RDWR);
        ok(unlink(file.as_ptr()));
        fails!(unlink(file.as_ptr()), ENOENT);
        assert_eq!(read(fd, 99), b"still here");
        let mut st: stat = zeroed();
        ok(fstat(fd, &mut st));
        assert_eq!(st.st_nlink, 0);
        let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        assert!(name.to_str().unwrap().ends_with("/gone (deleted)"), "{name:?}");
    }
}

fn symlinks_resolve_and_loop() {
    unsafe {
        create("target", b"via link");
        let (good, lost, a) = (path("good"), path("lost"), path("loop-a"));
        ok(symlink(c"target".as_ptr(), good.as_ptr()));
        assert_eq!(content(&good), b"via link");
        let mut buf = [0u8; 4];
        assert_eq!(readlink(good.as_ptr(), buf.as_mut_ptr().cast(), 4), 4);
        assert_eq!(&buf, b"targ", "cut without a terminator");
        fails!(readlink(path("target").as_ptr(), buf.as_mut_ptr().cast(), 4), EINVAL);
        ok(symlink(c"nowhere".as_ptr(), lost.as_ptr()));
        fails!(open(lost.as_ptr(), O_RDONLY), ENOENT);
        fails!(open(lost.as_ptr(), O_RDWR | O_CREAT | O_EXCL, 0o600), EEXIST);
        close(open_at(&lost, O_RDWR | O_CREAT));
        assert_eq!(stat_of(&path("nowhere")).st_size, 0, "created through the link");
        ok(symlink(c"loop-a".as_ptr(), path("loop-b").as_ptr()));
        ok(symlink(c"loop-b".as_ptr(), a.as_ptr()));
        fails!(open(a.as_ptr(), O_RDONLY), ELOOP);
        fails!(open(good.as_ptr(), O_RDONLY | O_NOFOLLOW), ELOOP);
        fails!(symlink(c"".as_ptr(), path("s").as_ptr()), ENOENT);
        assert_eq!(stat_of(&good).st_size, 6);
        assert_eq!(stat_of(&good).st_mode & S_IFMT, S_IFLNK);
        ok(symlink(c".".as_ptr(), path("self").as_ptr()));
        assert_eq!(stat_of(&path("self/self/self/target")).st_size, 8);
    }
}

fn names_in(dir: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn directories_list_themselves() {
    unsafe {
        let dir = format!("{}/list", scratch());
        ok(mkdir(c(&dir).as_ptr(), 0o755));
        fails!(mkdir(c(&dir).as_ptr(), 0o755), EEXIST);
        create("list/one", b"");
        ok(mkdir(path("list/two").as_ptr(), 0o755));
        ok(symlink(c"x".as_ptr(), path("list/three").as_ptr()));
        assert_eq!(names_in(&dir), ["one", "three", "two"]);
        let stream = opendir(c(&dir).as_ptr());
        let mut types = Vec::new();
        loop {
            let entry = readdir(stream);
            if entry.is_null() {
                break;
            }
            let name = std::ffi::CStr::from_ptr((*entry).d_name.as_ptr()).to_str().unwrap();
            types.push((name.to_owned(), (*entry).d_type));
        }
        types.sort();
        let expected =
            [(".", DT_DIR), ("..", DT_DIR), ("one", DT_REG), ("three", DT_LNK), ("two", DT_DIR)];
        assert_eq!(types, expected.map(|(name, kind)| (name.to_owned(), kind)));
        rewinddir(stream);
        assert!(!readdir(stream).is_null());
        let fd = open_at(&c(&dir), O_RDONLY);
        let mut tiny = [0u8; 8];
        fails!(syscall(SYS_getdents64, fd, tiny.as_mut_ptr(), 8), EINVAL);
        fails!(libc::read(fd, tiny.as_mut_ptr().cast(), 8), EISDIR);
        let file = open_at(&path("list/one"), O_RDONLY);
        fails!(syscall(SYS_getdents64, file, tiny.as_mut_ptr(), 8), ENOTDIR);
    }
}

fn a_large_directory_lists_every_name_once() {
    let dir = format!("{}/large", scratch());
    std::fs::create_dir(&dir).unwrap();
    for i in 0..3000 {
        std::fs::write(format!("{dir}/{i:05}"), b"").unwrap();
    }
    let names = names_in(&dir);
    assert_eq!(names.len(), 3000);
    assert!(names.iter().enumerate().all(|(i, name)| *name == format!("{i:05}")));
    // Removing while listing must not skip what is still there.
    for entry in std::fs::read_dir(&dir).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(names_in(&dir), [""; 0]);
}

fn rmdir_refuses_what_it_should() {
    unsafe {
        let dir = path("rm");
        ok(mkdir(dir.as_ptr(), 0o755));
        let inner = create("rm/x", b"");
        fails!(rmdir(dir.as_ptr()), ENOTEMPTY);
        fails!(rmdir(inner.as_ptr()), ENOTDIR);
        fails!(unlink(dir.as_ptr()), EISDIR);
        fails!(rmdir(path("rm/.").as_ptr()), EINVAL);
        ok(unlink(inner.as_ptr()));
        ok(rmdir(path("rm/").as_ptr()));
        fails!(rmdir(dir.as_ptr()), ENOENT);
        fails!(rmdir(c"/".as_ptr()), EBUSY);
    }
}

fn permissions_bind_users() {
    unsafe {
        let file = create("secret", b"x");
        chmod(file.as_ptr(), 0o640);
        let dir = path("closed");
        mkdir(dir.as_ptr(), 0o700);
        let inner = create("closed/x", b"");
        chmod(c(&scratch()).as_ptr(), 0o755);
        as_user(|| {
            fails!(open(file.as_ptr(), O_RDONLY), EACCES);
            fails!(open(inner.as_ptr(), O_RDONLY), EACCES);
            fails!(access(file.as_ptr(), R_OK), EACCES);
            ok(access(file.as_ptr(), F_OK));
            fails!(open(path("new").as_ptr(), O_CREAT | O_WRONLY, 0o600), EACCES);
            fails!(unlink(file.as_ptr()), EACCES);
            fails!(chmod(file.as_ptr(), 0o777), EPERM);
            fails!(chown(file.as_ptr(), 1234, 1234), EPERM);
            fails!(mkdir(path("d").as_ptr(), 0o755), EACCES);
        });
        // The owner's bits count for the owner even when the others' are wider.
        ok(chown(file.as_ptr(), 1234, 0));
        chmod(file.as_ptr(), 0o066);
        as_user(|| fails!(open(file.as_ptr(), O_RDONLY), EACCES));
        // Root reads anything but executes only what somebody may execute.
        close(open_at(&file, O_RDWR));
        fails!(access(file.as_ptr(), X_OK), EACCES);
        ok(access(dir.as_ptr(), X_OK));
    }
}

fn umask_and_modes() {
    unsafe {
        umask(0o027);
        let file = path("masked");
        close(ok(open(file.as_ptr(), O_CREAT | O_WRONLY, 0o666)));
        assert_eq!(stat_of(&file).st_mode & 0o7777, 0o640);
        mkdir(path("masked-dir").as_ptr(), 0o777);
        assert_eq!(stat_of(&path("masked-dir")).st_mode & 0o7777, 0o750);
        assert_eq!(umask(0), 0o027);
        ok(chmod(file.as_ptr(), 0o6755));
        assert_eq!(stat_of(&file).st_mode & 0o7777, 0o6755);
        ok(chown(file.as_ptr(), 5, 6));
        let st = stat_of(&file);
        assert_eq!(
            (st.st_uid, st.st_gid, st.st_mode & 0o7777),
            (5, 6, 0o755),
            "chown clears set-id bits"
        );
        // New files in a set-group-ID directory take its group; directories the bit too.
        mkdir(path("sgid").as_ptr(), 0o777);
        ok(chown(path("sgid").as_ptr(), 0, 77));
        ok(chmod(path("sgid").as_ptr(), 0o2777));
        mkdir(path("sgid/d").as_ptr(), 0o755);
        let st = stat_of(&path("sgid/d"));
        assert_eq!((st.st_gid, st.st_mode & 0o7777), (77, 0o2755));
    }
}

fn sticky_directories_protect() {
    unsafe {
        chmod(c(&scratch()).as_ptr(), 0o755);
        let dir = path("sticky");
        mkdir(dir.as_ptr(), 0o777);
        chmod(dir.as_ptr(), 0o1777);
        let foreign = create("sticky/foreign", b"");
        as_user(|| {
            let mine = create("sticky/mine", b"");
            fails!(unlink(foreign.as_ptr()), EPERM);
            fails!(rename(mine.as_ptr(), foreign.as_ptr()), EPERM);
            ok(unlink(mine.as_ptr()));
        });
    }
}

fn times_are_kept_and_set() {
    unsafe {
        let file = create("times", b"x");
        let times = [
            timespec { tv_sec: 1_000_000, tv_nsec: 123_456_789 },
            timespec { tv_sec: 2_000_000, tv_nsec: 5 },
        ];
        ok(utimensat(AT_FDCWD, file.as_ptr(), times.as_ptr(), 0));
        let st = stat_of(&file);
        assert_eq!(
            (st.st_atime, st.st_atime_nsec, st.st_mtime, st.st_mtime_nsec),
            (1_000_000, 123_456_789, 2_000_000, 5)
        );
        let omit = [
            timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        ];
        ok(utimensat(AT_FDCWD, file.as_ptr(), omit.as_ptr(), 0));
        let st = stat_of(&file);
        assert!(st.st_atime == 1_000_000 && st.st_mtime > 1_600_000_000);
        let bad = [timespec { tv_sec: 0, tv_nsec: 2_000_000_000 }; 2];
        fails!(utimensat(AT_FDCWD, file.as_ptr(), bad.as_ptr(), 0), EINVAL);
        let before = stat_of(&file);
        pause_ms(20);
        let fd = open_at(&file, O_WRONLY);
        write(fd, b"new");
        let after = stat_of(&file);
        let stamp = |st: &stat| (st.st_mtime, st.st_mtime_nsec);
        assert!(stamp(&after) > stamp(&before), "writing moves mtime");
    }
}

fn reading_sets_the_access_time() {
    unsafe {
        let file = create("access", b"x");
        let dir = path("access.d");
        ok(mkdir(dir.as_ptr(), 0o755));
        create("access.d/name", b"");
        let old = |at: &CString| {
            let time = timespec { tv_sec: 1_000_000, tv_nsec: 1 };
            ok(utimensat(AT_FDCWD, at.as_ptr(), [time, time].as_ptr(), 0));
        };
        let accessed = |at: &CString| stat_of(at).st_atime;
        let look = |at: &CString, flags: c_int| {
            let fd = open_at(at, flags);
            let mut bytes = [0u8; 512];
            match flags & O_DIRECTORY {
                0 => assert_eq!(read(fd, 512), b"x"),
                _ => assert!(syscall(SYS_getdents64, fd, bytes.as_mut_ptr(), 512) > 0),
            }
            close(fd);
        };
        for (at, flags) in [(&file, O_RDONLY), (&dir, O_RDONLY | O_DIRECTORY)] {
            old(at);
            look(at, flags | O_NOATIME);
            assert_eq!(accessed(at), 1_000_000, "O_NOATIME");
            look(at, flags);
            assert!(accessed(at) > 1_600_000_000);
        }
    }
}

fn stat_family_agrees() {
    unsafe {
        let file = create("stat", b"12345");
        let st = stat_of(&file);
        assert_eq!((st.st_mode & S_IFMT, st.st_size, st.st_nlink), (S_IFREG, 5, 1));
        assert_eq!(st.st_blksize, 4096);
        let mut x: statx = zeroed();
        ok(statx(AT_FDCWD, file.as_ptr(), 0, STATX_BASIC_STATS, &mut x));
        assert_eq!((x.stx_ino, x.stx_size, u32::from(x.stx_mode)), (st.st_ino, 5, st.st_mode));
        assert_eq!(x.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
        let fd = open_at(&file, O_RDONLY);
        let mut by_fd: stat = zeroed();
        ok(fstatat(fd, c"".as_ptr(), &mut by_fd, AT_EMPTY_PATH));
        assert_eq!(by_fd.st_ino, st.st_ino);
        fails!(fstatat(AT_FDCWD, c"".as_ptr(), &mut by_fd, 0), ENOENT);
        fails!(fstatat(AT_FDCWD, file.as_ptr(), &mut by_fd, 0x4000_0000), EINVAL);
        fails!(fstat(99, &mut by_fd), EBADF);
        let (r, _w) = pipe();
        ok(fstat(r, &mut by_fd));
        assert_eq!(by_fd.st_mode & S_IFMT, S_IFIFO);
    }
}

fn at_calls_use_the_directory() {
    unsafe {
        let dir = open_at(&c(&scratch()), O_RDONLY | O_DIRECTORY);
        ok(mkdirat(dir, c"at".as_ptr(), 0o755));
        let fd = ok(openat(dir, c"at/file".as_ptr(), O_CREAT | O_RDWR, 0o644));
        ok(linkat(dir, c"at/file".as_ptr(), dir, c"at/other".as_ptr(), 0));
        ok(symlinkat(c"file".as_ptr(), dir, c"at/link".as_ptr()));
        ok(faccessat(dir, c"at/link".as_ptr(), R_OK, 0));
        ok(fchmodat(dir, c"at/file".as_ptr(), 0o600, 0));
        ok(fchownat(dir, c"at/link".as_ptr(), 7, 7, AT_SYMLINK_NOFOLLOW));
        assert_eq!((stat_of(&path("at/link")).st_uid, stat_of(&path("at/file")).st_uid), (7, 0));
        ok(renameat(dir, c"at/other".as_ptr(), dir, c"at/third".as_ptr()));
        fails!(unlinkat(dir, c"at".as_ptr(), AT_REMOVEDIR), ENOTEMPTY);
        ok(unlinkat(dir, c"at/third".as_ptr(), 0));
        fails!(openat(fd, c"x".as_ptr(), O_RDONLY), ENOTDIR);
        fails!(openat(99, c"x".as_ptr(), O_RDONLY), EBADF);
        // An absolute path needs no descriptor.
        ok(openat(99, c"/dev/null".as_ptr(), O_RDONLY));
    }
}

fn current_directory_moves() {
    unsafe {
        let base = scratch();
        ok(mkdir(path("cwd").as_ptr(), 0o755));
        ok(chdir(path("cwd").as_ptr()));
        let mut buf = [0u8; 256];
        assert!(!getcwd(buf.as_mut_ptr().cast(), 256).is_null());
        let text = std::ffi::CStr::from_bytes_until_nul(&buf).unwrap().to_str().unwrap();
        assert_eq!(text, format!("{base}/cwd"));
        fails!(syscall(SYS_getcwd, buf.as_mut_ptr(), 3), ERANGE);
        ok(chdir(c"..".as_ptr()));
        close(ok(open(c"relative".as_ptr(), O_CREAT | O_WRONLY, 0o600)));
        assert_eq!(stat_of(&path("relative")).st_size, 0);
        let fd = open_at(&path("cwd"), O_RDONLY);
        ok(fchdir(fd));
        fails!(chdir(path("relative").as_ptr()), ENOTDIR);
        ok(rmdir(path("cwd").as_ptr()));
        fails!(open(c"in-removed".as_ptr(), O_CREAT | O_WRONLY, 0o600), ENOENT);
        fails!(syscall(SYS_getcwd, buf.as_mut_ptr(), 256), ENOENT);
        ok(chdir(c"/".as_ptr()));
        ok(chdir(c"/../..".as_ptr()));
    }
}

fn descriptors_are_lowest_first() {
    unsafe {
        let first = ok(open(c"/dev/null".as_ptr(), O_RDONLY));
        let second = ok(open(c"/dev/null".as_ptr(), O_RDONLY));
        assert_eq!(second, first + 1);
        close(first);
        assert_eq!(ok(dup(second)), first);
        assert_eq!(fcntl(second, F_DUPFD, 50), 50);
        assert_eq!(fcntl(second, F_DUPFD_CLOEXEC, 50), 51);
        assert_eq!(fcntl(51, F_GETFD), FD_CLOEXEC);
        fails!(close(49), EBADF);
    }
}

fn dup_and_fcntl_flags() {
    unsafe {
        let fd = open_at(&path("dup"), O_RDWR | O_CREAT);
        let other = ok(dup2(fd, 40));
        assert_eq!(other, 40);
        assert_eq!(dup2(fd, fd), fd);
        fails!(dup3(fd, fd, 0), EINVAL);
        fails!(dup2(99, 41), EBADF);
        fails!(dup2(fd, -1), EBADF);
        ok(dup3(fd, 41, O_CLOEXEC));
        assert_eq!(fcntl(41, F_GETFD), FD_CLOEXEC);
        // Status flags belong to the description, descriptor flags to the descriptor.
        ok(fcntl(fd, F_SETFL, O_NONBLOCK | O_APPEND));
        assert_eq!(fcntl(other, F_GETFL) & (O_NONBLOCK | O_APPEND), O_NONBLOCK | O_APPEND);
        ok(fcntl(fd, F_SETFD, FD_CLOEXEC));
        assert_eq!(fcntl(other, F_GETFD), 0);
        let mut on = 0;
        ok(ioctl(fd, FIONBIO, &mut on));
        assert_eq!(fcntl(other, F_GETFL) & O_NONBLOCK, 0);
        ok(ioctl(fd, FIONCLEX));
        assert_eq!(fcntl(fd, F_GETFD), 0);
        fails!(ioctl(fd, TCGETS, &mut on), ENOTTY);
        fails!(fcntl(fd, 9999), EINVAL);
    }
}

fn descriptor_limit_holds() {
    unsafe {
        let limit = rlimit { rlim_cur: 20, rlim_max: 20 };
        ok(setrlimit(RLIMIT_NOFILE, &limit));
        let mut opened = 0;
        while open(c"/dev/null".as_ptr(), O_RDONLY) >= 0 {
            opened += 1;
        }
        assert_eq!(*__errno_location(), EMFILE);
        assert!(opened > 5 && opened < 20);
        fails!(dup2(0, 20), EBADF);
        fails!(fcntl(0, F_DUPFD, 20), EINVAL);
    }
}

fn close_range_closes() {
    unsafe {
        for fd in 60..70 {
            ok(dup2(0, fd));
        }
        ok(syscall(SYS_close_range, 62, 65, 0));
        assert_eq!(fcntl(61, F_GETFD), 0);
        fails!(fcntl(62, F_GETFD), EBADF);
        ok(syscall(SYS_close_range, 66, u32::MAX, 4 /* CLOSE_RANGE_CLOEXEC */));
        assert_eq!(fcntl(69, F_GETFD), FD_CLOEXEC);
        fails!(syscall(SYS_close_range, 5, 4, 0), EINVAL);
    }
}

fn file_locks_exclude() {
    unsafe {
        let file = create("flock", b"");
        let (a, b) = (open_at(&file, O_RDWR), open_at(&file, O_RDWR));
        ok(flock(a, LOCK_SH));
        ok(flock(b, LOCK_SH));
        fails!(flock(a, LOCK_EX | LOCK_NB), EWOULDBLOCK);
        ok(flock(b, LOCK_UN));
        ok(flock(a, LOCK_EX));
        fails!(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
        let pid = child(|| {
            close(a);
            flock(b, LOCK_EX)
        });
        pause_ms(20);
        ok(flock(a, LOCK_UN));
        assert_eq!(wait_for(pid), 0);
        fails!(flock(a, 0), EINVAL);
    }
}

fn lock(kind: c_int, start: i64, len: i64) -> flock {
    flock { l_type: kind as i16, l_whence: SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

fn record_locks_follow_posix() {
    unsafe {
        let file = create("posix", &[0; 100]);
        let fd = open_at(&file, O_RDWR);
        ok(fcntl(fd, F_SETLK, &lock(F_WRLCK, 0, 50)));
        let me = getpid();
        child_passes(|| {
            fails!(fcntl(fd, F_SETLK, &lock(F_RDLCK, 49, 1)), EAGAIN);
            ok(fcntl(fd, F_SETLK, &lock(F_WRLCK, 50, 10)));
            let mut ask = lock(F_RDLCK, 10, 5);
            ok(fcntl(fd, F_GETLK, &mut ask));
            assert_eq!(
                (i32::from(ask.l_type), ask.l_start, ask.l_len, ask.l_pid),
                (F_WRLCK, 0, 50, me)
            );
        });
        // Unlocking the middle leaves two pieces.
        ok(fcntl(fd, F_SETLK, &lock(F_UNLCK, 20, 10)));
        child_passes(|| {
            ok(fcntl(fd, F_SETLK, &lock(F_WRLCK, 20, 10)));
            fails!(fcntl(fd, F_SETLK, &lock(F_WRLCK, 30, 1)), EAGAIN);
        });
        let pid = child(|| fcntl(fd, F_SETLKW, &lock(F_WRLCK, 0, 10)));
        pause_ms(20);
        // Closing any descriptor of the file drops the process's locks.
        close(open_at(&file, O_RDONLY));
        assert_eq!(wait_for(pid), 0);
        fails!(fcntl(fd, F_SETLK, &lock(99, 0, 1)), EINVAL);
        let read_only = open_at(&file, O_RDONLY);
        fails!(fcntl(read_only, F_SETLK, &lock(F_WRLCK, 0, 1)), EBADF);
    }
}

/// What /proc/locks says of a file, without the numbers of the locks and the device.
fn listed(fd: i32) -> Vec<String> {
    let inode = unsafe {
        let mut st: stat = zeroed();
        ok(fstat(fd, &mut st));
        format!(":{}", st.st_ino)
    };
    let text = std::fs::read_to_string("/proc/locks").unwrap();
    let lines = text.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    let mine = lines.filter(|words| words.iter().any(|word| word.ends_with(&inode)));
    let mut mine: Vec<String> = mine
        .map(|mut words| {
            words.retain(|word| !word.ends_with(&inode));
            words.join(" ")
        })
        .collect();
    // They come in no order, but for those who wait, which stand behind what they wait for.
    mine.sort();
    mine
}

fn locks_are_listed() {
    unsafe {
        let me = getpid();
        let file = create("listed", b"");
        let open_it = || ok(open(file.as_ptr(), O_RDWR));
        let fd = open_it();
        assert!(listed(fd).is_empty());
        ok(flock(fd, LOCK_EX));
        let waits = child(|| flock(open_it(), LOCK_SH));
        until_asleep(waits);
        assert_eq!(
            listed(fd),
            [
                format!("-> FLOCK ADVISORY READ {waits} 0 EOF"),
                format!("FLOCK ADVISORY WRITE {me} 0 EOF")
            ]
        );
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let line = info.lines().find(|line| line.starts_with("lock:")).unwrap();
        assert!(line.starts_with(&format!("lock:\t1: FLOCK  ADVISORY  WRITE {me} ")), "{line:?}");
        assert!(line.ends_with(" 0 EOF"), "{line:?}");
        ok(flock(fd, LOCK_UN));
        assert_eq!(wait_for(waits), 0);
        assert!(listed(fd).is_empty());

        ok(fcntl(fd, F_SETLK, &lock(F_RDLCK, 10, 10)));
        ok(fcntl(fd, F_OFD_SETLK, &lock(F_WRLCK, 100, 0)));
        let waits = child(|| fcntl(open_it(), F_SETLKW, &lock(F_WRLCK, 0, 15)));
        until_asleep(waits);
        assert_eq!(
            listed(fd),
            [
                format!("-> POSIX ADVISORY WRITE {waits} 0 14"),
                "OFDLCK ADVISORY WRITE -1 100 EOF".into(),
                format!("POSIX ADVISORY READ {me} 10 19"),
            ]
        );
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        assert_eq!(info.lines().filter(|line| line.starts_with("lock:")).count(), 2, "{info}");
        // A lock that a descriptor of another's holds isn't this one's.
        let other = ok(dup(fd));
        let again = open_it();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{again}")).unwrap();
        assert_eq!(info.lines().filter(|line| line.starts_with("lock:")).count(), 0, "{info}");
        ok(close(other));
        // Closing any descriptor of the file has ended this process's record locks.
        assert_eq!(wait_for(waits), 0);
        assert_eq!(listed(fd), ["OFDLCK ADVISORY WRITE -1 100 EOF"]);
        ok(close(fd));

        // With nobody else there who has the file open.
        ok(close(again));
        let fd = open_it();
        ok(fcntl(fd, F_SETLEASE, F_WRLCK));
        assert_eq!(listed(fd), [format!("LEASE ACTIVE WRITE {me} 0 EOF")]);
        ok(fcntl(fd, F_SETLEASE, F_UNLCK));
        assert!(listed(fd).is_empty());
    }
}

fn open_file_description_locks() {
    unsafe {
        let file = create("ofd", &[0; 10]);
        let (a, b) = (open_at(&file, O_RDWR), open_at(&file, O_RDWR));
        ok(fcntl(a, F_OFD_SETLK, &lock(F_WRLCK, 0, 0)));
        fails!(fcntl(b, F_OFD_SETLK, &lock(F_WRLCK, 5, 1)), EAGAIN);
        let copy = dup(a);
        close(a);
        fails!(fcntl(b, F_OFD_SETLK, &lock(F_RDLCK, 0, 1)), EAGAIN);
        close(copy);
        ok(fcntl(b, F_OFD_SETLK, &lock(F_WRLCK, 0, 0)));
    }
}

fn sendfile_copies() {
    unsafe {
        let data: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let source = open_at(&create("source", &data), O_RDONLY);
        let target = open_at(&path("target-sf"), O_RDWR | O_CREAT);
        let mut offset = 100;
        assert_eq!(sendfile(target, source, &mut offset, 5000), 5000);
        assert_eq!((offset, lseek(source, 0, SEEK_CUR)), (5100, 0));
        assert_eq!(sendfile(target, source, null_mut(), 1 << 20), 10_000);
        assert_eq!(sendfile(target, source, null_mut(), 1), 0);
        assert_eq!(content(&path("target-sf")), [&data[100..5100], &data[..]].concat());
        let (r, w) = pipe();
        assert_eq!(sendfile(w, source, &mut 9_990, 99), 10);
        assert_eq!(read(r, 99), &data[9_990..]);
        fails!(sendfile(target, r, null_mut(), 1), EINVAL);
    }
}

fn copy_file_range_copies() {
    unsafe {
        let from = open_at(&create("cfr", b"0123456789"), O_RDONLY);
        let to = open_at(&path("cfr-to"), O_RDWR | O_CREAT);
        let (mut a, mut b) = (2, 1);
        assert_eq!(copy_file_range(from, &mut a, to, &mut b, 5, 0), 5);
        assert_eq!((a, b), (7, 6));
        assert_eq!(content(&path("cfr-to")), b"\x0023456");
        fails!(copy_file_range(from, null_mut(), to, null_mut(), 1, 9), EINVAL);
    }
}

fn splice_moves_between_pipe_and_file() {
    unsafe {
        let from = open_at(&create("splice", b"spliced data"), O_RDONLY);
        let (r, w) = pipe();
        assert_eq!(splice(from, null_mut(), w, null_mut(), 7, 0), 7);
        let to = open_at(&path("splice-to"), O_RDWR | O_CREAT);
        assert_eq!(splice(r, null_mut(), to, null_mut(), 99, 0), 7);
        assert_eq!(content(&path("splice-to")), b"spliced");
        fails!(splice(from, null_mut(), to, null_mut(), 1, 0), EINVAL);
        let (r2, w2) = pipe();
        write(w, b"tee");
        assert_eq!(tee(r, w2, 99, 0), 3);
        assert_eq!((read(r, 9), read(r2, 9)), (b"tee".to_vec(), b"tee".to_vec()));
    }
}

fn fallocate_modes() {
    unsafe {
        let file = create("falloc", &[1; 10_000]);
        let fd = open_at(&file, O_RDWR);
        ok(fallocate(fd, 0, 0, 20_000));
        assert_eq!(stat_of(&file).st_size, 20_000);
        ok(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 40_000));
        assert_eq!(stat_of(&file).st_size, 20_000);
        ok(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 5000));
        let now = content(&file);
        assert_eq!((now[99], now[100], now[5099], now[5100]), (1, 0, 0, 1));
        fails!(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
        fails!(fallocate(fd, 0, 0, 0), EINVAL);
        fails!(fallocate(fd, 0, -1, 10), EINVAL);
    }
}

fn extended_attributes() {
    unsafe {
        let file = create("xattr", b"");
        let name = c"trusted.test".as_ptr();
        ok(setxattr(file.as_ptr(), name, c"value".as_ptr().cast(), 5, 0));
        let mut buf = [0u8; 16];
        assert_eq!(getxattr(file.as_ptr(), name, buf.as_mut_ptr().cast(), 16), 5);
        assert_eq!(&buf[..5], b"value");
        assert_eq!(getxattr(file.as_ptr(), name, null_mut(), 0), 5);
        fails!(getxattr(file.as_ptr(), name, buf.as_mut_ptr().cast(), 2), ERANGE);
        fails!(setxattr(file.as_ptr(), name, null(), 0, XATTR_CREATE), EEXIST);
        fails!(
            setxattr(file.as_ptr(), c"trusted.none".as_ptr(), null(), 0, XATTR_REPLACE),
            ENODATA
        );
        let mut list = [0u8; 64];
        let n = ok(listxattr(file.as_ptr(), list.as_mut_ptr().cast(), 64) as i64) as usize;
        assert!(list[..n].split(|&byte| byte == 0).any(|entry| entry == b"trusted.test"));
        ok(removexattr(file.as_ptr(), name));
        fails!(getxattr(file.as_ptr(), name, null_mut(), 0), ENODATA);
    }
}

fn long_names_and_paths() {
    unsafe {
        create(&"n".repeat(255), b"");
        fails!(open(path(&"n".repeat(256)).as_ptr(), O_RDONLY), ENAMETOOLONG);
        fails!(open(c(&"/x".repeat(2048)).as_ptr(), O_RDONLY), ENAMETOOLONG);
        let deep = format!("{}{}", "/.".repeat(2000), scratch());
        close(open_at(&c(&deep), O_RDONLY));
    }
}

fn special_files_behave() {
    unsafe {
        let null_fd = ok(open(c"/dev/null".as_ptr(), O_RDWR));
        write(null_fd, b"anything");
        assert_eq!(read(null_fd, 9), b"");
        let zero = ok(open(c"/dev/zero".as_ptr(), O_RDWR));
        assert_eq!(read(zero, 9), [0; 9]);
        let full = ok(open(c"/dev/full".as_ptr(), O_RDWR));
        fails!(libc::write(full, c"x".as_ptr().cast(), 1), ENOSPC);
        let random = ok(open(c"/dev/urandom".as_ptr(), O_RDONLY));
        assert_ne!(read(random, 32), read(random, 32));
        let mut st: stat = zeroed();
        ok(stat(c"/dev/null".as_ptr(), &mut st));
        assert_eq!((st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev)), (S_IFCHR, 1, 3));
        let map = mmap(null_mut(), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
        assert_ne!(map, MAP_FAILED);
        assert_eq!(*map.cast::<u8>(), 0);
    }
}

fn fifo_connects_reader_and_writer() {
    unsafe {
        let fifo = path("fifo");
        ok(mkfifo(fifo.as_ptr(), 0o600));
        fails!(open(fifo.as_ptr(), O_WRONLY | O_NONBLOCK), ENXIO);
        let r = open_at(&fifo, O_RDONLY | O_NONBLOCK);
        let w = open_at(&fifo, O_WRONLY | O_NONBLOCK);
        write(w, b"through");
        assert_eq!(read(r, 99), b"through");
        fails!(libc::read(r, [0u8; 4].as_mut_ptr().cast(), 4), EAGAIN);
        close(w);
        assert_eq!(read(r, 99), b"");
        close(r);
        let pid = child(|| {
            let fd = open(fifo.as_ptr(), O_WRONLY);
            write(fd, b"blocking");
            0
        });
        let r = open_at(&fifo, O_RDONLY);
        assert_eq!(read(r, 99), b"blocking");
        wait_for(pid);
    }
}

fn chroot_confines() {
    unsafe {
        let jail = path("jail");
        mkdir(jail.as_ptr(), 0o755);
        create("jail/inside", b"x");
        child_passes(|| {
            ok(chroot(jail.as_ptr()));
            ok(chdir(c"/".as_ptr()));
            ok(access(c"/inside".as_ptr(), F_OK));
            ok(access(c"/../../inside".as_ptr(), F_OK));
            fails!(access(c"/tmp".as_ptr(), F_OK), ENOENT);
        });
        as_user(|| fails!(chroot(c"/".as_ptr()), EPERM));
    }
}

fn dev_fd_paths_reopen() {
    let fd = open_at(&create("reopen", b"0123"), O_RDWR);
    read(fd, 2);
    let again = open_at(&c(&format!("/dev/fd/{fd}")), O_RDONLY);
    assert_eq!(read(again, 9), b"0123", "a new description with its own offset");
    let (r, w) = pipe();
    let second = open_at(&c(&format!("/proc/self/fd/{w}")), O_WRONLY);
    write(second, b"pipe");
    assert_eq!(read(r, 9), b"pipe");
}

fn tmpfile_can_be_linked() {
    unsafe {
        let fd = ok(open(c(&scratch()).as_ptr(), O_TMPFILE | O_RDWR, 0o600));
        write(fd, b"invisible");
        let name = path("visible");
        let proc_path = c(&format!("/proc/self/fd/{fd}"));
        ok(linkat(AT_FDCWD, proc_path.as_ptr(), AT_FDCWD, name.as_ptr(), AT_SYMLINK_FOLLOW));
        assert_eq!(content(&name), b"invisible");
    }
}

fn statfs_answers() {
    unsafe {
        let mut st: statfs = zeroed();
        ok(statfs(c(&scratch()).as_ptr(), &mut st));
        assert!(st.f_bsize > 0 && st.f_namelen == 255);
        fails!(statfs(path("no").as_ptr(), &mut st), ENOENT);
        ok(fstatfs(open_at(&c(&scratch()), O_RDONLY), &mut st));
        ok(statfs(c"/proc".as_ptr(), &mut st));
        assert_eq!(st.f_type, PROC_SUPER_MAGIC);
    }
}

fn truncate_extends_and_cuts() {
    unsafe {
        let file = create("trunc", b"0123456789");
        ok(truncate(file.as_ptr(), 4));
        ok(truncate(file.as_ptr(), 6));
        assert_eq!(content(&file), b"0123\0\0");
        fails!(truncate(file.as_ptr(), -1), EINVAL);
        fails!(truncate(c(&scratch()).as_ptr(), 0), EISDIR);
        let fd = open_at(&file, O_RDONLY);
        fails!(ftruncate(fd, 0), EINVAL);
        let limit = rlimit { rlim_cur: 100, rlim_max: RLIM_INFINITY };
        setrlimit(RLIMIT_FSIZE, &limit);
        signal(SIGXFSZ, SIG_IGN);
        let fd = open_at(&file, O_RDWR);
        fails!(pwrite(fd, c"x".as_ptr().cast(), 1, 100), EFBIG);
        assert_eq!(pwrite(fd, [0u8; 64].as_ptr().cast(), 64, 90), 10);
    }
}

fn o_path_is_only_a_name() {
    unsafe {
        let file = create("opath", b"content");
        let fd = open_at(&file, O_PATH);
        fails!(libc::read(fd, null_mut(), 1), EBADF);
        fails!(fchmod(fd, 0o600), EBADF);
        let mut st: stat = zeroed();
        ok(fstat(fd, &mut st));
        assert_eq!(st.st_size, 7);
        let again = open_at(&c(&format!("/proc/self/fd/{fd}")), O_RDONLY);
        assert_eq!(read(again, 99), b"content");
        ok(symlink(c"opath".as_ptr(), path("opath-link").as_ptr()));
        let link = open_at(&path("opath-link"), O_PATH | O_NOFOLLOW);
        ok(fstat(link, &mut st));
        assert_eq!(st.st_mode & S_IFMT, S_IFLNK);
    }
}

fn read_only_root_is_writable_above() {
    unsafe {
        // The image's own program can be replaced, renamed and changed; the change is seen at once.
        let me = std::fs::read_link("/proc/self/exe").unwrap();
        let copy = path("copy-of-me");
        std::fs::copy(&me, copy.to_str().unwrap()).unwrap();
        let original = std::fs::read(&me).unwrap();
        assert_eq!(content(&copy), original);
        let fd = open_at(&copy, O_RDWR);
        ok(pwrite(fd, c"ZZ".as_ptr().cast(), 2, 5000));
        let changed = content(&copy);
        assert_eq!((&changed[5000..5002], &changed[..5000]), (&b"ZZ"[..], &original[..5000]));
        // A running program can't be written to.
        let own = c(me.to_str().unwrap());
        fails!(open(own.as_ptr(), O_RDWR), ETXTBSY);
    }
}
