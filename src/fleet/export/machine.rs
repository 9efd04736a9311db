//! From workloads to machines, as configurations describe them.

use std::path::Path;

use dock2uni_format::record::{self, Proto};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::convert::{Order, Report};
use super::super::up::baked::{self, Baked};
use super::super::up::net;
use super::super::{Condition, Health, Kind, MountKind, Origin, Restart, Value, Workload};
use super::{Error, Settings, Target, wrong};
use crate::template::quote;

const SECRETS: &str = "/run/secrets";
/// Tag of the device that secrets come by.
const SECRETS_TAG: &str = "secrets";

/// One VM, in the words of configurations.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Its name: a label of RFC 1123, unique in the fleet.
    pub name: String,
    /// Name of its service, by which others find it.
    pub service: String,
    /// What the source calls it.
    pub title: String,
    /// Its disk.
    pub disk: String,
    /// Its disk as a registry's image.
    pub reference: String,
    /// Memory in MiB.
    pub memory: u64,
    /// Processors.
    pub cpus: u64,
    /// Ports that it serves.
    pub ports: Vec<Port>,
    /// Volumes.
    pub volumes: Vec<Mounted>,
    /// Secrets.
    pub secrets: Vec<Secret>,
    /// How others see whether it is ready.
    pub probe: Option<Probe>,
    /// Machines that come before it.
    pub after: Vec<String>,
    /// `no`, `on-failure` or `always`.
    pub restart: &'static str,
    /// Seconds that it may take to stop.
    pub grace: u32,
    /// Directory with its kernel, record and root, where a target takes them as files.
    pub boot: String,
    /// Its network device on the host, where a target needs one.
    pub tap: String,
    /// Ethernet address.
    pub mac: String,
    /// Address, where configurations give one.
    pub address: String,
    /// UUID, the same for the same names.
    pub uuid: String,
}

/// A port.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// In the VM.
    pub guest: u16,
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// From outside.
    pub host: Option<u16>,
    /// Whether it is reachable from outside.
    pub published: bool,
}

/// A volume.
#[derive(Clone, Debug, Serialize)]
pub struct Mounted {
    /// Its name.
    pub volume: String,
    /// The same as a label of RFC 1123.
    pub label: String,
    /// Its file.
    pub path: String,
    /// Where it is mounted.
    pub target: String,
    /// Not writable.
    pub read_only: bool,
    /// UUID of the filesystem.
    #[serde(skip)]
    pub uuid: [u8; 16],
}

/// A file at /run/secrets.
#[derive(Clone, Debug, Serialize)]
pub struct Secret {
    /// Name of the file.
    pub file: String,
    /// Name of the secret.
    pub source: String,
}

/// How one sees from outside whether a machine is ready.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// `http` or `tcp`.
    pub kind: &'static str,
    /// `HTTP` or `HTTPS`.
    pub scheme: String,
    /// The port.
    pub port: u16,
    /// The path.
    pub path: String,
}

/// Machines, and an order for the disk of each.
pub fn machines(
    workloads: &[Workload],
    settings: &Settings,
) -> Result<(Vec<Machine>, Vec<Order>), Error> {
    let (mut machines, mut orders) = (Vec::new(), Vec::new());
    for workload in workloads {
        let count = workload.replicas.max(1);
        for number in 1..=count {
            let (machine, order) =
                one(workload, workloads, number, count, machines.len(), settings)?;
            if machines.iter().any(|other: &Machine| other.name == machine.name) {
                return Err(wrong(
                    workload,
                    format!("there is another `{}`", machine.name),
                    "give one of them another name",
                ));
            }
            machines.push(machine);
            orders.push(order);
        }
    }
    if machines.len() > net::MAX_MACHINES {
        let text = format!("{} machines are more than fit on one network", machines.len());
        return Err(wrong(&workloads[0], text, "export parts of the fleet"));
    }
    in_order(&mut machines);
    Ok((machines, orders))
}

/// The name that others know a workload by: of `namespace/kind/name/container` the object's, unless
/// its pod has several containers.
fn object(workload: &Workload, all: &[Workload]) -> String {
    let parts: Vec<&str> = workload.name.split('/').collect();
    let [namespace, kind, name, container] = parts[..] else { return workload.name.clone() };
    if matches!(workload.kind, Kind::ComposeService | Kind::Container | Kind::Reference) {
        return workload.name.clone();
    }
    let pod = format!("{namespace}/{kind}/{name}/");
    match all.iter().filter(|other| other.name.starts_with(&pod)).count() {
        1 => name.to_owned(),
        _ => format!("{name}-{container}"),
    }
}

