//! `dock2uni fleet up`, `ps`, `logs` and `down`, with VMs under the translator.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common;
use crate::common::registry::Registry;
use crate::common::vm::{can_boot, dock2uni, free_port};

/// Four VMs under the translator on a loaded machine take their time.
const PATIENCE: Duration = Duration::from_secs(300);

/// A directory with a Compose file, and a place for all that is kept; the fleet ends with it.
pub struct Place {
    dir: tempfile::TempDir,
    _registry: Registry,
}

impl Place {
    /// Brings these test images into a registry; `IMAGE(name)` in the Compose file names one.
    fn new(images: &[&str], compose: &str) -> Place {
        Place::with(images, "compose.yaml", compose)
    }

    /// The same with a description of another name.
    pub fn with(images: &[&str], name: &str, text: &str) -> Place {
        let registry = Registry::start();
        let mut text = text.to_owned();
        for image in images {
            let layout = test_images::build(image).unwrap();
            let reference = registry.push_with(&layout, "latest", &format!("{image}:1"), &[]);
            text = text.replace(&format!("IMAGE({image})"), &reference);
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("project")).unwrap();
        fs::write(dir.path().join("project").join(name), text).unwrap();
        Place { dir, _registry: registry }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = dock2uni();
        command
            .arg("fleet")
            .args(args)
            .current_dir(self.dir.path().join("project"))
            .env("DOCK2UNI_STORE", self.dir.path().join("store"))
            .env("DOCK2UNI_FLEETS", self.dir.path().join("fleets"))
            .env("DOCK2UNI_VOLUMES", self.dir.path().join("volumes"))
            .env_remove("COMPOSE_PROJECT_NAME")
            .env_remove("COMPOSE_PROFILES")
            .stdin(Stdio::null());
        command
    }

    pub fn fleet(&self, args: &[&str]) -> Output {
        common::output(&mut self.command(args))
    }

