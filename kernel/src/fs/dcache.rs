//! Remembered names: the tree of directory entries that path walks run over.
//!
//! An entry's inode never changes: creating a file replaces a negative entry, removing one replaces
//! a positive entry. So a walk reads inodes without locks and takes one short lock a step, that of
//! the directory's table of children.
//!
//! The directory lock ([`Dentry::lock_dir`]) is held across every lookup that asks the filesystem
//! and every change, so table and filesystem agree. Lock order: two directories by address, then
//! table locks (never two).

use super::inode::{FileType, Inode};
use crate::errno::{Errno, Result};
use crate::live::{Kind, Live};
use crate::sync::{Mutex, MutexGuard, SpinLock};
use alloc::sync::Arc;
use core::hash::{BuildHasher, Hasher};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use hashbrown::HashMap;

/// Entries kept before unused ones are dropped.
const LIMIT: usize = 16 * 1024;

/// Something is mounted on it.
const MOUNTED: u32 = 1;
/// Walked over since the last sweep.
const USED: u32 = 2;
/// Not in its parent's table (removed, or of a directory whose names aren't remembered).
const UNHASHED: u32 = 4;

/// First of the bits for what was told of it.
const TOLD: u32 = 8;

/// A name in a directory.
pub struct Dentry {
    /// What it names; `None`: known not to exist.
    inode: Option<Arc<dyn Inode>>,
    kind: Option<FileType>,
    flags: AtomicU32,
    /// Open files that write to it.
    writers: AtomicU32,
    _live: Live,
    place: SpinLock<Place>,
    children: SpinLock<HashMap<Arc<[u8]>, Arc<Dentry>, NameHash>>,
    dir: Mutex<()>,
}

struct Place {
    /// `None` for the root of a filesystem.
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Number of entries above which a sweep is due.
static DUE: AtomicUsize = AtomicUsize::new(LIMIT);

impl Dentry {
    /// The root of a filesystem.
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::new(None, b"/", Some(inode), 0)
    }

    /// One more open file writes to it, or one less.
    pub fn count_writer(&self, more: bool) {
        match more {
            true => self.writers.fetch_add(1, Relaxed),
            false => self.writers.fetch_sub(1, Relaxed),
        };
    }

    /// Whether some open file writes to it.
    pub fn is_written(&self) -> bool {
        self.writers.load(Relaxed) > 0
    }

    /// An entry that no table holds: of files without a name, and below directories that don't
    /// remember names.
    pub fn detached(
        parent: Option<Arc<Dentry>>,
        name: &[u8],
        inode: Arc<dyn Inode>,
    ) -> Arc<Dentry> {
        Dentry::new(parent, name, Some(inode), UNHASHED)
    }

    fn new(
        parent: Option<Arc<Dentry>>,
        name: &[u8],
        inode: Option<Arc<dyn Inode>>,
        flags: u32,
    ) -> Arc<Dentry> {
        COUNT.fetch_add(1, Relaxed);
        Arc::new(Dentry {
            _live: Live::new(Kind::Names),
            kind: inode.as_ref().map(|inode| inode.file_type()),
            inode,
            flags: AtomicU32::new(flags),
            writers: AtomicU32::new(0),
            place: SpinLock::new(Place { parent, name: Arc::from(name) }),
            children: SpinLock::new(HashMap::with_hasher(NameHash)),
            dir: Mutex::new(()),
        })
    }

    /// What it names. ENOENT for a negative entry.
    pub fn inode(&self) -> Result<&Arc<dyn Inode>> {
        self.inode.as_ref().ok_or(Errno::ENOENT)
    }

    /// Type of what it names; `None` for a negative entry.
    pub fn kind(&self) -> Option<FileType> {
        self.kind
    }

