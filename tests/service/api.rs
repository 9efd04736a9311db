//! The API: tokens, submitting, watching, calling off, limits, reloading.

use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::common::registry::Registry;
use super::common::vm::{can_boot, free_port};
use super::service::{Service, config, published, request};

#[test]
fn jobs_are_submitted_watched_and_fetched_by_those_who_may() {
    if !can_boot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let registry = Registry::start();
    let layout = test_images::build("busybox").unwrap();
    let image = registry.push(&layout, "latest", "team/app:1");
    let text = config(dir.path(), port, 1)
        + "[[token]]\nname = \"reader\"\ntenant = \"red\"\nscopes = [\"jobs:read\"]\n\
           secret = \"red-token\"\n";
    let service = Service::serve(dir.path(), port, &text);

    let body = json!({ "image": image, "destinations": ["images"], "options": {
        "formats": ["qcow2"], "env": { "KEY": "hunter2" } } });
    for (token, expected) in [("nobody", 401), ("red-token", 403), ("test-token", 201)] {
        let (status, answer) = service.ask_as(token, "POST", "/api/v1/jobs", Some(&body));
        assert_eq!(status, expected, "{answer}");
    }
    let (status, answer) = service.ask("POST", "/api/v1/jobs", Some(&body));
    assert!(status == 200 || status == 201, "{answer}");
    let id = answer["id"].as_str().unwrap().to_owned();
    for (wrong, status) in [
        (json!({ "image": "oci:/etc", "destinations": ["images"] }), 422),
        (json!({ "image": "../x", "destinations": ["images"] }), 422),
        (json!({ "image": image, "destinations": ["elsewhere"] }), 422),
        (json!({ "image": image, "destinations": [] }), 422),
        (json!({ "image": image, "destinations": ["images"], "callback": "file:///x" }), 422),
        (
            json!({ "image": image, "destinations": ["images"], "options": { "formats": ["x"] } }),
            422,
        ),
        (json!({ "image": image }), 422),
    ] {
        let (found, answer) = service.ask("POST", "/api/v1/jobs", Some(&wrong));
        assert_eq!(found, status, "{wrong} {answer}");
        assert!(answer["detail"].is_string(), "{answer}");
    }

    // Watching ends with the job.
    let headers = "Authorization: Bearer test-token";
    let path = format!("/api/v1/jobs/{id}/events");
    let (status, events) = request(port, "GET", &path, headers, "").unwrap();
    assert_eq!(status, 200);
    for needle in ["event: log", "queued by api:test", "event: job", "event: end\ndata: \"done\""] {
        assert!(events.contains(needle), "{needle}: {events}");
    }
    assert!(!events.contains("hunter2"), "{events}");
    let job = service.over(&id);
    assert_eq!(job["state"], "done", "{job:#}");
    assert_eq!(job["result"]["files"][0]["name"], "disk.qcow2");
    assert!(!job.to_string().contains("hunter2"));
    assert_eq!(published(&dir.path().join("images")).len(), 1);

    // Another tenant's.
    let path = format!("/api/v1/jobs/{id}");
    assert_eq!(service.ask_as("red-token", "GET", &path, None).0, 404);
    let list = service.ask_as("red-token", "GET", "/api/v1/jobs", None).1;
    assert_eq!(list["jobs"], json!([]));
    assert_eq!(
        service.ask_as("red-token", "GET", &format!("{path}/files/disk.qcow2"), None).0,
        403
    );
    assert_eq!(service.ask("GET", &format!("{path}/files/..%2F..%2Fetc"), None).0, 404);

    let log = service.log();
    assert!(!log.contains("test-token") && !log.contains("hunter2"), "{log}");
    let audit = std::fs::read_to_string(dir.path().join("state/audit.jsonl")).unwrap();
    let first: Value = serde_json::from_str(audit.lines().next().unwrap()).unwrap();
    assert_eq!((&first["who"], &first["action"]), (&json!("api:test"), &json!("submit")));
    assert!(service.metric("dock2uni_jobs{state=\"done\"}") >= 1.0);
}

#[test]
fn internal_addresses_are_not_connected_to() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let text = config(dir.path(), port, 1).replace("allow = [\"127.0.0.0/8\"]\n", "");
    let service = Service::serve(dir.path(), port, &text);
    for image in ["127.0.0.1:1/a/b:1", "localhost:1/a/b:1", "169.254.169.254/a/b:1"] {
        let job = service.over(&service.submit(image));
        assert_eq!(job["state"], "failed", "{job:#}");
        let error = job["error"].as_str().unwrap();
        assert!(error.contains("internal address"), "{error}");
    }
}

