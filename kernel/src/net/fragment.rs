//! IP fragments: put together when they come in (RFC 791, RFC 8200 4.5, RFC 5722), made where a
//! datagram does not fit its path.

use super::addr::IpAddr;
use super::checksum;
use super::ip::{V4_HEADER, V6_HEADER};
use super::packet::{Packet, SMALL};
use super::stack::{Route, Stack};
use alloc::vec::Vec;

/// Datagrams that may be incomplete at once, and what they may hold together. The oldest goes first.
const MAX_DATAGRAMS: usize = 64;
const MAX_BYTES: usize = 4 << 20;
/// How long the rest of a datagram may take (net.ipv4.ipfrag_time), in nanoseconds.
const LIFE: u64 = 30_000_000_000;
/// Length of the IPv6 fragment header, and its protocol number.
const V6_FRAGMENT: usize = 8;
const FRAGMENT: u8 = 44;

/// Memory that a piece of `len` bytes takes: small ones have a whole buffer, too.
fn cost(len: usize) -> usize {
    len.max(SMALL)
}

type Key = (IpAddr, IpAddr, u32, u8);

/// Datagrams of which pieces have come.
#[derive(Default)]
pub struct Fragments {
    /// Oldest first.
    partial: Vec<Partial>,
    bytes: usize,
}

struct Partial {
    key: Key,
    since: u64,
    /// Where each piece belongs; sorted, without overlap.
    pieces: Vec<(usize, Packet)>,
    /// Length of the whole, once the last piece has come.
    total: Option<usize>,
}

/// What one fragment says.
struct Piece {
    key: Key,
    offset: usize,
    more: bool,
    /// Where its data is in the packet.
    data: core::ops::Range<usize>,
}

fn read(bytes: &[u8]) -> Option<Piece> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    if bytes.first()? >> 4 == 4 {
        let (start, end) = (usize::from(bytes[0] & 15) * 4, usize::from(word(2)?));
        if start < V4_HEADER || end <= start || end > bytes.len() {
            return None;
        }
        let octets = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let at = word(6)?;
        return Some(Piece {
            key: (octets(12).into(), octets(16).into(), word(4)?.into(), bytes[9]),
            offset: usize::from(at & 0x1fff) * 8,
            more: at & 0x2000 != 0,
            data: start..end,
        });
    }
    let head = bytes.first_chunk::<V6_HEADER>()?;
    let end = V6_HEADER + usize::from(word(4)?);
    let (mut next, mut at) = (head[6], V6_HEADER);
    while next != FRAGMENT {
        // The headers that `ip::parse` passes over.
        if !matches!(next, 0 | 60) {
            return None;
        }
        next = *bytes.get(at)?;
        at += (usize::from(*bytes.get(at + 1)?) + 1) * 8;
    }
    let start = at + V6_FRAGMENT;
    if start >= end || end > bytes.len() {
        return None;
    }
    let place = word(at + 2)?;
    let octets = |at: usize| <[u8; 16]>::try_from(&head[at..at + 16]).map(IpAddr::from).ok();
    let id = u32::from(word(at + 4)?) << 16 | u32::from(word(at + 6)?);
    Some(Piece {
        key: (octets(8)?, octets(24)?, id, bytes[at]),
        offset: usize::from(place & 0xfff8),
        more: place & 1 != 0,
        data: start..end,
    })
}

impl Fragments {
    fn remove(&mut self, at: usize) -> Partial {
        let partial = self.partial.remove(at);
        self.bytes -= partial.pieces.iter().map(|(_, piece)| cost(piece.len())).sum::<usize>();
        partial
    }

