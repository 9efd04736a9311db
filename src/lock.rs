//! Locks on files, between processes as well as between threads.
//!
//! A lock of flock(2) belongs to the open file description, which a child has too between its fork and
//! its exec: to close the file would end the lock only when that child has come so far. These are
//! unlocked, so that whoever asks next finds them free.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Whoever waits for this long is told that it waits, and not for the network.
const PATIENCE: Duration = Duration::from_secs(5);

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

    /// As [`Lock::alone`]; `waiting` is called if it takes long.
    ///
    /// # Errors
    /// If the filesystem has no locks.
    pub(crate) fn alone_or_say(file: File, waiting: &(dyn Fn() + Sync)) -> io::Result<Lock> {
        take(&file, waiting).map(|()| Lock(file))
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

/// Waits until nobody else has the file, for who unlocks it; `waiting` is called if it takes long.
///
/// # Errors
/// If the filesystem has no locks.
pub(crate) fn take(file: &File, waiting: &(dyn Fn() + Sync)) -> io::Result<()> {
    wait(file, PATIENCE, waiting)
}

fn wait(file: &File, patience: Duration, waiting: &(dyn Fn() + Sync)) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => return Ok(()),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    thread::scope(|scope| {
        let (locked, told) = mpsc::channel::<()>();
        scope.spawn(move || {
            if told.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                waiting();
            }
        });
        let result = file.lock();
        drop(locked);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_long_is_told() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let file = path.reopen().unwrap();
        let nobody = || panic!("nobody has it");
        wait(&file, Duration::from_secs(60), &nobody).unwrap();
        file.unlock().unwrap();
        let held = std::sync::Mutex::new(Some(Lock::alone(path.reopen().unwrap()).unwrap()));
        // The one that has it gives it up when the other one is told.
        wait(&file, Duration::from_millis(10), &|| drop(held.lock().unwrap().take())).unwrap();
        assert!(held.lock().unwrap().is_none());
    }

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
