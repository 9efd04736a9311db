//! QEMU's format, version 3 (QEMU's docs/interop/qcow2.txt).
//!
//! Written: header, refcounts, one level-1 table, level-2 tables, and the clusters that hold
//! something, in the order of the disk. Read: also compressed clusters, as `qemu-img convert -c`
//! makes them.

use std::fs::File;
use std::io::{self, Write};

use super::{Fault, Sink, be32, be64, inflate};
use crate::disk::medium::{Medium, by_blocks, for_each_block, is_zero, used_blocks};
use crate::erofs::ReadAt;

/// First bytes of a file.
pub const MAGIC: &[u8; 4] = b"QFI\xfb";
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of a level-2 table, and refcounts of two bytes in a cluster.
const L2_ENTRIES: u64 = CLUSTER / 8;
const REFCOUNTS: u64 = CLUSTER / 2;
/// "This cluster has a refcount of one."
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Bits 9 to 55 of an entry are an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const ZERO: u64 = 1;
const HEADER_LEN: u32 = 104;
const MAX_SIZE: u64 = 1 << 46;

/// Writes a disk.
pub fn write(disk: &dyn Medium, out: &File) -> io::Result<u64> {
    let used = used_blocks(disk, CLUSTER as usize)?;
    let l1_entries = (used.len() as u64).div_ceil(L2_ENTRIES).max(1);
    let l1 = (l1_entries * 8).div_ceil(CLUSTER);
    let tables: Vec<bool> =
        used.chunks(L2_ENTRIES as usize).map(|part| part.contains(&true)).collect();
    let l2 = tables.iter().filter(|used| **used).count() as u64;
    let data = used.iter().filter(|used| **used).count() as u64;
    // Refcount blocks count themselves and their table.
    let (mut blocks, mut table) = (1, 1);
    let total = loop {
        let total = 1 + table + blocks + l1 + l2 + data;
        let (need, want) = (total.div_ceil(REFCOUNTS), (blocks * 8).div_ceil(CLUSTER));
        if need <= blocks && want <= table {
            break total;
        }
        (blocks, table) = (need.max(blocks), want.max(table));
    };
    let l1_at = (1 + table + blocks) * CLUSTER;
    let l2_at = l1_at + l1 * CLUSTER;
    let data_at = l2_at + l2 * CLUSTER;

    let mut out = Sink::new(out);
    let mut header = Vec::new();
    header.extend_from_slice(MAGIC);
    for value in [3, 0, 0, 0, CLUSTER_BITS] {
        header.extend_from_slice(&u32::to_be_bytes(value));
    }
    header.extend_from_slice(&disk.size().to_be_bytes());
    header.extend_from_slice(&0u32.to_be_bytes()); // no encryption
    header.extend_from_slice(&(l1_entries as u32).to_be_bytes());
    header.extend_from_slice(&l1_at.to_be_bytes());
    header.extend_from_slice(&CLUSTER.to_be_bytes()); // refcount table
    header.extend_from_slice(&(table as u32).to_be_bytes());
    header.extend_from_slice(&[0; 4 + 8 + 3 * 8]); // no snapshots, no features
    header.extend_from_slice(&4u32.to_be_bytes()); // refcounts of 1 << 4 bits
    header.extend_from_slice(&HEADER_LEN.to_be_bytes());
    // The end of the header's extensions is eight zeros.
    out.write_all(&header)?;
    out.pad(CLUSTER)?;
    for block in 0..blocks {
        out.write_all(&((1 + table + block) * CLUSTER).to_be_bytes())?;
    }
    out.pad_to((1 + table) * CLUSTER)?;
    for _ in 0..total {
        out.write_all(&1u16.to_be_bytes())?;
    }
    out.pad_to(l1_at)?;
    let mut next = l2_at;
    for used in &tables {
        let entry = if *used { next | COPIED } else { 0 };
        next += if *used { CLUSTER } else { 0 };
        out.write_all(&entry.to_be_bytes())?;
    }
    out.pad_to(l2_at)?;
    let mut next = data_at;
    for part in used.chunks(L2_ENTRIES as usize).filter(|part| part.contains(&true)) {
        for used in part {
            let entry = if *used { next | COPIED } else { 0 };
            next += if *used { CLUSTER } else { 0 };
            out.write_all(&entry.to_be_bytes())?;
        }
        out.pad(CLUSTER)?;
    }
    for_each_block(disk, CLUSTER as usize, |_, bytes| {
        if !is_zero(bytes) {
            out.write_all(bytes)?;
            out.pad(CLUSTER)?;
        }
        Ok(())
    })?;
    out.finish()
}

