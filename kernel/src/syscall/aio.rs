//! Linux asynchronous I/O: io_setup(2), io_submit(2), io_getevents(2).

use super::time::get_time;
use super::{event, fs_io, fs_path, fs_space};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::event::aio::{Completion, Context};
use crate::event::eventfd::EventFd;
use crate::io::{check_user, get_user, put_user};
use crate::mm::{MapFlags, Prot};
use crate::task::current;
use alloc::sync::Arc;
use linux_raw_sys::general::{RWF_APPEND, RWF_DSYNC, RWF_HIPRI, RWF_NOWAIT, RWF_SYNC};

/// Requests of one process (`/proc/sys/fs/aio-max-nr`).
const MAX_REQUESTS: usize = 65536;
const IOCB_FLAG_RESFD: u32 = 1;
const IOCB_FLAG_IOPRIO: u32 = 2;

/// `struct iocb`: words of 8 bytes.
struct Request {
    at: usize,
    data: u64,
    flags: u32,
    opcode: u16,
    fd: i32,
    buf: usize,
    len: usize,
    offset: i64,
    event_fd: Option<i32>,
}

impl Request {
    fn read(at: usize) -> Result<Request> {
        let words: [u64; 8] = get_user(at)?;
        let [data, key_flags, op_fd, buf, len, offset, reserved, flags_resfd] = words;
        if reserved != 0 || len as i64 <= -1 {
            return Err(Errno::EINVAL);
        }
        let flags = flags_resfd as u32;
        if flags & !(IOCB_FLAG_RESFD | IOCB_FLAG_IOPRIO) != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Request {
            at,
            data,
            flags: (key_flags >> 32) as u32,
            opcode: op_fd as u16,
            fd: (op_fd >> 32) as i32,
            buf: buf as usize,
            len: len as usize,
            offset: offset as i64,
            event_fd: (flags & IOCB_FLAG_RESFD != 0).then_some((flags_resfd >> 32) as i32),
        })
    }

    /// Does it. The outer error is the call's, the inner one the request's.
    fn serve(&self) -> Result<Result<usize>> {
        const PREAD: u16 = 0;
        const PWRITE: u16 = 1;
        const FSYNC: u16 = 2;
        const FDSYNC: u16 = 3;
        const PREADV: u16 = 7;
        const PWRITEV: u16 = 8;
        let file = fs_path::file(self.fd)?;
        let seekable = file.ops.seekable();
        let (fd, buf, len, offset) = (self.fd, self.buf, self.len, self.offset);
        let may = match self.opcode {
            PREAD | PREADV => file.readable(),
            PWRITE | PWRITEV => file.writable(),
            FSYNC | FDSYNC if buf != 0 || offset != 0 || len != 0 || self.flags != 0 => {
                return Err(Errno::EINVAL);
            }
            FSYNC | FDSYNC => true,
            _ => return Err(Errno::EINVAL),
        };
        if !may {
            return Err(Errno::EBADF);
        }
        let known = RWF_DSYNC | RWF_HIPRI | RWF_NOWAIT | RWF_SYNC;
        // Appending goes by vectors.
        let append = if matches!(self.opcode, PREADV | PWRITEV) { RWF_APPEND } else { 0 };
        if self.flags & !(known | append) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        match self.opcode {
            PREAD | PWRITE => check_user(buf, len)?,
            PREADV | PWRITEV => drop(crate::io::get_iovecs(buf, len)?),
            _ => {}
        }
        let offset = if seekable { offset } else { -1 };
        if seekable && offset < 0 && matches!(self.opcode, PREAD | PWRITE | PREADV | PWRITEV) {
            return Err(Errno::EINVAL);
        }
        let wanted = if matches!(self.opcode, PREAD | PREADV) { Events::IN } else { Events::OUT };
        if self.flags & RWF_NOWAIT != 0
            && let Err(errno) = fs_io::must_not_wait(fd, wanted)
        {
            return Ok(Err(errno));
        }
        Ok(match self.opcode {
            PREAD if !seekable => fs_io::read(fd, buf, len),
            PWRITE if !seekable => fs_io::write(fd, buf, len),
            PREAD => fs_io::pread64(fd, buf, len, offset),
            PWRITE => fs_io::pwrite64(fd, buf, len, offset)
                .and_then(|n| fs_io::sync_as_asked(fd, self.flags, n)),
            PREADV => fs_io::preadv2(fd, buf, len, offset, self.flags),
            PWRITEV => fs_io::pwritev2(fd, buf, len, offset, self.flags),
            FSYNC => fs_space::fsync(fd),
            _ => fs_space::fdatasync(fd),
        })
    }

    fn submit(&self, context: &Context) -> Result<()> {
        let event_file = self.event_fd.map(fs_path::file).transpose()?;
        let event = match &event_file {
            Some(file) => Some(file.downcast::<EventFd>().ok_or(Errno::EINVAL)?),
            None => None,
        };
        let result = match self.serve()? {
            Ok(n) => n as i64,
            // A request is not done over when a signal interrupts it.
            Err(errno) if errno.0 >= Errno::ERESTARTSYS.0 => -i64::from(Errno::EINTR.0),
            Err(errno) => -i64::from(errno.0),
        };
        context.complete([self.data, self.at as u64, result as u64, 0]);
        if let Some(event) = event {
            event.signal(1);
        }
        Ok(())
    }
}

