//! The transmission control block: what both ends have told each other, and the bytes between them
//! (RFC 9293, 3.3.1).
//!
//! Segments come in through [`input`](super::input), leave through [`output`](super::output). Time
//! is the caller's; a block has no lock and wakes nobody.
//!
//! Why it is our own: smoltcp fixes buffers when a connection starts, waits a second before it sends
//! anything again, starts with two kilobytes and does not use selective acknowledgements.

use super::congestion::Congestion;
use super::options::TcpOptions;
use super::recovery::{Phase, Recovery};
use super::ring::{MIN, Ring, pressed};
use super::segment::{Range, Segment, before};
use crate::io::{IoDst, IoSrc};
use crate::net::addr::SocketAddr;
use crate::net::packet::MAX_IP;
use crate::net::settings::{TCP_RECEIVE, TCP_SEND};
use crate::net::stack::{Route, Stack};
use crate::setting::Setting;
use alloc::vec::Vec;

/// Never.
pub const NEVER: u64 = u64::MAX;
/// How long an acknowledgement waits for data to go with it (Linux: TCP_ATO_MIN).
pub const ACK_DELAY: u64 = 40_000_000;
/// Buffers at the start.
const FIRST: usize = 128 * 1024;
/// The shift of our windows: up to eight megabytes.
pub const SCALE: u8 = 7;
/// How far a buffer grows by itself.
fn most(bounds: &[Setting; 3]) -> usize {
    bounds[2].size()
}

/// What a buffer may hold while memory is short.
const PRESSED: usize = 16 * 1024;
/// Segment size to assume of a peer that says none (RFC 9293, 3.7.1).
const DEFAULT_MSS: u32 = 536;
/// Smallest segments we let a peer or a router make us send: below, headers outweigh data.
const MIN_MSS: u32 = 88;

/// States of a connection, by Linux's numbers (include/net/tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are RFC 9293's")]
pub enum State {
    Established = 1,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Closed,
    CloseWait,
    LastAck,
    Listen,
    Closing,
}

/// Whether an acknowledgement is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// No.
    Nothing,
    /// By then, if nothing else goes out before.
    By(u64),
    /// At once.
    Now,
}

/// A byte that the peer called urgent.
#[derive(Clone, Copy, Debug)]
pub struct Urgent {
    /// Where it is.
    pub seq: u32,
    /// The byte, once it has come.
    pub byte: Option<u8>,
    /// `recv(MSG_OOB)` has taken it.
    pub taken: bool,
}

/// Traffic of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Segments sent.
    pub segments_out: u32,
    /// Segments received.
    pub segments_in: u32,
    /// Of those, with data.
    pub data_out: u32,
    /// As `data_out`.
    pub data_in: u32,
    /// Data sent last, in nanoseconds.
    pub sent_at: u64,
    /// Data received last.
    pub data_at: u64,
    /// Anything received last.
    pub heard_at: u64,
    /// Segments sent again.
    pub resent: u32,
    /// Payload that was acknowledged.
    pub bytes_acked: u64,
    /// Payload received in order.
    pub bytes_received: u64,
}

/// What the peer last heard from us; remembered in TIME_WAIT.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastSegment {
    /// Sequence number after everything sent.
    pub snd_nxt: u32,
    /// Acknowledgement number.
    pub rcv_nxt: u32,
    /// Window field.
    pub window: u16,
}

