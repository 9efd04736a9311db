//! One conversion, in a process of its own.
//!
//! What is converted is made by strangers. A process of its own can be ended at any moment (a job that is
//! called off, takes too long, or belongs to another worker by now), its memory has a limit, a crash
//! is one failed job, and it sees none of the service's secrets or connections.
//!
//! The worker writes a [`Task`] to its standard input and reads [`Event`]s, one JSON object a line, from
//! its standard output. After [`Event::Resolved`] the process waits for a line before it goes on, so
//! that the worker can look whether there is such a result already.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};

use super::job::{Options, Outcome, ResultFile};
use super::outgoing::Guard;
use super::trial::{Failed, Trials};
use crate::convert::{self, DiskOptions, Output, RootOptions};
use crate::disk::Format;
use crate::pipeline::{self, Watch};
use crate::rootfs::Limits;
use crate::source::digest::Hasher;
use crate::source::{self, Bar, Class, Digest, Image, Progress, Reference, Store};
use crate::{causes, plan, roots};

/// Longest task that is read.
const MAX_TASK: u64 = 4 << 20;
/// Shortest time between two reports of progress.
const PACE: Duration = Duration::from_millis(250);

/// Why a conversion that asks for boots is refused where there are none.
pub const NO_TRIALS: &str = "`verify` and `slim` boot the image on a worker, which the \
    configuration does not allow (hint: `allow = true` in [trials])";

/// What a conversion, and its worker at the end, say that they do; in this order.
pub const STAGES: [&str; 8] = [
    "resolving",
    "fetching",
    "slimming",
    "converting",
    "reporting",
    "verifying",
    "checking",
    "publishing",
];

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// The image.
    pub image: String,
    /// How it is converted.
    pub options: Options,
    /// How its registry is reached.
    pub access: Access,
    /// The layer store.
    pub store: PathBuf,
    /// An empty directory for the files.
    pub files: PathBuf,
    /// Most memory, in bytes.
    pub memory: Option<u64>,
    /// How the image is booted, if it may be.
    pub trials: Option<Trials>,
}

/// How registries are reached, as far as the configuration says it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Access {
    insecure: Vec<String>,
    ca_file: Option<PathBuf>,
    certs_dirs: Vec<PathBuf>,
    auth_files: Vec<PathBuf>,
    retries: u32,
    allow: Vec<String>,
    proxy: bool,
}

impl Access {
    /// What a conversion must know of these settings.
    pub fn of(options: &source::Options, guard: &Guard) -> Access {
        Access {
            insecure: options.insecure_registries.clone(),
            ca_file: options.ca_file.clone(),
            certs_dirs: options.certs_dirs.clone(),
            auth_files: options.auth_files.clone(),
            retries: options.retries,
            allow: guard.allowed(),
            proxy: guard.proxy(),
        }
    }

    /// The settings.
    ///
    /// # Errors
    /// If what is allowed is not understood.
    pub fn options(&self) -> Result<source::Options, String> {
        let allow = self.allow.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
        Ok(source::Options {
            insecure_registries: self.insecure.clone(),
            ca_file: self.ca_file.clone(),
            certs_dirs: self.certs_dirs.clone(),
            auth_files: self.auth_files.clone(),
            retries: self.retries,
            reach: Some(Arc::new(Guard::new(allow, self.proxy))),
            ..source::Options::default()
        })
    }
}

/// What happens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// So far.
    Progress {
        /// What is being done.
        stage: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all; 0 if that isn't known.
        total: u64,
    },
    /// Something for the log.
    Line {
        /// In words.
        text: String,
    },
    /// The image has been found.
    Resolved {
        /// Digest of its manifest.
        digest: String,
        /// Media type and length of the manifest.
        manifest: Option<(String, u64)>,
        /// Whether it is one of our own results.
        ours: bool,
    },
    /// The end: it was made.
    Made {
        /// What was made. Its digest and key are the worker's to fill in, as are the places.
        outcome: Box<Outcome>,
    },
    /// The end: it was not.
    Failed {
        /// Why, with its causes.
        text: String,
        /// What to do about it.
        hint: Option<String>,
        /// Whether it may work later.
        passes: bool,
    },
}

/// A failure on its way out.
struct Failure {
    text: String,
    hint: Option<String>,
    passes: bool,
}

/// Reads a task, does it, and says how it went. Returns the exit status.
pub fn main() -> u8 {
    let said = Said::default();
    match run(&said) {
        Ok(()) => 0,
        Err(Failure { text, hint, passes }) => {
            said.say(&Event::Failed { text, hint, passes });
            1
        }
    }
}

