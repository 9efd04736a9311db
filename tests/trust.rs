//! What is vouched for, and what is not taken: hash trees, signatures, provenance, SBOMs.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::layout::{ImageSpec, Layout, borrowed, noise, programs, tar};
use common::registry::Registry;
use common::sigstore::{
    self, IDENTITY, ISSUER, Sigstore, Storage, by_key, payload, store_bundle, store_signatures,
};
use common::vm::{Vm, can_boot, dock2uni};
use dock2uni::browse::Image;
use dock2uni::disk::Disk;
use dock2uni::source::image::Compression;
use rcgen::KeyPair;
use serde_json::{Value, json};

use common::lab::PATIENCE;

/// A directory with a layout and a store.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = dock2uni();
        command
            .args(args)
            .current_dir(self.path())
            .env("DOCK2UNI_STORE", self.path().join("store"))
            .env_remove("DOCK2UNI_CONFIG")
            .env("XDG_CONFIG_HOME", self.path().join("no-config"));
        command
    }

    /// Exit status, standard output, standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = common::output(&mut self.command(args));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// An image with a shell, and a file of noise to damage.
fn shell_image() -> (Layout, Vec<u8>) {
    let data = noise(40 * 4096, 9);
    (image_with(&data), data)
}

fn image_with(data: &[u8]) -> Layout {
    let mut layout = Layout::new();
    let mut files = programs(&["busybox"]);
    files.push(("data".into(), data.to_vec()));
    let layer = tar(&borrowed(&files));
    let image = layout.image(&ImageSpec {
        layers: vec![(layer, Compression::Gzip)],
        config: json!({"Entrypoint": ["/bin/busybox"], "Cmd": ["true"]}),
        ..ImageSpec::default()
    });
    layout.name(image, "latest");
    layout
}

#[test]
fn a_damaged_block_is_an_error_for_who_reads_it_and_is_told() {
    if !can_boot() {
        return;
    }
    let desk = Desk::new();
    let (layout, data) = shell_image();
    let layout = layout.path().to_str().unwrap();
    // One block is read alone, one ahead of another, one through a mapping.
    let script = "dd if=/data of=/dev/null bs=4096 count=1 2>&1; \
                  dd if=/data of=/dev/null bs=4096 skip=30 count=1 2>&1; \
                  cat /data >/dev/null; echo cat $?; \
                  md5sum /bin/busybox >/dev/null && echo others are good";
    let convert =
        ["convert", layout, "-q", "--check-root", "-o", "good.img", "--", "sh", "-c", script];
    assert_eq!(desk.run(&convert), (0, String::new(), String::new()));
    let (code, out, _) = desk.run(&["image", "verify", "good.img"]);
    assert!(code == 0 && out.contains("hashes   ok") && out.contains("root hash"), "{out}");

    let good = fs::read(desk.path().join("good.img")).unwrap();
    let at = good.windows(64).position(|bytes| bytes == &data[..64]).unwrap();
    let mut bad = good.clone();
    for block in [0, 17] {
        bad[at + block * 4096 + 100] ^= 0x10;
    }
    fs::write(desk.path().join("bad.img"), &bad).unwrap();
    let (code, out, _) = desk.run(&["image", "verify", "bad.img"]);
    let line = out.lines().find(|line| line.starts_with("hashes")).unwrap();
    assert!(code == 6 && line.contains("WRONG") && line.contains("2 of "), "{out}");

    // In place on the disk; in memory, loaded by the boot code; and by QEMU.
    for boot in ["disk", "direct", "ram"] {
        let run = ["run", "--accel", "tcg", "bad.img", "--boot", boot];
        let mut vm = Vm::start(&mut desk.command(&run));
        assert_eq!(vm.wait(PATIENCE), 0, "{boot}: {}", vm.text());
        let text = vm.text();
        assert_eq!(text.matches("dd: /data: Input/output error").count(), 1, "{boot}: {text}");
        assert!(text.contains("1+0 records in"), "{boot}: {text}");
        assert!(
            text.contains("cat: read error: Input/output error\ncat 1\nothers are good"),
            "{boot}: {text}"
        );
        let told = "the root filesystem is damaged: block ";
        assert!(text.contains(told), "{boot}: {text}");
    }
    // What is damaged before anything can run keeps the machine from starting.
    let disk = Disk::open(&desk.path().join("good.img")).unwrap();
    let root = disk.extent(dock2uni::disk::Part::Root).start as usize;
    let mut bad = good;
    // Of the block with the superblock, the part that its own checksum leaves out.
    bad[root + 100] ^= 1;
    fs::write(desk.path().join("bad.img"), &bad).unwrap();
    let mut vm = Vm::start(&mut desk.command(&["run", "--accel", "tcg", "bad.img"]));
    assert_eq!(vm.wait(PATIENCE), 126, "{}", vm.text());
    assert!(vm.text().contains("damaged: block 0 "), "{}", vm.text());
    assert!(Image::open(&desk.path().join("bad.img")).is_ok());
}

