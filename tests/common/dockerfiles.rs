//! What the tests of Dockerfiles share: base images in a real registry, a build context, a store.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use dock2uni::dockerfile::{self, Cancel, Error, Options, Progress, Secret};
use dock2uni::source::{self, Bar, Digest, Image, Quiet, Store};
use tempfile::TempDir;

use super::common::registry::Registry;
pub use super::common::run;

/// Everything that a build needs.
pub struct Lab {
    pub registry: Registry,
    dir: TempDir,
}

impl Lab {
    /// A lab with these base images.
    pub fn new(images: &[&str]) -> Lab {
        let lab = Lab { registry: Registry::start(), dir: tempfile::tempdir().unwrap() };
        for image in images {
            let layout = test_images::build(image).unwrap();
            lab.registry.push(&layout, "latest", &format!("{image}:latest"));
        }
        make_context(&lab.context());
        fs::write(lab.secret(), "s3cret").unwrap();
        lab
    }

    /// A Dockerfile of the corpus.
    pub fn file(name: &str) -> String {
        format!("tests/dockerfiles/{name}.Dockerfile")
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub fn secret(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// buildah's storage, with the base images in it.
    pub fn storage(&self) -> PathBuf {
        static PULLED: Mutex<()> = Mutex::new(());
        let _one = PULLED.lock().unwrap();
        let storage = self.dir.path().join("buildah");
        if !storage.exists() {
            for image in ["busybox", "debian"] {
                run(Command::new("buildah")
                    .arg("--root")
                    .arg(storage.join("root"))
                    .arg("--runroot")
                    .arg(storage.join("run"))
                    .args(["--storage-driver", "vfs", "pull", "--quiet", "--tls-verify=false"])
                    .arg(self.registry.reference(image)));
            }
        }
        storage
    }

    /// Options for a Dockerfile of this text in the context.
    pub fn options(&self, text: &str) -> Options {
        let text = text.replace("127.0.0.1:5000", &self.registry.addr.to_string());
        let name = Digest::of(text.as_bytes()).short();
        let file = self.dir.path().join(format!("{name}.Dockerfile"));
        fs::write(&file, text).unwrap();
        let mut options = Options::new(self.context());
        options.file = Some(file);
        options.sandbox = vec![env!("CARGO_BIN_EXE_dock2uni").into(), "__sandbox".into()];
        options.args.insert("REGISTRY".into(), self.registry.addr.to_string());
        options.secrets.insert("key".into(), Secret::File(self.secret()));
        options
    }

    /// Builds a Dockerfile of the corpus.
    pub fn build(&self, name: &str) -> Result<Image, String> {
        let mut options = self.options(&fs::read_to_string(Lab::file(name)).unwrap());
        options.args.insert("GIVEN".into(), "given".into());
        if name == "target" {
            options.target = Some("wanted".into());
        }
        let ignore = format!("{}.dockerignore", Lab::file(name));
        if let Ok(text) = fs::read(ignore) {
            let mut path = options.file.clone().unwrap().into_os_string();
            path.push(".dockerignore");
            fs::write(path, text).unwrap();
        }
        let said = Said::default();
        self.run(&options, &said).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error} {}\n{}", cause.unwrap_or_default(), said.text())
        })
    }

    /// Builds with these options.
    pub fn run(&self, options: &Options, said: &Said) -> Result<Image, Error> {
        let store = Store::open(self.store()).unwrap();
        dockerfile::build(options, &source::Options::default(), &store, said, &Cancel::default())
    }

    /// Builds a text; with what was said.
    pub fn text(&self, text: &str) -> (Result<Image, Error>, String) {
        let said = Said::default();
        let result = self.run(&self.options(text), &said);
        (result, said.text())
    }

    /// What builds have left beside what they keep.
    pub fn left_over(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for dir in ["build/work", "staging"] {
            let entries = fs::read_dir(self.store().join(dir)).into_iter().flatten();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        }
        left
    }
}

/// Keeps what a build says.
#[derive(Default)]
pub struct Said(Mutex<Vec<String>>);

impl Said {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl source::Progress for Said {
    fn start(&self, digest: &Digest, total: u64) -> Box<dyn Bar> {
        source::Progress::start(&Quiet, digest, total)
    }
}

impl Progress for Said {
    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A context with links, modes and archives.
fn make_context(dir: &Path) {
    let at = |path: &str| dir.join(path);
    for path in ["app/conf/extra", "app/empty", "data", "links"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    for (path, text, mode) in [
        ("app/main.sh", "#!/bin/sh\nexec \"$@\"\n", 0o755),
        ("app/conf/app.conf", "key = value\n", 0o640),
        ("app/conf/extra/x.txt", "x\n", 0o644),
        ("data/one.txt", "one\n", 0o644),
        ("data/two.txt", "two\n", 0o600),
        ("data/three.md", "three\n", 0o664),
        ("links/first", "same\n", 0o644),
        ("readme.md", "read me\n", 0o644),
        ("spaced name.txt", "space\n", 0o644),
    ] {
        fs::write(at(path), text).unwrap();
        fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(at("app/conf"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::hard_link(at("links/first"), at("links/second")).unwrap();
    symlink("main.sh", at("app/link")).unwrap();
    symlink("/etc/passwd", at("links/outside")).unwrap();

    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, mode: u32, data: &str, link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        if link.is_empty() {
            builder.append_data(&mut header, path, data.as_bytes()).unwrap();
        } else {
            builder.append_link(&mut header, path, link).unwrap();
        }
    };
    put("inner/", tar::EntryType::Directory, 0o750, "", "");
    put("inner/file", tar::EntryType::Regular, 0o640, "archived\n", "");
    put("inner/link", tar::EntryType::Symlink, 0o777, "", "file");
    put("inner/hard", tar::EntryType::Link, 0o640, "", "inner/file");
    put("top", tar::EntryType::Regular, 0o4755, "top\n", "");
    let tar = builder.into_inner().unwrap();
    fs::write(at("bundle.tar"), &tar).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    fs::write(at("bundle.tar.gz"), gzip.finish().unwrap()).unwrap();
    let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip.write_all(&tar).unwrap();
    fs::write(at("bundle.tar.bz2"), bzip.finish().unwrap()).unwrap();
    fs::write(at("bundle.tar.zst"), zstd::encode_all(&tar[..], 1).unwrap()).unwrap();
    run(Command::new("xz").args(["-k", "bundle.tar"]).current_dir(dir));
}
