//! Files in memory: tmpfs, and the root filesystem.
//!
//! The root is a [`MemFs`] over an image ([`erofs::Image`]). Its inodes are made from the image
//! when they are first looked up and hold only what differs: attributes, a directory's own names
//! and the names it hides (whiteouts), pages that were written. An inode that was changed is
//! *pinned*; others come and go with their users.
//!
//! Lock order: the name layer's directory locks, then [`dir::Dir`]'s, then the tables here. A
//! directory's contents are never locked while another's are.

mod dir;
mod file;
mod inode;
mod xattr;

pub use inode::MemInode;

use super::inode::{FileSystem, Inode, NewNode, StatFs, Time, anonymous_dev, mode::*};
use super::{Dentry, Mount, Path, erofs};
use crate::errno::{Errno, Result};
use crate::map::Tree;
use crate::mm::{PageCache, Pager, Quota};
use crate::sync::{Once, SpinLock};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A filesystem whose changes live in memory.
pub struct MemFs {
    name: &'static str,
    magic: u64,
    dev: u64,
    lower: Option<Arc<erofs::Image>>,
    /// Inodes of the image that are in use, by nid.
    known: SpinLock<Tree<Weak<MemInode>>>,
    /// Inodes of the image that differ from it, by nid.
    pinned: SpinLock<Tree<Arc<MemInode>>>,
    /// Inodes that handles were asked for, as long as they have a name.
    handles: SpinLock<Tree<Weak<MemInode>>>,
    next_ino: AtomicU64,
    root: Once<Arc<MemInode>>,
    /// Pages that files may take; `None` for no limit.
    quota: Option<Arc<Quota>>,
    /// Options for /proc/mounts besides the size.
    options: String,
}

/// Settings of a tmpfs mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Permissions of the root directory.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Most bytes that files may take; 0 for no limit.
    pub size: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { mode: 0o1777, uid: 0, gid: 0, size: 0 }
    }
}

impl Options {
    /// Reads mount(2) data: `size=64m,mode=755,uid=0,gid=0`. EINVAL for an unknown option or value.
    pub fn parse(text: &[u8]) -> Result<Options> {
        let mut options = Options::default();
        let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if name != "defaults" && !options.set(name, value)? {
                return Err(Errno::EINVAL);
            }
        }
        Ok(options)
    }

    /// Sets one option. Returns whether there is one of that name; EINVAL for a bad value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        let number = |radix| u32::from_str_radix(value, radix).map_err(|_| Errno::EINVAL);
        match name {
            "mode" => self.mode = number(8)? & 0o7777,
            "uid" => self.uid = number(10)?,
            "gid" => self.gid = number(10)?,
            "size" => self.size = parse_size(value)?,
            "nr_blocks" => self.size = parse_size(value)?.saturating_mul(4096),
            "nr_inodes" | "huge" | "inode32" | "inode64" | "mpol" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn parse_size(text: &str) -> Result<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "%" => {
            let total = crate::fs::hooks::total_memory();
            return Ok(total / 100 * number.min(100));
        }
        _ => return Err(Errno::EINVAL),
    };
    number.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

/// Unit of sizes, in bytes.
const BLOCK: u64 = 4096;
const TMPFS_MAGIC: u64 = 0x0102_1994;
const DEVPTS_MAGIC: u64 = 0x1cd1;
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;

impl MemFs {
    /// An empty filesystem.
    pub fn tmpfs(options: &Options) -> Arc<MemFs> {
        let mut shown = String::new();
        if options.mode != 0o1777 {
            shown += &alloc::format!(",mode={:o}", options.mode);
        }
        let fs = MemFs::new("tmpfs", TMPFS_MAGIC, None, options.size, shown);
        fs.with_root(options)
    }

    /// The filesystem of pseudoterminals; the driver makes and removes their nodes.
    pub fn devpts() -> Arc<MemFs> {
        let shown = ",gid=5,mode=620,ptmxmode=666".into();
        let options = Options { mode: 0o755, ..Options::default() };
        MemFs::new("devpts", DEVPTS_MAGIC, None, 0, shown).with_root(&options)
    }

    fn with_root(self: Arc<Self>, options: &Options) -> Arc<MemFs> {
        let node =
            NewNode { mode: S_IFDIR | options.mode, uid: options.uid, gid: options.gid, rdev: 0 };
        let root = MemInode::create(&self, &node);
        let _ = self.root.set(root);
        self
    }

    /// A regular file that no directory names (memfd_create(2), shared memory). `shown` is what
    /// /proc calls it.
    pub fn unnamed(shown: &[u8], mode: u32, uid: u32, gid: u32) -> (Arc<MemInode>, Path) {
        static UNNAMED: Once<(Arc<MemFs>, Arc<Mount>)> = Once::new();
        let (fs, mount) = UNNAMED.get_or_init(|| {
            let fs = MemFs::tmpfs(&Options::default());
            (fs.clone(), Mount::internal(fs))
        });
        let node = NewNode { mode: S_IFREG | mode, uid, gid, rdev: 0 };
        let inode = MemInode::create(fs, &node);
        inode.nlink.store(0, Relaxed);
        let dentry = Dentry::detached(None, shown, inode.clone());
        (inode, Path { mount: mount.clone(), dentry })
    }

