//! The power button reaches the kernel.

use crate::arch::{clock, idle, irq, power};
use core::sync::atomic::{AtomicBool, Ordering};

static PRESSED: AtomicBool = AtomicBool::new(false);

/// Asks for the button on the console and waits for it.
pub fn run() -> Result<(), &'static str> {
    power::on_button(|| PRESSED.store(true, Ordering::Release));
    irq::enable();
    crate::error!("selftest: press the power button");
    // Something must end the halt when nobody presses the button.
    clock::set_oneshot(clock::now_ns() + 10_000_000_000);
    let deadline = clock::now_ns() + 10_000_000_000;
    while !PRESSED.load(Ordering::Acquire) {
        if clock::now_ns() > deadline {
            return Err("the button wasn't noticed");
        }
        idle();
    }
    irq::disable();
    Ok(())
}
