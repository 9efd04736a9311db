//! Debian's PostgreSQL on a free loopback port, with `fsync` on. It refuses to run as root, so root
//! starts it as the user `postgres`.

use std::cell::Cell;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench_convert::Result;

/// A cluster; it ends when this is dropped.
pub struct Postgres {
    port: u16,
    child: Child,
    databases: Cell<usize>,
}

/// The newest server's programs.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").map_err(|_| "install postgresql first")?;
    let found = versions.flatten().map(|entry| entry.path().join("bin")).max();
    found.ok_or_else(|| "install postgresql first".into())
}

impl Postgres {
    /// Makes a cluster in `dir` and starts it.
    pub fn start(dir: &Path) -> Result<Postgres> {
        fs::create_dir_all(dir)?;
        let programs = programs()?;
        let mut prefix = vec!["setpriv".to_owned(), "--pdeathsig=KILL".to_owned()];
        if fs::metadata("/proc/self")?.uid() == 0 {
            let passwd = fs::read_to_string("/etc/passwd")?;
            let line = passwd.lines().find(|line| line.starts_with("postgres:"));
            let fields: Vec<&str> = line.ok_or("no user postgres")?.split(':').collect();
            let (uid, gid) = (fields[2].parse()?, fields[3].parse()?);
            chown(dir, Some(uid), Some(gid))?;
            // The way there is a temporary directory of root's.
            let parent = dir.parent().ok_or("no parent directory")?;
            fs::set_permissions(parent, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
            prefix.extend([format!("--reuid={uid}"), format!("--regid={gid}")]);
            prefix.push("--clear-groups".to_owned());
        }
        let command = |program: &str| {
            let mut command = Command::new(&prefix[0]);
            command.args(&prefix[1..]).arg(programs.join(program)).current_dir("/");
            command
        };
        let data = dir.join("data");
        let made = command("initdb")
            .args(["--auth=trust", "--username=d2u", "--no-instructions", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()?;
        if !made.success() {
            return Err("initdb failed".into());
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n"
        );
        fs::write(data.join("postgresql.auto.conf"), settings)?;
        let child = command("postgres")
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log"))?)
            .spawn()?;
        let postgres = Postgres { port, child, databases: Cell::new(0) };
        let begun = Instant::now();
        while postgres.sql("SELECT 1").is_err() {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(fs::read_to_string(dir.join("log"))?.into());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(postgres)
    }

    fn sql(&self, statement: &str) -> Result<()> {
        let port = self.port.to_string();
        let output = Command::new("psql")
            .args(["-q", "-h", "127.0.0.1", "-p", &port, "-U", "d2u", "-d", "postgres", "-c"])
            .arg(statement)
            .output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
        }
    }

    /// The address of a new, empty database.
    pub fn database(&self) -> Result<String> {
        let number = self.databases.replace(self.databases.get() + 1);
        self.sql(&format!("CREATE DATABASE d2u{number}"))?;
        Ok(format!("postgres://d2u@127.0.0.1:{}/d2u{number}", self.port))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown, which takes its processes along.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &id]).status();
        let _ = self.child.wait();
    }
}
