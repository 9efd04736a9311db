//! Scheduling: sched_yield(2), affinity, nice values, policies.

use crate::errno::{Errno, Result};
use crate::io::{get_user, get_user_slice, put_user, put_user_slice};
use crate::task::creds::cap;
use crate::task::sched::{self, NICE_MAX, NICE_MIN, Policy};
use crate::task::{Task, current, current_arc, family, find_task, pid};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::*;

fn target(tid: i32) -> Result<Arc<Task>> {
    match tid {
        0 => Ok(current_arc()),
        tid if tid < 0 => Err(Errno::EINVAL),
        tid => find_task(tid).ok_or(Errno::ESRCH),
    }
}

/// Whether the caller may change how `task` is scheduled.
pub(super) fn check_owner(task: &Task) -> Result<()> {
    let (mine, theirs) = (current().creds(), task.creds());
    let owns = mine.euid == theirs.euid || mine.euid == theirs.uid;
    if owns || mine.capable(cap::SYS_NICE) { Ok(()) } else { Err(Errno::EPERM) }
}

/// sched_yield(2)
pub fn sched_yield() -> Result<usize> {
    sched::yield_now();
    Ok(0)
}

/// sched_getaffinity(2)
pub fn sched_getaffinity(tid: i32, len: usize, to: usize) -> Result<usize> {
    if len < 8 || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let mask = target(tid)?.sched.affinity() & sched::online_cpus();
    put_user(to, &u64::from(mask))?;
    Ok(8)
}

/// sched_setaffinity(2)
pub fn sched_setaffinity(tid: i32, len: usize, from: usize) -> Result<usize> {
    let mut bytes = [0u8; 8];
    let n = len.min(8);
    get_user_slice(from, &mut bytes[..n])?;
    let task = target(tid)?;
    check_owner(&task)?;
    task.sched.set_affinity(u64::from_le_bytes(bytes) as u32)?;
    let allowed = task.sched.affinity() & (1 << task.sched.cpu()) != 0;
    if !allowed {
        if core::ptr::eq(&*task, current()) {
            sched::preempt();
        } else {
            crate::arch::ipi::reschedule(task.sched.cpu());
        }
    }
    Ok(0)
}

