//! The operations of futex(2) but those on priority-inheriting locks.

use super::key;
use super::queue::{self, Key, Waiter};
use crate::arch::uaccess;
use crate::errno::{Errno, Result};
use crate::mm::fault_in_user;
use crate::sync::{WaitError, WaitMode};
use crate::task::signal::Restart;
use crate::task::{current, current_arc, sched};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Most words that futex_waitv(2) takes.
pub const WAITV_MAX: usize = 128;

/// Reads the word without faulting: the bucket's lock may be held. The address is an aligned
/// user's.
pub(super) fn load(addr: usize) -> Option<u32> {
    // SAFETY: `key` checks alignment and that the address is a user's, before anything else.
    unsafe { uaccess::load_u32(addr) }
}

/// Sleeps while the word at `addr` is `value`, until woken with a common bit or `deadline`
/// (monotonic nanoseconds) passes. EAGAIN if the word is something else.
pub fn wait(
    addr: usize,
    value: u32,
    private: bool,
    bitset: u32,
    deadline: Option<u64>,
) -> Result<()> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let waiter = queue_if(addr, value, private, bitset)?;
    match sleep(deadline, || waiter.woken()) {
        Ok(()) => Ok(()),
        // Woken in the same moment counts as woken: the waker has counted us.
        Err(_) if !waiter.unqueue() => Ok(()),
        Err(WaitError::TimedOut) => Err(Errno::ETIMEDOUT),
        Err(WaitError::Interrupted) => Err(Errno::ERESTARTSYS),
    }
}

/// As [`wait`] with a relative timeout: an interrupted call goes on with the time that is left
/// (restart_syscall(2)).
pub fn wait_restartable(
    addr: usize,
    value: u32,
    private: bool,
    bitset: u32,
    until: Option<u64>,
) -> Result<()> {
    let result = wait(addr, value, private, bitset, until);
    match (result, until) {
        (Err(Errno::ERESTARTSYS), Some(until)) => {
            let restart = Restart::Futex { addr, value, until, bitset, private };
            current().set_restart(restart);
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        _ => result,
    }
}

/// Queues the current task on the word if it holds `value`.
fn queue_if(addr: usize, value: u32, private: bool, bitset: u32) -> Result<Arc<Waiter>> {
    let key = key(addr, private)?;
    loop {
        let mut bucket = queue::lock(key);
        match load(addr) {
            Some(seen) if seen == value => return Ok(bucket.enqueue(key, current_arc(), bitset)),
            Some(_) => return Err(Errno::EAGAIN),
            None => {
                drop(bucket);
                fault_in_user(addr, 4, false)?;
            }
        }
    }
}

/// Sleeps until `done`.
fn sleep(deadline: Option<u64>, done: impl Fn() -> bool) -> core::result::Result<(), WaitError> {
    let task = current();
    loop {
        task.prepare_to_sleep(WaitMode::Interruptible);
        let outcome = if done() {
            Some(Ok(()))
        } else if task.wait_disturbed(WaitMode::Interruptible) {
            Some(Err(WaitError::Interrupted))
        } else if deadline.is_some_and(|at| crate::time::now_ns() >= at) {
            Some(Err(WaitError::TimedOut))
        } else {
            sched::block(deadline);
            None
        };
        task.finish_sleep();
        if let Some(outcome) = outcome {
            return outcome;
        }
    }
}

/// Wakes up to `max` waiters that share a bit with `bitset`; returns how many.
pub fn wake(addr: usize, max: usize, private: bool, bitset: u32) -> Result<usize> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    Ok(wake_key(key(addr, private)?, max, bitset))
}

pub(super) fn wake_key(key: Key, max: usize, bitset: u32) -> usize {
    queue::lock(key).wake(key, max, bitset)
}

/// Wakes up to `wake` waiters of the first word and moves up to `requeue` of the rest to the
/// second. With `expected`, only if the first word still holds that (EAGAIN else). Returns how many
/// were woken, plus the moved ones if `expected` is given.
pub fn requeue(
    from: usize,
    to: usize,
    private: bool,
    wake: usize,
    requeue: usize,
    expected: Option<u32>,
) -> Result<usize> {
    let (from_key, to_key) = (key(from, private)?, key(to, private)?);
    loop {
        let (mut source, mut target) = queue::lock_two(from_key, to_key);
        if let Some(expected) = expected {
            match load(from) {
                Some(seen) if seen == expected => {}
                Some(_) => return Err(Errno::EAGAIN),
                None => {
                    drop(target);
                    drop(source);
                    fault_in_user(from, 4, false)?;
                    continue;
                }
            }
        }
        let woken = source.wake(from_key, wake, !0);
        let moved = queue::requeue(&mut source, target.as_deref_mut(), from_key, to_key, requeue);
        return Ok(woken + if expected.is_some() { moved } else { 0 });
    }
}

