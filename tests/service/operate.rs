//! What operators rely on: limits, retention, reloading under load, and a worker that goes home.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::common::http::exchange;
use super::common::registry::Registry;
use super::common::vm::{can_boot, free_port};
use super::service::{Service, config, published, request};

/// A server that answers each request by a function of its path, until this is dropped.
struct Stub {
    addr: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Stub {
    fn start(at: &str, answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Stub {
        let listener = TcpListener::bind(at).unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (counter, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                std::thread::spawn(move || respond(&stream, &*answer));
            }
        });
        Stub { addr, asked }
    }
}

/// Answers one request; what has no answer waits for ever.
fn respond(mut stream: &TcpStream, answer: &dyn Fn(&str) -> Option<String>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    match answer(path) {
        Some(text) => drop(stream.write_all(text.as_bytes())),
        None => std::thread::sleep(Duration::from_secs(3600)),
    }
}

fn answer(status: &str, headers: &str, body: &str) -> Option<String> {
    let length = body.len();
    Some(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    ))
}

#[test]
fn a_registry_cannot_lead_to_internal_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let inside = Stub::start("127.0.0.2:0", |_| answer("200 OK", "", "secrets"));
    let digest = dock2uni::source::Digest::of(b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest.to_string(), "size": 2 },
        "layers": [],
    });
    let manifest = manifest.to_string();
    let target = format!("Location: http://{}/latest/meta-data\r\n", inside.addr);
    // It is allowed to be where it is; where it sends clients to is not.
    let registry = Stub::start("127.0.0.1:0", move |path| match path {
        "/v2/" => answer("200 OK", "", "{}"),
        path if path.contains("/manifests/") => {
            let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
            answer("200 OK", kind, &manifest)
        }
        _ => answer("307 Temporary Redirect", &target, ""),
    });
    let text = config(dir.path(), port, 1).replace("127.0.0.0/8", "127.0.0.1");
    let service = Service::serve(dir.path(), port, &text);
    let job = service.over(&service.submit(&format!("{}/a/b:1", registry.addr)));
    assert_eq!(job["state"], "failed", "{job:#}");
    let error = job["error"].as_str().unwrap();
    assert!(error.contains("internal address") || error.contains("redirect"), "{error}");
    assert!(registry.asked.load(Ordering::SeqCst) >= 2, "{error}");
    assert_eq!(inside.asked.load(Ordering::SeqCst), 0, "{error}");

    // Callbacks follow no redirects at all.
    let target = format!("Location: http://{}/\r\n", inside.addr);
    let told = Stub::start("127.0.0.1:0", move |_| answer("307 Temporary Redirect", &target, ""));
    let body = json!({ "image": format!("{}/a/b:2", registry.addr), "destinations": ["images"],
        "callback": format!("http://{}/done", told.addr) });
    let (status, answer) = service.ask("POST", "/api/v1/jobs", Some(&body));
    assert_eq!(status, 201, "{answer}");
    service.over(answer["id"].as_str().unwrap());
    service.until("told", || told.asked.load(Ordering::SeqCst) > 0);
    assert_eq!(inside.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn clients_and_tenants_have_limits() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let text = config(dir.path(), port, 0).replace("rate = 5000", "rate = 0.01\nburst = 6")
        + "[tenant.red]\nqueued = 1\n\
           [[token]]\nname = \"red\"\ntenant = \"red\"\nsecret = \"red-token\"\n\
           scopes = [\"jobs:read\", \"jobs:write\"]\n";
    let service = Service::serve(dir.path(), port, &text);
    let submit = |number: usize| {
        let image = format!("127.0.0.1:1/a/b:{number}");
        let body = json!({ "image": image, "destinations": ["images"] });
        service.ask_as("red-token", "POST", "/api/v1/jobs", Some(&body))
    };
    assert_eq!(submit(1).0, 201);
    let (status, answer) = submit(2);
    assert_eq!(status, 429, "{answer}");
    assert!(answer["detail"].as_str().unwrap().starts_with("red has 1 jobs waiting"), "{answer}");
    // Until the bucket is empty; nobody's health depends on it.
    let mut last = String::new();
    for _ in 0..10 {
        let get = "GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer red-token\r\n\
                   Connection: close\r\n\r\n";
        last = exchange(port, get).unwrap();
    }
    assert!(last.starts_with("HTTP/1.1 429 "), "{last}");
    let wait = last.to_ascii_lowercase();
    let wait = wait.lines().find_map(|line| line.strip_prefix("retry-after: ").map(str::to_owned));
    let wait: u64 = wait.unwrap_or_else(|| panic!("{last}")).parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    assert_eq!(request(port, "GET", "/healthz", "X: x", "").unwrap().0, 200);
}

