//! Contents of files.

use super::packed::Packed;
use super::source::read_run;
use super::{Image, Node, damaged};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::mm::{PageRef, Pager};
use alloc::sync::Arc;
use dock2uni_format::erofs::{BLOCK, ChunkInfo, Layout};

/// Where one block of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere: zeros.
    Hole,
    /// At this byte of the image; only the file's own bytes of it count.
    At(u64),
    /// In a compressed extent.
    In(Packed),
}

impl Image {
    /// Where block `index` of a file starts.
    fn place(&self, node: &Node, index: u64) -> Result<Place> {
        let inode = &node.inode;
        let start = u64::from(inode.u) * BLOCK as u64;
        let meta = node.after + inode.xattr_len() as u64;
        match inode.layout {
            Layout::Plain => Ok(Place::At(start + index * BLOCK as u64)),
            Layout::Inline => {
                if index < inode.size / BLOCK as u64 {
                    return Ok(Place::At(start + index * BLOCK as u64));
                }
                // The tail never crosses a block.
                if meta % BLOCK as u64 + inode.tail_len() as u64 > BLOCK as u64 {
                    return Err(Errno::EUCLEAN);
                }
                Ok(Place::At(meta))
            }
            Layout::Chunk => {
                let info = ChunkInfo::parse(inode.u).map_err(damaged)?;
                let entry_len = info.entry_len() as u64;
                let position = index * BLOCK as u64;
                let at = meta.next_multiple_of(entry_len) + (position >> info.bits) * entry_len;
                let entry = self.bytes(at, entry_len as usize)?;
                let Some(block) = info.block(&entry).map_err(damaged)? else {
                    return Ok(Place::Hole);
                };
                let within = position & ((1 << info.bits) - 1);
                Ok(Place::At(u64::from(block) * BLOCK as u64 + within))
            }
            Layout::Compressed => Ok(self.extent(node, index)?.map_or_else(Place::In, Place::At)),
        }
    }

    /// Whether a block of a file is a hole.
    pub fn is_hole(&self, node: &Node, index: u64) -> Result<bool> {
        Ok(self.place(node, index)? == Place::Hole)
    }

    /// Reads bytes that lie within the file. EUCLEAN if the image doesn't have them.
    pub fn read_file(&self, node: &Node, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(out.len() as u64).ok_or(Errno::EINVAL)?;
        if end > node.inode.size {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = at % BLOCK as u64;
            let n = (BLOCK - within as usize).min(out.len() - done);
            let piece = &mut out[done..done + n];
            match self.place(node, at / BLOCK as u64)? {
                Place::Hole => piece.fill(0),
                Place::In(packed) => {
                    let copy = &mut |_, frame: PageRef| frame.read(within as usize, piece);
                    self.unpack(node, &packed, at / BLOCK as u64, false, copy)?;
                }
                Place::At(start) => {
                    let from = start + within;
                    if from + n as u64 > self.len() {
                        return Err(Errno::EUCLEAN);
                    }
                    self.source.copy(from, piece)?;
                }
            }
            done += n;
        }
        Ok(())
    }

    /// Page `index` of a file as a frame whose bytes past the end of the file are zero.
    pub fn read_page(&self, node: &Node, index: u64) -> Result<PageRef> {
        let offset = index.checked_mul(PAGE_SIZE as u64).ok_or(Errno::EINVAL)?;
        let len = node.inode.size.saturating_sub(offset).min(PAGE_SIZE as u64) as usize;
        if len == 0 {
            return PageRef::alloc(true);
        }
        let start = match self.place(node, index)? {
            Place::Hole => return PageRef::alloc(true),
            Place::At(start) => start,
            Place::In(packed) => {
                let mut page = Err(Errno::EIO);
                self.unpack(node, &packed, index, false, &mut |_, frame| page = Ok(frame))?;
                return page;
            }
        };
        let whole = start % BLOCK as u64 == 0 && start + BLOCK as u64 <= self.len();
        if whole && !self.source.in_place() {
            // A copy of our own: what lies behind the end of the file is wiped, whatever it is.
            let frame = self.source.frame(start)?;
            frame.zero(len, PAGE_SIZE - len);
            return Ok(frame);
        }
        if whole && (len == PAGE_SIZE || self.zero_after(start, len)?) {
            return self.source.frame(start);
        }
        if start + len as u64 > self.len() {
            return Err(Errno::EUCLEAN);
        }
        let frame = PageRef::alloc(true)?;
        frame.write(0, &self.bytes(start, len)?);
        Ok(frame)
    }

    /// Whether a block holds zeros behind its first `len` bytes, so that it can be used as it is.
    fn zero_after(&self, start: u64, len: usize) -> Result<bool> {
        Ok(self.bytes(start + len as u64, BLOCK - len)?.iter().all(|&byte| byte == 0))
    }

    /// How many whole blocks from `index` on, at most `max`, lie side by side, and where. `None`
    /// for a hole, a tail, or a damaged file: [`read_page`](Image::read_page) deals with these.
    fn run(&self, node: &Node, index: u64, max: u64) -> Option<(u64, u64)> {
        let whole = node.inode.size / BLOCK as u64;
        let Ok(Place::At(start)) = self.place(node, index) else { return None };
        let mut count = 0;
        while count < max && index + count < whole {
            let expected = Place::At(start + count * BLOCK as u64);
            if self.place(node, index + count) != Ok(expected) {
                break;
            }
            count += 1;
        }
        let fits = start % BLOCK as u64 == 0 && start + count * BLOCK as u64 <= self.len();
        (count > 0 && fits).then_some((start, count))
    }
}

/// Supplies the pages of one file.
pub struct FilePager {
    image: Arc<Image>,
    node: Node,
}

impl FilePager {
    /// The pager of a regular file.
    pub fn new(image: Arc<Image>, node: Node) -> FilePager {
        FilePager { image, node }
    }
}

impl Pager for FilePager {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        self.image.read_page(&self.node, index)
    }

    fn read_pages(
        &self,
        index: u64,
        count: usize,
        sink: &mut dyn FnMut(u64, PageRef),
    ) -> Result<()> {
        if self.node.inode.layout == Layout::Compressed
            && let Place::In(packed) = self.image.place(&self.node, index)?
        {
            return self.image.unpack(&self.node, &packed, index, true, sink);
        }
        let run = self.image.run(&self.node, index, count as u64);
        if self.in_place() {
            sink(index, self.read_page(index)?);
            let (_, count) = run.unwrap_or((0, 1));
            for index in index + 1..index + count {
                let Ok(page) = self.read_page(index) else { break };
                sink(index, page);
            }
            return Ok(());
        }
        let Some((start, count)) = run.filter(|&(_, count)| count > 1) else {
            sink(index, self.read_page(index)?);
            return Ok(());
        };
        let fill = |frames: &[PageRef]| self.image.source.fill(start, frames);
        read_run(index, count as usize, fill, sink)
    }

    fn checks(&self) -> bool {
        self.image.source.checks()
    }

    fn check(&self, index: u64, page: &PageRef) -> Result<()> {
        // Only whole blocks are read ahead.
        match self.image.place(&self.node, index)? {
            Place::At(start) => self.image.source.check(start, page),
            // An extent is checked before it is decoded.
            Place::Hole | Place::In(_) => Ok(()),
        }
    }

    fn in_place(&self) -> bool {
        self.node.inode.layout != Layout::Compressed && self.image.source.in_place()
    }
}
