//! The manifests in `templates/kubernetes`: that they fit each other and the program.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dock2uni::service::config::Config;
use serde_json::Value;

use super::store::installed;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/kubernetes").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a file.
fn documents(name: &str) -> Vec<Value> {
    let text = read(name);
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

fn find(name: &str, kind: &str) -> Value {
    documents(name).into_iter().find(|document| document["kind"] == kind).unwrap()
}

#[test]
fn the_configuration_is_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = "/etc/dock2uni/secrets/";
    let text = read("service.toml");
    for name in text.split(secrets).skip(1).map(|rest| rest.split('"').next().unwrap()) {
        std::fs::write(dir.path().join(name), "x".repeat(64)).unwrap();
    }
    let text = text.replace(secrets, &format!("{}/", dir.path().display()));
    let config = Config::parse(&text, Path::new("service.toml")).unwrap();
    assert!(config.queue.url.is_some() && config.server.session_key.is_some());
    // What a worker has to do, and when it is ended, fit.
    let pod = &find("worker.yaml", "Deployment")["spec"]["template"]["spec"];
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > config.workers.drain.as_secs());
    let trigger = &find("keda.yaml", "ScaledObject")["spec"]["triggers"][0]["metadata"];
    assert_eq!(trigger["targetQueryValue"], config.workers.count.to_string());
    let limit = pod["containers"][0]["resources"]["limits"]["memory"].as_str().unwrap();
    let limit: u64 = limit.strip_suffix("Gi").unwrap().parse().unwrap();
    assert!(config.workers.memory.unwrap() * config.workers.count as u64 <= limit << 30);
}

/// What has a schema in Kubernetes itself is held to it, without anything that it doesn't know.
#[test]
fn the_schemas_of_kubernetes_accept_it() {
    let Some(tool) = installed("moto/bin/kubernetes-validate") else { return };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/kubernetes");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
    let output = Command::new(tool).arg("--strict").args(files).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.matches(" passed ").count() >= 8, "{text}");
    // KEDA's kinds are its own, and a Kustomization is read by kubectl alone.
    let unknown = text.lines().filter(|line| line.contains("Couldn't find schema"));
    let others: Vec<_> = unknown
        .filter(|line| !["keda.sh/", "kustomize."].iter().any(|own| line.contains(own)))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

/// The same by kubeconform, KEDA's kinds included, with `KUBECONFORM` the program and
/// `KUBECONFORM_SCHEMAS` places of schemas (its `-schema-location`), between blanks.
#[test]
#[ignore = "kubeconform is in no package registry, and fetches its schemas"]
fn kubeconform_accepts_it() {
    let program = std::env::var_os("KUBECONFORM").unwrap_or("kubeconform".into());
    let schemas = std::env::var("KUBECONFORM_SCHEMAS").unwrap_or_else(|_| {
        "default https://raw.githubusercontent.com/datreeio/CRDs-catalog/main/{{.Group}}/\
         {{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
            .into()
    });
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/kubernetes");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let output = Command::new(program)
        .args(["-strict", "-output", "json", "-summary"])
        // A Kustomization is read by kubectl alone.
        .args(["-skip", "Kustomization"])
        .args(schemas.split_whitespace().flat_map(|place| ["-schema-location", place]))
        .args(files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")))
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    let summary = &serde_json::from_str::<Value>(&text).unwrap()["summary"];
    assert!(summary["valid"].as_u64() >= Some(11) && summary["skipped"] == 1, "{text}");
}

#[test]
fn every_file_is_in_the_kustomization_and_every_name_leads_somewhere() {
    let kustomization = &documents("kustomization.yaml")[0];
    let listed: Vec<_> = kustomization["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/kubernetes");
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let other = matches!(name.as_str(), "README.md" | "kustomization.yaml" | "service.toml");
        assert!(other || listed.contains(&name.as_str()), "{name}");
    }
    let all: Vec<Value> = listed.iter().flat_map(|name| documents(name)).collect();
    let there = |kind: &str, name: &Value| {
        all.iter().any(|document| document["kind"] == kind && document["metadata"]["name"] == *name)
    };
    let labels: BTreeMap<_, _> = all
        .iter()
        .filter(|document| document["kind"] == "Deployment")
        .map(|document| {
            let labels = &document["spec"]["template"]["metadata"]["labels"];
            (document["metadata"]["name"].as_str().unwrap(), labels.clone())
        })
        .collect();
    let selects = |selector: &Value| {
        let wanted = selector.as_object().unwrap();
        labels.values().any(|labels| wanted.iter().all(|(name, value)| labels[name] == *value))
    };
    for document in &all {
        let spec = &document["spec"];
        match document["kind"].as_str().unwrap() {
            "Service" => assert!(selects(&spec["selector"])),
            "PodDisruptionBudget" => assert!(selects(&spec["selector"]["matchLabels"])),
            "NetworkPolicy" => assert!(selects(&spec["podSelector"]["matchLabels"])),
            "ScaledObject" => {
                assert!(there("Deployment", &spec["scaleTargetRef"]["name"]));
                let reference = &spec["triggers"][0]["authenticationRef"]["name"];
                assert!(there("TriggerAuthentication", reference));
            }
            "Deployment" => {
                assert!(there("ServiceAccount", &spec["template"]["spec"]["serviceAccountName"]));
            }
            _ => {}
        }
    }
}

#[test]
fn pods_have_no_right_that_they_do_not_need() {
    for name in ["server.yaml", "worker.yaml"] {
        let deployment = find(name, "Deployment");
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
            let mounts = container["volumeMounts"].as_array().unwrap();
            let volumes = pod["volumes"].as_array().unwrap();
            for mount in mounts {
                assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
            }
        }
    }
}
