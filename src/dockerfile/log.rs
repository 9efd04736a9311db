//! What a build says: BuildKit's plain progress, line by line.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::source;

/// Receives what a build says. Called from several threads at once.
pub trait Progress: source::Progress {
    /// A line of text.
    fn line(&self, text: &str);
}

impl Progress for source::Quiet {
    fn line(&self, _: &str) {}
}

/// Hands out numbers to steps.
pub struct Log<'a> {
    progress: &'a dyn Progress,
    next: AtomicUsize,
    /// Lines of one step stay together.
    lock: Mutex<()>,
}

/// A step of a build.
pub struct Step<'a> {
    log: &'a Log<'a>,
    number: usize,
    started: Instant,
}

impl<'a> Log<'a> {
    /// A log without steps.
    pub fn new(progress: &'a dyn Progress) -> Log<'a> {
        Log { progress, next: AtomicUsize::new(1), lock: Mutex::new(()) }
    }

    /// Where images' progress goes.
    pub fn progress(&self) -> &'a dyn Progress {
        self.progress
    }

    /// Begins a step.
    pub fn step(&'a self, title: &str) -> Step<'a> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let step = Step { log: self, number, started: Instant::now() };
        step.say(title);
        step
    }

    /// Something beside the steps.
    pub fn warn(&self, text: &str) {
        self.progress.line(&format!("warning: {text}"));
    }
}

impl Step<'_> {
    fn say(&self, text: &str) {
        // Nothing is changed under the lock.
        let _guard = self.log.lock.lock().unwrap_or_else(|e| e.into_inner());
        self.log.progress.line(&format!("#{} {text}", self.number));
    }

    /// A line of a command's output.
    pub fn output(&self, line: &str) {
        self.say(&format!("{:.3} {line}", self.started.elapsed().as_secs_f64()));
    }

    /// The layer was there already.
    pub fn cached(&self) {
        self.say("CACHED");
    }

    /// The step is done.
    pub fn done(&self) {
        self.say(&format!("DONE {:.1}s", self.started.elapsed().as_secs_f64()));
    }

    /// The step has failed.
    pub fn failed(&self, why: &str) {
        self.say(&format!("ERROR: {}", why.lines().next().unwrap_or_default()));
    }
}
