//! From a service's keys to a workload.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use super::load::{Project, Service};
use super::{Options, Variables, build, dotenv};
use crate::config::Publish;
use crate::fleet::yaml::{self, Place};
use crate::fleet::{
    Attachment, Condition, Dependency, Error, HOST_GATEWAY, Health, Image, Kind, Mount, MountKind,
    Note, Origin, PortMap, Resources, Restart, Severity, Test, Value as EnvValue, Variable,
    Workload, quantity,
};
use dock2uni_format::record::Proto;

/// Keys that share something between containers, or reach past the container into the host.
const BLOCKERS: &[(&str, &str)] = &[
    ("credential_spec", "credentials of Windows have no counterpart"),
    ("devices", "a VM has no devices of the host; pass them through in the VMM's configuration"),
    ("use_api_socket", "there is no Docker daemon in the VM: give it one over the network"),
    ("gpus", "a VM has no GPU of the host; leave this workload a container"),
    ("volumes_from", "volumes of another container can't be shared with a VM; name the volumes"),
    ("models", "models run by Docker itself have no counterpart; run the model as a service"),
];
/// Keys without a counterpart that the application may miss.
const MISSED: &[(&str, &str)] = &[
    ("external_links", "links to containers of other projects: publish their ports, and name them"),
    ("group_add", "further groups: the program has those that its user has in the image"),
    ("post_start", "commands that Docker runs once it has started: have the entrypoint run them"),
    ("pre_stop", "commands that Docker runs before it stops: have the application do it"),
];
/// Keys that are dropped with a word.
const DROPPED: &[(&str, &str)] = &[
    ("blkio_config", "weights of disks: the VMM can have them"),
    ("cap_add", "capabilities: the guest's kernel serves one application, which has all it needs"),
    ("cgroup", "control groups: the VM's size is the limit"),
    ("cgroup_parent", "control groups: the VM's size is the limit"),
    ("cpuset", "CPU sets: pin the VM in the VMM's configuration"),
    ("device_cgroup_rules", "rules for devices: a VM has none of the host's"),
    ("dns", "DNS servers: the VM's network says them"),
    ("dns_opt", "options of the resolver: the VM's network says them"),
    ("dns_search", "search domains: the VM's network says them"),
    ("isolation", "kinds of isolation: the VM is the boundary"),
    ("mac_address", "an Ethernet address: the VM gets one of its own"),
    ("oom_kill_disable", "exemptions when memory runs out: give the VM what it needs"),
    ("oom_score_adj", "turns when memory runs out: give the VM what it needs"),
    ("pids_limit", "limits of processes: the VM's size is the limit"),
    ("read_only", "a read-only root: what is written to it is gone with the VM"),
    ("runtime", "another container runtime: the VM is one"),
    ("init", "an init process: the guest's kernel reaps orphans itself"),
    ("logging", "logging drivers: the VM writes to its console"),
    ("security_opt", "security options: the VM is the boundary"),
    ("shm_size", "the size of /dev/shm: it is bounded by the VM's memory"),
    ("storage_opt", "storage options: give the root more memory or mount a volume"),
    ("userns_mode", "user namespaces: the VM is the boundary"),
];

/// The other keys that the Compose Specification has for services: read, or of no effect on a VM.
const UNDERSTOOD: &str = "annotations attach build cap_drop command configs container_name cpu_count \
    cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus depends_on deploy \
    develop domainname entrypoint env_file environment expose extends extra_hosts healthcheck hostname \
    image ipc label_file labels links mem_limit mem_reservation mem_swappiness memswap_limit \
    network_mode networks pid platform ports privileged profiles pull_policy pull_refresh_after \
    restart scale secrets stdin_open stop_grace_period stop_signal sysctls tmpfs tty ulimits user \
    uts volumes working_dir";

