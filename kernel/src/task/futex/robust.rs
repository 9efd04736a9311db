//! Robust futexes: locks whose owner died are marked, so that the next one can tell
//! (get_robust_list(2)).

use super::{key, ops};
use crate::arch::uaccess;
use crate::errno::Result;
use crate::io::{check_user, get_user, put_user};
use crate::mm::fault_in_user;
use crate::task::Task;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};

/// Longest list that is walked: a list made by the program itself could be a circle.
const LIMIT: usize = 2048;
/// `struct robust_list_head`: first entry, offset of the word in an entry, entry being (un)locked.
type Head = [usize; 3];

/// Head of a thread's list; 0 if it has none.
pub fn head(task: &Task) -> usize {
    task.robust_list.load(Ordering::Relaxed)
}

/// Replaces the head of a thread's list.
pub fn set_head(task: &Task, head: usize) {
    task.robust_list.store(head, Ordering::Relaxed);
}

/// The current thread ends or replaces its memory: mark its locks, clear its thread number where it
/// asked for that.
pub fn release_all(task: &Task) {
    let head = task.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 {
        // A broken list is the program's own doing; what was reached is marked.
        let _ = walk(task, head);
    }
    let tid_word = task.clear_child_tid.swap(0, Ordering::Relaxed);
    if tid_word != 0 && put_user(tid_word, &0u32).is_ok() {
        let _ = ops::wake(tid_word, 1, false, !0);
    }
}

fn walk(task: &Task, head_at: usize) -> Result<()> {
    let head: Head = get_user(head_at)?;
    let offset = head[1];
    let pending = head[2];
    let mut entry = head[0];
    let mut left = LIMIT;
    while entry & !1 != head_at && left > 0 {
        // The link first: the owner's death may let another thread free the entry.
        let next: usize = get_user(entry & !1)?;
        if entry & !1 != pending & !1 {
            mark(task, entry, offset)?;
        }
        entry = next;
        left -= 1;
    }
    if pending & !1 != 0 {
        mark(task, pending, offset)?;
    }
    Ok(())
}

/// Marks one lock if the dying thread owns it, and wakes one of those who wait for it. The lowest
/// bit of the entry says that it is a priority-inheriting one.
fn mark(task: &Task, entry: usize, offset: usize) -> Result<()> {
    let addr = (entry & !1).wrapping_add(offset);
    check_user(addr, 4)?;
    key(addr, false)?;
    loop {
        let seen: u32 = get_user(addr)?;
        if seen & FUTEX_TID_MASK != task.tid() as u32 {
            return Ok(());
        }
        let new = seen & FUTEX_WAITERS | FUTEX_OWNER_DIED;
        // SAFETY: alignment and range were checked by `key`.
        match unsafe { uaccess::cmpxchg_u32(addr, seen, new) } {
            None => fault_in_user(addr, 4, true)?,
            Some(found) if found == seen => {
                if seen & FUTEX_WAITERS != 0 {
                    ops::wake(addr, 1, false, !0)?;
                }
                return Ok(());
            }
            Some(_) => {}
        }
    }
}
