//! Keys and keyrings (keyrings(7)).
//!
//! One lock serves all operations ([`operate`]): they are rare, and keyrings hold each other. Keys are
//! counted references; a key that no keyring holds is gone.

mod find;

pub use find::{
    Found, add, get, join_session, lookup, may_request, persistent, request, search, set_default,
};

use crate::errno::{Errno, Result};
use crate::map::{Sorted, Tree};
use crate::sync::{Mutex, MutexGuard, SpinLock};
use crate::task::{Creds, current};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

/// Permissions, for one of possessor, user, group and others.
pub mod need {
    #![allow(missing_docs, reason = "the names are those of keyctl_setperm(3)")]
    pub const VIEW: u32 = 1;
    pub const READ: u32 = 2;
    pub const WRITE: u32 = 4;
    pub const SEARCH: u32 = 8;
    pub const LINK: u32 = 16;
    pub const SETATTR: u32 = 32;
}

const POSSESSOR_ALL: u32 = 0x3f00_0000;
const USER_VIEW: u32 = 0x1_0000;
const USER_READ: u32 = 0x2_0000;
const USER_LINK: u32 = 0x10_0000;
const USER_ALL: u32 = 0x3f_0000;
const POSSESSOR_SETATTR: u32 = 0x2000_0000;
const POSSESSOR_READ: u32 = 0x200_0000;

/// Keyrings within keyrings, at most.
const MAX_DEPTH: usize = 6;
/// What a link costs of a user's bytes.
const LINK_BYTES: usize = 4;
/// Keys that have expired are forgotten after so many seconds (`kernel.keys.gc_delay`).
pub static KEPT: AtomicI64 = AtomicI64::new(300);
/// A persistent keyring that nobody asks for ends, in seconds.
const PERSISTS: u64 = 259_200;

/// Most keys and bytes of a user, and of root (`kernel.keys.maxkeys`, ...).
pub static LIMITS: [AtomicI64; 4] = [
    AtomicI64::new(200),
    AtomicI64::new(20_000),
    AtomicI64::new(1_000_000),
    AtomicI64::new(25_000_000),
];

/// Most bytes that all big keys have together: Linux has them in memory that can be swapped.
const BIG_MOST: usize = 16 << 20;
static BIG: AtomicUsize = AtomicUsize::new(0);

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holds other keys.
    Keyring,
    /// Bytes for programs.
    User,
    /// Bytes for the kernel: not readable.
    Logon,
    /// Many bytes.
    Big,
}

