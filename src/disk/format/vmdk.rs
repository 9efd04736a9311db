//! VMware's stream-optimised format (Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse
//! Extents"): what clouds and VMware import, and what an OVA holds.
//!
//! Read: this, and sparse extents without compression.

use std::fs::File;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::{Fault, Sink, identity, inflate, le32, le64};
use crate::disk::SECTOR;
use crate::disk::medium::{Medium, by_blocks, for_each_block, is_zero};
use crate::erofs::ReadAt;

/// First bytes of a file.
pub const MAGIC: &[u8; 4] = b"KDMV";
const GRAIN_SECTORS: u64 = 128;
const GRAIN: u64 = GRAIN_SECTORS * SECTOR;
const TABLE_ENTRIES: u64 = 512;
const DESCRIPTOR_SECTORS: u64 = 20;
/// "The grain directory is named by the footer."
const AT_END: u64 = u64::MAX;
/// Newlines are as they should be, grains are compressed, markers precede everything.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
const COMPRESSED: u32 = 1 << 16;
const MAX_SECTORS: u64 = 1 << 37;

#[derive(Clone, Copy)]
enum Marker {
    End = 0,
    Table = 1,
    Directory = 2,
    Footer = 3,
}

/// Writes a disk.
pub fn write(disk: &dyn Medium, out: &File) -> io::Result<u64> {
    let sectors = disk.size().div_ceil(SECTOR);
    let mut out = Sink::new(out);
    out.write_all(&header(sectors, AT_END))?;
    out.write_all(descriptor(sectors, &identity(disk)?).as_bytes())?;
    out.pad_to(GRAIN)?;

    let mut directory = Vec::new();
    let mut table = Vec::new();
    let mut flush = |table: &mut Vec<u32>, out: &mut Sink<'_>| -> io::Result<()> {
        let empty = table.iter().all(|entry| *entry == 0);
        table.resize(TABLE_ENTRIES as usize, 0);
        directory.push(if empty {
            0
        } else {
            marker(out, Marker::Table, TABLE_ENTRIES * 4 / SECTOR)?;
            let at = out.sectors()?;
            for entry in &*table {
                out.write_all(&entry.to_le_bytes())?;
            }
            at
        });
        table.clear();
        Ok(())
    };
    for_each_block(disk, GRAIN as usize, |index, bytes| {
        if is_zero(bytes) {
            table.push(0);
        } else {
            table.push(out.sectors()?);
            let mut whole = bytes.to_vec();
            whole.resize(GRAIN as usize, 0);
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
            encoder.write_all(&whole)?;
            let packed = encoder.finish()?;
            out.write_all(&(index * GRAIN_SECTORS).to_le_bytes())?;
            // A grain does not grow by more than a few bytes.
            out.write_all(&(packed.len() as u32).to_le_bytes())?;
            out.write_all(&packed)?;
            out.pad(SECTOR)?;
        }
        if table.len() as u64 == TABLE_ENTRIES {
            flush(&mut table, &mut out)?;
        }
        Ok(())
    })?;
    if !table.is_empty() {
        flush(&mut table, &mut out)?;
    }
    marker(&mut out, Marker::Directory, (directory.len() as u64 * 4).div_ceil(SECTOR))?;
    let at = u64::from(out.sectors()?);
    for entry in &directory {
        out.write_all(&entry.to_le_bytes())?;
    }
    out.pad(SECTOR)?;
    marker(&mut out, Marker::Footer, 1)?;
    out.write_all(&header(sectors, at))?;
    marker(&mut out, Marker::End, 0)?;
    out.finish()
}

fn header(sectors: u64, directory: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(512);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&3u32.to_le_bytes());
    header.extend_from_slice(&FLAGS.to_le_bytes());
    for value in [sectors.next_multiple_of(GRAIN_SECTORS), GRAIN_SECTORS, 1, DESCRIPTOR_SECTORS] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    header.extend_from_slice(&(TABLE_ENTRIES as u32).to_le_bytes());
    for value in [0, directory, GRAIN_SECTORS] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    header.extend_from_slice(b"\0\n \r\n");
    header.extend_from_slice(&1u16.to_le_bytes()); // deflate
    header.resize(512, 0);
    header
}

