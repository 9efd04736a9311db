//! Directories and names: getdents64(2), mkdir(2), unlink(2), rename(2), link(2), symlink(2),
//! chdir(2).

use super::fs_path::{Target, at, lookup, path_arg, place_of, target};
use crate::errno::{Errno, Result};
use crate::fs::inode::mode::*;
use crate::fs::perm::{self, cap};
use crate::fs::walk::{self, Resolve};
use crate::fs::{FileType, Path, ops};
use crate::io::put_user_slice;
use crate::task::current;
use alloc::vec::Vec;
use linux_raw_sys::general::*;

/// Longest listing that one call returns, in bytes.
const DENTS_MAX: usize = 64 * 1024;

/// getdents64(2)
pub fn getdents64(fd: i32, buf: usize, len: usize) -> Result<usize> {
    list(fd, buf, len, &mut |out, room, ino, next, kind, name| {
        let size = (19 + name.len() + 1).next_multiple_of(8);
        if out.len() + size > room {
            return false;
        }
        let start = out.len();
        out.resize(start + size, 0);
        let record = &mut out[start..];
        record[..8].copy_from_slice(&ino.to_ne_bytes());
        record[8..16].copy_from_slice(&next.to_ne_bytes());
        record[16..18].copy_from_slice(&(size as u16).to_ne_bytes());
        record[18] = kind;
        record[19..19 + name.len()].copy_from_slice(name);
        true
    })
}

/// getdents(2): the type stands in the last byte of a record.
pub fn getdents(fd: i32, buf: usize, len: usize) -> Result<usize> {
    list(fd, buf, len, &mut |out, room, ino, next, kind, name| {
        let size = (18 + name.len() + 2).next_multiple_of(8);
        if out.len() + size > room {
            return false;
        }
        let start = out.len();
        out.extend_from_slice(&ino.to_ne_bytes());
        out.extend_from_slice(&next.to_ne_bytes());
        out.extend_from_slice(&(size as u16).to_ne_bytes());
        out.extend_from_slice(name);
        out.resize(start + size, 0);
        out[start + size - 1] = kind;
        true
    })
}

/// Appends a record if it fits in `room`: buffer, room, inode number, next offset, type, name.
type Record<'a> = &'a mut dyn FnMut(&mut Vec<u8>, usize, u64, u64, u8, &[u8]) -> bool;

fn list(fd: i32, buf: usize, len: usize, record: Record<'_>) -> Result<usize> {
    let file = super::fs_path::file(fd)?;
    // The size is an int inside of Linux: nothing fits into a negative one.
    let room = usize::try_from(len as i32).unwrap_or(0).min(DENTS_MAX);
    let metadata = file.with_inode(|inode| inode.metadata());
    if metadata.nlink == 0 && FileType::of_mode(metadata.mode) == FileType::Directory {
        // Removed since it was opened.
        return Err(Errno::ENOENT);
    }
    let mut pos = file.pos.lock();
    let mut out = Vec::new();
    out.try_reserve(room.min(4096)).map_err(|_| Errno::ENOMEM)?;
    let mut next_pos = *pos;
    let mut full = false;
    file.ops.read_dir(&file, *pos, &mut |ino, next, kind, name| {
        full = !record(&mut out, room, ino, next, kind, name);
        if !full {
            next_pos = next;
        }
        !full
    })?;
    if out.is_empty() {
        return if full { Err(Errno::EINVAL) } else { Ok(0) };
    }
    if put_user_slice(buf, &out).is_ok() {
        *pos = next_pos;
        return Ok(out.len());
    }
    // The buffer ends early: the records that fit count.
    let mut done = 0;
    while let Some(header) = out.get(done + 8..done + 18) {
        let len = usize::from(u16::from_ne_bytes([header[8], header[9]]));
        if put_user_slice(buf + done, &out[done..done + len]).is_err() {
            break;
        }
        let (next, _) = header.split_first_chunk().ok_or(Errno::EFAULT)?;
        *pos = u64::from_ne_bytes(*next);
        done += len;
    }
    if done > 0 { Ok(done) } else { Err(Errno::EFAULT) }
}

/// mkdir(2)
pub fn mkdir(path: usize, mode: u32) -> Result<usize> {
    mkdirat(AT_FDCWD, path, mode)
}

/// mkdirat(2)
pub fn mkdirat(dirfd: i32, path: usize, mode: u32) -> Result<usize> {
    let name = path_arg(path)?;
    let mode = mode & !current().fs().umask();
    at(dirfd, &name, Resolve::empty(), |resolver| ops::mkdir(resolver, &name, mode))?;
    Ok(0)
}

/// mknod(2)
pub fn mknod(path: usize, mode: u32, dev: u64) -> Result<usize> {
    mknodat(AT_FDCWD, path, mode, dev)
}

/// mknodat(2)
pub fn mknodat(dirfd: i32, path: usize, mode: u32, dev: u64) -> Result<usize> {
    let name = path_arg(path)?;
    let mode = mode & (S_IFMT | 0o7777);
    let umask = current().fs().umask();
    // The system call passes 32 bits: major and minor as `new_encode_dev` packs them.
    let dev = u64::from(dev as u32);
    at(dirfd, &name, Resolve::empty(), |resolver| ops::mknod(resolver, &name, mode, umask, dev))?;
    Ok(0)
}

