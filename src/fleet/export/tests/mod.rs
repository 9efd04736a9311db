//! Every configuration, read by something that knows its language.

mod nomad;
mod terraform;
mod timer;

use std::path::Path;
use std::process::Command;

use super::*;
use crate::fleet::{compose, yaml};

const COMPOSE: &str = r#"
services:
  web:
    image: example.org/web:1
    ports: ["8080:80", "8443:443"]
    depends_on: [app]
    restart: always
    deploy: {replicas: 2}
  app:
    image: example.org/app:1
    expose: ["8000"]
    command: ["serve", "it's <fine> & $${x}"]
    configs: [{source: settings, target: /etc/app.conf}]
    tmpfs: /scratch
    mem_limit: 192m
    cpus: 1.5
    depends_on: {db: {condition: service_healthy}}
    restart: on-failure
  db:
    image: example.org/db:1
    volumes: ["data:/var/lib/db"]
    healthcheck: {test: "true"}
    stop_grace_period: 1m
SECRETS
volumes: {data: {}}
configs: {settings: {content: "mode = fast"}}
secrets: {password: {file: ./password}}
"#;

fn workloads_of(target: Target, compose: &str) -> (Vec<Workload>, Settings) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("compose.yaml");
    std::fs::write(&file, compose).unwrap();
    let workloads =
        compose::read(std::slice::from_ref(&file), &compose::Options::default()).unwrap();
    let settings = Settings {
        target,
        name: "shop".into(),
        out: "/srv/vms of & the <shop>".into(),
        registry: Some("registry.example.org/shop/".into()),
        memory_mib: 256,
        jobs: 1,
        files: vec!["/srv/a b/compose.yaml".into()],
    };
    (workloads, settings)
}

fn fleet(target: Target, compose: &str) -> Result<(Vec<Machine>, Settings), Error> {
    let (workloads, settings) = workloads_of(target, compose);
    let (mut machines, _) = machine::machines(&workloads, &settings)?;
    for machine in &mut machines {
        let name = &machine.name;
        machine.disk = format!("/srv/vms of & the <shop>/disks/{name}.qcow2");
        machine.file = format!("{name}.qcow2");
        machine.boot = format!("/srv/vms of & the <shop>/boot/{name}");
        machine.reference = "0123456789abcdef".into();
    }
    Ok((machines, settings))
}

fn machines_for(target: Target, secrets: &str) -> Result<(Vec<Machine>, Settings), Error> {
    fleet(target, &COMPOSE.replace("SECRETS", secrets))
}

fn files(target: Target, secrets: &str) -> Vec<Rendered> {
    let (machines, settings) = machines_for(target, secrets).unwrap();
    render::render(&machines, &settings).unwrap()
}

fn file<'a>(all: &'a [Rendered], name: &str) -> &'a str {
    let found = all.iter().find(|file| file.name == name);
    &found.unwrap_or_else(|| panic!("{:?}", all.iter().map(|f| &f.name).collect::<Vec<_>>())).text
}

/// Runs a tool over a text, if it is there.
fn accepted(name: &str, text: &str, tool: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let Ok(output) = Command::new(tool[0]).args(&tool[1..]).arg(&path).output() else {
        eprintln!("SKIPPED: no {}", tool[0]);
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool:?}: {stderr}\n{text}");
}

/// Holds what has a schema in Kubernetes itself to it, if the tool for it is there; returns how many
/// documents have.
fn held_to_schemas(text: &str) -> usize {
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), Into::into);
    let tool = cache.join("dock2uni-tests/moto/bin/kubernetes-validate");
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let Ok(output) = Command::new(&tool).arg("--strict").arg(file.path()).output() else {
        eprintln!("SKIPPED: no {} (scripts/setup installs it)", tool.display());
        return usize::MAX;
    };
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}\n{text}");
    for line in said.lines().filter(|line| line.contains("Couldn't find schema")) {
        assert!(line.contains("kubevirt.io/"), "{said}");
    }
    said.matches(" passed ").count()
}

