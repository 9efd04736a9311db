//! The writer's metadata side: inodes, directories, extended attributes, superblock.

use std::collections::BTreeMap;

use dock2uni_format::erofs::{
    BLOCK, BLOCK_BITS, COMPACT_LEN, CONFIG_LEN, ChunkInfo, EXTENDED_LEN, FileType,
    Inode as DiskInode, Layout, MAP_ALIGN, MAP_LEN, NULL_ADDR, SLOT, SUPERBLOCK_LEN,
    SUPERBLOCK_OFFSET, Superblock, Time, XATTR_HEADER_LEN, compat, emit_config, emit_xattr_entry,
    emit_xattr_header, incompat, xattr_entry_len, xattr_icount,
};

use super::{
    bins::Bins,
    directory,
    packing::index_len,
    writer::{Finished, Identity, Writer, usual_time},
};
use crate::rootfs::{
    error::Stop,
    tree::{Content, Inode, InodeId, NONE, NodeId, Placement, SparseMap, Tree},
    xattr::XattrSet,
};

/// Where the superblock ends, and the parameters of compression start if there are any.
const AFTER_SUPERBLOCK: usize = SUPERBLOCK_OFFSET + SUPERBLOCK_LEN;
/// Shared attributes that one inode can refer to.
const MAX_SHARED: usize = 255;

/// Attributes that several inodes carry, stored once.
#[derive(Default)]
pub(super) struct SharedXattrs {
    bytes: Vec<u8>,
    /// By attribute: its id, which is its position in units of 4 bytes.
    ids: BTreeMap<u32, u32>,
}

/// What an inode needs on disk, all lengths known.
#[derive(Clone, Copy)]
struct Unit {
    inode: InodeId,
    /// For directories, the node that they are at.
    node: NodeId,
}

/// Lengths of a unit's parts in bytes, in order.
struct Shape {
    /// `None` for the compact form.
    mtime: Option<Time>,
    layout: Layout,
    size: u64,
    inode_len: usize,
    xattr_len: usize,
    /// What follows: tail, chunk map or nothing.
    rest: usize,
}

impl Shape {
    fn len(&self) -> usize {
        self.inode_len + self.xattr_len + self.rest
    }
}

/// Everything that emission needs to know.
struct Metadata<'a, 'w, 'f> {
    writer: &'w mut Writer<'f>,
    tree: &'a Tree,
    /// mtime of compact inodes; `None` while it is not known, which makes all inodes extended.
    build_time: Option<Time>,
}

impl Writer<'_> {
    /// Where the root inode lies: after the superblock, in a slot whose number fits 16 bits.
    fn root_at(&self) -> usize {
        let config = if self.packer.is_some() { CONFIG_LEN } else { 0 };
        (AFTER_SUPERBLOCK + config).next_multiple_of(SLOT)
    }

    /// Writes the inodes whose tails wait, with what is known of them.
    pub(super) fn write_early(&mut self, tree: &Tree) -> Result<(), Stop> {
        let pending = std::mem::take(&mut self.pending);
        let units: Vec<Unit> =
            pending.iter().map(|&inode| Unit { inode, node: NodeId::ROOT }).collect();
        let mut metadata = Metadata { writer: self, tree, build_time: None };
        metadata.place_all(&units);
        metadata.emit_all(&units, &BTreeMap::new())?;
        self.early.extend(pending);
        self.tails.clear();
        Ok(())
    }
}

