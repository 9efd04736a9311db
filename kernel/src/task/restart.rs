//! Interrupted calls that go on with what is left (restart_syscall(2)).

use super::Task;
use super::signal::{Restart, SigSet};

impl Task {
    /// Remembers how the call under way goes on. Own task only.
    pub fn set_restart(&self, restart: Restart) {
        *self.restart.lock() = Some(restart);
    }

    /// What the last interrupted call left to do. Own task only.
    pub fn take_restart(&self) -> Option<Restart> {
        self.restart.lock().take()
    }

    /// Blocked signals.
    pub fn signal_mask(&self) -> SigSet {
        self.signal.lock().mask
    }
}
