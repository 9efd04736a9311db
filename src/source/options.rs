//! How to resolve a reference.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::containerd;
use super::engine::Sockets;
use super::platform::Platform;
use super::registries::Files;
use crate::environment;
use crate::signature::Policy;

/// Decides which addresses may be connected to, for callers that resolve references of strangers.
pub trait Reach: std::fmt::Debug + Send + Sync {
    /// Whether an address that `host` stands for may be connected to.
    fn permits(&self, host: &str, address: IpAddr) -> bool;

    /// Looks names up and gives only addresses that may be connected to.
    fn resolver(&self) -> Arc<dyn reqwest::dns::Resolve>;

    /// Whether the proxies of the environment are used, which decide on their own then.
    fn proxy(&self) -> bool;
}

/// What a [`Reach`]'s resolver says of a name that stands for nothing that may be connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is an internal address, which is not connected to")]
pub struct ForbiddenHost(pub String);

/// Settings of a resolution. [`Options::default`] looks at nothing of the user's;
/// [`Options::from_env`] is what a command line starts from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose signature every image must have; `None` if none is asked for.
    pub policy: Option<Policy>,
    /// Which variant of a multi-platform image to take.
    pub platform: Platform,
    /// Fetch nothing: use what the store has.
    pub offline: bool,
    /// Bring the layers in. Without it they are described in the [`Image`](super::Image) but need
    /// not be at their paths, for callers that may do without them.
    pub layers: bool,
    /// Speak plain HTTP to the reference's registry. Loopback registries are spoken to in
    /// whichever of HTTP and HTTPS they offer even without this.
    pub plain_http: bool,
    /// Registries (`host` or `host:port`) to speak plain HTTP to.
    pub insecure_registries: Vec<String>,
    /// The machine's configuration of registries, mirrors and short names.
    pub registries: Files,
    /// Where dockerd listens.
    pub docker: Sockets,
    /// Where Podman's service listens.
    pub podman: Sockets,
    /// Directories that may be containerd's.
    pub containerd_roots: Vec<PathBuf>,
    /// The one namespace of containerd's to look in; all if there is none.
    pub containerd_namespace: Option<String>,
    /// A PEM file with authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Directories with `HOST[:PORT]/*.crt` authorities and `*.cert`, `*.key` client
    /// certificates, in the form of `/etc/docker/certs.d`.
    pub certs_dirs: Vec<PathBuf>,
    /// Files in the form of Docker's `config.json`; the first that knows a registry counts.
    pub auth_files: Vec<PathBuf>,
    /// Where `docker-credential-*` programs are looked for; `PATH` if empty.
    pub helper_dirs: Vec<PathBuf>,
    /// Blobs that are fetched at once; at least 1.
    pub parallel: usize,
    /// How often a failed request is repeated without any progress.
    pub retries: u32,
    /// Wait before the first repetition; it doubles with each.
    pub retry_delay: Duration,
    /// Longest wait a server may ask for with `Retry-After`.
    pub max_wait: Duration,
    /// Most bytes that an archive may inflate to.
    pub archive_bytes: u64,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time without an answer or further bytes.
    pub read_timeout: Duration,
    /// Which addresses may be connected to; all, if `None`.
    pub reach: Option<Arc<dyn Reach>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: None,
            platform: Platform::default(),
            offline: false,
            layers: true,
            plain_http: false,
            insecure_registries: Vec::new(),
            registries: Files::default(),
            docker: Sockets::default(),
            podman: Sockets::default(),
            containerd_roots: Vec::new(),
            containerd_namespace: None,
            ca_file: None,
            certs_dirs: vec!["/etc/docker/certs.d".into(), "/etc/containers/certs.d".into()],
            auth_files: Vec::new(),
            helper_dirs: Vec::new(),
            parallel: 4,
            retries: 5,
            retry_delay: Duration::from_millis(500),
            max_wait: Duration::from_secs(120),
            archive_bytes: 1 << 40,
            connect_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(60),
            reach: None,
        }
    }
}

impl Options {
    /// The defaults with the user's credentials and authorities: `DOCK2UNI_CA_FILE`,
    /// `REGISTRY_AUTH_FILE`, `DOCKER_CONFIG`, `~/.docker/config.json` and podman's `auth.json`; the
    /// machine's `registries.conf`; and the engines that are here: `DOCKER_HOST`, `CONTAINER_HOST`,
    /// `CONTAINERD_NAMESPACE`, `DOCK2UNI_CONTAINERD_ROOT`.
    pub fn from_env() -> Self {
        let docker = environment::base("DOCKER_CONFIG", ".docker");
        let config = environment::base("XDG_CONFIG_HOME", ".config");
        // containers-auth.json(5): without XDG_RUNTIME_DIR, /run/containers/UID is used.
        let runtime = environment::path("XDG_RUNTIME_DIR");
        let runtime = runtime.map(|dir| dir.join("containers")).or_else(|| {
            let uid = std::fs::metadata("/proc/self").ok()?.uid();
            Some(PathBuf::from(format!("/run/containers/{uid}")))
        });
        let cache = environment::base("XDG_CACHE_HOME", ".cache");
        let data = environment::base("XDG_DATA_HOME", ".local/share");
        let namespace = environment::text("CONTAINERD_NAMESPACE");
        let mut options = Self {
            ca_file: environment::path("DOCK2UNI_CA_FILE"),
            registries: Files::of_user(config.as_deref(), cache.as_deref()),
            docker: Sockets::docker(docker.as_deref()),
            podman: Sockets::podman(),
            containerd_roots: match environment::path("DOCK2UNI_CONTAINERD_ROOT") {
                Some(root) => vec![root],
                None => containerd::roots(data.as_deref()),
            },
            containerd_namespace: namespace,
            ..Self::default()
        };
        options.auth_files.extend(environment::path("REGISTRY_AUTH_FILE"));
        options.auth_files.extend(docker.map(|dir| dir.join("config.json")));
        options.auth_files.extend(runtime.map(|dir| dir.join("auth.json")));
        if let Some(config) = config {
            options.auth_files.push(config.join("containers/auth.json"));
            options.certs_dirs.push(config.join("containers/certs.d"));
        }
        options
    }
}
