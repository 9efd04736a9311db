//! Messages of netlink(7): requests, and answers as they are put together.

use alloc::vec::Vec;

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
const NLM_F_MULTI: u16 = 2;
/// Answers are put into messages of about this size.
const CHUNK: usize = 8192;

/// A message to the kernel.
pub(super) struct Request<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub port: u32,
    pub body: &'a [u8],
    pub whole: &'a [u8],
}

/// What is answered.
pub(super) struct Reply<'a> {
    pub request: &'a Request<'a>,
    pub out: Vec<u8>,
    pub multi: bool,
}

impl Reply<'_> {
    /// Appends a message whose body `fill` writes.
    pub fn message(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.extend([0; 4]);
        self.out.extend(kind.to_ne_bytes());
        self.out.extend(if self.multi { NLM_F_MULTI } else { 0 }.to_ne_bytes());
        self.out.extend(self.request.sequence.to_ne_bytes());
        self.out.extend(self.request.port.to_ne_bytes());
        fill(&mut self.out);
        let len = (self.out.len() - start) as u32;
        self.out[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    /// Appends what became of the request; 0: nothing is wrong.
    pub fn error(&mut self, errno: i32) {
        self.multi = false;
        let whole = self.request.whole.to_vec();
        self.message(NLMSG_ERROR, |out| {
            out.extend((-errno).to_ne_bytes());
            // The request's header at least, all of it on an error.
            out.extend(if errno == 0 { &whole[..HEADER] } else { &whole });
        });
    }
}

/// Cuts a stream of messages into pieces of about [`CHUNK`] bytes, between messages.
pub(super) fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let mut at = 0;
        while let Some(head) = bytes[at..].first_chunk::<4>() {
            let len = (u32::from_ne_bytes(*head) as usize).next_multiple_of(4);
            if len == 0 || at > 0 && at + len > CHUNK {
                break;
            }
            at += len;
        }
        let (chunk, rest) = bytes.split_at(at.min(bytes.len()));
        bytes = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// A word of a body that was found to be long enough; 0 past its end.
pub(super) fn word(body: &[u8], at: usize) -> u32 {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Appends an attribute.
pub(super) fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(((value.len() + 4) as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Kinds and values of attributes, up to one that isn't whole.
pub(super) fn each(mut attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let [l0, l1, k0, k1, ..] = *attributes else { return None };
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(4..len)?;
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]), value))
    })
}

/// The value of the first attribute of a kind.
pub(super) fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    each(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}
