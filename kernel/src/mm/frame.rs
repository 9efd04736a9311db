//! Physical frames.

use crate::errno::Result;

/// One counted reference to a physical page frame. Cloning adds a reference; dropping the last one frees the frame
/// (frames of the boot module are pinned and never freed).
pub struct PageRef(());

impl PageRef {
    /// A free frame; zeroed if asked. ENOMEM when there is none even after reclaim. Task context may sleep in reclaim.
    pub fn alloc(_zeroed: bool) -> Result<PageRef> {
        Err(crate::Errno::ENOMEM)
    }
}
