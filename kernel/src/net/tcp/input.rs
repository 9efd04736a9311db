//! What a segment does to a connection (RFC 9293, 3.10.7, with RFC 5961 against forged ones).

use super::recovery::{Phase, insert};
use super::ring::pressed;
use super::segment::{ACK, FIN, RST, SYN, Segment, URG, before, later};
use super::tcb::{ACK_DELAY, NEVER, Owed, State, Tcb, Urgent};

/// Ranges that may lie ahead of what was received in order.
const MAX_AHEAD: usize = 256;

/// How often segments that don't fit are answered, in nanoseconds.
const ANSWER_EVERY: u64 = 100_000_000;

/// What a segment means for the connection as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Fine,
    /// The peer has reset it: the state is `Closed`.
    Reset,
    /// It belongs to something else: answer with a reset, keep the connection.
    Stray,
}

impl Tcb {
    /// Takes a segment in.
    pub fn input(&mut self, segment: &Segment<'_>, now: u64) -> Verdict {
        self.counters.segments_in += 1;
        match self.state {
            State::Closed | State::Listen => return Verdict::Stray,
            State::SynSent => return self.syn_sent(segment, now),
            _ => {}
        }
        self.counters.heard_at = now;
        self.keep_probes = 0;
        if !self.in_window(segment) {
            if !segment.has(RST) && (segment.len() > 0 || now >= self.answer_from) {
                // Seldom where there is no data: two confused ends would answer each other for ever.
                self.answer_from = now + ANSWER_EVERY;
                self.owed = Owed::Now;
                // Our SYN's answer was lost on the way.
                self.syn_due |= self.state == State::SynReceived && segment.has(SYN);
            }
            return Verdict::Fine;
        }
        if segment.has(RST) {
            if segment.seq == self.rcv_nxt {
                self.state = State::Closed;
                return Verdict::Reset;
            }
            self.owed = Owed::Now;
            return Verdict::Fine;
        }
        if segment.has(SYN) {
            let answers = self.state == State::SynReceived
                && segment.has(ACK)
                && segment.ack == self.una
                && segment.len() == 1
                && segment.seq.wrapping_add(1) == self.rcv_nxt;
            if answers {
                // Both have called each other, or one itself.
                self.established(segment, now);
            } else {
                self.owed = Owed::Now;
                self.syn_due |= self.state == State::SynReceived;
            }
            return Verdict::Fine;
        }
        if !segment.has(ACK) {
            return Verdict::Fine;
        }
        if self.state == State::SynReceived {
            if segment.ack != self.una {
                return Verdict::Stray;
            }
            self.established(segment, now);
        }
        if !self.acknowledged(segment, now) {
            return Verdict::Fine;
        }
        if segment.has(URG) {
            self.called_urgent(segment);
        }
        let open = matches!(self.state, State::Established | State::FinWait1 | State::FinWait2);
        if open && segment.len() > 0 {
            self.data(segment, now);
        } else if segment.len() > 0 {
            self.owed = Owed::Now;
        }
        Verdict::Fine
    }

    /// Whether any of it lies where something is expected, or could be a repetition of what was
    /// acknowledged just now.
    fn in_window(&self, segment: &Segment<'_>) -> bool {
        let end = segment.seq.wrapping_add(segment.len());
        let edge = later(self.edge, self.rcv_nxt);
        !before(end, self.acked) && !before(edge, segment.seq)
    }

    fn syn_sent(&mut self, segment: &Segment<'_>, now: u64) -> Verdict {
        let good_ack = segment.has(ACK) && segment.ack == self.una;
        if segment.has(ACK) && !good_ack {
            return if segment.has(RST) { Verdict::Fine } else { Verdict::Stray };
        }
        if segment.has(RST) {
            if !good_ack {
                return Verdict::Fine;
            }
            self.state = State::Closed;
            return Verdict::Reset;
        }
        if !segment.has(SYN) {
            return Verdict::Fine;
        }
        self.counters.heard_at = now;
        self.offered(segment);
        if !good_ack {
            // Both ends have called each other.
            self.state = State::SynReceived;
            self.syn_due = true;
            return Verdict::Fine;
        }
        self.established(segment, now);
        self.owed = Owed::Now;
        if !segment.payload.is_empty() {
            let data = Segment { seq: self.rcv_nxt, flags: ACK, ..segment.clone() };
            self.data(&data, now);
        }
        Verdict::Fine
    }

    /// The handshake is over.
    fn established(&mut self, segment: &Segment<'_>, now: u64) {
        let waiting = self.fin;
        self.state = if waiting { State::FinWait1 } else { State::Established };
        let shift = if segment.has(SYN) { 0 } else { self.peer_scale };
        self.wnd = u32::from(segment.window) << shift;
        self.max_wnd = self.wnd;
        self.wl1 = segment.seq;
        self.wl2 = segment.ack;
        self.recovery.advance(self.una, now);
        self.rto_at = NEVER;
        self.window_mark = (self.edge, now);
    }

