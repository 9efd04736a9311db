//! What `dock2uni fleet plan` says before anything is converted.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::common;
use crate::common::registry::Registry;
use crate::common::vm::{can_boot, dock2uni};

/// A registry with images, a store, and a directory to work in.
struct Lab {
    registry: Registry,
    dir: TempDir,
}

impl Lab {
    fn new(images: &[(&str, &str)]) -> Lab {
        let registry = Registry::start();
        for (image, name) in images {
            let layout = test_images::build(image).unwrap();
            common::run(
                Command::new("skopeo")
                    .args(["copy", "--quiet", "--dest-tls-verify=false"])
                    .arg(format!("oci:{}:latest", layout.display()))
                    .arg(format!("docker://{}/{name}", registry.addr)),
            );
        }
        Lab { registry, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) {
        let text = text.replace("REGISTRY", &self.registry.addr.to_string());
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn fleet(&self, args: &[&str]) -> Output {
        dock2uni()
            .arg("fleet")
            .args(args)
            .current_dir(self.path())
            .env("DOCK2UNI_STORE", self.path().join("store"))
            .env_remove("COMPOSE_PROFILES")
            .output()
            .unwrap()
    }

    fn plan(&self, args: &[&str]) -> (i32, Value) {
        let output = self.fleet(&[&["plan", "--json"], args].concat());
        let plan = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), plan)
    }
}

fn verdicts(plan: &Value) -> Vec<(String, String)> {
    let items = plan["items"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    items.iter().map(|item| (text(&item["workload"]["name"]), text(&item["verdict"]))).collect()
}

fn verdict<'a>(all: &'a [(String, String)], name: &str) -> &'a str {
    &all.iter().find(|(other, _)| other == name).unwrap().1
}

const COMPOSE: &str = r#"
services:
  web:
    image: REGISTRY/shop/web:1
    ports: ["8080:80"]
    depends_on: [shell]
  shell:
    image: REGISTRY/shop/shell:1
    command: sh -c 'sleep 1000'
    mem_limit: 64m
    deploy: {replicas: 3}
  watcher:
    image: REGISTRY/shop/shell:1
    volumes: ["/var/run/docker.sock:/var/run/docker.sock"]
  typo:
    image: REGISTRY/shop/shell:1
    entrypoint: [/no/such/program]
  gone:
    image: REGISTRY/shop/gone:1
"#;

#[test]
fn a_compose_file_is_planned_against_the_registry_it_names() {
    if !can_boot() {
        // Verdicts compare with what the built-in kernel can do.
        return;
    }
    let lab = Lab::new(&[("nginx", "shop/web:1"), ("busybox", "shop/shell:1")]);
    lab.file("compose.yaml", COMPOSE);
    let (code, plan) = lab.plan(&["compose.yaml", "--html", "plan.html", "-o", "plan.json"]);
    let all = verdicts(&plan);
    assert_eq!(code, 7, "{all:?}");
    assert_ne!(verdict(&all, "web"), "wont-run", "{plan:#}");
    assert_ne!(verdict(&all, "shell"), "wont-run", "{plan:#}");
    assert_eq!(verdict(&all, "watcher"), "wont-run");
    assert_eq!(verdict(&all, "typo"), "wont-run");
    assert_eq!(verdict(&all, "gone"), "unknown");
    let shell = plan["items"].as_array().unwrap().iter().find(|i| i["workload"]["name"] == "shell");
    let shell = shell.unwrap();
    assert_eq!(shell["memory_mib"], 64);
    assert_eq!(shell["argv"], serde_json::json!(["sh", "-c", "sleep 1000"]));
    assert!(shell["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(plan["totals"]["machines"], 7);
    // The busybox image serves three workloads and is counted once.
    assert_eq!(plan["images"].as_object().unwrap().len(), 2);

    let written: Value =
        serde_json::from_slice(&fs::read(lab.path().join("plan.json")).unwrap()).unwrap();
    assert_eq!(written, plan);
    let page = fs::read_to_string(lab.path().join("plan.html")).unwrap();
    for needle in ["<h1>Fleet plan</h1>", "web:1", "won&#x27;t run", "docker.sock"] {
        assert!(page.contains(needle), "{needle}: {page}");
    }
    assert!(!page.contains("http://") && !page.contains("https://"), "it loads from elsewhere");

    let text = lab.fleet(&["plan", "compose.yaml", "--quiet"]);
    assert!(text.stdout.is_empty(), "{text:?}");
    let text = String::from_utf8(lab.fleet(&["plan", "compose.yaml"]).stdout).unwrap();
    assert!(text.contains("5 workloads: ") && text.contains("✗"), "{text}");
}

#[test]
fn a_dockerfile_inside_of_a_compose_file_is_built() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new(&[("busybox", "shop/shell:1")]);
    fs::create_dir(lab.path().join("extra")).unwrap();
    lab.file("extra/note", "hello");
    lab.file(
        "compose.yaml",
        r#"
services:
  reader:
    build:
      dockerfile_inline: |
        FROM REGISTRY/shop/shell:1
        COPY --from=extra note /note
        CMD ["cat", "/note"]
      additional_contexts: {extra: ./extra}
"#,
    );
    let (code, plan) = lab.plan(&["compose.yaml", "--build"]);
    assert_eq!(code, 0, "{plan:#}");
    let reader = &plan["items"][0];
    assert_eq!(reader["argv"], serde_json::json!(["cat", "/note"]));
    assert_ne!(verdict(&verdicts(&plan), "reader"), "wont-run", "{plan:#}");
}

#[test]
fn a_registrys_catalogue_lists_and_manifests_are_sources_too() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new(&[("busybox", "a/shell:1"), ("busybox", "a/shell:2"), ("busybox", "b/x:1")]);
    let addr = lab.registry.addr.to_string();
    let (_, plan) = lab.plan(&[&format!("catalog:{addr}")]);
    let names: Vec<String> = verdicts(&plan).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a/shell:1", "a/shell:2", "b/x:1"].map(|name| format!("{addr}/{name}")));
    // One image under three names: downloaded once.
    assert_eq!(
        plan["totals"]["layers"].as_u64().unwrap(),
        3 * plan["totals"]["download"].as_u64().unwrap()
    );
    let (_, plan) = lab.plan(&[&format!("catalog:{addr}/b")]);
    assert_eq!(verdicts(&plan).len(), 1);

    lab.file("list.txt", "# all of it\nREGISTRY/a/shell:1\n");
    lab.file(
        "pod.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  hostPID: true\n  containers:\n  \
         - {name: c, image: 'REGISTRY/a/shell:1'}\n",
    );
    let (code, plan) = lab.plan(&["list.txt", "pod.yaml"]);
    let all = verdicts(&plan);
    assert_eq!((code, all.len()), (7, 2));
    assert_eq!(verdict(&all, "default/pod/p/c"), "wont-run");
}

