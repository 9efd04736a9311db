//! madvise, mlock, msync, mincore.

use super::AddressSpace;
use super::fault::FaultError;
use super::map::checked_range;
use super::report::Advice;
use super::vma::{Prot, VmFlags, Vma};
use crate::arch::{PAGE_SHIFT, PAGE_SIZE};
use crate::errno::{Errno, Result};
use crate::mm::PageCache;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Most pages that `MADV_WILLNEED` reads at once.
const WILL_NEED_MAX: u64 = 256;

impl AddressSpace {
    /// madvise(2). Unmapped parts of the range are skipped; ENOMEM tells of them at the end.
    pub fn madvise(&self, start: usize, len: usize, advice: Advice) -> Result<()> {
        let end = checked_range(start, len).map_err(|_| Errno::EINVAL)?;
        if start == end {
            return Ok(());
        }
        let complete = self.maps.read().covers(start, end);
        match advice {
            Advice::DontNeed | Advice::Free => self.discard(start, end, advice)?,
            Advice::WillNeed => self.will_need(start, end),
            Advice::Remove => self.punch(start, end)?,
            Advice::Populate { write } => {
                for addr in (start..end).step_by(PAGE_SIZE) {
                    self.handle_fault(addr, write, false).map_err(Errno::from)?;
                }
            }
            Advice::Set(flags) => {
                if flags.contains(VmFlags::WIPE_ON_FORK) {
                    let fits = |vma: &Vma| vma.backing.is_none();
                    if !self.maps.read().range(start, end).all(fits) {
                        return Err(Errno::EINVAL);
                    }
                }
                self.maps.write().update(start, end, |vma| {
                    if flags.contains(VmFlags::HUGE) {
                        vma.flags -= VmFlags::NO_HUGE;
                    }
                    if flags.contains(VmFlags::NO_HUGE) {
                        vma.flags -= VmFlags::HUGE;
                    }
                    vma.flags |= flags;
                })?;
            }
            Advice::Clear(flags) => {
                self.maps.write().update(start, end, |vma| vma.flags -= flags)?;
            }
            Advice::Hint => {}
        }
        if complete { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    fn discard(&self, start: usize, end: usize, advice: Advice) -> Result<()> {
        let maps = self.maps.read();
        for vma in maps.range(start, end) {
            if vma.flags.contains(VmFlags::LOCKED)
                || advice == Advice::Free && vma.backing.is_some()
            {
                return Err(Errno::EINVAL);
            }
            let (from, to) = (vma.start.max(start), vma.end.min(end));
            self.pages.lock().zap(from, to, None)?;
        }
        Ok(())
    }

    /// The objects behind a range: (object, first page, last page).
    fn objects(&self, start: usize, end: usize) -> Vec<(Arc<PageCache>, u64, u64, bool)> {
        let maps = self.maps.read();
        maps.range(start, end)
            .filter_map(|vma| {
                let backing = vma.backing.as_ref()?;
                let (from, to) = (vma.start.max(start), vma.end.min(end));
                Some((backing.cache.clone(), vma.index_at(from), vma.index_at(to), vma.is_shared()))
            })
            .collect()
    }

    fn will_need(&self, start: usize, end: usize) {
        for (cache, first, last, _) in self.objects(start, end) {
            let last = last.min(cache.len().div_ceil(PAGE_SIZE as u64)).min(first + WILL_NEED_MAX);
            for index in first..last {
                if cache.get_page(index, false).is_err() {
                    return;
                }
            }
        }
    }

    fn punch(&self, start: usize, end: usize) -> Result<()> {
        for vma in self.maps.read().range(start, end) {
            if vma.flags.contains(VmFlags::LOCKED) || vma.backing.is_none() {
                return Err(Errno::EINVAL);
            }
            if !vma.is_shared() || !vma.may.contains(Prot::WRITE) {
                return Err(Errno::EACCES);
            }
        }
        for (cache, first, last, _) in self.objects(start, end) {
            cache.punch_hole(first << PAGE_SHIFT, last << PAGE_SHIFT)?;
        }
        Ok(())
    }

    /// mlock2(2): keeps pages in memory, which they are anyway once touched; so it counts and
    /// (unless `on_fault`) touches them. `privileged` callers (`CAP_IPC_LOCK`) are not limited.
    pub fn mlock(&self, start: usize, len: usize, on_fault: bool, privileged: bool) -> Result<()> {
        let offset = start % PAGE_SIZE;
        let (start, len) = (start - offset, len.checked_add(offset).ok_or(Errno::EINVAL)?);
        let end = checked_range(start, len)?;
        {
            let mut maps = self.maps.write();
            if !maps.covers(start, end) {
                return Err(Errno::ENOMEM);
            }
            let unlocked = |vma: &&Vma| !vma.flags.contains(VmFlags::LOCKED);
            let more: usize = maps
                .range(start, end)
                .filter(unlocked)
                .map(|vma| vma.end.min(end) - vma.start.max(start))
                .sum();
            if !privileged && maps.locked() + more > self.lock_limit() {
                return Err(if self.lock_limit() == 0 { Errno::EPERM } else { Errno::ENOMEM });
            }
            if start < end {
                maps.update(start, end, |vma| vma.flags |= VmFlags::LOCKED)?;
            }
        }
        if on_fault {
            return Ok(());
        }
        // They count as locked even so (Linux: `__mlock_posix_error_return`).
        self.populate(start, end).map_err(|error| match error {
            FaultError::NoMemory => Errno::EAGAIN,
            _ => Errno::ENOMEM,
        })
    }

    /// munlock(2).
    pub fn munlock(&self, start: usize, len: usize) -> Result<()> {
        let offset = start % PAGE_SIZE;
        let (start, len) = (start - offset, len.checked_add(offset).ok_or(Errno::EINVAL)?);
        let end = checked_range(start, len)?;
        let mut maps = self.maps.write();
        if !maps.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        if start < end {
            maps.update(start, end, |vma| vma.flags -= VmFlags::LOCKED)?;
        }
        Ok(())
    }

    /// mlockall(2): what is mapped now, and what will be.
    pub fn mlock_all(&self, current: bool, future: bool, privileged: bool) -> Result<()> {
        let mut ranges = Vec::new();
        {
            let mut maps = self.maps.write();
            if !privileged && self.lock_limit() == 0 {
                return Err(Errno::EPERM);
            }
            if !privileged && current && maps.total() > self.lock_limit() {
                return Err(Errno::ENOMEM);
            }
            maps.lock_future = future;
            if current {
                ranges.extend(maps.iter().map(|vma| (vma.start, vma.end)));
                for &(start, end) in &ranges {
                    maps.update(start, end, |vma| vma.flags |= VmFlags::LOCKED)?;
                }
            }
        }
        for (start, end) in ranges {
            let _ = self.populate(start, end);
        }
        Ok(())
    }

    /// munlockall(2).
    pub fn munlock_all(&self) -> Result<()> {
        let mut maps = self.maps.write();
        maps.lock_future = false;
        let ranges: Vec<_> = maps.iter().map(|vma| (vma.start, vma.end)).collect();
        for (start, end) in ranges {
            maps.update(start, end, |vma| vma.flags -= VmFlags::LOCKED)?;
        }
        Ok(())
    }

    /// msync(2): mappings and reads share their pages, so there is nothing to write back to; checks
    /// the range and returns the files whose own sync the caller owes for `MS_SYNC`.
    pub fn msync(
        &self,
        start: usize,
        len: usize,
        invalidate: bool,
    ) -> Result<Vec<Arc<crate::fs::File>>> {
        let end = checked_range(start, len)?;
        let maps = self.maps.read();
        if start < end && !maps.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        let mut files = Vec::new();
        for vma in maps.range(start, end) {
            if invalidate && vma.flags.contains(VmFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            if vma.is_shared() {
                files.extend(vma.backing.as_ref().and_then(|backing| backing.file.clone()));
            }
        }
        Ok(files)
    }

    /// Whether mappings cover all of `start..end`.
    pub fn is_mapped(&self, start: usize, end: usize) -> bool {
        self.maps.read().covers(start, end)
    }

    /// mincore(2): calls `put` with one byte per page of the range, 1 if an access wouldn't wait
    /// for a device.
    pub fn mincore(
        &self,
        start: usize,
        len: usize,
        mut put: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let end = checked_range(start, len)?;
        let mut at = start;
        let mut bytes = [0u8; 256];
        while at < end {
            let count = ((end - at) / PAGE_SIZE).min(bytes.len());
            {
                let maps = self.maps.read();
                let pages = self.pages.lock();
                for (page, byte) in bytes[..count].iter_mut().enumerate() {
                    let addr = at + page * PAGE_SIZE;
                    let vma = maps.find(addr).ok_or(Errno::ENOMEM)?;
                    let cached = || {
                        let backing = vma.backing.as_ref()?;
                        backing.cache.peek(vma.index_at(addr), false)
                    };
                    *byte = u8::from(pages.table.get(addr) != 0 || cached().is_some());
                }
            }
            put(&bytes[..count])?;
            at += count * PAGE_SIZE;
        }
        Ok(())
    }
}
