//! Ancillary data of datagrams: what it asks of one that is sent, and what it tells of one that is
//! received (ip(7), ipv6(7), udp(7)).

use super::Control;
use super::inet::{self, LEVEL_IP, LEVEL_IPV6, LEVEL_UDP, Told};
use super::options::Timestamp;
use crate::errno::{Errno, Result};
use crate::net::addr::{Address, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, as_v6, unmapped};
use crate::net::errors::Failure;
use crate::net::udp::Datagram;
use crate::time::SECOND;
use alloc::vec::Vec;
use linux_raw_sys::net::*;

/// `UDP_SEGMENT`: a message is cut into datagrams of this size.
pub const UDP_SEGMENT: u32 = 103;

/// How one datagram is to be sent other than the socket's options say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The address that it comes from (`IP_PKTINFO`).
    pub source: Option<IpAddr>,
    /// `IP_TTL`, `IPV6_HOPLIMIT`.
    pub ttl: Option<u8>,
    /// `IP_TOS`, `IPV6_TCLASS`.
    pub tos: Option<u8>,
    /// [`UDP_SEGMENT`].
    pub segment: Option<u16>,
}

impl Wishes {
    /// Reads what comes with a datagram to an IPv4 (`v4`) or IPv6 address. Levels of other families
    /// are passed over, as in Linux; EINVAL for what is unknown or malformed.
    pub fn read(control: &[Control], v4: bool) -> Result<Wishes> {
        let mut wishes = Wishes::default();
        for one in control {
            let Control::Raw(level, kind, data) = one else { continue };
            let number = |least: i32| match data.first_chunk() {
                Some(bytes) if data.len() == 4 => {
                    let value = i32::from_ne_bytes(*bytes);
                    if (least..256).contains(&value) { Ok(value) } else { Err(Errno::EINVAL) }
                }
                _ => Err(Errno::EINVAL),
            };
            match (*level, *kind) {
                (LEVEL_UDP, UDP_SEGMENT) => {
                    let bytes = <[u8; 2]>::try_from(&**data).map_err(|_| Errno::EINVAL)?;
                    wishes.segment = Some(u16::from_ne_bytes(bytes));
                }
                (LEVEL_UDP, _) => return Err(Errno::EINVAL),
                (LEVEL_IP, IP_PKTINFO) if v4 => {
                    // Interface, the address to send from, the address in the header.
                    let octets = data.get(4..8).filter(|_| data.len() == 12);
                    let octets = octets.and_then(|octets| octets.first_chunk::<4>());
                    wishes.source = Some(Ipv4Addr::from(*octets.ok_or(Errno::EINVAL)?).into());
                }
                (LEVEL_IP, IP_TTL) if v4 => wishes.ttl = Some(number(1)? as u8),
                (LEVEL_IP, IP_TOS) if v4 => {
                    wishes.tos = Some(if let [tos] = **data { tos } else { number(0)? as u8 });
                }
                (LEVEL_IPV6, IPV6_PKTINFO) => {
                    let octets = data.first_chunk::<16>().filter(|_| data.len() >= 20);
                    let addr = Ipv6Addr::from(*octets.ok_or(Errno::EINVAL)?);
                    let addr = unmapped(addr.into());
                    if addr.is_ipv4() != v4 && !addr.is_unspecified() {
                        return Err(Errno::EINVAL);
                    }
                    wishes.source = Some(addr);
                }
                // -1 is what the socket's option says.
                (LEVEL_IPV6, IPV6_HOPLIMIT) if !v4 => wishes.ttl = u8::try_from(number(-1)?).ok(),
                (LEVEL_IPV6, IPV6_TCLASS) if !v4 => wishes.tos = u8::try_from(number(-1)?).ok(),
                (LEVEL_IPV6, IPV6_DONTFRAG) if !v4 => {}
                (LEVEL_IP, _) if v4 => return Err(Errno::EINVAL),
                (LEVEL_IPV6, _) if !v4 => return Err(Errno::EINVAL),
                _ => {}
            }
        }
        wishes.source = wishes.source.filter(|addr| !addr.is_unspecified());
        Ok(wishes)
    }
}

fn int(value: u8) -> Vec<u8> {
    i32::from(value).to_ne_bytes().to_vec()
}