#[test]
fn kubevirt_gets_machines_services_and_volumes() {
    let all = files(Target::KubeVirt, "");
    let documents = yaml::documents(file(&all, "kubevirt.yaml"), "kubevirt.yaml").unwrap();
    let find = |kind: &str, name: &str| {
        let wanted = |d: &&serde_json::Value| d["kind"] == kind && d["metadata"]["name"] == name;
        documents.iter().find(wanted).unwrap_or_else(|| panic!("{kind} {name}: {documents:#?}"))
    };
    let count = |kind: &str| documents.iter().filter(|document| document["kind"] == kind).count();
    assert_eq!((count("VirtualMachine"), count("Service"), count("DataVolume")), (4, 4, 1));
    let app = find("VirtualMachine", "app");
    assert_eq!(app["spec"]["runStrategy"], "RerunOnFailure");
    let spec = &app["spec"]["template"]["spec"];
    assert_eq!(spec["domain"]["memory"]["guest"], "192Mi");
    assert_eq!(spec["domain"]["cpu"]["cores"], 2);
    assert_eq!(spec["readinessProbe"]["tcpSocket"]["port"], 8000);
    assert_eq!(app["metadata"]["annotations"]["dock2uni.dev/after"], "db");
    let reference = &spec["volumes"][0]["containerDisk"]["image"];
    assert_eq!(reference, "registry.example.org/shop/app:0123456789abcdef");
    let db = &find("VirtualMachine", "db")["spec"]["template"]["spec"];
    assert_eq!(db["volumes"][1]["dataVolume"]["name"], "shop-data");
    assert_eq!(db["terminationGracePeriodSeconds"], 65);
    assert_eq!(find("Service", "db")["spec"]["clusterIP"], "None");
    let public = &find("Service", "web-public")["spec"];
    assert_eq!(
        (&public["ports"][0]["port"], &public["ports"][0]["targetPort"]),
        (&8080.into(), &80.into())
    );
    find("VirtualMachine", "web-2");
    assert!(held_to_schemas(file(&all, "kubevirt.yaml")) >= 4);
    accepted("push.sh", file(&all, "push.sh"), &["sh", "-n"]);
}

#[test]
fn libvirt_gets_domains_and_a_network_with_names() {
    let all = files(Target::Libvirt, "    secrets: [password]\n");
    let there = Command::new("xmllint").arg("--version").output().is_ok();
    for rendered in all.iter().filter(|file| file.name.ends_with(".xml")) {
        let schema = if rendered.name == "shop-network.xml" { "network" } else { "domain" };
        if there {
            let validate = format!("virt-xml-validate \"$0\" {schema}");
            accepted("x.xml", &rendered.text, &["sh", "-c", &validate]);
        }
    }
    let db = file(&all, "db.xml");
    assert!(db.contains("shop_data.ext4"), "{db}");
    assert!(db.contains("/etc/dock2uni/shop/secrets/db"), "{db}");
    let network = file(&all, "shop-network.xml");
    assert!(network.contains("<hostname>app</hostname>"), "{network}");
    let start = file(&all, "start.sh");
    accepted("start.sh", start, &["sh", "-n"]);
    let at = |text: &str| start.find(text).unwrap_or_else(|| panic!("{text}: {start}"));
    assert!(at("start 'shop-db'") < at("start 'shop-app'"));
    assert!(at("start 'shop-app'") < at("start 'shop-web-1'"));
    assert!(at("tcp dport 8080 dnat to numgen inc mod 2 map") < at("start 'shop-db'"));
}

#[test]
fn firecracker_and_cloud_hypervisor_get_machines_on_a_bridge() {
    for target in [Target::Firecracker, Target::CloudHypervisor] {
        let all = files(target, "");
        let start = file(&all, "start.sh");
        accepted("start.sh", start, &["sh", "-n"]);
        assert!(start.contains("/boot/db/root.erofs") || target == Target::Firecracker, "{start}");
        let names = file(&all, "dnsmasq.conf");
        assert!(names.contains("host-record=app,10.0.2."), "{names}");
        // Of two machines of one service the service's name leads to both.
        assert_eq!(names.matches("\nhost-record=web,").count(), 2, "{names}");
    }
    let all = files(Target::Firecracker, "");
    let db: serde_json::Value = serde_json::from_str(file(&all, "db.json")).unwrap();
    assert_eq!(
        db["drives"][1]["path_on_host"].as_str().unwrap().rsplit('/').next(),
        Some("shop_data.ext4")
    );
    assert_eq!(db["machine-config"]["mem_size_mib"], 256);
    let tap = db["network-interfaces"][0]["host_dev_name"].as_str().unwrap();
    assert!(tap.len() <= 15 && file(&all, "start.sh").contains(&format!("add {tap} mode tap")));
}

