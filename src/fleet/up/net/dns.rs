//! Names of the fleet (RFC 1035).
//!
//! Questions for names of the fleet are answered, as are those without a dot, which nobody else can
//! know, and reverse ones for the segment. Everything else is left to the gateway.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const NO_ERROR: u8 = 0;
const NAME_ERROR: u8 = 3;
/// Instances don't move, but may be fewer or more after the next start.
const TTL: u32 = 5;
/// What fits into 512 bytes in any case.
const MAX_ANSWERS: usize = 16;

/// One name with one address; a name may have several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// In lower case, without a dot at its end.
    pub name: String,
    /// Where it is.
    pub address: Ipv4Addr,
    /// Bits of the networks that know it.
    pub networks: u64,
}

/// All names of a fleet.
#[derive(Debug, Default)]
pub struct Zone {
    names: Vec<Name>,
    /// Makes addresses of one name take turns at being the first.
    turn: AtomicUsize,
}

impl Zone {
    /// A zone of these names. The first of an address is the one that reverse questions get.
    pub fn new(names: Vec<Name>) -> Zone {
        Zone { names, turn: AtomicUsize::new(0) }
    }

    /// The answer to a query from a VM on these networks; `None` if it is for others to answer.
    pub fn answer(&self, query: &[u8], networks: u64) -> Option<Vec<u8>> {
        let flags = *query.get(2)?;
        let questions = u16::from_be_bytes(query.get(4..6)?.try_into().ok()?);
        // A question, a standard one, alone.
        if flags & 0xf8 != 0 || questions != 1 {
            return None;
        }
        let (name, end) = name(query, HEADER)?;
        let kind = u16::from_be_bytes(query.get(end..end + 2)?.try_into().ok()?);
        let class = u16::from_be_bytes(query.get(end + 2..end + 4)?.try_into().ok()?);
        if class != CLASS_IN {
            return None;
        }
        let question = &query[HEADER..end + 4];
        let visible = || self.names.iter().filter(|known| known.networks & networks != 0);
        if let Some(address) = reverse(&name) {
            let known = visible().find(|known| known.address == address);
            return match known {
                Some(known) if kind == TYPE_PTR => {
                    let data = encoded(&known.name);
                    Some(reply(query, question, NO_ERROR, TYPE_PTR, &[data]))
                }
                Some(_) => Some(reply(query, question, NO_ERROR, kind, &[])),
                None => Some(reply(query, question, NAME_ERROR, kind, &[])),
            };
        }
        let mut found: Vec<Ipv4Addr> =
            visible().filter(|known| known.name == name).map(|known| known.address).collect();
        if found.is_empty() {
            let ours = !name.contains('.');
            return ours.then(|| reply(query, question, NAME_ERROR, kind, &[]));
        }
        found.sort_unstable();
        found.dedup();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % found.len();
        found.rotate_left(turn);
        found.truncate(MAX_ANSWERS);
        // Other kinds, AAAA above all: the name is there, and has none of them.
        let data: Vec<Vec<u8>> = match kind {
            TYPE_A => found.iter().map(|address| address.octets().to_vec()).collect(),
            _ => Vec::new(),
        };
        Some(reply(query, question, NO_ERROR, kind, &data))
    }
}

/// A name in lower case, and where it ends. One that is compressed has no place in a question.
fn name(query: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let len = usize::from(*query.get(at)?);
        at += 1;
        if len == 0 {
            return Some((name, at));
        }
        if len > 63 || name.len() + len > 253 {
            return None;
        }
        let label = query.get(at..at + len)?;
        if !name.is_empty() {
            name.push('.');
        }
        // Names of other bytes are none of ours.
        name.push_str(&std::str::from_utf8(label).ok()?.to_ascii_lowercase());
        at += len;
    }
}

