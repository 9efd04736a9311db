//! Open file descriptions (open(2)) and what each kind of file can do.

use super::write_errors::WriteErrors;
use super::{FileType, Inode};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::{IoDst, IoSrc};
use crate::live::{Kind, Live};
use crate::mm::PageCache;
use crate::sync::Mutex;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general::{
    IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, O_ACCMODE, O_RDONLY, O_RDWR, O_WRONLY,
};

/// An open file description: shared by every descriptor that dup(2) or fork(2) made of one open(2).
pub struct File {
    /// What kind of file this is.
    pub ops: Arc<dyn FileOps>,
    /// Access mode and status flags (`O_ACCMODE`, `O_APPEND`, `O_NONBLOCK`, ...).
    flags: AtomicU32,
    /// File offset. Held across read and write of seekable files (POSIX: they are atomic to each
    /// other).
    pub pos: Mutex<u64>,
    /// The epolls that watch it.
    pub watchers: crate::event::epoll::Watchers,
    /// Who is sent a signal when it becomes ready.
    pub sigio: crate::event::sigio::Sigio,
    /// The errors of writing back that it has heard of.
    pub write_errors: AtomicU32,
    /// The name it was opened by; `None` for pipes, sockets and anonymous files.
    pub path: Option<crate::fs::Path>,
    _live: Live,
}

impl File {
    /// A description without a name.
    pub fn anonymous(ops: Arc<dyn FileOps>, flags: u32) -> Arc<File> {
        Arc::new(File {
            write_errors: AtomicU32::new(ops.write_errors().map_or(0, WriteErrors::sample)),
            ops,
            flags: AtomicU32::new(flags),
            pos: Mutex::new(0),
            watchers: Default::default(),
            sigio: Default::default(),
            path: None,
            _live: Live::new(Kind::Files),
        })
    }

    /// A description of a named file.
    pub fn named(ops: Arc<dyn FileOps>, flags: u32, path: crate::fs::Path) -> Arc<File> {
        let file = Arc::new(File {
            write_errors: AtomicU32::new(ops.write_errors().map_or(0, WriteErrors::sample)),
            ops,
            flags: AtomicU32::new(flags),
            pos: Mutex::new(0),
            watchers: Default::default(),
            sigio: Default::default(),
            path: Some(path),
            _live: Live::new(Kind::Files),
        });
        file.count_writer(true);
        file
    }

    /// Counts it among the files that are written, and through its mount, or no longer.
    fn count_writer(&self, more: bool) {
        if let Some(path) = &self.path
            && path.dentry.kind() == Some(FileType::Regular)
            && self.writable()
        {
            path.mount.count_writer(more);
            path.dentry.count_writer(more);
        }
    }

    /// Access mode and status flags.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the status flags in `mask` by those of `flags` (fcntl `F_SETFL`, ioctl `FIONBIO`).
    pub fn update_flags(&self, mask: u32, flags: u32) {
        let _ = self.flags.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            Some(old & !mask | flags & mask)
        });
    }

    /// Whether calls must fail with EAGAIN instead of waiting.
    pub fn nonblocking(&self) -> bool {
        self.flags() & linux_raw_sys::general::O_NONBLOCK != 0
    }

    /// Whether reading sets the time of the last access, and if so, whether it does however new that
    /// is.
    pub fn access_times(&self) -> Option<bool> {
        let keeps = self.flags() & linux_raw_sys::general::O_NOATIME != 0;
        let path = self.path.as_ref().filter(|_| !keeps);
        path.map_or((!keeps).then_some(false), |path| path.mount.access_times(path.dentry.kind()))
    }

    /// Whether it may be read.
    pub fn readable(&self) -> bool {
        matches!(self.flags() & O_ACCMODE, O_RDONLY | O_RDWR)
    }

    /// Whether it may be written.
    pub fn writable(&self) -> bool {
        matches!(self.flags() & O_ACCMODE, O_WRONLY | O_RDWR)
    }

    /// The file's inode.
    pub fn inode(&self) -> Arc<dyn Inode> {
        match self.path.as_ref().map(|path| path.inode()) {
            Some(Ok(inode)) => inode.clone(),
            _ => self.ops.inode(),
        }
    }

    /// Calls `f` with the file's inode, without counting a reference to it where that can be
    /// avoided.
    pub fn with_inode<R>(&self, f: impl FnOnce(&Arc<dyn Inode>) -> R) -> R {
        match self.path.as_ref().map(|path| path.inode()) {
            Some(Ok(inode)) => f(inode),
            _ => f(&self.ops.inode()),
        }
    }

    /// The kind-specific half, if it is a `T`.
    pub fn downcast<T: FileOps>(&self) -> Option<&T> {
        (&*self.ops as &dyn Any).downcast_ref()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.watchers.detach();
        super::locks::description_closed(self);
        super::leases::description_closed(self);
        crate::event::dnotify::closed(self);
        let closed = if self.writable() { IN_CLOSE_WRITE } else { IN_CLOSE_NOWRITE };
        super::notify::file(self, closed);
        self.count_writer(false);
        let ops = self.ops.clone();
        ops.release(self);
    }
}

