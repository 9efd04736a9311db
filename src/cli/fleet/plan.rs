//! `dock2uni fleet plan`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::super::progress::Display;
use super::super::{Failure, exit, size, target};
use super::PlanArgs;
use super::images::FromStore;
use crate::atomic::Aside;
use crate::fleet::plan::{Item, Verdict};
use crate::fleet::{self, Plan};
use crate::source::Store;

pub fn plan(args: &PlanArgs) -> Result<u8, Failure> {
    let input = &args.input;
    let sources = input.detect(&input.sources)?;
    let store = Store::open_default()?;
    let options = target::options(&input.how.source)?;
    let inventory = fleet::read(&sources, &input.how.inputs(), &options, &store)?;
    let display = Display::new(args.quiet || args.json);
    let images = FromStore {
        build: input.how.build,
        source: &input.how.source,
        store: &store,
        display: &display,
    };
    let plan = fleet::plan(&inventory, &images, args.jobs);
    display.clear();
    // Plain data with text for keys: serialising it does not fail.
    let json = || serde_json::to_string_pretty(&plan).unwrap_or_default();
    if let Some(path) = &args.output {
        write(path, &json())?;
    }
    if let Some(path) = &args.html {
        let page = fleet::page(&plan)
            .map_err(|error| Failure::new(exit::FAILURE, error.to_string(), None))?;
        write(path, &page)?;
    }
    if args.json {
        println!("{}", json());
    } else if !args.quiet {
        print!("{}", as_text(&plan));
    }
    let good = |item: &Item| matches!(item.verdict, Verdict::Runs | Verdict::RunsWithNotes);
    Ok(if plan.items.iter().all(good) { exit::OK } else { exit::UNSUPPORTED })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = Aside::beside(path).and_then(|aside| {
        aside.file().write_all(text.as_bytes())?;
        aside.publish(path)
    });
    written.map_err(|error| Failure::io(format!("cannot write `{}`", path.display()), error))
}

fn as_text(plan: &Plan) -> String {
    let mut text = String::new();
    let wide = |width: usize, of: &dyn Fn(&Item) -> usize| {
        plan.items.iter().map(of).max().unwrap_or(0).max(width)
    };
    let names = wide(8, &|item| item.workload.name.chars().count());
    let images = wide(5, &|item| item.workload.image.to_string().chars().count()).min(60);
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{:names$}  {:images$}  {:15}  {:>3}  {:>9}",
        "WORKLOAD", "IMAGE", "VERDICT", "VMS", "MEMORY"
    );
    for item in &plan.items {
        let memory = item.memory_mib.map_or("?".to_owned(), |mib| format!("{mib} MiB"));
        let _ = writeln!(
            text,
            "{:names$}  {:images$}  {:15}  {:>3}  {memory:>9}",
            item.workload.name,
            item.workload.image.to_string(),
            item.verdict.words(),
            item.workload.replicas,
        );
        for reason in &item.reasons {
            let mark = match reason.severity {
                fleet::Severity::Blocker => '✗',
                fleet::Severity::Warning => '!',
                fleet::Severity::Info => '·',
            };
            let _ = writeln!(text, "    {mark} {}", reason.text);
            if let Some(advice) = &reason.advice {
                let _ = writeln!(text, "      {advice}");
            }
        }
    }
    let totals = &plan.totals;
    let counts: Vec<String> =
        totals.verdicts.iter().map(|(words, count)| format!("{count} {words}")).collect();
    let _ = writeln!(text, "\n{} workloads: {}", plan.items.len(), counts.join(", "));
    let _ = writeln!(
        text,
        "{} images: {} to download ({} saved by shared layers), {} of root filesystems",
        plan.images.len(),
        size::bytes(totals.download),
        size::bytes(totals.saved()),
        size::bytes(totals.roots),
    );
    let _ = writeln!(
        text,
        "{} VMs at once take about {} of memory",
        totals.machines,
        size::bytes(totals.memory_mib << 20),
    );
    text
}
