//! Free blocks and inodes: bitmaps, their counts in group descriptors and in the superblock.

use crate::cache::Kind;
use crate::crc::crc32c;
use crate::disk::{desc, get16, get32, get64, put16, put32, put64, sb};
use crate::volume::Volume;
use crate::{BLOCK, Error, Result};
use std_alloc::sync::Arc;
use std_alloc::vec::Vec;

/// A run this long is good enough to stop looking for a longer one.
const GOOD_RUN: u32 = 64;

impl Volume {
    fn desc_place(&self, group: u32) -> (u64, Kind, usize) {
        let per_block = self.geometry.descs_per_block();
        let block = 1 + u64::from(group / per_block);
        let first = group / per_block * per_block;
        (block, Kind::Descs(first), (group - first) as usize * self.geometry.desc_size)
    }

    fn desc_block(&mut self, group: u32) -> Result<(Arc<Vec<u8>>, usize)> {
        if group >= self.geometry.groups {
            return Err(Error::Corrupt("a group past the end"));
        }
        let (block, kind, at) = self.desc_place(group);
        Ok((self.block(block, kind)?, at))
    }

    /// A block number of a group descriptor.
    pub(crate) fn desc(&mut self, group: u32, (low, high): (usize, usize)) -> Result<u64> {
        let (data, at) = self.desc_block(group)?;
        let high = if self.geometry.desc_size > 32 { at + high } else { usize::MAX };
        Ok(get64(&data, at + low, high))
    }

    /// A number of a group descriptor whose halves have 16 bits.
    fn desc_halves(&mut self, group: u32, (low, high): (usize, usize)) -> Result<u32> {
        let (data, at) = self.desc_block(group)?;
        let high = if self.geometry.desc_size > 32 { at + high } else { usize::MAX };
        Ok(u32::from(get16(&data, at + low)) | u32::from(get16(&data, high)) << 16)
    }

    pub(crate) fn set_desc_halves(
        &mut self,
        group: u32,
        (low, high): (usize, usize),
        value: u32,
    ) -> Result<()> {
        let (block, kind, at) = self.desc_place(group);
        let wide = self.geometry.desc_size > 32;
        let data = self.change(block, kind)?;
        put16(data, at + low, value as u16);
        if wide {
            put16(data, at + high, (value >> 16) as u16);
        }
        Ok(())
    }

    fn desc_flags(&mut self, group: u32) -> Result<u16> {
        let (data, at) = self.desc_block(group)?;
        Ok(get16(&data, at + desc::FLAGS))
    }

    fn clear_desc_flag(&mut self, group: u32, flag: u16) -> Result<()> {
        let (block, kind, at) = self.desc_place(group);
        let data = self.change(block, kind)?;
        let flags = get16(data, at + desc::FLAGS) & !flag;
        put16(data, at + desc::FLAGS, flags);
        Ok(())
    }

    fn add_desc(&mut self, group: u32, place: (usize, usize), change: i32) -> Result<()> {
        let old = self.desc_halves(group, place)?;
        let new = old.checked_add_signed(change).ok_or(Error::Corrupt("a group's counts"))?;
        self.set_desc_halves(group, place, new)
    }

    /// Changes the counts of the superblock.
    fn add_free(&mut self, blocks: i64, inodes: i32) -> Result<()> {
        let data = self.change(0, Kind::Super)?;
        let at = sb::LEN;
        let free = get64(data, at + sb::FREE_BLOCKS, at + sb::FREE_BLOCKS_HIGH);
        // Only a hint on disk: groups have the truth.
        let free = free.saturating_add_signed(blocks);
        put64(data, at + sb::FREE_BLOCKS, at + sb::FREE_BLOCKS_HIGH, free);
        let free = get32(data, at + sb::FREE_INODES).saturating_add_signed(inodes);
        put32(data, at + sb::FREE_INODES, free);
        self.free_blocks = self.free_blocks.saturating_add_signed(blocks);
        Ok(())
    }

    /// Counts a directory.
    pub(crate) fn count_dir(&mut self, group: u32) -> Result<()> {
        self.add_desc(group, desc::USED_DIRS, 1)
    }

