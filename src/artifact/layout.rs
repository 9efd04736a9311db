//! OCI image layouts (OCI image specification, `image-layout.md`), written.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::{Artifact, Error, copy_file};
use crate::atomic::Aside;

const NAME: &str = "org.opencontainers.image.ref.name";
/// Longest index that is added to, in bytes.
const MAX_INDEX: u64 = 4 << 20;

/// Adds an artifact to the layout at `dir` under a name, in place of what had it. Blobs come first,
/// so a reader never sees a name without them.
pub(super) fn add(artifact: &Artifact, dir: &Path, name: Option<&str>) -> Result<(), Error> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| Error::Write { path: blobs.clone(), source })?;
    let mut index = index(dir)?;
    for blob in &artifact.blobs {
        let path = blobs.join(blob.digest.hex());
        if fs::metadata(&path).is_ok_and(|file| file.len() == blob.size) {
            continue;
        }
        put(&path, &mut |out| copy_file(blob.file(), out).map(|_| ()))?;
    }
    put(&blobs.join(artifact.digest.hex()), &mut |out| out.write_all(&artifact.manifest))?;
    let version = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
    put(&dir.join("oci-layout"), &mut |out| out.write_all(version.as_bytes()))?;

    let mut entry = json!({
        "mediaType": artifact.media_type(),
        "digest": artifact.digest.to_string(),
        "size": artifact.manifest.len(),
    });
    if let Some(name) = name {
        entry["annotations"] = json!({ NAME: name });
    }
    if let Some(manifests) = index["manifests"].as_array_mut() {
        manifests.retain(|other| {
            let same_name = name.is_some() && other["annotations"][NAME].as_str() == name;
            !same_name && (name.is_some() || other["digest"] != entry["digest"])
        });
        manifests.push(entry);
    }
    put(&dir.join("index.json"), &mut |out| out.write_all(index.to_string().as_bytes()))
}

/// The index that is there, or an empty one.
fn index(dir: &Path) -> Result<Value, Error> {
    let path = dir.join("index.json");
    let bad = |reason: &str| Error::Layout { path: dir.to_owned(), reason: reason.to_owned() };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(json!({ "schemaVersion": 2, "manifests": [] }));
        }
        Err(source) => return Err(Error::Write { path, source }),
        Ok(file) if file.len() > MAX_INDEX => return Err(bad("its index is too large")),
        Ok(_) => {}
    }
    let bytes = fs::read(&path).map_err(|source| Error::Write { path, source })?;
    let index: Value = serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
    if !index["manifests"].is_array() {
        return Err(bad("its index lists no manifests"));
    }
    Ok(index)
}

fn put(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let aside = Aside::beside(path).map_err(failed)?;
    write(&mut aside.file()).map_err(failed)?;
    aside.publish(path).map_err(failed)
}
