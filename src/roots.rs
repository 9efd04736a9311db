//! Bare roots and other things that are kept in the store, so that they are made once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::convert::{self, RootOptions};
use crate::erofs::Compression;
use crate::lock::Lock;
use crate::rootfs::{self, Limits};
use crate::source::{Digest, Image, Store};

/// Where the bare root of an image is kept. Options change the boot record alone, so one root serves
/// all of them.
///
/// # Errors
/// If the directory cannot be made.
pub fn path(image: &Image, compression: Option<Compression>, store: &Store) -> io::Result<PathBuf> {
    cached(store, "roots", "erofs", |key| {
        key.update(rootfs::FORMAT);
        for layer in &image.layers {
            key.update(layer.diff_id.0);
        }
        if let Some(compression) = compression {
            key.update(compression.name());
        }
    })
}

/// An image's bare root: from the store, or made now. Threads and processes that want the same one
/// wait for the first of them. `limits` bound what it may ask for if it is made.
///
/// # Errors
/// See [`convert::Error`].
pub fn of(
    image: &Image,
    limits: Limits,
    store: &Store,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<PathBuf, convert::Error> {
    of_with(image, &RootOptions { limits, ..RootOptions::default() }, store, progress)
}

/// As [`of`], with layers that need not be in the store yet. The options select no files: such a root
/// is nobody else's.
///
/// # Errors
/// See [`convert::Error`].
pub fn of_with(
    image: &Image,
    options: &RootOptions<'_>,
    store: &Store,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<PathBuf, convert::Error> {
    let failed = |source| convert::Error::Write { path: store.root().join("roots"), source };
    let path = path(image, options.compression, store).map_err(failed)?;
    if path.exists() {
        return Ok(path);
    }
    let waiting = || {
        if let Some(say) = options.say {
            say("waiting for another conversion that makes the same root");
        }
    };
    let _lock = lock(&path, &waiting).map_err(failed)?;
    if !path.exists() {
        convert::root_image(image, options, &path, progress)?;
    }
    Ok(path)
}

/// A lock for what is to be made at `path`; `waiting` is called if it takes long. Its file stays: to
/// remove it would let two have the lock at once.
pub(crate) fn lock(path: &Path, waiting: &(dyn Fn() + Sync)) -> io::Result<Lock> {
    let path = path.with_extension("lock");
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    Lock::alone_or_say(file, waiting)
}

/// Where something made of what `feed` hashes is kept.
///
/// # Errors
/// If the directory cannot be made.
pub fn cached(
    store: &Store,
    kind: &str,
    extension: &str,
    feed: impl FnOnce(&mut Sha256),
) -> io::Result<PathBuf> {
    let dir = store.root().join(kind);
    fs::create_dir_all(&dir)?;
    let mut key = Sha256::new();
    // Another version may write other bytes for the same input.
    key.update(env!("CARGO_PKG_VERSION"));
    feed(&mut key);
    let key: [u8; 32] = key.finalize().into();
    Ok(dir.join(format!("{}.{extension}", Digest(key).hex())))
}
