//! Where an image's bytes are.

use crate::arch::PAGE_SIZE;
use crate::drivers::block::BlockDevice;
use crate::errno::{Errno, Result};
use crate::io::IoDst;
use crate::mm::{PageCache, PageRef, Pager};
use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The container of an image.
pub enum Source {
    /// RAM that stays as it is for ever (the boot module).
    Memory(&'static [u8]),
    /// A range of a disk.
    Disk(Disk),
}

/// A range of a disk, with a cache for what is read in pieces: inodes, directories, file tails.
pub struct Disk {
    device: Arc<dyn BlockDevice>,
    start: u64,
    len: u64,
    cache: Arc<PageCache>,
}

/// Fills the cache of a [`Disk`].
struct DiskPager {
    device: Arc<dyn BlockDevice>,
    start: u64,
}

impl Pager for DiskPager {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        let frame = PageRef::alloc(false)?;
        self.device
            .read_pages(self.start + index * PAGE_SIZE as u64, core::slice::from_ref(&frame))?;
        Ok(frame)
    }

    fn read_pages(
        &self,
        index: u64,
        count: usize,
        sink: &mut dyn FnMut(u64, PageRef),
    ) -> Result<()> {
        // What lies past the end of the device reads as zero, so a run may reach over it.
        let start = self.start + index * PAGE_SIZE as u64;
        read_run(index, count, |frames| self.device.read_pages(start, frames), sink)
    }
}

/// Fills new frames with one request and gives them away as pages `index` and following. Fewer than
/// `count` if memory is short, but at least one.
pub fn read_run(
    index: u64,
    count: usize,
    fill: impl FnOnce(&[PageRef]) -> Result<()>,
    sink: &mut dyn FnMut(u64, PageRef),
) -> Result<()> {
    let mut frames = Vec::new();
    frames.try_reserve_exact(count.max(1)).map_err(|_| Errno::ENOMEM)?;
    frames.push(PageRef::alloc(false)?);
    while frames.len() < count {
        let Ok(frame) = PageRef::alloc(false) else { break };
        frames.push(frame);
    }
    fill(&frames)?;
    for (at, frame) in (index..).zip(frames) {
        sink(at, frame);
    }
    Ok(())
}

impl Source {
    /// `len` bytes of a disk from byte `start` on. EINVAL if the disk is shorter or `start` isn't a
    /// multiple of a sector.
    pub fn disk(device: Arc<dyn BlockDevice>, start: u64, len: u64) -> Result<Source> {
        let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
        if end > device.capacity() || start % crate::drivers::block::SECTOR != 0 {
            return Err(Errno::EINVAL);
        }
        let pager = Arc::new(DiskPager { device: device.clone(), start });
        Ok(Source::Disk(Disk { cache: PageCache::backed(len, pager), device, start, len }))
    }

    /// Length of the container in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::Disk(disk) => disk.len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes at an offset: in place if they are in RAM. EIO if they lie past the end.
    pub fn bytes(&self, offset: u64, len: usize) -> Result<Cow<'_, [u8]>> {
        match self {
            Source::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_| Errno::EIO)?;
                let end = start.checked_add(len).ok_or(Errno::EIO)?;
                Ok(Cow::Borrowed(bytes.get(start..end).ok_or(Errno::EIO)?))
            }
            Source::Disk(_) => {
                let mut out = Vec::new();
                out.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
                out.resize(len, 0);
                self.copy(offset, &mut out)?;
                Ok(Cow::Owned(out))
            }
        }
    }

    /// Copies bytes at an offset. EIO if they lie past the end.
    pub fn copy(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match self {
            Source::Memory(_) => out.copy_from_slice(&self.bytes(offset, out.len())?),
            Source::Disk(disk) => {
                let mut dst = IoDst::kernel(out);
                let mut at = offset;
                while dst.remaining() > 0 {
                    match disk.cache.read_at(at, &mut dst)? {
                        0 => return Err(Errno::EIO),
                        n => at += n as u64,
                    }
                }
            }
        }
        Ok(())
    }

    /// A whole block as a frame: in place if it is in RAM, else read into a new one.
    pub fn frame(&self, offset: u64) -> Result<PageRef> {
        match self {
            Source::Memory(bytes) => {
                let block = self.bytes(offset, PAGE_SIZE)?;
                if let Some(frame) = in_place(bytes, offset) {
                    return Ok(frame);
                }
                let frame = PageRef::alloc(false)?;
                frame.write(0, &block);
                Ok(frame)
            }
            Source::Disk(disk) => {
                if offset.checked_add(PAGE_SIZE as u64).is_none_or(|end| end > disk.len) {
                    return Err(Errno::EIO);
                }
                let frame = PageRef::alloc(false)?;
                disk.device.read_pages(disk.start + offset, core::slice::from_ref(&frame))?;
                Ok(frame)
            }
        }
    }

    /// Fills frames from consecutive blocks, as few requests as can be. For read-ahead.
    pub fn fill(&self, offset: u64, frames: &[PageRef]) -> Result<()> {
        let len = (frames.len() * PAGE_SIZE) as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(Errno::EIO);
        }
        match self {
            Source::Memory(_) => {
                for (index, frame) in frames.iter().enumerate() {
                    let at = offset + (index * PAGE_SIZE) as u64;
                    frame.write(0, &self.bytes(at, PAGE_SIZE)?);
                }
                Ok(())
            }
            Source::Disk(disk) => disk.device.read_pages(disk.start + offset, frames),
        }
    }
}

/// The frame that holds a block of the boot module. `None` if the module isn't page aligned.
#[cfg(guest)]
fn in_place(bytes: &'static [u8], offset: u64) -> Option<PageRef> {
    let address = bytes.as_ptr() as usize + offset as usize;
    if address % PAGE_SIZE != 0 {
        return None;
    }
    PageRef::pinned(crate::arch::virt_to_phys(address))
}

/// Images of tests lie outside of the simulated RAM.
#[cfg(not(guest))]
fn in_place(_bytes: &'static [u8], _offset: u64) -> Option<PageRef> {
    None
}
