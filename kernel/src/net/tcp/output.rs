//! What a connection sends, and when.

use super::recovery::Phase;
use super::segment::{ACK, FIN, HEADER, Header, MAX_SACKS, PSH, RST, SYN, URG, before};
use super::tcb::{NEVER, Owed, SCALE, State, Tcb};
use crate::net::checksum;
use crate::net::ip::{self, protocol};
use crate::net::packet::{MAX_IP, Packet};
use crate::net::stack::Stack;

/// What has become of a peer that a timer asked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// There is hope.
    Alive,
    /// It has not answered for too long.
    Dead,
}

impl Tcb {
    /// Sends whatever is due.
    pub fn output(&mut self, stack: &Stack, now: u64) {
        match self.state {
            State::Closed | State::Listen => return,
            State::SynSent | State::SynReceived => {
                if core::mem::take(&mut self.syn_due) {
                    let ack = if self.state == State::SynReceived { ACK } else { 0 };
                    self.emit(stack, self.una.wrapping_sub(1), SYN | ack, 0);
                    if self.recovery.backoff == 0 {
                        self.recovery.sent(self.una, now);
                    }
                    self.rto_at = now + self.recovery.timeout();
                }
                return;
            }
            State::TimeWait | State::FinWait2 => {}
            _ => self.send_data(stack, now),
        }
        if self.owed == Owed::Now || matches!(self.owed, Owed::By(by) if by <= now) {
            self.emit(stack, self.nxt, ACK, 0);
        }
    }

    fn send_data(&mut self, stack: &Stack, now: u64) {
        let end = self.una.wrapping_add(self.send.len() as u32);
        if self.nxt == end && !self.fin && self.recovery.phase == Phase::Open {
            self.force = false;
            return self.watch(now);
        }
        let fresh = self.nxt == self.una && now > self.counters.sent_at + self.recovery.timeout();
        if fresh && self.recovery.phase == Phase::Open {
            self.congestion.restart();
        }
        self.limited = false;
        if self.cork_until <= now {
            self.cork_until = 0;
        }
        loop {
            let pipe = self.recovery.pipe(self.una, self.nxt, self.mss);
            if self.recovery.phase != Phase::Open
                && let Some((from, to)) = self.recovery.hole(self.una, self.mss)
            {
                let len = to.wrapping_sub(from);
                if !self.force && pipe > 0 && pipe + len > self.congestion.window {
                    self.limited = true;
                    break;
                }
                self.force = false;
                self.resend(stack, from, to, now);
                continue;
            }
            let Some((len, fin)) = self.next(end, pipe, now) else { break };
            self.force = false;
            let mut flags = ACK;
            let next = self.nxt.wrapping_add(len + u32::from(fin));
            if fin {
                flags |= FIN;
                self.fin_sent = true;
            }
            if next == end.wrapping_add(u32::from(fin)) {
                flags |= PSH;
            }
            self.emit(stack, self.nxt, flags, len as usize);
            self.nxt = next;
            if len > 0 {
                self.counters.data_out += len.div_ceil(self.mss);
                self.counters.sent_at = now;
                if len < self.mss {
                    self.small = next;
                }
            }
            self.recovery.sent(next, now);
            if self.rto_at == NEVER || pipe == 0 {
                self.rto_at = now + self.recovery.timeout();
            }
            self.schedule_probe(now);
        }
        self.watch(now);
    }

    /// The next new segment (or bundle of them): its length, and whether it ends our half. `end`:
    /// the end of the data; `pipe`: bytes under way.
    fn next(&mut self, end: u32, pipe: u32, now: u64) -> Option<(u32, bool)> {
        if self.fin_sent {
            return None;
        }
        let unsent = end.wrapping_sub(self.nxt);
        let edge = self.una.wrapping_add(self.wnd);
        let room = if before(self.nxt, edge) { edge.wrapping_sub(self.nxt) } else { 0 };
        let mut len = unsent.min(room);
        let by_window = len < unsent;
        let allowed = self.congestion.window.saturating_sub(pipe);
        if len > allowed {
            self.limited = true;
            // Whole segments only: the rest can wait for room.
            len = if self.force { len.min(self.mss) } else { allowed - allowed % self.mss };
            if len == 0 && pipe == 0 {
                len = unsent.min(room).min(self.mss);
            }
            if len == 0 {
                return None;
            }
        }
        let whole = len - len % self.mss;
        if whole > 0 {
            let most = (self.bundle as u32).min(MAX_IP as u32 - 60).max(self.mss);
            len = whole.min(most - most % self.mss);
        } else if by_window && !self.force && (len == 0 || len < self.max_wnd / 2) {
            // RFC 9293, 3.8.6.2.1: no silly segments; the persist timer watches.
            return None;
        } else if len == unsent && len > 0 && !self.fin && !self.force && self.held(now) {
            return None;
        }
        let fin = self.fin && len == unsent;
        (len > 0 || fin).then_some((len, fin))
    }

