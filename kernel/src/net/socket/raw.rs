//! Raw and ping sockets (raw(7), icmp(7)).

use super::inet::{self, IpOptions, LEVEL_IP, LEVEL_IPV6};
use super::options::Common;
use super::{Caller, Incoming, Outgoing, Socket, wait};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::put_user;
use crate::net::addr::{Address, IpAddr, SocketAddr};
use crate::net::checksum;
use crate::net::ip::{self, protocol};
use crate::net::packet::Packet;
use crate::net::raw::Endpoint;
use crate::net::stack::Stack;
use crate::sync::{SpinLock, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};
use linux_raw_sys::net::*;

const ICMPV6_LEVEL: u32 = 58;
const ICMP_FILTER: u32 = 1;
const RAW_LEVEL: u32 = 255;

/// A raw socket, or a ping socket, which sees its own echo replies only.
pub struct RawSocket {
    stack: Arc<Stack>,
    endpoint: Arc<Endpoint>,
    /// Ping socket: the identifier that it uses.
    ping: Option<u16>,
    settings: SpinLock<(Common, IpOptions)>,
}

impl RawSocket {
    /// A new socket that hears `protocol`.
    pub fn new(stack: &Arc<Stack>, v6: bool, protocol: u8, ping: bool) -> Arc<RawSocket> {
        let endpoint = Endpoint::new(protocol, v6, Arc::new(WaitQueue::new()));
        stack.raw.insert(endpoint.clone());
        let ping = ping.then(|| stack.random() as u16);
        let settings = SpinLock::new((Common::new(), IpOptions::default()));
        Arc::new(RawSocket { stack: stack.clone(), endpoint, ping, settings })
    }

    /// EOPNOTSUPP unless the socket has filters of ICMP at that level.
    fn filters_icmp(&self, level: u32) -> Result<()> {
        let protocol = if level == RAW_LEVEL { protocol::ICMP } else { protocol::ICMPV6 };
        let has = self.ping.is_none() && self.endpoint.protocol == protocol;
        if has { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
    }

    fn take(&self) -> Option<(IpAddr, Packet)> {
        loop {
            let (from, mut packet) = self.endpoint.take()?;
            let Some(id) = self.ping else { return Some((from, packet)) };
            if !self.endpoint.v6 {
                let header_len = usize::from(packet.bytes()[0] & 15) * 4;
                packet.trim_front(header_len);
            }
            let reply = if self.endpoint.v6 { 129 } else { 0 };
            match packet.bytes() {
                [kind, _, _, _, a, b, ..] if *kind == reply && [*a, *b] == id.to_be_bytes() => {
                    return Some((from, packet));
                }
                _ => {}
            }
        }
    }
}

impl Socket for RawSocket {
    fn family(&self) -> u32 {
        if self.endpoint.v6 { AF_INET6 } else { AF_INET }
    }
    fn kind(&self) -> u32 {
        if self.ping.is_some() { SOCK_DGRAM } else { SOCK_RAW }
    }

    fn owned(&self, ino: u64, uid: u32) {
        self.endpoint.owner.set(ino, uid);
    }

    fn bind(&self, who: &Caller<'_>, addr: &Address) -> Result<()> {
        let addr = inet::plain(self.endpoint.v6, addr)?;
        inet::check_bind(&self.stack, who, addr, false)?;
        self.endpoint.bind(Some(addr.ip()).filter(|ip| !ip.is_unspecified()));
        Ok(())
    }

    fn connect(&self, _who: &Caller<'_>, addr: &Address, _nonblock: bool) -> Result<()> {
        if *addr == Address::Unspecified {
            self.endpoint.connect(None);
            return Ok(());
        }
        let addr = inet::plain(self.endpoint.v6, addr)?;
        self.stack.route(&addr.ip()).ok_or(Errno::ENETUNREACH)?;
        self.endpoint.connect(Some(addr.ip()));
        Ok(())
    }

    fn send(&self, _who: &Caller<'_>, message: &mut Outgoing<'_, '_>) -> Result<usize> {
        let to = match &message.to {
            Some(addr) => Some(inet::plain(self.endpoint.v6, addr)?.ip()),
            None => self.endpoint.addresses().1,
        };
        let to = to.ok_or(Errno::EDESTADDRREQ)?;
        let (ttl, tos, whole) = {
            let settings = self.settings.lock();
            (settings.1.ttl, settings.1.tos, settings.1.header_included && self.ping.is_none())
        };
        let route = self.stack.route(&to).ok_or(Errno::ENETUNREACH)?;
        let source = self.endpoint.addresses().0.or_else(|| self.stack.source(&to));
        let source = source.filter(|ip| ip.is_ipv4() == to.is_ipv4()).ok_or(Errno::ENETUNREACH)?;
        let len = message.src.remaining();
        if whole && !route.loopback && len > self.stack.mtu() {
            return Err(Errno::EMSGSIZE);
        }
        let mut packet = Packet::new(len).ok_or(Errno::EMSGSIZE)?;
        if message.src.read(packet.bytes_mut())? < len {
            return Err(Errno::EFAULT);
        }
        if whole && !route.v6 {
            if ip::parse(packet.bytes()).is_err() {
                // The kernel fills length and checksum (raw(7)).
                let bytes = packet.bytes_mut();
                if bytes.len() < ip::V4_HEADER || bytes[0] != 0x45 {
                    return Err(Errno::EINVAL);
                }
                bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                checksum::fill(0, &mut bytes[..ip::V4_HEADER], 10);
            }
        } else {
            let bytes = packet.bytes_mut();
            if let Some(id) = self.ping {
                // Echo requests, and nothing that could mislead others.
                let echo = if route.v6 { 128 } else { 8 };
                if bytes.len() < 8 || bytes[..2] != [echo, 0] {
                    return Err(Errno::EINVAL);
                }
                bytes[4..6].copy_from_slice(&id.to_be_bytes());
                if !route.v6 {
                    checksum::fill(0, bytes, 2);
                }
            }
            // ICMPv6 checksums are the kernel's work for raw sockets, too (RFC 3542, 3.1).
            if route.v6 && self.endpoint.protocol == protocol::ICMPV6 && bytes.len() >= 4 {
                let sum = checksum::pseudo_header(&source, &to, protocol::ICMPV6, bytes.len());
                checksum::fill(sum, bytes, 2);
            }
            ip::prepend(&mut packet, &source, &to, self.endpoint.protocol, ttl, tos);
        }
        self.stack.output_datagram(packet, &route, &to, whole)?;
        Ok(len)
    }

