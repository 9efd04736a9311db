//! Regular files, and what open files and directories do.

use super::Ext4;
use super::inode::{Body, Ext4Inode};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::inode::mode::{S_IFMT, S_ISGID, S_ISUID};
use crate::fs::write_errors::WriteErrors;
use crate::fs::{File, FileOps, FileType, Inode};
use crate::io::{IoDst, IoSrc, put_user};
use crate::mm::{PageCache, PageRef, Pager};
use crate::sync::Mutex;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use dock2uni_ext4::Attributes;
use linux_raw_sys::general::{
    FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, O_APPEND, O_DSYNC, O_SYNC,
};

const PAGE: u64 = PAGE_SIZE as u64;
/// Largest file in bytes: block numbers have 32 bits.
const SIZE_MAX: u64 = (u32::MAX as u64) * PAGE;
/// Pages that a writer tries to free when memory is short.
const BATCH: usize = 64;

/// Contents of a regular file.
pub(super) struct Contents {
    pub cache: Arc<PageCache>,
    /// Writers exclude each other, and whoever makes pages clean.
    pub writing: Mutex<()>,
    /// Held while pages are written back, and while blocks are taken away.
    pub flush: Mutex<()>,
}

/// Fills the cache of a file.
struct FilePager {
    fs: Weak<Ext4>,
    ino: u32,
}

impl Contents {
    pub fn new(fs: &Arc<Ext4>, found: &dock2uni_ext4::Inode) -> Contents {
        let pager = Arc::new(FilePager { fs: Arc::downgrade(fs), ino: found.ino });
        Contents {
            cache: PageCache::backed_in(found.size(), pager, fs.quota.clone()),
            writing: Mutex::new(()),
            flush: Mutex::new(()),
        }
    }
}

impl Pager for FilePager {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        let mut page = None;
        self.read_pages(index, 1, &mut |_, frame| page = Some(frame))?;
        page.ok_or(Errno::EIO)
    }

    fn read_pages(
        &self,
        index: u64,
        count: usize,
        sink: &mut dyn FnMut(u64, PageRef),
    ) -> Result<()> {
        let fs = self.fs.upgrade().ok_or(Errno::EIO)?;
        let block = u32::try_from(index).map_err(|_| Errno::EIO)?;
        // Past the end is nothing worth reading ahead, but whoever asks gets a page.
        let count = match fs.find(self.ino).as_deref().map(|inode| &inode.body) {
            Some(Body::File(contents)) => {
                let left = contents.cache.len().div_ceil(PAGE).saturating_sub(index);
                (count as u64).min(left.max(1)) as u32
            }
            _ => 1,
        };
        let found = fs.with(|volume| volume.map(self.ino, block, count))?;
        match found.start.filter(|_| found.written) {
            Some(start) => crate::fs::erofs::read_run(
                index,
                found.len as usize,
                |frames| fs.device.read_pages(start * PAGE, frames),
                sink,
            ),
            None => {
                sink(index, PageRef::alloc(true)?);
                Ok(())
            }
        }
    }

    fn writes_back(&self) -> bool {
        true
    }

    fn make_room(&self, index: u64) -> Result<bool> {
        let fs = self.fs.upgrade().ok_or(Errno::EIO)?;
        let block = u32::try_from(index).map_err(|_| Errno::EFBIG)?;
        fs.make_room(self.ino, block)
    }

    fn dirtied(&self) {
        if let Some(inode) = self.fs.upgrade().and_then(|fs| fs.find(self.ino)) {
            inode.enqueue();
            if inode.fs.is_crowded() {
                inode.fs.hurry();
            }
        }
    }
}

