//! Inodes of files without a name: pipes, sockets, epoll, eventfd, timerfd, signalfd, memfd.

use super::inode::{
    Access, Change, FileSystem, Inode, Metadata, StatFs, Time, anonymous_dev, mode::*,
};
use super::{Dentry, Mount, Path};
use crate::errno::Result;
use crate::sync::{Once, SpinLock};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An inode with attributes of its own and nothing else.
pub struct AnonInode {
    attributes: SpinLock<Metadata>,
}

impl AnonInode {
    /// A new inode; `mode` with type, for instance `S_IFSOCK | 0o777`. Root owns it: see
    /// [`AnonInode::owned`].
    pub fn new(mode: u32) -> Arc<AnonInode> {
        AnonInode::owned(mode, 0, 0)
    }

    /// A new inode of an owner.
    pub fn owned(mode: u32, uid: u32, gid: u32) -> Arc<AnonInode> {
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        static DEV: Once<u64> = Once::new();
        let now = Time::now();
        Arc::new(AnonInode {
            attributes: SpinLock::new(Metadata {
                dev: *DEV.get_or_init(anonymous_dev),
                ino: NEXT.fetch_add(1, Relaxed),
                mode,
                nlink: 1,
                uid,
                gid,
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
                ..Metadata::default()
            }),
        })
    }

    /// Its inode number, as `socket:[N]` shows it.
    pub fn ino(&self) -> u64 {
        self.attributes.lock().ino
    }
}

impl Inode for AnonInode {
    fn metadata(&self) -> Metadata {
        *self.attributes.lock()
    }

    fn access(&self) -> Access {
        let meta = self.attributes.lock();
        Access { mode: meta.mode, uid: meta.uid, gid: meta.gid }
    }

    fn change(&self, change: &Change) -> Result<()> {
        let mut meta = self.attributes.lock();
        if let Some(mode) = change.mode {
            meta.mode = meta.mode & S_IFMT | mode & 0o7777;
        }
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        meta.atime = change.atime.unwrap_or(meta.atime);
        meta.mtime = change.mtime.unwrap_or(meta.mtime);
        meta.ctime = Time::now();
        Ok(())
    }
}

/// A filesystem that a file without a name is said to be on.
struct AnonFs {
    root: Arc<dyn Inode>,
    name: &'static str,
    magic: u64,
}

impl FileSystem for AnonFs {
    fn name(&self) -> &'static str {
        self.name
    }
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }
    fn statfs(&self) -> StatFs {
        StatFs { kind: self.magic, bsize: 4096, ..StatFs::default() }
    }
    fn dev(&self) -> u64 {
        self.root.metadata().dev
    }
}

/// A place for a file without a name, for calls that want one.
pub fn place(inode: Arc<dyn Inode>) -> Path {
    // ANON_INODE_FS_MAGIC
    place_on("anon_inodefs", 0x0904_1934, inode)
}

/// As [`place`], on a filesystem of another kind.
pub fn place_on(name: &'static str, magic: u64, inode: Arc<dyn Inode>) -> Path {
    let fs = Arc::new(AnonFs { root: inode.clone(), name, magic });
    Path { mount: Mount::internal(fs), dentry: Dentry::detached(None, b"", inode) }
}

/// The inode that all `anon_inode:` files share (as in Linux).
pub fn inode() -> Arc<dyn Inode> {
    static SHARED: Once<Arc<AnonInode>> = Once::new();
    // Linux shows no type bits for it.
    SHARED.get_or_init(|| AnonInode::new(0o600)).clone()
}
