//! fcntl(2), flock(2), ioctl(2).

use super::fs_path::file;
use crate::errno::{Errno, Result};
use crate::event::{dnotify, sigio};
use crate::fs::leases;
use crate::fs::locks::{self, END, Owner, Record};
use crate::fs::pipe::PipeEnd;
use crate::fs::{FdTable, File, FileType, hooks};
use crate::io::{get_user, put_user};
use crate::task::current;
use alloc::sync::Arc;
use linux_raw_sys::general::*;
use linux_raw_sys::ioctl::{
    FIGETBSZ, FIOASYNC, FIOCLEX, FIOGETOWN, FIONBIO, FIONCLEX, FIOSETOWN, SIOCGPGRP, SIOCSPGRP,
};

/// Status flags that `F_SETFL` changes.
const SETTABLE: u32 = O_APPEND | O_NONBLOCK | O_NOATIME | O_DIRECT;

/// fcntl(2)
pub fn fcntl(fd: i32, command: u32, arg: usize) -> Result<usize> {
    let files = current().files();
    let file = files.get_any(fd)?;
    // Of a path descriptor, only the descriptor itself can be dealt with.
    let descriptor = matches!(command, F_DUPFD | F_DUPFD_CLOEXEC | F_GETFD | F_SETFD | F_GETFL);
    if file.flags() & O_PATH != 0 && !descriptor {
        return Err(Errno::EBADF);
    }
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => {
            let min = i32::try_from(arg as u32).map_err(|_| Errno::EINVAL)?;
            let cloexec = command == F_DUPFD_CLOEXEC;
            Ok(files.alloc_from(min, file, cloexec, hooks::descriptor_limit())? as usize)
        }
        F_GETFD => Ok(usize::from(files.cloexec(fd)?)),
        F_SETFD => {
            files.set_cloexec(fd, arg as u32 & FD_CLOEXEC != 0)?;
            Ok(0)
        }
        F_GETFL => Ok(file.flags() as usize),
        F_SETFL => {
            file.update_flags(SETTABLE, arg as u32);
            sigio::set_async(&file, fd, arg as u32 & FASYNC != 0);
            Ok(0)
        }
        F_GETLK | F_OFD_GETLK => get_lock(&files, &file, arg, command == F_OFD_GETLK),
        F_SETLK | F_OFD_SETLK => set_lock(&files, &file, arg, command == F_OFD_SETLK, false),
        F_SETLKW | F_OFD_SETLKW => set_lock(&files, &file, arg, command == F_OFD_SETLKW, true),
        F_GETPIPE_SZ => {
            let end = file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?;
            Ok(end.pipe.capacity())
        }
        F_SETPIPE_SZ => {
            let end = file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?;
            end.pipe.set_capacity(arg as u32 as usize, &hooks::pipe_holder())
        }
        F_SETOWN => set_owner(&file, arg as i32),
        F_GETOWN => Ok(owner(&file) as isize as usize),
        F_SETOWN_EX => {
            let [kind, id] = get_user::<[i32; 2]>(arg)?;
            let kind = kind as u32;
            if !matches!(kind, F_OWNER_TID | F_OWNER_PID | F_OWNER_PGRP) {
                return Err(Errno::EINVAL);
            }
            file.sigio.set_owner(sigio::Owner { kind, id }).map(|()| 0)
        }
        F_GETOWN_EX => {
            let owner = file.sigio.owner();
            put_user(arg, &[owner.kind as i32, owner.id])?;
            Ok(0)
        }
        F_SETSIG => {
            file.sigio.set_signal(u32::try_from(arg).map_err(|_| Errno::EINVAL)?)?;
            Ok(0)
        }
        F_GETSIG => Ok(file.sigio.signal() as usize),
        F_SETLEASE => leases::set(&file, fd, arg as u32).map(|()| 0),
        F_GETLEASE => Ok(leases::get(&file) as usize),
        F_NOTIFY => dnotify::set(&file, fd, arg as u32).map(|()| 0),
        _ => file.ops.fcntl(&file, command, arg),
    }
}

/// Chooses who gets SIGIO: a process, or (negative) a group.
fn set_owner(file: &File, who: i32) -> Result<usize> {
    let id = who.checked_abs().ok_or(Errno::EINVAL)?;
    let kind = if who < 0 { F_OWNER_PGRP } else { F_OWNER_PID };
    file.sigio.set_owner(sigio::Owner { kind, id }).map(|()| 0)
}

/// Who gets SIGIO, as [`set_owner`] has it.
fn owner(file: &File) -> i32 {
    let sigio::Owner { kind, id } = file.sigio.owner();
    if kind == F_OWNER_PGRP { -id } else { id }
}

