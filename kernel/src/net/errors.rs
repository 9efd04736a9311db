//! Error queues of datagram sockets (ip(7) `IP_RECVERR`, ipv6(7) `IPV6_RECVERR`).

use super::addr::{IpAddr, SocketAddr};
use crate::errno::Errno;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Errors that may wait in one socket; each has the start of a datagram with it.
const LIMIT: usize = 64;

/// Who told of an error, as `ee_origin` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This host (`SO_EE_ORIGIN_LOCAL`).
    Local = 1,
    /// `SO_EE_ORIGIN_ICMP`.
    Icmp = 2,
    /// `SO_EE_ORIGIN_ICMP6`.
    Icmp6 = 3,
}

/// What is known of a datagram that did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means.
    pub error: Errno,
    /// Who says so.
    pub origin: Origin,
    /// Type and code of the message.
    pub icmp: [u8; 2],
    /// The largest packet that the path takes, where that is the trouble.
    pub mtu: u32,
    /// The sender of the message; `None`: this host.
    pub offender: Option<IpAddr>,
    /// Where the datagram went.
    pub remote: SocketAddr,
    /// The start of what it carried, as far as it was quoted.
    pub payload: Vec<u8>,
}

impl Failure {
    /// `struct sock_extended_err`.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = u32::from(self.error.0).to_ne_bytes().to_vec();
        out.extend([self.origin as u8, self.icmp[0], self.icmp[1], 0]);
        out.extend(self.mtu.to_ne_bytes());
        out.extend([0; 4]);
        out
    }
}

/// Errors that wait for `recvmsg(MSG_ERRQUEUE)`.
#[derive(Default)]
pub struct ErrorQueue {
    /// Whether the socket asked for those of IPv4, those of IPv6.
    wanted: [bool; 2],
    waiting: VecDeque<Failure>,
}

impl ErrorQueue {
    /// Turns it on or off for IPv4 and for IPv6; off for both, what waits is forgotten.
    pub fn want(&mut self, wanted: [bool; 2]) {
        self.wanted = wanted;
        if !wanted.contains(&true) {
            self.waiting = VecDeque::new();
        }
    }

    /// Whether the socket asked for errors like this one.
    pub fn wants(&self, failure: &Failure) -> bool {
        self.wanted[usize::from(failure.remote.is_ipv6())]
    }

    /// Keeps an error, if there is room.
    pub fn push(&mut self, failure: Failure) {
        if self.waiting.len() < LIMIT {
            self.waiting.push_back(failure);
        }
    }

    /// The oldest, and what the next one means, which becomes the socket's pending error.
    pub fn pop(&mut self) -> Option<(Failure, Option<Errno>)> {
        let first = self.waiting.pop_front()?;
        let next = self.waiting.front().filter(|next| next.origin != Origin::Local);
        Some((first, next.map(|next| next.error)))
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_wait_in_order_and_within_bounds() {
        let failure = |port: u16| Failure {
            error: Errno::ECONNREFUSED,
            origin: Origin::Icmp,
            icmp: [3, 3],
            mtu: 0,
            offender: None,
            remote: SocketAddr::from(([10, 0, 0, 1], port)),
            payload: Vec::new(),
        };
        let mut queue = ErrorQueue::default();
        for port in 0..100 {
            queue.push(failure(port));
        }
        let (first, next) = queue.pop().unwrap();
        assert_eq!((first.remote.port(), next), (0, Some(Errno::ECONNREFUSED)));
        assert_eq!(first.emit(), [111, 0, 0, 0, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((1..LIMIT).filter(|_| queue.pop().is_some()).count(), LIMIT - 1);
        assert!(queue.is_empty());
        queue.push(failure(1));
        assert_eq!(queue.pop().unwrap().1, None);
    }
}
