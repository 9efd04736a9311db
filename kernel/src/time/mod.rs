//! Clocks and timers.
//!
//! Time is kept in nanoseconds of the monotonic clock ([`now_ns`]), which starts near zero at boot
//! and never jumps; the wall clock is an offset to it.

pub mod clock;
pub mod timer;
pub mod vdso;

pub use crate::arch::clock::now_ns;
pub use clock::realtime_ns;
pub use timer::{Timer, TimerTarget};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
