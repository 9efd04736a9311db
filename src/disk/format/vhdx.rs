//! Hyper-V's format (MS-VHDX, "Virtual Hard Disk v2 File Format"), with payload blocks of 1 MiB.
//!
//! ```text
//! 0        file identifier         192 KiB  region table, and again at 256 KiB
//! 64 KiB   header, and again at 128 KiB
//! 1 MiB    log, empty     2 MiB  metadata     3 MiB  block table     then  blocks
//! ```

use std::fs::File;
use std::io::{self, Write};

use dock2uni_format::record::crc32c;
use uuid::{Uuid, uuid};

use super::{Fault, Sink, identity, le32, le64};
use crate::disk::SECTOR;
use crate::disk::medium::{Medium, by_blocks, for_each_block, is_zero, used_blocks, within};
use crate::erofs::ReadAt;

/// First bytes of a file.
pub const MAGIC: &[u8; 8] = b"vhdxfile";
const KIB64: u64 = 64 << 10;
const MIB: u64 = 1 << 20;
const BLOCK: u64 = MIB;
const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 2 * MIB;
const TABLE_AT: u64 = 3 * MIB;
const BAT: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const METADATA: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
const PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const PAGE83: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
const LOGICAL: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
const PHYSICAL: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
/// State of a block that is there.
const PRESENT: u64 = 6;
/// 64 TiB, the format's own limit.
const MAX_SIZE: u64 = 64 << 40;

/// Payload entries before each entry for a bitmap, which disks without a parent do not use.
fn chunk_ratio(block: u64, sector: u64) -> u64 {
    (sector << 23) / block
}

/// Writes a disk.
pub fn write(disk: &dyn Medium, out: &File) -> io::Result<u64> {
    let used = used_blocks(disk, BLOCK as usize)?;
    let ratio = chunk_ratio(BLOCK, SECTOR);
    let count = used.len() as u64;
    let entries = count + count.saturating_sub(1) / ratio;
    let table = (entries * 8).next_multiple_of(MIB).max(MIB);
    let id = identity(disk)?;

    let mut out = Sink::new(out);
    out.write_all(MAGIC)?;
    for unit in "dock2uni".encode_utf16() {
        out.write_all(&unit.to_le_bytes())?;
    }
    for sequence in 0..2u64 {
        out.pad_to((1 + sequence) * KIB64)?;
        out.write_all(&header(sequence, &id))?;
    }
    let regions = regions(table);
    for copy in 0..2 {
        out.pad_to((3 + copy) * KIB64)?;
        out.write_all(&regions)?;
    }
    out.pad_to(METADATA_AT)?;
    out.write_all(&metadata(disk.size(), &id))?;
    out.pad_to(TABLE_AT)?;
    let mut next = TABLE_AT + table;
    for (index, used) in used.iter().enumerate() {
        let entry = if *used { next | PRESENT } else { 0 };
        next += if *used { BLOCK } else { 0 };
        out.write_all(&entry.to_le_bytes())?;
        if (index as u64 + 1).is_multiple_of(ratio) && index as u64 + 1 < count {
            out.write_all(&[0; 8])?;
        }
    }
    out.pad_to(TABLE_AT + table)?;
    for_each_block(disk, BLOCK as usize, |_, bytes| {
        if !is_zero(bytes) {
            out.write_all(bytes)?;
            out.pad(BLOCK)?;
        }
        Ok(())
    })?;
    out.finish()
}

