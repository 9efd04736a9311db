//! Physical frames.
//!
//! Every frame has a [`Page`](page::Page) record of 16 bytes with a reference count. Frames that
//! the allocator doesn't manage (boot modules, device memory) have a count of zero and are never
//! freed, so references to them are free.

mod buddy;
pub mod fill;
#[cfg(not(guest))]
pub mod hosted;
pub mod page;
mod zone;

pub use zone::{Need, free_frames, init, is_low, total_frames};

use crate::arch::{PAGE_SHIFT, PAGE_SIZE, phys_to_virt, virt_to_phys};
use crate::errno::{Errno, Result};
use core::fmt;
use core::num::NonZeroU32;
use core::sync::atomic::Ordering;

/// One counted reference to a physical page frame. Cloning adds a reference; dropping the last one
/// frees the frame (frames of the boot module are pinned and never freed).
pub struct PageRef(NonZeroU32);

impl PageRef {
    /// A free frame; zeroed if asked. ENOMEM when there is none even after clean cache pages were
    /// dropped. Never sleeps; leaves the kernel's reserve alone.
    pub fn alloc(zeroed: bool) -> Result<PageRef> {
        Self::alloc_for(Need::Ordinary, zeroed)
    }

    /// As [`alloc`](PageRef::alloc), for private memory of programs: ENOMEM rather than the last pages
    /// of files, see [`is_scarce`](super::cache::is_scarce).
    pub fn alloc_own(zeroed: bool) -> Result<PageRef> {
        Self::alloc_for(Need::Own, zeroed)
    }

    /// As [`alloc`](PageRef::alloc), for content of files in memory: ENOSPC while programs would be
    /// left without memory.
    pub fn alloc_file(zeroed: bool) -> Result<PageRef> {
        while !zone::has_room_for_files() {
            if super::reclaim::shrink(32) == 0 {
                return Err(super::cache::no_room());
            }
        }
        Self::alloc(zeroed).map_err(|_| super::cache::no_room())
    }

    /// As [`alloc`](PageRef::alloc), but may use the kernel's reserve: for page tables, device
    /// buffers and the like.
    pub fn alloc_kernel(zeroed: bool) -> Result<PageRef> {
        Self::alloc_for(Need::Kernel, zeroed)
    }

    fn alloc_for(need: Need, zeroed: bool) -> Result<PageRef> {
        let pfn = match zone::alloc_one(need) {
            Some(pfn) => pfn,
            None => Self::alloc_slow(need)?,
        };
        let pfn = NonZeroU32::new(pfn).ok_or(Errno::ENOMEM)?;
        let page = page::page(pfn.get());
        page.flags.store(0, Ordering::Relaxed);
        page.refs.store(1, Ordering::Relaxed);
        #[cfg(not(guest))]
        hosted::count(1);
        let frame = PageRef(pfn);
        if zeroed {
            // SAFETY: a whole frame in the direct map that nobody else refers to.
            unsafe { fill::zero(frame.as_ptr()) };
        }
        Ok(frame)
    }

    #[cold]
    fn alloc_slow(need: Need) -> Result<u32> {
        loop {
            if need == Need::Own && super::cache::is_scarce() {
                return Err(Errno::ENOMEM);
            }
            let freed = super::reclaim::shrink(32);
            if let Some(pfn) = zone::alloc_one(need) {
                return Ok(pfn);
            }
            if freed == 0 {
                return Err(Errno::ENOMEM);
            }
        }
    }

    /// The frame at `paddr`, which must be memory that nobody allocates: of a boot module or of a
    /// device. `None` for frame 0, addresses past 16 TiB, and frames in use.
    pub fn pinned(paddr: usize) -> Option<PageRef> {
        let pfn = u32::try_from(paddr >> PAGE_SHIFT).ok()?;
        let page = page::page(pfn);
        if page.refs.load(Ordering::Relaxed) != 0 || page.flags.load(Ordering::Relaxed) != 0 {
            return None;
        }
        NonZeroU32::new(pfn).map(PageRef)
    }

    /// The page of zeros that every reader of untouched memory shares.
    pub fn zero_page() -> PageRef {
        PageRef(zone::zero_frame())
    }

