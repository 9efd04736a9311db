//! Compresses file contents so that the result fills blocks.
//!
//! LZ4 is a stream of copies and literals, so what comes out can be cut: whatever stands before the
//! cut still means the same. So one run of the compressor over more than an extent can hold shows how
//! many blocks of the file fit so many blocks of the image, and gives the bytes as well.

use dock2uni_format::erofs::{BLOCK, EXTENT_MAX, PCLUSTER_MAX};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

/// Most bytes of a file that become one extent.
pub(super) const EXTENT_BYTES: usize = EXTENT_MAX as usize * BLOCK;
const PCLUSTER_BYTES: usize = PCLUSTER_MAX as usize * BLOCK;

/// The last bytes of an LZ4 block are literals, ...
const LAST_LITERALS: usize = 5;
/// ... and the last copy starts so many bytes before its end.
const LAST_MATCH: usize = 12;
const MIN_MATCH: usize = 4;

/// What becomes of the first bytes of an input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// So many of them are stored as they are.
    Plain(usize),
    /// So many of them are stored as these bytes, in blocks.
    Packed(usize, &'a [u8]),
    /// All of them are stored as these bytes, beside the inode.
    Inline(&'a [u8]),
}

/// A compressor with its memory.
pub(super) struct Encoder {
    table: CompressTable,
    whole: Vec<u8>,
    cut: Vec<u8>,
}

/// One copy and the literals before it.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    /// Where it starts in the encoded bytes.
    token: usize,
    /// Where the distance ends there, after which more of the length may follow.
    distance_end: usize,
    /// Where the next sequence starts there.
    end: usize,
    /// Where the copy starts in the input.
    start: usize,
    /// Bytes that it copies.
    len: usize,
}

impl Encoder {
    pub fn new() -> Encoder {
        // A table for small inputs would give other bytes until the first large one.
        let table = CompressTable::large();
        let whole = vec![0; get_maximum_output_size(EXTENT_BYTES)];
        Encoder { table, whole, cut: Vec::new() }
    }

    /// What becomes of the start of `input`, which is not the end of its file: whole blocks, at most
    /// [`EXTENT_BYTES`].
    pub fn next(&mut self, input: &[u8]) -> Piece<'_> {
        let len = self.encode(input);
        if is_poor(len, input.len()) || input.len() <= BLOCK {
            return Piece::Plain(input.len());
        }
        if len <= BLOCK {
            return Piece::Packed(input.len(), &self.whole[..len]);
        }
        self.fill((len / BLOCK * BLOCK).min(PCLUSTER_BYTES), len, input)
    }

    /// What becomes of the start of `input`, which is the end of its file, at most [`EXTENT_BYTES`].
    /// Up to `room` bytes may go beside the inode.
    pub fn last(&mut self, input: &[u8], room: usize) -> Piece<'_> {
        let len = self.encode(input);
        if len <= room {
            return Piece::Inline(&self.whole[..len]);
        }
        if is_poor(len, input.len()) || input.len() <= BLOCK {
            return Piece::Plain(input.len());
        }
        let blocks = len.div_ceil(BLOCK);
        let fits = len <= PCLUSTER_BYTES && blocks < input.len().div_ceil(BLOCK);
        // Where there is room beside the inode, that is where the last bytes go.
        if fits && (blocks == 1 || room == 0) {
            return Piece::Packed(input.len(), &self.whole[..len]);
        }
        self.fill((len / BLOCK * BLOCK).clamp(BLOCK, PCLUSTER_BYTES), len, input)
    }

    /// As many whole blocks of the input as fit `room` bytes.
    fn fill(&mut self, room: usize, len: usize, input: &[u8]) -> Piece<'_> {
        match self.cut(room, len, input) {
            // One block at least, so that there is an end to it.
            None => Piece::Plain(BLOCK),
            Some(taken) if taken <= self.cut.len().next_multiple_of(BLOCK) => Piece::Plain(taken),
            Some(taken) => Piece::Packed(taken, &self.cut),
        }
    }

    fn encode(&mut self, input: &[u8]) -> usize {
        // The output has room for the worst case, and nothing else can fail.
        compress_into_with_table(input, &mut self.whole, &mut self.table)
            .unwrap_or(self.whole.len())
    }

    /// Cuts the encoded input, of which there are `len` bytes, after the largest number of whole
    /// blocks of the input that take up to `room` bytes. Returns how many bytes of the input these
    /// are; `cut` holds them then.
    fn cut(&mut self, room: usize, len: usize, input: &[u8]) -> Option<usize> {
        let whole = &self.whole[..len];
        let mut best = None;
        // The last copy before the cut, cut short if need be.
        let mut before: Option<Sequence> = None;
        let mut taken = BLOCK;
        'found: loop {
            let (at, start) = before.map_or((0, 0), |copy| (copy.end, copy.start + copy.len));
            let next = Sequence::read(whole, at, start);
            let limit = next.map_or(usize::MAX, |next| next.start + LAST_MATCH);
            while taken < limit {
                if taken > input.len() || cost(before, taken) > room {
                    break 'found;
                }
                best = Some((before, taken));
                taken += BLOCK;
            }
            before = next;
        }
        let (copy, taken) = best?;
        self.cut.clear();
        let literals = match copy {
            None => 0,
            Some(copy) => {
                let end = copy.end_before(taken);
                let len = end - copy.start - MIN_MATCH;
                self.cut.extend_from_slice(&whole[..copy.distance_end]);
                self.cut[copy.token] = whole[copy.token] & 0xf0 | len.min(15) as u8;
                extend(&mut self.cut, len);
                end
            }
        };
        let len = taken - literals;
        self.cut.push((len.min(15) as u8) << 4);
        extend(&mut self.cut, len);
        self.cut.extend_from_slice(&input[literals..taken]);
        Some(taken)
    }
}

