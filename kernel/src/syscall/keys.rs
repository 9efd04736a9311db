//! add_key(2), request_key(2), keyctl(2).

use crate::errno::{Errno, Result};
use crate::io::{get_iovecs, get_user_slice, get_user_str, put_user_slice};
use crate::ipc::keys::{self, Kind, need};
use crate::task::creds::cap;
use crate::task::{Creds, current};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Longest name of a type, longest description, and most bytes of a payload.
const MAX_TYPE: usize = 32;
const MAX_DESCRIPTION: usize = 4096;
const MAX_PAYLOAD: usize = 1024 * 1024 - 1;

fn type_arg(addr: usize) -> Result<Vec<u8>> {
    let name = get_user_str(addr, MAX_TYPE, Errno::EINVAL)?;
    match name.first() {
        None => Err(Errno::EINVAL),
        Some(b'.') => Err(Errno::EPERM),
        Some(_) => Ok(name),
    }
}

fn description_arg(addr: usize) -> Result<Vec<u8>> {
    get_user_str(addr, MAX_DESCRIPTION, Errno::EINVAL)
}

fn payload_arg(addr: usize, len: usize) -> Result<Vec<u8>> {
    if len > MAX_PAYLOAD {
        return Err(Errno::EINVAL);
    }
    let mut payload = Vec::new();
    payload.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    payload.resize(len, 0);
    get_user_slice(addr, &mut payload)?;
    Ok(payload)
}

/// Copies what was asked for if there is room for all of it. Returns how long it is.
fn give(addr: usize, room: usize, bytes: &[u8]) -> Result<usize> {
    if addr != 0 && room >= bytes.len() {
        put_user_slice(addr, bytes)?;
    }
    Ok(bytes.len())
}

/// add_key(2)
pub fn add_key(
    kind: usize,
    description: usize,
    payload: usize,
    len: usize,
    ring: i32,
) -> Result<usize> {
    if len > MAX_PAYLOAD {
        return Err(Errno::EINVAL);
    }
    let kind = type_arg(kind)?;
    let description = match description {
        0 => Vec::new(),
        addr => description_arg(addr)?,
    };
    if description.first() == Some(&b'.') && kind == b"keyring" {
        return Err(Errno::EPERM);
    }
    let payload = payload_arg(payload, len)?;
    let _guard = keys::operate();
    let ring = keys::get(ring, true, need::WRITE)?;
    let added = Kind::of(&kind).and_then(|kind| keys::add(&ring, kind, &description, payload));
    added.map(|key| key.serial() as usize)
}

/// request_key(2). Nobody is asked for keys that aren't there: there is no `/sbin/request-key`.
pub fn request_key(kind: usize, description: usize, callout: usize, ring: i32) -> Result<usize> {
    let (kind, description) = (type_arg(kind)?, description_arg(description)?);
    if callout != 0 {
        get_user_str(callout, 4096, Errno::EINVAL)?;
    }
    let _guard = keys::operate();
    let ring = match ring {
        0 => None,
        ring => Some(keys::get(ring, true, need::WRITE)?),
    };
    let key = match keys::request(Kind::of(&kind)?, &description) {
        Err(Errno::ENOKEY) if callout != 0 && ring.is_none() => {
            keys::may_request()?;
            return Err(Errno::ENOKEY);
        }
        found => found?,
    };
    if let Some(ring) = ring {
        ring.key.link(&key)?;
    }
    Ok(key.serial() as usize)
}

/// What a command answers.
enum Answer {
    Number(usize),
    /// Copied out once nobody is kept waiting.
    Bytes(Vec<u8>),
}

/// What a command was given besides numbers.
struct Given {
    name: Option<Vec<u8>>,
    kind: Vec<u8>,
    payload: Vec<u8>,
}

/// keyctl(2)
pub fn keyctl(command: i32, args: [usize; 4]) -> Result<usize> {
    let [a, b, c, _] = args;
    // What comes from the program is read before anything is looked at.
    let name = match command {
        1 if a != 0 => Some(description_arg(a)?),
        10 => Some(description_arg(c)?),
        _ => None,
    };
    let kind = if command == 10 { type_arg(b)? } else { Vec::new() };
    let payload = if command == 2 { payload_arg(b, c)? } else { Vec::new() };
    let mut given = Given { name, kind, payload };
    let answer = {
        let _guard = keys::operate();
        run(command, args, &mut given, &current().creds())
    };
    match answer? {
        Answer::Number(number) => Ok(number),
        Answer::Bytes(bytes) => give(b, c, &bytes),
    }
}

