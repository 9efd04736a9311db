//! Writing back.

use super::Ext4;
use super::file::Contents;
use super::inode::{Body, Ext4Inode};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::fs::File;
use crate::mm::PageRef;
use crate::sync::{SpinLock, WaitMode};
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use dock2uni_ext4::{Attributes, Volume};

/// Pages written back at a time: 2 MiB.
const BATCH: usize = 512;
/// Time after which changes are durable unasked.
const INTERVAL: u64 = 5 * crate::time::SECOND;

/// Volumes that are written to, for [`clean`].
pub(super) static MOUNTED: SpinLock<Vec<Weak<Ext4>>> = SpinLock::new(Vec::new());

/// Has some flusher make pages clean, and waits until it has. False if none does in time: its way may
/// be barred by whoever is short of memory.
pub(super) fn clean() -> bool {
    const PATIENCE: u64 = 2 * crate::time::SECOND;
    let mut at = 0;
    loop {
        let Some(volume) = MOUNTED.lock().get(at).cloned() else { return false };
        at += 1;
        let Some(fs) = volume.upgrade().filter(|fs| fs.quota.used() > 0) else { continue };
        let before = fs.cleaned.load(Relaxed);
        fs.pressed.store(true, Relaxed);
        fs.hurry();
        let deadline = crate::time::now_ns() + PATIENCE;
        let moved = || (fs.cleaned.load(Relaxed) != before).then_some(());
        if fs.progress.wait(WaitMode::Uninterruptible, Some(deadline), moved).is_ok() {
            return true;
        }
    }
}

impl Ext4 {
    /// The thread that writes back.
    pub(super) fn flusher(&self) {
        while !self.closed.load(Relaxed) {
            let deadline = crate::time::now_ns() + INTERVAL;
            let hurry = || self.hurry.swap(false, Relaxed).then_some(());
            let hurried = self.work.wait(WaitMode::Uninterruptible, Some(deadline), hurry).is_ok();
            self.reap();
            // Space that is wanted back doesn't make anything durable sooner.
            if hurried && !self.pressed.swap(false, Relaxed) && !self.is_crowded() {
                continue;
            }
            // Failures are kept for those who ask by fsync(2), and said once.
            if self.sync_all().is_ok() {
                let _ = self.with(|volume| match volume.journal_is_full() {
                    true => volume.checkpoint(),
                    false => Ok(()),
                });
            }
        }
    }

    /// Wakes the flusher. Callable with spinning locks held.
    pub(super) fn hurry(&self) {
        self.hurry.store(true, Relaxed);
        self.work.wake_all(Events::IN);
    }

    /// Whether changes are refused.
    pub(super) fn is_read_only(&self) -> bool {
        self.complained.load(Relaxed) || self.device.read_only() || self.closed.load(Relaxed)
    }

    /// Whether more pages wait to be written back than should.
    pub(super) fn is_crowded(&self) -> bool {
        self.quota.used() > self.crowd
    }

    /// Lets a writer write back its own file when too much waits.
    pub(super) fn throttle(&self, inode: &Ext4Inode, contents: &Contents) -> Result<()> {
        if !self.is_crowded() {
            return Ok(());
        }
        self.hurry();
        let _flush = contents.flush.lock();
        inode.write_range(contents, 0, u64::MAX, false)
    }

    /// Frees inodes that nobody uses any more.
    pub(super) fn reap(&self) {
        // Those without names have nothing to be written back.
        let mut dead = Vec::new();
        self.dirty.lock().retain(|inode| {
            let named = inode.meta.lock().nlink > 0;
            if !named {
                dead.push(inode.clone());
            }
            named
        });
        for inode in dead {
            inode.queued.store(false, Relaxed);
            if inode.contents().is_ok_and(|contents| contents.cache.is_dirty())
                && alloc::sync::Arc::strong_count(&inode) > 1
            {
                inode.enqueue();
            }
        }
        let unused = core::mem::take(&mut *self.unused.lock());
        for ino in unused {
            // A failure was said; e2fsck or the next mount finds it in the list of orphans.
            let _ = self.with(|volume| volume.release(ino));
        }
    }

    /// Makes room for a page of a file that may have none yet. True if it has.
    pub(super) fn make_room(&self, ino: u32, block: u32) -> Result<bool> {
        if self.with(|volume| volume.map(ino, block, 1))?.start.is_some() {
            return Ok(true);
        }
        let before = self.quota.limit();
        self.reap();
        self.with(|_| Ok(()))?;
        if self.quota.limit() > before {
            return Ok(false);
        }
        // Programs that meet it rarely say which device they mean.
        if !self.filled.swap(true, Relaxed) {
            crate::error!("ext4 on {}: the volume is full", self.device.name());
        }
        Err(Errno::ENOSPC)
    }

