//! Interface requests of ioctl(2) (netdevice(7)).

use crate::errno::{Errno, Result};
use crate::io::{get_user, get_user_slice, put_user, put_user_slice};
use crate::net::addr::{Address, Cidr, IpAddr, Ipv4Addr, SocketAddr};
use crate::net::stack::Stack;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCSIFFLAGS: u32 = 0x8914;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCSIFADDR: u32 = 0x8916;
const SIOCGIFDSTADDR: u32 = 0x8917;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCSIFNETMASK: u32 = 0x891c;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCSIFMTU: u32 = 0x8922;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;

/// `sizeof(struct ifreq)`.
const SIZE: usize = 40;
const NAME: usize = 16;

/// `IFF_UP | IFF_BROADCAST | IFF_RUNNING | IFF_MULTICAST`.
pub const ETHERNET_FLAGS: u32 = 0x1043;
/// `IFF_UP | IFF_LOOPBACK | IFF_RUNNING`.
pub const LOOPBACK_FLAGS: u32 = 0x49;
/// Flags that can be asked to change (netdevice(7)); others say what the device does: `IFF_UP`,
/// `IFF_DEBUG`, `IFF_NOARP`, `IFF_PROMISC`, `IFF_ALLMULTI`, `IFF_MULTICAST`.
pub const CHANGEABLE: u32 = 0x1 | 0x4 | 0x80 | 0x100 | 0x200 | 0x1000;
/// MTU of loopback, as Linux has it.
pub const LOOPBACK_MTU: u32 = 65536;

/// One interface as applications see it.
pub struct Interface {
    /// Number, from 1.
    pub index: u32,
    /// Name.
    pub name: &'static str,
    /// `IFF_*`.
    pub flags: u32,
    /// Largest IP packet.
    pub mtu: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Addresses.
    pub addresses: Vec<Cidr>,
    /// Queues of each direction.
    pub queues: u32,
    /// What went through it: bytes and packets received, bytes and packets sent.
    pub counters: [u64; 4],
}

/// The interfaces of a stack: `lo`, and `eth0` if there is a device.
pub fn interfaces(stack: &Stack) -> Vec<Interface> {
    let stats = &stack.stats;
    let load = |counter: &AtomicU64| counter.load(Relaxed);
    let (bytes, packets) = (load(&stats.lo_bytes), load(&stats.lo_packets));
    let mut all = alloc::vec![Interface {
        queues: 1,
        counters: [bytes, packets, bytes, packets],
        index: 1,
        name: "lo",
        flags: LOOPBACK_FLAGS,
        mtu: LOOPBACK_MTU,
        mac: [0; 6],
        addresses: alloc::vec![
            Cidr { addr: Ipv4Addr::LOCALHOST.into(), prefix: 8 },
            Cidr { addr: core::net::Ipv6Addr::LOCALHOST.into(), prefix: 128 },
        ],
    }];
    if let Some(device) = stack.device() {
        all.push(Interface {
            index: 2,
            name: "eth0",
            flags: ETHERNET_FLAGS,
            mtu: stack.mtu() as u32,
            mac: device.mac(),
            addresses: stack.config().addresses,
            queues: device.queues() as u32,
            counters: [&stats.rx_bytes, &stats.rx_packets, &stats.tx_bytes, &stats.tx_packets]
                .map(load),
        });
    }
    all
}

fn v4(interface: &Interface) -> Option<&Cidr> {
    interface.addresses.iter().find(|cidr| cidr.addr.is_ipv4())
}

fn sockaddr(addr: IpAddr) -> [u8; 16] {
    let mut out = [0; 16];
    let raw = Address::Inet(SocketAddr::new(addr, 0)).emit();
    let len = raw.len().min(16);
    out[..len].copy_from_slice(&raw[..len]);
    out
}

