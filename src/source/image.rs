//! The result of resolving a reference: what every later stage works on.

use std::path::PathBuf;

/// A SHA-256 digest, the only algorithm that registries in use produce.
///
/// Text form is `sha256:` and 64 lower-case hexadecimal digits (OCI image specification,
/// "Digests").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// How a layer's tar stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar stream.
    None,
    /// gzip (RFC 1952), possibly several members.
    Gzip,
    /// Zstandard (RFC 8878), possibly several frames.
    Zstd,
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
    /// Compression of the blob.
    pub compression: Compression,
    /// The verified blob in the layer store. It stays readable for as long as the
    /// `Image` is alive.
    pub path: PathBuf,
}

/// A resolved image whose blobs are all present and verified.
#[derive(Clone, Debug)]
pub struct Image {
    /// The reference as the user gave it, for messages.
    pub name: String,
    /// Digest of the manifest that was chosen.
    pub manifest: Digest,
    /// Digest of the configuration blob.
    pub config_digest: Digest,
    /// The image configuration.
    pub config: oci_spec::image::ImageConfiguration,
    /// Layers, lowest first.
    pub layers: Vec<Layer>,
}
