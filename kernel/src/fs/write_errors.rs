//! Errors of writing back, so that each open file hears of each once (fsync(2)).
//!
//! An inode has one of these, and each open file what it has heard. Who opens the file later hears
//! of an error only if nobody has yet.

use crate::errno::Errno;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// The last error and how many there were: an errno in the low bits, then whether anybody has heard
/// of it, then a count.
#[derive(Default)]
pub struct WriteErrors(AtomicU32);

const ERRNO: u32 = 0xfff;
const HEARD: u32 = 0x1000;
const ONE: u32 = 0x2000;

impl WriteErrors {
    /// Something could not be written.
    pub fn record(&self, error: Errno) {
        let _ = self.0.fetch_update(SeqCst, SeqCst, |old| {
            // One that nobody has heard of can stand for this one as well.
            let count = if old & HEARD != 0 { old.wrapping_add(ONE) } else { old };
            Some(count & !(ERRNO | HEARD) | u32::from(error.0))
        });
    }

    /// What a file that is opened now counts as heard.
    pub fn sample(&self) -> u32 {
        let now = self.0.load(SeqCst);
        if now & HEARD != 0 { now } else { 0 }
    }

    /// The error that a file has not heard of yet, if there is one; from now on it has.
    pub fn hear(&self, heard: &AtomicU32) -> Option<Errno> {
        if self.0.load(SeqCst) == heard.load(SeqCst) {
            return None;
        }
        let now = self.0.fetch_or(HEARD, SeqCst) | HEARD;
        let before = heard.swap(now, SeqCst);
        (before != now && now & ERRNO != 0).then_some(Errno((now & ERRNO) as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_open_file_hears_of_every_error_once() {
        let errors = WriteErrors::default();
        let open = || AtomicU32::new(errors.sample());
        let (one, other) = (open(), open());
        assert_eq!((errors.hear(&one), errors.hear(&other)), (None, None));
        errors.record(Errno::EIO);
        // Opened after the fact, but nobody was told yet.
        let late = open();
        for file in [&one, &other, &late] {
            assert_eq!(errors.hear(file), Some(Errno::EIO));
            assert_eq!(errors.hear(file), None);
        }
        let later = open();
        assert_eq!(errors.hear(&later), None);
        errors.record(Errno::ENOSPC);
        errors.record(Errno::EIO);
        for file in [&one, &later] {
            assert_eq!(errors.hear(file), Some(Errno::EIO));
            assert_eq!(errors.hear(file), None);
        }
        errors.record(Errno::EIO);
        assert_eq!(errors.hear(&one), Some(Errno::EIO));
        assert_eq!(errors.hear(&other), Some(Errno::EIO));
        assert_eq!(errors.hear(&other), None);
    }
}