/// Apart from its caller, so that nothing but keys is given back at its many ends.
#[inline(never)]
fn run(command: i32, args: [usize; 4], given: &mut Given, creds: &Creds) -> Result<Answer> {
    let [a, b, c, d] = args;
    let id = |at: usize| args[at] as i32;
    let serial = |key: &keys::Key| Ok(Answer::Number(key.serial() as usize));
    match command {
        // KEYCTL_GET_KEYRING_ID
        0 => {
            let found = keys::get(id(0), b != 0, need::SEARCH)?;
            return serial(&found.key);
        }
        // KEYCTL_JOIN_SESSION_KEYRING
        1 => {
            let name = given.name.as_deref();
            if name.is_some_and(|name| name.first() == Some(&b'.')) {
                return Err(Errno::EPERM);
            }
            return serial(&*keys::join_session(name)?);
        }
        // KEYCTL_UPDATE
        2 => {
            keys::get(id(0), false, need::WRITE)?.key.update(core::mem::take(&mut given.payload))?
        }
        // KEYCTL_REVOKE
        3 => {
            let found = keys::lookup(id(0), false)?;
            found.key.valid()?;
            if found.check(creds, need::WRITE).is_err() {
                found.check(creds, need::SETATTR)?;
            }
            found.key.end(false);
        }
        // KEYCTL_CHOWN
        4 => keys::get(id(0), true, need::SETATTR)?.key.chown(b as u32, c as u32, creds)?,
        // KEYCTL_SETPERM
        5 => {
            if b as u32 & !0x3f3f_3f3f != 0 {
                return Err(Errno::EINVAL);
            }
            keys::get(id(0), true, need::SETATTR)?.key.set_perm(b as u32, creds)?;
        }
        // KEYCTL_DESCRIBE
        6 => {
            let mut text = keys::get(id(0), false, need::VIEW)?.key.describe();
            text.push(0);
            return Ok(Answer::Bytes(text));
        }
        // KEYCTL_CLEAR
        7 => keys::get(id(0), true, need::WRITE)?.key.clear()?,
        // KEYCTL_LINK
        8 => {
            let ring = keys::get(id(1), true, need::WRITE)?;
            ring.key.link(&keys::get(id(0), true, need::LINK)?.key)?;
        }
        // KEYCTL_UNLINK
        9 => {
            let ring = keys::get(id(1), false, need::WRITE)?;
            ring.key.unlink(&keys::lookup(id(0), false)?.key)?;
        }
        // KEYCTL_SEARCH
        10 => {
            let ring = keys::get(id(0), false, need::SEARCH)?;
            let to = match id(3) {
                0 => None,
                to => Some(keys::get(to, true, need::WRITE)?),
            };
            let name = given.name.as_deref().unwrap_or_default();
            let key = keys::search(&ring, Kind::of(&given.kind)?, name)?;
            if let Some(to) = to {
                to.key.link(&key)?;
            }
            return serial(&key);
        }
        // KEYCTL_READ
        11 => {
            let found = keys::lookup(id(0), false).map_err(|_| Errno::ENOKEY)?;
            found.key.valid()?;
            // What the caller's keyrings hold can be read if it can be searched.
            if found.check(creds, need::READ).is_err() {
                let searchable = found.possessed && found.check(creds, need::SEARCH).is_ok();
                if !searchable {
                    return Err(Errno::EACCES);
                }
            }
            return Ok(Answer::Bytes(found.key.read()?));
        }
        // KEYCTL_INSTANTIATE and the like: nobody is asked to make keys.
        12 | 13 | 19 | 20 => {
            if command == 20 {
                get_iovecs(b, c)?;
            }
            return Err(Errno::EPERM);
        }
        // KEYCTL_SET_REQKEY_KEYRING
        14 => return Ok(Answer::Number(keys::set_default(id(0))? as usize)),
        // KEYCTL_SET_TIMEOUT
        15 => keys::get(id(0), true, need::SETATTR)?.key.set_timeout(u64::from(b as u32)),
        // KEYCTL_ASSUME_AUTHORITY
        16 if id(0) == 0 => {}
        16 => return Err(if id(0) < 0 { Errno::EINVAL } else { Errno::ENOKEY }),
        // KEYCTL_GET_SECURITY: no label.
        17 => {
            keys::get(id(0), false, need::VIEW)?;
            return Ok(Answer::Bytes(alloc::vec![0]));
        }
        // KEYCTL_INVALIDATE
        21 => {
            let found = keys::get(id(0), false, need::SEARCH)?;
            found.key.end(true);
        }
        // KEYCTL_GET_PERSISTENT
        22 => {
            let uid = if a as u32 == u32::MAX { creds.uid } else { a as u32 };
            if uid != creds.uid && uid != creds.euid && !creds.capable(cap::SETUID) {
                return Err(Errno::EPERM);
            }
            let to = keys::get(id(1), true, need::WRITE)?;
            let key = keys::persistent(uid)?;
            to.key.link(&key)?;
            return serial(&key);
        }
        // KEYCTL_MOVE
        30 => {
            if d as u32 & !1 != 0 {
                return Err(Errno::EINVAL);
            }
            let key = keys::get(id(0), true, need::LINK)?.key;
            let from = keys::get(id(1), false, need::WRITE)?.key;
            let to = keys::get(id(2), true, need::WRITE)?.key;
            if Arc::ptr_eq(&from, &to) {
                return Ok(Answer::Number(0));
            }
            to.link(&key)?;
            from.unlink(&key)?;
        }
        // KEYCTL_CAPABILITIES: itself, persistent keyrings, big keys; invalidation, moves.
        31 => {
            let known = [0xb3, 0];
            let mut out = alloc::vec![0; b.min(64)];
            for (to, from) in out.iter_mut().zip(known) {
                *to = from;
            }
            put_user_slice(a, &out)?;
            return Ok(Answer::Number(known.len()));
        }
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(Answer::Number(0))
}
