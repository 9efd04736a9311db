//! Where the parts of a program go (address space layout randomisation).

use crate::arch::{self, PAGE_SIZE, USER_END};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of randomness, in pages: as Linux's defaults for x86-64.
const MMAP_BITS: u32 = 28;
const STACK_BITS: u32 = 22;
const BRK_BITS: u32 = 13;
/// Lowest room kept for the stack below its top.
const MIN_STACK_ROOM: usize = 128 << 20;
/// Where position-independent programs start without randomness: two thirds up.
const PIE_BASE: usize = 0x5555_5555_4000;

/// Where an address space puts what it is free to place.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The highest end of the main stack.
    pub stack_top: usize,
    /// Mappings are placed below this address, highest first.
    pub mmap_top: usize,
    /// Where position-independent programs are loaded.
    pub pie_base: usize,
    /// Added to the end of the program's data to get the heap's start.
    pub brk_offset: usize,
}

impl Layout {
    /// Every place at random.
    pub fn random() -> Layout {
        let pages = |word: u64, bits: u32| (word as usize & ((1 << bits) - 1)) * PAGE_SIZE;
        let data = crate::random::next_u64();
        let code = if arch::is_emulated() { boot_places() } else { crate::random::next_u64() };
        let heap = data >> STACK_BITS;
        // Below the lowest stack: how far down code goes tells nothing of where the stack is.
        let mmap = pages(code >> MMAP_BITS, MMAP_BITS) + (PAGE_SIZE << STACK_BITS);
        let pie = pages(code, MMAP_BITS);
        Layout::at(pages(data, STACK_BITS), mmap, pie, pages(heap, BRK_BITS))
    }

    /// Every place where it is without randomness (`ADDR_NO_RANDOMIZE`).
    pub fn fixed() -> Layout {
        Layout::at(0, 0, 0, 0)
    }

    fn at(stack: usize, mmap: usize, pie: usize, brk: usize) -> Layout {
        let stack_top = USER_END - stack;
        Layout {
            stack_top,
            mmap_top: USER_END - MIN_STACK_ROOM - mmap,
            pie_base: PIE_BASE + pie,
            brk_offset: brk,
        }
    }
}

/// A random word that stays the same until the next boot, for where code goes on emulated CPUs:
/// what they translate serves the next program only at the same virtual address, and starting the
/// same programs again and again spends most of its time on translation. Stack and heap still move
/// with every program.
fn boot_places() -> u64 {
    static PLACES: AtomicU64 = AtomicU64::new(0);
    let fresh = crate::random::next_u64() | 1 << 63;
    match PLACES.compare_exchange(0, fresh, Relaxed, Relaxed) {
        Ok(_) => fresh,
        Err(chosen) => chosen,
    }
}
