//! The job of `fleet export --to nomad`, its VM started as Nomad's QEMU driver starts it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use hcl::{Block, Body, Expression, TemplateExpr};

use crate::common::vm::{Vm, can_boot, dock2uni};

const PATIENCE: Duration = Duration::from_secs(180);

const COMPOSE: &str = r#"
services:
  db:
    image: "oci:LAYOUT:latest"
    command: sh -c 'cat /run/secrets/pass-word; date +written > /data/file; cat /data/file; hostname'
    volumes: ["data:/data"]
    secrets: [pass-word]
volumes: {data: {}}
secrets: {pass-word: {file: ./not-there}}
"#;

fn inner<'a>(body: &'a Body, kind: &str) -> &'a Block {
    body.blocks().find(|block| block.identifier.as_str() == kind).expect(kind)
}

#[test]
fn nomads_driver_boots_a_machine_with_its_volume_and_its_secrets() {
    if !can_boot() {
        return;
    }
    let layout = test_images::build("busybox").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let compose = COMPOSE.replace("LAYOUT", &layout.display().to_string());
    fs::write(dir.path().join("compose.yaml"), compose).unwrap();
    let output = dock2uni()
        .args(["fleet", "export", "compose.yaml", "-p", "shop", "--to", "nomad", "-o", "out"])
        .current_dir(dir.path())
        .env("DOCK2UNI_STORE", dir.path().join("store"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = dir.path().join("out").canonicalize().unwrap();
    let text = fs::read_to_string(out.join("shop.nomad.hcl")).unwrap();
    let job: Body = hcl::from_str(&text).unwrap();
    let task = inner(&inner(&inner(&job, "job").body, "group").body, "task");

    // What Nomad puts in the place of expressions, and on the client before the task starts.
    let secrets = dir.path().join("secrets");
    fs::create_dir_all(secrets.join("secrets")).unwrap();
    fs::write(secrets.join("secrets/pass-word"), "hush-hush\n").unwrap();
    let disks = out.join("disks").display().to_string();
    let put = |text: &str| {
        text.replace("${var.disks}", &disks)
            .replace(
                r#"${replace(var.volumes, ",", ",,")}"#,
                &out.join("volumes").display().to_string(),
            )
            .replace("${NOMAD_SECRETS_DIR}", &secrets.display().to_string())
    };
    let plain = |expression: &Expression| match expression {
        Expression::String(text) => text.clone(),
        Expression::TemplateExpr(template) => match &**template {
            TemplateExpr::QuotedString(text) => text.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let config = &inner(&task.body, "config").body;
    let attribute = |key: &str| {
        &config.attributes().find(|attribute| attribute.key.as_str() == key).expect(key).expr
    };
    let Expression::Conditional(image) = attribute("image_path") else { panic!("{text}") };
    let Expression::Array(args) = attribute("args") else { panic!("{text}") };
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "type=pc,accel=tcg", "-name", "vm", "-m", "256M"]);
    command.arg("-drive").arg(format!("file={},if=virtio", put(&plain(&image.false_expr))));
    command.arg("-nographic");
    for arg in args {
        let arg = put(&plain(arg));
        // The network's devices are for root to make.
        command.arg(match arg.starts_with("tap,id=net,ifname=") {
            true => "user,id=net".to_owned(),
            false => arg,
        });
    }
    let mut vm = Vm::start(&mut command);
    for expected in ["hush-hush", "written", "db"] {
        vm.wait_for(expected, PATIENCE);
    }
    assert_eq!(vm.wait(PATIENCE), 0, "{}", vm.text());
}
