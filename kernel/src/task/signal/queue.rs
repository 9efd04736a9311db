//! Pending signals of a task or a process.

use super::{SigInfo, SigSet, Signal};
use alloc::collections::VecDeque;

/// Signals that wait to be delivered, in the order of signal(7): synchronous ones, then by number,
/// then by age.
#[derive(Default)]
pub struct Pending {
    set: SigSet,
    queue: VecDeque<SigInfo>,
}

impl Pending {
    /// Which signals are pending.
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Number of queued entries.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds a signal. A standard signal that is pending already is dropped, keeping the first
    /// information; but a timer's has a place of its own. Past `limit` entries only the fact is kept,
    /// and real-time signals sent with a value are refused (false).
    pub fn push(&mut self, signal: Signal, info: SigInfo, limit: usize) -> bool {
        let timer = info.code == super::code::SI_TIMER;
        if self.set.has(signal) && !signal.is_realtime() && !timer {
            return true;
        }
        let room = self.queue.len() < limit && self.queue.try_reserve(1).is_ok();
        if room {
            self.queue.push_back(info);
        } else if signal.is_realtime() && info.code != super::code::SI_USER {
            return false;
        }
        self.set.add(signal);
        true
    }

    /// Takes the next signal that is not in `blocked`.
    pub fn take(&mut self, blocked: SigSet) -> Option<SigInfo> {
        let ready = self.set.minus(blocked);
        let signal = ready.and(SigSet::SYNCHRONOUS).first().or_else(|| ready.first())?;
        Some(self.take_one(signal))
    }

    fn take_one(&mut self, signal: Signal) -> SigInfo {
        let number = i32::from(signal.number());
        let at = self.queue.iter().position(|info| info.signo == number);
        // Without an entry the queue was full when it came: only the number is known.
        let info = at
            .and_then(|at| self.queue.remove(at))
            .unwrap_or_else(|| SigInfo::new(signal, super::code::SI_USER));
        if !self.queue.iter().any(|info| info.signo == number) {
            self.set.remove(signal);
        }
        info
    }

    /// Forgets every signal of `which`.
    pub fn discard(&mut self, which: SigSet) {
        if self.set.and(which).is_empty() {
            return;
        }
        self.set = self.set.minus(which);
        self.queue
            .retain(|info| Signal::new(info.signo as u32).is_some_and(|signal| !which.has(signal)));
    }

    /// Removes queued entries that `drop` picks (a deleted timer's signal).
    pub fn retain(&mut self, keep: impl Fn(&SigInfo) -> bool) {
        self.queue.retain(keep);
        let left = self.queue.iter().filter_map(|info| Signal::new(info.signo as u32));
        self.set = left.fold(SigSet::EMPTY, |set, signal| set.or(SigSet::of(signal)));
    }

    /// Looks for an entry and lets `f` change it (timer overruns).
    pub fn find(&mut self, mut f: impl FnMut(&mut SigInfo) -> bool) -> bool {
        self.queue.iter_mut().any(&mut f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::code;
    use super::*;

    fn rt(value: u64) -> (Signal, SigInfo) {
        let signal = Signal::new(40).unwrap();
        let mut info = SigInfo::new(signal, code::SI_QUEUE);
        info.body[1] = value;
        (signal, info)
    }

    #[test]
    fn standard_signals_merge_and_realtime_ones_queue() {
        let mut pending = Pending::default();
        for pid in [1, 2] {
            let info = SigInfo::sent_by(Signal::TERM, code::SI_USER, pid, 0);
            assert!(pending.push(Signal::TERM, info, 10));
        }
        for value in [7, 8] {
            let (signal, info) = rt(value);
            assert!(pending.push(signal, info, 10));
        }
        assert_eq!(pending.take(SigSet::EMPTY).unwrap().pid(), 1);
        assert_eq!(pending.take(SigSet::EMPTY).unwrap().body[1], 7);
        assert_eq!(pending.take(SigSet::EMPTY).unwrap().body[1], 8);
        assert!(pending.take(SigSet::EMPTY).is_none());
    }

    #[test]
    fn synchronous_signals_come_first_and_blocked_ones_stay() {
        let mut pending = Pending::default();
        for signal in [Signal::HUP, Signal::SEGV, Signal::USR1] {
            pending.push(signal, SigInfo::kernel(signal), 10);
        }
        let blocked = SigSet::of(Signal::HUP);
        assert_eq!(pending.take(blocked).unwrap().signo, 11);
        assert_eq!(pending.take(blocked).unwrap().signo, 10);
        assert!(pending.take(blocked).is_none());
        assert_eq!(pending.set(), blocked);
    }

    #[test]
    fn a_full_queue_keeps_the_fact_but_refuses_values() {
        let mut pending = Pending::default();
        assert!(pending.push(Signal::TERM, SigInfo::kernel(Signal::TERM), 0));
        let (signal, info) = rt(1);
        assert!(!pending.push(signal, info, 0));
        assert_eq!(pending.take(SigSet::EMPTY).unwrap().signo, 15);
        assert!(pending.set().is_empty());
    }
}
