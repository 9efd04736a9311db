//! Memory before the frame allocator: which RAM is free, and page tables out of it.

use super::boot_info::BootInfo;
use super::paging::phys_to_virt;
use crate::arch::PAGE_SIZE;
use core::ops::Range;

/// Below this lie the real-mode vectors, firmware data and the AP start-up code.
const LOW_RESERVED: usize = 0x10000;
/// End of conventional memory that firmware leaves alone: past it its tables may start.
const LOW_END: usize = 0x80000;
const HIGH_START: usize = 0x10_0000;
/// What the boot tables map.
const MAPPED: usize = 4 << 30;
const MAX_RANGES: usize = 96;

/// Free RAM as ranges, by address.
pub struct FreeMemory {
    ranges: [Range<usize>; MAX_RANGES],
    count: usize,
}

impl FreeMemory {
    /// Usable RAM without the kernel image, the boot modules and low memory that firmware uses.
    pub(super) fn new(boot: &BootInfo) -> FreeMemory {
        let mut free = FreeMemory { ranges: [const { 0..0 }; MAX_RANGES], count: 0 };
        for region in boot.regions().iter().filter(|region| region.usable) {
            free.push(region.range());
        }
        free.remove(0..LOW_RESERVED);
        free.remove(LOW_END..HIGH_START);
        free.remove(super::paging::image());
        for &(base, len) in boot.modules() {
            free.remove(base & !(PAGE_SIZE - 1)..(base + len).next_multiple_of(PAGE_SIZE));
        }
        free
    }

    /// The free ranges, whole pages.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges[..self.count]
    }

    fn push(&mut self, range: Range<usize>) {
        // A map so torn that it overflows the table loses its last ranges, which is safe.
        if !range.is_empty() && self.count < MAX_RANGES {
            self.ranges[self.count] = range;
            self.count += 1;
        }
    }

    fn remove(&mut self, hole: Range<usize>) {
        if hole.is_empty() {
            return;
        }
        let old = core::mem::replace(&mut self.ranges, [const { 0..0 }; MAX_RANGES]);
        let count = core::mem::replace(&mut self.count, 0);
        for range in &old[..count] {
            self.push(range.start..range.end.min(hole.start));
            self.push(range.start.max(hole.end)..range.end);
        }
    }

    /// Takes zeroed frames in sequence from the range with most of them that the boot tables map.
    pub(super) fn take(&mut self, frames: usize) -> Option<usize> {
        let len = frames * PAGE_SIZE;
        let range = self.ranges[..self.count]
            .iter_mut()
            .filter(|range| range.start >= HIGH_START && range.start + len <= MAPPED)
            .max_by_key(|range| range.len())?;
        if range.len() < len {
            return None;
        }
        let at = range.start;
        range.start += len;
        // SAFETY: free RAM that the boot tables map, taken by nobody else.
        unsafe { (phys_to_virt(at) as *mut u8).write_bytes(0, len) };
        Some(at)
    }
}
