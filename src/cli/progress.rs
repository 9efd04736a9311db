//! Progress bars on standard error.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::source::{self, Bar, Digest, Outcome};
use crate::trial::Waiting;

/// What is shown while an image is brought in and written: bars on a terminal, a summary line
/// elsewhere, nothing if quiet.
pub struct Display {
    bars: Option<MultiProgress>,
    quiet: bool,
}

impl Display {
    /// A display for this process's standard error.
    pub fn new(quiet: bool) -> Display {
        let bars = (!quiet && std::io::stderr().is_terminal())
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Display { bars, quiet }
    }

    /// A bar for the layers being applied: it takes bytes from any thread.
    pub fn layers(&self, total: u64) -> ProgressBar {
        self.bar("unpacking".to_owned(), total)
    }

    /// A bar that counts things.
    pub fn count(&self, name: &str, total: usize) -> ProgressBar {
        let Some(bars) = &self.bars else { return ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{prefix:14} {bar:30} {pos:>5}/{len} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total as u64).with_style(style).with_prefix(name.to_owned());
        let bar = bars.add(bar);
        // It moves rarely; its time should not stand still.
        bar.enable_steady_tick(Duration::from_secs(1));
        bar
    }

    /// A bar for bytes of something by name, whose number is told later.
    pub fn task(&self, name: &str) -> ProgressBar {
        let short: String = name.chars().rev().take(14).collect();
        self.bar(short.chars().rev().collect(), 0)
    }

    /// A line that shows what a boot waits for, and what its console said last; until it is dropped.
    pub fn boot(&self) -> impl Fn(&Waiting) + use<> {
        let bar = self.bars.as_ref().map(|bars| {
            let style = ProgressStyle::with_template("{prefix:14} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style).with_prefix("booting");
            bars.add(bar.with_finish(ProgressFinish::AndClear))
        });
        move |waiting| {
            let Some(bar) = &bar else { return };
            let Waiting { after, patience, what, line } = waiting;
            let (after, patience) = (after.as_secs(), patience.as_secs());
            let line = if line.is_empty() { String::new() } else { format!(" | {line}") };
            bar.set_message(format!("{after} s of {patience} s, waiting for {what}{line}"));
        }
    }

    /// Says something that is worth a line of its own.
    pub fn say(&self, text: &str) {
        match &self.bars {
            _ if self.quiet => {}
            Some(bars) => bars.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Removes the bars.
    pub fn clear(&self) {
        if let Some(bars) = &self.bars {
            // A terminal that cannot be written to shows nothing anyway.
            let _ = bars.clear();
        }
    }

    fn bar(&self, name: String, total: u64) -> ProgressBar {
        let Some(bars) = &self.bars else { return ProgressBar::hidden() };
        let template = "{prefix:14} {bar:30} {bytes:>11}/{total_bytes:11} {bytes_per_sec}";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bars.add(ProgressBar::new(total).with_style(style).with_prefix(name))
    }
}

impl source::Progress for Display {
    fn start(&self, digest: &Digest, total: u64) -> Box<dyn Bar> {
        Box::new(Blob(self.bar(digest.short(), total)))
    }

    fn note(&self, text: &str) {
        self.say(text);
    }

    fn retrying(&self, reason: &str, wait: Duration) {
        self.say(&format!("{reason}; trying again in {} s", wait.as_secs_f32().ceil()));
    }
}

struct Blob(ProgressBar);

impl Bar for Blob {
    fn advance(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn restart(&mut self) {
        self.0.reset();
    }

    fn finish(&mut self, _: Outcome) {
        self.0.finish_and_clear();
    }
}
