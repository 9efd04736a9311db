//! Pods: one workload for each container.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Cluster, env, files, service};
use crate::fleet::yaml::{self, Place};
use crate::fleet::{
    Condition, Dependency, Error, Health, Image, Kind, MountKind, PortMap, Resources, Restart,
    Role, Severity, Test, Workload, quantity,
};
use dock2uni_format::record::Proto;

/// What a pod belongs to.
pub struct Owner<'a> {
    /// The file.
    pub file: &'a str,
    /// Its kind.
    pub kind: Kind,
    /// `namespace/kind/name`, which names of workloads start with.
    pub prefix: String,
    /// Its namespace.
    pub namespace: String,
    /// Labels of its pods.
    pub labels: &'a Value,
    /// Where it stands.
    pub place: Place<'a>,
}

/// Every container of a pod.
pub fn workloads(
    owner: &Owner<'_>,
    pod: &Value,
    cluster: &Cluster<'_>,
) -> Result<Vec<Workload>, Error> {
    let place = owner.place.key("spec");
    let init = yaml::list(pod, "initContainers", &place)?;
    let main = yaml::list(pod, "containers", &place)?;
    if main.is_empty() {
        return Err(place.error("it has no `containers`"));
    }
    let mut found: Vec<Workload> = Vec::new();
    let mut before: Vec<Dependency> = Vec::new();
    for (list, containers) in [("initContainers", init), ("containers", main)] {
        for (at, item) in containers.iter().enumerate() {
            let place = place.key(list).key(at);
            let mut workload = container(owner, pod, item, cluster, &place)?;
            let always = item.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            if list == "initContainers" {
                // It is tried again unless the pod says otherwise, and ends for good when it succeeds.
                workload.restart = match workload.restart {
                    _ if always => Restart::Always,
                    Restart::No => Restart::No,
                    _ => Restart::OnFailure,
                };
            }
            workload.role = match (list, always) {
                ("containers", _) => Role::Main,
                (_, true) => Role::Sidecar,
                (_, false) => Role::Init,
            };
            workload.depends_on = before.clone();
            let condition = match workload.role {
                Role::Init => Some(Condition::Completed),
                Role::Sidecar => Some(Condition::Started),
                Role::Main => None,
            };
            if let Some(condition) = condition {
                let name = workload.name.clone();
                before.push(Dependency { name, condition, required: true });
            }
            found.push(workload);
        }
    }
    together(pod, &mut found);
    service::attach(owner, cluster, &mut found)?;
    Ok(found)
}

/// What containers of one pod share, and a VM each does not.
fn together(pod: &Value, workloads: &mut [Workload]) {
    let count = workloads.iter().filter(|workload| workload.role == Role::Main).count();
    let sidecars = workloads.iter().filter(|workload| workload.role == Role::Sidecar).count();
    if count + sidecars > 1 {
        for workload in workloads.iter_mut().filter(|workload| workload.role != Role::Init) {
            workload.note(
                Severity::Warning,
                "containers of one pod reach each other at localhost; as VMs they need addresses of \
                 their own",
            );
        }
    }
    if pod.get("shareProcessNamespace").and_then(Value::as_bool) == Some(true)
        && count + sidecars > 1
    {
        for workload in workloads.iter_mut() {
            workload.note(
                Severity::Blocker,
                "the containers of its pod see each other's processes, which VMs can't",
            );
        }
    }
    // A scratch volume in two containers hands files from one to the other.
    let shared: Vec<String> = scratch_names(workloads);
    for workload in workloads.iter_mut() {
        let names: Vec<String> = workload
            .mounts
            .iter()
            .filter(|mount| mount.kind == MountKind::Scratch && shared.contains(&mount.source))
            .map(|mount| mount.source.clone())
            .collect();
        for name in names {
            workload.note(
                Severity::Warning,
                format!(
                    "the `emptyDir` volume `{name}` is shared with another container of its pod; \
                     VMs need a volume on a shared filesystem for that"
                ),
            );
        }
    }
}

