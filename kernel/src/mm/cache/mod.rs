//! The page cache: one object type for file contents, tmpfs files, shared memory.

use super::PageRef;
use crate::errno::Result;
use crate::io::{IoDst, IoSrc};
use alloc::sync::Arc;

/// Supplies the pages of a [`PageCache`] that is backed by something.
pub trait Pager: Send + Sync {
    /// The page at `index` (file offset / 4096), filled; bytes past the end of the backing are zero. May sleep.
    /// The frame may lie in place (boot module in RAM) or be newly allocated.
    fn read_page(&self, index: u64) -> Result<PageRef>;
}

/// Cached pages of one file or memory object. Shared by read(2), write(2) and every mapping, so all see one content.
pub struct PageCache(());

impl PageCache {
    /// Memory without backing: absent pages read as zero (tmpfs, memfd, shared anonymous memory).
    pub fn anonymous(_len: u64) -> Arc<PageCache> {
        Arc::new(PageCache(()))
    }
    /// Cache over a backing of `len` bytes. Pages once written belong to the cache and are never dropped; clean ones
    /// may be reclaimed and read again.
    pub fn backed(_len: u64, _pager: Arc<dyn Pager>) -> Arc<PageCache> {
        Arc::new(PageCache(()))
    }
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        0
    }
    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads up to the end of the object; returns how many bytes.
    pub fn read_at(&self, _offset: u64, _dst: &mut IoDst<'_>) -> Result<usize> {
        Ok(0)
    }
    /// Writes, growing the object; ENOSPC if memory for it is exhausted.
    pub fn write_at(&self, _offset: u64, _src: &mut IoSrc<'_>) -> Result<usize> {
        Ok(0)
    }
    /// Sets the length; pages past it are unmapped everywhere and freed, the tail of the last one is zeroed.
    pub fn truncate(&self, _len: u64) -> Result<()> {
        Ok(())
    }
    /// The page at `index`, read in or created. `write` makes it the cache's own (copied up from a clean in-place frame).
    pub fn get_page(&self, _index: u64, _write: bool) -> Result<PageRef> {
        Err(crate::Errno::ENOMEM)
    }
}
