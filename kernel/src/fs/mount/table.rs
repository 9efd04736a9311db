//! The table of mounts: where they come into the tree, move, and leave it.

use super::{Flags, Mount, Path, Propagation, namespace, peers, present};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::fs::dcache::{self, Dentry};
use crate::fs::inode::FileSystem;
use crate::sync::{Mutex, Once, SpinLock, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

/// How many times the tree has changed, for those who watch /proc/PID/mounts.
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// Number of changes of the tree; it wraps.
pub fn changes() -> u32 {
    CHANGES.load(SeqCst)
}

/// Wakes whoever waits for the next change.
pub fn changed() -> &'static Arc<WaitQueue> {
    static QUEUE: Once<Arc<WaitQueue>> = Once::new();
    QUEUE.get_or_init(Arc::default)
}

pub(super) fn tell() {
    CHANGES.fetch_add(1, SeqCst);
    changed().wake_all(Events::ERR | Events::PRI);
}

/// All mounts that are in the tree or below another, in the order in which they came there. Few: a
/// linear search runs only below [`Dentry::is_mounted`]. Places are locked after it.
pub(super) static MOUNTS: SpinLock<Vec<Arc<Mount>>> = SpinLock::new(Vec::new());
static ROOT: Once<Path> = Once::new();

/// The most mounts in all namespaces together (`fs.mount-max`, which Linux has for each of them):
/// sharing doubles them with each call, and copying looks for each among all.
pub const MOST: usize = 2048;

/// ENOSPC unless there may be so many more mounts.
pub(super) fn room(mounts: &[Arc<Mount>], more: usize) -> Result<()> {
    if mounts.len().saturating_add(more) > MOST { Err(Errno::ENOSPC) } else { Ok(()) }
}

/// Mounts the root of the first namespace. EBUSY if there is one.
pub fn mount_root(fs: Arc<dyn FileSystem>, source: &str, flags: Flags) -> Result<Path> {
    let mount = Mount::detached(fs.clone(), Dentry::root(fs.root()), source, flags, flags);
    let path = Path::root_of(&mount);
    ROOT.set(path.clone()).map_err(|_| Errno::EBUSY)?;
    namespace::start(&mount)?;
    MOUNTS.lock().push(mount);
    Ok(path)
}

/// The root of the first namespace; `None` before [`mount_root`].
pub fn root() -> Option<&'static Path> {
    ROOT.get()
}

/// Mounts a new filesystem, whose root is `root`, on a directory.
pub fn mount_at(
    fs: Arc<dyn FileSystem>,
    root: Arc<Dentry>,
    at: Path,
    source: &str,
    flags: Flags,
) -> Result<()> {
    attach(&Mount::detached(fs, root, source, flags, flags), at)
}

/// Gives a mount without a place one. ENOTDIR if only one of the two is a directory, ENOENT if the
/// place was removed, EINVAL if it isn't in the tree, ENOSPC if there are too many.
pub fn attach(mount: &Arc<Mount>, at: Path) -> Result<()> {
    if mount.root.is_dir() != at.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    // What is one process's, and comes and goes with it, is no place for a mount.
    let passing = at.mount.fs.name() == "proc"
        && matches!(&*at.dentry.parent().name(), b"fd" | b"fdinfo" | b"map_files");
    if at.dentry.is_deleted() || passing {
        return Err(Errno::ENOENT);
    }
    let mut mounts = MOUNTS.lock();
    if !in_tree(&at.mount) {
        return Err(Errno::EINVAL);
    }
    room(&mounts, peers::copies(&mounts, mount, &at) + 1)?;
    mounts.push(mount.clone());
    place(&mut mounts, mount, at);
    drop(mounts);
    tell();
    Ok(())
}

/// Sets the place of a mount that the table has, and mounts it with that of the place's peers.
fn place(mounts: &mut Vec<Arc<Mount>>, mount: &Arc<Mount>, at: Path) {
    let at = descend_in(mounts, at);
    at.dentry.set_mounted(true);
    mount.held.store(false, Relaxed);
    *mount.at.lock() = Some(at.clone());
    peers::mounted(mounts, mount, &at);
}

