//! The kernel's half of the address space.
//!
//! | from | what |
//! |---|---|
//! | `0xffff_8000_0000_0000` | direct map of RAM, writable, not executable |
//! | `0xffff_c000_0000_0000` | kernel stacks |
//! | `0xffff_d000_0000_0000` | device memory, uncached |
//! | `0xffff_ffff_8000_0000` | the kernel, somewhere ([`super::relocate`]): text read-only, data not executable |
//!
//! All top-level entries are made at boot and never change, so user roots copy them once.

use super::insn::{cpuid, read_cr3, read_cr4, write_cr3, write_cr4};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::sync::IrqLock;
use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering};

/// First address of the direct map.
pub const DIRECT: usize = 0xffff_8000_0000_0000;
/// First address of device memory.
pub const MMIO: usize = 0xffff_d000_0000_0000;
/// First address of the region that the kernel image is in: where the linker puts physical address 0.
pub const KERNEL: usize = 0xffff_ffff_8000_0000;

const PRESENT: usize = 1;
const WRITE: usize = 1 << 1;
const WRITE_THROUGH: usize = 1 << 3;
const CACHE_DISABLE: usize = 1 << 4;
const LARGE: usize = 1 << 7;
const GLOBAL: usize = 1 << 8;
const NO_EXECUTE: usize = 1 << 63;
const ADDRESS: usize = 0x000f_ffff_ffff_f000;
const MIB2: usize = 2 << 20;
const GIB: usize = 1 << 30;

/// What may be done with a kernel page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Code.
    Execute,
    /// Constants.
    Read,
    /// Data.
    ReadWrite,
    /// Device registers: uncached.
    Device,
}

impl Protection {
    fn bits(self) -> usize {
        PRESENT
            | GLOBAL
            | match self {
                Protection::Execute => 0,
                Protection::Read => NO_EXECUTE,
                Protection::ReadWrite => WRITE | NO_EXECUTE,
                Protection::Device => WRITE | NO_EXECUTE | CACHE_DISABLE | WRITE_THROUGH,
            }
    }
}

static ROOT: AtomicUsize = AtomicUsize::new(0);
static TABLES: IrqLock<()> = IrqLock::new(());

/// The direct map: where physical address `paddr` is seen, if it is RAM.
#[inline]
pub const fn phys_to_virt(paddr: usize) -> usize {
    paddr + DIRECT
}

/// The physical address behind an address of the direct map or the kernel image.
#[inline]
pub fn virt_to_phys(vaddr: usize) -> usize {
    if vaddr >= KERNEL { vaddr - image_base() } else { vaddr - DIRECT }
}

/// Difference between virtual and physical addresses of the kernel image.
#[inline]
pub fn image_base() -> usize {
    // The linker's `KVMA`, wherever it has moved: an address like every other.
    &raw const KVMA as usize
}

/// How far the kernel has moved from where it was linked.
pub fn moved() -> usize {
    image_base() - KERNEL
}

/// Physical address of the page table that has the kernel's half only.
pub fn kernel_root() -> usize {
    ROOT.load(Ordering::Relaxed)
}

/// Makes this CPU use another root and forget the user translations of the previous one.
///
/// # Safety
/// `root` has the kernel's half of [`kernel_root`], and stays alive while the CPU uses it.
#[inline]
pub unsafe fn activate(root: usize) {
    // SAFETY: the kernel's half is the same in every root.
    unsafe { write_cr3(root) };
}

/// The root that this CPU uses.
#[inline]
pub fn active() -> usize {
    read_cr3() & ADDRESS
}

/// Forgets this CPU's translation of the page at `vaddr`.
#[inline]
pub fn invlpg(vaddr: usize) {
    // SAFETY: dropping a cached translation is always allowed.
    unsafe { asm!("invlpg [{}]", in(reg) vaddr, options(nostack, preserves_flags)) };
}

/// Forgets this CPU's translations of user pages.
#[inline]
pub fn flush_local() {
    // SAFETY: the root stays the same.
    unsafe { write_cr3(read_cr3()) };
}

/// Maps one page of the kernel's half, below a top-level entry that exists since boot.
pub fn map_kernel(vaddr: usize, paddr: usize, protection: Protection) -> Result<()> {
    let _guard = TABLES.lock();
    let entry = leaf_for(vaddr, &mut |frames| {
        debug_assert!(frames == 1);
        crate::mm::PageRef::alloc_kernel(true).ok().map(|page| {
            let paddr = page.paddr();
            // The table owns the frame.
            page.into_pfn();
            paddr
        })
    })
    .ok_or(Errno::ENOMEM)?;
    // SAFETY: `leaf_for` gives the entry of a live table; the lock is held.
    unsafe { entry.write_volatile(paddr & ADDRESS | protection.bits()) };
    Ok(())
}

/// Whether an address of the kernel's half is mapped.
pub fn is_mapped(vaddr: usize) -> bool {
    let mut table = kernel_root();
    if table == 0 {
        // Still on the boot tables, which map what the kernel needs.
        return true;
    }
    for level in (0..4).rev() {
        // SAFETY: tables lie in RAM, hence in the direct map.
        let entry = unsafe { entry_of(table, vaddr, level).read_volatile() };
        if entry & PRESENT == 0 {
            return false;
        }
        if level == 0 || entry & LARGE != 0 {
            return true;
        }
        table = entry & ADDRESS;
    }
    true
}

