//! Inodes of files without a name: epoll, eventfd, timerfd, signalfd.

use super::Inode;
use alloc::sync::Arc;

struct Anonymous;

impl Inode for Anonymous {}

/// The inode that all `anon_inode:` files share (as in Linux).
pub fn inode() -> Arc<dyn Inode> {
    Arc::new(Anonymous)
}
