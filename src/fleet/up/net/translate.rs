//! Addresses that stand for services whose ports are not those of their machines, as the Services of
//! Kubernetes are.
//!
//! They are outside of the segment, so machines send to them by way of the gateway; the switch turns
//! such a packet into one for a machine, and the answers back. Which machine it is follows from the
//! client's port, so that all packets of a connection go to one. A client that is the only machine
//! behind its own service does not reach itself that way.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{frame, mac};

/// Connections that are known at once.
const MAX_FLOWS: usize = 65_536;
/// How long one is kept for certain after its last packet.
const IDLE: Duration = Duration::from_secs(300);
/// Where these addresses begin.
const NETWORK: [u8; 3] = [10, 0, 3];
/// Most of them.
pub const MAX: usize = 254;

/// A port of such an address, and who serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Virtual {
    /// The address.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
    /// UDP rather than TCP.
    pub udp: bool,
    /// Machines and their ports.
    pub to: Vec<(Ipv4Addr, u16)>,
}

/// The address with this number, below [`MAX`].
pub fn address(number: usize) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, 1 + number.min(MAX - 1) as u8)
}

/// A client, and a machine that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    client: (Ipv4Addr, u16),
    server: (Ipv4Addr, u16),
    protocol: u8,
}

/// What a packet becomes.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What it is.
    Same,
    /// Another one.
    Frame(Vec<u8>),
    /// Nothing: it is for an address that nobody serves.
    Dropped,
}

/// All such addresses of a fleet, and the connections to them.
#[derive(Debug, Default)]
pub struct Translator {
    all: Vec<Virtual>,
    flows: Mutex<HashMap<Flow, ((Ipv4Addr, u16), Instant)>>,
}

impl Translator {
    /// One that knows these.
    pub fn new(all: Vec<Virtual>) -> Translator {
        Translator { all, flows: Mutex::default() }
    }

    /// Translates a frame that a machine has sent.
    pub fn translate(&self, bytes: &[u8]) -> Verdict {
        if self.all.is_empty() {
            return Verdict::Same;
        }
        let Some(packet) = frame::packet(bytes) else {
            let virtual_one = |to: Ipv4Addr| to.octets()[..3] == NETWORK;
            return match frame::ip_destination(bytes).is_some_and(virtual_one) {
                true => Verdict::Dropped,
                false => Verdict::Same,
            };
        };
        if packet.to.0.octets()[..3] == NETWORK {
            return self.forth(bytes, &packet).map_or(Verdict::Dropped, Verdict::Frame);
        }
        self.back(bytes, &packet).map_or(Verdict::Same, Verdict::Frame)
    }

    /// From a client to a machine behind the address.
    fn forth(&self, bytes: &[u8], packet: &frame::Packet) -> Option<Vec<u8>> {
        let udp = packet.protocol == frame::UDP;
        let served = |one: &&Virtual| (one.address, one.port) == packet.to && one.udp == udp;
        let to = &self.all.iter().find(served)?.to;
        let others: Vec<_> = to.iter().filter(|server| server.0 != packet.from.0).collect();
        let server = **others.get(usize::from(packet.from.1) % others.len().max(1))?;
        let flow = Flow { client: packet.from, server, protocol: packet.protocol };
        let now = Instant::now();
        let mut flows = self.flows.lock().unwrap_or_else(|poison| poison.into_inner());
        if flows.len() >= MAX_FLOWS && !flows.contains_key(&flow) {
            flows.retain(|_, (_, used)| now.duration_since(*used) < IDLE);
            if flows.len() >= MAX_FLOWS {
                return None;
            }
        }
        flows.insert(flow, (packet.to, now));
        frame::readdressed(bytes, packet, None, Some(server), Some(mac(server.0)))
    }

    /// From that machine back, by the address that the client knows.
    fn back(&self, bytes: &[u8], packet: &frame::Packet) -> Option<Vec<u8>> {
        let flow = Flow { client: packet.to, server: packet.from, protocol: packet.protocol };
        let mut flows = self.flows.lock().unwrap_or_else(|poison| poison.into_inner());
        let (known_as, used) = flows.get_mut(&flow)?;
        *used = Instant::now();
        frame::readdressed(bytes, packet, Some(*known_as), None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::address as machine;
    use super::*;

    fn translator() -> Translator {
        Translator::new(vec![Virtual {
            address: address(0),
            port: 80,
            udp: false,
            to: vec![(machine(1), 8080), (machine(2), 8080)],
        }])
    }

    fn sent(verdict: Verdict) -> Vec<u8> {
        let Verdict::Frame(bytes) = verdict else { panic!("{verdict:?}") };
        assert!(frame::tests::sums_are_right(&bytes), "{bytes:?}");
        bytes
    }

    #[test]
    fn there_and_back() {
        let translator = translator();
        let client = (machine(0), 40_000);
        let out = frame::tests::tcp(client, (address(0), 80), b"hello");
        let bytes = sent(translator.translate(&out));
        let packet = frame::packet(&bytes).unwrap();
        assert_eq!((packet.from, packet.to), (client, (machine(1), 8080)));
        assert_eq!(frame::destination(&bytes), Some(mac(machine(1))));
        assert!(bytes.ends_with(b"hello"));
        let answer = frame::tests::tcp((machine(1), 8080), client, b"who is there");
        let bytes = sent(translator.translate(&answer));
        let packet = frame::packet(&bytes).unwrap();
        assert_eq!((packet.from, packet.to), ((address(0), 80), client));

        // The next connection goes to the other one; what nobody has begun is left as it is.
        let out = frame::tests::tcp((machine(0), 40_001), (address(0), 80), b"");
        let packet = frame::packet(&sent(translator.translate(&out))).unwrap();
        assert_eq!(packet.to, (machine(2), 8080));
        let direct = frame::tests::tcp((machine(2), 8080), (machine(0), 50_000), b"");
        assert_eq!(translator.translate(&direct), Verdict::Same);
        // A machine behind the service gets another one than itself.
        let out = frame::tests::tcp((machine(1), 40_000), (address(0), 80), b"");
        let packet = frame::packet(&sent(translator.translate(&out))).unwrap();
        assert_eq!(packet.to.0, machine(2));
    }

    #[test]
    fn what_nobody_serves_goes_nowhere() {
        let translator = translator();
        for to in [(address(0), 81), (address(7), 80)] {
            let out = frame::tests::tcp((machine(0), 1), to, b"");
            assert_eq!(translator.translate(&out), Verdict::Dropped);
        }
        // Neither does what has no ports, and what is cut short is nothing to us.
        let mut ping = frame::tests::tcp((machine(0), 1), (address(0), 80), b"");
        ping[23] = 1;
        assert_eq!(translator.translate(&ping), Verdict::Dropped);
        for len in 0..ping.len() {
            let _ = translator.translate(&ping[..len]);
        }
    }
}
