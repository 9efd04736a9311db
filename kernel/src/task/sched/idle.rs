//! When there is nothing to do.

use super::entity;
use super::runqueue::{IDLE, QUEUES};
use crate::arch::context::Context;
use crate::arch::cpu;
use crate::errno::Result;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Makes the running context this CPU's idle task. Called once on each CPU, before anything is
/// scheduled there.
pub fn init_cpu() -> Result<()> {
    let here = cpu::id();
    let task = super::kernel_task("idle", (Context::empty(), None))?;
    task.sched.state.store(entity::RUNNING, SeqCst);
    task.sched.cpu.store(here, Relaxed);
    task.sched.on_queue.store(true, Relaxed);
    let mut rq = QUEUES[here].lock();
    rq.accounted = crate::time::now_ns();
    cpu::set_current_task(Arc::as_ptr(&task));
    rq.current = Some(task.clone());
    rq.idle = Some(task);
    IDLE.fetch_or(1 << here, SeqCst);
    Ok(())
}

/// The idle task's loop: runs others as they come, and sleeps when there is none.
pub fn run_idle() -> ! {
    loop {
        super::preempt();
        // A task that is queued from here on comes with a pending reschedule, which `idle` looks
        // at.
        if QUEUES[cpu::id()].lock().queue.is_empty() {
            crate::arch::idle();
        }
        crate::sync::softirq::run_pending();
    }
}
