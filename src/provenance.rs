//! Where a disk image comes from: an in-toto statement with a SLSA predicate (in-toto attestation
//! framework, `spec/v1/statement.md`; SLSA 1.0, "Build: Provenance").
//!
//! A disk carries such a statement about its root filesystem. It says nothing that depends on the
//! machine, the time, or the name that the image was asked for by, so the same input still gives
//! the same bytes. [`of_files`] makes one about finished files, and [`of_manifest`] what goes to a
//! registry with an image.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use dock2uni_format::verity::Verity;
use serde_json::{Map, Value, json};

use crate::atomic::Aside;
use crate::config::Overrides;
use crate::convert::{Made, RootOptions};
use crate::guest;
use crate::source::digest::Hasher;
use crate::source::{Digest, Image};

/// Media type of statements.
pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// Type of the predicate.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What kind of build this is; says what its parameters mean.
const BUILD: &str = "https://github.com/dock2uni/dock2uni/convert@v1";
const BUILDER: &str = "https://github.com/dock2uni/dock2uni";
/// Longest statement that is read back from a disk, in bytes.
pub const MAX: u64 = 4 << 20;

/// The statement that a disk carries.
pub fn of_root(
    image: &Image,
    overrides: &Overrides,
    root: &RootOptions<'_>,
    verity: &Verity,
) -> Value {
    let subject = json!([{
        "name": "root",
        "digest": { "dm-verity-blake2b-512": verity.hex() },
    }]);
    statement(subject, predicate(image, overrides, root))
}

/// The same about files with these digests, by their names. `uri` is where the image came from, if
/// that may be told.
pub fn of_files(root: &Value, files: &[(String, Digest)], uri: Option<&str>) -> Value {
    let subjects = files
        .iter()
        .map(|(name, digest)| json!({ "name": name, "digest": { "sha256": digest.hex() } }));
    let mut predicate = root["predicate"].clone();
    // The image itself is the first.
    let source = predicate.pointer_mut("/buildDefinition/resolvedDependencies/0");
    if let (Some(uri), Some(source)) = (uri, source) {
        source["uri"] = uri.into();
    }
    statement(subjects.collect(), predicate)
}

/// The same about a manifest that was made of the disk.
pub fn of_manifest(root: &Value, manifest: Digest) -> Value {
    let subject = json!([{ "digest": { "sha256": manifest.hex() } }]);
    statement(subject, root["predicate"].clone())
}

/// Writes a statement about what a conversion made into a file, which appears whole or not at all.
///
/// # Errors
/// If the files cannot be read, or it cannot be written.
pub fn write(made: &Made, uri: Option<&str>, path: &Path) -> io::Result<()> {
    let files: io::Result<Vec<_>> = made
        .files
        .iter()
        .map(|file| {
            let mut hasher = Hasher::new();
            io::copy(&mut File::open(&file.path)?, &mut hasher)?;
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            Ok((name.into_owned(), hasher.finish()))
        })
        .collect();
    let statement = of_files(&made.provenance, &files?, uri);
    let aside = Aside::beside(path)?;
    aside.file().write_all(format!("{statement:#}\n").as_bytes())?;
    aside.publish(path)
}

fn statement(subject: Value, predicate: Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": predicate,
    })
}

fn predicate(image: &Image, overrides: &Overrides, root: &RootOptions<'_>) -> Value {
    let material =
        |name: &str, digest: Digest| json!({ "name": name, "digest": { "sha256": digest.hex() } });
    let mut materials =
        vec![material("image", image.manifest), material("config", image.config_digest)];
    materials.extend(image.layers.iter().map(|layer| material("layer", layer.digest)));
    let kernel = guest::kernel().unwrap_or_default();
    let builder: Vec<Value> = [("kernel", kernel), ("bios", guest::STAGE2), ("efi", guest::EFI)]
        .into_iter()
        .map(|(name, bytes)| material(name, Digest::of(bytes)))
        .collect();
    let mut internal = Map::new();
    if let Some(selection) = root.selection {
        internal.insert("slim".into(), Digest(selection.fingerprint()).hex().into());
    }
    if let Some(compression) = root.compression {
        internal.insert("compression".into(), compression.name().into());
    }
    if let Some(signed) = &image.signed {
        internal.insert("signature".into(), json!({ "signer": signed.signer }));
    }
    json!({
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {
                "image": image.manifest.to_string(),
                "options": options(overrides),
            },
            "internalParameters": internal,
            "resolvedDependencies": materials,
        },
        "runDetails": {
            "builder": {
                "id": BUILDER,
                "version": { "dock2uni": env!("CARGO_PKG_VERSION") },
                "builderDependencies": builder,
            },
        },
    })
}

/// The options that were given. Of variables the names alone: values may be secrets, and statements
/// go further than images do.
fn options(overrides: &Overrides) -> Value {
    let default = serde_json::to_value(Overrides::default()).unwrap_or_default();
    let mut value = serde_json::to_value(overrides).unwrap_or_default();
    value["env"] = overrides
        .env
        .iter()
        .map(|text| text.split_once('=').map_or(text.as_str(), |(name, _)| name))
        .collect();
    if let Some(options) = value.as_object_mut() {
        options.retain(|name, value| *value != default[name]);
    }
    value
}
