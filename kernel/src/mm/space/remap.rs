//! mremap(2).

use super::AddressSpace;
use super::map::{MMAP_MIN, checked_range, round_up};
use super::vma::{VmFlags, Vma};
use crate::arch::{PAGE_SIZE, USER_END};
use crate::errno::{Errno, Result};
use crate::mm::pagetable::{PageTable, TABLE_SPAN, position};
use crate::mm::{commit, tlb};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// `MREMAP_MAYMOVE`
const MAY_MOVE: u32 = 1;
/// `MREMAP_FIXED`
const FIXED: u32 = 2;
/// `MREMAP_DONTUNMAP`
const DONT_UNMAP: u32 = 4;

impl AddressSpace {
    /// Resizes or moves the mapping at `old`. Returns its new address.
    pub fn mremap(
        &self,
        old: usize,
        old_len: usize,
        new_len: usize,
        flags: u32,
        new: usize,
    ) -> Result<usize> {
        let unknown = flags & !(MAY_MOVE | FIXED | DONT_UNMAP) != 0;
        let immovable = flags & (FIXED | DONT_UNMAP) != 0 && flags & MAY_MOVE == 0;
        let old_end = checked_range(old, old_len).map_err(|_| Errno::EINVAL)?;
        let new_len = round_up(new_len).filter(|&len| len != 0).ok_or(Errno::EINVAL)?;
        let mut old_len = old_end - old;
        let mut old_end = old_end;
        if unknown || immovable || flags & DONT_UNMAP != 0 && new_len != old_len {
            return Err(Errno::EINVAL);
        }
        if flags & FIXED != 0 {
            let end = checked_range(new, new_len).map_err(|_| Errno::EINVAL)?;
            if new < end && old < end && new < old_end.max(old + 1) {
                return Err(Errno::EINVAL);
            }
            if new < MMAP_MIN {
                return Err(Errno::EPERM);
            }
            // What is at the destination goes even if the rest fails, as on Linux.
            self.maps.read().find(old).ok_or(Errno::EFAULT)?;
            self.munmap(new, new_len)?;
        }
        if old_len > new_len {
            // What is cut off may be of several mappings.
            self.munmap(old + new_len, old_len - new_len)?;
            if flags & FIXED == 0 {
                return Ok(old);
            }
            (old_len, old_end) = (new_len, old + new_len);
        }
        let mut dropped = Vec::new();
        let mut maps = self.maps.write();
        let vma = maps.find(old).ok_or(Errno::EFAULT)?;
        if old_end > vma.end {
            return Err(Errno::EFAULT);
        }
        // A length of zero asks for a second mapping of shared memory.
        if old_len == 0 && !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        if old_len == new_len && flags & (FIXED | DONT_UNMAP) == 0 {
            return Ok(old);
        }
        let grown = new_len.saturating_sub(old_len);
        let data = if vma.is_data() { grown } else { 0 };
        self.check_room(&maps, grown, data, vma.flags)?;
        if data > 0 && !vma.flags.contains(VmFlags::NO_RESERVE) {
            commit::check(data)?;
        }
        let template = vma.clone();
        let locked = template.flags.contains(VmFlags::LOCKED);
        let in_place = flags & (FIXED | DONT_UNMAP) == 0
            && old_len > 0
            && old_end == vma.end
            && old.checked_add(new_len).is_some_and(|end| end <= USER_END)
            && maps.range(old_end, old + new_len).next().is_none();
        let moved = |start: usize, len: usize| {
            let mut vma = template.clone();
            if let Some(backing) = &mut vma.backing {
                backing.index = template.index_at(old);
            }
            (vma.start, vma.end) = (start, start + len);
            vma
        };
        if in_place {
            let mut more = moved(old_end, new_len - old_len);
            if let Some(backing) = &mut more.backing {
                backing.index = template.index_at(old_end);
            }
            maps.insert(more);
            drop(maps);
            if locked {
                let _ = self.populate(old_end, old + new_len);
            }
            return Ok(old);
        }
        if flags & MAY_MOVE == 0 {
            return Err(Errno::ENOMEM);
        }
        let to = if flags & FIXED != 0 {
            dropped.extend(maps.remove(new, new + new_len)?);
            self.pages.lock().zap(new, new + new_len, None)?;
            new
        } else {
            maps.find_room(new_len, MMAP_MIN, self.layout.mmap_top).ok_or(Errno::ENOMEM)?
        };
        let kept = old_len.min(new_len);
        self.move_pages(old, to, kept)?;
        let target: Vma = moved(to, new_len);
        if flags & DONT_UNMAP == 0 && old_len > 0 {
            dropped.extend(maps.remove(old, old_end)?);
        }
        maps.insert(target);
        drop(maps);
        drop(dropped);
        if locked {
            let _ = self.populate(to, to + new_len);
        }
        Ok(to)
    }

