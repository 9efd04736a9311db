//! Contents of one file on their way to compressed extents.

use dock2uni_format::erofs::{
    BLOCK, EXTENDED_LEN, Extent, LCLUSTER_INDEX_LEN, MAP_ALIGN, MAP_HEADER_LEN, MapHeader,
    PCLUSTER_MAX, Stored,
};

use super::encoder::{EXTENT_BYTES, Encoder, Piece};
use super::out::Out;
use crate::rootfs::error::Stop;

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

/// What a file's contents came to.
pub(super) enum Packed {
    /// To a compressed file; these are the bytes beside its inode.
    Yes(Box<[(u8, u8)]>, Vec<u8>),
    /// To nothing smaller: the bytes that were not written yet are an ordinary file's last ones.
    No(Vec<u8>),
}

/// One file's contents.
pub(super) struct Packing {
    size: u64,
    /// Bytes that have not come yet.
    left: u64,
    /// Bytes that wait.
    buffer: Vec<u8>,
    /// How many bytes are tried at once.
    window: usize,
    extents: Vec<(u8, u8)>,
    /// Bytes that may go beside the inode.
    room: usize,
}

impl Packing {
    /// Contents of `size` bytes of a file with so many bytes of extended attributes. `None` if they
    /// are not worth the effort.
    pub fn new(size: u64, xattrs: usize) -> Option<Packing> {
        let beside = (EXTENDED_LEN + xattrs).next_multiple_of(MAP_ALIGN) as u64 + index_len(size);
        // Less than a block.
        let room = (BLOCK as u64).saturating_sub(beside) as usize;
        let (buffer, extents) = (Vec::new(), Vec::new());
        let window = (PCLUSTER_MAX as usize * BLOCK * RATIO).min(EXTENT_BYTES);
        (size >= LEAST).then_some(Packing { size, left: size, buffer, window, extents, room })
    }

    /// Takes the next bytes, and writes extents that are complete.
    pub fn write(
        &mut self,
        mut bytes: &[u8],
        encoder: &mut Encoder,
        out: &mut Out<'_>,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let take = bytes.len().min(EXTENT_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            self.left -= take as u64;
            if self.buffer.len() == EXTENT_BYTES && self.left > 0 {
                let window = self.window;
                let taken = self.extent(encoder.next(&self.buffer[..window]), |bytes, zeros| {
                    out.zeros(zeros as u64).and_then(|()| out.write(bytes)).map_err(Stop::Write)
                })?;
                self.buffer.drain(..taken);
            }
        }
        Ok(())
    }

    /// Notes an extent at the start of the buffer and hands its bytes on, with the number of zeros
    /// that go before them. Returns how many bytes of the file it has.
    fn extent(
        &mut self,
        piece: Piece<'_>,
        write: impl FnOnce(&[u8], usize) -> Result<(), Stop>,
    ) -> Result<usize, Stop> {
        // At most 64 blocks each.
        let blocks = |len: usize| len.div_ceil(BLOCK) as u8;
        match piece {
            Piece::Plain(taken) => {
                self.extents.push((blocks(taken), blocks(taken)));
                write(&self.buffer[..taken], 0)?;
                Ok(taken)
            }
            Piece::Packed(taken, bytes) => {
                self.extents.push((blocks(taken), blocks(bytes.len())));
                let used = bytes.len().next_multiple_of(BLOCK);
                // A little more than what would have fitted.
                let more = PCLUSTER_MAX as usize * BLOCK * taken / used * 17 / 16;
                self.window =
                    more.next_multiple_of(BLOCK).clamp(PCLUSTER_MAX as usize * BLOCK, EXTENT_BYTES);
                write(bytes, used - bytes.len())?;
                Ok(taken)
            }
            Piece::Inline(bytes) => {
                self.extents.push((blocks(self.buffer.len()), 0));
                write(bytes, 0)?;
                Ok(self.buffer.len())
            }
        }
    }

    /// All contents have been taken: writes what is left of them, unless the file turns out to be no
    /// smaller for it.
    pub fn end(mut self, encoder: &mut Encoder, out: &mut Out<'_>) -> Result<Packed, Stop> {
        let written = self.extents.len();
        let kept = self.buffer.clone();
        let (mut blocks, mut inline) = (Vec::new(), Vec::new());
        while !self.buffer.is_empty() {
            let is_last = self.buffer.len() <= self.window;
            let piece = if is_last {
                encoder.last(&self.buffer, self.room)
            } else {
                encoder.next(&self.buffer[..self.window])
            };
            let to = if matches!(piece, Piece::Inline(_)) { &mut inline } else { &mut blocks };
            let taken = self.extent(piece, |bytes, zeros| {
                to.resize(to.len() + zeros, 0);
                to.extend_from_slice(bytes);
                Ok(())
            })?;
            self.buffer.drain(..taken);
        }
        let used: u64 = self.extents.iter().map(|&(_, blocks)| u64::from(blocks)).sum();
        let packed = used * BLOCK as u64 + inline.len() as u64 + index_len(self.size);
        let gained = self.extents[..written].iter().any(|&(count, blocks)| count != blocks);
        if !gained && packed + LEAST > self.size {
            return Ok(Packed::No(kept));
        }
        out.write(&blocks).and_then(|()| out.align()).map_err(Stop::Write)?;
        Ok(Packed::Yes(self.extents.into(), inline))
    }
}
