//! Size classes of the kernel heap.

use core::alloc::Layout;

/// Object sizes: multiples of 16, chosen so that little of a page is lost.
pub const SIZES: [u16; 18] =
    [16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 672, 816, 1024, 1360, 2048];
/// Number of classes.
pub const COUNT: usize = SIZES.len();
/// Largest size served by a class; larger requests get whole pages.
pub const LARGEST: usize = SIZES[COUNT - 1] as usize;

/// Class of each size in units of 16 bytes, rounded up.
static BY_UNITS: [u8; LARGEST / 16 + 1] = {
    let mut table = [0u8; LARGEST / 16 + 1];
    let (mut units, mut class) = (0, 0);
    while units < table.len() {
        if units * 16 > SIZES[class] as usize {
            class += 1;
        }
        table[units] = class as u8;
        units += 1;
    }
    table
};

/// The class that serves a layout; `None` if it needs whole pages.
pub fn of(layout: Layout) -> Option<usize> {
    let (size, align) = (layout.size(), layout.align());
    // Objects start at multiples of their size from a page boundary: a power of two is aligned to
    // itself.
    let size = if align > 16 { size.max(align).next_power_of_two() } else { size };
    BY_UNITS.get(size.div_ceil(16)).map(|&class| class as usize)
}

/// The block order that serves a layout no class serves.
pub fn order(layout: Layout) -> usize {
    let pages = layout.size().max(layout.align()).div_ceil(crate::arch::PAGE_SIZE);
    pages.next_power_of_two().trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_fits_its_class() {
        for size in 1..=LARGEST {
            for align in [1, 16, 32, 64, 512, 2048] {
                let layout = Layout::from_size_align(size, align).unwrap();
                let object = SIZES[of(layout).unwrap()] as usize;
                assert!(object >= size && object.is_multiple_of(align.min(16)));
                assert!(align <= 16 || object.is_multiple_of(align), "{size} {align} {object}");
            }
        }
        assert_eq!(of(Layout::from_size_align(LARGEST + 1, 1).unwrap()), None);
        assert_eq!(of(Layout::from_size_align(8, 4096).unwrap()), None);
        assert_eq!(order(Layout::from_size_align(3 * 4096, 16).unwrap()), 2);
    }
}
