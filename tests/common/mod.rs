//! Helpers shared by the integration tests. Each test binary uses the parts it needs.
#![allow(dead_code, reason = "every test binary includes this module and uses a part of it")]

pub mod apps;
pub mod guest;
pub mod http;
pub mod lab;
pub mod layout;
pub mod registry;
pub mod server;
pub mod sigstore;
pub mod stargz;
pub mod vm;
pub mod webhooks;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// Longer than any command of the tests takes, a build among them.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Runs a command to its end and returns its output; panics with everything it printed if it
/// failed, or did not end.
pub fn run(command: &mut Command) -> Output {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}",
        output.status,
        printed(&output)
    );
    output
}

/// Runs a command to its end and returns its output, whatever its status; panics with everything it
/// printed if it did not end.
pub fn output(command: &mut Command) -> Output {
    output_within(command, None, LIMIT)
}

/// The same with an end to the patience, and with input if there is any.
pub fn output_within(command: &mut Command, input: Option<&str>, patience: Duration) -> Output {
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What it starts and leaves behind would keep its output open.
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let group = Pid::from_child(&child);
    if let Some((mut stdin, input)) = child.stdin.take().zip(input.map(str::to_owned)) {
        // Whoever has read enough closes its input.
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    }
    let (ended, waiting) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let late = waiting.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
        if late {
            let _ = kill_process_group(group, Signal::KILL);
        }
        late
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    if watchdog.join().unwrap() {
        panic!("{command:?} did not end within {patience:?}; it printed:\n{}", printed(&output));
    }
    output
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
