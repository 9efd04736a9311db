//! The build cache: which layer a step made when everything it depends on was the same.
//!
//! A key is the digest of what the result follows from: the layers below, what is done, and the
//! digests of what is copied (names, permissions, owners and contents, not times). As the layers
//! below stand for themselves and not for how they were made, a step is found again when other
//! steps led to the same files.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::work::Workshop;
use crate::atomic::Aside;
use crate::source::digest::Hasher;
use crate::source::{Compression, Digest, Layer, Store};

/// Part of every key: raised when the same step would make another layer.
const FORMAT: &str = "dock2uni build 1";

/// A key under construction.
#[derive(Clone)]
pub struct Key(Hasher);

impl Key {
    /// The key of a kind of step.
    pub fn new(kind: &str) -> Key {
        let mut key = Key(Hasher::new());
        key.text(FORMAT);
        key.text(kind);
        key
    }

    /// Takes in a text, told apart from its neighbours.
    pub fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    /// Takes in a list of texts.
    pub fn texts<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) {
        let texts: Vec<&str> = texts.into_iter().collect();
        self.0.update(&(texts.len() as u64).to_le_bytes());
        for text in texts {
            self.text(text);
        }
    }

    /// Takes in the layers below.
    pub fn layers<'l>(&mut self, layers: impl IntoIterator<Item = &'l Layer>) {
        self.text("layers");
        for layer in layers {
            self.0.update(&layer.diff_id.0);
        }
    }

    /// For what feeds a hasher itself.
    pub fn hasher(&mut self) -> &mut Hasher {
        &mut self.0
    }

    /// The key.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}

/// What a step made.
#[derive(Serialize, Deserialize)]
struct Record {
    digest: Digest,
    size: u64,
}

fn path(shop: &Workshop, key: &Digest) -> PathBuf {
    shop.root.join("steps").join(key.hex())
}

/// The layer that a step made, if it is still there.
pub fn find(shop: &Workshop, store: &Store, key: &Digest) -> Option<Layer> {
    let bytes = fs::read(path(shop, key)).ok()?;
    let Record { digest, size } = serde_json::from_slice(&bytes).ok()?;
    let path = store.get(&digest, size)?;
    Some(Layer { digest, size, diff_id: digest, compression: Compression::None, path })
}

/// Remembers the layer that a step made.
///
/// # Errors
/// If it can't be written.
pub fn remember(shop: &Workshop, key: &Digest, layer: &Layer) -> Result<(), Error> {
    let path = path(shop, key);
    let record = Record { digest: layer.digest, size: layer.size };
    // Two plain fields.
    let bytes = serde_json::to_vec(&record).unwrap_or_default();
    let aside = Aside::beside(&path).and_then(|aside| {
        aside.file().write_all(&bytes)?;
        aside.publish(&path)
    });
    aside.map_err(|error| Error::io("write", &path, error))
}
