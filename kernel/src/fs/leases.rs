//! Leases (fcntl(2), `F_SETLEASE`): before others open or truncate a file, who has a lease on it is
//! told, and has time to get ready.
//!
//! They are kept in a list beside the inodes, since there are few if any: while there are none, opening
//! a file costs one load.

use super::inode::{Inode, identity, mode::*};
use super::locks::{END, Kind, Listed, Owner, Record};
use super::perm::cap;
use super::{File, hooks};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::event::sigio::Teller;
use crate::sync::{SpinGuard, SpinLock, WaitError, WaitMode, WaitQueue};
use crate::task::current;
use crate::time::{SECOND, now_ns};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use linux_raw_sys::general::{F_RDLCK, F_UNLCK, F_WRLCK};

struct Lease {
    /// The file, which lives as long as its description.
    node: Arc<dyn Inode>,
    /// The description that it was asked for by.
    holder: usize,
    teller: Teller,
    write: bool,
    /// Who asked for it, as /proc/locks tells.
    pid: i32,
    /// When it becomes a lease for reading, and when it goes, if somebody waits for that. In
    /// nanoseconds of monotonic time.
    downgrade: Option<u64>,
    unlock: Option<u64>,
}

impl Lease {
    fn is_on(&self, inode: usize) -> bool {
        identity(&self.node) == inode
    }
}

/// Seconds that a holder has (`fs.lease-break-time`); 0 for no limit.
pub static BREAK_TIME: AtomicI64 = AtomicI64::new(45);
/// Whether there are any (`fs.leases-enable`).
pub static ENABLED: AtomicI64 = AtomicI64::new(1);

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LEASES: SpinLock<Vec<Lease>> = SpinLock::new(Vec::new());
/// Those who wait for leases to go. There are few, and few leases go.
static CHANGED: WaitQueue = WaitQueue::new();

/// Whether anybody has a lease on any file.
pub fn any() -> bool {
    COUNT.load(SeqCst) != 0
}

/// All leases, without those that nobody gave back in time.
fn lock() -> SpinGuard<'static, Vec<Lease>> {
    let mut leases = LEASES.lock();
    let now = now_ns();
    leases.retain_mut(|lease| {
        if lease.downgrade.is_some_and(|at| at <= now) {
            (lease.write, lease.downgrade) = (false, None);
        }
        lease.unlock.is_none_or(|at| at > now)
    });
    COUNT.store(leases.len(), SeqCst);
    leases
}

/// Asks for a lease (`F_SETLEASE`), changes one or gives it back. EINVAL for other than regular files,
/// EACCES for files of others without `CAP_LEASE`, EAGAIN if somebody has the file open, or there is
/// nothing to give back.
pub fn set(file: &Arc<File>, fd: i32, kind: u32) -> Result<()> {
    if !matches!(kind, F_RDLCK | F_WRLCK | F_UNLCK) {
        return Err(Errno::EINVAL);
    }
    let node = file.inode();
    let access = node.access();
    let creds = current().creds();
    if creds.fsuid != access.uid && !creds.capable(cap::LEASE) {
        return Err(Errno::EACCES);
    }
    if access.mode & S_IFMT != S_IFREG {
        return Err(Errno::EINVAL);
    }
    let me = Arc::as_ptr(file) as usize;
    if kind == F_UNLCK {
        return if give_back(file) { Ok(()) } else { Err(Errno::EAGAIN) };
    }
    let write = kind == F_WRLCK;
    let inode = identity(&node);
    let is_open = |other: &Arc<File>| {
        let another = Arc::as_ptr(other) as usize != me;
        (if write { another } else { other.writable() })
            && other
                .path
                .as_ref()
                .and_then(|path| path.inode().ok())
                .is_some_and(|found| identity(found) == inode)
    };
    if ENABLED.load(Relaxed) == 0 {
        return Err(Errno::EINVAL);
    }
    if hooks::any_open(&is_open) {
        return Err(Errno::EAGAIN);
    }
    let teller = file.sigio.teller(fd);
    let mut leases = lock();
    // Others may read; nobody gets anything while somebody waits to write.
    let blocks = |lease: &Lease| {
        lease.is_on(inode) && (lease.unlock.is_some() || write && lease.holder != me)
    };
    if leases.iter().any(blocks) {
        return Err(Errno::EAGAIN);
    }
    let old = match leases.iter_mut().find(|lease| lease.holder == me) {
        Some(mine) => {
            if !write {
                mine.downgrade = None;
            }
            Some(core::mem::replace(&mut mine.write, write))
        }
        None => {
            let pid = hooks::pid();
            let (downgrade, unlock) = (None, None);
            leases.push(Lease { node, holder: me, teller, write, pid, downgrade, unlock });
            None
        }
    };
    COUNT.store(leases.len(), SeqCst);
    drop(leases);
    // Whoever opens the file now looks for leases again when it has a descriptor.
    let taken = hooks::any_open(&is_open);
    if taken {
        match old {
            Some(old) => lock()
                .iter_mut()
                .filter(|lease| lease.holder == me)
                .for_each(|mine| mine.write = old),
            None => _ = give_back(file),
        }
    }
    CHANGED.wake_all(Events::ALL);
    if taken { Err(Errno::EAGAIN) } else { Ok(()) }
}

