//! /proc/net.

use crate::errno::Result;
use crate::fs::pseudo::{Dir, Entry, Key, Kind, Text, entry};
use crate::net::addr::UnixName;
use crate::net::owner::Owner;
use crate::net::socket::ifreq::interfaces;
use crate::net::stack;
use crate::net::unix::Report;
use crate::say;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::net::{SOCK_DGRAM, SOCK_RAW};

const fn text(name: &'static str, text: &'static str) -> Entry {
    entry(name, Kind::Const(text))
}

pub static NET: Dir = Dir::fixed(&[
    entry("arp", Kind::Text(arp)),
    entry("dev", Kind::Text(dev)),
    entry("if_inet6", Kind::Text(if_inet6)),
    text("ipv6_route", ""),
    text(
        "netlink",
        "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    \
        Drops    Inode\n",
    ),
    entry("packet", Kind::Text(packet)),
    text("protocols", "protocol  size sockets  memory press maxhdr  slab module\n"),
    entry("raw", Kind::Text(|_, out| Ok(raw(out, false)))),
    entry("raw6", Kind::Text(|_, out| Ok(raw(out, true)))),
    entry("route", Kind::Text(route)),
    entry("snmp", Kind::Text(snmp)),
    entry("sockstat", Kind::Text(sockstat)),
    entry("softnet_stat", Kind::Text(softnet_stat)),
    entry("tcp", Kind::Text(|_, out| Ok(tcp(out, false)))),
    entry("tcp6", Kind::Text(|_, out| Ok(tcp(out, true)))),
    entry("udp", Kind::Text(|_, out| Ok(udp(out, false, false)))),
    entry("udp6", Kind::Text(|_, out| Ok(udp(out, true, false)))),
    entry("udplite", Kind::Text(|_, out| Ok(udp(out, false, true)))),
    entry("udplite6", Kind::Text(|_, out| Ok(udp(out, true, true)))),
    entry("unix", Kind::Text(unix)),
]);

const TITLE4: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
    uid  timeout inode\n";
const TITLE6: &str = "  sl  local_address                         remote_address                        \
    st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// An address as the kernel prints it: words of the machine's byte order in hexadecimal.
