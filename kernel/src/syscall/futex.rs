//! futex(2) and its relatives.

use crate::errno::{Errno, Result};
use crate::io::{get_user, get_user_slice};
use crate::task::futex::ops::{self, WAITV_MAX, WaitOn};
use crate::task::futex::{pi, robust};
use crate::task::{current, find_task};
use crate::time::{SECOND, clock, now_ns};
use alloc::vec::Vec;
use linux_raw_sys::general::*;

/// Nanoseconds of a `struct timespec`.
fn timespec(addr: usize) -> Result<u64> {
    let [seconds, nanos]: [i64; 2] = get_user(addr)?;
    if seconds < 0 || !(0..SECOND as i64).contains(&nanos) {
        return Err(Errno::EINVAL);
    }
    Ok((seconds as u64).saturating_mul(SECOND).saturating_add(nanos as u64))
}

/// The monotonic deadline of an absolute timeout; `None` waits for ever.
fn absolute(addr: usize, realtime: bool) -> Result<Option<u64>> {
    if addr == 0 {
        return Ok(None);
    }
    let at = timespec(addr)?;
    Ok(Some(if realtime { clock::realtime_to_monotonic(at) } else { at }))
}

/// futex(2).
pub fn futex(
    addr: usize,
    op: u32,
    value: u32,
    timeout: usize,
    addr2: usize,
    value3: u32,
) -> Result<usize> {
    let private = op & FUTEX_PRIVATE_FLAG != 0;
    let realtime = op & FUTEX_CLOCK_REALTIME != 0;
    let command = op & FUTEX_CMD_MASK as u32;
    let takes_clock = matches!(command, FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2);
    if realtime && !takes_clock {
        return Err(Errno::ENOSYS);
    }
    // Where an operation has no timeout, the argument is a second count.
    let count = (value as i32).max(0) as usize;
    let count2 = (timeout as i32).max(0) as usize;
    let requeues = matches!(command, FUTEX_REQUEUE | FUTEX_CMP_REQUEUE);
    if requeues && (value as i32 | timeout as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        FUTEX_WAIT => {
            let until =
                if timeout == 0 { None } else { Some(now_ns().saturating_add(timespec(timeout)?)) };
            ops::wait_restartable(addr, value, private, !0, until).map(|()| 0)
        }
        FUTEX_WAIT_BITSET => {
            let until = absolute(timeout, realtime)?;
            ops::wait(addr, value, private, value3, until).map(|()| 0)
        }
        // At least one is woken, whatever the count says, as in Linux.
        FUTEX_WAKE => ops::wake(addr, count.max(1), private, !0),
        FUTEX_WAKE_BITSET => ops::wake(addr, count.max(1), private, value3),
        FUTEX_REQUEUE => ops::requeue(addr, addr2, private, count, count2, None),
        FUTEX_CMP_REQUEUE => ops::requeue(addr, addr2, private, count, count2, Some(value3)),
        FUTEX_WAKE_OP => ops::wake_op(addr, addr2, private, count.max(1), count2, value3),
        FUTEX_LOCK_PI => pi::lock(addr, private, absolute(timeout, true)?, false).map(|()| 0),
        FUTEX_LOCK_PI2 => pi::lock(addr, private, absolute(timeout, realtime)?, false).map(|()| 0),
        FUTEX_TRYLOCK_PI => pi::lock(addr, private, None, true).map(|()| 0),
        FUTEX_UNLOCK_PI => pi::unlock(addr, private).map(|()| 0),
        _ => Err(Errno::ENOSYS),
    }
}

/// futex_waitv(2).
pub fn futex_waitv(
    waiters: usize,
    count: usize,
    flags: u32,
    timeout: usize,
    clock: u32,
) -> Result<usize> {
    /// `FUTEX2_SIZE_U32`.
    const SIZE_U32: u32 = 2;
    /// `struct futex_waitv`: value, address, flags and a reserved word.
    type Raw = [u64; 3];
    let realtime = match clock {
        CLOCK_MONOTONIC => false,
        CLOCK_REALTIME => true,
        _ if timeout == 0 => false,
        _ => return Err(Errno::EINVAL),
    };
    if flags != 0 || waiters == 0 || !(1..=WAITV_MAX).contains(&count) {
        return Err(Errno::EINVAL);
    }
    let deadline = absolute(timeout, realtime)?;
    let mut raw: Vec<Raw> = alloc::vec![[0; 3]; count];
    get_user_slice(waiters, &mut raw)?;
    let words: Result<Vec<WaitOn>> = raw
        .into_iter()
        .map(|[value, addr, flags]| {
            let known = SIZE_U32 | FUTEX_PRIVATE_FLAG;
            if flags >> 32 != 0 || flags as u32 & !known != 0 || flags as u32 & SIZE_U32 == 0 {
                return Err(Errno::EINVAL);
            }
            let private = flags as u32 & FUTEX_PRIVATE_FLAG != 0;
            Ok(WaitOn { addr: addr as usize, value: value as u32, private })
        })
        .collect();
    ops::wait_any(&words?, deadline)
}

/// set_robust_list(2).
pub fn set_robust_list(head: usize, len: usize) -> Result<usize> {
    if len != 24 {
        return Err(Errno::EINVAL);
    }
    robust::set_head(current(), head);
    Ok(0)
}

/// get_robust_list(2).
pub fn get_robust_list(tid: i32, head: usize, len: usize) -> Result<usize> {
    let list = if tid == 0 {
        robust::head(current())
    } else {
        let task = find_task(tid).ok_or(Errno::ESRCH)?;
        // Who may not trace a process may not know its addresses (ptrace(2)).
        let (mine, theirs) = (current().creds(), task.creds());
        let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|&uid| uid == mine.uid);
        if !same && !mine.capable(CAP_SYS_PTRACE) {
            return Err(Errno::EPERM);
        }
        robust::head(&task)
    };
    crate::io::put_user(len, &24usize)?;
    crate::io::put_user(head, &list)?;
    Ok(0)
}
