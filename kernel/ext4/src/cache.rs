//! Blocks of metadata in memory, and the transaction that collects changed ones.

use crate::crc::crc32c;
use crate::disk::{desc, get16, put16, put32, sb};
use crate::volume::Volume;
use crate::{BLOCK, Error, Result, dir, extent, xattr};
use std_alloc::boxed::Box;
use std_alloc::collections::BTreeMap;
use std_alloc::sync::Arc;
use std_alloc::vec::Vec;

/// Blocks kept besides those that must be.
const LIMIT: usize = 1024;

/// What a block is, which says how its checksum is made; with the number that goes into it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None, or one that its writer keeps (inode tables, symbolic links).
    Plain,
    Super,
    /// Descriptors, from this group on.
    Descs(u32),
    /// Bitmap of this group; its checksum is in the descriptor.
    BlockBitmap(u32),
    InodeBitmap(u32),
    /// Node of an extent tree, with the inode's checksum seed.
    Extents(u32),
    /// Directory, with the inode's checksum seed.
    Dir(u32),
    Xattr,
}

pub struct Entry {
    pub data: Arc<Vec<u8>>,
    kind: Kind,
    /// Changed in the running transaction.
    pub dirty: bool,
    used: bool,
    /// The call that saved it last.
    saved: u64,
}

/// The block cache with the running transaction.
#[derive(Default)]
pub struct Cache {
    pub blocks: BTreeMap<u64, Box<Entry>>,
    /// Blocks changed in the running transaction.
    pub dirty: Vec<u64>,
    /// Blocks that are in the journal but not yet in their places.
    pub journaled: BTreeMap<u64, Arc<Vec<u8>>>,
    /// What the running call has changed: the block before, `None` if it wasn't in the
    /// transaction's hands.
    undo: Vec<(u64, Arc<Vec<u8>>, bool)>,
    /// Ranges freed in the running transaction; in use until it is on disk.
    pub freed: Vec<(u64, u32)>,
    /// Those of them that may be in the journal.
    pub revoked: Vec<u64>,
    mark: (usize, usize),
    /// Number of the running call.
    call: u64,
}

/// Zeroed bytes for a block.
pub fn new_block() -> Result<Vec<u8>> {
    let mut data = Vec::new();
    data.try_reserve_exact(BLOCK).map_err(|_| Error::NoMemory)?;
    data.resize(BLOCK, 0);
    Ok(data)
}

fn copy(data: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(BLOCK).map_err(|_| Error::NoMemory)?;
    copy.extend_from_slice(data);
    Ok(copy)
}

impl Volume {
    /// A block, read and its checksum checked if it isn't in memory.
    pub(crate) fn block(&mut self, block: u64, kind: Kind) -> Result<Arc<Vec<u8>>> {
        if let Some(entry) = self.cache.blocks.get_mut(&block) {
            // One block in two roles is damage that the checksum of the second would hide.
            if entry.kind != kind {
                return Err(Error::Corrupt("a block is used twice"));
            }
            entry.used = true;
            return Ok(entry.data.clone());
        }
        if block >= self.geometry.blocks {
            return Err(Error::Corrupt("a block number past the end"));
        }
        let data = match self.cache.journaled.get(&block) {
            Some(data) => data.clone(),
            None => {
                let mut data = new_block()?;
                self.device.read(block, &mut data)?;
                self.check(block, kind, &data)?;
                Arc::new(data)
            }
        };
        self.make_room();
        let entry = Entry { data: data.clone(), kind, dirty: false, used: true, saved: 0 };
        self.cache.blocks.insert(block, Box::new(entry));
        Ok(data)
    }

    /// The bytes of a block that was read before, to be changed.
    pub(crate) fn change(&mut self, block: u64, kind: Kind) -> Result<&mut Vec<u8>> {
        if !self.cache.blocks.contains_key(&block) {
            self.block(block, kind)?;
        }
        let cache = &mut self.cache;
        let entry = cache.blocks.get_mut(&block).ok_or(Error::Io)?;
        if entry.kind != kind {
            return Err(Error::Corrupt("a block is used twice"));
        }
        if entry.saved != cache.call {
            let new = Arc::new(copy(&entry.data)?);
            cache.undo.push((block, core::mem::replace(&mut entry.data, new), entry.dirty));
            entry.saved = cache.call;
        }
        if !entry.dirty {
            entry.dirty = true;
            cache.dirty.push(block);
        }
        // Readers may hold a reference for a moment.
        if Arc::get_mut(&mut entry.data).is_none() {
            entry.data = Arc::new(copy(&entry.data)?);
        }
        Arc::get_mut(&mut entry.data).ok_or(Error::Io)
    }

    /// A block that was just allocated: zeros.
    pub(crate) fn new_block(&mut self, block: u64, kind: Kind) -> Result<&mut Vec<u8>> {
        let data = Arc::new(new_block()?);
        let entry = Entry { data: data.clone(), kind, dirty: false, used: true, saved: 0 };
        self.cache.blocks.insert(block, Box::new(entry));
        self.change(block, kind)
    }

    /// Lets go of a block of metadata that is freed.
    pub(crate) fn forget(&mut self, block: u64) {
        // The running call may fail yet, so the block stays as it is until the transaction ends.
        self.cache.revoked.push(block);
    }

