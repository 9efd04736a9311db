//! POSIX timers (timer_create(2)).

use super::Schedule;
use crate::errno::{Errno, Result};
use crate::sync::IrqLock;
use crate::task::process::Usage;
use crate::task::signal::{SigInfo, Signal, code, send_to_process, send_to_task};
use crate::task::{Process, Task, current, find_task};
use crate::time::{Timer, TimerTarget, clock, now_ns};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicI32, Ordering};
use linux_raw_sys::general::*;

/// Most timers of one process; Linux counts them against `RLIMIT_SIGPENDING`.
const LIMIT: usize = 16384;

/// The clock a timer follows.
#[derive(Clone)]
pub enum Base {
    /// Monotonic time.
    Monotonic,
    /// Wall-clock time.
    Realtime,
    /// CPU time of a process; none is used any more once it is gone.
    ProcessCpu(Weak<Process>),
    /// CPU time of a thread.
    ThreadCpu(Weak<Task>),
}

/// Who hears of an expiration.
enum Target {
    Nobody,
    Process(Weak<Process>, Signal),
    Thread(Weak<Task>, Signal),
}

struct State {
    id: AtomicI32,
    base: Base,
    target: Target,
    value: u64,
    schedule: IrqLock<Schedule>,
    /// Expirations beyond the first of the signal that is (or was last) pending, and of the one
    /// before it. Locked until that signal is sent: who asks meanwhile would take the new count for
    /// the old signal's.
    overrun: IrqLock<[i32; 2]>,
    owner: Weak<PosixTimer>,
}

/// One timer.
pub struct PosixTimer {
    state: Arc<State>,
    timer: Timer,
}

impl State {
    fn now(&self) -> u64 {
        let used = |usage: Usage| usage.user_ns + usage.system_ns;
        match &self.base {
            Base::Monotonic => now_ns(),
            Base::Realtime => clock::realtime_ns(),
            Base::ProcessCpu(process) => process.upgrade().map_or(0, |it| used(it.usage())),
            Base::ThreadCpu(task) => task.upgrade().map_or(0, |it| used(it.sched.usage())),
        }
    }

    /// The monotonic time of an expiration; `None` where only looking tells.
    fn deadline(&self, at: u64) -> Option<u64> {
        match self.base {
            Base::Monotonic => Some(at),
            Base::Realtime => Some(clock::realtime_to_monotonic(at)),
            Base::ProcessCpu(_) | Base::ThreadCpu(_) => None,
        }
    }

    /// Whether this timer's signal is still pending; adds `more` to its overrun count if so.
    fn add_to_pending(&self, more: i32) -> bool {
        let id = self.id.load(Ordering::Relaxed);
        let mut add = |info: &mut SigInfo| {
            let mine = info.code == code::SI_TIMER && info.body[0] as u32 == id as u32;
            if mine {
                let count = ((info.body[0] >> 32) as i32).saturating_add(more);
                info.body[0] = u64::from(id as u32) | u64::from(count as u32) << 32;
            }
            mine
        };
        match &self.target {
            Target::Nobody => false,
            Target::Process(process, _) => process
                .upgrade()
                .is_some_and(|process| process.signal.lock().pending.find(&mut add)),
            Target::Thread(task, _) => {
                task.upgrade().is_some_and(|task| task.signal.lock().pending.find(&mut add))
            }
        }
    }

    fn notify(&self, expired: u64) {
        let count = |expired: u64| i32::try_from(expired).unwrap_or(i32::MAX);
        let mut overrun = self.overrun.lock();
        if self.add_to_pending(count(expired)) {
            overrun[0] = overrun[0].saturating_add(count(expired));
            return;
        }
        let missed = count(expired - 1);
        *overrun = [missed, overrun[0]];
        let info =
            |signal| SigInfo::timer(signal, self.id.load(Ordering::Relaxed), missed, self.value);
        match &self.target {
            Target::Nobody => {}
            Target::Process(process, signal) => {
                if let Some(process) = process.upgrade() {
                    send_to_process(&process, *signal, info(*signal));
                }
            }
            Target::Thread(task, signal) => {
                if let Some(task) = task.upgrade() {
                    send_to_task(&task, *signal, info(*signal));
                }
            }
        }
    }
}

impl TimerTarget for State {
    fn expired(&self) {
        let (expired, schedule) = {
            let mut schedule = self.schedule.lock();
            (schedule.advance(self.now()), *schedule)
        };
        if schedule.next != 0
            && let Some(deadline) = self.deadline(schedule.next)
            && let Some(owner) = self.owner.upgrade()
        {
            owner.timer.arm(schedule.paced(now_ns(), deadline));
        }
        if expired > 0 {
            self.notify(expired);
        }
    }
}

