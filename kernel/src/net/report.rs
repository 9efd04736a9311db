//! What becomes of packets we sent: errors and path sizes that routers and neighbours tell
//! (RFC 1122 4.2.3.9, RFC 1191, RFC 8201).

use super::addr::{IpAddr, SocketAddr};
use super::ip::{V4_HEADER, V6_HEADER, protocol};
use super::stack::Stack;
use super::tcp::{Found, Key};
use crate::errno::Errno;
use alloc::sync::Arc;

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It did not arrive.
    Lost(Errno),
    /// It was longer than the path takes: so many bytes.
    TooBig(usize),
}

/// Tells the socket that sent `quoted`, the start of an IP packet of ours.
pub fn report(stack: &Arc<Stack>, quoted: &[u8], trouble: Trouble) {
    let Some((kind, src, dst, at)) = header(quoted) else { return };
    let Some([s0, s1, d0, d1, rest @ ..]) = quoted.get(at..) else { return };
    let local = SocketAddr::new(src, u16::from_be_bytes([*s0, *s1]));
    let remote = SocketAddr::new(dst, u16::from_be_bytes([*d0, *d1]));
    if kind == protocol::UDP {
        return match trouble {
            Trouble::Lost(error) => stack.udp.error(&local, &remote, error),
            Trouble::TooBig(mtu) => {
                if stack.udp.has(&local) {
                    stack.learn_path(dst, mtu);
                    stack.udp.error(&local, &remote, Errno::EMSGSIZE);
                }
            }
        };
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
        Trouble::Lost(error) => conn.unreachable(error),
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
