//! What a process sees of the namespace: its root and working directory, and its umask.

use super::Path;
use super::mount::Namespace;
use crate::errno::Result;
use crate::sync::SpinLock;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Root, working directory, umask and the namespace of these; shared by tasks made with `CLONE_FS`.
pub struct FsContext {
    namespace: Arc<Namespace>,
    root: SpinLock<Path>,
    cwd: SpinLock<Path>,
    umask: AtomicU32,
}

impl FsContext {
    /// A context for the first process.
    pub fn new(namespace: Arc<Namespace>, root: Path, cwd: Path, umask: u32) -> FsContext {
        FsContext {
            namespace,
            root: SpinLock::new(root),
            cwd: SpinLock::new(cwd),
            umask: AtomicU32::new(umask & 0o777),
        }
    }

    /// A copy, for clone(2) without `CLONE_FS` and unshare(2).
    pub fn fork(&self) -> FsContext {
        FsContext::new(self.namespace.clone(), self.root(), self.cwd(), self.umask())
    }

    /// A copy with a mount namespace of its own (`CLONE_NEWNS`). ENOSPC if there are too many mounts.
    pub fn fork_namespace(&self) -> Result<FsContext> {
        let mut paths = [self.root(), self.cwd()];
        let namespace = self.namespace.copy(&mut paths)?;
        let [root, cwd] = paths;
        Ok(FsContext::new(namespace, root, cwd, self.umask()))
    }

    /// The mount namespace.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// After pivot_root(2): who was at `old` is at `new`.
    pub fn replace(&self, old: &Path, new: &Path) {
        for slot in [&self.root, &self.cwd] {
            let mut at = slot.lock();
            if at.same(old) {
                let before = core::mem::replace(&mut *at, new.clone());
                drop(at);
                drop(before);
            }
        }
    }

    /// The root directory (chroot(2)).
    pub fn root(&self) -> Path {
        self.root.lock().clone()
    }

    /// The working directory.
    pub fn cwd(&self) -> Path {
        self.cwd.lock().clone()
    }

    /// Changes the root directory.
    pub fn set_root(&self, path: Path) {
        let old = core::mem::replace(&mut *self.root.lock(), path);
        drop(old);
    }

    /// Changes the working directory.
    pub fn set_cwd(&self, path: Path) {
        let old = core::mem::replace(&mut *self.cwd.lock(), path);
        drop(old);
    }

    /// Permission bits that new files don't get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Relaxed)
    }

    /// Sets the umask; returns the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Relaxed)
    }
}
