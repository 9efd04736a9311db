//! From workloads to a fleet that is ready to run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use dock2uni_format::record::{Net, Port, Proto, Record, Root, V4};

use super::baked::{self, Baked};
use super::net::dns::Name;
use super::net::gateway::Published;
use super::net::translate::{self, Virtual};
use super::net::{self, GATEWAY, MAX_MACHINES, PREFIX, RESOLVER};
use super::{Error, Instance, Need, Spec};
use crate::config::Publish;
use crate::erofs::{ReadError, Reader};
use crate::fleet::plan::Images;
use crate::fleet::{
    Condition, Image, Kind, Mount, MountKind, Origin, PortMap, Restart, Severity, Value, Variable,
    Workload, kube, name,
};
use crate::rootfs::Limits;
use crate::source::{self, Store};
use crate::vmm::{Accel, Machine, ports};
use crate::volume::{self, Source, Tmpfs};
use crate::{convert, roots};

/// Where secrets are, in a VM as in a container.
const SECRETS: &str = "/run/secrets";
/// The network of services that name none.
const DEFAULT: &str = "default";

/// How a fleet is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub project: String,
    /// Path of QEMU.
    pub qemu: PathBuf,
    /// Accelerator.
    pub accel: Accel,
    /// Machine type.
    pub machine: Machine,
    /// A command that QEMU is started by.
    pub launcher: Vec<PathBuf>,
    /// Memory in MiB of services that set no limit.
    pub memory_mib: u32,
    /// The services to start, with all that they depend on; all if empty.
    pub services: Vec<String>,
}

/// Brings in all images and makes a fleet of them. `dir` is the fleet's directory, for files that are
/// shared with VMs.
///
/// # Errors
/// Names the service and what is wrong with it.
pub fn prepare(
    workloads: &[Workload],
    settings: &Settings,
    images: &dyn Images,
    store: &Store,
    dir: &Path,
) -> Result<Spec, Error> {
    let workloads = chosen(workloads, &settings.services)?;
    let count = workloads.iter().map(|w| instances_of(w) as usize).sum();
    if count > MAX_MACHINES {
        return Err(Error::TooMany(count));
    }
    let networks = networks(&workloads)?;
    let mut spec = Spec {
        project: settings.project.clone(),
        qemu: settings.qemu.clone(),
        accel: settings.accel,
        machine: settings.machine,
        launcher: settings.launcher.clone(),
        instances: Vec::new(),
        published: Vec::new(),
        outside: networks.outside(),
        names: Vec::new(),
        virtuals: Vec::new(),
        volumes: Vec::new(),
    };
    let mut brought: BTreeMap<&Image, (source::Image, PathBuf)> = BTreeMap::new();
    let mut publish = Vec::new();
    let distinct = workloads.iter().map(|w| &w.image).collect::<BTreeSet<_>>().len();
    for workload in &workloads {
        if !brought.contains_key(&workload.image) {
            let service = workload.name.clone();
            let found = images.bring(&workload.image);
            let found = found.map_err(|problem| Error::Image { service, problem })?;
            brought.insert(&workload.image, found);
            images.progress(brought.len(), distinct);
        }
        let (image, root) = &brought[&workload.image];
        let one = One { workload, settings, store, dir, networks: &networks };
        one.add(image, root, &mut spec, &mut publish)?;
    }
    services(&workloads, &mut spec)?;
    check_health(&spec)?;
    if let Some(circle) = spec.circle() {
        return Err(Error::Circle(circle));
    }
    let (publish, targets): (Vec<Publish>, Vec<Ipv4Addr>) = publish.into_iter().unzip();
    let forwards = ports::assign(&publish)?;
    let published = forwards.into_iter().zip(targets);
    spec.published = published.map(|(forward, to)| Published { forward, to }).collect();
    spec.volumes.sort();
    spec.volumes.dedup();
    add_hosts(&mut spec);
    Ok(spec)
}