/// One end of a connection.
pub struct Tcb {
    /// Present state.
    pub state: State,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) route: Route,
    /// Checksums are completed by the device (or by nobody, on loopback).
    pub(super) offload: bool,
    /// Largest payload that the device cuts into segments; 0: it doesn't.
    pub(super) bundle: usize,

    /// Oldest unacknowledged byte; the front of `send`.
    pub(super) una: u32,
    /// Next byte to be sent for the first time.
    pub(super) nxt: u32,
    /// The peer's window, and the segment that said so.
    pub(super) wnd: u32,
    pub(super) wl1: u32,
    pub(super) wl2: u32,
    /// The largest window it ever had.
    pub(super) max_wnd: u32,
    /// The shift of its windows.
    pub(super) peer_scale: u8,
    pub(super) send: Ring,
    /// The application has ended its half, and the FIN is on its way.
    pub(super) fin: bool,
    pub(super) fin_sent: bool,
    /// The SYN is to be sent (again).
    pub(super) syn_due: bool,
    /// End of the last segment that was smaller than it could be (Minshall's rule).
    pub(super) small: u32,
    /// Send one segment whatever windows say.
    pub(super) force: bool,
    /// The congestion window was what limited sending.
    pub(super) limited: bool,
    /// End of what `send(MSG_OOB)` called urgent.
    pub(super) urgent_out: Option<u32>,
    /// Largest payload of a segment.
    pub(super) mss: u32,
    pub(super) sack: bool,
    pub(super) recovery: Recovery,
    pub(super) congestion: Congestion,
    /// Retransmission or window probe, probe of the end, end of waiting for reordering.
    pub(super) rto_at: u64,
    pub(super) probe_at: u64,
    pub(super) reorder_at: u64,
    pub(super) probed: bool,

    /// Next byte expected; `receive` ends there.
    pub(super) rcv_nxt: u32,
    /// End of the window that the peer was told, and the acknowledgement with it.
    pub(super) edge: u32,
    pub(super) acked: u32,
    /// The shift of our windows.
    pub(super) scale: u8,
    pub(super) receive: Ring,
    /// What has come ahead of `rcv_nxt`.
    pub(super) ahead: Vec<Range>,
    /// The latest of it.
    pub(super) latest: u32,
    /// Where the peer's FIN is.
    pub(super) fin_at: Option<u32>,
    /// Largest payload seen.
    pub(super) peer_mss: u32,
    pub(super) owed: Owed,
    /// Acknowledgements that are not delayed (`TCP_QUICKACK`).
    pub(super) quick: u8,
    /// The byte that was called urgent last.
    pub urgent: Option<Urgent>,

    pub(super) options: TcpOptions,
    /// What the buffers may hold by now.
    pub(super) receive_limit: usize,
    pub(super) send_limit: usize,
    /// Bytes that the application has read since when, to size the receive buffer.
    copied: usize,
    copied_since: u64,
    /// The byte whose arrival is one window away, and since when; the receiver's round-trip time.
    pub(super) window_mark: (u32, u64),
    pub(super) receive_rtt: u64,
    /// Partial segments are held back until then; 0: not corked.
    pub(super) cork_until: u64,
    pub(super) keep_probes: u32,
    pub(super) keep_at: u64,
    /// Until then segments that don't fit are not answered.
    pub(super) answer_from: u64,
    /// Traffic.
    pub counters: Counters,
}

impl Tcb {
    /// A block in state `Closed`; `iss`: initial sequence number.
    pub fn new(
        stack: &Stack,
        local: SocketAddr,
        remote: SocketAddr,
        route: Route,
        iss: u32,
        options: TcpOptions,
    ) -> Tcb {
        let now = stack.now();
        let offloads = stack.offloads();
        let cut = if route.v6 { offloads.tso6 } else { offloads.tso4 } && offloads.checksum;
        let headers = if route.v6 { 60 } else { 40 };
        let mtu = if route.loopback { MAX_IP } else { stack.path_mtu(&remote.ip()) };
        let mss = (mtu - headers) as u32;
        let limit = |fixed: usize, auto: usize| if fixed > 0 { fixed } else { auto };
        let una = iss.wrapping_add(1);
        let mut tcb = Tcb {
            state: State::Closed,
            local,
            remote,
            route,
            offload: route.loopback || offloads.checksum,
            bundle: if cut && !route.loopback { MAX_IP - headers } else { 0 },
            una,
            nxt: una,
            wnd: 0,
            wl1: 0,
            wl2: 0,
            max_wnd: 0,
            peer_scale: 0,
            send: Ring::new(),
            fin: false,
            fin_sent: false,
            syn_due: false,
            small: una,
            force: false,
            limited: false,
            urgent_out: None,
            mss,
            sack: false,
            recovery: Recovery::new(una),
            congestion: Congestion::new(mss, route.loopback),
            rto_at: NEVER,
            probe_at: NEVER,
            reorder_at: NEVER,
            probed: false,
            rcv_nxt: 0,
            edge: 0,
            acked: 0,
            scale: 0,
            receive: Ring::new(),
            ahead: Vec::new(),
            latest: 0,
            fin_at: None,
            peer_mss: DEFAULT_MSS,
            owed: Owed::Nothing,
            quick: 0,
            urgent: None,
            receive_limit: limit(options.receive_buffer, FIRST.min(most(&TCP_RECEIVE))),
            send_limit: limit(options.send_buffer, FIRST.min(most(&TCP_SEND))),
            options,
            copied: 0,
            copied_since: now,
            window_mark: (0, 0),
            receive_rtt: 0,
            cork_until: 0,
            keep_probes: 0,
            keep_at: NEVER,
            answer_from: 0,
            counters: Counters { heard_at: now, sent_at: now, data_at: now, ..Counters::default() },
        };
        tcb.set_options(options, now);
        if options.max_segment > 0 {
            tcb.limit_mss(options.max_segment);
        }
        tcb
    }

