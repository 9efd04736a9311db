//! Sending signals.

use super::super::process::{GroupSignals, Report, Stop};
use super::super::thread::Work;
use super::super::{Process, Task, creds::cap, current, family, pid, sched};
use super::{DefaultAction, SigInfo, SigSet, Signal, code};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::sync::WaitMode;
use alloc::sync::Arc;
use linux_raw_sys::general::RLIMIT_SIGPENDING;

/// How strongly a signal is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Force {
    /// As from another process: the main process is immune to what it has no handler for.
    No,
    /// From outside the image (stop request): SIGKILL reaches the main process as well.
    Outside,
}

/// Sends a signal to a process; any thread that doesn't block it takes it. Callable from interrupt
/// handlers.
pub fn send_to_process(process: &Arc<Process>, signal: Signal, info: SigInfo) {
    let _: Result<()> = send(process, None, signal, info, Force::No);
}

/// Sends a signal to one thread. Callable from interrupt handlers.
pub fn send_to_task(task: &Arc<Task>, signal: Signal, info: SigInfo) {
    let _: Result<()> = send(task.process(), Some(task), signal, info, Force::No);
}

/// Sends a signal to every member of a process group. ESRCH if there is none. Task or softirq
/// context.
pub fn send_to_pgrp(pgid: i32, signal: Signal, info: SigInfo) -> Result<()> {
    let members = family::lock().group(pgid);
    if members.is_empty() {
        return Err(Errno::ESRCH);
    }
    for member in &members {
        send_to_process(member, signal, info);
    }
    Ok(())
}

/// Sends a signal. EAGAIN if it carries a value and the queue is full.
pub fn send(
    process: &Arc<Process>,
    target: Option<&Arc<Task>>,
    signal: Signal,
    info: SigInfo,
    force: Force,
) -> Result<()> {
    let limit = process.rlimit(RLIMIT_SIGPENDING);
    let mut group = process.signal.lock();
    if group.threads.is_empty() {
        return Ok(());
    }
    let resumed = job_control(&mut group, signal);
    let result = enqueue(process, &mut group, target, signal, info, force, limit);
    process.signal_events.wake_all(Events::IN);
    drop(group);
    if resumed {
        super::super::exit::notify_parent_of_job(process, Report::Continued);
    }
    result
}

/// The effects that SIGCONT and the stopping signals have at once, blocked or not. Returns whether
/// a stopped process goes on.
fn job_control(group: &mut GroupSignals, signal: Signal) -> bool {
    let cont = SigSet::of(Signal::CONT);
    let discard = match signal {
        Signal::CONT => SigSet::STOPPING,
        _ if SigSet::STOPPING.has(signal) => cont,
        Signal::KILL => SigSet::EMPTY,
        _ => return false,
    };
    group.pending.discard(discard);
    for thread in &group.threads {
        thread.signal.lock().pending.discard(discard);
    }
    if signal != Signal::CONT && signal != Signal::KILL {
        return false;
    }
    let before = core::mem::replace(&mut group.stop, Stop::None);
    if before != Stop::None {
        for thread in &group.threads {
            thread.remove_work(Work::STOP);
            sched::resume(thread);
        }
    }
    if signal == Signal::CONT {
        for thread in group.threads.iter().filter(|thread| thread.work().contains(Work::TRACE)) {
            thread.add_work(Work::RETRAP);
            alert(thread);
            sched::resume(thread);
        }
    }
    let resumed = matches!(before, Stop::Stopped(_)) && signal == Signal::CONT;
    if resumed {
        group.report = Some(Report::Continued);
    }
    resumed
}

