//! What `inspect` says of images that run, and of those that can't.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

use common::layout::{ImageSpec, Layout, borrowed, programs, tar};
use common::run;
use common::vm::dock2uni;
use dock2uni::config::Overrides;
use dock2uni::convert::{self, RootOptions};
use dock2uni::plan::root::Root;
use dock2uni::plan::slim::{Slim, Wishes, choose};
use dock2uni::plan::{self, Report, Severity, Verdict};
use dock2uni::source::image::Compression;
use dock2uni::source::{self, Options, Quiet, Reference, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

/// `inspect --json` on a reference: exit status and report.
fn inspect(reference: &str, options: &[&str], store: &TempDir) -> (i32, Report) {
    let mut command = dock2uni();
    command.args(["inspect", "--json", reference]).args(options);
    let Output { status, stdout, stderr } =
        common::output(command.env("DOCK2UNI_STORE", store.path()));
    let report = serde_json::from_slice(&stdout);
    let report = report.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&stderr)));
    (status.code().unwrap(), report)
}

fn layout(config: Value, files: &[(&str, &[u8])]) -> Layout {
    let mut layout = Layout::new();
    let layers = vec![(tar(files), Compression::Gzip)];
    let image = layout.image(&ImageSpec { layers, config, ..ImageSpec::default() });
    layout.name(image, "latest");
    layout
}

fn blockers(report: &Report) -> Vec<&str> {
    let blockers = report.findings.iter().filter(|f| f.severity == Severity::Blocker);
    blockers.map(|finding| finding.id.as_str()).collect()
}

#[test]
fn an_nginx_image_is_followed_to_its_server_and_its_libraries() {
    let image = test_images::build("nginx").unwrap();
    let store = tempfile::tempdir().unwrap();
    let reference = format!("oci:{}:latest", image.display());
    let (code, report) = inspect(&reference, &[], &store);
    assert_eq!((code, report.verdict), (0, Verdict::Runs), "{:?}", report.findings);
    let main = &report.programs[0];
    assert_eq!((main.role.as_str(), main.path.as_str()), ("main", "/usr/sbin/nginx"));
    assert!(main.certain && main.argv[2].as_deref() == Some("daemon off;"), "{main:?}");
    let by: Vec<&str> = main.steps.iter().map(|step| step.by.as_str()).collect();
    assert_eq!(by, ["image", "#!", "exec"]);
    let object = |name: &str| report.objects.iter().find(|object| object.path.ends_with(name));
    assert!(object("/libcrypto.so.3").unwrap().needed_by.contains(&"/usr/sbin/nginx".into()));
    assert_eq!(object("/ld-linux-x86-64.so.2").unwrap().how, "interpreter");
    assert!(report.scripts.iter().any(|path| path.ends_with("/30-tune-worker-processes.sh")));
    for call in ["epoll_wait", "accept4", "openat", "clone"] {
        assert!(report.syscalls.reachable.iter().any(|name| name == call), "{call}");
    }
    assert!(!report.syscalls.reachable.iter().any(|name| name == "swapon"));
    assert_eq!(report.needs.ports, ["80/tcp"]);
    assert!(report.packages.is_some_and(|packages| packages.manager == "dpkg"));

    // For people, and with the exit status of an image that won't run.
    let command = |words: &[&str]| {
        let output = common::output(dock2uni().args(words).env("DOCK2UNI_STORE", store.path()));
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = command(&["convert", "--dry-run", &reference]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("main     nginx -g 'daemon off;' (by #!, exec)\n"), "{text}");
    assert!(text.contains("verdict  runs\n"), "{text}");
    let (code, text) = command(&["inspect", &reference, "--", "no-such-program"]);
    assert_eq!(code, 7, "{text}");
    assert!(text.contains("verdict  won't run\n  error: `no-such-program`, which"), "{text}");
}

#[test]
fn what_keeps_an_image_from_running_is_named() {
    let shell: &[u8] = b"#!/bin/none\n";
    let go = b"#!/app/none.sh\n";
    let store = tempfile::tempdir().unwrap();
    for (config, files, blocker) in [
        (json!({"Cmd": ["/none"]}), vec![("x", shell)], "configuration"),
        (json!({"Cmd": ["/x"]}), vec![("x", shell)], "configuration"),
        (json!({"Cmd": ["/x"]}), vec![("x", &go[..])], "configuration"),
        (json!({"Cmd": ["/x"], "User": "web"}), vec![("x", shell)], "configuration"),
        (json!({}), vec![("x", shell)], "configuration"),
    ] {
        let image = layout(config, &files);
        let (code, report) = inspect(image.path().to_str().unwrap(), &[], &store);
        assert_eq!((code, report.verdict), (7, Verdict::WontRun));
        assert_eq!(blockers(&report), [blocker], "{:?}", report.findings);
        assert!(report.findings[0].advice.is_some(), "{:?}", report.findings);
    }
}

/// What slimming keeps of an image, without a trace.
fn slimmed(layout: &Layout, wishes: &Wishes) -> Slim {
    let desk = tempfile::tempdir().unwrap();
    slimmed_of(layout.path(), &Store::open(desk.path()).unwrap(), wishes)
}

fn slimmed_of(layout: &Path, store: &Store, wishes: &Wishes) -> Slim {
    let desk = tempfile::tempdir().unwrap();
    let reference = Reference::OciLayout { path: layout.into(), name: None };
    let image = source::resolve(&reference, &Options::default(), store, &Quiet).unwrap();
    let path = desk.path().join("root");
    convert::root_image(&image, &RootOptions::default(), &path, &|_| {}).unwrap();
    let file = File::open(&path).unwrap();
    let root = Root::open(&file, 0).unwrap();
    let plan = plan::examine(&image, &Overrides::default(), &root).unwrap();
    choose(&plan, &root, &[], wishes)
}

/// Compiles in a directory, whose libraries it finds.
fn compile(desk: &TempDir, name: &str, text: &str, options: &[&str]) -> Vec<u8> {
    let source = desk.path().join("x.c");
    fs::write(&source, text).unwrap();
    let mut cc = Command::new("cc");
    cc.current_dir(desk.path()).args(["-o", name, "x.c", "-L."]).args(options);
    run(&mut cc);
    fs::read(desk.path().join(name)).unwrap()
}

/// Java's libraries need libjvm.so, which its launcher loads from a directory of its own.
#[test]
fn libraries_that_are_loaded_by_then_are_not_missed_and_others_once() {
    let desk = tempfile::tempdir().unwrap();
    let shared = |needed: &'static str| {
        ["-shared", "-fPIC", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", needed]
    };
    let library = |name: &str, needed: &'static str| {
        let soname = format!("-Wl,-soname,{name}");
        let options = [&shared(needed)[..], &[&soname]].concat();
        compile(&desk, name, "int f(void) { return 1; }", &options)
    };
    let jvm = library("libjvm.so", "-lc");
    library("libgone.so", "-lc");
    let [one, two, three] =
        [("libone.so", "-ljvm"), ("libtwo.so", "-lgone"), ("libthree.so", "-lgone")]
            .map(|(name, needed)| library(name, needed));
    compile(&desk, "java", "int main(void) { return 0; }", &[]);
    let java = desk.path().join("java").display().to_string();
    let mut files = programs(&[&java]);
    let (_, program) = files.iter().find(|(path, _)| path.ends_with("/java")).cloned().unwrap();
    for (path, bytes) in [
        ("bin/java", program),
        ("lib/libone.so", one),
        ("lib/libtwo.so", two),
        ("lib/libthree.so", three),
        ("lib/server/libjvm.so", jvm),
    ] {
        files.push((format!("opt/jdk/{path}"), bytes));
    }
    let image = layout(json!({"Cmd": ["/opt/jdk/bin/java"]}), &borrowed(&files));
    let store = tempfile::tempdir().unwrap();
    let (_, report) = inspect(image.path().to_str().unwrap(), &[], &store);
    let missing = report.findings.iter().filter(|finding| finding.id == "missing-library");
    let texts: Vec<&str> = missing.map(|finding| finding.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "`/opt/jdk/lib/libthree.so` and one other file need libgone.so, which is not in the image"
        ]
    );
}

