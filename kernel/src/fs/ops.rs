//! Operations on named files: what the system calls of that name do, for any caller.

use super::dcache::Dentry;
use super::inode::{
    Change, FileType, Inode, LINK_MAX, NewNode, Opened, Rename, Time, identity, mode::*,
};
use super::mount::{Flags as MountFlags, Path};
use super::perm::{self, EXEC, READ, Subject, WRITE, cap};
use super::walk::{Found, Last, Resolver};
use super::{File, leases, notify, pathonly};
use crate::errno::{Errno, Result};
use crate::sync::{Mutex, MutexGuard};
use crate::witness;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_format::status::Use;
use linux_raw_sys::general::*;

/// Flags that open(2) acts on once and that `F_GETFL` doesn't show.
const ONCE: u32 = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;
/// The bit that tells `O_TMPFILE` from `O_DIRECTORY`.
const TMPFILE_BIT: u32 = O_TMPFILE & !O_DIRECTORY;
/// `O_LARGEFILE`, which every descriptor of a 64-bit process has.
const LARGEFILE: u32 = 0o100000;

/// Renames between directories exclude each other, so that two can't make a loop of the tree.
static RENAMES: Mutex<()> = Mutex::new(());

/// open(2): `mode` has the umask not yet applied.
pub fn open(
    resolver: &Resolver<'_>,
    name: &[u8],
    flags: u32,
    mode: u32,
    umask: u32,
) -> Result<Arc<File>> {
    if flags & O_PATH != 0 {
        return open_path(resolver, name, flags);
    }
    if flags & TMPFILE_BIT != 0 {
        return open_unnamed(resolver, name, flags, (mode, umask));
    }
    let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    let mut found = resolver.find(name, flags & O_NOFOLLOW == 0 && !exclusive)?;
    let mut created = false;
    if flags & O_CREAT != 0 {
        if found.slash && !found.path.dentry.is_dir() {
            return Err(Errno::EISDIR);
        }
        if found.path.dentry.is_negative() {
            created = create_for_open(resolver.who, &mut found, mode, umask)?;
            if !created && found.path.dentry.kind() == Some(FileType::Symlink) && !exclusive {
                // A link appeared meanwhile.
                found = resolver.find(name, flags & O_NOFOLLOW == 0)?;
            }
        }
        if exclusive && !created {
            return Err(Errno::EEXIST);
        }
    }
    open_found(resolver.who, found.path, flags, created)
}

fn create_for_open(who: &dyn Subject, found: &mut Found, mode: u32, umask: u32) -> Result<bool> {
    let (dir, name) = place(&found.path.dentry);
    let _guard = dir.lock_dir();
    let child = dir.child_locked(&name)?;
    if !child.is_negative() {
        found.path.dentry = child;
        return Ok(false);
    }
    let node = new_node(who, &found.path, &dir, (S_IFREG | mode & 0o7777, umask), 0)?;
    let inode = dir.inode()?.create(&name, &node)?;
    notify::entry(dir.inode()?, IN_CREATE, &name, &inode);
    found.path.dentry = dir.remember(&name, Some(inode));
    Ok(true)
}