/// A disk in a file of this format.
pub struct Qcow2 {
    file: File,
    size: u64,
    cluster_bits: u32,
    l1_at: u64,
    l1_entries: u64,
    zstd: bool,
}

impl Qcow2 {
    /// Opens a file and checks its header.
    pub fn open(file: File) -> Result<Qcow2, Fault> {
        let mut header = [0; 112];
        file.read_exact_at(&mut header[..72], 0)?;
        let version = be32(&header, 4);
        if !(2..=3).contains(&version) {
            return Err(Fault::Unsupported("a version other than 2 and 3"));
        }
        let mut features = 0;
        if version == 3 {
            file.read_exact_at(&mut header, 0)?;
            features = be64(&header, 72);
        }
        if be64(&header, 8) != 0 {
            return Err(Fault::Unsupported("a backing file"));
        }
        if be32(&header, 32) != 0 {
            return Err(Fault::Unsupported("encryption"));
        }
        // 0 and 1: not closed properly, known to be corrupt; 3: another compression.
        if features & 2 != 0 {
            return Err(Fault::Damaged("it is marked as corrupt"));
        }
        if features & !0b1001 != 0 {
            return Err(Fault::Unsupported("an external data file or extended tables"));
        }
        let disk = Qcow2 {
            size: be64(&header, 24),
            cluster_bits: be32(&header, 20),
            l1_entries: be32(&header, 36).into(),
            l1_at: be64(&header, 40),
            zstd: features & 8 != 0 && header[104] == 1,
            file,
        };
        if !(9..=21).contains(&disk.cluster_bits) {
            return Err(Fault::Damaged("its cluster size makes no sense"));
        }
        let covered = disk.l1_entries << (2 * disk.cluster_bits - 3);
        if disk.size > MAX_SIZE || disk.size > covered {
            return Err(Fault::Damaged("its size makes no sense"));
        }
        Ok(disk)
    }

    fn entry(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn read_compressed(&self, entry: u64, buffer: &mut [u8], within: usize) -> io::Result<()> {
        let split = 62 - (self.cluster_bits - 8);
        let at = entry & ((1 << split) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> split;
        // At most 2^(21 - 8) sectors.
        let len = ((sectors + 1) * 512 - (at & 511)) as usize;
        let end = self.file.metadata()?.len();
        let len = len.min(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX));
        let mut packed = vec![0; len];
        self.file.read_exact_at(&mut packed, at)?;
        let cluster = 1 << self.cluster_bits;
        let plain = if self.zstd {
            // The last sector holds more than the frame.
            inflate(zstd::Decoder::new(&packed[..])?.single_frame(), cluster)?
        } else {
            inflate(flate2::read::DeflateDecoder::new(&packed[..]), cluster)?
        };
        let part = plain.get(within..within + buffer.len());
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::InvalidData)?);
        Ok(())
    }
}

impl ReadAt for Qcow2 {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        // Entries of a table, which fills a cluster.
        let entries = 1 << (self.cluster_bits - 3);
        by_blocks(self.size, 1 << self.cluster_bits, buffer, offset, |index, inside, part| {
            let (high, low) = (index / entries, index % entries);
            let l2 = self.entry(self.l1_at.saturating_add(high * 8))? & OFFSET;
            if l2 == 0 {
                part.fill(0);
                return Ok(());
            }
            let entry = self.entry(l2 + low * 8)?;
            if entry & COMPRESSED != 0 {
                // Below a cluster.
                self.read_compressed(entry, part, inside as usize)?;
            } else if entry & ZERO != 0 || entry & OFFSET == 0 {
                part.fill(0);
            } else {
                self.file.read_exact_at(part, (entry & OFFSET) + inside)?;
            }
            Ok(())
        })
    }
}

impl Medium for Qcow2 {
    fn size(&self) -> u64 {
        self.size
    }
}
