//! mmap, munmap, mprotect, brk.

use super::fault::FaultError;
use super::maps::{MAX_MAPS, Maps, STACK_GUARD};
use super::rss::{Pages, ZERO};
use super::vma::{Backing, Prot, VmFlags, Vma};
use super::{AddressSpace, Limits};
use crate::arch::{PAGE_SHIFT, PAGE_SIZE, USER_END};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::mm::pagetable::{self, ANON, NO_EXECUTE, PRESENT, TABLE_SPAN, WRITE};
use crate::mm::{PageCache, commit, tlb};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

/// Lowest address an application may map (`vm.mmap_min_addr`).
pub const MMAP_MIN: usize = 65536;
/// End of what `MAP_32BIT` reaches.
const LOW_2G: usize = 1 << 31;

bitflags::bitflags! {
    /// Flags of mmap(2) with the values of `MAP_*`. `MAP_DENYWRITE`, `MAP_EXECUTABLE` and
    /// `MAP_FILE` mean nothing.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapFlags: u32 {
        const SHARED = 0x1;
        const PRIVATE = 0x2;
        const FIXED = 0x10;
        const ANONYMOUS = 0x20;
        const LOW_32BIT = 0x40;
        const GROWSDOWN = 0x100;
        const LOCKED = 0x2000;
        const NORESERVE = 0x4000;
        const POPULATE = 0x8000;
        const NONBLOCK = 0x1_0000;
        const STACK = 0x2_0000;
        const FIXED_NOREPLACE = 0x10_0000;
        /// The caller has `CAP_IPC_LOCK`. Not an application's flag.
        const MAY_LOCK = 1 << 29;
        /// The main thread's stack. Not an application's flag.
        const MAIN_STACK = 1 << 30;
        /// Kernel-provided code. Not an application's flag.
        const VDSO = 1 << 31;
    }
}

/// What a mapping shows: an object, the file it was opened as (none for shared anonymous memory and
/// kernel-provided pages), and the offset of the mapping's start, a multiple of the page size.
pub type FileMapping = (Arc<PageCache>, Option<Arc<File>>, u64);

impl AddressSpace {
    /// Maps `len` bytes. `hint` is the wanted address, binding with `FIXED`. `may` is what
    /// mprotect(2) may set later (a shared mapping of a file that isn't open for writing must never
    /// become writable). Returns the address.
    pub fn mmap(
        &self,
        hint: usize,
        len: usize,
        prot: Prot,
        may: Prot,
        flags: MapFlags,
        file: Option<FileMapping>,
    ) -> Result<usize> {
        let len = round_up(len).filter(|&len| len > 0 && len <= USER_END).ok_or(if len == 0 {
            Errno::EINVAL
        } else {
            Errno::ENOMEM
        })?;
        let mut vm_flags = vm_flags(flags);
        if commit::is_strict() {
            vm_flags -= VmFlags::NO_RESERVE;
        }
        let index = match &file {
            Some((_, _, offset)) if offset % PAGE_SIZE as u64 != 0 => return Err(Errno::EINVAL),
            Some((_, _, offset)) => {
                offset
                    .checked_add(len as u64)
                    .filter(|&end| end <= i64::MAX as u64)
                    .ok_or(Errno::EOVERFLOW)?;
                offset >> PAGE_SHIFT
            }
            None => 0,
        };
        let object = match file {
            Some((cache, file, _)) => Some((cache, file)),
            None if vm_flags.contains(VmFlags::SHARED) => {
                if !vm_flags.contains(VmFlags::NO_RESERVE) {
                    commit::check(len)?;
                }
                Some((PageCache::anonymous(len as u64), None))
            }
            None => None,
        };
        let mut maps = self.maps.write();
        if maps.lock_future {
            vm_flags |= VmFlags::LOCKED;
        }
        let start = self.place(&mut maps, hint, len, flags)?;
        let fixed = flags.contains(MapFlags::FIXED);
        let data = prot.contains(Prot::WRITE)
            && !vm_flags.intersects(VmFlags::SHARED | VmFlags::GROWS_DOWN);
        let replaced = if fixed {
            maps.range(start, start + len)
                .map(|v| v.end.min(start + len) - v.start.max(start))
                .sum()
        } else {
            0
        };
        let counted =
            if flags.contains(MapFlags::MAY_LOCK) { vm_flags - VmFlags::LOCKED } else { vm_flags };
        self.check_room(&maps, len - len.min(replaced), if data { len } else { 0 }, counted)?;
        if data && !vm_flags.contains(VmFlags::NO_RESERVE) {
            commit::check(len)?;
        }
        let backing = match object {
            Some((cache, file)) => {
                let writable = vm_flags.contains(VmFlags::SHARED) && may.contains(Prot::WRITE);
                Some(Backing::new(cache, file, index, (&self.this, self.id), writable)?)
            }
            None => None,
        };
        let removed = if fixed {
            let removed = maps.remove(start, start + len)?;
            if !removed.is_empty() {
                self.pages.lock().zap(start, start + len, None)?;
            }
            removed
        } else {
            alloc::vec::Vec::new()
        };
        let populate = flags.contains(MapFlags::POPULATE) && !flags.contains(MapFlags::NONBLOCK)
            || vm_flags.contains(VmFlags::LOCKED);
        maps.insert(Vma { start, end: start + len, prot, may, flags: vm_flags, backing });
        drop(maps);
        drop(removed);
        if populate && !prot.is_empty() {
            let _ = self.populate(start, start + len);
        }
        Ok(start)
    }

