//! Hashes of names in indexed directories (Linux `fs/ext4/hash.c`, e2fsprogs `dirhash.c`).

/// Hash algorithms by their numbers in the superblock and in directory roots.
pub const HALF_MD4: u8 = 1;
pub const TEA: u8 = 2;
/// Added to the number if `char` is unsigned where the directory was made.
pub const UNSIGNED: u8 = 3;
/// Marks the end of a directory to readers, so no name hashes to it.
const END: u32 = 0x7fff_ffff << 1;

/// Hash of a name; the lowest bit is clear. `None` for an algorithm that isn't known.
pub fn name_hash(name: &[u8], version: u8, seed: &[u32; 4]) -> Option<u32> {
    let signed = version < UNSIGNED;
    let mut state = match seed {
        [0, 0, 0, 0] => [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
        seed => *seed,
    };
    let mut rest = name;
    let hash = match version % UNSIGNED {
        HALF_MD4 => {
            while !rest.is_empty() {
                half_md4(&mut state, &words::<8>(rest, signed));
                rest = rest.get(32..).unwrap_or(&[]);
            }
            state[1]
        }
        TEA => {
            while !rest.is_empty() {
                tea(&mut state, &words::<4>(rest, signed));
                rest = rest.get(16..).unwrap_or(&[]);
            }
            state[0]
        }
        _ => return None,
    } & !1;
    Some(if hash == END { END - 2 } else { hash })
}

/// The next bytes of a name as big-endian words, padded with its length.
fn words<const N: usize>(name: &[u8], signed: bool) -> [u32; N] {
    let len = name.len() as u32;
    let pad = len | len << 8;
    let pad = pad | pad << 16;
    let mut out = [pad; N];
    for (word, bytes) in out.iter_mut().zip(name.chunks(4)) {
        *word = bytes.iter().fold(pad, |word, &byte| {
            let value = if signed { i32::from(byte as i8) as u32 } else { u32::from(byte) };
            value.wrapping_add(word << 8)
        });
    }
    out
}

fn tea(state: &mut [u32; 4], input: &[u32; 4]) {
    let [mut b0, mut b1, ..] = *state;
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        let mix = |b: u32, x: u32, y: u32| {
            (b << 4).wrapping_add(x) ^ b.wrapping_add(sum) ^ (b >> 5).wrapping_add(y)
        };
        b0 = b0.wrapping_add(mix(b1, input[0], input[1]));
        b1 = b1.wrapping_add(mix(b0, input[2], input[3]));
    }
    state[0] = state[0].wrapping_add(b0);
    state[1] = state[1].wrapping_add(b1);
}

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    type Round = (fn(u32, u32, u32) -> u32, u32, [usize; 8], [u32; 4]);
    const ROUNDS: [Round; 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (
            |x, y, z| (x & y).wrapping_add((x ^ y) & z),
            0x5a82_7999,
            [1, 3, 5, 7, 0, 2, 4, 6],
            [3, 5, 9, 13],
        ),
        (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let mut at = *state;
    for (mix, constant, order, turns) in ROUNDS {
        for (step, &word) in order.iter().enumerate() {
            let [a, b, c, d] = at;
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(input[word])
                .wrapping_add(constant)
                .rotate_left(turns[step % 4]);
            // The names rotate: what was d is the next to be changed.
            at = [d, sum, b, c];
        }
    }
    for (old, new) in state.iter_mut().zip(at) {
        *old = old.wrapping_add(new);
    }
}
