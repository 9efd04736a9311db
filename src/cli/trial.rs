//! `dock2uni trace`, and the boots of `convert --verify`.

use std::fs::File;
use std::time::Duration;

use dock2uni_format::record::{Proto, Root};
use serde_json::json;

use super::args::{ContainerArgs, ConvertArgs, TraceArgs, TrialArgs};
use super::progress::Display;
use super::run::launcher;
use super::target::{self, Target};
use super::{Failure, exit, roots, size};
use crate::config::Overrides;
use crate::convert::{self, Made, Output};
use crate::disk::Format;
use crate::erofs::Reader;
use crate::plan::slim::{Slim, Wishes};
use crate::slim::{self, News, Slimmed};
use crate::source::{Image, Store};
use crate::trial::trace::Trace;
use crate::trial::{self, Settings, Subject, Trial};
use crate::vmm::{accel, qemu};

/// How long a program without ports must keep running.
const SETTLE: Duration = Duration::from_secs(5);

pub fn trace(args: &TraceArgs) -> Result<u8, Failure> {
    let target = Target::detect(&args.reference, &args.build)?;
    let mut overrides = args.container.overrides()?;
    overrides.command.clone_from(&args.cmd);
    let mut settings = settings(&args.trial, &args.container)?;
    settings.witness = true;
    settings.command.clone_from(&args.container.command);
    let store = Store::open_default()?;
    let display = Display::new(args.quiet);
    let (image, path) = roots::resolve(&target, &args.build, &args.source, &store, &display)?;
    display.clear();
    let failed = |error| Failure::io(format!("cannot read `{}`", path.display()), error);
    let file = File::open(&path).map_err(failed)?;
    let reader = Reader::open(&file, 0).map_err(convert::Error::from)?;
    let mut record = convert::plan(&image, &overrides, &reader)?;
    record.root = Root::Disk { uuid: reader.superblock().uuid };
    let mut trial = trial::run(&Subject::root(&path, record)?, &settings, &display.boot())?;
    // What programs made themselves is not of the image.
    trial.trace.files.retain(|path, _| reader.lookup_link(path).is_ok_and(|node| node.is_some()));
    print(&trial, args.quiet);
    let manifest = image.manifest.to_string();
    match &args.output {
        Some(out) => {
            trial
                .trace
                .write(out, &image.name, &manifest)
                .map_err(|error| Failure::io(format!("cannot write `{}`", out.display()), error))?;
            if !args.quiet {
                let (files, calls) = (trial.trace.files.len(), trial.trace.calls.len());
                eprintln!("{}: {files} files, {calls} system calls", out.display());
            }
        }
        None => print!("{}", trial.trace.to_json(&image.name, &manifest)),
    }
    Ok(if trial.failure.is_some() { exit::UNVERIFIED } else { exit::OK })
}

fn settings(args: &TrialArgs, container: &ContainerArgs) -> Result<Settings, Failure> {
    let qemu = qemu::find(args.qemu.as_deref())?;
    let memory = Store::open_default()?.root().join("kvm");
    let accel = accel::choose(&qemu, args.accel.map(Into::into), Some(&memory))?;
    let wanted = container.published().into_iter().filter(|one| one.guest.proto == Proto::Tcp);
    Ok(Settings {
        qemu,
        accel,
        memory_mib: args.memory,
        cpus: args.cpus,
        patience: args.patience.map_or_else(|| trial::patience(accel), Duration::from_secs),
        wanted: wanted.map(|publish| publish.guest.port).collect(),
        settle: SETTLE,
        witness: false,
        command: Vec::new(),
        confined: false,
        scratch: std::env::temp_dir(),
        launcher: launcher(),
    })
}