#[test]
fn a_job_is_called_off_and_a_reload_is_safe() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let text = config(dir.path(), port, 0);
    let mut service = Service::serve(dir.path(), port, &text);
    let id = service.submit("127.0.0.1:1/a/b:1");
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(service.ask("POST", &path, None).1["state"], "cancelled");
    let path = format!("/api/v1/jobs/{id}/retry");
    assert_eq!(service.ask("POST", &path, None).1["state"], "queued");

    let file = dir.path().join("service.toml");
    std::fs::write(&file, text.replace("[[token]]", "[[tokne]]")).unwrap();
    service.signal(Signal::HUP);
    service.until("complained", || {
        service.metric("dock2uni_config_reloads_total{outcome=\"refused\"}") >= 1.0
    });
    assert_eq!(service.ask("GET", "/api/v1/jobs", None).0, 200, "the old token counts");
    std::fs::write(&file, text.replace("test-token", "new-token")).unwrap();
    service.until("read again", || {
        service.metric("dock2uni_config_reloads_total{outcome=\"done\"}") >= 1.0
    });
    assert_eq!(service.ask("GET", "/api/v1/jobs", None).0, 401);
    assert_eq!(service.ask_as("new-token", "GET", "/api/v1/jobs", None).0, 200);
    assert_eq!(service.end(), 0);

    // What was queued is there the next time.
    let service = Service::serve(dir.path(), port, &text);
    assert_eq!(service.ask("GET", &format!("/api/v1/jobs/{id}"), None).1["state"], "queued");
}

#[test]
fn slow_and_large_requests_are_ended() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let text =
        config(dir.path(), port, 0).replace("rate = 5000", "max_body = \"2k\"\ntimeout = \"1s\"");
    let service = Service::serve(dir.path(), port, &text);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut rest = Vec::new();
    // The connection is closed though the request never ends.
    let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    let large = json!({ "image": "x".repeat(4000), "destinations": ["images"] });
    assert_eq!(service.ask("POST", "/api/v1/jobs", Some(&large)).0, 413);
}

#[test]
fn the_end_is_told_and_signed() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let told = listener.local_addr().unwrap();
    let text = config(dir.path(), port, 0) + "[callbacks]\nsecret = \"c4llback\"\n";
    let service = Service::serve(dir.path(), port, &text);
    let callback = format!("http://{told}/done?key=k3y");
    let body = json!({ "image": "127.0.0.1:1/a/b:1", "destinations": ["images"],
        "callback": callback });
    let (_, answer) = service.ask("POST", "/api/v1/jobs", Some(&body));
    let id = answer["id"].as_str().unwrap();
    service.ask("POST", &format!("/api/v1/jobs/{id}/cancel"), None);

    // The first attempt fails, the second is the same message.
    let refused = receive(&listener, "HTTP/1.1 503 Busy");
    let message = receive(&listener, "HTTP/1.1 204 No Content");
    assert_eq!(refused.1, message.1);
    let header = |name: &str| {
        let line = message.0.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name}: {}", message.0)).to_owned()
    };
    assert!(message.0.starts_with("POST /done?key=k3y "), "{}", message.0);
    let signature = dock2uni::service::callback::sign(
        &dock2uni::service::secret::Secret::new("c4llback"),
        &header("webhook-id"),
        &header("webhook-timestamp"),
        &message.1,
    );
    assert_eq!(header("webhook-signature"), signature);
    let body: Value = serde_json::from_str(&message.1).unwrap();
    assert_eq!((&body["type"], &body["data"]["id"]), (&json!("job.cancelled"), &json!(id)));
    service.until("settled", || {
        let log = service.ask("GET", &format!("/api/v1/jobs/{id}/log"), None).1.to_string();
        log.contains("told to http://127.0.0.1")
    });
    let job = service.ask("GET", &format!("/api/v1/jobs/{id}"), None).1.to_string();
    assert!(!job.contains("k3y") && !service.log().contains("k3y"), "{job}");
}

/// One request, which is answered by this status: head and body.
fn receive(listener: &std::net::TcpListener, status: &str) -> (String, String) {
    use std::io::Read as _;
    let (mut stream, _) = listener.accept().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
            if body.len() >= length {
                let answer = format!("{status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
                return (head.to_owned(), body.to_owned());
            }
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "cut off: {text}");
        text += std::str::from_utf8(&buffer[..count]).unwrap();
    }
}

#[test]
fn tls_is_served_and_a_new_certificate_comes_into_force() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let (chain, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let make = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&chain, made.cert.pem()).unwrap();
    };
    make();
    let tls = format!("[server.tls]\ncertificate = {chain:?}\nkey = {key:?}\n[workers]");
    let text = config(dir.path(), port, 0).replace("[workers]", &tls);
    let service = Service::start(dir.path(), port, &text, "serve");
    let trusted = |authority: &std::path::Path| {
        let address = format!("https://localhost:{port}/readyz");
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sf", "--noproxy", "*", "-4", "--cacert"]).arg(authority).arg(address);
        curl.output().unwrap().status.success()
    };
    service.until("served", || trusted(&chain));
    let old = dir.path().join("old.pem");
    std::fs::copy(&chain, &old).unwrap();
    assert!(trusted(&old));
    make();
    service.until("renewed", || trusted(&chain) && !trusted(&old));
    std::fs::write(&key, "damaged").unwrap();
    service.until("complained", || service.log().contains("the old certificate stays"));
    assert!(trusted(&chain));
}