/// What a kind of file does. Defaults are the errors Linux gives for a file that can't do it.
///
/// `read` and `write` are for streams (pipes, sockets, terminals, eventfd): they look at
/// [`File::nonblocking`] and sleep with [`WaitQueue::wait`](crate::sync::WaitQueue::wait) in
/// `Interruptible` mode, failing with `ERESTARTSYS` when disturbed and nothing was moved. Seekable
/// files implement `read_at` and `write_at` and return true from `seekable`; the system call layer
/// keeps the offset.
pub trait FileOps: Any + Send + Sync {
    /// Reads from a stream.
    fn read(&self, _file: &File, _dst: &mut IoDst<'_>) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Writes to a stream.
    fn write(&self, _file: &File, _src: &mut IoSrc<'_>) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Whether the file has an offset.
    fn seekable(&self) -> bool {
        false
    }
    /// Reads at an offset.
    fn read_at(&self, _file: &File, _offset: u64, _dst: &mut IoDst<'_>) -> Result<usize> {
        Err(Errno::ESPIPE)
    }
    /// Writes at an offset; with `O_APPEND` at the end instead. Returns the offset after the write
    /// as well.
    fn write_at(&self, _file: &File, _offset: u64, _src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        Err(Errno::ESPIPE)
    }
    /// Present readiness. Registers its wait queues with `table` *before* looking at its state.
    fn poll(&self, _file: &File, _table: &mut PollTable<'_>) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }
    /// Whether epoll_ctl(2) accepts it (regular files and directories: EPERM).
    fn pollable(&self) -> bool {
        true
    }
    /// Whether `O_ASYNC` does anything: changes are told by a signal (fcntl(2)). Not where signals
    /// themselves are what changes.
    fn asynchronous(&self) -> bool {
        false
    }
    /// ioctl(2).
    fn ioctl(&self, _file: &File, _request: u32, _arg: usize) -> Result<usize> {
        Err(Errno::ENOTTY)
    }
    /// The memory object behind the file, for mmap(2). ENODEV if it can't be mapped.
    fn mapping(&self, _file: &File) -> Result<Arc<PageCache>> {
        Err(Errno::ENODEV)
    }
    /// The inode: named files have one; anonymous files get one from their pseudo filesystem for
    /// fstat(2).
    fn inode(&self) -> Arc<dyn crate::fs::Inode>;
    /// Directory entries from the file offset on (getdents64(2)): calls `emit(inode number, next
    /// offset, type, name)` until it returns false.
    fn read_dir(
        &self,
        _file: &File,
        _offset: u64,
        _emit: &mut dyn FnMut(u64, u64, u8, &[u8]) -> bool,
    ) -> Result<()> {
        Err(Errno::ENOTDIR)
    }
    /// Where lseek(2) finds the end (`SEEK_END`). EINVAL where there is none to be found.
    fn end(&self, file: &File) -> Result<u64> {
        Ok(file.with_inode(|inode| inode.metadata().size))
    }
    /// The next data (or hole) from an offset on (lseek(2) `SEEK_DATA`, `SEEK_HOLE`). ENXIO past
    /// the end. By default a file is all data, with a hole at its end.
    fn seek_data(&self, file: &File, offset: u64, hole: bool) -> Result<u64> {
        let size = file.with_inode(|inode| inode.metadata().size);
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        Ok(if hole { size } else { offset })
    }
    /// fallocate(2); the range is not empty and doesn't overflow.
    fn allocate(&self, _file: &File, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// fcntl(2) commands that depend on the kind of file: seals.
    fn fcntl(&self, _file: &File, _command: u32, _arg: usize) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// fsync(2) and fdatasync(2).
    fn sync(&self, _file: &File, _data_only: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// Lines of /proc/PID/fdinfo besides those that every file has (proc(5)).
    fn details(&self) -> alloc::string::String {
        alloc::string::String::new()
    }
    /// Where errors of writing back are kept, if it is written back.
    fn write_errors(&self) -> Option<&WriteErrors> {
        None
    }
    /// The last descriptor is gone.
    fn release(&self, _file: &File) {}
    /// Text for /proc/PID/fd links of unnamed files, for instance `pipe:[12]`.
    fn describe(&self) -> alloc::string::String {
        alloc::string::String::from("anon_inode:[unknown]")
    }
}
