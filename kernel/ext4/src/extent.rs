//! Extent trees: from the blocks of a file to blocks of the volume.
//!
//! A node is a header and sorted entries of twelve bytes; the root, of four, lies in the inode.
//! Every change goes through [`Volume::replace`], which takes a range out of the tree and puts at
//! most one extent there, leaf by leaf.

use crate::cache::Kind;
use crate::disk::{get16, get32, put16, put32};
use crate::inode::Inode;
use crate::volume::{Mapping, Volume};
use crate::{BLOCK, Error, Result};
use std_alloc::vec::Vec;

const MAGIC: u16 = 0xf30a;
const HEADER: usize = 12;
const ENTRY: usize = 12;
/// Entries of a node that is a block, and of the root.
const NODE_MAX: usize = (BLOCK - HEADER) / ENTRY;
const ROOT_MAX: usize = 4;
/// Levels below the root.
const DEPTH_MAX: u16 = 5;
/// Longest extent; in the length field, what is longer is unwritten.
const WRITTEN_MAX: u32 = 1 << 15;
/// File blocks that can be numbered.
pub const BLOCKS_MAX: u64 = u32::MAX as u64;

/// Consecutive blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First block of the file.
    pub block: u32,
    /// Blocks.
    pub len: u32,
    /// First block of the volume.
    pub start: u64,
    /// Reads as zeros: its blocks were never written.
    pub unwritten: bool,
}

/// An entry of any node: first block of the file, and two words by the kind of node.
type Raw = [u32; 3];

struct Node {
    /// 0: the root.
    block: u64,
    depth: u16,
    entries: Vec<Raw>,
    /// The entry that the path goes through.
    at: usize,
}

impl Extent {
    fn of_raw(raw: Raw) -> Extent {
        let len = raw[1] & 0xffff;
        let unwritten = len > WRITTEN_MAX;
        let len = if unwritten { len - WRITTEN_MAX } else { len };
        let start = u64::from(raw[2]) | u64::from(raw[1] >> 16) << 32;
        Extent { block: raw[0], len, start, unwritten }
    }

    fn raw(self) -> Raw {
        let len = if self.unwritten { self.len + WRITTEN_MAX } else { self.len };
        [self.block, len | ((self.start >> 32) as u32) << 16, self.start as u32]
    }

    fn end(&self) -> u64 {
        u64::from(self.block) + u64::from(self.len)
    }

    /// The part in `from..to`, which overlaps it.
    fn part(&self, from: u64, to: u64) -> Extent {
        let from = from.max(self.block.into());
        let to = to.min(self.end());
        let skip = from - u64::from(self.block);
        Extent {
            block: from as u32,
            len: (to - from) as u32,
            start: self.start + skip,
            unwritten: self.unwritten,
        }
    }

    /// Whether `next` goes on where this ends, so that both can be one.
    pub fn joins(&self, next: &Extent) -> bool {
        let max = if self.unwritten { WRITTEN_MAX - 1 } else { WRITTEN_MAX };
        self.end() == u64::from(next.block)
            && self.start + u64::from(self.len) == next.start
            && self.unwritten == next.unwritten
            && self.len + next.len <= max
    }
}

fn index_block(raw: Raw) -> u64 {
    u64::from(raw[1]) | u64::from(raw[2] & 0xffff) << 32
}

fn index(block: u32, child: u64) -> Raw {
    [block, child as u32, (child >> 32) as u32]
}

/// Where a node's checksum is: behind the entries that it has room for.
pub fn tail_at(node: &[u8]) -> Option<usize> {
    let at = HEADER + usize::from(get16(node, 4)) * ENTRY;
    (at + 4 <= BLOCK).then_some(at)
}

/// An empty root.
pub fn init_root(body: &mut [u8]) {
    body.fill(0);
    put16(body, 0, MAGIC);
    put16(body, 4, ROOT_MAX as u16);
}

/// A root with at most four extents.
pub fn write_root(body: &mut [u8], extents: impl Iterator<Item = Extent>) {
    init_root(body);
    for (at, extent) in (HEADER..).step_by(ENTRY).zip(extents) {
        put16(body, 2, ((at - HEADER) / ENTRY + 1) as u16);
        for (word, value) in extent.raw().iter().enumerate() {
            put32(body, at + 4 * word, *value);
        }
    }
}

fn damaged<T>() -> Result<T> {
    Err(Error::Corrupt("an extent tree"))
}

