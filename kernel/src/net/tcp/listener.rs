//! Listening sockets: half-open connections and the accept queue.

use super::conn::Conn;
use super::options::TcpOptions;
use crate::event::Events;
use crate::net::addr::SocketAddr;
use crate::net::stack::{Route, Stack};
use crate::sync::{SpinLock, WaitQueue};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Half-open connections that any backlog allows for, at least: SYN floods cost no more than this
/// and don't shut out honest clients quickly.
const MIN_HALF_OPEN: usize = 64;
/// Largest backlog (net.core.somaxconn).
pub const MAX_BACKLOG: usize = 4096;

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
}

#[derive(Default)]
struct Inner {
    half_open: VecDeque<Arc<Conn>>,
    accept: VecDeque<Arc<Conn>>,
    closed: bool,
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
    ) -> Arc<Listener> {
        Arc::new(Listener {
            local,
            dual,
            queue,
            stack: stack.clone(),
            backlog: AtomicUsize::new(backlog.min(MAX_BACKLOG)),
            inner: SpinLock::new(Inner::default()),
            options: SpinLock::new(options),
        })
    }

    /// A second listen(2) changes the backlog.
    pub fn set_backlog(&self, backlog: usize) {
        self.backlog.store(backlog.min(MAX_BACKLOG), Ordering::Relaxed);
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

    /// A SYN for us. `packet` is the whole IP packet.
    pub fn syn(
        self: &Arc<Self>,
        local: SocketAddr,
        remote: SocketAddr,
        route: Route,
        packet: &[u8],
    ) {
        let mut inner = self.inner.lock();
        let backlog = self.backlog.load(Ordering::Relaxed);
        // As Linux: the queue holds one more than the backlog says; a SYN that finds it full is
        // dropped, and the client tries again.
        if inner.closed || inner.accept.len() > backlog {
            return;
        }
        let evicted = if inner.half_open.len() >= backlog.max(MIN_HALF_OPEN) {
            inner.half_open.pop_front()
        } else {
            None
        };
        drop(inner);
        if let Some(conn) = evicted {
            self.stack.tcp.remove(&conn);
        }
        let options = *self.options.lock();
        let queue = Arc::new(WaitQueue::new());
        // Out of memory or addresses: as if the SYN were lost.
        let Ok(conn) = Conn::new(&self.stack, local, remote, route, queue, options, Some(self))
        else {
            return;
        };
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
        conn.input(packet);
    }

    /// A half-open connection is complete.
    pub fn established(&self, conn: &Arc<Conn>) {
        let mut inner = self.inner.lock();
        inner.half_open.retain(|other| !Arc::ptr_eq(other, conn));
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
    pub fn refused(&self, conn: &Arc<Conn>) {
        self.inner.lock().half_open.retain(|other| !Arc::ptr_eq(other, conn));
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
            self.stack.tcp.remove(&conn);
        }
        for conn in accept {
            conn.close(true);
        }
    }
}
