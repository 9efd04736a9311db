//! Multicast groups: which we are in, and telling routers and switches so (IGMPv3, RFC 3376;
//! MLDv2, RFC 3810).

use super::addr::{IpAddr, Ipv4Addr, Ipv6Addr};
use super::checksum;
use super::edge;
use super::ip::{self, Header, protocol};
use super::packet::Packet;
use super::stack::Stack;
use alloc::vec::Vec;

/// IP protocol number of IGMP.
pub const IGMP: u8 = 2;
const IGMP_QUERY: u8 = 0x11;
const IGMP_REPORT: u8 = 0x22;
const MLD_REPORT: u8 = 143;

/// Record types of both protocols: present state, and changes of it.
const IS_IN: u8 = 2;
const JOINED: u8 = 4;
const LEFT: u8 = 3;

/// The group in which an IPv6 address is asked for.
pub fn solicited_node(addr: &Ipv6Addr) -> Ipv6Addr {
    let octets = addr.octets();
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&octets[13..]);
    group.into()
}

/// Tells that a group was joined or left.
pub fn changed(stack: &Stack, group: IpAddr, joined: bool) {
    report(stack, group.is_ipv6(), &[(if joined { JOINED } else { LEFT }, group)]);
}

/// Answers a router that asks who is in which group.
pub fn queried(stack: &Stack, v6: bool) {
    let config = stack.config();
    let mut groups: Vec<IpAddr> =
        config.groups.iter().filter(|group| group.is_ipv6() == v6).copied().collect();
    if v6 {
        groups.extend(config.addresses.iter().filter_map(|cidr| match cidr.addr {
            IpAddr::V6(addr) => Some(IpAddr::from(solicited_node(&addr))),
            IpAddr::V4(_) => None,
        }));
    }
    groups.sort_unstable();
    groups.dedup();
    // As many as fit one packet.
    groups.truncate(64);
    let records: Vec<_> = groups.into_iter().map(|group| (IS_IN, group)).collect();
    report(stack, v6, &records);
}

/// An IGMP packet has come in.
pub fn input(stack: &Stack, packet: &Packet, header: &Header, loopback: bool) {
    let bytes = &packet.bytes()[header.header_len..header.total_len];
    if !loopback && bytes.len() >= 8 && checksum::verify(0, bytes) && bytes[0] == IGMP_QUERY {
        queried(stack, false);
    }
}

fn report(stack: &Stack, v6: bool, records: &[(u8, IpAddr)]) {
    if records.is_empty() || stack.device().is_none() {
        return;
    }
    let mut body = alloc::vec![0u8; 8];
    body[0] = if v6 { MLD_REPORT } else { IGMP_REPORT };
    body[7] = records.len() as u8;
    for (kind, group) in records {
        body.extend([*kind, 0, 0, 0]);
        match group {
            IpAddr::V4(group) => body.extend(group.octets()),
            IpAddr::V6(group) => body.extend(group.octets()),
        }
    }
    let (src, dst, mac) = if v6 {
        let link_local = IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
        let src = stack.source(&link_local).unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        let dst = IpAddr::from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16));
        let sum = checksum::pseudo_header(&src, &dst, protocol::ICMPV6, body.len());
        checksum::fill(sum, &mut body, 2);
        (src, dst, edge::group_mac(&dst))
    } else {
        let dst = IpAddr::from(Ipv4Addr::new(224, 0, 0, 22));
        let src = stack.source(&dst).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        checksum::fill(0, &mut body, 2);
        (src, dst, edge::group_mac(&dst))
    };
    let Some((mut packet, mac)) = Packet::from_slice(&body).zip(mac) else { return };
    if v6 {
        // Hop-by-hop options: a router alert and padding.
        packet.push_front(8).copy_from_slice(&[protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
        ip::prepend(&mut packet, &src, &dst, 0, 1, 0);
    } else {
        packet.push_front(4).copy_from_slice(&[0x94, 4, 0, 0]);
        ip::prepend(&mut packet, &src, &dst, IGMP, 1, 0xc0);
        let header = &mut packet.bytes_mut()[..ip::V4_HEADER + 4];
        header[0] = 0x46;
        checksum::fill(0, header, 10);
    }
    edge::send_frame(stack, packet, mac, if v6 { 0x86dd } else { 0x0800 });
}
