//! An open volume.

use crate::cache::{Cache, Kind};
use crate::disk::{self, FileType, Geometry, get16, get32, put16, put32, sb};
use crate::extent::{self, BLOCKS_MAX, Extent};
use crate::inode::{Attributes, FLAG_EXTENTS, Inode, Time};
use crate::journal::Journal;
use crate::{BLOCK, Device, Error, Result};
use std_alloc::boxed::Box;
use std_alloc::vec::Vec;

/// Most names of a file. A directory may have more, and then says 1.
const LINKS_MAX: u32 = 65_000;
/// A link's text that is shorter lies in the inode.
const FAST_LINK: usize = 60;

/// An open volume. Calls that change it take effect in memory; [`commit`](Volume::commit) makes
/// them durable.
pub struct Volume {
    pub(crate) device: Box<dyn Device>,
    pub(crate) geometry: Geometry,
    pub(crate) cache: Cache,
    pub(crate) journal: Option<Journal>,
    /// Inodes to be freed or cut when nobody uses them, oldest first; the list on disk begins with
    /// the last.
    pub(crate) orphans: Vec<u32>,
    pub(crate) orphans_before: Option<Vec<u32>>,
    pub(crate) free_blocks: u64,
    pub(crate) free_before: u64,
    /// The device failed: nothing can be made durable any more.
    pub(crate) failed: bool,
    /// Damage was found: no more changes.
    damaged: bool,
    /// Whether the running call may use what is promised.
    pub(crate) for_data: bool,
    /// The time that changes are made at.
    pub now: Time,
    /// Blocks that the caller holds data in memory for.
    pub promised: u64,
}

/// Where consecutive blocks of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First block of the volume; `None`: a hole.
    pub start: Option<u64>,
    /// Blocks.
    pub len: u32,
    /// Whether they hold data; otherwise they read as zeros.
    pub written: bool,
}

/// What a new file is.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device node.
    pub device: (u32, u32),
    /// Text of a symbolic link.
    pub target: &'a [u8],
}

/// Size and usage of a volume.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Blocks that files can have.
    pub blocks: u64,
    /// Those of them that are free.
    pub free: u64,
    /// Inodes.
    pub inodes: u32,
    /// Those of them that are free.
    pub free_inodes: u32,
}

/// One move of a name.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// The directory it is in.
    pub from: u32,
    /// The name.
    pub name: &'a [u8],
    /// What it names.
    pub ino: u32,
    /// The directory it goes to.
    pub to: u32,
    /// The name there.
    pub new_name: &'a [u8],
    /// What has that name now.
    pub target: Option<u32>,
    /// Both names swap.
    pub exchange: bool,
}

impl Volume {
    /// Opens a volume; replays its journal and finishes what was cut short, unless it is only to
    /// be read.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it isn't ext4 or of a kind that this driver doesn't know,
    /// [`Error::Corrupt`] if it is damaged, [`Error::ReadOnly`] if it must be written and can't be.
    pub fn open(device: Box<dyn Device>, read_only: bool, now: Time) -> Result<Volume> {
        let geometry = read_geometry(&*device)?;
        let mut volume = Volume::fresh(device, geometry, 0, now);
        if read_only {
            volume.free_blocks = volume.count_free()?;
            if geometry.read_only.is_none() && volume.open_journal(true)? {
                return Err(Error::Unsupported(
                    "its journal must be replayed; mount it once to be written to",
                ));
            }
            return Ok(volume);
        }
        if let Some(why) = geometry.read_only {
            return Err(Error::Unsupported(why));
        }
        if volume.device.read_only() {
            return Err(Error::ReadOnly);
        }
        if volume.open_journal(false)? {
            volume.geometry = read_geometry(&*volume.device)?;
        }
        volume.free_blocks = volume.count_free()?;
        volume.write_super(true)?;
        volume.finish_orphans()?;
        Ok(volume)
    }

