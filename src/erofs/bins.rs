//! Packing of metadata into blocks: best fit.

use dock2uni_format::erofs::{BLOCK, SLOT};

/// Slots of a block.
const SLOTS: usize = BLOCK / SLOT;
/// Free space below this is not worth keeping: no inode fits.
const LEAST: usize = 1;

/// Places units of metadata (an inode with what follows it) so that none that fits a block
/// crosses one.
#[derive(Debug)]
pub(crate) struct Bins {
    /// First byte after the blocks handed out so far.
    end: u64,
    /// Blocks with room, by free slots: positions of the free part. Of several the latest one is
    /// filled first, which keeps neighbours together.
    open: Vec<Vec<u64>>,
}

impl Bins {
    /// Blocks from `start` on, a multiple of the block size.
    pub fn new(start: u64) -> Bins {
        Bins { end: start, open: vec![Vec::new(); SLOTS] }
    }

    /// First byte after all blocks.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Position for a unit of `len` bytes, a multiple of the inode slot size.
    pub fn place(&mut self, len: usize) -> u64 {
        let slots = len.div_ceil(SLOT);
        let (position, free) = match (slots..SLOTS).find(|&free| !self.open[free].is_empty()) {
            Some(free) => (self.open[free].pop().unwrap_or(self.end), free),
            None => {
                let position = self.end;
                let blocks = slots.div_ceil(SLOTS);
                self.end += (blocks * BLOCK) as u64;
                (position, blocks * SLOTS)
            }
        };
        if free - slots >= LEAST {
            self.open[free - slots].push(position + (slots * SLOT) as u64);
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
