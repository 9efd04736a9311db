//! Where the parts of a program go (address space layout randomisation).

use crate::arch::{PAGE_SIZE, USER_END};

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
        let pages = |word: usize, bits: u32| (word & ((1 << bits) - 1)) * PAGE_SIZE;
        let word = || crate::random::next_u64() as usize;
        let (first, second) = (word(), word());
        Layout::at(
            pages(first, STACK_BITS),
            pages(first >> STACK_BITS, MMAP_BITS),
            pages(second, MMAP_BITS),
            pages(second >> MMAP_BITS, BRK_BITS),
        )
    }

    /// Every place where it is without randomness (`ADDR_NO_RANDOMIZE`).
    pub fn fixed() -> Layout {
        Layout::at(0, 0, 0, 0)
    }

    fn at(stack: usize, mmap: usize, pie: usize, brk: usize) -> Layout {
        let stack_top = USER_END - stack;
        Layout {
            stack_top,
            mmap_top: stack_top - MIN_STACK_ROOM - mmap,
            pie_base: PIE_BASE + pie,
            brk_offset: brk,
        }
    }
}
