//! read(2), write(2) and their kin.

use super::fs_path::file;
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::pipe::PipeEnd;
use crate::fs::{File, FileType, notify};
use crate::io::{IoDst, IoSrc, get_iovecs, get_user, put_user};
use crate::mm::PageRef;
use crate::task::current;
use alloc::vec::Vec;
use linux_raw_sys::general::{
    IN_ACCESS, IN_MODIFY, O_APPEND, RWF_APPEND, RWF_DSYNC, RWF_HIPRI, RWF_NOWAIT, RWF_SYNC,
    SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET, SPLICE_F_NONBLOCK,
};

/// Most bytes that one call moves, as in Linux.
const MAX_BYTES: usize = 0x7fff_f000;
/// Pages that sendfile moves at a time.
const BATCH: usize = 16;

fn readable(fd: i32) -> Result<alloc::sync::Arc<File>> {
    let file = file(fd)?;
    if file.readable() { Ok(file) } else { Err(Errno::EBADF) }
}

fn writable(fd: i32) -> Result<alloc::sync::Arc<File>> {
    let file = file(fd)?;
    if file.writable() { Ok(file) } else { Err(Errno::EBADF) }
}

/// Reads at the file's offset.
pub fn read_file(file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
    dst.limit(MAX_BYTES);
    if !file.ops.seekable() {
        return file.ops.read(file, dst);
    }
    let mut pos = file.pos.lock();
    let n = file.ops.read_at(file, *pos, dst)?;
    *pos += n as u64;
    notify::file(file, IN_ACCESS);
    Ok(n)
}

/// Writes at the file's offset.
pub fn write_file(file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
    src.limit(MAX_BYTES);
    if !file.ops.seekable() {
        return file.ops.write(file, src);
    }
    let mut pos = file.pos.lock();
    limit_size(file, *pos, src)?;
    let (n, end) = file.ops.write_at(file, *pos, src)?;
    *pos = end;
    notify::file(file, IN_MODIFY);
    Ok(n)
}

/// Applies `RLIMIT_FSIZE`: shortens the write, or EFBIG with SIGXFSZ at the limit.
fn limit_size(file: &File, offset: u64, src: &mut IoSrc<'_>) -> Result<()> {
    let limit = crate::fs::hooks::file_size_limit();
    if limit == u64::MAX || src.remaining() == 0 {
        return Ok(());
    }
    let (regular, size) =
        file.with_inode(|inode| (inode.file_type() == FileType::Regular, inode.metadata().size));
    if !regular {
        return Ok(());
    }
    let start = if file.flags() & O_APPEND != 0 { size } else { offset };
    if start >= limit {
        crate::fs::hooks::file_too_large();
        return Err(Errno::EFBIG);
    }
    src.limit(usize::try_from(limit - start).unwrap_or(usize::MAX));
    Ok(())
}

/// Counts what a call read (0) or wrote (1), for `/proc/PID/io`.
pub fn counted(way: usize, moved: Result<usize>) -> Result<usize> {
    current().sched.count_moved(way, moved.unwrap_or(0));
    moved
}

/// read(2)
pub fn read(fd: i32, buf: usize, len: usize) -> Result<usize> {
    read_file(&*readable(fd)?, &mut IoDst::user(buf, len.min(MAX_BYTES))?)
}

/// write(2)
pub fn write(fd: i32, buf: usize, len: usize) -> Result<usize> {
    write_file(&*writable(fd)?, &mut IoSrc::user(buf, len.min(MAX_BYTES))?)
}

/// readv(2)
pub fn readv(fd: i32, iov: usize, count: usize) -> Result<usize> {
    let file = readable(fd)?;
    read_file(&file, &mut IoDst::user_vec(&get_iovecs(iov, count)?)?)
}

/// writev(2)
pub fn writev(fd: i32, iov: usize, count: usize) -> Result<usize> {
    let file = writable(fd)?;
    write_file(&file, &mut IoSrc::user_vec(&get_iovecs(iov, count)?)?)
}

