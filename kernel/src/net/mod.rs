//! The network.
//!
//! ```text
//! sockets   socket/ (calls, options)  unix/  netlink/
//! protocols tcp/ (smoltcp behind our demultiplexer)  udp  raw  icmp  nd  dhcp
//! edge      edge (Ethernet, ARP)  stack (routes, loopback, timers)
//! drivers   drivers::virtio::net
//! ```
//!
//! Work happens in the `Net` softirq or in the calling task, under `SpinLock`s.

pub mod addr;
pub mod checksum;
pub mod dhcp;
pub mod edge;
pub mod icmp;
pub mod ip;
pub mod nd;
pub mod netlink;
pub mod packet;
pub mod ports;
pub mod raw;
pub mod socket;
pub mod stack;
pub mod tcp;
pub mod udp;
pub mod unix;

#[cfg(test)]
mod tests;

use crate::sync::{Once, softirq};
use alloc::sync::Arc;
use stack::Stack;

static STACK: Once<Arc<Stack>> = Once::new();

/// The kernel's stack; made on first use.
pub fn stack() -> &'static Arc<Stack> {
    STACK.get_or_init(|| {
        let seed = crate::arch::clock::cycles() ^ crate::arch::clock::boot_epoch_ns();
        Stack::new(seed)
    })
}

/// Starts the stack: from now on softirqs drive it.
pub fn init() {
    softirq::register(softirq::Kind::Net, || stack().run());
    stack().go_live();
}

/// Asks for a softirq at `deadline` (monotonic nanoseconds).
fn arm_timer(_deadline: u64) {}