fn find(id: usize) -> Result<Arc<Context>> {
    let contexts = current().process().aio.lock();
    contexts.iter().find(|context| context.id == id).cloned().ok_or(Errno::EINVAL)
}

/// io_setup(2)
pub fn io_setup(count: u32, to: usize) -> Result<usize> {
    let old: usize = get_user(to)?;
    /// More than this is a mistake rather than a wish.
    const ABSURD: u32 = 0x1000_0000 / 32;
    if old != 0 || count == 0 || count > ABSURD {
        return Err(Errno::EINVAL);
    }
    let task = current();
    let used: usize = task.process().aio.lock().iter().map(|context| context.capacity()).sum();
    if used + count as usize > MAX_REQUESTS {
        return Err(Errno::EAGAIN);
    }
    let flags = MapFlags::PRIVATE;
    let id = task
        .with_mm(|space| space.mmap(0, PAGE_SIZE, Prot::READ, Prot::READ, flags, None))
        .unwrap_or(Err(Errno::ENOMEM))?;
    let context = Arc::new(Context::new(id, count as usize)?);
    task.process().aio.lock().push(context);
    if let Err(errno) = put_user(to, &id) {
        io_destroy(id)?;
        return Err(errno);
    }
    Ok(0)
}

/// io_destroy(2)
pub fn io_destroy(id: usize) -> Result<usize> {
    let task = current();
    let context = {
        let mut contexts = task.process().aio.lock();
        let at = contexts.iter().position(|context| context.id == id).ok_or(Errno::EINVAL)?;
        contexts.swap_remove(at)
    };
    context.destroy();
    // The program may have unmapped it.
    let _ = task.with_mm(|space| space.munmap(id, PAGE_SIZE));
    Ok(0)
}

/// io_submit(2): how many were accepted; an error only if the first wasn't.
pub fn io_submit(id: usize, count: i64, pointers: usize) -> Result<usize> {
    let context = find(id)?;
    if count < 0 {
        return Err(Errno::EINVAL);
    }
    let mut accepted = 0;
    while accepted < count as usize {
        let one = || {
            let at: usize = get_user(pointers + accepted * 8)?;
            let request = Request::read(at)?;
            if !context.has_room() {
                return Err(Errno::EAGAIN);
            }
            request.submit(&context)
        };
        match one() {
            Ok(()) => accepted += 1,
            Err(errno) if accepted == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(accepted)
}

/// io_cancel(2): no request is ever left to cancel.
pub fn io_cancel(id: usize, request: usize) -> Result<usize> {
    get_user::<[u64; 2]>(request)?;
    find(id)?;
    Err(Errno::EINVAL)
}

/// io_getevents(2)
pub fn io_getevents(id: usize, least: i64, most: i64, to: usize, timeout: usize) -> Result<usize> {
    let deadline = match timeout {
        0 => None,
        addr => Some(crate::time::now_ns().saturating_add(get_time(addr, 1)?)),
    };
    let context = find(id)?;
    if least < 0 || most < least {
        return Err(Errno::EINVAL);
    }
    let taken = context.take(least as usize, most as usize, deadline)?;
    for (at, completion) in taken.iter().enumerate() {
        put_user::<Completion>(to + at * size_of::<Completion>(), completion)?;
    }
    Ok(taken.len())
}

/// io_pgetevents(2): the signal mask is a pointer and a length behind a pointer.
pub fn io_pgetevents(
    id: usize,
    least: i64,
    most: i64,
    to: usize,
    timeout: usize,
    mask: usize,
) -> Result<usize> {
    let [mask, len]: [usize; 2] = if mask == 0 { [0, 0] } else { get_user(mask)? };
    event::with_mask(mask, len, || io_getevents(id, least, most, to, timeout))
}
