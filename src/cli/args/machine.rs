//! The machine that an image runs on.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::size;
use crate::vmm;

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
