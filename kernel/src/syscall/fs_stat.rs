//! stat(2), statx(2), statfs(2), access(2).

use super::fs_path::{Target, at_as, lookup, path_arg, target};
use crate::errno::{Errno, Result};
use crate::fs::inode::{FileSystem, Metadata, NAME_MAX, Time, dev_major, dev_minor, mode::*};
use crate::fs::mount::Flags;
use crate::fs::walk::Resolve;
use crate::fs::{FileType, Mount, perm};
use crate::io::put_user;
use crate::task::{Creds, current};
use alloc::sync::Arc;
use linux_raw_sys::general::*;

/// `st_blksize` of everything.
const BLOCK_SIZE: u64 = 4096;

/// Writes `struct stat`.
fn put_stat(addr: usize, meta: &Metadata) -> Result<usize> {
    let time = |time: Time| [time.secs as u64, u64::from(time.nanos)];
    let [a0, a1] = time(meta.atime);
    let [m0, m1] = time(meta.mtime);
    let [c0, c1] = time(meta.ctime);
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let words: [u64; 18] = [
        meta.dev,
        meta.ino,
        u64::from(meta.nlink),
        pair(meta.mode, meta.uid),
        pair(meta.gid, 0),
        meta.rdev,
        meta.size,
        BLOCK_SIZE,
        meta.blocks,
        a0,
        a1,
        m0,
        m1,
        c0,
        c1,
        0,
        0,
        0,
    ];
    put_user(addr, &words)?;
    Ok(0)
}

/// stat(2)
pub fn stat(path: usize, buf: usize) -> Result<usize> {
    newfstatat(AT_FDCWD, path, buf, 0)
}

/// lstat(2)
pub fn lstat(path: usize, buf: usize) -> Result<usize> {
    newfstatat(AT_FDCWD, path, buf, AT_SYMLINK_NOFOLLOW)
}

/// fstat(2)
pub fn fstat(fd: i32, buf: usize) -> Result<usize> {
    let file = current().with_files(|files| files.get_any(fd))?;
    put_stat(buf, &file.with_inode(|inode| inode.metadata()))
}

fn metadata_at(dirfd: i32, path: usize, flags: u32) -> Result<(Metadata, Target)> {
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    let target = target(dirfd, path, flags & AT_EMPTY_PATH != 0, follow)?;
    let meta = match &target {
        Target::Place(path) => path.inode()?.metadata(),
        Target::File(file) => file.with_inode(|inode| inode.metadata()),
    };
    Ok((meta, target))
}

/// newfstatat(2)
pub fn newfstatat(dirfd: i32, path: usize, buf: usize, flags: u32) -> Result<usize> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & AT_EMPTY_PATH != 0 && dirfd >= 0 && super::fs_path::is_empty_path(path)? {
        return fstat(dirfd, buf);
    }
    put_stat(buf, &metadata_at(dirfd, path, flags)?.0)
}

/// statx(2)
pub fn statx(dirfd: i32, path: usize, flags: u32, mask: u32, buf: usize) -> Result<usize> {
    let known = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
    let both = flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE;
    if flags & !known != 0 || both || mask & STATX__RESERVED != 0 {
        return Err(Errno::EINVAL);
    }
    let (meta, target) = metadata_at(dirfd, path, flags)?;
    let mount = match &target {
        Target::Place(path) => Some(path.mount.clone()),
        Target::File(file) => file.path.as_ref().map(|path| path.mount.clone()),
    };
    let mut out = [0u32; 64];
    let put64 = |out: &mut [u32; 64], at: usize, value: u64| {
        out[at] = value as u32;
        out[at + 1] = (value >> 32) as u32;
    };
    let mount_id = if mount.is_some() { STATX_MNT_ID } else { 0 };
    out[0] = STATX_BASIC_STATS | STATX_BTIME | mount_id;
    out[1] = BLOCK_SIZE as u32;
    out[4] = meta.nlink;
    out[5] = meta.uid;
    out[6] = meta.gid;
    out[7] = meta.mode & 0xffff;
    put64(&mut out, 8, meta.ino);
    put64(&mut out, 10, meta.size);
    put64(&mut out, 12, meta.blocks);
    let root = match &target {
        Target::Place(path) if path.is_mount_root() => STATX_ATTR_MOUNT_ROOT,
        _ => 0,
    };
    put64(&mut out, 2, u64::from(root));
    put64(&mut out, 14, u64::from(STATX_ATTR_MOUNT_ROOT));
    for (at, time) in [(16, meta.atime), (20, meta.btime), (24, meta.ctime), (28, meta.mtime)] {
        put64(&mut out, at, time.secs as u64);
        out[at + 2] = time.nanos;
    }
    out[32] = dev_major(meta.rdev);
    out[33] = dev_minor(meta.rdev);
    out[34] = dev_major(meta.dev);
    out[35] = dev_minor(meta.dev);
    put64(&mut out, 36, mount.map_or(0, |mount| u64::from(mount.id)));
    put_user(buf, &out)?;
    Ok(0)
}

