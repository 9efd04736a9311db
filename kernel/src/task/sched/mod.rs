//! The scheduler: per-CPU run queues, weighted fair by virtual runtime.
//!
//! A task's scheduling state belongs to the run queue of its CPU ([`Entity::cpu`]) and changes only
//! under that queue's lock. The lock is held across a context switch and released by the next task,
//! so whoever holds it knows that a task which isn't on the queue has completely left its CPU.

mod entity;
mod heap;
mod idle;
mod runqueue;
mod switch;
mod wake;
mod weight;

pub use entity::{Entity, Policy, online_cpus};
pub use idle::{init_cpu, run_idle};
pub use runqueue::{load, runnable, switches};
pub(in crate::task) use switch::{account_user, exit_current, reload_mm, stop_current};
pub use switch::{block, preempt, yield_now};
pub(in crate::task) use wake::start;
pub use wake::{disturb, resume, wake};
pub use weight::{NICE_MAX, NICE_MIN};

use super::thread::{Comm, Parts};
use super::{Creds, Process, Task};
use crate::arch::context::Context;
use crate::arch::kstack::KernelStack;
use crate::arch::user::UserContext;
use crate::errno::Result;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// Runs `f` in a new thread of the kernel.
pub fn spawn_kernel(name: &str, f: impl FnOnce() + Send + 'static) -> Result<Arc<Task>> {
    let context = switch::kernel_thread(Box::new(f))?;
    let task = kernel_task(name, context)?;
    Process::kernel().signal.lock().threads.push(task.clone());
    start(&task);
    Ok(task)
}

fn kernel_task(name: &str, context: (Context, Option<KernelStack>)) -> Result<Arc<Task>> {
    use super::signal::{AltStack, SigSet, TaskSignals};
    Ok(Task::new(Parts {
        pid: None,
        process: Process::kernel().clone(),
        comm: Comm::new(name.as_bytes()).0,
        mm: None,
        files: None,
        fs: None,
        creds: Arc::new(Creds::root()),
        user: UserContext::new(0, 0)?,
        sched: Entity::new(context),
        signal: TaskSignals::new(SigSet::ALL, AltStack::DISABLED),
    }))
}

/// Sleeps until a point of monotonic time in nanoseconds; nothing disturbs it.
pub fn sleep_until(deadline: u64) {
    let task = super::current();
    while crate::time::now_ns() < deadline {
        task.prepare_to_sleep(crate::sync::WaitMode::Uninterruptible);
        block(Some(deadline));
        task.finish_sleep();
    }
}
