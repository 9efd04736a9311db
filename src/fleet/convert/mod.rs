//! Converts a whole fleet.
//!
//! ```text
//! Orders ─ describe ─> digests ─ keys ─> Tasks, one for each key ─ workers ─> OUT/disks/KEY.EXT
//! ```
//!
//! - A disk is named by the key of all that it is made of (image digest, options, kernel), and appears
//!   whole or not at all. So what is there is done, whoever made it, and a run that was killed
//!   goes on where it was by running again. Orders with the same key are one task.
//! - The [`journal`] keeps what can't be told from the disks: which digests names were pinned to.
//! - An image's root is made once, for all its options; a layer of several images is inflated once
//!   ([`shared`]).
//! - What fails for a while is tried again while others are worked on ([`queue`]).

mod images;
mod journal;
mod key;
mod queue;
mod report;
mod shared;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dock2uni_format::record::{Mount, Variable};

use super::plan::{Item, Problem, Verdict};
use super::up::baked::{self, Baked};
use super::{Image, Severity, Workload};
use crate::config::Overrides;
use crate::convert::{self, DiskOptions, Output, RootOptions};
use crate::disk::{Format, Place};
use crate::erofs::Compression;
use crate::pipeline::{self, Watch};
use crate::source::{self, Store};
use crate::{causes, guest};

pub use images::References;
use journal::Journal;
use queue::Queue;
pub use report::{DiskFile, Outcome, Report, Status};
use shared::Shared;

/// One thing to convert.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its name, unique among all.
    pub name: String,
    /// What is converted.
    pub image: Image,
    /// Digest of the manifest that a plan has pinned.
    pub digest: Option<String>,
    /// Options.
    pub overrides: Overrides,
    /// What its disks say is mounted.
    pub mounts: Vec<Mount>,
    /// Variables whose values its disks leave to the host.
    pub variables: Vec<Variable>,
    /// Files that are put into the image.
    pub files: Vec<Baked>,
    /// Why it is left alone.
    pub refused: Option<Problem>,
}

impl Order {
    /// What a plan says. With `force` its verdict doesn't count.
    pub fn of_item(item: &Item, force: bool) -> Order {
        let mut order = Order::of_workload(&item.workload, force);
        order.digest.clone_from(&item.digest);
        if item.verdict == Verdict::WontRun && !force {
            let reason = item.reasons.first();
            let text = reason.map_or("the plan says that it won't run", |reason| &reason.text);
            let hint = reason.and_then(|reason| reason.advice.clone());
            order.refused = Some(refusal(text, hint));
        }
        order
    }

    /// What a source says.
    pub fn of_workload(workload: &Workload, force: bool) -> Order {
        let blocker = workload.notes.iter().find(|note| note.severity == Severity::Blocker);
        Order {
            name: workload.name.clone(),
            image: workload.image.clone(),
            digest: None,
            overrides: workload.overrides(),
            mounts: Vec::new(),
            variables: Vec::new(),
            files: Vec::new(),
            refused: blocker.filter(|_| !force).map(|note| refusal(&note.text, None)),
        }
    }
}

fn refusal(text: &str, hint: Option<String>) -> Problem {
    let hint = hint.or_else(|| Some("`--force` converts it all the same".to_owned()));
    Problem { text: text.to_owned(), hint, transient: false }
}

/// How a fleet is converted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for disks, journal and report.
    pub out: PathBuf,
    /// Formats, each once.
    pub formats: Vec<Format>,
    /// Where the kernel finds the root; by the format if `None`.
    pub place: Option<Place>,
    /// How roots are compressed, if they are.
    pub compression: Option<Compression>,
    /// Conversions side by side, at least one.
    pub jobs: usize,
    /// How often something that fails for a while is tried again.
    pub retries: u32,
    /// Wait before the first of these; it doubles with each.
    pub retry_delay: Duration,
}

