//! mount(2), umount2(2), and the calls that do the same in steps: fsopen(2), fsconfig(2), fsmount(2),
//! fspick(2), open_tree(2), move_mount(2), mount_setattr(2).

use super::fs_path::{file, lookup, path_arg, target};
use super::install_file;
use crate::errno::{Errno, Result};
use crate::fs::mount::{self, Flags, Unmount};
use crate::fs::pathonly::PathOnly;
use crate::fs::perm::cap;
use crate::fs::setup::{Setup, Tree, Value};
use crate::fs::{File, Path};
use crate::io::{get_user_slice, get_user_str};
use crate::task::current;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::*;

/// `fsconfig_command` (linux/mount.h).
mod command {
    pub const SET_FLAG: u32 = 0;
    pub const SET_STRING: u32 = 1;
    pub const SET_BINARY: u32 = 2;
    pub const SET_PATH: u32 = 3;
    pub const SET_PATH_EMPTY: u32 = 4;
    pub const SET_FD: u32 = 5;
    pub const CREATE: u32 = 6;
    pub const RECONFIGURE: u32 = 7;
    pub const CREATE_EXCL: u32 = 8;
}

/// How mounts are shared; one of them at a time.
const SHARING: u32 = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;
/// `MOUNT_ATTR_*` that there are, but for those of users' namespaces.
const ATTRIBUTES: u32 = MOUNT_ATTR_RDONLY
    | MOUNT_ATTR_NOSUID
    | MOUNT_ATTR_NODEV
    | MOUNT_ATTR_NOEXEC
    | MOUNT_ATTR__ATIME
    | MOUNT_ATTR_NODIRATIME
    | MOUNT_ATTR_NOSYMFOLLOW;

