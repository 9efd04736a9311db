//! EROFS on-disk structures: plain parse and emit of the fixed-layout records, shared by the
//! converter's writer and reader and by the kernel's reader.
//!
//! Source: Linux `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`. Everything is
//! little endian. Nothing here does I/O or allocates; callers bring the bytes.
//!
//! # How a volume is laid out
//! ```text
//! byte 0        1024                     4096                                     blocks * 4096
//! | unused      | Superblock | ...       | file data, inodes, directories, xattrs in any order |
//! ```
//! - An inode number (**nid**) is a position: the inode starts at
//!   `meta_blkaddr * 4096 + nid * 32` ([`Superblock::inode_offset`]).
//! - [`Inode`] is 32 (compact) or 64 bytes (extended), followed by its xattr body
//!   ([`Inode::xattr_len`] bytes), followed by what its [`Layout`] asks for:
//!   - [`Layout::Plain`]: nothing; the file is `size` bytes from block [`Inode::u`] on.
//!   - [`Layout::Inline`]: the last `size % 4096` bytes of the file (the *tail*), which never
//!     cross a block; the whole blocks before it lie from block [`Inode::u`] on. A file whose
//!     size is a multiple of 4096 has no tail.
//!   - [`Layout::Chunk`]: an array of block addresses, one for each chunk of the file
//!     ([`ChunkInfo`]); [`NULL_ADDR`] is a hole.
//!   - [`Layout::Compressed`]: a [`MapHeader`] and an index for each block of the file, from which
//!     [`Extent`]s are found.
//! - A directory is a file of 4,096-byte [`DirBlock`]s (the last may be shorter), sorted by name
//!   as bytes over the whole directory, `.` and `..` included and sorted like any other name.
//! - A symlink is a file that holds its target.
//! - For device nodes [`Inode::u`] is the device number ([`decode_dev`]).
//!
//! # What dock2uni writes
//! Blocks of 4 KiB, `meta_blkaddr` 0, the root inode in block 0. Symlinks,
//! small directories and file tails are inline wherever they fit. A regular file's whole blocks
//! are contiguous and block aligned except in chunk-based (sparse) files, whose chunks are, and in
//! compressed ones, which there are on request only (LZ4; [`Extent`] says in which form).
//! A compact inode has the superblock's build time as mtime.

mod chunk;
mod compressed;
mod dir;
mod inode;
mod superblock;
mod xattr;

pub use chunk::{ChunkInfo, INDEX_LEN, MAP_LEN, NULL_ADDR};
pub use compressed::{
    CONFIG_LEN, EXTENT_MAX, Extent, LCLUSTER_INDEX_LEN, MAP_ALIGN, MAP_HEADER_LEN, MapHeader,
    PCLUSTER_MAX, Stored, emit_config,
};
pub use dir::{DIRENT_LEN, DirBlock, Dirent, FileType, emit_dir_block};
pub use inode::{
    COMPACT_LEN, EXTENDED_LEN, Inode, Layout, Time, decode_dev, encode_dev, inode_len,
};
pub use superblock::{SUPERBLOCK_LEN, SUPERBLOCK_OFFSET, Superblock, compat, incompat};
pub use xattr::{
    XATTR_HEADER_LEN, XattrBody, XattrEntry, XattrIter, XattrPrefix, emit_xattr_entry,
    emit_xattr_header, xattr_entry_len, xattr_icount,
};

/// log2 of [`BLOCK`].
pub const BLOCK_BITS: u8 = 12;
/// Block size in bytes, the only one that dock2uni writes or reads.
pub const BLOCK: usize = 1 << BLOCK_BITS;
/// Unit of inode positions in bytes.
pub const SLOT: usize = 32;
/// Longest file name in bytes.
pub const NAME_MAX: usize = 255;

/// Why on-disk bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The slice ends before the record does.
    Truncated,
    /// Not an EROFS superblock.
    Magic,
    /// The superblock's checksum does not match.
    Checksum,
    /// A block size other than 4 KiB: the `blkszbits` found.
    BlockSize(u8),
    /// Incompatible features that are not supported: the unknown bits.
    Features(u32),
    /// An inode data layout that is not supported: the number found.
    Layout(u16),
    /// A directory block whose offsets or names do not add up.
    Dirent,
    /// An xattr body whose lengths do not add up.
    Xattr,
    /// A chunk format with unknown bits or an impossible size: the field found.
    Chunk(u16),
    /// A compressed file of a form that is not supported, or that is damaged.
    Compression,
}

impl Error {
    /// The reason in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Error::Truncated => "truncated record",
            Error::Magic => "no EROFS superblock",
            Error::Checksum => "superblock checksum mismatch",
            Error::BlockSize(_) => "block size is not 4 KiB",
            Error::Features(_) => "unsupported EROFS features",
            Error::Layout(_) => "unsupported inode data layout",
            Error::Dirent => "malformed directory block",
            Error::Xattr => "malformed extended attributes",
            Error::Chunk(_) => "malformed chunk format",
            Error::Compression => "malformed or unsupported compression",
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Error::BlockSize(bits) => write!(f, " (log2 is {bits})"),
            Error::Features(bits) => write!(f, " ({bits:#x})"),
            Error::Layout(n) | Error::Chunk(n) => write!(f, " ({n:#x})"),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for Error {}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Error> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Error::Truncated)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Error> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Error> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Error> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Copies `bytes` to `at`; callers own a buffer of fixed, sufficient length.
fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}
