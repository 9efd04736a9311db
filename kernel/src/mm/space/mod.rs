//! Address spaces.
//!
//! # Locks
//! `maps` (sleeps; faults take it for reading), then `pages` (the page table; spinning), then a
//! cache's own lock. While `maps` is held for writing nothing waits for another lock that sleeps:
//! mappings that go are dropped after it, so that files are closed with nothing held.

mod access;
mod advise;
mod fault;
mod fork;
mod layout;
mod map;
mod maps;
mod remap;
mod report;
mod rss;
mod vma;

#[cfg(test)]
mod tests;

pub use access::FutexKey;
pub use fault::FaultError;
pub use layout::Layout;
pub use map::{FileMapping, MapFlags};
pub use maps::MAX_MAPS;
pub use report::{Advice, MapInfo, Smaps, Stats};
pub use rss::Rss;
pub use vma::{Prot, VmFlags};

use super::pagetable::PageTable;
use super::{PageCache, PageRef, tlb};
use crate::arch::PAGE_SIZE;
use crate::errno::Result;
use crate::live::{Kind, Live};
use crate::sync::{RwMutex, SpinLock};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};
use maps::Maps;
use rss::Pages;

/// Resource limits that address spaces enforce (getrlimit(2)), in bytes.
pub struct Limits {
    /// `RLIMIT_AS`
    pub address_space: AtomicU64,
    /// `RLIMIT_DATA`
    pub data: AtomicU64,
    /// `RLIMIT_STACK`
    pub stack: AtomicU64,
    /// `RLIMIT_MEMLOCK`
    pub locked: AtomicU64,
}

impl Limits {
    const fn new() -> Limits {
        Limits {
            address_space: AtomicU64::new(u64::MAX),
            data: AtomicU64::new(u64::MAX),
            stack: AtomicU64::new(8 << 20),
            locked: AtomicU64::new(8 << 20),
        }
    }

    fn copy_from(&self, other: &Limits) {
        for (to, from) in [
            (&self.address_space, &other.address_space),
            (&self.data, &other.data),
            (&self.stack, &other.stack),
            (&self.locked, &other.locked),
        ] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn get(limit: &AtomicU64) -> usize {
        usize::try_from(limit.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

/// The memory of a process (or of several that share it by vfork or `CLONE_VM`).
pub struct AddressSpace {
    id: u64,
    _live: Live,
    this: Weak<AddressSpace>,
    maps: RwMutex<Maps>,
    pages: SpinLock<Pages>,
    /// The root's frame; the same as in `pages`, for switching without its lock.
    root: PageRef,
    layout: Layout,
    /// Limits that apply. The process copies its own here at exec, fork and setrlimit(2).
    pub limits: Limits,
}

impl AddressSpace {
    /// An empty address space with places chosen at random.
    pub fn new() -> Result<Arc<AddressSpace>> {
        Self::with_layout(Layout::random())
    }

    /// An empty address space with these places for stack and mappings.
    pub fn with_layout(layout: Layout) -> Result<Arc<AddressSpace>> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let table = PageTable::new()?;
        let root = table.root().clone();
        Ok(Arc::new_cyclic(|this| AddressSpace {
            _live: Live::new(Kind::Spaces),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            this: this.clone(),
            maps: RwMutex::new(Maps::new()),
            pages: SpinLock::new(Pages { table, rss: Rss::default() }),
            root,
            layout,
            limits: Limits::new(),
        }))
    }

    /// A number no other address space has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Takes over a process's resource limits: `limit` gives the soft limit of a resource
    /// (`RLIMIT_*`).
    pub fn take_limits(&self, limit: impl Fn(u32) -> u64) {
        use linux_raw_sys::general::{RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK};
        for (resource, to) in [
            (RLIMIT_AS, &self.limits.address_space),
            (RLIMIT_DATA, &self.limits.data),
            (RLIMIT_STACK, &self.limits.stack),
            (RLIMIT_MEMLOCK, &self.limits.locked),
        ] {
            to.store(limit(resource), Ordering::Relaxed);
        }
    }

    /// Where stack, program and mappings go.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes this CPU translate by this address space. Preemption is off (the scheduler calls it).
    pub fn activate(&self) {
        tlb::load(Some(&self.root));
    }

    /// Makes this CPU translate by the kernel's own root: before the last reference to an address
    /// space goes.
    pub fn deactivate() {
        let guard = crate::sync::preempt_disable();
        tlb::load(None);
        drop(guard);
    }

    /// Takes pages of a cache out of the page table; private copies too if `copies`.
    pub(super) fn unmap_cached(&self, cache: &PageCache, start: u64, end: u64, copies: bool) {
        let maps = self.maps.read();
        for (from, to) in cached_ranges(&maps, cache, start, end) {
            let private_too = |_: u64| true;
            let cached_only = |entry: u64| entry & super::pagetable::ANON == 0;
            let which: &dyn Fn(u64) -> bool = if copies { &private_too } else { &cached_only };
            // Fails only if not even the kernel's reserve has a frame for a table shared since
            // fork. The pages stay mapped then, with the content they had: stale, but nobody
            // else's.
            let _ = self.pages.lock().zap(from, to, Some(which));
        }
    }

    /// Takes pages of a cache that weren't used lately out of the page table. Returns how many.
    pub(super) fn age_cached(&self, cache: &PageCache) -> usize {
        let maps = self.maps.read();
        cached_ranges(&maps, cache, 0, u64::MAX)
            .map(|(from, to)| self.pages.lock().age(from, to))
            .sum()
    }
}

/// The address ranges at which the pages `start..end` of a cache are mapped.
fn cached_ranges(
    maps: &Maps,
    cache: &PageCache,
    start: u64,
    end: u64,
) -> impl Iterator<Item = (usize, usize)> {
    let cache: *const PageCache = cache;
    maps.iter().filter_map(move |vma| {
        let backing = vma.backing.as_ref().filter(|b| core::ptr::eq(&*b.cache, cache))?;
        let pages = (vma.len() / PAGE_SIZE) as u64;
        let first = start.max(backing.index) - backing.index;
        let last = end.saturating_sub(backing.index).min(pages);
        (first < last).then(|| {
            (vma.start + first as usize * PAGE_SIZE, vma.start + last as usize * PAGE_SIZE)
        })
    })
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // Pages are only where mappings are.
        let pages = self.pages.get_mut();
        for vma in self.maps.get_mut().iter() {
            pages.clear(vma.start, vma.end);
        }
    }
}
