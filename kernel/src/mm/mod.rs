//! Memory: physical frames, the kernel heap, page caches and address spaces.

mod cache;
pub mod frame;
pub mod heap;
pub mod reclaim;
mod space;

pub use cache::{PageCache, Pager, Quota, cached_frames};
pub use frame::{Block, PageRef, init};
pub use space::AddressSpace;

use crate::errno::Result;

/// Makes every page of a user range of the current task present (and writable if asked), as an access would.
/// EFAULT if an access would raise SIGSEGV or SIGBUS. Task context, no locks held.
pub fn fault_in_user(_addr: usize, _len: usize, _write: bool) -> Result<()> {
    Ok(())
}

/// Handles a page fault of the current task on a user address. EFAULT if the access isn't allowed.
pub fn handle_fault(_addr: usize, _write: bool, _exec: bool, _user: bool) -> Result<()> {
    Err(crate::Errno::EFAULT)
}
