//! Image references: what the user writes to name an image.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::digest::Digest;
use super::error::Error;

/// Where an image is and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// In a registry.
    Registry(Name),
    /// In an OCI layout directory, by the name in its `index.json`.
    OciLayout {
        /// The directory.
        path: PathBuf,
        /// `org.opencontainers.image.ref.name` of the image.
        name: Option<String>,
    },
    /// In an OCI layout packed into a tar file, compressed or not.
    OciArchive {
        /// The file; `-` is standard input.
        path: PathBuf,
        /// `org.opencontainers.image.ref.name` of the image.
        name: Option<String>,
    },
    /// In a file as `docker save` writes it, compressed or not.
    DockerArchive {
        /// The file; `-` is standard input.
        path: PathBuf,
        /// A name and tag out of its `manifest.json`.
        name: Option<String>,
    },
    /// A tar file of either form; its content tells.
    Archive {
        /// The file; `-` is standard input.
        path: PathBuf,
    },
    /// In an engine on this machine, or one that its environment variables name.
    Engine {
        /// Which.
        engine: Engine,
        /// The image's name or ID there.
        name: String,
    },
    /// In containerd's image store.
    Containerd {
        /// The image's name there, as it is or as Docker would complete it.
        name: String,
    },
}

/// A daemon that keeps images and hands them out over its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// dockerd.
    Docker,
    /// `podman system service`.
    Podman,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "the Docker daemon",
            Self::Podman => "Podman",
        })
    }
}

/// The name of an image in a registry.
#[derive(Clone, Debug)]
pub struct Name {
    /// Registry as `host` or `host:port`; `docker.io` stands for Docker Hub.
    pub host: String,
    /// Path of the repository, such as `library/nginx`.
    pub repository: String,
    /// The tag; `latest` if the user gave neither tag nor digest.
    pub tag: Option<String>,
    /// The digest of a manifest or index. Wins over the tag.
    pub digest: Option<Digest>,
    /// The repository as it was written, if no registry was: `nginx`. What it stands for is Docker
    /// Hub's, unless the machine's configuration of registries says otherwise.
    pub short: Option<String>,
}

/// Names are equal if they mean the same, however they were written.
impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        let parts = |name: &Self| (name.digest, name.tag.clone());
        (&self.host, &self.repository, parts(self))
            == (&other.host, &other.repository, parts(other))
    }
}

impl Eq for Name {}

impl Reference {
    /// Whether it can be read once only, or costs as much each time.
    pub fn is_stream(&self) -> bool {
        match self {
            Self::Engine { .. } => true,
            Self::Archive { path }
            | Self::OciArchive { path, .. }
            | Self::DockerArchive { path, .. } => path == Path::new(STDIN) || is_pipe(path),
            Self::Registry(_) | Self::OciLayout { .. } | Self::Containerd { .. } => false,
        }
    }

    /// Reads a reference; a text that names an existing OCI layout directory or file means that.
    ///
    /// # Errors
    /// [`Error::Reference`] if it is neither, [`Error::PathNotFound`] if it is written as a path
    /// (`/…`, `./…`, `../…`) and isn't there.
    pub fn detect(text: &str) -> Result<Self, Error> {
        let path = Path::new(text);
        if text == STDIN {
            return Ok(Self::Archive { path: path.into() });
        }
        if !has_transport(text) {
            if path.join("oci-layout").is_file() || path.join("index.json").is_file() {
                return Ok(Self::OciLayout { path: path.into(), name: None });
            }
            // A pipe, as the shell's `<(docker save app)` makes one, holds an archive, too.
            if path.is_file() || is_pipe(path) {
                return Ok(Self::Archive { path: path.into() });
            }
            if ["/", "./", "../"].iter().any(|prefix| text.starts_with(prefix)) {
                if path.is_dir() {
                    return Err(Error::Unsupported {
                        what: format!("directory `{text}`"),
                        reason: "it is not an OCI layout: it has no `oci-layout` file".into(),
                    });
                }
                return Err(Error::PathNotFound { path: path.into() });
            }
        }
        text.parse()
    }
}

/// What stands for standard input.
pub(super) const STDIN: &str = "-";

