//! `ITIMER_REAL` (setitimer(2), alarm(2)).

use super::Schedule;
use crate::sync::IrqLock;
use crate::task::signal::{SigInfo, Signal, send_to_process};
use crate::task::{Process, current};
use crate::time::{Timer, TimerTarget, now_ns};
use alloc::sync::{Arc, Weak};

struct State {
    process: Weak<Process>,
    schedule: IrqLock<Schedule>,
    owner: Weak<Real>,
}

/// The real-time interval timer of a process.
pub struct Real {
    state: Arc<State>,
    timer: Timer,
}

impl TimerTarget for State {
    fn expired(&self) {
        let (expired, schedule) = {
            let mut schedule = self.schedule.lock();
            (schedule.advance(now_ns()), *schedule)
        };
        if schedule.next != 0
            && let Some(owner) = self.owner.upgrade()
        {
            owner.timer.arm(schedule.paced(now_ns(), schedule.next));
        }
        if expired > 0
            && let Some(process) = self.process.upgrade()
        {
            send_to_process(&process, Signal::ALRM, SigInfo::kernel(Signal::ALRM));
        }
    }
}

impl Real {
    fn new(process: &Arc<Process>) -> Arc<Real> {
        Arc::new_cyclic(|owner| {
            let schedule = IrqLock::new(Schedule::default());
            let state = Arc::new(State {
                process: Arc::downgrade(process),
                schedule,
                owner: owner.clone(),
            });
            Real { timer: Timer::new(state.clone()), state }
        })
    }

    fn set(&self, new: Schedule) -> Schedule {
        let old = core::mem::replace(&mut *self.state.schedule.lock(), new);
        if new.next == 0 {
            self.timer.cancel();
        } else {
            self.timer.arm(new.next);
        }
        old
    }
}

/// The caller's timer as it is.
pub fn get() -> Schedule {
    let timers = current().process().timers.lock();
    timers.real.as_ref().map_or(Schedule::default(), |real| *real.state.schedule.lock())
}

/// Arms or disarms the caller's timer; returns the setting before.
pub fn set(new: Schedule) -> Schedule {
    let process = current().process();
    let real = {
        let mut timers = process.timers.lock();
        timers.real.get_or_insert_with(|| Real::new(process)).clone()
    };
    real.set(new)
}
