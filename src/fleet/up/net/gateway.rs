//! The way out: QEMU's user network for a whole segment.
//!
//! A QEMU without a machine joins its user network (libslirp) and a stream socket by a hub. It
//! translates addresses on the way out, and listens for published ports, whether or not the VMs
//! behind them run at the moment.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::vmm::{Forward, run};

/// A port of the host that leads to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Host and guest ports.
    pub forward: Forward,
    /// The VM.
    pub to: Ipv4Addr,
}

/// The command's arguments, for a descriptor that it inherits.
fn arguments(published: &[Published], descriptor: i32) -> Vec<OsString> {
    let mut user = "user,id=outside,net=10.0.2.0/24".to_owned();
    for Published { forward: Forward { ip, host, guest, udp }, to } in published {
        let proto = if *udp { "udp" } else { "tcp" };
        user.push_str(&format!(",hostfwd={proto}:{ip}:{host}-{to}:{guest}"));
    }
    let inside = format!("stream,id=inside,server=off,addr.type=fd,addr.str={descriptor}");
    [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        "none",
        "-monitor",
        "none",
        "-netdev",
        &user,
        "-netdev",
        &inside,
        "-netdev",
        "hubport,id=a,hubid=0,netdev=outside",
        "-netdev",
        "hubport,id=b,hubid=0,netdev=inside",
    ]
    .map(OsString::from)
    .to_vec()
}

/// Starts it. What it says goes to this process's standard error.
///
/// # Errors
/// If QEMU cannot be started.
pub fn start(
    launcher: &[PathBuf],
    qemu: &Path,
    published: &[Published],
    socket: OwnedFd,
) -> std::io::Result<Child> {
    let mut words: Vec<OsString> = launcher.iter().map(|word| word.clone().into()).collect();
    words.push(qemu.into());
    words.extend(arguments(published, socket.as_raw_fd()));
    let mut words = words.into_iter();
    // The program's own path is among them.
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    run::spawn_with(&mut command, vec![socket])
}
