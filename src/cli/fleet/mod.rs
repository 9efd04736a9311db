//! `dock2uni fleet`.

mod convert;
mod export;
mod images;
mod plan;
mod up;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::{AccelType, MachineType, RootPlace, SourceArgs};
use super::{Failure, exit, size};
use crate::disk::Format;
use crate::erofs::Compression;
use crate::fleet::export as export_target;
use crate::fleet::{self, Inputs, Source, compose};

#[derive(Debug, Args)]
pub struct FleetArgs {
    #[command(subcommand)]
    command: FleetCommand,
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Say what of a fleet of containers will run as VMs, before anything is converted
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Box<PlanArgs>),
    /// Convert a whole fleet; run it again to go on where it was stopped
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(Box<ConvertArgs>),
    /// Write what runs a fleet elsewhere: disks, volumes and configurations
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Box<ExportArgs>),
    /// Run a Compose file or manifests on this machine, each service in a VM of its own
    #[command(after_help = UP_EXAMPLES)]
    Up(Box<UpArgs>),
    /// Stop a fleet, those services last that others need
    Down(DownArgs),
    /// Say how the instances of a fleet stand
    Ps(PsArgs),
    /// Show what the instances of a fleet say
    Logs(LogsArgs),
}

const PLAN_EXAMPLES: &str = "\
Examples:
  dock2uni fleet plan compose.yaml
  dock2uni fleet plan compose.yaml compose.prod.yaml --profile web --html plan.html
  dock2uni fleet plan k8s/ -o plan.json
  helm template my-chart | dock2uni fleet plan -
  dock2uni fleet plan images.txt catalog:registry.example/team

Exit status: 0 if every workload will run, 7 if one won't or its image is not to be had.";

const CONVERT_EXAMPLES: &str = "\
Examples:
  dock2uni fleet plan compose.yaml -o plan.json
  dock2uni fleet convert plan.json -o disks --format qcow2
  dock2uni fleet convert catalog:registry.example/team -o disks --jobs 8

A plan pins images to the digests it has seen; other sources are pinned when the run begins. A run
that was killed goes on where it was when it is started again: disks are named by all that they are
made of, and appear whole.

Exit status: 0 if every image was converted, 11 if some were, 12 if none was.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  dock2uni fleet export compose.yaml --to libvirt -o vms && vms/start.sh
  dock2uni fleet export k8s/ --to kubevirt -o vms --registry registry.example.org/shop
  dock2uni fleet export compose.yaml --to nomad -o vms
  dock2uni fleet export compose.yaml --to terraform-google -o vms && terraform -chdir=vms init
  dock2uni fleet export compose.yaml --to systemd -o /etc/systemd/system

kubevirt: VirtualMachines, Services, DataVolumes; push.sh pushes the disks. libvirt: domains, a network
on which services have their names, start.sh. firecracker, cloud-hypervisor: what they load, a bridge
with dnsmasq, start.sh. systemd: a unit that runs `fleet up`. nomad: a job for the QEMU driver, and
network.sh for the client that runs it. terraform-libvirt: network, disks, domains in order.
terraform-google: a network, machines, and a load balancer for what is published. CronJobs are CronJobs
(kubevirt), periodic jobs (nomad) or timers of systemd (libvirt, firecracker, cloud-hypervisor). Values
of secrets are in none of it. What a target has no counterpart for is refused by name.";

const UP_EXAMPLES: &str = "\
Examples:
  dock2uni fleet up                               # ./compose.yaml; Ctrl-C stops it
  dock2uni fleet up -d --wait && dock2uni fleet ps
  dock2uni fleet logs -f web
  dock2uni fleet down --volumes
  dock2uni fleet up k8s/ -d -p shop               # manifests: their Services are names and ports here

Services reach each other by name on a private network. Volumes are `dock2uni volume`s called
FLEET_NAME. Files that are mounted one by one, and configs, are copied into the VM when it is
prepared; directories are shared. Restart policies and `depends_on` conditions hold. Of manifests,
init containers run first, ConfigMaps become files and variables, Secrets are read from the manifests
that have them, ports of LoadBalancers and NodePorts are published, and CronJobs are left out.

