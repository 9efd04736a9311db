//! Datagram sockets over UDP (udp(7)) and UDP-Lite (udplite(7)).

use super::ancillary::{self, UDP_SEGMENT, Wishes};
use super::inet::{self, IpOptions, LEVEL_IP, LEVEL_IPV6, LEVEL_UDP, LEVEL_UDPLITE};
use super::options::Common;
use super::{Caller, Control, Incoming, Outgoing, Shutdown, Socket, wait};
use crate::bpf::Program;
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::put_user;
use crate::net::addr::{Address, IpAddr, SocketAddr};
use crate::net::errors::{Failure, Origin};
use crate::net::filter::{self, Sharing};
use crate::net::owner::Owner;
use crate::net::packet::Packet;
use crate::net::ports::Bound;
use crate::net::stack::Stack;
use crate::net::udp::{self, Datagram, Endpoint};
use crate::sync::{Mutex, SpinLock, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};
use linux_raw_sys::net::*;

/// Largest datagram of IPv4; IPv6 could carry twenty bytes more.
const MAX_PAYLOAD: usize = 65507;
/// Datagrams that one message is cut into at most (`UDP_MAX_SEGMENTS`).
const MAX_SEGMENTS: usize = 64;

const SIOCGSTAMP: u32 = 0x8906;
const SIOCGSTAMPNS: u32 = 0x8907;
const UDP_CORK: u32 = 1;
const UDP_GRO: u32 = 104;
const UDPLITE_SEND_CSCOV: u32 = 10;
const UDPLITE_RECV_CSCOV: u32 = 11;

/// A UDP or UDP-Lite socket.
pub struct UdpSocket {
    stack: Arc<Stack>,
    v6: bool,
    lite: bool,
    queue: Arc<WaitQueue>,
    binding: SpinLock<Option<Binding>>,
    settings: SpinLock<Settings>,
    /// What corked calls have collected (`MSG_MORE`, `UDP_CORK`).
    pending: Mutex<Option<Pending>>,
    shut: SpinLock<Shutdown>,
    owner: Owner,
}

/// A datagram that grows. Where it goes, and how, was said by the first part.
struct Pending {
    from: SocketAddr,
    to: SocketAddr,
    how: udp::Sending,
    segment: usize,
    data: Vec<u8>,
}

#[derive(Clone)]
struct Binding {
    endpoint: Arc<Endpoint>,
    bound: Bound,
    /// The address was not chosen by bind(2), and goes with the association.
    any_addr: bool,
    /// Nor was the port.
    any_port: bool,
}

#[derive(Clone)]
struct Settings {
    common: Common,
    ip: IpOptions,
    cork: bool,
    segment: u32,
    gro: bool,
    /// The address that bind(2) chose for a socket whose port went with its association.
    home: Option<IpAddr>,
    /// When the last datagram came that wasn't told with it (`SIOCGSTAMP`): seconds, nanoseconds.
    stamp: Option<[u64; 2]>,
    /// Bytes of a datagram that its checksum covers; 0: all.
    send_coverage: u16,
    receive_coverage: Option<u16>,
    /// `SO_ATTACH_REUSEPORT_CBPF`, for when it is bound.
    selector: Option<Program>,
}

impl UdpSocket {
    /// A new socket.
    pub fn new(stack: &Arc<Stack>, v6: bool, lite: bool) -> Arc<UdpSocket> {
        let settings = Settings {
            common: Common::new(),
            ip: IpOptions::default(),
            cork: false,
            segment: 0,
            gro: false,
            home: None,
            stamp: None,
            send_coverage: 0,
            receive_coverage: None,
            selector: None,
        };
        Arc::new(UdpSocket {
            stack: stack.clone(),
            v6,
            lite,
            queue: Arc::new(WaitQueue::new()),
            binding: SpinLock::new(None),
            settings: SpinLock::new(settings),
            pending: Mutex::new(None),
            shut: SpinLock::new(Shutdown { read: false, write: false }),
            owner: Owner::default(),
        })
    }

    fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.binding.lock().as_ref().map(|binding| binding.endpoint.clone())
    }

    /// The end point, bound to an ephemeral port if it isn't bound yet.
    fn bound(&self, who: &Caller<'_>) -> Result<Arc<Endpoint>> {
        match self.endpoint() {
            Some(endpoint) => Ok(endpoint),
            None => self.bind_to(who, self.unbound()),
        }
    }

    /// The address of a socket that has no port.
    fn unbound(&self) -> SocketAddr {
        let mut addr = inet::unspecified(self.v6);
        if let Some(home) = self.settings.lock().home {
            addr.set_ip(home);
        }
        addr
    }

    fn bind_to(&self, who: &Caller<'_>, addr: SocketAddr) -> Result<Arc<Endpoint>> {
        let settings = self.settings.lock().clone();
        let dual = self.v6 && !settings.ip.v6_only && addr.ip().is_unspecified();
        let request = inet::request(&settings.common, addr.ip(), dual, who.cred.uid, false);
        let (table, ports) = self.stack.datagrams(self.lite);
        let bound = match addr.port() {
            0 => ports.bind_any(self.stack.random(), request, |_| true)?,
            port => ports.bind(port, request)?,
        };
        let (any_addr, any_port) = (addr.ip().is_unspecified(), addr.port() == 0);
        let addr = SocketAddr::new(addr.ip(), bound.port);
        let limit = settings.common.receive_buffer as usize;
        let owner = settings.common.reuse_port.then_some(who.cred.uid);
        let sharing = Sharing::new(owner, settings.selector);
        let endpoint = Endpoint::new(addr, dual, limit, self.queue.clone(), sharing);
        endpoint.filter.replace(settings.common.filter);
        endpoint.owner.copy(&self.owner);
        endpoint.want_failures(settings.ip.keeps_failures());
        endpoint.set_coverage(settings.receive_coverage);
        let mut binding = self.binding.lock();
        if binding.is_some() {
            drop(binding);
            ports.release(&bound);
            return Err(Errno::EINVAL);
        }
        *binding = Some(Binding { endpoint: endpoint.clone(), bound, any_addr, any_port });
        drop(binding);
        table.insert(endpoint.clone());
        Ok(endpoint)
    }

    /// `SO_ATTACH_REUSEPORT_CBPF` and `SO_DETACH_REUSEPORT_BPF`.
    fn set_selector(&self, name: u32, value: &[u8]) -> Result<()> {
        let Some(endpoint) = self.endpoint() else {
            let mut settings = self.settings.lock();
            let (shares, has) = (settings.common.reuse_port, settings.selector.is_some());
            settings.selector = filter::selector(name, value, shares, has)?;
            return Ok(());
        };
        let new = endpoint.sharing.change(name, value)?;
        self.stack.datagrams(self.lite).0.set_selector(&endpoint, new);
        Ok(())
    }

    /// Ends the association, and with it what bind(2) didn't choose of our address.
    fn disconnect(&self) {
        let mut slot = self.binding.lock();
        let Some(binding) = slot.clone() else { return };
        if binding.any_port {
            *slot = None;
        }
        drop(slot);
        if binding.any_port {
            let home = Some(binding.endpoint.local().ip()).filter(|_| !binding.any_addr);
            self.settings.lock().home = home;
            self.unbind(&binding);
        } else {
            let mut local = binding.endpoint.local();
            if binding.any_addr {
                local.set_ip(inet::unspecified(self.v6).ip());
            }
            binding.endpoint.connect(local, None);
        }
    }

    fn unbind(&self, binding: &Binding) {
        let (table, ports) = self.stack.datagrams(self.lite);
        table.remove(&binding.endpoint);
        ports.release(&binding.bound);
    }

    /// A message is longer than its path takes.
    fn too_long(&self, remote: SocketAddr) -> Failure {
        Failure {
            error: Errno::EMSGSIZE,
            origin: Origin::Local,
            icmp: [0; 2],
            mtu: self.stack.path_mtu(&remote.ip()) as u32,
            offender: None,
            remote,
            payload: Vec::new(),
        }
    }

    /// Sends a message as one datagram, or as many of `segment` bytes.
    fn transmit(
        &self,
        endpoint: &Endpoint,
        (from, to): (SocketAddr, SocketAddr),
        how: udp::Sending,
        segment: usize,
        packet: Packet,
    ) -> Result<()> {
        let send = |packet| {
            udp::send_as(&self.stack, from, to, packet, how).inspect_err(|&error| {
                if error == Errno::EMSGSIZE {
                    endpoint.failed(self.too_long(to), false);
                }
            })
        };
        let len = packet.len();
        if segment == 0 || len <= segment {
            return send(packet);
        }
        if len.div_ceil(segment) > MAX_SEGMENTS {
            return Err(Errno::EINVAL);
        }
        for part in packet.bytes().chunks(segment) {
            send(Packet::from_slice(part).ok_or(Errno::ENOBUFS)?)?;
        }
        Ok(())
    }

    /// Adds to the datagram that grows, and sends it unless there is `more` to come. What fails takes
    /// all that was collected with it.
    fn add(
        &self,
        slot: &mut Option<Pending>,
        message: &mut Outgoing<'_, '_>,
        more: bool,
    ) -> Result<usize> {
        let Some(mut pending) = slot.take() else { return Err(Errno::EINVAL) };
        let (had, len) = (pending.data.len(), message.src.remaining());
        if len > MAX_PAYLOAD - had {
            return Err(Errno::EMSGSIZE);
        }
        pending.data.try_reserve(len).map_err(|_| Errno::ENOBUFS)?;
        pending.data.resize(had + len, 0);
        if len > 0 && message.src.read(&mut pending.data[had..])? < len {
            return Err(Errno::EFAULT);
        }
        *slot = Some(pending);
        if more { Ok(len) } else { self.uncork(slot).map(|()| len) }
    }

    /// Sends what was collected.
    fn uncork(&self, slot: &mut Option<Pending>) -> Result<()> {
        let (Some(pending), Some(endpoint)) = (slot.take(), self.endpoint()) else { return Ok(()) };
        let packet = Packet::from_slice(&pending.data).ok_or(Errno::ENOBUFS)?;
        let ends = (pending.from, pending.to);
        self.transmit(&endpoint, ends, pending.how, pending.segment, packet)
    }

    /// recvmsg(2) with `MSG_ERRQUEUE`: what became of a datagram, with its start. Never waits.
    fn receive_failure(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        let endpoint = self.endpoint().ok_or(Errno::EAGAIN)?;
        let failure = endpoint.take_failure().ok_or(Errno::EAGAIN)?;
        let full = failure.payload.len();
        let moved = if full == 0 || message.dst.remaining() == 0 {
            0
        } else {
            message.dst.write(&failure.payload)?
        };
        message.from = Some(inet::shown(self.v6, failure.remote));
        message.control.push(ancillary::failure(self.v6, &failure));
        message.out_flags |= MSG_ERRQUEUE | if full > moved { MSG_TRUNC } else { 0 };
        Ok(moved)
    }

    /// Ancillary data that the options ask for.
    fn control(&self, datagram: &Datagram) -> Vec<Control> {
        let mut settings = self.settings.lock();
        let mut all = Vec::new();
        ancillary::tell(&settings.ip.told, datagram, &mut all);
        let at = ancillary::wall_time(datagram.at);
        let stamp = ancillary::stamp(settings.common.timestamp, at);
        if stamp.is_none() {
            settings.stamp = Some(at);
        }
        all.extend(stamp);
        all
    }
}

