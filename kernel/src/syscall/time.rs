//! Clocks, sleeping, timers.

use crate::errno::{Errno, Result};
use crate::io::{get_user, put_user};
use crate::sync::{WaitError, WaitMode, WaitQueue};
use crate::task::creds::cap;
use crate::task::signal::Restart;
use crate::task::timers::{Schedule, cpu, interval, posix};
use crate::task::{Process, Task, current, find_process, find_task};
use crate::time::{SECOND, clock, now_ns, realtime_ns};
use alloc::sync::Arc;
use linux_raw_sys::general::*;

/// What a clock number means (clock_gettime(2)).
enum Clock {
    Realtime,
    Monotonic,
    ProcessCpu(Arc<Process>),
    ThreadCpu(Arc<Task>),
}

/// Interprets a clock number; negative ones encode a process or thread (`CPUCLOCK_*` in Linux).
fn clock_of(id: i32) -> Result<Clock> {
    Ok(match id as u32 {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_TAI | CLOCK_REALTIME_ALARM => {
            Clock::Realtime
        }
        CLOCK_MONOTONIC
        | CLOCK_MONOTONIC_RAW
        | CLOCK_MONOTONIC_COARSE
        | CLOCK_BOOTTIME
        | CLOCK_BOOTTIME_ALARM => Clock::Monotonic,
        CLOCK_PROCESS_CPUTIME_ID => Clock::ProcessCpu(current().process().clone()),
        CLOCK_THREAD_CPUTIME_ID => Clock::ThreadCpu(crate::task::current_arc()),
        _ if id < 0 && id & 3 != 3 => {
            let number = !(id >> 3);
            if id & 4 != 0 {
                let task =
                    if number == 0 { Some(crate::task::current_arc()) } else { find_task(number) };
                Clock::ThreadCpu(task.ok_or(Errno::EINVAL)?)
            } else {
                let process = if number == 0 {
                    Some(current().process().clone())
                } else {
                    find_process(number)
                };
                Clock::ProcessCpu(process.ok_or(Errno::EINVAL)?)
            }
        }
        _ => return Err(Errno::EINVAL),
    })
}

impl Clock {
    fn now(&self) -> u64 {
        match self {
            Clock::Realtime => realtime_ns(),
            Clock::Monotonic => now_ns(),
            Clock::ProcessCpu(process) => {
                let usage = process.usage();
                usage.user_ns + usage.system_ns
            }
            Clock::ThreadCpu(task) => {
                let usage = task.sched.usage();
                usage.user_ns + usage.system_ns
            }
        }
    }
}

fn put_time(addr: usize, ns: u64, unit: u64) -> Result<()> {
    put_user(addr, &[ns / SECOND, ns % SECOND / unit])
}

/// Nanoseconds of a `struct timespec` or `timeval`; EINVAL if it isn't a valid one.
pub(super) fn get_time(addr: usize, unit: u64) -> Result<u64> {
    let [seconds, fraction]: [i64; 2] = get_user(addr)?;
    valid_time(seconds, fraction, unit)
}

fn valid_time(seconds: i64, fraction: i64, unit: u64) -> Result<u64> {
    if seconds < 0 || !(0..(SECOND / unit) as i64).contains(&fraction) {
        return Err(Errno::EINVAL);
    }
    Ok((seconds as u64).saturating_mul(SECOND).saturating_add(fraction as u64 * unit))
}

/// clock_gettime(2).
pub fn clock_gettime(id: i32, to: usize) -> Result<usize> {
    put_time(to, clock_of(id)?.now(), 1)?;
    Ok(0)
}

/// clock_getres(2): the coarse clocks say the tick they have on Linux.
pub fn clock_getres(id: i32, to: usize) -> Result<usize> {
    clock_of(id)?;
    let coarse = matches!(id as u32, CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE);
    if to != 0 {
        put_time(to, if coarse { 4_000_000 } else { 1 }, 1)?;
    }
    Ok(0)
}

/// clock_settime(2).
pub fn clock_settime(id: i32, from: usize) -> Result<usize> {
    let ns = get_time(from, 1)?;
    set_wall_clock(id, ns)
}

fn set_wall_clock(id: i32, ns: u64) -> Result<usize> {
    if id as u32 != CLOCK_REALTIME {
        clock_of(id)?;
        return Err(Errno::EINVAL);
    }
    if !current().capable(cap::SYS_TIME) {
        return Err(Errno::EPERM);
    }
    clock::set_realtime(ns);
    Ok(0)
}

