//! Leases (fcntl(2), `F_SETLEASE`): before others open or truncate a file, who has a lease on it is
//! told, and has time to get ready.
//!
//! They are kept in a table beside the inodes: while there are none, opening a file costs one load.

use super::inode::{Inode, identity, mode::*};
use super::perm::cap;
use super::{File, hooks};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::event::sigio::Teller;
use crate::sync::{SpinLock, WaitError, WaitMode, WaitQueue};
use crate::task::current;
use crate::time::{SECOND, now_ns};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use hashbrown::HashMap;
use linux_raw_sys::general::{F_RDLCK, F_UNLCK, F_WRLCK};

struct Lease {
    /// The description that it was asked for by.
    holder: usize,
    teller: Teller,
    write: bool,
    /// When it becomes a lease for reading, and when it goes, if somebody waits for that. In
    /// nanoseconds of monotonic time.
    downgrade: Option<u64>,
    unlock: Option<u64>,
}

impl Lease {
    /// What it is about to be (`F_*LCK`).
    fn kind(&self) -> u32 {
        match (self.unlock, self.downgrade) {
            (Some(_), _) => F_UNLCK,
            (None, None) if self.write => F_WRLCK,
            _ => F_RDLCK,
        }
    }
}

/// Seconds that a holder has (`fs.lease-break-time`); 0 for no limit.
pub static BREAK_TIME: AtomicI64 = AtomicI64::new(45);
/// Whether there are any (`fs.leases-enable`).
pub static ENABLED: AtomicI64 = AtomicI64::new(1);

static COUNT: AtomicUsize = AtomicUsize::new(0);
static TABLE: SpinLock<Option<HashMap<usize, Vec<Lease>>>> = SpinLock::new(None);
/// Those who wait for leases to go. There are few, and few leases go.
static CHANGED: WaitQueue = WaitQueue::new();

/// Whether anybody has a lease on any file.
pub fn any() -> bool {
    COUNT.load(SeqCst) != 0
}

/// Calls `f` with the leases on a file, those that nobody gave back in time left out.
fn with<R>(inode: &Arc<dyn Inode>, f: impl FnOnce(&mut Vec<Lease>) -> R) -> R {
    let mut table = TABLE.lock();
    let list = table.get_or_insert_default().entry(identity(inode)).or_default();
    let before = list.len();
    let now = now_ns();
    for lease in list.iter_mut().filter(|lease| lease.downgrade.is_some_and(|at| at <= now)) {
        (lease.write, lease.downgrade) = (false, None);
    }
    let (kept, mut gone): (Vec<_>, Vec<_>) =
        list.drain(..).partition(|lease| lease.unlock.is_none_or(|at| at > now));
    *list = kept;
    let result = f(list);
    COUNT.fetch_add(list.len(), SeqCst);
    COUNT.fetch_sub(before, SeqCst);
    if list.is_empty()
        && let Some(table) = table.as_mut()
    {
        gone.extend(table.remove(&identity(inode)).unwrap_or_default());
    }
    drop(table);
    drop(gone);
    result
}

