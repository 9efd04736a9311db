//! Moves the kernel to where nobody expects it.
//!
//! It is linked to the first of the top two GiB and runs in the second, from a page that is chosen at
//! random: 18 bits. The entry code calls [`relocate`], which maps the same memory there as well and
//! mends every address that the kernel holds of itself; the build has listed them
//! ([`dock2uni_format::relocs`]). Until [`super::paging::init`] both places are mapped, so it does not
//! matter which of them code and addresses on the way belong to.
//!
//! `nokaslr` on the boot line leaves the kernel where it was linked, for debuggers.

use super::{boot_info, paging, panic, random};
use crate::arch::PAGE_SIZE;
use core::slice;
use dock2uni_format::{ksyms, relocs};

/// Page tables for the second place, in [`super::boot`]'s low memory: a directory, and tables.
const TABLES: usize = 5;
const GIB: usize = 1 << 30;
/// Left free at the end of the address space: the kernel, at its largest, and then some.
const TAIL: usize = 16 << 20;
const PRESENT_WRITE: usize = 3;

unsafe extern "C" {
    static mut __boot_moved: [[usize; 512]; TABLES];
    static mut __boot_pdpt_high: [usize; 512];
    static __kernel_start: u8;
    static __ksyms_start: u8;
    static __ksyms_end: u8;
}

/// Runs first of all, at the address the kernel is linked to, on the boot tables.
pub(super) extern "C" fn relocate(start_info: usize) {
    if boot_info::asks(start_info, "nokaslr") {
        return;
    }
    let (from, to) = (&raw const __ksyms_start, &raw const __ksyms_end as usize);
    let len = to - from as usize;
    // SAFETY: the section is mapped as far as it is reserved; the tables say how much of it they take.
    let section = unsafe { slice::from_raw_parts(from, len) };
    let Some(list) = ksyms::Table::parse(section).and_then(|table| section.get(table.len()..))
    else {
        // A kernel that the build hasn't packed.
        return;
    };
    let pages = (GIB - TAIL) / PAGE_SIZE;
    let distance = GIB + random::seed_word() % pages * PAGE_SIZE;
    let start = &raw const __kernel_start as usize;
    // SAFETY: these tables and all of the kernel are this CPU's alone, and mapped writable; the build
    // lists whole words within the kernel.
    let mended = unsafe {
        let [directory, tables @ ..] = &mut *(&raw mut __boot_moved);
        // Still at the addresses they were linked to.
        let entry =
            |table: &[usize; 512]| (table.as_ptr() as usize - paging::KERNEL) | PRESENT_WRITE;
        let first = (start + distance) >> 21;
        for (index, table) in tables.iter_mut().enumerate() {
            directory[(first + index) & 511] = entry(table);
        }
        for at in (start..to).step_by(PAGE_SIZE) {
            let page = (at + distance) / PAGE_SIZE;
            tables[(page >> 9) - first][page & 511] = (at - paging::KERNEL) | PRESENT_WRITE;
        }
        __boot_pdpt_high[511] = entry(directory);
        relocs::each(list, |place, wide| {
            let at = paging::KERNEL + place as usize;
            if wide {
                let word = at as *mut usize;
                word.write_unaligned(word.read_unaligned().wrapping_add(distance));
            } else {
                let word = at as *mut u32;
                word.write_unaligned(word.read_unaligned().wrapping_add(distance as u32));
            }
        })
    };
    if mended.is_none() {
        // Half mended: nothing can be said either.
        panic::halt();
    }
}