fn scratch_names(workloads: &[Workload]) -> Vec<String> {
    let mut once: Vec<&str> = Vec::new();
    let mut twice = Vec::new();
    for workload in workloads {
        let mut mine: Vec<&str> = workload
            .mounts
            .iter()
            .filter(|mount| mount.kind == MountKind::Scratch && !mount.source.is_empty())
            .map(|mount| mount.source.as_str())
            .collect();
        mine.sort_unstable();
        mine.dedup();
        for name in mine {
            match once.contains(&name) {
                true => twice.push(name.to_owned()),
                false => once.push(name),
            }
        }
    }
    twice
}

fn container(
    owner: &Owner<'_>,
    pod: &Value,
    item: &Value,
    cluster: &Cluster<'_>,
    place: &Place<'_>,
) -> Result<Workload, Error> {
    // Knative's only container may have none.
    let only = yaml::list(pod, "containers", place)?.len() == 1;
    let own = || owner.prefix.rsplit('/').next().filter(|_| only).map(str::to_owned);
    let name = yaml::opt_text(item, "name", place)?
        .or_else(own)
        .ok_or_else(|| place.error("a container has no `name`"))?;
    let image = yaml::opt_text(item, "image", place)?
        .filter(|image| !image.is_empty())
        .ok_or_else(|| place.error(format!("the container `{name}` has no `image`")))?;
    let full = format!("{}/{name}", owner.prefix);
    let mut workload =
        Workload::new(full, owner.kind, owner.file.to_owned(), Image::Reference(image));
    env::set(&mut workload, item, &owner.namespace, cluster, place)?;
    let words = |key: &str| -> Result<Option<Vec<String>>, Error> {
        let words = yaml::texts(item, key, place)?;
        let words: Vec<String> =
            words.iter().map(|word| env::expand(word, &workload.env)).collect();
        Ok((!words.is_empty()).then_some(words))
    };
    (workload.entrypoint, workload.command) = (words("command")?, words("args")?);
    workload.workdir = yaml::opt_text(item, "workingDir", place)?;
    workload.user = user(pod, item);
    let grace = pod.get("terminationGracePeriodSeconds").and_then(Value::as_u64);
    workload.stop_grace = Some(grace.and_then(|grace| grace.try_into().ok()).unwrap_or(30));
    workload.hostname = yaml::opt_text(pod, "hostname", &owner.place.key("spec"))?;
    let context = pod.get("securityContext").unwrap_or(&Value::Null);
    let at = owner.place.key("spec").key("securityContext");
    for item in yaml::list(context, "sysctls", &at)? {
        let place = at.key("sysctls");
        let [name, value] = ["name", "value"].map(|key| yaml::opt_text(item, key, &place));
        let (name, value) = (name?.unwrap_or_default(), value?.unwrap_or_default());
        workload.setting(&name, &value).map_err(|error| place.error(error.to_string()))?;
    }
    for alias in yaml::list(pod, "hostAliases", &owner.place.key("spec"))? {
        let place = owner.place.key("spec").key("hostAliases");
        let address = yaml::opt_text(alias, "ip", &place)?.unwrap_or_default();
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(place.error(format!("`{address}` is no address")));
        }
        for name in yaml::texts(alias, "hostnames", &place)? {
            workload.hosts.push((name, address.clone()));
        }
    }
    ports(item, place, &mut workload)?;
    files::mounts(pod, item, &owner.namespace, cluster, place, &mut workload)?;
    workload.resources = resources(item, place)?;
    workload.health = probe(item, place)?;
    workload.restart = match pod.get("restartPolicy").and_then(Value::as_str) {
        Some("Never") => Restart::No,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    };
    boundaries(pod, item, &mut workload);
    Ok(workload)
}

/// `runAsUser` and `runAsGroup`, the container's before the pod's.
fn user(pod: &Value, item: &Value) -> Option<String> {
    let id = |key: &str| {
        let at = |value: &Value| value.pointer(&format!("/securityContext/{key}"))?.as_u64();
        at(item).or_else(|| at(pod))
    };
    match (id("runAsUser"), id("runAsGroup")) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        _ => None,
    }
}

