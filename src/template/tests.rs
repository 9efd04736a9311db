//! Every template with ordinary and with awkward values, each read by something that knows its
//! language.

use std::process::Command;

use super::*;

const AWKWARD: &str = "we're \"odd\" & <fine> %h ${x} $(y)";

fn params(name: &str) -> Params {
    Params {
        name: name.into(),
        memory: 256,
        cpus: 2,
        ports: vec![(8080, 80, Proto::Tcp), (5353, 53, Proto::Udp)],
        boot: Some("/var/lib/it's here".into()),
        reference: Some("registry.example.org/app:1".into()),
        tap: "tap0".into(),
        network: "default".into(),
        uefi: true,
    }
}

/// A disk around an empty filesystem; `None` in builds without a kernel.
fn disk(dir: &Path, format: Format) -> Option<(Disk, std::path::PathBuf)> {
    crate::guest::kernel().ok()?;
    let layout = disk::Layout::new().ok()?;
    let base = tempfile::tempfile().unwrap();
    let options = crate::rootfs::Options::default();
    let root = crate::rootfs::build(&[], &options, &base, layout.root, &|_| {}).unwrap();
    let part = disk::RootPart {
        start: layout.root,
        len: root.len,
        uuid: root.uuid,
        verity: Some(root.verity),
    };
    let options = disk::Options {
        place: disk::Place::Disk,
        granularity: format.granularity(),
        iso: false,
        signer: None,
        provenance: &[],
    };
    let record = dock2uni_format::record::Record { stop_grace_secs: 10, ..Default::default() };
    let assembly = disk::assemble(&base, part, &record, &options).unwrap();
    // A directory whose name needs quoting in most languages.
    let dir = dir.join("a b, c");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("app.{}", format.extension()));
    let file = std::fs::File::create_new(&path).unwrap();
    disk::format::write(format, &assembly, &file).unwrap();
    Some((Disk::open(&path).unwrap(), path))
}

fn rendered(dir: &Path, target: Target, name: &str) -> Option<String> {
    let format = target.formats().first().copied().unwrap_or(Format::Raw);
    let _ = std::fs::remove_dir_all(dir.join("a b, c"));
    let (disk, path) = disk(dir, format)?;
    Some(render(target, &disk, &path, &params(name)).unwrap())
}

/// Runs a tool over a text; `None` if it isn't there.
fn accepted(dir: &Path, file: &str, text: &str, tool: &[&str]) -> Option<()> {
    let path = dir.join(file);
    std::fs::write(&path, text).unwrap();
    let Ok(output) = Command::new(tool[0]).args(&tool[1..]).arg(&path).output() else {
        eprintln!("SKIPPED: no {}", tool[0]);
        return None;
    };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{tool:?}: {stderr}\n{text}");
    Some(())
}

#[test]
fn every_template_is_sound_in_its_language() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for name in ["app", AWKWARD] {
        for target in Target::ALL {
            let Some(text) = rendered(dir, target, name) else {
                eprintln!("SKIPPED: built without a kernel");
                return;
            };
            assert!(text.ends_with('\n') && !text.contains("{{"), "{text}");
            match target {
                Target::Qemu | Target::CloudHypervisor | Target::Proxmox => {
                    accepted(dir, "x.sh", &text, &["sh", "-n"]);
                }
                Target::Systemd => {
                    // The unit must not depend on what this machine has.
                    let text = text.replace("/usr/bin/qemu-system-x86_64", "/bin/true");
                    accepted(dir, "x.service", &text, &["systemd-analyze", "verify", "--man=no"]);
                }
                Target::Libvirt => {
                    let there = Command::new("xmllint").arg("--version").output().is_ok();
                    if there {
                        let validate = "virt-xml-validate \"$0\" domain";
                        accepted(dir, "x.xml", &text, &["sh", "-c", validate]);
                    }
                }
                Target::Firecracker => {
                    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(
                        value["boot-source"]["kernel_image_path"],
                        "/var/lib/it's here/kernel"
                    );
                }
                Target::KubeVirt => {
                    let script = "import sys, yaml; \
                                  d = list(yaml.safe_load_all(open(sys.argv[1]))); \
                                  assert [x['kind'] for x in d] == ['VirtualMachine', 'Service']; \
                                  assert len(d[1]['spec']['ports']) == 2";
                    let yaml = Command::new("python3").args(["-c", "import yaml"]).status();
                    if yaml.is_ok_and(|status| status.success()) {
                        accepted(dir, "x.yaml", &text, &["python3", "-c", script]);
                    }
                }
                Target::Nomad
                | Target::TerraformAws
                | Target::TerraformGoogle
                | Target::TerraformAzure => {
                    let body: hcl::Body =
                        hcl::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                    assert!(body.blocks().count() > 0);
                }
            }
        }
    }
}

/// The script runs: what QEMU is given is what was meant.
#[test]
fn the_script_passes_its_values_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(text) = rendered(dir.path(), Target::Qemu, AWKWARD) else { return };
    let path = dir.path().join("x.sh");
    std::fs::write(&path, text).unwrap();
    let fake = dir.path().join("qemu");
    std::fs::write(&fake, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
    let output = Command::new("sh")
        .args(["-c", "chmod +x \"$0\"; QEMU=\"$0\" sh \"$1\" more"])
        .arg(&fake)
        .arg(&path)
        .output()
        .unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    let image = dir.path().canonicalize().unwrap().join("a b,, c/app.img");
    let drive = format!("if=none,id=root,format=raw,readonly=on,file={}\n", image.display());
    assert!(words.contains(&drive), "{words}");
    assert!(words.contains("user,id=net,hostfwd=tcp::8080-:80,hostfwd=udp::5353-:53\n"), "{words}");
    assert!(words.ends_with("\nmore\n"), "{words}");
}

#[test]
fn what_a_target_cannot_use_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let Some((disk, path)) = disk(dir.path(), Format::Vdi) else { return };
    let error = render(Target::TerraformAzure, &disk, &path, &params("a")).unwrap_err();
    assert_eq!(error.to_string(), "terraform-azure takes no vdi disk");
    assert_eq!(error.hint().as_deref(), Some("convert to vhd"));
    let bare = Params { boot: None, reference: None, ..params("a") };
    for target in [Target::Firecracker, Target::CloudHypervisor, Target::KubeVirt] {
        let error = render(target, &disk, &path, &bare).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }) && error.hint().is_some());
    }
    let error = render(Target::Qemu, &disk, &path, &params("a\nb")).unwrap_err();
    assert!(matches!(error, Error::Render(_)));
}
