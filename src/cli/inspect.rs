//! `dock2uni inspect`, and `convert --dry-run`.

use std::fs::File;

use super::args::{BuildArgs, InspectArgs, SourceArgs};
use super::progress::Display;
use super::target::{self, Target};
use super::{Failure, exit, roots, size};
use crate::config::Overrides;
use crate::plan::remote::{self, Remote};
use crate::plan::{self, Report, Severity, Verdict};
use crate::source::Store;

/// Names that are shown of a long list, unless all are asked for.
const FEW: usize = 8;

/// How a report is shown.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// As JSON.
    pub json: bool,
    /// Every name.
    pub all: bool,
    /// Without progress.
    pub quiet: bool,
}

pub fn inspect(args: &InspectArgs) -> Result<u8, Failure> {
    let target = Target::detect(&args.reference, &args.build)?;
    let show = Show { json: args.json, all: args.all, quiet: args.quiet };
    report(&target, &args.build, &args.source, &args.container.overrides()?, show)
}

/// Prints the report on a reference; the exit status says whether it runs.
pub fn report(
    target: &Target,
    build: &BuildArgs,
    source: &SourceArgs,
    overrides: &Overrides,
    show: Show,
) -> Result<u8, Failure> {
    let store = Store::open_default()?;
    let display = Display::new(show.quiet || show.json);
    let remote = match target {
        Target::Reference(reference) => {
            let (options, limits) = (target::options(source)?, target::limits(source));
            remote::report(reference, overrides, limits, &options, &store, &display)?
        }
        _ => None,
    };
    let report = match remote {
        Some(Remote { report, image, read, of }) => {
            target::say_signed(&image, &display);
            let (read, of) = (size::bytes(read), size::bytes(of));
            display.say(&format!("read {read} of the {of} in layers with tables of contents"));
            display.clear();
            report
        }
        None => {
            let (image, root) = roots::resolve(target, build, source, &store, &display)?;
            display.clear();
            let file = File::open(&root)
                .map_err(|error| Failure::io(format!("cannot read `{}`", root.display()), error))?;
            plan::report_on(&image, overrides, &file, 0)?
        }
    };
    if show.json {
        // Plain data: serialising it does not fail.
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        print!("{}", as_text(&report, show.all));
    }
    Ok(match report.verdict {
        Verdict::WontRun => exit::UNSUPPORTED,
        Verdict::Runs | Verdict::RunsWithNotes => exit::OK,
    })
}

fn as_text(report: &Report, all: bool) -> String {
    let mut text = Text { out: String::new(), all };
    text.line("image", &report.image);
    text.line("digest", &report.manifest);
    text.line(
        "layers",
        &format!("{}, {} compressed", report.layers, size::bytes(report.compressed)),
    );
    if let Some(name) = &report.distribution {
        text.line("system", name);
    }
    if let Some(runs) = &report.runs {
        text.line("command", &words(&runs.argv.iter().cloned().map(Some).collect::<Vec<_>>()));
        if let Some(check) = &runs.healthcheck {
            text.line("health", &words(&check.iter().cloned().map(Some).collect::<Vec<_>>()));
        }
    }
    for program in report.programs.iter().filter(|program| program.role != "helper") {
        let by: Vec<&str> = program.steps.iter().skip(1).map(|step| step.by.as_str()).collect();
        let mut value = words(&program.argv);
        if let Some(user) = &program.user {
            value.push_str(&format!(" as {user}"));
        }
        if !by.is_empty() {
            value.push_str(&format!(" (by {})", by.join(", ")));
        }
        if !program.certain {
            value.push_str(", perhaps");
        }
        text.line(&program.role, &value);
    }
    text.list("scripts", report.scripts.iter().cloned());
    let helpers = report.programs.iter().filter(|program| program.role == "helper");
    let mut helpers: Vec<String> = helpers.map(|program| program.path.clone()).collect();
    helpers.sort();
    helpers.dedup();
    text.list("helpers", helpers);
    for runtime in &report.runtimes {
        let version = runtime.version.as_deref().unwrap_or("");
        let name = format!("{} {version}", runtime.language);
        let modules = runtime.modules.len();
        text.line(
            "runtime",
            &format!(
                "{}, {modules} modules, {} of them machine code",
                name.trim(),
                runtime.extensions
            ),
        );
        text.list("modules", runtime.modules.iter().cloned());
    }
    let bytes = report.objects.iter().map(|object| object.size).sum();
    text.line("code", &format!("{} files, {}", report.objects.len(), size::bytes(bytes)));
    if all {
        for object in &report.objects {
            let by = object.needed_by.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let by = if by.is_empty() { by } else { format!(" for {by}") };
            text.line("", &format!("{} ({}{by})", object.path, object.how));
        }
    }
    if let Some(packages) = &report.packages {
        text.line(
            "packages",
            &format!(
                "{}: {} installed, {} own what runs, {} needed by these",
                packages.manager,
                packages.installed,
                packages.running.len(),
                packages.needed.len()
            ),
        );
        if all {
            text.list("", packages.running.iter().cloned());
        }
    }
    let calls = &report.syscalls;
    text.line(
        "syscalls",
        &format!("{} reachable, {} of them missing", calls.reachable.len(), calls.missing.len()),
    );
    text.list("missing", calls.missing.iter().map(|call| call.name.clone()));
    text.list("ports", report.needs.ports.iter().cloned());
    text.list("volumes", report.needs.volumes.iter().cloned());
    text.list("features", report.needs.features.iter().cloned());
    text.line("memory", &format!("about {} MiB", report.memory.suggested));
    text.line("verdict", &report.verdict.to_string());
    for finding in &report.findings {
        let mark = match finding.severity {
            Severity::Blocker => "error",
            Severity::Note => "note",
        };
        text.out.push_str(&format!("  {mark}: {}\n", finding.text));
        if let Some(advice) = &finding.advice {
            text.out.push_str(&format!("    hint: {advice}\n"));
        }
    }
    text.out
}

struct Text {
    out: String,
    all: bool,
}

impl Text {
    fn line(&mut self, name: &str, value: &str) {
        self.out.push_str(&format!("{name:<8} {value}\n"));
    }

    fn list(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let mut values: Vec<String> = values.into_iter().collect();
        let more = values.len().saturating_sub(FEW);
        if values.is_empty() {
            return;
        }
        if more > 0 && !self.all {
            values.truncate(FEW);
            values.push(format!("{more} more"));
        }
        self.line(name, &values.join(", "));
    }
}

/// A command for people; what is not known yet is `...`.
fn words(argv: &[Option<String>]) -> String {
    let argv = argv.iter().map(|word| word.clone().unwrap_or_else(|| "...".into()).into());
    crate::vmm::arguments::shell(argv)
}
