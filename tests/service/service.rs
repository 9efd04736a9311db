//! A running `dock2uni serve` or `worker`, and a client of its API.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::common::http::exchange;
use super::common::vm::{dock2uni, free_port};

pub const PATIENCE: Duration = Duration::from_secs(180);
/// Of the token that [`config`] knows.
pub const TOKEN: &str = "test-token";

/// The beginning of a configuration: server, workers, a directory for results, a token.
pub fn config(dir: &Path, port: u16, workers: usize) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\nstate = \"{0}/state\"\nrate = 5000\n\
         public_metrics = true\n\
         [workers]\ncount = {workers}\n\
         [outgoing]\nallow = [\"127.0.0.0/8\"]\nretries = 1\n\
         [[destination]]\nname = \"images\"\ndirectory = \"{0}/images\"\n\
         [[token]]\nname = \"test\"\nsecret = \"{TOKEN}\"\n\
         scopes = [\"jobs:read\", \"jobs:write\", \"results:read\", \"admin\"]\n",
        dir.display()
    )
}

/// A process of the service; it is killed when this is dropped.
pub struct Service {
    pub port: u16,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts a server and waits until it answers.
    pub fn serve(dir: &Path, port: u16, config: &str) -> Service {
        let service = Service::start(dir, port, config, "serve");
        service.wait_ready();
        service
    }

    /// Starts workers.
    pub fn worker(dir: &Path, config: &str) -> Service {
        Service::start(dir, 0, config, "worker")
    }

    pub fn start(dir: &Path, port: u16, config: &str, what: &str) -> Service {
        Service::start_with(dir, port, config, what, &[])
    }

    /// Starts one with variables of its own.
    pub fn start_with(
        dir: &Path,
        port: u16,
        config: &str,
        what: &str,
        environment: &[(&str, &str)],
    ) -> Service {
        let file = dir.join("service.toml");
        std::fs::write(&file, config).unwrap();
        let log = dir.join(format!("{what}-{}.log", free_port()));
        let child = dock2uni()
            .arg(what)
            .arg(&file)
            .args(["--log", "json"])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Service { port, child, log }
    }

    pub fn wait_ready(&self) {
        self.until("ready", || {
            exchange(self.port, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
    }

    /// Waits for something; panics with the log if it does not come.
    pub fn until(&self, what: &str, mut there: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !there() {
            assert!(Instant::now() < end, "not {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills it at once.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits; returns its exit status.
    pub fn end(&mut self) -> i32 {
        self.signal(Signal::TERM);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "it doesn't end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One request with the token: status and body.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.ask_as(TOKEN, method, path, body)
    }

    pub fn ask_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let headers = format!("Authorization: Bearer {token}\r\nContent-Type: application/json");
        let (status, body) = request(self.port, method, path, &headers, &body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()));
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// Submits an image and returns the job's name.
    pub fn submit(&self, image: &str) -> String {
        let body = json!({ "image": image, "destinations": ["images"] });
        let (status, answer) = self.ask("POST", "/api/v1/jobs", Some(&body));
        assert!(status == 201 || status == 200, "{status} {answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// The job once it is over.
    pub fn over(&self, id: &str) -> Value {
        let mut job = Value::Null;
        self.until("over", || {
            job = self.ask("GET", &format!("/api/v1/jobs/{id}"), None).1;
            !matches!(job["state"].as_str(), Some("queued" | "running"))
        });
        job
    }

    /// The value of a metric's line that begins like this.
    pub fn metric(&self, line: &str) -> f64 {
        let (_, text) = request(self.port, "GET", "/metrics", "X: x", "").unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        found.map_or(0.0, |rest| rest.trim().parse().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own: status and body.
pub fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let length = body.len();
    let answer = exchange(
        port,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    )?;
    let mut reader = BufReader::new(answer.as_bytes());
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

/// The published results below a directory: those with a manifest, and all files in all of them.
pub fn published(images: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![images.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.file_name().is_some_and(|name| name == ".staging") {
                continue;
            }
            if path.is_dir() {
                todo.push(path);
            } else if path.file_name().is_some_and(|name| name == "result.json") {
                found.push(dir.clone());
            }
        }
    }
    found.sort();
    found
}
