//! Space and durability: truncate(2), fallocate(2), posix_fadvise(2), fsync(2).

use super::fs_path::{file, lookup, path_arg};
use crate::errno::{Errno, Result};
use crate::fs::{File, FileType, hooks, notify, ops};
use crate::task::current;
use alloc::sync::Arc;
use linux_raw_sys::general::*;

fn length(len: i64) -> Result<u64> {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > hooks::file_size_limit() {
        hooks::file_too_large();
        return Err(Errno::EFBIG);
    }
    Ok(len)
}

/// truncate(2)
pub fn truncate(path: usize, len: i64) -> Result<usize> {
    let len = length(len)?;
    let path = lookup(AT_FDCWD, &path_arg(path)?, true)?;
    ops::truncate(&*current().creds(), &path, len)?;
    Ok(0)
}

/// ftruncate(2)
pub fn ftruncate(fd: i32, len: i64) -> Result<usize> {
    let len = length(len)?;
    let file = file(fd)?;
    if !file.writable() {
        return Err(Errno::EINVAL);
    }
    file.with_inode(|inode| inode.truncate(len))?;
    notify::file(&file, IN_MODIFY);
    Ok(0)
}

fn regular(fd: i32) -> Result<Arc<File>> {
    let file = file(fd)?;
    match file.with_inode(|inode| inode.file_type()) {
        FileType::Regular => Ok(file),
        FileType::Directory => Err(Errno::EISDIR),
        FileType::Fifo => Err(Errno::ESPIPE),
        _ => Err(Errno::ENODEV),
    }
}

/// fallocate(2)
pub fn fallocate(fd: i32, mode: u32, offset: i64, len: i64) -> Result<usize> {
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    let file = regular(fd)?;
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    if mode & FALLOC_FL_KEEP_SIZE == 0 {
        length(end)?;
    }
    match file.ops.allocate(&file, mode, offset as u64, len as u64) {
        // Files that exist to be waited for are no files of a filesystem.
        Err(Errno::EOPNOTSUPP) if file.path.is_none() => Err(Errno::ENODEV),
        done => done.map(|()| 0),
    }
}

/// posix_fadvise(2): advice is taken as read; the page cache looks after itself.
pub fn fadvise64(fd: i32, _offset: i64, len: i64, advice: u32) -> Result<usize> {
    let file = file(fd)?;
    if file.with_inode(|inode| inode.file_type()) == FileType::Fifo {
        return Err(Errno::ESPIPE);
    }
    if len < 0 || advice > POSIX_FADV_NOREUSE {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

/// readahead(2)
pub fn readahead(fd: i32, _offset: i64, _count: usize) -> Result<usize> {
    let file = file(fd)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    let mode = file.with_inode(|inode| inode.metadata().mode);
    let plain = matches!(FileType::of_mode(mode), FileType::Regular | FileType::BlockDevice);
    if !plain || file.ops.mapping(&file).is_err() {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

/// fsync(2)
pub fn fsync(fd: i32) -> Result<usize> {
    let file = file(fd)?;
    file.ops.sync(&file, false)?;
    Ok(0)
}

/// fdatasync(2)
pub fn fdatasync(fd: i32) -> Result<usize> {
    let file = file(fd)?;
    file.ops.sync(&file, true)?;
    Ok(0)
}

/// sync(2): it doesn't fail; whoever must know asks by fsync(2).
pub fn sync() -> Result<usize> {
    let _ = crate::fs::mount::sync_all();
    Ok(0)
}

/// syncfs(2)
pub fn syncfs(fd: i32) -> Result<usize> {
    if let Some(path) = &file(fd)?.path {
        path.mount.fs.sync()?;
    }
    Ok(0)
}

/// sync_file_range(2)
pub fn sync_file_range(fd: i32, offset: i64, len: i64, flags: u32) -> Result<usize> {
    let file = file(fd)?;
    if offset < 0 || len < 0 || flags & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    match file.with_inode(|inode| inode.file_type()) {
        // Half of what it does on Linux is no promise; the whole is one.
        FileType::Regular if flags & SYNC_FILE_RANGE_WAIT_AFTER != 0 => {
            file.ops.sync(&file, true).map(|()| 0)
        }
        FileType::Regular | FileType::BlockDevice | FileType::Directory => Ok(0),
        _ => Err(Errno::ESPIPE),
    }
}
