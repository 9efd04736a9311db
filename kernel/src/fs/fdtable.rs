//! File descriptors.

use super::File;
use crate::errno::{Errno, Result};
use crate::sync::{SpinGuard, SpinLock};
use crate::task::rlimit::NR_OPEN_NOW;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general::O_PATH;

/// Most descriptors of a process whatever its limits say (`fs.nr_open`).
pub const NR_OPEN: usize = 1 << 20;

/// Looks up several descriptors at once: the table is locked while it lives.
pub struct Lookup<'a>(SpinGuard<'a, Inner>);

impl Lookup<'_> {
    /// As [`FdTable::get`].
    #[inline]
    pub fn get(&self, fd: i32) -> Result<Arc<File>> {
        match self.0.files.get(fd as usize) {
            Some(Some(file)) if file.flags() & O_PATH == 0 => Ok(file.clone()),
            _ => Err(Errno::EBADF),
        }
    }
}

/// The descriptors of a process; shared by tasks made with `CLONE_FILES`.
pub struct FdTable {
    inner: SpinLock<Inner>,
}

#[derive(Default)]
struct Inner {
    files: Vec<Option<Arc<File>>>,
    /// One bit a descriptor: in use (a file, or [`Reserved`]).
    used: Vec<u64>,
    /// One bit a word of `used`: the word is full.
    full: Vec<u64>,
    /// One bit a descriptor: close on exec.
    cloexec: Vec<u64>,
}

/// A descriptor kept for what a call is about to open, so that a call that changes something (it
/// makes a file, takes a connection from its queue) fails for want of descriptors before it does.
/// Free again when dropped.
pub struct Reserved {
    table: Arc<FdTable>,
    /// `None` once it is open.
    fd: Option<usize>,
}

impl Reserved {
    /// The file gets the descriptor.
    pub fn install(mut self, file: Arc<File>, cloexec: bool) -> i32 {
        let fd = self.fd.take().expect("it is reserved until now");
        let mut inner = self.table.inner.lock();
        inner.mark(fd, cloexec);
        inner.files[fd] = Some(file);
        fd as i32
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(fd) = self.fd {
            self.table.inner.lock().unmark(fd);
        }
    }
}

impl Default for FdTable {
    fn default() -> Self {
        FdTable::new()
    }
}

fn index(fd: i32) -> Result<usize> {
    usize::try_from(fd).map_err(|_| Errno::EBADF)
}

/// A limit of descriptors that the table can keep.
fn bounded(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(NR_OPEN).min(NR_OPEN)
}

impl Inner {
    /// The lowest free descriptor from `min` on (it may lie past the end of the vectors).
    fn lowest_free(&self, min: usize) -> usize {
        let mut word = min / 64;
        let Some(&bits) = self.used.get(word) else { return min };
        let free = !bits & (!0 << (min % 64));
        if free != 0 {
            return word * 64 + free.trailing_zeros() as usize;
        }
        word += 1;
        // Whole words from here on: the summary skips 64 full ones at a time.
        while word < self.used.len() {
            let summary = self.full[word / 64] | ((1u64 << (word % 64)) - 1);
            if summary == !0 {
                word = (word / 64 + 1) * 64;
                continue;
            }
            word = word / 64 * 64 + (!summary).trailing_zeros() as usize;
            break;
        }
        match self.used.get(word) {
            Some(&bits) => word * 64 + (!bits).trailing_zeros() as usize,
            None => word * 64,
        }
    }

    fn grow(&mut self, fd: usize) -> Result<()> {
        if fd < self.files.len() {
            return Ok(());
        }
        let len = (fd + 1).next_multiple_of(64).max(self.files.len() * 2).min(NR_OPEN);
        let more = len - self.files.len();
        let words = len / 64;
        let add = words - self.used.len();
        let summaries = words.div_ceil(64) - self.full.len();
        let enough = self.files.try_reserve(more).is_ok()
            && self.used.try_reserve(add).is_ok()
            && self.cloexec.try_reserve(add).is_ok()
            && self.full.try_reserve(summaries).is_ok();
        if !enough {
            return Err(Errno::ENOMEM);
        }
        self.files.resize_with(len, || None);
        self.used.resize(words, 0);
        self.cloexec.resize(words, 0);
        self.full.resize(words.div_ceil(64), 0);
        Ok(())
    }

