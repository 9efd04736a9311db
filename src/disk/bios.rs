//! What the BIOS boot code must know: where on the disk to find what, and where in memory to put
//! it. The converter works it out, so that the code in kernel/bios has little to do.
//!
//! The MBR ends with a disk address packet (int 13h, function 42h) that names the second stage.
//! The second stage starts with a table, see `kernel/bios/src/main.rs`:
//!
//! ```text
//! 8    u32  magic "D2UP"
//! 12   u32  physical address of the kernel's 32-bit entry
//! 16   u64  first sector of the record          24  u32  its length in bytes
//! 28   u32  where it goes                       32  u32  number of segments
//! 36   u32  end of the memory that is used      40  u32  its start
//! 44   u8   log2 of the drive's sectors' size over 512
//! 48   8 x { u64 first sector, u32 address, u32 bytes in the file, u32 in memory, u32 zero }
//! ```

use elf::abi::PT_LOAD;
use elf::{ElfBytes, endian::LittleEndian};

use super::{Error, Extent, SECTOR};

/// Where the disk address packet is in the MBR: the last bytes that are not the partition table's.
const PACKET: usize = 424;
/// The BIOS puts the second stage at 32 KiB and its buffer at 64 KiB.
const MAX_STAGE2: usize = 32 << 10;
const MAGIC: &[u8; 4] = b"D2UP";
const SEGMENTS: usize = 48;
const SEGMENT: usize = 24;
const MAX_SEGMENTS: usize = 8;
/// The record goes between the first MiB, which is the BIOS's, and the kernel at 2 MiB.
const RECORD_AT: u32 = 1 << 20;
const RECORD_END: u32 = 2 << 20;
/// A root in memory starts at a page.
const PAGE: u32 = 4096;
/// The boot code reads below 4 GiB, and firmware has the last one.
const MEMORY_END: u64 = 3 << 30;

/// Sectors of disks have 512 bytes, those of CDs 2,048.
pub const DISK_SHIFT: u8 = 0;
/// See [`DISK_SHIFT`].
pub const CD_SHIFT: u8 = 2;

/// Where on the disk the second stage finds what it loads.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// First byte of the kernel's file.
    pub kernel_at: u64,
    /// The record, and before it perhaps the root.
    pub module: Extent,
    /// Whether the root is in the module.
    pub with_root: bool,
}

/// Boot code of the MBR that loads `stage2_len` bytes from `stage2_lba`.
pub fn mbr(code: &[u8], stage2_lba: u64, stage2_len: usize) -> Result<[u8; 440], Error> {
    let wrong = || Error::Kernel("its boot code is malformed");
    let mut out: [u8; 440] = code.try_into().map_err(|_| wrong())?;
    if stage2_len > MAX_STAGE2 {
        return Err(wrong());
    }
    // At most 64 sectors, as just checked.
    let sectors = (stage2_len as u64).div_ceil(SECTOR) as u16;
    out[PACKET + 2..PACKET + 4].copy_from_slice(&sectors.to_le_bytes());
    out[PACKET + 8..PACKET + 16].copy_from_slice(&stage2_lba.to_le_bytes());
    Ok(out)
}

/// The second stage that loads the kernel and its module, from a drive whose sectors have
/// `SECTOR << shift` bytes.
pub fn stage2(code: &[u8], kernel: &[u8], place: Place, shift: u8) -> Result<Vec<u8>, Error> {
    let mut out = code.to_vec();
    if out.get(8..12) != Some(MAGIC) || out.len() < SEGMENTS + MAX_SEGMENTS * SEGMENT {
        return Err(Error::Kernel("its boot code is malformed"));
    }
    let (entry, segments) = segments(kernel)?;
    let kernel_end = segments.iter().map(|s| s.address + s.memory).max().unwrap_or(RECORD_END);
    let (start, module_at) = if place.with_root {
        (RECORD_END, kernel_end.next_multiple_of(PAGE))
    } else {
        (RECORD_AT, RECORD_AT)
    };
    let limit = if place.with_root { MEMORY_END } else { RECORD_END.into() };
    let module_end = u64::from(module_at) + place.module.len;
    if module_end > limit {
        return Err(if place.with_root {
            Error::RootTooLarge(place.module.len)
        } else {
            Error::RecordTooLarge(usize::try_from(place.module.len).unwrap_or(usize::MAX))
        });
    }
    // Both are below 4 GiB, as just checked.
    let (module_len, end) = (place.module.len as u32, (module_end as u32).max(kernel_end));

    put(&mut out, 12, &entry.to_le_bytes());
    put(&mut out, 16, &(place.module.start / SECTOR).to_le_bytes());
    put(&mut out, 24, &module_len.to_le_bytes());
    put(&mut out, 28, &module_at.to_le_bytes());
    put(&mut out, 32, &(segments.len() as u32).to_le_bytes());
    put(&mut out, 36, &end.to_le_bytes());
    put(&mut out, 40, &start.to_le_bytes());
    put(&mut out, 44, &[shift]);
    for (index, segment) in segments.iter().enumerate() {
        let at = SEGMENTS + index * SEGMENT;
        let lba = (place.kernel_at + segment.offset) / SECTOR;
        put(&mut out, at, &lba.to_le_bytes());
        put(&mut out, at + 8, &segment.address.to_le_bytes());
        put(&mut out, at + 12, &segment.file.to_le_bytes());
        put(&mut out, at + 16, &segment.memory.to_le_bytes());
    }
    Ok(out)
}

struct Segment {
    offset: u64,
    address: u32,
    file: u32,
    memory: u32,
}

fn segments(kernel: &[u8]) -> Result<(u32, Vec<Segment>), Error> {
    let malformed = |_| Error::Kernel("it is no ELF file");
    let file = ElfBytes::<LittleEndian>::minimal_parse(kernel).map_err(malformed)?;
    let entry = u32::try_from(file.ehdr.e_entry)
        .map_err(|_| Error::Kernel("its entry is not in low memory"))?;
    let headers = file.segments().ok_or(Error::Kernel("it has nothing to load"))?;
    let mut segments = Vec::new();
    for header in headers.iter().filter(|header| header.p_type == PT_LOAD) {
        let small = |value: u64| u32::try_from(value).ok().filter(|value| *value < 1 << 30);
        let (Some(address), Some(length), Some(memory)) =
            (small(header.p_paddr), small(header.p_filesz), small(header.p_memsz))
        else {
            return Err(Error::Kernel("a segment is not in the first GiB"));
        };
        if header.p_offset % SECTOR != 0 {
            return Err(Error::Kernel("a segment does not start at a sector"));
        }
        if address < RECORD_END || memory < length {
            return Err(Error::Kernel("a segment does not lie above 2 MiB"));
        }
        segments.push(Segment { offset: header.p_offset, address, file: length, memory });
    }
    if segments.is_empty() || segments.len() > MAX_SEGMENTS {
        return Err(Error::Kernel("it has no segments, or more than eight"));
    }
    Ok((entry, segments))
}

/// The place is within the table, whose length the caller has checked.
fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}
