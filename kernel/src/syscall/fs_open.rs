//! open(2), close(2), dup(2), pipe(2).

use super::fs_path::{at, path_arg};
use crate::errno::{Errno, Result};
use crate::fs::walk::Resolve;
use crate::fs::{hooks, leases, locks, ops, pipe};
use crate::io::{get_user_slice, put_user};
use crate::task::current;
use linux_raw_sys::general::*;

/// Flags that open(2) knows; openat2(2) refuses others.
pub const KNOWN: u32 = O_ACCMODE
    | O_CREAT
    | O_EXCL
    | O_NOCTTY
    | O_TRUNC
    | O_APPEND
    | O_NONBLOCK
    | O_SYNC
    | FASYNC
    | O_DIRECT
    | 0o100000
    | O_DIRECTORY
    | O_NOFOLLOW
    | O_NOATIME
    | O_CLOEXEC
    | O_PATH
    | O_TMPFILE;

/// `CLOSE_RANGE_UNSHARE` and `CLOSE_RANGE_CLOEXEC` (linux/close_range.h).
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

fn open_at(dirfd: i32, name: &[u8], flags: u32, mode: u32, resolve: Resolve) -> Result<usize> {
    let umask = current().fs().umask();
    let reserved = super::reserve_descriptor()?;
    let file = at(dirfd, name, resolve, |resolver| {
        ops::open(resolver, name, flags, mode & 0o7777, umask)
    })?;
    let cloexec = flags & O_CLOEXEC != 0;
    let fd = reserved.install(file.clone(), cloexec);
    // Somebody may have got a lease before there was a descriptor to find.
    if leases::any() && file.flags() & O_PATH == 0 {
        let wait = flags & O_NONBLOCK == 0;
        leases::breaking(&file.inode(), Some(&file), file.writable(), wait)
            .inspect_err(|_| current().files().close(fd).unwrap_or_default())?;
    }
    Ok(fd as usize)
}

/// open(2)
pub fn open(path: usize, flags: u32, mode: u32) -> Result<usize> {
    openat(AT_FDCWD, path, flags, mode)
}

/// creat(2)
pub fn creat(path: usize, mode: u32) -> Result<usize> {
    openat(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode)
}

/// openat(2)
pub fn openat(dirfd: i32, path: usize, flags: u32, mode: u32) -> Result<usize> {
    open_at(dirfd, &path_arg(path)?, flags & KNOWN, mode, Resolve::empty())
}

/// openat2(2)
pub fn openat2(dirfd: i32, path: usize, how: usize, size: usize) -> Result<usize> {
    const FIELDS: usize = 3;
    if size < FIELDS * 8 {
        return Err(Errno::EINVAL);
    }
    if size > crate::arch::PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    let mut bytes = alloc::vec![0u8; size];
    get_user_slice(how, &mut bytes)?;
    if bytes[FIELDS * 8..].iter().any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    let mut fields = [0u64; FIELDS];
    for (field, chunk) in fields.iter_mut().zip(bytes.chunks_exact(8)) {
        // Chunks have exactly eight bytes, so the default is never used.
        *field = u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
    }
    let [flags, mode, resolve] = fields;
    let flags = u32::try_from(flags).ok().filter(|flags| flags & !KNOWN == 0);
    let flags = flags.ok_or(Errno::EINVAL)?;
    let resolve = Resolve::from_bits(resolve).ok_or(Errno::EINVAL)?;
    if resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    let creates = flags & O_CREAT != 0 || flags & O_TMPFILE == O_TMPFILE;
    if mode & !0o7777 != 0 || mode != 0 && !creates {
        return Err(Errno::EINVAL);
    }
    open_at(dirfd, &path_arg(path)?, flags, mode as u32, resolve)
}

/// close(2)
pub fn close(fd: i32) -> Result<usize> {
    current().files().close(fd)?;
    Ok(0)
}

/// close_range(2)
pub fn close_range(first: u32, last: u32, flags: u32) -> Result<usize> {
    if first > last || flags & !(CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        hooks::unshare_files()?;
    }
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        current().files().cloexec_range(first, last);
    } else {
        current().files().close_range(first, last);
    }
    Ok(0)
}

/// dup(2)
pub fn dup(fd: i32) -> Result<usize> {
    let files = current().files();
    let file = files.get_any(fd)?;
    Ok(files.alloc(file, false, hooks::descriptor_limit())? as usize)
}

fn dup_to(old: i32, new: i32, cloexec: bool) -> Result<usize> {
    let files = current().files();
    let file = files.get_any(old)?;
    if let Some(closed) = files.replace(new, file, cloexec, hooks::descriptor_limit())? {
        locks::descriptor_closed(&files, &closed);
    }
    Ok(new as usize)
}

/// dup2(2)
pub fn dup2(old: i32, new: i32) -> Result<usize> {
    if old == new {
        current().files().get_any(old)?;
        return Ok(new as usize);
    }
    dup_to(old, new, false)
}

/// dup3(2)
pub fn dup3(old: i32, new: i32, flags: u32) -> Result<usize> {
    if old == new || flags & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    dup_to(old, new, flags & O_CLOEXEC != 0)
}

/// pipe2(2)
pub fn pipe2(fds: usize, flags: u32) -> Result<usize> {
    if flags & !(O_CLOEXEC | O_NONBLOCK | O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let cloexec = flags & O_CLOEXEC != 0;
    let creds = current().creds();
    let (read, write) = pipe::pipe(flags, creds.fsuid, creds.fsgid)?;
    let (one, two) = (super::reserve_descriptor()?, super::reserve_descriptor()?);
    let (one, two) = (one.install(read, cloexec), two.install(write, cloexec));
    if let Err(error) = put_user(fds, &[one, two]) {
        let files = current().files();
        let _ = files.close(one);
        let _ = files.close(two);
        return Err(error);
    }
    Ok(0)
}

/// pipe(2)
pub fn pipe(fds: usize) -> Result<usize> {
    pipe2(fds, 0)
}