fn address(out: &mut Text, address: SocketAddr, v6: bool) {
    let ip = match (address.ip(), v6) {
        (IpAddr::V4(ip), true) => IpAddr::V6(ip.to_ipv6_mapped()),
        (ip, _) => ip,
    };
    match ip {
        IpAddr::V4(ip) => say!(out, "{:08X}", u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => {
            for word in ip.octets().chunks_exact(4) {
                let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
                say!(out, "{word:08X}");
            }
        }
    }
    say!(out, ":{:04X}", address.port());
}

/// The address of nobody, of a family.
fn nobody(v6: bool) -> SocketAddr {
    let ip: IpAddr = if v6 {
        core::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        core::net::Ipv4Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(ip, 0)
}

/// One line: addresses, state number, queues, whose it is.
fn line(
    out: &mut Text,
    number: usize,
    v6: bool,
    ends: (SocketAddr, SocketAddr),
    (state, queues): (u8, (usize, usize)),
    owner: &Owner,
) {
    say!(out, "{number:4}: ");
    address(out, ends.0, v6);
    say!(out, " ");
    address(out, ends.1, v6);
    let (send, receive) = queues;
    say!(
        out,
        " {state:02X} {send:08X}:{receive:08X} 00:00000000 00000000 {:5}        0 {} 1 \
        0000000000000000 100 0 0 10 0\n",
        owner.uid(),
        owner.ino()
    );
}

fn tcp(out: &mut Text, v6: bool) {
    out.bytes(if v6 { TITLE6 } else { TITLE4 }.as_bytes());
    let mut number = 0;
    for listener in stack().tcp.listeners() {
        if listener.local.is_ipv6() != v6 {
            continue;
        }
        const LISTEN: u8 = 10;
        let (waiting, _) = listener.lengths();
        let ends = (listener.local, nobody(v6));
        line(out, number, v6, ends, (LISTEN, (0, waiting)), &listener.owner);
        number += 1;
    }
    for conn in stack().tcp.snapshot() {
        if conn.local.is_ipv6() != v6 {
            continue;
        }
        let inner = conn.lock();
        let state = inner.state() as u8;
        let queues = (inner.queued(), inner.readable());
        drop(inner);
        line(out, number, v6, (conn.local, conn.remote), (state, queues), &conn.owner);
        number += 1;
    }
}

fn udp(out: &mut Text, v6: bool, lite: bool) {
    out.bytes(if v6 { TITLE6 } else { TITLE4 }.as_bytes());
    for (number, endpoint) in stack().datagrams(lite).0.snapshot().iter().enumerate() {
        let (local, peer, waiting, _) = endpoint.describe();
        if local.is_ipv6() != v6 {
            continue;
        }
        let state = if peer.is_some() { 1 } else { 7 };
        let ends = (local, peer.unwrap_or_else(|| nobody(v6)));
        line(out, number, v6, ends, (state, (0, waiting)), &endpoint.owner);
    }
}

fn raw(out: &mut Text, v6: bool) {
    out.bytes(if v6 { TITLE6 } else { TITLE4 }.as_bytes());
    for (number, endpoint) in stack().raw.those(|endpoint| endpoint.v6 == v6).iter().enumerate() {
        let (local, peer) = endpoint.addresses();
        // The protocol stands for the port.
        let end =
            |ip: Option<IpAddr>, port| SocketAddr::new(ip.unwrap_or_else(|| nobody(v6).ip()), port);
        let ends = (end(local, endpoint.protocol.into()), end(peer, 0));
        let state = if peer.is_some() { 1 } else { 7 };
        line(out, number, v6, ends, (state, (0, endpoint.waiting())), &endpoint.owner);
    }
}

fn packet(_key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n");
    for tap in stack().taps.those(|_| true) {
        let ((cooked, waiting), owner) = (tap.describe(), &tap.owner);
        let kind = if cooked { SOCK_DGRAM } else { SOCK_RAW };
        let protocol = tap.protocol();
        say!(out, "0000000000000000 3      {kind:<4} {protocol:04x}   0     1 {waiting:<6} ");
        say!(out, "{:<6} {:<6}\n", owner.uid(), owner.ino());
    }
    Ok(())
}

fn unix(_key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "Num       RefCount Protocol Flags    Type St Inode Path\n");
    for Report { name, kind, listening, peer, owner: (ino, _), .. } in crate::net::unix::reports() {
        // SO_ACCEPTCON; SS_UNCONNECTED and SS_CONNECTED.
        let flags = if listening.is_some() { 0x10000 } else { 0 };
        let state = if peer.is_some() { 3 } else { 1 };
        say!(out, "0000000000000000: 00000002 00000000 {flags:08X} {kind:04} {state:02} {ino:5}");
        match name {
            UnixName::Unnamed => {}
            UnixName::Path(path) => {
                say!(out, " ");
                out.bytes(&path);
            }
            UnixName::Abstract(name) => {
                // As far as it can be shown.
                say!(out, " @");
                let shown = |byte: &u8| if *byte == 0 { b'@' } else { *byte };
                out.bytes(&name.iter().map(shown).collect::<Vec<u8>>());
            }
        }
        say!(out, "\n");
    }
    Ok(())
}

fn dev(_key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "Inter-|   Receive                                                |  Transmit\n");
    say!(
        out,
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets \
        errs drop fifo colls carrier compressed\n"
    );
    for one in interfaces(stack()) {
        let [rx_bytes, rx_packets, tx_bytes, tx_packets] = one.counters;
        say!(
            out,
            "{:>6}: {rx_bytes:7} {rx_packets:7}    0    0    0     0          0         0 ",
            one.name
        );
        say!(out, "{tx_bytes:8} {tx_packets:7}    0    0    0     0       0          0\n");
    }
    Ok(())
}

