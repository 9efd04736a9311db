//! The buddy allocator: blocks of 2^order frames, split on demand and joined when both halves are
//! free.

use super::page::{FLAG_FREE, NIL, ORDER_MASK, Page};
use core::sync::atomic::Ordering::Relaxed;

/// Largest block: 2^13 frames, 32 MiB.
pub const MAX_ORDER: usize = 13;

/// Free blocks of one frame table. Not locked: the caller holds the zone's lock.
pub struct Buddy {
    heads: [u32; MAX_ORDER + 1],
    free: usize,
}

impl Buddy {
    /// An allocator without memory.
    pub const fn new() -> Buddy {
        Buddy { heads: [NIL; MAX_ORDER + 1], free: 0 }
    }

    /// Free frames.
    pub fn free_frames(&self) -> usize {
        self.free
    }

    /// Hands the frames `start..end` to the allocator.
    pub fn add(&mut self, pages: &[Page], start: usize, end: usize) {
        let mut at = start.max(1);
        while at < end {
            let fit = (end - at).ilog2() as usize;
            let order = (at.trailing_zeros() as usize).min(fit).min(MAX_ORDER);
            self.free(pages, at as u32, order);
            at += 1 << order;
        }
    }

    /// Takes a block of 2^`order` frames; its first frame number.
    pub fn alloc(&mut self, pages: &[Page], order: usize) -> Option<u32> {
        let found = (order..=MAX_ORDER).find(|&have| self.heads[have] != NIL)?;
        let pfn = self.heads[found];
        self.unlink(pages, pfn, found);
        // Give back the upper halves.
        for have in (order..found).rev() {
            self.link(pages, pfn + (1 << have), have);
        }
        self.free -= 1 << order;
        Some(pfn)
    }

    /// Returns a block.
    pub fn free(&mut self, pages: &[Page], mut pfn: u32, mut order: usize) {
        self.free += 1 << order;
        while order < MAX_ORDER {
            let buddy = pfn ^ (1 << order);
            let joined = pages.get(buddy as usize).is_some_and(|page| {
                page.flags.load(Relaxed) & (FLAG_FREE | ORDER_MASK) == FLAG_FREE | order as u32
            });
            if !joined {
                break;
            }
            self.unlink(pages, buddy, order);
            pfn &= !(1 << order);
            order += 1;
        }
        self.link(pages, pfn, order);
    }

    fn link(&mut self, pages: &[Page], pfn: u32, order: usize) {
        let page = &pages[pfn as usize];
        let head = self.heads[order];
        page.flags.store(FLAG_FREE | order as u32, Relaxed);
        page.refs.store(0, Relaxed);
        page.next.store(head, Relaxed);
        page.prev.store(NIL, Relaxed);
        if head != NIL {
            pages[head as usize].prev.store(pfn, Relaxed);
        }
        self.heads[order] = pfn;
    }

    fn unlink(&mut self, pages: &[Page], pfn: u32, order: usize) {
        let page = &pages[pfn as usize];
        let (next, prev) = (page.next.load(Relaxed), page.prev.load(Relaxed));
        match prev {
            NIL => self.heads[order] = next,
            prev => pages[prev as usize].next.store(next, Relaxed),
        }
        if next != NIL {
            pages[next as usize].prev.store(prev, Relaxed);
        }
        page.flags.store(0, Relaxed);
    }
}

impl Default for Buddy {
    fn default() -> Self {
        Buddy::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn table(frames: usize) -> Vec<Page> {
        (0..frames).map(|_| Page::new()).collect()
    }

    #[test]
    fn all_frames_can_be_taken_and_join_again() {
        let pages = table(1000);
        let mut buddy = Buddy::new();
        buddy.add(&pages, 3, 997);
        let mut taken = Vec::new();
        while let Some(pfn) = buddy.alloc(&pages, 0) {
            taken.push(pfn);
        }
        taken.sort_unstable();
        assert_eq!(taken, (3..997).collect::<Vec<u32>>());
        for pfn in taken {
            buddy.free(&pages, pfn, 0);
        }
        assert_eq!(buddy.free_frames(), 994);
        assert!(buddy.alloc(&pages, 9).is_none(), "0.. and 512.. lack their ends");
        let mut blocks = [buddy.alloc(&pages, 8), buddy.alloc(&pages, 8)];
        blocks.sort_unstable();
        assert_eq!(blocks, [Some(256), Some(512)]);
    }

    #[test]
    fn blocks_never_overlap_and_none_is_lost() {
        let pages = table(4096);
        let mut buddy = Buddy::new();
        buddy.add(&pages, 0, 4096);
        let mut held: BTreeMap<u32, usize> = BTreeMap::new();
        let mut seed = 0x1234_5678_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = (seed >> 33) as usize;
            if random % 5 < 3 {
                let order = random / 5 % 7;
                let Some(pfn) = buddy.alloc(&pages, order) else { continue };
                assert_eq!(pfn as usize % (1 << order), 0);
                let before = held.range(..=pfn).next_back();
                assert!(before.is_none_or(|(&at, &order)| at + (1 << order) <= pfn));
                let after = held.range(pfn..).next();
                assert!(after.is_none_or(|(&at, _)| pfn + (1 << order) <= at));
                held.insert(pfn, order);
            } else if let Some((&pfn, &order)) =
                held.range(random as u32 % 4096..).next().or_else(|| held.iter().next())
            {
                held.remove(&pfn);
                buddy.free(&pages, pfn, order);
            }
            let used: usize = held.values().map(|order| 1 << order).sum();
            assert_eq!(buddy.free_frames() + used, 4095);
        }
    }
}
