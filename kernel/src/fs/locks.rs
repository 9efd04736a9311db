//! Locks on files: flock(2), POSIX record locks and open file description locks (fcntl_locking(2)).
//!
//! Locks are kept in a table beside the inodes, since hardly any file is ever locked. Blocked tasks
//! sleep on their file's queue and try again when something was released.

use super::inode::{Inode, identity};
use super::{FdTable, File};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::map::Tree;
use crate::sync::{SpinLock, WaitMode, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A process, known by its descriptor table (POSIX locks).
    Table(usize),
    /// An open file description (OFD locks).
    Description(usize),
}

/// The last byte of the largest possible range.
pub const END: u64 = i64::MAX as u64;

/// A record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// Exclusive (`F_WRLCK`) or shared (`F_RDLCK`).
    pub write: bool,
    /// Who holds it.
    pub owner: Owner,
    /// Process shown by `F_GETLK`; -1 for description locks.
    pub pid: i32,
    /// The open file description that it was set by.
    pub by: usize,
}

impl Record {
    fn overlaps(&self, other: &Record) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn conflicts(&self, other: &Record) -> bool {
        self.overlaps(other) && self.owner != other.owner && (self.write || other.write)
    }
}

/// What a lock is, as /proc/locks calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// flock(2)
    Flock,
    /// fcntl(2), `F_SETLK`
    Posix,
    /// fcntl(2), `F_OFD_SETLK`
    Description,
    /// fcntl(2), `F_SETLEASE`; whether it is about to go.
    Lease { breaking: bool },
}

/// A lock, or somebody who waits for one, as /proc/locks shows them.
pub struct Listed {
    /// What it is.
    pub kind: Kind,
    /// Whether it isn't held yet.
    pub waiting: bool,
    /// Range, mode and process.
    pub record: Record,
    /// The file.
    pub inode: Arc<dyn Inode>,
}

/// Who waits, for a lock of the whole file or a record.
struct Waiter {
    number: usize,
    flock: bool,
    record: Record,
}

#[derive(Default)]
struct State {
    records: Vec<Record>,
    /// Locks of the whole file, held by descriptions.
    flocks: Vec<Record>,
    waiters: Vec<Waiter>,
}

impl State {
    /// Removes `range` from its owner's locks, splitting those that reach out of it.
    fn clear(&mut self, range: &Record) {
        let mut rest = Vec::new();
        self.records.retain(|record| {
            if record.owner != range.owner || !record.overlaps(range) {
                return true;
            }
            if record.start < range.start {
                rest.push(Record { end: range.start - 1, ..*record });
            }
            if record.end > range.end {
                rest.push(Record { start: range.end + 1, ..*record });
            }
            false
        });
        self.records.extend(rest);
    }

    fn set(&mut self, range: Record) {
        self.clear(&range);
        // Neighbours of the same kind become one.
        let mut merged = range;
        self.records.retain(|record| {
            let same = record.owner == range.owner && record.write == range.write;
            let touches = record.end.checked_add(1) == Some(merged.start)
                || merged.end.checked_add(1) == Some(record.start);
            if same && touches {
                merged.start = merged.start.min(record.start);
                merged.end = merged.end.max(record.end);
                return false;
            }
            true
        });
        self.records.push(merged);
    }

    fn conflict(&self, range: &Record) -> Option<Record> {
        let conflicting = self.records.iter().filter(|record| record.conflicts(range));
        conflicting.min_by_key(|record| record.start).copied()
    }
}

struct Locks {
    inode: Arc<dyn Inode>,
    state: SpinLock<State>,
    queue: WaitQueue,
}

impl Locks {
    /// Notes that somebody waits, for who looks into /proc/locks, until what this returns is dropped.
    fn waiting(&self, flock: bool, record: Record) -> Waiting<'_> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        self.state.lock().waiters.push(Waiter { number, flock, record });
        Waiting { locks: self, number }
    }
}

struct Waiting<'a> {
    locks: &'a Locks,
    number: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.locks.state.lock().waiters.retain(|waiter| waiter.number != self.number);
    }
}

/// Locks by inode. Entries live while a lock is held or waited for.
static TABLE: SpinLock<Tree<Arc<Locks>>> = SpinLock::new(Tree::new());
/// Number of record locks and flocks: closing a file looks further only if there are any.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// Who waits for whom, to find deadlocks among POSIX locks.
static WAITS: SpinLock<Vec<(Owner, Owner)>> = SpinLock::new(Vec::new());

fn key(file: &File) -> u128 {
    file.with_inode(identity) as u128
}

fn find(key: u128) -> Option<Arc<Locks>> {
    TABLE.lock().get(key).cloned()
}

fn locks_of(file: &File) -> Arc<Locks> {
    let key = key(file);
    if let Some(locks) = find(key) {
        return locks;
    }
    let inode = file.inode();
    let new = || Arc::new(Locks { inode, state: SpinLock::default(), queue: WaitQueue::new() });
    TABLE.lock().get_or_insert_with(key, new).clone()
}

