//! What can keep a fleet from running.

use std::io;
use std::path::{Path, PathBuf};

use crate::fleet::plan::Problem;
use crate::{convert, vmm, volume};

/// Why a fleet does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or socket of the state directory, or one that is to be mounted.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// Verb.
        what: &'static str,
        /// Object.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No place for state.
    #[error("fleets have no place for their state: neither XDG_STATE_HOME nor HOME is set")]
    NoHome,
    /// A name that can't be one of a directory and of a volume.
    #[error("`{0}` is not a name of a project")]
    Project(String),
    /// There is one of this name.
    #[error("the fleet `{0}` is running already")]
    Running(String),
    /// There is none.
    #[error("there is no fleet `{0}` here")]
    Unknown(String),
    /// It has ended, or was killed.
    #[error("the fleet `{0}` is not running")]
    NotRunning(String),
    /// An image could not be brought in.
    #[error("the image of `{service}` is not to be had: {}", problem.text)]
    Image {
        /// The service.
        service: String,
        /// Why.
        problem: Problem,
    },
    /// What it would run can't run.
    #[error("`{service}` cannot be prepared")]
    Convert {
        /// The service.
        service: String,
        /// Why.
        source: convert::Error,
    },
    /// It asks for something that a VM can't do.
    #[error("`{service}`: {text}")]
    Service {
        /// The service.
        service: String,
        /// What.
        text: String,
        /// What to do about it.
        hint: String,
    },
    /// Services that wait for each other.
    #[error("services wait for each other: {}", .0.join(" -> "))]
    Circle(Vec<String>),
    /// More VMs than addresses.
    #[error("{0} VMs are more than fit on the fleet's network ({max})", max = super::net::MAX_MACHINES)]
    TooMany(usize),
    /// More Services with addresses of their own than there are addresses.
    #[error("{0} Services with ports of their own are more than have addresses (254)")]
    TooManyServices(usize),
    /// More networks than are told apart.
    #[error("{0} networks are more than are told apart (64)")]
    TooManyNetworks(usize),
    /// Ports and QEMU.
    #[error(transparent)]
    Vm(#[from] vmm::Error),
    /// Volumes.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The supervisor ended before it was ready.
    #[error("the fleet's supervisor ended at once: {0}")]
    Supervisor(String),
    /// A file of another dock2uni, or damaged.
    #[error("`{}` is not understood: {text}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        text: String,
    },
}

impl Error {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { what, path, source }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Error::NoHome => "set DOCK2UNI_FLEETS to a directory",
            Error::Project(_) => {
                "names consist of lower-case letters, digits, dashes and underscores, and start \
                 with a letter or digit; give one with `--project`"
            }
            Error::Running(_) => "`dock2uni fleet down` ends it",
            Error::Unknown(_) => "`dock2uni fleet ps --all` lists those there are",
            Error::NotRunning(_) => "`dock2uni fleet up` starts it",
            Error::Image { problem, .. } => return problem.hint.clone(),
            Error::Convert { source, .. } => return source.hint().map(str::to_owned),
            Error::Service { hint, .. } => hint,
            Error::Circle(_) => "take one of the `depends_on` away",
            Error::Vm(error) => return error.hint().map(str::to_owned),
            Error::Volume(error) => return error.hint().map(str::to_owned),
            Error::TooMany(_) => "start fewer replicas",
            Error::TooManyServices(_) => "run parts of the fleet",
            Error::TooManyNetworks(_) => "join some of them",
            Error::State { .. } => "remove it, and start the fleet again",
            Error::Io { .. } | Error::Supervisor(_) => return None,
        };
        Some(text.to_owned())
    }
}
