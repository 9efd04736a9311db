//! The machine. Everything else in the kernel is portable and reaches hardware through here.
//!
//! Two implementations give the same items: [`x86_64`] in the guest, and `hosted`, which lets the
//! kernel's logic run inside an ordinary test process (one CPU, no interrupts, frames from the
//! host's heap).
//!
//! Items every implementation has:
//!
//! | item | meaning |
//! |---|---|
//! | `irq::{disable_save, restore, enabled}` | interrupt flag of this CPU |
//! | `cpu::{id, preempt_inc, preempt_dec, preempt_count, current_task, set_current_task}` | per-CPU words |
//! | `cpu::{set_pending, take_pending, pending}` | per-CPU pending-work bits ([`crate::sync::softirq`]) |
//! | `phys_to_virt`, `virt_to_phys` | the direct map |
//! | `clock::{now_ns, cycles}` | monotonic time since boot |
//! | `clock::set_oneshot(deadline_ns)` | arms this CPU's timer interrupt |
//! | `uaccess::*` | fallible access to user memory |
//! | `ipi::{reschedule, flush_tlb}` | cross-CPU calls |
//! | `has_bmi2` | whether the CPU has these instructions |
//! | `device_fence` | orders our stores before our loads, as a device sees them |
//! | `console_write` | raw console output, usable in a panic |

#[cfg(not(guest))]
mod hosted;
#[cfg(guest)]
mod x86_64;

#[cfg(not(guest))]
pub use hosted::*;
#[cfg(guest)]
pub use x86_64::*;

/// Most CPUs the kernel uses.
pub const MAX_CPUS: usize = 16;
/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// First address past user space (one guard page below the canonical hole, as Linux has it).
pub const USER_END: usize = 0x7fff_ffff_f000;
