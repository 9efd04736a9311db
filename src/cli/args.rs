//! The arguments.

mod container;
mod image;
mod machine;
mod source;
pub mod target;
mod volume;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{exit, size};
use crate::disk::{Format, Place};
use crate::erofs::Compression;
use crate::sbom::Form;
use crate::vmm;

pub use container::{ContainerArgs, MountArgs, Published, publish};
pub use image::{ImageArgs, ImageCommand, ReformatArgs};
pub use machine::{AccelType, BootType, MachineArgs, MachineType};
pub use source::{BuildArgs, BuildNetwork, LimitKind, SourceArgs};
use target::{PUSH_EXAMPLES, PushArgs, SystemArgs, TEMPLATE_EXAMPLES, TemplateArgs};
pub use volume::{VolumeArgs, VolumeCommand};

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
