//! Stateless DHCPv6 (RFC 8415, 18.2.6): resolvers and search domains, where routers say that there
//! are some to be had.

use super::addr::{IpAddr, Ipv6Addr, SocketAddr};
use super::packet::Packet;
use super::stack::{Stack, Timeout};
use super::udp;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Where clients listen, and servers.
pub const CLIENT_PORT: u16 = 546;
/// As [`CLIENT_PORT`].
pub const SERVER_PORT: u16 = 547;

const INFORMATION_REQUEST: u8 = 11;
const REPLY: u8 = 7;
const DNS_SERVERS: u16 = 23;
const DOMAIN_LIST: u16 = 24;
const SECOND: u64 = 1_000_000_000;
const MAX_TRIES: u32 = 6;

/// State of the client.
#[derive(Default)]
pub struct Dhcp6 {
    transaction: u32,
    tries: u32,
    waiting: bool,
    asked: bool,
}

/// Asks for configuration, once.
pub fn start(stack: &Arc<Stack>) {
    let mut client = stack.dhcp6.lock();
    if client.asked {
        return;
    }
    *client = Dhcp6 {
        transaction: stack.random() as u32 & 0xff_ffff,
        tries: 0,
        waiting: true,
        asked: true,
    };
    drop(client);
    expired(stack);
}

/// Asks again.
pub fn expired(stack: &Arc<Stack>) {
    let mut client = stack.dhcp6.lock();
    if !client.waiting || client.tries >= MAX_TRIES {
        return;
    }
    client.tries += 1;
    let (tries, transaction) = (client.tries, client.transaction);
    drop(client);
    stack.set_timeout(stack.now() + (SECOND << tries), Timeout::Dhcp6);
    let Some(device) = stack.device() else { return };
    let mut message = (u32::from(INFORMATION_REQUEST) << 24 | transaction).to_be_bytes().to_vec();
    // Client identifier (link-layer address), wanted options, elapsed time.
    message.extend([0, 1, 0, 10, 0, 3, 0, 1]);
    message.extend(device.mac());
    message.extend([0, 6, 0, 4, 0, DNS_SERVERS as u8, 0, DOMAIN_LIST as u8]);
    message.extend([0, 8, 0, 2, 0, 0]);
    let Some(packet) = Packet::from_slice(&message) else { return };
    let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let from = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), CLIENT_PORT);
    // Without a route there is nobody to ask; the timer tries again.
    let _ = udp::send(stack, from, SocketAddr::new(servers.into(), SERVER_PORT), packet, 1, 0);
}

/// A datagram from a server.
pub fn input(stack: &Arc<Stack>, bytes: &[u8]) {
    let Some((head, mut rest)) = bytes.split_first_chunk::<4>() else { return };
    let mut client = stack.dhcp6.lock();
    let expected = u32::from(REPLY) << 24 | client.transaction;
    if !client.waiting || u32::from_be_bytes(*head) != expected {
        return;
    }
    client.waiting = false;
    drop(client);
    let (mut servers, mut domains) = (Vec::new(), Vec::new());
    while let Some(([k0, k1, l0, l1], tail)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let Some((value, tail)) = tail.split_at_checked(len) else { break };
        rest = tail;
        match u16::from_be_bytes([*k0, *k1]) {
            DNS_SERVERS => {
                let (chunks, _) = value.as_chunks::<16>();
                servers.extend(chunks.iter().map(|octets| IpAddr::from(*octets)));
            }
            DOMAIN_LIST => domains = names(value),
            _ => {}
        }
    }
    stack.configure(|config| {
        for server in servers {
            config.add_dns(server);
        }
        if config.search.is_empty() {
            config.search = domains;
        }
    });
}

/// Reads names as DNS writes them. They go into resolv.conf: nothing but names may pass.
fn names(mut bytes: &[u8]) -> Vec<String> {
    let (mut all, mut name) = (Vec::new(), String::new());
    while let [len, tail @ ..] = bytes {
        let Some((label, tail)) = tail.split_at_checked(usize::from(*len)) else { break };
        bytes = tail;
        if label.is_empty() {
            if !name.is_empty() && all.len() < 6 {
                all.push(core::mem::take(&mut name));
            }
            continue;
        }
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if label.len() > 63 || name.len() + label.len() > 253 || !label.iter().all(plain) {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|&byte| char::from(byte)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_pass() {
        assert_eq!(names(b"\x07example\x03org\0\x01a\0"), ["example.org", "a"]);
        assert!(names(b"\x07exa\nple\x03org\0").is_empty());
        assert!(names(b"\x07exam").is_empty());
        assert!(names(&[]).is_empty());
    }
}