#[test]
fn a_file_with_many_names_counts_once() {
    let busybox = test_images::build("busybox").unwrap();
    let store = tempfile::tempdir().unwrap();
    let store = Store::open(store.path()).unwrap();
    let slim = slimmed_of(&busybox, &store, &Wishes::default());
    assert!(slim.files.0 > 200 && slim.bytes.0 < 8 << 20, "{:?} {:?}", slim.files, slim.bytes);
    let kept: u64 = slim.kept.iter().map(|group| group.bytes).sum();
    assert_eq!(kept, slim.bytes.1);
}

/// Variables that name directories of modules (GEM_HOME) are mostly not set.
#[test]
fn a_runtime_keeps_its_own_directories_and_not_the_root() {
    let mut files = programs(&["busybox"]);
    let program = files.iter().find(|(path, _)| path.ends_with("/busybox")).cloned().unwrap().1;
    for (path, bytes) in [
        ("usr/bin/ruby", program),
        ("usr/lib/ruby/set.rb", b"# module\n".to_vec()),
        ("usr/share/doc/set/readme", b"read me\n".to_vec()),
        ("app.rb", b"require 'set'\n".to_vec()),
    ] {
        files.push((path.to_owned(), bytes));
    }
    let image = layout(json!({"Cmd": ["/usr/bin/ruby", "/app.rb"]}), &borrowed(&files));
    let store = tempfile::tempdir().unwrap();
    let (_, report) = inspect(image.path().to_str().unwrap(), &[], &store);
    assert_eq!(report.runtimes[0].directories, ["/usr/lib/ruby"]);
    let slim = slimmed(&image, &Wishes::default());
    let keeps = |path: &str| slim.selection.has(path.as_bytes());
    assert!(keeps("/app.rb") && keeps("/usr/lib/ruby/set.rb"), "{:?}", slim.kept);
    assert!(!keeps("/usr/share/doc/set/readme"), "{:?}", slim.kept);
}

