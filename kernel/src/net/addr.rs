//! Addresses: IP, and socket addresses as applications lay them out.

pub use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::errno::{Errno, Result};
use alloc::vec::Vec;
use core::net::{SocketAddrV4, SocketAddrV6};
use linux_raw_sys::net::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_UNSPEC};

/// An address and its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Address.
    pub addr: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
}

impl Cidr {
    /// Whether `other` lies in the same network.
    pub fn contains(&self, other: &IpAddr) -> bool {
        match (self.addr, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask =
                    u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            _ => false,
        }
    }

    /// The network's own address.
    pub fn network(&self) -> IpAddr {
        match self.addr {
            IpAddr::V4(addr) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                Ipv4Addr::from_bits(addr.to_bits() & mask).into()
            }
            IpAddr::V6(addr) => {
                let mask =
                    u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                Ipv6Addr::from_bits(addr.to_bits() & mask).into()
            }
        }
    }

    /// The directed broadcast address of an IPv4 network.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.addr {
            IpAddr::V4(addr) if self.prefix < 31 => {
                Some(Ipv4Addr::from_bits(addr.to_bits() | u32::MAX >> self.prefix))
            }
            _ => None,
        }
    }
}

/// An IPv4-mapped IPv6 address as the IPv4 address it stands for; others unchanged.
pub fn unmapped(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(addr, IpAddr::V4),
        IpAddr::V4(_) => addr,
    }
}

/// Whether nothing but this machine answers at `addr`.
pub fn is_loopback(addr: &IpAddr) -> bool {
    addr.is_loopback()
}

/// Name of a unix(7) socket.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum UnixName {
    /// No name.
    #[default]
    Unnamed,
    /// A path, without terminator.
    Path(Vec<u8>),
    /// An abstract name, without the leading zero byte.
    Abstract(Vec<u8>),
}

/// A socket address of any family we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `AF_UNSPEC`: dissolves an association.
    Unspecified,
    /// `AF_INET` and `AF_INET6`; an `AF_INET6` socket shows IPv4 peers as mapped addresses.
    Inet(SocketAddr),
    /// `AF_UNIX`.
    Unix(UnixName),
    /// `AF_PACKET`.
    Link(LinkAddress),
    /// `AF_NETLINK`.
    Netlink {
        /// Port ID.
        port: u32,
        /// Multicast groups.
        groups: u32,
    },
}

/// `struct sockaddr_ll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LinkAddress {
    /// Ethernet type.
    pub protocol: u16,
    /// Interface.
    pub index: i32,
    /// `PACKET_HOST`, `PACKET_OUTGOING`, ...
    pub kind: u8,
    /// Hardware address.
    pub mac: [u8; 6],
}

/// Longest socket address the kernel takes (`struct sockaddr_storage`).
pub const MAX_LEN: usize = 128;
const UNIX_PATH: usize = 108;

