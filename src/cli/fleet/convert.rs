//! `dock2uni fleet convert`.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::ProgressBar;

use super::super::progress::Display;
use super::super::{Failure, exit, size, target};
use super::ConvertArgs;
use super::images::FromStore;
use crate::fleet::convert::{self, Observer, Options, Order, Outcome, Report, Status};
use crate::fleet::plan::Problem;
use crate::fleet::{self, Plan};
use crate::pipeline::Watch;
use crate::source::{Bar, Digest, Progress, Store};

pub fn convert(args: &ConvertArgs) -> Result<u8, Failure> {
    let store = Store::open_default()?;
    let mut orders: Vec<Order> = Vec::new();
    let mut sources = Vec::new();
    for source in &args.input.sources {
        match Plan::read(source.as_ref())? {
            Some(plan) => orders.extend(plan.items.iter().map(|i| Order::of_item(i, args.force))),
            None => sources.push(source.clone()),
        }
    }
    if !sources.is_empty() {
        let from = target::options(&args.input.how.source)?;
        let inventory =
            fleet::read(&args.input.detect(&sources)?, &args.input.how.inputs(), &from, &store)?;
        let workloads = inventory.workloads.iter();
        orders.extend(workloads.map(|workload| Order::of_workload(workload, args.force)));
    }
    let display = Display::new(args.quiet || args.json);
    let images = FromStore {
        build: args.input.how.build,
        source: &args.input.how.source,
        store: &store,
        display: &display,
    };
    let mut formats = args.format.clone();
    let mut seen = std::collections::BTreeSet::new();
    formats.retain(|format| seen.insert(*format));
    let options = Options {
        out: args.output.clone(),
        formats,
        place: args.root.map(Into::into),
        compression: args.compress,
        jobs: jobs(args.jobs),
        retries: args.retries,
        retry_delay: Duration::from_secs(2),
    };
    let shown = Shown::new(&display, orders.len());
    let report = convert::convert(&orders, &options, &images, &store, &shown);
    shown.overall.finish_and_clear();
    display.clear();
    let report = report?;
    if args.json {
        // Plain data with text for keys: serialising it does not fail.
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else if !args.quiet {
        print!("{}", as_text(&report, args));
    }
    Ok(match report.succeeded() {
        count if count == report.items.len() => exit::OK,
        0 => exit::FLEET_NONE,
        _ => exit::FLEET_SOME,
    })
}

/// As many as were asked for, or as there are processors.
pub fn jobs(asked: Option<usize>) -> usize {
    let all = || std::thread::available_parallelism().map_or(2, |count| count.get().min(8));
    asked.unwrap_or_else(all)
}

/// Bars on a terminal, lines elsewhere.
pub struct Shown<'a> {
    display: &'a Display,
    overall: ProgressBar,
}

impl Shown<'_> {
    pub fn new(display: &Display, all: usize) -> Shown<'_> {
        Shown { display, overall: display.count("converting", all) }
    }
}

impl Observer for Shown<'_> {
    fn start(&self, name: &str) -> Box<dyn Watch> {
        Box::new(Task { bar: self.display.task(name) })
    }

    fn retrying(&self, name: &str, why: &Problem, wait: Duration) {
        let seconds = wait.as_secs_f32().ceil();
        self.display.say(&format!("{name}: {}; trying again in {seconds} s", why.text));
    }

    fn ended(&self, outcome: &Outcome, done: usize, all: usize) {
        self.overall.set_position(done as u64);
        let what = match (&outcome.reason, outcome.status) {
            (Some(reason), Status::Refused) => format!("left out: {reason}"),
            (Some(reason), _) => format!("failed: {reason}"),
            (None, Status::Reused) => "there already".to_owned(),
            (None, _) => format!("{:.1} s", outcome.seconds),
        };
        self.display.say(&format!("[{done}/{all}] {}: {what}", outcome.name));
    }
}

/// The bar of one conversion: bytes fetched, then bytes applied.
struct Task {
    bar: ProgressBar,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Task {
    fn start(&self, _: &Digest, total: u64) -> Box<dyn Bar> {
        self.bar.inc_length(total);
        Box::new(Part { bar: self.bar.clone(), at: 0 })
    }
}

impl Watch for Task {
    fn applying(&self, total: u64) {
        self.bar.reset();
        self.bar.set_length(total);
    }

    fn applied(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

struct Part {
    bar: ProgressBar,
    at: u64,
}

impl Bar for Part {
    fn advance(&mut self, bytes: u64) {
        self.at += bytes;
        self.bar.inc(bytes);
    }

    fn restart(&mut self) {
        self.bar.dec(std::mem::take(&mut self.at));
    }

    fn finish(&mut self, _: crate::source::Outcome) {}
}

fn as_text(report: &Report, args: &ConvertArgs) -> String {
    let mut text = String::new();
    let wide = report.items.iter().map(|item| item.name.chars().count()).max().unwrap_or(0).max(8);
    // Writing to a string does not fail.
    let _ = writeln!(text, "{:wide$}  {:8}  {:>9}  DISK", "WORKLOAD", "STATUS", "SIZE");
    for item in &report.items {
        let status = match item.status {
            Status::Made => "made",
            Status::Reused => "reused",
            Status::Failed => "FAILED",
            Status::Refused => "left out",
        };
        let bytes: u64 = item.files.iter().map(|file| file.size).sum();
        let (bytes, disk) = match item.files.first() {
            Some(file) => (size::bytes(bytes), args.output.join(&file.path).display().to_string()),
            None => ("-".to_owned(), item.reason.clone().unwrap_or_default()),
        };
        let _ = writeln!(text, "{:wide$}  {status:8}  {bytes:>9}  {disk}", item.name);
        if let Some(hint) = &item.hint {
            let _ = writeln!(text, "{:wide$}  hint: {hint}", "");
        }
    }
    let _ = writeln!(
        text,
        "\n{} of {} converted: {} made, {} reused, {} failed, {} left out; {} in {:.1} s",
        report.succeeded(),
        report.items.len(),
        report.made,
        report.reused,
        report.failed,
        report.refused,
        size::bytes(report.bytes),
        report.seconds,
    );
    text
}
