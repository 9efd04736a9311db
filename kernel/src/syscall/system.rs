//! What administrators ask the system: adjtimex(2), acct(2), syslog(2), sysfs(2), ioprio_get(2).

use super::fs_path;
use crate::errno::{Errno, Result};
use crate::event::pidfd::PidFd;
use crate::fs::nsfs::{self, NamespaceFile};
use crate::fs::walk::Resolve;
use crate::fs::{FileType, FsContext, ops};
use crate::io::{get_user, get_user_str, put_user, put_user_slice};
use crate::sync::SpinLock;
use crate::task::creds::cap;
use crate::task::{Task, acct, current};
use crate::time::{SECOND, realtime_ns};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general::{AT_FDCWD, CLONE_NEWNS, CLONE_NEWUSER, O_APPEND, O_WRONLY};

/// What adjtimex(2) keeps for those who ask: status, errors in microseconds, time constant.
struct Discipline {
    status: u32,
    max_error: u64,
    error: u64,
    constant: u64,
}

static DISCIPLINE: SpinLock<Discipline> = SpinLock::new(Discipline {
    // STA_UNSYNC
    status: 0x40,
    max_error: 16_000_000,
    error: 16_000_000,
    constant: 2,
});

/// clock_adjtime(2), and adjtimex(2) for the wall clock: what the clock does can be asked; it can
/// be stepped (`ADJ_SETOFFSET`) but runs at the rate of its source, so other rates are EOPNOTSUPP.
pub fn clock_adjtime(clock: i32, at: usize) -> Result<usize> {
    const CLOCK_REALTIME: i32 = 0;
    const ADJ_OFFSET: u32 = 1;
    const ADJ_FREQUENCY: u32 = 2;
    const ADJ_MAXERROR: u32 = 4;
    const ADJ_ESTERROR: u32 = 8;
    const ADJ_STATUS: u32 = 0x10;
    const ADJ_TIMECONST: u32 = 0x20;
    const ADJ_TAI: u32 = 0x80;
    const ADJ_SETOFFSET: u32 = 0x100;
    const ADJ_MICRO: u32 = 0x1000;
    const ADJ_NANO: u32 = 0x2000;
    const ADJ_TICK: u32 = 0x4000;
    const ADJ_ADJTIME: u32 = 0x8000;
    const STA_NANO: u32 = 0x2000;
    const STA_UNSYNC: u32 = 0x40;
    /// Of the status: what only the kernel says.
    const STA_RONLY: u32 = 0xff00;
    const TIME_OK: usize = 0;
    const TIME_ERROR: usize = 5;
    /// Microseconds of a tick.
    const TICK: u64 = 10_000;
    /// `struct timex` as words of 8 bytes.
    type Timex = [u64; 26];
    let mut timex: Timex = get_user(at)?;
    if clock != CLOCK_REALTIME {
        return Err(if (0..12).contains(&clock) { Errno::EOPNOTSUPP } else { Errno::EINVAL });
    }
    let modes = timex[0] as u32;
    let single = modes & ADJ_ADJTIME != 0;
    if single && modes & ADJ_OFFSET == 0 {
        return Err(Errno::EINVAL);
    }
    // Whoever asks what is left of adjtime(3) needs no rights for it.
    let asks = modes == 0 || single && modes & ADJ_NANO != 0;
    if !asks && !current().capable(cap::SYS_TIME) {
        return Err(Errno::EPERM);
    }
    let sets = |mode: u32| !single && modes & mode != 0;
    if sets(ADJ_TICK) && !(900_000 / 100..=1_100_000 / 100).contains(&timex[11]) {
        return Err(Errno::EINVAL);
    }
    if sets(ADJ_SETOFFSET) {
        let unit = if modes & ADJ_NANO != 0 { 1 } else { 1000 };
        let (seconds, fraction) = (timex[9] as i64, timex[10]);
        if fraction.saturating_mul(unit) >= SECOND {
            return Err(Errno::EINVAL);
        }
        let step = i128::from(seconds) * i128::from(SECOND) + i128::from(fraction * unit);
        let now = u64::try_from(i128::from(realtime_ns()) + step).map_err(|_| Errno::EINVAL)?;
        crate::time::clock::set_realtime(now);
    }
    let other_rate = modes & ADJ_OFFSET != 0 && !asks && timex[1] != 0
        || sets(ADJ_FREQUENCY) && timex[2] != 0
        || sets(ADJ_TICK) && timex[11] != TICK
        || sets(ADJ_TAI) && timex[6] != 0;
    if other_rate {
        return Err(Errno::EOPNOTSUPP);
    }
    let now = realtime_ns();
    let mut kept = DISCIPLINE.lock();
    if sets(ADJ_STATUS) {
        kept.status = kept.status & STA_RONLY | timex[5] as u32 & !STA_RONLY;
    }
    if sets(ADJ_NANO) {
        kept.status |= STA_NANO;
    }
    if sets(ADJ_MICRO) {
        kept.status &= !STA_NANO;
    }
    if sets(ADJ_MAXERROR) {
        kept.max_error = timex[3];
    }
    if sets(ADJ_ESTERROR) {
        kept.error = timex[4];
    }
    if sets(ADJ_TIMECONST) {
        kept.constant = timex[6];
    }
    // modes; offset, freq, maxerror, esterror; status; constant, precision, tolerance; time; tick.
    let unit = if kept.status & STA_NANO != 0 { 1 } else { 1000 };
    let state = if kept.status & STA_UNSYNC != 0 { TIME_ERROR } else { TIME_OK };
    timex = [0; 26];
    (timex[3], timex[4]) = (kept.max_error, kept.error);
    timex[5] = u64::from(kept.status);
    (timex[6], timex[7], timex[8]) = (kept.constant, 1, 32_768_000);
    (timex[9], timex[10], timex[11]) = (now / SECOND, now % SECOND / unit, TICK);
    drop(kept);
    put_user(at, &timex)?;
    Ok(state)
}

