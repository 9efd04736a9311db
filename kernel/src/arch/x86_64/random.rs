//! Entropy for seeding: the CPU's generator where it has one, and the jitter of the cycle counter
//! always.

use super::insn::{cpuid, rdtsc};
use core::arch::asm;

/// 32 bytes that an outsider can't predict, as far as this machine can make them.
pub fn seed() -> [u8; 32] {
    let mut state = [0u64; 4];
    for round in 0..32u64 {
        let index = (round % 4) as usize;
        let mut word = rdtsc().rotate_left(round as u32 * 7) ^ jitter();
        if let Some(hardware) = hardware() {
            word ^= hardware;
        }
        // SplitMix64's finaliser spreads each bit over the word; neighbours chain the words
        // together.
        let mut mixed = (state[index] ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        state[index] = mixed ^ mixed >> 31;
        state[(index + 1) % 4] ^= state[index].rotate_left(17);
    }
    let mut out = [0; 32];
    for (chunk, word) in out.chunks_exact_mut(8).zip(state) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// A word that an outsider can't predict, for what is needed before memory is set up.
pub fn seed_word() -> usize {
    let word = hardware().unwrap_or_else(jitter) ^ rdtsc().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word ^ word >> 32) as usize
}

/// Differences of the cycle counter around work whose time varies.
fn jitter() -> u64 {
    let mut sum = 0u64;
    for _ in 0..16 {
        let before = rdtsc();
        core::hint::black_box(cpuid(0, 0));
        sum = sum.rotate_left(5) ^ rdtsc().wrapping_sub(before);
    }
    sum
}

/// A word from RDSEED or RDRAND.
pub fn hardware() -> Option<u64> {
    const RDSEED: u32 = 1 << 18;
    const RDRAND: u32 = 1 << 30;
    let (rdseed, rdrand) = (cpuid(7, 0).ebx & RDSEED != 0, cpuid(1, 0).ecx & RDRAND != 0);
    for _ in 0..16 {
        let (value, ok): (u64, u8);
        // SAFETY: CPUID names the instruction.
        unsafe {
            if rdseed {
                asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack));
            } else if rdrand {
                asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack));
            } else {
                return None;
            }
        }
        // A generator stuck at one value is broken.
        if ok != 0 && value != 0 && value != u64::MAX {
            return Some(value);
        }
    }
    None
}