/// gettimeofday(2).
pub fn gettimeofday(tv: usize, tz: usize) -> Result<usize> {
    if tv != 0 {
        put_time(tv, realtime_ns(), 1000)?;
    }
    if tz != 0 {
        put_user(tz, &[0u32; 2])?;
    }
    Ok(0)
}

/// settimeofday(2).
pub fn settimeofday(tv: usize, _tz: usize) -> Result<usize> {
    if tv == 0 {
        return Ok(0);
    }
    set_wall_clock(CLOCK_REALTIME as i32, get_time(tv, 1000)?)
}

/// time(2).
pub fn time(to: usize) -> Result<usize> {
    let seconds = realtime_ns() / SECOND;
    if to != 0 {
        put_user(to, &seconds)?;
    }
    Ok(seconds as usize)
}

/// Sleeps until a monotonic time.
fn sleep_until(deadline: u64) -> core::result::Result<(), WaitError> {
    // A queue nobody wakes: only the deadline or a signal ends the wait.
    let queue = WaitQueue::new();
    match queue.wait(WaitMode::Interruptible, Some(deadline), || None::<()>) {
        Err(WaitError::Interrupted) => Err(WaitError::Interrupted),
        _ => Ok(()),
    }
}

/// nanosleep(2).
pub fn nanosleep(request: usize, remaining: usize) -> Result<usize> {
    let until = now_ns().saturating_add(get_time(request, 1)?);
    relative_sleep(CLOCK_MONOTONIC as i32, until, remaining)
}

/// clock_nanosleep(2). EOPNOTSUPP for clocks that nothing sleeps by.
pub fn clock_nanosleep(id: i32, flags: u32, request: usize, remaining: usize) -> Result<usize> {
    let clock = clock_of(id)?;
    let read_only = [
        CLOCK_THREAD_CPUTIME_ID,
        CLOCK_MONOTONIC_RAW,
        CLOCK_REALTIME_COARSE,
        CLOCK_MONOTONIC_COARSE,
    ];
    if read_only.contains(&(id as u32)) {
        return Err(Errno::EOPNOTSUPP);
    }
    if matches!(clock, Clock::ThreadCpu(_)) {
        return Err(Errno::EINVAL);
    }
    let time = get_time(request, 1)?;
    let absolute = flags & TIMER_ABSTIME != 0;
    if let Clock::ProcessCpu(_) = clock {
        return sleep_on_cpu_time(
            &clock,
            if absolute { time } else { clock.now().saturating_add(time) },
        );
    }
    if !absolute {
        return relative_sleep(id, now_ns().saturating_add(time), remaining);
    }
    // The wall clock may be set while we sleep: look again until it is time.
    while clock.now() < time {
        let (until, changes) = match clock {
            Clock::Realtime => (clock::realtime_to_monotonic(time), clock::changes()),
            _ => {
                return match sleep_until(time) {
                    Ok(()) => Ok(0),
                    Err(_) => Err(Errno::ERESTARTNOHAND),
                };
            }
        };
        let set = || (clock::realtime_to_monotonic(time) != until).then_some(());
        if changes.wait(WaitMode::Interruptible, Some(until), set) == Err(WaitError::Interrupted) {
            return Err(Errno::ERESTARTNOHAND);
        }
    }
    Ok(0)
}

/// Sleeps until the process (its other threads) has used so much CPU time, looking every few
/// milliseconds.
fn sleep_on_cpu_time(clock: &Clock, until: u64) -> Result<usize> {
    const TICK: u64 = 4_000_000;
    while clock.now() < until {
        sleep_until(now_ns() + TICK).map_err(|_| Errno::ERESTARTNOHAND)?;
    }
    Ok(0)
}

fn relative_sleep(clock: i32, until: u64, remaining: usize) -> Result<usize> {
    if sleep_until(until).is_ok() {
        return Ok(0);
    }
    if remaining != 0 {
        put_time(remaining, until.saturating_sub(now_ns()), 1)?;
    }
    current().set_restart(Restart::Sleep { clock, until, remaining });
    Err(Errno::ERESTART_RESTARTBLOCK)
}

/// restart_syscall(2): goes on with what was interrupted.
pub fn restart_syscall() -> Result<usize> {
    match current().take_restart() {
        Some(Restart::Sleep { clock, until, remaining }) => relative_sleep(clock, until, remaining),
        Some(Restart::Futex { addr, value, until, bitset, private }) => {
            let wait = crate::task::futex::ops::wait_restartable;
            wait(addr, value, private, bitset, Some(until)).map(|()| 0)
        }
        _ => Err(Errno::EINTR),
    }
}

// --- Interval timers
// -------------------------------------------------------------------------------------------------

