//! The arguments.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use dock2uni_format::record::Syscalls;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::target_args::{PUSH_EXAMPLES, PushArgs, SystemArgs, TEMPLATE_EXAMPLES, TemplateArgs};
use super::{exit, size};
use crate::config::{self, HealthOverrides, Overrides, Publish};
use crate::disk::{Format, Place};
use crate::erofs::Compression;
use crate::sbom::Form;
use crate::source::{Image, Store};
use crate::volume::{Spec, Tmpfs};
use crate::{syscalls, vmm};

/// In place of a file: the recording of the image.
pub const AUTO: &str = "auto";

/// Turns a container image into a unikernel: one bootable VM image.
#[derive(Debug, Parser)]
#[command(name = "dock2uni", version, max_term_width = 100, after_help = exit::HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a bootable disk image of a container image
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(Box<ConvertArgs>),
    /// Boot an image in QEMU, converting it first if need be
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Say what an image runs and whether it will, without booting it
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(Box<InspectArgs>),
    /// List what an image consists of: a software bill of materials
    #[command(after_help = SBOM_EXAMPLES)]
    Sbom(Box<SbomArgs>),
    /// Boot an image for a moment and record what it uses
    #[command(after_help = TRACE_EXAMPLES, mut_arg("command", |arg| {
        arg.value_name("PROBE").help("Command to run on this machine once the image serves")
    }))]
    Trace(Box<TraceArgs>),
    /// Look into disk images
    Image(ImageArgs),
    /// Make, list and remove volumes: disks that outlive the VMs that use them
    #[command(after_help = VOLUME_EXAMPLES)]
    Volume(VolumeArgs),
    /// Bring a disk image to a registry
    #[command(after_help = PUSH_EXAMPLES)]
    Push(Box<PushArgs>),
    /// Write a configuration that runs a disk image elsewhere
    #[command(after_help = TEMPLATE_EXAMPLES)]
    Template(Box<TemplateArgs>),
    /// See what the store takes, and make room
    System(SystemArgs),
    /// Move whole fleets: Compose files, Kubernetes manifests, lists, registries
    Fleet(super::fleet::FleetArgs),
    /// Convert what is pushed to registries: webhooks, an API, a queue and workers
    #[cfg(feature = "service")]
    #[command(after_help = super::serve::SERVE_EXAMPLES)]
    Serve(super::serve::ServeArgs),
    /// Work on the queue of a server, on this machine as well
    #[cfg(feature = "service")]
    #[command(after_help = super::serve::WORKER_EXAMPLES)]
    Worker(super::serve::WorkerArgs),
    /// Convert one image for a worker
    #[cfg(feature = "service")]
    #[command(name = "__convert", hide = true)]
    Conversion,
    /// Say what this machine can do
    Doctor {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory
    Man {
        /// Where they go
        directory: PathBuf,
    },
    /// Get at the guest kernel
    #[command(hide = true)]
    Kernel {
        /// Write the kernel's ELF file here
        #[arg(long, value_name = "FILE")]
        extract: PathBuf,
    },
    /// Run a fleet that `fleet up` has prepared
    #[command(name = "__fleet", hide = true)]
    Supervise {
        /// Its directory
        directory: PathBuf,
    },
    /// Run a build's command in isolation, as a build's own child
    #[command(name = "__sandbox", hide = true)]
    Sandbox {
        /// What to do
        job: PathBuf,
        /// Be the first process inside
        #[arg(long)]
        inside: bool,
    },
    /// Run a command that is killed when this process's parent dies
    #[command(name = "__with-parent", hide = true)]
    WithParent {
        /// Take as much memory as may be had, not as this process was told to do with
        #[arg(long)]
        own_memory: bool,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

const CONVERT_EXAMPLES: &str = "\
Examples:
  dock2uni convert nginx                        # writes nginx.img
  dock2uni convert ghcr.io/me/app:1.2 -o app.img -e MODE=production
  dock2uni convert oci:./layout -- /bin/app --port 80
  dock2uni convert nginx -o nginx.qcow2
  dock2uni convert nginx --slim --keep '/usr/share/fonts/*'
  dock2uni convert nginx --compress lz4         # half the size
  dock2uni convert nginx --verify               # boots the result and says what answered
  dock2uni convert nginx --format raw,vmdk,vhd,gce  # nginx.img, nginx.vmdk, nginx.vhd, nginx.tar.gz
  dock2uni convert .                            # builds ./Dockerfile first

Formats:
  raw          sparse; for anything that takes raw disks    vhdx    Hyper-V
  qcow2        QEMU, libvirt, Proxmox, OpenStack            vdi     VirtualBox
  vmdk         VMware (stream-optimised)                    gce     Google Compute Engine
  vhd          Azure, Hyper-V (fixed)                       ami     Amazon EC2 (raw, whole GiB)
  vhd-dynamic  Hyper-V (growing)                            ova     VMware, VirtualBox
  iso          a CD or stick that BIOS and UEFI boot

Every image boots by BIOS and by UEFI. It is written aside and appears only when it is complete.";

const VOLUME_EXAMPLES: &str = "\
Examples:
  dock2uni volume create db --size 20g
  dock2uni run postgres -v db:/var/lib/postgresql/data
  dock2uni volume ls
  dock2uni volume rm db

A volume is an ext4 filesystem in a sparse file. `run -v` makes one that there isn't.
Volumes are in $DOCK2UNI_VOLUMES or $XDG_DATA_HOME/dock2uni/volumes, as NAME.ext4; Linux
mounts them with `mount -o loop`, and `e2fsck` checks them.";

const RUN_EXAMPLES: &str = "\
Examples:
  dock2uni run nginx -p 8080:80                 # then: curl localhost:8080
  dock2uni run nginx.img --boot disk            # the whole disk image, by a BIOS
  dock2uni run nginx.qcow2 --boot uefi          # the same by UEFI
  dock2uni run -it alpine sh
  dock2uni run . --target debug --build-arg MODE=dev -p 8080:80
  dock2uni run postgres -v db:/var/lib/postgresql/data -v ./init:/docker-entrypoint-initdb.d:ro
  dock2uni run app --ip 10.0.2.40/24 --gateway 10.0.2.2 --dns 10.0.2.3 --add-host db:10.0.2.41
  dock2uni run --machine microvm -m 64m -p 127.0.0.1:6379:6379 redis

Ctrl-C and SIGTERM press the power button: the application gets the image's stop signal
and its grace period. A second Ctrl-C ends the VM at once.";

const SBOM_EXAMPLES: &str = "\
Examples:
  dock2uni sbom nginx                           # CycloneDX 1.6, on standard output
  dock2uni sbom nginx.img --format spdx -o nginx.spdx.json

Listed are the packages of dpkg, apk and rpm, and what npm, Python, Ruby gems, Go and `cargo auditable`
left records of. The same image gives the same text.";

#[derive(Debug, Args)]
pub struct SbomArgs {
    /// Image reference, `oci:DIR`, a disk image, a directory with a Dockerfile ...
    pub reference: String,
    /// Format [default: by the file's name, or cyclonedx]
    #[arg(long, value_enum)]
    pub format: Option<SbomForm>,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SbomForm {
    /// CycloneDX 1.6, JSON
    Cyclonedx,
    /// SPDX 2.3, JSON
    Spdx,
}

impl From<SbomForm> for Form {
    fn from(form: SbomForm) -> Form {
        match form {
            SbomForm::Cyclonedx => Form::CycloneDx,
            SbomForm::Spdx => Form::Spdx,
        }
    }
}

const TRACE_EXAMPLES: &str = "\
Examples:
  dock2uni trace nginx -o nginx.trace
  dock2uni trace app -- sh -c 'curl -sf http://$DOCK2UNI_HOST:$DOCK2UNI_PORT_8080/login'
  dock2uni convert nginx --slim --trace nginx.trace

The kernel tells every file that is looked up, opened or executed, and every system call, while the
exposed ports are probed, the health check runs, and the probe does its work. The probe's
environment says where the ports are: DOCK2UNI_HOST, DOCK2UNI_PORT (of the first), DOCK2UNI_PORT_N.";

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Image reference, `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE`, or a path
    pub reference: String,
    #[command(flatten)]
    pub container: ContainerArgs,
    /// Word of the image's command, in place of the image's own (repeat it for more words)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub cmd: Vec<String>,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub trial: TrialArgs,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// Seconds that nobody waits for longer.
const MONTH: u64 = 30 * 24 * 3600;

/// How an image is booted to see what it does.
#[derive(Debug, Args)]
#[command(next_help_heading = "Trial options")]
pub struct TrialArgs {
    /// Memory of the VM that tries the image
    #[arg(short, long, value_name = "SIZE", default_value = "512m", value_parser = size::memory)]
    pub memory: u32,
    /// Processors of it
    #[arg(long, value_name = "N", default_value = "1", value_parser = size::cpus)]
    pub cpus: u32,
    /// Seconds until everything must have answered [default: 120 with KVM, 600 without]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=MONTH))]
    pub patience: Option<u64>,
    /// Accelerator [default: kvm where it works, tcg otherwise]
    #[arg(long, value_enum)]
    pub accel: Option<AccelType>,
    /// QEMU to use [default: $DOCK2UNI_QEMU, or qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  dock2uni inspect nginx
  dock2uni inspect ghcr.io/me/app:1.2 --entrypoint /bin/worker --all
  dock2uni inspect postgres --json | jq -r .verdict

Exits with 0 if the image runs, with or without notes, and with 7 if it won't.";

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Image reference, `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE`, a path, or a
    /// directory with a Dockerfile
    pub reference: String,
    #[command(flatten)]
    pub container: ContainerArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Print all that was found as JSON
    #[arg(long)]
    pub json: bool,
    /// Name every library, module, package and system call
    #[arg(short, long)]
    pub all: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Image reference, `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE`, a path, or a
    /// directory with a Dockerfile
    pub reference: String,
    #[command(flatten)]
    pub container: ContainerArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub disk: DiskArgs,
    /// Keep only what the image needs to run: booted before to see what it uses, and after to see
    /// that it works
    #[arg(long)]
    pub slim: bool,
    /// Use a trace of `dock2uni trace` instead of booting the whole image
    #[arg(long, value_name = "FILE", requires = "slim")]
    pub trace: Option<PathBuf>,
    /// Paths to keep whatever else is found; `*` matches slashes as well
    #[arg(long, value_name = "GLOB", requires = "slim")]
    pub keep: Vec<String>,
    /// Paths to drop whatever else is found
    #[arg(long, value_name = "GLOB", requires = "slim")]
    pub drop: Vec<String>,
    /// Boot what was made, wait for its ports or its health check, and say what answered. One of the
    /// ports that the image exposes must, and all that `-p` names, which alone are waited for then
    #[arg(long)]
    pub verify: bool,
    #[command(flatten)]
    pub trial: TrialArgs,
    /// Write what the image consists of into a file: SPDX if its name has `spdx` in it, CycloneDX
    /// otherwise
    #[arg(long, value_name = "FILE")]
    pub sbom: Vec<PathBuf>,
    /// Write where the result comes from into a file: an in-toto statement (SLSA provenance)
    #[arg(long, value_name = "FILE")]
    pub provenance: Option<PathBuf>,
    /// Say what the image runs and whether it will, as `inspect` does, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print what was made as JSON
    #[arg(long)]
    pub json: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// What is made.
#[derive(Debug, Args)]
#[command(next_help_heading = "Disk options")]
pub struct DiskArgs {
    /// File to write; of several formats, each has its own extension
    /// [default: the image's name with the format's extension]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Formats, separated by commas [default: by the file's extension, or raw]
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', value_parser = format)]
    pub format: Vec<Format>,
    /// Where the kernel finds the root filesystem [default: by the format: on the disk for raw and
    /// qcow2; others are for hypervisors whose disks only the boot code can read]
    #[arg(long, value_enum)]
    pub root: Option<RootPlace>,
    /// Compress the files of the root filesystem: lz4, about half the size
    #[arg(long, value_name = "METHOD", value_parser = str::parse::<Compression>)]
    pub compress: Option<Compression>,
    /// Sign the EFI loader, with kernel and boot record in it, by this RSA key (PEM)
    #[arg(long, value_name = "FILE", requires = "secure_boot_cert")]
    pub secure_boot_key: Option<PathBuf>,
    /// Certificate of the signing key (PEM)
    #[arg(long, value_name = "FILE", requires = "secure_boot_key")]
    pub secure_boot_cert: Option<PathBuf>,
}

fn format(text: &str) -> Result<Format, String> {
    text.parse()
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RootPlace {
    /// On the disk, which must be a virtio-blk device
    Disk,
    /// In memory: the boot code loads it
    Memory,
}

impl From<RootPlace> for Place {
    fn from(place: RootPlace) -> Place {
        match place {
            RootPlace::Disk => Place::Disk,
            RootPlace::Memory => Place::Memory,
        }
    }
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Image reference as for `convert`, a disk image that it made, or a bare EROFS root
    pub reference: String,
    #[command(flatten)]
    pub container: ContainerArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub mounts: MountArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Plug the VM into this tap device of the host, in place of a network of its own
    #[arg(
        long,
        value_name = "DEVICE",
        conflicts_with = "publish",
        help_heading = "Network options"
    )]
    pub tap: Option<String>,
    /// Ethernet address on the tap device [default: a random one]
    #[arg(long, value_name = "MAC", requires = "tap", value_parser = vmm::tap::parse_mac,
        help_heading = "Network options")]
    pub mac_address: Option<[u8; 6]>,
    /// Note the system calls that are made, for `--lock-syscalls`: in FILE, or for `auto`
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
        default_missing_value = AUTO, conflicts_with = "lock_syscalls")]
    pub record_syscalls: Option<PathBuf>,
    /// Say nothing but errors and what the application says
    #[arg(short, long)]
    pub quiet: bool,
}

