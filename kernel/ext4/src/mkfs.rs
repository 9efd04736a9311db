//! Makes volumes.
//!
//! What is written is little: on a device of zeros, inode tables and the journal's log need not
//! be. There is no `lost+found`, since programs refuse directories that aren't empty; e2fsck makes
//! one when it needs it.

use crate::alloc::set_bit;
use crate::disk::{compat, desc, incompat, put8, put16, put32, put64, ro_compat, sb};
use crate::inode::SIZE;
use crate::volume::Volume;
use crate::{Attributes, Inode, Time};
use crate::{BLOCK, Device, Error, ROOT, Result, crc, extent, journal};
use std_alloc::boxed::Box;
use std_alloc::vec::Vec;

/// Least size of a volume in bytes.
pub const MIN_SIZE: u64 = 8 << 20;
const PER_GROUP: u32 = 8 * BLOCK as u32;
/// Bytes of the volume for each inode.
const BYTES_PER_INODE: u64 = 16 << 10;
/// Groups whose bitmaps and tables lie together.
const LOG_FLEX: u8 = 4;
const FLEX: u32 = 1 << LOG_FLEX;
const JOURNAL_INODE: u32 = 8;
const FIRST_INODE: u32 = 11;

/// What a new volume gets.
#[derive(Clone, Debug)]
pub struct Format {
    /// UUID.
    pub uuid: [u8; 16],
    /// Key of the hash of names.
    pub hash_seed: [u8; 16],
    /// Label: at most 16 bytes are kept.
    pub label: Vec<u8>,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// Permissions of the root directory.
    pub mode: u32,
    /// The time that is entered.
    pub now: Time,
}

/// The layout of one group.
#[derive(Clone, Copy)]
struct Group {
    block_bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
}

/// Writes an empty volume over a whole device, which reads as zeros.
///
/// # Errors
/// [`Error::NoSpace`] if the device is too small, [`Error::TooMany`] if it is too large,
/// [`Error::Io`] if it fails.
pub fn mkfs(device: Box<dyn Device>, format: &Format) -> Result<()> {
    let blocks = device.blocks();
    let groups = blocks.div_ceil(PER_GROUP.into());
    if blocks < MIN_SIZE / BLOCK as u64 {
        return Err(Error::NoSpace);
    }
    let inodes_per_block = (BLOCK / SIZE) as u64;
    let inodes_per_group = (blocks * BLOCK as u64 / BYTES_PER_INODE)
        .div_ceil(groups)
        .next_multiple_of(inodes_per_block * 8)
        .min(PER_GROUP.into()) as u32;
    if groups * u64::from(inodes_per_group) > u32::MAX.into() {
        return Err(Error::TooMany);
    }
    let mut header = [0; sb::LEN];
    superblock(&mut header, format, blocks, groups as u32, inodes_per_group);
    let geometry = crate::disk::superblock(&header, blocks)?;
    // A group at the end that can't hold its own structures would be damage to e2fsck.
    let last = geometry.group_blocks(geometry.groups - 1);
    let table = inodes_per_group / inodes_per_block as u32;
    if geometry.groups > 1 && last < table + geometry.desc_blocks() + 64 {
        return mkfs(Box::new(Shorter { device, blocks: blocks - u64::from(last) }), format);
    }

    let mut used: Vec<(u64, u64)> = Vec::new();
    let copies = |group| {
        let len = if geometry.has_super(group) { 1 + geometry.desc_blocks() } else { 0 };
        geometry.group_start(group) + u64::from(len)
    };
    let mut layout: Vec<Group> = Vec::new();
    for group in 0..geometry.groups {
        if geometry.has_super(group) {
            used.push((geometry.group_start(group), copies(group)));
        }
    }
    for first in (0..geometry.groups).step_by(FLEX as usize) {
        let count = u64::from((geometry.groups - first).min(FLEX));
        let at = copies(first);
        let end = at + count * (2 + u64::from(table));
        if end > geometry.group_start(first) + u64::from(PER_GROUP).min(blocks) {
            return Err(Error::NoSpace);
        }
        used.push((at, end));
        layout.extend((0..count).map(|n| Group {
            block_bitmap: at + n,
            inode_bitmap: at + count + n,
            inode_table: at + 2 * count + n * u64::from(table),
        }));
    }

    let zero = Box::new([0u8; BLOCK]);
    let mut descs = std_alloc::vec![0; geometry.desc_blocks() as usize * BLOCK];
    let mut free_total = 0;
    for (group, place) in (0..).zip(&layout) {
        let start = geometry.group_start(group);
        let len = geometry.group_blocks(group);
        let mut bitmap = zero.clone();
        for &(from, to) in &used {
            let (from, to) = (from.max(start), to.min(start + u64::from(len)));
            (from..to).for_each(|block| set_bit(&mut *bitmap, (block - start) as u32));
        }
        (len..PER_GROUP).for_each(|bit| set_bit(&mut *bitmap, bit));
        let free = bitmap.iter().map(|byte| byte.count_zeros()).sum::<u32>();
        free_total += u64::from(free);
        let mut inodes = zero.clone();
        let reserved = if group == 0 { FIRST_INODE - 1 } else { 0 };
        (0..reserved).chain(inodes_per_group..PER_GROUP).for_each(|bit| set_bit(&mut *inodes, bit));
        device.write(place.block_bitmap, &[&*bitmap])?;
        device.write(place.inode_bitmap, &[&*inodes])?;
        let desc = &mut descs[group as usize * 64..][..64];
        let (low, high) = desc::BLOCK_BITMAP;
        put64(desc, low, high, place.block_bitmap);
        let (low, high) = desc::INODE_BITMAP;
        put64(desc, low, high, place.inode_bitmap);
        let (low, high) = desc::INODE_TABLE;
        put64(desc, low, high, place.inode_table);
        put16(desc, desc::FLAGS, desc::INODE_ZEROED);
        let seed = geometry.csum.unwrap_or(0);
        let csum = crc::crc32c(seed, &*bitmap);
        let inode_csum = crc::crc32c(seed, &inodes[..inodes_per_group as usize / 8]);
        for ((low, high), value) in [
            (desc::FREE_BLOCKS, free),
            (desc::FREE_INODES, inodes_per_group - reserved),
            (desc::ITABLE_UNUSED, inodes_per_group - reserved),
            (desc::BLOCK_BITMAP_CSUM, csum),
            (desc::INODE_BITMAP_CSUM, inode_csum),
        ] {
            put16(desc, low, value as u16);
            put16(desc, high, (value >> 16) as u16);
        }
        let csum = crate::cache::desc_csum(seed, group, desc);
        put16(desc, desc::CHECKSUM, csum);
    }
    put64(&mut header, sb::FREE_BLOCKS, sb::FREE_BLOCKS_HIGH, free_total);
    put32(&mut header, sb::FREE_INODES, geometry.inodes - (FIRST_INODE - 1));
    seal(&mut header);
    let descs: Vec<&[u8]> = descs.chunks(BLOCK).collect();
    write_copies(&*device, &geometry, &mut header, &descs)?;

    let mut volume = Volume::fresh(device, geometry, free_total, format.now);
    volume.populate(format, journal_blocks(blocks))
}

