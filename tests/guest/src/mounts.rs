//! Mounts: mount(2) and umount2(2) with their flags, and the calls that do it in steps (fsopen(2),
//! fsconfig(2), fsmount(2), fspick(2), open_tree(2), move_mount(2), mount_setattr(2)).
//!
//! On Linux the cases run in a mount namespace of their own. Without the rights to mount they pass.

use crate::harness::{c, child_passes, ok, scratch};
use libc::*;
use std::fs;

cases![
    a_filesystem_is_set_up_in_steps,
    what_a_set_up_filesystem_refuses_is_said,
    a_tree_is_cloned_and_attached,
    a_mount_moves_with_what_is_below_it,
    a_mount_goes_beneath_another,
    flags_of_mounts_and_of_filesystems_differ,
    a_filesystem_that_is_written_to_does_not_become_read_only,
    a_tmpfs_can_be_resized,
    a_mount_expires_when_nobody_came,
    a_tree_is_detached_at_once,
    links_are_not_followed_where_the_mount_says_so,
    shared_mounts_share,
    there_is_a_most_of_mounts,
    namespaces_have_mounts_of_their_own,
    the_root_is_exchanged,
    watchers_of_mounts_hear_of_changes,
    access_times_are_kept_as_the_mount_says,
];

const FSOPEN_CLOEXEC: u32 = 1;
const SET_FLAG: u32 = 0;
const SET_STRING: u32 = 1;
const SET_BINARY: u32 = 2;
const SET_FD: u32 = 5;
const CREATE: u32 = 6;
const RECONFIGURE: u32 = 7;
const F_EMPTY_PATH: u32 = 4;
const T_EMPTY_PATH: u32 = 0x40;
const BENEATH: u32 = 0x200;
const OPEN_TREE_CLONE: u32 = 1;
const ATTR_RDONLY: u64 = 1;
const ATTR_NOEXEC: u64 = 8;
const ATTR_ATIME: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ST_NOSYMFOLLOW: u64 = 0x2000;

fn fsopen(kind: &str, flags: u32) -> i64 {
    unsafe { syscall(SYS_fsopen, c(kind).as_ptr(), flags) }
}

fn fsconfig(fd: i64, command: u32, key: Option<&str>, value: Option<&str>, aux: i32) -> i64 {
    unsafe {
        let (key, value) = (key.map(c), value.map(c));
        let key = key.as_ref().map_or(std::ptr::null(), |key| key.as_ptr());
        let value = value.as_ref().map_or(std::ptr::null(), |value| value.as_ptr());
        syscall(SYS_fsconfig, fd, command, key, value, aux)
    }
}

fn fsmount(fd: i64, attributes: u64) -> i64 {
    unsafe { syscall(SYS_fsmount, fd, 0, attributes) }
}

fn fspick(path: &str) -> i64 {
    unsafe { syscall(SYS_fspick, AT_FDCWD, c(path).as_ptr(), FSOPEN_CLOEXEC) }
}

fn open_tree(path: &str, flags: u32) -> i64 {
    unsafe { syscall(SYS_open_tree, AT_FDCWD, c(path).as_ptr(), flags) }
}

fn move_mount(from: i64, from_path: &str, to: &str, flags: u32) -> i64 {
    unsafe {
        let (from_path, to) = (c(from_path), c(to));
        syscall(SYS_move_mount, from, from_path.as_ptr(), AT_FDCWD, to.as_ptr(), flags)
    }
}

/// Sets and clears attributes, and how the mount is shared.
fn setattr(path: &str, flags: i32, set: u64, clear: u64, propagation: u64) -> i64 {
    unsafe {
        let attributes = [set, clear, propagation, 0];
        syscall(SYS_mount_setattr, AT_FDCWD, c(path).as_ptr(), flags, &attributes, 32)
    }
}

fn mount_at(source: &str, at: &str, kind: &str, flags: u64, data: &str) -> i64 {
    unsafe {
        let (source, at, kind, data) = (c(source), c(at), c(kind), c(data));
        i64::from(mount(source.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()))
    }
}

fn unmount(at: &str) -> i64 {
    unsafe { i64::from(umount2(c(at).as_ptr(), 0)) }
}

/// A tmpfs to work in, away from everybody else's mounts. `None` without the rights for one.
fn place() -> Option<String> {
    let dir = scratch();
    unsafe {
        if unshare(CLONE_NEWNS) == 0 {
            ok(mount_at("none", "/", "none", MS_REC | MS_PRIVATE, ""));
        }
        if mount_at("place", &dir, "tmpfs", 0, "mode=755") != 0 {
            return None;
        }
    }
    Some(dir)
}