fn descriptor(sectors: u64, id: &[u8; 16]) -> String {
    let cid = le32(id, 0);
    let long: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let sectors = sectors.next_multiple_of(GRAIN_SECTORS);
    // Never all ones, which says "no parent".
    let cid = if cid == u32::MAX { 1 } else { cid };
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID=ffffffff\n\
         createType=\"streamOptimized\"\n\n# Extent description\n\
         RDONLY {sectors} SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
         ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"{}\"\n\
         ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\n\
         ddb.longContentID = \"{long}\"\nddb.virtualHWVersion = \"10\"\n",
        sectors.div_ceil(255 * 63)
    )
}

fn marker(out: &mut Sink<'_>, kind: Marker, sectors: u64) -> io::Result<()> {
    out.write_all(&sectors.to_le_bytes())?;
    out.write_all(&0u32.to_le_bytes())?;
    out.write_all(&(kind as u32).to_le_bytes())?;
    out.write_all(&[0; 512 - 16])
}

/// A disk in a file of this format.
pub struct Vmdk {
    file: File,
    /// Where the file starts in a larger one, such as an OVA.
    start: u64,
    size: u64,
    grain: u64,
    entries: u64,
    directory: u64,
    compressed: bool,
}

impl Vmdk {
    /// Opens the `len` bytes from `start` of a file and checks the header.
    pub fn open(file: File, start: u64, len: u64) -> Result<Vmdk, Fault> {
        let mut header = [0; 512];
        file.read_exact_at(&mut header, start)?;
        if le64(&header, 56) == AT_END {
            let at = len.checked_sub(1024).ok_or(Fault::Damaged("it has no footer"))?;
            file.read_exact_at(&mut header, start.saturating_add(at))?;
        }
        if !header.starts_with(MAGIC) {
            return Err(Fault::Damaged("its footer is missing"));
        }
        let sectors = le64(&header, 12);
        let (grain, entries) = (le64(&header, 20), u64::from(le32(&header, 44)));
        let sound = grain.is_power_of_two()
            && (8..=2048).contains(&grain)
            && (1..=1 << 16).contains(&entries)
            && sectors <= MAX_SECTORS;
        if !sound {
            return Err(Fault::Damaged("its header makes no sense"));
        }
        let compressed = le32(&header, 8) & COMPRESSED != 0;
        if compressed && u16::from_le_bytes([header[77], header[78]]) != 1 {
            return Err(Fault::Unsupported("a compression other than deflate"));
        }
        let directory = le64(&header, 56).checked_mul(SECTOR);
        let directory = directory.ok_or(Fault::Damaged("its grain directory is out of reach"))?;
        let (size, grain) = (sectors * SECTOR, grain * SECTOR);
        Ok(Vmdk { file, start, size, grain, entries, directory, compressed })
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let at = self.start.checked_add(at).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.file.read_exact_at(buffer, at)
    }

    fn entry(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 4];
        self.read(&mut bytes, at)?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    }

    fn read_grain(&self, at: u64, within: usize, buffer: &mut [u8]) -> io::Result<()> {
        if !self.compressed {
            return self.read(buffer, at + within as u64);
        }
        let mut marker = [0; 12];
        self.read(&mut marker, at)?;
        let len = u64::from(le32(&marker, 8));
        if len > 2 * self.grain {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // Below 4 MiB, as just checked.
        let mut packed = vec![0; len as usize];
        self.read(&mut packed, at + 12)?;
        let plain = inflate(flate2::read::ZlibDecoder::new(&packed[..]), self.grain as usize)?;
        let part = plain.get(within..within + buffer.len());
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::InvalidData)?);
        Ok(())
    }
}

impl ReadAt for Vmdk {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        by_blocks(self.size, self.grain, buffer, offset, |index, inside, part| {
            let table = self.entry(self.directory.saturating_add(index / self.entries * 4))?;
            let grain = match table {
                0 => 0,
                table => self.entry(table * SECTOR + index % self.entries * 4)?,
            };
            // 0: not there; 1: known to be zero.
            if grain <= 1 {
                part.fill(0);
            } else {
                // Below a grain.
                self.read_grain(grain * SECTOR, inside as usize, part)?;
            }
            Ok(())
        })
    }
}

impl Medium for Vmdk {
    fn size(&self) -> u64 {
        self.size
    }
}
