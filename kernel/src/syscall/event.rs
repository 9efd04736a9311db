//! System calls that wait for readiness, and those that make files to wait for.

use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::event::epoll::{Epoll, EpollFile, Event};
use crate::event::eventfd::EventFd;
use crate::event::select::{self, Watch};
use crate::event::signalfd::SignalFd;
use crate::event::timerfd::{Base, Spec, TimerFd};
use crate::fs::{File, FileOps};
use crate::io::{get_user, get_user_slice, put_user, put_user_slice};
use crate::task::current;
use crate::task::signal::{SigSet, take};
use crate::time::{SECOND, now_ns};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::*;

/// Gives a new anonymous file a descriptor.
fn install(ops: Arc<dyn FileOps>, flags: u32, cloexec: bool) -> Result<usize> {
    super::install_file(File::anonymous(ops, flags), cloexec)
}

// --- poll and select
// -------------------------------------------------------------------------------------------------

/// Relative time to a point of monotonic time; a zero time is the marker for "at once".
fn deadline_after(ns: u64) -> Option<u64> {
    Some(if ns == 0 { 0 } else { now_ns().saturating_add(ns) })
}

fn deadline_ms(timeout: i32) -> Option<u64> {
    if timeout < 0 { None } else { deadline_after(timeout as u64 * 1_000_000) }
}

/// Nanoseconds of a `struct timespec` or the like; EINVAL if it isn't a valid interval.
fn interval([seconds, fraction]: [i64; 2], unit: u64) -> Result<u64> {
    let per_second = SECOND / unit;
    if seconds < 0 || !(0..per_second as i64).contains(&fraction) {
        return Err(Errno::EINVAL);
    }
    Ok((seconds as u64).saturating_mul(SECOND).saturating_add(fraction as u64 * unit))
}

fn deadline_timespec(addr: usize) -> Result<Option<u64>> {
    if addr == 0 {
        return Ok(None);
    }
    Ok(deadline_after(interval(get_user(addr)?, 1)?))
}

/// Writes the time that is left of a deadline; a fault is ignored, as Linux does.
fn put_remaining(addr: usize, deadline: Option<u64>, unit: u64) {
    if let Some(deadline) = deadline.filter(|_| addr != 0) {
        let left = deadline.saturating_sub(now_ns());
        let _ = put_user(addr, &[left / SECOND, left % SECOND / unit]);
    }
}

/// poll(2).
pub fn poll(fds: usize, count: usize, timeout: i32) -> Result<usize> {
    poll_until(fds, count, deadline_ms(timeout))
}

/// ppoll(2).
pub fn ppoll(
    fds: usize,
    count: usize,
    timeout: usize,
    mask: usize,
    mask_len: usize,
) -> Result<usize> {
    let deadline = deadline_timespec(timeout)?;
    with_mask(mask, mask_len, || {
        let result = poll_until(fds, count, deadline);
        put_remaining(timeout, deadline, 1);
        result
    })
}

/// Runs `call` under a temporary signal mask. The old mask comes back at once, or after the handler
/// of the signal that interrupted the call.
pub(super) fn with_mask(
    mask: usize,
    len: usize,
    call: impl FnOnce() -> Result<usize>,
) -> Result<usize> {
    if mask == 0 {
        return call();
    }
    if len != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    take::set_temporary_mask(SigSet(get_user(mask)?));
    let result = call();
    if !matches!(result, Err(Errno::EINTR | Errno::ERESTARTNOHAND)) {
        take::restore_mask();
    }
    result
}

