//! Inodes.

use super::dir::Dir;
use super::file::Data;
use super::xattr::Xattrs;
use super::{MemFs, Times};
use crate::errno::{Errno, Result};
use crate::fs::Path;
use crate::fs::erofs::{Image, Node};
use crate::fs::inode::{
    Access, Change, FileType, Inode, Metadata, NewNode, Opened, Rename, Time, XattrMode, make_dev,
    mode::*,
};
use crate::fs::pipe::Fifo;
use crate::live::{Kind, Live};
use crate::sync::{Mutex, SpinLock};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use dock2uni_format::erofs as format;

/// A file in memory, perhaps over one of the image.
pub struct MemInode {
    pub(super) fs: Arc<MemFs>,
    this: Weak<MemInode>,
    ino: u64,
    /// Where it lies in the image, if it comes from there.
    pub(super) lower: Option<Node>,
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    pub(super) nlink: AtomicU32,
    rdev: u64,
    pinned: AtomicBool,
    times: SpinLock<Times>,
    xattrs: SpinLock<Option<Xattrs>>,
    pub(super) body: Body,
    _live: Live,
}

/// What is particular to a type of file.
pub(super) enum Body {
    File(Data),
    Dir(Mutex<Dir>),
    Symlink(Vec<u8>),
    Fifo(Fifo),
    Device,
    Socket,
}

impl MemInode {
    /// A new file that the image doesn't have.
    pub(super) fn create(fs: &Arc<MemFs>, node: &NewNode) -> Arc<MemInode> {
        let body = match FileType::of_mode(node.mode) {
            FileType::Regular => Body::File(Data::empty()),
            FileType::Directory => Body::Dir(Mutex::new(Dir::new(0))),
            FileType::Fifo => Body::Fifo(Fifo::default()),
            FileType::Socket => Body::Socket,
            FileType::Symlink => Body::Symlink(Vec::new()),
            FileType::CharDevice | FileType::BlockDevice => Body::Device,
        };
        MemInode::with_body(fs, node, body)
    }

    fn with_body(fs: &Arc<MemFs>, node: &NewNode, body: Body) -> Arc<MemInode> {
        let dir = matches!(body, Body::Dir(_));
        Arc::new_cyclic(|this| MemInode {
            fs: fs.clone(),
            this: this.clone(),
            ino: fs.new_ino(),
            lower: None,
            mode: AtomicU32::new(node.mode),
            uid: AtomicU32::new(node.uid),
            gid: AtomicU32::new(node.gid),
            nlink: AtomicU32::new(if dir { 2 } else { 1 }),
            rdev: node.rdev,
            pinned: AtomicBool::new(false),
            times: SpinLock::new(Times::all(Time::now())),
            xattrs: SpinLock::new(None),
            body,
            _live: Live::new(Kind::Inodes),
        })
    }

    /// The file at a position of the image.
    pub(super) fn from_image(fs: &Arc<MemFs>, node: Node, image: &Image) -> Result<Arc<MemInode>> {
        let inode = node.inode;
        let mode = u32::from(inode.mode);
        let mut rdev = 0;
        let body = match mode & S_IFMT {
            S_IFREG => Body::File(Data::of_image(inode.size)),
            S_IFDIR => Body::Dir(Mutex::new(Dir::new(image.dir_end(&node)?))),
            S_IFLNK => Body::Symlink(image.read_link(&node)?),
            S_IFIFO => Body::Fifo(Fifo::default()),
            S_IFSOCK => Body::Socket,
            S_IFCHR | S_IFBLK => {
                let (major, minor) = format::decode_dev(inode.u);
                rdev = make_dev(major, minor);
                Body::Device
            }
            _ => return Err(Errno::EUCLEAN),
        };
        let times = Times::all(image.mtime(&node));
        Ok(Arc::new_cyclic(|this| MemInode {
            fs: fs.clone(),
            this: this.clone(),
            ino: node.nid,
            mode: AtomicU32::new(mode),
            uid: AtomicU32::new(inode.uid),
            gid: AtomicU32::new(inode.gid),
            nlink: AtomicU32::new(inode.nlink),
            rdev,
            pinned: AtomicBool::new(false),
            times: SpinLock::new(times),
            xattrs: SpinLock::new(None),
            body,
            _live: Live::new(Kind::Inodes),
            lower: Some(node),
        }))
    }

