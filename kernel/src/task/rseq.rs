//! Restartable sequences (rseq(2)): per-CPU data without atomics, started over when interrupted.

use super::thread::Work;
use super::{current, exit, signal};
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::io::{get_user, put_user, put_user_slice};
use core::sync::atomic::Ordering::Relaxed;

const UNREGISTER: u32 = 1;
/// Bytes of the original `struct rseq`; glibc registers at least these.
const MIN_LEN: u32 = 32;
const CPU_UNINITIALIZED: u32 = u32::MAX;

/// rseq(2).
pub fn register(area: usize, len: u32, flags: u32, signature: u32) -> Result<usize> {
    let task = current();
    let old = task.rseq.load(Relaxed);
    if flags & !UNREGISTER != 0 {
        return Err(Errno::EINVAL);
    }
    if flags == UNREGISTER {
        if old == 0 || old != area || len < MIN_LEN {
            return Err(Errno::EINVAL);
        }
        if task.rseq_signature.load(Relaxed) != signature {
            return Err(Errno::EPERM);
        }
        put_user_slice(area, &[0u32, CPU_UNINITIALIZED])?;
        task.rseq.store(0, Relaxed);
        return Ok(0);
    }
    if old != 0 {
        let same = old == area && task.rseq_signature.load(Relaxed) == signature;
        return Err(if same { Errno::EBUSY } else { Errno::EINVAL });
    }
    if area == 0 || !area.is_multiple_of(32) || len < MIN_LEN {
        return Err(Errno::EINVAL);
    }
    put_user(area + 8, &0u64)?;
    task.rseq_signature.store(signature, Relaxed);
    task.rseq.store(area, Relaxed);
    task.add_work(Work::RSEQ);
    Ok(0)
}

/// Brings the area up to date before user mode: the CPU, and the sequence that was interrupted.
pub(super) fn update(context: &mut UserContext) {
    let task = current();
    task.remove_work(Work::RSEQ);
    let area = task.rseq.load(Relaxed);
    if area == 0 {
        return;
    }
    abort(context);
    let cpu = crate::arch::cpu::id() as u32;
    let written = put_user_slice(area, &[cpu, cpu]).and_then(|()| put_user(area + 20, &0u32));
    if written.is_err() {
        let segv = signal::Signal::SEGV;
        signal::send::force(segv, signal::SigInfo::kernel(segv));
    }
}

/// Sends an interrupted critical section to its abort handler.
pub(super) fn abort(context: &mut UserContext) {
    let area = current().rseq.load(Relaxed);
    if area != 0 && try_abort(context, area).is_err() {
        exit::exit_group(signal::Signal::SEGV.number().into());
    }
}

fn try_abort(context: &mut UserContext, area: usize) -> Result<()> {
    let section: u64 = get_user(area + 8)?;
    if section == 0 {
        return Ok(());
    }
    // version and flags, start, length, abort address
    let [_, start, length, target]: [u64; 4] = get_user(section as usize)?;
    let inside = (context.rip as u64).wrapping_sub(start) < length;
    put_user(area + 8, &0u64)?;
    if inside {
        let mark: u32 = get_user((target as usize).wrapping_sub(4))?;
        if mark != current().rseq_signature.load(Relaxed) {
            return Err(Errno::EINVAL);
        }
        context.rip = target as usize;
    }
    Ok(())
}