/// Asks for a lease (`F_SETLEASE`), changes one or gives it back. EINVAL for other than regular files,
/// EACCES for files of others without `CAP_LEASE`, EAGAIN if somebody has the file open, or there is
/// nothing to give back.
pub fn set(file: &Arc<File>, fd: i32, kind: u32) -> Result<()> {
    if !matches!(kind, F_RDLCK | F_WRLCK | F_UNLCK) {
        return Err(Errno::EINVAL);
    }
    let inode = file.inode();
    let access = inode.access();
    let creds = current().creds();
    if creds.fsuid != access.uid && !creds.capable(cap::LEASE) {
        return Err(Errno::EACCES);
    }
    if access.mode & S_IFMT != S_IFREG {
        return Err(Errno::EINVAL);
    }
    let me = Arc::as_ptr(file) as usize;
    if kind == F_UNLCK {
        return if give_back(file, &inode) { Ok(()) } else { Err(Errno::EAGAIN) };
    }
    let write = kind == F_WRLCK;
    // Who opens the file looks for leases once more when it has a descriptor.
    let free = || {
        let conflicts = |other: &Arc<File>| {
            let another = Arc::as_ptr(other) as usize != me;
            (if write { another } else { other.writable() })
                && other
                    .path
                    .as_ref()
                    .and_then(|path| path.inode().ok())
                    .is_some_and(|found| identity(found) == identity(&inode))
        };
        if hooks::any_open(&conflicts) { Err(Errno::EAGAIN) } else { Ok(()) }
    };
    free()?;
    if ENABLED.load(Relaxed) == 0 {
        return Err(Errno::EINVAL);
    }
    let teller = file.sigio.teller(fd);
    let old = with(&inode, |list| {
        let blocks = |lease: &Lease| lease.holder != me && (write || lease.unlock.is_some());
        if list.iter().any(blocks) {
            return Err(Errno::EAGAIN);
        }
        match list.iter_mut().find(|lease| lease.holder == me) {
            // Somebody waits to write.
            Some(mine) if mine.unlock.is_some() => Err(Errno::EAGAIN),
            Some(mine) => {
                let old = mine.write;
                mine.write = write;
                if !write {
                    mine.downgrade = None;
                }
                Ok(Some(old))
            }
            None => {
                list.push(Lease { holder: me, teller, write, downgrade: None, unlock: None });
                Ok(None)
            }
        }
    })?;
    if let Err(error) = free() {
        with(&inode, |list| match old {
            Some(old) => {
                list.iter_mut().filter(|lease| lease.holder == me).for_each(|mine| mine.write = old)
            }
            None => list.retain(|lease| lease.holder != me),
        });
        return Err(error);
    }
    CHANGED.wake_all(Events::ALL);
    Ok(())
}

/// What lease a description has (`F_GETLEASE`).
pub fn get(file: &File) -> u32 {
    if !any() {
        return F_UNLCK;
    }
    let me = core::ptr::from_ref(file) as usize;
    with(&file.inode(), |list| {
        list.iter().find(|lease| lease.holder == me).map_or(F_UNLCK, Lease::kind)
    })
}

fn give_back(file: &File, inode: &Arc<dyn Inode>) -> bool {
    let me = core::ptr::from_ref(file) as usize;
    let mine = with(inode, |list| {
        let at = list.iter().position(|lease| lease.holder == me)?;
        Some(list.swap_remove(at))
    });
    if mine.is_some() {
        file.sigio.forget();
        CHANGED.wake_all(Events::ALL);
    }
    mine.is_some()
}

/// The last descriptor of a description is gone, and its lease with it.
pub fn description_closed(file: &File) {
    if any() {
        give_back(file, &file.inode());
    }
}

/// A file is about to be opened (by `file`, if it is open already) or truncated: tells those who have
/// leases in the way, and waits until they have given them back, or their time is over. EAGAIN instead
/// of waiting without `wait`.
pub fn breaking(
    inode: &Arc<dyn Inode>,
    file: Option<&Arc<File>>,
    write: bool,
    wait: bool,
) -> Result<()> {
    if !any() {
        return Ok(());
    }
    let me = file.map_or(0, |file| Arc::as_ptr(file) as usize);
    let conflicts = |lease: &Lease| lease.holder != me && (write || lease.write);
    loop {
        let mut tellers = Vec::new();
        let mut deadline = u64::MAX;
        with(inode, |list| {
            for lease in list.iter_mut().filter(|lease| conflicts(lease)) {
                let limit = match BREAK_TIME.load(Relaxed) {
                    1.. => now_ns()
                        .saturating_add((BREAK_TIME.load(Relaxed) as u64).saturating_mul(SECOND)),
                    _ => u64::MAX,
                };
                let told = lease.unlock.is_some() || !write && lease.downgrade.is_some();
                if !told {
                    let pending = if write { &mut lease.unlock } else { &mut lease.downgrade };
                    *pending = Some(limit);
                    tellers.push(lease.teller.clone());
                }
                let end = lease.unlock.or(lease.downgrade).unwrap_or(limit);
                deadline = deadline.min(end);
            }
        });
        for teller in &tellers {
            teller.tell();
        }
        let gone = || with(inode, |list| (!list.iter().any(conflicts)).then_some(()));
        if !wait {
            return gone().ok_or(Errno::EAGAIN);
        }
        match CHANGED.wait(WaitMode::Interruptible, Some(deadline), gone) {
            Ok(()) => return Ok(()),
            Err(WaitError::Interrupted) => return Err(Errno::ERESTARTSYS),
            Err(WaitError::TimedOut) => {}
        }
    }
}
