//! IPv4 in Ethernet frames, as far as a resolver and a translator need it (RFC 894, 791, 768, 9293).

use std::net::Ipv4Addr;

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// Destination of a frame.
pub fn destination(frame: &[u8]) -> Option<[u8; 6]> {
    frame.get(..6)?.try_into().ok()
}

/// Source of a frame.
pub fn source(frame: &[u8]) -> Option<[u8; 6]> {
    frame.get(6..12)?.try_into().ok()
}

/// Whether it asks or answers who has an address.
pub fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ARP)
}

/// A datagram in a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram<'f> {
    /// Address and port that it is from.
    pub from: (Ipv4Addr, u16),
    /// Address and port that it is for.
    pub to: (Ipv4Addr, u16),
    /// What it says.
    pub payload: &'f [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn address_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// Reads a whole, unfragmented datagram; `None` if the frame is anything else.
pub fn datagram(frame: &[u8]) -> Option<Datagram<'_>> {
    if frame.get(12..14)? != IPV4 {
        return None;
    }
    let ip = frame.get(ETHERNET..)?;
    let (version, header) = (ip.first()? >> 4, usize::from(ip.first()? & 15) * 4);
    let (total, fragment) = (usize::from(u16_at(ip, 2)?), u16_at(ip, 6)? & 0x3fff);
    if version != 4 || header < IP_HEADER || fragment != 0 || *ip.get(9)? != UDP {
        return None;
    }
    let udp = ip.get(header..total)?;
    let payload = udp.get(UDP_HEADER..usize::from(u16_at(udp, 4)?))?;
    Some(Datagram {
        from: (address_at(ip, 12)?, u16_at(udp, 0)?),
        to: (address_at(ip, 16)?, u16_at(udp, 2)?),
        payload,
    })
}

/// A segment of TCP or a datagram of UDP that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Address and port that it is from.
    pub from: (Ipv4Addr, u16),
    /// Address and port that it is for.
    pub to: (Ipv4Addr, u16),
    /// TCP's number or UDP's.
    pub protocol: u8,
    /// Where its header begins in the frame.
    at: usize,
}

/// Where an IPv4 packet is for.
pub fn ip_destination(frame: &[u8]) -> Option<Ipv4Addr> {
    (frame.get(12..14)? == IPV4).then(|| address_at(frame, ETHERNET + 16))?
}

/// Reads addresses and ports; `None` of fragments and of everything else.
pub fn packet(frame: &[u8]) -> Option<Packet> {
    if frame.get(12..14)? != IPV4 {
        return None;
    }
    let ip = frame.get(ETHERNET..)?;
    let (version, header) = (ip.first()? >> 4, usize::from(ip.first()? & 15) * 4);
    let (fragment, protocol) = (u16_at(ip, 6)? & 0x3fff, *ip.get(9)?);
    if version != 4 || header < IP_HEADER || fragment != 0 {
        return None;
    }
    let shortest = match protocol {
        TCP => 20,
        UDP => UDP_HEADER,
        _ => return None,
    };
    let inner = ip.get(header..).filter(|inner| inner.len() >= shortest)?;
    Some(Packet {
        from: (address_at(ip, 12)?, u16_at(inner, 0)?),
        to: (address_at(ip, 16)?, u16_at(inner, 2)?),
        protocol,
        at: ETHERNET + header,
    })
}

/// The same frame from or for others, its checksums brought along (RFC 1624).
pub fn readdressed(
    frame: &[u8],
    packet: &Packet,
    from: Option<(Ipv4Addr, u16)>,
    to: Option<(Ipv4Addr, u16)>,
    destination: Option<[u8; 6]>,
) -> Option<Vec<u8>> {
    let mut out = frame.to_vec();
    if let Some(destination) = destination {
        out.get_mut(..6)?.copy_from_slice(&destination);
    }
    let ip_sum = ETHERNET + 10;
    let inner_sum = packet.at + if packet.protocol == TCP { 16 } else { 6 };
    // A datagram may have none.
    let has_sum = packet.protocol == TCP || u16_at(&out, inner_sum)? != 0;
    let mut put = |at: usize, value: u16, of_ip: bool| -> Option<()> {
        let old = u16_at(&out, at)?;
        let sums = [of_ip.then_some(ip_sum), has_sum.then_some(inner_sum)];
        for sum in sums.into_iter().flatten() {
            let mut new = adjusted(u16_at(&out, sum)?, old, value);
            if sum == inner_sum && packet.protocol == UDP && new == 0 {
                new = 0xffff;
            }
            out.get_mut(sum..sum + 2)?.copy_from_slice(&new.to_be_bytes());
        }
        out.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
        Some(())
    };
    for (end, address_at, port_at) in
        [(from, ETHERNET + 12, packet.at), (to, ETHERNET + 16, packet.at + 2)]
    {
        let Some((address, port)) = end else { continue };
        let [a, b, c, d] = address.octets();
        put(address_at, u16::from_be_bytes([a, b]), true)?;
        put(address_at + 2, u16::from_be_bytes([c, d]), true)?;
        put(port_at, port, false)?;
    }
    Some(out)
}

