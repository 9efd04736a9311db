//! TCP (RFC 9293).
//!
//! ```text
//! socket/tcp.rs      calls
//! conn  listener     readiness, deadlines; accept queues
//! table  cookie      who a segment is for
//! tcb  input output  the protocol, without locks and wake-ups
//! recovery  congestion   what to send again, and how much at once
//! segment  ring      bytes on the wire and in buffers
//! ```
//!
//! # Locks
//! `Listener::inner`, `Conn::inner`, table shards and the stack's own locks are never held
//! together, with one exception: a connection sends under its lock (neighbour table, device queue
//! or loopback queue come after it).

mod congestion;
mod conn;
mod cookie;
mod info;
mod input;
mod listener;
mod options;
mod output;
mod recovery;
mod ring;
mod segment;
mod table;
mod tcb;
#[cfg(test)]
mod tests;

pub use congestion::Algorithm;
pub use conn::{Conn, Inner as ConnInner};
pub use listener::Listener;
pub use options::{MAX_BUFFER, MIN_BUFFER, TcpOptions};
pub use table::{Found, Key, TIME_WAIT, Table, Tomb};
pub use tcb::{LastSegment, State};

use super::addr::SocketAddr;
use super::checksum;
use super::ip::{self, Header, protocol};
use super::packet::Packet;
use super::stack::{Route, Stack};
use crate::bpf::View;
use alloc::sync::Arc;
use segment::{ACK, HEADER, RST, SYN, Segment, before};

/// A SYN may take over addresses in TIME_WAIT; our own connect(2) only after this, in nanoseconds.
pub const REUSE_AFTER: u64 = 1_000_000_000;

/// A TCP packet has come in, by `loopback` or from the wire; `packet` starts at the IP header.
pub fn input(stack: &Arc<Stack>, packet: &Packet, header: &Header, loopback: bool) {
    let bytes = &packet.bytes()[header.header_len..header.total_len];
    if !packet.offload.checksum {
        let sum = checksum::pseudo_header(&header.src, &header.dst, protocol::TCP, bytes.len());
        if !checksum::verify(sum, bytes) {
            return;
        }
    }
    let Some(mut segment) = Segment::parse(bytes) else { return };
    let view = View::ip(&packet.bytes()[..header.total_len], header.header_len);
    let remote = SocketAddr::new(header.src, u16::from_be_bytes([bytes[0], bytes[1]]));
    let local = SocketAddr::new(header.dst, u16::from_be_bytes([bytes[2], bytes[3]]));
    let key = Key::new(local, remote);
    let found = stack.tcp.find(&key);
    if let Found::Conn(conn) = &found
        && !(segment.keep(conn.filter.wanted(view), bytes) && conn.input(&segment))
    {
        return;
    }
    let Some(route) = stack.route_back(&header.src, loopback) else { return };
    if let Found::TimeWait(tomb) = found {
        let newer = !before(segment.seq, tomb.last.rcv_nxt);
        if segment.has(RST) {
            // Allowed to end the wait early (Linux without tcp_rfc1337), if it is exactly in
            // place.
            if segment.seq == tomb.last.rcv_nxt {
                stack.tcp.bury(&tomb);
            }
            return;
        }
        if segment.flags & (SYN | ACK) != SYN || !newer {
            // An old duplicate or a FIN sent again: repeat the last acknowledgement (RFC 9293,
            // 3.10.7.4). Bare acknowledgements get no answer: two tombs would talk for ever.
            if segment.len() == 0 {
                return;
            }
            let last = tomb.last;
            let ack = Reply { seq: last.snd_nxt, ack: last.rcv_nxt, flags: ACK };
            return ack.send(stack, local, remote, route, last.window);
        }
    } else if let Found::Conn(_) = found {
        return reset(stack, local, remote, route, &segment);
    }
    if !stack.is_local(&header.dst) {
        return;
    }
    let kind = segment.flags & (SYN | ACK | RST);
    if matches!(kind, SYN | ACK)
        && let Some(listener) = stack.tcp.listener(local, &key, segment.payload)
    {
        if !segment.keep(listener.filter.wanted(view), bytes) {
            return;
        }
        if kind == SYN {
            return listener.syn(local, remote, route, &segment);
        }
        if listener.cookie(local, remote, route, &segment) {
            return;
        }
    }
    reset(stack, local, remote, route, &segment);
}

/// Answers a segment that belongs to nothing (RFC 9293, 3.5.2).
fn reset(
    stack: &Stack,
    local: SocketAddr,
    remote: SocketAddr,
    route: Route,
    segment: &Segment<'_>,
) {
    if segment.has(RST) {
        return;
    }
    let reply = if segment.has(ACK) {
        Reply { seq: segment.ack, ack: 0, flags: RST }
    } else {
        Reply { seq: 0, ack: segment.seq.wrapping_add(segment.len()), flags: RST | ACK }
    };
    reply.send(stack, local, remote, route, 0);
}

/// A bare segment outside any connection.
struct Reply {
    seq: u32,
    ack: u32,
    flags: u8,
}

impl Reply {
    fn send(self, stack: &Stack, local: SocketAddr, remote: SocketAddr, route: Route, window: u16) {
        let Some(mut packet) = Packet::new(ip::V6_HEADER + HEADER) else { return };
        packet.trim_front(ip::V6_HEADER);
        let segment = packet.bytes_mut();
        let (ports, urgent) = ((local.port(), remote.port()), 0);
        let Reply { seq, ack, flags } = self;
        segment::Header { ports, seq, ack, flags, window, urgent }.emit(segment, &[]);
        let sum = checksum::pseudo_header(&local.ip(), &remote.ip(), protocol::TCP, HEADER);
        checksum::fill(sum, segment, 16);
        ip::prepend(&mut packet, &local.ip(), &remote.ip(), protocol::TCP, 64, 0);
        stack.output(packet, &route);
    }
}
