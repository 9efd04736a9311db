//! Images out of a real registry: Debian's `docker-registry`, filled by skopeo.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use common::layout::{ImageSpec, Layout, noise, tar};
use common::registry::{self, Registry};
use common::run;
use dock2uni::source::{
    self, Bar, Class, Compression, Digest, Error, Image, Options, Outcome, Progress, Quiet,
    RegistriesFiles, Store,
};
use serde_json::json;
use tempfile::TempDir;

/// Options that look at nothing of this machine's and don't wait long.
fn options() -> Options {
    Options {
        certs_dirs: Vec::new(),
        retries: 1,
        retry_delay: Duration::from_millis(10),
        ..Options::default()
    }
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn resolve(reference: &str, options: &Options, store: &Store) -> Result<Image, Error> {
    source::resolve(&reference.parse().unwrap(), options, store, &Quiet)
}

/// Counts what became of the blobs.
#[derive(Default)]
struct Count {
    outcomes: std::sync::Arc<Mutex<Vec<Outcome>>>,
}

struct CountBar(std::sync::Arc<Mutex<Vec<Outcome>>>);

impl Progress for Count {
    fn start(&self, _: &Digest, _: u64) -> Box<dyn Bar> {
        Box::new(CountBar(self.outcomes.clone()))
    }
}

impl Bar for CountBar {
    fn advance(&mut self, _: u64) {}
    fn restart(&mut self) {}
    fn finish(&mut self, outcome: Outcome) {
        self.0.lock().unwrap().push(outcome);
    }
}

fn three_layers() -> ImageSpec {
    ImageSpec {
        layers: vec![
            (tar(&[("a", &noise(300_000, 1))]), Compression::Gzip),
            (tar(&[("b", &noise(200_000, 2))]), Compression::Zstd),
            (tar(&[("c", &noise(100_000, 3))]), Compression::None),
            (tar(&[("a", &noise(300_000, 1))]), Compression::Gzip),
        ],
        config: json!({
            "Cmd": ["/a"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT",
            "Healthcheck": {"Test": ["CMD", "/a"]},
        }),
        ..ImageSpec::default()
    }
}

/// A layout with one image under the name `one`.
fn layout_of(spec: &ImageSpec) -> (Layout, String) {
    let mut layout = Layout::new();
    let image = layout.image(spec);
    let digest = image["digest"].as_str().unwrap().to_string();
    layout.name(image, "one");
    (layout, digest)
}

fn blobs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn part_count(dir: &Path) -> usize {
    fs::read_dir(dir.join("staging")).unwrap().count()
}

#[test]
fn layers_come_verified_and_a_second_time_from_the_store() {
    let registry = Registry::start();
    let spec = three_layers();
    let (layout, digest) = layout_of(&spec);
    let reference = registry.push(layout.path(), "one", "test/one:1");
    let (dir, store) = store();

    let progress = Count::default();
    let parsed = reference.parse().unwrap();
    let image = source::resolve(&parsed, &options(), &store, &progress).unwrap();
    assert_eq!(image.manifest.to_string(), digest);
    assert_eq!(image.layers.len(), 4);
    let want = [Compression::Gzip, Compression::Zstd, Compression::None, Compression::Gzip];
    assert_eq!(image.layers.iter().map(|l| l.compression).collect::<Vec<_>>(), want);
    for (layer, (tar, _)) in image.layers.iter().zip(&spec.layers) {
        assert_eq!(layer.diff_id, Digest::of(tar));
        let blob = fs::read(&layer.path).unwrap();
        assert_eq!((Digest::of(&blob), blob.len() as u64), (layer.digest, layer.size));
        assert!(layer.path.starts_with(dir.path()));
    }
    assert_eq!(image.layers[0].path, image.layers[3].path);
    let config = image.config.config().as_ref().unwrap();
    assert_eq!(config.exposed_ports().as_ref().unwrap(), &["80/tcp"]);
    assert!(String::from_utf8(image.config_json.clone()).unwrap().contains("Healthcheck"));
    assert_eq!(*progress.outcomes.lock().unwrap(), [Outcome::Fetched; 3]);
    assert_eq!(part_count(dir.path()), 0);

    let progress = Count::default();
    let again = source::resolve(&parsed, &options(), &store, &progress).unwrap();
    assert_eq!(again.manifest, image.manifest);
    assert_eq!(*progress.outcomes.lock().unwrap(), [Outcome::Cached; 3]);

    // By digest, and offline, the registry is not needed at all.
    let by_digest = format!("{}@{digest}", registry.reference("test/one"));
    drop(registry);
    resolve(&by_digest, &options(), &store).unwrap();
    let offline = Options { offline: true, ..options() };
    resolve(&reference, &offline, &store).unwrap();
    let error = resolve("docker.io/library/other:1", &offline, &store).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
    let error = resolve(&reference, &options(), &store).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(error.class(), Class::Network);
}

#[test]
fn a_layer_damaged_in_the_store_is_taken_out_and_fetched_again() {
    let registry = Registry::start();
    let (layout, _) = layout_of(&three_layers());
    let reference = registry.push(layout.path(), "one", "repaired:1");
    let (_dir, store) = store();
    let image = resolve(&reference, &options(), &store).unwrap();
    assert!(store.repair(&image).unwrap().is_empty());
    let layer = &image.layers[1];
    fs::write(&layer.path, vec![0; layer.size as usize]).unwrap();
    assert_eq!(store.repair(&image).unwrap(), [layer.digest]);
    let again = resolve(&reference, &options(), &store).unwrap();
    assert_eq!(Digest::of(&fs::read(&again.layers[1].path).unwrap()), layer.digest);
}

#[test]
fn a_moved_tag_is_noticed() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let mut manifests = Vec::new();
    for content in [b"1", b"2"] {
        let layers = vec![(tar(&[("f", content)]), Compression::Gzip)];
        let (layout, digest) = layout_of(&ImageSpec { layers, ..ImageSpec::default() });
        let reference = registry.push(layout.path(), "one", "moving");
        let image = resolve(&reference, &options(), &store).unwrap();
        assert_eq!(image.manifest.to_string(), digest);
        manifests.push(image.manifest);
    }
    assert_ne!(manifests[0], manifests[1]);
}

#[test]
fn docker_schema2_is_read_too() {
    let registry = Registry::start();
    let layers = vec![(tar(&[("f", b"x")]), Compression::Gzip)];
    let (layout, _) = layout_of(&ImageSpec { layers, ..ImageSpec::default() });
    let args = ["--format", "v2s2"];
    let reference = registry.push_with(layout.path(), "one", "schema2:x", &args);
    let (_dir, store) = store();
    let image = resolve(&reference, &options(), &store).unwrap();
    let manifest = fs::read_to_string(store.blob_path(&image.manifest)).unwrap();
    assert!(manifest.contains("vnd.docker.distribution.manifest.v2+json"), "{manifest}");
    assert_eq!(image.layers[0].compression, Compression::Gzip);
}

/// An index with an attestation, an arm64 image and perhaps an amd64 one.
fn push_index(registry: &Registry, architectures: &[&str]) -> String {
    let mut layout = Layout::new();
    let mut entries = vec![{
        let config = layout.blob("application/vnd.oci.image.config.v1+json", b"{}");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [],
            "mediaType": "application/vnd.oci.image.manifest.v1+json"});
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let mut entry = layout.blob("application/vnd.oci.image.manifest.v1+json", &bytes);
        entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        entry
    }];
    for (number, architecture) in architectures.iter().enumerate() {
        let content = noise(1000, number as u64);
        entries.push(layout.image(&ImageSpec {
            layers: vec![(tar(&[("f", &content)]), Compression::Gzip)],
            architecture: architecture.to_string(),
            ..ImageSpec::default()
        }));
    }
    let index = layout.index(&entries);
    layout.name(index, "multi");
    registry.push(layout.path(), "multi", &format!("multi:{}", architectures.len()))
}

