//! Images out of what is on this machine beside files: engines, containerd's store, pipes.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::layout::{ImageSpec, Layout, noise, tar};
use common::run;
use common::vm::dock2uni;
use dock2uni::source::{
    self, Class, Compression, Digest, Error, Image, Options, Quiet, Reference, Sockets, Store,
};
use serde_json::json;
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn resolve(reference: &str, options: &Options, store: &Store) -> Result<Image, Error> {
    source::resolve(&Reference::detect(reference)?, options, store, &Quiet)
}

fn sockets(path: &Path) -> Sockets {
    Sockets { address: None, candidates: vec!["/no/such".into(), path.into()] }
}

fn spec() -> ImageSpec {
    ImageSpec {
        layers: vec![
            (tar(&[("a", &noise(700_000, 1))]), Compression::Gzip),
            (tar(&[("b", b"small")]), Compression::Gzip),
        ],
        config: json!({"Cmd": ["/a"]}),
        ..ImageSpec::default()
    }
}

/// A layout with such an image, and the archive that skopeo makes of it.
fn archive(dir: &Path, kind: &str, name: &str) -> PathBuf {
    let mut layout = Layout::new();
    let image = layout.image(&spec());
    layout.name(image, "one");
    let file = dir.join(format!("{kind}.tar"));
    // skopeo adds to what is there, or refuses to.
    let _ = fs::remove_file(&file);
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet"]);
    command.arg(format!("oci:{}:one", layout.path().display()));
    run(command.arg(format!("{kind}:{}:{name}", file.display())));
    file
}

/// All layers are there, and are what their diff IDs say once they are plain.
fn check(image: &Image, spec: &ImageSpec) {
    assert_eq!(image.layers.len(), spec.layers.len());
    for (layer, (tar, _)) in image.layers.iter().zip(&spec.layers) {
        let blob = fs::read(&layer.path).unwrap();
        assert_eq!((Digest::of(&blob), blob.len() as u64), (layer.digest, layer.size));
        assert_eq!(layer.diff_id, Digest::of(tar));
    }
}

fn no_parts(dir: &Path) {
    assert_eq!(fs::read_dir(dir.join("staging")).unwrap().count(), 0);
}

/// Podman's service, with storage of its own. `None` where it can't run.
struct Podman {
    dir: TempDir,
    service: Child,
}

impl Podman {
    fn start() -> Option<Podman> {
        let dir = tempfile::tempdir().unwrap();
        let load = Podman::command(dir.path())
            .args(["load", "--quiet", "--input"])
            .arg(archive(dir.path(), "docker-archive", "localhost/app:v1"))
            .output();
        match load {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                eprintln!("skipped: podman: {}", String::from_utf8_lossy(&output.stderr));
                return None;
            }
            Err(error) => {
                eprintln!("skipped: podman: {error}");
                return None;
            }
        }
        let service = Podman::command(dir.path())
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}", dir.path().join("sock").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let podman = Podman { dir, service };
        let end = Instant::now() + Duration::from_secs(180);
        while UnixStream::connect(podman.socket()).is_err() {
            assert!(Instant::now() < end, "podman's service doesn't come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(podman)
    }

    fn command(dir: &Path) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

#[test]
fn podman_hands_its_images_out() {
    let Some(podman) = Podman::start() else { return };
    let (dir, store) = store();
    let options = Options { podman: sockets(&podman.socket()), ..Options::default() };
    let image = resolve("podman:localhost/app:v1", &options, &store).unwrap();
    check(&image, &spec());
    no_parts(dir.path());
    // The same by a short name and by ID; what is in the store isn't asked for again.
    for name in ["app:v1".to_owned(), image.config_digest.hex()] {
        let again = resolve(&format!("podman:{name}"), &options, &store).unwrap();
        assert_eq!((again.manifest, again.layers.len()), (image.manifest, 2));
        check(&again, &spec());
    }
    let error = resolve("podman:none", &options, &store).unwrap_err();
    assert!(matches!(error, Error::NotInEngine { .. }), "{error}");
    assert_eq!(error.class(), Class::NotFound);

    // From the command line, by the environment variable.
    let desk = tempfile::tempdir().unwrap();
    let output = dock2uni()
        .args(["inspect", "--json", "podman:app:v1", "--", "/b"])
        .env("DOCK2UNI_STORE", desk.path())
        .env("CONTAINER_HOST", format!("unix://{}", podman.socket().display()))
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["layers"], 2, "{report}");
}