/// Those that were asked for, with all that they need.
fn chosen<'a>(all: &'a [Workload], wanted: &[String]) -> Result<Vec<&'a Workload>, Error> {
    let find = |name: &str| all.iter().find(|workload| workload.name == name);
    let mut left: Vec<&Workload> = Vec::new();
    for name in wanted {
        left.push(find(name).ok_or_else(|| Error::Service {
            service: name.clone(),
            text: "there is no such service".to_owned(),
            hint: format!(
                "the services are {}",
                all.iter().map(|w| w.name.as_str()).collect::<Vec<_>>().join(", ")
            ),
        })?);
    }
    if wanted.is_empty() {
        left.extend(all);
    }
    let mut found: BTreeMap<&str, &Workload> = BTreeMap::new();
    while let Some(workload) = left.pop() {
        if found.insert(&workload.name, workload).is_none() {
            left.extend(workload.depends_on.iter().filter_map(|need| find(&need.name)));
        }
    }
    for workload in found.values() {
        let blocker = workload.notes.iter().find(|note| note.severity == Severity::Blocker);
        if let Some(note) = blocker {
            return Err(Error::Service {
                service: workload.name.clone(),
                text: note.text.clone(),
                hint: "run it as a container, and name the others with `--service`".to_owned(),
            });
        }
    }
    Ok(found.into_values().collect())
}

/// Takes those out that a schedule starts: nobody here does.
pub fn without_scheduled(workloads: &mut Vec<Workload>) -> Vec<Workload> {
    workloads.extract_if(.., |workload| workload.kind == Kind::CronJob).collect()
}

/// What runs on every node runs once on this one.
fn instances_of(workload: &Workload) -> u32 {
    workload.replicas.max(1)
}

/// Networks by name, each with a bit.
struct Networks {
    bits: BTreeMap<String, u64>,
    internal: BTreeSet<String>,
}

fn networks(workloads: &[&Workload]) -> Result<Networks, Error> {
    let mut names: BTreeSet<String> = BTreeSet::from([DEFAULT.to_owned()]);
    let mut internal = BTreeSet::new();
    for attachment in workloads.iter().filter_map(|w| w.networks.as_ref()).flatten() {
        names.insert(attachment.network.clone());
        if attachment.internal {
            internal.insert(attachment.network.clone());
        }
    }
    if names.len() > 64 {
        return Err(Error::TooManyNetworks(names.len()));
    }
    let bits = names.into_iter().enumerate().map(|(nth, name)| (name, 1 << nth)).collect();
    Ok(Networks { bits, internal })
}

impl Networks {
    fn bit(&self, name: &str) -> u64 {
        self.bits.get(name).copied().unwrap_or(0)
    }

    /// Those that have a way out.
    fn outside(&self) -> u64 {
        let out = self.bits.iter().filter(|(name, _)| !self.internal.contains(*name));
        out.map(|(_, bit)| bit).sum()
    }

    /// Those of a workload.
    fn of(&self, workload: &Workload) -> u64 {
        match &workload.networks {
            None => self.bit(DEFAULT),
            Some(all) => all.iter().map(|a| self.bit(&a.network)).fold(0, |a, b| a | b),
        }
    }
}

/// Names of Kubernetes' Services. One whose ports are not those of its machines has an address of its
/// own, from where the switch sends to them.
fn services(workloads: &[&Workload], spec: &mut Spec) -> Result<(), Error> {
    let mut addresses: BTreeMap<(&str, &str), Ipv4Addr> = BTreeMap::new();
    for workload in workloads {
        let here = |instance: &&Instance| instance.service == workload.name;
        let machines: Vec<Ipv4Addr> =
            spec.instances.iter().filter(here).filter_map(|instance| instance.address).collect();
        let networks = spec.instances.iter().find(here).map_or(0, |instance| instance.networks);
        for service in &workload.services {
            let mut name = |name: String, address: Ipv4Addr| {
                let known = Name { name: name.to_ascii_lowercase(), address, networks };
                if !spec.names.contains(&known) {
                    spec.names.push(known);
                }
            };
            if !service.own_address {
                for called in service.names() {
                    machines.iter().for_each(|address| name(called.clone(), *address));
                }
                // A StatefulSet's pods have names below their Service's.
                for (nth, address) in machines.iter().enumerate() {
                    let pod = format!("{}-{nth}", workload.name);
                    let set = workload.kind == Kind::StatefulSet;
                    for called in service.names().iter().filter(|_| set) {
                        name(format!("{pod}.{called}"), *address);
                    }
                }
                continue;
            }
            let count = addresses.len();
            let key = (service.namespace.as_str(), service.name.as_str());
            if count >= translate::MAX && !addresses.contains_key(&key) {
                return Err(Error::TooManyServices(count + 1));
            }
            let address = *addresses.entry(key).or_insert_with(|| translate::address(count));
            service.names().into_iter().for_each(|called| name(called, address));
            for port in &service.ports {
                let to: Vec<_> = machines.iter().map(|machine| (*machine, port.guest)).collect();
                let udp = port.proto == Proto::Udp;
                let same = |one: &&mut Virtual| {
                    (one.address, one.port, one.udp) == (address, port.port, udp)
                };
                match spec.virtuals.iter_mut().find(same) {
                    Some(known) => known.to.extend(to),
                    None => spec.virtuals.push(Virtual { address, port: port.port, udp, to }),
                }
            }
        }
    }
    Ok(())
}

