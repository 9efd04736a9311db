//! What a page index holds: a frame with three flags, or the mark of a hole in a backed object.

use crate::mm::PageRef;
use core::num::NonZeroU32;

const OWN: u64 = 1;
const USED: u64 = 2;
const UNCHECKED: u64 = 4;
const FLAG_BITS: u32 = 3;

/// A value of the index. A frame number of zero means: a hole, reads as zeros even where the
/// backing has bytes.
#[derive(Clone, Copy)]
pub struct Slot(u64);

impl Slot {
    /// The mark of a hole.
    pub const HOLE: Slot = Slot(0);

    /// A clean page; the slot takes over the reference.
    pub fn of(page: PageRef) -> Slot {
        Slot(u64::from(page.into_pfn().get()) << FLAG_BITS)
    }

    pub fn from_value(value: u64) -> Slot {
        Slot(value)
    }

    pub fn value(self) -> u64 {
        self.0
    }

    /// The frame number; `None` for a hole.
    pub fn pfn(self) -> Option<NonZeroU32> {
        NonZeroU32::new((self.0 >> FLAG_BITS) as u32)
    }

    /// A new reference to the page. The caller keeps the slot in place meanwhile (holds the cache's
    /// lock).
    pub fn page(self) -> Option<PageRef> {
        let pfn = self.pfn()?;
        crate::mm::frame::add_ref(pfn);
        // SAFETY: just counted; the slot's own reference kept the frame alive.
        Some(unsafe { PageRef::from_pfn(pfn) })
    }

    /// Whether the page is the only copy.
    pub fn is_own(self) -> bool {
        self.0 & OWN != 0
    }

    /// The same page as the only copy.
    pub fn owned(self) -> Slot {
        Slot(self.0 | OWN)
    }

    /// The same page as a clean one.
    pub fn disowned(self) -> Slot {
        Slot(self.0 & !OWN)
    }

    /// Whether the page was used since reclaim last came by.
    pub fn is_used(self) -> bool {
        self.0 & USED != 0
    }

    pub fn used(self) -> Slot {
        Slot(self.0 | USED)
    }

    pub fn unused(self) -> Slot {
        Slot(self.0 & !USED)
    }

    /// Whether the pager must check the page before anybody sees it.
    pub fn is_unchecked(self) -> bool {
        self.0 & UNCHECKED != 0
    }

    /// The same page, to be checked first if `still`.
    pub fn unchecked(self, still: bool) -> Slot {
        Slot(self.0 & !UNCHECKED | if still { UNCHECKED } else { 0 })
    }
}