/// Packets that each processor took in: they are not told apart, so the first one has them all.
fn softnet_stat(_key: &Key, out: &mut Text) -> Result<()> {
    let taken: u64 = interfaces(stack()).iter().map(|one| one.counters[1]).sum();
    for cpu in 0..crate::arch::cpu::count() {
        let taken = if cpu == 0 { taken as u32 } else { 0 };
        say!(out, "{taken:08x}");
        for _ in 0..11 {
            say!(out, " 00000000");
        }
        say!(out, " {cpu:08x}\n");
    }
    Ok(())
}

fn if_inet6(_key: &Key, out: &mut Text) -> Result<()> {
    for interface in interfaces(stack()) {
        for cidr in &interface.addresses {
            let IpAddr::V6(ip) = cidr.addr else { continue };
            for byte in ip.octets() {
                say!(out, "{byte:02x}");
            }
            // Scope: host, link or global; the address is permanent.
            let scope = if ip.is_loopback() {
                0x10
            } else if ip.is_unicast_link_local() {
                0x20
            } else {
                0
            };
            let (index, prefix, name) = (interface.index, cidr.prefix, interface.name);
            say!(out, " {index:02x} {prefix:02x} {scope:02x} 80 {name:>8}\n");
        }
    }
    Ok(())
}

fn route(_key: &Key, out: &mut Text) -> Result<()> {
    say!(
        out,
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    );
    let config = stack().config();
    let hex = |ip: core::net::Ipv4Addr| u32::from_ne_bytes(ip.octets());
    if let Some(gateway) = config.gateway4 {
        // RTF_UP, RTF_GATEWAY
        say!(out, "eth0\t00000000\t{:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", hex(gateway));
    }
    for interface in interfaces(stack()).iter().filter(|interface| interface.name != "lo") {
        for cidr in &interface.addresses {
            let IpAddr::V4(network) = cidr.network() else { continue };
            let mask = u32::MAX.checked_shl(32 - u32::from(cidr.prefix)).unwrap_or(0);
            let (name, network) = (interface.name, hex(network));
            let mask = hex(core::net::Ipv4Addr::from_bits(mask));
            say!(out, "{name}\t{network:08X}\t00000000\t0001\t0\t0\t0\t{mask:08X}\t0\t0\t0\n");
        }
    }
    Ok(())
}

fn arp(_key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "IP address       HW type     Flags       HW address            Mask     Device\n");
    let known = stack().neighbors.lock().known();
    for (ip, [a, b, c, d, e, f]) in known {
        if ip.is_ipv4() {
            say!(out, "{ip:<16} 0x1         0x2         ");
            say!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}     *        eth0\n");
        }
    }
    Ok(())
}

fn sockstat(_key: &Key, out: &mut Text) -> Result<()> {
    let tcp = stack().tcp.connections() + stack().tcp.listeners().len();
    let udp = stack().udp.snapshot().len();
    let lite = stack().udplite.snapshot().len();
    say!(out, "sockets: used {}\n", tcp + udp + lite);
    say!(out, "TCP: inuse {tcp} orphan 0 tw 0 alloc {tcp} mem 0\nUDP: inuse {udp} mem 0\n");
    say!(out, "UDPLITE: inuse {lite}\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n");
    Ok(())
}

fn snmp(_key: &Key, out: &mut Text) -> Result<()> {
    let stats = &stack().stats;
    let received = stats.rx_packets.load(Relaxed) + stats.lo_packets.load(Relaxed);
    let sent = stats.tx_packets.load(Relaxed) + stats.lo_packets.load(Relaxed);
    say!(out, "Ip: Forwarding DefaultTTL InReceives InHdrErrors InDiscards OutRequests\n");
    say!(out, "Ip: 2 64 {received} {} 0 {sent}\n", stats.rx_dropped.load(Relaxed));
    say!(out, "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn CurrEstab\n");
    say!(out, "Tcp: 1 1000 60000 -1 {}\n", stack().tcp.connections());
    Ok(())
}