/// Opens a file that a resolution found. `created`: by this very call, so permissions don't matter.
pub fn open_found(who: &dyn Subject, path: Path, flags: u32, created: bool) -> Result<Arc<File>> {
    let kind = path.dentry.kind().ok_or(Errno::ENOENT)?;
    let inode = path.inode()?;
    let writes = flags & O_ACCMODE != O_RDONLY || flags & O_TRUNC != 0;
    match kind {
        FileType::Symlink => return Err(Errno::ELOOP),
        FileType::Socket => return Err(Errno::ENXIO),
        FileType::Directory if writes || flags & O_CREAT != 0 => return Err(Errno::EISDIR),
        FileType::Directory if flags & O_DIRECT != 0 => return Err(Errno::EINVAL),
        FileType::CharDevice | FileType::BlockDevice
            if path.mount.flags().contains(MountFlags::NODEV) =>
        {
            return Err(Errno::EACCES);
        }
        _ => {}
    }
    if flags & O_DIRECTORY != 0 && kind != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    if !created {
        let access = inode.access();
        let want = match flags & O_ACCMODE {
            O_RDONLY => READ,
            O_WRONLY => WRITE,
            _ => READ | WRITE,
        };
        let want = if flags & O_TRUNC != 0 { want | WRITE } else { want };
        perm::check_access(who, access, want)?;
        if want & WRITE != 0 && kind == FileType::Regular {
            path.mount.check_writable()?;
        }
        if want & WRITE != 0 {
            check_not_running(inode, access.mode)?;
        }
        if flags & O_NOATIME != 0 && !perm::owner_or_capable(who, access) {
            return Err(Errno::EPERM);
        }
    }
    if kind == FileType::Regular {
        leases::breaking(inode, None, flags & O_ACCMODE != O_RDONLY, flags & O_NONBLOCK == 0)?;
    }
    let opened = inode.clone().open(flags, &path)?;
    if witness::on() {
        witness::file(&path, Use::Opened);
    }
    if flags & O_TRUNC != 0 && kind == FileType::Regular && !created {
        inode.truncate(0)?;
        notify::named(&path.dentry, IN_MODIFY);
    }
    notify::named(&path.dentry, IN_OPEN);
    Ok(match opened {
        Opened::Ops(ops) => {
            let file = File::named(ops, flags & !ONCE | LARGEFILE, path);
            if let Some(path) = &file.path
                && file.writable()
                && kind == FileType::Regular
            {
                // Again, now that it is counted: it may have become read-only meanwhile.
                path.mount.check_writable()?;
            }
            file
        }
        Opened::File(file) => file,
    })
}

/// A program that runs can't be written to: ETXTBSY. Only files that could be run are looked for.
fn check_not_running(inode: &Arc<dyn Inode>, mode: u32) -> Result<()> {
    let program = mode & S_IFMT == S_IFREG && mode & 0o111 != 0;
    if program && super::hooks::is_running(inode) { Err(Errno::ETXTBSY) } else { Ok(()) }
}

fn open_path(resolver: &Resolver<'_>, name: &[u8], flags: u32) -> Result<Arc<File>> {
    let path = resolver.lookup(name, flags & O_NOFOLLOW == 0)?;
    if flags & O_DIRECTORY != 0 && !path.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let ops = Arc::new(pathonly::PathOnly(path.inode()?.clone()));
    Ok(File::named(ops, flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW), path))
}

fn open_unnamed(
    resolver: &Resolver<'_>,
    name: &[u8],
    flags: u32,
    (mode, umask): (u32, u32),
) -> Result<Arc<File>> {
    if flags & O_TMPFILE != O_TMPFILE || flags & O_ACCMODE == O_RDONLY {
        return Err(Errno::EINVAL);
    }
    let dir = resolver.lookup(name, true)?;
    if !dir.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let mode = (S_IFREG | mode & 0o7777, umask);
    let node = new_node(resolver.who, &dir, &dir.dentry, mode, 0)?;
    let inode = dir.inode()?.create_unnamed(&node)?;
    let label = alloc::format!("#{}", inode.metadata().ino);
    let dentry = Dentry::detached(Some(dir.dentry.clone()), label.as_bytes(), inode);
    let path = Path { mount: dir.mount, dentry };
    open_found(resolver.who, path, flags & !O_DIRECTORY & !TMPFILE_BIT, true)
}

/// Directory and name of an entry.
fn place(dentry: &Arc<Dentry>) -> (Arc<Dentry>, Arc<[u8]>) {
    (dentry.parent(), dentry.name())
}

