//! Speculative execution: what the CPU has against leaks through it, turned on, and what is left.
//!
//! What costs nothing is used: indirect branch restriction that stays on (Enhanced IBRS of Intel,
//! Automatic IBRS of AMD). What would cost at every entry (page table isolation, buffer clearing,
//! retpolines) is not: the kernel serves one application, and what both share a machine with is the
//! hypervisor's to guard against. `/sys/devices/system/cpu/vulnerabilities` says so.

use super::insn::{cpuid, rdmsr, wrmsr};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

const ARCH_CAPABILITIES: u32 = 0x10a;
const SPEC_CTRL: u32 = 0x48;
const EFER: u32 = 0xc000_0080;
/// `IA32_ARCH_CAPABILITIES`: what the CPU is immune to.
const RDCL_NO: u64 = 1 << 0;
const IBRS_ALL: u64 = 1 << 1;
const SSB_NO: u64 = 1 << 4;
const MDS_NO: u64 = 1 << 5;
const MULTIHIT_NO: u64 = 1 << 6;
const TAA_NO: u64 = 1 << 8;
const STALE_NO: u64 = 7 << 13;

static RESTRICTED: AtomicBool = AtomicBool::new(false);

/// The files of /sys/devices/system/cpu/vulnerabilities.
pub const NAMES: [&str; 10] = [
    "itlb_multihit",
    "l1tf",
    "mds",
    "meltdown",
    "mmio_stale_data",
    "retbleed",
    "spec_store_bypass",
    "spectre_v1",
    "spectre_v2",
    "tsx_async_abort",
];

fn capabilities() -> u64 {
    if cpuid(7, 0).edx & 1 << 29 == 0 {
        return 0;
    }
    // SAFETY: the CPU says that it has the register.
    unsafe { rdmsr(ARCH_CAPABILITIES) }
}

fn is_intel() -> bool {
    // "Genu"
    cpuid(0, 0).ebx == u32::from_le_bytes(*b"Genu")
}

/// Turns on, on this CPU, what stays on by itself.
pub(super) fn init_cpu() {
    if capabilities() & IBRS_ALL != 0 {
        // SAFETY: a CPU with IBRS_ALL has the register; IBRS only restricts predictions.
        unsafe { wrmsr(SPEC_CTRL, rdmsr(SPEC_CTRL) | 1) };
        RESTRICTED.store(true, Relaxed);
    } else if cpuid(0x8000_0021, 0).eax & 1 << 8 != 0 {
        // SAFETY: the CPU says that it has Automatic IBRS, which only restricts predictions.
        unsafe { wrmsr(EFER, rdmsr(EFER) | 1 << 21) };
        RESTRICTED.store(true, Relaxed);
    }
}

/// What one of [`NAMES`] says.
pub fn status(index: usize) -> &'static str {
    let (caps, intel) = (capabilities(), is_intel());
    let immune = |bits: u64| !intel || caps & bits == bits;
    let safe = match NAMES[index] {
        // Nothing is executed ahead of time.
        _ if super::is_emulated() => true,
        "itlb_multihit" => immune(MULTIHIT_NO),
        "l1tf" | "meltdown" => immune(RDCL_NO),
        "mds" => immune(MDS_NO),
        "mmio_stale_data" => immune(STALE_NO),
        "tsx_async_abort" => immune(TAA_NO) || cpuid(7, 0).ebx & 1 << 11 == 0,
        "spec_store_bypass" => {
            caps & SSB_NO != 0 || !intel && cpuid(0x8000_0008, 0).ebx & 1 << 26 != 0
        }
        // Intel's fixed ones have Enhanced IBRS; AMD's from Zen 3 on.
        "retbleed" if intel => caps & IBRS_ALL != 0,
        "retbleed" => cpuid(1, 0).eax >> 20 & 0xff >= 0xa,
        "spectre_v2" if RESTRICTED.load(Relaxed) => {
            return "Mitigation: Enhanced / Automatic IBRS";
        }
        _ => false,
    };
    if safe { "Not affected" } else { "Vulnerable" }
}
