//! Directories: blocks of entries, and the tree of name hashes over them.
//!
//! Readers that know nothing of the tree see its nodes as blocks with one unused entry, so a scan
//! in order of blocks works for any directory.

use crate::cache::Kind;
use crate::crc::crc32c;
use crate::disk::{FileType, get8, get16, get32, put8, put16, put32};
use crate::hash::{self, name_hash};
use crate::inode::{FLAG_INDEX, Inode};
use crate::volume::Volume;
use crate::{BLOCK, Error, Result, sort};
use std_alloc::sync::Arc;
use std_alloc::vec::Vec;

/// Bytes of an entry before its name.
const HEADER: usize = 8;
/// The checksum at the end of a block of entries, which looks like an unused entry.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;
/// Where the entries of a root and of an inner node start: their limit and count come first.
const ROOT_ENTRIES: usize = 32;
const NODE_ENTRIES: usize = 8;
/// Levels of nodes besides the root.
const LEVELS_MAX: u8 = 1;

/// An entry of a directory block.
#[derive(Clone, Copy)]
struct Entry {
    at: usize,
    /// Up to the next one.
    len: usize,
    ino: u32,
    name_len: usize,
    kind: u8,
}

impl Entry {
    /// Bytes that it needs.
    fn used(&self) -> usize {
        if self.ino == 0 { 0 } else { size_of_name(self.name_len) }
    }

    fn name<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        data.get(self.at + HEADER..self.at + HEADER + self.name_len).unwrap_or(&[])
    }
}

fn size_of_name(len: usize) -> usize {
    (HEADER + len).next_multiple_of(4)
}

fn damaged<T>() -> Result<T> {
    Err(Error::Corrupt("a directory"))
}

/// The entry at an offset of a block whose entries end at `end`.
fn entry(data: &[u8], at: usize, end: usize) -> Result<Entry> {
    let (len, name_len) = (usize::from(get16(data, at + 4)), usize::from(get8(data, at + 6)));
    let ino = get32(data, at);
    if len < HEADER
        || len % 4 != 0
        || at + len > end
        || ino != 0 && (size_of_name(name_len) > len || name_len == 0)
    {
        return damaged();
    }
    Ok(Entry { at, len, ino, name_len, kind: get8(data, at + 7) })
}

fn put_entry(data: &mut [u8], at: usize, len: usize, ino: u32, name: &[u8], kind: u8) {
    put32(data, at, ino);
    put16(data, at + 4, len as u16);
    put8(data, at + 6, name.len() as u8);
    put8(data, at + 7, kind);
    if let Some(place) = data.get_mut(at + HEADER..at + HEADER + name.len()) {
        place.copy_from_slice(name);
    }
}

/// Where a directory block has its checksum, and what it should be: a block of entries, or a node.
pub fn checksum(seed: u32, data: &[u8]) -> Option<(usize, u32)> {
    let first = get16(data, 4);
    let at = match first {
        12 if usize::from(get16(data, 16)) == BLOCK - 12 && get8(data, 29) == 8 => ROOT_ENTRIES,
        len if usize::from(len) == BLOCK && get32(data, 0) == 0 => NODE_ENTRIES,
        _ => {
            let tail = BLOCK - TAIL;
            let looks = get16(data, tail + 4) == 12 && get8(data, tail + 7) == TAIL_TYPE;
            return looks.then(|| (BLOCK - 4, crc32c(seed, &data[..tail])));
        }
    };
    let (limit, count) = (usize::from(get16(data, at)), usize::from(get16(data, at + 2)));
    let tail = at + limit * 8;
    if count > limit || tail + 8 > BLOCK {
        return None;
    }
    let csum = crc32c(seed, data.get(..at + count * 8)?);
    let csum = crc32c(csum, data.get(tail..tail + 4)?);
    Some((tail + 4, crc32c(csum, &[0; 4])))
}

/// What a listing calls with inode, next position, type and name; it goes on while that says so.
pub type Emit<'a> = dyn FnMut(u32, u64, u8, &[u8]) -> bool + 'a;