/// Every enabled service as a workload, in the order of their names.
pub fn workloads(project: &Project, options: &Options) -> Result<Vec<Workload>, Error> {
    let mut enabled: BTreeSet<&str> = BTreeSet::new();
    for (name, service) in &project.services {
        let file = service.file.display().to_string();
        let profiles = yaml::texts(&service.value, "profiles", &place(&file, name))?;
        let active = |profile: &String| {
            options.profiles.iter().any(|wanted| wanted == "*" || wanted == profile)
        };
        if profiles.is_empty() || profiles.iter().any(active) {
            enabled.insert(name);
        }
    }
    let mut found = Vec::new();
    for name in &enabled {
        let workload = workload(name, &project.services[*name], project)?;
        for dependency in workload.depends_on.iter().filter(|dependency| dependency.required) {
            if !enabled.contains(dependency.name.as_str()) {
                let file = project.services[*name].file.display().to_string();
                let other = &dependency.name;
                let text = match project.services.contains_key(other) {
                    true => format!("`{other}` belongs to a profile that is not active"),
                    false => format!("there is no service `{other}`"),
                };
                return Err(place(&file, name).key("depends_on").error(text));
            }
        }
        found.push(workload);
    }
    // Other names of services: those of their containers, and those that links give them.
    let mut names: Vec<(String, String)> = Vec::new();
    for name in &enabled {
        let service = &project.services[*name];
        let file = service.file.display().to_string();
        let place = place(&file, name);
        let own = yaml::opt_text(&service.value, "container_name", &place)?;
        names.extend(own.map(|own| ((*name).to_owned(), own)));
        for link in yaml::texts(&service.value, "links", &place)? {
            names.extend(link.split_once(':').map(|(to, name)| (to.to_owned(), name.to_owned())));
        }
    }
    for (service, name) in names.into_iter().filter(|(service, name)| service != name) {
        let known = found.iter_mut().find(|workload| workload.name == service);
        known.into_iter().for_each(|workload| also_called(workload, &name));
    }
    Ok(found)
}

/// Adds a name that others on its networks know a workload by.
fn also_called(workload: &mut Workload, name: &str) {
    let all = workload.networks.get_or_insert_with(|| {
        let network = "default".to_owned();
        vec![Attachment { network, aliases: Vec::new(), internal: false }]
    });
    for attachment in all.iter_mut().filter(|one| !one.aliases.iter().any(|known| known == name)) {
        attachment.aliases.push(name.to_owned());
    }
}

fn place<'a>(file: &'a str, name: &str) -> Place<'a> {
    Place::top(file).key("services").key(name)
}

fn workload(name: &str, service: &Service, project: &Project) -> Result<Workload, Error> {
    let file = service.file.display().to_string();
    let place = place(&file, name);
    let value = &service.value;
    let mut notes = Vec::new();
    let image = image(value, service, project, &place, &mut notes)?;
    let mut workload = Workload::new(name.to_owned(), Kind::ComposeService, file.clone(), image);
    workload.notes = notes;
    workload.entrypoint = words(value, "entrypoint", &place)?;
    workload.command = words(value, "command", &place)?;
    workload.env = environment(value, service, &place, &mut workload.notes)?;
    workload.workdir = yaml::opt_text(value, "working_dir", &place)?;
    workload.user = yaml::opt_text(value, "user", &place)?;
    workload.hostname = yaml::opt_text(value, "hostname", &place)?;
    workload.hosts = hosts(value, &place)?;
    limits(value, &place, &mut workload)?;
    workload.stop_signal = yaml::opt_text(value, "stop_signal", &place)?;
    workload.stop_grace = span(value, "stop_grace_period", &place)?;
    ports(value, &place, &mut workload)?;
    mounts(value, service, project, &place, &mut workload)?;
    workload.resources = resources(value, &place)?;
    workload.health = health(value, &place)?;
    workload.depends_on = dependencies(value, &place)?;
    workload.networks = networks(value, project, &place)?;
    deploy(value, &place, &mut workload)?;
    boundaries(value, &place, &mut workload)?;
    Ok(workload)
}

fn image(
    value: &Value,
    service: &Service,
    project: &Project,
    place: &Place<'_>,
    notes: &mut Vec<Note>,
) -> Result<Image, Error> {
    let reference = yaml::opt_text(value, "image", place)?;
    if let Some(given) = value.get("build").filter(|build| !build.is_null()) {
        return build::image(given, service, project, &place.key("build"), notes);
    }
    match reference {
        Some(reference) if !reference.is_empty() => Ok(Image::Reference(reference)),
        _ if value.get("provider").is_some() => Err(place.key("provider").error(
            "a plugin of Docker Compose provides it, and no container: give it a `profiles` of its own, \
             and others their reference to it by `environment`",
        )),
        _ => Err(place.error("neither `image` nor `build` says what to run")),
    }
}