/// `15.2.0.10.in-addr.arpa` of an address in the segment.
fn reverse(name: &str) -> Option<Ipv4Addr> {
    let last = name.strip_suffix(".2.0.10.in-addr.arpa")?;
    Some(Ipv4Addr::new(10, 0, 2, last.parse().ok()?))
}

fn encoded(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        // Names of instances are checked to be labels.
        out.push(label.len().min(63) as u8);
        out.extend(label.bytes().take(63));
    }
    out.push(0);
    out
}

fn reply(query: &[u8], question: &[u8], code: u8, kind: u16, data: &[Vec<u8>]) -> Vec<u8> {
    let mut out = query[..2].to_vec();
    // An answer by one who knows; recursion as desired, and available.
    out.extend([0x84 | query[2] & 1, 0x80 | code]);
    // At most 16 answers.
    out.extend([0, 1, 0, data.len() as u8, 0, 0, 0, 0]);
    out.extend(question);
    for data in data {
        // The name is the question's.
        out.extend([0xc0, HEADER as u8]);
        out.extend(kind.to_be_bytes());
        out.extend(CLASS_IN.to_be_bytes());
        out.extend(TTL.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        out.extend(encoded(name));
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out
    }

    fn zone() -> Zone {
        let name = |name: &str, last, networks| Name {
            name: name.into(),
            address: Ipv4Addr::new(10, 0, 2, last),
            networks,
        };
        let all =
            [("web-1", 15, 1), ("web", 15, 1), ("web-2", 16, 1), ("web", 16, 1), ("db", 17, 2)];
        Zone::new(all.map(|(text, last, networks)| name(text, last, networks)).into())
    }

    fn addresses(reply: &[u8]) -> Vec<[u8; 4]> {
        let count = usize::from(reply[7]);
        reply[reply.len() - 16 * count..].chunks(16).map(|a| a[12..].try_into().unwrap()).collect()
    }

    #[test]
    fn names_have_their_addresses_in_turn() {
        let zone = zone();
        let first = zone.answer(&query("WEB", TYPE_A), 1).unwrap();
        assert_eq!(&first[..4], [0x12, 0x34, 0x85, 0x80]);
        assert_eq!(addresses(&first), [[10, 0, 2, 15], [10, 0, 2, 16]]);
        let second = zone.answer(&query("web", TYPE_A), 1).unwrap();
        assert_eq!(addresses(&second), [[10, 0, 2, 16], [10, 0, 2, 15]]);
        // There is a name, but no IPv6 address.
        let none = zone.answer(&query("web", 28), 3).unwrap();
        assert_eq!((none[3] & 15, none[7]), (NO_ERROR, 0));
        let back = zone.answer(&query("16.2.0.10.in-addr.arpa", TYPE_PTR), 1).unwrap();
        assert!(back.ends_with(b"\x05web-2\0"), "{back:?}");
    }

    #[test]
    fn networks_know_their_own_and_other_names_are_left_to_others() {
        let zone = zone();
        assert_eq!(zone.answer(&query("db", TYPE_A), 1).unwrap()[3] & 15, NAME_ERROR);
        assert_eq!(addresses(&zone.answer(&query("db", TYPE_A), 2).unwrap()), [[10, 0, 2, 17]]);
        assert_eq!(zone.answer(&query("example.org", TYPE_A), 3), None);
        assert_eq!(
            zone.answer(&query("99.2.0.10.in-addr.arpa", TYPE_PTR), 1).unwrap()[3] & 15,
            NAME_ERROR
        );
    }

    #[test]
    fn cut_and_odd_queries_are_not_answered() {
        let zone = zone();
        let whole = query("web", TYPE_A);
        for len in 0..whole.len() {
            assert_eq!(zone.answer(&whole[..len], 1), None, "{len}");
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert_eq!(zone.answer(&answer, 1), None);
        let mut pointer = whole;
        pointer[12] = 0xc0;
        assert_eq!(zone.answer(&pointer, 1), None);
    }
}