    /// Moves the pages of `from..from + len` to `to`, where there are none. On an error, they are where
    /// they were.
    fn move_pages(&self, from: usize, to: usize, len: usize) -> Result<()> {
        let mut pages = self.pages.lock();
        let root = pages.table.root().pfn();
        // Tables first: what was taken out of one must not be followed by a failure.
        let result = make_tables(&mut pages.table, from, to, len)
            .and_then(|()| move_entries(&mut pages.table, from, to, len));
        tlb::flush(root, from, from + len);
        // No mapping is left where they came from, or there is none yet where they were to go.
        let (start, end) = if result.is_ok() { (from, from + len) } else { (to, to + len) };
        pages.sweep(start, end);
        result
    }
}

/// Entries that are moved at a time.
const BATCH: usize = 64;

/// Calls `f` with the parts of `from..from + len` where there are pages, each within one table there
/// and at `to`: an address and a number of pages.
fn each_part(
    table: &mut PageTable,
    (from, to, len): (usize, usize, usize),
    mut f: impl FnMut(&mut PageTable, usize, usize) -> Result<()>,
) -> Result<()> {
    let mut at = from;
    while let Some(leaf) = table.next_leaf(at, from + len) {
        let (base, used) = (leaf.base, leaf.used() != 0);
        let next = base + TABLE_SPAN;
        at = from.max(base);
        let end = next.min(from + len);
        while used && at < end {
            let target = to + (at - from);
            let room = (target & !(TABLE_SPAN - 1)) + TABLE_SPAN - target;
            let count = ((end - at).min(room) / PAGE_SIZE).min(BATCH);
            f(table, at, count)?;
            at += count * PAGE_SIZE;
        }
        at = next;
    }
    Ok(())
}

/// Makes the tables at both ends the space's own, those at the destination where there is something to
/// move.
fn make_tables(table: &mut PageTable, from: usize, to: usize, len: usize) -> Result<()> {
    each_part(table, (from, to, len), |table, at, count| {
        let first = position(at, 0);
        let entries = &table.leaf_mut(at)?.table[first..first + count];
        if entries.iter().any(|entry| entry.load(Relaxed) != 0) {
            table.leaf_mut(to + (at - from))?;
        }
        Ok(())
    })
}

/// Moves entries between tables that are there.
fn move_entries(table: &mut PageTable, from: usize, to: usize, len: usize) -> Result<()> {
    each_part(table, (from, to, len), |table, at, count| {
        let (mut entries, mut moved) = ([0; BATCH], 0);
        let leaf = table.leaf_mut(at)?;
        let first = position(at, 0);
        for (entry, slot) in entries.iter_mut().zip(&leaf.table[first..first + count]) {
            *entry = slot.swap(0, Relaxed);
            moved += i32::from(*entry != 0);
        }
        leaf.count(-moved);
        if moved == 0 {
            return Ok(());
        }
        let target = to + (at - from);
        let leaf = table.leaf_mut(target)?;
        let first = position(target, 0);
        for (&entry, slot) in entries.iter().zip(&leaf.table[first..first + count]) {
            if entry != 0 {
                slot.store(entry, Relaxed);
            }
        }
        leaf.count(moved);
        Ok(())
    })
}
