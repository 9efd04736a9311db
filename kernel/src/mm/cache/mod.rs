//! The page cache: one object type for file contents, tmpfs files, shared memory.
//!
//! # Invariants
//! - A page is *clean* (equal to its backing, may be dropped and read again) or the cache's *own*
//!   (the only copy).
//! - A frame of a boot module is never written: the first write copies it up, and mappings of the
//!   old frame go.
//! - Whoever removes or replaces a page does so first and then removes it from page tables; whoever
//!   maps a page looks
//!   it up under the page table's lock. So no page table keeps a page that the cache has given up.
//!
//! # Locks
//! `resize` (sleeps), then the lock of a page table, then a cache's `inner`.

mod evict;
mod io;
mod mapped;
mod quota;
mod radix;
mod resize;
mod seal;
mod slot;
mod writeback;

#[cfg(test)]
mod tests;

pub use evict::{age_mappings, shrink};
pub use quota::{Quota, no_room};
pub use seal::Seals;

use super::PageRef;
use crate::arch::{PAGE_SHIFT, PAGE_SIZE};
use crate::errno::{Errno, Result};
use crate::sync::{Mutex, SpinLock};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use mapped::Mappings;
use radix::Radix;
use slot::Slot;

const PAGE: u64 = PAGE_SIZE as u64;
/// Most pages one read-ahead asks for: 128 KiB.
const READ_AHEAD_MAX: u64 = 32;
/// First read-ahead of a stream.
const READ_AHEAD_MIN: u64 = 4;
/// Pages mapped together when one of them is faulted in; a power of two.
pub const AROUND: u64 = 16;
/// Largest object: offsets are signed 64-bit numbers.
pub const MAX_LEN: u64 = i64::MAX as u64 & !(PAGE - 1);

/// Supplies the pages of a [`PageCache`] that is backed by something.
pub trait Pager: Send + Sync {
    /// The page at `index` (file offset / 4096), filled; bytes past the end of the backing are
    /// zero. May sleep. The frame may lie in place (boot module in RAM) or be newly allocated.
    fn read_page(&self, index: u64) -> Result<PageRef>;

    /// Reads the page at `index` and up to `count - 1` pages after it, as far as that is cheap (one
    /// device request). Calls `sink` with each page, in any order. Only failing to read the first
    /// page is an error.
    fn read_pages(
        &self,
        index: u64,
        count: usize,
        sink: &mut dyn FnMut(u64, PageRef),
    ) -> Result<()> {
        let _ = count;
        sink(index, self.read_page(index)?);
        Ok(())
    }

    /// Whether pages that are read ahead are handed over as they come from the device, so that
    /// [`check`](Pager::check) must be asked before anybody sees one. The page that was asked for
    /// has been checked.
    fn checks(&self) -> bool {
        false
    }

    /// Checks a page that was read ahead. EIO if it is damaged. May sleep.
    fn check(&self, _index: u64, _page: &PageRef) -> Result<()> {
        Ok(())
    }

    /// Whether pages lie in memory anyway, so that reading one costs next to nothing.
    fn in_place(&self) -> bool {
        false
    }

    /// Whether the cache's own pages are written back and then clean again, so that any page may be
    /// read, at any time: one that the backing lacks reads as zeros.
    fn writes_back(&self) -> bool {
        false
    }

    /// The page at `index` is to become the cache's own, but the quota is exhausted. Makes room, or
    /// says that this page needs none because the backing has a place for it (true). May sleep.
    fn make_room(&self, _index: u64) -> Result<bool> {
        Err(Errno::ENOSPC)
    }

    /// The cache has a page of its own now. Called with spinning locks held.
    fn dirtied(&self) {}
}

