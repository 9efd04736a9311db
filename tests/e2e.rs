//! Real images from a real registry in real virtual machines.
//!
//! Each test pushes an image to a registry of its own, and runs it as a user would.

mod common;
#[path = "e2e/network.rs"]
mod network;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use common::http::{get, keep_alive, try_get};
use common::lab::{Lab, PATIENCE};
use common::layout::{ImageSpec, Layout};
use common::vm::{Vm, can_boot, dock2uni, free_port};
use dock2uni::source::image::Compression;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

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
