//! Where results go: directories, object stores, registries.
//!
//! A result is published whole or not at all, and under a name that follows from its key. Publishing
//! the same result twice, by a worker that was taken for lost, say, changes nothing: the bytes are the
//! same. What a slim image keeps depends on what a boot has shown, so its name follows from its bytes
//! as well.

mod directory;
mod object;
mod registry;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use self::directory::{Opened, STAGING};
use super::job::{Outcome, Published, ResultFile};
use super::outgoing::Guard;
use super::secret::{Secret, SecretSource};
use crate::artifact::Kind;
use crate::source::digest::Hasher;
use crate::source::{self, Name, Store};

/// Name of the file that tells what a result is; the last one to appear.
pub const MANIFEST: &str = "result.json";

/// A destination's table in the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name.
    pub name: String,
    directory: Option<PathBuf>,
    object_store: Option<String>,
    /// Settings of the object store: `access_key_id`, `endpoint`, ...
    #[serde(default)]
    settings: BTreeMap<String, SecretSource>,
    /// Template of a reference.
    reference: Option<String>,
    /// What goes to a registry: `disk`, `container-disk`, `kernel-boot`, `urunc`.
    artifact: Option<String>,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A directory.
    Directory(PathBuf),
    /// An object store: `s3://BUCKET/PREFIX`, `gs://...`, `az://...`.
    Object {
        /// Its address.
        url: String,
        /// Its settings.
        settings: BTreeMap<String, Secret>,
    },
    /// A registry.
    Registry {
        /// Template of the reference.
        template: String,
        /// What is pushed.
        kind: Kind,
    },
}

impl Destination {
    /// Makes a destination of its table.
    ///
    /// # Errors
    /// In words.
    pub fn resolve(table: Table, base: &Path) -> Result<(String, Destination), String> {
        let settings = table.settings.iter().map(|(name, value)| {
            value.read().map(|value| (name.clone(), value)).map_err(|why| format!("{name}: {why}"))
        });
        let settings: BTreeMap<_, _> = settings.collect::<Result<_, _>>()?;
        if table.object_store.is_none() && !settings.is_empty() {
            return Err("`settings` belong to an `object_store`".to_owned());
        }
        if table.reference.is_none() && table.artifact.is_some() {
            return Err("`artifact` belongs to a `reference`".to_owned());
        }
        let destination = match (table.directory, table.object_store, table.reference) {
            (Some(path), None, None) => Destination::Directory(base.join(path)),
            (None, Some(url), None) => {
                object::check(&url, &settings)?;
                Destination::Object { url, settings }
            }
            (None, None, Some(template)) => {
                let kind = registry::kind(table.artifact.as_deref().unwrap_or("container-disk"))?;
                registry::check(&template)?;
                Destination::Registry { template, kind }
            }
            _ => return Err("it is one of `directory`, `object_store` and `reference`".to_owned()),
        };
        Ok((table.name, destination))
    }
}

/// A result that is ready to be published.
#[derive(Debug)]
pub struct Ready<'a> {
    /// The image that was asked for.
    pub image: &'a Name,
    /// Media type and length of the image's manifest, for results that refer to it.
    pub subject: Option<&'a (String, u64)>,
    /// What it is.
    pub outcome: &'a Outcome,
    /// Where its files are.
    pub files: &'a Path,
}

impl Ready<'_> {
    /// Where the result is below a destination. Host, repository and digests are made of characters
    /// that mean nothing to filesystems and addresses.
    fn place(&self) -> String {
        place(self.image, self.outcome)
    }
}

fn place(image: &Name, outcome: &Outcome) -> String {
    let digest = outcome.digest.replace(':', "-");
    let key: String = outcome.key.chars().take(16).collect();
    // A bracketed IPv6 address is none of that.
    let host = image.host.replace(['[', ']'], "").replace(':', "_");
    let mut place = format!("{host}/{}/{digest}-{key}", image.repository);
    if outcome.slimmed.is_some() {
        let mut hasher = Hasher::new();
        outcome.files.iter().for_each(|file| hasher.update(file.digest.as_bytes()));
        place += &format!("-{}", &hasher.finish().hex()[..16]);
    }
    place
}

/// Why something could not be published.
#[derive(Debug, thiserror::Error)]
#[error("{destination}: {text}")]
pub struct Error {
    /// The destination.
    pub destination: String,
    /// What happened.
    pub text: String,
    /// Whether it may work later.
    pub passes: bool,
}

/// What publishing works with.
#[derive(Debug)]
pub struct Publisher<'a> {
    /// The destinations, by name.
    pub destinations: &'a BTreeMap<String, Destination>,
    /// How registries are reached.
    pub registries: &'a source::Options,
    /// Decides where connections may go.
    pub guard: &'a Guard,
    /// The layer store.
    pub store: &'a Store,
}

