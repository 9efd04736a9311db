//! The vDSO (vdso(7)): clock_gettime(2) and friends without entering the kernel.
//!
//! Two pages are mapped into every program, the data page first:
//!
//! ```text
//! 0x0000  data    parameters of the clock, written by the kernel, read-only to programs
//! 0x1000  image   an ELF shared object: headers, symbols, code
//! ```
//!
//! The image is assembled here at boot rather than linked: four symbols and 300 bytes of code need
//! no linker. Every libc asks for `DT_HASH`, `DT_SYMTAB` and `DT_STRTAB` only; Go's runtime wants
//! versions as well.

#[cfg(any(guest, test))]
mod code;
#[cfg(any(guest, test))]
mod image;
#[cfg(guest)]
mod mapping;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes from the start of the data page to the start of the image.
pub const IMAGE_OFFSET: usize = 0x1000;
/// Bytes to map: data page and image.
pub const LEN: usize = 0x2000;

/// The data page, as [`code`] reads it.
#[repr(C)]
pub struct Data {
    /// Odd while the parameters change.
    sequence: AtomicU32,
    /// 1 if the cycle counter may be read in user mode; 0 makes the code enter the kernel.
    usable: AtomicU32,
    /// Cycle counter at monotonic time `base_ns`.
    base_cycles: AtomicU64,
    /// Nanoseconds a cycle, in units of 2^-32.
    multiplier: AtomicU64,
    /// Monotonic nanoseconds at `base_cycles`.
    base_ns: AtomicU64,
    /// Nanoseconds since the Unix epoch at monotonic time zero.
    epoch_ns: AtomicU64,
}

/// How monotonic time follows from the cycle counter.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Cycle counter at `base_ns`.
    pub base_cycles: u64,
    /// Nanoseconds a cycle, in units of 2^-32.
    pub multiplier: u64,
    /// Monotonic nanoseconds at `base_cycles`.
    pub base_ns: u64,
}

impl Data {
    /// Publishes the clock's parameters. One writer at a time (the clock's own lock).
    pub fn publish(&self, scale: Option<Scale>, epoch_ns: u64) {
        self.sequence.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        if let Some(scale) = scale {
            self.base_cycles.store(scale.base_cycles, Ordering::Relaxed);
            self.multiplier.store(scale.multiplier, Ordering::Relaxed);
            self.base_ns.store(scale.base_ns, Ordering::Relaxed);
        }
        self.usable.store(u32::from(scale.is_some()), Ordering::Relaxed);
        self.epoch_ns.store(epoch_ns, Ordering::Relaxed);
        fence(Ordering::Release);
        self.sequence.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(any(guest, test))]
pub use image::build;
#[cfg(guest)]
pub use mapping::{clock_changed, map_into};
