//! Test images, run the way a user does: from a registry.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::registry::Registry;
use super::vm::{Vm, dock2uni};

/// A VM under the translator on a loaded machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A registry with one image, and a store to convert it in.
pub struct Lab {
    reference: String,
    store: TempDir,
    _registry: Registry,
}

impl Lab {
    /// Makes a test image and pushes it.
    pub fn new(image: &str) -> Lab {
        let layout = test_images::build(image).unwrap();
        let registry = Registry::start();
        let reference = format!("{}/{image}:latest", registry.addr);
        super::run(
            Command::new("skopeo")
                .args(["copy", "--quiet", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:latest", layout.display()))
                .arg(format!("docker://{reference}")),
        );
        Lab { reference, store: tempfile::tempdir().unwrap(), _registry: registry }
    }

    /// Runs it as `dock2uni run OPTIONS IMAGE COMMAND`.
    pub fn run(&self, options: &[&str], command: &[&str]) -> Vm {
        Vm::start(
            dock2uni()
                .args(["run", "--accel", "tcg"])
                .args(options)
                .arg(&self.reference)
                .args(command)
                .env("DOCK2UNI_STORE", self.store.path()),
        )
    }

    /// What `dock2uni inspect OPTIONS IMAGE` says of it.
    pub fn verdict(&self, options: &[&str]) -> String {
        let mut command = dock2uni();
        command.args(["inspect", "--json"]).args(options).arg(&self.reference);
        // Its exit status says it as well.
        let output = command.env("DOCK2UNI_STORE", self.store.path()).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["verdict"].as_str().unwrap().to_owned()
    }

    /// Runs to the end: exit status, and all that was printed.
    pub fn finish(&self, options: &[&str], command: &[&str]) -> (i32, String) {
        let mut vm = self.run(options, command);
        let code = vm.wait(PATIENCE);
        (code, vm.text())
    }
}
