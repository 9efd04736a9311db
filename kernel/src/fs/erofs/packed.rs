//! Compressed extents: found, read, decoded.
//!
//! Pages of a compressed file are cached as those of any other. Whoever needs one decodes the extent
//! that it is in, and all of its pages come along. What is stored is read first, and checked; then it
//! is decoded in memory that was set aside when the image was opened, so that a page fault never waits
//! for a large piece of memory, and nobody waits for a disk with it.

use super::{Image, Node, damaged};
use crate::arch::{PAGE_SIZE, cpu};
use crate::errno::{Errno, Result};
use crate::mm::PageRef;
use crate::sync::{Mutex, MutexGuard};
use alloc::borrow::Cow;
use alloc::vec::Vec;
use dock2uni_format::erofs::{
    self as format, BLOCK, EXTENT_MAX, Extent, LCLUSTER_INDEX_LEN, MAP_ALIGN, MAP_HEADER_LEN,
    MapHeader, PCLUSTER_MAX, Stored,
};
use dock2uni_format::lz4;

/// Most extents that are decoded at once.
const SLOTS_MAX: usize = 4;

/// A compressed extent, and where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its place in the file.
    pub extent: Extent,
    /// Position of its bytes in the image.
    at: u64,
    /// Their number, zeros before them included.
    len: usize,
}

/// Memory to decode in.
pub struct Decoder(Vec<Mutex<Slot>>);

struct Slot {
    stored: Vec<u8>,
    bytes: Vec<u8>,
}

/// Why an extent was not found.
struct Fault(Errno);

impl From<format::Error> for Fault {
    fn from(error: format::Error) -> Fault {
        Fault(damaged(error))
    }
}

/// An extent as it came in.
enum Input<'a> {
    Bytes(Cow<'a, [u8]>),
    Frames(Vec<PageRef>),
}

impl Decoder {
    /// Sets the memory aside, for images with compressed files.
    pub fn new(wanted: bool) -> Result<Decoder> {
        let buffer = |blocks: u64| -> Result<Vec<u8>> {
            let mut buffer = Vec::new();
            let len = blocks as usize * BLOCK;
            buffer.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
            buffer.resize(len, 0);
            Ok(buffer)
        };
        let count = if wanted { cpu::count().min(SLOTS_MAX) } else { 0 };
        let mut slots = Vec::new();
        for _ in 0..count {
            let (stored, bytes) = (buffer(PCLUSTER_MAX)?, buffer(EXTENT_MAX)?);
            slots.push(Mutex::new(Slot { stored, bytes }));
        }
        Ok(Decoder(slots))
    }

    fn slot(&self) -> Result<MutexGuard<'_, Slot>> {
        if let Some(free) = self.0.iter().find_map(Mutex::try_lock) {
            return Ok(free);
        }
        // None, if the superblock said that no file is compressed.
        let own = cpu::id().checked_rem(self.0.len()).ok_or(Errno::EUCLEAN)?;
        Ok(self.0[own].lock())
    }
}

impl Image {
    /// The extent of block `index` of a compressed file: where the block is if it is stored as it
    /// is, or the compressed extent.
    pub(super) fn extent(
        &self,
        node: &Node,
        index: u64,
    ) -> Result<core::result::Result<u64, Packed>> {
        let map = (node.after + node.inode.xattr_len() as u64).next_multiple_of(MAP_ALIGN as u64);
        let header = MapHeader::parse(&self.array::<MAP_HEADER_LEN>(map)?).map_err(damaged)?;
        let indexes = map + MAP_HEADER_LEN as u64;
        let total = node.inode.size.div_ceil(BLOCK as u64);
        let read = |index| {
            self.array::<LCLUSTER_INDEX_LEN>(indexes + index * LCLUSTER_INDEX_LEN as u64)
                .map_err(Fault)
        };
        let extent = Extent::find(header, index, total, read).map_err(|Fault(errno)| errno)?;
        let start = |block: u32| u64::from(block) * BLOCK as u64;
        Ok(match extent.stored {
            Stored::Plain(block) => Ok(start(block)),
            Stored::Blocks(block, blocks) => {
                Err(Packed { extent, at: start(block), len: usize::from(blocks) * BLOCK })
            }
            Stored::Inline => {
                let at = indexes + total * LCLUSTER_INDEX_LEN as u64;
                Err(Packed { extent, at, len: header.inline_len.into() })
            }
        })
    }

    fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let mut out = [0; N];
        match offset.checked_add(N as u64) {
            Some(end) if end <= self.len() => self.source.copy(offset, &mut out)?,
            _ => return Err(Errno::EUCLEAN),
        }
        Ok(out)
    }

    /// Decodes an extent and gives away its pages: `index`, and all others if `all` are wanted and
    /// there is memory. Bytes past the end of the file are zero. EIO if the extent is damaged.
    pub(super) fn unpack(
        &self,
        node: &Node,
        packed: &Packed,
        index: u64,
        all: bool,
        sink: &mut dyn FnMut(u64, PageRef),
    ) -> Result<()> {
        let first = packed.extent.first;
        let end = (packed.extent.count as usize) * BLOCK;
        let size = (node.inode.size - first * BLOCK as u64).min(end as u64) as usize;
        let input = self.stored(packed)?;
        let mut slot = self.decoder.slot()?;
        let Slot { stored, bytes } = &mut *slot;
        let stored = match &input {
            Input::Bytes(input) => &**input,
            Input::Frames(frames) => {
                for (frame, to) in frames.iter().zip(stored.chunks_exact_mut(BLOCK)) {
                    frame.read(0, to);
                }
                &stored[..packed.len]
            }
        };
        let zeros = stored.iter().position(|&byte| byte != 0).unwrap_or(stored.len());
        lz4::decode(&stored[zeros..], &mut bytes[..size]).map_err(|lz4::Damaged| Errno::EIO)?;
        bytes[size..end].fill(0);
        let page = |at: u64| {
            let frame = PageRef::alloc(false)?;
            let start = (at - first) as usize * PAGE_SIZE;
            frame.write(0, &bytes[start..start + PAGE_SIZE]);
            Ok(frame)
        };
        sink(index, page(index)?);
        for at in first..first + packed.extent.count {
            if !all || at == index {
                continue;
            }
            let Ok(frame): Result<PageRef> = page(at) else { break };
            sink(at, frame);
        }
        Ok(())
    }

    /// Reads what is stored of an extent, with one request.
    fn stored(&self, packed: &Packed) -> Result<Input<'_>> {
        if self.source.in_place() || packed.extent.stored == Stored::Inline {
            return self.bytes(packed.at, packed.len).map(Input::Bytes);
        }
        if packed.at + packed.len as u64 > self.len() {
            return Err(Errno::EUCLEAN);
        }
        let mut frames = Vec::new();
        frames.try_reserve_exact(packed.len / BLOCK).map_err(|_| Errno::ENOMEM)?;
        for _ in 0..packed.len / BLOCK {
            frames.push(PageRef::alloc(false)?);
        }
        self.source.fill(packed.at, &frames)?;
        // The first has been checked.
        for (at, frame) in (packed.at..).step_by(BLOCK).zip(&frames).skip(1) {
            self.source.check(at, frame)?;
        }
        Ok(Input::Frames(frames))
    }
}
