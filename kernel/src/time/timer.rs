//! One-shot timers: a queue per CPU, driven by that CPU's timer interrupt, which is armed only for
//! the earliest.
//!
//! Lock order: a timer's own `armed` word, then a CPU's queue. Callbacks run with interrupts off
//! and neither lock held.

use crate::arch::{MAX_CPUS, clock, cpu};
use crate::map::{Tree, pair};
use crate::sync::{IrqLock, softirq};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

/// What happens when a timer expires.
pub trait TimerTarget: Send + Sync {
    /// Called in the timer interrupt: interrupts are off, only `IrqLock`s may be taken. May arm the
    /// timer again.
    fn expired(&self);
}

/// Deadline and serial number: unique, and ordered by time, then by arming.
type Key = u128;
/// Behind one more pointer, for the tree's sake.
type Target = Arc<Arc<dyn TimerTarget>>;

fn deadline(key: Key) -> u64 {
    (key >> 64) as u64
}

struct Queue {
    timers: Tree<Target>,
    /// What the hardware is armed for; `u64::MAX` for nothing.
    programmed: u64,
    /// When the scheduler wants to look at the running task; `u64::MAX` for never.
    slice: u64,
}

static QUEUES: [IrqLock<Queue>; MAX_CPUS] =
    [const { IrqLock::new(Queue { timers: Tree::new(), programmed: u64::MAX, slice: u64::MAX }) };
        MAX_CPUS];
static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Queue {
    fn earliest(&self) -> u64 {
        self.timers.first().map_or(u64::MAX, |(key, _)| deadline(key)).min(self.slice)
    }

    /// Arms the hardware of this CPU if something is due before what it is armed for.
    fn program(&mut self) {
        let earliest = self.earliest();
        if earliest < self.programmed {
            self.programmed = earliest;
            clock::set_oneshot(earliest);
        }
    }
}

/// A one-shot timer. Dropping it cancels it.
pub struct Timer {
    target: Target,
    armed: IrqLock<Option<(usize, Key)>>,
}

impl Timer {
    /// A timer that isn't armed.
    pub fn new(target: Arc<dyn TimerTarget>) -> Timer {
        Timer { target: Arc::new(target), armed: IrqLock::new(None) }
    }

    /// Expires at `deadline` (monotonic nanoseconds), or as soon as possible if that has passed;
    /// replaces an earlier arming.
    pub fn arm(&self, deadline: u64) {
        let mut armed = self.armed.lock();
        Self::remove(&mut armed);
        let key = pair(deadline, SERIAL.fetch_add(1, Ordering::Relaxed));
        // Interrupts are off, so this stays the CPU whose hardware `program` arms.
        let here = cpu::id();
        let mut queue = QUEUES[here].lock();
        queue.timers.insert(key, self.target.clone());
        queue.program();
        *armed = Some((here, key));
    }

    /// Takes the timer out of its queue. Returns whether it was still to expire; if not, its
    /// callback has run or is about to.
    pub fn cancel(&self) -> bool {
        Self::remove(&mut self.armed.lock())
    }

    fn remove(armed: &mut Option<(usize, Key)>) -> bool {
        // The hardware stays armed: an interrupt with nothing to do is cheaper than programming it
        // twice.
        let target = armed.take().and_then(|(cpu, key)| QUEUES[cpu].lock().timers.remove(key));
        target.is_some()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Asks for this CPU's scheduler to run at `deadline` (monotonic nanoseconds; `u64::MAX`: not at
/// all). One per CPU: the end of the running task's time slice.
pub fn set_slice(deadline: u64) {
    let was_enabled = crate::arch::irq::disable_save();
    let mut queue = QUEUES[cpu::id()].lock();
    queue.slice = deadline;
    queue.program();
    drop(queue);
    crate::arch::irq::restore(was_enabled);
}

/// The timer interrupt of this CPU; interrupts are off.
pub fn interrupt() {
    let queue = &QUEUES[cpu::id()];
    queue.lock().programmed = u64::MAX;
    loop {
        let now = clock::now_ns();
        let mut locked = queue.lock();
        if locked.slice <= now {
            locked.slice = u64::MAX;
            cpu::set_pending(softirq::RESCHEDULE);
        }
        let due = locked.timers.first().is_some_and(|(key, _)| deadline(key) <= now);
        let Some((_, target)) = due.then(|| locked.timers.pop_first()).flatten() else {
            locked.program();
            return;
        };
        drop(locked);
        target.expired();
    }
}

/// Timers armed on all CPUs, for /proc.
pub fn count() -> usize {
    QUEUES.iter().map(|queue| queue.lock().timers.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicUsize;

    struct Counter(AtomicUsize);
    impl TimerTarget for Counter {
        fn expired(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn due_timers_expire_once_and_cancelled_ones_never() {
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let timers: Vec<Timer> = (0..4).map(|_| Timer::new(counter.clone())).collect();
        timers[0].arm(0);
        timers[1].arm(1);
        timers[1].arm(2);
        timers[2].arm(u64::MAX - 1);
        timers[3].arm(0);
        assert!(timers[3].cancel());
        assert!(!timers[3].cancel());
        interrupt();
        interrupt();
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
        assert!(timers[2].cancel());
    }
}
