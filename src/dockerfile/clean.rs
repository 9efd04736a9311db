//! What builds have left for those after them, and taking it away.
//!
//! All of it can be made again. Builds that run now may need it, so nothing goes while there is one:
//! each holds a shared lock on the workshop, and pruning an exclusive one.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::cancel::Cancel;
use super::error::Error;
use super::sandbox::{self, Job};
use super::work::GATE;
use crate::lock::Lock;
use crate::source::Store;
use crate::source::clean::{Item, Kind, Prune};

/// Everything of builds in the store.
///
/// # Errors
/// If a directory cannot be read.
pub fn items(store: &Store) -> Result<Vec<Item>, Error> {
    let root = store.root().join("build");
    let mut items = Vec::new();
    for (dir, kind) in [
        ("steps", Kind::BuildSteps),
        ("index", Kind::BuildSteps),
        ("cache", Kind::BuildCaches),
        ("work", Kind::BuildTrees),
    ] {
        for path in names(&root.join(dir))? {
            items.push(item(path, kind));
        }
    }
    // A directory and its lock for each image, in a directory for each boot.
    for boot in names(&root.join("trees"))? {
        for path in names(&boot)? {
            items.push(item(path, Kind::BuildTrees));
        }
    }
    Ok(items)
}

/// What pruning has done.
#[derive(Debug, Default)]
pub struct Pruned {
    /// What was removed, or would be.
    pub removed: Vec<Item>,
    /// Builds run now, so that nothing of theirs was touched.
    pub busy: bool,
}

/// Removes what builds have left; caches of `RUN --mount=type=cache` only with all the rest.
/// `program` starts the sandbox, which may remove files that belong to the users of its namespace.
///
/// # Errors
/// If a directory cannot be read or removed.
pub fn prune(
    store: &Store,
    what: Prune,
    dry_run: bool,
    program: &[PathBuf],
) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    let root = store.root().join("build");
    if !root.exists() {
        return Ok(pruned);
    }
    let gate = root.join(GATE);
    let lock = File::create(&gate).and_then(Lock::try_alone);
    let Some(_lock) = lock.map_err(|error| Error::io("lock", &gate, error))? else {
        pruned.busy = true;
        return Ok(pruned);
    };
    for item in items(store)? {
        let wanted = what.all || item.kind != Kind::BuildCaches;
        if wanted && item.age >= what.older_than {
            pruned.removed.push(item);
        }
    }
    if !dry_run {
        let paths = pruned.removed.iter().map(|item| item.path.clone()).collect();
        remove(paths, program)?;
    }
    Ok(pruned)
}

/// Removes files and directories, those of other users' IDs by way of the sandbox.
pub(super) fn remove(paths: Vec<PathBuf>, program: &[PathBuf]) -> Result<(), Error> {
    let gone = |path: &Path| {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.is_ok() || fs::symlink_metadata(path).is_err()
    };
    let left: Vec<PathBuf> = paths.into_iter().filter(|path| !gone(path)).collect();
    if left.is_empty() {
        return Ok(());
    }
    // In a directory that nobody else can name. Whoever clears up may have been told to stop; clearing
    // up goes on.
    let dir = tempfile::Builder::new().prefix("dock2uni-sweep-").tempdir();
    let dir = dir.map_err(|error| Error::io("create", &std::env::temp_dir(), error))?;
    let job = Job { remove: left, ..Job::default() };
    let file = dir.path().join("job.json");
    sandbox::perform(program, &job, &file, &Cancel::default(), None, &|_| {}).map(drop)
}

fn item(path: PathBuf, kind: Kind) -> Item {
    // The lock beside a tree says when it was used; a tree's own time is its image's.
    let lock = path.with_extension("lock");
    let used = fs::metadata(if lock.exists() { &lock } else { &path });
    let used = used.and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let age = SystemTime::now().duration_since(used).unwrap_or(Duration::ZERO);
    Item { size: size(&path), path, kind, age }
}

/// Bytes that a file or directory takes on the disk. What can't be looked at counts nothing.
fn size(path: &Path) -> u64 {
    let mut total = 0;
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        total += meta.blocks() * 512;
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path()));
        }
    }
    total
}

/// What is in a directory, which need not exist.
fn names(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| Error::io("read", dir, error))?,
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::super::work::Workshop;
    use super::*;

    #[test]
    fn builds_that_run_keep_what_they_need() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let all = Prune { all: true, older_than: Duration::ZERO };
        let some = Prune { all: false, older_than: Duration::ZERO };
        assert!(prune(&store, all, false, &[]).unwrap().removed.is_empty());
        let running = Workshop::open(&store).unwrap();
        let root = store.root().join("build");
        fs::write(root.join("steps/a"), "x").unwrap();
        fs::create_dir_all(root.join("trees/boot/b/c")).unwrap();
        fs::write(root.join("trees/boot/b/c/file"), vec![1; 10_000]).unwrap();
        fs::write(root.join("trees/boot/b.lock"), "").unwrap();
        fs::create_dir_all(root.join("cache/d")).unwrap();
        let pruned = prune(&store, all, false, &[]).unwrap();
        assert!(pruned.busy && pruned.removed.is_empty());
        let own = running.own.clone();
        drop(running);

        let young = Prune { all: true, older_than: Duration::from_secs(3600) };
        assert!(prune(&store, young, false, &[]).unwrap().removed.is_empty());
        let kinds = |pruned: &Pruned| -> Vec<Kind> {
            pruned.removed.iter().map(|item| item.kind).collect()
        };
        let would = prune(&store, some, true, &[]).unwrap();
        assert_eq!(would.removed.len(), 4, "{would:?}");
        assert!(would.removed.iter().map(|item| item.size).sum::<u64>() >= 10_000);
        let did = prune(&store, some, false, &[]).unwrap();
        assert_eq!(kinds(&did), kinds(&would));
        assert!(!own.exists() && !root.join("trees/boot/b").exists());
        assert!(root.join("cache/d").exists());
        assert_eq!(kinds(&prune(&store, all, false, &[]).unwrap()), [Kind::BuildCaches]);
    }
}