impl Kind {
    /// The kind of a name. ENODEV if there is none.
    pub fn of(name: &[u8]) -> Result<Kind> {
        Ok(match name {
            b"keyring" => Kind::Keyring,
            b"user" => Kind::User,
            b"logon" => Kind::Logon,
            b"big_key" => Kind::Big,
            _ => return Err(Errno::ENODEV),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Keyring => "keyring",
            Kind::User => "user",
            Kind::Logon => "logon",
            Kind::Big => "big_key",
        }
    }

    fn check(self, description: &[u8], payload: &[u8]) -> Result<()> {
        let fits = match self {
            Kind::Keyring => payload.is_empty(),
            Kind::User | Kind::Logon => (1..=32767).contains(&payload.len()),
            Kind::Big => (1..=1024 * 1024).contains(&payload.len()),
        };
        // A service, a colon, what it is for.
        let named = self != Kind::Logon || description.iter().position(|&b| b == b':') > Some(0);
        if fits && named && !description.is_empty() { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

/// A key.
pub struct Key {
    serial: i32,
    kind: Kind,
    description: Vec<u8>,
    state: SpinLock<State>,
}

struct State {
    uid: u32,
    gid: u32,
    perm: u32,
    /// Charged to the owner.
    bytes: usize,
    payload: Vec<u8>,
    links: Vec<Arc<Key>>,
    revoked: bool,
    /// Invalidated: as if it weren't there.
    dead: bool,
    /// Monotonic nanoseconds; `u64::MAX`: never.
    expires: u64,
}

/// The keyrings of a task, which are part of its credentials.
#[derive(Clone, Default)]
pub struct Keyrings {
    thread: Option<Arc<Key>>,
    process: Option<Arc<Key>>,
    session: Option<Arc<Key>>,
    /// Where request_key(2) puts what it makes (`KEYCTL_SET_REQKEY_KEYRING`).
    default: i32,
}

impl Keyrings {
    fn serials(&self) -> [i32; 3] {
        [&self.thread, &self.process, &self.session].map(|key| key.as_ref().map_or(0, |k| k.serial))
    }

    /// Whether a new task gets others than its parent's.
    pub fn differ(&self, is_thread: bool) -> bool {
        self.thread.is_some() || !is_thread && self.process.is_some()
    }

    /// Those of a new task, or of one that runs a new program. A thread gets a keyring of its own if
    /// the one that makes it has one.
    pub fn inherited(&self, is_thread: bool) -> Keyrings {
        if !is_thread {
            return Keyrings { thread: None, process: None, ..self.clone() };
        }
        let thread = self.thread.as_ref().and_then(|_| find::thread_ring().ok());
        Keyrings { thread, ..self.clone() }
    }
}

impl PartialEq for Keyrings {
    fn eq(&self, other: &Keyrings) -> bool {
        self.serials() == other.serials()
    }
}

impl Eq for Keyrings {}

impl fmt::Debug for Keyrings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serials().fmt(f)
    }
}

#[derive(Default)]
struct User {
    keys: usize,
    bytes: usize,
    ring: Option<Arc<Key>>,
    session: Option<Arc<Key>>,
    persistent: Option<Arc<Key>>,
}

/// By serial number.
static KEYS: SpinLock<Tree<Weak<Key>>> = SpinLock::new(Tree::new());
static USERS: SpinLock<Sorted<u32, User>> = SpinLock::new(Sorted::new());
static OPERATIONS: Mutex<()> = Mutex::new(());

/// Keeps others out while keyrings are looked at and changed.
pub fn operate() -> MutexGuard<'static, ()> {
    OPERATIONS.lock()
}

/// Charges a user. EDQUOT beyond the limits.
fn charge(uid: u32, keys: usize, bytes: usize) -> Result<()> {
    let at = if uid == 0 { 2 } else { 0 };
    let limit = |at: usize| LIMITS[at].load(Relaxed).max(0) as usize;
    let mut users = USERS.lock();
    let user = users.get_or_insert_with(uid, User::default);
    if user.keys + keys > limit(at) || user.bytes + bytes > limit(at + 1) {
        return Err(Errno::EDQUOT);
    }
    user.keys += keys;
    user.bytes += bytes;
    Ok(())
}

fn release(uid: u32, keys: usize, bytes: usize) {
    if let Some(user) = USERS.lock().get_mut(&uid) {
        user.keys = user.keys.saturating_sub(keys);
        user.bytes = user.bytes.saturating_sub(bytes);
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        KEYS.lock().remove(self.serial as u128);
        let state = self.state.get_mut();
        let (uid, bytes, payload) = (state.uid, state.bytes, state.payload.len());
        release(uid, 1, bytes);
        self.shrunk(payload);
    }
}

impl Key {
    fn new(kind: Kind, description: &[u8], perm: u32, uid: u32, gid: u32) -> Result<Arc<Key>> {
        let bytes = description.len() + 1;
        charge(uid, 1, bytes)?;
        let state = State {
            uid,
            gid,
            perm,
            bytes,
            payload: Vec::new(),
            links: Vec::new(),
            revoked: false,
            dead: false,
            expires: u64::MAX,
        };
        let (description, mut keys) = (description.to_vec(), KEYS.lock());
        let serial = loop {
            let mut raw = [0; 4];
            crate::random::fill(&mut raw);
            let serial = i32::from_ne_bytes(raw) & i32::MAX;
            if serial > 2 && !keys.contains_key(serial as u128) {
                break serial;
            }
        };
        let key = Arc::new(Key { serial, kind, description, state: SpinLock::new(state) });
        keys.insert(serial as u128, Arc::downgrade(&key));
        Ok(key)
    }

