//! Tasks (threads), processes, signals, program execution.

pub mod sched;

use crate::arch::cpu;
use crate::sync::WaitMode;
use alloc::sync::Arc;

/// One thread of execution: of a process, or of the kernel.
pub struct Task {}

/// The task this CPU runs.
///
/// The reference is good for as long as the calling task runs; don't store it.
pub fn current() -> &'static Task {
    // SAFETY: the scheduler keeps the running task alive, and the caller runs on it.
    unsafe { cpu::current_task().as_ref() }.expect("no task runs yet")
}

/// The task this CPU runs, as a counted reference.
pub fn current_arc() -> Arc<Task> {
    let task: *const Task = current();
    // SAFETY: tasks live in `Arc`s only, and the running one has at least the scheduler's reference.
    unsafe {
        Arc::increment_strong_count(task);
        Arc::from_raw(task)
    }
}

impl Task {
    /// Announces that the task is about to sleep; a wake-up from here on makes `sched::block` return at once.
    pub fn prepare_to_sleep(&self, _mode: WaitMode) {}
    /// Back to running, whether or not it slept.
    pub fn finish_sleep(&self) {}
    /// Whether a pending signal forbids sleeping in `mode`.
    pub fn wait_disturbed(&self, _mode: WaitMode) -> bool {
        false
    }
}