/// What `docker run` calls so.
#[derive(Debug, Args)]
#[command(next_help_heading = "Container options, as of `docker run`")]
pub struct ContainerArgs {
    /// Command and arguments in place of the image's; write `--` before a first one with a dash
    #[arg(trailing_var_arg = true)]
    pub command: Vec<String>,
    /// Program in place of the image's entrypoint
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// Set a variable, or pass this process's on, or remove it
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User to run as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Forward a port of the host to the guest
    #[arg(short, long, value_name = "[[IP:]HOST:]GUEST[/PROTO]", value_parser = publish)]
    pub publish: Vec<Published>,
    /// Host name in the guest
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Signal that asks the application to stop
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds that it may take to stop
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u32>,
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the application a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Kill programs that make a system call which is not on a list: a file with a name on each
    /// line, or `auto` for what `run --record-syscalls` has seen of this image
    #[arg(long, value_name = "FILE")]
    pub lock_syscalls: Option<PathBuf>,
    /// Check every block of the root filesystem against its hash tree before it is used; images whose
    /// loader is signed always do
    #[arg(long, help_heading = "Integrity options")]
    pub check_root: bool,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub health: HealthArgs,
}

/// Addresses and names.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network options")]
pub struct NetworkArgs {
    /// How the VM finds its addresses where none are given
    #[arg(long, value_enum, default_value = "auto")]
    pub network: NetworkType,
    /// Fixed address with its prefix length; one of each family at most
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub ip: Vec<config::Interface>,
    /// Router for everything outside the address's own network
    #[arg(long, value_name = "ADDRESS", requires = "ip")]
    pub gateway: Vec<IpAddr>,
    /// Resolver, in place of those that DHCP names
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,
    /// Domain in which unqualified names are looked up
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Entry of /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = config::add_host)]
    pub add_host: Vec<(String, IpAddr)>,
}

