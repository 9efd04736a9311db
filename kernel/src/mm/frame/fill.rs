//! Filling and copying whole pages, by the memory functions of `arch`.

use crate::arch::PAGE_SIZE;

/// Zeroes the page at `page`.
///
/// # Safety
/// `page` is valid for [`PAGE_SIZE`] bytes of writes.
pub unsafe fn zero(page: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::write_bytes(page, 0, PAGE_SIZE) };
}

/// Copies the page at `src` to `dst`.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of [`PAGE_SIZE`] bytes. They don't overlap.
pub unsafe fn copy(dst: *mut u8, src: *const u8) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy_nonoverlapping(src, dst, PAGE_SIZE) };
}