/// A node on the way to a leaf.
struct Step {
    /// Block of the directory.
    block: u32,
    /// Where its entries start.
    base: usize,
    /// The entry taken.
    at: usize,
    count: usize,
    limit: usize,
}

impl Step {
    fn hash(&self, data: &[u8], at: usize) -> u32 {
        // The first entry has limit and count in the place of a hash.
        if at == 0 { 0 } else { get32(data, self.base + 8 * at) }
    }

    fn child(&self, data: &[u8], at: usize) -> u32 {
        get32(data, self.base + 8 * at + 4) & 0x0fff_ffff
    }
}

/// An entry found: the block of the volume, and where in it.
#[derive(Clone, Copy)]
pub struct Place {
    block: u64,
    entry_at: usize,
    /// The inode.
    pub ino: u32,
}

impl Volume {
    /// Where the entries of a block end.
    fn entries_end(&self) -> usize {
        if self.geometry.csum.is_some() { BLOCK - TAIL } else { BLOCK }
    }

    fn dir_blocks(&self, dir: &Inode) -> u32 {
        (dir.size() / BLOCK as u64).min(u32::MAX.into()) as u32
    }

    /// The block of the volume for a block of a directory.
    fn dir_place(&mut self, dir: &Inode, block: u32) -> Result<u64> {
        if block >= self.dir_blocks(dir) {
            return damaged();
        }
        match self.find_extent(dir, block, 1)?.start {
            Some(start) => Ok(start),
            None => damaged(),
        }
    }

    fn dir_block(&mut self, dir: &Inode, block: u32) -> Result<(u64, Arc<Vec<u8>>)> {
        let place = self.dir_place(dir, block)?;
        let kind = Kind::Dir(self.seed(dir));
        Ok((place, self.block(place, kind)?))
    }

    /// Whether the directory has a tree that can be used.
    fn is_indexed(&self, dir: &Inode) -> bool {
        dir.flags() & FLAG_INDEX != 0 && self.geometry.dir_index
    }

    /// The way to the leaf for a hash.
    fn probe(&mut self, dir: &Inode, name: &[u8]) -> Result<(Vec<Step>, u32)> {
        let (_, root) = self.dir_block(dir, 0)?;
        let (version, levels) = (get8(&root, 28), get8(&root, 30));
        if get8(&root, 29) != 8 || levels > LEVELS_MAX || version > hash::TEA {
            return Err(Error::Unsupported("the index of a directory"));
        }
        let hash = self.hash_name(name, version)?;
        let mut steps = Vec::new();
        let (mut data, mut block, mut base) = (root, 0, ROOT_ENTRIES);
        for level in 0..=levels {
            let (limit, count) =
                (usize::from(get16(&data, base)), usize::from(get16(&data, base + 2)));
            if count == 0 || count > limit || base + limit * 8 > BLOCK {
                return damaged();
            }
            let mut step = Step { block, base, at: 0, count, limit };
            let (mut low, mut high) = (1, count);
            while low < high {
                let middle = (low + high) / 2;
                if step.hash(&data, middle) > hash { high = middle } else { low = middle + 1 }
            }
            step.at = low - 1;
            block = step.child(&data, step.at);
            steps.push(step);
            if level < levels {
                (_, data) = self.dir_block(dir, block)?;
                base = NODE_ENTRIES;
            }
        }
        Ok((steps, hash))
    }

    fn hash_name(&self, name: &[u8], version: u8) -> Result<u32> {
        let version = if self.geometry.unsigned_hash { version + hash::UNSIGNED } else { version };
        let hash = name_hash(name, version, &self.geometry.hash_seed);
        hash.ok_or(Error::Unsupported("the hash of a directory"))
    }

    fn find_in_block(&mut self, dir: &Inode, block: u32, name: &[u8]) -> Result<Option<Place>> {
        let (place, data) = self.dir_block(dir, block)?;
        let end = self.entries_end();
        let mut at = 0;
        while at < end {
            let entry = entry(&data, at, end)?;
            if entry.ino != 0 && entry.name(&data) == name {
                return Ok(Some(Place { block: place, entry_at: at, ino: entry.ino }));
            }
            at += entry.len;
        }
        Ok(None)
    }