    fn mark(&mut self, fd: usize, cloexec: bool) {
        let (word, bit) = (fd / 64, 1u64 << (fd % 64));
        self.used[word] |= bit;
        if self.used[word] == !0 {
            self.full[word / 64] |= 1 << (word % 64);
        }
        if cloexec {
            self.cloexec[word] |= bit;
        } else {
            self.cloexec[word] &= !bit;
        }
    }

    fn take(&mut self, fd: usize) -> Option<Arc<File>> {
        let file = self.files.get_mut(fd)?.take()?;
        self.unmark(fd);
        Some(file)
    }

    fn unmark(&mut self, fd: usize) {
        let (word, bit) = (fd / 64, 1u64 << (fd % 64));
        self.used[word] &= !bit;
        self.full[word / 64] &= !(1 << (word % 64));
        self.cloexec[word] &= !bit;
    }

    /// Takes the lowest free descriptor from `min` to `limit`; its file is still to come. EMFILE if
    /// there is none.
    fn claim(&mut self, min: usize, limit: usize, cloexec: bool) -> Result<usize> {
        let fd = self.lowest_free(min);
        if fd >= limit {
            return Err(Errno::EMFILE);
        }
        self.grow(fd)?;
        self.mark(fd, cloexec);
        Ok(fd)
    }

    fn is_used(&self, fd: usize) -> bool {
        self.used[fd / 64] & 1 << (fd % 64) != 0
    }

    fn is_cloexec(&self, fd: usize) -> bool {
        self.cloexec.get(fd / 64).is_some_and(|word| word & 1 << (fd % 64) != 0)
    }
}

impl FdTable {
    /// An empty table.
    pub fn new() -> FdTable {
        FdTable { inner: SpinLock::new(Inner::default()) }
    }

    /// The file behind a descriptor, for input and output. EBADF if it isn't open, or is with
    /// `O_PATH`.
    pub fn get(&self, fd: i32) -> Result<Arc<File>> {
        let file = self.get_any(fd)?;
        if file.flags() & O_PATH != 0 {
            return Err(Errno::EBADF);
        }
        Ok(file)
    }

