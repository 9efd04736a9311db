//! What TCP, UDP and raw sockets share: families, addresses, options of the IP levels.

use super::{Caller, Socket, options::int, raw, tcp, udp};
use crate::errno::{Errno, Result};
use crate::net::addr::{Address, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, as_plain, as_v6};
use crate::net::groups;
use crate::net::ports::Request;
use crate::net::settings;
use crate::net::stack::Stack;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::net::*;

/// `IPPROTO_MPTCP`: taken as a request for TCP's fallback by those who ask; we don't have it.
const IPPROTO_MPTCP: u32 = 262;
/// Groups that one socket may join (net.ipv4.igmp_max_memberships).
const MAX_GROUPS: usize = 20;

/// socket(2) for `AF_INET` and `AF_INET6`.
pub fn create(who: &Caller<'_>, family: u32, kind: u32, protocol: u32) -> Result<Arc<dyn Socket>> {
    let v6 = family == AF_INET6;
    let stack = crate::net::stack();
    const TCP: u32 = 6;
    const UDP: u32 = 17;
    const UDPLITE: u32 = 136;
    const ICMP: u32 = 1;
    const ICMPV6: u32 = 58;
    match (kind, protocol) {
        (SOCK_STREAM, 0 | TCP) => Ok(tcp::TcpSocket::new(stack, v6)),
        (SOCK_DGRAM, 0 | UDP) => Ok(udp::UdpSocket::new(stack, v6, false)),
        (SOCK_DGRAM, UDPLITE) => Ok(udp::UdpSocket::new(stack, v6, true)),
        (SOCK_DGRAM, ICMP | ICMPV6) if (protocol == ICMPV6) == v6 => {
            if !may_ping() {
                return Err(Errno::EACCES);
            }
            Ok(raw::RawSocket::new(stack, v6, protocol as u8, true))
        }
        (SOCK_RAW, 1..=255) => {
            if !who.privileged {
                return Err(Errno::EPERM);
            }
            Ok(raw::RawSocket::new(stack, v6, protocol as u8, false))
        }
        (SOCK_STREAM, IPPROTO_MPTCP) => Err(Errno::EPROTONOSUPPORT),
        (SOCK_STREAM | SOCK_DGRAM | SOCK_RAW, _) => Err(Errno::EPROTONOSUPPORT),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// Whether the caller is of a group that may have ping sockets.
fn may_ping() -> bool {
    let creds = crate::task::current().creds();
    let groups = core::iter::once(creds.egid).chain(creds.groups.iter().copied());
    settings::may_ping(groups)
}

/// An address given to a socket of this family, without IPv4 mapping.
pub fn plain(v6: bool, addr: &Address) -> Result<SocketAddr> {
    match addr {
        Address::Inet(addr) if addr.is_ipv6() == v6 => Ok(as_plain(*addr)),
        // An IPv4 address on an IPv6 socket: EINVAL; the other way round: EAFNOSUPPORT.
        Address::Inet(_) if v6 => Err(Errno::EINVAL),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// An address as an application with a socket of this family sees it.
pub fn shown(v6: bool, addr: SocketAddr) -> Address {
    Address::Inet(if v6 { as_v6(addr) } else { addr })
}

/// The unspecified address and port zero.
pub fn unspecified(v6: bool) -> SocketAddr {
    match v6 {
        true => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        false => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
    }
}

/// Checks that a socket may be bound to `addr`; `free`: `IP_FREEBIND` or `IP_TRANSPARENT`.
pub fn check_bind(stack: &Stack, who: &Caller<'_>, addr: SocketAddr, free: bool) -> Result<()> {
    let ip = addr.ip();
    let free = free || settings::NONLOCAL_BIND.get() != 0;
    if !ip.is_unspecified() && !free && !stack.is_local(&ip) && !stack.is_group(&ip) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    let low = addr.port() != 0 && i64::from(addr.port()) < settings::FIRST_FREE_PORT.get();
    if low && !who.privileged { Err(Errno::EACCES) } else { Ok(()) }
}

/// A request for a port.
pub fn request(
    common: &super::options::Common,
    addr: IpAddr,
    dual: bool,
    uid: u32,
    stream: bool,
) -> Request {
    let (reuse_addr, reuse_port) = (common.reuse_addr, common.reuse_port);
    Request { addr, dual, reuse_addr, reuse_port, uid, stream }
}

/// Options of `IPPROTO_IP` and `IPPROTO_IPV6` (ip(7), ipv6(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpOptions {
    /// `IPV6_V6ONLY`.
    pub v6_only: bool,
    /// `IP_TTL`, `IPV6_UNICAST_HOPS`.
    pub ttl: u8,
    /// `IP_MULTICAST_TTL`, `IPV6_MULTICAST_HOPS`.
    pub multicast_ttl: u8,
    /// `IP_TOS`, `IPV6_TCLASS`.
    pub tos: u8,
    /// `IP_FREEBIND`, `IP_TRANSPARENT`.
    pub free_bind: bool,
    /// What is told of datagrams by messages of `IPPROTO_IP` and of `IPPROTO_IPV6`.
    pub told: [Told; 2],
    /// `IP_HDRINCL`.
    pub header_included: bool,
    /// `IP_MULTICAST_LOOP`.
    pub multicast_loop: bool,
    /// Groups joined.
    pub groups: Vec<IpAddr>,
    /// `IP_MTU_DISCOVER`, `IPV6_MTU_DISCOVER`.
    mtu_discover: i32,
    /// On-off options without an effect here: level and name.
    plain: Vec<(u32, u32)>,
}

/// What comes with a datagram that is received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// `IP_PKTINFO`, `IPV6_RECVPKTINFO`.
    pub packet_info: bool,
    /// `IP_RECVTTL`, `IPV6_RECVHOPLIMIT`.
    pub ttl: bool,
    /// `IP_RECVTOS`, `IPV6_RECVTCLASS`.
    pub tos: bool,
}

impl Default for IpOptions {
    fn default() -> Self {
        IpOptions {
            v6_only: false,
            ttl: 64,
            multicast_ttl: 1,
            tos: 0,
            free_bind: false,
            told: Default::default(),
            header_included: false,
            multicast_loop: true,
            groups: Vec::new(),
            mtu_discover: 1,
            plain: Vec::new(),
        }
    }
}

/// `IPPROTO_IP` as a level.
pub const LEVEL_IP: u32 = 0;
/// `IPPROTO_TCP` as a level.
pub const LEVEL_TCP: u32 = 6;
/// `IPPROTO_UDP` as a level.
pub const LEVEL_UDP: u32 = 17;
/// `IPPROTO_UDPLITE` as a level.
pub const LEVEL_UDPLITE: u32 = 136;
/// `IPPROTO_IPV6` as a level.
pub const LEVEL_IPV6: u32 = 41;

fn hops(value: i32) -> Result<u8> {
    match value {
        -1 => Ok(64),
        0..=255 => Ok(value as u8),
        _ => Err(Errno::EINVAL),
    }
}

impl IpOptions {
    /// Sets one. ENOPROTOOPT if there is no such option.
    pub fn set(
        &mut self,
        stack: &Stack,
        v6: bool,
        level: u32,
        name: u32,
        raw: &[u8],
    ) -> Result<()> {
        if level == LEVEL_IPV6 && !v6 {
            return Err(Errno::ENOPROTOOPT);
        }
        // ip(7): options may be given as one byte as well.
        let value = || match raw {
            [] => Err(Errno::EINVAL),
            [byte] | [byte, _] | [byte, _, _] => Ok(i32::from(*byte)),
            _ => int(raw),
        };
        let on = || value().map(|value| value != 0);
        let told = usize::from(level == LEVEL_IPV6);
        match (level, name) {
            (LEVEL_IPV6, IPV6_V6ONLY) => self.v6_only = on()?,
            (LEVEL_IP, IP_TTL) => {
                let ttl = value()?;
                if ttl == 0 {
                    return Err(Errno::EINVAL);
                }
                self.ttl = hops(ttl)?;
            }
            (LEVEL_IPV6, IPV6_UNICAST_HOPS) => self.ttl = hops(value()?)?,
            (LEVEL_IP, IP_MULTICAST_TTL) | (LEVEL_IPV6, IPV6_MULTICAST_HOPS) => {
                self.multicast_ttl = hops(value()?)?;
            }
            (LEVEL_IP, IP_TOS) => self.tos = value()? as u8,
            (LEVEL_IPV6, IPV6_TCLASS) => self.tos = if value()? < 0 { 0 } else { value()? as u8 },
            (LEVEL_IP, IP_FREEBIND | IP_TRANSPARENT) => self.free_bind = on()?,
            (LEVEL_IPV6, IPV6_FREEBIND | IPV6_TRANSPARENT) => self.free_bind = on()?,
            (LEVEL_IP, IP_PKTINFO) | (LEVEL_IPV6, IPV6_RECVPKTINFO) => {
                self.told[told].packet_info = on()?;
            }
            (LEVEL_IP, IP_RECVTTL) | (LEVEL_IPV6, IPV6_RECVHOPLIMIT) => self.told[told].ttl = on()?,
            (LEVEL_IP, IP_RECVTOS) | (LEVEL_IPV6, IPV6_RECVTCLASS) => self.told[told].tos = on()?,
            (LEVEL_IP, IP_HDRINCL) => self.header_included = on()?,
            (LEVEL_IP, IP_MULTICAST_LOOP) | (LEVEL_IPV6, IPV6_MULTICAST_LOOP) => {
                self.multicast_loop = on()?;
            }
            (LEVEL_IP, IP_MTU_DISCOVER) | (LEVEL_IPV6, IPV6_MTU_DISCOVER) => {
                // IP_PMTUDISC_DONT to IP_PMTUDISC_OMIT.
                let how = value()?;
                if !(0..=5).contains(&how) {
                    return Err(Errno::EINVAL);
                }
                self.mtu_discover = how;
            }
            (LEVEL_IP, IP_ADD_MEMBERSHIP) => self.join(stack, group4(raw)?)?,
            (LEVEL_IP, IP_DROP_MEMBERSHIP) => self.leave(stack, group4(raw)?)?,
            (LEVEL_IPV6, IPV6_ADD_MEMBERSHIP) => self.join(stack, group6(raw)?)?,
            (LEVEL_IPV6, IPV6_DROP_MEMBERSHIP) => self.leave(stack, group6(raw)?)?,
            // One option for both families: `struct group_req`.
            (LEVEL_IP | LEVEL_IPV6, MCAST_JOIN_GROUP) => self.join(stack, group_any(raw)?)?,
            (LEVEL_IP | LEVEL_IPV6, MCAST_LEAVE_GROUP) => self.leave(stack, group_any(raw)?)?,
            (LEVEL_IP, IP_MULTICAST_IF) | (LEVEL_IPV6, IPV6_MULTICAST_IF) => {}
            (LEVEL_IP, IP_RECVERR | IP_RECVOPTS | IP_BIND_ADDRESS_NO_PORT | IP_MULTICAST_ALL)
            | (LEVEL_IP, IP_RECVORIGDSTADDR | IP_CHECKSUM | IP_MINTTL | IP_RETOPTS)
            | (LEVEL_IPV6, IPV6_RECVERR | IPV6_AUTOFLOWLABEL | IPV6_RECVORIGDSTADDR)
            | (LEVEL_IPV6, IPV6_CHECKSUM | IPV6_DONTFRAG | IPV6_FLOWINFO_SEND) => {
                self.plain.retain(|&key| key != (level, name));
                if on()? {
                    self.plain.push((level, name));
                }
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// Reads one. ENOPROTOOPT if there is no such option.
    pub fn get(&self, stack: &Stack, level: u32, name: u32) -> Result<Vec<u8>> {
        let told = self.told[usize::from(level == LEVEL_IPV6)];
        let value = match (level, name) {
            (LEVEL_IPV6, IPV6_V6ONLY) => i32::from(self.v6_only),
            (LEVEL_IP, IP_TTL) | (LEVEL_IPV6, IPV6_UNICAST_HOPS) => i32::from(self.ttl),
            (LEVEL_IP, IP_MULTICAST_TTL) | (LEVEL_IPV6, IPV6_MULTICAST_HOPS) => {
                i32::from(self.multicast_ttl)
            }
            (LEVEL_IP, IP_TOS) | (LEVEL_IPV6, IPV6_TCLASS) => i32::from(self.tos),
            (LEVEL_IP, IP_FREEBIND | IP_TRANSPARENT) => i32::from(self.free_bind),
            (LEVEL_IPV6, IPV6_FREEBIND | IPV6_TRANSPARENT) => i32::from(self.free_bind),
            (LEVEL_IP, IP_PKTINFO) | (LEVEL_IPV6, IPV6_RECVPKTINFO) => i32::from(told.packet_info),
            (LEVEL_IP, IP_RECVTTL) | (LEVEL_IPV6, IPV6_RECVHOPLIMIT) => i32::from(told.ttl),
            (LEVEL_IP, IP_RECVTOS) | (LEVEL_IPV6, IPV6_RECVTCLASS) => i32::from(told.tos),
            (LEVEL_IP, IP_HDRINCL) => i32::from(self.header_included),
            (LEVEL_IP, IP_MULTICAST_LOOP) | (LEVEL_IPV6, IPV6_MULTICAST_LOOP) => {
                i32::from(self.multicast_loop)
            }
            (LEVEL_IP, IP_MTU_DISCOVER) | (LEVEL_IPV6, IPV6_MTU_DISCOVER) => self.mtu_discover,
            (LEVEL_IP, IP_MTU) | (LEVEL_IPV6, IPV6_MTU) => stack.mtu() as i32,
            (LEVEL_IP, IP_RECVERR | IP_RECVOPTS | IP_BIND_ADDRESS_NO_PORT | IP_MULTICAST_ALL)
            | (LEVEL_IP, IP_RECVORIGDSTADDR | IP_CHECKSUM | IP_MINTTL | IP_RETOPTS)
            | (LEVEL_IPV6, IPV6_RECVERR | IPV6_AUTOFLOWLABEL | IPV6_RECVORIGDSTADDR)
            | (LEVEL_IPV6, IPV6_CHECKSUM | IPV6_DONTFRAG | IPV6_FLOWINFO_SEND) => {
                i32::from(self.plain.contains(&(level, name)))
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().to_vec())
    }

    /// Whether datagrams must not be sent in pieces (`IP_PMTUDISC_DO` and `_PROBE`).
    pub fn whole(&self) -> bool {
        matches!(self.mtu_discover, 2 | 3)
    }

    /// Whether datagrams that fail are kept: those of IPv4 (`IP_RECVERR`), those of IPv6
    /// (`IPV6_RECVERR`).
    pub fn keeps_failures(&self) -> [bool; 2] {
        let keys = [(LEVEL_IP, IP_RECVERR), (LEVEL_IPV6, IPV6_RECVERR)];
        keys.map(|key| self.plain.contains(&key))
    }

    fn join(&mut self, stack: &Stack, group: IpAddr) -> Result<()> {
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        if self.groups.contains(&group) {
            return Err(Errno::EADDRINUSE);
        }
        if self.groups.len() >= MAX_GROUPS {
            return Err(Errno::ENOBUFS);
        }
        self.groups.push(group);
        let mut first = false;
        stack.configure(|config| {
            first = !config.groups.contains(&group);
            config.groups.push(group);
        });
        if first {
            groups::changed(stack, group, true);
        }
        Ok(())
    }

    fn leave(&mut self, stack: &Stack, group: IpAddr) -> Result<()> {
        let at = self.groups.iter().position(|&other| other == group);
        self.groups.remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
        let mut last = false;
        stack.configure(|config| {
            if let Some(at) = config.groups.iter().position(|&other| other == group) {
                config.groups.remove(at);
            }
            last = !config.groups.contains(&group);
        });
        if last {
            groups::changed(stack, group, false);
        }
        Ok(())
    }

    /// Leaves every group.
    pub fn leave_all(&mut self, stack: &Stack) {
        while let Some(&group) = self.groups.last() {
            // It is one of ours, so it can be left.
            let _ = self.leave(stack, group);
        }
    }
}

fn group4(raw: &[u8]) -> Result<IpAddr> {
    let octets = raw.first_chunk::<4>().filter(|_| raw.len() >= 8).ok_or(Errno::EINVAL)?;
    Ok(Ipv4Addr::from(*octets).into())
}

fn group6(raw: &[u8]) -> Result<IpAddr> {
    let octets = raw.first_chunk::<16>().filter(|_| raw.len() >= 20).ok_or(Errno::EINVAL)?;
    Ok(Ipv6Addr::from(*octets).into())
}

fn group_any(raw: &[u8]) -> Result<IpAddr> {
    // An interface index, padding, and a socket address.
    match Address::parse(raw.get(8..).unwrap_or_default())? {
        Address::Inet(group) => Ok(group.ip()),
        _ => Err(Errno::EINVAL),
    }
}