    fn make_room(&mut self) {
        if self.cache.blocks.len() < LIMIT + self.cache.dirty.len() {
            return;
        }
        self.cache.blocks.retain(|_, entry| entry.dirty || core::mem::take(&mut entry.used));
        if self.cache.blocks.len() >= LIMIT + self.cache.dirty.len() {
            self.cache.blocks.retain(|_, entry| entry.dirty);
        }
    }

    /// Starts a call whose changes are kept or dropped together.
    pub(crate) fn begin(&mut self) {
        self.cache.undo.clear();
        self.cache.call += 1;
        self.cache.mark = (self.cache.freed.len(), self.cache.revoked.len());
        self.orphans_before = None;
        self.free_before = self.free_blocks;
    }

    /// Puts back what the call has changed.
    pub(crate) fn roll_back(&mut self) {
        let cache = &mut self.cache;
        while let Some((block, data, dirty)) = cache.undo.pop() {
            if let Some(entry) = cache.blocks.get_mut(&block) {
                entry.data = data;
                entry.dirty = dirty;
            }
        }
        let blocks = &cache.blocks;
        cache.dirty.retain(|block| blocks.get(block).is_some_and(|entry| entry.dirty));
        let (freed, revoked) = cache.mark;
        cache.freed.truncate(freed);
        cache.revoked.truncate(revoked);
        if let Some(orphans) = self.orphans_before.take() {
            self.orphans = orphans;
        }
        self.free_blocks = self.free_before;
    }

    /// Makes the checksums of what the transaction has changed.
    pub(crate) fn seal(&mut self) -> Result<()> {
        let Some(seed) = self.geometry.csum else { return Ok(()) };
        self.begin();
        // Bitmaps first: their checksums are in the descriptors.
        for at in 0..self.cache.dirty.len() {
            let block = self.cache.dirty[at];
            let Some(entry) = self.cache.blocks.get(&block) else { continue };
            let (group, place, len) = match entry.kind {
                Kind::BlockBitmap(group) => {
                    (group, desc::BLOCK_BITMAP_CSUM, self.geometry.blocks_per_group)
                }
                Kind::InodeBitmap(group) => {
                    (group, desc::INODE_BITMAP_CSUM, self.geometry.inodes_per_group)
                }
                _ => continue,
            };
            let csum = crc32c(seed, entry.data.get(..len as usize / 8).unwrap_or(&[]));
            self.set_desc_halves(group, place, csum)?;
        }
        for at in 0..self.cache.dirty.len() {
            let block = self.cache.dirty[at];
            let Some(kind) = self.cache.blocks.get(&block).map(|entry| entry.kind) else {
                continue;
            };
            let size = self.geometry.desc_size;
            // There is nothing to go back to.
            self.begin();
            let data = self.change(block, kind)?;
            match kind {
                Kind::Super => {
                    let at = sb::LEN;
                    let csum = crc32c(!0, data.get(at..at + sb::CHECKSUM).unwrap_or(&[]));
                    put32(data, at + sb::CHECKSUM, csum);
                }
                Kind::Descs(first) => {
                    for (group, desc) in (first..).zip(data.chunks_mut(size)) {
                        put16(desc, desc::CHECKSUM, desc_csum(seed, group, desc));
                    }
                }
                _ => {
                    if let Some((at, csum)) = block_csum(seed, block, kind, data) {
                        put32(data, at, csum);
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks a block that was read.
    fn check(&self, block: u64, kind: Kind, data: &[u8]) -> Result<()> {
        let Some(seed) = self.geometry.csum else { return Ok(()) };
        let good = match kind {
            Kind::Plain | Kind::Super => true,
            Kind::Descs(first) => {
                let groups = first..self.geometry.groups;
                groups.zip(data.chunks(self.geometry.desc_size)).all(|(group, desc)| {
                    get16(desc, desc::CHECKSUM) == desc_csum(seed, group, desc)
                })
            }
            // Checked with the descriptor at hand.
            Kind::BlockBitmap(_) | Kind::InodeBitmap(_) => true,
            _ => block_csum(seed, block, kind, data)
                .is_some_and(|(at, csum)| crate::disk::get32(data, at) == csum),
        };
        if good { Ok(()) } else { Err(Error::Corrupt("checksum of a metadata block")) }
    }
}

pub fn desc_csum(seed: u32, group: u32, desc: &[u8]) -> u16 {
    let csum = crc32c(seed, &group.to_le_bytes());
    let csum = crc32c(csum, desc.get(..desc::CHECKSUM).unwrap_or(&[]));
    let csum = crc32c(csum, &[0, 0]);
    crc32c(csum, desc.get(desc::CHECKSUM + 2..).unwrap_or(&[])) as u16
}

/// Where a block has its checksum, and what it should be. `None` if the block is malformed.
fn block_csum(seed: u32, block: u64, kind: Kind, data: &[u8]) -> Option<(usize, u32)> {
    match kind {
        Kind::Extents(seed) => {
            let at = extent::tail_at(data)?;
            Some((at, crc32c(seed, data.get(..at)?)))
        }
        Kind::Dir(seed) => dir::checksum(seed, data),
        Kind::Xattr => Some((xattr::CHECKSUM, xattr::checksum(seed, block, data))),
        _ => None,
    }
}
