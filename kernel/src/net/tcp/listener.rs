//! Listening sockets: half-open connections and the accept queue.

use super::conn::Conn;
use super::options::TcpOptions;
use super::segment::{ACK, SYN, Segment};
use super::table::Key;
use super::{Reply, cookie};
use crate::event::Events;
use crate::net::addr::SocketAddr;
use crate::net::filter::{Sharing, Slot};
use crate::net::owner::Owner;
use crate::net::settings;
use crate::net::stack::{Route, Stack};
use crate::sync::{SpinLock, WaitQueue};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Half-open connections that any backlog allows for, at least. A flood of SYNs costs no more than
/// this: further ones are answered by cookies, which cost nothing.
const MIN_HALF_OPEN: usize = 64;
/// How long after the last cookie was made one may come back, in nanoseconds.
const COOKIE_LIFE: u64 = 128_000_000_000;

/// A socket after listen(2).
pub struct Listener {
    /// Where it listens; the unspecified address means everywhere.
    pub local: SocketAddr,
    /// An `AF_INET6` wildcard that takes IPv4 as well.
    pub dual: bool,
    /// Wakes accepting tasks.
    pub queue: Arc<WaitQueue>,
    stack: Arc<Stack>,
    backlog: AtomicUsize,
    inner: SpinLock<Inner>,
    /// What accepted connections inherit.
    pub options: SpinLock<TcpOptions>,
    /// Whose it is.
    pub owner: Owner,
    /// Which segments it wants.
    pub filter: Slot,
    /// Whom it shares its port with.
    pub sharing: Sharing,
}

#[derive(Default)]
struct Inner {
    /// Oldest first; those whose handshake is over stay until they are in front.
    half_open: VecDeque<Arc<Conn>>,
    accept: VecDeque<Arc<Conn>>,
    closed: bool,
    /// Cookies are taken until then.
    cookies_until: u64,
}

impl Inner {
    fn tidy(&mut self) {
        let over = |conn: &Arc<Conn>| !conn.half_open.load(Ordering::Relaxed);
        while self.half_open.front().is_some_and(over) {
            self.half_open.pop_front();
        }
    }
}

impl Listener {
    /// A listener; the caller puts it into the stack's table.
    pub fn new(
        stack: &Arc<Stack>,
        local: SocketAddr,
        dual: bool,
        backlog: usize,
        queue: Arc<WaitQueue>,
        options: TcpOptions,
        sharing: Sharing,
    ) -> Arc<Listener> {
        Arc::new(Listener {
            local,
            dual,
            queue,
            stack: stack.clone(),
            backlog: AtomicUsize::new(backlog.min(settings::SOMAXCONN.size())),
            inner: SpinLock::new(Inner::default()),
            options: SpinLock::new(options),
            owner: Owner::default(),
            filter: Slot::default(),
            sharing,
        })
    }

    /// A second listen(2) changes the backlog.
    pub fn set_backlog(&self, backlog: usize) {
        self.backlog.store(backlog.min(settings::SOMAXCONN.size()), Ordering::Relaxed);
    }

    /// Length of the accept queue and its limit (`TCP_INFO` of a listener, `ss -l`).
    pub fn lengths(&self) -> (usize, usize) {
        (self.inner.lock().accept.len(), self.backlog.load(Ordering::Relaxed))
    }

    /// How well it fits a destination: `None` not at all, more is better.
    pub fn score(&self, local: &SocketAddr) -> Option<u8> {
        let mine = self.local.ip();
        if mine == local.ip() {
            return Some(3);
        }
        if !mine.is_unspecified() {
            return None;
        }
        match (mine.is_ipv4(), local.is_ipv4()) {
            (a, b) if a == b => Some(2),
            (false, true) if self.dual => Some(1),
            _ => None,
        }
    }

    /// Whether both are among those that share one port.
    pub fn shares(&self, other: &Listener) -> bool {
        self.sharing.is_with(&other.sharing) && self.local.ip() == other.local.ip()
    }