#[test]
fn an_index_gives_the_wanted_platform() {
    let registry = Registry::start();
    let reference = push_index(&registry, &["arm64", "amd64"]);
    let (_dir, store) = store();
    let image = resolve(&reference, &options(), &store).unwrap();
    assert_eq!(image.config.architecture().to_string(), "amd64");
    let arm = Options { platform: "linux/arm64".parse().unwrap(), ..options() };
    let image = resolve(&reference, &arm, &store).unwrap();
    assert_eq!(image.config.architecture().to_string(), "arm64");
}

#[test]
fn another_architecture_is_an_error_that_lists_those_there_are() {
    let registry = Registry::start();
    let (dir, store) = store();
    let reference = push_index(&registry, &["arm64", "s390x", "riscv64"]);
    let error = resolve(&reference, &options(), &store).unwrap_err();
    assert_eq!(error.class(), Class::Unsupported);
    let text = error.to_string();
    assert!(text.ends_with("only for linux/arm64, linux/riscv64, linux/s390x"), "{text}");

    let spec = ImageSpec { architecture: "arm64".into(), ..ImageSpec::default() };
    let (layout, _) = layout_of(&spec);
    let reference = registry.push(layout.path(), "one", "single");
    let error = resolve(&reference, &options(), &store).unwrap_err();
    assert!(matches!(error, Error::WrongPlatform { .. }), "{error}");
    assert_eq!(part_count(dir.path()), 0);
}

