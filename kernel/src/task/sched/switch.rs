//! Leaving and taking the CPU.

use super::entity;
use super::runqueue::{IDLE, QUEUES, RunQueue, SLICE, SWITCHES};
use crate::arch::context::{self, Context};
use crate::arch::kstack::KernelStack;
use crate::arch::{MAX_CPUS, cpu, ipi, irq};
use crate::errno::Result;
use crate::mm::AddressSpace;
use crate::sync::IrqGuard;
use crate::task::thread::Work;
use crate::task::{Task, current, current_arc};
use crate::time::{Timer, TimerTarget, now_ns};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::ptr::null_mut;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Wakes a task whose deadline has come.
struct Alarm(Weak<Task>);

impl TimerTarget for Alarm {
    fn expired(&self) {
        // Never the last reference: a task that sleeps is held by its process.
        if let Some(task) = self.0.upgrade() {
            super::wake(&task);
        }
    }
}

/// Gives up the CPU if the current task still is asleep (see [`Task::prepare_to_sleep`]), until it
/// is woken or the deadline (monotonic nanoseconds) passes. Interrupts must be on and no spinning
/// lock held.
pub fn block(deadline: Option<u64>) {
    if cfg!(not(guest)) {
        let woken = current().sched.state.load(SeqCst) == entity::RUNNING;
        assert!(woken, "the test would sleep forever");
        return;
    }
    let Some(deadline) = deadline else {
        schedule(false);
        return;
    };
    let task = current();
    let alarm = task
        .sched
        .alarm
        .get_or_init(|| Timer::new(Arc::new(Alarm(Arc::downgrade(&current_arc())))));
    alarm.arm(deadline);
    schedule(false);
    alarm.cancel();
}

/// The pending reschedule of this CPU: picks the next task. Called with no locks held.
pub fn preempt() {
    schedule(true);
}

/// sched_yield(2): lets the others go first.
pub fn yield_now() {
    let was_enabled = irq::disable_save();
    let first = QUEUES[cpu::id()].lock().queue.first_key();
    irq::restore(was_enabled);
    if let Some(first) = first {
        current().sched.vruntime.fetch_max(first + 1, Relaxed);
        schedule(true);
    }
}

/// An interrupt found the current task in user mode: the time since it was last charged was user
/// time.
pub(in crate::task) fn account_user() {
    let was_enabled = irq::disable_save();
    QUEUES[cpu::id()].lock().account(now_ns(), true);
    irq::restore(was_enabled);
}

/// Stops the current task until `resume` (job control), unless `still` says otherwise once the stop
/// is announced.
pub(in crate::task) fn stop_current(still: impl FnOnce() -> bool) {
    let task = current();
    task.sched.state.swap(entity::STOPPED, SeqCst);
    if still() {
        schedule(false);
    }
    task.sched.finish_sleep();
}

/// Leaves the CPU for ever. The caller has dropped what it owns; the next task frees the stack.
pub(in crate::task) fn exit_current() -> ! {
    current().sched.state.swap(entity::DEAD, SeqCst);
    schedule(false);
    unreachable!("a dead task was scheduled");
}

/// The task that just left each CPU, as `Arc::into_raw`.
static LEFT: [AtomicPtr<Task>; MAX_CPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_CPUS];

/// Picks the next task and runs it. `stay` keeps the current task runnable whatever its state says.
fn schedule(stay: bool) {
    let was_enabled = irq::disable_save();
    let here = cpu::id();
    let mut rq = QUEUES[here].lock();
    let Some(prev) = rq.current.clone() else {
        // The scheduler isn't up on this CPU.
        drop(rq);
        irq::restore(was_enabled);
        return;
    };
    let now = now_ns();
    rq.account(now, false);
    let idle = rq.is_idle();
    let stays = stay || prev.sched.state.load(SeqCst) == entity::RUNNING;
    let allowed = prev.sched.affinity() & (1 << here) != 0;
    let mut exile = None;
    if idle {
        // The idle task is never queued.
    } else if !stays {
        prev.sched.on_queue.store(false, Relaxed);
        prev.sched.voluntary.fetch_add(1, Relaxed);
    } else if !allowed {
        exile = Some(prev.clone());
    } else if rq.queue.is_empty() {
        drop(rq);
        irq::restore(was_enabled);
        return;
    } else {
        rq.enqueue(prev.clone());
    }
    let next = pick(&mut rq, here);
    if Arc::ptr_eq(&next, &prev) {
        arm_slice(&mut rq, now);
        drop(rq);
        irq::restore(was_enabled);
        return;
    }
    if stays && !idle {
        prev.sched.involuntary.fetch_add(1, Relaxed);
        prev.add_work(Work::RSEQ);
    }
    arm_slice(&mut rq, now);
    if rq.idle.as_ref().is_some_and(|idle| Arc::ptr_eq(idle, &next)) {
        IDLE.fetch_or(1 << here, SeqCst);
    } else if idle {
        IDLE.fetch_and(!(1 << here), SeqCst);
    }
    if let Some(exile) = exile {
        // Only the next task may hand it to another CPU: until then it is still running here.
        EXILED[here].store(Arc::into_raw(exile).cast_mut(), Relaxed);
    }
    switch_to(rq, here, prev, next);
    let left = finish();
    if was_enabled {
        irq::enable();
        drop(left);
    } else {
        // Pending work: see `softirq::work_off`.
        cpu::preempt_inc();
        irq::enable();
        drop(left);
        irq::disable();
        cpu::preempt_dec();
    }
}

static EXILED: [AtomicPtr<Task>; MAX_CPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_CPUS];