/// A lock request, relative to the file's offset or end as `l_whence` says.
fn parse_lock(
    files: &Arc<FdTable>,
    file: &Arc<File>,
    addr: usize,
    description: bool,
) -> Result<(Record, u32)> {
    // struct flock: short type, short whence, (4 bytes), long start, long len, int pid, (4 bytes).
    let [head, start, len, pid] = get_user::<[i64; 4]>(addr)?;
    let kind = u32::from(head as u16);
    let base = match u32::from((head >> 16) as u16) {
        SEEK_SET => 0,
        SEEK_CUR => *file.pos.lock() as i64,
        SEEK_END => file.with_inode(|inode| inode.metadata().size) as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(start).ok_or(Errno::EOVERFLOW)?;
    let (start, end) = match len {
        0 => (start, END as i64),
        1.. => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        _ => (start.checked_add(len).ok_or(Errno::EINVAL)?, start - 1),
    };
    if start < 0 {
        return Err(Errno::EINVAL);
    }
    let owner = if description {
        if pid as i32 != 0 {
            return Err(Errno::EINVAL);
        }
        Owner::Description(Arc::as_ptr(file) as usize)
    } else {
        Owner::Table(Arc::as_ptr(files) as usize)
    };
    let pid = if description { -1 } else { hooks::pid() };
    let by = Arc::as_ptr(file) as usize;
    let (start, end, write) = (start as u64, end as u64, kind == F_WRLCK);
    let record = Record { start, end, write, owner, pid, by };
    Ok((record, kind))
}

fn get_lock(
    files: &Arc<FdTable>,
    file: &Arc<File>,
    addr: usize,
    description: bool,
) -> Result<usize> {
    let (record, kind) = parse_lock(files, file, addr, description)?;
    if kind != F_RDLCK && kind != F_WRLCK {
        return Err(Errno::EINVAL);
    }
    match locks::test(file, &record) {
        None => put_user(addr, &(F_UNLCK as u16))?,
        Some(other) => {
            let kind = if other.write { F_WRLCK } else { F_RDLCK };
            let len = if other.end == END { 0 } else { other.end - other.start + 1 };
            let words = [i64::from(kind), other.start as i64, len as i64];
            put_user(addr, &words)?;
            put_user(addr + 24, &other.pid)?;
        }
    }
    Ok(0)
}

fn set_lock(
    files: &Arc<FdTable>,
    file: &Arc<File>,
    addr: usize,
    description: bool,
    wait: bool,
) -> Result<usize> {
    let (record, kind) = parse_lock(files, file, addr, description)?;
    match kind {
        F_UNLCK => locks::unlock(file, &record),
        F_RDLCK if !file.readable() => return Err(Errno::EBADF),
        F_WRLCK if !file.writable() => return Err(Errno::EBADF),
        F_RDLCK | F_WRLCK => locks::set(file, record, wait)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// flock(2)
pub fn flock(fd: i32, operation: u32) -> Result<usize> {
    let file = file(fd)?;
    let wait = operation & LOCK_NB == 0;
    match operation & !LOCK_NB {
        LOCK_SH => locks::flock(&file, false, wait, hooks::pid())?,
        LOCK_EX => locks::flock(&file, true, wait, hooks::pid())?,
        LOCK_UN => locks::funlock(&file),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// ioctl(2): what every file understands, then the file itself.
pub fn ioctl(fd: i32, request: u32, arg: usize) -> Result<usize> {
    let file = file(fd)?;
    match request {
        FIOCLEX | FIONCLEX => {
            current().files().set_cloexec(fd, request == FIOCLEX)?;
            Ok(0)
        }
        FIONBIO => {
            let on = get_user::<i32>(arg)? != 0;
            file.update_flags(O_NONBLOCK, if on { O_NONBLOCK } else { 0 });
            Ok(0)
        }
        FIOASYNC => {
            let on = get_user::<i32>(arg)? != 0;
            if on && !file.ops.asynchronous() {
                return Err(Errno::ENOTTY);
            }
            sigio::set_async(&file, fd, on);
            Ok(0)
        }
        FIOSETOWN | SIOCSPGRP => set_owner(&file, get_user(arg)?),
        FIOGETOWN | SIOCGPGRP => {
            put_user(arg, &owner(&file))?;
            Ok(0)
        }
        FIGETBSZ => {
            put_user(arg, &4096i32)?;
            Ok(0)
        }
        // FICLONE, FICLONERANGE, FIDEDUPERANGE: no filesystem here shares blocks.
        0x4004_9409 | 0x4020_940d | 0xc018_9436
            if file.with_inode(|inode| inode.file_type()) == FileType::Regular =>
        {
            Err(Errno::EOPNOTSUPP)
        }
        _ => file.ops.ioctl(&file, request, arg),
    }
}
