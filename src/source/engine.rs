//! Images that an engine on this machine keeps: dockerd and Podman, asked over their sockets.
//!
//! Both hand an image out as the archive that their `save` writes (Docker Engine API, "Export an
//! image"; libpod API, `ImageGetLibpod`). It is read as it arrives. What an earlier run brought in
//! is not asked for again where the engine names the image by its configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::archive;
use super::assemble::Context;
use super::digest::Digest;
use super::error::Error;
use super::image::{Compression, Image, Layer};
use super::manifest::{self, MAX_DOCUMENT};
use super::options::Options;
use super::platform::Platform;
use super::progress::Outcome;
use super::reference::Engine;
use super::registry::tls_for_engines;
use crate::environment;

/// Podman writes the whole archive to a file before its first byte comes.
const PATIENCE: Duration = Duration::from_secs(600);

/// What both APIs say of an image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// Error answers: Docker's `message`, libpod's `message` and `cause`.
#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    message: String,
}

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Socket(PathBuf),
    /// `host:port`, plain HTTP.
    Tcp(String),
}

/// Brings in the image that `engine` calls `wanted`.
pub(super) fn resolve(
    context: &Context<'_>,
    engine: Engine,
    wanted: &str,
    name: String,
) -> Result<Image, Error> {
    if context.options.offline {
        // It may be another machine's, and what is in the store has no name to be found by.
        return Err(Error::NotCached { what: format!("`{name}`") });
    }
    let client = Connection::open(context.options, engine)?;
    let inspected = client.inspect(wanted)?;
    let offer = Platform {
        os: inspected.os.clone(),
        architecture: inspected.architecture.clone(),
        variant: None,
    };
    let platform = &context.options.platform;
    if !offer.os.is_empty()
        && (&offer.os, &offer.architecture) != (&platform.os, &platform.architecture)
    {
        let (wanted, available) = (platform.to_string(), vec![offer.to_string()]);
        return Err(Error::WrongPlatform { image: name, wanted, available });
    }
    if let Some(image) = from_store(context, &inspected.id, &name)? {
        return Ok(image);
    }
    let stream = client.export(wanted)?;
    archive::resolve_stream(context, engine.to_string(), Box::new(stream), name)
}

/// The image by the digest of its configuration, if an earlier run has brought all of it in.
fn from_store(context: &Context<'_>, id: &str, name: &str) -> Result<Option<Image>, Error> {
    let store = context.store;
    let Ok(id) = Digest::from_hex(id.strip_prefix("sha256:").unwrap_or(id)) else {
        return Ok(None);
    };
    let Some(config_json) = store.read(&id, MAX_DOCUMENT)? else { return Ok(None) };
    // Docker's newer image store names images by their manifests instead.
    let Ok((config, diff_ids)) = manifest::config(&format!("configuration {id}"), &config_json)
    else {
        return Ok(None);
    };
    let mut layers = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        // Engines export plain layers, whose digest is their diff ID.
        let path = store.blob_path(&diff_id);
        let Ok(meta) = std::fs::metadata(&path) else { return Ok(None) };
        let (digest, size, compression) = (diff_id, meta.len(), Compression::None);
        layers.push(Layer { digest, size, diff_id, compression, path });
    }
    for layer in &layers {
        let mut bar = context.progress.start(&layer.digest, layer.size);
        bar.advance(layer.size);
        bar.finish(Outcome::Cached);
    }
    let (name, manifest, config_digest) = (name.to_owned(), id, id);
    Ok(Some(Image { name, manifest, config_digest, config, config_json, layers, signed: None }))
}

struct Connection {
    engine: Engine,
    endpoint: Endpoint,
    client: Client,
    base: Url,
}