/// Writes all that is left to write.
pub(super) fn finish(
    mut writer: Writer<'_>,
    tree: &Tree,
    live: u32,
    identity: Identity,
) -> Result<Finished, Stop> {
    writer.out.read_soon();
    let build_time = usual_time(tree.walk().filter_map(|node| tree.inode(node)).map(Inode::mtime));
    writer.nids.resize(tree.inodes.len(), 0);
    let mut metadata = Metadata { writer: &mut writer, tree, build_time: Some(build_time) };
    let units = metadata.units();
    let end = metadata.place_all(&units);
    let root = metadata.place_root();
    // What does not fit beside an inode gets blocks of its own after the inodes.
    let mut loose = BTreeMap::new();
    let mut next = end >> BLOCK_BITS;
    for unit in units.iter().chain([&root]) {
        let blocks = metadata.loose_blocks(unit);
        if blocks > 0 {
            loose.insert(unit.inode, next as u32);
            next += blocks;
        }
    }
    metadata.writer.reserve((next << BLOCK_BITS).saturating_sub(metadata.writer.out.position()))?;
    let root_bytes = metadata.emit_unit(&root, &loose)?;
    metadata.emit_all(&units, &loose)?;
    for unit in units.iter().chain([&root]) {
        if loose.contains_key(&unit.inode) {
            metadata.emit_loose(unit)?;
        }
    }
    metadata.patch_early()?;
    let xattr_blkaddr = writer.block();
    writer.reserve(writer.shared.bytes.len() as u64)?;
    let shared = std::mem::take(&mut writer.shared.bytes);
    writer.out.write(&shared).and_then(|()| writer.out.align()).map_err(Stop::Write)?;
    let sparse = if tree.sparse.is_empty() { 0 } else { incompat::CHUNKED_FILE };
    let compressed = if writer.packer.is_some() { incompat::COMPRESSED } else { 0 };
    let root_at = writer.root_at();
    let superblock = Superblock {
        feature_compat: compat::SB_CHKSUM | compat::MTIME,
        feature_incompat: sparse | compressed,
        root_nid: (root_at / SLOT) as u16,
        inos: u64::from(live),
        build_time,
        blocks: writer.block(),
        meta_blkaddr: 0,
        xattr_blkaddr: if shared.is_empty() { 0 } else { xattr_blkaddr },
        uuid: identity.uuid,
        volume_name: [0; 16],
    };
    let mut block = [0; BLOCK];
    if compressed != 0 {
        emit_config(&mut block[AFTER_SUPERBLOCK..]);
    }
    block[root_at..root_at + root_bytes.len()].copy_from_slice(&root_bytes);
    superblock.emit_block(&mut block);
    writer.out.flush().and_then(|()| writer.out.patch(0, &block)).map_err(Stop::Write)?;
    let (len, leaves) = writer.out.finish().map_err(Stop::Write)?;
    Ok(Finished { len, inodes: live, leaves })
}

