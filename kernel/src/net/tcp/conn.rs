//! One TCP connection: smoltcp's state machine with an interface and a socket set of its own,
//! behind one lock.
//!
//! smoltcp keeps protocol state; this module adds what applications see of it: readiness, errors,
//! deadlines.

use super::listener::Listener;
use super::options::TcpOptions;
use super::table::Key;
use crate::errno::Errno;
use crate::event::Events;
use crate::net::addr::{IpAddr, SocketAddr};
use crate::net::checksum;
use crate::net::ip;
use crate::net::packet::{MAX_IP, Packet};
use crate::net::stack::{Route, Stack, Timeout};
use crate::sync::{SpinGuard, SpinLock, WaitQueue};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroUsize};
use core::sync::atomic::{AtomicU64, Ordering};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

const SECOND: u64 = 1_000_000_000;
/// How long connect(2) tries (Linux: six retries).
const SYN_TIMEOUT: u64 = 127 * SECOND;
/// How long an accepted SYN waits for the handshake to end (Linux: five retries).
const SYNACK_TIMEOUT: u64 = 63 * SECOND;
/// How long unacknowledged data is retried without `TCP_USER_TIMEOUT` (Linux: tcp_retries2).
const DATA_TIMEOUT: u64 = 924 * SECOND;
/// How long a connection without descriptor may linger (Linux: tcp_fin_timeout,
/// tcp_orphan_retries).
const FIN_TIMEOUT: u64 = 60 * SECOND;
/// How long `TCP_CORK` holds a partial segment back.
const CORK_TIME: u64 = SECOND / 5;

/// A connection, from its first SYN to the last reference to it.
pub struct Conn {
    /// Our end.
    pub local: SocketAddr,
    /// Their end.
    pub remote: SocketAddr,
    /// Hash key made of both.
    pub key: Key,
    /// Readiness changes are announced here.
    pub queue: Arc<WaitQueue>,
    /// The stack it lives in.
    pub stack: Arc<Stack>,
    inner: SpinLock<Inner>,
    /// Deadline of the timer entry that stands for us; `u64::MAX`: none.
    armed: AtomicU64,
}

/// The lock's contents.
pub struct Inner {
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    link: Link,
    /// The listener that a half-open connection belongs to.
    parent: Option<Weak<Listener>>,
    /// A descriptor (or an accept queue) refers to it.
    pub owned: bool,
    /// Pending SO_ERROR.
    error: Option<Errno>,
    /// State after the last step.
    seen: State,
    /// `shutdown(SHUT_RD)` was called.
    pub read_shut: bool,
    /// Somebody found no room to write; announce room.
    pub no_space: bool,
    /// Abort at this time.
    give_up: u64,
    /// When the peer was last heard.
    heard: u64,
    /// Partial segments are held back until then; 0: not corked.
    cork_until: u64,
    /// Bytes the application has taken since the peer last learnt the window.
    taken: usize,
    options: TcpOptions,
    /// Bytes and segments in both directions, for TCP_INFO.
    pub counters: Counters,
}

/// Traffic of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Segments sent.
    pub segments_out: u32,
    /// Segments received.
    pub segments_in: u32,
    /// Last data or acknowledgement sent, in nanoseconds.
    pub last_out: u64,
}

/// What smoltcp sees as its device: at most one packet in, any number out.
struct Link {
    caps: DeviceCapabilities,
    route: Route,
    /// Partial checksums only: the device (or nobody, on loopback) completes them.
    offload: bool,
    out: Vec<Packet>,
    /// Next sequence number that we would send, and that we expect.
    last: LastSegment,
}

/// What the peer last heard from us; remembered in TIME_WAIT.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastSegment {
    /// Sequence number after everything sent.
    pub snd_nxt: u32,
    /// Acknowledgement number.
    pub rcv_nxt: u32,
    /// Window field.
    pub window: u16,
}

struct Port<'a> {
    link: &'a mut Link,
    input: Option<&'a [u8]>,
}