fn offset_arg(offset: i64) -> Result<u64> {
    u64::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// The start of a range; EINVAL if its end is none that a file can have.
fn range_arg(offset: i64, count: usize) -> Result<u64> {
    let count = i64::try_from(count).map_err(|_| Errno::EINVAL)?;
    offset_arg(offset)
        .and_then(|start| offset.checked_add(count).ok_or(Errno::EINVAL).map(|_| start))
}

/// A file with an offset. ESPIPE for one without comes before EBADF for the wrong mode.
fn seekable(fd: i32, mode: fn(&File) -> bool) -> Result<alloc::sync::Arc<File>> {
    let file = file(fd)?;
    match file.ops.seekable() {
        false => Err(Errno::ESPIPE),
        true if mode(&file) => Ok(file),
        true => Err(Errno::EBADF),
    }
}

fn read_at(fd: i32, mut dst: IoDst<'_>, offset: i64) -> Result<usize> {
    let offset = range_arg(offset, dst.remaining())?;
    let file = seekable(fd, File::readable)?;
    dst.limit(MAX_BYTES);
    file.ops.read_at(&file, offset, &mut dst)
}

fn write_at(fd: i32, mut src: IoSrc<'_>, offset: i64) -> Result<usize> {
    let offset = range_arg(offset, src.remaining())?;
    let file = seekable(fd, File::writable)?;
    src.limit(MAX_BYTES);
    limit_size(&file, offset, &mut src)?;
    let (n, _) = file.ops.write_at(&file, offset, &mut src)?;
    notify::file(&file, IN_MODIFY);
    Ok(n)
}

/// pread64(2)
pub fn pread64(fd: i32, buf: usize, len: usize, offset: i64) -> Result<usize> {
    read_at(fd, IoDst::user(buf, len.min(MAX_BYTES))?, offset)
}

/// pwrite64(2)
pub fn pwrite64(fd: i32, buf: usize, len: usize, offset: i64) -> Result<usize> {
    write_at(fd, IoSrc::user(buf, len.min(MAX_BYTES))?, offset)
}

/// preadv(2)
pub fn preadv(fd: i32, iov: usize, count: usize, offset: i64) -> Result<usize> {
    read_at(fd, IoDst::user_vec(&get_iovecs(iov, count)?)?, offset)
}

/// pwritev(2)
pub fn pwritev(fd: i32, iov: usize, count: usize, offset: i64) -> Result<usize> {
    write_at(fd, IoSrc::user_vec(&get_iovecs(iov, count)?)?, offset)
}

const RWF_KNOWN: u32 = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;

/// preadv2(2). Cached pages are all there is to wait for, so `RWF_NOWAIT` changes nothing on files.
pub fn preadv2(fd: i32, iov: usize, count: usize, offset: i64, flags: u32) -> Result<usize> {
    if flags & !RWF_KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & RWF_NOWAIT != 0 && offset == -1 {
        must_not_wait(fd, Events::IN)?;
    }
    if offset == -1 { readv(fd, iov, count) } else { preadv(fd, iov, count, offset) }
}

/// Before `RWF_NOWAIT` on a stream: EAGAIN unless it is ready, or there is an error to report.
pub fn must_not_wait(fd: i32, wanted: Events) -> Result<()> {
    let file = file(fd)?;
    let settled = wanted | Events::ERR | Events::HUP;
    let ready = || file.ops.poll(&file, &mut PollTable::query()).intersects(settled);
    if file.ops.seekable() || ready() { Ok(()) } else { Err(Errno::EAGAIN) }
}

/// pwritev2(2)
pub fn pwritev2(fd: i32, iov: usize, count: usize, offset: i64, flags: u32) -> Result<usize> {
    if flags & !RWF_KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & RWF_APPEND != 0 {
        let file = writable(fd)?;
        let end = file.with_inode(|inode| inode.metadata().size);
        return pwritev(fd, iov, count, end as i64).and_then(|n| sync_as_asked(fd, flags, n));
    }
    if flags & RWF_NOWAIT != 0 && offset == -1 {
        must_not_wait(fd, Events::OUT)?;
    }
    let written =
        if offset == -1 { writev(fd, iov, count) } else { pwritev(fd, iov, count, offset) };
    written.and_then(|n| sync_as_asked(fd, flags, n))
}

/// After a write of `n` bytes: `RWF_DSYNC` and `RWF_SYNC` make it durable.
pub fn sync_as_asked(fd: i32, flags: u32, n: usize) -> Result<usize> {
    if flags & (RWF_DSYNC | RWF_SYNC) != 0 {
        let file = file(fd)?;
        file.ops.sync(&file, flags & RWF_SYNC == 0)?;
    }
    Ok(n)
}

/// lseek(2)
pub fn lseek(fd: i32, offset: i64, whence: u32) -> Result<usize> {
    let file = file(fd)?;
    if !file.ops.seekable() {
        return Err(Errno::ESPIPE);
    }
    let mut pos = file.pos.lock();
    let add = |base: u64| (base as i64).checked_add(offset).ok_or(Errno::EINVAL);
    let to = match whence {
        SEEK_SET => offset,
        SEEK_CUR => add(*pos)?,
        SEEK_END => add(file.ops.end(&file)?)?,
        SEEK_DATA | SEEK_HOLE => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            file.ops.seek_data(&file, from, whence == SEEK_HOLE)? as i64
        }
        _ => return Err(Errno::EINVAL),
    };
    *pos = offset_arg(to)?;
    Ok(to as usize)
}