/// acct(2): the file is opened as by open(2), and must be a regular one.
pub fn acct(path: usize) -> Result<usize> {
    if !current().capable(cap::SYS_PACCT) {
        return Err(Errno::EPERM);
    }
    if path == 0 {
        acct::set(None);
        return Ok(0);
    }
    let name = fs_path::path_arg(path)?;
    let file = fs_path::at(AT_FDCWD, &name, Resolve::empty(), |resolver| {
        ops::open(resolver, &name, O_WRONLY | O_APPEND, 0, 0)
    })?;
    if file.with_inode(|inode| inode.file_type()) != FileType::Regular {
        return Err(Errno::EACCES);
    }
    acct::set(Some(file));
    Ok(0)
}

/// vhangup(2): who has no terminal has nothing to hang up. Descriptors can't be taken from others here,
/// which is what it is about for those who have one.
pub fn vhangup() -> Result<usize> {
    if !current().capable(cap::SYS_TTY_CONFIG) {
        return Err(Errno::EPERM);
    }
    if current().process().terminal().is_some() { Err(Errno::ENOSYS) } else { Ok(0) }
}

/// syslog(2): the kernel's messages go to the console as they come, and none are kept.
pub fn syslog(kind: i32, buf: usize, len: i32) -> Result<usize> {
    const READ: i32 = 2;
    const READ_CLEAR: i32 = 4;
    const SIZE_BUFFER: i32 = 10;
    if !(0..=SIZE_BUFFER).contains(&kind) {
        return Err(Errno::EINVAL);
    }
    let creds = current().creds();
    if !creds.capable(cap::SYSLOG) && !creds.capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    match kind {
        READ..=READ_CLEAR if buf == 0 || len < 0 => Err(Errno::EINVAL),
        // CONSOLE_LEVEL
        8 if !(1..=8).contains(&len) => Err(Errno::EINVAL),
        _ => Ok(0),
    }
}

