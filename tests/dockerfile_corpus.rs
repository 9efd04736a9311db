//! Builds a corpus of Dockerfiles and compares each result with buildah's: every file and the
//! configuration.
//!
//! `tests/dockerfiles/NAME.Dockerfile` is built by both; where Debian's buildah doesn't know an
//! instruction, `NAME.old.Dockerfile` says the same in older words for it.

mod common;
#[path = "common/dockerfiles.rs"]
mod dockerfiles;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dock2uni::rootfs;
use dock2uni::source::{self, Image, Quiet, Reference, Store};
use dockerfiles::{Lab, run};
use serde_json::{Value, json};

#[test]
fn images_equal_those_that_buildah_builds() {
    let lab = Lab::new(&["busybox", "debian"]);
    let mut names: Vec<String> = std::fs::read_dir("tests/dockerfiles")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".Dockerfile").map(str::to_owned))
        .filter(|name| !name.ends_with(".old"))
        .collect();
    assert!(names.len() >= 40, "only {} Dockerfiles", names.len());
    if let Ok(only) = std::env::var("D2U_DOCKERFILE") {
        names.retain(|name| only.split(',').any(|wanted| wanted == name));
    }
    names.sort();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let differences = compare(&lab, name);
                    if !differences.is_empty() {
                        let text = format!("{name}:\n  {}", differences.join("\n  "));
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), names.len(), wrong.join("\n"));
    assert_eq!(lab.left_over(), Vec::<std::path::PathBuf>::new());
}

fn compare(lab: &Lab, name: &str) -> Vec<String> {
    let mut differences = Vec::new();
    let ours = match lab.build(name) {
        Ok(image) => image,
        Err(error) => return vec![format!("does not build: {error}")],
    };
    let theirs = match buildah(lab, name) {
        Ok(image) => image,
        Err(error) => return vec![format!("buildah does not build it: {error}")],
    };
    // What comes with the base image is the same bytes; only what became of it is compared.
    let base = ours.layers.iter().zip(&theirs.layers);
    let base = base.take_while(|(ours, theirs)| ours.diff_id == theirs.diff_id).count();
    let (our_files, their_files) = (files(&ours, base), files(&theirs, base));
    for (path, ours) in &our_files {
        match their_files.get(path) {
            Some(theirs) if theirs == ours => {}
            Some(theirs) => differences.push(format!("{path}: {ours}, not {theirs}")),
            None => differences.push(format!("{path}: {ours}, but buildah has none")),
        }
    }
    for (path, theirs) in their_files.iter().filter(|(path, _)| !our_files.contains_key(*path)) {
        differences.push(format!("{path}: missing, buildah has {theirs}"));
    }
    let (ours, theirs) = (config(&ours), config(&theirs));
    for (field, value) in &ours {
        if theirs.get(field) != Some(value) {
            let other = theirs.get(field).unwrap_or(&Value::Null);
            differences.push(format!("{field}: {value}, not {other}"));
        }
    }
    for (field, value) in theirs.iter().filter(|(field, _)| !ours.contains_key(*field)) {
        differences.push(format!("{field}: missing, buildah has {value}"));
    }
    differences
}