impl Metadata<'_, '_, '_> {
    /// The live inodes that are not written yet, but for the root, in the order of the walk.
    fn units(&mut self) -> Vec<Unit> {
        let mut units = Vec::new();
        for node in self.tree.walk().skip(1) {
            let Some(inode) = self.tree.inode_id(node) else { continue };
            let nid = &mut self.writer.nids[inode.index()];
            if *nid == 0 {
                // Marks hard-linked inodes as seen until they are placed.
                *nid = u64::MAX;
                units.push(Unit { inode, node });
            }
        }
        units
    }

    /// Gives every unit its position, from the current block on. Returns the end.
    fn place_all(&mut self, units: &[Unit]) -> u64 {
        let mut bins = Bins::new(self.writer.out.position());
        self.writer.nids.resize(self.tree.inodes.len(), 0);
        for unit in units {
            let len = self.shape(unit).len();
            self.writer.nids[unit.inode.index()] = bins.place(len) / SLOT as u64;
        }
        bins.end()
    }

    fn place_root(&mut self) -> Unit {
        let inode = self.tree.inode_id(NodeId::ROOT).unwrap_or(InodeId(0));
        self.writer.nids[inode.index()] = (self.writer.root_at() / SLOT) as u64;
        Unit { inode, node: NodeId::ROOT }
    }

    fn inode(&self, unit: &Unit) -> &Inode {
        &self.tree.inodes[unit.inode.index()]
    }

    fn is_root(&self, unit: &Unit) -> bool {
        self.tree.inode_id(NodeId::ROOT) == Some(unit.inode)
    }

    fn shape(&mut self, unit: &Unit) -> Shape {
        let tree = self.tree;
        let inode = &tree.inodes[unit.inode.index()];
        let (shared, inline) = self.writer.shared.split(tree, inode.xattrs, self.is_root(unit));
        let xattr_len = match shared.len() + inline.len() {
            0 => 0,
            _ => {
                let inline = inline.iter().map(|&id| entry_len(tree, id)).sum::<usize>();
                XATTR_HEADER_LEN + 4 * shared.len() + inline
            }
        };
        let size = match tree.content(inode) {
            Content::Directory => directory::size(tree, unit.node),
            _ => tree.size(inode),
        };
        let mtime = Some(inode.mtime()).filter(|&mtime| Some(mtime) != self.build_time);
        let compact = disk_inode(inode, size, mtime).fits_compact();
        let inode_len = if compact { COMPACT_LEN } else { EXTENDED_LEN };
        let mtime = if compact { None } else { Some(inode.mtime()) };
        let room = if self.is_root(unit) { BLOCK - self.writer.root_at() } else { BLOCK };
        let tail = (size % BLOCK as u64) as usize;
        let fits = inode_len + xattr_len + tail <= room;
        let (layout, rest) = match tree.content(inode) {
            Content::File(_) => match inode.placement() {
                Placement::Sparse(map) => {
                    let map = &tree.sparse[map as usize];
                    let chunks = chunk_info(map).count(size) as usize;
                    (Layout::Chunk, chunks * MAP_LEN)
                }
                Placement::Packed(map) => {
                    let start = inode_len + xattr_len;
                    let inline = usize::from(tree.packed[map as usize].inline_len);
                    let index =
                        start.next_multiple_of(MAP_ALIGN) - start + index_len(size) as usize;
                    (Layout::Compressed, index + inline)
                }
                _ if inode.tail != NONE => (Layout::Inline, tail),
                _ => (Layout::Plain, 0),
            },
            Content::Directory | Content::Symlink(_) if tail > 0 && fits => (Layout::Inline, tail),
            _ => (Layout::Plain, 0),
        };
        Shape { mtime, layout, size, inode_len, xattr_len, rest }
    }

    /// Blocks of its own that a directory or symlink needs.
    fn loose_blocks(&mut self, unit: &Unit) -> u64 {
        if matches!(self.tree.content(self.inode(unit)), Content::File(_)) {
            return 0;
        }
        let shape = self.shape(unit);
        match shape.layout {
            Layout::Inline => shape.size / BLOCK as u64,
            _ => shape.size.div_ceil(BLOCK as u64),
        }
    }

    /// Writes units, which have been placed from the current position on, in order of position.
    fn emit_all(&mut self, units: &[Unit], loose: &BTreeMap<InodeId, u32>) -> Result<(), Stop> {
        let mut order: Vec<u32> = (0..units.len() as u32).collect();
        let position = |unit: &Unit, nids: &[u64]| nids[unit.inode.index()] * SLOT as u64;
        order.sort_unstable_by_key(|&at| position(&units[at as usize], &self.writer.nids));
        for at in order {
            let unit = &units[at as usize];
            let gap = position(unit, &self.writer.nids) - self.writer.out.position();
            let bytes = self.emit_unit(unit, loose)?;
            self.writer.reserve(gap + bytes.len() as u64)?;
            let out = &mut self.writer.out;
            out.zeros(gap).and_then(|()| out.write(&bytes)).map_err(Stop::Write)?;
        }
        self.writer.out.align().map_err(Stop::Write)
    }

    fn emit_unit(&mut self, unit: &Unit, loose: &BTreeMap<InodeId, u32>) -> Result<Vec<u8>, Stop> {
        let shape = self.shape(unit);
        let tree = self.tree;
        let inode = &tree.inodes[unit.inode.index()];
        let mut bytes = vec![0; shape.len()];
        let (head, rest) = bytes.split_at_mut(shape.inode_len + shape.xattr_len);
        let mut disk = disk_inode(inode, shape.size, shape.mtime);
        disk.layout = shape.layout;
        disk.ino = unit.inode.0.saturating_add(1);
        disk.u = match tree.content(inode) {
            Content::Device(..) => inode.a as u32,
            Content::File(_) => match inode.placement() {
                Placement::Blocks(block) => block,
                Placement::Sparse(map) => chunk_info(&tree.sparse[map as usize]).emit(),
                Placement::Packed(map) => tree.packed[map as usize].blocks(),
                Placement::Absent => 0,
            },
            _ => loose.get(&unit.inode).copied().unwrap_or(0),
        };
        disk.xattr_icount = self.emit_xattrs(unit, &mut head[shape.inode_len..]);
        disk.emit(head);
        match tree.content(inode) {
            Content::Symlink(target) if shape.layout == Layout::Inline => {
                rest.copy_from_slice(target);
            }
            Content::Directory if shape.layout == Layout::Inline => {
                self.directory_blocks(unit.node, |block| {
                    // The last block is the tail; whole ones before it are loose.
                    if block.len() == rest.len() {
                        rest.copy_from_slice(block);
                    }
                    Ok(())
                })?;
            }
            Content::File(_) if shape.layout == Layout::Inline => {
                let start = inode.tail as usize;
                rest.copy_from_slice(&self.writer.tails[start..start + rest.len()]);
            }
            Content::File(_) if shape.layout == Layout::Compressed => {
                if let Placement::Packed(map) = inode.placement() {
                    let start = shape.inode_len + shape.xattr_len;
                    let index = &mut rest[start.next_multiple_of(MAP_ALIGN) - start..];
                    let map = &tree.packed[map as usize];
                    let at = map.emit(index);
                    if map.inline_len > 0 {
                        let start = inode.tail as usize;
                        let len = usize::from(map.inline_len);
                        index[at..].copy_from_slice(&self.writer.tails[start..start + len]);
                    }
                }
            }
            Content::File(_) if shape.layout == Layout::Chunk => {
                if let Placement::Sparse(map) = inode.placement() {
                    emit_chunks(&tree.sparse[map as usize], rest);
                }
            }
            _ => {}
        }
        Ok(bytes)
    }

    fn emit_xattrs(&mut self, unit: &Unit, out: &mut [u8]) -> u16 {
        if out.is_empty() {
            return 0;
        }
        let set = self.inode(unit).xattrs;
        let (shared, inline) = self.writer.shared.split(self.tree, set, self.is_root(unit));
        let mut at = emit_xattr_header(&shared, out);
        for id in &inline {
            at += emit_xattr_entry(&self.tree.xattrs.entry(*id), &mut out[at..]);
        }
        let inline_len = at - XATTR_HEADER_LEN - 4 * shared.len();
        // At most 255 attributes of 64 KiB together: far below 65,535 units of 4 bytes.
        xattr_icount(shared.len(), inline_len).unwrap_or(u16::MAX)
    }

    fn emit_loose(&mut self, unit: &Unit) -> Result<(), Stop> {
        let shape = self.shape(unit);
        let tree = self.tree;
        if let Content::Symlink(target) = tree.content(self.inode(unit)) {
            let out = &mut self.writer.out;
            return out.write(target).and_then(|()| out.align()).map_err(Stop::Write);
        }
        let mut blocks = Vec::new();
        let keep_last = shape.layout != Layout::Inline;
        self.directory_blocks(unit.node, |block| {
            if keep_last || block.len() == BLOCK {
                blocks.extend_from_slice(block);
            }
            Ok(())
        })?;
        let out = &mut self.writer.out;
        out.write(&blocks).and_then(|()| out.align()).map_err(Stop::Write)
    }

    fn directory_blocks(
        &self,
        node: NodeId,
        block: impl FnMut(&[u8]) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let resolve = |node: NodeId| match self.tree.inode_id(node) {
            Some(id) => {
                let mode = self.tree.inodes[id.index()].mode;
                (self.writer.nids[id.index()], FileType::of_mode(mode))
            }
            // Only live nodes are listed, and every live node names an inode.
            None => (0, FileType::Unknown),
        };
        directory::emit(self.tree, node, resolve, block)
    }

    /// Corrects the number of names of inodes that were written early.
    fn patch_early(&mut self) -> Result<(), Stop> {
        self.writer.out.flush().map_err(Stop::Write)?;
        for &inode in &self.writer.early {
            let nlink = self.tree.inodes[inode.index()].nlink;
            if nlink > 1 {
                // Early inodes are extended; the field is at byte 44.
                let at = self.writer.nids[inode.index()] * SLOT as u64 + 44;
                self.writer.out.patch(at, &nlink.to_le_bytes()).map_err(Stop::Write)?;
            }
        }
        Ok(())
    }
}

