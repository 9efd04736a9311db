//! HEALTHCHECK: runs the image's check by Docker's rules and tells the host what came of it.
//!
//! A check is a process of its own session without a parent, as `docker exec` starts one: with the
//! main process's user, environment and working directory. It passes if it exits with 0 in time.

use super::{end, program};
use crate::errno::Result;
use crate::error;
use crate::fs::pipe::pipe;
use crate::fs::{FdTable, File};
use crate::io::IoDst;
use crate::sync::WaitMode;
use crate::task::exec::{Main, spawn};
use crate::task::signal::send::{Force, send};
use crate::task::signal::{SigInfo, Signal};
use crate::task::{Process, family, sched};
use crate::time::now_ns;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_format::record::{Healthcheck, Record};
use dock2uni_format::status::{Health, Status};
use linux_raw_sys::general::{O_NONBLOCK, O_RDWR};

/// Bytes of a check's output that are kept.
const KEPT: usize = 512;
/// How often output is fetched while a check runs, in nanoseconds.
const FETCH: u64 = 50_000_000;

/// Starts checking, if the image wants to be checked.
pub(super) fn start(record: &Arc<Record>) -> Result<()> {
    if record.healthcheck.is_some() {
        let record = record.clone();
        sched::spawn_kernel("health", move || watch(&record))?;
    }
    Ok(())
}

/// What is known so far (moby's `handleProbeResult`).
struct State {
    health: Health,
    failures: u32,
}

impl State {
    fn note(&mut self, passed: bool, age: u64, check: &Healthcheck) {
        if passed {
            (self.health, self.failures) = (Health::Healthy, 0);
        } else if self.health != Health::Starting || age >= check.start_period_ns {
            self.failures += 1;
            if self.failures >= check.retries {
                self.health = Health::Unhealthy;
            }
        }
    }

    /// How long until the next check.
    fn interval(&self, age: u64, check: &Healthcheck) -> u64 {
        match self.health {
            Health::Starting if age < check.start_period_ns => check.start_interval_ns,
            _ => check.interval_ns,
        }
    }
}

fn watch(record: &Record) {
    let Some(check) = &record.healthcheck else { return };
    let born = now_ns();
    let mut state = State { health: Health::Starting, failures: 0 };
    end::report(Status::Health(state.health));
    loop {
        sched::sleep_until(now_ns() + state.interval(now_ns() - born, check));
        let began = now_ns() - born;
        let (verdict, output) = run(record, check);
        if let Err(why) = &verdict {
            let text = String::from_utf8_lossy(&output);
            let text = alloc::format!("{why}: {}", text.trim());
            end::report(Status::Check(text.trim_end_matches([':', ' '])));
        }
        let before = state.health;
        state.note(verdict.is_ok(), began, check);
        if state.health != before {
            end::report(Status::Health(state.health));
        }
    }
}

/// Runs one check: why it failed, and the start of its output.
fn run(record: &Record, check: &Healthcheck) -> (core::result::Result<(), String>, Vec<u8>) {
    let mut output = Vec::new();
    let (reader, process) = match launch(record, check) {
        Ok(started) => started,
        Err(why) => return (Err(alloc::format!("can't be started ({why:?})")), output),
    };
    let deadline = now_ns() + check.timeout_ns;
    let ended = || process.is_zombie().then_some(());
    let mut late = false;
    loop {
        fetch(&reader, &mut output);
        let wake = deadline.min(now_ns() + FETCH);
        if process.exit_events.wait(WaitMode::Uninterruptible, Some(wake), ended).is_ok() {
            break;
        }
        if now_ns() >= deadline && !late {
            late = true;
            kill(&process);
        }
    }
    fetch(&reader, &mut output);
    let verdict = match process.exit_status() {
        _ if late => {
            let ms = check.timeout_ns / 1_000_000;
            Err(alloc::format!("took longer than {ms} ms"))
        }
        0 => Ok(()),
        status if status & 0x7f != 0 => Err(alloc::format!("killed by signal {}", status & 0x7f)),
        status => Err(alloc::format!("exit status {}", status >> 8 & 0xff)),
    };
    (verdict, output)
}

fn launch(record: &Record, check: &Healthcheck) -> Result<(Arc<File>, Arc<Process>)> {
    let (reader, writer) = pipe(O_NONBLOCK, record.user.uid, record.user.gid)?;
    // The check writes as to any pipe: only our end must not wait.
    writer.update_flags(O_NONBLOCK, 0);
    let files = FdTable::new();
    let null = program::open_kernel(b"/dev/null", O_RDWR)?;
    for file in [null, writer.clone(), writer] {
        files.alloc(file, false, 3)?;
    }
    let process = spawn(Main {
        argv: &check.argv,
        envp: &record.env,
        creds: program::creds(record),
        fs: crate::fs::boot::first_context(record)?,
        files,
        terminal: None,
        rlimits: program::rlimits(record)?,
    })?;
    Ok((reader, process))
}

/// Takes what has been printed; what is too much is dropped.
fn fetch(reader: &File, output: &mut Vec<u8>) {
    let mut piece = [0; 256];
    loop {
        let n = match reader.ops.read(reader, &mut IoDst::kernel(&mut piece)) {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        output.extend_from_slice(&piece[..n.min(KEPT - output.len())]);
    }
}

/// Ends the check and what it has started in its session.
fn kill(process: &Arc<Process>) {
    let members = family::lock().group(process.pid());
    for member in members.iter().chain([process]) {
        let info = SigInfo::kernel(Signal::KILL);
        if send(member, None, Signal::KILL, info, Force::Outside).is_err() {
            error!("the health check can't be stopped");
        }
    }
}