/// `--network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkType {
    /// IPv4 by DHCP, IPv6 by what routers announce
    Auto,
    /// Loopback alone
    None,
}

impl NetworkArgs {
    fn overrides(&self) -> config::Network {
        config::Network {
            none: self.network == NetworkType::None,
            addresses: self.ip.clone(),
            gateways: self.gateway.clone(),
            dns: self.dns.clone(),
            search: self.dns_search.clone(),
            hosts: self.add_host.clone(),
        }
    }
}

/// HEALTHCHECK.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Command that checks the application's health, for the image's shell
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between checks, such as 30s or 1m30s
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    pub health_interval: Option<i64>,
    /// Time that a check may take
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    pub health_timeout: Option<i64>,
    /// Time after the start in which failed checks don't count
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    pub health_start_period: Option<i64>,
    /// Time between checks in that period
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    pub health_start_interval: Option<i64>,
    /// Failures in a row that make the application unhealthy
    #[arg(long, value_name = "N")]
    pub health_retries: Option<u32>,
    /// Leave the image's health check out
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout",
        "health_start_period", "health_start_interval", "health_retries"])]
    pub no_healthcheck: bool,
}

impl HealthArgs {
    fn overrides(&self) -> HealthOverrides {
        HealthOverrides {
            command: self.health_cmd.clone(),
            argv: None,
            interval_ns: self.health_interval,
            timeout_ns: self.health_timeout,
            start_period_ns: self.health_start_period,
            start_interval_ns: self.health_start_interval,
            retries: self.health_retries.map(i64::from),
            none: self.no_healthcheck,
        }
    }
}