fn leave(dir: &str) {
    ok(unsafe { umount2(c(dir).as_ptr(), MNT_DETACH) });
}

fn directories<const N: usize>(dir: &str, names: [&str; N]) -> [String; N] {
    names.map(|name| {
        let path = format!("{dir}/{name}");
        fs::create_dir_all(&path).unwrap();
        path
    })
}

/// The line of /proc/self/mountinfo about a mount, the topmost if there are several.
fn info(at: &str) -> Option<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().rfind(|line| line.split(' ').nth(4) == Some(at)).map(String::from)
}

fn flags(at: &str) -> u64 {
    // struct statfs, whose flags libc has no name for.
    let mut stat = [0u64; 15];
    ok(unsafe { syscall(SYS_statfs, c(at).as_ptr(), stat.as_mut_ptr()) });
    stat[10]
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn a_filesystem_is_set_up_in_steps() {
    let Some(dir) = place() else { return };
    let [at] = directories(&dir, ["at"]);
    unsafe {
        let fd = ok(fsopen("tmpfs", FSOPEN_CLOEXEC));
        let epoll = ok(epoll_create1(0));
        let mut event = epoll_event { events: EPOLLIN as u32, u64: 0 };
        fails!(epoll_ctl(epoll, EPOLL_CTL_ADD, fd as i32, &mut event), EPERM);
        close(epoll);
        assert_eq!(fcntl(fd as i32, F_GETFD), FD_CLOEXEC);
        // Not made yet.
        fails!(fsmount(fd, 0), EINVAL);
        ok(fsconfig(fd, SET_STRING, Some("source"), Some("by steps"), 0));
        ok(fsconfig(fd, SET_STRING, Some("size"), Some("64k"), 0));
        ok(fsconfig(fd, SET_STRING, Some("mode"), Some("0700"), 0));
        ok(fsconfig(fd, SET_FLAG, Some("rw"), None, 0));
        ok(fsconfig(fd, CREATE, None, None, 0));
        fails!(fsconfig(fd, CREATE, None, None, 0), EBUSY);
        fails!(fsconfig(fd, SET_FLAG, Some("ro"), None, 0), EBUSY);
        let tree = ok(fsmount(fd, ATTR_NOEXEC));
        fails!(fsmount(fd, 0), EBUSY);
        // It can be walked before anybody else sees it.
        ok(mkdirat(tree as i32, c("inside").as_ptr(), 0o755));
        assert!(info(&at).is_none());
        ok(move_mount(tree, "", &at, F_EMPTY_PATH));
        // It has a place now, and can move on from there.
        close(tree as i32);
        close(fd as i32);
        assert!(fs::metadata(format!("{at}/inside")).unwrap().is_dir());
        let line = info(&at).unwrap();
        assert!(line.contains("noexec") && line.contains("by\\040steps"), "{line}");
        assert_eq!(
            fs::write(format!("{at}/big"), [0; 100_000]).unwrap_err().raw_os_error(),
            Some(ENOSPC)
        );
        ok(unmount(&at));
        // Without a place it goes with its last descriptor.
        let fd = ok(fsopen("tmpfs", 0));
        ok(fsconfig(fd, CREATE, None, None, 0));
        let tree = ok(fsmount(fd, 0));
        close(fd as i32);
        let [below] = directories(&format!("/proc/self/fd/{tree}"), ["below"]);
        fs::write(format!("{below}/file"), "").unwrap();
        close(tree as i32);
    }
    leave(&dir);
}

fn what_a_set_up_filesystem_refuses_is_said() {
    let Some(dir) = place() else { return };
    unsafe {
        fails!(fsopen("no such filesystem", 0), ENODEV);
        fails!(fsopen("tmpfs", 0x10), EINVAL);
        let fd = ok(fsopen("tmpfs", 0));
        let mut text = [0u8; 256];
        let mut message = |room: usize| {
            let n = read(fd as i32, text.as_mut_ptr().cast(), room);
            (n >= 0).then(|| String::from_utf8(text[..n as usize].to_vec()).unwrap())
        };
        assert_eq!((message(256), errno()), (None, ENODATA));
        fails!(fsconfig(fd, SET_STRING, Some("colour"), Some("blue"), 0), EINVAL);
        fails!(fsconfig(fd, SET_STRING, Some("size"), Some("much"), 0), EINVAL);
        fails!(fsconfig(fd, SET_STRING, Some(""), Some("x"), 0), EINVAL);
        let said = message(256).unwrap();
        assert!(said.starts_with("e ") && said.contains("colour"), "{said}");
        assert!(said.ends_with('\n'), "{said:?}");
        // One that doesn't fit may be read again, or is lost, as the version is.
        assert_eq!((message(3), errno()), (None, EMSGSIZE));
        assert!(message(256).is_some());
        while message(256).is_some() {}
        assert_eq!(errno(), ENODATA);
        for (command, key, value, aux) in [
            (SET_FLAG, None, None, 0),
            (SET_FLAG, Some("rw"), Some("x"), 0),
            (SET_FLAG, Some("rw"), None, 1),
            (SET_STRING, Some("source"), None, 0),
            (SET_BINARY, Some("source"), Some("x"), 0),
            (SET_FD, Some("source"), None, -1),
            (CREATE, Some("x"), None, 0),
            (RECONFIGURE, None, Some("x"), 0),
        ] {
            fails!(fsconfig(fd, command, key, value, aux), EINVAL);
        }
        fails!(fsconfig(fd, 100, None, None, 0), EOPNOTSUPP);
        fails!(fsconfig(-1, SET_FLAG, Some("rw"), None, 0), EINVAL);
        let root = i64::from(ok(open(c("/").as_ptr(), O_RDONLY)));
        fails!(fsconfig(root, RECONFIGURE, None, None, 0), EINVAL);
        fails!(fsconfig(fd, RECONFIGURE, None, None, 0), EBUSY);
        fails!(fsconfig(fd, SET_STRING, Some("source"), Some(&"x".repeat(256)), 0), EINVAL);
        ok(fsconfig(fd, SET_STRING, Some("source"), Some("one"), 0));
        fails!(fsconfig(fd, SET_STRING, Some("source"), Some("two"), 0), EINVAL);
        fails!(fsmount(root, 0), EINVAL);
        fails!(fsmount(-1, 0), EBADF);
        fails!(fsmount(fd, 0x100), EINVAL);
        fails!(fspick(&format!("{dir}/nothing")), ENOENT);
        let [plain] = directories(&dir, ["plain"]);
        fails!(fspick(&plain), EINVAL);
        close(fd as i32);
    }
    leave(&dir);
}

fn a_tree_is_cloned_and_attached() {
    let Some(dir) = place() else { return };
    let [from, below, to] = directories(&dir, ["from", "from/below", "to"]);
    unsafe {
        ok(mount_at("inner", &below, "tmpfs", 0, ""));
        fs::write(format!("{below}/file"), "here").unwrap();
        fails!(open_tree(&from, AT_RECURSIVE as u32), EINVAL);
        fails!(open_tree(&from, 0x8000_0000), EINVAL);
        fails!(open_tree(&format!("{from}/nothing"), OPEN_TREE_CLONE), ENOENT);
        // One level has what the mount covers.
        let flat = ok(open_tree(&from, OPEN_TREE_CLONE));
        ok(move_mount(flat, "", &to, F_EMPTY_PATH));
        assert!(fs::metadata(format!("{to}/below/file")).is_err());
        ok(umount2(c(&to).as_ptr(), MNT_DETACH));
        // It is nothing that could be attached again.
        fails!(move_mount(flat, "", &to, F_EMPTY_PATH), EINVAL);
        close(flat as i32);
        let deep = ok(open_tree(&from, OPEN_TREE_CLONE | AT_RECURSIVE as u32));
        assert_eq!(faccessat(deep as i32, c("below/file").as_ptr(), F_OK, 0), 0);
        ok(move_mount(deep, "", &to, F_EMPTY_PATH));
        close(deep as i32);
        assert_eq!(fs::read_to_string(format!("{to}/below/file")).unwrap(), "here");
        // Both show the same files.
        fs::write(format!("{to}/below/file"), "there").unwrap();
        assert_eq!(fs::read_to_string(format!("{below}/file")).unwrap(), "there");
        fails!(unmount(&to), EBUSY);
        ok(unmount(&format!("{to}/below")));
        ok(unmount(&to));
        // Dropped before it had a place.
        let deep = ok(open_tree(&from, OPEN_TREE_CLONE | AT_RECURSIVE as u32));
        close(deep as i32);
        ok(unmount(&below));
        // Without OPEN_TREE_CLONE it is the place itself.
        let place = ok(open_tree(&from, 0));
        assert_eq!(read(place as i32, [0u8; 1].as_mut_ptr().cast(), 1), -1);
        assert_eq!(errno(), EBADF);
        ok(faccessat(place as i32, c("below").as_ptr(), F_OK, 0));
        close(place as i32);
    }
    leave(&dir);
}

fn a_mount_moves_with_what_is_below_it() {
    let Some(dir) = place() else { return };
    let [from, to, file] = directories(&dir, ["from", "to", "f"]);
    let file = format!("{file}/file");
    fs::write(&file, "").unwrap();
    unsafe {
        ok(mount_at("outer", &from, "tmpfs", 0, ""));
        let [below] = directories(&from, ["below"]);
        ok(mount_at("inner", &below, "tmpfs", 0, ""));
        fs::write(format!("{below}/file"), "").unwrap();
        ok(mount_at(&from, &to, "none", MS_MOVE, ""));
        assert!(fs::read_dir(&from).unwrap().next().is_none());
        assert!(fs::metadata(format!("{to}/below/file")).is_ok());
        assert!(info(&from).is_none() && info(&format!("{to}/below")).is_some());
        // Into itself, to something of another type, and what is no mount.
        fails!(mount_at(&to, &format!("{to}/below"), "none", MS_MOVE, ""), ELOOP);
        fails!(mount_at(&to, &file, "none", MS_MOVE, ""), EINVAL);
        fails!(mount_at(&from, &to, "none", MS_MOVE, ""), EINVAL);
        fails!(mount_at("", &to, "none", MS_MOVE, ""), EINVAL);
        fails!(move_mount(i64::from(AT_FDCWD), &to, &from, 0x8), EINVAL);
        fails!(move_mount(-1, "", &from, F_EMPTY_PATH), EBADF);
        fails!(move_mount(i64::from(AT_FDCWD), "", &from, 0), ENOENT);
        ok(move_mount(i64::from(AT_FDCWD), &to, &from, 0));
        assert!(fs::metadata(format!("{below}/file")).is_ok());
        // A directory that others stay in goes with it.
        ok(chdir(c(&below).as_ptr()));
        ok(mount_at(&from, &to, "none", MS_MOVE, ""));
        assert_eq!(std::env::current_dir().unwrap().to_str().unwrap(), format!("{to}/below"));
        ok(chdir(c("/").as_ptr()));
        ok(umount2(c(&to).as_ptr(), MNT_DETACH));
    }
    leave(&dir);
}

fn a_mount_goes_beneath_another() {
    let Some(dir) = place() else { return };
    let [below, above] = directories(&dir, ["below", "above"]);
    unsafe {
        ok(mount_at("below", &below, "tmpfs", 0, ""));
        ok(mount_at("above", &above, "tmpfs", 0, ""));
        fs::write(format!("{below}/B"), "").unwrap();
        fs::write(format!("{above}/A"), "").unwrap();
        let tree = ok(open_tree(&below, OPEN_TREE_CLONE));
        let top = i64::from(ok(open(c(&above).as_ptr(), O_PATH)));
        let empty = c("");
        let flags = BENEATH | F_EMPTY_PATH | T_EMPTY_PATH;
        let moved = syscall(SYS_move_mount, tree, empty.as_ptr(), top, empty.as_ptr(), flags);
        if moved == -1 && errno() == EINVAL {
            // Kernels before 6.5 can't.
            return;
        }
        ok(moved);
        close(top as i32);
        close(tree as i32);
        assert!(fs::metadata(format!("{above}/A")).is_ok());
        ok(unmount(&above));
        assert!(fs::metadata(format!("{above}/B")).is_ok());
        ok(unmount(&above));
        ok(unmount(&below));
    }
    leave(&dir);
}

fn flags_of_mounts_and_of_filesystems_differ() {
    let Some(dir) = place() else { return };
    let [one, two] = directories(&dir, ["one", "two"]);
    unsafe {
        ok(mount_at("t", &one, "tmpfs", MS_NOSUID, ""));
        ok(mount_at(&one, &two, "none", MS_BIND, ""));
        assert_eq!(flags(&two) & (MS_NOSUID | MS_RDONLY), MS_NOSUID);
        // One of the two becomes read-only, by MS_BIND and by mount_setattr(2).
        ok(mount_at("none", &two, "none", MS_REMOUNT | MS_BIND | MS_RDONLY, ""));
        assert_eq!(fs::write(format!("{two}/file"), "").unwrap_err().raw_os_error(), Some(EROFS));
        fs::write(format!("{one}/file"), "").unwrap();
        assert_eq!(flags(&two) & (MS_NOSUID | MS_RDONLY), MS_RDONLY);
        ok(setattr(&two, 0, ATTR_NOEXEC, ATTR_RDONLY, 0));
        assert_eq!(flags(&two) & (MS_NOEXEC | MS_RDONLY), MS_NOEXEC);
        assert_eq!(flags(&one) & MS_NOEXEC, 0);
        // The filesystem itself does, wherever it is seen.
        let fd = ok(fspick(&one));
        ok(fsconfig(fd, SET_STRING, Some("sync"), Some("false"), 0));
        ok(fsconfig(fd, SET_FLAG, Some("ro"), None, 0));
        ok(fsconfig(fd, RECONFIGURE, None, None, 0));
        for at in [&one, &two] {
            assert_eq!(flags(at) & MS_RDONLY, MS_RDONLY, "{at}");
            let file = format!("{at}/file");
            assert_eq!(fs::write(file, "").unwrap_err().raw_os_error(), Some(EROFS));
        }
        let line = info(&two).unwrap();
        let (mount, filesystem) = line.split_once(" - ").unwrap();
        assert!(mount.contains(" rw,noexec") && filesystem.contains(" ro"), "{line}");
        ok(fsconfig(fd, SET_FLAG, Some("rw"), None, 0));
        ok(fsconfig(fd, RECONFIGURE, None, None, 0));
        close(fd as i32);
        fs::write(format!("{two}/file"), "").unwrap();
        // Times of access are one of three.
        fails!(setattr(&two, 0, ATTR_NOATIME, 0, 0), EINVAL);
        fails!(setattr(&two, 0, ATTR_NOATIME, ATTR_NOATIME, 0), EINVAL);
        fails!(setattr(&two, 0, 0x1000_0000, 0, 0), EINVAL);
        fails!(setattr(&two, 0, 0, 0, MS_SHARED | MS_PRIVATE), EINVAL);
        fails!(setattr(&two, 0, 0, 0, u64::MAX), EINVAL);
        fails!(setattr(&two, 0x1000_0000, 0, 0, 0), EINVAL);
        fails!(setattr(&format!("{two}/file"), 0, ATTR_NOEXEC, 0, 0), EINVAL);
        let path = c(&two);
        fails!(
            syscall(SYS_mount_setattr, AT_FDCWD, path.as_ptr(), 0, [0u64; 4].as_ptr(), 24),
            EINVAL
        );
        let long = [0u64, 0, 0, 0, 1];
        fails!(syscall(SYS_mount_setattr, AT_FDCWD, path.as_ptr(), 0, long.as_ptr(), 40), E2BIG);
        ok(setattr(&two, 0, ATTR_NOATIME, ATTR_ATIME, 0));
        assert!(info(&two).unwrap().contains("noatime"));
        ok(unmount(&two));
        ok(unmount(&one));
    }
    leave(&dir);
}

fn a_filesystem_that_is_written_to_does_not_become_read_only() {
    let Some(dir) = place() else { return };
    let [at] = directories(&dir, ["at"]);
    unsafe {
        ok(mount_at("t", &at, "tmpfs", 0, ""));
        let name = format!("{at}/file");
        let file = fs::File::create(&name).unwrap();
        fails!(mount_at("t", &at, "tmpfs", MS_REMOUNT | MS_RDONLY, ""), EBUSY);
        fails!(mount_at("t", &at, "tmpfs", MS_REMOUNT | MS_BIND | MS_RDONLY, ""), EBUSY);
        fails!(setattr(&at, 0, ATTR_RDONLY, 0, 0), EBUSY);
        assert_eq!(flags(&at) & MS_RDONLY, 0);
        drop(file);
        // Readers are in nobody's way.
        let file = fs::File::open(&name).unwrap();
        ok(mount_at("t", &at, "tmpfs", MS_REMOUNT | MS_RDONLY, ""));
        assert_eq!(fs::write(&name, "").unwrap_err().raw_os_error(), Some(EROFS));
        fails!(unmount(&at), EBUSY);
        drop(file);
        ok(unmount(&at));
        fails!(unmount(&at), EINVAL);
        fails!(mount_at("t", &at, "tmpfs", MS_REMOUNT, ""), EINVAL);
        fails!(mount_at("t", &at, "nonsense", 0, ""), ENODEV);
        fails!(mount_at("t", &name, "tmpfs", 0, ""), ENOENT);
        let plain = format!("{dir}/plain");
        fs::write(&plain, "").unwrap();
        fails!(mount_at("t", &plain, "tmpfs", 0, ""), ENOTDIR);
        fails!(mount_at("t", &at, "tmpfs", 0, "colour=blue"), EINVAL);
        fails!(
            mount(
                std::ptr::without_provenance(1),
                c(&at).as_ptr(),
                c("tmpfs").as_ptr(),
                0,
                std::ptr::null()
            ),
            EFAULT
        );
    }
    leave(&dir);
}

fn a_tmpfs_can_be_resized() {
    let Some(dir) = place() else { return };
    let [at] = directories(&dir, ["at"]);
    unsafe {
        ok(mount_at("t", &at, "tmpfs", 0, "size=64k"));
        let name = format!("{at}/file");
        assert_eq!(fs::write(&name, [1; 100_000]).unwrap_err().raw_os_error(), Some(ENOSPC));
        ok(mount_at("t", &at, "tmpfs", MS_REMOUNT, "size=256k"));
        fs::write(&name, [1; 100_000]).unwrap();
        assert!(info(&at).unwrap().contains("size=256k"));
        fails!(mount_at("t", &at, "tmpfs", MS_REMOUNT, "size=64k"), EINVAL);
        fails!(mount_at("t", &at, "tmpfs", MS_REMOUNT, "size=many"), EINVAL);
        assert_eq!(fs::read(&name).unwrap().len(), 100_000);
        ok(unmount(&at));
    }
    leave(&dir);
}

fn a_mount_expires_when_nobody_came() {
    let Some(dir) = place() else { return };
    let [at] = directories(&dir, ["at"]);
    let path = c(&at);
    let expire = |flags: i32| unsafe { umount2(path.as_ptr(), MNT_EXPIRE | flags) };
    unsafe {
        ok(mount_at("t", &at, "tmpfs", 0, ""));
        fails!(expire(MNT_FORCE), EINVAL);
        fails!(expire(MNT_DETACH), EINVAL);
        fails!(umount2(path.as_ptr(), 0x100), EINVAL);
        fails!(expire(0), EAGAIN);
        ok(access(path.as_ptr(), F_OK));
        fails!(expire(0), EAGAIN);
        ok(expire(0));
        assert!(info(&at).is_none());
        // A link to a mount isn't one.
        ok(mount_at("t", &at, "tmpfs", 0, ""));
        let link = format!("{dir}/link");
        std::os::unix::fs::symlink(&at, &link).unwrap();
        fails!(umount2(c(&link).as_ptr(), UMOUNT_NOFOLLOW), EINVAL);
        ok(umount2(path.as_ptr(), UMOUNT_NOFOLLOW));
    }
    leave(&dir);
}

fn a_tree_is_detached_at_once() {
    let Some(dir) = place() else { return };
    let [at] = directories(&dir, ["at"]);
    unsafe {
        ok(mount_at("outer", &at, "tmpfs", 0, ""));
        let [below] = directories(&at, ["below"]);
        ok(mount_at("inner", &below, "tmpfs", 0, ""));
        let file = fs::File::create(format!("{below}/file")).unwrap();
        ok(chdir(c(&below).as_ptr()));
        fails!(unmount(&at), EBUSY);
        ok(umount2(c(&at).as_ptr(), MNT_DETACH));
        assert!(fs::read_dir(&at).unwrap().next().is_none());
        assert!(info(&at).is_none() && info(&below).is_none());
        // Who was there still is, but nowhere that has a name.
        file.set_len(10).unwrap();
        assert_eq!(fs::metadata("file").unwrap().len(), 10);
        let mut name = [0u8; 256];
        ok(syscall(SYS_getcwd, name.as_mut_ptr(), 256));
        assert!(name.starts_with(b"(unreachable)"));
        ok(chdir(c("..").as_ptr()));
        assert!(fs::metadata("file").is_ok());
        ok(chdir(c("/").as_ptr()));
        // The place is as free as any.
        ok(mount_at("again", &at, "tmpfs", 0, ""));
        ok(unmount(&at));
    }
    leave(&dir);
}

fn links_are_not_followed_where_the_mount_says_so() {
    let Some(dir) = place() else { return };
    let [at] = directories(&dir, ["at"]);
    const MS_NOSYMFOLLOW: u64 = 256;
    ok(mount_at("t", &at, "tmpfs", 0, ""));
    let (name, link) = (format!("{at}/file"), format!("{at}/link"));
    fs::write(&name, "").unwrap();
    std::os::unix::fs::symlink(&name, &link).unwrap();
    fs::metadata(&link).unwrap();
    ok(mount_at("t", &at, "tmpfs", MS_REMOUNT | MS_NOSYMFOLLOW, ""));
    assert_eq!(fs::metadata(&link).unwrap_err().raw_os_error(), Some(ELOOP));
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some(name.as_str()));
    std::os::unix::fs::symlink(&name, format!("{at}/other")).unwrap();
    assert_eq!(flags(&at) & ST_NOSYMFOLLOW, ST_NOSYMFOLLOW);
    ok(unmount(&at));
    leave(&dir);
}