Exit status: 0 if everything came up, or has ended well; 1 if something has failed.";

/// What a fleet is.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// Compose files, Kubernetes manifests or directories of them, `.txt` lists of references,
    /// `catalog:REGISTRY[/PREFIX]`, references, `containers:[SOCKET]` for what Docker or Podman runs now, or
    /// `-` for manifests on standard input
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    #[command(flatten)]
    how: HowArgs,
}

/// How a fleet is read, and its images brought in.
#[derive(Debug, Args)]
pub struct HowArgs {
    /// Compose profile to include; `*` for all [default: $COMPOSE_PROFILES]
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Variables for Compose files, in place of the `.env` beside them
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Build the images that Compose files have Dockerfiles for
    #[arg(long)]
    build: bool,
    #[command(flatten)]
    source: SourceArgs,
}

impl InputArgs {
    fn detect(&self, sources: &[String]) -> Result<Vec<Source>, fleet::Error> {
        sources.iter().map(|text| Source::detect(text)).collect()
    }
}

impl HowArgs {
    fn inputs(&self) -> Inputs {
        let profiles = if self.profile.is_empty() {
            let text = std::env::var("COMPOSE_PROFILES").unwrap_or_default();
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        } else {
            self.profile.clone()
        };
        // Variables that are not UTF-8 can't be named in a Compose file.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let env_files = self.env_file.clone();
        Inputs { compose: compose::Options { profiles, env_files, environment } }
    }
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Images to look at side by side
    #[arg(short, long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Write the plan as JSON to this file, for `fleet convert`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the plan as a page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub struct ConvertArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Directory for disks, links to them by name, journal and report
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Formats of disks, separated by commas
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = "raw",
        value_parser = str::parse::<Format>)]
    format: Vec<Format>,
    /// Where the kernel finds the root filesystem [default: by the format]
    #[arg(long, value_enum)]
    root: Option<RootPlace>,
    /// Compress the files of the root filesystems: lz4
    #[arg(long, value_name = "METHOD", value_parser = str::parse::<Compression>)]
    compress: Option<Compression>,
    /// Conversions side by side [default: processors, 8 at most]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// How often what fails for a while is tried again
    #[arg(long, value_name = "N", default_value_t = 4)]
    retries: u32,
    /// Convert what won't run as well
    #[arg(long)]
    force: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    input: InputArgs,
    /// What it is for: kubevirt, libvirt, firecracker, cloud-hypervisor, systemd, nomad,
    /// terraform-libvirt or terraform-google
    #[arg(long, value_name = "TARGET", value_parser = str::parse::<export_target::Target>)]
    to: export_target::Target,
    /// Directory for configurations, disks and volumes
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Name of the fleet [default: as for `up`]
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// Prefix of the disks' references, for targets that take them from a registry
    #[arg(long, value_name = "REGISTRY/PATH")]
    registry: Option<String>,
    /// Memory of workloads that set no limit
    #[arg(short, long, value_name = "SIZE", default_value = "256m", value_parser = size::memory)]
    memory: u32,
    /// Conversions side by side [default: processors, 8 at most]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Compose files, Kubernetes manifests, or a directory with them [default: this directory]
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Name of the fleet [default: $COMPOSE_PROJECT_NAME, the file's `name`, or its directory's]
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// Service to start, with all that it needs [default: all of them]
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// Leave it running in the background once everything has been started
    #[arg(short, long)]
    detach: bool,
    /// With `--detach`: wait for health checks to pass, too
    #[arg(long, requires = "detach")]
    wait: bool,
    #[command(flatten)]
    how: HowArgs,
    /// Memory of services that set no limit
    #[arg(short, long, value_name = "SIZE", default_value = "256m", value_parser = size::memory)]
    memory: u32,
    /// Machine type of the VMs
    #[arg(long, value_enum, default_value = "q35")]
    machine: MachineType,
    /// Accelerator [default: kvm where it works, tcg otherwise]
    #[arg(long, value_enum)]
    accel: Option<AccelType>,
    /// QEMU to use [default: $DOCK2UNI_QEMU, or qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Say nothing but errors and what the services say
    #[arg(short, long)]
    quiet: bool,
}