/// Whether a mount is in the tree of whoever runs, or the root of it.
pub fn in_tree(mount: &Arc<Mount>) -> bool {
    let mut at = mount.clone();
    while let Some(below) = at.at() {
        at = below.mount;
    }
    present().is_some_and(|namespace| namespace.has_root(&at))
}

/// A mount and those below it, parents first.
pub(super) fn subtree(mounts: &[Arc<Mount>], top: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let mut found = alloc::vec![top.clone()];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        next += 1;
        found.extend(mounts.iter().filter(|mount| mount.is_on(&parent)).cloned());
    }
    found
}

/// A mount, and with `recursive` those below it.
fn these(mounts: &[Arc<Mount>], top: &Arc<Mount>, recursive: bool) -> Vec<Arc<Mount>> {
    if recursive { subtree(mounts, top) } else { alloc::vec![top.clone()] }
}

/// Clears and sets flags of mounts from one on, of all or none (mount_setattr(2)). EBUSY if one would
/// become read-only while files are written through it.
pub fn change_all(top: &Arc<Mount>, recursive: bool, clear: Flags, set: Flags) -> Result<()> {
    let mut done: Vec<(Arc<Mount>, Flags)> = Vec::new();
    let all = these(&MOUNTS.lock(), top, recursive);
    for mount in all {
        let old = mount.own_flags();
        if let Err(error) = mount.set_flags((old - clear) | set) {
            for (mount, old) in done {
                // Back to what it was, unless it is written through by now.
                let _ = mount.set_flags(old);
            }
            return Err(error);
        }
        done.push((mount, old));
    }
    Ok(())
}

/// Makes the mount at `to` a peer of that at `from` (`MOVE_MOUNT_SET_GROUP`). EINVAL unless they are
/// private and shared mounts of one filesystem, and what the first shows is within the second.
pub fn join_group(from: &Path, to: &Path) -> Result<()> {
    let mounts = MOUNTS.lock();
    let theirs = from.mount.propagation();
    let fits = from.is_mount_root()
        && to.is_mount_root()
        && in_tree(&from.mount)
        && in_tree(&to.mount)
        && Arc::ptr_eq(&from.mount.whole, &to.mount.whole)
        && from.mount.root.is_ancestor_of(&to.mount.root)
        && to.mount.propagation().group | to.mount.propagation().master == 0
        && theirs.group | theirs.master != 0;
    if !fits {
        return Err(Errno::EINVAL);
    }
    *to.mount.peers.lock() = theirs;
    drop(mounts);
    Ok(())
}

/// Another mount of what is at `from`, without a place; with what is mounted below it if
/// `recursive`. EINVAL if `from` isn't in the tree, or may not be bound, ENOSPC if there are too many.
pub fn copy(from: &Path, recursive: bool) -> Result<Arc<Mount>> {
    let mut mounts = MOUNTS.lock();
    if !in_tree(&from.mount) || from.mount.propagation().unbindable {
        return Err(Errno::EINVAL);
    }
    room(&mounts, these(&mounts, &from.mount, recursive).len())?;
    let pairs = copy_in(&mut mounts, &from.mount, &from.dentry, recursive, false);
    let (_, top) = pairs.first().ok_or(Errno::EINVAL)?;
    top.held.store(true, Relaxed);
    Ok(top.clone())
}