/// A device of which the end isn't used.
struct Shorter {
    device: Box<dyn Device>,
    blocks: u64,
}

impl Device for Shorter {
    fn blocks(&self) -> u64 {
        self.blocks
    }
    fn read_only(&self) -> bool {
        self.device.read_only()
    }
    fn read(&self, block: u64, out: &mut [u8]) -> Result<()> {
        self.device.read(block, out)
    }
    fn write(&self, block: u64, data: &[&[u8]]) -> Result<()> {
        self.device.write(block, data)
    }
    fn flush(&self) -> Result<()> {
        self.device.flush()
    }
}

/// A 32nd of the volume, from 4 MiB to 64 MiB.
fn journal_blocks(blocks: u64) -> u32 {
    (blocks / 32).clamp(1024, 16384) as u32
}

fn seal(header: &mut [u8]) {
    let csum = crc::crc32c(!0, &header[..sb::CHECKSUM]);
    put32(header, sb::CHECKSUM, csum);
}

/// Writes superblock and descriptors, and their copies.
fn write_copies(
    device: &dyn Device,
    geometry: &crate::disk::Geometry,
    header: &mut [u8],
    descs: &[&[u8]],
) -> Result<()> {
    for group in (0..geometry.groups).filter(|&group| geometry.has_super(group)) {
        let at = geometry.group_start(group);
        put16(header, sb::GROUP, group as u16);
        seal(header);
        let mut block = crate::cache::new_block()?;
        let place = if group == 0 { sb::LEN } else { 0 };
        block[place..place + sb::LEN].copy_from_slice(header);
        device.write(at, &[&block])?;
        device.write(at + 1, descs)?;
    }
    Ok(())
}