impl Ext4Inode {
    pub(super) fn contents(&self) -> Result<&Contents> {
        match &self.body {
            Body::File(contents) => Ok(contents),
            _ if self.file_kind() == FileType::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    fn file_kind(&self) -> FileType {
        FileType::of_mode(self.meta.lock().mode)
    }

    /// After a write by somebody without privileges: set-user-ID and set-group-ID go.
    fn drop_privilege(&self) -> Result<()> {
        let mode = self.meta.lock().mode;
        if mode & (S_ISUID | S_ISGID) == 0 {
            return Ok(());
        }
        let mode = Some(mode & S_IFMT | crate::fs::ops::drop_privilege(mode));
        self.fs.with(|volume| {
            let found = volume.set(self.ino, &Attributes { mode, ..Attributes::default() })?;
            self.changed(volume, &found);
            Ok(())
        })
    }

    /// Sets the length.
    pub(super) fn resize(&self, len: u64) -> Result<()> {
        if len > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        let contents = self.contents()?;
        self.drop_privilege()?;
        let _flush = contents.flush.lock();
        let _writing = contents.writing.lock();
        let old = contents.cache.len();
        contents.cache.truncate(len)?;
        if len < old && !len.is_multiple_of(PAGE) {
            // What was cut off must not come back if the file grows after a crash.
            self.write_range(contents, len / PAGE, len / PAGE + 1, true)?;
        }
        self.stale.store(false, core::sync::atomic::Ordering::Relaxed);
        self.fs.with(|volume| {
            let found = volume.truncate(self.ino, len)?;
            self.changed(volume, &found);
            Ok(())
        })
    }

    /// Writes into the cache; returns how much, and where it began.
    fn write_cached(
        &self,
        contents: &Contents,
        append: bool,
        offset: u64,
        src: &mut IoSrc<'_>,
    ) -> Result<(usize, u64)> {
        let _writing = contents.writing.lock();
        let offset = if append { contents.cache.len() } else { offset };
        if src.remaining() == 0 {
            return Ok((0, offset));
        }
        if offset >= SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        src.limit((SIZE_MAX - offset) as usize);
        let n = contents.cache.write_at(offset, src)?;
        self.touch();
        Ok((n, offset))
    }

    /// Makes `start..end` read as zeros, and frees its whole blocks.
    fn punch(&self, contents: &Contents, start: u64, end: u64) -> Result<()> {
        contents.cache.punch_hole(start, end)?;
        let blocks = (start.div_ceil(PAGE) as u32, (end.min(SIZE_MAX) / PAGE) as u32);
        if blocks.0 >= blocks.1 {
            return Ok(());
        }
        self.fs.with(|volume| {
            let found = volume.punch(self.ino, blocks.0, blocks.1)?;
            self.changed(volume, &found);
            Ok(())
        })?;
        // What somebody has read of the old blocks meanwhile.
        contents.cache.punch_hole(u64::from(blocks.0) * PAGE, u64::from(blocks.1) * PAGE)
    }

    /// Gives `start..end` blocks where it has none; they read as zeros.
    fn reserve(&self, start: u64, end: u64) -> Result<()> {
        let mut block = (start / PAGE) as u32;
        let last = end.div_ceil(PAGE) as u32;
        while block < last {
            let len = self.fs.with(|volume| {
                let found = volume.prepare(self.ino, block, last - block, false)?;
                let inode = volume.inode(self.ino)?;
                self.changed(volume, &inode);
                Ok(found.len)
            })?;
            block += len.max(1);
        }
        Ok(())
    }
}

impl FileOps for Ext4Inode {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, file: &File, offset: u64, dst: &mut IoDst<'_>) -> Result<usize> {
        let n = self.contents()?.cache.read_at(offset, dst)?;
        if let Some(always) = file.access_times() {
            self.accessed(always);
        }
        Ok(n)
    }

    fn write_at(&self, file: &File, offset: u64, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        let contents = self.contents()?;
        if self.fs.is_read_only() {
            return Err(Errno::EROFS);
        }
        self.drop_privilege()?;
        let append = file.flags() & O_APPEND != 0;
        let before = src.done();
        let (n, offset) = match self.write_cached(contents, append, offset, src) {
            // Memory may be what is short, or room that is promised to pages which need none.
            Err(Errno::ENOSPC) if src.done() == before => {
                self.write_back()?;
                crate::mm::reclaim::reclaim(BATCH);
                self.write_cached(contents, append, offset, src)?
            }
            result => result?,
        };
        if n == 0 {
            return Ok((0, offset));
        }
        if file.flags() & O_DSYNC != 0 {
            self.synchronize(file, file.flags() & O_SYNC != O_SYNC)?;
        } else {
            self.fs.throttle(self, contents)?;
        }
        Ok((n, offset + n as u64))
    }

    fn seek_data(&self, _file: &File, offset: u64, hole: bool) -> Result<u64> {
        let contents = self.contents().map_err(|_| Errno::EINVAL)?;
        let size = contents.cache.len();
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        // What is in memory gets its place first, so that the volume knows.
        self.write_back()?;
        let mut at = offset;
        while at < size {
            let block = (at / PAGE) as u32;
            let left = (size.div_ceil(PAGE) - u64::from(block)) as u32;
            let found = self.fs.with(|volume| volume.map(self.ino, block, left))?;
            let data = found.start.is_some() && found.written;
            if data != hole {
                return Ok(at);
            }
            at = (u64::from(block) + u64::from(found.len.max(1))) * PAGE;
        }
        if hole { Ok(size) } else { Err(Errno::ENXIO) }
    }

    fn allocate(&self, _file: &File, mode: u32, offset: u64, len: u64) -> Result<()> {
        let contents = self.contents()?;
        let end = offset.checked_add(len).filter(|&end| end <= SIZE_MAX).ok_or(Errno::EFBIG)?;
        self.drop_privilege()?;
        let _flush = contents.flush.lock();
        let _writing = contents.writing.lock();
        let keep = mode & FALLOC_FL_KEEP_SIZE != 0;
        match mode & !FALLOC_FL_KEEP_SIZE {
            0 => self.reserve(offset, end)?,
            FALLOC_FL_PUNCH_HOLE if keep => self.punch(contents, offset, end)?,
            FALLOC_FL_ZERO_RANGE => {
                self.punch(contents, offset, end)?;
                self.reserve(offset, end)?;
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if !keep && end > contents.cache.len() {
            contents.cache.truncate(end)?;
            let size = Some(end);
            self.fs.with(|volume| {
                let found = volume.set(self.ino, &Attributes { size, ..Attributes::default() })?;
                self.changed(volume, &found);
                Ok(())
            })?;
        }
        self.touch();
        Ok(())
    }

    fn poll(&self, _file: &File, _table: &mut PollTable<'_>) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }

    fn pollable(&self) -> bool {
        false
    }

    fn ioctl(&self, file: &File, request: u32, arg: usize) -> Result<usize> {
        match (request, &self.body) {
            (linux_raw_sys::ioctl::FIONREAD, Body::File(contents)) => {
                let left = contents.cache.len().saturating_sub(*file.pos.lock());
                put_user(arg, &(left.min(i32::MAX as u64) as i32))?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn mapping(&self, _file: &File) -> Result<Arc<PageCache>> {
        self.contents().map(|contents| contents.cache.clone()).map_err(|_| Errno::ENODEV)
    }

    fn inode(&self) -> Arc<dyn Inode> {
        self.arc()
    }

    fn read_dir(
        &self,
        file: &File,
        offset: u64,
        emit: &mut dyn FnMut(u64, u64, u8, &[u8]) -> bool,
    ) -> Result<()> {
        if self.file_kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let parent = file.path.as_ref().map_or(self.ino.into(), |path| path.parent_ino());
        // Collected first: `emit` writes to memory whose pages may have to be read in.
        let mut found: Vec<(u32, u64, u8, Vec<u8>)> = Vec::new();
        self.fs.with(|volume| {
            let dir = volume.inode(self.ino)?;
            if dir.links() == 0 {
                return Ok(());
            }
            volume.list(&dir, offset, &mut |ino, next, kind, name| {
                found.push((ino, next, kind, name.to_vec()));
                found.len() < 512
            })
        })?;
        for (ino, next, kind, name) in found {
            let ino = if name == b".." { parent } else { ino.into() };
            if !emit(ino, next, dock2uni_ext4::FileType::dirent_type(kind), &name) {
                break;
            }
        }
        if let Some(always) = file.access_times() {
            self.accessed(always);
        }
        Ok(())
    }

    fn sync(&self, file: &File, data_only: bool) -> Result<()> {
        self.synchronize(file, data_only)
    }

    fn write_errors(&self) -> Option<&WriteErrors> {
        Some(&self.lost)
    }
}
