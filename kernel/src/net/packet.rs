//! Packet buffers: recycled, physically contiguous, with room for headers in front.

use crate::sync::SpinLock;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Room in front: virtio-net header (12 bytes), Ethernet (14), IPv6 (40) and UDP (8) headers,
/// padded.
pub const HEADROOM: usize = 96;
/// Size of the buffers that hold one frame of a 1,500-byte MTU.
pub const SMALL: usize = 2048;
/// Size of the buffers for segmentation offload and the loopback device: a power of two, so that
/// the frame allocator wastes nothing.
pub const LARGE: usize = 32 * 1024;
/// Largest frame that a device may give us: the longest IP packet in Ethernet's header.
pub const MAX_FRAME: usize = 65535 + 14;
/// Largest IP packet that we build ourselves.
pub const MAX_IP: usize = LARGE - HEADROOM;

/// What the device must do to a packet that we send, or has done to one we received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Transmit: the transport checksum field holds the pseudo-header sum, the device adds the
    /// rest. Receive: the transport checksum is known to be good (or the packet never left this
    /// machine).
    pub checksum: bool,
    /// Transmit: cut the TCP payload into segments of this many bytes; 0: leave the packet whole.
    pub segment: u16,
}

/// One packet. `bytes` is the IP packet once the edge has removed the link header, or the frame
/// before.
pub struct Packet {
    buf: Box<[u8]>,
    start: usize,
    end: usize,
    /// Offload marks.
    pub offload: Offload,
}

struct Pool {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
}

// Enough to absorb bursts; what comes back beyond it is freed.
const KEEP_SMALL: usize = 256;
const KEEP_LARGE: usize = 16;
static POOL: SpinLock<Pool> = SpinLock::new(Pool { small: Vec::new(), large: Vec::new() });

fn zeroed(len: usize) -> Option<Box<[u8]>> {
    let mut buf = Vec::new();
    buf.try_reserve_exact(len).ok()?;
    buf.resize(len, 0);
    Some(buf.into_boxed_slice())
}

impl Packet {
    /// A packet of `len` bytes with headroom before it. The contents are whatever an earlier packet
    /// left. `None` when memory is short or `len` exceeds [`MAX_FRAME`]. Beyond [`MAX_IP`] it is
    /// for datagrams that stay here or leave in pieces.
    pub fn new(len: usize) -> Option<Packet> {
        let buf = if len <= SMALL - HEADROOM {
            let recycled = POOL.lock().small.pop();
            recycled.or_else(|| zeroed(SMALL))?
        } else if len <= MAX_IP {
            let recycled = POOL.lock().large.pop();
            recycled.or_else(|| zeroed(LARGE))?
        } else if len <= MAX_FRAME {
            zeroed(len + HEADROOM)?
        } else {
            return None;
        };
        Some(Packet { buf, start: HEADROOM, end: HEADROOM + len, offload: Offload::default() })
    }

    /// An empty buffer for a device to fill, all of it.
    pub fn for_receive() -> Option<Packet> {
        let mut packet = Packet::new(0)?;
        packet.start = 0;
        packet.end = packet.buf.len();
        Some(packet)
    }

    /// A copy of `bytes`.
    pub fn from_slice(bytes: &[u8]) -> Option<Packet> {
        let mut packet = Packet::new(bytes.len())?;
        packet.bytes_mut().copy_from_slice(bytes);
        Some(packet)
    }

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }
    /// The packet, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
    /// Removes `n` bytes in front (at most all).
    pub fn trim_front(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }
    /// Cuts the packet to `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }
    /// Puts `n` bytes of room in front and returns them. `n` is at most the headroom left.
    pub fn push_front(&mut self, n: usize) -> &mut [u8] {
        assert!(n <= self.start, "headroom exhausted");
        self.start -= n;
        &mut self.buf[self.start..self.start + n]
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        let buf = core::mem::take(&mut self.buf);
        let mut pool = POOL.lock();
        match buf.len() {
            SMALL if pool.small.len() < KEEP_SMALL => pool.small.push(buf),
            LARGE if pool.large.len() < KEEP_LARGE => pool.large.push(buf),
            _ => {
                drop(pool);
                drop(buf);
            }
        }
    }
}
