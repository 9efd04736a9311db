//! Maps of sparse files.

use super::{BLOCK, Fault, header, pax};

/// A part of a sparse file that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub len: u64,
}

/// Reads a table of old GNU sparse entries: offset and length, 12 bytes each; an empty entry
/// ends it.
pub(super) fn table(bytes: &[u8], out: &mut Vec<Segment>) -> Result<(), Fault> {
    for entry in bytes.chunks_exact(24) {
        if entry[0] == 0 || entry[12] == 0 {
            break;
        }
        let number = |field| header::number(field).and_then(|n| u64::try_from(n).ok());
        let offset = number(&entry[..12]).ok_or(Fault::Sparse)?;
        let len = number(&entry[12..]).ok_or(Fault::Sparse)?;
        out.push(Segment { offset, len });
    }
    Ok(())
}

/// Reads an extension block of an old GNU sparse file; true if another follows.
pub(super) fn extension_block(block: &[u8; BLOCK], out: &mut Vec<Segment>) -> Result<bool, Fault> {
    table(&block[..504], out)?;
    Ok(block[504] != 0)
}

/// Checks that segments ascend without overlap inside the file and add up to the data stored.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), Fault> {
    let (mut end, mut total) = (0, 0u64);
    for segment in segments {
        if segment.offset < end {
            return Err(Fault::Sparse);
        }
        end = segment.offset.checked_add(segment.len).ok_or(Fault::Sparse)?;
        // No overflow: the segments are apart, so their sum is at most `end`.
        total += segment.len;
    }
    if end <= size && total == stored { Ok(()) } else { Err(Fault::Sparse) }
}

/// Parser of the 1.0 map: a count, then that many offsets and lengths, one number a line.
pub(super) struct Lines {
    line: Vec<u8>,
    numbers: Vec<u64>,
    want: Option<usize>,
    max_segments: usize,
}

impl Lines {
    pub fn new(max_segments: usize) -> Lines {
        Lines { line: Vec::new(), numbers: Vec::new(), want: None, max_segments }
    }

    /// Takes one block; the segments once the map is complete.
    pub fn feed(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<Segment>>, Fault> {
        for &byte in block {
            if byte != b'\n' {
                self.line.push(byte);
                // A 64-bit number has at most 20 digits.
                if self.line.len() > 20 {
                    return Err(Fault::Sparse);
                }
                continue;
            }
            let number: u64 = pax::decimal(&self.line).ok_or(Fault::Sparse)?;
            self.line.clear();
            match self.want {
                None if number > self.max_segments as u64 => {
                    return Err(Fault::SparseLimit(self.max_segments));
                }
                None => self.want = Some(number as usize * 2),
                Some(_) => self.numbers.push(number),
            }
            if self.want == Some(self.numbers.len()) {
                let pairs = self.numbers.chunks_exact(2);
                let segment = |pair: &[u64]| Segment { offset: pair[0], len: pair[1] };
                return Ok(Some(pairs.map(segment).collect()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_may_cross_blocks() {
        let mut text = b"40\n".to_vec();
        for i in 0..40u64 {
            text.extend_from_slice(format!("{}\n{}\n", i * 1_000_000, 4096).as_bytes());
        }
        text.resize(text.len().next_multiple_of(BLOCK), 0);
        let mut lines = Lines::new(100);
        let mut result = None;
        for block in text.chunks_exact(BLOCK) {
            assert!(result.is_none());
            result = lines.feed(block.try_into().unwrap()).unwrap();
        }
        let segments = result.unwrap();
        assert_eq!(segments.len(), 40);
        assert_eq!(segments[39], Segment { offset: 39_000_000, len: 4096 });
        check(&segments, 40_000_000, 40 * 4096).unwrap();
        assert!(check(&segments, 39_000_000, 40 * 4096).is_err());
        assert!(check(&segments, 40_000_000, 1).is_err());
    }

    #[test]
    fn overlaps_and_overflows_are_refused() {
        let overlap = [Segment { offset: 0, len: 10 }, Segment { offset: 9, len: 1 }];
        assert!(check(&overlap, 100, 11).is_err());
        assert!(check(&[Segment { offset: u64::MAX, len: 2 }], u64::MAX, 2).is_err());
        assert!(Lines::new(1).feed(&[b'1'; BLOCK]).is_err());
    }
}
