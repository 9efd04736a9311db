//! Where an image's bytes are.

use super::verity::Tree;
use crate::arch::PAGE_SIZE;
use crate::drivers::block::BlockDevice;
use crate::errno::{Errno, Result};
use crate::io::IoDst;
use crate::mm::{PageCache, PageRef, Pager};
use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_format::verity::Verity;

/// Where the bytes of a container are, unchecked.
#[derive(Clone)]
pub enum Raw {
    /// RAM that stays as it is for ever (the boot module).
    Memory(&'static [u8]),
    /// A range of a disk.
    Disk {
        /// The disk.
        device: Arc<dyn BlockDevice>,
        /// First byte.
        start: u64,
        /// Bytes.
        len: u64,
    },
}

/// The container of an image: what it gives has been checked against the hash tree, if the image
/// has one.
pub struct Source {
    raw: Raw,
    tree: Option<Arc<Tree>>,
    /// What is read in pieces from a disk: inodes, directories, file tails.
    cache: Option<Arc<PageCache>>,
}

/// Fills the cache of a [`Source`] on a disk.
struct DiskPager {
    raw: Raw,
    tree: Option<Arc<Tree>>,
}

impl Pager for DiskPager {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        let frame = self.raw.frame(index * PAGE_SIZE as u64)?;
        self.check(index, &frame)?;
        Ok(frame)
    }

    fn read_pages(
        &self,
        index: u64,
        count: usize,
        sink: &mut dyn FnMut(u64, PageRef),
    ) -> Result<()> {
        let fill = |frames: &[PageRef]| {
            self.raw.fill(index * PAGE_SIZE as u64, frames)?;
            self.check(index, &frames[0])
        };
        read_run(index, count, fill, sink)
    }

    fn checks(&self) -> bool {
        self.tree.is_some()
    }

    fn check(&self, index: u64, page: &PageRef) -> Result<()> {
        self.tree.as_ref().map_or(Ok(()), |tree| tree.check_frame(index, page))
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

impl Raw {
    /// Length of the container in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Raw::Memory(bytes) => bytes.len() as u64,
            Raw::Disk { len, .. } => *len,
        }
    }

    /// A whole block as a frame: in place if it is in RAM, else read into a new one. What lies past
    /// the end of a disk reads as zero.
    pub fn frame(&self, offset: u64) -> Result<PageRef> {
        match self {
            Raw::Memory(bytes) => {
                let block = slice(bytes, offset, PAGE_SIZE)?;
                if let Some(frame) = in_place(bytes, offset) {
                    return Ok(frame);
                }
                let frame = PageRef::alloc(false)?;
                frame.write(0, block);
                Ok(frame)
            }
            Raw::Disk { .. } => {
                let frame = PageRef::alloc(false)?;
                self.fill(offset, core::slice::from_ref(&frame))?;
                Ok(frame)
            }
        }
    }

    /// Fills frames from consecutive blocks, as few requests as can be. What lies past the end of a
    /// disk reads as zero.
    pub fn fill(&self, offset: u64, frames: &[PageRef]) -> Result<()> {
        match self {
            Raw::Memory(bytes) => {
                for (index, frame) in frames.iter().enumerate() {
                    let at = offset + (index * PAGE_SIZE) as u64;
                    frame.write(0, slice(bytes, at, PAGE_SIZE)?);
                }
                Ok(())
            }
            Raw::Disk { device, start, .. } => device.read_pages(start + offset, frames),
        }
    }
}

impl Source {
    /// `len` bytes of a disk from byte `start` on. EINVAL if the disk is shorter or `start` isn't a
    /// multiple of a sector; EIO if it ends before the hash tree.
    pub fn disk(
        device: Arc<dyn BlockDevice>,
        start: u64,
        len: u64,
        verity: Option<&Verity>,
    ) -> Result<Source> {
        let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
        if end > device.capacity() || !start.is_multiple_of(crate::drivers::block::SECTOR) {
            return Err(Errno::EINVAL);
        }
        let raw = Raw::Disk { device, start, len };
        let tree = tree(&raw, verity)?;
        let pager = Arc::new(DiskPager { raw: raw.clone(), tree: tree.clone() });
        Ok(Source { cache: Some(PageCache::backed(len, pager)), raw, tree })
    }

