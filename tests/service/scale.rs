//! Two, four and eight workers against one PostgreSQL, for `benches/service/README.md`:
//! `cargo test --test service -- --ignored --nocapture workers_against_one`

use std::time::{Duration, Instant};

use dock2uni::service::job::{Options, Outcome, Request};
use dock2uni::service::queue::{Progress, Queue};
use dock2uni::source::Digest;

use super::common::registry::Registry;
use super::common::vm::free_port;
use super::postgres::Postgres;
use super::service::{Service, config};

#[test]
#[ignore = "a measurement"]
fn workers_against_one_postgres() {
    let postgres = Postgres::start(&[]);
    println!("| workers | jobs/s through the queue alone | conversions/s, 40 of them |");
    println!("|---|---|---|");
    for workers in [2, 4, 8] {
        let queue = queue_alone(&postgres.database(), workers, 2000);
        let whole = conversions(&postgres.database(), workers, 40);
        println!("| {workers} | {queue:.0} | {whole:.2} |");
    }
}

/// Jobs a second that are submitted, leased, renewed once and completed.
fn queue_alone(url: &str, workers: usize, jobs: usize) -> f64 {
    let queue = Queue::postgres(url).unwrap();
    let requests: Vec<_> = (0..jobs).map(request).collect();
    requests.chunks(100).for_each(|chunk| drop(queue.submit(chunk, None).unwrap()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..workers {
            scope.spawn(move || {
                let queue = Queue::postgres(url).unwrap();
                let (name, time) = (format!("w{number}"), Duration::from_secs(60));
                while let Some(lease) = queue.lease(&name, time).unwrap() {
                    queue.beat(&lease, time, &Progress::default()).unwrap();
                    let outcome = Outcome { key: lease.job.id.clone(), ..Outcome::default() };
                    queue.complete(&lease, &outcome).unwrap().unwrap();
                }
            });
        }
    });
    jobs as f64 / begun.elapsed().as_secs_f64()
}

fn request(number: usize) -> Request {
    let digest = Digest::of(&number.to_le_bytes());
    Request {
        image: format!("r.io/app@{digest}"),
        options: Options::default(),
        destinations: vec!["images".into()],
        priority: 0,
        tenant: format!("tenant-{}", number % 5),
        callback: None,
        origin: "bench".into(),
        rule: None,
    }
}

/// Conversions a second by so many worker processes of one job at a time.
fn conversions(url: &str, workers: usize, jobs: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let layout = test_images::build("busybox").unwrap();
    let image = registry.push(&layout, "latest", "team/app:1");
    let port = free_port();
    let text = |count: usize| {
        config(dir.path(), port, count)
            .replace("[workers]", &format!("[queue]\nurl = \"{url}\"\n[workers]"))
    };
    let places: Vec<_> = (0..=workers).map(|number| dir.path().join(number.to_string())).collect();
    places.iter().for_each(|place| std::fs::create_dir(place).unwrap());
    let server = Service::serve(&places[0], port, &text(0));
    for number in 0..jobs {
        let options = serde_json::json!({ "hostname": format!("h{number}"), "formats": ["qcow2"] });
        let body =
            serde_json::json!({ "image": image, "destinations": ["images"], "options": options });
        assert_eq!(server.ask("POST", "/api/v1/jobs", Some(&body)).0, 201);
    }
    let begun = Instant::now();
    let started: Vec<_> =
        places[1..].iter().map(|place| Service::worker(place, &text(1))).collect();
    server.until("done", || server.metric("dock2uni_jobs{state=\"done\"}") as usize == jobs);
    let rate = jobs as f64 / begun.elapsed().as_secs_f64();
    drop(started);
    rate
}
