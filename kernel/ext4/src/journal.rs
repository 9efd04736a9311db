//! The journal: JBD2's format, so that Linux and e2fsck replay what we wrote, and we what they did
//! (Linux `include/linux/jbd2.h`, `fs/jbd2`).
//!
//! A transaction is descriptor blocks, each followed by the blocks it names, revoke blocks, and a
//! commit block, all with the transaction's number and checksums. Numbers are big-endian.

use crate::cache::new_block;
use crate::crc::crc32c;
use crate::disk::{FileType, be32, get8, put_be32, put8};
use crate::volume::{Mapping, Volume};
use crate::{BLOCK, Error, Result, sort};
use std_alloc::sync::Arc;
use std_alloc::vec::Vec;

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPER_V2: u32 = 4;
const REVOKE: u32 = 5;

/// Superblock fields.
mod js {
    pub const BLOCK_SIZE: usize = 12;
    pub const LEN: usize = 16;
    pub const FIRST: usize = 20;
    pub const SEQUENCE: usize = 24;
    pub const START: usize = 28;
    pub const ERRNO: usize = 32;
    pub const INCOMPAT: usize = 40;
    pub const UUID: usize = 48;
    pub const USERS: usize = 64;
    pub const CHECKSUM_TYPE: usize = 80;
    pub const CHECKSUM: usize = 252;
    pub const SIZE: usize = 1024;
}

/// Features.
const HAS_REVOKE: u32 = 1;
const LONG: u32 = 2;
const CSUM_V3: u32 = 0x10;
const CRC32C: u8 = 4;

/// Flags of a block's tag: its first word was the magic number; the UUID is the same as before;
/// it is the last one.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;
const TAG: usize = 16;
const HEADER: usize = 12;
const REVOKE_HEADER: usize = 16;
/// Tags of a descriptor block: the first one has the UUID after it, the checksum comes last.
const TAGS_MAX: usize = (BLOCK - HEADER - 16 - 4) / TAG;
const REVOKES_MAX: usize = (BLOCK - REVOKE_HEADER - 4) / 8;

/// Blocks that wait in memory to be brought to their places.
const JOURNALED_MAX: usize = 1024;

/// The journal of a volume that can be written.
pub struct Journal {
    /// Runs of its blocks: where, and how many.
    runs: Vec<(u64, u32)>,
    header: Vec<u8>,
    /// Blocks, the superblock included; the first one of the log.
    len: u32,
    first: u32,
    /// Where the next transaction goes, and how much room is there.
    head: u32,
    room: u32,
    /// Number of the running transaction.
    pub running: u32,
    seed: u32,
    /// Whether it holds transactions whose blocks aren't in their places.
    used: bool,
}

fn damaged<T>() -> Result<T> {
    Err(Error::Corrupt("the journal"))
}

impl Journal {
    /// The block of the volume for a block of the journal.
    fn place(&self, mut block: u32) -> Result<u64> {
        for &(start, len) in &self.runs {
            if block < len {
                return Ok(start + u64::from(block));
            }
            block -= len;
        }
        damaged()
    }

    fn next(&self, block: u32) -> u32 {
        if block + 1 >= self.len { self.first } else { block + 1 }
    }

    fn room_max(&self) -> u32 {
        // One block stays free, or a full log would look like an empty one.
        self.len - self.first - 1
    }

    fn block_header(&self, kind: u32, id: u32) -> Result<Vec<u8>> {
        let mut block = new_block()?;
        put_be32(&mut block, 0, MAGIC);
        put_be32(&mut block, 4, kind);
        put_be32(&mut block, 8, id);
        Ok(block)
    }

    /// Puts the checksum at the end of a descriptor or revoke block.
    fn seal(&self, mut block: Vec<u8>) -> Arc<Vec<u8>> {
        let csum = crc32c(self.seed, &block);
        put_be32(&mut block, BLOCK - 4, csum);
        Arc::new(block)
    }

    fn is_sealed(&self, block: &[u8]) -> bool {
        let csum = crc32c(self.seed, block.get(..BLOCK - 4).unwrap_or(&[]));
        crc32c(csum, &[0; 4]) == be32(block, BLOCK - 4)
    }

