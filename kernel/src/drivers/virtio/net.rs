//! virtio-net: checksum and segmentation offload, mergeable buffers, interrupts by event index,
//! batched notifications.

use super::queue::{Queue, Segment};
use super::{Doorbell, Handler, Transport, feature, negotiate, ready, start_queue};
use crate::errno::Result;
use crate::net::ip;
use crate::net::packet::{Offload, Packet};
use crate::net::stack::{NetDevice, Offloads, Stack};
use crate::sync::{Once, SpinLock, softirq};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const MRG_RXBUF: u64 = 1 << 15;

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
const RX: u16 = 0;
const TX: u16 = 1;
const QUEUE_SIZE: u16 = 256;

/// A network card.
pub struct VirtioNet {
    mac: [u8; 6],
    mtu: usize,
    offloads: Offloads,
    rx: Once<SpinLock<Side>>,
    tx: Once<SpinLock<Transmit>>,
    /// An interrupt has come since the last visit.
    signalled: AtomicBool,
    _transport: Arc<dyn Transport>,
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
    let card = start(transport)?;
    crate::net::stack().attach(card);
    Ok(())
}

/// Starts a card.
pub fn start(transport: Arc<dyn Transport>) -> Result<Arc<VirtioNet>> {
    let wanted = CSUM | GUEST_CSUM | MTU | MAC | HOST_TSO4 | HOST_TSO6 | MRG_RXBUF;
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
    let card = Arc::new(VirtioNet {
        mac,
        // One buffer holds one frame.
        mtu: mtu.clamp(1280, 1500),
        offloads: Offloads { checksum: has(CSUM), tso4: has(HOST_TSO4), tso6: has(HOST_TSO6) },
        rx: Once::new(),
        tx: Once::new(),
        signalled: AtomicBool::new(true),
        _transport: transport.clone(),
    });
    // The card lives as long as the kernel: its interrupt handler may come at any time.
    let arg = Arc::into_raw(card.clone()) as usize;
    let handler = Some(Handler { function: interrupt, arg });
    // One segment each way: indirect tables would only cost memory.
    let direct = features & !feature::INDIRECT;
    let (mut queue, doorbell) = start_queue(&*transport, RX, QUEUE_SIZE, direct, handler)?;
    fill(&mut queue);
    queue.enable_interrupts(1);
    let _ = card.rx.set(SpinLock::new(Side { queue, doorbell }));
    let (mut queue, doorbell) = start_queue(&*transport, TX, QUEUE_SIZE, direct, handler)?;
    queue.disable_interrupts();
    let side = Side { queue, doorbell };
    let _ = card.tx.set(SpinLock::new(Transmit { side, backlog: VecDeque::new() }));
    ready(&*transport);
    if let Some(rx) = card.rx.get() {
        rx.lock().notify();
    }
    Ok(card)
}

fn interrupt(arg: usize) {
    // SAFETY: `start` leaked one reference as the argument.
    let card = unsafe { &*(arg as *const VirtioNet) };
    card.signalled.store(true, Ordering::Release);
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
        let Some(tx) = self.tx.get() else { return };
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

    fn kick(&self) {
        if let Some(tx) = self.tx.get() {
            tx.lock().side.notify();
        }
    }

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
        let mut whole = Packet::new(crate::net::packet::MAX_IP)?;
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
