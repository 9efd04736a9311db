//! Archives as `docker save` and `skopeo copy docker-archive:` write them.
//!
//! `manifest.json` names a configuration and layers by path. The layers have no digests of their
//! own: a plain one is known by its diff ID, a compressed one (containerd's Docker writes such)
//! by its name if that is a digest, and otherwise by what it hashes to.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::spool::Data;
use super::{Archive, normal};
use crate::source::digest::Digest;
use crate::source::error::Error;
use crate::source::image::{Compression, Image, Layer};
use crate::source::manifest;
use crate::source::platform::Platform;
use crate::source::progress::Outcome;
use crate::source::reference::Name;

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// A layer to be brought in.
struct Wanted {
    digest: Option<Digest>,
    diff_id: Digest,
    size: u64,
}

/// A layer that is in the store.
#[derive(Clone)]
struct Done {
    digest: Digest,
    path: PathBuf,
}

pub(super) fn resolve(
    archive: &Archive<'_>,
    wanted: Option<&str>,
    name: String,
) -> Result<Image, Error> {
    let missing = |name: &str| archive.malformed(format!("it lacks `{name}`"));
    let json = archive.document("manifest.json")?.ok_or_else(|| missing("manifest.json"))?;
    let items: Vec<Item> = serde_json::from_slice(&json)
        .map_err(|e| archive.malformed(format!("`manifest.json`: {e}")))?;
    let item = choose(archive, &items, wanted)?;

    let config_name = normal(item.config.as_bytes()).ok_or_else(|| missing(&item.config))?;
    let config_json = archive.document(&config_name)?.ok_or_else(|| missing(&item.config))?;
    let config_digest = Digest::of(&config_json);
    if let Some(expected) = digest_in_name(&config_name).filter(|d| *d != config_digest) {
        let (what, origin, found) = ("configuration", archive.name(), config_digest);
        return Err(Error::DigestMismatch { what, origin, expected, found });
    }
    let what = format!("configuration {config_digest} from {}", archive.name());
    let (config, diff_ids) = manifest::config(&what, &config_json)?;
    let (platform, offer) = (&archive.context.options.platform, Platform::of_config(&config));
    if platform.rank(&offer).is_none() {
        let (wanted, available) = (platform.to_string(), vec![offer.to_string()]);
        return Err(Error::WrongPlatform { image: name, wanted, available });
    }
    let names = item.layers.as_deref().unwrap_or_default();
    if names.len() != diff_ids.len() {
        return Err(Error::Malformed {
            what,
            reason: format!("it has {} diff IDs for {} layers", diff_ids.len(), names.len()),
        });
    }

    let mut files = Vec::with_capacity(names.len());
    let mut todo = HashMap::new();
    for (layer, diff_id) in names.iter().zip(&diff_ids) {
        let normal = normal(layer.as_bytes()).ok_or_else(|| missing(layer))?;
        let (file, noted) = archive.file(&normal).ok_or_else(|| missing(layer))?;
        let digest = match noted.compression {
            Compression::None => Some(*diff_id),
            _ => digest_in_name(file).filter(|_| file.starts_with("blobs/sha256/")),
        };
        files.push((file, noted));
        todo.insert(file.to_string(), Wanted { digest, diff_id: *diff_id, size: noted.size });
    }
    let done = bring_in(archive, todo)?;
    let layers = files.iter().zip(names).zip(&diff_ids).map(|(((file, noted), layer), id)| {
        let done = done.get(*file).ok_or_else(|| missing(layer))?.clone();
        Ok(Layer {
            digest: done.digest,
            size: noted.size,
            diff_id: *id,
            compression: noted.compression,
            path: done.path,
        })
    });
    let layers = layers.collect::<Result<Vec<_>, Error>>()?;
    // `manifest.json` needn't name its configuration by digest, so it doesn't identify the image.
    let manifest = config_digest;
    Ok(Image { name, manifest, config_digest, config, config_json, layers, signed: None })
}

/// The only image, or the one with the wanted name and tag.
fn choose<'a>(
    archive: &Archive<'_>,
    items: &'a [Item],
    wanted: Option<&str>,
) -> Result<&'a Item, Error> {
    let place = || archive.place.trim_matches('`').to_owned();
    let tags = || items.iter().flat_map(|item| item.repo_tags.iter().flatten()).cloned().collect();
    let Some(wanted) = wanted else {
        return match items {
            [only] => Ok(only),
            [] => Err(archive.malformed("`manifest.json` lists no image")),
            _ => Err(Error::Ambiguous { place: place(), available: tags() }),
        };
    };
    if let Some(index) = wanted.strip_prefix('@').and_then(|index| index.parse::<usize>().ok()) {
        return items.get(index).ok_or_else(|| Error::NameUnknown {
            place: place(),
            wanted: wanted.into(),
            available: tags(),
        });
    }
    let goes_by = |tag: &String| {
        // `nginx` and `docker.io/library/nginx:latest` are one name.
        tag == wanted
            || tag.parse::<Name>().is_ok_and(|t| wanted.parse().is_ok_and(|w: Name| t == w))
    };
    items.iter().find(|item| item.repo_tags.iter().flatten().any(goes_by)).ok_or_else(|| {
        Error::NameUnknown { place: place(), wanted: wanted.into(), available: tags() }
    })
}

/// The digest in `<hex>.json`, `<hex>.tar` and `blobs/sha256/<hex>`.
pub(super) fn digest_in_name(name: &str) -> Option<Digest> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let file = file.strip_suffix(".json").or(file.strip_suffix(".tar")).unwrap_or(file);
    Digest::from_hex(file).ok()
}

/// Copies what the store lacks into it, in one pass.
fn bring_in(
    archive: &Archive<'_>,
    mut todo: HashMap<String, Wanted>,
) -> Result<HashMap<String, Done>, Error> {
    let (store, progress) = (archive.context.store, archive.context.progress);
    let mut done = HashMap::new();
    todo.retain(|name, layer| {
        let Some(digest) = layer.digest else { return true };
        let Some(path) = store.get(&digest, layer.size) else { return true };
        let mut bar = progress.start(&digest, layer.size);
        bar.advance(layer.size);
        bar.finish(Outcome::Cached);
        done.insert(name.clone(), Done { digest, path });
        false
    });
    archive.bring(todo, &mut |name, layer, data| {
        done.insert(name.into(), bring_in_one(archive, &layer, data)?);
        Ok(())
    })?;
    Ok(done)
}

fn bring_in_one(archive: &Archive<'_>, layer: &Wanted, data: Data<'_>) -> Result<Done, Error> {
    let label = layer.digest.unwrap_or(layer.diff_id);
    let mut bar = archive.context.progress.start(&label, layer.size);
    let (digest, path, outcome) = archive.keep(data, layer.digest, layer.size, bar.as_mut())?;
    bar.finish(outcome);
    Ok(Done { digest, path })
}
