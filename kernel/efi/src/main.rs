//! EFI loader: from UEFI firmware to the kernel's PVH entry.
//!
//! Kernel and boot record are sections of the loader's own file (`src/disk/efi.rs` of the
//! converter adds them), so whoever verified the file verified them. The loader puts the kernel
//! where it is linked to run, hands the boot record over as the boot module, describes the memory
//! as UEFI sees it, and enters the kernel just as a VMM would that boots it directly: in 32-bit
//! protected mode without paging, with `ebx` pointing to a `hvm_start_info`.
//!
//! With a section `.medium` the root filesystem comes into memory, too: it is read from the disk or
//! CD that the section names, and the record's container follows it.
#![cfg_attr(guest, no_std, no_main)]

#[cfg(guest)]
mod console;
#[cfg(guest)]
mod disk;
#[cfg(guest)]
mod file;
#[cfg(guest)]
mod handover;
#[cfg(guest)]
mod memory;
#[cfg(guest)]
mod start;
#[cfg(guest)]
mod support;

#[cfg(not(guest))]
fn main() {
    eprintln!("this code runs in a virtual machine's UEFI: build.rs of dock2uni builds it");
}
