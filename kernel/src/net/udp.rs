//! UDP (RFC 768), and UDP-Lite (RFC 3828): the same, with a checksum that need not cover all of a
//! datagram.

use super::addr::{IpAddr, SocketAddr};
use super::checksum;
use super::errors::{ErrorQueue, Failure, Origin};
use super::filter::{self, Sharing, Slot};
use super::ip::{self, Header, protocol};
use super::owner::Owner;
use super::packet::Packet;
use super::stack::Stack;
use super::{dhcp, dhcp6, icmp};
use crate::bpf::{Program, View};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::map::{Several, Tree};
use crate::sync::{SpinLock, WaitQueue};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Length of a UDP header.
pub const HEADER: usize = 8;

/// One received datagram.
pub struct Datagram {
    /// Payload.
    pub packet: Packet,
    /// Sender.
    pub from: SocketAddr,
    /// Our address that it was sent to.
    pub to: IpAddr,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// When it came, monotonic nanoseconds.
    pub at: u64,
}

/// The receiving side of a UDP socket.
pub struct Endpoint {
    /// Readiness.
    pub queue: Arc<WaitQueue>,
    /// What the socket wants.
    pub filter: Slot,
    /// Whose it is.
    pub owner: Owner,
    /// Whom it shares its port with.
    pub sharing: Sharing,
    state: SpinLock<State>,
}

struct State {
    local: SocketAddr,
    dual: bool,
    peer: Option<SocketAddr>,
    received: VecDeque<Datagram>,
    bytes: usize,
    limit: usize,
    /// Least checksum coverage of what is taken (`UDPLITE_RECV_CSCOV`); 0: all of it.
    coverage: Option<u16>,
    error: Option<Errno>,
    failures: ErrorQueue,
    dropped: u64,
}

impl Endpoint {
    /// An end point at `local`.
    pub fn new(
        local: SocketAddr,
        dual: bool,
        limit: usize,
        queue: Arc<WaitQueue>,
        sharing: Sharing,
    ) -> Arc<Self> {
        Arc::new(Endpoint {
            queue,
            filter: Slot::default(),
            owner: Owner::default(),
            sharing,
            state: SpinLock::new(State {
                local,
                dual,
                peer: None,
                received: VecDeque::new(),
                bytes: 0,
                limit,
                coverage: None,
                error: None,
                failures: ErrorQueue::default(),
                dropped: 0,
            }),
        })
    }