#[test]
fn unknown_tags_and_repositories_are_told_apart() {
    let registry = Registry::start();
    let (layout, _) = layout_of(&ImageSpec::default());
    registry.push(layout.path(), "one", "known:1");
    let (dir, store) = store();
    let error = resolve(&registry.reference("known:2"), &options(), &store).unwrap_err();
    assert!(matches!(error, Error::TagUnknown { .. }), "{error}");
    assert_eq!(error.class(), Class::NotFound);
    assert!(error.hint().unwrap().contains("/known`"), "{:?}", error.hint());
    let error = resolve(&registry.reference("unknown:1"), &options(), &store).unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    let missing = format!("{}@{}", registry.reference("known"), Digest::of(b"no"));
    let error = resolve(&missing, &options(), &store).unwrap_err();
    assert!(matches!(error, Error::TagUnknown { .. }), "{error}");
    assert!(blobs(dir.path()).is_empty());
}

#[test]
fn damaged_truncated_and_missing_layers_leave_nothing_behind() {
    let registry = Registry::start();
    let spec = ImageSpec {
        layers: vec![(tar(&[("f", &noise(50_000, 9))]), Compression::Gzip)],
        ..ImageSpec::default()
    };
    let (layout, _) = layout_of(&spec);
    let reference = registry.push(layout.path(), "one", "bad:1");
    let (_keep, reading) = store();
    let layer = resolve(&reference, &options(), &reading).unwrap().layers.remove(0);
    let file = registry.blob_file(&layer.digest.hex());
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    flipped[1000] ^= 1;

    type Check = fn(&Error) -> bool;
    let cases: [(Option<&[u8]>, Check); 3] = [
        (Some(&flipped), |e| matches!(e, Error::DigestMismatch { .. })),
        (Some(&good[..good.len() - 10]), |e| {
            matches!(e, Error::SizeMismatch { .. } | Error::Status { .. })
        }),
        (None, |e| matches!(e, Error::BlobUnknown { .. } | Error::Status { .. })),
    ];
    for (content, check) in cases {
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let (dir, store) = store();
        let error = resolve(&reference, &options(), &store).unwrap_err();
        assert!(check(&error), "{error:?}");
        assert!(store.get(&layer.digest, layer.size).is_none());
        assert_eq!(blobs(dir.path()).len(), 2, "manifest and configuration alone are kept");
        assert_eq!(part_count(dir.path()), 0);
    }
}

#[test]
fn a_login_is_asked_for_taken_and_refused() {
    let login = Some(("alice".to_string(), "s3cret".to_string()));
    let registry = Registry::start_with(registry::Options { login, ..Default::default() });
    let (layout, _) = layout_of(&ImageSpec {
        layers: vec![(tar(&[("f", b"x")]), Compression::Gzip)],
        ..ImageSpec::default()
    });
    let reference = registry.push(layout.path(), "one", "private:1");
    let (dir, store) = store();
    let error = resolve(&reference, &options(), &store).unwrap_err();
    assert!(matches!(error, Error::CredentialsMissing { .. }), "{error}");
    assert_eq!(error.class(), Class::Auth);
    assert!(error.hint().unwrap().contains(&format!("docker login {}", registry.addr)));

    let file = dir.path().join("config.json");
    let with_file = Options { auth_files: vec![file.clone()], ..options() };
    let auths = |password: &str| {
        let auth = json!({"username": "alice", "password": password});
        fs::write(&file, json!({"auths": {registry.addr.to_string(): auth}}).to_string()).unwrap();
    };
    auths("wrong");
    let error = resolve(&reference, &with_file, &store).unwrap_err();
    assert!(matches!(error, Error::AccessDenied { .. }), "{error}");
    assert!(!error.to_string().contains("wrong"), "the password is in {error}");
    auths("s3cret");
    resolve(&reference, &with_file, &store).unwrap();
}

/// Certificate files for 127.0.0.1, signed by an authority of their own.
fn certificates(dir: &Path) -> registry::Options {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "dock2uni test authority");
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_string(), "localhost".to_string()];
    let server = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
    let (cert_file, key_file) = (dir.join("server.crt"), dir.join("server.key"));
    fs::write(&cert_file, server.pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    registry::Options { tls: Some((cert_file, key_file)), ..Default::default() }
}