/// Where images come from. Called from several threads.
pub trait Images: Sync {
    /// Describes an image: manifest and configuration. Its layers need not be there.
    ///
    /// # Errors
    /// In words.
    fn describe(&self, image: &Image, digest: Option<&str>) -> Result<source::Image, Problem>;

    /// Brings it in with all its layers.
    ///
    /// # Errors
    /// In words.
    fn fetch(
        &self,
        image: &Image,
        digest: &str,
        watch: &dyn Watch,
    ) -> Result<source::Image, Problem>;
}

/// Is told how everything gets on, from any thread.
pub trait Observer: Sync {
    /// So many of all images have been described.
    fn described(&self, _done: usize, _all: usize) {}

    /// A conversion begins; what is returned is dropped when it ends.
    fn start(&self, name: &str) -> Box<dyn Watch>;

    /// One failed and is tried again after `wait`.
    fn retrying(&self, _name: &str, _why: &Problem, _wait: Duration) {}

    /// So many of all orders are done with; this one is the last of them.
    fn ended(&self, _outcome: &Outcome, _done: usize, _all: usize) {}
}

/// Why a fleet could not even be begun.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file in the output directory.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// Verb.
        what: &'static str,
        /// Object.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else is at work there.
    #[error("another `fleet convert` is at work in `{}`", .0.display())]
    Busy(PathBuf),
    /// There is no kernel to put into disks.
    #[error(transparent)]
    NoKernel(#[from] guest::NoKernel),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Io { .. } => None,
            Error::Busy(_) => Some("wait for it, or name another directory with `--output`"),
            Error::NoKernel(_) => Some("build it without D2U_KERNEL"),
        }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { what, path, source }
    }
}

/// A disk set to make, for all orders with its key.
struct Task<'a> {
    key: String,
    /// Indices of its orders; the first one's options stand for all.
    orders: Vec<usize>,
    /// With the files that are put into it.
    image: source::Image,
    order: &'a Order,
}

