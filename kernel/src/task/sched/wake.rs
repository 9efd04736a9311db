//! Making tasks runnable.

use super::entity::{self, Entity};
use super::runqueue::{IDLE, QUEUES, RunQueue, SLICE};
use crate::arch::{cpu, ipi};
use crate::sync::{IrqGuard, WaitMode, softirq};
use crate::task::{Task, thread::Work};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::fence;

const ASLEEP: u8 = entity::INTERRUPTIBLE | entity::KILLABLE | entity::UNINTERRUPTIBLE;

/// Makes a sleeping task runnable. Returns whether it was asleep (or about to be). Callable from
/// interrupt handlers.
pub fn wake(task: &Arc<Task>) -> bool {
    wake_from(task, ASLEEP)
}

/// Lets a stopped task go on. Callable from interrupt handlers.
pub fn resume(task: &Arc<Task>) -> bool {
    wake_from(task, entity::STOPPED)
}

/// Starts a new task.
pub(in crate::task) fn start(task: &Arc<Task>) {
    wake_from(task, entity::NEW);
}

/// Ends a sleep that a signal may end, or brings a running task into the kernel, so that it sees
/// its pending work. `Interruptible` is for any signal, `Killable` for a fatal one. Callable from
/// interrupt handlers.
pub fn disturb(task: &Arc<Task>, mode: WaitMode) {
    let states = match mode {
        WaitMode::Interruptible => entity::INTERRUPTIBLE,
        WaitMode::Killable => entity::INTERRUPTIBLE | entity::KILLABLE,
        WaitMode::Uninterruptible => return,
    };
    if wake_from(task, states) {
        return;
    }
    // On this CPU it is in the kernel, and looks once more before its program runs on.
    let home = task.sched.cpu();
    if home != cpu::id() && task.sched.state.load(Relaxed) == entity::RUNNING {
        ipi::reschedule(home);
    }
}

fn wake_from(task: &Arc<Task>, states: u8) -> bool {
    // Pairs with the barrier of `prepare_to_sleep`: either we see the state or the sleeper sees
    // what we did before.
    fence(SeqCst);
    let entity = &task.sched;
    if entity.state.load(Relaxed) & states == 0 {
        return false;
    }
    let (rq, home) = lock_home(entity);
    if entity.state.load(Relaxed) & states == 0 {
        return false;
    }
    entity.state.store(entity::RUNNING, SeqCst);
    if entity.on_queue.load(Relaxed) {
        // It hasn't left its CPU; `block` will see the state.
        return true;
    }
    entity.on_queue.store(true, Relaxed);
    let target = choose_cpu(home, entity.affinity(), IDLE.load(Relaxed));
    migrate(rq, home, target, task);
    true
}

/// Puts a runnable task that no queue holds on the queue of `target`.
fn migrate(rq: IrqGuard<'static, RunQueue>, home: usize, target: usize, task: &Arc<Task>) {
    let entity = &task.sched;
    let mut rq = rq;
    if target != home {
        // Nobody else touches it meanwhile: it isn't on any queue, and its state says it needs no
        // waking.
        let lead = entity.vruntime.load(Relaxed).saturating_sub(rq.min_vruntime);
        entity.cpu.store(target, SeqCst);
        task.add_work(Work::RSEQ);
        drop(rq);
        rq = QUEUES[target].lock();
        entity.vruntime.store(rq.min_vruntime + lead, Relaxed);
    }
    insert(&mut rq, target, task.clone());
}

/// Moves a task that was just taken off a CPU on which it may not run.
pub(super) fn relocate(task: &Arc<Task>) {
    let (rq, home) = lock_home(&task.sched);
    let target = choose_cpu(home, task.sched.affinity(), IDLE.load(Relaxed));
    migrate(rq, home, target, task);
}

fn lock_home(entity: &Entity) -> (IrqGuard<'static, RunQueue>, usize) {
    loop {
        let home = entity.cpu();
        let rq = QUEUES[home].lock();
        if entity.cpu() == home {
            return (rq, home);
        }
    }
}

fn insert(rq: &mut RunQueue, target: usize, task: Arc<Task>) {
    let now = crate::time::now_ns();
    if !rq.is_idle() {
        rq.account(now, false);
    }
    rq.place(&task.sched);
    let preempts = rq.preempts(&task.sched);
    rq.enqueue(task);
    if target != cpu::id() {
        // Also when nothing is preempted: that CPU has to arm its slice timer.
        if preempts || rq.slice_end <= now {
            ipi::reschedule(target);
        }
    } else if preempts {
        cpu::set_pending(softirq::RESCHEDULE);
    } else if rq.slice_end <= now {
        rq.slice_end = now + SLICE;
        crate::time::timer::set_slice(rq.slice_end);
    }
}

/// Where a woken task runs: where it ran last if that CPU is idle or none is, else on an idle CPU.
fn choose_cpu(home: usize, affinity: u32, idle: u32) -> usize {
    let bit = 1u32 << home;
    if affinity & bit != 0 && (idle & bit != 0 || idle & affinity == 0) {
        return home;
    }
    let allowed =
        if idle & affinity != 0 { idle & affinity } else { affinity & entity::online_cpus() };
    if allowed == 0 { home } else { allowed.trailing_zeros() as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_woken_task_prefers_its_cpu_then_an_idle_one() {
        assert_eq!(choose_cpu(0, 0b11, 0b01), 0);
        assert_eq!(choose_cpu(0, 0b11, 0b10), 1);
        assert_eq!(choose_cpu(0, 0b11, 0b00), 0);
        assert_eq!(choose_cpu(0, 0b10, 0b10), 1);
    }
}