#[test]
fn systemd_gets_a_unit_that_runs_the_fleet() {
    let all = files(Target::Systemd, "");
    let unit = file(&all, "dock2uni-shop.service");
    assert!(unit.contains("--project shop --memory 256m \"/srv/a b/compose.yaml\"\n"), "{unit}");
    let text = unit.replace("WorkingDirectory=/srv/a b\n", "WorkingDirectory=/\n");
    accepted("dock2uni-shop.service", &text, &["systemd-analyze", "verify", "--man=no"]);
}

#[test]
fn secrets_are_disks_where_no_directory_can_be_shared() {
    let secrets = "    secrets: [password]\n";
    for target in [Target::Firecracker, Target::CloudHypervisor] {
        let all = files(target, secrets);
        let start = file(&all, "start.sh");
        accepted("start.sh", start, &["sh", "-n"]);
        assert!(start.contains("\nsecrets secrets 'db' 'password'\n"), "{start}");
        let at = |text: &str| start.find(text).unwrap_or_else(|| panic!("{text}: {start}"));
        assert!(at("secrets secrets 'db'") < at("ip tuntap add"));
        match target {
            Target::Firecracker => {
                let db: serde_json::Value = serde_json::from_str(file(&all, "db.json")).unwrap();
                assert_eq!(db["drives"][2]["path_on_host"], "/run/dock2uni/shop/db.iso");
                assert_eq!(db["drives"][2]["is_read_only"], true);
            }
            _ => assert!(start.contains("path=\"$run/db.iso\",readonly=on"), "{start}"),
        }
        make_disks(start);
        assert!(!file(&files(target, ""), "start.sh").contains("secrets"));
    }
    let all = files(Target::KubeVirt, secrets);
    let text = file(&all, "kubevirt.yaml");
    let documents = yaml::documents(text, "kubevirt.yaml").unwrap();
    let db =
        documents.iter().find(|d| d["kind"] == "VirtualMachine" && d["metadata"]["name"] == "db");
    let spec = &db.unwrap()["spec"]["template"]["spec"];
    let (disk, volume) = (&spec["domain"]["devices"]["disks"][2], &spec["volumes"][2]);
    assert_eq!((&disk["name"], &disk["disk"]["bus"]), (&volume["name"], &"virtio".into()));
    assert_eq!(volume["secret"]["secretName"], "shop-db");
    assert_eq!(volume["secret"]["volumeLabel"], "secrets");
    // What Compose has in a file is to be made a Secret.
    assert!(text.contains("create secret generic shop-db --from-file=password=FILE\n"), "{text}");
}

