//! Sending.

use super::{Message, Role, State, UnixSocket};
use crate::bpf::View;
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::net::addr::{Address, UnixName};
use crate::net::filter;
use crate::net::settings;
use crate::net::socket::{Caller, Control, Outgoing, wait};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use linux_raw_sys::net::{MSG_DONTWAIT, MSG_OOB, SOCK_DGRAM};

/// Stream data is queued in pieces of at most this size, so that a large write doesn't need one
/// large buffer.
const PIECE: usize = 32 * 1024;
/// What the smallest message counts for, as on Linux.
const OVERHEAD: usize = 768;
/// Descriptors in one message (Linux: SCM_MAX_FD).
pub const MAX_RIGHTS: usize = 253;

impl UnixSocket {
    /// Whether what we send may wait there.
    pub(super) fn has_room(&self, target: &UnixSocket) -> bool {
        let limit = self.limit();
        !self.is_full(&target.state.lock(), limit)
    }

    /// Whether a target has no room for what we send, of which `limit` bytes may wait.
    fn is_full(&self, target: &State, limit: usize) -> bool {
        if target.bytes >= limit {
            return true;
        }
        let most = match &target.role {
            _ if self.kind != SOCK_DGRAM => return false,
            // The queue's length is for those that many send to.
            Role::Connected(peer) if core::ptr::eq(Weak::as_ptr(peer), self) => limit / OVERHEAD,
            // One more than its length says.
            _ => settings::DATAGRAMS.size() + 1,
        };
        target.received.len() >= most
    }

    /// The socket that a message goes to.
    fn target(&self, who: &Caller<'_>, to: Option<&Address>) -> Result<Arc<UnixSocket>> {
        match to {
            Some(Address::Unix(name)) if self.kind == SOCK_DGRAM => {
                let target = Self::find(who, name)?;
                if target.kind != SOCK_DGRAM {
                    return Err(Errno::EPROTOTYPE);
                }
                return Ok(target);
            }
            Some(Address::Unix(_)) => {
                let connected = matches!(self.state.lock().role, Role::Connected(_));
                return Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP });
            }
            Some(_) if self.kind == SOCK_DGRAM => return Err(Errno::EINVAL),
            _ => {}
        }
        match &self.state.lock().role {
            Role::Connected(peer) => peer.upgrade().ok_or(match self.kind {
                SOCK_DGRAM => Errno::ECONNREFUSED,
                _ => Errno::EPIPE,
            }),
            _ => Err(Errno::ENOTCONN),
        }
    }

    pub(super) fn send_message(
        &self,
        who: &Caller<'_>,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<usize> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.state.lock().shut.write {
            return Err(Errno::EPIPE);
        }
        let nonblock = message.nonblock || message.flags & MSG_DONTWAIT != 0;
        let target = self.target(who, message.to.as_ref())?;
        let name = self.state.lock().name.clone();
        let mut rights = core::mem::take(&mut message.control);
        // The sender's identity goes along; given credentials must be the sender's own, or it is
        // privileged.
        let mut cred = who.cred;
        for control in &rights {
            match control {
                Control::Credentials(given) => {
                    if *given != who.cred && !who.privileged {
                        return Err(Errno::EPERM);
                    }
                    cred = *given;
                }
                Control::Rights(files) if files.len() > MAX_RIGHTS => return Err(Errno::EINVAL),
                Control::Rights(_) => {}
                Control::Raw(..) => return Err(Errno::EINVAL),
            }
        }
        rights.retain(|control| matches!(control, Control::Rights(_)));
        let total = message.src.remaining();
        let timeout = self.common.lock().send_timeout;
        if !self.stream() {
            let limit = self.common.lock().send_buffer as usize;
            if total > limit {
                return Err(Errno::EMSGSIZE);
            }
            let mut data = read_piece(message, total)?;
            let filter = target.common.lock().filter.clone();
            let wanted = filter::wanted(filter.as_ref(), View::plain(&data));
            // Tossed, but the sender hears nothing of it.
            if wanted == 0 {
                return Ok(total);
            }
            data.truncate(wanted);
            let queued = Message { data, taken: 0, from: name, cred, rights };
            self.deliver(&target, queued, nonblock, timeout)?;
            return Ok(total);
        }
        let mut done = 0;
        // An empty write to a stream sends nothing.
        while done < total {
            let data = match read_piece(message, (total - done).min(PIECE)) {
                Ok(data) => data,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            };
            let len = data.len();
            let rights = core::mem::take(&mut rights);
            let queued = Message { data, taken: 0, from: UnixName::Unnamed, cred, rights };
            match self.deliver(&target, queued, nonblock, timeout) {
                Ok(()) => done += len,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Queues one message, waiting for room.
    fn deliver(
        &self,
        target: &Arc<UnixSocket>,
        message: Message,
        nonblock: bool,
        timeout: u64,
    ) -> Result<()> {
        let datagram = self.kind == SOCK_DGRAM;
        let mut message = Some(message);
        let mut attempt = || {
            let limit = self.limit();
            let mut state = target.state.lock();
            if state.shut.read {
                return Some(Err(Errno::EPIPE));
            }
            if !datagram {
                let ours = match &state.role {
                    Role::Connected(peer) => core::ptr::eq(Weak::as_ptr(peer), self),
                    _ => false,
                };
                if !ours {
                    return Some(Err(Errno::EPIPE));
                }
            }
            if self.is_full(&state, limit) {
                drop(state);
                self.state.lock().no_space = true;
                return None;
            }
            let message = message.take()?;
            state.bytes += message.data.len();
            state.received.push_back(message);
            Some(Ok(()))
        };
        // Twice, because the reader may have made room before it could see that we want to hear of
        // it.
        let result = match attempt().or_else(&mut attempt) {
            Some(result) => result,
            None if nonblock => Err(Errno::EAGAIN),
            // Datagram receivers don't know who waits: their readers wake their own queue.
            None if datagram => wait(&target.queue, false, timeout, attempt)?,
            None => wait(&self.queue, false, timeout, attempt)?,
        };
        if result.is_ok() {
            target.wake(Events::IN | Events::RDNORM);
        }
        result
    }
}

fn read_piece(message: &mut Outgoing<'_, '_>, len: usize) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| Errno::ENOBUFS)?;
    data.resize(len, 0);
    if len > 0 {
        let moved = message.src.read(&mut data)?;
        data.truncate(moved);
    }
    Ok(data)
}
