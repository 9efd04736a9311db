//! Chunk-based files (`struct erofs_inode_chunk_info`, `struct erofs_inode_chunk_index`).

use super::{BLOCK_BITS, Error, u32_at};

/// Block address of a hole.
pub const NULL_ADDR: u32 = u32::MAX;
/// Length of one block address in the short form, in bytes.
pub const MAP_LEN: usize = 4;
/// Length of one chunk index in the long form (device, block address), in bytes.
pub const INDEX_LEN: usize = 8;
const BITS_MASK: u16 = 0x1f;
const INDEXES: u16 = 0x20;

/// Format of a chunk-based file: the low 16 bits of [`Inode::u`](super::Inode::u).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// log2 of the chunk size in bytes, 12 to 43.
    pub bits: u8,
    /// Whether the array holds indexes of 8 bytes (mkfs.erofs) instead of addresses of 4.
    pub indexes: bool,
}

impl ChunkInfo {
    /// Reads the format out of [`Inode::u`](super::Inode::u).
    pub fn parse(u: u32) -> Result<ChunkInfo, Error> {
        let format = u as u16;
        if format & !(BITS_MASK | INDEXES) != 0 {
            return Err(Error::Chunk(format));
        }
        let bits = (format & BITS_MASK) as u8 + BLOCK_BITS;
        Ok(ChunkInfo { bits, indexes: format & INDEXES != 0 })
    }

    /// The value for [`Inode::u`](super::Inode::u).
    pub fn emit(self) -> u32 {
        let indexes = if self.indexes { INDEXES } else { 0 };
        u32::from(u16::from(self.bits.saturating_sub(BLOCK_BITS)) & BITS_MASK | indexes)
    }

    /// Number of chunks of a file of `size` bytes.
    pub fn count(self, size: u64) -> u64 {
        size.div_ceil(1 << self.bits)
    }

    /// Length of one element of the array in bytes; the array starts at the next multiple of it
    /// after the inode and its xattrs.
    pub fn entry_len(self) -> usize {
        if self.indexes { INDEX_LEN } else { MAP_LEN }
    }

    /// Reads one element of the array: the chunk's first block, or `None` for a hole.
    pub fn block(self, element: &[u8]) -> Result<Option<u32>, Error> {
        let at = if self.indexes { 4 } else { 0 };
        Ok(Some(u32_at(element, at)?).filter(|&address| address != NULL_ADDR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_survives_a_round_trip() {
        for info in [ChunkInfo { bits: 12, indexes: false }, ChunkInfo { bits: 43, indexes: true }]
        {
            assert_eq!(ChunkInfo::parse(info.emit()), Ok(info));
        }
        assert_eq!(ChunkInfo::parse(0x40), Err(Error::Chunk(0x40)));
        assert_eq!(ChunkInfo { bits: 13, indexes: false }.count(8193), 2);
    }

    #[test]
    fn elements_are_read_in_both_forms() {
        let short = ChunkInfo { bits: 12, indexes: false };
        let long = ChunkInfo { bits: 12, indexes: true };
        assert_eq!(short.block(&[5, 0, 0, 0]), Ok(Some(5)));
        assert_eq!(short.block(&[255; 4]), Ok(None));
        assert_eq!(long.block(&[0, 0, 0, 0, 5, 0, 0, 0]), Ok(Some(5)));
        assert_eq!(long.block(&[0; 4]), Err(Error::Truncated));
    }
}
