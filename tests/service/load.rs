//! Many webhooks, half of them duplicates, a tenth forged or malformed.
//!
//! The large run: `cargo test --test service -- --ignored --nocapture ten_thousand`

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dock2uni::source::Digest;
use serde_json::json;

use super::common::vm::free_port;
use super::service::{Service, config};

#[test]
fn webhooks_are_deduplicated_and_forgeries_refused() {
    flood(400, Duration::ZERO);
}

#[test]
#[ignore = "takes a minute; see benches/service/README.md for what it gave"]
fn ten_thousand_webhooks_in_a_minute() {
    flood(10_000, Duration::from_secs(60));
}

/// Sends so many over eight connections, spread over a time.
fn flood(count: usize, time: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let text = config(dir.path(), port, 0)
        + "[[webhook]]\nname = \"registry\"\nkind = \"distribution\"\n\
           registry = \"127.0.0.1:5000\"\ntoken = \"hook-token\"\n\
           [[rule]]\nname = \"all\"\ndestination = [\"images\"]\n";
    let service = Service::serve(dir.path(), port, &text);
    let warm = |number| send(&mut connect(port), "hook-token", &event(number));
    assert_eq!(warm(0), 202);
    let before = memory(&service);
    let statuses: [AtomicUsize; 4] = Default::default();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for lane in 0..8 {
            let statuses = &statuses;
            scope.spawn(move || {
                let mut stream = connect(port);
                for number in (lane..count).step_by(8) {
                    let due = time.mul_f64(number as f64 / count as f64);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                    // Nine of ten are good, and of those every second is one that was there before.
                    let (token, body) = match number % 20 {
                        7 => ("other-token", event(number)),
                        13 => ("hook-token", "{\"events\": [{\"action\"".to_owned()),
                        _ => ("hook-token", event(number / 2)),
                    };
                    let index = match send(&mut stream, token, &body) {
                        202 => 0,
                        401 => 1,
                        400 => 2,
                        _ => 3,
                    };
                    statuses[index].fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let took = begun.elapsed();
    let statuses = statuses.map(AtomicUsize::into_inner);
    let good = (0..count).filter(|number| !matches!(number % 20, 7 | 13));
    let distinct: std::collections::BTreeSet<_> = good.map(|number| number / 2).collect();
    assert_eq!(statuses, [count - count / 10, count / 20, count / 20, 0]);
    assert_eq!(service.metric("dock2uni_jobs{state=\"queued\"}") as usize, distinct.len());
    let counted = |outcome: &str| {
        let line = format!("dock2uni_webhooks_total{{outcome=\"{outcome}\",webhook=\"registry\"}}");
        service.metric(&line) as usize
    };
    assert_eq!((counted("forged"), counted("malformed")), (count / 20, count / 20));
    let after = memory(&service);
    let [accepted, forged, malformed, _] = statuses;
    println!(
        "{count} webhooks in {:.1} s ({:.0} a second): {accepted} accepted, {} of them deduplicated to \
         {} jobs; refused: {forged} forged, {malformed} malformed; resident memory {before} KiB \
         before, {after} KiB after",
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64(),
        accepted - distinct.len(),
        distinct.len()
    );
    assert!(after < before + 32 * 1024, "memory grew from {before} to {after} KiB");
}

/// A push event in the form of Distribution's notifications.
fn event(number: usize) -> String {
    let digest = Digest::of(&number.to_le_bytes());
    json!({ "events": [{
        "id": format!("event-{number}"),
        "timestamp": "2026-11-25T12:00:00Z",
        "action": "push",
        "target": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "size": 708, "digest": digest.to_string(), "length": 708,
            "repository": "team/app",
            "url": format!("http://registry/v2/team/app/manifests/{digest}"),
            "tag": format!("v{number}"),
        },
        "request": { "id": "r", "addr": "10.0.0.1:1", "host": "registry", "method": "PUT" },
        "actor": {}, "source": { "addr": "registry:5000", "instanceID": "i" },
    }] })
    .to_string()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends one on a connection that stays open; returns the status.
fn send(stream: &mut TcpStream, token: &str, body: &str) -> u16 {
    let length = body.len();
    let request = format!(
        "POST /hooks/registry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/vnd.docker.distribution.events.v2+json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
            if rest.len() >= length {
                return head.split(' ').nth(1).unwrap().parse().unwrap();
            }
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the connection was closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
}

/// Memory of the process in KiB (VmRSS).
fn memory(service: &Service) -> u64 {
    let pid = service.pid().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
