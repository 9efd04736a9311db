//! The end of the kernel: message, backtrace, all CPUs stopped, machine off.

use super::{backtrace, cpu, irq, power};
use crate::log::emergency;
use core::fmt::{self, Write};
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
    end(format_args!("{}", info.message()))
}

/// A fault that the kernel can't survive, at `rip`.
pub(super) fn fatal(message: fmt::Arguments<'_>, rip: usize, rbp: usize) -> ! {
    begin();
    emergency(format_args!("\nkernel panic on CPU {}: {message}\n", cpu::id()));
    backtrace::print(rip, rbp);
    end(message)
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

fn end(message: fmt::Arguments<'_>) -> ! {
    let mut line = Line { bytes: [0; 200], len: 0 };
    let _ = line.write_fmt(message);
    crate::init::panicked(line.as_str());
    power::debug_exit(DEBUG_EXIT);
    power::stop()
}

/// A text without an allocator; what doesn't fit is cut off.
struct Line {
    bytes: [u8; 200],
    len: usize,
}

impl Line {
    fn as_str(&self) -> &str {
        let bytes = &self.bytes[..self.len];
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            // Cut within a character.
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let len = text.len().min(room);
        self.bytes[self.len..][..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}