    /// Bytes in RAM. EIO if they end before the hash tree.
    pub fn memory(bytes: &'static [u8], verity: Option<&Verity>) -> Result<Source> {
        let raw = Raw::Memory(bytes);
        Ok(Source { tree: tree(&raw, verity)?, raw, cache: None })
    }

    /// Length of the container in bytes.
    pub fn len(&self) -> u64 {
        self.raw.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the bytes are in RAM anyway.
    pub fn in_place(&self) -> bool {
        matches!(self.raw, Raw::Memory(_))
    }

    /// Whether what it gives is checked.
    pub fn checks(&self) -> bool {
        self.tree.is_some()
    }

    /// Bytes at an offset: in place if they are in RAM. EIO if they lie past the end or are
    /// damaged.
    pub fn bytes(&self, offset: u64, len: usize) -> Result<Cow<'_, [u8]>> {
        match self.raw {
            Raw::Memory(bytes) => {
                let found = slice(bytes, offset, len)?;
                if let Some(tree) = &self.tree {
                    tree.check_memory(bytes, offset, len)?;
                }
                Ok(Cow::Borrowed(found))
            }
            Raw::Disk { .. } => {
                let mut out = Vec::new();
                out.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
                out.resize(len, 0);
                self.copy(offset, &mut out)?;
                Ok(Cow::Owned(out))
            }
        }
    }

    /// Copies bytes at an offset. EIO if they lie past the end or are damaged.
    pub fn copy(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let Some(cache) = &self.cache else {
            out.copy_from_slice(&self.bytes(offset, out.len())?);
            return Ok(());
        };
        let mut dst = IoDst::kernel(out);
        let mut at = offset;
        while dst.remaining() > 0 {
            match cache.read_at(at, &mut dst)? {
                0 => return Err(Errno::EIO),
                n => at += n as u64,
            }
        }
        Ok(())
    }

    /// A whole block as a frame: in place if it is in RAM, else read into a new one. EIO if it lies
    /// past the end or is damaged.
    pub fn frame(&self, offset: u64) -> Result<PageRef> {
        if offset.checked_add(PAGE_SIZE as u64).is_none_or(|end| end > self.len()) {
            return Err(Errno::EIO);
        }
        if let (Raw::Memory(bytes), Some(tree)) = (&self.raw, &self.tree) {
            tree.check_memory(bytes, offset, PAGE_SIZE)?;
            return self.raw.frame(offset);
        }
        let frame = self.raw.frame(offset)?;
        self.check(offset, &frame)?;
        Ok(frame)
    }

    /// Fills frames from consecutive blocks, as few requests as can be. For read-ahead: the first
    /// alone has been checked.
    pub fn fill(&self, offset: u64, frames: &[PageRef]) -> Result<()> {
        let len = (frames.len() * PAGE_SIZE) as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(Errno::EIO);
        }
        self.raw.fill(offset, frames)?;
        frames.first().map_or(Ok(()), |frame| self.check(offset, frame))
    }

    /// Checks a block that [`fill`](Source::fill) read. EIO if it is damaged.
    pub fn check(&self, offset: u64, frame: &PageRef) -> Result<()> {
        match &self.tree {
            Some(tree) => tree.check_frame(offset / PAGE_SIZE as u64, frame),
            None => Ok(()),
        }
    }
}

fn tree(raw: &Raw, verity: Option<&Verity>) -> Result<Option<Arc<Tree>>> {
    verity.map(|verity| Tree::new(raw, verity).map(Arc::new)).transpose()
}

/// Bytes of a container in RAM. EIO if they lie past the end.
fn slice(bytes: &'static [u8], offset: u64, len: usize) -> Result<&'static [u8]> {
    let start = usize::try_from(offset).map_err(|_| Errno::EIO)?;
    let end = start.checked_add(len).ok_or(Errno::EIO)?;
    bytes.get(start..end).ok_or(Errno::EIO)
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
