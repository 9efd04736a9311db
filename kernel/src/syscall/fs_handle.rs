//! name_to_handle_at(2), open_by_handle_at(2).

use super::fs_path::{file, place_of_file, target};
use crate::errno::{Errno, Result};
use crate::fs::inode::identity;
use crate::fs::pathonly::PathOnly;
use crate::fs::perm::cap;
use crate::fs::{Dentry, File, Path, dcache, ops};
use crate::io::{get_user, put_user};
use crate::task::current;
use alloc::sync::Arc;
use linux_raw_sys::general::*;

/// Longest handle that a caller may have room for (`MAX_HANDLE_SZ`).
const LONGEST: u32 = 128;
/// Length of ours in bytes: an inode number and two words to tell files of that number apart.
const LEN: u32 = 12;
/// `FILEID_INO32_GEN`, as tmpfs and ext4 have it on Linux, and `FILEID_INO64_GEN` for what can't be
/// opened by its handle.
const KIND: u32 = 1;
const NAME_ONLY: u32 = 0x81;

/// name_to_handle_at(2)
pub fn name_to_handle_at(
    dirfd: i32,
    path: usize,
    handle: usize,
    mount_id: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH | AT_HANDLE_FID) != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & AT_SYMLINK_FOLLOW != 0;
    let place = target(dirfd, path, flags & AT_EMPTY_PATH != 0, follow)?.path();
    let inode = place.inode()?;
    let (kind, words) = match place.mount.fs.handle(inode) {
        Some(words) => (KIND, words),
        None if flags & AT_HANDLE_FID != 0 => {
            let ino = inode.metadata().ino;
            (NAME_ONLY, [ino as u32, (ino >> 32) as u32, 0])
        }
        None => return Err(Errno::EOPNOTSUPP),
    };
    let room: u32 = get_user(handle)?;
    if room > LONGEST {
        return Err(Errno::EINVAL);
    }
    put_user(mount_id, &(place.mount.id as i32))?;
    put_user(handle, &[LEN, kind])?;
    if room < LEN {
        return Err(Errno::EOVERFLOW);
    }
    put_user(handle + 8, &words)?;
    Ok(0)
}

/// open_by_handle_at(2)
pub fn open_by_handle_at(fd: i32, handle: usize, flags: u32) -> Result<usize> {
    let task = current();
    let creds = task.creds();
    if !creds.capable(cap::DAC_READ_SEARCH) {
        return Err(Errno::EPERM);
    }
    let [len, kind] = get_user::<[u32; 2]>(handle)?;
    if len == 0 || len > LONGEST {
        return Err(Errno::EINVAL);
    }
    let mount = if fd == AT_FDCWD { task.fs().cwd() } else { place_of_file(&file(fd)?) }.mount;
    if len != LEN || kind != KIND {
        return Err(Errno::ESTALE);
    }
    let inode = mount.fs.by_handle(get_user(handle + 8)?)?;
    // By a name of it that is remembered; else it has none, as far as anybody can see.
    let wanted = identity(&inode);
    let named = dcache::find(&mount.root, &|found| identity(found) == wanted);
    let dentry = named.unwrap_or_else(|| Dentry::detached(None, b"/", inode.clone()));
    let path = Path { mount, dentry };
    let reserved = super::reserve_descriptor()?;
    let flags = flags & super::fs_open::KNOWN & !(O_CREAT | O_EXCL | O_TMPFILE & !O_DIRECTORY);
    let file = if flags & O_PATH != 0 {
        File::named(Arc::new(PathOnly(inode)), flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW), path)
    } else {
        ops::open_found(&*creds, path, flags, false)?
    };
    Ok(reserved.install(file, flags & O_CLOEXEC != 0) as usize)
}
