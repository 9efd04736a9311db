//! Sleeping locks.

use super::WaitQueue;
use crate::event::Events;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// A lock whose holder may sleep. Task context only.
pub struct Mutex<T: ?Sized> {
    locked: AtomicBool,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives one task at a time access to the value.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Mutex {
            locked: AtomicBool::new(false),
            waiters: WaitQueue::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, by ownership.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the lock, sleeping until it is free.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        if !self.acquire() {
            let _: Result<(), _> =
                self.waiters.wait_exclusive(super::WaitMode::Uninterruptible, None, || {
                    self.acquire().then_some(())
                });
        }
        MutexGuard { lock: self }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.acquire().then(|| MutexGuard { lock: self })
    }

    fn acquire(&self) -> bool {
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Access through exclusive ownership.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// Holds a [`Mutex`].
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
        self.lock.waiters.wake(Events::ALL, 1);
    }
}

/// A lock with many readers or one writer, whose holders may sleep. Task context only.
///
/// Not fair to writers under a steady stream of readers; use it where readers are short.
pub struct RwMutex<T: ?Sized> {
    /// Number of readers, or -1 for a writer.
    state: AtomicI32,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives one writer or many readers access to the value.
unsafe impl<T: ?Sized + Send> Send for RwMutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwMutex<T> {}

impl<T> RwMutex<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        RwMutex {
            state: AtomicI32::new(0),
            waiters: WaitQueue::new(),
            value: UnsafeCell::new(value),
        }
    }
}

impl<T: ?Sized> RwMutex<T> {
    /// Access through exclusive ownership.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Takes the lock for reading.
    pub fn read(&self) -> RwReadGuard<'_, T> {
        let acquire = || {
            self.state
                .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                    (state >= 0).then_some(state + 1)
                })
                .is_ok()
        };
        if !acquire() {
            self.waiters.wait_uninterruptible(|| acquire().then_some(()));
        }
        RwReadGuard { lock: self }
    }

    /// Takes the lock for writing.
    pub fn write(&self) -> RwWriteGuard<'_, T> {
        let acquire =
            || self.state.compare_exchange(0, -1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !acquire() {
            self.waiters.wait_uninterruptible(|| acquire().then_some(()));
        }
        RwWriteGuard { lock: self }
    }
}

/// Holds an [`RwMutex`] for reading.
pub struct RwReadGuard<'a, T: ?Sized> {
    lock: &'a RwMutex<T>,
}

impl<T: ?Sized> Deref for RwReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: readers hold the lock, so there is no writer.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwReadGuard<'_, T> {
    fn drop(&mut self) {
        if self.lock.state.fetch_sub(1, Ordering::Release) == 1 {
            self.lock.waiters.wake_all(Events::ALL);
        }
    }
}

/// Holds an [`RwMutex`] for writing.
pub struct RwWriteGuard<'a, T: ?Sized> {
    lock: &'a RwMutex<T>,
}

impl<T: ?Sized> Deref for RwWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard is the only holder.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only holder.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.state.store(0, Ordering::Release);
        self.lock.waiters.wake_all(Events::ALL);
    }
}