/// What is mounted in the guest.
#[derive(Debug, Args)]
#[command(next_help_heading = "Volume options")]
pub struct MountArgs {
    /// Mount a volume, made if there is none, or a directory of the host
    #[arg(short, long, value_name = "NAME|DIR:PATH[:ro]", value_parser = Spec::parse)]
    pub volume: Vec<Spec>,
    /// Keep each VOLUME of the image in a volume called PREFIX and its path
    #[arg(long, value_name = "PREFIX")]
    pub volumes: Option<String>,
    /// Mount memory that is empty at the start, such as /run or /tmp:size=64m
    #[arg(long, value_name = "PATH[:OPTIONS]", value_parser = Tmpfs::parse)]
    pub tmpfs: Vec<Tmpfs>,
}

/// One `--publish`, which may be a range.
#[derive(Clone, Debug)]
pub struct Published(pub Vec<Publish>);

pub fn publish(text: &str) -> Result<Published, config::PublishError> {
    Publish::parse(text).map(Published)
}

impl ContainerArgs {
    /// The options as the planner takes them.
    pub fn overrides(&self) -> Result<Overrides, super::Failure> {
        let mut env = Vec::new();
        for path in &self.env_file {
            let name = path.display().to_string();
            let text = std::fs::read(path)
                .map_err(|error| super::Failure::io(format!("cannot read `{name}`"), error))?;
            env.extend(config::parse_env_file(&name, &text)?);
        }
        for text in &self.env {
            env.push(config::env_from_option(text)?);
        }
        Ok(Overrides {
            entrypoint: self.entrypoint.clone(),
            command: self.command.clone(),
            env,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            ports: self.published().iter().map(|publish| publish.guest.clone()).collect(),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            tty: self.tty,
            stdin: self.interactive,
            health: self.health.overrides(),
            network: self.network.overrides(),
            check_root: self.check_root,
            syscalls: match &self.lock_syscalls {
                Some(path) if path != Path::new(AUTO) => Syscalls::Only(syscalls::read(path)?),
                _ => Syscalls::All,
            },
        })
    }

