//! Timers that measure CPU time: `ITIMER_VIRTUAL`, `ITIMER_PROF`, POSIX timers of CPU clocks, and
//! the limit `RLIMIT_CPU`.
//!
//! While a process has one armed it is on a list that is looked through every [`TICK`]: as exact as
//! Linux with a 250 Hz tick.

use super::Schedule;
use crate::sync::{Once, SpinLock, softirq};
use crate::task::Process;
use crate::task::rlimit::INFINITY;
use crate::task::signal::{SigInfo, Signal, send_to_process};
use crate::time::{SECOND, Timer, TimerTarget, now_ns};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general::RLIMIT_CPU;

/// Time between two looks, in nanoseconds.
const TICK: u64 = 4_000_000;

/// A CPU-time timer; `next` counts the process's CPU time.
pub type Setting = Schedule;

/// Which time a timer measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// User time; SIGVTALRM.
    Virtual = 0,
    /// User and system time; SIGPROF.
    Prof = 1,
}

impl Which {
    fn signal(self) -> Signal {
        match self {
            Which::Virtual => Signal::VTALRM,
            Which::Prof => Signal::PROF,
        }
    }

    fn used(self, process: &Process) -> u64 {
        let usage = process.usage();
        match self {
            Which::Virtual => usage.user_ns,
            Which::Prof => usage.user_ns + usage.system_ns,
        }
    }
}

static WATCHED: SpinLock<Vec<Weak<Process>>> = SpinLock::new(Vec::new());

struct Tick;

impl TimerTarget for Tick {
    fn expired(&self) {
        softirq::raise(softirq::Kind::CpuTimers);
    }
}

fn tick() -> &'static Timer {
    static TIMER: Once<Timer> = Once::new();
    TIMER.get_or_init(|| {
        softirq::register(softirq::Kind::CpuTimers, look);
        Timer::new(Arc::new(Tick))
    })
}

/// Looks at every watched process; softirq context.
fn look() {
    let watched: Vec<Arc<Process>> = {
        let mut list = WATCHED.lock();
        list.retain(|process| process.strong_count() > 0);
        list.iter().filter_map(Weak::upgrade).collect()
    };
    let mut any = false;
    for process in &watched {
        let mut armed = false;
        for which in [Which::Virtual, Which::Prof] {
            let used = which.used(process);
            let mut timers = process.timers.lock();
            let setting = &mut timers.cpu[which as usize];
            let expired = setting.advance(used);
            armed |= setting.next != 0;
            drop(timers);
            if expired > 0 {
                send_to_process(process, which.signal(), SigInfo::kernel(which.signal()));
            }
        }
        let posix: Vec<_> = {
            let timers = process.timers.lock();
            timers.posix.values().filter(|timer| timer.is_cpu()).cloned().collect()
        };
        for timer in posix {
            armed |= timer.look();
        }
        armed |= check_limit(process);
        if armed && !process.is_zombie() {
            any = true;
        } else {
            WATCHED.lock().retain(|watched| !core::ptr::eq(watched.as_ptr(), Arc::as_ptr(process)));
        }
    }
    if any {
        tick().arm(now_ns() + TICK);
    }
}

/// `RLIMIT_CPU`: SIGXCPU at the soft limit and every second beyond it, SIGKILL at the hard one.
/// Returns whether there is a limit.
fn check_limit(process: &Arc<Process>) -> bool {
    let Ok(limit) = process.rlimit_pair(RLIMIT_CPU) else { return false };
    if limit.soft == INFINITY && limit.hard == INFINITY {
        return false;
    }
    let seconds = Which::Prof.used(process) / SECOND;
    if seconds >= limit.hard.max(1) {
        send_to_process(process, Signal::KILL, SigInfo::kernel(Signal::KILL));
    } else if seconds >= limit.soft.max(1)
        && process.cpu_warned.fetch_max(seconds, Relaxed) < seconds
    {
        send_to_process(process, Signal::XCPU, SigInfo::kernel(Signal::XCPU));
    }
    true
}

/// Looks at the process from now on, if it has a limit.
pub fn watch_limit(process: &Arc<Process>) {
    let limited =
        process.rlimit_pair(RLIMIT_CPU).is_ok_and(|limit| limit.hard.min(limit.soft) != INFINITY);
    if limited {
        watch(process);
    }
}

/// Looks at the process from now on.
pub(super) fn watch(process: &Arc<Process>) {
    let mut watched = WATCHED.lock();
    let known = watched.iter().any(|other| core::ptr::eq(other.as_ptr(), Arc::as_ptr(process)));
    if !known {
        watched.push(Arc::downgrade(process));
    }
    drop(watched);
    tick().arm(now_ns() + TICK);
}

/// The timer as it is: time left and period.
pub fn get(process: &Arc<Process>, which: Which) -> Schedule {
    let used = which.used(process);
    let setting = process.timers.lock().cpu[which as usize];
    Schedule { next: setting.left(used), interval: setting.interval }
}

/// Arms the timer `value` nanoseconds of CPU time from now (zero disarms); returns time left and
/// period before.
pub fn set(process: &Arc<Process>, which: Which, value: u64, interval: u64) -> Schedule {
    let old = get(process, which);
    let used = which.used(process);
    let next = if value == 0 { 0 } else { used.saturating_add(value) };
    process.timers.lock().cpu[which as usize] = Schedule { next, interval };
    if next != 0 {
        watch(process);
    }
    old
}
