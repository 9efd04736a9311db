//! Registries that break off, lie, stall, redirect and ask for tokens.

mod common;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::layout::noise;
use common::server::{Reply, Request, Server};
use dock2uni::source::{self, Bar, Class, Digest, Error, Image, Options, Progress, Quiet, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn options() -> Options {
    Options {
        certs_dirs: Vec::new(),
        retries: 3,
        retry_delay: Duration::from_millis(10),
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        ..Options::default()
    }
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// An image of plain layers, whose content is not looked at here.
#[derive(Clone)]
struct Content {
    layers: Vec<Vec<u8>>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Content {
    fn new(layers: Vec<Vec<u8>>) -> Self {
        let digests: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({"architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": digests}});
        let config = serde_json::to_vec(&config).unwrap();
        let descriptor = |media_type: &str, bytes: &[u8]| {
            json!({"mediaType": media_type, "size": bytes.len(),
                "digest": Digest::of(bytes).to_string()})
        };
        let plain = "application/vnd.oci.image.layer.v1.tar";
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|l| descriptor(plain, l)).collect::<Vec<Value>>()});
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Self { layers, config, manifest }
    }

    fn one(size: usize) -> Self {
        Self::new(vec![noise(size, 42)])
    }

    /// The path of a layer's blob.
    fn path(&self, layer: usize) -> String {
        format!("/v2/app/blobs/{}", Digest::of(&self.layers[layer]))
    }

    /// What an honest registry answers.
    fn answer(&self, request: &Request) -> Reply {
        let path = request.path.as_str();
        if path == "/v2/" {
            return Reply::new(200, "{}");
        }
        if path == "/v2/app/manifests/latest" {
            return Reply::new(200, self.manifest.clone())
                .with("Content-Type", MANIFEST)
                .with("Docker-Content-Digest", Digest::of(&self.manifest));
        }
        let blobs = self.layers.iter().chain([&self.config]);
        for blob in blobs {
            if path == format!("/v2/app/blobs/{}", Digest::of(blob)) {
                return Reply::ranged(request, blob);
            }
        }
        Reply::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#)
    }
}

fn resolve_with(
    server: &Server,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Image, Error> {
    let reference = format!("{}/app", server.addr);
    source::resolve(&reference.parse().unwrap(), options, store, progress)
}

fn resolve(server: &Server, options: &Options, store: &Store) -> Result<Image, Error> {
    resolve_with(server, options, store, &Quiet)
}

fn check(image: &Image, content: &Content) {
    for (layer, want) in image.layers.iter().zip(&content.layers) {
        assert!(fs::read(&layer.path).unwrap() == *want);
    }
    assert_eq!(image.layers.len(), content.layers.len());
}

fn count(dir: &Path, name: &str) -> usize {
    fs::read_dir(dir.join(name)).unwrap().count()
}

/// Remembers the waits.
#[derive(Default)]
struct Waits(Mutex<Vec<Duration>>);

impl Progress for Waits {
    fn start(&self, digest: &Digest, total: u64) -> Box<dyn Bar> {
        Quiet.start(digest, total)
    }

    fn retrying(&self, _: &str, wait: Duration) {
        self.0.lock().unwrap().push(wait);
    }
}

#[test]
fn retry_after_is_honoured_and_bounded() {
    let content = Content::one(10_000);
    for status in [429, 503] {
        let (honest, refused) = (content.clone(), AtomicUsize::new(0));
        let server = Server::start(move |request| match request.path.contains("manifests") {
            true if refused.fetch_add(1, Ordering::Relaxed) == 0 => {
                Reply::new(status, "").with("Retry-After", 1)
            }
            _ => honest.answer(request),
        });
        let (_dir, store) = store();
        let (waits, start) = (Waits::default(), Instant::now());
        let image = resolve_with(&server, &options(), &store, &waits).unwrap();
        check(&image, &content);
        assert!(start.elapsed() >= Duration::from_secs(1));
        assert_eq!(*waits.0.lock().unwrap(), [Duration::from_secs(1)]);
    }
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply::new(429, "").with("Retry-After", 100_000),
    });
    let error = resolve(&server, &options(), &store().1).unwrap_err();
    assert!(matches!(error, Error::RateLimited { .. }), "{error}");
}

