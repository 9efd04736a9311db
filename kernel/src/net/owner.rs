//! Whose sockets are, for those who list them (/proc/net, sock_diag(7)).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The inode of the file that stands for a socket, and its owner. Nobody's, unless it was said.
#[derive(Default)]
pub struct Owner {
    ino: AtomicU64,
    uid: AtomicU32,
}

impl Owner {
    /// Says whose it is.
    pub fn set(&self, ino: u64, uid: u32) {
        self.uid.store(uid, Relaxed);
        self.ino.store(ino, Relaxed);
    }
    /// Becomes that of the same file as another.
    pub fn copy(&self, other: &Owner) {
        self.set(other.ino(), other.uid());
    }
    /// Inode number; 0: none.
    pub fn ino(&self) -> u64 {
        self.ino.load(Relaxed)
    }
    /// User.
    pub fn uid(&self) -> u32 {
        self.uid.load(Relaxed)
    }
}
