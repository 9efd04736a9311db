//! mount(2), umount2(2).

use super::fs_path::{lookup, path_arg};
use crate::errno::{Errno, Result};
use crate::fs::memfs::{MemFs, Options};
use crate::fs::mount::{self, Flags};
use crate::fs::perm::cap;
use crate::fs::{FileSystem, Path};
use crate::io::get_user_str;
use crate::task::current;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::*;

fn check_allowed() -> Result<()> {
    if current().creds().capable(cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

fn text_arg(addr: usize) -> Result<Vec<u8>> {
    if addr == 0 { Ok(Vec::new()) } else { get_user_str(addr, 4096, Errno::EINVAL) }
}

/// mount(2): tmpfs, proc, sysfs and bind mounts, and changes of their flags.
pub fn mount(source: usize, target: usize, kind: usize, flags: u32, data: usize) -> Result<usize> {
    check_allowed()?;
    let target = lookup(AT_FDCWD, &path_arg(target)?, true)?;
    let kept = Flags::from_bits_truncate(flags);
    if flags & MS_REMOUNT != 0 {
        if !target.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        mount::remount(&target.mount, kept);
        return Ok(0);
    }
    if flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE) != 0 {
        // There is one namespace, so nothing propagates anyway.
        return if target.is_mount_root() { Ok(0) } else { Err(Errno::EINVAL) };
    }
    if flags & MS_BIND != 0 {
        let from = lookup(AT_FDCWD, &path_arg(source)?, true)?;
        let Path { mount: origin, dentry } = from;
        let flags = origin.flags();
        mount::mount_at(origin.fs.clone(), dentry, target, &origin.source, flags)?;
        return Ok(0);
    }
    if flags & MS_MOVE != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = text_arg(kind)?;
    let source = text_arg(source)?;
    let fs: Arc<dyn FileSystem> = match kind.as_slice() {
        b"tmpfs" | b"ramfs" => MemFs::tmpfs(&Options::parse(&text_arg(data)?)?),
        b"proc" => crate::fs::procfs::filesystem(),
        b"devpts" => MemFs::devpts(),
        b"sysfs" => crate::fs::sysfs::filesystem(),
        _ => return Err(Errno::ENODEV),
    };
    let source = alloc::string::String::from_utf8_lossy(&source).into_owned();
    let root = crate::fs::Dentry::root(fs.root());
    mount::mount_at(fs, root, target, &source, kept)?;
    Ok(0)
}

/// umount2(2)
pub fn umount2(target: usize, flags: u32) -> Result<usize> {
    const KNOWN: u32 = MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    check_allowed()?;
    let name = path_arg(target)?;
    let place = lookup(AT_FDCWD, &name, flags & UMOUNT_NOFOLLOW == 0)?;
    mount::unmount(&place, flags & MNT_DETACH != 0)?;
    Ok(0)
}
