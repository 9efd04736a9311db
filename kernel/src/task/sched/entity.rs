//! What the scheduler knows of a task.

use super::weight;
use crate::arch::{MAX_CPUS, context::Context, kstack::KernelStack};
use crate::sync::{Once, WaitMode};
use crate::task::process::Usage;
use crate::time::Timer;
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};

/// Runs or waits for a CPU.
pub(super) const RUNNING: u8 = 0;
/// Sleeps; any signal wakes it.
pub(super) const INTERRUPTIBLE: u8 = 1 << 0;
/// Sleeps; a fatal signal wakes it.
pub(super) const KILLABLE: u8 = 1 << 1;
/// Sleeps.
pub(super) const UNINTERRUPTIBLE: u8 = 1 << 2;
/// Stopped by job control.
pub(super) const STOPPED: u8 = 1 << 3;
/// Will never run again.
pub(super) const DEAD: u8 = 1 << 4;
/// Was made but not started.
pub(super) const NEW: u8 = 1 << 5;

/// Scheduling policy (sched(7)), kept for those who ask; real-time ones run at the highest weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `SCHED_*`.
    pub class: u32,
    /// Real-time priority, 0 for the others.
    pub priority: u32,
}

/// A task's scheduling state.
pub struct Entity {
    pub(super) state: AtomicU8,
    /// The CPU whose run queue it belongs to.
    pub(super) cpu: AtomicUsize,
    /// Queued, or the one that runs.
    pub(super) on_queue: AtomicBool,
    pub(super) vruntime: AtomicU64,
    pub(super) weight: AtomicU32,
    nice: AtomicI32,
    class: AtomicU32,
    priority: AtomicU32,
    reset_on_fork: AtomicBool,
    pub(super) affinity: AtomicU32,
    pub(super) user_ns: AtomicU64,
    pub(super) system_ns: AtomicU64,
    pub(super) voluntary: AtomicU64,
    pub(super) involuntary: AtomicU64,
    /// Faults served without I/O.
    pub minor_faults: AtomicU64,
    /// Faults that read.
    pub major_faults: AtomicU64,
    /// What read(2) and write(2) and their kin moved: see [`Usage::moved`].
    moved: [AtomicU64; 4],
    pub(super) context: UnsafeCell<Context>,
    _stack: Option<KernelStack>,
    pub(super) alarm: Once<Timer>,
}

// SAFETY: `context` is touched only while the task's run queue is locked, by the CPU that switches.
unsafe impl Sync for Entity {}

impl Entity {
    /// State of a task that doesn't run yet and will start in `context`.
    pub(super) fn new((context, stack): (Context, Option<KernelStack>)) -> Entity {
        Entity {
            state: AtomicU8::new(NEW),
            cpu: AtomicUsize::new(crate::arch::cpu::id()),
            on_queue: AtomicBool::new(false),
            vruntime: AtomicU64::new(0),
            weight: AtomicU32::new(weight::UNIT as u32),
            nice: AtomicI32::new(0),
            class: AtomicU32::new(0),
            priority: AtomicU32::new(0),
            reset_on_fork: AtomicBool::new(false),
            affinity: AtomicU32::new(all_cpus()),
            user_ns: AtomicU64::new(0),
            system_ns: AtomicU64::new(0),
            voluntary: AtomicU64::new(0),
            involuntary: AtomicU64::new(0),
            minor_faults: AtomicU64::new(0),
            major_faults: AtomicU64::new(0),
            moved: [const { AtomicU64::new(0) }; 4],
            context: UnsafeCell::new(context),
            _stack: stack,
            alarm: Once::new(),
        }
    }

    /// State of a new user task: inherits nice value, policy, affinity and its parent's place in
    /// virtual time.
    pub(in crate::task) fn for_user(parent: Option<&Entity>) -> crate::Result<Entity> {
        let entity = Entity::new(super::switch::user_thread()?);
        if let Some(parent) = parent {
            let reset = parent.resets_on_fork();
            let policy = parent.policy();
            entity.set_nice(if reset { parent.nice().max(0) } else { parent.nice() });
            // SCHED_NORMAL.
            let plain = Policy { class: 0, priority: 0 };
            entity.set_policy(if reset && policy.priority > 0 { plain } else { policy });
            entity.affinity.store(parent.affinity(), Relaxed);
            entity.vruntime.store(parent.vruntime.load(Relaxed), Relaxed);
        }
        Ok(entity)
    }

