//! `dock2uni fleet up`, `down`, `ps` and `logs`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::super::progress::Display;
use super::super::run::launcher;
use super::super::{Failure, exit, target};
use super::images::FromStore;
use super::{DownArgs, LogsArgs, ProjectArgs, PsArgs, UpArgs};
use crate::fleet::up::logs::{self, Line, Reader, Watch, rfc3339};
use crate::fleet::up::state::{self, Dir, Health, Phase, Snapshot};
use crate::fleet::up::supervisor::{self, Standing, standing};
use crate::fleet::up::{self, Error, Settings};
use crate::fleet::{self, Inputs, Kind, Source, Workload, compose, compose_files};
use crate::source::Store;
use crate::vmm::{accel, qemu};
use crate::volume::Volumes;

pub fn up(args: &UpArgs) -> Result<u8, Failure> {
    let inputs = args.how.inputs();
    let sources = match args.sources.as_slice() {
        [] => vec![".".to_owned()],
        sources => sources.to_vec(),
    };
    let first = Path::new(&sources[0]);
    let dir = Dir::of(&project(args.project.as_deref(), first, &inputs)?)?;
    if dir.path().exists() && dir.is_running()? {
        return Err(Error::Running(dir.project().to_owned()).into());
    }
    let store = Store::open_default()?;
    let from = target::options(&args.how.source)?;
    let detected: Result<Vec<Source>, fleet::Error> =
        sources.iter().map(|source| Source::detect(source)).collect();
    let inventory = fleet::read(&detected?, &inputs, &from, &store)?;
    let mut workloads = inventory.workloads;
    let foreign = |w: &&Workload| w.kind != Kind::ComposeService && !fleet::name::of_kubernetes(w);
    if let Some(other) = workloads.iter().find(foreign) {
        return Err(Failure::new(
            exit::USAGE,
            format!("`{}` is of {}, which describes no fleet", other.name, other.source),
            Some("`fleet up` runs Compose files and manifests; `dock2uni run` runs one image"),
        ));
    }
    for left in up::without_scheduled(&mut workloads) {
        if !args.quiet {
            eprintln!("{}: left out: it is started by a schedule", left.name);
        }
    }
    fleet::name::shorten(&mut workloads)?;
    let display = Display::new(args.quiet);
    let images = FromStore {
        build: args.how.build,
        source: &args.how.source,
        store: &store,
        display: &display,
    };
    let qemu = qemu::find(args.qemu.as_deref())?;
    let memory = store.root().join("kvm");
    let settings = Settings {
        project: dir.project().to_owned(),
        accel: accel::choose(&qemu, args.accel.map(Into::into), Some(&memory))?,
        qemu,
        machine: args.machine.into(),
        launcher: launcher(),
        memory_mib: args.memory,
        services: args.service.clone(),
    };
    dir.create()?;
    let spec = up::prepare(&workloads, &settings, &images, &store, dir.path())?;
    display.clear();
    if args.detach {
        supervisor::start(&dir, &spec, &program()?)?;
        return detached(&dir, args);
    }
    let seat = Seat::take(&dir)?;
    supervisor::start(&dir, &spec, &program()?)?;
    attached(&dir, seat, args)
}

/// What a watcher has in hand before there is something to see.
struct Seat {
    signals: Signals,
    watch: Watch,
    reader: Reader,
}

impl Seat {
    fn take(dir: &Dir) -> Result<Seat, Failure> {
        let signals = Signals::new([SIGINT, SIGTERM])
            .map_err(|error| Failure::io("cannot wait for signals".into(), error))?;
        let read = || -> std::io::Result<(Watch, Reader)> {
            let mut reader = Reader::new(&dir.logs(), &[]);
            // What an earlier start of this fleet has said was seen then.
            reader.tail(0)?;
            Ok((Watch::new(&dir.logs())?, reader))
        };
        let (watch, reader) = read().map_err(|error| unreadable(dir, error))?;
        Ok(Seat { signals, watch, reader })
    }
}

fn unreadable(dir: &Dir, error: std::io::Error) -> Failure {
    Failure::io(format!("cannot read `{}`", dir.logs().display()), error)
}

/// This program, as a fleet's supervisor.
fn program() -> Result<Vec<PathBuf>, Failure> {
    let exe = std::env::current_exe()
        .map_err(|error| Failure::io("cannot find this program".into(), error))?;
    Ok(vec![exe, "__fleet".into()])
}

/// Waits until everything is up, and leaves it.
fn detached(dir: &Dir, args: &UpArgs) -> Result<u8, Failure> {
    let mut shown = Shown::new(args.quiet);
    // One that cannot be asked has ended already.
    for snapshot in dir.ask("watch").into_iter().flatten() {
        shown.show(&snapshot);
        match standing(&snapshot, args.wait) {
            Standing::Underway => {}
            Standing::Up | Standing::Failed(_) => break,
        }
    }
    let last = dir.snapshot()?;
    if !args.quiet {
        print!("{}", table(&last));
    }
    verdict(&last, args.wait)
}