fn buildah(lab: &Lab, name: &str) -> Result<Image, String> {
    let old = format!("tests/dockerfiles/{name}.old.Dockerfile");
    let file = if Path::new(&old).exists() { old } else { Lab::file(name) };
    let work = tempfile::tempdir().unwrap();
    let storage = lab.storage();
    let base = || {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let mut build = base();
    build.args(["bud", "--quiet", "--isolation", "chroot", "--format", "docker"]);
    build.args(["--tls-verify=false", "--pull-never", "--timestamp=0", "-t", name]);
    build.args(["--build-arg", &format!("REGISTRY={}", lab.registry.addr)]);
    build.args(["--build-arg", "GIVEN=given"]);
    build.arg("--secret").arg(format!("id=key,src={}", lab.secret().display()));
    let ignore = format!("{}.dockerignore", Lab::file(name));
    if Path::new(&ignore).exists() {
        build.args(["--ignorefile", &ignore]);
    }
    if name == "target" {
        build.args(["--target", "wanted"]);
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let copy = work.path().join("Dockerfile");
    std::fs::write(&copy, text.replace("127.0.0.1:5000", &lab.registry.addr.to_string())).unwrap();
    build.arg("-f").arg(&copy).arg(lab.context());
    let output = common::output(&mut build);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let archive = work.path().join("image.tar");
    run(base()
        .args(["push", "--quiet", "--disable-compression", name])
        .arg(format!("docker-archive:{}:{name}:latest", archive.display())));
    let reference = Reference::DockerArchive { path: archive, name: None };
    let store = Store::open(lab.store()).unwrap();
    Ok(source::resolve(&reference, &source::Options::default(), &store, &Quiet).unwrap())
}

/// Every file with all that counts; times don't, nor contents of the lowest `base` layers.
fn files(image: &Image, base: usize) -> BTreeMap<String, String> {
    let file = tempfile::tempfile().unwrap();
    let root = rootfs::build(&image.layers, &rootfs::Options::default(), &file, 0, &|_| {});
    let root = root.unwrap();
    let reader = root.reader(&file).unwrap();
    let mut links = BTreeMap::new();
    let mut all = BTreeMap::new();
    for node in root.tree.walk() {
        let path = String::from_utf8(root.tree.path(node)).unwrap();
        let Some(inode) = root.tree.inode(node) else { continue };
        // buildah leaves these where it has mounted something.
        const MOUNTED: [&str; 8] = [
            "/dev",
            "/etc/hostname",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/proc",
            "/run",
            "/run/.containerenv",
            "/sys",
        ];
        if MOUNTED.contains(&path.as_str()) || path.starts_with("/run/secrets") {
            continue;
        }
        let mut text = format!("{:o} {}:{}", inode.mode, inode.uid, inode.gid);
        if let rootfs::tree::Content::Symlink(target) = root.tree.content(inode) {
            text += &format!(" -> {}", String::from_utf8_lossy(target));
        }
        if inode.is_file() {
            if usize::from(inode.layer) >= base {
                let data = reader.read_file(path.as_bytes(), 64 << 20).unwrap().unwrap_or_default();
                text += &format!(" {} {}", data.len(), source::Digest::of(&data).short());
            }
            if inode.nlink > 1 {
                let id = format!("{:?}", root.tree.inode_id(node));
                let first = links.entry(id).or_insert_with(|| path.clone());
                text += &format!(" linked to {first}");
            }
        }
        all.insert(path, text);
    }
    all
}

/// What an image runs, as both write it.
fn config(image: &Image) -> BTreeMap<String, Value> {
    let document: Value = serde_json::from_slice(&image.config_json).unwrap();
    let mut fields: BTreeMap<String, Value> =
        serde_json::from_value(document["config"].clone()).unwrap();
    // Of a container that never was.
    const OTHERS: [&str; 10] = [
        "ArgsEscaped",
        "AttachStderr",
        "AttachStdin",
        "AttachStdout",
        "Domainname",
        "Hostname",
        "Image",
        "OpenStdin",
        "StdinOnce",
        "Tty",
    ];
    fields.retain(|field, _| !OTHERS.contains(&field.as_str()));
    // The order of variables has no meaning where each is there once.
    if let Some(env) = fields.get_mut("Env").and_then(Value::as_array_mut) {
        env.sort_by_key(Value::to_string);
    }
    if let Some(labels) = fields.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.remove("io.buildah.version");
    }
    if let Some(check) = fields.get_mut("Healthcheck").and_then(Value::as_object_mut) {
        check.retain(|_, value| *value != json!(0));
    }
    if let Some(author) = document.get("author") {
        fields.insert("author".into(), author.clone());
    }
    if fields.get("WorkingDir").is_some_and(|dir| dir == "/") {
        fields.remove("WorkingDir");
    }
    fields.retain(|_, value| {
        !value.is_null() && *value != json!("") && *value != json!([]) && *value != json!({})
    });
    fields
}