/// Copies a mount with another root, without a place, and those below it; unbindable ones only with
/// `all`. Returns pairs of old and new, those of the top first.
pub(super) fn copy_in(
    mounts: &mut Vec<Arc<Mount>>,
    from: &Arc<Mount>,
    root: &Arc<Dentry>,
    recursive: bool,
    all: bool,
) -> Vec<(Arc<Mount>, Arc<Mount>)> {
    let top = from.another(root.clone(), from.own_flags());
    let mut pairs = alloc::vec![(from.clone(), top.clone())];
    let mut next = 0;
    while let Some((old, new)) = pairs.get(next).cloned().filter(|_| recursive) {
        next += 1;
        let mut found = Vec::new();
        for mount in mounts.iter().filter(|mount| all || !mount.propagation().unbindable) {
            let place = mount.at.lock().as_ref().filter(|at| Arc::ptr_eq(&at.mount, &old)).cloned();
            if let Some(at) = place.filter(|at| new.root.is_ancestor_of(&at.dentry)) {
                let copy = mount.another(mount.root.clone(), mount.own_flags());
                *copy.at.lock() = Some(Path { mount: new.clone(), ..at });
                found.push((mount.clone(), copy));
            }
        }
        mounts.extend(found.iter().map(|(_, copy)| copy.clone()));
        pairs.extend(found);
    }
    pairs
}

/// Moves a mount from its place, or from the descriptor that holds it, to another (move_mount(2)), or
/// between the mount at `to` and what that is on (`beneath`). EINVAL if it can't be moved there, ELOOP
/// if that is below itself, ENOSPC if there are too many.
pub fn relocate(from: &Path, to: Path, beneath: bool) -> Result<()> {
    if !from.is_mount_root() || from.dentry.is_dir() != to.dentry.is_dir() {
        return Err(Errno::EINVAL);
    }
    if to.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let moved = &from.mount;
    let mut mounts = MOUNTS.lock();
    let old = moved.at();
    let movable = match &old {
        // What a shared mount has would have to leave its peers as well.
        Some(at) => in_tree(moved) && at.mount.propagation().group == 0,
        None => moved.held.load(Relaxed),
    };
    let top = to.mount.at().filter(|_| beneath && to.is_mount_root());
    if !movable || !in_tree(&to.mount) || beneath && top.is_none() {
        return Err(Errno::EINVAL);
    }
    let unbindable = |mount: &Arc<Mount>| mount.propagation().unbindable;
    if to.mount.propagation().group != 0 && subtree(&mounts, moved).iter().any(unbindable) {
        return Err(Errno::EINVAL);
    }
    let mut above = to.mount.clone();
    loop {
        if Arc::ptr_eq(&above, moved) {
            return Err(Errno::ELOOP);
        }
        let Some(at) = above.at() else { break };
        above = at.mount;
    }
    room(&mounts, peers::copies(&mounts, moved, top.as_ref().unwrap_or(&to)) + 1)?;
    match &old {
        Some(at) => {
            // The place is free before anything looks for it.
            drop(moved.at.lock().take());
            vacated(&mounts, at);
        }
        None => mounts.push(moved.clone()),
    }
    match top {
        Some(at) => {
            let above = to.mount;
            *above.at.lock() = None;
            place(&mut mounts, moved, at);
            moved.root.set_mounted(true);
            let old = above.at.lock().replace(Path::root_of(moved));
            drop(mounts);
            drop((above, old));
        }
        None => {
            place(&mut mounts, moved, to);
            drop(mounts);
        }
    }
    tell();
    Ok(())
}

/// After a mount left a place: whether there still is one on the entry.
pub(super) fn vacated(mounts: &[Arc<Mount>], at: &Path) {
    let still = |mount: &Arc<Mount>| {
        mount.at.lock().as_ref().is_some_and(|other| Arc::ptr_eq(&other.dentry, &at.dentry))
    };
    if !mounts.iter().any(still) {
        at.dentry.set_mounted(false);
    }
}

/// Takes mounts out of the table and out of their places. What is returned must be dropped without
/// the lock.
pub(super) fn take_out(mounts: &mut Vec<Arc<Mount>>, gone: &[Arc<Mount>]) -> Vec<Path> {
    let mut places = Vec::new();
    for mount in gone {
        mounts.retain(|other| !Arc::ptr_eq(other, mount));
        mount.held.store(false, Relaxed);
        *mount.peers.lock() = Propagation::default();
        if let Some(at) = mount.at.lock().take() {
            places.push(at);
        }
    }
    for at in &places {
        vacated(mounts, at);
    }
    places
}

