//! Locks and waiting.
//!
//! | type | holder may sleep | masks | use for |
//! |---|---|---|---|
//! | [`SpinLock`] | no | preemption, softirqs | short sections in task and softirq context |
//! | [`IrqLock`] | no | interrupts | what interrupt handlers touch too (wait queues, run queues, timers) |
//! | [`Mutex`], [`RwMutex`] | yes | nothing | sections that may fault on user memory or do I/O |
//!
//! # Rules
//! - While a `SpinLock` or `IrqLock` is held: no sleeping, no user memory except by the `_nofault`
//!   accessors, no `Mutex`.
//! - Softirqs ([`softirq`]) run only where no `SpinLock` is held on this CPU, so a `SpinLock` may
//!   be
//!   shared between task context and softirq context. Interrupt handlers take only `IrqLock`s.
//! - Order: `Mutex` before `SpinLock` before `IrqLock`; among `IrqLock`s: wait queue, then task
//!   state, then run queue, then timer queue, then heap.

mod mutex;
mod once;
pub mod softirq;
mod spin;
mod wait;

pub use mutex::{Mutex, MutexGuard, RwMutex, RwReadGuard, RwWriteGuard};
pub use once::Once;
pub use spin::{IrqGuard, IrqLock, PreemptGuard, SpinGuard, SpinLock, preempt_disable};
pub use wait::{Observer, Registration, WaitError, WaitMode, WaitQueue};
