//! The wall clock, as an offset to the monotonic one.

use super::now_ns;
use crate::sync::{Once, SpinLock, WaitQueue};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds since the Unix epoch at monotonic time zero; zero until [`init`].
static EPOCH: AtomicU64 = AtomicU64::new(0);
static CHANGED: Once<Arc<WaitQueue>> = Once::new();
static SETTING: SpinLock<()> = SpinLock::new(());

/// Reads the machine's clock once; called at boot when `arch::clock` works.
pub fn init() {
    EPOCH.store(crate::arch::clock::boot_epoch_ns(), Ordering::Relaxed);
}

/// Nanoseconds since the Unix epoch.
pub fn realtime_ns() -> u64 {
    EPOCH.load(Ordering::Relaxed).wrapping_add(now_ns())
}

/// Nanoseconds since the Unix epoch at boot.
pub fn boot_time_ns() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}

/// Sets the wall clock (clock_settime(2)) and tells those who wait for its jumps (timerfd's
/// `TFD_TIMER_CANCEL_ON_SET`).
pub fn set_realtime(ns: u64) {
    {
        let _guard = SETTING.lock();
        EPOCH.store(ns.wrapping_sub(now_ns()), Ordering::Relaxed);
        #[cfg(guest)]
        super::vdso::clock_changed();
    }
    changes().wake_all(crate::event::Events::ALL);
}

/// Woken each time the wall clock is set: absolute wall-clock timers re-arm themselves.
pub fn changes() -> &'static Arc<WaitQueue> {
    CHANGED.get_or_init(|| Arc::new(WaitQueue::new()))
}

/// The monotonic time at which the wall clock will show `ns`, as it is set now; times in the past
/// give zero.
pub fn realtime_to_monotonic(ns: u64) -> u64 {
    ns.saturating_sub(EPOCH.load(Ordering::Relaxed))
}