    fn gone(&self) -> bool {
        let kept = KEPT.load(Relaxed).max(0) as u64;
        let state = self.state.lock();
        let end = state.expires.saturating_add(kept.saturating_mul(1_000_000_000));
        state.dead || end <= crate::arch::clock::now_ns()
    }

    /// EKEYREVOKED or EKEYEXPIRED for a key that is no longer good.
    pub fn valid(&self) -> Result<()> {
        let state = self.state.lock();
        if state.dead {
            return Err(Errno::ENOKEY);
        }
        if state.revoked {
            return Err(Errno::EKEYREVOKED);
        }
        let expired = state.expires <= crate::arch::clock::now_ns();
        if expired { Err(Errno::EKEYEXPIRED) } else { Ok(()) }
    }

    /// The number by which programs name it.
    pub fn serial(&self) -> i32 {
        self.serial
    }

    /// Whether the owner, a group or possession grants `wanted`.
    fn allows(&self, creds: &Creds, possessed: bool, wanted: u32) -> bool {
        let state = self.state.lock();
        let mut granted = if state.uid == creds.fsuid {
            state.perm >> 16
        } else if state.perm & 0x3f00 != 0 && creds.in_group(state.gid) {
            state.perm >> 8
        } else {
            state.perm
        };
        if possessed {
            granted |= state.perm >> 24;
        }
        granted & wanted == wanted
    }

    fn ring(&self) -> Result<&Key> {
        if self.kind == Kind::Keyring { Ok(self) } else { Err(Errno::ENOTDIR) }
    }

    /// What it holds. Keys that are gone are forgotten here.
    fn links(&self) -> Vec<Arc<Key>> {
        let all = self.state.lock().links.clone();
        let (gone, there): (Vec<_>, Vec<_>) = all.into_iter().partition(|key| key.gone());
        for key in gone {
            let _ = self.unlink(&key);
        }
        there
    }

    fn holds(&self, other: &Key, depth: usize) -> bool {
        depth <= MAX_DEPTH
            && self.links().iter().any(|key| {
                core::ptr::eq(&**key, other)
                    || key.kind == Kind::Keyring && key.holds(other, depth + 1)
            })
    }

    /// Whether who may search this keyring finds `other` in it, or is looking at it: possession.
    fn gives(&self, other: &Key, creds: &Creds, depth: usize) -> bool {
        self.allows(creds, true, need::SEARCH)
            && (core::ptr::eq(self, other)
                || depth <= MAX_DEPTH
                    && self.links().iter().any(|key| {
                        let same = core::ptr::eq(&**key, other);
                        (same || key.kind == Kind::Keyring) && key.gives(other, creds, depth + 1)
                    }))
    }

    /// Changes what it costs its owner.
    fn recharge(&self, less: usize, more: usize) -> Result<()> {
        let uid = self.state.lock().uid;
        charge(uid, 0, more)?;
        release(uid, 0, less);
        let mut state = self.state.lock();
        state.bytes = state.bytes + more - less;
        Ok(())
    }

    /// Adds a key, in place of one of the same kind and description. ENOTDIR if it isn't a keyring,
    /// EDEADLK if that would make a loop.
    pub fn link(&self, key: &Arc<Key>) -> Result<()> {
        self.ring()?;
        if key.kind == Kind::Keyring && (core::ptr::eq(self, &**key) || key.holds(self, 0)) {
            return Err(Errno::EDEADLK);
        }
        let links = self.links();
        let same = |old: &&Arc<Key>| old.kind == key.kind && old.description == key.description;
        let old = links.iter().find(same);
        if old.is_none() {
            self.recharge(0, LINK_BYTES)?;
        }
        let mut state = self.state.lock();
        match old.and_then(|old| state.links.iter_mut().find(|link| Arc::ptr_eq(link, old))) {
            // `links` keeps the old one until no lock is held.
            Some(link) => *link = key.clone(),
            None => state.links.push(key.clone()),
        }
        Ok(())
    }

