//! All TCP end points of a stack: connections by their four-tuple, listeners by port, TIME_WAIT
//! tombstones.

use super::conn::Conn;
use super::listener::Listener;
use super::tcb::LastSegment;
use crate::bpf::Program;
use crate::errno::{Errno, Result};
use crate::map::{Several, Tree};
use crate::net::addr::{IpAddr, SocketAddr};
use crate::net::filter::choose;
use crate::net::settings;
use crate::sync::SpinLock;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashTable;

/// How long a closed connection's addresses rest (Linux: TCP_TIMEWAIT_LEN).
pub const TIME_WAIT: u64 = 60_000_000_000;
const SHARDS: usize = 32;
/// Room that an empty table keeps, in entries.
const SPARE: usize = 32;

/// The room that is enough for a table of `len` entries which has become much too large for them: a
/// flood of connections leaves nothing behind.
fn less_room(capacity: usize, len: usize) -> Option<usize> {
    (capacity > SPARE.max(8 * len)).then_some(2 * len)
}

/// A four-tuple in a form that hashes and compares fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    local: u128,
    remote: u128,
    ports: u32,
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Key {
    /// The key of a connection.
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Key {
        let ports = u32::from(local.port()) << 16 | u32::from(remote.port());
        Key { local: bits(local.ip()), remote: bits(remote.ip()), ports }
    }

    fn hash(&self, secret: u64) -> u64 {
        let mix = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b | 1);
            (product >> 64) as u64 ^ product as u64
        };
        let remote = mix(self.remote as u64 ^ secret, (self.remote >> 64) as u64 ^ !secret);
        let local = (self.local as u64).rotate_left(17) ^ (self.local >> 64) as u64;
        mix(remote ^ u64::from(self.ports) ^ secret.rotate_left(32), local ^ 0x9e37_79b9_7f4a_7c15)
    }
}

enum Entry {
    Conn(Arc<Conn>),
    Tomb(Tomb),
}

/// What is left of a connection in TIME_WAIT.
#[derive(Clone, Copy, Debug)]
pub struct Tomb {
    key: Key,
    /// What the peer last heard from us.
    pub last: LastSegment,
    /// When it was closed.
    pub since: u64,
}

impl Entry {
    fn key(&self) -> &Key {
        match self {
            Entry::Conn(conn) => &conn.key,
            Entry::Tomb(tomb) => &tomb.key,
        }
    }
}

/// What is known of a four-tuple.
pub enum Found {
    /// A connection.
    Conn(Arc<Conn>),
    /// A connection in TIME_WAIT.
    TimeWait(Tomb),
    /// Nothing.
    Nothing,
}

/// The tables.
pub struct Table {
    secret: u64,
    shards: [SpinLock<HashTable<Entry>>; SHARDS],
    tombs: SpinLock<VecDeque<(u64, Key)>>,
    listeners: SpinLock<Tree<Several<Arc<Listener>>>>,
}

impl Table {
    /// Empty tables, hashed with `secret` so that peers can't aim at one bucket.
    pub fn new(secret: u64) -> Table {
        Table {
            secret,
            shards: [const { SpinLock::new(HashTable::new()) }; SHARDS],
            tombs: SpinLock::new(VecDeque::new()),
            listeners: SpinLock::new(Tree::new()),
        }
    }

