//! The file that UEFI starts: our loader with kernel and boot record as further sections.
//!
//! One file, so that one signature vouches for all that runs before the root filesystem is
//! mounted. The loader (`kernel/efi`) finds the sections by their names in its own headers.
//! Source: Microsoft's "PE Format".

use uuid::Uuid;

use super::{Error, SECTOR};

const FILE_ALIGN: usize = SECTOR as usize;
const SECTION_ALIGN: u32 = 4096;
const SECTION_HEADER: usize = 40;
/// Initialised data that can be read.
const DATA: u32 = 0x4000_0040;

/// A part of the disk that the loader brings into memory before the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct MediumPart {
    /// Which disk, by the identifier of its partition table.
    pub disk: Uuid,
    /// First byte; a multiple of 2,048.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// The finished file.
#[derive(Debug)]
pub(super) struct Image {
    pub bytes: Vec<u8>,
    /// Where in it the kernel starts, at a multiple of a sector.
    pub kernel_at: u64,
}

/// Adds kernel, record and the part of the disk to the loader.
pub(super) fn image(
    loader: &[u8],
    kernel: &[u8],
    record: &[u8],
    medium: Option<&MediumPart>,
) -> Result<Image, Error> {
    let mut pe = Pe::new(loader)?;
    let kernel_at = pe.add(b".kernel\0", kernel)?;
    pe.add(b".record\0", record)?;
    if let Some(MediumPart { disk, start, len }) = medium {
        let mut bytes = disk.to_bytes_le().to_vec();
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        pe.add(b".medium\0", &bytes)?;
    }
    Ok(Image { bytes: pe.0, kernel_at })
}

/// The bytes of a section of a PE file, from anywhere.
pub(super) fn section<'f>(file: &'f [u8], name: &[u8; 8]) -> Option<&'f [u8]> {
    let half = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
    let word =
        |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?) as usize);
    let start = word(60)?;
    let headers = start + 24 + usize::from(half(start + 20)?);
    for index in 0..usize::from(half(start + 6)?) {
        let at = headers + index * SECTION_HEADER;
        if file.get(at..at + 8)? == name {
            let (len, from) = (word(at + 8)?, word(at + 20)?);
            return file.get(from..from.checked_add(len)?);
        }
    }
    None
}

/// A PE32+ file that `kernel/build` made.
struct Pe(Vec<u8>);

impl Pe {
    fn new(bytes: &[u8]) -> Result<Pe, Error> {
        let pe = Pe(bytes.to_vec());
        let start = pe.start()?;
        let optional = pe.0.get(start + 24..start + 26) == Some(&0x20bu16.to_le_bytes()[..]);
        if !optional || !bytes.len().is_multiple_of(FILE_ALIGN) {
            return Err(Self::malformed());
        }
        Ok(pe)
    }

    fn malformed() -> Error {
        Error::Kernel("its EFI loader is malformed")
    }

    fn u16(&self, at: usize) -> Result<u16, Error> {
        let bytes = self.0.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u16::from_le_bytes).ok_or_else(Self::malformed)
    }

    fn u32(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or_else(Self::malformed)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        let place = self.0.get_mut(at..at + bytes.len()).ok_or_else(Self::malformed)?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    /// Where the signature `PE` is.
    fn start(&self) -> Result<usize, Error> {
        let at = self.u32(60)? as usize;
        match self.0.get(at..at + 4) {
            Some(b"PE\0\0") => Ok(at),
            _ => Err(Self::malformed()),
        }
    }

    /// Appends a section and returns where in the file its bytes start.
    fn add(&mut self, name: &[u8; 8], bytes: &[u8]) -> Result<u64, Error> {
        let start = self.start()?;
        let count = self.u16(start + 6)?;
        let optional = start + 24;
        let headers = optional + usize::from(self.u16(start + 20)?);
        let header = headers + usize::from(count) * SECTION_HEADER;
        let headers_end = self.u32(optional + 60)? as usize;
        if header + SECTION_HEADER > headers_end {
            return Err(Self::malformed());
        }
        let address = self.u32(optional + 56)?;
        let len = u32::try_from(bytes.len()).map_err(|_| Self::malformed())?;
        let at = self.0.len();
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(FILE_ALIGN), 0);
        let file_len = (self.0.len() - at) as u32;

        let mut entry = name.to_vec();
        for word in [len, address, file_len, at as u32, 0, 0, 0, DATA] {
            entry.extend_from_slice(&word.to_le_bytes());
        }
        self.put(header, &entry)?;
        self.put(start + 6, &(count + 1).to_le_bytes())?;
        let initialised = self.u32(optional + 8)?.saturating_add(file_len);
        self.put(optional + 8, &initialised.to_le_bytes())?;
        let end =
            address.checked_add(len).and_then(|end| end.checked_next_multiple_of(SECTION_ALIGN));
        self.put(optional + 56, &end.ok_or_else(Self::malformed)?.to_le_bytes())?;
        Ok(at as u64)
    }
}
