//! Sockets, as `ss` reads them (sock_diag(7)): those of the internet families and unix sockets.

use super::message::{Reply, attribute, find, word};
use crate::errno::{Errno, Result};
use crate::net::addr::{IpAddr, SocketAddr, UnixName};
use crate::net::ip::protocol;
use crate::net::owner::Owner;
use crate::net::socket::Shutdown;
use crate::net::stack::Stack;
use crate::net::unix::{self, Report};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use linux_raw_sys::net::{AF_INET, AF_INET6, AF_UNIX};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;

// States, as TCP numbers them.
const ESTABLISHED: u8 = 1;
const CLOSED: u8 = 7;
const LISTEN: u8 = 10;

// Attributes of internet sockets; bit `n - 1` of a request asks for `n`.
const MEMINFO: u16 = 1;
const INFO: u16 = 2;
const CONG: u16 = 4;
const SKMEMINFO: u16 = 7;
const SHUTDOWN: u16 = 8;
const V6ONLY: u16 = 11;

// Attributes of unix sockets, and the bits that ask for them.
const NAME: (u16, u32) = (0, 1);
const PEER: (u16, u32) = (2, 4);
const QUEUES: (u16, u32) = (4, 16);
const UNIX_SHUTDOWN: u16 = 6;
const UID: (u16, u32) = (7, 64);

/// Answers a request of `NETLINK_SOCK_DIAG`: all that fit it, or the one that it names.
pub(super) fn answer(reply: &mut Reply<'_>, stack: &Arc<Stack>, dump: bool) -> Result<()> {
    if reply.request.kind != BY_FAMILY {
        return Err(Errno::EOPNOTSUPP);
    }
    let body = reply.request.body;
    match body.first().copied().map(u32::from) {
        Some(AF_INET | AF_INET6) => {
            let wanted = Wanted::read(body)?;
            let found = internet(reply, stack, &wanted, dump);
            if dump || found { Ok(()) } else { Err(Errno::ENOENT) }
        }
        Some(AF_UNIX) => {
            let body: &[u8; 24] = body.first_chunk().ok_or(Errno::EINVAL)?;
            let [states, ino, show] = [4, 8, 12].map(|at| word(body, at));
            let mut found = false;
            for report in unix::reports() {
                let named = ino != 0 && report.owner.0 == u64::from(ino);
                if if dump { states >> unix_state(&report) & 1 != 0 } else { named } {
                    found = true;
                    unix_socket(reply, &report, show);
                }
            }
            if dump || found { Ok(()) } else { Err(Errno::ENOENT) }
        }
        Some(_) => Err(Errno::ENOENT),
        None => Err(Errno::EINVAL),
    }
}

/// `struct inet_diag_req_v2`
struct Wanted {
    v6: bool,
    protocol: u32,
    attributes: u8,
    states: u32,
    /// Ports in network order and addresses of both ends.
    id: [u8; 36],
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Wanted> {
        /// `INET_DIAG_REQ_PROTOCOL`: protocols whose numbers are longer than a byte.
        const PROTOCOL: u16 = 3;
        let (body, attributes) = body.split_first_chunk::<56>().ok_or(Errno::EINVAL)?;
        let long = find(attributes, PROTOCOL).and_then(|value| value.first_chunk());
        let protocol = long.map_or(body[1].into(), |value| u32::from_ne_bytes(*value));
        let mut id = [0; 36];
        id.copy_from_slice(&body[8..44]);
        Ok(Wanted {
            v6: u32::from(body[0]) == AF_INET6,
            protocol,
            attributes: body[2],
            states: word(body, 4),
            id,
        })
    }

    /// Whether one with these ends is meant: of a dump, those with the ports that are not 0.
    fn means(&self, ends: &[u8; 36], state: u8, dump: bool) -> bool {
        if !dump {
            return *ends == self.id;
        }
        let port =
            |at: usize| self.id[at..at + 2] == [0, 0] || self.id[at..at + 2] == ends[at..at + 2];
        self.states >> state & 1 != 0 && port(0) && port(2)
    }

    fn asks(&self, attribute: u16) -> bool {
        self.attributes >> (attribute - 1) & 1 != 0
    }
}

/// Ports and addresses as `struct inet_diag_sockid` starts.
fn sockid(local: SocketAddr, remote: SocketAddr) -> [u8; 36] {
    let mut id = [0; 36];
    for (at, end) in [(0, local), (1, remote)] {
        id[2 * at..][..2].copy_from_slice(&end.port().to_be_bytes());
        let to = &mut id[4 + 16 * at..][..16];
        match end.ip() {
            IpAddr::V4(v4) => to[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => to.copy_from_slice(&v6.octets()),
        }
    }
    id
}

/// One internet socket.
struct Found<'a> {
    ends: (SocketAddr, Option<SocketAddr>),
    state: u8,
    /// Bytes to be received and sent; of a listener connections that wait, and that may.
    queues: [usize; 2],
    owner: &'a Owner,
    info: Option<Vec<u8>>,
    /// `IPV6_V6ONLY`
    only: bool,
    /// `TCP_CONGESTION`
    congestion: Option<&'static str>,
}