/// A checksum coverage as udplite(7) rounds it: the header always belongs to it.
fn coverage(value: i32) -> u16 {
    match value {
        0 => 0,
        value => value.clamp(udp::HEADER as i32, u16::MAX.into()) as u16,
    }
}

impl Socket for UdpSocket {
    fn family(&self) -> u32 {
        if self.v6 { AF_INET6 } else { AF_INET }
    }
    fn kind(&self) -> u32 {
        SOCK_DGRAM
    }

    fn owned(&self, ino: u64, uid: u32) {
        self.owner.set(ino, uid);
    }

    fn bind(&self, who: &Caller<'_>, addr: &Address) -> Result<()> {
        let addr = inet::plain(self.v6, addr)?;
        if self.binding.lock().is_some() {
            return Err(Errno::EINVAL);
        }
        let free = self.settings.lock().ip.free_bind;
        inet::check_bind(&self.stack, who, addr, free)?;
        self.bind_to(who, addr).map(drop)
    }

    fn connect(&self, who: &Caller<'_>, addr: &Address, _nonblock: bool) -> Result<()> {
        if *addr == Address::Unspecified {
            self.disconnect();
            return Ok(());
        }
        let to = match addr {
            // glibc's getaddrinfo(3) asks in this way for the source of either family.
            Address::Inet(to) if self.v6 && to.is_ipv4() => {
                if self.settings.lock().ip.v6_only {
                    return Err(Errno::EAFNOSUPPORT);
                }
                *to
            }
            _ => inet::plain(self.v6, addr)?,
        };
        let source = self.stack.source(&to.ip()).ok_or(Errno::ENETUNREACH)?;
        self.stack.route(&to.ip()).ok_or(Errno::ENETUNREACH)?;
        let peer = match to.ip().is_unspecified() {
            true => SocketAddr::new(source, to.port()),
            false => to,
        };
        let endpoint = self.bound(who)?;
        let local = endpoint.local();
        let ip = if local.ip().is_unspecified() { source } else { local.ip() };
        if ip.is_ipv4() != peer.ip().is_ipv4() {
            return Err(Errno::ENETUNREACH);
        }
        endpoint.connect(SocketAddr::new(ip, local.port()), Some(peer));
        Ok(())
    }

