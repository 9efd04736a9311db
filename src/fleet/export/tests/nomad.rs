//! Nomad's job, against the language of its specification.

use hcl::{Block, Body, Expression, Structure};

use super::*;

/// Blocks with the attributes and blocks that may stand in them, after Nomad's documentation ("Job
/// specification", "QEMU task driver"), as far as they are used. Labels are not part of a path.
const KNOWN: &[(&str, &[&str])] = &[
    ("", &["variable", "locals", "job"]),
    ("variable", &["type", "default", "description"]),
    ("locals", &["remote"]),
    ("job", &["type", "periodic", "constraint", "group"]),
    ("job.periodic", &["crons", "time_zone", "prohibit_overlap", "enabled"]),
    ("job.constraint", &["attribute", "value"]),
    ("job.group", &["network", "service", "task"]),
    ("job.group.network", &["port"]),
    ("job.group.network.port", &["static"]),
    ("job.group.service", &["name", "port", "provider", "check"]),
    ("job.group.service.check", &["type", "path", "protocol", "interval", "timeout"]),
    (
        "job.group.task",
        &[
            "driver",
            "kill_timeout",
            "lifecycle",
            "restart",
            "dynamic",
            "template",
            "config",
            "resources",
        ],
    ),
    ("job.group.task.lifecycle", &["hook", "sidecar"]),
    ("job.group.task.restart", &["attempts", "interval", "delay", "mode"]),
    ("job.group.task.dynamic", &["for_each", "content"]),
    ("job.group.task.dynamic.content", &["source", "destination"]),
    ("job.group.task.template", &["destination", "data", "change_mode"]),
    (
        "job.group.task.config",
        &["image_path", "drive_interface", "accelerator", "graceful_shutdown", "args"],
    ),
    ("job.group.task.resources", &["cores", "memory"]),
];

fn known(body: &Body, path: &str) {
    let (_, allowed) = KNOWN.iter().find(|(known, _)| *known == path).expect(path);
    for structure in body {
        let name = match structure {
            Structure::Attribute(attribute) => attribute.key.as_str(),
            Structure::Block(block) => {
                let inner = match path {
                    "" => block.identifier.to_string(),
                    path => format!("{path}.{}", block.identifier),
                };
                known(&block.body, &inner);
                block.identifier.as_str()
            }
        };
        assert!(allowed.contains(&name), "`{name}` is not known in `{path}`");
    }
}

fn blocks<'a>(body: &'a Body, kind: &str) -> Vec<&'a Block> {
    body.blocks().filter(|block| block.identifier.as_str() == kind).collect()
}

