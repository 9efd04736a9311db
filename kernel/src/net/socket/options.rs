//! Options of level `SOL_SOCKET` that every socket keeps (socket(7)).

use super::Caller;
use crate::bpf::{self, Program};
use crate::errno::{Errno, Result};
use crate::net::settings;
use alloc::vec::Vec;
use linux_raw_sys::net::*;

/// Values of the options that are kept for all families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// `SO_REUSEADDR`.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// `SO_BROADCAST`.
    pub broadcast: bool,
    /// `SO_KEEPALIVE`.
    pub keep_alive: bool,
    /// `SO_OOBINLINE`.
    pub oob_inline: bool,
    /// `SO_PASSCRED`.
    pub pass_cred: bool,
    /// `SO_TIMESTAMP`: microseconds; `SO_TIMESTAMPNS`: nanoseconds.
    pub timestamp: Timestamp,
    /// `SO_LINGER`: seconds, if on.
    pub linger: Option<u32>,
    /// `SO_RCVTIMEO` in nanoseconds; 0: none.
    pub receive_timeout: u64,
    /// `SO_SNDTIMEO` in nanoseconds; 0: none.
    pub send_timeout: u64,
    /// `SO_RCVBUF` as getsockopt(2) shows it: twice what was asked for.
    pub receive_buffer: u32,
    /// `SO_SNDBUF`, likewise.
    pub send_buffer: u32,
    /// `SO_RCVLOWAT`.
    pub receive_low: u32,
    /// `SO_PRIORITY`.
    pub priority: u32,
    /// `SO_MARK`.
    pub mark: u32,
    /// `SO_DEBUG`, `SO_DONTROUTE`, `SO_NO_CHECK`, `SO_RXQ_OVFL`, `SO_ZEROCOPY`, ...: kept, one bit
    /// each by option number.
    pub flags: u128,
    /// `SO_ATTACH_FILTER`.
    pub filter: Option<Program>,
    /// `SO_LOCK_FILTER`: it stays as it is.
    pub filter_locked: bool,
    /// `SO_INCOMING_CPU`; -1: none.
    pub incoming_cpu: i32,
}

/// Which receive timestamps are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// None.
    Off,
    /// `struct timeval`.
    Micros,
    /// `struct timespec`.
    Nanos,
}

/// Options that are on or off, without an effect that anybody could see here.
const PLAIN: [u32; 10] = [
    SO_DEBUG,
    SO_DONTROUTE,
    SO_NO_CHECK,
    SO_BSDCOMPAT,
    SO_RXQ_OVFL,
    SO_WIFI_STATUS,
    SO_SELECT_ERR_QUEUE,
    SO_BUSY_POLL,
    SO_PASSSEC,
    SO_PREFER_BUSY_POLL,
];

/// Smallest `SO_RCVBUF` (Linux: SOCK_MIN_RCVBUF) and `SO_SNDBUF`.
pub const MIN_RECEIVE: u32 = 2304;
const MIN_SEND: u32 = 4608;

impl Common {
    /// The values of a new socket.
    pub fn new() -> Common {
        Common {
            reuse_addr: false,
            reuse_port: false,
            broadcast: false,
            keep_alive: false,
            oob_inline: false,
            pass_cred: false,
            timestamp: Timestamp::Off,
            linger: None,
            receive_timeout: 0,
            send_timeout: 0,
            receive_buffer: settings::BUFFERS[0].get() as u32,
            send_buffer: settings::BUFFERS[1].get() as u32,
            receive_low: 1,
            priority: 0,
            mark: 0,
            flags: 0,
            filter: None,
            filter_locked: false,
            incoming_cpu: -1,
        }
    }

