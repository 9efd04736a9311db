//! Memory: physical frames, the kernel heap, page caches and address spaces.

mod cache;
pub mod commit;
pub mod frame;
pub mod heap;
pub mod oom;
mod pagetable;
mod percpu;
pub mod reclaim;
pub mod shm;
mod space;
mod stat;
mod tlb;

pub use cache::{PageCache, Pager, Quota, Seals, cached_frames};
pub use frame::{Block, PageRef, init};
pub use space::{
    AddressSpace, Advice, FaultError, FileMapping, FutexKey, Layout, MAX_MAPS, MapFlags, MapInfo,
    Prot, Rss, Smaps, Stats, VmFlags,
};
pub use stat::{MemInfo, meminfo};

use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};

/// Resolves a page fault of the current task. Task context, interrupts on, no locks held.
pub fn handle_fault(addr: usize, write: bool, exec: bool) -> core::result::Result<(), FaultError> {
    let task = crate::task::current();
    let served = task.with_mm(|space| space.handle_fault(addr, write, exec));
    task.sched.count_fault(served.unwrap_or(Err(FaultError::Unmapped))?);
    Ok(())
}

/// Makes every page of a user range of the current task present (and writable if asked), as an
/// access would. EFAULT if an access would raise SIGSEGV or SIGBUS. Task context, no locks held.
pub fn fault_in_user(addr: usize, len: usize, write: bool) -> Result<()> {
    crate::io::check_user(addr, len)?;
    let task = crate::task::current();
    task.with_mm(|space| {
        for at in (addr & !(PAGE_SIZE - 1)..addr + len).step_by(PAGE_SIZE) {
            task.sched.count_fault(space.handle_fault(at, write, false)?);
        }
        Ok(())
    })
    .unwrap_or(Err(Errno::EFAULT))
}
