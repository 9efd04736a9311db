//! The end of the kernel: message, backtrace, all CPUs stopped, machine off.

use super::{backtrace, cpu, insn, irq, power};
use crate::log::emergency;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Exit code for the debug-exit device: QEMU leaves with 85.
const DEBUG_EXIT: u8 = 0x2a;

static HALT: AtomicBool = AtomicBool::new(false);
/// CPU that panics, plus one.
static PANICKING: AtomicUsize = AtomicUsize::new(0);

/// Whether a CPU panics and wants the others to stop.
pub(super) fn halt_requested() -> bool {
    HALT.load(Ordering::Acquire) && PANICKING.load(Ordering::Acquire) != cpu::id() + 1
}

/// Stops this CPU for good.
pub(super) fn halt() -> ! {
    irq::disable();
    loop {
        // SAFETY: interrupts are off: nothing but an NMI ends the halt, and then it halts again.
        unsafe { core::arch::asm!("hlt", options(nomem, nostack)) };
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    emergency(format_args!("\nkernel panic on CPU {}: {info}\n", cpu::id()));
    backtrace::print_here();
    end()
}

/// A fault that the kernel can't survive, at `rip`.
pub(super) fn fatal(message: fmt::Arguments<'_>, rip: usize, rbp: usize) -> ! {
    begin();
    emergency(format_args!("\nkernel panic on CPU {}: {message}\n", cpu::id()));
    backtrace::print(rip, rbp);
    end()
}

fn begin() {
    irq::disable();
    let me = cpu::id() + 1;
    match PANICKING.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(other) if other == me => {
            // A panic inside the panic: say as little as possible.
            emergency(format_args!("\nand another panic while reporting it\n"));
            power::debug_exit(DEBUG_EXIT);
            halt()
        }
        Err(_) => halt(),
    }
    HALT.store(true, Ordering::Release);
    super::ipi::nmi_others();
}

fn end() -> ! {
    let _ = insn::rdtsc();
    crate::init::panicked();
    power::debug_exit(DEBUG_EXIT);
    power::stop()
}