fn check_allowed() -> Result<()> {
    if current().creds().capable(cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// A string of at most `max` bytes with its terminator; nothing for a null pointer.
fn text_arg(addr: usize, max: usize) -> Result<Option<Vec<u8>>> {
    if addr == 0 { Ok(None) } else { get_user_str(addr, max, Errno::EINVAL).map(Some) }
}

/// The place that a descriptor and a path name.
fn place(dirfd: i32, path: usize, empty: bool, follow: bool) -> Result<Path> {
    Ok(target(dirfd, path, empty, follow)?.path())
}

/// mount(2)
pub fn mount(source: usize, at: usize, kind: usize, flags: u32, data: usize) -> Result<usize> {
    let flags = if flags & MS_MGC_MSK == MS_MGC_VAL { flags & !MS_MGC_MSK } else { flags };
    let kind = text_arg(kind, 4096)?;
    let source = text_arg(source, 4096)?;
    let data = if data == 0 { Vec::new() } else { data_arg(data)? };
    let at = lookup(AT_FDCWD, &path_arg(at)?, true)?;
    if flags & MS_NOUSER != 0 {
        return Err(Errno::EINVAL);
    }
    check_allowed()?;
    let mut own = Flags::from_bits_truncate(flags) & Flags::OWN | Flags::RELATIME;
    if flags & MS_STRICTATIME != 0 {
        own -= Flags::NOATIME | Flags::RELATIME;
    } else if flags & MS_NOATIME != 0 {
        own -= Flags::RELATIME;
    }
    let named = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;
    if flags & MS_REMOUNT != 0 && flags & named == 0 {
        own = (own - Flags::TIMES) | at.mount.own_flags() & Flags::TIMES;
    }
    if flags & MS_REMOUNT != 0 {
        if !at.is_mount_root() || !mount::in_tree(&at.mount) {
            return Err(Errno::EINVAL);
        }
        if flags & MS_BIND == 0 {
            let setup = Setup::of(&at.mount);
            setup.set_flags(Flags::from_bits_truncate(flags));
            setup.set_all(&data)?;
            setup.change()?;
        }
        at.mount.set_flags(own)?;
        return Ok(0);
    }
    // Where from, of calls that say.
    let from = || {
        let name = source.as_ref().filter(|name| !name.is_empty()).ok_or(Errno::EINVAL)?;
        lookup(AT_FDCWD, name, true)
    };
    if flags & MS_BIND != 0 {
        let copy = mount::copy(&from()?, flags & MS_REC != 0)?;
        mount::attach(&copy, at).inspect_err(|_| mount::dissolve(&copy))?;
    } else if flags & SHARING != 0 {
        let kind = flags & !(MS_REC | MS_SILENT);
        if !kind.is_power_of_two() || kind & !SHARING != 0 || !at.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        mount::propagate(&at.mount, flags & MS_REC != 0, kind);
    } else if flags & MS_MOVE != 0 {
        mount::relocate(&from()?, at, false)?;
    } else {
        let setup = Setup::new(&kind.ok_or(Errno::EINVAL)?)?;
        setup.set_flags(Flags::from_bits_truncate(flags));
        if let Some(source) = source {
            setup.set("source", Value::Text(&String::from_utf8_lossy(&source)))?;
        }
        setup.set_all(&data)?;
        setup.make()?;
        mount::attach(&setup.mount(own)?, at)?;
    }
    Ok(0)
}

/// mount(2)'s data: text of at most a page, cut there.
fn data_arg(addr: usize) -> Result<Vec<u8>> {
    get_user_str(addr, crate::arch::PAGE_SIZE, Errno::EINVAL)
}

/// umount2(2)
pub fn umount2(at: usize, flags: u32) -> Result<usize> {
    const KNOWN: u32 = MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let at = lookup(AT_FDCWD, &path_arg(at)?, flags & UMOUNT_NOFOLLOW == 0)?;
    check_allowed()?;
    let how = match flags & (MNT_FORCE | MNT_DETACH | MNT_EXPIRE) {
        MNT_EXPIRE => Unmount::Expired,
        both if both & MNT_EXPIRE != 0 => return Err(Errno::EINVAL),
        detach if detach & MNT_DETACH != 0 => Unmount::Detach,
        _ => Unmount::Idle,
    };
    mount::unmount(&at, how)?;
    Ok(0)
}

/// pivot_root(2)
pub fn pivot_root(new: usize, old: usize) -> Result<usize> {
    check_allowed()?;
    let directory = |name: usize| {
        let path = lookup(AT_FDCWD, &path_arg(name)?, true)?;
        if path.dentry.is_dir() { Ok(path) } else { Err(Errno::ENOTDIR) }
    };
    mount::pivot(&current().fs(), &directory(new)?, directory(old)?)?;
    Ok(0)
}

/// fsopen(2)
pub fn fsopen(kind: usize, flags: u32) -> Result<usize> {
    check_allowed()?;
    if flags & !FSOPEN_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let setup = Setup::new(&get_user_str(kind, crate::arch::PAGE_SIZE, Errno::EINVAL)?)?;
    install_file(File::anonymous(Arc::new(setup), O_RDWR), flags & FSOPEN_CLOEXEC != 0)
}

/// fspick(2)
pub fn fspick(dirfd: i32, path: usize, flags: u32) -> Result<usize> {
    const KNOWN: u32 =
        FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW | FSPICK_NO_AUTOMOUNT | FSPICK_EMPTY_PATH;
    check_allowed()?;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & FSPICK_SYMLINK_NOFOLLOW == 0;
    let at = place(dirfd, path, flags & FSPICK_EMPTY_PATH != 0, follow)?;
    if !at.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let setup = Arc::new(Setup::of(&at.mount));
    install_file(File::anonymous(setup, O_RDWR), flags & FSPICK_CLOEXEC != 0)
}

/// fsconfig(2)
pub fn fsconfig(fd: i32, what: u32, key: usize, value: usize, aux: i32) -> Result<usize> {
    let good = match what {
        _ if fd < 0 => false,
        command::SET_FLAG => key != 0 && value == 0 && aux == 0,
        command::SET_STRING => key != 0 && value != 0 && aux == 0,
        command::SET_BINARY => key != 0 && value != 0 && (1..=1 << 20).contains(&aux),
        command::SET_PATH | command::SET_PATH_EMPTY => {
            key != 0 && value != 0 && (aux == AT_FDCWD || aux >= 0)
        }
        command::SET_FD => key != 0 && value == 0 && aux >= 0,
        command::CREATE | command::CREATE_EXCL | command::RECONFIGURE => {
            key == 0 && value == 0 && aux == 0
        }
        _ => return Err(Errno::EOPNOTSUPP),
    };
    if !good {
        return Err(Errno::EINVAL);
    }
    let file = file(fd)?;
    let setup = file.downcast::<Setup>().ok_or(Errno::EINVAL)?;
    const LONGEST: usize = 256;
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| Errno::EINVAL);
    let key = match text_arg(key, LONGEST)? {
        Some(key) => utf8(key)?,
        None => {
            check_allowed()?;
            if what == command::RECONFIGURE {
                setup.change()?
            } else {
                setup.make()?
            }
            return Ok(0);
        }
    };
    match what {
        command::SET_FLAG => setup.set(&key, Value::None)?,
        command::SET_STRING => {
            let text = utf8(get_user_str(value, LONGEST, Errno::EINVAL)?)?;
            setup.set(&key, Value::Text(&text))?;
        }
        command::SET_BINARY => {
            let mut bytes = alloc::vec![0u8; aux as usize];
            get_user_slice(value, &mut bytes)?;
            setup.set(&key, Value::Other)?;
        }
        command::SET_FD => {
            current().with_files(|files| files.get_any(aux))?;
            setup.set(&key, Value::Other)?;
        }
        _ => {
            let name = path_arg(value)?;
            if name.is_empty() && what == command::SET_PATH {
                return Err(Errno::ENOENT);
            }
            setup.set(&key, Value::Other)?;
        }
    }
    Ok(0)
}

/// A mount's flags from `MOUNT_ATTR_*`. EINVAL for unknown ones.
fn flags_of(attributes: u32) -> Result<Flags> {
    if attributes & !ATTRIBUTES != 0 {
        return Err(Errno::EINVAL);
    }
    let mut flags = match attributes & MOUNT_ATTR__ATIME {
        MOUNT_ATTR_RELATIME => Flags::RELATIME,
        MOUNT_ATTR_NOATIME => Flags::NOATIME,
        MOUNT_ATTR_STRICTATIME => Flags::empty(),
        _ => return Err(Errno::EINVAL),
    };
    for (attribute, flag) in [
        (MOUNT_ATTR_RDONLY, Flags::RDONLY),
        (MOUNT_ATTR_NOSUID, Flags::NOSUID),
        (MOUNT_ATTR_NODEV, Flags::NODEV),
        (MOUNT_ATTR_NOEXEC, Flags::NOEXEC),
        (MOUNT_ATTR_NODIRATIME, Flags::NODIRATIME),
        (MOUNT_ATTR_NOSYMFOLLOW, Flags::NOSYMFOLLOW),
    ] {
        flags.set(flag, attributes & attribute != 0);
    }
    Ok(flags)
}

/// fsmount(2)
pub fn fsmount(fd: i32, flags: u32, attributes: u32) -> Result<usize> {
    check_allowed()?;
    if flags & !FSMOUNT_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let own = flags_of(attributes)?;
    let file = file(fd)?;
    let setup = file.downcast::<Setup>().ok_or(Errno::EINVAL)?;
    install_file(Tree::open(setup.mount(own)?), flags & FSMOUNT_CLOEXEC != 0)
}

/// open_tree(2)
pub fn open_tree(dirfd: i32, path: usize, flags: u32) -> Result<usize> {
    const KNOWN: u32 = AT_EMPTY_PATH
        | AT_NO_AUTOMOUNT
        | AT_RECURSIVE
        | AT_SYMLINK_NOFOLLOW
        | OPEN_TREE_CLONE
        | OPEN_TREE_CLOEXEC;
    let clone = flags & OPEN_TREE_CLONE != 0;
    if flags & !KNOWN != 0 || flags & AT_RECURSIVE != 0 && !clone {
        return Err(Errno::EINVAL);
    }
    if clone {
        check_allowed()?;
    }
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    let at = place(dirfd, path, flags & AT_EMPTY_PATH != 0, follow)?;
    let file = if clone {
        Tree::open(mount::copy(&at, flags & AT_RECURSIVE != 0)?)
    } else {
        let inode = at.inode()?.clone();
        File::named(Arc::new(PathOnly(inode)), O_PATH, at)
    };
    install_file(file, flags & OPEN_TREE_CLOEXEC != 0)
}

/// move_mount(2)
pub fn move_mount(from_fd: i32, from: usize, to_fd: i32, to: usize, flags: u32) -> Result<usize> {
    check_allowed()?;
    let both = MOVE_MOUNT_BENEATH | MOVE_MOUNT_SET_GROUP;
    if flags & !MOVE_MOUNT__MASK != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let has = |flag: u32| flags & flag != 0;
    let from = place(from_fd, from, has(MOVE_MOUNT_F_EMPTY_PATH), has(MOVE_MOUNT_F_SYMLINKS))?;
    let to = place(to_fd, to, has(MOVE_MOUNT_T_EMPTY_PATH), has(MOVE_MOUNT_T_SYMLINKS))?;
    if has(MOVE_MOUNT_SET_GROUP) {
        mount::join_group(&from, &to)?;
    } else {
        mount::relocate(&from, to, has(MOVE_MOUNT_BENEATH))?;
    }
    Ok(0)
}

/// mount_setattr(2)
pub fn mount_setattr(
    dirfd: i32,
    path: usize,
    flags: u32,
    addr: usize,
    size: usize,
) -> Result<usize> {
    const KNOWN: u32 = AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    // struct mount_attr: what to set, what to clear, propagation, namespace.
    const FIELDS: usize = 4;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if size > crate::arch::PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if size < FIELDS * 8 {
        return Err(Errno::EINVAL);
    }
    check_allowed()?;
    let mut bytes = alloc::vec![0u8; size];
    get_user_slice(addr, &mut bytes)?;
    let (fields, rest) = bytes.split_at(FIELDS * 8);
    if rest.iter().any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    // Chunks have exactly eight bytes, so the default is never used.
    let mut words = fields
        .chunks_exact(8)
        .map(|word| u32::try_from(u64::from_ne_bytes(word.try_into().unwrap_or_default())));
    let mut next = || words.next().and_then(|word| word.ok()).ok_or(Errno::EINVAL);
    let (set, clear, sharing) = (next()?, next()?, next()?);
    if set | clear | sharing == 0 {
        return Ok(0);
    }
    let times = clear & MOUNT_ATTR__ATIME;
    if sharing & !SHARING != 0
        || sharing != 0 && !sharing.is_power_of_two()
        || (set | clear) & !ATTRIBUTES != 0
        // They are numbers, not bits: one takes the place of another.
        || times != 0 && times != MOUNT_ATTR__ATIME
        || times == 0 && set & MOUNT_ATTR__ATIME != 0
    {
        return Err(Errno::EINVAL);
    }
    let to_set = flags_of(set)?;
    let (to_set, to_clear) = if times == 0 {
        (to_set - Flags::RELATIME, flags_of(clear)? - Flags::RELATIME)
    } else {
        let atime = Flags::NOATIME | Flags::RELATIME;
        (to_set, flags_of(clear & !MOUNT_ATTR__ATIME)? | atime)
    };
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    let at = place(dirfd, path, flags & AT_EMPTY_PATH != 0, follow)?;
    if !at.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    mount::change_all(&at.mount, flags & AT_RECURSIVE != 0, to_clear, to_set)?;
    if sharing != 0 {
        mount::propagate(&at.mount, flags & AT_RECURSIVE != 0, sharing);
    }
    Ok(0)
}
