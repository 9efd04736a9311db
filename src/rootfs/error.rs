//! What can go wrong between the layers and the root image.

use std::{io, path::PathBuf};

use super::{tar, tree::Full};
use crate::source::image::{Compression, Digest};

/// Why no root image was made. The text names the layer and the entry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A blob of the layer store cannot be read.
    #[error("cannot read layer {layer} at {}", path.display())]
    Read {
        /// The layer's blob.
        layer: Digest,
        /// Where it was expected.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob does not decompress.
    #[error("layer {layer} is not valid {}", compression_name(*.compression))]
    Decompress {
        /// The layer's blob.
        layer: Digest,
        /// What it should be.
        compression: Compression,
        /// Why it is not.
        source: io::Error,
    },
    /// The layer is not what the image's configuration says.
    #[error("layer {layer} unpacks to {found}, but the image's configuration says {expected}")]
    DiffId {
        /// The layer's blob.
        layer: Digest,
        /// Diff ID in the configuration.
        expected: Digest,
        /// Digest of what it unpacks to.
        found: Digest,
    },
    /// The layer is not a tar archive that can be read.
    #[error("layer {layer} is not a valid tar archive: {reason} ({})", place(*.offset, .entry))]
    Tar {
        /// The layer's blob.
        layer: Digest,
        /// Entry at fault, as far as it is known.
        entry: String,
        /// Position in the inflated stream.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// An entry cannot be applied.
    #[error("layer {layer}: entry `{entry}`: {reason}")]
    Entry {
        /// The layer's blob.
        layer: Digest,
        /// Its name in the archive.
        entry: String,
        /// What is wrong.
        reason: EntryFault,
    },
    /// The image asks for more than [`Limits`](super::Limits) allow.
    #[error("layer {layer}: the image holds more than {limit} {what}")]
    Limit {
        /// The layer that went over.
        layer: Digest,
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The root image cannot be written.
    #[error("cannot write the root filesystem image")]
    Write(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl Error {
    /// What to do about it, if anything is known to help.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Read { .. } => Some("the layer store may have been cleared; convert again"),
            Error::Write(source) if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, or write the image to another disk")
            }
            Error::Decompress { .. } | Error::DiffId { .. } | Error::Tar { .. } => {
                Some("the image is damaged where it comes from; push it again")
            }
            Error::Entry { .. } => Some("rebuild the image without this entry"),
            Error::Limit { .. } => {
                Some("if the image is trusted, raise the bound with `--limit`, see `--help`")
            }
            Error::Write(_) | Error::Thread(_) => None,
        }
    }

    /// Whether the image itself is at fault (rather than this machine).
    pub fn is_bad_image(&self) -> bool {
        !matches!(self, Error::Read { .. } | Error::Write(_) | Error::Thread(_))
    }
}

/// Why one entry of a layer cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// `..` above the root.
    #[error("the path climbs out of the root")]
    Escape,
    /// The link target of a hard link climbs out.
    #[error("the link target climbs out of the root")]
    LinkEscape,
    /// A component is too long.
    #[error("a file name is longer than 255 bytes")]
    NameTooLong,
    /// The path is too long.
    #[error("the path is longer than {0} bytes")]
    PathTooLong(usize),
    /// The root was given as something else than a directory.
    #[error("the root must be a directory")]
    RootType,
    /// A parent of the entry is a file.
    #[error("a parent of the path is not a directory")]
    NotADirectory,
    /// Symbolic links in the path go in circles.
    #[error("too many symbolic links in the path")]
    SymlinkLoop,
    /// A hard link to something that is not there.
    #[error("hard link to `{0}`, which does not exist")]
    MissingLinkTarget(String),
    /// A hard link to a directory.
    #[error("hard link to `{0}`, which is a directory")]
    LinkToDirectory(String),
    /// A symbolic link with an impossible target.
    #[error("symbolic link target must have 1 to 4095 bytes, not {0}")]
    SymlinkTarget(usize),
    /// A whiteout that names nothing.
    #[error("the whiteout names no file")]
    Whiteout,
    /// A device number out of range.
    #[error("device number {0}:{1} is out of range")]
    Device(u32, u32),
    /// Extended attributes beyond what a filesystem takes.
    #[error("extended attributes above 255, or above 64 KiB")]
    Xattrs,
}

/// A path for a message: text where it is text, control characters escaped.
pub(crate) fn show(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

fn place(offset: u64, entry: &str) -> String {
    match entry {
        "" => format!("at byte {offset}"),
        entry => format!("at byte {offset}, entry `{entry}`"),
    }
}

fn compression_name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "uncompressed data",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}

/// What stops a layer inside the reading code, before the layer's name is added.
#[derive(Debug)]
pub(crate) enum Stop {
    Tar(tar::Fault),
    Entry(EntryFault),
    Limit(&'static str, u64),
    Write(io::Error),
}

impl From<tar::Fault> for Stop {
    fn from(fault: tar::Fault) -> Stop {
        Stop::Tar(fault)
    }
}

impl From<EntryFault> for Stop {
    fn from(fault: EntryFault) -> Stop {
        Stop::Entry(fault)
    }
}

impl From<Full> for Stop {
    fn from(full: Full) -> Stop {
        match full {
            Full::Items(limit) => Stop::Limit("names or files", limit as u64),
            Full::Text(limit) => Stop::Limit("bytes of names or link targets", limit as u64),
        }
    }
}
