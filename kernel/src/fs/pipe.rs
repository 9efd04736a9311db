//! Pipes and FIFOs (pipe(7), fifo(7)).

use super::anon::AnonInode;
use super::inode::{Access, Change, Inode, Metadata, Opened, mode::*};
use super::{File, FileOps, Path, hooks};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::{IoDst, IoSrc, put_user};
use crate::map::Sorted;
use crate::sync::{Mutex, SpinLock, WaitMode, WaitQueue};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering::SeqCst};
use linux_raw_sys::general::{O_ACCMODE, O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};

/// Writes of up to this many bytes don't mix with others.
pub const PIPE_BUF: usize = 4096;
/// Capacity of a new pipe in bytes.
pub const DEFAULT_CAPACITY: usize = 64 * 1024;
/// Capacity that unprivileged processes may ask for (`fs.pipe-max-size`).
pub static MAX_CAPACITY: AtomicUsize = AtomicUsize::new(1024 * 1024);

/// Pages of pipes that a user may have before further ones are small (`fs.pipe-user-pages-soft`), and
/// at all (`fs.pipe-user-pages-hard`); 0: no limit.
pub static SOFT_PAGES: AtomicI64 = AtomicI64::new(16384);
/// See [`SOFT_PAGES`].
pub static HARD_PAGES: AtomicI64 = AtomicI64::new(0);
/// Capacity of a new pipe beyond the soft limit.
const SMALL: usize = 2 * PIPE_BUF;

/// Pages of pipes by user.
static CHARGED: SpinLock<Sorted<u32, i64>> = SpinLock::new(Sorted::new());

/// Who pays for a pipe, and which limits are none.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// The real user.
    pub uid: u32,
    /// Has CAP_SYS_RESOURCE: `fs.pipe-max-size` doesn't count.
    pub resource: bool,
    /// Has that or CAP_SYS_ADMIN: the limits of pages don't.
    pub exempt: bool,
}

/// Charges a user with `new` bytes of pipes in place of `old`. Returns all pages of the user.
fn charge(uid: u32, old: usize, new: usize) -> i64 {
    let mut charged = CHARGED.lock();
    let sum = charged.get_or_insert_with(uid, || 0);
    *sum += (new / PIPE_BUF) as i64 - (old / PIPE_BUF) as i64;
    let pages = *sum;
    if pages == 0 {
        charged.remove(&uid);
    }
    pages
}

fn beyond(pages: i64, limit: &AtomicI64) -> bool {
    let limit = limit.load(SeqCst);
    limit > 0 && pages > limit
}

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

/// Storage that starts small and grows to the capacity as it is needed.
#[derive(Default)]
struct Ring {
    buffer: Vec<u8>,
    head: usize,
    len: usize,
    /// How the contents were written, if packets (`O_DIRECT`) are or were among them: lengths, and
    /// whether each is one packet. Empty while no packet is in the pipe.
    pieces: VecDeque<(usize, bool)>,
}

impl Ring {
    /// Makes room for `len` bytes in all.
    fn reserve(&mut self, len: usize) -> Result<()> {
        if len <= self.buffer.len() {
            return Ok(());
        }
        let size = len.next_power_of_two().max(PIPE_BUF);
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
        let (one, two) = self.filled();
        buffer.extend_from_slice(one);
        buffer.extend_from_slice(two);
        buffer.resize(size, 0);
        self.buffer = buffer;
        self.head = 0;
        Ok(())
    }

    fn filled(&self) -> (&[u8], &[u8]) {
        let end = self.head + self.len;
        if end <= self.buffer.len() {
            return (&self.buffer[self.head..end], &[]);
        }
        (&self.buffer[self.head..], &self.buffer[..end - self.buffer.len()])
    }

    /// Notes that `len` bytes were written.
    fn note(&mut self, len: usize, packet: bool) {
        if packet && self.pieces.is_empty() && self.len > len {
            self.pieces.push_back((self.len - len, false));
        }
        if len > 0 && (packet || !self.pieces.is_empty()) {
            self.pieces.push_back((len, packet));
        }
    }

    /// How much one read may take at most.
    fn readable(&self) -> usize {
        self.pieces.front().map_or(self.len, |&(len, _)| len)
    }

