//! Per-CPU words, reached through the GS base: each accessor is one instruction, so it can't be
//! torn by a migration.

use super::gdt::Segments;
use super::insn::wrmsr;
use crate::arch::MAX_CPUS;
use crate::task::Task;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// What every CPU has of its own. The first words are known to assembler by their offsets.
#[repr(C, align(64))]
pub struct PerCpu {
    /// The user context that runs or ran last; where entries from user mode save registers.
    pub(super) user_context: usize,
    /// Stack pointer to return to when user mode is left.
    pub(super) kernel_rsp: usize,
    /// Holds the user's stack pointer for two instructions of the syscall entry.
    pub(super) scratch: usize,
    /// What must still lie on top of the kernel stack when user mode is left.
    pub(super) canary: usize,
    this: *const PerCpu,
    current: *const Task,
    preempt: u32,
    pending: u32,
    id: u32,
    /// Local APIC ID.
    pub(super) apic_id: AtomicU32,
    /// FS base that the CPU holds for user mode.
    pub(super) fs_base: usize,
    /// GS base that the CPU holds for user mode (in `KERNEL_GS_BASE` while the kernel runs).
    pub(super) gs_base: usize,
    /// XSAVE area whose contents this CPU's registers hold.
    pub(super) fpu_owner: usize,
    /// Cached page table root.
    pub(super) root: usize,
    pub(super) segments: Segments,
}

impl PerCpu {
    /// Index of the CPU.
    pub(super) fn index(&self) -> u32 {
        self.id
    }
}

/// Offsets that the entry code uses.
pub(super) const USER_CONTEXT: usize = offset_of!(PerCpu, user_context);
pub(super) const KERNEL_RSP: usize = offset_of!(PerCpu, kernel_rsp);
pub(super) const SCRATCH: usize = offset_of!(PerCpu, scratch);
pub(super) const CANARY: usize = offset_of!(PerCpu, canary);
const THIS: usize = offset_of!(PerCpu, this);
const CURRENT: usize = offset_of!(PerCpu, current);
const PREEMPT: usize = offset_of!(PerCpu, preempt);
const PENDING: usize = offset_of!(PerCpu, pending);
const ID: usize = offset_of!(PerCpu, id);

struct Slots([UnsafeCell<PerCpu>; MAX_CPUS]);
// SAFETY: each CPU touches its own slot only, but for `apic_id`, which is atomic.
unsafe impl Sync for Slots {}

static SLOTS: Slots = Slots(
    [const {
        UnsafeCell::new(PerCpu {
            user_context: 0,
            kernel_rsp: 0,
            scratch: 0,
            canary: 0,
            this: core::ptr::null(),
            current: core::ptr::null(),
            // Nobody may be preempted before the scheduler runs.
            preempt: 1,
            pending: 0,
            id: 0,
            apic_id: AtomicU32::new(0),
            fs_base: 0,
            gs_base: 0,
            fpu_owner: 0,
            root: 0,
            segments: Segments::new(),
        })
    }; MAX_CPUS],
);
static COUNT: AtomicUsize = AtomicUsize::new(1);

const MSR_GS_BASE: u32 = 0xc000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// Points this CPU's GS at its slot. `preempt_count()` starts at one.
///
/// # Safety
/// Once per CPU, before anything else of this module runs there; `id` belongs to no other CPU.
pub(super) unsafe fn init(id: usize) {
    let slot = SLOTS.0[id].get();
    // SAFETY: no other CPU has this slot, and this one doesn't use it yet; the MSRs exist on every
    // x86_64 CPU.
    unsafe {
        (*slot).this = slot;
        (*slot).id = id as u32;
        wrmsr(MSR_GS_BASE, slot as u64);
        wrmsr(MSR_KERNEL_GS_BASE, 0);
    }
}

/// This CPU's slot.
///
/// The caller must have preemption or interrupts off for as long as it uses the pointer.
pub(super) fn this() -> *mut PerCpu {
    let this;
    // SAFETY: GS points at this CPU's slot from `init` on.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) this, const THIS,
            options(pure, readonly, nostack, preserves_flags));
    }
    this
}

/// Sets how many CPUs run.
pub(super) fn set_count(count: usize) {
    COUNT.store(count, Ordering::Release);
}

