//! Compressed files (`struct z_erofs_map_header`, `struct z_erofs_lcluster_index`).
//!
//! A file is cut into *extents*, each compressed on its own. For every block of the file (*logical
//! cluster*) an index of 8 bytes says whether an extent starts there and at which block of the image
//! its compressed bytes lie, or how far away its start is. Compressed bytes end where their last block
//! ends; zeros before them fill the first one. The last extent of a file may lie right behind the
//! indexes instead (*inline*), without filling.
//!
//! Of what the format allows, this is read and written: LZ4, the full form of indexes, extents that
//! start at blocks of the file, of at most [`EXTENT_MAX`] blocks that take at most [`PCLUSTER_MAX`].
//! So a page is never in two extents, and memory for decoding is bounded.

use super::{BLOCK, Error, put, u16_at, u32_at};

/// Blocks of the file that one extent has at most.
pub const EXTENT_MAX: u64 = 64;
/// Blocks of the image that one extent takes at most.
pub const PCLUSTER_MAX: u64 = 16;
/// Length of what describes the whole file, in bytes: the header, and eight bytes that are kept free.
pub const MAP_HEADER_LEN: usize = 16;
/// Length of one index in bytes.
pub const LCLUSTER_INDEX_LEN: usize = 8;
/// Indexes and header start at a multiple of this after the inode and its xattrs.
pub const MAP_ALIGN: usize = 8;
/// Length of what the superblock is followed by if files are compressed, in bytes.
pub const CONFIG_LEN: usize = 16;

/// `Z_EROFS_ADVISE_BIG_PCLUSTER_1`: extents may take several blocks.
const BIG_PCLUSTER: u16 = 0x2;
/// `Z_EROFS_ADVISE_INLINE_PCLUSTER`.
const INLINE_PCLUSTER: u16 = 0x8;
/// `Z_EROFS_LI_D0_CBLKCNT`: the second index of an extent has its length in blocks of the image.
const BLOCK_COUNT: u16 = 1 << 11;
const PLAIN: u16 = 0;
const HEAD: u16 = 1;
const NONHEAD: u16 = 2;
/// Farthest that an LZ4 copy reaches back.
const LZ4_DISTANCE: u16 = u16::MAX;

/// Describes a compressed file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapHeader {
    /// Length of the inline extent in bytes; 0 if there is none.
    pub inline_len: u16,
}

impl MapHeader {
    /// Reads the header.
    pub fn parse(bytes: &[u8]) -> Result<MapHeader, Error> {
        let (inline_len, advise) = (u16_at(bytes, 2)?, u16_at(bytes, 4)?);
        let inline = advise & INLINE_PCLUSTER != 0;
        // Algorithms and the size of logical clusters: LZ4 and a block.
        let known = advise & !(BIG_PCLUSTER | INLINE_PCLUSTER) == 0 && u16_at(bytes, 6)? == 0;
        if !known || inline != (inline_len > 0) || usize::from(inline_len) > BLOCK {
            return Err(Error::Compression);
        }
        Ok(MapHeader { inline_len })
    }

    /// Writes the header to the start of `out`, which has [`MAP_HEADER_LEN`] bytes or more.
    pub fn emit(self, out: &mut [u8]) {
        let inline = if self.inline_len > 0 { INLINE_PCLUSTER } else { 0 };
        out[..MAP_HEADER_LEN].fill(0);
        put(out, 2, &self.inline_len.to_le_bytes());
        put(out, 4, &(BIG_PCLUSTER | inline).to_le_bytes());
    }
}

/// Where an extent's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As they are, in this block of the image.
    Plain(u32),
    /// Compressed, in blocks of the image: the first and their number.
    Blocks(u32, u16),
    /// Compressed, behind the indexes.
    Inline,
}

/// One extent of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block of the file.
    pub first: u64,
    /// Number of blocks of the file.
    pub count: u64,
    /// Where they are.
    pub stored: Stored,
}

impl Extent {
    /// Finds the extent that block `index` of a file with `total` blocks belongs to. `read` gives
    /// the index of a block below `total`.
    pub fn find<E: From<Error>>(
        header: MapHeader,
        index: u64,
        total: u64,
        mut read: impl FnMut(u64) -> Result<[u8; LCLUSTER_INDEX_LEN], E>,
    ) -> Result<Extent, E> {
        let damaged = || E::from(Error::Compression);
        let (kind, head) = parse(&read(index)?)?;
        let (first, (kind, start)) = match kind {
            NONHEAD => {
                let back = if head as u16 & BLOCK_COUNT != 0 { 1 } else { head & 0xffff };
                let first = index.checked_sub(u64::from(back)).ok_or_else(damaged)?;
                (first, parse(&read(first)?)?)
            }
            _ => (index, (kind, head)),
        };
        if kind == PLAIN && first == index {
            return Ok(Extent { first, count: 1, stored: Stored::Plain(start) });
        }
        let (mut count, mut blocks) = (1, 1);
        if first + 1 < total
            && let (NONHEAD, second) = parse(&read(first + 1)?)?
        {
            // The distances to the start, replaced by the number of blocks, and to the next extent.
            let packed = second as u16;
            if packed & BLOCK_COUNT == 0 {
                return Err(damaged());
            }
            (count, blocks) = (1 + u64::from(second >> 16), packed & !BLOCK_COUNT);
        }
        let sound = kind == HEAD
            && (1..=EXTENT_MAX).contains(&count)
            && (1..=PCLUSTER_MAX as u16).contains(&blocks)
            && first + count <= total
            && (first..first + count).contains(&index);
        if !sound {
            return Err(damaged());
        }
        let inline = header.inline_len > 0 && first + count == total;
        let stored = if inline { Stored::Inline } else { Stored::Blocks(start, blocks) };
        Ok(Extent { first, count, stored })
    }