/// sysfs(2): the filesystems by number and by name.
pub fn sysfs(option: i32, a: usize, b: usize) -> Result<usize> {
    let names = || {
        let lines = crate::fs::procfs::FILESYSTEMS.lines();
        lines.filter_map(|line| line.rsplit('\t').next())
    };
    match option {
        1 => {
            let wanted = get_user_str(a, crate::fs::inode::PATH_MAX, Errno::ENAMETOOLONG)?;
            names().position(|name| name.as_bytes() == wanted).ok_or(Errno::EINVAL)
        }
        2 => {
            let name = names().nth(a as u32 as usize).ok_or(Errno::EINVAL)?;
            put_user_slice(b, name.as_bytes())?;
            put_user(b + name.len(), &0u8)?;
            Ok(0)
        }
        3 => Ok(names().count()),
        _ => Err(Errno::EINVAL),
    }
}

fn ioprio_targets(which: u32, who: i32) -> Result<alloc::vec::Vec<Arc<Task>>> {
    // IOPRIO_WHO_PROCESS and so on are PRIO_PROCESS and so on plus one.
    super::sched::tasks(which.wrapping_sub(1), who)
}

/// ioprio_get(2): remembered for those who ask; there is one queue to the disk.
pub fn ioprio_get(which: u32, who: i32) -> Result<usize> {
    let best = ioprio_targets(which, who)?.iter().map(|task| task.io_priority.load(Relaxed)).min();
    best.map(|best| best as usize).ok_or(Errno::ESRCH)
}

/// ioprio_set(2)
pub fn ioprio_set(which: u32, who: i32, priority: u32) -> Result<usize> {
    let (class, level) = (priority >> 13, priority & 0x7);
    match class {
        // Only the classes with levels take one.
        0 if level != 0 => return Err(Errno::EINVAL),
        0 | 2 | 3 => {}
        1 if !current().capable(cap::SYS_ADMIN) && !current().capable(cap::SYS_NICE) => {
            return Err(Errno::EPERM);
        }
        1 => {}
        _ => return Err(Errno::EINVAL),
    }
    for task in ioprio_targets(which, who)? {
        super::sched::check_owner(&task)?;
        task.io_priority.store(priority, Relaxed);
    }
    Ok(0)
}

/// setns(2): all are in the same namespaces but those of mounts.
pub fn setns(fd: i32, kinds: u32) -> Result<usize> {
    let file = fs_path::file(fd)?;
    let (kinds, mounts) = match file.downcast::<NamespaceFile>() {
        Some(found) if kinds == 0 || kinds == found.kind.flag => {
            (found.kind.flag, found.mounts.clone())
        }
        Some(_) => return Err(Errno::EINVAL),
        None => {
            let process = PidFd::process(&file).map_err(|_| Errno::EINVAL)?;
            if kinds == 0 || kinds & !nsfs::ALL != 0 {
                return Err(Errno::EINVAL);
            }
            let task = process.main_thread().ok_or(Errno::ESRCH)?;
            (kinds, task.try_fs().map(|fs| fs.namespace().clone()))
        }
    };
    // Nobody joins the users that it belongs to.
    if kinds & CLONE_NEWUSER != 0 {
        return Err(Errno::EINVAL);
    }
    let task = current();
    let needed: &[u32] = if kinds & CLONE_NEWNS != 0 {
        &[cap::SYS_ADMIN, cap::SYS_CHROOT]
    } else {
        &[cap::SYS_ADMIN]
    };
    if !needed.iter().all(|&cap| task.capable(cap)) {
        return Err(Errno::EPERM);
    }
    if let Some(mounts) = mounts.filter(|_| kinds & CLONE_NEWNS != 0) {
        let own = task.fs();
        // One reference here, and the task's.
        if Arc::strong_count(&own) > 2 {
            return Err(Errno::EINVAL);
        }
        let top = mounts.top();
        let context = FsContext::new(mounts, top.clone(), top, own.umask());
        drop(task.set_fs(Some(Arc::new(context))));
    }
    Ok(0)
}
