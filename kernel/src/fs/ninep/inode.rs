//! Files of the server.

use super::NineFs;
use super::file::NineFile;
use super::proto::{Client, Fid, Message, kind};
use crate::errno::{Errno, Result};
use crate::fs::Path;
use crate::fs::inode::{
    Change, FileType, Inode, Metadata, NewNode, Opened, Rename, Time, XattrMode, dev_major,
    dev_minor, mode::*,
};
use crate::fs::pipe::Fifo;
use crate::mm::PageCache;
use crate::sync::{Mutex, Once, SpinLock};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use linux_raw_sys::general::{
    AT_REMOVEDIR, O_ACCMODE, O_APPEND, O_DIRECTORY, O_DSYNC, O_RDWR, O_SYNC,
};

/// A file of the host.
pub struct NineInode {
    pub(super) fs: Arc<NineFs>,
    pub(super) this: Weak<NineInode>,
    pub(super) fid: Fid,
    path: u64,
    kind: FileType,
    /// Attributes as last seen, for when the server doesn't answer.
    seen: SpinLock<Metadata>,
    fifo: Fifo,
    /// Pages for mappings.
    pub(super) cache: Once<Arc<PageCache>>,
    /// Handles by which pages are read and written.
    pub(super) handle: SpinLock<Option<Arc<Fid>>>,
    pub(super) writing: Mutex<()>,
    /// Size and time of the contents that the pages are of.
    pub(super) cached: SpinLock<(u64, Time)>,
}

/// Bits of a setattr request.
mod set {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 2;
    pub const GID: u32 = 4;
    pub const SIZE: u32 = 8;
    pub const ATIME: u32 = 0x10;
    pub const MTIME: u32 = 0x20;
    pub const CTIME: u32 = 0x40;
    pub const ATIME_GIVEN: u32 = 0x80;
    pub const MTIME_GIVEN: u32 = 0x100;
}
/// Longest value of an attribute (xattr(7)).
const XATTR_MAX: u64 = 64 << 10;
/// "basic" attributes, in a getattr request.
const BASIC: u64 = 0x7ff;

impl NineInode {
    /// The file of a handle whose number at the server is `path`.
    pub(super) fn new(fs: &Arc<NineFs>, fid: Fid, path: u64) -> Result<Arc<NineInode>> {
        let meta = getattr(fs, &fid)?;
        let kind = FileType::of_mode(meta.mode);
        let known = fs.known.lock().get(u128::from(path)).and_then(Weak::upgrade);
        if let Some(inode) = known.filter(|inode| inode.kind == kind) {
            *inode.seen.lock() = meta;
            return Ok(inode);
        }
        let inode = Arc::new_cyclic(|this| NineInode {
            fs: fs.clone(),
            this: this.clone(),
            fid,
            path,
            kind,
            seen: SpinLock::new(meta),
            fifo: Fifo::default(),
            cache: Once::new(),
            handle: SpinLock::new(None),
            writing: Mutex::new(()),
            cached: SpinLock::new((0, Time::default())),
        });
        fs.known.lock().insert(u128::from(path), Arc::downgrade(&inode));
        Ok(inode)
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.fs.client
    }

    pub(super) fn attributes(&self) -> Result<Metadata> {
        let meta = getattr(&self.fs, &self.fid)?;
        *self.seen.lock() = meta;
        Ok(meta)
    }

    pub(super) fn file_kind(&self) -> FileType {
        self.kind
    }

    fn find(&self, name: &[u8]) -> Result<Arc<NineInode>> {
        let (fid, qid) = self.client().walk(&self.fid, Some(name))?;
        NineInode::new(&self.fs, fid, qid.ok_or(Errno::EIO)?.path)
    }

    /// After a file was made: gives it its owner, which the server doesn't ask for, and returns it.
    fn made(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        let inode = self.find(name)?;
        let seen = *inode.seen.lock();
        if seen.uid != node.uid || seen.gid != node.gid {
            let owner = Change { uid: Some(node.uid), gid: Some(node.gid), ..Change::default() };
            inode.change(&owner)?;
        }
        Ok(inode)
    }

    pub(super) fn set_size(&self, len: u64) -> Result<()> {
        self.setattr(set::SIZE | set::MTIME, &Change::default(), len)
    }