    /// The stack it listens in.
    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }

    /// A SYN for us.
    pub fn syn(
        self: &Arc<Self>,
        local: SocketAddr,
        remote: SocketAddr,
        route: Route,
        syn: &Segment<'_>,
    ) {
        let mut inner = self.inner.lock();
        let backlog = self.backlog.load(Ordering::Relaxed);
        // As Linux: the queue holds one more than the backlog says; a SYN that finds it full is
        // dropped, and the client tries again.
        if inner.closed || inner.accept.len() > backlog {
            return;
        }
        inner.tidy();
        let cookies = settings::COOKIES.get();
        let crowded = inner.half_open.len() >= backlog.max(MIN_HALF_OPEN);
        if cookies == 0 && inner.half_open.len() >= settings::SYN_BACKLOG.size() {
            return;
        }
        if cookies == 2 || cookies == 1 && crowded {
            let now = self.stack.now();
            inner.cookies_until = now + COOKIE_LIFE;
            drop(inner);
            let cookie = cookie::make(&self.stack.tcp, &Key::new(local, remote), syn, now);
            let ack = syn.seq.wrapping_add(1);
            let reply = Reply { seq: cookie, ack, flags: SYN | ACK };
            return reply.send(&self.stack, local, remote, route, 65535);
        }
        drop(inner);
        let conn = Conn::accept(self, local, remote, route, syn);
        if self.stack.tcp.insert(&conn).is_err() {
            return;
        }
        let mut inner = self.inner.lock();
        if inner.closed {
            drop(inner);
            self.stack.tcp.remove(&conn);
            return;
        }
        inner.half_open.push_back(conn.clone());
        drop(inner);
        conn.push(conn.lock());
    }

    /// A segment without a connection: if it brings a cookie back, there is one now. Returns whether
    /// it did.
    pub fn cookie(
        self: &Arc<Self>,
        local: SocketAddr,
        remote: SocketAddr,
        route: Route,
        segment: &Segment<'_>,
    ) -> bool {
        let now = self.stack.now();
        let inner = self.inner.lock();
        let full = inner.accept.len() > self.backlog.load(Ordering::Relaxed);
        if inner.closed || now > inner.cookies_until || full {
            return false;
        }
        drop(inner);
        let key = Key::new(local, remote);
        let Some(mss) = cookie::check(&self.stack.tcp, &key, segment, now) else { return false };
        let conn = Conn::resume(self, local, remote, route, segment, mss);
        if self.stack.tcp.insert(&conn).is_ok() {
            conn.input(segment);
        }
        true
    }

    /// A half-open connection is complete.
    pub fn established(&self, conn: &Arc<Conn>) {
        let mut inner = self.inner.lock();
        inner.tidy();
        if inner.closed {
            drop(inner);
            conn.close(true);
            return;
        }
        inner.accept.push_back(conn.clone());
        drop(inner);
        self.queue.wake_one(Events::IN | Events::RDNORM);
    }

    /// A half-open connection has failed.
    pub fn refused(&self) {
        self.inner.lock().tidy();
    }

    /// The oldest completed connection.
    pub fn accept(&self) -> Option<Arc<Conn>> {
        self.inner.lock().accept.pop_front()
    }

    /// Whether [`accept`](Listener::accept) would find one.
    pub fn ready(&self) -> bool {
        !self.inner.lock().accept.is_empty()
    }

    /// Stops listening: completed connections nobody accepted are reset, half-open ones forgotten.
    pub fn close(self: &Arc<Self>) {
        self.stack.tcp.unlisten(self);
        let mut inner = self.inner.lock();
        inner.closed = true;
        let half_open = core::mem::take(&mut inner.half_open);
        let accept = core::mem::take(&mut inner.accept);
        drop(inner);
        for conn in half_open {
            if conn.half_open.load(Ordering::Relaxed) {
                self.stack.tcp.remove(&conn);
            }
        }
        for conn in accept {
            conn.close(true);
        }
    }
}
