//! Split virtqueues (virtio 1.2, section 2.7), with event indices and indirect descriptors.
//!
//! The device is not trusted: it may write anything into the rings at any time. What decides where
//! memory is freed or reused (descriptor chains, lengths, tokens) is kept in memory that the device
//! can't reach, and every index read from a ring is checked against it. A queue whose device breaks
//! the rules stops for good.

use crate::arch::{PAGE_SIZE, device_fence, virt_to_phys};
use crate::errno::{Errno, Result};
use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;
/// Largest queue we make; a larger device maximum is cut to this.
pub const MAX_SIZE: u16 = 1024;
/// Segments an indirect table holds.
pub const INDIRECT_SEGMENTS: usize = 34;
const DESC: usize = 16;

/// A physically contiguous piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Physical address.
    pub addr: usize,
    /// Length in bytes.
    pub len: u32,
}

impl Segment {
    /// The memory of a kernel buffer. It must lie in the direct map (heap memory does, stacks may
    /// not).
    pub fn of(buf: &[u8]) -> Segment {
        Segment { addr: virt_to_phys(buf.as_ptr() as usize), len: buf.len() as u32 }
    }
}

/// Zeroed, page-aligned, physically contiguous memory shared with a device.
pub struct DmaMemory {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a plain owned allocation.
unsafe impl Send for DmaMemory {}
// SAFETY: as above; shared access is by volatile or atomic operations of the owner.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// Allocates `len` bytes. ENOMEM if there is no such stretch.
    pub fn new(len: usize) -> Result<DmaMemory> {
        let layout = Layout::from_size_align(len.max(1), PAGE_SIZE).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the layout's size isn't zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(Errno::ENOMEM)?;
        Ok(DmaMemory { base, layout })
    }
    /// Physical address of the start.
    pub fn paddr(&self) -> usize {
        virt_to_phys(self.base.as_ptr() as usize)
    }
    /// Pointer to the byte at `offset`; inside the allocation.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.layout.size());
        // SAFETY: just checked to lie inside the allocation.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for DmaMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// One request in the device's hands.
struct InFlight<T> {
    token: T,
    /// Descriptors of the ring that it occupies.
    descriptors: u16,
    /// Bytes that the device may write.
    writable: u32,
}

/// A split virtqueue whose requests carry a `T`.
pub struct Queue<T> {
    size: u16,
    memory: DmaMemory,
    avail: usize,
    used: usize,
    /// Indirect tables, one per head descriptor; empty if the feature is off.
    tables: Option<DmaMemory>,
    event_idx: bool,
    /// The free list, linked through our own memory.
    next: Vec<u16>,
    free_head: u16,
    free: u16,
    slots: Vec<Option<InFlight<T>>>,
    in_flight: u16,
    avail_idx: u16,
    notified: u16,
    last_used: u16,
    broken: bool,
}

impl<T> Queue<T> {
    /// A queue of `size` entries (a power of two).
    pub fn new(size: u16, event_idx: bool, indirect: bool) -> Result<Queue<T>> {
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(Errno::EINVAL);
        }
        let n = usize::from(size);
        let avail = DESC * n;
        let used = (avail + 6 + 2 * n).next_multiple_of(4);
        let memory = DmaMemory::new(used + 6 + 8 * n)?;
        let tables =
            if indirect { Some(DmaMemory::new(n * INDIRECT_SEGMENTS * DESC)?) } else { None };
        let mut slots = Vec::new();
        slots.try_reserve_exact(n).map_err(|_| Errno::ENOMEM)?;
        slots.resize_with(n, || None);
        Ok(Queue {
            size,
            memory,
            avail,
            used,
            tables,
            event_idx,
            next: (1..=size).collect(),
            free_head: 0,
            free: size,
            slots,
            in_flight: 0,
            avail_idx: 0,
            notified: 0,
            last_used: 0,
            broken: false,
        })
    }