/// Converts all orders. One that fails leaves the others alone.
///
/// # Errors
/// If nothing can be begun. What happened to each order is in the report.
pub fn convert(
    orders: &[Order],
    options: &Options,
    images: &dyn Images,
    store: &Store,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    let started = Instant::now();
    let kernel = guest::kernel()?;
    let disks = options.out.join("disks");
    std::fs::create_dir_all(&disks).map_err(Error::io("create", &disks))?;
    let journal = Journal::open(&options.out)?;
    let (described, failures) = describe(orders, options, images, &journal, observer)?;

    let mut tasks: Vec<Task<'_>> = Vec::new();
    let mut by_key: HashMap<String, usize> = HashMap::new();
    let mut unready: BTreeMap<usize, Problem> = BTreeMap::new();
    for (index, order) in orders.iter().enumerate() {
        let wanted = (&order.image, order.digest.as_deref());
        let Some(image) = described.get(&wanted) else { continue };
        if order.refused.is_some() {
            continue;
        }
        let mut image = image.clone();
        if let Err(error) = baked::add(&mut image, &order.files, store) {
            let problem =
                Problem { text: causes::line(&error), hint: error.hint(), transient: false };
            unready.insert(index, problem);
            continue;
        }
        let how = (options.place, options.compression);
        let key = key::of(&image, order, how, kernel);
        match by_key.get(&key) {
            Some(&task) => tasks[task].orders.push(index),
            None => {
                by_key.insert(key.clone(), tasks.len());
                tasks.push(Task { key, orders: vec![index], image, order });
            }
        }
    }
    let mut outcomes: Vec<Option<Outcome>> = vec![None; orders.len()];
    let done = AtomicUsize::new(0);
    let end = |outcomes: &mut Vec<Option<Outcome>>, index: usize, outcome: Outcome| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        observer.ended(&outcome, done, orders.len());
        outcomes[index] = Some(outcome);
    };
    for (index, order) in orders.iter().enumerate() {
        if let Some(problem) = &order.refused {
            let status = Status::Refused;
            end(&mut outcomes, index, Outcome::problem(order, status, problem.clone(), 0));
        } else if let Some(problem) = unready.remove(&index) {
            end(&mut outcomes, index, Outcome::problem(order, Status::Failed, problem, 1));
        } else if let Some((problem, attempts)) =
            failures.get(&(&order.image, order.digest.as_deref()))
        {
            let outcome = Outcome::problem(order, Status::Failed, problem.clone(), *attempts);
            end(&mut outcomes, index, outcome);
        }
    }

    // Different roots first: two tasks of one root would wait for each other.
    let mut seen: HashMap<Vec<source::Digest>, usize> = HashMap::new();
    let mut order: Vec<(usize, usize)> = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        let root = task.image.layers.iter().map(|layer| layer.diff_id).collect();
        let nth = seen.entry(root).or_default();
        order.push((*nth, at));
        *nth += 1;
    }
    order.sort_unstable();
    let work = options.out.join(".work");
    let shared = Shared::new(&work, tasks.iter().map(|t| &t.image), options.compression, store)
        .map_err(Error::io("create", &options.out))?;
    let queue = Queue::new(order.into_iter().map(|(_, at)| at), options);
    let ended = Mutex::new((outcomes, None));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, tasks.len().max(1)) {
            scope.spawn(|| {
                while let Some((at, attempt)) = queue.next() {
                    let task = &tasks[at];
                    let name = &orders[task.orders[0]].name;
                    let begun = Instant::now();
                    let made = make(task, name, options, images, store, &shared, observer);
                    match made {
                        Err(problem) if problem.transient && attempt < options.retries => {
                            let wait = queue.again(at, attempt);
                            observer.retrying(name, &problem, wait);
                        }
                        made => {
                            let seconds = begun.elapsed().as_secs_f64();
                            let noted = journal.ended(task.key.as_str(), &made, attempt + 1);
                            let mut ended = ended.lock().unwrap_or_else(|p| p.into_inner());
                            let (outcomes, failure) = &mut *ended;
                            if let Err(error) = noted {
                                failure.get_or_insert(error);
                            }
                            for (nth, &index) in task.orders.iter().enumerate() {
                                let of = &orders[index];
                                let outcome = match &made {
                                    Ok(made) => Outcome::made(of, made, task, nth, seconds),
                                    Err(problem) => Outcome::problem(
                                        of,
                                        Status::Failed,
                                        problem.clone(),
                                        attempt + 1,
                                    ),
                                };
                                end(outcomes, index, outcome);
                            }
                            shared.done_with(&task.image);
                            queue.done();
                        }
                    }
                }
            });
        }
    });
    let (outcomes, failure) = ended.into_inner().unwrap_or_else(|poison| poison.into_inner());
    if let Some(error) = failure {
        return Err(error);
    }
    // Every order was refused, failed to be described, or belongs to a task.
    let report = Report::new(outcomes.into_iter().flatten().collect(), started.elapsed());
    key::link(&options.out, &report)?;
    report.write(&options.out)?;
    journal.finish()?;
    Ok(report)
}

/// Which image an order wants: what it names, and the digest that is pinned.
type Wanted<'a> = (&'a Image, Option<&'a str>);
type Described<'a> = BTreeMap<Wanted<'a>, source::Image>;
type Failures<'a> = BTreeMap<Wanted<'a>, (Problem, u32)>;