    /// Standard output of a command that succeeds.
    pub fn good(&self, args: &[&str]) -> String {
        let output = self.fleet(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}\n{}", self.logs());
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn logs(&self) -> String {
        String::from_utf8_lossy(&self.fleet(&["logs"]).stdout).into_owned()
    }

    fn instances(&self) -> Vec<Value> {
        let all: Value = serde_json::from_str(&self.good(&["ps", "--json"])).unwrap();
        all[0]["instances"].as_array().unwrap().clone()
    }

    fn instance(&self, name: &str) -> Value {
        self.instances().into_iter().find(|instance| instance["name"] == name).unwrap()
    }

    /// Waits until an instance's state is as wanted.
    pub fn wait(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let instance = self.instance(name);
            if wanted(&instance) {
                return instance;
            }
            assert!(started.elapsed() < PATIENCE, "{instance:#}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        common::output(&mut self.command(&["down", "--kill"]));
    }
}

/// The body of what a server answers to GET, when it answers with 200.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(120))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: shop\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

fn copy(from: &Path, to: &Path) {
    common::run(Command::new("cp").arg("-r").arg(from).arg(to));
}

/// The example that users see, with images of ours in the place of the official ones. Takes minutes;
/// what it stands on is tested by the smaller fleets below. To run it:
///
///     cargo test --test fleet -- --ignored nginx_python_redis
#[test]
#[ignore = "boots nginx, Python, Redis and PostgreSQL: cargo test --test fleet -- --ignored"]
fn nginx_python_redis_and_postgres_answer_together() {
    if !can_boot() {
        return;
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shop");
    let mut compose = fs::read_to_string(example.join("compose.yaml")).unwrap();
    let port = free_port();
    for (old, new) in [
        ("image: nginx:1.27", "image: IMAGE(nginx)"),
        ("image: redis:7", "image: IMAGE(redis)"),
        ("image: postgres:15", "image: IMAGE(postgres)"),
        // Here a worker may take longer to answer than the example has patience for.
        (
            "build: ./app",
            "image: IMAGE(python-shop)\n    command: gunicorn --timeout 3600 --bind 0.0.0.0:8000 app:app",
        ),
        // The first start of a database may take long on a machine that does much else.
        ("start_period: 300s", "start_period: 3600s"),
        ("127.0.0.1:8080:80", &format!("127.0.0.1:{port}:80")),
    ] {
        assert!(compose.contains(old), "{old}");
        compose = compose.replace(old, new);
    }
    let place = Place::new(&["nginx", "redis", "postgres", "python-shop"], &compose);
    for part in ["web", "db-password.txt"] {
        copy(&example.join(part), &place.dir.path().join("project"));
    }
    let table = place.good(&["up", "--detach", "--accel", "tcg"]);
    assert!(table.contains(&format!("127.0.0.1:{port}->80/tcp")), "{table}");
    // `web` waits for `app` to be healthy, and that for `db`: so all of them are up.
    for name in ["db-1", "app-1"] {
        assert_eq!(place.instance(name)["health"], "healthy", "{}", place.logs());
    }
    let started = Instant::now();
    let mut counted = Vec::new();
    while counted.len() < 2 {
        assert!(started.elapsed() < PATIENCE, "{counted:?}\n{}", place.logs());
        match get(port, "/") {
            Some(body) => counted.push(serde_json::from_str::<Value>(&body).unwrap()),
            None => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    assert_eq!(counted[1]["served_by"], "app-1");
    let number = |of: &Value, key: &str| of[key].as_i64().unwrap();
    assert_eq!(number(&counted[1], "visit"), number(&counted[0], "visit") + 1, "{counted:?}");
    assert_eq!(number(&counted[1], "rows"), number(&counted[0], "rows") + 1, "{counted:?}");
    assert!(get(port, "/static/about.html").unwrap().contains("Open all day"));

    let logs = place.good(&["logs", "db"]);
    assert!(logs.contains("ready to accept connections"), "{logs}");
    assert!(!logs.contains("app-1"), "{logs}");
    let output = place.fleet(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is running already"));

    place.good(&["down"]);
    assert!(get(port, "/").is_none());
    let left = fs::read_dir(place.dir.path().join("volumes")).unwrap();
    let mut left: Vec<String> =
        left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.retain(|name| name.ends_with(".ext4"));
    left.sort();
    assert_eq!(left, ["shop_cache.ext4", "shop_db.ext4"]);
    assert!(!place.dir.path().join("fleets/shop").exists());
}

const SMALL: &str = r#"
services:
  # Two of them behind one name.
  echo:
    image: IMAGE(busybox)
    command: sh -c 'mkdir /www; hostname > /www/name; httpd -f -p 80 -h /www'
    deploy: {replicas: 2}
    mem_limit: 64m
  prepare:
    image: IMAGE(busybox)
    command: sh -c 'echo prepared > /shared/file'
    volumes: ["shared:/shared"]
    mem_limit: 64m
  client:
    image: IMAGE(busybox)
    command: ["sh", "/ask.sh"]
    volumes: ["shared:/shared:ro"]
    configs: [{source: script, target: /ask.sh}]
    depends_on:
      prepare: {condition: service_completed_successfully}
      echo: {condition: service_started}
    mem_limit: 64m
    restart: on-failure:1
  never:
    image: IMAGE(busybox)
    command: sh -c 'echo I was started'
    depends_on: {client: {condition: service_completed_successfully}}
    mem_limit: 64m
volumes: {shared: {}}
configs:
  script:
    content: |
      cat /shared/file
      for name in echo-1 echo-2; do
        until wget -q -O - http://$$name/name; do sleep 1; done
      done
      nslookup -type=a echo 10.0.2.3
      echo "asked by $$(hostname)"
      exit 3
"#;

#[test]
fn names_order_volumes_configs_and_restarts_are_as_compose_has_them() {
    if !can_boot() {
        return;
    }
    let place = Place::new(&["busybox"], SMALL);
    let output = place.fleet(&["up", "-d", "--accel", "tcg"]);
    // `client` fails, and `never` with it.
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}\n{}", place.logs());
    let client = place.wait("client-1", |client| client["phase"] == "exited");
    assert_eq!((&client["exit"], &client["restarts"]), (&3.into(), &1.into()), "{client:#}");
    let never = place.wait("never-1", |never| never["phase"] == "failed");
    assert!(never["reason"].as_str().unwrap().contains("status 3"), "{never:#}");
    assert_eq!(place.instance("prepare-1")["exit"], 0);
    let logs = place.good(&["logs", "client", "never"]);
    for text in ["prepared", "echo-1", "echo-2", "asked by client-1"] {
        assert_eq!(logs.matches(&format!("| {text}\n")).count(), 2, "{text}: {logs}");
    }
    for address in ["10.0.2.16", "10.0.2.17"] {
        assert!(logs.contains(address), "{logs}");
    }
    assert!(!logs.contains("I was started"), "{logs}");
    assert_eq!(place.instance("echo-2")["phase"], "running");

    let mut follow = place.command(&["logs", "-f", "--tail", "0", "echo"]).spawn().unwrap();
    place.good(&["down", "--volumes"]);
    // It ends with the fleet.
    let started = Instant::now();
    while follow.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    let volumes = fs::read_dir(place.dir.path().join("volumes")).unwrap();
    let left: Vec<_> = volumes.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.as_encoded_bytes().ends_with(b".ext4")), "{left:?}");
}

#[test]
fn an_interrupt_stops_a_fleet_that_is_watched_and_a_killed_one_leaves_nothing() {
    if !can_boot() {
        return;
    }
    let compose = "services:\n  one:\n    image: IMAGE(busybox)\n    command: sh -c 'trap \"echo told to \
                   stop; exit 0\" TERM; echo up; while :; do sleep 1; done'\n    mem_limit: \
                   64m\n";
    let place = Place::new(&["busybox"], compose);
    let log = place.dir.path().join("output");
    let mut watched = place
        .command(&["up", "--accel", "tcg"])
        .stdout(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !fs::read_to_string(&log).unwrap().contains("one-1        | up") {
        assert!(started.elapsed() < PATIENCE && watched.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = rustix::process::Pid::from_child(&watched);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(watched.wait().unwrap().code(), Some(0));
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("told to stop"), "{text}");
    assert_eq!(place.instance("one-1")["phase"], "stopped");

    // Its supervisor, killed, takes its VMs along; `ps` says so, and it can be started again.
    place.good(&["up", "-d", "--accel", "tcg"]);
    let supervisor = supervisor_of(&place.dir.path().join("fleets/project"));
    let pid = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let one = place.wait("one-1", |one| one["phase"] == "failed");
    assert!(one["reason"].as_str().unwrap().contains("killed"), "{one:#}");
    place.good(&["up", "-d", "--accel", "tcg"]);
    assert_eq!(place.instance("one-1")["phase"], "running");
    place.good(&["down"]);
}

/// The process that was started with a fleet's directory.
fn supervisor_of(dir: &Path) -> i32 {
    let wanted = format!("__fleet\0{}\0", dir.display());
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .find(|pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.ends_with(&wanted))
        })
        .expect("the fleet has a supervisor")
}
