//! The network.
//!
//! ```text
//! sockets   socket/ (calls, options)  unix/  netlink/
//! protocols tcp/  udp  raw  icmp  nd  groups  fragment  dhcp  dhcp6
//! edge      edge (Ethernet, ARP)  stack (routes, loopback, timers)
//! drivers   drivers::virtio::net
//! ```
//!
//! Work happens in the `Net` softirq or in the calling task, under `SpinLock`s.

pub mod addr;
pub mod checksum;
pub mod dhcp;
pub mod dhcp6;
pub mod edge;
pub mod errors;
pub mod filter;
pub mod fragment;
pub mod groups;
pub mod hearers;
pub mod icmp;
pub mod ip;
pub mod nd;
pub mod netlink;
pub mod owner;
pub mod packet;
pub mod ports;
pub mod raw;
pub mod report;
#[cfg(guest)]
pub mod selftest;
pub mod settings;
pub mod socket;
pub mod stack;
pub mod tap;
pub mod tcp;
pub mod udp;
pub mod unix;

#[cfg(test)]
mod link_tests;
#[cfg(test)]
mod tests;

use crate::sync::{Once, softirq};
use crate::time::{Timer, TimerTarget};
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::{Display, Write};
use stack::Stack;

static STACK: Once<Arc<Stack>> = Once::new();
static TIMER: Once<Timer> = Once::new();

/// The kernel's stack; made on first use.
pub fn stack() -> &'static Arc<Stack> {
    STACK.get_or_init(|| Stack::new(seed()))
}

#[cfg(guest)]
fn seed() -> u64 {
    let seed = crate::arch::random::seed();
    let word = |at: usize| {
        seed[at..at + 8].iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte))
    };
    word(0) ^ word(8).rotate_left(16) ^ word(16).rotate_left(32) ^ word(24).rotate_left(48)
}

#[cfg(not(guest))]
fn seed() -> u64 {
    crate::arch::clock::cycles() ^ crate::arch::clock::boot_epoch_ns()
}

struct Expiry;

impl TimerTarget for Expiry {
    fn expired(&self) {
        softirq::raise(softirq::Kind::Net);
    }
}

/// Starts the stack: from now on softirqs and timers drive it. Needs clocks and interrupts.
pub fn init() {
    softirq::register(softirq::Kind::Net, || stack().run());
    TIMER.get_or_init(|| Timer::new(Arc::new(Expiry)));
    stack().go_live();
    stack().raise();
}

/// Asks for a softirq at `deadline` (monotonic nanoseconds).
fn arm_timer(deadline: u64) {
    if let Some(timer) = TIMER.get() {
        timer.arm(deadline);
    }
}

/// Gives the first interface its addresses, as the boot record says. DHCP only starts here:
/// [`wait_configured`].
pub fn configure(net: &dock2uni_format::record::Net, hostname: &str) {
    use dock2uni_format::record::{V4, V6};
    let stack = stack();
    stack.configure(|config| {
        config.dns = net.dns.iter().filter_map(|server| server.parse().ok()).collect();
        config.dns_fixed = !config.dns.is_empty();
        config.search = net.search.clone();
    });
    if stack.device().is_none() {
        return;
    }
    stack.configure(|config| {
        if let V4::Static { addr, prefix, gateway } = &net.v4 {
            let cidr = addr::Cidr { addr: addr::IpAddr::from(*addr), prefix: (*prefix).min(32) };
            config.addresses.insert(0, cidr);
            config.gateway4 = gateway.map(addr::Ipv4Addr::from);
        }
        if let V6::Static { addr, prefix, gateway } = &net.v6 {
            let cidr = addr::Cidr { addr: addr::IpAddr::from(*addr), prefix: (*prefix).min(128) };
            config.addresses.push(cidr);
            config.gateway6 = gateway.map(addr::Ipv6Addr::from);
            config.fixed6 = gateway.is_some();
        }
    });
    if net.v4 == V4::Dhcp {
        dhcp::start(stack, hostname);
    }
    if net.v6 != V6::None {
        nd::start(stack);
    }
}

/// Waits until there is an IPv4 address, or until `timeout` nanoseconds have passed; returns at
/// once if none is expected. Returns whether there is one. Task context.
pub fn wait_configured(net: &dock2uni_format::record::Net, timeout: u64) -> bool {
    use crate::sync::WaitMode;
    let stack = stack();
    let expected = net.v4 != dock2uni_format::record::V4::None && stack.device().is_some();
    let have = || stack.config().addresses.iter().any(|cidr| cidr.addr.is_ipv4()).then_some(());
    if !expected {
        return have().is_some();
    }
    let deadline = crate::time::now_ns().saturating_add(timeout);
    stack.configured.wait(WaitMode::Uninterruptible, Some(deadline), have).is_ok()
}

/// Text for /etc/resolv.conf, by what the network is configured to.
pub fn resolv_conf() -> String {
    let config = stack().config();
    resolv_conf_of(&config.dns, &config.search)
}

/// Text for /etc/resolv.conf, of these servers and domains.
pub fn resolv_conf_of(servers: &[impl Display], search: &[String]) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}