/// Drops the entry of a file without locks; `locks` is the caller's reference.
fn tidy(locks: Arc<Locks>) {
    let key = identity(&locks.inode) as u128;
    let mut table = TABLE.lock();
    let unused = {
        let state = locks.state.lock();
        state.records.is_empty() && state.flocks.is_empty()
    };
    // References: the table's and ours.
    if unused && Arc::strong_count(&locks) == 2 {
        table.remove(key);
    }
}

fn changed(before: usize, after: usize) {
    HELD.fetch_add(after, SeqCst);
    HELD.fetch_sub(before, SeqCst);
}

/// The lock that keeps `range` from being set (`F_GETLK`).
pub fn test(file: &File, range: &Record) -> Option<Record> {
    let locks = find(key(file))?;
    let state = locks.state.lock();
    state.conflict(range)
}

/// Sets a record lock. EAGAIN if another is in the way and `wait` isn't set; EDEADLK if waiting
/// would never end.
pub fn set(file: &File, range: Record, wait: bool) -> Result<()> {
    let locks = locks_of(file);
    let attempt = || {
        let mut state = locks.state.lock();
        match state.conflict(&range) {
            Some(other) => Err(other),
            None => {
                let before = state.records.len();
                state.set(range);
                changed(before, state.records.len());
                Ok(())
            }
        }
    };
    let result = match attempt() {
        Ok(()) => Ok(()),
        Err(_) if !wait => Err(Errno::EAGAIN),
        Err(_) => {
            let _waiting = locks.waiting(false, range);
            let outcome = locks.queue.wait(WaitMode::Interruptible, None, || match attempt() {
                Ok(()) => Some(Ok(())),
                Err(other) => blocked_by(range.owner, other.owner).err().map(Err),
            });
            WAITS.lock().retain(|&(waiter, _)| waiter != range.owner);
            outcome.unwrap_or(Err(Errno::ERESTARTSYS))
        }
    };
    // A changed kind of lock (writer to reader) may let others in.
    locks.queue.wake_all(Events::ALL);
    tidy(locks);
    result
}

/// Notes that `waiter` waits for `holder`. EDEADLK if that closes a circle (description locks
/// aren't checked).
fn blocked_by(waiter: Owner, holder: Owner) -> Result<()> {
    let mut waits = WAITS.lock();
    waits.retain(|&(who, _)| who != waiter);
    if matches!(waiter, Owner::Description(_)) {
        return Ok(());
    }
    let mut at = holder;
    for _ in 0..=waits.len() {
        if at == waiter {
            return Err(Errno::EDEADLK);
        }
        match waits.iter().find(|&&(who, _)| who == at) {
            Some(&(_, next)) => at = next,
            None => break,
        }
    }
    waits.push((waiter, holder));
    Ok(())
}

/// Removes a record lock, or the part of locks within a range.
pub fn unlock(file: &File, range: &Record) {
    let Some(locks) = find(key(file)) else { return };
    {
        let mut state = locks.state.lock();
        let before = state.records.len();
        state.clear(range);
        changed(before, state.records.len());
    }
    locks.queue.wake_all(Events::ALL);
    tidy(locks);
}

/// flock(2) by the process `pid`: takes the lock shared or exclusively. EWOULDBLOCK if it is held
/// otherwise and `wait` isn't set.
pub fn flock(file: &Arc<File>, exclusive: bool, wait: bool, pid: i32) -> Result<()> {
    let by = Arc::as_ptr(file) as usize;
    let me = Owner::Description(by);
    let wanted = Record { start: 0, end: END, write: exclusive, owner: me, pid, by };
    let locks = locks_of(file);
    // A conversion isn't atomic: the old lock goes first.
    if drop_flock(&locks, me, Some(exclusive)) {
        locks.queue.wake_all(Events::ALL);
    }
    let attempt = || {
        let mut state = locks.state.lock();
        if state.flocks.iter().any(|held| held.owner == me && held.write == exclusive) {
            return Some(());
        }
        if state.flocks.iter().any(|held| held.write || exclusive) {
            return None;
        }
        state.flocks.push(wanted);
        changed(0, 1);
        Some(())
    };
    let result = match attempt() {
        Some(()) => Ok(()),
        None if !wait => Err(Errno::EAGAIN),
        None => {
            let _waiting = locks.waiting(true, wanted);
            let waited = locks.queue.wait(WaitMode::Interruptible, None, attempt);
            waited.map_err(|_| Errno::ERESTARTSYS)
        }
    };
    tidy(locks);
    result
}

/// Drops a description's flock unless it is of the kind `keep`.
fn drop_flock(locks: &Locks, me: Owner, keep: Option<bool>) -> bool {
    let mut state = locks.state.lock();
    let before = state.flocks.len();
    state.flocks.retain(|held| held.owner != me || Some(held.write) == keep);
    changed(before, state.flocks.len());
    before != state.flocks.len()
}

/// flock(2) with `LOCK_UN`.
pub fn funlock(file: &File) {
    let Some(locks) = find(key(file)) else { return };
    if drop_flock(&locks, description(file), None) {
        locks.queue.wake_all(Events::ALL);
    }
    tidy(locks);
}

