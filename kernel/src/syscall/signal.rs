//! Signals: sigaction(2), sigprocmask(2), kill(2), sigaltstack(2), sigtimedwait(2).

use super::time::get_time;
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::io::{get_user, put_user};
use crate::sync::{WaitError, WaitMode};
use crate::task::signal::send::{self, Force};
use crate::task::signal::{
    Action, ActionFlags, AltStack, MINSIGSTKSZ, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, SigInfo,
    SigSet, Signal, code, deliver, frame, take,
};
use crate::task::{current, current_arc, find_task, signal};

const SET_SIZE: usize = 8;

fn check_size(size: usize) -> Result<()> {
    if size == SET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

fn number(raw: i32) -> Result<Signal> {
    u32::try_from(raw).ok().and_then(Signal::new).ok_or(Errno::EINVAL)
}

/// A signal to send; 0 only checks.
pub fn number_or_none(raw: i32) -> Result<Option<Signal>> {
    if raw == 0 { Ok(None) } else { number(raw).map(Some) }
}

/// rt_sigaction(2)
pub fn rt_sigaction(raw: i32, new: usize, old: usize, size: usize) -> Result<usize> {
    check_size(size)?;
    let signal = number(raw)?;
    let task = current();
    let wanted = if new != 0 {
        let [handler, flags, restorer, mask]: [u64; 4] = get_user(new)?;
        if SigSet::UNBLOCKABLE.has(signal) {
            return Err(Errno::EINVAL);
        }
        Some(Action {
            handler: handler as usize,
            // Unknown bits are dropped, so that programs can find out what is known.
            flags: ActionFlags::from_bits_truncate(flags & !ActionFlags::UNSUPPORTED.bits()),
            restorer: restorer as usize,
            mask: SigSet(mask).blockable(),
        })
    } else {
        None
    };
    let before = {
        let mut group = task.process().signal.lock();
        let before = group.actions.get(signal);
        if let Some(action) = wanted {
            group.actions.set(signal, action);
            if action.ignores(signal) {
                // POSIX: ignoring discards what is pending.
                group.pending.discard(SigSet::of(signal));
                for thread in &group.threads {
                    thread.discard_pending(SigSet::of(signal));
                }
            }
        }
        before
    };
    if old != 0 {
        let words =
            [before.handler as u64, before.flags.bits(), before.restorer as u64, before.mask.0];
        put_user(old, &words)?;
    }
    Ok(0)
}

/// rt_sigprocmask(2)
pub fn rt_sigprocmask(how: i32, new: usize, old: usize, size: usize) -> Result<usize> {
    check_size(size)?;
    let before = current().signal_mask();
    if new != 0 {
        let set = SigSet(get_user(new)?);
        let mask = match how {
            0 => before.or(set),
            1 => before.minus(set),
            2 => set,
            _ => return Err(Errno::EINVAL),
        };
        signal::set_mask(mask);
    }
    if old != 0 {
        put_user(old, &before.0)?;
    }
    Ok(0)
}

/// rt_sigpending(2)
pub fn rt_sigpending(to: usize, size: usize) -> Result<usize> {
    if size > SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let pending = signal::pending_for_current().and(current().signal_mask());
    put_user(to, &pending.0)?;
    Ok(0)
}

/// rt_sigsuspend(2)
pub fn rt_sigsuspend(mask: usize, size: usize) -> Result<usize> {
    check_size(size)?;
    take::set_temporary_mask(SigSet(get_user(mask)?));
    pause()
}

/// pause(2)
pub fn pause() -> Result<usize> {
    let task = current();
    loop {
        task.prepare_to_sleep(WaitMode::Interruptible);
        if task.wait_disturbed(WaitMode::Interruptible) {
            task.finish_sleep();
            return Err(Errno::ERESTARTNOHAND);
        }
        crate::task::sched::block(None);
        task.finish_sleep();
    }
}

/// rt_sigtimedwait(2)
pub fn rt_sigtimedwait(set: usize, info: usize, timeout: usize, size: usize) -> Result<usize> {
    check_size(size)?;
    let set = SigSet(get_user(set)?).blockable();
    let deadline = match timeout {
        0 => None,
        addr => Some(crate::time::now_ns().saturating_add(get_time(addr, 1)?)),
    };
    let task = current();
    let taken = match signal::take_for_current(set) {
        Some(taken) => Ok(taken),
        None => {
            task.set_awaited(set);
            let queue = task.process().signal_events.clone();
            let outcome = loop {
                let outcome =
                    queue.wait(WaitMode::Interruptible, deadline, || signal::take_for_current(set));
                // A task told of a signal that another thread took has nothing to be interrupted for.
                signal::recalculate(task);
                let disturbed = task.wait_disturbed(WaitMode::Interruptible);
                if disturbed || !matches!(outcome, Err(WaitError::Interrupted)) {
                    break outcome;
                }
            };
            task.set_awaited(SigSet::EMPTY);
            outcome
        }
    };
    // A signal of the set may have come as the reason of the interruption.
    let taken = match taken {
        Err(_) => signal::take_for_current(set).ok_or(taken.err()),
        Ok(taken) => Ok(taken),
    };
    signal::recalculate(task);
    match taken {
        Ok(taken) => {
            if info != 0 {
                put_user(info, &taken.to_user())?;
            }
            Ok(taken.signo as usize)
        }
        Err(Some(WaitError::Interrupted)) => Err(Errno::EINTR),
        Err(_) => Err(Errno::EAGAIN),
    }
}

/// rt_sigreturn(2). A frame that can't be read costs the process its life.
pub fn rt_sigreturn(context: &mut UserContext) {
    if frame::pop(context).is_err() {
        let segv = Signal::SEGV;
        context.orig_rax = usize::MAX;
        send::force(segv, SigInfo::kernel(segv));
    }
}

/// sigaltstack(2)
pub fn sigaltstack(context: &UserContext, new: usize, old: usize) -> Result<usize> {
    let task = current();
    let before = task.altstack();
    let on = before.contains(context.rsp);
    if new != 0 {
        let [base, flags, size]: [usize; 3] = get_user(new)?;
        let flags = flags as u32;
        if on && before.flags & SS_AUTODISARM == 0 {
            return Err(Errno::EPERM);
        }
        let mode = flags & !SS_AUTODISARM;
        if mode & !SS_ONSTACK != 0 && mode != SS_DISABLE {
            return Err(Errno::EINVAL);
        }
        let stack = if mode == SS_DISABLE {
            AltStack::DISABLED
        } else if size < MINSIGSTKSZ {
            return Err(Errno::ENOMEM);
        } else {
            AltStack { base, size, flags: flags & SS_AUTODISARM }
        };
        task.set_altstack(stack);
    }
    if old != 0 {
        let flags = before.flags | if on { SS_ONSTACK } else { 0 };
        put_user(old, &[before.base, flags as usize, before.size])?;
    }
    Ok(0)
}

/// kill(2)
pub fn kill(pid: i32, raw: i32) -> Result<usize> {
    send::kill(pid, number_or_none(raw)?).map(|()| 0)
}

/// tgkill(2)
pub fn tgkill(tgid: i32, tid: i32, raw: i32) -> Result<usize> {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    to_thread(Some(tgid), tid, raw, None)
}

/// tkill(2)
pub fn tkill(tid: i32, raw: i32) -> Result<usize> {
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    to_thread(None, tid, raw, None)
}

fn to_thread(tgid: Option<i32>, tid: i32, raw: i32, info: Option<SigInfo>) -> Result<usize> {
    let wanted = number_or_none(raw)?;
    let task = find_task(tid).filter(|task| tgid.is_none_or(|tgid| task.pid() == tgid));
    let task = task.ok_or(Errno::ESRCH)?;
    send::check_permission(task.process(), wanted)?;
    if let Some(signal) = wanted {
        let sender = current();
        let uid = sender.with_creds(|creds| creds.uid);
        let info =
            info.unwrap_or_else(|| SigInfo::sent_by(signal, code::SI_TKILL, sender.pid(), uid));
        send::send(task.process(), Some(&task), signal, info, Force::No)?;
    }
    Ok(0)
}

/// Information from a program: causes that only the kernel may give are refused unless it talks to
/// itself.
pub fn info_from(addr: usize, signal: i32, to_self: bool) -> Result<SigInfo> {
    let mut info = SigInfo::from_user(&get_user(addr)?);
    info.signo = signal;
    if !to_self && (info.code >= 0 || info.code == code::SI_TKILL) {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

/// rt_sigqueueinfo(2)
pub fn rt_sigqueueinfo(pid: i32, raw: i32, addr: usize) -> Result<usize> {
    let info = info_from(addr, raw, pid == current().pid())?;
    let process = crate::task::pid::find_process_of(pid).ok_or(Errno::ESRCH)?;
    let wanted = number_or_none(raw)?;
    send::check_permission(&process, wanted)?;
    if let Some(signal) = wanted {
        send::send(&process, None, signal, info, Force::No)?;
    }
    Ok(0)
}

/// rt_tgsigqueueinfo(2)
pub fn rt_tgsigqueueinfo(tgid: i32, tid: i32, raw: i32, addr: usize) -> Result<usize> {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = info_from(addr, raw, tgid == current().pid())?;
    to_thread(Some(tgid), tid, raw, Some(info))
}

/// Whether a result asks for delivery although no signal may be flagged any more.
pub fn wants_delivery(result: usize) -> bool {
    deliver::is_restart((result as isize).wrapping_neg())
}

/// The current task as a counted reference, for hooks.
pub fn raise(signal: Signal) {
    let task = current_arc();
    let info = SigInfo::kernel(signal);
    signal::send_to_task(&task, signal, info);
}
