//! TCP segments as they are on the wire (RFC 9293, 3.1), and arithmetic on sequence numbers.

/// Header length without options.
pub const HEADER: usize = 20;
/// The sender has no more data.
pub const FIN: u8 = 1;
/// Sequence numbers start here.
pub const SYN: u8 = 2;
/// The connection is gone.
pub const RST: u8 = 4;
/// Somebody waits for this.
pub const PSH: u8 = 8;
/// The acknowledgement field counts.
pub const ACK: u8 = 16;
/// The urgent pointer counts.
pub const URG: u8 = 32;
/// Ranges that one segment can acknowledge selectively.
pub const MAX_SACKS: usize = 4;

/// Whether sequence number `a` comes before `b`.
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The later of two sequence numbers.
pub fn later(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}

/// Sequence numbers from `.0` up to and without `.1`.
pub type Range = (u32, u32);

/// A received segment.
#[derive(Clone, Debug, Default)]
pub struct Segment<'a> {
    /// Sequence number of the first byte (or of the SYN).
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// `FIN`, `SYN`, ...
    pub flags: u8,
    /// Window field, unscaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Largest segment that the sender takes (of a SYN).
    pub mss: Option<u16>,
    /// Shift of its windows (of a SYN).
    pub scale: Option<u8>,
    /// It understands selective acknowledgements (of a SYN).
    pub sack_ok: bool,
    /// Selective acknowledgements.
    pub sacks: [Range; MAX_SACKS],
    /// How many of them there are.
    pub sack_count: usize,
    /// Data.
    pub payload: &'a [u8],
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |word, &byte| word << 8 | u32::from(byte))
}

impl<'a> Segment<'a> {
    /// Reads a segment; `None` if its header is longer than it.
    pub fn parse(bytes: &'a [u8]) -> Option<Segment<'a>> {
        let head = bytes.first_chunk::<HEADER>()?;
        let header_len = usize::from(head[12] >> 4) * 4;
        if header_len < HEADER {
            return None;
        }
        let (header, payload) = bytes.split_at_checked(header_len)?;
        let mut segment = Segment {
            seq: be32(&head[4..]),
            ack: be32(&head[8..]),
            flags: head[13],
            window: u16::from_be_bytes([head[14], head[15]]),
            urgent: u16::from_be_bytes([head[18], head[19]]),
            payload,
            ..Segment::default()
        };
        segment.options(&header[HEADER..]);
        Some(segment)
    }

    /// Keeps what a filter wants, in bytes from the header on, of the segment that was read from
    /// `whole`. Returns whether it wants it at all.
    pub fn keep(&mut self, wanted: usize, whole: &[u8]) -> bool {
        let header = whole.len() - self.payload.len();
        self.payload = &self.payload[..self.payload.len().min(wanted.saturating_sub(header))];
        wanted > 0
    }

    fn options(&mut self, mut rest: &[u8]) {
        while let [kind, tail @ ..] = rest {
            match kind {
                0 => return,
                1 => {
                    rest = tail;
                    continue;
                }
                _ => {}
            }
            let len = usize::from(tail.first().copied().unwrap_or(0));
            if len < 2 || len > rest.len() {
                return;
            }
            let (option, after) = rest.split_at(len);
            rest = after;
            match *option {
                [2, 4, a, b] => self.mss = Some(u16::from_be_bytes([a, b])),
                // RFC 7323, 2.3: more than 14 counts as 14.
                [3, 3, scale] => self.scale = Some(scale.min(14)),
                [4, 2] => self.sack_ok = true,
                [5, _, ref ranges @ ..] => {
                    for range in ranges.chunks_exact(8).take(MAX_SACKS) {
                        self.sacks[self.sack_count % MAX_SACKS] = (be32(range), be32(&range[4..]));
                        self.sack_count = (self.sack_count + 1).min(MAX_SACKS);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers that it occupies.
    pub fn len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.flags & SYN > 0) + u32::from(self.flags & FIN)
    }
}

/// A segment to be sent, but for its payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    /// Ours and theirs.
    pub ports: (u16, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// `FIN`, `SYN`, ...
    pub flags: u8,
    /// Window field.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
}

impl Header {
    /// Writes it with its options, whose length is a multiple of four, and a checksum of zero.
    pub fn emit(&self, out: &mut [u8], options: &[u8]) {
        out[0..2].copy_from_slice(&self.ports.0.to_be_bytes());
        out[2..4].copy_from_slice(&self.ports.1.to_be_bytes());
        out[4..8].copy_from_slice(&self.seq.to_be_bytes());
        out[8..12].copy_from_slice(&self.ack.to_be_bytes());
        out[12] = ((HEADER + options.len()) as u8) << 2;
        out[13] = self.flags;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[16..18].fill(0);
        out[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        out[HEADER..HEADER + options.len()].copy_from_slice(options);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut bytes = alloc::vec![0; HEADER + options.len()];
        let header = Header { seq: 1, ack: 2, flags: SYN | ACK, window: 3, ..Header::default() };
        header.emit(&mut bytes, options);
        bytes.extend(b"data");
        bytes
    }

    #[test]
    fn options_are_read_and_broken_ones_end_the_list() {
        let bytes = with_options(&[2, 4, 5, 0xb4, 1, 3, 3, 20, 4, 2, 0, 0]);
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!((segment.mss, segment.scale, segment.sack_ok), (Some(1460), Some(14), true));
        assert_eq!((segment.payload, segment.len()), (&b"data"[..], 5));
        let mut sack = alloc::vec![1, 1, 5, 18];
        sack.extend([0, 0, 0, 10, 0, 0, 0, 20, 0, 0, 0, 30, 0, 0, 0, 40]);
        let bytes = with_options(&sack);
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!(segment.sacks[..segment.sack_count], [(10, 20), (30, 40)]);
        for broken in [[2, 0, 0, 0], [2, 1, 0, 0], [2, 9, 0, 0], [1, 1, 1, 5]] {
            assert_eq!(Segment::parse(&with_options(&broken)).unwrap().mss, None);
        }
        let mut short = with_options(&[]);
        short[12] = 0xf0;
        assert!(Segment::parse(&short).is_none());
        short[12] = 0x40;
        assert!(Segment::parse(&short).is_none());
    }

    #[test]
    fn sequence_numbers_wrap() {
        assert!(before(u32::MAX, 0) && before(0, 1) && !before(1, 1) && !before(2, u32::MAX));
        assert_eq!(later(u32::MAX - 5, 3), 3);
    }
}