fn poll_until(addr: usize, count: usize, deadline: Option<u64>) -> Result<usize> {
    /// `struct pollfd`: descriptor, then requested and returned events in one word.
    type PollFd = [u32; 2];
    if count as u64 > current().process().rlimit(RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    let mut raw: Vec<PollFd> = Vec::new();
    raw.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    raw.resize(count, [0; 2]);
    get_user_slice(addr, &mut raw)?;
    let files = current().files();
    let mut watches: Vec<Watch> = Vec::new();
    watches.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    for some in raw.chunks(64) {
        let lookup = files.lookup();
        watches.extend(some.iter().map(|[fd, events]| {
            let fd = *fd as i32;
            let file = if fd >= 0 { lookup.get(fd).ok() } else { None };
            let ready = if file.is_none() && fd >= 0 { Events::NVAL } else { Events::empty() };
            Watch { fd, file, events: Events::from_bits_truncate(events & 0xffff), ready }
        }));
    }
    drop(files);
    let ready = select::wait(&mut watches, deadline)?;
    for (entry, watch) in raw.iter_mut().zip(&watches) {
        entry[1] = entry[1] & 0xffff | watch.ready.bits() << 16;
    }
    put_user_slice(addr, &raw)?;
    Ok(ready)
}

/// select(2).
pub fn select(
    count: i32,
    read: usize,
    write: usize,
    except: usize,
    timeout: usize,
) -> Result<usize> {
    let deadline = match timeout {
        0 => None,
        _ => {
            // Linux takes any number of microseconds here.
            let [seconds, micros]: [i64; 2] = get_user(timeout)?;
            if seconds < 0 || micros < 0 {
                return Err(Errno::EINVAL);
            }
            deadline_after(
                (seconds as u64)
                    .saturating_mul(SECOND)
                    .saturating_add((micros as u64).saturating_mul(1000)),
            )
        }
    };
    let result = select_until(count, [read, write, except], deadline);
    put_remaining(timeout, deadline, 1000);
    result
}

/// pselect6(2): `mask` points at a pair of pointer and length.
pub fn pselect6(
    count: i32,
    read: usize,
    write: usize,
    except: usize,
    timeout: usize,
    mask: usize,
) -> Result<usize> {
    let deadline = deadline_timespec(timeout)?;
    let [mask, len] = if mask == 0 { [0, 0] } else { get_user(mask)? };
    with_mask(mask, len, || {
        let result = select_until(count, [read, write, except], deadline);
        put_remaining(timeout, deadline, 1);
        result
    })
}

fn select_until(count: i32, sets: [usize; 3], deadline: Option<u64>) -> Result<usize> {
    /// What each of the three sets asks for, and what counts as yes (Linux's `POLLIN_SET` and
    /// friends).
    const READ: Events = Events::IN
        .union(Events::RDNORM)
        .union(Events::RDBAND)
        .union(Events::HUP)
        .union(Events::ERR);
    const WRITE: Events =
        Events::OUT.union(Events::WRNORM).union(Events::WRBAND).union(Events::ERR);
    const EXCEPT: Events = Events::PRI;
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    let files = current().files();
    let count = count.min(files.capacity());
    let words = count.div_ceil(64);
    // What is asked in each of the sets, one behind the other; then the answers, in the same way.
    let mut bits: Vec<u64> = Vec::new();
    bits.try_reserve_exact(6 * words).map_err(|_| Errno::ENOMEM)?;
    bits.resize(6 * words, 0);
    let (asked, answers) = bits.split_at_mut(3 * words);
    for (set, &addr) in sets.iter().enumerate().filter(|(_, addr)| **addr != 0) {
        get_user_slice(addr, &mut asked[set * words..][..words])?;
    }
    if !count.is_multiple_of(64) {
        // Bits beyond the count aren't looked at.
        for last in asked.chunks_exact_mut(words).filter_map(<[u64]>::last_mut) {
            *last &= !(!0 << (count % 64));
        }
    }
    let asked = &*asked;
    let of_word = |word: usize| [0, 1, 2].map(|set| asked[set * words + word]);
    let wanted = |[read, write, except]: [u64; 3]| read | write | except;
    let total = (0..words).map(|word| wanted(of_word(word)).count_ones() as usize).sum();
    let mut watches: Vec<Watch> = Vec::new();
    watches.try_reserve_exact(total).map_err(|_| Errno::ENOMEM)?;
    for word in 0..words {
        let [read, write, except] = of_word(word);
        let mut left = read | write | except;
        let lookup = files.lookup();
        while left != 0 {
            let fd = word * 64 + left.trailing_zeros() as usize;
            let bit = left & left.wrapping_neg();
            left ^= bit;
            let mut events = Events::empty();
            if read & bit != 0 {
                events |= READ;
            }
            if write & bit != 0 {
                events |= WRITE;
            }
            if except & bit != 0 {
                events |= EXCEPT;
            }
            let file = Some(lookup.get(fd as i32)?);
            watches.push(Watch { fd: fd as i32, file, events, ready: Events::empty() });
        }
    }
    drop(files);
    let ready = loop {
        let some = select::wait(&mut watches, deadline)?;
        // A hang-up wakes the sleep even if only writability was asked for; it is then no answer,
        // and the wait goes on.
        let mut ready = 0;
        for watch in watches.iter().filter(|watch| !watch.ready.is_empty()).take(some) {
            let (word, bit) = (watch.fd as usize / 64, 1 << (watch.fd % 64));
            for (set, meaning) in [READ, WRITE, EXCEPT].into_iter().enumerate() {
                let at = set * words + word;
                if asked[at] & bit != 0 && watch.ready.intersects(meaning) {
                    answers[at] |= bit;
                    ready += 1;
                }
            }
        }
        if ready > 0 || some == 0 || deadline.is_some_and(|at| now_ns() >= at) {
            break ready;
        }
        crate::task::sched::yield_now();
    };
    for (set, &addr) in sets.iter().enumerate().filter(|(_, addr)| **addr != 0) {
        put_user_slice(addr, &answers[set * words..][..words])?;
    }
    Ok(ready)
}

// --- epoll
// -----------------------------------------------------------------------------------------------------------

/// epoll_create1(2).
pub fn epoll_create1(flags: u32) -> Result<usize> {
    if flags & !EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    install(Arc::new(EpollFile(Epoll::new())), O_RDWR, flags & EPOLL_CLOEXEC != 0)
}

/// epoll_create(2): the size is a hint nobody needs, but it must be positive.
pub fn epoll_create(size: i32) -> Result<usize> {
    if size <= 0 { Err(Errno::EINVAL) } else { epoll_create1(0) }
}

/// epoll_ctl(2).
pub fn epoll_ctl(epfd: i32, op: u32, fd: i32, event: usize) -> Result<usize> {
    let event = if op == EPOLL_CTL_DEL { [0; Event::SIZE] } else { get_user(event)? };
    let files = current().files();
    let this = files.get(epfd)?;
    let file = files.get(fd)?;
    if !file.ops.pollable() {
        return Err(Errno::EPERM);
    }
    let epoll = this.downcast::<EpollFile>().ok_or(Errno::EINVAL)?;
    epoll.0.control(&this, op, fd, &file, Event::parse(event))?;
    Ok(0)
}

/// epoll_wait(2).
pub fn epoll_wait(epfd: i32, events: usize, max: i32, timeout: i32) -> Result<usize> {
    epoll_wait_until(epfd, events, max, deadline_ms(timeout))
}

/// epoll_pwait(2).
pub fn epoll_pwait(
    epfd: i32,
    events: usize,
    max: i32,
    timeout: i32,
    mask: usize,
    len: usize,
) -> Result<usize> {
    let deadline = deadline_ms(timeout);
    with_mask(mask, len, || epoll_wait_until(epfd, events, max, deadline))
}

/// epoll_pwait2(2).
pub fn epoll_pwait2(
    epfd: i32,
    events: usize,
    max: i32,
    timeout: usize,
    mask: usize,
    len: usize,
) -> Result<usize> {
    let deadline = deadline_timespec(timeout)?;
    with_mask(mask, len, || epoll_wait_until(epfd, events, max, deadline))
}

fn epoll_wait_until(epfd: i32, events: usize, max: i32, deadline: Option<u64>) -> Result<usize> {
    const MOST: i32 = i32::MAX / Event::SIZE as i32;
    if !(1..=MOST).contains(&max) {
        return Err(Errno::EINVAL);
    }
    crate::io::check_user(events, max as usize * Event::SIZE)?;
    let file = current().with_files(|files| files.get(epfd))?;
    let epoll = file.downcast::<EpollFile>().ok_or(Errno::EINVAL)?;
    let mut at = events;
    epoll.0.wait(max as usize, deadline, &mut |event| {
        put_user(at, &event.emit())?;
        at += Event::SIZE;
        Ok(())
    })
}

// --- eventfd, signalfd, timerfd
// --------------------------------------------------------------------------------------

/// eventfd2(2).
pub fn eventfd2(initial: u32, flags: u32) -> Result<usize> {
    if flags & !(EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let ops = EventFd::new(initial, flags & EFD_SEMAPHORE != 0);
    install(ops, O_RDWR | flags & EFD_NONBLOCK, flags & EFD_CLOEXEC != 0)
}

/// signalfd4(2).
pub fn signalfd4(fd: i32, mask: usize, len: usize, flags: u32) -> Result<usize> {
    if len != size_of::<SigSet>() || flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(get_user(mask)?);
    if fd == -1 {
        return install(SignalFd::new(mask), O_RDWR | flags & O_NONBLOCK, flags & O_CLOEXEC != 0);
    }
    let file = current().files().get(fd)?;
    file.downcast::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(mask);
    Ok(fd as usize)
}

/// timerfd_create(2).
pub fn timerfd_create(clock: u32, flags: u32) -> Result<usize> {
    if flags & !(TFD_CLOEXEC | TFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let base = match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_ALARM => Base::Realtime,
        CLOCK_MONOTONIC | CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => Base::Monotonic,
        _ => return Err(Errno::EINVAL),
    };
    install(TimerFd::new(base), O_RDWR | flags & TFD_NONBLOCK, flags & TFD_CLOEXEC != 0)
}

/// `struct itimerspec`: interval, then value, each seconds and nanoseconds.
fn emit_spec(spec: Spec) -> [u64; 4] {
    [spec.interval / SECOND, spec.interval % SECOND, spec.value / SECOND, spec.value % SECOND]
}

fn with_timerfd<R>(fd: i32, f: impl FnOnce(&TimerFd) -> R) -> Result<R> {
    let file = current().files().get(fd)?;
    Ok(f(file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?))
}

/// timerfd_settime(2).
pub fn timerfd_settime(fd: i32, flags: u32, new: usize, old: usize) -> Result<usize> {
    if flags & !(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let [is, ins, vs, vns]: [i64; 4] = get_user(new)?;
    let spec = Spec { value: interval([vs, vns], 1)?, interval: interval([is, ins], 1)? };
    let absolute = flags & TFD_TIMER_ABSTIME != 0;
    let before =
        with_timerfd(fd, |timer| timer.set(spec, absolute, flags & TFD_TIMER_CANCEL_ON_SET != 0))?;
    if old != 0 {
        put_user(old, &emit_spec(before))?;
    }
    Ok(0)
}

/// timerfd_gettime(2).
pub fn timerfd_gettime(fd: i32, current: usize) -> Result<usize> {
    let spec = with_timerfd(fd, TimerFd::get)?;
    put_user(current, &emit_spec(spec))?;
    Ok(0)
}