    fn shard(&self, hash: u64) -> &SpinLock<HashTable<Entry>> {
        // The table inside uses the low bits and the top seven.
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    /// An initial sequence number: a secret function of the addresses, and a clock (RFC 6528).
    pub fn initial(&self, key: &Key, now: u64) -> u32 {
        // A microsecond a step: further than anything that was sent before.
        (self.keyed(key, 1) as u32).wrapping_add((now / 1000) as u32)
    }

    /// A secret function of a four-tuple and `salt`.
    pub fn keyed(&self, key: &Key, salt: u64) -> u64 {
        let mixed = key.hash(self.secret ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        key.hash(mixed.rotate_left(23) ^ !self.secret)
    }

    /// Looks a four-tuple up.
    pub fn find(&self, key: &Key) -> Found {
        let hash = key.hash(self.secret);
        match self.shard(hash).lock().find(hash, |entry| entry.key() == key) {
            Some(Entry::Conn(conn)) => Found::Conn(conn.clone()),
            Some(Entry::Tomb(tomb)) => Found::TimeWait(*tomb),
            None => Found::Nothing,
        }
    }

    /// Adds a connection; replaces a tombstone of the same addresses. EADDRINUSE if there is a
    /// connection already.
    pub fn insert(&self, conn: &Arc<Conn>) -> Result<()> {
        let hash = conn.key.hash(self.secret);
        let mut shard = self.shard(hash).lock();
        match shard.find_mut(hash, |entry| *entry.key() == conn.key) {
            Some(Entry::Conn(_)) => Err(Errno::EADDRINUSE),
            Some(entry) => {
                *entry = Entry::Conn(conn.clone());
                Ok(())
            }
            None => {
                let secret = self.secret;
                shard.insert_unique(hash, Entry::Conn(conn.clone()), |entry| {
                    entry.key().hash(secret)
                });
                Ok(())
            }
        }
    }

    /// Forgets a connection.
    pub fn remove(&self, conn: &Arc<Conn>) {
        let hash = conn.key.hash(self.secret);
        let is_it = |entry: &Entry| matches!(entry, Entry::Conn(other) if Arc::ptr_eq(other, conn));
        self.take(hash, is_it);
    }

    /// Replaces a connection by a tombstone. Returns whether it is the only one.
    pub fn time_wait(&self, conn: &Arc<Conn>, last: LastSegment, now: u64) -> bool {
        let hash = conn.key.hash(self.secret);
        let is_it = |entry: &Entry| matches!(entry, Entry::Conn(other) if Arc::ptr_eq(other, conn));
        let old = self.shard(hash).lock().find_mut(hash, is_it).map(|entry| {
            core::mem::replace(entry, Entry::Tomb(Tomb { key: conn.key, last, since: now }))
        });
        if old.is_none() {
            return false;
        }
        let mut tombs = self.tombs.lock();
        tombs.push_back((now, conn.key));
        let first = tombs.len() == 1;
        let oldest =
            if tombs.len() > settings::TIME_WAITS.size() { tombs.pop_front() } else { None };
        drop(tombs);
        if let Some((since, key)) = oldest {
            self.bury_key(since, &key);
        }
        first
    }

    /// Removes a tombstone unless the addresses are in use again.
    pub fn bury(&self, tomb: &Tomb) {
        self.bury_key(tomb.since, &tomb.key);
    }

    fn bury_key(&self, since: u64, key: &Key) {
        let hash = key.hash(self.secret);
        let is_it = |entry: &Entry| matches!(entry, Entry::Tomb(tomb) if tomb.key == *key && tomb.since == since);
        self.take(hash, is_it);
    }

    /// Takes an entry out.
    fn take(&self, hash: u64, is_it: impl FnMut(&Entry) -> bool) -> Option<Entry> {
        let mut shard = self.shard(hash).lock();
        let (entry, _) = shard.find_entry(hash, is_it).ok()?.remove();
        if let Some(room) = less_room(shard.capacity(), shard.len()) {
            shard.shrink_to(room, |entry| entry.key().hash(self.secret));
        }
        Some(entry)
    }

    /// Removes the tombstones whose time is over.
    pub fn expire(&self, now: u64) {
        loop {
            let mut tombs = self.tombs.lock();
            let Some(&(since, key)) = tombs.front() else { return };
            if since + TIME_WAIT > now {
                return;
            }
            tombs.pop_front();
            if let Some(room) = less_room(tombs.capacity(), tombs.len()) {
                tombs.shrink_to(room);
            }
            drop(tombs);
            self.bury_key(since, &key);
        }
    }

    /// Number of tombstones.
    pub fn tombs(&self) -> usize {
        self.tombs.lock().len()
    }

    /// Number of connections.
    pub fn connections(&self) -> usize {
        let conns = |shard: &SpinLock<HashTable<Entry>>| {
            shard.lock().iter().filter(|entry| matches!(entry, Entry::Conn(_))).count()
        };
        self.shards.iter().map(conns).sum()
    }

    /// Every connection, for /proc/net/tcp.
    pub fn snapshot(&self) -> Vec<Arc<Conn>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for entry in shard.lock().iter() {
                if let Entry::Conn(conn) = entry {
                    all.push(conn.clone());
                }
            }
        }
        all
    }