impl Connection {
    fn open(options: &Options, engine: Engine) -> Result<Self, Error> {
        let endpoint = endpoint(options, engine)?;
        let failed = |reason: String| unreachable(engine, &endpoint, reason);
        let mut builder = Client::builder()
            .user_agent(concat!("dock2uni/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .no_proxy()
            .timeout(PATIENCE)
            .tls_backend_preconfigured(tls_for_engines()?);
        let base = match &endpoint {
            Endpoint::Socket(path) => {
                builder = builder.unix_socket(path.as_path());
                "http://engine/".to_owned()
            }
            Endpoint::Tcp(host) => {
                builder = builder.connect_timeout(options.connect_timeout);
                format!("http://{host}/")
            }
        };
        let base = Url::parse(&base).map_err(|e| failed(format!("malformed address: {e}")))?;
        let client = builder.build().map_err(|e| failed(e.to_string()))?;
        Ok(Self { engine, endpoint, client, base })
    }

    fn inspect(&self, wanted: &str) -> Result<Inspected, Error> {
        use std::io::Read as _;
        let response = self.get(wanted, "json")?;
        let mut bytes = Vec::new();
        let read = response.take(MAX_DOCUMENT).read_to_end(&mut bytes);
        read.map_err(|e| unreachable(self.engine, &self.endpoint, e.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Malformed {
            what: format!("what {} says of `{wanted}`", self.engine),
            reason: e.to_string(),
        })
    }

    fn export(&self, wanted: &str) -> Result<Response, Error> {
        self.get(wanted, "get")
    }

    fn get(&self, wanted: &str, what: &str) -> Result<Response, Error> {
        let mut url = self.base.clone();
        // The name was checked to be a plain path.
        url.set_path(&match self.engine {
            Engine::Docker => format!("images/{wanted}/{what}"),
            Engine::Podman => format!("v4.0.0/libpod/images/{wanted}/{what}"),
        });
        if self.engine == Engine::Podman && what == "get" {
            // Its other form compresses all layers anew, and so is another image.
            url.set_query(Some("format=docker-archive"));
        }
        let response = self.client.get(url).send();
        let response = response.map_err(|e| {
            unreachable(self.engine, &self.endpoint, super::registry::innermost(&e.without_url()))
        })?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => {
                Err(Error::NotInEngine { engine: self.engine, image: wanted.into() })
            }
            status => Err(Error::Engine {
                engine: self.engine,
                place: self.endpoint.to_string(),
                reason: format!("it answered {}{}", status.as_u16(), complaint(response)),
            }),
        }
    }
}

/// What an error answer says, made fit to print.
fn complaint(response: Response) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    // What can't be read can't be quoted.
    let _ = response.take(64 << 10).read_to_end(&mut bytes);
    let complaint: Complaint = serde_json::from_slice(&bytes).unwrap_or_default();
    let text: String = complaint.message.chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

fn unreachable(engine: Engine, endpoint: &Endpoint, reason: String) -> Error {
    Error::Engine { engine, place: endpoint.to_string(), reason }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Tcp(host) => f.write_str(host),
        }
    }
}

/// Where the engine is: where the user's environment says, or the first socket that is there.
fn endpoint(options: &Options, engine: Engine) -> Result<Endpoint, Error> {
    let sockets = match engine {
        Engine::Docker => &options.docker,
        Engine::Podman => &options.podman,
    };
    if let Some(address) = &sockets.address {
        return parse(engine, address);
    }
    let found = sockets.candidates.iter().find(|path| path.exists());
    found.map(|path| Endpoint::Socket(path.clone())).ok_or_else(|| Error::Engine {
        engine,
        place: sockets.candidates.first().map_or_else(String::new, |p| p.display().to_string()),
        reason: "there is no such socket".into(),
    })
}

/// Reads `DOCKER_HOST` and its like.
fn parse(engine: Engine, address: &str) -> Result<Endpoint, Error> {
    let refused =
        |reason: &str| Error::Engine { engine, place: address.into(), reason: reason.into() };
    match address.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => {
            Ok(Endpoint::Socket(Path::new(path).into()))
        }
        Some(("tcp" | "http", host)) if !host.is_empty() => {
            Ok(Endpoint::Tcp(host.trim_end_matches('/').into()))
        }
        Some((scheme @ ("ssh" | "https" | "npipe"), _)) => {
            Err(refused(&format!("`{scheme}:` is not supported, only `unix:` and `tcp:` are")))
        }
        _ => Err(refused("the address is malformed")),
    }
}