/// Owner and mode of a new file in `dir`, after checking that `who` may make it there. Whether the
/// set-group-ID bit is for programs is told by the mode before the umask is applied.
fn new_node(
    who: &dyn Subject,
    path: &Path,
    dir: &Arc<Dentry>,
    (mode, umask): (u32, u32),
    rdev: u64,
) -> Result<NewNode> {
    path.mount.check_writable()?;
    let access = dir.inode()?.access();
    perm::check_access(who, access, WRITE | EXEC)?;
    let mut node = NewNode { mode: mode & !umask, uid: who.fsuid(), gid: who.fsgid(), rdev };
    if access.mode & S_ISGID != 0 {
        node.gid = access.gid;
        if mode & S_IFMT == S_IFDIR {
            node.mode |= S_ISGID;
        } else if mode & (S_ISGID | 0o010) == S_ISGID | 0o010
            && !perm::in_group(who, access.gid)
            && !who.capable(cap::FSETID)
        {
            node.mode &= !S_ISGID;
        }
    }
    Ok(node)
}

/// The place for a new name: EEXIST if it exists.
fn find_new(resolver: &Resolver<'_>, name: &[u8], dir: bool) -> Result<Found> {
    let found = resolver.find(name, false)?;
    if !found.path.dentry.is_negative() {
        return Err(Errno::EEXIST);
    }
    if found.slash && !dir {
        return Err(Errno::ENOENT);
    }
    Ok(found)
}

fn make(
    resolver: &Resolver<'_>,
    found: Found,
    mode: (u32, u32),
    rdev: u64,
    make: impl FnOnce(&Arc<dyn Inode>, &[u8], &NewNode) -> Result<Arc<dyn Inode>>,
) -> Result<Path> {
    let (dir, name) = place(&found.path.dentry);
    let _guard = dir.lock_dir();
    if !dir.child_locked(&name)?.is_negative() {
        return Err(Errno::EEXIST);
    }
    let node = new_node(resolver.who, &found.path, &dir, mode, rdev)?;
    let inode = make(dir.inode()?, &name, &node)?;
    notify::entry(dir.inode()?, IN_CREATE, &name, &inode);
    let dentry = dir.remember(&name, Some(inode));
    Ok(Path { mount: found.path.mount, dentry })
}

/// mkdir(2); `mode` has the umask applied.
pub fn mkdir(resolver: &Resolver<'_>, name: &[u8], mode: u32) -> Result<Path> {
    let found = find_new(resolver, name, true)?;
    let mode = S_IFDIR | mode & 0o1777;
    make(resolver, found, (mode, 0), 0, |dir, name, node| dir.create(name, node))
}

