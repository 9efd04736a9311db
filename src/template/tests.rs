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

/// What Terraform would make of the file: locals, with stand-ins for what only it knows.
fn cloud_config(text: &str, image: &Path) -> serde_json::Value {
    use hcl::eval::{Context, Evaluate, FuncArgs, FuncDef, ParamType};
    let sha256 = {
        let output = Command::new("sha256sum").arg(image).output().unwrap();
        String::from_utf8(output.stdout).unwrap()[..64].to_owned()
    };
    let join = |args: FuncArgs| {
        let words = args[1].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let words: Vec<_> = words.collect();
        Ok(words.join(args[0].as_str().unwrap()).into())
    };
    let strings = ParamType::array_of(ParamType::String);
    let mut context = Context::new();
    context.declare_func(
        "join",
        FuncDef::builder().param(ParamType::String).param(strings).build(join),
    );
    for (name, value) in [
        ("var", hcl::value!({ "region" = "eu-central-1" })),
        ("local", hcl::value!({ "sha256" = (sha256) })),
        ("aws_s3_bucket", hcl::value!({ "images" = { "id" = "bucket" } })),
        ("aws_s3_object", hcl::value!({ "disk" = { "key" = "app.img" } })),
        ("azurerm_storage_blob", hcl::value!({ "disk" = { "url" = "https://a.example/app.img" } })),
        ("azurerm_user_assigned_identity", hcl::value!({ "host" = { "client_id" = "1-2" } })),
    ] {
        context.declare_var(name, value);
    }
    let body: hcl::Body = hcl::from_str(text).unwrap();
    let of = |block: &hcl::Block| {
        let mut all = block.body.attributes().filter(|a| a.key.as_str() == "cloud_config");
        all.next().map(|attribute| attribute.expr.clone())
    };
    let config = body.blocks().find_map(of).unwrap();
    serde_json::to_value(config.evaluate(&context).unwrap()).unwrap()
}

/// Hosts in clouds whose cards the kernel doesn't drive: what they are told to do, done by stand-ins.
#[test]
fn hosts_in_clouds_fetch_the_image_and_run_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (target, size) in
        [(Target::TerraformAws, "c8i.large"), (Target::TerraformAzure, "Standard_D2s_v5")]
    {
        let Some(text) = rendered(dir, target, AWKWARD) else { return };
        assert!(text.contains(&format!("\"{size}\"")), "{text}");
        let image = dir.join("a b, c/app.img");
        let config = cloud_config(&text, &image);
        let files = config["write_files"].as_array().unwrap();
        let content = |end: &str| {
            let named = |file: &&serde_json::Value| file["path"].as_str().unwrap().ends_with(end);
            files.iter().find(named).unwrap()["content"].as_str().unwrap().to_owned()
        };
        // Ports below 1024 are had as they are, and the VM may not ask for the host's rights.
        let unit = content("/we-re--odd-----fine---h---x----y.service");
        assert!(unit.contains("hostfwd=tcp::8080-:80"), "{unit}");
        assert!(unit.contains("file=/var/lib/dock2uni/we-re--odd-----fine---h---x----y.img"));
        let drop_in = content(".service.d/cloud.conf");
        assert!(drop_in.contains("\nIPAddressDeny=169.254.169.254 "), "{drop_in}");
        for (name, unit) in [("x.service", unit), ("x-image.service", content("-image.service"))] {
            let unit = unit.replace("/usr/bin/qemu-system-x86_64", "/bin/true");
            accepted(dir, name, &unit, &["systemd-analyze", "verify", "--man=no"]);
        }

        // The script, with a cloud of files.
        let kept = dir.join("kept/vm.img");
        let script = content("-image").replace(
            "image=/var/lib/dock2uni/we-re--odd-----fine---h---x----y.img",
            &format!("image='{}'", kept.display()),
        );
        let path = dir.join("fetch.sh");
        std::fs::write(&path, &script).unwrap();
        let stand_ins = dir.join("bin");
        std::fs::create_dir_all(&stand_ins).unwrap();
        // The last word is where to, or what follows `-o`; `$CLOUD` is what is there.
        let copy = "#!/bin/sh\nprintf '%s\\n' \"$*\" >>\"$LOG\"\n\
                    case \"$*\" in *metadata/identity*) echo '{\"access_token\": \"t\"}'; exit;; esac\n\
                    [ \"$1\" = s3 ] || cat >>\"$LOG\"\n\
                    for word; do case $word in *.part) cp \"$CLOUD\" \"$word\";; esac; done\n";
        for name in ["aws", "curl"] {
            std::fs::write(stand_ins.join(name), copy).unwrap();
        }
        std::fs::write(stand_ins.join("jq"), "#!/bin/sh\nsed 's/.*: \"//; s/\".*//'\n").unwrap();
        let run = |cloud: &Path| {
            let words = "chmod +x \"$0\"/*; PATH=\"$0:$PATH\" sh \"$1\"";
            let mut command = Command::new("sh");
            command
                .args(["-c", words])
                .arg(&stand_ins)
                .arg(&path)
                .stdin(std::process::Stdio::null());
            command.env("CLOUD", cloud).env("LOG", dir.join("log")).output().unwrap()
        };
        let _ = std::fs::remove_file(dir.join("log"));
        let _ = std::fs::remove_file(&kept);
        let other = dir.join("other");
        std::fs::write(&other, "something else").unwrap();
        assert!(!run(&other).status.success());
        assert!(!kept.exists());
        let output = run(&image);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(std::fs::read(&kept).unwrap(), std::fs::read(&image).unwrap());
        let log = std::fs::read_to_string(dir.join("log")).unwrap();
        match target {
            Target::TerraformAws => {
                assert!(log.contains("s3 cp --quiet --region eu-central-1 s3://bucket/app.img "));
            }
            _ => {
                let last = log.lines().last().unwrap();
                assert_eq!(last, "header = \"Authorization: Bearer t\"", "{log}");
                assert!(!log.lines().any(|line| line.contains("-o") && line.contains("Bearer")));
            }
        }
        // It is there: nothing is fetched again.
        assert!(run(&other).status.success());
        assert_eq!(std::fs::read(&kept).unwrap(), std::fs::read(&image).unwrap());
    }
}

#[test]
fn what_a_target_cannot_use_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let Some((disk, path)) = disk(dir.path(), Format::Vdi) else { return };
    let error = render(Target::TerraformGoogle, &disk, &path, &params("a")).unwrap_err();
    assert_eq!(error.to_string(), "terraform-google takes no vdi disk");
    assert_eq!(error.hint().as_deref(), Some("convert to gce"));
    let bare = Params { boot: None, reference: None, ..params("a") };
    for target in [Target::Firecracker, Target::CloudHypervisor, Target::KubeVirt] {
        let error = render(target, &disk, &path, &bare).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }) && error.hint().is_some());
    }
    let error = render(Target::Qemu, &disk, &path, &params("a\nb")).unwrap_err();
    assert!(matches!(error, Error::Render(_)));
}
