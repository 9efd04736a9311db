//! The frame table: one small record per physical page.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// "No page" in the links of a [`Page`]. Frame 0 is never managed.
pub const NIL: u32 = 0;

/// Free block of the buddy allocator; the order is in [`ORDER_MASK`].
pub const FLAG_FREE: u32 = 1 << 8;
/// Page of slab objects.
pub const FLAG_SLAB: u32 = 1 << 9;
/// Order of a free block or slab class of a slab page.
pub const ORDER_MASK: u32 = 0xff;

/// What the kernel knows of one physical page. What `next` and `prev` hold depends on who owns the
/// page.
#[repr(C, align(16))]
pub struct Page {
    /// References; 0 for frames that aren't counted: reserved memory, boot modules, free frames.
    pub refs: AtomicU32,
    /// `FLAG_*` and their arguments.
    pub flags: AtomicU32,
    /// Link of the owner's list; live entries for a page table.
    pub next: AtomicU32,
    /// Link of the owner's list.
    pub prev: AtomicU32,
}

impl Page {
    /// A record of an unmanaged frame; all zero.
    pub const fn new() -> Page {
        Page {
            refs: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            next: AtomicU32::new(NIL),
            prev: AtomicU32::new(NIL),
        }
    }
}

impl Default for Page {
    fn default() -> Self {
        Page::new()
    }
}

static TABLE: AtomicPtr<Page> = AtomicPtr::new(core::ptr::null_mut());
static FRAMES: AtomicUsize = AtomicUsize::new(0);
/// Stands for every frame past the table (device memory): never counted, never freed.
static OUTSIDE: Page = Page::new();

/// Publishes the frame table.
pub fn set_table(table: &'static [Page]) {
    TABLE.store(table.as_ptr().cast_mut(), Ordering::Relaxed);
    FRAMES.store(table.len(), Ordering::Release);
}

/// The frame table, indexed by frame number.
pub fn table() -> &'static [Page] {
    #[cfg(not(guest))]
    super::hosted::ensure_init();
    let frames = FRAMES.load(Ordering::Acquire);
    if frames == 0 {
        return &[];
    }
    // SAFETY: `set_table` stored the parts of a static slice, the length last.
    unsafe { core::slice::from_raw_parts(TABLE.load(Ordering::Relaxed), frames) }
}

/// The record of a frame.
pub fn page(pfn: u32) -> &'static Page {
    table().get(pfn as usize).unwrap_or(&OUTSIDE)
}