/// Runs the part of `start.sh` that makes disks of secrets, with all its places in a temporary directory.
fn make_disks(start: &str) {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("secrets/db");
    std::fs::create_dir_all(&from).unwrap();
    let begin = start.find("secrets() {").unwrap();
    let end = start.find("if ! ip link").unwrap();
    let place = format!("{}", dir.path().join("secrets").display());
    let part = start[begin..end].replace("/etc/dock2uni/shop/secrets", &place);
    let run = || {
        let script = format!("set -eu\nrun='{}'\n{part}", dir.path().display());
        Command::new("sh").args(["-c", &script]).output().unwrap()
    };
    let missing = run();
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && said.contains("db/password is missing"), "{said}");
    std::fs::write(from.join("password"), "s3cret").unwrap();
    if Command::new("xorrisofs").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no xorrisofs");
        return;
    }
    // Whatever was there before is replaced.
    for _ in 0..2 {
        let made = run();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let disk = dir.path().join("db.iso");
    let bytes = std::fs::read(&disk).unwrap();
    assert!(bytes[0x8000..].starts_with(b"\x01CD001"));
    assert_eq!(bytes[0x8028..0x8048].trim_ascii_end(), b"secrets");
    assert!(bytes.windows(6).any(|found| found == b"s3cret"));
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(disk.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn variables_of_secrets_are_files_too() {
    let secret = |key: &str| crate::fleet::Value::Secret {
        name: "api".into(),
        key: key.into(),
        manifest: None,
    };
    let workload = |key: &str| {
        let image = crate::fleet::Image::Reference("x".into());
        let mut workload = Workload::new("a".into(), crate::fleet::Kind::Pod, "x".into(), image);
        let variable = |name: &str, value| crate::fleet::Variable { name: name.into(), value };
        workload.env = vec![
            variable("TOKEN", secret(key)),
            variable("SAME", secret(key)),
            variable("PLAIN", crate::fleet::Value::Text("x".into())),
        ];
        workload
    };
    for target in [Target::KubeVirt, Target::Libvirt, Target::Firecracker, Target::Nomad] {
        let (_, settings) = machines_for(target, "").unwrap();
        let (machines, orders) = machine::machines(&[workload("token")], &settings).unwrap();
        let [share] = &machines[0].shares[..] else { panic!("{machines:?}") };
        assert_eq!((share.object.as_str(), share.given), ("api", true));
        assert_eq!(share.secrets.len(), 1);
        let got: Vec<_> = orders[0]
            .variables
            .iter()
            .map(|one| (one.name.as_str(), one.tag.as_str(), one.file.as_str()))
            .collect();
        assert_eq!(got, [("TOKEN", "variables", "token"), ("SAME", "variables", "token")]);
        assert!(orders[0].mounts.is_empty());
        // All keys of a Secret that nobody has seen.
        let error = machine::machines(&[workload("")], &settings).unwrap_err();
        assert!(error.hint().unwrap().contains("among the sources"), "{error}");
    }
}

#[test]
fn what_a_target_has_no_counterpart_for_is_refused_by_name() {
    let error = machines_for(Target::TerraformGoogle, "    secrets: [password]\n").err().unwrap();
    assert!(error.to_string().contains("`/var/lib/db`"), "{error}");
    assert!(error.hint().is_some());
    let mut workloads = Vec::new();
    let mut workload = Workload::new(
        "a".into(),
        crate::fleet::Kind::Pod,
        "x".into(),
        crate::fleet::Image::Reference("x".into()),
    );
    workload.env.push(crate::fleet::Variable {
        name: "TOKEN".into(),
        value: crate::fleet::Value::Secret {
            name: "api".into(),
            key: "token".into(),
            manifest: None,
        },
    });
    workloads.push(workload);
    let (_, mut settings) = machines_for(Target::Libvirt, "").unwrap();
    settings.target = Target::TerraformGoogle;
    let error = machine::machines(&workloads, &settings).unwrap_err();
    assert!(error.to_string().contains("`TOKEN` is of the secret `api`"), "{error}");
    assert!(error.hint().unwrap().contains("Secret Manager"), "{error}");
}

#[test]
fn clouds_whose_cards_are_not_driven_are_refused_with_a_way_out() {
    for name in ["terraform-aws", "terraform-azure"] {
        let error = name.parse::<Target>().unwrap_err();
        assert!(error.contains("network cards"), "{error}");
        assert!(error.contains(&format!("`dock2uni template {name}`")), "{error}");
    }
}

#[test]
fn volumes_and_machines_keep_their_identity() {
    let (first, _) = machines_for(Target::Libvirt, "").unwrap();
    let (second, _) = machines_for(Target::Libvirt, "").unwrap();
    let ids = |machines: &[Machine]| -> Vec<(String, Option<[u8; 16]>)> {
        machines.iter().map(|m| (m.uuid.clone(), m.volumes.first().map(|v| v.uuid))).collect()
    };
    assert_eq!(ids(&first), ids(&second));
    let mut all: Vec<_> = ids(&first).into_iter().map(|(uuid, _)| uuid).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), first.len());
    assert!(Path::new(&first[0].disk).is_absolute());
}
