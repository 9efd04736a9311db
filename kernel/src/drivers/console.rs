//! The console as a stream: what standard output and error of the main process are when no terminal
//! was asked for.
//!
//! As with `docker run` without `-t`, they look like a pipe, not like a terminal, and may be opened
//! again by `/dev/stdout` or `/proc/self/fd/1`.

use super::tty::console as input;
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::anon::AnonInode;
use crate::fs::inode::{Access, Change, Inode, Metadata, Opened, mode::S_IFIFO};
use crate::fs::{File, FileOps, Path};
use crate::io::{IoDst, IoSrc};
use crate::sync::{Mutex, Once, WaitMode};
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Longest piece that reaches the device without another writer's bytes in it: a line of any
/// sensible log.
const PIECE: usize = 1024;

static OUTPUT: Mutex<()> = Mutex::new(());
static SINK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sends the console's output to another device than the serial port from now on.
pub fn set_sink(sink: fn(&[u8])) {
    SINK.store(sink as *mut (), Ordering::Release);
}

/// Writes to the console. Task context.
pub fn write(bytes: &[u8]) {
    let _guard = OUTPUT.lock();
    emit(bytes);
}

/// Writes to the console's device; the caller keeps others away.
pub(super) fn emit(bytes: &[u8]) {
    let sink = SINK.load(Ordering::Acquire);
    if sink.is_null() {
        crate::arch::console_write(bytes);
    } else {
        // SAFETY: only `set_sink` stores here, and it stores `fn(&[u8])` pointers.
        let sink = unsafe { core::mem::transmute::<*mut (), fn(&[u8])>(sink) };
        sink(bytes);
    }
}

struct ConsoleInode(Arc<AnonInode>);

impl Inode for ConsoleInode {
    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn access(&self) -> Access {
        self.0.access()
    }

    fn change(&self, change: &Change) -> Result<()> {
        self.0.change(change)
    }

    fn open(self: Arc<Self>, _flags: u32, _path: &Path) -> Result<Opened> {
        Ok(Opened::Ops(Arc::new(Stream)))
    }
}

fn inode() -> &'static Arc<ConsoleInode> {
    static INODE: Once<Arc<ConsoleInode>> = Once::new();
    // Anybody may open it again: the main process may have dropped its privileges since.
    INODE.get_or_init(|| Arc::new(ConsoleInode(AnonInode::new(S_IFIFO | 0o666))))
}

struct Stream;

/// A description of the console for writing, or for reading what the host sends.
pub fn open(flags: u32) -> Arc<File> {
    File::anonymous(stream(), flags)
}

/// The operations of such a description.
pub(super) fn stream() -> Arc<dyn FileOps> {
    Arc::new(Stream)
}

impl FileOps for Stream {
    fn asynchronous(&self) -> bool {
        true
    }

    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        let mut piece = [0; PIECE];
        let len = piece.len().min(dst.remaining());
        let n = if file.nonblocking() {
            input::read(&mut piece[..len]).ok_or(Errno::EAGAIN)?
        } else {
            let queue = input::queue()?;
            let read = || input::read(&mut piece[..len]);
            let waited = queue.wait(WaitMode::Interruptible, None, read);
            waited.map_err(|_| Errno::ERESTARTSYS)?
        };
        dst.write(&piece[..n])
    }

    fn write(&self, _file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
        let mut piece = [0; PIECE];
        let before = src.done();
        while src.remaining() > 0 {
            match src.read(&mut piece) {
                Ok(n) => write(&piece[..n]),
                // Part of it is out already: that much is the result.
                Err(error) if src.done() == before => return Err(error),
                Err(_) => break,
            }
        }
        Ok(src.done() - before)
    }

    fn poll(&self, file: &File, table: &mut PollTable<'_>) -> Events {
        if !file.readable() {
            return Events::OUT | Events::WRNORM;
        }
        if let Ok(queue) = input::queue() {
            table.register(queue);
        }
        if input::readable() { Events::IN | Events::RDNORM } else { Events::empty() }
    }

    fn inode(&self) -> Arc<dyn Inode> {
        inode().clone()
    }

    fn describe(&self) -> String {
        alloc::format!("pipe:[{}]", inode().0.ino())
    }
}
