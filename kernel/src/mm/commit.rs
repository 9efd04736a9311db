//! How much memory may be promised (proc(5), `/proc/sys/vm/overcommit_memory`).

use super::frame;
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::setting::Setting;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// 0: what can't possibly fit is refused; 1: nothing is; 2: all that is promised must fit.
pub static MODE: Setting = Setting::new(0, 0, 2);
/// With mode 2, how much may be promised: a part of the memory in percent, or so many KiB.
pub static RATIO: Setting = Setting::new(50, 0, i32::MAX as i64);
/// See [`RATIO`]; 0: by the ratio.
pub static KIBIBYTES: Setting = Setting::new(0, 0, i64::MAX >> 10);

/// Bytes of private memory that may be written, in all address spaces.
static PROMISED: AtomicUsize = AtomicUsize::new(0);

/// Whether `MAP_NORESERVE` means something.
pub fn is_strict() -> bool {
    MODE.get() == 2
}

/// So many bytes more are promised.
pub fn add(bytes: usize) {
    PROMISED.fetch_add(bytes, Relaxed);
}

/// So many bytes are no longer promised.
pub fn remove(bytes: usize) {
    PROMISED.fetch_sub(bytes, Relaxed);
}

/// Bytes that are promised.
pub fn promised() -> usize {
    PROMISED.load(Relaxed)
}

fn total() -> usize {
    frame::total_frames() * PAGE_SIZE
}

/// Bytes that may be, with mode 2.
pub fn limit() -> usize {
    match KIBIBYTES.size() {
        0 => (total() as u128 * RATIO.get() as u128 / 100).min(usize::MAX as u128) as usize,
        kib => kib << 10,
    }
}

/// Whether `more` bytes may be promised. ENOMEM if not.
pub fn check(more: usize) -> Result<()> {
    let fits = match MODE.get() {
        0 => more <= total(),
        1 => true,
        _ => promised().checked_add(more).is_some_and(|sum| sum <= limit()),
    };
    if fits { Ok(()) } else { Err(Errno::ENOMEM) }
}
