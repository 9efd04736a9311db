//! Checks that only a running kernel can make, chosen by `d2u.selftest=NAME` on the boot line.

use crate::arch::{self, BootInfo};
use crate::error;

/// Runs the chosen check and powers off, if one is chosen.
pub fn run(boot: &BootInfo) {
    let Some(name) = boot.option("d2u.selftest") else { return };
    match name {
        "boot" => {}
        "panic" => panic!("asked for on the boot line"),
        _ => {
            error!("selftest: there is no `{name}`");
            arch::power::power_off(2)
        }
    }
    error!("selftest {name}: ok");
    arch::power::power_off(0)
}
