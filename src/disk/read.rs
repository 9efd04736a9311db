//! Finds the parts of a disk image again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use dock2uni_format::record::{BLOCK, Footer, MAX_RECORD, Record};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;

use super::{Error, Part, SECTOR};

/// One partition: start and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// A disk image that [`super::finish`] made.
#[derive(Debug)]
pub struct Disk {
    file: File,
    extents: [Extent; 4],
    /// Length of the whole image in bytes.
    pub len: u64,
}

impl Disk {
    /// Opens an image and checks its partition table.
    ///
    /// # Errors
    /// If it is none of ours, or damaged.
    pub fn open(path: &Path) -> Result<Disk, Error> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let table = GptConfig::new()
            .logical_block_size(LogicalBlockSize::Lb512)
            .open_from_device(file.try_clone()?)?;
        let mut extents = [Extent { start: 0, len: 0 }; 4];
        for (part, extent) in Part::ALL.into_iter().zip(&mut extents) {
            let entry = table
                .partitions()
                .get(&(part as u32))
                .filter(|entry| entry.part_type_guid.guid == part.kind().guid)
                .ok_or(Error::Missing(part.name()))?;
            let cut_off = || Error::CutOff(part.name());
            let bytes = |lba: u64| lba.checked_mul(SECTOR).ok_or_else(cut_off);
            let start = bytes(entry.first_lba)?;
            let end = bytes(entry.last_lba.checked_add(1).ok_or_else(cut_off)?)?;
            if end > len || start > end {
                return Err(cut_off());
            }
            *extent = Extent { start, len: end - start };
        }
        Ok(Disk { file, extents, len })
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where a part lies.
    pub fn extent(&self, part: Part) -> Extent {
        self.extents[part as usize - 1]
    }

    /// The boot record.
    ///
    /// # Errors
    /// If it is damaged, or of another version.
    pub fn record(&self) -> Result<Record, Error> {
        let Extent { start, len } = self.extent(Part::Record);
        let mut block = vec![0; BLOCK];
        let footer = len.checked_sub(BLOCK as u64).ok_or(Error::CutOff(Part::Record.name()))?;
        self.file.read_exact_at(&mut block, start + footer)?;
        let footer = Footer::parse(&block, len)?;
        // Footer::parse bounds it; said again because memory depends on it.
        let mut bytes = vec![0; (footer.record_len as usize).min(MAX_RECORD)];
        self.file.read_exact_at(&mut bytes, start + footer.record_offset)?;
        Ok(Record::decode(&bytes, &footer)?)
    }
}
