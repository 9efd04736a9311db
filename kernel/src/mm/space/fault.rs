//! Page faults.

use super::maps::{Maps, STACK_GUARD};
use super::rss::{Pages, SHMEM, ZERO};
use super::vma::{Backing, Prot, VmFlags, Vma};
use super::{AddressSpace, Limits};
use crate::arch::{PAGE_SHIFT, PAGE_SIZE, USER_END};
use crate::errno::Errno;
use crate::mm::cache::AROUND;
use crate::mm::pagetable::{self, ACCESSED, ANON, DIRTY, TABLE_SPAN, WRITE, position};
use crate::mm::{PageCache, PageRef, oom, tlb};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

/// Why an access can't be made to work: the signal it raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// Nothing is mapped there: `SIGSEGV`, `SEGV_MAPERR`.
    Unmapped,
    /// The mapping forbids it: `SIGSEGV`, `SEGV_ACCERR`.
    Forbidden,
    /// Past the end of the file, or its page can't be read: `SIGBUS`, `BUS_ADRERR`.
    NoPage,
    /// Out of memory, and this process was chosen to die or nothing could be freed.
    NoMemory,
}

impl From<FaultError> for Errno {
    fn from(error: FaultError) -> Errno {
        match error {
            FaultError::NoMemory => Errno::ENOMEM,
            _ => Errno::EFAULT,
        }
    }
}

/// How an attempt to resolve a fault ended.
enum Step {
    Done,
    /// Somebody else changed the entry meanwhile: look again.
    Again,
    /// The cache must read or make a page first, with no lock held.
    Fill {
        cache: Arc<PageCache>,
        index: u64,
        write: bool,
    },
    NoMemory,
    PastEnd,
}

/// What an access wants.
#[derive(Clone, Copy)]
pub(super) struct Access {
    pub write: bool,
    pub exec: bool,
    /// For a debugger: private pages are copied for writing whatever their protection.
    pub force: bool,
}

impl AddressSpace {
    /// Makes the page at `addr` accessible as an access of this kind needs it. Returns whether it
    /// was read for that (a major fault).
    pub fn handle_fault(&self, addr: usize, write: bool, exec: bool) -> Result<bool, FaultError> {
        self.fault(addr, Access { write, exec, force: false })
    }

    pub(super) fn fault(&self, addr: usize, access: Access) -> Result<bool, FaultError> {
        if addr >= USER_END {
            return Err(FaultError::Unmapped);
        }
        // Keeps a page that was read in for us from being dropped before we map it.
        let mut filled = None;
        loop {
            let maps = self.maps.read();
            let Some(vma) = maps.find(addr) else {
                drop(maps);
                self.grow_stack(addr)?;
                continue;
            };
            if !access.allowed(vma) {
                return Err(FaultError::Forbidden);
            }
            match self.resolve(&maps, vma, addr & !(PAGE_SIZE - 1), access.write) {
                Step::Done => return Ok(filled.is_some()),
                Step::Again => {}
                Step::Fill { cache, index, write } => {
                    drop(maps);
                    match cache.get_page(index, write) {
                        Ok(page) => filled = Some(page),
                        Err(Errno::ENOMEM) => {
                            oom::make_room(false).map_err(|_| FaultError::NoMemory)?;
                        }
                        Err(_) => return Err(FaultError::NoPage),
                    }
                }
                Step::NoMemory => {
                    drop(maps);
                    oom::make_room(true).map_err(|_| FaultError::NoMemory)?;
                }
                Step::PastEnd => return Err(FaultError::NoPage),
            }
        }
    }

