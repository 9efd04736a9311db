//! Limits on the pages of a filesystem: those that live in memory, or wait for room on a disk.

use crate::errno::{Errno, Result};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Pages a group of caches may own together (one tmpfs mount).
pub struct Quota {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Quota {
    /// A quota of `limit` pages.
    pub const fn new(limit: u64) -> Quota {
        Quota { limit: AtomicU64::new(limit), used: AtomicU64::new(0) }
    }

    /// Pages allowed.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit (remount); what is used already stays.
    pub fn set_limit(&self, pages: u64) {
        self.limit.store(pages, Ordering::Relaxed);
    }

    /// Pages in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts `pages` more; ENOSPC if that exceeds the limit.
    pub fn charge(&self, pages: u64) -> Result<()> {
        let limit = self.limit();
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(pages).filter(|&sum| sum <= limit)
            })
            .map_or(Err(Errno::ENOSPC), |_| Ok(()))
    }

    /// Counts `pages` more, whatever the limit.
    pub fn charge_beyond(&self, pages: u64) {
        self.used.fetch_add(pages, Ordering::Relaxed);
    }

    /// Counts `pages` fewer.
    pub fn uncharge(&self, pages: u64) {
        self.used.fetch_sub(pages, Ordering::Relaxed);
    }
}

/// ENOSPC for content of files. Programs that meet it rarely say more than "no space left on
/// device", and the device is memory: that is told once.
#[cold]
pub fn no_room() -> Errno {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        let info = crate::mm::meminfo();
        crate::error!(
            "no room for files: those written since the start take {} of {} KiB of memory. \
             Give the VM more memory (`-m`), or keep less in files",
            info.shmem / 1024,
            info.total / 1024
        );
    }
    Errno::ENOSPC
}