fn there_is_a_most_of_mounts() {
    let Some(dir) = place() else { return };
    let [most, below] = [fs::read_to_string("/proc/sys/fs/mount-max").unwrap(), format!("{dir}/x")];
    let most: usize = most.trim().parse().unwrap();
    let count = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    fs::create_dir(&below).unwrap();
    // Each call doubles what there is, until there are too many; then it makes none at all.
    for _ in 0..12 {
        let before = count();
        if mount_at(&dir, &below, "none", MS_BIND | MS_REC, "") != 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(ENOSPC));
            assert_eq!(count(), before);
            break;
        }
        assert!(before < count() && count() <= most, "{before}, {}", count());
    }
    leave(&dir);
}

fn shared_mounts_share() {
    let Some(dir) = place() else { return };
    let [one] = directories(&dir, ["one"]);
    let [two, three, four] = directories(&dir, ["two", "three", "four"]);
    unsafe {
        ok(mount_at("t", &one, "tmpfs", 0, ""));
        directories(&one, ["sub"]);
        assert!(!info(&one).unwrap().contains("shared:"));
        fails!(mount_at("none", &one, "none", MS_SHARED | MS_PRIVATE, ""), EINVAL);
        fails!(mount_at("none", &format!("{one}/sub"), "none", MS_SHARED, ""), EINVAL);
        ok(mount_at("none", &one, "none", MS_SHARED, ""));
        let group = info(&one).unwrap();
        let group = group.split(' ').find(|word| word.starts_with("shared:")).unwrap().to_string();
        for other in [&two, &three, &four] {
            ok(mount_at(&one, other, "none", MS_BIND, ""));
            assert!(info(other).unwrap().contains(&group));
        }
        ok(mount_at("none", &three, "none", MS_SLAVE, ""));
        ok(setattr(&four, 0, 0, 0, MS_PRIVATE));
        let master = group.replace("shared", "master");
        assert!(info(&three).unwrap().contains(&master));
        assert!(!info(&four).unwrap().contains("shared:"));
        // A mount on one comes to its peer and to the slave.
        let sub = |at: &str| format!("{at}/sub");
        ok(mount_at("s", &sub(&two), "tmpfs", 0, ""));
        fs::write(format!("{}/file", sub(&two)), "").unwrap();
        for (at, there) in [(&one, true), (&three, true), (&four, false)] {
            assert_eq!(fs::metadata(format!("{}/file", sub(at))).is_ok(), there, "{at}");
        }
        // What a shared mount has can't move alone.
        let [elsewhere] = directories(&dir, ["elsewhere"]);
        fails!(mount_at(&sub(&one), &elsewhere, "none", MS_MOVE, ""), EINVAL);
        ok(unmount(&sub(&one)));
        for at in [&one, &two, &three] {
            assert!(info(&sub(at)).is_none(), "{at}");
        }
        // The slave keeps its own.
        ok(mount_at("s", &sub(&three), "tmpfs", 0, ""));
        assert!(info(&sub(&one)).is_none());
        ok(unmount(&sub(&three)));
        ok(mount_at("none", &two, "none", MS_UNBINDABLE, ""));
        fails!(mount_at(&two, &elsewhere, "none", MS_BIND, ""), EINVAL);
        for at in [&four, &three, &two, &one] {
            ok(unmount(at));
        }
    }
    leave(&dir);
}

