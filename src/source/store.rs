//! The content-addressed layer store.
//!
//! ```text
//! blobs/sha256/<hex>   complete and verified blobs: layers, configurations, manifests
//! staging/<hex>.part   a blob on its way in; kept when a run breaks off, and resumed
//! staging/new-*.part   content whose digest isn't known before it has been read
//! refs/<hex>           which manifest a reference meant when it was last asked for
//! ```
//!
//! A blob becomes visible by one `rename` after its digest was checked and its data synced, so a
//! process killed at any moment leaves at most a part. Whoever writes a part holds an exclusive
//! lock on that file; others wait and then find the blob. Waiters check that the file they locked
//! still is the one under that name, because the holder renames it away.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::arrival::Arrival;
use super::digest::{Digest, Hasher};
use super::error::Error;
use super::image::Image;
use super::progress::{Progress, Quiet};
use crate::{atomic, environment, lock};

/// Parts that nobody resumed for this long are removed.
const STALE_PART: Duration = Duration::from_secs(7 * 24 * 3600);
/// When so much has been written the system is asked to bring it to the disk.
const AHEAD: u64 = 8 << 20;
/// Buffer for hashing and copying.
pub(super) const BUFFER: usize = 256 * 1024;

/// A layer store on disk. Cheap to clone; safe to share between threads and processes.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What the store has for a blob.
pub(super) enum Slot {
    /// It is there.
    Present(PathBuf),
    /// It is not; this process alone may write it.
    Vacant(Writer),
}

/// A blob being written. Dropped without [`Writer::commit`], its bytes stay to be resumed.
pub(crate) struct Writer {
    store: Store,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    expected: Option<(Digest, u64)>,
    resumed: bool,
    keep: bool,
    /// Who reads the bytes while they come.
    arrival: Option<Arc<Arrival>>,
}

/// A blob that is what it should be and has no name yet.
pub(super) struct Verified {
    writer: Writer,
    digest: Digest,
    target: PathBuf,
}

impl Verified {
    /// Where it will be.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }
}

