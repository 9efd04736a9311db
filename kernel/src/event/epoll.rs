//! epoll(7).
//!
//! An [`Epoll`] holds one [`Item`] per watched (descriptor, description) pair. Each item observes
//! the wait queues of its file; a wake-up puts it on the ready list. epoll_wait(2) looks only at
//! that list, so it costs what is ready, not what is watched.
//!
//! # Concurrency
//! | lock | kind | protects |
//! |---|---|---|
//! | `interest` | `Mutex` | the items; held during control calls |
//! | `scan` | `Mutex` | one collector at a time, so that a level-triggered item put back is not missed by another |
//! | `ready` | `IrqLock` | the ready list; taken from wake-ups under the source's queue lock |
//!
//! Order: `interest`, `scan`, a source's wait queue, `ready`, the epoll's own wait queue.

use super::{Events, PollTable};
use crate::errno::{Errno, Result};
use crate::fs::{File, FileOps};
use crate::map::{Tree, pair};
use crate::sync::{
    IrqLock, Mutex, Observer, Registration, SpinLock, WaitError, WaitMode, WaitQueue,
};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::general::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT,
};

/// Linux lets five epolls watch each other in a chain (`EP_MAX_NESTS` is 4 links).
const MAX_NESTING: usize = 4;
/// Serialises control calls that nest one epoll in another, so that two of them can't close a cycle
/// together.
static NESTING: Mutex<()> = Mutex::new(());
/// `EPOLLWAKEUP`: accepted and without effect, as for a process without `CAP_BLOCK_SUSPEND`.
const EPOLLWAKEUP: u32 = 1 << 29;
const INPUT_FLAGS: u32 = EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP;

/// `struct epoll_event` (packed on x86-64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Event bits and flags.
    pub events: u32,
    /// The caller's word.
    pub data: u64,
}

impl Event {
    /// Size in user memory.
    pub const SIZE: usize = 12;

    /// Reads one from its user layout.
    pub fn parse(raw: [u8; Self::SIZE]) -> Event {
        let [a, b, c, d, data @ ..] = raw;
        Event { events: u32::from_le_bytes([a, b, c, d]), data: u64::from_le_bytes(data) }
    }

    /// Its user layout.
    pub fn emit(self) -> [u8; Self::SIZE] {
        let mut raw = [0; Self::SIZE];
        raw[..4].copy_from_slice(&self.events.to_le_bytes());
        raw[4..].copy_from_slice(&self.data.to_le_bytes());
        raw
    }
}

fn key(fd: i32, file: *const File) -> u128 {
    pair(fd as u64, file.addr() as u64)
}

/// An epoll instance.
pub struct Epoll {
    /// By descriptor and address of the open file.
    interest: Mutex<Tree<Arc<Item>>>,
    scan: Mutex<()>,
    ready: IrqLock<VecDeque<Arc<Item>>>,
    queue: Arc<WaitQueue>,
}

/// One watched file.
struct Item {
    epoll: Weak<Epoll>,
    file: Weak<File>,
    fd: i32,
    /// Requested event bits and flags; only flags remain once a one-shot item has fired.
    events: AtomicU32,
    data: AtomicU64,
    /// On the ready list.
    queued: AtomicBool,
    registrations: SpinLock<Vec<Registration>>,
}

/// Items that watch one file: kept in the [`File`], so that its last close takes it out of every
/// epoll.
pub struct Watchers(SpinLock<Vec<Weak<Item>>>);

impl Watchers {
    /// Nobody watches.
    pub const fn new() -> Watchers {
        Watchers(SpinLock::new(Vec::new()))
    }

    /// The file is gone: forget it everywhere.
    pub fn detach(&mut self) {
        for item in core::mem::take(self.0.get_mut()).iter().filter_map(Weak::upgrade) {
            if let Some(epoll) = item.epoll.upgrade() {
                epoll.forget(&item);
            }
        }
    }
}

impl Default for Watchers {
    fn default() -> Self {
        Watchers::new()
    }
}

impl Item {
    /// A counted reference to this item.
    fn owned(&self) -> Arc<Item> {
        let item: *const Item = self;
        // SAFETY: items are made by `Arc::new` in `control` only, and the reference we were called
        // by comes from it.
        unsafe {
            Arc::increment_strong_count(item);
            Arc::from_raw(item)
        }
    }

    fn flag(&self, flag: u32) -> bool {
        self.events.load(Ordering::Relaxed) & flag != 0
    }

    /// What the caller wants to hear of; errors and hang-ups always, unless a one-shot has disabled
    /// the item.
    fn interest(&self) -> Events {
        let events = self.events.load(Ordering::Acquire);
        if events & !INPUT_FLAGS == 0 && events & EPOLLONESHOT != 0 {
            return Events::empty();
        }
        Events::from_bits_truncate(events) | Events::ERR | Events::HUP
    }

