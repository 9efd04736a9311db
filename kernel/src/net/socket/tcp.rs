//! Stream sockets over TCP (tcp(7)).

use super::ancillary;
use super::inet::{self, IpOptions, LEVEL_IP, LEVEL_IPV6, LEVEL_TCP};
use super::options::{Common, MIN_RECEIVE, Timestamp, int};
use super::{Caller, Control, Incoming, Outgoing, Shutdown, Socket, wait};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::put_user;
use crate::net::addr::{Address, SocketAddr};
use crate::net::ports::Bound;
use crate::net::stack::Stack;
use crate::net::tcp::{
    Conn, ConnInner, Found, Key, Listener, MAX_BUFFER, MIN_BUFFER, REUSE_AFTER, State, TcpOptions,
};
use crate::sync::{SpinGuard, SpinLock, WaitQueue};
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

#[derive(Clone)]
struct Settings {
    common: Common,
    ip: IpOptions,
    tcp: TcpOptions,
    quick_ack: bool,
    fast_open: u32,
    linger2: i32,
    /// `TCP_INQ`: recvmsg(2) tells how much is left.
    tells_rest: bool,
    fast_open_connect: bool,
    /// Values of [`PLAIN`].
    plain: [u32; 3],
}

/// sendto(2) with a connection on the way.
const MSG_FASTOPEN: u32 = 0x2000_0000;

/// Options without an effect here.
const PLAIN: [u32; 3] = [TCP_WINDOW_CLAMP, TCP_THIN_LINEAR_TIMEOUTS, TCP_NOTSENT_LOWAT];

fn plain(name: u32) -> Option<usize> {
    PLAIN.iter().position(|&other| other == name)
}

impl TcpSocket {
    /// A new socket.
    pub fn new(stack: &Arc<Stack>, v6: bool) -> Arc<TcpSocket> {
        let settings = Settings {
            common: Common { receive_buffer: 131_072, send_buffer: 87_040, ..Common::new() },
            ip: IpOptions::default(),
            tcp: TcpOptions::default(),
            quick_ack: true,
            fast_open: 0,
            linger2: 60,
            tells_rest: false,
            fast_open_connect: false,
            plain: [0; 3],
        };
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
        Arc::new(TcpSocket { stack: stack.clone(), v6, queue, role, settings })
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
                let mut common = settings.common;
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

    fn apply(&self) {
        let settings = self.settings.lock().clone();
        let mut tcp = settings.tcp;
        tcp.keep_alive = settings.common.keep_alive;
        (tcp.ttl, tcp.tos) = (settings.ip.ttl, settings.ip.tos);
        match &*self.role.lock() {
            Role::Listening { listener, .. } => *listener.options.lock() = tcp,
            Role::Connected { conn, .. } => {
                let conn = conn.clone();
                let now = self.stack.now();
                let mut inner = conn.lock();
                inner.set_options(tcp, now);
                conn.push(inner);
            }
            Role::Idle { .. } => {}
        }
        self.settings.lock().tcp = tcp;
    }

    fn info(&self) -> Vec<u8> {
        let mut info = alloc::vec![0u8; 248];
        let mut put =
            |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        let role = self.role.lock().clone();
        let state = match role {
            Role::Idle { .. } => 7,
            Role::Listening { listener, .. } => {
                let (waiting, backlog) = listener.lengths();
                // tcpi_unacked and tcpi_sacked stand for the accept queue and its limit.
                put(24, waiting as u32);
                put(28, backlog as u32);
                10
            }
            Role::Connected { conn, .. } => return conn.lock().info(self.stack.now()),
        };
        info[0] = state;
        info
    }
}

impl Socket for TcpSocket {
    fn family(&self) -> u32 {
        if self.v6 { AF_INET6 } else { AF_INET }
    }
    fn kind(&self) -> u32 {
        SOCK_STREAM
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
        let listener = Listener::new(&self.stack, addr, dual, backlog, queue, options);
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
        let nonblock = message.nonblock || message.flags & MSG_DONTWAIT != 0;
        if message.flags & MSG_FASTOPEN != 0
            && let Some(to) = &message.to
        {
            // Without a cookie it is connect(2) first, and data after the handshake.
            self.connect(who, to, nonblock)?;
        }
        let conn = match &*self.role.lock() {
            Role::Connected { conn, .. } => conn.clone(),
            _ => return Err(Errno::EPIPE),
        };
        let mut done = 0;
        let (timeout, corked) = {
            let settings = self.settings.lock();
            (settings.common.send_timeout, settings.tcp.cork)
        };
        let more = message.flags & MSG_MORE != 0;
        loop {
            let now = self.stack.now();
            let mut inner = conn.lock();
            if let Some(error) = inner.error() {
                if done > 0 {
                    return Ok(done);
                }
                inner.take_error();
                return Err(error);
            }
            let mut fault = false;
            if inner.may_send() {
                // Each partial segment may be held back for so long.
                if !corked || inner.unsent() == 0 {
                    inner.set_cork(more || corked, now);
                }
                let moved;
                (moved, fault) = inner.write(message.src);
                done += moved;
                if moved > 0 && message.flags & MSG_OOB != 0 && message.src.remaining() == 0 {
                    inner.mark_urgent();
                }
                if message.src.remaining() > 0 && !fault {
                    inner.no_space = true;
                }
                if moved > 0 || !more {
                    conn.push(inner);
                } else {
                    drop(inner);
                }
            } else if !inner.connecting() {
                return if done > 0 { Ok(done) } else { Err(Errno::EPIPE) };
            } else {
                drop(inner);
            }
            if message.src.remaining() == 0 {
                return Ok(done);
            }
            if fault {
                match message.src.fault_in() {
                    Ok(()) => continue,
                    Err(_) if done > 0 => return Ok(done),
                    Err(error) => return Err(error),
                }
            }
            if nonblock {
                return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) };
            }
            let room = || {
                let mut inner = conn.lock();
                let free = inner.spacious();
                let go =
                    inner.error().is_some() || !inner.connecting() && (!inner.may_send() || free);
                inner.no_space |= !go;
                go.then_some(())
            };
            match wait(&self.queue, false, timeout, room) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
    }