impl Sequence {
    /// Reads the sequence at `token` of what the compressor wrote, whose literals are at `start` of
    /// the input. `None` if it is the last, which copies nothing.
    fn read(encoded: &[u8], token: usize, start: usize) -> Option<Sequence> {
        let mut at = token + 1;
        let literals = length(encoded, &mut at, encoded[token] >> 4);
        let distance_end = at + literals + 2;
        if distance_end > encoded.len() {
            return None;
        }
        at = distance_end;
        let len = length(encoded, &mut at, encoded[token] & 15) + MIN_MATCH;
        Some(Sequence { token, distance_end, end: at, start: start + literals, len })
    }

    /// Where the copy ends if the input ends at `taken`, [`LAST_MATCH`] bytes after its start or
    /// later.
    fn end_before(&self, taken: usize) -> usize {
        (self.start + self.len).min(taken - LAST_LITERALS)
    }
}

/// Whether what is saved is not worth decoding it.
fn is_poor(encoded: usize, len: usize) -> bool {
    encoded + encoded / 16 >= len
}

/// Length of the first `taken` bytes of the input if `copy` is the last copy in them.
fn cost(copy: Option<Sequence>, taken: usize) -> usize {
    let (before, end) = copy.map_or((0, 0), |copy| {
        let end = copy.end_before(taken);
        (copy.distance_end + extension(end - copy.start - MIN_MATCH), end)
    });
    before + 1 + extension(taken - end) + (taken - end)
}

/// Bytes that a length takes beside its four bits.
fn extension(len: usize) -> usize {
    len.checked_sub(15).map_or(0, |more| more / 255 + 1)
}

/// Writes what of a length doesn't fit its four bits.
fn extend(out: &mut Vec<u8>, len: usize) {
    if let Some(more) = len.checked_sub(15) {
        out.resize(out.len() + more / 255, 255);
        out.push((more % 255) as u8);
    }
}

