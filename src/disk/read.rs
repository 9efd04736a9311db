//! Finds the parts of a disk image again.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use dock2uni_format::record::{BLOCK, Footer, MAX_RECORD, Record};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;

use super::medium::{Cursor, Medium};
use super::{Error, Format, Part, Place, SECTOR, format};
use crate::erofs::{ReadAt, ReadError, Reader};
use crate::provenance;

/// One partition: start and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// A disk image that we made, in a file of any format.
pub struct Disk {
    medium: Arc<dyn Medium>,
    extents: [Extent; Part::ALL.len()],
    /// How the file holds the disk.
    pub format: Format,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Length of the file in bytes.
    pub file_len: u64,
    /// Identifier in the partition table.
    pub id: uuid::Uuid,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Disk { format, size, extents, .. } = self;
        f.debug_struct("Disk")
            .field("format", format)
            .field("size", size)
            .field("extents", extents)
            .finish_non_exhaustive()
    }
}

/// Refuses tables of another shape than ours. The `gpt` crate reads whatever number of entries the
/// header claims into memory, and panics at other sizes of them.
fn check_table(medium: &Arc<dyn Medium>, format: Format) -> Result<(), Error> {
    for at in [SECTOR, medium.size().saturating_sub(SECTOR)] {
        let mut header = [0; 92];
        let read = medium.read_exact_at(&mut header, at).is_ok();
        // Number and size of the entries.
        let ours = header[80..84] == super::ENTRIES.to_le_bytes()
            && header[84..88] == 128u32.to_le_bytes();
        if read && header.starts_with(b"EFI PART") && !ours {
            return Err(Error::File { format, what: "its partition table makes no sense" });
        }
    }
    Ok(())
}

impl Disk {
    /// Opens an image of any format and checks its partition table.
    ///
    /// # Errors
    /// If it is none of ours, or damaged.
    pub fn open(path: &Path) -> Result<Disk, Error> {
        let file = File::open(path)?;
        let file_len = file.metadata()?.len();
        let opened = format::open(file)?;
        Disk::new(opened.disk.into(), opened.format, file_len)
    }

    fn new(medium: Arc<dyn Medium>, format: Format, file_len: u64) -> Result<Disk, Error> {
        let size = medium.size();
        check_table(&medium, format)?;
        let table = GptConfig::new()
            .logical_block_size(LogicalBlockSize::Lb512)
            .open_from_device(Cursor::new(&medium))?;
        let mut extents = [Extent { start: 0, len: 0 }; Part::ALL.len()];
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
            if end > size || start > end {
                return Err(cut_off());
            }
            *extent = Extent { start, len: end - start };
        }
        let id = *table.guid();
        drop(table);
        Ok(Disk { medium, extents, format, size, file_len, id })
    }

    /// The bytes of the disk.
    pub fn medium(&self) -> Arc<dyn Medium> {
        self.medium.clone()
    }

    /// Where a part lies.
    pub fn extent(&self, part: Part) -> Extent {
        self.extents[part as usize - 1]
    }

    /// The root filesystem.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn root(&self) -> Result<Reader<Arc<dyn Medium>>, ReadError> {
        Reader::open(self.medium(), self.extent(Part::Root).start)
    }

    /// The boot record.
    ///
    /// # Errors
    /// If it is damaged, or of another version.
    pub fn record(&self) -> Result<Record, Error> {
        self.boot().map(|(record, _)| record)
    }

    /// Where the kernel finds the root when the disk boots.
    ///
    /// # Errors
    /// See [`Disk::record`].
    pub fn place(&self) -> Result<Place, Error> {
        let (_, footer) = self.boot()?;
        Ok(if footer.erofs_len == 0 { Place::Disk } else { Place::Memory })
    }

    /// What UEFI starts: the loader's file, kernel and record included, up to the partition's end.
    ///
    /// # Errors
    /// If there is none.
    pub fn loader(&self) -> Result<Vec<u8>, Error> {
        /// Many times as long as any that we make.
        const MAX: u64 = 64 << 20;
        let Extent { start, len } = self.extent(Part::Esp);
        if len > MAX {
            return Err(Error::Missing(Part::Esp.name()));
        }
        // Bounded just above.
        let mut volume = vec![0; len as usize];
        self.medium.read_exact_at(&mut volume, start)?;
        let sector = SECTOR as usize;
        // The volume is ours: one file, its clusters together, nothing else that begins so.
        let file = volume.chunks(sector).position(|bytes| bytes.starts_with(b"MZ"));
        let file = file.ok_or(Error::Missing(Part::Esp.name()))?;
        Ok(volume.split_off(file * sector))
    }

    /// The kernel's ELF file.
    ///
    /// # Errors
    /// If there is none.
    pub fn kernel(&self) -> Result<Vec<u8>, Error> {
        let loader = self.loader()?;
        let kernel = super::efi::section(&loader, b".kernel\0");
        let kernel = kernel.filter(|bytes| bytes.starts_with(b"\x7fELF"));
        kernel.map(<[u8]>::to_vec).ok_or(Error::Missing(Part::Esp.name()))
    }

    /// Where the image comes from: an in-toto statement; `None` if it has none.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub fn provenance(&self) -> Result<Option<serde_json::Value>, Error> {
        let Extent { start, len } = self.extent(Part::Provenance);
        // Bounded here.
        let mut bytes = vec![0; len.min(provenance::MAX) as usize];
        self.medium.read_exact_at(&mut bytes, start)?;
        let text = bytes.trim_ascii_end();
        let end = text.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        if end == 0 {
            return Ok(None);
        }
        let value = serde_json::from_slice(&text[..end]);
        value.map(Some).map_err(|_| Error::Missing(Part::Provenance.name()))
    }

    /// The boot record and its footer.
    ///
    /// # Errors
    /// If one is damaged, or of another version.
    pub fn boot(&self) -> Result<(Record, Footer), Error> {
        let Extent { start, len } = self.extent(Part::Record);
        let mut block = vec![0; BLOCK];
        let at = len.checked_sub(BLOCK as u64).ok_or(Error::CutOff(Part::Record.name()))?;
        self.medium.read_exact_at(&mut block, start + at)?;
        // A root that is brought into memory is in the same container, before the record.
        let root = self.extent(Part::Root).start;
        let footer = Footer::parse(&block, (start + len).saturating_sub(root))?;
        let container = if footer.erofs_len == 0 { start } else { root };
        // Footer::parse bounds it; said again because memory depends on it.
        let mut bytes = vec![0; (footer.record_len as usize).min(MAX_RECORD)];
        let at = container.checked_add(footer.record_offset);
        let at = at.ok_or(Error::CutOff(Part::Record.name()))?;
        self.medium.read_exact_at(&mut bytes, at)?;
        Ok((Record::decode(&bytes, &footer)?, footer))
    }
}
