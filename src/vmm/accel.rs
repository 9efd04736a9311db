//! Chooses the accelerator.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Accel, Error, probe};

/// How long the probe may take, most of it QEMU's own start.
const PATIENCE: Duration = Duration::from_secs(2);

/// Chooses KVM where it works and TCG otherwise; a given one is only checked.
///
/// What is found out is kept in the file `memory` until the machine or QEMU changes, since it
/// takes a moment where KVM works and longer where it does not.
///
/// # Errors
/// If KVM was asked for and does not work.
pub fn choose(qemu: &Path, given: Option<Accel>, memory: Option<&Path>) -> Result<Accel, Error> {
    match given {
        Some(Accel::Tcg) => return Ok(Accel::Tcg),
        Some(Accel::Kvm) => return kvm(qemu).map(|()| Accel::Kvm).map_err(Error::NoKvm),
        None => {}
    }
    let circumstances = circumstances(qemu);
    let known = memory.and_then(|path| fs::read_to_string(path).ok());
    if let Some(answer) = known.as_deref().and_then(|text| text.strip_prefix(&circumstances)) {
        return Ok(if answer == WORKS { Accel::Kvm } else { Accel::Tcg });
    }
    let works = kvm(qemu).is_ok();
    if let Some(path) = memory {
        let answer = if works { WORKS } else { "no" };
        // If it cannot be written, it is found out again next time.
        let _ = fs::write(path, circumstances + answer);
    }
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}

const WORKS: &str = "works";

/// What the answer depends on: this boot of the machine, who may open the device, and QEMU.
fn circumstances(qemu: &Path) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let changed = fs::metadata(qemu).and_then(|file| file.modified()).ok();
    let open = fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    format!("{} {changed:?} {open} {}\n", boot.trim(), qemu.display())
}

/// Whether KVM executes guests, or why not.
///
/// # Errors
/// Says why it does not.
pub fn kvm(qemu: &Path) -> Result<(), String> {
    fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm: {error}"))?;
    execute(qemu, "kvm").map_err(|error| format!("a test guest {error}"))
}

/// Runs the probe guest.
fn execute(qemu: &Path, accel: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("could not be started: {error}");
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    std::io::Write::write_all(&mut file, &probe::guest()).map_err(failed)?;
    let exit = format!("isa-debug-exit,iobase={:#x},iosize=1", probe::PORT);
    let mut child = Command::new(qemu)
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-machine", "q35,usb=off,sata=off,smbus=off", "-m", "16M", "-accel", accel])
        .args(["-device", &exit, "-kernel"])
        .arg(file.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let Some(status) = status else {
        // It is our own child; if it is gone by now, so much the better.
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("did not finish within {} s", PATIENCE.as_secs()));
    };
    if status.code() == Some(probe::STATUS) {
        return Ok(());
    }
    let mut text = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(4096).read_to_string(&mut text);
    }
    let line = text.lines().next().unwrap_or("without a message");
    Err(format!("failed: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guest itself is right if the translator can run it.
    #[test]
    fn the_probe_guest_finishes_under_the_translator() {
        let Ok(qemu) = super::super::qemu::find(None) else {
            eprintln!("skipped: no QEMU");
            return;
        };
        // A loaded machine may need more than one try.
        let tries: Vec<_> = (0..3).map(|_| execute(&qemu, "tcg")).collect();
        assert!(tries.iter().any(Result::is_ok), "{tries:?}");
    }
}
