//! Configurations of a whole fleet, as texts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dock2uni_format::record::Proto;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::Serialize;

use super::machine::device;
use super::{Error, Machine, Probe, Settings, Target};
use crate::fleet::up::net;
use crate::template::quote;

/// A file of an export.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub text: String,
    /// Whether it is a program.
    pub executable: bool,
}

/// Texts by name: what ends in `.xml` is escaped as XML.
const TEMPLATES: &[(&str, &str)] = &[
    ("bridge-down.sh", include_str!("../../../templates/fleet/bridge-down.sh")),
    ("bridge.sh", include_str!("../../../templates/fleet/bridge.sh")),
    ("dnsmasq.conf", include_str!("../../../templates/fleet/dnsmasq.conf")),
    ("firecracker.json", include_str!("../../../templates/fleet/firecracker.json")),
    ("kubevirt-push.sh", include_str!("../../../templates/fleet/kubevirt-push.sh")),
    ("kubevirt.yaml", include_str!("../../../templates/fleet/kubevirt.yaml")),
    ("libvirt-domain.xml", include_str!("../../../templates/fleet/libvirt-domain.xml")),
    ("libvirt-network.xml", include_str!("../../../templates/fleet/libvirt-network.xml")),
    ("libvirt-start.sh", include_str!("../../../templates/fleet/libvirt-start.sh")),
    ("monitor.sh", include_str!("../../../templates/fleet/monitor.sh")),
    ("nomad-client.hcl", include_str!("../../../templates/fleet/nomad-client.hcl")),
    ("nomad-network.sh", include_str!("../../../templates/fleet/nomad-network.sh")),
    ("nomad.hcl", include_str!("../../../templates/fleet/nomad.hcl")),
    ("publish.sh", include_str!("../../../templates/fleet/publish.sh")),
    ("publish.nft", include_str!("../../../templates/fleet/publish.nft")),
    ("secrets.sh", include_str!("../../../templates/fleet/secrets.sh")),
    ("start.sh", include_str!("../../../templates/fleet/start.sh")),
    ("systemd.service", include_str!("../../../templates/fleet/systemd.service")),
    ("terraform-google.tf", include_str!("../../../templates/fleet/terraform-google.tf")),
    ("terraform-libvirt.tf", include_str!("../../../templates/fleet/terraform-libvirt.tf")),
    ("timer.service", include_str!("../../../templates/fleet/timer.service")),
    ("timer.timer", include_str!("../../../templates/fleet/timer.timer")),
    ("wait.sh", include_str!("../../../templates/fleet/wait.sh")),
];

/// A port of the outside, and the machines that serve it.
#[derive(Serialize)]
struct Published<'a> {
    proto: &'static str,
    host: u16,
    guest: u16,
    /// `tcp_8080`: a name that Nomad takes.
    label: String,
    service: &'a str,
    probe: Option<&'a Probe>,
    /// Where to, as nftables' statement `dnat` has it: one machine, or all in turn.
    to: String,
}

/// Each port once, however many machines serve it.
fn published(machines: &[Machine]) -> Vec<Published<'_>> {
    let mut found: Vec<(Published<'_>, Vec<&str>)> = Vec::new();
    for machine in machines {
        for port in machine.ports.iter().filter(|port| port.published) {
            let host = port.host.unwrap_or(port.guest);
            let same =
                |(one, _): &&mut (Published<'_>, _)| (one.proto, one.host) == (port.proto, host);
            match found.iter_mut().find(same) {
                Some((_, to)) => to.push(&machine.address),
                None => found.push((
                    Published {
                        proto: port.proto,
                        host,
                        guest: port.guest,
                        label: format!("{}_{host}", port.proto),
                        service: &machine.service,
                        probe: machine.probe.as_ref(),
                        to: String::new(),
                    },
                    vec![&machine.address],
                )),
            }
        }
    }
    found.into_iter().map(|(one, to)| Published { to: in_turn(&to), ..one }).collect()
}

/// A name that is known in the fleet.
#[derive(PartialEq, Serialize)]
struct Named<'a> {
    name: &'a str,
    address: &'a str,
}

fn names(machines: &[Machine]) -> Vec<Named<'_>> {
    let mut all: Vec<Named<'_>> = Vec::new();
    for machine in machines {
        let own = machine.names.iter().map(|name| Named { name, address: &machine.address });
        all.extend(own);
        for service in &machine.services {
            let Some(address) = &service.address else { continue };
            for name in &service.names {
                let named = Named { name, address };
                if !all.contains(&named) {
                    all.push(named);
                }
            }
        }
    }
    all
}

/// A port of an address that stands for a service.
#[derive(Serialize)]
struct Virtual<'a> {
    address: &'a str,
    proto: &'static str,
    port: u16,
    guest: u16,
    to: String,
}