    pub(crate) fn fresh(
        device: Box<dyn Device>,
        geometry: Geometry,
        free_blocks: u64,
        now: Time,
    ) -> Volume {
        Volume {
            device,
            geometry,
            cache: Cache::default(),
            journal: None,
            orphans: Vec::new(),
            orphans_before: None,
            free_blocks,
            free_before: free_blocks,
            failed: false,
            damaged: false,
            for_data: false,
            now,
            promised: 0,
        }
    }

    /// Makes everything durable and marks the volume as cleanly closed. It may still be read.
    ///
    /// # Errors
    /// If the device fails, or has failed before.
    pub fn close(&mut self) -> Result<()> {
        if self.journal.is_none() {
            return Ok(());
        }
        if !self.is_read_only() {
            // Files without names that somebody still had open.
            self.release_orphans()?;
        }
        self.commit()?;
        self.checkpoint()?;
        self.write_super(false)?;
        self.journal = None;
        Ok(())
    }

    /// Writes the superblock in place, saying whether the journal must be looked at.
    fn write_super(&mut self, open: bool) -> Result<()> {
        let old = self.block(0, Kind::Super)?;
        let mut data = Vec::from(&old[..]);
        let header = data.get_mut(sb::LEN..2 * sb::LEN).ok_or(Error::Io)?;
        let flag = disk::incompat::RECOVER;
        let flags = get32(header, sb::INCOMPAT);
        put32(header, sb::INCOMPAT, if open { flags | flag } else { flags & !flag });
        put32(header, sb::WRITE_TIME, self.now.0 as u32);
        if open {
            put32(header, sb::MOUNT_TIME, self.now.0 as u32);
            let mounts = get16(header, sb::MOUNTS).saturating_add(1);
            put16(header, sb::MOUNTS, mounts);
        }
        if self.geometry.csum.is_some() {
            let csum = crate::crc::crc32c(!0, header.get(..sb::CHECKSUM).unwrap_or(&[]));
            put32(header, sb::CHECKSUM, csum);
        }
        self.device.write(0, &[&data])?;
        self.device.flush()?;
        self.cache.blocks.remove(&0);
        Ok(())
    }

    /// UUID of the volume.
    pub fn uuid(&self) -> [u8; 16] {
        self.geometry.uuid
    }

    /// Whether changes are refused.
    pub fn is_read_only(&self) -> bool {
        self.journal.is_none() || self.failed || self.damaged
    }

    /// Number of the last transaction that is durable.
    pub fn committed(&self) -> u32 {
        self.running().wrapping_sub(1)
    }

    /// Free blocks, those that will be after the running transaction included.
    pub fn available(&self) -> u64 {
        self.free_blocks + self.freed_blocks()
    }

    /// Size and usage; what was freed counts as free at once.
    ///
    /// # Errors
    /// If the device fails.
    pub fn usage(&mut self) -> Result<Usage> {
        let geometry = self.geometry;
        let tables = u64::from(geometry.groups)
            * (2 + u64::from(geometry.inodes_per_group) * crate::inode::SIZE as u64 / BLOCK as u64);
        let overhead = tables + 1 + u64::from(geometry.desc_blocks());
        let free_inodes = get32(&self.block(0, Kind::Super)?, sb::LEN + sb::FREE_INODES);
        let free = self.available();
        Ok(Usage {
            blocks: geometry.blocks.saturating_sub(overhead),
            free,
            inodes: geometry.inodes,
            free_inodes,
        })
    }

    /// After damage was found: changes are refused from now on, and e2fsck will look at it.
    pub fn set_damaged(&mut self) {
        if self.damaged || self.journal.is_none() {
            return;
        }
        self.damaged = true;
        self.begin();
        if let Ok(data) = self.change(0, Kind::Super) {
            let state = get16(data, sb::LEN + sb::STATE) | disk::STATE_ERRORS;
            put16(data, sb::LEN + sb::STATE, state);
        }
    }

