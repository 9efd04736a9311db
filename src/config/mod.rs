//! From an image's configuration and the user's options to the boot record.
//!
//! Everything is applied as `docker run` applies it (moby's `merge`, `getUser` and
//! `CreateDaemonEnvironment`, and runc's preparation of the process), so that an image sees in the
//! VM what it would have seen in a container.
//!
//! [`plan`] does no I/O of its own; what it must know about the image's files it asks of a
//! [`Files`].

mod command;
mod docker;
mod env;
mod error;
mod health;
mod limits;
mod network;
mod ports;
mod program;
mod signal;
mod user;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dock2uni_format::record::{Limit, Port, Record, Root, Syscalls, V6};

pub use env::{from_option as env_from_option, parse_file as parse_env_file};
pub use error::Error;
pub use health::{HealthOverrides, duration};
pub use limits::{limit, limit_text, setting};
pub use network::{Interface, Network, add_host, described as described_network};
pub use ports::{Publish, PublishError};
pub use signal::{name as signal_name, parse as parse_signal};

/// What the user asked to be different from the image's configuration; the options of
/// `docker run` of the same names.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Overrides {
    /// `--entrypoint`; empty text clears the image's.
    pub entrypoint: Option<String>,
    /// Arguments after the reference; they replace the image's Cmd.
    pub command: Vec<String>,
    /// Variables of `--env-file` and `--env`, in that order; without `=` a variable is removed.
    pub env: Vec<String>,
    /// `--workdir`.
    pub workdir: Option<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// Ports of `--publish`, which are exposed as well.
    pub ports: Vec<Port>,
    /// `--stop-signal`.
    pub stop_signal: Option<String>,
    /// `--stop-timeout` in seconds.
    pub stop_timeout: Option<u32>,
    /// `--tty`.
    pub tty: bool,
    /// `--interactive`.
    pub stdin: bool,
    /// `--health-*` and `--no-healthcheck`.
    pub health: HealthOverrides,
    /// `--lock-syscalls`, `--record-syscalls`.
    pub syscalls: Syscalls,
    /// `--check-root`.
    pub check_root: bool,
    /// `--ip`, `--gateway`, `--dns`, `--add-host` and the like.
    pub network: Network,
    /// `--ulimit`.
    pub limits: Vec<Limit>,
    /// `--sysctl`: names and values.
    pub settings: Vec<(String, String)>,
}

/// What is known about one file of the image, symbolic links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `st_mode` on Linux: type and permissions.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
}

impl Stat {
    fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// The finished root filesystem, as far as a plan looks into it.
///
/// Paths are absolute; links are followed, within the root.
pub trait Files {
    /// Looks a file up; `None` if there is none.
    ///
    /// # Errors
    /// If the filesystem cannot be read.
    fn stat(&self, path: &[u8]) -> std::io::Result<Option<Stat>>;

    /// Reads `len` bytes from `offset`, or fewer if the file ends before; `None` if there is none.
    ///
    /// # Errors
    /// If the filesystem cannot be read.
    fn read(&self, path: &[u8], offset: u64, len: usize) -> std::io::Result<Option<Vec<u8>>>;
}

/// Applies `overrides` to the image's configuration.
///
/// `config_json` is the configuration blob as stored. `id` names the image and gives the default
/// host name, as a container's ID does under Docker: a digest in hexadecimal.
///
/// # Errors
/// Names what is wrong with the configuration, the options, or the program they ask for.
pub fn plan(
    config_json: &[u8],
    id: &str,
    overrides: &Overrides,
    files: &dyn Files,
) -> Result<Record, Error> {
    let image = docker::parse(config_json)?;
    let argv = command::merge(&image, overrides)?;
    let user = user::resolve(overrides.user.as_deref().unwrap_or(&image.user), files)?;
    let hostname = match &overrides.hostname {
        Some(name) => valid_hostname(name)?,
        None => id.chars().take(12).collect(),
    };
    let cwd = workdir(&image, overrides, files)?;
    let env = env::merge(&image.env, overrides, &hostname, &user.home);
    program::check(&argv, &env, &cwd, files)?;

    let mut exposed = ports::exposed(&image.exposed_ports)?;
    exposed.extend_from_slice(&overrides.ports);
    ports::sort(&mut exposed);

    let mut net = network::plan(&overrides.network)?;
    let (settings, no_v6) = limits::split(&overrides.settings);
    if no_v6 {
        net.v6 = V6::None;
    }

    Ok(Record {
        argv,
        env,
        cwd,
        user: user.ids,
        hostname,
        stop_signal: signal::parse(
            overrides.stop_signal.as_deref().or(image.stop_signal.as_deref()),
        )?,
        stop_grace_secs: overrides.stop_timeout.or(image.stop_timeout).unwrap_or(10),
        ports: exposed,
        volumes: volumes(&image.volumes)?,
        healthcheck: health::parse(image.healthcheck.as_ref(), &overrides.health, &image.shell)?,
        labels: image.labels.into_iter().collect(),
        net,
        root: Root::Here,
        tty: overrides.tty,
        mounts: Vec::new(),
        stdin: overrides.stdin,
        syscalls: overrides.syscalls.clone(),
        check_root: overrides.check_root,
        variables: Vec::new(),
        limits: limits(&overrides.limits),
        settings,
    })
}

/// The last of each resource counts.
fn limits(given: &[Limit]) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    for limit in given {
        limits.retain(|other| other.resource != limit.resource);
        limits.push(*limit);
    }
    limits
}

fn workdir(
    image: &docker::Config,
    overrides: &Overrides,
    files: &dyn Files,
) -> Result<Vec<u8>, Error> {
    if let Some(dir) = &overrides.workdir
        && !dir.starts_with('/')
    {
        return Err(Error::RelativeWorkdir(dir.clone()));
    }
    let path = clean(overrides.workdir.as_ref().unwrap_or(&image.working_dir));
    // A missing directory is created, as Docker does; anything else in its place is refused.
    match files.stat(path.as_bytes())? {
        Some(stat) if !stat.is_dir() => Err(Error::WorkdirNotADirectory(path)),
        _ => Ok(path.into_bytes()),
    }
}

/// The volumes' paths, cleaned, sorted, without the root itself.
fn volumes(volumes: &BTreeMap<String, serde::de::IgnoredAny>) -> Result<Vec<Vec<u8>>, Error> {
    let mut paths = Vec::new();
    for name in volumes.keys() {
        let path = clean(name);
        if !name.starts_with('/') || path == "/" {
            return Err(Error::Volume(name.clone()));
        }
        paths.push(path.into_bytes());
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Makes a path absolute and lexically clean, as Go's `filepath.Clean` does.
pub(crate) fn clean_path(path: &str) -> String {
    clean(path)
}

fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Linux takes any 64 bytes; what is asked here is what a resolver takes (RFC 1123).
fn valid_hostname(name: &str) -> Result<String, Error> {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 64 && name.split('.').all(label) {
        Ok(name.to_owned())
    } else {
        Err(Error::Hostname(name.to_owned()))
    }
}