    /// Writes back everything, and makes it durable.
    pub(super) fn sync_all(&self) -> Result<()> {
        let queue = core::mem::take(&mut *self.dirty.lock());
        let mut result = Ok(());
        for inode in queue {
            inode.queued.store(false, Relaxed);
            if let Err(error) = inode.write_back() {
                inode.lost.record(error);
                result = Err(error);
            }
        }
        self.reap();
        self.commit()?;
        result
    }

    /// Makes what the volume knows durable, and what was written to its blocks.
    fn commit(&self) -> Result<()> {
        if self.device.read_only() {
            return Ok(());
        }
        if !self.with(Volume::commit)? {
            self.device.flush()?;
        }
        Ok(())
    }
}

impl Ext4Inode {
    /// Writes back contents and attributes.
    pub(super) fn write_back(&self) -> Result<()> {
        if let Body::File(contents) = &self.body {
            let _flush = contents.flush.lock();
            self.write_range(contents, 0, u64::MAX, false)?;
        }
        match self.take_stale() {
            Some(change) => self.set(&[], &change),
            None => Ok(()),
        }
    }

    fn set(&self, runs: &[(u32, u32)], change: &Attributes) -> Result<()> {
        self.fs.with(|volume| {
            let found = volume.finish(self.ino, runs, change)?;
            self.changed(volume, &found);
            Ok(())
        })
    }

    /// fsync(2), or fdatasync(2), which tell each open file of each error once.
    pub(super) fn synchronize(&self, file: &File, data_only: bool) -> Result<()> {
        let mut written = Ok(());
        if let Body::File(contents) = &self.body {
            let _flush = contents.flush.lock();
            written = self.write_range(contents, 0, u64::MAX, false);
        }
        if !data_only && let Some(change) = self.take_stale() {
            self.set(&[], &change)?;
        }
        // What failed just now is among it.
        if let Some(error) = self.lost.hear(&file.write_errors) {
            return Err(error);
        }
        written?;
        if self.fs.device.read_only() {
            return Ok(());
        }
        // Changes of other files may be durable later.
        let last = self.changed_in.load(Relaxed);
        let flushed = self.fs.with(|volume| {
            let pending = last.wrapping_sub(volume.committed()) as i32 > 0;
            if pending { volume.commit() } else { Ok(false) }
        })?;
        if flushed { Ok(()) } else { self.fs.device.flush() }
    }

    /// Writes back the pages `from..to`. `flush` is held, and `writing` if `alone`.
    pub(super) fn write_range(
        &self,
        contents: &Contents,
        from: u64,
        to: u64,
        alone: bool,
    ) -> Result<()> {
        let mut from = from;
        loop {
            let writing = (!alone).then(|| contents.writing.lock());
            let pages = contents.cache.take_dirty(from, to, BATCH)?;
            drop(writing);
            let Some(last) = pages.last() else { return Ok(()) };
            from = last.0 + 1;
            let count = pages.len();
            let size = contents.cache.len();
            let result = self.write_pages(&pages, size);
            contents.cache.uncharge_written(count);
            drop(pages);
            self.fs.cleaned.fetch_add(1, Relaxed);
            self.fs.progress.wake_all(Events::IN);
            result.inspect_err(|&error| self.lost.record(error))?;
            if count < BATCH {
                return Ok(());
            }
        }
    }

    /// Writes pages to blocks of the volume, which get their place now if they have none.
    fn write_pages(&self, pages: &[(u64, PageRef)], size: u64) -> Result<()> {
        let mut new = Vec::new();
        let mut rest = pages;
        while let Some(&(index, _)) = rest.first() {
            let run = rest.iter().zip(index..).take_while(|(page, index)| page.0 == *index).count();
            let block = u32::try_from(index).map_err(|_| Errno::EFBIG)?;
            let found = self.fs.with(|volume| volume.prepare(self.ino, block, run as u32, true))?;
            let start = found.start.ok_or(Errno::EIO)?;
            let len = (found.len as usize).min(run);
            let (now, later) = rest.split_at(len);
            let frames: Vec<PageRef> = now.iter().map(|(_, page)| page.clone()).collect();
            self.fs.device.write_pages(start * PAGE_SIZE as u64, &frames)?;
            if !found.written {
                new.push((block, len as u32));
            }
            rest = later;
        }
        let known = self.meta.lock().size;
        let end = pages.last().map_or(0, |&(index, _)| (index + 1) * PAGE_SIZE as u64).min(size);
        if new.is_empty() && end <= known {
            return Ok(());
        }
        let mut change = self.take_stale().unwrap_or_default();
        change.size = Some(end.max(known));
        self.set(&new, &change)
    }
}
