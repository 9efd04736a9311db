//! Images that were built here.

use serde_json::json;

use super::digest::Digest;
use super::error::Error;
use super::image::{Compression, Image, Layer};
use super::manifest;
use super::store::Store;

/// Puts configuration and manifest of an image whose layers are in the store beside them.
///
/// # Errors
/// [`Error::Malformed`] if the configuration isn't one; [`Error::Io`].
pub(crate) fn built(
    name: String,
    config_json: Vec<u8>,
    layers: Vec<Layer>,
    store: &Store,
) -> Result<Image, Error> {
    let (config, _) = manifest::config(&format!("configuration of {name}"), &config_json)?;
    let config_digest = Digest::of(&config_json);
    store.put(&config_digest, &config_json)?;
    let descriptors = layers.iter().map(|layer| {
        json!({
            "mediaType": match layer.compression {
                Compression::None => "application/vnd.oci.image.layer.v1.tar",
                Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
                Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            },
            "digest": layer.digest,
            "size": layer.size,
        })
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config_json.len(),
        },
        "layers": descriptors.collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::of(&manifest);
    store.put(&digest, &manifest)?;
    Ok(Image { name, manifest: digest, config_digest, config, config_json, layers, signed: None })
}
