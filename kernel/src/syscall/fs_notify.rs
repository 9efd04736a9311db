//! inotify(7).

use super::fs_path::{lookup, path_arg};
use crate::errno::{Errno, Result};
use crate::event::inotify::Inotify;
use crate::fs::{File, perm};
use crate::task::current;
use linux_raw_sys::general::*;

/// inotify_init1(2), inotify_init(2)
pub fn inotify_init1(flags: u32) -> Result<usize> {
    if flags & !(IN_NONBLOCK | IN_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let inotify = Inotify::new(current().creds().uid)?;
    let file = File::anonymous(inotify, O_RDONLY | flags & IN_NONBLOCK);
    super::install_file(file, flags & IN_CLOEXEC != 0)
}

/// inotify_add_watch(2)
pub fn inotify_add_watch(fd: i32, path: usize, mask: u32) -> Result<usize> {
    if mask & IN_ALL_EVENTS == 0
        || mask & (IN_MASK_ADD | IN_MASK_CREATE) == IN_MASK_ADD | IN_MASK_CREATE
    {
        return Err(Errno::EINVAL);
    }
    let file = super::fs_path::file(fd)?;
    let inotify = file.downcast::<Inotify>().ok_or(Errno::EINVAL)?;
    let place = lookup(AT_FDCWD, &path_arg(path)?, mask & IN_DONT_FOLLOW == 0)?;
    if mask & IN_ONLYDIR != 0 && !place.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let inode = place.inode()?;
    perm::check(&*current().creds(), inode, perm::READ)?;
    Ok(inotify.add(inode, mask)? as usize)
}

/// inotify_rm_watch(2)
pub fn inotify_rm_watch(fd: i32, watch: i32) -> Result<usize> {
    let file = super::fs_path::file(fd)?;
    file.downcast::<Inotify>().ok_or(Errno::EINVAL)?.remove(watch)?;
    Ok(0)
}