/// A command: a list as it is, a text split as a shell would.
fn words(value: &Value, key: &str, place: &Place<'_>) -> Result<Option<Vec<String>>, Error> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => shlex::split(text)
            .map(Some)
            .ok_or_else(|| place.key(key).error("its quotes don't match")),
        Some(_) => yaml::texts(value, key, place).map(Some),
    }
}

fn span(value: &Value, key: &str, place: &Place<'_>) -> Result<Option<u32>, Error> {
    let Some(text) = yaml::opt_text(value, key, place)? else { return Ok(None) };
    quantity::seconds(&text).map(Some).ok_or_else(|| no_span(&text, key, place))
}

fn no_span(text: &str, key: &str, place: &Place<'_>) -> Error {
    place.key(key).error(format!("`{text}` is no span of time such as `1m30s`"))
}

/// `extra_hosts`: `NAME:ADDRESS` or `NAME=ADDRESS`, or a mapping of names.
fn hosts(value: &Value, place: &Place<'_>) -> Result<Vec<(String, String)>, Error> {
    let place = place.key("extra_hosts");
    let mut found = Vec::new();
    let mut add = |name: &str, address: &str| {
        let name = name.trim();
        let address = address.trim().trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || address != HOST_GATEWAY && address.parse::<IpAddr>().is_err() {
            return Err(place.error(format!("`{name}` has no address: `{address}`")));
        }
        found.push((name.to_owned(), address.to_owned()));
        Ok(())
    };
    match value.get("extra_hosts") {
        Some(Value::Object(map)) => {
            for name in map.keys() {
                for address in
                    yaml::texts(value.get("extra_hosts").unwrap_or(&Value::Null), name, &place)?
                {
                    add(name, &address)?;
                }
            }
        }
        _ => {
            for text in yaml::texts(value, "extra_hosts", &place)? {
                let (name, address) = text.split_once(['=', ':']).unwrap_or((&text, ""));
                add(name, address)?;
            }
        }
    }
    Ok(found)
}

/// `ulimits` and `sysctls`.
fn limits(value: &Value, place: &Place<'_>, workload: &mut Workload) -> Result<(), Error> {
    // What is no scalar is no limit, either.
    let scalar = |value: &Value| yaml::scalar(value).unwrap_or_default();
    for (name, limit) in value.get("ulimits").and_then(Value::as_object).into_iter().flatten() {
        let place = place.key("ulimits").key(name);
        let [soft, hard] = match limit {
            Value::Object(pair) => ["soft", "hard"].map(|key| pair.get(key).map(scalar)),
            both => [Some(scalar(both)), Some(scalar(both))],
        };
        let (Some(soft), Some(hard)) = (soft, hard) else {
            return Err(place.error("it has no `soft` and `hard`"));
        };
        workload.limit(name, &soft, &hard).map_err(|error| place.error(error.to_string()))?;
    }
    let place = place.key("sysctls");
    let settings: Vec<(String, String)> = match value.get("sysctls") {
        Some(Value::Object(map)) => {
            map.iter().map(|(name, value)| (name.clone(), scalar(value))).collect()
        }
        _ => {
            let texts = yaml::texts(value, "sysctls", &place)?;
            let pair = |text: &String| {
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                (name.to_owned(), value.to_owned())
            };
            texts.iter().map(pair).collect()
        }
    };
    for (name, value) in settings {
        workload.setting(&name, &value).map_err(|error| place.error(error.to_string()))?;
    }
    Ok(())
}