/// An engine that answers with these bodies by path; what it was asked is noted.
fn engine(
    dir: &Path,
    answers: Vec<(&'static str, u16, Vec<u8>)>,
) -> (PathBuf, Arc<Mutex<Vec<String>>>) {
    let path = dir.join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    break;
                }
                let asked = line.split(' ').nth(1).unwrap_or_default().to_owned();
                while reader.read_line(&mut line).unwrap_or(0) > 2 {}
                let answer = answers.iter().find(|(path, ..)| *path == asked);
                log.lock().unwrap().push(asked);
                let nothing = (404, b"{\"message\":\"No such image\"}".to_vec());
                let (status, body) =
                    answer.map_or(nothing, |(_, status, body)| (*status, body.clone()));
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
                let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                if sent.is_err() {
                    break;
                }
            }
        }
    });
    (path, asked)
}

#[test]
fn the_docker_daemon_is_asked_by_its_api() {
    let desk = tempfile::tempdir().unwrap();
    let saved = fs::read(archive(desk.path(), "docker-archive", "docker.io/team/app:v1")).unwrap();
    let known = |architecture: &str| {
        let id = format!("sha256:{}", "00".repeat(32));
        json!({"Id": id, "Os": "linux", "Architecture": architecture}).to_string().into_bytes()
    };
    let answers = vec![
        ("/images/team/app:v1/json", 200, known("amd64")),
        ("/images/team/app:v1/get", 200, saved.clone()),
        ("/images/arm/json", 200, known("arm64")),
        ("/images/cut/json", 200, known("amd64")),
        ("/images/cut/get", 200, saved[..saved.len() / 2].to_vec()),
        ("/images/broken/json", 500, b"{\"message\":\"disk\\u001b on fire\"}".to_vec()),
        ("/images/odd/json", 200, b"[]".to_vec()),
    ];
    let (socket, asked) = engine(desk.path(), answers);
    let options = Options { docker: sockets(&socket), ..Options::default() };
    let (dir, store) = store();
    let image = resolve("docker-daemon:team/app:v1", &options, &store).unwrap();
    check(&image, &spec());
    no_parts(dir.path());
    assert_eq!(
        *asked.lock().unwrap(),
        ["/images/team/app:v1/json", "/images/team/app:v1/get"].map(str::to_owned)
    );
    let error =
        |name: &str| resolve(&format!("docker-daemon:{name}"), &options, &store).unwrap_err();
    assert!(matches!(error("none"), Error::NotInEngine { .. }));
    assert!(matches!(error("arm"), Error::WrongPlatform { .. }));
    let truncated = error("cut");
    assert!(truncated.to_string().contains("the Docker daemon is malformed"), "{truncated}");
    assert!(error("broken").to_string().ends_with("it answered 500: disk on fire"));
    assert!(matches!(error("odd"), Error::Malformed { .. }));
    no_parts(dir.path());
    // Nobody there.
    let nowhere = Options { docker: sockets(Path::new("/no/socket")), ..Options::default() };
    let error = resolve("docker-daemon:app", &nowhere, &store).unwrap_err();
    assert_eq!(error.class(), Class::Network, "{error}");
    assert!(error.hint().unwrap().contains("DOCKER_HOST"));
}

/// What containerd 1.6.20 left behind after `ctr images import` of three images into the namespaces
/// `default` and `k8s.io` (hello), `other` (another hello), and `k8s.io` (only, with 40 more names).
fn containerd() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/containerd-1.6.20.tar.gz");
    run(Command::new("tar").arg("-C").arg(dir.path()).arg("-xzf").arg(file));
    dir
}

#[test]
fn containerds_store_is_read_in_place() {
    let root = containerd();
    let (_dir, store) = store();
    let options = Options {
        containerd_roots: vec!["/no/such".into(), root.path().into()],
        ..Options::default()
    };
    let digest = "sha256:b1685e5bbfbc9aed8f67eec30edac84fc80c55ff4c8cbec8ac8a55c5ff47d52d";
    let image = resolve("containerd:registry.example/team/only:1", &options, &store).unwrap();
    assert!(image.layers[0].path.starts_with(root.path()));
    assert_eq!(Digest::of(&fs::read(&image.layers[0].path).unwrap()), image.layers[0].diff_id);
    let filler = "containerd:registry.example/team/filler-with-a-long-name-37:1";
    assert_eq!(resolve(filler, &options, &store).unwrap().manifest, image.manifest);

    // One name, two images: the namespace decides, and Docker's short form will do.
    let error = resolve("containerd:hello", &options, &store).unwrap_err();
    assert!(
        matches!(&error, Error::Namespaces { namespaces, .. } if namespaces.len() == 3),
        "{error}"
    );
    let within = |namespace: &str| {
        let namespace = Some(namespace.to_owned());
        let options = Options { containerd_namespace: namespace, ..options.clone() };
        resolve("containerd:hello", &options, &store).map(|image| image.manifest.to_string())
    };
    assert_eq!(within("default").unwrap(), within("k8s.io").unwrap());
    assert_ne!(within("default").unwrap(), within("other").unwrap());
    let error = within("none").unwrap_err();
    assert!(matches!(error, Error::NotInContainerd { .. }), "{error}");
    let by_digest =
        [within("default").unwrap(), within("other").unwrap(), image.manifest.to_string()];
    assert!(by_digest.contains(&digest.to_owned()), "{by_digest:?}");
    let image = resolve(&format!("containerd:{digest}"), &options, &store).unwrap();
    assert_eq!(image.manifest.to_string(), digest);

    // What containerd has dropped is named.
    fs::remove_file(&image.layers[0].path).unwrap();
    let error = resolve(&format!("containerd:{digest}"), &options, &store).unwrap_err();
    assert!(matches!(&error, Error::BlobUnknown { .. }), "{error}");
    assert!(error.hint().unwrap().contains("ctr images pull"));
    let nothing = Options { containerd_roots: vec!["/no/such".into()], ..Options::default() };
    let error = resolve("containerd:x", &nothing, &store).unwrap_err();
    assert!(error.to_string().contains("no store in `/no/such`"), "{error}");
}

