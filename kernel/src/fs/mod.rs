//! Files: open file descriptions, descriptors, names, and the filesystems behind them.

pub mod anon;
pub mod file;
pub use file::{File, FileOps};

use alloc::sync::Arc;

/// A place in the namespace: a directory entry seen through a mount.
#[derive(Clone)]
pub struct Path {
    /// Directory entry.
    pub dentry: Arc<()>,
}

/// A file, directory, link or device of a filesystem.
pub trait Inode: core::any::Any + Send + Sync {}