    /// Acts on the acknowledgement; `false`: the segment is not to be believed.
    fn acknowledged(&mut self, segment: &Segment<'_>, now: u64) -> bool {
        let ack = segment.ack;
        let oldest = self.una.wrapping_sub(self.max_wnd.max(65536));
        if before(self.nxt, ack) || before(ack, oldest) {
            if now >= self.answer_from {
                self.answer_from = now + ANSWER_EVERY;
                self.owed = Owed::Now;
            }
            return false;
        }
        let old_window = self.wnd;
        let newer = before(self.wl1, segment.seq)
            || self.wl1 == segment.seq && !before(segment.ack, self.wl2);
        if newer {
            self.wnd = u32::from(segment.window) << self.peer_scale;
            self.max_wnd = self.max_wnd.max(self.wnd);
            (self.wl1, self.wl2) = (segment.seq, segment.ack);
            if old_window == 0 && self.wnd > 0 {
                self.recovery.backoff = 0;
                if self.nxt == self.una {
                    self.rto_at = NEVER;
                }
            }
        }
        let mut news = 0;
        if self.sack {
            for &range in &segment.sacks[..segment.sack_count] {
                news += self.recovery.sack(range, self.una, self.nxt);
            }
        }
        let gained = ack.wrapping_sub(self.una);
        if before(self.una, ack) {
            self.gained(ack, gained, now);
        } else if ack == self.una && self.nxt != self.una {
            let same = segment.len() == 0 && self.wnd == old_window;
            if !self.sack && same {
                self.recovery.duplicates += 1;
                if self.recovery.duplicates == 3 && self.recovery.phase == Phase::Open {
                    self.recovery.lose_first(self.una, self.mss, self.nxt);
                    self.lose(now);
                }
            }
        }
        if news > 0 || self.recovery.reordered() && gained > 0 {
            self.look_for_loss(now);
        }
        true
    }

    /// `bytes` more are acknowledged, up to `ack`.
    fn gained(&mut self, ack: u32, bytes: u32, now: u64) {
        let data = (bytes as usize).min(self.send.len());
        self.send.consume(data);
        if self.send.is_empty() {
            self.send.rest();
        }
        self.counters.bytes_acked += data as u64;
        self.una = ack;
        // The urgent and the small mark must not fall half a number space behind.
        self.small = later(self.small, ack);
        let phase = self.recovery.phase;
        let over = self.recovery.advance(ack, now);
        match phase {
            Phase::Open => {
                if self.limited {
                    self.congestion.acked(bytes, self.recovery.srtt, now);
                    self.size_send();
                }
            }
            Phase::Fast if over => {
                self.congestion.window = self.congestion.window.min(self.congestion.threshold)
            }
            Phase::Fast => {
                if !self.sack {
                    // A partial acknowledgement: the next segment was lost as well (RFC 6582).
                    self.recovery.lose_first(ack, self.mss, self.nxt);
                    self.force = true;
                }
            }
            Phase::Loss => self.congestion.acked(bytes, self.recovery.srtt, now),
        }
        self.rewatch(now);
        if self.fin_sent && ack == self.nxt {
            self.state = match self.state {
                State::FinWait1 => State::FinWait2,
                State::Closing => State::TimeWait,
                State::LastAck => State::Closed,
                other => other,
            };
        }
    }

    fn look_for_loss(&mut self, now: u64) {
        let lost = self.recovery.judge(2 * self.mss, self.una, self.nxt);
        if lost {
            self.lose(now);
        } else if self.recovery.phase == Phase::Open && self.recovery.reordered() {
            if self.reorder_at == NEVER {
                self.reorder_at = now + self.recovery.reordering();
            }
            // The probe of the end has nothing to add.
            self.probe_at = NEVER;
        }
        if !self.recovery.reordered() {
            self.reorder_at = NEVER;
        }
    }

    fn called_urgent(&mut self, segment: &Segment<'_>) {
        // The pointer points behind the byte, as everybody reads it (RFC 6093).
        let seq = segment.seq.wrapping_add(u32::from(segment.urgent)).wrapping_sub(1);
        let read = self.rcv_nxt.wrapping_sub(self.receive.len() as u32);
        let newer = self.urgent.is_none_or(|urgent| before(urgent.seq, seq));
        if segment.urgent > 0 && newer && !before(seq, read) {
            self.urgent = Some(Urgent { seq, byte: None, taken: false });
        }
    }

