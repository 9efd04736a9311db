//! ext4 volumes: the format's crate behind the kernel's filesystem traits, with file contents in
//! page caches that are written back.
//!
//! # Locks
//! An inode's `flush` (writing back, cutting), then its `writing` (write(2), changes of length),
//! then the volume. File contents move without the volume's lock. What is dirty, what is in use and
//! what is to be freed are lists behind spinning locks of their own, which page faults take.
//!
//! # Durability
//! Contents are written first, to blocks that the volume shows as unwritten; then the volume notes
//! them as written, and fsync(2) commits that. A flusher does the same every five seconds, so no
//! more than that is lost to a crash.

mod device;
mod file;
mod flush;
mod inode;

pub use inode::Ext4Inode;

use super::inode::{FileSystem, Inode, StatFs, Time, anonymous_dev};
use crate::drivers::block::BlockDevice;
use crate::errno::{Errno, Result};
use crate::map::Tree;
use crate::mm::Quota;
use crate::sync::{Mutex, Once, SpinLock, WaitQueue};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use dock2uni_ext4::{Error, ROOT, Volume};

const EXT4_MAGIC: u64 = 0xef53;

/// A mounted volume.
pub struct Ext4 {
    volume: Mutex<Volume>,
    device: Arc<dyn BlockDevice>,
    dev: u64,
    /// Pages of files that are not written back, which may not exceed what is free.
    quota: Arc<Quota>,
    /// How many may wait before writers have to: an eighth of memory.
    crowd: u64,
    known: SpinLock<Tree<Weak<Ext4Inode>>>,
    /// Inodes with contents or times to be written back.
    dirty: SpinLock<Vec<Arc<Ext4Inode>>>,
    /// Inodes without names and users.
    unused: SpinLock<Vec<u32>>,
    root: Once<Arc<Ext4Inode>>,
    /// Whether a failure was reported.
    complained: AtomicBool,
    /// Whether it was reported to be full.
    filled: AtomicBool,
    /// Wakes the flusher before its time.
    work: WaitQueue,
    hurry: AtomicBool,
    /// Memory is short: the flusher writes back even if not much waits.
    pressed: AtomicBool,
    /// Batches of pages made clean, and who waits for one.
    cleaned: AtomicU32,
    progress: WaitQueue,
    closed: AtomicBool,
}

/// What the application sees of an error; damage is named where it is found.
fn errno(error: Error) -> Errno {
    match error {
        Error::Io => Errno::EIO,
        Error::Corrupt(_) => Errno::EUCLEAN,
        Error::Unsupported(_) => Errno::EOPNOTSUPP,
        Error::NoSpace => Errno::ENOSPC,
        Error::NoMemory => Errno::ENOMEM,
        Error::NotFound => Errno::ENOENT,
        Error::Exists => Errno::EEXIST,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::NotDirectory => Errno::ENOTDIR,
        Error::TooMany => Errno::EMLINK,
        Error::ReadOnly => Errno::EROFS,
    }
}

/// Time as the volume has it.
fn stamp(time: Time) -> dock2uni_ext4::Time {
    (time.secs, time.nanos)
}

impl Ext4 {
    /// Opens the volume on a disk. The error is for the user.
    pub fn open(
        device: Arc<dyn BlockDevice>,
        read_only: bool,
    ) -> core::result::Result<Arc<Ext4>, String> {
        let disk = alloc::boxed::Box::new(device::Disk(device.clone()));
        let volume = Volume::open(disk, read_only, stamp(Time::now())).map_err(|error| {
            let why = match error {
                Error::Corrupt(what) => alloc::format!("is damaged ({what}); run e2fsck on it"),
                Error::Unsupported(what) => alloc::format!("can't be used: {what}"),
                other => alloc::format!("can't be opened ({other:?})"),
            };
            alloc::format!("the volume on {} {why}", device.name())
        })?;
        let fs = Arc::new(Ext4 {
            quota: Arc::new(Quota::new(0)),
            crowd: super::hooks::total_memory() / crate::arch::PAGE_SIZE as u64 / 8,
            volume: Mutex::new(volume),
            device,
            dev: anonymous_dev(),
            known: SpinLock::new(Tree::new()),
            dirty: SpinLock::new(Vec::new()),
            unused: SpinLock::new(Vec::new()),
            root: Once::new(),
            complained: AtomicBool::new(false),
            filled: AtomicBool::new(false),
            work: WaitQueue::new(),
            hurry: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            cleaned: AtomicU32::new(0),
            progress: WaitQueue::new(),
            closed: AtomicBool::new(false),
        });
        let root = fs.inode(ROOT).map_err(|error| {
            alloc::format!("the volume on {} is damaged ({error:?})", fs.device.name())
        })?;
        let _ = fs.root.set(root);
        if !read_only {
            let flusher = fs.clone();
            crate::task::sched::spawn_kernel("ext4", move || flusher.flusher())
                .map_err(|_| String::from("no memory for a volume's flusher"))?;
            flush::MOUNTED.lock().push(Arc::downgrade(&fs));
            crate::mm::oom::set_cleaner(flush::clean);
        }
        Ok(fs)
    }

