//! Results in a directory: one directory for each, which appears by a rename.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Component, Path, PathBuf};

use super::{MANIFEST, Ready};

/// Where results are made below a directory, before they are published.
pub const STAGING: &str = ".staging";

/// A file of a result, opened.
pub struct Opened {
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes.
    pub bytes: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Publishes; returns where, relative to the directory.
pub(super) fn publish(root: &Path, ready: &Ready<'_>) -> io::Result<String> {
    let place = ready.place();
    let target = root.join(&place);
    if target.join(MANIFEST).exists() {
        return Ok(place);
    }
    let staging = root.join(STAGING);
    let inside = ready.files.starts_with(&staging);
    let copy = if inside { None } else { Some(copy(&staging, ready)?) };
    let files = copy.as_deref().unwrap_or(ready.files);
    let manifest = File::create(files.join(MANIFEST))?;
    (&manifest).write_all(serde_json::to_string_pretty(ready.outcome)?.as_bytes())?;
    manifest.sync_all()?;
    sync(files)?;
    let parent = target.parent().unwrap_or(root);
    make_durably(parent)?;
    match fs::rename(files, &target) {
        Ok(()) => sync(parent)?,
        // Another worker was faster, with the same bytes.
        Err(_) if target.join(MANIFEST).exists() => {
            let _ = fs::remove_dir_all(files);
        }
        Err(error) => return Err(error),
    }
    Ok(place)
}

/// Copies the files to this directory's own staging area, where a rename can take them from.
fn copy(staging: &Path, ready: &Ready<'_>) -> io::Result<PathBuf> {
    fs::create_dir_all(staging)?;
    let name = ready.files.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = staging.join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir)?;
    for file in &ready.outcome.files {
        let to = dir.join(&file.name);
        fs::copy(ready.files.join(&file.name), &to)?;
        File::open(&to)?.sync_all()?;
    }
    Ok(dir)
}

/// Makes directories, and has their names on disk.
fn make_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_durably(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    dir.parent().map_or(Ok(()), sync)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The path of something below a directory, if that is where it is.
fn below(root: &Path, place: &str) -> io::Result<PathBuf> {
    let place = Path::new(place);
    let plain = place.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && place.components().count() > 0 {
        return Ok(root.join(place));
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "a place outside of its directory"))
}

pub(super) fn open(root: &Path, place: &str, name: &str) -> io::Result<Opened> {
    let path = below(root, place)?.join(below(Path::new(""), name)?);
    let file = File::open(path)?;
    Ok(Opened { size: file.metadata()?.len(), bytes: Box::new(file) })
}

/// Removes a result: it vanishes by a rename, and is emptied then.
pub(super) fn remove(root: &Path, place: &str) -> io::Result<()> {
    let path = below(root, place)?;
    let staging = root.join(STAGING);
    fs::create_dir_all(&staging)?;
    let aside = staging.join(format!("removed-{}", crate::service::secret::random_hex(8)));
    match fs::rename(&path, &aside) {
        Ok(()) => fs::remove_dir_all(&aside),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::job::{Outcome, ResultFile};
    use crate::source::Name;

    #[test]
    fn a_result_appears_whole_once_and_goes_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("vms");
        let name: Name = "[::1]:5000/team/app:1".parse().unwrap();
        let file = ResultFile {
            name: "disk.img".into(),
            kind: "raw".into(),
            size: 4,
            digest: "sha256:0".into(),
        };
        let (key, digest) = ("0123456789abcdef0".to_owned(), "sha256:aa".to_owned());
        let outcome = Outcome { key, digest, files: vec![file], ..Outcome::default() };
        for (attempt, base) in [root.join(STAGING), dir.path().join("scratch")].iter().enumerate() {
            let files = base.join(format!("job-{attempt}"));
            fs::create_dir_all(&files).unwrap();
            fs::write(files.join("disk.img"), "disk").unwrap();
            let ready = Ready { image: &name, subject: None, outcome: &outcome, files: &files };
            let place = publish(&root, &ready).unwrap();
            assert_eq!(place, "__1_5000/team/app/sha256-aa-0123456789abcdef");
            let mut text = String::new();
            let mut opened = open(&root, &place, "disk.img").unwrap();
            opened.bytes.read_to_string(&mut text).unwrap();
            assert_eq!((opened.size, text.as_str()), (4, "disk"));
            let manifest = fs::read(root.join(&place).join(MANIFEST)).unwrap();
            assert_eq!(serde_json::from_slice::<Outcome>(&manifest).unwrap(), outcome);
        }
        let place = "__1_5000/team/app/sha256-aa-0123456789abcdef";
        for (place, name) in
            [("..", "x"), ("/etc", "passwd"), (place, "../x"), ("", ""), (place, "")]
        {
            assert!(open(&root, place, name).is_err(), "{place} {name}");
        }
        remove(&root, place).unwrap();
        remove(&root, place).unwrap();
        assert!(open(&root, place, "disk.img").is_err());
        assert_eq!(fs::read_dir(root.join(STAGING)).unwrap().count(), 0);
    }
}
