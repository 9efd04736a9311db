//! State of a task that only the task itself replaces.

use super::Task;
use crate::arch::cpu;
use crate::sync::IrqLock;
use alloc::sync::Arc;
use core::cell::UnsafeCell;

/// A shared object of a task (its files, its memory, ...).
///
/// The owner reads without a lock, because nobody else writes; others read under the lock, and the
/// owner takes it to write. An `IrqLock`, because the scheduler looks at the memory of the next
/// task.
pub struct OwnCell<T> {
    lock: IrqLock<()>,
    value: UnsafeCell<Option<Arc<T>>>,
}

// SAFETY: writes happen only on the owner's thread and under the lock; reads by others hold the
// lock, and reads by the owner can't run at the same time as its own writes.
unsafe impl<T: Send + Sync> Sync for OwnCell<T> {}
// SAFETY: the cell owns nothing but the Arc.
unsafe impl<T: Send + Sync> Send for OwnCell<T> {}

impl<T> OwnCell<T> {
    /// A cell for a task that does not run yet.
    pub fn new(value: Option<Arc<T>>) -> Self {
        OwnCell { lock: IrqLock::new(()), value: UnsafeCell::new(value) }
    }

    /// The object, seen from any task.
    pub fn get(&self, owner: &Task) -> Option<Arc<T>> {
        let _guard = (!is_current(owner)).then(|| self.lock.lock());
        // SAFETY: either this is the owner (the only writer) or the lock is held.
        unsafe { (*self.value.get()).clone() }
    }

    /// Runs `f` on the object of the current task without counting a reference.
    pub fn with<R>(&self, owner: &Task, f: impl FnOnce(&T) -> R) -> Option<R> {
        if is_current(owner) {
            // SAFETY: the owner runs this. The reference does not outlive `f`, and `f` can't reach
            // `replace` of this cell without the owner's state change functions, which callers
            // don't nest in here.
            return unsafe { (*self.value.get()).as_deref() }.map(f);
        }
        self.get(owner).map(|value| f(&value))
    }

    /// Replaces the object; returns the old one so that the caller drops it without a lock.
    /// Only the owner calls this, or whoever builds a task before it runs.
    pub fn replace(&self, value: Option<Arc<T>>) -> Option<Arc<T>> {
        let _guard = self.lock.lock();
        // SAFETY: only the owner writes, and readers on other tasks are kept out by the lock.
        core::mem::replace(unsafe { &mut *self.value.get() }, value)
    }
}

fn is_current(task: &Task) -> bool {
    core::ptr::eq(task, cpu::current_task())
}
