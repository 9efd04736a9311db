//! Pipes and FIFOs (pipe(7), fifo(7)).

mod end;
mod quota;
mod ring;

use super::hooks;
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::io::{IoDst, IoSrc};
use crate::sync::{Mutex, WaitMode, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
pub use end::{Fifo, PipeEnd, pipe};
pub use quota::{HARD_PAGES, Holder, SOFT_PAGES};
use quota::{beyond, charge};
use ring::Ring;

/// Writes of up to this many bytes don't mix with others.
pub const PIPE_BUF: usize = 4096;
/// Capacity of a new pipe in bytes.
pub const DEFAULT_CAPACITY: usize = 64 * 1024;
/// Capacity that unprivileged processes may ask for (`fs.pipe-max-size`).
pub static MAX_CAPACITY: AtomicUsize = AtomicUsize::new(1024 * 1024);

/// Capacity of a new pipe beyond the soft limit.
const SMALL: usize = 2 * PIPE_BUF;

/// A capacity as pipes can have it. EINVAL if it is too large.
pub fn rounded(bytes: usize) -> Result<usize> {
    if bytes > 1 << 31 {
        return Err(Errno::EINVAL);
    }
    Ok(bytes.max(PIPE_BUF).next_power_of_two())
}

/// A byte queue between writers and readers.
pub struct Pipe {
    ring: Mutex<Ring>,
    /// Bytes in the ring, readable without its lock.
    len: AtomicUsize,
    capacity: AtomicUsize,
    /// Who pays for the capacity.
    uid: u32,
    readers: AtomicU32,
    writers: AtomicU32,
    /// Opens so far: a FIFO's open waits for the other side to have been there, however briefly.
    reader_opens: AtomicU32,
    writer_opens: AtomicU32,
    /// Readers sleep and pollers for input listen here.
    data: Arc<WaitQueue>,
    /// Writers sleep and pollers for output listen here.
    space: Arc<WaitQueue>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        charge(self.uid, self.capacity(), 0);
    }
}

impl Pipe {
    /// An empty pipe. ENFILE if the user has too many.
    fn new(holder: &Holder) -> Result<Arc<Pipe>> {
        let uid = holder.uid;
        let most = if holder.resource { usize::MAX } else { MAX_CAPACITY.load(SeqCst) };
        let mut capacity = DEFAULT_CAPACITY.min(most);
        let mut pages = charge(uid, 0, capacity);
        if !holder.exempt && beyond(pages, &SOFT_PAGES) {
            let small = capacity.min(SMALL);
            pages = charge(uid, capacity, small);
            capacity = small;
        }
        if !holder.exempt && beyond(pages, &HARD_PAGES) {
            charge(uid, capacity, 0);
            return Err(Errno::ENFILE);
        }
        Ok(Arc::new(Pipe {
            ring: Mutex::new(Ring::default()),
            len: AtomicUsize::new(0),
            capacity: AtomicUsize::new(capacity),
            uid,
            readers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            reader_opens: AtomicU32::new(0),
            writer_opens: AtomicU32::new(0),
            data: Arc::new(WaitQueue::new()),
            space: Arc::new(WaitQueue::new()),
        }))
    }

    /// Bytes that can be read.
    pub fn len(&self) -> usize {
        self.len.load(SeqCst)
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity.load(SeqCst)
    }

    /// Sets the capacity, rounded up to a power of two of pages (`F_SETPIPE_SZ`). EPERM above the
    /// limits for callers who may not exceed them; EBUSY if it holds more. Returns what was set.
    pub fn set_capacity(&self, bytes: usize, holder: &Holder) -> Result<usize> {
        let size = rounded(bytes)?;
        let ring = self.ring.lock();
        let old = self.capacity();
        if size > old && size > MAX_CAPACITY.load(SeqCst) && !holder.resource {
            return Err(Errno::EPERM);
        }
        if ring.len > size {
            return Err(Errno::EBUSY);
        }
        let pages = charge(self.uid, old, size);
        let beyond = beyond(pages, &SOFT_PAGES) || beyond(pages, &HARD_PAGES);
        if size > old && beyond && !holder.exempt {
            charge(self.uid, size, old);
            return Err(Errno::EPERM);
        }
        self.capacity.store(size, SeqCst);
        drop(ring);
        self.space.wake_one(Events::OUT | Events::WRNORM);
        Ok(size)
    }