/// Shows what everyone says until the end, which an interrupt brings about.
fn attached(dir: &Dir, seat: Seat, args: &UpArgs) -> Result<u8, Failure> {
    let failed = |error| unreadable(dir, error);
    let Seat { mut signals, watch, reader } = seat;
    let handle = signals.handle();
    let reader = Mutex::new(reader);
    let more = || -> std::io::Result<()> {
        let mut reader = reader.lock().unwrap_or_else(|poison| poison.into_inner());
        show_lines(&reader.more()?, false)
    };
    std::thread::scope(|scope| -> Result<(), Failure> {
        scope.spawn(|| {
            let mut request = "stop";
            for _ in signals.forever() {
                if request == "stop" && !args.quiet {
                    eprintln!("stopping (again to end the VMs at once)");
                }
                // One that is gone has stopped.
                let _ = dir.ask(request).map(|mut states| states.next());
                request = "kill";
            }
        });
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let more = &more;
        scope.spawn(move || {
            // The end itself is shown below: it may come without a change of any log.
            while end.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                if more().is_err() || watch.wait().is_err() {
                    return;
                }
            }
        });
        let mut shown = Shown::new(args.quiet);
        // One that cannot be asked has ended already.
        for snapshot in dir.ask("watch").into_iter().flatten() {
            shown.show(&snapshot);
        }
        handle.close();
        drop(ended);
        // Wakes the one who waits for logs.
        let nudge = dir.logs().join(".end");
        std::fs::write(&nudge, "").and_then(|()| std::fs::remove_file(&nudge)).map_err(failed)?;
        more().map_err(failed)
    })?;
    dir.wait_ended()?;
    verdict(&dir.snapshot()?, false)
}

fn verdict(snapshot: &Snapshot, healthy: bool) -> Result<u8, Failure> {
    let Standing::Failed(failed) = standing(snapshot, healthy) else { return Ok(exit::OK) };
    let words: Vec<String> = failed.iter().map(|(name, why)| format!("`{name}`: {why}")).collect();
    Err(Failure::new(
        exit::FAILURE,
        format!("not all of `{}` is up: {}", snapshot.project, words.join("; ")),
        Some("`dock2uni fleet logs` shows what they said, `fleet down` ends the others"),
    ))
}

pub fn down(args: &DownArgs) -> Result<u8, Failure> {
    let dir = dir_of(&args.project)?;
    if !dir.exists() {
        return Err(Error::Unknown(dir.project().to_owned()).into());
    }
    if dir.is_running()? {
        let mut shown = Shown::new(true);
        // How they stood before is no news.
        shown.show(&dir.snapshot()?);
        shown.quiet = args.quiet;
        for snapshot in dir.ask(if args.kill { "kill" } else { "stop" })? {
            shown.show(&snapshot);
        }
        dir.wait_ended()?;
    }
    if args.volumes {
        let volumes = Volumes::open_default()?;
        for name in dir.spec()?.volumes {
            match volumes.remove(&name) {
                // It was never used.
                Err(crate::volume::Error::NotFound(_)) => {}
                other => other?,
            }
        }
    }
    dir.remove()?;
    Ok(exit::OK)
}

pub fn ps(args: &PsArgs) -> Result<u8, Failure> {
    let here =
        project(args.project.project.as_deref(), &args.project.directory, &Inputs::default());
    let names = match here {
        Ok(name) if !args.all => vec![name],
        Err(error) if !args.all => return Err(error),
        _ => state::projects()?,
    };
    let mut all = Vec::new();
    for name in &names {
        match Dir::of(name)?.snapshot() {
            // It was brought down meanwhile, or never came up.
            Err(Error::Unknown(_) | Error::Io { .. }) if args.all => {}
            other => all.push(other?),
        }
    }
    if args.json {
        // Plain data with text for keys: serialising it does not fail.
        println!("{}", serde_json::to_string_pretty(&all).unwrap_or_default());
    } else {
        for snapshot in &all {
            if args.all {
                println!("{}:", snapshot.project);
            }
            print!("{}", table(snapshot));
        }
    }
    Ok(exit::OK)
}