    /// Takes over a reference that [`into_pfn`](PageRef::into_pfn) gave away.
    ///
    /// # Safety
    /// `pfn` came from `into_pfn` (or was counted by [`add_ref`]) and is not taken over twice.
    pub unsafe fn from_pfn(pfn: NonZeroU32) -> PageRef {
        PageRef(pfn)
    }

    /// Gives the reference away as a frame number, for page tables and the like.
    pub fn into_pfn(self) -> NonZeroU32 {
        let pfn = self.0;
        core::mem::forget(self);
        pfn
    }

    /// Frame number.
    pub fn pfn(&self) -> NonZeroU32 {
        self.0
    }

    /// Physical address.
    pub fn paddr(&self) -> usize {
        (self.0.get() as usize) << PAGE_SHIFT
    }

    /// The frame in the direct map. Its bytes may be shared with applications, so they can change
    /// at any time: read and write them through [`read`](PageRef::read) and
    /// [`write`](PageRef::write) or raw pointers.
    pub fn as_ptr(&self) -> *mut u8 {
        phys_to_virt(self.paddr()) as *mut u8
    }

    /// References held on the frame; 0 if it is pinned.
    pub fn ref_count(&self) -> u32 {
        page::page(self.0.get()).refs.load(Ordering::Acquire)
    }

    /// Whether the frame is never freed, and perhaps not writable either (boot modules).
    pub fn is_pinned(&self) -> bool {
        self.ref_count() == 0
    }

    /// Copies bytes out of the frame. The range must lie in the page.
    pub fn read(&self, offset: usize, dst: &mut [u8]) {
        assert!(offset <= PAGE_SIZE && dst.len() <= PAGE_SIZE - offset);
        // SAFETY: checked to lie in the frame, which this reference keeps.
        unsafe {
            core::ptr::copy_nonoverlapping(self.as_ptr().add(offset), dst.as_mut_ptr(), dst.len());
        }
    }

    /// Copies bytes into the frame. The range must lie in the page; the caller may write there (not
    /// a clean cache page).
    pub fn write(&self, offset: usize, src: &[u8]) {
        assert!(offset <= PAGE_SIZE && src.len() <= PAGE_SIZE - offset);
        // SAFETY: checked to lie in the frame, which this reference keeps.
        unsafe {
            core::ptr::copy_nonoverlapping(src.as_ptr(), self.as_ptr().add(offset), src.len());
        }
    }

    /// Zeroes bytes of the frame. The range must lie in the page.
    pub fn zero(&self, offset: usize, len: usize) {
        assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset);
        // SAFETY: checked to lie in the frame, which this reference keeps.
        unsafe { core::ptr::write_bytes(self.as_ptr().add(offset), 0, len) };
    }

    /// Copies a whole other frame into this one.
    pub fn copy_from(&self, src: &PageRef) {
        if self.0 != src.0 {
            // SAFETY: two different frames, both kept by references.
            unsafe { fill::copy(self.as_ptr(), src.as_ptr()) };
        }
    }
}

impl Clone for PageRef {
    fn clone(&self) -> PageRef {
        add_ref(self.0);
        PageRef(self.0)
    }
}

impl Drop for PageRef {
    fn drop(&mut self) {
        let page = page::page(self.0.get());
        if page.refs.load(Ordering::Relaxed) == 0 {
            return;
        }
        if page.refs.fetch_sub(1, Ordering::Release) == 1 {
            core::sync::atomic::fence(Ordering::Acquire);
            #[cfg(not(guest))]
            hosted::count(-1);
            zone::free_one(self.0.get());
        }
    }
}

impl fmt::Debug for PageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageRef({:#x})", self.0)
    }
}

/// Counts one more reference to a frame that is kept alive by another one.
pub fn add_ref(pfn: NonZeroU32) {
    let page = page::page(pfn.get());
    if page.refs.load(Ordering::Relaxed) != 0 {
        page.refs.fetch_add(1, Ordering::Relaxed);
    }
}

