//! Applications on language runtimes and of several processes, in images shaped like the official
//! ones: they start, answer their clients and stop as they do in a container.

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use common::apps::assert_well;
use common::http::{fetch, get, get_within, keep_alive};
use common::lab::Lab;
use common::vm::{Vm, can_boot, free_port};
use rustix::process::Signal;

/// Interpreters load a lot of code before they answer, and the translator takes its time.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs an image with a port of its own forwarded, and waits for the first answer.
fn serve(lab: &Lab, guest_port: u16, options: &[&str], command: &[&str]) -> (Vm, u16) {
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:{guest_port}");
    // A loaded machine needs longer to stop well.
    let own = ["-p", &publish, "--stop-timeout", "120"];
    let vm = lab.run(&[&own, options].concat(), command);
    get_within(port, "/", PATIENCE);
    (vm, port)
}

/// Asks it to stop and returns its exit status.
fn stop(vm: &mut Vm) -> i32 {
    vm.signal(Signal::TERM);
    let status = vm.wait(PATIENCE);
    assert_well(&vm.text());
    status
}

/// The bodies of answers to `count` requests, each on a connection of its own.
fn answers(port: u16, path: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|_| body(&get(port, path))).collect()
}

fn body(answer: &str) -> String {
    answer.split_once("\r\n\r\n").map_or(answer, |(_, body)| body).trim().to_owned()
}

/// Stops it and starts it again with other numbers of processors, a few requests each.
fn with_other_processors(lab: &Lab, guest_port: u16, options: &[&str], status: i32) {
    for cpus in ["1", "4"] {
        let (mut vm, port) = serve(lab, guest_port, &[options, &["--cpus", cpus]].concat(), &[]);
        for _ in 0..5 {
            get(port, "/");
        }
        assert_eq!(stop(&mut vm), status, "{cpus} processors: {}", vm.text());
    }
}

#[test]
fn a_static_rust_server_of_tokio() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("rust");
    for cpus in ["1", "2", "4"] {
        let (mut vm, port) = serve(&lab, 8080, &["--cpus", cpus], &[]);
        for (path, answer) in [
            ("/path", "hello from rust, /path"),
            ("/nap", "napped"),
            ("/blocking", "499500"),
            ("/file", "server"),
            ("/channel", "1000"),
        ] {
            assert_eq!(body(&get(port, path)), answer, "{path}");
        }
        let long = "x".repeat(200_000);
        assert_eq!(body(&fetch(port, "POST", "/echo", &long).unwrap()), long);
        assert_eq!(keep_alive(port, "/", 200), 200);
        assert_eq!(stop(&mut vm), 0, "{}", vm.text());
        assert!(vm.text().contains("stopping"), "{}", vm.text());
    }
}

#[test]
fn a_script_that_starts_two_services_and_waits_for_them() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("services");
    for cpus in ["1", "2", "4"] {
        let redis = free_port();
        let publish = format!("127.0.0.1:{redis}:6379");
        let (mut vm, port) = serve(&lab, 80, &["--cpus", cpus, "-p", &publish], &[]);
        assert!(get(port, "/").contains("Welcome to nginx!"));
        let pong = common::http::exchange(redis, "SET key value\r\nGET key\r\nQUIT\r\n").unwrap();
        assert_eq!(pong, "+OK\r\n$5\r\nvalue\r\n+OK\r\n");
        if cpus == "2" {
            // One of them ends: so does the other, and the status says that this was no stop.
            common::http::exchange(redis, "SHUTDOWN\r\n").unwrap();
            assert_eq!(vm.wait(PATIENCE), 1, "{}", vm.text());
            assert!(vm.text().contains("a service ended with 0"), "{}", vm.text());
        } else {
            assert_eq!(stop(&mut vm), 0, "{}", vm.text());
            assert!(vm.text().contains("stopping both"), "{}", vm.text());
            assert!(vm.text().contains("Redis is now ready to exit"), "{}", vm.text());
        }
    }
}

#[test]
fn gunicorn_with_three_workers_and_flask() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("python-flask");
    let (mut vm, port) = serve(&lab, 8000, &["--cpus", "2"], &[]);
    // Whichever worker is awake first answers; with time another one is.
    let begun = Instant::now();
    while answers(port, "/", 20).len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "one worker answers everything");
    }
    let sent = "form=".to_owned() + &"x".repeat(50_000);
    assert_eq!(body(&fetch(port, "POST", "/echo", &sent).unwrap()), sent);
    // A worker that is killed is replaced.
    assert!(fetch(port, "GET", "/crash", "").is_ok_and(|text| text.is_empty()));
    vm.wait_for("terminated due to signal 9", PATIENCE);
    vm.wait_for("Booting worker", PATIENCE);
    // A request that is under way when the stop comes is answered.
    let slow = std::thread::spawn(move || fetch(port, "GET", "/slow", ""));
    vm.wait_for("slow begins", PATIENCE);
    assert_eq!(stop(&mut vm), 0, "{}", vm.text());
    assert_eq!(body(&slow.join().unwrap().unwrap()), "slow ends");
    assert!(vm.text().contains("Shutting down: Master"), "{}", vm.text());
    with_other_processors(&lab, 8000, &[], 0);
}