    /// A counted reference to itself.
    pub(super) fn arc(&self) -> Arc<MemInode> {
        // Methods run on inodes that live in an `Arc`, so the reference can be counted up.
        self.this.upgrade().expect("called through a counted reference")
    }

    pub(super) fn ino(&self) -> u64 {
        self.ino
    }

    pub(super) fn has_name(&self) -> bool {
        self.nlink.load(Relaxed) != 0
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }

    /// The image it comes from and its position there.
    pub(super) fn below(&self) -> Option<(&Arc<Image>, &Node)> {
        Some((self.fs.lower.as_ref()?, self.lower.as_ref()?))
    }

    /// From now on it differs from the image and must not be made anew from there.
    pub(super) fn pin(&self) {
        if let Some(node) = &self.lower
            && !self.pinned.load(Relaxed)
            && self.nlink.load(Relaxed) > 0
            && !self.pinned.swap(true, Relaxed)
        {
            let me = self.arc();
            self.fs.pinned.lock().insert(u128::from(node.nid), me);
        }
    }

    /// One name fewer. Returns whether that was the last.
    pub(super) fn drop_link(&self, by: u32) {
        self.pin();
        let left = self.nlink.load(Relaxed).saturating_sub(by);
        self.nlink.store(left, Relaxed);
        self.touch(false);
        if left == 0 {
            let forgotten = self.fs.handles.lock().remove(u128::from(self.ino));
            drop(forgotten);
        }
        if left == 0
            && let Some(node) = &self.lower
        {
            let pinned = self.fs.pinned.lock().remove(u128::from(node.nid));
            drop(pinned);
        }
    }

    /// One name more.
    pub(super) fn add_link(&self) {
        self.pin();
        self.nlink.fetch_add(1, Relaxed);
        self.touch(false);
    }

    /// Sets the change time and, if `contents`, the modification time to now.
    pub(super) fn touch(&self, contents: bool) {
        let now = Time::now();
        let mut times = self.times.lock();
        times.ctime = now;
        if contents {
            times.mtime = now;
        }
    }

    /// After a read: sets the access time unless it is newer than the last change (as `relatime`
    /// does), or `always`.
    pub(super) fn accessed(&self, always: bool) {
        let mut times = self.times.lock();
        if always || times.atime <= times.mtime || times.atime <= times.ctime {
            times.atime = Time::now();
        }
    }

    pub(super) fn mode(&self) -> u32 {
        self.mode.load(Relaxed)
    }

    /// After a write: set-user-ID and set-group-ID go, if it was by somebody without privileges, and
    /// the capabilities of the program.
    pub(super) fn drop_privilege(&self) {
        let mode = self.mode();
        if mode & (S_ISUID | S_ISGID) != 0 && !crate::fs::hooks::keeps_set_ids() {
            let kept = mode & S_IFMT | crate::fs::ops::drop_privilege(mode);
            self.mode.store(kept, Relaxed);
        }
        // Whoever writes. Nothing in memory fails.
        let _ = crate::fs::ops::drop_capabilities(self);
    }

    fn with_xattrs<R>(&self, f: impl FnOnce(&mut Xattrs) -> R) -> Result<R> {
        if self.xattrs.lock().is_none() {
            let mut loaded = Xattrs::default();
            if let Some((image, node)) = self.below() {
                image.xattrs(node, &mut |name, value| loaded.load(name, value))?;
            }
            self.xattrs.lock().get_or_insert(loaded);
        }
        let mut slot = self.xattrs.lock();
        Ok(f(slot.get_or_insert_default()))
    }
}

impl Inode for MemInode {
    fn metadata(&self) -> Metadata {
        let times = *self.times.lock();
        let (size, blocks) = match &self.body {
            Body::File(data) => (data.len(), data.blocks()),
            Body::Dir(_) => (4096, 8),
            Body::Symlink(target) => (target.len() as u64, 0),
            _ => (0, 0),
        };
        Metadata {
            dev: self.fs.dev,
            ino: self.ino,
            mode: self.mode(),
            nlink: self.nlink.load(Relaxed),
            uid: self.uid.load(Relaxed),
            gid: self.gid.load(Relaxed),
            rdev: self.rdev,
            size,
            blocks,
            atime: times.atime,
            mtime: times.mtime,
            ctime: times.ctime,
            btime: times.btime,
        }
    }

