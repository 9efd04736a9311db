//! x86-64 user page tables: four levels, 4 KiB pages.
//!
//! An entry that isn't zero holds one reference to its frame. Entries without the present bit are
//! pages of ranges that can't be accessed now (`PROT_NONE`).
//!
//! Last-level tables may be shared between address spaces after fork: their frame has several
//! references and the entry above isn't writable. A shared table is never changed; who needs to
//! change it makes a copy first ([`PageTable::unshare`]). The frame record of a last-level table
//! counts its used entries in `next`.

use super::PageRef;
use super::frame::{self, page};
use crate::arch::{PAGE_SHIFT, PAGE_SIZE, phys_to_virt};
use crate::errno::Result;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The hardware may use the entry.
pub const PRESENT: u64 = 1;
/// Writable.
pub const WRITE: u64 = 1 << 1;
/// User mode may use it.
pub const USER: u64 = 1 << 2;
/// Set by the hardware on use.
pub const ACCESSED: u64 = 1 << 5;
/// Set by the hardware on writes.
pub const DIRTY: u64 = 1 << 6;
/// Software: the page is anonymous memory of this address space (or shared with forks of it), not
/// of a cache.
pub const ANON: u64 = 1 << 9;
/// No instruction fetch.
pub const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Entries per table.
pub const ENTRIES: usize = 512;
/// Bytes that a last-level table maps.
pub const TABLE_SPAN: usize = ENTRIES * PAGE_SIZE;
/// Levels below the root.
const TOP: usize = 3;

/// One table.
pub type Table = [AtomicU64; ENTRIES];

/// The user half of a root and all below it. Not locked: its address space's lock guards it.
pub struct PageTable {
    root: PageRef,
}

/// A last-level table met on a walk.
pub struct Leaf<'a> {
    /// The entry above it.
    pub above: &'a AtomicU64,
    /// First address it maps.
    pub base: usize,
    /// Its entries.
    pub table: &'a Table,
}

impl PageTable {
    /// An empty user half; the kernel's half is the one every root has.
    pub fn new() -> Result<PageTable> {
        let kernel = crate::arch::paging::kernel_root();
        let root = PageRef::alloc_kernel(kernel == 0)?;
        if kernel != 0 {
            // Its user half is empty.
            // SAFETY: both are whole frames; the new one is ours alone, the kernel's never changes.
            unsafe { frame::fill::copy(root.as_ptr(), phys_to_virt(kernel) as *const u8) };
        }
        let record = page::page(root.pfn().get());
        record.next.store(0, Relaxed);
        record.prev.store(0, Relaxed);
        Ok(PageTable { root })
    }

    /// The root's frame.
    pub fn root(&self) -> &PageRef {
        &self.root
    }

    /// The CPUs that have the root loaded, one bit each. Kept with the frame, because a CPU may
    /// have the root loaded for a while after its address space is gone.
    pub fn cpus(root: NonZeroU32) -> &'static AtomicU32 {
        &page::page(root.get()).prev
    }

    /// The entry of a page, or zero. `WRITE` is only set if the access would succeed, so not in a
    /// shared table.
    pub fn get(&self, addr: usize) -> u64 {
        let mut table = table_at(self.root.paddr());
        let mut mask = !0;
        for level in (1..=TOP).rev() {
            let entry = table[position(addr, level)].load(Relaxed);
            if entry & PRESENT == 0 {
                return 0;
            }
            mask &= entry | !WRITE;
            table = table_at((entry & ADDRESS) as usize);
        }
        table[position(addr, 0)].load(Relaxed) & mask
    }

    /// The entry above the last-level table of `addr`; higher tables are made as needed.
    fn above(&self, addr: usize) -> Result<&AtomicU64> {
        let mut table = table_at(self.root.paddr());
        for level in (2..=TOP).rev() {
            let slot = &table[position(addr, level)];
            let mut entry = slot.load(Relaxed);
            if entry & PRESENT == 0 {
                let below = PageRef::alloc_kernel(true)?;
                entry = below.paddr() as u64 | PRESENT | WRITE | USER;
                below.into_pfn();
                slot.store(entry, Relaxed);
                if level == TOP {
                    let used = &page::page(self.root.pfn().get()).next;
                    used.store(used.load(Relaxed) + 1, Relaxed);
                }
            }
            table = table_at((entry & ADDRESS) as usize);
        }
        Ok(&table[position(addr, 1)])
    }

    /// The last-level table of `addr`, made or made this space's own as needed, ready to be
    /// changed.
    pub fn leaf_mut(&mut self, addr: usize) -> Result<Leaf<'_>> {
        let above = self.above(addr)?;
        let entry = above.load(Relaxed);
        let entry = if entry & (PRESENT | WRITE) == PRESENT | WRITE {
            entry
        } else if entry == 0 {
            let below = PageRef::alloc_kernel(true)?;
            let entry = below.paddr() as u64 | PRESENT | WRITE | USER;
            page::page(below.into_pfn().get()).next.store(0, Relaxed);
            above.store(entry, Relaxed);
            entry
        } else {
            unshare(above)?
        };
        Ok(Leaf {
            above,
            base: addr & !(TABLE_SPAN - 1),
            table: table_at((entry & ADDRESS) as usize),
        })
    }

    /// The first last-level table at `addr` or after it and below `end`. It may be shared.
    pub fn next_leaf(&self, addr: usize, end: usize) -> Option<Leaf<'_>> {
        const SPAN: [usize; 4] =
            [PAGE_SIZE, TABLE_SPAN, TABLE_SPAN * ENTRIES, TABLE_SPAN * ENTRIES * ENTRIES];
        let after = |at: usize, level: usize| (at & !(SPAN[level] - 1)) + SPAN[level];
        let root = table_at(self.root.paddr());
        let mut at = addr;
        // Each loop stays in its table until the address leaves it: spaces are large and nearly
        // empty.
        while at < end {
            let entry = root[position(at, 3)].load(Relaxed);
            if entry & PRESENT == 0 {
                at = after(at, 3);
                continue;
            }
            let third = table_at((entry & ADDRESS) as usize);
            let third_end = after(at, 3).min(end);
            while at < third_end {
                let entry = third[position(at, 2)].load(Relaxed);
                if entry & PRESENT == 0 {
                    at = after(at, 2);
                    continue;
                }
                let second = table_at((entry & ADDRESS) as usize);
                let second_end = after(at, 2).min(end);
                while at < second_end {
                    let slot = &second[position(at, 1)];
                    let entry = slot.load(Relaxed);
                    if entry & PRESENT != 0 {
                        let table = table_at((entry & ADDRESS) as usize);
                        return Some(Leaf { above: slot, base: at & !(TABLE_SPAN - 1), table });
                    }
                    at = after(at, 1);
                }
            }
        }
        None
    }
}