fn seal(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.resize(len, 0);
    let sum = crc32c(&bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn header(sequence: u64, id: &[u8; 16]) -> Vec<u8> {
    let mut bytes = b"head\0\0\0\0".to_vec();
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(id); // of what was written to the file
    bytes.extend_from_slice(id); // of what was written to the disk
    bytes.extend_from_slice(&[0; 16]); // no log to replay
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(&1u16.to_le_bytes());
    bytes.extend_from_slice(&(MIB as u32).to_le_bytes());
    bytes.extend_from_slice(&LOG_AT.to_le_bytes());
    seal(bytes, 4096)
}

fn regions(table: u64) -> Vec<u8> {
    let mut bytes = b"regi\0\0\0\0".to_vec();
    bytes.extend_from_slice(&2u64.to_le_bytes());
    for (kind, at, len) in [(BAT, TABLE_AT, table), (METADATA, METADATA_AT, MIB)] {
        bytes.extend_from_slice(&kind.to_bytes_le());
        bytes.extend_from_slice(&at.to_le_bytes());
        // The table of the largest disk has 512 MiB.
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
    }
    seal(bytes, KIB64 as usize)
}

fn metadata(size: u64, id: &[u8; 16]) -> Vec<u8> {
    const OF_DISK: u32 = 2;
    const REQUIRED: u32 = 4;
    let sector = SECTOR as u32;
    let mut parameters = (BLOCK as u32).to_le_bytes().to_vec();
    parameters.extend_from_slice(&[0; 4]); // no parent, blocks come and go
    let items = [
        (PARAMETERS, parameters, REQUIRED),
        (SIZE, size.to_le_bytes().to_vec(), OF_DISK | REQUIRED),
        (PAGE83, id.to_vec(), OF_DISK | REQUIRED),
        (LOGICAL, sector.to_le_bytes().to_vec(), OF_DISK | REQUIRED),
        (PHYSICAL, sector.to_le_bytes().to_vec(), OF_DISK | REQUIRED),
    ];
    let mut table = b"metadata\0\0".to_vec();
    table.extend_from_slice(&(items.len() as u16).to_le_bytes());
    table.resize(32, 0);
    let mut values = Vec::new();
    for (kind, value, flags) in items {
        table.extend_from_slice(&kind.to_bytes_le());
        let at = KIB64 as u32 + values.len() as u32;
        for word in [at, value.len() as u32, flags, 0] {
            table.extend_from_slice(&word.to_le_bytes());
        }
        values.extend_from_slice(&value);
    }
    table.resize(KIB64 as usize, 0);
    table.extend_from_slice(&values);
    table
}

/// A disk in a file of this format.
pub struct Vhdx {
    file: File,
    size: u64,
    block: u64,
    ratio: u64,
    table: u64,
    table_len: u64,
}

impl Vhdx {
    /// Opens a file and checks its headers.
    pub fn open(file: File) -> Result<Vhdx, Fault> {
        let mut log = None;
        for at in [KIB64, 2 * KIB64] {
            let mut header = vec![0; 4096];
            file.read_exact_at(&mut header, at)?;
            if header.starts_with(b"head") && sealed(&header) {
                let sequence = le64(&header, 8);
                if log.is_none_or(|(newest, _)| sequence > newest) {
                    log = Some((sequence, header[48..64].iter().any(|byte| *byte != 0)));
                }
            }
        }
        match log {
            None => return Err(Fault::Damaged("neither of its headers is sound")),
            Some((_, true)) => {
                return Err(Fault::Unsupported("changes in its log; open it in Hyper-V first"));
            }
            Some(_) => {}
        }
        let regions = [3 * KIB64, 4 * KIB64].into_iter().find_map(|at| {
            let mut regions = vec![0; KIB64 as usize];
            file.read_exact_at(&mut regions, at).ok()?;
            (regions.starts_with(b"regi") && sealed(&regions)).then_some(regions)
        });
        let regions = regions.ok_or(Fault::Damaged("neither of its region tables is sound"))?;
        let region = |kind: Uuid| {
            let count = (le32(&regions, 8) as usize).min(2047);
            let mut entries = regions[16..].chunks_exact(32).take(count);
            let entry = entries.find(|entry| entry[..16] == kind.to_bytes_le())?;
            Some((le64(entry, 16), u64::from(le32(entry, 24))))
        };
        let missing = Fault::Damaged("its region table lacks a region");
        let (Some((table, table_len)), Some((metadata, _))) = (region(BAT), region(METADATA))
        else {
            return Err(missing);
        };
        let mut items = vec![0; KIB64 as usize];
        file.read_exact_at(&mut items, metadata)?;
        if !items.starts_with(b"metadata") {
            return Err(Fault::Damaged("its metadata are missing"));
        }
        let item = |kind: Uuid| -> Result<u64, Fault> {
            let count = usize::from(u16::from_le_bytes([items[10], items[11]])).min(2047);
            let mut entries = items[32..].chunks_exact(32).take(count);
            let entry = entries.find(|entry| entry[..16] == kind.to_bytes_le());
            let entry = entry.ok_or(Fault::Damaged("an item of its metadata is missing"))?;
            let mut value = [0; 8];
            let len = (le32(entry, 20) as usize).min(8);
            let at = metadata.saturating_add(le32(entry, 16).into());
            file.read_exact_at(&mut value[..len], at)?;
            Ok(u64::from_le_bytes(value))
        };
        let (parameters, size, sector) = (item(PARAMETERS)?, item(SIZE)?, item(LOGICAL)?);
        let (block, flags) = (parameters & 0xffff_ffff, parameters >> 32);
        if flags & 2 != 0 {
            return Err(Fault::Unsupported("a parent disk"));
        }
        let sound = block.is_power_of_two()
            && (MIB..=256 * MIB).contains(&block)
            && matches!(sector, 512 | 4096)
            && size <= MAX_SIZE;
        if !sound {
            return Err(Fault::Damaged("its metadata make no sense"));
        }
        Ok(Vhdx { file, size, block, ratio: chunk_ratio(block, sector), table, table_len })
    }
}

fn sealed(bytes: &[u8]) -> bool {
    let mut copy = bytes.to_vec();
    copy[4..8].fill(0);
    crc32c(&copy) == le32(bytes, 4)
}

impl ReadAt for Vhdx {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        by_blocks(self.size, self.block, buffer, offset, |index, inside, part| {
            let entry_at = (index + index / self.ratio) * 8;
            within(self.table_len, entry_at, 8)?;
            let mut entry = [0; 8];
            self.file.read_exact_at(&mut entry, self.table.saturating_add(entry_at))?;
            let entry = u64::from_le_bytes(entry);
            if entry & 7 == PRESENT {
                let start = entry & !(MIB - 1);
                self.file.read_exact_at(part, start.saturating_add(inside))?;
            } else {
                part.fill(0);
            }
            Ok(())
        })
    }
}

impl Medium for Vhdx {
    fn size(&self) -> u64 {
        self.size
    }
}
