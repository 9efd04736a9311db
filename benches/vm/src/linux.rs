//! The Linux microVM: Debian's stock cloud kernel, an initramfs of its driver modules and
//! `linux-init`, the same root.

use crate::vm::{Guest, sh, work_dir};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the guest needs and the kernel has as modules, in no particular order.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "erofs", "overlay"];

/// Makes the Linux counterpart of a guest.
pub fn prepare(ours: &Guest) -> Result<Guest, String> {
    let dir = work_dir()?;
    let files = kernel_package(&dir)?;
    let kernel = one(&files.join("boot"), "vmlinuz-")?;
    let init = build_static("linux-init")?;
    let mut archive = Cpio::default();
    for name in ["dev", "lower", "upper", "root"] {
        archive.dir(name);
    }
    archive.file("init", 0o755, &read(&init)?);
    archive.file("entrypoint", 0o644, &entrypoint(ours)?);
    let mut list = String::new();
    for module in in_load_order(&files.join("lib/modules"))? {
        let name = module.file_name().and_then(|name| name.to_str()).ok_or("module name")?;
        archive.file(name, 0o644, &read(&module)?);
        list += &format!("/{name}\n");
    }
    archive.file("modules", 0o644, list.as_bytes());
    let initramfs = dir.join("initramfs.cpio");
    std::fs::write(&initramfs, archive.finish()).map_err(|error| error.to_string())?;
    Ok(Guest {
        name: "linux",
        kernel,
        module: initramfs,
        root: ours.root.clone(),
        cmdline: "console=ttyS0 quiet panic=-1 rdinit=/init",
        microvm_cmdline: counter_frequency()?,
        port: ours.port,
        network: ours.network,
        record: ours.record.clone(),
    })
}

/// Tells the kernel the frequency of the time-stamp counter: on an emulated microvm nothing there
/// lets it find out, and it stops.
fn counter_frequency() -> Result<String, String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").map_err(|error| error.to_string())?;
    let mhz = text.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split(": ").nth(1));
    let mhz: f64 =
        mhz.and_then(|mhz| mhz.trim().parse().ok()).ok_or("/proc/cpuinfo names no frequency")?;
    Ok(format!("tsc_early_khz={:.0}", mhz * 1000.0))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn one(dir: &Path, prefix: &str) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut names =
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    names.next().map(|entry| entry.path()).ok_or(format!("no {prefix}* in {}", dir.display()))
}

/// Downloads and unpacks the kernel package that `linux-image-cloud-amd64` depends on.
fn kernel_package(dir: &Path) -> Result<PathBuf, String> {
    let files = dir.join("linux");
    if files.join("boot").exists() {
        return Ok(files);
    }
    let text = sh(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let package = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .ok_or("apt knows no linux-image-cloud-amd64: run apt-get update")?;
    let download = dir.join("download");
    std::fs::create_dir_all(&download).map_err(|error| error.to_string())?;
    sh(Command::new("apt-get").args(["download", package]).current_dir(&download))?;
    let deb = one(&download, "linux-image-")?;
    let aside = dir.join("linux.part");
    sh(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&aside))?;
    std::fs::rename(&aside, &files).map_err(|error| error.to_string())?;
    Ok(files)
}

/// Builds a program of this workspace, statically linked.
pub fn build_static(package: &str) -> Result<PathBuf, String> {
    let target = work_dir()?.join("init-target");
    sh(Command::new(std::env::var("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--release", "-p", package])
        .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols")
        .current_dir(env!("CARGO_MANIFEST_DIR")))?;
    Ok(target.join("x86_64-unknown-linux-gnu/release").join(package))
}

/// The image's own command, as `linux-init` reads it.
fn entrypoint(guest: &Guest) -> Result<Vec<u8>, String> {
    let record = &guest.record;
    let cwd = if record.cwd.is_empty() { b"/".to_vec() } else { record.cwd.clone() };
    let ids = [record.user.uid, record.user.gid].map(|id| id.to_string().into_bytes());
    let [uid, gid] = ids;
    let mut out = Vec::new();
    let words = [cwd, uid, gid].into_iter().chain(record.env.iter().cloned()).chain([Vec::new()]);
    for word in words.chain(record.argv.iter().cloned()) {
        out.extend_from_slice(&word);
        out.push(0);
    }
    Ok(out)
}

/// The modules and what they depend on, each after its dependencies.
fn in_load_order(root: &Path) -> Result<Vec<PathBuf>, String> {
    let list = sh(Command::new("find").arg(root).args(["-name", "*.ko"]))?;
    let by_name: HashMap<String, PathBuf> = list
        .lines()
        .map(PathBuf::from)
        .filter_map(|path| Some((path.file_stem()?.to_str()?.replace('-', "_"), path)))
        .collect();
    let mut order = Vec::new();
    for name in MODULES {
        visit(name, &by_name, &mut order)?;
    }
    Ok(order)
}

fn visit(
    name: &str,
    all: &HashMap<String, PathBuf>,
    order: &mut Vec<PathBuf>,
) -> Result<(), String> {
    // What isn't a module is built in.
    let Some(path) = all.get(&name.replace('-', "_")) else { return Ok(()) };
    if order.contains(path) {
        return Ok(());
    }
    let bytes = read(path)?;
    let at = bytes
        .windows(9)
        .position(|window| window == b"\0depends=")
        .ok_or(format!("{name}: no modinfo"))?;
    let rest = &bytes[at + 9..];
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(0);
    let depends = String::from_utf8_lossy(&rest[..end]).into_owned();
    for dependency in depends.split(',').filter(|dependency| !dependency.is_empty()) {
        visit(dependency, all, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// An archive in the format the kernel unpacks its initramfs from (Linux
/// `Documentation/driver-api/early-userspace/buffer-format`).
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let name_len = name.len() as u32 + 1;
        self.bytes.extend_from_slice(b"070701");
        for field in [self.inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name_len, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn dir(&mut self, name: &str) {
        self.entry(name, 0o040755, &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100000 | mode, content);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