    pub(in crate::task) fn prepare_to_sleep(&self, mode: WaitMode) {
        let state = match mode {
            WaitMode::Interruptible => INTERRUPTIBLE,
            WaitMode::Killable => KILLABLE,
            WaitMode::Uninterruptible => UNINTERRUPTIBLE,
        };
        // A full barrier: the state must be visible before the caller looks at its condition.
        self.state.swap(state, SeqCst);
    }

    pub(in crate::task) fn finish_sleep(&self) {
        self.state.store(RUNNING, SeqCst);
    }

    /// One letter as in /proc/PID/stat.
    pub fn state_letter(&self) -> u8 {
        match self.state.load(Relaxed) {
            RUNNING | NEW => b'R',
            INTERRUPTIBLE => b'S',
            STOPPED => b'T',
            DEAD => b'X',
            _ => b'D',
        }
    }

    /// The CPU it runs on or ran on last.
    pub fn cpu(&self) -> usize {
        self.cpu.load(Relaxed)
    }
    /// Nice value.
    pub fn nice(&self) -> i32 {
        self.nice.load(Relaxed)
    }
    /// Sets the nice value; out of range counts as the nearest.
    pub fn set_nice(&self, nice: i32) {
        self.nice.store(nice.clamp(weight::NICE_MIN, weight::NICE_MAX), Relaxed);
        self.reweigh();
    }
    /// Policy.
    pub fn policy(&self) -> Policy {
        Policy { class: self.class.load(Relaxed), priority: self.priority.load(Relaxed) }
    }
    /// Sets the policy.
    pub fn set_policy(&self, policy: Policy) {
        self.class.store(policy.class, Relaxed);
        self.priority.store(policy.priority, Relaxed);
        self.reweigh();
    }
    /// Whether children start without what was raised (`SCHED_RESET_ON_FORK`).
    pub fn resets_on_fork(&self) -> bool {
        self.reset_on_fork.load(Relaxed)
    }
    /// Sets that.
    pub fn set_reset_on_fork(&self, reset: bool) {
        self.reset_on_fork.store(reset, Relaxed);
    }
    fn reweigh(&self) {
        const SCHED_IDLE: u32 = 5;
        let weight = match self.policy() {
            Policy { priority: 1.., .. } => weight::of_nice(weight::NICE_MIN),
            Policy { class: SCHED_IDLE, .. } => 3,
            _ => weight::of_nice(self.nice()),
        };
        self.weight.store(weight, Relaxed);
    }
    /// CPUs it may run on, one bit each.
    pub fn affinity(&self) -> u32 {
        self.affinity.load(Relaxed)
    }
    /// Sets the CPUs it may run on; EINVAL if none of them runs. A task that is elsewhere moves
    /// when it is next taken off its CPU.
    pub fn set_affinity(&self, mask: u32) -> crate::Result<()> {
        let mask = mask & online_cpus();
        if mask == 0 {
            return Err(crate::Errno::EINVAL);
        }
        self.affinity.store(mask, Relaxed);
        Ok(())
    }
    /// CPU time and counts so far.
    pub fn usage(&self) -> Usage {
        super::runqueue::charge_running(self);
        Usage {
            user_ns: self.user_ns.load(Relaxed),
            system_ns: self.system_ns.load(Relaxed),
            minor_faults: self.minor_faults.load(Relaxed),
            major_faults: self.major_faults.load(Relaxed),
            voluntary: self.voluntary.load(Relaxed),
            involuntary: self.involuntary.load(Relaxed),
            max_rss: 0,
            moved: [0, 1, 2, 3].map(|at| self.moved[at].load(Relaxed)),
        }
    }
    /// Counts a call of the task that runs, which read (0) or wrote (1) so many bytes.
    pub fn count_moved(&self, way: usize, bytes: usize) {
        // Nobody else changes them.
        let add = |counter: &AtomicU64, n: usize| {
            counter.store(counter.load(Relaxed).wrapping_add(n as u64), Relaxed);
        };
        add(&self.moved[way], bytes);
        add(&self.moved[way + 2], 1);
    }
    /// Counts a page fault of the task that runs, and whether it read for it.
    pub fn count_fault(&self, major: bool) {
        let counter = if major { &self.major_faults } else { &self.minor_faults };
        counter.fetch_add(1, Relaxed);
    }
    /// CPU time so far, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        super::runqueue::charge_running(self);
        self.user_ns.load(Relaxed) + self.system_ns.load(Relaxed)
    }
}

/// Bits of all CPUs that could exist.
fn all_cpus() -> u32 {
    ((1u64 << MAX_CPUS) - 1) as u32
}

/// Bits of the CPUs that run.
pub fn online_cpus() -> u32 {
    ((1u64 << crate::arch::cpu::count()) - 1) as u32
}
