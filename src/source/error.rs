//! What can go wrong between a reference and a resolved image.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::digest::Digest;
use super::reference::Engine;

/// Kinds of failure, for exit codes and for callers that decide by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The reference or an option is wrong.
    Usage,
    /// The image, tag, blob or file does not exist.
    NotFound,
    /// Credentials are missing, wrong or do not suffice.
    Auth,
    /// The registry can't be reached or answers with errors.
    Network,
    /// Content is damaged, truncated or not what its digest says.
    Corrupt,
    /// The content is sound, but dock2uni can't use it.
    Unsupported,
    /// A signature was asked for, and there is none that is accepted.
    Untrusted,
    /// A local file can't be read or written.
    Io,
    /// A local disk is full.
    DiskFull,
}

/// A failed resolution. The text names the thing; [`Error::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no image reference.
    #[error("`{text}` is not an image reference: {reason}")]
    Reference {
        /// What was given.
        text: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// An option can't be used.
    #[error("{option}: {reason}")]
    Option {
        /// Its name.
        option: String,
        /// What is wrong.
        reason: String,
    },
    /// A file or directory given as the source does not exist.
    #[error("there is no file or directory `{}`", path.display())]
    PathNotFound {
        /// What was given.
        path: PathBuf,
    },
    /// An address that the caller does not want connected to.
    #[error("{host} is an internal address, which is not connected to")]
    Forbidden {
        /// The host.
        host: String,
    },
    /// The registry has the repository (or won't tell) but not this tag or digest.
    #[error("`{image}` does not exist: the registry knows no such tag or digest")]
    TagUnknown {
        /// The full reference.
        image: String,
    },
    /// The registry has no such repository.
    #[error("`{image}` does not exist: the registry knows no such repository")]
    RepositoryUnknown {
        /// The full reference.
        image: String,
    },
    /// A layout or archive holds no image of that name.
    #[error("`{place}` holds no image named `{wanted}`")]
    NameUnknown {
        /// Layout or archive.
        place: String,
        /// Name asked for.
        wanted: String,
        /// Names there are.
        available: Vec<String>,
    },
    /// A layout or archive holds several images and none was asked for.
    #[error("`{place}` holds several images and none was named")]
    Ambiguous {
        /// Layout or archive.
        place: String,
        /// Names there are.
        available: Vec<String>,
    },
    /// An engine has no such image.
    #[error("{engine} has no image `{image}`")]
    NotInEngine {
        /// Which was asked.
        engine: Engine,
        /// Name or ID.
        image: String,
    },
    /// An engine can't be asked.
    #[error("cannot ask {engine} ({place}): {reason}")]
    Engine {
        /// Which.
        engine: Engine,
        /// Socket or address.
        place: String,
        /// Cause.
        reason: String,
    },
    /// containerd has no such image, or there is no containerd.
    #[error("containerd has no image `{image}`{}", no_store(roots))]
    NotInContainerd {
        /// Name.
        image: String,
        /// Where a store was looked for, if there is none.
        roots: Vec<PathBuf>,
    },
    /// containerd's files are root's.
    #[error("cannot read containerd's database `{}`: permission denied", path.display())]
    ContainerdDenied {
        /// The database.
        path: PathBuf,
        /// Name of the image that was looked for.
        image: String,
    },
    /// Several namespaces of containerd's have different images of one name.
    #[error("containerd has different images named `{image}` in {}", namespaces.join(", "))]
    Namespaces {
        /// Name.
        image: String,
        /// The namespaces.
        namespaces: Vec<String>,
    },
    /// The machine's configuration of registries can't be understood.
    #[error("{}: {reason}", path.display())]
    RegistriesFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The machine's configuration forbids the registry.
    #[error("`{image}` may not be pulled: registries.conf blocks `{prefix}`")]
    Blocked {
        /// The full reference.
        image: String,
        /// What is blocked.
        prefix: String,
    },
    /// A name without a registry, several to look in, and nobody to ask.
    #[error("`{name}` names no registry, and registries.conf wants one to be chosen")]
    ShortName {
        /// As it was written.
        name: String,
        /// What it may stand for.
        candidates: Vec<String>,
    },
    /// None of the places where an image may be has it.
    #[error("`{image}` could not be had from any of its places: {others}; {last}")]
    Nowhere {
        /// The full reference.
        image: String,
        /// What all but the last have said.
        others: String,
        /// What the last has said.
        last: Box<Error>,
    },
    /// A blob that a manifest names is missing at the source.
    #[error("{origin} lacks the blob {digest} that the image names")]
    BlobUnknown {
        /// Registry, layout or archive.
        origin: String,
        /// The blob.
        digest: Digest,
    },
    /// Offline, and the store lacks something.
    #[error("{what} is not in the local store, and fetching is switched off")]
    NotCached {
        /// Reference or blob.
        what: String,
    },
    /// The registry asks for a login and there is none.
    #[error("{host} asks for a login for `{image}`, or the image does not exist")]
    CredentialsMissing {
        /// Registry.
        host: String,
        /// The full reference.
        image: String,
    },
    /// The registry refused the credentials.
    #[error("{host} refuses access to `{image}` for {user}: {message}")]
    AccessDenied {
        /// Registry.
        host: String,
        /// The full reference.
        image: String,
        /// User name, or who else asked.
        user: String,
        /// What the registry says.
        message: String,
    },
    /// The registry asks for an authentication that can't be given.
    #[error("{host} asks for authentication that cannot be used: {reason}")]
    Challenge {
        /// Registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// A credentials file can't be understood.
    #[error("{}: {reason}", path.display())]
    CredentialFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A credential helper failed.
    #[error("credential helper `{helper}` failed for {host}: {reason}")]
    CredentialHelper {
        /// Program name.
        helper: String,
        /// Registry.
        host: String,
        /// What it said.
        reason: String,
    },
    /// No connection.
    #[error("cannot connect to {host}: {reason}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Cause as the system tells it.
        reason: String,
    },
    /// The connection isn't trusted.
    #[error("{host} cannot be trusted over TLS: {reason}")]
    Tls {
        /// Host and port.
        host: String,
        /// Cause.
        reason: String,
    },
    /// A transfer broke off more often than we retry, or an answer made no sense.
    #[error("transfer from {host} failed: {reason}")]
    Transfer {
        /// Host and port.
        host: String,
        /// Cause.
        reason: String,
    },
    /// The registry asks us to wait longer than we are willing to.
    #[error("{host} asks to wait {} s before the next request", wait.as_secs())]
    RateLimited {
        /// Host and port.
        host: String,
        /// How long.
        wait: Duration,
    },
    /// An error answer.
    #[error("{host} answered {status} to {request}{}", message_suffix(message))]
    Status {
        /// Host and port.
        host: String,
        /// HTTP status.
        status: u16,
        /// Method and path.
        request: String,
        /// What the body says, cut short.
        message: String,
    },
    /// Content does not hash to its name.
    #[error("{what} from {origin} is corrupt: its digest is {found}, not {expected}")]
    DigestMismatch {
        /// Layer, manifest, configuration.
        what: &'static str,
        /// Registry, layout or archive.
        origin: String,
        /// As named.
        expected: Digest,
        /// As found.
        found: Digest,
    },
    /// Content has another length than was declared.
    #[error("{what} {digest} from {origin} has {found} bytes instead of {expected}")]
    SizeMismatch {
        /// Layer, manifest, configuration.
        what: &'static str,
        /// Registry, layout or archive.
        origin: String,
        /// Which.
        digest: Digest,
        /// As declared.
        expected: u64,
        /// As found; the least it can be if there was more.
        found: u64,
    },
    /// A document can't be understood.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// What and from where.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A document is larger than any honest one.
    #[error("{what} has {size} bytes; at most {limit} are accepted")]
    TooLarge {
        /// What and from where.
        what: String,
        /// Size as declared or as far as it was read.
        size: u64,
        /// Most that is accepted.
        limit: u64,
    },
    /// There is no variant for the wanted platform.
    #[error("`{image}` is not available for {wanted}, only for {}", available.join(", "))]
    WrongPlatform {
        /// Name as given.
        image: String,
        /// Platform asked for.
        wanted: String,
        /// Platforms there are.
        available: Vec<String>,
    },
    /// Sound but unusable content.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// The thing.
        what: String,
        /// Why not.
        reason: String,
    },
    /// No space left.
    #[error("the disk is full: cannot write `{}`", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A local file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// Verb.
        action: &'static str,
        /// Object.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// No place for the store.
    #[error("no place for the layer store: DOCK2UNI_STORE, XDG_CACHE_HOME and HOME are all unset")]
    NoStore,
    /// The image isn't signed as it must be.
    #[error(transparent)]
    Signature(Box<crate::signature::Error>),
    /// Another transfer of the same image failed first.
    #[error("cancelled")]
    Cancelled,
}

