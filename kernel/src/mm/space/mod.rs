//! Address spaces.

use super::PageCache;

/// The memory of a process (or of several that share it by vfork or `CLONE_VM`).
pub struct AddressSpace(());

impl AddressSpace {
    /// Takes pages of a cache out of the page tables.
    pub(super) fn unmap_cached(&self, _cache: &PageCache, _start: u64, _end: u64, _copies: bool) {}
}

impl AddressSpace {
    /// Makes this CPU translate by this address space. Preemption is off (the scheduler calls it).
    pub fn activate(&self) {}
    /// Makes this CPU translate by the kernel's own root.
    pub fn deactivate() {}
}