impl Publisher<'_> {
    /// Where a result is best made: in the first directory that it goes to, where it need not be
    /// copied; elsewhere in `scratch`.
    pub fn base<'a>(&'a self, names: &[String], scratch: &'a Path) -> &'a Path {
        let mut found = names.iter().filter_map(|name| match self.destinations.get(name) {
            Some(Destination::Directory(path)) => Some(path.as_path()),
            _ => None,
        });
        found.next().unwrap_or(scratch)
    }

    /// Publishes a result in all its destinations. Directories come last: the files move away.
    ///
    /// # Errors
    /// Of the first destination that fails. What has been published already stays.
    pub fn publish(
        &self,
        names: &[String],
        ready: &Ready<'_>,
        tell: &dyn Fn(&str),
    ) -> Result<Vec<Published>, Error> {
        let mut places: Vec<Option<Published>> = vec![None; names.len()];
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|index| {
            matches!(self.destinations.get(&names[*index]), Some(Destination::Directory(_)))
        });
        for index in order {
            let name = &names[index];
            let failed = |text: String, passes| Error { destination: name.clone(), text, passes };
            let destination = self.destinations.get(name);
            let destination =
                destination.ok_or_else(|| failed("there is no such one".into(), false))?;
            tell(name);
            let (location, digest) = match destination {
                Destination::Directory(path) => {
                    let place = directory::publish(path, ready).map_err(|error| {
                        let text = format!("`{}`: {error}", path.display());
                        failed(text, true)
                    })?;
                    (place, None)
                }
                Destination::Object { url, settings } => {
                    let place = object::publish(url, settings, self.guard, ready);
                    (place.map_err(|(text, passes)| failed(text, passes))?, None)
                }
                Destination::Registry { template, kind } => {
                    let pushed = registry::publish(template, *kind, self, ready);
                    let (place, digest) = pushed.map_err(|(text, passes)| failed(text, passes))?;
                    (place, Some(digest))
                }
            };
            places[index] = Some(Published { destination: name.clone(), location, digest });
        }
        Ok(places.into_iter().flatten().collect())
    }

    /// Opens a file of a result, wherever it can be had from.
    ///
    /// # Errors
    /// If it is nowhere to be had.
    pub fn open(&self, outcome: &Outcome, file: &ResultFile) -> Result<Opened, Error> {
        let mut last = None;
        for place in &outcome.published {
            let failed =
                |text: String| Error { destination: place.destination.clone(), text, passes: true };
            let opened = match self.destinations.get(&place.destination) {
                Some(Destination::Directory(root)) => {
                    directory::open(root, &place.location, &file.name)
                        .map_err(|error| failed(error.to_string()))
                }
                Some(Destination::Object { url, settings }) => {
                    object::open(url, settings, self.guard, &place.location, &file.name)
                        .map_err(|(text, _)| failed(text))
                }
                _ => continue,
            };
            match opened {
                Ok(opened) => return Ok(opened),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error {
            destination: outcome
                .published
                .first()
                .map(|p| p.destination.clone())
                .unwrap_or_default(),
            text: "its files are fetched from the registry that they went to".to_owned(),
            passes: false,
        }))
    }

    /// Removes a result from directories and object stores; registries have their own retention.
    ///
    /// # Errors
    /// Of the first destination that fails.
    pub fn remove(&self, outcome: &Outcome) -> Result<(), Error> {
        for place in &outcome.published {
            let failed =
                |text: String| Error { destination: place.destination.clone(), text, passes: true };
            match self.destinations.get(&place.destination) {
                Some(Destination::Directory(root)) => directory::remove(root, &place.location)
                    .map_err(|error| failed(error.to_string()))?,
                Some(Destination::Object { url, settings }) => {
                    object::remove(url, settings, self.guard, &place.location, outcome)
                        .map_err(|(text, _)| failed(text))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::job::Slimmed;

    #[test]
    fn a_slim_result_is_placed_by_its_bytes() {
        let file = |digest: &str| ResultFile {
            name: "disk.img".into(),
            kind: "raw".into(),
            size: 1,
            digest: digest.into(),
        };
        let image = "r.io:5000/team/app:1".parse().unwrap();
        let (digest, key) = ("sha256:aa".to_owned(), "b".repeat(64));
        let files = vec![file("sha256:01")];
        let whole = Outcome { digest, key, files, ..Outcome::default() };
        let other = Outcome { files: vec![file("sha256:02")], ..whole.clone() };
        let plain = place(&image, &whole);
        assert_eq!(plain, format!("r.io_5000/team/app/sha256-aa-{}", "b".repeat(16)));
        assert_eq!(place(&image, &other), plain);
        let slim = |outcome: &Outcome| {
            let slimmed = Slimmed { files: 2, bytes: 2, kept_files: 1, kept_bytes: 1 };
            place(&image, &Outcome { slimmed: Some(slimmed), ..outcome.clone() })
        };
        assert!(slim(&whole).starts_with(&plain) && slim(&whole) != slim(&other));
        assert_eq!(slim(&whole), slim(&whole));
    }
}
