//! DHCP client for IPv4 (RFC 2131).

use super::addr::{Cidr, IpAddr, Ipv4Addr};
use super::checksum;
use super::edge;
use super::ip::{self, protocol};
use super::packet::Packet;
use super::stack::{Stack, Timeout};
use super::udp;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where we listen.
pub const CLIENT_PORT: u16 = 68;

const SECOND: u64 = 1_000_000_000;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BOOTP: usize = 236;

/// State of the client.
pub struct Dhcp {
    state: State,
    transaction: u32,
    tries: u32,
    hostname: String,
    /// A timer entry earlier than this is left over from an earlier state.
    due: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not in use.
    Off,
    Selecting,
    Requesting {
        server: Ipv4Addr,
        addr: Ipv4Addr,
    },
    Bound {
        server: Ipv4Addr,
        addr: Ipv4Addr,
        renew: u64,
        expire: u64,
    },
}

/// What a server says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Message {
    kind: u8,
    transaction: u32,
    addr: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    mask: Option<Ipv4Addr>,
    router: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    lease: Option<u32>,
    renewal: Option<u32>,
}

impl Dhcp {
    /// Not started.
    pub fn new() -> Dhcp {
        Dhcp { state: State::Off, transaction: 0, tries: 0, hostname: String::new(), due: 0 }
    }
}

impl Default for Dhcp {
    fn default() -> Self {
        Dhcp::new()
    }
}

/// Asks for an address, naming ourselves `hostname`.
pub fn start(stack: &Arc<Stack>, hostname: &str) {
    let mut dhcp = stack.dhcp.lock();
    dhcp.hostname = hostname.chars().take(63).collect();
    dhcp.state = State::Selecting;
    dhcp.transaction = stack.random() as u32;
    dhcp.tries = 0;
    dhcp.due = stack.now();
    drop(dhcp);
    expired(stack);
}

/// The time for the next message has come.
pub fn expired(stack: &Arc<Stack>) {
    let now = stack.now();
    let mut dhcp = stack.dhcp.lock();
    if now < dhcp.due {
        return;
    }
    dhcp.tries += 1;
    let mut lost = false;
    // 1, 2, 4, 8, ... seconds, a minute at most.
    let mut wait = SECOND << dhcp.tries.saturating_sub(1).min(6);
    match dhcp.state {
        State::Off => return,
        State::Requesting { .. } if dhcp.tries > 3 => dhcp.state = State::Selecting,
        State::Bound { expire, .. } if now >= expire => {
            lost = true;
            dhcp.state = State::Selecting;
            dhcp.tries = 1;
        }
        State::Bound { expire, .. } => wait = ((expire - now) / 2).max(SECOND),
        _ => {}
    }
    dhcp.due = now + wait.min(expire_in(&dhcp.state, now));
    let (due, state, transaction) = (dhcp.due, dhcp.state, dhcp.transaction);
    let hostname = dhcp.hostname.clone();
    drop(dhcp);
    if lost {
        stack.configure(|config| {
            config.addresses.retain(|cidr| cidr.addr.is_ipv6());
            config.gateway4 = None;
        });
    }
    stack.set_timeout(due, Timeout::Dhcp);
    send(stack, state, transaction, &hostname);
}

fn expire_in(state: &State, now: u64) -> u64 {
    match state {
        State::Bound { expire, .. } => expire.saturating_sub(now).max(SECOND),
        _ => u64::MAX,
    }
}

fn send(stack: &Arc<Stack>, state: State, transaction: u32, hostname: &str) {
    let Some(device) = stack.device() else { return };
    let mac = device.mac();
    let mut options = Vec::with_capacity(96);
    let (kind, client) = match state {
        State::Off => return,
        State::Selecting => (DISCOVER, Ipv4Addr::UNSPECIFIED),
        State::Requesting { .. } => (REQUEST, Ipv4Addr::UNSPECIFIED),
        State::Bound { addr, .. } => (REQUEST, addr),
    };
    options.extend(COOKIE);
    options.extend([53, 1, kind]);
    options.extend([61, 7, 1]);
    options.extend(mac);
    if let State::Requesting { server, addr } = state {
        options.extend([50, 4]);
        options.extend(addr.octets());
        options.extend([54, 4]);
        options.extend(server.octets());
    }
    if !hostname.is_empty() {
        options.extend([12, hostname.len() as u8]);
        options.extend(hostname.bytes());
    }
    // Mask, router, resolvers, domain name, lease, server, renewal.
    options.extend([55, 7, 1, 3, 6, 15, 51, 54, 58]);
    options.extend([57, 2, 5, 220]);
    options.push(255);

    let Some(mut packet) = Packet::new((BOOTP + options.len()).max(300)) else { return };
    let bytes = packet.bytes_mut();
    bytes.fill(0);
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
    bytes[12..16].copy_from_slice(&client.octets());
    bytes[28..34].copy_from_slice(&mac);
    bytes[BOOTP..BOOTP + options.len()].copy_from_slice(&options);

    let src = IpAddr::from(client);
    let dst = IpAddr::from(Ipv4Addr::BROADCAST);
    let len = packet.len() + udp::HEADER;
    let header = packet.push_front(udp::HEADER);
    header[0..2].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    header[2..4].copy_from_slice(&SERVER_PORT.to_be_bytes());
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[6..8].fill(0);
    let sum = checksum::pseudo_header(&src, &dst, protocol::UDP, len);
    checksum::fill(sum, packet.bytes_mut(), 6);
    ip::prepend(&mut packet, &src, &dst, protocol::UDP, 64, 0x10);
    edge::send_frame(stack, packet, edge::BROADCAST, 0x0800);
}