struct Rx<'a>(&'a [u8]);
struct Tx<'a> {
    link: &'a mut Link,
    meta: PacketMeta,
}

impl Device for Port<'_> {
    type RxToken<'a>
        = Rx<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Tx<'a>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        let input = self.input.take()?;
        Some((Rx(input), Tx { link: self.link, meta: PacketMeta::default() }))
    }
    fn transmit(&mut self, _now: Instant) -> Option<Tx<'_>> {
        Some(Tx { link: self.link, meta: PacketMeta::default() })
    }
    fn capabilities(&self) -> DeviceCapabilities {
        self.link.caps.clone()
    }
}

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Some(mut packet) = Packet::new(len) else {
            // Out of memory: the segment is lost, as if on the wire, and is sent again.
            return f(&mut alloc::vec![0; len]);
        };
        let result = f(packet.bytes_mut());
        self.link.sent(&mut packet, self.meta);
        self.link.out.push(packet);
        result
    }
    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

impl Link {
    /// Notes sequence numbers and prepares offloads of an outgoing packet.
    fn sent(&mut self, packet: &mut Packet, meta: PacketMeta) {
        let bytes = packet.bytes_mut();
        let total = bytes.len();
        // smoltcp emits no options in front of TCP.
        let header = if bytes[0] >> 4 == 4 { ip::V4_HEADER } else { ip::V6_HEADER };
        let Some(tcp) = bytes.get_mut(header..).filter(|tcp| tcp.len() >= 20) else { return };
        let be32 = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let (seq, ack, flags) = (be32(4), be32(8), tcp[13]);
        let payload = (total - header - usize::from(tcp[12] >> 4) * 4) as u32;
        let next = seq.wrapping_add(payload).wrapping_add(u32::from(flags & 1));
        let next = next.wrapping_add(u32::from(flags >> 1 & 1));
        if next.wrapping_sub(self.last.snd_nxt) as i32 > 0 || flags & 2 != 0 {
            self.last.snd_nxt = next;
        }
        if flags & 0x10 != 0 {
            self.last.rcv_nxt = ack;
            self.last.window = u16::from_be_bytes([tcp[14], tcp[15]]);
        }
        let len = tcp.len();
        let (src, dst): (IpAddr, IpAddr) = if header == ip::V4_HEADER {
            let octets = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            (octets(12).into(), octets(16).into())
        } else {
            let octets = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&bytes[at..at + 16]);
                octets
            };
            (octets(8).into(), octets(24).into())
        };
        let sum = checksum::pseudo_header(&src, &dst, ip::protocol::TCP, len);
        if !self.offload {
            return checksum::fill(sum, &mut bytes[header..], 16);
        }
        let sum = checksum::fold(sum);
        bytes[header + 16..header + 18].copy_from_slice(&sum.to_le_bytes());
        packet.offload.checksum = true;
        packet.offload.segment = meta.segmentation_offload_size.map_or(0, NonZeroU16::get);
    }
}