    /// Our address.
    pub fn local(&self) -> SocketAddr {
        self.state.lock().local
    }
    /// Whether it takes IPv4 as well as IPv6.
    pub fn is_dual(&self) -> bool {
        self.state.lock().dual
    }
    /// The connected peer.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.state.lock().peer
    }
    /// Connects to `peer` from `local`; or, with `None`, to nobody.
    pub fn connect(&self, local: SocketAddr, peer: Option<SocketAddr>) {
        let mut state = self.state.lock();
        state.local = local;
        state.peer = peer;
    }
    /// Changes the receive buffer's size.
    pub fn set_limit(&self, limit: usize) {
        self.state.lock().limit = limit;
    }
    /// Drops datagrams of which the checksum covers less than so many bytes; 0: less than all.
    pub fn set_coverage(&self, least: Option<u16>) {
        self.state.lock().coverage = least;
    }
    /// Takes the pending error.
    pub fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }
    /// Whether failures are kept, of IPv4 (`IP_RECVERR`) and of IPv6.
    pub fn want_failures(&self, wanted: [bool; 2]) {
        self.state.lock().failures.want(wanted);
    }
    /// The oldest failure; the next one's error becomes the pending one.
    pub fn take_failure(&self) -> Option<Failure> {
        let mut state = self.state.lock();
        let (failure, next) = state.failures.pop()?;
        if failure.origin != Origin::Local {
            state.error = next;
        }
        Some(failure)
    }
    /// Hears of a datagram that failed: in the queue, if failures are kept. Otherwise only a
    /// connected socket hears of it, and only if it is `fatal`.
    pub fn failed(&self, failure: Failure, fatal: bool) {
        let mut state = self.state.lock();
        let error = failure.error;
        let local = failure.origin == Origin::Local;
        if state.failures.wants(&failure) {
            state.failures.push(failure);
        } else if local || !fatal || state.peer != Some(failure.remote) {
            return;
        }
        if !local {
            state.error = Some(error);
        }
        drop(state);
        self.queue.wake_all(Events::ERR | Events::IN | Events::OUT);
    }
    /// The oldest datagram.
    pub fn take(&self) -> Option<Datagram> {
        let mut state = self.state.lock();
        let datagram = state.received.pop_front()?;
        state.bytes -= cost(&datagram);
        Some(datagram)
    }
    /// Puts a datagram back in front (peeked, or its reader's buffer was bad).
    pub fn put_back(&self, datagram: Datagram) {
        let mut state = self.state.lock();
        state.bytes += cost(&datagram);
        state.received.push_front(datagram);
    }
    /// Length of the oldest datagram (`FIONREAD`).
    pub fn next_len(&self) -> Option<usize> {
        self.state.lock().received.front().map(|datagram| datagram.packet.len())
    }
    /// Present readiness.
    pub fn events(&self) -> Events {
        let state = self.state.lock();
        let mut events = Events::OUT | Events::WRNORM;
        if !state.received.is_empty() {
            events |= Events::IN | Events::RDNORM;
        }
        if state.error.is_some() || !state.failures.is_empty() {
            events |= Events::ERR;
        }
        events
    }
    /// Local and remote address, receive queue bytes, drops; for /proc/net/udp.
    pub fn describe(&self) -> (SocketAddr, Option<SocketAddr>, usize, u64) {
        let state = self.state.lock();
        (state.local, state.peer, state.bytes, state.dropped)
    }

    /// How well it fits a datagram: `None` not at all, more is better.
    fn score(&self, from: &SocketAddr, to: &IpAddr) -> Option<u8> {
        let state = self.state.lock();
        let mine = state.local.ip();
        let by_addr = if mine == *to {
            2
        } else if mine.is_unspecified() && (mine.is_ipv4() == to.is_ipv4() || state.dual) {
            u8::from(mine.is_ipv4() == to.is_ipv4())
        } else {
            return None;
        };
        match state.peer {
            Some(peer) if peer.ip() == from.ip() && peer.port() == from.port() => Some(by_addr + 4),
            Some(_) => None,
            None => Some(by_addr),
        }
    }

    /// `covered`: bytes under the checksum, if that isn't all.
    fn deliver(&self, datagram: Datagram, covered: Option<u16>) {
        let mut state = self.state.lock();
        let thin = match (state.coverage, covered) {
            (Some(least), Some(covered)) => least == 0 || covered < least,
            _ => false,
        };
        // One datagram always fits, as in Linux.
        if thin || state.bytes > 0 && state.bytes + cost(&datagram) > state.limit {
            state.dropped += 1;
            return;
        }
        state.bytes += cost(&datagram);
        state.received.push_back(datagram);
        drop(state);
        self.queue.wake_one(Events::IN | Events::RDNORM);
    }
}

/// Buffer memory that a datagram occupies.
fn cost(datagram: &Datagram) -> usize {
    datagram.packet.len() + 256
}

/// The UDP end points of a stack.
pub struct Table {
    ports: SpinLock<Tree<Several<Arc<Endpoint>>>>,
}

impl Table {
    /// Empty.
    pub fn new() -> Table {
        Table { ports: SpinLock::new(Tree::new()) }
    }
    /// Adds an end point.
    pub fn insert(&self, endpoint: Arc<Endpoint>) {
        let local = endpoint.local();
        let mut ports = self.ports.lock();
        let list = ports.get_or_insert_with(u128::from(local.port()), Box::default);
        if let Some(other) = list.iter().find(|other| shares(other, &local, &endpoint.sharing)) {
            endpoint.sharing.join(&other.sharing);
        }
        list.push(endpoint);
    }
    /// Replaces the program that chooses among those which share a port.
    pub fn set_selector(&self, endpoint: &Endpoint, selector: Option<Program>) {
        let local = endpoint.local();
        endpoint.sharing.selector.replace(selector);
        let ports = self.ports.lock();
        let list = ports.get(u128::from(local.port())).into_iter().flat_map(|list| list.iter());
        for other in list.filter(|other| shares(other, &local, &endpoint.sharing)) {
            other.sharing.join(&endpoint.sharing);
        }
    }
    /// Removes one.
    pub fn remove(&self, endpoint: &Arc<Endpoint>) {
        let port = endpoint.local().port();
        let mut ports = self.ports.lock();
        if let Some(list) = ports.get_mut(u128::from(port)) {
            list.retain(|other| !Arc::ptr_eq(other, endpoint));
            if list.is_empty() {
                ports.remove(u128::from(port));
            }
        }
    }
    /// All of them.
    pub fn snapshot(&self) -> Vec<Arc<Endpoint>> {
        self.ports.lock().values().flat_map(|list| list.iter()).cloned().collect()
    }

