//! From workloads to machines, as configurations describe them.

use std::path::Path;

use dock2uni_format::record::{self, Proto};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::convert::{Order, Report};
use super::super::up::baked::{self, Baked};
use super::super::up::net;
use super::super::{
    Condition, Dependency, Health, Kind, MountKind, Origin, Restart, Role, ServicePort, Workload,
    name,
};
use super::secret::{self, Share};
use super::timer::{self, Timer};
use super::{Error, Settings, Target, google, names, order, wrong};
use crate::template::quote;

/// One VM, in the words of configurations.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// Its name: a label of RFC 1123, unique in the fleet.
    pub name: String,
    /// Name of its service, by which others find it.
    pub service: String,
    /// What the source calls it.
    pub title: String,
    /// Its disk.
    pub disk: String,
    /// Its disk's file name.
    pub file: String,
    /// The key of its disk, or the disk as a registry's image.
    pub reference: String,
    /// Whether it serves ports of the outside.
    pub published: bool,
    /// A machine type of Google's that it fits in.
    pub google_type: String,
    /// Memory in MiB.
    pub memory: u64,
    /// Processors.
    pub cpus: u64,
    /// Ports that it serves.
    pub ports: Vec<Port>,
    /// Volumes.
    pub volumes: Vec<Mounted>,
    /// Secrets.
    pub shares: Vec<Share>,
    /// Names that lead to it, its own first.
    pub names: Vec<String>,
    /// Services of Kubernetes that lead to it.
    pub services: Vec<Exposed>,
    /// Whether a manifest of Kubernetes describes it.
    pub kubernetes: bool,
    /// How others see whether it is ready.
    pub probe: Option<Probe>,
    /// Services that come before it.
    pub after: Vec<String>,
    /// Those of them that have to have ended.
    pub ended: Vec<String>,
    /// When Nomad starts it: `prestart`, `poststart`, or with the others.
    pub hook: &'static str,
    /// Whether it runs until it is stopped.
    pub long_running: bool,
    /// What starts it, if it isn't started with the others.
    pub timer: Option<Timer>,
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

/// A Service of Kubernetes.
#[derive(Clone, Debug, Serialize)]
pub struct Exposed {
    /// Its name.
    pub name: String,
    /// All that it is called.
    pub names: Vec<String>,
    /// Whether its ports are not the machine's.
    pub own_address: bool,
    /// Its own address, in that case.
    pub address: Option<String>,
    /// As Kubernetes calls it: `ClusterIP`, `NodePort` or `LoadBalancer`.
    pub reach: &'static str,
    /// Its name leads to the machines themselves.
    pub headless: bool,
    /// Its ports.
    pub ports: Vec<ServicePort>,
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
            if settings.target == Target::KubeVirt {
                names::one_service_each(workload, &machines, &machine)?;
            }
            machines.push(machine);
            orders.push(order);
        }
    }
    if machines.len() > net::MAX_MACHINES {
        let text = format!("{} machines are more than fit on one network", machines.len());
        return Err(wrong(&workloads[0], text, "export parts of the fleet"));
    }
    names::virtual_addresses(workloads, &mut machines)?;
    if settings.target.needs_hosts() {
        for (machine, order) in machines.iter().zip(&mut orders) {
            order.overrides.network.hosts.extend(names::hosts(&machines, machine));
        }
    }
    order::sort(&mut machines);
    order::hooks(&mut machines);
    Ok((machines, orders))
}

