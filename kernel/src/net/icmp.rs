//! ICMP for IPv4 (RFC 792): echo replies, unreachable ports.

use super::checksum;
use super::ip::{self, Header, protocol};
use super::packet::Packet;
use super::report::{Teller, Trouble, report};
use super::settings;
use super::stack::Stack;
use crate::errno::Errno;
use alloc::sync::Arc;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
/// Payload of the largest echo we answer.
const MAX_ECHO: usize = 16 * 1024;

/// An ICMP packet has come in.
pub fn input(stack: &Arc<Stack>, packet: &Packet, header: &Header, loopback: bool) {
    let bytes = &packet.bytes()[header.header_len..header.total_len];
    if bytes.len() < 8 || !checksum::verify(0, bytes) {
        return;
    }
    let teller = Teller { addr: Some(header.src), icmp: [bytes[0], bytes[1]] };
    match bytes[0] {
        ECHO if settings::SILENT.get() != 0 => {}
        ECHO if bytes.len() <= MAX_ECHO && stack.is_local(&header.dst) => {
            let Some(route) = stack.route_back(&header.src, loopback) else { return };
            let Some(mut reply) = Packet::from_slice(bytes) else { return };
            reply.bytes_mut()[0] = ECHO_REPLY;
            checksum::fill(0, reply.bytes_mut(), 2);
            ip::prepend(&mut reply, &header.dst, &header.src, protocol::ICMP, 64, 0);
            // It may leave in pieces, so nothing can go wrong.
            let _ = stack.output_datagram(reply, &route, &header.src, false);
        }
        UNREACHABLE => {
            let trouble = match bytes[1] {
                0 | 11 => Trouble::Astray(Errno::ENETUNREACH),
                2 => Trouble::Lost(Errno::ENOPROTOOPT),
                3 => Trouble::Lost(Errno::ECONNREFUSED),
                // Routers from before RFC 1191 say no size.
                4 => match u16::from_be_bytes([bytes[6], bytes[7]]) {
                    0 => Trouble::TooBig(576),
                    mtu => Trouble::TooBig(mtu.into()),
                },
                6 | 9 => Trouble::Lost(Errno::ENETUNREACH),
                7 => Trouble::Lost(Errno::EHOSTDOWN),
                10 | 13 | 14 | 15 => Trouble::Lost(Errno::EHOSTUNREACH),
                _ => Trouble::Astray(Errno::EHOSTUNREACH),
            };
            report(stack, teller, &bytes[8..], trouble);
        }
        TIME_EXCEEDED => {
            report(stack, teller, &bytes[8..], Trouble::Astray(Errno::EHOSTUNREACH));
        }
        _ => {}
    }
}

/// Tells the sender of `packet` that nobody listens on that port.
pub fn unreachable(stack: &Arc<Stack>, packet: &Packet, header: &Header, loopback: bool) {
    let Some(route) = stack.route_back(&header.src, loopback) else { return };
    if header.src.is_ipv6() {
        return super::nd::unreachable(stack, packet, header, &route);
    }
    // As much as fits into 576 bytes (RFC 1812, 4.3.2.3).
    let quoted = &packet.bytes()[..header.total_len.min(548)];
    let Some(mut reply) = Packet::new(8 + quoted.len()) else { return };
    let bytes = reply.bytes_mut();
    bytes[..8].copy_from_slice(&[UNREACHABLE, 3, 0, 0, 0, 0, 0, 0]);
    bytes[8..].copy_from_slice(quoted);
    checksum::fill(0, bytes, 2);
    ip::prepend(&mut reply, &header.dst, &header.src, protocol::ICMP, 64, 0);
    stack.output(reply, &route);
}
