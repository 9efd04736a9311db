//! virtio-net: checksum and segmentation offload both ways, mergeable buffers, a pair of queues for
//! each CPU where the device has them, interrupts by event index, batched notifications.
//!
//! The device puts a connection's frames on the queue that belongs to the one on which we sent the
//! last ones (virtio 1.2, section 5.1.6.5.6). We choose that by the connection, not by the CPU that
//! happens to send, so that its frames stay in order both ways.

use super::queue::{Queue, Segment};
use super::{Doorbell, Handler, Transport, feature, negotiate, ready, start_queue};
use crate::arch::cpu;
use crate::errno::{Errno, Result};
use crate::net::ip;
use crate::net::packet::{self, Offload, Packet};
use crate::net::stack::{NetDevice, Offloads, Stack};
use crate::sync::{Once, SpinLock, softirq};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const MRG_RXBUF: u64 = 1 << 15;
const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// `struct virtio_net_hdr` of virtio 1.x.
const HEADER: usize = 12;
const ETHERNET: usize = 14;
/// Frames received per visit, so that one busy device leaves the CPU to others.
const BUDGET: usize = 64;
/// Frames that wait while the transmit queue is full.
const BACKLOG: usize = 512;
const QUEUE_SIZE: u16 = 256;
/// More pairs than this don't pay: what one CPU can't do is above the driver.
const MAX_PAIRS: usize = 16;
/// Control command: use so many pairs of queues (class `VIRTIO_NET_CTRL_MQ`,
/// `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`).
const SET_PAIRS: [u8; 2] = [4, 0];
/// For how long a device may think about a command, in nanoseconds.
const ANSWER_NS: u64 = 5_000_000_000;

/// A network card.
pub struct VirtioNet {
    mac: [u8; 6],
    mtu: usize,
    offloads: Offloads,
    pairs: Vec<Pair>,
    _transport: Arc<dyn Transport>,
}

/// A queue for each direction.
struct Pair {
    rx: Once<SpinLock<Side>>,
    tx: Once<SpinLock<Transmit>>,
    /// An interrupt has come since the last visit.
    signalled: AtomicBool,
}

struct Side {
    queue: Queue<Packet>,
    doorbell: Doorbell,
}

struct Transmit {
    side: Side,
    backlog: VecDeque<Packet>,
}

/// Starts a card and gives it to the kernel's stack.
pub fn attach(transport: Arc<dyn Transport>) -> Result<()> {
    let card = start(transport, cpu::count())?;
    crate::net::stack().attach(card);
    Ok(())
}

/// Starts a card whose interrupts go to the first `cpus` CPUs.
pub fn start(transport: Arc<dyn Transport>, cpus: usize) -> Result<Arc<VirtioNet>> {
    let mut wanted = CSUM | GUEST_CSUM | MTU | MAC | HOST_TSO4 | HOST_TSO6 | MRG_RXBUF;
    let offered = transport.device_features();
    if offered & (GUEST_CSUM | MRG_RXBUF) == GUEST_CSUM | MRG_RXBUF {
        // Large frames fill several buffers.
        wanted |= GUEST_TSO4 | GUEST_TSO6;
    }
    if offered & CTRL_VQ != 0 && cpus > 1 {
        wanted |= CTRL_VQ | MQ;
    }
    let features = negotiate(&*transport, wanted | feature::EVENT_IDX | feature::INDIRECT)?;
    let has = |bit: u64| features & bit != 0;
    let mut mac = [0; 6];
    if has(MAC) {
        for (at, byte) in mac.iter_mut().enumerate() {
            *byte = transport.config_u8(at);
        }
    } else {
        let random = crate::net::stack().random().to_le_bytes();
        mac.copy_from_slice(&random[..6]);
        // Locally administered, not a group.
        mac[0] = mac[0] & 0xfc | 2;
    }
    let mtu = if has(MTU) { usize::from(transport.config_u16(10)) } else { 1500 };
    let offered_pairs = if has(MQ) { usize::from(transport.config_u16(8)).max(1) } else { 1 };
    let count = offered_pairs.min(cpus).min(MAX_PAIRS);
    let pair = || Pair { rx: Once::new(), tx: Once::new(), signalled: AtomicBool::new(true) };
    let card = Arc::new(VirtioNet {
        mac,
        // One buffer holds one frame.
        mtu: mtu.clamp(1280, 1500),
        offloads: Offloads { checksum: has(CSUM), tso4: has(HOST_TSO4), tso6: has(HOST_TSO6) },
        pairs: (0..count).map(|_| pair()).collect(),
        _transport: transport.clone(),
    });
    // The card lives as long as the kernel: its interrupt handler may come at any time.
    core::mem::forget(card.clone());
    // One segment each way: indirect tables would only cost memory.
    let direct = features & !feature::INDIRECT;
    for (number, pair) in card.pairs.iter().enumerate() {
        let arg = core::ptr::from_ref(pair) as usize;
        let handler = Some(Handler { function: interrupt, arg, cpu: number });
        let index = 2 * number as u16;
        let (mut queue, doorbell) = start_queue(&*transport, index, QUEUE_SIZE, direct, handler)?;
        fill(&mut queue);
        queue.enable_interrupts(1);
        let _ = pair.rx.set(SpinLock::new(Side { queue, doorbell }));
        let (mut queue, doorbell) =
            start_queue(&*transport, index + 1, QUEUE_SIZE, direct, handler)?;
        queue.disable_interrupts();
        let side = Side { queue, doorbell };
        let _ = pair.tx.set(SpinLock::new(Transmit { side, backlog: VecDeque::new() }));
    }
    let control = match count {
        1 => None,
        _ => Some(start_queue(&*transport, 2 * offered_pairs as u16, 4, features, None)?),
    };
    ready(&*transport);
    if let Some((queue, doorbell)) = control {
        use_pairs(queue, doorbell, count as u16)?;
    }
    for pair in &card.pairs {
        if let Some(rx) = pair.rx.get() {
            rx.lock().notify();
        }
    }
    Ok(card)
}