fn pick(rq: &mut RunQueue, here: usize) -> Arc<Task> {
    if let Some(task) = rq.queue.pop() {
        return task;
    }
    if let Some(task) = steal(rq, here) {
        return task;
    }
    // `init_cpu` sets the idle task before anything can be scheduled on this CPU.
    rq.idle.clone().expect("every CPU has an idle task")
}

/// Takes a waiting task from another CPU. The other queues are only tried: waiting for them could
/// deadlock.
fn steal(rq: &RunQueue, here: usize) -> Option<Arc<Task>> {
    for step in 1..cpu::count() {
        let other = (here + step) % cpu::count();
        let Some(mut victim) = QUEUES[other].try_lock() else { continue };
        let allowed = |task: &Arc<Task>| task.sched.affinity() & (1 << here) != 0;
        if let Some(task) = victim.queue.take_first(allowed) {
            let entity = &task.sched;
            let lead = entity.vruntime.load(Relaxed).saturating_sub(victim.min_vruntime);
            entity.vruntime.store(rq.min_vruntime + lead, Relaxed);
            entity.cpu.store(here, SeqCst);
            task.add_work(Work::RSEQ);
            return Some(task);
        }
    }
    None
}

/// Others wait: the chosen task gets a limited time, and a CPU that sleeps is told. It looked for work
/// when it had none left, but may not have come by this queue's lock, or was not allowed to take a task
/// whose affinity has changed since.
fn arm_slice(rq: &mut RunQueue, now: u64) {
    if rq.queue.is_empty() || rq.slice_end > now {
        return;
    }
    rq.slice_end = now + SLICE;
    crate::time::timer::set_slice(rq.slice_end);
    // This one may have been idle until now.
    let idle = IDLE.load(Relaxed) & entity::online_cpus() & !(1 << cpu::id());
    let mut asleep = (0..MAX_CPUS).filter(|cpu| idle & (1 << cpu) != 0);
    let useful = |cpu: &usize| rq.queue.any(|task| task.sched.affinity() & (1 << cpu) != 0);
    if let Some(cpu) = asleep.find(useful) {
        ipi::reschedule(cpu);
    }
}

fn switch_to(mut rq: IrqGuard<'static, RunQueue>, here: usize, prev: Arc<Task>, next: Arc<Task>) {
    SWITCHES.fetch_add(1, Relaxed);
    prev.leave_cpu();
    // Kernel threads keep what is loaded.
    next.with_mm(AddressSpace::activate);
    let from = prev.sched.context.get();
    let to = next.sched.context.get();
    cpu::set_current_task(Arc::as_ptr(&next));
    rq.current = Some(next);
    LEFT[here].store(Arc::into_raw(prev).cast_mut(), Relaxed);
    core::mem::forget(rq);
    // SAFETY: `from` belongs to the running task. `to` was saved by this function or made by
    // `new_kernel`, and its stack lives as long as its task, which `rq.current` holds; the queue's
    // lock keeps others from both.
    unsafe { context::switch(from, to) };
}

/// What the previous task on this CPU leaves to be disposed of once interrupts are on.
struct Left {
    task: *mut Task,
    exiled: *mut Task,
}

/// The first thing a task does after a switch, on the CPU it now runs on: releases the run queue
/// that the previous task locked. Interrupts are off.
fn finish() -> Left {
    let here = cpu::id();
    let task = LEFT[here].swap(null_mut(), Relaxed);
    let exiled = EXILED[here].swap(null_mut(), Relaxed);
    // SAFETY: `switch_to` forgot the guard of this CPU's queue just before it switched here.
    unsafe { QUEUES[here].force_unlock() };
    Left { task, exiled }
}

impl Drop for Left {
    fn drop(&mut self) {
        if !self.exiled.is_null() {
            // SAFETY: stored from `Arc::into_raw` by `schedule`, and the swap took it.
            super::wake::relocate(&unsafe { Arc::from_raw(self.exiled) });
        }
        if !self.task.is_null() {
            // SAFETY: stored from `Arc::into_raw` by `switch_to`, and the swap took it.
            drop(unsafe { Arc::from_raw(self.task) });
        }
    }
}

/// The current task's address space was replaced (execve(2)) or given up (exit): loads what it has
/// now.
pub(in crate::task) fn reload_mm() {
    let _guard = crate::sync::preempt_disable();
    if current().with_mm(AddressSpace::activate).is_none() {
        AddressSpace::deactivate();
    }
}

type Body = Box<dyn FnOnce() + Send>;

/// Context and stack of a kernel thread.
pub(super) fn kernel_thread(body: Body) -> Result<(Context, Option<KernelStack>)> {
    let stack = KernelStack::new()?;
    let arg = Box::into_raw(Box::new(body)) as usize;
    // SAFETY: the stack is ours and larger than a page.
    let context = unsafe { Context::new_kernel(stack.top(), run_kernel, arg) };
    Ok((context, Some(stack)))
}

/// Context and stack of a user task.
pub(super) fn user_thread() -> Result<(Context, Option<KernelStack>)> {
    let stack = KernelStack::new()?;
    // SAFETY: the stack is ours and larger than a page.
    let context = unsafe { Context::new_kernel(stack.top(), run_user, 0) };
    Ok((context, Some(stack)))
}

extern "C" fn run_kernel(arg: usize) -> ! {
    let left = finish();
    irq::restore(true);
    drop(left);
    // SAFETY: `kernel_thread` made the pointer, and each context starts once.
    let body = unsafe { Box::from_raw(arg as *mut Body) };
    body();
    let task = current();
    task.process().signal.lock().threads.retain(|other| !core::ptr::eq(&**other, task));
    exit_current()
}

extern "C" fn run_user(_arg: usize) -> ! {
    let left = finish();
    irq::restore(true);
    drop(left);
    crate::task::user::run()
}