    /// Counts what is free, by the groups.
    pub(crate) fn count_free(&mut self) -> Result<u64> {
        let mut free = 0;
        for group in 0..self.geometry.groups {
            let count = self.desc_halves(group, desc::FREE_BLOCKS)?;
            if count > self.geometry.group_blocks(group) {
                return Err(Error::Corrupt("a group's counts"));
            }
            free += u64::from(count);
        }
        Ok(free)
    }

    /// The block bitmap of a group; made up if the group was never used.
    fn block_bitmap(&mut self, group: u32) -> Result<(u64, Arc<Vec<u8>>)> {
        let block = self.desc(group, desc::BLOCK_BITMAP)?;
        let kind = Kind::BlockBitmap(group);
        if self.desc_flags(group)? & desc::BLOCK_UNINIT != 0 {
            self.make_block_bitmap(group, block)?;
            return Ok((block, self.block(block, kind)?));
        }
        let len = self.geometry.blocks_per_group as usize / 8;
        let data = self.bitmap(group, block, kind, desc::BLOCK_BITMAP_CSUM, len)?;
        Ok((block, data))
    }

    fn make_block_bitmap(&mut self, group: u32, block: u64) -> Result<()> {
        let geometry = self.geometry;
        let start = geometry.group_start(group);
        let len = geometry.group_blocks(group);
        let mut used = Vec::new();
        if geometry.has_super(group) {
            let copies = 1 + geometry.desc_blocks() + geometry.reserved_gdt;
            used.push((start, start + u64::from(copies)));
        }
        let inode_bitmap = self.desc(group, desc::INODE_BITMAP)?;
        let table = self.desc(group, desc::INODE_TABLE)?;
        let table_len = geometry.inodes_per_group as usize * crate::inode::SIZE / BLOCK;
        used.extend([
            (block, block + 1),
            (inode_bitmap, inode_bitmap + 1),
            (table, table.saturating_add(table_len as u64)),
        ]);
        let data = self.new_block(block, Kind::BlockBitmap(group))?;
        for (from, to) in used {
            for at in from.max(start)..to.min(start + u64::from(len)) {
                set_bit(data, (at - start) as u32);
            }
        }
        // What a last group lacks counts as used.
        (len..8 * BLOCK as u32).for_each(|bit| set_bit(data, bit));
        self.clear_desc_flag(group, desc::BLOCK_UNINIT)
    }

    fn bitmap(
        &mut self,
        group: u32,
        block: u64,
        kind: Kind,
        csum: (usize, usize),
        len: usize,
    ) -> Result<Arc<Vec<u8>>> {
        let known = self.cache.blocks.contains_key(&block);
        let data = self.block(block, kind)?;
        if let Some(seed) = self.geometry.csum
            && !known
        {
            let found = crc32c(seed, data.get(..len).unwrap_or(&[]));
            let mask = if self.geometry.desc_size > 32 { !0 } else { 0xffff };
            if (found ^ self.desc_halves(group, csum)?) & mask != 0 {
                self.cache.blocks.remove(&block);
                return Err(Error::Corrupt("checksum of a bitmap"));
            }
        }
        Ok(data)
    }

    /// Allocates up to `want` consecutive blocks, at `goal` if they are free there. Returns where
    /// and how many, at least one.
    pub(crate) fn allocate(&mut self, goal: u64, want: u32) -> Result<(u64, u32)> {
        let per_group = u64::from(self.geometry.blocks_per_group);
        // What is promised to data in memory isn't for others.
        let kept = if self.for_data { 0 } else { self.promised };
        let want = u64::from(want).min(self.free_blocks.saturating_sub(kept)) as u32;
        if want == 0 {
            return Err(Error::NoSpace);
        }
        let goal = if goal < self.geometry.blocks { goal } else { 0 };
        let first = (goal / per_group) as u32;
        let mut best = (0, 0, 0);
        for step in 0..=self.geometry.groups {
            let group = (first + step) % self.geometry.groups;
            if self.desc_halves(group, desc::FREE_BLOCKS)? == 0 {
                continue;
            }
            // The goal's group comes twice: from the goal on, and at last what is before it.
            let from = if step == 0 { (goal % per_group) as u32 } else { 0 };
            let (_, bitmap) = self.block_bitmap(group)?;
            let len = self.geometry.group_blocks(group);
            let (at, run) = find_run(&bitmap, from, len, want, want.min(GOOD_RUN));
            if run > best.2 {
                best = (group, at, run);
            }
            if best.2 >= want.min(GOOD_RUN) {
                break;
            }
        }
        let (group, at, run) = best;
        if run == 0 {
            return Err(Error::NoSpace);
        }
        self.mark_blocks(group, at, run, true)?;
        Ok((self.geometry.group_start(group) + u64::from(at), run))
    }

