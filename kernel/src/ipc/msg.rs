//! System V message queues (msgget(2), msgsnd(2), msgrcv(2), msgctl(2)).

use super::{Caller, Ids, NOWAIT, Object, Perm, READ, WRITE, now};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::setting::Setting;
use crate::sync::{SpinLock, WaitMode, WaitQueue};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Longest message (`MSGMAX`).
pub static MAX_LEN: Setting = Setting::new(8192, 0, i32::MAX as i64);
/// Bytes that a queue holds unless told otherwise (`MSGMNB`).
pub static MAX_BYTES: Setting = Setting::new(16384, 0, i32::MAX as i64);
/// `MSG_NOERROR`
pub const NOERROR: u32 = 0o10000;
/// `MSG_EXCEPT`
pub const EXCEPT: u32 = 0o20000;
/// `MSG_COPY`
pub const COPY: u32 = 0o40000;

/// All queues.
pub static QUEUES: Ids<Queue> = Ids::new();

/// A message.
#[derive(Clone)]
pub struct Message {
    /// Positive.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
}

/// Attributes and messages of a queue.
pub struct State {
    /// Permissions.
    pub perm: Perm,
    /// Messages, oldest first.
    pub messages: VecDeque<Message>,
    /// Bytes in them.
    pub bytes: usize,
    /// Most bytes in them.
    pub limit: usize,
    /// Last msgsnd(2), msgrcv(2), change by msgctl(2); seconds since the epoch.
    pub times: [i64; 3],
    /// Processes of the last msgsnd(2) and msgrcv(2).
    pub pids: [i32; 2],
    removed: bool,
}

/// A queue.
pub struct Queue {
    /// What changes.
    pub state: SpinLock<State>,
    senders: WaitQueue,
    receivers: WaitQueue,
}

impl Object for Queue {
    fn perm(&self) -> Perm {
        self.state.lock().perm
    }
}

/// msgget(2)
pub fn get(key: i32, flags: u32, caller: &Caller<'_>) -> Result<i32> {
    QUEUES.get(
        key,
        flags,
        caller,
        |_| Ok(()),
        |perm| {
            let state = State {
                perm,
                messages: VecDeque::new(),
                bytes: 0,
                limit: MAX_BYTES.size(),
                times: [0, 0, now()],
                pids: [0; 2],
                removed: false,
            };
            let state = SpinLock::new(state);
            Ok(Queue { state, senders: WaitQueue::new(), receivers: WaitQueue::new() })
        },
    )
}

/// Which message a receiver wants.
fn wanted(messages: &VecDeque<Message>, kind: i64, flags: u32) -> Option<usize> {
    if flags & COPY != 0 {
        return usize::try_from(kind).ok().filter(|&at| at < messages.len());
    }
    if kind >= 0 {
        let except = flags & EXCEPT != 0;
        return messages.iter().position(|m| kind == 0 || (m.kind == kind) != except);
    }
    // `i64::MIN` means every type.
    let highest = kind.checked_neg().unwrap_or(i64::MAX);
    let lowest = messages.iter().map(|m| m.kind).filter(|&kind| kind <= highest).min()?;
    messages.iter().position(|m| m.kind == lowest)
}

impl Queue {
    /// msgsnd(2)
    pub fn send(&self, message: Message, flags: u32, caller: &Caller<'_>) -> Result<()> {
        let mut message = Some(message);
        let attempt = || {
            let mut state = self.state.lock();
            if let Err(errno) = state.perm.check(caller, WRITE) {
                return Some(Err(errno));
            }
            if state.removed {
                return Some(Err(Errno::EIDRM));
            }
            let len = message.as_ref().map_or(0, |message| message.text.len());
            // Empty messages take no room: their number is limited like their bytes.
            if state.bytes + len > state.limit || state.messages.len() >= state.limit {
                return if flags & NOWAIT != 0 { Some(Err(Errno::EAGAIN)) } else { None };
            }
            state.messages.extend(message.take());
            state.bytes += len;
            (state.times[0], state.pids[0]) = (now(), caller.pid);
            Some(Ok(()))
        };
        self.senders
            .wait(WaitMode::Interruptible, None, attempt)
            // Never restarted, whatever the handler's flags (signal(7)).
            .unwrap_or(Err(Errno::EINTR))?;
        self.receivers.wake_all(Events::ALL);
        Ok(())
    }

