//! What /proc/sys/net sets (socket(7), tcp(7), ip(7), unix(7)).

use super::tcp::Algorithm;
use crate::errno::{Errno, Result};
use crate::setting::Setting;
use crate::sync::SpinLock;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

const INT: i64 = i32::MAX as i64;

/// Bytes that options of a socket may take (`net.core.optmem_max`).
pub static OPTIONS: Setting = Setting::new(20480, 0, INT);
/// Longest accept queue (`net.core.somaxconn`).
pub static SOMAXCONN: Setting = Setting::new(4096, 0, INT);
/// Receive and send buffers of sockets other than TCP's, in bytes as getsockopt(2) shows them:
/// `net.core.rmem_default` and `wmem_default`.
pub static BUFFERS: [Setting; 2] =
    [Setting::new(212_992, 2304, INT), Setting::new(212_992, 4608, INT)];
/// What `SO_RCVBUF` and `SO_SNDBUF` may ask for (`net.core.rmem_max` and `wmem_max`).
pub static MAX_BUFFERS: [Setting; 2] =
    [Setting::new(212_992, 2304, INT), Setting::new(212_992, 4608, INT)];
/// Datagrams that wait at a unix socket (`net.unix.max_dgram_qlen`).
pub static DATAGRAMS: Setting = Setting::new(512, 0, INT);

/// First and last port for those who ask for none (`ip_local_port_range`).
static PORTS: [Setting; 2] = [Setting::new(32768, 1, 65535), Setting::new(60999, 1, 65535)];
/// Ports that nobody gets who asks for none (`ip_local_reserved_ports`): first and last of each range.
static RESERVED: SpinLock<Vec<(u16, u16)>> = SpinLock::new(Vec::new());
/// Sockets may be bound to addresses that are not this machine's (`ip_nonlocal_bind`).
pub static NONLOCAL_BIND: Setting = Setting::new(0, 0, 1);
/// Ports below need privilege (`ip_unprivileged_port_start`): none, as Docker has it for containers.
pub static FIRST_FREE_PORT: Setting = Setting::new(0, 0, 65535);
/// Groups that may have ping sockets (`ping_group_range`): all, as Docker has it.
static PING: [Setting; 2] = [Setting::new(0, 0, PING_MAX), Setting::new(INT, 0, PING_MAX)];
const PING_MAX: i64 = u32::MAX as i64 - 1;
/// Echo requests stay without an answer (`icmp_echo_ignore_all`).
pub static SILENT: Setting = Setting::new(0, 0, 1);

/// Seconds without data after which keep-alive asks, seconds between its questions, and how many it
/// asks (`tcp_keepalive_time`, `_intvl`, `_probes`).
pub static KEEP_ALIVE: [Setting; 3] =
    [Setting::new(7200, 1, INT), Setting::new(75, 1, INT), Setting::new(9, 1, 255)];
/// SYNs that are sent again (`tcp_syn_retries`).
pub static SYN_RETRIES: Setting = Setting::new(6, 1, 127);
/// Seconds that a connection without a descriptor may linger (`tcp_fin_timeout`).
pub static FIN_TIMEOUT: Setting = Setting::new(60, 1, INT);
/// Connections in TIME_WAIT that are remembered (`tcp_max_tw_buckets`).
pub static TIME_WAITS: Setting = Setting::new(16384, 0, INT);
/// Half-open connections without cookies (`tcp_max_syn_backlog`), and whether there are cookies
/// (`tcp_syncookies`): 0 never, 1 when there are too many, 2 always.
pub static SYN_BACKLOG: Setting = Setting::new(4096, 1, INT);
/// See [`SYN_BACKLOG`].
pub static COOKIES: Setting = Setting::new(1, 0, 2);
/// Least, first and largest receive buffer of TCP in bytes (`tcp_rmem`); the first two are bounds only.
pub static TCP_RECEIVE: [Setting; 3] =
    [Setting::new(4096, 1, INT), Setting::new(131_072, 1, INT), Setting::new(6_291_456, 1, INT)];
/// As [`TCP_RECEIVE`], of the send buffer (`tcp_wmem`).
pub static TCP_SEND: [Setting; 3] =
    [Setting::new(4096, 1, INT), Setting::new(16384, 1, INT), Setting::new(4_194_304, 1, INT)];

/// Whether new sockets go by Reno (`tcp_congestion_control`).
static RENO: AtomicBool = AtomicBool::new(false);

/// By what new sockets go.
pub fn congestion() -> Algorithm {
    if RENO.load(Relaxed) { Algorithm::Reno } else { Algorithm::Cubic }
}

/// Changes that. ENOENT for one that there is not.
pub fn set_congestion(name: &[u8]) -> Result<()> {
    let algorithm = Algorithm::named(name.trim_ascii()).ok_or(Errno::ENOENT)?;
    RENO.store(algorithm == Algorithm::Reno, Relaxed);
    Ok(())
}

/// The ports for those who ask for none.
pub fn ports() -> core::ops::RangeInclusive<u16> {
    PORTS[0].get() as u16..=PORTS[1].get() as u16
}

/// Changes them. EINVAL unless both are ports and in order.
pub fn set_ports(values: &[i64]) -> Result<()> {
    match *values {
        [low, high] if low <= high => crate::setting::set_all(&[&PORTS[0], &PORTS[1]], values),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether one of these groups may have ping sockets.
pub fn may_ping(mut groups: impl Iterator<Item = u32>) -> bool {
    let range = PING[0].get()..=PING[1].get();
    groups.any(|group| range.contains(&group.into()))
}

/// First and last group that may.
pub fn ping_groups() -> [i64; 2] {
    [PING[0].get(), PING[1].get()]
}

/// Changes them; a first one above the last is nobody.
pub fn set_ping_groups(values: &[i64]) -> Result<()> {
    match values {
        [_, _] => crate::setting::set_all(&[&PING[0], &PING[1]], values),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether a port is kept from those who ask for none.
pub fn is_reserved(port: u16) -> bool {
    RESERVED.lock().iter().any(|&(low, high)| (low..=high).contains(&port))
}

/// The reserved ports, as `8080,9000-9010`.
pub fn reserved() -> String {
    let mut out = String::new();
    for (low, high) in RESERVED.lock().iter() {
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a string doesn't fail.
        let _ = match low == high {
            true => write!(out, "{comma}{low}"),
            false => write!(out, "{comma}{low}-{high}"),
        };
    }
    out
}

/// Changes them. EINVAL for what is no list of ports.
pub fn set_reserved(text: &str) -> Result<()> {
    const MOST: usize = 1024;
    let mut list: Vec<(u16, u16)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| Errno::EINVAL);
        let (low, high) = (port(low)?, port(high)?);
        if low > high || list.len() >= MOST {
            return Err(Errno::EINVAL);
        }
        let at = list.iter().take_while(|&&other| other < (low, high)).count();
        list.insert(at, (low, high));
    }
    *RESERVED.lock() = list;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_are_lists_of_ranges() {
        set_reserved("9000-9010, 8080,\n").unwrap();
        assert_eq!(reserved(), "8080,9000-9010");
        assert!(is_reserved(9005) && is_reserved(8080) && !is_reserved(8999));
        for text in ["x", "1-", "9-8", "70000", "-5"] {
            assert_eq!(set_reserved(text), Err(Errno::EINVAL), "{text}");
        }
        set_reserved("").unwrap();
        assert_eq!(reserved(), "");
    }
}
