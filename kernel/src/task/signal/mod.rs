//! Signals (signal(7)): who gets them, when they are taken, what a handler sees.
//!
//! | module | what it holds |
//! |---|---|
//! | [`set`], [`info`], [`queue`], [`actions`] | numbers, `siginfo_t`, pending signals, dispositions |
//! | [`send`] | sending: permission, ignoring, choosing a thread, waking it |
//! | [`take`] | taking signals synchronously: sigtimedwait, signalfd; masks |

mod actions;
mod crash;
pub mod deliver;
pub mod frame;
mod info;
mod queue;
pub mod send;
mod set;
pub mod take;

pub use actions::{Action, Actions, Flags as ActionFlags, SIG_DFL, SIG_IGN};
pub use info::{SigInfo, code};
pub use queue::Pending;
pub use send::{send_to_pgrp, send_to_process, send_to_task};
pub use set::{COUNT, Default as DefaultAction, RTMIN, SigSet, Signal};
pub use take::{pending_for_current, recalculate, set_mask, take_for_current};

/// `SS_ONSTACK`.
pub const SS_ONSTACK: u32 = 1;
/// `SS_DISABLE`.
pub const SS_DISABLE: u32 = 2;
/// `SS_AUTODISARM`.
pub const SS_AUTODISARM: u32 = 1 << 31;
/// Smallest alternate stack (`MINSIGSTKSZ`).
pub const MINSIGSTKSZ: usize = 2048;

/// The alternate signal stack (sigaltstack(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    /// Lowest address.
    pub base: usize,
    /// Bytes.
    pub size: usize,
    /// `SS_DISABLE`, `SS_AUTODISARM`.
    pub flags: u32,
}

impl AltStack {
    /// No alternate stack.
    pub const DISABLED: AltStack = AltStack { base: 0, size: 0, flags: SS_DISABLE };

    /// Whether a stack pointer lies on it.
    pub fn contains(&self, sp: usize) -> bool {
        self.size != 0 && sp > self.base && sp - self.base <= self.size
    }
}

/// Signal state of one thread.
pub struct TaskSignals {
    /// Blocked signals.
    pub mask: SigSet,
    /// The mask to go back to after sigsuspend(2), ppoll(2), ... once a handler's frame has been
    /// made.
    pub saved_mask: Option<SigSet>,
    /// Signals for this thread alone.
    pub pending: Pending,
    /// Alternate stack.
    pub altstack: AltStack,
    /// Signals that sigtimedwait(2) waits for right now.
    pub awaited: SigSet,
    /// Pending signals that a CPU exception raised: they reach even the main process.
    pub forced: SigSet,
}

impl TaskSignals {
    /// State of a new thread.
    pub fn new(mask: SigSet, altstack: AltStack) -> TaskSignals {
        TaskSignals {
            mask,
            saved_mask: None,
            pending: Pending::default(),
            altstack,
            awaited: SigSet::EMPTY,
            forced: SigSet::EMPTY,
        }
    }
}

/// How restart_syscall(2) goes on with an interrupted sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// clock_nanosleep(2) and nanosleep(2): clock, point of that clock's time in nanoseconds, where
    /// the rest goes.
    Sleep {
        /// `CLOCK_*`.
        clock: i32,
        /// End of the sleep.
        until: u64,
        /// User address of the remaining time, or 0.
        remaining: usize,
    },
    /// poll(2): array, entries, end of the wait (monotonic nanoseconds; `u64::MAX` for never).
    Poll {
        /// User address of the array.
        fds: usize,
        /// Its entries.
        count: u32,
        /// End of the wait.
        until: u64,
    },
    /// futex(2) `FUTEX_WAIT` with a relative timeout.
    Futex {
        /// Address.
        addr: usize,
        /// Expected value.
        value: u32,
        /// Monotonic end.
        until: u64,
        /// Bits.
        bitset: u32,
        /// `FUTEX_PRIVATE_FLAG`.
        private: bool,
    },
}
