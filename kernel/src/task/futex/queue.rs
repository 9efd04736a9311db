//! The wait queues of futexes, hashed by key.

use crate::sync::{IrqGuard, IrqLock};
use crate::task::{Task, sched};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What tells one futex word from another.
pub type Key = (usize, usize);

const BUCKETS: usize = 256;

/// A task that sleeps on a word.
pub struct Waiter {
    task: Arc<Task>,
    /// Only wake-ups that share a bit with this are for it.
    bitset: u32,
    woken: AtomicBool,
    /// Where it is queued; changes by requeueing, under the locks of both buckets.
    bucket: AtomicUsize,
}

struct Entry {
    key: Key,
    waiter: Arc<Waiter>,
}

/// One hash bucket.
#[derive(Default)]
pub struct Bucket {
    entries: VecDeque<Entry>,
}

static TABLE: [IrqLock<Bucket>; BUCKETS] =
    [const { IrqLock::new(Bucket { entries: VecDeque::new() }) }; BUCKETS];

fn index(key: Key) -> usize {
    // Words of one page differ in the low bits, pages in the middle ones: multiply to mix both.
    let mixed = (key.0 as u64 ^ (key.1 as u64 >> 2)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as usize % BUCKETS
}

/// Locks the bucket of a key.
pub fn lock(key: Key) -> IrqGuard<'static, Bucket> {
    TABLE[index(key)].lock()
}

/// Locks the buckets of two keys, in table order; the second guard is `None` if they share one.
pub fn lock_two(
    first: Key,
    second: Key,
) -> (IrqGuard<'static, Bucket>, Option<IrqGuard<'static, Bucket>>) {
    let (a, b) = (index(first), index(second));
    if a == b {
        return (TABLE[a].lock(), None);
    }
    if a < b {
        let low = TABLE[a].lock();
        return (low, Some(TABLE[b].lock()));
    }
    let low = TABLE[b].lock();
    (TABLE[a].lock(), Some(low))
}

impl Bucket {
    /// Queues the task.
    pub fn enqueue(&mut self, key: Key, task: Arc<Task>, bitset: u32) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter {
            task,
            bitset,
            woken: AtomicBool::new(false),
            bucket: AtomicUsize::new(index(key)),
        });
        self.entries.push_back(Entry { key, waiter: waiter.clone() });
        waiter
    }

    /// Wakes up to `max` waiters of `key` that share a bit with `bitset`; returns how many.
    pub fn wake(&mut self, key: Key, max: usize, bitset: u32) -> usize {
        let mut woken = 0;
        let mut at = 0;
        while woken < max && at < self.entries.len() {
            let entry = &self.entries[at];
            if entry.key != key || entry.waiter.bitset & bitset == 0 {
                at += 1;
                continue;
            }
            if let Some(entry) = self.entries.remove(at) {
                entry.waiter.wake();
                woken += 1;
            }
        }
        woken
    }

    /// Takes out up to `max` waiters of `key`.
    fn take(&mut self, key: Key, max: usize) -> VecDeque<Entry> {
        let mut taken = VecDeque::new();
        let mut at = 0;
        while taken.len() < max && at < self.entries.len() {
            if self.entries[at].key == key {
                taken.extend(self.entries.remove(at));
            } else {
                at += 1;
            }
        }
        taken
    }

    /// The first waiter of `key`, and whether there are others.
    pub fn first(&self, key: Key) -> Option<(&Arc<Waiter>, bool)> {
        let mut found = self.entries.iter().filter(|entry| entry.key == key);
        let first = found.next()?;
        Some((&first.waiter, found.next().is_some()))
    }
}

/// Moves up to `max` waiters of `from` to `to`. `target` is the bucket of `to` if it isn't `source`
/// itself.
pub fn requeue(
    source: &mut Bucket,
    target: Option<&mut Bucket>,
    from: Key,
    to: Key,
    max: usize,
) -> usize {
    let mut moved = source.take(from, max);
    for entry in &mut moved {
        entry.key = to;
        entry.waiter.bucket.store(index(to), Ordering::Release);
    }
    let n = moved.len();
    target.unwrap_or(source).entries.append(&mut moved);
    n
}

impl Waiter {
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        sched::wake(&self.task);
    }

    /// Whether somebody woke it.
    pub fn woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// The sleeping task's number.
    pub fn tid(&self) -> i32 {
        self.task.tid()
    }

    /// Takes it out of its queue. Returns whether it was there: if not, somebody has woken it.
    pub fn unqueue(self: &Arc<Self>) -> bool {
        loop {
            if self.woken() {
                return false;
            }
            let bucket = self.bucket.load(Ordering::Acquire);
            let mut locked = TABLE[bucket].lock();
            if self.bucket.load(Ordering::Acquire) != bucket {
                continue;
            }
            let at = locked.entries.iter().position(|entry| Arc::ptr_eq(&entry.waiter, self));
            let entry = at.and_then(|at| locked.entries.remove(at));
            drop(locked);
            return entry.is_some();
        }
    }
}