    /// Number of entries.
    pub fn size(&self) -> u16 {
        self.size
    }
    /// Physical addresses of the descriptor table, the available ring and the used ring.
    pub fn addresses(&self) -> [usize; 3] {
        let base = self.memory.paddr();
        [base, base + self.avail, base + self.used]
    }
    /// Free descriptors.
    pub fn free(&self) -> u16 {
        self.free
    }
    /// Requests in the device's hands.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }
    /// Whether the device has broken the rules; nothing works any more.
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// Whether a request of `segments` segments fits now.
    pub fn fits(&self, segments: usize) -> bool {
        let needed = if self.tables.is_some() && segments > 1 { 1 } else { segments };
        !self.broken && needed <= usize::from(self.free)
    }

    /// Hands a request to the device: segments that it reads, then segments that it writes. Gives
    /// the token back if the queue is full. The memory must stay valid until the request is popped
    /// (the token owns it).
    pub fn push(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        token: T,
    ) -> core::result::Result<(), T> {
        let count = readable.len() + writable.len();
        let indirect = self.tables.is_some() && count > 1 && count <= INDIRECT_SEGMENTS;
        let needed = if indirect { 1 } else { count };
        if self.broken || count == 0 || needed > usize::from(self.free) {
            return Err(token);
        }
        let head = self.free_head;
        let segments = readable
            .iter()
            .map(|segment| (segment, 0))
            .chain(writable.iter().map(|segment| (segment, WRITE)));
        if indirect {
            let table = usize::from(head) * INDIRECT_SEGMENTS * DESC;
            for (at, (segment, flags)) in segments.enumerate() {
                let last = at + 1 == count;
                let flags = flags | if last { 0 } else { NEXT };
                // `indirect` is set only if there are tables.
                let Some(tables) = &self.tables else { return Err(token) };
                let next = if last { 0 } else { at as u16 + 1 };
                write_desc(tables.at(table + at * DESC), *segment, flags, next);
            }
            let Some(tables) = &self.tables else { return Err(token) };
            let whole = Segment { addr: tables.paddr() + table, len: (count * DESC) as u32 };
            write_desc(self.memory.at(usize::from(head) * DESC), whole, INDIRECT, 0);
            self.free_head = self.next[usize::from(head)];
        } else {
            let mut at = head;
            for (done, (segment, flags)) in segments.enumerate() {
                let next = self.next[usize::from(at)];
                let last = done + 1 == count;
                let flags = flags | if last { 0 } else { NEXT };
                let link = if last { 0 } else { next };
                write_desc(self.memory.at(usize::from(at) * DESC), *segment, flags, link);
                at = next;
            }
            self.free_head = at;
        }
        self.free -= needed as u16;
        self.in_flight += 1;
        let capacity = writable.iter().fold(0u32, |sum, segment| sum.saturating_add(segment.len));
        let descriptors = needed as u16;
        self.slots[usize::from(head)] = Some(InFlight { token, descriptors, writable: capacity });
        let entry = self.avail + 4 + 2 * usize::from(self.avail_idx & (self.size - 1));
        self.word(entry).store(head, Ordering::Relaxed);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        // The device must see descriptors and entry before the index.
        self.word(self.avail + 2).store(self.avail_idx, Ordering::Release);
        Ok(())
    }

    /// Whether the device wants to hear of what was pushed since the last call.
    pub fn should_notify(&mut self) -> bool {
        let (old, new) = (self.notified, self.avail_idx);
        if old == new || self.broken {
            return false;
        }
        self.notified = new;
        // Our index before its wish (store, then load).
        device_fence();
        if self.event_idx {
            let event = self.word(self.used + 4 + 8 * usize::from(self.size));
            let event = event.load(Ordering::Acquire);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.word(self.used).load(Ordering::Acquire) & NO_NOTIFY == 0
        }
    }