fn no_store(roots: &[PathBuf]) -> String {
    let roots: Vec<String> = roots.iter().map(|root| format!("`{}`", root.display())).collect();
    if roots.is_empty() { String::new() } else { format!(": no store in {}", roots.join(", ")) }
}

fn message_suffix(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Error {
    /// Wraps a local file error; a full disk or quota gets its own variant.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// The kind of failure.
    pub fn class(&self) -> Class {
        match self {
            Self::Reference { .. }
            | Self::Option { .. }
            | Self::Ambiguous { .. }
            | Self::Namespaces { .. }
            | Self::RegistriesFile { .. }
            | Self::Blocked { .. }
            | Self::ShortName { .. }
            | Self::Forbidden { .. } => Class::Usage,
            Self::Nowhere { last, .. } => last.class(),
            Self::PathNotFound { .. }
            | Self::TagUnknown { .. }
            | Self::RepositoryUnknown { .. }
            | Self::NameUnknown { .. }
            | Self::BlobUnknown { .. }
            | Self::NotInEngine { .. }
            | Self::NotInContainerd { .. }
            | Self::NotCached { .. } => Class::NotFound,
            Self::CredentialsMissing { .. }
            | Self::AccessDenied { .. }
            | Self::Challenge { .. }
            | Self::CredentialFile { .. }
            | Self::CredentialHelper { .. } => Class::Auth,
            Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Transfer { .. }
            | Self::RateLimited { .. }
            | Self::Engine { .. }
            | Self::Status { .. } => Class::Network,
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. } => Class::Corrupt,
            Self::WrongPlatform { .. } | Self::Unsupported { .. } => Class::Unsupported,
            Self::Io { .. } | Self::ContainerdDenied { .. } | Self::NoStore | Self::Cancelled => {
                Class::Io
            }
            Self::DiskFull { .. } => Class::DiskFull,
            Self::Signature(error) => match &**error {
                crate::signature::Error::Source(error) => error.class(),
                _ => Class::Untrusted,
            },
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Tls { .. } => false,
            // What a server says about the request itself, it will say again.
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            Self::Cancelled => true,
            _ => self.class() == Class::Network,
        }
    }

    /// What the user can do, if there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Reference { .. } => {
                "write `nginx:1.27`, `registry.example.com:5000/app@sha256:...`, `oci:DIR`, \
                 `oci-archive:FILE`, `docker-archive:FILE`, `docker-daemon:NAME`, `podman:NAME` or \
                 `containerd:NAME`"
                    .into()
            }
            Self::PathNotFound { .. } => "check the path, or give an image reference".into(),
            Self::TagUnknown { image } => format!(
                "check the tag; `skopeo list-tags docker://{}` lists those there are",
                without_tag(image)
            ),
            Self::RepositoryUnknown { .. } => "check the name and its registry".into(),
            Self::NameUnknown { available, .. } if available.is_empty() => {
                "the images in it have no names; leave the name out".into()
            }
            Self::NameUnknown { available, .. } | Self::Ambiguous { available, .. } => {
                format!("name one of these after a `:`: {}", available.join(", "))
            }
            Self::NotInEngine { engine: Engine::Docker, .. } => {
                "`docker images` lists those there are; without `docker-daemon:` the image comes \
                 from its registry"
                    .into()
            }
            Self::NotInEngine { engine: Engine::Podman, .. } => {
                "`podman images` lists those there are; without `podman:` the image comes from its \
                 registry"
                    .into()
            }
            Self::Engine { engine: Engine::Docker, .. } => {
                "start it, or name its socket with DOCKER_HOST; a socket that is root's opens to \
                 members of the group `docker`; `docker save NAME | dock2uni convert -` needs none"
                    .into()
            }
            Self::Engine { engine: Engine::Podman, .. } => {
                "start its service with `systemctl --user start podman.socket`, or name its socket \
                 with CONTAINER_HOST; `podman save NAME | dock2uni convert -` needs none"
                    .into()
            }
            Self::NotInContainerd { .. } => {
                "`ctr namespaces ls` and `ctr -n NAMESPACE images ls` list what there is; \
                 DOCK2UNI_CONTAINERD_ROOT says where another containerd keeps its files"
                    .into()
            }
            Self::ContainerdDenied { image, .. } => format!(
                "run as root, or let root write an archive: `sudo ctr images export - {image} | \
                 dock2uni convert -`"
            ),
            Self::Namespaces { .. } => "set CONTAINERD_NAMESPACE to one of them".into(),
            Self::RegistriesFile { .. } => {
                "correct the file; containers-registries.conf(5) describes it".into()
            }
            Self::Blocked { .. } => "ask whoever keeps the machine's registries.conf".into(),
            Self::ShortName { candidates, .. } => {
                format!("write the full name: {}", candidates.join(", "))
            }
            Self::Nowhere { last, .. } => return last.hint(),
            Self::BlobUnknown { origin, .. } if origin.starts_with("containerd") => {
                "containerd may have dropped what it has unpacked, or never fetched it: pull the \
                 image again with `ctr images pull --all-platforms`, or from its registry"
                    .into()
            }
            Self::BlobUnknown { .. } => "push or save the image again".into(),
            Self::NotCached { .. } => "run once without `--offline`".into(),
            Self::CredentialsMissing { host, .. } => {
                format!("check the name; log in with `docker login {host}` if it is private")
            }
            Self::AccessDenied { host, .. } => {
                format!("log in with an account that may pull: `docker login {host}`")
            }
            Self::CredentialFile { .. } => "correct or remove the file, then log in again".into(),
            Self::CredentialHelper { helper, .. } => {
                format!("install `{helper}`, or remove it from the Docker configuration")
            }
            Self::Unreachable { .. } => {
                "check the name, the network and HTTPS_PROXY; `--offline` uses what was fetched \
                 before"
                    .into()
            }
            Self::Status { status: 429, .. } => "wait, or log in for a higher limit".into(),
            Self::Tls { host, .. } => format!(
                "give its authority with `--ca-file`, or put it into \
                 /etc/docker/certs.d/{host}/ca.crt; use `--plain-http {host}` if it has no TLS"
            ),
            Self::Transfer { .. } => "run again: what has arrived is kept".into(),
            Self::RateLimited { .. } => "wait, or log in for a higher limit".into(),
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                "push or save the image again; if it recurs, a proxy alters the traffic".into()
            }
            Self::WrongPlatform { wanted, .. } => format!("build the image for {wanted}"),
            Self::DiskFull { .. } => {
                "free some space, or set DOCK2UNI_STORE to a directory on another disk".into()
            }
            Self::NoStore => "set DOCK2UNI_STORE to a directory".into(),
            Self::Signature(error) => return error.hint(),
            _ => return None,
        })
    }
}

fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rfind(':') {
        Some(colon) if !image[colon..].contains('/') => &image[..colon],
        _ => image,
    }
}
