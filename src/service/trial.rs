//! Boots within a conversion: what `verify` and `slim` ask for.
//!
//! A program of strangers runs in a VM then, on the worker's machine. So it is done only where the
//! configuration allows it, and the VM is confined ([`vmm::Config::confined`]): its ports are
//! forwarded to loopback addresses, and nothing else leads in or out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dock2uni_format::record::Record;
use serde::{Deserialize, Serialize};

use super::config::file::{Bytes, Span};
use super::job::{Options, Slimmed};
use crate::config::Overrides;
use crate::convert::MadeFile;
use crate::disk::Format;
use crate::plan::slim::Wishes;
use crate::rootfs::Limits;
use crate::rootfs::select::Selection;
use crate::slim::{self, News};
use crate::source::{Image, Store};
use crate::trial::{self, Settings, Subject, Trial};
use crate::vmm::{self, Accel, accel, qemu};

/// How long a program without ports must keep running.
const SETTLE: Duration = Duration::from_secs(5);
/// Seconds that nobody waits for longer.
const MONTH: u64 = 30 * 24 * 3600;
/// Lines of a console that are shown when a boot fails, and characters of a line.
const LINES: usize = 20;
const LINE: usize = 200;
/// Address space that QEMU takes beside the guest's memory: translated code, stacks, libraries.
const QEMU_SPACE: u64 = 4 << 30;

/// How images are booted, by the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trials {
    /// QEMU, if it is not the one in `PATH`.
    pub qemu: Option<PathBuf>,
    /// Accelerator, if it is not KVM where that works.
    pub accel: Option<Accel>,
    /// Memory of the VM in MiB.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u32,
    /// Seconds until everything must have answered, if not what [`trial::patience`] says.
    pub patience: Option<u64>,
}

/// The configuration's table `[trials]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    allow: bool,
    qemu: Option<PathBuf>,
    accel: Option<String>,
    memory: Option<Bytes>,
    cpus: Option<u32>,
    patience: Option<Span>,
}

/// Why an image was not made: in words, for the job.
pub struct Failed {
    /// What happened.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The end of the console.
    pub console: Vec<String>,
    /// Whether it may work later.
    pub passes: bool,
}

impl From<trial::Error> for Failed {
    fn from(error: trial::Error) -> Failed {
        let hint = error.hint().map(str::to_owned);
        // It is about the machine, and another worker may have a better one.
        Failed { text: crate::causes::line(&error), hint, console: Vec::new(), passes: true }
    }
}

impl Trials {
    /// How images are booted by this table, if it allows that.
    ///
    /// # Errors
    /// In words, whether it is allowed or not.
    pub fn resolve(table: Table, base: &Path) -> Result<Option<Trials>, String> {
        let accel = match table.accel.as_deref() {
            None => None,
            Some("kvm") => Some(Accel::Kvm),
            Some("tcg") => Some(Accel::Tcg),
            Some(other) => return Err(format!("`accel` is `kvm` or `tcg`, not `{other}`")),
        };
        let memory = table.memory.map_or(512 << 20, |memory| memory.0);
        let memory_mib = u32::try_from(memory >> 20).unwrap_or(u32::MAX);
        if !(64..=1 << 20).contains(&memory_mib) {
            return Err("`memory` is at least 64 MiB and at most 1 TiB".to_owned());
        }
        let cpus = table.cpus.unwrap_or(1);
        if !(1..=64).contains(&cpus) {
            return Err("`cpus` is a number from 1 to 64".to_owned());
        }
        let patience = table.patience.map(|patience| patience.0.as_secs().clamp(1, MONTH));
        let qemu = table.qemu.map(|path| base.join(path));
        Ok(table.allow.then_some(Trials { qemu, accel, memory_mib, cpus, patience }))
    }

    /// Address space that a conversion's programs may take beyond its own, in bytes.
    pub fn space(&self) -> u64 {
        QEMU_SPACE + (u64::from(self.memory_mib) << 20)
    }

    /// Settings for a boot; `scratch` is a directory for what is thrown away.
    fn settings(&self, store: &Store, scratch: &Path) -> Result<Settings, Failed> {
        let of_vm = |error: vmm::Error| Failed::from(trial::Error::from(error));
        let qemu = qemu::find(self.qemu.as_deref()).map_err(of_vm)?;
        let memory = store.root().join("kvm");
        let accel = accel::choose(&qemu, self.accel, Some(&memory)).map_err(of_vm)?;
        Ok(Settings {
            qemu,
            accel,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            patience: self.patience.map_or_else(|| trial::patience(accel), Duration::from_secs),
            wanted: BTreeSet::new(),
            settle: SETTLE,
            witness: false,
            command: Vec::new(),
            confined: true,
            scratch: scratch.to_owned(),
            launcher: launcher(),
        })
    }