/// Highest and lowest priority of a policy.
fn priorities(class: u32) -> Result<(i32, i32)> {
    match class {
        SCHED_FIFO | SCHED_RR => Ok((1, 99)),
        SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok((0, 0)),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether a task can have a policy: there are no deadlines here.
fn check_class(class: u32) -> Result<()> {
    if class == SCHED_DEADLINE { Err(Errno::EINVAL) } else { Ok(()) }
}

/// sched_get_priority_max(2)
pub fn sched_get_priority_max(class: u32) -> Result<usize> {
    priorities(class).map(|(_, max)| max as usize)
}

/// sched_get_priority_min(2)
pub fn sched_get_priority_min(class: u32) -> Result<usize> {
    priorities(class).map(|(min, _)| min as usize)
}

/// sched_setscheduler(2); `None` keeps the policy (sched_setparam(2)).
pub fn sched_setscheduler(tid: i32, class: Option<u32>, param: usize) -> Result<usize> {
    if param == 0 || tid < 0 {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = get_user(param)?;
    let task = target(tid)?;
    let before = task.sched.resets_on_fork();
    let reset = class.map_or(before, |class| class & SCHED_RESET_ON_FORK != 0);
    let class = class.map_or(task.sched.policy().class, |class| class & !SCHED_RESET_ON_FORK);
    check_class(class)?;
    let (min, max) = priorities(class)?;
    if !(min..=max).contains(&priority) {
        return Err(Errno::EINVAL);
    }
    check_owner(&task)?;
    let limit = task.process().rlimit(RLIMIT_RTPRIO);
    let raises = priority as u64 > limit || before && !reset;
    if raises && !current().capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    task.sched.set_policy(Policy { class, priority: priority as u32 });
    task.sched.set_reset_on_fork(reset);
    Ok(0)
}

/// sched_getscheduler(2)
pub fn sched_getscheduler(tid: i32) -> Result<usize> {
    let task = target(tid)?;
    let reset = if task.sched.resets_on_fork() { SCHED_RESET_ON_FORK } else { 0 };
    Ok((task.sched.policy().class | reset) as usize)
}

/// sched_getparam(2)
pub fn sched_getparam(tid: i32, to: usize) -> Result<usize> {
    if to == 0 {
        return Err(Errno::EINVAL);
    }
    put_user(to, &target(tid)?.sched.policy().priority)?;
    Ok(0)
}

/// sched_rr_get_interval(2)
pub fn sched_rr_get_interval(tid: i32, to: usize) -> Result<usize> {
    // First come, first served: without end.
    let fifo = target(tid)?.sched.policy().class == SCHED_FIFO;
    put_user(to, &[0u64, if fifo { 0 } else { 3_000_000 }])?;
    Ok(0)
}

/// sched_getattr(2)
pub fn sched_getattr(tid: i32, to: usize, size: u32, flags: u32) -> Result<usize> {
    const LEN: u32 = 48;
    if to == 0 || !(LEN..=4096).contains(&size) || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let task = target(tid)?;
    let policy = task.sched.policy();
    let nice = task.sched.nice() as u32;
    let flags = u32::from(task.sched.resets_on_fork());
    put_user_slice(to, &[LEN, policy.class, flags, 0, nice, policy.priority, 0, 0, 0, 0, 0, 0])?;
    Ok(0)
}

/// sched_setattr(2)
pub fn sched_setattr(tid: i32, from: usize, flags: u32) -> Result<usize> {
    /// `SCHED_FLAG_ALL`, of which the others are for deadlines and utilization.
    const FLAGS: u32 = 0x7f;
    if from == 0 || tid < 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let words: [u32; 6] = get_user(from)?;
    if words[2] & !FLAGS != 0 || words[3] != 0 {
        return Err(Errno::EINVAL);
    }
    let reset = words[2] & 1 != 0;
    let (class, nice, priority) = (words[1], words[4] as i32, words[5]);
    check_class(class)?;
    let (min, max) = priorities(class)?;
    if words[0] < 48 || !(min..=max).contains(&(priority as i32)) {
        return Err(Errno::EINVAL);
    }
    let task = target(tid)?;
    check_owner(&task)?;
    let before = task.sched.resets_on_fork();
    let raises = priority > 0 || nice < task.sched.nice() || before && !reset;
    if raises && !current().capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    task.sched.set_policy(Policy { class, priority });
    task.sched.set_nice(nice);
    task.sched.set_reset_on_fork(reset);
    Ok(0)
}

/// The tasks that getpriority(2) and setpriority(2) mean.
pub(super) fn tasks(which: u32, who: i32) -> Result<Vec<Arc<Task>>> {
    let found = match which {
        PRIO_PROCESS if who == 0 => Vec::from([current_arc()]),
        PRIO_PROCESS => find_task(who).into_iter().collect(),
        PRIO_PGRP => {
            let pgid = if who == 0 { current().process().pgid() } else { who };
            let members = family::lock().group(pgid);
            members.iter().flat_map(|process| process.threads()).collect()
        }
        PRIO_USER => {
            let uid = if who == 0 { current().creds().uid } else { who as u32 };
            let owned = pid::processes().into_iter().filter(|process| process.uid() == uid);
            owned.flat_map(|process| process.threads()).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

/// getpriority(2): 20 minus the nice value, 1 to 40.
pub fn getpriority(which: u32, who: i32) -> Result<usize> {
    let best = match tasks(which, who) {
        Ok(tasks) => tasks.iter().map(|task| task.sched.nice()).min().unwrap_or(0),
        // It may have ended, but not been waited for.
        Err(Errno::ESRCH) if which == PRIO_PROCESS => {
            let process = pid::find_process(who).ok_or(Errno::ESRCH)?;
            process.remains().ok_or(Errno::ESRCH)?.nice
        }
        Err(error) => return Err(error),
    };
    Ok((20 - best) as usize)
}

/// setpriority(2)
pub fn setpriority(which: u32, who: i32, nice: i32) -> Result<usize> {
    let nice = nice.clamp(NICE_MIN, NICE_MAX);
    for task in tasks(which, who)? {
        check_owner(&task)?;
        let allowed = 20 - task.process().rlimit(RLIMIT_NICE).min(40) as i32;
        if nice < task.sched.nice() && nice < allowed && !current().capable(cap::SYS_NICE) {
            return Err(Errno::EACCES);
        }
        task.sched.set_nice(nice);
    }
    Ok(0)
}