/// What a socket that asked for it is told of a datagram: by messages of both levels, as the
/// options were set. Those of IPv6 tell only the address of a datagram of IPv4.
pub fn tell(told: &[Told; 2], datagram: &Datagram, all: &mut Vec<Control>) {
    let [by4, by6] = told;
    let index: u32 = if datagram.to.is_loopback() { 1 } else { 2 };
    let mut add = |level, kind, data| all.push(Control::Raw(level, kind, data));
    if by6.packet_info {
        let IpAddr::V6(to) = as_v6(SocketAddr::new(datagram.to, 0)).ip() else { return };
        add(LEVEL_IPV6, IPV6_PKTINFO, [&to.octets()[..], &index.to_ne_bytes()].concat());
    }
    match datagram.to {
        IpAddr::V4(to) => {
            if by4.packet_info {
                let data = [index.to_ne_bytes(), to.octets(), to.octets()].concat();
                add(LEVEL_IP, IP_PKTINFO, data);
            }
            if by4.ttl {
                add(LEVEL_IP, IP_TTL, int(datagram.ttl));
            }
            if by4.tos {
                add(LEVEL_IP, IP_TOS, alloc::vec![datagram.tos]);
            }
        }
        IpAddr::V6(_) => {
            if by6.ttl {
                add(LEVEL_IPV6, IPV6_HOPLIMIT, int(datagram.ttl));
            }
            if by6.tos {
                add(LEVEL_IPV6, IPV6_TCLASS, int(datagram.tos));
            }
        }
    }
}

/// `struct sock_extended_err` and who told, as `IP_RECVERR` or `IPV6_RECVERR` have it.
pub fn failure(v6: bool, failure: &Failure) -> Control {
    let mut data = failure.emit();
    let offender = match failure.offender {
        Some(addr) => inet::shown(v6, SocketAddr::new(addr, 0)),
        None => Address::Unspecified,
    };
    data.extend(offender.emit());
    data.resize(16 + if v6 { 28 } else { 16 }, 0);
    let (level, kind) = if v6 { (LEVEL_IPV6, IPV6_RECVERR) } else { (LEVEL_IP, IP_RECVERR) };
    Control::Raw(level, kind, data)
}

/// Seconds and nanoseconds of the wall clock at a point of monotonic time.
pub fn wall_time(at: u64) -> [u64; 2] {
    let at = crate::time::clock::boot_time_ns().wrapping_add(at);
    [at / SECOND, at % SECOND]
}

/// When something came, if that is asked for.
pub fn stamp(kind: Timestamp, [secs, nanos]: [u64; 2]) -> Option<Control> {
    let (name, rest) = match kind {
        Timestamp::Off => return None,
        Timestamp::Micros => (SO_TIMESTAMP_OLD, nanos / 1000),
        Timestamp::Nanos => (SO_TIMESTAMPNS_OLD, nanos),
    };
    let data = [secs.to_ne_bytes(), rest.to_ne_bytes()].concat();
    Some(Control::Raw(SOL_SOCKET, name, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(level: u32, kind: u32, data: &[u8]) -> Control {
        Control::Raw(level, kind, data.to_vec())
    }

    #[test]
    fn wishes_are_read_and_checked() {
        let four = [
            raw(LEVEL_IP, IP_TOS, &[3]),
            raw(LEVEL_IP, IP_TTL, &9i32.to_ne_bytes()),
            raw(LEVEL_IP, IP_PKTINFO, &[2, 0, 0, 0, 10, 0, 2, 15, 0, 0, 0, 0]),
            raw(LEVEL_UDP, UDP_SEGMENT, &1200u16.to_ne_bytes()),
        ];
        let wishes = Wishes::read(&four, true).unwrap();
        assert_eq!((wishes.tos, wishes.ttl, wishes.segment), (Some(3), Some(9), Some(1200)));
        assert_eq!(wishes.source, Some(Ipv4Addr::new(10, 0, 2, 15).into()));
        // To an IPv6 address, what is for IPv4 is passed over.
        assert_eq!(Wishes::read(&four[..3], false), Ok(Wishes::default()));
        let bad = [
            raw(LEVEL_IP, IP_TTL, &0i32.to_ne_bytes()),
            raw(LEVEL_IP, IP_TTL, &[1]),
            raw(LEVEL_IP, IP_TOS, &256i32.to_ne_bytes()),
            raw(LEVEL_IP, IP_PKTINFO, &[0; 8]),
            raw(LEVEL_IP, 250, &[]),
            raw(LEVEL_UDP, UDP_SEGMENT, &[0; 4]),
            raw(LEVEL_IPV6, IPV6_PKTINFO, &[1; 20]),
        ];
        for one in bad {
            assert_eq!(Wishes::read(&[one], true), Err(Errno::EINVAL));
        }
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        let info = raw(LEVEL_IPV6, IPV6_PKTINFO, &[&mapped[..], &[0; 4]].concat());
        let source = Wishes::read(core::slice::from_ref(&info), true).unwrap().source;
        assert_eq!(source, Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(Wishes::read(&[info], false), Err(Errno::EINVAL));
        let usual = raw(LEVEL_IPV6, IPV6_TCLASS, &(-1i32).to_ne_bytes());
        assert_eq!(Wishes::read(&[usual], false).unwrap().tos, None);
    }
}
