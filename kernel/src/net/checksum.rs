//! The Internet checksum (RFC 1071).

use super::addr::IpAddr;

/// One's complement sum of `bytes` added to `sum`, not yet folded.
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    // Eight bytes at a time into 128 bits: an addition and an addition with carry each.
    let mut wide = u128::from(sum);
    let (chunks, tail) = bytes.as_chunks::<8>();
    for chunk in chunks {
        wide += u128::from(u64::from_le_bytes(*chunk));
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        wide += u128::from(u64::from_le_bytes(last));
    }
    // A carry out of 64 bits comes round again, as one's complement wants.
    let (sum, carry) = (wide as u64).overflowing_add((wide >> 64) as u64);
    sum + u64::from(carry)
}

/// Folds a sum to 16 bits, as it stands in memory order (store it with `to_le_bytes`).
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Sum of the pseudo header of TCP, UDP and ICMPv6.
pub fn pseudo_header(src: &IpAddr, dst: &IpAddr, protocol: u8, len: usize) -> u64 {
    let sum = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => add(add(0, &src.octets()), &dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => add(add(0, &src.octets()), &dst.octets()),
        _ => 0,
    };
    let tail = [0, protocol, (len >> 8) as u8, len as u8];
    add(sum, &tail)
}

/// Whether a packet that contains its checksum is intact.
pub fn verify(sum: u64, bytes: &[u8]) -> bool {
    fold(add(sum, bytes)) == 0xffff
}

/// Fills the two checksum bytes at `at` of `bytes`.
pub fn fill(sum: u64, bytes: &mut [u8], at: usize) {
    bytes[at..at + 2].fill(0);
    let value = !fold(add(sum, bytes));
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_worked_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(add(0, &bytes)).to_le_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn what_was_filled_verifies_at_every_length() {
        for len in 2..40 {
            let mut bytes: alloc::vec::Vec<u8> = (0..len).map(|at| 0xff - at as u8).collect();
            fill(7, &mut bytes, 0);
            assert!(verify(7, &bytes), "{len}");
            bytes[len / 2] ^= 4;
            assert!(!verify(7, &bytes), "{len}");
        }
    }
}
