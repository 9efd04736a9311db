//! What this machine can do.

use std::process::Command;

use super::{Failure, exit, size};
use crate::vmm::{accel, qemu};
use crate::{guest, source};

/// Checks QEMU, KVM, the kernel and the store; fails if images cannot be run here.
pub fn doctor() -> Result<u8, Failure> {
    let line = |name: &str, text: &str| println!("{name:<8} {text}");
    let mut able = true;
    match guest::kernel() {
        Ok(kernel) => line("kernel", &format!("built in, {}", size::bytes(kernel.len() as u64))),
        Err(error) => {
            able = false;
            line("kernel", &error.to_string());
        }
    }
    match qemu::find(None) {
        Ok(path) => {
            let version = Command::new(&path).arg("--version").output();
            let version = version.ok().and_then(|output| String::from_utf8(output.stdout).ok());
            let version = version.and_then(|text| text.lines().next().map(str::to_owned));
            able &= version.is_some();
            let version = version.unwrap_or_else(|| "does not start".into());
            line("qemu", &format!("{}: {version}", path.display()));
            match accel::kvm(&path) {
                Ok(()) => line("kvm", "works"),
                Err(why) => line("kvm", &format!("{why}; tcg is used instead")),
            }
        }
        Err(error) => {
            able = false;
            line("qemu", &error.to_string());
        }
    }
    match source::Store::open_default() {
        Ok(store) => line("store", &store.root().display().to_string()),
        Err(error) => {
            able = false;
            line("store", &error.to_string());
        }
    }
    Ok(if able { exit::OK } else { exit::FAILURE })
}
