//! What the store holds, and taking out of it what nobody needs.
//!
//! Everything in the store can be had again, so removing too much costs time and nothing else. Files
//! in use stay readable for those who have opened them, and what is young is left alone: a conversion
//! that runs now may be about to open it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::digest::Digest;
use super::error::Error;
use super::manifest::MAX_DOCUMENT;
use super::store::Store;

/// A kind of files in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Blobs that a remembered reference leads to.
    Referenced,
    /// Blobs that none leads to.
    Unreferenced,
    /// Downloads that broke off.
    Unfinished,
    /// Root filesystems that `run` made.
    Roots,
    /// Disk images that `run` made.
    Images,
    /// Which layers the steps of builds made, and what is in layers.
    BuildSteps,
    /// Images that builds have unpacked for RUN.
    BuildTrees,
    /// Caches of `RUN --mount=type=cache`.
    BuildCaches,
}

/// A file in the store.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Bytes that it takes on the disk.
    pub size: u64,
    /// Time since it was written.
    pub age: Duration,
}

/// All files in the store.
///
/// # Errors
/// If a directory cannot be read.
pub fn items(store: &Store) -> Result<Vec<Item>, Error> {
    let live = referenced(store)?;
    let mut items = Vec::new();
    let mut add = |dir: &str, kind: &dyn Fn(&str) -> Kind| -> Result<(), Error> {
        for path in files(&store.root().join(dir))? {
            let Ok(meta) = fs::metadata(&path) else { continue };
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let written = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let age = SystemTime::now().duration_since(written).unwrap_or_default();
            use std::os::unix::fs::MetadataExt as _;
            items.push(Item { kind: kind(name), size: meta.blocks() * 512, age, path });
        }
        Ok(())
    };
    add("blobs/sha256", &|name| {
        let live = Digest::from_hex(name).is_ok_and(|digest| live.contains(&digest));
        if live { Kind::Referenced } else { Kind::Unreferenced }
    })?;
    add("staging", &|_| Kind::Unfinished)?;
    add("roots", &|_| Kind::Roots)?;
    add("images", &|_| Kind::Images)?;
    Ok(items)
}

/// What to remove.
#[derive(Clone, Copy, Debug)]
pub struct Prune {
    /// Blobs in use by remembered references as well, and the references.
    pub all: bool,
    /// Only what was written at least so long ago.
    pub older_than: Duration,
}

/// Removes files and returns those that were removed.
///
/// # Errors
/// If a directory cannot be read or a file cannot be removed.
pub fn prune(store: &Store, what: Prune, dry_run: bool) -> Result<Vec<Item>, Error> {
    let mut removed = Vec::new();
    for item in items(store)? {
        let wanted = what.all || item.kind != Kind::Referenced;
        if !wanted || item.age < what.older_than || busy(&item) {
            continue;
        }
        if !dry_run {
            remove(&item.path)?;
        }
        removed.push(item);
    }
    if what.all && !dry_run {
        for path in files(&store.root().join("refs"))? {
            remove(&path)?;
        }
    }
    Ok(removed)
}

/// Whether somebody is writing a part.
fn busy(item: &Item) -> bool {
    item.kind == Kind::Unfinished
        && fs::File::open(&item.path).is_ok_and(|file| file.try_lock().is_err())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// The regular files of a directory, which need not exist.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| Error::io("read", dir, error))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("read", dir, error))?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Blobs that remembered references lead to: manifests, and all that they name.
fn referenced(store: &Store) -> Result<HashSet<Digest>, Error> {
    let mut live = HashSet::new();
    let mut left = Vec::new();
    for path in files(&store.root().join("refs"))? {
        let text = fs::read_to_string(&path).unwrap_or_default();
        // The digest, and the name for which it stands.
        let digest = text.split_whitespace().next().unwrap_or_default();
        left.extend(digest.parse::<Digest>().ok());
    }
    while let Some(digest) = left.pop() {
        let path = store.blob_path(&digest);
        if !live.insert(digest) || fs::metadata(&path).map_or(u64::MAX, |m| m.len()) > MAX_DOCUMENT
        {
            continue;
        }
        // Layers are no JSON, and name nothing.
        let bytes = fs::read(&path).unwrap_or_default();
        if let Ok(document) = serde_json::from_slice::<Value>(&bytes) {
            digests(&document, &mut left);
        }
    }
    Ok(live)
}

fn digests(value: &Value, found: &mut Vec<Digest>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "digest" => found.extend(text.parse::<Digest>().ok()),
                    _ => digests(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| digests(value, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_references_lead_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let put = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            fs::write(store.blob_path(&digest), bytes).unwrap();
            digest
        };
        let (layer, other) = (put(b"layer"), put(b"other"));
        let manifest = put(format!(r#"{{"layers":[{{"digest":"{layer}"}}]}}"#).as_bytes());
        store.set_reference("r.io/app:1", &manifest).unwrap();
        fs::write(dir.path().join("staging/y.part"), "part").unwrap();
        let held = fs::File::create(dir.path().join("staging/z.part")).unwrap();
        held.lock().unwrap();

        let young = Prune { all: false, older_than: Duration::from_secs(3600) };
        assert!(prune(&store, young, false).unwrap().is_empty());
        let now = Prune { all: false, older_than: Duration::ZERO };
        assert_eq!(prune(&store, now, true).unwrap().len(), 2);
        let removed = prune(&store, now, false).unwrap();
        let kinds: Vec<_> = removed.iter().map(|item| item.kind).collect();
        assert_eq!(kinds, [Kind::Unreferenced, Kind::Unfinished]);
        assert!(!store.blob_path(&other).exists() && store.blob_path(&layer).exists());
        let all = Prune { all: true, older_than: Duration::ZERO };
        assert_eq!(prune(&store, all, false).unwrap().len(), 2);
        assert_eq!(files(&dir.path().join("refs")).unwrap().len(), 0);
        assert!(dir.path().join("staging/z.part").exists());
    }
}