impl Store {
    /// Opens the store at `root`, creating it if need be.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::DiskFull`] if directories can't be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let store = Self { root: root.into() };
        for dir in ["blobs/sha256", "staging", "refs"] {
            let dir = store.root.join(dir);
            fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
        }
        store.remove_stale_parts();
        Ok(store)
    }

    /// Opens the user's store: `$DOCK2UNI_STORE`, else `$XDG_CACHE_HOME/dock2uni`, else
    /// `~/.cache/dock2uni`.
    ///
    /// # Errors
    /// [`Error::NoStore`] if none of them is known; else as [`Store::open`].
    pub fn open_default() -> Result<Self, Error> {
        let root = environment::path("DOCK2UNI_STORE")
            .or_else(|| Some(environment::base("XDG_CACHE_HOME", ".cache")?.join("dock2uni")));
        Self::open(root.ok_or(Error::NoStore)?)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the blob lies or would lie.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// The blob's file if it is there and has `size` bytes.
    pub fn get(&self, digest: &Digest, size: u64) -> Option<PathBuf> {
        let path = self.blob_path(digest);
        let meta = fs::symlink_metadata(&path).ok()?;
        (meta.is_file() && meta.len() == size).then_some(path)
    }

    /// Takes a blob out of the store, for one that proved damaged on disk; it will be fetched
    /// again. No error if it isn't there.
    ///
    /// # Errors
    /// [`Error::Io`] if it can't be removed.
    pub fn discard(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// Hashes an image's layers again and takes those out of the store that are damaged on disk,
    /// so that the next resolution fetches them anew. For when a layer that was verified as it
    /// came in proves unreadable. Returns the digests of the damaged ones.
    ///
    /// # Errors
    /// [`Error::Io`] if a blob can't be read or removed.
    pub fn repair(&self, image: &Image) -> Result<Vec<Digest>, Error> {
        let mut damaged = Vec::new();
        for layer in &image.layers {
            let path = self.blob_path(&layer.digest);
            // A layer that lies elsewhere isn't ours to remove.
            if layer.path != path || damaged.contains(&layer.digest) {
                continue;
            }
            let mut hasher = Hasher::new();
            let mut file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
            io::copy(&mut file, &mut hasher).map_err(|e| Error::io("read", &path, e))?;
            if hasher.finish() != layer.digest {
                self.discard(&layer.digest)?;
                damaged.push(layer.digest);
            }
        }
        Ok(damaged)
    }

    /// Reads a whole small blob, verified. One that is damaged on disk counts as absent.
    pub(crate) fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", &path, e)),
        };
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::io("read", &path, e))?;
        if Digest::of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
        self.discard(digest)?;
        Ok(None)
    }

    /// Stores a small blob that the caller has verified.
    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        match self.slot(digest, bytes.len() as u64, &Quiet)? {
            Slot::Present(_) => Ok(()),
            Slot::Vacant(mut writer) => {
                writer.restart()?;
                writer.write(bytes)?;
                writer.commit("document", "memory").map(drop)
            }
        }
    }

    /// Finds a blob or reserves the right to write it, waiting for who is writing it now.
    pub(super) fn slot(
        &self,
        digest: &Digest,
        size: u64,
        progress: &dyn Progress,
    ) -> Result<Slot, Error> {
        let waiting = || {
            progress.note(&format!("waiting for another conversion that fetches {digest}"));
        };
        let path = self.root.join("staging").join(format!("{}.part", digest.hex()));
        loop {
            if let Some(path) = self.get(digest, size) {
                return Ok(Slot::Present(path));
            }
            let file = open_part(&path)?;
            lock::take(&file, &waiting).map_err(|e| Error::io("lock", &path, e))?;
            if self.get(digest, size).is_some() || !is_same_file(&file, &path) {
                continue;
            }
            let mut writer = Writer::new(self, path, file, Some((*digest, size)));
            writer.take_up()?;
            return Ok(Slot::Vacant(writer));
        }
    }

    /// A writer for content whose digest isn't known yet.
    pub(crate) fn import(&self) -> Result<Writer, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("new-{}-{number}.part", std::process::id());
            let path = self.root.join("staging").join(name);
            let file = open_part(&path)?;
            match file.try_lock() {
                Ok(()) if is_same_file(&file, &path) => {
                    let mut writer = Writer::new(self, path, file, None);
                    writer.keep = false;
                    writer.restart()?;
                    return Ok(writer);
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
            }
        }
    }

    /// What `reference` meant when it was last resolved.
    pub(super) fn reference(&self, reference: &str) -> Option<Digest> {
        let bytes = fs::read(self.reference_path(reference)).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (digest, name) = text.trim_end().split_once(' ')?;
        // The name is kept against a mix-up of files, and for people who look.
        (name == reference).then(|| digest.parse().ok()).flatten()
    }

    /// Remembers what `reference` means now.
    pub(super) fn set_reference(&self, reference: &str, digest: &Digest) -> Result<(), Error> {
        if self.reference(reference) == Some(*digest) {
            return Ok(());
        }
        let mut writer = self.import()?;
        writer.write(format!("{digest} {reference}\n").as_bytes())?;
        writer.rename_to(&self.reference_path(reference))
    }

    fn reference_path(&self, reference: &str) -> PathBuf {
        self.root.join("refs").join(Digest::of(reference.as_bytes()).hex())
    }

    /// Best effort: what can't be listed or removed now is left for the next time.
    fn remove_stale_parts(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("staging")) else { return };
        for entry in entries.flatten() {
            let old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|modified| {
                modified.elapsed().is_ok_and(|age| age > STALE_PART)
                    || entry.file_name().as_encoded_bytes().starts_with(b"new-")
            });
            let Ok(file) = File::open(entry.path()) else { continue };
            if old && file.try_lock().is_ok() && is_same_file(&file, &entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn open_part(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(|e| Error::io("create", path, e))
}

/// Whether the open file still is the one under `path`.
fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

impl Writer {
    fn new(store: &Store, path: PathBuf, file: File, expected: Option<(Digest, u64)>) -> Self {
        let (hasher, store) = (Hasher::new(), store.clone());
        Self { store, path, file, hasher, expected, resumed: false, keep: true, arrival: None }
    }

    /// Takes over what an earlier run left in the part.
    fn take_up(&mut self) -> Result<(), Error> {
        let io = |e| Error::io("read", &self.path, e);
        let len = self.file.metadata().map_err(io)?.len();
        if len == 0 {
            return Ok(());
        }
        if self.expected.is_some_and(|(_, size)| len > size) {
            return self.restart();
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => self.hasher.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", &self.path, e)),
            }
        }
        self.resumed = true;
        Ok(())
    }

    /// Lets somebody read the bytes while they come, and when the part has its name.
    pub(super) fn follow(&mut self, arrival: &Arc<Arrival>) -> Result<(), Error> {
        // Opened anew: a duplicate would keep the lock (flock(2) belongs to the open file description)
        // for as long as its readers want it, and these may wait for somebody who waits for the lock.
        let file = File::open(&self.path).map_err(|e| Error::io("read", &self.path, e))?;
        arrival.begin(file, self.len());
        self.arrival = Some(arrival.clone());
        Ok(())
    }

    /// How many bytes are there.
    pub(crate) fn len(&self) -> u64 {
        self.hasher.len()
    }

    /// Whether some bytes stem from an earlier run.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Says what the content must prove to be, for a writer of [`Store::import`].
    pub(super) fn expect(&mut self, digest: Digest, size: u64) {
        self.expected = Some((digest, size));
    }

    /// Appends bytes. More than the expected size is an error of the caller's making that
    /// [`Writer::commit`] reports.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                // Others may read while this hashes.
                if let Some(arrival) = &self.arrival {
                    arrival.grown(self.hasher.len() + bytes.len() as u64);
                }
                let before = self.hasher.len();
                self.hasher.update(bytes);
                let end = self.hasher.len();
                if end / AHEAD > before / AHEAD {
                    atomic::push(&self.file, end - end % AHEAD - AHEAD, AHEAD);
                }
                Ok(())
            }
            Err(e) => {
                // A short write may have left bytes that were not hashed. On a full disk the
                // space is worth more than the bytes.
                let _ = self.file.set_len(self.hasher.len());
                let error = Error::io("write", &self.path, e);
                self.keep &= !matches!(error, Error::DiskFull { .. });
                Err(error)
            }
        }
    }

    /// Forgets all bytes.
    pub(super) fn restart(&mut self) -> Result<(), Error> {
        self.hasher = Hasher::new();
        self.resumed = false;
        if let Some(arrival) = &self.arrival {
            arrival.grown(0);
        }
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(|e| Error::io("truncate", &self.path, e))?;
        Ok(())
    }

    /// Verifies size and digest and makes the blob visible. On a mismatch the bytes are dropped.
    pub(crate) fn commit(
        self,
        what: &'static str,
        origin: &str,
    ) -> Result<(Digest, PathBuf), Error> {
        let mut verified = self.verify(what, origin)?;
        verified.writer.rename_to(&verified.target)?;
        Ok((verified.digest, verified.target))
    }

    /// Verifies size and digest; [`publish`] makes the blob visible. On a mismatch the bytes are
    /// dropped.
    pub(super) fn verify(mut self, what: &'static str, origin: &str) -> Result<Verified, Error> {
        let found = self.hasher.clone().finish();
        if let Some((digest, size)) = self.expected {
            if self.len() != size {
                self.keep = false;
                let (origin, found) = (origin.into(), self.len());
                return Err(Error::SizeMismatch { what, origin, digest, expected: size, found });
            }
            if found != digest {
                self.keep = false;
                let origin = origin.into();
                return Err(Error::DigestMismatch { what, origin, expected: digest, found });
            }
        }
        // Readers need the bytes to be right, not to be on the disk.
        if let Some(arrival) = &self.arrival {
            arrival.verified();
        }
        let target = self.store.blob_path(&found);
        Ok(Verified { writer: self, digest: found, target })
    }

    fn rename_to(&mut self, target: &Path) -> Result<(), Error> {
        self.sync()?;
        self.rename(target)?;
        target.parent().map_or(Ok(()), sync_dir)
    }

    fn sync(&mut self) -> Result<(), Error> {
        let synced = self.file.sync_all().map_err(|e| Error::io("write", &self.path, e));
        if let Err(error) = synced {
            // After a failed sync the kernel may have dropped the pages: nothing to resume.
            self.keep = false;
            return Err(error);
        }
        Ok(())
    }

    /// Gives a part that is on the disk its name.
    fn rename(&mut self, target: &Path) -> Result<(), Error> {
        fs::rename(&self.path, target).map_err(|e| Error::io("create", target, e))?;
        self.keep = true;
        Ok(())
    }
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io("sync", dir, e))
}

