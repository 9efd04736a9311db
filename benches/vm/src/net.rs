//! How the client reaches the guest.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::vm::sh;

/// The guest's address, as QEMU's user network gives it.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The host's.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Tells the program that it is in a network of its own.
const INSIDE: &str = "BENCH_VM_INSIDE";
/// The tap device there.
const DEVICE: &str = "guest0";

/// A network between this machine and a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// QEMU's user network, which forwards a port.
    #[default]
    User,
    /// A tap device in a network namespace of the benchmark's own.
    Tap,
}

impl Network {
    /// By its name on the command line.
    pub fn parse(name: &str) -> Result<Network, String> {
        match name {
            "user" => Ok(Network::User),
            "tap" => Ok(Network::Tap),
            _ => Err(format!("network `{name}` is not user or tap")),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Network::User => "user",
            Network::Tap => "tap",
        }
    }

    /// Where a guest's port is reached, and QEMU's `-netdev`.
    pub fn attach(self, port: u16) -> Result<(SocketAddr, String), String> {
        match self {
            Network::User => {
                let here = TcpListener::bind("127.0.0.1:0")
                    .and_then(|listener| listener.local_addr())
                    .map_err(|error| format!("no free port: {error}"))?;
                Ok((here, format!("user,id=net,hostfwd=tcp:{here}-:{port}")))
            }
            Network::Tap => {
                let device = format!("tap,id=net,ifname={DEVICE},script=no,downscript=no");
                Ok((SocketAddr::from((GUEST, port)), device))
            }
        }
    }

    /// Waits until the guest accepts connections. QEMU's user network does so itself, before the
    /// guest can.
    pub fn wait_for(self, address: SocketAddr, limit: Duration) -> Result<(), String> {
        if self != Network::Tap {
            return Ok(());
        }
        let start = Instant::now();
        loop {
            match TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > limit => return Err(format!("{address}: {error}")),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

/// Whether this process is in a network of its own already.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Starts this program anew in a network namespace of its own, as root.
pub fn enter() -> String {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(program).args(std::env::args_os().skip(1));
    let error = command.env(INSIDE, "1").exec();
    format!("unshare: {error}")
}

/// Makes the tap device there, and switches loopback on.
pub fn set_up() -> Result<(), String> {
    let host = format!("{HOST}/24");
    for words in [
        &["link", "set", "lo", "up"][..],
        &["tuntap", "add", "dev", DEVICE, "mode", "tap"],
        &["address", "add", &host, "dev", DEVICE],
        &["link", "set", DEVICE, "up"],
    ] {
        sh(Command::new("ip").args(words))?;
    }
    Ok(())
}