fn superblock(header: &mut [u8], format: &Format, blocks: u64, groups: u32, per_group: u32) {
    let now = format.now.0 as u32;
    let features = compat::HAS_JOURNAL | compat::EXT_ATTR | compat::DIR_INDEX;
    put64(header, sb::BLOCKS, sb::BLOCKS_HIGH, blocks);
    for (at, value) in [
        (sb::INODES, groups * per_group),
        (sb::LOG_BLOCK, 2),
        (sb::LOG_CLUSTER, 2),
        (sb::BLOCKS_PER_GROUP, PER_GROUP),
        (sb::CLUSTERS_PER_GROUP, PER_GROUP),
        (sb::INODES_PER_GROUP, per_group),
        (sb::WRITE_TIME, now),
        (sb::CHECK_TIME, now),
        (sb::MKFS_TIME, now),
        (sb::REVISION, 1),
        (sb::FIRST_INODE, FIRST_INODE),
        (sb::COMPAT, features),
        (sb::INCOMPAT, incompat::KNOWN & !(incompat::RECOVER | incompat::CSUM_SEED)),
        (sb::RO_COMPAT, ro_compat::KNOWN),
        (sb::JOURNAL_INODE, JOURNAL_INODE),
        // User attributes and access control lists are on.
        (sb::DEFAULT_OPTIONS, 0xc),
        // Hashes take names as signed characters, as on x86.
        (sb::FLAGS, 1),
    ] {
        put32(header, at, value);
    }
    for (at, value) in [
        (sb::MAX_MOUNTS, 0xffff),
        (sb::MAGIC, 0xef53),
        (sb::STATE, crate::disk::STATE_CLEAN),
        // Continue on errors.
        (sb::ERRORS, 1),
        (sb::INODE_SIZE, SIZE as u16),
        (sb::DESC_SIZE, 64),
        (sb::MIN_EXTRA, 32),
        (sb::WANT_EXTRA, 32),
    ] {
        put16(header, at, value);
    }
    put8(header, sb::HASH_VERSION, crate::hash::HALF_MD4);
    put8(header, sb::LOG_FLEX, LOG_FLEX);
    put8(header, sb::CHECKSUM_TYPE, 1);
    header[sb::UUID..sb::UUID + 16].copy_from_slice(&format.uuid);
    header[sb::HASH_SEED..sb::HASH_SEED + 16].copy_from_slice(&format.hash_seed);
    let label = &format.label[..format.label.len().min(16)];
    header[sb::LABEL..sb::LABEL + label.len()].copy_from_slice(label);
    seal(header);
}

impl Volume {
    /// The root directory and the journal of a new volume, written in place.
    fn populate(&mut self, format: &Format, journal_len: u32) -> Result<()> {
        self.begin();
        let mut root = Inode::new(ROOT, 0o40_000 | format.mode & 0o7777, 0);
        let (uid, gid) = (Some(format.uid), Some(format.gid));
        root.apply(&Attributes { uid, gid, ..Attributes::default() });
        root.set_times(format.now);
        root.set_links(2);
        root.set_flags(crate::inode::FLAG_EXTENTS);
        extent::init_root(root.body_mut());
        self.init_dir(&mut root, ROOT)?;
        self.put_inode(&mut root)?;
        self.count_dir(0)?;

        let mut file = Inode::new(JOURNAL_INODE, 0o100_600, 0);
        file.set_times(format.now);
        file.set_links(1);
        file.set_flags(crate::inode::FLAG_EXTENTS);
        extent::init_root(file.body_mut());
        file.set_size(u64::from(journal_len) * BLOCK as u64);
        let mut at = 0;
        let mut first = 0;
        // In the middle of the volume, where it is near everything.
        let mut goal = self.geometry.group_start(self.geometry.groups / 2);
        while at < journal_len {
            let (start, len) = self.allocate(goal, (journal_len - at).min(1 << 15))?;
            let new = extent::Extent { block: at, len, start, unwritten: false };
            file.add_blocks(len.into());
            let end = u64::from(at) + u64::from(len);
            self.replace(&mut file, at.into(), end, Some(new), None)?;
            first = if at == 0 { start } else { first };
            at += len;
            goal = start + u64::from(len);
        }
        self.put_inode(&mut file)?;
        self.device.write(first, &[&journal::format(journal_len, &format.uuid)])?;
        // e2fsck finds the journal here if its inode is lost.
        let body: [u8; 60] = core::array::from_fn(|at| file.body()[at]);
        let size = file.size();
        let header = self.change(0, crate::cache::Kind::Super)?;
        put8(header, sb::LEN + sb::JOURNAL_BACKUP, 1);
        let place = sb::LEN + sb::JOURNAL_BLOCKS;
        header[place..place + 60].copy_from_slice(&body);
        put32(header, place + 60, (size >> 32) as u32);
        put32(header, place + 64, size as u32);
        self.seal()?;
        for block in core::mem::take(&mut self.cache.dirty) {
            if let Some(entry) = self.cache.blocks.get(&block) {
                self.device.write(block, &[&entry.data])?;
            }
        }
        self.device.flush()
    }
}