    /// Whether a segment that could still become larger has to wait: for the end of the cork, or for
    /// the acknowledgement of the last small one (Nagle's algorithm, modified by Minshall).
    fn held(&self, now: u64) -> bool {
        self.cork_until > now
            || self.urgent_out.is_none() && !self.options.no_delay && before(self.una, self.small)
    }

    /// Sends a range again.
    fn resend(&mut self, stack: &Stack, from: u32, to: u32, now: u64) {
        let end = self.una.wrapping_add(self.send.len() as u32);
        let fin = self.fin_sent && before(end, to);
        let len = to.wrapping_sub(from) - u32::from(fin);
        let flags = if fin { ACK | FIN } else { ACK | PSH };
        self.emit(stack, from, flags, len as usize);
        self.recovery.resent(to);
        self.counters.resent += 1;
        self.counters.data_out += 1;
        self.rto_at = now + self.recovery.timeout();
        self.probe_at = NEVER;
    }

    fn schedule_probe(&mut self, now: u64) {
        let ready = self.sack && !self.probed && self.recovery.srtt > 0;
        self.probe_at = NEVER;
        if ready && self.recovery.phase == Phase::Open && self.nxt != self.una {
            let single = self.nxt.wrapping_sub(self.una) <= self.mss;
            self.probe_at = now + self.recovery.probe_timeout(single);
        }
    }

    /// New data was acknowledged: timers start anew.
    pub(super) fn rewatch(&mut self, now: u64) {
        self.probed = false;
        self.rto_at = NEVER;
        self.schedule_probe(now);
        if self.nxt != self.una {
            self.rto_at = now + self.recovery.timeout();
        }
    }

    /// Makes sure that a timer runs while anything is owed to us.
    fn watch(&mut self, now: u64) {
        if self.nxt != self.una {
            if self.rto_at == NEVER {
                self.rto_at = now + self.recovery.timeout();
            }
        } else if self.unsent() > 0 {
            // The window is shut: probe it.
            if self.rto_at == NEVER {
                self.rto_at = now + self.recovery.timeout();
            }
        } else {
            self.rto_at = NEVER;
            self.probe_at = NEVER;
        }
    }

    /// A deadline may have passed: marks what is to be sent for [`output`](Tcb::output).
    pub fn expired(&mut self, stack: &Stack, now: u64) -> Pulse {
        if now >= self.reorder_at {
            self.reorder_at = NEVER;
            self.recovery.lose_holes();
            self.lose(now);
        }
        if now >= self.probe_at {
            self.probe_at = NEVER;
            self.probed = true;
            self.force = true;
            if self.unsent() == 0 && self.nxt != self.una {
                // The last segment again: its acknowledgement shows what is missing before it.
                self.force = false;
                let from = self.nxt.wrapping_sub(self.mss);
                let from = if before(from, self.una) { self.una } else { from };
                self.resend(stack, from, self.nxt, now);
                // That was no hole.
                self.recovery.resent(self.una);
            }
        }
        if now >= self.rto_at {
            self.rto_at = NEVER;
            self.timed_out(stack, now);
        }
        if now >= self.keep_alive_at() {
            let options = &self.options;
            let silence = now.saturating_sub(self.counters.heard_at) / 1_000_000;
            let over = options.user_timeout > 0
                && self.keep_probes > 0
                && silence >= u64::from(options.user_timeout);
            if over || options.user_timeout == 0 && self.keep_probes >= options.keep_count {
                return Pulse::Dead;
            }
            self.keep_probes += 1;
            self.keep_at = now + u64::from(options.keep_interval) * 1_000_000_000;
            self.probe(stack);
        }
        Pulse::Alive
    }

    fn timed_out(&mut self, stack: &Stack, now: u64) {
        self.recovery.backoff += 1;
        self.recovery.untime();
        self.probe_at = NEVER;
        if self.connecting() {
            self.syn_due = true;
            self.counters.resent += 1;
        } else if self.nxt != self.una {
            if self.recovery.phase != Phase::Loss {
                self.congestion.lost(self.nxt.wrapping_sub(self.una));
            }
            self.congestion.timed_out();
            self.recovery.enter(Phase::Loss, self.una, self.nxt);
            self.force = true;
        } else if self.unsent() > 0 {
            if self.wnd > 0 {
                self.force = true;
            } else {
                self.probe(stack);
            }
            self.rto_at = now + self.recovery.timeout();
        }
    }

    /// Enough is known to be lost: fill the holes.
    pub(super) fn lose(&mut self, _now: u64) {
        if self.recovery.phase != Phase::Open {
            return;
        }
        self.congestion.lost(self.nxt.wrapping_sub(self.una));
        self.recovery.enter(Phase::Fast, self.una, self.nxt);
        self.reorder_at = NEVER;
        self.probe_at = NEVER;
        self.force = true;
    }

