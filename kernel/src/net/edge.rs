//! The Ethernet edge: frames, ARP (RFC 826) and the neighbour table. IPv6 queries are in
//! [`nd`](super::nd).

use super::addr::{IpAddr, Ipv4Addr, Ipv6Addr};
use super::nd;
use super::packet::Packet;
use super::report::{Teller, Trouble, report};
use super::stack::{Route, Stack, Timeout};
use crate::errno::Errno;
use crate::map::Sorted;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Length of an Ethernet header.
pub const HEADER: usize = 14;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// The broadcast hardware address.
pub const BROADCAST: [u8; 6] = [0xff; 6];

const SECOND: u64 = 1_000_000_000;
/// An address older than this is asked for again while it goes on being used.
const FRESH: u64 = 30 * SECOND;
const MAX_TRIES: u8 = 3;
/// Packets kept per unanswered query (Linux: unres_qlen, in packets).
const MAX_WAITING: usize = 64;
/// Neighbours remembered; beyond it the stalest goes.
const MAX_NEIGHBORS: usize = 1024;

/// Hardware addresses of neighbours.
pub struct Neighbors {
    entries: Sorted<IpAddr, Neighbor>,
    /// A retry timer is set.
    retrying: bool,
}

struct Neighbor {
    mac: Option<[u8; 6]>,
    updated: u64,
    asked: u64,
    tries: u8,
    waiting: Vec<Packet>,
}

impl Neighbors {
    /// An empty table.
    pub fn new() -> Neighbors {
        Neighbors { entries: Sorted::new(), retrying: false }
    }

    /// Known neighbours, for /proc/net/arp and netlink.
    pub fn known(&self) -> Vec<(IpAddr, [u8; 6])> {
        self.entries.iter().filter_map(|(addr, entry)| Some((*addr, entry.mac?))).collect()
    }

    fn make_room(&mut self) {
        if self.entries.len() < MAX_NEIGHBORS {
            return;
        }
        let stalest = self.entries.iter().min_by_key(|(_, entry)| entry.updated);
        if let Some(addr) = stalest.map(|(addr, _)| *addr) {
            self.entries.remove(&addr);
        }
    }
}

impl Default for Neighbors {
    fn default() -> Self {
        Neighbors::new()
    }
}

/// Puts an Ethernet header in front and sends.
pub fn send_frame(stack: &Stack, mut packet: Packet, dst: [u8; 6], ethertype: u16) {
    let Some(device) = stack.device() else { return };
    let src = device.mac();
    let header = packet.push_front(HEADER);
    header[0..6].copy_from_slice(&dst);
    header[6..12].copy_from_slice(&src);
    header[12..14].copy_from_slice(&ethertype.to_be_bytes());
    stack.transmit(packet);
}