    /// Takes one finished request: its token and the bytes that the device wrote.
    /// EIO, for good, once the device breaks the rules.
    pub fn pop(&mut self) -> Result<Option<(T, u32)>> {
        if self.broken {
            return Err(Errno::EIO);
        }
        let used_idx = self.word(self.used + 2).load(Ordering::Acquire);
        if used_idx == self.last_used {
            return Ok(None);
        }
        if used_idx.wrapping_sub(self.last_used) > self.in_flight {
            return self.stop();
        }
        let entry = self.used + 4 + 8 * usize::from(self.last_used & (self.size - 1));
        let id = self.dword(entry).load(Ordering::Relaxed);
        let len = self.dword(entry + 4).load(Ordering::Relaxed);
        let Some(done) = self.slots.get_mut(id as usize).and_then(Option::take) else {
            return self.stop();
        };
        self.last_used = self.last_used.wrapping_add(1);
        self.in_flight -= 1;
        // The chain's descriptors follow each other in `next`; put it before the free list.
        let head = id as u16;
        let mut tail = head;
        for _ in 1..done.descriptors {
            tail = self.next[usize::from(tail)];
        }
        self.next[usize::from(tail)] = self.free_head;
        self.free_head = head;
        self.free += done.descriptors;
        // A length beyond the buffers would let a later reader run past them.
        Ok(Some((done.token, len.min(done.writable))))
    }

    /// Whether [`pop`](Queue::pop) would find something.
    pub fn has_used(&self) -> bool {
        self.word(self.used + 2).load(Ordering::Acquire) != self.last_used
    }

    /// Asks for no interrupts.
    pub fn disable_interrupts(&mut self) {
        if self.event_idx {
            // An event index just behind us is half the number space away from being crossed.
            let at = self.avail + 4 + 2 * usize::from(self.size);
            self.word(at).store(self.last_used.wrapping_sub(1), Ordering::Relaxed);
        } else {
            self.word(self.avail).store(NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    /// Asks for an interrupt after `after` more finished requests (1: the next). Returns true if
    /// there is something to pop already, in which case the interrupt may not come.
    pub fn enable_interrupts(&mut self, after: u16) -> bool {
        if self.event_idx {
            let at = self.avail + 4 + 2 * usize::from(self.size);
            let event = self.last_used.wrapping_add(after).wrapping_sub(1);
            self.word(at).store(event, Ordering::Relaxed);
        } else {
            self.word(self.avail).store(0, Ordering::Relaxed);
        }
        // Our wish before its index (store, then load).
        device_fence();
        self.has_used()
    }

    /// Takes back every request after the device was reset.
    pub fn reclaim(&mut self) -> impl Iterator<Item = T> + '_ {
        self.broken = true;
        self.slots.iter_mut().filter_map(Option::take).map(|slot| slot.token)
    }

    fn stop(&mut self) -> Result<Option<(T, u32)>> {
        self.broken = true;
        crate::error!("virtio: a device has broken the rules of its queue, which stops");
        Err(Errno::EIO)
    }

    fn word(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: every offset used is even and inside `memory` (page-aligned, never moved,
        // initialised), and both sides access ring words as naturally aligned 16-bit units.
        unsafe { &*self.memory.at(offset).cast::<AtomicU16>() }
    }

    fn dword(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as `word`; used ring entries are four-byte aligned.
        unsafe { &*self.memory.at(offset).cast::<AtomicU32>() }
    }
}

fn write_desc(at: *mut u8, segment: Segment, flags: u16, next: u16) {
    let value = u128::from(segment.addr as u64)
        | u128::from(segment.len) << 64
        | u128::from(flags) << 96
        | u128::from(next) << 112;
    // SAFETY: callers pass the address of a 16-byte, 16-byte aligned table entry. The device
    // doesn't read it before the available index is published.
    unsafe { at.cast::<u128>().write_volatile(value.to_le()) }
}

#[cfg(test)]
pub mod model;
#[cfg(test)]
mod tests;
