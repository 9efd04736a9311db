//! Device memory, mapped on demand.

use super::paging::{self, MMIO, Protection};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::sync::IrqLock;

static NEXT: IrqLock<usize> = IrqLock::new(MMIO);
/// Window size: more than all BARs of a machine.
const LIMIT: usize = MMIO + (256 << 30);

/// Maps `len` bytes of device memory at physical address `paddr`, uncached, for good.
pub fn map(paddr: usize, len: usize) -> Result<*mut u8> {
    let offset = paddr % PAGE_SIZE;
    let first = paddr - offset;
    let size = len.checked_add(offset + PAGE_SIZE - 1).ok_or(Errno::EINVAL)? & !(PAGE_SIZE - 1);
    let mut next = NEXT.lock();
    let at = *next;
    if size == 0 || size > LIMIT - at || first.checked_add(size).is_none_or(|end| end >> 52 != 0) {
        return Err(Errno::ENOMEM);
    }
    *next += size;
    drop(next);
    for page in (0..size).step_by(PAGE_SIZE) {
        paging::map_kernel(at + page, first + page, Protection::Device)?;
    }
    Ok((at + offset) as *mut u8)
}