fn ports(item: &Value, place: &Place<'_>, workload: &mut Workload) -> Result<(), Error> {
    for port in yaml::list(item, "ports", place)? {
        let place = place.key("ports");
        let number = |key: &str| -> Result<Option<u16>, Error> {
            let Some(text) = yaml::opt_text(port, key, &place)? else { return Ok(None) };
            match text.parse() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(place.key(key).error(format!("`{text}` is no port"))),
            }
        };
        let guest = number("containerPort")?
            .ok_or_else(|| place.error("a `containerPort` is expected here"))?;
        let proto = match port.get("protocol").and_then(Value::as_str) {
            None | Some("TCP") => Proto::Tcp,
            Some("UDP") => Proto::Udp,
            Some(other) => {
                workload.note(
                    Severity::Blocker,
                    format!("port {guest} speaks {other}, which the guest's kernel doesn't"),
                );
                continue;
            }
        };
        let host = number("hostPort")?;
        if let Some(host) = host {
            workload.note(
                Severity::Info,
                format!("port {host} of the node is a matter of the VM's network"),
            );
        }
        workload.ports.push(PortMap {
            host_ip: None,
            host,
            published: host.is_some(),
            guest,
            proto,
            name: yaml::opt_text(port, "name", &place)?,
        });
    }
    Ok(())
}

fn resources(item: &Value, place: &Place<'_>) -> Result<Resources, Error> {
    let place = place.key("resources");
    let get = |key: &str, unit: f64| -> Result<Option<u64>, Error> {
        let resources = item.get("resources").unwrap_or(&Value::Null);
        for kind in ["limits", "requests"] {
            let values = resources.get(kind).unwrap_or(&Value::Null);
            if let Some(text) = yaml::opt_text(values, key, &place.key(kind))? {
                return quantity::kubernetes(&text, unit).map(Some).ok_or_else(|| {
                    place.key(kind).key(key).error(format!("`{text}` is no quantity"))
                });
            }
        }
        Ok(None)
    };
    Ok(Resources { milli_cpus: get("cpu", 1000.0)?, memory: get("memory", 1.0)? })
}

/// The probe that says most about a working container.
fn probe(item: &Value, place: &Place<'_>) -> Result<Option<Health>, Error> {
    for key in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let Some(probe) = item.get(key).filter(|probe| !probe.is_null()) else { continue };
        let place = place.key(key);
        let port = |of: &Value| of.get("port").and_then(yaml::scalar).unwrap_or_default();
        let number = |key: &str, default: u32| {
            let given = probe.get(key).and_then(Value::as_u64);
            given.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
        };
        // Of what a probe doesn't say Kubernetes knows better than the image.
        let time = |key, default| Some(u64::from(number(key, default)) * 1000);
        if let Some(exec) = probe.get("exec") {
            return Ok(Some(Health::Command {
                test: Test::Program(yaml::texts(exec, "command", &place)?),
                interval_ms: time("periodSeconds", 10),
                timeout_ms: time("timeoutSeconds", 1),
                retries: Some(number("failureThreshold", 3)),
                start_period_ms: time("initialDelaySeconds", 0),
                start_interval_ms: None,
            }));
        }
        if let Some(get) = probe.get("httpGet") {
            let scheme = yaml::opt_text(get, "scheme", &place)?.unwrap_or_default();
            return Ok(Some(Health::Http {
                scheme: if scheme == "HTTPS" { "https" } else { "http" }.to_owned(),
                port: port(get),
                path: yaml::opt_text(get, "path", &place)?.unwrap_or_else(|| "/".to_owned()),
            }));
        }
        if let Some(socket) = probe.get("tcpSocket") {
            return Ok(Some(Health::Tcp { port: port(socket) }));
        }
        if let Some(grpc) = probe.get("grpc") {
            return Ok(Some(Health::Grpc { port: port(grpc) }));
        }
    }
    Ok(None)
}

