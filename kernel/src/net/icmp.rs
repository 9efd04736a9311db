//! ICMP for IPv4 (RFC 792): echo replies, unreachable ports.

use super::addr::{IpAddr, SocketAddr};
use super::checksum;
use super::ip::{self, Header, protocol};
use super::packet::Packet;
use super::stack::Stack;
use crate::errno::Errno;
use alloc::sync::Arc;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
/// Payload of the largest echo we answer.
const MAX_ECHO: usize = 16 * 1024;

/// An ICMP packet has come in.
pub fn input(stack: &Arc<Stack>, packet: &Packet, header: &Header, loopback: bool) {
    let bytes = &packet.bytes()[header.header_len..header.total_len];
    if bytes.len() < 8 || !checksum::verify(0, bytes) {
        return;
    }
    match bytes[0] {
        ECHO if bytes.len() <= MAX_ECHO && stack.is_local(&header.dst) => {
            let Some(route) = stack.route_back(&header.src, loopback) else { return };
            let Some(mut reply) = Packet::from_slice(bytes) else { return };
            reply.bytes_mut()[0] = ECHO_REPLY;
            checksum::fill(0, reply.bytes_mut(), 2);
            ip::prepend(&mut reply, &header.dst, &header.src, protocol::ICMP, 64, 0);
            stack.output(reply, &route);
        }
        UNREACHABLE => {
            let error = match bytes[1] {
                0 => Errno::ENETUNREACH,
                1 => Errno::EHOSTUNREACH,
                2 => Errno::ENOPROTOOPT,
                3 => Errno::ECONNREFUSED,
                _ => Errno::EHOSTUNREACH,
            };
            reported(stack, &bytes[8..], error);
        }
        _ => {}
    }
}

/// Passes an error to the socket that sent the packet quoted in it (its IP header and the first
/// eight bytes).
fn reported(stack: &Stack, quoted: &[u8], error: Errno) {
    let Some(head) = quoted.first_chunk::<20>() else { return };
    let header_len = usize::from(head[0] & 15) * 4;
    let Some([s0, s1, d0, d1, ..]) = quoted.get(header_len..) else { return };
    if head[9] != protocol::UDP {
        return;
    }
    let addr = |at: usize| IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let local = SocketAddr::new(addr(12), u16::from_be_bytes([*s0, *s1]));
    let remote = SocketAddr::new(addr(16), u16::from_be_bytes([*d0, *d1]));
    stack.udp.error(&local, &remote, error);
}

/// Tells the sender of `packet` that nobody listens on that port.
pub fn unreachable(stack: &Arc<Stack>, packet: &Packet, header: &Header, loopback: bool) {
    let Some(route) = stack.route_back(&header.src, loopback) else { return };
    if header.src.is_ipv6() {
        return super::nd::unreachable(stack, packet, header, &route);
    }
    let quoted = &packet.bytes()[..header.total_len.min(header.header_len + 8)];
    let Some(mut reply) = Packet::new(8 + quoted.len()) else { return };
    let bytes = reply.bytes_mut();
    bytes[..8].copy_from_slice(&[UNREACHABLE, 3, 0, 0, 0, 0, 0, 0]);
    bytes[8..].copy_from_slice(quoted);
    checksum::fill(0, bytes, 2);
    ip::prepend(&mut reply, &header.dst, &header.src, protocol::ICMP, 64, 0);
    stack.output(reply, &route);
}