#[test]
fn a_compressed_root_is_used_and_its_damage_is_an_error() {
    if !can_boot() {
        return;
    }
    let desk = Desk::new();
    // Numbered lines: two extents and more.
    let data: String = (0..60_000).map(|n| format!("line {n} of many\n")).collect();
    let layout = image_with(data.as_bytes());
    let layout = layout.path().to_str().unwrap();
    let script = "md5sum </data; dd if=/data bs=1000 skip=700 count=1 2>/dev/null | md5sum; \
                  cat /data >/dev/null || echo cat failed; \
                  cp /data /copy && echo more >>/data && cmp /data /copy; \
                  md5sum /bin/busybox >/dev/null && echo others are good";
    for (name, more) in [("plain.img", &[][..]), ("good.img", &["--compress", "lz4"])] {
        let words = ["convert", layout, "-q", "-o", name, "--", "sh", "-c", script];
        let (code, _, err) = desk.run(&[&words[..3], more, &words[3..]].concat());
        assert_eq!(code, 0, "{err}");
    }
    let blocks = |name: &str| {
        Disk::open(&desk.path().join(name)).unwrap().extent(dock2uni::disk::Part::Root).len
    };
    let (before, after) = (blocks("plain.img"), blocks("good.img"));
    assert!(after * 10 < before * 6, "{before} bytes, compressed {after}");
    assert_eq!(desk.run(&["image", "diff", "plain.img", "good.img"]).1, "");
    let (code, out, _) = desk.run(&["image", "cat", "good.img", "/data"]);
    assert!(code == 0 && out == data);

    let runs = |image: &str, boot: &str| {
        let run = ["run", "--accel", "tcg", image, "--boot", boot];
        let mut vm = Vm::start(&mut desk.command(&run));
        assert_eq!(vm.wait(PATIENCE), 0, "{boot}: {}", vm.text());
        vm.text()
    };
    let expected = runs("plain.img", "direct");
    assert!(expected.contains("cmp: EOF on /copy") && !expected.contains("failed"), "{expected}");
    for boot in ["disk", "ram"] {
        assert_eq!(runs("good.img", boot), expected, "{boot}");
    }

    // The first extent, beyond its first literals.
    let mut bad = fs::read(desk.path().join("good.img")).unwrap();
    let at = bad.windows(14).position(|bytes| bytes == &data.as_bytes()[..14]).unwrap();
    bad[at + 100..at + 1500].fill(0xff);
    fs::write(desk.path().join("bad.img"), &bad).unwrap();
    for boot in ["direct", "ram"] {
        let text = runs("bad.img", boot);
        assert!(text.contains("cat: read error: Input/output error\ncat failed"), "{boot}: {text}");
        // Behind it all is well.
        let line = expected.lines().nth(1).unwrap();
        assert!(text.contains(line) && text.contains("others are good"), "{boot}: {text}");
    }
}

/// An image in a registry, with its repository and digest.
struct Published {
    registry: Registry,
    repository: String,
    digest: String,
}

