//! Inodes in use: attributes in memory, names in the volume.

use super::file::Contents;
use super::{Ext4, errno, stamp};
use crate::errno::{Errno, Result};
use crate::fs::Path;
use crate::fs::inode::{
    Access, Change, FileType, Inode, Metadata, NewNode, Opened, Rename, Time, XattrMode, dev_major,
    dev_minor, make_dev,
};
use crate::fs::pipe::Fifo;
use crate::fs::write_errors::WriteErrors;
use crate::sync::SpinLock;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use dock2uni_ext4::volume::Move;
use dock2uni_ext4::{Attributes, Error, NewFile, Volume};

/// A file of a volume.
pub struct Ext4Inode {
    pub(super) fs: Arc<Ext4>,
    this: Weak<Ext4Inode>,
    pub(super) ino: u32,
    /// Attributes; times may be newer than the volume's.
    pub(super) meta: SpinLock<Metadata>,
    /// Whether they are.
    pub(super) stale: AtomicBool,
    /// Whether it waits to be written back.
    pub(super) queued: AtomicBool,
    /// What became of writing back.
    pub(super) lost: WriteErrors,
    /// The last transaction that changed it.
    pub(super) changed_in: AtomicU32,
    pub(super) body: Body,
}

/// What is particular to a type of file.
pub(super) enum Body {
    File(Contents),
    Symlink(Vec<u8>),
    Fifo(Fifo),
    /// Directory, device, socket.
    Other,
}

fn time((secs, nanos): dock2uni_ext4::Time) -> Time {
    Time { secs, nanos }
}

impl Ext4Inode {
    pub(super) fn new(
        fs: &Arc<Ext4>,
        volume: &mut Volume,
        found: &dock2uni_ext4::Inode,
    ) -> Result<Arc<Ext4Inode>> {
        let body = match FileType::of_mode(found.mode()) {
            FileType::Regular => Body::File(Contents::new(fs, found)),
            FileType::Symlink => Body::Symlink(volume.read_link(found).map_err(errno)?),
            FileType::Fifo => Body::Fifo(Fifo::default()),
            _ => Body::Other,
        };
        let inode = Arc::new_cyclic(|this| Ext4Inode {
            fs: fs.clone(),
            this: this.clone(),
            ino: found.ino,
            meta: SpinLock::new(Metadata::default()),
            stale: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            lost: WriteErrors::default(),
            changed_in: AtomicU32::new(volume.committed()),
            body,
        });
        inode.take_over(found);
        Ok(inode)
    }

    /// A counted reference to itself.
    pub(super) fn arc(&self) -> Arc<Ext4Inode> {
        // Methods run on inodes that live in an `Arc`, so the reference can be counted up.
        self.this.upgrade().expect("called through a counted reference")
    }

    /// Attributes from the volume; times in memory stay if they are newer.
    fn take_over(&self, found: &dock2uni_ext4::Inode) {
        let (major, minor) = match FileType::of_mode(found.mode()) {
            FileType::CharDevice | FileType::BlockDevice => found.device(),
            _ => (0, 0),
        };
        let mut meta = self.meta.lock();
        let (atime, mtime, ctime) = (time(found.atime()), time(found.mtime()), time(found.ctime()));
        let stale = self.stale.load(Relaxed);
        let newer = |old: Time, new: Time| if stale { old.max(new) } else { new };
        *meta = Metadata {
            dev: self.fs.dev,
            ino: self.ino.into(),
            mode: found.mode(),
            nlink: found.links(),
            uid: found.uid(),
            gid: found.gid(),
            rdev: make_dev(major, minor),
            size: found.size(),
            blocks: found.sectors(),
            atime: newer(meta.atime, atime),
            mtime: newer(meta.mtime, mtime),
            ctime: newer(meta.ctime, ctime),
            btime: time(found.btime()),
        };
    }

    /// After a call that changed it.
    pub(super) fn changed(&self, volume: &Volume, found: &dock2uni_ext4::Inode) {
        self.take_over(found);
        self.changed_in.store(volume.running(), Relaxed);
    }

    /// Runs a call that changes this directory, and perhaps other inodes, by number.
    fn change_names<R>(
        &self,
        call: impl FnOnce(&mut Volume) -> dock2uni_ext4::Result<R>,
        others: &[u32],
    ) -> Result<R> {
        self.fs.with(|volume| {
            let result = call(volume)?;
            for &ino in [self.ino].iter().chain(others) {
                if let Some(inode) = self.fs.find(ino) {
                    let found = volume.inode(ino)?;
                    inode.changed(volume, &found);
                }
            }
            Ok(result)
        })
    }

    fn make(&self, name: Option<&[u8]>, node: &NewNode, target: &[u8]) -> Result<Arc<dyn Inode>> {
        let file = NewFile {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            device: (dev_major(node.rdev), dev_minor(node.rdev)),
            target,
        };
        // An inode that is being freed keeps its number until then.
        let found = self.change_names(|volume| volume.create(self.ino, name, &file), &[])?;
        let inode = self.fs.inode(found.ino)?;
        inode.changed_in.store(self.fs.volume.lock().running(), Relaxed);
        Ok(inode)
    }

    /// Contents change now; the volume learns of it when they are written back.
    pub(super) fn touch(&self) {
        let now = Time::now();
        {
            let mut meta = self.meta.lock();
            (meta.mtime, meta.ctime) = (now, now);
        }
        self.stale.store(true, Relaxed);
        self.enqueue();
    }

    /// After a read: sets the access time as `relatime` does, or `always`.
    pub(super) fn accessed(&self, always: bool) {
        {
            let mut meta = self.meta.lock();
            let newer = meta.atime > meta.mtime && meta.atime > meta.ctime && !always;
            if newer || self.fs.is_read_only() {
                return;
            }
            meta.atime = Time::now();
        }
        self.stale.store(true, Relaxed);
        self.enqueue();
    }

