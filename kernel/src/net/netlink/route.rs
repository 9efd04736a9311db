//! Links, addresses, routes and neighbours, as getifaddrs(3) and `ip` read them (rtnetlink(7)).
//! Requests that would change something are refused.

use super::message::{Reply, attribute, each, find, word};
use crate::errno::{Errno, Result};
use crate::net::addr::IpAddr;
use crate::net::socket::ifreq::{self, CHANGEABLE, Interface};
use crate::net::stack::Stack;
use alloc::vec::Vec;
use linux_raw_sys::net::{AF_INET, AF_INET6};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_EXT_MASK: u16 = 29;

/// Answers a request of `NETLINK_ROUTE`.
pub(super) fn answer(reply: &mut Reply<'_>, stack: &Stack, dump: bool) -> Result<()> {
    let family = reply.request.body.first().copied().unwrap_or(0);
    let interfaces = ifreq::interfaces(stack);
    match reply.request.kind {
        RTM_GETLINK => links(reply, &interfaces, dump),
        RTM_NEWLINK | RTM_SETLINK => set_link(reply.request.body, &interfaces),
        RTM_GETADDR if dump => {
            addresses(reply, &interfaces, family);
            Ok(())
        }
        RTM_GETROUTE if dump => {
            routes(reply, stack, &interfaces, family);
            Ok(())
        }
        RTM_GETNEIGH if dump => {
            neighbours(reply, stack, family);
            Ok(())
        }
        RTM_GETADDR | RTM_GETROUTE | RTM_GETNEIGH => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EPERM),
    }
}

