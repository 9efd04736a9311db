//! Disks as bytes, whatever holds them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use crate::erofs::ReadAt;

/// The bytes of a disk of known size.
pub trait Medium: ReadAt + Send + Sync {
    /// Size of the disk in bytes.
    fn size(&self) -> u64;
}

impl<M: Medium + ?Sized> Medium for &M {
    fn size(&self) -> u64 {
        (**self).size()
    }
}

impl<M: ReadAt + ?Sized> ReadAt for Arc<M> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }
}

impl<M: Medium + ?Sized> Medium for Arc<M> {
    fn size(&self) -> u64 {
        (**self).size()
    }
}

/// A part of a file that is a disk as it stands.
#[derive(Debug)]
pub struct Raw {
    file: File,
    start: u64,
    size: u64,
}

impl Raw {
    /// A whole file.
    ///
    /// # Errors
    /// If its length cannot be found out.
    pub fn new(file: File) -> io::Result<Raw> {
        let size = file.metadata()?.len();
        Ok(Raw { file, start: 0, size })
    }

    /// `size` bytes from `start` on. What lies beyond the file's end cannot be read.
    pub fn part(file: File, start: u64, size: u64) -> Raw {
        Raw { file, start, size }
    }
}

impl ReadAt for Raw {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        within(self.size, offset, buffer.len())?;
        let at = self.start.checked_add(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.file.read_exact_at(buffer, at)
    }
}

impl Medium for Raw {
    fn size(&self) -> u64 {
        self.size
    }
}

/// Refuses to read beyond the end.
pub(super) fn within(size: u64, offset: u64, len: usize) -> io::Result<()> {
    let end = offset.checked_add(len as u64);
    end.filter(|end| *end <= size).map(|_| ()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Reads from a medium of `size` bytes that consists of blocks of `block` bytes: calls `read` with the
/// number of each block that is touched, the place in it, and the part of the buffer to fill from
/// there.
pub(super) fn by_blocks(
    size: u64,
    block: u64,
    buffer: &mut [u8],
    offset: u64,
    mut read: impl FnMut(u64, u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    within(size, offset, buffer.len())?;
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let (index, inside) = (at / block, at % block);
        // At most the buffer's length.
        let len = (block - inside).min((buffer.len() - done) as u64) as usize;
        read(index, inside, &mut buffer[done..done + len])?;
        done += len;
    }
    Ok(())
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // Word by word; what does not fill one at either end is looked at by bytes.
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Reads a disk block by block. The last block may be short.
pub(super) fn for_each_block(
    medium: &dyn Medium,
    block: usize,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; block];
    for index in 0..medium.size().div_ceil(block as u64) {
        let at = index * block as u64;
        // At most a block.
        let len = (medium.size() - at).min(block as u64) as usize;
        medium.read_exact_at(&mut buffer[..len], at)?;
        each(index, &buffer[..len])?;
    }
    Ok(())
}

/// Which blocks hold something other than zeros.
pub(super) fn used_blocks(medium: &dyn Medium, block: usize) -> io::Result<Vec<bool>> {
    let mut used = Vec::new();
    for_each_block(medium, block, |_, bytes| {
        used.push(!is_zero(bytes));
        Ok(())
    })?;
    Ok(used)
}

/// A read-only view with a cursor.
pub struct Cursor<'m> {
    medium: &'m dyn Medium,
    position: u64,
}

impl<'m> Cursor<'m> {
    /// A cursor at the start.
    pub fn new(medium: &'m dyn Medium) -> Cursor<'m> {
        Cursor { medium, position: 0 }
    }
}

impl std::fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.medium.size().saturating_sub(self.position);
        // At most the buffer's length.
        let len = left.min(buffer.len() as u64) as usize;
        self.medium.read_exact_at(&mut buffer[..len], self.position)?;
        self.position += len as u64;
        Ok(len)
    }
}

/// The partition table's reader asks for it and does not use it.
impl Write for Cursor<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = seek(self.position, self.medium.size(), to)?;
        Ok(self.position)
    }
}

/// Where a cursor goes.
pub(super) fn seek(position: u64, len: u64, to: SeekFrom) -> io::Result<u64> {
    let (base, by) = match to {
        SeekFrom::Start(at) => (at, 0),
        SeekFrom::Current(by) => (position, by),
        SeekFrom::End(by) => (len, by),
    };
    base.checked_add_signed(by).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