    /// Takes data and FIN in.
    fn data(&mut self, segment: &Segment<'_>, now: u64) {
        let (mut seq, mut payload) = (segment.seq, segment.payload);
        let mut fin = segment.has(FIN);
        if before(seq, self.rcv_nxt) {
            let known = self.rcv_nxt.wrapping_sub(seq) as usize;
            if known >= payload.len() + usize::from(fin) && segment.len() > 0 {
                // All of it was here before: our acknowledgement was lost.
                self.owed = Owed::Now;
                return;
            }
            payload = payload.get(known..).unwrap_or_default();
            seq = self.rcv_nxt;
            self.owed = Owed::Now;
        }
        let edge = later(self.edge, self.rcv_nxt);
        let room = edge.wrapping_sub(seq) as usize;
        if payload.len() > room {
            payload = &payload[..room];
            fin = false;
            self.owed = Owed::Now;
        }
        if fin {
            self.fin_at = Some(seq.wrapping_add(payload.len() as u32));
        }
        let offset = self.receive.len() + seq.wrapping_sub(self.rcv_nxt) as usize;
        if !payload.is_empty() {
            self.counters.data_in += 1;
            self.counters.data_at = now;
            self.peer_mss = self.peer_mss.max((payload.len() as u32).min(65535));
            self.catch_urgent(seq, payload);
            if seq != self.rcv_nxt {
                self.out_of_order(offset, seq, payload);
            } else if self.receive.reserve(offset + payload.len()) {
                self.receive.put(offset, payload);
                self.in_order(payload.len() as u32, now);
            } else {
                // No memory: as if it were lost.
                return;
            }
        }
        if self.fin_at == Some(self.rcv_nxt) {
            self.fin_at = None;
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
            self.owed = Owed::Now;
            self.state = match self.state {
                State::FinWait1 => State::Closing,
                State::FinWait2 => State::TimeWait,
                _ => State::CloseWait,
            };
        } else if fin && payload.is_empty() {
            self.owed = Owed::Now;
        }
    }

    fn catch_urgent(&mut self, seq: u32, payload: &[u8]) {
        if let Some(urgent) = &mut self.urgent
            && urgent.byte.is_none()
            && let Some(byte) = payload.get(urgent.seq.wrapping_sub(seq) as usize)
        {
            urgent.byte = Some(*byte);
        }
    }

    fn out_of_order(&mut self, offset: usize, seq: u32, payload: &[u8]) {
        self.owed = Owed::Now;
        let end = seq.wrapping_add(payload.len() as u32);
        // What lies ahead is a luxury while memory is short.
        if pressed() || !self.receive.reserve(offset + payload.len()) {
            return;
        }
        if insert(&mut self.ahead, (seq, end), MAX_AHEAD) {
            self.receive.put(offset, payload);
            self.latest = seq;
        }
    }

    /// `n` bytes were added at the end of what is there.
    fn in_order(&mut self, n: u32, now: u64) {
        let before_it = self.rcv_nxt;
        self.rcv_nxt = self.rcv_nxt.wrapping_add(n);
        if !self.ahead.is_empty() {
            // A hole is filled, or part of one.
            self.owed = Owed::Now;
            while let Some(&(start, end)) = self.ahead.first()
                && !before(self.rcv_nxt, start)
            {
                self.rcv_nxt = later(self.rcv_nxt, end);
                self.ahead.remove(0);
            }
        }
        let added = self.rcv_nxt.wrapping_sub(before_it);
        self.receive.extend(added as usize);
        self.counters.bytes_received += u64::from(added);
        if !before(self.rcv_nxt, self.window_mark.0) {
            // One window has come since the mark was set: no round trip is longer.
            let took = now.saturating_sub(self.window_mark.1).max(1);
            self.receive_rtt = match self.receive_rtt {
                0 => took,
                rtt if took < rtt => took,
                rtt => rtt + (took - rtt) / 8,
            };
            self.window_mark = (later(self.edge, self.rcv_nxt), now);
        }
        let pending = self.rcv_nxt.wrapping_sub(self.acked);
        if self.quick > 0 {
            self.quick -= 1;
            self.owed = Owed::Now;
        }
        match self.owed {
            Owed::Now => {}
            _ if pending >= 2 * self.peer_mss => self.owed = Owed::Now,
            Owed::By(_) => {}
            Owed::Nothing => self.owed = Owed::By(now + ACK_DELAY),
        }
    }

    /// A segment for a connection whose program has left: nobody will read its data.
    pub fn unread(&self, segment: &Segment<'_>) -> bool {
        let end = segment.seq.wrapping_add(segment.payload.len() as u32);
        let open = matches!(self.state, State::FinWait1 | State::FinWait2);
        open && !segment.payload.is_empty() && before(self.rcv_nxt, end) && !segment.has(SYN | RST)
    }
}
