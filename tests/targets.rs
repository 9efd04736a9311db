//! Disks of every format, booted by every firmware.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::vm::{Vm, can_boot, dock2uni};
use tempfile::TempDir;

/// A VM under the translator on a loaded machine takes its time; UEFI even more.
const PATIENCE: Duration = Duration::from_secs(240);

/// A small image, converted; what it is run with.
struct Lab {
    dir: TempDir,
    layout: PathBuf,
}

impl Lab {
    fn new() -> Lab {
        let layout = test_images::build("hello-static").unwrap();
        Lab { dir: tempfile::tempdir().unwrap(), layout }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = dock2uni();
        command.args(args).current_dir(self.dir.path());
        command.env("DOCK2UNI_STORE", self.dir.path().join("store"));
        command
    }

    fn convert(&self, args: &[&str]) -> String {
        let reference = format!("oci:{}", self.layout.display());
        let output = common::run(self.command(&["convert", &reference]).args(args));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a disk and returns its status and all that was printed.
    fn run(&self, args: &[&str]) -> (i32, String) {
        let words = [&["run", "--accel", "tcg"], args].concat();
        let mut vm = Vm::start(&mut self.command(&words));
        let code = vm.wait(PATIENCE);
        (code, vm.text())
    }

    fn says_hello(&self, args: &[&str]) {
        let (code, text) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {text}");
        assert!(text.to_lowercase().contains("hello"), "{args:?}: {text}");
    }
}

#[test]
fn every_format_boots_by_a_bios() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new();
    let formats = "raw,qcow2,vmdk,vhd,vhd-dynamic,vhdx,vdi,gce,ami,ova,iso";
    let text = lab.convert(&["-o", "app.img", "--format", formats]);
    assert!(text.contains("output   app.dynamic.vhd ("), "{text}");
    for extension in [
        "img",
        "qcow2",
        "vmdk",
        "vhd",
        "dynamic.vhd",
        "vhdx",
        "vdi",
        "tar.gz",
        "ami.raw",
        "ova",
        "iso",
    ] {
        lab.says_hello(&[&format!("app.{extension}"), "--boot", "disk"]);
    }
    // What boot code loads into memory need not be loaded by it.
    lab.says_hello(&["app.vmdk", "--machine", "microvm"]);
    lab.says_hello(&["app.ova", "--boot", "ram"]);
    // The root on the disk where the format would have it in memory.
    lab.convert(&["-o", "disk.vdi", "--root", "disk", "-q"]);
    lab.says_hello(&["disk.vdi", "--boot", "disk"]);
}

fn ovmf(name: &str) -> Option<String> {
    let path = format!("/usr/share/OVMF/{name}");
    let there = Path::new(&path).is_file();
    if !there {
        eprintln!("SKIPPED: no {path}");
    }
    there.then_some(path)
}

#[test]
fn the_same_image_boots_by_uefi_from_disk_and_from_cd() {
    if !can_boot() || ovmf("OVMF_CODE_4M.fd").is_none() {
        return;
    }
    let lab = Lab::new();
    lab.convert(&["-o", "app", "--format", "raw,iso", "-q"]);
    lab.says_hello(&["app.img", "--boot", "uefi"]);
    lab.says_hello(&["app.iso", "--boot", "uefi"]);
}

/// Debian's firmware comes with keys of nobody's enrolled, and with the private one.
#[test]
fn secure_boot_starts_what_is_signed_and_nothing_else() {
    let files = [ovmf("OVMF_CODE_4M.secboot.fd"), ovmf("OVMF_VARS_4M.snakeoil.fd")];
    let [Some(code), Some(vars)] = files else { return };
    if !can_boot() {
        return;
    }
    let lab = Lab::new();
    let key = lab.dir.path().join("key.pem");
    common::run(
        Command::new("openssl")
            .args(["rsa", "-in", "/usr/share/ovmf/PkKek-1-snakeoil.key"])
            .args(["-passin", "pass:snakeoil", "-out"])
            .arg(&key),
    );
    let certificate = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
    let key = key.to_str().unwrap();
    lab.convert(&[
        "-o",
        "signed.img",
        "-q",
        "--secure-boot-key",
        key,
        "--secure-boot-cert",
        certificate,
    ]);
    let firmware = ["--boot", "uefi", "--firmware", &code, "--firmware-vars", &vars];
    lab.says_hello(&[&["signed.img"][..], &firmware].concat());

    lab.convert(&["-o", "plain.img", "-q"]);
    let words = [&["run", "--accel", "tcg", "plain.img"][..], &firmware].concat();
    let mut vm = Vm::start(&mut lab.command(&words));
    vm.wait_for("Access Denied", PATIENCE);
    assert!(!vm.text().to_lowercase().contains("hello"), "{}", vm.text());
}
