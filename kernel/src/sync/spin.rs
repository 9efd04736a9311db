//! Spinning locks: [`SpinLock`] masks preemption, [`IrqLock`] masks interrupts.

use crate::arch::{cpu, irq};
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// Keeps this task on its CPU and softirqs away while it lives.
pub struct PreemptGuard(PhantomData<*mut ()>);

/// Forbids preemption until the guard is dropped; nests.
pub fn preempt_disable() -> PreemptGuard {
    cpu::preempt_inc();
    PreemptGuard(PhantomData)
}

impl Drop for PreemptGuard {
    fn drop(&mut self) {
        if cpu::preempt_dec() == 0 && cpu::pending() != 0 {
            super::softirq::run_pending();
        }
    }
}

struct Raw(AtomicBool);

impl Raw {
    fn lock(&self) {
        while self
            .0
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while self.0.load(Ordering::Relaxed) {
                cpu::relax();
            }
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A lock for short sections in task and softirq context.
pub struct SpinLock<T: ?Sized> {
    raw: Raw,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives one CPU at a time access to the value.
unsafe impl<T: ?Sized + Send> Send for SpinLock<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        SpinLock { raw: Raw(AtomicBool::new(false)), value: UnsafeCell::new(value) }
    }
}

impl<T: Default> Default for SpinLock<T> {
    fn default() -> Self {
        SpinLock::new(T::default())
    }
}

impl<T: ?Sized> SpinLock<T> {
    /// Takes the lock, spinning.
    pub fn lock(&self) -> SpinGuard<'_, T> {
        let preempt = preempt_disable();
        self.raw.lock();
        SpinGuard { lock: self, _preempt: preempt }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let preempt = preempt_disable();
        self.raw.try_lock().then(|| SpinGuard { lock: self, _preempt: preempt })
    }

    /// Access through exclusive ownership.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// Holds a [`SpinLock`].
pub struct SpinGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
    // Dropped after `drop` has released the lock, so softirqs never run under it.
    _preempt: PreemptGuard,
}

impl<T: ?Sized> Deref for SpinGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.raw.unlock();
    }
}

/// A lock that interrupt handlers may take too: interrupts are off while it is held.
pub struct IrqLock<T: ?Sized> {
    raw: Raw,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives one CPU at a time access to the value.
unsafe impl<T: ?Sized + Send> Send for IrqLock<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for IrqLock<T> {}

impl<T> IrqLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        IrqLock { raw: Raw(AtomicBool::new(false)), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized> IrqLock<T> {
    /// Disables interrupts and takes the lock, spinning.
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let was_enabled = irq::disable_save();
        self.raw.lock();
        IrqGuard { lock: self, was_enabled, _not_send: PhantomData }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<IrqGuard<'_, T>> {
        let was_enabled = irq::disable_save();
        if self.raw.try_lock() {
            return Some(IrqGuard { lock: self, was_enabled, _not_send: PhantomData });
        }
        irq::restore(was_enabled);
        None
    }

    /// Releases a lock whose guard was forgotten, leaving interrupts as they are.
    ///
    /// # Safety
    /// The caller holds the lock through a guard it has passed to `core::mem::forget` (the
    /// scheduler does, across a context switch).
    pub unsafe fn force_unlock(&self) {
        self.raw.unlock();
    }
}

/// Holds an [`IrqLock`].
pub struct IrqGuard<'a, T: ?Sized> {
    lock: &'a IrqLock<T>,
    was_enabled: bool,
    _not_send: PhantomData<*mut ()>,
}

impl<T: ?Sized> Deref for IrqGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for IrqGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.raw.unlock();
        irq::restore(self.was_enabled);
    }
}
