//! The simulated memory of test processes.

use crate::arch::memory::RAM;
use std::cell::Cell;
use std::sync::Once;

std::thread_local! {
    /// Frames this thread took and didn't return: tests run in parallel, so a global count says
    /// nothing.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// Sets the frame table up on first use.
pub fn ensure_init() {
    static ONCE: Once = Once::new();
    std::thread_local! { static INSIDE: Cell<bool> = const { Cell::new(false) }; }
    if ONCE.is_completed() || INSIDE.get() {
        return;
    }
    INSIDE.set(true);
    // The first MiB stands for boot modules and other memory that nobody allocates.
    // SAFETY: once, and the simulated RAM is nobody else's.
    ONCE.call_once(|| unsafe { super::zone::init(&[(0, RAM)], &[(0, 1 << 20)]) });
    INSIDE.set(false);
}

pub fn count(change: isize) {
    LIVE.set(LIVE.get() + change);
}

/// Frames that this thread took minus those it returned.
pub fn live_frames() -> isize {
    LIVE.get()
}