    /// Runs a call that changes the volume: all of it or nothing.
    pub(crate) fn run<R>(&mut self, mut call: impl FnMut(&mut Volume) -> Result<R>) -> Result<R> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        if self.cache.dirty.len() > self.transaction_max() {
            self.commit()?;
        }
        loop {
            self.begin();
            let result = call(self);
            self.for_data = false;
            let Err(error) = result else { return result };
            self.roll_back();
            match error {
                // What was freed can be used again after the transaction that freed it.
                Error::NoSpace if !self.cache.freed.is_empty() => self.commit().map(drop)?,
                Error::Corrupt(_) => {
                    self.set_damaged();
                    return Err(error);
                }
                _ => return Err(error),
            }
        }
    }

    /// The inode and type that a name leads to.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::NotDirectory`].
    pub fn lookup(&mut self, dir: u32, name: &[u8]) -> Result<u32> {
        let dir = self.inode(dir)?;
        let place = self.find_entry(&dir, name)?.ok_or(Error::NotFound)?;
        if self.inode(place.ino)?.links() == 0 {
            return Err(Error::Corrupt("a name of a file without names"));
        }
        Ok(place.ino)
    }

    /// Makes a file, under a name or without one.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoSpace`].
    pub fn create(&mut self, dir: u32, name: Option<&[u8]>, file: &NewFile<'_>) -> Result<Inode> {
        self.run(|volume| volume.make(dir, name, file))
    }

    fn make(&mut self, dir: u32, name: Option<&[u8]>, file: &NewFile<'_>) -> Result<Inode> {
        let mut parent = self.live_dir(dir)?;
        let kind = FileType::of_mode(file.mode);
        if let Some(name) = name
            && self.find_entry(&parent, name)?.is_some()
        {
            return Err(Error::Exists);
        }
        let ino = self.allocate_inode(dir, kind == FileType::Directory)?;
        let generation = self.now.1.rotate_left(7) ^ self.now.0 as u32 ^ ino.rotate_left(16);
        let mut inode = Inode::new(ino, file.mode, generation);
        let (uid, gid) = (Some(file.uid), Some(file.gid));
        inode.apply(&Attributes { uid, gid, ..Attributes::default() });
        inode.set_times(self.now);
        inode.set_links(u32::from(name.is_some()));
        match kind {
            FileType::Regular => inode.set_flags(FLAG_EXTENTS),
            FileType::CharDevice | FileType::BlockDevice => {
                inode.set_device(file.device.0, file.device.1);
            }
            FileType::Symlink if file.target.len() < FAST_LINK => {
                inode.body_mut()[..file.target.len()].copy_from_slice(file.target);
                inode.set_size(file.target.len() as u64);
            }
            FileType::Directory | FileType::Symlink => inode.set_flags(FLAG_EXTENTS),
            _ => {}
        }
        if inode.has_extents() {
            extent::init_root(inode.body_mut());
        }
        if kind == FileType::Directory {
            inode.set_links(2);
            self.init_dir(&mut inode, dir)?;
            count_subdir(&mut parent, 1)?;
        } else if kind == FileType::Symlink && inode.has_extents() {
            let block = self.append_block(&mut inode, 0)?;
            let data = self.new_block(block, Kind::Plain)?;
            data.get_mut(..file.target.len()).ok_or(Error::TooMany)?.copy_from_slice(file.target);
            inode.set_size(file.target.len() as u64);
        }
        if let Some(name) = name {
            self.add_entry(&mut parent, name, ino, kind)?;
            parent.touch(self.now);
            self.put_inode(&mut parent)?;
        } else {
            self.add_orphan(&mut inode)?;
        }
        self.put_inode(&mut inode)?;
        Ok(inode)
    }

    /// A directory that hasn't been removed: only to those can names be added.
    fn live_dir(&mut self, dir: u32) -> Result<Inode> {
        let dir = self.inode(dir)?;
        if dir.links() == 0 { Err(Error::NotFound) } else { Ok(dir) }
    }

    /// Text of a symbolic link.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn read_link(&mut self, inode: &Inode) -> Result<Vec<u8>> {
        let len = inode.size() as usize;
        let text = if len < FAST_LINK && !inode.has_extents() {
            inode.body().get(..len).map(Vec::from)
        } else {
            let mapping = self.find_extent(inode, 0, 1)?;
            let start = mapping.start.ok_or(Error::Corrupt("a symbolic link"))?;
            self.block(start, Kind::Plain)?.get(..len).map(Vec::from)
        };
        text.filter(|text| !text.is_empty() && !text.contains(&0))
            .ok_or(Error::Corrupt("a symbolic link"))
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::TooMany`], [`Error::NoSpace`].
    pub fn link(&mut self, dir: u32, name: &[u8], ino: u32) -> Result<Inode> {
        self.run(|volume| {
            let mut inode = volume.inode(ino)?;
            if inode.links() >= LINKS_MAX {
                return Err(Error::TooMany);
            }
            if inode.links() == 0 {
                volume.remove_orphan(&mut inode)?;
            }
            inode.set_links(inode.links() + 1);
            inode.set_ctime(volume.now);
            volume.put_inode(&mut inode)?;
            let mut parent = volume.live_dir(dir)?;
            if volume.find_entry(&parent, name)?.is_some() {
                return Err(Error::Exists);
            }
            volume.add_entry(&mut parent, name, ino, inode.file_type())?;
            parent.touch(volume.now);
            volume.put_inode(&mut parent)?;
            Ok(inode)
        })
    }

    /// Removes a name, of an empty directory if it is one. A file without names stays until it is
    /// [released](Volume::release).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotEmpty`].
    pub fn unlink(&mut self, dir: u32, name: &[u8]) -> Result<Inode> {
        self.run(|volume| {
            let mut parent = volume.inode(dir)?;
            let place = volume.find_entry(&parent, name)?.ok_or(Error::NotFound)?;
            let inode = volume.drop_name(place.ino, &mut parent)?;
            volume.remove_entry(&parent, place)?;
            parent.touch(volume.now);
            volume.put_inode(&mut parent)?;
            Ok(inode)
        })
    }

    /// One name fewer for an inode whose name in `parent` goes.
    fn drop_name(&mut self, ino: u32, parent: &mut Inode) -> Result<Inode> {
        let mut inode = self.inode(ino)?;
        if inode.links() == 0 {
            return Err(Error::Corrupt("a name of a file without names"));
        }
        if inode.file_type() == FileType::Directory {
            if !self.is_empty_dir(&inode)? {
                return Err(Error::NotEmpty);
            }
            inode.set_links(0);
            count_subdir(parent, -1)?;
        } else {
            inode.set_links(inode.links() - 1);
        }
        inode.set_ctime(self.now);
        if inode.links() == 0 {
            self.add_orphan(&mut inode)?;
        }
        self.put_inode(&mut inode)?;
        Ok(inode)
    }

    /// rename(2): types and ancestry have been checked.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotEmpty`], [`Error::NoSpace`].
    pub fn rename(&mut self, request: &Move<'_>) -> Result<()> {
        self.run(|volume| volume.rename_entry(request))
    }

    fn rename_entry(&mut self, request: &Move<'_>) -> Result<()> {
        let now = self.now;
        let mut moved = self.inode(request.ino)?;
        let is_dir = moved.file_type() == FileType::Directory;
        let across = request.from != request.to;
        moved.set_ctime(now);
        self.put_inode(&mut moved)?;
        let mut target_is_dir = false;
        let mut to = self.live_dir(request.to)?;
        let place = self.find_entry(&to, request.new_name)?;
        if place.map(|place| place.ino) != request.target {
            return Err(Error::NotFound);
        }
        match place {
            Some(place) if request.exchange => {
                let mut target = self.inode(place.ino)?;
                target_is_dir = target.file_type() == FileType::Directory;
                target.set_ctime(now);
                self.put_inode(&mut target)?;
                self.set_entry(&to, place, request.ino, moved.file_type())?;
            }
            Some(place) => {
                self.drop_name(place.ino, &mut to)?;
                self.set_entry(&to, place, request.ino, moved.file_type())?;
            }
            None => self.add_entry(&mut to, request.new_name, request.ino, moved.file_type())?,
        }
        to.touch(now);
        if across && is_dir {
            count_subdir(&mut to, 1)?;
        }
        if across && target_is_dir {
            count_subdir(&mut to, -1)?;
        }
        self.put_inode(&mut to)?;
        let mut from = self.inode(request.from)?;
        // Adding may have moved it.
        let old = self.find_entry(&from, request.name)?.ok_or(Error::NotFound)?;
        match request.target {
            Some(target) if request.exchange => {
                let kind = self.inode(target)?.file_type();
                self.set_entry(&from, old, target, kind)?;
            }
            _ if old.ino != request.ino => return Err(Error::NotFound),
            _ => self.remove_entry(&from, old)?,
        }
        from.touch(now);
        if across && is_dir {
            count_subdir(&mut from, -1)?;
        }
        if across && target_is_dir {
            count_subdir(&mut from, 1)?;
        }
        self.put_inode(&mut from)?;
        if across && is_dir {
            self.set_parent(request.ino, request.to)?;
        }
        if let Some(target) = request.target
            && across
            && target_is_dir
        {
            self.set_parent(target, request.from)?;
        }
        Ok(())
    }

    /// Makes `..` of a directory point elsewhere.
    fn set_parent(&mut self, dir: u32, parent: u32) -> Result<()> {
        let dir = self.inode(dir)?;
        let place = self.find_entry(&dir, b"..")?.ok_or(Error::Corrupt("a directory"))?;
        self.set_entry(&dir, place, parent, FileType::Directory)
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] and what reading and writing the inode gives.
    pub fn set(&mut self, ino: u32, change: &Attributes) -> Result<Inode> {
        self.run(|volume| {
            let mut inode = volume.inode(ino)?;
            inode.apply(change);
            volume.put_inode(&mut inode)?;
            Ok(inode)
        })
    }

    /// Where a file's blocks from `block` on are; at most `len` of them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`].
    pub fn map(&mut self, ino: u32, block: u32, len: u32) -> Result<Mapping> {
        let inode = self.inode(ino)?;
        self.find_extent(&inode, block, len)
    }

    /// Makes sure that a file has blocks from `block` on, at most `len`; new ones are unwritten
    /// until [`finish`](Volume::finish). `promised`: they are for data that was promised room.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub fn prepare(&mut self, ino: u32, block: u32, len: u32, promised: bool) -> Result<Mapping> {
        let found = self.map(ino, block, len)?;
        if found.start.is_some() {
            return Ok(found);
        }
        self.run(|volume| {
            volume.for_data = promised;
            let mut inode = volume.inode(ino)?;
            let goal = volume.goal(&inode, block)?;
            // Longer ones couldn't say that they are unwritten.
            let (start, len) = volume.allocate(goal, found.len.min((1 << 15) - 1))?;
            let extent = Extent { block, len, start, unwritten: true };
            let (from, to) = (u64::from(block), u64::from(block) + u64::from(len));
            inode.add_blocks(len.into());
            volume.replace(&mut inode, from, to, Some(extent), None)?;
            volume.put_inode(&mut inode)?;
            Ok(Mapping { start: Some(start), len, written: false })
        })
    }

    /// Notes that prepared blocks (`(block, len)`) have been written, and changes attributes.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if a tree that must grow can't.
    pub fn finish(&mut self, ino: u32, runs: &[(u32, u32)], change: &Attributes) -> Result<Inode> {
        self.run(|volume| {
            volume.for_data = true;
            let mut inode = volume.inode(ino)?;
            for &(block, len) in runs {
                let end = u64::from(block) + u64::from(len);
                let mut at = block;
                while u64::from(at) < end {
                    let left = (end - u64::from(at)) as u32;
                    let found = volume.find_extent(&inode, at, left)?;
                    if let Some(start) = found.start.filter(|_| !found.written) {
                        let extent = Extent { block: at, len: found.len, start, unwritten: false };
                        let to = u64::from(at) + u64::from(found.len);
                        volume.replace(&mut inode, at.into(), to, Some(extent), None)?;
                    }
                    at = match at.checked_add(found.len.max(1)) {
                        Some(next) => next,
                        None => break,
                    };
                }
            }
            inode.apply(change);
            volume.put_inode(&mut inode)?;
            Ok(inode)
        })
    }

    /// Sets the length of a regular file, freeing what lies past it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`].
    pub fn truncate(&mut self, ino: u32, size: u64) -> Result<Inode> {
        let from = size.div_ceil(BLOCK as u64);
        self.run(|volume| {
            let mut inode = volume.inode(ino)?;
            let shrinks = size < inode.size();
            inode.set_size(size);
            inode.touch(volume.now);
            // Blocks past the end may be there without a change of length, too.
            let done = !shrinks && inode.sectors() == 0 || volume.cut(&mut inode, from)?;
            if !done {
                volume.add_orphan(&mut inode)?;
            }
            volume.put_inode(&mut inode)
        })?;
        while self.orphans.contains(&ino) {
            self.run(|volume| {
                let mut inode = volume.inode(ino)?;
                if volume.cut(&mut inode, from)? {
                    volume.remove_orphan(&mut inode)?;
                }
                volume.put_inode(&mut inode)
            })?;
        }
        self.inode(ino)
    }

    /// Frees blocks from `from` on, as many as one leaf of the tree holds. Returns whether that was
    /// all.
    fn cut(&mut self, inode: &mut Inode, from: u64) -> Result<bool> {
        if !inode.has_extents() || from > BLOCKS_MAX {
            return Ok(true);
        }
        let start = self.last_leaf(inode)?.max(from);
        let metadata = inode.file_type() != FileType::Regular;
        self.replace(inode, start, BLOCKS_MAX + 1, None, Some(metadata))?;
        Ok(start == from)
    }

    /// Frees the whole blocks of `from..to` of a file (in blocks).
    ///
    /// # Errors
    /// [`Error::NoSpace`] if a tree that must grow can't.
    pub fn punch(&mut self, ino: u32, from: u32, to: u32) -> Result<Inode> {
        self.run(|volume| {
            volume.for_data = true;
            let mut inode = volume.inode(ino)?;
            volume.replace(&mut inode, from.into(), to.into(), None, Some(false))?;
            inode.touch(volume.now);
            volume.put_inode(&mut inode)?;
            Ok(inode)
        })
    }

    /// Frees a file that has no names and no users.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`].
    pub fn release(&mut self, ino: u32) -> Result<()> {
        loop {
            let done = self.run(|volume| {
                let mut inode = volume.inode(ino)?;
                if inode.links() != 0 {
                    return Err(Error::Corrupt("a file with names is released"));
                }
                let whole = volume.cut(&mut inode, 0)?;
                if whole {
                    volume.drop_xattr_block(&mut inode)?;
                    let dir = inode.file_type() == FileType::Directory;
                    volume.remove_orphan(&mut inode)?;
                    volume.free_inode(ino, dir)?;
                    inode.set_size(0);
                    inode.set_dtime((volume.now.0 as u32).max(1));
                }
                volume.put_inode(&mut inode)?;
                Ok(whole)
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Allocates a block for a file's block that has none, and enters it.
    pub(crate) fn append_block(&mut self, inode: &mut Inode, block: u32) -> Result<u64> {
        let goal = self.goal(inode, block)?;
        let (start, _) = self.allocate(goal, 1)?;
        inode.add_blocks(1);
        let extent = Extent { block, len: 1, start, unwritten: false };
        let from = u64::from(block);
        self.replace(inode, from, from + 1, Some(extent), None)?;
        Ok(start)
    }

    fn save_orphans(&mut self) {
        if self.orphans_before.is_none() {
            self.orphans_before = Some(self.orphans.clone());
        }
    }

    fn set_last_orphan(&mut self) -> Result<()> {
        let last = self.orphans.last().copied().unwrap_or(0);
        put32(self.change(0, Kind::Super)?, sb::LEN + sb::LAST_ORPHAN, last);
        Ok(())
    }

    /// Puts an inode in the list of those to be dealt with after a crash. The caller writes it.
    fn add_orphan(&mut self, inode: &mut Inode) -> Result<()> {
        if self.orphans.contains(&inode.ino) {
            return Ok(());
        }
        self.save_orphans();
        inode.set_dtime(self.orphans.last().copied().unwrap_or(0));
        self.orphans.push(inode.ino);
        self.set_last_orphan()
    }

    /// Takes an inode out of the list. The caller writes it.
    fn remove_orphan(&mut self, inode: &mut Inode) -> Result<()> {
        let Some(at) = self.orphans.iter().position(|&ino| ino == inode.ino) else {
            return Ok(());
        };
        self.save_orphans();
        self.orphans.remove(at);
        match self.orphans.get(at).copied() {
            // The one that came after it points to the one before it.
            Some(after) => {
                let before = at.checked_sub(1).and_then(|at| self.orphans.get(at));
                let before = before.copied().unwrap_or(0);
                let mut after = self.inode(after)?;
                after.set_dtime(before);
                self.put_inode(&mut after)?;
            }
            None => self.set_last_orphan()?,
        }
        inode.set_dtime(0);
        Ok(())
    }

    /// Deals with what was in the list when the volume was last in use.
    fn finish_orphans(&mut self) -> Result<()> {
        let mut next = get32(&self.block(0, Kind::Super)?, sb::LEN + sb::LAST_ORPHAN);
        while next != 0 {
            if next < self.geometry.first_inode || self.orphans.contains(&next) {
                return Err(Error::Corrupt("the list of orphans"));
            }
            self.orphans.try_reserve(1).map_err(|_| Error::NoMemory)?;
            self.orphans.insert(0, next);
            next = self.inode(next)?.dtime();
        }
        self.release_orphans()
    }

    fn release_orphans(&mut self) -> Result<()> {
        while let Some(&ino) = self.orphans.last() {
            let inode = self.inode(ino)?;
            if inode.links() == 0 {
                self.release(ino)?;
            } else {
                self.truncate(ino, inode.size())?;
                // In the list without blocks to be freed: `truncate` had nothing to do.
                self.run(|volume| {
                    let mut inode = volume.inode(ino)?;
                    volume.remove_orphan(&mut inode)?;
                    volume.put_inode(&mut inode)
                })?;
            }
        }
        Ok(())
    }
}

fn read_geometry(device: &dyn Device) -> Result<Geometry> {
    let mut block = crate::cache::new_block()?;
    device.read(0, &mut block)?;
    disk::superblock(block.get(sb::LEN..2 * sb::LEN).unwrap_or(&[]), device.blocks())
}

/// Counts a subdirectory that came or went.
fn count_subdir(dir: &mut Inode, change: i32) -> Result<()> {
    let links = dir.links();
    if links == 1 {
        return Ok(());
    }
    let links = links.checked_add_signed(change).ok_or(Error::Corrupt("a directory's links"))?;
    if links < 2 {
        return Err(Error::Corrupt("a directory's links"));
    }
    // More than fit: not counted any more.
    dir.set_links(if links >= LINKS_MAX { 1 } else { links });
    Ok(())
}
