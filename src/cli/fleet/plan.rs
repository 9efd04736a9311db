//! `dock2uni fleet plan`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::super::args::{BuildArgs, SourceArgs};
use super::super::progress::Display;
use super::super::target::{self, Target};
use super::super::{Failure, exit, roots, size};
use super::PlanArgs;
use crate::atomic::Aside;
use crate::fleet::plan::{Images, Item, Problem, Verdict};
use crate::fleet::{self, Image, Inputs, Plan, Source, compose};
use crate::source::{self, Reference, Store};

pub fn plan(args: &PlanArgs) -> Result<u8, Failure> {
    let sources: Result<Vec<Source>, fleet::Error> =
        args.sources.iter().map(|text| Source::detect(text)).collect();
    let inputs = Inputs {
        compose: compose::Options {
            profiles: profiles(args),
            env_files: args.env_file.clone(),
            environment: environment(),
        },
    };
    let store = Store::open_default()?;
    let options = target::options(&args.source);
    let inventory = fleet::read(&sources?, &inputs, &options, &store)?;
    let display = Display::new(args.quiet || args.json);
    let images =
        FromStore { build: args.build, source: &args.source, store: &store, display: &display };
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

fn profiles(args: &PlanArgs) -> Vec<String> {
    if !args.profile.is_empty() {
        return args.profile.clone();
    }
    let text = std::env::var("COMPOSE_PROFILES").unwrap_or_default();
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// This process's variables; those that are not UTF-8 can't be named in a Compose file.
fn environment() -> compose::Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = Aside::beside(path).and_then(|aside| {
        aside.file().write_all(text.as_bytes())?;
        aside.publish(path)
    });
    written.map_err(|error| Failure::io(format!("cannot write `{}`", path.display()), error))
}

/// Images as every command brings them in.
struct FromStore<'a> {
    /// Dockerfiles are built.
    build: bool,
    source: &'a SourceArgs,
    store: &'a Store,
    display: &'a Display,
}

impl Images for FromStore<'_> {
    fn bring(&self, image: &Image) -> Result<(source::Image, PathBuf), Problem> {
        let mut build = BuildArgs::default();
        let target = match image {
            Image::Reference(reference) => Reference::detect(reference).map(Target::Reference),
            Image::Build { .. } if !self.build => {
                return Err(Problem {
                    text: "its image is built from a Dockerfile, and was not built".to_owned(),
                    hint: Some("`--build` builds it, RUN steps included".to_owned()),
                });
            }
            Image::Build { context, dockerfile, target, args } => {
                build.file = dockerfile.as_ref().map(|file| context.join(file));
                build.target.clone_from(target);
                build.build_arg.clone_from(args);
                Ok(Target::Context(context.clone()))
            }
        };
        let target = target.map_err(|error| Failure::from(error).into_problem())?;
        roots::resolve(&target, &build, self.source, self.store, self.display)
            .map_err(Failure::into_problem)
    }

    fn progress(&self, done: usize, all: usize) {
        self.display.say(&format!("looked at {done} of {all} images"));
    }
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