/// What may stand before a reference, with a colon; `docker:` only with two slashes.
const TRANSPORTS: [&str; 8] = [
    "docker://",
    "oci:",
    "oci-archive:",
    "docker-archive:",
    "docker-daemon:",
    "podman:",
    "containerd:",
    "containers-storage:",
];

fn has_transport(text: &str) -> bool {
    TRANSPORTS.iter().any(|t| text.starts_with(t))
}

fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

/// `PATH[:NAME]`, `PATH@DIGEST` or `PATH@INDEX`, the latter two with a colon before the `@` as well
/// (skopeo(1) has it so). A path with such characters works if it exists as a whole.
fn path_and_name(text: &str, rest: &str) -> Result<(PathBuf, Option<String>), Error> {
    if rest.is_empty() || rest.starts_with(':') {
        return Err(Error::Reference { text: text.into(), reason: "the path is missing" });
    }
    if Path::new(rest).exists() {
        return Ok((rest.into(), None));
    }
    let selects = |text: &str| text.parse::<Digest>().is_ok() || text.parse::<usize>().is_ok();
    if let Some((path, selector)) = rest.rsplit_once('@')
        && !path.is_empty()
        && !path.contains(':')
        && selects(selector)
    {
        return Ok((path.into(), Some(format!("@{selector}"))));
    }
    Ok(match rest.split_once(':') {
        Some((_, name)) if name.strip_prefix('@').is_some_and(|name| !selects(name)) => {
            let reason = "after `@` comes a digest or the number of an image";
            return Err(Error::Reference { text: text.into(), reason });
        }
        Some((path, name)) if !name.is_empty() => (path.into(), Some(name.into())),
        Some((path, _)) => (path.into(), None),
        None => (rest.into(), None),
    })
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, name) = path_and_name(text, rest)?;
            return Ok(Self::OciLayout { path, name });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, name) = path_and_name(text, rest)?;
            return Ok(Self::OciArchive { path, name });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, name) = path_and_name(text, rest)?;
            return Ok(Self::DockerArchive { path, name });
        }
        for (prefix, engine) in [("docker-daemon:", Engine::Docker), ("podman:", Engine::Podman)] {
            if let Some(name) = text.strip_prefix(prefix) {
                return Ok(Self::Engine { engine, name: local_name(text, name)? });
            }
        }
        if let Some(name) = text.strip_prefix("containerd:") {
            return Ok(Self::Containerd { name: local_name(text, name)? });
        }
        if text.starts_with("containers-storage:") {
            return Err(Error::Reference {
                text: text.into(),
                reason: "Podman's storage is read through its service: write `podman:NAME`",
            });
        }
        let name = text.strip_prefix("docker://").unwrap_or(text);
        parse_name(name)
            .map(Self::Registry)
            .map_err(|reason| Error::Reference { text: text.into(), reason })
    }
}

/// A name as local stores have it. It becomes part of a URL's path.
fn local_name(text: &str, name: &str) -> Result<String, Error> {
    let reason = if name.is_empty() {
        "the image's name is missing"
    } else if name.len() > 1024 {
        "the name is too long"
    } else if name.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'?' | b'#' | b'%' | b'\\'))
        || name.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        "the name has characters that no image's name has"
    } else {
        return Ok(name.into());
    };
    Err(Error::Reference { text: text.into(), reason })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, name) = match self {
            Self::Registry(name) => return name.fmt(f),
            Self::Archive { path } if path == Path::new(STDIN) => return f.write_str(STDIN),
            Self::Archive { path } => return path.display().fmt(f),
            Self::Engine { engine: Engine::Docker, name } => {
                return write!(f, "docker-daemon:{name}");
            }
            Self::Engine { engine: Engine::Podman, name } => return write!(f, "podman:{name}"),
            Self::Containerd { name } => return write!(f, "containerd:{name}"),
            Self::OciLayout { path, name } => ("oci", path, name),
            Self::OciArchive { path, name } => ("oci-archive", path, name),
            Self::DockerArchive { path, name } => ("docker-archive", path, name),
        };
        write!(f, "{transport}:{}", path.display())?;
        match name {
            Some(name) if name.starts_with('@') => f.write_str(name),
            Some(name) => write!(f, ":{name}"),
            None => Ok(()),
        }
    }
}