impl Published {
    fn new(name: &str) -> Published {
        let mut layout = Layout::new();
        let elf = fs::read(dock2uni().get_program()).unwrap()[..4096].to_vec();
        let layers = vec![(tar(&[("hello", &elf)]), Compression::Gzip)];
        let image = layout.image(&ImageSpec { layers, ..ImageSpec::default() });
        let digest = image["digest"].as_str().unwrap().to_owned();
        layout.name(image, "latest");
        let registry = Registry::start();
        registry.push(layout.path(), "latest", &format!("{name}:1"));
        let repository = registry.reference(name);
        Published { registry, repository, digest }
    }
}

#[test]
fn images_are_used_if_the_right_key_has_signed_them_and_not_otherwise() {
    let desk = Desk::new();
    let image = Published::new("team/app");
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    fs::write(desk.path().join("cosign.pub"), key.public_key_pem()).unwrap();
    fs::write(desk.path().join("key.pem"), key.serialize_pem()).unwrap();
    let reference = format!("{}:1", image.repository);
    let inspect = || desk.run(&["inspect", &reference, "--json", "--verify-key", "cosign.pub"]);

    let (code, _, err) = inspect();
    assert_eq!(code, 13, "{err}");
    assert!(err.contains("is not signed\nhint: sign it by `cosign sign --key"), "{err}");
    // Nothing but the manifest has been fetched.
    let blobs = fs::read_dir(desk.path().join("store/blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 1);

    let good = || by_key(&key, payload(&image.digest));
    for how in [Storage::Tag, Storage::Referrer] {
        // Others may have signed as well.
        let signatures = [by_key(&other, payload(&image.digest)), good()];
        store_signatures(&image.repository, &image.digest, &signatures, how);
        let (code, out, err) = inspect();
        // The program is no real one; that it was looked at is what counts.
        assert!(code == 7 && err.is_empty(), "{how:?}: {code} {out} {err}");
        // In place of both, ones that say nothing.
        let elsewhere = format!("sha256:{}", "1".repeat(64));
        let mut forged = good();
        forged.payload = payload(&elsewhere);
        let wrong = [
            (by_key(&other, payload(&image.digest)), "it was not made with the key"),
            (by_key(&key, payload(&elsewhere)), "it is about another image"),
            (forged, "it is about another image"),
            (by_key(&key, b"{\"critical\": 3}".to_vec()), "its payload cannot be read"),
        ];
        for (signed, reason) in wrong {
            for how in [Storage::Tag, Storage::Referrer] {
                let mut twin = by_key(&other, payload(&image.digest));
                twin.payload = signed.payload.clone();
                twin.annotations = signed.annotations.clone();
                store_signatures(&image.repository, &image.digest, &[twin], how);
            }
            let (code, _, err) = inspect();
            assert_eq!(code, 13, "{reason}: {err}");
            assert!(err.contains(reason), "{reason}: {err}");
        }
    }

    // What was signed is what is used, even if the tag moves on meanwhile.
    store_signatures(&image.repository, &image.digest, &[good()], Storage::Tag);
    let pinned = format!("{}@{}", image.repository, image.digest);
    let (code, _, err) = desk.run(&["inspect", &pinned, "-q", "--verify-key", "cosign.pub"]);
    assert_eq!((code, err.as_str()), (7, ""));
    // Mistakes are named.
    let (code, _, err) = desk.run(&["inspect", &pinned, "--verify-key", "key.pem"]);
    assert!(code == 2 && err.contains("it is a `PRIVATE KEY`, not a `PUBLIC KEY`"), "{err}");
    let layout = Layout::new();
    let local = format!("oci:{}", layout.path().display());
    let (code, _, err) = desk.run(&["inspect", &local, "--verify-key", "cosign.pub"]);
    assert!(code == 13 && err.contains("is in no registry"), "{err}");
    drop(image.registry);
}

#[test]
fn identities_count_as_far_as_the_trust_root_vouches_for_them() {
    let desk = Desk::new();
    let image = Published::new("app");
    let sigstore = Sigstore::new();
    let trust = |name: &str, root: &Value| {
        fs::write(desk.path().join(name), root.to_string()).unwrap();
    };
    trust("root.json", &sigstore.trust_root());
    let reference = format!("{}:1", image.repository);
    let check = |identity: &str, issuer: &str, root: &str| {
        let (code, _, err) = desk.run(&[
            "inspect",
            &reference,
            "-q",
            "--certificate-identity",
            identity,
            "--certificate-oidc-issuer",
            issuer,
            "--trust-root",
            root,
        ]);
        (code, err)
    };
    let refused = |result: (i32, String), reason: &str| {
        assert!(result.0 == 13 && result.1.contains(reason), "{reason}: {result:?}");
    };
    let put = |signed: sigstore::Signed| {
        store_signatures(&image.repository, &image.digest, &[signed], Storage::Tag);
    };
    let signed = || sigstore.by_identity(payload(&image.digest), true);
    put(signed());
    assert_eq!(check(IDENTITY, ISSUER, "root.json"), (7, String::new()));
    refused(check("someone@example.org", ISSUER, "root.json"), "it was made by `https://build");
    refused(check(IDENTITY, "https://other.example", "root.json"), "vouches for");
    // Another authority, another log of either kind, and none in use at that time.
    let strangers = Sigstore::new().trust_root();
    for (part, reason) in [
        ("certificateAuthorities", "its certificate is not trusted"),
        ("tlogs", "a transparency log that the trust root does not name"),
        ("ctlogs", "no certificate log of the trust root"),
    ] {
        let mut root = sigstore.trust_root();
        root[part] = strangers[part].clone();
        trust("other.json", &root);
        refused(check(IDENTITY, ISSUER, "other.json"), reason);
    }
    let mut root = sigstore.trust_root();
    root["certificateAuthorities"][0]["validFor"]["end"] = "2026-01-01T00:00:00Z".into();
    trust("other.json", &root);
    refused(check(IDENTITY, ISSUER, "other.json"), "names no authority for that time");

    put(sigstore.by_identity(payload(&image.digest), false));
    refused(check(IDENTITY, ISSUER, "root.json"), "no certificate log");
    // An entry of another time, and one about another signature.
    let altered = |change: &dyn Fn(&mut Value)| {
        let mut signed = signed();
        let bundle = &mut signed.annotations["dev.sigstore.cosign/bundle"];
        let mut value: Value = serde_json::from_str(bundle.as_str().unwrap()).unwrap();
        change(&mut value);
        *bundle = value.to_string().into();
        signed
    };
    put(altered(&|bundle| bundle["Payload"]["integratedTime"] = 1_790_000_000u64.into()));
    refused(check(IDENTITY, ISSUER, "root.json"), "promise is not the log's");
    let elsewhere = sigstore.by_identity(payload(&image.digest), true).annotations;
    let entry: Value = elsewhere["dev.sigstore.cosign/bundle"].clone();
    let mut mixed = signed();
    mixed.annotations["dev.sigstore.cosign/bundle"] = entry;
    put(mixed);
    refused(check(IDENTITY, ISSUER, "root.json"), "about another signature");
    let mut unlogged = signed();
    unlogged.annotations["dev.sigstore.cosign/bundle"] = "".into();
    put(unlogged);
    refused(check(IDENTITY, ISSUER, "root.json"), "it is in no transparency log");
    let key = KeyPair::generate().unwrap();
    put(by_key(&key, payload(&image.digest)));
    refused(check(IDENTITY, ISSUER, "root.json"), "made with a key, not by an identity");

    // A key may be asked to have its signatures logged, too.
    fs::write(desk.path().join("cosign.pub"), key.public_key_pem()).unwrap();
    let by_key_and_log =
        ["inspect", &reference, "-q", "--verify-key", "cosign.pub", "--trust-root", "root.json"];
    let (code, _, err) = desk.run(&by_key_and_log);
    refused((code, err), "it is in no transparency log");
    put(sigstore.by_logged_key(&key, payload(&image.digest)));
    assert_eq!(desk.run(&by_key_and_log).0, 7);

    // Bundles: a signature counts, other attestations don't.
    put(by_key(&key, payload(&image.digest)));
    let signed = "https://sigstore.dev/cosign/sign/v1";
    store_bundle(&image.repository, &image.digest, &sigstore.bundle(&image.digest, signed));
    assert_eq!(check(IDENTITY, ISSUER, "root.json"), (7, String::new()));
    let other = sigstore.bundle(&image.digest, "https://slsa.dev/provenance/v1");
    store_bundle(&image.repository, &image.digest, &other);
    refused(check(IDENTITY, ISSUER, "root.json"), "it is an attestation of");
    let mut forged = sigstore.bundle(&image.digest, signed);
    let text = sigstore::b64(b"{}");
    forged["dsseEnvelope"]["payload"] = text.into();
    store_bundle(&image.repository, &image.digest, &forged);
    refused(check(IDENTITY, ISSUER, "root.json"), "its statement cannot be read");
}

/// An ELF file with one section that carries something.
fn elf(section: &str, contents: &[u8]) -> Vec<u8> {
    let names = format!("\0{section}\0.shstrtab\0").into_bytes();
    let names_at = 64 + contents.len();
    let table_at = (names_at + names.len()).next_multiple_of(8);
    let mut file = vec![0; 64];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16..20].copy_from_slice(&[2, 0, 62, 0]);
    file[40..48].copy_from_slice(&(table_at as u64).to_le_bytes());
    file[58..64].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
    file.extend_from_slice(contents);
    file.extend_from_slice(&names);
    file.resize(table_at + 64, 0);
    for (name, at, len) in [(1, 64, contents.len()), (section.len() + 2, names_at, names.len())] {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&(name as u32).to_le_bytes());
        header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(len as u64).to_le_bytes());
        file.extend_from_slice(&header);
    }
    file
}

