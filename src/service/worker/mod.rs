//! Workers: threads that take jobs from the queue and see them through.
//!
//! Each job has three parties: its *thread*, which reads the conversion's events and publishes the
//! result; its *heart*, which renews the lease and learns that the job was called off or lost; and the
//! conversion's own process, which either of them kills. A worker that can't reach the queue goes on
//! for as long as its lease lasts, and stops then: somebody else has the job.

mod child;
mod housekeeping;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::child::{Conversion, Killer};
pub use self::housekeeping::SILENCE;
use super::config::Config;
use super::config::watch::Current;
use super::convert::{Access, Event, Task};
use super::job::{Outcome, State};
use super::metrics::Metrics;
use super::publish::{Publisher, Ready, STAGING};
use super::queue::{self, Beat, Lease, Progress, Queue};
use super::secret::random_hex;
use super::trace::Work;
use crate::source::{Digest, Name, Store};

/// Longest time to tell the queue of an end.
const PERSISTENCE: Duration = Duration::from_secs(600);

/// What all workers of a process share.
pub struct Shared {
    /// The configuration.
    pub config: Arc<Current>,
    /// The queue.
    pub queue: Arc<Queue>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The program that converts, with its first arguments.
    pub program: Vec<PathBuf>,
    /// Jobs at once.
    pub slots: usize,
    /// This process's name in the queue.
    pub name: String,
    /// The machine's name.
    pub host: String,
    bell: Bell,
    /// No more jobs are taken.
    draining: AtomicBool,
    /// Jobs are given back.
    leaving: AtomicBool,
    running: AtomicUsize,
}

/// Wakes threads that wait for work.
#[derive(Default)]
struct Bell {
    rung: Mutex<u64>,
    wake: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.wake.notify_all();
    }

    /// Waits for the bell, or for so long.
    fn wait(&self, time: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *rung;
        let waited = self.wake.wait_timeout_while(rung, time, |rung| *rung == before);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    /// What workers need.
    pub fn new(
        config: Arc<Current>,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
        program: Vec<PathBuf>,
        slots: usize,
    ) -> Arc<Shared> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Arc::new(Shared {
            config,
            queue,
            metrics,
            program,
            slots,
            name: format!("{host}-{}-{}", std::process::id(), random_hex(3)),
            host,
            bell: Bell::default(),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            running: AtomicUsize::new(0),
        })
    }

    /// Says that there is work.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Takes no more jobs.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    /// Gives back what is still running.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.drain();
    }

    /// Whether no more jobs are taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Jobs at work.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

/// Starts the workers of this process: a thread for each job at once, and some that keep house. They
/// end after [`Shared::drain`].
pub fn start(shared: &Arc<Shared>) -> Vec<thread::JoinHandle<()>> {
    let mut threads: Vec<_> = (0..shared.slots)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || work(&shared))
        })
        .collect();
    let chores: [fn(&Shared); 3] =
        [housekeeping::keep_house, housekeeping::keep_telling, housekeeping::keep_tidy];
    for chore in chores {
        let shared = shared.clone();
        threads.push(thread::spawn(move || chore(&shared)));
    }
    threads
}

/// Takes jobs until there shall be no more.
fn work(shared: &Shared) {
    let mut failures = 0u32;
    while !shared.is_draining() {
        let config = shared.config.get();
        match shared.queue.lease(&shared.name, config.queue.lease) {
            Ok(Some(lease)) => {
                failures = 0;
                shared.running.fetch_add(1, Ordering::SeqCst);
                see_through(shared, &config, &lease);
                shared.running.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(None) => {
                failures = 0;
                shared.bell.wait(config.workers.idle);
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "no job can be taken");
                shared.bell.wait(Duration::from_millis(250 * u64::from(failures.min(20))));
            }
        }
    }
}

/// How a job ended here.
enum End {
    /// With a result.
    Made(Box<Outcome>),
    /// There was such a result already.
    There(Box<Outcome>),
    /// There was nothing to do.
    Skipped(String),
    /// It failed; whether that may pass.
    Failed(String, bool),
}

/// Why a job was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Cancelled,
    Lost,
    Late,
    Leaving,
}