fn namespaces_have_mounts_of_their_own() {
    let Some(dir) = place() else { return };
    let [at, common] = directories(&dir, ["at", "common"]);
    unsafe {
        ok(mount_at("t", &common, "tmpfs", MS_NOEXEC, ""));
        ok(mount_at("none", &common, "none", MS_SHARED, ""));
        let [shared] = directories(&common, ["shared"]);
        child_passes(|| {
            // A directory that was shared with the parent is so no more.
            ok(chdir(c(&at).as_ptr()));
            ok(unshare(CLONE_NEWNS));
            assert_eq!(std::env::current_dir().unwrap().to_str(), Some(at.as_str()));
            ok(mount_at("own", &at, "tmpfs", 0, ""));
            fs::write(format!("{at}/file"), "").unwrap();
            ok(mount_at("shared", &shared, "tmpfs", 0, ""));
            ok(mount_at("none", &common, "none", MS_REMOUNT | MS_BIND | MS_NOSUID, ""));
            assert!(info(&at).is_some());
        });
        assert!(info(&at).is_none() && fs::metadata(format!("{at}/file")).is_err());
        // Flags are each one's own, what is mounted on shared mounts is not.
        assert_eq!(flags(&common) & (MS_NOEXEC | MS_NOSUID), MS_NOEXEC);
        assert!(info(&shared).is_some());
        ok(unmount(&shared));
        child_passes(|| {
            ok(setresuid(65534, 65534, 65534));
            fails!(unshare(CLONE_NEWNS), EPERM);
        });
    }
    leave(&dir);
}

