//! Directories.

use super::{Image, Node, damaged};
use crate::errno::{Errno, Result};
use crate::fs::inode::FileType;
use alloc::borrow::Cow;
use dock2uni_format::erofs::{self as format, BLOCK, DirBlock, Layout};

/// A name and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position of the inode.
    pub nid: u64,
    /// Type that the directory claims.
    pub file_type: FileType,
}

fn entry(dirent: &format::Dirent<'_>) -> Result<Entry> {
    let file_type = match dirent.file_type {
        format::FileType::Regular => FileType::Regular,
        format::FileType::Directory => FileType::Directory,
        format::FileType::CharDevice => FileType::CharDevice,
        format::FileType::BlockDevice => FileType::BlockDevice,
        format::FileType::Fifo => FileType::Fifo,
        format::FileType::Socket => FileType::Socket,
        format::FileType::Symlink => FileType::Symlink,
        format::FileType::Unknown => return Err(Errno::EUCLEAN),
    };
    Ok(Entry { nid: dirent.nid, file_type })
}

impl Image {
    /// Number of blocks of a directory. EUCLEAN if it claims more than the image holds.
    pub fn dir_blocks(&self, dir: &Node) -> Result<u64> {
        if dir.inode.mode & 0o170_000 != 0o040_000 || dir.inode.size > self.len() {
            return Err(Errno::EUCLEAN);
        }
        Ok(dir.inode.size.div_ceil(BLOCK as u64))
    }

    fn dir_block(&self, dir: &Node, index: u64) -> Result<Cow<'_, [u8]>> {
        let offset = index * BLOCK as u64;
        let len = (dir.inode.size - offset).min(BLOCK as u64) as usize;
        // In place where the block is in one piece: directories of ours always are.
        if matches!(dir.inode.layout, Layout::Plain | Layout::Inline)
            && let Some(start) = self.dir_start(dir, index)
        {
            return self.bytes(start, len);
        }
        let mut out = alloc::vec![0; len];
        self.read_file(dir, offset, &mut out)?;
        Ok(Cow::Owned(out))
    }

    fn dir_start(&self, dir: &Node, index: u64) -> Option<u64> {
        let inode = &dir.inode;
        let tail = inode.layout == Layout::Inline && index >= inode.size / BLOCK as u64;
        if tail {
            return Some(dir.after + inode.xattr_len() as u64);
        }
        (u64::from(inode.u) + index).checked_mul(BLOCK as u64)
    }

    /// Finds a name.
    pub fn dir_find(&self, dir: &Node, name: &[u8]) -> Result<Option<Entry>> {
        // The last block whose first name isn't above the one looked for: blocks before `low` begin
        // at or below it.
        let blocks = self.dir_blocks(dir)?;
        let (mut low, mut high) = (blocks.min(1), blocks);
        while low < high {
            let middle = low.midpoint(high);
            let bytes = self.dir_block(dir, middle)?;
            let first = DirBlock::parse(&bytes).and_then(|block| block.get(0)).map_err(damaged)?;
            if first.name <= name {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == 0 {
            return Ok(None);
        }
        let bytes = self.dir_block(dir, low - 1)?;
        let block = DirBlock::parse(&bytes).map_err(damaged)?;
        let found = block.find(name).map_err(damaged)?;
        found.as_ref().map(entry).transpose()
    }

    /// Calls `emit(name, entry, position of the next entry)` for the entries from `position` on,
    /// `.` and `..` left out, until it returns false. Positions are 0 for the first and below
    /// [`dir_end`](Image::dir_end).
    pub fn dir_list(
        &self,
        dir: &Node,
        position: u64,
        emit: &mut dyn FnMut(&[u8], Entry, u64) -> bool,
    ) -> Result<()> {
        let mut index = position / SLOTS;
        let mut skip = (position % SLOTS) as usize;
        while index < self.dir_blocks(dir)? {
            let bytes = self.dir_block(dir, index)?;
            let block = DirBlock::parse(&bytes).map_err(damaged)?;
            for at in skip..block.len() {
                let dirent = block.get(at).map_err(damaged)?;
                if matches!(dirent.name, b"." | b"..") {
                    continue;
                }
                if dirent.name.contains(&b'/') {
                    return Err(Errno::EUCLEAN);
                }
                if !emit(dirent.name, entry(&dirent)?, index * SLOTS + at as u64 + 1) {
                    return Ok(());
                }
            }
            index += 1;
            skip = 0;
        }
        Ok(())
    }

    /// A position past every entry.
    pub fn dir_end(&self, dir: &Node) -> Result<u64> {
        Ok(self.dir_blocks(dir)? * SLOTS)
    }
}

/// Positions set aside for each block: more than the entries it can hold.
const SLOTS: u64 = (BLOCK / format::DIRENT_LEN + 1) as u64;
