//! Ready-to-run configurations of a disk image for hypervisors, orchestrators and clouds.
//!
//! The texts are in `templates/`, rendered by minijinja (kept up by the author of Jinja, no
//! dependencies but serde). Every value goes through the quoting of its language; names that
//! systems restrict are brought into their form.

mod cloud;
pub(crate) mod quote;

#[cfg(test)]
mod tests;

use std::path::Path;

use dock2uni_format::record::Proto;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use crate::disk::{self, Disk, Format};

/// What a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A shell script that starts QEMU.
    Qemu,
    /// A systemd unit that runs QEMU.
    Systemd,
    /// Firecracker's configuration file.
    Firecracker,
    /// A shell script that starts Cloud Hypervisor.
    CloudHypervisor,
    /// A libvirt domain.
    Libvirt,
    /// A KubeVirt virtual machine and a service.
    KubeVirt,
    /// A Nomad job.
    Nomad,
    /// A shell script for a Proxmox VE node.
    Proxmox,
    /// Terraform for Amazon EC2: an instance that is a host, by [`cloud`].
    TerraformAws,
    /// Terraform for Google Compute Engine.
    TerraformGoogle,
    /// Terraform for Azure: a virtual machine that is a host, by [`cloud`].
    TerraformAzure,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 11] = [
        Target::Qemu,
        Target::Systemd,
        Target::Firecracker,
        Target::CloudHypervisor,
        Target::Libvirt,
        Target::KubeVirt,
        Target::Nomad,
        Target::Proxmox,
        Target::TerraformAws,
        Target::TerraformGoogle,
        Target::TerraformAzure,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Target::Qemu => "qemu",
            Target::Systemd => "systemd",
            Target::Firecracker => "firecracker",
            Target::CloudHypervisor => "cloud-hypervisor",
            Target::Libvirt => "libvirt",
            Target::KubeVirt => "kubevirt",
            Target::Nomad => "nomad",
            Target::Proxmox => "proxmox",
            Target::TerraformAws => "terraform-aws",
            Target::TerraformGoogle => "terraform-google",
            Target::TerraformAzure => "terraform-azure",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Target::Qemu => include_str!("../../templates/qemu.sh"),
            Target::Systemd => include_str!("../../templates/systemd.service"),
            Target::Firecracker => include_str!("../../templates/firecracker.json"),
            Target::CloudHypervisor => include_str!("../../templates/cloud-hypervisor.sh"),
            Target::Libvirt => include_str!("../../templates/libvirt.xml"),
            Target::KubeVirt => include_str!("../../templates/kubevirt.yaml"),
            Target::Nomad => include_str!("../../templates/nomad.hcl"),
            Target::Proxmox => include_str!("../../templates/proxmox.sh"),
            Target::TerraformAws => include_str!("../../templates/terraform-aws.tf"),
            Target::TerraformGoogle => include_str!("../../templates/terraform-google.tf"),
            Target::TerraformAzure => include_str!("../../templates/terraform-azure.tf"),
        }
    }

    /// The formats that the configuration can do something with; none if it takes boot files or a
    /// registry's reference.
    pub fn formats(self) -> &'static [Format] {
        use Format::{Ami, Gce, Iso, Qcow2, Raw, Vdi, Vhd, VhdDynamic, Vhdx, Vmdk};
        const QEMU: &[Format] = &[Raw, Qcow2, Vmdk, Vhd, VhdDynamic, Vhdx, Vdi, Ami, Iso];
        match self {
            Target::Qemu | Target::Systemd | Target::Libvirt => QEMU,
            // QEMU on a host there reads them.
            Target::TerraformAws | Target::TerraformAzure => QEMU,
            Target::Nomad | Target::Proxmox => &[Raw, Qcow2, Vmdk, Ami, Iso],
            Target::TerraformGoogle => &[Gce],
            Target::Firecracker | Target::CloudHypervisor | Target::KubeVirt => &[],
        }
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        Target::ALL.into_iter().find(|target| target.name() == text).ok_or_else(|| {
            let names: Vec<_> = Target::ALL.iter().map(|target| target.name()).collect();
            format!("the targets are {}", names.join(", "))
        })
    }
}

/// Why a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk image.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A format that the target does not take.
    #[error("{target} takes no {format} disk")]
    Format {
        /// The target.
        target: &'static str,
        /// The image's format.
        format: Format,
        /// Formats that it takes.
        wanted: &'static [Format],
    },
    /// Something that the target cannot do without.
    #[error("{target} needs {what}")]
    Missing {
        /// The target.
        target: &'static str,
        /// What to give.
        what: &'static str,
        /// How to come by it.
        hint: &'static str,
    },
    /// A value that cannot be written in the target's language.
    #[error("the configuration cannot be written")]
    Render(#[from] minijinja::Error),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Disk(error) => error.hint().map(str::to_owned),
            Error::Format { wanted, .. } => {
                let names: Vec<_> = wanted.iter().map(|format| format.name()).collect();
                Some(format!("convert to {}", names.join(" or ")))
            }
            Error::Missing { hint, .. } => Some((*hint).to_owned()),
            Error::Render(_) => None,
        }
    }
}

