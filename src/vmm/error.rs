//! What can go wrong around a VM.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Why a VM could not be started or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No QEMU.
    #[error("QEMU was not found: there is no `{0}` in PATH")]
    NoQemu(&'static str),
    /// No UEFI.
    #[error("no UEFI firmware for QEMU was found")]
    NoFirmware,
    /// A QEMU that does not start.
    #[error("`{}` cannot be started", path.display())]
    Qemu {
        /// What was started.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// KVM was asked for by name.
    #[error("KVM does not work here: {0}")]
    NoKvm(String),
    /// microvm has no disk firmware.
    #[error("the microvm machine cannot boot from disk")]
    MicrovmDisk,
    /// QEMU's user network has a gateway and a resolver of its own.
    #[error("a network with a prefix of {0} bits has no room for QEMU's gateway and resolver")]
    NarrowNetwork(u8),
    /// `-p` with `--network none`.
    #[error("ports are to be forwarded to a VM without a network")]
    ForwardsWithoutNetwork,
    /// `-p` with `--tap`.
    #[error("ports are forwarded by QEMU's user network only, not on a network of the host")]
    ForwardsPastUserNetwork,
    /// `--tap` with a wrong name.
    #[error("there is no network device `{0}`")]
    NoTap(String),
    /// `--tap` with the name of a card or a bridge.
    #[error("the network device `{0}` is no tap device")]
    NotATap(String),
    /// There is no command line on disk.
    #[error("a kernel that boots from disk takes no command line")]
    DiskArguments,
    /// `-it` with a pipe.
    #[error("standard input is not a terminal")]
    NotATerminal,
    /// The root filesystem alone fills the machine.
    #[error("with its root in memory the VM needs {need} MiB at least, and has {have} MiB")]
    Memory {
        /// Root and kernel, in MiB.
        need: u64,
        /// What was asked for, in MiB.
        have: u32,
    },
    /// A host port is taken.
    #[error("port {port} of {ip} cannot be listened on")]
    Port {
        /// Address.
        ip: Ipv4Addr,
        /// Port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// QEMU's user network forwards IPv4 alone.
    #[error("ports can be forwarded from IPv4 addresses only, not from {0}")]
    Ipv6(std::net::Ipv6Addr),
    /// The main process could not be started.
    #[error("the application could not be started: {0}")]
    Failed(String),
    /// The kernel panicked.
    #[error("the guest kernel panicked: {0}")]
    Panic(String),
    /// QEMU ended with an error.
    #[error("QEMU failed: {0}")]
    Exited(String),
    /// The machine stopped and nobody said why.
    #[error("the VM stopped without an exit status")]
    Silent,
    /// It would not stop.
    #[error("the application did not stop within its grace period of {0} s; the VM was ended")]
    Grace(u64),
    /// The user insisted.
    #[error("interrupted")]
    Interrupted,
    /// Pipes, threads, terminals.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { what, source }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Error::NoQemu(_) => {
                "install it (Debian: `apt install qemu-system-x86`), or name it with `--qemu`"
            }
            Error::NoFirmware => {
                "install it (Debian: `apt install ovmf`), or name it with `--firmware`"
            }
            Error::NoKvm(_) => "leave `--accel` away to have the accelerator chosen",
            Error::DiskArguments => "use `--boot direct` with `--kernel-arg`",
            Error::NotATerminal => {
                "leave `-t` away: with `-i` alone the application reads the pipe"
            }
            Error::Memory { .. } => "give it more with `-m`, or use `--boot direct`",
            Error::MicrovmDisk => "use `--machine q35` or `--boot direct`",
            Error::NarrowNetwork(_) => "give an `--ip` with a prefix of 29 bits or fewer",
            Error::ForwardsWithoutNetwork => "leave `--publish` or `--network none` away",
            Error::ForwardsPastUserNetwork => {
                "leave `--publish` away: the VM has an address of its own there"
            }
            Error::NoTap(_) | Error::NotATap(_) => {
                "make one: `ip tuntap add dev NAME mode tap multi_queue`, then `ip link set NAME up` \
                 and, if it is to be on a bridge, `ip link set NAME master BRIDGE`"
            }
            Error::Port { .. } => "choose another port with `-p HOST:GUEST`, or end its owner",
            Error::Ipv6(_) => "publish on 127.0.0.1 or leave the address away",
            Error::Panic(_) => {
                "this is a bug in dock2uni: please report it with the console's text"
            }
            Error::Silent => "`--kernel-arg trace` shows what the kernel does; is `-m` too small?",
            Error::Grace(_) => "`--stop-timeout` gives it longer",
            _ => return None,
        })
    }
}