fn enqueue(
    process: &Arc<Process>,
    group: &mut GroupSignals,
    target: Option<&Arc<Task>>,
    signal: Signal,
    info: SigInfo,
    force: Force,
    limit: u64,
) -> Result<()> {
    let action = group.actions.get(signal);
    let blocked = |task: &Arc<Task>| {
        let state = task.signal.lock();
        state.mask.or(state.awaited).has(signal)
            || state.saved_mask.is_some_and(|mask| mask.has(signal))
    };
    // A blocked signal is kept even if ignored now: the action may change before it is unblocked.
    let kept = target.or(group.threads.first()).is_some_and(blocked);
    let traced = group.threads.iter().any(|thread| thread.work().contains(Work::TRACE));
    if !kept && !traced && action.ignores(signal) {
        return Ok(());
    }
    let outside = force == Force::Outside && signal == Signal::KILL;
    let immune = process.is_init() && !action.is_caught() && !outside;
    if immune && (!kept || SigSet::UNBLOCKABLE.has(signal)) {
        return Ok(());
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let queued = match target {
        Some(task) => task.signal.lock().pending.push(signal, info, limit),
        None => group.pending.push(signal, info, limit),
    };
    if !queued {
        return Err(Errno::EAGAIN);
    }
    let Some(taker) = choose(group, target, signal) else { return Ok(()) };
    let fatal = match action.is_caught() || action.handler == super::SIG_IGN {
        true => false,
        false => signal.default_action() == DefaultAction::Terminate,
    };
    let awaited = taker.signal.lock().awaited.has(signal);
    if fatal && !awaited && (!traced || signal == Signal::KILL) && group.group_exit.is_none() {
        // Every thread ends; no need to wait until one has taken the signal.
        kill_group(group, i32::from(signal.number()));
        return Ok(());
    }
    alert(&taker);
    Ok(())
}

/// The thread that takes a signal: the target, else the leader, else any that doesn't block it.
fn choose(group: &GroupSignals, target: Option<&Arc<Task>>, signal: Signal) -> Option<Arc<Task>> {
    let wants = |task: &&Arc<Task>| {
        let state = task.signal.lock();
        !state.mask.has(signal) || state.awaited.has(signal)
    };
    match target {
        Some(task) => Some(task).filter(wants).cloned(),
        None => {
            let mut willing = group.threads.iter().filter(wants);
            let idle = group.threads.iter().filter(wants).find(|task| {
                !task.work().contains(Work::SIGNAL) && !task.work().contains(Work::DIE)
            });
            idle.or_else(|| willing.next()).cloned()
        }
    }
}

/// Makes a thread look at its signals soon, wherever it is.
pub(in crate::task) fn alert(task: &Arc<Task>) {
    task.add_work(Work::SIGNAL);
    sched::disturb(task, WaitMode::Interruptible);
}

/// Ends every thread of the process with a wait status.
pub(in crate::task) fn kill_group(group: &mut GroupSignals, status: i32) {
    if group.group_exit.is_some() {
        // Nothing is left to do, unless one is writing a core file.
        if status == i32::from(Signal::KILL.number()) {
            group.threads.iter().for_each(doom);
        }
        return;
    }
    group.group_exit = Some(status);
    group.stop = Stop::None;
    for thread in &group.threads {
        doom(thread);
    }
}

/// Makes one thread end soon, wherever it is.
pub(in crate::task) fn doom(task: &Arc<Task>) {
    task.add_work(Work::DIE);
    task.remove_work(Work::STOP);
    sched::resume(task);
    sched::disturb(task, WaitMode::Killable);
}

/// Whether the caller may signal `target` (kill(2)). EPERM if not.
pub fn check_permission(target: &Arc<Process>, signal: Option<Signal>) -> Result<()> {
    let caller = current();
    if Arc::ptr_eq(caller.process(), target) {
        return Ok(());
    }
    let mine = caller.creds();
    let allowed = mine.capable(cap::KILL)
        || target.main_thread().is_none_or(|thread| {
            let theirs = thread.creds();
            [theirs.uid, theirs.suid].iter().any(|&id| id == mine.uid || id == mine.euid)
        })
        || signal == Some(Signal::CONT) && caller.process().sid() == target.sid();
    if allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// kill(2): `pid` > 0 one process, 0 the caller's group, -1 everything but the main process, < -1 a
/// group.
pub fn kill(pid: i32, signal: Option<Signal>) -> Result<()> {
    let caller = current();
    let uid = caller.with_creds(|creds| creds.uid);
    let number = signal.unwrap_or(Signal::HUP);
    let info = SigInfo::sent_by(number, code::SI_USER, caller.pid(), uid);
    let one = |target: &Arc<Process>| {
        check_permission(target, signal)?;
        match signal {
            Some(signal) => send(target, None, signal, info, Force::No),
            None => Ok(()),
        }
    };
    if pid > 0 {
        return one(&pid::find_process_of(pid).ok_or(Errno::ESRCH)?);
    }
    let targets = match pid {
        -1 => {
            let mut all = pid::processes();
            all.retain(|process| {
                process.pid() > 1 && !process.is_zombie() && process.pid() != caller.pid()
            });
            all
        }
        0 => family::lock().group(caller.process().pgid()),
        i32::MIN => return Err(Errno::ESRCH),
        group => family::lock().group(-group),
    };
    // Success if any could be signalled, else the last error.
    let mut result = Err(Errno::ESRCH);
    for target in &targets {
        match one(target) {
            Ok(()) => result = Ok(()),
            Err(error) if result.is_err() => result = Err(error),
            Err(_) => {}
        }
    }
    result
}

/// A CPU exception or the like in the current task: the signal can't be blocked, ignored or
/// survived without a handler, not even by the main process.
pub fn force(signal: Signal, info: SigInfo) {
    let task = super::super::current_arc();
    let process = task.process();
    let group = process.signal.lock();
    let mut state = task.signal.lock();
    let action = group.actions.get(signal);
    if state.mask.has(signal) || action.handler == super::SIG_IGN {
        group.actions.set(signal, super::Action::default());
        state.mask.remove(signal);
    }
    state.pending.push(signal, info, usize::MAX);
    state.forced.add(signal);
    drop(state);
    drop(group);
    task.add_work(Work::SIGNAL);
}
