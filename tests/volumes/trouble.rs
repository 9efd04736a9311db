//! Full volumes, and disks that fail: an error to the caller and a line for people, never a hang.

use super::common::vm::{Vm, can_boot};
use super::{Lab, PATIENCE, clean, debugfs};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[test]
fn a_full_volume_says_so_and_gets_room_again() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new();
    lab.create("v", 24);
    let (code, text) = lab.run(&["--cpus", "2", "-v", "v:/data"], &["--fill", "/data"]);
    assert!(code == 0 && text.contains("full after") && text.contains("room again"), "{text}");
    clean(&lab.file("v"));
}

/// A QEMU whose volume fails as QEMU's `blkdebug` has it, in a section `inject-error` of its own
/// configuration.
fn failing(dir: &Path, volume: &Path, error: &str) -> PathBuf {
    let config = dir.join("blkdebug.conf");
    let section =
        format!("[inject-error]\nevent = \"none\"\nerrno = \"5\"\nonce = \"off\"\n{error}");
    fs::write(&config, section).unwrap();
    let program = dir.join("qemu");
    // In variables, since slashes would end the pattern.
    let script = format!(
        "#!/bin/bash\nplain='file={volume}' failing='file=blkdebug:{config}:{volume}'\n\
         exec qemu-system-x86_64 \"${{@/$plain/$failing}}\"\n",
        volume = volume.display(),
        config = config.display(),
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// What a program on the volume `v` sees that fails so, and what the kernel says.
fn see(lab: &Lab, error: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let qemu = failing(dir.path(), &lab.file("v"), error);
    let mut vm = Vm::start(
        lab.command(&["--cpus", "2", "-v", "v:/data"], &["--failing", "/data", "20"])
            .env("DOCK2UNI_QEMU", qemu),
    );
    let code = vm.wait(PATIENCE);
    assert!(code == 0 && vm.text().contains("\nend"), "{code}: {}", vm.text());
    vm.text()
}

#[track_caller]
fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|l| l.contains(line)), "no `{line}`:\n{text}");
    }
}

/// The first sectors of a file's blocks.
fn sectors(lab: &Lab, file: &str) -> Vec<u64> {
    let blocks = debugfs(&lab.file("v"), &format!("blocks {file}"));
    let numbers = blocks.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    numbers.map(|block| block * 8).collect()
}

#[test]
fn a_disk_that_fails_is_an_error_to_fsync_and_a_line() {
    if !can_boot() {
        return;
    }
    let volume = || {
        let lab = Lab::new();
        lab.create("v", 96);
        lab
    };
    // Where the contents of a file will be, and where the journal goes on behind its own superblock.
    let lab = volume();
    let whole = see(&lab, "iotype = \"write\"\nsector = \"99999999\"\n");
    has(&whole, &["write: ok", "fsync: ok", "read: ok", "other fsync: ok"]);
    clean(&lab.file("v"));
    let contents = sectors(&lab, "/large");
    let contents = contents[contents.len() / 2];
    let journal = sectors(&lab, "<8>")[1];
    // It can't be read.
    let text = see(&lab, &format!("iotype = \"read\"\nsector = \"{contents}\"\n"));
    has(&text, &["the disk fails to read", "read: errno 5", "other fsync: ok"]);
    clean(&lab.file("v"));
    // The journal can't be written: nothing can be promised any more.
    let text = see(&lab, &format!("iotype = \"write\"\nsector = \"{journal}\"\n"));
    has(&text, &["the disk fails to write", "read-only from now on", "fsync: errno 5"]);
    has(&text, &["other write: errno 30"]);
    // A file can't be written: it hears of that, once for each descriptor, and others go on.
    let lab = volume();
    let text = see(&lab, &format!("iotype = \"write\"\nsector = \"{contents}\"\n"));
    has(&text, &["the disk fails to write", "fsync: errno 5", "fsync again: ok"]);
    has(&text, &["other write: ok", "other fsync: ok"]);
    clean(&lab.file("v"));
}
