//! Roots and disk images that are kept in the store, so that they are made once.

use std::fs;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::Failure;
use super::args::{BuildArgs, SourceArgs};
use super::progress::Display;
use super::target::{self, Fetch, Target};
use crate::convert::{self, RootOptions};
use crate::source::{Digest, Image, Store};

/// A container image's bare root: from the store, or made now. Options change the record alone, so
/// one root serves all of them.
pub fn of(
    image: &Image,
    args: &SourceArgs,
    store: &Store,
    display: &Display,
) -> Result<PathBuf, Failure> {
    let path = path(image, store)?;
    if !path.exists() {
        let bar = display.layers(image.layers.iter().map(|layer| layer.size).sum());
        let options = RootOptions { limits: target::limits(args), ..RootOptions::default() };
        convert::root_image(image, &options, &path, &|bytes| bar.inc(bytes))
            .map_err(|error| target::conversion_failed(error, image, store))?;
    }
    Ok(path)
}

/// A container image and its bare root. Layers are fetched only if the root is not there already.
pub fn resolve(
    target: &Target,
    build: &BuildArgs,
    args: &SourceArgs,
    store: &Store,
    display: &Display,
) -> Result<(Image, PathBuf), Failure> {
    let described = match target {
        Target::Reference(reference) if !reference.is_stream() => Some(reference),
        _ => None,
    };
    let Some(reference) = described else {
        let image = target::image(target, build, args, store, display)?;
        let root = of(&image, args, store, display)?;
        return Ok((image, root));
    };
    let image = target::resolve_with(reference, args, store, display, Fetch::Description)?;
    let root = path(&image, store)?;
    if root.exists() {
        return Ok((image, root));
    }
    let image = target::resolve(reference, args, store, display)?;
    let root = of(&image, args, store, display)?;
    Ok((image, root))
}

fn path(image: &Image, store: &Store) -> Result<PathBuf, Failure> {
    cached(store, "roots", "erofs", |key| {
        for layer in &image.layers {
            key.update(layer.diff_id.0);
        }
    })
}

/// Where something made of what `feed` hashes is kept.
pub fn cached(
    store: &Store,
    kind: &str,
    extension: &str,
    feed: impl FnOnce(&mut Sha256),
) -> Result<PathBuf, Failure> {
    let dir = store.root().join(kind);
    fs::create_dir_all(&dir)
        .map_err(|error| Failure::io(format!("cannot create `{}`", dir.display()), error))?;
    let mut key = Sha256::new();
    // Another version may write other bytes for the same input.
    key.update(env!("CARGO_PKG_VERSION"));
    feed(&mut key);
    let key: [u8; 32] = key.finalize().into();
    Ok(dir.join(format!("{}.{extension}", Digest(key).hex())))
}