/// Tells the device to use so many pairs: until then it knows the first one only. EIO if it refuses.
fn use_pairs(queue: Queue<()>, doorbell: Doorbell, count: u16) -> Result<()> {
    // On the heap, as the device reads and writes them by their addresses; and for ever, as the queue
    // stays in service and a device that fails may still write.
    let [low, high] = count.to_le_bytes();
    let queue = Box::leak(Box::new(queue));
    let command = Box::leak(Box::new([SET_PAIRS[0], SET_PAIRS[1], low, high]));
    let answer = Box::leak(Box::new([0xff_u8]));
    let (asked, answered) = (Segment::of(&command[..]), Segment::of(&answer[..]));
    queue.push(&[asked], &[answered], ()).map_err(|()| Errno::EIO)?;
    doorbell.ring();
    let deadline = crate::time::now_ns() + ANSWER_NS;
    while queue.pop()?.is_none() {
        if crate::time::now_ns() > deadline {
            return Err(Errno::EIO);
        }
        core::hint::spin_loop();
    }
    // SAFETY: a valid reference; volatile, because the device wrote it.
    let status = unsafe { core::ptr::from_ref(&answer[0]).read_volatile() };
    if status == 0 { Ok(()) } else { Err(Errno::EIO) }
}

fn interrupt(arg: usize) {
    // SAFETY: `start` made the argument from a pair of a card that it leaked.
    let pair = unsafe { &*(arg as *const Pair) };
    pair.signalled.store(true, Ordering::Release);
    softirq::raise(softirq::Kind::Net);
}

/// Gives the device every buffer it can hold.
fn fill(queue: &mut Queue<Packet>) {
    while queue.fits(1) {
        let Some(packet) = Packet::for_receive() else { return };
        let segment = Segment::of(packet.bytes());
        if queue.push(&[], &[segment], packet).is_err() {
            return;
        }
    }
}

impl Side {
    fn notify(&mut self) {
        if self.queue.should_notify() {
            self.doorbell.ring();
        }
    }
}

impl Transmit {
    /// Takes sent frames back and sends those that wait.
    fn drain(&mut self) {
        loop {
            while let Ok(Some((packet, _))) = self.side.queue.pop() {
                drop(packet);
            }
            while let Some(packet) = self.backlog.pop_front() {
                if let Err(packet) = self.push(packet) {
                    self.backlog.push_front(packet);
                    break;
                }
            }
            let queue = &mut self.side.queue;
            // A broken queue stays as it is: frames are dropped as the backlog overflows.
            if self.backlog.is_empty() || queue.broken() {
                return;
            }
            // Half of them done is a good time to come back; some done already is a better one.
            if !queue.enable_interrupts(queue.in_flight() / 2 + 1) {
                return;
            }
        }
    }

    fn push(&mut self, packet: Packet) -> core::result::Result<(), Packet> {
        let segment = Segment::of(packet.bytes());
        self.side.queue.push(&[segment], &[], packet)
    }
}

/// Puts the virtio header in front of a frame.
fn prepend(frame: &mut Packet) {
    let Offload { checksum, segment } = frame.offload;
    let bytes = frame.bytes();
    let v4 = bytes.get(ETHERNET).is_some_and(|byte| byte >> 4 == 4);
    let start = ETHERNET + if v4 { ip::V4_HEADER } else { ip::V6_HEADER };
    let tcp_header = bytes.get(start + 12).map_or(20, |byte| usize::from(byte >> 4) * 4);
    let header = frame.push_front(HEADER);
    header.fill(0);
    if !checksum {
        return;
    }
    header[0] = NEEDS_CSUM;
    header[6..8].copy_from_slice(&(start as u16).to_le_bytes());
    // Where TCP keeps its checksum; only TCP asks for offloads.
    header[8..10].copy_from_slice(&16u16.to_le_bytes());
    if segment > 0 {
        header[1] = if v4 { GSO_TCPV4 } else { GSO_TCPV6 };
        header[2..4].copy_from_slice(&((start + tcp_header) as u16).to_le_bytes());
        header[4..6].copy_from_slice(&segment.to_le_bytes());
    }
}