    fn tag_checksum(&self, id: u32, data: &[u8]) -> u32 {
        crc32c(crc32c(self.seed, &id.to_be_bytes()), data)
    }

    fn commit_checksum(&self, block: &[u8]) -> u32 {
        let csum = crc32c(self.seed, block.get(..16).unwrap_or(&[]));
        let csum = crc32c(csum, &[0; 4]);
        crc32c(csum, block.get(20..).unwrap_or(&[]))
    }

    /// Writes the superblock: where the log starts (0: it is empty), and with which transaction.
    fn write_super(&mut self, device: &dyn crate::Device, start: u32, id: u32) -> Result<()> {
        let at = self.place(0)?;
        let header = &mut self.header;
        put_be32(header, js::SEQUENCE, id);
        put_be32(header, js::START, start);
        put_be32(header, js::CHECKSUM, 0);
        let csum = crc32c(!0, header.get(..js::SIZE).unwrap_or(&[]));
        put_be32(header, js::CHECKSUM, csum);
        device.write(at, &[&self.header])
    }

    fn read(&self, device: &dyn crate::Device, block: u32) -> Result<Vec<u8>> {
        let mut data = new_block()?;
        device.read(self.place(block)?, &mut data)?;
        Ok(data)
    }
}

/// The superblock of a new journal.
pub fn format(len: u32, uuid: &[u8; 16]) -> Vec<u8> {
    let mut block = std_alloc::vec![0; BLOCK];
    put_be32(&mut block, 0, MAGIC);
    put_be32(&mut block, 4, SUPER_V2);
    put_be32(&mut block, js::BLOCK_SIZE, BLOCK as u32);
    put_be32(&mut block, js::LEN, len);
    put_be32(&mut block, js::FIRST, 1);
    put_be32(&mut block, js::SEQUENCE, 1);
    put_be32(&mut block, js::INCOMPAT, HAS_REVOKE | LONG | CSUM_V3);
    if let Some(place) = block.get_mut(js::UUID..js::UUID + 16) {
        place.copy_from_slice(uuid);
    }
    put_be32(&mut block, js::USERS, 1);
    put8(&mut block, js::CHECKSUM_TYPE, CRC32C);
    let csum = crc32c(!0, block.get(..js::SIZE).unwrap_or(&[]));
    put_be32(&mut block, js::CHECKSUM, csum);
    block
}

/// One transaction in the log: its number, and its blocks' places in the log.
struct Logged {
    id: u32,
    /// Block of the log, block of the volume, flags.
    blocks: Vec<(u32, u64, u32)>,
}

