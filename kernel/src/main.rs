//! The kernel's binary: entry point and panic handler are in the library.
#![cfg_attr(guest, no_std, no_main)]

#[cfg(guest)]
use kernel as _;

#[cfg(not(guest))]
fn main() {
    eprintln!("this program runs in a virtual machine: build it with scripts/kernel-build");
}