/// `env_file`s in their order, then `environment`.
fn environment(
    value: &Value,
    service: &Service,
    place: &Place<'_>,
    notes: &mut Vec<crate::fleet::Note>,
) -> Result<Vec<Variable>, Error> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for item in yaml::list(value, "env_file", place)? {
        let place = place.key("env_file");
        let (path, required, raw) = match item {
            Value::String(path) => (path.clone(), true, false),
            item => {
                let path = yaml::opt_text(item, "path", &place)?
                    .ok_or_else(|| place.error("a path is expected here"))?;
                let required = item.get("required").and_then(Value::as_bool).unwrap_or(true);
                let format = yaml::opt_text(item, "format", &place)?;
                (path, required, format.as_deref() == Some("raw"))
            }
        };
        let path = service.directory.join(path);
        if !required && !path.exists() {
            continue;
        }
        let text = yaml::read_text(&path)?;
        let name = path.display().to_string();
        if raw {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            all.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        } else {
            all.extend(dotenv::parse(&text, &name, &service.variables)?);
        }
    }
    let mut removed = Vec::new();
    match value.get("environment") {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (name, value) in map {
                match value {
                    Value::Null => match outside(name, &service.variables) {
                        Some(value) => {
                            all.insert(name.clone(), value);
                        }
                        None => removed.push(name.clone()),
                    },
                    value => {
                        let text = yaml::scalar(value).ok_or_else(|| {
                            place.key("environment").key(name).error("a text is expected here")
                        })?;
                        all.insert(name.clone(), text);
                    }
                }
            }
        }
        Some(_) => {
            return Err(place.key("environment").error("a mapping or a list is expected here"));
        }
    }
    for name in removed {
        all.remove(&name);
        notes.push(crate::fleet::Note {
            severity: Severity::Info,
            text: format!("`{name}` is passed on from an environment that does not have it"),
        });
    }
    Ok(all.into_iter().map(|(name, text)| Variable { name, value: EnvValue::Text(text) }).collect())
}

fn outside(name: &str, variables: &Variables) -> Option<String> {
    variables.get(name).cloned()
}

fn ports(value: &Value, place: &Place<'_>, workload: &mut Workload) -> Result<(), Error> {
    for item in yaml::list(value, "ports", place)? {
        let place = place.key("ports");
        if item.is_object() {
            workload.ports.push(long_port(item, &place)?);
            continue;
        }
        let text = yaml::scalar(item).ok_or_else(|| place.error("a port is expected here"))?;
        let published = Publish::parse(&text).map_err(|error| place.error(error.to_string()))?;
        workload.ports.extend(published.into_iter().map(|port| PortMap {
            host_ip: (!port.ip.is_unspecified()).then(|| port.ip.to_string()),
            host: port.host,
            published: true,
            guest: port.guest.port,
            proto: port.guest.proto,
            name: None,
        }));
    }
    for text in yaml::texts(value, "expose", place)? {
        let place = place.key("expose");
        let published = Publish::parse(&text).map_err(|error| place.error(error.to_string()))?;
        for port in published {
            let known =
                |other: &PortMap| other.guest == port.guest.port && other.proto == port.guest.proto;
            if !workload.ports.iter().any(known) {
                workload.ports.push(PortMap {
                    host_ip: None,
                    host: None,
                    published: false,
                    guest: port.guest.port,
                    proto: port.guest.proto,
                    name: None,
                });
            }
        }
    }
    Ok(())
}

fn long_port(item: &Value, place: &Place<'_>) -> Result<PortMap, Error> {
    let number = |key: &str| -> Result<Option<u16>, Error> {
        let Some(text) = yaml::opt_text(item, key, place)? else { return Ok(None) };
        match text.parse() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(place.key(key).error(format!("`{text}` is no port"))),
        }
    };
    let proto = match yaml::opt_text(item, "protocol", place)?.as_deref() {
        None | Some("tcp") => Proto::Tcp,
        Some("udp") => Proto::Udp,
        Some(other) => {
            return Err(place.key("protocol").error(format!("`{other}` can't be forwarded")));
        }
    };
    Ok(PortMap {
        host_ip: yaml::opt_text(item, "host_ip", place)?,
        host: number("published")?,
        published: true,
        guest: number("target")?.ok_or_else(|| place.error("the `target` port is missing"))?,
        proto,
        name: yaml::opt_text(item, "name", place)?,
    })
}

