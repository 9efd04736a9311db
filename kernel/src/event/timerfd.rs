//! timerfd_create(2).

use super::{Events, PollTable};
use crate::errno::{Errno, Result};
use crate::fs::{File, FileOps};
use crate::io::IoDst;
use crate::sync::{IrqLock, Observer, Registration, SpinLock, WaitMode, WaitQueue};
use crate::task::timers::Schedule;
use crate::time::{Timer, TimerTarget, clock, now_ns};
use alloc::string::String;
use alloc::sync::{Arc, Weak};

/// The clocks a timerfd can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` (the VM is never suspended without noticing), and
    /// their alarm forms.
    Monotonic,
    /// `CLOCK_REALTIME`.
    Realtime,
}

/// What is armed, in the clock's own time.
#[derive(Clone, Copy, Default)]
struct Setting {
    /// Next expiration; zero while disarmed.
    next: u64,
    /// Period; zero for a single expiration.
    interval: u64,
    /// `next` was given as a point of wall-clock time: follow the clock when it is set.
    absolute: bool,
    /// `TFD_TIMER_CANCEL_ON_SET`.
    cancel_on_set: bool,
}

#[derive(Default)]
struct Inner {
    setting: Setting,
    /// Expirations not yet read.
    count: u64,
    /// The clock was set under a `cancel_on_set` timer.
    canceled: bool,
}

/// The half that the timer interrupt reaches.
struct State {
    base: Base,
    inner: IrqLock<Inner>,
    queue: Arc<WaitQueue>,
    owner: Weak<TimerFd>,
}

/// A timer that is read.
pub struct TimerFd {
    state: Arc<State>,
    timer: Timer,
    /// Listens for jumps of the wall clock.
    jumps: SpinLock<Option<Registration>>,
}

impl State {
    fn now(&self) -> u64 {
        match self.base {
            Base::Monotonic => now_ns(),
            Base::Realtime => clock::realtime_ns(),
        }
    }

    fn deadline(&self, at: u64) -> u64 {
        match self.base {
            Base::Monotonic => at,
            Base::Realtime => clock::realtime_to_monotonic(at),
        }
    }

    /// Counts what has expired by now; returns the monotonic time of the next expiration.
    fn advance(&self, inner: &mut Inner) -> Option<u64> {
        let setting = &mut inner.setting;
        if setting.next == 0 {
            return None;
        }
        let now = self.now();
        if setting.next <= now {
            let periods =
                (now - setting.next).checked_div(setting.interval).map_or(1, |missed| missed + 1);
            inner.count = inner.count.saturating_add(periods);
            let step = periods.saturating_mul(setting.interval);
            setting.next =
                if setting.interval == 0 { 0 } else { setting.next.saturating_add(step) };
        }
        (setting.next != 0).then(|| self.deadline(setting.next))
    }
}

impl TimerTarget for State {
    fn expired(&self) {
        let mut inner = self.inner.lock();
        let next = self.advance(&mut inner);
        let schedule = Schedule { next: inner.setting.next, interval: inner.setting.interval };
        let readable = inner.count > 0;
        drop(inner);
        if let Some(owner) = self.owner.upgrade()
            && let Some(next) = next
        {
            owner.timer.arm(schedule.paced(now_ns(), next));
        }
        if readable {
            self.queue.wake_all(Events::IN | Events::RDNORM);
        }
    }
}

impl Observer for State {
    fn notify(&self, _events: Events) -> bool {
        let mut inner = self.inner.lock();
        if !inner.setting.absolute || inner.setting.next == 0 {
            return false;
        }
        inner.canceled |= inner.setting.cancel_on_set;
        drop(inner);
        self.expired();
        self.queue.wake_all(Events::IN | Events::RDNORM);
        false
    }
}

/// What timerfd_settime(2) and timerfd_gettime(2) exchange: nanoseconds until the next expiration
/// (zero: disarmed) and period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Time to the next expiration; for setting with an absolute flag, the point of time itself.
    pub value: u64,
    /// Period.
    pub interval: u64,
}

impl TimerFd {
    /// A disarmed timer.
    pub fn new(base: Base) -> Arc<TimerFd> {
        Arc::new_cyclic(|owner| {
            let state = Arc::new(State {
                base,
                inner: IrqLock::new(Inner::default()),
                queue: Arc::new(WaitQueue::new()),
                owner: owner.clone(),
            });
            TimerFd { timer: Timer::new(state.clone()), state, jumps: SpinLock::new(None) }
        })
    }