    /// Where a mapping goes.
    fn place(&self, maps: &mut Maps, hint: usize, len: usize, flags: MapFlags) -> Result<usize> {
        if flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE) {
            if !hint.is_multiple_of(PAGE_SIZE) {
                return Err(Errno::EINVAL);
            }
            let end = hint.checked_add(len).filter(|&end| end <= USER_END).ok_or(Errno::ENOMEM)?;
            if hint < MMAP_MIN {
                return Err(Errno::EPERM);
            }
            let busy = maps.range(hint, end).next().is_some();
            if flags.contains(MapFlags::FIXED_NOREPLACE) && busy {
                return Err(Errno::EEXIST);
            }
            return Ok(hint);
        }
        let hint = hint & !(PAGE_SIZE - 1);
        let low = flags.contains(MapFlags::LOW_32BIT);
        let limit = if low { LOW_2G } else { USER_END };
        if hint >= MMAP_MIN
            && let Some(end) = hint.checked_add(len).filter(|&end| end <= limit)
            && maps.range(hint, end).next().is_none()
            && maps.above(hint).is_none_or(|next| {
                !next.flags.contains(VmFlags::GROWS_DOWN) || next.start - end >= STACK_GUARD
            })
        {
            return Ok(hint);
        }
        if low {
            return maps.find_room_low(len, 0x4000_0000, LOW_2G).ok_or(Errno::ENOMEM);
        }
        let top = self.layout.mmap_top;
        maps.find_room(len, MMAP_MIN, top)
            .or_else(|| maps.find_room_low(len, top, USER_END))
            .ok_or(Errno::ENOMEM)
    }

    pub(super) fn check_room(
        &self,
        maps: &Maps,
        more: usize,
        more_data: usize,
        flags: VmFlags,
    ) -> Result<()> {
        if maps.count() >= MAX_MAPS.size()
            || maps.total() + more > Limits::get(&self.limits.address_space)
            || maps.data() + more_data > Limits::get(&self.limits.data)
        {
            return Err(Errno::ENOMEM);
        }
        if flags.contains(VmFlags::LOCKED) && maps.locked() + more > self.lock_limit() {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// Unmaps every page of `start..start + len`.
    pub fn munmap(&self, start: usize, len: usize) -> Result<()> {
        let end = checked_range(start, len).map_err(|_| Errno::EINVAL)?;
        if start == end {
            return Err(Errno::EINVAL);
        }
        let mut maps = self.maps.write();
        let removed = maps.remove(start, end)?;
        let zapped =
            if removed.is_empty() { Ok(()) } else { self.pages.lock().zap(start, end, None) };
        drop(maps);
        drop(removed);
        zapped
    }

    /// The start of the mapping at `addr` if it grows down (mprotect(2) `PROT_GROWSDOWN`).
    pub fn grows_down_start(&self, addr: usize) -> Option<usize> {
        let maps = self.maps.read();
        maps.find(addr).filter(|vma| vma.flags.contains(VmFlags::GROWS_DOWN)).map(|vma| vma.start)
    }

    /// Unmaps every mapping of the object whose first page is mapped at `addr`, if `wanted` accepts
    /// the object's number (shmdt(2)); returns the number. EINVAL if there is none.
    pub fn unmap_object(&self, addr: usize, wanted: impl Fn(u64) -> bool) -> Result<u64> {
        let (object, end) = {
            let maps = self.maps.read();
            let first = |vma: &Vma| {
                let backing = vma.backing.as_ref()?;
                (vma.start == addr + ((backing.index as usize) << PAGE_SHIFT))
                    .then(|| (backing.cache.id(), backing.cache.len()))
            };
            let found = maps.range(addr, USER_END).find_map(first).filter(|&(id, _)| wanted(id));
            let (object, len) = found.ok_or(Errno::EINVAL)?;
            (object, addr + round_up(len as usize).ok_or(Errno::EINVAL)?)
        };
        let pieces: alloc::vec::Vec<(usize, usize)> = self
            .maps
            .read()
            .range(addr, end)
            .filter(|vma| {
                vma.backing.as_ref().is_some_and(|backing| {
                    backing.cache.id() == object
                        && vma.start.wrapping_sub((backing.index as usize) << PAGE_SHIFT) == addr
                })
            })
            .map(|vma| (vma.start, vma.len()))
            .collect();
        for (start, len) in pieces {
            self.munmap(start, len)?;
        }
        Ok(object)
    }

    /// Changes the protection of every page of `start..start + len`.
    pub fn mprotect(&self, start: usize, len: usize, prot: Prot) -> Result<()> {
        let end = checked_range(start, len)?;
        if start == end {
            return Ok(());
        }
        let mut maps = self.maps.write();
        let (mut at, mut allowed, mut same) = (start, true, true);
        for vma in maps.range(start, end) {
            if vma.start > at {
                break;
            }
            allowed &= vma.may.contains(prot);
            same &= vma.prot == prot;
            at = vma.end;
        }
        if at < end {
            return Err(Errno::ENOMEM);
        }
        if !allowed {
            return Err(Errno::EACCES);
        }
        if same {
            return Ok(());
        }
        if prot.contains(Prot::WRITE) {
            // What becomes writable is promised from now on.
            let reserves = |vma: &&Vma| {
                !vma.is_promised() && !vma.flags.intersects(VmFlags::SHARED | VmFlags::NO_RESERVE)
            };
            let lens = maps.range(start, end).filter(reserves);
            let lens = lens.map(|vma| vma.end.min(end) - vma.start.max(start));
            let more = if commit::is_strict() { lens.sum() } else { lens.max().unwrap_or(0) };
            commit::check(more)?;
        }
        maps.update(start, end, |vma| vma.prot = prot)?;
        self.protect_pages(start, end, prot)
    }

    fn protect_pages(&self, start: usize, end: usize, prot: Prot) -> Result<()> {
        let mut pages = self.pages.lock();
        let Pages { table, .. } = &mut *pages;
        let root = table.root().pfn();
        let (mut at, mut taken) = (start, false);
        while let Some(leaf) = table.next_leaf(at, end) {
            at = leaf.base + TABLE_SPAN;
            if leaf.used() == 0 {
                continue;
            }
            let leaf = leaf.own()?;
            for position in leaf.range(start, end) {
                let slot = &leaf.table[position];
                let old = slot.load(Relaxed);
                if old == 0 {
                    continue;
                }
                let mut new = old & !(PRESENT | NO_EXECUTE);
                if !prot.is_empty() {
                    new |= PRESENT;
                }
                if !prot.contains(Prot::EXEC) {
                    new |= NO_EXECUTE;
                }
                if !prot.contains(Prot::WRITE) {
                    new &= !WRITE;
                } else if old & (ANON | ZERO) == ANON && is_sole_user(old) {
                    // Saves the fault that would find the same.
                    new |= WRITE;
                }
                if new != old {
                    slot.store(new, Relaxed);
                    // A CPU that still believes in less takes a fault that changes nothing.
                    let less = old & !new & (PRESENT | WRITE) | new & !old & NO_EXECUTE;
                    taken |= old & PRESENT != 0 && less != 0;
                }
            }
        }
        if taken {
            tlb::flush(root, start, end);
        }
        Ok(())
    }

    /// Names the end of the program's data, from which the heap grows (exec). The heap starts some
    /// way after it.
    pub fn set_brk_start(&self, end: usize) {
        let mut maps = self.maps.write();
        let start = round_up(end + self.layout.brk_offset).unwrap_or(end);
        (maps.brk_start, maps.brk) = (start, start);
    }

    /// brk(2): moves the end of the heap; returns where it is afterwards.
    pub fn brk(&self, wanted: usize) -> usize {
        let mut maps = self.maps.write();
        let (start, old) = (maps.brk_start, maps.brk);
        let (Some(old_end), Some(end)) = (round_up(old), round_up(wanted)) else { return old };
        if wanted < start || end > USER_END {
            return old;
        }
        let mut removed = alloc::vec::Vec::new();
        if end < old_end {
            match maps.remove(end, old_end) {
                Ok(vmas) => removed = vmas,
                Err(_) => return old,
            }
            if self.pages.lock().zap(end, old_end, None).is_err() {
                return old;
            }
        } else if end > old_end {
            let more = end - old_end;
            let crowded = maps.range(old_end, end + PAGE_SIZE).next().is_some()
                || maps.above(end).is_some_and(|next| {
                    next.flags.contains(VmFlags::GROWS_DOWN) && next.start - end < STACK_GUARD
                });
            let mut flags = VmFlags::HEAP;
            flags.set(VmFlags::LOCKED, maps.lock_future);
            if crowded
                || self.check_room(&maps, more, more, flags).is_err()
                || (end - start) > Limits::get(&self.limits.data)
                || commit::check(more).is_err()
            {
                return old;
            }
            let (prot, may) = (Prot::READ | Prot::WRITE, Prot::all());
            maps.insert(Vma { start: old_end, end, prot, may, flags, backing: None });
        }
        maps.brk = wanted;
        let populate = maps.lock_future && end > old_end;
        drop(maps);
        drop(removed);
        if populate {
            let _ = self.populate(old_end, end);
        }
        wanted
    }

    /// Faults pages in as far as that succeeds.
    pub(super) fn populate(
        &self,
        start: usize,
        end: usize,
    ) -> core::result::Result<(), FaultError> {
        let mut at = start;
        while at < end {
            let Some((write, until)) =
                self.maps.read().find(at).map(|vma| {
                    (vma.prot.contains(Prot::WRITE) && !vma.is_shared(), vma.end.min(end))
                })
            else {
                return Err(FaultError::Unmapped);
            };
            while at < until {
                if self.pages.lock().table.get(at) == 0 {
                    self.handle_fault(at, write, false)?;
                }
                at += PAGE_SIZE;
            }
        }
        Ok(())
    }

    pub(super) fn lock_limit(&self) -> usize {
        Limits::get(&self.limits.locked)
    }
}

/// Whether the entry holds the only reference to its page.
fn is_sole_user(entry: u64) -> bool {
    pagetable::pfn_of(entry).is_some_and(|pfn| {
        crate::mm::frame::page::page(pfn.get()).refs.load(core::sync::atomic::Ordering::Acquire)
            == 1
    })
}

fn vm_flags(flags: MapFlags) -> VmFlags {
    let pairs = [
        (MapFlags::SHARED, VmFlags::SHARED),
        (MapFlags::GROWSDOWN, VmFlags::GROWS_DOWN),
        (MapFlags::LOCKED, VmFlags::LOCKED),
        (MapFlags::NORESERVE, VmFlags::NO_RESERVE),
        (MapFlags::MAIN_STACK, VmFlags::STACK.union(VmFlags::GROWS_DOWN)),
        (MapFlags::VDSO, VmFlags::VDSO),
    ];
    pairs.into_iter().filter(|&(map, _)| flags.contains(map)).map(|(_, vm)| vm).collect()
}

/// Rounds up to whole pages; `None` on overflow.
pub(super) fn round_up(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(PAGE_SIZE)
}

/// The end of a page-aligned user range. EINVAL if it isn't aligned, ENOMEM if it leaves user
/// space.
pub(super) fn checked_range(start: usize, len: usize) -> Result<usize> {
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    round_up(len)
        .and_then(|len| start.checked_add(len))
        .filter(|&end| end <= USER_END)
        .ok_or(Errno::ENOMEM)
}
