//! Writes a disk image around a root that is already in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::{GptConfig, GptDisk};
use sha2::{Digest, Sha256};

use super::{ALIGN, ENTRIES, Error, Part, SECTOR, bios};
use crate::guest;

/// Where the parts before the root go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    boot: u64,
    kernel: u64,
    /// Where the root starts in the file, in bytes.
    pub root: u64,
}

impl Layout {
    /// The layout for the guest code that this program carries.
    ///
    /// # Errors
    /// If it carries none.
    pub fn new() -> Result<Layout, Error> {
        // MBR, header, and 128 bytes for each entry.
        let boot = (2 * SECTOR + u64::from(ENTRIES) * 128).next_multiple_of(ALIGN);
        let kernel = (boot + guest::STAGE2.len() as u64).next_multiple_of(ALIGN);
        let root = (kernel + guest::kernel()?.len() as u64).next_multiple_of(ALIGN);
        Ok(Layout { boot, kernel, root })
    }
}

/// Completes an image in whose `file` a root of `root_len` bytes lies at [`Layout::root`].
///
/// `container` is a boot record with its footer. Returns the image's length in bytes.
///
/// # Errors
/// If the file cannot be written, or the guest code does not fit.
pub fn finish(file: &File, layout: Layout, root_len: u64, container: &[u8]) -> Result<u64, Error> {
    let kernel = guest::kernel()?;
    let record = (layout.root + root_len).next_multiple_of(ALIGN);
    let used = record + container.len() as u64;
    // The backup of the table: its entries and one header.
    let len = (used + u64::from(ENTRIES) * 128 + SECTOR).next_multiple_of(ALIGN);
    let stage2 = bios::stage2(
        guest::STAGE2,
        kernel,
        layout.kernel / SECTOR,
        record / SECTOR,
        container.len(),
    )?;

    file.set_len(len)?;
    file.write_all_at(&stage2, layout.boot)?;
    file.write_all_at(kernel, layout.kernel)?;
    file.write_all_at(container, record)?;

    let extents = [
        (Part::Boot, layout.boot, stage2.len() as u64),
        (Part::Kernel, layout.kernel, kernel.len() as u64),
        (Part::Root, layout.root, root_len),
        (Part::Record, record, container.len() as u64),
    ];
    let seed = Sha256::new().chain_update(kernel).chain_update(container);
    table(file, len, &extents, &seed)?;
    let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(len / SECTOR - 1).unwrap_or(u32::MAX));
    mbr.set_bootcode(bios::mbr(guest::MBR, layout.boot / SECTOR, stage2.len())?);
    file.write_all_at(&mbr.to_bytes(), 0)?;
    Ok(len)
}

fn table(file: &File, len: u64, extents: &[(Part, u64, u64)], seed: &Sha256) -> Result<(), Error> {
    let guid = |name: &str| {
        let digest = seed.clone().chain_update(name).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    };
    let device = Window { file, position: 0, len };
    let mut disk: GptDisk<Window<'_>> = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(device, Some(guid("disk")))?;
    let mut partitions = BTreeMap::new();
    for (part, start, len) in extents {
        let first_lba = start / SECTOR;
        let entry = Partition {
            part_type_guid: part.kind(),
            part_guid: guid(part.name()),
            first_lba,
            last_lba: first_lba + (*len).max(1).next_multiple_of(ALIGN) / SECTOR - 1,
            flags: 0,
            name: part.name().to_owned(),
        };
        partitions.insert(*part as u32, entry);
    }
    disk.update_partitions(partitions)?;
    disk.write()?;
    Ok(())
}

/// A file of known length with a cursor of its own.
#[derive(Debug)]
struct Window<'f> {
    file: &'f File,
    position: u64,
    len: u64,
}

impl io::Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.position)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(by) => (self.position, by),
            SeekFrom::End(by) => (self.len, by),
        };
        self.position = base.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
