//! Options that a listener hands on to the connections it accepts.

use super::congestion::Algorithm;
use crate::net::settings;

/// Smallest and largest buffers that `SO_RCVBUF` and `SO_SNDBUF` can ask for.
pub const MIN_BUFFER: usize = 4 * 1024;
/// As [`MIN_BUFFER`].
pub const MAX_BUFFER: usize = 4 << 20;

/// `SO_*` and `TCP_*` values of one socket that the connection acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Bytes of receive buffer; 0: as many as the path needs.
    pub receive_buffer: usize,
    /// Bytes of send buffer, likewise.
    pub send_buffer: usize,
    /// `TCP_NODELAY`.
    pub no_delay: bool,
    /// `TCP_CORK`.
    pub cork: bool,
    /// `SO_KEEPALIVE`.
    pub keep_alive: bool,
    /// `TCP_KEEPIDLE` in seconds.
    pub keep_idle: u32,
    /// `TCP_KEEPINTVL` in seconds.
    pub keep_interval: u32,
    /// `TCP_KEEPCNT`.
    pub keep_count: u32,
    /// `TCP_USER_TIMEOUT` in milliseconds; 0: the default.
    pub user_timeout: u32,
    /// `TCP_DEFER_ACCEPT` in seconds; 0: off.
    pub defer_accept: u32,
    /// `TCP_MAXSEG`; 0: what the path takes.
    pub max_segment: u32,
    /// `TCP_SYNCNT`.
    pub syn_count: u32,
    /// `TCP_CONGESTION`.
    pub congestion: Algorithm,
    /// `IP_TTL`.
    pub ttl: u8,
    /// `IP_TOS`.
    pub tos: u8,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions {
            receive_buffer: 0,
            send_buffer: 0,
            no_delay: false,
            cork: false,
            keep_alive: false,
            keep_idle: settings::KEEP_ALIVE[0].get() as u32,
            keep_interval: settings::KEEP_ALIVE[1].get() as u32,
            keep_count: settings::KEEP_ALIVE[2].get() as u32,
            user_timeout: 0,
            defer_accept: 0,
            max_segment: 0,
            syn_count: settings::SYN_RETRIES.get() as u32,
            congestion: settings::congestion(),
            ttl: 64,
            tos: 0,
        }
    }
}
