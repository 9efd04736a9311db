//! `--volume` and `--tmpfs` as they are written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::config::clean_path;

/// Longest name of a volume in bytes.
const NAME_MAX: usize = 128;

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A volume.
    Volume(String),
    /// A directory of the host.
    Host(PathBuf),
}

/// One `--volume`: `NAME:/path` or `DIR:/path`, with `:ro` or `:rw` after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// What is mounted.
    pub source: Source,
    /// Where in the guest.
    pub path: String,
    /// Whether it can't be written to.
    pub read_only: bool,
}

/// One `--tmpfs`: `/path`, with options of mount(8) after a colon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where in the guest.
    pub path: String,
    /// Options.
    pub options: String,
}

/// Whether a text can be a name of a volume, as Docker has it.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= NAME_MAX && name.bytes().all(good) {
        Ok(())
    } else {
        Err(Error::Name(name.to_owned()))
    }
}

fn guest_path(text: &str, path: &str) -> Result<String, Error> {
    let wrong = |why| Error::Spec { text: text.to_owned(), why };
    if !path.starts_with('/') {
        return Err(wrong("the path in the guest is not absolute"));
    }
    let path = clean_path(path);
    // The kernel's own filesystems are there.
    let taken = |root: &str| path == root || path.starts_with(&format!("{root}/"));
    if path == "/" || ["/proc", "/sys", "/dev"].iter().any(|root| taken(root)) {
        return Err(wrong("nothing can be mounted there"));
    }
    Ok(path)
}

impl Spec {
    /// Reads what was written.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Spec, Error> {
        let wrong = |why| Error::Spec { text: text.to_owned(), why };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, path, mode) = match parts[..] {
            [source, path] => (source, path, "rw"),
            [source, path, mode] => (source, path, mode),
            [_] => return Err(wrong("it says no place in the guest, or names no volume")),
            _ => return Err(wrong("it has too many colons")),
        };
        let read_only = match mode {
            "ro" => true,
            "rw" => false,
            _ => return Err(wrong("what comes last is neither `ro` nor `rw`")),
        };
        let source = if source.starts_with(['/', '.']) {
            Source::Host(source.into())
        } else {
            check_name(source)?;
            Source::Volume(source.to_owned())
        };
        Ok(Spec { source, path: guest_path(text, path)?, read_only })
    }

    /// The volume for a VOLUME of the image: the prefix and the path, with dashes.
    pub fn of_image_volume(prefix: &str, path: &str) -> Result<Spec, Error> {
        let name: String = format!("{prefix}{path}")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' })
            .collect();
        check_name(&name)?;
        Ok(Spec { source: Source::Volume(name), path: path.to_owned(), read_only: false })
    }
}

impl Tmpfs {
    /// Reads what was written.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Tmpfs, Error> {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        Ok(Tmpfs { path: guest_path(text, path)?, options: options.to_owned() })
    }
}
