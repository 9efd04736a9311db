//! read(2) and write(2) on a page cache.

use super::slot::Slot;
use super::{Found, MAX_LEN, PAGE, PageCache, index_of};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::io::{IoDst, IoSrc};
use crate::mm::PageRef;
use core::sync::atomic::Ordering;

/// Pages that a read looks up at once.
const BATCH: usize = 16;

impl PageCache {
    /// Reads up to the end of the object; returns how many bytes.
    pub fn read_at(&self, offset: u64, dst: &mut IoDst<'_>) -> Result<usize> {
        let mut at = offset;
        let end = self.len().min(offset.saturating_add(dst.remaining() as u64));
        let mut pages = [const { None }; BATCH];
        while at < end {
            let index = index_of(at);
            let mut found = self.gather(index, index_of(end - 1) + 1, &mut pages);
            if found == 0 {
                match self.readable(index) {
                    Ok(page) => pages[0] = page,
                    Err(errno) if at == offset => return Err(errno),
                    Err(_) => break,
                }
                found = 1;
            }
            for page in &mut pages[..found] {
                let within = (at % PAGE) as usize;
                let want = (PAGE_SIZE - within).min((end - at) as usize);
                let moved = match page.take() {
                    Some(page) => dst.write(bytes(&page, within, want)),
                    None => dst.zero(want),
                };
                match moved {
                    Ok(moved) => at += moved as u64,
                    Err(errno) if at == offset => return Err(errno),
                    Err(_) => {}
                }
                // A short move met a page that can't be written.
                if moved != Ok(want) {
                    return Ok((at - offset) as usize);
                }
            }
        }
        Ok((at - offset) as usize)
    }

    /// Puts those of the pages `index..end` into `pages` that follow each other without a gap and can
    /// be read as they are, all under one lock; returns how many.
    fn gather(&self, index: u64, end: u64, pages: &mut [Option<PageRef>; BATCH]) -> usize {
        let mut found = 0;
        let end = end.min(index + BATCH as u64);
        self.inner.lock().tree.range(index, end, &mut |at, value| {
            let slot = Slot::from_value(value);
            // Whoever uses a page first says so: that is for the slow way.
            let as_it_is = at == index + found as u64 && slot.is_used() && !slot.is_unchecked();
            if as_it_is && let Some(page) = slot.page() {
                pages[found] = Some(page);
                found += 1;
            }
        });
        found
    }

    /// Writes, growing the object; ENOSPC if memory for it is exhausted. Calls that may grow it
    /// must be serialised by the caller.
    pub fn write_at(&self, offset: u64, src: &mut IoSrc<'_>) -> Result<usize> {
        let total = (src.remaining() as u64).min(MAX_LEN.saturating_sub(offset));
        if total == 0 {
            return if src.remaining() == 0 { Ok(0) } else { Err(Errno::EFBIG) };
        }
        let total = self.check_sealed_write(offset, total)?;
        if offset > self.len() {
            self.clear_tail();
        }
        let mut at = offset;
        let end = offset + total;
        while at < end {
            let within = (at % PAGE) as usize;
            let want = (PAGE_SIZE - within).min((end - at) as usize);
            match self.write_page(index_of(at), within, want, src) {
                Ok(0) => break,
                Ok(moved) => {
                    at += moved as u64;
                    self.len.fetch_max(at, Ordering::AcqRel);
                    if moved < want {
                        break;
                    }
                }
                Err(errno) if at == offset => return Err(errno),
                Err(_) => break,
            }
        }
        Ok((at - offset) as usize)
    }

    /// The page at `index` for reading; `None` for a hole.
    fn readable(&self, index: u64) -> Result<Option<PageRef>> {
        loop {
            match self.find(index, false) {
                Found::Page(page) | Found::Clean(page) => return Ok(Some(page)),
                Found::Hole => return Ok(None),
                Found::Unread => self.read_in(index)?,
            }
        }
    }

    fn write_page(
        &self,
        index: u64,
        within: usize,
        want: usize,
        src: &mut IoSrc<'_>,
    ) -> Result<usize> {
        let fresh = match self.find(index, true) {
            Found::Page(page) => return src.read(bytes_mut(&page, within, want)),
            Found::Hole => true,
            Found::Unread => want == PAGE_SIZE || index >= self.len().div_ceil(PAGE),
            Found::Clean(_) => false,
        };
        if !fresh {
            let page = self.get_page(index, true)?;
            return src.read(bytes_mut(&page, within, want));
        }
        // Room comes first: what has been read of the source can't be put back.
        let force = match &self.quota {
            Some(quota) if quota.used() >= quota.limit() => self.make_room(index)?,
            _ => false,
        };
        // Nothing of the old content stays: fill a new page before anybody can see it.
        let page = PageRef::alloc_file(false)?;
        page.zero(0, within);
        let moved = src.read(bytes_mut(&page, within, want))?;
        page.zero(within + moved, PAGE_SIZE - within - moved);
        if moved < want && want == PAGE_SIZE && index < self.inner.lock().backed {
            // A fault cut a page short whose backing was not read: merge with what is there.
            let whole = self.get_page(index, true)?;
            whole.write(within, bytes(&page, within, moved));
        } else if !self.insert_new(index, &page, force)? {
            let current = self.get_page(index, true)?;
            current.write(within, bytes(&page, within, moved));
        }
        Ok(moved)
    }
}

impl PageCache {
    /// Adds a page of its own where there is none, making room for it if need be.
    fn insert_new(&self, index: u64, page: &PageRef, force: bool) -> Result<bool> {
        match self.insert_own(index, page, force) {
            Err(Errno::ENOSPC) => {
                let force = self.make_room(index)?;
                self.insert_own(index, page, force)
            }
            result => result,
        }
    }
}

/// Bytes of a cached page.
fn bytes(page: &PageRef, within: usize, len: usize) -> &[u8] {
    assert!(within <= PAGE_SIZE && len <= PAGE_SIZE - within);
    // SAFETY: inside the frame, kept by `page`. An application that maps the page may change it
    // meanwhile; the slice is only ever the source of one copy, for which any mix of old and new
    // bytes is right.
    unsafe { core::slice::from_raw_parts(page.as_ptr().add(within), len) }
}

/// Bytes of a cached page, to be written.
#[expect(clippy::mut_from_ref, reason = "a PageRef is a handle on shared memory, not its owner")]
fn bytes_mut(page: &PageRef, within: usize, len: usize) -> &mut [u8] {
    assert!(within <= PAGE_SIZE && len <= PAGE_SIZE - within);
    // SAFETY: as in `bytes`: the slice is only ever the destination of one copy.
    unsafe { core::slice::from_raw_parts_mut(page.as_ptr().add(within), len) }
}