/// A checksum after one of the words under it has changed.
fn adjusted(sum: u16, old: u16, new: u16) -> u16 {
    let mut total = u32::from(!sum) + u32::from(!old) + u32::from(new);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    // Folded to 16 bits.
    !(total as u16)
}

/// The frame that answers `frame`, in which `asked` is, with another payload.
pub fn answer(frame: &[u8], asked: &Datagram<'_>, payload: &[u8]) -> Option<Vec<u8>> {
    let udp_len = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let total = udp_len.checked_add(IP_HEADER as u16)?;
    let mut out = Vec::with_capacity(ETHERNET + usize::from(total));
    out.extend(source(frame)?);
    out.extend(destination(frame)?);
    out.extend(IPV4);
    // Version and header length, service, length; no fragments; time to live; checksum to come.
    out.extend([0x45, 0]);
    out.extend(total.to_be_bytes());
    out.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    out.extend(asked.to.0.octets());
    out.extend(asked.from.0.octets());
    let sum = !sum(0, &out[ETHERNET..]);
    out[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    let at = out.len();
    out.extend(asked.to.1.to_be_bytes());
    out.extend(asked.from.1.to_be_bytes());
    out.extend(udp_len.to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    // The pseudo header: both addresses, the protocol, the length.
    let pseudo = u32::from(UDP) + u32::from(udp_len);
    let pseudo = u32::from(self::sum(pseudo, &out[ETHERNET + 12..ETHERNET + IP_HEADER]));
    let sum = match !self::sum(pseudo, &out[at..]) {
        // Zero means that there is none.
        0 => 0xffff,
        sum => sum,
    };
    out[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
    Some(out)
}

/// The ones' complement sum of RFC 1071.
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits.
    sum as u16
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A frame with a query from 10.0.2.15 to the resolver.
    pub fn query(payload: &[u8]) -> Vec<u8> {
        let asked = Datagram {
            from: (super::super::RESOLVER, 53),
            to: (Ipv4Addr::new(10, 0, 2, 15), 40000),
            payload: &[],
        };
        let mut reverse = vec![0x52, 0x54, 10, 0, 2, 15, 0x52, 0x55, 10, 0, 2, 3];
        reverse.extend(IPV4);
        answer(&reverse, &asked, payload).unwrap()
    }

    /// A frame with a segment of TCP.
    pub fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
        let total = (40 + payload.len()) as u16;
        let mut out = [&super::super::mac(to.0)[..], &super::super::mac(from.0)].concat();
        out.extend(IPV4);
        out.extend([0x45, 0]);
        out.extend(total.to_be_bytes());
        out.extend([0, 1, 0x40, 0, 64, TCP, 0, 0]);
        out.extend(from.0.octets());
        out.extend(to.0.octets());
        let ip = !sum(0, &out[14..34]);
        out[24..26].copy_from_slice(&ip.to_be_bytes());
        out.extend(from.1.to_be_bytes());
        out.extend(to.1.to_be_bytes());
        out.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0x10, 0, 0, 0, 0, 0]);
        out.extend(payload);
        let pseudo = sum(u32::from(TCP) + u32::from(total - 20), &out[26..34]);
        let inner = !sum(pseudo.into(), &out[34..]);
        out[50..52].copy_from_slice(&inner.to_be_bytes());
        out
    }

    /// Whether the checksums of a frame with a segment of TCP hold.
    pub fn sums_are_right(frame: &[u8]) -> bool {
        let len = (frame.len() - 34) as u32;
        let pseudo = sum(u32::from(TCP) + len, &frame[26..34]);
        sum(0, &frame[14..34]) == 0xffff && sum(pseudo.into(), &frame[34..]) == 0xffff
    }

    #[test]
    fn an_answer_goes_back_to_where_the_question_came_from() {
        let frame = query(b"who is it");
        let asked = datagram(&frame).unwrap();
        assert_eq!(asked.to, (super::super::RESOLVER, 53));
        assert_eq!(asked.payload, b"who is it");
        let reply = answer(&frame, &asked, b"me").unwrap();
        let read = datagram(&reply).unwrap();
        assert_eq!((read.from, read.to, read.payload), (asked.to, asked.from, b"me".as_slice()));
        assert_eq!(destination(&reply), source(&frame));
        // Checksums come out as zero when they are summed with what they cover.
        assert_eq!(sum(0, &reply[14..34]), 0xffff);
        let pseudo = sum(u32::from(UDP) + 10, &reply[26..34]);
        assert_eq!(sum(pseudo.into(), &reply[34..]), 0xffff);
    }

    #[test]
    fn cut_frames_are_no_datagrams() {
        let frame = query(b"who is it");
        for len in 0..frame.len() {
            assert_eq!(datagram(&frame[..len]), None, "{len}");
        }
        let mut fragment = frame.clone();
        fragment[20] |= 0x20;
        assert_eq!(datagram(&fragment), None);
    }
}