/// The addresses of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// `unix:///PATH` or `tcp://HOST:PORT`, if the user has said so.
    pub address: Option<String>,
    /// Sockets to look for otherwise.
    pub candidates: Vec<PathBuf>,
}

impl Sockets {
    /// dockerd's: `DOCKER_HOST`, the current context of Docker's configuration, or the usual places.
    pub(super) fn docker(docker_config: Option<&Path>) -> Self {
        let address = environment::text("DOCKER_HOST").or_else(|| {
            let dir = docker_config?;
            let context = match environment::text("DOCKER_CONTEXT") {
                Some(context) => context,
                None => current_context(&dir.join("config.json"))?,
            };
            context_host(dir, &context)
        });
        let mut candidates = vec![PathBuf::from("/var/run/docker.sock")];
        let runtime = environment::path("XDG_RUNTIME_DIR");
        candidates.extend(runtime.map(|dir| dir.join("docker.sock")));
        candidates.extend(docker_config.map(|dir| dir.join("run/docker.sock")));
        candidates.extend(docker_config.map(|dir| dir.join("desktop/docker.sock")));
        Self { address, candidates }
    }

    /// Podman's: `CONTAINER_HOST`, or the user's socket before the system's.
    pub(super) fn podman() -> Self {
        let runtime = environment::path("XDG_RUNTIME_DIR");
        let mut candidates: Vec<PathBuf> =
            runtime.map(|dir| dir.join("podman/podman.sock")).into_iter().collect();
        candidates.push("/run/podman/podman.sock".into());
        Self { address: environment::text("CONTAINER_HOST"), candidates }
    }
}

/// A file of Docker's that is read on the way to a socket; one that can't be read says nothing.
fn json(path: &Path) -> Option<serde_json::Value> {
    let meta = std::fs::metadata(path).ok().filter(|meta| meta.len() <= MAX_DOCUMENT)?;
    let bytes = if meta.is_file() { std::fs::read(path).ok()? } else { return None };
    serde_json::from_slice(&bytes).ok()
}

fn current_context(config: &Path) -> Option<String> {
    let name = json(config)?["currentContext"].as_str()?.to_owned();
    (!name.is_empty() && name != "default").then_some(name)
}

/// The address in a context's metadata, which lies under the SHA-256 of its name.
fn context_host(dir: &Path, context: &str) -> Option<String> {
    if context == "default" {
        return None;
    }
    let id = Digest::of(context.as_bytes()).hex();
    let meta = json(&dir.join("contexts/meta").join(id).join("meta.json"))?;
    Some(meta["Endpoints"]["docker"]["Host"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sockets_and_hosts() {
        let parse = |text: &str| parse(Engine::Docker, text);
        assert_eq!(parse("unix:///x/y").unwrap(), Endpoint::Socket("/x/y".into()));
        assert_eq!(parse("tcp://h:2375/").unwrap(), Endpoint::Tcp("h:2375".into()));
        for text in ["ssh://h", "unix://x", "h:2375", "tcp://", "https://h", ""] {
            assert!(matches!(parse(text), Err(Error::Engine { .. })), "{text}");
        }
    }

    #[test]
    fn the_current_context_names_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("contexts/meta").join(Digest::of(b"work").hex());
        std::fs::create_dir_all(&meta).unwrap();
        let host = r#"{"Name":"work","Endpoints":{"docker":{"Host":"unix:///w.sock"}}}"#;
        std::fs::write(meta.join("meta.json"), host).unwrap();
        let config = dir.path().join("config.json");
        assert_eq!(current_context(&config), None);
        std::fs::write(&config, r#"{"currentContext":"work"}"#).unwrap();
        assert_eq!(current_context(&config).as_deref(), Some("work"));
        assert_eq!(context_host(dir.path(), "work").as_deref(), Some("unix:///w.sock"));
        assert_eq!(context_host(dir.path(), "none"), None);
    }
}
