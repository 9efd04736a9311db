//! Which CPU has which root loaded, and making them forget translations.

use super::PageRef;
use super::pagetable::PageTable;
use crate::arch::{MAX_CPUS, PAGE_SIZE, cpu, ipi, paging};
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, Ordering};

/// The root's frame that each CPU has loaded, counted; 0 for the kernel's own root.
static LOADED: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Loads a root on this CPU, or the kernel's own. Preemption is off. The frame stays alive for as
/// long as it is loaded, even when its address space goes.
pub fn load(root: Option<&PageRef>) {
    let me = cpu::id();
    let new = root.map_or(0, |root| root.pfn().get());
    let old = LOADED[me].load(Ordering::Relaxed);
    if new == old {
        return;
    }
    if let Some(root) = root {
        // Before loading: whoever changes the table from now on tells this CPU.
        PageTable::cpus(root.pfn()).fetch_or(1 << me, Ordering::SeqCst);
        root.clone().into_pfn();
    }
    LOADED[me].store(new, Ordering::Relaxed);
    let paddr = root.map_or_else(paging::kernel_root, PageRef::paddr);
    // SAFETY: user roots share the kernel's half, and this one was counted just now.
    unsafe { paging::activate(paddr) };
    if let Some(old) = NonZeroU32::new(old) {
        PageTable::cpus(old).fetch_and(!(1 << me), Ordering::SeqCst);
        // SAFETY: the reference counted when this CPU loaded the old root.
        drop(unsafe { PageRef::from_pfn(old) });
    }
}

/// Makes every CPU that has `root` loaded forget its translations of `start..end`, and waits until
/// they have.
pub fn flush(root: NonZeroU32, start: usize, end: usize) {
    let cpus = PageTable::cpus(root).load(Ordering::SeqCst);
    if cpus == 0 {
        return;
    }
    let pages = (end - start).div_ceil(PAGE_SIZE);
    let guard = crate::sync::preempt_disable();
    let me = 1 << cpu::id();
    if cpus & me != 0 {
        ipi::flush_range_local(start, pages);
    }
    if cpus & !me != 0 {
        ipi::flush_tlb(cpus & !me, start, pages);
    }
    drop(guard);
}

/// As [`flush`], on this CPU only: for entries that now allow more than before. Other CPUs with an
/// old translation take one needless fault.
pub fn flush_here(addr: usize) {
    ipi::flush_range_local(addr, 1);
}
