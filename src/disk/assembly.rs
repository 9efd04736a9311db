//! Puts a disk together around a root filesystem: what lies where, and what boots it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use dock2uni_format::record::{self, Record, Root};
use dock2uni_format::verity::Verity;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::medium::{Medium, within};
use super::{ALIGN, Error, Extent, Part, SECTOR, Signer, bios, efi, esp, iso, table};
use crate::erofs::ReadAt;
use crate::guest;

/// Where the second stage starts: after MBR, header, and 128 entries of 128 bytes.
const BOOT_AT: u64 = 5 * ALIGN;
/// Where its partition ends at the latest; a CD's own structures start there.
const BOOT_END: u64 = iso::START;

/// Where things are before anything about the root is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the root starts in the file, in bytes.
    pub root: u64,
}

impl Layout {
    /// The layout for the guest code that this program carries.
    ///
    /// # Errors
    /// If it carries none.
    pub fn new() -> Result<Layout, Error> {
        guest::kernel()?;
        Ok(Layout { root: iso::END })
    }
}

/// A root filesystem in a file.
#[derive(Clone, Copy, Debug)]
pub struct RootPart {
    /// Where it starts in the file, in bytes.
    pub start: u64,
    /// Its length in bytes, hash tree included.
    pub len: u64,
    /// The UUID in its superblock.
    pub uuid: [u8; 16],
    /// What vouches for it; `None` if it has no hash tree.
    pub verity: Option<Verity>,
}

/// Where the kernel finds the root when the disk boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// On the disk, which must be a virtio-blk device.
    Disk,
    /// In memory, into which the boot code loads it: for disks that firmware can read and the
    /// kernel can't.
    Memory,
}

/// What kind of disk to make.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Where the root is when the kernel starts.
    pub place: Place,
    /// The disk's size is a multiple of this.
    pub granularity: u64,
    /// A CD's structures as well.
    pub iso: bool,
    /// Signs the EFI loader.
    pub signer: Option<&'a Signer>,
    /// Where the image comes from, JSON; may be empty.
    pub provenance: &'a [u8],
}

/// A disk: a root in a file, and pieces around it in memory.
#[derive(Debug)]
pub struct Assembly<'f> {
    base: &'f File,
    root: RootPart,
    /// Where the root starts on the disk.
    root_at: u64,
    /// By where they start; they don't overlap each other or the root.
    pieces: BTreeMap<u64, Vec<u8>>,
    size: u64,
}