/// A process closed a descriptor of `file`: its POSIX locks on that file go, even if others are
/// open.
pub fn descriptor_closed(table: &FdTable, file: &File) {
    if HELD.load(SeqCst) == 0 {
        return;
    }
    release(file, Owner::Table(core::ptr::from_ref(table) as usize));
}

/// The last descriptor of a description is gone: its flock and OFD locks go.
pub fn description_closed(file: &File) {
    if HELD.load(SeqCst) == 0 {
        return;
    }
    funlock(file);
    release(file, description(file));
}

fn description(file: &File) -> Owner {
    Owner::Description(core::ptr::from_ref(file) as usize)
}

fn release(file: &File, owner: Owner) {
    unlock(file, &Record { start: 0, end: END, write: false, owner, pid: 0, by: 0 });
}

/// All locks there are, each followed by those who wait for it; those only that `table` has by `file`,
/// if they are given.
pub fn list(of: Option<(&File, &FdTable)>) -> Vec<Listed> {
    let all: Vec<Arc<Locks>> = match of {
        Some((file, _)) => find(key(file)).into_iter().collect(),
        None => TABLE.lock().values().cloned().collect(),
    };
    let table = of.map(|(_, table)| Owner::Table(core::ptr::from_ref(table) as usize));
    let file = of.map(|(file, _)| core::ptr::from_ref(file) as usize);
    let is_meant = |held: &Record| {
        file.is_none_or(|file| file == held.by)
            && (table.is_none_or(|table| table == held.owner)
                || matches!(held.owner, Owner::Description(_)))
    };
    let mut listed = Vec::new();
    for locks in &all {
        let state = locks.state.lock();
        let mut shown = Vec::new();
        let records = state.records.iter().map(|record| (false, record));
        for (flock, held) in records.chain(state.flocks.iter().map(|record| (true, record))) {
            if !is_meant(held) {
                continue;
            }
            let mut show = |waiting, record: &Record| {
                let kind = match record.owner {
                    _ if flock => Kind::Flock,
                    Owner::Table(_) => Kind::Posix,
                    Owner::Description(_) => Kind::Description,
                };
                listed.push(Listed { kind, waiting, record: *record, inode: locks.inode.clone() });
            };
            show(false, held);
            for waiter in state.waiters.iter().filter(|waiter| waiter.flock == flock) {
                // Whoever waits for several is shown behind the first one.
                if waiter.record.conflicts(held) && !shown.contains(&waiter.number) {
                    shown.push(waiter.number);
                    show(true, &waiter.record);
                }
            }
        }
    }
    for locks in all {
        // The last lock may have gone meanwhile.
        tidy(locks);
    }
    listed.extend(super::leases::list(of.map(|(file, _)| file)));
    listed
}

#[cfg(test)]
fn held() -> usize {
    HELD.load(SeqCst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(start: u64, end: u64, write: bool, owner: usize) -> Record {
        Record { start, end, write, owner: Owner::Table(owner), pid: owner as i32, by: 0 }
    }

    #[test]
    fn ranges_split_and_merge() {
        let mut state = State::default();
        state.set(record(0, 99, true, 1));
        state.clear(&record(40, 59, false, 1));
        let mut ranges: Vec<_> = state.records.iter().map(|r| (r.start, r.end)).collect();
        ranges.sort();
        assert_eq!(ranges, [(0, 39), (60, 99)]);
        state.set(record(40, 59, true, 1));
        assert_eq!(state.records, [record(0, 99, true, 1)]);
        state.set(record(10, 19, false, 1));
        assert_eq!(state.records.len(), 3);
        assert!(state.conflict(&record(15, 15, false, 2)).is_none());
        assert_eq!(state.conflict(&record(15, 25, false, 2)).unwrap().start, 20);
    }

    #[test]
    fn circles_of_waiters_are_found() {
        let (a, b, c) = (Owner::Table(101), Owner::Table(102), Owner::Table(103));
        assert_eq!(blocked_by(a, b), Ok(()));
        assert_eq!(blocked_by(b, c), Ok(()));
        assert_eq!(blocked_by(c, a), Err(Errno::EDEADLK));
        WAITS.lock().clear();
    }

    #[test]
    fn locks_go_with_their_descriptors() {
        let before = held();
        let table = FdTable::new();
        let (file, _other) = crate::fs::pipe::pipe(0, 0, 0).unwrap();
        let fd = table.alloc(file.clone(), false, 10).unwrap();
        let owner = Owner::Table(core::ptr::from_ref(&table) as usize);
        set(&file, Record { start: 0, end: 9, write: true, owner, pid: 1, by: 0 }, false).unwrap();
        flock(&file, true, false, 1).unwrap();
        let other = record(5, 6, false, 7);
        assert_eq!(set(&file, other, false), Err(Errno::EAGAIN));
        table.close(fd).unwrap();
        assert_eq!(test(&file, &other), None);
        drop(file);
        assert_eq!(held(), before);
    }
}