#[test]
fn a_private_authority_is_trusted_when_named_and_only_then() {
    let certs = tempfile::tempdir().unwrap();
    let registry = Registry::start_with(certificates(certs.path()));
    let (layout, _) = layout_of(&three_layers());
    let reference = registry.push(layout.path(), "one", "tls:1");

    let (_dir, first) = store();
    let error = resolve(&reference, &options(), &first).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let ca_file = Some(certs.path().join("ca.crt"));
    resolve(&reference, &Options { ca_file, ..options() }, &first).unwrap();

    let (_dir, second) = store();
    let host = certs.path().join("certs.d").join(registry.addr.to_string());
    fs::create_dir_all(&host).unwrap();
    fs::copy(certs.path().join("ca.crt"), host.join("ca.crt")).unwrap();
    let certs_dirs = vec![certs.path().join("certs.d")];
    resolve(&reference, &Options { certs_dirs, ..options() }, &second).unwrap();
}

#[test]
fn resolutions_at_once_share_one_store() {
    let registry = Registry::start();
    let (layout, _) = layout_of(&three_layers());
    let reference = registry.push(layout.path(), "one", "shared:1");
    let (dir, store) = store();
    let progress = Count::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let parsed = reference.parse().unwrap();
                source::resolve(&parsed, &options(), &store, &progress).unwrap()
            });
        }
    });
    let outcomes = progress.outcomes.lock().unwrap();
    assert_eq!(outcomes.iter().filter(|o| **o == Outcome::Fetched).count(), 3, "{outcomes:?}");
    assert_eq!(part_count(dir.path()), 0);
}

/// A disk of 64 KiB, where mounting is allowed.
#[test]
fn a_full_disk_is_told_and_leaves_room() {
    let registry = Registry::start();
    let spec =
        ImageSpec { layers: vec![(noise(1 << 20, 5), Compression::None)], ..ImageSpec::default() };
    let (layout, _) = layout_of(&spec);
    let reference = registry.push(layout.path(), "one", "large:1");
    let dir = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(dir.path());
    if !mount.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: mounting a small tmpfs is not allowed here");
        return;
    }
    let result =
        Store::open(dir.path()).and_then(|store| resolve(&reference, &options(), &store).map(drop));
    let parts = part_count(dir.path());
    run(Command::new("umount").arg(dir.path()));
    let error = result.unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert_eq!(error.class(), Class::DiskFull);
    assert_eq!(parts, 0);
}

/// A file in the form of containers-registries.conf(5).
fn registries(dir: &Path, text: &str) -> RegistriesFiles {
    let file = dir.join("registries.conf");
    fs::write(&file, text).unwrap();
    RegistriesFiles { main: vec![file], ..RegistriesFiles::default() }
}

/// Counts blobs and keeps what is said.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn start(&self, _: &Digest, _: u64) -> Box<dyn Bar> {
        Box::new(Quiet)
    }

    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.into());
    }
}