    /// Looks a name up.
    pub(crate) fn find_entry(&mut self, dir: &Inode, name: &[u8]) -> Result<Option<Place>> {
        if dir.file_type() != FileType::Directory {
            return Err(Error::NotDirectory);
        }
        if !self.is_indexed(dir) || name == b"." || name == b".." {
            let blocks = if self.is_indexed(dir) { 1 } else { self.dir_blocks(dir) };
            for block in 0..blocks {
                if self.is_node(dir, block)? {
                    if block == 0
                        && let Some(place) = self.find_dots(dir, name)?
                    {
                        return Ok(Some(place));
                    }
                    continue;
                }
                if let Some(place) = self.find_in_block(dir, block, name)? {
                    return Ok(Some(place));
                }
            }
            return Ok(None);
        }
        let (mut steps, hash) = self.probe(dir, name)?;
        loop {
            let Some(step) = steps.last() else { return damaged() };
            let (_, data) = self.dir_block(dir, step.block)?;
            let leaf = step.child(&data, step.at);
            if let Some(place) = self.find_in_block(dir, leaf, name)? {
                return Ok(Some(place));
            }
            // Names of one hash may go on in the next leaf, which says so in its lowest bit.
            if !self.next_leaf(dir, &mut steps, hash)? {
                return Ok(None);
            }
        }
    }

    fn next_leaf(&mut self, dir: &Inode, steps: &mut [Step], hash: u32) -> Result<bool> {
        let Some(level) = steps.iter().rposition(|step| step.at + 1 < step.count) else {
            return Ok(false);
        };
        let Some(step) = steps.get_mut(level) else { return Ok(false) };
        step.at += 1;
        let (_, data) = self.dir_block(dir, step.block)?;
        if step.hash(&data, step.at) != hash | 1 {
            return Ok(false);
        }
        if level + 1 < steps.len() {
            let block = steps[level].child(&data, steps[level].at);
            let (_, data) = self.dir_block(dir, block)?;
            let base = NODE_ENTRIES;
            let (limit, count) =
                (usize::from(get16(&data, base)), usize::from(get16(&data, base + 2)));
            if count == 0 || count > limit || base + limit * 8 > BLOCK {
                return damaged();
            }
            steps[level + 1] = Step { block, base, at: 0, count, limit };
        }
        Ok(true)
    }

    /// Whether a block is a node of the tree rather than a block of entries.
    fn is_node(&mut self, dir: &Inode, block: u32) -> Result<bool> {
        if dir.flags() & FLAG_INDEX == 0 {
            return Ok(false);
        }
        let (_, data) = self.dir_block(dir, block)?;
        Ok(block == 0 || usize::from(get16(&data, 4)) == BLOCK && get32(&data, 0) == 0)
    }

    /// `.` and `..` of a root, the last of which claims the rest of its block.
    fn find_dots(&mut self, dir: &Inode, name: &[u8]) -> Result<Option<Place>> {
        let (block, data) = self.dir_block(dir, 0)?;
        for at in [0, 12] {
            let entry = entry(&data, at, BLOCK)?;
            if entry.name(&data) == name {
                return Ok(Some(Place { block, entry_at: at, ino: entry.ino }));
            }
        }
        Ok(None)
    }

    /// Lists the entries from a position on: calls `emit(inode, next position, type, name)` until
    /// it says no. Positions are bytes; one that lies within an entry means the next entry.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`].
    pub fn list(&mut self, dir: &Inode, position: u64, emit: &mut Emit<'_>) -> Result<()> {
        let first = (position / BLOCK as u64).min(u32::MAX.into()) as u32;
        let mut from = (position % BLOCK as u64) as usize;
        for block in first..self.dir_blocks(dir) {
            let node = self.is_node(dir, block)?;
            let (_, data) = self.dir_block(dir, block)?;
            let end = if node { BLOCK } else { self.entries_end() };
            let base = u64::from(block) * BLOCK as u64;
            let mut at = 0;
            while at < end {
                let entry = entry(&data, at, end)?;
                let next = if node && at == 12 { BLOCK } else { at + entry.len };
                if entry.ino != 0
                    && at >= from
                    && !emit(entry.ino, base + next as u64, entry.kind, entry.name(&data))
                {
                    return Ok(());
                }
                at = next;
            }
            from = 0;
        }
        Ok(())
    }

