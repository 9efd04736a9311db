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
//! Its hash tree follows the image ([`verity`]).
//!
//! Everything depends on the input alone: the same layers give the same bytes.

mod bins;
mod directory;
mod metadata;
mod out;
mod reader;
pub mod verity;
mod writer;

pub use reader::{DirEntry, Node, ReadAt, ReadError, Reader, Xattr};
pub(crate) use writer::{Identity, Writer};