impl Volume {
    /// Opens the journal and replays it; with `dry`, only says whether that would be needed.
    pub(crate) fn open_journal(&mut self, dry: bool) -> Result<bool> {
        let inode = self.inode(self.geometry.journal_inode)?;
        let len = (inode.size() / BLOCK as u64).min(u32::MAX.into()) as u32;
        let mut runs = Vec::new();
        let mut at = 0;
        while at < len {
            let Mapping { start, len: run, written } = self.find_extent(&inode, at, len - at)?;
            let Some(start) = start.filter(|_| written && run > 0) else { return damaged() };
            runs.try_reserve(1).map_err(|_| Error::NoMemory)?;
            runs.push((start, run));
            at += run;
        }
        if inode.file_type() != FileType::Regular {
            return damaged();
        }
        let journal = Journal {
            runs,
            header: Vec::new(),
            len,
            first: 0,
            head: 0,
            room: 0,
            running: 0,
            seed: 0,
            used: false,
        };
        let header = journal.read(&*self.device, 0)?;
        let mut journal = Journal { header, ..journal };
        let header = &journal.header;
        let incompat = be32(header, js::INCOMPAT);
        let start = be32(header, js::START);
        let first = be32(header, js::FIRST);
        let csummed = incompat & CSUM_V3 != 0;
        let known = HAS_REVOKE | LONG | CSUM_V3;
        if be32(header, 0) != MAGIC || be32(header, 4) != SUPER_V2 {
            return damaged();
        }
        if csummed {
            let mut copy = header.get(..js::SIZE).map(Vec::from).unwrap_or_default();
            put_be32(&mut copy, js::CHECKSUM, 0);
            if crc32c(!0, &copy) != be32(header, js::CHECKSUM)
                || get8(header, js::CHECKSUM_TYPE) != CRC32C
            {
                return damaged();
            }
        }
        if be32(header, js::BLOCK_SIZE) != BLOCK as u32
            || be32(header, js::LEN) > len
            || be32(header, js::LEN) < first.saturating_add(256)
            || first == 0
            || start != 0 && (start < first || start >= be32(header, js::LEN))
        {
            return damaged();
        }
        // Other formats are older, or of a journal in use elsewhere; an empty one is made ours.
        if start != 0 && (incompat & !known != 0 || !csummed) {
            return Err(Error::Unsupported("the format of the journal; let e2fsck replay it"));
        }
        if be32(header, js::ERRNO) != 0 {
            return Err(Error::Corrupt("an error noted in the journal"));
        }
        journal.len = be32(header, js::LEN);
        journal.first = first;
        let uuid = header.get(js::UUID..js::UUID + 16).unwrap_or(&[]);
        journal.seed = crc32c(!0, uuid);
        journal.running = be32(header, js::SEQUENCE).max(1);
        if dry {
            return Ok(start != 0);
        }
        if start != 0 {
            journal.running = self.replay(&journal, start)?;
            // Numbers of what was cut off aren't used again.
            journal.running = journal.running.wrapping_add(1);
        }
        put_be32(&mut journal.header, js::INCOMPAT, HAS_REVOKE | LONG | CSUM_V3);
        put8(&mut journal.header, js::CHECKSUM_TYPE, CRC32C);
        journal.head = first;
        journal.room = journal.room_max();
        let id = journal.running;
        journal.write_super(&*self.device, 0, id)?;
        self.device.flush()?;
        self.journal = Some(journal);
        Ok(start != 0)
    }

    /// Brings what complete transactions hold to its places. Returns the number after the last.
    fn replay(&mut self, journal: &Journal, start: u32) -> Result<u32> {
        let mut id = journal.running;
        let mut at = start;
        let mut log: Vec<Logged> = Vec::new();
        let mut revoked: Vec<(u64, u32)> = Vec::new();
        let mut current = Logged { id, blocks: Vec::new() };
        let mut revoked_now: Vec<u64> = Vec::new();
        let mut left = journal.len;
        // What ends the log is a block that isn't of the transaction that is due.
        while left > 0 {
            left -= 1;
            let block = journal.read(&*self.device, at)?;
            at = journal.next(at);
            if be32(&block, 0) != MAGIC || be32(&block, 8) != id {
                break;
            }
            match be32(&block, 4) {
                DESCRIPTOR if journal.is_sealed(&block) => {
                    let mut tag = HEADER;
                    while tag + TAG <= BLOCK - 4 {
                        let (low, flags) = (be32(&block, tag), be32(&block, tag + 4));
                        let place = u64::from(low) | u64::from(be32(&block, tag + 8)) << 32;
                        if place >= self.geometry.blocks || left == 0 {
                            return damaged();
                        }
                        left -= 1;
                        let data = journal.read(&*self.device, at)?;
                        if journal.tag_checksum(id, &data) != be32(&block, tag + 12) {
                            // Right only if the commit block doesn't follow.
                            current.blocks.push((0, place, 0));
                        } else {
                            current.blocks.push((at, place, flags));
                        }
                        at = journal.next(at);
                        tag += if flags & SAME_UUID != 0 { TAG } else { TAG + 16 };
                        if flags & LAST != 0 {
                            break;
                        }
                    }
                }
                REVOKE if journal.is_sealed(&block) => {
                    let end = (be32(&block, 12) as usize).min(BLOCK - 4);
                    for at in (REVOKE_HEADER..end.saturating_sub(7)).step_by(8) {
                        revoked_now.push(
                            u64::from(be32(&block, at)) << 32 | u64::from(be32(&block, at + 4)),
                        );
                    }
                }
                COMMIT if be32(&block, 16) == journal.commit_checksum(&block) => {
                    if current.blocks.iter().any(|&(at, ..)| at == 0) {
                        return damaged();
                    }
                    revoked.extend(revoked_now.drain(..).map(|block| (block, id)));
                    id = id.wrapping_add(1);
                    let next = Logged { id, blocks: Vec::new() };
                    log.push(core::mem::replace(&mut current, next));
                }
                _ => break,
            }
        }
        // The last mention of a block counts.
        sort::plain(&mut revoked);
        let first = journal.running;
        let age = |id: u32| id.wrapping_sub(first);
        for transaction in &log {
            for &(at, place, flags) in &transaction.blocks {
                let last = revoked.partition_point(|&(block, _)| block <= place);
                if let Some(&(block, id)) = last.checked_sub(1).and_then(|at| revoked.get(at))
                    && block == place
                    && age(id) >= age(transaction.id)
                {
                    continue;
                }
                let mut data = journal.read(&*self.device, at)?;
                if flags & ESCAPED != 0 {
                    put_be32(&mut data, 0, MAGIC);
                }
                self.device.write(place, &[&data])?;
            }
        }
        self.device.flush()?;
        self.cache.blocks.clear();
        Ok(id)
    }