    /// Completes the options by what is known of the image once it is resolved.
    pub fn complete(
        &self,
        overrides: &mut Overrides,
        store: &Store,
        image: &Image,
    ) -> Result<(), super::Failure> {
        if self.locks_by_recording() {
            let calls = syscalls::recorded(store.root(), &image.config_digest.hex())?;
            overrides.syscalls = Syscalls::Only(calls);
        }
        Ok(())
    }

    /// `--lock-syscalls auto`
    pub fn locks_by_recording(&self) -> bool {
        self.lock_syscalls.as_deref() == Some(Path::new(AUTO))
    }

    /// All published ports.
    pub fn published(&self) -> Vec<Publish> {
        self.publish.iter().flat_map(|published| published.0.clone()).collect()
    }
}

/// What `docker build` calls so.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Build options, for a directory with a Dockerfile")]
pub struct BuildArgs {
    /// Dockerfile [default: `Dockerfile` in the directory; `-` for standard input]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The text of the Dockerfile, as a fleet's file may have it.
    #[arg(skip)]
    pub inline: Option<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Set an ARG of the Dockerfile, from this process's variable if there is no value
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Give a directory, `docker-image://REF`, `oci-layout://DIR` or git address a name for
    /// `--from` and FROM
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Secret for RUN --mount=type=secret
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub secret: Vec<String>,
    /// Agent for RUN --mount=type=ssh [default socket: $SSH_AUTH_SOCK]
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub ssh: Vec<String>,
    /// Build every step anew
    #[arg(long)]
    pub no_cache: bool,
    /// Network of RUN commands
    #[arg(long, value_enum, default_value_t)]
    pub build_network: BuildNetwork,
}

/// What commands of a build see of the network.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum BuildNetwork {
    /// The host's
    #[default]
    Default,
    /// The host's
    Host,
    /// A loopback device alone
    None,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Source options")]
