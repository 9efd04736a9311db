//! Kernel stacks: whole pages in a region of their own, each stack with an unmapped page below it,
//! so that an overflow faults instead of overwriting somebody's memory.

use super::paging::{self, Protection};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::mm::PageRef;
use crate::sync::IrqLock;
use alloc::vec::Vec;

/// First address of the region.
pub const BASE: usize = 0xffff_c000_0000_0000;
/// Bytes of a stack. The deepest way down is exec's: a name is looked up, its inode is read through a
/// page cache and checked by a second one, and there an interrupt comes whose softirqs answer a TCP
/// segment. That takes somewhat more than 16 KiB, as compiled for work on the kernel.
pub const SIZE: usize = 24 * 1024;
const SLOT: usize = SIZE + PAGE_SIZE;
const PAGES: usize = SIZE / PAGE_SIZE;
/// Slots in the region: 256 GiB are far more than there is RAM.
const SLOTS: usize = (256 << 30) / SLOT;

static FREE: IrqLock<Slots> = IrqLock::new(Slots { used: 0, free: Vec::new() });

/// Stacks are reused with their frames: mapping costs a TLB flush on every CPU when it is undone.
struct Slots {
    used: usize,
    free: Vec<usize>,
}

/// One stack.
#[derive(Debug)]
pub struct KernelStack {
    slot: usize,
}

impl KernelStack {
    /// A stack. ENOMEM without memory.
    pub fn new() -> Result<KernelStack> {
        let mut slots = FREE.lock();
        if let Some(slot) = slots.free.pop() {
            return Ok(KernelStack { slot });
        }
        let slot = slots.used;
        // Room for every stack to come back, so that freeing never allocates.
        slots.free.try_reserve(slot + 1).map_err(|_| Errno::ENOMEM)?;
        if slot == SLOTS {
            return Err(Errno::ENOMEM);
        }
        slots.used += 1;
        drop(slots);
        let stack = KernelStack { slot };
        for page in 0..PAGES {
            let mapped = PageRef::alloc_kernel(false).and_then(|frame| {
                let at = stack.top() - SIZE + page * PAGE_SIZE;
                paging::map_kernel(at, frame.paddr(), Protection::ReadWrite)?;
                // The mapping owns the frame from here on.
                frame.into_pfn();
                Ok(())
            });
            if let Err(error) = mapped {
                // A slot with a partial mapping is not handed out again; this happens when memory
                // is exhausted only.
                core::mem::forget(stack);
                return Err(error);
            }
        }
        Ok(stack)
    }

    /// Address past the stack's last byte; a multiple of 16.
    pub fn top(&self) -> usize {
        BASE + (self.slot + 1) * SLOT
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        FREE.lock().free.push(self.slot);
    }
}

/// Frames of all stacks, free ones among them.
pub fn frames() -> usize {
    FREE.lock().used * PAGES
}

/// Whether `addr` lies in a page that is unmapped to catch overflows.
pub(super) fn is_guard(addr: usize) -> bool {
    unsafe extern "C" {
        static boot_stack_guard: [u8; PAGE_SIZE];
    }
    let boot = &raw const boot_stack_guard as usize;
    (boot..boot + PAGE_SIZE).contains(&addr)
        || (BASE..BASE + SLOTS * SLOT).contains(&addr) && (addr - BASE) % SLOT < PAGE_SIZE
}