#[test]
fn errors_that_stay_are_reported_after_the_last_repetition() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply::new(500, r#"{"errors":[{"code":"UNKNOWN","message":"disk\nbroken"}]}"#),
    });
    let error = resolve(&server, &options(), &store().1).unwrap_err();
    assert_eq!(error.class(), Class::Network);
    assert!(
        error.to_string().ends_with("answered 500 to GET /v2/app/manifests/latest: disk broken")
    );
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn broken_downloads_are_resumed_where_they_broke() {
    let content = Content::one(1_000_000);
    let (honest, path) = (content.clone(), content.path(0));
    let server = Server::start(move |request| {
        let mut reply = honest.answer(request);
        if request.path == path {
            reply.cut = Some(300_000);
        }
        reply
    });
    let (dir, store) = store();
    check(&resolve(&server, &options(), &store).unwrap(), &content);
    let ranges: Vec<_> = server.requests_for(&content.path(0)).iter().map(Request::range).collect();
    assert_eq!(ranges, [None, Some(300_000), Some(600_000), Some(900_000)]);
    assert_eq!(count(dir.path(), "staging"), 0);
}

#[test]
fn a_server_that_cannot_resume_is_asked_for_all_again() {
    let content = Content::one(500_000);
    let (honest, path, seen) = (content.clone(), content.path(0), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        if request.path != path {
            return honest.answer(request);
        }
        let mut reply = Reply::new(200, honest.layers[0].clone());
        match seen.fetch_add(1, Ordering::Relaxed) {
            0 => reply.cut = Some(100_000),
            1 => reply = Reply::new(416, ""),
            2 => reply.cut = Some(200_000),
            _ => {}
        }
        reply
    });
    check(&resolve(&server, &options(), &store().1).unwrap(), &content);
    let ranges: Vec<_> = server.requests_for(&content.path(0)).iter().map(Request::range).collect();
    assert_eq!(ranges, [None, Some(100_000), None, Some(200_000)]);
}

#[test]
fn wrong_lengths_and_contents_are_refused_and_not_kept() {
    let content = Content::one(300_000);
    type Spoil = fn(Reply) -> Reply;
    type Check = fn(&Error) -> bool;
    let size: Check = |e| matches!(e, Error::SizeMismatch { .. });
    let cases: [(Spoil, Check); 5] = [
        (|r| Reply::new(200, [r.body, vec![0; 100]].concat()), size),
        (|r| Reply::new(200, &r.body[1..]), size),
        (|r| Reply { chunked: true, body: [r.body, noise(4 << 20, 1)].concat(), ..r }, size),
        (
            |r| Reply::new(200, noise(r.body.len(), 2)),
            |e| matches!(e, Error::DigestMismatch { .. }),
        ),
        (|_| Reply::new(404, ""), |e| matches!(e, Error::BlobUnknown { .. })),
    ];
    for (spoil, check) in cases {
        let (honest, path) = (content.clone(), content.path(0));
        let server = Server::start(move |request| {
            let reply = honest.answer(request);
            if request.path == path { spoil(reply) } else { reply }
        });
        let (dir, store) = store();
        let error = resolve(&server, &options(), &store).unwrap_err();
        assert!(check(&error), "{error:?}");
        assert_eq!(server.requests_for(&content.path(0)).len(), 1, "repeated: {error}");
        assert_eq!(count(dir.path(), "blobs/sha256"), 2);
        let kept: u64 = fs::read_dir(dir.path().join("staging"))
            .unwrap()
            .map(|part| part.unwrap().metadata().unwrap().len())
            .sum();
        assert!(kept <= 300_000);
    }
}

