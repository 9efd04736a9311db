//! Delivery: what happens to pending signals on the way back to user mode.

use super::super::process::{GroupSignals, Report, Stop};
use super::super::thread::Work;
use super::super::{coredump, current, exit, family, sched, trace};
use super::crash::report;
use super::{Action, ActionFlags, DefaultAction, SIG_DFL, SIG_IGN, SigInfo, Signal, frame};
use crate::arch::user::UserContext;
use crate::errno::Errno;
use crate::sync::{IrqGuard, WaitMode};

/// Bytes of a `syscall` instruction.
const SYSCALL_LEN: usize = 2;
const NR_RESTART_SYSCALL: usize = 219;

/// Takes signals until one has a handler (its frame is made) or none is left.
pub(in crate::task) fn deliver(context: &mut UserContext) {
    let task = current();
    loop {
        exit::die_if_doomed(task);
        while task.work().contains(Work::RETRAP) {
            trace::on_interrupt(context);
        }
        let mut group = task.process().signal.lock();
        let traced = task.work().contains(Work::TRACE);
        if group.stop == Stop::None {
            task.remove_work(Work::STOP);
        } else if !traced || task.work().contains(Work::STOP) {
            stop(group);
            continue;
        }
        let mut state = task.signal.lock();
        let mask = state.mask;
        let Some(info) = state.pending.take(mask).or_else(|| group.pending.take(mask)) else {
            drop(state);
            drop(group);
            super::recalculate(task);
            restart(context, None);
            super::take::restore_mask();
            return;
        };
        // Queues hold only valid numbers.
        let Some(signal) = Signal::new(info.signo as u32) else { continue };
        let forced = state.forced.has(signal);
        state.forced.remove(signal);
        drop(state);
        let (mut signal, mut info) = (signal, info);
        if traced && signal != Signal::KILL {
            drop(group);
            match trace::on_signal(context, &info) {
                Some(chosen) => (signal, info) = chosen,
                None => continue,
            }
            group = task.process().signal.lock();
        }
        let action = group.actions.get(signal);
        if action.handler == SIG_IGN {
            continue;
        }
        if action.is_caught() {
            if action.flags.contains(ActionFlags::RESETHAND) {
                let reset = Action { handler: SIG_DFL, ..action };
                group.actions.set(signal, reset);
            }
            drop(group);
            restart(context, Some(&action));
            if !handle(context, signal, &action, &info) {
                // A SIGSEGV waits now.
                continue;
            }
            super::recalculate(task);
            return;
        }
        let immune = task.process().is_init() && !forced && signal != Signal::KILL;
        match signal.default_action() {
            DefaultAction::Ignore | DefaultAction::Continue => {}
            _ if immune => {}
            DefaultAction::Stop => {
                drop(group);
                begin_stop(signal);
            }
            DefaultAction::Terminate => {
                drop(group);
                exit::exit_group(signal.number().into());
            }
            DefaultAction::Core => {
                drop(group);
                report(context, signal, &info);
                exit::exit_group(coredump::dump(context, signal, &info));
            }
        }
    }
}

/// Makes the frame; a stack that can't take it is a SIGSEGV, and one for that signal costs the
/// process its life, as on Linux. Returns whether the handler runs.
fn handle(context: &mut UserContext, signal: Signal, action: &Action, info: &SigInfo) -> bool {
    let task = current();
    super::super::rseq::abort(context);
    let (mask, altstack) = {
        let mut state = task.signal.lock();
        let mask = state.saved_mask.take().unwrap_or(state.mask);
        (mask, state.altstack)
    };
    task.remove_work(Work::RESTORE_MASK);
    if frame::push(context, signal, action, info, mask, altstack).is_err() {
        if signal != Signal::SEGV {
            // Its handler may have another stack.
            task.signal.lock().mask = mask.blockable();
            super::send::force(Signal::SEGV, SigInfo::kernel(Signal::SEGV));
            return false;
        }
        let info = SigInfo::kernel(Signal::SEGV);
        report(context, Signal::SEGV, &info);
        exit::exit_group(coredump::dump(context, Signal::SEGV, &info));
    }
    let mut state = task.signal.lock();
    if altstack.flags & super::SS_AUTODISARM != 0 {
        state.altstack = super::AltStack::DISABLED;
    }
    let mut blocked = state.mask.or(action.mask);
    if !action.flags.contains(ActionFlags::NODEFER) {
        blocked.add(signal);
    }
    state.mask = blocked.blockable();
    true
}

/// Decides how an interrupted system call goes on, before a handler runs or back in the program.
fn restart(context: &mut UserContext, handler: Option<&Action>) {
    let number = core::mem::replace(&mut context.orig_rax, usize::MAX);
    if number == usize::MAX {
        return;
    }
    let result = (context.rax as isize).wrapping_neg();
    let code = |errno: Errno| errno.0 as isize == result;
    let resume = match handler {
        Some(action) => {
            let asked = action.flags.contains(ActionFlags::RESTART);
            if code(Errno::ERESTARTNOINTR) || code(Errno::ERESTARTSYS) && asked {
                Some(number)
            } else if is_restart(result) {
                context.rax = Errno::EINTR.as_ret() as usize;
                None
            } else {
                None
            }
        }
        None if code(Errno::ERESTART_RESTARTBLOCK) => Some(NR_RESTART_SYSCALL),
        None if is_restart(result) => Some(number),
        None => None,
    };
    if let Some(number) = resume {
        context.rax = number;
        context.rip -= SYSCALL_LEN;
    }
}

/// Whether a negated result is one of the codes that programs never see.
pub fn is_restart(result: isize) -> bool {
    let codes = [
        Errno::ERESTARTSYS,
        Errno::ERESTARTNOINTR,
        Errno::ERESTARTNOHAND,
        Errno::ERESTART_RESTARTBLOCK,
    ];
    codes.iter().any(|code| code.0 as isize == result)
}

/// A stopping signal with its default action: tells every thread of the process to stop.
fn begin_stop(signal: Signal) {
    let process = current().process();
    if signal != Signal::STOP && family::lock().is_orphaned(process.pgid(), None) {
        return;
    }
    let mut group = process.signal.lock();
    if group.stop != Stop::None || group.group_exit.is_some() {
        return;
    }
    group.stop = Stop::Stopping(signal.number(), 0);
    for thread in &group.threads {
        thread.add_work(Work::STOP);
        sched::disturb(thread, WaitMode::Interruptible);
    }
}

/// This thread's part in stopping the process; returns when it goes on.
fn stop(mut group: IrqGuard<'_, GroupSignals>) {
    let process = current().process();
    let mut complete = None;
    if let Stop::Stopping(signal, stopped) = group.stop {
        let stopped = stopped + 1;
        if stopped >= group.threads.len() {
            group.stop = Stop::Stopped(signal);
            group.report = Some(Report::Stopped(signal));
            complete = Some(Report::Stopped(signal));
        } else {
            group.stop = Stop::Stopping(signal, stopped);
        }
    }
    current().remove_work(Work::STOP);
    drop(group);
    if let Some(report) = complete {
        exit::notify_parent_of_job(process, report);
    }
    if current().work().contains(Work::TRACE) {
        // It stops for the tracer instead.
        current().add_work(Work::RETRAP);
        return;
    }
    sched::stop_current(|| {
        process.signal.lock().stop != Stop::None
            && !current().work().intersects(Work::DIE | Work::RETRAP)
    });
}
