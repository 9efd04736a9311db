//! Timers of a process: the three interval timers (setitimer(2)) and POSIX timers
//! (timer_create(2)).
//!
//! Those that measure real time use a [`crate::time::Timer`] each. Those that measure CPU time are
//! looked at every few milliseconds while any is armed ([`cpu`]): CPU time has no interrupt of its
//! own.

pub mod cpu;
pub mod interval;
pub mod posix;

use crate::map::Sorted;
use alloc::sync::Arc;

/// The timers of one process.
#[derive(Default)]
pub struct ProcessTimers {
    /// `ITIMER_REAL`, made on first use.
    pub(super) real: Option<Arc<interval::Real>>,
    /// `ITIMER_VIRTUAL` and `ITIMER_PROF`.
    pub(super) cpu: [cpu::Setting; 2],
    /// POSIX timers by ID.
    pub(super) posix: Sorted<i32, Arc<posix::PosixTimer>>,
    /// The next ID to try.
    pub(super) next_id: i32,
}

impl ProcessTimers {
    /// Disarms and forgets everything: the process ends.
    pub fn clear(&mut self) {
        *self = ProcessTimers::default();
    }
}

/// Shortest time between two interrupts for one timer, in nanoseconds.
const SHORTEST: u64 = 200_000;

/// When a timer expires next and how often after that, in nanoseconds of its clock; a `next` of
/// zero is a disarmed timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Next expiration.
    pub next: u64,
    /// Period; zero for once.
    pub interval: u64,
}

impl Schedule {
    /// Counts the expirations up to `now` and moves on to the next one.
    pub fn advance(&mut self, now: u64) -> u64 {
        if self.next == 0 || self.next > now {
            return 0;
        }
        let expired = (now - self.next).checked_div(self.interval).map_or(1, |missed| missed + 1);
        let step = expired.saturating_mul(self.interval);
        self.next = if self.interval == 0 { 0 } else { self.next.saturating_add(step) };
        expired
    }

    /// When to look again, given the monotonic time of the next expiration. A period shorter than
    /// [`SHORTEST`] is served in bundles: a program must not keep a CPU in its timer interrupt.
    pub fn paced(&self, now: u64, deadline: u64) -> u64 {
        let short = self.interval != 0 && self.interval < SHORTEST;
        if short { deadline.max(now + SHORTEST) } else { deadline }
    }

    /// Time to the next expiration; never zero for an armed timer, since zero means disarmed.
    pub fn left(&self, now: u64) -> u64 {
        if self.next == 0 { 0 } else { self.next.saturating_sub(now).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn schedules_keep_their_phase() {
        let mut schedule = Schedule { next: 100, interval: 10 };
        assert_eq!(schedule.advance(99), 0);
        assert_eq!(schedule.advance(125), 3);
        assert_eq!((schedule.next, schedule.left(125)), (130, 5));
        let tiny = Schedule { next: 130, interval: 1 };
        assert_eq!(tiny.paced(125, 130), 125 + super::SHORTEST);
        assert_eq!(Schedule { next: 130, interval: super::SHORTEST }.paced(125, 130), 130);
        let mut once = Schedule { next: 5, interval: 0 };
        assert_eq!((once.advance(1000), once.next, once.left(0)), (1, 0, 0));
    }
}
