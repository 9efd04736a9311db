//! The hash tree that vouches for a root filesystem: dm-verity's on-disk format, version 1, with
//! BLAKE2b-512, blocks of 4,096 bytes and no salt (Linux, `Documentation/admin-guide/device-mapper/
//! verity.rst`).
//!
//! ```text
//! 0              data              data + 1                                  end
//! | EROFS image  | superblock      | top level (one block) | ... | level 0   |   blocks
//! ```
//!
//! A block of a level holds the digests of 64 blocks below it, the data being below level 0. So
//! the digest of block `i` of a level stands at byte `64 * i` of the level above. The digest of the
//! top block is the root hash. An image of one block has no levels: the root hash is its digest.
//!
//! The superblock is for other tools. What the kernel needs is in the boot record's footer, which a
//! signature may vouch for.

use alloc::{format, string::String};

/// Bytes of a block, data and hashes alike; as of EROFS.
pub const BLOCK: usize = 4096;
/// Bytes of a digest.
pub const DIGEST: usize = 64;
/// Digests in a block.
const FANOUT: u64 = (BLOCK / DIGEST) as u64;
/// Levels over as many blocks as an EROFS image can have (2^32).
const MAX_LEVELS: usize = 6;

/// What vouches for a root filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verity {
    /// Digest of the top of the tree.
    pub root_hash: [u8; DIGEST],
    /// Blocks of the image: all that is hashed. Not 0.
    pub blocks: u32,
}

impl Verity {
    /// The root hash in hexadecimal, as `veritysetup` takes it.
    pub fn hex(&self) -> String {
        self.root_hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// One level of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Its first block, counted from the start of the image.
    pub first: u64,
    /// Its blocks.
    pub blocks: u64,
}

/// Where the levels of a tree lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    levels: [Level; MAX_LEVELS],
    count: usize,
    /// Where the tree ends, in blocks from the start of the image.
    pub end: u64,
}

impl Shape {
    /// The tree over an image of `data` blocks.
    pub fn new(data: u32) -> Shape {
        let mut levels = [Level::default(); MAX_LEVELS];
        let (mut count, mut below) = (0, u64::from(data));
        while below > 1 && count < MAX_LEVELS {
            below = below.div_ceil(FANOUT);
            levels[count].blocks = below;
            count += 1;
        }
        let mut end = u64::from(data) + 1;
        for level in levels[..count].iter_mut().rev() {
            level.first = end;
            end += level.blocks;
        }
        Shape { levels, count, end }
    }

    /// The levels from the lowest, which holds the digests of the data, to the top.
    pub fn levels(&self) -> &[Level] {
        &self.levels[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_lie_as_dm_verity_has_them() {
        let at = |data| {
            let shape = Shape::new(data);
            let levels = shape.levels().iter().map(|level| (level.first, level.blocks));
            (levels.collect::<alloc::vec::Vec<_>>(), shape.end)
        };
        assert_eq!(at(1), (alloc::vec![], 2));
        assert_eq!(at(2), (alloc::vec![(3, 1)], 4));
        assert_eq!(at(64), (alloc::vec![(65, 1)], 66));
        assert_eq!(at(65), (alloc::vec![(67, 2), (66, 1)], 69));
        assert_eq!(at(64 * 64 + 1).0.len(), 3);
        assert_eq!(at(u32::MAX).0.len(), 6);
        assert_eq!(at(u32::MAX).0[5].1, 1);
    }
}
