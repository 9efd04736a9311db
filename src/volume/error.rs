//! What can go wrong with volumes.

use std::io;
use std::path::{Path, PathBuf};

/// Why a volume can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no place for them.
    #[error("volumes have no place: neither XDG_DATA_HOME nor HOME is set")]
    NoHome,
    /// A name that could be a path, or is empty.
    #[error("`{0}` is not a name of a volume")]
    Name(String),
    /// There is one already.
    #[error("there is a volume `{0}` already")]
    Exists(String),
    /// There is none.
    #[error("there is no volume `{0}`")]
    NotFound(String),
    /// A VM has it.
    #[error("the volume `{0}` is in use by another VM")]
    InUse(String),
    /// Out of range.
    #[error("a volume cannot have {0} bytes")]
    Size(u64),
    /// A file that isn't ext4.
    #[error("`{}` does not hold an ext4 filesystem", .0.display())]
    NotAVolume(PathBuf),
    /// A `--volume` that can't be read.
    #[error("`{text}` cannot be mounted: {why}")]
    Spec {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file of the host, where a directory is shared.
    #[error("`{}` is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Two mounts at one place.
    #[error("`{0}` is mounted twice")]
    Twice(String),
    /// A file operation failed.
    #[error("{what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn io(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { what, path: path.clone(), source }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::NoHome => Some("set DOCK2UNI_VOLUMES to a directory"),
            Error::Name(_) => {
                Some("names consist of letters, digits and `_.-`, and start with a letter or digit")
            }
            Error::Exists(_) => Some("choose another name, or remove it with `dock2uni volume rm`"),
            Error::NotFound(_) => Some("`dock2uni volume ls` lists them"),
            Error::InUse(_) => {
                Some("stop that VM first; volumes mounted with `:ro` everywhere can be shared")
            }
            Error::Size(_) => Some("from 8m to 8t, such as 20g"),
            Error::NotAVolume(_) => Some("move the file away, or remove it"),
            Error::NotADirectory(_) => Some("share the directory that it is in"),
            Error::Spec { .. } => {
                Some("write NAME:/path, DIR:/path, or either with `:ro` after it")
            }
            Error::Twice(_) => None,
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => Some("free some space, or set DOCK2UNI_VOLUMES"),
                _ => None,
            },
        }
    }
}
