//! Sealing: promises about an object that can't be taken back (memfd_create(2), fcntl(2)
//! `F_ADD_SEALS`).

use super::PageCache;
use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;
use core::sync::atomic::Ordering;

bitflags::bitflags! {
    /// `F_SEAL_*`
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Seals: u32 {
        /// No more seals. All objects have it except memfds made with `MFD_ALLOW_SEALING`.
        const SEAL = 1;
        /// The object doesn't get shorter.
        const SHRINK = 2;
        /// The object doesn't get longer.
        const GROW = 4;
        /// The content doesn't change.
        const WRITE = 8;
        /// The content changes only through mappings that exist already.
        const FUTURE_WRITE = 16;
        /// The execute permission doesn't change.
        const EXEC = 32;
    }
}

impl PageCache {
    /// The seals set.
    pub fn seals(&self) -> Seals {
        *self.seals.lock()
    }

    /// Allows seals to be added; for a new object.
    pub fn allow_sealing(&self) {
        *self.seals.lock() -= Seals::SEAL;
    }

    /// Adds seals. EPERM if that is sealed itself; EBUSY if the object is to be sealed against
    /// writing while a mapping could write it.
    pub fn add_seals(&self, seals: Seals) -> Result<()> {
        let mut present = self.seals.lock();
        if present.contains(Seals::SEAL) {
            return Err(Errno::EPERM);
        }
        let writers = self.writers.load(Ordering::SeqCst);
        if seals.contains(Seals::WRITE) && !present.contains(Seals::WRITE) && writers > 0 {
            return Err(Errno::EBUSY);
        }
        *present |= seals;
        Ok(())
    }

    /// How much of a write may happen: EPERM if nothing. A write that would grow an object which
    /// must not grow ends before the page that has its end (as in Linux, which asks for each page).
    pub(super) fn check_sealed_write(&self, offset: u64, total: u64) -> Result<u64> {
        let seals = self.seals();
        if seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        if !seals.contains(Seals::GROW) || offset + total <= self.len() {
            return Ok(total);
        }
        let whole = self.len() & !(PAGE_SIZE as u64 - 1);
        match whole.saturating_sub(offset) {
            0 => Err(Errno::EPERM),
            room => Ok(room),
        }
    }

    pub(super) fn check_sealed_resize(&self, old: u64, new: u64) -> Result<()> {
        let seals = self.seals();
        let forbidden =
            new < old && seals.contains(Seals::SHRINK) || new > old && seals.contains(Seals::GROW);
        if forbidden { Err(Errno::EPERM) } else { Ok(()) }
    }
}
