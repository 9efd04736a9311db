//! Why an image cannot be looked into.

use std::io;
use std::path::PathBuf;

use crate::disk;
use crate::erofs::ReadError;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file itself.
    #[error("cannot read `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk in it.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The root filesystem.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A path.
    #[error("`{0}` is not in the image")]
    NotFound(String),
    /// Contents of what has none.
    #[error("`{0}` is not a regular file")]
    NotFile(String),
    /// A name with a slash, or one that means another directory.
    #[error("the image is damaged: it has a file named `{0}`")]
    Name(String),
    /// A directory in itself, or a tree without end.
    #[error("the image is damaged: the directories at `{0}` have no end")]
    Endless(String),
    /// A file to be made is there.
    #[error("`{}` exists already", .0.display())]
    Exists(PathBuf),
    /// A file cannot be made.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Standard output.
    #[error("cannot write the output")]
    Output {
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn not_found(path: &[u8]) -> Error {
        Error::NotFound(super::text(path))
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Disk(error) => error.hint(),
            Error::NotFound(_) => Some("`dock2uni image tree` shows what is there"),
            Error::NotFile(_) => Some("`dock2uni image ls` lists directories"),
            Error::Exists(_) => Some("remove it, or copy to another place"),
            Error::Read(_) | Error::Name(_) | Error::Endless(_) => Some("convert the image again"),
            _ => None,
        }
    }
}
