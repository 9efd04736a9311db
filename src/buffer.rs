//! Large buffers in memory of their own, where the system has it in huge pages: a fault for each two
//! MiB instead of each 4 KiB, which cost more than what comes into the pages.

use std::io;
use std::ops::Deref;

use memmap2::{Advice, MmapMut};

/// What a buffer holds, in bytes: a huge page.
pub(crate) const CAPACITY: usize = 2 << 20;

/// Bytes up to [`CAPACITY`]. They begin where a page does.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: MmapMut,
    len: usize,
}

impl Buffer {
    /// An empty buffer. Memory is taken when it is filled.
    ///
    /// # Errors
    /// If there is no more memory to be had.
    pub fn new() -> io::Result<Buffer> {
        let memory = MmapMut::map_anon(CAPACITY)?;
        // Without huge pages it is as good, if slower.
        let _ = memory.advise(Advice::HugePage);
        Ok(Buffer { memory, len: 0 })
    }

    /// What is not filled yet.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.len..]
    }

    /// So many bytes of the room are filled now.
    pub fn fill(&mut self, len: usize) {
        self.len = (self.len + len).min(CAPACITY);
    }

    /// Takes bytes at the end, as far as there is room, and returns how many.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.fill(len);
        len
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_holds_what_it_took() {
        let mut buffer = Buffer::new().unwrap();
        assert!(buffer.is_empty());
        assert_eq!(buffer.take(b"abc"), 3);
        buffer.room()[0] = b'd';
        buffer.fill(1);
        assert_eq!(&buffer[..], b"abcd");
        assert_eq!(buffer.take(&vec![1; CAPACITY]), CAPACITY - 4);
        assert_eq!((buffer.len(), buffer.room().len()), (CAPACITY, 0));
        buffer.clear();
        assert!(buffer.is_empty());
    }
}
