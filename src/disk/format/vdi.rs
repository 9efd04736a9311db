//! VirtualBox's format: a header, a table with an entry for each MiB, and the MiBs that hold
//! something (VirtualBox's `VDICore.h`, QEMU's `block/vdi.c`).

use std::fs::File;
use std::io::{self, Write};

use super::{Fault, Sink, identity, le32, le64};
use crate::disk::SECTOR;
use crate::disk::medium::{Medium, by_blocks, for_each_block, is_zero, used_blocks};
use crate::erofs::ReadAt;

/// At byte 64, after some text.
pub const MAGIC: u32 = 0xbeda_107f;
/// Where the magic number is.
pub const MAGIC_AT: u64 = 64;
const TEXT: &[u8] = b"<<< Oracle VM VirtualBox Disk Image >>>\n";
const BLOCK: u64 = 1 << 20;
const TABLE_AT: u64 = 512;
/// No entry: the block was never written. The next lower number says "zero".
const UNUSED: u32 = u32::MAX;
const MAX_SIZE: u64 = 1 << 46;

/// Writes a disk.
pub fn write(disk: &dyn Medium, out: &File) -> io::Result<u64> {
    let used = used_blocks(disk, BLOCK as usize)?;
    let data = (TABLE_AT + used.len() as u64 * 4).next_multiple_of(BLOCK);
    let allocated = used.iter().filter(|used| **used).count();
    let mut header = TEXT.to_vec();
    header.resize(64, 0);
    let mut word = |value: u32| header.extend_from_slice(&value.to_le_bytes());
    word(MAGIC);
    word(0x0001_0001);
    word(400); // what follows from here on
    word(1); // dynamic
    word(0);
    header.resize(header.len() + 256, 0); // no comment
    let mut word = |value: u32| header.extend_from_slice(&value.to_le_bytes());
    word(TABLE_AT as u32);
    // The table of a disk of 64 TiB ends below 4 GiB.
    word(data as u32);
    for _ in 0..3 {
        word(0); // no geometry
    }
    word(SECTOR as u32);
    word(0);
    header.extend_from_slice(&disk.size().to_le_bytes());
    let mut word = |value: u32| header.extend_from_slice(&value.to_le_bytes());
    word(BLOCK as u32);
    word(0);
    word(used.len() as u32);
    word(allocated as u32);
    header.extend_from_slice(&identity(disk)?);

    let mut out = Sink::new(out);
    out.write_all(&header)?;
    out.pad_to(TABLE_AT)?;
    let mut next = 0u32;
    for used in &used {
        out.write_all(&if *used { next } else { UNUSED }.to_le_bytes())?;
        next += u32::from(*used);
    }
    out.pad_to(data)?;
    for_each_block(disk, BLOCK as usize, |_, bytes| {
        if !is_zero(bytes) {
            out.write_all(bytes)?;
            out.pad(BLOCK)?;
        }
        Ok(())
    })?;
    out.finish()
}

/// A disk in a file of this format.
pub struct Vdi {
    file: File,
    size: u64,
    block: u64,
    table: u64,
    data: u64,
}

impl Vdi {
    /// Opens a file and checks its header.
    pub fn open(file: File) -> Result<Vdi, Fault> {
        let mut header = [0; 512];
        file.read_exact_at(&mut header, 0)?;
        if le32(&header, 68) >> 16 != 1 {
            return Err(Fault::Unsupported("a version other than 1"));
        }
        // 1: dynamic, 2: fixed; what refers to a parent has other numbers.
        if !(1..=2).contains(&le32(&header, 76)) {
            return Err(Fault::Unsupported("a parent disk"));
        }
        let (block, extra) = (u64::from(le32(&header, 376)), le32(&header, 380));
        let size = le64(&header, 368);
        let blocks = u64::from(le32(&header, 384));
        let sound = block.is_power_of_two() && (4096..=1 << 28).contains(&block);
        if !sound || extra != 0 || size > MAX_SIZE || blocks * block < size {
            return Err(Fault::Damaged("its header makes no sense"));
        }
        let (table, data) = (le32(&header, 340).into(), le32(&header, 344).into());
        Ok(Vdi { file, size, block, table, data })
    }
}

impl ReadAt for Vdi {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        by_blocks(self.size, self.block, buffer, offset, |index, inside, part| {
            let mut entry = [0; 4];
            self.file.read_exact_at(&mut entry, self.table + index * 4)?;
            match u32::from_le_bytes(entry) {
                UNUSED | 0xffff_fffe => part.fill(0),
                number => {
                    let start = self.data + u64::from(number) * self.block;
                    self.file.read_exact_at(part, start + inside)?;
                }
            }
            Ok(())
        })
    }
}

impl Medium for Vdi {
    fn size(&self) -> u64 {
        self.size
    }
}