fn see_through(shared: &Shared, config: &Config, lease: &Lease) {
    let started = Instant::now();
    let id = &lease.job.id;
    let traced = Work::begin(lease);
    let (trace_id, span_id) = (&traced.context().trace, &traced.context().span);
    // Of the weightiest level, so that it is there whatever is logged.
    let span = tracing::error_span!("job", job = %id, %trace_id, %span_id);
    let _entered = span.enter();
    tracing::info!(image = %lease.job.request.image, "begun");
    let pulse = Pulse::new(&traced, config);
    let end = thread::scope(|scope| {
        scope.spawn(|| span.in_scope(|| pulse.keep(shared, lease)));
        let end = convert(shared, config, lease, &pulse);
        pulse.finish();
        end
    });
    let queue = &shared.queue;
    let state = match (pulse.stopped(), end) {
        (Some(Stop::Lost), _) => {
            shared.metrics.lost.inc();
            traced.end("lost", Some("another worker has it now"));
            tracing::warn!("another worker has it now");
            return;
        }
        (Some(Stop::Leaving), End::Failed(..)) => {
            traced.end("given back", None);
            persist(shared, "gives a job back", || queue.release(lease));
            tracing::info!("given back");
            return;
        }
        (Some(Stop::Cancelled), End::Failed(..)) => {
            persist(shared, "ends a job", || queue.give_up(lease, State::Cancelled, "called off"));
            State::Cancelled
        }
        (_, End::Made(outcome) | End::There(outcome)) => {
            persist(shared, "ends a job", || queue.complete(lease, &outcome).map(|o| o.is_some()));
            State::Done
        }
        (_, End::Skipped(why)) => {
            persist(shared, "ends a job", || queue.give_up(lease, State::Skipped, &why));
            State::Skipped
        }
        (stop, End::Failed(why, passes)) => {
            let why = match stop {
                Some(Stop::Late) => {
                    format!("it took longer than {} s", config.workers.timeout.as_secs())
                }
                _ => why,
            };
            tracing::warn!(%why, passes, "failed");
            traced.end("failed", Some(&why));
            if passes && stop.is_none() {
                let wait = backoff(lease.job.attempts);
                let most = config.queue.attempts;
                persist(shared, "puts a job off", || queue.retry_later(lease, &why, wait, most));
                shared.metrics.finished.with_label_values(&["put-off"]).inc();
                return;
            } else {
                persist(shared, "ends a job", || queue.give_up(lease, State::Failed, &why));
            }
            State::Failed
        }
    };
    if state != State::Failed {
        traced.end(state.name(), None);
    }
    shared.metrics.finished.with_label_values(&[state.name()]).inc();
    shared.metrics.seconds.observe(started.elapsed().as_secs_f64());
    tracing::info!(state = state.name(), millis = started.elapsed().as_millis() as u64, "over");
}

/// Ten seconds, and twice as long each time, up to half an hour.
fn backoff(attempts: i64) -> Duration {
    let doubled = 1u64 << u32::try_from(attempts.clamp(0, 10)).unwrap_or(10);
    Duration::from_secs((10 * doubled).min(1800))
}

/// Tells the queue something until it has understood. If it says that the job is no longer ours, that
/// is all right: then it is another's.
fn persist(shared: &Shared, what: &str, tell: impl Fn() -> Result<bool, queue::Error>) {
    let begun = Instant::now();
    let mut wait = Duration::from_millis(200);
    loop {
        match tell() {
            Ok(true) => return,
            Ok(false) => {
                shared.metrics.lost.inc();
                tracing::warn!("the job is another worker's by now");
                return;
            }
            Err(error) if error.passes() && begun.elapsed() < PERSISTENCE => {
                tracing::warn!(%error, "the queue isn't there while a worker {what}");
                thread::sleep(wait);
                wait = (wait * 2).min(Duration::from_secs(5));
            }
            Err(error) => {
                tracing::error!(%error, "the queue refuses while a worker {what}");
                return;
            }
        }
    }
}

/// A job's heart.
struct Pulse<'a> {
    traced: &'a Work,
    progress: Mutex<Progress>,
    killer: Mutex<Option<Killer>>,
    stop: Mutex<Option<Stop>>,
    over: AtomicBool,
    bell: Bell,
    /// How long the lease lasts, and when the job must be over.
    lease: Duration,
    deadline: Instant,
}