    /// Arms or disarms the timer and forgets unread expirations; returns the setting before.
    pub fn set(&self, spec: Spec, absolute: bool, cancel_on_set: bool) -> Spec {
        let before = self.get();
        let follows_clock = absolute && self.state.base == Base::Realtime;
        let mut jumps = self.jumps.lock();
        let wanted = follows_clock && spec.value != 0;
        if !wanted {
            *jumps = None;
        } else if jumps.is_none() {
            *jumps = Some(clock::changes().observe(self.state.clone(), false));
        }
        drop(jumps);
        let mut inner = self.state.inner.lock();
        let now = self.state.now();
        inner.setting = Setting {
            next: match (spec.value, absolute) {
                (0, _) => 0,
                (value, true) => value,
                (value, false) => now.saturating_add(value),
            },
            interval: spec.interval,
            absolute: follows_clock,
            cancel_on_set: follows_clock && cancel_on_set,
        };
        inner.count = 0;
        inner.canceled = false;
        let deadline = (inner.setting.next != 0).then(|| self.state.deadline(inner.setting.next));
        drop(inner);
        match deadline {
            Some(deadline) => self.timer.arm(deadline),
            None => drop(self.timer.cancel()),
        }
        before
    }

    /// The present setting, with the time that is left.
    pub fn get(&self) -> Spec {
        let mut inner = self.state.inner.lock();
        self.state.advance(&mut inner);
        let Setting { next, interval, .. } = inner.setting;
        // An armed timer never shows zero: that would mean disarmed.
        let left = if next == 0 { 0 } else { next.saturating_sub(self.state.now()).max(1) };
        Spec { value: left, interval }
    }

    fn take(&self) -> Option<Result<u64>> {
        let mut inner = self.state.inner.lock();
        if core::mem::take(&mut inner.canceled) {
            inner.count = 0;
            return Some(Err(Errno::ECANCELED));
        }
        match core::mem::take(&mut inner.count) {
            0 => None,
            count => Some(Ok(count)),
        }
    }
}

impl FileOps for TimerFd {
    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let count = if file.nonblocking() {
            self.take().ok_or(Errno::EAGAIN)??
        } else {
            let taken = self.state.queue.wait(WaitMode::Interruptible, None, || self.take());
            taken.map_err(|_| Errno::ERESTARTSYS)??
        };
        if dst.write(&count.to_ne_bytes())? < 8 {
            return Err(Errno::EFAULT);
        }
        Ok(8)
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&self.state.queue);
        let inner = self.state.inner.lock();
        if inner.count > 0 || inner.canceled { Events::IN } else { Events::empty() }
    }

    fn inode(&self) -> Arc<dyn crate::fs::Inode> {
        crate::fs::anon::inode()
    }

    fn describe(&self) -> String {
        String::from("anon_inode:[timerfd]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::timer;
    use linux_raw_sys::general::{O_NONBLOCK, O_RDWR};

    fn read(file: &File) -> Result<u64> {
        let mut raw = [0; 8];
        file.ops.read(file, &mut IoDst::kernel(&mut raw))?;
        Ok(u64::from_ne_bytes(raw))
    }

    #[test]
    fn counts_missed_periods_and_keeps_its_phase() {
        let timer = TimerFd::new(Base::Monotonic);
        let file = File::anonymous(timer.clone(), O_RDWR | O_NONBLOCK);
        assert_eq!(read(&file), Err(Errno::EAGAIN));
        timer.set(Spec { value: 1, interval: 1_000_000_000_000 }, true, false);
        timer::interrupt();
        assert_eq!(read(&file), Ok(1));
        assert_eq!(read(&file), Err(Errno::EAGAIN));
        let spec = timer.get();
        assert!(
            spec.value > 0 && spec.value <= 1_000_000_000_000 && spec.interval == 1_000_000_000_000
        );
        assert_eq!(timer.set(Spec::default(), false, false).interval, 1_000_000_000_000);
        assert_eq!(timer.get(), Spec::default());
    }

    #[test]
    fn a_relative_timer_that_is_not_due_stays_silent() {
        let timer = TimerFd::new(Base::Realtime);
        let file = File::anonymous(timer.clone(), O_RDWR | O_NONBLOCK);
        timer.set(Spec { value: u64::MAX / 4, interval: 0 }, false, false);
        timer::interrupt();
        assert_eq!(read(&file), Err(Errno::EAGAIN));
    }
}