/// `struct sigevent`, as far as it matters.
pub struct Event {
    /// `SIGEV_*`.
    pub notify: u32,
    /// Signal number.
    pub signal: u32,
    /// The word the signal carries.
    pub value: u64,
    /// Thread for `SIGEV_THREAD_ID`.
    pub tid: i32,
}

/// Makes a timer of the current process; returns its ID. Without an event, SIGALRM carries the ID.
pub fn create(base: Base, event: Option<Event>) -> Result<i32> {
    let process = current().process();
    let signal = |number: u32| Signal::new(number).ok_or(Errno::EINVAL);
    let target = match &event {
        None => Target::Process(Arc::downgrade(process), Signal::ALRM),
        Some(event) => match event.notify {
            SIGEV_NONE => Target::Nobody,
            // Threads are the library's affair; to the kernel it is a signal.
            SIGEV_SIGNAL | SIGEV_THREAD => {
                Target::Process(Arc::downgrade(process), signal(event.signal)?)
            }
            SIGEV_THREAD_ID => {
                let task = find_task(event.tid).filter(|task| Arc::ptr_eq(task.process(), process));
                Target::Thread(Arc::downgrade(&task.ok_or(Errno::EINVAL)?), signal(event.signal)?)
            }
            _ => return Err(Errno::EINVAL),
        },
    };
    let mut timers = process.timers.lock();
    if timers.posix.len() >= LIMIT {
        return Err(Errno::EAGAIN);
    }
    let mut id = timers.next_id;
    while timers.posix.contains_key(&id) {
        id = if id == i32::MAX { 0 } else { id + 1 };
    }
    timers.next_id = if id == i32::MAX { 0 } else { id + 1 };
    let timer = Arc::new_cyclic(|owner| {
        let state = Arc::new(State {
            id: AtomicI32::new(id),
            base,
            target,
            value: event.map_or(id as u64, |event| event.value),
            schedule: IrqLock::new(Schedule::default()),
            overrun: IrqLock::new([0; 2]),
            owner: owner.clone(),
        });
        PosixTimer { timer: Timer::new(state.clone()), state }
    });
    timers.posix.insert(id, timer);
    Ok(id)
}

/// A timer of the current process. EINVAL if there is none with this ID.
pub fn find(id: i32) -> Result<Arc<PosixTimer>> {
    current().process().timers.lock().posix.get(&id).cloned().ok_or(Errno::EINVAL)
}

/// Deletes a timer of the current process.
pub fn delete(id: i32) -> Result<()> {
    let timer = current().process().timers.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
    timer.timer.cancel();
    Ok(())
}

/// execve(2) and exit delete all of them.
pub fn delete_all(process: &Process) {
    let all = core::mem::take(&mut process.timers.lock().posix);
    for timer in all.values() {
        timer.timer.cancel();
    }
}

impl PosixTimer {
    /// Arms (with `value` other than zero) or disarms; returns time left and period before.
    pub fn set(&self, value: u64, interval: u64, absolute: bool) -> Schedule {
        let old = self.get();
        let now = self.state.now();
        let next = match (value, absolute) {
            (0, _) => 0,
            (value, true) => value,
            (value, false) => now.saturating_add(value),
        };
        *self.state.schedule.lock() = Schedule { next, interval };
        match self.state.deadline(next) {
            _ if next == 0 => {
                self.timer.cancel();
            }
            Some(deadline) => self.timer.arm(deadline),
            None => super::cpu::watch(current().process()),
        }
        old
    }

    /// Looks whether a timer of a CPU clock has expired; returns whether it may yet. Softirq
    /// context.
    pub(super) fn look(&self) -> bool {
        self.state.expired();
        let runs = match &self.state.base {
            Base::ProcessCpu(process) => process.strong_count() > 0,
            Base::ThreadCpu(task) => task.strong_count() > 0,
            Base::Monotonic | Base::Realtime => false,
        };
        runs && self.state.schedule.lock().next != 0
    }

    /// Whether it measures CPU time.
    pub(super) fn is_cpu(&self) -> bool {
        matches!(self.state.base, Base::ProcessCpu(_) | Base::ThreadCpu(_))
    }

    /// Time left and period.
    pub fn get(&self) -> Schedule {
        let schedule = *self.state.schedule.lock();
        Schedule { next: schedule.left(self.state.now()), interval: schedule.interval }
    }

    /// Expirations beyond the first that the signal delivered last stands for.
    pub fn overrun(&self) -> i32 {
        let overrun = self.state.overrun.lock();
        overrun[usize::from(self.state.add_to_pending(0))]
    }
}