impl Volume {
    fn parse_node(&self, bytes: &[u8], block: u64, depth: Option<u16>) -> Result<Node> {
        let (count, max) = (usize::from(get16(bytes, 2)), usize::from(get16(bytes, 4)));
        let found = get16(bytes, 6);
        let room = if block == 0 { ROOT_MAX } else { NODE_MAX };
        if get16(bytes, 0) != MAGIC
            || count > max
            || max > room
            || found > DEPTH_MAX
            || depth.is_some_and(|depth| depth != found)
            || count == 0 && (block != 0 || found != 0)
        {
            return damaged();
        }
        let mut entries = Vec::new();
        entries.try_reserve_exact(count + 2).map_err(|_| Error::NoMemory)?;
        let mut next = 0;
        for at in (HEADER..).step_by(ENTRY).take(count) {
            let raw: Raw = [get32(bytes, at), get32(bytes, at + 4), get32(bytes, at + 8)];
            let end = if found == 0 {
                let extent = Extent::of_raw(raw);
                let last = extent.start.checked_add(extent.len.into());
                if extent.len == 0
                    || extent.start <= u64::from(self.geometry.desc_blocks())
                    || last.is_none_or(|last| last > self.geometry.blocks)
                {
                    return damaged();
                }
                extent.end()
            } else {
                u64::from(raw[0]) + 1
            };
            if u64::from(raw[0]) < next || end > BLOCKS_MAX + 1 {
                return damaged();
            }
            next = end;
            entries.push(raw);
        }
        Ok(Node { block, depth: found, entries, at: 0 })
    }

    /// The nodes from the root to the leaf for a block of the file, and where the leaf's part of
    /// the file ends.
    fn path(&mut self, inode: &Inode, block: u32) -> Result<(Vec<Node>, u64)> {
        let kind = Kind::Extents(self.seed(inode));
        let mut end = BLOCKS_MAX + 1;
        let mut path = Vec::new();
        let mut node = self.parse_node(inode.body(), 0, None)?;
        while node.depth > 0 {
            node.at = node.entries.partition_point(|raw| raw[0] <= block).saturating_sub(1);
            if let Some(next) = node.entries.get(node.at + 1) {
                end = end.min(next[0].into());
            }
            let child = node.entries.get(node.at).map_or(0, |raw| index_block(*raw));
            let depth = node.depth - 1;
            if path.iter().any(|node: &Node| node.block == child) || child == 0 {
                return damaged();
            }
            path.push(node);
            let data = self.block(child, kind)?;
            node = self.parse_node(&data, child, Some(depth))?;
        }
        path.push(node);
        Ok((path, end))
    }

    /// What is at a block of a file, and for how many blocks that holds (at most `len`).
    pub(crate) fn find_extent(&mut self, inode: &Inode, block: u32, len: u32) -> Result<Mapping> {
        let (path, end) = self.path(inode, block)?;
        let leaf = path.last().map_or(&[][..], |leaf| &leaf.entries);
        let next = leaf.partition_point(|raw| raw[0] <= block);
        if let Some(extent) = next.checked_sub(1).map(|at| Extent::of_raw(leaf[at]))
            && u64::from(block) < extent.end()
        {
            let part = extent.part(block.into(), u64::from(block) + u64::from(len));
            let written = !extent.unwritten;
            return Ok(Mapping { start: Some(part.start), len: part.len, written });
        }
        let until = leaf.get(next).map_or(end, |raw| raw[0].into());
        let len = (until - u64::from(block)).min(len.into()) as u32;
        Ok(Mapping { start: None, len, written: false })
    }

    /// A good place for a block of a file: after the one before it, else near its inode.
    pub(crate) fn goal(&mut self, inode: &Inode, block: u32) -> Result<u64> {
        let (path, _) = self.path(inode, block)?;
        let leaf = path.last().map_or(&[][..], |leaf| &leaf.entries);
        let before = leaf.partition_point(|raw| raw[0] <= block);
        if let Some(extent) = before.checked_sub(1).map(|at| Extent::of_raw(leaf[at])) {
            let distance = u64::from(block) - u64::from(extent.block);
            return Ok(extent.start + distance);
        }
        let group = (inode.ino - 1) / self.geometry.inodes_per_group;
        Ok(self.geometry.group_start(group))
    }

    /// Takes `from..to` out of a file and puts `new`, which lies in there, in its place. With
    /// `free` the blocks taken out are freed (`metadata`: they may be in the journal). The caller
    /// writes the inode.
    pub(crate) fn replace(
        &mut self,
        inode: &mut Inode,
        from: u64,
        to: u64,
        mut new: Option<Extent>,
        free: Option<bool>,
    ) -> Result<()> {
        let mut at = from;
        while at < to {
            let (path, end) = self.path(inode, at as u32)?;
            let old = path.last().map_or(&[][..], |leaf| &leaf.entries);
            let mut extents: Vec<Extent> = Vec::new();
            extents.try_reserve_exact(old.len() + 2).map_err(|_| Error::NoMemory)?;
            let mut changed = new.is_some();
            let mut gone = [(0, 0); 2];
            let mut put = |extent: Extent| match extents.last_mut() {
                Some(last) if last.joins(&extent) => last.len += extent.len,
                _ => extents.push(extent),
            };
            let mut freed = Vec::new();
            for extent in old.iter().map(|raw| Extent::of_raw(*raw)) {
                let (start, stop) = (u64::from(extent.block), extent.end());
                if start >= to
                    && let Some(new) = new.take()
                {
                    put(new);
                }
                if stop <= at || start >= to {
                    put(extent);
                    continue;
                }
                changed = true;
                if start < at {
                    put(extent.part(start, at));
                }
                let out = extent.part(at, to);
                freed.try_reserve(1).map_err(|_| Error::NoMemory)?;
                freed.push((out.start, out.len));
                gone[0].0 += 1;
                if stop > to {
                    if let Some(new) = new.take() {
                        put(new);
                    }
                    put(extent.part(to, stop));
                }
            }
            if let Some(new) = new.take() {
                put(new);
            }
            if let Some(metadata) = free {
                for (start, len) in freed {
                    self.free(start, len, metadata)?;
                    inode.add_blocks(-i64::from(len));
                }
            }
            if changed {
                let entries = extents.into_iter().map(Extent::raw).collect();
                self.store(inode, path, entries)?;
            }
            at = end.min(to);
        }
        Ok(())
    }