impl Drop for PageTable {
    /// Frees the tables above the last level. The last-level tables must be gone.
    fn drop(&mut self) {
        let mut left = page::page(self.root.pfn().get()).next.load(Relaxed);
        let mut tops = [0; ENTRIES / 2];
        // From the top, where most of a process is.
        for (top, slot) in tops.iter_mut().zip(&table_at(self.root.paddr())[..ENTRIES / 2]).rev() {
            if left == 0 {
                break;
            }
            *top = slot.load(Relaxed);
            if *top != 0 {
                slot.store(0, Relaxed);
                left -= 1;
            }
        }
        // A CPU that runs a kernel thread may still have the root loaded.
        super::tlb::flush(self.root.pfn(), 0, usize::MAX);
        for top in tops.into_iter().filter(|top| top & PRESENT != 0) {
            each_used(table_at((top & ADDRESS) as usize), |_, below| {
                drop(take(below.load(Relaxed)));
            });
            drop(take(top));
        }
    }
}

impl Leaf<'_> {
    /// The frame of the table itself.
    pub fn pfn(&self) -> u32 {
        ((self.above.load(Relaxed) & ADDRESS) >> PAGE_SHIFT) as u32
    }

    /// Whether the table may be shared with other address spaces.
    pub fn is_shared(&self) -> bool {
        self.above.load(Relaxed) & WRITE == 0
    }

    /// Used entries.
    pub fn used(&self) -> u32 {
        page::page(self.pfn()).next.load(Relaxed)
    }

    /// Adds to the number of used entries.
    pub fn count(&self, change: i32) {
        let used = &page::page(self.pfn()).next;
        used.store(used.load(Relaxed).wrapping_add_signed(change), Relaxed);
    }

    /// Positions of the part of `start..end` that the table maps.
    pub fn range(&self, start: usize, end: usize) -> core::ops::Range<usize> {
        let first = start.saturating_sub(self.base) >> PAGE_SHIFT;
        first..(end - self.base).min(TABLE_SPAN) >> PAGE_SHIFT
    }

    /// The address at a position.
    pub fn addr(&self, at: usize) -> usize {
        self.base + (at << PAGE_SHIFT)
    }

    /// Makes the table this space's own, so that it may be changed.
    pub fn own(self) -> Result<Self> {
        if !self.is_shared() {
            return Ok(self);
        }
        let entry = unshare(self.above)?;
        Ok(Leaf { table: table_at((entry & ADDRESS) as usize), ..self })
    }

    /// Takes the table out of its space. Give the value to [`release`] once no CPU can use it any
    /// more.
    pub fn detach(self) -> u64 {
        self.above.swap(0, Relaxed)
    }

    /// Puts the same table into another space, shared by both from now on: neither can write
    /// through it.
    pub fn share_with(&self, other: &mut PageTable) -> Result<()> {
        let slot = other.above(self.base)?;
        let entry = self.above.load(Relaxed) & !WRITE;
        if let Some(pfn) = pfn_of(entry) {
            frame::add_ref(pfn);
        }
        self.above.store(entry, Relaxed);
        slot.store(entry, Relaxed);
        Ok(())
    }
}