impl Inner {
    /// The state machine.
    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
    fn socket_ref(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }
    /// Present TCP state.
    pub fn state(&self) -> State {
        self.socket_ref().state()
    }
    /// Bytes ready to be read.
    pub fn readable(&self) -> usize {
        self.socket_ref().recv_queue()
    }
    /// Room in the send buffer.
    pub fn room(&self) -> usize {
        let socket = self.socket_ref();
        socket.send_capacity() - socket.send_queue()
    }
    /// Bytes not yet acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.socket_ref().send_queue()
    }
    /// Sizes of the receive and send buffers.
    pub fn capacities(&self) -> (usize, usize) {
        let socket = self.socket_ref();
        (socket.recv_capacity(), socket.send_capacity())
    }
    /// Whether the peer has ended its half (or the connection is gone).
    pub fn peer_done(&self) -> bool {
        use State::*;
        matches!(self.state(), CloseWait | LastAck | Closing | TimeWait | Closed)
    }
    /// Whether our half still accepts data.
    pub fn may_send(&self) -> bool {
        self.socket_ref().may_send()
    }
    /// Whether the handshake has ended, one way or the other.
    pub fn connecting(&self) -> bool {
        matches!(self.state(), State::SynSent | State::SynReceived)
    }
    /// Takes the pending error.
    pub fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }
    /// The pending error.
    pub fn error(&self) -> Option<Errno> {
        self.error
    }
    /// The largest payload of one segment towards this peer.
    pub fn mss(&self) -> usize {
        self.link.caps.max_transmission_unit - if self.link.v6() { 60 } else { 40 }
    }
    /// Present readiness, as tcp_poll in Linux computes it.
    pub fn events(&mut self) -> Events {
        let state = self.state();
        let mut events = Events::empty();
        if self.error.is_some() {
            events |= Events::ERR;
        }
        let write_shut = !self.may_send() && !self.connecting();
        let read_shut = self.read_shut || self.peer_done();
        if state == State::Closed || (read_shut && write_shut) {
            events |= Events::HUP;
        }
        if read_shut {
            events |= Events::IN | Events::RDNORM | Events::RDHUP;
        }
        if self.connecting() {
            return events;
        }
        if self.readable() > 0 {
            events |= Events::IN | Events::RDNORM;
        }
        let (_, capacity) = self.capacities();
        if write_shut || self.room() * 3 >= capacity {
            events |= Events::OUT | Events::WRNORM;
        } else {
            self.no_space = true;
        }
        events
    }
    /// Holds partial segments back, or stops doing so.
    pub fn set_cork(&mut self, cork: bool, now: u64) {
        self.cork_until = if cork { now + CORK_TIME } else { 0 };
    }
    /// Applies options that the state machine must know.
    pub fn set_options(&mut self, options: TcpOptions, now: u64) {
        let idle = Duration::from_secs(u64::from(options.keep_idle));
        let keep_alive = options.keep_alive.then_some(idle);
        let socket = self.socket();
        socket.set_nagle_enabled(!options.no_delay);
        socket.set_keep_alive(keep_alive);
        socket.set_hop_limit(Some(options.ttl.max(1)));
        self.options = options;
        self.set_cork(options.cork, now);
    }
}

impl Link {
    fn v6(&self) -> bool {
        self.route.v6
    }
}

/// What to do with a connection after a step.
enum Fate {
    Keep,
    /// Forget it.
    Remove,
    /// Replace it by a tombstone.
    TimeWait(LastSegment),
}