fn run(said: &Said) -> Result<(), Failure> {
    let internal = |text: String| Failure { text, hint: None, passes: false };
    confine().map_err(|error| internal(format!("the process cannot be confined: {error}")))?;
    let mut line = String::new();
    let mut input = io::BufReader::new(io::stdin());
    (&mut input)
        .take(MAX_TASK)
        .read_line(&mut line)
        .map_err(|error| internal(format!("no task: {error}")))?;
    let task: Task =
        serde_json::from_str(&line).map_err(|error| internal(format!("no task: {error}")))?;
    if let Some(memory) = task.memory {
        // A VM's machine gets more, and no more than it needs.
        let beyond = task.trials.as_ref().filter(|_| task.options.boots()).map_or(0, Trials::space);
        let maximum = Some(memory.saturating_add(beyond));
        let limit = Rlimit { current: Some(memory), maximum };
        setrlimit(Resource::As, limit).map_err(|error| internal(format!("memory: {error}")))?;
    }
    let started = Instant::now();
    let name = task.image.parse().map_err(|reason: &str| internal(reason.to_owned()))?;
    let reference = Reference::Registry(name);
    let options = task.access.options().map_err(internal)?;
    let store = Store::open(&task.store).map_err(of_source)?;

    said.progress("resolving", 0, 0);
    let described = source::Options { layers: false, ..options.clone() };
    let image = source::resolve(&reference, &described, &store, said).map_err(of_source)?;
    said.say(&resolved(&image, &store));
    line.clear();
    match input.read_line(&mut line) {
        Ok(length) if length > 0 => {}
        // It is not wanted.
        _ => return Ok(()),
    }
    let compression = task.options.compression().map_err(internal)?;
    // A root with files left out is made of the layers.
    let image = match pipeline::has_root(&image, compression, &store) && !task.options.slim {
        true => image,
        false => source::resolve(&reference, &options, &store, said).map_err(of_source)?,
    };
    let mut outcome = make(&task, &image, &store, said)?;
    outcome.millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    said.say(&Event::Made { outcome: Box::new(outcome) });
    Ok(())
}

/// Takes away what a conversion has no use for.
fn confine() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    // A core would hold credentials.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

fn resolved(image: &Image, store: &Store) -> Event {
    let manifest = fs::read(store.blob_path(&image.manifest)).ok();
    let value: Option<serde_json::Value> =
        manifest.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
    let media_type = value.as_ref().and_then(|value| value["mediaType"].as_str());
    let media_type = media_type.unwrap_or("application/vnd.oci.image.manifest.v1+json").to_owned();
    let ours = value.as_ref().is_some_and(|v| v["annotations"]["dev.dock2uni.kind"].is_string());
    let size = manifest.map(|bytes| bytes.len() as u64);
    Event::Resolved {
        digest: image.manifest.to_string(),
        manifest: size.map(|size| (media_type, size)),
        ours,
    }
}

