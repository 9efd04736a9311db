//! Local sockets (unix(7)).
//!
//! A connected socket writes into its peer's receive queue. Names are paths (the inode is the key,
//! so links and renames work) or abstract.
//!
//! # Locks
//! One `SpinLock` per socket; two are never held together. Queues of messages drop outside of
//! locks, because a message may own the last reference to another socket.

mod names;
mod receive;
mod send;

use super::addr::{Address, UnixName};
use super::socket::options::Common;
use super::socket::{Caller, Control, Incoming, Outgoing, Shutdown, Socket, Ucred, wait};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::inode::mode::S_IFSOCK;
use crate::fs::{Inode, ops, perm};
use crate::io::put_user;
use crate::net::owner::Owner;
use crate::net::settings;
use crate::sync::{SpinLock, WaitQueue};
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};
use linux_raw_sys::net::*;

/// A unix socket.
pub struct UnixSocket {
    this: Weak<UnixSocket>,
    kind: u32,
    queue: Arc<WaitQueue>,
    state: SpinLock<State>,
    common: SpinLock<Common>,
    owner: Owner,
}

/// What waits to be received.
pub(super) struct Message {
    data: Vec<u8>,
    /// Bytes of `data` that a stream reader has taken already.
    taken: usize,
    from: UnixName,
    cred: Ucred,
    rights: Vec<Control>,
}

struct State {
    name: UnixName,
    /// Keeps the socket file's inode, and with it the key of the name table.
    inode: Option<Arc<dyn Inode>>,
    role: Role,
    received: VecDeque<Message>,
    /// Bytes in `received`.
    bytes: usize,
    shut: Shutdown,
    /// The peer has shut down its writing half, or is gone.
    peer_shut: bool,
    /// The peer is gone with data unread.
    reset: bool,
    /// Somebody waits for room in the peer.
    no_space: bool,
    peer_cred: Option<Ucred>,
    peer_name: UnixName,
}

#[derive(Clone)]
enum Role {
    Idle,
    Listening {
        backlog: usize,
        cred: Ucred,
    },
    /// Stream and seqpacket: the other end. Datagram: where connect(2) pointed.
    Connected(Weak<UnixSocket>),
}

impl UnixSocket {
    /// A new socket.
    pub fn new(kind: u32) -> Arc<UnixSocket> {
        Arc::new_cyclic(|this| UnixSocket {
            this: this.clone(),
            kind,
            queue: Arc::new(WaitQueue::new()),
            state: SpinLock::new(State {
                name: UnixName::Unnamed,
                inode: None,
                role: Role::Idle,
                received: VecDeque::new(),
                bytes: 0,
                shut: Shutdown { read: false, write: false },
                peer_shut: false,
                reset: false,
                no_space: false,
                peer_cred: None,
                peer_name: UnixName::Unnamed,
            }),
            common: SpinLock::new(Common::new()),
            owner: Owner::default(),
        })
    }

