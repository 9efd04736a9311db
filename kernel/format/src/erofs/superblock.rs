//! The superblock (`struct erofs_super_block`).

use super::{BLOCK, BLOCK_BITS, Error, SLOT, Time, array, put, u16_at, u32_at, u64_at};
use crate::record::crc32c;

/// Where the superblock starts, in bytes from the start of the volume.
pub const SUPERBLOCK_OFFSET: usize = 1024;
/// Length of the superblock without extension slots, in bytes.
pub const SUPERBLOCK_LEN: usize = 128;
const MAGIC: u32 = 0xe0f5_e1e2;
/// LZ4 among the algorithms that the volume's files are compressed with.
const LZ4: u16 = 1;

/// Features that a reader may ignore.
pub mod compat {
    /// `checksum` is valid.
    pub const SB_CHKSUM: u32 = 1 << 0;
    /// Extended inodes carry mtime rather than ctime.
    pub const MTIME: u32 = 1 << 1;
}

/// Features that a reader must know.
pub mod incompat {
    /// Compressed bytes are preceded by zeros rather than followed.
    pub const ZERO_PADDING: u32 = 1 << 0;
    /// Parameters of compression follow the superblock, and extents may take several blocks.
    pub const COMPR_CFGS: u32 = 1 << 1;
    /// Chunk-based files.
    pub const CHUNKED_FILE: u32 = 1 << 2;
    /// Inline extents.
    pub const ZTAILPACKING: u32 = 1 << 4;
    /// All that compressed files need.
    pub const COMPRESSED: u32 = ZERO_PADDING | COMPR_CFGS | ZTAILPACKING;
}

/// The fields of the superblock that are used here; all others are zero when emitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Superblock {
    /// [`compat`] bits. [`compat::SB_CHKSUM`] is added by [`Superblock::emit_block`].
    pub feature_compat: u32,
    /// [`incompat`] bits.
    pub feature_incompat: u32,
    /// nid of the root directory.
    pub root_nid: u16,
    /// Number of inodes.
    pub inos: u64,
    /// mtime of every compact inode.
    pub build_time: Time,
    /// Length of the volume in blocks.
    pub blocks: u32,
    /// Block that nids count from.
    pub meta_blkaddr: u32,
    /// First block of the shared xattr area.
    pub xattr_blkaddr: u32,
    /// Volume UUID, bytes in the order in which text shows them.
    pub uuid: [u8; 16],
    /// Volume label, zero padded.
    pub volume_name: [u8; 16],
}

impl Superblock {
    /// Reads the superblock out of the volume's first block (4,096 bytes from offset 0),
    /// checking its checksum if it has one.
    pub fn parse(block0: &[u8]) -> Result<Superblock, Error> {
        let sb = block0.get(SUPERBLOCK_OFFSET..BLOCK).ok_or(Error::Truncated)?;
        if u32_at(sb, 0)? != MAGIC {
            return Err(Error::Magic);
        }
        if sb[12] != BLOCK_BITS {
            return Err(Error::BlockSize(sb[12]));
        }
        let feature_compat = u32_at(sb, 8)?;
        if feature_compat & compat::SB_CHKSUM != 0 && u32_at(sb, 4)? != checksum(sb) {
            return Err(Error::Checksum);
        }
        let feature_incompat = u32_at(sb, 80)?;
        let unknown = feature_incompat & !(incompat::CHUNKED_FILE | incompat::COMPRESSED);
        if unknown != 0 {
            return Err(Error::Features(unknown));
        }
        if feature_incompat & incompat::COMPR_CFGS != 0 && u16_at(sb, 84)? & !LZ4 != 0 {
            return Err(Error::Compression);
        }
        Ok(Superblock {
            feature_compat,
            feature_incompat,
            root_nid: u16_at(sb, 14)?,
            inos: u64_at(sb, 16)?,
            build_time: Time { secs: u64_at(sb, 24)?.cast_signed(), nanos: u32_at(sb, 32)? },
            blocks: u32_at(sb, 36)?,
            meta_blkaddr: u32_at(sb, 40)?,
            xattr_blkaddr: u32_at(sb, 44)?,
            uuid: array(sb, 48)?,
            volume_name: array(sb, 64)?,
        })
    }

