//! The kernel's logic as an ordinary process, for tests: one CPU per thread, no interrupts.

pub mod context;
pub mod fpu;
pub mod kstack;
pub mod memory;
pub mod paging;
pub mod speculation;
pub mod user;
pub use memory::{phys_to_virt, virt_to_phys};

use crate::task::Task;
use core::cell::Cell;

std::thread_local! {
    static PREEMPT: Cell<u32> = const { Cell::new(0) };
    static PENDING: Cell<u32> = const { Cell::new(0) };
    static CURRENT: Cell<*const Task> = const { Cell::new(core::ptr::null()) };
}

/// Whether instructions are translated in software.
pub fn is_emulated() -> bool {
    false
}

/// Whether the CPU has the instructions of BMI2.
pub fn has_bmi2() -> bool {
    std::is_x86_feature_detected!("bmi2")
}

/// Orders stores before later loads, as a device sees them.
pub fn device_fence() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Interrupt flag; there are no interrupts here.
pub mod irq {
    /// Disables interrupts.
    pub fn disable() {}
    /// Enables interrupts.
    pub fn enable() {}
    /// Disables interrupts and returns whether they were enabled.
    pub fn disable_save() -> bool {
        false
    }
    /// Restores what [`disable_save`] returned.
    pub fn restore(_was_enabled: bool) {}
    /// Whether interrupts are enabled.
    pub fn enabled() -> bool {
        false
    }
}

/// Words that every CPU has of its own.
pub mod cpu {
    use super::*;
    /// Index of this CPU, below `MAX_CPUS`.
    pub fn id() -> usize {
        0
    }
    /// Number of CPUs that run.
    pub fn count() -> usize {
        1
    }
    /// Forbids preemption of this CPU's task, nesting.
    pub fn preempt_inc() {
        PREEMPT.set(PREEMPT.get() + 1);
    }
    /// Undoes one [`preempt_inc`]; returns the depth that remains.
    pub fn preempt_dec() -> u32 {
        PREEMPT.set(PREEMPT.get() - 1);
        PREEMPT.get()
    }
    /// Depth of [`preempt_inc`].
    pub fn preempt_count() -> u32 {
        PREEMPT.get()
    }
    /// Adds pending-work bits.
    pub fn set_pending(bits: u32) {
        PENDING.set(PENDING.get() | bits);
    }
    /// Takes all pending-work bits.
    pub fn take_pending() -> u32 {
        PENDING.take()
    }
    /// Pending-work bits.
    pub fn pending() -> u32 {
        PENDING.get()
    }
    /// The task this CPU runs; null before the first.
    pub fn current_task() -> *const Task {
        CURRENT.get()
    }
    /// Names the task this CPU runs.
    pub fn set_current_task(task: *const Task) {
        CURRENT.set(task);
    }
    /// A pause in a spin loop.
    pub fn relax() {
        std::thread::yield_now();
    }
}

/// Time.
pub mod clock {
    /// Nanoseconds since boot, monotonic.
    pub fn now_ns() -> u64 {
        use std::{sync::OnceLock, time::Instant};
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
    /// Raw cycle counter.
    pub fn cycles() -> u64 {
        now_ns()
    }
    /// Nanoseconds since the Unix epoch at boot.
    pub fn boot_epoch_ns() -> u64 {
        1_700_000_000_000_000_000
    }
    /// Arms this CPU's timer interrupt for a point of [`now_ns`] time; `u64::MAX` disarms.
    pub fn set_oneshot(_deadline_ns: u64) {}
}

/// User memory: in a test process a user address is an ordinary address of the test's own memory.
pub mod uaccess {
    /// Copies `len` bytes from user address `src`; returns how many were *not* copied.
    ///
    /// # Safety
    /// `dst` must be valid for `len` bytes of writes. `src` may be any user address.
    pub unsafe fn copy_from_user(dst: *mut u8, src: usize, len: usize) -> usize {
        // SAFETY: tests pass addresses of their own live buffers.
        unsafe { core::ptr::copy_nonoverlapping(src as *const u8, dst, len) };
        0
    }
    /// Copies `len` bytes to user address `dst`; returns how many were *not* copied.
    ///
    /// # Safety
    /// `src` must be valid for `len` bytes of reads. `dst` may be any user address.
    pub unsafe fn copy_to_user(dst: usize, src: *const u8, len: usize) -> usize {
        // SAFETY: tests pass addresses of their own live buffers.
        unsafe { core::ptr::copy_nonoverlapping(src, dst as *mut u8, len) };
        0
    }
    /// Zeroes `len` bytes at user address `dst`; returns how many were *not* zeroed.
    ///
    /// # Safety
    /// `dst` may be any user address.
    pub unsafe fn clear_user(dst: usize, len: usize) -> usize {
        // SAFETY: tests pass addresses of their own live buffers.
        unsafe { core::ptr::write_bytes(dst as *mut u8, 0, len) };
        0
    }
    /// Atomically replaces the word at `addr` by `new` if it is `old`; `None` on a fault, else what
    /// it held.
    ///
    /// # Safety
    /// `addr` must be four-byte aligned; it may be any user address.
    pub unsafe fn cmpxchg_u32(addr: usize, old: u32, new: u32) -> Option<u32> {
        use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
        // SAFETY: tests pass addresses of their own live words.
        let word = unsafe { &*(addr as *const AtomicU32) };
        Some(word.compare_exchange(old, new, SeqCst, SeqCst).unwrap_or_else(|seen| seen))
    }
    /// Atomically loads the word at `addr`; `None` on a fault.
    ///
    /// # Safety
    /// `addr` must be four-byte aligned; it may be any user address.
    pub unsafe fn load_u32(addr: usize) -> Option<u32> {
        use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
        // SAFETY: tests pass addresses of their own live words.
        Some(unsafe { &*(addr as *const AtomicU32) }.load(SeqCst))
    }
}

/// Cross-CPU calls; there is one CPU here.
pub mod ipi {
    /// Makes `cpu` run its scheduler soon.
    pub fn reschedule(_cpu: usize) {}
    /// Makes other CPUs forget translations.
    pub fn flush_tlb(_cpus: u32, _start: usize, _pages: usize) {}
    /// Makes this CPU forget translations.
    pub fn flush_range_local(_start: usize, _pages: usize) {}
}

/// Writes to the console without locks or allocation.
pub fn console_write(bytes: &[u8]) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(bytes);
}

/// Waits for an interrupt; there are none here.
pub fn idle() {
    panic!("nothing would ever end the wait");
}