    /// Sets one. The value of `SO_ATTACH_FILTER` is the program itself. `Ok(false)`: not kept here.
    pub fn set(&mut self, who: &Caller<'_>, name: u32, value: &[u8]) -> Result<bool> {
        let on = || int(value).map(|value| value != 0);
        match name {
            SO_REUSEADDR => self.reuse_addr = on()?,
            SO_REUSEPORT => self.reuse_port = on()?,
            SO_BROADCAST => self.broadcast = on()?,
            SO_KEEPALIVE => self.keep_alive = on()?,
            SO_OOBINLINE => self.oob_inline = on()?,
            SO_PASSCRED => self.pass_cred = on()?,
            SO_TIMESTAMP_OLD | SO_TIMESTAMP_NEW => {
                self.timestamp = if on()? { Timestamp::Micros } else { Timestamp::Off };
            }
            SO_TIMESTAMPNS_OLD | SO_TIMESTAMPNS_NEW => {
                self.timestamp = if on()? { Timestamp::Nanos } else { Timestamp::Off };
            }
            SO_LINGER => {
                let (on, seconds) = (int(value)?, int(value.get(4..).unwrap_or_default())?);
                self.linger = (on != 0).then_some(seconds.max(0) as u32);
            }
            SO_RCVTIMEO_OLD | SO_RCVTIMEO_NEW => self.receive_timeout = timeval(value)?,
            SO_SNDTIMEO_OLD | SO_SNDTIMEO_NEW => self.send_timeout = timeval(value)?,
            SO_RCVBUF | SO_RCVBUFFORCE => {
                if name == SO_RCVBUFFORCE && !who.privileged {
                    return Err(Errno::EPERM);
                }
                self.receive_buffer = buffer(value, 0, name == SO_RCVBUFFORCE)?.max(MIN_RECEIVE);
            }
            SO_SNDBUF | SO_SNDBUFFORCE => {
                if name == SO_SNDBUFFORCE && !who.privileged {
                    return Err(Errno::EPERM);
                }
                self.send_buffer = buffer(value, 1, name == SO_SNDBUFFORCE)?.max(MIN_SEND);
            }
            SO_RCVLOWAT => self.receive_low = int(value)?.max(1) as u32,
            SO_SNDLOWAT => return Err(Errno::ENOPROTOOPT),
            SO_PRIORITY => {
                let priority = int(value)?;
                if !(0..=6).contains(&priority) && !who.privileged {
                    return Err(Errno::EPERM);
                }
                self.priority = priority as u32;
            }
            SO_MARK => {
                if !who.privileged {
                    return Err(Errno::EPERM);
                }
                self.mark = int(value)? as u32;
            }
            SO_BINDTODEVICE => match value.split(|&byte| byte == 0).next().unwrap_or_default() {
                b"" | b"eth0" | b"lo" => {}
                _ => return Err(Errno::ENODEV),
            },
            SO_INCOMING_CPU => self.incoming_cpu = int(value)?,
            SO_ATTACH_FILTER | SO_DETACH_FILTER if self.filter_locked => return Err(Errno::EPERM),
            SO_ATTACH_FILTER if value.len() > settings::OPTIONS.size() => {
                return Err(Errno::ENOMEM);
            }
            SO_ATTACH_FILTER => self.filter = Some(bpf::decode(value, true)?.into()),
            SO_DETACH_FILTER => {
                int(value)?;
                self.filter.take().ok_or(Errno::ENOENT)?;
            }
            SO_LOCK_FILTER => {
                let locked = on()?;
                if self.filter_locked && !locked {
                    return Err(Errno::EPERM);
                }
                self.filter_locked = locked;
            }
            name if PLAIN.contains(&name) => {
                let bit = 1 << name;
                self.flags = if on()? { self.flags | bit } else { self.flags & !bit };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads one. `None`: not kept here.
    pub fn get(&self, name: u32) -> Option<Vec<u8>> {
        let flag = |on: bool| Some(i32::from(on).to_ne_bytes().to_vec());
        let number = |value: u32| Some(value.to_ne_bytes().to_vec());
        match name {
            SO_REUSEADDR => flag(self.reuse_addr),
            SO_REUSEPORT => flag(self.reuse_port),
            SO_BROADCAST => flag(self.broadcast),
            SO_KEEPALIVE => flag(self.keep_alive),
            SO_OOBINLINE => flag(self.oob_inline),
            SO_PASSCRED => flag(self.pass_cred),
            SO_TIMESTAMP_OLD | SO_TIMESTAMP_NEW => flag(self.timestamp == Timestamp::Micros),
            SO_TIMESTAMPNS_OLD | SO_TIMESTAMPNS_NEW => flag(self.timestamp == Timestamp::Nanos),
            SO_LINGER => {
                let (on, seconds) = (self.linger.is_some(), self.linger.unwrap_or(0));
                Some([u32::from(on).to_ne_bytes(), seconds.to_ne_bytes()].concat())
            }
            SO_RCVTIMEO_OLD | SO_RCVTIMEO_NEW => Some(emit_timeval(self.receive_timeout)),
            SO_SNDTIMEO_OLD | SO_SNDTIMEO_NEW => Some(emit_timeval(self.send_timeout)),
            SO_RCVBUF => number(self.receive_buffer),
            SO_SNDBUF => number(self.send_buffer),
            SO_RCVLOWAT => number(self.receive_low),
            SO_SNDLOWAT => number(1),
            SO_PRIORITY => number(self.priority),
            SO_MARK => number(self.mark),
            SO_INCOMING_NAPI_ID => number(0),
            SO_INCOMING_CPU => number(self.incoming_cpu as u32),
            SO_LOCK_FILTER => flag(self.filter_locked),
            SO_BINDTODEVICE => Some(Vec::new()),
            name if PLAIN.contains(&name) => flag(self.flags & 1 << name != 0),
            _ => None,
        }
    }
}

impl Default for Common {
    fn default() -> Self {
        Common::new()
    }
}

/// The `int` that most options are. EINVAL if the value is shorter.
pub fn int(value: &[u8]) -> Result<i32> {
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::EINVAL)
}

/// Twice the size that was asked for, of which `force` knows no limit.
fn buffer(value: &[u8], which: usize, force: bool) -> Result<u32> {
    const MOST: i64 = i32::MAX as i64 / 2;
    let limit = if force { MOST } else { settings::MAX_BUFFERS[which].get().min(MOST) };
    Ok(i64::from(int(value)?).clamp(0, limit) as u32 * 2)
}

fn timeval(value: &[u8]) -> Result<u64> {
    let (Some(secs), Some(micros)) =
        (value.first_chunk::<8>(), value.get(8..).and_then(|tail| tail.first_chunk::<8>()))
    else {
        return Err(Errno::EINVAL);
    };
    let (secs, micros) = (i64::from_ne_bytes(*secs), i64::from_ne_bytes(*micros));
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno::EDOM);
    }
    // Negative means "at once" to Linux; a nanosecond is near enough.
    if secs < 0 {
        return Ok(1);
    }
    Ok((secs as u64).saturating_mul(1_000_000_000).saturating_add(micros as u64 * 1000))
}

fn emit_timeval(ns: u64) -> Vec<u8> {
    let (secs, micros) = (ns / 1_000_000_000, ns % 1_000_000_000 / 1000);
    [secs.to_ne_bytes(), micros.to_ne_bytes()].concat()
}
