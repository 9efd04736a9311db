//! Receiving.

use super::{Message, Role, UnixSocket};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::net::addr::Address;
use crate::net::socket::{Control, Incoming, wait};
use linux_raw_sys::net::{MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SOCK_DGRAM};

impl UnixSocket {
    pub(super) fn receive_message(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.kind != SOCK_DGRAM {
            match self.state.lock().role {
                Role::Connected(_) => {}
                Role::Listening { .. } => return Err(Errno::EINVAL),
                Role::Idle => return Err(Errno::ENOTCONN),
            }
        }
        if self.stream() { self.receive_stream(message) } else { self.receive_whole(message) }
    }

    /// The first message, or the end; waits for either.
    fn first(&self, nonblock: bool) -> Result<Option<Message>> {
        let take = || {
            let mut state = self.state.lock();
            if let Some(first) = state.received.pop_front() {
                state.bytes -= first.data.len() - first.taken;
                return Some(Ok(Some(first)));
            }
            if core::mem::take(&mut state.reset) {
                return Some(Err(Errno::ECONNRESET));
            }
            (state.shut.read || state.peer_shut).then_some(Ok(None))
        };
        match take() {
            Some(found) => found,
            None if nonblock => Err(Errno::EAGAIN),
            None => {
                let timeout = self.common.lock().receive_timeout;
                wait(&self.queue, false, timeout, take)?
            }
        }
    }

    fn put_back(&self, message: Message) {
        let mut state = self.state.lock();
        state.bytes += message.data.len() - message.taken;
        state.received.push_front(message);
    }

    /// Tells whoever waits for room.
    fn made_room(&self) {
        if self.kind == SOCK_DGRAM {
            self.wake(Events::OUT | Events::WRNORM);
            return;
        }
        if let Some(peer) = self.connected() {
            let waits = core::mem::take(&mut peer.state.lock().no_space);
            if waits {
                peer.wake(Events::OUT | Events::WRNORM);
            }
        }
    }

    /// Hands over what came with a message.
    fn attach(&self, message: &mut Incoming<'_, '_>, from: &mut Message, keep: bool) {
        if self.common.lock().pass_cred {
            message.control.push(Control::Credentials(from.cred));
        }
        if keep {
            message.control.extend(from.rights.iter().cloned());
        } else {
            message.control.append(&mut from.rights);
        }
    }

    fn receive_whole(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        let Some(mut first) = self.first(message.nonblock)? else { return Ok(0) };
        let full = first.data.len();
        let moved = match message.dst.remaining() {
            0 => 0,
            _ if full == 0 => 0,
            _ => match message.dst.write(&first.data) {
                Ok(moved) => moved,
                Err(error) => {
                    self.put_back(first);
                    return Err(error);
                }
            },
        };
        if moved < full {
            message.out_flags |= MSG_TRUNC;
        }
        message.from = Some(Address::Unix(first.from.clone()));
        let peek = message.flags & MSG_PEEK != 0;
        self.attach(message, &mut first, peek);
        if peek {
            self.put_back(first);
        } else {
            self.made_room();
        }
        Ok(if message.flags & MSG_TRUNC != 0 { full } else { moved })
    }

    fn receive_stream(&self, message: &mut Incoming<'_, '_>) -> Result<usize> {
        let peek = message.flags & MSG_PEEK != 0;
        let mut total = 0;
        loop {
            let nonblock =
                message.nonblock || total > 0 && (peek || message.flags & MSG_WAITALL == 0);
            let mut first = match self.first(nonblock) {
                Ok(Some(first)) => first,
                Ok(None) => return Ok(total),
                Err(_) if total > 0 => return Ok(total),
                Err(error) => return Err(error),
            };
            // Data of two messages with descriptors or of two senders doesn't mix.
            if total > 0 && !first.rights.is_empty() {
                self.put_back(first);
                return Ok(total);
            }
            let moved = match message.dst.write(&first.data[first.taken..]) {
                Ok(moved) => moved,
                Err(error) => {
                    self.put_back(first);
                    return if total > 0 { Ok(total) } else { Err(error) };
                }
            };
            total += moved;
            if total == moved {
                self.attach(message, &mut first, peek);
            }
            if peek {
                self.put_back(first);
                return Ok(total);
            }
            first.taken += moved;
            let descriptors = !message.control.is_empty();
            if first.taken < first.data.len() {
                self.put_back(first);
                self.made_room();
                return Ok(total);
            }
            drop(first);
            self.made_room();
            if message.dst.remaining() == 0 || descriptors {
                return Ok(total);
            }
        }
    }
}
