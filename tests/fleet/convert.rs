//! `dock2uni fleet convert`: many at once, killed at any moment, with some that are bad.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use dock2uni::config::Overrides;
use dock2uni::disk::Format;
use dock2uni::fleet::Image;
use dock2uni::fleet::convert::{self, Images, Observer, Options, Order, References, Status};
use dock2uni::fleet::plan::Problem;
use dock2uni::pipeline::{Unwatched, Watch};
use dock2uni::source::image::Compression;
use dock2uni::source::{self, Store};
use serde_json::{Value, json};

use crate::common::layout::{ImageSpec, Layout, borrowed, noise, programs, tar};
use crate::common::registry::Registry;
use crate::common::vm::{can_boot, dock2uni};

/// Images that share a layer, each with one of its own, as `app-N`.
fn images(count: u64) -> Layout {
    let mut layout = Layout::new();
    let files = programs(&["busybox"]);
    let base = tar(&borrowed(&files));
    for number in 0..count {
        let own = noise(300_000, number + 1);
        let own = tar(&[("data", own.as_slice())]);
        let descriptor = layout.image(&ImageSpec {
            layers: vec![(base.clone(), Compression::Gzip), (own, Compression::Gzip)],
            config: json!({"Cmd": ["/bin/busybox", "true"]}),
            ..ImageSpec::default()
        });
        layout.name(descriptor, &format!("app-{number}"));
    }
    layout
}

fn fleet_convert(dir: &Path, args: &[&str]) -> Command {
    let mut command = dock2uni();
    command
        .args(["fleet", "convert", "--json"])
        .args(args)
        .current_dir(dir)
        .env("DOCK2UNI_STORE", dir.join("store"))
        .stdin(Stdio::null());
    command
}

fn report(output: &Output) -> (i32, Value) {
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// Every disk with its inode and its bytes.
fn disks(out: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(out.join("disks")) else { return BTreeMap::new() };
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let inode = path.metadata().unwrap().ino();
            let bytes = fs::read(&path).unwrap();
            (path.strip_prefix(out).unwrap().to_owned(), (inode, bytes))
        })
        .filter(|(path, _)| !path.file_name().unwrap().as_encoded_bytes().starts_with(b"."))
        .collect()
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_one_that_is_not() {
    if !can_boot() {
        return;
    }
    let registry = Registry::start();
    let layout = images(6);
    let mut list = String::new();
    for number in 0..6 {
        let name = format!("team/app-{number}:1");
        list += &registry.push(layout.path(), &format!("app-{number}"), &name);
        list += "\n";
        // Another name for the same image.
        list += &format!("{}/team/app-{number}@sha256:", registry.addr);
        let manifest = fs::read(layout.path().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&manifest).unwrap();
        let digest = index["manifests"][number]["digest"].as_str().unwrap();
        list += digest.trim_start_matches("sha256:");
        list += "\n";
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("list.txt"), list).unwrap();
    let args = ["list.txt", "-o", "out", "--jobs", "2", "--format", "raw,qcow2"];

    let mut seen: BTreeMap<PathBuf, (u64, Vec<u8>)> = BTreeMap::new();
    let mut kills = 0;
    let output = loop {
        let mut child = fleet_convert(dir.path(), &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Later each time, in odd steps, so that every stage is hit and the end is reached.
        std::thread::sleep(Duration::from_millis(20 + 37 * kills));
        if kills < 20 && child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            for (path, found) in disks(&dir.path().join("out")) {
                let known = seen.entry(path).or_insert_with(|| found.clone());
                assert!(*known == found, "a disk was made twice, or was not whole");
            }
            continue;
        }
        break child.wait_with_output().unwrap();
    };
    eprintln!("killed {kills} times");
    assert!(kills > 3, "it ended before it could be killed");
    let (code, all) = report(&output);
    assert_eq!((code, &all["failed"]), (0, &json!(0)), "{all:#}");
    assert_eq!(all["items"].as_array().unwrap().len(), 12);
    let last = disks(&dir.path().join("out"));
    assert_eq!(last.len(), 12, "6 images in 2 formats");
    for (path, found) in &seen {
        assert!(last[path] == *found, "{} was made twice", path.display());
    }
    assert!(!dir.path().join("out/.work").exists());
    let link = fs::read_link(
        dir.path()
            .join(format!("out/{}-team-app-0-1.img", registry.addr.to_string().replace(':', "-"))),
    );
    assert!(link.unwrap().starts_with("disks"));

    // The same from nothing, undisturbed.
    let whole = dir.path().join("whole");
    fs::create_dir(&whole).unwrap();
    fs::copy(dir.path().join("list.txt"), whole.join("list.txt")).unwrap();
    let (code, all) = report(&fleet_convert(&whole, &args).output().unwrap());
    assert_eq!((code, &all["made"], &all["reused"]), (0, &json!(6), &json!(6)), "{all:#}");
    let others = disks(&whole.join("out"));
    assert_eq!(last.len(), others.len());
    for (path, (_, bytes)) in &last {
        assert!(others[path].1 == *bytes, "{} differs", path.display());
    }
    // And once more: nothing is left to do.
    let (code, all) = report(&fleet_convert(dir.path(), &args).output().unwrap());
    assert_eq!((code, &all["reused"]), (0, &json!(12)));
}

