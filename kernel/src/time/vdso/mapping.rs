//! The two pages in programs' address spaces.

use super::{Data, IMAGE_OFFSET, LEN};
use crate::arch::PAGE_SIZE;
use crate::errno::Result;
use crate::mm::{AddressSpace, MapFlags, PageCache, PageRef, Prot};
use crate::sync::Once;
use alloc::sync::Arc;

struct Pages {
    object: Arc<PageCache>,
    data: PageRef,
}

static PAGES: Once<Option<Pages>> = Once::new();

fn pages() -> Option<&'static Pages> {
    PAGES.get_or_init(|| make().ok()).as_ref()
}

fn make() -> Result<Pages> {
    let object = PageCache::anonymous(LEN as u64);
    let data = object.get_page(0, true)?;
    object.get_page((IMAGE_OFFSET / PAGE_SIZE) as u64, true)?.write(0, &super::build()[..]);
    let pages = Pages { object, data };
    pages.publish();
    Ok(pages)
}

impl Pages {
    fn publish(&self) {
        // SAFETY: the frame is kept by `data`, zeroed when it was made (all of `Data` accepts
        // zeros), and written through atomics only; programs can't write to it.
        let data = unsafe { &*self.data.as_ptr().cast::<Data>() };
        data.publish(crate::arch::clock::scale(), crate::time::clock::boot_time_ns());
    }
}

/// Tells programs that the wall clock was set. The caller keeps others from doing so at the same
/// time.
pub fn clock_changed() {
    if let Some(Some(pages)) = PAGES.get() {
        pages.publish();
    }
}

/// Maps both pages into a new program's memory and gives the address of the ELF image
/// (`AT_SYSINFO_EHDR`). `None` if there is no room or memory: programs then make system calls.
pub fn map_into(space: &AddressSpace) -> Option<usize> {
    let pages = pages()?;
    let flags = MapFlags::PRIVATE | MapFlags::VDSO;
    let map = |hint, len, prot, flags, offset| {
        space.mmap(hint, len, prot, prot, flags, Some((pages.object.clone(), None, offset))).ok()
    };
    let base = map(0, LEN, Prot::READ, flags, 0)?;
    let image = base + IMAGE_OFFSET;
    let prot = Prot::READ | Prot::EXEC;
    map(image, PAGE_SIZE, prot, flags | MapFlags::FIXED, IMAGE_OFFSET as u64)
}