    /// Starts to connect.
    pub fn connect(&mut self) {
        self.state = State::SynSent;
        self.syn_due = true;
    }

    /// Takes up what a SYN offers.
    pub fn offered(&mut self, syn: &Segment<'_>) {
        self.rcv_nxt = syn.seq.wrapping_add(1);
        self.acked = self.rcv_nxt;
        self.edge = self.rcv_nxt;
        self.latest = self.rcv_nxt;
        if let Some(scale) = syn.scale {
            self.peer_scale = scale;
            self.scale = SCALE;
        }
        self.sack = syn.sack_ok;
        self.limit_mss(syn.mss.map_or(DEFAULT_MSS, u32::from));
        // A window in a SYN is never scaled.
        self.wnd = u32::from(syn.window);
        self.max_wnd = self.wnd;
        self.wl1 = syn.seq;
        self.wl2 = syn.ack;
    }

    /// Answers a SYN: half open.
    pub fn accept(&mut self, syn: &Segment<'_>) {
        self.offered(syn);
        self.state = State::SynReceived;
        self.syn_due = true;
    }

    /// Open at once, with what a SYN cookie remembers. `seq`: the peer's first byte.
    pub fn resume(&mut self, seq: u32, mss: u16, window: u16) {
        let syn =
            Segment { seq: seq.wrapping_sub(1), mss: Some(mss), window, ..Segment::default() };
        self.offered(&syn);
        self.edge = self.rcv_nxt.wrapping_add(65535);
        self.state = State::Established;
    }

    pub(super) fn limit_mss(&mut self, mss: u32) {
        self.mss = self.mss.min(mss.max(MIN_MSS));
        self.congestion.set_mss(self.mss);
        if !self.route.loopback && self.recovery.srtt == 0 {
            self.congestion = Congestion::new(self.mss, false);
            self.congestion.set_algorithm(self.options.congestion);
        }
    }

    /// The path takes IP packets of `mtu` bytes and no longer ones: what was longer is sent again.
    pub fn path_mtu(&mut self, mtu: usize) {
        let mss = mtu.saturating_sub(if self.route.v6 { 60 } else { 40 }) as u32;
        if mss >= self.mss || self.nxt == self.una {
            return;
        }
        self.mss = mss.max(MIN_MSS);
        self.congestion.set_mss(self.mss);
        self.recovery.enter(Phase::Loss, self.una, self.nxt);
        self.force = true;
    }

    /// Bytes ready to be read.
    pub fn readable(&self) -> usize {
        self.receive.len()
    }

    /// Bytes of the send buffer.
    pub fn queued(&self) -> usize {
        self.send.len()
    }

    /// Bytes that were not sent yet.
    pub fn unsent(&self) -> usize {
        self.send.len().saturating_sub(self.nxt.wrapping_sub(self.una) as usize)
    }

    /// What buffers may hold: receiving, sending.
    pub fn limits(&self) -> (usize, usize) {
        if pressed() {
            return (self.receive_limit.min(PRESSED), self.send_limit.min(PRESSED));
        }
        (self.receive_limit, self.send_limit)
    }

    /// Room in the send buffer.
    pub fn room(&self) -> usize {
        self.limits().1.saturating_sub(self.send.len())
    }

    /// Whether the send buffer has enough room to be announced (a third, as Linux has it).
    pub fn spacious(&self) -> bool {
        self.room() * 3 >= self.limits().1
    }

    /// Whether our half still accepts data.
    pub fn may_send(&self) -> bool {
        matches!(self.state, State::Established | State::CloseWait) && !self.fin
    }

    /// Whether the handshake goes on.
    pub fn connecting(&self) -> bool {
        matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// Whether the peer has ended its half (or the connection is gone).
    pub fn peer_done(&self) -> bool {
        use State::*;
        matches!(self.state, CloseWait | LastAck | Closing | TimeWait | Closed)
    }

    /// Whether nothing is left of it for its program: what waits in `TimeWait` is the port alone.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Closed | State::TimeWait)
    }

