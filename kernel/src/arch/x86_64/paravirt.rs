//! What a hypervisor tells its guest by CPUID and shared memory.
//!
//! Source: Linux `Documentation/virt/kvm/x86/{cpuid,msr}.rst`; the timing leaf is VMware's
//! convention.

use super::insn::{cpuid, wrmsr};
use super::paging::virt_to_phys;
use core::arch::x86_64::__cpuid;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering};

const BASE: u32 = 0x4000_0000;

/// The hypervisor's name; `None` on bare hardware.
pub fn hypervisor() -> Option<[u8; 12]> {
    const HYPERVISOR: u32 = 1 << 31;
    if cpuid(1, 0).ecx & HYPERVISOR == 0 {
        return None;
    }
    let leaf = __cpuid(BASE);
    let mut name = [0; 12];
    for (chunk, word) in name.chunks_exact_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    Some(name)
}

/// Whether QEMU translates this machine's instructions in software (TCG).
pub fn is_emulated() -> bool {
    // CPUID is slow where it is trapped: 0 unknown, 1 no, 2 yes.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            let yes = hypervisor().is_some_and(|name| name == *b"TCGTCGTCGTCG");
            KNOWN.store(1 + u8::from(yes), Ordering::Relaxed);
            yes
        }
        known => known == 2,
    }
}

fn kvm_features() -> u32 {
    match hypervisor() {
        Some(name) if name == *b"KVMKVMKVM\0\0\0" => __cpuid(BASE + 1).eax,
        _ => 0,
    }
}

/// Frequency of the time-stamp counter in kHz, if the hypervisor tells.
pub fn tsc_khz() -> Option<u32> {
    hypervisor()?;
    if __cpuid(BASE).eax >= BASE + 0x10 {
        let khz = __cpuid(BASE + 0x10).eax;
        if khz > 10_000 {
            return Some(khz);
        }
    }
    kvmclock_khz()
}

const CLOCKSOURCE2: u32 = 1 << 3;

#[repr(C, align(64))]
struct Shared(UnsafeCell<[u32; 16]>);
// SAFETY: used by the boot CPU during start-up; the hypervisor is the other side.
unsafe impl Sync for Shared {}
static SHARED: Shared = Shared(UnsafeCell::new([0; 16]));

/// Frequency from kvmclock's scale: `ns = (cycles << shift) * multiplier >> 32`.
fn kvmclock_khz() -> Option<u32> {
    const MSR_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;
    const ENABLE: u64 = 1;
    if kvm_features() & CLOCKSOURCE2 == 0 {
        return None;
    }
    let page = SHARED.0.get();
    // SAFETY: CPUID offers the MSR; the hypervisor writes 32 bytes to memory that nobody else uses,
    // until told to stop.
    let words = unsafe {
        wrmsr(MSR_SYSTEM_TIME_NEW, virt_to_phys(page as usize) as u64 | ENABLE);
        let words = page.read_volatile();
        wrmsr(MSR_SYSTEM_TIME_NEW, 0);
        words
    };
    // version, pad, tsc_timestamp, system_time, multiplier, shift (signed byte), flags
    let (multiplier, shift) = (u128::from(words[6]), words[7] as u8 as i8);
    if multiplier == 0 {
        return None;
    }
    let khz = (1_000_000u128 << 32) / multiplier;
    let khz = if shift < 0 { khz << -i32::from(shift) } else { khz >> shift };
    u32::try_from(khz).ok().filter(|&khz| khz > 10_000)
}

/// Nanoseconds since the Unix epoch, if the hypervisor tells.
pub fn wall_clock_ns() -> Option<u64> {
    // kvmclock's wall clock is that of *its* time zero, which differs from ours; the CMOS clock is
    // good to a second, and both are read once. Hosts that need better run an NTP client in the
    // image.
    None
}
