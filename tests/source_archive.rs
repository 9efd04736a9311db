//! Images out of OCI layouts, OCI archives and Docker archives, packed by skopeo and by hand.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::layout::{ImageSpec, Layout, compress, noise, tar};
use common::run;
use dock2uni::source::{
    self, Class, Compression, Digest, Error, Image, Options, Quiet, Reference, Store,
};
use serde_json::json;
use tempfile::TempDir;

fn options() -> Options {
    Options { certs_dirs: Vec::new(), ..Options::default() }
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn resolve(reference: &str, store: &Store) -> Result<Image, Error> {
    source::resolve(&Reference::detect(reference)?, &options(), store, &Quiet)
}

fn spec() -> ImageSpec {
    ImageSpec {
        layers: vec![
            (tar(&[("a", &noise(700_000, 1))]), Compression::Gzip),
            (tar(&[("b", &noise(1000, 2))]), Compression::Gzip),
            (tar(&[("a", &noise(700_000, 1))]), Compression::Gzip),
        ],
        config: json!({"Cmd": ["/a"], "Env": ["A=b"]}),
        ..ImageSpec::default()
    }
}

/// Layers must be there, hash to their digests and inflate to their diff IDs.
fn check(image: &Image, spec: &ImageSpec) {
    assert_eq!(image.layers.len(), spec.layers.len());
    for (layer, (tar, _)) in image.layers.iter().zip(&spec.layers) {
        let blob = fs::read(&layer.path).unwrap();
        assert_eq!((Digest::of(&blob), blob.len() as u64), (layer.digest, layer.size));
        assert_eq!(Compression::detect(&blob), layer.compression);
        assert_eq!(layer.diff_id, Digest::of(tar));
        if layer.compression == Compression::None {
            assert_eq!(layer.digest, layer.diff_id);
        }
    }
    assert_eq!(Digest::of(&image.config_json), image.config_digest);
    let config = image.config.config().as_ref().unwrap();
    assert_eq!(config.cmd().as_ref().unwrap(), &["/a"]);
}

fn layout() -> Layout {
    let mut layout = Layout::new();
    let image = layout.image(&spec());
    layout.name(image, "one");
    layout
}

fn no_parts(dir: &Path) {
    assert_eq!(fs::read_dir(dir.join("staging")).unwrap().count(), 0);
}

fn skopeo(from: &Layout, to: &str) {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet"]);
    run(command.arg(format!("oci:{}:one", from.path().display())).arg(to));
}

/// The same file compressed.
fn packed(file: &Path, compression: Compression) -> PathBuf {
    let packed = file.with_extension(format!("{compression:?}").to_lowercase());
    fs::write(&packed, compress(&fs::read(file).unwrap(), compression)).unwrap();
    packed
}

#[test]
fn a_layout_is_read_in_place() {
    let layout = layout();
    let (dir, store) = store();
    for reference in [
        layout.path().display().to_string(),
        format!("oci:{}", layout.path().display()),
        format!("oci:{}:one", layout.path().display()),
    ] {
        let image = resolve(&reference, &store).unwrap();
        check(&image, &spec());
        assert!(image.layers.iter().all(|layer| layer.path.starts_with(layout.path())));
    }
    assert_eq!(fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn names_in_a_layout_choose_and_are_listed() {
    let mut layout = layout();
    let other = layout.image(&ImageSpec { config: json!({"Cmd": ["/other"]}), ..spec() });
    let digest = other["digest"].as_str().unwrap().to_string();
    layout.name(other, "two");
    let (_dir, store) = store();
    let at = |name: &str| format!("oci:{}{name}", layout.path().display());
    let error = resolve(&at(""), &store).unwrap_err();
    assert!(matches!(&error, Error::Ambiguous { .. }), "{error}");
    assert_eq!(error.class(), Class::Usage);
    assert!(error.hint().unwrap().contains("one, two"));
    let error = resolve(&at(":three"), &store).unwrap_err();
    assert!(matches!(&error, Error::NameUnknown { .. }), "{error}");
    assert_eq!(resolve(&at(":two"), &store).unwrap().manifest.to_string(), digest);
    assert_eq!(resolve(&at(&format!(":@{digest}")), &store).unwrap().manifest.to_string(), digest);
}

#[test]
fn unnamed_entries_of_a_layout_are_the_platforms_of_one_image() {
    let layout = Layout::new();
    let entries: Vec<_> = ["arm64", "amd64"]
        .map(|architecture| {
            layout.image(&ImageSpec { architecture: architecture.into(), ..spec() })
        })
        .into();
    let index = json!({"schemaVersion": 2, "manifests": entries});
    fs::write(layout.path().join("index.json"), index.to_string()).unwrap();
    let (_dir, store) = store();
    let image = resolve(&layout.path().display().to_string(), &store).unwrap();
    assert_eq!(image.config.architecture().to_string(), "amd64");
}

#[test]
fn damage_in_a_layout_is_found() {
    let (_dir, store) = store();
    let reference = |layout: &Layout| format!("oci:{}", layout.path().display());
    let layer = |layout: &Layout| resolve(&reference(layout), &store).unwrap().layers.remove(0);

    let flipped = layout();
    let path = layer(&flipped).path;
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = resolve(&reference(&flipped), &store).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert_eq!(error.class(), Class::Corrupt);
    fs::write(&path, &bytes[1..]).unwrap();
    let error = resolve(&reference(&flipped), &store).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    let error = resolve(&reference(&flipped), &store).unwrap_err();
    assert!(matches!(error, Error::BlobUnknown { .. }), "{error}");

    fs::write(flipped.path().join("index.json"), "{").unwrap();
    let error = resolve(&reference(&flipped), &store).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    fs::write(flipped.path().join("index.json"), vec![b' '; 5 << 20]).unwrap();
    let error = resolve(&reference(&flipped), &store).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    fs::remove_file(flipped.path().join("index.json")).unwrap();
    let error = resolve(&reference(&flipped), &store).unwrap_err();
    assert_eq!(error.class(), Class::Unsupported, "{error}");
}

#[test]
fn oci_archives_are_read_plain_and_compressed() {
    let layout = layout();
    let files = tempfile::tempdir().unwrap();
    let plain = files.path().join("image.tar");
    skopeo(&layout, &format!("oci-archive:{}:one", plain.display()));
    let want = resolve(&layout.path().display().to_string(), &store().1).unwrap();
    for file in [&plain, &packed(&plain, Compression::Gzip), &packed(&plain, Compression::Zstd)] {
        let (dir, store) = store();
        for reference in [
            file.display().to_string(),
            format!("oci-archive:{}", file.display()),
            format!("oci-archive:{}:one", file.display()),
        ] {
            let image = resolve(&reference, &store).unwrap();
            check(&image, &spec());
            assert_eq!(image.config_digest, want.config_digest);
            no_parts(dir.path());
        }
        let error = resolve(&format!("oci-archive:{}:two", file.display()), &store).unwrap_err();
        assert!(matches!(error, Error::NameUnknown { .. }), "{error}");
        let error = resolve(&format!("docker-archive:{}", file.display()), &store).unwrap_err();
        assert_eq!(error.class(), Class::Unsupported, "{error}");
    }
}

#[test]
fn docker_archives_are_read_plain_and_compressed() {
    let layout = layout();
    let files = tempfile::tempdir().unwrap();
    let plain = files.path().join("image.tar");
    skopeo(&layout, &format!("docker-archive:{}:docker.io/library/app:v1", plain.display()));
    for file in [&plain, &packed(&plain, Compression::Gzip), &packed(&plain, Compression::Zstd)] {
        let (dir, store) = store();
        for reference in [
            file.display().to_string(),
            format!("docker-archive:{}", file.display()),
            format!("docker-archive:{}:app:v1", file.display()),
        ] {
            let image = resolve(&reference, &store).unwrap();
            check(&image, &spec());
            assert!(image.layers.iter().all(|layer| layer.compression == Compression::None));
            no_parts(dir.path());
        }
        let error = resolve(&format!("docker-archive:{}:app:v2", file.display()), &store);
        assert!(matches!(error, Err(Error::NameUnknown { .. })));
    }
}

/// A Docker archive by hand; layers as (entry name, content).
fn docker_archive(file: &Path, config: &[u8], layers: &[(&str, Vec<u8>)], link: Option<&str>) {
    let names: Vec<_> = layers.iter().map(|(name, _)| *name).chain(link).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": ["app:1"], "Layers": names}]);
    let mut builder = tar::Builder::new(fs::File::create(file).unwrap());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    };
    for (name, content) in layers {
        add(name, content);
    }
    add("config.json", config);
    add("manifest.json", manifest.to_string().as_bytes());
    if let Some(link) = link {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        let target = format!("../{}", layers[0].0);
        builder.append_link(&mut header, link, target).unwrap();
    }
    builder.finish().unwrap();
}

fn config_for(tars: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/a"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    serde_json::to_vec(&config).unwrap()
}

#[test]
fn links_and_compressed_layers_of_docker_archives_are_followed() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("hand.tar");
    let (first, second) = (tar(&[("a", b"1")]), tar(&[("b", &noise(400_000, 3))]));
    let config = config_for(&[&first, &second, &first]);
    let gzip = compress(&second, Compression::Gzip);
    let layers = [("one/layer.tar", first.clone()), ("two/layer.tar", gzip)];
    docker_archive(&file, &config, &layers, Some("three/layer.tar"));
    let (dir, store) = store();
    let image = resolve(&file.display().to_string(), &store).unwrap();
    let layers = [&first, &second, &first].map(|tar| (tar.clone(), Compression::None));
    check(&image, &ImageSpec { layers: layers.into(), ..spec() });
    assert_eq!(image.layers[1].compression, Compression::Gzip);
    assert_eq!(image.layers[0].path, image.layers[2].path);
    no_parts(dir.path());
}

#[test]
fn bad_archives_give_one_clear_error_and_leave_nothing() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("bad.tar");
    let layer = tar(&[("a", &noise(500_000, 7))]);
    let other = tar(&[("a", &noise(500_000, 8))]);
    let reference = file.display().to_string();
    let (dir, store) = store();
    let fails = |class: Class, text: &str| {
        let error = resolve(&reference, &store).unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        no_parts(dir.path());
        assert_eq!(fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
    };

    docker_archive(&file, &config_for(&[&other]), &[("l/layer.tar", layer.clone())], None);
    fails(Class::Corrupt, "corrupt");
    docker_archive(&file, &config_for(&[&layer, &layer]), &[("l.tar", layer.clone())], None);
    fails(Class::Corrupt, "2 diff IDs for 1 layers");
    docker_archive(&file, &config_for(&[&layer]), &[("l/layer.tar", layer.clone())], None);
    let good = fs::read(&file).unwrap();
    fs::write(&file, &good[..300_000]).unwrap();
    fails(Class::Corrupt, "truncated");
    let gzip = compress(&good, Compression::Gzip);
    fs::write(&file, &gzip[..gzip.len() / 2]).unwrap();
    fails(Class::Corrupt, "truncated");
    fs::write(&file, noise(100_000, 1)).unwrap();
    fails(Class::Unsupported, "not a tar file");
    fs::write(&file, tar(&[("etc/passwd", b"root")])).unwrap();
    fails(Class::Unsupported, "neither an OCI nor a Docker archive");
    fs::write(&file, b"BZh91AY&SY").unwrap();
    fails(Class::Unsupported, "bunzip2");
    fs::write(&file, b"").unwrap();
    fails(Class::Corrupt, "empty");
    let error = resolve("oci-archive:/no/such/file", &store).unwrap_err();
    assert!(matches!(error, Error::PathNotFound { .. }), "{error}");
}
