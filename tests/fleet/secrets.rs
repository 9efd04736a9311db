//! Secrets of what `fleet export` writes: as a disk that is made as KubeVirt makes it, and as a shared
//! directory. The same machine takes either.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dock2uni_format::record::MountKind;

use crate::common::run;
use crate::common::vm::{Vm, can_boot, dock2uni};

const PATIENCE: Duration = Duration::from_secs(180);

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {Server.Key_with-a-long-name.pem: never-exported, password: never-exported}
---
apiVersion: batch/v1
kind: Job
metadata: {name: ask}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: "oci:LAYOUT:latest"
        command: [sh, -c, "cat /etc/keys/Server.Key_with-a-long-name.pem; echo $PASSWORD, $MODE; ls -l /etc/keys; touch /etc/keys/x"]
        env:
        - {name: MODE, value: fast}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
        volumeMounts: [{name: keys, mountPath: /etc/keys, readOnly: true}]
      volumes: [{name: keys, secret: {secretName: keys}}]
"#;

#[test]
fn secrets_come_by_a_disk_or_a_shared_directory_and_are_in_no_file() {
    if !can_boot() {
        return;
    }
    let layout = test_images::build("busybox").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = MANIFESTS.replace("LAYOUT", &layout.display().to_string());
    fs::write(dir.path().join("fleet.yaml"), text).unwrap();
    run(dock2uni()
        .args(["fleet", "export", "fleet.yaml", "-p", "shop", "--to", "kubevirt"])
        .args(["--registry", "registry.example.org/shop", "-o", "out"])
        .current_dir(dir.path())
        .env("DOCK2UNI_STORE", dir.path().join("store")));
    let out = dir.path().join("out");
    let yaml = fs::read_to_string(out.join("kubevirt.yaml")).unwrap();
    let disk = fs::read_dir(out.join("disks")).unwrap().next().unwrap().unwrap().path();
    assert!(!yaml.contains("never-exported"), "{yaml}");
    let opened = dock2uni::disk::Disk::open(&disk).unwrap();
    let record = opened.record().unwrap();
    assert!(!format!("{record:?}").contains("never-exported"));
    let mount = &record.mounts[0].kind;
    let MountKind::Host { tag: files } = mount else { panic!("{mount:?}") };
    let variables = &record.variables[0].tag;
    // Both are the source's own Secret.
    for label in [files, variables] {
        let volume = format!("secretName: \"keys\"\n            volumeLabel: {label}\n");
        assert!(yaml.contains(&volume), "{yaml}");
    }

    // What kubelet shows of it.
    let keys = dir.path().join("keys");
    fs::create_dir(&keys).unwrap();
    fs::write(keys.join("Server.Key_with-a-long-name.pem"), "key-value\n").unwrap();
    fs::write(keys.join("password"), "pass'value").unwrap();
    let machine = |smp: &str| {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-machine", "q35,accel=tcg", "-m", "256M", "-smp", smp, "-nodefaults"]);
        command.args(["-nographic", "-no-reboot", "-serial", "stdio", "-snapshot"]);
        command.arg("-drive").arg(format!("file={},if=virtio", disk.display()));
        command
    };
    let check = |command: &mut Command| {
        let mut vm = Vm::start(command);
        for expected in ["key-value", "pass'value, fast", "password", "Read-only file system"] {
            vm.wait_for(expected, PATIENCE);
        }
        vm.wait(PATIENCE);
        assert!(!vm.text().contains("rw-rw-rw"), "{}", vm.text());
    };
    let mut command = machine("2");
    for label in [files, variables] {
        let iso = dir.path().join(format!("{label}.iso"));
        make_disk(&iso, label, &keys);
        let drive = format!("file={},if=virtio,format=raw,readonly=on", iso.display());
        command.arg("-drive").arg(drive);
    }
    check(&mut command);
    let mut command = machine("1");
    for tag in [files, variables] {
        let path = keys.display();
        command
            .arg("-virtfs")
            .arg(format!("local,path={path},mount_tag={tag},security_model=none,readonly=on"));
    }
    check(&mut command);

    // Without them there is no start, and a word about what is missing.
    let mut vm = Vm::start(&mut machine("1"));
    vm.wait_for(&format!("nothing shares `{files}`"), PATIENCE);
    vm.wait(PATIENCE);
}

/// Makes a disk of a Secret, as virt-launcher does (`pkg/config` in KubeVirt's sources).
fn make_disk(iso: &Path, label: &str, dir: &Path) {
    let mut command = Command::new("xorrisofs");
    command.arg("-output").arg(iso).args(["-follow-links", "-volid", label, "-joliet", "-rock"]);
    command.args(["-graft-points", "-partition_cyl_align", "on"]);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (name, path) = (entry.file_name(), entry.path());
        command.arg(format!("{}={}", name.to_str().unwrap(), path.display()));
    }
    run(&mut command);
}