    /// Whether it names a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Some(FileType::Directory)
    }

    /// Whether it is known not to exist.
    pub fn is_negative(&self) -> bool {
        self.inode.is_none()
    }

    /// The directory it is in; itself at the root of a filesystem.
    pub fn parent(self: &Arc<Self>) -> Arc<Dentry> {
        self.place.lock().parent.clone().unwrap_or_else(|| self.clone())
    }

    /// Whether it is the root of a filesystem.
    pub fn is_root(&self) -> bool {
        self.place.lock().parent.is_none()
    }

    /// Its name; `/` at the root of a filesystem.
    pub fn name(&self) -> Arc<[u8]> {
        self.place.lock().name.clone()
    }

    /// Whether its name was removed since (`(deleted)` in /proc).
    pub fn is_deleted(&self) -> bool {
        self.flags.load(Relaxed) & UNHASHED != 0
            && self.place.lock().parent.as_ref().is_none_or(|parent| {
                parent.inode.as_ref().is_some_and(|inode| inode.remember_names())
            })
    }

    /// Whether something is mounted on it.
    pub fn is_mounted(&self) -> bool {
        self.flags.load(Relaxed) & MOUNTED != 0
    }

    /// Says whether something is mounted on it.
    pub fn set_mounted(&self, mounted: bool) {
        if mounted {
            self.flags.fetch_or(MOUNTED, Relaxed);
        } else {
            self.flags.fetch_and(!MOUNTED, Relaxed);
        }
    }

    /// Whether `self` is `other` or an ancestor of it.
    pub fn is_ancestor_of(self: &Arc<Self>, other: &Arc<Dentry>) -> bool {
        let mut at = other.clone();
        loop {
            if Arc::ptr_eq(self, &at) {
                return true;
            }
            if at.is_root() {
                return false;
            }
            at = at.parent();
        }
    }

    /// Whether this is the first time that something of this weight (below 8) is told of the entry.
    pub fn tell(&self, weight: u32) -> bool {
        let bit = 1 << (TOLD + weight);
        self.flags.load(Relaxed) & bit == 0 && self.flags.fetch_or(bit, Relaxed) & bit == 0
    }

    /// Locks the directory against lookups that ask the filesystem and against changes.
    pub fn lock_dir(&self) -> MutexGuard<'_, ()> {
        self.dir.lock()
    }

    /// A remembered child, negative or not.
    pub fn cached_child(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        let child = self.children.lock().get(name)?.clone();
        if child.flags.load(Relaxed) & USED == 0 {
            child.flags.fetch_or(USED, Relaxed);
        }
        Some(child)
    }

    /// The child of that name, negative if there is none. `self` is a directory.
    pub fn child(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Dentry>> {
        if let Some(child) = self.cached_child(name) {
            return Ok(child);
        }
        let _guard = self.lock_dir();
        self.child_locked(name)
    }

    /// As [`child`](Dentry::child), with the directory lock held by the caller.
    pub fn child_locked(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Dentry>> {
        if let Some(child) = self.cached_child(name) {
            return Ok(child);
        }
        let dir = self.inode()?;
        let inode = match dir.lookup(name) {
            Ok(inode) => Some(inode),
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(error),
        };
        // Nothing is remembered below what nobody can find any more: entry and directory would keep each
        // other.
        if !dir.remember_names() || self.flags.load(Relaxed) & UNHASHED != 0 {
            return Ok(Dentry::new(Some(self.clone()), name, inode, UNHASHED));
        }
        Ok(self.remember(name, inode))
    }

    /// Puts an entry into the table, replacing one of that name. Directory lock held.
    pub fn remember(self: &Arc<Self>, name: &[u8], inode: Option<Arc<dyn Inode>>) -> Arc<Dentry> {
        let child = Dentry::new(Some(self.clone()), name, inode, USED);
        let key = child.name();
        let old = self.children.lock().insert(key, child.clone());
        if let Some(old) = old {
            old.flags.fetch_or(UNHASHED, Relaxed);
        }
        child
    }

    /// After a removal: the name is known not to exist. Directory lock held.
    pub fn forget(self: &Arc<Self>, name: &[u8]) {
        // Removed trees shouldn't leave a table full of absences behind: only names still in use
        // are worth it.
        let old = self.children.lock().remove(name);
        if let Some(old) = old {
            old.flags.fetch_or(UNHASHED, Relaxed);
            old.prune();
        }
    }

    /// Forgets all names below: of a directory that is out of the tree. A directory's table keeps its
    /// entries, and each entry its directory, so otherwise none of them would ever go.
    pub fn prune(self: &Arc<Self>) {
        let mut all = alloc::vec![self.clone()];
        while let Some(dentry) = all.pop() {
            let mut table = dentry.children.lock();
            let children = core::mem::replace(&mut *table, HashMap::with_hasher(NameHash));
            drop(table);
            for child in children.into_values() {
                child.flags.fetch_or(UNHASHED, Relaxed);
                all.push(child);
            }
        }
    }

    /// After a rename: moves the entry. Both directory locks held.
    pub fn moved(self: &Arc<Self>, name: &[u8], to: &Arc<Dentry>, new_name: &[u8]) {
        let Some(child) = self.children.lock().remove(name) else { return };
        let replaced = {
            let key: Arc<[u8]> = Arc::from(new_name);
            {
                let mut place = child.place.lock();
                place.parent = Some(to.clone());
                place.name = key.clone();
            }
            to.children.lock().insert(key, child)
        };
        if let Some(replaced) = replaced {
            replaced.flags.fetch_or(UNHASHED, Relaxed);
            replaced.prune();
        }
    }

    /// After an exchange: swaps two entries. Both directory locks held.
    pub fn exchanged(self: &Arc<Self>, name: &[u8], to: &Arc<Dentry>, other: &[u8]) {
        let one = self.children.lock().remove(name);
        let two = to.children.lock().remove(other);
        for (child, dir, name) in [(one, to, other), (two, self, name)] {
            let Some(child) = child else { continue };
            let key: Arc<[u8]> = Arc::from(name);
            {
                let mut place = child.place.lock();
                place.parent = Some(dir.clone());
                place.name = key.clone();
            }
            dir.children.lock().insert(key, child);
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Relaxed);
        // A deep chain of parents, each kept only by its child, must not recurse down the kernel
        // stack.
        let mut next = self.place.get_mut().parent.take();
        while let Some(mut parent) = next.and_then(Arc::into_inner) {
            next = parent.place.get_mut().parent.take();
        }
    }
}

/// Number of entries.
pub fn count() -> usize {
    COUNT.load(Relaxed)
}

/// Drops entries below `root` that nobody uses; those walked over since the last sweep stay for the
/// next. No directory lock may be held by the caller.
pub fn sweep(root: &Arc<Dentry>) {
    // Ancestors come before descendants here, so going backwards leaves parents childless in time.
    let mut all = alloc::vec![root.clone()];
    let mut next = 0;
    while let Some(dentry) = all.get(next).cloned() {
        next += 1;
        let table = dentry.children.lock();
        if all.try_reserve(table.len()).is_err() {
            break;
        }
        all.extend(table.values().cloned());
    }
    while let Some(dentry) = all.pop() {
        let used = dentry.flags.fetch_and(!USED, Relaxed) & USED != 0;
        if used || dentry.is_root() || dentry.is_mounted() {
            continue;
        }
        let parent = dentry.parent();
        let Some(_guard) = parent.dir.try_lock() else { continue };
        let name = dentry.name();
        let mut table = parent.children.lock();
        // Two references: the table's and ours. Children of the entry would refer to it, too.
        let unused = Arc::strong_count(&dentry) == 2
            && table.get(&name).is_some_and(|entry| Arc::ptr_eq(entry, &dentry));
        let removed = if unused { table.remove(&name) } else { None };
        drop(table);
        if let Some(removed) = removed {
            removed.flags.fetch_or(UNHASHED, Relaxed);
        }
    }
}

/// The first remembered entry below `root`, or that itself, whose inode is the wanted one.
pub fn find(root: &Arc<Dentry>, wanted: &dyn Fn(&Arc<dyn Inode>) -> bool) -> Option<Arc<Dentry>> {
    let mut all = alloc::vec![root.clone()];
    while let Some(dentry) = all.pop() {
        if dentry.inode.as_ref().is_some_and(wanted) {
            return Some(dentry);
        }
        let table = dentry.children.lock();
        all.try_reserve(table.len()).ok()?;
        all.extend(table.values().cloned());
    }
    None
}

/// Whether a sweep is due. Entries that a sweep couldn't drop don't make the next one due at once.
pub fn crowded() -> bool {
    COUNT.load(Relaxed) > DUE.load(Relaxed)
}

/// Notes the end of a sweep.
pub fn swept() {
    DUE.store(LIMIT.max(COUNT.load(Relaxed) + LIMIT / 4), Relaxed);
}

static SEED: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);