fn the_root_is_exchanged() {
    let Some(dir) = place() else { return };
    let pivot =
        |new: &str, old: &str| unsafe { syscall(SYS_pivot_root, c(new).as_ptr(), c(old).as_ptr()) };
    child_passes(|| unsafe {
        ok(chroot(c(&dir).as_ptr()));
        ok(chdir(c("/").as_ptr()));
        directories("", ["new", "plain"]);
        fails!(pivot("/plain", "/plain"), EBUSY);
        ok(mount_at("t", "/new", "tmpfs", 0, ""));
        directories("/new", ["old", "other"]);
        fs::write("/new/file", "").unwrap();
        fails!(pivot("/new", "/new/file"), ENOTDIR);
        fails!(pivot("/new/other", "/new/old"), EINVAL);
        fails!(pivot("/new", "/nothing"), ENOENT);
        ok(mount_at("t", "/plain", "tmpfs", 0, ""));
        directories("/plain", ["below"]);
        fails!(pivot("/new", "/plain/below"), EINVAL);
        ok(pivot("/new", "/new/old"));
        // Root and working directory are the new ones, and the old ones are where they were put.
        assert!(fs::metadata("/file").is_ok() && fs::metadata("file").is_ok());
        assert!(fs::metadata("/old/plain/below").is_ok());
        ok(umount2(c("/old").as_ptr(), MNT_DETACH));
        assert!(fs::read_dir("/old").unwrap().next().is_none());
        ok(setresuid(65534, 65534, 65534));
        fails!(pivot("/", "/"), EPERM);
    });
    leave(&dir);
}