/// What the Go compiler leaves in a program.
fn go_program() -> Vec<u8> {
    let modules = "path\texample.org/app\nmod\texample.org/app\t(devel)\t\n\
                   dep\tgithub.com/gorilla/mux\tv1.8.0\th1:x=\n\
                   dep\texample.org/old\tv0.1.0\n=>\texample.org/new\tv0.2.0\th1:y=\n";
    let modules = [&[b'<'; 16][..], modules.as_bytes(), &[b'>'; 16]].concat();
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    for text in [&b"go1.22.5"[..], &modules] {
        info.extend([text.len() as u8 & 0x7f | 0x80, (text.len() >> 7) as u8]);
        info.extend(text);
    }
    elf(".go.buildinfo", &info)
}

/// What `cargo auditable` leaves in a program.
fn rust_program() -> Vec<u8> {
    use std::io::Write as _;
    let list = json!({ "packages": [
        { "name": "app", "version": "0.1.0", "source": "local", "root": true, "dependencies": [1] },
        { "name": "serde", "version": "1.0.200", "source": "crates.io" },
        { "name": "cc", "version": "1.0.0", "source": "crates.io", "kind": "build" },
    ] });
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
    encoder.write_all(list.to_string().as_bytes()).unwrap();
    elf(".dep-v0", &encoder.finish().unwrap())
}