impl Conn {
    /// A connection in the making. EADDRNOTAVAIL if smoltcp refuses the endpoints, ENOMEM without
    /// buffers.
    pub fn new(
        stack: &Arc<Stack>,
        local: SocketAddr,
        remote: SocketAddr,
        route: Route,
        queue: Arc<WaitQueue>,
        options: TcpOptions,
        parent: Option<&Arc<Listener>>,
    ) -> Result<Arc<Conn>, Errno> {
        let now = stack.now();
        let loopback = route.loopback;
        let offloads = stack.offloads();
        let offload = loopback || offloads.checksum;
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = if loopback { MAX_IP } else { stack.mtu() };
        caps.checksum.ipv4 = Checksum::Tx;
        // Received packets were verified by the device or by the demultiplexer; those sent get
        // theirs in `Link::sent`.
        caps.checksum.tcp = Checksum::None;
        if !loopback && offload {
            let whole = NonZeroUsize::new(MAX_IP);
            caps.segmentation.tcpv4 = whole.filter(|_| offloads.tso4);
            caps.segmentation.tcpv6 = whole.filter(|_| offloads.tso6);
        }
        let mut link = Link { caps, route, offload, out: Vec::new(), last: LastSegment::default() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = stack.random();
        let instant = instant(now);
        let mut iface = Interface::new(config, &mut Port { link: &mut link, input: None }, instant);
        let prefix = if local.is_ipv4() { 32 } else { 128 };
        iface.update_ip_addrs(|addrs| {
            // Room for at least one address is a compile-time constant of smoltcp.
            let _ = addrs.push(IpCidr::new(local.ip().into(), prefix));
        });
        let rx = SocketBuffer::new(buffer(options.receive_buffer)?);
        let tx = SocketBuffer::new(buffer(options.send_buffer)?);
        let mut socket = Socket::new(rx, tx);
        // Nothing is lost on loopback.
        socket.set_congestion_control(if loopback {
            CongestionControl::None
        } else {
            CongestionControl::Reno
        });
        let local_end = IpEndpoint::new(local.ip().into(), local.port());
        let give_up = match parent {
            Some(_) => {
                socket.listen(local_end).map_err(|_| Errno::EADDRNOTAVAIL)?;
                now + SYNACK_TIMEOUT
            }
            None => {
                let remote_end = IpEndpoint::new(remote.ip().into(), remote.port());
                socket
                    .connect(iface.context(), remote_end, local_end)
                    .map_err(|_| Errno::EADDRNOTAVAIL)?;
                now + SYN_TIMEOUT
            }
        };
        let seen = socket.state();
        let mut storage = Vec::new();
        storage.try_reserve_exact(1).map_err(|_| Errno::ENOMEM)?;
        storage.push(SocketStorage::EMPTY);
        let mut sockets = SocketSet::new(storage);
        let handle = sockets.add(socket);
        let mut inner = Inner {
            iface,
            sockets,
            handle,
            link,
            parent: parent.map(Arc::downgrade),
            owned: true,
            error: None,
            seen,
            read_shut: false,
            no_space: false,
            give_up,
            heard: now,
            cork_until: 0,
            taken: 0,
            options,
            counters: Counters::default(),
        };
        inner.set_options(options, now);
        Ok(Arc::new(Conn {
            local,
            remote,
            key: Key::new(local, remote),
            queue,
            stack: stack.clone(),
            inner: SpinLock::new(inner),
            armed: AtomicU64::new(u64::MAX),
        }))
    }

    /// Takes the lock.
    pub fn lock(&self) -> SpinGuard<'_, Inner> {
        self.inner.lock()
    }

    /// A packet for this connection (whole IP packet, checksums verified).
    pub fn input(self: &Arc<Self>, packet: &[u8]) {
        let now = self.stack.now();
        let mut inner = self.inner.lock();
        let before = (inner.readable(), inner.unacknowledged());
        inner.heard = now;
        inner.counters.segments_in += 1;
        {
            let Inner { iface, sockets, link, .. } = &mut *inner;
            let mut port = Port { link, input: Some(packet) };
            iface.poll_ingress_single(instant(now), &mut port, sockets);
        }
        self.step(inner, now, before, true);
    }

    /// After the application changed something: sends what can be sent and releases the lock.
    pub fn push(self: &Arc<Self>, inner: SpinGuard<'_, Inner>) {
        let before = (inner.readable(), inner.unacknowledged());
        let now = self.stack.now();
        self.step(inner, now, before, false);
    }

    /// After the application has read `taken` bytes: tells the peer of new room if that's worth a
    /// segment.
    pub fn after_read(self: &Arc<Self>, mut inner: SpinGuard<'_, Inner>, taken: usize) {
        inner.taken += taken;
        let (capacity, _) = inner.capacities();
        if inner.taken * 2 >= capacity {
            inner.taken = 0;
            self.push(inner);
        }
    }

    /// A deadline has passed.
    pub fn expired(self: &Arc<Self>) {
        self.armed.store(u64::MAX, Ordering::Relaxed);
        let now = self.stack.now();
        let mut inner = self.inner.lock();
        if now >= inner.give_up {
            if inner.owned && inner.error.is_none() {
                inner.error = Some(Errno::ETIMEDOUT);
            }
            inner.give_up = u64::MAX;
            inner.socket().abort();
        }
        let before = (inner.readable(), inner.unacknowledged());
        self.step(inner, now, before, false);
    }