/// Finds out what to keep of an image.
pub fn slim(
    args: &ConvertArgs,
    image: &Image,
    overrides: &Overrides,
    store: &Store,
    display: &Display,
    quiet: bool,
) -> Result<Slimmed, Failure> {
    let trace = args.trace.as_deref().map(Trace::read).transpose()?;
    let settings = settings(&args.trial, &args.container)?;
    let root = roots::of(image, &args.source, store, display)?;
    display.clear();
    let wishes = Wishes {
        keep: args.keep.clone(),
        drop: args.drop.clone(),
        limits: target::limits(&args.source),
    };
    let boot = display.boot();
    let tell = |news: News<'_>| match news {
        News::Begins(text) => display.say(text),
        News::Waits(waiting) => boot(waiting),
    };
    let slimmed = slim::slim(image, overrides, &root, trace, &wishes, &settings, &tell);
    drop(boot);
    if let Err(slim::Error::Unanswered { console, .. }) = &slimmed {
        last_lines(console);
    }
    let slimmed = slimmed?;
    if !quiet {
        slimmed.trial.lines().iter().for_each(|line| eprintln!("{line}"));
    }
    Ok(slimmed)
}

/// What a choice comes to, for people.
pub fn slim_text(slim: &Slim) -> String {
    const GROUPS: usize = 12;
    let ((before, after), (files, left)) = (slim.bytes, slim.files);
    let mut text = format!(
        "slim     {} in {left} files, of {} in {files}\n",
        size::bytes(after),
        size::bytes(before)
    );
    for (name, groups) in [("kept", &slim.kept), ("dropped", &slim.dropped)] {
        for group in groups.iter().take(GROUPS) {
            let (bytes, files) = (size::bytes(group.bytes), group.files);
            text.push_str(&format!("{name:<8} {bytes} in {files} files: {}\n", group.what));
        }
        if groups.len() > GROUPS {
            let rest = &groups[GROUPS..];
            let bytes = size::bytes(rest.iter().map(|group| group.bytes).sum());
            text.push_str(&format!("{name:<8} {bytes} for {} more reasons\n", rest.len()));
        }
    }
    text
}

/// Boots what a conversion made.
pub struct Trier {
    settings: Settings,
    /// Which of the outputs, and how QEMU calls its format.
    which: usize,
    format: &'static str,
}

impl Trier {
    /// Settles how, before anything is converted.
    pub fn new(
        args: &TrialArgs,
        container: &ContainerArgs,
        outputs: &[Output],
    ) -> Result<Trier, Failure> {
        let readable = outputs
            .iter()
            .enumerate()
            .find_map(|(which, output)| Some((which, output.format.qemu()?)));
        let Some((which, format)) = readable else {
            return Err(Failure::new(
                exit::USAGE,
                "QEMU reads none of the formats that are to be made",
                Some("add `raw` to `--format`, or leave `--verify` away"),
            ));
        };
        Ok(Trier { settings: settings(args, container)?, which, format })
    }

    /// Boots the file by its own boot code.
    pub fn try_files(&self, made: &Made, display: &Display) -> Result<Trial, Failure> {
        let Some(file) = made.files.get(self.which) else {
            return Err(Failure::new(exit::FAILURE, "nothing was made", None));
        };
        let cd = file.format == Format::Iso;
        let subject = Subject::disk(&file.path, self.format, cd, made.record.clone());
        Ok(trial::run(&subject, &self.settings, &display.boot())?)
    }
}

/// Says what a trial has shown; a failure with the end of the console.
pub fn print(trial: &Trial, quiet: bool) {
    if !quiet {
        for line in trial.lines() {
            eprintln!("{line}");
        }
    }
    if let Some(failure) = &trial.failure {
        eprintln!("error: {failure}");
        last_lines(&trial.console);
        let hint = match trial.overdue {
            true => {
                "if it is only slow, let it have more `--patience`; `dock2uni run` shows all of it"
            }
            false => "`dock2uni run` shows all of it; `dock2uni inspect` may say why",
        };
        eprintln!("hint: {hint}");
    }
}

fn last_lines(console: &str) {
    let console: Vec<&str> = console.lines().collect();
    for line in &console[console.len().saturating_sub(20)..] {
        eprintln!("  | {}", line.trim_end());
    }
}

/// A trial as JSON.
pub fn as_json(trial: &Trial) -> serde_json::Value {
    json!({
        "ok": trial.failure.is_none(),
        "failure": trial.failure,
        "started_ms": trial.started_ms,
        "ports": trial.ports,
        "health": trial.health.map(|health| health.to_string()),
        "exit": trial.ended.map(|outcome| outcome.code()),
    })
}