#[test]
fn a_manifest_must_match_its_digest_and_be_one() {
    let content = Content::one(1000);
    type Spoil = fn(Reply) -> Reply;
    type Check = fn(&Error) -> bool;
    let cases: [(Spoil, Check); 4] = [
        (
            |r| Reply::new(200, r.body).with("Docker-Content-Digest", Digest::of(b"other")),
            |e| matches!(e, Error::DigestMismatch { what: "manifest", .. }),
        ),
        (|_| Reply::new(200, vec![b' '; 5 << 20]), |e| matches!(e, Error::TooLarge { .. })),
        (|_| Reply::new(200, "<html>log in here</html>"), |e| matches!(e, Error::Malformed { .. })),
        (
            |_| Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
            |e| matches!(e, Error::RepositoryUnknown { .. }),
        ),
    ];
    for (spoil, check) in cases {
        let honest = content.clone();
        let server = Server::start(move |request| {
            let reply = honest.answer(request);
            if request.path.contains("manifests") { spoil(reply) } else { reply }
        });
        let error = resolve(&server, &options(), &store().1).unwrap_err();
        assert!(check(&error), "{error:?}");
    }
}

#[test]
fn a_stalled_server_times_out_and_an_absent_one_is_unreachable() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply { cut: Some(0), stall: Duration::from_secs(3), ..Reply::new(200, "{}") },
    });
    let impatient = Options { read_timeout: Duration::from_millis(200), retries: 1, ..options() };
    let error = resolve(&server, &impatient, &store().1).unwrap_err();
    assert!(matches!(&error, Error::Transfer { reason, .. } if reason == "timed out"), "{error:?}");

    let addr = server.addr;
    drop(server);
    std::thread::sleep(Duration::from_millis(100));
    // Whoever knows names may take a while to know that there is none.
    let patient = Duration::from_secs(60);
    let patient =
        Options { connect_timeout: patient, read_timeout: patient, retries: 1, ..options() };
    for host in [addr.to_string(), "registry.invalid".into()] {
        let reference = format!("{host}/app").parse().unwrap();
        let error = source::resolve(&reference, &patient, &store().1, &Quiet).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
}

