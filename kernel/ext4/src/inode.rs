//! Inodes: 256 bytes each, in the tables of their groups.

use crate::cache::Kind;
use crate::crc::crc32c;
use crate::disk::{FileType, get16, get32, get64, put16, put32};
use crate::extent::Extent;
use crate::volume::Volume;
use crate::{Error, ROOT, Result};

/// Size on disk.
pub const SIZE: usize = 256;
/// Where attributes may begin in it.
pub const EXTRA: usize = 128;

pub const FLAG_INDEX: u32 = 0x1000;
pub const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_HUGE: u32 = 0x4_0000;
/// Flags of files that this driver can't handle: compressed, encrypted, verity, attributes in
/// inodes, data in the inode, case-folding.
const FLAGS_UNKNOWN: u32 = 0x4 | 0x800 | 0x10_0000 | 0x20_0000 | 0x1000_0000 | 0x4000_0000;

mod field {
    pub const MODE: usize = 0x0;
    pub const UID: usize = 0x2;
    pub const SIZE: usize = 0x4;
    pub const ATIME: usize = 0x8;
    pub const CTIME: usize = 0xc;
    pub const MTIME: usize = 0x10;
    pub const DTIME: usize = 0x14;
    pub const GID: usize = 0x18;
    pub const LINKS: usize = 0x1a;
    pub const BLOCKS: usize = 0x1c;
    pub const FLAGS: usize = 0x20;
    pub const GENERATION: usize = 0x64;
    pub const ACL: usize = 0x68;
    pub const SIZE_HIGH: usize = 0x6c;
    pub const BLOCKS_HIGH: usize = 0x74;
    pub const ACL_HIGH: usize = 0x76;
    pub const UID_HIGH: usize = 0x78;
    pub const GID_HIGH: usize = 0x7a;
    pub const CHECKSUM: usize = 0x7c;
    pub const EXTRA_SIZE: usize = 0x80;
    pub const CHECKSUM_HIGH: usize = 0x82;
    pub const CTIME_EXTRA: usize = 0x84;
    pub const MTIME_EXTRA: usize = 0x88;
    pub const ATIME_EXTRA: usize = 0x8c;
    pub const BTIME: usize = 0x90;
    pub const BTIME_EXTRA: usize = 0x94;
}

/// Where the root of the extent tree, a short link's text or a device number is.
pub const BODY: core::ops::Range<usize> = 0x28..0x64;

/// Seconds since 1970 and nanoseconds.
pub type Time = (i64, u32);

/// An inode in memory; writing it back is explicit.
#[derive(Clone, Copy, Debug)]
pub struct Inode {
    /// Its number.
    pub ino: u32,
    pub(crate) raw: [u8; SIZE],
}

/// What may be changed of an inode at any time; `None` leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes; doesn't touch what lies there.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of contents.
    pub mtime: Option<Time>,
    /// Last change of attributes.
    pub ctime: Option<Time>,
}

impl Inode {
    pub(crate) fn new(ino: u32, mode: u32, generation: u32) -> Inode {
        let mut inode = Inode { ino, raw: [0; SIZE] };
        put16(&mut inode.raw, field::MODE, mode as u16);
        put32(&mut inode.raw, field::GENERATION, generation);
        put16(&mut inode.raw, field::EXTRA_SIZE, 32);
        inode
    }

    /// Type and permissions.
    pub fn mode(&self) -> u32 {
        get16(&self.raw, field::MODE).into()
    }

    /// Type.
    pub fn file_type(&self) -> FileType {
        FileType::of_mode(self.mode())
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        u32::from(get16(&self.raw, field::UID)) | u32::from(get16(&self.raw, field::UID_HIGH)) << 16
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        u32::from(get16(&self.raw, field::GID)) | u32::from(get16(&self.raw, field::GID_HIGH)) << 16
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        get64(&self.raw, field::SIZE, field::SIZE_HIGH)
    }

    pub(crate) fn set_size(&mut self, size: u64) {
        put32(&mut self.raw, field::SIZE, size as u32);
        put32(&mut self.raw, field::SIZE_HIGH, (size >> 32) as u32);
    }