fn length(encoded: &[u8], at: &mut usize, nibble: u8) -> usize {
    let mut len = usize::from(nibble);
    if nibble == 15 {
        loop {
            let more = encoded[*at];
            *at += 1;
            len += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use dock2uni_format::lz4;

    /// Bytes that compress by about half, the same for the same seed.
    fn text(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut out = Vec::new();
        while out.len() < len {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let random = (state >> 33) as usize;
            if random.is_multiple_of(3) && out.len() > 40 {
                let from = out.len() - 1 - random / 7 % out.len().min(60_000);
                let run = 4 + random / 11 % 90;
                for at in from..from + run {
                    out.push(out[at]);
                }
            } else {
                out.extend_from_slice(&state.to_le_bytes()[..1 + random % 7]);
            }
        }
        out.truncate(len);
        out
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 7u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            (state >> 56) as u8
        };
        (0..len).map(next).collect()
    }

    fn check(input: &[u8], taken: usize, bytes: &[u8]) {
        let mut out = vec![1; taken];
        assert_eq!(lz4::decode(bytes, &mut out), Ok(()));
        assert!(out == input[..taken]);
        // Another decoder agrees, on the rules about the end too.
        assert!(lz4_flex::block::decompress(bytes, taken).unwrap() == input[..taken]);
    }

    #[test]
    fn pieces_fill_their_blocks_and_decode_to_what_they_were() {
        let mut encoder = Encoder::new();
        for seed in 0..12 {
            let input = text(EXTENT_BYTES, seed);
            let len = BLOCK * (4 + 5 * seed as usize);
            match encoder.next(&input[..len]) {
                Piece::Packed(taken, bytes) => {
                    assert!(taken % BLOCK == 0 && taken <= len);
                    let blocks = bytes.len().div_ceil(BLOCK);
                    assert!(blocks * BLOCK < taken && blocks <= PCLUSTER_MAX as usize);
                    // What is left of the last block is less than a block of the file needs.
                    assert!(bytes.len() + BLOCK > blocks * BLOCK || taken == len, "{seed}");
                    check(&input, taken, bytes);
                }
                other => panic!("{seed}: {other:?}"),
            }
        }
    }

    #[test]
    fn any_cut_decodes() {
        let mut encoder = Encoder::new();
        for (name, input) in
            [("text", text(40_000, 3)), ("zeros", vec![0; 40_000]), ("noise", noise(40_000))]
        {
            let len = encoder.encode(&input);
            for room in (0..len + 300).step_by(97) {
                if let Some(taken) = encoder.cut(room, len, &input) {
                    assert!(encoder.cut.len() <= room && taken % BLOCK == 0, "{name}");
                    check(&input, taken, &encoder.cut);
                    // One block more would not have fitted.
                    let more = encoder.cut(usize::MAX, len, &input[..(taken + BLOCK).min(40_000)]);
                    assert!(more.unwrap() == taken || encoder.cut.len() > room, "{name}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_compress_stays_as_it_is() {
        let mut encoder = Encoder::new();
        let input = noise(EXTENT_BYTES);
        assert_eq!(encoder.next(&input), Piece::Plain(EXTENT_BYTES));
        assert_eq!(encoder.last(&input[..5000], 3000), Piece::Plain(5000));
        // Noise before zeros: the noise alone.
        let mut mixed = noise(20 * BLOCK);
        mixed.resize(EXTENT_BYTES, 0);
        assert!(matches!(encoder.next(&mixed), Piece::Plain(n) if n >= 15 * BLOCK));
    }

    #[test]
    fn ends_go_beside_the_inode_where_there_is_room() {
        let mut encoder = Encoder::new();
        let input = text(30_000, 5);
        assert!(matches!(encoder.last(&input[..3000], 3000), Piece::Inline(b) if b.len() < 3000));
        assert!(matches!(encoder.last(&input[..3000], 100), Piece::Plain(3000)));
        let Piece::Packed(taken, bytes) = encoder.last(&input, 3000) else { panic!() };
        check(&input, taken, bytes);
        assert!(taken < input.len());
        let Piece::Packed(30_000, bytes) = encoder.last(&input, 0) else { panic!() };
        check(&input, 30_000, bytes);
    }
}
