//! System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use crate::errno::{Errno, Result};
use crate::io::{get_user, get_user_slice, put_user, put_user_slice};
use crate::ipc::msg::{self, Message, QUEUES, State};
use crate::ipc::{READ, ids, with_caller};
use crate::task::current;
use linux_raw_sys::general::CAP_SYS_RESOURCE;

const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;
const IPC_INFO: u32 = 3;
const MSG_STAT: u32 = 11;
const MSG_INFO: u32 = 12;
const MSG_STAT_ANY: u32 = 13;

/// msgget(2)
pub fn msgget(key: i32, flags: u32) -> Result<usize> {
    with_caller(|caller| msg::get(key, flags, caller)).map(|id| id as usize)
}

/// msgsnd(2): a `long`, then the text.
pub fn msgsnd(id: i32, from: usize, len: usize, flags: u32) -> Result<usize> {
    if len > msg::MAX_LEN.size() || id < 0 {
        return Err(Errno::EINVAL);
    }
    let kind: i64 = get_user(from)?;
    if kind < 1 {
        return Err(Errno::EINVAL);
    }
    let mut text = alloc::vec![0; len];
    get_user_slice(from + 8, &mut text)?;
    let queue = QUEUES.find(id)?;
    with_caller(|caller| queue.send(Message { kind, text }, flags, caller)).map(|()| 0)
}

/// msgrcv(2)
pub fn msgrcv(id: i32, to: usize, max: usize, kind: i64, flags: u32) -> Result<usize> {
    let bad_copy =
        flags & msg::COPY != 0 && (flags & msg::EXCEPT != 0 || flags & crate::ipc::NOWAIT == 0);
    if id < 0 || max as isize <= -1 || bad_copy {
        return Err(Errno::EINVAL);
    }
    let queue = QUEUES.find(id)?;
    let message = with_caller(|caller| queue.receive(max, kind, flags, caller))?;
    put_user(to, &message.kind)?;
    put_user_slice(to + 8, &message.text)?;
    Ok(message.text.len())
}

/// `struct msqid64_ds` of x86-64.
fn stat(id: i32, state: &State) -> [u64; 15] {
    let mut out = [0u64; 15];
    out[..6].copy_from_slice(&state.perm.to_words(ids::sequence(id)));
    out[6..9].copy_from_slice(&state.times.map(|time| time as u64));
    out[9] = state.bytes as u64;
    out[10] = state.messages.len() as u64;
    out[11] = state.limit as u64;
    out[12] = u64::from(state.pids[0] as u32) | u64::from(state.pids[1] as u32) << 32;
    out
}

/// `struct msginfo`; returns the highest slot in use.
fn info(to: usize, used: bool) -> Result<usize> {
    let mut out = [0u32; 8];
    let [most, bytes, longest] =
        [&QUEUES.limit, &msg::MAX_BYTES, &msg::MAX_LEN].map(|setting| setting.get() as u32);
    if used {
        for (_, queue) in QUEUES.list() {
            let state = queue.state.lock();
            out[0] += 1;
            out[1] += state.messages.len() as u32;
            out[6] += state.bytes as u32;
        }
    } else {
        // msgpool (KiB), msgmap, msgtql and msgseg, as Linux makes them up.
        (out[0], out[1], out[6]) = (most.wrapping_mul(bytes) / 1024, bytes, bytes);
    }
    (out[2], out[3]) = (longest, bytes);
    (out[4], out[5]) = (most, 16);
    // msgtql is an int, msgseg the unsigned short after it.
    out[7] = 0xffff;
    put_user(to, &out)?;
    Ok(QUEUES.highest() as usize)
}

/// msgctl(2)
pub fn msgctl(id: i32, command: u32, arg: usize) -> Result<usize> {
    /// `IPC_64`: glibc sets it for some calls on other machines.
    const IPC_64: u32 = 0x100;
    let command = command & !IPC_64;
    match command {
        IPC_INFO | MSG_INFO => info(arg, command == MSG_INFO),
        MSG_STAT | MSG_STAT_ANY => {
            let any = command == MSG_STAT_ANY;
            let (id, queue) = with_caller(|caller| QUEUES.at(id, any, caller))?;
            let words = stat(id, &queue.state.lock());
            put_user(arg, &words)?;
            Ok(id as usize)
        }
        IPC_RMID => with_caller(|caller| msg::remove(id, caller)).map(|()| 0),
        IPC_STAT => {
            let queue = QUEUES.find(id)?;
            let words = with_caller(|caller| {
                let state = queue.state.lock();
                state.perm.check(caller, READ)?;
                Ok::<_, Errno>(stat(id, &state))
            })?;
            put_user(arg, &words)?;
            Ok(0)
        }
        IPC_SET => {
            let words: [u64; 15] = get_user(arg)?;
            let [uid, gid, mode] = [words[0] >> 32, words[1], words[2] >> 32].map(|w| w as u32);
            let limit = words[11] as usize;
            let queue = QUEUES.find(id)?;
            with_caller(|caller| queue.state.lock().perm.check_owner(caller))?;
            if limit > msg::MAX_BYTES.size() && !current().capable(CAP_SYS_RESOURCE) {
                return Err(Errno::EPERM);
            }
            queue.set(uid, gid, mode, Some(limit));
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
