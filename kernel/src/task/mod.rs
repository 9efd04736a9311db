//! Tasks (threads), processes, signals, program execution.
//!
//! # Locks
//! Process-wide signal state ([`Process::signal`]) is an `IrqLock` because timers send signals from
//! interrupt handlers; it comes before a task's own signal lock, that before wait queues and run
//! queues. The family tree ([`family`]) is a `SpinLock` and comes before all of them.

pub mod acct;
pub mod coredump;
pub mod creds;
pub mod exec;
pub mod exit;
pub mod family;
pub mod fork;
pub mod futex;
pub mod inspect;
mod login;
pub mod oom;
mod own;
pub mod pid;
pub mod process;
mod restart;
pub mod rlimit;
pub mod rseq;
pub mod sched;
pub mod seccomp;
pub mod session;
pub mod signal;
mod thread;
pub mod timers;
pub mod trace;
pub mod user;
pub mod wait;

pub use creds::Creds;
pub use login::Login;
pub use pid::{find_process, find_task};
pub use process::{Process, Remains};
pub use thread::{Task, Work, current, current_arc};

/// Calls `f` for every process in order of its number, zombies included.
pub fn for_each_process(mut f: impl FnMut(&alloc::sync::Arc<Process>)) {
    pid::processes().iter().for_each(&mut f);
}