    /// Finds out what of an image is needed, and sees that it runs with that alone. `root` is the
    /// image's bare root.
    ///
    /// # Errors
    /// If it cannot be found out, or a boot fails.
    pub fn slim(
        &self,
        image: &Image,
        (options, overrides): (&Options, &Overrides),
        (store, root, scratch): (&Store, &Path, &Path),
        say: &dyn Fn(&str),
    ) -> Result<(Selection, Slimmed), Failed> {
        let wishes = Wishes {
            keep: options.keep.clone(),
            drop: options.drop.clone(),
            limits: Limits::default(),
        };
        let settings = self.settings(store, scratch)?;
        let tell = |news: News<'_>| match news {
            News::Begins(text) => say(text),
            News::Waits(_) => {}
        };
        let made = slim::slim(image, overrides, root, None, &wishes, &settings, &tell);
        let made = made.map_err(of_slim)?;
        made.trial.lines().iter().for_each(|line| say(line));
        let slim = made.slim;
        let slimmed = Slimmed {
            files: slim.files.0,
            bytes: slim.bytes.0,
            kept_files: slim.files.1,
            kept_bytes: slim.bytes.1,
        };
        Ok((slim.selection, slimmed))
    }

    /// Boots a disk that was made by its own boot code; returns what answered.
    ///
    /// # Errors
    /// If nothing did, or none of the files can be booted.
    pub fn verify(
        &self,
        files: &[MadeFile],
        record: &Record,
        (store, scratch): (&Store, &Path),
    ) -> Result<Vec<String>, Failed> {
        let readable = files.iter().find_map(|file| Some((file, file.format.qemu()?)));
        let Some((file, format)) = readable else {
            let text = "QEMU reads none of the formats".to_owned();
            return Err(Failed { text, hint: None, console: Vec::new(), passes: false });
        };
        let cd = file.format == Format::Iso;
        let subject = Subject::disk(&file.path, format, cd, record.clone());
        let trial = trial::run(&subject, &self.settings(store, scratch)?, &|_| {})?;
        match &trial.failure {
            None => Ok(trial.lines().iter().map(|line| clean(line)).collect()),
            Some(failure) => Err(unanswered("the result", failure, &trial)),
        }
    }
}

/// This program again, to tie QEMU's life to ours and give it an address space of its own.
fn launcher() -> Vec<PathBuf> {
    let exe = std::env::current_exe().into_iter();
    exe.flat_map(|exe| [exe, "__with-parent".into(), "--own-memory".into()]).collect()
}

/// What to do about a boot that took too long.
const OVERDUE: &str = "the log has the end of its console; if it is only slow, set a longer `patience` \
                       in `[trials]` of the worker's configuration";

fn unanswered(what: &str, failure: &str, trial: &Trial) -> Failed {
    let hint = match trial.overdue {
        true => OVERDUE,
        false => "the log has the end of its console; `dock2uni run` shows all of it",
    };
    Failed {
        text: format!("{what} does not work when it is booted: {}", clean(failure)),
        hint: Some(hint.to_owned()),
        console: last_lines(&trial.console),
        passes: false,
    }
}

fn of_slim(error: slim::Error) -> Failed {
    match error {
        slim::Error::Trial(error) => error.into(),
        slim::Error::Unanswered { what, failure, overdue, console } => {
            let hint = match what {
                _ if overdue => OVERDUE,
                slim::SLIM => "name the files that are missed in `keep`",
                _ => "only an image that works can be slimmed; the log has the end of its console",
            };
            Failed {
                text: format!("{what} does not work when it is booted: {}", clean(&failure)),
                hint: Some(hint.to_owned()),
                console: last_lines(&console),
                passes: false,
            }
        }
        error => Failed {
            hint: error.hint().map(str::to_owned),
            passes: matches!(error, slim::Error::Temporary(_)),
            text: crate::causes::line(&error),
            console: Vec::new(),
        },
    }
}

fn last_lines(console: &str) -> Vec<String> {
    let lines: Vec<&str> = console.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| clean(line)).collect()
}

/// A line of a stranger's program as it can be shown: short, and without control characters.
fn clean(line: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    line.trim_end().chars().take(LINE).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_console_is_short_and_harmless() {
        let console = (0..100).map(|n| format!("line {n}\r\n\n")).collect::<String>()
            + "\x1b[31mred\0\n"
            + &"é".repeat(1000);
        let lines = last_lines(&console);
        assert_eq!((lines.len(), lines[0].as_str()), (LINES, "line 82"));
        assert_eq!(lines[LINES - 2], "\u{fffd}[31mred\u{fffd}");
        assert_eq!(lines[LINES - 1].chars().count(), LINE);
    }
}
