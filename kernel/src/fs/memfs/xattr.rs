//! Extended attributes (xattr(7)).

use crate::errno::{Errno, Result};
use crate::fs::inode::XattrMode;
use crate::map::Sorted;
use alloc::vec::Vec;

/// Most bytes of names and values of one file.
const LIMIT: usize = 64 * 1024;

/// The attributes of a file.
#[derive(Default)]
pub struct Xattrs(Sorted<Vec<u8>, Vec<u8>>);

impl Xattrs {
    /// Takes over an attribute of the image.
    pub fn load(&mut self, name: Vec<u8>, value: &[u8]) {
        self.0.insert(name, value.to_vec());
    }

    /// A value.
    pub fn get(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.0.get(name).cloned()
    }

    /// Sets a value. EEXIST or ENODATA as `mode` demands, ENOSPC if the file has too many.
    pub fn set(&mut self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        match (self.0.contains_key(name), mode) {
            (true, XattrMode::Create) => return Err(Errno::EEXIST),
            (false, XattrMode::Replace) => return Err(Errno::ENODATA),
            _ => {}
        }
        let others = self.0.iter().filter(|(other, _)| other.as_slice() != name);
        let used: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if used + name.len() + value.len() > LIMIT {
            return Err(Errno::ENOSPC);
        }
        self.0.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    /// Removes a value. ENODATA if there is none.
    pub fn remove(&mut self, name: &[u8]) -> Result<()> {
        self.0.remove(name).map(drop).ok_or(Errno::ENODATA)
    }

    /// Names, each followed by a NUL.
    pub fn names(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for name in self.0.keys() {
            out.extend_from_slice(name);
            out.push(0);
        }
        out
    }
}