/// One service on its way into the fleet.
struct One<'a> {
    workload: &'a Workload,
    settings: &'a Settings,
    store: &'a Store,
    dir: &'a Path,
    networks: &'a Networks,
}

impl One<'_> {
    fn wrong(&self, text: impl Into<String>, hint: &str) -> Error {
        let service = self.workload.name.clone();
        Error::Service { service, text: text.into(), hint: hint.to_owned() }
    }

    fn failed(&self, source: convert::Error) -> Error {
        Error::Convert { service: self.workload.name.clone(), source }
    }

    fn add(
        &self,
        image: &source::Image,
        root: &Path,
        spec: &mut Spec,
        publish: &mut Vec<(Publish, Ipv4Addr)>,
    ) -> Result<(), Error> {
        let workload = self.workload;
        let mounts = self.mounts(spec)?;
        let mut root = root.to_owned();
        if !mounts.files.is_empty() {
            let mut image = image.clone();
            baked::add(&mut image, &mounts.files, self.store)?;
            root = self.root_with(&mut image, root)?;
        }
        let record = self.record(image, &root)?;
        let mut specs = mounts.specs;
        let declared = record.volumes.iter().map(|path| String::from_utf8_lossy(path));
        for path in declared {
            let known = specs.iter().any(|spec| spec.path == path)
                || mounts.tmpfs.iter().any(|tmpfs| tmpfs.path == path);
            if !known {
                let prefix = format!("{}_{}", spec.project, workload.name);
                let volume = volume::Spec::of_image_volume(&prefix, &path)?;
                note_volume(spec, &volume);
                specs.push(volume);
            }
        }
        let networks = self.networks.of(workload);
        let own_hosts: Vec<(String, String)> = workload
            .own_hosts(Some(GATEWAY))
            .unwrap_or_default()
            .into_iter()
            .map(|(name, address)| (name, address.to_string()))
            .collect();
        let count = instances_of(workload);
        for number in 1..=count {
            let name = format!("{}-{}", workload.name, name::ordinal(workload, number));
            let address = (networks != 0).then(|| net::address(spec.instances.len()));
            let mut record = record.clone();
            if workload.hostname.is_none() {
                record = with_hostname(record, &name);
            }
            record.net = match address {
                None => Net { v4: V4::None, ..Net::default() },
                Some(address) => {
                    self.names(&name, address, networks, spec);
                    publish.extend(self.published(number)?.map(|port| (port, address)));
                    Net {
                        v4: V4::Static {
                            addr: address.octets(),
                            prefix: PREFIX,
                            gateway: Some(GATEWAY.octets()),
                        },
                        dns: vec![RESOLVER.to_string()],
                        hosts: own_hosts.clone(),
                        ..Net::default()
                    }
                }
            };
            let mounts_here = self.for_instance(&specs, number, count, spec);
            spec.instances.push(Instance {
                service: workload.name.clone(),
                record,
                root: root.clone(),
                memory_mib: self.memory()?,
                cpus: self.cpus(),
                address,
                networks,
                mounts: mounts_here,
                tmpfs: mounts.tmpfs.clone(),
                needs: self.needs(),
                restart: workload.restart,
                restart_limit: workload.restart_limit,
                name,
            });
        }
        Ok(())
    }

    /// The root of an image that has got one more layer. Its other layers must be here for it.
    fn root_with(&self, image: &mut source::Image, plain: PathBuf) -> Result<PathBuf, Error> {
        let missing = image.layers.iter().any(|layer| !layer.path.exists());
        if missing {
            let path = roots::path(image, None, self.store).map_err(Error::io("create", &plain))?;
            if path.exists() {
                return Ok(path);
            }
            return Err(self.wrong(
                "files are to be put into its image, whose layers are no longer in the store",
                "`dock2uni system prune` took them away; fetch them again by `dock2uni convert`",
            ));
        }
        roots::of(image, Limits::default(), self.store, &|_| {}).map_err(|error| self.failed(error))
    }

    fn record(&self, image: &source::Image, root: &Path) -> Result<Record, Error> {
        let file = File::open(root).map_err(Error::io("open", root))?;
        let mut overrides = self.workload.overrides();
        overrides.hostname.clone_from(&self.workload.hostname);
        overrides.env = self.environment()?;
        let read = || -> Result<Record, convert::Error> {
            let reader = Reader::open(file, 0).map_err(|error: ReadError| error)?;
            let mut record = convert::plan(image, &overrides, &reader)?;
            record.root = Root::Disk { uuid: reader.superblock().uuid };
            Ok(record)
        };
        read().map_err(|error| self.failed(error))
    }

    /// Variables with the values of secrets, which nothing keeps but the fleet's own directory.
    fn environment(&self) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        for variable in &self.workload.env {
            let Variable { name, value } = variable;
            let value = match value {
                Value::Text(text) => text.clone(),
                Value::Secret { name: secret, key, manifest: Some(manifest) } => {
                    let bytes = kube::secret::read(manifest, secret, key).map_err(|text| {
                        let text = format!("the variable `{name}`: {text}");
                        self.wrong(text, "name the file with the Secret among the sources")
                    })?;
                    String::from_utf8(bytes).map_err(|_| {
                        self.wrong(
                            format!("the variable `{name}` is of the secret `{secret}`, no text"),
                            "mount it as a file",
                        )
                    })?
                }
                Value::Secret { name: from, .. } => {
                    return Err(self.wrong(
                        format!("the variable `{name}` is of the secret `{from}`"),
                        "name a file with this Secret among the sources",
                    ));
                }
                Value::Runtime(what) => {
                    return Err(self.wrong(
                        format!("the variable `{name}` is known at run time only: {what}"),
                        "give it a value",
                    ));
                }
            };
            all.push(format!("{name}={value}"));
        }
        Ok(all)
    }

    fn memory(&self) -> Result<u32, Error> {
        let Some(bytes) = self.workload.resources.memory else {
            return Ok(self.settings.memory_mib);
        };
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        if mib < 16 {
            return Err(self.wrong(
                format!("its memory limit of {bytes} bytes is too little for a VM"),
                "give it 16m or more; 64m is a good start for small programs",
            ));
        }
        Ok(mib)
    }

    fn cpus(&self) -> u32 {
        let milli = self.workload.resources.milli_cpus.unwrap_or(1000);
        // A VM has whole processors, and no more than make sense.
        milli.div_ceil(1000).clamp(1, 64) as u32
    }

    fn needs(&self) -> Vec<Need> {
        let all = self.workload.depends_on.iter();
        all.map(|dependency| Need {
            service: dependency.name.clone(),
            condition: dependency.condition,
            required: dependency.required,
        })
        .collect()
    }

    /// What the instance is called on its networks; the first name is the one that it is told by.
    fn names(&self, instance: &str, address: Ipv4Addr, networks: u64, spec: &mut Spec) {
        let full = format!("{}-{instance}", spec.project);
        let mut add = |name: &str, networks: u64| {
            let name = name.to_ascii_lowercase();
            spec.names.push(Name { name, address, networks });
        };
        add(instance, networks);
        // In Kubernetes nothing but Services and pods has names.
        if !name::of_kubernetes(self.workload) {
            add(&self.workload.name, networks);
        }
        add(&full, networks);
        if let Some(hostname) = &self.workload.hostname {
            add(hostname, networks);
        }
        for attachment in self.workload.networks.iter().flatten() {
            for alias in &attachment.aliases {
                add(alias, self.networks.bit(&attachment.network));
            }
        }
    }

    fn published(&self, number: u32) -> Result<impl Iterator<Item = Publish> + use<>, Error> {
        let mut found = Vec::new();
        for port in self.workload.ports.iter().filter(|port| port.published) {
            let PortMap { host_ip, host, guest, proto, .. } = port;
            if host.is_some() && number > 1 {
                return Err(self.wrong(
                    format!("port {guest} of several replicas cannot be one port of the host"),
                    "leave the port of the host away, or start one replica",
                ));
            }
            let ip = match host_ip {
                None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                Some(text) => text.parse().map_err(|_| {
                    self.wrong(format!("`{text}` is no address to publish on"), "use 127.0.0.1")
                })?,
            };
            found.push(Publish { ip, host: *host, guest: Port { port: *guest, proto: *proto } });
        }
        Ok(found.into_iter())
    }

    fn mounts(&self, spec: &mut Spec) -> Result<Mounts, Error> {
        let mut found = Mounts::default();
        let mut secrets: BTreeMap<&str, Vec<(String, Vec<u8>)>> = BTreeMap::new();
        for mount in &self.workload.mounts {
            let Mount { kind, source, target, read_only, origin, mode } = mount;
            let (path, read_only) = (target.clone(), *read_only);
            match kind {
                MountKind::Volume | MountKind::Anonymous => {
                    let volume = self.volume(mount, spec)?;
                    if !matches!(origin, Some(Origin::Volume(_))) {
                        note_volume(spec, &volume);
                    }
                    found.specs.push(volume);
                }
                MountKind::Host => self.host(source, path, read_only, &mut found)?,
                MountKind::Scratch => {
                    found.tmpfs.push(Tmpfs { path, options: String::new() });
                }
                MountKind::Config => {
                    let bytes = self.content(mount)?;
                    let text = Baked { bytes, ..Baked::of_text("", target) };
                    let file = match origin {
                        Some(Origin::File(path)) => Baked::of_file(path, target)?,
                        _ => text,
                    };
                    found.files.push(Baked { mode: mode.unwrap_or(file.mode), ..file });
                }
                MountKind::Secret => {
                    let (dir, name) = self.secret_place(mount)?;
                    secrets.entry(dir).or_default().push((name.to_owned(), self.content(mount)?));
                }
            }
        }
        for (nth, (path, files)) in secrets.into_iter().enumerate() {
            let dir = self.dir.join("secrets").join(&self.workload.name).join(nth.to_string());
            let dir = baked::lay_out(&dir, &files)?;
            let (source, path) = (Source::Host(dir), path.to_owned());
            found.specs.push(volume::Spec { source, path, read_only: true });
        }
        Ok(found)
    }

    /// The directory that a secret is shared in, and its name there: that of a whole volume of
    /// Kubernetes, or where Compose has secrets.
    fn secret_place<'m>(&self, mount: &'m Mount) -> Result<(&'m str, &'m str), Error> {
        let Mount { source, target, origin, .. } = mount;
        let dir = match origin {
            Some(Origin::Secret { directory: Some(directory), .. }) => directory.as_str(),
            _ => SECRETS,
        };
        let name = target.strip_prefix(dir).and_then(|name| name.strip_prefix('/'));
        let flat = |name: &&str| dir != SECRETS || !name.contains('/');
        match name.filter(|name| !name.is_empty()).filter(flat) {
            Some(name) => Ok((dir, name)),
            None => Err(self.wrong(
                format!("the secret `{source}` is to be at `{target}`"),
                "secrets are never put into images: have it below /run/secrets, or mount the whole \
                 Secret as a directory",
            )),
        }
    }

    fn volume(&self, mount: &Mount, spec: &Spec) -> Result<volume::Spec, Error> {
        let prefix = format!("{}_{}", spec.project, self.workload.name);
        let name = match (&mount.origin, mount.kind) {
            (Some(Origin::Volume(name)), _) => name.clone(),
            (_, MountKind::Anonymous) => {
                return Ok(volume::Spec::of_image_volume(&prefix, &mount.target)?);
            }
            _ => format!("{}_{}", spec.project, mount.source),
        };
        let mode = if mount.read_only { "ro" } else { "rw" };
        Ok(volume::Spec::parse(&format!("{name}:{}:{mode}", mount.target))?)
    }

    /// A directory is shared; a file goes into the image.
    fn host(
        &self,
        source: &str,
        path: String,
        read_only: bool,
        found: &mut Mounts,
    ) -> Result<(), Error> {
        let file = Path::new(source);
        if matches!(source, "/etc/localtime" | "/etc/timezone") && !file.is_file() {
            return Ok(());
        }
        if file.is_file() {
            found.files.push(Baked::of_file(file, &path)?);
            return Ok(());
        }
        if !file.is_dir() {
            // Docker makes a directory, which is hardly ever what was meant.
            return Err(self.wrong(
                format!("`{source}`, which is to be mounted at `{path}`, is not there"),
                "create the directory or file first",
            ));
        }
        found.specs.push(volume::Spec { source: Source::Host(file.to_owned()), path, read_only });
        Ok(())
    }

    fn content(&self, mount: &Mount) -> Result<Vec<u8>, Error> {
        baked::content(mount)
            .map_err(|text| self.wrong(text, "give it a `file` or `content`, or set the variable"))
    }

    /// A volume has one writer: each replica gets one of its own, as far as it isn't read only.
    fn for_instance(
        &self,
        specs: &[volume::Spec],
        number: u32,
        count: u32,
        spec: &mut Spec,
    ) -> Vec<volume::Spec> {
        let mut mounts = specs.to_vec();
        if count == 1 {
            return mounts;
        }
        for mount in &mut mounts {
            if let (Source::Volume(name), false) = (&mut mount.source, mount.read_only) {
                *name = format!("{name}-{number}");
                spec.volumes.push(name.clone());
            }
        }
        mounts
    }
}

