//! Locks whose word holds the owner's thread number (`FUTEX_LOCK_PI` and friends).
//!
//! The word's protocol is Linux's: owner in the low 30 bits, `FUTEX_WAITERS` while somebody sleeps,
//! `FUTEX_OWNER_DIED` after the owner ended. Ownership is handed to the longest waiter; its
//! priority isn't lent to the owner, which only a real-time scheduler would notice.

use super::key;
use super::queue::{self, Key};
use crate::arch::uaccess;
use crate::errno::{Errno, Result};
use crate::mm::fault_in_user;
use crate::sync::WaitMode;
use crate::task::{current, current_arc, find_task, sched};
use linux_raw_sys::general::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};

/// Replaces the word if it still is `old`. `None` after a fault: the bucket must be unlocked and
/// the page brought in.
fn exchange(addr: usize, old: u32, new: u32) -> Option<bool> {
    // SAFETY: `key` has checked alignment and that the address is a user's.
    let found = unsafe { uaccess::cmpxchg_u32(addr, old, new) }?;
    Some(found == old)
}

enum Step {
    Acquired,
    Sleep(alloc::sync::Arc<queue::Waiter>),
    Retry,
    Fault,
    Fail(Errno),
}

/// `FUTEX_LOCK_PI` and `FUTEX_TRYLOCK_PI`.
pub fn lock(addr: usize, private: bool, deadline: Option<u64>, only_try: bool) -> Result<()> {
    let key = key(addr, private)?;
    loop {
        match attempt(key, addr, only_try) {
            Step::Acquired => return Ok(()),
            Step::Retry => {}
            Step::Fault => fault_in_user(addr, 4, true)?,
            Step::Fail(error) => return Err(error),
            Step::Sleep(waiter) => {
                let task = current();
                let outcome = loop {
                    task.prepare_to_sleep(WaitMode::Interruptible);
                    let over = if waiter.woken() {
                        Some(Ok(()))
                    } else if task.wait_disturbed(WaitMode::Interruptible) {
                        Some(Err(Errno::ERESTARTNOINTR))
                    } else if deadline.is_some_and(|at| crate::time::now_ns() >= at) {
                        Some(Err(Errno::ETIMEDOUT))
                    } else {
                        sched::block(deadline);
                        None
                    };
                    task.finish_sleep();
                    if let Some(over) = over {
                        break over;
                    }
                };
                match outcome {
                    // The unlocker has written our number into the word.
                    Ok(()) => return Ok(()),
                    Err(_) if !waiter.unqueue() => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

fn attempt(key: Key, addr: usize, only_try: bool) -> Step {
    let me = current().tid() as u32;
    let mut bucket = queue::lock(key);
    // SAFETY: `key` has checked alignment and that the address is a user's.
    let Some(seen) = (unsafe { uaccess::load_u32(addr) }) else { return Step::Fault };
    let owner = seen & FUTEX_TID_MASK;
    if owner == me {
        return Step::Fail(Errno::EDEADLK);
    }
    let replace = |new: u32, then: Step| match exchange(addr, seen, new) {
        None => Step::Fault,
        Some(false) => Step::Retry,
        Some(true) => then,
    };
    if owner == 0 {
        return replace(me | seen & (FUTEX_WAITERS | FUTEX_OWNER_DIED), Step::Acquired);
    }
    if only_try {
        return Step::Fail(Errno::EAGAIN);
    }
    if find_task(owner as i32).is_none() {
        return Step::Fail(Errno::ESRCH);
    }
    match replace(seen | FUTEX_WAITERS, Step::Acquired) {
        Step::Acquired => Step::Sleep(bucket.enqueue(key, current_arc(), !0)),
        other => other,
    }
}

/// `FUTEX_UNLOCK_PI`.
pub fn unlock(addr: usize, private: bool) -> Result<()> {
    let key = key(addr, private)?;
    let me = current().tid() as u32;
    loop {
        let mut bucket = queue::lock(key);
        // SAFETY: `key` has checked alignment and that the address is a user's.
        let seen = unsafe { uaccess::load_u32(addr) };
        let Some(seen) = seen else {
            drop(bucket);
            fault_in_user(addr, 4, true)?;
            continue;
        };
        if seen & FUTEX_TID_MASK != me {
            return Err(Errno::EPERM);
        }
        let next = bucket.first(key).map(|(waiter, more)| (waiter.tid() as u32, more));
        let new = next.map_or(0, |(tid, more)| tid | if more { FUTEX_WAITERS } else { 0 });
        match exchange(addr, seen, new) {
            None => {
                drop(bucket);
                fault_in_user(addr, 4, true)?;
            }
            Some(false) => {}
            Some(true) => {
                bucket.wake(key, 1, !0);
                return Ok(());
            }
        }
    }
}