/// Makes blobs visible as they come, until no more can come: those that wait are brought to the disk
/// together. After a failure nothing more is taken.
pub(super) fn publish(queue: &Receiver<Verified>) -> Result<(), Error> {
    while let Ok(first) = queue.recv() {
        let mut batch: Vec<Verified> = std::iter::once(first).chain(queue.try_iter()).collect();
        for blob in &mut batch {
            blob.writer.sync()?;
        }
        for blob in &mut batch {
            blob.writer.rename(&blob.target)?;
        }
        // All of them are in the same directory.
        batch.first().and_then(|blob| blob.target.parent()).map_or(Ok(()), sync_dir)?;
    }
    Ok(())
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Once renamed away another writer's part may stand under the same name.
        if is_same_file(&self.file, &self.path) && (!self.keep || self.hasher.is_empty()) {
            let _ = fs::remove_file(&self.path);
        }
        // Whoever waits goes on, even if a child that is not at its exec yet has a copy.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vacant(store: &Store, content: &[u8]) -> Writer {
        match store.slot(&Digest::of(content), content.len() as u64, &Quiet).unwrap() {
            Slot::Vacant(writer) => writer,
            Slot::Present(_) => panic!("present"),
        }
    }

    fn files(dir: PathBuf) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_broken_off_blob_is_resumed_and_becomes_visible_only_when_complete() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = b"some layer".as_slice();
        let mut writer = vacant(&store, content);
        writer.write(&content[..4]).unwrap();
        drop(writer);
        assert_eq!(files(dir.path().join("blobs/sha256")), 0);

        let mut writer = vacant(&store, content);
        assert_eq!((writer.len(), writer.is_resumed()), (4, true));
        writer.write(&content[4..]).unwrap();
        let (digest, path) = writer.commit("layer", "test").unwrap();
        assert_eq!(fs::read(path).unwrap(), content);
        assert!(store.get(&digest, content.len() as u64).is_some());
        assert!(store.get(&digest, 3).is_none());
        assert_eq!(files(dir.path().join("staging")), 0);
    }

    #[test]
    fn verified_blobs_become_visible_in_batches() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (sender, queue) = std::sync::mpsc::channel();
        let contents = [&b"one"[..], b"two", b"three"];
        for content in contents {
            let mut writer = vacant(&store, content);
            writer.write(content).unwrap();
            sender.send(writer.verify("layer", "test").unwrap()).unwrap();
        }
        assert_eq!(files(dir.path().join("blobs/sha256")), 0);
        drop(sender);
        publish(&queue).unwrap();
        for content in contents {
            assert_eq!(fs::read(store.blob_path(&Digest::of(content))).unwrap(), content);
        }
        assert_eq!(files(dir.path().join("staging")), 0);
    }

    #[test]
    fn wrong_content_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut writer = vacant(&store, b"right");
        writer.write(b"wrong").unwrap();
        assert!(matches!(writer.commit("layer", "test"), Err(Error::DigestMismatch { .. })));
        let mut writer = vacant(&store, b"right");
        assert_eq!(writer.len(), 0);
        writer.write(b"rig").unwrap();
        assert!(matches!(writer.commit("layer", "test"), Err(Error::SizeMismatch { .. })));
        assert_eq!(files(dir.path().join("staging")), 0);
        assert_eq!(files(dir.path().join("blobs/sha256")), 0);
    }

    #[test]
    fn writers_of_one_blob_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = vec![7; 1 << 20];
        let wrote = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| match store.slot(&Digest::of(&content), 1 << 20, &Quiet).unwrap() {
                    Slot::Present(path) => assert_eq!(fs::read(path).unwrap(), content),
                    Slot::Vacant(mut writer) => {
                        wrote.fetch_add(1, Ordering::Relaxed);
                        content.chunks(1000).for_each(|c| writer.write(c).unwrap());
                        writer.commit("layer", "test").unwrap();
                    }
                });
            }
        });
        assert_eq!(wrote.into_inner(), 1);
    }

    #[test]
    fn damaged_documents_count_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = Digest::of(b"{}");
        store.put(&digest, b"{}").unwrap();
        assert_eq!(store.read(&digest, 100).unwrap().as_deref(), Some(b"{}".as_slice()));
        fs::write(store.blob_path(&digest), b"[]").unwrap();
        assert_eq!(store.read(&digest, 100).unwrap(), None);
        assert!(!store.blob_path(&digest).exists());
    }

    #[test]
    fn references_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.reference("r/a:1"), None);
        for content in [b"1", b"2"] {
            store.set_reference("r/a:1", &Digest::of(content)).unwrap();
            assert_eq!(store.reference("r/a:1"), Some(Digest::of(content)));
        }
        assert_eq!(files(dir.path().join("staging")), 0);
    }
}
