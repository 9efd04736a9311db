//! The partition table, written to memory.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::{GptConfig, GptDisk};

use super::assembly::Ids;
use super::{ALIGN, ENTRIES, Error, Part, SECTOR};

/// Bytes that the backup takes at the disk's end: its entries and one header.
pub(super) const BACKUP: u64 = ENTRIES as u64 * 128 + SECTOR;

/// The sectors of table, backup and MBR of a disk of `size` bytes, by where they start.
pub(super) fn write(
    size: u64,
    extents: &[(Part, u64, u64)],
    ids: &Ids,
    boot_code: [u8; 440],
) -> Result<BTreeMap<u64, Vec<u8>>, Error> {
    let device = Sectors { written: BTreeMap::new(), position: 0, size };
    let mut disk: GptDisk<Sectors> = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(device, Some(ids.get("disk")))?;
    let mut partitions = BTreeMap::new();
    for (part, start, len) in extents {
        let first_lba = start / SECTOR;
        let entry = Partition {
            part_type_guid: part.kind(),
            part_guid: ids.get(part.name()),
            first_lba,
            last_lba: first_lba + (*len).max(1).next_multiple_of(ALIGN) / SECTOR - 1,
            flags: 0,
            name: part.name().to_owned(),
        };
        partitions.insert(*part as u32, entry);
    }
    disk.update_partitions(partitions)?;
    let mut sectors = disk.write()?.written;
    let last = u32::try_from(size / SECTOR - 1).unwrap_or(u32::MAX);
    let mut mbr = ProtectiveMBR::with_lb_size(last);
    mbr.set_bootcode(boot_code);
    sectors.insert(0, mbr.to_bytes());

    // Neighbours make one piece.
    let mut pieces: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (index, bytes) in sectors {
        let at = index * SECTOR;
        match pieces.last_entry() {
            Some(mut last) if last.key() + last.get().len() as u64 == at => {
                last.get_mut().extend_from_slice(&bytes);
            }
            _ => {
                pieces.insert(at, bytes.to_vec());
            }
        }
    }
    Ok(pieces)
}

/// A device of which only what is written takes memory.
#[derive(Debug)]
struct Sectors {
    written: BTreeMap<u64, [u8; SECTOR as usize]>,
    position: u64,
    size: u64,
}

impl Sectors {
    /// The sector at the position, where in it the position is, and how much of `len` bytes is in
    /// it.
    fn here(&self, len: usize) -> (u64, usize, usize) {
        let within = (self.position % SECTOR) as usize;
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        (self.position / SECTOR, within, len.min(SECTOR as usize - within).min(left))
    }
}

impl Read for Sectors {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (sector, within, len) = self.here(buffer.len());
        match self.written.get(&sector) {
            Some(bytes) => buffer[..len].copy_from_slice(&bytes[within..within + len]),
            None => buffer[..len].fill(0),
        }
        self.position += len as u64;
        Ok(len)
    }
}

impl Write for Sectors {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (sector, within, len) = self.here(bytes.len());
        if len > 0 {
            let place = self.written.entry(sector).or_insert([0; SECTOR as usize]);
            place[within..within + len].copy_from_slice(&bytes[..len]);
        }
        self.position += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sectors {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = super::medium::seek(self.position, self.size, to)?;
        Ok(self.position)
    }
}