fn one(
    workload: &Workload,
    workloads: &[Workload],
    number: u32,
    count: u32,
    index: usize,
    settings: &Settings,
) -> Result<(Machine, Order), Error> {
    let service = quote::label(&object(workload, workloads));
    let name = if count == 1 { service.clone() } else { format!("{service}-{number}") };
    let mut order = Order::of_workload(workload, false);
    order.name.clone_from(&name);
    if order.overrides.hostname.is_none() {
        order.overrides.hostname = Some(name.clone());
    }
    if settings.target != Target::Systemd {
        environment(workload)?;
    }
    let mut machine = Machine {
        title: workload.name.clone(),
        disk: String::new(),
        reference: String::new(),
        memory: workload
            .resources
            .memory
            .map_or(u64::from(settings.memory_mib), |bytes| bytes.div_ceil(1 << 20)),
        cpus: workload.resources.milli_cpus.unwrap_or(1000).div_ceil(1000).max(1),
        ports: ports(workload),
        volumes: Vec::new(),
        secrets: Vec::new(),
        probe: probe(workload),
        after: workload
            .depends_on
            .iter()
            .filter(|dependency| {
                dependency.condition != Condition::Completed || dependency.required
            })
            .filter_map(|dependency| {
                let needed = workloads.iter().find(|other| other.name == dependency.name)?;
                Some(quote::label(&object(needed, workloads)))
            })
            .collect(),
        restart: match workload.restart {
            Restart::No => "no",
            Restart::OnFailure => "on-failure",
            Restart::Always => "always",
        },
        grace: workload.stop_grace.unwrap_or(10),
        boot: String::new(),
        tap: device(&settings.name, &format!("t{index}")),
        mac: mac(index),
        address: net::address(index).to_string(),
        uuid: uuid(&["machine", &settings.name, &name]).to_string(),
        service,
        name,
    };
    if settings.target != Target::Systemd {
        let suffix = if count == 1 { String::new() } else { format!("-{number}") };
        mounts(workload, &suffix, settings, &mut machine, &mut order)?;
    }
    Ok((machine, order))
}

fn environment(workload: &Workload) -> Result<(), Error> {
    for variable in &workload.env {
        match &variable.value {
            Value::Text(_) => {}
            Value::Secret { name, .. } => {
                return Err(wrong(
                    workload,
                    format!("its variable `{}` is of the secret `{name}`", variable.name),
                    "a disk carries no secrets: have the application read a file below \
                     /run/secrets",
                ));
            }
            Value::Runtime(what) => {
                return Err(wrong(
                    workload,
                    format!("its variable `{}` is known at run time only: {what}", variable.name),
                    "give it a value",
                ));
            }
        }
    }
    Ok(())
}

fn ports(workload: &Workload) -> Vec<Port> {
    let known = workload.ports.iter().filter_map(|port| {
        let proto = match port.proto {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Sctp => return None,
        };
        let host = port.host.or(port.published.then_some(port.guest));
        Some(Port { guest: port.guest, proto, host, published: port.published })
    });
    known.collect()
}

/// A check that runs in the VM is a matter of the VM; others see whether its port is open.
fn probe(workload: &Workload) -> Option<Probe> {
    let number = |port: &str| {
        let named = |known: &&super::super::PortMap| known.name.as_deref() == Some(port);
        port.parse().ok().or_else(|| workload.ports.iter().find(named).map(|known| known.guest))
    };
    let first = workload.ports.iter().find(|port| port.proto == Proto::Tcp);
    let tcp = |port| Probe { kind: "tcp", scheme: String::new(), port, path: String::new() };
    match &workload.health {
        Some(Health::Off) => None,
        Some(Health::Http { scheme, port, path }) => Some(Probe {
            kind: "http",
            scheme: scheme.to_ascii_uppercase(),
            port: number(port)?,
            path: path.clone(),
        }),
        Some(Health::Tcp { port } | Health::Grpc { port }) => number(port).map(tcp),
        Some(Health::Command { .. }) | None => first.map(|port| tcp(port.guest)),
    }
}

