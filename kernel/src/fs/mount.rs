//! The tree of mounted filesystems, or the trees: each mount namespace has one.
//!
//! A mount is in the tree, or the top of a tree of its own that a descriptor holds (fsmount(2),
//! open_tree(2)), or out of any. Mounts below others are in one table, wherever their top is.

mod flags;
mod namespace;
mod peers;
mod table;

use super::dcache::Dentry;
use super::inode::{FileSystem, FileType, Inode};
use crate::errno::{Errno, Result};
use crate::live::{Kind, Live};
use crate::sync::SpinLock;
use alloc::sync::Arc;
use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};
pub use flags::Flags;
pub use namespace::{Namespace, pivot, present};
pub use peers::Propagation;
pub use table::{
    MOST, Unmount, attach, change_all, changed, changes, close_all, copy, descend, dissolve, hold,
    in_tree, join_group, list, mount_at, mount_root, propagate, relocate, root, sweep_names,
    sync_all, unmount,
};

/// A filesystem at a place in the tree.
pub struct Mount {
    /// Number in /proc/PID/mountinfo.
    pub id: u32,
    /// Where it is mounted; `None` for the root, for filesystems that aren't in the tree, and for
    /// tops of trees that descriptors hold.
    at: SpinLock<Option<Path>>,
    /// Its root, or the directory bound.
    pub root: Arc<Dentry>,
    /// The filesystem.
    pub fs: Arc<dyn FileSystem>,
    /// The device or name given for it.
    pub source: Arc<str>,
    flags: AtomicU32,
    whole: Arc<Whole>,
    /// The mounts that it shares mounts with. Changed with the table locked.
    peers: SpinLock<Propagation>,
    /// Files that are open for writing through it.
    writers: AtomicU32,
    /// A descriptor holds it, and no place has it yet.
    held: AtomicBool,
    /// Times that a walk came into it since umount2(2) with `MNT_EXPIRE`, plus one; 0: never asked.
    crossings: AtomicU32,
    _live: Live,
}

impl Mount {
    fn new(
        root: Arc<Dentry>,
        fs: Arc<dyn FileSystem>,
        source: Arc<str>,
        flags: Flags,
        whole: Arc<Whole>,
        peers: Propagation,
    ) -> Arc<Mount> {
        static NEXT: AtomicU32 = AtomicU32::new(20);
        Arc::new(Mount {
            id: NEXT.fetch_add(1, Relaxed),
            at: SpinLock::new(None),
            root,
            fs,
            source,
            flags: AtomicU32::new((flags & Flags::OWN).bits()),
            whole,
            peers: SpinLock::new(peers),
            writers: AtomicU32::new(0),
            held: AtomicBool::new(false),
            crossings: AtomicU32::new(0),
            _live: Live::new(Kind::Mounts),
        })
    }

    /// A mount outside of the tree, for filesystems that have no place (pipes, memfd).
    pub fn internal(fs: Arc<dyn FileSystem>) -> Arc<Mount> {
        let root = Dentry::root(fs.root());
        Mount::detached(fs, root, "none", Flags::RELATIME, Flags::empty())
    }

    /// A mount of a new filesystem with this root that has no place yet. `flags` are the mount's own,
    /// `whole` the filesystem's.
    pub fn detached(
        fs: Arc<dyn FileSystem>,
        root: Arc<Dentry>,
        source: &str,
        flags: Flags,
        whole: Flags,
    ) -> Arc<Mount> {
        let whole = Whole::new(&root, whole);
        Mount::new(root, fs, Arc::from(source), flags, whole, Propagation::default())
    }

    /// Another mount of the same filesystem, without a place, with a root and flags of its own.
    pub fn another(&self, root: Arc<Dentry>, flags: Flags) -> Arc<Mount> {
        let (fs, source, whole) = (self.fs.clone(), self.source.clone(), self.whole.clone());
        Mount::new(root, fs, source, flags, whole, self.propagation())
    }

    /// Where it is mounted.
    pub fn at(&self) -> Option<Path> {
        self.at.lock().clone()
    }

    fn is_on(&self, other: &Arc<Mount>) -> bool {
        self.at.lock().as_ref().is_some_and(|at| Arc::ptr_eq(&at.mount, other))
    }

    /// Flags that count: its own and, of the filesystem's, whether that is read-only.
    pub fn flags(&self) -> Flags {
        self.own_flags() | self.whole_flags() & Flags::RDONLY
    }

    /// Flags of the mount alone.
    pub fn own_flags(&self) -> Flags {
        Flags::from_bits_truncate(self.flags.load(SeqCst))
    }

    /// Flags of its filesystem.
    pub fn whole_flags(&self) -> Flags {
        Flags::from_bits_truncate(self.whole.flags.load(SeqCst))
    }

    /// Changes its own flags. EBUSY if it would become read-only while files are written through it.
    pub fn set_flags(&self, flags: Flags) -> Result<()> {
        let old = self.flags.swap((flags & Flags::OWN).bits(), SeqCst);
        // Whoever opens a file counts itself first and looks at the flags afterwards.
        if flags.contains(Flags::RDONLY) && self.writers.load(SeqCst) != 0 {
            self.flags.store(old, SeqCst);
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    /// Changes the flags of its filesystem, as [`set_flags`](Mount::set_flags).
    pub fn set_whole_flags(&self, flags: Flags) -> Result<()> {
        let old = self.whole.flags.swap((flags & Flags::WHOLE).bits(), SeqCst);
        let written = |mount: &Arc<Mount>| {
            Arc::ptr_eq(&mount.whole, &self.whole) && mount.writers.load(SeqCst) != 0
        };
        let busy = self.writers.load(SeqCst) != 0 || list().iter().any(written);
        if flags.contains(Flags::RDONLY) && busy {
            self.whole.flags.store(old, SeqCst);
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    /// Counts a file that is open for writing, or one fewer.
    pub fn count_writer(&self, more: bool) {
        if more {
            self.writers.fetch_add(1, SeqCst);
        } else {
            self.writers.fetch_sub(1, SeqCst);
        }
    }

    /// Fails with EROFS if it is mounted read-only.
    pub fn check_writable(&self) -> Result<()> {
        if self.flags().contains(Flags::RDONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Whether reading a file of that kind sets the time of its last access, and if so, whether it
    /// does however new that is (`MS_STRICTATIME`).
    pub fn access_times(&self, kind: Option<FileType>) -> Option<bool> {
        let flags = self.own_flags();
        let dir = kind == Some(FileType::Directory) && flags.contains(Flags::NODIRATIME);
        let keeps = dir || flags.contains(Flags::NOATIME);
        (!keeps).then(|| !flags.contains(Flags::RELATIME))
    }

    /// How it shares mounts.
    pub fn propagation(&self) -> Propagation {
        *self.peers.lock()
    }
}

/// What all mounts of a filesystem share.
struct Whole {
    flags: AtomicU32,
    root: Arc<Dentry>,
}

impl Whole {
    fn new(root: &Arc<Dentry>, flags: Flags) -> Arc<Whole> {
        let flags = AtomicU32::new((flags & Flags::WHOLE).bits());
        Arc::new(Whole { flags, root: root.clone() })
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        // Nothing shows the filesystem any more, so its names go. A directory's table keeps its
        // entries, and each entry its directory.
        self.root.prune();
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
            match at.mount.at() {
                Some(below) => at = below,
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