    /// Takes a key out. ENOENT if it isn't there.
    pub fn unlink(&self, key: &Arc<Key>) -> Result<()> {
        self.ring()?;
        let mut state = self.state.lock();
        let at = state.links.iter().position(|link| Arc::ptr_eq(link, key)).ok_or(Errno::ENOENT)?;
        let removed = state.links.remove(at);
        drop(state);
        drop(removed);
        self.recharge(LINK_BYTES, 0)
    }

    /// Takes all keys out.
    pub fn clear(&self) -> Result<()> {
        self.ring()?;
        let all = core::mem::take(&mut self.state.lock().links);
        self.recharge(LINK_BYTES * all.len(), 0)
    }

    /// Sets the payload. EOPNOTSUPP for keyrings, EINVAL for a length that the kind doesn't take.
    pub fn update(&self, payload: Vec<u8>) -> Result<()> {
        if self.kind == Kind::Keyring {
            return Err(Errno::EOPNOTSUPP);
        }
        self.kind.check(&self.description, &payload)?;
        // The payload of a big key is kept elsewhere, so Linux charges a little for it.
        let cost = |len: usize| if self.kind == Kind::Big { len.min(16) } else { len };
        let (old, new) = (self.state.lock().payload.len(), payload.len());
        if self.kind == Kind::Big {
            // Operations come one after the other; what ends meanwhile makes room.
            if BIG.load(Relaxed) - old + new > BIG_MOST {
                return Err(Errno::EDQUOT);
            }
            BIG.fetch_add(new, Relaxed);
        }
        if let Err(error) = self.recharge(cost(old), cost(new)) {
            self.shrunk(new);
            return Err(error);
        }
        self.shrunk(old);
        let old = {
            let mut state = self.state.lock();
            state.expires = u64::MAX;
            core::mem::replace(&mut state.payload, payload)
        };
        drop(old);
        Ok(())
    }

    /// So many bytes of its payload are no more.
    fn shrunk(&self, bytes: usize) {
        if self.kind == Kind::Big {
            BIG.fetch_sub(bytes, Relaxed);
        }
    }

    /// What can be read of it: the payload, or the numbers of what it holds. EOPNOTSUPP if nothing.
    pub fn read(&self) -> Result<Vec<u8>> {
        match self.kind {
            Kind::Keyring => {
                Ok(self.links().iter().flat_map(|key| key.serial.to_ne_bytes()).collect())
            }
            Kind::Logon => Err(Errno::EOPNOTSUPP),
            _ => Ok(self.state.lock().payload.clone()),
        }
    }

    /// `type;uid;gid;perm;description`.
    pub fn describe(&self) -> Vec<u8> {
        let (uid, gid, perm) = {
            let state = self.state.lock();
            (state.uid, state.gid, state.perm)
        };
        let mut text = alloc::format!("{};{uid};{gid};{perm:08x};", self.kind.name()).into_bytes();
        text.extend_from_slice(&self.description);
        text
    }

    /// It is good for nothing any more, or (`dead`) isn't there.
    pub fn end(&self, dead: bool) {
        let mut state = self.state.lock();
        state.revoked |= !dead;
        state.dead |= dead;
    }

    /// Ends it after so many seconds; 0: never.
    pub fn set_timeout(&self, seconds: u64) {
        let at = crate::arch::clock::now_ns().saturating_add(seconds * 1_000_000_000);
        self.state.lock().expires = if seconds == 0 { u64::MAX } else { at };
    }