    /// Number of names. A directory with more than fit says 1.
    pub fn links(&self) -> u32 {
        get16(&self.raw, field::LINKS).into()
    }

    pub(crate) fn set_links(&mut self, links: u32) {
        put16(&mut self.raw, field::LINKS, links as u16);
    }

    /// Space taken, in units of 512 bytes.
    pub fn sectors(&self) -> u64 {
        let high = u64::from(get16(&self.raw, field::BLOCKS_HIGH)) << 32;
        let count = u64::from(get32(&self.raw, field::BLOCKS)) | high;
        if self.flags() & FLAG_HUGE != 0 { count << 3 } else { count }
    }

    /// Counts blocks that came or went.
    pub(crate) fn add_blocks(&mut self, change: i64) {
        let count = self.sectors().saturating_add_signed(change * 8);
        let flags = self.flags() & !FLAG_HUGE;
        put32(&mut self.raw, field::FLAGS, flags);
        put32(&mut self.raw, field::BLOCKS, count as u32);
        put16(&mut self.raw, field::BLOCKS_HIGH, (count >> 32) as u16);
    }

    pub(crate) fn flags(&self) -> u32 {
        get32(&self.raw, field::FLAGS)
    }

    pub(crate) fn set_flags(&mut self, flags: u32) {
        put32(&mut self.raw, field::FLAGS, flags);
    }

    /// Tells it from others that had its number before.
    pub fn generation(&self) -> u32 {
        get32(&self.raw, field::GENERATION)
    }

    /// Time of deletion; in the list of orphans, the next one's number.
    pub(crate) fn dtime(&self) -> u32 {
        get32(&self.raw, field::DTIME)
    }

    pub(crate) fn set_dtime(&mut self, value: u32) {
        put32(&mut self.raw, field::DTIME, value);
    }

    /// Block of attributes that don't fit here; 0: there is none.
    pub(crate) fn xattr_block(&self) -> u64 {
        u64::from(get32(&self.raw, field::ACL)) | u64::from(get16(&self.raw, field::ACL_HIGH)) << 32
    }

    pub(crate) fn set_xattr_block(&mut self, block: u64) {
        put32(&mut self.raw, field::ACL, block as u32);
        put16(&mut self.raw, field::ACL_HIGH, (block >> 32) as u16);
    }

    /// Where attributes may be in the inode.
    pub(crate) fn extra_end(&self) -> usize {
        (EXTRA + usize::from(get16(&self.raw, field::EXTRA_SIZE))).min(SIZE)
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.raw[BODY]
    }

    pub(crate) fn body_mut(&mut self) -> &mut [u8] {
        &mut self.raw[BODY]
    }

    /// Device number (major, minor) of a device node.
    pub fn device(&self) -> (u32, u32) {
        let old = get32(self.body(), 0);
        if old != 0 {
            return (old >> 8 & 0xff, old & 0xff);
        }
        let new = get32(self.body(), 4);
        ((new & 0xf_ff00) >> 8, new & 0xff | (new >> 12) & 0xf_ff00)
    }

    pub(crate) fn set_device(&mut self, major: u32, minor: u32) {
        if major < 256 && minor < 256 {
            put32(self.body_mut(), 0, major << 8 | minor);
        } else {
            put32(self.body_mut(), 4, minor & 0xff | major << 8 | (minor & !0xff) << 12);
        }
    }

    fn time(&self, at: usize, extra: usize) -> Time {
        let extra = if extra + 4 <= self.extra_end() { get32(&self.raw, extra) } else { 0 };
        let secs = i64::from(get32(&self.raw, at) as i32) + (i64::from(extra & 3) << 32);
        (secs, (extra >> 2).min(999_999_999))
    }

    fn set_time(&mut self, at: usize, extra: usize, (secs, nanos): Time) {
        // From 1901 to 2446: two more bits above 32 signed ones.
        let secs = secs.clamp(i32::MIN.into(), (3i64 << 32) + i64::from(i32::MAX));
        put32(&mut self.raw, at, secs as u32);
        if extra + 4 <= self.extra_end() {
            let epoch = (secs - i64::from(secs as i32)) >> 32;
            put32(&mut self.raw, extra, nanos << 2 | epoch as u32 & 3);
        }
    }

