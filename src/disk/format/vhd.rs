//! Microsoft's first format, as Azure takes it ("Virtual Hard Disk Image Format Specification",
//! 2006): a raw disk with a footer, or blocks of 2 MiB with a table.

use std::fs::File;
use std::io::{self, Write};

use super::{Fault, Sink, be32, be64, identity};
use crate::disk::SECTOR;
use crate::disk::medium::{Medium, by_blocks, for_each_block, is_zero, used_blocks, within};
use crate::erofs::ReadAt;

/// First bytes of a footer.
pub const MAGIC: &[u8; 8] = b"conectix";
const HEADER_MAGIC: &[u8; 8] = b"cxsparse";
const FOOTER: u64 = 512;
const BLOCK: u64 = 2 << 20;
/// Bitmap before each block: a bit for every sector.
const BITMAP: u64 = BLOCK / SECTOR / 8;
const TABLE_AT: u64 = FOOTER + 1024;
const UNUSED: u32 = u32::MAX;
/// 2,040 GiB, the format's own limit.
const MAX_SIZE: u64 = 2040 << 30;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed = 2,
    Dynamic = 3,
}

/// Writes a raw disk with a footer.
pub fn write_fixed(disk: &dyn Medium, out: &File) -> io::Result<u64> {
    super::write_sparse(disk, out)?;
    std::os::unix::fs::FileExt::write_all_at(out, &footer(disk, Kind::Fixed)?, disk.size())?;
    Ok(disk.size() + FOOTER)
}

/// Writes the blocks that hold something.
pub fn write_dynamic(disk: &dyn Medium, out: &File) -> io::Result<u64> {
    let used = used_blocks(disk, BLOCK as usize)?;
    let footer = footer(disk, Kind::Dynamic)?;
    let mut out = Sink::new(out);
    out.write_all(&footer)?;

    let mut header = Vec::with_capacity(1024);
    header.extend_from_slice(HEADER_MAGIC);
    header.extend_from_slice(&u64::MAX.to_be_bytes());
    header.extend_from_slice(&TABLE_AT.to_be_bytes());
    header.extend_from_slice(&0x0001_0000u32.to_be_bytes());
    // Bounded by the format's largest disk, which the footer has checked.
    header.extend_from_slice(&(used.len() as u32).to_be_bytes());
    header.extend_from_slice(&(BLOCK as u32).to_be_bytes());
    header.resize(1024, 0);
    let sum = checksum(&header);
    header[36..40].copy_from_slice(&sum.to_be_bytes());
    out.write_all(&header)?;

    let data = (TABLE_AT + used.len() as u64 * 4).next_multiple_of(SECTOR);
    let mut next = data / SECTOR;
    for used in &used {
        // Sector numbers of a disk of at most 2 TiB.
        let entry = if *used { next as u32 } else { UNUSED };
        next += if *used { (BITMAP + BLOCK) / SECTOR } else { 0 };
        out.write_all(&entry.to_be_bytes())?;
    }
    // The rest of the table's last sector is unused entries.
    while out.position() < data {
        out.write_all(&UNUSED.to_be_bytes())?;
    }
    for_each_block(disk, BLOCK as usize, |_, bytes| {
        if !is_zero(bytes) {
            out.write_all(&[0xff; BITMAP as usize])?;
            let end = out.position() + BLOCK;
            out.write_all(bytes)?;
            out.pad_to(end)?;
        }
        Ok(())
    })?;
    out.write_all(&footer)?;
    out.finish()
}

fn footer(disk: &dyn Medium, kind: Kind) -> io::Result<Vec<u8>> {
    let size = disk.size();
    if size > MAX_SIZE {
        return Err(io::Error::other("the disk is larger than the format's 2,040 GiB"));
    }
    let mut footer = Vec::with_capacity(512);
    footer.extend_from_slice(MAGIC);
    footer.extend_from_slice(&2u32.to_be_bytes()); // always set
    footer.extend_from_slice(&0x0001_0000u32.to_be_bytes());
    let next = if kind == Kind::Dynamic { FOOTER } else { u64::MAX };
    footer.extend_from_slice(&next.to_be_bytes());
    footer.extend_from_slice(&0u32.to_be_bytes()); // time: always the same
    // Readers take the size to the byte only from creators they know, and geometry from others.
    footer.extend_from_slice(b"win \x00\x06\x00\x01Wi2k");
    footer.extend_from_slice(&size.to_be_bytes());
    footer.extend_from_slice(&size.to_be_bytes());
    footer.extend_from_slice(&geometry(size / SECTOR));
    footer.extend_from_slice(&(kind as u32).to_be_bytes());
    footer.extend_from_slice(&[0; 4]);
    footer.extend_from_slice(&identity(disk)?);
    footer.resize(512, 0);
    let sum = checksum(&footer);
    footer[64..68].copy_from_slice(&sum.to_be_bytes());
    Ok(footer)
}

