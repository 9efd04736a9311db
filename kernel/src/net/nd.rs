//! ICMPv6 (RFC 4443), neighbour discovery and address autoconfiguration (RFC 4861, RFC 4862).

use super::addr::{Cidr, IpAddr, Ipv6Addr};
use super::checksum;
use super::edge;
use super::ip::{self, Header, protocol};
use super::packet::Packet;
use super::report::{Teller, Trouble, report};
use super::stack::{Route, Stack, Timeout};
use super::{dhcp6, groups};
use crate::errno::Errno;
use alloc::sync::Arc;
use alloc::vec::Vec;

const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const MLD_QUERY: u8 = 130;
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
    /// Until when the default router may be used.
    router_until: u64,
    /// Addresses made of a router's prefixes, and until when they are valid.
    lent: Vec<(Ipv6Addr, u64)>,
    /// Addresses that somebody else may have as well, and until when an objection counts.
    tentative: Vec<(Ipv6Addr, u64)>,
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
    let mut own = Vec::new();
    stack.configure(|config| {
        config.addresses.push(cidr);
        own.extend(config.addresses.iter().filter_map(|cidr| match cidr.addr {
            IpAddr::V6(addr) => Some(addr),
            IpAddr::V4(_) => None,
        }));
    });
    for addr in own {
        probe(stack, addr);
    }
    expired(stack);
}

/// Asks whether somebody has our new address. It is used meanwhile (RFC 4429): hardware addresses
/// are seldom twice on a link, and waiting would delay every start by a second.
fn probe(stack: &Arc<Stack>, addr: Ipv6Addr) {
    let group = groups::solicited_node(&addr);
    groups::changed(stack, group.into(), true);
    stack.routers.lock().tentative.push((addr, stack.now() + 2 * SECOND));
    let mut body = [0; 24];
    body[0] = SOLICITATION;
    body[8..24].copy_from_slice(&addr.octets());
    send_from(stack, &body, Ipv6Addr::UNSPECIFIED.into(), group);
}

/// Somebody else says that it has `addr`: ours goes, if it was new.
fn contested(stack: &Stack, addr: Ipv6Addr) {
    let now = stack.now();
    let mut routers = stack.routers.lock();
    let Some(at) = routers.tentative.iter().position(|(own, until)| *own == addr && *until > now)
    else {
        return;
    };
    routers.tentative.remove(at);
    drop(routers);
    crate::error!("network: somebody else has the address {addr}; it is not used");
    stack.configure(|config| config.addresses.retain(|cidr| cidr.addr != addr));
}

/// Asks for routers, three times at most; drops what routers gave and its time is over.
pub fn expired(stack: &Arc<Stack>) {
    let now = stack.now();
    let mut routers = stack.routers.lock();
    let ask = !routers.found && routers.solicitations < 3;
    routers.solicitations += u8::from(ask);
    routers.tentative.retain(|(_, until)| *until > now);
    let gone: Vec<_> =
        routers.lent.iter().filter(|lent| lent.1 <= now).map(|lent| lent.0).collect();
    routers.lent.retain(|(_, until)| *until > now);
    let lost = routers.found && routers.router_until <= now;
    let next = routers.lent.iter().map(|(_, until)| *until).min().unwrap_or(u64::MAX);
    let next = if routers.found && !lost { next.min(routers.router_until) } else { next };
    drop(routers);
    if lost || !gone.is_empty() {
        stack.configure(|config| {
            config.gateway6 = config.gateway6.filter(|_| !lost);
            config.addresses.retain(|cidr| !gone.iter().any(|addr| cidr.addr == *addr));
        });
    }
    if ask {
        let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let mut body = [0; 16];
        body[0] = ROUTER_SOLICITATION;
        body[8..].copy_from_slice(&link_option(stack, SOURCE_LINK));
        send(stack, &body, all_routers);
    }
    let next = if ask { next.min(now + 4 * SECOND) } else { next };
    if next != u64::MAX {
        stack.set_timeout(next.max(now + SECOND), Timeout::Routers);
    }
}

fn link_option(stack: &Stack, kind: u8) -> [u8; 8] {
    let mac = stack.device().map(|device| device.mac()).unwrap_or_default();
    let mut option = [kind, 1, 0, 0, 0, 0, 0, 0];
    option[2..].copy_from_slice(&mac);
    option
}

/// Sends a neighbour discovery message from our link-local address.
fn send(stack: &Stack, body: &[u8], dst: Ipv6Addr) {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into();
    let Some(src) = stack.source(&link_local) else { return };
    send_from(stack, body, src, dst);
}

fn send_from(stack: &Stack, body: &[u8], src: IpAddr, dst: Ipv6Addr) {
    let dst = IpAddr::from(dst);
    let Some(route) = stack.route(&dst) else { return };
    let Some(mut packet) = Packet::from_slice(body) else { return };
    let sum = checksum::pseudo_header(&src, &dst, protocol::ICMPV6, body.len());
    checksum::fill(sum, packet.bytes_mut(), 2);
    ip::prepend(&mut packet, &src, &dst, protocol::ICMPV6, 255, 0);
    stack.output(packet, &route);
}

