//! Debian's `docker-registry` on a free loopback port.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Result, process_cpu};

/// A running registry; stopped when dropped.
pub struct Registry {
    pub address: SocketAddr,
    child: Child,
}

impl Registry {
    /// Starts a registry whose storage is under `dir`.
    pub fn start(dir: &Path) -> Result<Registry> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = dir.join("registry.yml");
        let storage = dir.join("registry");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
                storage.display()
            ),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run docker-registry: {error}"))?;
        let registry = Registry { address, child };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if started.elapsed() > Duration::from_secs(20) {
                return Err("docker-registry does not answer".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Registry {
    /// CPU time that it has used.
    pub fn cpu(&self) -> Result<Duration> {
        process_cpu(self.child.id())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It holds nothing that needs an orderly stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
