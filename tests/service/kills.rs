//! Server, workers and PostgreSQL are killed at random moments under load. Every job that was accepted
//! ends once, every result is there once and whole, and the queue drains.
//!
//! The large run: `cargo test --test service -- --ignored --nocapture five_hundred`

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::registry::Registry;
use super::common::vm::{can_boot, free_port};
use super::postgres::Postgres;
use super::service::{Service, TOKEN, config, published, request};

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn a_few_jobs_survive_a_few_kills() {
    if can_boot() {
        kill_under_load(12, 5, 1, 800);
    }
}

#[test]
#[ignore = "takes half an hour; see benches/service/README.md for what it gave"]
fn five_hundred_jobs_survive_a_hundred_kills() {
    kill_under_load(500, 100, 2, 6000);
}

/// Runs so many jobs while so many processes are killed, with random pauses of up to so many
/// milliseconds between them.
fn kill_under_load(jobs: usize, kills: usize, seed: u64, pause: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let layout = test_images::build("busybox").unwrap();
    registry.push(&layout, "latest", "team/app:1");
    let digest = digest_of(&registry, "team/app:1");
    let image = format!("{}/team/app@{digest}", registry.addr);
    let mut postgres = Postgres::start(&[]);
    let url = postgres.database();
    let port = free_port();
    let text = |workers: usize| {
        let queue =
            format!("[queue]\nurl = \"{url}\"\nlease = \"3s\"\nlost = 1000\nattempts = 50\n");
        config(dir.path(), port, workers).replace("[workers]", &format!("{queue}[workers]"))
    };
    // The server's configuration has no workers; theirs has two each.
    let places: Vec<_> = ["server", "one", "two"].map(|name| dir.path().join(name)).to_vec();
    places.iter().for_each(|place| std::fs::create_dir(place).unwrap());
    let mut server = Some(Service::serve(&places[0], port, &text(0)));
    let start_worker = |place: &Path| Service::worker(place, &text(2));
    let mut workers = [Some(start_worker(&places[1])), Some(start_worker(&places[2]))];

    let mut accepted: BTreeMap<usize, String> = BTreeMap::new();
    let mut next = 0;
    let mut killed = BTreeMap::<&str, usize>::new();
    let begun = Instant::now();
    let mut kill_at = Instant::now() + Duration::from_millis(random.below(pause));
    let mut left = kills;
    while accepted.len() < jobs || left > 0 {
        if left > 0 && Instant::now() >= kill_at {
            left -= 1;
            let victim = match random.below(5) {
                0 => {
                    server.take().unwrap().kill();
                    server = Some(Service::serve(&places[0], port, &text(0)));
                    "server"
                }
                1 => {
                    postgres.crash();
                    "postgres"
                }
                number => {
                    let index = usize::try_from(number % 2).unwrap();
                    workers[index].take().unwrap().kill();
                    workers[index] = Some(start_worker(&places[index + 1]));
                    "worker"
                }
            };
            *killed.entry(victim).or_default() += 1;
            kill_at = Instant::now() + Duration::from_millis(random.below(pause));
        }
        if accepted.len() < jobs {
            // What is refused, or whose answer is lost, is sent again, as registries do.
            if let Some(id) = submit(port, &image, next) {
                accepted.insert(next, id);
                next += 1;
            }
        } else {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let server = server.unwrap();
    let patience = Instant::now() + Duration::from_secs(180 + 10 * jobs as u64);
    let count =
        |state: &str| server.metric(&format!("dock2uni_jobs{{state=\"{state}\"}}")) as usize;
    while count("queued") + count("running") > 0 {
        assert!(Instant::now() < patience, "the queue does not drain:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(count("done"), jobs, "accepted, and done");
    let ids: std::collections::BTreeSet<_> = accepted.values().collect();
    assert_eq!(ids.len(), jobs, "each request is a job of its own");
    let mut lost = 0;
    for id in ids {
        let job = server.ask("GET", &format!("/api/v1/jobs/{id}"), None).1;
        assert_eq!(job["state"], "done", "{job:#}");
        lost += job["lost"].as_i64().unwrap();
        let lines = server.ask("GET", &format!("/api/v1/jobs/{id}/log"), None).1;
        let ends = lines["lines"].as_array().unwrap().iter();
        let ends = ends.filter(|line| line["text"].as_str().unwrap().starts_with("done")).count();
        assert_eq!(ends, 1, "{lines:#}");
    }
    let results = published(&dir.path().join("images"));
    assert_eq!(results.len(), jobs, "each result is there once");
    for result in &results {
        check_result(result);
    }
    println!(
        "{jobs} jobs, {kills} kills {killed:?}, {lost} jobs taken over, {:.0} s",
        begun.elapsed().as_secs_f64()
    );
}

/// What the manifest says is there, in full.
fn check_result(dir: &Path) {
    let text = std::fs::read_to_string(dir.join("result.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    for file in manifest["files"].as_array().unwrap() {
        let path = dir.join(file["name"].as_str().unwrap());
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(dock2uni::source::Digest::of(&bytes).to_string(), file["digest"]);
    }
}

fn digest_of(registry: &Registry, name: &str) -> String {
    let reference = format!("docker://{}", registry.reference(name));
    let output = super::common::run(std::process::Command::new("skopeo").args([
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        &reference,
    ]));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Asks for one more conversion of the image, with options of its own.
fn submit(port: u16, image: &str, number: usize) -> Option<String> {
    let options = json!({ "formats": ["qcow2"], "hostname": format!("job-{number}") });
    let body = json!({ "image": image, "destinations": ["images"], "options": options });
    let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json");
    let (status, answer) =
        request(port, "POST", "/api/v1/jobs", &headers, &body.to_string()).ok()?;
    if !matches!(status, 200 | 201) {
        return None;
    }
    let answer: Value = serde_json::from_str(&answer).ok()?;
    Some(answer["id"].as_str()?.to_owned())
}
