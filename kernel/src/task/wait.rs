//! Waiting for children (wait4(2), waitid(2)).

use super::process::{Report, Usage};
use super::signal::{SigInfo, code};
use super::{Process, current, exit, trace};
use crate::errno::{Errno, Result};
use crate::sync::{WaitError, WaitMode};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// Which children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Any.
    Any,
    /// This one.
    Pid(i32),
    /// Members of this process group.
    Group(i32),
}

/// `WNOHANG`
pub const WNOHANG: u32 = 1;
/// `WUNTRACED`, `WSTOPPED`
pub const WSTOPPED: u32 = 2;
/// `WEXITED`
pub const WEXITED: u32 = 4;
/// `WCONTINUED`
pub const WCONTINUED: u32 = 8;
/// `WNOWAIT`
pub const WNOWAIT: u32 = 0x0100_0000;
/// `__WNOTHREAD`
pub const WNOTHREAD: u32 = 0x2000_0000;
/// `__WALL`
pub const WALL: u32 = 0x4000_0000;
/// `__WCLONE`
pub const WCLONE: u32 = 0x8000_0000;

/// A state change of a child.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Its number.
    pub pid: i32,
    /// Wait status word.
    pub status: i32,
    /// As waitid(2) tells it.
    pub info: SigInfo,
    /// What it used.
    pub usage: Usage,
}

/// Waits for a state change; `None` with `WNOHANG` if there is none yet. ECHILD without such
/// children.
pub fn wait(who: Who, options: u32) -> Result<Option<Event>> {
    let process = current().process().clone();
    let check = || match scan(&process, who, options) {
        Ok(None) if options & WNOHANG == 0 => None,
        other => Some(other),
    };
    match process.child_events.wait(WaitMode::Interruptible, None, check) {
        Ok(result) => result,
        Err(WaitError::Interrupted | WaitError::TimedOut) => Err(Errno::ERESTARTSYS),
    }
}

fn scan(parent: &Arc<Process>, who: Who, options: u32) -> Result<Option<Event>> {
    let mut any = false;
    match trace::scan(parent, who, options & WNOWAIT != 0) {
        Ok(Some((pid, status))) => return Ok(Some(of_tracee(pid, status))),
        Ok(None) => any = true,
        Err(_) => {}
    }
    for child in parent.children() {
        let eligible = match who {
            Who::Any => true,
            Who::Pid(pid) => child.pid() == pid,
            Who::Group(pgid) => child.pgid() == pgid,
        };
        let clone = child.exit_signal.load(Ordering::Relaxed) != 17;
        // A tracee is waited for whatever kind of child it is.
        let any_kind = options & WALL != 0 || child.traced_to_the_end.load(Ordering::Relaxed);
        if !eligible || !any_kind && clone != (options & WCLONE != 0) {
            continue;
        }
        // What has ended will neither stop nor go on any more.
        let zombie = child.is_zombie();
        any |= !zombie || options & WEXITED != 0;
        if zombie && options & WEXITED != 0 {
            if let Some(event) = take_zombie(parent, &child, options) {
                return Ok(Some(event));
            }
        } else if let Some(event) = take_report(&child, options) {
            return Ok(Some(event));
        }
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

/// What a tracee stopped for, or how it ended.
fn of_tracee(pid: i32, status: i32) -> Event {
    let (cause, value) = match status & 0x7f {
        0x7f => (code::CLD_TRAPPED, status >> 8 & 0xff),
        0 => (code::CLD_EXITED, status >> 8 & 0xff),
        signal => (code::CLD_KILLED, signal),
    };
    let uid = super::find_process(pid).map_or(0, |process| process.uid());
    let info = SigInfo::child(cause, pid, uid, value, 0, 0);
    Event { pid, status, info, usage: Usage::default() }
}

fn take_zombie(parent: &Process, child: &Arc<Process>, options: u32) -> Option<Event> {
    let mut usage = child.usage();
    usage.add(&child.children_usage());
    let status = child.exit_status.load(Ordering::Relaxed);
    let event = Event { pid: child.pid(), status, info: exit::child_info(child), usage };
    if options & WNOWAIT == 0 {
        // Of several threads that wait, one gets it.
        if child.reaped.swap(true, Ordering::AcqRel) {
            return None;
        }
        parent.spent.lock().children.add(&usage);
        exit::reap(child);
    } else {
        // As reaping does: its SIGCHLD is there before the parent knows.
        drop(super::family::lock());
    }
    Some(event)
}

fn take_report(child: &Arc<Process>, options: u32) -> Option<Event> {
    let mut group = child.signal.lock();
    let (status, cause, value) = match group.report? {
        Report::Stopped(signal) if options & WSTOPPED != 0 => {
            (i32::from(signal) << 8 | 0x7f, code::CLD_STOPPED, i32::from(signal))
        }
        Report::Continued if options & WCONTINUED != 0 => (0xffff, code::CLD_CONTINUED, 18),
        _ => return None,
    };
    if options & WNOWAIT == 0 {
        group.report = None;
    }
    drop(group);
    let info = SigInfo::child(cause, child.pid(), child.uid(), value, 0, 0);
    Some(Event { pid: child.pid(), status, info, usage: child.usage() })
}
