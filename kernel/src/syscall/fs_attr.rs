//! Attributes: chmod(2), chown(2), utimensat(2), umask(2), and extended ones (xattr(7)).

use super::fs_path::{lookup, path_arg, place_of_file, target};
use crate::errno::{Errno, Result};
use crate::fs::inode::{Inode, Time, XattrMode, mode::*};
use crate::fs::ops::{self, SetTime};
use crate::fs::perm::{self, cap};
use crate::fs::{FileType, Path};
use crate::io::{get_user, get_user_slice, get_user_str, put_user_slice};
use crate::task::current;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::*;

/// umask(2)
pub fn umask(mask: u32) -> Result<usize> {
    Ok(current().fs().set_umask(mask) as usize)
}

/// chmod(2)
pub fn chmod(path: usize, mode: u32) -> Result<usize> {
    fchmodat(AT_FDCWD, path, mode)
}

/// fchmod(2)
pub fn fchmod(fd: i32, mode: u32) -> Result<usize> {
    let path = place_of_file(&super::fs_path::file(fd)?);
    ops::chmod(&*current().creds(), &path, mode)?;
    Ok(0)
}

/// fchmodat(2)
pub fn fchmodat(dirfd: i32, path: usize, mode: u32) -> Result<usize> {
    fchmodat2(dirfd, path, mode, 0)
}

/// fchmodat2(2)
pub fn fchmodat2(dirfd: i32, path: usize, mode: u32, flags: u32) -> Result<usize> {
    let path = by_flags(dirfd, path, flags)?;
    if path.dentry.kind() == Some(FileType::Symlink) {
        return Err(Errno::EOPNOTSUPP);
    }
    ops::chmod(&*current().creds(), &path, mode)?;
    Ok(0)
}

fn by_flags(dirfd: i32, path: usize, flags: u32) -> Result<Path> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    Ok(target(dirfd, path, flags & AT_EMPTY_PATH != 0, follow)?.path())
}

fn change_owner(path: &Path, uid: u32, gid: u32) -> Result<usize> {
    let given = |id: u32| (id != u32::MAX).then_some(id);
    ops::chown(&*current().creds(), path, given(uid), given(gid))?;
    Ok(0)
}

/// chown(2)
pub fn chown(path: usize, uid: u32, gid: u32) -> Result<usize> {
    fchownat(AT_FDCWD, path, uid, gid, 0)
}

/// lchown(2)
pub fn lchown(path: usize, uid: u32, gid: u32) -> Result<usize> {
    fchownat(AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW)
}

/// fchown(2)
pub fn fchown(fd: i32, uid: u32, gid: u32) -> Result<usize> {
    change_owner(&place_of_file(&super::fs_path::file(fd)?), uid, gid)
}

/// fchownat(2)
pub fn fchownat(dirfd: i32, path: usize, uid: u32, gid: u32, flags: u32) -> Result<usize> {
    change_owner(&by_flags(dirfd, path, flags)?, uid, gid)
}

fn set_times(path: &Path, times: [SetTime; 2]) -> Result<usize> {
    ops::set_times(&*current().creds(), path, times[0], times[1])?;
    Ok(0)
}

/// utimensat(2)
pub fn utimensat(dirfd: i32, path: usize, times: usize, flags: u32) -> Result<usize> {
    let parse = |secs: i64, nanos: i64| match nanos as u32 {
        UTIME_NOW => Ok(SetTime::Now),
        UTIME_OMIT => Ok(SetTime::Omit),
        _ if !(0..1_000_000_000).contains(&nanos) => Err(Errno::EINVAL),
        nanos => Ok(SetTime::At(Time { secs, nanos })),
    };
    let times = match times {
        0 => [SetTime::Now; 2],
        addr => {
            let [a, an, m, mn] = get_user::<[i64; 4]>(addr)?;
            [parse(a, an)?, parse(m, mn)?]
        }
    };
    let path = if path == 0 && dirfd != AT_FDCWD {
        place_of_file(&super::fs_path::file(dirfd)?)
    } else {
        by_flags(dirfd, path, flags)?
    };
    set_times(&path, times)
}

/// futimesat(2)
pub fn futimesat(dirfd: i32, path: usize, times: usize) -> Result<usize> {
    let times = match times {
        0 => [SetTime::Now; 2],
        addr => {
            let [a, au, m, mu] = get_user::<[i64; 4]>(addr)?;
            let parse = |secs, micros: i64| match micros {
                0..1_000_000 => Ok(SetTime::At(Time { secs, nanos: micros as u32 * 1000 })),
                _ => Err(Errno::EINVAL),
            };
            [parse(a, au)?, parse(m, mu)?]
        }
    };
    set_times(&by_flags(dirfd, path, 0)?, times)
}

/// utimes(2)
pub fn utimes(path: usize, times: usize) -> Result<usize> {
    futimesat(AT_FDCWD, path, times)
}

