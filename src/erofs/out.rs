//! Buffered output to a region of a file, strictly forward.

use std::{fs::File, io, os::unix::fs::FileExt};

use dock2uni_format::erofs::BLOCK;
use rustix::fs::Advice;

const BUFFER: usize = 1 << 20;
/// So much is written before the system is asked to bring it to the disk.
const AHEAD: u64 = 16 << 20;
/// Zeros from this length on are left as a hole of the output file, which reads as zeros.
const HOLE: u64 = 64 << 10;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

pub(crate) struct Out<'f> {
    file: &'f File,
    start: u64,
    /// Position in the image of the buffer's first byte.
    flushed: u64,
    /// Up to here the system has been asked to bring it to the disk.
    pushed: u64,
    buffer: Vec<u8>,
}

impl<'f> Out<'f> {
    /// Output to `file` from byte `start` on, where the file ends or holds zeros.
    pub fn new(file: &'f File, start: u64) -> Out<'f> {
        Out { file, start, flushed: 0, pushed: 0, buffer: Vec::with_capacity(BUFFER) }
    }

    /// Position in the image in bytes.
    pub fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let take = bytes.len().min(BUFFER - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub fn zeros(&mut self, mut len: u64) -> io::Result<()> {
        if len >= HOLE {
            self.flush()?;
            self.flushed += len;
            return Ok(());
        }
        while len > 0 {
            let take = len.min(BLOCK as u64);
            // At most a block.
            self.write(&ZEROS[..take as usize])?;
            len -= take;
        }
        Ok(())
    }

    /// Fills up to the next multiple of the block size.
    pub fn align(&mut self) -> io::Result<()> {
        let position = self.position();
        self.zeros(position.next_multiple_of(BLOCK as u64) - position)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.start + self.flushed)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        if self.flushed - self.pushed >= AHEAD {
            self.push();
        }
        Ok(())
    }

    /// Lets the disk begin, so that the end of the image is not all that the final sync waits for.
    fn push(&mut self) {
        let (from, len) = (self.start + self.pushed, self.flushed - self.pushed);
        self.pushed = self.flushed;
        // Linux starts to write what it would have to drop (posix_fadvise(2)); it is only advice, so
        // nothing is wrong if it isn't taken.
        if let Some(len) = std::num::NonZeroU64::new(len) {
            let _ = rustix::fs::fadvise(self.file, from, Some(len), Advice::DontNeed);
        }
    }

    /// Overwrites bytes that have been flushed, or were left out.
    pub fn patch(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.start + position)
    }

    /// Gives the file its final length, for the case that it ends in a hole.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        let end = self.start + self.flushed;
        if self.file.metadata()?.len() < end {
            self.file.set_len(end)?;
        }
        Ok(self.flushed)
    }
}
