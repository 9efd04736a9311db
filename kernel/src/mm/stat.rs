//! Totals for /proc/meminfo and sysinfo(2).

use super::{cache, frame, heap};
use crate::arch::PAGE_SIZE;

/// Memory of the machine, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemInfo {
    pub total: usize,
    pub free: usize,
    /// What applications could get without the out-of-memory killer.
    pub available: usize,
    /// Frames in page caches, shared memory and tmpfs among them.
    pub cached: usize,
    pub shmem: usize,
    /// The kernel's heap.
    pub slab: usize,
}

/// Totals of now.
pub fn meminfo() -> MemInfo {
    let free = frame::free_frames() * PAGE_SIZE;
    let (cached, own) = cache::cached_frames();
    let (cached, shmem) = (cached * PAGE_SIZE, own * PAGE_SIZE);
    MemInfo {
        total: frame::total_frames() * PAGE_SIZE,
        free,
        available: free + (cached - shmem.min(cached)),
        cached,
        shmem,
        slab: heap::pages() * PAGE_SIZE,
    }
}
