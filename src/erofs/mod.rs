//! EROFS images: a writer that streams, and a reader.
//!
//! The on-disk records are in [`dock2uni_format::erofs`], shared with the kernel.
//!
//! # Order of an image
//! ```text
//! | block 0: superblock, root inode | file data ... | inodes, tails, small directories |
//! | whole blocks of larger directories | shared xattrs |
//! ```
//! File data is written as it arrives, every file's whole blocks together and aligned, so that a
//! kernel maps them in place. What is left of a file after its last whole block, the *tail*, is
//! packed with the file's inode wherever both fit one block: the block is read for the inode
//! anyway. Tails wait in memory until the tree is known; if there are too many of them, those
//! read so far are written with their inodes right there, between the data of files.
//!
//! Compressed on request ([`Compression`]): then a file's blocks are those of its extents, and what
//! waits with the inodes may be the file's last extent.
//!
//! Its hash tree follows the image ([`verity`]).
//!
//! Everything depends on the input alone: the same layers give the same bytes.

mod behind;
mod bins;
mod directory;
mod encoder;
mod metadata;
mod out;
mod packer;
mod packing;
mod reader;
pub mod verity;
mod writer;

pub(crate) use packing::PackedMap;
pub use reader::{DirEntry, Node, ReadAt, ReadError, Reader, Xattr};
pub(crate) use writer::{Finished, Identity, Writer};

/// How the files of a root are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// LZ4: about half the size, decoded faster than a disk reads.
    Lz4,
}

impl Compression {
    /// Its name in options, keys and statements.
    pub const fn name(self) -> &'static str {
        match self {
            Compression::Lz4 => "lz4",
        }
    }
}

impl std::str::FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Compression, String> {
        match text {
            "lz4" => Ok(Compression::Lz4),
            _ => Err("roots are compressed by lz4".to_owned()),
        }
    }
}