/// What `helm template` prints: comments, empty documents, hooks, several kinds in one stream.
const HELM: &str = r#"---
# Source: shop/templates/config.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {helm.sh/chart: shop-1.2.3}}
data: {MODE: fast}
---
# Source: shop/templates/off.yaml
---
# Source: shop/templates/web.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  template:
    spec:
      initContainers:
        - {name: prepare, image: 'REGISTRY/a/shell:1', command: [sh, -c, 'true']}
        - {name: proxy, image: 'REGISTRY/a/shell:1', restartPolicy: Always, command: [sleep, '9']}
      containers:
        - name: web
          image: 'REGISTRY/a/shell:1'
          command: [sleep, '1000']
          envFrom: [{configMapRef: {name: settings}}]
          resources: {limits: {memory: 96Mi, cpu: 500m}}
---
apiVersion: v1
kind: List
items:
  - {apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db},
     spec: {serviceName: db, template: {spec: {containers: [{name: db, image: 'REGISTRY/a/shell:1'}]}}}}
  - {apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent},
     spec: {template: {spec: {containers: [{name: agent, image: 'REGISTRY/a/shell:1'}]}}}}
  - {apiVersion: batch/v1, kind: Job, metadata: {name: once},
     spec: {template: {spec: {containers: [{name: once, image: 'REGISTRY/a/shell:1'}]}}}}
  - {apiVersion: batch/v1, kind: CronJob, metadata: {name: nightly},
     spec: {schedule: '0 3 * * *', jobTemplate: {spec: {template: {spec: {
       containers: [{name: nightly, image: 'REGISTRY/a/shell:1'}]}}}}}}
---
# Source: shop/templates/tests/test.yaml
apiVersion: v1
kind: Pod
metadata: {name: check, annotations: {helm.sh/hook: test}}
spec:
  containers: [{name: check, image: 'REGISTRY/a/shell:1', command: [/no/such/program]}]
"#;

#[test]
fn what_helm_prints_is_read_from_standard_input_as_from_a_directory() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new(&[("busybox", "a/shell:1")]);
    let text = HELM.replace("REGISTRY", &lab.registry.addr.to_string());
    let mut command = dock2uni();
    command.args(["fleet", "plan", "--json", "-"]).current_dir(lab.path());
    command.env("DOCK2UNI_STORE", lab.path().join("store"));
    let output = common::output_within(&mut command, Some(&text), common::LIMIT);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(7), "the hook's program is missing: {plan:#}");
    let all = verdicts(&plan);
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "default/deployment/web/prepare",
            "default/deployment/web/proxy",
            "default/deployment/web/web",
            "default/statefulset/db/db",
            "default/daemonset/agent/agent",
            "default/job/once/once",
            "default/cronjob/nightly/nightly",
            "default/pod/check/check",
        ]
    );
    assert_eq!(verdict(&all, "default/pod/check/check"), "wont-run");
    let web = &plan["items"][2];
    assert_eq!((&web["memory_mib"], &web["workload"]["replicas"]), (&96.into(), &2.into()));
    assert!(web["workload"]["env"].to_string().contains("fast"), "{web:#}");

    // The same documents as files of a directory.
    fs::create_dir(lab.path().join("chart")).unwrap();
    for (number, document) in text.split("---\n").enumerate() {
        fs::write(lab.path().join(format!("chart/{number:02}.yaml")), document).unwrap();
    }
    let (code, again) = lab.plan(&["chart"]);
    assert_eq!((code, verdicts(&again)), (7, all));
}

#[test]
fn mistakes_are_usage_errors_that_name_the_place() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.yaml"), "services: {a: {image: 'x:${TAG:?which one}'}}").unwrap();
    fs::write(dir.path().join("values.yaml"), "replicas: 3\n").unwrap();
    for (source, expected) in [
        ("c.yaml", "the variable `TAG` is required: which one"),
        ("values.yaml", "neither a Compose file"),
        ("No Such Thing", "neither a file"),
    ] {
        let output = dock2uni()
            .args(["fleet", "plan", source])
            .current_dir(dir.path())
            .env("DOCK2UNI_STORE", dir.path().join("store"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}