/// The operation that `FUTEX_WAKE_OP` encodes in its last argument.
struct WakeOp {
    op: u32,
    arg: u32,
    compare: u32,
    compare_arg: u32,
}

impl WakeOp {
    fn parse(raw: u32) -> Result<WakeOp> {
        // Both arguments are signed 12-bit numbers.
        let signed = |bits: u32| ((bits << 20) as i32 >> 20) as u32;
        let (op, arg) = (raw >> 28, signed(raw >> 12));
        let arg = if op & 8 != 0 { 1u32.checked_shl(arg).ok_or(Errno::EINVAL)? } else { arg };
        let parsed = WakeOp { op: op & 7, arg, compare: raw >> 24 & 15, compare_arg: signed(raw) };
        if parsed.op > 4 || parsed.compare > 5 { Err(Errno::ENOSYS) } else { Ok(parsed) }
    }

    fn apply(&self, old: u32) -> u32 {
        match self.op {
            0 => self.arg,
            1 => old.wrapping_add(self.arg),
            2 => old | self.arg,
            3 => old & !self.arg,
            _ => old ^ self.arg,
        }
    }

    fn holds(&self, old: u32) -> bool {
        let (old, arg) = (old as i32, self.compare_arg as i32);
        match self.compare {
            0 => old == arg,
            1 => old != arg,
            2 => old < arg,
            3 => old <= arg,
            4 => old > arg,
            _ => old >= arg,
        }
    }
}

/// Changes the second word as `encoded` says, wakes waiters of the first, and of the second if its
/// old value meets the encoded comparison.
pub fn wake_op(
    first: usize,
    second: usize,
    private: bool,
    wake: usize,
    wake_second: usize,
    encoded: u32,
) -> Result<usize> {
    let op = WakeOp::parse(encoded)?;
    let (first_key, second_key) = (key(first, private)?, key(second, private)?);
    loop {
        let (mut a, mut b) = queue::lock_two(first_key, second_key);
        let changed = load(second).and_then(|seen| {
            // SAFETY: `key` has checked alignment and that the address is a user's.
            let found = unsafe { uaccess::cmpxchg_u32(second, seen, op.apply(seen)) }?;
            Some((seen, found))
        });
        match changed {
            None => {
                drop(b);
                drop(a);
                fault_in_user(second, 4, true)?;
            }
            // Another CPU was faster: look again.
            Some((seen, found)) if seen != found => {}
            Some((old, _)) => {
                let mut woken = a.wake(first_key, wake, !0);
                if op.holds(old) {
                    let bucket = b.as_deref_mut().unwrap_or(&mut a);
                    woken += bucket.wake(second_key, wake_second, !0);
                }
                return Ok(woken);
            }
        }
    }
}

/// One word that futex_waitv(2) waits for.
#[derive(Clone, Copy, Debug)]
pub struct WaitOn {
    /// Address of the word.
    pub addr: usize,
    /// Expected value.
    pub value: u32,
    /// Whether the word is private to the process.
    pub private: bool,
}

/// Sleeps until one of several words is woken; returns the index of one that was (futex_waitv(2)).
pub fn wait_any(words: &[WaitOn], deadline: Option<u64>) -> Result<usize> {
    let mut waiters: Vec<Arc<Waiter>> = Vec::new();
    let unqueue_all = |waiters: &[Arc<Waiter>]| {
        // The last one woken is what Linux reports, too.
        waiters
            .iter()
            .enumerate()
            .filter(|(_, waiter)| !waiter.unqueue())
            .map(|(index, _)| index)
            .next_back()
    };
    for word in words {
        match queue_if(word.addr, word.value, word.private, !0) {
            Ok(waiter) => waiters.push(waiter),
            Err(error) => return unqueue_all(&waiters).ok_or(error),
        }
    }
    let outcome = sleep(deadline, || waiters.iter().any(|waiter| waiter.woken()));
    match (unqueue_all(&waiters), outcome) {
        (Some(index), _) => Ok(index),
        (None, Err(WaitError::TimedOut)) => Err(Errno::ETIMEDOUT),
        (None, _) => Err(Errno::ERESTARTSYS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_op_encodings() {
        let op = |op: u32, arg: u32, cmp: u32, cmp_arg: u32| {
            WakeOp::parse(op << 28 | cmp << 24 | (arg & 0xfff) << 12 | cmp_arg & 0xfff)
        };
        let add = op(1, 5, 4, 0xfff).unwrap();
        assert_eq!(add.apply(10), 15);
        assert!(add.holds(0) && !add.holds(-1i32 as u32));
        assert_eq!(op(8 | 2, 3, 0, 0).unwrap().apply(1), 9);
        assert_eq!(op(3, 1, 0, 0).unwrap().apply(7), 6);
        assert!(op(5, 0, 0, 0).is_err() && op(0, 0, 6, 0).is_err() && op(8, 40, 0, 0).is_err());
    }
}