#[test]
fn a_damaged_database_of_containerds_is_an_error() {
    let root = containerd();
    let (_dir, store) = store();
    let database = root.path().join("io.containerd.metadata.v1.bolt/meta.db");
    let options = Options { containerd_roots: vec![root.path().into()], ..Options::default() };
    let good = fs::read(&database).unwrap();
    let noise = noise(40_000, 3);
    for round in 0..200 {
        let mut bytes = good.clone();
        for pair in noise[round * 160..(round + 1) * 160].chunks_exact(8) {
            let at = u32::from_le_bytes(pair[..4].try_into().unwrap()) as usize % bytes.len();
            bytes[at] = pair[4];
        }
        if round % 10 == 0 {
            bytes.truncate(bytes.len() * round / 200);
        }
        fs::write(&database, &bytes).unwrap();
        // It may still be found; what must not happen is a panic, or another image.
        if let Ok(image) = resolve("containerd:registry.example/team/only:1", &options, &store) {
            assert_eq!(image.layers.len(), 1);
        }
    }
}

#[test]
fn archives_are_read_from_pipes_once() {
    let desk = tempfile::tempdir().unwrap();
    for (kind, name) in [("docker-archive", "localhost/app:v1"), ("oci-archive", "one")] {
        let file = archive(desk.path(), kind, name);
        let reference = desk.path().join(format!("{kind}.pipe"));
        run(Command::new("mkfifo").arg(&reference));
        for wanted in [reference.display().to_string(), format!("{kind}:{}", reference.display())] {
            let (dir, store) = store();
            let (from, to) = (file.clone(), reference.clone());
            let writer = std::thread::spawn(move || {
                let mut bytes = fs::read(from).unwrap();
                // As tar pads its last record: whoever writes it must not see a broken pipe.
                bytes.resize(bytes.len().next_multiple_of(10240) + 20480, 0);
                fs::write(to, bytes)
            });
            let image = resolve(&wanted, &Options::default(), &store).unwrap();
            check(&image, &spec());
            writer.join().unwrap().unwrap();
            no_parts(dir.path());
        }
    }
    // A bound on what a stream may bring, and nothing left behind.
    let file = archive(desk.path(), "docker-archive", "localhost/app:v1");
    let (dir, store) = store();
    let options = Options { archive_bytes: 300_000, ..Options::default() };
    let error = resolve(file.to_str().unwrap(), &options, &store).unwrap_err();
    assert!(error.to_string().contains("more than 300000 bytes"), "{error}");
    no_parts(dir.path());
}

#[test]
fn an_archive_on_standard_input_is_converted() {
    let desk = tempfile::tempdir().unwrap();
    let file = archive(desk.path(), "docker-archive", "localhost/app:v1");
    let inspect = |words: &[&str], input: Vec<u8>| {
        let mut child = dock2uni()
            .args(words)
            .env("DOCK2UNI_STORE", desk.path().join("store"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may be refused before all of it is read.
        let _ = child.stdin.take().unwrap().write_all(&input);
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (child.wait().unwrap().code().unwrap(), text, errors)
    };
    let good = fs::read(&file).unwrap();
    let gzip = common::layout::compress(&good, Compression::Gzip);
    let (_, text, errors) = inspect(&["inspect", "--json", "-"], gzip);
    let report: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {errors}"));
    assert_eq!((report["image"].as_str(), report["layers"].as_u64()), (Some("-"), Some(2)));
    let (_, text, errors) =
        inspect(&["inspect", "--json", "docker-archive:-:localhost/app:v1"], good.clone());
    assert!(!text.is_empty(), "{errors}");
    let (code, _, errors) = inspect(&["convert", "-"], good.clone());
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("hint: name the file with `--output`"), "{errors}");
    let (code, _, errors) = inspect(&["convert", "-", "-o", "x.img"], good[..20_000].to_vec());
    assert_eq!(code, 6, "{errors}");
    assert!(errors.contains("standard input is malformed: it is truncated"), "{errors}");
}
