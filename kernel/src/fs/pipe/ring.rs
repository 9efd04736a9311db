//! What a pipe holds.

use super::PIPE_BUF;
use crate::errno::{Errno, Result};
use crate::io::IoSrc;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Storage that starts small and grows to the capacity as it is needed.
#[derive(Default)]
pub(super) struct Ring {
    buffer: Vec<u8>,
    head: usize,
    /// Bytes in it.
    pub len: usize,
    /// How the contents were written, if packets (`O_DIRECT`) are or were among them: lengths, and
    /// whether each is one packet. Empty while no packet is in the pipe.
    pieces: VecDeque<(usize, bool)>,
}

impl Ring {
    /// Makes room for `len` bytes in all.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        if len <= self.buffer.len() {
            return Ok(());
        }
        let size = len.next_power_of_two().max(PIPE_BUF);
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
        let (one, two) = self.filled();
        buffer.extend_from_slice(one);
        buffer.extend_from_slice(two);
        buffer.resize(size, 0);
        self.buffer = buffer;
        self.head = 0;
        Ok(())
    }

    /// The contents, in two parts where they wrap.
    pub fn filled(&self) -> (&[u8], &[u8]) {
        let end = self.head + self.len;
        if end <= self.buffer.len() {
            return (&self.buffer[self.head..end], &[]);
        }
        (&self.buffer[self.head..], &self.buffer[..end - self.buffer.len()])
    }

    /// Notes that `len` bytes were written.
    pub fn note(&mut self, len: usize, packet: bool) {
        if packet && self.pieces.is_empty() && self.len > len {
            self.pieces.push_back((self.len - len, false));
        }
        if len > 0 && (packet || !self.pieces.is_empty()) {
            self.pieces.push_back((len, packet));
        }
    }

    /// How much one read may take at most.
    pub fn readable(&self) -> usize {
        self.pieces.front().map_or(self.len, |&(len, _)| len)
    }

    /// After a read of `count` bytes: removes them, and what a packet has beyond them.
    pub fn taken(&mut self, count: usize) {
        match self.pieces.front_mut() {
            None => self.consume(count),
            Some((len, packet)) => {
                let gone = if *packet { *len } else { count };
                *len -= gone;
                if *len == 0 {
                    self.pieces.pop_front();
                }
                self.consume(gone);
            }
        }
        if !self.pieces.iter().any(|&(_, packet)| packet) {
            self.pieces.clear();
        }
    }

    /// Removes bytes at the front.
    pub fn consume(&mut self, count: usize) {
        self.len -= count;
        self.head = if self.len == 0 { 0 } else { (self.head + count) % self.buffer.len() };
    }

    /// Puts bytes in front of the others.
    pub fn unread(&mut self, bytes: &[u8]) -> Result<()> {
        let len = self.len + bytes.len();
        self.reserve(len)?;
        let size = self.buffer.len();
        self.head = (self.head + size - bytes.len()) % size;
        let (head, first) = (self.head, bytes.len().min(size - self.head));
        self.buffer[head..head + first].copy_from_slice(&bytes[..first]);
        self.buffer[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        self.len = len;
        if !self.pieces.is_empty() {
            self.pieces.push_front((bytes.len(), false));
        }
        Ok(())
    }

    /// Appends up to `limit` bytes of `src`; there is room for them.
    pub fn fill(&mut self, src: &mut IoSrc<'_>, limit: usize) -> Result<usize> {
        let mut moved = 0;
        while moved < limit {
            let tail = (self.head + self.len) % self.buffer.len();
            let end = (tail + (limit - moved)).min(self.buffer.len());
            let n = match src.read(&mut self.buffer[tail..end]) {
                Ok(n) => n,
                Err(_) if moved > 0 => 0,
                Err(error) => return Err(error),
            };
            if n == 0 {
                break;
            }
            self.len += n;
            moved += n;
        }
        Ok(moved)
    }
}
