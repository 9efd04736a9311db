//! Random bytes for the kernel and for getrandom(2), /dev/random and /dev/urandom.
//!
//! A ChaCha20 generator whose key is replaced by its own output with every request, so that what
//! was given out can't be computed later from the state. It is seeded from the machine on first
//! use.

use crate::sync::{Once, SpinLock};

/// The key; everything else follows from it.
struct Generator {
    key: [u32; 8],
}

static GENERATOR: Once<SpinLock<Generator>> = Once::new();

fn generator() -> &'static SpinLock<Generator> {
    GENERATOR.get_or_init(|| SpinLock::new(Generator { key: words(&machine_seed()) }))
}

#[cfg(guest)]
fn machine_seed() -> [u8; 32] {
    crate::arch::random::seed()
}

#[cfg(not(guest))]
fn machine_seed() -> [u8; 32] {
    use std::hash::{BuildHasher, Hasher};
    let mut seed = [0; 32];
    for chunk in seed.chunks_exact_mut(8) {
        let random = std::hash::RandomState::new().build_hasher().finish();
        chunk.copy_from_slice(&random.to_ne_bytes());
    }
    seed
}

fn words(bytes: &[u8; 32]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    words
}

/// One block of ChaCha20 (RFC 8439) with a zero nonce.
fn block(key: &[u32; 8], counter: u64) -> [u8; 64] {
    let mut input = [0u32; 16];
    input[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    input[4..12].copy_from_slice(key);
    input[12] = counter as u32;
    input[13] = (counter >> 32) as u32;
    let mut state = input;
    let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
        state[a] = state[a].wrapping_add(state[b]);
        state[d] = (state[d] ^ state[a]).rotate_left(16);
        state[c] = state[c].wrapping_add(state[d]);
        state[b] = (state[b] ^ state[c]).rotate_left(12);
        state[a] = state[a].wrapping_add(state[b]);
        state[d] = (state[d] ^ state[a]).rotate_left(8);
        state[c] = state[c].wrapping_add(state[d]);
        state[b] = (state[b] ^ state[c]).rotate_left(7);
    };
    for _ in 0..10 {
        for column in 0..4 {
            quarter(column, 4 + column, 8 + column, 12 + column);
        }
        quarter(0, 5, 10, 15);
        quarter(1, 6, 11, 12);
        quarter(2, 7, 8, 13);
        quarter(3, 4, 9, 14);
    }
    let mut out = [0; 64];
    for (chunk, (word, start)) in out.chunks_exact_mut(4).zip(state.iter().zip(input)) {
        chunk.copy_from_slice(&word.wrapping_add(start).to_le_bytes());
    }
    out
}

/// Fills a buffer with random bytes.
pub fn fill(out: &mut [u8]) {
    let first = {
        let mut generator = generator().lock();
        let first = block(&generator.key, 0);
        // The first half of the block is the next key, the second half goes out (or keys what goes
        // out).
        let mut next = [0; 32];
        next.copy_from_slice(&first[..32]);
        generator.key = words(&next);
        first
    };
    let mut own = [0; 32];
    own.copy_from_slice(&first[32..]);
    if out.len() <= own.len() {
        let len = out.len();
        out.copy_from_slice(&own[..len]);
        return;
    }
    let key = words(&own);
    for (counter, chunk) in out.chunks_mut(64).enumerate() {
        let bytes = block(&key, counter as u64);
        let len = chunk.len();
        chunk.copy_from_slice(&bytes[..len]);
    }
}

/// A random number.
pub fn next_u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// Mixes in bytes from a hardware generator, or anything else that others can't know.
pub fn mix(bytes: &[u8]) {
    let mut generator = generator().lock();
    for chunk in bytes.chunks(32) {
        let mut padded = [0; 32];
        padded[..chunk.len()].copy_from_slice(chunk);
        for (key, word) in generator.key.iter_mut().zip(words(&padded)) {
            *key ^= word;
        }
        let stirred = block(&generator.key, 1);
        padded.copy_from_slice(&stirred[..32]);
        generator.key = words(&padded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_gives_the_published_keystream() {
        // RFC 8439, appendix A.1, test vectors 1 and 2: zero key, counters 0 and 1.
        assert_eq!(block(&[0; 8], 0)[..8], [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
        assert_eq!(block(&[0; 8], 1)[..8], [0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a]);
    }

    #[test]
    fn requests_of_any_length_differ() {
        let mut seen = std::collections::HashSet::new();
        for len in [16, 32, 33, 64, 65, 1000] {
            let mut out = std::vec![0; len];
            fill(&mut out);
            assert!(out.iter().any(|&byte| byte != 0));
            assert!(seen.insert(out[..16].to_vec()));
        }
        mix(b"anything");
        assert_ne!(next_u64(), next_u64());
    }
}
