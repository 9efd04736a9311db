//! The result of resolving a reference: what every later stage works on.

use std::path::PathBuf;

pub use super::digest::Digest;
use crate::signature::Verified;

/// How a layer's tar stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar stream.
    None,
    /// gzip (RFC 1952), possibly several members.
    Gzip,
    /// Zstandard (RFC 8878), possibly several frames.
    Zstd,
}

impl Compression {
    /// Recognises a stream by its first bytes; anything unknown counts as plain.
    pub fn detect(head: &[u8]) -> Self {
        if head.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// One layer of an image, lowest first in [`Image::layers`].
#[derive(Clone, Debug)]
pub struct Layer {
    /// Digest of the blob as stored, verified when it was fetched.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar stream, to be verified by whoever inflates it.
    pub diff_id: Digest,
    /// Compression of the blob, as its media type says.
    pub compression: Compression,
    /// The verified blob: in the layer store, or in place in an OCI layout directory. It stays
    /// readable for as long as the `Image` is alive.
    pub path: PathBuf,
}

/// A resolved image whose blobs are all present and verified.
#[derive(Clone, Debug)]
pub struct Image {
    /// The reference as the user gave it, for messages.
    pub name: String,
    /// Digest of the manifest that was chosen. A Docker archive has none: there it is that of
    /// the configuration, which identifies the image too.
    pub manifest: Digest,
    /// Digest of the configuration blob; also the image ID that `docker images` shows.
    pub config_digest: Digest,
    /// The image configuration. Exposed ports and volumes are sorted.
    pub config: oci_spec::image::ImageConfiguration,
    /// The configuration exactly as stored, for the fields that Docker adds to the OCI ones
    /// (`Healthcheck`, `Shell`, `OnBuild`, `ArgsEscaped`).
    pub config_json: Vec<u8>,
    /// Layers, lowest first. Their number equals that of the diff IDs in `config`.
    pub layers: Vec<Layer>,
    /// The signature that was accepted, if one was asked for.
    pub signed: Option<Verified>,
}