impl NetDevice for VirtioNet {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }
    fn mtu(&self) -> usize {
        self.mtu
    }
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn transmit(&self, mut frame: Packet) {
        let at = if self.pairs.len() > 1 { flow(frame.bytes()) % self.pairs.len() } else { 0 };
        let Some(tx) = self.pairs[at].tx.get() else { return };
        prepend(&mut frame);
        let mut tx = tx.lock();
        if tx.side.queue.free() < QUEUE_SIZE / 4 || !tx.backlog.is_empty() {
            tx.drain();
        }
        if tx.backlog.is_empty() {
            let Err(back) = tx.push(frame) else { return };
            frame = back;
        }
        if tx.backlog.len() < BACKLOG {
            tx.backlog.push_back(frame);
            tx.drain();
        }
    }

    fn queues(&self) -> usize {
        self.pairs.len()
    }

    fn kick(&self) {
        for pair in &self.pairs {
            if let Some(tx) = pair.tx.get() {
                tx.lock().side.notify();
            }
        }
    }

    fn poll(&self, stack: &Arc<Stack>) -> bool {
        // This CPU's own first; interrupts of the others may have come here all the same.
        let (before, from) = self.pairs.split_at(cpu::id() % self.pairs.len());
        let mut more = false;
        for pair in from.iter().chain(before) {
            more |= pair.poll(stack);
        }
        more
    }
}

/// A number that all frames of one connection have in common, and few others.
fn flow(frame: &[u8]) -> usize {
    let v4 = frame.get(ETHERNET).is_some_and(|byte| byte >> 4 == 4);
    // Addresses and, where the header has no options, ports.
    let (from, len) = if v4 { (ETHERNET + 12, 12) } else { (ETHERNET + 8, 36) };
    let words = frame.get(from..from + len).unwrap_or_default().chunks_exact(4);
    let sum = words.fold(0u32, |sum, word| {
        let word = word.iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
        (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b1)
    });
    (sum >> 16) as usize
}

impl Pair {
    fn poll(&self, stack: &Arc<Stack>) -> bool {
        if !self.signalled.swap(false, Ordering::AcqRel) {
            return false;
        }
        if let Some(tx) = self.tx.get() {
            let mut tx = tx.lock();
            if !tx.backlog.is_empty() {
                tx.drain();
                tx.side.notify();
            }
        }
        let Some(rx) = self.rx.get() else { return false };
        // One CPU at a time, so that frames stay in order.
        let Some(mut side) = rx.try_lock() else {
            self.signalled.store(true, Ordering::Release);
            return false;
        };
        for _ in 0..BUDGET {
            let Ok(found) = side.queue.pop() else { return false };
            let Some((packet, len)) = found else {
                fill(&mut side.queue);
                side.notify();
                if side.queue.enable_interrupts(1) {
                    continue;
                }
                return false;
            };
            if let Some(frame) = receive(&mut side.queue, packet, len as usize) {
                stack.input_frame(frame);
            }
            if side.queue.free() > QUEUE_SIZE / 2 {
                fill(&mut side.queue);
                side.notify();
            }
        }
        self.signalled.store(true, Ordering::Release);
        true
    }
}

/// Makes a frame of what the device has written; the rest of a frame in several buffers follows in
/// the queue.
fn receive(queue: &mut Queue<Packet>, mut packet: Packet, len: usize) -> Option<Packet> {
    packet.truncate(len);
    let header: [u8; HEADER] = *packet.bytes().first_chunk()?;
    let buffers = u16::from_le_bytes([header[10], header[11]]);
    packet.trim_front(HEADER);
    if buffers > 1 {
        // What lies in `n` buffers is no longer than those.
        let room = usize::from(buffers) * packet::SMALL;
        let mut whole = Packet::new(room.min(packet::MAX_FRAME))?;
        let mut filled = packet.len().min(whole.len());
        whole.bytes_mut()[..filled].copy_from_slice(&packet.bytes()[..filled]);
        for _ in 1..buffers {
            let (mut more, len) = queue.pop().ok()??;
            more.truncate(len as usize);
            let n = more.len().min(whole.len() - filled);
            whole.bytes_mut()[filled..filled + n].copy_from_slice(&more.bytes()[..n]);
            filled += n;
        }
        whole.truncate(filled);
        packet = whole;
    }
    packet.offload.checksum = header[0] & (NEEDS_CSUM | DATA_VALID) != 0;
    Some(packet)
}

#[cfg(test)]
mod tests;