#[test]
fn mirrors_stand_in_for_a_registry_and_it_for_them() {
    let (mirror, primary) = (Registry::start(), Registry::start());
    let (layout, digest) = layout_of(&three_layers());
    mirror.push(layout.path(), "one", "hub/team/app:1");
    let only = layout_of(&ImageSpec { config: json!({"Cmd": ["/b"]}), ..three_layers() });
    primary.push(only.0.path(), "one", "team/only:1");
    let desk = tempfile::tempdir().unwrap();
    let conf = format!(
        "[[registry]]\nprefix = \"registry.example/team\"\nlocation = \"{}/team\"\n\
         [[registry.mirror]]\nlocation = \"{}/hub/team\"\n\
         [[registry]]\nlocation = \"bad.example\"\nblocked = true\n\
         [aliases]\nmine = \"registry.example/team/app\"\n",
        primary.addr, mirror.addr
    );
    let options = Options { registries: registries(desk.path(), &conf), ..options() };
    let (dir, store) = store();
    // Named as the user did, wherever it came from; an alias is another name.
    let image = resolve("registry.example/team/app:1", &options, &store).unwrap();
    assert_eq!(
        (image.name.as_str(), image.manifest.to_string()),
        ("registry.example/team/app:1", digest)
    );
    let again = resolve("mine:1", &options, &store).unwrap();
    assert_eq!((again.name, again.manifest), (image.name, image.manifest));
    // What the mirror lacks comes from the registry itself, and that is said.
    let notes = Notes::default();
    let wanted = "registry.example/team/only:1".parse().unwrap();
    let image = source::resolve(&wanted, &options, &store, &notes).unwrap();
    assert_eq!(image.manifest.to_string(), only.1);
    let said = notes.0.into_inner().unwrap();
    assert!(
        said.len() == 1 && said[0].contains(&format!("trying {}/team/only:1", primary.addr)),
        "{said:?}"
    );
    // A mirror that is down, or whose layer is damaged, is passed over as well.
    let layer = &image.layers[0];
    mirror.push(only.0.path(), "one", "hub/team/only:1");
    fs::write(mirror.blob_file(&layer.digest.hex()), b"damaged").unwrap();
    store.discard(&layer.digest).unwrap();
    resolve("registry.example/team/only:1", &options, &store).unwrap();
    let addr = mirror.addr;
    drop(mirror);
    store.discard(&layer.digest).unwrap();
    resolve("registry.example/team/only:1", &options, &store).unwrap();
    // Nobody has it: all that was tried is told.
    let error = resolve("registry.example/team/none:1", &options, &store).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Nowhere { .. }), "{text}");
    assert!(text.contains(&addr.to_string()) && text.contains(&primary.addr.to_string()), "{text}");
    assert_eq!(error.class(), Class::NotFound);
    let error = resolve("bad.example/x", &options, &store).unwrap_err();
    assert!(matches!(error, Error::Blocked { .. }), "{error}");
    assert_eq!(part_count(dir.path()), 0);
    // Offline, the store knows the image by the place that had it.
    let offline = Options { offline: true, ..options };
    resolve("registry.example/team/app:1", &offline, &store).unwrap();
}

#[test]
fn a_registry_that_the_configuration_calls_insecure_needs_no_authority() {
    let certs = tempfile::tempdir().unwrap();
    let registry = Registry::start_with(certificates(certs.path()));
    let (layout, _) = layout_of(&three_layers());
    let reference = registry.push(layout.path(), "one", "tls:1");
    let insecure = |value: bool| {
        let conf = format!("[[registry]]\nlocation = \"{}\"\ninsecure = {value}\n", registry.addr);
        Options { registries: registries(certs.path(), &conf), ..options() }
    };
    let (_dir, store) = store();
    let error = resolve(&reference, &insecure(false), &store).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    resolve(&reference, &insecure(true), &store).unwrap();
}

#[test]
fn lazily_pulled_layers_are_layers() {
    // zstd:chunked is made by skopeo; eStargz is gzip in pieces with a table of contents at the end,
    // which is part of the tar stream.
    let registry = Registry::start();
    let (layout, _) = layout_of(&three_layers());
    let args = ["--dest-compress-format", "zstd:chunked"];
    let reference = registry.push_with(layout.path(), "one", "chunked:1", &args);
    let (_dir, store) = store();
    let image = resolve(&reference, &options(), &store).unwrap();
    let manifest = fs::read_to_string(store.blob_path(&image.manifest)).unwrap();
    assert!(manifest.contains("zstd-chunked.manifest-checksum"), "{manifest}");
    let build = |image: &Image| {
        let file = tempfile::tempfile().unwrap();
        let options = dock2uni::rootfs::Options::default();
        dock2uni::rootfs::build(&image.layers, &options, &file, 0, &|_| {}).unwrap().stats.files
    };
    assert_eq!(build(&image), 3);

    let content = noise(10_000, 4);
    let stargz = tar(&[("a", &content), ("stargz.index.json", b"{\"version\":1,\"entries\":[]}")]);
    let mut blob = Vec::new();
    for piece in [&stargz[..512], &stargz[512..10_752], &stargz[10_752..]] {
        blob.extend(common::layout::compress(piece, Compression::Gzip));
    }
    // The footer: an empty member whose extra field says where the table is.
    blob.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0]);
    blob.extend(format!("{:016x}STARGZ", 10_000).into_bytes());
    blob.extend([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut layout = Layout::new();
    let mut config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/a"]}});
    config["rootfs"] = json!({"type": "layers", "diff_ids": [Digest::of(&stargz).to_string()]});
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layout.blob("application/vnd.oci.image.config.v1+json", &config),
        "layers": [layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", &blob)],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let image = layout.blob("application/vnd.oci.image.manifest.v1+json", &manifest);
    layout.name(image, "lazy");
    let image = resolve(&format!("oci:{}:lazy", layout.path().display()), &options(), &store);
    // The table of contents is a file of the image, as it is for Docker.
    assert_eq!(build(&image.unwrap()), 2);
}
