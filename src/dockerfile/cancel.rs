//! Stopping a build: from outside, or because one of its stages has failed.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::error::Error;

/// A child that may be killed from another thread.
pub type Shared = Arc<Mutex<Child>>;

/// Stops a build when asked to. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stop: AtomicBool,
    interrupted: AtomicBool,
    children: Mutex<Vec<Shared>>,
}

impl Cancel {
    /// Stops the build: its commands are killed, and it returns [`Error::Interrupted`].
    pub fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::SeqCst);
        self.stop();
    }

    /// Stops what is still running.
    pub(super) fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        for child in self.children().iter() {
            // One that has ended needs no killing.
            let _ = lock(child).kill();
        }
    }

    /// Whether somebody asked the build to stop.
    pub(super) fn is_interrupted(&self) -> bool {
        self.0.interrupted.load(Ordering::SeqCst)
    }

    /// An error if the build is to stop.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.0.stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Takes charge of a child.
    pub(super) fn adopt(&self, child: Child) -> Shared {
        let child = Arc::new(Mutex::new(child));
        self.children().push(child.clone());
        // The order closes the gap: `stop` sets the flag before it looks at the list.
        if self.0.stop.load(Ordering::SeqCst) {
            let _ = lock(&child).kill();
        }
        child
    }

    /// Gives a child up that has ended.
    pub(super) fn release(&self, child: &Shared) {
        self.children().retain(|other| !Arc::ptr_eq(other, child));
    }

    fn children(&self) -> MutexGuard<'_, Vec<Shared>> {
        self.0.children.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The child itself.
pub fn lock(child: &Shared) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(|e| e.into_inner())
}