    /// Whether a directory has no names but `.` and `..`.
    pub(crate) fn is_empty_dir(&mut self, dir: &Inode) -> Result<bool> {
        let mut empty = true;
        self.list(dir, 0, &mut |_, _, _, name| {
            empty = matches!(name, b"." | b"..");
            empty
        })?;
        Ok(empty)
    }

    /// The first block of a new directory.
    pub(crate) fn init_dir(&mut self, dir: &mut Inode, parent: u32) -> Result<()> {
        let end = self.entries_end();
        let (ino, kind) = (dir.ino, FileType::Directory as u8);
        let data = self.add_dir_block(dir)?.1;
        put_entry(data, 0, 12, ino, b".", kind);
        put_entry(data, 12, end - 12, parent, b"..", kind);
        Ok(())
    }

    /// Appends an empty block of entries: its number in the directory, and its bytes.
    fn add_dir_block(&mut self, dir: &mut Inode) -> Result<(u32, &mut Vec<u8>)> {
        let block = self.dir_blocks(dir);
        let place = self.append_block(dir, block)?;
        dir.set_size((u64::from(block) + 1) * BLOCK as u64);
        let (seed, end) = (self.seed(dir), self.entries_end());
        let data = self.new_block(place, Kind::Dir(seed))?;
        put16(data, 4, end as u16);
        if end < BLOCK {
            put16(data, end + 4, TAIL as u16);
            put8(data, end + 7, TAIL_TYPE);
        }
        Ok((block, data))
    }

    /// Makes an entry point elsewhere.
    pub(crate) fn set_entry(
        &mut self,
        dir: &Inode,
        place: Place,
        ino: u32,
        kind: FileType,
    ) -> Result<()> {
        let seed = self.seed(dir);
        let data = self.change(place.block, Kind::Dir(seed))?;
        put32(data, place.entry_at, ino);
        put8(data, place.entry_at + 7, kind as u8);
        Ok(())
    }

    /// Removes an entry: the one before takes over its bytes.
    pub(crate) fn remove_entry(&mut self, dir: &Inode, place: Place) -> Result<()> {
        let (seed, end) = (self.seed(dir), self.entries_end());
        let data = self.change(place.block, Kind::Dir(seed))?;
        let (mut at, mut before) = (0, None);
        while at < place.entry_at {
            let entry = entry(data, at, end)?;
            before = Some(entry);
            at += entry.len;
        }
        let gone = entry(data, place.entry_at, end)?;
        match before {
            Some(before) if at == place.entry_at => {
                put16(data, before.at + 4, (before.len + gone.len) as u16);
            }
            None => put32(data, place.entry_at, 0),
            _ => return damaged(),
        }
        Ok(())
    }

    /// Adds a name that isn't there. The caller writes the directory's inode.
    pub(crate) fn add_entry(
        &mut self,
        dir: &mut Inode,
        name: &[u8],
        ino: u32,
        kind: FileType,
    ) -> Result<()> {
        if dir.flags() & FLAG_INDEX != 0 {
            if !self.geometry.dir_index {
                return Err(Error::Unsupported("the index of a directory"));
            }
            return self.add_indexed(dir, name, ino, kind);
        }
        let blocks = self.dir_blocks(dir);
        for block in 0..blocks {
            if self.add_to_block(dir, block, name, ino, kind)? {
                return Ok(());
            }
        }
        if blocks == 1 && self.geometry.dir_index && self.geometry.hash_version <= hash::TEA {
            self.make_index(dir)?;
            return self.add_indexed(dir, name, ino, kind);
        }
        let (block, _) = self.add_dir_block(dir)?;
        self.add_to_block(dir, block, name, ino, kind).map(drop)
    }

