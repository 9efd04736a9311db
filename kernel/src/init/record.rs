//! Finding the boot record, and the root filesystem that it names.

use crate::arch::{BootInfo, phys_to_virt};
use crate::debug;
use crate::drivers::block::{self, BlockDevice};
use crate::drivers::partition;
use crate::fs::erofs::{Image, Source};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use dock2uni_format::record::{BLOCK, Error, Footer, MAX_RECORD, Record, Root};
use dock2uni_format::verity::Verity;

/// Where a container lies.
#[derive(Clone)]
enum Container {
    Memory(&'static [u8]),
    Disk { device: Arc<dyn BlockDevice>, start: u64, len: u64 },
}

/// A boot record with the container it was in.
pub struct Found {
    /// What to run and how.
    pub record: Record,
    container: Container,
    footer: Footer,
}

/// Looks in the boot modules, then on the disks and their partitions.
///
/// The error is for the user: that there is none, or what is wrong with the one there is.
pub fn find(boot: &BootInfo) -> Result<Found, String> {
    for &(base, len) in boot.modules() {
        // SAFETY: boot modules are RAM in the direct map, kept out of the allocator for good.
        let bytes = unsafe { core::slice::from_raw_parts(phys_to_virt(base) as *const u8, len) };
        if let Some(found) = open(Container::Memory(bytes))? {
            return Ok(found);
        }
    }
    for container in containers() {
        if let Some(found) = open(container)? {
            return Ok(found);
        }
    }
    Err("no boot record: neither a boot module nor a disk holds a dock2uni image; \
         start the machine with the files that `dock2uni convert` wrote"
        .to_string())
}

/// Every disk and every partition.
fn containers() -> Vec<Container> {
    let mut all = Vec::new();
    for device in block::disks() {
        let len = device.capacity();
        match partition::read(&*device) {
            Ok(partitions) => {
                for part in partitions {
                    let (start, len) = (part.start, part.len);
                    all.push(Container::Disk { device: device.clone(), start, len });
                }
            }
            Err(error) => crate::error!("{}: can't be read ({error:?})", device.name()),
        }
        all.push(Container::Disk { device, start: 0, len });
    }
    all
}

impl Container {
    fn len(&self) -> u64 {
        match self {
            Container::Memory(bytes) => bytes.len() as u64,
            Container::Disk { len, .. } => *len,
        }
    }

    fn name(&self) -> String {
        match self {
            Container::Memory(_) => "the boot module".to_string(),
            Container::Disk { device, start: 0, .. } => device.name().to_string(),
            Container::Disk { device, start, .. } => format!("{} at {start:#x}", device.name()),
        }
    }

    /// Bytes within the container.
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        let end = offset.checked_add(len as u64).filter(|&end| end <= self.len());
        if end.is_none() {
            return Err(format!("{} is shorter than it says", self.name()));
        }
        match self {
            // Bounded by the check above.
            Container::Memory(bytes) => Ok(bytes[offset as usize..][..len].to_vec()),
            Container::Disk { device, start, .. } => {
                let mut out = vec![0; len];
                let read = device.read_bytes(start + offset, &mut out);
                read.map_err(|error| format!("{} can't be read ({error:?})", self.name()))?;
                Ok(out)
            }
        }
    }

    /// Its first `len` bytes, which are checked if `verity` says against what.
    fn source(self, len: u64, verity: Option<&Verity>) -> Result<Source, String> {
        let name = self.name();
        let source = match self {
            Container::Memory(bytes) => {
                let bytes = usize::try_from(len).ok().and_then(|len| bytes.get(..len));
                Source::memory(bytes.ok_or("the boot module is cut off")?, verity)
            }
            Container::Disk { device, start, .. } => Source::disk(device, start, len, verity),
        };
        source.map_err(|error| format!("{name}: {error:?}"))
    }
}

/// The record in a container; `None` if it has none.
fn open(container: Container) -> Result<Option<Found>, String> {
    let Some(at) = container.len().checked_sub(BLOCK as u64) else { return Ok(None) };
    let block = container.read(at, BLOCK)?;
    let damaged = |error: Error| {
        let why = match error {
            Error::Version(found) => format!(
                "was made by a dock2uni with format version {found}, this kernel has {}; \
                 convert the image again",
                dock2uni_format::record::VERSION
            ),
            _ => format!("is damaged ({error:?}); convert the image again"),
        };
        format!("the boot record in {} {why}", container.name())
    };
    let footer = match Footer::parse(&block, container.len()) {
        Err(Error::NoFooter) => return Ok(None),
        other => other.map_err(damaged)?,
    };
    // `parse` bounds it; said again because memory depends on it.
    let len = (footer.record_len as usize).min(MAX_RECORD);
    let bytes = container.read(footer.record_offset, len)?;
    let record = Record::decode(&bytes, &footer).map_err(damaged)?;
    debug!("boot: record in {}", container.name());
    Ok(Some(Found { record, container, footer }))
}

impl Found {
    /// The record, and the bytes of the root filesystem.
    pub fn into_root(self) -> Result<(Record, Source), String> {
        let verity = match (self.record.check_root, &self.footer.verity) {
            (false, _) => None,
            (true, Some(verity)) => Some(verity),
            (true, None) => {
                return Err(
                    "the root filesystem is to be checked, but the boot record has no hash \
                            of it; convert the image again"
                        .to_string(),
                );
            }
        };
        let source = match self.record.root {
            Root::Here if self.footer.erofs_len == 0 => {
                return Err("the boot record says that the root filesystem is with it, \
                            but there is none; convert the image again"
                    .to_string());
            }
            Root::Here => self.container.source(self.footer.erofs_len, verity)?,
            Root::Disk { uuid } => root_disk(&uuid, verity)?,
        };
        Ok((self.record, source))
    }
}

/// The disk or partition with the EROFS superblock of this UUID.
fn root_disk(uuid: &[u8; 16], verity: Option<&Verity>) -> Result<Source, String> {
    for container in containers() {
        let len = container.len();
        // The image reads its superblock out of one source; the filesystem gets another over the
        // same bytes, which checks them.
        let Ok(source) = container.clone().source(len, None) else { continue };
        let Ok(image) = Image::open(source) else { continue };
        if image.superblock().uuid == *uuid {
            return container.source(len, verity);
        }
    }
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    Err(format!("no disk holds the root filesystem {hex}; attach the image's disk as virtio-blk"))
}
