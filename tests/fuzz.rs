//! The fuzz targets on stable Rust, for a moment: sound inputs, and the same damaged in ways that are
//! always the same ones. `tests/fuzz` has the long runs.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use common::layout::{ImageSpec, Layout, compress, noise, tar};
use common::{run, stargz, webhooks};
use dock2uni::config::Overrides;
use dock2uni::convert::{self, DiskOptions, Output, RootOptions};
use dock2uni::disk::Format;
use dock2uni::fuzz::TARGETS;
use dock2uni::service::webhook::Kind;
use dock2uni::source::{self, Compression, Options, Quiet, Reference, Store};
use serde_json::json;

/// Damaged inputs for each sound one.
const ROUNDS: u64 = 40;

/// Sound inputs by target.
fn seeds() -> HashMap<&'static str, Vec<Vec<u8>>> {
    let mut seeds: HashMap<&'static str, Vec<Vec<u8>>> = HashMap::new();
    let mut add =
        |target: &'static str, bytes: Vec<u8>| seeds.entry(target).or_default().push(bytes);
    for text in ["nginx", "r.io:5000/a/b:c", "oci:dir:v1", "docker-archive:x.tar@1", "podman:a/b:c"]
    {
        add("reference", text.into());
    }
    let digest = format!("sha256:{}", "0a".repeat(32));
    add("reference", format!("r.io/a:t@{digest}").into_bytes());

    // The headers of an ELF program, and more than a block behind them.
    let mut program = noise(5000, 1);
    program[..64].fill(0);
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (program[16], program[18], program[20], program[32], program[54]) = (2, 62, 1, 64, 56);
    let spec = ImageSpec {
        layers: vec![
            (tar(&[("usr/bin/a", b"#!/bin/sh\nexec /b\n"), ("b", &program)]), Compression::Gzip),
            (tar(&[("usr/.wh.bin", b""), ("c", b"c")]), Compression::None),
        ],
        config: json!({
            "Cmd": ["/b"], "Env": ["A=b"], "User": "0:0", "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/v": {}}, "StopSignal": "SIGTERM",
            "Healthcheck": {"Test": ["CMD", "/b"], "Interval": 1_000_000_000},
        }),
        ..ImageSpec::default()
    };
    let lazy = stargz::stargz(&[("a", b"a"), ("b", &noise(250_000, 2))], |_| {});
    add("manifest", lazy.table.to_string().into_bytes());
    let mut layout = Layout::new();
    let image = layout.image(&spec);
    let index = layout.index(std::slice::from_ref(&image));
    for descriptor in [&image, &index] {
        add(
            "manifest",
            fs::read(layout.blob_path(descriptor["digest"].as_str().unwrap())).unwrap(),
        );
    }
    let manifest: serde_json::Value = serde_json::from_slice(
        &fs::read(layout.blob_path(image["digest"].as_str().unwrap())).unwrap(),
    )
    .unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    add("manifest", fs::read(layout.blob_path(config)).unwrap());
    layout.name(image, "one");

    add(
        "registries",
        b"unqualified-search-registries = [\"r.io\"]\nshort-name-mode = \"enforcing\"\n\
          [[registry]]\nprefix = \"*.example.com\"\nlocation = \"m.io/x\"\nblocked = false\n\
          [[registry.mirror]]\nlocation = \"n.io\"\ninsecure = true\n[aliases]\na = \"b.io/a\"\n"
            .to_vec(),
    );
    let tar = &spec.layers[0].0;
    for (kind, compression) in
        [(0, Compression::None), (1, Compression::Gzip), (2, Compression::Zstd)]
    {
        add("layer", [vec![kind], compress(tar, compression)].concat());
    }
    let desk = tempfile::tempdir().unwrap();
    let archive = desk.path().join("oci.tar");
    run(Command::new("tar").arg("-C").arg(layout.path()).arg("-cf").arg(&archive).arg("."));
    add("archive", fs::read(&archive).unwrap());
    let docker =
        json!([{"Config": "c.json", "RepoTags": ["a:b"], "Layers": ["l.tar"]}]).to_string();
    let config = fs::read(layout.blob_path(config)).unwrap();
    let docker = common::layout::tar(&[
        ("manifest.json", docker.as_bytes()),
        ("c.json", &config),
        ("l.tar", tar),
    ]);
    add("archive", docker);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let gunzip = |name: &str| {
        let mut bytes = Vec::new();
        let file = fs::File::open(fixtures.join(name)).unwrap();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        bytes
    };
    let mut containerd =
        tar::Archive::new(std::io::Cursor::new(gunzip("containerd-1.6.20.tar.gz")));
    for entry in containerd.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("meta.db") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            add("containerd", bytes);
        }
    }
    for name in ["rpmdb.sqlite.gz", "rpm-Packages.db.gz", "rpm-Packages.gz"] {
        add("packages", gunzip(name));
    }
    add(
        "packages",
        b"Package: a\nStatus: install ok installed\nVersion: 1\nDepends: b (>= 1) | c\n\n\
                      P:musl\nV:1\np:so:libc=1\nD:x\nF:lib\nR:ld.so\n"
            .to_vec(),
    );
    let busybox = fs::read("/bin/true").unwrap();
    add("elf", busybox.clone());
    add("program", busybox);
    add(
        "program",
        b"#!/bin/sh\nset -e\nif [ \"$1\" = a ]; then exec env B=c /x \"$@\"; fi\n\
          for f in /a/*.sh; do case \"$f\" in *.sh) . \"$f\";; esac; done\nexec \"$@\"\n"
            .to_vec(),
    );
    add(
        "dockerfile",
        b"# syntax=docker/dockerfile:1\nARG V=1\nFROM scratch AS a\nCOPY <<EOF /x\nhi $V\nEOF\n\
          FROM a\nENV A=${V:-b} C=d\nRUN --mount=type=cache,target=/c [\"/x\", \"y\"]\nHEALTHCHECK \
          --interval=1s CMD x\nCOPY --from=a --chmod=755 /x /y\nONBUILD RUN z\nCMD [\"/y\"]\n"
            .to_vec(),
    );

    for (kind, headers, body, _) in webhooks::samples() {
        let kind: Kind = serde_json::from_value(json!(kind)).unwrap();
        let kind = Kind::ALL.iter().position(|known| *known == kind).unwrap();
        // Which headers there are follows from the first byte as well.
        let form = match headers.first() {
            Some((_, "package")) => 0,
            Some((_, "zotregistry.image.updated")) => 2,
            _ => 9,
        };
        let first = u8::try_from(kind + form * Kind::ALL.len()).unwrap();
        add("webhook", [vec![first], body.to_string().into_bytes()].concat());
    }
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJhIn0.AAAA";
    let keys = r#"{"keys":[{"kid":"a","kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
    for (kind, line, body) in [
        (0, "Bearer s3cret", ""),
        (1, "Basic dXNlcjpzM2NyZXQ=", ""),
        (2, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", "{}"),
        (3, "msg_1|1700000000|v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "{}"),
        (4, "s3cret", ""),
        (5, &format!("Bearer {token}"), keys),
        (0, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", ""),
    ] {
        add("proof", [&[kind], line.as_bytes(), b"\n", body.as_bytes()].concat());
    }

    // A root, and disks of every format that is read.
    let store = Store::open(desk.path().join("store")).unwrap();
    let reference = Reference::OciLayout { path: layout.path().into(), name: Some("one".into()) };
    let image = source::resolve(&reference, &Options::default(), &store, &Quiet).unwrap();
    let root = desk.path().join("root");
    convert::root_image(&image, &RootOptions::default(), &root, &|_| {}).unwrap();
    add("erofs", fs::read(&root).unwrap());
    if dock2uni::guest::kernel().is_ok() {
        let outputs: Vec<Output> = [
            Format::Raw,
            Format::Qcow2,
            Format::Vmdk,
            Format::VhdDynamic,
            Format::Vhdx,
            Format::Vdi,
            Format::Gce,
            Format::Ova,
        ]
        .into_iter()
        .map(|format| Output { format, path: desk.path().join(format.name()) })
        .collect();
        let options = DiskOptions::default();
        let overrides = Overrides { command: vec!["/b".into()], ..Overrides::default() };
        convert::disk_images(&image, &overrides, &outputs, &options, &|_| {}).unwrap();
        for output in outputs {
            add("disk", fs::read(output.path).unwrap());
        }
    }
    seeds
}

/// The input with some bytes changed, taken out, or doubled; mostly near its start, where headers are.
fn damaged(seed: &[u8], round: u64) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    let random = noise(8 * 64, round + 1);
    let mut numbers = random.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().unwrap()));
    let mut next = |below: usize| (numbers.next().unwrap_or(7) % below.max(1) as u64) as usize;
    for _ in 0..1 + round % 6 {
        let reach = bytes.len().min(64 << next(16));
        let at = next(reach);
        match next(5) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] ^= 1 << next(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'/', b'\n'][next(7)],
            2 => bytes.truncate(at + next(1 + bytes.len() - at)),
            3 => {
                let end = (at + next(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + 1 + next(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// Runs all targets, or one, on so many damaged inputs for each sound one.
fn damage(only: Option<&str>, first: u64, rounds: u64) {
    let seeds = seeds();
    for &(name, target) in TARGETS {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        target(b"");
        for (number, seed) in seeds.get(name).into_iter().flatten().enumerate() {
            target(seed);
            // Each round of these takes as long as many of the others.
            let rounds = if matches!(name, "disk" | "program") { rounds / 8 } else { rounds };
            for round in first..first + rounds {
                let round = round * 1000 + number as u64;
                let input = damaged(seed, round);
                let outcome = std::panic::catch_unwind(|| target(&input));
                assert!(outcome.is_ok(), "{name}: seed {number}, round {round}");
            }
        }
    }
    assert!(TARGETS.iter().all(|(name, _)| *name == "disk" || seeds.contains_key(name)));
}

#[test]
fn no_target_minds_damage() {
    damage(None, 0, ROUNDS);
}

/// `FUZZ="layer 1000 5000" cargo test --test fuzz -- --ignored longer`: target, first round, rounds.
#[test]
#[ignore = "takes as long as it is told to"]
fn longer() {
    let words = std::env::var("FUZZ").unwrap_or_default();
    let words: Vec<&str> = words.split_whitespace().collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
    let only = words.first().copied().filter(|name| *name != "all");
    damage(only, number(1).unwrap_or(ROUNDS), number(2).unwrap_or(10 * ROUNDS));
}

#[test]
#[ignore = "writes what cargo-fuzz starts from"]
fn seeds_for_cargo_fuzz() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, inputs) in seeds() {
        fs::create_dir_all(corpus.join(name)).unwrap();
        for (number, input) in inputs.iter().enumerate() {
            fs::write(corpus.join(name).join(format!("seed-{number}")), input).unwrap();
        }
    }
}
