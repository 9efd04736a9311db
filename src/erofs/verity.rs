//! The hash tree over a root: made, found again, and checked.
//!
//! The format is dm-verity's ([`dock2uni_format::verity`]), so `veritysetup verify` and Linux itself
//! check the same images. Most blocks have been hashed when they were written ([`Leaves`]); what was
//! mended in place afterwards, left as a hole, or is beyond what is remembered is read back and hashed
//! by several threads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use blake2b_simd::many::{HashManyJob, hash_many};
use blake2b_simd::{Params, blake2b};
use dock2uni_format::erofs::Superblock;
use dock2uni_format::verity::{BLOCK, DIGEST, Level, Shape, Verity};

use super::ReadAt;

/// Blocks that a thread hashes at a time; their digests fill sixteen blocks.
const CHUNK: u64 = 1024;
const BLOCK_LEN: u64 = BLOCK as u64;
/// First bytes of dm-verity's superblock.
const MAGIC: [u8; 8] = *b"verity\0\0";

/// What an image's blocks say about its hash tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blocks of the image and of the tree.
    pub blocks: u64,
    /// Those whose hash is another than the tree says, by their number from the image's start;
    /// [`MAX_DAMAGED`] at most.
    pub damaged: Vec<u64>,
    /// How many there are.
    pub damaged_count: u64,
}

/// Damaged blocks that are listed.
pub const MAX_DAMAGED: usize = 64;

/// Blocks whose hashes are remembered, from the image's start: 1 GiB of it, for 16 MiB of memory.
const MAX_LEAVES: u64 = 256 << 10;

/// Hashes of an image's blocks that are known before its tree is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leaves {
    digests: Vec<[u8; DIGEST]>,
    known: Vec<bool>,
}

impl Leaves {
    /// Whether the hashes of blocks from this one on can be remembered.
    pub fn wants(block: u64) -> bool {
        block < MAX_LEAVES
    }

    /// Remembers the hashes of blocks from `first` on.
    pub fn put(&mut self, first: u64, digests: &[[u8; DIGEST]]) {
        // Bounded by the slice's length and the number of blocks remembered.
        let count = digests.len().min(MAX_LEAVES.saturating_sub(first) as usize);
        let (start, end) = (first as usize, first as usize + count);
        if count == 0 {
            return;
        }
        if end > self.known.len() {
            self.digests.resize(end, [0; DIGEST]);
            self.known.resize(end, false);
        }
        self.digests[start..end].copy_from_slice(&digests[..count]);
        self.known[start..end].fill(true);
    }

    /// These blocks are not what they were.
    pub fn forget(&mut self, blocks: Range<u64>) {
        for block in blocks {
            if let Some(known) = usize::try_from(block).ok().and_then(|b| self.known.get_mut(b)) {
                *known = false;
            }
        }
    }

    /// The hash of a block, if it is known.
    pub fn get(&self, block: u64) -> Option<&[u8; DIGEST]> {
        let block = usize::try_from(block).ok()?;
        self.known.get(block)?.then(|| &self.digests[block])
    }
}

/// Writes the hash tree of the image of `len` bytes that starts at byte `start` of a file, right
/// behind it. Returns what vouches for the image, and its length with the tree.
///
/// # Errors
/// If the file cannot be read or written.
pub(crate) fn append(
    file: &File,
    start: u64,
    len: u64,
    uuid: [u8; 16],
    leaves: &Leaves,
) -> io::Result<(Verity, u64)> {
    let blocks = u32::try_from(len / BLOCK_LEN).unwrap_or(0);
    if blocks == 0 || !len.is_multiple_of(BLOCK_LEN) {
        return Err(io::Error::other("the root is no whole number of blocks"));
    }
    let shape = Shape::new(blocks);
    file.write_all_at(&superblock(blocks, uuid), start + len)?;
    let mut below = Level { first: 0, blocks: blocks.into() };
    let (none, mut known) = (Leaves::default(), leaves);
    for level in shape.levels() {
        let to = start + level.first * BLOCK_LEN;
        hash_level(file, start, below, known, |first, digests| {
            // A level's last block is filled up with zeros.
            let mut bytes = digests.as_flattened().to_vec();
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            file.write_all_at(&bytes, to + first * DIGEST as u64)
        })?;
        (below, known) = (*level, &none);
    }
    let top = Verity { root_hash: hash_block(file, start + below.first * BLOCK_LEN)?, blocks };
    Ok((top, shape.end * BLOCK_LEN))
}

