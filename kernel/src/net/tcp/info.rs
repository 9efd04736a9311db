//! `TCP_INFO` (struct tcp_info of include/uapi/linux/tcp.h).

use super::recovery::Phase;
use super::segment::before;
use super::tcb::{ACK_DELAY, Tcb};
use alloc::vec::Vec;

/// Size of the structure, as of Linux 6.6.
const SIZE: usize = 248;
const OPT_SACK: u8 = 2;
const OPT_WSCALE: u8 = 4;

impl Tcb {
    /// The structure; `now` in nanoseconds.
    pub fn info(&self, now: u64) -> Vec<u8> {
        let mut info = alloc::vec![0u8; SIZE];
        let recovery = &self.recovery;
        info[0] = self.state as u8;
        info[1] = match recovery.phase {
            Phase::Open => u8::from(recovery.reordered()),
            Phase::Fast => 3,
            Phase::Loss => 4,
        };
        info[2] = recovery.backoff as u8;
        info[3] = self.keep_probes as u8;
        info[4] = recovery.backoff as u8;
        if self.sack {
            info[5] |= OPT_SACK;
        }
        if self.scale > 0 {
            info[5] |= OPT_WSCALE;
        }
        info[6] = self.peer_scale | self.scale << 4;
        let micros = |ns: u64| (ns / 1000).min(u32::MAX.into()) as u32;
        let since = |at: u64| (now.saturating_sub(at) / 1_000_000).min(u32::MAX.into()) as u32;
        let segments = |bytes: u32| bytes.div_ceil(self.mss);
        let flight = self.nxt.wrapping_sub(self.una);
        let counters = &self.counters;
        let told =
            if before(self.rcv_nxt, self.edge) { self.edge.wrapping_sub(self.rcv_nxt) } else { 0 };
        let mtu = self.mss + if self.route.v6 { 60 } else { 40 };
        let words = [
            (8, micros(recovery.timeout())),
            (12, micros(ACK_DELAY)),
            (16, self.mss),
            (20, self.peer_mss),
            (24, segments(flight)),
            (28, segments(recovery.sacked())),
            (32, segments(recovery.lost(self.una))),
            (36, u32::from(recovery.phase != Phase::Open)),
            (44, since(counters.sent_at)),
            (52, since(counters.data_at)),
            (56, since(counters.heard_at)),
            (60, mtu),
            (64, told),
            (68, micros(recovery.srtt)),
            (72, micros(recovery.rttvar)),
            (76, self.congestion.threshold.min(0x7fff_ffff)),
            (80, (self.congestion.window / self.mss).max(1)),
            (84, self.mss),
            (88, 3),
            (92, micros(self.receive_rtt)),
            (96, self.limits().0 as u32),
            (100, counters.resent),
            (136, counters.segments_out),
            (140, counters.segments_in),
            (144, self.unsent() as u32),
            (148, if recovery.min_rtt == u64::MAX { u32::MAX } else { micros(recovery.min_rtt) }),
            (152, counters.data_in),
            (156, counters.data_out),
        ];
        for (at, value) in words {
            info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        info[120..128].copy_from_slice(&counters.bytes_acked.to_ne_bytes());
        info[128..136].copy_from_slice(&counters.bytes_received.to_ne_bytes());
        info
    }
}