    /// Number of the running transaction.
    pub fn running(&self) -> u32 {
        self.journal.as_ref().map_or(0, |journal| journal.running)
    }

    /// Whether the running transaction has anything.
    pub fn is_changed(&self) -> bool {
        !self.cache.dirty.is_empty() || !self.cache.freed.is_empty()
    }

    /// Makes all that was changed durable. Returns whether the device was flushed.
    ///
    /// # Errors
    /// After an error of the device the volume is read-only.
    pub fn commit(&mut self) -> Result<bool> {
        if !self.is_changed() || self.failed {
            return if self.failed { Err(Error::Io) } else { Ok(false) };
        }
        let result = self.write_transaction();
        if result.is_err() {
            self.failed = true;
        }
        result.map(|()| true)
    }

    fn write_transaction(&mut self) -> Result<()> {
        self.begin();
        self.apply_freed()?;
        let revoked = core::mem::take(&mut self.cache.revoked);
        for block in &revoked {
            if let Some(entry) = self.cache.blocks.get_mut(block) {
                entry.dirty = false;
            }
        }
        self.seal()?;
        let cache = &mut self.cache;
        let blocks = &mut cache.blocks;
        let mut data: Vec<(u64, Arc<Vec<u8>>)> = Vec::new();
        data.try_reserve_exact(cache.dirty.len()).map_err(|_| Error::NoMemory)?;
        for block in cache.dirty.drain(..) {
            if let Some(entry) = blocks.get_mut(&block)
                && core::mem::take(&mut entry.dirty)
            {
                data.push((block, entry.data.clone()));
            }
        }
        sort::by(&mut data, |a, b| a.0 < b.0);
        let need =
            data.len() + data.len().div_ceil(TAGS_MAX) + revoked.len().div_ceil(REVOKES_MAX) + 1;
        let journal = self.journal.as_ref().ok_or(Error::ReadOnly)?;
        if need > journal.room_max() as usize {
            return Err(Error::Corrupt("a transaction larger than the journal"));
        }
        if need > journal.room as usize || self.cache.journaled.len() > JOURNALED_MAX {
            self.checkpoint()?;
        }
        self.log(&data, &revoked, need as u32)?;
        for (block, data) in data {
            self.cache.journaled.insert(block, data);
        }
        for block in revoked {
            self.cache.blocks.remove(&block);
            self.cache.journaled.remove(&block);
        }
        Ok(())
    }

