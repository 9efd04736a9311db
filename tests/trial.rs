//! Boots that look at what an image does: `convert --verify` and `trace`.

mod common;

use std::fs;
use std::process::{Command, Output};

use common::vm::{can_boot, dock2uni};
use dock2uni::trial::trace::{Trace, Usage};
use serde_json::Value;
use tempfile::TempDir;

/// Runs a command in a directory of its own, with a store there: status, output, errors.
fn run(desk: &TempDir, words: &[&str]) -> (i32, String, String) {
    let mut command: Command = dock2uni();
    command.args(words).current_dir(desk.path()).env("DOCK2UNI_STORE", desk.path().join("store"));
    let Output { status, stdout, stderr } = common::output(&mut command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// The same on a terminal of 200 columns, by script(1): status, and all that was shown.
fn run_on_terminal(desk: &TempDir, words: &[&str]) -> (i32, String) {
    // None of the words needs quotes.
    let line = format!("stty cols 200; {} {}", env!("CARGO_BIN_EXE_dock2uni"), words.join(" "));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.current_dir(desk.path()).env("DOCK2UNI_STORE", desk.path().join("store"));
    let output = common::output(&mut script);
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn reference(name: &str) -> String {
    format!("oci:{}:latest", test_images::build(name).unwrap().display())
}

#[test]
fn a_trace_names_what_nginx_used_and_the_probe_took_part() {
    if !can_boot() {
        return;
    }
    let desk = tempfile::tempdir().unwrap();
    let nginx = reference("nginx");
    let fetch = "curl -sf http://$DOCK2UNI_HOST:$DOCK2UNI_PORT_80/ >page.html";
    let trace = ["trace", &nginx, "--accel", "tcg", "-o", "t.json", "--", "sh", "-c", fetch];
    let (code, out, err) = run(&desk, &trace);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(
        err.contains("port 80/tcp answered after ") && err.contains("HTTP/1.1 200 OK"),
        "{err}"
    );
    assert!(err.contains("the probe succeeded"), "{err}");
    assert!(
        fs::read_to_string(desk.path().join("page.html")).unwrap().contains("Welcome to nginx")
    );

    let trace = Trace::read(&desk.path().join("t.json")).unwrap();
    let usage = |path: &str| trace.files.get(path.as_bytes()).copied();
    assert_eq!(usage("/usr/sbin/nginx"), Some(Usage::Executed));
    assert_eq!(usage("/docker-entrypoint.sh"), Some(Usage::Executed));
    assert_eq!(usage("/etc/nginx/conf.d/default.conf"), Some(Usage::Opened));
    assert_eq!(usage("/usr/share/nginx/html/index.html"), Some(Usage::Opened));
    // Links on the way, and names that were only looked up.
    assert_eq!(usage("/usr/bin/sh"), Some(Usage::Seen));
    assert_eq!(usage("/usr/bin/apt"), None);
    // Files that the programs made themselves are not the image's.
    assert!(trace.files.keys().all(|path| !path.starts_with(b"/run/nginx")));
    for call in ["execve", "epoll_wait", "accept4", "openat"] {
        assert!(trace.calls.contains(call), "{call}");
    }

    // A probe that fails is the trace's failure.
    let (code, _, err) = run(&desk, &["trace", &nginx, "--accel", "tcg", "-o", "u", "--", "false"]);
    assert_eq!(code, 10, "{err}");
    assert!(err.contains("error: the probe `false` failed"), "{err}");
}

#[test]
fn a_conversion_is_verified_by_booting_it() {
    if !can_boot() {
        return;
    }
    let desk = tempfile::tempdir().unwrap();
    let go = reference("go");
    let convert = ["convert", &go, "--verify", "--accel", "tcg", "-o", "a.qcow2", "--json"];
    let (code, out, err) = run(&desk, &convert);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let made: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(made["verified"]["ok"], true);
    assert_eq!(made["verified"]["ports"][0]["port"], 8080);
    assert_eq!(made["verified"]["ports"][0]["answer"]["text"], "HTTP/1.1 200 OK");

    // What doesn't answer is named, with what does, and the console's last words.
    let more = ["-p", "81:81", "--patience", "25"];
    let convert = [&["convert", &go, "--verify", "--accel", "tcg", "-o", "b.img", "-q"][..], &more];
    let (code, _, err) = run(&desk, &convert.concat());
    assert_eq!(code, 10, "{err}");
    let expected = "error: port 81/tcp did not answer within 25 s; what is listened on: 8080\n  | ";
    assert!(err.starts_with(expected), "{err}");
    assert!(err.contains("hint: if it is only slow, let it have more `--patience`"), "{err}");

    // What an image only exposes need not answer: it is named.
    fs::create_dir(desk.path().join("more")).unwrap();
    let layout = go.strip_prefix("oci:").and_then(|go| go.strip_suffix(":latest")).unwrap();
    fs::write(desk.path().join("more/Dockerfile"), "FROM go\nEXPOSE 5671 9000-9001\n").unwrap();
    let context = format!("go=oci-layout://{layout}:latest");
    let convert = ["convert", "more", "--build-context", &context, "--verify", "--accel", "tcg"];
    let more = ["-o", "c.img", "--patience", "25"];
    let (code, err) = run_on_terminal(&desk, &[&convert[..], &more].concat());
    assert_eq!(code, 0, "{err}");
    // Who watches sees what is waited for.
    assert!(err.contains(" of 25 s, waiting for port 5671/tcp, 9000/tcp, 9001/tcp"), "{err}");
    assert!(err.contains("port 5671/tcp: nobody listens on it"), "{err}");
    assert!(err.contains("HTTP/1.1 200 OK"), "{err}");
    // With ports of the user's choice the others are not waited for.
    let more = ["-o", "c.img", "--patience", "3600", "-p", "8080:8080", "--json", "-q"];
    let (code, out, err) = run(&desk, &[&convert[..], &more].concat());
    assert_eq!(code, 0, "{err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    let silent = made["verified"]["ports"].as_array().unwrap().iter();
    let silent = silent.filter(|port| port["answer"].is_null()).count();
    assert_eq!(silent, 3, "{made:#}");

    // A program that ends is judged by its end.
    let hello = reference("hello-static");
    let (code, _, err) = run(&desk, &["convert", &hello, "--verify", "--accel", "tcg"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(err, "the program ran to its end and exited with 0\n");
    let shell = reference("busybox");
    let words = ["convert", &shell, "--verify", "--accel", "tcg", "--", "sh", "-c", "exit 3"];
    let (code, _, err) = run(&desk, &words);
    assert_eq!(code, 10, "{err}");
    assert!(err.starts_with("error: the program exited with 3\n"), "{err}");

    // A server that only programs beside it reach is one that nobody reaches.
    let words =
        ["convert", &shell, "--verify", "--accel", "tcg", "-p", "80:80", "--patience", "25"];
    let server = ["--", "httpd", "-f", "-p", "127.0.0.1:80"];
    let (code, _, err) = run(&desk, &[&words[..], &server].concat());
    assert_eq!(code, 10, "{err}");
    assert!(err.contains("port 80/tcp is listened on inside the VM alone"), "{err}");
    assert!(err.contains("listened on inside alone (127.0.0.1, ::1): 80\n"), "{err}");

    let (code, _, err) = run(&desk, &["convert", &go, "--verify", "--patience", "0"]);
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = run(&desk, &["convert", &go, "--verify", "--format", "ova"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn a_slim_image_is_tried_before_it_is_made() {
    if !can_boot() {
        return;
    }
    let desk = tempfile::tempdir().unwrap();
    let nginx = reference("nginx");
    let slim = ["convert", &nginx, "--slim", "--accel", "tcg", "--json", "-o", "a.img"];
    let (code, out, err) = run(&desk, &slim);
    assert_eq!(code, 0, "{err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    let bytes = |index: usize| made["slim"]["bytes"][index].as_u64().unwrap();
    assert!(bytes(1) < bytes(0), "{}", made["slim"]);
    assert!(!made["slim"]["dropped"].as_array().unwrap().is_empty());

    // What must not go is missed by the boot, and nothing is written.
    let more = ["--drop", "/etc/nginx/nginx.conf", "--patience", "60"];
    let slim = ["convert", &nginx, "--slim", "--accel", "tcg", "-q", "-o", "b.img"];
    let (code, _, err) = run(&desk, &[&slim[..], &more].concat());
    assert_eq!(code, 10, "{err}");
    assert!(err.contains("error: the slim image does not work when it is booted: "), "{err}");
    assert!(!desk.path().join("b.img").exists());
}