#[test]
fn a_file_that_is_read_again_under_load_loses_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let text = config(dir.path(), port, 0)
        + "[[webhook]]\nname = \"registry\"\nkind = \"distribution\"\n\
           registry = \"127.0.0.1:5000\"\ntoken = \"hook-token\"\n\
           [[rule]]\nname = \"all\"\ndestination = [\"images\"]\n";
    let service = Service::serve(dir.path(), port, &text);
    let over = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for lane in 0..4_usize {
            let (over, sent) = (&over, &sent);
            scope.spawn(move || {
                for number in 0.. {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let digest =
                        dock2uni::source::Digest::of(format!("{lane} {number}").as_bytes());
                    let event = json!({ "events": [{ "id": "x", "action": "push", "target": {
                        "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7,
                        "digest": digest.to_string(), "repository": "team/app",
                        "tag": format!("{lane}-{number}") } }] });
                    let headers = "Authorization: Bearer hook-token\r\nContent-Type: \
                                   application/vnd.docker.distribution.events.v2+json";
                    let (status, body) =
                        request(port, "POST", "/hooks/registry", headers, &event.to_string())
                            .unwrap();
                    assert_eq!(status, 202, "{body}");
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let file = dir.path().join("service.toml");
        let counted = |outcome: &str| {
            let line = format!("dock2uni_config_reloads_total{{outcome=\"{outcome}\"}}");
            service.metric(&line) as usize
        };
        // Good ones and bad ones in turn, each taken notice of while requests come in.
        for round in 1..=6_usize {
            let (outcome, new) = match round % 2 {
                1 => ("done", format!("{text}[tenant.t{round}]\nqueued = 1\n")),
                _ => ("refused", format!("{text}[tenant.t{round}]\nqueued = \"many\"\n")),
            };
            let before = counted(outcome);
            let aside = dir.path().join("new.toml");
            std::fs::write(&aside, new).unwrap();
            std::fs::rename(&aside, &file).unwrap();
            service.signal(Signal::HUP);
            let so_far = sent.load(Ordering::SeqCst);
            service.until("read again", || {
                counted(outcome) > before && sent.load(Ordering::SeqCst) > so_far + 20
            });
        }
        over.store(true, Ordering::SeqCst);
    });
    let queued = service.metric("dock2uni_jobs{state=\"queued\"}") as usize;
    assert_eq!(queued, sent.load(Ordering::SeqCst));
}

#[test]
fn old_results_and_jobs_go() {
    if !can_boot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let registry = Registry::start();
    let layout = test_images::build("busybox").unwrap();
    let image = registry.push(&layout, "latest", "team/app:1");
    let text = config(dir.path(), port, 1) + "[retention]\nresults = \"30d\"\njobs = \"90d\"\n";
    let mut service = Service::serve(dir.path(), port, &text);
    let id = service.submit(&image);
    assert_eq!(service.over(&id)["state"], "done");
    let images = dir.path().join("images");
    assert_eq!(published(&images).len(), 1);
    assert_eq!(service.end(), 0);

    // A month later, in effect.
    let text = text.replace("\"30d\"", "0").replace("\"90d\"", "0");
    let service = Service::serve(dir.path(), port, &text);
    service.until("forgotten", || service.ask("GET", &format!("/api/v1/jobs/{id}"), None).0 == 404);
    assert_eq!(published(&images), Vec::<std::path::PathBuf>::new());
    assert_eq!(service.metric("dock2uni_results_retired_total"), 1.0);
    // What is asked for anew is made anew.
    let again = service.submit(&image);
    assert_ne!(again, id);
}

#[test]
fn a_worker_that_is_told_to_end_gives_back_what_it_cannot_finish() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    // A registry that takes requests, and never answers.
    let registry = Stub::start("127.0.0.1:0", |_| None);
    let text = config(dir.path(), port, 1).replace("[workers]\n", "[workers]\ndrain = \"1s\"\n");
    let mut service = Service::serve(dir.path(), port, &text);
    let id = service.submit(&format!("{}/a/b:1", registry.addr));
    let path = format!("/api/v1/jobs/{id}");
    service.until("begun", || registry.asked.load(Ordering::SeqCst) > 0);
    assert_eq!(service.ask("GET", &path, None).1["state"], "running");
    assert_eq!(service.end(), 0, "{}", service.log());

    let idle = config(dir.path(), port, 0);
    let service = Service::serve(dir.path(), port, &idle);
    let job: Value = service.ask("GET", &path, None).1;
    assert_eq!((&job["state"], &job["attempts"]), (&json!("queued"), &json!(0)), "{job:#}");
    assert!(job["error"].is_null(), "{job:#}");
}
