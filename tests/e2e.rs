//! Real images from a real registry in real virtual machines.
//!
//! Each test pushes an image to a registry of its own, and runs it as a user would.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use common::layout::{ImageSpec, Layout};
use common::registry::Registry;
use common::vm::{Vm, can_boot, dock2uni, free_port};
use dock2uni::source::image::Compression;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

/// A VM under the translator on a loaded machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A registry with one image, and a store to convert it in.
struct Lab {
    reference: String,
    store: TempDir,
    _registry: Registry,
}

impl Lab {
    fn new(image: &str) -> Lab {
        let layout = test_images::build(image).unwrap();
        let registry = Registry::start();
        let reference = format!("{}/{image}:latest", registry.addr);
        common::run(
            Command::new("skopeo")
                .args(["copy", "--quiet", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:latest", layout.display()))
                .arg(format!("docker://{reference}")),
        );
        Lab { reference, store: tempfile::tempdir().unwrap(), _registry: registry }
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Vm {
        Vm::start(
            dock2uni()
                .args(["run", "--accel", "tcg"])
                .args(options)
                .arg(&self.reference)
                .args(command)
                .env("DOCK2UNI_STORE", self.store.path()),
        )
    }

    /// Runs to the end: exit status, and all that was printed.
    fn finish(&self, options: &[&str], command: &[&str]) -> (i32, String) {
        let mut vm = self.run(options, command);
        let code = vm.wait(PATIENCE);
        (code, vm.text())
    }
}

/// One GET on a connection of its own, until there is an answer.
fn get(port: u16, path: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = try_get(port, path);
        match answer {
            Ok(text) if text.starts_with("HTTP/1.1 200") => return text,
            other => assert!(Instant::now() < deadline, "no answer: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn try_get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Requests on one connection; returns how many were answered by 200 with the whole body.
fn keep_alive(port: u16, path: &str, count: usize) -> usize {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    // In one piece: Nagle's algorithm would hold the second one back for 40 ms.
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut good = 0;
    for _ in 0..count {
        stream.write_all(request.as_bytes()).unwrap();
        let mut status = String::new();
        reader.read_line(&mut status).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        good += usize::from(status.starts_with("HTTP/1.1 200") && length > 0);
    }
    good
}

/// The ways to start a machine that must all work.
const MACHINES: [&[&str]; 4] = [
    &["--machine", "q35"],
    &["--machine", "microvm"],
    &["--machine", "q35", "--boot", "disk"],
    &["--machine", "microvm", "--boot", "ram"],
];

#[test]
fn a_static_and_a_dynamic_program_print_and_exit() {
    if !can_boot() {
        return;
    }
    for image in ["hello-static", "hello-dynamic"] {
        let lab = Lab::new(image);
        for machine in MACHINES {
            let (code, text) = lab.finish(machine, &[]);
            assert_eq!(code, 0, "{image} {machine:?}: {text}");
            assert!(text.to_lowercase().contains("hello"), "{image} {machine:?}: {text}");
        }
    }
}

#[test]
fn shells_run_pipes_and_background_jobs_and_pass_their_status_on() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("busybox");
    let script = "echo one | tr a-z A-Z; sleep 0.1 & wait $!; echo two; exit 42";
    let (code, text) = lab.finish(&[], &["sh", "-c", script]);
    assert_eq!(code, 42, "{text}");
    assert!(text.contains("ONE\ntwo"), "{text}");
    // FIFOs, jobs side by side, and a job killed by a signal.
    let script = "sh -c 'kill -KILL $$'; echo killed $?; (sleep 0.3; echo behind) & echo before; \
                  wait; seq 2000 | sort -rn | head -n 1; \
                  mkfifo /tmp/f; cat /tmp/f & echo through >/tmp/f; wait; exit 0";
    let (code, text) = lab.finish(&[], &["sh", "-c", script]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("killed 137\nbefore\nbehind\n2000\nthrough"), "{text}");
    let (code, text) =
        lab.finish(&["-e", "GREETING=hi", "-w", "/tmp"], &["sh", "-c", "echo $GREETING; pwd"]);
    assert_eq!((code, text.as_str()), (0, "hi\n/tmp"));
}

#[test]
fn the_stop_signal_reaches_the_application_and_what_ignores_it_is_killed() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("busybox");
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 1; done";
    let mut vm = lab.run(&[], &["sh", "-c", script]);
    vm.wait_for("up", PATIENCE);
    vm.signal(Signal::TERM);
    assert_eq!(vm.wait(PATIENCE), 3, "{}", vm.text());
    assert!(vm.text().contains("bye"), "{}", vm.text());

    // The first process of a container is spared signals that it does not handle.
    let mut vm = lab.run(&["--stop-timeout", "2"], &["sh", "-c", "echo up; exec sleep 1000"]);
    vm.wait_for("up", PATIENCE);
    let asked = Instant::now();
    vm.signal(Signal::TERM);
    assert_eq!(vm.wait(PATIENCE), 137, "{}", vm.text());
    assert!(asked.elapsed() >= Duration::from_secs(2));
}

/// An image of one program, made of C source, and its store.
fn c_program(source: &str) -> (Layout, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("program.c"), source).unwrap();
    let compile = ["-static", "-O1", "-s", "-o", "program", "program.c"];
    common::run(Command::new("musl-gcc").args(compile).current_dir(dir.path()));
    let mut layout = Layout::new();
    let program = std::fs::read(dir.path().join("program")).unwrap();
    let image = layout.image(&ImageSpec {
        layers: vec![(common::layout::tar(&[("program", &program)]), Compression::Gzip)],
        config: json!({"Cmd": ["/program"]}),
        ..ImageSpec::default()
    });
    layout.name(image, "latest");
    (layout, dir)
}

#[test]
fn a_crash_is_reported_with_signal_address_and_file_offset() {
    if !can_boot() {
        return;
    }
    let (layout, store) =
        c_program("int main(void) { *(volatile int *)0x123450 = 1; return 0; }\n");
    let mut vm = Vm::start(
        dock2uni()
            .args(["run", "--accel", "tcg"])
            .arg(layout.path())
            .env("DOCK2UNI_STORE", store.path()),
    );
    assert_eq!(vm.wait(PATIENCE), 128 + 11, "{}", vm.text());
    let text = vm.text();
    assert!(text.contains("SIGSEGV at 0x123450, ip /program+0x"), "{text}");
}

#[test]
fn a_musl_program_runs() {
    if !can_boot() {
        return;
    }
    let (code, text) = Lab::new("alpine-like").finish(&[], &["/hello"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.to_lowercase().contains("hello"), "{text}");
}

#[test]
fn a_go_server_from_scratch_serves() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("go");
    let port = free_port();
    let mut vm = lab.run(&["-p", &format!("127.0.0.1:{port}:8080")], &[]);
    let answer = get(port, "/path");
    assert!(answer.contains("hello from go") && answer.contains(", /path"), "{answer}");
    vm.signal(Signal::TERM);
    assert_eq!(vm.wait(PATIENCE), 0, "{}", vm.text());
    assert!(vm.text().contains("stopping"), "{}", vm.text());
    // Its own status, from any goroutine.
    let port = free_port();
    let mut vm = lab.run(&["-p", &format!("127.0.0.1:{port}:8080"), "--cpus", "2"], &[]);
    get(port, "/");
    let _ = try_get(port, "/exit");
    assert_eq!(vm.wait(PATIENCE), 7, "{}", vm.text());
}

#[test]
fn nginx_serves_on_every_machine_and_stops_by_its_signal() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("nginx");
    for machine in MACHINES {
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:80");
        let mut vm = lab.run(&[machine, &["-p", &publish, "--cpus", "2"]].concat(), &[]);
        let answer = get(port, "/");
        assert!(answer.contains("Welcome to nginx!"), "{machine:?}: {answer}");
        assert_eq!(keep_alive(port, "/", 1000), 1000, "{machine:?}");
        vm.wait_for("GET / HTTP/1.1\" 200", PATIENCE);

        let asked = Instant::now();
        vm.signal(Signal::TERM);
        let code = vm.wait(PATIENCE);
        assert_eq!(code, 0, "{machine:?}: {}", vm.text());
        assert!(asked.elapsed() < Duration::from_secs(10), "{machine:?}");
    }
}

/// Has nginx name the worker in its answers, and become what the image starts.
const NAME_WORKERS: &str = "sed -i 's/index  index.html/add_header X-Worker $pid; &/' \
    /etc/nginx/conf.d/default.conf && exec /docker-entrypoint.sh nginx -g 'daemon off;'";

/// The worker that answered.
fn worker(answer: &str) -> Option<u32> {
    answer.lines().find_map(|line| line.strip_prefix("X-Worker: ")?.trim().parse().ok())
}

#[test]
fn two_workers_answer_twenty_thousand_connections_and_none_is_lost() {
    // QEMU's user network listens with a backlog of one: Linux drops, and at times resets, what comes
    // while two connections wait there, before QEMU or the guest have seen it.
    const CLIENTS: usize = 2;
    const EACH: usize = 20_000 / CLIENTS;
    if !can_boot() {
        return;
    }
    let lab = Lab::new("nginx");
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let tune = "NGINX_ENTRYPOINT_WORKER_PROCESSES_AUTOTUNE=1";
    let mut vm = lab.run(
        &["-p", &publish, "--cpus", "2", "-e", tune, "--entrypoint", "sh"],
        &["--", "-c", NAME_WORKERS],
    );
    get(port, "/");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            std::thread::spawn(move || {
                let (mut lost, mut workers) = (Vec::new(), BTreeSet::new());
                for _ in 0..EACH {
                    match try_get(port, "/") {
                        Ok(text)
                            if text.starts_with("HTTP/1.1 200")
                                && text.trim_end().ends_with("</html>") =>
                        {
                            workers.extend(worker(&text));
                        }
                        other => lost.push(format!("{other:?}")),
                    }
                }
                (lost, workers)
            })
        })
        .collect();
    let (mut lost, mut workers) = (Vec::new(), BTreeSet::new());
    for client in clients {
        let (some, seen) = client.join().unwrap();
        lost.extend(some);
        workers.extend(seen);
    }
    assert!(lost.is_empty(), "{} lost, first {}\n{}", lost.len(), lost[0], vm.text());
    assert_eq!(workers.len(), 2, "{workers:?}");

    vm.signal(Signal::TERM);
    assert_eq!(vm.wait(PATIENCE), 0);
    let logged = vm.seen.iter().filter(|line| line.contains("\"GET / HTTP/1.1\" 200")).count();
    assert!(logged >= 20_000, "{logged} lines in the access log");
}