/// utime(2)
pub fn utime(path: usize, times: usize) -> Result<usize> {
    let times = match times {
        0 => [SetTime::Now; 2],
        addr => {
            let [a, m] = get_user::<[i64; 2]>(addr)?;
            [a, m].map(|secs| SetTime::At(Time { secs, nanos: 0 }))
        }
    };
    set_times(&by_flags(AT_FDCWD, path, 0)?, times)
}

/// Longest attribute name and value (xattr(7)).
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 65_536;

/// A name, or an open file, for one of the xattr calls.
#[derive(Clone, Copy, Debug)]
pub enum XattrTarget {
    /// Follow a link at the end (`getxattr`).
    Path(usize),
    /// Don't (`lgetxattr`).
    Link(usize),
    /// An open file (`fgetxattr`).
    Fd(i32),
}

impl XattrTarget {
    fn place(self) -> Result<Path> {
        match self {
            XattrTarget::Path(addr) => lookup(AT_FDCWD, &path_arg(addr)?, true),
            XattrTarget::Link(addr) => lookup(AT_FDCWD, &path_arg(addr)?, false),
            XattrTarget::Fd(fd) => Ok(place_of_file(&super::fs_path::file(fd)?)),
        }
    }
}

fn xattr_name(addr: usize) -> Result<Vec<u8>> {
    let name = get_user_str(addr, XATTR_NAME_MAX + 1, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// Whether the caller may use an attribute, by its namespace.
fn check_xattr(inode: &Arc<dyn Inode>, name: &[u8], write: bool) -> Result<()> {
    let creds = current().creds();
    let access = inode.access();
    let kind = access.mode & S_IFMT;
    if name.starts_with(b"user.") {
        if kind != S_IFREG && kind != S_IFDIR {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA });
        }
        return perm::check_access(&*creds, access, if write { perm::WRITE } else { perm::READ });
    }
    if name.starts_with(b"trusted.") {
        let allowed = creds.capable(cap::SYS_ADMIN);
        let error = if write { Errno::EPERM } else { Errno::ENODATA };
        return if allowed { Ok(()) } else { Err(error) };
    }
    if name == b"security.capability" {
        let allowed = !write || creds.capable(cap::SETFCAP);
        return if allowed { Ok(()) } else { Err(Errno::EPERM) };
    }
    if name.starts_with(b"security.") {
        let allowed = !write || creds.capable(cap::SYS_ADMIN);
        return if allowed { Ok(()) } else { Err(Errno::EPERM) };
    }
    // POSIX ACLs would have to be enforced to be stored.
    Err(Errno::EOPNOTSUPP)
}

/// setxattr(2), lsetxattr(2), fsetxattr(2)
pub fn setxattr(
    target: XattrTarget,
    name: usize,
    value: usize,
    size: usize,
    flags: u32,
) -> Result<usize> {
    let mode = match flags {
        0 => XattrMode::Any,
        XATTR_CREATE => XattrMode::Create,
        XATTR_REPLACE => XattrMode::Replace,
        _ => return Err(Errno::EINVAL),
    };
    let name = xattr_name(name)?;
    if size > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut bytes = alloc::vec![0u8; size];
    get_user_slice(value, &mut bytes)?;
    let place = target.place()?;
    let inode = place.inode()?;
    check_xattr(inode, &name, true)?;
    place.mount.check_writable()?;
    inode.set_xattr(&name, &bytes, mode)?;
    Ok(0)
}

/// Copies a result out, or tells its size if there is no buffer.
fn put_sized(bytes: &[u8], buf: usize, size: usize) -> Result<usize> {
    if size != 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE);
        }
        put_user_slice(buf, bytes)?;
    }
    Ok(bytes.len())
}

/// getxattr(2), lgetxattr(2), fgetxattr(2)
pub fn getxattr(target: XattrTarget, name: usize, buf: usize, size: usize) -> Result<usize> {
    let name = xattr_name(name)?;
    let place = target.place()?;
    let inode = place.inode()?;
    check_xattr(inode, &name, false)?;
    let value = inode.xattr(&name)?.ok_or(Errno::ENODATA)?;
    put_sized(&value, buf, size)
}

/// listxattr(2), llistxattr(2), flistxattr(2)
pub fn listxattr(target: XattrTarget, buf: usize, size: usize) -> Result<usize> {
    let place = target.place()?;
    let mut names = place.inode()?.list_xattrs()?;
    if !current().creds().capable(cap::SYS_ADMIN) {
        names = names
            .split_inclusive(|&byte| byte == 0)
            .filter(|name| !name.starts_with(b"trusted."))
            .flatten()
            .copied()
            .collect();
    }
    put_sized(&names, buf, size)
}

/// removexattr(2), lremovexattr(2), fremovexattr(2)
pub fn removexattr(target: XattrTarget, name: usize) -> Result<usize> {
    let name = xattr_name(name)?;
    let place = target.place()?;
    let inode = place.inode()?;
    check_xattr(inode, &name, true)?;
    place.mount.check_writable()?;
    inode.remove_xattr(&name)?;
    Ok(0)
}
