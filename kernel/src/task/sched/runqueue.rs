//! The run queue of one CPU.

use super::entity::Entity;
use super::heap::Heap;
use super::weight;
use crate::arch::MAX_CPUS;
use crate::sync::IrqLock;
use crate::task::Task;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How long a task runs while others wait, in nanoseconds.
pub(super) const SLICE: u64 = 3_000_000;
/// A woken task goes first only if the running one is ahead by more than this.
pub(super) const WAKEUP_GRANULARITY: u64 = 500_000;

/// The tasks of one CPU.
pub(super) struct RunQueue {
    pub queue: Heap<Arc<Task>>,
    pub current: Option<Arc<Task>>,
    pub idle: Option<Arc<Task>>,
    /// Virtual time below which no waiting task lies.
    pub min_vruntime: u64,
    /// When the current task's time was last accounted.
    pub accounted: u64,
    /// The end of the slice that is armed; in the past if none is.
    pub slice_end: u64,
}

impl RunQueue {
    const fn new() -> RunQueue {
        RunQueue {
            queue: Heap::new(),
            current: None,
            idle: None,
            min_vruntime: 0,
            accounted: 0,
            slice_end: 0,
        }
    }

    /// Charges the current task for the time since it was last charged.
    ///
    /// Time is read only at switches and interrupts, so it is split by where the task was found: an
    /// interrupt finds it in user mode, a sleep begins in the kernel after some user time.
    pub fn account(&mut self, now: u64, in_user: bool) {
        let spent = now.saturating_sub(core::mem::replace(&mut self.accounted, now));
        let Some(task) = &self.current else { return };
        let entity = &task.sched;
        let system = if in_user { 0 } else { spent / 2 };
        entity.user_ns.fetch_add(spent - system, Relaxed);
        entity.system_ns.fetch_add(system, Relaxed);
        if self.is_idle() {
            return;
        }
        let virt = weight::virtual_ns(spent, entity.weight.load(Relaxed));
        let vruntime = entity.vruntime.load(Relaxed) + virt;
        entity.vruntime.store(vruntime, Relaxed);
        let least = self.queue.first_key().map_or(vruntime, |first| first.min(vruntime));
        self.min_vruntime = self.min_vruntime.max(least);
    }

    /// Whether the idle task runs.
    pub fn is_idle(&self) -> bool {
        match (&self.current, &self.idle) {
            (Some(current), Some(idle)) => Arc::ptr_eq(current, idle),
            _ => true,
        }
    }

    /// Adds a runnable task; its queue is this one already.
    pub fn enqueue(&mut self, task: Arc<Task>) {
        self.queue.push(task.sched.vruntime.load(Relaxed), task);
    }

    /// Gives a task that slept a place in this queue's time: not far behind, or it would hog the
    /// CPU.
    pub fn place(&self, entity: &Entity) {
        let floor = self.min_vruntime.saturating_sub(SLICE);
        entity.vruntime.fetch_max(floor, Relaxed);
    }

    /// Whether `entity` should take the CPU from the current task.
    pub fn preempts(&self, entity: &Entity) -> bool {
        let Some(current) = &self.current else { return true };
        let lead = entity.vruntime.load(Relaxed) + WAKEUP_GRANULARITY;
        self.is_idle() || lead < current.sched.vruntime.load(Relaxed)
    }
}

pub(super) static QUEUES: [IrqLock<RunQueue>; MAX_CPUS] =
    [const { IrqLock::new(RunQueue::new()) }; MAX_CPUS];
/// Bits of CPUs that run their idle task.
pub(super) static IDLE: AtomicU32 = AtomicU32::new(0);
/// Context switches since boot.
pub(super) static SWITCHES: AtomicU64 = AtomicU64::new(0);

/// Brings the CPU time of a task up to date if it runs right now.
pub(super) fn charge_running(entity: &Entity) {
    if !entity.on_queue.load(Relaxed) {
        return;
    }
    let mut rq = QUEUES[entity.cpu()].lock();
    if rq.current.as_ref().is_some_and(|task| core::ptr::eq(&task.sched, entity)) {
        rq.account(crate::time::now_ns(), false);
    }
}

/// Tasks that run or want to, over all CPUs.
pub fn runnable() -> usize {
    let count = |cpu: usize| {
        let rq = QUEUES[cpu].lock();
        rq.queue.len() + usize::from(!rq.is_idle())
    };
    (0..crate::arch::cpu::count()).map(count).sum()
}

/// Context switches since boot.
pub fn switches() -> u64 {
    SWITCHES.load(Relaxed)
}

/// Load averages over 1, 5 and 15 minutes in units of 1/2048, decayed on each call by the time
/// since the last.
pub fn load() -> [u64; 3] {
    static AVERAGES: IrqLock<([u64; 3], u64)> = IrqLock::new(([0; 3], 0));
    const STEP: u64 = 5_000_000_000;
    // exp(-5 s / period) in 1/2048.
    const DECAY: [u64; 3] = [1884, 2014, 2037];
    let active = (runnable() as u64) << 11;
    let now = crate::time::now_ns();
    let mut state = AVERAGES.lock();
    let steps = now.saturating_sub(state.1) / STEP;
    state.1 += steps * STEP;
    for _ in 0..steps.min(1000) {
        for (average, decay) in state.0.iter_mut().zip(DECAY) {
            *average = (*average * decay + active * (2048 - decay)) >> 11;
        }
    }
    state.0
}
