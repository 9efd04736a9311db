//! Where a fleet keeps its state, and how one speaks to its supervisor.
//!
//! ```text
//! PROJECT/lock          held by the supervisor while it lives
//! PROJECT/spec.json     what runs; for its owner alone: it has the environments
//! PROJECT/state.json    how it stands; the last word of a supervisor that has ended
//! PROJECT/control.sock  the supervisor's socket, while it lives
//! PROJECT/boot/         what VMs boot from
//! PROJECT/secrets/      files of secrets that VMs share
//! PROJECT/logs/         what instances say
//! ```
//!
//! On the socket a request is a line, `watch`, `stop` or `kill`; the answer is the state as a line of
//! JSON at once, and after each change until the end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Spec};
use crate::atomic::Aside;
use crate::environment;
use crate::lock::Lock;

/// Names the directory of all fleets.
pub const VARIABLE: &str = "DOCK2UNI_FLEETS";

/// How one instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// What it needs is not there yet.
    Waiting,
    /// Its VM boots.
    Starting,
    /// Its application runs.
    Running,
    /// It has ended and will be started again.
    Restarting,
    /// It has ended.
    Exited,
    /// It could not be started, or what it needs can't be had.
    Failed,
    /// It was stopped.
    Stopped,
}

impl Phase {
    /// Whether nothing more will happen to it.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Exited | Phase::Failed | Phase::Stopped)
    }
}

/// What the health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// No check has passed yet.
    Starting,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// How it stands.
    pub phase: Phase,
    /// What its health check says, if it has one.
    pub health: Option<Health>,
    /// The status that its application ended with, as a shell has it.
    pub exit: Option<u8>,
    /// Why it stands as it does.
    pub reason: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
    /// Since when it stands so, in milliseconds since 1970.
    pub since: u64,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// Ports of the host that lead to it: `127.0.0.1:8080->80/tcp`.
    pub ports: Vec<String>,
}

/// A fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub project: String,
    /// Its instances.
    pub instances: Vec<Status>,
    /// It was told to stop.
    pub stopping: bool,
}

/// The directory of one fleet.
#[derive(Clone, Debug)]
pub struct Dir {
    path: PathBuf,
    project: String,
}

/// The directory of all fleets.
fn home() -> Result<PathBuf, Error> {
    let usual =
        || Some(environment::base("XDG_STATE_HOME", ".local/state")?.join("dock2uni/fleets"));
    environment::path(VARIABLE).or_else(usual).ok_or(Error::NoHome)
}

/// The names of all fleets that have state.
///
/// # Errors
/// If the directory cannot be read.
pub fn projects() -> Result<Vec<String>, Error> {
    let home = home()?;
    let entries = match fs::read_dir(&home) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("read", &home))?,
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_project(name))
        .collect();
    names.sort();
    Ok(names)
}

/// Whether Compose would take it for a project's name.
fn is_project(name: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first && name.len() <= 63 && name.bytes().all(fits)
}

/// A directory's name as a project's, as Compose makes it.
pub fn project_of(name: &str) -> String {
    let lower = name.to_lowercase();
    let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(*c);
    let text: String = lower.chars().filter(fits).collect();
    let text: String = text.trim_start_matches(['_', '-']).chars().take(63).collect();
    if text.is_empty() { "fleet".to_owned() } else { text }
}

impl Dir {
    /// The directory of a project, which need not exist.
    ///
    /// # Errors
    /// If the name is none.
    pub fn of(project: &str) -> Result<Dir, Error> {
        if !is_project(project) {
            return Err(Error::Project(project.to_owned()));
        }
        Ok(Dir { path: home()?.join(project), project: project.to_owned() })
    }

    /// A directory by its path, as a supervisor is told it.
    pub fn at(path: &Path) -> Dir {
        let project = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Dir { path: path.to_owned(), project }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Where the logs are.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Makes it, for its owner alone.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(&self) -> Result<(), Error> {
        for dir in [self.path.clone(), self.logs(), self.path.join("boot")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(Error::io("create", &dir))?;
        }
        Ok(())
    }

    /// Whether there is a fleet, running or not.
    pub fn exists(&self) -> bool {
        self.path.join("spec.json").exists()
    }

    /// Takes the lock; `None` if a supervisor has it.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn lock(&self) -> Result<Option<Lock>, Error> {
        let path = self.path.join("lock");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        Lock::try_alone(open.map_err(Error::io("open", &path))?).map_err(Error::io("lock", &path))
    }

