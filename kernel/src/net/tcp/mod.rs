//! TCP: demultiplexing in front of smoltcp.
//!
//! # Locks
//! `Listener::inner`, `Conn::inner`, table shards and the stack's own locks are never held
//! together, with one exception: a connection sends under its lock (neighbour table, device queue
//! or loopback queue come after it).

mod conn;
mod listener;
mod options;
mod table;

pub use conn::{Conn, Counters, Inner as ConnInner, LastSegment};
pub use listener::{Listener, MAX_BACKLOG};
pub use options::{MAX_BUFFER, MIN_BUFFER, TcpOptions};
pub use smoltcp::socket::tcp::State;
pub use table::{Found, Key, TIME_WAIT, Table, Tomb};

use super::addr::SocketAddr;
use super::checksum;
use super::ip::{self, Header, protocol};
use super::packet::Packet;
use super::stack::{Route, Stack};
use alloc::sync::Arc;

const HEADER: usize = 20;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// A SYN may take over addresses in TIME_WAIT; our own connect(2) only after this, in nanoseconds.
pub const REUSE_AFTER: u64 = 1_000_000_000;

/// A TCP packet has come in, by `loopback` or from the wire; `packet` starts at the IP header.
pub fn input(stack: &Arc<Stack>, packet: &Packet, header: &Header, loopback: bool) {
    let bytes = &packet.bytes()[..header.total_len];
    let segment = &bytes[header.header_len..];
    if segment.len() < HEADER {
        return;
    }
    if !packet.offload.checksum {
        let sum = checksum::pseudo_header(&header.src, &header.dst, protocol::TCP, segment.len());
        if !checksum::verify(sum, segment) {
            return;
        }
    }
    let remote = SocketAddr::new(header.src, u16::from_be_bytes([segment[0], segment[1]]));
    let local = SocketAddr::new(header.dst, u16::from_be_bytes([segment[2], segment[3]]));
    let key = Key::new(local, remote);
    let flags = segment[13];
    let found = stack.tcp.find(&key);
    if let Found::Conn(conn) = found {
        return conn.input(bytes);
    }
    let Some(route) = stack.route_back(&header.src, loopback) else { return };
    match found {
        Found::TimeWait(tomb) => {
            let seq = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
            let newer = seq.wrapping_sub(tomb.last.rcv_nxt) as i32 >= 0;
            if flags & RST != 0 {
                // Allowed to end the wait early (Linux without tcp_rfc1337), if it is exactly in
                // place.
                if seq == tomb.last.rcv_nxt {
                    stack.tcp.bury(&tomb);
                }
                return;
            }
            if flags & (SYN | ACK) != SYN || !newer {
                // An old duplicate or a FIN sent again: repeat the last acknowledgement (RFC 9293,
                // 3.10.7.4).
                let last = tomb.last;
                let ack = Reply { seq: last.snd_nxt, ack: last.rcv_nxt, flags: ACK };
                return ack.send(stack, local, remote, route, last.window);
            }
        }
        Found::Conn(_) | Found::Nothing => {}
    }
    if !stack.is_local(&header.dst) {
        return;
    }
    if flags & (SYN | ACK | RST) == SYN {
        if let Some(listener) = stack.tcp.listener(local, &key) {
            return listener.syn(local, remote, route, bytes);
        }
    }
    if flags & RST == 0 {
        reset(stack, local, remote, route, segment);
    }
}

/// Answers a segment that belongs to nothing (RFC 9293, 3.5.2).
fn reset(stack: &Stack, local: SocketAddr, remote: SocketAddr, route: Route, segment: &[u8]) {
    let word = |at: usize| {
        u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]])
    };
    let flags = segment[13];
    let reply = if flags & ACK != 0 {
        Reply { seq: word(8), ack: 0, flags: RST }
    } else {
        let header_len = usize::from(segment[12] >> 4) * 4;
        let payload = segment.len().saturating_sub(header_len) as u32;
        let occupied = payload + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        Reply { seq: 0, ack: word(4).wrapping_add(occupied), flags: RST | ACK }
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
        segment.fill(0);
        segment[0..2].copy_from_slice(&local.port().to_be_bytes());
        segment[2..4].copy_from_slice(&remote.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.seq.to_be_bytes());
        segment[8..12].copy_from_slice(&self.ack.to_be_bytes());
        segment[12] = 5 << 4;
        segment[13] = self.flags;
        segment[14..16].copy_from_slice(&window.to_be_bytes());
        let sum = checksum::pseudo_header(&local.ip(), &remote.ip(), protocol::TCP, HEADER);
        checksum::fill(sum, segment, 16);
        ip::prepend(&mut packet, &local.ip(), &remote.ip(), protocol::TCP, 64, 0);
        stack.output(packet, &route);
    }
}