pub struct SourceArgs {
    /// Use HTTP without TLS for this registry (loopback addresses need no telling)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub plain_http: Vec<String>,
    /// Trust the certificate authorities in this PEM file as well
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Use what is in the layer store, without any network
    #[arg(long)]
    pub offline: bool,
    /// Raise or lower a bound on what an image may ask for: entries (4m), layer-bytes (256g),
    /// image-bytes (1t), xattr-bytes (32m), sparse-parts (1m), archive-bytes (1t)
    #[arg(long, value_name = "NAME=SIZE", value_parser = limit)]
    pub limit: Vec<Limit>,
    /// Use no image that isn't signed by this key (PEM), as `cosign sign --key` does; of a
    /// Dockerfile, no base image
    #[arg(long, value_name = "FILE", conflicts_with = "certificate_identity")]
    pub verify_key: Option<PathBuf>,
    /// Use no image that wasn't signed by this identity, an e-mail address or URI ("keyless")
    #[arg(
        long,
        value_name = "NAME",
        requires = "certificate_oidc_issuer",
        requires = "trust_root"
    )]
    pub certificate_identity: Option<String>,
    /// Who vouches for the identity, such as https://accounts.google.com
    #[arg(long, value_name = "URL", requires = "certificate_identity")]
    pub certificate_oidc_issuer: Option<String>,
    /// Authorities and logs of signatures, in sigstore's form (`trusted_root.json`). With
    /// `--verify-key`, signatures must be in one of the logs
    #[arg(long, value_name = "FILE")]
    pub trust_root: Option<PathBuf>,
}

/// A bound on images.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub kind: LimitKind,
    pub value: u64,
}

/// What can be bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LimitKind {
    /// Entries of all layers together
    Entries,
    /// Bytes of all layers together when inflated
    LayerBytes,
    /// Bytes of the root filesystem
    ImageBytes,
    /// Bytes of extended attributes
    XattrBytes,
    /// Parts with data in all sparse files together
    SparseParts,
    /// Bytes that an archive may inflate to
    ArchiveBytes,
}

fn limit(text: &str) -> Result<Limit, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=SIZE, such as entries=10m")?;
    let kind = LimitKind::from_str(name, false).map_err(|_| {
        let names: Vec<String> = LimitKind::value_variants()
            .iter()
            .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
            .collect();
        format!("there is no limit `{name}`, only {}", names.join(", "))
    })?;
    Ok(Limit { kind, value: size::size(value)? })
}

