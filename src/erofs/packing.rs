//! Contents of one file on their way to compressed extents.

use dock2uni_format::erofs::{
    BLOCK, EXTENDED_LEN, Extent, LCLUSTER_INDEX_LEN, MAP_ALIGN, MAP_HEADER_LEN, MapHeader,
    PCLUSTER_MAX, Stored,
};

use super::encoder::{EXTENT_BYTES, Encoder, Piece};

/// Files below this are left alone, and so are files where less is saved.
const LEAST: u64 = 64;
/// First guess at how much better than the original the compressed bytes are.
const RATIO: usize = 3;

/// Where a compressed file's data lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackedMap {
    /// First block.
    pub block: u32,
    /// For each extent, its length in blocks of the file and in blocks of the image: as many if it is
    /// not compressed, none if it lies beside the inode. Extents lie one after the other.
    pub extents: Box<[(u8, u8)]>,
    /// Length of the extent beside the inode in bytes.
    pub inline_len: u16,
}

impl PackedMap {
    /// Blocks of the image.
    pub fn blocks(&self) -> u32 {
        self.extents.iter().map(|&(_, blocks)| u32::from(blocks)).sum()
    }

    /// Writes the header and the indexes, and returns their length.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        MapHeader { inline_len: self.inline_len }.emit(out);
        let (mut at, mut first, mut block) = (MAP_HEADER_LEN, 0, self.block);
        let mut emit = |extent: Extent| {
            extent.emit(&mut out[at..]);
            at += extent.count as usize * LCLUSTER_INDEX_LEN;
        };
        for &(count, blocks) in &self.extents {
            if count == blocks {
                for plain in 0..u32::from(count) {
                    emit(Extent { first, count: 1, stored: Stored::Plain(block + plain) });
                }
            } else {
                let stored = match blocks {
                    0 => Stored::Inline,
                    n => Stored::Blocks(block, u16::from(n)),
                };
                emit(Extent { first, count: u64::from(count), stored });
            }
            first += u64::from(count);
            block += u32::from(blocks);
        }
        at
    }
}

/// Length of header and indexes of a file of `size` bytes.
pub(super) fn index_len(size: u64) -> u64 {
    MAP_HEADER_LEN as u64 + size.div_ceil(BLOCK as u64) * LCLUSTER_INDEX_LEN as u64
}

/// Bytes beside the inode that are left for an extent of a file of `size` bytes with so many bytes of
/// extended attributes. `None` if the file is not worth compressing.
pub(super) fn room(size: u64, xattrs: usize) -> Option<usize> {
    let beside = (EXTENDED_LEN + xattrs).next_multiple_of(MAP_ALIGN) as u64 + index_len(size);
    // Less than a block.
    (size >= LEAST).then(|| (BLOCK as u64).saturating_sub(beside) as usize)
}

/// Contents of a file, or a part of them: whole blocks unless the file ends with it.
pub(super) struct Segment {
    pub bytes: Vec<u8>,
    /// Bytes that may go beside the inode, if the file ends here.
    pub room: Option<usize>,
}

/// What a segment came to.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The segment's own bytes, if its file ends with it.
    pub bytes: Vec<u8>,
    /// Its extents: blocks of the file and of the image.
    pub extents: Vec<(u8, u8)>,
    /// What goes to blocks; the last may be cut short.
    pub blocks: Vec<u8>,
    /// What goes beside the inode.
    pub inline: Vec<u8>,
}

/// Whether it pays to compress a file of `size` bytes to so many blocks and bytes beside the inode.
pub(super) fn pays(size: u64, blocks: u64, inline: usize) -> bool {
    blocks * BLOCK as u64 + inline as u64 + index_len(size) + LEAST <= size
}

/// Compresses a segment.
pub(super) fn pack(segment: Segment, encoder: &mut Encoder) -> Done {
    let Segment { bytes, room } = segment;
    let mut done = Done::default();
    // How many bytes are tried at once.
    let mut window = (PCLUSTER_MAX as usize * BLOCK * RATIO).min(EXTENT_BYTES);
    // At most 64 blocks each.
    let blocks = |len: usize| len.div_ceil(BLOCK) as u8;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let piece = match room {
            Some(room) if rest.len() <= window => encoder.last(rest, room),
            _ => encoder.next(&rest[..window.min(rest.len())]),
        };
        at += match piece {
            Piece::Plain(taken) => {
                done.extents.push((blocks(taken), blocks(taken)));
                done.blocks.extend_from_slice(&rest[..taken]);
                taken
            }
            Piece::Packed(taken, packed) => {
                done.extents.push((blocks(taken), blocks(packed.len())));
                let used = packed.len().next_multiple_of(BLOCK);
                // A little more than what would have fitted.
                let more = PCLUSTER_MAX as usize * BLOCK * taken / used * 17 / 16;
                window =
                    more.next_multiple_of(BLOCK).clamp(PCLUSTER_MAX as usize * BLOCK, EXTENT_BYTES);
                // The zeros go before it.
                done.blocks.resize(done.blocks.len() + used - packed.len(), 0);
                done.blocks.extend_from_slice(packed);
                taken
            }
            Piece::Inline(packed) => {
                done.extents.push((blocks(rest.len()), 0));
                done.inline.extend_from_slice(packed);
                rest.len()
            }
        };
    }
    if room.is_some() {
        done.bytes = bytes;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use dock2uni_format::lz4;

    #[test]
    fn segments_of_any_length_are_what_their_extents_decode_to() {
        let mut encoder = Encoder::new();
        let mut state = 1u32;
        let mut text = vec![0u8; 2 * EXTENT_BYTES + 5 * BLOCK];
        for (at, byte) in text.iter_mut().enumerate() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Noise here and there, and much of the same.
            *byte = if at / 9000 % 3 == 0 { (state >> 24) as u8 } else { (at / 7 % 50) as u8 };
        }
        for blocks in (1..70).chain([128, 129, 133]) {
            let bytes = text[..blocks * BLOCK].to_vec();
            let done = pack(Segment { bytes: bytes.clone(), room: None }, &mut encoder);
            let (mut at, mut from) = (0, 0);
            for &(count, used) in &done.extents {
                let (count, used) = (usize::from(count), usize::from(used));
                let stored = &done.blocks[from..from + used * BLOCK];
                if count == used {
                    assert!(stored == &bytes[at..at + count * BLOCK], "{blocks}: {at}");
                } else {
                    let mut out = vec![0; count * BLOCK];
                    let start = stored.iter().position(|&byte| byte != 0).unwrap();
                    lz4::decode(&stored[start..], &mut out).unwrap();
                    assert!(out == bytes[at..at + count * BLOCK], "{blocks}: {at}");
                }
                (at, from) = (at + count * BLOCK, from + used * BLOCK);
            }
            assert_eq!((at, from), (bytes.len(), done.blocks.len()));
            assert!(blocks < 8 || done.blocks.len() < bytes.len() * 7 / 8, "{blocks}");
        }
    }
}
