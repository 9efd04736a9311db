//! Packet sockets' side of the stack: copies of frames as they pass the device (packet(7)).

use super::filter::Slot;
use super::hearers::Hearers;
use super::owner::Owner;
use crate::bpf::View;
use crate::event::Events;
use crate::sync::{SpinLock, WaitQueue};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Frames and bytes that may wait in one socket.
const MAX_FRAMES: usize = 512;
const MAX_BYTES: usize = 256 * 1024;
/// `ETH_P_ALL`.
pub const EVERYTHING: u16 = 3;
/// `PACKET_OUTGOING`.
pub const OUTGOING: u8 = 4;

/// A frame that was seen.
pub struct Seen {
    /// From the Ethernet header on, as much as the filter wanted.
    pub bytes: Vec<u8>,
    /// Its length on the wire.
    pub full: usize,
    /// `PACKET_HOST`, ...
    pub kind: u8,
}

/// The receiving side of a packet socket.
pub struct Tap {
    /// Readiness.
    pub queue: Arc<WaitQueue>,
    /// Whose it is.
    pub owner: Owner,
    /// What the socket wants.
    pub filter: Slot,
    state: SpinLock<State>,
}

struct State {
    /// Ethernet type; 0: none yet.
    protocol: u16,
    /// Frames start at the network header for it, and its filter sees them so.
    cooked: bool,
    seen: VecDeque<Seen>,
    bytes: usize,
    packets: u32,
    drops: u32,
}

impl Tap {
    /// Hears frames of `protocol`.
    pub fn new(protocol: u16, cooked: bool) -> Arc<Tap> {
        let state =
            State { protocol, cooked, seen: VecDeque::new(), bytes: 0, packets: 0, drops: 0 };
        Arc::new(Tap {
            queue: Arc::new(WaitQueue::new()),
            filter: Slot::default(),
            owner: Owner::default(),
            state: SpinLock::new(state),
        })
    }

    /// Changes what it hears; what waits is from before.
    pub fn set_protocol(&self, protocol: u16) {
        self.state.lock().protocol = protocol;
    }
    /// What it hears.
    pub fn protocol(&self) -> u16 {
        self.state.lock().protocol
    }
    /// The oldest frame; `keep`: as well for the next call.
    pub fn take(&self, keep: bool) -> Option<Seen> {
        let mut state = self.state.lock();
        if keep {
            let first = state.seen.front()?;
            return Some(Seen { bytes: first.bytes.clone(), full: first.full, kind: first.kind });
        }
        let seen = state.seen.pop_front()?;
        state.bytes -= seen.bytes.len();
        Some(seen)
    }
    /// Whether it hears frames without their headers, and bytes that wait.
    pub fn describe(&self) -> (bool, usize) {
        let state = self.state.lock();
        (state.cooked, state.bytes)
    }
    /// Length of the oldest frame.
    pub fn next_len(&self) -> Option<usize> {
        self.state.lock().seen.front().map(|seen| seen.bytes.len())
    }
    /// Frames seen and dropped since the last call (`PACKET_STATISTICS`).
    pub fn statistics(&self) -> (u32, u32) {
        let mut state = self.state.lock();
        (core::mem::take(&mut state.packets), core::mem::take(&mut state.drops))
    }

    fn input(&self, frame: &[u8], protocol: u16, kind: u8) {
        let mut state = self.state.lock();
        // Those of one protocol don't hear what is sent (packet(7)).
        if state.protocol != EVERYTHING && (state.protocol != protocol || kind == OUTGOING) {
            return;
        }
        let front = if state.cooked { super::edge::HEADER } else { 0 };
        let network = super::edge::HEADER;
        let view = View { bytes: frame, start: front, network, protocol, kind };
        let wanted = self.filter.wanted(view);
        if wanted == 0 {
            return;
        }
        let len = frame.len().min(front.saturating_add(wanted));
        let mut bytes = Vec::new();
        let full = state.seen.len() >= MAX_FRAMES || state.bytes + len > MAX_BYTES;
        state.packets += 1;
        if full || bytes.try_reserve_exact(len).is_err() {
            state.drops += 1;
            return;
        }
        bytes.extend_from_slice(&frame[..len]);
        state.bytes += len;
        state.seen.push_back(Seen { bytes, full: frame.len(), kind });
        drop(state);
        self.queue.wake_one(Events::IN | Events::RDNORM);
    }
}

/// Who a frame from the wire is for: `PACKET_HOST`, `_BROADCAST`, `_MULTICAST` or `_OTHERHOST`.
pub fn kind(frame: &[u8], own: [u8; 6]) -> u8 {
    match frame.first_chunk::<6>() {
        Some(dst) if *dst == own => 0,
        Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => 1,
        Some([first, ..]) if first & 1 != 0 => 2,
        _ => 3,
    }
}

/// The packet sockets of a stack.
pub type Table = Hearers<Tap>;

impl Table {
    /// A frame passes.
    pub fn input(&self, frame: &[u8], kind: u8) {
        let Some(&[a, b]) = frame.get(12..14).and_then(|bytes| bytes.first_chunk()) else { return };
        for tap in self.those(|_| true) {
            tap.input(frame, u16::from_be_bytes([a, b]), kind);
        }
    }
}
