//! Telling watchers of what happens to files (inotify(7)).
//!
//! Watches are kept in a table beside the inodes: while there are none, an event costs one load.

use super::inode::{Inode, identity, mode::*};
use super::{Dentry, File};
use crate::map::{Several, Tree};
use crate::sync::SpinLock;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use linux_raw_sys::general::*;

/// Hears of events on inodes it watches.
pub trait Watcher: Send + Sync {
    /// `watch` is the number it gave; `name` is set for events of a directory's entries.
    fn event(&self, watch: i32, mask: u32, cookie: u32, name: &[u8]);
}

struct Watch {
    watcher: Weak<dyn Watcher>,
    number: i32,
    mask: u32,
    /// Keeps the identity from being used again.
    _inode: Arc<dyn Inode>,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
/// By identity of the inode.
static WATCHES: SpinLock<Tree<Several<Watch>>> = SpinLock::new(Tree::new());

fn key(inode: &Arc<dyn Inode>) -> u128 {
    identity(inode) as u128
}

/// Lets `watcher` hear of `mask` on an inode, replacing an earlier watch of that number.
pub fn watch(inode: &Arc<dyn Inode>, watcher: &Arc<dyn Watcher>, number: i32, mask: u32) {
    let watch = Watch { watcher: Arc::downgrade(watcher), number, mask, _inode: inode.clone() };
    let mut table = WATCHES.lock();
    let list = table.get_or_insert_with(key(inode), Box::default);
    match list.iter_mut().find(|old| same(old, watcher, number)) {
        Some(old) => old.mask = mask,
        None => {
            list.push(watch);
            COUNT.fetch_add(1, Relaxed);
        }
    }
}

fn same(watch: &Watch, watcher: &Arc<dyn Watcher>, number: i32) -> bool {
    watch.number == number && core::ptr::addr_eq(watch.watcher.as_ptr(), Arc::as_ptr(watcher))
}

/// Ends a watch.
pub fn unwatch(inode: &Arc<dyn Inode>, watcher: &dyn Watcher, number: i32) {
    let key = key(inode);
    let removed = {
        let mut table = WATCHES.lock();
        let Some(list) = table.get_mut(key) else { return };
        let at = list.iter().position(|watch| {
            watch.number == number && core::ptr::addr_eq(watch.watcher.as_ptr(), watcher)
        });
        let removed = at.map(|at| list.swap_remove(at));
        if list.is_empty() {
            table.remove(key);
        }
        removed
    };
    COUNT.fetch_sub(usize::from(removed.is_some()), Relaxed);
    drop(removed);
}

/// Whether anybody watches anything.
fn watched() -> bool {
    COUNT.load(Relaxed) != 0
}

/// An event of an inode itself. `IN_EXCL_UNLINK` in the mask: not for watches that have it.
fn tell(inode: &Arc<dyn Inode>, mask: u32, cookie: u32, name: &[u8]) {
    let mut hearers = Vec::new();
    {
        let table = WATCHES.lock();
        let Some(list) = table.get(key(inode)) else { return };
        for watch in list.iter().filter(|watch| {
            watch.mask & mask & IN_ALL_EVENTS != 0 && watch.mask & mask & IN_EXCL_UNLINK == 0
        }) {
            hearers.push((watch.watcher.clone(), watch.number));
        }
    }
    for (watcher, number) in hearers {
        if let Some(watcher) = watcher.upgrade() {
            watcher.event(number, mask & !IN_EXCL_UNLINK, cookie, name);
        }
    }
}

fn dir_bit(inode: &Arc<dyn Inode>) -> u32 {
    if inode.access().mode & S_IFMT == S_IFDIR { IN_ISDIR } else { 0 }
}

/// An event of a directory's entry: `IN_CREATE`, `IN_DELETE`.
pub fn entry(dir: &Arc<dyn Inode>, mask: u32, name: &[u8], inode: &Arc<dyn Inode>) {
    if watched() {
        tell(dir, mask | dir_bit(inode), 0, name);
    }
}

/// A file lost a name; `IN_DELETE_SELF` if it was the last.
pub fn unlinked(dir: &Arc<dyn Inode>, name: &[u8], inode: &Arc<dyn Inode>) {
    if watched() {
        entry(dir, IN_DELETE, name, inode);
        // The count of links changed; that of a directory is nobody's business.
        if dir_bit(inode) == 0 {
            tell(inode, IN_ATTRIB, 0, b"");
        }
        if inode.metadata().nlink == 0 {
            tell(inode, IN_DELETE_SELF, 0, b"");
        }
    }
}

/// A name moved.
pub fn moved(old: (&Arc<dyn Inode>, &[u8]), new: (&Arc<dyn Inode>, &[u8]), inode: &Arc<dyn Inode>) {
    static COOKIE: AtomicU32 = AtomicU32::new(1);
    if watched() {
        let cookie = COOKIE.fetch_add(1, Relaxed);
        tell(old.0, IN_MOVED_FROM | dir_bit(inode), cookie, old.1);
        tell(new.0, IN_MOVED_TO | dir_bit(inode), cookie, new.1);
        tell(inode, IN_MOVE_SELF, 0, b"");
    }
}

/// An event of a named file: told to watchers of the file and of its directory.
pub fn named(dentry: &Arc<Dentry>, mask: u32) {
    if !watched() {
        return;
    }
    let Ok(inode) = dentry.inode() else { return };
    let mask = mask | dir_bit(inode);
    if let Ok(dir) = dentry.parent().inode()
        && !dentry.is_root()
    {
        let gone = if dentry.is_deleted() { IN_EXCL_UNLINK } else { 0 };
        tell(dir, mask | gone, 0, &dentry.name());
    }
    tell(inode, mask, 0, b"");
}

/// An event of an open file.
pub fn file(file: &File, mask: u32) {
    if watched()
        && let Some(path) = &file.path
        && file.flags() & O_PATH == 0
    {
        named(&path.dentry, mask);
    }
}