/// How umount2(2) takes a mount away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// If nobody uses it.
    Idle,
    /// `MNT_EXPIRE`: if nobody has come there since it was asked for before.
    Expired,
    /// `MNT_DETACH`: out of the tree, with all below it, whoever uses it.
    Detach,
}

/// Takes a mount out of the tree. EINVAL if `path` isn't the root of one; EBUSY if something is
/// mounted below it, or if it is in use, unless it is to be detached; EAGAIN if it has not expired.
pub fn unmount(path: &Path, how: Unmount) -> Result<()> {
    let mount = &path.mount;
    let mut mounts = MOUNTS.lock();
    if !path.is_mount_root() || !in_tree(mount) {
        return Err(Errno::EINVAL);
    }
    let Some(at) = mount.at() else { return Err(Errno::EBUSY) };
    if how != Unmount::Detach {
        // References: the table's and the caller's path.
        if mounts.iter().any(|other| other.is_on(mount)) || Arc::strong_count(mount) > 2 {
            return Err(Errno::EBUSY);
        }
        // The caller has just come into it, too.
        if how == Unmount::Expired && mount.crossings.swap(1, Relaxed) != 2 {
            return Err(Errno::EAGAIN);
        }
    }
    let mut gone = subtree(&mounts, mount);
    peers::unmounted(&mounts, mount, &at, how == Unmount::Detach, &mut gone);
    let places = take_out(&mut mounts, &gone);
    drop(mounts);
    drop((gone, places));
    tell();
    Ok(())
}

/// The descriptor that held a tree is closed: unless a place has it now, it falls apart.
pub fn dissolve(top: &Arc<Mount>) {
    let mut mounts = MOUNTS.lock();
    if !top.held.load(Relaxed) {
        return;
    }
    let gone = subtree(&mounts, top);
    let places = take_out(&mut mounts, &gone);
    drop(mounts);
    drop((gone, places));
}

/// A descriptor holds this new mount from now on, until it gets a place.
pub fn hold(mount: &Mount) {
    mount.held.store(true, Relaxed);
}

/// Changes how mounts from one on are shared (mount(2): `MS_SHARED` and others).
pub fn propagate(top: &Arc<Mount>, recursive: bool, kind: u32) {
    let mounts = MOUNTS.lock();
    let all = these(&mounts, top, recursive);
    for mount in &all {
        peers::change(&mounts, mount, kind);
    }
    drop(mounts);
}

/// Follows mounts downwards: the root of what is mounted on `path`, if anything is.
pub fn descend(path: Path) -> Path {
    if path.dentry.is_mounted() { descend_in(&MOUNTS.lock(), path) } else { path }
}

pub(super) fn descend_in(mounts: &[Arc<Mount>], mut path: Path) -> Path {
    while path.dentry.is_mounted() {
        let on_top = mounts
            .iter()
            .rev()
            .find(|mount| mount.at.lock().as_ref().is_some_and(|at| at.same(&path)));
        let Some(mount) = on_top else { break };
        if mount.crossings.load(Relaxed) != 0 {
            mount.crossings.fetch_add(1, Relaxed);
        }
        path = Path::root_of(mount);
    }
    path
}

/// Every mount, for /proc.
pub fn list() -> Vec<Arc<Mount>> {
    MOUNTS.lock().clone()
}

/// Makes the changes of every filesystem durable (sync(2)); the last error counts.
pub fn sync_all() -> Result<()> {
    list().iter().map(|mount| mount.fs.sync()).fold(Ok(()), Result::and)
}

/// Before the machine goes off: every filesystem is brought to an end.
pub fn close_all() {
    for mount in list() {
        if let Err(error) = mount.fs.close() {
            crate::error!("{}: can't be brought to disk ({error:?})", mount.source);
        }
    }
}

/// Drops unused names of every filesystem.
pub fn sweep_names() {
    static SWEEPING: Mutex<()> = Mutex::new(());
    let Some(_guard) = SWEEPING.try_lock() else { return };
    for mount in list() {
        dcache::sweep(&mount.root);
    }
    dcache::swept();
}
