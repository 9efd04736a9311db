//! The guest code that travels inside the tool.

/// Why there is no kernel to use.
#[derive(Debug, thiserror::Error)]
#[error("this dock2uni was built without a kernel (D2U_KERNEL=none)")]
pub struct NoKernel;

/// The kernel: an ELF file with a PVH entry, stripped to its loadable segments.
///
/// # Errors
/// If the tool was built with `D2U_KERNEL=none`.
pub fn kernel() -> Result<&'static [u8], NoKernel> {
    static KERNEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernel.elf"));
    if KERNEL.is_empty() { Err(NoKernel) } else { Ok(KERNEL) }
}

/// BIOS boot code for the MBR, 440 bytes; empty without a kernel.
pub static MBR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mbr.bin"));
/// BIOS second stage; empty without a kernel.
pub static STAGE2: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stage2.bin"));
/// EFI loader, to which kernel and record are added; empty without a kernel.
pub static EFI: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/loader.efi"));