impl Name {
    /// Host and port whose API is asked: Docker Hub's differs from its name.
    pub fn endpoint(&self) -> &str {
        if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host }
    }

    /// The tag or digest as it stands in a URL.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// Whether the host is this machine, where plain HTTP harms nobody.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_name(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// Whether `host[:port]` is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    match name.parse::<std::net::IpAddr>() {
        Ok(addr) => addr.is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost") || name.ends_with(".localhost"),
    }
}

/// The grammar of github.com/distribution/reference: `[host/]path[:tag][@digest]`.
fn parse_name(text: &str) -> Result<Name, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.contains("://") {
        return Err("a reference has no URL scheme other than `docker://`");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|e| match e {
                super::digest::ParseDigestError::Algorithm => "only sha256 digests are supported",
                _ => "a digest is `sha256:` and 64 lower-case hexadecimal digits",
            })?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (rest, tag) = match rest.rsplit_once(':') {
        // A colon before the last slash belongs to the port.
        Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("a tag has up to 128 letters, digits, `_`, `.` and `-`, and starts with \
                    neither `.` nor `-`");
    }
    let mut short = None;
    let (host, path) = match rest.split_once('/') {
        Some((first, path)) if looks_like_host(first) => {
            if !is_host(first) {
                return Err("the registry's host name or port is malformed");
            }
            (first, path.to_string())
        }
        _ => {
            short = Some(rest.to_string());
            ("docker.io", rest.to_string())
        }
    };
    let (host, path) = match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" if !path.contains('/') => {
            ("docker.io", format!("library/{path}"))
        }
        "index.docker.io" | "registry-1.docker.io" => ("docker.io", path),
        host => (host, path),
    };
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository name has no upper-case letters");
    }
    if path.len() > 255 || !path.split('/').all(is_component) {
        return Err("a repository name consists of lower-case letters and digits, with `.`, `_`, \
                    `__` or `-` between them, and `/`");
    }
    let tag = match (tag, digest) {
        (Some(tag), _) => Some(tag.to_string()),
        (None, Some(_)) => None,
        (None, None) => Some("latest".into()),
    };
    Ok(Name { host: host.into(), repository: path, tag, digest, short })
}

