//! ICMPv6 (RFC 4443), neighbour discovery and address autoconfiguration (RFC 4861, RFC 4862).

use super::addr::{Cidr, IpAddr, Ipv6Addr, SocketAddr};
use super::checksum;
use super::edge;
use super::ip::{self, Header, protocol};
use super::packet::Packet;
use super::stack::{Route, Stack, Timeout};
use crate::errno::Errno;
use alloc::sync::Arc;

const UNREACHABLE: u8 = 1;
const ECHO: u8 = 128;
const ECHO_REPLY: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
const PREFIX: u8 = 3;
const RDNSS: u8 = 25;
const SECOND: u64 = 1_000_000_000;
/// Largest echo we answer.
const MAX_ECHO: usize = 16 * 1024;
/// Addresses that router advertisements may give us.
const MAX_ADDRESSES: usize = 8;

/// State of router discovery.
#[derive(Default)]
pub struct Routers {
    solicitations: u8,
    found: bool,
}

impl Routers {
    /// Nothing known.
    pub fn new() -> Routers {
        Routers::default()
    }
}

/// Gives eth0 its link-local address and asks for routers.
pub fn start(stack: &Arc<Stack>) {
    let Some(device) = stack.device() else { return };
    let addr = edge::eui64(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), device.mac());
    let cidr = Cidr { addr: addr.into(), prefix: 64 };
    stack.configure(|config| config.addresses.push(cidr));
    expired(stack);
}

/// Asks for routers, three times at most.
pub fn expired(stack: &Arc<Stack>) {
    let mut routers = stack.routers.lock();
    if routers.found || routers.solicitations >= 3 {
        return;
    }
    routers.solicitations += 1;
    drop(routers);
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let mut body = [0; 16];
    body[0] = ROUTER_SOLICITATION;
    body[8..].copy_from_slice(&link_option(stack, SOURCE_LINK));
    send(stack, &body, all_routers);
    stack.set_timeout(stack.now() + 4 * SECOND, Timeout::Routers);
}

fn link_option(stack: &Stack, kind: u8) -> [u8; 8] {
    let mac = stack.device().map(|device| device.mac()).unwrap_or_default();
    let mut option = [kind, 1, 0, 0, 0, 0, 0, 0];
    option[2..].copy_from_slice(&mac);
    option
}

/// Sends a neighbour discovery message from our link-local address.
fn send(stack: &Stack, body: &[u8], dst: Ipv6Addr) {
    let dst = IpAddr::from(dst);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into();
    let Some(src) = stack.source(&link_local) else { return };
    let Some(route) = stack.route(&dst) else { return };
    let Some(mut packet) = Packet::from_slice(body) else { return };
    let sum = checksum::pseudo_header(&src, &dst, protocol::ICMPV6, body.len());
    checksum::fill(sum, packet.bytes_mut(), 2);
    ip::prepend(&mut packet, &src, &dst, protocol::ICMPV6, 255, 0);
    stack.output(packet, &route);
}

/// Asks for the hardware address of `target`.
pub fn solicit(stack: &Stack, _src: Ipv6Addr, target: Ipv6Addr) {
    let octets = target.octets();
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&octets[13..]);
    let mut body = [0; 32];
    body[0] = SOLICITATION;
    body[8..24].copy_from_slice(&octets);
    body[24..].copy_from_slice(&link_option(stack, SOURCE_LINK));
    send(stack, &body, group.into());
}

/// An ICMPv6 packet has come in.
pub fn input(stack: &Arc<Stack>, packet: &Packet, header: &Header, loopback: bool) {
    let bytes = &packet.bytes()[header.header_len..header.total_len];
    let sum = checksum::pseudo_header(&header.src, &header.dst, protocol::ICMPV6, bytes.len());
    if bytes.len() < 8 || !checksum::verify(sum, bytes) {
        return;
    }
    // Neighbour discovery never crosses a router: RFC 4861, 7.1.
    let on_link = header.ttl == 255 && !loopback && bytes[1] == 0;
    match bytes[0] {
        ECHO if bytes.len() <= MAX_ECHO && stack.is_local(&header.dst) => {
            let Some(route) = stack.route_back(&header.src, loopback) else { return };
            let Some(mut reply) = Packet::from_slice(bytes) else { return };
            reply.bytes_mut()[0] = ECHO_REPLY;
            checksum::fill(sum, reply.bytes_mut(), 2);
            ip::prepend(&mut reply, &header.dst, &header.src, protocol::ICMPV6, 64, 0);
            stack.output(reply, &route);
        }
        UNREACHABLE => reported(stack, &bytes[8..], bytes[1]),
        SOLICITATION if on_link => solicited(stack, bytes, header),
        ADVERTISEMENT if on_link => {
            if let (Some(target), Some(mac)) = (address(bytes, 8), option(bytes, 24, TARGET_LINK)) {
                edge::learn(stack, target.into(), mac, false);
            }
        }
        ROUTER_ADVERTISEMENT if on_link => advertised(stack, bytes, header),
        _ => {}
    }
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

/// Walks the options from `at` on: (kind, whole option).
fn options(bytes: &[u8], at: usize) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes.get(at..).unwrap_or_default();
    core::iter::from_fn(move || {
        let [kind, len, ..] = *rest else { return None };
        let len = usize::from(len) * 8;
        // A zero length would never end.
        let (option, tail) = rest.split_at_checked(len).filter(|_| len > 0)?;
        rest = tail;
        Some((kind, option))
    })
}

