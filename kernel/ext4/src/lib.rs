//! ext4 as Linux has it on disk, with a JBD2 journal: what volumes are made of.
//!
//! The kernel mounts volumes with it, the tool makes them ([`mkfs`]), and `cargo test` runs all of
//! it against e2fsprogs. No I/O of its own: a [`Device`] moves blocks, and file contents are the
//! caller's business (a page cache); this crate says where they go ([`Volume::map`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`volume`] | an open volume: transactions, and the calls a kernel makes |
//! | `cache`, `journal` | blocks of metadata, and how they reach the disk all or nothing |
//! | `alloc`, `extent`, `dir`, `xattr`, `inode` | the structures, one each |
//! | `disk`, `crc`, `hash`, [`sort`] | fields, numbers, and order |
//!
//! # How a volume stays whole
//! A call changes copies of blocks; if it fails they are put back, so no half of a call is ever
//! seen. Changed blocks are collected until [`Volume::commit`] writes them to the journal, with a
//! checksummed commit block between two flushes. Only then may they go to their places, and only
//! after that is journal space reused. Freed blocks are given out again only once the transaction
//! that freed them is on disk. File contents are written before the extent that shows them is
//! entered: until then it is marked unwritten.
//!
//! The disk is hostile input: every number read from it is checked before it is used, and
//! reading out of bounds of a block gives zeros rather than a panic. Damage is
//! [`Error::Corrupt`]; the caller makes the volume read-only.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc as std_alloc;

mod alloc;
mod cache;
mod crc;
mod dir;
mod disk;
mod extent;
mod hash;
mod inode;
mod journal;
mod mkfs;
pub mod sort;
pub mod volume;
mod xattr;

pub use dir::Emit;
pub use disk::FileType;
pub use inode::{Attributes, Inode, Time};
pub use mkfs::{Format, MIN_SIZE, mkfs};
pub use volume::{Mapping, NewFile, Usage, Volume};

/// Size of a block in bytes: that of a page, and the only one that is read or written.
pub const BLOCK: usize = 4096;
/// Inode number of the root directory.
pub const ROOT: u32 = 2;
/// Most bytes of a name.
pub const NAME_MAX: usize = 255;

/// Why something could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The device failed.
    Io,
    /// The volume is damaged: what is wrong.
    Corrupt(&'static str),
    /// A feature that this driver doesn't have: its name.
    Unsupported(&'static str),
    /// No space, or no inode, is left.
    NoSpace,
    /// Out of memory.
    NoMemory,
    /// There is no such name or attribute.
    NotFound,
    /// The name or attribute exists.
    Exists,
    /// The directory isn't empty.
    NotEmpty,
    /// Not a directory.
    NotDirectory,
    /// The file would get larger than there may be, or the file already has all links it may have.
    TooMany,
    /// The volume is mounted read-only, or became so after damage.
    ReadOnly,
}

/// Result of this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// Where the blocks are.
pub trait Device: Send + Sync {
    /// Length in blocks.
    fn blocks(&self) -> u64;
    /// Whether writing is refused.
    fn read_only(&self) -> bool;
    /// Fills `out`, a multiple of [`BLOCK`], from a block on.
    ///
    /// # Errors
    /// [`Error::Io`] if the device fails or ends before.
    fn read(&self, block: u64, out: &mut [u8]) -> Result<()>;
    /// Writes consecutive blocks.
    ///
    /// # Errors
    /// [`Error::Io`] if the device fails or ends before.
    fn write(&self, block: u64, data: &[&[u8]]) -> Result<()>;
    /// Makes what was written durable.
    ///
    /// # Errors
    /// [`Error::Io`] if the device fails.
    fn flush(&self) -> Result<()>;
}
