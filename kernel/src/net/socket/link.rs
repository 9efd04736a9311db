//! Packet sockets (packet(7)): frames of eth0 as they are, for DHCP clients and sniffers. There are
//! no rings, and the loopback device has no frames.

use super::options::Common;
use super::{Caller, Incoming, Outgoing, Socket, wait};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::put_user;
use crate::net::addr::{Address, LinkAddress};
use crate::net::edge;
use crate::net::packet::Packet;
use crate::net::stack::Stack;
use crate::net::tap::{Seen, Tap};
use crate::sync::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};
use linux_raw_sys::net::*;

const LEVEL_PACKET: u32 = 263;
const PACKET_ADD_MEMBERSHIP: u32 = 1;
const PACKET_DROP_MEMBERSHIP: u32 = 2;
const PACKET_STATISTICS: u32 = 6;
const PACKET_AUXDATA: u32 = 8;
/// Interface index of eth0.
const ETH0: i32 = 2;

/// socket(2) for `AF_PACKET`; `protocol` is an Ethernet type in network order.
pub fn create(who: &Caller<'_>, kind: u32, protocol: u32) -> Result<Arc<dyn Socket>> {
    if !matches!(kind, SOCK_RAW | SOCK_DGRAM) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if !who.privileged {
        return Err(Errno::EPERM);
    }
    let stack = crate::net::stack();
    let tap = Tap::new((protocol as u16).swap_bytes(), kind == SOCK_DGRAM);
    stack.taps.insert(tap.clone());
    let settings = SpinLock::new(Common::new());
    let bound = SpinLock::new(false);
    Ok(Arc::new(LinkSocket { stack: stack.clone(), tap, kind, bound, settings }))
}

/// A packet socket.
struct LinkSocket {
    stack: Arc<Stack>,
    tap: Arc<Tap>,
    kind: u32,
    /// To eth0.
    bound: SpinLock<bool>,
    settings: SpinLock<Common>,
}

impl LinkSocket {
    fn address(&self, protocol: u16, kind: u8, mac: [u8; 6]) -> Address {
        Address::Link(LinkAddress { protocol, index: ETH0, kind, mac })
    }
}

impl Socket for LinkSocket {
    fn family(&self) -> u32 {
        AF_PACKET
    }
    fn kind(&self) -> u32 {
        self.kind
    }

    fn owned(&self, ino: u64, uid: u32) {
        self.tap.owner.set(ino, uid);
    }

    fn bind(&self, _who: &Caller<'_>, addr: &Address) -> Result<()> {
        let Address::Link(link) = addr else { return Err(Errno::EINVAL) };
        if !matches!(link.index, 0 | ETH0) || link.index == ETH0 && self.stack.device().is_none() {
            return Err(Errno::ENODEV);
        }
        if link.protocol != 0 {
            self.tap.set_protocol(link.protocol);
        }
        *self.bound.lock() = link.index == ETH0;
        Ok(())
    }

    fn send(&self, _who: &Caller<'_>, message: &mut Outgoing<'_, '_>) -> Result<usize> {
        let device = self.stack.device().ok_or(Errno::ENXIO)?;
        let to = match &message.to {
            Some(Address::Link(link)) if link.index == ETH0 => Some(*link),
            Some(Address::Link(_)) => return Err(Errno::ENXIO),
            Some(_) => return Err(Errno::EINVAL),
            None if !*self.bound.lock() => return Err(Errno::ENXIO),
            None => None,
        };
        let len = message.src.remaining();
        let raw = self.kind == SOCK_RAW;
        if len > device.mtu() + if raw { edge::HEADER } else { 0 } {
            return Err(Errno::EMSGSIZE);
        }
        if raw && len < edge::HEADER {
            return Err(Errno::EINVAL);
        }
        let mut packet = Packet::new(len).ok_or(Errno::ENOBUFS)?;
        if message.src.read(packet.bytes_mut())? < len {
            return Err(Errno::EFAULT);
        }
        if raw {
            self.stack.transmit(packet);
        } else {
            let to = to.ok_or(Errno::EDESTADDRREQ)?;
            let protocol = if to.protocol == 0 { self.tap.protocol() } else { to.protocol };
            edge::send_frame(&self.stack, packet, to.mac, protocol);
        }
        Ok(len)
    }