fn put_statfs(addr: usize, fs: &dyn FileSystem, mount: Option<&Mount>) -> Result<usize> {
    let stat = fs.statfs();
    // ST_VALID says that the flags mean something; relatime has another bit than in mount(2).
    const ST_VALID: u64 = 0x20;
    const ST_RELATIME: u64 = 0x1000;
    const ST_NOSYMFOLLOW: u64 = 0x2000;
    let flags = mount.map_or(Flags::empty(), |mount| mount.flags() | mount.whole_flags());
    let same = Flags::OWN | Flags::SYNCHRONOUS | Flags::MANDLOCK;
    let mut bits =
        u64::from((flags & (same - Flags::RELATIME - Flags::NOSYMFOLLOW)).bits()) | ST_VALID;
    for (flag, bit) in [(Flags::RELATIME, ST_RELATIME), (Flags::NOSYMFOLLOW, ST_NOSYMFOLLOW)] {
        if flags.contains(flag) {
            bits |= bit;
        }
    }
    let words: [u64; 15] = [
        stat.kind,
        stat.bsize,
        stat.blocks,
        stat.bfree,
        stat.bfree,
        stat.files,
        stat.ffree,
        fs.dev(),
        NAME_MAX as u64,
        stat.bsize,
        bits,
        0,
        0,
        0,
        0,
    ];
    put_user(addr, &words)?;
    Ok(0)
}

/// statfs(2)
pub fn statfs(path: usize, buf: usize) -> Result<usize> {
    let place = lookup(AT_FDCWD, &path_arg(path)?, true)?;
    put_statfs(buf, &*place.mount.fs, Some(&place.mount))
}

/// fstatfs(2)
pub fn fstatfs(fd: i32, buf: usize) -> Result<usize> {
    let file = current().with_files(|files| files.get_any(fd))?;
    let place = super::fs_path::place_of_file(&file);
    put_statfs(buf, &*place.mount.fs, Some(&place.mount))?;
    // What is in no filesystem of ours is in ones of their own on Linux.
    let kind = match file.with_inode(|inode| inode.file_type()) {
        FileType::Fifo if file.path.is_none() => PIPEFS_MAGIC,
        FileType::Socket if file.path.is_none() => SOCKFS_MAGIC,
        _ => return Ok(0),
    };
    put_user(buf, &u64::from(kind))?;
    Ok(0)
}

/// access(2)
pub fn access(path: usize, mode: u32) -> Result<usize> {
    faccessat2(AT_FDCWD, path, mode, 0)
}

/// faccessat(2)
pub fn faccessat(dirfd: i32, path: usize, mode: u32) -> Result<usize> {
    faccessat2(dirfd, path, mode, 0)
}

/// The identity that access(2) checks: the real IDs, with the capabilities that they would have.
fn real_identity(creds: &Creds) -> Creds {
    let mut real = Creds { fsuid: creds.uid, fsgid: creds.gid, ..creds.clone() };
    let privileged = creds.uid == 0;
    real.effective = if privileged { creds.permitted } else { Default::default() };
    real
}

/// faccessat2(2): asks for the real IDs unless `AT_EACCESS`.
pub fn faccessat2(dirfd: i32, addr: usize, mode: u32, flags: u32) -> Result<usize> {
    if mode & !7 != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut creds = current().creds();
    if flags & AT_EACCESS == 0 && (creds.uid != creds.fsuid || creds.gid != creds.fsgid) {
        creds = Arc::new(real_identity(&creds));
    }
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    let place = if flags & AT_EMPTY_PATH != 0 && super::fs_path::is_empty_path(addr)? {
        target(dirfd, addr, true, follow)?.path()
    } else {
        let name = path_arg(addr)?;
        at_as(&creds, dirfd, &name, Resolve::empty(), |resolver| resolver.lookup(&name, follow))?
    };
    let inode = place.inode()?;
    let access = inode.access();
    if mode & perm::WRITE != 0
        && matches!(FileType::of_mode(access.mode), FileType::Regular | FileType::Directory)
    {
        place.mount.check_writable()?;
    }
    perm::check_access(&*creds, access, mode)?;
    if mode & perm::EXEC != 0
        && access.mode & S_IFMT == S_IFREG
        && place.mount.flags().contains(Flags::NOEXEC)
    {
        return Err(Errno::EACCES);
    }
    Ok(0)
}
