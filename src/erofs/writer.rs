//! The writer's data side: file contents as they arrive.

use std::{fs::File, io};

use dock2uni_format::erofs::{
    BLOCK, BLOCK_BITS, EXTENDED_LEN, Time, XATTR_HEADER_LEN, XattrEntry, xattr_entry_len,
};

use super::{
    Compression, metadata,
    out::Out,
    packer::{self, Head, Packer, SEGMENT},
    packing::{Done, PackedMap, Segment, pays, room},
    verity::Leaves,
};
use crate::rootfs::{
    error::Stop,
    tree::{InodeId, MAX_BLOCKS, MAX_MAPS, NONE, Placement, SparseMap, Tree},
};

/// Chunks of one sparse file; its chunks grow until they are few enough.
const MAX_CHUNKS: u64 = 1 << 20;

/// Writes one image; see the module's documentation.
pub(crate) struct Writer<'f> {
    pub(super) out: Out<'f>,
    pub(super) max_bytes: u64,
    /// Tails of the pending inodes, one after the other.
    pub(super) tails: Vec<u8>,
    pub(super) max_tails: usize,
    pub(super) pending: Vec<InodeId>,
    /// Position of each inode in the image in slots; 0 while it has none.
    pub(super) nids: Vec<u64>,
    /// Inodes that were written before their number of names was known.
    pub(super) early: Vec<InodeId>,
    pub(super) shared: metadata::SharedXattrs,
    /// Compresses regular files, if that was asked for.
    pub(super) packer: Option<Packer>,
    /// What has been written of the compressed file that comes next: its first block, and extents.
    begun: Option<(u32, Vec<(u8, u8)>)>,
}

/// A finished image.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    /// Length in bytes, a multiple of the block size.
    pub len: u64,
    pub inodes: u32,
    /// Hashes of its blocks, as far as they are known.
    pub leaves: Leaves,
}

/// What the superblock says beyond what the tree tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub uuid: [u8; 16],
}

impl<'f> Writer<'f> {
    /// An image in `file` from byte `start` on, of at most `max_bytes`. At most about `max_tails`
    /// bytes of tails wait in memory. If it is `direct`, contents of files pass the page cache by.
    pub fn new(
        file: &'f File,
        start: u64,
        max_bytes: u64,
        max_tails: usize,
        compression: Option<Compression>,
        direct: bool,
    ) -> Result<Self, Stop> {
        let mut out = Out::new(file, start, direct).map_err(Stop::Write)?;
        // Block 0 is written last.
        out.zeros(BLOCK as u64).map_err(Stop::Write)?;
        Ok(Writer {
            out,
            max_bytes: max_bytes.min(u64::from(MAX_BLOCKS) << BLOCK_BITS),
            tails: Vec::new(),
            // Positions among the tails are 32 bits.
            max_tails: max_tails.min(1 << 30),
            pending: Vec::new(),
            nids: Vec::new(),
            early: Vec::new(),
            shared: metadata::SharedXattrs::default(),
            packer: compression.map(|Compression::Lz4| Packer::new()),
            begun: None,
        })
    }