    /// Provokes an acknowledgement: by an old sequence number.
    fn probe(&mut self, stack: &Stack) {
        self.emit(stack, self.una.wrapping_sub(1), ACK, 0);
    }

    /// Resets the connection, telling the peer.
    pub fn abort(&mut self, stack: &Stack) {
        if !matches!(self.state, State::Closed | State::SynSent | State::TimeWait | State::Listen) {
            self.emit(stack, self.nxt, RST | ACK, 0);
        }
        self.state = State::Closed;
    }

    /// The window field of a segment, which the peer may count on from now on.
    fn advertise(&mut self, syn: bool) -> u16 {
        let (limit, _) = self.limits();
        let free = limit.saturating_sub(self.receive.len()) as u32;
        let shift = if syn { 0 } else { self.scale };
        let old =
            if before(self.rcv_nxt, self.edge) { self.edge.wrapping_sub(self.rcv_nxt) } else { 0 };
        // RFC 9293, 3.8.6.2.2: grows in steps worth a segment, and never shrinks.
        let step = self.peer_mss.min(limit as u32 / 2);
        let new = if free < old.saturating_add(step) { old } else { free };
        let field = (new >> shift).min(65535);
        let edge = self.rcv_nxt.wrapping_add(field << shift);
        self.edge = if before(self.edge, edge) || syn { edge } else { self.edge };
        field as u16
    }

    fn write_options(&mut self, flags: u8, out: &mut [u8; 40]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if flags & SYN != 0 {
            let mss = (self.mss as u16).to_be_bytes();
            put(&[2, 4, mss[0], mss[1]]);
            let answer = flags & ACK != 0;
            if !answer || self.sack {
                put(&[1, 1, 4, 2]);
            }
            if !answer || self.scale > 0 {
                put(&[1, 3, 3, SCALE]);
            }
        } else if self.sack && !self.ahead.is_empty() {
            // The latest first (RFC 2018, 4).
            let newest = self
                .ahead
                .iter()
                .position(|range| !before(self.latest, range.0) && before(self.latest, range.1));
            let newest = newest.unwrap_or(0);
            let others = (0..self.ahead.len()).filter(|&at| at != newest);
            let count = self.ahead.len().min(MAX_SACKS);
            put(&[1, 1, 5, (2 + 8 * count) as u8]);
            for at in core::iter::once(newest).chain(others).take(count) {
                let (start, end) = self.ahead[at];
                put(&start.to_be_bytes());
                put(&end.to_be_bytes());
            }
        }
        at
    }

    /// Sends one segment with `len` bytes from `seq` on.
    pub(super) fn emit(&mut self, stack: &Stack, seq: u32, mut flags: u8, len: usize) {
        let mut options = [0; 40];
        let mut count = self.write_options(flags, &mut options);
        if len > 0 && len + count > self.mss as usize {
            // Data first: acknowledgements of ranges fit into segments without.
            count = 0;
        }
        let window = self.advertise(flags & SYN != 0);
        let mut urgent = 0;
        if let Some(end) = self.urgent_out {
            if before(self.una, end) {
                let ahead = end.wrapping_sub(seq);
                if ahead as i32 > 0 && flags & (SYN | RST) == 0 {
                    flags |= URG;
                    urgent = ahead.min(65535) as u16;
                }
            } else {
                self.urgent_out = None;
            }
        }
        if flags & ACK != 0 {
            self.owed = Owed::Nothing;
            self.acked = self.rcv_nxt;
        }
        self.counters.segments_out += 1;
        let total = HEADER + count + len;
        // Out of memory: as if the segment were lost on the wire.
        let Some(mut packet) = Packet::new(total) else { return };
        let bytes = packet.bytes_mut();
        let ack = if flags & ACK != 0 { self.rcv_nxt } else { 0 };
        let ports = (self.local.port(), self.remote.port());
        Header { ports, seq, ack, flags, window, urgent }.emit(bytes, &options[..count]);
        if len > 0 {
            let (a, b) = self.send.slices(seq.wrapping_sub(self.una) as usize, len);
            let data = &mut bytes[HEADER + count..];
            data[..a.len()].copy_from_slice(a);
            data[a.len()..].copy_from_slice(b);
        }
        let (src, dst) = (self.local.ip(), self.remote.ip());
        if !self.route.loopback {
            let sum = checksum::pseudo_header(&src, &dst, protocol::TCP, total);
            if self.offload {
                bytes[16..18].copy_from_slice(&checksum::fold(sum).to_le_bytes());
                packet.offload.checksum = true;
                if len > self.mss as usize {
                    packet.offload.segment = self.mss as u16;
                }
            } else {
                checksum::fill(sum, bytes, 16);
            }
        }
        let options = &self.options;
        ip::prepend(&mut packet, &src, &dst, protocol::TCP, options.ttl.max(1), options.tos);
        stack.output(packet, &self.route);
    }
}
