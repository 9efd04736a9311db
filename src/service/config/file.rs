//! The form of the configuration file.
//!
//! ```toml
//! [server]
//! listen = "127.0.0.1:8080"
//! state = "/var/lib/dock2uni"
//!
//! [[destination]]
//! name = "images"
//! directory = "/srv/vms"
//!
//! [[webhook]]                        # POST /hooks/registry
//! name = "registry"
//! kind = "distribution"
//! registry = "registry.example:5000" # where the images are pulled from
//! token = { file = "/run/secrets/registry-hook" }
//!
//! [[rule]]
//! name = "releases"
//! repository = ["team/**", "!team/scratch"]
//! tag = "v*"
//! destination = ["images"]
//! options = { formats = ["qcow2"] }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{
    Config, DEFAULT_TENANT, Poll, Proof, QueueConfig, Retention, Rule, Scope, Server, Token,
    Workers,
};
use crate::environment;
use crate::service::convert::NO_TRIALS;
use crate::service::job::Options;
use crate::service::outgoing::{Guard, Network};
use crate::service::pattern::Patterns;
use crate::service::publish::Destination;
use crate::service::queue::Limit;
use crate::service::secret::SecretSource;
use crate::service::trial::Trials;
use crate::service::webhook::Webhook;
use crate::source;

/// A time span: seconds, or a text with a unit, such as `30s`, `5m`, `12h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Seconds(u64),
            Text(String),
        }
        const HELP: &str =
            "a time span is a number of seconds, or a text such as \"30s\" or \"12h\"";
        let text = match Form::deserialize(deserializer) {
            Ok(Form::Seconds(seconds)) => return Ok(Span(Duration::from_secs(seconds))),
            Ok(Form::Text(text)) => text,
            Err(_) => return Err(serde::de::Error::custom(HELP)),
        };
        let unit = match text.as_bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            _ => return Err(serde::de::Error::custom(HELP)),
        };
        let count: Option<u64> = text[..text.len() - 1].parse().ok();
        match count.and_then(|count| count.checked_mul(unit)) {
            Some(seconds) => Ok(Span(Duration::from_secs(seconds))),
            None => Err(serde::de::Error::custom(HELP)),
        }
    }
}