fn entry_of(table: usize, vaddr: usize, level: usize) -> *mut usize {
    let index = vaddr >> (12 + 9 * level) & 511;
    (phys_to_virt(table) + index * 8) as *mut usize
}

/// The last-level entry for `vaddr`, with tables made on the way. `None` without memory.
fn leaf_for(vaddr: usize, alloc: &mut dyn FnMut(usize) -> Option<usize>) -> Option<*mut usize> {
    table_for(vaddr, 0, alloc).map(|table| entry_of(table, vaddr, 0))
}

/// The table of `level` (0 is the last) that holds the entry for `vaddr`.
fn table_for(
    vaddr: usize,
    level: usize,
    alloc: &mut dyn FnMut(usize) -> Option<usize>,
) -> Option<usize> {
    let mut table = kernel_root();
    for above in (level + 1..4).rev() {
        let entry = entry_of(table, vaddr, above);
        // SAFETY: tables lie in RAM, hence in the direct map; the caller holds the lock or is
        // alone.
        unsafe {
            let mut value = entry.read_volatile();
            if value & PRESENT == 0 {
                value = alloc(1)? | PRESENT | WRITE;
                entry.write_volatile(value);
            }
            table = value & ADDRESS;
        }
    }
    Some(table)
}

unsafe extern "C" {
    static KVMA: u8;
    static __image_start: u8;
    static __kernel_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __data_end: u8;
    static __ksyms_start: u8;
    static boot_stack_guard: u8;
}

/// Physical addresses of the kernel image: start, and end without and with the symbol table.
pub(super) fn image() -> core::ops::Range<usize> {
    let (start, end) = (&raw const __image_start as usize, &raw const __ksyms_start as usize);
    let len = super::backtrace::table_len();
    start - image_base()..(end - image_base() + len).next_multiple_of(PAGE_SIZE)
}

/// Builds the final tables and switches to them. `ram` are the ranges to map directly, `alloc`
/// gives zeroed frames that the boot tables map.
///
/// # Safety
/// The boot CPU runs alone, on the boot tables.
pub(super) unsafe fn init(
    ram: impl Iterator<Item = core::ops::Range<usize>>,
    alloc: &mut dyn FnMut(usize) -> Option<usize>,
) {
    let root = alloc(1).expect("start has checked that there is memory");
    ROOT.store(root, Ordering::Relaxed);
    for region in [DIRECT, super::kstack::BASE, MMIO, KERNEL] {
        table_for(region, 2, alloc).expect("start has checked that there is memory");
    }
    let huge = cpuid(0x8000_0001, 0).edx & 1 << 26 != 0;
    for range in ram {
        map_direct(range, huge, alloc);
    }
    let text = &raw const __kernel_start as usize;
    let rodata = &raw const __text_end as usize;
    let data = &raw const __rodata_end as usize;
    let end = &raw const __data_end as usize;
    let guard = &raw const boot_stack_guard as usize;
    let mut map = |range: core::ops::Range<usize>, protection: Protection| {
        for vaddr in range.step_by(PAGE_SIZE).filter(|&vaddr| vaddr != guard) {
            let entry = leaf_for(vaddr, alloc).expect("start has checked that there is memory");
            // SAFETY: the boot CPU is alone; the table is new.
            unsafe { entry.write_volatile(vaddr - image_base() | protection.bits()) };
        }
    };
    map(text..rodata, Protection::Execute);
    map(rodata..data, Protection::Read);
    map(data..end, Protection::ReadWrite);
    map(end..image_base() + image().end, Protection::Read);
    init_cpu();
}

/// Makes this CPU use the kernel's root, with global pages.
pub(super) fn init_cpu() {
    const PGE: usize = 1 << 7;
    // SAFETY: the new root maps the kernel, its stack and RAM where they are. Toggling PGE drops
    // stale global entries.
    unsafe {
        write_cr4(read_cr4() & !PGE);
        write_cr3(kernel_root());
        write_cr4(read_cr4() | PGE);
    }
}

/// Maps a range of RAM in the direct map with the largest pages that fit.
fn map_direct(
    range: core::ops::Range<usize>,
    huge: bool,
    alloc: &mut dyn FnMut(usize) -> Option<usize>,
) {
    let mut paddr = range.start & !(PAGE_SIZE - 1);
    let end = range.end.next_multiple_of(PAGE_SIZE);
    let bits = Protection::ReadWrite.bits();
    while paddr < end {
        let fits = |size: usize| paddr.is_multiple_of(size) && end - paddr >= size;
        let (level, size) = if huge && fits(GIB) {
            (2, GIB)
        } else if fits(MIB2) {
            (1, MIB2)
        } else {
            (0, PAGE_SIZE)
        };
        let vaddr = phys_to_virt(paddr);
        let table = table_for(vaddr, level, alloc).expect("start has checked that there is memory");
        let large = if level > 0 { LARGE } else { 0 };
        // SAFETY: the boot CPU is alone; the table is new.
        unsafe { entry_of(table, vaddr, level).write_volatile(paddr | bits | large) };
        paddr += size;
    }
}