/// Asks for the hardware address of `target`.
pub fn solicit(stack: &Stack, _src: Ipv6Addr, target: Ipv6Addr) {
    let mut body = [0; 32];
    body[0] = SOLICITATION;
    body[8..24].copy_from_slice(&target.octets());
    body[24..].copy_from_slice(&link_option(stack, SOURCE_LINK));
    send(stack, &body, groups::solicited_node(&target));
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
    let teller = Teller { addr: Some(header.src), icmp: [bytes[0], bytes[1]] };
    match bytes[0] {
        ECHO if bytes.len() <= MAX_ECHO && stack.is_local(&header.dst) => {
            let Some(route) = stack.route_back(&header.src, loopback) else { return };
            let Some(mut reply) = Packet::from_slice(bytes) else { return };
            reply.bytes_mut()[0] = ECHO_REPLY;
            checksum::fill(sum, reply.bytes_mut(), 2);
            ip::prepend(&mut reply, &header.dst, &header.src, protocol::ICMPV6, 64, 0);
            // It may leave in pieces, so nothing can go wrong.
            let _ = stack.output_datagram(reply, &route, &header.src, false);
        }
        UNREACHABLE => {
            let trouble = match bytes[1] {
                0 => Trouble::Astray(Errno::ENETUNREACH),
                1 | 5 | 6 => Trouble::Lost(Errno::EACCES),
                4 => Trouble::Lost(Errno::ECONNREFUSED),
                _ => Trouble::Astray(Errno::EHOSTUNREACH),
            };
            report(stack, teller, &bytes[8..], trouble);
        }
        TIME_EXCEEDED => {
            report(stack, teller, &bytes[8..], Trouble::Astray(Errno::EHOSTUNREACH));
        }
        TOO_BIG => {
            let mtu = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            report(stack, teller, &bytes[8..], Trouble::TooBig(mtu as usize));
        }
        MLD_QUERY if !loopback => groups::queried(stack, true),
        SOLICITATION if on_link => solicited(stack, bytes, header),
        ADVERTISEMENT if on_link => {
            let Some(target) = address(bytes, 8) else { return };
            contested(stack, target);
            if let Some(mac) = option(bytes, 24, TARGET_LINK) {
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
    if probe {
        // Two probe for the same address: neither may have it (RFC 4862, 5.4.3).
        contested(stack, target);
        if !stack.is_local(&target.into()) {
            return;
        }
    }
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
    if let Some(mac) = option(bytes, 16, SOURCE_LINK) {
        edge::learn(stack, header.src, mac, true);
    }
    let config = stack.config();
    if config.fixed6 {
        return;
    }
    let now = stack.now();
    let until = |seconds: u64| now.saturating_add(seconds * SECOND);
    let lifetime = u16::from_be_bytes([bytes[6], bytes[7]]);
    let mac = stack.device().map(|device| device.mac()).unwrap_or_default();
    let mut fresh = Vec::new();
    let mut routers = stack.routers.lock();
    routers.found = true;
    if lifetime > 0 {
        routers.router_until = until(lifetime.into());
    }
    for (kind, option) in options(bytes, 16) {
        // Autonomous, 64 bits.
        if kind != PREFIX || option.len() != 32 || option[2] != 64 || option[3] & 0x40 == 0 {
            continue;
        }
        let Some(prefix) = address(option, 16) else { continue };
        if prefix.is_unicast_link_local() || prefix.is_multicast() {
            continue;
        }
        let valid = u32::from_be_bytes([option[4], option[5], option[6], option[7]]);
        let addr = edge::eui64(&prefix, mac);
        if let Some(lent) = routers.lent.iter_mut().find(|lent| lent.0 == addr) {
            // RFC 4862, 5.5.3: nobody can take an address away in less than two hours.
            let remaining = lent.1.saturating_sub(now) / SECOND;
            let floor = remaining.min(7200);
            lent.1 = until(u64::from(valid).max(floor));
        } else if valid > 0 && routers.lent.len() < MAX_ADDRESSES {
            routers.lent.push((addr, until(valid.into())));
            fresh.push(addr);
        }
    }
    drop(routers);
    stack.configure(|config| {
        if lifetime > 0 {
            config.gateway6 = Some(router);
        } else if config.gateway6 == Some(router) {
            config.gateway6 = None;
        }
        for addr in &fresh {
            config.addresses.push(Cidr { addr: (*addr).into(), prefix: 64 });
        }
        for (_, option) in options(bytes, 16).filter(|(kind, _)| *kind == RDNSS) {
            for at in (8..option.len()).step_by(16) {
                let Some(server) = address(option, at) else { break };
                config.add_dns(server.into());
            }
        }
    });
    for addr in fresh {
        probe(stack, addr);
    }
    // Other configuration, or managed addresses (which we have no client for).
    if bytes[5] & 0xc0 != 0 {
        dhcp6::start(stack);
    }
    expired(stack);
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
