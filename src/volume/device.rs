//! A file as a disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use dock2uni_ext4::{BLOCK, Device, Error, Result};

/// A file of whole blocks.
pub(super) struct Disk {
    file: File,
    len: u64,
    /// Why the last operation failed.
    pub(super) failure: Arc<Mutex<Option<io::Error>>>,
}

impl Disk {
    pub fn new(file: File, len: u64) -> Disk {
        Disk { file, len, failure: Arc::default() }
    }

    fn note(&self, result: io::Result<()>) -> Result<()> {
        result.map_err(|error| {
            if let Ok(mut failure) = self.failure.lock() {
                *failure = Some(error);
            }
            Error::Io
        })
    }
}

impl Device for Disk {
    fn blocks(&self) -> u64 {
        self.len / BLOCK as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, block: u64, out: &mut [u8]) -> Result<()> {
        self.note(self.file.read_exact_at(out, block * BLOCK as u64))
    }

    fn write(&self, block: u64, data: &[&[u8]]) -> Result<()> {
        for (at, bytes) in (block..).zip(data) {
            self.note(self.file.write_all_at(bytes, at * BLOCK as u64))?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.note(self.file.sync_data())
    }
}
