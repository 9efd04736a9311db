//! A sort that takes little code.
//!
//! The standard library's sorts are the fastest there are and take 3 to 6 KiB for each type they are
//! used with. The kernel sorts short lists, rarely.

/// Sorts `items` in place, by whether one comes before another; equal ones end in any order.
///
/// A heap sort: as many comparisons as `n log n` at worst, no memory.
pub fn by<T>(items: &mut [T], before: impl Fn(&T, &T) -> bool) {
    let len = items.len();
    // First the upper half finds its places in the heap, then one largest after the other goes last.
    for step in (0..len + len / 2).rev() {
        let (mut at, end) = match step.checked_sub(len) {
            Some(at) => (at, len),
            None => {
                items.swap(0, step);
                (0, step)
            }
        };
        loop {
            let mut child = 2 * at + 1;
            if child >= end {
                break;
            }
            if child + 1 < end && before(&items[child], &items[child + 1]) {
                child += 1;
            }
            if !before(&items[at], &items[child]) {
                break;
            }
            items.swap(at, child);
            at = child;
        }
    }
}

/// Sorts plain values.
pub fn plain<T: Ord>(items: &mut [T]) {
    by(items, T::lt);
}

#[cfg(test)]
mod tests {
    use super::plain;
    use std_alloc::vec::Vec;

    #[test]
    fn sorts_as_the_standard_library_does() {
        let mut state = 1u32;
        for len in 0..200 {
            let mut items: Vec<u32> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state >> 25
                })
                .collect();
            let mut expected = items.clone();
            expected.sort_unstable();
            plain(&mut items);
            assert_eq!(items, expected);
        }
    }
}