impl SharedXattrs {
    /// Splits a set into ids of shared attributes and attributes to be stored inline. Attributes
    /// that several inodes carry are shared; with `all`, so are the others.
    fn split(&mut self, tree: &Tree, set: XattrSet, all: bool) -> (Vec<u32>, Vec<u32>) {
        let (mut shared, mut inline) = (Vec::new(), Vec::new());
        for &id in tree.xattrs.members(set) {
            // An attribute stays what it was when its first inode was written.
            let known = self.ids.contains_key(&id);
            if shared.len() < MAX_SHARED && (known || all || tree.xattrs.uses(id) > 1) {
                shared.push(self.id(tree, id));
            } else {
                inline.push(id);
            }
        }
        (shared, inline)
    }

    fn id(&mut self, tree: &Tree, id: u32) -> u32 {
        if let Some(&shared) = self.ids.get(&id) {
            return shared;
        }
        let at = self.bytes.len();
        self.bytes.resize(at + entry_len(tree, id), 0);
        emit_xattr_entry(&tree.xattrs.entry(id), &mut self.bytes[at..]);
        let shared = (at / 4) as u32;
        self.ids.insert(id, shared);
        shared
    }
}

fn entry_len(tree: &Tree, id: u32) -> usize {
    let entry = tree.xattrs.entry(id);
    xattr_entry_len(entry.name.len(), entry.value.len())
}

fn disk_inode(inode: &Inode, size: u64, mtime: Option<Time>) -> DiskInode {
    DiskInode {
        layout: Layout::Plain,
        xattr_icount: 0,
        mode: inode.mode,
        nlink: inode.nlink,
        size,
        u: 0,
        ino: 0,
        uid: inode.uid,
        gid: inode.gid,
        mtime,
    }
}

fn chunk_info(map: &SparseMap) -> ChunkInfo {
    ChunkInfo { bits: map.bits, indexes: false }
}

/// Writes a file's block addresses; holes are the rest.
fn emit_chunks(map: &SparseMap, out: &mut [u8]) {
    out.fill(0xff);
    debug_assert_eq!(NULL_ADDR, u32::MAX);
    let blocks = 1u32 << (map.bits - BLOCK_BITS);
    for &(first, count, start) in &map.runs {
        for i in 0..count {
            let at = (first + i) as usize * MAP_LEN;
            let address = start + i * blocks;
            out[at..at + MAP_LEN].copy_from_slice(&address.to_le_bytes());
        }
    }
}