    fn receive(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        let conn = self.conn()?;
        let (inline, timeout, tells_rest, stamps) = {
            let settings = self.settings.lock();
            let common = &settings.common;
            (common.oob_inline, common.receive_timeout, settings.tells_rest, common.timestamp)
        };
        let discard = message.flags & MSG_TRUNC != 0;
        if message.flags & MSG_OOB != 0 {
            return Self::receive_urgent(&conn, message, inline);
        }
        if message.flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        let mut total = 0;
        loop {
            let mut inner = conn.lock();
            let peek = message.flags & MSG_PEEK != 0;
            if total == 0 && !peek {
                inner.pass_mark(inline);
            }
            let skip = if peek { total } else { 0 };
            let (moved, fault) = inner.peek(skip, message.dst, inline, discard);
            total += moved;
            let want_all = message.flags & MSG_WAITALL != 0;
            // A read ends before the urgent byte.
            let marked = inner.at_mark() || skip + moved < inner.readable();
            let enough = total > 0 && !(want_all && message.dst.remaining() > 0 && !marked);
            // An absent page is no reason to return less than there is: programs that wait for edges
            // take a short count to mean that nothing is left.
            let end = if fault {
                None
            } else if enough || message.dst.remaining() == 0 && inner.readable() > 0 {
                Some(Ok(total))
            } else {
                self.end_of_data(&mut inner, total)
            };
            if moved > 0 && !peek {
                conn.after_read(inner, moved, inline);
            } else {
                conn.after_nothing(inner);
            }
            if let Some(end) = end {
                if stamps != Timestamp::Off && total > 0 {
                    let at = ancillary::wall_time(conn.lock().counters.data_at);
                    message.control.extend(ancillary::stamp(stamps, at));
                }
                if tells_rest && end.is_ok() {
                    let inner = conn.lock();
                    // The end of the stream counts as something left to read.
                    let rest = inner.readable().max(usize::from(inner.peer_done())) as u32;
                    let data = rest.to_ne_bytes().to_vec();
                    message.control.push(Control::Raw(LEVEL_TCP, TCP_INQ, data));
                }
                return end;
            }
            if fault {
                match message.dst.fault_in() {
                    Ok(()) => continue,
                    Err(_) if total > 0 => return Ok(total),
                    Err(error) => return Err(error),
                }
            }
            if message.nonblock {
                return if total > 0 { Ok(total) } else { Err(Errno::EAGAIN) };
            }
            let held = total;
            let ready = || {
                let inner = conn.lock();
                let over = inner.error().is_some() || inner.read_shut || inner.peer_done();
                let more = inner.readable() > if peek { held } else { 0 };
                (more || over).then_some(())
            };
            match wait(&self.queue, false, timeout, ready) {
                Ok(()) => {}
                Err(_) if total > 0 => return Ok(total),
                Err(error) => return Err(error),
            }
        }
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
        let mut settings = self.settings.lock();
        match level {
            SOL_SOCKET => {
                if !settings.common.set(who, name, value)? {
                    return Err(Errno::ENOPROTOOPT);
                }
                let buffer = |shown: u32| (shown as usize / 2).clamp(MIN_BUFFER, MAX_BUFFER);
                match name {
                    SO_RCVBUF | SO_RCVBUFFORCE => {
                        settings.tcp.receive_buffer = buffer(settings.common.receive_buffer);
                    }
                    SO_SNDBUF | SO_SNDBUFFORCE => {
                        settings.tcp.send_buffer = buffer(settings.common.send_buffer);
                    }
                    SO_KEEPALIVE => {}
                    _ => return Ok(()),
                }
            }
            // As in Linux, MCAST_JOIN_GROUP alone is for streams, too.
            LEVEL_IP if matches!(name, IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP) => {
                return Err(Errno::EPROTO);
            }
            LEVEL_IPV6 if matches!(name, IPV6_ADD_MEMBERSHIP | IPV6_DROP_MEMBERSHIP) => {
                return Err(Errno::EPROTO);
            }
            LEVEL_IP | LEVEL_IPV6 => {
                if name == IPV6_V6ONLY && level == LEVEL_IPV6 {
                    drop(settings);
                    if !matches!(&*self.role.lock(), Role::Idle { bound: None, .. }) {
                        return Err(Errno::EINVAL);
                    }
                    settings = self.settings.lock();
                }
                settings.ip.set(&self.stack, self.v6, level, name, value)?;
                // The other bits are the protocol's own (RFC 3168).
                settings.ip.tos &= 0xfc;
            }
            LEVEL_TCP => {
                if name == TCP_CONGESTION {
                    let name = value.split(|&byte| byte == 0).next().unwrap_or_default();
                    return if name == b"cubic" { Ok(()) } else { Err(Errno::ENOENT) };
                }
                let value = int(value)?;
                let on = value != 0;
                let positive = |max: i32| match value {
                    1.. if value <= max => Ok(value as u32),
                    _ => Err(Errno::EINVAL),
                };
                match name {
                    TCP_NODELAY => settings.tcp.no_delay = on,
                    TCP_CORK => settings.tcp.cork = on,
                    TCP_KEEPIDLE => settings.tcp.keep_idle = positive(32767)?,
                    TCP_KEEPINTVL => settings.tcp.keep_interval = positive(32767)?,
                    TCP_KEEPCNT => settings.tcp.keep_count = positive(127)?,
                    TCP_USER_TIMEOUT if value < 0 => return Err(Errno::EINVAL),
                    TCP_USER_TIMEOUT => settings.tcp.user_timeout = value as u32,
                    TCP_DEFER_ACCEPT => settings.tcp.defer_accept = value.max(0) as u32,
                    TCP_MAXSEG => {
                        if value != 0 && !(88..=32767).contains(&value) {
                            return Err(Errno::EINVAL);
                        }
                        settings.tcp.max_segment = value as u32;
                    }
                    TCP_QUICKACK => {
                        settings.quick_ack = on;
                        drop(settings);
                        if let Ok(conn) = self.conn() {
                            let mut inner = conn.lock();
                            inner.set_quick(on);
                            conn.push(inner);
                        }
                        return Ok(());
                    }
                    TCP_SYNCNT => settings.tcp.syn_count = positive(127)?,
                    TCP_LINGER2 => settings.linger2 = value,
                    TCP_FASTOPEN => settings.fast_open = value.max(0) as u32,
                    TCP_INQ | TCP_FASTOPEN_CONNECT if !(0..=1).contains(&value) => {
                        return Err(Errno::EINVAL);
                    }
                    TCP_INQ => settings.tells_rest = on,
                    // Without a cookie, and there is never one, Linux connects as ever, too.
                    TCP_FASTOPEN_CONNECT => settings.fast_open_connect = on,
                    TCP_WINDOW_CLAMP if value != 0 => {
                        settings.plain[0] = (value as u32).max(MIN_RECEIVE / 2);
                    }
                    name => match plain(name) {
                        Some(at) => settings.plain[at] = value as u32,
                        None => return Err(Errno::ENOPROTOOPT),
                    },
                }
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        drop(settings);
        self.apply();
        Ok(())
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        let settings = self.settings.lock().clone();
        let number = |value: u32| Ok(value.to_ne_bytes().to_vec());
        match (level, name) {
            (SOL_SOCKET, SO_TYPE) => number(SOCK_STREAM),
            (SOL_SOCKET, SO_DOMAIN) => number(self.family()),
            (SOL_SOCKET, SO_PROTOCOL) => number(LEVEL_TCP),
            (SOL_SOCKET, SO_ACCEPTCONN) => {
                number(u32::from(matches!(&*self.role.lock(), Role::Listening { .. })))
            }
            (SOL_SOCKET, SO_ERROR) => {
                let error = match &mut *self.role.lock() {
                    Role::Connected { conn, .. } => conn.lock().take_error(),
                    Role::Idle { error, .. } => error.take(),
                    Role::Listening { .. } => None,
                };
                number(u32::from(error.map_or(0, |error| error.0)))
            }
            (SOL_SOCKET, _) => settings.common.get(name).ok_or(Errno::ENOPROTOOPT),
            (LEVEL_IP | LEVEL_IPV6, _) => settings.ip.get(&self.stack, level, name),
            (LEVEL_TCP, TCP_NODELAY) => number(u32::from(settings.tcp.no_delay)),
            (LEVEL_TCP, TCP_CORK) => number(u32::from(settings.tcp.cork)),
            (LEVEL_TCP, TCP_KEEPIDLE) => number(settings.tcp.keep_idle),
            (LEVEL_TCP, TCP_KEEPINTVL) => number(settings.tcp.keep_interval),
            (LEVEL_TCP, TCP_KEEPCNT) => number(settings.tcp.keep_count),
            (LEVEL_TCP, TCP_USER_TIMEOUT) => number(settings.tcp.user_timeout),
            (LEVEL_TCP, TCP_DEFER_ACCEPT) => number(settings.tcp.defer_accept),
            (LEVEL_TCP, TCP_QUICKACK) => number(u32::from(settings.quick_ack)),
            (LEVEL_TCP, TCP_SYNCNT) => number(settings.tcp.syn_count),
            (LEVEL_TCP, TCP_LINGER2) => number(settings.linger2 as u32),
            (LEVEL_TCP, TCP_FASTOPEN) => number(settings.fast_open),
            (LEVEL_TCP, TCP_FASTOPEN_CONNECT) => number(settings.fast_open_connect.into()),
            (LEVEL_TCP, TCP_INQ) => number(settings.tells_rest.into()),
            (LEVEL_TCP, TCP_MAXSEG) => match self.conn() {
                Ok(conn) => number(conn.lock().mss() as u32),
                Err(_) if settings.tcp.max_segment > 0 => number(settings.tcp.max_segment),
                Err(_) => number(536),
            },
            (LEVEL_TCP, TCP_CONGESTION) => Ok(b"cubic\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
            (LEVEL_TCP, TCP_INFO) => Ok(self.info()),
            (LEVEL_TCP, _) => plain(name)
                .map(|at| settings.plain[at].to_ne_bytes().to_vec())
                .ok_or(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
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

impl TcpSocket {
    /// `recv(MSG_OOB)`: the one byte that the peer called urgent last.
    fn receive_urgent(
        conn: &Arc<Conn>,
        message: &mut Incoming<'_, '_>,
        inline: bool,
    ) -> Result<usize> {
        let mut inner = conn.lock();
        let over = inner.peer_done();
        let Some(urgent) = inner.urgent.as_mut().filter(|urgent| !inline && !urgent.taken) else {
            return Err(Errno::EINVAL);
        };
        let Some(byte) = urgent.byte else {
            return if over { Ok(0) } else { Err(Errno::EAGAIN) };
        };
        urgent.taken |= message.flags & MSG_PEEK == 0;
        drop(inner);
        message.out_flags |= MSG_OOB;
        if message.dst.remaining() == 0 {
            message.out_flags |= MSG_TRUNC;
            return Ok(0);
        }
        message.dst.write(&[byte])
    }

    /// What recv(2) says when there is no data to move: `None` to wait.
    fn end_of_data(
        &self,
        inner: &mut SpinGuard<'_, ConnInner>,
        total: usize,
    ) -> Option<Result<usize>> {
        if total > 0 && (inner.error().is_some() || inner.read_shut || inner.peer_done()) {
            return Some(Ok(total));
        }
        if let Some(error) = inner.take_error() {
            return Some(Err(error));
        }
        if inner.read_shut || inner.peer_done() {
            return Some(Ok(0));
        }
        None
    }
}
