//! Convert on push, all the way: skopeo, docker-registry's own notification, conversion, boot.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::common::http;
use super::common::registry::{Options, Registry};
use super::common::run;
use super::common::vm::{Vm, can_boot, free_port};
use super::service::{Service, config, published, request};

/// What the image is made to run.
const SCRIPT: &str = "mkdir -p /w && echo converted > /w/index.html && exec httpd -f -p 80 -h /w";

/// A registry that tells the service of everything.
fn registry(port: u16, token: &str) -> Registry {
    let extra = format!(
        "notifications:\n  endpoints:\n    - name: dock2uni\n      url: \
         http://127.0.0.1:{port}/hooks/registry\n      headers:\n        Authorization: [Bearer \
         {token}]\n      timeout: 5s\n      threshold: 3\n      backoff: 1s\n"
    );
    Registry::start_with(Options { extra, ..Options::default() })
}

#[test]
fn what_skopeo_pushes_is_converted_and_serves() {
    if !can_boot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let registry = registry(port, "hook-token");
    let text = config(dir.path(), port, 1)
        + &format!(
            "[[webhook]]\nname = \"registry\"\nkind = \"distribution\"\nregistry = \"{}\"\n\
             token = \"hook-token\"\n\
             [[destination]]\nname = \"beside\"\n\
             reference = \"{{registry}}/{{repository}}:{{tag}}-vm\"\n\
             [[rule]]\nname = \"team\"\nrepository = \"team/**\"\ntag = \"v*\"\n\
             destination = [\"images\", \"beside\"]\n\
             [rule.options]\nreport = true\ncommand = [\"sh\", \"-c\", \"{SCRIPT}\"]\n",
            registry.addr
        );
    let service = Service::serve(dir.path(), port, &text);
    let layout = test_images::build("busybox").unwrap();
    registry.push(&layout, "latest", "other/app:v1");
    registry.push(&layout, "latest", "team/app:latest");
    registry.push(&layout, "latest", "team/app:v1");
    // The result goes to the registry as well, which tells of it: the second job, and the last.
    let mut jobs = json!(null);
    service.until("converted", || {
        jobs = service.ask("GET", "/api/v1/jobs", None).1["jobs"].clone();
        let states: Vec<_> = jobs.as_array().unwrap().iter().map(|job| &job["state"]).collect();
        states.len() == 2 && states.iter().all(|state| *state != "queued" && *state != "running")
    });
    assert_eq!(
        (&jobs[0]["state"], &jobs[1]["state"]),
        (&json!("skipped"), &json!("done")),
        "{jobs:#}"
    );
    let job = &jobs[1];
    assert_eq!(job["request"]["origin"], "webhook:registry");
    assert!(job["result"]["verdict"].is_string(), "{job:#}");

    let results = published(&dir.path().join("images"));
    assert_eq!(results.len(), 1, "{results:?}");
    let image = results[0].join("disk.img");
    assert!(results[0].join("report.json").exists());

    // The one in the registry refers to the image, and is what was published.
    let reference = format!("docker://{}/team/app:v1-vm", registry.addr);
    let raw =
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &reference]));
    let manifest: serde_json::Value = serde_json::from_slice(&raw.stdout).unwrap();
    assert_eq!(manifest["subject"]["digest"], job["result"]["digest"]);

    // Fetched through the API it is the same file.
    let id = job["id"].as_str().unwrap();
    let headers = "Authorization: Bearer test-token";
    let path = format!("/api/v1/jobs/{id}/files/report.json");
    let (status, report) = request(port, "GET", &path, headers, "").unwrap();
    assert_eq!(status, 200);
    assert_eq!(report.as_bytes(), std::fs::read(results[0].join("report.json")).unwrap());

    let web = free_port();
    let publish = format!("127.0.0.1:{web}:80");
    let image = image.to_str().unwrap();
    let mut vm = Vm::run(&["-p", &publish, image]);
    let answer = http::get(web, "/");
    assert!(answer.ends_with("converted\n"), "{answer}");
    vm.signal(rustix::process::Signal::TERM);
    vm.wait(Duration::from_secs(120));
}

#[test]
fn registries_without_webhooks_are_polled() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let registry = Registry::start();
    let layout = test_images::build("busybox").unwrap();
    registry.push(&layout, "latest", "team/one:1");
    let text = config(dir.path(), port, 0)
        + &format!(
            "[[poll]]\nname = \"old\"\nregistry = \"{}\"\nrepositories = [\"team/*\"]\n\
             every = \"1s\"\n\
             [[rule]]\nname = \"all\"\nsource = \"old\"\ntag = \"!*-vm\"\n\
             destination = [\"images\"]\n",
            registry.addr
        );
    let service = Service::serve(dir.path(), port, &text);
    let count = || service.ask("GET", "/api/v1/jobs", None).1["jobs"].as_array().unwrap().len();
    service.until("found", || count() == 1);
    registry.push(&layout, "latest", "team/two:1");
    registry.push(&layout, "latest", "team/two:1-vm");
    registry.push(&layout, "latest", "other/three:1");
    service.until("found", || count() == 2);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(count(), 2, "what has been seen is not seen again");
}