    /// Largest payload of a segment.
    pub fn mss(&self) -> usize {
        self.mss as usize
    }

    /// Options in force.
    pub fn options(&self) -> &TcpOptions {
        &self.options
    }

    /// Changes options.
    pub fn set_options(&mut self, options: TcpOptions, now: u64) {
        self.congestion.set_algorithm(options.congestion);
        if options.receive_buffer > 0 {
            self.receive_limit = options.receive_buffer;
        }
        if options.send_buffer > 0 {
            self.send_limit = options.send_buffer;
        }
        self.options = options;
        self.keep_probes = 0;
        self.set_cork(options.cork, now);
    }

    /// Holds partial segments back, or stops doing so.
    pub fn set_cork(&mut self, cork: bool, now: u64) {
        const CORK_TIME: u64 = 200_000_000;
        self.cork_until = if cork { now + CORK_TIME } else { 0 };
    }

    /// `TCP_QUICKACK`.
    pub fn set_quick(&mut self, on: bool) {
        self.quick = if on { 16 } else { 0 };
        if on && self.owed != Owed::Nothing {
            self.owed = Owed::Now;
        }
    }

    /// The application looks for data and there is none: it won't answer before more comes, so what
    /// has come is acknowledged. Returns whether there is something to be sent.
    pub fn starved(&mut self) -> bool {
        let owed = matches!(self.owed, Owed::By(_)) && self.receive.is_empty();
        if owed {
            self.owed = Owed::Now;
        }
        owed
    }

    /// Moves bytes to the send buffer; returns how many, and whether an absent page stopped it.
    pub fn write(&mut self, src: &mut IoSrc<'_>) -> (usize, bool) {
        let mut total = 0;
        while src.remaining() > 0 {
            let (len, mut n) = (self.send.len(), self.room().min(src.remaining()));
            if !self.send.reserve(len + n) {
                // However short memory is, a little goes out: its acknowledgement wakes the writer.
                n = MIN.saturating_sub(len).min(n);
                self.send.reserve(len + n);
            }
            if n == 0 {
                break;
            }
            let (moved, fault) = src.read_nofault(self.send.room(n));
            self.send.extend(moved);
            total += moved;
            if fault || moved == 0 {
                return (total, fault);
            }
        }
        (total, false)
    }

    /// Calls everything written so far urgent, up to its last byte.
    pub fn mark_urgent(&mut self) {
        self.urgent_out = Some(self.una.wrapping_add(self.send.len() as u32));
    }

    /// Where the next read starts.
    fn read_seq(&self) -> u32 {
        self.rcv_nxt
            .wrapping_sub(self.receive.len() as u32)
            .wrapping_sub(u32::from(self.peer_done()))
    }

    /// Bytes before the urgent one, if it lies ahead in what can be read or further.
    fn before_urgent(&self) -> Option<usize> {
        let urgent = self.urgent?;
        let ahead = urgent.seq.wrapping_sub(self.read_seq());
        (ahead as i32 >= 0).then_some(ahead as usize)
    }

    /// Whether the next byte to be read is the urgent one (`SIOCATMARK`).
    pub fn at_mark(&self) -> bool {
        self.before_urgent() == Some(0)
    }

    /// Moves readable bytes, from the `skip`th on, to `dst` without removing them; a read ends
    /// before the urgent byte, and passes over it unless it is `inline`. Returns how many, and
    /// whether an absent page stopped it.
    pub fn peek(
        &mut self,
        skip: usize,
        dst: &mut IoDst<'_>,
        inline: bool,
        discard: bool,
    ) -> (usize, bool) {
        let mut end = self.receive.len();
        let mut skip = skip;
        match self.before_urgent() {
            Some(0) if !inline => skip += 1,
            Some(at) if at > skip => end = end.min(at),
            _ => {}
        }
        let len = end.saturating_sub(skip).min(dst.remaining());
        let (a, b) = self.receive.slices(skip, len);
        let (mut total, mut fault) = (0, false);
        for part in [a, b] {
            if fault || part.is_empty() {
                break;
            }
            let moved;
            (moved, fault) =
                if discard { (dst.skip(part.len()), false) } else { dst.write_nofault(part) };
            total += moved;
        }
        (total, fault)
    }