#[test]
fn authorization_stays_with_its_origin() {
    let content = Content::one(100_000);
    let blob = content.layers[0].clone();
    let elsewhere = Server::start(move |request| Reply::ranged(request, &blob));
    let (honest, path, target) = (content.clone(), content.path(0), elsewhere.addr);
    let server = Server::start(move |request| {
        if request.path == "/v2/" {
            return Reply::new(401, "");
        }
        if request.header("authorization").is_none() {
            return Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if request.path == path {
            return Reply::new(307, "").with("Location", "/moved?here=1");
        }
        if request.path.starts_with("/moved") {
            return Reply::new(302, "").with("Location", format!("http://{target}/blob?signed=1"));
        }
        honest.answer(request)
    });
    let (dir, store) = store();
    let file = dir.path().join("config.json");
    let auths = json!({"auths": {server.addr.to_string(): {"auth": "YTpi"}}});
    fs::write(&file, auths.to_string()).unwrap();
    let options = Options { auth_files: vec![file], ..options() };
    check(&resolve(&server, &options, &store).unwrap(), &content);
    let moved = server.requests().into_iter().find(|r| r.path.starts_with("/moved")).unwrap();
    assert_eq!(moved.header("authorization"), Some("Basic YTpi"));
    let away = elsewhere.requests();
    assert_eq!((away.len(), away[0].header("authorization")), (1, None));
}

#[test]
fn redirects_end_and_lead_nowhere_odd() {
    for location in ["/v2/app/manifests/latest", "file:///etc/passwd", "http://["] {
        let server = Server::start(move |request| match request.path.as_str() {
            "/v2/" => Reply::new(200, ""),
            _ => Reply::new(302, "").with("Location", location),
        });
        let error = resolve(&server, &options(), &store().1).unwrap_err();
        assert!(matches!(error, Error::Transfer { .. }), "{error:?}");
        assert!(error.to_string().contains("redirect"), "{error}");
    }
}

/// A registry that lets in whoever has a token from its `/token`, each good for a few requests.
fn token_registry(content: &Content, uses: usize) -> Server {
    let (honest, realm) = (content.clone(), Arc::new(Mutex::new(String::new())));
    let (issued, used, own) = (AtomicUsize::new(0), AtomicUsize::new(0), realm.clone());
    let server = Server::start(move |request| {
        if request.path == "/v2/" {
            return Reply::new(200, "");
        }
        if request.path.starts_with("/token") {
            let number = issued.fetch_add(1, Ordering::Relaxed) + 1;
            used.store(0, Ordering::Relaxed);
            return Reply::new(200, json!({"access_token": format!("t{number}")}).to_string());
        }
        let current = format!("Bearer t{}", issued.load(Ordering::Relaxed));
        let fresh = used.fetch_add(1, Ordering::Relaxed) < uses;
        if request.header("authorization") == Some(&current) && fresh {
            return honest.answer(request);
        }
        let challenge = format!(
            r#"Bearer realm="{}",service="reg, istry",scope="repository:app:pull""#,
            own.lock().unwrap()
        );
        Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
            .with("WWW-Authenticate", challenge)
    });
    *realm.lock().unwrap() = format!("http://{}/token", server.addr);
    server
}

#[test]
fn tokens_are_fetched_used_and_renewed_when_they_expire() {
    let content = Content::new(vec![noise(1000, 1), noise(1000, 2), noise(1000, 3)]);
    let server = token_registry(&content, 2);
    let one_by_one = Options { parallel: 1, ..options() };
    check(&resolve(&server, &one_by_one, &store().1).unwrap(), &content);
    let tokens: Vec<_> =
        server.requests().into_iter().filter(|r| r.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 3, "manifest, configuration, three layers: two uses each");
    assert_eq!(tokens[0].path, "/token?service=reg%2C+istry&scope=repository%3Aapp%3Apull");
    assert_eq!(tokens[0].header("authorization"), None);
}

#[test]
fn token_servers_get_the_login_or_the_identity_token() {
    let content = Content::one(1000);
    for (auth, want_method, want) in [
        (json!({"auth": "YTpi"}), "GET", "Basic YTpi"),
        (json!({"identitytoken": "I&T"}), "POST", "refresh_token=I%26T"),
    ] {
        let server = token_registry(&content, 100);
        let (dir, store) = store();
        let file = dir.path().join("auth.json");
        fs::write(&file, json!({"auths": {server.addr.to_string(): auth}}).to_string()).unwrap();
        let options = Options { auth_files: vec![file], ..options() };
        check(&resolve(&server, &options, &store).unwrap(), &content);
        let token = server.requests().into_iter().find(|r| r.path.starts_with("/token")).unwrap();
        assert_eq!(token.method, want_method);
        let carried = format!("{} {}", token.header("authorization").unwrap_or(""), token.body);
        assert!(carried.contains(want), "{carried}");
    }
}

#[test]
fn challenges_that_cannot_be_met_are_errors() {
    for (challenge, want) in [
        ("Negotiate", "neither Bearer nor Basic"),
        ("Bearer service=x", "no usable realm"),
        ("Bearer realm=\"ftp://x/\"", "not on HTTPS"),
    ] {
        let server = Server::start(move |request| match request.path.as_str() {
            "/v2/" => Reply::new(200, ""),
            _ => Reply::new(401, "").with("WWW-Authenticate", challenge),
        });
        let error = resolve(&server, &options(), &store().1).unwrap_err();
        assert_eq!(error.class(), Class::Auth);
        assert!(error.to_string().contains(want), "{error}");
    }
    // A token that never suffices doesn't loop.
    let server = token_registry(&Content::one(10), 0);
    let error = resolve(&server, &options(), &store().1).unwrap_err();
    assert!(matches!(error, Error::CredentialsMissing { .. }), "{error:?}");
}

#[test]
fn blobs_download_in_parallel_but_not_all_at_once() {
    let content = Content::new((0..12).map(|n| noise(1000, n + 1)).collect());
    let (honest, now, most) = (content.clone(), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    let server = Server::start(move |request| {
        let running = now.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(running, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        now.fetch_sub(1, Ordering::SeqCst);
        honest.answer(request)
    });
    check(&resolve(&server, &options(), &store().1).unwrap(), &content);
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[test]
fn a_part_damaged_on_disk_is_fetched_anew() {
    let content = Content::one(200_000);
    let honest = content.clone();
    let server = Server::start(move |request| honest.answer(request));
    let (dir, store) = store();
    let digest = Digest::of(&content.layers[0]);
    // As after a power cut: the length was written, the bytes were not.
    let part = dir.path().join("staging").join(format!("{}.part", digest.hex()));
    fs::write(&part, vec![0; 50_000]).unwrap();
    check(&resolve(&server, &options(), &store).unwrap(), &content);
    let ranges: Vec<_> = server.requests_for(&content.path(0)).iter().map(Request::range).collect();
    assert_eq!(ranges, [Some(50_000), None]);
    // A part longer than the blob isn't used at all, a complete one needs no request.
    store.discard(&digest).unwrap();
    fs::write(&part, vec![0; 200_001]).unwrap();
    check(&resolve(&server, &options(), &store).unwrap(), &content);
    store.discard(&digest).unwrap();
    fs::write(&part, &content.layers[0]).unwrap();
    check(&resolve(&server, &options(), &store).unwrap(), &content);
    assert_eq!(server.requests_for(&content.path(0)).len(), 3);
    assert_eq!(count(dir.path(), "staging"), 0);
}

/// Not a test by itself: the process that the tests below start and kill.
#[test]
fn child_process() {
    let (Ok(reference), Ok(dir)) =
        (std::env::var("D2U_TEST_REFERENCE"), std::env::var("D2U_TEST_STORE"))
    else {
        return;
    };
    let store = Store::open(dir).unwrap();
    let _ = source::resolve(&reference.parse().unwrap(), &options(), &store, &Quiet);
}

/// Resolves the server's image in another process.
fn start_child(server: &Server, store: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process"])
        .env("D2U_TEST_REFERENCE", format!("{}/app", server.addr))
        .env("D2U_TEST_STORE", store)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn processes_at_once_fetch_each_blob_once() {
    let content = Content::new((0..6).map(|n| noise(200_000, n + 1)).collect());
    let honest = content.clone();
    let server = Server::start(move |request| {
        std::thread::sleep(Duration::from_millis(30));
        honest.answer(request)
    });
    let (dir, store) = store();
    let mut children = [(); 4].map(|()| start_child(&server, dir.path()));
    children.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    for layer in 0..6 {
        assert_eq!(server.requests_for(&content.path(layer)).len(), 1);
    }
    check(&resolve(&server, &options(), &store).unwrap(), &content);
    assert_eq!(count(dir.path(), "staging"), 0);
}

#[test]
fn whenever_a_run_is_killed_only_whole_blobs_are_visible() {
    let content = Content::new((0..5).map(|n| noise(1_500_000, n + 1)).collect());
    let honest = content.clone();
    let server = Server::start(move |request| honest.answer(request));
    let (dir, store) = store();
    for round in 0..30 {
        let mut child = start_child(&server, dir.path());
        std::thread::sleep(Duration::from_millis(3 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        for blob in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
            let path = blob.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), name, "round {round}");
        }
        // Start over now and then, so that every stage is met.
        if round % 3 == 2 {
            content.layers.iter().for_each(|l| store.discard(&Digest::of(l)).unwrap());
        }
    }
    check(&resolve(&server, &options(), &store).unwrap(), &content);
    let parts = fs::read_dir(dir.path().join("staging")).unwrap().flatten();
    let left: Vec<_> = parts.map(|part| part.file_name()).collect();
    // What was killed while its name was not known yet goes when the store is opened next.
    assert!(left.iter().all(|name| name.to_str().unwrap().starts_with("new-")), "{left:?}");
    Store::open(dir.path()).unwrap();
    assert_eq!(count(dir.path(), "staging"), 0);
}

#[test]
fn a_killed_run_leaves_a_part_that_the_next_one_resumes() {
    let content = Content::one(1_000_000);
    let (honest, path, seen) = (content.clone(), content.path(0), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let mut reply = honest.answer(request);
        if request.path == path && seen.fetch_add(1, Ordering::Relaxed) == 0 {
            (reply.cut, reply.stall) = (Some(600_000), Duration::from_secs(4));
        }
        reply
    });
    let (dir, store) = store();
    let mut child = start_child(&server, dir.path());
    let digest = Digest::of(&content.layers[0]);
    let part = dir.path().join("staging").join(format!("{}.part", digest.hex()));
    let end = Instant::now() + Duration::from_secs(20);
    while !fs::metadata(&part).is_ok_and(|meta| meta.len() >= 500_000) {
        assert!(Instant::now() < end, "nothing arrives");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = fs::metadata(&part).unwrap().len() as usize;
    assert!(!store.blob_path(&digest).exists());

    check(&resolve(&server, &options(), &store).unwrap(), &content);
    let ranges: Vec<_> = server.requests_for(&content.path(0)).iter().map(Request::range).collect();
    assert_eq!(ranges, [None, Some(left)]);
    assert_eq!(count(dir.path(), "staging"), 0);
}

/// What some work on an image's only layer has come to, how often it was begun, and how often it came
/// to the layer's end.
struct Work {
    result: Result<Digest, Error>,
    begun: usize,
    ended: usize,
}

/// Reads the layer to its end while it arrives, and says what it hashes to. `half` is called after
/// 200,000 bytes.
fn work_on(server: &Server, store: &Store, half: &dyn Fn()) -> Work {
    let reference = format!("{}/app", server.addr).parse().unwrap();
    let (mut begun, mut ended) = (0, 0);
    let options = options();
    let result = source::resolve_with(&reference, &options, store, &Quiet, &mut |image, open| {
        begun += 1;
        let io = |source| Error::Io { action: "read", path: "layer".into(), source };
        let mut reader = open(&image.layers[0]).map_err(io)?;
        let mut bytes = vec![0; 200_000];
        reader.read_exact(&mut bytes).map_err(io)?;
        half();
        reader.read_to_end(&mut bytes).map_err(io)?;
        ended += 1;
        let digest = Digest::of(&bytes);
        if digest != image.layers[0].diff_id {
            return Err(Error::Malformed { what: "layer".into(), reason: digest.to_string() });
        }
        Ok(digest)
    });
    Work { result, begun, ended }
}

#[test]
fn layers_are_read_while_they_arrive() {
    let content = Content::one(1_000_000);
    let (server, go) = halting(&content);
    let (dir, store) = store();
    let work = work_on(&server, &store, &|| go.send(()).unwrap());
    assert_eq!(work.result.unwrap(), Digest::of(&content.layers[0]));
    assert_eq!((work.begun, work.ended), (1, 1));
    assert_eq!(count(dir.path(), "staging"), 0);
    // From the store it is the same.
    let again = work_on(&server, &store, &|| ());
    assert_eq!((again.result.unwrap(), again.begun), (Digest::of(&content.layers[0]), 1));
}

/// Sends the first 300,000 bytes of a layer; the rest is not sent before the gate is told.
fn halting(content: &Content) -> (Server, std::sync::mpsc::Sender<()>) {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (honest, path, gate) = (content.clone(), content.path(0), Mutex::new(gate));
    let server = Server::start(move |request| {
        let mut reply = honest.answer(request);
        if request.path == path && request.range().is_none() {
            reply.cut = Some(300_000);
        } else if request.path == path {
            gate.lock().unwrap().recv_timeout(Duration::from_secs(180)).unwrap();
        }
        reply
    });
    (server, go)
}

/// Waits until somebody waits for the lock of a file.
fn until_wanted(path: &Path) {
    let end = Instant::now() + Duration::from_secs(60);
    let inode = fs::metadata(path).unwrap().ino().to_string();
    // proc_locks(5): "2: -> FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF"
    let waits = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some("->")
            && fields.nth(4).is_some_and(|id| id.rsplit(':').next() == Some(&inode))
    };
    while !fs::read_to_string("/proc/locks").unwrap().lines().any(waits) {
        assert!(Instant::now() < end, "nobody waits for the part");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whoever reads a layer while it arrives may wait for another who wants the same layer, as images
/// with the same root do: the layer is the other's as soon as it is there.
#[test]
fn readers_of_a_layer_that_has_arrived_keep_it_from_nobody() {
    let content = Content::one(1_000_000);
    let (server, go) = halting(&content);
    let (dir, store) = store();
    let (begin, begun) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel();
    let (server, store) = (&server, &store);
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            begun.recv_timeout(Duration::from_secs(60)).unwrap();
            let work = work_on(server, store, &|| ());
            end.send(()).unwrap();
            work.result
        });
        let wanted = Digest::of(&content.layers[0]);
        let part = dir.path().join("staging").join(format!("{}.part", wanted.hex()));
        let work = work_on(server, store, &|| {
            begin.send(()).unwrap();
            until_wanted(&part);
            go.send(()).unwrap();
            ended.recv_timeout(Duration::from_secs(60)).expect("the other one has the layer");
        });
        assert_eq!((work.result.unwrap(), other.join().unwrap().unwrap()), (wanted, wanted));
    });
}

#[test]
fn nobody_comes_to_the_end_of_a_layer_that_is_not_what_it_should_be() {
    let content = Content::one(600_000);
    let mut wrong = content.layers[0].clone();
    wrong[500_000] ^= 1;
    let (honest, path) = (content.clone(), content.path(0));
    let server = Server::start(move |request| match request.path == path {
        true => Reply::ranged(request, &wrong),
        false => honest.answer(request),
    });
    let (dir, store) = store();
    let work = work_on(&server, &store, &|| ());
    assert!(matches!(work.result, Err(Error::DigestMismatch { .. })), "{:?}", work.result);
    assert_eq!((work.begun, work.ended), (1, 0));
    assert_eq!(count(dir.path(), "staging"), 0);

    // A download that starts over because the server can't resume it is no harm.
    let (honest, path, seen) = (content.clone(), content.path(0), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        if request.path != path {
            return honest.answer(request);
        }
        let mut reply = Reply::new(200, honest.layers[0].clone());
        reply.cut = (seen.fetch_add(1, Ordering::Relaxed) == 0).then_some(300_000);
        reply
    });
    let work = work_on(&server, &store, &|| ());
    assert_eq!(work.result.unwrap(), Digest::of(&content.layers[0]));
    // Nor is a part that an earlier run has left damaged: what was done with it is done again.
    store.discard(&Digest::of(&content.layers[0])).unwrap();
    let part = format!("{}.part", Digest::of(&content.layers[0]).hex());
    fs::write(dir.path().join("staging").join(part), noise(400_000, 7)).unwrap();
    // The rest is not sent before some of the damaged bytes have been read.
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (honest, path, gate) = (content.clone(), content.path(0), Mutex::new(gate));
    let server = Server::start(move |request| {
        if request.path == path && request.range() == Some(400_000) {
            gate.lock().unwrap().recv_timeout(Duration::from_secs(180)).unwrap();
        }
        honest.answer(request)
    });
    let work = work_on(&server, &store, &|| go.send(()).unwrap());
    assert_eq!(work.result.unwrap(), Digest::of(&content.layers[0]));
    assert_eq!(work.begun, 2);
}
