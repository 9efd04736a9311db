//! The EFI system partition: a FAT16 volume with one file, `\EFI\BOOT\BOOTX64.EFI`.
//!
//! Written here rather than by the `fatfs` crate: the BIOS stage reads the kernel out of the same
//! file, so its clusters must lie together and their place be known, and a volume that is never
//! changed again needs none of a filesystem's bookkeeping. FAT16 because UEFI reads it everywhere
//! and FAT32 begins at 33 MiB. Source: Microsoft's "FAT32 File System Specification", 1.03.

use uuid::Uuid;

use super::{Error, SECTOR};

const RESERVED: u32 = 1;
const FATS: u32 = 2;
const ROOT_ENTRIES: u32 = 512;
/// Fewer clusters would make it FAT12, more FAT32.
const MIN_CLUSTERS: u32 = 4_096;
const MAX_CLUSTERS: u32 = 65_524;
const DIRECTORY: u8 = 0x10;
const LABEL: u8 = 0x08;
const NAME: &[u8; 11] = b"DOCK2UNI   ";
const END: u16 = 0xffff;

/// A volume and where its file's bytes are in it.
#[derive(Debug)]
pub(super) struct Volume {
    pub bytes: Vec<u8>,
    pub file_at: u64,
}

/// Makes a volume that starts at sector `start` of the disk.
pub(super) fn build(file: &[u8], start: u64, id: Uuid) -> Result<Volume, Error> {
    // Clusters 2 and 3 are the directories.
    let needed = 2 + (file.len() as u64).div_ceil(SECTOR);
    let clusters = u32::try_from(needed).ok().filter(|clusters| *clusters <= MAX_CLUSTERS);
    let clusters = clusters.ok_or(Error::Kernel("its EFI loader is too long"))?.max(MIN_CLUSTERS);
    let fat_sectors = ((clusters + 2) * 2).div_ceil(SECTOR as u32);
    let root_sectors = ROOT_ENTRIES * 32 / SECTOR as u32;
    let data = RESERVED + FATS * fat_sectors + root_sectors;
    let total = data + clusters;

    let mut boot = Vec::with_capacity(SECTOR as usize);
    boot.extend_from_slice(&[0xeb, 0x3c, 0x90]);
    boot.extend_from_slice(b"DOCK2UNI");
    boot.extend_from_slice(&(SECTOR as u16).to_le_bytes());
    boot.push(1); // sectors per cluster
    boot.extend_from_slice(&(RESERVED as u16).to_le_bytes());
    boot.push(FATS as u8);
    boot.extend_from_slice(&(ROOT_ENTRIES as u16).to_le_bytes());
    // At most 65,524 clusters and a few hundred sectors: the short field holds up to 65,535.
    let short = u16::try_from(total).unwrap_or(0);
    boot.extend_from_slice(&short.to_le_bytes());
    boot.push(0xf8); // a fixed disk
    boot.extend_from_slice(&(fat_sectors as u16).to_le_bytes());
    boot.extend_from_slice(&[63, 0, 255, 0]); // geometry, for what still asks
    boot.extend_from_slice(&u32::try_from(start).unwrap_or(0).to_le_bytes());
    let long = if short == 0 { total } else { 0 };
    boot.extend_from_slice(&long.to_le_bytes());
    boot.extend_from_slice(&[0x80, 0, 0x29]);
    boot.extend_from_slice(&id.as_bytes()[..4]);
    boot.extend_from_slice(NAME);
    boot.extend_from_slice(b"FAT16   ");
    boot.resize(510, 0);
    boot.extend_from_slice(&[0x55, 0xaa]);

    let sector = SECTOR as usize;
    let mut bytes = boot;
    bytes.resize(total as usize * sector, 0);
    let mut fat: Vec<u16> = vec![0xfff8, END, END, END];
    let last = 4 + (file.len() as u64).div_ceil(SECTOR) as u16;
    fat.extend((5..last).chain([END]));
    if file.is_empty() {
        fat.truncate(4);
    }
    for copy in 0..FATS {
        let at = (RESERVED + copy * fat_sectors) as usize * sector;
        for (place, entry) in bytes[at..].chunks_exact_mut(2).zip(&fat) {
            place.copy_from_slice(&entry.to_le_bytes());
        }
    }
    let mut directory = |at: u32, entries: &[[u8; 32]]| {
        let at = at as usize * sector;
        for (place, entry) in bytes[at..].chunks_exact_mut(32).zip(entries) {
            place.copy_from_slice(entry);
        }
    };
    // A directory says zero for the root as its parent.
    directory(
        data - root_sectors,
        &[entry(NAME, LABEL, 0, 0), entry(b"EFI        ", DIRECTORY, 2, 0)],
    );
    directory(
        data,
        &[
            entry(b".          ", DIRECTORY, 2, 0),
            entry(b"..         ", DIRECTORY, 0, 0),
            entry(b"BOOT       ", DIRECTORY, 3, 0),
        ],
    );
    let len = file.len() as u32;
    directory(
        data + 1,
        &[
            entry(b".          ", DIRECTORY, 3, 0),
            entry(b"..         ", DIRECTORY, 2, 0),
            entry(b"BOOTX64 EFI", 0, if len == 0 { 0 } else { 4 }, len),
        ],
    );
    let file_at = (data as usize + 2) * sector;
    bytes[file_at..file_at + file.len()].copy_from_slice(file);
    Ok(Volume { bytes, file_at: file_at as u64 })
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u16, len: u32) -> [u8; 32] {
    /// 1 January 1980, the first day that there is.
    const DATE: u16 = 1 << 5 | 1;
    let mut entry = [0; 32];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    entry[26..28].copy_from_slice(&cluster.to_le_bytes());
    entry[28..].copy_from_slice(&len.to_le_bytes());
    entry
}
