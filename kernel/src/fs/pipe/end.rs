//! Ends of pipes, and how they are opened.

use super::{PIPE_BUF, Pipe};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::anon::AnonInode;
use crate::fs::inode::{Access, Change, Inode, Metadata, Opened, mode::*};
use crate::fs::{File, FileOps, Path, hooks};
use crate::io::{IoDst, IoSrc, put_user};
use crate::sync::{SpinLock, WaitMode};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering::SeqCst;
use linux_raw_sys::general::{O_ACCMODE, O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};

/// One open end of a pipe, or both (a FIFO opened `O_RDWR`).
pub struct PipeEnd {
    /// The pipe.
    pub pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    inode: Arc<dyn Inode>,
}

impl Pipe {
    /// Opens an end, and wakes those who wait for somebody there.
    fn open_end(self: &Arc<Self>, inode: Arc<dyn Inode>, read: bool, write: bool) -> Arc<PipeEnd> {
        if read {
            self.readers.fetch_add(1, SeqCst);
            self.reader_opens.fetch_add(1, SeqCst);
            self.space.wake_all(Events::ALL);
        }
        if write {
            self.writers.fetch_add(1, SeqCst);
            self.writer_opens.fetch_add(1, SeqCst);
            self.data.wake_all(Events::ALL);
        }
        Arc::new(PipeEnd { pipe: self.clone(), read, write, inode })
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        if self.read && self.pipe.readers.fetch_sub(1, SeqCst) == 1 {
            self.pipe.space.wake_all(Events::ERR | Events::OUT | Events::WRNORM);
        }
        if self.write && self.pipe.writers.fetch_sub(1, SeqCst) == 1 {
            self.pipe.data.wake_all(Events::HUP | Events::IN | Events::RDNORM);
        }
    }
}

impl FileOps for PipeEnd {
    fn asynchronous(&self) -> bool {
        true
    }

    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        self.pipe.read(file.nonblocking(), dst)
    }

    fn write(&self, file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
        self.pipe.write(file.nonblocking(), file.flags() & O_DIRECT != 0, src)
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        let mut events = Events::empty();
        if self.read {
            table.register(&self.pipe.data);
            if !self.pipe.is_empty() {
                events |= Events::IN | Events::RDNORM;
            }
            let seen = self.pipe.writer_opens.load(SeqCst) > 0;
            if self.pipe.writers.load(SeqCst) == 0 && seen {
                events |= Events::HUP;
            }
        }
        if self.write {
            table.register(&self.pipe.space);
            if self.pipe.capacity().saturating_sub(self.pipe.len()) >= PIPE_BUF {
                events |= Events::OUT | Events::WRNORM;
            }
            if self.pipe.readers.load(SeqCst) == 0 {
                events |= Events::ERR;
            }
        }
        events
    }

    fn ioctl(&self, _file: &File, request: u32, arg: usize) -> Result<usize> {
        match request {
            linux_raw_sys::ioctl::FIONREAD => {
                put_user(arg, &(self.pipe.len() as i32))?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn inode(&self) -> Arc<dyn Inode> {
        self.inode.clone()
    }

    fn describe(&self) -> String {
        alloc::format!("pipe:[{}]", self.inode.metadata().ino)
    }
}

/// The inode of an unnamed pipe, by which /proc/PID/fd opens it again.
struct PipeInode {
    attributes: Arc<AnonInode>,
    pipe: Weak<Pipe>,
}

impl Inode for PipeInode {
    fn metadata(&self) -> Metadata {
        self.attributes.metadata()
    }

    fn access(&self) -> Access {
        self.attributes.access()
    }

    fn change(&self, change: &Change) -> Result<()> {
        self.attributes.change(change)
    }

    fn open(self: Arc<Self>, flags: u32, _path: &Path) -> Result<Opened> {
        let pipe = self.pipe.upgrade().ok_or(Errno::ENXIO)?;
        let (read, write) = access_of(flags)?;
        Ok(Opened::Ops(pipe.open_end(self, read, write)))
    }
}

/// What `O_ACCMODE` asks for: reading, writing.
fn access_of(flags: u32) -> Result<(bool, bool)> {
    match flags & O_ACCMODE {
        O_RDONLY => Ok((true, false)),
        O_WRONLY => Ok((false, true)),
        O_RDWR => Ok((true, true)),
        _ => Err(Errno::EINVAL),
    }
}

/// pipe2(2) for a user and group: the reading and the writing end. `flags`: `O_NONBLOCK`,
/// `O_DIRECT` (packets).
pub fn pipe(flags: u32, uid: u32, gid: u32) -> Result<(Arc<File>, Arc<File>)> {
    let pipe = Pipe::new(&hooks::pipe_holder())?;
    let attributes = AnonInode::owned(S_IFIFO | 0o600, uid, gid);
    let inode: Arc<dyn Inode> = Arc::new(PipeInode { attributes, pipe: Arc::downgrade(&pipe) });
    let read = pipe.open_end(inode.clone(), true, false);
    let write = pipe.open_end(inode, false, true);
    let flags = flags & (O_NONBLOCK | O_DIRECT);
    Ok((File::anonymous(read, O_RDONLY | flags), File::anonymous(write, O_WRONLY | flags)))
}

/// The pipe of a FIFO: there while somebody has it open.
#[derive(Default)]
pub struct Fifo(SpinLock<Weak<Pipe>>);

impl Fifo {
    /// Opens the FIFO, waiting for the other side as fifo(7) says.
    pub fn open(&self, inode: Arc<dyn Inode>, flags: u32) -> Result<Arc<dyn FileOps>> {
        let pipe = {
            let mut slot = self.0.lock();
            match slot.upgrade() {
                Some(pipe) => pipe,
                None => {
                    let pipe = Pipe::new(&hooks::pipe_holder())?;
                    *slot = Arc::downgrade(&pipe);
                    pipe
                }
            }
        };
        let nonblocking = flags & O_NONBLOCK != 0;
        let (read, write) = access_of(flags)?;
        if write && !read && nonblocking && pipe.readers.load(SeqCst) == 0 {
            return Err(Errno::ENXIO);
        }
        let seen = (pipe.reader_opens.load(SeqCst), pipe.writer_opens.load(SeqCst));
        // Once we are announced, the other side may come, use the FIFO and go before we look again:
        // what counts is whether it was there before, or comes from here on.
        let partner = if read { &pipe.writers } else { &pipe.readers };
        let met = partner.load(SeqCst) > 0;
        let end = pipe.open_end(inode, read, write);
        if read && write || nonblocking || met {
            return Ok(end);
        }
        let (queue, present, opens, before) = if read {
            (&pipe.data, &pipe.writers, &pipe.writer_opens, seen.1)
        } else {
            (&pipe.space, &pipe.readers, &pipe.reader_opens, seen.0)
        };
        let met = || (present.load(SeqCst) > 0 || opens.load(SeqCst) != before).then_some(());
        queue.wait(WaitMode::Interruptible, None, met).map_err(|_| Errno::ERESTARTSYS)?;
        Ok(end)
    }
}
