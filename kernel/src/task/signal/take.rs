//! Masks, and taking signals without a handler.

use super::super::thread::Work;
use super::super::{Task, current};
use super::{SigInfo, SigSet};

/// Recomputes whether the current task has a deliverable signal.
pub fn recalculate(task: &Task) {
    let group = task.process().signal.lock();
    let state = task.signal.lock();
    let pending = group.pending.set().or(state.pending.set());
    if pending.minus(state.mask).is_empty() {
        task.remove_work(Work::SIGNAL);
    } else {
        task.add_work(Work::SIGNAL);
    }
}

/// Replaces the signal mask of the current task; returns the old one.
pub fn set_mask(mask: SigSet) -> SigSet {
    let task = current();
    let (old, pending) = {
        let mut state = task.signal.lock();
        let old = core::mem::replace(&mut state.mask, mask.blockable());
        (old, state.pending.set())
    };
    let newly_blocked = mask.minus(old);
    if !newly_blocked.is_empty() {
        hand_over(task, newly_blocked);
    }
    // Blocking more can only clear the flag, and only delivery needs it exact; unblocking may set
    // it.
    if !old.minus(mask).is_empty() || !pending.is_empty() || task.work().contains(Work::SIGNAL) {
        recalculate(task);
    }
    old
}

/// Signals sent to the process that this task was to take and blocks now go to another thread.
pub(in crate::task) fn hand_over(task: &Task, which: SigSet) {
    if !task.work().contains(Work::SIGNAL) {
        return;
    }
    let group = task.process().signal.lock();
    let orphans = group.pending.set().and(which);
    if orphans.is_empty() {
        return;
    }
    for thread in &group.threads {
        if core::ptr::eq(&**thread, task) {
            continue;
        }
        let mask = thread.signal.lock().mask;
        if !orphans.minus(mask).is_empty() {
            super::send::alert(thread);
        }
    }
}

/// Sets a mask for the duration of one call (sigsuspend(2), ppoll(2), epoll_pwait(2)): the old one
/// comes back when the call has been left, after a handler has run if one must.
pub fn set_temporary_mask(mask: SigSet) {
    let task = current();
    let old = set_mask(mask);
    task.signal.lock().saved_mask = Some(old);
    task.add_work(Work::RESTORE_MASK);
}

/// Takes the old mask back now, if a temporary one is set.
pub fn restore_mask() {
    let task = current();
    task.remove_work(Work::RESTORE_MASK);
    let saved = task.signal.lock().saved_mask.take();
    if let Some(mask) = saved {
        set_mask(mask);
    }
}

/// Takes one pending signal of `which` for the current task (sigtimedwait(2), signalfd(2)): its own
/// first, then the process's.
pub fn take_for_current(which: SigSet) -> Option<SigInfo> {
    let task = current();
    let mut group = task.process().signal.lock();
    let blocked = SigSet(!which.0);
    let own = task.signal.lock().pending.take(blocked);
    let taken = own.or_else(|| group.pending.take(blocked));
    drop(group);
    if taken.is_some() {
        recalculate(task);
    }
    taken
}

/// Signals pending for the current task, its own and the process's.
pub fn pending_for_current() -> SigSet {
    let task = current();
    let shared = task.process().signal.lock().pending.set();
    shared.or(task.signal.lock().pending.set())
}