/// Makes a disk of the `root` in the file `base`.
///
/// # Errors
/// If there is no guest code, or it does not fit.
pub fn assemble<'f>(
    base: &'f File,
    root: RootPart,
    record: &Record,
    options: &Options<'_>,
) -> Result<Assembly<'f>, Error> {
    let kernel = guest::kernel()?;
    let root_at = Layout::new()?.root;
    let mut record = record.clone();
    let (place, container_at) = match options.place {
        Place::Disk => (Root::Disk { uuid: root.uuid }, None),
        Place::Memory => (Root::Here, Some(root_at)),
    };
    record.root = place;
    let erofs_len = if options.place == Place::Memory { root.len } else { 0 };
    let container = record::trailer(&record, erofs_len, root.verity);
    let record_at = (root_at + root.len).next_multiple_of(ALIGN);
    let esp_at = (record_at + container.len() as u64).next_multiple_of(ALIGN);
    // What is loaded with the kernel: the record, and with `Place::Memory` the root before it.
    let module = Extent {
        start: container_at.unwrap_or(record_at),
        len: record_at + container.len() as u64 - container_at.unwrap_or(record_at),
    };

    let seed = Sha256::new()
        .chain_update(kernel)
        .chain_update(&container)
        .chain_update(options.provenance);
    let ids = Ids(seed);
    let medium = container_at.map(|start| efi::MediumPart {
        disk: ids.get("disk"),
        start,
        len: record_at - start,
    });
    let mut loader = efi::image(guest::EFI, kernel, &container, medium.as_ref())?;
    if let Some(signer) = options.signer {
        signer.sign(&mut loader.bytes)?;
    }
    let volume = esp::build(&loader.bytes, esp_at / SECTOR, ids.get("volume"))?;
    let kernel_at = esp_at + volume.file_at + loader.kernel_at;
    let provenance_at = (esp_at + volume.bytes.len() as u64).next_multiple_of(ALIGN);
    let used = provenance_at + (options.provenance.len() as u64).max(1).next_multiple_of(ALIGN);
    let size = (used + table::BACKUP).next_multiple_of(options.granularity.max(ALIGN));

    let place = bios::Place { kernel_at, module, with_root: options.place == Place::Memory };
    let stage2 = bios::stage2(guest::STAGE2, kernel, place, bios::DISK_SHIFT)?;
    if BOOT_AT + stage2.len() as u64 > BOOT_END {
        return Err(Error::Kernel("its boot code is too long"));
    }
    let boot_len = stage2.len() as u64;
    let mbr = bios::mbr(guest::MBR, BOOT_AT / SECTOR, stage2.len())?;
    let extents = [
        (Part::Boot, BOOT_AT, boot_len),
        (Part::Esp, esp_at, volume.bytes.len() as u64),
        (Part::Root, root_at, root.len),
        (Part::Record, record_at, container.len() as u64),
        (Part::Provenance, provenance_at, options.provenance.len() as u64),
    ];
    let mut pieces = table::write(size, &extents, &ids, mbr)?;
    pieces.insert(BOOT_AT, stage2);
    if options.iso {
        let stage2 = bios::stage2(guest::STAGE2, kernel, place, bios::CD_SHIFT)?;
        let volume = Extent { start: esp_at, len: volume.bytes.len() as u64 };
        pieces.insert(iso::START, iso::build(size, &stage2, volume)?);
    }
    pieces.insert(record_at, container);
    pieces.insert(esp_at, volume.bytes);
    if !options.provenance.is_empty() {
        pieces.insert(provenance_at, options.provenance.to_vec());
    }
    Ok(Assembly { base, root, root_at, pieces, size })
}

/// Identifiers that follow from the contents.
#[derive(Debug)]
pub(super) struct Ids(Sha256);

impl Ids {
    /// One that goes by a name.
    pub(super) fn get(&self, name: &str) -> Uuid {
        let digest = self.0.clone().chain_update(name).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

impl Assembly<'_> {
    /// Writes the pieces to the file that the root is in, which makes it a raw disk.
    ///
    /// # Errors
    /// If the root is not where the disk has it, or the file cannot be written.
    pub fn complete(&self) -> io::Result<u64> {
        if self.root.start != self.root_at {
            return Err(io::Error::other("the root is not where the disk has it"));
        }
        self.base.set_len(self.size)?;
        for (at, bytes) in &self.pieces {
            FileExt::write_all_at(self.base, bytes, *at)?;
        }
        Ok(self.size)
    }
}

impl ReadAt for Assembly<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        within(self.size, offset, buffer.len())?;
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        // The part of `buffer` that `len` bytes at `at` cover, and where in them it starts.
        let cover = |at: u64, len: u64| {
            let (from, to) = (at.max(offset), (at + len).min(end));
            // Both are within the buffer.
            (from < to).then(|| ((from - offset) as usize..(to - offset) as usize, from - at))
        };
        if let Some((part, skip)) = cover(self.root_at, self.root.len) {
            FileExt::read_exact_at(self.base, &mut buffer[part], self.root.start + skip)?;
        }
        for (at, bytes) in self.pieces.range(..end) {
            if let Some((part, skip)) = cover(*at, bytes.len() as u64) {
                let from = skip as usize;
                let len = part.len();
                buffer[part].copy_from_slice(&bytes[from..from + len]);
            }
        }
        Ok(())
    }
}

impl Medium for Assembly<'_> {
    fn size(&self) -> u64 {
        self.size
    }
}