#[test]
fn slim_images_keep_what_plugins_load() {
    let desk = tempfile::tempdir().unwrap();
    let compile = |name: &str, text: &str, options: &[&str]| compile(&desk, name, text, options);
    let shared = ["-shared", "-fPIC"];
    let deep = compile("libdeep.so", "int deep(void) { return 1; }", &shared);
    let with_deep = [&shared[..], &["-ldeep"]].concat();
    let needed =
        compile("libneeded.so", "int deep(void); int f(void) { return deep(); }", &with_deep);
    let with_needed = [&shared[..], &["-lneeded", "-Wl,--allow-shlib-undefined"]].concat();
    let plugin = compile("plugin.so", "int f(void); int g(void) { return f(); }", &with_needed);
    let loader = "#include <dlfcn.h>\nint main(int n, char **a) { return !dlopen(a[1], 2); }";
    compile("main", loader, &[]);
    let main = desk.path().join("main").display().to_string();

    let mut files = programs(&[&main]);
    let library = "usr/lib/x86_64-linux-gnu";
    let lists = "var/lib/dpkg/info/extras.list";
    for (path, bytes) in [
        ("opt/app/plugins/plugin.so".to_owned(), plugin),
        (format!("{library}/libneeded.so"), needed.clone()),
        (format!("{library}/libdeep.so"), deep),
        (format!("{library}/libunused.so"), needed),
        ("usr/bin/extra".to_owned(), b"#!/bin/sh\n".to_vec()),
        ("usr/share/extras/data".to_owned(), b"data".to_vec()),
        ("usr/local/app/logs/".to_owned(), Vec::new()),
        ("usr/share/doc/app/".to_owned(), Vec::new()),
        (
            "var/lib/dpkg/status".to_owned(),
            b"Package: extras\nStatus: install ok installed\nVersion: 1\n".to_vec(),
        ),
        (
            lists.to_owned(),
            format!(
                "/{library}/libneeded.so\n/{library}/libdeep.so\n/{library}/libunused.so\n\
                     /usr/bin/extra\n/usr/share/extras/data\n"
            )
            .into_bytes(),
        ),
    ] {
        files.push((path, bytes));
    }
    let image = layout(json!({"Cmd": [main, "/opt/app/plugins/plugin.so"]}), &borrowed(&files));
    let slim = slimmed(&image, &Wishes::default());
    let has = |name: &str| slim.selection.has(format!("/{library}/{name}").as_bytes());
    assert!(slim.selection.has(b"/opt/app/plugins/plugin.so"));
    assert!(has("libneeded.so") && has("libdeep.so"), "{:?}", slim.kept);
    assert!(!has("libunused.so") && !slim.selection.has(b"/usr/bin/extra"), "{:?}", slim.kept);
    // A directory that is empty is there to be filled; one that is emptied goes.
    assert!(slim.selection.has(b"/usr/local/app/logs"), "{:?}", slim.kept);
    assert!(
        !slim.selection.has(b"/usr/share/extras") && !slim.selection.has(b"/usr/share/doc/app")
    );
    // What the user wants gone goes.
    let wishes = Wishes { drop: vec!["*/libdeep.so".into()], ..Wishes::default() };
    assert!(!slimmed(&image, &wishes).selection.has(format!("/{library}/libdeep.so").as_bytes()));
}

#[test]
fn an_rpm_database_tells_whose_files_they_are() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rpmdb.sqlite.gz");
    let mut database = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(File::open(fixture).unwrap());
    std::io::Read::read_to_end(&mut gzip, &mut database).unwrap();
    let mut files = programs(&["busybox"]);
    files.push(("var/lib/rpm/rpmdb.sqlite".to_owned(), database));
    // A program under the name that the database has.
    let busybox = files[0].1.clone();
    files.push(("usr/bin/tool".to_owned(), busybox));
    let image = layout(json!({"Cmd": ["/usr/bin/tool"]}), &borrowed(&files));
    let store = tempfile::tempdir().unwrap();
    let (code, report) = inspect(image.path().to_str().unwrap(), &[], &store);
    assert_eq!(code, 0, "{:?}", report.findings);
    let packages = report.packages.unwrap();
    assert_eq!((packages.manager.as_str(), packages.installed), ("rpm", 2));
    assert_eq!(packages.running, ["tool 2:1.5-3"]);
    assert_eq!(packages.needed, ["lib 2:1.5-3", "tool 2:1.5-3"]);
    assert!(report.findings.iter().all(|finding| finding.id != "rpm"), "{:?}", report.findings);
}