/// rmdir(2)
pub fn rmdir(path: usize) -> Result<usize> {
    unlinkat(AT_FDCWD, path, AT_REMOVEDIR)
}

/// unlink(2)
pub fn unlink(path: usize) -> Result<usize> {
    unlinkat(AT_FDCWD, path, 0)
}

/// unlinkat(2)
pub fn unlinkat(dirfd: i32, path: usize, flags: u32) -> Result<usize> {
    if flags & !AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let name = path_arg(path)?;
    at(dirfd, &name, Resolve::empty(), |resolver| {
        if flags & AT_REMOVEDIR != 0 {
            ops::rmdir(resolver, &name)
        } else {
            ops::unlink(resolver, &name)
        }
    })?;
    Ok(0)
}

/// rename(2)
pub fn rename(old: usize, new: usize) -> Result<usize> {
    renameat2(AT_FDCWD, old, AT_FDCWD, new, 0)
}

/// renameat2(2)
pub fn renameat2(old_fd: i32, old: usize, new_fd: i32, new: usize, flags: u32) -> Result<usize> {
    let (old, new) = (path_arg(old)?, path_arg(new)?);
    let plain = Resolve::empty();
    at(old_fd, &old, plain, |from| {
        at(new_fd, &new, plain, |to| ops::rename(from, &old, to, &new, flags))
    })?;
    Ok(0)
}

/// link(2)
pub fn link(old: usize, new: usize) -> Result<usize> {
    linkat(AT_FDCWD, old, AT_FDCWD, new, 0)
}

/// linkat(2)
pub fn linkat(old_fd: i32, old: usize, new_fd: i32, new: usize, flags: u32) -> Result<usize> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & AT_SYMLINK_FOLLOW != 0;
    let empty = flags & AT_EMPTY_PATH != 0;
    let source = match target(old_fd, old, empty, follow)? {
        Target::Place(path) => path,
        Target::File(_) => return Err(Errno::EXDEV),
    };
    let creds = current().creds();
    // Hard links to files of others that one can't write are a way to keep them
    // (fs.protected_hardlinks).
    let access = source.inode()?.access();
    let harmless = access.mode & S_IFMT == S_IFREG
        && access.mode & S_ISUID == 0
        && perm::check_access(&*creds, access, perm::READ | perm::WRITE).is_ok();
    if !harmless && !perm::owner_or_capable(&*creds, access) {
        return Err(Errno::EPERM);
    }
    let name = path_arg(new)?;
    at(new_fd, &name, Resolve::empty(), |resolver| ops::link(resolver, &source, &name))?;
    Ok(0)
}

/// symlink(2)
pub fn symlink(text: usize, path: usize) -> Result<usize> {
    symlinkat(text, AT_FDCWD, path)
}

/// symlinkat(2)
pub fn symlinkat(text: usize, dirfd: i32, path: usize) -> Result<usize> {
    let (text, name) = (path_arg(text)?, path_arg(path)?);
    at(dirfd, &name, Resolve::empty(), |resolver| ops::symlink(resolver, &text, &name))?;
    Ok(0)
}

/// readlink(2)
pub fn readlink(path: usize, buf: usize, len: usize) -> Result<usize> {
    readlinkat(AT_FDCWD, path, buf, len)
}

/// readlinkat(2)
pub fn readlinkat(dirfd: i32, path: usize, buf: usize, len: usize) -> Result<usize> {
    if len == 0 || len as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let name = path_arg(path)?;
    let place = if name.is_empty() { place_of(dirfd)? } else { lookup(dirfd, &name, false)? };
    let inode = place.inode()?;
    if inode.access().mode & S_IFMT != S_IFLNK {
        // Of an empty name, that is the error of a descriptor that isn't a link's.
        return Err(if name.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
    }
    let text = inode.read_link()?;
    let n = text.len().min(len);
    put_user_slice(buf, &text[..n])?;
    Ok(n)
}

fn enter(path: Path) -> Result<Path> {
    if !path.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    perm::check(&*current().creds(), path.inode()?, perm::EXEC)?;
    Ok(path)
}

/// chdir(2)
pub fn chdir(path: usize) -> Result<usize> {
    let path = enter(lookup(AT_FDCWD, &path_arg(path)?, true)?)?;
    current().fs().set_cwd(path);
    Ok(0)
}

/// fchdir(2)
pub fn fchdir(fd: i32) -> Result<usize> {
    let file = current().files().get_any(fd)?;
    let path = enter(file.path.clone().ok_or(Errno::ENOTDIR)?)?;
    current().fs().set_cwd(path);
    Ok(0)
}

/// chroot(2)
pub fn chroot(path: usize) -> Result<usize> {
    let path = enter(lookup(AT_FDCWD, &path_arg(path)?, true)?)?;
    if !perm::Subject::capable(&*current().creds(), cap::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    current().fs().set_root(path);
    Ok(0)
}

/// getcwd(2). Returns the length with the terminator, as the system call does.
pub fn getcwd(buf: usize, len: usize) -> Result<usize> {
    let context = current().fs();
    let cwd = context.cwd();
    if cwd.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let mut name = walk::name_of(&cwd, &context.root());
    name.push(0);
    if name.len() > len {
        return Err(Errno::ERANGE);
    }
    put_user_slice(buf, &name)?;
    Ok(name.len())
}
