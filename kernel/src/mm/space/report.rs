//! What /proc tells of an address space.

use super::vma::{Prot, VmFlags};
use super::{AddressSpace, Rss};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::mm::pagetable::{self, ACCESSED, ANON, DIRTY, TABLE_SPAN};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// One line of /proc/PID/maps.
#[derive(Clone)]
pub struct MapInfo {
    /// First address.
    pub start: usize,
    /// Address past the last.
    pub end: usize,
    /// Protection.
    pub prot: Prot,
    /// `s` rather than `p`.
    pub shared: bool,
    /// Offset in the file or object.
    pub offset: u64,
    /// The file mapped; shared anonymous memory has none.
    pub file: Option<Arc<File>>,
    /// The object behind the mapping, if any.
    pub object: Option<u64>,
    /// `[heap]`, `[stack]`, `[vdso]` or nothing.
    pub name: &'static str,
    /// Properties, for the `VmFlags` line of smaps.
    pub flags: VmFlags,
}

/// The numbers of one mapping in /proc/PID/smaps, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Smaps {
    pub rss: usize,
    /// Each page divided by its number of users.
    pub pss: usize,
    pub shared_clean: usize,
    pub shared_dirty: usize,
    pub private_clean: usize,
    pub private_dirty: usize,
    pub referenced: usize,
    pub anonymous: usize,
}

/// Sizes of an address space, in bytes except for the faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub virtual_size: usize,
    pub resident: usize,
    pub resident_anon: usize,
    pub resident_file: usize,
    pub resident_shmem: usize,
    pub peak_resident: usize,
    pub data: usize,
    pub stack: usize,
    pub locked: usize,
}

/// Advice of madvise(2), sorted by what it does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Drop the pages now.
    DontNeed,
    /// Drop the pages some time; private anonymous memory only.
    Free,
    /// Read ahead.
    WillNeed,
    /// Punch a hole into the object.
    Remove,
    /// Fault in.
    Populate { write: bool },
    /// Set properties.
    Set(VmFlags),
    /// Clear properties.
    Clear(VmFlags),
    /// Accepted without effect.
    Hint,
}

impl Advice {
    /// The advice with number `MADV_*`. EINVAL for unknown ones and for what this kernel doesn't
    /// have, as Linux says without the configuration for it (KSM, memory failure injection).
    pub fn from_raw(advice: i32) -> Result<Advice> {
        Ok(match advice {
            // NORMAL, RANDOM, SEQUENTIAL, COLD, PAGEOUT, COLLAPSE
            0..=2 | 20 | 21 | 25 => Advice::Hint,
            3 => Advice::WillNeed,
            4 => Advice::DontNeed,
            8 => Advice::Free,
            9 => Advice::Remove,
            10 => Advice::Set(VmFlags::DONT_FORK),
            11 => Advice::Clear(VmFlags::DONT_FORK),
            14 => Advice::Set(VmFlags::HUGE),
            15 => Advice::Set(VmFlags::NO_HUGE),
            16 => Advice::Set(VmFlags::DONT_DUMP),
            17 => Advice::Clear(VmFlags::DONT_DUMP),
            18 => Advice::Set(VmFlags::WIPE_ON_FORK),
            19 => Advice::Clear(VmFlags::WIPE_ON_FORK),
            22 => Advice::Populate { write: false },
            23 => Advice::Populate { write: true },
            24 => Advice::DontNeed,
            _ => return Err(Errno::EINVAL),
        })
    }
}