    /// Starts a regular file of `size` bytes, whose inode is in the tree.
    pub fn file<'a>(
        &mut self,
        inode: InodeId,
        size: u64,
        xattrs: impl Iterator<Item = XattrEntry<'a>>,
    ) -> Result<FileWriter<'_, 'f>, Stop> {
        self.reserve(size)?;
        let xattrs: usize = xattrs.map(|x| xattr_entry_len(x.name.len(), x.value.len())).sum();
        let header = if xattrs == 0 { 0 } else { XATTR_HEADER_LEN };
        let head = Head { inode, size, xattrs: header + xattrs, last: true };
        let (block, tail) = (self.block(), tail_len(&head));
        // Tails are bounded to 32 bits.
        let tail_at = self.tails.len() as u32;
        let gathered = Vec::new();
        Ok(FileWriter { writer: self, head, block, left: size, tail, tail_at, gathered })
    }

    /// Leaves room for a regular file of `size` bytes, whose contents somebody else brings. Returns its
    /// first block.
    pub fn room(&mut self, size: u64) -> Result<u32, Stop> {
        self.reserve(size)?;
        let block = self.block();
        // What can be reserved does not overflow.
        self.out.skip(size.next_multiple_of(BLOCK as u64)).map_err(Stop::Write)?;
        Ok(block)
    }

    /// Starts a sparse file of `size` bytes, holes included.
    pub fn sparse_file(
        &mut self,
        tree: &mut Tree,
        size: u64,
    ) -> Result<SparseWriter<'_, 'f>, Stop> {
        self.settle(tree)?;
        let mut bits = BLOCK_BITS;
        while size.div_ceil(1 << bits) > MAX_CHUNKS && bits < 43 {
            bits += 1;
        }
        if size.div_ceil(1 << bits) > MAX_CHUNKS {
            return Err(Stop::Limit("bytes in one file", MAX_CHUNKS << bits));
        }
        let map = SparseMap { bits, runs: Vec::new() };
        Ok(SparseWriter { writer: self, size, map, chunk: None })
    }

    /// Waits for files that are being compressed, and writes them.
    pub fn settle(&mut self, tree: &mut Tree) -> Result<(), Stop> {
        self.take_back(tree, true)
    }

    /// Writes compressed files that are to be written now, or all.
    fn take_back(&mut self, tree: &mut Tree, all: bool) -> Result<(), Stop> {
        while let Some(packer) = &mut self.packer {
            let Some(finished) = packer.ready(all).map_err(Stop::Write)? else { break };
            for finished in finished {
                self.commit(tree, finished)?;
            }
        }
        Ok(())
    }

    /// Writes the next segment of a file.
    fn commit(&mut self, tree: &mut Tree, (head, done): packer::Finished) -> Result<(), Stop> {
        self.reserve(done.blocks.len().max(done.bytes.len()) as u64)?;
        let (block, mut extents) = self.begun.take().unwrap_or((self.block(), Vec::new()));
        let before = extents.len();
        let Done { bytes, extents: more, blocks, inline } = done;
        extents.extend_from_slice(&more);
        if !head.last {
            self.begun = Some((block, extents));
            return self.out.write(&blocks).map_err(Stop::Write);
        }
        let gained = extents[..before].iter().any(|&(count, blocks)| count != blocks);
        // Less than a block.
        let inline_len = inline.len() as u16;
        let map = PackedMap { block, extents: extents.into(), inline_len };
        // Tails are bounded to 32 bits.
        let tail_at = self.tails.len() as u32;
        let is_packed = room(head.size, head.xattrs).is_some();
        let (placement, tail) =
            if is_packed && (gained || pays(head.size, map.blocks().into(), inline.len())) {
                self.out.write(&blocks).map_err(Stop::Write)?;
                self.tails.extend_from_slice(&inline);
                if tree.packed.len() >= MAX_MAPS {
                    return Err(Stop::Limit("mapped files", MAX_MAPS as u64));
                }
                tree.packed.push(map);
                // What is below the limit fits 32 bits.
                (Placement::Packed(tree.packed.len() as u32 - 1), inline.len())
            } else {
                // Less than a block.
                let tail = tail_len(&head) as usize;
                let (whole, rest) = bytes.split_at(bytes.len() - tail.min(bytes.len()));
                self.out.write(whole).map_err(Stop::Write)?;
                self.tails.extend_from_slice(rest);
                (Placement::Blocks(map.block), tail)
            };
        self.place(tree, head.inode, placement, if tail > 0 { tail_at } else { NONE })
    }

    /// A file's contents have come to their end.
    fn place(
        &mut self,
        tree: &mut Tree,
        id: InodeId,
        placement: Placement,
        tail_at: u32,
    ) -> Result<(), Stop> {
        self.out.align().map_err(Stop::Write)?;
        let inode = &mut tree.inodes[id.index()];
        inode.set_placement(placement);
        inode.tail = tail_at;
        if tail_at == NONE { Ok(()) } else { self.pend(tree, id) }
    }

    /// Remembers that an inode's tail waits; writes what waits if it has become too much.
    fn pend(&mut self, tree: &Tree, inode: InodeId) -> Result<(), Stop> {
        self.pending.push(inode);
        if self.tails.len() > self.max_tails {
            self.write_early(tree)?;
        }
        Ok(())
    }

    /// Writes all metadata of the completed tree and the superblock.
    pub fn finish(self, tree: &Tree, live: u32, identity: Identity) -> Result<Finished, Stop> {
        metadata::finish(self, tree, live, identity)
    }

    pub(super) fn block(&self) -> u32 {
        // `reserve` keeps positions below `max_bytes`, whose blocks fit 31 bits.
        (self.out.position() >> BLOCK_BITS) as u32
    }

    /// Checks that `len` more bytes fit the image.
    pub(super) fn reserve(&self, len: u64) -> Result<(), Stop> {
        let end = self.out.position().checked_add(len).and_then(|end| end.checked_add(1 << 20));
        match end {
            Some(end) if end <= self.max_bytes => Ok(()),
            _ => Err(Stop::Limit("bytes of root image", self.max_bytes)),
        }
    }
}

/// Bytes of a file that is not compressed which don't go to blocks.
fn tail_len(head: &Head) -> u64 {
    let tail = head.size % BLOCK as u64;
    let fits = EXTENDED_LEN as u64 + head.xattrs as u64 + tail <= BLOCK as u64;
    if fits { tail } else { 0 }
}

/// Takes the contents of one regular file.
pub(crate) struct FileWriter<'w, 'f> {
    writer: &'w mut Writer<'f>,
    head: Head,
    block: u32,
    /// Bytes that have not come yet.
    left: u64,
    /// The last of them, which don't go to blocks.
    tail: u64,
    /// Where the bytes that don't go to blocks start among the tails.
    tail_at: u32,
    /// Bytes that are to be compressed.
    gathered: Vec<u8>,
}

