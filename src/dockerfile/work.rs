//! Where builds keep things, beside the layers in the store.
//!
//! ```text
//! build/index/<diff ID>    what is in a layer
//! build/steps/<key>        which layer a step made
//! build/cache/<id>/        RUN --mount=type=cache
//! build/trees/<boot>/...   base images unpacked, for RUN
//! build/work/<build>/      what one build needs while it runs
//! build/lock               shared by builds that run, taken alone to prune
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::Error;
use crate::lock::Lock;
use crate::source::Store;

/// The file that running builds hold a lock on.
pub const GATE: &str = "lock";

/// The directories.
#[derive(Debug)]
pub struct Workshop {
    /// `build` in the store.
    pub root: PathBuf,
    /// This build's own directory.
    pub own: PathBuf,
    /// Held as long as the build runs; a directory without a holder is left over.
    _lock: Lock,
    /// Held so that nothing is pruned meanwhile.
    _gate: Lock,
    next: AtomicU64,
}

impl Workshop {
    /// Makes the directories, and one for this build.
    ///
    /// # Errors
    /// If they can't be made.
    pub fn open(store: &Store) -> Result<Workshop, Error> {
        // Processes of the sandbox have other working directories.
        let root = std::path::absolute(store.root().join("build"))
            .map_err(|error| Error::io("find", store.root(), error))?;
        for dir in ["index", "steps", "cache", "trees", "work"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(|error| Error::io("create", &dir, error))?;
        }
        let path = root.join(GATE);
        let fail = |error| Error::io("lock", &path, error);
        let gate = File::create(&path).and_then(Lock::shared).map_err(fail)?;
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let own = root.join("work").join(format!("{}-{number}", std::process::id()));
            let fail = |error| Error::io("create", &own, error);
            match fs::create_dir(&own) {
                Ok(()) => {}
                // Left by a process that had the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(fail(error)),
            }
            // Locked before it has its name: whoever finds it free takes the build for a dead one.
            let unnamed = own.join("lock.new");
            let lock = File::create(&unnamed).and_then(Lock::alone).map_err(fail)?;
            fs::rename(&unnamed, own.join("lock")).map_err(fail)?;
            let next = AtomicU64::new(0);
            return Ok(Workshop { root, own, _lock: lock, _gate: gate, next });
        }
    }

    /// Where the indexes are.
    pub fn indexes(&self) -> PathBuf {
        self.root.join("index")
    }

    /// A new name in this build's directory.
    pub fn fresh(&self, kind: &str) -> PathBuf {
        self.own.join(format!("{kind}{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Directories of builds that ended without clearing up.
    pub fn left_over(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.root.join("work")) else { return Vec::new() };
        let abandoned = |dir: &PathBuf| {
            if *dir == self.own {
                return false;
            }
            // One without a lock file is being made now, unless it is old.
            match File::open(dir.join("lock")) {
                Ok(lock) => Lock::try_alone(lock).is_ok_and(|free| free.is_some()),
                Err(_) => is_old(dir),
            }
        };
        entries.flatten().map(|entry| entry.path()).filter(abandoned).collect()
    }
}

fn is_old(dir: &Path) -> bool {
    const AGE: std::time::Duration = std::time::Duration::from_secs(3600);
    let modified = fs::metadata(dir).and_then(|meta| meta.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > AGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_begins_is_not_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let begin = || {
            let mut shops = Vec::new();
            for _ in 0..100 {
                let shop = Workshop::open(&store).unwrap();
                assert_eq!(shop.left_over(), Vec::<PathBuf>::new());
                shops.push(shop);
            }
            shops
        };
        // None of them ends before all have begun.
        let mut shops: Vec<_> = std::thread::scope(|scope| {
            let others = [(); 3].map(|()| scope.spawn(begin));
            others.into_iter().flat_map(|other| other.join().unwrap()).collect()
        });
        let last = shops.pop().unwrap();
        drop(shops);
        assert_eq!(last.left_over().len(), 3 * 100 - 1);
    }
}