/// Drops one reference to each frame; cheaper than one by one. Clobbers the list.
///
/// # Safety
/// The caller owns the references (as from [`PageRef::into_pfn`]) and gives them up.
pub unsafe fn release(frames: &mut [u32]) {
    let table = page::table();
    let mut free = 0;
    for at in 0..frames.len() {
        let pfn = frames[at];
        let Some(page) = table.get(pfn as usize) else { continue };
        let gone = match page.refs.load(Ordering::Acquire) {
            0 => false,
            // The only reference is ours: nobody can count it up meanwhile.
            1 => {
                page.refs.store(0, Ordering::Relaxed);
                true
            }
            _ => page.refs.fetch_sub(1, Ordering::AcqRel) == 1,
        };
        if gone {
            frames[free] = pfn;
            free += 1;
        }
    }
    #[cfg(not(guest))]
    hosted::count(-(free as isize));
    zone::free_many(&frames[..free]);
}

/// 2^order frames in sequence, aligned to their size: kernel stacks, rings, large tables. Freed
/// when dropped.
pub struct Block {
    pfn: u32,
    order: u8,
}

impl Block {
    /// Takes a block from the kernel's share; contents are arbitrary.
    pub fn alloc(order: usize) -> Result<Block> {
        let pfn = zone::alloc_block(order, Need::Kernel).or_else(|| {
            super::reclaim::shrink(32 << order);
            zone::alloc_block(order, Need::Kernel)
        });
        let block = Block { pfn: pfn.ok_or(Errno::ENOMEM)?, order: order as u8 };
        let page = page::page(block.pfn);
        page.flags.store(0, Ordering::Relaxed);
        page.refs.store(1, Ordering::Relaxed);
        Ok(block)
    }

    /// Physical address.
    pub fn paddr(&self) -> usize {
        (self.pfn as usize) << PAGE_SHIFT
    }

    /// Start of the block in the direct map.
    pub fn as_ptr(&self) -> *mut u8 {
        phys_to_virt(self.paddr()) as *mut u8
    }

    /// Length in bytes.
    pub fn size(&self) -> usize {
        PAGE_SIZE << self.order
    }

    /// Gives the block away as its address in the direct map.
    pub fn into_ptr(self) -> *mut u8 {
        let at = self.as_ptr();
        core::mem::forget(self);
        at
    }

    /// Takes a block back from [`into_ptr`](Block::into_ptr).
    ///
    /// # Safety
    /// `at` came from `into_ptr` of a block of this order, once.
    pub unsafe fn from_ptr(at: *mut u8, order: usize) -> Block {
        let pfn = (virt_to_phys(at as usize) >> PAGE_SHIFT) as u32;
        Block { pfn, order: order as u8 }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        page::page(self.pfn).refs.store(0, Ordering::Relaxed);
        zone::free_block(self.pfn, self.order as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reference_frees_the_frame() {
        let before = hosted::live_frames();
        let page = PageRef::alloc(true).unwrap();
        let mut bytes = [1u8; PAGE_SIZE];
        page.read(0, &mut bytes);
        assert_eq!(bytes, [0; PAGE_SIZE]);
        let other = page.clone();
        assert_eq!(page.ref_count(), 2);
        drop(page);
        assert_eq!(hosted::live_frames(), before + 1);
        drop(other);
        assert_eq!(hosted::live_frames(), before);
    }

    #[test]
    fn pinned_frames_are_not_counted() {
        let page = PageRef::pinned(0x2000).unwrap();
        drop(page.clone());
        assert!(page.is_pinned());
        assert!(PageRef::pinned(0).is_none());
        let taken = PageRef::alloc(false).unwrap();
        assert!(PageRef::pinned(taken.paddr()).is_none(), "allocated frames can't be pinned");
    }

    #[test]
    fn copies_are_whole_pages() {
        let (a, b) = (PageRef::alloc(true).unwrap(), PageRef::alloc(false).unwrap());
        a.write(0, b"first");
        a.write(PAGE_SIZE - 4, b"last");
        b.copy_from(&a);
        let mut ends = [0u8; 4];
        b.read(PAGE_SIZE - 4, &mut ends);
        assert_eq!(&ends, b"last");
    }
}