fn virtuals(machines: &[Machine]) -> Vec<Virtual<'_>> {
    let mut found: Vec<(Virtual<'_>, Vec<&str>)> = Vec::new();
    for machine in machines {
        for service in &machine.services {
            let Some(address) = &service.address else { continue };
            for port in &service.ports {
                let proto = proto(port.proto);
                let same = |(one, _): &&mut (Virtual<'_>, _)| {
                    (one.address, one.proto, one.port) == (address.as_str(), proto, port.port)
                };
                match found.iter_mut().find(same) {
                    Some((_, to)) => to.push(&machine.address),
                    None => {
                        let (port, guest) = (port.port, port.guest);
                        let one = Virtual { address, proto, port, guest, to: String::new() };
                        found.push((one, vec![&machine.address]));
                    }
                }
            }
        }
    }
    found.into_iter().map(|(one, to)| Virtual { to: in_turn(&to), ..one }).collect()
}

fn proto(proto: Proto) -> &'static str {
    match proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
        Proto::Sctp => "sctp",
    }
}

/// Where to, as nftables' statement `dnat` has it: one machine, or all in turn.
fn in_turn(to: &[&str]) -> String {
    match to {
        [single] => (*single).to_owned(),
        several => {
            let all: Vec<String> =
                several.iter().enumerate().map(|(n, to)| format!("{n} : {to}")).collect();
            format!("numgen inc mod {} map {{ {} }}", several.len(), all.join(", "))
        }
    }
}

/// A Service of Kubernetes in front of machines.
#[derive(Serialize)]
struct Front<'a> {
    name: String,
    selector: &'a str,
    reach: &'static str,
    headless: bool,
    ports: Vec<FrontPort>,
}

#[derive(PartialEq, Serialize)]
struct FrontPort {
    proto: &'static str,
    port: u16,
    target: u16,
    node: Option<u16>,
}

/// The source's own Services, or one by each service's name and one for what it publishes.
fn fronts(machines: &[Machine]) -> Vec<Front<'_>> {
    let mut all: Vec<Front<'_>> = Vec::new();
    for machine in machines {
        let selector = machine.service.as_str();
        let mut add = |name: &str, reach, headless, ports: Vec<FrontPort>| {
            if !all.iter().any(|front| front.name == name) {
                all.push(Front { name: name.to_owned(), selector, reach, headless, ports });
            }
        };
        for service in &machine.services {
            let ports = service.ports.iter().map(|port| FrontPort {
                proto: proto(port.proto),
                port: port.port,
                target: port.guest,
                node: port.node,
            });
            add(&service.name, service.reach, service.headless, ports.collect());
        }
        if machine.kubernetes {
            continue;
        }
        let mut ports: Vec<FrontPort> = Vec::new();
        for port in &machine.ports {
            let port =
                FrontPort { proto: port.proto, port: port.guest, target: port.guest, node: None };
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        let aliases = machine.names.iter().filter(|name| **name != machine.name);
        for name in aliases.map(|name| quote::label(name)).chain([selector.to_owned()]) {
            let same = ports.iter().map(|port| FrontPort { ..*port });
            add(&name, "ClusterIP", ports.is_empty(), same.collect());
        }
        let published = machine.ports.iter().filter(|port| port.published);
        let public: Vec<FrontPort> = published
            .map(|port| FrontPort {
                proto: port.proto,
                port: port.host.unwrap_or(port.guest),
                target: port.guest,
                node: None,
            })
            .collect();
        if !public.is_empty() {
            add(&format!("{selector}-public"), "LoadBalancer", false, public);
        }
    }
    all
}