fn mounts(
    value: &Value,
    service: &Service,
    project: &Project,
    place: &Place<'_>,
    workload: &mut Workload,
) -> Result<(), Error> {
    for item in yaml::list(value, "volumes", place)? {
        let place = place.key("volumes");
        if let Some(kind @ ("image" | "cluster" | "npipe")) =
            item.get("type").and_then(Value::as_str)
        {
            let target = yaml::opt_text(item, "target", &place)?.unwrap_or_default();
            workload.note(
                Severity::Blocker,
                format!(
                    "a mount of type `{kind}` at `{target}` has no counterpart: copy the files in"
                ),
            );
            continue;
        }
        let mut mount = match item {
            Value::String(text) => short_mount(text, &service.directory, &place)?,
            item => long_mount(item, &service.directory, &place)?,
        };
        let declared =
            project.declared.get("volumes").is_some_and(|all| all.contains_key(&mount.source));
        if mount.kind == MountKind::Volume && !declared {
            let source = &mount.source;
            return Err(place.error(format!("the volume `{source}` is not declared")));
        }
        if mount.kind == MountKind::Volume {
            mount.origin = volume_name(project, &mount.source, &place)?.map(Origin::Volume);
            let of_driver = project.declared.get("volumes").and_then(|all| all.get(&mount.source));
            driver(of_driver.unwrap_or(&Value::Null), &mount.source, &place, workload)?;
        }
        if mount.kind == MountKind::Host {
            host_mount(&mount, workload);
        }
        workload.mounts.push(mount);
    }
    for text in yaml::texts(value, "tmpfs", place)? {
        let target = text.split(':').next().unwrap_or_default().to_owned();
        workload.mounts.push(Mount {
            kind: MountKind::Scratch,
            source: String::new(),
            target,
            read_only: false,
            origin: None,
            mode: None,
        });
    }
    for (key, kind) in [("configs", MountKind::Config), ("secrets", MountKind::Secret)] {
        for item in yaml::list(value, key, place)? {
            let place = place.key(key);
            let (source, target, mode) = match item {
                Value::String(name) => (name.clone(), None, None),
                item => (
                    yaml::opt_text(item, "source", &place)?
                        .ok_or_else(|| place.error("a `source` is expected here"))?,
                    yaml::opt_text(item, "target", &place)?,
                    quantity::mode(item, "mode", &place)?,
                ),
            };
            let target = match (target, kind) {
                (Some(path), _) if path.starts_with('/') => path,
                (Some(name), MountKind::Secret) => format!("/run/secrets/{name}"),
                (None, MountKind::Secret) => format!("/run/secrets/{source}"),
                (Some(name), _) => format!("/{name}"),
                (None, _) => format!("/{source}"),
            };
            let origin = origin(project, key, &source, service, &place)?;
            workload.mounts.push(Mount { kind, source, target, read_only: true, origin, mode });
        }
    }
    Ok(())
}

/// What makes a declared volume, where that is more than a directory of Docker's own.
fn driver(
    declared: &Value,
    name: &str,
    place: &Place<'_>,
    workload: &mut Workload,
) -> Result<(), Error> {
    let driver = yaml::opt_text(declared, "driver", &place.key(name))?;
    let options = declared.get("driver_opts").and_then(Value::as_object);
    let plain = driver.as_deref().is_none_or(|driver| matches!(driver, "local" | "default"));
    if !plain || options.is_some_and(|options| !options.is_empty()) {
        let driver = driver.unwrap_or_else(|| "local".to_owned());
        workload.note(
            Severity::Warning,
            format!(
                "the volume `{name}` is what the driver `{driver}` makes of its options: the VM gets an \
                 empty disk in its place"
            ),
        );
    }
    Ok(())
}

/// The name of a declared volume outside of the project, if it has one.
fn volume_name(project: &Project, name: &str, place: &Place<'_>) -> Result<Option<String>, Error> {
    let declared = project.declared.get("volumes").and_then(|all| all.get(name));
    let Some(declared) = declared else { return Ok(None) };
    let place = place.key(name);
    if let Some(given) = yaml::opt_text(declared, "name", &place)? {
        return Ok(Some(given));
    }
    let external = declared.get("external").is_some_and(|value| *value != Value::Bool(false));
    Ok(external.then(|| name.to_owned()))
}