/// mknod(2). Sockets bind to names by it, too.
pub fn mknod(
    resolver: &Resolver<'_>,
    name: &[u8],
    mode: u32,
    umask: u32,
    rdev: u64,
) -> Result<Path> {
    let kind = FileType::of_mode(mode);
    match (mode & S_IFMT, kind) {
        (S_IFDIR, _) => return Err(Errno::EPERM),
        (S_IFLNK, _) => return Err(Errno::EINVAL),
        (0 | S_IFREG | S_IFIFO | S_IFSOCK, _) => {}
        (_, FileType::CharDevice | FileType::BlockDevice) => {
            if !resolver.who.capable(cap::MKNOD) {
                return Err(Errno::EPERM);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    let found = find_new(resolver, name, false)?;
    let mode = kind.mode() | mode & 0o7777;
    make(resolver, found, (mode, umask), rdev, |dir, name, node| dir.create(name, node))
}

/// symlink(2).
pub fn symlink(resolver: &Resolver<'_>, target: &[u8], name: &[u8]) -> Result<Path> {
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let found = find_new(resolver, name, false)?;
    make(resolver, found, (S_IFLNK | 0o777, 0), 0, |dir, name, node| {
        dir.symlink(name, target, node)
    })
}

/// link(2): gives the file at `old` the name `name`.
pub fn link(resolver: &Resolver<'_>, old: &Path, name: &[u8]) -> Result<()> {
    let inode = old.inode()?;
    let found = find_new(resolver, name, false)?;
    if !Arc::ptr_eq(&found.path.mount, &old.mount) {
        return Err(Errno::EXDEV);
    }
    if old.dentry.is_dir() {
        return Err(Errno::EPERM);
    }
    let meta = inode.metadata();
    if meta.nlink >= LINK_MAX {
        return Err(Errno::EMLINK);
    }
    let (dir, name) = place(&found.path.dentry);
    let _guard = dir.lock_dir();
    if !dir.child_locked(&name)?.is_negative() {
        return Err(Errno::EEXIST);
    }
    new_node(resolver.who, &found.path, &dir, (meta.mode, 0), 0)?;
    dir.inode()?.link(&name, inode)?;
    notify::entry(dir.inode()?, IN_CREATE, &name, inode);
    dir.remember(&name, Some(inode.clone()));
    Ok(())
}

/// unlink(2).
pub fn unlink(resolver: &Resolver<'_>, name: &[u8]) -> Result<()> {
    remove(resolver, name, false)
}

/// rmdir(2).
pub fn rmdir(resolver: &Resolver<'_>, name: &[u8]) -> Result<()> {
    remove(resolver, name, true)
}

fn remove(resolver: &Resolver<'_>, name: &[u8], directory: bool) -> Result<()> {
    let found = resolver.find(name, false)?;
    match found.last {
        Last::Name => {}
        _ if !directory => return Err(Errno::EISDIR),
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
    }
    // A mount point can't go: the resolution crossed into what is mounted.
    if found.path.is_mount_root() {
        return Err(Errno::EBUSY);
    }
    let (dir, name) = place(&found.path.dentry);
    let victim = {
        let _guard = dir.lock_dir();
        let child = dir.child_locked(&name)?;
        let inode = child.inode()?;
        found.path.mount.check_writable()?;
        let dir_inode = dir.inode()?;
        perm::check_delete(resolver.who, dir_inode, inode)?;
        if directory {
            if !child.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            if child.is_mounted() {
                return Err(Errno::EBUSY);
            }
            dir_inode.rmdir(&name, inode)?;
        } else {
            if child.is_dir() {
                return Err(Errno::EISDIR);
            }
            if found.slash {
                return Err(Errno::ENOTDIR);
            }
            dir_inode.unlink(&name, inode)?;
        }
        // Who hears of it won't find the name any more.
        dir.forget(&name);
        notify::unlinked(dir_inode, &name, inode);
        child
    };
    // Its pages are freed here, without the directory's lock.
    drop(victim);
    Ok(())
}

/// Locks two directories, which may be one.
fn lock_two<'a>(
    one: &'a Arc<Dentry>,
    two: &'a Arc<Dentry>,
) -> (MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>) {
    if Arc::ptr_eq(one, two) {
        return (one.lock_dir(), None);
    }
    let (first, second) = if Arc::as_ptr(one) < Arc::as_ptr(two) { (one, two) } else { (two, one) };
    let guard = first.lock_dir();
    (guard, Some(second.lock_dir()))
}

/// renameat2(2). The two names are resolved by their own resolvers; permissions are the first
/// one's.
pub fn rename(
    from: &Resolver<'_>,
    old: &[u8],
    to: &Resolver<'_>,
    new: &[u8],
    flags: u32,
) -> Result<()> {
    if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE) != 0
        || flags == RENAME_NOREPLACE | RENAME_EXCHANGE
    {
        return Err(Errno::EINVAL);
    }
    let exchange = flags & RENAME_EXCHANGE != 0;
    let source = from.find(old, false)?;
    let target = to.find(new, false)?;
    if source.last != Last::Name {
        return Err(Errno::EBUSY);
    }
    if target.last != Last::Name {
        return Err(if flags & RENAME_NOREPLACE != 0 { Errno::EEXIST } else { Errno::EBUSY });
    }
    if !Arc::ptr_eq(&source.path.mount, &target.path.mount) {
        let busy = source.path.is_mount_root() || target.path.is_mount_root();
        return Err(if busy { Errno::EBUSY } else { Errno::EXDEV });
    }
    if source.path.is_mount_root() || target.path.is_mount_root() {
        return Err(Errno::EBUSY);
    }
    source.path.mount.check_writable()?;
    let (old_dir, old_name) = place(&source.path.dentry);
    let (new_dir, new_name) = place(&target.path.dentry);
    let across = !Arc::ptr_eq(&old_dir, &new_dir);
    let _renames = if across { Some(RENAMES.lock()) } else { None };
    let dirs = lock_two(&old_dir, &new_dir);
    let one = old_dir.child_locked(&old_name)?;
    let two = new_dir.child_locked(&new_name)?;
    let inode = one.inode()?;
    if flags & RENAME_NOREPLACE != 0 && !two.is_negative() {
        return Err(Errno::EEXIST);
    }
    if exchange {
        two.inode()?;
    }
    if source.slash && !one.is_dir() || target.slash && !one.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if across {
        // A directory can't become its own descendant, nor replace an ancestor of what it becomes.
        if one.is_ancestor_of(&new_dir) {
            return Err(Errno::EINVAL);
        }
        if two.is_ancestor_of(&old_dir) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
    }
    if two.inode().is_ok_and(|replaced| identity(replaced) == identity(inode)) {
        // Nothing to do, whoever asks.
        return Ok(());
    }
    let (old_inode, new_inode) = (old_dir.inode()?, new_dir.inode()?);
    perm::check_delete(from.who, old_inode, inode)?;
    match two.inode() {
        Ok(replaced) => {
            perm::check_delete(from.who, new_inode, replaced)?;
            if !exchange {
                match (one.is_dir(), two.is_dir()) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => {}
                }
            }
            if two.is_mounted() {
                return Err(Errno::EBUSY);
            }
        }
        Err(_) => perm::check(from.who, new_inode, WRITE | EXEC)?,
    }
    // A directory that moves gets another `..`.
    for (moved, needed) in [(&one, across), (&two, across && exchange)] {
        if needed && moved.is_dir() {
            perm::check(from.who, moved.inode()?, WRITE)?;
        }
    }
    if one.is_mounted() {
        return Err(Errno::EBUSY);
    }
    old_inode.rename(&Rename {
        old_name: &old_name,
        inode,
        new_dir: new_inode,
        new_name: &new_name,
        target: two.inode().ok(),
        exchange,
    })?;
    notify::moved((old_inode, &old_name), (new_inode, &new_name), inode);
    if exchange {
        old_dir.exchanged(&old_name, &new_dir, &new_name);
    } else {
        old_dir.moved(&old_name, &new_dir, &new_name);
    }
    drop(dirs);
    Ok(())
}

