//! Disks of every format, booted by every firmware.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::registry::Registry;
use common::vm::{Vm, can_boot, dock2uni};
use serde_json::Value;
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

/// What skopeo fetches from a registry or layout: the manifest, and a directory with the blobs.
fn fetch(lab: &Lab, from: &str, name: &str) -> (Value, PathBuf) {
    let dir = lab.dir.path().join(name);
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    common::run(skopeo.arg(from).arg(format!("dir:{}", dir.display())));
    let manifest = std::fs::read(dir.join("manifest.json")).unwrap();
    (serde_json::from_slice(&manifest).unwrap(), dir)
}

/// The files of an image's only layer, by their paths.
fn layer(manifest: &Value, dir: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let digest = manifest["layers"][0]["digest"].as_str().unwrap();
    let file = std::fs::File::open(dir.join(digest.strip_prefix("sha256:").unwrap())).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let header = entry.header();
        let owner = header.uid().unwrap() as u32;
        files.push((entry.path().unwrap().display().to_string(), owner, bytes));
    }
    files
}

#[test]
fn artifacts_go_to_registries_and_layouts_and_come_back_whole() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new();
    lab.convert(&["-o", "app.img", "-q"]);
    let login = Some(("me".to_owned(), "secret".to_owned()));
    let registry = Registry::start_with(common::registry::Options { login, ..Default::default() });
    let auth = lab.dir.path().join("auth.json");
    // "me:secret"
    let json = format!(r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#, registry.addr);
    std::fs::write(&auth, json).unwrap();
    let push = |to: &str, kind: &str| {
        let mut command = lab.command(&["push", "app.img", to, "--as", kind, "--json"]);
        let output = common::run(command.env("REGISTRY_AUTH_FILE", &auth));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let fetch = |name: &str, dir: &str| {
        let reference = format!("docker://{}", registry.reference(name));
        let dir = lab.dir.path().join(dir);
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
        skopeo.arg("--src-creds=me:secret").arg(reference);
        common::run(skopeo.arg(format!("dir:{}", dir.display())));
        let manifest = std::fs::read(dir.join("manifest.json")).unwrap();
        (serde_json::from_slice::<Value>(&manifest).unwrap(), dir)
    };

    // KubeVirt's containerDisk, twice: the second time nothing is sent.
    for _ in 0..2 {
        let pushed = push(&registry.reference("vm/app:1"), "container-disk");
        assert!(pushed["digest"].as_str().unwrap().starts_with("sha256:"));
    }
    let (manifest, dir) = fetch("vm/app:1", "disk");
    let files = layer(&manifest, &dir);
    let names: Vec<_> = files.iter().map(|(name, owner, _)| (name.as_str(), *owner)).collect();
    assert_eq!(names, [("disk/", 0), ("disk/disk.qcow2", 107)]);
    std::fs::write(lab.dir.path().join("back.qcow2"), &files[1].2).unwrap();
    let diff = common::run(&mut lab.command(&["image", "diff", "app.img", "back.qcow2"]));
    assert!(diff.stdout.is_empty());

    // kernelBoot and urunc: kernel and initrd boot by themselves.
    push(&registry.reference("vm/boot:1"), "urunc");
    let (manifest, dir) = fetch("vm/boot:1", "boot");
    let key = "com.urunc.unikernel.binary";
    assert_eq!(manifest["annotations"][key], "/boot/kernel");
    let files = layer(&manifest, &dir);
    let names: Vec<_> = files.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(names, ["boot/", "boot/kernel", "boot/initrd", "urunc.json"]);
    let (kernel, initrd) = (lab.dir.path().join("kernel"), lab.dir.path().join("initrd"));
    std::fs::write(&kernel, &files[1].2).unwrap();
    std::fs::write(&initrd, &files[2].2).unwrap();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-m", "128M"]);
    qemu.args(["-machine", "microvm", "-accel", "tcg", "-kernel"]).arg(&kernel);
    let mut vm = Vm::start(qemu.arg("-initrd").arg(&initrd));
    while !vm.text().to_lowercase().contains("hello") {
        assert!(vm.next_line(PATIENCE).is_some(), "{}", vm.text());
    }

    // An artifact in a layout, beside another.
    let layout = lab.dir.path().join("layout");
    for (name, kind) in [("disk", "disk"), ("boot", "kernel-boot"), ("disk", "disk")] {
        push(&format!("oci:{}:{name}", layout.display()), kind);
    }
    let index: Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    // Each has what says where it comes from beside it, without a name.
    let entries = index["manifests"].as_array().unwrap();
    let named = entries.iter().filter(|entry| !entry["annotations"].is_null());
    assert_eq!((entries.len(), named.count()), (4, 2));
    let from = format!("oci:{}:boot", layout.display());
    let (manifest, _) = self::fetch(&lab, &from, "kernel-boot");
    assert_eq!(manifest["annotations"]["dev.dock2uni.kind"], "kernel-boot");

    // Wrong credentials are said to be that.
    std::fs::write(&auth, "{}").unwrap();
    let output = lab
        .command(&["push", "app.img", &registry.reference("vm/app:2")])
        .env("REGISTRY_AUTH_FILE", &auth)
        .env("HOME", lab.dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

#[test]
fn boot_files_boot_without_their_disk_image() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new();
    lab.convert(&["-o", "app.vmdk", "-q"]);
    common::run(&mut lab.command(&["image", "boot-files", "app.vmdk", "boot"]));
    let dir = lab.dir.path().join("boot");
    let about: Value =
        serde_json::from_slice(&std::fs::read(dir.join("boot.json")).unwrap()).unwrap();
    assert_eq!(about["runs"][0], "/hello");
    for (initrd, disk) in [("record.img", true), ("initrd.img", false)] {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.current_dir(&dir).args(["-nodefaults", "-no-reboot", "-display", "none"]);
        qemu.args(["-serial", "stdio", "-m", "128M", "-machine", "q35", "-accel", "tcg"]);
        qemu.args(["-kernel", "kernel", "-initrd", initrd]);
        if disk {
            qemu.args(["-drive", "if=none,id=r,format=raw,readonly=on,file=root.erofs"]);
            qemu.args(["-device", "virtio-blk-pci,drive=r"]);
        }
        let mut vm = Vm::start(&mut qemu);
        while !vm.text().to_lowercase().contains("hello") {
            assert!(vm.next_line(PATIENCE).is_some(), "{initrd}: {}", vm.text());
        }
    }
    // What is there is not written over.
    let output = lab.command(&["image", "boot-files", "app.vmdk", "boot"]).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
}