    /// Writes one transaction to the log, which has room for its `need` blocks.
    fn log(&mut self, data: &[(u64, Arc<Vec<u8>>)], revoked: &[u64], need: u32) -> Result<()> {
        let now = self.now;
        let Some(journal) = &mut self.journal else { return Err(Error::ReadOnly) };
        let id = journal.running;
        if !journal.used {
            let head = journal.head;
            journal.write_super(&*self.device, head, id)?;
            journal.used = true;
        }
        let mut out: Vec<Arc<Vec<u8>>> = Vec::new();
        out.try_reserve_exact(need as usize).map_err(|_| Error::NoMemory)?;
        for chunk in data.chunks(TAGS_MAX) {
            let place = out.len();
            let mut descriptor = journal.block_header(DESCRIPTOR, id)?;
            out.push(Arc::new(Vec::new()));
            let mut tag = HEADER;
            for (index, (block, data)) in chunk.iter().enumerate() {
                let mut flags = if index == 0 { 0 } else { SAME_UUID };
                if index + 1 == chunk.len() {
                    flags |= LAST;
                }
                let mut data = data.clone();
                if be32(&data, 0) == MAGIC {
                    flags |= ESCAPED;
                    let mut copy = new_block()?;
                    copy[4..].copy_from_slice(&data[4..]);
                    data = Arc::new(copy);
                }
                put_be32(&mut descriptor, tag, *block as u32);
                put_be32(&mut descriptor, tag + 4, flags);
                put_be32(&mut descriptor, tag + 8, (*block >> 32) as u32);
                put_be32(&mut descriptor, tag + 12, journal.tag_checksum(id, &data));
                tag += TAG;
                if index == 0 {
                    descriptor[tag..tag + 16].copy_from_slice(&journal.header[js::UUID..][..16]);
                    tag += 16;
                }
                out.push(data);
            }
            out[place] = journal.seal(descriptor);
        }
        for chunk in revoked.chunks(REVOKES_MAX) {
            let mut block = journal.block_header(REVOKE, id)?;
            put_be32(&mut block, 12, (REVOKE_HEADER + 8 * chunk.len()) as u32);
            for (at, place) in (REVOKE_HEADER..).step_by(8).zip(chunk) {
                put_be32(&mut block, at, (*place >> 32) as u32);
                put_be32(&mut block, at + 4, *place as u32);
            }
            out.push(journal.seal(block));
        }
        // Everything before the commit block is on disk before it is written.
        write_all(&*self.device, journal, &out)?;
        self.device.flush()?;
        let mut commit = journal.block_header(COMMIT, id)?;
        put_be32(&mut commit, 48, (now.0 >> 32) as u32);
        put_be32(&mut commit, 52, now.0 as u32);
        put_be32(&mut commit, 56, now.1);
        let csum = journal.commit_checksum(&commit);
        put_be32(&mut commit, 16, csum);
        write_all(&*self.device, journal, &[Arc::new(commit)])?;
        self.device.flush()?;
        journal.room -= need;
        journal.running = id.wrapping_add(1);
        Ok(())
    }

    /// Brings all blocks in the journal to their places, and empties it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn checkpoint(&mut self) -> Result<()> {
        let device = &*self.device;
        let mut run: Vec<&[u8]> = Vec::new();
        let mut start = 0;
        for (&block, data) in &self.cache.journaled {
            if start + run.len() as u64 != block && !run.is_empty() {
                device.write(start, &run)?;
                run.clear();
            }
            if run.is_empty() {
                start = block;
            }
            run.push(data);
        }
        if !run.is_empty() {
            device.write(start, &run)?;
        }
        device.flush()?;
        self.cache.journaled.clear();
        let Some(journal) = &mut self.journal else { return Ok(()) };
        if core::mem::take(&mut journal.used) {
            let id = journal.running;
            journal.write_super(device, 0, id)?;
            device.flush()?;
            journal.head = journal.first;
            journal.room = journal.room_max();
        }
        Ok(())
    }

    /// Whether it is time for a [`checkpoint`](Volume::checkpoint).
    pub fn journal_is_full(&self) -> bool {
        self.cache.journaled.len() > JOURNALED_MAX / 2
            || self.journal.as_ref().is_some_and(|journal| journal.room < journal.room_max() / 2)
    }

    /// Blocks that one transaction should not exceed.
    pub(crate) fn transaction_max(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.room_max() as usize / 4)
    }
}

/// Appends blocks to the log, in as few writes as can be.
fn write_all(
    device: &dyn crate::Device,
    journal: &mut Journal,
    blocks: &[Arc<Vec<u8>>],
) -> Result<()> {
    let mut run: Vec<&[u8]> = Vec::new();
    let mut start = 0;
    for block in blocks {
        let place = journal.place(journal.head)?;
        if start + run.len() as u64 != place && !run.is_empty() {
            device.write(start, &run)?;
            run.clear();
        }
        if run.is_empty() {
            start = place;
        }
        run.push(block);
        journal.head = journal.next(journal.head);
    }
    if run.is_empty() { Ok(()) } else { device.write(start, &run) }
}