#[derive(Debug, Args)]
#[command(next_help_heading = "VM options")]
pub struct MachineArgs {
    /// Memory of the VM, such as 64m or 1g
    #[arg(short, long, value_name = "SIZE", default_value = "256m", value_parser = size::memory)]
    pub memory: u32,
    /// Processors of the VM
    #[arg(long, value_name = "N", default_value = "1", value_parser = size::cpus)]
    pub cpus: u32,
    /// Machine type
    #[arg(long, value_enum, default_value_t = MachineType::Q35)]
    pub machine: MachineType,
    /// Accelerator [default: kvm where it works, tcg otherwise]
    #[arg(long, value_enum)]
    pub accel: Option<AccelType>,
    /// How the kernel gets in
    #[arg(long, value_enum, default_value_t = BootType::Direct)]
    pub boot: BootType,
    /// UEFI firmware for `--boot uefi` [default: what QEMU's firmware descriptions name]
    #[arg(long, value_name = "FILE")]
    pub firmware: Option<PathBuf>,
    /// Variables that the firmware starts with, such as enrolled keys
    #[arg(long, value_name = "FILE", requires = "firmware")]
    pub firmware_vars: Option<PathBuf>,
    /// QEMU to use [default: $DOCK2UNI_QEMU, or qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
    /// Word for the kernel's command line, such as `d2u.trace`
    #[arg(long, value_name = "WORD")]
    pub kernel_arg: Vec<String>,
    /// Print QEMU's command line instead of starting it
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MachineType {
    /// A PC with PCI Express
    Q35,
    /// QEMU's minimal machine, virtio over MMIO
    Microvm,
}

impl From<MachineType> for vmm::Machine {
    fn from(machine: MachineType) -> vmm::Machine {
        match machine {
            MachineType::Q35 => vmm::Machine::Q35,
            MachineType::Microvm => vmm::Machine::Microvm,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AccelType {
    /// The processor itself
    Kvm,
    /// QEMU's translator
    Tcg,
}

impl From<AccelType> for vmm::Accel {
    fn from(accel: AccelType) -> vmm::Accel {
        match accel {
            AccelType::Kvm => vmm::Accel::Kvm,
            AccelType::Tcg => vmm::Accel::Tcg,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BootType {
    /// QEMU loads the kernel; the root is a disk
    Direct,
    /// QEMU loads the kernel and the root into memory
    Ram,
    /// A BIOS boots the disk image
    Disk,
    /// UEFI boots the disk image
    Uefi,
}

#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Show what a disk image holds and runs
    Info {
        /// The disk image
        file: PathBuf,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// List a directory of an image
    Ls {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// Directory or file
        #[arg(default_value = "/")]
        path: OsString,
        /// With permissions, links, owner, group, size and time
        #[arg(short, long)]
        long: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show all that is below a directory of an image
    Tree {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// Directory
        #[arg(default_value = "/")]
        path: OsString,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print files of an image
    Cat {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// Files
        #[arg(required = true)]
        paths: Vec<OsString>,
    },
    /// Copy a file or directory out of an image
    #[command(after_help = CP_EXAMPLES)]
    Cp {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// File or directory in the image
        from: OsString,
        /// Where it goes; `-` for standard output
        to: PathBuf,
        /// Print what was copied as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show in what two images differ; exits with 1 if they do
    Diff {
        /// Disk image of any format, or a bare root
        first: PathBuf,
        /// Another one
        second: PathBuf,
        /// Times count, too
        #[arg(long)]
        times: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check all that an image says about itself; exits with 6 if something is wrong
    Verify {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print where a disk image comes from: an in-toto statement (SLSA provenance)
    Provenance {
        /// Disk image of any format
        file: PathBuf,
    },
    /// Take kernel, boot record and root out of a disk image, for monitors that load them
    #[command(name = "boot-files")]
    BootFiles {
        /// Disk image of any format
        file: PathBuf,
        /// Directory to make
        to: PathBuf,
    },
    /// Bring a disk image into another format
    #[command(after_help = REFORMAT_EXAMPLES)]
    Convert(ReformatArgs),
}

const CP_EXAMPLES: &str = "\
Examples:
  dock2uni image cp nginx.img /etc/nginx ./conf      # a directory, as `conf`
  dock2uni image cp nginx.qcow2 /etc/passwd -        # to standard output

Nothing outside of the destination is written, and no file is overwritten. Owners are not kept,
and devices are left out.";

const REFORMAT_EXAMPLES: &str = "\
Examples:
  dock2uni image convert nginx.img nginx.vmdk
  dock2uni image convert nginx.tar.gz nginx.img

The disk stays what it is: `dock2uni convert` also chooses where the root filesystem is when
it boots, and makes CDs.";

#[derive(Debug, Args)]
pub struct ReformatArgs {
    /// Disk image of any format
    pub file: PathBuf,
    /// File to write
    pub output: PathBuf,
    /// Its format [default: by its extension]
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub format: Option<Format>,
    /// Print what was made as JSON
    #[arg(long)]
    pub json: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct VolumeArgs {
    #[command(subcommand)]
    pub command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make an empty volume
    Create {
        /// Its name
        name: String,
        /// Its size, such as 512m or 20g; only what is written takes space on the host
        #[arg(short, long, value_name = "SIZE", default_value = "10g", value_parser = size::size)]
        size: u64,
    },
    /// List volumes
    Ls {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
        /// Print names alone
        #[arg(short, long)]
        quiet: bool,
    },
    /// Print all that is known about volumes, as JSON
    Inspect {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove volumes with all that is in them
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> RunArgs {
        let cli = Cli::try_parse_from(["dock2uni", "run"].iter().chain(words)).unwrap();
        match cli.command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_go_before_or_after_the_reference_and_the_command_is_taken_whole() {
        let args = run(&["nginx", "-p", "8080:80", "-m", "64m", "sh", "-c", "ls -p 1", "-e"]);
        assert_eq!(args.container.publish.len(), 1);
        assert_eq!(args.machine.memory, 64);
        assert_eq!(args.container.command, ["sh", "-c", "ls -p 1", "-e"]);
        let args = run(&["-it", "-e", "A=1", "app", "--", "--port", "80"]);
        assert!(args.container.tty && args.container.interactive);
        assert_eq!(args.container.command, ["--port", "80"]);
    }

    #[test]
    fn the_definitions_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