/// Replaces a shared table by a copy, in which (as in the original) anonymous pages can't be
/// written before they are copied in turn. The last user of a table just takes it.
fn unshare(above: &AtomicU64) -> Result<u64> {
    let entry = above.load(Relaxed);
    let pfn = ((entry & ADDRESS) >> PAGE_SHIFT) as u32;
    let record = page::page(pfn);
    if record.refs.load(core::sync::atomic::Ordering::Acquire) == 1 {
        above.store(entry | WRITE, Relaxed);
        return Ok(entry | WRITE);
    }
    let copy = PageRef::alloc_kernel(true)?;
    let (old, new) = (table_at((entry & ADDRESS) as usize), table_at(copy.paddr()));
    let used = record.next.load(Relaxed);
    page::page(copy.pfn().get()).next.store(used, Relaxed);
    each_used(old, |at, from| {
        let mut value = from.load(Relaxed);
        if value & (ANON | WRITE) == ANON | WRITE {
            value &= !WRITE;
            from.store(value, Relaxed);
        }
        if let Some(pfn) = pfn_of(value) {
            frame::add_ref(pfn);
        }
        new[at].store(value, Relaxed);
    });
    let entry_new = copy.paddr() as u64 | PRESENT | WRITE | USER;
    copy.into_pfn();
    above.store(entry_new, Relaxed);
    release(entry);
    Ok(entry_new)
}

/// Drops one reference to a detached last-level table, and with the last one those of its entries.
pub fn release(entry: u64) {
    let table = take(entry);
    let Some(table) = table else { return };
    let record = page::page(table.pfn().get());
    // Whoever finds itself the only user owns the entries: nobody can add users to a detached
    // table.
    if record.refs.load(core::sync::atomic::Ordering::Acquire) == 1 {
        drop_entries(&table);
        return;
    }
    // Two users may leave at once, each seeing the other. The count decides who is last.
    let pfn = table.into_pfn();
    if record.refs.fetch_sub(1, core::sync::atomic::Ordering::AcqRel) == 1 {
        record.refs.store(1, Relaxed);
        // SAFETY: the count went to zero here, so this is the only reference; it was set back to
        // one.
        let table = unsafe { PageRef::from_pfn(pfn) };
        drop_entries(&table);
    }
}

fn drop_entries(table: &PageRef) {
    let mut batch = [0u32; 64];
    let mut count = 0;
    each_used(table_at(table.paddr()), |_, slot| {
        batch[count] = ((slot.load(Relaxed) & ADDRESS) >> PAGE_SHIFT) as u32;
        count += 1;
        if count == batch.len() {
            // SAFETY: each entry owned a reference, and nobody looks at this table any more.
            unsafe { frame::release(&mut batch) };
            count = 0;
        }
    });
    // SAFETY: as above.
    unsafe { frame::release(&mut batch[..count]) };
}

/// Calls `f` with each entry that isn't zero and its position. Most tables are nearly empty, so it
/// looks at eight entries at a time.
fn each_used(table: &Table, mut f: impl FnMut(usize, &AtomicU64)) {
    for (group, slots) in table.chunks_exact(8).enumerate() {
        if slots.iter().fold(0, |any, slot| any | slot.load(Relaxed)) == 0 {
            continue;
        }
        for (at, slot) in slots.iter().enumerate() {
            if slot.load(Relaxed) != 0 {
                f(group * 8 + at, slot);
            }
        }
    }
}

/// The frame of an entry.
pub fn pfn_of(entry: u64) -> Option<NonZeroU32> {
    NonZeroU32::new(((entry & ADDRESS) >> PAGE_SHIFT) as u32)
}

/// The reference that an entry held. The caller has removed the entry.
pub fn take(entry: u64) -> Option<PageRef> {
    // SAFETY: entries own one reference each, and this one is gone.
    pfn_of(entry).map(|pfn| unsafe { PageRef::from_pfn(pfn) })
}

/// A new reference to the frame of an entry. The caller keeps the entry in place (holds the lock).
pub fn share(entry: u64) -> Option<PageRef> {
    let pfn = pfn_of(entry)?;
    frame::add_ref(pfn);
    // SAFETY: just counted; the entry's own reference kept the frame alive.
    Some(unsafe { PageRef::from_pfn(pfn) })
}

/// An entry for a frame, which takes over the reference.
pub fn entry(page: PageRef, bits: u64) -> u64 {
    (u64::from(page.into_pfn().get()) << PAGE_SHIFT) | bits
}

/// Position of an address in a table of `level` (0 is the last).
pub fn position(addr: usize, level: usize) -> usize {
    addr >> (12 + 9 * level) & (ENTRIES - 1)
}

fn table_at(paddr: usize) -> &'static Table {
    // SAFETY: tables are whole frames in the direct map, kept by the entry that named them; their
    // words are only accessed atomically. Callers don't use them past the removal of that entry.
    unsafe { &*(phys_to_virt(paddr) as *const Table) }
}