    /// After a read of `count` bytes: removes them, and what a packet has beyond them.
    fn taken(&mut self, count: usize) {
        match self.pieces.front_mut() {
            None => self.consume(count),
            Some((len, packet)) => {
                let gone = if *packet { *len } else { count };
                *len -= gone;
                if *len == 0 {
                    self.pieces.pop_front();
                }
                self.consume(gone);
            }
        }
        if !self.pieces.iter().any(|&(_, packet)| packet) {
            self.pieces.clear();
        }
    }

    fn consume(&mut self, count: usize) {
        self.len -= count;
        self.head = if self.len == 0 { 0 } else { (self.head + count) % self.buffer.len() };
    }

    /// Appends up to `limit` bytes of `src`; there is room for them.
    fn fill(&mut self, src: &mut IoSrc<'_>, limit: usize) -> Result<usize> {
        let mut moved = 0;
        while moved < limit {
            let tail = (self.head + self.len) % self.buffer.len();
            let end = (tail + (limit - moved)).min(self.buffer.len());
            let n = match src.read(&mut self.buffer[tail..end]) {
                Ok(n) => n,
                Err(_) if moved > 0 => 0,
                Err(error) => return Err(error),
            };
            if n == 0 {
                break;
            }
            self.len += n;
            moved += n;
        }
        Ok(moved)
    }
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
            let ready = || (self.len() > 0 || self.writers.load(SeqCst) == 0).then_some(());
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
        let len = ring.len + bytes.len();
        ring.reserve(len)?;
        let size = ring.buffer.len();
        ring.head = (ring.head + size - bytes.len()) % size;
        let (head, first) = (ring.head, bytes.len().min(size - ring.head));
        ring.buffer[head..head + first].copy_from_slice(&bytes[..first]);
        ring.buffer[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        ring.len = len;
        if !ring.pieces.is_empty() {
            ring.pieces.push_front((bytes.len(), false));
        }
        self.len.store(len, SeqCst);
        drop(ring);
        self.data.wake_one(Events::IN | Events::RDNORM);
        Ok(())
    }

