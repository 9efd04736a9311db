//! Numbers that /proc/sys shows and changes, beside what they are for.

use crate::errno::{Errno, Result};
use core::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// A number within bounds.
pub struct Setting {
    value: AtomicI64,
    low: i64,
    high: i64,
}

impl Setting {
    /// With a value to start with, and what it may become.
    pub const fn new(value: i64, low: i64, high: i64) -> Setting {
        Setting { value: AtomicI64::new(value), low, high }
    }
    /// The present value.
    pub fn get(&self) -> i64 {
        self.value.load(Relaxed)
    }
    /// The present value of one that can't be negative.
    pub fn size(&self) -> usize {
        self.get().max(0) as usize
    }
    /// Changes it. EINVAL for what it may not become.
    pub fn set(&self, value: i64) -> Result<()> {
        if !(self.low..=self.high).contains(&value) {
            return Err(Errno::EINVAL);
        }
        self.value.store(value, Relaxed);
        Ok(())
    }
}

/// Changes several that are written in one line; those behind the last number stay. EINVAL if one may
/// not become that, or there are more numbers than settings: then none changes.
pub fn set_all(settings: &[&Setting], values: &[i64]) -> Result<()> {
    if values.is_empty() || values.len() > settings.len() {
        return Err(Errno::EINVAL);
    }
    let pairs = || settings.iter().zip(values);
    if pairs().any(|(setting, value)| !(setting.low..=setting.high).contains(value)) {
        return Err(Errno::EINVAL);
    }
    pairs().try_for_each(|(setting, &value)| setting.set(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stay_within_their_bounds() {
        let (a, b) = (Setting::new(1, 0, 9), Setting::new(2, -5, 5));
        assert_eq!((a.set(10), a.set(-1), a.get()), (Err(Errno::EINVAL), Err(Errno::EINVAL), 1));
        a.set(9).unwrap();
        assert_eq!(set_all(&[&a, &b], &[3, 6]), Err(Errno::EINVAL));
        assert_eq!((a.get(), b.get()), (9, 2), "both or none");
        set_all(&[&a, &b], &[3]).unwrap();
        set_all(&[&a, &b], &[4, -5]).unwrap();
        assert_eq!((a.get(), b.get(), b.size()), (4, -5, 0));
        assert_eq!(set_all(&[&a], &[1, 2]), Err(Errno::EINVAL));
        assert_eq!(set_all(&[&a], &[]), Err(Errno::EINVAL));
    }
}
