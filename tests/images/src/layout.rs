//! OCI layout directories.

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Result, cache_dir, layer::Layer};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Writes an image of these layers, each with the command that history shows for it, to a new
/// layout in `dir`. `config` is the `config` object of the image configuration.
pub fn write(dir: &Path, layers: &[(impl AsRef<str>, Layer)], config: Value) -> Result<()> {
    fs::create_dir_all(dir.join("blobs/sha256"))?;
    let (mut descriptors, mut diff_ids, mut history) = (Vec::new(), Vec::new(), Vec::new());
    for (command, layer) in layers {
        let tar = layer.to_tar()?;
        let diff_id = digest(&tar);
        descriptors.push(blob(dir, LAYER, &compressed(&diff_id, &tar)?)?);
        diff_ids.push(diff_id);
        history.push(json!({ "created": CREATED, "created_by": command.as_ref() }));
    }
    let config = json!({
        "created": CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    let config = blob(dir, CONFIG, config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": descriptors,
    });
    let mut manifest = blob(dir, MANIFEST, manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    fs::write(dir.join("index.json"), index.to_string())?;
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// Matches the time of the recipes' files.
const CREATED: &str = "2024-01-01T00:00:00Z";

/// A layer as it travels. Many images share their base: it is compressed once.
fn compressed(diff_id: &str, tar: &[u8]) -> Result<Vec<u8>> {
    let cache = cache_dir()?.join("layers");
    fs::create_dir_all(&cache)?;
    let done = cache.join(diff_id.replace(':', "-"));
    if let Ok(bytes) = fs::read(&done) {
        return Ok(bytes);
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(tar)?;
    let bytes = gzip.finish()?;
    // Complete or not there: others may be at it as well.
    let part = cache.join(format!("part-{}-{:?}", std::process::id(), std::thread::current().id()));
    fs::write(&part, &bytes)?;
    fs::rename(&part, &done)?;
    Ok(bytes)
}

fn blob(dir: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    fs::write(dir.join("blobs").join(digest.replace(':', "/")), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