    /// Writes the superblock into the volume's first block, whose other bytes are kept, and sets
    /// the checksum, which covers the block from the superblock to its end: emit it last.
    pub fn emit_block(&self, block0: &mut [u8; BLOCK]) {
        let sb = &mut block0[SUPERBLOCK_OFFSET..];
        sb[..SUPERBLOCK_LEN].fill(0);
        put(sb, 0, &MAGIC.to_le_bytes());
        put(sb, 8, &(self.feature_compat | compat::SB_CHKSUM).to_le_bytes());
        sb[12] = BLOCK_BITS;
        put(sb, 14, &self.root_nid.to_le_bytes());
        put(sb, 16, &self.inos.to_le_bytes());
        put(sb, 24, &self.build_time.secs.to_le_bytes());
        put(sb, 32, &self.build_time.nanos.to_le_bytes());
        put(sb, 36, &self.blocks.to_le_bytes());
        put(sb, 40, &self.meta_blkaddr.to_le_bytes());
        put(sb, 44, &self.xattr_blkaddr.to_le_bytes());
        put(sb, 48, &self.uuid);
        put(sb, 64, &self.volume_name);
        put(sb, 80, &self.feature_incompat.to_le_bytes());
        if self.feature_incompat & incompat::COMPR_CFGS != 0 {
            put(sb, 84, &LZ4.to_le_bytes());
        }
        let sum = checksum(sb);
        put(sb, 4, &sum.to_le_bytes());
    }

    /// Where inode `nid` starts, in bytes from the start of the volume; `None` on overflow.
    pub fn inode_offset(&self, nid: u64) -> Option<u64> {
        nid.checked_mul(SLOT as u64)?.checked_add(u64::from(self.meta_blkaddr) * BLOCK as u64)
    }

    /// Where shared xattr `id` starts, in bytes from the start of the volume.
    pub fn shared_xattr_offset(&self, id: u32) -> u64 {
        u64::from(self.xattr_blkaddr) * BLOCK as u64 + u64::from(id) * 4
    }
}

/// CRC-32C from the superblock to the end of its block with the checksum field taken as zero,
/// without the final complement.
fn checksum(sb: &[u8]) -> u32 {
    let mut copy = [0; BLOCK - SUPERBLOCK_OFFSET];
    copy.copy_from_slice(sb);
    copy[4..8].fill(0);
    !crc32c(&copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            feature_compat: compat::SB_CHKSUM | compat::MTIME,
            feature_incompat: incompat::CHUNKED_FILE,
            root_nid: 36,
            inos: 5,
            build_time: Time { secs: -3, nanos: 7 },
            blocks: 9,
            meta_blkaddr: 2,
            xattr_blkaddr: 8,
            uuid: [0xab; 16],
            volume_name: *b"root\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    #[test]
    fn emit_then_parse_gives_the_same_superblock() {
        let mut block = [0x5a; BLOCK];
        sample().emit_block(&mut block);
        assert_eq!(Superblock::parse(&block), Ok(sample()));
        assert_eq!(block[1023], 0x5a);
        assert_eq!(sample().inode_offset(3), Some(2 * 4096 + 96));
        assert_eq!(sample().inode_offset(u64::MAX), None);
    }

    #[test]
    fn damage_is_named() {
        let mut block = [0; BLOCK];
        assert_eq!(Superblock::parse(&block), Err(Error::Magic));
        sample().emit_block(&mut block);
        assert_eq!(Superblock::parse(&block[..4000]), Err(Error::Truncated));
        block[4095] ^= 1;
        assert_eq!(Superblock::parse(&block), Err(Error::Checksum));
        let other = Superblock { feature_incompat: 0x29, ..sample() };
        other.emit_block(&mut block);
        assert_eq!(Superblock::parse(&block), Err(Error::Features(0x28)));
        let other = Superblock { feature_incompat: incompat::COMPRESSED, ..sample() };
        other.emit_block(&mut block);
        assert_eq!(Superblock::parse(&block), Ok(other));
        block[SUPERBLOCK_OFFSET + 12] = 9;
        assert_eq!(Superblock::parse(&block), Err(Error::BlockSize(9)));
    }
}
