//! Jobs: what is asked for, and what has become of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{self, Overrides};
use crate::disk::{Format, Place};
use crate::erofs::Compression;
use crate::source::digest::Hasher;
use crate::source::{Digest, Name};

/// How an image is converted. Part of a job's identity: other options are another result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Formats of the disk; `raw` if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub formats: Vec<String>,
    /// Where the kernel finds the root: `disk` or `memory`; by the format if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// How the root's files are compressed: `lz4`; not at all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<String>,
    /// In place of the image's entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// In place of the image's command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Variables beside the image's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// In place of the image's working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// In place of the image's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// In place of the host name made of the image's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// In place of the image's stop signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Whether the compatibility report is made as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub report: bool,
    /// Whether the result is booted before it is published, and published only if it answers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
    /// Whether files that the image does not need are left out. It is booted to find that out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub slim: bool,
    /// Patterns of paths that are kept whatever else is found; for `slim`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// Patterns of paths that are left out whatever else is found; for `slim`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// Most patterns in one list, and bytes in one pattern.
const MAX_PATTERNS: usize = 100;
const MAX_PATTERN: usize = 1000;

impl Options {
    /// The formats, each once.
    ///
    /// # Errors
    /// Names one that there isn't.
    pub fn formats(&self) -> Result<Vec<Format>, String> {
        let mut formats = Vec::new();
        for name in &self.formats {
            let format: Format = name.parse()?;
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        if formats.is_empty() {
            formats.push(Format::Raw);
        }
        Ok(formats)
    }

    /// Where the root goes.
    ///
    /// # Errors
    /// If it is neither of the two places.
    pub fn place(&self) -> Result<Option<Place>, String> {
        match self.root.as_deref() {
            None => Ok(None),
            Some("disk") => Ok(Some(Place::Disk)),
            Some("memory") => Ok(Some(Place::Memory)),
            Some(other) => Err(format!("`root` is `disk` or `memory`, not `{other}`")),
        }
    }

    /// How the root is compressed.
    ///
    /// # Errors
    /// If there is no such method.
    pub fn compression(&self) -> Result<Option<Compression>, String> {
        self.compress.as_deref().map(str::parse).transpose()
    }

    /// The options as the planner takes them.
    ///
    /// # Errors
    /// If a variable cannot be one.
    pub fn overrides(&self) -> Result<Overrides, config::Error> {
        let mut overrides = Overrides {
            entrypoint: self.entrypoint.clone(),
            command: self.command.clone(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            stop_signal: self.stop_signal.clone(),
            ..Overrides::default()
        };
        for (name, value) in &self.env {
            overrides.env.push(config::env_from_option(&format!("{name}={value}"))?);
        }
        Ok(overrides)
    }

    /// Says what is wrong with them before anything is queued.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        let formats = self.formats()?;
        self.place()?;
        self.compression()?;
        if self.verify && !formats.iter().any(|format| format.qemu().is_some()) {
            return Err(
                "QEMU reads none of the `formats`: add `raw`, or leave `verify` away".into()
            );
        }
        for (name, patterns) in [("keep", &self.keep), ("drop", &self.drop)] {
            if !self.slim && !patterns.is_empty() {
                return Err(format!("`{name}` belongs to `slim`"));
            }
            let long = patterns.iter().any(|pattern| pattern.len() > MAX_PATTERN);
            if long || patterns.len() > MAX_PATTERNS {
                return Err(format!(
                    "`{name}` has up to {MAX_PATTERNS} patterns of {MAX_PATTERN} bytes"
                ));
            }
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains('=')) {
            return Err(format!("`{name}` is no name for a variable"));
        }
        self.overrides().map(|_| ()).map_err(|error| error.to_string())
    }

    /// Whether a conversion runs the image, in a VM on a worker.
    pub fn boots(&self) -> bool {
        self.verify || self.slim
    }

    /// The same without the values of variables, for eyes.
    pub fn masked(&self) -> Options {
        let mut masked = self.clone();
        masked.env.values_mut().for_each(|value| *value = "***".to_owned());
        masked
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The image, always in a registry: never a path of this machine.
    pub image: String,
    /// How it is converted.
    pub options: Options,
    /// Names of the destinations.
    pub destinations: Vec<String>,
    /// Greater ones go first.
    pub priority: i64,
    /// Who it is for.
    pub tenant: String,
    /// Where the end is told.
    pub callback: Option<String>,
    /// Who asked: `webhook:NAME`, `api:TOKEN`, `poll:NAME`.
    pub origin: String,
    /// The rule that matched, if one did.
    pub rule: Option<String>,
}

impl Request {
    /// The image's name.
    ///
    /// # Errors
    /// If it is none.
    pub fn name(&self) -> Result<Name, &'static str> {
        self.image.parse()
    }

    /// What makes two requests the same one while the first of them isn't over. A tag may move: it
    /// identifies only what has not begun. (A job loses its key when it begins, if it has no digest.)
    pub fn dedup(&self) -> String {
        match self.name().ok().and_then(|name| name.digest.map(|digest| (name, digest))) {
            Some((name, digest)) => format!("digest:{}", self.key(&name, &digest)),
            None => {
                let parts = [self.image.as_str(), &self.identity()];
                format!("tag:{}", hash(&parts))
            }
        }
    }

    /// The key of the result: one for each digest, options and destinations. Where a destination's
    /// name holds the repository or tag, results differ by those as well.
    pub fn key(&self, name: &Name, digest: &Digest) -> String {
        let digest = digest.to_string();
        hash(&[&name.host, &name.repository, &digest, &self.identity()])
    }

    /// Everything but the image.
    fn identity(&self) -> String {
        // Plain data: it becomes JSON.
        serde_json::to_string(&(&self.options, &self.destinations)).unwrap_or_default()
    }
}

fn hash(parts: &[&str]) -> String {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish().hex()
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for a worker.
    Queued,
    /// A worker holds it.
    Running,
    /// Its result is published.
    Done,
    /// It won't be tried again.
    Failed,
    /// Somebody called it off.
    Cancelled,
    /// There was nothing to do: the image is one of our own results.
    Skipped,
}

impl State {
    /// All of them.
    pub const ALL: [State; 6] = [
        State::Queued,
        State::Running,
        State::Done,
        State::Failed,
        State::Cancelled,
        State::Skipped,
    ];