    /// Writes the extent's indexes to the start of `out`, which has room for `count` of them.
    pub fn emit(&self, out: &mut [u8]) {
        let (kind, start, blocks) = match self.stored {
            Stored::Plain(start) => (PLAIN, start, 1),
            Stored::Blocks(start, blocks) => (HEAD, start, blocks),
            Stored::Inline => (HEAD, 0, 1),
        };
        emit_index(out, kind, start);
        for at in 1..self.count {
            // An extent is short: both fit.
            let back = if at == 1 { blocks | BLOCK_COUNT } else { at as u16 };
            let ahead = (self.count - at) as u32;
            emit_index(
                &mut out[at as usize * LCLUSTER_INDEX_LEN..],
                NONHEAD,
                u32::from(back) | ahead << 16,
            );
        }
    }
}

/// The type of an index and what it holds beside.
fn parse(bytes: &[u8]) -> Result<(u16, u32), Error> {
    let (kind, offset) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?);
    // Within its block an extent starts at the beginning.
    if kind > NONHEAD || (kind != NONHEAD && offset != 0) {
        return Err(Error::Compression);
    }
    Ok((kind, u32_at(bytes, 4)?))
}

fn emit_index(out: &mut [u8], kind: u16, value: u32) {
    put(out, 0, &kind.to_le_bytes());
    put(out, 2, &[0, 0]);
    put(out, 4, &value.to_le_bytes());
}

/// Writes what follows the superblock: the parameters of LZ4 (`struct z_erofs_lz4_cfgs`), with their
/// length in front.
pub fn emit_config(out: &mut [u8]) {
    out[..CONFIG_LEN].fill(0);
    put(out, 0, &(CONFIG_LEN as u16 - 2).to_le_bytes());
    put(out, 2, &LZ4_DISTANCE.to_le_bytes());
    put(out, 4, &(PCLUSTER_MAX as u16).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const INLINE: MapHeader = MapHeader { inline_len: 7 };
    const EXTENTS: [Extent; 5] = [
        Extent { first: 0, count: 5, stored: Stored::Blocks(9, 2) },
        Extent { first: 5, count: 1, stored: Stored::Plain(11) },
        Extent { first: 6, count: 2, stored: Stored::Blocks(12, 1) },
        Extent { first: 8, count: 64, stored: Stored::Blocks(13, 16) },
        Extent { first: 72, count: 3, stored: Stored::Inline },
    ];

    fn indexes() -> [u8; 75 * LCLUSTER_INDEX_LEN] {
        let mut bytes = [0xee; 75 * LCLUSTER_INDEX_LEN];
        for extent in EXTENTS {
            extent.emit(&mut bytes[extent.first as usize * LCLUSTER_INDEX_LEN..]);
        }
        bytes
    }

    fn find(header: MapHeader, bytes: &[u8], index: u64) -> Result<Extent, Error> {
        let read = |at: u64| {
            let at = at as usize * LCLUSTER_INDEX_LEN;
            bytes[at..].first_chunk().copied().ok_or(Error::Truncated)
        };
        Extent::find(header, index, 75, read)
    }

    #[test]
    fn extents_are_found_from_each_of_their_blocks() {
        let bytes = indexes();
        for extent in EXTENTS {
            for index in extent.first..extent.first + extent.count {
                assert_eq!(find(INLINE, &bytes, index), Ok(extent), "{index}");
            }
        }
        let last = find(MapHeader::default(), &bytes, 74).unwrap();
        assert_eq!(last.stored, Stored::Blocks(0, 1));
    }

    #[test]
    fn damaged_indexes_are_refused_and_never_a_panic() {
        let bytes = indexes();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes;
                bad[at] ^= 1 << bit;
                for index in 0..75 {
                    if let Ok(found) = find(INLINE, &bad, index) {
                        assert!(found.count <= EXTENT_MAX && found.first + found.count <= 75);
                        assert!((found.first..found.first + found.count).contains(&index));
                    }
                }
            }
        }
    }

    #[test]
    fn headers_survive_a_round_trip() {
        for header in [INLINE, MapHeader::default()] {
            let mut bytes = [0xff; MAP_HEADER_LEN];
            header.emit(&mut bytes);
            assert_eq!(MapHeader::parse(&bytes), Ok(header));
            for (at, value) in [(4, 0x20), (6, 1), (7, 2)] {
                let mut bad = bytes;
                bad[at] |= value;
                assert_eq!(MapHeader::parse(&bad), Err(Error::Compression));
            }
        }
    }
}