    /// Those that a datagram is for: the best one, or all that fit if it went to a group.
    fn receivers(
        &self,
        from: &SocketAddr,
        to: &SocketAddr,
        group: bool,
        payload: &[u8],
    ) -> Vec<Arc<Endpoint>> {
        let ports = self.ports.lock();
        let Some(list) = ports.get(u128::from(to.port())) else { return Vec::new() };
        let scored = |endpoint: &&Arc<Endpoint>| endpoint.score(from, &to.ip()).is_some();
        if group {
            return list.iter().filter(scored).cloned().collect();
        }
        let best = list.iter().filter_map(|endpoint| endpoint.score(from, &to.ip())).max();
        let Some(best) = best else { return Vec::new() };
        let mut fitting: Vec<_> = list
            .iter()
            .filter(|endpoint| endpoint.score(from, &to.ip()) == Some(best))
            .cloned()
            .collect();
        if fitting.len() == 1 {
            return fitting;
        }
        // Without a program the same sender always reaches the same socket.
        let selector = fitting[0].sharing.selector.get();
        let choice = filter::choose(selector, fitting.len(), payload, hash(from));
        fitting.swap(0, choice);
        fitting.truncate(1);
        fitting
    }

    /// Whether somebody sends from `local`.
    pub fn has(&self, local: &SocketAddr) -> bool {
        self.ports.lock().contains_key(u128::from(local.port()))
    }

    /// An ICMP error about something that was sent from `local`.
    pub fn failed(&self, local: &SocketAddr, failure: Failure, fatal: bool) {
        let list = self.ports.lock().get(u128::from(local.port())).cloned().unwrap_or_default();
        let sent = |endpoint: &&Arc<Endpoint>| endpoint.score(&failure.remote, &local.ip());
        // The one that answers would have come to.
        if let Some(endpoint) = list.iter().max_by_key(sent).filter(|it| sent(it).is_some()) {
            endpoint.failed(failure, fatal);
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Table::new()
    }
}

/// Whether a socket at `local` is one of those that share their port with `other`.
fn shares(other: &Endpoint, local: &SocketAddr, sharing: &Sharing) -> bool {
    other.sharing.is_with(sharing) && other.local().ip() == local.ip()
}

fn hash(addr: &SocketAddr) -> u64 {
    let bits = match addr.ip() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let mixed = (bits >> 64) as u64 ^ bits as u64 ^ u64::from(addr.port()) << 32;
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17
}

/// Length of a datagram, and how much of it its checksum covers. `None` if it is malformed.
fn extent(lite: bool, field: u16, available: usize) -> Option<(usize, usize)> {
    let field = usize::from(field);
    let (len, covered) = match (lite, field) {
        (true, 0) => (available, available),
        (true, field) => (available, field),
        (false, field) => (field, field),
    };
    (HEADER..=available).contains(&covered).then_some((len, covered))
}

/// A packet of UDP or UDP-Lite has come in; `packet` starts at the IP header.
pub fn input(stack: &Arc<Stack>, mut packet: Packet, header: &Header, loopback: bool) {
    packet.truncate(header.total_len);
    let bytes = &packet.bytes()[header.header_len..];
    let Some(udp) = bytes.first_chunk::<HEADER>() else { return };
    let lite = header.protocol == protocol::UDPLITE;
    let field = u16::from_be_bytes([udp[4], udp[5]]);
    let Some((len, covered)) = extent(lite, field, bytes.len()) else { return };
    // UDP-Lite has no datagrams without a checksum.
    let unsummed = udp[6..8] == [0, 0] && header.src.is_ipv4() && !lite;
    if !packet.offload.checksum && !unsummed {
        let sum = checksum::pseudo_header(&header.src, &header.dst, header.protocol, len);
        if !checksum::verify(sum, &bytes[..covered]) {
            return;
        }
    }
    let partly = (covered < len).then_some(field);
    let from = SocketAddr::new(header.src, u16::from_be_bytes([udp[0], udp[1]]));
    let to = SocketAddr::new(header.dst, u16::from_be_bytes([udp[2], udp[3]]));
    let wire = !loopback && !lite;
    if wire && to.port() == dhcp::CLIENT_PORT && from.port() == dhcp::SERVER_PORT {
        return dhcp::input(stack, &bytes[HEADER..len]);
    }
    if wire && to.port() == dhcp6::CLIENT_PORT && from.port() == dhcp6::SERVER_PORT {
        return dhcp6::input(stack, &bytes[HEADER..len]);
    }
    let local = stack.is_local(&to.ip());
    let group = !local && stack.is_group(&to.ip());
    if !local && !group {
        return;
    }
    let payload = &bytes[HEADER..len];
    let mut receivers = stack.datagrams(lite).0.receivers(&from, &to, group, payload);
    let Some(last) = receivers.pop() else {
        if !group {
            icmp::unreachable(stack, &packet, header, loopback);
        }
        return;
    };
    let front = header.header_len + HEADER;
    packet.truncate(front + len - HEADER);
    // How much of the payload a receiver wants.
    let wanted = |receiver: &Endpoint, packet: &Packet| {
        let view = View::ip(packet.bytes(), header.header_len);
        let wanted = receiver.filter.wanted(view);
        if wanted == 0 {
            receiver.state.lock().dropped += 1;
            return None;
        }
        Some((packet.len() - front).min(wanted.saturating_sub(HEADER)))
    };
    let datagram = |packet| Datagram {
        packet,
        from,
        to: to.ip(),
        ttl: header.ttl,
        tos: header.tos,
        at: stack.now(),
    };
    for receiver in receivers {
        if let Some(len) = wanted(&receiver, &packet)
            && let Some(copy) = Packet::from_slice(&packet.bytes()[front..front + len])
        {
            receiver.deliver(datagram(copy), partly);
        }
    }
    if let Some(len) = wanted(&last, &packet) {
        packet.truncate(front + len);
        packet.trim_front(front);
        last.deliver(datagram(packet), partly);
    }
}

/// How a datagram is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// Fail rather than send it in pieces.
    pub whole: bool,
    /// One to a group comes back to its members here.
    pub echo: bool,
    /// As UDP-Lite, with so many bytes under the checksum; 0: all.
    pub lite: Option<u16>,
}

