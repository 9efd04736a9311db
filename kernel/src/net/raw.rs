//! Raw IP sockets and ping sockets: copies of whole packets (raw(7)).

use super::addr::IpAddr;
use super::hearers::Hearers;
use super::ip::Header;
use super::packet::Packet;
use crate::event::Events;
use crate::sync::{SpinLock, WaitQueue};
use alloc::collections::VecDeque;
use alloc::sync::Arc;

/// Packets that may wait in one raw socket.
const QUEUE: usize = 256;

/// The receiving side of a raw socket.
pub struct Endpoint {
    /// Transport protocol that it hears.
    pub protocol: u8,
    /// IPv6.
    pub v6: bool,
    /// Readiness.
    pub queue: Arc<WaitQueue>,
    state: SpinLock<State>,
}

#[derive(Default)]
struct State {
    local: Option<IpAddr>,
    peer: Option<IpAddr>,
    received: VecDeque<(IpAddr, Packet)>,
}

impl Endpoint {
    /// Hears `protocol` from everywhere.
    pub fn new(protocol: u8, v6: bool, queue: Arc<WaitQueue>) -> Arc<Endpoint> {
        Arc::new(Endpoint { protocol, v6, queue, state: SpinLock::new(State::default()) })
    }
    /// Limits it to packets to `addr`.
    pub fn bind(&self, addr: Option<IpAddr>) {
        self.state.lock().local = addr;
    }
    /// Limits it to packets from `addr`.
    pub fn connect(&self, addr: Option<IpAddr>) {
        self.state.lock().peer = addr;
    }
    /// Bound and connected address.
    pub fn addresses(&self) -> (Option<IpAddr>, Option<IpAddr>) {
        let state = self.state.lock();
        (state.local, state.peer)
    }
    /// The oldest packet and its sender. IPv4 packets include their IP header, IPv6 ones don't.
    pub fn take(&self) -> Option<(IpAddr, Packet)> {
        self.state.lock().received.pop_front()
    }
    /// Puts a packet back in front.
    pub fn put_back(&self, from: IpAddr, packet: Packet) {
        self.state.lock().received.push_front((from, packet));
    }
    /// Length of the oldest packet.
    pub fn next_len(&self) -> Option<usize> {
        self.state.lock().received.front().map(|(_, packet)| packet.len())
    }
}

/// The raw sockets of a stack.
pub type Table = Hearers<Endpoint>;

impl Table {
    /// Copies a packet to every socket that wants it.
    pub fn input(&self, packet: &Packet, header: &Header) {
        let v6 = header.src.is_ipv6();
        let receivers = self.those(|endpoint| {
            let (local, peer) = endpoint.addresses();
            endpoint.v6 == v6
                && endpoint.protocol == header.protocol
                && local.is_none_or(|local| local == header.dst)
                && peer.is_none_or(|peer| peer == header.src)
        });
        for endpoint in receivers {
            let from = if v6 { header.header_len } else { 0 };
            let bytes = &packet.bytes()[from..header.total_len];
            let Some(copy) = Packet::from_slice(bytes) else { return };
            let mut state = endpoint.state.lock();
            if state.received.len() < QUEUE {
                state.received.push_back((header.src, copy));
            }
            drop(state);
            endpoint.queue.wake_one(Events::IN | Events::RDNORM);
        }
    }
}
