//! The keeper: what goes on in the user namespace beside the command.

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Signal, set_parent_process_death_signal, setpgid};

use super::super::error::Error;
use super::capture::capture;
use super::job::{Job, Mount, Outcome, Overlay, Report, Run};
use super::{loopback, unpack};

/// Exit status of the command's process if it could not become the command.
pub const NOT_SET_UP: i32 = 125;

/// Does the job in the file `path`, and reports on standard output.
pub fn main(path: &Path) -> u8 {
    let stdout = io::stdout();
    let mut out = BufWriter::with_capacity(256 << 10, stdout.lock());
    match work(path, &mut out) {
        Ok(()) => 0,
        Err(outcome) => {
            // If nobody listens there is nobody to tell.
            let _ = say(&mut out, &outcome);
            1
        }
    }
}

fn say(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    serde_json::to_writer(&mut *out, outcome)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn impossible(reason: impl Into<String>) -> Outcome {
    Outcome::Impossible { reason: reason.into(), hint: None }
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Outcome {
        let mut reason = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            reason.push_str(&format!(": {source}"));
        }
        Outcome::Impossible { reason, hint: error.hint() }
    }
}

fn work(path: &Path, out: &mut impl Write) -> Result<(), Outcome> {
    // Nothing may outlive the build, and Ctrl-C is for the build to act on.
    set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| setpgid(None, None))
        .map_err(|error| impossible(format!("the process can't be set up: {error}")))?;
    let bytes = fs::read(path).map_err(|error| impossible(format!("no job: {error}")))?;
    let job: Job =
        serde_json::from_slice(&bytes).map_err(|error| impossible(format!("no job: {error}")))?;
    enter(out)?;
    for unpack in &job.unpack {
        unpack::unpack(unpack)?;
    }
    let mut report = Report::default();
    if let Some(run) = &job.run {
        report = command(run, path)?;
        report.layer = report.code == Some(0);
    }
    for dir in &job.remove {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", dir, error).into());
            }
            _ => {}
        }
    }
    let with_layer = report.layer;
    say(out, &Outcome::Done(report)).map_err(|error| impossible(error.to_string()))?;
    if let Some(run) = job.run.as_ref().filter(|_| with_layer) {
        // A layer that ends too early is noticed.
        let upper = run.root.upper();
        capture(&upper, &run.root.root, out)
            .map_err(|error| impossible(format!("what the command changed: {error}")))?;
    }
    Ok(())
}

/// Enters a user namespace whose IDs the parent maps.
fn enter(out: &mut impl Write) -> Result<(), Outcome> {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWUSER) {
        return Err(Outcome::Impossible {
            reason: format!("user namespaces are not allowed ({error})"),
            hint: Some(namespaces_hint()),
        });
    }
    let mut byte = [0];
    say(out, &Outcome::Entered)
        .and_then(|()| io::stdin().lock().read_exact(&mut byte))
        .map_err(|error| impossible(format!("the build doesn't answer: {error}")))
}

fn namespaces_hint() -> String {
    let is =
        |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == value);
    let switch = if is("/proc/sys/user/max_user_namespaces", "0") {
        "sysctl user.max_user_namespaces=15000"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sysctl kernel.unprivileged_userns_clone=1"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        return "in a container, allow it user namespaces (`--security-opt seccomp=unconfined`), \
                or build elsewhere"
            .into();
    };
    format!("as root, `{switch}` allows them")
}

/// Runs a command to its end.
fn command(run: &Run, job: &Path) -> Result<Report, Outcome> {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if !run.host_network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    unshare(flags).map_err(|error| Outcome::Impossible {
        reason: format!("namespaces are not allowed ({error})"),
        hint: Some(namespaces_hint()),
    })?;
    if !run.host_network {
        loopback::up().map_err(|error| impossible(format!("no loopback device: {error}")))?;
    }
    prepare(&run.root)?;
    for mount in &run.mounts {
        match mount {
            Mount::Overlay { overlay, .. } => prepare(overlay)?,
            Mount::Bind(bind) => {
                if let Some((mode, uid, gid)) = bind.create {
                    cache_directory(&bind.source, mode, uid, gid)?;
                }
            }
            _ => {}
        }
    }
    let exe = std::env::current_exe()
        .map_err(|error| impossible(format!("this program has no name: {error}")))?;
    let failure = job.with_extension("failure");
    let stderr = rustix::io::dup(io::stderr()).map_err(|error| impossible(error.to_string()))?;
    let mut child = Command::new(exe)
        .args(["__sandbox", "--inside"])
        .arg(job)
        .stdin(Stdio::null())
        .stdout(stderr)
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| impossible(format!("the command can't be started: {error}")))?;
    let status =
        child.wait().map_err(|error| impossible(format!("the command is lost: {error}")))?;
    if status.code() == Some(NOT_SET_UP)
        && let Ok(reason) = fs::read_to_string(&failure)
        && !reason.is_empty()
    {
        return Err(impossible(reason));
    }
    Ok(Report { code: status.code(), signal: status.signal(), layer: false })
}

/// Makes an overlay's directories.
fn prepare(overlay: &Overlay) -> Result<(), Outcome> {
    let make = |dir: &Path| fs::create_dir(dir).map_err(|error| Error::io("create", dir, error));
    make(&overlay.dir)?;
    make(&overlay.dir.join("l"))?;
    for (number, lower) in overlay.lowers.iter().enumerate() {
        let link = overlay.dir.join("l").join(number.to_string());
        std::os::unix::fs::symlink(lower, &link)
            .map_err(|error| Error::io("create", &link, error))?;
    }
    unpack::stubs(&overlay.dir.join("stubs"), &overlay.stubs, &overlay.root)?;
    make(&overlay.dir.join("work"))?;
    make(&overlay.dir.join("root"))?;
    let upper = overlay.upper();
    make(&upper)?;
    unpack::dress(&upper, &overlay.root).map_err(|error| Error::io("change", &upper, error).into())
}

/// A cache's directory, with mode and owner if it is new.
fn cache_directory(dir: &Path, mode: u32, uid: u32, gid: u32) -> Result<(), Outcome> {
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(Error::io("create", dir, error).into()),
    }
    let meta = super::super::index::Meta {
        uid,
        gid,
        // Twelve bits.
        ..super::super::index::Meta::directory((mode & 0o7777) as u16, (0, 0))
    };
    unpack::dress(dir, &meta).map_err(|error| Error::io("change", dir, error).into())
}
