//! What `inspect` says of images that run, and of those that can't.

mod common;

use std::process::Output;

use common::layout::{ImageSpec, Layout, tar};
use common::vm::dock2uni;
use dock2uni::plan::{Report, Severity, Verdict};
use dock2uni::source::image::Compression;
use serde_json::{Value, json};
use tempfile::TempDir;

/// `inspect --json` on a reference: exit status and report.
fn inspect(reference: &str, options: &[&str], store: &TempDir) -> (i32, Report) {
    let Output { status, stdout, stderr } = dock2uni()
        .args(["inspect", "--json", reference])
        .args(options)
        .env("DOCK2UNI_STORE", store.path())
        .output()
        .unwrap();
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
        let output = dock2uni().args(words).env("DOCK2UNI_STORE", store.path()).output().unwrap();
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
