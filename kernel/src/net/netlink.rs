//! Netlink sockets, `NETLINK_ROUTE` only: dumps of links, addresses, routes and neighbours, as
//! getifaddrs(3) and `ip` read them (rtnetlink(7)). Requests that would change something are
//! refused.

use super::addr::{Address, IpAddr};
use super::socket::ifreq::{self, Interface};
use super::socket::options::Common;
use super::socket::{Caller, Incoming, Outgoing, Socket, wait};
use super::stack::Stack;
use crate::bpf::{self, Input, View};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::put_user;
use crate::sync::{SpinLock, WaitQueue};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::ioctl::FIONREAD;
use linux_raw_sys::net::*;

const NETLINK_ROUTE: u32 = 0;
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const SOL_NETLINK: u32 = 270;
/// Answers that may wait.
const MAX_WAITING: usize = 64;
/// Answers are put into messages of about this size.
const CHUNK: usize = 8192;

/// Process numbers that serve as ports.
static TAKEN: SpinLock<Vec<u32>> = SpinLock::new(Vec::new());

/// A netlink socket.
pub struct NetlinkSocket {
    stack: Arc<Stack>,
    queue: Arc<WaitQueue>,
    port: AtomicU32,
    groups: AtomicU32,
    answers: SpinLock<VecDeque<Vec<u8>>>,
    common: SpinLock<Common>,
}

/// socket(2) for `AF_NETLINK`.
pub fn create(_who: &Caller<'_>, protocol: u32) -> Result<Arc<dyn Socket>> {
    if protocol != NETLINK_ROUTE {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok(NetlinkSocket::new(super::stack()))
}

impl NetlinkSocket {
    /// A socket that tells about `stack`.
    pub fn new(stack: &Arc<Stack>) -> Arc<NetlinkSocket> {
        Arc::new(NetlinkSocket {
            stack: stack.clone(),
            queue: Arc::new(WaitQueue::new()),
            port: AtomicU32::new(0),
            groups: AtomicU32::new(0),
            answers: SpinLock::new(VecDeque::new()),
            common: SpinLock::new(Common::new()),
        })
    }

    /// Our port; taken from the process number on first use, as Linux does.
    fn port(&self, who: &Caller<'_>) -> u32 {
        static OTHERS: AtomicU32 = AtomicU32::new(0x8000_0000);
        let port = self.port.load(Ordering::Relaxed);
        if port != 0 {
            return port;
        }
        let mut taken = TAKEN.lock();
        let wanted = who.cred.pid;
        let port = match taken.contains(&wanted) || wanted == 0 {
            true => OTHERS.fetch_add(1, Ordering::Relaxed),
            false => {
                if taken.len() < 4096 {
                    taken.push(wanted);
                }
                wanted
            }
        };
        self.port.store(port, Ordering::Relaxed);
        port
    }

    /// Works on every request in `bytes`.
    fn handle(&self, port: u32, bytes: &[u8]) {
        let mut rest = bytes;
        while rest.len() >= HEADER {
            let word = |at: usize| {
                u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]])
            };
            let half = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
            let len = word(0) as usize;
            if len < HEADER || len > rest.len() {
                return;
            }
            let request = Request {
                kind: half(4),
                flags: half(6),
                sequence: word(8),
                port,
                body: &rest[HEADER..len],
                whole: &rest[..len],
            };
            self.answer(&request);
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn answer(&self, request: &Request<'_>) {
        if request.flags & NLM_F_REQUEST == 0 || request.kind < RTM_NEWLINK {
            return;
        }
        let family = request.body.first().copied().unwrap_or(0);
        let dump = request.flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut reply = Reply { request, out: Vec::new(), multi: dump };
        let interfaces = ifreq::interfaces(&self.stack);
        let result = match request.kind {
            RTM_GETLINK => links(&mut reply, &interfaces, dump),
            RTM_GETADDR if dump => {
                addresses(&mut reply, &interfaces, family);
                Ok(())
            }
            RTM_GETROUTE if dump => {
                routes(&mut reply, &self.stack, &interfaces, family);
                Ok(())
            }
            RTM_GETNEIGH if dump => {
                neighbours(&mut reply, &self.stack, family);
                Ok(())
            }
            RTM_GETADDR | RTM_GETROUTE | RTM_GETNEIGH => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::EPERM),
        };
        match result {
            Err(error) => reply.error(error.0.into()),
            Ok(()) if dump => {
                reply.message(NLMSG_DONE, |out| out.extend([0; 4]));
            }
            Ok(()) if request.flags & NLM_F_ACK != 0 => reply.error(0),
            Ok(()) => {}
        }
        let filter = self.common.lock().filter.clone();
        let mut answers = self.answers.lock();
        for chunk in split(&reply.out) {
            let wanted = filter.as_ref().map_or(usize::MAX, |filter| {
                bpf::run(filter, Input::Packet(View::plain(chunk))) as usize
            });
            if wanted > 0 && answers.len() < MAX_WAITING {
                answers.push_back(chunk[..chunk.len().min(wanted)].to_vec());
            }
        }
        drop(answers);
        self.queue.wake_all(Events::IN | Events::RDNORM);
    }
}