impl Pulse<'_> {
    fn new<'a>(traced: &'a Work, config: &Config) -> Pulse<'a> {
        Pulse {
            traced,
            progress: Mutex::default(),
            killer: Mutex::default(),
            stop: Mutex::default(),
            over: AtomicBool::new(false),
            bell: Bell::default(),
            lease: config.queue.lease,
            deadline: Instant::now() + config.workers.timeout,
        }
    }

    /// Beats until the job is over.
    fn keep(&self, shared: &Shared, lease: &Lease) {
        let pace = (self.lease / 4).min(Duration::from_secs(5));
        let mut heard = Instant::now();
        while !self.over.load(Ordering::SeqCst) {
            self.bell.wait(pace.min(Duration::from_secs(1)));
            if self.over.load(Ordering::SeqCst) {
                self.last_words(shared, lease);
                return;
            }
            if shared.leaving.load(Ordering::SeqCst) {
                self.end(Stop::Leaving);
            }
            if Instant::now() > self.deadline {
                self.end(Stop::Late);
            }
            let progress = {
                let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
                let lines = std::mem::take(&mut progress.lines);
                Progress { lines, ..progress.clone() }
            };
            match shared.queue.beat(lease, self.lease, &progress) {
                Ok(Beat::Held) => heard = Instant::now(),
                Ok(Beat::Cancelled) => {
                    heard = Instant::now();
                    self.end(Stop::Cancelled);
                }
                Ok(Beat::Lost) => self.end(Stop::Lost),
                Err(error) => {
                    // The lines are told with the next beat.
                    let mut now = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
                    let later = std::mem::replace(&mut now.lines, progress.lines);
                    now.lines.extend(later);
                    drop(now);
                    tracing::warn!(%error, "a lease could not be renewed");
                    if heard.elapsed() >= self.lease {
                        self.end(Stop::Lost);
                    }
                }
            }
        }
    }

    /// Tells what was said since the last beat. Without it the log would end before the end.
    fn last_words(&self, shared: &Shared, lease: &Lease) {
        let progress = {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *progress)
        };
        if progress.lines.is_empty() || self.stopped() == Some(Stop::Lost) {
            return;
        }
        if let Err(error) = shared.queue.beat(lease, self.lease, &progress) {
            tracing::warn!(%error, lines = progress.lines.len(), "the end of a log is lost");
        }
    }

    /// Stops the job; the first reason counts, but that it is lost outweighs all.
    fn end(&self, why: Stop) {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if stop.is_none() || why == Stop::Lost {
            *stop = Some(why);
        }
        drop(stop);
        if let Some(killer) = &*self.killer.lock().unwrap_or_else(PoisonError::into_inner) {
            killer.kill();
        }
    }

    fn stopped(&self) -> Option<Stop> {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    fn stage(&self, stage: &str, done: u64, total: u64) {
        self.traced.stage(stage);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.stage != stage {
            progress.lines.push(stage.to_owned());
        }
        stage.clone_into(&mut progress.stage);
        (progress.done, progress.total) = (done, total);
    }

    fn line(&self, text: String) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.lines.len() < 100 {
            progress.lines.push(text);
        }
    }
}