impl AddressSpace {
    /// The mappings in order.
    pub fn vmas(&self) -> Vec<MapInfo> {
        let maps = self.maps.read();
        let mut out = Vec::new();
        if out.try_reserve_exact(maps.count()).is_err() {
            return out;
        }
        out.extend(maps.iter().map(|vma| MapInfo {
            start: vma.start,
            end: vma.end,
            prot: vma.prot,
            shared: vma.is_shared(),
            offset: vma.backing.as_ref().map_or(0, |b| b.index * PAGE_SIZE as u64),
            file: vma.backing.as_ref().and_then(|b| b.file.clone()),
            object: vma.backing.as_ref().map(|b| b.cache.id()),
            name: match vma.flags {
                flags if flags.contains(VmFlags::HEAP) => "[heap]",
                flags if flags.contains(VmFlags::STACK) => "[stack]",
                flags if flags.contains(VmFlags::VDSO) => "[vdso]",
                _ => "",
            },
            flags: vma.flags,
        }));
        out
    }

    /// The numbers of `start..end`, a mapping that [`vmas`](AddressSpace::vmas) named.
    pub fn smaps(&self, start: usize, end: usize) -> Smaps {
        let mut sum = Smaps::default();
        let pages = self.pages.lock();
        let mut at = start;
        while let Some(leaf) = pages.table.next_leaf(at, end) {
            at = leaf.base + TABLE_SPAN;
            let table_users = crate::mm::frame::page::page(leaf.pfn()).refs.load(Relaxed).max(1);
            for slot in &leaf.table[leaf.range(start, end)] {
                let entry = slot.load(Relaxed);
                let Some(pfn) = pagetable::pfn_of(entry).filter(|_| entry & super::rss::ZERO == 0)
                else {
                    continue;
                };
                let refs = crate::mm::frame::page::page(pfn.get()).refs.load(Relaxed);
                // The cache's own reference is not a user.
                let users = match entry & ANON {
                    0 => refs.saturating_sub(1).max(1),
                    _ => refs.max(1) + table_users - 1,
                } as usize;
                sum.rss += PAGE_SIZE;
                sum.pss += PAGE_SIZE / users;
                let dirty = entry & DIRTY != 0;
                *match (users > 1, dirty) {
                    (true, true) => &mut sum.shared_dirty,
                    (true, false) => &mut sum.shared_clean,
                    (false, true) => &mut sum.private_dirty,
                    (false, false) => &mut sum.private_clean,
                } += PAGE_SIZE;
                sum.referenced += if entry & ACCESSED != 0 { PAGE_SIZE } else { 0 };
                sum.anonymous += if entry & ANON != 0 { PAGE_SIZE } else { 0 };
            }
        }
        sum
    }

    /// Resident pages by kind.
    pub fn rss(&self) -> Rss {
        self.pages.lock().rss
    }

    /// The most bytes of it that were resident at once.
    pub fn peak_resident(&self) -> usize {
        self.pages.lock().rss.peak * PAGE_SIZE
    }

    /// Sizes and counts.
    pub fn stats(&self) -> Stats {
        let maps = self.maps.read();
        let stack = maps
            .iter()
            .filter(|vma| vma.flags.contains(VmFlags::STACK))
            .map(|vma| vma.end - vma.start)
            .sum();
        let rss = self.pages.lock().rss;
        Stats {
            virtual_size: maps.total(),
            resident: rss.total() * PAGE_SIZE,
            resident_anon: rss.anon * PAGE_SIZE,
            resident_file: rss.file * PAGE_SIZE,
            resident_shmem: rss.shmem * PAGE_SIZE,
            peak_resident: rss.peak * PAGE_SIZE,
            data: maps.data(),
            stack,
            locked: maps.locked(),
        }
    }

    /// Pages in page tables, those shared since fork among them. Walks all of them.
    pub fn page_table_pages(&self) -> usize {
        let pages = self.pages.lock();
        let (mut tables, mut at) = (1, 0);
        while let Some(leaf) = pages.table.next_leaf(at, crate::arch::USER_END) {
            at = leaf.base + TABLE_SPAN;
            tables += 1;
        }
        tables
    }

    /// Start and present end of the heap (/proc/PID/stat).
    pub fn heap(&self) -> (usize, usize) {
        let maps = self.maps.read();
        (maps.brk_start, maps.brk)
    }
}
