//! Disk images: one raw file that a BIOS boots, holding kernel, root and boot record.
//!
//! ```text
//! LBA 0        protective MBR with our boot code
//! LBA 1..34    GUID partition table (UEFI specification, chapter 5)
//! "boot"       BIOS boot partition: second stage, with the list of what to load
//! "kernel"     the kernel's ELF file; its segments start at sectors
//! "root"       the EROFS image
//! "record"     a container with the boot record alone (see `dock2uni_format::record`)
//! end          backup of the partition table
//! ```
//!
//! Every partition starts at a multiple of 4 KiB. All identifiers follow from the contents, so the
//! same input gives the same bytes.
//!
//! The root is written before its size is known, straight into the file at [`Layout::root`];
//! [`finish`] does the rest.

mod bios;
mod error;
pub mod read;
mod write;

#[cfg(test)]
mod tests;

use gpt::partition_types::{self, OperatingSystem, Type};

pub use error::Error;
pub use read::Disk;
pub use write::{Layout, finish};

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
    /// Kernel ELF.
    Kernel = 2,
    /// EROFS image.
    Root = 3,
    /// Boot record.
    Record = 4,
}

impl Part {
    /// All of them, in the order of the disk.
    pub const ALL: [Part; 4] = [Part::Boot, Part::Kernel, Part::Root, Part::Record];

    /// Name in the partition table.
    pub fn name(self) -> &'static str {
        match self {
            Part::Boot => "dock2uni boot",
            Part::Kernel => "dock2uni kernel",
            Part::Root => "dock2uni root",
            Part::Record => "dock2uni record",
        }
    }

    fn kind(self) -> Type {
        let own = |guid| Type { guid, os: OperatingSystem::None };
        match self {
            Part::Boot => partition_types::BIOS,
            Part::Root => partition_types::LINUX_ROOT_X64,
            // Ours, drawn at random once.
            Part::Kernel => own(uuid::uuid!("6d3a5c5e-0f0b-4d0e-9d2c-8a4b1f6f7e11")),
            Part::Record => own(uuid::uuid!("b27e94f0-52a9-4c53-a4f6-1c9f3d0e6a42")),
        }
    }
}