impl FileWriter<'_, '_> {
    pub fn write(&mut self, tree: &mut Tree, mut bytes: &[u8]) -> Result<(), Stop> {
        if self.writer.packer.is_none() {
            return self.plain(bytes);
        }
        while !bytes.is_empty() {
            let take = bytes.len().min(SEGMENT - self.gathered.len());
            self.gathered.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            self.left -= take as u64;
            if self.gathered.len() == SEGMENT && self.left > 0 {
                self.hand_over(tree, None)?;
            }
        }
        Ok(())
    }

    fn plain(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        // Bounded by the slice's length.
        let take = self.left.saturating_sub(self.tail).min(bytes.len() as u64) as usize;
        self.writer.out.write(&bytes[..take]).map_err(Stop::Write)?;
        self.left -= bytes.len() as u64;
        self.writer.tails.extend_from_slice(&bytes[take..]);
        Ok(())
    }

    /// Gives what was gathered to be compressed.
    fn hand_over(&mut self, tree: &mut Tree, room: Option<usize>) -> Result<(), Stop> {
        let segment = Segment { bytes: std::mem::take(&mut self.gathered), room };
        let head = Head { last: room.is_some(), ..self.head };
        if let Some(packer) = &mut self.writer.packer {
            packer.add(head, segment);
        }
        self.writer.take_back(tree, false)
    }

    /// The file is complete. Its inode is told where the contents are, at once or later.
    pub fn end(mut self, tree: &mut Tree) -> Result<(), Stop> {
        if self.writer.packer.is_some() {
            let room = room(self.head.size, self.head.xattrs).unwrap_or(0);
            return self.hand_over(tree, Some(room));
        }
        let tail_at = if self.tail > 0 { self.tail_at } else { NONE };
        self.writer.place(tree, self.head.inode, Placement::Blocks(self.block), tail_at)
    }
}

/// Takes the segments of one sparse file in ascending order.
pub(crate) struct SparseWriter<'w, 'f> {
    writer: &'w mut Writer<'f>,
    size: u64,
    map: SparseMap,
    /// The chunk being written: its number and the bytes it has so far.
    chunk: Option<(u64, u64)>,
}

impl SparseWriter<'_, '_> {
    /// Takes `bytes` at `offset`, which is not before the end of the bytes taken last.
    pub fn write(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Stop> {
        let chunk_len = 1u64 << self.map.bits;
        while !bytes.is_empty() {
            let number = offset >> self.map.bits;
            if self.chunk.is_none_or(|(current, _)| current != number) {
                self.close_chunk().map_err(Stop::Write)?;
                self.writer.reserve(chunk_len)?;
                self.open_chunk(number);
            }
            let filled = self.chunk.map_or(0, |(_, filled)| filled);
            let within = offset & (chunk_len - 1);
            // Bounded by the slice's length.
            let take = (chunk_len - within).min(bytes.len() as u64) as usize;
            let out = &mut self.writer.out;
            out.zeros(within - filled)
                .and_then(|()| out.write(&bytes[..take]))
                .map_err(Stop::Write)?;
            self.chunk = Some((number, within + take as u64));
            offset += take as u64;
            bytes = &bytes[take..];
        }
        Ok(())
    }

    /// The file's map.
    pub fn end(mut self) -> Result<SparseMap, Stop> {
        self.close_chunk().map_err(Stop::Write)?;
        Ok(self.map)
    }

    fn open_chunk(&mut self, number: u64) {
        let block = self.writer.block();
        let blocks = 1u32 << (self.map.bits - BLOCK_BITS);
        // Numbers are below MAX_CHUNKS.
        let number = number as u32;
        match self.map.runs.last_mut() {
            Some((first, count, start))
                if *first + *count == number && *start + *count * blocks == block =>
            {
                *count += 1;
            }
            _ => self.map.runs.push((number, 1, block)),
        }
        self.chunk = Some((u64::from(number), 0));
    }

    fn close_chunk(&mut self) -> io::Result<()> {
        if let Some((number, filled)) = self.chunk.take() {
            // The file's last chunk ends with the file.
            let len = (self.size - (number << self.map.bits)).min(1 << self.map.bits);
            self.writer.out.zeros(len - filled)?;
            self.writer.out.align()?;
        }
        Ok(())
    }
}

/// The point in time that most inodes share, so that they can be compact.
pub(super) fn usual_time(times: impl Iterator<Item = Time>) -> Time {
    let mut counts = std::collections::BTreeMap::new();
    // A sample keeps memory bounded; the first inodes of the walk are as good as any.
    for time in times.take(1 << 16) {
        *counts.entry(time).or_insert(0u32) += 1;
    }
    // Of equals the earliest, whatever the order of the walk.
    let best = counts.into_iter().max_by_key(|&(time, count)| (count, std::cmp::Reverse(time)));
    best.map(|(time, _)| time).unwrap_or_default()
}
