//! The tree of mounted filesystems. There is one mount namespace.

use super::dcache::Dentry;
use super::inode::{FileSystem, Inode};
use crate::errno::{Errno, Result};
use crate::live::{Kind, Live};
use crate::sync::{Mutex, Once, SpinLock};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

bitflags::bitflags! {
    /// Mount flags with the values of mount(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Flags: u32 {
        /// `MS_RDONLY`
        const RDONLY = 1;
        /// `MS_NOSUID`
        const NOSUID = 2;
        /// `MS_NODEV`
        const NODEV = 4;
        /// `MS_NOEXEC`
        const NOEXEC = 8;
        /// `MS_NOATIME`
        const NOATIME = 1024;
        /// `MS_NODIRATIME`
        const NODIRATIME = 2048;
        /// `MS_RELATIME`
        const RELATIME = 1 << 21;
    }
}

/// A filesystem at a place in the tree.
pub struct Mount {
    /// Number in /proc/PID/mountinfo.
    pub id: u32,
    /// Where it is mounted; `None` for the root and for filesystems that aren't in the tree.
    pub at: Option<Path>,
    /// Its root, or the directory bound.
    pub root: Arc<Dentry>,
    /// The filesystem.
    pub fs: Arc<dyn FileSystem>,
    /// The device or name given for it.
    pub source: Arc<str>,
    flags: AtomicU32,
    _live: Live,
}

impl Mount {
    /// Present flags.
    pub fn flags(&self) -> Flags {
        Flags::from_bits_truncate(self.flags.load(Relaxed))
    }

    /// Fails with EROFS if it is mounted read-only.
    pub fn check_writable(&self) -> Result<()> {
        if self.flags().contains(Flags::RDONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// A mount outside of the tree, for filesystems that have no place (pipes, memfd).
    pub fn internal(fs: Arc<dyn FileSystem>) -> Arc<Mount> {
        let root = Dentry::root(fs.root());
        Arc::new(Mount {
            id: 0,
            at: None,
            root,
            source: Arc::from(fs.name()),
            fs,
            flags: AtomicU32::new(0),
            _live: Live::new(Kind::Mounts),
        })
    }
}

/// A place in the namespace: a directory entry seen through a mount.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The directory entry.
    pub dentry: Arc<Dentry>,
}

impl Path {
    /// The root of a mount.
    pub fn root_of(mount: &Arc<Mount>) -> Path {
        Path { mount: mount.clone(), dentry: mount.root.clone() }
    }

    /// The file there. ENOENT if there is none.
    pub fn inode(&self) -> Result<&Arc<dyn Inode>> {
        self.dentry.inode()
    }

    /// Whether both are the same place.
    pub fn same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// Inode number of the directory above, across mounts, as `..` shows it.
    pub fn parent_ino(&self) -> u64 {
        let mut at = self.clone();
        while at.is_mount_root() {
            match &at.mount.at {
                Some(below) => at = below.clone(),
                None => break,
            }
        }
        at.dentry.parent().inode().map_or(0, |inode| inode.metadata().ino)
    }

    /// Whether it is the root of its mount.
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }
}

/// All mounts in the order in which they were made. Few: a linear search runs only below
/// [`Dentry::is_mounted`].
static MOUNTS: SpinLock<Vec<Arc<Mount>>> = SpinLock::new(Vec::new());
static ROOT: Once<Path> = Once::new();

fn new_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(20);
    NEXT.fetch_add(1, Relaxed)
}

/// Mounts the root of the namespace. EBUSY if there is one.
pub fn mount_root(fs: Arc<dyn FileSystem>, source: &str, flags: Flags) -> Result<Path> {
    let mount = Arc::new(Mount {
        id: new_id(),
        at: None,
        root: Dentry::root(fs.root()),
        fs,
        source: Arc::from(source),
        flags: AtomicU32::new(flags.bits()),
        _live: Live::new(Kind::Mounts),
    });
    let path = Path::root_of(&mount);
    ROOT.set(path.clone()).map_err(|_| Errno::EBUSY)?;
    MOUNTS.lock().push(mount);
    Ok(path)
}