/// Makes the files.
fn make(task: &Task, image: &Image, store: &Store, said: &Said) -> Result<Outcome, Failure> {
    let usage = |text: String| Failure { text, hint: None, passes: false };
    let options = &task.options;
    let overrides = options.overrides().map_err(|error| usage(causes::line(&error)))?;
    let outputs = outputs(&options.formats().map_err(usage)?, &task.files);
    let place = options.place().map_err(usage)?;
    let compression = options.compression().map_err(usage)?;
    let trials = task.trials.as_ref();
    if options.boots() && trials.is_none() {
        return Err(usage(NO_TRIALS.to_owned()));
    }
    let mut outcome = Outcome::default();
    let mut selection = None;
    if let Some(trials) = trials.filter(|_| options.slim) {
        said.progress("slimming", 0, 0);
        let (done, total) = (AtomicU64::new(0), image.layers.iter().map(|layer| layer.size).sum());
        let root = roots::of(image, Limits::default(), store, &|bytes| {
            said.paced("slimming", done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        });
        let root = root.map_err(|error| of_pipeline(pipeline::failed(error, image, store)))?;
        let line = |text: &str| said.line(text);
        let places = (store, root.as_path(), task.files.as_path());
        let slim = trials.slim(image, (options, &overrides), places, &line);
        let (kept, slimmed) = slim.map_err(|failed| of_trial(failed, said))?;
        (selection, outcome.slimmed) = (Some(kept), Some(slimmed));
    }
    let selection = selection.as_ref();
    let root = RootOptions { selection, compression, ..RootOptions::default() };
    let disk = DiskOptions { place, root, ..DiskOptions::default() };
    let made = pipeline::disks(image, store, &overrides, &outputs, &disk, said);
    let made = made.map_err(of_pipeline)?;
    let mut reports = Vec::new();
    if options.report {
        said.progress("reporting", 0, 0);
        // A slim one was chosen from the whole root, which lies there as it is.
        let root = roots::path(image, compression.filter(|_| selection.is_none()), store);
        let report = report(image, &root.map_err(|error| of_io(store.root(), error))?, &overrides)?;
        outcome.verdict =
            serde_json::to_value(report.verdict).ok().and_then(|v| v.as_str().map(str::to_owned));
        let path = task.files.join("report.json");
        let text = serde_json::to_vec_pretty(&report).unwrap_or_default();
        write(&path, &text).map_err(|error| of_io(&path, error))?;
        reports.push((path, "report"));
    }
    if let Some(trials) = trials.filter(|_| options.verify) {
        said.progress("verifying", 0, 0);
        let verified = trials.verify(&made.files, &made.record, (store, &task.files));
        let lines = verified.map_err(|failed| of_trial(failed, said))?;
        lines.iter().for_each(|line| said.line(line));
        outcome.verified = Some(lines);
    }
    said.progress("checking", 0, 0);
    let disks = outputs.iter().map(|output| (output.path.clone(), output.format.name()));
    let files = disks.chain(reports).map(|(path, kind)| describe(&path, kind));
    outcome.files = files.collect::<Result<_, _>>()?;
    Ok(outcome)
}

/// Tells the end of the console, and what went wrong.
fn of_trial(failed: Failed, said: &Said) -> Failure {
    for line in &failed.console {
        said.line(&format!("console: {line}"));
    }
    Failure { text: failed.text, hint: failed.hint, passes: failed.passes }
}

fn outputs(formats: &[Format], dir: &Path) -> Vec<Output> {
    let mut names = BTreeSet::new();
    let mut name = |format: Format| {
        let plain = format!("disk.{}", format.extension());
        match names.insert(plain.clone()) {
            true => plain,
            false => format!("disk-{}.{}", format.name(), format.extension()),
        }
    };
    formats.iter().map(|&format| Output { format, path: dir.join(name(format)) }).collect()
}

/// The report, from the image's root, which the disks were made of.
fn report(
    image: &Image,
    root: &Path,
    overrides: &crate::config::Overrides,
) -> Result<plan::Report, Failure> {
    let file = File::open(root).map_err(|error| of_io(root, error))?;
    plan::report_on(image, overrides, &file, 0).map_err(|error| Failure {
        hint: error.hint().map(str::to_owned),
        text: causes::line(&error),
        passes: false,
    })
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn describe(path: &Path, kind: &str) -> Result<ResultFile, Failure> {
    let failed = |error| of_io(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Hasher::new();
    io::copy(&mut file, &mut hasher).map_err(failed)?;
    let size = hasher.len();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    Ok(ResultFile { name, kind: kind.to_owned(), size, digest: hasher.finish().to_string() })
}

fn of_io(path: &Path, error: io::Error) -> Failure {
    let passes = error.kind() == io::ErrorKind::StorageFull;
    Failure { text: format!("`{}`: {error}", path.display()), hint: None, passes }
}

fn of_source(error: source::Error) -> Failure {
    let passes = error.is_transient()
        // A tag may appear a moment after it was announced, and a disk is somebody's to mend.
        || matches!(error, source::Error::TagUnknown { .. })
        || matches!(error.class(), Class::DiskFull | Class::Io);
    Failure { hint: error.hint(), text: causes::line(&error), passes }
}

fn of_pipeline(error: pipeline::Error) -> Failure {
    let full = matches!(&error, pipeline::Error::Convert(convert::Error::Write { source, .. })
        if source.kind() == io::ErrorKind::StorageFull);
    let passes = full || error.is_transient();
    Failure { hint: error.hint(), text: causes::line(&error), passes }
}

/// Writes events, from any thread.
#[derive(Default)]
struct Said {
    last: Mutex<Option<Instant>>,
    /// Bytes of all blobs that are being fetched.
    fetched: Arc<AtomicU64>,
    expected: AtomicU64,
    /// Bytes of layers that have been applied, and of all of them.
    applied: AtomicU64,
    layers: AtomicU64,
}

impl Said {
    fn say(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        let mut out = io::stdout().lock();
        // If nobody listens any more, this process is about to be killed.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }

    fn line(&self, text: &str) {
        self.say(&Event::Line { text: text.to_owned() });
    }

    fn progress(&self, stage: &str, done: u64, total: u64) {
        self.say(&Event::Progress { stage: stage.to_owned(), done, total });
    }

    /// Progress, but not too often.
    fn paced(&self, stage: &str, done: u64, total: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= PACE) {
            *last = Some(Instant::now());
            drop(last);
            self.progress(stage, done, total);
        }
    }
}

impl Progress for Said {
    fn start(&self, _: &Digest, total: u64) -> Box<dyn Bar> {
        self.expected.fetch_add(total, Ordering::Relaxed);
        let fetched = self.fetched.load(Ordering::Relaxed);
        self.paced("fetching", fetched, self.expected.load(Ordering::Relaxed));
        Box::new(Blob { fetched: self.fetched.clone(), here: 0 })
    }

    fn retrying(&self, reason: &str, wait: Duration) {
        let text = format!("{reason}; trying again in {} s", wait.as_secs_f32().ceil());
        self.say(&Event::Line { text });
    }
}

impl Watch for Said {
    fn applying(&self, total: u64) {
        self.layers.store(total, Ordering::Relaxed);
        self.progress("converting", 0, total);
    }

    fn applied(&self, bytes: u64) {
        let done = self.applied.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.paced("converting", done, self.layers.load(Ordering::Relaxed));
    }
}

struct Blob {
    fetched: Arc<AtomicU64>,
    here: u64,
}

impl Bar for Blob {
    fn advance(&mut self, bytes: u64) {
        self.here += bytes;
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    fn restart(&mut self) {
        self.fetched.fetch_sub(self.here, Ordering::Relaxed);
        self.here = 0;
    }

    fn finish(&mut self, _: source::Outcome) {}
}
