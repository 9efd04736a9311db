//! Changing the length, punching holes, and finding data.

use super::slot::Slot;
use super::{MAX_LEN, PAGE, PageCache, index_of};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::mm::PageRef;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Pages taken out under one hold of the lock.
const BATCH: usize = 64;

impl PageCache {
    /// Sets the length; pages past it are unmapped everywhere and freed, the tail of the last one
    /// is zeroed.
    pub fn truncate(&self, len: u64) -> Result<()> {
        if len > MAX_LEN {
            return Err(Errno::EFBIG);
        }
        let _resize = self.resize.lock();
        let old = self.len();
        self.check_sealed_resize(old, len)?;
        if len > old {
            self.clear_tail();
            self.len.store(len, Ordering::Release);
            return Ok(());
        }
        if len < old {
            // What may fail comes first.
            self.zero_within(len, len.next_multiple_of(PAGE))?;
            self.len.store(len, Ordering::Release);
            self.remove_pages(len.div_ceil(PAGE), u64::MAX, true)?;
        }
        Ok(())
    }

    /// Makes `start..end` read as zeros and frees its whole pages; the length stays (fallocate
    /// `FALLOC_FL_PUNCH_HOLE`).
    pub fn punch_hole(&self, start: u64, end: u64) -> Result<()> {
        self.check_sealed_write(start, 0)?;
        let _resize = self.resize.lock();
        let end = end.min(self.len());
        if start >= end {
            return Ok(());
        }
        let (first, last) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        if first > last {
            return self.zero_within(start, end);
        }
        self.zero_within(start, first)?;
        self.zero_within(last, end)?;
        self.remove_pages(index_of(first), index_of(last), false)
    }

    /// Drops the pages `first..last`, to be read again from the backing. For caches that are
    /// written back.
    pub fn discard(&self, first: u64, last: u64) -> Result<()> {
        let _resize = self.resize.lock();
        self.remove_pages(first, last, false)
    }

    /// Allocates the pages of `start..end` (fallocate); the length stays. ENOSPC if they don't fit.
    pub fn allocate(&self, start: u64, end: u64) -> Result<()> {
        for index in index_of(start)..end.min(MAX_LEN).div_ceil(PAGE) {
            self.get_page(index, true)?;
        }
        Ok(())
    }

    /// The first offset from `offset` on that has data; `None` if only a hole follows
    /// (`SEEK_DATA`).
    pub fn seek_data(&self, offset: u64) -> Option<u64> {
        let len = self.len();
        if offset >= len {
            return None;
        }
        let inner = self.inner.lock();
        let mut index = index_of(offset);
        loop {
            let present = inner.tree.next(index);
            let found = match present {
                Some((at, _)) if at > index && index < inner.backed => index,
                Some((at, value)) if Slot::from_value(value).pfn().is_none() => {
                    index = at + 1;
                    continue;
                }
                Some((at, _)) => at,
                None if index < inner.backed => index,
                None => return None,
            };
            let at = (found * PAGE).max(offset);
            return (at < len).then_some(at);
        }
    }

    /// The first offset from `offset` on that lies in a hole; the end of the object counts as one
    /// (`SEEK_HOLE`).
    pub fn seek_hole(&self, offset: u64) -> Option<u64> {
        let len = self.len();
        if offset >= len {
            return None;
        }
        let inner = self.inner.lock();
        let mut index = index_of(offset);
        while index * PAGE < len {
            let data = match inner.tree.get(index).map(Slot::from_value) {
                Some(slot) => slot.pfn().is_some(),
                None => index < inner.backed,
            };
            if !data {
                return Some((index * PAGE).max(offset));
            }
            index += 1;
        }
        Some(len)
    }

    /// Zeroes the part of the last page past the end, which writable mappings may have touched. For
    /// extensions.
    pub(super) fn clear_tail(&self) {
        let len = self.len();
        let within = (len % PAGE) as usize;
        if within != 0
            && self.written_by_mapping.load(Ordering::Relaxed)
            && let Some(page) = self.peek(index_of(len), true)
        {
            page.zero(within, PAGE_SIZE - within);
        }
    }

    /// Zeroes `start..end`, which lies in one page.
    fn zero_within(&self, start: u64, end: u64) -> Result<()> {
        if start == end || self.reads_as_zeros(index_of(start)) {
            return Ok(());
        }
        let page = self.get_page(index_of(start), true)?;
        page.zero((start % PAGE) as usize, (end - start) as usize);
        Ok(())
    }

    fn reads_as_zeros(&self, index: u64) -> bool {
        let inner = self.inner.lock();
        match inner.tree.get(index).map(Slot::from_value) {
            Some(slot) => slot.pfn().is_none(),
            None => index >= inner.backed,
        }
    }

    /// Takes the pages `start..end` out. At the end of the object (`cut`) their backing is lost
    /// too, elsewhere holes hide it.
    fn remove_pages(&self, start: u64, end: u64, cut: bool) -> Result<()> {
        let mut done = start;
        let mut result = Ok(());
        let lasting = self.pager.as_ref().is_some_and(|pager| !pager.writes_back());
        self.inner.lock().generation += u64::from(!lasting);
        if !cut && lasting {
            // Holes first: they need memory, and with all of them in place the rest can't fail.
            let covered = end.min(self.inner.lock().backed);
            let mut index = start;
            while index < covered && result.is_ok() {
                let mut inner = self.inner.lock();
                for index in index..covered.min(index + BATCH as u64) {
                    if inner.tree.get(index).is_none() {
                        result = inner.tree.insert(index, Slot::HOLE.value()).map(|_| ());
                    }
                }
                index += BATCH as u64;
            }
        }
        result?;
        loop {
            let mut removed: Vec<PageRef> = Vec::new();
            removed.try_reserve(BATCH).map_err(|_| Errno::ENOMEM)?;
            {
                let mut inner = self.inner.lock();
                if cut && lasting {
                    inner.backed = inner.backed.min(start);
                }
                let mut steps = 0;
                while steps < BATCH {
                    let Some((index, value)) = inner.tree.next(done).filter(|&(at, _)| at < end)
                    else {
                        break;
                    };
                    done = index + 1;
                    steps += 1;
                    if !cut && lasting && index < inner.backed {
                        inner.tree.update(index, Slot::HOLE.value());
                    } else {
                        inner.tree.remove(index);
                    }
                    removed.extend(self.forget(&mut inner, Slot::from_value(value)));
                }
                if steps == 0 {
                    break;
                }
            }
            // The frames must outlive the mappings: they go when `removed` does.
            if self.is_mapped() {
                self.unmap(start, done, true);
            }
        }
        if self.is_mapped() {
            // Private copies of pages that the cache never held.
            self.unmap(start, end, true);
        }
        Ok(())
    }
}