/// Cached pages of one file or memory object. Shared by read(2), write(2) and every mapping, so all
/// see one content.
pub struct PageCache {
    id: u64,
    this: Weak<PageCache>,
    len: AtomicU64,
    pager: Option<Arc<dyn Pager>>,
    quota: Option<Arc<Quota>>,
    inner: SpinLock<Inner>,
    mappings: Mappings,
    /// Serialises changes of the length that remove pages.
    resize: Mutex<()>,
    /// Whether a writable shared mapping ever existed: then bytes past the end may not be zero.
    written_by_mapping: AtomicBool,
    /// Shared mappings that may be written, ever.
    writers: AtomicUsize,
    /// Whether the reclaim list knows this cache.
    enrolled: AtomicBool,
    /// What may not be done any more.
    seals: SpinLock<Seals>,
}

struct Inner {
    tree: Radix,
    /// Pages from this index on have no backing.
    backed: u64,
    /// Own pages.
    own: usize,
    /// Pages of either kind, whose frames were allocated.
    counted: usize,
    /// Where reclaim goes on.
    hand: u64,
    /// Page at which a sequential reader would miss next.
    expected: u64,
    /// Pages of its next read-ahead.
    window: u64,
    /// Raised when pages that were being read may have become old.
    generation: u64,
}

/// What a look at a page found.
enum Found {
    Page(PageRef),
    /// There, but it is a clean page in place that must not be written.
    Clean(PageRef),
    /// No page, and no backing: reads as zeros.
    Hole,
    /// No page yet, or one that must be checked; the backing has it.
    Unread,
}

static CACHED: AtomicUsize = AtomicUsize::new(0);
static SHARED: AtomicUsize = AtomicUsize::new(0);

/// Whether so few pages of files are in memory that programs would spend their time on reading them
/// again: their own memory may not take these as well. A 64th of memory, 4 MiB at most.
pub fn is_scarce() -> bool {
    let (cached, shared) = cached_frames();
    cached.saturating_sub(shared) <= (super::frame::total_frames() / 64).min(1024)
}

/// Frames in page caches, and those of them that belong to objects without backing (tmpfs, shared
/// memory).
pub fn cached_frames() -> (usize, usize) {
    (CACHED.load(Ordering::Relaxed), SHARED.load(Ordering::Relaxed))
}

impl PageCache {
    /// Memory without backing: absent pages read as zero (tmpfs, memfd, shared anonymous memory).
    pub fn anonymous(len: u64) -> Arc<PageCache> {
        Self::new(len, None, None)
    }

    /// As [`anonymous`](PageCache::anonymous), with pages counted against a quota.
    pub fn anonymous_in(len: u64, quota: Arc<Quota>) -> Arc<PageCache> {
        Self::new(len, None, Some(quota))
    }

    /// Cache over a backing of `len` bytes. Pages once written belong to the cache and are never
    /// dropped; clean ones may be reclaimed and read again.
    pub fn backed(len: u64, pager: Arc<dyn Pager>) -> Arc<PageCache> {
        Self::new(len, Some(pager), None)
    }

    /// As [`backed`](PageCache::backed), with the cache's own pages counted against a quota.
    pub fn backed_in(len: u64, pager: Arc<dyn Pager>, quota: Arc<Quota>) -> Arc<PageCache> {
        Self::new(len, Some(pager), Some(quota))
    }

    fn new(len: u64, pager: Option<Arc<dyn Pager>>, quota: Option<Arc<Quota>>) -> Arc<PageCache> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let len = len.min(MAX_LEN);
        let backed = match &pager {
            Some(pager) if pager.writes_back() => u64::MAX,
            Some(_) => len.div_ceil(PAGE),
            None => 0,
        };
        Arc::new_cyclic(|this| PageCache {
            this: this.clone(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            len: AtomicU64::new(len),
            pager,
            quota,
            inner: SpinLock::new(Inner {
                tree: Radix::new(),
                backed,
                own: 0,
                counted: 0,
                hand: 0,
                expected: 0,
                window: READ_AHEAD_MIN,
                generation: 0,
            }),
            mappings: Mappings::new(),
            resize: Mutex::new(()),
            written_by_mapping: AtomicBool::new(false),
            writers: AtomicUsize::new(0),
            enrolled: AtomicBool::new(false),
            seals: SpinLock::new(Seals::SEAL),
        })
    }

