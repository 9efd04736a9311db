//! Checks that only a running kernel can make, chosen by `d2u.selftest=NAME` on the boot line.
//!
//! `tests/kernel_boot.rs` runs them. Those that must end in a panic are judged by what the panic
//! prints.

mod button;
mod interrupts;
mod memory;
mod smp;
mod timers;
mod user;

use crate::arch::{self, BootInfo};
use crate::error;

pub use smp::join;

type Check = fn() -> Result<(), &'static str>;

const CHECKS: &[(&str, Check)] = &[
    ("boot", || Ok(())),
    ("panic", || panic!("asked for on the boot line")),
    ("opcode", interrupts::invalid_opcode),
    ("overflow", interrupts::stack_overflow),
    ("text", interrupts::write_to_text),
    ("redzone", interrupts::red_zone),
    ("storm", interrupts::storm),
    ("timers", timers::run),
    ("smp", smp::run),
    ("place", place),
    ("user", user::run),
    ("button", button::run),
    ("memory", memory::run),
    ("net", crate::net::selftest::run),
];

/// Tells how far the kernel has moved, which nothing else does.
fn place() -> Result<(), &'static str> {
    error!("selftest: moved by {:#x}", arch::moved());
    Ok(())
}

/// Runs the chosen check and powers off, if one is chosen.
pub fn run(boot: &BootInfo) {
    let Some(name) = boot.option("d2u.selftest") else { return };
    let Some((_, check)) = CHECKS.iter().find(|(known, _)| *known == name) else {
        error!("selftest: there is no `{name}`");
        arch::power::power_off(2)
    };
    match check() {
        Ok(()) => error!("selftest {name}: ok"),
        Err(why) => error!("selftest {name}: FAILED: {why}"),
    }
    arch::power::power_off(0)
}
