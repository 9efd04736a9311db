//! Checks blocks of an image against its hash tree when they are read
//! ([`dock2uni_format::verity`]).
//!
//! Every level of the tree is a file of digests with a page cache of its own, whose pages are
//! checked against the level above as they come in. So a hash block is hashed once while it stays
//! cached, and a data block once each time it is read from the device.

use super::blake2b::{Blake2b, Hash, PIECE};
use super::source::{Raw, read_run};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::io::IoDst;
use crate::mm::{PageCache, PageRef, Pager};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use dock2uni_format::verity::{DIGEST, Level, Shape, Verity};

/// Blocks of a level that are read with one request.
const TOGETHER: u64 = 16;

/// What blocks of an image are checked against.
pub struct Tree {
    digests: Digests,
    /// Blocks of the image.
    blocks: u64,
    /// A bit for each block that lies in memory and was found to be right.
    seen: Vec<AtomicU64>,
}

/// The digests of some blocks, all of them checked.
enum Digests {
    /// Of one block.
    Root(Hash),
    /// Of the blocks below a level.
    Level(Arc<PageCache>),
}

/// Reads one level of the tree.
struct LevelPager {
    raw: Raw,
    /// First block of the level.
    first: u64,
    /// Its blocks.
    blocks: u64,
    above: Digests,
}

impl Tree {
    /// The tree of the image in `raw`. EIO if that ends before the tree does.
    pub fn new(raw: &Raw, verity: &Verity) -> Result<Tree> {
        let shape = Shape::new(verity.blocks);
        if shape.end * PAGE_SIZE as u64 > raw.len() {
            return Err(Errno::EIO);
        }
        let mut digests = Digests::Root(verity.root_hash);
        for level in shape.levels().iter().rev() {
            let Level { first, blocks } = *level;
            let pager = LevelPager { raw: raw.clone(), first, blocks, above: digests };
            let len = blocks * PAGE_SIZE as u64;
            digests = Digests::Level(PageCache::backed(len, Arc::new(pager)));
        }
        let mut seen = Vec::new();
        if matches!(raw, Raw::Memory(_)) {
            let words = verity.blocks.div_ceil(64) as usize;
            seen.try_reserve_exact(words).map_err(|_| Errno::ENOMEM)?;
            seen.resize_with(words, AtomicU64::default);
        }
        Ok(Tree { digests, blocks: u64::from(verity.blocks), seen })
    }

    /// Checks a block that was read into a frame. EIO if it is damaged.
    pub fn check_frame(&self, block: u64, frame: &PageRef) -> Result<()> {
        self.check(block, || hash_of_frame(frame))
    }

    /// Checks the blocks that the bytes `offset..offset + len` of an image in memory lie in, those
    /// that weren't before. EIO if one is damaged.
    pub fn check_memory(&self, image: &[u8], offset: u64, len: usize) -> Result<()> {
        let last = (offset + len as u64).div_ceil(PAGE_SIZE as u64);
        for block in offset / PAGE_SIZE as u64..last {
            let word = self.seen.get((block / 64) as usize).ok_or(Errno::EIO)?;
            if word.load(Ordering::Relaxed) & 1 << (block % 64) != 0 {
                continue;
            }
            // The image is in memory, so its offsets fit.
            let at = block as usize * PAGE_SIZE;
            let bytes = image.get(at..at + PAGE_SIZE).ok_or(Errno::EIO)?;
            self.check(block, || hash_of(bytes))?;
            word.fetch_or(1 << (block % 64), Ordering::Relaxed);
        }
        Ok(())
    }

    fn check(&self, block: u64, hash: impl FnOnce() -> Hash) -> Result<()> {
        if block >= self.blocks {
            return Err(Errno::EIO);
        }
        compare("block", block, self.digests.get(block)?, hash())
    }
}

impl Digests {
    fn get(&self, index: u64) -> Result<Hash> {
        match self {
            Digests::Root(hash) => Ok(*hash),
            Digests::Level(cache) => {
                let mut hash = [0; DIGEST];
                let mut dst = IoDst::kernel(&mut hash);
                // A digest never crosses a page, so it is read whole or not at all.
                match cache.read_at(index * DIGEST as u64, &mut dst)? {
                    DIGEST => Ok(hash),
                    _ => Err(Errno::EIO),
                }
            }
        }
    }
}

impl Pager for LevelPager {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        let frame = self.raw.frame((self.first + index) * PAGE_SIZE as u64)?;
        self.check(index, &frame)?;
        Ok(frame)
    }

    /// Whoever needs one digest needs others soon: those of four megabytes behind it come along.
    fn read_pages(
        &self,
        index: u64,
        _count: usize,
        sink: &mut dyn FnMut(u64, PageRef),
    ) -> Result<()> {
        if matches!(self.raw, Raw::Memory(_)) {
            sink(index, self.read_page(index)?);
            return Ok(());
        }
        let count = (self.blocks - index).min(TOGETHER) as usize;
        let fill = |frames: &[PageRef]| {
            self.raw.fill((self.first + index) * PAGE_SIZE as u64, frames)?;
            self.check(index, &frames[0])
        };
        read_run(index, count, fill, sink)
    }

    fn checks(&self) -> bool {
        true
    }

    fn check(&self, index: u64, page: &PageRef) -> Result<()> {
        compare("hash block", self.first + index, self.above.get(index)?, hash_of_frame(page))
    }
}

/// Digest of a block in memory.
fn hash_of(block: &[u8]) -> Hash {
    hash(|at, piece| piece.copy_from_slice(&block[at..at + PIECE]))
}

/// Digest of a frame that only the kernel has.
fn hash_of_frame(frame: &PageRef) -> Hash {
    hash(|at, piece| frame.read(at, piece))
}

fn hash(read: impl Fn(usize, &mut [u8; PIECE])) -> Hash {
    let mut hasher = Blake2b::new();
    let mut piece = [0; PIECE];
    for at in (0..PAGE_SIZE).step_by(PIECE) {
        read(at, &mut piece);
        hasher.update(&piece, at + PIECE == PAGE_SIZE);
    }
    hasher.digest()
}

fn compare(what: &str, block: u64, expected: Hash, found: Hash) -> Result<()> {
    /// Enough to see the extent of it; a program may try again for ever.
    const LINES: u32 = 16;
    static TOLD: AtomicU32 = AtomicU32::new(0);
    if found == expected {
        return Ok(());
    }
    if TOLD
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |told| {
            (told < LINES).then_some(told + 1)
        })
        .is_ok()
    {
        crate::error!(
            "dock2uni: the root filesystem is damaged: {what} {block} does not have the hash that \
             the boot record vouches for; check the image with `dock2uni image verify`"
        );
    }
    Err(Errno::EIO)
}