#[test]
fn uvicorn_with_fastapi() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("python-fastapi");
    let (mut vm, port) = serve(&lab, 8000, &["--cpus", "2"], &[]);
    for (path, answer) in [
        ("/", r#"{"hello":"from fastapi"}"#),
        ("/nap", r#"{"napped":true}"#),
        ("/thread", r#"{"main":false}"#),
        ("/child", r#"{"status":5,"text":"got it\n"}"#),
    ] {
        assert_eq!(body(&get(port, path)), answer, "{path}");
    }
    assert_eq!(keep_alive(port, "/", 50), 50);
    assert_eq!(stop(&mut vm), 0, "{}", vm.text());
    assert!(vm.text().contains("stopped"), "{}", vm.text());
    with_other_processors(&lab, 8000, &[], 0);
}

#[test]
fn node_with_express() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("node");
    let (mut vm, port) = serve(&lab, 3000, &["--cpus", "2"], &[]);
    for (path, answer) in [
        ("/", "hello from express"),
        ("/scrypt", "745731af4484f323968969eda289aeee005b5903ac561e64a5aca121797bf773"),
        ("/lookup", "::1"),
        ("/child", r#"{"status":5,"out":"out\n","err":"err\n"}"#),
        ("/worker", "answer 42"),
    ] {
        assert_eq!(body(&get(port, path)), answer, "{path}");
    }
    let file = body(&get(port, "/file"));
    assert_eq!(file, include_str!("images/files/node/server.js").trim());
    assert_eq!(keep_alive(port, "/", 100), 100);
    assert_eq!(stop(&mut vm), 0, "{}", vm.text());
    assert!(vm.text().contains("stopping"), "{}", vm.text());
    with_other_processors(&lab, 3000, &[], 0);
}

#[test]
fn a_node_cluster_hands_connections_to_its_workers() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("node");
    let (mut vm, port) = serve(&lab, 3000, &["--cpus", "2", "-m", "384m"], &["cluster.js"]);
    for _ in 0..3 {
        vm.wait_for("listens", PATIENCE);
    }
    assert_eq!(answers(port, "/", 30).len(), 3);
    assert!(fetch(port, "GET", "/crash", "").is_ok_and(|text| text.is_empty()));
    vm.wait_for("worker ended with SIGKILL", PATIENCE);
    vm.wait_for("listens", PATIENCE);
    assert_eq!(answers(port, "/", 30).len(), 3);
    assert_eq!(stop(&mut vm), 0, "{}", vm.text());
    assert!(vm.text().contains("all workers ended"), "{}", vm.text());
}

#[test]
fn java_with_several_threads_for_g1() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("java");
    // The JVM tells its shell that a signal ended it, once its hooks have run.
    let status = 128 + Signal::TERM.as_raw();
    let (mut vm, port) = serve(&lab, 8080, &["--cpus", "2"], &[]);
    assert_eq!(body(&get(port, "/")), "hello from java");
    assert_eq!(body(&get(port, "/null")), "caught 5000");
    let clients: Vec<_> =
        (0..2).map(|_| std::thread::spawn(move || keep_alive(port, "/garbage", 6))).collect();
    assert_eq!(clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>(), 12);
    let collections = body(&get(port, "/collections"));
    let count: u32 = collections.strip_prefix("collections ").unwrap().parse().unwrap();
    assert!(count > 0, "{collections}");
    assert_eq!(stop(&mut vm), status, "{}", vm.text());
    assert!(vm.text().contains("listening, 2 processors"), "{}", vm.text());
    assert!(vm.text().contains("stopped"), "{}", vm.text());
    with_other_processors(&lab, 8080, &[], status);
}

#[test]
fn rabbitmq_keeps_messages_until_they_are_fetched() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("rabbitmq");
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:5672");
    let options = ["-p", &publish, "--cpus", "2", "-m", "768m", "--stop-timeout", "120"];
    let mut vm = lab.run(&options, &[]);
    vm.wait_for("completed with 0 plugins", 2 * PATIENCE);
    let client = |program: &str, words: &[&str]| {
        let url = format!("--url=amqp://guest:guest@127.0.0.1:{port}");
        let output = common::run(Command::new(program).arg(url).args(words));
        String::from_utf8(output.stdout).unwrap()
    };
    client("amqp-declare-queue", &["--queue=jobs", "--durable"]);
    for number in 0..10 {
        let body = format!("--body=job {number}");
        client("amqp-publish", &["--routing-key=jobs", "--persistent", &body]);
    }
    for number in 0..10 {
        assert_eq!(client("amqp-get", &["--queue=jobs"]), format!("job {number}"));
    }
    assert_eq!(stop(&mut vm), 0, "{}", vm.text());
    assert!(vm.text().contains("SIGTERM received - shutting down"), "{}", vm.text());
}

#[test]
fn ruby_with_puma() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("ruby-puma");
    let (mut vm, port) = serve(&lab, 9292, &["--cpus", "2"], &[]);
    let deadline = Instant::now() + PATIENCE;
    while answers(port, "/", 10).len() < 2 {
        assert!(Instant::now() < deadline, "one worker answers everything");
    }
    assert_eq!(body(&get(port, "/threads")), "sum 6");
    assert_eq!(body(&get(port, "/child")), "through cat, 0");
    assert!(fetch(port, "GET", "/crash", "").is_ok_and(|text| text.is_empty()));
    vm.wait_for(", phase: 0", PATIENCE);
    assert_eq!(stop(&mut vm), 0, "{}", vm.text());
    assert!(vm.text().contains("Goodbye!"), "{}", vm.text());
    with_other_processors(&lab, 9292, &[], 0);
}
