//! Reader of EROFS images: in RAM (the boot module, used in place) or on a disk (through a page
//! cache).
//!
//! An image is untrusted: every offset and length in it is checked where it is used. Damage is
//! EUCLEAN, a failing or too short device is EIO, and so is a block that does not have the hash that
//! the boot record vouches for, or does not decompress. The format itself is in [`dock2uni_format::erofs`].

mod blake2b;
mod data;
mod dir;
mod packed;
mod source;
mod verity;
mod xattr;

pub use data::FilePager;
pub use dir::Entry;
pub use source::{Source, read_run};

use crate::errno::{Errno, Result};
use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_format::erofs::{self as format, BLOCK, EXTENDED_LEN, Inode, Superblock};
use packed::Decoder;

/// An open image.
pub struct Image {
    source: Source,
    sb: Superblock,
    decoder: Decoder,
}

/// An inode with the position it was read from.
#[derive(Clone, Debug)]
pub struct Node {
    /// Position.
    pub nid: u64,
    /// Byte offset of what follows the inode itself: xattrs, then inline data or chunk addresses.
    after: u64,
    /// Its fields.
    pub inode: Inode,
}

/// Longest symbolic link target in bytes.
const LINK_MAX: u64 = 4096;

/// Translates a refusal of the format.
fn damaged(_error: format::Error) -> Errno {
    Errno::EUCLEAN
}

impl Image {
    /// Reads and checks the superblock. EINVAL if there is none or it needs features we lack;
    /// EUCLEAN if it is damaged; EIO if the source ends before the image does; ENOMEM.
    pub fn open(source: Source) -> Result<Arc<Image>> {
        let block = source.bytes(0, BLOCK)?;
        let sb = Superblock::parse(&block).map_err(|error| match error {
            format::Error::Checksum | format::Error::Truncated => Errno::EUCLEAN,
            _ => Errno::EINVAL,
        })?;
        drop(block);
        if u64::from(sb.blocks) * BLOCK as u64 > source.len() {
            return Err(Errno::EIO);
        }
        let decoder = Decoder::new(sb.feature_incompat & format::incompat::COMPR_CFGS != 0)?;
        Ok(Arc::new(Image { source, sb, decoder }))
    }

    /// The superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.sb
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        u64::from(self.sb.blocks) * BLOCK as u64
    }

    /// Whether it has no blocks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest inode number there can be.
    pub fn max_nid(&self) -> u64 {
        self.len() / format::SLOT as u64
    }

    /// The root directory.
    pub fn root_nid(&self) -> u64 {
        u64::from(self.sb.root_nid)
    }

    /// Reads an inode.
    pub fn node(&self, nid: u64) -> Result<Node> {
        let offset = self.sb.inode_offset(nid).ok_or(Errno::EUCLEAN)?;
        let room = self.len().checked_sub(offset).ok_or(Errno::EUCLEAN)?;
        let bytes = self.bytes(offset, room.min(EXTENDED_LEN as u64) as usize)?;
        let first = bytes.first_chunk::<2>().ok_or(Errno::EUCLEAN)?;
        let len = format::inode_len(*first);
        let inode = Inode::parse(&bytes).map_err(damaged)?;
        if inode.size > i64::MAX as u64 {
            return Err(Errno::EUCLEAN);
        }
        Ok(Node { nid, after: offset + len as u64, inode })
    }

    /// Time of last change of an inode.
    pub fn mtime(&self, node: &Node) -> super::inode::Time {
        let time = node.inode.mtime.unwrap_or(self.sb.build_time);
        super::inode::Time { secs: time.secs, nanos: time.nanos.min(999_999_999) }
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, node: &Node) -> Result<Vec<u8>> {
        if node.inode.size == 0 || node.inode.size >= LINK_MAX {
            return Err(Errno::EUCLEAN);
        }
        let mut target = alloc::vec![0; node.inode.size as usize];
        self.read_file(node, 0, &mut target)?;
        if target.contains(&0) {
            return Err(Errno::EUCLEAN);
        }
        Ok(target)
    }

    /// Bytes of the image. EUCLEAN if they lie outside of it.
    fn bytes(&self, offset: u64, len: usize) -> Result<Cow<'_, [u8]>> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.len() => self.source.bytes(offset, len),
            _ => Err(Errno::EUCLEAN),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
