//! The life of a user task in the kernel: run the program until it needs something, serve it.

use super::{current, exit};
use crate::arch::user::{UserExit, enter};
use crate::sync::softirq;

/// Runs the current task's program until it ends.
pub(super) fn run() -> ! {
    let task = current();
    // SAFETY: this is the task itself, and everything below gets the reference from here.
    let context = unsafe { task.user_context() };
    loop {
        exit::die_if_doomed(task);
        match enter(context) {
            UserExit::Syscall => context.rax = crate::Errno::ENOSYS.as_ret() as usize,
            UserExit::Interrupt => softirq::run_pending(),
            UserExit::Fault { .. } => exit::exit_group(11),
        }
    }
}