/// A directory that is removed with all that is in it, unless it has moved away.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn convert(shared: &Shared, config: &Config, lease: &Lease, pulse: &Pulse<'_>) -> End {
    let request = &lease.job.request;
    let later = |text: String| End::Failed(text, true);
    let never = |text: String| End::Failed(text, false);
    let name = match request.name() {
        Ok(name) => name,
        Err(reason) => return never(reason.to_owned()),
    };
    let store = match Store::open(&config.workers.store) {
        Ok(store) => store,
        Err(error) => return later(error.to_string()),
    };
    let mut registries = config.registries.clone();
    registries.reach = Some(Arc::new(config.guard.clone()));
    let publisher = Publisher {
        destinations: &config.destinations,
        registries: &registries,
        guard: &config.guard,
        store: &store,
    };
    let base = publisher.base(&request.destinations, &config.workers.scratch).join(STAGING);
    let files = base.join(staging_name(lease));
    if let Err(error) = std::fs::create_dir_all(&files) {
        return later(format!("`{}`: {error}", files.display()));
    }
    let _scratch = Scratch(files.clone());
    let task = Task {
        image: request.image.clone(),
        options: request.options.clone(),
        access: Access::of(&config.registries, &config.guard),
        store: config.workers.store.clone(),
        files: files.clone(),
        memory: config.workers.memory,
        trials: config.trials.clone(),
    };
    let mut conversion = match Conversion::start(&shared.program, &task) {
        Ok(conversion) => conversion,
        Err(error) => return later(format!("the conversion cannot be started: {error}")),
    };
    *pulse.killer.lock().unwrap_or_else(PoisonError::into_inner) = Some(conversion.killer());
    if pulse.stopped().is_some() {
        return later("stopped".to_owned());
    }
    let converted = follow(shared, &mut conversion, &name, lease, pulse);
    let (mut outcome, subject) = match converted {
        Ok(Followed::Made(outcome, subject)) => (*outcome, subject),
        Ok(Followed::End(end)) => return end,
        Err(why) => {
            let ended = conversion.end();
            return later(format!("the conversion broke off ({ended}): {why}"));
        }
    };
    drop(conversion);
    if pulse.stopped().is_some() {
        return later("stopped".to_owned());
    }
    pulse.stage("publishing", 0, 0);
    let ready = Ready { image: &name, subject: subject.as_ref(), outcome: &outcome, files: &files };
    let tell = |destination: &str| pulse.line(format!("publishes to {destination}"));
    match publisher.publish(&request.destinations, &ready, &tell) {
        Ok(published) => {
            outcome.published = published;
            End::Made(Box::new(outcome))
        }
        Err(error) => End::Failed(error.to_string(), error.passes),
    }
}

/// Where a job's files are made. The name tells whose they are.
fn staging_name(lease: &Lease) -> String {
    format!("{}.{}", lease.job.id, lease.token)
}

enum Followed {
    Made(Box<Outcome>, Option<(String, u64)>),
    End(End),
}

/// Reads a conversion's events to the end.
fn follow(
    shared: &Shared,
    conversion: &mut Conversion,
    name: &Name,
    lease: &Lease,
    pulse: &Pulse<'_>,
) -> Result<Followed, String> {
    let mut outcome = Outcome::default();
    let mut subject = None;
    loop {
        let event = conversion.next().map_err(|error| error.to_string())?;
        match event.ok_or("it said nothing about its end")? {
            Event::Progress { stage, done, total } => pulse.stage(&stage, done, total),
            Event::Line { text } => pulse.line(text),
            Event::Resolved { digest, manifest, ours } => {
                if ours {
                    let why = "the image is a result of a conversion itself".to_owned();
                    return Ok(Followed::End(End::Skipped(why)));
                }
                let parsed: Digest = digest.parse().map_err(|_| "no digest".to_owned())?;
                outcome.key = lease.job.request.key(name, &parsed);
                pulse.line(format!("the image is {digest}"));
                outcome.digest = digest;
                subject = manifest;
                match shared.queue.result(&outcome.key) {
                    Ok(Some(there)) => return Ok(Followed::End(End::There(Box::new(there)))),
                    Ok(None) => {}
                    // Made again, then; there will be one result all the same.
                    Err(error) => tracing::warn!(%error, "no looking for a result"),
                }
                conversion.go_on().map_err(|error| error.to_string())?;
            }
            Event::Made { outcome: made } => {
                outcome = Outcome { digest: outcome.digest, key: outcome.key, ..*made };
                return Ok(Followed::Made(Box::new(outcome), subject));
            }
            Event::Failed { text, hint, passes } => {
                let hint = hint.map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
                return Ok(Followed::End(End::Failed(format!("{text}{hint}"), passes)));
            }
        }
    }
}

/// Whether a directory in a staging area belongs to nobody any more.
fn is_abandoned(queue: &Queue, path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name.split_once('.') {
        Some((id, token)) => queue.is_held(id, token).is_ok_and(|held| !held),
        None => name.starts_with("removed-"),
    }
}