/// A datagram from a server.
pub fn input(stack: &Arc<Stack>, bytes: &[u8]) {
    let Some(device) = stack.device() else { return };
    let Some(message) = parse(bytes, device.mac()) else { return };
    let now = stack.now();
    let mut dhcp = stack.dhcp.lock();
    if message.transaction != dhcp.transaction {
        return;
    }
    match (dhcp.state, message.kind) {
        (State::Selecting, OFFER) => {
            let (Some(addr), Some(server)) = (message.addr, message.server) else { return };
            dhcp.state = State::Requesting { server, addr };
            dhcp.tries = 0;
            dhcp.due = now;
            drop(dhcp);
            expired(stack);
        }
        (State::Requesting { server, .. } | State::Bound { server, .. }, ACK) => {
            let Some(addr) = message.addr else { return };
            let lease = u64::from(message.lease.unwrap_or(3600).max(60));
            let renewal = message.renewal.map_or(lease / 2, u64::from).min(lease);
            let (renew, expire) = (now + renewal * SECOND, now + lease * SECOND);
            let server = message.server.unwrap_or(server);
            dhcp.state = State::Bound { server, addr, renew, expire };
            dhcp.tries = 0;
            dhcp.due = renew;
            drop(dhcp);
            apply(stack, addr, &message);
            stack.set_timeout(renew, Timeout::Dhcp);
        }
        (State::Requesting { .. } | State::Bound { .. }, NAK) => {
            dhcp.state = State::Selecting;
            dhcp.tries = 0;
            dhcp.due = now;
            drop(dhcp);
            stack.configure(|config| config.addresses.retain(|cidr| cidr.addr.is_ipv6()));
            expired(stack);
        }
        _ => {}
    }
}

fn apply(stack: &Arc<Stack>, addr: Ipv4Addr, message: &Message) {
    let prefix = message.mask.map_or(24, |mask| mask.to_bits().leading_ones() as u8);
    let cidr = Cidr { addr: addr.into(), prefix };
    let old = stack.config();
    let renewed = old.addresses.contains(&cidr);
    stack.configure(|config| {
        if !renewed {
            config.addresses.retain(|cidr| cidr.addr.is_ipv6());
            config.addresses.insert(0, cidr);
        }
        config.gateway4 = message.router;
        if !message.dns.is_empty() && !config.dns_fixed {
            config.dns.retain(IpAddr::is_ipv6);
            for (at, server) in message.dns.iter().take(3).enumerate() {
                config.dns.insert(at, (*server).into());
            }
        }
        if let (Some(domain), true) = (&message.domain, config.search.is_empty()) {
            config.search.push(domain.clone());
        }
    });
    if !renewed {
        // Announces the address, so that neighbours drop an older owner's.
        edge::send_arp(stack, 1, edge::BROADCAST, addr, [0; 6], addr);
    }
}

fn parse(bytes: &[u8], mac: [u8; 6]) -> Option<Message> {
    // A reply, Ethernet, for us.
    if bytes.len() < BOOTP + 4 || bytes[0] != 2 || bytes[28..34] != mac {
        return None;
    }
    if bytes[BOOTP..BOOTP + 4] != COOKIE {
        return None;
    }
    let mut message = Message {
        transaction: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        ..Message::default()
    };
    let offered = Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]);
    message.addr = Some(offered).filter(|addr| !addr.is_unspecified() && !addr.is_multicast());
    let mut rest = &bytes[BOOTP + 4..];
    while let [code, tail @ ..] = rest {
        match code {
            0 => {
                rest = tail;
                continue;
            }
            255 => break,
            _ => {}
        }
        let [len, tail @ ..] = tail else { break };
        let (value, tail) = tail.split_at_checked(usize::from(*len))?;
        rest = tail;
        let addr = || <[u8; 4]>::try_from(value.get(..4)?).ok().map(Ipv4Addr::from);
        let seconds = || <[u8; 4]>::try_from(value).ok().map(u32::from_be_bytes);
        match code {
            1 => message.mask = addr(),
            3 => message.router = addr(),
            6 => {
                let servers = value.chunks_exact(4);
                message.dns = servers.map(|at| Ipv4Addr::new(at[0], at[1], at[2], at[3])).collect();
            }
            15 => {
                // It goes into resolv.conf: nothing but a name may pass.
                let name = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
                let value: Vec<u8> = value.iter().copied().filter(|&byte| byte != 0).collect();
                if !value.is_empty() && value.iter().all(name) {
                    message.domain = String::from_utf8(value).ok();
                }
            }
            51 => message.lease = seconds(),
            53 => message.kind = value.first().copied().unwrap_or(0),
            54 => message.server = addr(),
            58 => message.renewal = seconds(),
            _ => {}
        }
    }
    Some(message)
}
