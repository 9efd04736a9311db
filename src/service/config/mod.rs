//! The service's configuration: a TOML file, read whole and checked before any of it counts.
//!
//! [`file`] is the file's form, and [`Config`] what has been made of it: secrets read, names resolved,
//! patterns compiled. [`watch`] brings changes in while the service runs; a file with a mistake in it
//! changes nothing.

pub mod file;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::file::File;
use super::job::{Options, Request};
use super::outgoing::Guard;
use super::pattern::Patterns;
use super::publish::Destination;
use super::queue::Limits;
use super::secret::Secret;
use super::trial::Trials;
use super::webhook::{Push, Webhook};
use crate::source;

/// Largest configuration file, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Whom jobs are for if nothing else is said.
pub const DEFAULT_TENANT: &str = "default";

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its form.
    #[error("`{}`: {text}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its place.
        text: String,
    },
    /// What it says.
    #[error("`{}`: {place}: {text}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The table and its name.
        place: String,
        /// What is wrong.
        text: String,
    },
}

/// A configuration that can be used.
#[derive(Debug)]
pub struct Config {
    /// The server.
    pub server: Server,
    /// The queue.
    pub queue: QueueConfig,
    /// Workers.
    pub workers: Workers,
    /// How images are booted; `None` where they may not be.
    pub trials: Option<Trials>,
    /// How registries are reached.
    pub registries: source::Options,
    /// Which addresses may be reached.
    pub guard: Guard,
    /// Who may send webhooks, by name.
    pub webhooks: BTreeMap<String, Webhook>,
    /// What is done with what is pushed.
    pub rules: Vec<Rule>,
    /// Where results go, by name.
    pub destinations: BTreeMap<String, Destination>,
    /// Who may use the API.
    pub tokens: Vec<Token>,
    /// What is looked at regularly.
    pub polls: Vec<Poll>,
    /// What tenants may have.
    pub limits: Limits,
    /// How long things are kept.
    pub retention: Retention,
    /// Signs callbacks.
    pub callback_secret: Option<Secret>,
}

/// The server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Certificate chain and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Directory of everything that is kept.
    pub state: PathBuf,
    /// Largest body of a request, in bytes.
    pub max_body: usize,
    /// Longest time for a request to arrive and be answered.
    pub timeout: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Requests a second of one client, and how many at once beyond.
    pub rate: (f64, f64),
    /// Whether metrics are shown without a token.
    pub public_metrics: bool,
    /// Signs the sessions of pages; one of its own in the state directory if there is none.
    pub session_key: Option<Secret>,
    /// File for the audit log.
    pub audit: PathBuf,
}

/// The queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// PostgreSQL's address; SQLite in the state directory if there is none.
    pub url: Option<Secret>,
    /// How long a worker may be silent.
    pub lease: Duration,
    /// How often something that may pass is tried.
    pub attempts: i64,
    /// How many workers may be lost at one job.
    pub lost: i64,
}

/// Workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// Jobs at once.
    pub count: usize,
    /// Longest conversion.
    pub timeout: Duration,
    /// Most memory of a conversion, in bytes.
    pub memory: Option<u64>,
    /// Where layers are kept.
    pub store: PathBuf,
    /// Where results are made before they are published elsewhere.
    pub scratch: PathBuf,
    /// How long jobs may go on after the worker was asked to end.
    pub drain: Duration,
    /// Pause between looks at an empty queue.
    pub idle: Duration,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Webhooks and polls that it is for.
    pub sources: Patterns,
    /// Repositories.
    pub repositories: Patterns,
    /// Tags.
    pub tags: Patterns,
    /// Whether images without a tag count as well.
    pub untagged: bool,
    /// How they are converted.
    pub options: Options,
    /// Where the results go.
    pub destinations: Vec<String>,
    /// Greater ones go first.
    pub priority: i64,
    /// Who it is for.
    pub tenant: String,
    /// Where the end is told.
    pub callback: Option<String>,
}

/// A token of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name, for logs.
    pub name: String,
    /// Whose jobs it reaches; all if `None`.
    pub tenant: Option<String>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// SHA-256 of the token, or the token.
    pub proof: Proof,
    /// Registries that images may be asked for from; `host/repository`.
    pub images: Patterns,
}

/// How a token is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By its SHA-256.
    Hash(source::Digest),
    /// By itself.
    Text(Secret),
}

/// What a token may do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
pub enum Scope {
    /// See jobs, workers and their logs.
    #[serde(rename = "jobs:read")]
    Read,
    /// Submit, cancel and retry jobs.
    #[serde(rename = "jobs:write")]
    Write,
    /// Fetch results.
    #[serde(rename = "results:read")]
    Results,
    /// See metrics.
    #[serde(rename = "metrics")]
    Metrics,
    /// Have the configuration read again.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "jobs:read",
            Scope::Write => "jobs:write",
            Scope::Results => "results:read",
            Scope::Metrics => "metrics",
            Scope::Admin => "admin",
        }
    }
}

/// What is looked at regularly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Its name.
    pub name: String,
    /// The registry.
    pub registry: String,
    /// Its repositories: names, or patterns if the registry has a catalogue.
    pub repositories: Vec<String>,
    /// How often.
    pub every: Duration,
}

/// How long things are kept; for ever if `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Results.
    pub results: Option<Duration>,
    /// Jobs that are over.
    pub jobs: Option<Duration>,
    /// Layers that no conversion has used.
    pub store: Option<Duration>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(path: &Path) -> Result<Config, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
            let text = format!("it is larger than {MAX_FILE} bytes");
            return Err(Error::Form { path: path.to_owned(), text });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Config::parse(&text, path)
    }

    /// Reads a text; `path` is for messages, and for relative paths in it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, Error> {
        let file: File = toml::from_str(text).map_err(|error| Error::Form {
            path: path.to_owned(),
            text: error.to_string().trim_end().to_owned(),
        })?;
        let base = path.parent().unwrap_or(Path::new(".")).to_owned();
        file.resolve(&base).map_err(|(place, text)| Error::Value {
            path: path.to_owned(),
            place,
            text,
        })
    }

    /// What a push leads to: one request for each rule that it matches.
    pub fn requests(&self, source: &str, origin: &str, push: &Push) -> Vec<Request> {
        let matching = self.rules.iter().filter(|rule| {
            rule.sources.match_text(source)
                && rule.repositories.match_text(&push.repository)
                && match &push.tag {
                    Some(tag) => rule.tags.match_text(tag),
                    None => rule.untagged,
                }
        });
        matching
            .map(|rule| Request {
                image: push.reference(),
                options: rule.options.clone(),
                destinations: rule.destinations.clone(),
                priority: rule.priority,
                tenant: rule.tenant.clone(),
                callback: rule.callback.clone(),
                origin: origin.to_owned(),
                rule: Some(rule.name.clone()),
            })
            .collect()
    }
}
