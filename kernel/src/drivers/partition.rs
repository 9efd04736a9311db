//! GUID partition tables (UEFI specification 2.10, chapter 5).
//!
//! A disk is input from outside: numbers are checked before they are used, and a table that makes
//! no sense is no table.

use super::block::{BlockDevice, SECTOR};
use crate::errno::Result;
use alloc::vec::Vec;

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is for, as on disk (mixed-endian).
    pub kind: [u8; 16],
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Most entries that are looked at; UEFI's own minimum, and what every tool writes.
const MAX_ENTRIES: u32 = 128;
const ENTRY: usize = 128;

/// The partitions of a disk; none if it has no table.
pub fn read(disk: &dyn BlockDevice) -> Result<Vec<Partition>> {
    let mut header = [0; 92];
    if disk.capacity() < 2 * SECTOR {
        return Ok(Vec::new());
    }
    disk.read_bytes(SECTOR, &mut header)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(Vec::new());
    }
    let (at, count, size) = (u64_at(&header, 72), u32_at(&header, 80), u32_at(&header, 84));
    if size as usize != ENTRY {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for index in 0..count.min(MAX_ENTRIES) {
        let mut entry = [0; ENTRY];
        let offset = at
            .checked_mul(SECTOR)
            .and_then(|start| start.checked_add(u64::from(index) * ENTRY as u64))
            .filter(|offset| *offset <= disk.capacity().saturating_sub(ENTRY as u64));
        let Some(offset) = offset else { break };
        disk.read_bytes(offset, &mut entry)?;
        let mut kind = [0; 16];
        kind.copy_from_slice(&entry[..16]);
        let (first, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
        let end = last.checked_add(1).and_then(|end| end.checked_mul(SECTOR));
        let Some(end) = end.filter(|end| *end <= disk.capacity()) else { continue };
        if kind != [0; 16] && first <= last {
            found.push(Partition { kind, start: first * SECTOR, len: end - first * SECTOR });
        }
    }
    Ok(found)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;
    use crate::mm::PageRef;

    struct Ram(Vec<u8>);

    impl BlockDevice for Ram {
        fn name(&self) -> &str {
            "vda"
        }
        fn capacity(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_only(&self) -> bool {
            true
        }
        fn read_pages(&self, _offset: u64, _pages: &[PageRef]) -> Result<()> {
            Err(Errno::EIO)
        }
        fn write_pages(&self, _offset: u64, _pages: &[PageRef]) -> Result<()> {
            Err(Errno::EROFS)
        }
        fn flush(&self) -> Result<()> {
            Ok(())
        }
        fn read_bytes(&self, offset: u64, out: &mut [u8]) -> Result<()> {
            let start = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
            let from = self.0.get(start..start + out.len()).ok_or(Errno::EINVAL)?;
            out.copy_from_slice(from);
            Ok(())
        }
    }

    fn disk(entries: &[(u64, u64)]) -> Ram {
        let mut bytes = vec![0; 64 * 512];
        bytes[512..520].copy_from_slice(b"EFI PART");
        bytes[512 + 72] = 2;
        bytes[512 + 80] = 128;
        bytes[512 + 84] = 128;
        for (index, (first, last)) in entries.iter().enumerate() {
            let entry = &mut bytes[1024 + index * 128..][..128];
            entry[..16].fill(index as u8 + 1);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        }
        Ram(bytes)
    }

    #[test]
    fn partitions_are_found() {
        let found = read(&disk(&[(40, 47), (48, 63)])).unwrap();
        assert_eq!(found.len(), 2);
        let second = Partition { kind: [2; 16], start: 48 * 512, len: 16 * 512 };
        assert_eq!(found[1], second);
    }

    #[test]
    fn nonsense_is_left_out() {
        assert_eq!(read(&disk(&[(50, 40), (60, 64), (u64::MAX, u64::MAX)])).unwrap(), []);
        assert_eq!(read(&Ram(vec![0; 4096])).unwrap(), []);
        assert_eq!(read(&Ram(vec![0; 512])).unwrap(), []);
        let mut far = disk(&[(40, 47)]);
        far.0[512 + 72..512 + 80].fill(0xff);
        assert_eq!(read(&far).unwrap(), []);
    }
}
