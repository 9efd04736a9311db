//! Descriptions that only name a place (`O_PATH`).

use super::{FileOps, Inode};
use alloc::sync::Arc;

/// Can do nothing; descriptor tables refuse it for I/O.
pub struct PathOnly(pub Arc<dyn Inode>);

impl FileOps for PathOnly {
    fn inode(&self) -> Arc<dyn Inode> {
        self.0.clone()
    }
    fn pollable(&self) -> bool {
        false
    }
}
