//! The keyrings of tasks and users, and what is found in them.

use super::{
    KEYS, Key, Keyrings, Kind, MAX_DEPTH, PERSISTS, POSSESSOR_ALL, POSSESSOR_READ,
    POSSESSOR_SETATTR, USER_ALL, USER_LINK, USER_READ, USER_VIEW, USERS, User, all, need,
};
use crate::errno::{Errno, Result};
use crate::task::{Creds, current};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A key that was found, and whether the caller's keyrings hold it.
pub struct Found {
    /// The key.
    pub key: Arc<Key>,
    /// Held by the caller's keyrings.
    pub possessed: bool,
}

impl Found {
    /// EACCES if the caller may not do `wanted` with it.
    pub fn check(&self, creds: &Creds, wanted: u32) -> Result<()> {
        let allowed = self.key.allows(creds, self.possessed, wanted);
        if allowed { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// Gives the current task other keyrings.
fn install(change: impl FnOnce(&mut Keyrings)) {
    let mut creds = (*current().creds()).clone();
    change(&mut creds.keyrings);
    current().set_creds(creds);
}

fn new_ring(description: &[u8], perm: u32, creds: &Creds) -> Result<Arc<Key>> {
    Key::new(Kind::Keyring, description, perm, creds.fsuid, creds.fsgid)
}

/// A keyring for a thread of the caller's.
pub(super) fn thread_ring() -> Result<Arc<Key>> {
    new_ring(b"_tid", POSSESSOR_ALL | USER_VIEW, &current().creds())
}

/// The keyring of a user: its own, that of its sessions, or (`persistent`) the one that outlives them.
fn of_user(
    uid: u32,
    which: fn(&mut User) -> &mut Option<Arc<Key>>,
    name: &str,
) -> Result<Arc<Key>> {
    let known = USERS.lock().get_mut(&uid).and_then(|user| which(user).clone());
    if let Some(key) = known.filter(|key| key.valid().is_ok()) {
        return Ok(key);
    }
    let name = alloc::format!("{name}.{uid}");
    let perm = POSSESSOR_ALL & !POSSESSOR_SETATTR
        | if name.starts_with("_p") { USER_VIEW | USER_READ } else { USER_ALL };
    let key = Key::new(Kind::Keyring, name.as_bytes(), perm, uid, u32::MAX)?;
    let old = USERS.lock().get_mut(&uid).and_then(|user| which(user).replace(key.clone()));
    drop(old);
    Ok(key)
}

fn user_ring(uid: u32) -> Result<Arc<Key>> {
    of_user(uid, |user| &mut user.ring, "_uid")
}

fn user_session(uid: u32) -> Result<Arc<Key>> {
    let session = of_user(uid, |user| &mut user.session, "_uid_ses")?;
    session.link(&user_ring(uid)?)?;
    Ok(session)
}

/// `KEYCTL_GET_PERSISTENT`: the keyring of `uid` that outlives its sessions.
pub fn persistent(uid: u32) -> Result<Arc<Key>> {
    let key = of_user(uid, |user| &mut user.persistent, "_persistent")?;
    key.set_timeout(PERSISTS);
    Ok(key)
}

/// `KEYCTL_JOIN_SESSION_KEYRING`: a new session keyring, or the one of that name.
pub fn join_session(name: Option<&[u8]>) -> Result<Arc<Key>> {
    let creds = current().creds();
    let anonymous = POSSESSOR_ALL | USER_VIEW | USER_READ;
    let key = match name {
        None => new_ring(b"_ses", anonymous, &creds)?,
        Some(name) => {
            let named = |key: &Arc<Key>| key.kind == Kind::Keyring && key.description == name;
            let mut all: Vec<_> = all().into_iter().filter(named).collect();
            all.retain(|key| key.valid().is_ok() && key.allows(&creds, false, need::SEARCH));
            match all.into_iter().next() {
                Some(key) => key,
                None => new_ring(name, anonymous | USER_LINK, &creds)?,
            }
        }
    };
    install(|keyrings| keyrings.session = Some(key.clone()));
    Ok(key)
}

/// Keyrings that are searched, in order.
pub(super) fn searched(creds: &Creds) -> Vec<Arc<Key>> {
    let rings = &creds.keyrings;
    let session = rings.session.clone().or_else(|| user_session(creds.uid).ok());
    [rings.thread.clone(), rings.process.clone(), session].into_iter().flatten().collect()
}

/// The key that a number means, one of the special ones (`KEY_SPEC_THREAD_KEYRING`, ...) included.
/// `create`: makes keyrings of the task that aren't there. EINVAL for numbers that mean nothing,
/// ENOKEY if there is no such key.
pub fn lookup(id: i32, create: bool) -> Result<Found> {
    let creds = current().creds();
    let own = |have: &Option<Arc<Key>>, name: &[u8], set: fn(&mut Keyrings, Arc<Key>)| match have {
        Some(key) => Ok(key.clone()),
        None if create => {
            let key = new_ring(name, POSSESSOR_ALL | USER_VIEW, &creds)?;
            install(|keyrings| set(keyrings, key.clone()));
            Ok(key)
        }
        None => Err(Errno::ENOKEY),
    };
    let rings = &creds.keyrings;
    let key = match id {
        -1 => own(&rings.thread, b"_tid", |rings, key| rings.thread = Some(key))?,
        -2 => own(&rings.process, b"_pid", |rings, key| rings.process = Some(key))?,
        -3 => match &rings.session {
            Some(key) => key.clone(),
            None if create => join_session(None)?,
            None => {
                let key = user_session(creds.uid)?;
                install(|keyrings| keyrings.session = Some(key.clone()));
                key
            }
        },
        -4 => user_ring(creds.uid)?,
        -5 => user_session(creds.uid)?,
        -8 | -7 => return Err(Errno::ENOKEY),
        ..1 => return Err(Errno::EINVAL),
        id => {
            let weak = KEYS.lock().get(id as u128).cloned().ok_or(Errno::ENOKEY)?;
            let key = weak.upgrade().filter(|key| !key.gone()).ok_or(Errno::ENOKEY)?;
            let possessed = searched(&creds).iter().any(|ring| ring.gives(&key, &creds, 0));
            return Ok(Found { key, possessed });
        }
    };
    Ok(Found { key, possessed: true })
}

/// [`lookup`] of a key that is good, and with which the caller may do `wanted`.
pub fn get(id: i32, create: bool, wanted: u32) -> Result<Found> {
    let found = lookup(id, create)?;
    found.key.valid()?;
    found.check(&current().creds(), wanted)?;
    Ok(found)
}

/// Looks for a key in a keyring and those that it holds. ENOKEY, or what kept the best one from
/// being found.
pub fn search(ring: &Found, kind: Kind, description: &[u8]) -> Result<Arc<Key>> {
    let mut error = Errno::ENOKEY;
    let found = search_in(&ring.key, ring.possessed, (kind, description), &mut error, 0);
    found.ok_or(error)
}

fn search_in(
    ring: &Arc<Key>,
    possessed: bool,
    what: (Kind, &[u8]),
    error: &mut Errno,
    depth: usize,
) -> Option<Arc<Key>> {
    let creds = current().creds();
    if !ring.allows(&creds, possessed, need::SEARCH) {
        if depth == 0 {
            *error = Errno::EACCES;
        }
        return None;
    }
    let links = ring.links();
    let same = |key: &&Arc<Key>| key.kind == what.0 && key.description == what.1;
    for key in core::iter::once(ring).chain(&links).filter(same) {
        match key.valid() {
            Err(why) => *error = why,
            Ok(()) if !key.allows(&creds, possessed, need::SEARCH) => *error = Errno::EACCES,
            Ok(()) => return Some(key.clone()),
        }
    }
    if depth == MAX_DEPTH {
        return None;
    }
    let inner = links.iter().filter(|key| key.kind == Kind::Keyring && key.valid().is_ok());
    inner.into_iter().find_map(|key| search_in(key, possessed, what, error, depth + 1))
}

/// request_key(2) among what there is: in the caller's own keyrings.
pub fn request(kind: Kind, description: &[u8]) -> Result<Arc<Key>> {
    let mut outcome = None;
    for ring in searched(&current().creds()) {
        let mut error = Errno::ENOKEY;
        if let Some(key) = search_in(&ring, true, (kind, description), &mut error, 0) {
            return Ok(key);
        }
        // Keys that have expired are passed over here.
        if error == Errno::EKEYEXPIRED {
            error = Errno::ENOKEY;
        }
        // That one keyring doesn't have it says more than that another has one which is no good.
        outcome = outcome.filter(|&old| old == Errno::ENOKEY).or(Some(error));
    }
    Err(outcome.unwrap_or(Errno::ENOKEY))
}

/// Where request_key(2) would put a key that it makes: whether the caller may write there.
pub fn may_request() -> Result<()> {
    let creds = current().creds();
    let rings = &creds.keyrings;
    let chosen = match rings.default {
        default @ 1..=5 => lookup(-default, true)?.key,
        _ => searched(&creds).into_iter().next().ok_or(Errno::ENOKEY)?,
    };
    Found { key: chosen, possessed: true }.check(&creds, need::WRITE)
}

/// `KEYCTL_SET_REQKEY_KEYRING`: sets where; -1 changes nothing. Returns what it was.
pub fn set_default(default: i32) -> Result<i32> {
    let old = current().creds().keyrings.default;
    match default {
        -1 => return Ok(old),
        0 => {}
        1..=5 => drop(lookup(-default, default < 3)?),
        _ => return Err(Errno::EINVAL),
    }
    install(|keyrings| keyrings.default = default);
    Ok(old)
}

/// add_key(2): a new key in `ring`, or a new payload for the one that is there.
pub fn add(ring: &Found, kind: Kind, description: &[u8], payload: Vec<u8>) -> Result<Arc<Key>> {
    ring.key.ring()?;
    kind.check(description, &payload)?;
    let creds = current().creds();
    let links = ring.key.links();
    let old = links
        .iter()
        .find(|key| key.kind == kind && key.description == description && kind != Kind::Keyring);
    if let Some(old) = old.filter(|old| !old.state.lock().revoked) {
        Found { key: old.clone(), possessed: ring.possessed }.check(&creds, need::WRITE)?;
        old.update(payload)?;
        return Ok(old.clone());
    }
    let unreadable = if kind == Kind::Logon { POSSESSOR_READ } else { 0 };
    let perm = POSSESSOR_ALL & !unreadable | USER_VIEW;
    let key = Key::new(kind, description, perm, creds.fsuid, creds.fsgid)?;
    if kind != Kind::Keyring {
        key.update(payload)?;
    }
    ring.key.link(&key)?;
    Ok(key)
}