    /// A number no other cache has, for keys.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a backing to read pages from.
    pub fn is_backed(&self) -> bool {
        self.pager.is_some()
    }

    /// Pages that belong to the cache alone: what tmpfs reports as blocks of a file.
    pub fn own_pages(&self) -> usize {
        self.inner.lock().own
    }

    /// The page at `index`, read in or created. `write` makes it the cache's own (copied up from a
    /// clean in-place frame). Doesn't look at the length. ENOSPC if memory for it is exhausted.
    pub fn get_page(&self, index: u64, write: bool) -> Result<PageRef> {
        let mut force = false;
        loop {
            let made = match self.find_with(index, write, force) {
                Found::Page(page) => return Ok(page),
                Found::Clean(page) if !page.is_pinned() => Err(Errno::ENOSPC),
                Found::Clean(page) => self.copy_up(index, page),
                Found::Hole => {
                    let page = PageRef::alloc_file(true)?;
                    self.insert_own(index, &page, force).map(|new| new.then_some(page))
                }
                Found::Unread => self.read_in(index).map(|()| None),
            };
            match made {
                Ok(Some(page)) => return Ok(page),
                Ok(None) => {}
                Err(Errno::ENOSPC) if !force => force = self.make_room(index)?,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// See [`Pager::make_room`].
    fn make_room(&self, index: u64) -> Result<bool> {
        match &self.pager {
            Some(pager) => pager.make_room(index),
            None => Err(Errno::ENOSPC),
        }
    }

    /// The page at `index` if it is there and, for `write`, may be written. Takes no time and never
    /// sleeps.
    pub fn peek(&self, index: u64, write: bool) -> Option<PageRef> {
        match self.find(index, write) {
            Found::Page(page) => Some(page),
            _ => None,
        }
    }

    /// Calls `visit` with the pages that are there in `start..end`, in order, with whether each may
    /// be written.
    pub fn peek_range(&self, start: u64, end: u64, mut visit: impl FnMut(u64, PageRef, bool)) {
        self.inner.lock().tree.range(start, end, &mut |index, value| {
            let slot = Slot::from_value(value);
            if !slot.is_unchecked()
                && let Some(page) = slot.page()
            {
                visit(index, page, slot.is_own());
            }
        });
    }

    fn find(&self, index: u64, write: bool) -> Found {
        self.find_with(index, write, false)
    }

    /// `force`: a page may be made the cache's own beyond the quota.
    fn find_with(&self, index: u64, write: bool, force: bool) -> Found {
        let mut inner = self.inner.lock();
        match inner.tree.get(index).map(Slot::from_value) {
            None if index < inner.backed => Found::Unread,
            None => Found::Hole,
            Some(slot) if slot.is_unchecked() => Found::Unread,
            Some(slot) => match slot.page() {
                None => Found::Hole,
                Some(page) if write && !slot.is_own() => {
                    if page.is_pinned() {
                        return Found::Clean(page);
                    }
                    // The frame is ours already: from now on it is not clean any more.
                    if self.charge(&mut inner, force).is_err() {
                        return Found::Clean(page);
                    }
                    inner.tree.update(index, slot.owned().used().value());
                    Found::Page(page)
                }
                Some(page) => {
                    if !slot.is_used() {
                        inner.tree.update(index, slot.used().value());
                    }
                    Found::Page(page)
                }
            },
        }
    }

    /// Replaces a clean page by an own copy; `None` if somebody else changed the page meanwhile.
    fn copy_up(&self, index: u64, clean: PageRef) -> Result<Option<PageRef>> {
        let own = PageRef::alloc_file(false)?;
        own.copy_from(&clean);
        {
            let mut inner = self.inner.lock();
            let current = inner.tree.get(index).map(Slot::from_value);
            if current.is_none_or(|slot| slot.is_own() || slot.pfn() != Some(clean.pfn())) {
                return Ok(None);
            }
            self.charge(&mut inner, false)?;
            // An update in place can't fail.
            inner.tree.update(index, Slot::of(own.clone()).owned().used().value());
            if clean.is_pinned() {
                self.count(&mut inner, 1);
            } else {
                // SAFETY: the slot's reference to the old page, which `update` has overwritten.
                drop(unsafe { PageRef::from_pfn(clean.pfn()) });
            }
        }
        self.unmap(index, index + 1, false);
        Ok(Some(own))
    }

    /// Adds an own page where there is none. False if somebody else was faster.
    fn insert_own(&self, index: u64, page: &PageRef, force: bool) -> Result<bool> {
        let mut inner = self.inner.lock();
        let current = inner.tree.get(index).map(Slot::from_value);
        if current.is_some_and(|slot| slot.pfn().is_some()) {
            return Ok(false);
        }
        self.charge(&mut inner, force)?;
        match inner.tree.insert(index, Slot::of(page.clone()).owned().used().value()) {
            Ok(_) => {
                self.count(&mut inner, 1);
                Ok(true)
            }
            Err(errno) => {
                self.uncharge(&mut inner, 1);
                // SAFETY: the reference that `Slot::of` took and nobody stored.
                drop(unsafe { PageRef::from_pfn(page.pfn()) });
                Err(if errno == Errno::ENOMEM { Errno::ENOSPC } else { errno })
            }
        }
    }

    /// Reads the page at `index` from the backing, and what read-ahead adds; or checks the one that
    /// was read ahead.
    fn read_in(&self, index: u64) -> Result<()> {
        let Some(pager) = &self.pager else { return Err(Errno::EIO) };
        if pager.checks() && self.check_in(&**pager, index)? {
            return Ok(());
        }
        if pager.in_place() {
            return self.read_in_place(&**pager, index);
        }
        super::reclaim::balance();
        let (count, generation) = {
            let mut inner = self.inner.lock();
            if index >= inner.backed {
                return Ok(());
            }
            inner.window = match index == inner.expected {
                true => (inner.window * 2).min(READ_AHEAD_MAX),
                false => READ_AHEAD_MIN,
            };
            let count = inner.window.min(inner.backed - index);
            inner.expected = index + count;
            (count, inner.generation)
        };
        let mut failed = Ok(());
        pager.read_pages(index, count as usize, &mut |at, page| {
            let unchecked = at != index && pager.checks();
            if let Err(errno) = self.insert_clean(at, page, generation, unchecked)
                && at == index
            {
                failed = Err(errno);
            }
        })?;
        failed
    }

    /// Has the page at `index` checked, if it is there and was not. False if it isn't there.
    fn check_in(&self, pager: &dyn Pager, index: u64) -> Result<bool> {
        let page = match self.inner.lock().tree.get(index).map(Slot::from_value) {
            Some(slot) if slot.is_unchecked() => slot.page(),
            other => return Ok(other.is_some()),
        };
        let Some(page) = page else { return Ok(false) };
        pager.check(index, &page)?;
        let mut inner = self.inner.lock();
        // Another page may be there by now; whoever asks looks again.
        if let Some(slot) = inner.tree.get(index).map(Slot::from_value)
            && slot.pfn() == Some(page.pfn())
        {
            inner.tree.update(index, slot.unchecked(false).value());
        }
        Ok(true)
    }

    /// Pages in place cost little to look up and much to fault in one by one: takes the whole group
    /// of the page, unless each must be checked.
    fn read_in_place(&self, pager: &dyn Pager, index: u64) -> Result<()> {
        self.insert_clean(index, pager.read_page(index)?, 0, false)?;
        if pager.checks() {
            return Ok(());
        }
        let first = index & !(AROUND - 1);
        for at in first..(first + AROUND).min(self.len().div_ceil(PAGE)) {
            if at != index
                && matches!(self.find(at, false), Found::Unread)
                && let Ok(page) = pager.read_page(at)
            {
                self.insert_clean(at, page, 0, false)?;
            }
        }
        Ok(())
    }

    fn insert_clean(
        &self,
        index: u64,
        page: PageRef,
        generation: u64,
        unchecked: bool,
    ) -> Result<()> {
        let reclaimable = !page.is_pinned();
        {
            let mut inner = self.inner.lock();
            // A truncation may have cut the backing since, or somebody else has read or written the
            // page.
            if index >= inner.backed
                || inner.tree.get(index).is_some()
                || inner.generation != generation
            {
                return Ok(());
            }
            let pfn = page.pfn();
            // As if used: what was read ahead stays until somebody may have come for it.
            let slot = Slot::of(page).unchecked(unchecked).used();
            if let Err(errno) = inner.tree.insert(index, slot.value()) {
                // SAFETY: the reference that `Slot::of` took and nobody stored.
                drop(unsafe { PageRef::from_pfn(pfn) });
                return Err(errno);
            }
            if reclaimable {
                self.count(&mut inner, 1);
            }
        }
        if reclaimable {
            self.enroll();
        }
        Ok(())
    }

    fn charge(&self, inner: &mut Inner, force: bool) -> Result<()> {
        if let Some(quota) = &self.quota {
            match quota.charge(1) {
                Err(_) if force => quota.charge_beyond(1),
                // What is full is a disk, or memory.
                Err(error) if self.pager.as_ref().is_some_and(|pager| pager.writes_back()) => {
                    return Err(error);
                }
                result => result.map_err(|_| no_room())?,
            }
        }
        inner.own += 1;
        if let Some(pager) = &self.pager {
            pager.dirtied();
        }
        Ok(())
    }

    fn uncharge(&self, inner: &mut Inner, pages: usize) {
        if let Some(quota) = &self.quota {
            quota.uncharge(pages as u64);
        }
        inner.own -= pages;
    }

    fn count(&self, inner: &mut Inner, change: isize) {
        inner.counted = inner.counted.wrapping_add_signed(change);
        CACHED.fetch_add(change as usize, Ordering::Relaxed);
        if self.pager.is_none() {
            SHARED.fetch_add(change as usize, Ordering::Relaxed);
        }
    }

    /// Takes a slot's page out of the books. The caller removed the slot.
    fn forget(&self, inner: &mut Inner, slot: Slot) -> Option<PageRef> {
        let pfn = slot.pfn()?;
        // SAFETY: the reference of a slot that has just left the tree.
        let page = unsafe { PageRef::from_pfn(pfn) };
        if slot.is_own() {
            self.uncharge(inner, 1);
        }
        if !page.is_pinned() {
            self.count(inner, -1);
        }
        Some(page)
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        self.withdraw();
        let inner = self.inner.get_mut();
        if let Some(quota) = &self.quota {
            quota.uncharge(inner.own as u64);
        }
        CACHED.fetch_sub(inner.counted, Ordering::Relaxed);
        if self.pager.is_none() {
            SHARED.fetch_sub(inner.counted, Ordering::Relaxed);
        }
        let mut batch = [0u32; 64];
        let mut count = 0;
        inner.tree.visit(&mut |value| {
            if let Some(pfn) = Slot::from_value(value).pfn() {
                batch[count] = pfn.get();
                count += 1;
            }
            if count == batch.len() {
                // SAFETY: each slot owned a reference, and the tree goes right after this.
                unsafe { super::frame::release(&mut batch) };
                count = 0;
            }
        });
        // SAFETY: as above.
        unsafe { super::frame::release(&mut batch[..count]) };
    }
}

/// Page index of a byte offset.
fn index_of(offset: u64) -> u64 {
    offset >> PAGE_SHIFT
}