/// Looks at every image once.
fn describe<'a>(
    orders: &'a [Order],
    options: &Options,
    images: &dyn Images,
    journal: &Journal,
    observer: &dyn Observer,
) -> Result<(Described<'a>, Failures<'a>), Error> {
    let mut wanted: Vec<Wanted<'a>> = orders
        .iter()
        .filter(|order| order.refused.is_none())
        .map(|order| (&order.image, order.digest.as_deref()))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let queue = Queue::new(0..wanted.len(), options);
    let found = Mutex::new((Described::new(), Failures::new(), None));
    let done = AtomicUsize::new(0);
    // It waits for servers, mostly.
    let threads = options.jobs.max(8).min(wanted.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, attempt)) = queue.next() {
                    let (image, digest) = wanted[at];
                    let pinned = digest.map(str::to_owned).or_else(|| journal.pin(image));
                    let result = images.describe(image, pinned.as_deref());
                    if let Err(problem) = &result
                        && problem.transient
                        && attempt < options.retries
                    {
                        let wait = queue.again(at, attempt);
                        observer.retrying(&image.to_string(), problem, wait);
                        continue;
                    }
                    let noted = match &result {
                        Ok(found) => journal.pinned(image, &found.manifest.to_string()),
                        Err(_) => Ok(()),
                    };
                    let mut found = found.lock().unwrap_or_else(|poison| poison.into_inner());
                    if let Err(error) = noted {
                        found.2.get_or_insert(error);
                    }
                    match result {
                        Ok(image) => drop(found.0.insert(wanted[at], image)),
                        Err(problem) => {
                            found.1.insert(wanted[at], (problem, attempt + 1));
                        }
                    }
                    observer.described(done.fetch_add(1, Ordering::Relaxed) + 1, wanted.len());
                    queue.done();
                }
            });
        }
    });
    match found.into_inner().unwrap_or_else(|poison| poison.into_inner()) {
        (_, _, Some(error)) => Err(error),
        (described, failures, None) => Ok((described, failures)),
    }
}

fn problem(error: pipeline::Error) -> Problem {
    let (hint, transient) = (error.hint(), error.is_transient());
    Problem { text: causes::line(&error), hint, transient }
}

/// What became of a task.
struct Made {
    files: Vec<DiskFile>,
    /// All of it was there before.
    reused: bool,
}

/// Makes the disks of one task that are not there yet.
fn make(
    task: &Task<'_>,
    name: &str,
    options: &Options,
    images: &dyn Images,
    store: &Store,
    shared: &Shared,
    observer: &dyn Observer,
) -> Result<Made, Problem> {
    let file = |format: &Format| Output {
        format: *format,
        path: options.out.join(key::file(&task.key, *format)),
    };
    let all: Vec<Output> = options.formats.iter().map(file).collect();
    let missing: Vec<Output> = all.iter().filter(|output| !output.path.exists()).cloned().collect();
    if !missing.is_empty() {
        let watch = observer.start(name);
        let mut image = task.image.clone();
        if !pipeline::has_root(&image, options.compression, store) {
            image = images.fetch(&task.order.image, &image.manifest.to_string(), &*watch)?;
            baked::add(&mut image, &task.order.files, store).map_err(|error| Problem {
                text: causes::line(&error),
                hint: error.hint(),
                transient: false,
            })?;
            let substituted = shared.substitute(&mut image);
            substituted.map_err(|error| problem(pipeline::failed(error.into(), &image, store)))?;
        }
        let Order { overrides, mounts, variables, .. } = task.order;
        let root = RootOptions { compression: options.compression, ..RootOptions::default() };
        let place = options.place;
        let disk = DiskOptions { place, root, mounts, variables, ..DiskOptions::default() };
        let made = pipeline::disks(&image, store, overrides, &missing, &disk, &*watch);
        made.map_err(|error| {
            let bad = matches!(&error, pipeline::Error::Convert(convert::Error::Rootfs(error))
                if error.is_bad_image());
            let mut problem = problem(error);
            problem.transient |= bad && shared.forget(&image);
            problem
        })?;
    }
    let files = options.formats.iter().zip(&all).map(|(format, output)| DiskFile {
        path: key::file(&task.key, *format),
        format: *format,
        // It was made now, or before and whole.
        size: output.path.metadata().map_or(0, |meta| meta.len()),
    });
    Ok(Made { files: files.collect(), reused: missing.is_empty() })
}