fn one(
    workload: &Workload,
    workloads: &[Workload],
    number: u32,
    count: u32,
    index: usize,
    settings: &Settings,
) -> Result<(Machine, Order), Error> {
    let timer = timer::timer(workload, workloads, settings.target)?;
    let service = quote::label(&name::object(workload, workloads));
    let name = match count {
        1 => service.clone(),
        _ => format!("{service}-{}", name::ordinal(workload, number)),
    };
    let mut order = Order::of_workload(workload, false);
    order.name.clone_from(&name);
    if order.overrides.hostname.is_none() {
        order.overrides.hostname = Some(name.clone());
    }
    if settings.target != Target::Systemd {
        let hosts = workload.own_hosts(settings.target.host());
        order.overrides.network.hosts = hosts.ok_or_else(|| {
            wrong(
                workload,
                "it reaches the machine that it runs on",
                "there is no such machine there: give it the address of what it is to reach",
            )
        })?;
    }
    let services = |wanted: fn(&Dependency) -> bool| {
        let all = workload.depends_on.iter().filter(|dependency| wanted(dependency));
        all.filter_map(|dependency| {
            let needed = workloads.iter().find(|other| other.name == dependency.name)?;
            Some(quote::label(&name::object(needed, workloads)))
        })
        .collect()
    };
    let mut machine = Machine {
        title: workload.name.clone(),
        disk: String::new(),
        file: String::new(),
        published: workload.ports.iter().any(|port| port.published),
        google_type: String::new(),
        reference: String::new(),
        memory: workload
            .resources
            .memory
            .map_or(u64::from(settings.memory_mib), |bytes| bytes.div_ceil(1 << 20)),
        cpus: workload.resources.milli_cpus.unwrap_or(1000).div_ceil(1000).max(1),
        ports: ports(workload),
        volumes: Vec::new(),
        shares: Vec::new(),
        names: names::names(workload, &name, &service, number),
        services: names::exposed(workload),
        kubernetes: name::of_kubernetes(workload),
        probe: probe(workload),
        after: services(|dependency| {
            dependency.condition != Condition::Completed || dependency.required
        }),
        ended: services(|dependency| {
            dependency.condition == Condition::Completed && dependency.required
        }),
        hook: "",
        timer,
        long_running: !matches!(workload.kind, Kind::Job | Kind::CronJob)
            && workload.role != Role::Init,
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
    google::check_ports(workload, settings.target)?;
    if settings.target != Target::Systemd {
        let suffix = if count == 1 { String::new() } else { format!("-{number}") };
        mounts(workload, &suffix, settings, &mut machine, &mut order)?;
        secret::variables(workload, settings, &mut machine, &mut order)?;
    }
    Ok((machine, order))
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
                google::check_volume(workload, mount, settings.target)?;
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
                let text = Baked::of_text("", &mount.target);
                let mode = mount.mode.unwrap_or(text.mode);
                order.files.push(Baked { bytes, mode, ..text });
            }
            MountKind::Secret => secret::file(workload, mount, settings, machine)?,
        }
    }
    for share in &machine.shares {
        let kind = record::MountKind::Host { tag: share.tag.clone() };
        let path = share.path.clone().into_bytes();
        order.mounts.push(record::Mount { path, read_only: true, kind });
    }
    order.mounts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

/// Enters what the conversion has made.
pub fn with_disks(machines: &mut [Machine], report: &Report, out: &Path) {
    let out = out.canonicalize().unwrap_or_else(|_| out.to_owned());
    for machine in machines {
        let made = report.items.iter().find(|item| item.name == machine.name);
        if let Some(file) = made.and_then(|item| item.files.first()) {
            machine.disk = out.join(&file.path).display().to_string();
            let name = file.path.file_name().unwrap_or_default();
            machine.file = name.to_string_lossy().into_owned();
        }
        // A disk's name says what it is made of.
        machine.reference = made.and_then(|item| item.key.clone()).unwrap_or_default();
        machine.google_type = google::machine_type(machine, inflated(Path::new(&machine.disk)));
    }
}

/// Bytes of what is in a file of gzip's, modulo 2^32 (RFC 1952, ISIZE); 0 of anything else.
fn inflated(path: &Path) -> u64 {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<u64> {
        let mut file = std::fs::File::open(path)?;
        let (mut magic, mut size) = ([0; 2], [0; 4]);
        file.read_exact(&mut magic)?;
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut size)?;
        Ok(if magic == [0x1f, 0x8b] { u32::from_le_bytes(size).into() } else { 0 })
    };
    read().unwrap_or(0)
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
