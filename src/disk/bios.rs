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
//! 36   u32  end of the memory that is used
//! 48   8 x { u64 first sector, u32 address, u32 bytes in the file, u32 in memory, u32 zero }
//! ```

use elf::abi::PT_LOAD;
use elf::{ElfBytes, endian::LittleEndian};

use super::{Error, SECTOR};

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

/// The second stage that loads the kernel, whose file starts at `kernel_lba`, and a record of
/// `record_len` bytes.
pub fn stage2(
    code: &[u8],
    kernel: &[u8],
    kernel_lba: u64,
    record_lba: u64,
    record_len: usize,
) -> Result<Vec<u8>, Error> {
    let mut out = code.to_vec();
    if out.get(8..12) != Some(MAGIC) || out.len() < SEGMENTS + MAX_SEGMENTS * SEGMENT {
        return Err(Error::Kernel("its boot code is malformed"));
    }
    let record_len = u32::try_from(record_len)
        .ok()
        .filter(|len| *len <= RECORD_END - RECORD_AT)
        .ok_or(Error::RecordTooLarge(record_len))?;
    let (entry, segments) = segments(kernel)?;
    let end = segments.iter().map(|s| s.address + s.memory).max().unwrap_or(RECORD_END);

    put(&mut out, 12, &entry.to_le_bytes());
    put(&mut out, 16, &record_lba.to_le_bytes());
    put(&mut out, 24, &record_len.to_le_bytes());
    put(&mut out, 28, &RECORD_AT.to_le_bytes());
    put(&mut out, 32, &(segments.len() as u32).to_le_bytes());
    put(&mut out, 36, &end.to_le_bytes());
    for (index, segment) in segments.iter().enumerate() {
        let at = SEGMENTS + index * SEGMENT;
        let lba = kernel_lba + segment.offset / SECTOR;
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
