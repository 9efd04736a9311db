//! Interval timers and POSIX timers of a process.

/// Timers of one process.
#[derive(Default)]
pub struct ProcessTimers {}

impl ProcessTimers {
    /// Disarms everything.
    pub fn clear(&mut self) {}
}
