//! Results in object stores: S3 (`moto`), Google's (`google`) and Azure's (`azure`), each with a witness
//! that is no part of ours.

mod azure;
mod google;
mod moto;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dock2uni::service::config::Config;
use dock2uni::service::job::Outcome;
use dock2uni::service::publish::Publisher;
use dock2uni::source::{Compression, Digest, Store};
use serde_json::{Value, json};

use super::common::layout::{ImageSpec, Layout, borrowed, noise, programs, tar};
use super::common::registry::Registry;
use super::common::vm::{can_boot, free_port};
use super::service::{PATIENCE, Service, config};

/// Key, size and SHA-256 of an object.
type Object = (String, u64, String);

/// A store that runs here, with a bucket `vms`.
trait ObjectStore {
    /// A destination of this name in this bucket, with the right secret or a wrong one.
    fn destination(&self, name: &str, bucket: &str, right: bool) -> String;

    /// What nobody may see, the right one and the wrong one.
    fn secrets(&self) -> [String; 2];

    /// What the witness finds in the bucket.
    fn objects(&self) -> Vec<Object>;
}

/// What `scripts/setup` puts at this place; `None`, and a word about it, if it isn't there.
pub fn installed(path: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), Into::into);
    let path = cache.join("dock2uni-tests").join(path);
    if !path.exists() {
        eprintln!("SKIPPED: there is no `{}` (scripts/setup installs it)", path.display());
        return None;
    }
    Some(path)
}

/// moto's Python, where the witnesses are as well.
fn python() -> Option<PathBuf> {
    installed("moto/bin/python")
}

/// Waits until `there` says that a store is.
fn until(what: &str, mut there: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < end, "{what} does not answer");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What a witness prints: a line for each object.
fn listed(text: &[u8]) -> Vec<Object> {
    let text = String::from_utf8_lossy(text);
    let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    words.map(|w| (w[0].to_owned(), w[1].parse().unwrap(), w[2].to_owned())).collect()
}

/// An image whose disk is uploaded in two parts.
fn large_image(registry: &Registry) -> String {
    let mut files = programs(&["busybox"]);
    files.push(("noise".to_owned(), noise(18 << 20, 2)));
    let mut layout = Layout::new();
    let image = layout.image(&ImageSpec {
        layers: vec![(tar(&borrowed(&files)), Compression::None)],
        config: json!({ "Cmd": ["/bin/busybox", "true"] }),
        ..ImageSpec::default()
    });
    layout.name(image, "large");
    registry.push(layout.path(), "large", "team/large:1")
}

#[test]
fn results_go_to_an_s3_store_and_come_back_from_it() {
    let Some(python) = python().filter(|_| can_boot()) else { return };
    there_and_back(&moto::Moto::start(python));
}

#[test]
fn results_go_to_a_google_store_and_come_back_from_it() {
    let Some(python) = python().filter(|_| can_boot()) else { return };
    there_and_back(&google::Google::start(python));
}

#[test]
fn results_go_to_an_azure_store_and_come_back_from_it() {
    let Some(python) = python().filter(|_| can_boot()) else { return };
    let Some(azurite) = installed("azurite/complete") else { return };
    there_and_back(&azure::Azurite::start(azurite.parent().unwrap(), python));
}

fn there_and_back(store: &dyn ObjectStore) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let image = large_image(&registry);
    let port = free_port();
    let text = config(dir.path(), port, 2)
        + &store.destination("bucket", "vms", true)
        + &store.destination("elsewhere", "nowhere", true)
        + &store.destination("denied", "vms", false);
    let service = Service::serve(dir.path(), port, &text);
    let submit = |destination: &str| {
        let body = json!({ "image": image, "destinations": [destination] });
        let (status, answer) = service.ask("POST", "/api/v1/jobs", Some(&body));
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    };
    let ids = ["bucket", "elsewhere", "denied"].map(submit);

    let job = service.over(&ids[0]);
    assert_eq!(job["state"], "done", "{job:#}");
    let result = &job["result"];
    let place = result["published"][0]["location"].as_str().unwrap();
    let disk = &result["files"][0];
    assert!(disk["size"].as_u64().unwrap() > 16 << 20, "{disk}");
    let objects = store.objects();
    let at = |name: &str| {
        let key = format!("results/here/{place}/{name}");
        objects.iter().find(|(found, ..)| *found == key).unwrap_or_else(|| panic!("{objects:?}"))
    };
    assert_eq!(objects.len(), 2, "{objects:?}");
    let (_, size, digest) = at("disk.img");
    assert_eq!((json!(size), json!(digest)), (disk["size"].clone(), disk["digest"].clone()));
    at("result.json");

    // Through the API and back.
    let path = format!("/api/v1/jobs/{}/files/disk.img", ids[0]);
    let fetched = fetch(port, &path);
    assert_eq!(Digest::of(&fetched).to_string(), *digest);

    // What the store refuses is an end that names it, and shows no secret.
    let secrets = store.secrets();
    let secret = |text: &str| secrets.iter().any(|secret| text.contains(secret));
    for (id, name) in ids[1..].iter().zip(["elsewhere", "denied"]) {
        let job = service.over(id);
        assert_eq!(job["state"], "failed", "{job:#}");
        let error = job["error"].as_str().unwrap();
        assert!(error.starts_with(name) && !error.contains("ignature"), "{error}");
        assert!(!secret(&job.to_string()), "{job:#}");
    }
    let log = service.log();
    assert!(!secret(&log), "{log}");

    // Retention takes the result away again.
    let config = Config::parse(&text, Path::new("service.toml")).unwrap();
    let layers = Store::open(dir.path().join("store")).unwrap();
    let publisher = Publisher {
        destinations: &config.destinations,
        registries: &config.registries,
        guard: &config.guard,
        store: &layers,
    };
    let outcome: Outcome =
        serde_json::from_value::<Value>(result.clone()).and_then(serde_json::from_value).unwrap();
    publisher.remove(&outcome).unwrap();
    assert_eq!(store.objects(), []);
    publisher.remove(&outcome).unwrap();
}

/// A body of any bytes, by its length.
fn fetch(port: u16, path: &str) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\n\r\n",
        super::service::TOKEN
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..head]));
    answer.split_off(head + 4)
}