    /// Every listener, for /proc/net/tcp.
    pub fn listeners(&self) -> Vec<Arc<Listener>> {
        self.listeners.lock().values().flat_map(|list| list.iter()).cloned().collect()
    }

    /// Adds a listener.
    pub fn listen(&self, listener: Arc<Listener>) {
        let port = u128::from(listener.local.port());
        let mut listeners = self.listeners.lock();
        let list = listeners.get_or_insert_with(port, Box::default);
        if let Some(other) = list.iter().find(|other| other.shares(&listener)) {
            listener.sharing.join(&other.sharing);
        }
        list.push(listener);
    }

    /// Replaces the program that chooses among those which share a port.
    pub fn set_selector(&self, listener: &Listener, selector: Option<Program>) {
        listener.sharing.selector.replace(selector);
        let listeners = self.listeners.lock();
        let port = u128::from(listener.local.port());
        let list = listeners.get(port).into_iter().flat_map(|list| list.iter());
        for other in list.filter(|other| other.shares(listener)) {
            other.sharing.join(&listener.sharing);
        }
    }

    /// Removes a listener.
    pub fn unlisten(&self, listener: &Arc<Listener>) {
        let port = u128::from(listener.local.port());
        let mut listeners = self.listeners.lock();
        if let Some(list) = listeners.get_mut(port) {
            list.retain(|other| !Arc::ptr_eq(other, listener));
            if list.is_empty() {
                listeners.remove(port);
            }
        }
    }

    /// The listener for a SYN: the most specific address first; among those that share it by
    /// `SO_REUSEPORT` one chosen by their program, which sees the `payload`, or by the peer's
    /// address, always the same.
    pub fn listener(&self, local: SocketAddr, key: &Key, payload: &[u8]) -> Option<Arc<Listener>> {
        let listeners = self.listeners.lock();
        let list = listeners.get(u128::from(local.port()))?;
        let best = list.iter().filter_map(|listener| listener.score(&local)).max()?;
        let mut among = list.iter().filter(|listener| listener.score(&local) == Some(best));
        let count = among.clone().count();
        let mut choice = 0;
        if count > 1 {
            let selector = among.clone().next()?.sharing.selector.get();
            choice = choose(selector, count, payload, key.hash(!self.secret));
        }
        among.nth(choice).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr};

    #[test]
    fn tables_give_memory_back_once_time_wait_is_over() {
        const MAX_TOMBS: usize = 16384;
        let table = Table::new(7);
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
        for number in 0..MAX_TOMBS as u32 {
            let peer = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
            let key = Key::new(local, SocketAddr::new(peer, 4000));
            let (hash, since) = (key.hash(table.secret), u64::from(number));
            let tomb = Entry::Tomb(Tomb { key, last: LastSegment::default(), since });
            let rehash = |entry: &Entry| entry.key().hash(table.secret);
            table.shard(hash).lock().insert_unique(hash, tomb, rehash);
            table.tombs.lock().push_back((since, key));
        }
        // All but the last hundred.
        table.expire(TIME_WAIT + MAX_TOMBS as u64 - 101);
        assert_eq!(table.tombs(), 100);
        let left: usize = table.shards.iter().map(|shard| shard.lock().len()).sum();
        assert_eq!(left, 100);
        let room: usize = table.shards.iter().map(|shard| shard.lock().capacity()).sum();
        assert!(room <= SHARDS * 2 * SPARE, "{room}");
        assert!(table.tombs.lock().capacity() <= 1000);
    }
}