    /// Its name, here and in the database.
    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Skipped => "skipped",
        }
    }

    /// The state of that name.
    pub fn of(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        !matches!(self, State::Queued | State::Running)
    }
}

/// A job as the queue has it. Times are milliseconds since 1970.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Its name.
    pub id: String,
    /// Where it is.
    pub state: State,
    /// What was asked for.
    pub request: Request,
    /// Failures so far that may pass.
    pub attempts: i64,
    /// Workers lost with it so far.
    pub lost: i64,
    /// Who holds or held it.
    pub worker: Option<String>,
    /// What is being done.
    pub stage: Option<String>,
    /// Bytes done of that, and bytes in all.
    pub progress: Option<(i64, i64)>,
    /// What came of it.
    pub result: Option<Outcome>,
    /// Why it failed, or why the last attempt did.
    pub error: Option<String>,
    /// Whether somebody wants it stopped.
    pub cancelling: bool,
    /// The trace that it belongs to, if it came with a request.
    pub trace: Option<String>,
    /// When it came in.
    pub created: i64,
    /// When a worker first took it.
    pub started: Option<i64>,
    /// When it ended.
    pub finished: Option<i64>,
    /// When it last changed.
    pub updated: i64,
}

/// What a conversion made, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The image by digest.
    pub digest: String,
    /// The result's key, see [`Request::key`].
    pub key: String,
    /// The files.
    pub files: Vec<ResultFile>,
    /// Where they are.
    pub published: Vec<Published>,
    /// The verdict of the report, if one was made.
    pub verdict: Option<String>,
    /// What answered when the result was booted, a line for each; if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Vec<String>>,
    /// What was left out, if the image was slimmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slimmed: Option<Slimmed>,
    /// Milliseconds that the conversion took.
    pub millis: u64,
    /// Whether another job had made it already.
    #[serde(default)]
    pub reused: bool,
}

/// An image's root before and after files were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slimmed {
    /// Files of the whole image.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Files that were kept.
    pub kept_files: u64,
    /// Bytes in them.
    pub kept_bytes: u64,
}

/// One file of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFile {
    /// Its name within the result.
    pub name: String,
    /// Format of a disk; `report` for the report.
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of them, as digest.
    pub digest: String,
}

/// A place where a result is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Name of the destination.
    pub destination: String,
    /// Directory, prefix of the store, or reference.
    pub location: String,
    /// Digest of the manifest, if it went to a registry.
    pub digest: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(image: &str) -> Request {
        Request {
            image: image.to_owned(),
            options: Options::default(),
            destinations: vec!["files".into()],
            priority: 0,
            tenant: "default".into(),
            callback: None,
            origin: "api:test".into(),
            rule: None,
        }
    }

    #[test]
    fn requests_are_the_same_by_digest_options_and_destinations() {
        let digest = Digest::of(b"x");
        let a = request(&format!("r.io/a:1@{digest}"));
        let mut b = request(&format!("r.io/a:2@{digest}"));
        b.priority = 9;
        assert_eq!(a.dedup(), b.dedup());
        b.options.formats = vec!["qcow2".into()];
        assert_ne!(a.dedup(), b.dedup());
        assert_ne!(request("r.io/a:1").dedup(), request("r.io/a:2").dedup());
        assert!(request("r.io/a:1").dedup().starts_with("tag:"));
    }

    #[test]
    fn options_are_checked_before_they_are_queued() {
        let mut options = Options::default();
        assert_eq!(options.check(), Ok(()));
        options.formats = vec!["floppy".into()];
        assert!(options.check().is_err());
        options = Options { compress: Some("zip".into()), ..Options::default() };
        assert!(options.check().unwrap_err().contains("lz4"));
        options = Options { root: Some("moon".into()), ..Options::default() };
        assert!(options.check().unwrap_err().contains("moon"));
        let env = [("A=B".to_owned(), "x".to_owned())].into();
        assert!(Options { env, ..Options::default() }.check().is_err());
        let keep = vec!["/usr/share/*".to_owned()];
        let kept = Options { keep, ..Options::default() };
        assert!(kept.check().unwrap_err().contains("`slim`"));
        assert_eq!(Options { slim: true, ..kept.clone() }.check(), Ok(()));
        let drop = vec!["x".repeat(MAX_PATTERN + 1)];
        assert!(Options { slim: true, drop, ..kept }.check().is_err());
        let mut verified =
            Options { verify: true, formats: vec!["ova".into()], ..Options::default() };
        assert!(verified.check().unwrap_err().contains("QEMU"));
        verified.formats.push("qcow2".into());
        assert_eq!(verified.check(), Ok(()));
        let json = serde_json::from_str::<Options>(r#"{"fromats": []}"#);
        assert!(json.unwrap_err().to_string().contains("fromats"));
    }

    #[test]
    fn values_of_variables_are_masked() {
        let env = [("KEY".to_owned(), "hunter2".to_owned())].into();
        let masked = Options { env, ..Options::default() }.masked();
        assert_eq!(masked.env["KEY"], "***");
    }
}
