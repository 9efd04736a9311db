//! `inspect` of images in a registry whose layers list their files: what is not looked at stays there.

mod common;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::Output;

use common::layout::{ImageSpec, Layout, borrowed, noise, programs, tar};
use common::registry::Registry;
use common::stargz::{Stargz, stargz};
use common::vm::dock2uni;
use dock2uni::config::Overrides;
use dock2uni::plan::Verdict;
use dock2uni::plan::remote::{self, Remote, RemoteError};
use dock2uni::rootfs::Limits;
use dock2uni::source::image::{Compression, Digest};
use dock2uni::source::{Error, Options, Quiet, Store};
use serde_json::{Value, json};

/// What weighs in the image and nobody looks at.
const BALLAST: usize = 3_000_000;

fn report(reference: &str, store: &Store) -> Result<Option<Remote>, RemoteError> {
    let options = Options { retries: 0, ..Options::default() };
    let reference = reference.parse().unwrap();
    remote::report(&reference, &Overrides::default(), Limits::DEFAULT, &options, store, &Quiet)
}

/// `inspect --json`: the exit status, the report, and what was said beside it.
fn inspect(reference: &str, store: &Store) -> (i32, Value, String) {
    let Output { status, stdout, stderr } = dock2uni()
        .args(["inspect", "--json", reference])
        .env("DOCK2UNI_STORE", store.root())
        .output()
        .unwrap();
    let report = serde_json::from_slice(&stdout).unwrap_or_default();
    (status.code().unwrap(), report, String::from_utf8(stderr).unwrap())
}

fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("ballast/a".to_owned(), noise(BALLAST, 1))];
    files.extend(programs(&["/bin/bash"]));
    files.push(("app.sh".into(), b"#!/bin/bash\nexec /bin/bash -c 'echo hello'\n".to_vec()));
    files.push(("empty".into(), Vec::new()));
    files.push(("ballast/b".into(), noise(BALLAST, 2)));
    files
}

/// An image of a layer in eStargz below an ordinary one.
fn layout(layer: &Stargz) -> Layout {
    let mut layout = Layout::new();
    let small = tar(&[("etc/passwd", b"root:x:0:0::/:/bin/bash\n")]);
    let upper = common::layout::compress(&small, Compression::Gzip);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/app.sh"]},
        "rootfs": {"type": "layers",
                   "diff_ids": [layer.diff_id.to_string(), Digest::of(&small).to_string()]},
    });
    let gzip = common::layout::layer_media_type(Compression::Gzip);
    let mut lower = layout.blob(gzip, &layer.blob);
    lower["annotations"]["containerd.io/snapshot/stargz/toc.digest"] = json!(layer.toc.to_string());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layout.blob("application/vnd.oci.image.config.v1+json",
                              config.to_string().as_bytes()),
        "layers": [lower, layout.blob(gzip, &upper)],
    });
    let manifest =
        layout.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    layout.name(manifest, "one");
    layout
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// Changes a byte of a blob in the registry.
fn damage(registry: &Registry, blob: &[u8], at: u64) {
    let path = registry.blob_file(&Digest::of(blob).hex());
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
}

