//! The page table of a space with its page counts, and removing ranges of it.

use crate::errno::Result;
use crate::mm::pagetable::{self, ACCESSED, ANON, Leaf, PageTable, TABLE_SPAN};
use crate::mm::tlb;
use core::num::NonZeroU32;
use core::sync::atomic::Ordering::Relaxed;

/// Software: the page belongs to an object without backing (shared memory).
pub const SHMEM: u64 = 1 << 10;
/// Software: the page of zeros, which isn't counted.
pub const ZERO: u64 = 1 << 11;

/// Resident pages by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rss {
    pub anon: usize,
    pub file: usize,
    pub shmem: usize,
    /// Most there ever were.
    pub peak: usize,
}

impl Rss {
    /// Resident pages.
    pub fn total(&self) -> usize {
        self.anon + self.file + self.shmem
    }

    /// Counts an entry that came.
    pub fn add(&mut self, entry: u64) {
        *self.kind(entry) += 1;
        self.peak = self.peak.max(self.total());
    }

    /// Counts an entry that went.
    pub fn sub(&mut self, entry: u64) {
        let count = self.kind(entry);
        *count = count.wrapping_sub(1);
    }

    fn kind(&mut self, entry: u64) -> &mut usize {
        if entry & ANON != 0 {
            &mut self.anon
        } else if entry & SHMEM != 0 {
            &mut self.shmem
        } else {
            &mut self.file
        }
    }
}

/// A page table and what it holds. Behind the space's table lock.
pub struct Pages {
    pub table: PageTable,
    pub rss: Rss,
}

impl Pages {
    /// Sets the unused entry at `at` of a table that may be changed.
    pub fn set(rss: &mut Rss, leaf: &Leaf<'_>, at: usize, entry: u64) {
        leaf.table[at].store(entry, Relaxed);
        leaf.count(1);
        if entry & ZERO == 0 {
            rss.add(entry);
        }
    }

    /// Removes the entries of `start..end` that `which` accepts (all without one), then their
    /// pages.
    pub fn zap(
        &mut self,
        start: usize,
        end: usize,
        which: Option<&dyn Fn(u64) -> bool>,
    ) -> Result<()> {
        let Pages { table, rss } = self;
        let mut gather = Gather::new(table.root().pfn());
        let mut at = start;
        while let Some(leaf) = table.next_leaf(at, end) {
            at = leaf.base + TABLE_SPAN;
            if which.is_none() && start <= leaf.base && at <= end {
                let mut left = leaf.used();
                for slot in leaf.table {
                    if left == 0 {
                        break;
                    }
                    let entry = slot.load(Relaxed);
                    left -= u32::from(entry != 0);
                    if entry != 0 && entry & ZERO == 0 {
                        rss.sub(entry);
                    }
                }
                gather.table(leaf);
                continue;
            }
            if leaf.used() == 0 {
                // There may be no mapping here any more, by which it would be found in the end.
                gather.table(leaf);
                continue;
            }
            let range = leaf.range(start, end);
            let hit = |entry: u64| entry != 0 && which.is_none_or(|which| which(entry));
            if leaf.is_shared()
                && !leaf.table[range.clone()].iter().any(|slot| hit(slot.load(Relaxed)))
            {
                continue;
            }
            let leaf = leaf.own()?;
            for position in range {
                let slot = &leaf.table[position];
                let entry = slot.load(Relaxed);
                if hit(entry) {
                    slot.store(0, Relaxed);
                    leaf.count(-1);
                    if entry & ZERO == 0 {
                        rss.sub(entry);
                    }
                    gather.page(leaf.addr(position), entry);
                }
            }
            if leaf.used() == 0 {
                gather.table(leaf);
            }
        }
        Ok(())
    }

    /// Removes every last-level table that maps part of `start..end`, with all of its pages. For
    /// the end of a space.
    pub fn clear(&mut self, start: usize, end: usize) {
        self.detach_tables(start, end, |_| true);
    }

