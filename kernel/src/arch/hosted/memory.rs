//! Physical memory of the test process: one lazily committed host allocation behind a direct map of
//! its own.

use std::sync::OnceLock;

/// Bytes of simulated physical memory.
pub const RAM: usize = 1 << 30;

/// First address of the direct map.
fn base() -> usize {
    static BASE: OnceLock<usize> = OnceLock::new();
    *BASE.get_or_init(|| {
        const ALIGN: usize = 2 << 20;
        // Alignment 16 lets the host use calloc, which commits nothing; the rest of the alignment
        // is made by hand.
        let layout = std::alloc::Layout::from_size_align(RAM + ALIGN, 16).expect("constants");
        // SAFETY: the layout has a size.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) } as usize;
        assert!(memory != 0, "the host has no memory for simulated RAM");
        memory.next_multiple_of(ALIGN)
    })
}

/// The direct map: where physical address `paddr` is seen. Addresses past the simulated RAM stand
/// for themselves, so that tests can let devices work on ordinary buffers.
pub fn phys_to_virt(paddr: usize) -> usize {
    if paddr < RAM { base() + paddr } else { paddr }
}

/// The physical address behind an address of the direct map.
pub fn virt_to_phys(vaddr: usize) -> usize {
    match vaddr.wrapping_sub(base()) {
        paddr if paddr < RAM => paddr,
        _ => vaddr,
    }
}
