//! What becomes of packets we sent: errors and path sizes that routers and neighbours tell
//! (RFC 1122 4.2.3.9, RFC 1191, RFC 8201).

use super::addr::{IpAddr, SocketAddr};
use super::errors::{Failure, Origin};
use super::ip::{V4_HEADER, V6_HEADER, protocol};
use super::stack::Stack;
use super::tcp::{Found, Key};
use crate::errno::Errno;
use alloc::sync::Arc;

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It did not arrive, and others won't.
    Lost(Errno),
    /// It did not arrive; others may. Only who asks for such errors hears of them.
    Astray(Errno),
    /// It was longer than the path takes: so many bytes.
    TooBig(usize),
}

/// Who tells, and by which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Teller {
    /// Its address; `None`: this host.
    pub addr: Option<IpAddr>,
    /// Type and code of the ICMP message.
    pub icmp: [u8; 2],
}

/// Tells the socket that sent `quoted`, the start of an IP packet of ours.
pub fn report(stack: &Arc<Stack>, teller: Teller, quoted: &[u8], trouble: Trouble) {
    let Some((kind, src, dst, at)) = header(quoted) else { return };
    let Some([s0, s1, d0, d1, rest @ ..]) = quoted.get(at..) else { return };
    let local = SocketAddr::new(src, u16::from_be_bytes([*s0, *s1]));
    let remote = SocketAddr::new(dst, u16::from_be_bytes([*d0, *d1]));
    if matches!(kind, protocol::UDP | protocol::UDPLITE) {
        let table = stack.datagrams(kind == protocol::UDPLITE).0;
        let (error, mtu) = match trouble {
            Trouble::Lost(error) | Trouble::Astray(error) => (error, 0),
            Trouble::TooBig(mtu) => (Errno::EMSGSIZE, mtu),
        };
        if mtu != 0 && table.has(&local) {
            stack.learn_path(dst, mtu);
        }
        let origin = if src.is_ipv4() { Origin::Icmp } else { Origin::Icmp6 };
        let failure = Failure {
            error,
            origin,
            icmp: teller.icmp,
            mtu: mtu as u32,
            offender: teller.addr,
            remote,
            payload: rest.get(4..).unwrap_or_default().to_vec(),
        };
        return table.failed(&local, failure, !matches!(trouble, Trouble::Astray(_)));
    }
    if kind != protocol::TCP {
        return;
    }
    let Found::Conn(conn) = stack.tcp.find(&Key::new(local, remote)) else { return };
    // Who doesn't see our packets can't know the sequence number.
    let Some(seq) = rest.first_chunk().map(|seq| u32::from_be_bytes(*seq)) else { return };
    if !conn.lock().under_way(seq) {
        return;
    }
    match trouble {
        Trouble::Lost(error) | Trouble::Astray(error) => conn.unreachable(error),
        Trouble::TooBig(mtu) => {
            stack.learn_path(dst, mtu);
            conn.path_mtu(stack.path_mtu(&dst));
        }
    }
}

/// Protocol, addresses, and where the transport header starts.
fn header(quoted: &[u8]) -> Option<(u8, IpAddr, IpAddr, usize)> {
    if quoted.first()? >> 4 == 4 {
        let head = quoted.first_chunk::<V4_HEADER>()?;
        let addr = |at: usize| IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        return Some((head[9], addr(12), addr(16), usize::from(head[0] & 15) * 4));
    }
    let head = quoted.first_chunk::<V6_HEADER>()?;
    let addr = |at: usize| <[u8; 16]>::try_from(&head[at..at + 16]).map(IpAddr::from).ok();
    Some((head[6], addr(8)?, addr(24)?, V6_HEADER))
}