/// chmod(2).
pub fn chmod(who: &dyn Subject, path: &Path, mode: u32) -> Result<()> {
    path.mount.check_writable()?;
    let inode = path.inode()?;
    let access = inode.access();
    if !perm::owner_or_capable(who, access) {
        return Err(Errno::EPERM);
    }
    let mut mode = mode & 0o7777;
    if !perm::in_group(who, access.gid) && !who.capable(cap::FSETID) {
        mode &= !S_ISGID;
    }
    inode.change(&Change { mode: Some(mode), ..Change::default() })?;
    notify::named(&path.dentry, IN_ATTRIB);
    Ok(())
}

/// chown(2); `None` leaves owner or group as it is.
pub fn chown(who: &dyn Subject, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    path.mount.check_writable()?;
    let inode = path.inode()?;
    let access = inode.access();
    if !who.capable(cap::CHOWN) {
        let owner = who.fsuid() == access.uid;
        if uid.is_some_and(|uid| !owner || uid != access.uid)
            || gid.is_some_and(|gid| !owner || gid != access.gid && !perm::in_group(who, gid))
        {
            return Err(Errno::EPERM);
        }
    }
    // Programs that gain privileges lose that when they change hands.
    let mode = (access.mode & S_IFMT == S_IFREG).then(|| drop_privilege(access.mode));
    inode.change(&Change { uid, gid, mode, ..Change::default() })?;
    drop_capabilities(&**inode)?;
    notify::named(&path.dentry, IN_ATTRIB);
    Ok(())
}

