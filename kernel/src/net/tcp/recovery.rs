//! What was sent and not yet acknowledged: round-trip time (RFC 6298), selective acknowledgements
//! and what to send again (RFC 6675, with the timers of RFC 8985).

use super::segment::{Range, before, later};
use alloc::vec::Vec;

const MILLI: u64 = 1_000_000;
/// Shortest and longest retransmission timeout (Linux: TCP_RTO_MIN, TCP_RTO_MAX), and the first.
const MIN_RTO: u64 = 200 * MILLI;
const MAX_RTO: u64 = 120_000 * MILLI;
const FIRST_RTO: u64 = 1_000 * MILLI;
/// Ranges remembered; a peer that reports more has the rest sent again.
const MAX_RANGES: usize = 256;

/// How sending goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Well.
    Open,
    /// Holes are filled, everything else goes on (fast recovery).
    Fast,
    /// The retransmission timer has expired: everything unacknowledged is sent again.
    Loss,
}

/// Sender's view of what is under way. All sequence numbers are between the oldest unacknowledged
/// and the next to be sent.
#[derive(Debug)]
pub struct Recovery {
    /// How sending goes.
    pub phase: Phase,
    /// Received out of order, sorted and apart.
    sacked: Vec<Range>,
    /// Whatever was not selectively acknowledged below is lost.
    lost_to: u32,
    /// What was lost below has been sent again.
    resent_to: u32,
    /// What was next to be sent when sending again began.
    pass: u32,
    /// The phase ends when this is acknowledged.
    end: u32,
    /// Duplicate acknowledgements, where the peer has no selective ones.
    pub duplicates: u32,
    /// Smoothed round-trip time and its variation, in nanoseconds; 0: not measured.
    pub srtt: u64,
    /// As [`srtt`](Recovery::srtt).
    pub rttvar: u64,
    /// Smallest sample.
    pub min_rtt: u64,
    /// The byte whose acknowledgement is timed, and when it was sent.
    timed: Option<(u32, u64)>,
    /// Doublings of the timeout.
    pub backoff: u32,
}

impl Recovery {
    /// Nothing under way; the first byte will be `seq`.
    pub fn new(seq: u32) -> Recovery {
        Recovery {
            phase: Phase::Open,
            sacked: Vec::new(),
            lost_to: seq,
            resent_to: seq,
            pass: seq,
            end: seq,
            duplicates: 0,
            srtt: 0,
            rttvar: 0,
            min_rtt: u64::MAX,
            timed: None,
            backoff: 0,
        }
    }

    /// Retransmission timeout in nanoseconds, doubled as often as it has expired.
    pub fn timeout(&self) -> u64 {
        let base = match self.srtt {
            0 => FIRST_RTO,
            srtt => srtt + (4 * self.rttvar).max(MIN_RTO),
        };
        (base << self.backoff.min(16)).min(MAX_RTO)
    }

    /// How long the last segments of a flight may remain unanswered before the end is probed;
    /// `single`: there is just one, whose acknowledgement the peer may delay.
    pub fn probe_timeout(&self, single: bool) -> u64 {
        let delay = if single { MIN_RTO } else { 2 * MILLI };
        (2 * self.srtt + delay).max(10 * MILLI).min(self.timeout())
    }

    /// How long holes may be reordering rather than loss.
    pub fn reordering(&self) -> u64 {
        (self.srtt / 4).max(MILLI)
    }

    /// New data up to `end` was sent.
    pub fn sent(&mut self, end: u32, now: u64) {
        if self.timed.is_none() {
            self.timed = Some((end, now));
        }
    }

    /// Something is sent again: its acknowledgement tells nothing about time (Karn).
    pub fn untime(&mut self) {
        self.timed = None;
    }

    /// A round trip took `rtt` nanoseconds.
    pub fn sample(&mut self, rtt: u64) {
        let rtt = rtt.max(1000);
        self.min_rtt = self.min_rtt.min(rtt);
        if self.srtt == 0 {
            (self.srtt, self.rttvar) = (rtt, rtt / 2);
        } else {
            self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = (7 * self.srtt + rtt) / 8;
        }
    }

    /// Everything before `una` is acknowledged. Returns whether that ends a phase.
    pub fn advance(&mut self, una: u32, now: u64) -> bool {
        if let Some((seq, at)) = self.timed
            && !before(una, seq)
        {
            self.timed = None;
            self.sample(now.saturating_sub(at));
        }
        self.backoff = 0;
        self.duplicates = 0;
        let done = self.sacked.iter().take_while(|range| !before(una, range.1)).count();
        self.sacked.drain(..done);
        if let Some(first) = self.sacked.first_mut() {
            first.0 = later(first.0, una);
        }
        self.lost_to = later(self.lost_to, una);
        self.resent_to = later(self.resent_to, una);
        let ends = self.phase != Phase::Open && !before(una, self.end);
        if ends {
            self.phase = Phase::Open;
            self.lost_to = una;
            self.resent_to = una;
        }
        ends
    }

