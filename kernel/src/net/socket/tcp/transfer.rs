//! Bytes to a connection and from it (send(2), recv(2)).

use super::super::inet::LEVEL_TCP;
use super::super::options::Timestamp;
use super::super::{Caller, Control, Incoming, Outgoing, Socket, ancillary, wait};
use super::{Role, TcpSocket};
use crate::errno::{Errno, Result};
use crate::net::tcp::{Conn, ConnInner};
use crate::sync::SpinGuard;
use alloc::sync::Arc;
use linux_raw_sys::net::*;

/// sendto(2) with a connection on the way.
const MSG_FASTOPEN: u32 = 0x2000_0000;

impl TcpSocket {
    /// Sends what `message` has, or as much as there is room for.
    pub(super) fn put(&self, who: &Caller<'_>, message: &mut Outgoing<'_, '_>) -> Result<usize> {
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

    /// Receives what is there.
    pub(super) fn take(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
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