    /// socketpair(2).
    pub fn pair(kind: u32, cred: Ucred) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
        let (a, b) = (UnixSocket::new(kind), UnixSocket::new(kind));
        a.join(&b, cred);
        b.join(&a, cred);
        (a, b)
    }

    fn join(&self, peer: &Arc<UnixSocket>, theirs: Ucred) {
        let name = peer.state.lock().name.clone();
        let mut state = self.state.lock();
        state.role = Role::Connected(Arc::downgrade(peer));
        state.peer_cred = Some(theirs);
        state.peer_name = name;
    }

    fn stream(&self) -> bool {
        self.kind == SOCK_STREAM
    }

    fn connected(&self) -> Option<Arc<UnixSocket>> {
        match &self.state.lock().role {
            Role::Connected(peer) => peer.upgrade(),
            _ => None,
        }
    }

    fn wake(&self, events: Events) {
        self.queue.wake_all(events);
    }

    /// Bytes that may wait at the other end. As in Linux they are the sender's, and the size of the
    /// receive buffer says nothing.
    fn limit(&self) -> usize {
        self.common.lock().send_buffer as usize
    }

    /// Finds a socket by name. ECONNREFUSED if there is a file but no socket.
    fn find(who: &Caller<'_>, name: &UnixName) -> Result<Arc<UnixSocket>> {
        match name {
            UnixName::Unnamed => Err(Errno::EINVAL),
            UnixName::Abstract(name) => names::find_abstract(name).ok_or(Errno::ECONNREFUSED),
            UnixName::Path(path) => {
                let resolver = who.resolver.as_ref().ok_or(Errno::ENOENT)?;
                let found = resolver.lookup(path, true)?;
                let inode = found.inode()?;
                perm::check(resolver.who, inode, perm::WRITE)?;
                if inode.access().mode & linux_raw_sys::general::S_IFMT != S_IFSOCK {
                    return Err(Errno::ECONNREFUSED);
                }
                names::find_inode(inode).ok_or(Errno::ECONNREFUSED)
            }
        }
    }

    /// Connects a stream to a listener: makes the server's end and queues it.
    fn connect_stream(&self, who: &Caller<'_>, name: &UnixName, nonblock: bool) -> Result<()> {
        let timeout = self.common.lock().send_timeout;
        loop {
            let listener = Self::find(who, name)?;
            if listener.kind != self.kind {
                return Err(Errno::EPROTOTYPE);
            }
            match &self.state.lock().role {
                Role::Idle => {}
                Role::Connected(_) => return Err(Errno::EISCONN),
                Role::Listening { .. } => return Err(Errno::EINVAL),
            }
            let listener_state = listener.state.lock();
            let Role::Listening { backlog, cred } = listener_state.role.clone() else {
                return Err(Errno::ECONNREFUSED);
            };
            let name = listener_state.name.clone();
            drop(listener_state);
            let this = self.this.upgrade().ok_or(Errno::EBADF)?;
            if names::waiting(&listener) > backlog {
                if nonblock {
                    return Err(Errno::EAGAIN);
                }
                let room = || {
                    let listens = matches!(listener.state.lock().role, Role::Listening { .. });
                    (!listens || names::waiting(&listener) <= backlog).then_some(())
                };
                wait(&listener.queue, false, timeout, room)?;
                continue;
            }
            let server = UnixSocket::new(self.kind);
            let inherited = listener.common.lock().clone();
            *server.common.lock() = inherited;
            {
                let mut state = server.state.lock();
                state.name = name;
            }
            server.join(&this, who.cred);
            self.join(&server, cred);
            if !names::enqueue(&listener, server) {
                let mut state = self.state.lock();
                state.role = Role::Idle;
                state.peer_cred = None;
                return Err(Errno::ECONNREFUSED);
            }
            listener.queue.wake_one(Events::IN | Events::RDNORM);
            return Ok(());
        }
    }
}

impl Socket for UnixSocket {
    fn family(&self) -> u32 {
        AF_UNIX
    }
    fn kind(&self) -> u32 {
        self.kind
    }

    fn owned(&self, ino: u64, uid: u32) {
        self.owner.set(ino, uid);
        names::register(ino, &self.this);
    }

    fn bind(&self, who: &Caller<'_>, addr: &Address) -> Result<()> {
        let Address::Unix(name) = addr else { return Err(Errno::EINVAL) };
        if self.state.lock().name != UnixName::Unnamed {
            return Err(Errno::EINVAL);
        }
        let this = self.this.upgrade().ok_or(Errno::EBADF)?;
        match name {
            // Autobind: an abstract name of five hexadecimal digits.
            UnixName::Unnamed => {
                let name = names::autobind(&this).ok_or(Errno::ENOSPC)?;
                self.state.lock().name = UnixName::Abstract(name);
            }
            UnixName::Abstract(abstract_name) => {
                if !names::bind_abstract(abstract_name, &this) {
                    return Err(Errno::EADDRINUSE);
                }
                self.state.lock().name = name.clone();
            }
            UnixName::Path(path) => {
                let resolver = who.resolver.as_ref().ok_or(Errno::ENOENT)?;
                let mode = S_IFSOCK | 0o777;
                let made =
                    ops::mknod(resolver, path, mode, who.umask, 0).map_err(
                        |error| match error {
                            Errno::EEXIST => Errno::EADDRINUSE,
                            error => error,
                        },
                    )?;
                let inode = made.inode()?.clone();
                names::bind_inode(&inode, &this);
                let mut state = self.state.lock();
                state.name = name.clone();
                state.inode = Some(inode);
            }
        }
        Ok(())
    }

