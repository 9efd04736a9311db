//! Resource limits (getrlimit(2)).

use crate::errno::{Errno, Result};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use linux_raw_sys::general as abi;

/// No limit.
pub const INFINITY: u64 = u64::MAX;
/// Number of resources.
pub const COUNT: usize = 16;
/// Most descriptors of a process whatever its limits say.
pub const NR_OPEN: u64 = 1 << 20;
/// Most descriptors a process may ask for (`/proc/sys/fs/nr_open`).
pub static NR_OPEN_NOW: AtomicU64 = AtomicU64::new(NR_OPEN);

/// A soft and a hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// What the kernel enforces.
    pub soft: u64,
    /// How far the soft limit may be raised without privilege.
    pub hard: u64,
}

/// All limits of a process, indexed by `RLIMIT_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rlimits([Rlimit; COUNT]);

impl Default for Rlimits {
    /// What a container runtime gives a container's main process.
    fn default() -> Self {
        let mut all = [Rlimit { soft: INFINITY, hard: INFINITY }; COUNT];
        all[abi::RLIMIT_STACK as usize].soft = 8 << 20;
        all[abi::RLIMIT_CORE as usize].soft = 0;
        all[abi::RLIMIT_NOFILE as usize] = Rlimit { soft: NR_OPEN, hard: NR_OPEN };
        all[abi::RLIMIT_MEMLOCK as usize] = Rlimit { soft: 8 << 20, hard: 8 << 20 };
        all[abi::RLIMIT_SIGPENDING as usize] = Rlimit { soft: 16384, hard: 16384 };
        all[abi::RLIMIT_MSGQUEUE as usize] = Rlimit { soft: 819_200, hard: 819_200 };
        all[abi::RLIMIT_NICE as usize] = Rlimit { soft: 0, hard: 0 };
        all[abi::RLIMIT_RTPRIO as usize] = Rlimit { soft: 0, hard: 0 };
        Rlimits(all)
    }
}

impl Rlimits {
    /// The limits of one resource. EINVAL for an unknown one.
    pub fn get(&self, resource: u32) -> Result<Rlimit> {
        self.0.get(resource as usize).copied().ok_or(Errno::EINVAL)
    }

    /// Sets the limits of one resource; `privileged` callers (CAP_SYS_RESOURCE) may raise hard
    /// limits.
    pub fn set(&mut self, resource: u32, new: Rlimit, privileged: bool) -> Result<()> {
        let old = self.0.get_mut(resource as usize).ok_or(Errno::EINVAL)?;
        if new.soft > new.hard {
            return Err(Errno::EINVAL);
        }
        if resource == abi::RLIMIT_NOFILE && new.hard > NR_OPEN_NOW.load(Relaxed) {
            return Err(Errno::EPERM);
        }
        if new.hard > old.hard && !privileged {
            return Err(Errno::EPERM);
        }
        *old = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_limits_fall_freely_and_rise_with_privilege() {
        let mut limits = Rlimits::default();
        let nofile = abi::RLIMIT_NOFILE;
        limits.set(nofile, Rlimit { soft: 10, hard: 20 }, false).unwrap();
        assert_eq!(limits.set(nofile, Rlimit { soft: 10, hard: 21 }, false), Err(Errno::EPERM));
        limits.set(nofile, Rlimit { soft: 10, hard: 21 }, true).unwrap();
        assert_eq!(limits.set(nofile, Rlimit { soft: 22, hard: 21 }, true), Err(Errno::EINVAL));
        assert_eq!(limits.set(nofile, Rlimit { soft: 0, hard: INFINITY }, true), Err(Errno::EPERM));
        assert_eq!(limits.get(16), Err(Errno::EINVAL));
    }
}