    /// Removes the last-level tables that map part of `start..end` and hold nothing.
    pub fn sweep(&mut self, start: usize, end: usize) {
        self.detach_tables(start, end, |leaf| leaf.used() == 0);
    }

    fn detach_tables(&mut self, start: usize, end: usize, which: impl Fn(&Leaf<'_>) -> bool) {
        let mut gather = Gather::new(self.table.root().pfn());
        let mut at = start;
        while let Some(leaf) = self.table.next_leaf(at, end) {
            at = leaf.base + TABLE_SPAN;
            if which(&leaf) {
                gather.table(leaf);
            }
        }
    }

    /// Takes cold pages of a cache out of `start..end`: those not accessed since the last call.
    /// Returns how many.
    pub fn age(&mut self, start: usize, end: usize) -> usize {
        let Pages { table, rss } = self;
        let mut gather = Gather::new(table.root().pfn());
        let (mut at, mut removed) = (start, 0);
        while let Some(leaf) = table.next_leaf(at, end) {
            at = leaf.base + TABLE_SPAN;
            if leaf.is_shared() {
                continue;
            }
            for position in leaf.range(start, end) {
                let slot = &leaf.table[position];
                let entry = slot.load(Relaxed);
                if entry == 0 || entry & (ANON | ZERO | SHMEM) != 0 {
                    continue;
                }
                if entry & ACCESSED != 0 {
                    slot.fetch_and(!ACCESSED, Relaxed);
                    continue;
                }
                let pinned = pagetable::pfn_of(entry).is_none_or(|pfn| {
                    crate::mm::frame::page::page(pfn.get()).refs.load(Relaxed) == 0
                });
                if !pinned {
                    slot.store(0, Relaxed);
                    leaf.count(-1);
                    rss.sub(entry);
                    gather.page(leaf.addr(position), entry);
                    removed += 1;
                }
            }
        }
        removed
    }
}

/// Entries taken out of a table whose pages may go only after no CPU translates to them any more.
pub struct Gather {
    root: NonZeroU32,
    /// Frame numbers.
    pages: [u32; 64],
    tables: [u64; 8],
    page_count: usize,
    table_count: usize,
    start: usize,
    end: usize,
}

impl Gather {
    pub fn new(root: NonZeroU32) -> Gather {
        Gather {
            root,
            pages: [0; 64],
            tables: [0; 8],
            page_count: 0,
            table_count: 0,
            start: usize::MAX,
            end: 0,
        }
    }

    /// Adds a page's former entry.
    pub fn page(&mut self, addr: usize, entry: u64) {
        if self.page_count == self.pages.len() {
            self.finish();
        }
        self.pages[self.page_count] = pagetable::pfn_of(entry).map_or(0, NonZeroU32::get);
        self.page_count += 1;
        self.cover(addr, crate::arch::PAGE_SIZE);
    }

    /// Takes a table out of its space.
    pub fn table(&mut self, leaf: Leaf<'_>) {
        if self.table_count == self.tables.len() {
            self.finish();
        }
        let base = leaf.base;
        self.tables[self.table_count] = leaf.detach();
        self.table_count += 1;
        self.cover(base, TABLE_SPAN);
    }

    fn cover(&mut self, addr: usize, len: usize) {
        self.start = self.start.min(addr);
        self.end = self.end.max(addr + len);
    }

    fn finish(&mut self) {
        if self.start < self.end {
            tlb::flush(self.root, self.start, self.end);
        }
        let frames = &mut self.pages[..self.page_count];
        // SAFETY: each entry owned a reference and was taken out of its table by whoever added it
        // here.
        unsafe { crate::mm::frame::release(frames) };
        for &entry in &self.tables[..self.table_count] {
            pagetable::release(entry);
        }
        (self.page_count, self.table_count) = (0, 0);
        (self.start, self.end) = (usize::MAX, 0);
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        self.finish();
    }
}
