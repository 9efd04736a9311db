//! Block devices, as filesystems see them.

use crate::errno::{Errno, Result};
use crate::mm::PageRef;
use crate::sync::SpinLock;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Bytes in a sector: the unit of addresses in virtio-blk, whatever the device's own block size is.
pub const SECTOR: u64 = 512;

/// A disk. Calls sleep until the device has answered, so: task context, no spinning lock held.
pub trait BlockDevice: Send + Sync {
    /// Name under /dev and /sys/block, for instance `vda`.
    fn name(&self) -> &str;
    /// Length in bytes.
    fn capacity(&self) -> u64;
    /// Whether writes are refused (EROFS).
    fn read_only(&self) -> bool;
    /// Fills `pages` from byte `offset` on (a multiple of [`SECTOR`]). What lies past the end of
    /// the device reads as zero. EIO if the device reports an error.
    fn read_pages(&self, offset: u64, pages: &[PageRef]) -> Result<()>;
    /// Writes `pages` from byte `offset` on. EROFS on a read-only device, EINVAL past its end, EIO
    /// on an error.
    fn write_pages(&self, offset: u64, pages: &[PageRef]) -> Result<()>;
    /// Makes completed writes durable.
    fn flush(&self) -> Result<()>;
    /// Reads bytes at any offset into a kernel buffer; for superblocks and partition tables.
    /// EINVAL past the end of the device.
    fn read_bytes(&self, offset: u64, out: &mut [u8]) -> Result<()>;
}

static DISKS: SpinLock<Vec<Arc<dyn BlockDevice>>> = SpinLock::new(Vec::new());

/// Adds a disk.
pub fn register(disk: Arc<dyn BlockDevice>) {
    DISKS.lock().push(disk);
}

/// All disks, in the order in which they were found.
pub fn disks() -> Vec<Arc<dyn BlockDevice>> {
    DISKS.lock().clone()
}

/// The disk of that name. ENODEV if there is none.
pub fn find(name: &str) -> Result<Arc<dyn BlockDevice>> {
    DISKS.lock().iter().find(|disk| disk.name() == name).cloned().ok_or(Errno::ENODEV)
}

/// Name of the `index`th virtio disk: vda to vdz, then vdaa and on.
pub fn virtio_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        letters.push(b'a' + (rest % 26) as u8);
        rest /= 26;
        if rest == 0 {
            break;
        }
        rest -= 1;
    }
    let suffix = letters.iter().rev().map(|&letter| char::from(letter));
    core::iter::once('v').chain(core::iter::once('d')).chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_names_follow_linux() {
        assert_eq!(virtio_name(0), "vda");
        assert_eq!(virtio_name(25), "vdz");
        assert_eq!(virtio_name(26), "vdaa");
        assert_eq!(virtio_name(27), "vdab");
    }
}
