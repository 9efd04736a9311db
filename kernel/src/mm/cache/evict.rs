//! Dropping clean pages: a clock hand per cache, caches in turn.

use super::slot::Slot;
use super::{Inner, PageCache};
use crate::map::{Thin, Tree};
use crate::sync::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Pages looked at in one cache per page wanted, at first.
const EFFORT: usize = 8;
/// Times round a whole cache: the first visit may only take the marks of recent use away.
const LAPS: usize = 2;

/// Caches that hold pages which can be dropped. Held while one of them is looked at, which keeps it
/// from going away: [`PageCache::withdraw`] needs the lock.
static CACHES: SpinLock<Ring> = SpinLock::new(Ring { caches: Tree::new(), next: 0 });

struct Ring {
    /// By number.
    caches: Tree<Entry>,
    next: u128,
}

/// What the tree holds.
#[repr(transparent)]
struct Entry(*const PageCache);

// SAFETY: a pointer.
unsafe impl Thin for Entry {}
// SAFETY: the pointer is only followed under the ring's lock, under which the cache is alive.
unsafe impl Send for Entry {}

/// Drops up to `want` clean pages that nobody maps; returns how many. Only tries locks, never
/// sleeps.
pub fn shrink(want: usize) -> usize {
    let Some(mut ring) = CACHES.try_lock() else { return 0 };
    let mut freed = 0;
    // If a look here and there finds nothing, whole caches are looked through: as long as there is a
    // page that can be dropped, nobody is to be told that memory is gone.
    for effort in [want.saturating_mul(EFFORT), usize::MAX] {
        let mut visits = LAPS * ring.caches.len();
        while freed < want && visits > 0 {
            visits -= 1;
            let next = ring.next;
            let Some((id, entry)) = ring.caches.next(next).or_else(|| ring.caches.first()) else {
                break;
            };
            // SAFETY: listed caches are alive, see `CACHES`.
            freed += unsafe { &*entry.0 }.evict(want - freed, effort);
            ring.next = id + 1;
        }
        if freed > 0 {
            break;
        }
    }
    freed
}

impl PageCache {
    /// Makes the cache known to reclaim.
    pub(super) fn enroll(&self) {
        if !self.enrolled.swap(true, Ordering::Relaxed) {
            CACHES.lock().caches.insert(u128::from(self.id), Entry(self));
        }
    }

    /// Makes reclaim forget the cache; for its end.
    pub(super) fn withdraw(&self) {
        if self.enrolled.load(Ordering::Relaxed) {
            CACHES.lock().caches.remove(u128::from(self.id));
        }
    }

    /// Drops up to `want` clean, unmapped pages not used since the last visit, after a look at
    /// `effort` pages at most.
    pub(super) fn evict(&self, want: usize, effort: usize) -> usize {
        let Some(mut inner) = self.inner.try_lock() else { return 0 };
        if inner.counted == inner.own {
            return 0;
        }
        let mut freed = 0;
        let (mut laps, mut looks) = (0, 0);
        while looks < effort && freed < want {
            looks += 1;
            let hand = inner.hand;
            let Some((index, value)) = inner.tree.next(hand) else {
                if laps == LAPS {
                    break;
                }
                laps += 1;
                inner.hand = 0;
                continue;
            };
            inner.hand = index + 1;
            let slot = Slot::from_value(value);
            if slot.is_own() {
                continue;
            }
            freed += usize::from(self.evict_slot(&mut inner, index, slot));
        }
        freed
    }

    fn evict_slot(&self, inner: &mut Inner, index: u64, slot: Slot) -> bool {
        let Some(pfn) = slot.pfn() else { return false };
        // Frames in place have a count of zero, mapped ones have more than the cache's own
        // reference. New references are only made under the lock that we hold.
        let refs = crate::mm::frame::page::page(pfn.get()).refs.load(Ordering::Acquire);
        if refs != 1 {
            return false;
        }
        if slot.is_used() {
            inner.tree.update(index, slot.unused().value());
            return false;
        }
        inner.tree.remove(index);
        drop(self.forget(inner, slot));
        true
    }
}

/// Takes cached pages that weren't used lately out of address spaces, so that [`shrink`] can drop
/// them. Returns how many. Task context, no locks held.
pub fn age_mappings() -> usize {
    let mut caches: Vec<Arc<PageCache>> = Vec::new();
    {
        let ring = CACHES.lock();
        if caches.try_reserve(ring.caches.len()).is_err() {
            return 0;
        }
        // SAFETY: listed caches are alive, see `CACHES`.
        caches.extend(ring.caches.values().filter_map(|entry| unsafe { &*entry.0 }.this.upgrade()));
    }
    let mut removed = 0;
    for cache in caches.iter().filter(|cache| cache.is_mapped()) {
        for space in cache.spaces() {
            removed += space.age_cached(cache);
        }
    }
    removed
}