    fn send(&self, who: &Caller<'_>, message: &mut Outgoing<'_, '_>) -> Result<usize> {
        if self.shut.lock().write {
            return Err(Errno::EPIPE);
        }
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let more = message.flags & MSG_MORE != 0 || self.settings.lock().cork;
        let mut pending = self.pending.lock();
        if pending.is_some() {
            return self.add(&mut pending, message, more);
        }
        let to = match &message.to {
            Some(Address::Unspecified) | None => None,
            Some(addr) => Some(inet::plain(self.v6, addr)?),
        };
        let endpoint = self.bound(who)?;
        if let Some(error) = endpoint.take_error() {
            return Err(error);
        }
        let to = to.or_else(|| endpoint.peer()).ok_or(Errno::EDESTADDRREQ)?;
        if to.port() == 0 {
            return Err(Errno::EINVAL);
        }
        let wishes = Wishes::read(&message.control, to.is_ipv4())?;
        let (how, segment, free) = {
            let settings = self.settings.lock();
            let broadcast = matches!(to.ip(), IpAddr::V4(v4) if v4.is_broadcast());
            if broadcast && !settings.common.broadcast {
                return Err(Errno::EACCES);
            }
            let ip = &settings.ip;
            let ttl = if to.ip().is_multicast() { ip.multicast_ttl } else { ip.ttl };
            let how = udp::Sending {
                ttl: wishes.ttl.unwrap_or(ttl),
                tos: wishes.tos.unwrap_or(ip.tos),
                whole: ip.whole(),
                echo: ip.multicast_loop,
                lite: self.lite.then_some(settings.send_coverage),
            };
            let segment = wishes.segment.map_or(settings.segment as usize, usize::from);
            (how, segment, ip.free_bind)
        };
        let mut from = endpoint.local();
        if let Some(source) = wishes.source {
            if !free && !self.stack.is_local(&source) {
                return Err(if source.is_ipv4() { Errno::ENETUNREACH } else { Errno::EINVAL });
            }
            from.set_ip(source);
        }
        let len = message.src.remaining();
        if len > MAX_PAYLOAD {
            return Err(Errno::EMSGSIZE);
        }
        if more {
            *pending = Some(Pending { from, to, how, segment, data: Vec::new() });
            return self.add(&mut pending, message, more);
        }
        drop(pending);
        let mut packet = Packet::new(len).ok_or(Errno::ENOBUFS)?;
        if message.src.read(packet.bytes_mut())? < len {
            return Err(Errno::EFAULT);
        }
        self.transmit(&endpoint, (from, to), how, segment, packet).map(|()| len)
    }