    /// Takes a fragment; returns the datagram that it completes, as one IP packet.
    pub fn input(&mut self, mut packet: Packet, now: u64) -> Option<Packet> {
        let Piece { key, offset, more, data } = read(packet.bytes())?;
        let len = data.len();
        let end = offset + len;
        // All but the last are multiples of eight bytes; nothing is longer than a datagram.
        if more && len % 8 != 0 || end > 65535 {
            return None;
        }
        while self.partial.first().is_some_and(|first| first.since + LIFE < now)
            || self.bytes + cost(len) > MAX_BYTES && !self.partial.is_empty()
        {
            self.remove(0);
        }
        let known = self.partial.iter().position(|partial| partial.key == key);
        let at = match known {
            Some(at) => at,
            None => {
                if self.partial.len() >= MAX_DATAGRAMS {
                    self.remove(0);
                }
                let partial = Partial { key, since: now, pieces: Vec::new(), total: None };
                self.partial.push(partial);
                self.partial.len() - 1
            }
        };
        packet.truncate(data.end);
        packet.trim_front(data.start);
        let partial = &mut self.partial[at];
        let place = partial.pieces.partition_point(|(start, _)| *start < offset);
        let same = |(start, piece): &(usize, Packet)| *start == offset && piece.len() == len;
        if partial.pieces.get(place).is_some_and(same) {
            return None;
        }
        let before = place.checked_sub(1).map(|at| &partial.pieces[at]);
        let overlap = before.is_some_and(|(start, piece)| start + piece.len() > offset)
            || partial.pieces.get(place).is_some_and(|(start, _)| *start < end);
        let last = if more { partial.total } else { Some(end) };
        let beyond = last.is_some_and(|total| {
            end > total || partial.pieces.last().is_some_and(|(at, piece)| at + piece.len() > total)
        });
        if overlap || beyond || !more && partial.total.is_some_and(|total| total != end) {
            // Somebody plays games (RFC 5722): nothing of it is believed.
            self.remove(at);
            return None;
        }
        partial.total = last;
        partial.pieces.insert(place, (offset, packet));
        self.bytes += cost(len);
        let held: usize = partial.pieces.iter().map(|(_, piece)| piece.len()).sum();
        if last != Some(held) {
            return None;
        }
        let whole = self.remove(at);
        join(&whole.key, &whole.pieces, held)
    }
}

fn join(key: &Key, pieces: &[(usize, Packet)], len: usize) -> Option<Packet> {
    let mut packet = Packet::new(len)?;
    for (at, piece) in pieces {
        packet.bytes_mut()[*at..at + piece.len()].copy_from_slice(piece.bytes());
    }
    let (src, dst, _, protocol) = key;
    if len + V4_HEADER > 65535 {
        return None;
    }
    super::ip::prepend(&mut packet, src, dst, *protocol, 64, 0);
    Some(packet)
}

/// Sends an IP packet in pieces of at most `mtu` bytes.
pub fn output(stack: &Stack, packet: &Packet, route: &Route, mtu: usize) {
    let bytes = packet.bytes();
    let id = stack.random() as u32;
    let (head, extra) = if route.v6 { (V6_HEADER, V6_FRAGMENT) } else { (V4_HEADER, 0) };
    let step = (mtu - head - extra) & !7;
    let (header, data) = bytes.split_at(head);
    for (count, part) in data.chunks(step).enumerate() {
        let offset = count * step;
        let more = offset + part.len() < data.len();
        let Some(mut piece) = Packet::from_slice(part) else { return };
        if route.v6 {
            let field = (offset as u16 | u16::from(more)).to_be_bytes();
            let [a, b, c, d] = id.to_be_bytes();
            let fragment = [header[6], 0, field[0], field[1], a, b, c, d];
            piece.push_front(V6_FRAGMENT).copy_from_slice(&fragment);
            let len = piece.len() as u16;
            let front = piece.push_front(V6_HEADER);
            front.copy_from_slice(header);
            front[4..6].copy_from_slice(&len.to_be_bytes());
            front[6] = FRAGMENT;
        } else {
            let front = piece.push_front(V4_HEADER);
            front.copy_from_slice(header);
            let len = (part.len() + V4_HEADER) as u16;
            front[2..4].copy_from_slice(&len.to_be_bytes());
            front[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            let field = (offset / 8) as u16 | u16::from(more) << 13;
            front[6..8].copy_from_slice(&field.to_be_bytes());
            checksum::fill(0, front, 10);
        }
        stack.output(piece, route);
    }
}