/// What vouches for the image that starts at byte `start` and has `room` bytes at most, by its own
/// hash tree; `None` if it has none. Nothing but the tree's head is looked at.
///
/// # Errors
/// If it cannot be read.
pub fn find(medium: &impl ReadAt, start: u64, room: u64) -> io::Result<Option<Verity>> {
    let mut block = [0; BLOCK];
    if room < BLOCK_LEN {
        return Ok(None);
    }
    medium.read_exact_at(&mut block, start)?;
    let Ok(Superblock { blocks, uuid, .. }) = Superblock::parse(&block) else { return Ok(None) };
    if blocks == 0 || Shape::new(blocks).end * BLOCK_LEN > room {
        return Ok(None);
    }
    medium.read_exact_at(&mut block, start + u64::from(blocks) * BLOCK_LEN)?;
    if block != superblock(blocks, uuid) {
        return Ok(None);
    }
    let top = Shape::new(blocks).levels().last().map_or(0, |level| level.first);
    Ok(Some(Verity { root_hash: hash_block(medium, start + top * BLOCK_LEN)?, blocks }))
}

/// Checks every block of an image and of its tree against `verity`.
///
/// # Errors
/// If they cannot be read.
pub fn check<R: ReadAt + Sync>(medium: &R, start: u64, verity: &Verity) -> io::Result<Checked> {
    let shape = Shape::new(verity.blocks);
    let found = Mutex::new(Checked { blocks: shape.end, ..Checked::default() });
    let damaged = |block: u64| {
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.damaged_count += 1;
        found.damaged.push(block);
        if found.damaged.len() > MAX_DAMAGED {
            // Whatever order the threads come in, the lowest are kept.
            found.damaged.sort_unstable();
            found.damaged.truncate(MAX_DAMAGED);
        }
    };
    let mut below = Level { first: 0, blocks: verity.blocks.into() };
    for level in shape.levels() {
        hash_level(medium, start, below, &Leaves::default(), |first, digests| {
            let mut stored = vec![[0; DIGEST]; digests.len()];
            let at = start + level.first * BLOCK_LEN + first * DIGEST as u64;
            medium.read_exact_at(stored.as_flattened_mut(), at)?;
            for (index, _) in
                digests.iter().zip(&stored).enumerate().filter(|(_, (now, then))| now != then)
            {
                damaged(below.first + first + index as u64);
            }
            Ok(())
        })?;
        below = *level;
    }
    if hash_block(medium, start + below.first * BLOCK_LEN)? != verity.root_hash {
        damaged(below.first);
    }
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.damaged.sort_unstable();
    Ok(found)
}

/// Hashes the blocks of a level (or of the image), several at a time and in any order; `each` gets
/// digests that follow each other, and the number of the first within the level. Blocks whose hashes
/// are known are not read.
fn hash_level<R: ReadAt + Sync + ?Sized>(
    medium: &R,
    start: u64,
    level: Level,
    known: &Leaves,
    each: impl Fn(u64, &[[u8; DIGEST]]) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let chunks = level.blocks.div_ceil(CHUNK);
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let work = || -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            let first = next.fetch_add(1, Ordering::Relaxed) * CHUNK;
            if first >= level.blocks || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let end = (first + CHUNK).min(level.blocks);
            let mut digests = Vec::with_capacity(CHUNK as usize);
            let mut at = first;
            while at < end {
                if let Some(digest) = known.get(at) {
                    digests.push(*digest);
                    at += 1;
                    continue;
                }
                let stop = (at..end).find(|&block| known.get(block).is_some()).unwrap_or(end);
                // A chunk at most.
                bytes.resize((stop - at) as usize * BLOCK, 0);
                medium.read_exact_at(&mut bytes, start + (level.first + at) * BLOCK_LEN)?;
                digests.extend(hash_blocks(bytes.as_chunks().0));
                at = stop;
            }
            each(first, &digests)?;
        }
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(4) as u64);
    thread::scope(|scope| {
        let guarded = || {
            let result = work();
            stop.fetch_or(result.is_err(), Ordering::Relaxed);
            result
        };
        // This thread works as well, so that nothing depends on whether others can be had.
        let spawn = || thread::Builder::new().spawn_scoped(scope, guarded).ok();
        let others: Vec<_> = (1..threads.min(chunks)).map_while(|_| spawn()).collect();
        let mut result = guarded();
        for other in others {
            let theirs = other.join().unwrap_or_else(|_| Err(io::Error::other("a thread died")));
            result = result.and(theirs);
        }
        result
    })
}

/// The hashes of blocks.
pub(super) fn hash_blocks(blocks: &[[u8; BLOCK]]) -> Vec<[u8; DIGEST]> {
    let params = Params::new();
    let mut jobs: Vec<_> = blocks.iter().map(|block| HashManyJob::new(&params, block)).collect();
    hash_many(&mut jobs);
    jobs.iter().map(|job| *job.to_hash().as_array()).collect()
}

