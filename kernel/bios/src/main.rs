//! BIOS boot code: from the first sector of a disk to the kernel's PVH entry.
//!
//! The BIOS loads the MBR to 0x7c00, the MBR loads the second stage to 0x8000, and that loads the
//! kernel's segments and the boot record to where the converter has said (`src/disk/bios.rs` of
//! the converter writes the table that is read here), asks the BIOS for the memory map, and enters
//! the kernel just as a VMM would that boots it directly: in 32-bit protected mode without paging,
//! with `ebx` pointing to a `hvm_start_info` (Xen's public header arch-x86/hvm/start_info.h).
//!
//! The BIOS reads into memory below 1 MiB only, so pieces of 32 KiB are copied up from there. The
//! copy runs in "unreal" mode: real mode with segment limits of 4 GiB left over from a moment in
//! protected mode, which is repeated for each piece since the BIOS may have reset the limits.
//!
//! Memory below 1 MiB:
//!
//! ```text
//! 0x05000  memory map, up to 128 entries of 24 bytes
//! 0x07000  hvm_start_info, and its module list at 0x07040; the stack ends at 0x07c00
//! 0x07c00  MBR
//! 0x08000  second stage
//! 0x10000  buffer for the disk, 32 KiB
//! ```
#![cfg_attr(guest, no_std, no_main)]

#[cfg(guest)]
core::arch::global_asm!(include_str!("mbr.s"), options(att_syntax));
#[cfg(guest)]
core::arch::global_asm!(include_str!("stage2.s"), options(att_syntax));

/// There is no Rust code that could panic; the compiler asks for a handler all the same.
#[cfg(guest)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[cfg(not(guest))]
fn main() {
    eprintln!("this code runs in a virtual machine's BIOS: build.rs of dock2uni builds it");
}