    /// The root filesystem over an image. EUCLEAN if the image's root isn't a directory.
    ///
    /// It presents itself as an overlay, which is what programs find at `/` in a container.
    pub fn over(image: Arc<erofs::Image>) -> Result<Arc<MemFs>> {
        let root_nid = image.root_nid();
        let fs = MemFs::new("overlay", OVERLAYFS_MAGIC, Some(image), 0, String::new());
        let root = fs.instantiate(root_nid)?;
        if !root.is_dir() {
            return Err(Errno::EUCLEAN);
        }
        let _ = fs.root.set(root);
        Ok(fs)
    }

    fn new(
        name: &'static str,
        magic: u64,
        lower: Option<Arc<erofs::Image>>,
        limit: u64,
        options: String,
    ) -> Arc<MemFs> {
        let first = lower.as_ref().map_or(1, |image| image.max_nid() + 1);
        Arc::new(MemFs {
            name,
            magic,
            dev: anonymous_dev(),
            lower,
            known: SpinLock::new(Tree::new()),
            pinned: SpinLock::new(Tree::new()),
            handles: SpinLock::new(Tree::new()),
            next_ino: AtomicU64::new(first),
            root: Once::new(),
            quota: (limit != 0).then(|| Arc::new(Quota::new(limit.div_ceil(BLOCK)))),
            options,
        })
    }

    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Relaxed)
    }

    /// The inode of a position in the image: the one in use, or a new one.
    fn instantiate(self: &Arc<Self>, nid: u64) -> Result<Arc<MemInode>> {
        if let Some(inode) = self.known.lock().get(u128::from(nid)).and_then(Weak::upgrade) {
            return Ok(inode);
        }
        let image = self.lower.as_ref().ok_or(Errno::EIO)?;
        let inode = MemInode::from_image(self, image.node(nid)?, image)?;
        let mut known = self.known.lock();
        // Another task may have been faster; its inode counts.
        if let Some(other) = known.get(u128::from(nid)).and_then(Weak::upgrade) {
            drop(known);
            return Ok(other);
        }
        known.insert(u128::from(nid), Arc::downgrade(&inode));
        Ok(inode)
    }

    /// Memory for a file's pages, over `pager` if it has contents in the image.
    fn new_cache(&self, len: u64, pager: Option<Arc<dyn Pager>>) -> Arc<PageCache> {
        match (pager, &self.quota) {
            (Some(pager), Some(quota)) => PageCache::backed_in(len, pager, quota.clone()),
            (Some(pager), None) => PageCache::backed(len, pager),
            (None, Some(quota)) => PageCache::anonymous_in(len, quota.clone()),
            (None, None) => PageCache::anonymous(len),
        }
    }
}

impl FileSystem for MemFs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn root(&self) -> Arc<dyn Inode> {
        match self.root.get() {
            Some(root) => root.clone(),
            // Both constructors set it; a filesystem without a root reads as an empty directory.
            None => super::anon::AnonInode::new(S_IFDIR | 0o555),
        }
    }

    fn statfs(&self) -> StatFs {
        let (total, free) = super::hooks::memory();
        let lower = self.lower.as_ref().map_or(0, |image| image.len() / BLOCK);
        let (room, left) = match &self.quota {
            Some(quota) => (quota.limit(), quota.limit().saturating_sub(quota.used())),
            None => (total / 2 / BLOCK, free / BLOCK),
        };
        let inodes = self.next_ino.load(Relaxed);
        StatFs {
            kind: self.magic,
            bsize: BLOCK,
            blocks: lower + room,
            bfree: left.min(free / BLOCK).min(room),
            files: inodes + total / 1024,
            ffree: total / 1024,
        }
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn handle(&self, inode: &Arc<dyn Inode>) -> Option<[u32; 3]> {
        let inode = inode.downcast::<MemInode>()?;
        let (ino, weak) = (inode.ino(), Arc::downgrade(&inode.arc()));
        if inode.has_name() {
            self.handles.lock().insert(u128::from(ino), weak);
        }
        Some([ino as u32, self.dev as u32, (ino >> 32) as u32])
    }

    fn by_handle(&self, [low, dev, high]: [u32; 3]) -> Result<Arc<dyn Inode>> {
        let ino = u64::from(low) | u64::from(high) << 32;
        let known = self.handles.lock().get(u128::from(ino)).cloned();
        let known = known.filter(|_| dev == self.dev as u32).ok_or(Errno::ESTALE)?;
        match (known.upgrade(), self.root.get()) {
            (Some(inode), _) => Ok(inode),
            // Only those of the image may be out of memory.
            (None, Some(root)) => Ok(root.fs.instantiate(ino).map_err(|_| Errno::ESTALE)?),
            _ => Err(Errno::ESTALE),
        }
    }

    fn options(&self) -> String {
        match &self.quota {
            Some(quota) => {
                alloc::format!(",size={}k{}", quota.limit() * BLOCK / 1024, self.options)
            }
            None => self.options.clone(),
        }
    }

    fn reconfigure(&self, options: &str) -> Result<()> {
        let size = Options::parse(options.as_bytes())?.size.div_ceil(BLOCK);
        match &self.quota {
            _ if size == 0 => {}
            Some(quota) if quota.used() <= size => quota.set_limit(size),
            // What is there is too much, or was never counted.
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
}

/// Times of an inode.
#[derive(Clone, Copy, Debug)]
struct Times {
    atime: Time,
    mtime: Time,
    ctime: Time,
    btime: Time,
}

impl Times {
    fn all(time: Time) -> Times {
        Times { atime: time, mtime: time, ctime: time, btime: time }
    }
}

#[cfg(test)]
mod tests;