/// What a declared config or secret is made of. One that is external or missing has no origin.
pub fn origin(
    project: &Project,
    kind: &str,
    name: &str,
    service: &Service,
    place: &Place<'_>,
) -> Result<Option<Origin>, Error> {
    let Some(declared) = project.declared.get(kind).and_then(|all| all.get(name)) else {
        return Err(place.error(format!("`{name}` is not declared")));
    };
    let place = place.key(name);
    if let Some(path) = yaml::opt_text(declared, "file", &place)? {
        return Ok(Some(Origin::File(host_path(&path, &service.directory).into())));
    }
    if let Some(text) = yaml::opt_text(declared, "content", &place)? {
        return Ok(Some(Origin::Text(text)));
    }
    Ok(yaml::opt_text(declared, "environment", &place)?.map(Origin::Variable))
}

/// The networks of a service: a list of names, or a mapping with aliases.
fn networks(
    value: &Value,
    project: &Project,
    place: &Place<'_>,
) -> Result<Option<Vec<Attachment>>, Error> {
    if yaml::opt_text(value, "network_mode", place)?.as_deref() == Some("none") {
        return Ok(Some(Vec::new()));
    }
    let place = place.key("networks");
    let named: Vec<(String, Vec<String>)> = match value.get("networks") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(name, details)| {
                Ok((name.clone(), yaml::texts(details, "aliases", &place.key(name))?))
            })
            .collect::<Result<_, Error>>()?,
        Some(_) => {
            let names = yaml::texts(value, "networks", &place)?;
            names.into_iter().map(|name| (name, Vec::new())).collect()
        }
    };
    let declared = project.declared.get("networks");
    let mut found = Vec::new();
    for (network, aliases) in named {
        let details = declared.and_then(|all| all.get(&network));
        if details.is_none() && network != "default" {
            return Err(place.error(format!("the network `{network}` is not declared")));
        }
        let internal = match details {
            Some(details) => yaml::flag(details, "internal", &place.key(&network))?,
            None => false,
        };
        found.push(Attachment { network, aliases, internal });
    }
    Ok(Some(found))
}

/// Sockets and kernel filesystems of the host mean that the container works on the host itself.
fn host_mount(mount: &Mount, workload: &mut Workload) {
    let Mount { source, target, .. } = mount;
    if source.ends_with(".sock") {
        workload.note(
            Severity::Blocker,
            format!("it talks to the host through `{source}`, which a VM can't reach"),
        );
    } else if ["/proc", "/sys", "/dev", "/var/lib/docker", "/var/run", "/run"]
        .iter()
        .any(|path| source == path || source.strip_prefix(path).is_some_and(|r| r.starts_with('/')))
    {
        workload.note(
            Severity::Blocker,
            format!("it works on the host's `{source}`, of which a VM has its own"),
        );
    } else if source != "/etc/localtime" && source != "/etc/timezone" {
        workload.note(
            Severity::Warning,
            format!("`{source}` of the host at `{target}` is shared with the VM only on this host"),
        );
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with(['/', '.', '~'])
}

fn short_mount(text: &str, directory: &Path, place: &Place<'_>) -> Result<Mount, Error> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(place.error(format!("`{text}` is not of the form SOURCE:TARGET[:MODE]"))),
    };
    if !target.starts_with('/') {
        return Err(place.error(format!("`{target}` in `{text}` is not an absolute path")));
    }
    let (kind, source) = match source {
        "" => (MountKind::Anonymous, String::new()),
        path if is_path(path) => (MountKind::Host, host_path(path, directory)),
        name => (MountKind::Volume, name.to_owned()),
    };
    let read_only = mode.split(',').any(|word| word == "ro");
    Ok(Mount { kind, source, target: target.to_owned(), read_only, origin: None, mode: None })
}

fn host_path(path: &str, directory: &Path) -> String {
    let path = match path.strip_prefix("~/") {
        Some(rest) => match std::env::home_dir() {
            Some(home) => home.join(rest),
            None => Path::new(path).to_owned(),
        },
        None => directory.join(path),
    };
    // `./data` beside the file reads better without the dot.
    path.components().collect::<std::path::PathBuf>().display().to_string()
}

