//! What to run a fleet with elsewhere: disks, volumes and configurations.
//!
//! ```text
//! Workloads ─ machines ─> Orders ─ convert ─> DIR/disks
//!                 │                           DIR/volumes
//!                 └───────── render ────────> DIR/*.yaml, *.xml, *.service, *.sh
//! ```
//!
//! What a boot record can carry is in the disks: command, environment, user, health check, where
//! volumes are mounted (by UUIDs that follow from their names), files of the host and configs (as one
//! more layer of the image). The rest is in the configurations: sizes, ports, networks, order, restart
//! policies, and secrets, by reference ([`secret`]). What a target has no counterpart for is an error that names it.

mod google;
mod machine;
mod names;
mod order;
mod render;
mod secret;
mod timer;

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::Workload;
use super::convert::{self, Images, Observer, Options, Report};
use super::up::net;
use crate::artifact;
use crate::disk::{self, Disk, Format};
use crate::source::Store;
use crate::volume::{self, Volumes};

pub use machine::{Exposed, Machine, Mounted, Port, Probe};
pub use render::Rendered;
pub use secret::{Secret, Share};
pub use timer::Timer;

/// What a fleet is exported for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// KubeVirt VirtualMachines with Services and DataVolumes.
    KubeVirt,
    /// libvirt domains on a network of their own.
    Libvirt,
    /// Firecracker on a bridge, started by a script.
    Firecracker,
    /// Cloud Hypervisor on a bridge, started by a script.
    CloudHypervisor,
    /// A systemd unit that runs `fleet up`.
    Systemd,
    /// A Nomad job on a bridge of one client.
    Nomad,
    /// Terraform for libvirt.
    TerraformLibvirt,
    /// Terraform for Google Compute Engine.
    TerraformGoogle,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 8] = [
        Target::KubeVirt,
        Target::Libvirt,
        Target::Firecracker,
        Target::CloudHypervisor,
        Target::Systemd,
        Target::Nomad,
        Target::TerraformLibvirt,
        Target::TerraformGoogle,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Target::KubeVirt => "kubevirt",
            Target::Libvirt => "libvirt",
            Target::Firecracker => "firecracker",
            Target::CloudHypervisor => "cloud-hypervisor",
            Target::Systemd => "systemd",
            Target::Nomad => "nomad",
            Target::TerraformLibvirt => "terraform-libvirt",
            Target::TerraformGoogle => "terraform-google",
        }
    }

    /// How it takes disks; `None` if it takes none.
    fn format(self) -> Option<Format> {
        match self {
            Target::KubeVirt | Target::Libvirt | Target::Nomad | Target::TerraformLibvirt => {
                Some(Format::Qcow2)
            }
            Target::TerraformGoogle => Some(Format::Gce),
            // They load kernel and root themselves, out of it.
            Target::Firecracker | Target::CloudHypervisor => Some(Format::Raw),
            Target::Systemd => None,
        }
    }

    /// The host as machines see it, where they run on one that is the fleet's.
    fn host(self) -> Option<Ipv4Addr> {
        match self {
            Target::Libvirt | Target::Firecracker | Target::CloudHypervisor | Target::Nomad => {
                Some(net::GATEWAY)
            }
            // Its provider gives the network's first address to the host.
            Target::TerraformLibvirt => Some(Ipv4Addr::new(10, 0, 2, 1)),
            Target::KubeVirt | Target::Systemd | Target::TerraformGoogle => None,
        }
    }

    /// Whether machines know each other by /etc/hosts, for want of a resolver that does.
    fn needs_hosts(self) -> bool {
        self == Target::TerraformGoogle
    }

    /// Whether it is given kernel, record and root as files.
    fn takes_boot_files(self) -> bool {
        matches!(self, Target::Firecracker | Target::CloudHypervisor)
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        Target::ALL.into_iter().find(|target| target.name() == text).ok_or_else(|| {
            if let "terraform-aws" | "terraform-azure" = text {
                let cards = if text.ends_with("aws") { "EC2 (ENA)" } else { "Azure (netvsc, MANA)" };
                return format!(
                    "the network cards of {cards} are none that the guest's kernel drives. Export to \
                     libvirt, nomad or terraform-libvirt for a host there with nested virtualization; \
                     `dock2uni template {text}` makes such a host for a single image"
                );
            }
            let names: Vec<_> = Target::ALL.iter().map(|target| target.name()).collect();
            format!("a fleet is exported to {}", names.join(", "))
        })
    }
}

/// How a fleet is exported.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For what.
    pub target: Target,
    /// Name of the fleet.
    pub name: String,
    /// Where everything goes.
    pub out: PathBuf,
    /// Prefix of references in a registry, for targets that take images from one.
    pub registry: Option<String>,
    /// Memory in MiB of workloads that set no limit.
    pub memory_mib: u32,
    /// Conversions side by side.
    pub jobs: usize,
    /// The Compose files, for a target that runs them by `fleet up`.
    pub files: Vec<PathBuf>,
}

