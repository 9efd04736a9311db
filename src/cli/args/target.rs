//! Arguments of the commands around finished images: push, template, system.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Published, publish};
use crate::cli::size;
use crate::template::Target;

pub const PUSH_EXAMPLES: &str = "\
Examples:
  dock2uni push nginx.img registry.example.org/vms/nginx:1 --as container-disk
  dock2uni push nginx.img oci:./layout:nginx --as kernel-boot

Credentials are those of `docker login` or `podman login`.";

pub const TEMPLATE_EXAMPLES: &str = "\
Examples:
  dock2uni template qemu nginx.img -p 8080:80 -o run-nginx.sh
  dock2uni template kubevirt nginx.img --reference registry.example.org/vms/nginx:1
  dock2uni image boot-files nginx.img nginx.boot
  dock2uni template firecracker nginx.img --boot-files nginx.boot";

#[derive(Debug, Args)]
pub struct PushArgs {
    /// Disk image of any format
    pub file: PathBuf,
    /// Reference in a registry, or `oci:DIR[:NAME]`
    pub to: String,
    /// What to make of it
    #[arg(long, value_enum, default_value_t = PushKind::ContainerDisk)]
    pub r#as: PushKind,
    /// Use HTTP without TLS for this registry (loopback addresses need no telling)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub plain_http: Vec<String>,
    /// Trust the certificate authorities in this PEM file as well
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Print what was pushed as JSON
    #[arg(long)]
    pub json: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PushKind {
    /// An image with `/disk/disk.qcow2`, for KubeVirt's containerDisk
    ContainerDisk,
    /// An image with `/boot/kernel` and `/boot/initrd`, for KubeVirt's kernelBoot
    KernelBoot,
    /// The same with annotations for urunc
    Urunc,
    /// The disk as an OCI artifact, as qcow2
    Disk,
}

#[derive(Debug, Args)]
pub struct TemplateArgs {
    /// What it is for: qemu, systemd, firecracker, cloud-hypervisor, libvirt, kubevirt, nomad, proxmox,
    /// terraform-aws, terraform-google, terraform-azure
    #[arg(value_parser = target)]
    pub target: Target,
    /// Disk image
    pub file: PathBuf,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name of the machine [default: that of the file]
    #[arg(long)]
    pub name: Option<String>,
    /// Memory, such as 64m or 1g
    #[arg(short, long, value_name = "SIZE", default_value = "256m", value_parser = size::memory)]
    pub memory: u32,
    /// Processors
    #[arg(long, value_name = "N", default_value = "1", value_parser = size::cpus)]
    pub cpus: u32,
    /// Port to open [default: what the image exposes, ports below 1024 as 8000 and more on the host]
    #[arg(short, long, value_name = "[HOST:]GUEST[/PROTO]", value_parser = publish)]
    pub publish: Vec<Published>,
    /// Directory that `dock2uni image boot-files` made
    #[arg(long, value_name = "DIR")]
    pub boot_files: Option<PathBuf>,
    /// Where `dock2uni push` brought the image
    #[arg(long, value_name = "REFERENCE")]
    pub reference: Option<String>,
    /// Network device of the host
    #[arg(long, value_name = "NAME", default_value = "tap0")]
    pub tap: String,
    /// Network of libvirt
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub network: String,
    /// Boot by UEFI where there is a choice
    #[arg(long)]
    pub uefi: bool,
}

fn target(text: &str) -> Result<Target, String> {
    text.parse()
}

#[derive(Debug, Args)]
pub struct SystemArgs {
    #[command(subcommand)]
    pub command: SystemCommand,
}

#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// Show what the store takes
    Df {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what can be had again: converted images, broken downloads, layers without a reference,
    /// results of build steps
    Prune {
        /// Layers of known references and caches of RUN --mount=type=cache, too
        #[arg(long)]
        all: bool,
        /// Only what was written so long ago, such as 30m, 12h or 7d
        #[arg(long, value_name = "AGE", default_value = "1h", value_parser = age)]
        older_than: Age,
        /// Say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A time span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub Duration);

fn age(text: &str) -> Result<Age, String> {
    const HELP: &str = "write a number with `s`, `m`, `h` or `d` after it, such as 12h";
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        Some(b'd') => (&text[..text.len() - 1], 86400),
        _ => (text, 1),
    };
    let count: u64 = digits.parse().map_err(|_| HELP.to_owned())?;
    let seconds = count.checked_mul(unit).ok_or_else(|| HELP.to_owned())?;
    Ok(Age(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_units() {
        for (text, seconds) in [("0", 0), ("90", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(age(text), Ok(Age(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "h", "-1h", "1w", "99999999999999999999d"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
