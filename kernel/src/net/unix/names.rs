//! Who has which name, and who waits to be accepted.

use super::UnixSocket;
use crate::fs::Inode;
use crate::fs::inode::identity;
use crate::map::Sorted;
use crate::net::addr::UnixName;
use crate::sync::SpinLock;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

struct Names {
    abstracts: Sorted<Vec<u8>, Weak<UnixSocket>>,
    /// By identity of the inode, which the socket keeps alive.
    inodes: Sorted<usize, Weak<UnixSocket>>,
    /// Accept queues, by address of the listener.
    waiting: Sorted<usize, VecDeque<Arc<UnixSocket>>>,
    next_auto: u32,
}

static NAMES: SpinLock<Names> = SpinLock::new(Names {
    abstracts: Sorted::new(),
    inodes: Sorted::new(),
    waiting: Sorted::new(),
    next_auto: 0,
});

fn key(socket: &Arc<UnixSocket>) -> usize {
    Arc::as_ptr(socket).addr()
}

/// Takes an abstract name; false if somebody has it.
pub fn bind_abstract(name: &[u8], socket: &Arc<UnixSocket>) -> bool {
    let mut names = NAMES.lock();
    if names.abstracts.get(name).is_some_and(|old| old.strong_count() > 0) {
        return false;
    }
    names.abstracts.insert(name.to_vec(), Arc::downgrade(socket));
    true
}

/// Takes a free abstract name of five hexadecimal digits.
pub fn autobind(socket: &Arc<UnixSocket>) -> Option<Vec<u8>> {
    for _ in 0..1 << 20 {
        let number = {
            let mut names = NAMES.lock();
            names.next_auto = (names.next_auto + 1) & 0xf_ffff;
            names.next_auto
        };
        let name = alloc::format!("{number:05x}").into_bytes();
        if bind_abstract(&name, socket) {
            return Some(name);
        }
    }
    None
}

/// Ties a socket to a socket file.
pub fn bind_inode(inode: &Arc<dyn Inode>, socket: &Arc<UnixSocket>) {
    NAMES.lock().inodes.insert(identity(inode), Arc::downgrade(socket));
}

/// The socket of an abstract name.
pub fn find_abstract(name: &[u8]) -> Option<Arc<UnixSocket>> {
    NAMES.lock().abstracts.get(name)?.upgrade()
}

/// The socket of a socket file.
pub fn find_inode(inode: &Arc<dyn Inode>) -> Option<Arc<UnixSocket>> {
    NAMES.lock().inodes.get(&identity(inode))?.upgrade()
}

/// Gives a name back.
pub fn unbind(socket: &Arc<UnixSocket>, name: &UnixName, inode: Option<&Arc<dyn Inode>>) {
    let mut names = NAMES.lock();
    let is_ours = |other: Option<&Weak<UnixSocket>>| {
        other.is_some_and(|other| Weak::as_ptr(other) == Arc::as_ptr(socket))
    };
    if let UnixName::Abstract(name) = name
        && is_ours(names.abstracts.get(name))
    {
        names.abstracts.remove(name);
    }
    if let Some(inode) = inode
        && is_ours(names.inodes.get(&identity(inode)))
    {
        names.inodes.remove(&identity(inode));
    }
}

/// Puts a connection before a listener; false if that is closed.
pub fn enqueue(listener: &Arc<UnixSocket>, server: Arc<UnixSocket>) -> bool {
    let mut names = NAMES.lock();
    if !matches!(listener.state.lock().role, super::Role::Listening { .. }) {
        return false;
    }
    names.waiting.get_or_insert_with(key(listener), VecDeque::new).push_back(server);
    true
}

/// The connection that has waited longest.
pub fn dequeue(listener: &Arc<UnixSocket>) -> Option<Arc<UnixSocket>> {
    NAMES.lock().waiting.get_mut(&key(listener))?.pop_front()
}

/// Length of the accept queue.
pub fn waiting(listener: &Arc<UnixSocket>) -> usize {
    NAMES.lock().waiting.get(&key(listener)).map_or(0, VecDeque::len)
}

/// Removes the accept queue and returns what was in it.
pub fn close(listener: &Arc<UnixSocket>) -> VecDeque<Arc<UnixSocket>> {
    NAMES.lock().waiting.remove(&key(listener)).unwrap_or_default()
}

/// Sockets by the inode of the file that stands for them.
static FILES: SpinLock<Sorted<u64, Weak<UnixSocket>>> = SpinLock::new(Sorted::new());

/// A file stands for a socket.
pub fn register(ino: u64, socket: &Weak<UnixSocket>) {
    let old = FILES.lock().insert(ino, socket.clone());
    drop(old);
}

/// It is closed.
pub fn unregister(ino: u64) {
    let gone = FILES.lock().remove(&ino);
    drop(gone);
}

/// Every socket that a file stands for, and those that wait to be accepted.
pub fn all() -> Vec<Arc<UnixSocket>> {
    let mut all: Vec<_> = FILES.lock().values().filter_map(Weak::upgrade).collect();
    let names = NAMES.lock();
    all.extend(names.waiting.values().flatten().cloned());
    all
}