    /// Lets smoltcp send, then acts on what has changed. `before`: readable and unacknowledged
    /// bytes.
    fn step(
        self: &Arc<Self>,
        mut inner: SpinGuard<'_, Inner>,
        now: u64,
        before: (usize, usize),
        from_peer: bool,
    ) {
        let held = inner.cork_until > now && inner.unacknowledged() < inner.mss();
        let mut next = inner.next_poll(now);
        if !held || inner.seen != inner.state() {
            // Asking for the next deadline is cheaper than trying to send.
            while next <= now {
                let Inner { iface, sockets, link, .. } = &mut *inner;
                let sent = link.out.len();
                iface.poll_egress(instant(now), &mut Port { link, input: None }, sockets);
                let idle = link.out.len() == sent;
                next = inner.next_poll(now);
                if idle {
                    break;
                }
            }
        }
        let state = inner.state();
        let was = core::mem::replace(&mut inner.seen, state);
        let mut events = Events::empty();
        if inner.readable() > before.0 {
            events |= Events::IN | Events::RDNORM;
        }
        if state != was {
            events |= self.changed(&mut inner, was, state, from_peer, now);
        }
        if inner.no_space {
            let (_, capacity) = inner.capacities();
            if inner.room() * 3 >= capacity {
                inner.no_space = false;
                events |= Events::OUT | Events::WRNORM;
            }
        }
        self.set_give_up(&mut inner, before.1, from_peer, now);
        self.arm(&inner, next, now);
        let fate = self.fate(&inner);
        let parent = inner.parent.clone();
        let ready = match &parent {
            Some(_) => inner.handshake_done(),
            None => false,
        };
        let refused = parent.is_some() && matches!(state, State::Listen | State::Closed);
        if ready {
            inner.parent = None;
        }
        // Sent under the lock, so that segments leave in order.
        if !inner.link.out.is_empty() {
            inner.counters.segments_out += inner.link.out.len() as u32;
            inner.counters.last_out = now;
            let Link { out, route, .. } = &mut inner.link;
            for packet in out.drain(..) {
                self.stack.output(packet, route);
            }
        }
        drop(inner);
        match fate {
            Fate::Keep => {}
            Fate::Remove => self.stack.tcp.remove(self),
            Fate::TimeWait(last) => {
                if self.stack.tcp.time_wait(self, last, now) {
                    self.stack.set_timeout(now + super::TIME_WAIT, Timeout::Tombs);
                }
            }
        }
        if let Some(listener) = parent.and_then(|parent| parent.upgrade()) {
            if ready {
                listener.established(self);
            } else if refused {
                listener.refused(self);
                self.stack.tcp.remove(self);
            }
        }
        if !events.is_empty() {
            self.queue.wake_all(events);
        }
    }

    /// The state has changed: what to announce.
    fn changed(
        &self,
        inner: &mut Inner,
        was: State,
        state: State,
        from_peer: bool,
        _now: u64,
    ) -> Events {
        use State::*;
        match (was, state) {
            (SynSent | SynReceived, Established) => {
                inner.give_up = u64::MAX;
                Events::OUT | Events::WRNORM
            }
            (_, CloseWait | Closing | TimeWait | LastAck) => {
                if matches!(was, SynSent | SynReceived) {
                    inner.give_up = u64::MAX;
                }
                let mut events = Events::IN | Events::RDNORM | Events::RDHUP;
                if state != CloseWait {
                    events |= Events::HUP;
                }
                events
            }
            (_, Closed) => {
                let error = match was {
                    SynSent => Some(Errno::ECONNREFUSED),
                    CloseWait => Some(Errno::EPIPE),
                    Established | FinWait1 | FinWait2 | Closing => Some(Errno::ECONNRESET),
                    _ => None,
                };
                // Only a reset by the peer is news; who aborts knows, and timeouts have set
                // ETIMEDOUT.
                if from_peer && inner.error.is_none() {
                    inner.error = error;
                }
                Events::IN
                    | Events::RDNORM
                    | Events::OUT
                    | Events::WRNORM
                    | Events::RDHUP
                    | Events::HUP
                    | Events::ERR
            }
            _ => Events::empty(),
        }
    }