    fn receive(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        let keep = message.flags & MSG_PEEK != 0;
        let seen = match self.tap.take(keep) {
            Some(seen) => seen,
            None if message.nonblock => return Err(Errno::EAGAIN),
            None => {
                let timeout = self.settings.lock().receive_timeout;
                wait(&self.tap.queue, false, timeout, || self.tap.take(keep))?
            }
        };
        let Seen { bytes, full, kind } = seen;
        let Some((head, rest)) = bytes.split_first_chunk::<14>() else { return Ok(0) };
        let (data, full) = match self.kind {
            SOCK_RAW => (&bytes[..], full),
            _ => (rest, full - edge::HEADER),
        };
        let moved = if message.dst.remaining() == 0 { 0 } else { message.dst.write(data)? };
        let mut mac = [0; 6];
        mac.copy_from_slice(&head[6..12]);
        let protocol = u16::from_be_bytes([head[12], head[13]]);
        message.from = Some(self.address(protocol, kind, mac));
        if moved < full {
            message.out_flags |= MSG_TRUNC;
        }
        Ok(if message.flags & MSG_TRUNC != 0 { full } else { moved })
    }

    fn local(&self) -> Address {
        let mac = self.stack.device().map(|device| device.mac()).unwrap_or_default();
        match *self.bound.lock() {
            true => self.address(self.tap.protocol(), 0, mac),
            false => Address::Link(LinkAddress {
                protocol: self.tap.protocol(),
                ..LinkAddress::default()
            }),
        }
    }

    fn set_option(&self, who: &Caller<'_>, level: u32, name: u32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_SOCKET, _) => {
                let mut settings = self.settings.lock();
                if !settings.set(who, name, value)? {
                    return Err(Errno::ENOPROTOOPT);
                }
                if matches!(name, SO_ATTACH_FILTER | SO_DETACH_FILTER) {
                    self.tap.filter.replace(settings.filter.clone());
                }
                Ok(())
            }
            // Every group and every frame that comes is heard already.
            (LEVEL_PACKET, PACKET_ADD_MEMBERSHIP | PACKET_DROP_MEMBERSHIP) => Ok(()),
            // There are no VLANs to tell of.
            (LEVEL_PACKET, PACKET_AUXDATA) if value.iter().all(|&byte| byte == 0) => Ok(()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        let number = |value: u32| Ok(value.to_ne_bytes().to_vec());
        match (level, name) {
            (SOL_SOCKET, SO_TYPE) => number(self.kind),
            (SOL_SOCKET, SO_DOMAIN) => number(AF_PACKET),
            (SOL_SOCKET, SO_PROTOCOL) => number(self.tap.protocol().swap_bytes().into()),
            (SOL_SOCKET, SO_ERROR | SO_ACCEPTCONN) => number(0),
            (SOL_SOCKET, _) => self.settings.lock().get(name).ok_or(Errno::ENOPROTOOPT),
            (LEVEL_PACKET, PACKET_STATISTICS) => {
                let (packets, drops) = self.tap.statistics();
                Ok([packets.to_ne_bytes(), drops.to_ne_bytes()].concat())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn poll(&self, table: &mut PollTable<'_>) -> Events {
        table.register(&self.tap.queue);
        let writable = Events::OUT | Events::WRNORM;
        match self.tap.next_len() {
            Some(_) => writable | Events::IN | Events::RDNORM,
            None => writable,
        }
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        let count = match request {
            FIONREAD => self.tap.next_len().unwrap_or(0),
            TIOCOUTQ => 0,
            _ => return Err(Errno::ENOTTY),
        };
        put_user(arg, &(count as i32))?;
        Ok(0)
    }

    fn close(&self, _nonblock: bool) {
        self.stack.taps.remove(&self.tap);
    }
}