    fn setattr(&self, valid: u32, change: &Change, size: u64) -> Result<()> {
        let (atime, mtime) = (change.atime.unwrap_or_default(), change.mtime.unwrap_or_default());
        let message = Message::new(kind::SETATTR)
            .fid(&self.fid)
            .u32(valid | set::CTIME)
            .u32(change.mode.unwrap_or(0) & 0o7777)
            .u32(change.uid.unwrap_or(0))
            .u32(change.gid.unwrap_or(0))
            .u64(size)
            .u64(atime.secs as u64)
            .u64(atime.nanos.into())
            .u64(mtime.secs as u64)
            .u64(mtime.nanos.into());
        self.client().call(message).map(drop)
    }

    /// Value of an attribute; without a name, the names of all.
    fn xattr_call(&self, name: &[u8]) -> Result<Vec<u8>> {
        let client = self.client();
        let value = client.new_fid();
        let ask = Message::new(kind::XATTRWALK).fid(&self.fid).fid(&value).text(name);
        let len = match client.call(ask).and_then(|mut answer| answer.u64()) {
            Ok(len) => len.min(XATTR_MAX) as usize,
            Err(error) => {
                client.never_was(value);
                return Err(error);
            }
        };
        let mut out = Vec::new();
        while out.len() < len {
            let want = (len - out.len()).min(client.io_size()) as u32;
            let read = Message::new(kind::READ).fid(&value).u64(out.len() as u64).u32(want);
            let mut answer = client.call(read)?;
            let count = answer.u32()? as usize;
            if count == 0 {
                break;
            }
            out.extend_from_slice(answer.take(count)?);
        }
        Ok(out)
    }

    fn put_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let (fid, _) = self.client().walk(&self.fid, None)?;
        let create =
            Message::new(kind::XATTRCREATE).fid(&fid).text(name).u64(value.len() as u64).u32(flags);
        self.client().call(create)?;
        for (at, piece) in value.chunks(self.client().io_size()).enumerate() {
            let offset = (at * self.client().io_size()) as u64;
            let write = Message::new(kind::WRITE).fid(&fid).u64(offset);
            self.client().call(write.u32(piece.len() as u32).bytes(piece))?;
        }
        // The server sets it now.
        self.client().clunk(fid)
    }
}

fn getattr(fs: &Arc<NineFs>, fid: &Fid) -> Result<Metadata> {
    let mut answer = fs.client.call(Message::new(kind::GETATTR).fid(fid).u64(BASIC))?;
    answer.u64()?;
    let ino = answer.qid()?.path;
    let (mode, uid, gid) = (answer.u32()?, answer.u32()?, answer.u32()?);
    let (nlink, rdev, size) = (answer.u64()?, answer.u64()?, answer.u64()?);
    let (_blksize, blocks) = (answer.u64()?, answer.u64()?);
    let mut time = || -> Result<Time> {
        let secs = answer.u64()? as i64;
        Ok(Time { secs, nanos: answer.u64()?.min(999_999_999) as u32 })
    };
    let (atime, mtime, ctime) = (time()?, time()?, time()?);
    if size > i64::MAX as u64 {
        return Err(Errno::EIO);
    }
    Ok(Metadata {
        dev: fs.dev,
        ino,
        mode,
        nlink: nlink as u32,
        uid,
        gid,
        rdev,
        size,
        blocks,
        atime,
        mtime,
        ctime,
        btime: ctime,
    })
}

impl Inode for NineInode {
    fn metadata(&self) -> Metadata {
        self.attributes().unwrap_or(*self.seen.lock())
    }

    fn change(&self, change: &Change) -> Result<()> {
        let mut valid = 0;
        for (given, bits) in [
            (change.mode.is_some(), set::MODE),
            (change.uid.is_some(), set::UID),
            (change.gid.is_some(), set::GID),
            (change.atime.is_some(), set::ATIME | set::ATIME_GIVEN),
            (change.mtime.is_some(), set::MTIME | set::MTIME_GIVEN),
        ] {
            valid |= if given { bits } else { 0 };
        }
        self.setattr(valid, change, 0)
    }

