//! Starts a VM, keeps it company, and ends it.
//!
//! [`arguments`] is a pure function from a [`Config`] to QEMU's command line; [`run`] starts that
//! command, carries the console, watches the status channel (see `dock2uni_format::status`), turns
//! SIGINT and SIGTERM into the power button, and reports how the application ended. [`accel`]
//! chooses KVM where it really works.

pub mod accel;
pub mod arguments;
mod error;
pub mod firmware;
pub mod ports;
mod probe;
pub mod qemu;
pub mod run;
pub mod tap;
mod terminal;
mod usernet;

use std::path::PathBuf;
use std::time::Duration;

use dock2uni_format::record::Net;
use serde::{Deserialize, Serialize};

pub use error::Error;
pub use firmware::Firmware;
pub use tap::Tap;

/// Memory that the kernel takes, and what an application needs at the very least.
const KERNEL_MIB: u64 = 8;

/// QEMU machine type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Machine {
    /// A PC with PCI Express; boots from disk as well.
    #[default]
    Q35,
    /// No firmware tables to speak of, virtio over MMIO: starts fastest.
    Microvm,
}

impl Machine {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Machine::Q35 => "q35",
            Machine::Microvm => "microvm",
        }
    }
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accel {
    /// The processor, by `/dev/kvm`.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// What a machine's network card is plugged into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Attachment {
    /// QEMU's user network, which forwards ports.
    #[default]
    User,
    /// A link of the caller's ([`run::Hooks::link`]), with the machine's Ethernet address on it.
    Link([u8; 6]),
    /// A tap device of the host.
    Tap(Tap),
}

/// How the kernel gets into the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// Kernel loaded by QEMU; `module` is the boot record alone, the root is on `disk`.
    Direct {
        /// Kernel ELF.
        kernel: PathBuf,
        /// Container with the record.
        module: PathBuf,
        /// Disk image, or bare root image.
        disk: Drive,
    },
    /// Kernel loaded by QEMU; `module` holds root and record and stays in the guest's memory.
    Ram {
        /// Kernel ELF.
        kernel: PathBuf,
        /// Container with root and record.
        module: PathBuf,
    },
    /// Everything from the disk, by the firmware.
    Disk {
        /// Disk image.
        disk: Drive,
        /// UEFI; a BIOS if `None`.
        firmware: Option<Firmware>,
    },
}

/// A file that QEMU shows the machine as a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// The file.
    pub file: PathBuf,
    /// QEMU's name for how it holds the disk.
    pub format: &'static str,
    /// A CD in a SATA drive rather than a virtio disk.
    pub cd: bool,
}

/// One forwarded port; what [`ports::assign`] makes of a `--publish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Address on the host.
    pub ip: std::net::Ipv4Addr,
    /// Port on the host.
    pub host: u16,
    /// Port in the guest.
    pub guest: u16,
    /// UDP rather than TCP.
    pub udp: bool,
}

/// A disk besides the image's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Raw image.
    pub path: PathBuf,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// A directory that the guest sees by virtio-9p.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The directory.
    pub path: PathBuf,
    /// Name of the device in the guest.
    pub tag: String,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// A machine to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Path of `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// Machine type.
    pub machine: Machine,
    /// Accelerator.
    pub accel: Accel,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Number of processors.
    pub cpus: u32,
    /// What to boot.
    pub boot: Boot,
    /// Volumes.
    pub volumes: Vec<Disk>,
    /// Directories shared with the guest.
    pub shares: Vec<Share>,
    /// What the boot record says of the network.
    pub net: Net,
    /// Ports reachable from outside.
    pub forwards: Vec<Forward>,
    /// What the network card is plugged into.
    pub attachment: Attachment,
    /// For programs of strangers: nothing but the forwarded ports leads in or out of QEMU's user
    /// network, and QEMU starts no programs and takes no rights.
    pub confined: bool,
    /// Words for the kernel's command line.
    pub kernel_args: Vec<String>,
    /// Pass standard input on to the console.
    pub interactive: bool,
    /// The console is a terminal: standard input is switched to raw mode.
    pub tty: bool,
    /// How long the application may take to stop before the machine is switched off.
    pub grace: Duration,
    /// A command that is run as `launcher... qemu arguments...`; used to tie QEMU's life to ours.
    pub launcher: Vec<PathBuf>,
}

impl Config {
    /// Refuses what no machine can do.
    ///
    /// # Errors
    /// Names the options that exclude each other.
    pub fn check(&self) -> Result<(), Error> {
        if self.machine == Machine::Microvm && matches!(self.boot, Boot::Disk { .. }) {
            return Err(Error::MicrovmDisk);
        }
        if !self.kernel_args.is_empty() && matches!(self.boot, Boot::Disk { .. }) {
            return Err(Error::DiskArguments);
        }
        match &self.attachment {
            Attachment::User => usernet::check(&self.net, &self.forwards)?,
            Attachment::Link(_) | Attachment::Tap(_) if self.forwards.is_empty() => {}
            Attachment::Link(_) | Attachment::Tap(_) => return Err(Error::ForwardsPastUserNetwork),
        }
        if self.tty && self.interactive && !terminal::is_input() {
            return Err(Error::NotATerminal);
        }
        if let Boot::Ram { module, .. } = &self.boot
            && let Ok(meta) = std::fs::metadata(module)
        {
            let need = meta.len().div_ceil(1 << 20) + KERNEL_MIB;
            if need > self.memory_mib.into() {
                return Err(Error::Memory { need, have: self.memory_mib });
            }
        }
        Ok(())
    }
}