    /// Asks the file, without registering.
    fn present(&self, file: &File) -> Events {
        file.ops.poll(file, &mut PollTable::query()) & self.interest()
    }
}

impl Observer for Item {
    fn notify(&self, events: Events) -> bool {
        if !events.intersects(self.interest()) {
            return false;
        }
        let Some(epoll) = self.epoll.upgrade() else { return false };
        let woken = epoll.push_ready(self);
        // An exclusive item takes the event only if somebody is there to handle it.
        !self.flag(EPOLLEXCLUSIVE) || woken
    }
}

impl Epoll {
    /// An instance that watches nothing.
    pub fn new() -> Arc<Epoll> {
        Arc::new(Epoll {
            interest: Mutex::new(Tree::new()),
            scan: Mutex::new(()),
            ready: IrqLock::new(VecDeque::new()),
            queue: Arc::new(WaitQueue::new()),
        })
    }

    /// epoll_ctl(2). `this` is the epoll's own description, to refuse watching itself.
    pub fn control(
        self: &Arc<Self>,
        this: &Arc<File>,
        op: u32,
        fd: i32,
        file: &Arc<File>,
        event: Event,
    ) -> Result<()> {
        if Arc::ptr_eq(this, file) {
            return Err(Errno::EINVAL);
        }
        if !file.ops.pollable() {
            return Err(Errno::EPERM);
        }
        let exclusive = event.events & EPOLLEXCLUSIVE != 0;
        if op != EPOLL_CTL_DEL && exclusive {
            let allowed = Events::IN | Events::OUT | Events::ERR | Events::HUP;
            let allowed = allowed.bits() | EPOLLET | EPOLLEXCLUSIVE | EPOLLWAKEUP;
            let nested = file.downcast::<EpollFile>().is_some();
            if op == EPOLL_CTL_MOD || event.events & !allowed != 0 || nested {
                return Err(Errno::EINVAL);
            }
        }
        let nested = (op == EPOLL_CTL_ADD).then(|| file.downcast::<EpollFile>()).flatten();
        let _nesting = nested.map(|_| NESTING.lock());
        if let Some(inner) = nested
            && (inner.0.reaches(self, 0)? || inner.0.depth(0) + 1 > MAX_NESTING)
        {
            return Err(Errno::ELOOP);
        }
        let key = key(fd, Arc::as_ptr(file));
        let mut interest = self.interest.lock();
        match op {
            EPOLL_CTL_ADD => {
                if interest.contains_key(key) {
                    return Err(Errno::EEXIST);
                }
                let item = Arc::new(Item {
                    epoll: Arc::downgrade(self),
                    file: Arc::downgrade(file),
                    fd,
                    events: AtomicU32::new(event.events),
                    data: AtomicU64::new(event.data),
                    queued: AtomicBool::new(false),
                    registrations: SpinLock::new(Vec::new()),
                });
                interest.insert(key, item.clone());
                {
                    let mut watchers = file.watchers.0.lock();
                    watchers.retain(|watcher| watcher.strong_count() > 0);
                    watchers.push(Arc::downgrade(&item));
                }
                let observer: Arc<dyn Observer> = item.clone();
                let mut table = PollTable::observing(&observer, exclusive);
                let now = file.ops.poll(file, &mut table);
                *item.registrations.lock() = table.into_registrations();
                if now.intersects(item.interest()) {
                    self.push_ready(&item);
                }
                Ok(())
            }
            EPOLL_CTL_DEL => {
                let item = interest.remove(key).ok_or(Errno::ENOENT)?;
                drop(interest);
                self.disconnect(&item);
                Ok(())
            }
            EPOLL_CTL_MOD => {
                let item = interest.get(key).ok_or(Errno::ENOENT)?;
                if item.flag(EPOLLEXCLUSIVE) {
                    return Err(Errno::EINVAL);
                }
                item.data.store(event.data, Ordering::Relaxed);
                item.events.store(event.events, Ordering::Release);
                core::sync::atomic::fence(Ordering::SeqCst);
                if !item.present(file).is_empty() {
                    self.push_ready(item);
                }
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Waits until something is ready or the deadline (monotonic nanoseconds; `Some(0)` is at once)
    /// passes, then hands up to `max` events to `emit`. Returns how many; EINTR if a signal comes
    /// first.
    pub fn wait(
        &self,
        max: usize,
        deadline: Option<u64>,
        emit: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<usize> {
        loop {
            let n = self.collect(max, emit)?;
            if n > 0 || deadline == Some(0) {
                return Ok(n);
            }
            let ready = || (!self.ready.lock().is_empty()).then_some(());
            match self.queue.wait_exclusive(WaitMode::Interruptible, deadline, ready) {
                Ok(()) => {}
                Err(WaitError::TimedOut) => return self.collect(max, emit),
                Err(WaitError::Interrupted) => return Err(Errno::EINTR),
            }
        }
    }

    /// Hands out what is ready now, without waiting.
    fn collect(&self, max: usize, emit: &mut dyn FnMut(Event) -> Result<()>) -> Result<usize> {
        if self.ready.lock().is_empty() {
            return Ok(0);
        }
        let _scan = self.scan.lock();
        // Items put back during this walk wait for the next call: one look at each.
        let mut left = self.ready.lock().len();
        let mut put_back = false;
        let mut given = 0;
        let mut outcome = Ok(());
        while given < max && left > 0 {
            left -= 1;
            let Some(item) = self.ready.lock().pop_front() else { break };
            // Cleared before the file is asked, so that a change from here on queues the item
            // again.
            item.queued.store(false, Ordering::SeqCst);
            let Some(file) = item.file.upgrade() else { continue };
            let present = item.present(&file);
            if present.is_empty() {
                continue;
            }
            let event = Event { events: present.bits(), data: item.data.load(Ordering::Relaxed) };
            if let Err(error) = emit(event) {
                self.push_quietly(&item);
                outcome = Err(error);
                break;
            }
            given += 1;
            if item.flag(EPOLLONESHOT) {
                item.events.fetch_and(INPUT_FLAGS, Ordering::AcqRel);
            } else if !item.flag(EPOLLET) {
                self.push_quietly(&item);
                put_back = true;
            }
        }
        // What is left over, or level-triggered and put back, is for the next sleeper.
        if (put_back || left > 0) && !self.queue.is_empty() {
            self.queue.wake_one(Events::IN);
        }
        if given > 0 { Ok(given) } else { outcome.map(|()| 0) }
    }

    /// Queues an item and wakes a sleeper; returns whether somebody was woken.
    fn push_ready(&self, item: &Item) -> bool {
        if !item.queued.swap(true, Ordering::SeqCst) {
            self.ready.lock().push_back(item.owned());
        }
        self.queue.wake_one(Events::IN | Events::RDNORM) > 0
    }

    fn push_quietly(&self, item: &Arc<Item>) {
        if !item.queued.swap(true, Ordering::SeqCst) {
            self.ready.lock().push_back(item.clone());
        }
    }

    /// Takes an item whose file is gone out of the interest list.
    fn forget(&self, item: &Arc<Item>) {
        self.interest.lock().remove(key(item.fd, item.file.as_ptr()));
        self.disconnect(item);
    }

    fn disconnect(&self, item: &Item) {
        // Dropping a registration takes the source's queue lock; never do that under our own.
        let registrations = core::mem::take(&mut *item.registrations.lock());
        drop(registrations);
        item.events.store(EPOLLONESHOT, Ordering::Release);
        self.ready.lock().retain(|queued| !core::ptr::eq(&**queued, item));
    }

    /// Whether `target` is watched from here, directly or through other epolls.
    fn reaches(&self, target: &Epoll, depth: usize) -> Result<bool> {
        if core::ptr::eq(self, target) {
            return Ok(true);
        }
        if depth > MAX_NESTING {
            return Err(Errno::ELOOP);
        }
        for file in self.files() {
            if let Some(inner) = file.downcast::<EpollFile>()
                && inner.0.reaches(target, depth + 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Links in the longest chain of epolls below this one.
    fn depth(&self, above: usize) -> usize {
        if above > MAX_NESTING {
            return above;
        }
        let below = self.files().into_iter().filter_map(|file| {
            file.downcast::<EpollFile>().map(|inner| 1 + inner.0.depth(above + 1))
        });
        below.max().unwrap_or(0)
    }

    fn files(&self) -> Vec<Arc<File>> {
        self.interest.lock().values().filter_map(|item| item.file.upgrade()).collect()
    }

    /// Lines of /proc/PID/fdinfo/FD (proc(5)).
    pub fn describe_items(&self) -> String {
        use core::fmt::Write;
        let mut out = String::new();
        for item in self.interest.lock().values() {
            let events = item.events.load(Ordering::Relaxed);
            let data = item.data.load(Ordering::Relaxed);
            let _ = writeln!(out, "tfd: {:8} events: {events:8x} data: {data:16x} ", item.fd);
        }
        out
    }
}

/// The open file behind an epoll descriptor.
pub struct EpollFile(pub Arc<Epoll>);

impl FileOps for EpollFile {
    fn details(&self) -> String {
        self.0.describe_items()
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&self.0.queue);
        let items: Vec<Arc<Item>> = self.0.ready.lock().iter().cloned().collect();
        let ready = items
            .iter()
            .any(|item| item.file.upgrade().is_some_and(|file| !item.present(&file).is_empty()));
        if ready { Events::IN | Events::RDNORM } else { Events::empty() }
    }

    fn inode(&self) -> Arc<dyn crate::fs::Inode> {
        crate::fs::anon::inode()
    }

    fn release(&self, _file: &File) {
        let items = core::mem::take(&mut *self.0.interest.lock());
        for item in items.values() {
            self.0.disconnect(item);
        }
    }

    fn describe(&self) -> String {
        String::from("anon_inode:[eventpoll]")
    }
}
