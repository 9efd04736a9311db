//! POSIX message queues: mq_open(3) and the like.

use super::fs_path::file;
use super::time::get_time;
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::io::{get_user, get_user_slice, get_user_str, put_user, put_user_slice};
use crate::ipc::mqueue::{self, COOKIE, How, PRIORITIES, Queue};
use crate::net::socket;
use crate::task::current;
use crate::task::signal::Signal;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::*;
use linux_raw_sys::net::AF_NETLINK;

fn name_arg(addr: usize) -> Result<Vec<u8>> {
    get_user_str(addr, crate::fs::inode::PATH_MAX, Errno::ENAMETOOLONG)
}

/// mq_open(3); the name comes without its slash.
pub fn mq_open(name: usize, flags: u32, mode: u32, attributes: usize) -> Result<usize> {
    let known = O_ACCMODE | O_CREAT | O_EXCL | O_NONBLOCK | O_CLOEXEC;
    let name = name_arg(name)?;
    let size = match attributes {
        0 => None,
        _ if flags & O_CREAT == 0 => None,
        addr => {
            let [_flags, messages, len, _count]: [i64; 4] = get_user(addr)?;
            Some((messages, len))
        }
    };
    let task = current();
    let mode = mode & !task.fs().umask();
    let reserved = super::reserve_descriptor()?;
    let file = mqueue::open(&name, flags & known & !O_CLOEXEC, mode, size, &task.creds())?;
    Ok(reserved.install(file, true) as usize)
}

/// mq_unlink(3)
pub fn mq_unlink(name: usize) -> Result<usize> {
    mqueue::unlink(&name_arg(name)?, &current().creds()).map(|()| 0)
}

/// Monotonic time of an absolute `struct timespec` of the wall clock.
fn deadline(addr: usize) -> Result<Option<u64>> {
    match addr {
        0 => Ok(None),
        addr => Ok(Some(crate::time::clock::realtime_to_monotonic(get_time(addr, 1)?))),
    }
}

/// Calls `f` with the queue behind a descriptor. EBADF if it isn't one.
fn with<R>(fd: i32, f: impl FnOnce(&Arc<File>, &Queue) -> Result<R>) -> Result<R> {
    let file = file(fd)?;
    let queue = file.downcast::<Queue>().ok_or(Errno::EBADF)?;
    f(&file, queue)
}

/// mq_timedsend(3)
pub fn mq_timedsend(
    fd: i32,
    from: usize,
    len: usize,
    priority: u32,
    timeout: usize,
) -> Result<usize> {
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline(timeout)?;
    with(fd, |file, queue| {
        if !file.writable() {
            return Err(Errno::EBADF);
        }
        if len > queue.max_len {
            return Err(Errno::EMSGSIZE);
        }
        let mut text = Vec::new();
        text.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        text.resize(len, 0);
        get_user_slice(from, &mut text)?;
        queue.send(file, text, priority, deadline).map(|()| 0)
    })
}

/// mq_timedreceive(3)
pub fn mq_timedreceive(
    fd: i32,
    to: usize,
    len: usize,
    priority_to: usize,
    timeout: usize,
) -> Result<usize> {
    let deadline = deadline(timeout)?;
    with(fd, |file, queue| {
        if !file.readable() {
            return Err(Errno::EBADF);
        }
        if len < queue.max_len {
            return Err(Errno::EMSGSIZE);
        }
        let (text, priority) = queue.receive(file, deadline)?;
        if priority_to != 0 {
            put_user(priority_to, &priority)?;
        }
        put_user_slice(to, &text)?;
        Ok(text.len())
    })
}

/// mq_notify(3). Threads are the library's affair: it asks for a message on a netlink socket of its
/// own, whose descriptor stands in the signal's place.
pub fn mq_notify(fd: i32, event: usize) -> Result<usize> {
    let wanted = match event {
        0 => None,
        addr => {
            let [value, signal_and_kind]: [u64; 2] = get_user(addr)?;
            let number = signal_and_kind as u32;
            Some(match (signal_and_kind >> 32) as u32 {
                SIGEV_NONE => How::Silent,
                SIGEV_SIGNAL => How::Signal(Signal::new(number).ok_or(Errno::EINVAL)?, value),
                SIGEV_THREAD => {
                    let cookie = get_user::<[u8; COOKIE]>(value as usize)?;
                    let file = file(number as i32)?;
                    if socket::of(&file)?.socket.family() != AF_NETLINK {
                        return Err(Errno::EINVAL);
                    }
                    How::Thread(file, cookie)
                }
                _ => return Err(Errno::EINVAL),
            })
        }
    };
    with(fd, |_, queue| {
        match wanted {
            Some(how) => queue.notify(how)?,
            None => queue.forget(),
        }
        Ok(0)
    })
}

/// mq_getattr(3) and mq_setattr(3)
pub fn mq_getsetattr(fd: i32, new: usize, old: usize) -> Result<usize> {
    let flags = match new {
        0 => None,
        addr => {
            let flags = get_user::<i64>(addr)?;
            if flags & !i64::from(O_NONBLOCK) != 0 {
                return Err(Errno::EINVAL);
            }
            Some(flags as u32)
        }
    };
    with(fd, |file, queue| {
        let before = file.flags() & O_NONBLOCK;
        if let Some(flags) = flags {
            file.update_flags(O_NONBLOCK, flags);
        }
        if old != 0 {
            let [messages, len, count] = [queue.max_messages, queue.max_len, queue.count()];
            put_user(old, &[before as usize, messages, len, count, 0, 0, 0, 0])?;
        }
        Ok(0)
    })
}
