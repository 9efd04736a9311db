//! Copying an address space for fork(2).
//!
//! Last-level tables aren't copied: both spaces use the same ones, unwritable, until one of them
//! changes something there. So a fork costs some instructions per 2 MiB, and a child that soon
//! calls exec copies next to nothing.

use super::AddressSpace;
use super::maps::Maps;
use super::rss::{Pages, Rss, ZERO};
use super::vma::{VmFlags, Vma};
use crate::arch::{PAGE_SIZE, USER_END};
use crate::errno::Result;
use crate::mm::pagetable::{self, ANON, Leaf, PageTable, TABLE_SPAN, WRITE, position};
use crate::mm::{commit, tlb};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

/// Mappings whose pages the child doesn't get.
const LEFT_OUT: VmFlags = VmFlags::DONT_FORK.union(VmFlags::WIPE_ON_FORK);

impl AddressSpace {
    /// A copy for a child process: private memory is copied when either writes to it, shared memory
    /// stays shared.
    pub fn fork(&self) -> Result<Arc<AddressSpace>> {
        let child = AddressSpace::with_layout(self.layout)?;
        child.limits.copy_from(&self.limits);
        // The child's maps stay locked too, so that who takes pages out of all mappings of a file
        // waits for it.
        let (maps, mut child_maps) = (self.maps.write(), child.maps.write());
        if commit::is_strict() {
            commit::check(maps.promised())?;
        }
        (child_maps.brk_start, child_maps.brk) = (maps.brk_start, maps.brk);
        for vma in maps.iter().filter(|vma| !vma.flags.contains(VmFlags::DONT_FORK)) {
            let backing = match &vma.backing {
                Some(backing) => Some(backing.copy_to((&child.this, child.id))?),
                None => None,
            };
            let flags = vma.flags - VmFlags::LOCKED;
            child_maps.insert(Vma { backing, flags, ..*vma });
        }
        let mut pages = self.pages.lock();
        let mut child_pages = child.pages.lock();
        let copied = copy_tables(&maps, &mut pages, &mut child_pages);
        // What this process could write, it now must ask for.
        tlb::flush(pages.table.root().pfn(), 0, USER_END);
        drop((child_pages, pages, child_maps, maps));
        copied?;
        Ok(child)
    }
}

fn copy_tables(maps: &Maps, pages: &mut Pages, child: &mut Pages) -> Result<()> {
    let mixed = maps.iter().any(|vma| vma.flags.intersects(LEFT_OUT));
    child.rss = pages.rss;
    let mut at = 0;
    // Pages are only where mappings are; several may lie in one table.
    for vma in maps.iter() {
        at = at.max(vma.start);
        while let Some(leaf) = pages.table.next_leaf(at, vma.end) {
            at = leaf.base + TABLE_SPAN;
            if leaf.used() == 0 {
                continue;
            }
            if mixed && maps.range(leaf.base, at).any(|vma| vma.flags.intersects(LEFT_OUT)) {
                copy_table(maps, leaf, &mut child.table, &mut child.rss)?;
            } else {
                leaf.share_with(&mut child.table)?;
            }
        }
    }
    child.rss.peak = child.rss.total();
    Ok(())
}

/// Copies the entries of one table that the child gets.
fn copy_table(maps: &Maps, leaf: Leaf<'_>, child: &mut PageTable, rss: &mut Rss) -> Result<()> {
    let leaf = leaf.own()?;
    let copy = child.leaf_mut(leaf.base)?;
    for vma in maps.range(leaf.base, leaf.base + TABLE_SPAN) {
        let (start, end) = (vma.start.max(leaf.base), vma.end.min(leaf.base + TABLE_SPAN));
        for addr in (start..end).step_by(PAGE_SIZE) {
            let slot = &leaf.table[position(addr, 0)];
            let mut entry = slot.load(Relaxed);
            if entry == 0 {
                continue;
            }
            if vma.flags.intersects(LEFT_OUT) {
                if entry & ZERO == 0 {
                    rss.sub(entry);
                }
                continue;
            }
            if entry & (ANON | WRITE) == ANON | WRITE {
                entry &= !WRITE;
                slot.store(entry, Relaxed);
            }
            if let Some(page) = pagetable::share(entry) {
                page.into_pfn();
                copy.table[position(addr, 0)].store(entry, Relaxed);
                copy.count(1);
            }
        }
    }
    if copy.used() == 0 {
        // The child may have no mapping there, by which it would be found in the end.
        pagetable::release(copy.detach());
    }
    Ok(())
}
