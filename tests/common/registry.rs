//! A real registry (Debian's `docker-registry`) on a free loopback port.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::run;

/// A running registry; it is stopped and its storage removed when dropped.
pub struct Registry {
    /// Where it listens, always on 127.0.0.1.
    pub addr: SocketAddr,
    dir: TempDir,
    child: Child,
    tls: bool,
    login: Option<(String, String)>,
}

/// What a registry shall ask of its clients.
#[derive(Default)]
pub struct Options {
    /// User name and password, checked against an htpasswd file.
    pub login: Option<(String, String)>,
    /// PEM files of the server's certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// More of its configuration, such as `notifications`.
    pub extra: String,
}

impl Registry {
    /// Starts a registry that speaks plain HTTP and lets everybody in.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts a registry with authentication or TLS.
    pub fn start_with(options: Options) -> Self {
        // Another process may take the port between choosing it and listening on it.
        for _ in 0..5 {
            if let Some(registry) = Self::try_start(&options) {
                return registry;
            }
        }
        panic!("docker-registry doesn't start; is the Debian package installed?");
    }

    fn try_start(options: &Options) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);

        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
             storage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {addr}\n",
            dir.path().join("storage").display()
        );
        if let Some((certificate, key)) = &options.tls {
            config += &format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.display(),
                key.display()
            );
        }
        if let Some((user, password)) = &options.login {
            let file = dir.path().join("htpasswd");
            let args = ["-Bbc".as_ref(), file.as_os_str(), user.as_ref(), password.as_ref()];
            run(Command::new("htpasswd").args(args));
            config += &format!(
                "auth:\n  htpasswd:\n    realm: dock2uni test\n    path: {}\n",
                file.display()
            );
        }
        config += &options.extra;
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();

        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(addr).is_err() {
            if child.try_wait().unwrap().is_some() || Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let (tls, login) = (options.tls.is_some(), options.login.clone());
        Some(Self { addr, dir, child, tls, login })
    }

    /// The full reference of `name` (`repository:tag`) in this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.addr)
    }

    /// Pushes one image, or an index with all its images, out of an OCI layout directory with
    /// skopeo and returns its full reference.
    pub fn push(&self, layout: &Path, layout_ref: &str, name: &str) -> String {
        self.push_with(layout, layout_ref, name, &["--all", "--preserve-digests"])
    }

    /// Like [`Registry::push`] with other arguments for `skopeo copy`, such as
    /// `--format v2s2`.
    pub fn push_with(&self, layout: &Path, layout_ref: &str, name: &str, args: &[&str]) -> String {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]).args(args);
        if let Some((user, password)) = &self.login {
            skopeo.arg(format!("--dest-creds={user}:{password}"));
        }
        skopeo
            .arg(format!("oci:{}:{layout_ref}", layout.display()))
            .arg(format!("docker://{}", self.reference(name)));
        run(&mut skopeo);
        self.reference(name)
    }

    /// The file that holds a blob's content, to damage it. `hex` is its SHA-256.
    pub fn blob_file(&self, hex: &str) -> PathBuf {
        let blobs = self.dir.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