/// What the pod asks for that crosses the border of a VM.
fn boundaries(pod: &Value, item: &Value, workload: &mut Workload) {
    let flag = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
    };
    for (key, what) in [("/hostPID", "processes"), ("/hostIPC", "shared memory")] {
        if flag(pod, key) {
            workload
                .note(Severity::Blocker, format!("it shares the node's {what}, which a VM can't"));
        }
    }
    if flag(pod, "/hostNetwork") {
        workload.note(
            Severity::Warning,
            "it uses the node's network: a VM has its own, so publish the ports it serves",
        );
    }
    if flag(item, "/securityContext/privileged") {
        workload.note(
            Severity::Warning,
            "it is privileged: whatever it does to its node, it does to its own VM instead",
        );
    }
    if item.get("volumeDevices").and_then(Value::as_array).is_some_and(|all| !all.is_empty()) {
        workload.note(Severity::Warning, "raw block devices have to be attached by the VMM");
    }
    let given = |kind| item.pointer(kind).and_then(Value::as_object).into_iter();
    let all = given("/resources/limits").chain(given("/resources/requests"));
    let all: BTreeSet<&String> = all.flat_map(|resources| resources.keys()).collect();
    for key in all {
        // Device plugins register names with a domain: nvidia.com/gpu, amd.com/gpu.
        if key.contains('/') && !key.starts_with("hugepages-") {
            workload.note(Severity::Blocker, format!("it needs `{key}`, a device that a VM lacks"));
        }
    }
    let arch = pod.pointer("/nodeSelector/kubernetes.io~1arch").and_then(Value::as_str);
    if let Some(arch) = arch.filter(|arch| *arch != "amd64") {
        workload.note(
            Severity::Blocker,
            format!("it asks for `{arch}`: images for linux/amd64 are converted"),
        );
    }
    let hooks = item.get("lifecycle").and_then(Value::as_object);
    for hook in
        hooks.into_iter().flat_map(|hooks| hooks.keys()).filter(|hook| *hook != "stopSignal")
    {
        workload.note(
            Severity::Warning,
            format!("not carried over: what `{hook}` has the node do: have the image do it"),
        );
    }
    let group = pod.pointer("/securityContext/fsGroup").and_then(Value::as_u64);
    let on_disk = workload.mounts.iter().any(|mount| mount.kind == MountKind::Volume);
    if let Some(group) = group.filter(|_| on_disk) {
        workload.note(
            Severity::Warning,
            format!("not carried over: group {group} for the files of its volumes (`fsGroup`)"),
        );
    }
    if flag(item, "/securityContext/readOnlyRootFilesystem") {
        workload.note(
            Severity::Info,
            "not carried over: a read-only root: what is written to it is gone with the VM",
        );
    }
    if pod.get("dnsConfig").is_some_and(|config| !config.is_null()) {
        workload.note(Severity::Info, "not carried over: DNS settings: the VM's network says them");
    }
    let token = pod.get("automountServiceAccountToken").and_then(Value::as_bool);
    let account = pod.get("serviceAccountName").and_then(Value::as_str);
    if token != Some(false) && account.is_some_and(|account| account != "default") {
        workload.note(
            Severity::Warning,
            "it has a service account: what calls the cluster's API finds no token in a VM",
        );
    }
}

/// Volumes that a StatefulSet claims for each of its pods.
pub fn claims(object: &Value, place: &Place<'_>, workloads: &mut [Workload]) -> Result<(), Error> {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let templates = yaml::list(spec, "volumeClaimTemplates", &place.key("spec"))?;
    let names: Vec<&str> = templates
        .iter()
        .filter_map(|template| template.pointer("/metadata/name").and_then(Value::as_str))
        .collect();
    for workload in workloads {
        let mine = workload.mounts.iter().filter(|mount| {
            mount.kind == MountKind::Volume && names.contains(&mount.source.as_str())
        });
        if mine.count() > 0 && workload.replicas > 1 {
            workload.note(Severity::Info, "each of its VMs needs a volume of its own");
        }
    }
    Ok(())
}