fn internet(reply: &mut Reply<'_>, stack: &Arc<Stack>, wanted: &Wanted, dump: bool) -> bool {
    let mut any = false;
    let mut tell = |found: Found<'_>| {
        let (local, remote) = found.ends;
        let nobody: IpAddr = match local.is_ipv6() {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        let id = sockid(local, remote.unwrap_or(SocketAddr::new(nobody, 0)));
        if local.is_ipv6() == wanted.v6 && wanted.means(&id, found.state, dump) && (dump || !any) {
            any = true;
            message(reply, wanted, &id, &found);
        }
    };
    // None that would not fit has sockets here.
    let asked = u8::try_from(wanted.protocol).unwrap_or(0);
    let lite = asked == protocol::UDPLITE;
    match asked {
        protocol::TCP => {
            for listener in stack.tcp.listeners() {
                let (waiting, most) = listener.lengths();
                let (ends, owner) = ((listener.local, None), &listener.owner);
                let (queues, only) = ([waiting, most], !listener.dual);
                let congestion = Some(listener.options.lock().congestion.name());
                tell(Found { ends, state: LISTEN, queues, owner, info: None, only, congestion });
            }
            for conn in stack.tcp.snapshot() {
                let inner = conn.lock();
                let info = wanted.asks(INFO).then(|| inner.info(stack.now()));
                let (state, queues) = (inner.state() as u8, [inner.readable(), inner.queued()]);
                let congestion = Some(inner.options().congestion.name());
                drop(inner);
                let ends = (conn.local, Some(conn.remote));
                let owner = &conn.owner;
                tell(Found { ends, state, queues, owner, info, only: false, congestion });
            }
        }
        protocol::UDP | protocol::UDPLITE => {
            for endpoint in stack.datagrams(lite).0.snapshot() {
                let (local, peer, waiting, _) = endpoint.describe();
                let state = if peer.is_some() { ESTABLISHED } else { CLOSED };
                let (ends, owner) = ((local, peer), &endpoint.owner);
                let only = !endpoint.is_dual();
                let queues = [waiting, 0];
                tell(Found { ends, state, queues, owner, info: None, only, congestion: None });
            }
        }
        _ => {}
    }
    any
}

/// `struct inet_diag_msg` and attributes.
fn message(reply: &mut Reply<'_>, wanted: &Wanted, id: &[u8; 36], found: &Found<'_>) {
    reply.message(BY_FAMILY, |out| {
        let family = if wanted.v6 { AF_INET6 } else { AF_INET };
        out.extend([family as u8, found.state, 0, 0]);
        out.extend(id);
        // Interface, and a cookie: the inode.
        let ino = found.owner.ino();
        out.extend(0u32.to_ne_bytes());
        out.extend(ino.to_ne_bytes());
        let [receive, send] = found.queues.map(|bytes| bytes as u32);
        let words = [0, receive, send, found.owner.uid(), ino as u32];
        out.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        let bytes =
            |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        if wanted.asks(MEMINFO) {
            attribute(out, MEMINFO, &bytes(&[receive, 0, 0, send]));
        }
        if wanted.asks(SKMEMINFO) {
            attribute(out, SKMEMINFO, &bytes(&[receive, 212_992, send, 212_992, 0, 0, 0, 0, 0]));
        }
        if let Some(name) = found.congestion.filter(|_| wanted.asks(CONG)) {
            attribute(out, CONG, &[name.as_bytes(), &[0]].concat());
        }
        if let Some(info) = &found.info {
            attribute(out, INFO, info);
        }
        attribute(out, SHUTDOWN, &[0]);
        if wanted.v6 {
            attribute(out, V6ONLY, &[found.only.into()]);
        }
    });
}

fn unix_state(report: &Report) -> u8 {
    match (report.listening, report.peer) {
        (Some(_), _) => LISTEN,
        (None, Some(_)) => ESTABLISHED,
        (None, None) => CLOSED,
    }
}

/// `struct unix_diag_msg` and attributes.
fn unix_socket(reply: &mut Reply<'_>, report: &Report, show: u32) {
    reply.message(BY_FAMILY, |out| {
        let (ino, uid) = report.owner;
        out.extend([AF_UNIX as u8, report.kind as u8, unix_state(report), 0]);
        out.extend((ino as u32).to_ne_bytes());
        out.extend(ino.to_ne_bytes());
        if show & NAME.1 != 0 {
            match &report.name {
                UnixName::Unnamed => {}
                UnixName::Path(path) => attribute(out, NAME.0, &[&path[..], &[0]].concat()),
                UnixName::Abstract(name) => attribute(out, NAME.0, &[&[0], &name[..]].concat()),
            }
        }
        if let Some(peer) = report.peer.filter(|&peer| show & PEER.1 != 0 && peer != 0) {
            attribute(out, PEER.0, &(peer as u32).to_ne_bytes());
        }
        if show & QUEUES.1 != 0 {
            let (receive, send) = report.listening.unwrap_or((report.waiting, 0));
            let both = [receive, send].map(|value| (value as u32).to_ne_bytes());
            attribute(out, QUEUES.0, both.as_flattened());
        }
        let Shutdown { read, write } = report.shut;
        attribute(out, UNIX_SHUTDOWN, &[u8::from(read) | u8::from(write) << 1]);
        if show & UID.1 != 0 {
            attribute(out, UID.0, &uid.to_ne_bytes());
        }
    });
}