    /// For looking up several descriptors, though not thousands at once. What was got must live longer
    /// than the lookup: the last reference to a file must not go under the lock.
    pub fn lookup(&self) -> Lookup<'_> {
        Lookup(self.inner.lock())
    }

    /// The file behind a descriptor, for calls that accept `O_PATH`. EBADF if it isn't open.
    pub fn get_any(&self, fd: i32) -> Result<Arc<File>> {
        let inner = self.inner.lock();
        inner.files.get(fd as usize).and_then(Option::as_ref).cloned().ok_or(Errno::EBADF)
    }

    /// Opens the lowest free descriptor below `limit` (`RLIMIT_NOFILE`). EMFILE if there is none.
    pub fn alloc(&self, file: Arc<File>, cloexec: bool, limit: u64) -> Result<i32> {
        self.alloc_from(0, file, cloexec, limit).map_err(|error| match error {
            Errno::EINVAL => Errno::EMFILE,
            other => other,
        })
    }

    /// As [`alloc`](FdTable::alloc) from `min` on (`F_DUPFD`). EINVAL if `min` isn't below the
    /// limit.
    pub fn alloc_from(&self, min: i32, file: Arc<File>, cloexec: bool, limit: u64) -> Result<i32> {
        let limit = bounded(limit);
        let min = usize::try_from(min).map_err(|_| Errno::EINVAL)?;
        if min >= limit {
            return Err(Errno::EINVAL);
        }
        let mut inner = self.inner.lock();
        let fd = inner.claim(min, limit, cloexec)?;
        inner.files[fd] = Some(file);
        Ok(fd as i32)
    }

    /// Keeps the lowest free descriptor below `limit` for a file that isn't there yet. EMFILE if
    /// there is none.
    pub fn reserve(self: Arc<Self>, limit: u64) -> Result<Reserved> {
        // It isn't closed by exec: there is nothing to close.
        let fd = self.inner.lock().claim(0, bounded(limit), false)?;
        Ok(Reserved { table: self, fd: Some(fd) })
    }

    /// Opens the descriptor `fd`; gives back the file it was open on (dup2(2)). EBADF if `fd` isn't
    /// below the limit, EBUSY if a call is about to open it.
    pub fn replace(
        &self,
        fd: i32,
        file: Arc<File>,
        cloexec: bool,
        limit: u64,
    ) -> Result<Option<Arc<File>>> {
        let fd = index(fd)?;
        if fd as u64 >= limit.min(NR_OPEN as u64) {
            return Err(Errno::EBADF);
        }
        let mut inner = self.inner.lock();
        inner.grow(fd)?;
        if inner.files[fd].is_none() && inner.is_used(fd) {
            return Err(Errno::EBUSY);
        }
        inner.mark(fd, cloexec);
        Ok(inner.files[fd].replace(file))
    }

    /// Takes a descriptor out of the table. The caller finishes with [`super::close_file`].
    pub fn remove(&self, fd: i32) -> Result<Arc<File>> {
        let fd = index(fd)?;
        self.inner.lock().take(fd).ok_or(Errno::EBADF)
    }

    /// Closes a descriptor.
    pub fn close(&self, fd: i32) -> Result<()> {
        let file = self.remove(fd)?;
        super::locks::descriptor_closed(self, &file);
        Ok(())
    }

    /// Closes every open descriptor from `first` to `last` (close_range(2)).
    pub fn close_range(&self, first: u32, last: u32) {
        let mut next = first as usize;
        loop {
            let file = {
                let mut inner = self.inner.lock();
                let end = inner.files.len().min((last as usize).saturating_add(1));
                loop {
                    if next >= end {
                        return;
                    }
                    next += 1;
                    if let Some(file) = inner.take(next - 1) {
                        break file;
                    }
                }
            };
            super::locks::descriptor_closed(self, &file);
        }
    }

    /// Marks every open descriptor from `first` to `last` close-on-exec (`CLOSE_RANGE_CLOEXEC`).
    pub fn cloexec_range(&self, first: u32, last: u32) {
        let mut inner = self.inner.lock();
        let end = inner.files.len().min((last as usize).saturating_add(1));
        for fd in first as usize..end {
            if inner.files[fd].is_some() {
                inner.cloexec[fd / 64] |= 1 << (fd % 64);
            }
        }
    }

    /// Whether a descriptor is closed by exec.
    pub fn cloexec(&self, fd: i32) -> Result<bool> {
        let inner = self.inner.lock();
        let fd = index(fd)?;
        inner.files.get(fd).and_then(Option::as_ref).ok_or(Errno::EBADF)?;
        Ok(inner.is_cloexec(fd))
    }

    /// Says whether a descriptor is closed by exec.
    pub fn set_cloexec(&self, fd: i32, cloexec: bool) -> Result<()> {
        let mut inner = self.inner.lock();
        let fd = index(fd)?;
        inner.files.get(fd).and_then(Option::as_ref).ok_or(Errno::EBADF)?;
        inner.mark(fd, cloexec);
        Ok(())
    }

    /// A copy for fork(2): descriptors refer to the same descriptions. EMFILE if there may not be as
    /// many any more (`fs.nr_open`).
    pub fn fork(&self) -> Result<FdTable> {
        self.fork_below(NR_OPEN as u32)
    }

    /// A copy of the descriptors below `end` (`CLOSE_RANGE_UNSHARE` up to the end).
    pub fn fork_below(&self, end: u32) -> Result<FdTable> {
        let inner = self.inner.lock();
        let mut copy = Inner::default();
        let last = (0..inner.files.len().min(end as usize)).rev();
        if let Some(last) = last.into_iter().find(|&fd| inner.files[fd].is_some()) {
            let most = NR_OPEN_NOW.load(Relaxed).next_multiple_of(64);
            if last as u64 >= most {
                return Err(Errno::EMFILE);
            }
            copy.grow(last)?;
            for fd in 0..=last {
                if let Some(file) = &inner.files[fd] {
                    copy.mark(fd, inner.is_cloexec(fd));
                    copy.files[fd] = Some(file.clone());
                }
            }
        }
        Ok(FdTable { inner: SpinLock::new(copy) })
    }

    /// Closes what exec closes.
    pub fn close_on_exec(&self) {
        let mut word = 0;
        loop {
            let file = {
                let mut inner = self.inner.lock();
                loop {
                    let Some(&bits) = inner.cloexec.get(word) else { return };
                    if bits == 0 {
                        word += 1;
                        continue;
                    }
                    break inner.take(word * 64 + bits.trailing_zeros() as usize);
                }
            };
            if let Some(file) = file {
                super::locks::descriptor_closed(self, &file);
            }
        }
    }

    /// Closes everything (exit).
    pub fn close_all(&self) {
        self.close_range(0, u32::MAX);
    }

    /// Open descriptors from `from` on, for /proc/PID/fd: at most `out.len()`; returns how many.
    pub fn open_from(&self, from: usize, out: &mut [usize]) -> usize {
        let inner = self.inner.lock();
        let open = (from..inner.files.len()).filter(|&fd| inner.files[fd].is_some());
        let mut count = 0;
        for (slot, fd) in out.iter_mut().zip(open) {
            *slot = fd;
            count += 1;
        }
        count
    }

    /// Whether this holds of any open file; it is asked with the table locked.
    pub fn any(&self, wanted: &dyn Fn(&Arc<File>) -> bool) -> bool {
        self.inner.lock().files.iter().flatten().any(wanted)
    }

    /// Number of descriptors the table has room for (`FDSize` in /proc/PID/status).
    pub fn capacity(&self) -> usize {
        self.inner.lock().files.len()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        self.close_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<File> {
        let (read, _) = crate::fs::pipe::pipe(0, 0, 0).unwrap();
        read
    }

    #[test]
    fn descriptors_are_the_lowest_free_ones() {
        let table = FdTable::new();
        let file = file();
        for expected in 0..5000 {
            assert_eq!(table.alloc(file.clone(), false, 1 << 16), Ok(expected));
        }
        for fd in [4999, 64, 127, 3] {
            table.close(fd).unwrap();
        }
        for expected in [3, 64, 127, 4999, 5000] {
            assert_eq!(table.alloc(file.clone(), false, 1 << 16), Ok(expected));
        }
        assert_eq!(table.alloc_from(4000, file.clone(), false, 1 << 16), Ok(5001));
        assert_eq!(table.alloc_from(9000, file.clone(), false, 1 << 16), Ok(9000));
        assert_eq!(table.alloc(file.clone(), false, 5002), Err(Errno::EMFILE));
        assert_eq!(table.alloc_from(5002, file, false, 5002), Err(Errno::EINVAL));
    }

    #[test]
    fn exec_closes_the_marked_ones_only() {
        let table = FdTable::new();
        let file = file();
        for fd in 0..200 {
            table.alloc(file.clone(), fd % 3 == 0, 1024).unwrap();
        }
        table.set_cloexec(1, true).unwrap();
        table.close_on_exec();
        for fd in 0..200 {
            assert_eq!(table.get(fd).is_ok(), fd % 3 != 0 && fd != 1, "{fd}");
        }
        let copy = table.fork().unwrap();
        table.close_range(3, u32::MAX);
        assert!(table.get(2).is_ok() && table.get(4).is_err() && copy.get(4).is_ok());
    }

    #[test]
    fn a_reserved_descriptor_is_taken_but_not_open() {
        let table = Arc::new(FdTable::new());
        let file = file();
        let first = table.clone().reserve(2).unwrap();
        assert_eq!(table.get(0).err(), Some(Errno::EBADF));
        assert_eq!(table.close(0), Err(Errno::EBADF));
        assert_eq!(table.replace(0, file.clone(), false, 2).err(), Some(Errno::EBUSY));
        assert_eq!(table.alloc(file.clone(), false, 2), Ok(1));
        assert!(table.clone().reserve(2).is_err_and(|error| error == Errno::EMFILE));
        table.close_all();
        let copy = Arc::new(table.fork().unwrap());
        assert_eq!(copy.alloc(file.clone(), false, 2), Ok(0), "a copy has nothing reserved");
        assert_eq!(first.install(file.clone(), true), 0);
        assert_eq!(table.cloexec(0), Ok(true));
        drop(table.clone().reserve(2).unwrap());
        assert_eq!(table.alloc(file, false, 2), Ok(1), "what isn't used is free again");
    }

    #[test]
    fn negative_descriptors_are_bad() {
        let table = FdTable::new();
        assert_eq!(table.get(-1).err(), Some(Errno::EBADF));
        assert_eq!(table.close(-100), Err(Errno::EBADF));
        assert_eq!(table.replace(5, file(), false, 5).err(), Some(Errno::EBADF));
    }
}
