//! `verify` and `slim`: conversions that boot what they make, where the configuration allows it.

use serde_json::{Value, json};

use super::common::registry::Registry;
use super::common::vm::{can_boot, dock2uni, free_port};
use super::service::{Service, config, published, request};

/// What images are booted with. Conversions are held to less memory than a VM's machine takes.
const TRIALS: &str =
    "[trials]\nallow = true\naccel = \"tcg\"\nmemory = \"160m\"\npatience = \"180s\"\n";

/// The job that a push of this repository's tag leads to, told as a registry would.
fn push(service: &Service, repository: &str) -> String {
    let event = json!({ "events": [{ "action": "push", "target": {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "repository": repository, "tag": "1" } }] });
    let headers = "Authorization: Bearer hook-token\r\nContent-Type: application/json";
    let (status, body) =
        request(service.port, "POST", "/hooks/registry", headers, &event.to_string()).unwrap();
    assert_eq!(status, 202, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    answer["jobs"][0]["id"].as_str().unwrap().to_owned()
}

fn log(service: &Service, id: &str) -> Vec<String> {
    let log = service.ask("GET", &format!("/api/v1/jobs/{id}/log"), None).1;
    let lines = log["lines"].as_array().unwrap().iter();
    lines.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn results_are_slimmed_and_published_only_if_they_answer() {
    if !can_boot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let port = free_port();
    let nginx = test_images::build("nginx").unwrap();
    registry.push(&nginx, "latest", "web/nginx:1");
    let layout = test_images::build("busybox").unwrap();
    let busybox = registry.push(&layout, "latest", "team/app:1");
    let text = config(dir.path(), port, 2).replace("count = 2", "count = 2\nmemory = \"1g\"")
        + TRIALS
        + &format!(
            "[[webhook]]\nname = \"registry\"\nkind = \"distribution\"\nregistry = \"{}\"\n\
             token = \"hook-token\"\n\
             [[rule]]\nname = \"web\"\nrepository = \"web/*\"\ndestination = [\"images\"]\n\
             [rule.options]\nformats = [\"qcow2\"]\nverify = true\nslim = true\n\
             keep = [\"/usr/share/nginx/*\"]\n",
            registry.addr
        );
    let service = Service::serve(dir.path(), port, &text);
    let slim = push(&service, "web/nginx");
    let submit = |script: &str| {
        let options = json!({ "formats": ["qcow2"], "verify": true,
            "command": ["sh", "-c", script] });
        let body = json!({ "image": busybox, "destinations": ["images"], "options": options });
        let (status, answer) = service.ask("POST", "/api/v1/jobs", Some(&body));
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    };
    // 10.0.2.2 is this machine as QEMU's user network has it, and the port is the service's own.
    let script = format!(
        "ip addr | grep -q 10.0.2.15 || exit 8; nc -w 5 10.0.2.2 {port} </dev/null && exit 7; exit 0"
    );
    let ways_out = submit(&script);
    let broken = submit("echo out of luck; printf '\\033[2J'; exit 3");

    let job = service.over(&broken);
    assert_eq!(job["state"], "failed", "{job:#}");
    let error = job["error"].as_str().unwrap();
    assert!(error.contains("exited with 3") && error.contains("(hint: "), "{error}");
    let lines = log(&service, &broken);
    assert!(lines.iter().any(|line| line == "console: out of luck"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains('\u{1b}')), "{lines:?}");

    let job = service.over(&ways_out);
    assert_eq!(job["state"], "done", "{job:#} {:?}", log(&service, &ways_out));
    let verified = json!(["the program ran to its end and exited with 0"]);
    assert_eq!(job["result"]["verified"], verified);
    // For whom it is run by hand, the way is there.
    let local = format!("oci:{}:latest", layout.display());
    let status = dock2uni()
        .args(["run", "--quiet", "--accel", "tcg", &local, "--", "sh", "-c", &script])
        .env("DOCK2UNI_STORE", dir.path().join("store"))
        .status();
    assert_eq!(status.unwrap().code(), Some(7));

    let job = service.over(&slim);
    let lines = log(&service, &slim);
    assert_eq!(job["state"], "done", "{job:#} {lines:?}");
    let result = &job["result"];
    let answered = result["verified"][0].as_str().unwrap();
    assert!(
        answered.starts_with("port 80/tcp answered") && answered.contains("200 OK"),
        "{answered}"
    );
    let size = |name: &str| result["slimmed"][name].as_u64().unwrap();
    assert!(size("kept_files") > 10 && size("kept_files") < size("files") / 2, "{result:#}");
    assert!(size("kept_bytes") < size("bytes") / 2, "{result:#}");
    for stage in ["slimming", "converting", "verifying", "publishing"] {
        assert!(lines.iter().any(|line| line == stage), "{stage}: {lines:?}");
    }
    // Where it is follows from its bytes, for another boot may have kept something else.
    let places = published(&dir.path().join("images"));
    assert_eq!(places.len(), 2, "{places:?}");
    let location = result["published"][0]["location"].as_str().unwrap();
    let place = places.iter().find(|place| place.ends_with(location)).unwrap();
    assert_eq!(location.rsplit('/').next().unwrap().split('-').count(), 4, "{location}");
    let mut names: Vec<_> = std::fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["disk.qcow2", "result.json"]);
}

#[test]
fn nothing_is_booted_unless_it_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let service = Service::serve(dir.path(), port, &config(dir.path(), port, 0));
    for option in ["verify", "slim"] {
        let body = json!({ "image": "127.0.0.1:9/a/b:1", "destinations": ["images"],
            "options": { option: true } });
        let (status, answer) = service.ask("POST", "/api/v1/jobs", Some(&body));
        assert_eq!(status, 422, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("[trials]"), "{answer}");
    }
}
