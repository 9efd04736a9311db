//! How many of the kernel's objects exist, for `/proc/dock2uni/counters`.
//!
//! What a program used must be given back when it ends; these counters show whether it was.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Kinds of objects that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// Threads, the kernel's own among them.
    Tasks,
    /// Processes, zombies among them.
    Processes,
    /// Address spaces.
    Spaces,
    /// Open file descriptions.
    Files,
    /// Sockets with a description.
    Sockets,
    /// Names in the cache of directory entries.
    Names,
    /// Files of filesystems in memory.
    Inodes,
    /// Mounts, those without a place among them.
    Mounts,
}

/// What each kind is called, in the order of [`Kind`].
pub const NAMES: [&str; 8] =
    ["tasks", "processes", "address_spaces", "files", "sockets", "names", "inodes", "mounts"];

static COUNTS: [AtomicUsize; NAMES.len()] = [const { AtomicUsize::new(0) }; NAMES.len()];

/// A member of an object that is counted while it exists.
pub struct Live(Kind);

impl Live {
    /// One more.
    pub fn new(kind: Kind) -> Live {
        COUNTS[kind as usize].fetch_add(1, Relaxed);
        Live(kind)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        COUNTS[self.0 as usize].fetch_sub(1, Relaxed);
    }
}

/// How many there are of each kind.
pub fn counts() -> [usize; NAMES.len()] {
    core::array::from_fn(|kind| COUNTS[kind].load(Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_count_while_they_exist() {
        let before = counts()[Kind::Spaces as usize];
        let one = Live::new(Kind::Spaces);
        assert!(counts()[Kind::Spaces as usize] > before.saturating_sub(1));
        drop(one);
        assert_eq!(NAMES[Kind::Names as usize], "names");
    }
}