    /// Adds a selective acknowledgement; returns how many bytes are new in it.
    pub fn sack(&mut self, range: Range, una: u32, nxt: u32) -> u32 {
        let (start, end) = (later(range.0, una), range.1);
        // Old (a duplicate is reported), never sent, or nonsense; by distances, as these numbers may
        // be anything.
        let (from, to) = (start.wrapping_sub(una), end.wrapping_sub(una));
        if from >= to || to > nxt.wrapping_sub(una) {
            return 0;
        }
        let total = |ranges: &[Range]| -> u32 {
            ranges.iter().map(|range| range.1.wrapping_sub(range.0)).sum()
        };
        let old = total(&self.sacked);
        insert(&mut self.sacked, (start, end), MAX_RANGES);
        total(&self.sacked) - old
    }

    /// Bytes that were selectively acknowledged.
    pub fn sacked(&self) -> u32 {
        self.sacked.iter().map(|range| range.1.wrapping_sub(range.0)).sum()
    }

    /// Whether there are holes.
    pub fn reordered(&self) -> bool {
        !self.sacked.is_empty()
    }

    /// Decides what is lost: whatever has more than `threshold` bytes above it, or three ranges, that
    /// arrived. Returns whether there is anything that was not known before.
    pub fn judge(&mut self, threshold: u32, una: u32, nxt: u32) -> bool {
        let (mut above, mut lost) = (0, una);
        for (count, range) in self.sacked.iter().rev().enumerate() {
            above += range.1.wrapping_sub(range.0);
            if above > threshold || count >= 2 {
                lost = range.0;
                break;
            }
        }
        // What was sent after the holes were filled has arrived, and holes are left: filled in vain.
        if let (Phase::Fast, Some(last)) = (self.phase, self.sacked.last())
            && before(self.pass.wrapping_add(threshold), last.1)
            && before(una, self.resent_to)
        {
            self.resent_to = una;
            self.pass = nxt;
        }
        let news = before(self.lost_to, lost);
        self.lost_to = later(self.lost_to, lost);
        news
    }

    /// The first segment is lost (as duplicates or partial acknowledgements say).
    pub fn lose_first(&mut self, una: u32, mss: u32, nxt: u32) {
        let end = una.wrapping_add(mss);
        self.lost_to = later(self.lost_to, if before(nxt, end) { nxt } else { end });
        self.resent_to = una;
    }

    /// Everything below the highest selective acknowledgement is lost, whatever the threshold.
    pub fn lose_holes(&mut self) {
        if let Some(last) = self.sacked.last() {
            self.lost_to = later(self.lost_to, last.0);
        }
    }

    /// Starts to fill holes. `nxt`: the next new byte.
    pub fn enter(&mut self, phase: Phase, una: u32, nxt: u32) {
        self.phase = phase;
        self.end = nxt;
        self.pass = nxt;
        self.resent_to = una;
        self.untime();
        if phase == Phase::Loss {
            // The peer has thrown away what it had reported.
            if self.sacked.first().is_some_and(|first| first.0 == una) {
                self.sacked.clear();
            }
            self.lost_to = nxt;
            self.duplicates = 0;
        }
    }

    /// Bytes in `from..to` that did not arrive.
    fn missing(&self, from: u32, to: u32) -> u32 {
        if !before(from, to) {
            return 0;
        }
        let mut missing = to.wrapping_sub(from);
        for &(start, end) in &self.sacked {
            let (start, end) = (later(start, from), if before(to, end) { to } else { end });
            if before(start, end) {
                missing -= end.wrapping_sub(start);
            }
        }
        missing
    }

    /// Bytes that are on their way, as far as can be told.
    pub fn pipe(&self, una: u32, nxt: u32, mss: u32) -> u32 {
        let flight = nxt.wrapping_sub(una);
        if self.phase == Phase::Open && self.sacked.is_empty() && self.duplicates == 0 {
            return flight;
        }
        let resent =
            if before(self.resent_to, self.lost_to) { self.resent_to } else { self.lost_to };
        self.missing(self.lost_to, nxt)
            .saturating_add(self.missing(una, resent))
            .saturating_sub(self.duplicates * mss)
    }

    /// Lost bytes that were not sent again.
    pub fn lost(&self, una: u32) -> u32 {
        self.missing(later(self.resent_to, una), self.lost_to)
    }