    /// Puts it among those to be written back.
    pub(super) fn enqueue(&self) {
        if !self.queued.swap(true, Relaxed) {
            let me = self.arc();
            self.fs.dirty.lock().push(me);
        }
    }

    fn times(&self) -> Attributes {
        let meta = *self.meta.lock();
        Attributes {
            atime: Some(stamp(meta.atime)),
            mtime: Some(stamp(meta.mtime)),
            ctime: Some(stamp(meta.ctime)),
            ..Attributes::default()
        }
    }

    /// Attributes that the volume has to learn, if any.
    pub(super) fn take_stale(&self) -> Option<Attributes> {
        self.stale.swap(false, Relaxed).then(|| self.times())
    }
}

impl Inode for Ext4Inode {
    fn metadata(&self) -> Metadata {
        let mut meta = *self.meta.lock();
        if let Body::File(contents) = &self.body {
            meta.size = contents.cache.len();
            // What isn't written back has no place yet, and will have one.
            meta.blocks += contents.cache.own_pages() as u64 * 8;
        }
        meta
    }

    fn access(&self) -> Access {
        let meta = self.meta.lock();
        Access { mode: meta.mode, uid: meta.uid, gid: meta.gid }
    }

    fn change(&self, change: &Change) -> Result<()> {
        let mut attributes = self.times();
        attributes.mode = change.mode;
        attributes.uid = change.uid;
        attributes.gid = change.gid;
        attributes.atime = change.atime.map(stamp).or(attributes.atime);
        attributes.mtime = change.mtime.map(stamp).or(attributes.mtime);
        attributes.ctime = Some(stamp(Time::now()));
        self.fs.with(|volume| {
            let found = volume.set(self.ino, &attributes)?;
            self.stale.store(false, Relaxed);
            self.changed(volume, &found);
            Ok(())
        })
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let ino = self.fs.with(|volume| volume.lookup(self.ino, name))?;
        Ok(self.fs.inode(ino)?)
    }

    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.make(Some(name), node, &[])
    }

    fn create_unnamed(&self, node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.make(None, node, &[])
    }

    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        if target.len() >= dock2uni_ext4::BLOCK {
            return Err(Errno::ENAMETOOLONG);
        }
        self.make(Some(name), node, target)
    }

    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        let ino = inode.downcast::<Ext4Inode>().ok_or(Errno::EXDEV)?.ino;
        self.change_names(|volume| volume.link(self.ino, name, ino).map(drop), &[ino])
    }

    fn unlink(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        let ino = inode.downcast::<Ext4Inode>().ok_or(Errno::EXDEV)?.ino;
        self.change_names(|volume| volume.unlink(self.ino, name).map(drop), &[ino])
    }

    fn rmdir(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        self.unlink(name, inode)
    }

    fn rename(&self, request: &Rename<'_>) -> Result<()> {
        let number = |inode: &Arc<dyn Inode>| {
            inode.downcast::<Ext4Inode>().map(|inode| inode.ino).ok_or(Errno::EXDEV)
        };
        let target = request.target.map(number).transpose()?;
        let step = Move {
            from: self.ino,
            name: request.old_name,
            ino: number(request.inode)?,
            to: number(request.new_dir)?,
            new_name: request.new_name,
            target,
            exchange: request.exchange,
        };
        let others = [step.ino, step.to, target.unwrap_or(step.ino)];
        self.change_names(|volume| volume.rename(&step), &others)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        match &self.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, flags: u32, path: &Path) -> Result<Opened> {
        let meta = *self.meta.lock();
        match (&self.body, FileType::of_mode(meta.mode)) {
            (Body::File(_), _) | (_, FileType::Directory) => Ok(Opened::Ops(self)),
            (Body::Fifo(fifo), _) => {
                let inode: Arc<dyn Inode> = self.clone();
                fifo.open(inode, flags).map(Opened::Ops)
            }
            (Body::Symlink(_), _) => Err(Errno::ELOOP),
            (_, FileType::Socket) => Err(Errno::ENXIO),
            _ => crate::fs::devices::open(meta.mode, meta.rdev, flags, path),
        }
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.resize(len)
    }

    fn xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.fs.with(|volume| volume.xattr(self.ino, name))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        self.change_xattr(name, Some(value), mode == XattrMode::Create, mode == XattrMode::Replace)
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.change_xattr(name, None, false, true)
    }

    fn list_xattrs(&self) -> Result<Vec<u8>> {
        self.fs.with(|volume| volume.xattr_names(self.ino))
    }
}

impl Ext4Inode {
    fn change_xattr(
        &self,
        name: &[u8],
        value: Option<&[u8]>,
        create: bool,
        replace: bool,
    ) -> Result<()> {
        let mut absent = false;
        let result = self.fs.with(|volume| {
            let result = volume.set_xattr(self.ino, name, value, create, replace);
            absent = result.as_ref().err() == Some(&Error::NotFound);
            self.changed(volume, &result?);
            Ok(())
        });
        if absent { Err(Errno::ENODATA) } else { result }
    }
}

impl Drop for Ext4Inode {
    fn drop(&mut self) {
        let fs = &self.fs;
        {
            let mut known = fs.known.lock();
            // A successor may have taken the place already.
            if known.get(u128::from(self.ino)).is_some_and(|weak| weak.strong_count() == 0) {
                known.remove(u128::from(self.ino));
            }
        }
        // Freeing it takes the volume's lock, which may not be taken here.
        if self.meta.get_mut().nlink == 0 {
            fs.unused.lock().push(self.ino);
            fs.hurry();
        }
    }
}
