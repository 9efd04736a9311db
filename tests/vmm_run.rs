//! `dock2uni run` around a QEMU that is a few lines of shell: what it does with exit statuses,
//! signals, panics and silence, without any guest.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::layout::{ImageSpec, Layout, tar};
use common::vm::{Vm, can_boot, dock2uni};
use dock2uni::source::image::Compression;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

struct Lab {
    dir: TempDir,
    layout: Layout,
}

impl Lab {
    /// An image of one static program, and a QEMU that does `script` with the status channel as
    /// file descriptor 98 and the monitor as 99.
    fn new(script: &str) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let qemu = dir.path().join("qemu");
        let head = "#!/bin/bash\n\
            for word; do case $word in\n\
            socket,id=status,fd=*) eval \"exec 98>&${word##*=}\";;\n\
            socket,id=monitor,fd=*) eval \"exec 99<&${word##*=}\";;\n\
            esac; done\n";
        fs::write(&qemu, format!("{head}{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        // The headers of a static ELF program are all that is looked at.
        let mut elf = vec![0; 64];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16] = 2;
        elf[18] = 62;
        elf[20] = 1;
        elf[54] = 56;
        let mut layout = Layout::new();
        let image = layout.image(&ImageSpec {
            layers: vec![(tar(&[("hello", &elf)]), Compression::Gzip)],
            config: json!({"Cmd": ["/hello"]}),
            ..ImageSpec::default()
        });
        layout.name(image, "latest");
        Lab { dir, layout }
    }

    fn start(&self, options: &[&str]) -> Vm {
        Vm::start(
            dock2uni()
                .args(["run", "--accel", "tcg", "--qemu"])
                .arg(self.dir.path().join("qemu"))
                .args(options)
                .arg(self.layout.path())
                .env("DOCK2UNI_STORE", self.dir.path().join("store")),
        )
    }

    fn code(&self) -> (i32, String) {
        let mut vm = self.start(&[]);
        let code = vm.wait(SOON);
        (code, vm.text())
    }
}

#[test]
fn the_applications_status_is_the_tools() {
    if !can_boot() {
        return;
    }
    assert_eq!(Lab::new("echo hi; echo 'exit 3' >&98").code(), (3, "hi".into()));
    assert_eq!(Lab::new("echo 'start 5' >&98; echo 'exit 0' >&98").code().0, 0);
    assert_eq!(Lab::new("echo 'signal 11' >&98").code().0, 139);
    // The first word about the end counts.
    assert_eq!(Lab::new("echo 'exit 4' >&98; echo 'panic late' >&98; exit 1").code().0, 4);
}

#[test]
fn what_is_not_the_applications_doing_is_125_and_said_once() {
    if !can_boot() {
        return;
    }
    let (code, text) = Lab::new("echo 'panic index out of bounds' >&98; sleep 60").code();
    assert_eq!(code, 125);
    assert!(text.contains("error: the guest kernel panicked: index out of bounds"), "{text}");
    let (code, text) = Lab::new("echo 'qemu: no such machine' >&2; exit 1").code();
    assert_eq!(code, 125);
    assert_eq!(text, "error: QEMU failed: qemu: no such machine");
    let (code, text) = Lab::new("exit 0").code();
    assert_eq!(code, 125);
    assert!(text.contains("the VM stopped without an exit status"), "{text}");
    let (code, text) = Lab::new("echo 'failed /hello: no such file' >&98").code();
    assert_eq!(code, 126);
    assert!(text.contains("could not be started: /hello: no such file"), "{text}");
}

#[test]
fn a_signal_presses_the_power_button_and_the_status_still_counts() {
    if !can_boot() {
        return;
    }
    let script = "echo ready; while read -r line <&99; do case $line in \
                  *system_powerdown*) echo 'exit 7' >&98; exit 0;; esac; done";
    for signal in [Signal::INT, Signal::TERM] {
        let lab = Lab::new(script);
        let mut vm = lab.start(&[]);
        vm.wait_for("ready", SOON);
        vm.signal(signal);
        assert_eq!(vm.wait(SOON), 7, "{}", vm.text());
        assert!(vm.text().contains("stopping"), "{}", vm.text());
    }
}

#[test]
fn a_second_signal_and_a_spent_grace_period_end_the_vm() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("echo ready; exec sleep 60");
    let mut vm = lab.start(&[]);
    vm.wait_for("ready", SOON);
    vm.signal(Signal::INT);
    vm.wait_for("stopping", SOON);
    vm.signal(Signal::INT);
    assert_eq!(vm.wait(SOON), 130, "{}", vm.text());

    let mut vm = lab.start(&["--stop-timeout", "0"]);
    vm.wait_for("ready", SOON);
    let asked = Instant::now();
    vm.signal(Signal::TERM);
    assert_eq!(vm.wait(SOON), 125, "{}", vm.text());
    assert!(asked.elapsed() >= Duration::from_secs(5));
    assert!(vm.text().contains("grace period of 0 s"), "{}", vm.text());
}

#[test]
fn qemu_dies_with_the_tool() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("echo pid $$; exec sleep 60");
    let mut vm = lab.start(&[]);
    let line = vm.wait_for("pid ", SOON);
    let stat = PathBuf::from(format!("/proc/{}/stat", line.rsplit(' ').next().unwrap()));
    assert!(stat.exists());
    vm.signal(Signal::KILL);
    assert_eq!(vm.wait(SOON), 137);
    let deadline = Instant::now() + SOON;
    // Gone, or a zombie where nobody reaps orphans.
    while fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
        assert!(Instant::now() < deadline, "QEMU outlived the tool");
        std::thread::sleep(Duration::from_millis(20));
    }
}
