//! Real images from a real registry in real virtual machines.
//!
//! Each test pushes an image to a registry of its own, and runs it as a user would.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use common::registry::Registry;
use common::vm::{Vm, can_boot, dock2uni, free_port};
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
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Requests on one connection; returns how many were answered by 200 with the whole body.
fn keep_alive(port: u16, path: &str, count: usize) -> usize {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut good = 0;
    for _ in 0..count {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
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
    // Killed by a signal, as a shell would report it.
    let (code, text) = lab.finish(&[], &["sh", "-c", "kill -KILL $$"]);
    assert_eq!(code, 137, "{text}");
    let (code, text) =
        lab.finish(&["-e", "GREETING=hi", "-w", "/tmp"], &["sh", "-c", "echo $GREETING; pwd"]);
    assert_eq!((code, text.as_str()), (0, "hi\n/tmp"));
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
    let vm = lab.run(&["-p", &format!("127.0.0.1:{port}:8080")], &[]);
    let answer = get(port, "/");
    assert!(answer.contains("\r\n\r\n"), "{answer}");
    drop(vm);
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
        vm.signal(rustix::process::Signal::TERM);
        let code = vm.wait(PATIENCE);
        assert_eq!(code, 0, "{machine:?}: {}", vm.text());
        assert!(asked.elapsed() < Duration::from_secs(10), "{machine:?}");
    }
}

#[test]
fn twenty_thousand_connections_are_all_answered() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("nginx");
    let port = free_port();
    let _vm = lab.run(&["-p", &format!("127.0.0.1:{port}:80")], &[]);
    get(port, "/");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                (0..5_000)
                    .filter(|_| {
                        try_get(port, "/").is_ok_and(|text| {
                            text.starts_with("HTTP/1.1 200") && text.contains("Welcome to nginx!")
                        })
                    })
                    .count()
            })
        })
        .collect();
    let good: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(good, 20_000);
}