    /// Adds an entry to a block if there is room.
    fn add_to_block(
        &mut self,
        dir: &Inode,
        block: u32,
        name: &[u8],
        ino: u32,
        kind: FileType,
    ) -> Result<bool> {
        let (place, data) = self.dir_block(dir, block)?;
        let (end, need) = (self.entries_end(), size_of_name(name.len()));
        let mut at = 0;
        while at < end {
            let found = entry(&data, at, end)?;
            let used = found.used();
            if found.len - used >= need {
                let seed = self.seed(dir);
                drop(data);
                let data = self.change(place, Kind::Dir(seed))?;
                if used > 0 {
                    put16(data, at + 4, used as u16);
                }
                put_entry(data, at + used, found.len - used, ino, name, kind as u8);
                return Ok(true);
            }
            at += found.len;
        }
        Ok(false)
    }

    /// Turns the only block of a directory into the root of a tree with one leaf.
    fn make_index(&mut self, dir: &mut Inode) -> Result<()> {
        let (place, old) = self.dir_block(dir, 0)?;
        let (seed, end) = (self.seed(dir), self.entries_end());
        let dots = (entry(&old, 0, end)?, entry(&old, 12, end)?);
        if dots.0.len != 12 || dots.0.name(&old) != b"." || dots.1.name(&old) != b".." {
            return damaged();
        }
        let mut names = Vec::new();
        let mut at = 12 + dots.1.len;
        while at < end {
            let entry = entry(&old, at, end)?;
            if entry.ino != 0 {
                names.push((0, entry));
            }
            at += entry.len;
        }
        let (leaf, data) = self.add_dir_block(dir)?;
        pack(data, &old, &names, end);
        let (version, parent) = (self.geometry.hash_version, dots.1.ino);
        let csum = self.geometry.csum.is_some();
        let data = self.change(place, Kind::Dir(seed))?;
        data[24..].fill(0);
        put_entry(data, 12, BLOCK - 12, parent, b"..", FileType::Directory as u8);
        // The name's padding, then: reserved, hash version, length of this, levels, flags.
        data[22..28].fill(0);
        put8(data, 28, version);
        put8(data, 29, 8);
        init_node(data, ROOT_ENTRIES, leaf, csum);
        dir.set_flags(dir.flags() | FLAG_INDEX);
        Ok(())
    }

    fn add_indexed(
        &mut self,
        dir: &mut Inode,
        name: &[u8],
        ino: u32,
        kind: FileType,
    ) -> Result<()> {
        // Each round adds, or makes room on one level: leaf, node, root.
        for _ in 0..4 {
            let (steps, _) = self.probe(dir, name)?;
            let Some(step) = steps.last() else { return damaged() };
            let (_, data) = self.dir_block(dir, step.block)?;
            let leaf = step.child(&data, step.at);
            drop(data);
            if self.is_node(dir, leaf)? {
                return damaged();
            }
            if self.add_to_block(dir, leaf, name, ino, kind)? {
                return Ok(());
            }
            if step.count < step.limit {
                let version = get8(&self.dir_block(dir, 0)?.1, 28);
                self.split_leaf(dir, step, leaf, version)?;
            } else {
                self.split_node(dir, &steps)?;
            }
        }
        damaged()
    }