    /// Sets or clears bits of one group, and the counts.
    fn mark_blocks(&mut self, group: u32, at: u32, len: u32, used: bool) -> Result<()> {
        let (block, _) = self.block_bitmap(group)?;
        let data = self.change(block, Kind::BlockBitmap(group))?;
        for bit in at..at + len {
            if test_bit(data, bit) == used {
                return Err(Error::Corrupt("a block is used twice or freed twice"));
            }
            flip_bit(data, bit);
        }
        let change = if used { -(len as i32) } else { len as i32 };
        self.add_desc(group, desc::FREE_BLOCKS, change)?;
        self.add_free(change.into(), 0)
    }

    /// Frees blocks when the running transaction is on disk. `metadata`: they may be in the
    /// journal.
    pub(crate) fn free(&mut self, start: u64, len: u32, metadata: bool) -> Result<()> {
        let end = start.checked_add(len.into()).filter(|&end| end <= self.geometry.blocks);
        if end.is_none() || start <= u64::from(self.geometry.desc_blocks()) {
            return Err(Error::Corrupt("a block number past the end"));
        }
        self.cache.freed.try_reserve(1).map_err(|_| Error::NoMemory)?;
        self.cache.freed.push((start, len));
        if metadata {
            (start..start + u64::from(len)).for_each(|block| self.forget(block));
        }
        Ok(())
    }

    /// At the end of a transaction: what it freed can be used again in the next one.
    pub(crate) fn apply_freed(&mut self) -> Result<()> {
        let per_group = u64::from(self.geometry.blocks_per_group);
        for (start, len) in core::mem::take(&mut self.cache.freed) {
            let (mut at, end) = (start, start + u64::from(len));
            while at < end {
                let within = (at % per_group) as u32;
                let count = (end - at).min(per_group - u64::from(within)) as u32;
                self.mark_blocks((at / per_group) as u32, within, count, false)?;
                at += u64::from(count);
            }
        }
        Ok(())
    }

    /// Blocks that will be free after the running transaction.
    pub(crate) fn freed_blocks(&self) -> u64 {
        self.cache.freed.iter().map(|&(_, len)| u64::from(len)).sum()
    }

    /// Takes an inode, in the group of `near` if it has one.
    pub(crate) fn allocate_inode(&mut self, near: u32, dir: bool) -> Result<u32> {
        let per_group = self.geometry.inodes_per_group;
        let groups = self.geometry.groups;
        let mut first = (near - 1) / per_group;
        if dir && near == crate::ROOT {
            // Directories at the top, which grow apart, start in groups of their own.
            let mut most = 0;
            for group in 0..groups.min(256) {
                let free = self.desc_halves(group, desc::FREE_BLOCKS)?;
                if free > most && self.desc_halves(group, desc::FREE_INODES)? > 0 {
                    (most, first) = (free, group);
                }
            }
        }
        for step in 0..groups {
            let group = (first + step) % groups;
            if self.desc_halves(group, desc::FREE_INODES)? == 0 {
                continue;
            }
            let (block, bitmap) = self.inode_bitmap(group)?;
            let reserved = if group == 0 { self.geometry.first_inode - 1 } else { 0 };
            let (bit, run) = find_run(&bitmap, reserved, per_group, 1, 1);
            if run == 0 {
                return Err(Error::Corrupt("a group's counts"));
            }
            set_bit(self.change(block, Kind::InodeBitmap(group))?, bit);
            self.add_desc(group, desc::FREE_INODES, -1)?;
            if dir {
                self.add_desc(group, desc::USED_DIRS, 1)?;
            }
            let unused = self.desc_halves(group, desc::ITABLE_UNUSED)?;
            if bit + 1 > per_group.saturating_sub(unused) {
                self.set_desc_halves(group, desc::ITABLE_UNUSED, per_group - bit - 1)?;
            }
            self.add_free(0, -1)?;
            return Ok(group * per_group + bit + 1);
        }
        Err(Error::NoSpace)
    }

