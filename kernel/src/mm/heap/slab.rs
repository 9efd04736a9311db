//! Pages cut into objects of one size.
//!
//! A slab page's record holds: `refs` the objects handed out, `flags` the class and the first free
//! object, `next` and `prev` the links of the class's list of pages with free objects. A free
//! object's first two bytes number the next.

use super::classes::SIZES;
use crate::arch::{PAGE_SHIFT, PAGE_SIZE, phys_to_virt, virt_to_phys};
use crate::mm::frame::PageRef;
use crate::mm::frame::page::{self, FLAG_SLAB, NIL, Page};
use core::num::NonZeroU32;
use core::sync::atomic::Ordering::Relaxed;

/// Ends a chain of free objects.
const END: u16 = u16::MAX;
const FIRST_SHIFT: u32 = 16;

/// The slab pages of one class. Not locked: the caller holds the class's lock.
pub struct Slabs {
    class: usize,
    /// First page with both used and free objects, or the one empty page that is kept.
    partial: u32,
    /// Pages whose objects are all free, on the partial list; at most one is kept.
    empty: usize,
    pages: usize,
    /// Objects handed out.
    taken: usize,
}

impl Slabs {
    /// No pages yet.
    pub const fn new(class: usize) -> Slabs {
        Slabs { class, partial: NIL, empty: 0, pages: 0, taken: 0 }
    }

    /// Pages held.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Objects handed out.
    pub fn taken(&self) -> usize {
        self.taken
    }

    fn capacity(&self) -> u32 {
        (PAGE_SIZE / SIZES[self.class] as usize) as u32
    }

    fn object(&self, pfn: u32, index: u16) -> *mut u8 {
        let base = phys_to_virt((pfn as usize) << PAGE_SHIFT);
        (base + index as usize * SIZES[self.class] as usize) as *mut u8
    }

    /// Takes an object from the pages there are.
    pub fn take(&mut self) -> Option<*mut u8> {
        let pfn = self.partial;
        if pfn == NIL {
            return None;
        }
        let page = page::page(pfn);
        let first = (page.flags.load(Relaxed) >> FIRST_SHIFT) as u16;
        let object = self.object(pfn, first);
        // SAFETY: a free object of this page; its first bytes hold the link.
        let next = unsafe { object.cast::<u16>().read() };
        let used = page.refs.load(Relaxed) + 1;
        page.refs.store(used, Relaxed);
        self.set_first(page, next);
        self.taken += 1;
        if used == 1 {
            self.empty -= 1;
        }
        if next == END {
            self.unlink(pfn, page);
        }
        Some(object)
    }

    /// Gives an object back. Returns a page that is no longer needed.
    ///
    /// # Safety
    /// `object` came from `take` of this class and nobody uses it any more.
    pub unsafe fn give(&mut self, object: *mut u8) -> Option<PageRef> {
        let paddr = virt_to_phys(object as usize);
        let pfn = (paddr >> PAGE_SHIFT) as u32;
        let page = page::page(pfn);
        let first = (page.flags.load(Relaxed) >> FIRST_SHIFT) as u16;
        let index = (paddr % PAGE_SIZE / SIZES[self.class] as usize) as u16;
        // SAFETY: the object is free now and at least 16 bytes long.
        unsafe { object.cast::<u16>().write(first) };
        self.set_first(page, index);
        self.taken -= 1;
        let used = page.refs.load(Relaxed) - 1;
        page.refs.store(used, Relaxed);
        if first == END {
            self.link(pfn, page);
        }
        if used > 0 {
            return None;
        }
        if self.empty == 0 {
            self.empty = 1;
            return None;
        }
        self.unlink(pfn, page);
        self.pages -= 1;
        page.flags.store(0, Relaxed);
        page.refs.store(1, Relaxed);
        // SAFETY: `add` took this page's reference apart; it is put together again, once.
        NonZeroU32::new(pfn).map(|pfn| unsafe { PageRef::from_pfn(pfn) })
    }

    /// Cuts a new page into objects.
    pub fn add(&mut self, frame: PageRef) {
        let pfn = frame.into_pfn().get();
        let page = page::page(pfn);
        let capacity = self.capacity();
        for index in 0..capacity as u16 {
            let next = if u32::from(index) + 1 == capacity { END } else { index + 1 };
            // SAFETY: an object of a page that is ours alone.
            unsafe { self.object(pfn, index).cast::<u16>().write(next) };
        }
        page.refs.store(0, Relaxed);
        self.set_first(page, 0);
        self.link(pfn, page);
        self.empty += 1;
        self.pages += 1;
    }

    fn set_first(&self, page: &Page, first: u16) {
        let flags = u32::from(first) << FIRST_SHIFT | FLAG_SLAB | self.class as u32;
        page.flags.store(flags, Relaxed);
    }

    fn link(&mut self, pfn: u32, page: &Page) {
        page.next.store(self.partial, Relaxed);
        page.prev.store(NIL, Relaxed);
        if self.partial != NIL {
            page::page(self.partial).prev.store(pfn, Relaxed);
        }
        self.partial = pfn;
    }

    fn unlink(&mut self, pfn: u32, page: &Page) {
        let (next, prev) = (page.next.load(Relaxed), page.prev.load(Relaxed));
        if self.partial == pfn {
            self.partial = next;
        } else {
            page::page(prev).next.store(next, Relaxed);
        }
        if next != NIL {
            page::page(next).prev.store(prev, Relaxed);
        }
    }
}
