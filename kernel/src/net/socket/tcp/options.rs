//! Options of TCP sockets (tcp(7)).

use super::super::inet::{IpOptions, LEVEL_IP, LEVEL_IPV6, LEVEL_TCP};
use super::super::options::{Common, MIN_RECEIVE, int};
use super::super::{Caller, Socket};
use super::{Role, TcpSocket};
use crate::bpf::Program;
use crate::errno::{Errno, Result};
use crate::net::filter;
use crate::net::tcp::{Algorithm, MAX_BUFFER, MIN_BUFFER, TcpOptions};
use alloc::vec::Vec;
use linux_raw_sys::net::*;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) common: Common,
    pub(super) ip: IpOptions,
    pub(super) tcp: TcpOptions,
    pub(super) quick_ack: bool,
    pub(super) fast_open: u32,
    pub(super) linger2: i32,
    /// `TCP_INQ`: recvmsg(2) tells how much is left.
    pub(super) tells_rest: bool,
    pub(super) fast_open_connect: bool,
    /// `SO_ATTACH_REUSEPORT_CBPF`, for when it listens.
    pub(super) selector: Option<Program>,
    /// Values of [`PLAIN`].
    pub(super) plain: [u32; 3],
}

/// Options without an effect here.
const PLAIN: [u32; 3] = [TCP_WINDOW_CLAMP, TCP_THIN_LINEAR_TIMEOUTS, TCP_NOTSENT_LOWAT];

fn plain(name: u32) -> Option<usize> {
    PLAIN.iter().position(|&other| other == name)
}

impl Settings {
    /// Those of a new socket.
    pub(super) fn new() -> Settings {
        Settings {
            common: Common { receive_buffer: 131_072, send_buffer: 87_040, ..Common::new() },
            ip: IpOptions::default(),
            tcp: TcpOptions::default(),
            quick_ack: true,
            fast_open: 0,
            linger2: 60,
            tells_rest: false,
            fast_open_connect: false,
            selector: None,
            plain: [0; 3],
        }
    }
}

impl TcpSocket {
    /// Sets an option.
    pub(super) fn set(&self, who: &Caller<'_>, level: u32, name: u32, value: &[u8]) -> Result<()> {
        let mut settings = self.settings.lock();
        match level {
            SOL_SOCKET if matches!(name, SO_ATTACH_REUSEPORT_CBPF | SO_DETACH_REUSEPORT_BPF) => {
                drop(settings);
                return self.set_selector(name, value);
            }
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
                    SO_ATTACH_FILTER | SO_DETACH_FILTER => {
                        let filter = settings.common.filter.clone();
                        drop(settings);
                        match &*self.role.lock() {
                            Role::Listening { listener, .. } => listener.filter.replace(filter),
                            Role::Connected { conn, .. } => conn.filter.replace(filter),
                            Role::Idle { .. } => {}
                        }
                        return Ok(());
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
                    settings.tcp.congestion = Algorithm::named(name).ok_or(Errno::ENOENT)?;
                    drop(settings);
                    self.apply();
                    return Ok(());
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

    /// `SO_ATTACH_REUSEPORT_CBPF` and `SO_DETACH_REUSEPORT_BPF`.
    fn set_selector(&self, name: u32, value: &[u8]) -> Result<()> {
        let role = self.role.lock().clone();
        let Role::Listening { listener, .. } = role else {
            let mut settings = self.settings.lock();
            let (shares, has) = (settings.common.reuse_port, settings.selector.is_some());
            settings.selector = filter::selector(name, value, shares, has)?;
            return Ok(());
        };
        let new = listener.sharing.change(name, value)?;
        self.stack.tcp.set_selector(&listener, new);
        Ok(())
    }

    /// The value of an option.
    pub(super) fn get(&self, level: u32, name: u32) -> Result<Vec<u8>> {
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
            (LEVEL_TCP, TCP_CONGESTION) => {
                let mut name = settings.tcp.congestion.name().as_bytes().to_vec();
                name.resize(16, 0);
                Ok(name)
            }
            (LEVEL_TCP, TCP_INFO) => Ok(self.info()),
            (LEVEL_TCP, _) => plain(name)
                .map(|at| settings.plain[at].to_ne_bytes().to_vec())
                .ok_or(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Brings the settings to the connection or the listener.
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

    /// `TCP_INFO`.
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