    fn receive(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if message.flags & MSG_ERRQUEUE != 0 {
            return self.receive_failure(message);
        }
        let take = || {
            // Bound by then: another thread may bind while we wait.
            let endpoint = self.endpoint()?;
            if let Some(error) = endpoint.take_error() {
                return Some(Err(error));
            }
            let datagram = endpoint.take()?;
            Some(Ok(Some((endpoint, datagram))))
        };
        let found = match take() {
            Some(found) => found?,
            None if message.nonblock => return Err(Errno::EAGAIN),
            None => {
                let timeout = self.settings.lock().common.receive_timeout;
                // What is shut down ends the sleep, and only that.
                let over = || self.shut.lock().read.then_some(Ok(None));
                wait(&self.queue, false, timeout, || take().or_else(over))??
            }
        };
        let Some((endpoint, datagram)) = found else { return Ok(0) };
        let bytes = datagram.packet.bytes();
        let full = bytes.len();
        let room = message.dst.remaining();
        let moved = if room == 0 || full == 0 { Ok(0) } else { message.dst.write(bytes) };
        let moved = match moved {
            Ok(moved) => moved,
            Err(error) => {
                endpoint.put_back(datagram);
                return Err(error);
            }
        };
        message.from = Some(inet::shown(self.v6, datagram.from));
        message.control = self.control(&datagram);
        if full > moved {
            message.out_flags |= MSG_TRUNC;
        }
        if message.flags & MSG_PEEK != 0 {
            endpoint.put_back(datagram);
        }
        Ok(if message.flags & MSG_TRUNC != 0 { full } else { moved })
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let connected = self.endpoint().is_some_and(|endpoint| endpoint.peer().is_some());
        let mut shut = self.shut.lock();
        shut.read |= how.read;
        shut.write |= how.write;
        drop(shut);
        self.queue.wake_all(Events::ALL);
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn local(&self) -> Address {
        let addr = self.endpoint().map(|endpoint| endpoint.local());
        inet::shown(self.v6, addr.unwrap_or_else(|| self.unbound()))
    }

    fn peer(&self) -> Result<Address> {
        let peer = self.endpoint().and_then(|endpoint| endpoint.peer());
        let peer = peer.filter(|peer| peer.port() != 0).ok_or(Errno::ENOTCONN)?;
        Ok(inet::shown(self.v6, peer))
    }

    fn set_option(&self, who: &Caller<'_>, level: u32, name: u32, value: &[u8]) -> Result<()> {
        let mut settings = self.settings.lock();
        match level {
            SOL_SOCKET if matches!(name, SO_ATTACH_REUSEPORT_CBPF | SO_DETACH_REUSEPORT_BPF) => {
                drop(settings);
                self.set_selector(name, value)
            }
            SOL_SOCKET => {
                if !settings.common.set(who, name, value)? {
                    return Err(Errno::ENOPROTOOPT);
                }
                let limit = settings.common.receive_buffer as usize;
                let filter = settings.common.filter.clone();
                drop(settings);
                match (name, self.endpoint()) {
                    (SO_RCVBUF | SO_RCVBUFFORCE, Some(endpoint)) => endpoint.set_limit(limit),
                    (SO_ATTACH_FILTER | SO_DETACH_FILTER, Some(endpoint)) => {
                        endpoint.filter.replace(filter);
                    }
                    _ => {}
                }
                Ok(())
            }
            LEVEL_IP | LEVEL_IPV6 => {
                settings.ip.set(&self.stack, self.v6, level, name, value)?;
                let wanted = settings.ip.keeps_failures();
                drop(settings);
                if let Some(endpoint) = self.endpoint() {
                    endpoint.want_failures(wanted);
                }
                Ok(())
            }
            LEVEL_UDP | LEVEL_UDPLITE => {
                let value = super::options::int(value)?;
                match name {
                    UDP_CORK => {
                        settings.cork = value != 0;
                        if value == 0 {
                            drop(settings);
                            // As in Linux, nobody hears here of what fails.
                            let _ = self.uncork(&mut self.pending.lock());
                        }
                    }
                    UDP_GRO => settings.gro = value != 0,
                    UDP_SEGMENT => {
                        settings.segment = u16::try_from(value).map_err(|_| Errno::EINVAL)?.into();
                    }
                    UDPLITE_SEND_CSCOV if self.lite => settings.send_coverage = coverage(value),
                    UDPLITE_RECV_CSCOV if self.lite => {
                        settings.receive_coverage = Some(coverage(value));
                        drop(settings);
                        if let Some(endpoint) = self.endpoint() {
                            endpoint.set_coverage(Some(coverage(value)));
                        }
                    }
                    _ => return Err(Errno::ENOPROTOOPT),
                }
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        let settings = self.settings.lock().clone();
        let number = |value: u32| Ok(value.to_ne_bytes().to_vec());
        match (level, name) {
            (SOL_SOCKET, SO_TYPE) => number(SOCK_DGRAM),
            (SOL_SOCKET, SO_DOMAIN) => number(self.family()),
            (SOL_SOCKET, SO_PROTOCOL) => number(if self.lite { LEVEL_UDPLITE } else { LEVEL_UDP }),
            (SOL_SOCKET, SO_ACCEPTCONN) => number(0),
            (SOL_SOCKET, SO_ERROR) => {
                let error = self.endpoint().and_then(|endpoint| endpoint.take_error());
                number(u32::from(error.map_or(0, |error| error.0)))
            }
            (SOL_SOCKET, _) => settings.common.get(name).ok_or(Errno::ENOPROTOOPT),
            (LEVEL_IP | LEVEL_IPV6, _) => settings.ip.get(&self.stack, level, name),
            (LEVEL_UDPLITE, _) => self.option(LEVEL_UDP, name),
            (LEVEL_UDP, UDPLITE_SEND_CSCOV) => number(settings.send_coverage.into()),
            (LEVEL_UDP, UDPLITE_RECV_CSCOV) => {
                number(settings.receive_coverage.unwrap_or(0).into())
            }
            (LEVEL_UDP, UDP_CORK) => number(u32::from(settings.cork)),
            (LEVEL_UDP, UDP_GRO) => number(u32::from(settings.gro)),
            (LEVEL_UDP, UDP_SEGMENT) => number(settings.segment),
            (LEVEL_UDP, _) => Err(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn poll(&self, table: &mut PollTable<'_>) -> Events {
        table.register(&self.queue);
        let mut events = match self.endpoint() {
            Some(endpoint) => endpoint.events(),
            None => Events::OUT | Events::WRNORM,
        };
        let shut = *self.shut.lock();
        if shut.read {
            events |= Events::IN | Events::RDNORM | Events::RDHUP;
        }
        if shut.read && shut.write {
            events |= Events::HUP;
        }
        events
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        let count = match request {
            FIONREAD => self.endpoint().and_then(|endpoint| endpoint.next_len()).unwrap_or(0),
            TIOCOUTQ => 0,
            SIOCGSTAMP | SIOCGSTAMPNS => {
                let stamp = self.settings.lock().stamp;
                let [secs, nanos] = stamp.ok_or(Errno::ENOENT)?;
                let rest = if request == SIOCGSTAMP { nanos / 1000 } else { nanos };
                put_user(arg, &[secs, rest])?;
                return Ok(0);
            }
            _ => return Err(Errno::ENOTTY),
        };
        put_user(arg, &(count as i32))?;
        Ok(0)
    }

    fn close(&self, _nonblock: bool) {
        self.settings.lock().ip.leave_all(&self.stack);
        let binding = self.binding.lock().take();
        if let Some(binding) = binding {
            self.unbind(&binding);
        }
    }
}
