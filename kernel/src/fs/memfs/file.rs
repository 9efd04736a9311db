//! Regular files, and what open files and directories do.

use super::inode::{Body, MemInode};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::erofs::FilePager;
use crate::fs::{File, FileOps, Inode};
use crate::io::{IoDst, IoSrc, put_user};
use crate::mm::{PageCache, Seals};
use crate::sync::{Mutex, Once};
use alloc::sync::Arc;
use linux_raw_sys::general::{
    F_ADD_SEALS, F_GET_SEALS, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE,
    O_APPEND,
};

/// Largest file in bytes.
const SIZE_MAX: u64 = i64::MAX as u64 & !(PAGE_SIZE as u64 - 1);

/// Contents of a regular file.
pub(super) struct Data {
    /// Made when it is first needed.
    cache: Once<Arc<PageCache>>,
    /// Length in the image.
    lower_len: u64,
    /// Writers exclude each other: appends go to the end whoever makes them.
    writing: Mutex<()>,
}

impl Data {
    pub fn empty() -> Data {
        Data::of_image(0)
    }

    pub fn of_image(len: u64) -> Data {
        Data { cache: Once::new(), lower_len: len, writing: Mutex::new(()) }
    }

    pub fn len(&self) -> u64 {
        self.cache.get().map_or(self.lower_len, |cache| cache.len())
    }

    /// Space taken, in units of 512 bytes.
    pub fn blocks(&self) -> u64 {
        let pages = match self.cache.get() {
            Some(cache) if !cache.is_backed() => cache.own_pages() as u64,
            _ => self.len().div_ceil(PAGE_SIZE as u64),
        };
        pages * (PAGE_SIZE as u64 / 512)
    }
}

impl MemInode {
    fn data(&self) -> Result<&Data> {
        match &self.body {
            Body::File(data) => Ok(data),
            Body::Dir(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The page cache of a regular file.
    pub fn cache(&self) -> Result<&Arc<PageCache>> {
        let data = self.data()?;
        Ok(data.cache.get_or_init(|| match self.below() {
            Some((image, node)) if data.lower_len > 0 => {
                let pager = Arc::new(FilePager::new(image.clone(), node.clone()));
                self.fs.new_cache(data.lower_len, Some(pager))
            }
            _ => self.fs.new_cache(0, None),
        }))
    }

    /// Sets the length.
    pub(super) fn resize(&self, len: u64) -> Result<()> {
        if len > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        self.pin();
        let _guard = self.data()?.writing.lock();
        let cache = self.cache()?;
        if cache.len() != len {
            cache.truncate(len)?;
        }
        self.drop_privilege();
        self.touch(true);
        Ok(())
    }
}

impl FileOps for MemInode {
    fn seekable(&self) -> bool {
        true
    }

    fn end(&self, _file: &File) -> Result<u64> {
        if self.is_dir() { Err(Errno::EINVAL) } else { Ok(self.metadata().size) }
    }

    fn read_at(&self, file: &File, offset: u64, dst: &mut IoDst<'_>) -> Result<usize> {
        let n = self.cache()?.read_at(offset, dst)?;
        if let Some(always) = file.access_times() {
            self.accessed(always);
        }
        Ok(n)
    }

    fn write_at(&self, file: &File, offset: u64, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        let data = self.data()?;
        let cache = self.cache()?;
        let _guard = data.writing.lock();
        let offset = if file.flags() & O_APPEND != 0 { cache.len() } else { offset };
        if src.remaining() == 0 {
            return Ok((0, offset));
        }
        if offset >= SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        src.limit((SIZE_MAX - offset) as usize);
        let n = cache.write_at(offset, src)?;
        self.drop_privilege();
        self.touch(true);
        Ok((n, offset + n as u64))
    }

    fn seek_data(&self, _file: &File, offset: u64, hole: bool) -> Result<u64> {
        let cache = self.cache().map_err(|_| Errno::EINVAL)?;
        if offset >= cache.len() {
            return Err(Errno::ENXIO);
        }
        let found = if hole { cache.seek_hole(offset) } else { cache.seek_data(offset) };
        found.ok_or(Errno::ENXIO)
    }

    fn allocate(&self, _file: &File, mode: u32, offset: u64, len: u64) -> Result<()> {
        let data = self.data()?;
        let cache = self.cache()?;
        let end = offset.checked_add(len).filter(|&end| end <= SIZE_MAX).ok_or(Errno::EFBIG)?;
        let _guard = data.writing.lock();
        let keep = mode & FALLOC_FL_KEEP_SIZE != 0;
        match mode & !FALLOC_FL_KEEP_SIZE {
            0 => cache.allocate(offset, end)?,
            FALLOC_FL_PUNCH_HOLE if keep => cache.punch_hole(offset, end)?,
            FALLOC_FL_ZERO_RANGE => {
                cache.punch_hole(offset, end)?;
                cache.allocate(offset, end)?;
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if !keep && end > cache.len() {
            cache.truncate(end)?;
        }
        self.drop_privilege();
        self.touch(true);
        Ok(())
    }

    fn poll(&self, _file: &File, _table: &mut PollTable<'_>) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }

    fn pollable(&self) -> bool {
        false
    }

    fn ioctl(&self, file: &File, request: u32, arg: usize) -> Result<usize> {
        match request {
            linux_raw_sys::ioctl::FIONREAD if !self.is_dir() => {
                let left = self.data()?.len().saturating_sub(*file.pos.lock());
                put_user(arg, &(left.min(i32::MAX as u64) as i32))?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn fcntl(&self, file: &File, command: u32, arg: usize) -> Result<usize> {
        match command {
            F_GET_SEALS => Ok(self.cache().map_err(|_| Errno::EINVAL)?.seals().bits() as usize),
            F_ADD_SEALS => {
                let seals = Seals::from_bits(arg as u32).ok_or(Errno::EINVAL)?;
                let cache = self.cache().map_err(|_| Errno::EINVAL)?;
                if !file.writable() {
                    return Err(Errno::EPERM);
                }
                cache.add_seals(seals)?;
                Ok(0)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn mapping(&self, _file: &File) -> Result<Arc<PageCache>> {
        self.cache().cloned().map_err(|_| Errno::ENODEV)
    }

    fn inode(&self) -> Arc<dyn Inode> {
        self.arc()
    }

    fn read_dir(
        &self,
        file: &File,
        offset: u64,
        emit: &mut dyn FnMut(u64, u64, u8, &[u8]) -> bool,
    ) -> Result<()> {
        let parent = file.path.as_ref().map_or(self.ino(), |path| path.parent_ino());
        self.list(offset, parent, emit)?;
        if let Some(always) = file.access_times() {
            self.accessed(always);
        }
        Ok(())
    }

    fn sync(&self, _file: &File, _data_only: bool) -> Result<()> {
        Ok(())
    }
}