/// `struct itimerval`: interval, value.
fn put_itimer(addr: usize, interval: u64, value: u64, unit: u64) -> Result<()> {
    put_user(
        addr,
        &[interval / SECOND, interval % SECOND / unit, value / SECOND, value % SECOND / unit],
    )
}

fn cpu_timer(which: u32) -> Result<cpu::Which> {
    match which {
        ITIMER_VIRTUAL => Ok(cpu::Which::Virtual),
        ITIMER_PROF => Ok(cpu::Which::Prof),
        _ => Err(Errno::EINVAL),
    }
}

fn real_left(schedule: Schedule) -> Schedule {
    Schedule { next: schedule.left(now_ns()), interval: schedule.interval }
}

/// getitimer(2).
pub fn getitimer(which: u32, to: usize) -> Result<usize> {
    let now = match which {
        ITIMER_REAL => real_left(interval::get()),
        _ => cpu::get(current().process(), cpu_timer(which)?),
    };
    // Shown in microseconds, an armed timer must not look disarmed.
    put_itimer(to, now.interval, if now.next == 0 { 0 } else { now.next.max(1000) }, 1000)?;
    Ok(0)
}

/// setitimer(2).
pub fn setitimer(which: u32, new: usize, old: usize) -> Result<usize> {
    let [is, iu, vs, vu]: [i64; 4] = if new == 0 { [0; 4] } else { get_user(new)? };
    let (value, period) = (valid_time(vs, vu, 1000)?, valid_time(is, iu, 1000)?);
    let before = match which {
        ITIMER_REAL => {
            let next = if value == 0 { 0 } else { now_ns().saturating_add(value) };
            real_left(interval::set(Schedule { next, interval: period }))
        }
        _ => cpu::set(current().process(), cpu_timer(which)?, value, period),
    };
    if old != 0 {
        put_itimer(
            old,
            before.interval,
            if before.next == 0 { 0 } else { before.next.max(1000) },
            1000,
        )?;
    }
    Ok(0)
}

/// alarm(2): returns the seconds that were left, rounded to the nearest but never to zero.
pub fn alarm(seconds: u32) -> Result<usize> {
    let next = if seconds == 0 { 0 } else { now_ns() + u64::from(seconds) * SECOND };
    let before = real_left(interval::set(Schedule { next, interval: 0 })).next;
    let rounded = (before + SECOND / 2) / SECOND;
    Ok(if before > 0 { rounded.max(1) as usize } else { 0 })
}

// --- POSIX timers
// ----------------------------------------------------------------------------------------------------

/// timer_create(2).
pub fn timer_create(id: i32, event: usize, to: usize) -> Result<usize> {
    let base = match clock_of(id)? {
        Clock::Realtime => posix::Base::Realtime,
        Clock::Monotonic => posix::Base::Monotonic,
        Clock::ProcessCpu(process) => posix::Base::ProcessCpu(Arc::downgrade(&process)),
        Clock::ThreadCpu(task) => posix::Base::ThreadCpu(Arc::downgrade(&task)),
    };
    let event = if event == 0 {
        None
    } else {
        // sigev_value, sigev_signo and sigev_notify, the thread's number.
        let [value, kind, tid]: [u64; 3] = get_user(event)?;
        Some(posix::Event {
            value,
            signal: kind as u32,
            notify: (kind >> 32) as u32,
            tid: tid as i32,
        })
    };
    let timer = posix::create(base, event)?;
    if let Err(error) = put_user(to, &timer) {
        posix::delete(timer)?;
        return Err(error);
    }
    Ok(0)
}

/// timer_settime(2).
pub fn timer_settime(id: i32, flags: u32, new: usize, old: usize) -> Result<usize> {
    if new == 0 {
        return Err(Errno::EINVAL);
    }
    let [is, ins, vs, vns]: [i64; 4] = get_user(new)?;
    let timer = posix::find(id)?;
    let (value, period) = (valid_time(vs, vns, 1)?, valid_time(is, ins, 1)?);
    let before = timer.set(value, period, flags & TIMER_ABSTIME != 0);
    if old != 0 {
        put_itimer(old, before.interval, before.next, 1)?;
    }
    Ok(0)
}

/// timer_gettime(2).
pub fn timer_gettime(id: i32, to: usize) -> Result<usize> {
    let now = posix::find(id)?.get();
    put_itimer(to, now.interval, now.next, 1)?;
    Ok(0)
}

/// timer_getoverrun(2).
pub fn timer_getoverrun(id: i32) -> Result<usize> {
    Ok(posix::find(id)?.overrun() as usize)
}

/// timer_delete(2).
pub fn timer_delete(id: i32) -> Result<usize> {
    posix::delete(id)?;
    Ok(0)
}