fn long_mount(item: &Value, directory: &Path, place: &Place<'_>) -> Result<Mount, Error> {
    let source = yaml::opt_text(item, "source", place)?.unwrap_or_default();
    let target = yaml::opt_text(item, "target", place)?
        .filter(|target| target.starts_with('/'))
        .ok_or_else(|| place.error("an absolute `target` is expected here"))?;
    let (kind, source) = match yaml::opt_text(item, "type", place)?.as_deref() {
        Some("volume") | None if source.is_empty() => (MountKind::Anonymous, source),
        Some("volume") | None => (MountKind::Volume, source),
        Some("bind") => (MountKind::Host, host_path(&source, directory)),
        Some("tmpfs") => (MountKind::Scratch, String::new()),
        Some(other) => {
            return Err(place.key("type").error(format!("mounts of type `{other}` are not known")));
        }
    };
    let read_only = yaml::flag(item, "read_only", place)?;
    Ok(Mount { kind, source, target, read_only, origin: None, mode: None })
}

/// `deploy.resources.limits`, or else the older keys of the service.
fn resources(value: &Value, place: &Place<'_>) -> Result<Resources, Error> {
    let limits = value.pointer("/deploy/resources/limits").unwrap_or(&Value::Null);
    let either = |new: &str, old: &str| -> Result<Option<(String, Place<'_>)>, Error> {
        let deep = place.key("deploy.resources.limits");
        if let Some(text) = yaml::opt_text(limits, new, &deep)? {
            return Ok(Some((text, deep.key(new))));
        }
        Ok(yaml::opt_text(value, old, place)?.map(|text| (text, place.key(old))))
    };
    let milli_cpus = match either("cpus", "cpus")? {
        None => None,
        Some((text, place)) => Some(
            quantity::kubernetes(&text, 1000.0)
                .filter(|_| !text.ends_with(char::is_alphabetic))
                .ok_or_else(|| place.error(format!("`{text}` is no number of processors")))?,
        ),
    };
    let memory = match either("memory", "mem_limit")? {
        None => None,
        Some((text, place)) => Some(
            quantity::compose_bytes(&text)
                .ok_or_else(|| place.error(format!("`{text}` is no size such as 512m")))?,
        ),
    };
    Ok(Resources {
        milli_cpus: milli_cpus.filter(|count| *count > 0),
        memory: memory.filter(|bytes| *bytes > 0),
    })
}

fn health(value: &Value, place: &Place<'_>) -> Result<Option<Health>, Error> {
    let Some(check) = value.get("healthcheck").filter(|check| !check.is_null()) else {
        return Ok(None);
    };
    let place = place.key("healthcheck");
    if yaml::flag(check, "disable", &place)? {
        return Ok(Some(Health::Off));
    }
    let test = match check.get("test") {
        None | Some(Value::Null) => Test::Image,
        Some(Value::String(text)) => Test::Shell(text.clone()),
        Some(_) => {
            let mut words = yaml::texts(check, "test", &place)?.into_iter();
            match words.next().as_deref() {
                Some("NONE") => return Ok(Some(Health::Off)),
                Some("CMD") => Test::Program(words.collect()),
                Some("CMD-SHELL") => Test::Shell(words.next().unwrap_or_default()),
                _ => {
                    return Err(place
                        .key("test")
                        .error("a list begins with `CMD`, `CMD-SHELL` or `NONE`"));
                }
            }
        }
    };
    let retries = yaml::opt_text(check, "retries", &place)?;
    let retries = match retries {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| place.key("retries").error(format!("`{text}` is no number")))?,
        ),
    };
    let time = |key: &str| {
        let Some(text) = yaml::opt_text(check, key, &place)? else { return Ok(None) };
        quantity::milliseconds(&text).map(Some).ok_or_else(|| no_span(&text, key, &place))
    };
    Ok(Some(Health::Command {
        test,
        interval_ms: time("interval")?,
        timeout_ms: time("timeout")?,
        retries,
        start_period_ms: time("start_period")?,
        start_interval_ms: time("start_interval")?,
    }))
}

fn dependencies(value: &Value, place: &Place<'_>) -> Result<Vec<Dependency>, Error> {
    let mut found = Vec::new();
    let Some(Value::Object(map)) = value.get("depends_on") else { return Ok(found) };
    for (name, details) in map {
        let place = place.key("depends_on").key(name);
        let condition = match yaml::opt_text(details, "condition", &place)?.as_deref() {
            None | Some("service_started") => Condition::Started,
            Some("service_healthy") => Condition::Healthy,
            Some("service_completed_successfully") => Condition::Completed,
            Some(other) => return Err(place.error(format!("`{other}` is no known condition"))),
        };
        let required = details.get("required").and_then(Value::as_bool).unwrap_or(true);
        found.push(Dependency { name: name.clone(), condition, required });
    }
    Ok(found)
}