    fn listen(&self, who: &Caller<'_>, backlog: usize) -> Result<()> {
        if self.kind == SOCK_DGRAM {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if state.name == UnixName::Unnamed || matches!(state.role, Role::Connected(_)) {
            return Err(Errno::EINVAL);
        }
        state.role =
            Role::Listening { backlog: backlog.min(settings::SOMAXCONN.size()), cred: who.cred };
        drop(state);
        self.wake(Events::OUT);
        Ok(())
    }

    fn accept(&self, nonblock: bool) -> Result<(Arc<dyn Socket>, Address)> {
        if self.kind == SOCK_DGRAM {
            return Err(Errno::EOPNOTSUPP);
        }
        let this = self.this.upgrade().ok_or(Errno::EBADF)?;
        let take = || {
            if let Some(server) = names::dequeue(&this) {
                return Some(Ok(server));
            }
            let listens = matches!(self.state.lock().role, Role::Listening { .. });
            (!listens).then_some(Err(Errno::EINVAL))
        };
        let server = match take() {
            Some(found) => found?,
            None if nonblock => return Err(Errno::EAGAIN),
            None => {
                let timeout = self.common.lock().receive_timeout;
                wait(&self.queue, true, timeout, take)??
            }
        };
        // Clients may wait for room in the backlog.
        self.wake(Events::OUT);
        let peer = server.state.lock().peer_name.clone();
        Ok((server, Address::Unix(peer)))
    }

    fn connect(&self, who: &Caller<'_>, addr: &Address, nonblock: bool) -> Result<()> {
        let name = match addr {
            Address::Unix(name) => name,
            Address::Unspecified if self.kind == SOCK_DGRAM => {
                let mut state = self.state.lock();
                state.role = Role::Idle;
                state.peer_name = UnixName::Unnamed;
                return Ok(());
            }
            _ => return Err(Errno::EINVAL),
        };
        if self.kind != SOCK_DGRAM {
            return self.connect_stream(who, name, nonblock);
        }
        let peer = Self::find(who, name)?;
        if peer.kind != SOCK_DGRAM {
            return Err(Errno::EPROTOTYPE);
        }
        let mut state = self.state.lock();
        state.role = Role::Connected(Arc::downgrade(&peer));
        state.peer_name = name.clone();
        Ok(())
    }

    fn send(&self, who: &Caller<'_>, message: &mut Outgoing<'_, '_>) -> Result<usize> {
        self.send_message(who, message)
    }

    fn receive(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        self.receive_message(message)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let peer = self.connected();
        if peer.is_none() && self.kind != SOCK_DGRAM {
            let gone = matches!(self.state.lock().role, Role::Connected(_));
            if !gone {
                return Err(Errno::ENOTCONN);
            }
        }
        let mut state = self.state.lock();
        state.shut.read |= how.read;
        state.shut.write |= how.write;
        drop(state);
        self.wake(Events::ALL);
        if let (Some(peer), true) = (peer, self.kind != SOCK_DGRAM) {
            let mut state = peer.state.lock();
            state.peer_shut |= how.write;
            state.shut.write |= how.read;
            drop(state);
            peer.wake(Events::ALL);
        }
        Ok(())
    }

    fn local(&self) -> Address {
        Address::Unix(self.state.lock().name.clone())
    }

    fn peer(&self) -> Result<Address> {
        let state = self.state.lock();
        match state.role {
            Role::Connected(_) => Ok(Address::Unix(state.peer_name.clone())),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn set_option(&self, who: &Caller<'_>, level: u32, name: u32, value: &[u8]) -> Result<()> {
        match level {
            SOL_SOCKET => {
                let known = self.common.lock().set(who, name, value)?;
                if matches!(name, SO_SNDBUF | SO_SNDBUFFORCE) {
                    // There may be room now.
                    self.wake(Events::OUT | Events::WRNORM);
                }
                if known { Ok(()) } else { Err(Errno::ENOPROTOOPT) }
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let number = |value: u32| Ok(value.to_ne_bytes().to_vec());
        match name {
            SO_TYPE => number(self.kind),
            SO_DOMAIN => number(AF_UNIX),
            SO_PROTOCOL => number(0),
            SO_ACCEPTCONN => {
                number(u32::from(matches!(self.state.lock().role, Role::Listening { .. })))
            }
            SO_ERROR => {
                let reset = core::mem::take(&mut self.state.lock().reset);
                number(if reset { u32::from(Errno::ECONNRESET.0) } else { 0 })
            }
            SO_PEERCRED => {
                let cred = self.state.lock().peer_cred;
                let none = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
                let Ucred { pid, uid, gid } = cred.unwrap_or(none);
                Ok([pid, uid, gid].into_iter().flat_map(u32::to_ne_bytes).collect())
            }
            _ => self.common.lock().get(name).ok_or(Errno::ENOPROTOOPT),
        }
    }

    fn poll(&self, table: &mut PollTable<'_>) -> Events {
        table.register(&self.queue);
        let peer = self.connected();
        let room = peer.as_ref().map(|peer| self.has_room(peer));
        let mut state = self.state.lock();
        let mut events = Events::empty();
        match state.role {
            Role::Listening { .. } => {
                drop(state);
                let this = self.this.upgrade();
                let waiting = this.is_some_and(|this| names::waiting(&this) > 0);
                return if waiting { Events::IN | Events::RDNORM } else { Events::empty() };
            }
            Role::Idle if self.kind != SOCK_DGRAM => {
                return Events::OUT | Events::WRNORM | Events::HUP;
            }
            Role::Idle => events |= Events::OUT | Events::WRNORM,
            Role::Connected(_) => match room {
                Some(false) => state.no_space = true,
                _ => events |= Events::OUT | Events::WRNORM,
            },
        }
        if !state.received.is_empty() {
            events |= Events::IN | Events::RDNORM;
        }
        let gone = self.kind != SOCK_DGRAM && peer.is_none();
        let read_end = state.shut.read || state.peer_shut || gone;
        if read_end {
            events |= Events::IN | Events::RDNORM | Events::RDHUP;
        }
        if gone || read_end && state.shut.write {
            events |= Events::HUP;
        }
        if state.reset {
            events |= Events::ERR;
        }
        events
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        let count = match request {
            FIONREAD if self.stream() => self.state.lock().bytes,
            FIONREAD => self.state.lock().received.front().map_or(0, |first| first.data.len()),
            TIOCOUTQ => self.connected().map_or(0, |peer| peer.state.lock().bytes),
            _ => return Err(Errno::ENOTTY),
        };
        put_user(arg, &(count as i32))?;
        Ok(0)
    }

    fn close(&self, _nonblock: bool) {
        names::unregister(self.owner.ino());
        let Some(this) = self.this.upgrade() else { return };
        let mut state = self.state.lock();
        let role = core::mem::replace(&mut state.role, Role::Idle);
        let received = core::mem::take(&mut state.received);
        state.bytes = 0;
        let (name, inode) = (state.name.clone(), state.inode.take());
        drop(state);
        names::unbind(&this, &name, inode.as_ref());
        match role {
            Role::Idle => {}
            Role::Listening { .. } => {
                for server in names::close(&this) {
                    server.close(true);
                }
                self.wake(Events::ALL);
            }
            Role::Connected(peer) if self.kind != SOCK_DGRAM => {
                if let Some(peer) = peer.upgrade() {
                    let mut state = peer.state.lock();
                    state.peer_shut = true;
                    state.shut.write = true;
                    state.reset |= !received.is_empty();
                    // Nobody is there any more, even while other references keep us.
                    state.role = Role::Connected(Weak::new());
                    drop(state);
                    peer.wake(Events::ALL);
                }
            }
            Role::Connected(_) => {}
        }
        drop(received);
    }
}

/// What others may see of a unix socket.
pub struct Report {
    /// Its name.
    pub name: UnixName,
    /// `SOCK_*`
    pub kind: u32,
    /// It waits for connections: so many did come, so many may.
    pub listening: Option<(usize, usize)>,
    /// The file's inode of the socket at the other end; `Some(0)`: it has gone.
    pub peer: Option<u64>,
    /// Inode of its own file, and its owner.
    pub owner: (u64, u32),
    /// Bytes that wait to be received.
    pub waiting: usize,
    /// Halves that are shut down.
    pub shut: Shutdown,
}

/// Every unix socket that a file stands for, and those that nobody has accepted yet.
pub fn reports() -> Vec<Report> {
    names::all().iter().map(|socket| socket.report()).collect()
}

impl UnixSocket {
    fn report(&self) -> Report {
        let peer = self.connected().map(|peer| peer.owner.ino());
        let came = self.this.upgrade().map_or(0, |this| names::waiting(&this));
        let state = self.state.lock();
        let (listening, connected) = match state.role {
            Role::Listening { backlog, .. } => (Some((came, backlog)), false),
            Role::Connected(_) => (None, true),
            Role::Idle => (None, false),
        };
        Report {
            name: state.name.clone(),
            kind: self.kind,
            listening,
            peer: connected.then_some(peer.unwrap_or(0)),
            owner: (self.owner.ino(), self.owner.uid()),
            waiting: state.bytes,
            shut: state.shut,
        }
    }
}
