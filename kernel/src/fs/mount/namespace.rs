//! Mount namespaces (mount_namespaces(7)): what processes see of the mounts.

use super::table::{MOUNTS, copy_in, in_tree, room, subtree, take_out, tell, vacated};
use super::{Mount, Path};
use crate::errno::{Errno, Result};
use crate::fs::FsContext;
use crate::sync::{Once, SpinLock};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A tree of mounts of its own.
pub struct Namespace {
    /// The mount at its root. Locked after the table of mounts.
    root: SpinLock<Arc<Mount>>,
    /// Which one it is, of those that there ever were.
    number: u64,
}

static FIRST: Once<Arc<Namespace>> = Once::new();

/// The namespace that the machine starts with. EBUSY if there is one.
pub(super) fn start(root: &Arc<Mount>) -> Result<()> {
    let first = Arc::new(Namespace { root: SpinLock::new(root.clone()), number: 0 });
    FIRST.set(first).map(|_| ()).map_err(|_| Errno::EBUSY)
}

/// The namespace of whoever runs; the first one for the kernel itself. `None` before there is one.
pub fn present() -> Option<Arc<Namespace>> {
    let task = crate::arch::cpu::current_task();
    let context = if task.is_null() { None } else { crate::task::current().try_fs() };
    context.map(|context| context.namespace().clone()).or_else(|| FIRST.get().cloned())
}

impl Namespace {
    /// 0 for the first one; no two have the same.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its root.
    pub fn top(&self) -> Path {
        let mount = self.root.lock().clone();
        let dentry = mount.root.clone();
        Path { mount, dentry }
    }

    /// Whether a mount without a place is its root.
    pub(super) fn has_root(&self, mount: &Arc<Mount>) -> bool {
        Arc::ptr_eq(&self.root.lock(), mount)
    }

    /// A copy, for `CLONE_NEWNS`: mounts are shared as they were, and the paths become those of the
    /// copies. ENOSPC if there are too many mounts.
    pub fn copy(&self, paths: &mut [Path]) -> Result<Arc<Namespace>> {
        let mut mounts = MOUNTS.lock();
        let root = self.root.lock().clone();
        room(&mounts, subtree(&mounts, &root).len())?;
        let pairs = copy_in(&mut mounts, &root, &root.root, true, true);
        for path in paths {
            if let Some((_, new)) = pairs.iter().find(|(old, _)| Arc::ptr_eq(old, &path.mount)) {
                *path = Path { mount: new.clone(), dentry: path.dentry.clone() };
            }
        }
        // The first pair is that of the roots.
        let new = pairs.first().map_or_else(|| root.clone(), |(_, new)| new.clone());
        mounts.push(new.clone());
        drop(mounts);
        // Beyond the numbers of the first ones of all kinds.
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        let number = NEXT.fetch_add(1, Relaxed);
        Ok(Arc::new(Namespace { root: SpinLock::new(new), number }))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut mounts = MOUNTS.lock();
        let gone = subtree(&mounts, self.root.get_mut());
        let places = take_out(&mut mounts, &gone);
        drop(mounts);
        drop((gone, places));
    }
}

/// pivot_root(2): `new` becomes what is at the root of `context`, and what was there moves to `old`.
/// EBUSY if either is on the root's mount, EINVAL if they are no mounts, or not below each other.
pub fn pivot(context: &FsContext, new: &Path, old: Path) -> Result<()> {
    let root = context.root();
    let mut mounts = MOUNTS.lock();
    let above = |mount: &Arc<Mount>| mount.at().is_some_and(|at| shared(&at.mount));
    if shared(&old.mount) || above(&new.mount) || above(&root.mount) {
        return Err(Errno::EINVAL);
    }
    if !in_tree(&root.mount) || !in_tree(&new.mount) {
        return Err(Errno::EINVAL);
    }
    if new.dentry.is_deleted() || old.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let same = |mount: &Arc<Mount>| Arc::ptr_eq(mount, &root.mount);
    if same(&new.mount) || same(&old.mount) {
        return Err(Errno::EBUSY);
    }
    let place = root.mount.at();
    let absolute = place.is_none();
    let Some(from) = new.mount.at() else { return Err(Errno::EINVAL) };
    if !root.is_mount_root()
        || !new.is_mount_root()
        || !reachable(&old, new)
        || !reachable(new, &root)
    {
        return Err(Errno::EINVAL);
    }
    *new.mount.at.lock() = place.clone();
    *root.mount.at.lock() = Some(old.clone());
    vacated(&mounts, &from);
    old.dentry.set_mounted(true);
    // Whoever looks for the topmost mount finds the one that came last.
    for mount in [&root.mount, &new.mount] {
        if let Some(at) = mounts.iter().position(|other| Arc::ptr_eq(other, mount)) {
            let mount = mounts.remove(at);
            mounts.push(mount);
        }
    }
    if absolute {
        let before = core::mem::replace(&mut *context.namespace().root.lock(), new.mount.clone());
        drop(mounts);
        drop(before);
    } else {
        drop(mounts);
    }
    tell();
    // Everybody who was at the root is at the new one.
    crate::fs::hooks::each_context(&|context| context.replace(&root, new));
    Ok(())
}

fn shared(mount: &Mount) -> bool {
    mount.propagation().group != 0
}

/// Whether a place lies at or below another.
fn reachable(place: &Path, top: &Path) -> bool {
    let mut at = place.clone();
    while !Arc::ptr_eq(&at.mount, &top.mount) {
        let Some(below) = at.mount.at() else { return false };
        at = below;
    }
    top.dentry.is_ancestor_of(&at.dentry)
}