    fn resolve(&self, _maps: &Maps, vma: &Vma, addr: usize, write: bool) -> Step {
        let mut pages = self.pages.lock();
        let entry = pages.table.get(addr);
        if entry != 0 && (!write || entry & WRITE != 0) {
            // Another thread was faster, or this CPU's translation is older than the entry.
            tlb::flush_here(addr);
            return Step::Done;
        }
        match &vma.backing {
            Some(backing) if vma.is_shared() => {
                self.map_shared(&mut pages, vma, backing, addr, write)
            }
            Some(backing) if entry == 0 => {
                if !write {
                    return map_around(&mut pages, vma, backing, addr);
                }
                let index = vma.index_at(addr);
                if index >= pages_of(&backing.cache) {
                    return Step::PastEnd;
                }
                let Some(page) = backing.cache.peek(index, false) else {
                    return Step::Fill { cache: backing.cache.clone(), index, write: false };
                };
                drop(pages);
                self.replace(vma, addr, 0, Some(page))
            }
            None if entry == 0 => {
                if !write {
                    return map_zero(&mut pages, vma, addr);
                }
                drop(pages);
                self.replace(vma, addr, 0, None)
            }
            _ if entry & ZERO != 0 => {
                drop(pages);
                self.replace(vma, addr, entry, None)
            }
            _ => match reuse(&mut pages, vma, addr) {
                Ok(true) => Step::Done,
                Ok(false) => {
                    let entry = pages.table.get(addr);
                    let page = pagetable::share(entry);
                    drop(pages);
                    self.replace(vma, addr, entry, page)
                }
                Err(_) => Step::NoMemory,
            },
        }
    }

    /// Puts a private page in the place of `old`: a copy of `content`, or zeros.
    fn replace(&self, vma: &Vma, addr: usize, old: u64, content: Option<PageRef>) -> Step {
        let Ok(page) = PageRef::alloc_own(content.is_none()) else { return Step::NoMemory };
        if let Some(content) = &content {
            page.copy_from(content);
        }
        let mut pages = self.pages.lock();
        let Pages { table, rss } = &mut *pages;
        let root = table.root().pfn();
        let Ok(leaf) = table.leaf_mut(addr) else { return Step::NoMemory };
        let slot = &leaf.table[position(addr, 0)];
        let current = slot.load(Relaxed);
        if (current ^ old) & !(ACCESSED | DIRTY | WRITE) != 0 {
            return Step::Again;
        }
        let entry = pagetable::entry(page, vma.bits(true, true) | ACCESSED | DIRTY);
        if current == 0 {
            Pages::set(rss, &leaf, position(addr, 0), entry);
            return Step::Done;
        }
        slot.store(entry, Relaxed);
        if current & ZERO == 0 {
            rss.sub(current);
        }
        rss.add(entry);
        tlb::flush(root, addr, addr + PAGE_SIZE);
        drop(pagetable::take(current));
        Step::Done
    }

    fn map_shared(
        &self,
        pages: &mut Pages,
        vma: &Vma,
        backing: &Backing,
        addr: usize,
        write: bool,
    ) -> Step {
        if !write {
            return map_around(pages, vma, backing, addr);
        }
        let index = vma.index_at(addr);
        if index >= pages_of(&backing.cache) {
            return Step::PastEnd;
        }
        let Some(page) = backing.cache.peek(index, true) else {
            return Step::Fill { cache: backing.cache.clone(), index, write: true };
        };
        let root = pages.table.root().pfn();
        let Pages { table, rss } = pages;
        let Ok(leaf) = table.leaf_mut(addr) else { return Step::NoMemory };
        let slot = &leaf.table[position(addr, 0)];
        let old = slot.load(Relaxed);
        let bits = vma.bits(false, true) | shmem(&backing.cache) | ACCESSED | DIRTY;
        let entry = pagetable::entry(page, bits);
        if old == 0 {
            Pages::set(rss, &leaf, position(addr, 0), entry);
            return Step::Done;
        }
        slot.store(entry, Relaxed);
        if pagetable::pfn_of(old) == pagetable::pfn_of(entry) {
            tlb::flush_here(addr);
        } else {
            tlb::flush(root, addr, addr + PAGE_SIZE);
        }
        drop(pagetable::take(old));
        Step::Done
    }

    /// Extends the stack above `addr` down to it.
    fn grow_stack(&self, addr: usize) -> Result<(), FaultError> {
        let mut maps = self.maps.write();
        if maps.find(addr).is_some() {
            return Ok(());
        }
        let start = addr & !(PAGE_SIZE - 1);
        let stack = maps
            .above(addr)
            .filter(|vma| vma.flags.contains(VmFlags::GROWS_DOWN) && !vma.prot.is_empty())
            .ok_or(FaultError::Unmapped)?;
        let (old_start, size) = (stack.start, stack.end - start);
        let added = old_start - start;
        let crowded = maps.below(start).is_some_and(|below| {
            start - below.end < STACK_GUARD
                && !below.prot.is_empty()
                && !below.flags.contains(VmFlags::GROWS_DOWN)
        });
        if crowded
            || start < STACK_GUARD
            || size > Limits::get(&self.limits.stack)
            || maps.total() + added > Limits::get(&self.limits.address_space)
        {
            return Err(FaultError::Unmapped);
        }
        maps.grow_down(old_start, start);
        Ok(())
    }
}