fn deploy(value: &Value, place: &Place<'_>, workload: &mut Workload) -> Result<(), Error> {
    let deploy = value.get("deploy").unwrap_or(&Value::Null);
    let replicas = match deploy.get("replicas").or_else(|| value.get("scale")) {
        None | Some(Value::Null) => None,
        Some(count) => Some(
            yaml::scalar(count)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| place.key("deploy.replicas").error("a number is expected here"))?,
        ),
    };
    workload.replicas = replicas.unwrap_or(1);
    if yaml::opt_text(deploy, "mode", &place.key("deploy"))?.as_deref() == Some("global") {
        workload.replicas = 0;
        workload.note(Severity::Info, "it runs once on every node");
    }
    let policy = match yaml::opt_text(value, "restart", place)? {
        Some(policy) => Some(policy),
        None => {
            let restart = deploy.get("restart_policy").unwrap_or(&Value::Null);
            yaml::opt_text(restart, "condition", &place.key("deploy.restart_policy"))?
        }
    };
    workload.restart = match policy.as_deref() {
        None | Some("no" | "none" | "false") => Restart::No,
        Some("always" | "unless-stopped" | "any") => Restart::Always,
        Some("on-failure") => Restart::OnFailure,
        Some(other) if other.starts_with("on-failure:") => {
            let count = other["on-failure:".len()..].parse().map_err(|_| {
                place.key("restart").error(format!("`{other}` says no number of attempts"))
            })?;
            workload.restart_limit = Some(count);
            Restart::OnFailure
        }
        Some(other) => {
            return Err(place.key("restart").error(format!("`{other}` is no known policy")));
        }
    };
    Ok(())
}

/// What the service asks for that crosses the border of a VM.
fn boundaries(value: &Value, place: &Place<'_>, workload: &mut Workload) -> Result<(), Error> {
    let given = |key: &str| match value.get(key) {
        None | Some(Value::Null) | Some(Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    };
    for (key, text) in BLOCKERS {
        if given(key) {
            workload.note(Severity::Blocker, *text);
        }
    }
    for (key, text) in MISSED {
        if given(key) {
            workload.note(Severity::Warning, format!("not carried over: {text}"));
        }
    }
    for (key, text) in DROPPED {
        if given(key) {
            workload.note(Severity::Info, format!("not carried over: {text}"));
        }
    }
    let listed = |key: &str| {
        let mut tables = BLOCKERS.iter().chain(MISSED).chain(DROPPED);
        key.starts_with("x-") || tables.any(|(known, _)| *known == key)
    };
    for key in value.as_object().into_iter().flat_map(|map| map.keys()) {
        if !listed(key) && !UNDERSTOOD.split_whitespace().any(|known| known == key) {
            let text = format!("`{key}` is no key that Compose has here: it is left out");
            workload.note(Severity::Warning, text);
        }
    }
    if yaml::flag(value, "privileged", place)? {
        workload.note(
            Severity::Warning,
            "it is privileged: whatever it does to its host, it does to its own VM instead",
        );
    }
    for key in ["network_mode", "pid", "ipc", "uts"] {
        let Some(mode) = yaml::opt_text(value, key, place)? else { continue };
        match mode.as_str() {
            "host" if key == "network_mode" => workload.note(
                Severity::Warning,
                "it uses the host's network: a VM has its own, so publish the ports it serves",
            ),
            "none" => workload.note(Severity::Info, "it has no network"),
            "host" => workload.note(
                Severity::Blocker,
                format!("it shares the host's `{key}` namespace, which a VM can't"),
            ),
            other if other.starts_with("service:") || other.starts_with("container:") => workload
                .note(
                    Severity::Blocker,
                    format!("`{key}: {other}`: a VM shares nothing with another container"),
                ),
            _ => {}
        }
    }
    if let Some(platform) = yaml::opt_text(value, "platform", place)?
        && !platform.starts_with("linux/amd64")
        && platform != "linux"
    {
        workload.note(
            Severity::Blocker,
            format!("it asks for `{platform}`: images for linux/amd64 are converted"),
        );
    }
    Ok(())
}