/// Takes a program's capabilities from a file that isn't the same any more (capabilities(7)).
pub fn drop_capabilities(inode: &dyn Inode) -> Result<()> {
    const NAME: &[u8] = b"security.capability";
    match inode.xattr(NAME) {
        Ok(Some(_)) => inode.remove_xattr(NAME),
        _ => Ok(()),
    }
}

/// The permission bits without set-user-ID, and without set-group-ID where it means that.
pub fn drop_privilege(mode: u32) -> u32 {
    let group = if mode & 0o010 != 0 { S_ISGID } else { 0 };
    mode & 0o7777 & !S_ISUID & !group
}

/// One time of utimensat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// `UTIME_OMIT`
    Omit,
    /// `UTIME_NOW`
    Now,
    /// A given time.
    At(Time),
}

/// utimensat(2).
pub fn set_times(who: &dyn Subject, path: &Path, atime: SetTime, mtime: SetTime) -> Result<()> {
    if (atime, mtime) == (SetTime::Omit, SetTime::Omit) {
        return Ok(());
    }
    path.mount.check_writable()?;
    let inode = path.inode()?;
    let access = inode.access();
    if !perm::owner_or_capable(who, access) {
        if (atime, mtime) != (SetTime::Now, SetTime::Now) {
            return Err(Errno::EPERM);
        }
        perm::check_access(who, access, WRITE)?;
    }
    let now = Time::now();
    let at = |time| match time {
        SetTime::Omit => None,
        SetTime::Now => Some(now),
        SetTime::At(time) => Some(time),
    };
    inode.change(&Change { atime: at(atime), mtime: at(mtime), ..Change::default() })?;
    notify::named(&path.dentry, IN_ATTRIB);
    Ok(())
}

/// truncate(2): of a name; ftruncate(2) asks the description instead of permissions.
pub fn truncate(who: &dyn Subject, path: &Path, len: u64) -> Result<()> {
    let inode = path.inode()?;
    match path.dentry.kind() {
        Some(FileType::Directory) => return Err(Errno::EISDIR),
        Some(FileType::Regular) => {}
        _ => return Err(Errno::EINVAL),
    }
    path.mount.check_writable()?;
    perm::check(who, inode, WRITE)?;
    check_not_running(inode, inode.access().mode)?;
    leases::breaking(inode, None, true, true)?;
    inode.truncate(len)?;
    notify::named(&path.dentry, IN_MODIFY);
    Ok(())
}

/// Makes a directory and those above it that don't exist; existing ones are left as they are. For
/// the kernel.
pub fn make_dirs(name: &[u8], mode: u32) -> Result<Path> {
    let resolver = Resolver::kernel()?;
    let mut at = resolver.root.clone();
    let mut prefix = Vec::new();
    for part in name.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        prefix.push(b'/');
        prefix.extend_from_slice(part);
        at = match resolver.lookup(&prefix, true) {
            Ok(path) if path.dentry.is_dir() => path,
            Ok(_) => return Err(Errno::ENOTDIR),
            Err(Errno::ENOENT) => mkdir(&resolver, &prefix, mode)?,
            Err(error) => return Err(error),
        };
    }
    Ok(at)
}

/// Writes a whole file, making it if need be. For the kernel.
pub fn write_file(name: &[u8], mode: u32, contents: &[u8]) -> Result<()> {
    let resolver = Resolver::kernel()?;
    let file = open(&resolver, name, O_WRONLY | O_CREAT | O_TRUNC, mode, 0)?;
    let mut src = crate::io::IoSrc::kernel(contents);
    let mut at = 0;
    while src.remaining() > 0 {
        (_, at) = file.ops.write_at(&file, at, &mut src)?;
    }
    Ok(())
}