fn hash_block(medium: &(impl ReadAt + ?Sized), at: u64) -> io::Result<[u8; DIGEST]> {
    let mut block = [0; BLOCK];
    medium.read_exact_at(&mut block, at)?;
    Ok(*blake2b(&block).as_array())
}

/// dm-verity's superblock, as cryptsetup writes it (`lib/verity/verity.c`).
fn superblock(blocks: u32, uuid: [u8; 16]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..8].copy_from_slice(&MAGIC);
    // Version, and the type of hash: salt first, which there is none of.
    block[8..12].copy_from_slice(&1u32.to_le_bytes());
    block[12..16].copy_from_slice(&1u32.to_le_bytes());
    block[16..32].copy_from_slice(&uuid);
    block[32..43].copy_from_slice(b"blake2b-512");
    block[64..68].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    block[68..72].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    block[72..80].copy_from_slice(&u64::from(blocks).to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A file with an image of so many blocks at byte 8192, and its tree.
    fn made(blocks: u64) -> (tempfile::NamedTempFile, Verity, u64) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut seed = 1u32;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take((blocks * BLOCK_LEN) as usize)
        .collect();
        file.as_file().write_all_at(&bytes, 8192).unwrap();
        let (verity, len) =
            append(file.as_file(), 8192, blocks * BLOCK_LEN, [7; 16], &Leaves::default()).unwrap();
        assert_eq!(file.as_file().metadata().unwrap().len(), 8192 + len);
        (file, verity, len)
    }

    #[test]
    fn veritysetup_accepts_the_trees() {
        for blocks in [1, 2, 64, 65, 4097] {
            let (file, verity, _) = made(blocks);
            let hash = verity.hex();
            // cryptsetup takes the data from the start of its device only.
            let image = tempfile::NamedTempFile::new().unwrap();
            let bytes = std::fs::read(file.path()).unwrap();
            std::fs::write(image.path(), &bytes[8192..]).unwrap();
            let verify = |hash: &str| {
                let offset = blocks * BLOCK_LEN;
                Command::new("veritysetup")
                    .args(["verify", "--hash-offset", &offset.to_string()])
                    .args([image.path(), image.path()])
                    .arg(hash)
                    .output()
            };
            let Ok(output) = verify(&hash) else {
                eprintln!("SKIPPED: no veritysetup");
                return;
            };
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{blocks} blocks: {said}");
            assert!(!verify(&hash.replacen(&hash[..1], "g", 1)).unwrap().status.success());
            image.as_file().write_all_at(b"?", (blocks - 1) * BLOCK_LEN + 9).unwrap();
            assert!(!verify(&hash).unwrap().status.success());
        }
    }

    #[test]
    fn every_damaged_block_is_found() {
        for blocks in [1, 3000] {
            let (file, verity, len) = made(blocks);
            let file = file.as_file();
            let checked = check(file, 8192, &verity).unwrap();
            assert_eq!((checked.blocks, checked.damaged_count), (len / BLOCK_LEN, 0));
            for block in (0..blocks).step_by(97).chain(blocks + 1..len / BLOCK_LEN) {
                let at = 8192 + block * BLOCK_LEN + 4000;
                let mut byte = [0];
                FileExt::read_exact_at(file, &mut byte, at).unwrap();
                // The unused end of a level is hashed as well.
                file.write_all_at(&[byte[0] ^ 1], at).unwrap();
                let checked = check(file, 8192, &verity).unwrap();
                assert!(checked.damaged.contains(&block), "{block}: {checked:?}");
                file.write_all_at(&byte, at).unwrap();
            }
            assert!(check(file, 8192, &verity).unwrap().damaged.is_empty());
            // The head of the tree, which is all there is of one over one block, has no hash.
            let hashed = if blocks == 1 { BLOCK_LEN } else { len };
            file.set_len(8192 + hashed - 1).unwrap();
            assert!(check(file, 8192, &verity).is_err());
        }
    }

    #[test]
    fn many_damaged_blocks_are_counted_and_the_first_are_named() {
        let (file, verity, _) = made(3000);
        file.as_file().write_all_at(&vec![0; 3000 * BLOCK], 8192).unwrap();
        let checked = check(file.as_file(), 8192, &verity).unwrap();
        assert_eq!(checked.damaged_count, 3000);
        assert_eq!(checked.damaged, (0..MAX_DAMAGED as u64).collect::<Vec<_>>());
    }
}
