//! Which address spaces map a cache, and taking pages out of them.

use super::PageCache;
use crate::errno::{Errno, Result};
use crate::map::Sorted;
use crate::mm::space::AddressSpace;
use crate::sync::SpinLock;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Address spaces with at least one mapping of the cache, by their number.
pub struct Mappings(SpinLock<Sorted<u64, Entry>>);

struct Entry {
    space: Weak<AddressSpace>,
    mappings: usize,
}

impl Mappings {
    pub const fn new() -> Mappings {
        Mappings(SpinLock::new(Sorted::new()))
    }
}

impl PageCache {
    /// Whether a shared mapping that may be written, or at least made so, may begin: EPERM if that is
    /// sealed. It is noted already, since who seals looks at the number with the seals locked.
    pub fn begin_writing(&self) -> Result<()> {
        self.check_sealed_write(0, 0)?;
        self.written_by_mapping.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Notes a mapping in `space`. `writable` for a shared one that may ever be written.
    pub fn add_mapping(&self, id: u64, space: &Weak<AddressSpace>, writable: bool) -> Result<()> {
        let mut map = self.mappings.0.lock();
        if !map.contains_key(&id) {
            map.try_reserve().map_err(|_| Errno::ENOMEM)?;
        }
        let new = || Entry { space: space.clone(), mappings: 0 };
        map.get_or_insert_with(id, new).mappings += 1;
        self.writers.fetch_add(usize::from(writable), Ordering::SeqCst);
        Ok(())
    }

    /// Forgets one mapping of [`add_mapping`](PageCache::add_mapping).
    pub fn remove_mapping(&self, id: u64, writable: bool) {
        let mut map = self.mappings.0.lock();
        if let Some(entry) = map.get_mut(&id) {
            entry.mappings -= 1;
            if entry.mappings == 0 {
                map.remove(&id);
            }
        }
        self.writers.fetch_sub(usize::from(writable), Ordering::SeqCst);
    }

    /// Whether anybody maps the cache.
    pub fn is_mapped(&self) -> bool {
        !self.mappings.0.lock().is_empty()
    }

    /// Mappings of the cache in all address spaces.
    pub fn mapping_count(&self) -> usize {
        self.mappings.0.lock().values().map(|entry| entry.mappings).sum()
    }

    /// Takes the pages `start..end` out of all page tables; private copies too if `copies`. The
    /// caller has removed or replaced them. Task context, no spinning locks held.
    pub(super) fn unmap(&self, start: u64, end: u64, copies: bool) {
        for space in self.spaces() {
            space.unmap_cached(self, start, end, copies);
        }
    }

    /// The address spaces that map the cache now.
    pub(super) fn spaces(&self) -> Vec<Arc<AddressSpace>> {
        let mut spaces = Vec::new();
        let map = self.mappings.0.lock();
        for entry in map.values() {
            spaces.extend(entry.space.upgrade());
        }
        spaces
    }
}