/// Keys the hash of names, so that nobody can choose names that collide. Called once, before the
/// first mount.
pub fn seed(random: u64) {
    SEED.store(random | 1, Relaxed);
}

/// A fast hash for names, keyed at boot.
#[derive(Clone, Copy, Default)]
pub struct NameHash;

impl BuildHasher for NameHash {
    type Hasher = NameHasher;
    fn build_hasher(&self) -> NameHasher {
        NameHasher(SEED.load(Relaxed))
    }
}

/// Folds eight bytes at a time by a widening multiplication.
pub struct NameHasher(u64);

impl NameHasher {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9fb2_1c65_1e98_df25_u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64).rotate_left(7);
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let len = bytes.len();
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            // The chunk has exactly eight bytes, so the fallback is never taken.
            self.fold(u64::from_le_bytes(word.try_into().unwrap_or_default()));
        }
        // The rest: the last eight bytes (overlapping what was folded), or two halves that may
        // overlap.
        let rest =
            match (bytes.last_chunk::<8>(), bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
                (Some(last), ..) if !len.is_multiple_of(8) => u64::from_le_bytes(*last),
                (None, Some(first), Some(last)) => {
                    u64::from(u32::from_le_bytes(*first))
                        | u64::from(u32::from_le_bytes(*last)) << 32
                }
                (None, None, _) => bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)),
                _ => 0,
            };
        self.fold(rest ^ (len as u64) << 56);
    }
    fn write_usize(&mut self, _len: usize) {
        // The length prefix of a slice: `write` mixes it in.
    }
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