#[test]
fn bad_images_leave_the_others_alone_and_the_exit_status_says_so() {
    if !can_boot() {
        return;
    }
    let registry = Registry::start();
    let layout = images(2);
    let good = registry.push(layout.path(), "app-0", "good:1");
    let bad = registry.push(layout.path(), "app-1", "bad:1");
    let index: Value =
        serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][1]["digest"].as_str().unwrap();
    let manifest: Value =
        serde_json::from_slice(&fs::read(layout.blob_path(digest)).unwrap()).unwrap();
    let layer = manifest["layers"][1]["digest"].as_str().unwrap();
    let blob = registry.blob_file(layer.trim_start_matches("sha256:"));
    let len = blob.metadata().unwrap().len() as usize;
    fs::write(&blob, vec![7; len]).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let compose = format!(
        "services:\n  good: {{image: '{good}'}}\n  other: {{image: '{good}', command: \
         [/bin/busybox, 'false']}}\n  bad: {{image: '{bad}'}}\n  gone: {{image: '{}/gone:1'}}\n  \
         missing: {{image: '{good}', entrypoint: [/no/such]}}\n  shared: {{image: '{good}', pid: \
         host}}\n",
        registry.addr
    );
    fs::write(dir.path().join("compose.yaml"), compose).unwrap();
    let run = |args: &[&str]| {
        let args = [args, &["-o", "out", "--retries", "0"]].concat();
        report(&fleet_convert(dir.path(), &args).output().unwrap())
    };
    let (code, all) = run(&["compose.yaml"]);
    assert_eq!(code, 11, "{all:#}");
    let item = |all: &Value, name: &str| {
        let items = all["items"].as_array().unwrap();
        items.iter().find(|item| item["name"] == name).unwrap().clone()
    };
    for (name, status, reason) in [
        ("good", "made", ""),
        ("other", "made", ""),
        ("bad", "failed", "corrupt"),
        ("gone", "failed", "gone"),
        ("missing", "failed", "/no/such"),
        ("shared", "refused", "pid"),
    ] {
        let item = item(&all, name);
        assert_eq!(item["status"], status, "{item:#}");
        let text = item["reason"].as_str().unwrap_or_default();
        assert!(text.contains(reason), "{text}");
    }
    // Options make other disks of the same image.
    assert_ne!(item(&all, "good")["key"], item(&all, "other")["key"]);
    assert_eq!(all["made"], 2);
    let kept: Value =
        serde_json::from_slice(&fs::read(dir.path().join("out/report.json")).unwrap()).unwrap();
    assert_eq!(kept, all);

    // A plan pins what it has seen: a tag that moves afterwards does not matter.
    let output = dock2uni()
        .args(["fleet", "plan", "-q", "-o", "plan.json", &good])
        .current_dir(dir.path())
        .env("DOCK2UNI_STORE", dir.path().join("store"))
        .output()
        .unwrap();
    let plan = fs::read_to_string(dir.path().join("plan.json")).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}: {plan}");
    let moved = images(3);
    registry.push(moved.path(), "app-2", "good:1");
    let (code, all) = run(&["plan.json"]);
    assert_eq!((code, &all["items"][0]["status"]), (0, &json!("reused")), "{all:#}");
    let (code, all) = run(&[&good]);
    assert_eq!((code, &all["items"][0]["status"]), (0, &json!("made")), "{all:#}");
    let (code, _) = run(&["127.0.0.1:1/none:1"]);
    assert_eq!(code, 12);
}

/// Fails for a while.
struct Flaky<'a> {
    inner: References<'a>,
    left: Mutex<u32>,
}

impl Flaky<'_> {
    fn fail(&self) -> Result<(), Problem> {
        let mut left = self.left.lock().unwrap();
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err(Problem { text: "not now".into(), hint: None, transient: true })
    }
}

impl Images for Flaky<'_> {
    fn describe(&self, image: &Image, digest: Option<&str>) -> Result<source::Image, Problem> {
        self.fail()?;
        self.inner.describe(image, digest)
    }

    fn fetch(
        &self,
        image: &Image,
        digest: &str,
        watch: &dyn Watch,
    ) -> Result<source::Image, Problem> {
        self.fail()?;
        self.inner.fetch(image, digest, watch)
    }
}

#[derive(Default)]
struct Counted(Mutex<u32>);

impl Observer for Counted {
    fn start(&self, _: &str) -> Box<dyn Watch> {
        Box::new(Unwatched)
    }

    fn retrying(&self, _: &str, _: &Problem, _: Duration) {
        *self.0.lock().unwrap() += 1;
    }
}

#[test]
fn what_fails_for_a_while_is_tried_again() {
    if !can_boot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layout = images(1);
    let store = Store::open(dir.path().join("store")).unwrap();
    let from = source::Options::default();
    let options = Options {
        out: dir.path().join("out"),
        formats: vec![Format::Qcow2],
        place: None,
        compression: None,
        jobs: 1,
        retries: 2,
        retry_delay: Duration::from_millis(1),
    };
    let order = Order {
        name: "app".into(),
        image: Image::Reference(format!("oci:{}:app-0", layout.path().display())),
        digest: None,
        overrides: Overrides::default(),
        mounts: Vec::new(),
        variables: Vec::new(),
        files: Vec::new(),
        refused: None,
    };
    let convert = |failures: u32| {
        let inner = References { options: &from, store: &store };
        let images = Flaky { inner, left: Mutex::new(failures) };
        let seen = Counted::default();
        let orders = [order.clone()];
        let report = convert::convert(&orders, &options, &images, &store, &seen).unwrap();
        (report, seen.0.into_inner().unwrap())
    };
    let (report, retries) = convert(3);
    assert_eq!((report.items[0].status, retries), (Status::Failed, 2));
    assert_eq!(report.items[0].attempts, 3);
    assert_eq!(report.items[0].reason.as_deref(), Some("not now"));
    let (report, retries) = convert(2);
    assert_eq!((report.items[0].status, retries), (Status::Made, 2), "{report:?}");
}