    fn inode_bitmap(&mut self, group: u32) -> Result<(u64, Arc<Vec<u8>>)> {
        let block = self.desc(group, desc::INODE_BITMAP)?;
        let kind = Kind::InodeBitmap(group);
        let per_group = self.geometry.inodes_per_group;
        if self.desc_flags(group)? & desc::INODE_UNINIT != 0 {
            let data = self.new_block(block, kind)?;
            (per_group..8 * BLOCK as u32).for_each(|bit| set_bit(data, bit));
            self.clear_desc_flag(group, desc::INODE_UNINIT)?;
            return Ok((block, self.block(block, kind)?));
        }
        let len = per_group as usize / 8;
        Ok((block, self.bitmap(group, block, kind, desc::INODE_BITMAP_CSUM, len)?))
    }

    /// Gives an inode back.
    pub(crate) fn free_inode(&mut self, ino: u32, dir: bool) -> Result<()> {
        let per_group = self.geometry.inodes_per_group;
        let (group, bit) = ((ino - 1) / per_group, (ino - 1) % per_group);
        let (block, bitmap) = self.inode_bitmap(group)?;
        if !test_bit(&bitmap, bit) || ino < self.geometry.first_inode {
            return Err(Error::Corrupt("an inode is freed twice"));
        }
        flip_bit(self.change(block, Kind::InodeBitmap(group))?, bit);
        self.add_desc(group, desc::FREE_INODES, 1)?;
        if dir {
            self.add_desc(group, desc::USED_DIRS, -1)?;
        }
        self.add_free(0, 1)
    }
}

fn test_bit(map: &[u8], bit: u32) -> bool {
    map.get(bit as usize / 8).is_none_or(|byte| byte >> (bit % 8) & 1 != 0)
}

pub fn set_bit(map: &mut [u8], bit: u32) {
    if let Some(byte) = map.get_mut(bit as usize / 8) {
        *byte |= 1 << (bit % 8);
    }
}

fn flip_bit(map: &mut [u8], bit: u32) {
    if let Some(byte) = map.get_mut(bit as usize / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

/// The first run of clear bits in `from..end` of at least `good`, cut to `want`; else the longest.
fn find_run(map: &[u8], from: u32, end: u32, want: u32, good: u32) -> (u32, u32) {
    let mut best = (0, 0);
    let mut at = from;
    while at < end {
        if at.is_multiple_of(8) && map.get(at as usize / 8) == Some(&0xff) {
            at += 8;
            continue;
        }
        if test_bit(map, at) {
            at += 1;
            continue;
        }
        let start = at;
        while at < end && at - start < want && !test_bit(map, at) {
            at += 1;
        }
        if at - start > best.1 {
            best = (start, at - start);
        }
        // What lies right at the goal continues a file, however short.
        if best.1 >= good || start == from && from != 0 {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found() {
        let map = [0xff, 0b0000_0111, 0b1000_0000, 0];
        assert_eq!(find_run(&map, 0, 32, 20, 12), (11, 12));
        assert_eq!(find_run(&map, 0, 32, 4, 4), (11, 4));
        assert_eq!(find_run(&map, 0, 32, 20, 20), (11, 12));
        assert_eq!(find_run(&map, 24, 32, 20, 20), (24, 8));
        assert_eq!(find_run(&map, 0, 11, 1, 1), (0, 0));
    }
}
