//! Packing of metadata into blocks: best fit among a few open blocks.

use dock2uni_format::erofs::{BLOCK, SLOT};

/// Blocks kept open. More of them pack a little tighter and scatter a directory's inodes.
const OPEN: usize = 32;

/// Places units of metadata (an inode with what follows it) so that none that fits a block
/// crosses one.
#[derive(Debug)]
pub(crate) struct Bins {
    /// First byte after the blocks handed out so far.
    end: u64,
    /// Open blocks: position of the free part and its length, oldest first.
    open: Vec<(u64, usize)>,
}

impl Bins {
    /// Blocks from `start` on, a multiple of the block size.
    pub fn new(start: u64) -> Bins {
        Bins { end: start, open: Vec::with_capacity(OPEN + 1) }
    }

    /// First byte after all blocks.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Position for a unit of `len` bytes, a multiple of the inode slot size.
    pub fn place(&mut self, len: usize) -> u64 {
        let len = len.next_multiple_of(SLOT);
        let best = (0..self.open.len())
            .filter(|&bin| self.open[bin].1 >= len)
            .min_by_key(|&bin| self.open[bin].1);
        if let Some(bin) = best {
            let (position, free) = self.open[bin];
            self.open[bin] = (position + len as u64, free - len);
            if free - len < 2 * SLOT {
                self.open.remove(bin);
            }
            return position;
        }
        let position = self.end;
        self.end += len.next_multiple_of(BLOCK) as u64;
        let free = (self.end - position) as usize - len;
        if free >= 2 * SLOT {
            self.open.push((position + len as u64, free));
        }
        if self.open.len() > OPEN {
            // The fullest one is the least useful.
            let fullest = (0..self.open.len()).min_by_key(|&bin| self.open[bin].1);
            self.open.remove(fullest.unwrap_or(0));
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_share_blocks_but_do_not_cross_them() {
        let mut bins = Bins::new(8192);
        let mut last = Vec::new();
        for len in [64, 4000, 64, 2048, 100, 2000, 4096, 9000, 96] {
            let at = bins.place(len);
            assert_eq!(at % SLOT as u64, 0);
            if len <= BLOCK {
                assert_eq!(at / BLOCK as u64, (at + len as u64 - 1) / BLOCK as u64);
            } else {
                assert_eq!(at % BLOCK as u64, 0);
            }
            for &(other, other_len) in &last {
                assert!(at >= other + other_len || at + len as u64 <= other);
            }
            last.push((at, len as u64));
        }
        assert_eq!(bins.end(), 8192 + 4096 * 7);
    }
}
