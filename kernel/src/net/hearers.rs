//! Sockets that hear copies of what passes: raw and packet sockets.

use crate::sync::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// Those of a stack. Where there are none, as nearly always, finding that out takes no lock.
pub struct Hearers<T> {
    any: AtomicBool,
    list: SpinLock<Vec<Arc<T>>>,
}

impl<T> Hearers<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }
    /// Adds a socket.
    pub fn insert(&self, socket: Arc<T>) {
        self.list.lock().push(socket);
        self.any.store(true, Ordering::Relaxed);
    }
    /// Removes one.
    pub fn remove(&self, socket: &Arc<T>) {
        let mut list = self.list.lock();
        list.retain(|other| !Arc::ptr_eq(other, socket));
        self.any.store(!list.is_empty(), Ordering::Relaxed);
    }
    /// Those that `wants` says yes of.
    pub fn those(&self, wants: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        self.list.lock().iter().filter(|socket| wants(socket)).cloned().collect()
    }
}

impl<T> Default for Hearers<T> {
    fn default() -> Hearers<T> {
        Hearers { any: AtomicBool::new(false), list: SpinLock::new(Vec::new()) }
    }
}