/// What a service mounts.
#[derive(Default)]
struct Mounts {
    specs: Vec<volume::Spec>,
    tmpfs: Vec<Tmpfs>,
    files: Vec<Baked>,
}

fn note_volume(spec: &mut Spec, volume: &volume::Spec) {
    if let Source::Volume(name) = &volume.source {
        spec.volumes.push(name.clone());
    }
}

/// The instance's name as its host name, in the environment as well.
fn with_hostname(mut record: Record, name: &str) -> Record {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let label: String = name.chars().map(|c| if fits(c) { c } else { '-' }).take(63).collect();
    let old = format!("HOSTNAME={}", record.hostname).into_bytes();
    for variable in record.env.iter_mut().filter(|variable| **variable == old) {
        *variable = format!("HOSTNAME={label}").into_bytes();
    }
    record.hostname = label;
    record
}

/// `service_healthy` needs something that says so.
fn check_health(spec: &Spec) -> Result<(), Error> {
    for instance in &spec.instances {
        for need in &instance.needs {
            let unchecked = |other: &&Instance| {
                other.service == need.service && other.record.healthcheck.is_none()
            };
            if need.condition == Condition::Healthy
                && let Some(other) = spec.instances.iter().find(unchecked)
            {
                return Err(Error::Service {
                    service: instance.service.clone(),
                    text: format!("it waits for `{}` to be healthy", other.service),
                    hint: format!("give `{}` a healthcheck: its image has none", other.service),
                });
            }
            let forever = |other: &&Instance| {
                other.service == need.service && other.restart == Restart::Always
            };
            if need.condition == Condition::Completed
                && let Some(other) = spec.instances.iter().find(forever)
            {
                return Err(Error::Service {
                    service: instance.service.clone(),
                    text: format!("it waits for `{}` to be completed", other.service),
                    hint: format!(
                        "`{}` is always started again: give it `restart: \"no\"`",
                        other.service
                    ),
                });
            }
        }
    }
    Ok(())
}

/// Names with one address go to /etc/hosts as well: some programs ask nobody else, and it is faster.
fn add_hosts(spec: &mut Spec) {
    let mut addresses: BTreeMap<&str, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for Name { name, address, .. } in &spec.names {
        addresses.entry(name).or_default().insert(*address);
    }
    let single: BTreeSet<String> = addresses
        .into_iter()
        .filter(|(_, addresses)| addresses.len() == 1)
        .map(|(name, _)| name.to_owned())
        .collect();
    for instance in spec.instances.iter_mut().filter(|instance| instance.address.is_some()) {
        let visible = spec.names.iter().filter(|name| {
            name.networks & instance.networks != 0
                && Some(name.address) != instance.address
                && single.contains(&name.name)
        });
        let mut hosts: Vec<(String, String)> =
            visible.map(|name| (name.name.clone(), name.address.to_string())).collect();
        hosts.sort();
        hosts.dedup();
        instance.record.net.hosts.extend(hosts);
    }
}
