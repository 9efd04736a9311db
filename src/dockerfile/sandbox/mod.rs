//! Where commands of RUN run: namespaces of their own, on an overlay of the layers.
//!
//! This program starts itself again as a *keeper*, which enters a user namespace, unpacks what is
//! needed, and starts the command in further namespaces as a child of its own. When the command has
//! ended the keeper reads the overlay's upper directory and hands it back as a layer. Everything
//! that needs the namespace's owners and rights happens in the keeper, and it is killed with its
//! parent, so nothing outlives a build.
//!
//! ```text
//! dock2uni                    keeper (user namespace)         command (all namespaces, PID 1)
//!    | job file, start  ------> |
//!    | <--- "mapped?"           |
//!    | uid_map, gid_map ------> | unpacks layers
//!    |                          | start ---------------------> mounts, pivot_root, exec
//!    | <---------- output ------|------------------------------ stdout, stderr
//!    |                          | <------------------ status
//!    | <--- report, layer ----- | reads the upper directory
//! ```
//!
//! References: user_namespaces(7), mount_namespaces(7), pivot_root(2), and the kernel's
//! `filesystems/overlayfs.rst`.

mod capture;
mod ids;
mod inside;
mod job;
mod keeper;
mod loopback;
mod unpack;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

pub use self::ids::many;
pub use self::job::{Bind, FileMount, Job, Mount, Outcome, Overlay, Report, Run, Stub, Unpack};

use super::cancel::{Cancel, lock};
use super::error::Error;
use super::layer::Out;
use crate::source::Layer;

/// Longest line of output that is passed on whole.
const MAX_LINE: u64 = 64 << 10;

/// The subcommand that is the keeper, or with `inside` the command to be.
pub fn main(job: &Path, inside: bool) -> u8 {
    if inside { inside::main(job) } else { keeper::main(job) }
}

/// Does a job and takes its report. A layer that comes with it is written to `out`.
///
/// `line` receives what the command prints.
///
/// # Errors
/// [`Error::Sandbox`] if something this machine must allow isn't there, [`Error::Interrupted`].
pub fn perform(
    program: &[PathBuf],
    job: &Job,
    job_file: &Path,
    cancel: &Cancel,
    out: Option<Out>,
    line: &(dyn Fn(&str) + Sync),
) -> Result<(Report, Option<Layer>), Error> {
    let Some((exe, args)) = program.split_first() else {
        return Err(Error::Sandbox {
            reason: "this program doesn't know its name".into(),
            hint: None,
        });
    };
    // Plain data.
    let text = serde_json::to_vec(job).unwrap_or_default();
    fs::write(job_file, text).map_err(|error| Error::io("write", job_file, error))?;
    let mut command = Command::new(exe);
    command.args(args).arg(job_file);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Error::io("start", exe, error))?;
    let id = child.id();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let child = cancel.adopt(child);
    let result = std::thread::scope(|scope| {
        if let Some(stderr) = stderr {
            scope.spawn(move || lines(BufReader::new(stderr), line));
        }
        match (stdin, stdout) {
            (Some(stdin), Some(stdout)) => converse(id, stdin, BufReader::new(stdout), out),
            _ => Err(Error::Interrupted),
        }
    });
    if result.is_err() {
        // It waits for us otherwise, or has work that nobody wants.
        let _ = lock(&child).kill();
    }
    let _ = lock(&child).wait();
    cancel.release(&child);
    cancel.check()?;
    result
}

/// The parent's side of the conversation.
fn converse(
    id: u32,
    mut stdin: impl Write,
    mut stdout: BufReader<ChildStdout>,
    out: Option<Out>,
) -> Result<(Report, Option<Layer>), Error> {
    let broken = |what: &str| Error::Sandbox { reason: what.into(), hint: None };
    loop {
        let mut text = String::new();
        let read = stdout.by_ref().take(1 << 20).read_line(&mut text);
        if !read.is_ok_and(|len| len > 0) {
            return Err(broken("the process that keeps the sandbox has died"));
        }
        match serde_json::from_str(&text).map_err(|_| broken("the sandbox's report is garbled"))? {
            Outcome::Entered => {
                ids::map(id)?;
                stdin.write_all(b"\n").map_err(|_| broken("the sandbox doesn't answer"))?;
            }
            Outcome::Impossible { reason, hint } => return Err(Error::Sandbox { reason, hint }),
            Outcome::Done(report) => {
                let Some(mut out) = out.filter(|_| report.layer) else { return Ok((report, None)) };
                let mut buffer = vec![0; 256 << 10];
                loop {
                    match stdout.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(got) => out.data(&buffer[..got])?,
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(_) => return Err(broken("the layer broke off")),
                    }
                }
                let layer = out.commit()?;
                // The archive's end is the sign that all of it came.
                if layer.size < 1024 || layer.size % 512 != 0 {
                    return Err(broken("the layer broke off"));
                }
                return Ok((report, Some(layer)));
            }
        }
    }
}

/// Passes lines on, without what would move a terminal's cursor.
fn lines(mut reader: impl BufRead, line: &dyn Fn(&str)) {
    loop {
        let mut bytes = Vec::new();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&bytes);
        // A progress bar draws over itself; its last state is what counts.
        let text = text.trim_end_matches(['\n', '\r']);
        let text = text.rsplit('\r').next().unwrap_or_default();
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        line(&clean.replace('\u{fffd}', ""));
    }
}