impl Access {
    fn allowed(self, vma: &Vma) -> bool {
        if self.force {
            return !self.write || !vma.is_shared() || vma.prot.contains(Prot::WRITE);
        }
        if self.write {
            vma.prot.contains(Prot::WRITE)
        } else if self.exec {
            vma.prot.contains(Prot::EXEC)
        } else {
            !vma.prot.is_empty()
        }
    }
}

/// Pages of a cache, counting a partial last one.
fn pages_of(cache: &PageCache) -> u64 {
    cache.len().div_ceil(PAGE_SIZE as u64)
}

fn shmem(cache: &PageCache) -> u64 {
    if cache.is_backed() { 0 } else { SHMEM }
}

/// Lets a private page be written in place if nobody else uses it. False if it must be copied.
fn reuse(pages: &mut Pages, vma: &Vma, addr: usize) -> crate::errno::Result<bool> {
    let leaf = pages.table.leaf_mut(addr)?;
    let slot = &leaf.table[position(addr, 0)];
    let entry = slot.load(Relaxed);
    if entry & ANON == 0 {
        return Ok(false);
    }
    let Some(pfn) = pagetable::pfn_of(entry) else { return Ok(false) };
    if crate::mm::frame::page::page(pfn.get()).refs.load(core::sync::atomic::Ordering::Acquire) != 1
    {
        return Ok(false);
    }
    // A forced access may have found a page of a mapping that isn't writable: `bits` knows.
    slot.store(entry | vma.bits(true, true) | ACCESSED | DIRTY, Relaxed);
    tlb::flush_here(addr);
    Ok(true)
}

/// Maps the page of zeros.
fn map_zero(pages: &mut Pages, vma: &Vma, addr: usize) -> Step {
    let Pages { table, rss } = pages;
    let Ok(leaf) = table.leaf_mut(addr) else { return Step::NoMemory };
    let entry = pagetable::entry(PageRef::zero_page(), vma.bits(false, false) | ZERO | ACCESSED);
    Pages::set(rss, &leaf, position(addr, 0), entry);
    Step::Done
}

/// Maps a cached page for reading, and those around it that are there.
fn map_around(pages: &mut Pages, vma: &Vma, backing: &Backing, addr: usize) -> Step {
    let index = vma.index_at(addr);
    let end = pages_of(&backing.cache);
    if index >= end {
        return Step::PastEnd;
    }
    let Pages { table, rss } = pages;
    let Ok(leaf) = table.leaf_mut(addr) else { return Step::NoMemory };
    // The group of the page, as far as it lies in the mapping, the table and the object.
    let low = vma.start.max(addr & !(TABLE_SPAN - 1));
    let high = vma.end.min((addr & !(TABLE_SPAN - 1)) + TABLE_SPAN);
    let first = (index & !(AROUND - 1)).max(vma.index_at(low));
    let last = ((index & !(AROUND - 1)) + AROUND).min(vma.index_at(high)).min(end);
    let shared = vma.is_shared();
    let bits = [vma.bits(false, false), vma.bits(false, true)];
    let kind = shmem(&backing.cache);
    let mut mapped = false;
    backing.cache.peek_range(first, last, |at, page, own| {
        let page_addr = vma.start + ((at - backing.index) << PAGE_SHIFT) as usize;
        let slot = position(page_addr, 0);
        if leaf.table[slot].load(Relaxed) == 0 {
            // The accessed bit of neighbours stays clear: reclaim sees whether they were worth it.
            let used = if at == index { ACCESSED } else { 0 };
            let bits = bits[usize::from(shared && own)] | kind | used;
            Pages::set(rss, &leaf, slot, pagetable::entry(page, bits));
        }
        mapped |= at == index;
    });
    if mapped {
        Step::Done
    } else {
        Step::Fill { cache: backing.cache.clone(), index, write: false }
    }
}
