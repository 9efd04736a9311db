//! Signals for changes of directories (fcntl(2), `F_NOTIFY`).

use super::sigio::Teller;
use crate::errno::{Errno, Result};
use crate::fs::notify::{self, Watcher};
use crate::fs::{File, FileType, Inode};
use crate::sync::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use linux_raw_sys::general::*;

/// A description that is told of changes.
struct Listener {
    file: usize,
    inode: Arc<dyn Inode>,
    teller: Teller,
    /// `DN_*`
    mask: AtomicU32,
    /// Of the last name that moved away.
    cookie: AtomicU32,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LISTENERS: SpinLock<Vec<Arc<Listener>>> = SpinLock::new(Vec::new());

/// `F_NOTIFY`: adds to what a directory's description is told of. ENOTDIR for other files. A mask of 0
/// ends it.
pub fn set(file: &File, fd: i32, mask: u32) -> Result<()> {
    if mask & !DN_MULTISHOT == 0 {
        closed(file);
        return Ok(());
    }
    let inode = file.inode();
    if inode.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    let me = core::ptr::from_ref(file) as usize;
    let mut listeners = LISTENERS.lock();
    if let Some(known) = listeners.iter().find(|known| known.file == me) {
        known.mask.fetch_or(mask, Relaxed);
        return Ok(());
    }
    let listener = Arc::new(Listener {
        file: me,
        inode: inode.clone(),
        teller: file.sigio.teller(fd),
        mask: AtomicU32::new(mask),
        cookie: AtomicU32::new(0),
    });
    listeners.push(listener.clone());
    COUNT.store(listeners.len(), Relaxed);
    drop(listeners);
    let watcher: Arc<dyn Watcher> = listener;
    notify::watch(&inode, &watcher, 0, IN_ALL_EVENTS);
    Ok(())
}

/// The description is closed, or wants to hear no more.
pub fn closed(file: &File) {
    if COUNT.load(Relaxed) != 0 {
        remove(core::ptr::from_ref(file) as usize);
    }
}

fn remove(file: usize) {
    let mut listeners = LISTENERS.lock();
    let at = listeners.iter().position(|listener| listener.file == file);
    let removed = at.map(|at| listeners.swap_remove(at));
    COUNT.store(listeners.len(), Relaxed);
    drop(listeners);
    if let Some(listener) = removed {
        notify::unwatch(&listener.inode, &*listener, 0);
    }
}

impl Watcher for Listener {
    fn event(&self, _watch: i32, mask: u32, cookie: u32, _name: &[u8]) {
        let mut happened = 0;
        for (events, what) in [
            (IN_ACCESS, DN_ACCESS),
            (IN_MODIFY, DN_MODIFY),
            (IN_ATTRIB, DN_ATTRIB),
            (IN_CREATE | IN_MOVED_TO, DN_CREATE),
            (IN_DELETE | IN_MOVED_FROM, DN_DELETE),
        ] {
            if mask & events != 0 {
                happened |= what;
            }
        }
        // Away from here and to here: a name within the directory changed.
        if mask & IN_MOVED_FROM != 0 {
            self.cookie.store(cookie, Relaxed);
        } else if mask & IN_MOVED_TO != 0 && self.cookie.load(Relaxed) == cookie {
            happened |= DN_RENAME;
        }
        let wanted = self.mask.load(Relaxed);
        if wanted & happened == 0 {
            return;
        }
        self.teller.tell();
        if wanted & DN_MULTISHOT == 0 {
            remove(self.file);
        }
    }
}
