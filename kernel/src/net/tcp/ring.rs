//! The bytes of one direction of a connection: a queue that takes memory for what it holds.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Smallest allocation, which even a lack of memory leaves to each ring.
pub const MIN: usize = 2048;
/// A ring that has run empty keeps this much for what comes next.
const KEEP: usize = 64 * 1024;

/// Bytes of all rings.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Whether the connections hold so much memory that windows must not grow and idle rings are freed.
pub fn pressed() -> bool {
    HELD.load(Ordering::Relaxed) > budget() / 4
}

/// What rings may hold together; beyond it each has the smallest allocation.
fn budget() -> usize {
    (crate::mm::frame::total_frames() * crate::arch::PAGE_SIZE / 4).max(if cfg!(guest) {
        16 << 20
    } else {
        1 << 30
    })
}

/// A byte queue in a power of two of memory. Bytes may be placed past its end and be added later.
pub struct Ring {
    buf: Vec<u8>,
    head: usize,
    len: usize,
}

impl Ring {
    /// Empty, without memory.
    pub const fn new() -> Ring {
        Ring { buf: Vec::new(), head: 0, len: 0 }
    }

    /// Bytes in the queue.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `total` bytes in all. `false`: there is no memory for them.
    pub fn reserve(&mut self, total: usize) -> bool {
        let old = self.buf.len();
        if total <= old {
            return true;
        }
        let new = total.next_power_of_two().max(MIN);
        if new > MIN && HELD.load(Ordering::Relaxed) + new > budget() {
            return false;
        }
        let mut buf = Vec::new();
        if buf.try_reserve_exact(new).is_err() {
            return false;
        }
        // In order again, with what was placed past the end.
        buf.extend_from_slice(&self.buf[self.head..]);
        buf.extend_from_slice(&self.buf[..self.head]);
        buf.resize(new, 0);
        self.buf = buf;
        self.head = 0;
        HELD.fetch_add(new - old, Ordering::Relaxed);
        true
    }

    fn split(&self, at: usize, len: usize) -> (usize, usize) {
        let start = (self.head + at) & self.buf.len().wrapping_sub(1);
        (start, len.min(self.buf.len() - start))
    }

    /// Places bytes `at` bytes from the front; there must be room for them.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        let (start, first) = self.split(at, bytes.len());
        self.buf[start..start + first].copy_from_slice(&bytes[..first]);
        self.buf[..bytes.len() - first].copy_from_slice(&bytes[first..]);
    }

    /// The queue is `n` bytes longer: what was placed there.
    pub fn extend(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.len <= self.buf.len());
    }

    /// Room after the last byte, in one piece and of at most `limit` bytes.
    pub fn room(&mut self, limit: usize) -> &mut [u8] {
        let free = self.buf.len() - self.len;
        let (start, first) = self.split(self.len, limit.min(free));
        &mut self.buf[start..start + first]
    }

    /// Up to `len` bytes from `at` bytes after the front on.
    pub fn slices(&self, at: usize, len: usize) -> (&[u8], &[u8]) {
        let len = len.min(self.len.saturating_sub(at));
        if len == 0 {
            return (&[], &[]);
        }
        let (start, first) = self.split(at, len);
        (&self.buf[start..start + first], &self.buf[..len - first])
    }

    /// Removes `n` bytes in front.
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.len);
        self.len -= n;
        self.head = (self.head + n) & self.buf.len().wrapping_sub(1);
    }

    /// Nothing is in it or placed in it: gives much memory back, and all of it where it is short.
    pub fn rest(&mut self) {
        if self.buf.len() > KEEP || pressed() {
            *self = Ring::new();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        HELD.fetch_sub(self.buf.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_wraps_and_grows() {
        let mut ring = Ring::new();
        let (mut next_in, mut next_out) = (0u32, 0u32);
        for step in 1..3000usize {
            let n = step * 37 % 1500;
            let bytes: Vec<u8> = (0..n).map(|at| (next_in + at as u32) as u8).collect();
            assert!(ring.reserve(ring.len() + n));
            // The second half first, as segments come.
            let half = n / 2;
            ring.put(ring.len() + half, &bytes[half..]);
            ring.put(ring.len(), &bytes[..half]);
            ring.extend(n);
            next_in += n as u32;
            let out = ring.len().min(step * 53 % 1600);
            let (a, b) = ring.slices(0, out);
            for byte in a.iter().chain(b) {
                assert_eq!(*byte, next_out as u8);
                next_out += 1;
            }
            ring.consume(out);
        }
        assert!(ring.buf.len().is_power_of_two());
    }

    #[test]
    fn what_was_placed_ahead_survives_growth() {
        let mut ring = Ring::new();
        assert!(ring.reserve(10));
        ring.put(0, &[1; 2000]);
        ring.extend(2000);
        ring.consume(1990);
        assert!(ring.reserve(2048));
        ring.put(1000, b"ahead");
        assert!(ring.reserve(9000));
        ring.put(10, &[2; 990]);
        ring.extend(995);
        let (a, b) = ring.slices(1000, 5);
        assert_eq!([a, b].concat(), b"ahead");
    }
}
