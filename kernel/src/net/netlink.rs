//! Netlink sockets (netlink(7)), of the families that tell what there is: `route` of the network,
//! `diag` of sockets.

mod diag;
mod message;
mod route;

use super::addr::Address;
use super::filter;
use super::socket::options::Common;
use super::socket::{Caller, Incoming, Outgoing, Socket, wait};
use super::stack::Stack;
use crate::bpf::View;
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
use message::{HEADER, NLMSG_DONE, Reply, Request, split};

const NETLINK_ROUTE: u32 = 0;
const NETLINK_SOCK_DIAG: u32 = 4;
/// Kinds below are netlink's own.
const FIRST_KIND: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const SOL_NETLINK: u32 = 270;
/// Answers that may wait.
const MAX_WAITING: usize = 64;

/// Process numbers that serve as ports.
static TAKEN: SpinLock<Vec<u32>> = SpinLock::new(Vec::new());

/// A netlink socket.
pub struct NetlinkSocket {
    stack: Arc<Stack>,
    /// `NETLINK_*`
    protocol: u32,
    queue: Arc<WaitQueue>,
    port: AtomicU32,
    groups: AtomicU32,
    answers: SpinLock<VecDeque<Vec<u8>>>,
    common: SpinLock<Common>,
}

/// socket(2) for `AF_NETLINK`.
pub fn create(_who: &Caller<'_>, protocol: u32) -> Result<Arc<dyn Socket>> {
    if !matches!(protocol, NETLINK_ROUTE | NETLINK_SOCK_DIAG) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok(NetlinkSocket::new(super::stack(), protocol))
}

impl NetlinkSocket {
    /// A socket that tells about `stack`.
    pub fn new(stack: &Arc<Stack>, protocol: u32) -> Arc<NetlinkSocket> {
        Arc::new(NetlinkSocket {
            stack: stack.clone(),
            protocol,
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
        if request.flags & NLM_F_REQUEST == 0 || request.kind < FIRST_KIND {
            return;
        }
        let dump = request.flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut reply = Reply { request, out: Vec::new(), multi: dump };
        let result = match self.protocol {
            NETLINK_SOCK_DIAG => diag::answer(&mut reply, &self.stack, dump),
            _ => route::answer(&mut reply, &self.stack, dump),
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
        // What is told once is told whole.
        let room = answers.len() < MAX_WAITING;
        for chunk in split(&reply.out) {
            let wanted = filter::wanted(filter.as_ref(), View::plain(chunk));
            if wanted > 0 && room {
                answers.push_back(chunk[..chunk.len().min(wanted)].to_vec());
            }
        }
        drop(answers);
        self.queue.wake_all(Events::IN | Events::RDNORM);
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
            (SOL_SOCKET, SO_PROTOCOL) => number(self.protocol),
            (SOL_SOCKET, SO_ERROR | SO_ACCEPTCONN) => number(0),
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
