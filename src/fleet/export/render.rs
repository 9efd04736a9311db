//! Configurations of a whole fleet, as texts.

use std::path::PathBuf;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

use super::machine::device;
use super::{Error, Machine, Settings, Target};
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

const KUBEVIRT: &str = include_str!("../../../templates/fleet/kubevirt.yaml");
const PUSH: &str = include_str!("../../../templates/fleet/kubevirt-push.sh");
const DOMAIN: &str = include_str!("../../../templates/fleet/libvirt-domain.xml");
const NETWORK: &str = include_str!("../../../templates/fleet/libvirt-network.xml");
const START: &str = include_str!("../../../templates/fleet/libvirt-start.sh");
const FIRECRACKER: &str = include_str!("../../../templates/fleet/firecracker.json");
const DNSMASQ: &str = include_str!("../../../templates/fleet/dnsmasq.conf");
const BRIDGED: &str = include_str!("../../../templates/fleet/start.sh");
const UNIT: &str = include_str!("../../../templates/fleet/systemd.service");

/// Renders all files of a target.
pub fn render(machines: &[Machine], settings: &Settings) -> Result<Vec<Rendered>, Error> {
    let name = quote::label(&settings.name);
    let registry = settings.registry.as_deref().unwrap_or_default().trim_end_matches('/');
    let machines: Vec<Machine> = machines
        .iter()
        .map(|machine| {
            let reference = format!("{registry}/{}:{}", machine.service, machine.reference);
            Machine { reference, ..machine.clone() }
        })
        .collect();
    let mut volumes: Vec<_> = machines.iter().flat_map(|machine| &machine.volumes).collect();
    volumes.sort_by(|a, b| a.volume.cmp(&b.volume));
    volumes.dedup_by(|a, b| a.volume == b.volume);
    let files: Vec<PathBuf> = settings.files.iter().map(|file| absolute(file)).collect();
    let directory = files.first().and_then(|file| file.parent().map(absolute)).unwrap_or_default();
    let published: Vec<_> = machines
        .iter()
        .flat_map(|machine| {
            let ports = machine.ports.iter().filter(|port| port.published);
            ports.map(|port| {
                let address = machine.address.clone();
                context! { port => Serde(port), address => address }
            })
        })
        .collect();
    let grace: u32 = machines.iter().map(|machine| machine.grace + 5).sum();
    let values = |machine: Option<&Machine>| {
        context! {
            fleet => name.clone(),
            machines => Serde(&machines),
            machine => Serde(machine),
            volumes => Serde(&volumes),
            published => published.clone(),
            files => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
            directory => directory.display().to_string(),
            grace => grace,
            gateway => net::GATEWAY.to_string(),
            bridge => device(&settings.name, "br"),
            monitor => match settings.target {
                Target::Firecracker => "Firecracker",
                _ => "Cloud Hypervisor",
            },
            memory => settings.memory_mib,
        }
    };
    let text =
        |name: &str, template: &str, machine: Option<&Machine>| {
            let mut environment = Environment::new();
            environment.set_undefined_behavior(UndefinedBehavior::Strict);
            let xml = name.ends_with(".xml");
            environment.set_auto_escape_callback(move |_| {
                if xml { AutoEscape::Html } else { AutoEscape::None }
            });
            quote::add_filters(&mut environment);
            // The engine takes the last line's end away.
            environment.render_named_str(name, template, values(machine)).map(|text| text + "\n")
        };
    let file = |name: String, template: &str, machine: Option<&Machine>| {
        let executable = name.ends_with(".sh");
        Ok::<_, Error>(Rendered { text: text(&name, template, machine)?, name, executable })
    };
    let mut all = Vec::new();
    match settings.target {
        Target::KubeVirt => {
            all.push(file("kubevirt.yaml".into(), KUBEVIRT, None)?);
            all.push(file("push.sh".into(), PUSH, None)?);
        }
        Target::Libvirt => {
            all.push(file(format!("{name}-network.xml"), NETWORK, None)?);
            for machine in &machines {
                all.push(file(format!("{}.xml", machine.name), DOMAIN, Some(machine))?);
            }
            all.push(file("start.sh".into(), START, None)?);
        }
        Target::Firecracker | Target::CloudHypervisor => {
            if settings.target == Target::Firecracker {
                for machine in &machines {
                    all.push(file(format!("{}.json", machine.name), FIRECRACKER, Some(machine))?);
                }
            }
            all.push(file("dnsmasq.conf".into(), DNSMASQ, None)?);
            all.push(file("start.sh".into(), BRIDGED, None)?);
        }
        Target::Systemd => all.push(file(format!("dock2uni-{name}.service"), UNIT, None)?),
    }
    Ok(all)
}

fn absolute(path: impl AsRef<std::path::Path>) -> PathBuf {
    let path = path.as_ref();
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