fn octets(addr: &IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family_of(addr: &IpAddr) -> u8 {
    if addr.is_ipv4() { AF_INET as u8 } else { AF_INET6 as u8 }
}

fn wanted(family: u8, addr: &IpAddr) -> bool {
    family == 0 || family == family_of(addr)
}

fn links(reply: &mut Reply<'_>, interfaces: &[Interface], dump: bool) -> Result<()> {
    let body = reply.request.body;
    let index = word(body, 4);
    let chosen: Vec<_> = interfaces
        .iter()
        .filter(|interface| {
            dump || index == 0 && named(body, interface) || interface.index == index
        })
        .collect();
    if chosen.is_empty() {
        return Err(Errno::ENODEV);
    }
    for interface in chosen {
        reply.message(RTM_NEWLINK, |out| {
            let loopback = interface.index == 1;
            out.extend([0, 0]);
            out.extend(if loopback { 772u16 } else { 1 }.to_ne_bytes());
            out.extend(interface.index.to_ne_bytes());
            // IFF_LOWER_UP goes with IFF_RUNNING.
            out.extend((interface.flags | 0x10000).to_ne_bytes());
            out.extend([0; 4]);
            let broadcast = if loopback { [0; 6] } else { [0xff; 6] };
            attribute(out, IFLA_IFNAME, &[interface.name.as_bytes(), &[0]].concat());
            attribute(out, 13, &1000u32.to_ne_bytes());
            attribute(out, 16, &[if loopback { 0 } else { 6 }]);
            attribute(out, 17, &[0]);
            attribute(out, IFLA_MTU, &interface.mtu.to_ne_bytes());
            attribute(out, 27, &0u32.to_ne_bytes());
            attribute(out, 6, if loopback { b"noqueue\0" } else { b"mq\0" });
            attribute(out, 1, &interface.mac);
            attribute(out, 2, &broadcast);
            let queues = interface.queues.to_ne_bytes();
            // Promiscuity, queues each way, carrier and its changes, I/O map.
            attribute(out, 30, &0u32.to_ne_bytes());
            attribute(out, 31, &queues);
            attribute(out, 32, &queues);
            attribute(out, 33, &[1]);
            attribute(out, 35, &0u32.to_ne_bytes());
            attribute(out, 14, &[0; 32]);
            // Counters, which programs take for granted: struct rtnl_link_stats64, and the same in
            // words of half the size.
            let [rx_bytes, rx_packets, tx_bytes, tx_packets] = interface.counters;
            let mut counters = [0u64; 25];
            counters[..4].copy_from_slice(&[rx_packets, tx_packets, rx_bytes, tx_bytes]);
            attribute(out, 23, counters.map(u64::to_ne_bytes).as_flattened());
            let short = counters.map(|value| (value as u32).to_ne_bytes());
            attribute(out, 7, short[..24].as_flattened());
        });
    }
    Ok(())
}

/// Links can't be changed, but asked to be what they are: scripts make sure that `lo` is up. EPERM if
/// something would change, or be made.
fn set_link(body: &[u8], interfaces: &[Interface]) -> Result<()> {
    let Some((head, attributes)) = body.split_first_chunk::<16>() else {
        return Err(Errno::EINVAL);
    };
    // struct ifinfomsg: family, type (2 bytes each), index, flags, and which of them are meant.
    let [index, flags, change] = [4, 8, 12].map(|at| word(head, at));
    let meant = |interface: &&Interface| {
        if index == 0 { named(body, interface) } else { interface.index == index }
    };
    let Some(interface) = interfaces.iter().find(meant) else {
        return Err(if index == 0 { Errno::EPERM } else { Errno::ENODEV });
    };
    let change = if change == 0 && flags != 0 { u32::MAX } else { change };
    if (flags ^ interface.flags) & change & CHANGEABLE != 0 {
        return Err(Errno::EPERM);
    }
    let mtu = interface.mtu.to_ne_bytes();
    let same = |kind: u16, value: &[u8]| match kind {
        IFLA_IFNAME => is_name(value, interface),
        IFLA_MTU => value == mtu,
        // A mask of what is to be told, of which there is nothing.
        IFLA_EXT_MASK => true,
        _ => false,
    };
    if each(attributes).all(|(kind, value)| same(kind, value)) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether an `IFLA_IFNAME` attribute of the request names this interface.
fn named(body: &[u8], interface: &Interface) -> bool {
    let value = find(body.get(16..).unwrap_or_default(), IFLA_IFNAME).unwrap_or_default();
    is_name(value, interface)
}

fn is_name(value: &[u8], interface: &Interface) -> bool {
    value.split(|&byte| byte == 0).next() == Some(interface.name.as_bytes())
}

fn addresses(reply: &mut Reply<'_>, interfaces: &[Interface], family: u8) {
    for interface in interfaces {
        for cidr in interface.addresses.iter().filter(|cidr| wanted(family, &cidr.addr)) {
            reply.message(RTM_NEWADDR, |out| {
                let scope = match cidr.addr {
                    addr if addr.is_loopback() => 254,
                    IpAddr::V6(v6) if v6.is_unicast_link_local() => 253,
                    _ => 0,
                };
                // IFA_F_PERMANENT.
                out.extend([family_of(&cidr.addr), cidr.prefix, 0x80, scope]);
                out.extend(interface.index.to_ne_bytes());
                attribute(out, 1, &octets(&cidr.addr));
                if cidr.addr.is_ipv4() {
                    attribute(out, 2, &octets(&cidr.addr));
                    if let (Some(broadcast), false) = (cidr.broadcast(), cidr.addr.is_loopback()) {
                        attribute(out, 4, &broadcast.octets());
                    }
                    attribute(out, 3, &[interface.name.as_bytes(), &[0]].concat());
                }
                attribute(out, 8, &0x80u32.to_ne_bytes());
                attribute(out, 6, &[[0xff; 8], [0; 8]].concat());
            });
        }
    }
}

fn routes(reply: &mut Reply<'_>, stack: &Stack, interfaces: &[Interface], family: u8) {
    let config = stack.config();
    let mut route =
        |dst: Option<(IpAddr, u8)>, gateway: Option<IpAddr>, index: u32, src: Option<IpAddr>| {
            let Some(any) = dst.map(|(addr, _)| addr).or(gateway) else { return };
            if !wanted(family, &any) {
                return;
            }
            reply.message(RTM_NEWROUTE, |out| {
                let prefix = dst.map_or(0, |(_, prefix)| prefix);
                let scope = if gateway.is_some() { 0 } else { 253 };
                // Main table, boot protocol, unicast.
                out.extend([family_of(&any), prefix, 0, 0, 254, 3, scope, 1]);
                out.extend([0; 4]);
                attribute(out, 15, &254u32.to_ne_bytes());
                if let Some((addr, _)) = dst {
                    attribute(out, 1, &octets(&addr));
                }
                if let Some(gateway) = gateway {
                    attribute(out, 5, &octets(&gateway));
                }
                if let Some(src) = src {
                    attribute(out, 7, &octets(&src));
                }
                attribute(out, 4, &index.to_ne_bytes());
            });
        };
    route(None, config.gateway4.map(IpAddr::from), 2, None);
    route(None, config.gateway6.map(IpAddr::from), 2, None);
    for interface in interfaces.iter().filter(|interface| interface.index != 1) {
        for cidr in &interface.addresses {
            let src = Some(cidr.addr).filter(IpAddr::is_ipv4);
            route(Some((cidr.network(), cidr.prefix)), None, interface.index, src);
        }
    }
}

fn neighbours(reply: &mut Reply<'_>, stack: &Stack, family: u8) {
    let known = stack.neighbors.lock().known();
    for (addr, mac) in known.into_iter().filter(|(addr, _)| wanted(family, addr)) {
        reply.message(RTM_NEWNEIGH, |out| {
            out.extend([family_of(&addr), 0, 0, 0]);
            out.extend(2u32.to_ne_bytes());
            // NUD_REACHABLE, unicast.
            out.extend(2u16.to_ne_bytes());
            out.extend([0, 1]);
            attribute(out, 1, &octets(&addr));
            attribute(out, 2, &mac);
        });
    }
}
