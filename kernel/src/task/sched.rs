//! The scheduler.

use super::Task;
use alloc::sync::Arc;

/// Makes a sleeping task runnable. Returns whether it was asleep (or about to be). Callable from interrupt handlers.
pub fn wake(_task: &Arc<Task>) -> bool {
    false
}

/// Gives up the CPU if the current task still is asleep (see [`Task::prepare_to_sleep`]), until it is woken or the
/// deadline (monotonic nanoseconds) passes. Interrupts must be on and no spinning lock held.
pub fn block(_deadline: Option<u64>) {
    panic!("the test would sleep forever");
}

/// The pending reschedule of this CPU: picks the next task. Called with no locks held.
pub fn preempt() {}