/// Local APIC ID of a CPU.
pub(super) fn apic_id(cpu: usize) -> u32 {
    // SAFETY: only the atomic field is referred to.
    unsafe { (*SLOTS.0[cpu].get()).apic_id.load(Ordering::Relaxed) }
}

/// Notes the local APIC ID of a CPU.
pub(super) fn set_apic_id(cpu: usize, apic_id: u32) {
    // SAFETY: only the atomic field is referred to.
    unsafe { (*SLOTS.0[cpu].get()).apic_id.store(apic_id, Ordering::Relaxed) }
}

/// Index of this CPU, below [`MAX_CPUS`].
#[inline]
pub fn id() -> usize {
    let id: u32;
    // SAFETY: GS points at this CPU's slot.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) id, const ID,
            options(pure, readonly, nostack, preserves_flags));
    }
    id as usize
}

/// Number of CPUs that run.
#[inline]
pub fn count() -> usize {
    COUNT.load(Ordering::Acquire)
}

/// Forbids preemption of this CPU's task, nesting.
#[inline]
pub fn preempt_inc() {
    // SAFETY: GS points at this CPU's slot. Not `nomem`: what follows must not move before it.
    unsafe { asm!("inc dword ptr gs:[{}]", const PREEMPT, options(nostack)) };
}

/// Undoes one [`preempt_inc`]; returns the depth that remains.
#[inline]
pub fn preempt_dec() -> u32 {
    let mut count = u32::MAX;
    // SAFETY: GS points at this CPU's slot.
    unsafe { asm!("xadd gs:[{}], {:e}", const PREEMPT, inout(reg) count, options(nostack)) };
    count.wrapping_sub(1)
}

/// Depth of [`preempt_inc`].
#[inline]
pub fn preempt_count() -> u32 {
    let count;
    // SAFETY: GS points at this CPU's slot.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) count, const PREEMPT,
            options(readonly, nostack, preserves_flags));
    }
    count
}

/// Replaces the depth of [`preempt_inc`], for the scheduler.
#[inline]
pub fn set_preempt_count(count: u32) {
    // SAFETY: GS points at this CPU's slot.
    unsafe {
        asm!("mov dword ptr gs:[{}], {:e}", const PREEMPT, in(reg) count,
            options(nostack, preserves_flags));
    }
}

/// Adds pending-work bits.
#[inline]
pub fn set_pending(bits: u32) {
    // SAFETY: GS points at this CPU's slot.
    unsafe { asm!("or dword ptr gs:[{}], {:e}", const PENDING, in(reg) bits, options(nostack)) };
}

/// Takes all pending-work bits.
#[inline]
pub fn take_pending() -> u32 {
    if pending() == 0 {
        return 0;
    }
    let mut bits = 0u32;
    // SAFETY: GS points at this CPU's slot.
    unsafe {
        asm!("xchg gs:[{}], {:e}", const PENDING, inout(reg) bits,
            options(nostack, preserves_flags));
    }
    bits
}

/// Pending-work bits.
#[inline]
pub fn pending() -> u32 {
    let bits;
    // SAFETY: GS points at this CPU's slot.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) bits, const PENDING,
            options(readonly, nostack, preserves_flags));
    }
    bits
}

/// The task this CPU runs; null before the first.
#[inline]
pub fn current_task() -> *const Task {
    let task;
    // SAFETY: GS points at this CPU's slot.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) task, const CURRENT,
            options(pure, readonly, nostack, preserves_flags));
    }
    task
}

/// Names the task this CPU runs.
#[inline]
pub fn set_current_task(task: *const Task) {
    // SAFETY: GS points at this CPU's slot.
    unsafe {
        asm!("mov gs:[{}], {}", const CURRENT, in(reg) task, options(nostack, preserves_flags));
    }
}

/// A pause in a spin loop.
#[inline]
pub fn relax() {
    core::hint::spin_loop();
}

/// The segments of a CPU, to load before [`init`] on that CPU (loading clears the GS base).
pub(super) fn segments(id: usize) -> *mut Segments {
    // SAFETY: a projection; nothing is read.
    unsafe { &raw mut (*SLOTS.0[id].get()).segments }
}