    /// The next range to be sent again, of at most `mss` bytes.
    pub fn hole(&self, una: u32, mss: u32) -> Option<Range> {
        let (mut at, mut end) = (later(self.resent_to, una), self.lost_to);
        for &(start, stop) in &self.sacked {
            if before(at, start) {
                end = if before(start, end) { start } else { end };
                break;
            }
            at = later(at, stop);
        }
        let limit = at.wrapping_add(mss);
        before(at, end).then(|| (at, if before(limit, end) { limit } else { end }))
    }

    /// A hole was filled up to `end`.
    pub fn resent(&mut self, end: u32) {
        self.resent_to = end;
        self.untime();
    }
}

/// Adds a range to a sorted list of ranges that lie apart; those that touch become one. Returns
/// `false` if there would be more than `max`.
pub fn insert(ranges: &mut Vec<Range>, mut new: Range, max: usize) -> bool {
    let first = ranges.iter().position(|range| !before(range.1, new.0)).unwrap_or(ranges.len());
    let touching = ranges[first..].iter().take_while(|range| !before(new.1, range.0)).count();
    if touching == 0 {
        if ranges.len() >= max || ranges.try_reserve(1).is_err() {
            return false;
        }
        ranges.insert(first, new);
        return true;
    }
    for &(start, end) in &ranges[first..first + touching] {
        new = (if before(start, new.0) { start } else { new.0 }, later(end, new.1));
    }
    ranges.drain(first + 1..first + touching);
    ranges[first] = new;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_stay_sorted_across_the_wrap() {
        let base = u32::MAX - 50;
        let at = |n: u32| base.wrapping_add(n);
        let mut ranges = Vec::new();
        for (start, end) in [(40, 50), (10, 20), (70, 80), (20, 30), (25, 41), (80, 81)] {
            assert!(insert(&mut ranges, (at(start), at(end)), 8));
        }
        assert_eq!(ranges, [(at(10), at(50)), (at(70), at(81))]);
        assert!(!insert(&mut ranges, (at(100), at(101)), 2));
        assert!(insert(&mut ranges, (at(5), at(200)), 2));
        assert_eq!(ranges, [(at(5), at(200))]);
    }

    #[test]
    fn three_segments_above_a_hole_mean_loss() {
        let mss = 100;
        let mut recovery = Recovery::new(0);
        let nxt = 1000;
        recovery.sack((100, 200), 0, nxt);
        assert!(!recovery.judge(2 * mss, 0, nxt));
        recovery.sack((200, 300), 0, nxt);
        assert!(!recovery.judge(2 * mss, 0, nxt));
        recovery.sack((300, 400), 0, nxt);
        assert!(recovery.judge(2 * mss, 0, nxt));
        recovery.enter(Phase::Fast, 0, nxt);
        assert_eq!(recovery.hole(0, mss), Some((0, 100)));
        assert_eq!(recovery.pipe(0, nxt, mss), 600);
        recovery.resent(100);
        assert_eq!((recovery.hole(0, mss), recovery.pipe(0, nxt, mss)), (None, 700));
        assert!(!recovery.advance(400, 0));
        assert!(recovery.advance(1000, 0));
        assert_eq!(recovery.phase, Phase::Open);
    }

    #[test]
    fn a_hole_filled_in_vain_is_filled_again() {
        let (mss, mut nxt) = (100, 1000);
        let mut recovery = Recovery::new(0);
        recovery.sack((100, 900), 0, nxt);
        assert!(recovery.judge(2 * mss, 0, nxt));
        recovery.enter(Phase::Fast, 0, nxt);
        recovery.resent(100);
        nxt = 1500;
        recovery.sack((1000, 1300), 0, nxt);
        recovery.judge(2 * mss, 0, nxt);
        assert_eq!(recovery.hole(0, mss), Some((0, 100)));
    }

    #[test]
    fn nonsense_is_not_believed() {
        let mut recovery = Recovery::new(1000);
        for range in [(0, 500), (1500, 1400), (1500, 99999), (900, 1000), (1 << 31, 1999)] {
            assert_eq!(recovery.sack(range, 1000, 2000), 0, "{range:?}");
        }
        assert_eq!(recovery.sack((900, 1100), 1000, 2000), 100);
    }

    #[test]
    fn the_timeout_follows_the_round_trip() {
        let mut recovery = Recovery::new(0);
        assert_eq!(recovery.timeout(), 1000 * MILLI);
        for _ in 0..50 {
            recovery.sample(10 * MILLI);
        }
        assert!((209 * MILLI..=211 * MILLI).contains(&recovery.timeout()));
        recovery.backoff = 3;
        assert!(recovery.timeout() > 1600 * MILLI);
        recovery.backoff = 40;
        assert_eq!(recovery.timeout(), MAX_RTO);
    }
}