#[test]
fn of_estargz_only_what_is_looked_at_is_fetched_and_all_of_that_is_checked() {
    let files = files();
    let layer = stargz(&borrowed(&files), |_| {});
    let registry = Registry::start();
    let reference = registry.push(layout(&layer).path(), "one", "lazy:one");
    // Whoever read the ballast would see that it is not what it was.
    let entries = layer.table["entries"].as_array().unwrap();
    let at = |name: &str| {
        let entry = entries.iter().find(|entry| entry["name"] == name).unwrap();
        entry["offset"].as_u64().unwrap()
    };
    damage(&registry, &layer.blob, at("ballast/a") + 5000);
    damage(&registry, &layer.blob, at("ballast/b") + 2_000_000);
    let (_dir, store) = store();
    let found = report(&reference, &store).unwrap().expect("a layer that stays where it is");
    assert_eq!(found.of, layer.blob.len() as u64);
    let needed = found.of - 2 * BALLAST as u64;
    assert!(found.read < needed + 800_000, "{} of {}", found.read, found.of);
    assert_eq!(found.report.verdict, Verdict::Runs, "{:?}", found.report.findings);
    // The ordinary layer is in the store, the other isn't.
    let there = |layer: usize| {
        let layer = &found.image.layers[layer];
        store.get(&layer.digest, layer.size).is_some()
    };
    assert!(!there(0) && there(1));

    let (code, lazy, said) = inspect(&reference, &store);
    assert_eq!(code, 0, "{said}");
    assert!(!there(0));
    // The whole image, read in the ordinary way, gets the same report.
    let (_whole, whole) = self::store();
    let mut spec = layout(&layer);
    let plain = tar(&borrowed(&files));
    let image = spec.image(&ImageSpec {
        layers: vec![
            (plain, Compression::Gzip),
            (tar(&[("etc/passwd", b"root:x:0:0::/:/bin/bash\n")]), Compression::Gzip),
        ],
        config: json!({"Cmd": ["/app.sh"]}),
        ..ImageSpec::default()
    });
    spec.name(image, "plain");
    let other = registry.push(spec.path(), "plain", "lazy:plain");
    let (code, full, said) = inspect(&other, &whole);
    assert_eq!(code, 0, "{said}");
    for part in ["runs", "programs", "scripts", "objects", "syscalls", "needs", "verdict"] {
        assert!(lazy[part] == full[part] && !full[part].is_null(), "{part}: {}", lazy[part]);
    }

    // What is looked at must be what the table says; the converter believes neither.
    damage(&registry, &layer.blob, at("bin/bash") + 3000);
    match report(&reference, &store) {
        Err(RemoteError::Source(Error::Malformed { what, .. })) => assert!(what.contains("layer")),
        other => panic!("{other:?}"),
    }
    let (code, _, said) = inspect(&reference, &store);
    assert!(code != 0 && said.contains("table of contents"), "{code} {said}");
}

#[test]
fn tables_that_nobody_vouches_for_are_not_believed() {
    let files = files();
    let registry = Registry::start();
    let good = stargz(&borrowed(&files), |_| {});
    let mut other = stargz(&borrowed(&files), |_| {});
    other.toc = Digest::of(b"another");
    let gap = stargz(&borrowed(&files), |table| table["entries"][1]["chunkOffset"] = json!(1));
    for (name, layer) in [("digest", other), ("gap", gap)] {
        let reference = registry.push(layout(&layer).path(), "one", &format!("{name}:one"));
        let (_dir, store) = store();
        assert!(report(&reference, &store).unwrap().is_none(), "{name}");
        // The whole layer is read then, and kept.
        let (code, _, said) = inspect(&reference, &store);
        assert_eq!(code, 0, "{name}: {said}");
        let digest = Digest::of(&layer.blob);
        assert!(store.get(&digest, layer.blob.len() as u64).is_some(), "{name}");
    }
    // A layer that is in the store is not fetched again, not even in parts.
    let reference = registry.push(layout(&good).path(), "one", "good:one");
    let (_dir, store) = store();
    dock2uni::source::resolve(&reference.parse().unwrap(), &Options::default(), &store, &Quiet)
        .unwrap();
    assert!(report(&reference, &store).unwrap().is_none());
}

#[test]
fn zstd_chunked_is_read_in_parts() {
    let mut layout = Layout::new();
    let image = layout.image(&ImageSpec {
        layers: vec![(tar(&borrowed(&files())), Compression::None)],
        config: json!({"Cmd": ["/app.sh"]}),
        ..ImageSpec::default()
    });
    layout.name(image, "one");
    let registry = Registry::start();
    let compress = ["--dest-compress-format", "zstd:chunked"];
    let reference = registry.push_with(layout.path(), "one", "chunked:one", &compress);
    let (_dir, store) = store();
    let found = report(&reference, &store).unwrap().expect("a layer that stays where it is");
    assert_eq!(found.report.verdict, Verdict::Runs, "{:?}", found.report.findings);
    let needed = found.of - 2 * BALLAST as u64;
    assert!(found.read < needed + 800_000, "{} of {}", found.read, found.of);
    assert!(found.report.scripts.iter().any(|path| path == "/app.sh"));
}
