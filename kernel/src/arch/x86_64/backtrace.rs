//! Backtraces by frame pointers. Names come from the table that the build puts into `.ksyms`
//! ([`dock2uni_format::ksyms`]). Addresses are those of the linked file, wherever the kernel runs.

use crate::log::emergency;
use core::arch::asm;
use dock2uni_format::ksyms::Table;

const MAX_FRAMES: usize = 40;

unsafe extern "C" {
    static __ksyms_start: u8;
    static __ksyms_end: u8;
    static __kernel_start: u8;
    static __text_end: u8;
}

fn table() -> Option<Table<'static>> {
    let start = &raw const __ksyms_start;
    let end = &raw const __ksyms_end;
    let len = end as usize - start as usize;
    // SAFETY: the section is mapped as far as the table says it is long, which `start` has
    // reserved; `parse` reads the header first and the rest only through the length it finds there.
    Table::parse(unsafe { core::slice::from_raw_parts(start, len) })
}

/// Bytes of the symbol table in memory.
pub(super) fn table_len() -> usize {
    table().map_or(0, |table| table.len())
}

/// Prints the call chain that starts at `rip` with frame pointer `rbp`.
pub(super) fn print(rip: usize, rbp: usize) {
    let table = table();
    print_frame(table.as_ref(), rip, rip);
    let mut frame = rbp;
    for _ in 0..MAX_FRAMES {
        // Two words that can be read: in the kernel half, aligned, on a mapped page.
        if frame < 0xffff_8000_0000_0000
            || !frame.is_multiple_of(8)
            || !super::paging::is_mapped(frame)
            || !super::paging::is_mapped(frame + 15)
        {
            return;
        }
        // SAFETY: just checked to be mapped.
        let [next, caller] = unsafe { (frame as *const [usize; 2]).read() };
        if caller == 0 {
            return;
        }
        // A call that doesn't return may be the last instruction of its function: what it returns to
        // is the next one's.
        print_frame(table.as_ref(), caller, caller - 1);
        if next <= frame {
            return;
        }
        frame = next;
    }
}

/// What an address of the kernel was before the kernel moved; any other as it is.
pub(super) fn linked(address: usize) -> usize {
    if address >= super::paging::image_base() { address - super::paging::moved() } else { address }
}

/// Prints the call chain of the caller.
pub(super) fn print_here() {
    let rbp: usize;
    // SAFETY: reading a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    print(print_here as *const () as usize, rbp);
}

/// Prints one line for `address`, by the name of the function that `inside` lies in.
fn print_frame(table: Option<&Table<'_>>, address: usize, inside: usize) {
    let text = &raw const __kernel_start as usize..&raw const __text_end as usize;
    if !text.contains(&address) {
        return emergency(format_args!("  {:#x}\n", linked(address)));
    }
    let (address, inside) = (linked(address), linked(inside));
    match table.and_then(|table| table.lookup(inside as u64)) {
        Some((name, offset)) => {
            let offset = offset as usize + (address - inside);
            emergency(format_args!("  {address:#x} {name}+{offset:#x}\n"));
        }
        None => emergency(format_args!("  {address:#x}\n")),
    }
}