/// What lease a description has, or is about to have (`F_GETLEASE`).
pub fn get(file: &File) -> u32 {
    let me = core::ptr::from_ref(file) as usize;
    match lock().iter().find(|lease| lease.holder == me) {
        Some(Lease { unlock: None, downgrade: None, write: true, .. }) => F_WRLCK,
        Some(Lease { unlock: None, .. }) => F_RDLCK,
        _ => F_UNLCK,
    }
}

/// All leases, or that of a description, as /proc/locks shows them.
pub fn list(of: Option<&File>) -> Vec<Listed> {
    if !any() {
        return Vec::new();
    }
    let me = of.map(|file| core::ptr::from_ref(file) as usize);
    let leases = lock();
    let shown = leases.iter().filter(|lease| me.is_none_or(|me| lease.holder == me));
    let listed = shown.map(|lease| {
        let breaking = lease.unlock.is_some() || lease.downgrade.is_some();
        let owner = Owner::Description(lease.holder);
        let (write, pid, by) = (lease.write, lease.pid, lease.holder);
        let record = Record { start: 0, end: END, write, owner, pid, by };
        let kind = Kind::Lease { breaking };
        Listed { kind, waiting: false, record, inode: lease.node.clone() }
    });
    listed.collect()
}

fn give_back(file: &File) -> bool {
    let me = core::ptr::from_ref(file) as usize;
    let mut leases = lock();
    let before = leases.len();
    leases.retain(|lease| lease.holder != me);
    let given = leases.len() != before;
    COUNT.store(leases.len(), SeqCst);
    drop(leases);
    if given {
        file.sigio.forget();
        CHANGED.wake_all(Events::ALL);
    }
    given
}

/// The last descriptor of a description is gone, and its lease with it.
pub fn description_closed(file: &File) {
    if any() {
        give_back(file);
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
    let inode = identity(inode);
    let conflicts =
        |lease: &Lease| lease.is_on(inode) && lease.holder != me && (write || lease.write);
    loop {
        let seconds = BREAK_TIME.load(Relaxed);
        let limit = match seconds {
            1.. => now_ns().saturating_add((seconds as u64).saturating_mul(SECOND)),
            _ => u64::MAX,
        };
        let mut tellers = Vec::new();
        let mut deadline = None;
        for lease in lock().iter_mut().filter(|lease| conflicts(lease)) {
            if lease.unlock.is_none() && (write || lease.downgrade.is_none()) {
                *(if write { &mut lease.unlock } else { &mut lease.downgrade }) = Some(limit);
                tellers.push(lease.teller.clone());
            }
            let end = lease.unlock.or(lease.downgrade).unwrap_or(limit);
            deadline = Some(deadline.map_or(end, |deadline: u64| deadline.min(end)));
        }
        if deadline.is_none() {
            return Ok(());
        }
        for teller in &tellers {
            teller.tell();
        }
        if !wait {
            return Err(Errno::EAGAIN);
        }
        let gone = || (!lock().iter().any(conflicts)).then_some(());
        // Another may come meanwhile, and time may be over.
        if CHANGED.wait(WaitMode::Interruptible, deadline, gone) == Err(WaitError::Interrupted) {
            return Err(Errno::ERESTARTSYS);
        }
    }
}