/// Cylinders, heads and sectors, as the specification's appendix computes them.
fn geometry(sectors: u64) -> [u8; 4] {
    let sectors = sectors.min(65535 * 16 * 255);
    let (per_track, heads, cylinder_heads);
    if sectors >= 65535 * 16 * 63 {
        (per_track, heads, cylinder_heads) = (255, 16, sectors / 255);
    } else {
        let (mut track, mut rest) = (17, sectors / 17);
        let mut head = rest.div_ceil(1024).max(4);
        if rest >= head * 1024 || head > 16 {
            (track, head, rest) = (31, 16, sectors / 31);
        }
        if rest >= head * 1024 {
            (track, head, rest) = (63, 16, sectors / 63);
        }
        (per_track, heads, cylinder_heads) = (track, head, rest);
    }
    // All within their fields after the bound at the top.
    let [high, low] = ((cylinder_heads / heads) as u16).to_be_bytes();
    [high, low, heads as u8, per_track as u8]
}

/// The ones' complement of the sum of all bytes, the checksum's own place being zero.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)))
}

fn check(bytes: &[u8], at: usize) -> Result<(), Fault> {
    let mut copy = bytes.to_vec();
    copy[at..at + 4].fill(0);
    if checksum(&copy) != be32(bytes, at) {
        return Err(Fault::Damaged("a checksum is wrong"));
    }
    Ok(())
}

/// A disk in a file of this format.
pub struct Vhd {
    file: File,
    size: u64,
    /// Of a dynamic disk: block size, and entries of the table.
    blocks: Option<(u64, u64, u64)>,
}

impl Vhd {
    /// Opens a file of `len` bytes and checks its footer.
    pub fn open(file: File, len: u64) -> Result<Vhd, Fault> {
        let mut footer = [0; 512];
        let at = len.checked_sub(FOOTER).ok_or(Fault::Damaged("it has no footer"))?;
        file.read_exact_at(&mut footer, at)?;
        if !footer.starts_with(MAGIC) {
            return Err(Fault::Damaged("its footer is missing"));
        }
        check(&footer, 64)?;
        let size = be64(&footer, 48);
        if size > MAX_SIZE {
            return Err(Fault::Damaged("its size makes no sense"));
        }
        match be32(&footer, 60) {
            2 => Ok(Vhd { file, size, blocks: None }),
            3 => {
                let mut header = [0; 1024];
                file.read_exact_at(&mut header, be64(&footer, 16))?;
                if !header.starts_with(HEADER_MAGIC) {
                    return Err(Fault::Damaged("its second header is missing"));
                }
                check(&header, 36)?;
                let (table, entries) = (be64(&header, 16), u64::from(be32(&header, 28)));
                let block = u64::from(be32(&header, 32));
                let sound = block.is_power_of_two() && (1 << 12..=1 << 28).contains(&block);
                if !sound || entries * block < size {
                    return Err(Fault::Damaged("its table makes no sense"));
                }
                Ok(Vhd { file, size, blocks: Some((block, table, entries)) })
            }
            _ => Err(Fault::Unsupported("a parent disk")),
        }
    }
}

impl ReadAt for Vhd {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let Some((block, table, _)) = self.blocks else {
            within(self.size, offset, buffer.len())?;
            return self.file.read_exact_at(buffer, offset);
        };
        let bitmap = (block / SECTOR / 8).next_multiple_of(SECTOR);
        by_blocks(self.size, block, buffer, offset, |index, inside, part| {
            let mut entry = [0; 4];
            self.file.read_exact_at(&mut entry, table.saturating_add(index * 4))?;
            match u32::from_be_bytes(entry) {
                UNUSED => part.fill(0),
                sector => {
                    let start = u64::from(sector) * SECTOR + bitmap;
                    self.file.read_exact_at(part, start + inside)?;
                }
            }
            Ok(())
        })
    }
}

impl Medium for Vhd {
    fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_those_of_the_specification() {
        // Sizes and results as `qemu-img create -f vpc` has them.
        for (sectors, expected) in [
            (2108, [0, 31, 4, 17]),
            (131_104, [3, 196, 8, 17]),
            (2_097_648, [8, 33, 16, 63]),
            (u64::MAX, [255, 255, 16, 255]),
        ] {
            assert_eq!(geometry(sectors), expected, "{sectors}");
        }
    }
}