    fn receive(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        let (from, packet) = match self.take() {
            Some(found) => found,
            None if message.nonblock => return Err(Errno::EAGAIN),
            None => {
                let timeout = self.settings.lock().0.receive_timeout;
                wait(&self.endpoint.queue, false, timeout, || self.take())?
            }
        };
        let full = packet.len();
        let moved =
            if message.dst.remaining() == 0 { 0 } else { message.dst.write(packet.bytes())? };
        message.from = Some(Address::Inet(SocketAddr::new(from, 0)));
        if moved < full {
            message.out_flags |= MSG_TRUNC;
        }
        if message.flags & MSG_PEEK != 0 && self.ping.is_none() {
            self.endpoint.put_back(from, packet);
        }
        Ok(if message.flags & MSG_TRUNC != 0 { full } else { moved })
    }

    fn local(&self) -> Address {
        let any = inet::unspecified(self.endpoint.v6).ip();
        let port = self.ping.unwrap_or(0);
        Address::Inet(SocketAddr::new(self.endpoint.addresses().0.unwrap_or(any), port))
    }

    fn peer(&self) -> Result<Address> {
        let peer = self.endpoint.addresses().1.ok_or(Errno::ENOTCONN)?;
        Ok(Address::Inet(SocketAddr::new(peer, 0)))
    }

    fn set_option(&self, who: &Caller<'_>, level: u32, name: u32, value: &[u8]) -> Result<()> {
        let mut settings = self.settings.lock();
        let v6 = self.endpoint.v6;
        match level {
            SOL_SOCKET if settings.0.set(who, name, value)? => {
                if matches!(name, SO_ATTACH_FILTER | SO_DETACH_FILTER) {
                    self.endpoint.filter.replace(settings.0.filter.clone());
                }
                Ok(())
            }
            LEVEL_IP | LEVEL_IPV6 => settings.1.set(&self.stack, v6, level, name, value),
            RAW_LEVEL | ICMPV6_LEVEL if name == ICMP_FILTER => {
                self.filters_icmp(level)?;
                let mut deaf = self.endpoint.deaf();
                // What is not given of it stays.
                for (word, given) in deaf.iter_mut().zip(value.chunks_exact(4)) {
                    *word = given.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
                }
                self.endpoint.set_deaf(deaf);
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        let settings = self.settings.lock();
        let number = |value: u32| Ok(value.to_ne_bytes().to_vec());
        match (level, name) {
            (SOL_SOCKET, SO_TYPE) => number(self.kind()),
            (SOL_SOCKET, SO_DOMAIN) => number(self.family()),
            (SOL_SOCKET, SO_PROTOCOL) => number(u32::from(self.endpoint.protocol)),
            (SOL_SOCKET, SO_ERROR | SO_ACCEPTCONN) => number(0),
            (SOL_SOCKET, _) => settings.0.get(name).ok_or(Errno::ENOPROTOOPT),
            (LEVEL_IP | LEVEL_IPV6, _) => settings.1.get(&self.stack, level, name),
            (RAW_LEVEL | ICMPV6_LEVEL, ICMP_FILTER) => {
                self.filters_icmp(level)?;
                let words = self.endpoint.deaf();
                let words = &words[..if level == RAW_LEVEL { 1 } else { 8 }];
                Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn poll(&self, table: &mut PollTable<'_>) -> Events {
        table.register(&self.endpoint.queue);
        let writable = Events::OUT | Events::WRNORM;
        match self.endpoint.next_len() {
            Some(_) => writable | Events::IN | Events::RDNORM,
            None => writable,
        }
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        let count = match request {
            FIONREAD => self.endpoint.next_len().unwrap_or(0),
            TIOCOUTQ => 0,
            _ => return Err(Errno::ENOTTY),
        };
        put_user(arg, &(count as i32))?;
        Ok(0)
    }

    fn close(&self, _nonblock: bool) {
        self.stack.raw.remove(&self.endpoint);
    }
}