    /// Puts entries into the last node of a path, and what follows from that into those above.
    fn store(
        &mut self,
        inode: &mut Inode,
        mut path: Vec<Node>,
        mut entries: Vec<Raw>,
    ) -> Result<()> {
        while let Some(node) = path.pop() {
            let Some(&[first, ..]) = entries.first() else {
                let Some(parent) = path.last_mut() else {
                    return self.put_node(inode, 0, 0, &[]);
                };
                self.free(node.block, 1, true)?;
                inode.add_blocks(-1);
                parent.entries.remove(parent.at);
                entries = core::mem::take(&mut parent.entries);
                continue;
            };
            let Some(parent) = path.last_mut() else {
                if entries.len() <= ROOT_MAX {
                    return self.put_node(inode, 0, node.depth, &entries);
                }
                if node.depth == DEPTH_MAX {
                    return Err(Error::TooMany);
                }
                let child = self.new_node(inode, &entries, node.depth)?;
                return self.put_node(inode, 0, node.depth + 1, &[index(first, child)]);
            };
            let slot = parent.entries.get_mut(parent.at).ok_or(Error::Io)?;
            let moved = slot[0] != first;
            slot[0] = first;
            if entries.len() <= NODE_MAX {
                self.put_node(inode, node.block, node.depth, &entries)?;
                if !moved {
                    return Ok(());
                }
            } else {
                // A file that grows at its end leaves full nodes behind.
                let at =
                    if parent.at + 1 == parent.entries.len() { NODE_MAX } else { NODE_MAX / 2 };
                let (left, right) = entries.split_at(at);
                self.put_node(inode, node.block, node.depth, left)?;
                let child = self.new_node(inode, right, node.depth)?;
                let parent = path.last_mut().ok_or(Error::Io)?;
                parent.entries.insert(parent.at + 1, index(right[0][0], child));
            }
            entries =
                path.last_mut().map(|node| core::mem::take(&mut node.entries)).unwrap_or_default();
        }
        Ok(())
    }

    fn new_node(&mut self, inode: &mut Inode, entries: &[Raw], depth: u16) -> Result<u64> {
        let group = (inode.ino - 1) / self.geometry.inodes_per_group;
        let goal = match (depth, entries) {
            (0, [first, ..]) => Extent::of_raw(*first).start,
            _ => self.geometry.group_start(group),
        };
        let (block, _) = self.allocate(goal, 1)?;
        inode.add_blocks(1);
        let seed = self.seed(inode);
        self.new_block(block, Kind::Extents(seed))?;
        self.put_node(inode, block, depth, entries)?;
        Ok(block)
    }

    fn put_node(
        &mut self,
        inode: &mut Inode,
        block: u64,
        depth: u16,
        entries: &[Raw],
    ) -> Result<()> {
        let seed = self.seed(inode);
        let (bytes, max) = match block {
            0 => (inode.body_mut(), ROOT_MAX),
            _ => (&mut self.change(block, Kind::Extents(seed))?[..], NODE_MAX),
        };
        bytes.fill(0);
        put16(bytes, 0, MAGIC);
        put16(bytes, 2, entries.len() as u16);
        put16(bytes, 4, max as u16);
        put16(bytes, 6, depth);
        for (at, raw) in (HEADER..).step_by(ENTRY).zip(entries) {
            for (word, value) in raw.iter().enumerate() {
                put32(bytes, at + 4 * word, *value);
            }
        }
        Ok(())
    }
}

impl Volume {
    /// The first block of the file that the last leaf knows; 0 for an empty tree.
    pub(crate) fn last_leaf(&mut self, inode: &Inode) -> Result<u64> {
        let (path, _) = self.path(inode, u32::MAX)?;
        let first = path.last().and_then(|leaf| leaf.entries.first());
        Ok(if path.len() > 1 { first.map_or(0, |raw| raw[0].into()) } else { 0 })
    }
}