/// A number of bytes: a number, or a text such as `512m` or `2g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer) {
            Ok(Form::Number(bytes)) => Ok(Bytes(bytes)),
            Ok(Form::Text(text)) => {
                crate::cli::parse_size(&text).map(Bytes).map_err(serde::de::Error::custom)
            }
            Err(_) => Err(serde::de::Error::custom("a size is a number or a text such as \"2g\"")),
        }
    }
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    server: ServerTable,
    queue: QueueTable,
    workers: WorkersTable,
    trials: crate::service::trial::Table,
    outgoing: OutgoingTable,
    retention: RetentionTable,
    callbacks: CallbacksTable,
    webhook: Vec<crate::service::webhook::Table>,
    rule: Vec<RuleTable>,
    destination: Vec<crate::service::publish::Table>,
    token: Vec<TokenTable>,
    poll: Vec<PollTable>,
    tenant: BTreeMap<String, TenantTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ServerTable {
    listen: Option<SocketAddr>,
    tls: Option<TlsTable>,
    state: Option<PathBuf>,
    max_body: Option<Bytes>,
    timeout: Option<Span>,
    connections: Option<usize>,
    rate: Option<f64>,
    burst: Option<f64>,
    public_metrics: bool,
    audit: Option<PathBuf>,
    session_key: Option<SecretSource>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct QueueTable {
    url: Option<SecretSource>,
    lease: Option<Span>,
    attempts: Option<u32>,
    lost: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WorkersTable {
    count: Option<usize>,
    timeout: Option<Span>,
    memory: Option<Bytes>,
    store: Option<PathBuf>,
    scratch: Option<PathBuf>,
    drain: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OutgoingTable {
    allow: Vec<String>,
    proxy: bool,
    plain_http: Vec<String>,
    ca_file: Option<PathBuf>,
    auth_file: Option<PathBuf>,
    retries: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetentionTable {
    results: Option<Span>,
    jobs: Option<Span>,
    store: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CallbacksTable {
    secret: Option<SecretSource>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    name: String,
    #[serde(default)]
    source: Patterns,
    #[serde(default)]
    repository: Patterns,
    #[serde(default)]
    tag: Patterns,
    #[serde(default)]
    untagged: bool,
    #[serde(default)]
    options: Options,
    destination: Vec<String>,
    #[serde(default)]
    priority: i64,
    tenant: Option<String>,
    callback: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    name: String,
    tenant: Option<String>,
    scopes: BTreeSet<Scope>,
    sha256: Option<String>,
    secret: Option<SecretSource>,
    #[serde(default)]
    images: Patterns,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PollTable {
    name: String,
    registry: String,
    repositories: Vec<String>,
    every: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TenantTable {
    running: Option<u64>,
    queued: Option<u64>,
}

/// What is wrong where.
type Wrong = (String, String);

impl File {
    /// Makes a configuration of it.
    pub(super) fn resolve(self, base: &Path) -> Result<Config, Wrong> {
        let at = |place: &str| {
            let place = place.to_owned();
            move |text: String| (place, text)
        };
        let state = match self.server.state {
            Some(path) => base.join(path),
            None => default_state().ok_or_else(|| {
                (
                    "[server]".to_owned(),
                    "`state` names no directory, and HOME is not set".to_owned(),
                )
            })?,
        };
        let rate = self.server.rate.unwrap_or(200.0);
        let burst = self.server.burst.unwrap_or(2.0 * rate);
        if !(rate > 0.0 && rate.is_finite() && burst >= 1.0 && burst.is_finite()) {
            return Err(at("[server]")("`rate` and `burst` are positive numbers".to_owned()));
        }
        let session_key = self.server.session_key.map(|key| key.read());
        let session_key = session_key.transpose().map_err(at("[server] session_key"))?;
        if session_key.as_ref().is_some_and(|key| key.expose().len() < 32) {
            return Err(at("[server] session_key")("it has at least 32 characters".to_owned()));
        }
        let server = Server {
            session_key,
            listen: self.server.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            tls: self.server.tls.map(|tls| (base.join(tls.certificate), base.join(tls.key))),
            audit: self
                .server
                .audit
                .map_or_else(|| state.join("audit.jsonl"), |path| base.join(path)),
            max_body: usize::try_from(self.server.max_body.map_or(1 << 20, |bytes| bytes.0))
                .unwrap_or(usize::MAX),
            timeout: span(self.server.timeout, 30),
            connections: self.server.connections.unwrap_or(1024).max(1),
            rate: (rate, burst),
            public_metrics: self.server.public_metrics,
            state: state.clone(),
        };
        let url = self.queue.url.map(|url| url.read()).transpose().map_err(at("[queue]"))?;
        let queue = QueueConfig {
            url,
            lease: span(self.queue.lease, 60).max(Duration::from_secs(3)),
            attempts: i64::from(self.queue.attempts.unwrap_or(5).max(1)),
            lost: i64::from(self.queue.lost.unwrap_or(20)),
        };
        let workers = Workers {
            count: self.workers.count.unwrap_or(2),
            timeout: span(self.workers.timeout, 3600),
            memory: self.workers.memory.map(|bytes| bytes.0),
            store: self.workers.store.map_or_else(|| state.join("store"), |path| base.join(path)),
            scratch: self
                .workers
                .scratch
                .map_or_else(|| state.join("scratch"), |path| base.join(path)),
            drain: span(self.workers.drain, 300),
            idle: Duration::from_millis(500),
        };
        let trials = Trials::resolve(self.trials, base).map_err(at("[trials]"))?;
        let mut registries = source::Options::from_env();
        registries.insecure_registries.extend(self.outgoing.plain_http.iter().cloned());
        if let Some(file) = self.outgoing.ca_file {
            registries.ca_file = Some(base.join(file));
        }
        if let Some(file) = self.outgoing.auth_file {
            registries.auth_files.insert(0, base.join(file));
        }
        if let Some(retries) = self.outgoing.retries {
            registries.retries = retries;
        }
        let allow = self.outgoing.allow.iter().map(|text| text.parse::<Network>());
        let allow = allow.collect::<Result<Vec<_>, _>>().map_err(at("[outgoing] allow"))?;
        let guard = Guard::new(allow, self.outgoing.proxy);

        let mut destinations = BTreeMap::new();
        for table in self.destination {
            let place = format!("[[destination]] `{}`", table.name);
            let (name, destination) = Destination::resolve(table, base).map_err(at(&place))?;
            if destinations.insert(name, destination).is_some() {
                return Err(at(&place)("there are two of this name".to_owned()));
            }
        }
        let mut webhooks = BTreeMap::new();
        for table in self.webhook {
            let place = format!("[[webhook]] `{}`", table.name);
            let webhook = Webhook::resolve(table).map_err(at(&place))?;
            if webhooks.insert(webhook.name.clone(), webhook).is_some() {
                return Err(at(&place)("there are two of this name".to_owned()));
            }
        }
        let mut rules = Vec::new();
        for table in self.rule {
            let place = format!("[[rule]] `{}`", table.name);
            let rule = rule(table, &destinations, trials.is_some());
            rules.push(rule.map_err(at(&place))?);
        }
        unique(rules.iter().map(|rule| rule.name.as_str())).map_err(at("[[rule]]"))?;
        let mut tokens = Vec::new();
        for table in self.token {
            let place = format!("[[token]] `{}`", table.name);
            tokens.push(token(table).map_err(at(&place))?);
        }
        unique(tokens.iter().map(|token: &Token| token.name.as_str())).map_err(at("[[token]]"))?;
        let mut polls = Vec::new();
        for table in self.poll {
            let place = format!("[[poll]] `{}`", table.name);
            polls.push(poll(table).map_err(at(&place))?);
        }
        unique(polls.iter().map(|poll: &Poll| poll.name.as_str())).map_err(at("[[poll]]"))?;
        let limits = self
            .tenant
            .into_iter()
            .map(|(name, table)| (name, Limit { running: table.running, queued: table.queued }));
        let callback_secret = self.callbacks.secret.map(|secret| secret.read());
        Ok(Config {
            server,
            queue,
            workers,
            trials,
            registries,
            guard,
            webhooks,
            rules,
            destinations,
            tokens,
            polls,
            limits: limits.collect(),
            retention: Retention {
                results: self.retention.results.map(|span| span.0),
                jobs: self.retention.jobs.map(|span| span.0),
                store: self.retention.store.map(|span| span.0),
            },
            callback_secret: callback_secret.transpose().map_err(at("[callbacks]"))?,
        })
    }
}

fn span(given: Option<Span>, seconds: u64) -> Duration {
    given.map_or(Duration::from_secs(seconds), |span| span.0)
}

/// `$XDG_STATE_HOME/dock2uni`, else `~/.local/state/dock2uni`.
fn default_state() -> Option<PathBuf> {
    Some(environment::base("XDG_STATE_HOME", ".local/state")?.join("dock2uni"))
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("there are two called `{name}`"));
        }
    }
    Ok(())
}

fn rule(
    table: RuleTable,
    destinations: &BTreeMap<String, Destination>,
    trials: bool,
) -> Result<Rule, String> {
    check_options(&table.options, trials).map_err(|error| format!("options: {error}"))?;
    check_destinations(&table.destination, destinations)?;
    if let Some(url) = &table.callback {
        crate::service::callback::check(url)?;
    }
    Ok(Rule {
        name: table.name,
        sources: table.source,
        repositories: table.repository,
        tags: table.tag,
        untagged: table.untagged,
        options: table.options,
        destinations: table.destination,
        priority: table.priority,
        tenant: table.tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
        callback: table.callback,
    })
}

/// Whether there are such destinations, and at least one is named.
///
/// # Errors
/// Names the one that is missing.
pub fn check_destinations(
    names: &[String],
    destinations: &BTreeMap<String, Destination>,
) -> Result<(), String> {
    if names.is_empty() {
        return Err("no destination is named".to_owned());
    }
    match names.iter().find(|name| !destinations.contains_key(*name)) {
        Some(name) => Err(format!("there is no destination `{name}`")),
        None => Ok(()),
    }
}

/// Says what is wrong with options before anything is queued; `trials` says whether images may be
/// booted.
///
/// # Errors
/// In words.
pub fn check_options(options: &Options, trials: bool) -> Result<(), String> {
    options.check()?;
    if options.boots() && !trials { Err(NO_TRIALS.to_owned()) } else { Ok(()) }
}

fn token(table: TokenTable) -> Result<Token, String> {
    let proof = match (table.sha256, table.secret) {
        (Some(hex), None) => {
            Proof::Hash(source::Digest::from_hex(&hex).map_err(|error| format!("sha256: {error}"))?)
        }
        (None, Some(secret)) => Proof::Text(secret.read()?),
        _ => return Err("it needs either `sha256` or `secret`".to_owned()),
    };
    Ok(Token {
        name: table.name,
        tenant: table.tenant,
        scopes: table.scopes,
        proof,
        images: table.images,
    })
}

fn poll(table: PollTable) -> Result<Poll, String> {
    let name: Result<source::Name, _> = format!("{}/x", table.registry).parse();
    name.map_err(|reason| format!("`registry`: {reason}"))?;
    if table.repositories.is_empty() {
        return Err("it names no repositories".to_owned());
    }
    let every = span(table.every, 300).max(Duration::from_secs(1));
    Ok(Poll { name: table.name, registry: table.registry, repositories: table.repositories, every })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [server]
        state = "state"
        timeout = "5s"
        max_body = "64k"
        [workers]
        count = 3
        [tenant."*"]
        running = 2
        [[destination]]
        name = "images"
        directory = "vms"
        [[webhook]]
        name = "registry"
        kind = "distribution"
        registry = "r.example:5000"
        token = "hush"
        [[rule]]
        name = "releases"
        repository = "team/**"
        tag = "v*"
        destination = ["images"]
        options = { formats = ["qcow2"] }
        [[token]]
        name = "ci"
        scopes = ["jobs:read", "jobs:write"]
        secret = "t0ken"
    "#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/d/c.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_becomes_a_configuration() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.server.state, Path::new("/etc/d/state"));
        assert_eq!((config.server.timeout.as_secs(), config.server.max_body), (5, 64 << 10));
        assert_eq!(config.limits["*"].running, Some(2));
        assert_eq!(config.rules[0].tenant, "default");
        assert_eq!(config.trials, None);
        let trials = GOOD.replace("[workers]", "[trials]\nallow = true\nqemu = \"q\"\n[workers]");
        let trials = parse(&trials.replace("[\"qcow2\"]", "[], slim = true")).unwrap().trials;
        let trials = trials.unwrap();
        assert_eq!((trials.memory_mib, trials.patience), (512, None));
        assert_eq!(trials.qemu.as_deref(), Some(Path::new("/etc/d/q")));
        let shown = format!("{config:?}");
        assert!(!shown.contains("hush") && !shown.contains("t0ken"), "{shown}");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (from, to, words) in [
            ("formats", "fromats", "fromats"),
            ("\"images\"]", "\"imges\"]", "[[rule]] `releases`: there is no destination `imges`"),
            ("qcow2", "qcow9", "[[rule]] `releases`: options:"),
            ("distribution", "distro", "distro"),
            ("token = \"hush\"", "", "[[webhook]] `registry`"),
            ("\"5s\"", "\"5 parsecs\"", "time span"),
            ("jobs:read", "jobs:reed", "jobs:reed"),
            ("r.example:5000", "r.example:99999", "[[webhook]] `registry`"),
            ("secret = \"t0ken\"", "", "[[token]] `ci`: it needs either"),
            ("[workers]", "[wrokers]", "wrokers"),
            ("[\"qcow2\"]", "[], verify = true", "`allow = true` in [trials]"),
            ("[\"qcow2\"]", "[\"ova\"], verify = true", "QEMU reads none"),
            ("[workers]", "[trials]\naccel = \"hvf\"\n[workers]", "[trials]: `accel`"),
            ("[workers]", "[trials]\nmemory = \"1m\"\n[workers]", "[trials]: `memory`"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(words), "{from} -> {to}: {error}");
            assert!(error.contains("/etc/d/c.toml"), "{error}");
        }
    }
}