/// A link-layer address option.
fn option(bytes: &[u8], at: usize, wanted: u8) -> Option<[u8; 6]> {
    let (_, option) = options(bytes, at).find(|(kind, _)| *kind == wanted)?;
    option.get(2..8)?.try_into().ok()
}

fn solicited(stack: &Arc<Stack>, bytes: &[u8], header: &Header) {
    let Some(target) = address(bytes, 8) else { return };
    if !stack.is_local(&target.into()) {
        return;
    }
    let IpAddr::V6(sender) = header.src else { return };
    let probe = sender.is_unspecified();
    if let (false, Some(mac)) = (probe, option(bytes, 24, SOURCE_LINK)) {
        edge::learn(stack, header.src, mac, true);
    }
    let mut body = [0; 32];
    body[0] = ADVERTISEMENT;
    // Solicited (unless it was an address probe) and overriding.
    body[4] = if probe { 0x20 } else { 0x60 };
    body[8..24].copy_from_slice(&target.octets());
    body[24..].copy_from_slice(&link_option(stack, TARGET_LINK));
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    send(stack, &body, if probe { all_nodes } else { sender });
}

fn advertised(stack: &Arc<Stack>, bytes: &[u8], header: &Header) {
    let IpAddr::V6(router) = header.src else { return };
    if bytes.len() < 16 || !router.is_unicast_link_local() {
        return;
    }
    stack.routers.lock().found = true;
    if let Some(mac) = option(bytes, 16, SOURCE_LINK) {
        edge::learn(stack, header.src, mac, true);
    }
    let lifetime = u16::from_be_bytes([bytes[6], bytes[7]]);
    let mac = stack.device().map(|device| device.mac()).unwrap_or_default();
    stack.configure(|config| {
        if lifetime > 0 {
            config.gateway6 = Some(router);
        } else if config.gateway6 == Some(router) {
            config.gateway6 = None;
        }
        for (kind, option) in options(bytes, 16) {
            match kind {
                PREFIX if option.len() == 32 => {
                    // Autonomous, 64 bits, valid.
                    let valid = option[4..8] != [0; 4];
                    if option[2] != 64 || option[3] & 0x40 == 0 || !valid {
                        continue;
                    }
                    let Some(prefix) = address(option, 16) else { continue };
                    if prefix.is_unicast_link_local() || prefix.is_multicast() {
                        continue;
                    }
                    let addr = IpAddr::from(edge::eui64(&prefix, mac));
                    let known = config.addresses.iter().any(|cidr| cidr.addr == addr);
                    if !known && config.addresses.len() < MAX_ADDRESSES {
                        config.addresses.push(Cidr { addr, prefix: 64 });
                    }
                }
                RDNSS => {
                    for at in (8..option.len()).step_by(16) {
                        let Some(server) = address(option, at).map(IpAddr::from) else { break };
                        if !config.dns.contains(&server) && config.dns.len() < 3 {
                            config.dns.push(server);
                        }
                    }
                }
                _ => {}
            }
        }
    });
}

/// Passes an error to the UDP socket that sent the packet quoted in it.
fn reported(stack: &Stack, quoted: &[u8], code: u8) {
    let (Some(src), Some(dst)) = (address(quoted, 8), address(quoted, 24)) else { return };
    let Some([s0, s1, d0, d1, ..]) = quoted.get(ip::V6_HEADER..) else { return };
    if quoted[6] != protocol::UDP {
        return;
    }
    let error = match code {
        0 => Errno::ENETUNREACH,
        4 => Errno::ECONNREFUSED,
        _ => Errno::EHOSTUNREACH,
    };
    let local = SocketAddr::new(src.into(), u16::from_be_bytes([*s0, *s1]));
    let remote = SocketAddr::new(dst.into(), u16::from_be_bytes([*d0, *d1]));
    stack.udp.error(&local, &remote, error);
}

/// Tells the sender of `packet` that nobody listens on that port.
pub fn unreachable(stack: &Stack, packet: &Packet, header: &Header, route: &Route) {
    let quoted = &packet.bytes()[..header.total_len.min(1200)];
    let Some(mut reply) = Packet::new(8 + quoted.len()) else { return };
    let bytes = reply.bytes_mut();
    bytes[..8].copy_from_slice(&[UNREACHABLE, 4, 0, 0, 0, 0, 0, 0]);
    bytes[8..].copy_from_slice(quoted);
    let sum = checksum::pseudo_header(&header.dst, &header.src, protocol::ICMPV6, bytes.len());
    checksum::fill(sum, bytes, 2);
    ip::prepend(&mut reply, &header.dst, &header.src, protocol::ICMPV6, 64, 0);
    stack.output(reply, route);
}