fn value(body: &Body, key: &str) -> String {
    let found = body.attributes().find(|attribute| attribute.key.as_str() == key);
    match &found.unwrap_or_else(|| panic!("{key}: {body:#?}")).expr {
        Expression::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn label(block: &Block) -> &str {
    block.labels.first().map_or("", |label| label.as_str())
}

/// Whether a text is a job as Nomad knows them.
pub fn check(text: &str) {
    known(&hcl::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")), "");
}

fn job(secrets: &str) -> (Vec<Rendered>, Body) {
    let all = files(Target::Nomad, secrets);
    let text = file(&all, "shop.nomad.hcl");
    let body: Body = hcl::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    (all, body)
}

#[test]
fn a_job_is_in_the_language_of_nomad() {
    let (all, body) = job("    secrets: [password]\n");
    known(&body, "");
    let job = blocks(&body, "job")[0];
    assert_eq!((label(job), value(&job.body, "type").as_str()), ("shop", "service"));
    let group = blocks(&job.body, "group")[0];
    let tasks = blocks(&group.body, "task");
    let names: Vec<&str> = tasks.iter().map(|task| label(task)).collect();
    assert_eq!(names, ["db", "app", "web-1", "web-2"]);

    // Start order: `db` before, `app` with, `web` after.
    let hook = |task: &Block| {
        let all = blocks(&task.body, "lifecycle");
        all.first().map(|block| (value(&block.body, "hook"), value(&block.body, "sidecar")))
    };
    let hooks: Vec<_> = tasks.iter().map(|task| hook(task)).collect();
    let sidecar = |hook: &str| Some((hook.to_owned(), "true".to_owned()));
    let web = sidecar("poststart");
    assert_eq!(hooks, [sidecar("prestart"), None, web.clone(), web]);

    // Two machines serve one port of the client; it is looked at there.
    let ports = blocks(&blocks(&group.body, "network")[0].body, "port");
    let ports: Vec<_> = ports.iter().map(|p| (label(p), value(&p.body, "static"))).collect();
    assert_eq!(ports, [("tcp_8080", "8080".into()), ("tcp_8443", "8443".into())]);
    let services = blocks(&group.body, "service");
    assert_eq!(services.len(), 2);
    assert_eq!(value(&services[0].body, "name"), "shop-web-80");
    assert_eq!(value(&blocks(&services[0].body, "check")[0].body, "type"), "tcp");
    let network = file(&all, "network.sh");
    accepted("network.sh", network, &["sh", "-n"]);
    let to = "tcp dport 8080 dnat to numgen inc mod 2 map { 0 : 10.0.2.15, 1 : 10.0.2.16 }:80";
    assert!(network.contains(to) || network.matches(" map {").count() == 4, "{network}");

    // The volume is a drive that is written to; the root is not.
    let db = blocks(&tasks[0].body, "config")[0];
    let args = value(&db.body, "args");
    assert!(args.contains("/shop_data.ext4,if=virtio,format=raw,snapshot=off\""), "{args}");
    assert!(args.contains("-snapshot") && args.contains("mount_tag=secrets"), "{args}");
    assert_eq!(value(&tasks[0].body, "kill_timeout"), "65s");
    assert!(file(&all, "client.hcl").contains("max_kill_timeout = \"65s\""));
    hcl::from_str::<Body>(file(&all, "client.hcl")).unwrap();

    // A secret is named, and its value nowhere.
    let template = blocks(&tasks[0].body, "template")[0];
    assert_eq!(value(&template.body, "destination"), "secrets/secrets/password");
    let reference = "{{ with nomadVar \"nomad/jobs/shop\" }}{{ .password }}{{ end }}";
    assert_eq!(value(&template.body, "data"), reference);
    assert!(file(&all, "shop.nomad.hcl").contains("#        password=@FILE\n"));
}

#[test]
fn without_secrets_and_ports_there_are_no_empty_blocks() {
    let (mut machines, settings) = machines_for(Target::Nomad, "").unwrap();
    for machine in &mut machines {
        machine.ports.clear();
    }
    let all = render::render(&machines, &settings).unwrap();
    let text = file(&all, "shop.nomad.hcl");
    let body: Body = hcl::from_str(text).unwrap();
    known(&body, "");
    assert!(!text.contains("network {") && !text.contains("service {"), "{text}");
    assert!(!text.contains("virtfs") && !text.contains("nomad var put"), "{text}");
}

/// What others wait for to end runs before them, and what that needs runs beside it.
#[test]
fn what_has_to_end_runs_before() {
    let (mut machines, _) = machines_for(Target::Nomad, "").unwrap();
    let at = |machines: &[Machine], name: &str| {
        machines.iter().position(|machine| machine.name == name).unwrap()
    };
    let app = at(&machines, "app");
    let web = at(&machines, "web-1");
    machines[web].ended.push("app".into());
    machines[app].long_running = true;
    order::hooks(&mut machines);
    let hooks: Vec<_> = machines.iter().map(|m| (&*m.name, m.hook, m.long_running)).collect();
    assert_eq!(
        hooks,
        [
            ("db", "prestart", true),
            ("app", "prestart", false),
            ("web-1", "", true),
            ("web-2", "", true)
        ]
    );
}