fn looks_like_host(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':', '['])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (name_ok, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((addr, after)) = rest.split_once(']') else { return false };
        let port = match after {
            "" => None,
            _ => match after.strip_prefix(':') {
                Some(port) => Some(port),
                None => return false,
            },
        };
        (addr.parse::<Ipv6Addr>().is_ok(), port)
    } else {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let label = |l: &str| {
            !l.is_empty()
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        (name.len() <= 253 && name.split('.').all(label), port)
    };
    let digits = |p: &str| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok();
    name_ok && port.is_none_or(digits)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    bytes.next().is_some_and(word)
        && tag.len() <= 128
        && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

/// Runs of letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().next_back()];
    if !ends.iter().all(|b| b.is_some_and(alnum)) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|sep| matches!(sep, "" | "." | "_" | "__") || sep.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|e| e.to_string(), |r| r.to_string())
    }

    #[test]
    fn short_names_mean_docker_hub() {
        assert_eq!(full("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(full("nginx:1.27"), "docker.io/library/nginx:1.27");
        assert_eq!(full("bitnami/nginx"), "docker.io/bitnami/nginx:latest");
        assert_eq!(full("docker.io/nginx"), "docker.io/library/nginx:latest");
        assert_eq!(full("index.docker.io/a/b:c"), "docker.io/a/b:c");
        assert_eq!(full("docker://alpine"), "docker.io/library/alpine:latest");
        let Reference::Registry(name) = "nginx".parse().unwrap() else { panic!() };
        assert_eq!(name.endpoint(), "registry-1.docker.io");
    }

    #[test]
    fn hosts_ports_tags_and_digests_are_told_apart() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, want) in [
            ("localhost/a", "localhost/a:latest"),
            ("127.0.0.1:5000/nginx", "127.0.0.1:5000/nginx:latest"),
            ("[::1]:5000/a/b:c", "[::1]:5000/a/b:c"),
            ("ghcr.io/o/r__x/y-z.w:V1", "ghcr.io/o/r__x/y-z.w:V1"),
            ("Host/a", "Host/a:latest"),
        ] {
            assert_eq!(full(text), want);
        }
        assert_eq!(full(&format!("r.io/a@{digest}")), format!("r.io/a@{digest}"));
        let Reference::Registry(name) = format!("r.io/a:t@{digest}").parse().unwrap() else {
            panic!()
        };
        assert_eq!((name.tag.as_deref(), name.selector()), (Some("t"), digest));
    }

    #[test]
    fn malformed_names_are_refused_with_the_rule() {
        for text in [
            "",
            "UPPER",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a b",
            "a@sha256:12",
            "a@sha512:00",
            "https://x.io/a",
            "x.io:99999/a",
            "x.io:/a",
            "[::1/a",
            "[::1]x/a",
            "-x.io/a",
            "a/../b",
            "a..b",
            "a___b",
            "é",
            "a:\u{e9}",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
        }
        assert!(format!("a:{}", "x".repeat(129)).parse::<Reference>().is_err());
        assert!("x/".repeat(200).parse::<Reference>().is_err());
    }

    #[test]
    fn transports_carry_path_and_name() {
        assert_eq!(
            "oci:dir:v1".parse::<Reference>().unwrap(),
            Reference::OciLayout { path: "dir".into(), name: Some("v1".into()) }
        );
        assert_eq!(
            "docker-archive:a.tar:nginx:1".parse::<Reference>().unwrap(),
            Reference::DockerArchive { path: "a.tar".into(), name: Some("nginx:1".into()) }
        );
        assert_eq!(full("oci-archive:x.tar"), "oci-archive:x.tar");
        let digest = format!("@sha256:{}", "0a".repeat(32));
        assert_eq!(
            format!("oci:dir{digest}").parse::<Reference>().unwrap(),
            Reference::OciLayout { path: "dir".into(), name: Some(digest.clone()) }
        );
        assert_eq!(full(&format!("oci:dir{digest}")), format!("oci:dir{digest}"));
        assert_eq!(full("oci:dir:@7"), "oci:dir@7");
        for wrong in ["oci:dir:@", "oci:dir:@x", "docker-archive:a.tar:@x@1"] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
        assert_eq!(
            "docker-archive:a.tar@1".parse::<Reference>().unwrap(),
            Reference::DockerArchive { path: "a.tar".into(), name: Some("@1".into()) }
        );
        assert_eq!(
            "oci-archive:-:v1".parse::<Reference>().unwrap(),
            Reference::OciArchive { path: "-".into(), name: Some("v1".into()) }
        );
        assert_eq!(Reference::detect("-").unwrap(), Reference::Archive { path: "-".into() });
        assert!("oci:".parse::<Reference>().is_err());
        assert!(matches!(Reference::detect("./no/such"), Err(Error::PathNotFound { .. })));
    }

    #[test]
    fn engines_have_names_of_their_own() {
        for text in ["docker-daemon:app", "podman:localhost/app:1", "containerd:docker.io/x/y:z"] {
            assert_eq!(full(text), text);
        }
        let podman: Reference = "podman:app".parse().unwrap();
        assert_eq!(podman, Reference::Engine { engine: Engine::Podman, name: "app".into() });
        for text in [
            "podman:",
            "docker-daemon:a b",
            "docker-daemon:../../info",
            "podman:a?x=y",
            "podman:a%2f",
            "containerd:a//b",
            "containers-storage:app",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn names_without_a_registry_are_known_and_equal_full_ones() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert_eq!(name("nginx").short.as_deref(), Some("nginx"));
        assert_eq!(name("team/app:1").short.as_deref(), Some("team/app"));
        assert_eq!(name("docker.io/nginx").short, None);
        assert_eq!(name("nginx"), name("docker.io/library/nginx:latest"));
    }

    #[test]
    fn loopback_is_recognised_in_all_spellings() {
        for host in
            ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5", "a.localhost"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "localhost.example.com", "[2001:db8::1]:5", "x127.0.0.1.io"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