fn watchers_of_mounts_hear_of_changes() {
    let Some(dir) = place() else { return };
    let [at] = directories(&dir, ["at"]);
    unsafe {
        let file = fs::File::open("/proc/self/mounts").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let changed = || {
            let mut poll_fd = pollfd { fd, events: POLLPRI, revents: 0 };
            ok(poll(&mut poll_fd, 1, 0));
            poll_fd.revents & (POLLPRI | POLLERR) == POLLPRI | POLLERR
        };
        assert!(!changed());
        ok(mount_at("t", &at, "tmpfs", 0, ""));
        assert!(changed() && !changed());
        let epoll = ok(epoll_create1(0));
        let mut event = epoll_event { events: EPOLLPRI as u32, u64: 7 };
        ok(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &mut event));
        assert_eq!(epoll_wait(epoll, &mut event, 1, 0), 0);
        ok(unmount(&at));
        assert_eq!(epoll_wait(epoll, &mut event, 1, 10_000), 1);
        assert_eq!(event.events & EPOLLPRI as u32, EPOLLPRI as u32);
        close(epoll);
    }
    leave(&dir);
}

fn access_times_are_kept_as_the_mount_says() {
    use std::os::unix::fs::MetadataExt;
    let Some(dir) = place() else { return };
    let [at] = directories(&dir, ["at"]);
    unsafe {
        ok(mount_at("t", &at, "tmpfs", MS_NOATIME, ""));
        let name = format!("{at}/file");
        fs::write(&name, "text").unwrap();
        let read = || {
            let old = [timespec { tv_sec: 1000, tv_nsec: 0 }; 2];
            ok(utimensat(AT_FDCWD, c(&name).as_ptr(), old.as_ptr(), 0));
            fs::read(&name).unwrap();
            let once = fs::metadata(&name).unwrap().atime();
            let new =
                [timespec { tv_sec: 1 << 33, tv_nsec: 0 }, timespec { tv_sec: 0, tv_nsec: 0 }];
            ok(utimensat(AT_FDCWD, c(&name).as_ptr(), new.as_ptr(), 0));
            fs::read(&name).unwrap();
            (once != 1000, fs::metadata(&name).unwrap().atime() != 1 << 33)
        };
        assert_eq!(read(), (false, false));
        ok(mount_at("t", &at, "tmpfs", MS_REMOUNT | MS_RELATIME, ""));
        assert_eq!(read(), (true, false));
        ok(mount_at("t", &at, "tmpfs", MS_REMOUNT | MS_STRICTATIME, ""));
        assert_eq!(read(), (true, true));
        // A remount that says nothing about it changes nothing.
        ok(mount_at("t", &at, "tmpfs", MS_REMOUNT, ""));
        assert_eq!(read(), (true, true));
        ok(unmount(&at));
    }
    leave(&dir);
}
