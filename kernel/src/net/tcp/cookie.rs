//! SYN cookies: a half-open connection kept in the sequence number of our answer, for when a
//! listener has too many of them (RFC 4987, 3.6).
//!
//! The upper eight bits hold the minute and the segment size, the lower 24 prove that we made them.
//! Window scaling and selective acknowledgements are lost on such connections.

use super::segment::Segment;
use super::table::{Key, Table};

/// Segment sizes that can be told, in ascending order.
const SIZES: [u16; 8] = [88, 536, 1220, 1300, 1400, 1440, 1460, 8960];
/// A step of the clock, in nanoseconds.
const STEP: u64 = 64_000_000_000;

fn proof(table: &Table, key: &Key, seq: u32, time: u64) -> u32 {
    (table.keyed(key, u64::from(seq) << 32 ^ time ^ 0xc00c << 16) >> 20) as u32 & 0xff_ffff
}

/// The sequence number of the answer to `syn`.
pub fn make(table: &Table, key: &Key, syn: &Segment<'_>, now: u64) -> u32 {
    let mss = syn.mss.unwrap_or(536);
    let index = SIZES.iter().rposition(|&size| size <= mss).unwrap_or(0) as u32;
    let time = now / STEP;
    ((time & 31) as u32) << 27 | index << 24 | proof(table, key, syn.seq, time)
}

/// The segment size, if `segment` acknowledges a cookie that is not older than two minutes.
pub fn check(table: &Table, key: &Key, segment: &Segment<'_>, now: u64) -> Option<u16> {
    let (cookie, seq) = (segment.ack.wrapping_sub(1), segment.seq.wrapping_sub(1));
    let time = now / STEP;
    let made = [time, time.saturating_sub(1)];
    let made = made.into_iter().find(|made| (made & 31) as u32 == cookie >> 27)?;
    (proof(table, key, seq, made) == cookie & 0xff_ffff).then(|| SIZES[(cookie >> 24 & 7) as usize])
}
