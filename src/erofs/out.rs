//! Buffered output to a region of a file, strictly forward.

use std::fs::File;
use std::io;
use std::marker::PhantomData;

use dock2uni_format::erofs::BLOCK;

use super::{behind::Behind, verity::Leaves};
use crate::buffer::{Buffer, CAPACITY};

/// Zeros from this length on are left as a hole of the output file, which reads as zeros.
const HOLE: u64 = 64 << 10;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

pub(crate) struct Out<'f> {
    /// Position in the image of the buffer's first byte.
    flushed: u64,
    buffer: Buffer,
    /// Somebody is about to read what comes from here on.
    soon: bool,
    behind: Behind,
    /// The file is the caller's again when this is gone.
    file: PhantomData<&'f File>,
}

impl<'f> Out<'f> {
    /// Output to `file` from byte `start` on, where the file ends or holds zeros; past the page cache
    /// if it is `direct`.
    pub fn new(file: &'f File, start: u64, direct: bool) -> io::Result<Out<'f>> {
        let behind = Behind::new(file, start, direct)?;
        Ok(Out { flushed: 0, buffer: Buffer::new()?, soon: false, behind, file: PhantomData })
    }

    /// What comes from here on stays in the page cache.
    pub fn read_soon(&mut self) {
        self.soon = true;
    }

    /// Position in the image in bytes.
    pub fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // A buffer ends where a block does, wherever it begins.
            let full = CAPACITY - (self.flushed % BLOCK as u64) as usize;
            let take = bytes.len().min(full - self.buffer.len());
            self.buffer.take(&bytes[..take]);
            bytes = &bytes[take..];
            if self.buffer.len() == full {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub fn zeros(&mut self, mut len: u64) -> io::Result<()> {
        if len >= HOLE {
            return self.skip(len);
        }
        while len > 0 {
            let take = len.min(BLOCK as u64);
            // At most a block.
            self.write(&ZEROS[..take as usize])?;
            len -= take;
        }
        Ok(())
    }

    /// Leaves a hole.
    pub fn skip(&mut self, len: u64) -> io::Result<()> {
        self.flush()?;
        self.flushed += len;
        Ok(())
    }

    /// Fills up to the next multiple of the block size.
    pub fn align(&mut self) -> io::Result<()> {
        let position = self.position();
        self.zeros(position.next_multiple_of(BLOCK as u64) - position)
    }

    /// Sends off what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let len = self.buffer.len() as u64;
        let full = std::mem::replace(&mut self.buffer, self.behind.spent()?);
        self.behind.write(self.flushed, full, self.soon)?;
        self.flushed += len;
        Ok(())
    }

    /// Overwrites bytes that have been flushed, or were left out.
    pub fn patch(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.behind.patch(position, bytes)
    }

    /// Brings everything to the file and gives it its final length, for the case that it ends in a
    /// hole. Returns the image's length, and the hashes of its blocks as far as they are known.
    pub fn finish(mut self) -> io::Result<(u64, Leaves)> {
        self.flush()?;
        let leaves = self.behind.finish(self.flushed)?;
        Ok((self.flushed, leaves))
    }
}
