//! Where the kernel holds addresses of itself, so that it can move to where nobody expects it.
//!
//! The build collects them from the relocations that the linker keeps, and puts them behind the symbol
//! table. All integers are little-endian:
//!
//! ```text
//! 0   u32  places of 32 bits: sign-extended addresses in instructions
//! 4   u32  places of 64 bits
//! 8   LEB128 for each, those of 32 bits first: distance from the one before (the first of each kind:
//!     from the kernel's first byte)
//! ```

use crate::ksyms::{put_leb, take_leb};
use alloc::vec::Vec;

/// Writes a table. Both lists are sorted, and count from the kernel's first byte.
pub fn emit(words: &[u64], doubles: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(words.len() as u32).to_le_bytes());
    out.extend_from_slice(&(doubles.len() as u32).to_le_bytes());
    for places in [words, doubles] {
        let mut last = 0;
        for &place in places {
            put_leb(&mut out, place - last);
            last = place;
        }
    }
    out
}

/// Calls `mend` with every place of the table at the start of `table`, and whether it is 64 bits wide.
///
/// `None` if the table is cut off; what came before has been mended then.
pub fn each(mut table: &[u8], mut mend: impl FnMut(u64, bool)) -> Option<()> {
    let mut count = || {
        let (bytes, rest) = table.split_first_chunk()?;
        table = rest;
        Some(u32::from_le_bytes(*bytes))
    };
    let (words, doubles) = (count()?, count()?);
    for (count, wide) in [(words, false), (doubles, true)] {
        let mut place = 0u64;
        for _ in 0..count {
            place = place.wrapping_add(take_leb(&mut table)?);
            mend(place, wide);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (words, doubles) = ([3, 7, 300, 70_000], [0, 8, 16, 1 << 20]);
        let mut bytes = emit(&words, &doubles);
        let len = bytes.len();
        bytes.extend_from_slice(&[0xff; 9]);
        let mut found = (Vec::new(), Vec::new());
        let done = each(&bytes, |place, wide| match wide {
            false => found.0.push(place),
            true => found.1.push(place),
        });
        assert_eq!(done, Some(()));
        assert_eq!((found.0.as_slice(), found.1.as_slice()), (&words[..], &doubles[..]));
        assert_eq!(each(&bytes[..len - 1], |_, _| ()), None);
        assert_eq!(each(&[], |_, _| ()), None);
    }
}
