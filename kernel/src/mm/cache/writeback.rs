//! Writing pages back: from the cache's own to clean ones.

use super::slot::Slot;
use super::{PAGE, PageCache, index_of};
use crate::errno::{Errno, Result};
use crate::mm::PageRef;
use alloc::vec::Vec;

impl PageCache {
    /// Makes up to `max` of the cache's own pages from `from` to before `to` clean and returns
    /// them, in order, to be written to the backing. They are in nobody's page table any more, so
    /// that whoever changes one makes it the cache's own again. What lies past the end is zeroed.
    ///
    /// The caller excludes write(2) meanwhile, keeps the pages until they are written, and then
    /// takes them out of the quota.
    pub fn take_dirty(&self, from: u64, to: u64, max: usize) -> Result<Vec<(u64, PageRef)>> {
        let mut pages = Vec::new();
        {
            let mut inner = self.inner.lock();
            let mut at = from;
            pages.try_reserve_exact(max.min(inner.own)).map_err(|_| Errno::ENOMEM)?;
            while pages.len() < max && inner.own > 0 {
                let Some((index, value)) = inner.tree.next(at).filter(|&(index, _)| index < to)
                else {
                    break;
                };
                at = index + 1;
                let slot = Slot::from_value(value);
                if !slot.is_own() {
                    continue;
                }
                let Some(page) = slot.page() else { continue };
                inner.tree.update(index, slot.disowned().value());
                inner.own -= 1;
                pages.push((index, page));
            }
            inner.generation += 1;
        }
        let (Some(first), Some(last)) = (pages.first(), pages.last()) else { return Ok(pages) };
        self.enroll();
        if self.is_mapped() {
            self.unmap(first.0, last.0 + 1, false);
        }
        let len = self.len();
        if index_of(len) == last.0 && !len.is_multiple_of(PAGE) {
            last.1.zero((len % PAGE) as usize, (PAGE - len % PAGE) as usize);
        }
        Ok(pages)
    }

    /// Whether there are pages of the cache's own.
    pub fn is_dirty(&self) -> bool {
        self.inner.lock().own > 0
    }

    /// The quota that the cache's own pages count against.
    pub fn uncharge_written(&self, pages: usize) {
        if let Some(quota) = &self.quota {
            quota.uncharge(pages as u64);
        }
    }
}