    /// Reads as read(2) does.
    pub fn read(&self, nonblocking: bool, dst: &mut IoDst<'_>) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        loop {
            if let Some(moved) = self.take(dst)? {
                return Ok(moved);
            }
            if self.writers.load(SeqCst) == 0 {
                // A writer may have left data behind between the two looks.
                return Ok(self.take(dst)?.unwrap_or(0));
            }
            if nonblocking {
                return Err(Errno::EAGAIN);
            }
            let ready = || (!self.is_empty() || self.writers.load(SeqCst) == 0).then_some(());
            self.data.wait(WaitMode::Interruptible, None, ready).map_err(|_| Errno::ERESTARTSYS)?;
        }
    }

    /// Moves what is there; `None` if there is nothing.
    fn take(&self, dst: &mut IoDst<'_>) -> Result<Option<usize>> {
        let mut ring = self.ring.lock();
        if ring.len == 0 {
            return Ok(None);
        }
        let (one, two) = ring.filled();
        let limit = ring.readable();
        let (one, two) =
            (&one[..one.len().min(limit)], &two[..two.len().min(limit.saturating_sub(one.len()))]);
        let mut moved = dst.write(one)?;
        if moved == one.len() && !two.is_empty() && dst.remaining() > 0 {
            moved += dst.write(two).unwrap_or(0);
        }
        ring.taken(moved);
        self.len.store(ring.len, SeqCst);
        drop(ring);
        self.space.wake_one(Events::OUT | Events::WRNORM);
        Ok(Some(moved))
    }

    /// Copies up to `limit` bytes without consuming them (tee(2)).
    pub fn peek(&self, limit: usize) -> Result<Vec<u8>> {
        let ring = self.ring.lock();
        let mut out = Vec::new();
        let (one, two) = ring.filled();
        out.try_reserve(limit.min(ring.len)).map_err(|_| Errno::ENOMEM)?;
        out.extend_from_slice(&one[..one.len().min(limit)]);
        out.extend_from_slice(&two[..two.len().min(limit - out.len())]);
        Ok(out)
    }

    /// Puts bytes back that were read last, in front of what is there now.
    pub fn unread(&self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut ring = self.ring.lock();
        ring.unread(bytes)?;
        self.len.store(ring.len, SeqCst);
        drop(ring);
        self.data.wake_one(Events::IN | Events::RDNORM);
        Ok(())
    }

    /// Waits until something can be read. False at the end of input, EAGAIN if it would wait and
    /// must not.
    pub fn wait_for_data(&self, nonblocking: bool) -> Result<bool> {
        let ready = || {
            let some = !self.is_empty();
            (some || self.writers.load(SeqCst) == 0).then_some(some)
        };
        match ready() {
            Some(some) => Ok(some),
            None if nonblocking => Err(Errno::EAGAIN),
            None => {
                self.data.wait(WaitMode::Interruptible, None, ready).map_err(|_| Errno::ERESTARTSYS)
            }
        }
    }

    /// Waits until something can be spliced in; returns how much. Pages are what pipes hold in Linux: a
    /// page that is partly full takes none. EPIPE (with SIGPIPE) without readers, EAGAIN if it would
    /// wait and must not.
    pub fn wait_for_room(&self, nonblocking: bool) -> Result<usize> {
        let ready = || {
            let room = self.capacity().saturating_sub(self.len().next_multiple_of(PIPE_BUF));
            (room > 0 || self.readers.load(SeqCst) == 0).then_some(room)
        };
        let room = match ready() {
            Some(room) => room,
            None if nonblocking => return Err(Errno::EAGAIN),
            None => self
                .space
                .wait(WaitMode::Interruptible, None, ready)
                .map_err(|_| Errno::ERESTARTSYS)?,
        };
        if self.readers.load(SeqCst) == 0 {
            hooks::broken_pipe();
            return Err(Errno::EPIPE);
        }
        Ok(room)
    }

    fn write(&self, nonblocking: bool, packets: bool, src: &mut IoSrc<'_>) -> Result<usize> {
        let total = src.remaining();
        if total == 0 {
            return Ok(0);
        }
        let whole = total <= PIPE_BUF;
        let mut done = 0;
        loop {
            if self.readers.load(SeqCst) == 0 {
                // The signal comes even if the call returns what it could write.
                hooks::broken_pipe();
                return if done > 0 { Ok(done) } else { Err(Errno::EPIPE) };
            }
            match self.put(src, if whole { total } else { 1 }, packets) {
                Ok(moved) => done += moved,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
            if src.remaining() == 0 {
                return Ok(done);
            }
            if packets && !whole && self.capacity().saturating_sub(self.len()) > 0 {
                continue;
            }
            if nonblocking {
                return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) };
            }
            let need = if whole { total } else { 1 };
            let ready = || {
                (self.capacity().saturating_sub(self.len()) >= need
                    || self.readers.load(SeqCst) == 0)
                    .then_some(())
            };
            if self.space.wait(WaitMode::Interruptible, None, ready).is_err() {
                return if done > 0 { Ok(done) } else { Err(Errno::ERESTARTSYS) };
            }
        }
    }

    /// Moves what fits if at least `need` bytes do.
    fn put(&self, src: &mut IoSrc<'_>, need: usize, packet: bool) -> Result<usize> {
        let mut ring = self.ring.lock();
        let room = self.capacity().saturating_sub(ring.len);
        if room < need {
            return Ok(0);
        }
        let most = if packet { PIPE_BUF } else { usize::MAX };
        let count = room.min(src.remaining()).min(most);
        let len = ring.len + count;
        ring.reserve(len)?;
        let moved = ring.fill(src, count)?;
        ring.note(moved, packet);
        self.len.store(ring.len, SeqCst);
        drop(ring);
        self.data.wake_one(Events::IN | Events::RDNORM);
        Ok(moved)
    }
}

#[cfg(test)]
mod tests;