    /// msgrcv(2) of at most `max` bytes; a longer message is cut with [`NOERROR`].
    pub fn receive(
        &self,
        max: usize,
        kind: i64,
        flags: u32,
        caller: &Caller<'_>,
    ) -> Result<Message> {
        let attempt = || {
            let mut state = self.state.lock();
            if let Err(errno) = state.perm.check(caller, READ) {
                return Some(Err(errno));
            }
            if state.removed {
                return Some(Err(Errno::EIDRM));
            }
            let Some(at) = wanted(&state.messages, kind, flags) else {
                return if flags & NOWAIT != 0 { Some(Err(Errno::ENOMSG)) } else { None };
            };
            if state.messages[at].text.len() > max && flags & NOERROR == 0 {
                return Some(Err(Errno::E2BIG));
            }
            if flags & COPY != 0 {
                // Copies are never cut.
                if state.messages[at].text.len() > max {
                    return Some(Err(Errno::EINVAL));
                }
                return Some(Ok(state.messages[at].clone()));
            }
            let message = state.messages.remove(at)?;
            state.bytes -= message.text.len();
            (state.times[1], state.pids[1]) = (now(), caller.pid);
            Some(Ok(message))
        };
        let mut message = self
            .receivers
            .wait(WaitMode::Interruptible, None, attempt)
            .unwrap_or(Err(Errno::EINTR))?;
        message.text.truncate(max);
        if flags & COPY == 0 {
            self.senders.wake_all(Events::ALL);
        }
        Ok(message)
    }

    /// `IPC_SET`
    pub fn set(&self, uid: u32, gid: u32, mode: u32, limit: Option<usize>) {
        {
            let mut state = self.state.lock();
            state.perm.set(uid, gid, mode);
            state.limit = limit.unwrap_or(state.limit);
            state.times[2] = now();
        }
        // Who waits may have lost the right to, or got room.
        self.senders.wake_all(Events::ALL);
        self.receivers.wake_all(Events::ALL);
    }
}

/// `IPC_RMID`
pub fn remove(id: i32, caller: &Caller<'_>) -> Result<()> {
    let queue = QUEUES.remove(id, caller)?;
    let messages = {
        let mut state = queue.state.lock();
        state.removed = true;
        core::mem::take(&mut state.messages)
    };
    drop(messages);
    queue.senders.wake_all(Events::ALL);
    queue.receivers.wake_all(Events::ALL);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: i64, text: &[u8]) -> Message {
        Message { kind, text: text.to_vec() }
    }

    #[test]
    fn types_select_messages() {
        let in_group = &|_| false;
        let me =
            Caller { euid: 0, egid: 0, in_group, override_access: true, admin: true, pid: 7003 };
        let id = get(super::super::PRIVATE, 0o600, &me).unwrap();
        let queue = QUEUES.find(id).unwrap();
        for (kind, word) in [(3, "three"), (1, "one"), (2, "two"), (1, "uno")] {
            queue.send(text(kind, word.as_bytes()), NOWAIT, &me).unwrap();
        }
        let take = |kind, flags| queue.receive(100, kind, flags | NOWAIT, &me).map(|m| m.text);
        assert_eq!(take(1, COPY).unwrap(), b"one");
        assert_eq!(take(3, EXCEPT).unwrap(), b"one");
        assert_eq!(take(-2, 0).unwrap(), b"uno");
        assert_eq!(take(-2, 0).unwrap(), b"two");
        assert_eq!(take(-2, 0), Err(Errno::ENOMSG));
        assert!(matches!(queue.receive(2, 0, NOWAIT, &me), Err(Errno::E2BIG)));
        assert_eq!(queue.receive(2, 0, NOWAIT | NOERROR, &me).unwrap().text, b"th");
        queue.send(text(1, &[0; 8192]), NOWAIT, &me).unwrap();
        queue.send(text(1, &[0; 8192]), NOWAIT, &me).unwrap();
        assert_eq!(queue.send(text(1, b"x"), NOWAIT, &me), Err(Errno::EAGAIN));
        remove(id, &me).unwrap();
        assert_eq!(queue.send(text(1, b"x"), NOWAIT, &me), Err(Errno::EIDRM));
    }
}