/// Writes up to `count` bytes of `input` at `offset` to `output`. Returns how many; an error only
/// if there were none.
fn send(output: &File, input: &File, mut offset: u64, count: usize) -> Result<usize> {
    let cache = input.ops.mapping(input).ok();
    let mut done = 0;
    while done < count {
        let step = match &cache {
            Some(cache) => send_pages(output, cache, offset, count - done),
            None => send_copied(output, input, offset, count - done),
        };
        match step {
            Ok((0, _)) => break,
            Ok((moved, short)) => {
                done += moved;
                offset += moved as u64;
                if short {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Passes cached pages to the output's write as they are. Returns the bytes moved and whether the
/// output took fewer.
fn send_pages(
    output: &File,
    cache: &crate::mm::PageCache,
    offset: u64,
    count: usize,
) -> Result<(usize, bool)> {
    let within = (offset % PAGE_SIZE as u64) as usize;
    let left = cache.len().saturating_sub(offset);
    let len = count.min(BATCH * PAGE_SIZE - within).min(usize::try_from(left).unwrap_or(count));
    if len == 0 {
        return Ok((0, false));
    }
    let first = offset / PAGE_SIZE as u64;
    let last = (offset + len as u64 - 1) / PAGE_SIZE as u64;
    if first == last {
        let page = cache.get_page(first, false)?;
        let mut src = IoSrc::pages(core::slice::from_ref(&page), within, len)?;
        let moved = write_file(output, &mut src)?;
        return Ok((moved, moved < len));
    }
    let pages = (first..=last).map(|index| cache.get_page(index, false));
    let pages = pages.collect::<Result<Vec<PageRef>>>()?;
    let moved = write_file(output, &mut IoSrc::pages(&pages, within, len)?)?;
    Ok((moved, moved < len))
}

fn send_copied(output: &File, input: &File, offset: u64, count: usize) -> Result<(usize, bool)> {
    let mut buf = alloc::vec![0; count.min(BATCH * PAGE_SIZE)];
    let n = input.ops.read_at(input, offset, &mut IoDst::kernel(&mut buf))?;
    let moved = if n > 0 { write_file(output, &mut IoSrc::kernel(&buf[..n]))? } else { 0 };
    Ok((moved, moved < n))
}

/// sendfile(2)
pub fn sendfile(out: i32, input: i32, offset_addr: usize, count: usize) -> Result<usize> {
    let (input, output) = (readable(input)?, writable(out)?);
    if output.flags() & O_APPEND != 0 && output.ops.seekable() {
        return Err(Errno::EINVAL);
    }
    if !input.ops.seekable() {
        return Err(if offset_addr != 0 { Errno::ESPIPE } else { Errno::EINVAL });
    }
    let directory = || input.with_inode(|inode| inode.file_type()) == FileType::Directory;
    if i64::try_from(count).is_err() || directory() {
        return Err(Errno::EINVAL);
    }
    let asked = count;
    let count = count.min(MAX_BYTES);
    if offset_addr == 0 {
        let mut pos = input.pos.lock();
        let done = send(&output, &input, *pos, count)?;
        *pos += done as u64;
        return Ok(done);
    }
    let offset = range_arg(get_user::<i64>(offset_addr)?, asked)?;
    let done = send(&output, &input, offset, count)?;
    put_user(offset_addr, &(offset + done as u64))?;
    Ok(done)
}

/// Moves bytes out of a pipe; what the output doesn't take goes back.
fn from_pipe(
    pipe: &crate::fs::pipe::Pipe,
    nonblocking: bool,
    output: &File,
    offset: Option<u64>,
    count: usize,
) -> Result<usize> {
    let mut buf = alloc::vec![0; count.min(BATCH * PAGE_SIZE)];
    let n = pipe.read(nonblocking, &mut IoDst::kernel(&mut buf))?;
    let mut src = IoSrc::kernel(&buf[..n]);
    let result = match offset {
        Some(offset) => output.ops.write_at(output, offset, &mut src).map(|(n, _)| n),
        None => write_file(output, &mut src),
    };
    pipe.unread(&buf[*result.as_ref().unwrap_or(&0)..n])?;
    result
}

/// splice(2)
pub fn splice(
    input: i32,
    in_offset: usize,
    out: i32,
    out_offset: usize,
    len: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !0xf != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let (input, output) = (readable(input)?, writable(out)?);
    let nonblocking = flags & SPLICE_F_NONBLOCK != 0;
    let offset_of = |addr: usize, file: &File| match addr {
        0 => Ok(None),
        _ if !file.ops.seekable() => Err(Errno::ESPIPE),
        addr => offset_arg(get_user::<i64>(addr)?).map(Some),
    };
    let (from, to) = (offset_of(in_offset, &input)?, offset_of(out_offset, &output)?);
    // No file reaches further.
    let overflows =
        |start: Option<u64>| start.is_some_and(|start| (start.wrapping_add(len as u64) as i64) < 0);
    if overflows(from) || overflows(to) {
        return Err(Errno::EINVAL);
    }
    if let Some(end) = input.downcast::<PipeEnd>() {
        if output.flags() & O_APPEND != 0 && output.ops.seekable() {
            return Err(Errno::EINVAL);
        }
        let wait = nonblocking || input.nonblocking();
        let mut len = len.min(MAX_BYTES);
        if let Some(other) = output.downcast::<PipeEnd>() {
            if core::ptr::eq(&*end.pipe, &*other.pipe) {
                return Err(Errno::EINVAL);
            }
            // As much as there is room for, without waiting for more of it.
            if !end.pipe.wait_for_data(wait)? {
                return Ok(0);
            }
            len = len.min(other.pipe.wait_for_room(nonblocking || output.nonblocking())?);
        }
        let moved = from_pipe(&end.pipe, wait, &output, to, len)?;
        if let Some(to) = to {
            put_user(out_offset, &(to + moved as u64))?;
        }
        return Ok(moved);
    }
    let Some(end) = output.downcast::<PipeEnd>() else { return Err(Errno::EINVAL) };
    // Never take more from the input than the pipe can hold now.
    let room = end.pipe.wait_for_room(nonblocking || output.nonblocking())?;
    let mut buf = alloc::vec![0; len.min(room).min(BATCH * PAGE_SIZE)];
    let mut dst = IoDst::kernel(&mut buf);
    let n = match from {
        Some(offset) => input.ops.read_at(&input, offset, &mut dst)?,
        None => read_file(&input, &mut dst)?,
    };
    let moved = write_file(&output, &mut IoSrc::kernel(&buf[..n]))?;
    if let Some(from) = from {
        put_user(in_offset, &(from + moved as u64))?;
    }
    Ok(moved)
}

/// tee(2)
pub fn tee(input: i32, out: i32, len: usize, flags: u32) -> Result<usize> {
    let (input, output) = (readable(input)?, writable(out)?);
    let (Some(from), Some(to)) = (input.downcast::<PipeEnd>(), output.downcast::<PipeEnd>()) else {
        return Err(Errno::EINVAL);
    };
    if core::ptr::eq(&*from.pipe, &*to.pipe) {
        return Err(Errno::EINVAL);
    }
    let nonblocking = flags & SPLICE_F_NONBLOCK != 0;
    if !from.pipe.wait_for_data(nonblocking)? {
        return Ok(0);
    }
    let room = to.pipe.wait_for_room(nonblocking)?;
    let bytes = from.pipe.peek(len.min(room))?;
    write_file(&output, &mut IoSrc::kernel(&bytes))
}

/// vmsplice(2)
pub fn vmsplice(fd: i32, iov: usize, count: usize, flags: u32) -> Result<usize> {
    if flags & !0xf != 0 {
        return Err(Errno::EINVAL);
    }
    let file = file(fd)?;
    let end = file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?;
    let wait = flags & SPLICE_F_NONBLOCK != 0 || file.nonblocking();
    let iov = get_iovecs(iov, count)?;
    if !file.writable() {
        let mut dst = IoDst::user_vec(&iov)?;
        if dst.remaining() == 0 || !end.pipe.wait_for_data(wait)? {
            return Ok(0);
        }
        return read_file(&file, &mut dst);
    }
    let mut src = IoSrc::user_vec(&iov)?;
    if src.remaining() == 0 {
        return Ok(0);
    }
    // As much as there is room for, without waiting for more of it.
    src.limit(end.pipe.wait_for_room(wait)?);
    write_file(&file, &mut src)
}

/// copy_file_range(2)
pub fn copy_file_range(
    input: i32,
    in_offset: usize,
    out: i32,
    out_offset: usize,
    len: usize,
    flags: u32,
) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (input, output) = (readable(input)?, writable(out)?);
    for file in [&input, &output] {
        match file.with_inode(|inode| inode.file_type()) {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    if output.flags() & O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    let start = |addr: usize, file: &File| match addr {
        0 => Ok(*file.pos.lock()),
        addr => offset_arg(get_user::<i64>(addr)?),
    };
    let (from, to) = (start(in_offset, &input)?, start(out_offset, &output)?);
    let len = len.min(MAX_BYTES) as u64;
    let same = core::ptr::addr_eq(&raw const *input.inode(), &raw const *output.inode());
    if same && from < to.saturating_add(len) && to < from.saturating_add(len) {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    let mut buf = alloc::vec![0; (len as usize).min(BATCH * PAGE_SIZE)];
    while done < len {
        let want = buf.len().min((len - done) as usize);
        let mut dst = IoDst::kernel(&mut buf[..want]);
        let step = input.ops.read_at(&input, from + done, &mut dst).and_then(|n| {
            let mut src = IoSrc::kernel(&buf[..n]);
            limit_size(&output, to + done, &mut src)?;
            Ok(output.ops.write_at(&output, to + done, &mut src)?.0)
        });
        match step {
            Ok(0) => break,
            Ok(n) => done += n as u64,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    for (addr, file, start) in [(in_offset, &input, from), (out_offset, &output, to)] {
        match addr {
            0 => *file.pos.lock() = start + done,
            addr => put_user(addr, &(start + done))?,
        }
    }
    Ok(done as usize)
}
