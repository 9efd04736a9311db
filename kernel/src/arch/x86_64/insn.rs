//! Single instructions that Rust has no words for.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

/// Reads a model-specific register.
///
/// # Safety
/// The register must exist on this CPU.
pub unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading a register that exists has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must exist and the value must leave the kernel's assumptions about the CPU intact.
pub unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

macro_rules! port {
    ($read:ident, $write:ident, $ty:ty, $reg:tt, $in:literal, $out:literal) => {
        /// Reads an I/O port.
        ///
        /// # Safety
        /// Reading must not disturb a device that somebody else drives.
        pub unsafe fn $read(port: u16) -> $ty {
            let value: $ty;
            // SAFETY: the caller's promise; ports are not memory.
            unsafe {
                asm!($in, in("dx") port, out($reg) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }
        /// Writes an I/O port.
        ///
        /// # Safety
        /// The write must not make a device overwrite memory or disturb one that somebody else
        /// drives.
        pub unsafe fn $write(port: u16, value: $ty) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!($out, in("dx") port, in($reg) value, options(nostack, preserves_flags));
            }
        }
    };
}
port!(inb, outb, u8, "al", "in al, dx", "out dx, al");
port!(inw, outw, u16, "ax", "in ax, dx", "out dx, ax");
port!(inl, outl, u32, "eax", "in eax, dx", "out dx, eax");

/// `CPUID` with a subleaf; zeros if the CPU has no such leaf.
pub fn cpuid(leaf: u32, subleaf: u32) -> core::arch::x86_64::CpuidResult {
    use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
    let range = leaf & 0xffff_0000;
    if leaf > __cpuid(range).eax {
        return CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    }
    __cpuid_count(leaf, subleaf)
}

/// Whether the CPU has the instructions of BMI2. Asked once: hypervisors intercept the question.
pub fn has_bmi2() -> bool {
    const BMI2: u32 = 1 << 8;
    static KNOWN: AtomicU32 = AtomicU32::new(0);
    let mut ebx = KNOWN.load(Ordering::Relaxed);
    if ebx == 0 {
        // The lowest bit is FSGSBASE: set where it is of no matter, so that 0 means not asked.
        ebx = cpuid(7, 0).ebx | 1;
        KNOWN.store(ebx, Ordering::Relaxed);
    }
    ebx & BMI2 != 0
}

macro_rules! control {
    ($read:ident, $write:ident, $name:literal) => {
        /// Reads the control register.
        pub fn $read() -> usize {
            let value;
            // SAFETY: reading a control register has no effect.
            unsafe {
                asm!(concat!("mov {}, ", $name), out(reg) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }
        /// Writes the control register.
        ///
        /// # Safety
        /// The value must keep code, stack and data of the kernel where they are.
        pub unsafe fn $write(value: usize) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(concat!("mov ", $name, ", {}"), in(reg) value,
                    options(nostack, preserves_flags));
            }
        }
    };
}
control!(read_cr0, write_cr0, "cr0");
control!(read_cr3, write_cr3, "cr3");
control!(read_cr4, write_cr4, "cr4");

/// The address of the last page fault of this CPU.
pub fn read_cr2() -> usize {
    let value;
    // SAFETY: reading a control register has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// The time-stamp counter, not ordered against other instructions.
#[inline]
pub fn rdtsc() -> u64 {
    // SAFETY: every x86_64 CPU has it, and the kernel leaves CR4.TSD clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}