/// Which fleet.
#[derive(Debug, Args)]
pub struct ProjectArgs {
    /// Name of the fleet [default: as for `up`]
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// Directory of the Compose file
    #[arg(long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
}

#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Remove the volumes that belong to it alone, with all that is in them
    #[arg(short, long)]
    volumes: bool,
    /// End the VMs at once
    #[arg(long)]
    kill: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// All fleets
    #[arg(short, long)]
    all: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Services or instances [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    /// Go on until the fleet ends
    #[arg(short, long)]
    follow: bool,
    /// Begin with so many lines of each instance [default: all that is kept]
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Show when each line was said
    #[arg(short, long)]
    timestamps: bool,
}

pub fn fleet(args: &FleetArgs) -> Result<u8, Failure> {
    match &args.command {
        FleetCommand::Plan(args) => plan::plan(args),
        FleetCommand::Convert(args) => convert::convert(args),
        FleetCommand::Export(args) => export::export(args),
        FleetCommand::Up(args) => up::up(args),
        FleetCommand::Down(args) => up::down(args),
        FleetCommand::Ps(args) => up::ps(args),
        FleetCommand::Logs(args) => up::logs(args),
    }
}

impl From<fleet::Error> for Failure {
    fn from(error: fleet::Error) -> Failure {
        let hint = error.hint();
        match error {
            fleet::Error::Registry(error) => error.into(),
            fleet::Error::Read { path, source } => {
                Failure::io(format!("cannot read `{}`", path.display()), source)
            }
            error => Failure::new(exit::USAGE, error.to_string(), hint.as_deref()),
        }
    }
}

impl From<fleet::convert::Error> for Failure {
    fn from(error: fleet::convert::Error) -> Failure {
        let hint = error.hint();
        match error {
            fleet::convert::Error::Io { what, path, source } => {
                Failure::io(format!("cannot {what} `{}`", path.display()), source)
            }
            error => Failure::new(exit::FAILURE, error.to_string(), hint),
        }
    }
}

impl From<fleet::up::Error> for Failure {
    fn from(error: fleet::up::Error) -> Failure {
        use fleet::up::Error;
        let hint = error.hint();
        match error {
            Error::Io { what, path, source } => {
                Failure::io(format!("cannot {what} `{}`", path.display()), source)
            }
            Error::Vm(error) => error.into(),
            Error::Volume(error) => error.into(),
            Error::Convert { service, source } => Failure::from(source).about(&service),
            error => {
                let code = match &error {
                    Error::Unknown(_) | Error::NotRunning(_) => exit::NOT_FOUND,
                    Error::Service { .. } | Error::Circle(_) | Error::Project(_) => exit::USAGE,
                    _ => exit::FAILURE,
                };
                Failure::new(code, error.to_string(), hint.as_deref())
            }
        }
    }
}

impl From<fleet::export::Error> for Failure {
    fn from(error: fleet::export::Error) -> Failure {
        use fleet::export::Error;
        let hint = error.hint();
        match error {
            Error::Convert(error) => error.into(),
            Error::Volume(error) => error.into(),
            Error::Disk(error) => error.into(),
            Error::Boot(error) => error.into(),
            Error::Write { path, source } => {
                Failure::io(format!("cannot write `{}`", path.display()), source)
            }
            error => {
                let code = match &error {
                    Error::Workload { .. } => exit::UNSUPPORTED,
                    Error::Missing { .. } => exit::USAGE,
                    _ => exit::FAILURE,
                };
                Failure::new(code, error.to_string(), hint.as_deref())
            }
        }
    }
}