fn mounts(
    workload: &Workload,
    suffix: &str,
    settings: &Settings,
    machine: &mut Machine,
    order: &mut Order,
) -> Result<(), Error> {
    let volumes = settings.out.join("volumes");
    for mount in &workload.mounts {
        let path = mount.target.clone().into_bytes();
        let read_only = mount.read_only;
        match mount.kind {
            MountKind::Volume | MountKind::Anonymous => {
                let own = match &mount.origin {
                    Some(Origin::Volume(name)) => name.clone(),
                    _ if mount.kind == MountKind::Volume => {
                        format!("{}_{}", settings.name, mount.source)
                    }
                    _ => format!("{}_{}{}", settings.name, workload.name, mount.target),
                };
                // A volume has one writer: each replica gets one of its own.
                let own = if read_only { own } else { own + suffix };
                let volume = quote::restricted(&own, "_.-");
                let uuid = uuid(&["volume", &volume]).into_bytes();
                let kind = record::MountKind::Volume { uuid };
                order.mounts.push(record::Mount { path, read_only, kind });
                machine.volumes.push(Mounted {
                    label: quote::label(&volume),
                    path: volumes.join(format!("{volume}.ext4")).display().to_string(),
                    target: mount.target.clone(),
                    read_only,
                    uuid,
                    volume,
                });
            }
            MountKind::Scratch => {
                let kind = record::MountKind::Tmpfs { options: String::new() };
                order.mounts.push(record::Mount { path, read_only: false, kind });
            }
            MountKind::Host if Path::new(&mount.source).is_file() => {
                let file = Baked::of_file(Path::new(&mount.source), &mount.target);
                order.files.push(file.map_err(|error| {
                    wrong(workload, error.to_string(), "make the file readable")
                })?);
            }
            MountKind::Host => {
                return Err(wrong(
                    workload,
                    format!("`{}` of this host is mounted at `{}`", mount.source, mount.target),
                    "directories of the host stay with it: copy it in with a Dockerfile, or use a \
                     volume",
                ));
            }
            MountKind::Config => {
                let bytes = baked::content(mount).map_err(|text| {
                    wrong(workload, text, "give it a `file` or `content`, or build it in")
                })?;
                order.files.push(Baked { bytes, ..Baked::of_text("", &mount.target) });
            }
            MountKind::Secret => secret(workload, mount, settings, machine)?,
        }
    }
    if !machine.secrets.is_empty() {
        let kind = record::MountKind::Host { tag: SECRETS_TAG.to_owned() };
        let path = SECRETS.as_bytes().to_vec();
        order.mounts.push(record::Mount { path, read_only: true, kind });
    }
    order.mounts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

fn secret(
    workload: &Workload,
    mount: &super::super::Mount,
    settings: &Settings,
    machine: &mut Machine,
) -> Result<(), Error> {
    if settings.target != Target::Libvirt {
        return Err(wrong(
            workload,
            format!("the secret `{}` is mounted at `{}`", mount.source, mount.target),
            &format!(
                "{} has no way of showing files that the guest's kernel can read, other than \
                 disks, which carry no secrets: have the application fetch it",
                settings.target.name()
            ),
        ));
    }
    let file = mount.target.strip_prefix(SECRETS).and_then(|name| name.strip_prefix('/'));
    let Some(file) = file.filter(|name| !name.is_empty() && !name.contains('/')) else {
        return Err(wrong(
            workload,
            format!("the secret `{}` is to be at `{}`", mount.source, mount.target),
            "have it below /run/secrets",
        ));
    };
    machine.secrets.push(Secret { file: file.to_owned(), source: mount.source.clone() });
    Ok(())
}

/// Those that others need come first; where there is a circle, the order of the source stands.
fn in_order(machines: &mut Vec<Machine>) {
    let mut left = std::mem::take(machines);
    while !left.is_empty() {
        let free = left.iter().position(|machine| {
            !machine.after.iter().any(|after| left.iter().any(|other| other.service == *after))
        });
        machines.push(left.remove(free.unwrap_or(0)));
    }
}

/// Enters what the conversion has made.
pub fn with_disks(machines: &mut [Machine], report: &Report, out: &Path) {
    let out = out.canonicalize().unwrap_or_else(|_| out.to_owned());
    for machine in machines {
        let made = report.items.iter().find(|item| item.name == machine.name);
        if let Some(file) = made.and_then(|item| item.files.first()) {
            machine.disk = out.join(&file.path).display().to_string();
        }
        // A disk's name says what it is made of.
        machine.reference = made.and_then(|item| item.key.clone()).unwrap_or_default();
    }
}

/// A network device of a fleet's on the host: at most 15 bytes, and no other fleet's.
pub fn device(fleet: &str, what: &str) -> String {
    let id = uuid(&["network", fleet]).simple().to_string();
    format!("d2u{}{what}", &id[..5])
}

/// In libvirt's and QEMU's own range.
fn mac(index: usize) -> String {
    let [_, _, c, d] = net::address(index).octets();
    format!("52:54:00:0a:{c:02x}:{d:02x}")
}

/// A UUID that follows from names (RFC 9562, version 8).
fn uuid(parts: &[&str]) -> uuid::Uuid {
    let mut hasher = Sha256::new();
    hasher.update("dock2uni fleet 1");
    for part in parts {
        hasher.update([0]);
        hasher.update(part);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