impl Address {
    /// Reads a `struct sockaddr`. EINVAL for one too short for its family, EAFNOSUPPORT for unknown
    /// families.
    pub fn parse(raw: &[u8]) -> Result<Address> {
        let [f0, f1, rest @ ..] = raw else { return Err(Errno::EINVAL) };
        match u32::from(u16::from_ne_bytes([*f0, *f1])) {
            AF_UNSPEC => Ok(Address::Unspecified),
            AF_INET => {
                let [p0, p1, a, b, c, d, ..] = *rest else { return Err(Errno::EINVAL) };
                if raw.len() < 16 {
                    return Err(Errno::EINVAL);
                }
                let port = u16::from_be_bytes([p0, p1]);
                Ok(Address::Inet((Ipv4Addr::new(a, b, c, d), port).into()))
            }
            AF_INET6 => {
                // RFC 2133 addresses end before the scope id; Linux takes both.
                let Some((head, tail)) = rest.split_at_checked(22) else {
                    return Err(Errno::EINVAL);
                };
                let port = u16::from_be_bytes([head[0], head[1]]);
                let flow = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
                let mut octets = [0; 16];
                octets.copy_from_slice(&head[6..22]);
                let scope = match *tail {
                    [a, b, c, d, ..] => u32::from_ne_bytes([a, b, c, d]),
                    _ => 0,
                };
                Ok(Address::Inet(SocketAddrV6::new(octets.into(), port, flow, scope).into()))
            }
            AF_UNIX => {
                if rest.len() > UNIX_PATH {
                    return Err(Errno::EINVAL);
                }
                Ok(Address::Unix(match rest {
                    [] => UnixName::Unnamed,
                    [0, name @ ..] => UnixName::Abstract(name.to_vec()),
                    path => {
                        let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
                        UnixName::Path(path[..end].to_vec())
                    }
                }))
            }
            AF_PACKET => {
                let [p0, p1, i0, i1, i2, i3, _, _, kind, _, mac @ ..] = rest else {
                    return Err(Errno::EINVAL);
                };
                if raw.len() < 12 {
                    return Err(Errno::EINVAL);
                }
                let mut octets = [0; 6];
                let len = mac.len().min(6);
                octets[..len].copy_from_slice(&mac[..len]);
                Ok(Address::Link(LinkAddress {
                    protocol: u16::from_be_bytes([*p0, *p1]),
                    index: i32::from_ne_bytes([*i0, *i1, *i2, *i3]),
                    kind: *kind,
                    mac: octets,
                }))
            }
            AF_NETLINK => {
                let [_, _, p0, p1, p2, p3, g0, g1, g2, g3, ..] = *rest else {
                    return Err(Errno::EINVAL);
                };
                Ok(Address::Netlink {
                    port: u32::from_ne_bytes([p0, p1, p2, p3]),
                    groups: u32::from_ne_bytes([g0, g1, g2, g3]),
                })
            }
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// Its `struct sockaddr`.
    pub fn emit(&self) -> Vec<u8> {
        let family = |value: u32| (value as u16).to_ne_bytes();
        let mut out = Vec::with_capacity(28);
        match self {
            Address::Unspecified => out.extend(family(AF_UNSPEC)),
            Address::Inet(SocketAddr::V4(addr)) => {
                out.extend(family(AF_INET));
                out.extend(addr.port().to_be_bytes());
                out.extend(addr.ip().octets());
                out.extend([0; 8]);
            }
            Address::Inet(SocketAddr::V6(addr)) => {
                out.extend(family(AF_INET6));
                out.extend(addr.port().to_be_bytes());
                out.extend(addr.flowinfo().to_be_bytes());
                out.extend(addr.ip().octets());
                out.extend(addr.scope_id().to_ne_bytes());
            }
            Address::Unix(name) => {
                out.extend(family(AF_UNIX));
                match name {
                    UnixName::Unnamed => {}
                    UnixName::Path(path) => {
                        out.extend(path);
                        out.push(0);
                    }
                    UnixName::Abstract(name) => {
                        out.push(0);
                        out.extend(name);
                    }
                }
            }
            Address::Link(link) => {
                out.extend(family(AF_PACKET));
                out.extend(link.protocol.to_be_bytes());
                out.extend(link.index.to_ne_bytes());
                // Ethernet.
                out.extend(1u16.to_ne_bytes());
                out.extend([link.kind, 6]);
                out.extend(link.mac);
                out.extend([0; 2]);
            }
            Address::Netlink { port, groups } => {
                out.extend(family(AF_NETLINK));
                out.extend([0; 2]);
                out.extend(port.to_ne_bytes());
                out.extend(groups.to_ne_bytes());
            }
        }
        out
    }
}

/// How an `AF_INET6` socket shows an address.
pub fn as_v6(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => addr,
    }
}

/// An address without IPv4 mapping: what the stack works with.
pub fn as_plain(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddrV4::new(v4, v6.port()).into(),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
        SocketAddr::V4(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_addresses_survive_their_layout() {
        let cases = [
            Address::Inet("10.0.2.15:80".parse().unwrap()),
            Address::Inet("[fe80::1%3]:443".parse().unwrap()),
            Address::Unix(UnixName::Unnamed),
            Address::Unix(UnixName::Path(b"/run/x.sock".to_vec())),
            Address::Unix(UnixName::Abstract(b"a\0b".to_vec())),
            Address::Netlink { port: 7, groups: 1 },
            Address::Link(LinkAddress { protocol: 0x800, index: 2, kind: 4, mac: [1; 6] }),
        ];
        for case in cases {
            assert_eq!(Address::parse(&case.emit()), Ok(case));
        }
        assert_eq!(Address::parse(&[2, 0, 0, 80]), Err(Errno::EINVAL));
        assert_eq!(Address::parse(&[99, 0, 0, 80]), Err(Errno::EAFNOSUPPORT));
    }

    #[test]
    fn networks_contain_their_hosts() {
        let net = Cidr { addr: "10.0.2.15".parse().unwrap(), prefix: 24 };
        assert!(net.contains(&"10.0.2.2".parse().unwrap()));
        assert!(!net.contains(&"10.0.3.2".parse().unwrap()));
        assert_eq!(net.broadcast(), Some(Ipv4Addr::new(10, 0, 2, 255)));
        let all = Cidr { addr: "0.0.0.0".parse().unwrap(), prefix: 0 };
        assert!(all.contains(&"1.2.3.4".parse().unwrap()));
    }
}
