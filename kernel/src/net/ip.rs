//! IPv4 and IPv6 headers.

use super::addr::{IpAddr, Ipv4Addr, Ipv6Addr};
use super::checksum;
use super::packet::Packet;

/// Protocol numbers (IANA).
pub mod protocol {
    #![allow(missing_docs, reason = "the IANA names say it")]
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const UDPLITE: u8 = 136;
}

/// Length of an IPv4 header without options.
pub const V4_HEADER: usize = 20;
/// Length of an IPv6 header without extensions.
pub const V6_HEADER: usize = 40;

/// What the stack needs of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Transport protocol.
    pub protocol: u8,
    /// Where the transport header starts.
    pub header_len: usize,
    /// Where the packet ends; link padding follows.
    pub total_len: usize,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than its headers say, wrong version or wrong checksum.
    Header,
    /// A fragment: not reassembled.
    Fragment,
}

/// Reads and checks the IP header of a packet.
pub fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(bytes),
        Some(6) => parse_v6(bytes),
        _ => Err(Malformed::Header),
    }
}

fn parse_v4(bytes: &[u8]) -> Result<Header, Malformed> {
    let header: &[u8; V4_HEADER] = bytes.first_chunk().ok_or(Malformed::Header)?;
    let header_len = usize::from(header[0] & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < V4_HEADER
        || total_len < header_len
        || total_len > bytes.len()
        || !checksum::verify(0, &bytes[..header_len])
    {
        return Err(Malformed::Header);
    }
    // More fragments, or an offset.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(Malformed::Fragment);
    }
    Ok(Header {
        src: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
        dst: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
        protocol: header[9],
        header_len,
        total_len,
        ttl: header[8],
        tos: header[1],
    })
}

fn parse_v6(bytes: &[u8]) -> Result<Header, Malformed> {
    let header: &[u8; V6_HEADER] = bytes.first_chunk().ok_or(Malformed::Header)?;
    let total_len = V6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if total_len > bytes.len() {
        return Err(Malformed::Header);
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    let (mut next, mut at) = (header[6], V6_HEADER);
    // Hop-by-hop and destination options are skipped; each is at least eight bytes, so this ends.
    while matches!(next, 0 | 60) {
        let [following, len, ..] = bytes[at..total_len] else { return Err(Malformed::Header) };
        at += (usize::from(len) + 1) * 8;
        next = following;
        if at > total_len {
            return Err(Malformed::Header);
        }
    }
    if next == 44 {
        return Err(Malformed::Fragment);
    }
    Ok(Header {
        src: address(8).into(),
        dst: address(24).into(),
        protocol: next,
        header_len: at,
        total_len,
        ttl: header[7],
        tos: header[0] << 4 | header[1] >> 4,
    })
}

/// Puts an IP header in front of a transport packet.
pub fn prepend(packet: &mut Packet, src: &IpAddr, dst: &IpAddr, protocol: u8, ttl: u8, tos: u8) {
    let len = packet.len();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = packet.push_front(V4_HEADER);
            header.fill(0);
            header[0] = 0x45;
            header[1] = tos;
            header[2..4].copy_from_slice(&((len + V4_HEADER) as u16).to_be_bytes());
            // Never fragmented on the way, so the identification may be zero (RFC 6864).
            header[6] = 0x40;
            header[8] = ttl;
            header[9] = protocol;
            header[12..16].copy_from_slice(&src.octets());
            header[16..20].copy_from_slice(&dst.octets());
            checksum::fill(0, header, 10);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = packet.push_front(V6_HEADER);
            header[0] = 0x60 | tos >> 4;
            header[1] = tos << 4;
            header[2..4].fill(0);
            header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            header[6] = protocol;
            header[7] = ttl;
            header[8..24].copy_from_slice(&src.octets());
            header[24..40].copy_from_slice(&dst.octets());
        }
        // Callers choose the source by the destination's family.
        _ => debug_assert!(false, "mixed address families"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_and_damage_is_noticed() {
        let pairs = [("10.0.2.15", "10.0.2.2"), ("fe80::1", "fe80::2")];
        for (src, dst) in pairs {
            let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
            let mut packet = Packet::from_slice(b"payload").unwrap();
            prepend(&mut packet, &src, &dst, protocol::UDP, 64, 0x10);
            let header = parse(packet.bytes()).unwrap();
            assert_eq!((header.src, header.dst, header.protocol), (src, dst, protocol::UDP));
            assert_eq!((header.ttl, header.tos), (64, 0x10));
            assert_eq!(&packet.bytes()[header.header_len..header.total_len], b"payload");
            for len in 0..packet.len() {
                assert!(parse(&packet.bytes()[..len]).is_err());
            }
        }
        assert_eq!(parse(&[]), Err(Malformed::Header));
    }
}