/// Why a fleet cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A workload asks for something that the target can't do.
    #[error("`{name}`: {text}")]
    Workload {
        /// The workload.
        name: String,
        /// What it asks for.
        text: String,
        /// The way out.
        hint: String,
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
    /// Images that could not be converted.
    #[error("{} of {all} images could not be converted: {}", failed.len(), failed.join("; "))]
    Images {
        /// Names and reasons.
        failed: Vec<String>,
        /// How many there are.
        all: usize,
    },
    /// The conversion could not be begun.
    #[error(transparent)]
    Convert(#[from] convert::Error),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// A disk that was made cannot be read.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// What a monitor loads cannot be taken out of a disk.
    #[error(transparent)]
    Boot(#[from] artifact::Error),
    /// A value that cannot be written in the target's language.
    #[error("the configuration cannot be written")]
    Render(#[from] minijinja::Error),
    /// A file.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Workload { hint, .. } => Some(hint.clone()),
            Error::Missing { hint, .. } => Some((*hint).to_owned()),
            Error::Images { .. } => {
                Some("`fleet plan` says more about them; running again goes on".to_owned())
            }
            Error::Convert(error) => error.hint().map(str::to_owned),
            Error::Volume(error) => error.hint().map(str::to_owned),
            Error::Disk(error) => error.hint().map(str::to_owned),
            Error::Boot(error) => error.hint(),
            Error::Render(_) | Error::Write { .. } => None,
        }
    }
}

/// What an export has made.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Configurations.
    pub files: Vec<PathBuf>,
    /// What became of the images; `None` if the target takes no disks.
    pub report: Option<Report>,
}

/// Exports a fleet.
///
/// # Errors
/// See [`Error`]. Nothing is rendered unless every image was converted.
pub fn export(
    workloads: &[Workload],
    settings: &Settings,
    images: &dyn Images,
    store: &Store,
    observer: &dyn Observer,
) -> Result<Exported, Error> {
    let target = settings.target;
    if target == Target::KubeVirt && settings.registry.is_none() {
        return Err(Error::Missing {
            target: target.name(),
            what: "a registry that the disks are pushed to",
            hint: "name it with a prefix: `--registry registry.example.org/shop`",
        });
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    std::fs::create_dir_all(&settings.out).map_err(failed(&settings.out))?;
    // Configurations are read elsewhere than here: their paths are absolute.
    let out = settings.out.canonicalize().map_err(failed(&settings.out))?;
    let settings = &Settings { out, ..settings.clone() };
    let (mut machines, orders) = machine::machines(workloads, settings)?;
    let mut report = None;
    if let Some(format) = target.format() {
        let options = Options {
            out: settings.out.clone(),
            formats: vec![format],
            place: None,
            compression: None,
            jobs: settings.jobs,
            retries: 4,
            retry_delay: std::time::Duration::from_secs(2),
        };
        let made = convert::convert(&orders, &options, images, store, observer)?;
        let bad: Vec<String> = made
            .items
            .iter()
            .filter(|item| !item.succeeded())
            .map(|item| format!("`{}`: {}", item.name, item.reason.as_deref().unwrap_or_default()))
            .collect();
        if !bad.is_empty() {
            return Err(Error::Images { failed: bad, all: made.items.len() });
        }
        machine::with_disks(&mut machines, &made, &settings.out);
        volumes(&machines, &settings.out)?;
        if target.takes_boot_files() {
            boot_files(&mut machines, &settings.out)?;
        }
        report = Some(made);
    }
    let mut files = Vec::new();
    for Rendered { name, text, executable } in render::render(&machines, settings)? {
        let path = settings.out.join(name);
        write(&path, &text, executable).map_err(failed(&path))?;
        files.push(path);
    }
    Ok(Exported { files, report })
}

/// Takes kernel, record and root out of every disk, into a directory of its own that appears whole.
fn boot_files(machines: &mut [Machine], out: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    let all = out.join("boot");
    std::fs::create_dir_all(&all).map_err(failed(&all))?;
    let all = all.canonicalize().map_err(failed(&all))?;
    for machine in machines {
        // The reference is the disk's key until it is rendered.
        let dir = all.join(&machine.reference);
        if !dir.exists() {
            let part = dir.with_extension("part");
            match std::fs::remove_dir_all(&part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&part)(error));
                }
                _ => {}
            }
            artifact::boot_files(&Disk::open(Path::new(&machine.disk))?, &part)?;
            std::fs::rename(&part, &dir).map_err(failed(&dir))?;
        }
        machine.boot = dir.display().to_string();
    }
    Ok(())
}

/// Makes the volumes that are not there yet.
fn volumes(machines: &[Machine], out: &Path) -> Result<(), Error> {
    let volumes = Volumes::at(&out.join("volumes"));
    for mounted in machines.iter().flat_map(|machine| &machine.volumes) {
        match volumes.create_as(&mounted.volume, volume::DEFAULT_SIZE, Some(mounted.uuid)) {
            Err(volume::Error::Exists(_)) => {}
            other => drop(other?),
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str, executable: bool) -> io::Result<()> {
    use io::Write as _;
    use std::os::unix::fs::PermissionsExt;
    let aside = crate::atomic::Aside::beside(path)?;
    aside.file().write_all(text.as_bytes())?;
    if executable {
        aside.file().set_permissions(std::fs::Permissions::from_mode(0o755))?;
    }
    aside.publish(path)
}

fn wrong(workload: &Workload, text: impl Into<String>, hint: &str) -> Error {
    Error::Workload { name: workload.name.clone(), text: text.into(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests;
