//! What a running Docker or Podman daemon runs, by its API (Docker Engine API 1.24 and later).
//!
//! A container's description repeats what its image says; only what differs is taken over, so that
//! the image's own words hold where nobody has changed them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::Value;

use super::{
    Attachment, Error, Health, Image, Kind, Mount, MountKind, PortMap, Restart, Severity, Test,
    Value as EnvValue, Variable, Workload,
};
use crate::{environment, source};
use dock2uni_format::record::Proto;

/// The socket if nobody says otherwise.
const SOCKET: &str = "/var/run/docker.sock";
/// Largest answer that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Longest time without an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Keys of the host's configuration that reach past the container, and what to say.
const SHARED: [(&str, &str); 3] = [
    ("PidMode", "it shares the host's processes, which a VM can't"),
    ("IpcMode", "it shares the host's System V IPC, which a VM can't"),
    ("UTSMode", "it shares the host's name, which a VM can't"),
];

/// The containers that run now.
///
/// # Errors
/// If the daemon cannot be spoken to or says something else than its API has.
pub fn workloads(socket: Option<&Path>) -> Result<Vec<Workload>, Error> {
    let daemon = Daemon::at(socket)?;
    let all = daemon.get("/containers/json")?;
    let mut found = Vec::new();
    for container in all.as_array().into_iter().flatten() {
        let Some(id) = container["Id"].as_str().filter(|id| is_id(id)) else { continue };
        let container = daemon.get(&format!("/containers/{id}/json"))?;
        let image = match container["Image"].as_str().filter(|id| is_id(id)) {
            Some(id) => daemon.get(&format!("/images/{id}/json"))?,
            None => Value::Null,
        };
        found.push(workload(&container, &image, &daemon.name));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Nothing but an ID becomes part of an address.
fn is_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Daemon {
    client: Client,
    name: String,
}

impl Daemon {
    fn at(socket: Option<&Path>) -> Result<Daemon, Error> {
        let given = environment::text("DOCKER_HOST");
        let path: PathBuf = match (socket, given.as_deref().map(|host| host.split_once("://"))) {
            (Some(socket), _) => socket.to_owned(),
            (None, None) => SOCKET.into(),
            (None, Some(Some(("unix", path)))) => path.into(),
            (None, Some(_)) => {
                return Err(Error::Daemon {
                    socket: given.unwrap_or_default(),
                    text: "DOCKER_HOST names no unix socket".to_owned(),
                });
            }
        };
        let name = path.display().to_string();
        let client = Client::builder()
            .http1_only()
            .no_proxy()
            .unix_socket(path)
            .timeout(PATIENCE)
            // It is never used; without one the builder looks for a provider that nobody has set.
            .tls_backend_preconfigured(source::tls_for_engines()?)
            .build()
            .map_err(|error| failed(&name, &error))?;
        Ok(Daemon { client, name })
    }

    fn get(&self, path: &str) -> Result<Value, Error> {
        let failed = |error: &dyn std::error::Error| failed(&self.name, error);
        let answer = self.client.get(format!("http://docker{path}")).send();
        let answer = answer.map_err(|error| failed(&error))?;
        let status = answer.status();
        if !status.is_success() {
            let text = format!("{path} was answered with {status}");
            return Err(Error::Daemon { socket: self.name.clone(), text });
        }
        let mut bytes = Vec::new();
        answer.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| failed(&error))
    }
}

fn failed(name: &str, error: &dyn std::error::Error) -> Error {
    Error::Daemon { socket: name.to_owned(), text: crate::causes::line(error) }
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// What the container says, if its image says something else.
fn own(container: &Value, image: &Value, key: &str) -> Option<String> {
    let text = container["Config"][key].as_str().filter(|text| !text.is_empty())?;
    (image["Config"][key].as_str() != Some(text)).then(|| text.to_owned())
}

fn own_words(container: &Value, image: &Value, key: &str) -> Option<Vec<String>> {
    let words = texts(&container["Config"][key]);
    (!words.is_empty() && words != texts(&image["Config"][key])).then_some(words)
}

fn workload(container: &Value, image: &Value, socket: &str) -> Workload {
    let config = &container["Config"];
    let id = container["Id"].as_str().unwrap_or_default();
    let name = container["Name"].as_str().unwrap_or(id).trim_start_matches('/');
    let mut reference = config["Image"].as_str().unwrap_or_default().to_owned();
    // One that was never pushed or pulled is to be had from the daemon alone.
    if texts(&image["RepoDigests"]).is_empty() {
        reference.insert_str(0, "docker-daemon:");
    }
    let mut workload = Workload::new(
        name.to_owned(),
        Kind::Container,
        format!("containers:{socket}"),
        Image::Reference(reference),
    );
    workload.entrypoint = own_words(container, image, "Entrypoint");
    workload.command = own_words(container, image, "Cmd");
    let of_image = texts(&image["Config"]["Env"]);
    workload.env = texts(&config["Env"])
        .into_iter()
        .filter(|entry| !of_image.contains(entry))
        .filter_map(|entry| {
            let (name, value) = entry.split_once('=')?;
            let value = EnvValue::Text(value.to_owned());
            Some(Variable { name: name.to_owned(), value })
        })
        .collect();
    workload.workdir = own(container, image, "WorkingDir");
    workload.user = own(container, image, "User");
    // One that Docker has made up is the start of the ID.
    workload.hostname = own(container, image, "Hostname").filter(|name| !id.starts_with(name));
    workload.stop_signal = own(container, image, "StopSignal");
    workload.stop_grace = config["StopTimeout"].as_u64().and_then(|s| u32::try_from(s).ok());
    if config["Healthcheck"] != image["Config"]["Healthcheck"] {
        workload.health = health(&config["Healthcheck"]);
    }
    host(container, &mut workload);
    limits(&container["HostConfig"], &mut workload);
    workload.mounts = container["Mounts"].as_array().into_iter().flatten().map(mount).collect();
    for mount in workload.mounts.clone() {
        if mount.kind == MountKind::Host && mount.source.ends_with(".sock") {
            workload.note(
                Severity::Blocker,
                format!("it talks to the host through `{}`, which a VM can't reach", mount.source),
            );
        }
    }
    workload
}

/// Limits and settings; what the guest's kernel hasn't is noted.
fn limits(host: &Value, workload: &mut Workload) {
    for limit in host["Ulimits"].as_array().into_iter().flatten() {
        let name = limit["Name"].as_str().unwrap_or_default();
        let [soft, hard] = ["Soft", "Hard"].map(|key| limit[key].to_string());
        if let Err(error) = workload.limit(name, &soft, &hard) {
            workload.note(Severity::Warning, format!("not carried over: {error}"));
        }
    }
    for (name, value) in host["Sysctls"].as_object().into_iter().flatten() {
        if let Err(error) = workload.setting(name, value.as_str().unwrap_or_default()) {
            workload.note(Severity::Warning, format!("not carried over: {error}"));
        }
    }
}

/// What concerns the host.
fn host(container: &Value, workload: &mut Workload) {
    let host = &container["HostConfig"];
    workload.resources.memory = host["Memory"].as_u64().filter(|bytes| *bytes > 0);
    let cpus = host["NanoCpus"].as_u64().filter(|nanos| *nanos > 0);
    workload.resources.milli_cpus = cpus.map(|nanos| nanos.div_ceil(1_000_000));
    workload.restart = match host["RestartPolicy"]["Name"].as_str() {
        Some("always" | "unless-stopped") => Restart::Always,
        Some("on-failure") => Restart::OnFailure,
        _ => Restart::No,
    };
    let limit = host["RestartPolicy"]["MaximumRetryCount"].as_u64().filter(|count| *count > 0);
    workload.restart_limit = limit.and_then(|count| u32::try_from(count).ok());
    let mut ports: BTreeMap<(u16, bool), Vec<PortMap>> = BTreeMap::new();
    for (key, bindings) in host["PortBindings"].as_object().into_iter().flatten() {
        let (guest, proto) = key.split_once('/').unwrap_or((key, "tcp"));
        let (Ok(guest), udp) = (guest.parse(), proto == "udp") else { continue };
        let proto = if udp { Proto::Udp } else { Proto::Tcp };
        for binding in bindings.as_array().into_iter().flatten() {
            let ip = binding["HostIp"].as_str().filter(|ip| !ip.is_empty() && *ip != "0.0.0.0");
            ports.entry((guest, udp)).or_default().push(PortMap {
                host_ip: ip.map(str::to_owned),
                host: binding["HostPort"].as_str().and_then(|port| port.parse().ok()),
                published: true,
                guest,
                proto,
                name: None,
            });
        }
    }
    workload.ports = ports.into_values().flatten().collect();
    if host["Privileged"] == true {
        workload.note(
            Severity::Warning,
            "it is privileged: whatever it does to its host, it does to its own VM instead",
        );
    }
    if host["Devices"].as_array().is_some_and(|devices| !devices.is_empty()) {
        workload.note(
            Severity::Blocker,
            "a VM has no devices of the host; pass them through in the VMM's configuration",
        );
    }
    for (key, text) in SHARED {
        if host[key] == "host" {
            workload.note(Severity::Blocker, text);
        }
    }
    match host["NetworkMode"].as_str() {
        Some("host") => workload.note(
            Severity::Warning,
            "it uses the host's network: a VM has its own, so publish the ports it serves",
        ),
        Some("none") => workload.networks = Some(Vec::new()),
        Some(mode) if mode.starts_with("container:") => workload.note(
            Severity::Blocker,
            format!("`{mode}`: a VM shares nothing with another container"),
        ),
        _ => networks(container, workload),
    }
}

/// Networks of its own; the one that all are on is not worth a word.
fn networks(container: &Value, workload: &mut Workload) {
    let all = container["NetworkSettings"]["Networks"].as_object();
    let id = container["Id"].as_str().unwrap_or_default();
    let own = all.into_iter().flatten().filter(|(name, _)| *name != "bridge");
    let own: Vec<Attachment> = own
        .map(|(name, details)| {
            let mut aliases = texts(&details["Aliases"]);
            aliases.retain(|alias| !id.starts_with(alias.as_str()));
            Attachment { network: name.clone(), aliases, internal: false }
        })
        .collect();
    workload.networks = (!own.is_empty()).then_some(own);
}

fn health(check: &Value) -> Option<Health> {
    let mut words = texts(&check["Test"]).into_iter();
    let milliseconds = |key: &str| {
        let nanos = check[key].as_u64().filter(|nanos| *nanos > 0)?;
        Some(nanos.div_ceil(1_000_000))
    };
    let test = match words.next().as_deref() {
        Some("NONE") => return Some(Health::Off),
        Some("CMD") => Test::Program(words.collect()),
        Some("CMD-SHELL") => Test::Shell(words.next().unwrap_or_default()),
        _ => return None,
    };
    Some(Health::Command {
        test,
        interval_ms: milliseconds("Interval"),
        timeout_ms: milliseconds("Timeout"),
        retries: check["Retries"].as_u64().and_then(|count| u32::try_from(count).ok()),
        start_period_ms: milliseconds("StartPeriod"),
        start_interval_ms: milliseconds("StartInterval"),
    })
}

fn mount(mount: &Value) -> Mount {
    let text = |key: &str| mount[key].as_str().unwrap_or_default().to_owned();
    let name = text("Name");
    // Docker calls volumes without a name by 64 hexadecimal digits.
    let anonymous = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (kind, source) = match mount["Type"].as_str() {
        Some("volume") if anonymous => (MountKind::Anonymous, String::new()),
        Some("volume") => (MountKind::Volume, name),
        Some("tmpfs") => (MountKind::Scratch, String::new()),
        _ => (MountKind::Host, text("Source")),
    };
    let read_only = mount["RW"] == false;
    Mount { kind, source, target: text("Destination"), read_only, origin: None, mode: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    /// A daemon that answers from a table.
    fn daemon(dir: &Path, answers: Vec<(String, Value)>) -> PathBuf {
        let socket = dir.join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let request = lines.next().unwrap().unwrap();
                while !lines.next().unwrap().unwrap().is_empty() {}
                let path = request.split(' ').nth(1).unwrap();
                let found = answers.iter().find(|(known, _)| known == path);
                let (status, body) = match found {
                    Some((_, body)) => ("200 OK", body.to_string()),
                    None => ("404 Not Found", "{}".to_owned()),
                };
                let len = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: \
                     {len}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        socket
    }

    #[test]
    fn containers_are_what_differs_from_their_images() {
        let id = "ab".repeat(32);
        let image = format!("sha256:{}", "cd".repeat(32));
        let container = json!({
            "Id": id, "Name": "/shop-web-1", "Image": image,
            "Config": {
                "Image": "nginx:1.27", "Hostname": &id[..12], "User": "", "WorkingDir": "/srv",
                "Env": ["PATH=/bin", "MODE=fast"], "Cmd": ["nginx"], "Entrypoint": ["/start.sh"],
                "StopTimeout": 3, "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000i64},
            },
            "HostConfig": {
                "Memory": 134_217_728, "NanoCpus": 1_500_000_000, "NetworkMode": "shop_default",
                "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
                "PidMode": "host",
                "Ulimits": [
                    {"Name": "nofile", "Soft": 1024, "Hard": 2048},
                    {"Name": "core", "Soft": -1, "Hard": -1},
                ],
                "Sysctls": {"net.core.somaxconn": "1024", "kernel.unknown": "1"},
            },
            "NetworkSettings": {"Networks": {"shop_default": {"Aliases": ["web", &id[..12]]}}},
            "Mounts": [
                {"Type": "volume", "Name": "data", "Destination": "/data", "RW": true},
                {"Type": "bind", "Source": "/etc/x", "Destination": "/x", "RW": false},
            ],
        });
        let of_image = json!({
            "RepoDigests": ["nginx@sha256:1"],
            "Config": {"Env": ["PATH=/bin"], "Cmd": ["nginx"], "Entrypoint": ["/entry.sh"]},
        });
        let dir = tempfile::tempdir().unwrap();
        let socket = daemon(
            dir.path(),
            vec![
                ("/containers/json".into(), json!([{"Id": id}, {"Id": "../../evil"}])),
                (format!("/containers/{id}/json"), container),
                (format!("/images/{image}/json"), of_image),
            ],
        );
        let all = workloads(Some(&socket)).unwrap();
        let [web] = &all[..] else { panic!("{all:?}") };
        assert_eq!(web.ulimits, ["nofile=1024:2048", "core=unlimited:unlimited"]);
        assert_eq!(web.sysctls, ["net.core.somaxconn=1024"]);
        assert!(web.notes.iter().any(|note| note.text.contains("`kernel.unknown`")), "{web:?}");
        assert_eq!((web.name.as_str(), web.hostname.as_deref()), ("shop-web-1", None));
        assert_eq!(web.entrypoint.as_deref(), Some(["/start.sh".to_owned()].as_slice()));
        assert_eq!((&web.command, web.workdir.as_deref()), (&None, Some("/srv")));
        assert_eq!(web.env.len(), 1);
        assert_eq!(web.resources.milli_cpus, Some(1500));
        assert_eq!((web.restart, web.restart_limit), (Restart::OnFailure, Some(3)));
        assert_eq!((web.ports[0].host, web.ports[0].guest), (Some(8080), 80));
        assert_eq!(web.mounts.len(), 2);
        assert!(web.mounts[1].read_only);
        assert_eq!(web.networks.as_ref().unwrap()[0].aliases, ["web"]);
        assert!(web.notes.iter().any(|note| note.text.contains("processes")));
        let Some(Health::Command { test, interval_ms, .. }) = &web.health else { panic!() };
        assert!(matches!(test, Test::Shell(_)), "{test:?}");
        assert_eq!(*interval_ms, Some(5000));
    }

    #[test]
    fn a_daemon_that_is_not_there_is_named() {
        let error = workloads(Some(Path::new("/nonexistent/docker.sock"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/docker.sock"), "{error}");
        assert!(error.hint().is_some());
    }
}
