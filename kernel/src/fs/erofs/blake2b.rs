//! BLAKE2b with digests of 64 bytes and no key (RFC 7693).
//!
//! Our own, since how it is compiled is what matters. A rotation that leaves the flags alone (RORX of
//! BMI2, which every x86 server of ten years has) halves the time that it takes in QEMU's translator,
//! and no crate offers that without vectors, which are the user programs' in this kernel.

use crate::arch;

/// Bytes that are taken in at a time.
pub const PIECE: usize = 128;
/// A digest.
pub type Hash = [u8; 64];

/// The fractions of the square roots of the first eight primes, as of SHA-512.
const IV: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// What has been taken in of a message whose length is a multiple of [`PIECE`].
pub struct Blake2b {
    state: [u64; 8],
    len: u64,
}

impl Blake2b {
    pub fn new() -> Blake2b {
        let mut state = IV;
        // The parameters: digest length 64, no key, fanout and depth 1.
        state[0] ^= 0x0101_0040;
        Blake2b { state, len: 0 }
    }

    /// Takes in the next bytes; `last` if none follow.
    pub fn update(&mut self, piece: &[u8; PIECE], last: bool) {
        self.len += PIECE as u64;
        if arch::has_bmi2() {
            // SAFETY: the CPU has the instructions.
            unsafe { compress_bmi2(&mut self.state, piece, self.len, last) };
        } else {
            compress(&mut self.state, piece, self.len, last);
        }
    }

    /// The digest of what was taken in, if the last of it was said to be that.
    pub fn digest(&self) -> Hash {
        let mut hash = [0; 64];
        for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_le_bytes();
        }
        hash
    }
}

#[target_feature(enable = "bmi2")]
fn compress_bmi2(state: &mut [u64; 8], piece: &[u8; PIECE], len: u64, last: bool) {
    rounds(state, piece, len, last);
}

fn compress(state: &mut [u64; 8], piece: &[u8; PIECE], len: u64, last: bool) {
    rounds(state, piece, len, last);
}

/// The compression function. `len`: bytes taken in so far, these included.
#[inline(always)]
fn rounds(state: &mut [u64; 8], piece: &[u8; PIECE], len: u64, last: bool) {
    let mut m = [0; 16];
    for (word, bytes) in m.iter_mut().zip(piece.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [mut v0, mut v1, mut v2, mut v3, mut v4, mut v5, mut v6, mut v7] = *state;
    let [mut v8, mut v9, mut v10, mut v11, mut v12, mut v13, mut v14, mut v15] = IV;
    v12 ^= len;
    v14 ^= if last { u64::MAX } else { 0 };
    macro_rules! mix {
        ($a:ident $b:ident $c:ident $d:ident $x:literal $y:literal) => {
            $a = $a.wrapping_add($b).wrapping_add(m[$x]);
            $d = ($d ^ $a).rotate_right(32);
            $c = $c.wrapping_add($d);
            $b = ($b ^ $c).rotate_right(24);
            $a = $a.wrapping_add($b).wrapping_add(m[$y]);
            $d = ($d ^ $a).rotate_right(16);
            $c = $c.wrapping_add($d);
            $b = ($b ^ $c).rotate_right(63);
        };
    }
    macro_rules! round {
        ($a:literal $b:literal $c:literal $d:literal $e:literal $f:literal $g:literal $h:literal
         $i:literal $j:literal $k:literal $l:literal $m:literal $n:literal $o:literal $p:literal) => {
            mix!(v0 v4 v8 v12 $a $b);
            mix!(v1 v5 v9 v13 $c $d);
            mix!(v2 v6 v10 v14 $e $f);
            mix!(v3 v7 v11 v15 $g $h);
            mix!(v0 v5 v10 v15 $i $j);
            mix!(v1 v6 v11 v12 $k $l);
            mix!(v2 v7 v8 v13 $m $n);
            mix!(v3 v4 v9 v14 $o $p);
        };
    }
    round!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    round!(14 10 4 8 9 15 13 6 1 12 0 2 11 7 5 3);
    round!(11 8 12 0 5 2 15 13 10 14 3 6 7 1 9 4);
    round!(7 9 3 1 13 12 11 14 2 6 5 10 4 0 15 8);
    round!(9 0 5 7 2 4 10 15 14 1 11 12 6 8 3 13);
    round!(2 12 6 10 0 11 8 3 4 13 7 5 15 14 1 9);
    round!(12 5 1 15 14 13 4 10 0 7 6 3 9 2 8 11);
    round!(13 11 7 14 12 1 3 9 5 0 15 4 8 6 2 10);
    round!(6 15 14 9 11 3 0 8 12 2 13 7 1 4 10 5);
    round!(10 2 8 4 7 6 1 5 15 11 9 14 3 12 13 0);
    round!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    round!(14 10 4 8 9 15 13 6 1 12 0 2 11 7 5 3);
    let low = [v0, v1, v2, v3, v4, v5, v6, v7];
    let high = [v8, v9, v10, v11, v12, v13, v14, v15];
    for (word, (low, high)) in state.iter_mut().zip(low.into_iter().zip(high)) {
        *word ^= low ^ high;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(message: &[u8], compress: impl Fn(&mut [u64; 8], &[u8; PIECE], u64, bool)) -> Hash {
        let mut hasher = Blake2b::new();
        let pieces = message.as_chunks::<PIECE>().0;
        for (index, piece) in pieces.iter().enumerate() {
            let len = ((index + 1) * PIECE) as u64;
            compress(&mut hasher.state, piece, len, index + 1 == pieces.len());
        }
        hasher.digest()
    }

    #[test]
    fn digests_are_those_of_another_implementation() {
        let message: [u8; 4096] = core::array::from_fn(|n| (n.wrapping_mul(n) >> 5) as u8);
        for len in [128, 256, 4096] {
            let expected = *blake2b_simd::blake2b(&message[..len]).as_array();
            assert_eq!(hash(&message[..len], compress), expected);
            let mut hasher = Blake2b::new();
            for (index, piece) in message[..len].as_chunks::<PIECE>().0.iter().enumerate() {
                hasher.update(piece, (index + 1) * PIECE == len);
            }
            assert_eq!(hasher.digest(), expected, "bmi2: {}", arch::has_bmi2());
        }
    }
}
