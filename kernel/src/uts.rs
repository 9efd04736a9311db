//! Names of the system (uname(2)): host and domain name can be set, the rest is fixed.

use crate::errno::{Errno, Result};
use crate::sync::SpinLock;
use alloc::vec::Vec;

/// Longest name in bytes.
pub const MAX: usize = 64;

/// A settable name.
pub struct Name(SpinLock<([u8; MAX], usize)>);

/// The host name (uts nodename).
pub static HOST: Name = Name::new(b"localhost");
/// The NIS domain name.
pub static DOMAIN: Name = Name::new(b"(none)");

impl Name {
    const fn new(initial: &[u8]) -> Name {
        let mut bytes = [0; MAX];
        let mut at = 0;
        while at < initial.len() {
            bytes[at] = initial[at];
            at += 1;
        }
        Name(SpinLock::new((bytes, initial.len())))
    }

    /// The name.
    pub fn get(&self) -> Vec<u8> {
        let guard = self.0.lock();
        guard.0[..guard.1].to_vec()
    }

    /// Replaces the name. EINVAL if it is longer than [`MAX`].
    pub fn set(&self, name: &[u8]) -> Result<()> {
        if name.len() > MAX {
            return Err(Errno::EINVAL);
        }
        let mut guard = self.0.lock();
        guard.0[..name.len()].copy_from_slice(name);
        guard.1 = name.len();
        Ok(())
    }
}
