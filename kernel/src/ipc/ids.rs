//! Objects by key and by id.

use super::{CREAT, Caller, EXCL, PRIVATE, Perm, READ};
use crate::errno::{Errno, Result};
use crate::map::Sorted;
use crate::setting::Setting;
use crate::sync::Mutex;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicI64, Ordering::Relaxed};

/// Slots whose ids differ by this number share an index, as in Linux (`IPCMNI`).
pub const MAX_IDS: i32 = 32768;
/// Most objects of a kind (`SEMMNI`, `MSGMNI`).
const LIMIT: i64 = 32000;

/// What has permissions.
pub trait Object {
    /// The present permissions.
    fn perm(&self) -> Perm;
}

struct Slot<T> {
    sequence: i32,
    object: Arc<T>,
}

/// Which ids new objects get.
pub struct Numbering {
    /// The id that the next object is to get, if it is to be had; -1 for any (`kernel.msg_next_id` and
    /// others).
    pub next: AtomicI64,
    sequence: AtomicI32,
}

impl Numbering {
    /// From the first id on.
    pub const fn new() -> Numbering {
        Numbering { next: AtomicI64::new(-1), sequence: AtomicI32::new(0) }
    }

    /// Slot and sequence number of a new object: the lowest free slot, if none is wished for. Sequence
    /// numbers make ids of removed objects invalid.
    pub fn place<V>(&self, slots: &Sorted<i32, V>) -> (i32, i32) {
        let wanted = i32::try_from(self.next.swap(-1, Relaxed)).ok().filter(|&id| id >= 0);
        match wanted.filter(|id| !slots.contains_key(&(id % MAX_IDS))) {
            Some(id) => (id % MAX_IDS, id / MAX_IDS),
            None => (slots.lowest_free(), self.sequence.fetch_add(1, Relaxed) & 0xffff),
        }
    }
}

impl Default for Numbering {
    fn default() -> Numbering {
        Numbering::new()
    }
}

/// All objects of one kind.
pub struct Ids<T> {
    table: Mutex<Sorted<i32, Slot<T>>>,
    /// Which ids they get.
    pub numbering: Numbering,
    /// Most that there may be (`kernel.msgmni` and others).
    pub limit: Setting,
}

/// The id of what is in a slot.
pub fn id_of(slot: i32, sequence: i32) -> i32 {
    sequence.wrapping_mul(MAX_IDS).wrapping_add(slot) & i32::MAX
}

impl<T: Object> Default for Ids<T> {
    fn default() -> Ids<T> {
        Ids::new()
    }
}

impl<T: Object> Ids<T> {
    /// None yet.
    pub const fn new() -> Ids<T> {
        Ids {
            table: Mutex::new(Sorted::new()),
            numbering: Numbering::new(),
            limit: Setting::new(LIMIT, 0, MAX_IDS as i64),
        }
    }

    /// Finds or makes the object of a key (semget(2), msgget(2)); its id. `found` checks an object
    /// that exists beyond its permissions.
    pub fn get(
        &self,
        key: i32,
        flags: u32,
        caller: &Caller<'_>,
        found: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce(Perm) -> Result<T>,
    ) -> Result<i32> {
        let mut table = self.table.lock();
        let old = match key {
            PRIVATE => None,
            _ => table.iter().find(|(_, slot)| slot.object.perm().key == key),
        };
        if let Some((&slot, old)) = old {
            if flags & (CREAT | EXCL) == CREAT | EXCL {
                return Err(Errno::EEXIST);
            }
            found(&old.object)?;
            old.object.perm().check(caller, flags >> 6 | flags >> 3 | flags)?;
            return Ok(id_of(slot, old.sequence));
        }
        if key != PRIVATE && flags & CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        let object = Arc::new(make(Perm::new(key, flags, caller))?);
        if table.len() >= self.limit.size() {
            return Err(Errno::ENOSPC);
        }
        let (slot, sequence) = self.numbering.place(&table);
        table.insert(slot, Slot { sequence, object });
        Ok(id_of(slot, sequence))
    }

    /// The object with an id: EINVAL if there is none there, EIDRM if it was replaced.
    pub fn find(&self, id: i32) -> Result<Arc<T>> {
        let table = self.table.lock();
        let slot = table.get(&(id % MAX_IDS)).filter(|_| id >= 0).ok_or(Errno::EINVAL)?;
        if id_of(id % MAX_IDS, slot.sequence) != id {
            return Err(Errno::EIDRM);
        }
        Ok(slot.object.clone())
    }

    /// The object in a slot and its id (`SEM_STAT`, `MSG_STAT`). The permissions are checked
    /// unless `any`. An id stands for its slot, as in Linux.
    pub fn at(&self, slot: i32, any: bool, caller: &Caller<'_>) -> Result<(i32, Arc<T>)> {
        let table = self.table.lock();
        let found = table.get(&(slot % MAX_IDS)).filter(|_| slot >= 0).ok_or(Errno::EINVAL)?;
        if !any {
            found.object.perm().check(caller, READ)?;
        }
        Ok((id_of(slot % MAX_IDS, found.sequence), found.object.clone()))
    }

    /// Takes an object out of the table, if the caller may.
    pub fn remove(&self, id: i32, caller: &Caller<'_>) -> Result<Arc<T>> {
        let object = self.find(id)?;
        object.perm().check_owner(caller)?;
        let removed = self.table.lock().remove(&(id % MAX_IDS));
        removed.map(|slot| slot.object).ok_or(Errno::EIDRM)
    }

    /// Every object with its id.
    pub fn list(&self) -> Vec<(i32, Arc<T>)> {
        let table = self.table.lock();
        table.iter().map(|(&at, s)| (id_of(at, s.sequence), s.object.clone())).collect()
    }

    /// The highest slot in use.
    pub fn highest(&self) -> i32 {
        self.table.lock().keys().next_back().copied().unwrap_or(0)
    }
}

/// The sequence number in an id.
pub fn sequence(id: i32) -> i32 {
    id / MAX_IDS
}
