//! Roots that are kept in the store, with bars while they are made.

use std::path::PathBuf;

use sha2::Sha256;

use super::Failure;
use super::args::{BuildArgs, SourceArgs};
use super::progress::Display;
use super::target::{self, Fetch, Target};
use crate::convert::RootOptions;
use crate::roots;
use crate::source::{self, Image, Opener, Store};

/// A container image's bare root: from the store, or made now of its layers in the store.
pub fn of(
    image: &Image,
    args: &SourceArgs,
    store: &Store,
    display: &Display,
) -> Result<PathBuf, Failure> {
    of_layers(image, &source::stored, args, store, display)
}

fn of_layers(
    image: &Image,
    open: Opener<'_>,
    args: &SourceArgs,
    store: &Store,
    display: &Display,
) -> Result<PathBuf, Failure> {
    let path = path(image, store)?;
    if path.exists() {
        return Ok(path);
    }
    let bar = display.layers(image.layers.iter().map(|layer| layer.size).sum());
    let limits = target::limits(args);
    let say = |text: &str| display.say(text);
    let options =
        RootOptions { open: Some(open), limits, say: Some(&say), ..RootOptions::default() };
    roots::of_with(image, &options, store, &|bytes| bar.inc(bytes))
        .map_err(|error| target::conversion_failed(error, image, store))
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
    target::image_with(target, build, args, store, display, &mut |image, open| {
        Ok((image.clone(), of_layers(image, open, args, store, display)?))
    })
}

fn path(image: &Image, store: &Store) -> Result<PathBuf, Failure> {
    roots::path(image, None, store).map_err(|error| failed(store, error))
}

/// Where something made of what `feed` hashes is kept.
pub fn cached(
    store: &Store,
    kind: &str,
    extension: &str,
    feed: impl FnOnce(&mut Sha256),
) -> Result<PathBuf, Failure> {
    roots::cached(store, kind, extension, feed).map_err(|error| failed(store, error))
}

fn failed(store: &Store, error: std::io::Error) -> Failure {
    Failure::io(format!("cannot create directories in `{}`", store.root().display()), error)
}
