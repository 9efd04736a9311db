//! A value set once.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const BUSY: u8 = 1;
const SET: u8 = 2;

/// A static that start-up code fills in and everybody reads.
pub struct Once<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is written once, before `SET` is published, and only shared afterwards.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        Once { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(None) }
    }

    /// Sets the value; gives it back if there is one already.
    pub fn set(&self, value: T) -> Result<&T, T> {
        if self.state.compare_exchange(EMPTY, BUSY, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(value);
        }
        // SAFETY: the exchange made this the only writer, and readers wait for `SET`.
        let slot = unsafe { &mut *self.value.get() };
        let value = slot.insert(value);
        self.state.store(SET, Ordering::Release);
        Ok(value)
    }

    /// The value, if it is set.
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != SET {
            return None;
        }
        // SAFETY: `SET` is published after the only write.
        unsafe { (*self.value.get()).as_ref() }
    }

    /// The value, made by `init` on first use. Racing callers wait for the winner.
    pub fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _ = self.set(init());
        loop {
            if let Some(value) = self.get() {
                return value;
            }
            crate::arch::cpu::relax();
        }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once::new()
    }
}