    fn set_give_up(&self, inner: &mut Inner, unacked_before: usize, from_peer: bool, now: u64) {
        use State::*;
        match inner.state() {
            SynSent | SynReceived | Listen | Closed => return,
            _ => {}
        }
        if !inner.owned {
            // An orphan: it may finish sending as long as the peer answers.
            let progress = inner.unacknowledged() < unacked_before;
            if inner.give_up == u64::MAX || progress {
                inner.give_up = now + FIN_TIMEOUT;
            }
            return;
        }
        let limit = match inner.options.user_timeout {
            0 => DATA_TIMEOUT,
            ms => u64::from(ms) * 1_000_000,
        };
        if inner.unacknowledged() > 0 {
            if from_peer || inner.give_up == u64::MAX || unacked_before == 0 {
                inner.give_up = now + limit;
            }
        } else if inner.options.keep_alive {
            let options = &inner.options;
            let probes = u64::from(options.keep_interval) * u64::from(options.keep_count);
            inner.give_up = inner.heard + (u64::from(options.keep_idle) + probes) * SECOND;
        } else {
            inner.give_up = u64::MAX;
        }
    }

    /// Makes sure that a timer comes in time. Later deadlines keep an earlier timer, which then
    /// does nothing: so the usual exchange, which moves deadlines back and forth, touches no timer
    /// queue.
    fn arm(self: &Arc<Self>, inner: &Inner, protocol: u64, now: u64) {
        let mut deadline = protocol.min(inner.give_up);
        if inner.cork_until > now {
            deadline = deadline.max(now + 1).min(inner.cork_until);
        }
        if deadline < self.armed.load(Ordering::Relaxed) {
            // Never in the past: a deadline that can't be met now must not spin.
            let deadline = deadline.max(now + 1_000_000);
            self.armed.store(deadline, Ordering::Relaxed);
            self.stack.set_timeout(deadline, Timeout::Conn(Arc::downgrade(self)));
        }
    }

    fn fate(&self, inner: &Inner) -> Fate {
        match inner.state() {
            State::Closed => Fate::Remove,
            State::TimeWait if !inner.owned => Fate::TimeWait(inner.link.last),
            _ => Fate::Keep,
        }
    }

    /// The last descriptor is gone: FIN, or RST if data would be lost or `SO_LINGER` says so.
    pub fn close(self: &Arc<Self>, reset: bool) {
        let mut inner = self.inner.lock();
        if !inner.owned {
            return;
        }
        inner.owned = false;
        inner.cork_until = 0;
        inner.give_up = u64::MAX;
        if reset || inner.readable() > 0 {
            inner.socket().abort();
        } else {
            inner.socket().close();
        }
        self.push(inner);
    }
}

impl Inner {
    /// When the state machine wants to run; 0: now.
    fn next_poll(&mut self, now: u64) -> u64 {
        match self.iface.poll_at(instant(now), &self.sockets) {
            // smoltcp says the epoch for "at once", and counts microseconds.
            Some(at) if at.total_micros() <= 0 => 0,
            Some(at) => (at.total_micros() as u64).saturating_mul(1000),
            None => u64::MAX,
        }
    }

    /// Whether a half-open connection belongs into the accept queue now.
    fn handshake_done(&self) -> bool {
        use State::*;
        match self.state() {
            Established => self.options.defer_accept == 0 || self.readable() > 0,
            CloseWait => true,
            _ => false,
        }
    }
}

/// smoltcp's clock counts microseconds.
fn instant(ns: u64) -> Instant {
    Instant::from_micros((ns / 1000) as i64)
}

/// A zeroed ring buffer. ENOMEM rather than a dead VM.
fn buffer(len: usize) -> Result<Vec<u8>, Errno> {
    let mut buf = Vec::new();
    buf.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    buf.resize(len, 0);
    Ok(buf)
}
