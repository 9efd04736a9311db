//! Stream sockets over TCP (tcp(7)).

mod options;
mod transfer;

use self::options::Settings;
use super::inet;
use super::{Caller, Incoming, Outgoing, Shutdown, Socket, wait};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::put_user;
use crate::net::addr::{Address, SocketAddr};
use crate::net::filter::Sharing;
use crate::net::owner::Owner;
use crate::net::ports::Bound;
use crate::net::stack::Stack;
use crate::net::tcp::{Conn, Found, Key, Listener, REUSE_AFTER, State};
use crate::sync::{SpinLock, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::ioctl::{FIONREAD, SIOCATMARK, TIOCOUTQ};
use linux_raw_sys::net::*;

/// `SIOCOUTQNSD`: bytes that were not sent yet.
const SIOCOUTQNSD: u32 = 0x894b;

/// A TCP socket.
pub struct TcpSocket {
    stack: Arc<Stack>,
    v6: bool,
    queue: Arc<WaitQueue>,
    role: SpinLock<Role>,
    settings: SpinLock<Settings>,
    owner: Owner,
}

#[derive(Clone)]
enum Role {
    /// Neither listening nor connected; may be bound.
    Idle {
        bound: Option<(Bound, SocketAddr)>,
        error: Option<Errno>,
    },
    Listening {
        listener: Arc<Listener>,
        bound: Bound,
    },
    /// `told`: connect(2) has reported success.
    Connected {
        conn: Arc<Conn>,
        bound: Option<Bound>,
        told: bool,
    },
}

impl TcpSocket {
    /// A new socket.
    pub fn new(stack: &Arc<Stack>, v6: bool) -> Arc<TcpSocket> {
        let settings = Settings::new();
        Self::with(
            stack,
            v6,
            Arc::new(WaitQueue::new()),
            settings,
            Role::Idle { bound: None, error: None },
        )
    }

    fn with(
        stack: &Arc<Stack>,
        v6: bool,
        queue: Arc<WaitQueue>,
        settings: Settings,
        role: Role,
    ) -> Arc<TcpSocket> {
        let (role, settings) = (SpinLock::new(role), SpinLock::new(settings));
        let owner = Owner::default();
        Arc::new(TcpSocket { stack: stack.clone(), v6, queue, role, settings, owner })
    }

    /// The connection. ENOTCONN without one.
    fn conn(&self) -> Result<Arc<Conn>> {
        match &*self.role.lock() {
            Role::Connected { conn, .. } => Ok(conn.clone()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Binds to an ephemeral port if the socket isn't bound yet.
    fn bound(&self, who: &Caller<'_>) -> Result<(Bound, SocketAddr)> {
        if let Role::Idle { bound: Some(bound), .. } = &*self.role.lock() {
            return Ok(*bound);
        }
        self.bind_to(who, inet::unspecified(self.v6))
    }

    fn bind_to(&self, who: &Caller<'_>, addr: SocketAddr) -> Result<(Bound, SocketAddr)> {
        let settings = self.settings.lock().clone();
        let dual = self.v6 && !settings.ip.v6_only && addr.ip().is_unspecified();
        let request = inet::request(&settings.common, addr.ip(), dual, who.cred.uid, true);
        let ports = &self.stack.tcp_ports;
        let bound = match addr.port() {
            0 => ports.bind_any(self.stack.random(), request, |_| true)?,
            port => ports.bind(port, request)?,
        };
        let addr = SocketAddr::new(addr.ip(), bound.port);
        match &mut *self.role.lock() {
            Role::Idle { bound: slot @ None, .. } => *slot = Some((bound, addr)),
            _ => {
                ports.release(&bound);
                return Err(Errno::EINVAL);
            }
        }
        Ok((bound, addr))
    }

    /// Starts the handshake.
    fn start(&self, who: &Caller<'_>, to: SocketAddr) -> Result<()> {
        let to = match to.ip() {
            // "This host".
            ip if ip.is_unspecified() => {
                let local = self.stack.source(&ip).ok_or(Errno::ENETUNREACH)?;
                SocketAddr::new(local, to.port())
            }
            ip if ip.is_multicast() => return Err(Errno::ENETUNREACH),
            _ => to,
        };
        if to.port() == 0 {
            return Err(Errno::ECONNREFUSED);
        }
        let route = self.stack.route(&to.ip()).ok_or(Errno::ENETUNREACH)?;
        let mut settings = self.settings.lock().clone();
        (settings.tcp.ttl, settings.tcp.tos) = (settings.ip.ttl, settings.ip.tos);
        let old = match &*self.role.lock() {
            Role::Idle { bound, .. } => *bound,
            _ => return Err(Errno::EISCONN),
        };
        let source = match old {
            Some((_, addr)) if !addr.ip().is_unspecified() => addr.ip(),
            _ => self.stack.source(&to.ip()).ok_or(Errno::EADDRNOTAVAIL)?,
        };
        if source.is_ipv4() != to.ip().is_ipv4() {
            return Err(Errno::ENETUNREACH);
        }
        let now = self.stack.now();
        let free = |port: u16| {
            let key = Key::new(SocketAddr::new(source, port), to);
            match self.stack.tcp.find(&key) {
                Found::Nothing => true,
                Found::TimeWait(tomb) => route.loopback || now > tomb.since + REUSE_AFTER,
                Found::Conn(_) => false,
            }
        };
        let (bound, fresh) = match old {
            Some((bound, _)) if free(bound.port) => (bound, false),
            Some(_) => return Err(Errno::EADDRNOTAVAIL),
            None => {
                // Connections may share a local port as long as their peers differ.
                let mut common = settings.common.clone();
                common.reuse_addr = true;
                let request = inet::request(&common, source, false, who.cred.uid, true);
                let ports = &self.stack.tcp_ports;
                let bound = ports.bind_any(self.stack.random(), request, free);
                (bound.map_err(|_| Errno::EADDRNOTAVAIL)?, true)
            }
        };
        let local = SocketAddr::new(source, bound.port);
        let undo = |error: Errno| {
            if fresh {
                self.stack.tcp_ports.release(&bound);
            }
            error
        };
        let queue = self.queue.clone();
        let conn = Conn::connect(&self.stack, local, to, route, queue, settings.tcp);
        conn.filter.replace(settings.common.filter);
        conn.owner.copy(&self.owner);
        self.stack.tcp.insert(&conn).map_err(|_| undo(Errno::EADDRNOTAVAIL))?;
        let mut role = self.role.lock();
        if !matches!(*role, Role::Idle { .. }) {
            drop(role);
            self.stack.tcp.remove(&conn);
            return Err(undo(Errno::EALREADY));
        }
        *role = Role::Connected { conn: conn.clone(), bound: Some(bound), told: false };
        drop(role);
        conn.push(conn.lock());
        Ok(())
    }

    /// How the handshake stands: `None` while it goes on.
    fn outcome(&self) -> Option<Result<()>> {
        let conn = match self.conn() {
            Ok(conn) => conn,
            Err(error) => return Some(Err(error)),
        };
        let mut inner = conn.lock();
        if inner.connecting() {
            return None;
        }
        let error = match inner.take_error() {
            Some(error) => error,
            None if inner.state() == State::Closed => Errno::ECONNABORTED,
            None => {
                drop(inner);
                if let Role::Connected { told, .. } = &mut *self.role.lock() {
                    *told = true;
                }
                return Some(Ok(()));
            }
        };
        drop(inner);
        // The socket may try again.
        self.disconnect(&conn, None);
        Some(Err(error))
    }

    /// Resets the connection; the socket is as new, but for an error to be told.
    fn disconnect(&self, conn: &Arc<Conn>, error: Option<Errno>) {
        conn.close(true);
        let mut role = self.role.lock();
        if let Role::Connected { bound: Some(bound), .. } = &*role {
            self.stack.tcp_ports.release(bound);
        }
        *role = Role::Idle { bound: None, error };
    }
}

impl Socket for TcpSocket {
    fn family(&self) -> u32 {
        if self.v6 { AF_INET6 } else { AF_INET }
    }
    fn kind(&self) -> u32 {
        SOCK_STREAM
    }

    fn owned(&self, ino: u64, uid: u32) {
        self.owner.set(ino, uid);
        if let Role::Connected { conn, .. } = &*self.role.lock() {
            conn.owner.set(ino, uid);
        }
    }

    fn bind(&self, who: &Caller<'_>, addr: &Address) -> Result<()> {
        let addr = inet::plain(self.v6, addr)?;
        if !matches!(&*self.role.lock(), Role::Idle { bound: None, .. }) {
            return Err(Errno::EINVAL);
        }
        let free = self.settings.lock().ip.free_bind;
        inet::check_bind(&self.stack, who, addr, free)?;
        self.bind_to(who, addr).map(drop)
    }

    fn listen(&self, who: &Caller<'_>, backlog: usize) -> Result<()> {
        match &*self.role.lock() {
            Role::Listening { listener, .. } => {
                listener.set_backlog(backlog);
                return Ok(());
            }
            Role::Connected { .. } => return Err(Errno::EINVAL),
            Role::Idle { .. } => {}
        }
        let (bound, addr) = self.bound(who)?;
        self.stack.tcp_ports.listen(&bound)?;
        let settings = self.settings.lock().clone();
        let dual = self.v6 && !settings.ip.v6_only;
        let mut options = settings.tcp;
        options.keep_alive = settings.common.keep_alive;
        (options.ttl, options.tos) = (settings.ip.ttl, settings.ip.tos);
        let queue = self.queue.clone();
        let owner = settings.common.reuse_port.then_some(who.cred.uid);
        let sharing = Sharing::new(owner, settings.selector);
        let listener = Listener::new(&self.stack, addr, dual, backlog, queue, options, sharing);
        listener.filter.replace(settings.common.filter);
        listener.owner.copy(&self.owner);
        let mut role = self.role.lock();
        if !matches!(*role, Role::Idle { .. }) {
            return Err(Errno::EINVAL);
        }
        *role = Role::Listening { listener: listener.clone(), bound };
        drop(role);
        self.stack.tcp.listen(listener);
        crate::witness::listens(addr);
        self.queue.wake_all(Events::empty());
        Ok(())
    }

    fn accept(&self, nonblock: bool) -> Result<(Arc<dyn Socket>, Address)> {
        let listener = match &*self.role.lock() {
            Role::Listening { listener, .. } => listener.clone(),
            _ => return Err(Errno::EINVAL),
        };
        let conn = match listener.accept() {
            Some(conn) => conn,
            None if nonblock => return Err(Errno::EAGAIN),
            None => {
                let timeout = self.settings.lock().common.receive_timeout;
                wait(&self.queue, true, timeout, || listener.accept())?
            }
        };
        let mut settings = self.settings.lock().clone();
        // Memberships stay with the socket that has joined.
        settings.ip.groups.clear();
        let peer = inet::shown(self.v6, conn.remote);
        let queue = conn.queue.clone();
        let role = Role::Connected { conn, bound: None, told: true };
        Ok((TcpSocket::with(&self.stack, self.v6, queue, settings, role), peer))
    }

    fn connect(&self, who: &Caller<'_>, addr: &Address, nonblock: bool) -> Result<()> {
        if *addr == Address::Unspecified {
            if let Ok(conn) = self.conn() {
                self.disconnect(&conn, None);
            }
            return Ok(());
        }
        let role = self.role.lock().clone();
        match role {
            Role::Listening { .. } => return Err(Errno::EISCONN),
            Role::Connected { told: true, .. } => return Err(Errno::EISCONN),
            Role::Connected { .. } => match self.outcome() {
                Some(outcome) => return outcome,
                None if nonblock => return Err(Errno::EALREADY),
                None => {}
            },
            Role::Idle { .. } => {
                let to = inet::plain(self.v6, addr)?;
                if self.v6 && to.is_ipv4() && self.settings.lock().ip.v6_only {
                    return Err(Errno::ENETUNREACH);
                }
                self.start(who, to)?;
                if nonblock {
                    // However it stands by now, as Linux has it: who asks first expects that.
                    return Err(Errno::EINPROGRESS);
                }
            }
        }
        let timeout = self.settings.lock().common.send_timeout;
        match wait(&self.queue, false, timeout, || self.outcome()) {
            Ok(outcome) => outcome,
            Err(Errno::EAGAIN) => Err(Errno::EINPROGRESS),
            Err(error) => Err(error),
        }
    }

    fn send(&self, who: &Caller<'_>, message: &mut Outgoing<'_, '_>) -> Result<usize> {
        self.put(who, message)
    }

    fn receive(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        self.take(message)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let role = self.role.lock().clone();
        match role {
            Role::Idle { .. } => Err(Errno::ENOTCONN),
            Role::Listening { listener, bound } => {
                // shutdown(SHUT_RD) stops a listener: accept(2) then fails with EINVAL.
                if how.read {
                    listener.close();
                    let bound = Some((bound, listener.local));
                    *self.role.lock() = Role::Idle { bound, error: None };
                    self.queue.wake_all(Events::IN | Events::HUP | Events::RDHUP);
                }
                Ok(())
            }
            Role::Connected { conn, .. } => {
                let mut inner = conn.lock();
                if inner.connecting() {
                    drop(inner);
                    self.disconnect(&conn, Some(Errno::ECONNRESET));
                    self.queue.wake_all(Events::ALL);
                    return Ok(());
                }
                if inner.is_over() {
                    return Err(Errno::ENOTCONN);
                }
                let mut events = Events::empty();
                if how.read {
                    inner.read_shut = true;
                    events |= Events::IN | Events::RDNORM | Events::RDHUP;
                }
                if how.write {
                    inner.set_cork(false, 0);
                    inner.close();
                    events |= Events::OUT | Events::WRNORM;
                }
                if how.read && how.write {
                    events |= Events::HUP;
                }
                conn.push(inner);
                self.queue.wake_all(events);
                Ok(())
            }
        }
    }

    fn local(&self) -> Address {
        let addr = match &*self.role.lock() {
            Role::Idle { bound: Some((_, addr)), .. } => *addr,
            Role::Idle { .. } => inet::unspecified(self.v6),
            Role::Listening { listener, .. } => listener.local,
            Role::Connected { conn, .. } => conn.local,
        };
        // A wildcard of an IPv6 socket isn't a mapped address.
        inet::shown(self.v6, addr)
    }

    fn peer(&self) -> Result<Address> {
        let conn = self.conn()?;
        let inner = conn.lock();
        if inner.connecting() || inner.is_over() {
            return Err(Errno::ENOTCONN);
        }
        drop(inner);
        Ok(inet::shown(self.v6, conn.remote))
    }

    fn set_option(&self, who: &Caller<'_>, level: u32, name: u32, value: &[u8]) -> Result<()> {
        self.set(who, level, name, value)
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        self.get(level, name)
    }

    fn poll(&self, table: &mut PollTable<'_>) -> Events {
        table.register(&self.queue);
        let role = self.role.lock();
        match &*role {
            Role::Idle { error, .. } => {
                let fresh = Events::OUT | Events::WRNORM | Events::HUP;
                if error.is_some() { fresh | Events::ERR } else { fresh }
            }
            Role::Listening { listener, .. } => {
                if listener.ready() {
                    Events::IN | Events::RDNORM
                } else {
                    Events::empty()
                }
            }
            Role::Connected { conn, .. } => {
                let conn = conn.clone();
                drop(role);
                let mut inner = conn.lock();
                let events = inner.events();
                if !events.contains(Events::IN) {
                    conn.after_nothing(inner);
                }
                events
            }
        }
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        let count = match request {
            FIONREAD => match &*self.role.lock() {
                Role::Listening { .. } => return Err(Errno::EINVAL),
                Role::Idle { .. } => 0,
                Role::Connected { conn, .. } => conn.lock().readable(),
            },
            TIOCOUTQ => match self.conn() {
                Ok(conn) => conn.lock().queued(),
                Err(_) => 0,
            },
            SIOCOUTQNSD => match self.conn() {
                Ok(conn) => conn.lock().unsent(),
                Err(_) => 0,
            },
            SIOCATMARK => usize::from(self.conn().is_ok_and(|conn| conn.lock().at_mark())),
            _ => return Err(Errno::ENOTTY),
        };
        put_user(arg, &(count as i32))?;
        Ok(0)
    }

    fn close(&self, nonblock: bool) {
        let role = self.role.lock().clone();
        match role {
            Role::Idle { bound, .. } => {
                if let Some((bound, _)) = bound {
                    self.stack.tcp_ports.release(&bound);
                }
            }
            Role::Listening { listener, bound } => {
                listener.close();
                self.stack.tcp_ports.release(&bound);
            }
            Role::Connected { conn, bound, .. } => {
                let linger = self.settings.lock().common.linger;
                conn.close(linger == Some(0));
                if let (Some(seconds @ 1..), false) = (linger, nonblock) {
                    let sent = || {
                        let inner = conn.lock();
                        let over = matches!(
                            inner.state(),
                            State::Closed | State::FinWait2 | State::TimeWait
                        );
                        over.then_some(())
                    };
                    let timeout = u64::from(seconds) * 1_000_000_000;
                    // Whatever ends the wait, the descriptor is closed.
                    let _ = wait(&self.queue, false, timeout, sent);
                }
                if let Some(bound) = bound {
                    self.stack.tcp_ports.release(&bound);
                }
            }
        }
    }
}
