//! The boot flow, from the machine's memory map to the main process.

use crate::arch::{self, BootInfo};
use crate::{debug, error};
use core::ops::Range;

/// Goes on from the machine-dependent start-up, on the boot CPU with interrupts off.
pub fn start(boot: &'static BootInfo, free: &[Range<usize>]) -> ! {
    let mut usable = [(0, 0); 96];
    for (slot, range) in usable.iter_mut().zip(free) {
        *slot = (range.start, range.len());
    }
    // SAFETY: once, before anything allocates; `free` is RAM that nobody uses.
    unsafe { crate::mm::init(&usable[..free.len().min(usable.len())], &[]) };
    arch::init(boot);
    crate::time::clock::init();
    let cpus = arch::smp::start(secondary);
    debug!("boot: {cpus} CPUs, up after {} us", arch::clock::now_ns() / 1000);
    crate::selftest::run(boot);
    error!("no boot record: this kernel was started without an image");
    arch::power::power_off(1)
}

fn secondary() -> ! {
    crate::selftest::join();
    arch::irq::enable();
    loop {
        arch::idle();
    }
}

/// Last call of a panic, to tell the host.
pub fn panicked() {}
