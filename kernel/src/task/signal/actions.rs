//! What a process wants done about each signal (sigaction(2)).

use super::set::{COUNT, Default as DefaultAction};
use super::{SigSet, Signal};
use crate::sync::IrqLock;

/// `SIG_DFL`.
pub const SIG_DFL: usize = 0;
/// `SIG_IGN`.
pub const SIG_IGN: usize = 1;

bitflags::bitflags! {
    /// `SA_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Flags: u64 {
        /// Children that stop send no SIGCHLD.
        const NOCLDSTOP = 0x1;
        /// Children that end leave no zombie.
        const NOCLDWAIT = 0x2;
        /// The handler takes three arguments.
        const SIGINFO = 0x4;
        /// Probing for flag support.
        const UNSUPPORTED = 0x400;
        /// `restorer` is valid.
        const RESTORER = 0x0400_0000;
        /// Runs on the alternate stack.
        const ONSTACK = 0x0800_0000;
        /// Interrupted calls are restarted.
        const RESTART = 0x1000_0000;
        /// The signal is not blocked while its handler runs.
        const NODEFER = 0x4000_0000;
        /// Back to the default before the handler runs.
        const RESETHAND = 0x8000_0000;
    }
}

/// One action, in the layout of the kernel ABI's `struct sigaction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Action {
    /// `SIG_DFL`, `SIG_IGN` or an address.
    pub handler: usize,
    /// Flags.
    pub flags: Flags,
    /// Where the handler returns to.
    pub restorer: usize,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

impl Action {
    /// Whether the signal vanishes: ignored, or by default without effect.
    pub fn ignores(&self, signal: Signal) -> bool {
        self.handler == SIG_IGN
            || self.handler == SIG_DFL && signal.default_action() == DefaultAction::Ignore
    }
    /// Whether a function of the program runs.
    pub fn is_caught(&self) -> bool {
        self.handler > SIG_IGN
    }
}

/// The actions of a process; shared by `CLONE_SIGHAND`.
pub struct Actions(IrqLock<[Action; COUNT]>);

impl Actions {
    /// All default.
    pub fn new() -> Actions {
        Actions(IrqLock::new([Action::default(); COUNT]))
    }
    /// A copy (fork(2)).
    pub fn fork(&self) -> Actions {
        Actions(IrqLock::new(*self.0.lock()))
    }
    /// The action for one signal.
    pub fn get(&self, signal: Signal) -> Action {
        self.0.lock()[signal.index()]
    }
    /// Replaces the action for one signal.
    pub fn set(&self, signal: Signal, action: Action) -> Action {
        core::mem::replace(&mut self.0.lock()[signal.index()], action)
    }
    /// Caught signals back to their default, as execve(2) does; ignored ones stay ignored.
    pub fn reset_caught(&self) {
        for action in self.0.lock().iter_mut() {
            let handler = if action.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *action = Action { handler, ..Action::default() };
        }
    }
    /// Signals that are ignored, and signals that are caught (for /proc/PID/status).
    pub fn summary(&self) -> (SigSet, SigSet) {
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        for (index, action) in self.0.lock().iter().enumerate() {
            let bit = SigSet(1 << index);
            if action.handler == SIG_IGN {
                ignored = ignored.or(bit);
            } else if action.is_caught() {
                caught = caught.or(bit);
            }
        }
        (ignored, caught)
    }
}

impl Default for Actions {
    fn default() -> Self {
        Actions::new()
    }
}