/// Renders all files of a target.
pub fn render(machines: &[Machine], settings: &Settings) -> Result<Vec<Rendered>, Error> {
    let name = quote::label(&settings.name);
    let registry = settings.registry.as_deref().unwrap_or_default().trim_end_matches('/');
    let machines: Vec<Machine> = machines
        .iter()
        .map(|machine| {
            let mut machine = machine.clone();
            if settings.target == Target::KubeVirt {
                machine.reference = format!("{registry}/{}:{}", machine.service, machine.reference);
            }
            machine
        })
        .collect();
    let files: Vec<PathBuf> = settings.files.iter().map(absolute).collect();
    let directory = files.first().and_then(|file| file.parent().map(absolute)).unwrap_or_default();
    let grace: u32 = machines.iter().map(|machine| machine.grace + 5).sum();
    // Of some of the machines, under a name.
    let values = |fleet: &str, machines: &[Machine], machine: Option<&Machine>| {
        let mut volumes: Vec<_> = machines.iter().flat_map(|machine| &machine.volumes).collect();
        volumes.sort_by(|a, b| a.volume.cmp(&b.volume));
        volumes.dedup_by(|a, b| a.volume == b.volume);
        let items: BTreeSet<_> = machines
            .iter()
            .flat_map(|machine| &machine.shares)
            .flat_map(|share| &share.secrets)
            .map(|secret| &secret.item)
            .collect();
        context! {
            fleet => fleet,
            machines => Serde(machines),
            machine => Serde(machine),
            timers => machines.iter().any(|machine| machine.timer.is_some()),
            volumes => Serde(&volumes),
            published => Serde(published(machines)),
            items => Serde(&items),
            names => Serde(names(machines)),
            virtuals => Serde(virtuals(machines)),
            services => Serde(fronts(machines)),
            batch => machines.iter().all(|machine| !machine.long_running),
            slowest => machines.iter().map(|machine| machine.grace + 5).max(),
            disks => settings.out.join("disks").display().to_string(),
            volumes_dir => settings.out.join("volumes").display().to_string(),
            out => settings.out.display().to_string(),
            table => format!("dock2uni_{}", name.replace('-', "_")),
            files => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
            directory => directory.display().to_string(),
            grace => grace,
            gateway => net::GATEWAY.to_string(),
            bridge => device(&settings.name, "br"),
            monitor => match settings.target {
                Target::Firecracker => "Firecracker",
                Target::CloudHypervisor => "Cloud Hypervisor",
                _ => "",
            },
            memory => settings.memory_mib,
        }
    };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| match name.ends_with(".xml") {
        true => AutoEscape::Html,
        false => AutoEscape::None,
    });
    quote::add_filters(&mut environment);
    for (name, template) in TEMPLATES {
        environment.add_template(name, template)?;
    }
    let render = |name: String, template: &str, values: minijinja::Value| {
        let executable = name.ends_with(".sh");
        // The engine takes the last line's end away.
        let text = environment.get_template(template)?.render(values)? + "\n";
        Ok::<_, Error>(Rendered { text, name, executable })
    };
    let file = |file: String, template: &str, machine: Option<&Machine>| {
        render(file, template, values(&name, &machines, machine))
    };
    // Units of systemd for the host that machines run on.
    let timers = |all: &mut Vec<Rendered>| {
        for machine in machines.iter().filter(|machine| machine.timer.is_some()) {
            for kind in ["timer", "service"] {
                let unit = format!("{name}-{}.{kind}", machine.name);
                all.push(file(unit, &format!("timer.{kind}"), Some(machine))?);
            }
        }
        Ok::<_, Error>(())
    };
    let mut all = Vec::new();
    match settings.target {
        Target::KubeVirt => {
            all.push(file("kubevirt.yaml".into(), "kubevirt.yaml", None)?);
            all.push(file("push.sh".into(), "kubevirt-push.sh", None)?);
        }
        Target::Libvirt => {
            all.push(file(format!("{name}-network.xml"), "libvirt-network.xml", None)?);
            for machine in &machines {
                all.push(file(
                    format!("{}.xml", machine.name),
                    "libvirt-domain.xml",
                    Some(machine),
                )?);
            }
            all.push(file("start.sh".into(), "libvirt-start.sh", None)?);
            timers(&mut all)?;
        }
        Target::Firecracker | Target::CloudHypervisor => {
            if settings.target == Target::Firecracker {
                for machine in &machines {
                    all.push(file(
                        format!("{}.json", machine.name),
                        "firecracker.json",
                        Some(machine),
                    )?);
                }
            }
            all.push(file("dnsmasq.conf".into(), "dnsmasq.conf", None)?);
            all.push(file("start.sh".into(), "start.sh", None)?);
            timers(&mut all)?;
        }
        Target::Nomad => {
            let (timed, rest): (Vec<Machine>, Vec<Machine>) =
                machines.iter().cloned().partition(|machine| machine.timer.is_some());
            // A periodic job has nothing else in it.
            let jobs = timed.chunks(1).map(|one| (format!("{name}-{}", one[0].name), one));
            let main = (name.clone(), &rest[..]);
            for (job, machines) in [main].into_iter().filter(|_| !rest.is_empty()).chain(jobs) {
                let values = values(&job, machines, None);
                all.push(render(format!("{job}.nomad.hcl"), "nomad.hcl", values)?);
            }
            all.push(file("client.hcl".into(), "nomad-client.hcl", None)?);
            all.push(file("dnsmasq.conf".into(), "dnsmasq.conf", None)?);
            all.push(file("network.sh".into(), "nomad-network.sh", None)?);
        }
        Target::TerraformLibvirt => {
            all.push(file("main.tf".into(), "terraform-libvirt.tf", None)?);
            all.push(file("network.sh".into(), "publish.sh", None)?);
        }
        Target::TerraformGoogle => all.push(file("main.tf".into(), "terraform-google.tf", None)?),
        Target::Systemd => {
            all.push(file(format!("dock2uni-{name}.service"), "systemd.service", None)?)
        }
    }
    Ok(all)
}

fn absolute(path: impl AsRef<std::path::Path>) -> PathBuf {
    let path = path.as_ref();
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