    /// Last access.
    pub fn atime(&self) -> Time {
        self.time(field::ATIME, field::ATIME_EXTRA)
    }

    /// Last change of contents.
    pub fn mtime(&self) -> Time {
        self.time(field::MTIME, field::MTIME_EXTRA)
    }

    /// Last change of attributes.
    pub fn ctime(&self) -> Time {
        self.time(field::CTIME, field::CTIME_EXTRA)
    }

    /// Creation.
    pub fn btime(&self) -> Time {
        self.time(field::BTIME, field::BTIME_EXTRA)
    }

    pub(crate) fn set_times(&mut self, now: Time) {
        self.set_time(field::BTIME, field::BTIME_EXTRA, now);
        self.apply(&Attributes {
            atime: Some(now),
            mtime: Some(now),
            ctime: Some(now),
            ..Attributes::default()
        });
    }

    /// Contents and attributes change now.
    pub(crate) fn touch(&mut self, now: Time) {
        self.set_time(field::MTIME, field::MTIME_EXTRA, now);
        self.set_time(field::CTIME, field::CTIME_EXTRA, now);
    }

    pub(crate) fn set_ctime(&mut self, now: Time) {
        self.set_time(field::CTIME, field::CTIME_EXTRA, now);
    }

    pub(crate) fn apply(&mut self, change: &Attributes) {
        let raw = &mut self.raw;
        if let Some(mode) = change.mode {
            let kind = get16(raw, field::MODE) & 0xf000;
            put16(raw, field::MODE, kind | mode as u16 & 0xfff);
        }
        if let Some(uid) = change.uid {
            put16(raw, field::UID, uid as u16);
            put16(raw, field::UID_HIGH, (uid >> 16) as u16);
        }
        if let Some(gid) = change.gid {
            put16(raw, field::GID, gid as u16);
            put16(raw, field::GID_HIGH, (gid >> 16) as u16);
        }
        if let Some(size) = change.size {
            self.set_size(size);
        }
        if let Some(time) = change.atime {
            self.set_time(field::ATIME, field::ATIME_EXTRA, time);
        }
        if let Some(time) = change.mtime {
            self.set_time(field::MTIME, field::MTIME_EXTRA, time);
        }
        if let Some(time) = change.ctime {
            self.set_time(field::CTIME, field::CTIME_EXTRA, time);
        }
    }

    /// Start of the checksums of blocks that belong to it.
    pub(crate) fn seed(&self, fs: u32) -> u32 {
        let csum = crc32c(fs, &self.ino.to_le_bytes());
        crc32c(csum, &self.generation().to_le_bytes())
    }

    fn checksum(&self, fs: u32) -> u32 {
        let mut raw = self.raw;
        put16(&mut raw, field::CHECKSUM, 0);
        if self.has_high_checksum() {
            put16(&mut raw, field::CHECKSUM_HIGH, 0);
        }
        let csum = crc32c(self.seed(fs), &raw);
        if self.has_high_checksum() { csum } else { csum & 0xffff }
    }

    fn has_high_checksum(&self) -> bool {
        self.extra_end() >= field::CHECKSUM_HIGH + 2
    }

    pub(crate) fn seal(&mut self, fs: u32) {
        let csum = self.checksum(fs);
        put16(&mut self.raw, field::CHECKSUM, csum as u16);
        if self.has_high_checksum() {
            put16(&mut self.raw, field::CHECKSUM_HIGH, (csum >> 16) as u16);
        }
    }

    fn stored_checksum(&self) -> u32 {
        let high =
            if self.has_high_checksum() { get16(&self.raw, field::CHECKSUM_HIGH) } else { 0 };
        u32::from(get16(&self.raw, field::CHECKSUM)) | u32::from(high) << 16
    }