/// The hardware address of a multicast group or of everybody; `None` for one host's address.
pub fn group_mac(addr: &IpAddr) -> Option<[u8; 6]> {
    match addr {
        IpAddr::V4(v4) if v4.is_broadcast() => Some(BROADCAST),
        IpAddr::V4(v4) if v4.is_multicast() => {
            let [_, b, c, d] = v4.octets();
            Some([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(v6) if v6.is_multicast() => {
            let [.., a, b, c, d] = v6.octets();
            Some([0x33, 0x33, a, b, c, d])
        }
        _ => None,
    }
}

/// Sends an IP packet to the wire, asking for the neighbour's address first if need be.
pub fn output(stack: &Stack, packet: Packet, route: &Route) {
    let ethertype = if route.v6 { IPV6 } else { IPV4 };
    if let Some(mac) = route.group {
        return send_frame(stack, packet, mac, ethertype);
    }
    let now = stack.now();
    let mut neighbors = stack.neighbors.lock();
    if let Some(entry) = neighbors.entries.get_mut(&route.next_hop) {
        if let Some(mac) = entry.mac {
            let refresh = now > entry.updated + FRESH && now > entry.asked + SECOND;
            if refresh {
                entry.asked = now;
            }
            drop(neighbors);
            send_frame(stack, packet, mac, ethertype);
            if refresh {
                ask(stack, &route.next_hop, mac);
            }
            return;
        }
        if entry.waiting.len() < MAX_WAITING {
            entry.waiting.push(packet);
        }
        return;
    }
    neighbors.make_room();
    let waiting = alloc::vec![packet];
    let entry = Neighbor { mac: None, updated: now, asked: now, tries: 1, waiting };
    neighbors.entries.insert(route.next_hop, entry);
    let retry = !core::mem::replace(&mut neighbors.retrying, true);
    drop(neighbors);
    if retry {
        stack.set_timeout(now + SECOND, Timeout::Neighbors);
    }
    ask(stack, &route.next_hop, BROADCAST);
}

/// Asks for a hardware address; `mac` is where the question goes (a known address is only
/// confirmed).
fn ask(stack: &Stack, addr: &IpAddr, mac: [u8; 6]) {
    let Some(source) = stack.source(addr) else { return };
    match (source, addr) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => send_arp(stack, 1, mac, src, [0; 6], *dst),
        (IpAddr::V6(src), IpAddr::V6(dst)) => nd::solicit(stack, src, *dst),
        _ => {}
    }
}

/// Asks again for what nobody answered, and gives up in the end.
pub fn retry(stack: &Arc<Stack>) {
    let now = stack.now();
    let mut again = Vec::new();
    let mut lost = Vec::new();
    let mut neighbors = stack.neighbors.lock();
    neighbors.entries.retain(|addr, entry| {
        if entry.mac.is_some() {
            return true;
        }
        if entry.tries >= MAX_TRIES {
            lost.append(&mut entry.waiting);
            return false;
        }
        entry.tries += 1;
        again.push(*addr);
        true
    });
    neighbors.retrying = !again.is_empty();
    drop(neighbors);
    // As routers report it: connect(2) fails, and datagram sockets that ask hear of it.
    for packet in lost {
        let v4 = packet.bytes().first().is_some_and(|byte| byte >> 4 == 4);
        let teller = Teller { addr: None, icmp: if v4 { [3, 1] } else { [1, 3] } };
        report(stack, teller, packet.bytes(), Trouble::Astray(Errno::EHOSTUNREACH));
    }
    if !again.is_empty() {
        stack.set_timeout(now + SECOND, Timeout::Neighbors);
    }
    for addr in again {
        ask(stack, &addr, BROADCAST);
    }
}

/// Learns a neighbour's address. `create`: even if nobody has asked for it.
pub fn learn(stack: &Stack, addr: IpAddr, mac: [u8; 6], create: bool) {
    if mac[0] & 1 != 0 || addr.is_unspecified() || addr.is_multicast() {
        return;
    }
    let now = stack.now();
    let mut neighbors = stack.neighbors.lock();
    let waiting = match neighbors.entries.get_mut(&addr) {
        Some(entry) => {
            entry.mac = Some(mac);
            entry.updated = now;
            core::mem::take(&mut entry.waiting)
        }
        None if create => {
            neighbors.make_room();
            let waiting = Vec::new();
            let entry = Neighbor { mac: Some(mac), updated: now, asked: now, tries: 0, waiting };
            neighbors.entries.insert(addr, entry);
            return;
        }
        None => return,
    };
    drop(neighbors);
    let ethertype = if addr.is_ipv6() { IPV6 } else { IPV4 };
    for packet in waiting {
        send_frame(stack, packet, mac, ethertype);
    }
}

/// A frame from the wire.
pub fn input(stack: &Arc<Stack>, mut frame: Packet) {
    let Some(header) = frame.bytes().first_chunk::<HEADER>() else { return };
    let ours = stack.device().is_some_and(|device| header[0..6] == device.mac());
    // Group addresses have the lowest bit of the first byte set.
    if !ours && header[0] & 1 == 0 {
        return;
    }
    let ethertype = u16::from_be_bytes([header[12], header[13]]);
    frame.trim_front(HEADER);
    match ethertype {
        IPV4 | IPV6 => stack.input_ip(frame, false),
        ARP => input_arp(stack, frame.bytes()),
        _ => {}
    }
}

fn input_arp(stack: &Stack, bytes: &[u8]) {
    let Some(arp) = bytes.first_chunk::<28>() else { return };
    // Ethernet and IPv4 with their address lengths.
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        return;
    }
    let mac = |at: usize| {
        let mut mac = [0; 6];
        mac.copy_from_slice(&arp[at..at + 6]);
        mac
    };
    let addr = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let (sender_mac, sender, target) = (mac(8), addr(14), addr(24));
    let for_us = stack.is_local(&target.into()) && !target.is_loopback();
    learn(stack, sender.into(), sender_mac, for_us);
    if arp[6..8] == [0, 1] && for_us {
        send_arp(stack, 2, sender_mac, target, sender_mac, sender);
    }
}

/// Sends an ARP packet: operation 1 asks, 2 answers.
pub fn send_arp(
    stack: &Stack,
    operation: u8,
    to: [u8; 6],
    src: Ipv4Addr,
    dst_mac: [u8; 6],
    dst: Ipv4Addr,
) {
    let Some(device) = stack.device() else { return };
    let mut arp = [0; 28];
    arp[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    arp[8..14].copy_from_slice(&device.mac());
    arp[14..18].copy_from_slice(&src.octets());
    arp[18..24].copy_from_slice(&dst_mac);
    arp[24..28].copy_from_slice(&dst.octets());
    if let Some(packet) = Packet::from_slice(&arp) {
        send_frame(stack, packet, to, ARP);
    }
}

/// The link-local address made of a hardware address (RFC 4291, appendix A), or another prefix's.
pub fn eui64(prefix: &Ipv6Addr, mac: [u8; 6]) -> Ipv6Addr {
    let mut octets = prefix.octets();
    let [a, b, c, d, e, f] = mac;
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}
