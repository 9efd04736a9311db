//! Locks on files, between processes as well as between threads.
//!
//! A lock of flock(2) belongs to the open file description, which a child has too between its fork and
//! its exec: to close the file would end the lock only when that child has come so far. These are
//! unlocked, so that whoever asks next finds them free.

use std::fs::{File, TryLockError};
use std::io;

/// A lock, held until it is dropped.
#[derive(Debug)]
#[must_use = "the lock ends when this is dropped"]
pub(crate) struct Lock(File);

impl Lock {
    /// Waits until nobody else has the file.
    ///
    /// # Errors
    /// If the filesystem has no locks.
    pub(crate) fn alone(file: File) -> io::Result<Lock> {
        file.lock().map(|()| Lock(file))
    }

    /// Waits until nobody has the file alone.
    ///
    /// # Errors
    /// If the filesystem has no locks.
    pub(crate) fn shared(file: File) -> io::Result<Lock> {
        file.lock_shared().map(|()| Lock(file))
    }

    /// Takes the file alone; `None` if somebody has it.
    ///
    /// # Errors
    /// If the filesystem has no locks.
    pub(crate) fn try_alone(file: File) -> io::Result<Option<Lock>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // There is nothing to be done about a failure, and closing it unlocks it as well.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_whoever_else_has_the_description() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let held = Lock::alone(file.reopen().unwrap()).unwrap();
        // As a child has it before its exec.
        let _copy = held.0.try_clone().unwrap();
        assert!(Lock::try_alone(file.reopen().unwrap()).unwrap().is_none());
        drop(held);
        let shared = Lock::shared(file.reopen().unwrap()).unwrap();
        assert!(Lock::try_alone(file.reopen().unwrap()).unwrap().is_none());
        drop(shared);
        assert!(Lock::try_alone(file.reopen().unwrap()).unwrap().is_some());
    }
}
