//! What makes a disk a bootable CD as well: an ISO 9660 volume with nothing in it (ECMA-119), and a
//! boot catalogue with an entry for BIOS and one for UEFI (El Torito 1.0, UEFI 2.10, 13.3.2.1).
//!
//! CDs have sectors of 2 KiB and leave the first sixteen to whoever wants them, which is where the
//! partition table and the disk's boot code are. So the same bytes boot from a CD drive and from a
//! stick.

use super::{Error, Extent};

/// Bytes of a CD's sector.
const SECTOR: u64 = 2048;
/// Where the volume descriptors start.
pub(super) const START: u64 = 16 * SECTOR;
/// Where the area ends: all of the below, and the boot code for BIOS.
pub(super) const END: u64 = 32 * SECTOR;

const PATH_TABLES: u32 = 19;
const ROOT: u32 = 21;
const CATALOGUE: u32 = 22;
const BOOT: u32 = 23;
/// The BIOS loads a CD's boot code to 0x7c00, and the second stage belongs at 0x8000.
const PREFIX: usize = 0x400;
/// Enters the second stage with segments, stack and drive number as the MBR would:
/// `cli; xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax; mov sp, 0x7c00; sti; cld; jmp 0:0x8000`.
const ENTER: [u8; 19] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb, 0xfc, 0xea, 0x00,
    0x80, 0x00, 0x00,
];

/// The area from [`START`] on, for a disk of `size` bytes whose EFI system partition is `esp`.
pub(super) fn build(size: u64, stage2: &[u8], esp: Extent) -> Result<Vec<u8>, Error> {
    let too_large = || Error::Kernel("the image is too large for a CD");
    let blocks = u32::try_from(size / SECTOR).map_err(|_| too_large())?;
    let esp_at = u32::try_from(esp.start / SECTOR).map_err(|_| too_large())?;
    let mut boot = ENTER.to_vec();
    boot.resize(PREFIX, 0);
    boot.extend_from_slice(stage2);
    if u64::from(BOOT) * SECTOR + boot.len() as u64 > END {
        return Err(Error::Kernel("its boot code is too long"));
    }
    let mut area = vec![0; (u64::from(BOOT) * SECTOR - START) as usize];
    let mut put = |sector: u32, bytes: &[u8]| {
        let at = ((u64::from(sector)) * SECTOR - START) as usize;
        area[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(16, &primary(blocks));
    let mut record = b"\0CD001\x01EL TORITO SPECIFICATION".to_vec();
    record.resize(71, 0);
    record.extend_from_slice(&CATALOGUE.to_le_bytes());
    put(17, &record);
    put(18, b"\xffCD001\x01");
    // One directory, the root, which is its own parent.
    put(PATH_TABLES, &[&[1, 0][..], &ROOT.to_le_bytes(), &[1, 0, 0, 0]].concat());
    put(PATH_TABLES + 1, &[&[1, 0][..], &ROOT.to_be_bytes(), &[0, 1, 0, 0]].concat());
    put(ROOT, &[directory(0), directory(1)].concat());
    let sectors = |len: u64| u16::try_from(len.div_ceil(512)).unwrap_or(0).to_le_bytes();
    put(CATALOGUE, &catalogue(sectors(boot.len() as u64), sectors(esp.len), esp_at));
    area.extend_from_slice(&boot);
    area.resize((END - START) as usize, 0);
    Ok(area)
}

/// Entries of 32 bytes: validation, BIOS, a header, UEFI.
fn catalogue(bios: [u8; 2], efi: [u8; 2], efi_at: u32) -> Vec<u8> {
    const BOOTABLE: u8 = 0x88;
    let mut entries = vec![1, 0, 0, 0];
    entries.extend_from_slice(b"dock2uni");
    entries.resize(30, 0);
    entries.extend_from_slice(&[0x55, 0xaa]);
    // All sixteen-bit words add up to zero.
    let words = entries.chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    let sum = words.fold(0u16, u16::wrapping_add).wrapping_neg();
    entries[28..30].copy_from_slice(&sum.to_le_bytes());
    let entry = |sectors: [u8; 2], at: u32| {
        let mut entry = vec![BOOTABLE, 0, 0, 0, 0, 0];
        entry.extend_from_slice(&sectors);
        entry.extend_from_slice(&at.to_le_bytes());
        entry.resize(32, 0);
        entry
    };
    entries.extend(entry(bios, BOOT));
    // The last header, for UEFI, with one entry.
    entries.extend_from_slice(&[0x91, 0xef, 1, 0]);
    entries.resize(96, 0);
    entries.extend(entry(efi, efi_at));
    entries
}

/// A number in both byte orders.
fn both32(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn both16(value: u16) -> [u8; 4] {
    let mut bytes = [0; 4];
    bytes[..2].copy_from_slice(&value.to_le_bytes());
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// A record of the root directory: itself (0) or its parent (1).
fn directory(name: u8) -> Vec<u8> {
    let mut record = vec![34, 0];
    record.extend_from_slice(&both32(ROOT));
    record.extend_from_slice(&both32(SECTOR as u32));
    record.extend_from_slice(&[70, 1, 1, 0, 0, 0, 0]); // 1 January 1970
    record.extend_from_slice(&[2, 0, 0]); // a directory
    record.extend_from_slice(&both16(1));
    record.extend_from_slice(&[1, name]);
    record
}

/// The primary volume descriptor.
fn primary(blocks: u32) -> Vec<u8> {
    let text = |text: &str, len: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(len, b' ');
        bytes
    };
    let mut out = b"\x01CD001\x01\0".to_vec();
    out.extend(text("", 32));
    out.extend(text("DOCK2UNI", 32));
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&both32(blocks));
    out.extend_from_slice(&[0; 32]);
    out.extend_from_slice(&both16(1));
    out.extend_from_slice(&both16(1));
    out.extend_from_slice(&both16(SECTOR as u16));
    out.extend_from_slice(&both32(10)); // bytes of a path table
    out.extend_from_slice(&PATH_TABLES.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(PATH_TABLES + 1).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend(directory(0));
    for len in [128, 128, 128, 128, 37, 37, 37] {
        out.extend(text(if len == 37 { "" } else { "DOCK2UNI" }, len));
    }
    for _ in 0..4 {
        // No time at all, as the standard writes it.
        out.extend_from_slice(b"0000000000000000\0");
    }
    out.extend_from_slice(&[1, 0]);
    out
}
