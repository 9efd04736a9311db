//! What disks are called: by all that they are made of, and by what people look for.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Error, Order, Report};
use crate::disk::{Format, Place};
use crate::erofs::Compression;
use crate::guest;
use crate::source::{Digest, Image};

/// Raised when the same input would give other disks.
const VERSION: &str = "dock2uni fleet disk 1";
/// Longest name of a link, without its extension.
const NAME_MAX: usize = 100;

/// The key of a disk, the format aside: what follows from these is the same to the byte.
pub fn of(
    image: &Image,
    order: &Order,
    (place, compression): (Option<Place>, Option<Compression>),
    kernel: &[u8],
) -> String {
    let Order { overrides, mounts, variables, .. } = order;
    // Serialising a structure of texts and numbers does not fail.
    let options = serde_json::to_vec(&(overrides, mounts, variables)).unwrap_or_default();
    // They follow from the manifest, but for those that a fleet adds.
    let layers: Vec<u8> = image.layers.iter().flat_map(|layer| layer.diff_id.0).collect();
    let mut key = Sha256::new();
    for part in [
        VERSION.as_bytes(),
        env!("CARGO_PKG_VERSION").as_bytes(),
        &image.manifest.0,
        &image.config_digest.0,
        &layers,
        &Digest::of(kernel).0,
        &Digest::of(guest::STAGE2).0,
        &Digest::of(guest::EFI).0,
        &[place.map_or(0, |place| 1 + place as u8)
            | compression.map_or(0, |how| (1 + how as u8) << 4)],
        &options,
    ] {
        key.update((part.len() as u64).to_le_bytes());
        key.update(part);
    }
    let key: [u8; 32] = key.finalize().into();
    Digest(key).hex()[..32].to_owned()
}

/// The disk of a key, relative to the output directory.
pub fn file(key: &str, format: Format) -> PathBuf {
    Path::new("disks").join(format!("{key}.{}", format.extension()))
}

/// Gives the disks of the report the names of their orders, as links beside the report. Links of
/// orders that are gone stay.
pub fn link(out: &Path, report: &Report) -> Result<(), Error> {
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    for outcome in &report.items {
        let stem = stem(&outcome.name);
        let count = taken.entry(stem.clone()).or_default();
        *count += 1;
        let stem = if *count == 1 { stem } else { format!("{stem}-{count}") };
        for disk in &outcome.files {
            let name = out.join(format!("{stem}.{}", disk.format.extension()));
            relink(&disk.path, &name).map_err(Error::io("link", &name))?;
        }
    }
    Ok(())
}

/// Makes a link, or points it elsewhere, at once. A file in its place is somebody else's.
fn relink(to: &Path, name: &Path) -> io::Result<()> {
    match name.symlink_metadata() {
        Ok(meta) if !meta.is_symlink() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if std::fs::read_link(name)? == to => return Ok(()),
        _ => {}
    }
    let mut hidden = name.as_os_str().to_owned();
    hidden.push(".new");
    match std::fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(to, &hidden)?;
    std::fs::rename(&hidden, name)
}

/// A name as a file can have it.
fn stem(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text: String = name.chars().map(|c| if fits(c) { c } else { '-' }).take(NAME_MAX).collect();
    let text = text.trim_start_matches(['.', '-']);
    if text.is_empty() { "image".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names() {
        assert_eq!(stem("shop/deployment/web/nginx:1"), "shop-deployment-web-nginx-1");
        assert_eq!(stem("../../etc/passwd"), "etc-passwd");
        assert_eq!(stem("…"), "image");
    }

    #[test]
    fn links_move_and_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("web.img");
        relink(Path::new("disks/1.img"), &name).unwrap();
        relink(Path::new("disks/2.img"), &name).unwrap();
        assert_eq!(std::fs::read_link(&name).unwrap(), Path::new("disks/2.img"));
        let file = dir.path().join("mine.img");
        std::fs::write(&file, "mine").unwrap();
        assert!(relink(Path::new("disks/1.img"), &file).is_err());
    }
}
