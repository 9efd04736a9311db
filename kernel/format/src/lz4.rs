//! LZ4 blocks (the format's `doc/lz4_Block_format.md`), decoded without `unsafe` and without
//! allocating.
//!
//! Our own, since the kernel has it too and it is all that is needed there: the whole of a block whose
//! length is known. A block is a row of sequences: literal bytes, then a copy of bytes that were
//! decoded before; the last sequence has literals alone.

/// The block is damaged: it does not decode to the bytes that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Shortest copy in bytes.
const MIN_MATCH: usize = 4;
/// So many bytes are copied at once wherever they need not be counted.
const WIDE: usize = 16;

/// Decodes one block into all of `out`.
///
/// # Errors
/// If `input` is not exactly one block of that length. `out` holds anything then.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<(), Damaged> {
    let (mut at, mut end) = (0, 0);
    loop {
        let token = byte(input, &mut at)?;
        let literals = length(input, &mut at, token >> 4)?;
        copy_literals(input.get(at..).ok_or(Damaged)?, out, end, literals)?;
        at += literals;
        end += literals;
        if at == input.len() {
            return if end == out.len() { Ok(()) } else { Err(Damaged) };
        }
        let distance = usize::from(byte(input, &mut at)?) | usize::from(byte(input, &mut at)?) << 8;
        let len = length(input, &mut at, token & 15)? + MIN_MATCH;
        copy_match(out, end, distance, len)?;
        end += len;
    }
}

fn byte(input: &[u8], at: &mut usize) -> Result<u8, Damaged> {
    let byte = *input.get(*at).ok_or(Damaged)?;
    *at += 1;
    Ok(byte)
}

/// A length whose first four bits are `nibble`. It is bounded by 255 times the input.
fn length(input: &[u8], at: &mut usize, nibble: u8) -> Result<usize, Damaged> {
    let mut len = usize::from(nibble);
    if nibble == 15 {
        loop {
            let more = byte(input, at)?;
            len += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    Ok(len)
}

/// Copies the first `len` bytes of `from` to `out[end..]`.
#[inline(always)]
fn copy_literals(from: &[u8], out: &mut [u8], end: usize, len: usize) -> Result<(), Damaged> {
    if len <= WIDE
        && let Some(wide) = from.first_chunk::<WIDE>()
        && let Some(to) = out.get_mut(end..).and_then(|rest| rest.first_chunk_mut::<WIDE>())
    {
        // What is too much is overwritten next.
        *to = *wide;
        return Ok(());
    }
    let from = from.get(..len).ok_or(Damaged)?;
    out.get_mut(end..end + len).ok_or(Damaged)?.copy_from_slice(from);
    Ok(())
}

/// Copies `len` bytes from `distance` bytes before `end` to `end`; the two may overlap.
#[inline(always)]
fn copy_match(out: &mut [u8], end: usize, distance: usize, len: usize) -> Result<(), Damaged> {
    let from = end.checked_sub(distance).filter(|&from| from < end).ok_or(Damaged)?;
    if len <= WIDE && distance >= WIDE && end + WIDE <= out.len() {
        let (before, after) = out.split_at_mut(end);
        if let (Some(wide), Some(to)) =
            (before[from..].first_chunk::<WIDE>(), after.first_chunk_mut::<WIDE>())
        {
            *to = *wide;
            return Ok(());
        }
    }
    if end + len > out.len() {
        return Err(Damaged);
    }
    // What is copied becomes a source that is twice as long: the bytes repeat with this period.
    let mut done = 0;
    while done < len {
        let count = (distance + done).min(len - done);
        out.copy_within(from..from + count, end + done);
        done += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_decoded() {
        // "abc", then eight bytes from three back (overlapping), then five literals.
        let block = [0x34, b'a', b'b', b'c', 3, 0, 0x50, b'v', b'w', b'x', b'y', b'z'];
        let mut out = [0; 16];
        assert_eq!(decode(&block, &mut out), Ok(()));
        assert_eq!(&out, b"abcabcabcabvwxyz");
        // Long literals and a long copy with a period of one.
        let mut long = [0u8; 40];
        long[..2].copy_from_slice(&[0xf0 | 15, 5]);
        long[2..22].copy_from_slice(b"abcdefghijklmnopqrst");
        long[22..27].copy_from_slice(&[1, 0, 255, 10, 0x50]);
        long[27..32].copy_from_slice(b"ABCDE");
        let mut out = [0; 20 + 284 + 5];
        assert_eq!(decode(&long[..32], &mut out), Ok(()));
        assert_eq!((&out[..20], &out[304..]), (&b"abcdefghijklmnopqrst"[..], &b"ABCDE"[..]));
        assert!(out[20..304].iter().all(|&byte| byte == b't'));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let block = [0x34, b'a', b'b', b'c', 3, 0, 0x50, b'v', b'w', b'x', b'y', b'z'];
        for len in [0, 1, 3, 15, 17, 40] {
            assert_eq!(decode(&block, &mut [0; 40][..len]), Err(Damaged), "{len}");
        }
        for len in 0..block.len() {
            assert_eq!(decode(&block[..len], &mut [0; 16]), Err(Damaged), "{len}");
        }
        // Copies from before the start, from here, and lengths that never end.
        for bad in [&[0x10, b'a', 2, 0, 0][..], &[0x10, b'a', 0, 0, 0], &[0xff; 64], &[0x0f; 64]] {
            assert_eq!(decode(bad, &mut [0; 100_000]), Err(Damaged));
        }
        // Every byte replaced by every other.
        for at in 0..block.len() {
            for value in 0..=255 {
                let mut bad = block;
                bad[at] = value;
                let _ = decode(&bad, &mut [0; 16]);
            }
        }
    }
}