/// Sends one datagram, in pieces if its path is narrow. ENETUNREACH without a route.
pub fn send(
    stack: &Stack,
    from: SocketAddr,
    to: SocketAddr,
    payload: Packet,
    ttl: u8,
    tos: u8,
) -> Result<()> {
    let how = Sending { ttl, tos, whole: false, echo: true, lite: None };
    send_as(stack, from, to, payload, how)
}

/// As [`send`]. EMSGSIZE if it is to stay whole and can't.
pub fn send_as(
    stack: &Stack,
    from: SocketAddr,
    to: SocketAddr,
    mut payload: Packet,
    how: Sending,
) -> Result<()> {
    let route = stack.route(&to.ip()).ok_or(Errno::ENETUNREACH)?;
    let source = match from.ip() {
        any if any.is_unspecified() => stack.source(&to.ip()).ok_or(Errno::ENETUNREACH)?,
        addr => addr,
    };
    let target = if to.ip().is_unspecified() { source } else { to.ip() };
    if source.is_ipv4() != target.is_ipv4() {
        return Err(Errno::ENETUNREACH);
    }
    let len = payload.len() + HEADER;
    let header = payload.push_front(HEADER);
    header[0..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    let covered = match how.lite {
        Some(covered) if covered != 0 => len.min(usize::from(covered).max(HEADER)),
        _ => len,
    };
    let protocol = if how.lite.is_some() { protocol::UDPLITE } else { protocol::UDP };
    header[4..6].copy_from_slice(&(covered as u16).to_be_bytes());
    header[6..8].fill(0);
    if !route.loopback {
        let sum = checksum::pseudo_header(&source, &target, protocol, len);
        let bytes = &mut payload.bytes_mut()[..covered];
        checksum::fill(sum, bytes, 6);
        if bytes[6..8] == [0, 0] {
            // Zero would mean "no checksum".
            bytes[6..8].fill(0xff);
        }
    }
    ip::prepend(&mut payload, &source, &target, protocol, how.ttl, how.tos);
    let echo = how.echo && route.group.is_some() && stack.is_group(&target);
    if let Some(copy) = echo.then(|| Packet::from_slice(payload.bytes())).flatten() {
        stack.loop_back(copy);
    }
    if how.ttl == 0 && !route.loopback {
        return Ok(());
    }
    stack.output_datagram(payload, &route, &target, how.whole)
}
