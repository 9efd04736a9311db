//! Disk images that BIOS and UEFI boot, holding kernel, root and boot record.
//!
//! ```text
//! LBA 0        protective MBR with our boot code
//! LBA 1..34    GUID partition table (UEFI specification, chapter 5)
//! "boot"       BIOS boot partition: second stage, with the list of what to load
//! 32 KiB       a CD's own structures, if it is to be one
//! "root"       the EROFS image, with its hash tree behind it
//! "record"     a container with the boot record (see `dock2uni_format::record`)
//! "esp"        EFI system partition: the loader, with the kernel and the record in it
//! "provenance" where the image comes from; nothing that boots reads it
//! end          backup of the partition table
//! ```
//!
//! The kernel is there once: UEFI starts the loader it is part of, and the BIOS stage reads its
//! segments out of the same file. Every partition starts at a multiple of 4 KiB. All identifiers
//! follow from the contents, so the same input gives the same bytes.
//!
//! The root is written before its size is known, straight into a file at [`Layout::root`];
//! [`assemble`] makes a disk of it, which [`format::write`] brings into any of the formats.

mod assembly;
mod bios;
mod efi;
mod error;
mod esp;
pub mod format;
mod iso;
pub mod medium;
pub mod read;
mod sign;
mod table;

#[cfg(test)]
mod tests;

use gpt::partition_types::{self, OperatingSystem, Type};

pub use assembly::{Assembly, Layout, Options, Place, RootPart, assemble};
pub use error::Error;
pub use format::Format;
pub use medium::Medium;
pub use read::{Disk, Extent};
pub use sign::Signer;

/// Bytes of a sector; what every BIOS and virtio-blk device offers.
pub const SECTOR: u64 = 512;
/// Partitions start at multiples of this many bytes: pages of the root are read as such.
const ALIGN: u64 = 4096;
/// Entries in the partition table, the least that UEFI allows.
const ENTRIES: u32 = 128;

/// The partitions, by their numbers from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Second stage of the BIOS boot code.
    Boot = 1,
    /// EFI system partition, which holds the kernel.
    Esp = 2,
    /// EROFS image.
    Root = 3,
    /// Boot record.
    Record = 4,
    /// Where the image comes from: an in-toto statement, JSON, filled up with zeros.
    Provenance = 5,
}

impl Part {
    /// All of them, by their numbers.
    pub const ALL: [Part; 5] = [Part::Boot, Part::Esp, Part::Root, Part::Record, Part::Provenance];

    /// Name in the partition table.
    pub fn name(self) -> &'static str {
        match self {
            Part::Boot => "dock2uni boot",
            Part::Esp => "dock2uni esp",
            Part::Root => "dock2uni root",
            Part::Record => "dock2uni record",
            Part::Provenance => "dock2uni provenance",
        }
    }

    fn kind(self) -> Type {
        let own = |guid| Type { guid, os: OperatingSystem::None };
        match self {
            Part::Boot => partition_types::BIOS,
            Part::Root => partition_types::LINUX_ROOT_X64,
            Part::Esp => partition_types::EFI,
            // Ours, drawn at random once.
            Part::Record => own(uuid::uuid!("b27e94f0-52a9-4c53-a4f6-1c9f3d0e6a42")),
            Part::Provenance => own(uuid::uuid!("5d0f6c1e-8b7a-4e63-9c2d-f14a97e03b58")),
        }
    }
}