    /// Changes the permissions. EACCES for others than the owner and administrators.
    pub fn set_perm(&self, perm: u32, creds: &Creds) -> Result<()> {
        let mut state = self.state.lock();
        if !creds.capable(crate::task::creds::cap::SYS_ADMIN) && state.uid != creds.fsuid {
            return Err(Errno::EACCES);
        }
        state.perm = perm;
        Ok(())
    }

    /// Changes owner and group; `u32::MAX` leaves one. EACCES for what only administrators may do.
    pub fn chown(&self, uid: u32, gid: u32, creds: &Creds) -> Result<()> {
        let (old, old_gid, bytes) = {
            let state = self.state.lock();
            (state.uid, state.gid, state.bytes)
        };
        let uid = if uid == u32::MAX { old } else { uid };
        let gid = if gid == u32::MAX { old_gid } else { gid };
        let admin = creds.capable(crate::task::creds::cap::SYS_ADMIN);
        if !admin && (uid != old || gid != old_gid && !creds.in_group(gid)) {
            return Err(Errno::EACCES);
        }
        charge(uid, 1, bytes)?;
        release(old, 1, bytes);
        let mut state = self.state.lock();
        (state.uid, state.gid) = (uid, gid);
        Ok(())
    }
}

/// Every key.
pub fn all() -> Vec<Arc<Key>> {
    let weak: Vec<_> = KEYS.lock().values().cloned().collect();
    weak.into_iter().filter_map(|key| key.upgrade()).collect()
}

/// Users who have keys: id, keys, bytes, and the most of both (`/proc/key-users`).
pub fn users() -> Vec<(u32, [usize; 4])> {
    let limit = |at: usize| LIMITS[at].load(Relaxed).max(0) as usize;
    let users = USERS.lock();
    let there = users.iter().filter(|(_, user)| user.keys > 0);
    there
        .map(|(&uid, user)| {
            let at = if uid == 0 { 2 } else { 0 };
            (uid, [user.keys, user.bytes, limit(at), limit(at + 1)])
        })
        .collect()
}

/// Lines of `/proc/keys` for the keys that the caller may view.
pub fn list() -> Vec<u8> {
    use alloc::string::String;
    use core::fmt::Write;
    let _guard = operate();
    let creds = current().creds();
    let rings = find::searched(&creds);
    let mut out = Vec::new();
    for key in all() {
        let possessed = rings.iter().any(|ring| ring.gives(&key, &creds, 0));
        if !key.allows(&creds, possessed, need::VIEW) {
            continue;
        }
        let (state, mut line) = (key.state.lock(), String::new());
        let flags =
            ['I', if state.revoked { 'R' } else { '-' }, if state.dead { 'D' } else { '-' }];
        let left = state.expires.saturating_sub(crate::arch::clock::now_ns()) / 1_000_000_000;
        let left = match state.expires {
            u64::MAX => String::from("perm"),
            _ if left == 0 => String::from("expd"),
            _ => alloc::format!("{left}s"),
        };
        let (uid, gid, perm) = (state.uid, state.gid as i32, state.perm);
        // Writing to memory doesn't fail.
        let _ = write!(
            line,
            "{:08x} {}{}{}Q--- {:5} {left:>4} {perm:08x} {uid:5} {gid:5} {:<9} {}",
            key.serial,
            flags[0],
            flags[1],
            flags[2],
            Arc::strong_count(&key) - 1,
            key.kind.name(),
            String::from_utf8_lossy(&key.description)
        );
        let _ = match key.kind {
            Kind::Keyring if state.links.is_empty() => write!(line, ": empty"),
            Kind::Keyring => write!(line, ": {}", state.links.len()),
            _ => write!(line, ": {}", state.payload.len()),
        };
        drop(state);
        line.push('\n');
        out.extend_from_slice(line.as_bytes());
    }
    out
}