/// What is not in the image.
#[derive(Clone, Debug)]
pub struct Params {
    /// Name of the machine.
    pub name: String,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// Ports of the host and the guest; what the image exposes if empty.
    pub ports: Vec<(u16, u16, Proto)>,
    /// Directory that `image boot-files` wrote, absolute.
    pub boot: Option<String>,
    /// Reference of the image in a registry.
    pub reference: Option<String>,
    /// Network device of the host.
    pub tap: String,
    /// Network of libvirt.
    pub network: String,
    /// UEFI where the target leaves a choice.
    pub uefi: bool,
}

#[derive(Serialize)]
struct Context<'a> {
    name: &'a str,
    unit_name: String,
    k8s_name: String,
    cloud_name: String,
    image: String,
    qemu_format: &'static str,
    memory: u32,
    cpus: u32,
    ports: Vec<Port>,
    forwards: String,
    grace: u32,
    uuid: String,
    short: String,
    boot: &'a str,
    reference: &'a str,
    tap: &'a str,
    network: &'a str,
    uefi: bool,
    /// Size of a host in a cloud, the image there, and the lines of the unit that runs it.
    instance: &'static str,
    host_image: String,
    unit: Vec<String>,
}

#[derive(Serialize)]
struct Port {
    host: u16,
    guest: u16,
    proto: &'static str,
    label: String,
}

/// Renders the configuration of `target` for the disk image at `path`.
///
/// # Errors
/// See [`Error`].
pub fn render(target: Target, disk: &Disk, path: &Path, params: &Params) -> Result<String, Error> {
    let name = target.name();
    let missing = |what, hint| Error::Missing { target: name, what, hint };
    let format = as_named(disk, path);
    if !target.formats().is_empty() && !target.formats().contains(&format) {
        return Err(Error::Format { target: name, format, wanted: target.formats() });
    }
    let boots = matches!(target, Target::Firecracker | Target::CloudHypervisor);
    if boots && params.boot.is_none() {
        return Err(missing(
            "the kernel and the root as files",
            "make them by `dock2uni image boot-files`, and name the directory with `--boot-files`",
        ));
    }
    if target == Target::KubeVirt && params.reference.is_none() {
        return Err(missing(
            "an image in a registry",
            "push it by `dock2uni push --as container-disk`, and name it with `--reference`",
        ));
    }
    let record = disk.record()?;
    let on_host = matches!(target, Target::TerraformAws | Target::TerraformAzure);
    let ports = ports(params, &record.ports, on_host);
    let forward = |port: &Port| format!(",hostfwd={}::{}-:{}", port.proto, port.host, port.guest);
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let cloud_name = quote::label(&params.name);
    let mut context = Context {
        name: &params.name,
        unit_name: quote::restricted(&params.name, "-_"),
        k8s_name: quote::label(&params.name),
        instance: cloud::instance(target, params.cpus, params.memory),
        host_image: format!("/var/lib/dock2uni/{cloud_name}.img"),
        unit: Vec::new(),
        cloud_name,
        image: path.display().to_string(),
        qemu_format: format.qemu().unwrap_or("raw"),
        memory: params.memory,
        cpus: params.cpus,
        forwards: ports.iter().map(forward).collect(),
        ports,
        grace: record.stop_grace_secs,
        uuid: disk.id.to_string(),
        short: disk.id.simple().to_string()[..8].to_owned(),
        boot: params.boot.as_deref().unwrap_or_default(),
        reference: params.reference.as_deref().unwrap_or_default(),
        tap: &params.tap,
        network: &params.network,
        uefi: params.uefi,
    };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let html = target == Target::Libvirt;
    environment.set_auto_escape_callback(
        move |_| {
            if html { AutoEscape::Html } else { AutoEscape::None }
        },
    );
    quote::add_filters(&mut environment);
    environment.add_template("cloud-host", include_str!("../../templates/cloud-host.tf"))?;
    if on_host {
        let image = std::mem::replace(&mut context.image, context.host_image.clone());
        let values = minijinja::Value::from(Serde(&context));
        let unit = environment.render_str(Target::Systemd.text(), values)?;
        context.unit = unit.lines().map(str::to_owned).collect();
        context.image = image;
    }
    let context = minijinja::Value::from(Serde(context));
    // The engine takes the last line's end away.
    Ok(environment.render_named_str(name, target.text(), context)? + "\n")
}

/// A raw disk may be meant for one cloud; its name says so.
fn as_named(disk: &Disk, path: &Path) -> Format {
    match (disk.format, Format::of_path(path)) {
        (Format::Raw, Some(named @ (Format::Ami | Format::Iso))) => named,
        (format, _) => format,
    }
}

/// `low`: whether ports below 1024 can be had on the host.
fn ports(params: &Params, exposed: &[dock2uni_format::record::Port], low: bool) -> Vec<Port> {
    let word = |proto: Proto| match proto {
        Proto::Tcp => Some("tcp"),
        Proto::Udp => Some("udp"),
        Proto::Sctp => None,
    };
    let outside = |port: u16| if low { port } else { high(port) };
    let exposed = exposed.iter().map(|port| (outside(port.port), port.port, port.proto));
    let all: Vec<_> =
        if params.ports.is_empty() { exposed.collect() } else { params.ports.clone() };
    all.into_iter()
        .filter_map(|(host, guest, proto)| {
            let proto = word(proto)?;
            Some(Port { host, guest, proto, label: format!("{proto}_{guest}") })
        })
        .collect()
}

/// A port that needs no privileges: 80 becomes 8080, as people choose it.
fn high(port: u16) -> u16 {
    if port < 1024 { 8000 + port } else { port }
}