    /// Whether the body holds the root of an extent tree.
    pub(crate) fn has_extents(&self) -> bool {
        self.flags() & FLAG_EXTENTS != 0
    }
}

impl Volume {
    /// Where an inode is: block, and offset in it.
    pub(crate) fn inode_place(&mut self, ino: u32) -> Result<(u64, usize)> {
        if ino == 0 || ino > self.geometry.inodes {
            return Err(Error::Corrupt("an inode number past the end"));
        }
        let (group, index) = (
            (ino - 1) / self.geometry.inodes_per_group,
            (ino - 1) % self.geometry.inodes_per_group,
        );
        let table = self.desc(group, crate::disk::desc::INODE_TABLE)?;
        let offset = u64::from(index) * SIZE as u64;
        Ok((table + offset / crate::BLOCK as u64, (offset % crate::BLOCK as u64) as usize))
    }

    /// Reads an inode that is in use, or in the list of orphans.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it isn't, [`Error::Unsupported`] for kinds of files that this driver
    /// doesn't know.
    pub fn inode(&mut self, ino: u32) -> Result<Inode> {
        if ino < self.geometry.first_inode && ino != ROOT && ino != self.geometry.journal_inode {
            return Err(Error::Corrupt("a reserved inode in use"));
        }
        let (block, offset) = self.inode_place(ino)?;
        let data = self.block(block, Kind::Plain)?;
        let mut inode = Inode { ino, raw: [0; SIZE] };
        inode.raw.copy_from_slice(data.get(offset..offset + SIZE).ok_or(Error::Io)?);
        if let Some(seed) = self.geometry.csum
            && inode.checksum(seed) != inode.stored_checksum()
        {
            return Err(Error::Corrupt("checksum of an inode"));
        }
        let kind = inode.file_type();
        if kind == FileType::Unknown
            || inode.links() == 0 && inode.dtime() != 0 && !self.orphans.contains(&ino)
            || inode.size() > i64::MAX as u64
        {
            return Err(Error::Corrupt("an inode that isn't in use"));
        }
        let mapped = matches!(kind, FileType::Regular | FileType::Directory);
        let direct = !mapped || inode.has_extents() || self.map_by_extents(&mut inode);
        if inode.flags() & FLAGS_UNKNOWN != 0 || !direct {
            return Err(Error::Unsupported("the layout of a file"));
        }
        Ok(inode)
    }

    /// Turns a map of a few blocks, as e2fsck makes `lost+found`, into extents. False if it is
    /// larger.
    fn map_by_extents(&self, inode: &mut Inode) -> bool {
        let blocks: [u32; 15] = core::array::from_fn(|at| get32(inode.body(), 4 * at));
        let mut extents: [Option<Extent>; 4] = [None; 4];
        let mut count = 0usize;
        for (block, &start) in (0..).zip(&blocks).filter(|(_, start)| **start != 0) {
            let new = Extent { block, len: 1, start: start.into(), unwritten: false };
            match count.checked_sub(1).and_then(|at| extents[at].as_mut()) {
                Some(last) if last.joins(&new) => last.len += 1,
                _ if count < 4 && block < 12 => {
                    extents[count] = Some(new);
                    count += 1;
                }
                _ => return false,
            }
        }
        crate::extent::write_root(inode.body_mut(), extents.into_iter().flatten());
        inode.set_flags(inode.flags() | FLAG_EXTENTS);
        true
    }

    /// Writes an inode into its table.
    pub(crate) fn put_inode(&mut self, inode: &mut Inode) -> Result<()> {
        if let Some(seed) = self.geometry.csum {
            inode.seal(seed);
        }
        let (block, offset) = self.inode_place(inode.ino)?;
        let data = self.change(block, Kind::Plain)?;
        data.get_mut(offset..offset + SIZE).ok_or(Error::Io)?.copy_from_slice(&inode.raw);
        Ok(())
    }

    /// Start of the checksums of an inode's blocks.
    pub(crate) fn seed(&self, inode: &Inode) -> u32 {
        self.geometry.csum.map_or(0, |seed| inode.seed(seed))
    }
}
