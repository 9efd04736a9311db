//! A PostgreSQL of the tests' own, on a free port of 127.0.0.1. It refuses to run as root, so root
//! starts it as the user `postgres`, which the Debian package makes.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::common::run;
use super::common::vm::free_port;

/// A cluster; it ends when this is dropped.
pub struct Postgres {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    databases: AtomicUsize,
    user: Option<(u32, u32)>,
}

/// Where Debian has the newest server's programs.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path().join("bin")).collect();
    found.sort();
    found.pop().expect("postgresql is installed")
}

/// User and group ID of `postgres`, if this is root.
fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = line.expect("postgresql is installed").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

impl Postgres {
    /// Makes a cluster and starts it with these settings.
    pub fn start(settings: &[&str]) -> Postgres {
        let dir = tempfile::tempdir().unwrap();
        let user = user();
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let mut postgres =
            Postgres { dir, port: free_port(), child: None, databases: AtomicUsize::new(0), user };
        let mut initdb = postgres.command("initdb");
        initdb.args(["--auth=trust", "--username=d2u", "--no-sync", "--no-instructions", "-D"]);
        run(initdb.arg(postgres.data()));
        let mut config = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\n\
             max_connections = 100\nshared_buffers = 16MB\n",
            postgres.port
        );
        for setting in settings {
            config += &format!("{setting}\n");
        }
        let path = postgres.data().join("postgresql.auto.conf");
        std::fs::write(path, config).unwrap();
        postgres.launch();
        postgres
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        // It goes with the thread that it belongs to.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).current_dir("/");
        if let Some((uid, gid)) = self.user {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
            command.arg("--clear-groups");
        }
        command.arg(programs().join(program));
        command
    }

    fn launch(&mut self) {
        let end = Instant::now() + Duration::from_secs(180);
        while !self.answers() {
            // It refuses to start while a process of its killed predecessor lives.
            let ended = self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            if ended {
                let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
                let mut command = self.command("postgres");
                command.arg("-D").arg(self.data()).stdin(Stdio::null()).stdout(Stdio::null());
                self.child = Some(command.stderr(log).spawn().unwrap());
            }
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(Instant::now() < end, "PostgreSQL doesn't start:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        let port = self.port.to_string();
        let args = ["-q", "-h", "127.0.0.1", "-p", &port, "-U", "d2u"];
        self.command("pg_isready").args(args).status().is_ok_and(|status| status.success())
    }

    /// A new, empty database.
    pub fn database(&self) -> String {
        let name = format!("d2u{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://d2u@127.0.0.1:{}/{name}", self.port)
    }

    fn sql(&self, database: &str, sql: &str) {
        let port = self.port.to_string();
        run(Command::new("psql").args([
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "d2u",
            "-d",
            database,
            "-c",
            sql,
        ]));
    }

    /// Kills it at once and starts it again; its processes notice and end.
    pub fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.launch();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            // Immediate shutdown.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            let _ = child.wait();
        }
    }
}
