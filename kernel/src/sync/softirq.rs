//! Work deferred from interrupt handlers to the next moment at which no
//! [`SpinLock`](super::SpinLock) is held on this CPU: at the end of the interrupt, or when the last
//! preemption guard goes.

use crate::arch::cpu;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Kinds of deferred work, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Network receive and transmit completion.
    Net = 0,
    /// Block device completion.
    Block = 1,
    /// Terminal input, power button and other rare events.
    Misc = 2,
    /// Timers that measure CPU time.
    CpuTimers = 3,
    /// Signals of files that became ready.
    Signals = 4,
}

const KINDS: usize = 5;
/// Pending bit: the scheduler should run.
pub const RESCHEDULE: u32 = 1 << 31;

static HANDLERS: [AtomicPtr<()>; KINDS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; KINDS];

/// Names the function that does the work of `kind`. It runs with preemption disabled and interrupts
/// enabled.
pub fn register(kind: Kind, handler: fn()) {
    HANDLERS[kind as usize].store(handler as *mut (), Ordering::Release);
}

/// Asks for `kind` to run on this CPU. Callable from interrupt handlers.
pub fn raise(kind: Kind) {
    cpu::set_pending(1 << kind as u32);
    // From task context nothing else would notice before the next interrupt.
    if cpu::preempt_count() == 0 && crate::arch::irq::enabled() {
        run_pending();
    }
}

/// Runs what is pending, then the scheduler if it was asked for. Called with a preemption count of
/// zero by the last preemption guard and where a task enters or leaves the kernel.
///
/// With interrupts off it does nothing: the work stays pending until they come on again.
pub fn run_pending() {
    if !crate::arch::irq::enabled() && cfg!(guest) {
        return;
    }
    crate::arch::irq::disable();
    work_off();
    crate::arch::irq::enable();
}

/// The same at the end of an interrupt that came in kernel code, with interrupts off before and
/// after. Does nothing where preemption is forbidden.
pub fn finish_interrupt() {
    if cpu::preempt_count() == 0 {
        work_off();
    }
}

/// Interrupts are off before and after, and on only while a preemption count keeps further ones from
/// doing this again: what comes between two switches of tasks would otherwise lie one interrupt
/// deeper on the stack each time, without end where interrupts come as fast as they are served.
fn work_off() {
    loop {
        let pending = cpu::take_pending();
        if pending == 0 {
            return;
        }
        if pending & !RESCHEDULE != 0 {
            cpu::preempt_inc();
            crate::arch::irq::enable();
            serve(pending);
            crate::arch::irq::disable();
            cpu::preempt_dec();
        }
        if pending & RESCHEDULE != 0 {
            crate::task::sched::preempt();
        }
    }
}

fn serve(pending: u32) {
    for (kind, slot) in HANDLERS.iter().enumerate() {
        let handler = slot.load(Ordering::Acquire);
        if pending & (1 << kind) != 0 && !handler.is_null() {
            // SAFETY: only `register` stores here, and it stores `fn()` pointers.
            let handler = unsafe { core::mem::transmute::<*mut (), fn()>(handler) };
            handler();
        }
    }
}
