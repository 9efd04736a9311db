//! Filling and copying whole pages.
//!
//! Unrolled 16-byte stores: under emulation they take a quarter of what `rep stos` takes, which is
//! interpreted one round at a time, and on hardware both run at memory speed.

use crate::arch::PAGE_SIZE;

/// Zeroes the page at `page`.
///
/// # Safety
/// `page` is page-aligned and valid for [`PAGE_SIZE`] bytes of writes.
pub unsafe fn zero(page: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: stores exactly PAGE_SIZE bytes from `page` on, aligned; clobbers are declared.
    unsafe {
        core::arch::asm!(
            "xorps {zero}, {zero}",
            "2:",
            "movaps [{at}], {zero}",
            "movaps [{at} + 16], {zero}",
            "movaps [{at} + 32], {zero}",
            "movaps [{at} + 48], {zero}",
            "movaps [{at} + 64], {zero}",
            "movaps [{at} + 80], {zero}",
            "movaps [{at} + 96], {zero}",
            "movaps [{at} + 112], {zero}",
            "sub {at}, -128",
            "dec {left:e}",
            "jnz 2b",
            at = inout(reg) page => _,
            left = inout(reg) PAGE_SIZE / 128 => _,
            zero = out(xmm_reg) _,
            options(nostack),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's promise.
    unsafe {
        core::ptr::write_bytes(page, 0, PAGE_SIZE)
    };
}

/// Copies the page at `src` to `dst`.
///
/// # Safety
/// Both are page-aligned; `src` is valid for reads and `dst` for writes of [`PAGE_SIZE`] bytes.
/// They don't overlap.
pub unsafe fn copy(dst: *mut u8, src: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: moves exactly PAGE_SIZE bytes, aligned; clobbers are declared.
    unsafe {
        core::arch::asm!(
            "2:",
            "movaps {a}, [{src}]",
            "movaps {b}, [{src} + 16]",
            "movaps {c}, [{src} + 32]",
            "movaps {d}, [{src} + 48]",
            "movaps [{dst}], {a}",
            "movaps [{dst} + 16], {b}",
            "movaps [{dst} + 32], {c}",
            "movaps [{dst} + 48], {d}",
            "add {src}, 64",
            "add {dst}, 64",
            "dec {left:e}",
            "jnz 2b",
            src = inout(reg) src => _,
            dst = inout(reg) dst => _,
            left = inout(reg) PAGE_SIZE / 64 => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's promise.
    unsafe {
        core::ptr::copy_nonoverlapping(src, dst, PAGE_SIZE)
    };
}