/// The root of the namespace; `None` before [`mount_root`].
pub fn root() -> Option<&'static Path> {
    ROOT.get()
}

/// Mounts a filesystem on a directory (or a file on a file, for bind mounts).
pub fn mount_at(
    fs: Arc<dyn FileSystem>,
    root: Arc<Dentry>,
    at: Path,
    source: &str,
    flags: Flags,
) -> Result<Arc<Mount>> {
    if root.is_dir() != at.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let at = descend(at);
    let mount = Arc::new(Mount {
        id: new_id(),
        at: Some(at.clone()),
        root,
        fs,
        source: Arc::from(source),
        flags: AtomicU32::new(flags.bits()),
        _live: Live::new(Kind::Mounts),
    });
    let mut mounts = MOUNTS.lock();
    at.dentry.set_mounted(true);
    mounts.push(mount.clone());
    Ok(mount)
}

/// Changes the flags of a mount (`MS_REMOUNT`).
pub fn remount(mount: &Mount, flags: Flags) {
    mount.flags.store(flags.bits(), Relaxed);
}

/// Takes a mount out of the tree. EINVAL if `path` isn't the root of one; EBUSY if something is
/// mounted below it, or if it is in use and `detach` (`MNT_DETACH`) isn't set.
pub fn unmount(path: &Path, detach: bool) -> Result<()> {
    let mut mounts = MOUNTS.lock();
    if !path.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let Some(at) = &path.mount.at else { return Err(Errno::EBUSY) };
    let below = |mount: &Arc<Mount>| {
        mount.at.as_ref().is_some_and(|at| Arc::ptr_eq(&at.mount, &path.mount))
    };
    if mounts.iter().any(below) {
        return Err(Errno::EBUSY);
    }
    // References: the list's and the caller's path.
    if !detach && Arc::strong_count(&path.mount) > 2 {
        return Err(Errno::EBUSY);
    }
    let index = mounts.iter().position(|mount| Arc::ptr_eq(mount, &path.mount));
    let removed = mounts.remove(index.ok_or(Errno::EINVAL)?);
    let still = mounts
        .iter()
        .any(|mount| mount.at.as_ref().is_some_and(|other| Arc::ptr_eq(&other.dentry, &at.dentry)));
    if !still {
        at.dentry.set_mounted(false);
    }
    let last = !mounts.iter().any(|mount| Arc::ptr_eq(&mount.fs, &removed.fs));
    drop(mounts);
    // Where somebody is still in it, its names stay as they are.
    if last && removed.root.is_root() && Arc::strong_count(&removed) <= 2 {
        removed.root.prune();
    }
    drop(removed);
    Ok(())
}

/// Follows mounts downwards: the root of what is mounted on `path`, if anything is.
pub fn descend(mut path: Path) -> Path {
    while path.dentry.is_mounted() {
        let mounts = MOUNTS.lock();
        let on_top =
            mounts.iter().rev().find(|mount| mount.at.as_ref().is_some_and(|at| at.same(&path)));
        let Some(mount) = on_top.cloned() else { break };
        drop(mounts);
        path = Path::root_of(&mount);
    }
    path
}

/// Every mount, for /proc.
pub fn list() -> Vec<Arc<Mount>> {
    MOUNTS.lock().clone()
}

/// Makes the changes of every filesystem durable (sync(2)); the last error counts.
pub fn sync_all() -> Result<()> {
    list().iter().map(|mount| mount.fs.sync()).fold(Ok(()), Result::and)
}

/// Before the machine goes off: every filesystem is brought to an end.
pub fn close_all() {
    for mount in list() {
        if let Err(error) = mount.fs.close() {
            crate::error!("{}: can't be brought to disk ({error:?})", mount.source);
        }
    }
}

/// Drops unused names of every filesystem.
pub fn sweep_names() {
    static SWEEPING: Mutex<()> = Mutex::new(());
    let Some(_guard) = SWEEPING.try_lock() else { return };
    for mount in list() {
        super::dcache::sweep(&mount.root);
    }
    super::dcache::swept();
}