pub fn logs(args: &LogsArgs) -> Result<u8, Failure> {
    let dir = dir_of(&args.project)?;
    if !dir.exists() {
        return Err(Error::Unknown(dir.project().to_owned()).into());
    }
    let failed = |error| unreadable(&dir, error);
    let watch = Watch::new(&dir.logs()).map_err(failed)?;
    let mut reader = Reader::new(&dir.logs(), &args.services);
    let show = |lines: &[Line]| match show_lines(lines, args.timestamps) {
        // Whoever read has had enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    };
    let tail = args.tail.unwrap_or(usize::MAX);
    if !show(&reader.tail(tail).map_err(failed)?).map_err(failed)? || !args.follow {
        return Ok(exit::OK);
    }
    if !dir.is_running()? {
        return Ok(exit::OK);
    }
    let end = dir.clone();
    std::thread::spawn(move || {
        // With the fleet ends what it says; the last of it is shown first.
        let _ = end.wait_ended();
        let nudge = end.logs().join(".end");
        let _ = std::fs::write(&nudge, "").and_then(|()| std::fs::remove_file(&nudge));
    });
    loop {
        watch.wait().map_err(failed)?;
        if !show(&reader.more().map_err(failed)?).map_err(failed)? {
            return Ok(exit::OK);
        }
        if !dir.is_running()? {
            show(&reader.more().map_err(failed)?).map_err(failed)?;
            return Ok(exit::OK);
        }
    }
}

/// Prints lines, each with who said it.
fn show_lines(lines: &[Line], timestamps: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let colours = out.is_terminal();
    for Line { time, instance, text } in lines {
        let time = if timestamps { rfc3339(*time) + " " } else { String::new() };
        if colours {
            // The same for the same name: one of the six colours that are told apart on any ground.
            let sum =
                instance.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
            writeln!(out, "\x1b[{}m{instance:12} |\x1b[0m {time}{text}", 31 + sum % 6)?;
        } else {
            writeln!(out, "{instance:12} | {time}{text}")?;
        }
    }
    out.flush()
}

/// Says how instances stand whenever that changes.
struct Shown {
    quiet: bool,
    said: BTreeSet<(String, String)>,
}

impl Shown {
    fn new(quiet: bool) -> Shown {
        Shown { quiet, said: BTreeSet::new() }
    }

    fn show(&mut self, snapshot: &Snapshot) {
        for status in &snapshot.instances {
            let text = stands(status);
            let key = (status.name.clone(), format!("{text} {}", status.restarts));
            let news = !matches!(status.phase, Phase::Waiting) && self.said.insert(key);
            if news && !self.quiet {
                eprintln!("{}: {text}", status.name);
            }
        }
    }
}

/// How an instance stands, in words.
fn stands(status: &state::Status) -> String {
    let mut text = match (status.phase, status.exit) {
        (Phase::Waiting, _) => "waiting".to_owned(),
        (Phase::Starting, _) => "starting".to_owned(),
        (Phase::Running, _) => "running".to_owned(),
        (Phase::Restarting, Some(code)) => format!("restarting (status {code})"),
        (Phase::Restarting, None) => "restarting".to_owned(),
        (Phase::Exited, code) => format!("exited ({})", code.unwrap_or_default()),
        (Phase::Failed, _) => "failed".to_owned(),
        (Phase::Stopped, _) => "stopped".to_owned(),
    };
    match status.health {
        Some(Health::Healthy) => text += ", healthy",
        Some(Health::Unhealthy) => text += ", unhealthy",
        Some(Health::Starting) | None => {}
    }
    if let (Phase::Failed | Phase::Restarting, Some(reason)) = (status.phase, &status.reason) {
        text = format!("{text}: {reason}");
    }
    text
}

fn table(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let wide = snapshot.instances.iter().map(|status| status.name.len()).max().unwrap_or(0).max(8);
    // Writing to a string does not fail.
    let _ = writeln!(text, "{:wide$}  {:10}  {:24}  PORTS", "INSTANCE", "ADDRESS", "STATE");
    for status in &snapshot.instances {
        let address = status.address.map_or("-".to_owned(), |address| address.to_string());
        let seconds = logs::millis().saturating_sub(status.since) / 1000;
        let age = match seconds {
            0..120 => format!("{seconds} s"),
            120..7200 => format!("{} min", seconds / 60),
            _ => format!("{} h", seconds / 3600),
        };
        let state = format!("{}, {age}", stands(status));
        let ports = status.ports.join(", ");
        let _ = writeln!(text, "{:wide$}  {address:10}  {state:24}  {ports}", status.name);
    }
    text
}

fn dir_of(args: &ProjectArgs) -> Result<Dir, Failure> {
    Ok(Dir::of(&project(args.project.as_deref(), &args.directory, &Inputs::default())?)?)
}

/// The name of a project: as given, as the environment or the Compose files say, or the directory's.
pub fn project(given: Option<&str>, source: &Path, inputs: &Inputs) -> Result<String, Failure> {
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    if let Ok(name) = std::env::var("COMPOSE_PROJECT_NAME")
        && !name.is_empty()
    {
        return Ok(name);
    }
    let (files, directory) = if source.is_dir() {
        (compose_files(source), source.to_owned())
    } else {
        let parent = source.parent().filter(|parent| !parent.as_os_str().is_empty());
        (vec![source.to_owned()], parent.unwrap_or(Path::new(".")).to_owned())
    };
    let environment = std::env::vars().collect();
    let options = compose::Options { environment, ..inputs.compose.clone() };
    // A file that asks for variables that are not set here still has its directory's name.
    if let Some(name) = compose::name(&files, &options).ok().flatten() {
        return Ok(name);
    }
    let real = directory.canonicalize();
    let real =
        real.map_err(|e| Failure::io(format!("cannot find `{}`", directory.display()), e))?;
    Ok(state::project_of(&real.file_name().unwrap_or_default().to_string_lossy()))
}