    fn access(&self) -> Access {
        Access { mode: self.mode(), uid: self.uid.load(Relaxed), gid: self.gid.load(Relaxed) }
    }

    fn change(&self, change: &Change) -> Result<()> {
        self.pin();
        if let Some(mode) = change.mode {
            self.mode.store(self.mode() & S_IFMT | mode & 0o7777, Relaxed);
        }
        if let Some(uid) = change.uid {
            self.uid.store(uid, Relaxed);
        }
        if let Some(gid) = change.gid {
            self.gid.store(gid, Relaxed);
        }
        let now = Time::now();
        let mut times = self.times.lock();
        times.atime = change.atime.unwrap_or(times.atime);
        times.mtime = change.mtime.unwrap_or(times.mtime);
        times.ctime = now;
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.find(name)?.ok_or(Errno::ENOENT)?)
    }

    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        let inode = MemInode::create(&self.fs, node);
        self.insert(name, inode.clone())?;
        Ok(inode)
    }

    fn create_unnamed(&self, node: &NewNode) -> Result<Arc<dyn Inode>> {
        let inode = MemInode::create(&self.fs, node);
        inode.nlink.store(0, Relaxed);
        Ok(inode)
    }

    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        let inode = MemInode::with_body(&self.fs, node, Body::Symlink(target.to_vec()));
        self.insert(name, inode.clone())?;
        Ok(inode)
    }

    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        let inode = inode.downcast::<MemInode>().ok_or(Errno::EXDEV)?.arc();
        self.insert(name, inode.clone())?;
        inode.add_link();
        Ok(())
    }

    fn unlink(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        let inode = inode.downcast::<MemInode>().ok_or(Errno::EXDEV)?;
        self.remove(name)?;
        inode.drop_link(1);
        Ok(())
    }

    fn rmdir(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        let inode = inode.downcast::<MemInode>().ok_or(Errno::EXDEV)?;
        inode.bury()?;
        self.remove(name)?;
        self.drop_link(1);
        inode.drop_link(u32::MAX);
        Ok(())
    }

    fn rename(&self, request: &Rename<'_>) -> Result<()> {
        self.move_entry(request)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        match &self.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, flags: u32, path: &Path) -> Result<Opened> {
        match &self.body {
            Body::File(_) => {
                if flags & linux_raw_sys::general::O_ACCMODE != 0 {
                    self.pin();
                }
                Ok(Opened::Ops(self))
            }
            Body::Dir(_) => Ok(Opened::Ops(self)),
            Body::Fifo(fifo) => {
                let inode: Arc<dyn Inode> = self.clone();
                fifo.open(inode, flags).map(Opened::Ops)
            }
            Body::Device => crate::fs::devices::open(self.mode(), self.rdev, flags, path),
            Body::Symlink(_) => Err(Errno::ELOOP),
            Body::Socket => Err(Errno::ENXIO),
        }
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.resize(len)
    }

    fn xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        // Asked for by every exec and listing; most files have none.
        let none = match &self.lower {
            Some(node) => node.inode.xattr_icount == 0,
            None => true,
        };
        if none && self.xattrs.lock().is_none() {
            return Ok(None);
        }
        self.with_xattrs(|xattrs| xattrs.get(name))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        self.with_xattrs(|xattrs| xattrs.set(name, value, mode))??;
        self.pin();
        self.touch(false);
        Ok(())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.with_xattrs(|xattrs| xattrs.remove(name))??;
        self.pin();
        self.touch(false);
        Ok(())
    }

    fn list_xattrs(&self) -> Result<Vec<u8>> {
        self.with_xattrs(|xattrs| xattrs.names())
    }
}

impl Drop for MemInode {
    fn drop(&mut self) {
        if let Some(node) = &self.lower {
            let mut known = self.fs.known.lock();
            // A successor may have taken the place already.
            if known.get(u128::from(node.nid)).is_some_and(|weak| weak.strong_count() == 0) {
                known.remove(u128::from(node.nid));
            }
        }
        // A deep tree must not recurse down the kernel stack.
        if let Body::Dir(dir) = &mut self.body {
            let mut orphans = dir.get_mut().take_all();
            while let Some(inode) = orphans.pop() {
                if let Some(mut inode) = Arc::into_inner(inode)
                    && let Body::Dir(dir) = &mut inode.body
                {
                    orphans.extend(dir.get_mut().take_all());
                }
            }
        }
    }
}
