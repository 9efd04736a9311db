//! What can be wrong with a description of a fleet.

use std::io;
use std::path::PathBuf;

/// Why a source could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is larger than any sensible description.
    #[error("`{name}` is larger than {limit} bytes")]
    TooLarge {
        /// Which one.
        name: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Not YAML, or more of it than the limits allow.
    #[error("`{name}` is not understood as YAML: {text}")]
    Yaml {
        /// The file.
        name: String,
        /// What the parser said, with line and column.
        text: String,
    },
    /// A value is not what its place asks for.
    #[error("{name}: {place}: {text}")]
    Value {
        /// The file.
        name: String,
        /// The path of keys to the value.
        place: String,
        /// What is wrong with it.
        text: String,
    },
    /// A `${VARIABLE:?message}` without a value.
    #[error("{name}: {place}: the variable `{variable}` is required: {text}")]
    Required {
        /// The file.
        name: String,
        /// The path of keys to the value.
        place: String,
        /// The variable.
        variable: String,
        /// The message of the file.
        text: String,
    },
    /// `extends` or `include` lead back to where they came from, or too deep.
    #[error("{name}: `{what}` goes round in circles or deeper than {limit} levels")]
    Nesting {
        /// The file.
        name: String,
        /// What was being followed.
        what: String,
        /// How deep is allowed.
        limit: usize,
    },
    /// A directory or stream without a single workload.
    #[error("`{name}` describes nothing that runs")]
    Empty {
        /// The source.
        name: String,
    },
    /// Two workloads that would be called the same.
    #[error("`{one}` and `{other}` would both be called `{name}`")]
    Names {
        /// One of them.
        one: String,
        /// The other.
        other: String,
        /// The name.
        name: String,
    },
    /// A plan of another dock2uni.
    #[error("`{name}` is a plan of version {version}, which this dock2uni does not know")]
    PlanVersion {
        /// The file.
        name: String,
        /// The version.
        version: u32,
    },
    /// A container daemon that can't be spoken to.
    #[error("the daemon at `{socket}` cannot be asked what runs: {text}")]
    Daemon {
        /// Its socket.
        socket: String,
        /// Why.
        text: String,
    },
    /// The source cannot be told.
    #[error("`{name}` is neither a file, a directory, nor an image reference")]
    Unknown {
        /// What was given.
        name: String,
    },
    /// The registry's catalogue.
    #[error(transparent)]
    Registry(#[from] crate::source::Error),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Error::Required { .. } => "set the variable, or pass a file with `--env-file`",
            Error::TooLarge { .. } => "split it, or name the files that matter",
            Error::Unknown { .. } => {
                "give a Compose file, a Kubernetes manifest or a directory of them, a `.txt` list of \
                 references, `catalog:REGISTRY`, or `-` for manifests on standard input"
            }
            Error::Empty { .. } => {
                "workloads behind Compose profiles need `--profile NAME` (`*` for all)"
            }
            Error::Daemon { .. } => {
                "start the daemon, or name another socket: `containers:/path/to.sock`; its socket \
                 is open to root and the group `docker`"
            }
            Error::Names { .. } => "take one namespace at a time, or give one of them another name",
            Error::PlanVersion { .. } => "plan again with this dock2uni",
            Error::Registry(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}
