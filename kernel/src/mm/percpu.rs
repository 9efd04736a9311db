//! Values that each CPU has of its own, reachable from interrupt handlers too without masking
//! interrupts.

use crate::arch::{MAX_CPUS, cpu};
use crate::sync::preempt_disable;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence};

/// What a value is at first.
pub trait Initial {
    /// The value.
    const INITIAL: Self;
}

/// One value per CPU.
pub struct PerCpu<T> {
    slots: [Slot<T>; MAX_CPUS],
}

#[repr(align(64))]
struct Slot<T> {
    busy: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: a slot's value is reached only while its `busy` is held.
unsafe impl<T: Send> Sync for PerCpu<T> {}

impl<T: Initial> PerCpu<T> {
    /// The initial value for every CPU.
    pub const fn new() -> PerCpu<T> {
        PerCpu {
            slots: [const { Slot { busy: AtomicBool::new(false), value: UnsafeCell::new(T::INITIAL) } };
                MAX_CPUS],
        }
    }

    /// Runs `f` on this CPU's value. `None` if this is an interrupt that came while the CPU was at
    /// it already: the caller then does without.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let _here = preempt_disable();
        let slot = &self.slots[cpu::id()];
        if !slot.enter() {
            return None;
        }
        // SAFETY: `enter` made this the only user of the slot.
        let result = f(unsafe { &mut *slot.value.get() });
        slot.leave();
        Some(result)
    }
}

impl<T> PerCpu<T> {
    /// Adds up what `look` finds at every CPU's value.
    ///
    /// The values may change meanwhile: `look` must read plain words only, as volatile.
    pub fn sum(&self, look: impl Fn(*const T) -> usize) -> usize {
        self.slots.iter().map(|slot| look(slot.value.get())).sum()
    }
}

impl<T> Slot<T> {
    /// Only this CPU uses the slot, so only an interrupt handler can get between these
    /// instructions, and that leaves the slot before it returns: no atomic exchange is needed.
    #[cfg(guest)]
    #[inline]
    fn enter(&self) -> bool {
        if self.busy.load(Ordering::Relaxed) {
            return false;
        }
        self.busy.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        true
    }

    /// Threads of a test process share one slot.
    #[cfg(not(guest))]
    fn enter(&self) -> bool {
        !self.busy.swap(true, Ordering::Acquire)
    }

    #[inline]
    fn leave(&self) {
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Release);
    }
}