struct Request<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    body: &'a [u8],
    whole: &'a [u8],
}

struct Reply<'a> {
    request: &'a Request<'a>,
    out: Vec<u8>,
    multi: bool,
}

impl Reply<'_> {
    fn message(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.extend([0; 4]);
        self.out.extend(kind.to_ne_bytes());
        self.out.extend(if self.multi { NLM_F_MULTI } else { 0 }.to_ne_bytes());
        self.out.extend(self.request.sequence.to_ne_bytes());
        self.out.extend(self.request.port.to_ne_bytes());
        fill(&mut self.out);
        let len = (self.out.len() - start) as u32;
        self.out[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    fn error(&mut self, errno: i32) {
        self.multi = false;
        let whole = self.request.whole.to_vec();
        self.message(NLMSG_ERROR, |out| {
            out.extend((-errno).to_ne_bytes());
            // The request's header at least, all of it on an error.
            out.extend(if errno == 0 { &whole[..HEADER] } else { &whole });
        });
    }
}

/// Cuts a stream of messages into pieces of about [`CHUNK`] bytes, between messages.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let mut at = 0;
        while let Some(head) = bytes[at..].first_chunk::<4>() {
            let len = (u32::from_ne_bytes(*head) as usize).next_multiple_of(4);
            if len == 0 || at > 0 && at + len > CHUNK {
                break;
            }
            at += len;
        }
        let (chunk, rest) = bytes.split_at(at.min(bytes.len()));
        bytes = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(((value.len() + 4) as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn octets(addr: &IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family_of(addr: &IpAddr) -> u8 {
    if addr.is_ipv4() { AF_INET as u8 } else { AF_INET6 as u8 }
}

fn wanted(family: u8, addr: &IpAddr) -> bool {
    family == 0 || family == family_of(addr)
}

fn links(reply: &mut Reply<'_>, interfaces: &[Interface], dump: bool) -> Result<()> {
    let body = reply.request.body;
    let index = body.get(4..8).map_or(0, |at| u32::from_ne_bytes([at[0], at[1], at[2], at[3]]));
    let chosen: Vec<_> = interfaces
        .iter()
        .filter(|interface| {
            dump || index == 0 && named(body, interface) || interface.index == index
        })
        .collect();
    if chosen.is_empty() {
        return Err(Errno::ENODEV);
    }
    for interface in chosen {
        reply.message(RTM_NEWLINK, |out| {
            let loopback = interface.index == 1;
            out.extend([0, 0]);
            out.extend(if loopback { 772u16 } else { 1 }.to_ne_bytes());
            out.extend(interface.index.to_ne_bytes());
            // IFF_LOWER_UP goes with IFF_RUNNING.
            out.extend((interface.flags | 0x10000).to_ne_bytes());
            out.extend([0; 4]);
            let broadcast = if loopback { [0; 6] } else { [0xff; 6] };
            attribute(out, 3, &[interface.name.as_bytes(), &[0]].concat());
            attribute(out, 13, &1000u32.to_ne_bytes());
            attribute(out, 16, &[if loopback { 0 } else { 6 }]);
            attribute(out, 17, &[0]);
            attribute(out, 4, &interface.mtu.to_ne_bytes());
            attribute(out, 27, &0u32.to_ne_bytes());
            attribute(out, 6, if loopback { b"noqueue\0" } else { b"mq\0" });
            attribute(out, 1, &interface.mac);
            attribute(out, 2, &broadcast);
            let queues = interface.queues.to_ne_bytes();
            // Promiscuity, queues each way, carrier and its changes, I/O map.
            attribute(out, 30, &0u32.to_ne_bytes());
            attribute(out, 31, &queues);
            attribute(out, 32, &queues);
            attribute(out, 33, &[1]);
            attribute(out, 35, &0u32.to_ne_bytes());
            attribute(out, 14, &[0; 32]);
            // Counters, which programs take for granted: struct rtnl_link_stats64, and the same in
            // words of half the size.
            let [rx_bytes, rx_packets, tx_bytes, tx_packets] = interface.counters;
            let mut counters = [0u64; 25];
            counters[..4].copy_from_slice(&[rx_packets, tx_packets, rx_bytes, tx_bytes]);
            attribute(out, 23, counters.map(u64::to_ne_bytes).as_flattened());
            let short = counters.map(|value| (value as u32).to_ne_bytes());
            attribute(out, 7, short[..24].as_flattened());
        });
    }
    Ok(())
}

/// Whether an `IFLA_IFNAME` attribute of the request names this interface.
fn named(body: &[u8], interface: &Interface) -> bool {
    let mut rest = body.get(16..).unwrap_or_default();
    while rest.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        if len < 4 || len > rest.len() {
            return false;
        }
        let value = rest[4..len].split(|&byte| byte == 0).next().unwrap_or_default();
        if kind == 3 && value == interface.name.as_bytes() {
            return true;
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn addresses(reply: &mut Reply<'_>, interfaces: &[Interface], family: u8) {
    for interface in interfaces {
        for cidr in interface.addresses.iter().filter(|cidr| wanted(family, &cidr.addr)) {
            reply.message(RTM_NEWADDR, |out| {
                let scope = match cidr.addr {
                    addr if addr.is_loopback() => 254,
                    IpAddr::V6(v6) if v6.is_unicast_link_local() => 253,
                    _ => 0,
                };
                // IFA_F_PERMANENT.
                out.extend([family_of(&cidr.addr), cidr.prefix, 0x80, scope]);
                out.extend(interface.index.to_ne_bytes());
                attribute(out, 1, &octets(&cidr.addr));
                if cidr.addr.is_ipv4() {
                    attribute(out, 2, &octets(&cidr.addr));
                    if let (Some(broadcast), false) = (cidr.broadcast(), cidr.addr.is_loopback()) {
                        attribute(out, 4, &broadcast.octets());
                    }
                    attribute(out, 3, &[interface.name.as_bytes(), &[0]].concat());
                }
                attribute(out, 8, &0x80u32.to_ne_bytes());
                attribute(out, 6, &[[0xff; 8], [0; 8]].concat());
            });
        }
    }
}

fn routes(reply: &mut Reply<'_>, stack: &Stack, interfaces: &[Interface], family: u8) {
    let config = stack.config();
    let mut route =
        |dst: Option<(IpAddr, u8)>, gateway: Option<IpAddr>, index: u32, src: Option<IpAddr>| {
            let Some(any) = dst.map(|(addr, _)| addr).or(gateway) else { return };
            if !wanted(family, &any) {
                return;
            }
            reply.message(RTM_NEWROUTE, |out| {
                let prefix = dst.map_or(0, |(_, prefix)| prefix);
                let scope = if gateway.is_some() { 0 } else { 253 };
                // Main table, boot protocol, unicast.
                out.extend([family_of(&any), prefix, 0, 0, 254, 3, scope, 1]);
                out.extend([0; 4]);
                attribute(out, 15, &254u32.to_ne_bytes());
                if let Some((addr, _)) = dst {
                    attribute(out, 1, &octets(&addr));
                }
                if let Some(gateway) = gateway {
                    attribute(out, 5, &octets(&gateway));
                }
                if let Some(src) = src {
                    attribute(out, 7, &octets(&src));
                }
                attribute(out, 4, &index.to_ne_bytes());
            });
        };
    route(None, config.gateway4.map(IpAddr::from), 2, None);
    route(None, config.gateway6.map(IpAddr::from), 2, None);
    for interface in interfaces.iter().filter(|interface| interface.index != 1) {
        for cidr in &interface.addresses {
            let src = Some(cidr.addr).filter(IpAddr::is_ipv4);
            route(Some((cidr.network(), cidr.prefix)), None, interface.index, src);
        }
    }
}

fn neighbours(reply: &mut Reply<'_>, stack: &Stack, family: u8) {
    let known = stack.neighbors.lock().known();
    for (addr, mac) in known.into_iter().filter(|(addr, _)| wanted(family, addr)) {
        reply.message(RTM_NEWNEIGH, |out| {
            out.extend([family_of(&addr), 0, 0, 0]);
            out.extend(2u32.to_ne_bytes());
            // NUD_REACHABLE, unicast.
            out.extend(2u16.to_ne_bytes());
            out.extend([0, 1]);
            attribute(out, 1, &octets(&addr));
            attribute(out, 2, &mac);
        });
    }
}

impl Socket for NetlinkSocket {
    fn family(&self) -> u32 {
        AF_NETLINK
    }
    fn kind(&self) -> u32 {
        SOCK_RAW
    }

    fn bind(&self, who: &Caller<'_>, addr: &Address) -> Result<()> {
        let Address::Netlink { port, groups } = addr else { return Err(Errno::EINVAL) };
        if *port == 0 {
            self.port(who);
        } else {
            self.port.store(*port, Ordering::Relaxed);
        }
        self.groups.store(*groups, Ordering::Relaxed);
        Ok(())
    }

    fn connect(&self, who: &Caller<'_>, addr: &Address, _nonblock: bool) -> Result<()> {
        match addr {
            Address::Netlink { port: 0, .. } | Address::Unspecified => {
                self.port(who);
                Ok(())
            }
            _ => Err(Errno::EPERM),
        }
    }

    fn send(&self, who: &Caller<'_>, message: &mut Outgoing<'_, '_>) -> Result<usize> {
        match message.to {
            None | Some(Address::Netlink { port: 0, .. }) => {}
            Some(_) => return Err(Errno::ECONNREFUSED),
        }
        let len = message.src.remaining();
        if len > 64 * 1024 {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = alloc::vec![0; len];
        let moved = message.src.read(&mut bytes)?;
        let port = self.port(who);
        self.handle(port, &bytes[..moved]);
        Ok(len)
    }

    fn receive(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        let take = || self.answers.lock().pop_front();
        let answer = match take() {
            Some(answer) => answer,
            None if message.nonblock => return Err(Errno::EAGAIN),
            None => {
                let timeout = self.common.lock().receive_timeout;
                wait(&self.queue, false, timeout, take)?
            }
        };
        let full = answer.len();
        let moved = if message.dst.remaining() == 0 { 0 } else { message.dst.write(&answer)? };
        message.from = Some(Address::Netlink { port: 0, groups: 0 });
        if moved < full {
            message.out_flags |= MSG_TRUNC;
        }
        if message.flags & MSG_PEEK != 0 {
            self.answers.lock().push_front(answer);
        }
        Ok(if message.flags & MSG_TRUNC != 0 { full } else { moved })
    }

    fn tell(&self, message: &[u8]) -> Result<()> {
        let mut answers = self.answers.lock();
        if answers.len() >= MAX_WAITING {
            return Err(Errno::EAGAIN);
        }
        answers.push_back(message.to_vec());
        drop(answers);
        self.queue.wake_all(Events::IN | Events::RDNORM);
        Ok(())
    }

    fn local(&self) -> Address {
        let port = self.port.load(Ordering::Relaxed);
        Address::Netlink { port, groups: self.groups.load(Ordering::Relaxed) }
    }

    fn peer(&self) -> Result<Address> {
        Ok(Address::Netlink { port: 0, groups: 0 })
    }

    fn set_option(&self, who: &Caller<'_>, level: u32, name: u32, value: &[u8]) -> Result<()> {
        match level {
            SOL_SOCKET if self.common.lock().set(who, name, value)? => Ok(()),
            // Extended acknowledgements, strict checking, membership: nothing changes by them here.
            SOL_NETLINK if name <= 12 => Ok(()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        let number = |value: u32| Ok(value.to_ne_bytes().to_vec());
        match (level, name) {
            (SOL_SOCKET, SO_TYPE) => number(SOCK_RAW),
            (SOL_SOCKET, SO_DOMAIN) => number(AF_NETLINK),
            (SOL_SOCKET, SO_PROTOCOL | SO_ERROR | SO_ACCEPTCONN) => number(0),
            (SOL_SOCKET, _) => self.common.lock().get(name).ok_or(Errno::ENOPROTOOPT),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn poll(&self, table: &mut PollTable<'_>) -> Events {
        table.register(&self.queue);
        let writable = Events::OUT | Events::WRNORM;
        if self.answers.lock().is_empty() {
            writable
        } else {
            writable | Events::IN | Events::RDNORM
        }
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        if request != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let count = self.answers.lock().front().map_or(0, Vec::len);
        put_user(arg, &(count as i32))?;
        Ok(0)
    }

    fn close(&self, _nonblock: bool) {
        let port = self.port.load(Ordering::Relaxed);
        TAKEN.lock().retain(|&taken| taken != port);
    }
}
