//! What the keeper is asked to do, and what it answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::index::Meta;
use crate::source::{Compression, Digest, Layer};

/// A job: first unpack, then run, then remove.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// Directories to be made of layers.
    pub unpack: Vec<Unpack>,
    /// A command.
    pub run: Option<Run>,
    /// Directories to be removed.
    pub remove: Vec<PathBuf>,
}

/// A directory to be made of layers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unpack {
    /// Lowest first.
    pub layers: Vec<Blob>,
    /// Whether only the last one is unpacked, for an overlay on the others.
    pub last_only: bool,
    /// Where the indexes are kept.
    pub indexes: PathBuf,
    /// The directory, not there yet.
    pub into: PathBuf,
}

/// A layer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Blob {
    digest: Digest,
    size: u64,
    diff_id: Digest,
    compression: u8,
    path: PathBuf,
}

impl From<&Layer> for Blob {
    fn from(layer: &Layer) -> Blob {
        let compression = match layer.compression {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Zstd => 2,
        };
        let Layer { digest, size, diff_id, ref path, .. } = *layer;
        Blob { digest, size, diff_id, compression, path: path.clone() }
    }
}

impl From<&Blob> for Layer {
    fn from(blob: &Blob) -> Layer {
        let compression = match blob.compression {
            1 => Compression::Gzip,
            2 => Compression::Zstd,
            _ => Compression::None,
        };
        let Blob { digest, size, diff_id, ref path, .. } = *blob;
        Layer { digest, size, diff_id, compression, path: path.clone() }
    }
}

/// An overlay to be mounted.
#[derive(Debug, Serialize, Deserialize)]
pub struct Overlay {
    /// Directory for its links and its upper and work directories.
    pub dir: PathBuf,
    /// Lowest first.
    pub lowers: Vec<PathBuf>,
    /// What mount points need that no layer has; on top of the lowers.
    pub stubs: Vec<Stub>,
    /// Metadata of the root.
    pub root: Meta,
}

impl Overlay {
    /// Where what is written goes. Beside the directory, so that it can be moved within its own.
    pub fn upper(&self) -> PathBuf {
        self.dir.with_extension("upper")
    }
}

/// A file or directory that a mount needs to be there.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stub {
    /// Path below the root, without symbolic links.
    pub path: Vec<u8>,
    /// What it is.
    pub meta: Meta,
}

/// A command to be run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its root.
    pub root: Overlay,
    /// What else is mounted, in order.
    pub mounts: Vec<Mount>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment, complete but for HOME.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// `USER[:GROUP]`; empty for root.
    pub user: String,
    /// Whether it sees this machine's network.
    pub host_network: bool,
}

/// A mount, at a path below the root.
#[derive(Debug, Serialize, Deserialize)]
pub enum Mount {
    /// A directory or file of this machine.
    Bind(Bind),
    /// A directory of an image or stage.
    Overlay {
        /// The whole.
        overlay: Overlay,
        /// The part that is shown, without symbolic links.
        part: Vec<u8>,
        /// Where.
        target: Vec<u8>,
        /// Whether it can't be written to.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where.
        target: Vec<u8>,
        /// Largest size in bytes.
        size: Option<u64>,
    },
    /// A file in memory.
    File(FileMount),
}

/// A directory or file of this machine to be shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bind {
    /// What.
    pub source: PathBuf,
    /// Where.
    pub target: Vec<u8>,
    /// Whether it can't be written to.
    pub read_only: bool,
    /// Mode and owner of a directory that is new.
    pub create: Option<(u32, u32, u32)>,
}

/// A file in memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileMount {
    /// Where.
    pub target: Vec<u8>,
    /// What is in it.
    pub content: Vec<u8>,
    /// Permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

/// What the keeper says, one JSON text a line.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It is in its user namespace and waits for the IDs to be mapped.
    Entered,
    /// The machine doesn't allow it.
    Impossible {
        /// Why.
        reason: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The job is done; a layer may follow.
    Done(Report),
}

/// How a job went.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Exit status of the command.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether a layer follows.
    pub layer: bool,
}