    /// Waits until something can be read. False at the end of input, EAGAIN if it would wait and
    /// must not.
    pub fn wait_for_data(&self, nonblocking: bool) -> Result<bool> {
        let ready = || {
            let some = self.len() > 0;
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

/// One open end of a pipe, or both (a FIFO opened `O_RDWR`).
pub struct PipeEnd {
    /// The pipe.
    pub pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    inode: Arc<dyn Inode>,
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
            if self.pipe.len() > 0 {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &File, bytes: &[u8]) -> Result<usize> {
        file.ops.write(file, &mut IoSrc::kernel(bytes))
    }

    fn read(file: &File, len: usize) -> Result<Vec<u8>> {
        let mut buf = alloc::vec![0; len];
        let n = file.ops.read(file, &mut IoDst::kernel(&mut buf))?;
        buf.truncate(n);
        Ok(buf)
    }

    fn ready(file: &File) -> Events {
        file.ops.poll(file, &mut PollTable::query())
    }

    #[test]
    fn bytes_come_out_in_order_across_the_wrap() {
        let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
        let mut next = 0u8;
        let mut expected = 0u8;
        for round in 0..300 {
            let chunk: Vec<u8> = (0..1000)
                .map(|_| {
                    next = next.wrapping_add(1);
                    next
                })
                .collect();
            assert_eq!(write(&w, &chunk), Ok(1000));
            let got = read(&r, 700 + round).unwrap();
            for byte in got {
                expected = expected.wrapping_add(1);
                assert_eq!(byte, expected);
            }
            if round > 200 {
                while let Ok(rest) = read(&r, 65536) {
                    for byte in rest {
                        expected = expected.wrapping_add(1);
                        assert_eq!(byte, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn small_writes_are_whole_and_large_ones_partial() {
        let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
        assert_eq!(write(&w, &[1; 100_000]), Ok(65536));
        assert!(!ready(&w).contains(Events::OUT));
        assert_eq!(read(&r, 100).unwrap().len(), 100);
        assert_eq!(write(&w, &[2; 101]), Err(Errno::EAGAIN));
        assert_eq!(write(&w, &[2; 100]), Ok(100));
        assert_eq!(write(&w, &[2; 5000]), Err(Errno::EAGAIN));
    }

    #[test]
    fn ends_that_are_gone_show() {
        let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
        assert_eq!(read(&r, 1), Err(Errno::EAGAIN));
        write(&w, b"x").unwrap();
        drop(w);
        assert_eq!(ready(&r), Events::IN | Events::RDNORM | Events::HUP);
        assert_eq!(read(&r, 10).unwrap(), b"x");
        assert_eq!(read(&r, 10).unwrap(), b"");
        let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
        drop(r);
        assert!(ready(&w).contains(Events::ERR));
        assert_eq!(write(&w, b"x"), Err(Errno::EPIPE));
    }

    #[test]
    fn capacity_can_be_set_but_not_below_the_contents() {
        let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
        let end = w.downcast::<PipeEnd>().unwrap();
        let common = Holder { uid: 0, resource: false, exempt: false };
        assert_eq!(end.pipe.set_capacity(5000, &common), Ok(8192));
        assert_eq!(write(&w, &[0; 10000]), Ok(8192));
        assert_eq!(end.pipe.set_capacity(4096, &common), Err(Errno::EBUSY));
        assert_eq!(end.pipe.set_capacity(2 << 20, &common), Err(Errno::EPERM));
        assert_eq!(end.pipe.set_capacity(2 << 20, &hooks::pipe_holder()), Ok(2 << 20));
        assert_eq!(read(&r, 9000).unwrap().len(), 8192);
    }

    #[test]
    fn fifos_without_readers_refuse_nonblocking_writers() {
        let fifo = Fifo::default();
        let inode: Arc<dyn Inode> = AnonInode::new(S_IFIFO | 0o600);
        let open = |flags| fifo.open(inode.clone(), flags);
        assert_eq!(open(O_WRONLY | O_NONBLOCK).err(), Some(Errno::ENXIO));
        let reader = open(O_RDONLY | O_NONBLOCK).unwrap();
        let writer = open(O_WRONLY).unwrap();
        drop((reader, writer));
        assert!(open(O_RDWR).is_ok());
    }

    #[test]
    fn a_pipe_can_be_opened_again_by_its_descriptor_link() {
        let (r, w) = pipe(O_NONBLOCK, 7, 7).unwrap();
        let place = crate::fs::anon::place(w.inode());
        let open = |flags| {
            crate::fs::ops::open_found(&crate::fs::perm::Kernel, place.clone(), flags, false)
        };
        let again = open(O_WRONLY).unwrap();
        drop(w);
        write(&again, b"still").unwrap();
        assert_eq!(read(&r, 10).unwrap(), b"still");
        assert_eq!(read(&r, 10), Err(Errno::EAGAIN));
        drop(again);
        assert_eq!(read(&r, 10).unwrap(), b"");
        drop(r);
        assert_eq!(open(O_RDONLY).err(), Some(Errno::ENXIO));
    }

    #[test]
    fn bytes_put_back_come_out_first() {
        let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
        let end = r.downcast::<PipeEnd>().unwrap();
        write(&w, b"abcdef").unwrap();
        assert_eq!(read(&r, 4).unwrap(), b"abcd");
        end.pipe.unread(b"cd").unwrap();
        assert_eq!(end.pipe.peek(3).unwrap(), b"cde");
        assert_eq!(read(&r, 10).unwrap(), b"cdef");
        end.pipe.unread(b"xyz").unwrap();
        assert_eq!(read(&r, 10).unwrap(), b"xyz");
    }

    #[test]
    fn packets_end_reads_and_lose_what_was_not_taken() {
        let (r, w) = pipe(O_NONBLOCK | O_DIRECT, 0, 0).unwrap();
        write(&w, b"first").unwrap();
        write(&w, b"second").unwrap();
        assert_eq!(read(&r, 100).unwrap(), b"first");
        assert_eq!(read(&r, 2).unwrap(), b"se");
        assert_eq!(read(&r, 100), Err(Errno::EAGAIN));
        assert_eq!(write(&w, &[1; 5000]), Ok(5000));
        assert_eq!(read(&r, 9000).unwrap().len(), 4096);
        assert_eq!(read(&r, 9000).unwrap().len(), 904);
        w.update_flags(O_DIRECT, 0);
        write(&w, b"plain").unwrap();
        write(&w, b"bytes").unwrap();
        assert_eq!(read(&r, 100).unwrap(), b"plainbytes");
    }
}