    /// Whether a supervisor is at work.
    ///
    /// # Errors
    /// As [`Dir::lock`].
    pub fn is_running(&self) -> Result<bool, Error> {
        Ok(self.path.join("lock").exists() && self.lock()?.is_none())
    }

    /// Returns when no supervisor is at work any more.
    ///
    /// # Errors
    /// If the lock cannot be waited for.
    pub fn wait_ended(&self) -> Result<(), Error> {
        let path = self.path.join("lock");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        open.and_then(Lock::alone).map(drop).map_err(Error::io("lock", &path))
    }

    /// Writes what is to run.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_spec(&self, spec: &Spec) -> Result<(), Error> {
        self.write("spec.json", spec)
    }

    /// Reads what runs.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn spec(&self) -> Result<Spec, Error> {
        self.read("spec.json")
    }

    /// Writes how it stands.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_state(&self, state: &Snapshot) -> Result<(), Error> {
        self.write("state.json", state)
    }

    /// How it stands: by its supervisor, or as it was left. Instances that a killed supervisor took
    /// with it have failed.
    ///
    /// # Errors
    /// If there is no such fleet.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        if !self.exists() {
            return Err(Error::Unknown(self.project.clone()));
        }
        if self.is_running()?
            && let Ok(mut all) = self.ask("watch")
            && let Some(state) = all.next()
        {
            return Ok(state);
        }
        let mut state: Snapshot = self.read("state.json")?;
        for status in state.instances.iter_mut().filter(|status| !status.phase.is_final()) {
            status.phase = Phase::Failed;
            status.reason = Some("the fleet's supervisor was killed".to_owned());
        }
        Ok(state)
    }

    /// Sends a request to the supervisor; what comes back are states, until it ends.
    ///
    /// # Errors
    /// If there is none.
    pub fn ask(&self, request: &str) -> Result<impl Iterator<Item = Snapshot> + use<>, Error> {
        let path = self.path.join("control.sock");
        let stream = self.with_short_path(|short| UnixStream::connect(short));
        let mut stream = stream.map_err(|_| Error::NotRunning(self.project.clone()))?;
        writeln!(stream, "{request}").map_err(Error::io("write to", &path))?;
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        Ok(lines.filter_map(|line| serde_json::from_str(&line).ok()))
    }

    /// Listens for requests, in place of a supervisor that was killed.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn listen(&self) -> Result<UnixListener, Error> {
        let path = self.path.join("control.sock");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
        let listener = self.with_short_path(|short| UnixListener::bind(short));
        listener.map_err(Error::io("listen on", &path))
    }

    /// The path of a socket has 107 bytes at most (unix(7)); by an open directory it always fits.
    fn with_short_path<T>(
        &self,
        body: impl FnOnce(&Path) -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        let dir = File::open(&self.path)?;
        body(Path::new(&format!("/proc/self/fd/{}/control.sock", dir.as_raw_fd())))
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        fs::remove_dir_all(&self.path).map_err(Error::io("remove", &self.path))
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path.join(name);
        // Serialising texts and numbers does not fail.
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        let written = Aside::beside(&path).and_then(|aside| {
            aside.file().set_permissions(fs::Permissions::from_mode(0o600))?;
            let mut file = aside.file();
            file.write_all(&bytes)?;
            aside.publish(&path)
        });
        written.map_err(Error::io("write", &path))
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, Error> {
        let path = self.path.join(name);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::State { path, text: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_are_named_as_compose_names_them() {
        for (directory, project) in
            [("My Shop", "myshop"), ("_x", "x"), ("web.app", "webapp"), ("…", "fleet")]
        {
            assert_eq!(project_of(directory), project);
            assert!(is_project(project));
        }
        assert!(Dir::of("../x").is_err() && Dir::of("").is_err() && Dir::of("A").is_err());
    }
}