    /// Removes what was read; `inline` as for [`peek`](Tcb::peek). Returns whether the peer should
    /// hear of the room.
    pub fn consume(&mut self, n: usize, inline: bool, now: u64) -> bool {
        let pass = usize::from(!inline && n > 0 && self.at_mark());
        let n = n + pass;
        if n == 0 {
            return false;
        }
        self.receive.consume(n);
        if self.receive.is_empty() && self.ahead.is_empty() {
            self.receive.rest();
        }
        self.copied += n;
        self.size_receive(now);
        if self.peer_done() {
            return false;
        }
        // Worth a segment: half the buffer where little was left, or the window was closed. What the
        // window field can't say is no news.
        let limit = self.limits().0.min(65535 << self.scale);
        let free = limit.saturating_sub(self.receive.len());
        let told =
            if before(self.rcv_nxt, self.edge) { self.edge.wrapping_sub(self.rcv_nxt) } else { 0 };
        let news = free.saturating_sub(told as usize);
        let low = told as usize <= limit / 4;
        if low && news >= limit / 2 || told < self.peer_mss && news >= self.peer_mss as usize {
            self.owed = Owed::Now;
        }
        self.owed == Owed::Now
    }

    /// Passes over the urgent byte where nothing else is left to be read.
    pub fn pass_mark(&mut self, inline: bool) {
        if !inline && self.at_mark() && !self.receive.is_empty() {
            self.receive.consume(1);
        }
    }

    /// The receive buffer grows to twice what the application reads in a round trip.
    fn size_receive(&mut self, now: u64) {
        let rtt = if self.receive_rtt > 0 { self.receive_rtt } else { self.recovery.srtt };
        if now.saturating_sub(self.copied_since) < rtt || rtt == 0 {
            return;
        }
        let wanted = 2 * self.copied;
        if self.options.receive_buffer == 0 && wanted > self.receive_limit && !pressed() {
            self.receive_limit = wanted.next_power_of_two().min(most(&TCP_RECEIVE));
        }
        (self.copied, self.copied_since) = (0, now);
    }

    /// The send buffer holds two congestion windows.
    pub(super) fn size_send(&mut self) {
        if self.options.send_buffer == 0 && !self.route.loopback && !pressed() {
            let wanted = 2 * self.congestion.window as usize;
            self.send_limit = self.send_limit.max(wanted.min(most(&TCP_SEND)));
        }
    }

    /// The application ends its half.
    pub fn close(&mut self) {
        match self.state {
            State::SynSent => self.state = State::Closed,
            State::SynReceived | State::Established => {
                self.fin = true;
                self.state = State::FinWait1;
            }
            State::CloseWait => {
                self.fin = true;
                self.state = State::LastAck;
            }
            _ => return,
        }
        self.cork_until = 0;
    }

    /// When something is to be done without anything happening before.
    pub fn deadline(&self) -> u64 {
        if self.state == State::Closed {
            return NEVER;
        }
        let mut at = self.rto_at.min(self.probe_at).min(self.reorder_at).min(self.keep_alive_at());
        if let Owed::By(by) = self.owed {
            at = at.min(by);
        }
        if self.cork_until > 0 && self.unsent() > 0 {
            at = at.min(self.cork_until);
        }
        at
    }

    /// When the silent peer is asked whether it lives.
    pub(super) fn keep_alive_at(&self) -> u64 {
        use State::*;
        let open = matches!(self.state, Established | CloseWait | FinWait1 | FinWait2);
        if !self.options.keep_alive || !open || self.nxt != self.una || self.unsent() > 0 {
            return NEVER;
        }
        match self.keep_probes {
            0 => {
                let idle = u64::from(self.options.keep_idle) * 1_000_000_000;
                self.counters.heard_at.saturating_add(idle)
            }
            _ => self.keep_at,
        }
    }

    /// Whether the byte at `seq` was sent and not acknowledged.
    pub fn under_way(&self, seq: u32) -> bool {
        let seq = if self.connecting() { seq.wrapping_add(1) } else { seq };
        !before(seq, self.una) && !before(self.nxt, seq)
    }

    /// What a tombstone must know.
    pub fn last(&self) -> LastSegment {
        let window = self.edge.wrapping_sub(self.rcv_nxt) >> self.scale;
        LastSegment { snd_nxt: self.nxt, rcv_nxt: self.rcv_nxt, window: window.min(65535) as u16 }
    }
}