    /// Moves the upper half of a leaf's names to a new one.
    fn split_leaf(&mut self, dir: &mut Inode, step: &Step, leaf: u32, version: u8) -> Result<()> {
        let (place, old) = self.dir_block(dir, leaf)?;
        let (seed, end) = (self.seed(dir), self.entries_end());
        let mut names = Vec::new();
        let mut at = 0;
        while at < end {
            let entry = entry(&old, at, end)?;
            if entry.ino != 0 {
                names.push((self.hash_name(entry.name(&old), version)?, entry));
            }
            at += entry.len;
        }
        sort::by(&mut names, |a, b| a.0 < b.0);
        let total: usize = names.iter().map(|(_, entry)| entry.used()).sum();
        let mut sum = 0;
        let middle = names
            .iter()
            .position(|(_, entry)| {
                sum += entry.used();
                sum > total / 2
            })
            .unwrap_or(0)
            .max(1);
        if middle >= names.len() {
            return damaged();
        }
        let (low, high) = names.split_at(middle);
        // The lowest bit says that names of this hash are in the leaf before as well.
        let split = high[0].0 | u32::from(low[middle - 1].0 == high[0].0);
        let (new, data) = self.add_dir_block(dir)?;
        pack(data, &old, high, end);
        pack(self.change(place, Kind::Dir(seed))?, &old, low, end);
        self.insert_child(dir, step, split, new)
    }

    /// Adds a child behind the one that a step took; there is room.
    fn insert_child(&mut self, dir: &Inode, step: &Step, hash: u32, child: u32) -> Result<()> {
        let place = self.dir_place(dir, step.block)?;
        let seed = self.seed(dir);
        let data = self.change(place, Kind::Dir(seed))?;
        let at = step.base + 8 * (step.at + 1);
        let end = step.base + 8 * step.count;
        if at > end || end + 8 > BLOCK {
            return damaged();
        }
        data.copy_within(at..end, at + 8);
        put32(data, at, hash);
        put32(data, at + 4, child);
        put16(data, step.base + 2, step.count as u16 + 1);
        Ok(())
    }

    /// Makes room in a full node: in the root by one more level, below it by a second node.
    fn split_node(&mut self, dir: &mut Inode, steps: &[Step]) -> Result<()> {
        let Some(step) = steps.last() else { return damaged() };
        let csum = self.geometry.csum.is_some();
        let (_, old) = self.dir_block(dir, step.block)?;
        let seed = self.seed(dir);
        let moved = match steps {
            [_] => 0,
            [root, _] if root.count < root.limit => step.count / 2,
            _ => return Err(Error::NoSpace),
        };
        let split = step.hash(&old, moved);
        let (new, data) = self.add_dir_block(dir)?;
        data.fill(0);
        put16(data, 4, BLOCK as u16);
        init_node(data, NODE_ENTRIES, step.child(&old, moved), csum);
        let count = step.count - moved;
        let from = step.base + 8 * (moved + 1);
        let to = step.base + 8 * step.count;
        let (from, to) = (from.min(to), to);
        data[NODE_ENTRIES + 8..NODE_ENTRIES + 8 + to - from].copy_from_slice(&old[from..to]);
        put16(data, NODE_ENTRIES + 2, count as u16);
        let place = self.dir_place(dir, step.block)?;
        if let [root, _] = steps {
            put16(self.change(place, Kind::Dir(seed))?, NODE_ENTRIES + 2, moved as u16);
            return self.insert_child(dir, root, split, new);
        }
        let data = self.change(place, Kind::Dir(seed))?;
        put8(data, 30, 1);
        put16(data, ROOT_ENTRIES + 2, 1);
        put32(data, ROOT_ENTRIES + 4, new);
        Ok(())
    }
}

/// Limit, count and first child of a node.
fn init_node(data: &mut [u8], base: usize, child: u32, csum: bool) {
    let limit = (BLOCK - base) / 8 - usize::from(csum);
    put16(data, base, limit as u16);
    put16(data, base + 2, 1);
    put32(data, base + 4, child);
}

/// Fills a block with entries of another one, keeping its tail.
fn pack(data: &mut [u8], old: &[u8], names: &[(u32, Entry)], end: usize) {
    data[..end].fill(0);
    let mut at = 0;
    for (index, (_, entry)) in names.iter().enumerate() {
        let used = entry.used();
        let len = if index + 1 == names.len() { end - at } else { used };
        put_entry(data, at, len, entry.ino, entry.name(old), entry.kind);
        at += used;
    }
    if names.is_empty() {
        put16(data, 4, end as u16);
    }
}
