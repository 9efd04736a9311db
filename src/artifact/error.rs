//! Why an artifact cannot be made or brought to its place.

use std::io;
use std::path::PathBuf;

use crate::{disk, erofs, source};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk image.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// Its root filesystem.
    #[error(transparent)]
    Root(#[from] erofs::ReadError),
    /// Temporary files.
    #[error("the artifact cannot be written to a temporary file")]
    Io(#[from] io::Error),
    /// A file or directory of the destination.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in the destination.
    #[error("`{}` is no OCI layout: {reason}", path.display())]
    Layout {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// Archives and others.
    #[error("`{0}` is nothing that can be pushed to")]
    Destination(String),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Disk(error) => error.hint().map(str::to_owned),
            Error::Source(error) => error.hint(),
            Error::Io(_) => Some("TMPDIR says where temporary files go".into()),
            Error::Destination(_) => {
                Some("give a registry's reference (`host/name:tag`) or `oci:DIR:NAME`".into())
            }
            Error::Layout { .. } => Some("give an empty or new directory".into()),
            _ => None,
        }
    }
}