    /// UUID of the volume on a disk, if there is one.
    pub fn probe(device: &dyn BlockDevice) -> Option<[u8; 16]> {
        let mut header = [0; 1024];
        device.read_bytes(1024, &mut header).ok()?;
        let magic = header[0x38..0x3a] == [0x53, 0xef];
        let uuid = header[0x68..0x78].try_into().ok()?;
        magic.then_some(uuid)
    }

    /// Calls into the volume.
    fn with<R>(&self, call: impl FnOnce(&mut Volume) -> dock2uni_ext4::Result<R>) -> Result<R> {
        let mut volume = self.volume.lock();
        volume.now = stamp(Time::now());
        volume.promised = self.quota.used();
        let result = call(&mut volume);
        self.note(&mut volume, result)
    }

    /// After a call: what pages may still be promised, and a word about damage.
    fn note<R>(&self, volume: &mut Volume, result: dock2uni_ext4::Result<R>) -> Result<R> {
        let free = volume.available();
        // Some are kept for the trees that map files.
        self.quota.set_limit(free.saturating_sub(free / 128 + 16));
        result.map_err(|error| {
            if let Error::Corrupt(what) = error {
                volume.set_damaged();
                self.complain(what);
            } else if error == Error::Io {
                self.complain("the disk fails");
            }
            errno(error)
        })
    }

    /// Says once that the volume can't be trusted.
    fn complain(&self, what: &str) {
        if !self.complained.swap(true, Relaxed) {
            let name = self.device.name();
            crate::error!(
                "ext4 on {name}: {what}; read-only from now on, run e2fsck on the volume"
            );
        }
    }

    /// The inode in use, or a new one for it.
    fn inode(self: &Arc<Self>, ino: u32) -> Result<Arc<Ext4Inode>> {
        if let Some(inode) = self.find(ino) {
            return Ok(inode);
        }
        let mut volume = self.volume.lock();
        let result = volume.inode(ino);
        let found = self.note(&mut volume, result)?;
        self.instantiate(&mut volume, &found)
    }

    fn find(&self, ino: u32) -> Option<Arc<Ext4Inode>> {
        self.known.lock().get(u128::from(ino)).and_then(Weak::upgrade)
    }

    fn instantiate(
        self: &Arc<Self>,
        volume: &mut Volume,
        found: &dock2uni_ext4::Inode,
    ) -> Result<Arc<Ext4Inode>> {
        if let Some(inode) = self.find(found.ino) {
            return Ok(inode);
        }
        let inode = Ext4Inode::new(self, volume, found)?;
        // All of this happens under the volume's lock, so nobody else was faster.
        self.known.lock().insert(u128::from(found.ino), Arc::downgrade(&inode));
        Ok(inode)
    }
}

impl FileSystem for Ext4 {
    fn name(&self) -> &'static str {
        "ext4"
    }

    fn root(&self) -> Arc<dyn Inode> {
        match self.root.get() {
            Some(root) => root.clone(),
            // `open` sets it.
            None => super::anon::AnonInode::new(super::inode::mode::S_IFDIR | 0o555),
        }
    }

    fn statfs(&self) -> StatFs {
        self.reap();
        let Ok(usage) = self.with(Volume::usage) else { return StatFs::default() };
        StatFs {
            kind: EXT4_MAGIC,
            bsize: dock2uni_ext4::BLOCK as u64,
            blocks: usage.blocks,
            bfree: usage.free.saturating_sub(self.quota.used()),
            files: usage.inodes.into(),
            ffree: usage.free_inodes.into(),
        }
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn handle(&self, inode: &Arc<dyn Inode>) -> Option<[u32; 3]> {
        let ino = inode.downcast::<Ext4Inode>()?.ino;
        let found = self.volume.lock().inode(ino).ok()?;
        Some([ino, found.generation(), 0])
    }

    fn by_handle(&self, [ino, generation, _]: [u32; 3]) -> Result<Arc<dyn Inode>> {
        // Below the first that files have, only the root is one.
        let root = self.root.get().filter(|_| ino == ROOT || ino > 10).ok_or(Errno::ESTALE)?;
        let mut volume = self.volume.lock();
        // Strangers may ask for what was never an inode: that is no damage.
        let found = volume.inode(ino).map_err(|_| Errno::ESTALE)?;
        if found.links() == 0 || found.generation() != generation {
            return Err(Errno::ESTALE);
        }
        Ok(root.fs.instantiate(&mut volume, &found)?)
    }

    fn sync(&self) -> Result<()> {
        self.sync_all()
    }

    fn close(&self) -> Result<()> {
        self.closed.store(true, Relaxed);
        self.sync_all()?;
        self.with(Volume::close)
    }
}