/// An image with a record of every kind.
fn recorded_image() -> Layout {
    let os = "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
    let status = "Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\n\
                  Source: gcc-12\nVersion: 12.2.0-14+deb12u1\n\n\
                  Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
    let package = json!({ "name": "@babel/core", "version": "7.24.0", "license": "MIT" });
    let metadata = "Metadata-Version: 2.1\nName: Flask_SQLAlchemy\nVersion: 3.1.1\n\
                    License: BSD-3-Clause\n\nVersion: 9 of the description\n";
    let gem = "Gem::Specification.new do |s|\n  s.name = \"rack\".freeze\n  \
               s.version = \"3.0.8\"\n  s.licenses = [\"MIT\".freeze]\nend\n";
    let (package, part) = (package.to_string(), r#"{"name": "part", "version": "1"}"#);
    let (go, rust) = (go_program(), rust_program());
    let files: &[(&str, &[u8])] = &[
        ("etc/os-release", os.as_bytes()),
        ("var/lib/dpkg/status", status.as_bytes()),
        ("app/node_modules/@babel/core/package.json", package.as_bytes()),
        ("app/node_modules/@babel/core/lib/package.json", part.as_bytes()),
        ("usr/lib/python3/Flask_SQLAlchemy-3.1.1.dist-info/METADATA", metadata.as_bytes()),
        ("usr/lib/ruby/gems/3.1.0/specifications/rack-3.0.8.gemspec", gem.as_bytes()),
        ("usr/bin/go-app", &go),
        ("usr/bin/rust-app", &rust),
        ("opt/copy-of-rust-app", &rust),
        ("usr/bin/broken", b"\x7fELF\x02\x01\x01 and nothing else"),
    ];
    let mut layout = Layout::new();
    let image = layout.image(&ImageSpec {
        layers: vec![(tar(files), Compression::Gzip)],
        config: json!({ "Cmd": ["/usr/bin/go-app"] }),
        ..ImageSpec::default()
    });
    layout.name(image, "latest");
    layout
}

const PURLS: [&str; 8] = [
    "pkg:cargo/app@0.1.0",
    "pkg:cargo/serde@1.0.200",
    "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
    "pkg:gem/rack@3.0.8",
    "pkg:golang/example.org/app",
    "pkg:golang/example.org/new@v0.2.0",
    "pkg:golang/github.com/gorilla/mux@v1.8.0",
    "pkg:golang/stdlib@1.22.5",
];

#[test]
fn bills_of_materials_list_what_has_left_a_record() {
    let desk = Desk::new();
    let layout = recorded_image();
    let image = layout.path().to_str().unwrap();
    let (code, cyclonedx, err) = desk.run(&["sbom", image, "-q"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let bom: Value = serde_json::from_str(&cyclonedx).unwrap();
    let components = bom["components"].as_array().unwrap();
    assert_eq!(components[0]["type"], "operating-system");
    let purls: Vec<&str> =
        components[1..].iter().map(|component| component["purl"].as_str().unwrap()).collect();
    let mut expected = PURLS.to_vec();
    expected.extend(["pkg:npm/%40babel/core@7.24.0", "pkg:pypi/flask-sqlalchemy@3.1.1"]);
    assert_eq!(purls, expected);
    let rust = &components[1];
    let places: Vec<&str> = rust["properties"]
        .as_array()
        .unwrap()
        .iter()
        .map(|property| property["value"].as_str().unwrap())
        .collect();
    assert_eq!(places, ["/opt/copy-of-rust-app", "/usr/bin/rust-app"]);
    assert_eq!(components[4]["licenses"][0]["license"]["name"], "MIT");

    let spdx = ["sbom", image, "-q", "-o", "a.spdx.json"];
    assert_eq!(desk.run(&spdx), (0, String::new(), String::new()));
    let text = fs::read_to_string(desk.path().join("a.spdx.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    let packages = document["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 1 + expected.len());
    assert_eq!(document["relationships"].as_array().unwrap().len(), packages.len());
    let found: Vec<&str> = packages[1..]
        .iter()
        .map(|package| package["externalRefs"][0]["referenceLocator"].as_str().unwrap())
        .collect();
    assert_eq!(found, expected);
    // Again, and in the other way.
    assert_eq!(desk.run(&["sbom", image, "--format", "spdx", "-q"]).1, text);
    if !can_boot() {
        return;
    }
    let convert = ["convert", image, "-q", "-o", "a.qcow2", "--sbom", "a.cdx.json"];
    // The programs in it are no real ones: what it would run is said to be missing.
    let (code, _, err) = desk.run(&[&convert[..], &["--entrypoint", "/usr/bin/go-app"]].concat());
    assert_eq!(code, 7, "{err}");
    assert!(!desk.path().join("a.cdx.json").exists());
}

/// Validates both forms by the published schemas, with the programs that publish them:
///
/// ```text
/// python3 -m venv /tmp/sbom && /tmp/sbom/bin/pip install 'cyclonedx-python-lib[json-validation]' spdx-tools
/// SBOM_VENV=/tmp/sbom cargo test --test trust -- --ignored published
/// ```
#[test]
#[ignore = "needs packages of PyPI"]
fn bills_of_materials_satisfy_the_published_schemas() {
    let venv = std::env::var("SBOM_VENV").expect("SBOM_VENV names a virtual environment");
    let desk = Desk::new();
    let nginx = test_images::build("nginx").unwrap();
    let recorded = recorded_image();
    for image in [recorded.path(), &nginx] {
        let image = image.to_str().unwrap();
        assert_eq!(desk.run(&["sbom", image, "-q", "-o", "a.cdx.json"]).0, 0);
        assert_eq!(desk.run(&["sbom", image, "-q", "-o", "a.spdx.json"]).0, 0);
        let script = "import sys\n\
            from cyclonedx.schema import SchemaVersion\n\
            from cyclonedx.validation.json import JsonStrictValidator\n\
            error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open('a.cdx.json').read())\n\
            sys.exit(str(error) if error else 0)\n";
        let python = format!("{venv}/bin/python");
        common::run(Command::new(python).args(["-c", script]).current_dir(desk.path()));
        let tool = format!("{venv}/bin/pyspdxtools");
        common::run(Command::new(tool).args(["-i", "a.spdx.json"]).current_dir(desk.path()));
    }
}

#[test]
fn where_an_image_comes_from_is_in_it_beside_it_and_goes_with_it() {
    if !can_boot() {
        return;
    }
    let desk = Desk::new();
    let (layout, _) = shell_image();
    let registry = Registry::start();
    let source = registry.push(layout.path(), "latest", "app:1");
    let convert = [
        "convert",
        &source,
        "-q",
        "-o",
        "a.img",
        "-e",
        "TOKEN=secret",
        "--provenance",
        "a.json",
        "--sbom",
        "a.cdx.json",
    ];
    assert_eq!(desk.run(&convert), (0, String::new(), String::new()));
    let beside = fs::read_to_string(desk.path().join("a.json")).unwrap();
    assert!(!beside.contains("secret"));
    let beside: Value = serde_json::from_str(&beside).unwrap();
    let digest = |path: &str| {
        let bytes = fs::read(desk.path().join(path)).unwrap();
        dock2uni::source::Digest::of(&bytes).hex()
    };
    assert_eq!(beside["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(
        beside["subject"],
        json!([{
            "name": "a.img",
            "digest": { "sha256": digest("a.img") },
        }])
    );
    let definition = &beside["predicate"]["buildDefinition"];
    let source_digest = definition["externalParameters"]["image"].as_str().unwrap();
    let image = &definition["resolvedDependencies"][0];
    assert_eq!(image["uri"], format!("docker://{source}"));
    assert_eq!(source_digest, format!("sha256:{}", image["digest"]["sha256"].as_str().unwrap()));
    assert_eq!(definition["externalParameters"]["options"], json!({ "env": ["TOKEN"] }));
    let kernel = dock2uni::source::Digest::of(dock2uni::guest::kernel().unwrap()).hex();
    let builder = &beside["predicate"]["runDetails"]["builder"];
    assert_eq!(builder["builderDependencies"][0]["digest"]["sha256"], kernel);
    assert_eq!(builder["version"]["dock2uni"], env!("CARGO_PKG_VERSION"));

    let (code, out, _) = desk.run(&["image", "provenance", "a.img"]);
    let inside: Value = serde_json::from_str(&out).unwrap();
    let (_, info, _) = desk.run(&["image", "info", "a.img", "--json"]);
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(code, 0);
    assert_eq!(inside["subject"][0]["digest"]["dm-verity-blake2b-512"], info["root_hash"]);
    let (_, sbom, _) = desk.run(&["sbom", "a.img"]);
    assert!(sbom.contains(source_digest), "{sbom}");
    assert!(desk.path().join("a.cdx.json").exists());

    // With the artifact, as what refers to it; this registry keeps such lists by tag.
    let to = registry.reference("vms/app:1");
    let (code, out, err) = desk.run(&["push", "a.img", &to, "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let pushed: Value = serde_json::from_str(&out).unwrap();
    let manifest = pushed["digest"].as_str().unwrap();
    let get = |path: String| -> Value {
        let url = format!("http://{}/v2/vms/app/{path}", registry.addr);
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.oci.image.index.v1+json";
        let output = common::run(Command::new("curl").args(["-sfL", "-H", accept, &url]));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for _ in 0..2 {
        let list = get(format!("manifests/{}", manifest.replace(':', "-")));
        assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(list["manifests"][0]["artifactType"], "application/vnd.in-toto+json");
        let referrer =
            get(format!("manifests/{}", list["manifests"][0]["digest"].as_str().unwrap()));
        assert_eq!(referrer["subject"]["digest"], manifest);
        let layer = referrer["layers"][0]["digest"].as_str().unwrap().to_owned();
        let statement = get(format!("blobs/{layer}"));
        assert_eq!(
            format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap()),
            manifest
        );
        assert_eq!(statement["predicate"], inside["predicate"]);
        // Again: the list does not grow.
        assert_eq!(desk.run(&["push", "a.img", &to, "-q"]).0, 0);
    }
}

#[test]
fn the_same_input_gives_the_same_bytes_whatever_is_around() {
    if !can_boot() {
        return;
    }
    let mut layout = Layout::new();
    let mut files = programs(&["busybox"]);
    files.push(("data".into(), noise(300_000, 4)));
    let upper: Vec<(String, Vec<u8>)> =
        (0..200).map(|n| (format!("many/{n:03}"), noise(n * 37, n as u64))).collect();
    let image = layout.image(&ImageSpec {
        layers: vec![
            (tar(&borrowed(&files)), Compression::Gzip),
            (tar(&borrowed(&upper)), Compression::Zstd),
            (tar(&borrowed(&upper[..50])), Compression::None),
        ],
        config: json!({ "Entrypoint": ["/bin/busybox"], "ExposedPorts": { "80/tcp": {}, "7/udp": {} } }),
        ..ImageSpec::default()
    });
    layout.name(image, "latest");
    let image = layout.path().to_str().unwrap();
    let formats = "raw,qcow2,vmdk,vhd-dynamic,vhdx,vdi,ova";
    let convert = [
        "convert",
        image,
        "-q",
        "--format",
        formats,
        "-o",
        "app",
        "--sbom",
        "app.cdx.json",
        "--sbom",
        "app.spdx.json",
        "--provenance",
        "app.provenance.json",
    ];
    let (here, there) = (Desk::new(), Desk::new());
    assert_eq!(here.run(&convert), (0, String::new(), String::new()));
    // One processor, another mask, another zone, another language, another home, another hour.
    let inner = there.command(&convert);
    let mut outer = Command::new("sh");
    outer
        .args(["-c", "umask 077; exec taskset -c 0 \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(there.path())
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .envs([("TZ", "Asia/Tokyo"), ("LC_ALL", "tr_TR.UTF-8"), ("HOME", "/nonexistent")])
        .envs([("SOURCE_DATE_EPOCH", "1234567890"), ("USER", "nobody")]);
    common::run(&mut outer);
    let mut names: Vec<_> = fs::read_dir(here.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "store")
        .collect();
    names.sort();
    assert_eq!(names.len(), 10, "{names:?}");
    for name in names {
        let read = |desk: &Desk| fs::read(desk.path().join(&name)).unwrap();
        assert!(read(&here) == read(&there), "{name:?} differs");
    }
}
