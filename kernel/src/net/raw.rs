//! Raw IP sockets and ping sockets: copies of whole packets (raw(7)).

use super::addr::IpAddr;
use super::filter::Slot;
use super::hearers::Hearers;
use super::ip::{Header, protocol};
use super::owner::Owner;
use super::packet::Packet;
use crate::bpf::View;
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
    /// Whose it is.
    pub owner: Owner,
    /// What the socket wants.
    pub filter: Slot,
    state: SpinLock<State>,
}

#[derive(Default)]
struct State {
    local: Option<IpAddr>,
    peer: Option<IpAddr>,
    received: VecDeque<(IpAddr, Packet)>,
    /// Types of ICMP that it doesn't hear, a bit each.
    deaf: [u32; 8],
}

impl Endpoint {
    /// Hears `protocol` from everywhere.
    pub fn new(protocol: u8, v6: bool, queue: Arc<WaitQueue>) -> Arc<Endpoint> {
        let state = SpinLock::new(State::default());
        Arc::new(Endpoint {
            protocol,
            v6,
            queue,
            filter: Slot::default(),
            owner: Owner::default(),
            state,
        })
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
    /// Types of ICMP that it doesn't hear: `ICMP_FILTER` in one word, `ICMP6_FILTER` in eight.
    pub fn deaf(&self) -> [u32; 8] {
        self.state.lock().deaf
    }
    /// Changes them.
    pub fn set_deaf(&self, deaf: [u32; 8]) {
        self.state.lock().deaf = deaf;
    }
    /// The oldest packet and its sender. IPv4 packets include their IP header, IPv6 ones don't.
    pub fn take(&self) -> Option<(IpAddr, Packet)> {
        self.state.lock().received.pop_front()
    }
    /// Puts a packet back in front.
    pub fn put_back(&self, from: IpAddr, packet: Packet) {
        self.state.lock().received.push_front((from, packet));
    }
    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().received.iter().map(|(_, packet)| packet.len()).sum()
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
            if matches!(header.protocol, protocol::ICMP | protocol::ICMPV6) {
                let kind = packet.bytes().get(header.header_len).copied().unwrap_or(0);
                if endpoint.deaf()[usize::from(kind / 32)] >> (kind % 32) & 1 != 0 {
                    continue;
                }
            }
            let wanted =
                endpoint.filter.wanted(View::ip(&packet.bytes()[..header.total_len], from));
            if wanted == 0 {
                continue;
            }
            let bytes = &bytes[..bytes.len().min(wanted)];
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
