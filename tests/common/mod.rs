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

use std::process::{Command, Output};

/// Runs a command to its end and returns its output; panics with everything it printed if it
/// failed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
