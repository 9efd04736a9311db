//! The private network of a fleet: one Ethernet segment in this process.
//!
//! ```text
//! VM ── stream socket ──┐
//! VM ── stream socket ──┤ switch ── stream socket ── gateway (QEMU's user network, for all of them)
//! VM ── stream socket ──┘   └ dns
//! ```
//!
//! No rights are needed for any of it. The addresses are those that a single VM of `run` has, so
//! 10.0.2.2 is the way out and 10.0.2.3 answers for names: those of the fleet are answered by
//! [`dns`] on their way to the gateway, which passes the others on to this machine's resolver. So are
//! packets for services whose ports are not those of their machines, by [`translate`].

pub mod dns;
mod frame;
pub mod gateway;
pub mod switch;
pub mod translate;

use std::net::Ipv4Addr;

/// Prefix length of the segment.
pub const PREFIX: u8 = 24;
/// The way out, and this machine as VMs see it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Answers for names.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Addresses of VMs, by number.
const FIRST: u8 = 15;
/// Most VMs that fit.
pub const MAX_MACHINES: usize = 240;

/// Address of the VM with this number, below [`MAX_MACHINES`].
pub fn address(number: usize) -> Ipv4Addr {
    // 15 + 239 is the last one before the broadcast address.
    Ipv4Addr::new(10, 0, 2, FIRST.saturating_add(number as u8))
}

/// Ethernet address that goes with an address; in QEMU's own range.
pub fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x52, 0x54, a, b, c, d]
}