    fn remember_names(&self) -> bool {
        false
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.find(name)?)
    }

    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        let mode = node.mode & 0o7777;
        match node.mode & S_IFMT {
            S_IFREG => {
                // The handle becomes one on the new file; it is opened by its name later.
                let (fid, _) = self.client().walk(&self.fid, None)?;
                let create = Message::new(kind::CREATE).fid(&fid).text(name);
                let flags = O_RDWR | linux_raw_sys::general::O_EXCL;
                self.client().call(create.u32(flags).u32(mode).u32(node.gid))?;
                self.client().clunk(fid)?;
            }
            S_IFDIR => {
                let make = Message::new(kind::MKDIR).fid(&self.fid).text(name);
                self.client().call(make.u32(mode).u32(node.gid))?;
            }
            _ => {
                let make = Message::new(kind::MKNOD).fid(&self.fid).text(name).u32(node.mode);
                let make = make.u32(dev_major(node.rdev)).u32(dev_minor(node.rdev));
                self.client().call(make.u32(node.gid))?;
            }
        }
        self.made(name, node)
    }

    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        let link = Message::new(kind::SYMLINK).fid(&self.fid).text(name).text(target);
        self.client().call(link.u32(node.gid))?;
        Ok(self.find(name)?)
    }

    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        let inode = inode.downcast::<NineInode>().ok_or(Errno::EXDEV)?;
        let link = Message::new(kind::LINK).fid(&self.fid).fid(&inode.fid).text(name);
        self.client().call(link).map(drop)
    }

    fn unlink(&self, name: &[u8], _inode: &Arc<dyn Inode>) -> Result<()> {
        let unlink = Message::new(kind::UNLINKAT).fid(&self.fid).text(name).u32(0);
        self.client().call(unlink).map(drop)
    }

    fn rmdir(&self, name: &[u8], _inode: &Arc<dyn Inode>) -> Result<()> {
        let unlink = Message::new(kind::UNLINKAT).fid(&self.fid).text(name).u32(AT_REMOVEDIR);
        self.client().call(unlink).map(drop)
    }

    fn rename(&self, request: &Rename<'_>) -> Result<()> {
        if request.exchange {
            return Err(Errno::EINVAL);
        }
        let to = request.new_dir.downcast::<NineInode>().ok_or(Errno::EXDEV)?;
        let rename = Message::new(kind::RENAMEAT).fid(&self.fid).text(request.old_name);
        self.client().call(rename.fid(&to.fid).text(request.new_name)).map(drop)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        if self.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        self.client().call(Message::new(kind::READLINK).fid(&self.fid))?.text()
    }

    fn open(self: Arc<Self>, flags: u32, path: &Path) -> Result<Opened> {
        match self.kind {
            FileType::Regular | FileType::Directory => {}
            FileType::Fifo => {
                let inode: Arc<dyn Inode> = self.clone();
                return self.fifo.open(inode, flags).map(Opened::Ops);
            }
            FileType::Symlink => return Err(Errno::ELOOP),
            FileType::Socket => return Err(Errno::ENXIO),
            _ => {
                let seen = *self.seen.lock();
                return crate::fs::devices::open(seen.mode, seen.rdev, flags, path);
            }
        }
        let kept = flags & (O_ACCMODE | O_APPEND | O_DSYNC | O_SYNC | O_DIRECTORY);
        let (fid, _) = self.client().walk(&self.fid, None)?;
        self.client().call(Message::new(kind::OPEN).fid(&fid).u32(kept))?;
        Ok(Opened::Ops(Arc::new(NineFile { inode: self, fid: Arc::new(fid) })))
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.write_back()?;
        self.set_size(len)?;
        if let Some(cache) = self.cache.get() {
            cache.truncate(len)?;
        }
        Ok(())
    }

    fn xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.xattr_call(name) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::ENODATA) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let flags = match mode {
            XattrMode::Any => 0,
            XattrMode::Create => 1,
            XattrMode::Replace => 2,
        };
        self.put_xattr(name, value, flags)
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        // An attribute of no bytes is what the server removes.
        self.put_xattr(name, b"", 2)
    }

    fn list_xattrs(&self) -> Result<Vec<u8>> {
        match self.xattr_call(b"") {
            Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
            result => result,
        }
    }
}

impl Drop for NineInode {
    fn drop(&mut self) {
        let mut known = self.fs.known.lock();
        // A successor may have taken the place already.
        if known.get(u128::from(self.path)).is_some_and(|weak| weak.strong_count() == 0) {
            known.remove(u128::from(self.path));
        }
    }
}