/// Answers one request. ENOTTY if it isn't an interface request, EPERM for those that would change
/// something: scripts make sure that `lo` is up.
pub fn ioctl(request: u32, arg: usize) -> Result<usize> {
    let interfaces = interfaces(crate::net::stack());
    if request == SIOCGIFCONF {
        return configuration(&interfaces, arg);
    }
    if !(SIOCGIFNAME..=0x8999).contains(&request) {
        return Err(Errno::ENOTTY);
    }
    let mut raw = [0u8; SIZE];
    get_user_slice(arg, &mut raw)?;
    let index = u32::from_ne_bytes([raw[16], raw[17], raw[18], raw[19]]);
    let name = raw[..NAME].split(|&byte| byte == 0).next().unwrap_or_default();
    let found = match request {
        SIOCGIFNAME => interfaces.iter().find(|interface| interface.index == index),
        _ => interfaces.iter().find(|interface| interface.name.as_bytes() == name),
    };
    let interface = found.ok_or(Errno::ENODEV)?;
    if request == SIOCGIFNAME {
        let name = interface.name.as_bytes();
        raw[..NAME].fill(0);
        raw[..name.len()].copy_from_slice(name);
        put_user_slice(arg, &raw)?;
        return Ok(0);
    }
    if let SIOCSIFFLAGS | SIOCSIFADDR | SIOCSIFNETMASK | SIOCSIFMTU = request {
        // Each stands behind the one that asks for the same.
        let present = value(interface, request - 1)?;
        let wanted = &raw[NAME..];
        let same = match request {
            SIOCSIFFLAGS => {
                let flags = u32::from(u16::from_ne_bytes([wanted[0], wanted[1]]));
                (flags ^ interface.flags) & CHANGEABLE == 0
            }
            SIOCSIFMTU => wanted[..4] == present[..4],
            // The family and the address behind the port.
            _ => wanted[..2] == present[..2] && wanted[4..8] == present[4..8],
        };
        return if same { Ok(0) } else { Err(Errno::EPERM) };
    }
    put_user_slice(arg + NAME, &value(interface, request)?)?;
    Ok(0)
}

/// What an interface has, behind the name in a `struct ifreq`. EPERM for what it can't be asked.
fn value(interface: &Interface, request: u32) -> Result<[u8; 16]> {
    let mut value = [0u8; 16];
    let mut int = |number: u32| value[..4].copy_from_slice(&number.to_ne_bytes());
    match request {
        SIOCGIFFLAGS => value[..2].copy_from_slice(&(interface.flags as u16).to_ne_bytes()),
        SIOCGIFINDEX => int(interface.index),
        SIOCGIFMTU => int(interface.mtu),
        SIOCGIFMETRIC => int(0),
        SIOCGIFTXQLEN => int(1000),
        SIOCGIFHWADDR => {
            // ARPHRD_ETHER or ARPHRD_LOOPBACK.
            let kind: u16 = if interface.index == 1 { 772 } else { 1 };
            value[..2].copy_from_slice(&kind.to_ne_bytes());
            value[2..8].copy_from_slice(&interface.mac);
        }
        SIOCGIFADDR | SIOCGIFDSTADDR | SIOCGIFBRDADDR | SIOCGIFNETMASK => {
            let cidr = v4(interface).ok_or(Errno::EADDRNOTAVAIL)?;
            let mask = u32::MAX.checked_shl(32 - u32::from(cidr.prefix)).unwrap_or(0);
            value = sockaddr(match request {
                SIOCGIFNETMASK => Ipv4Addr::from_bits(mask).into(),
                SIOCGIFBRDADDR => cidr.broadcast().unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
                _ => cidr.addr,
            });
        }
        _ => return Err(Errno::EPERM),
    }
    Ok(value)
}

fn configuration(interfaces: &[Interface], arg: usize) -> Result<usize> {
    let room: i32 = get_user(arg)?;
    let buffer: usize = get_user(arg + 8)?;
    let mut out = Vec::new();
    for interface in interfaces {
        let Some(cidr) = v4(interface) else { continue };
        let mut raw = [0u8; SIZE];
        raw[..interface.name.len()].copy_from_slice(interface.name.as_bytes());
        raw[NAME..NAME + 16].copy_from_slice(&sockaddr(cidr.addr));
        out.extend(raw);
    }
    if buffer != 0 {
        out.truncate(room.max(0) as usize / SIZE * SIZE);
        put_user_slice(buffer, &out)?;
    }
    put_user(arg, &(out.len() as i32))?;
    Ok(0)
}
