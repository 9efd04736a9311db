use super::*;
use crate::drivers::virtio::device_type;
use crate::drivers::virtio::queue::model::{Chain, Device};
use crate::net::stack::Stack;

/// A card whose queues the test plays; its control queue answers by itself.
struct Model {
    features: u64,
    pairs: u16,
    accepted: SpinLock<u64>,
    status: SpinLock<u8>,
    queues: SpinLock<Vec<(u16, Device, Option<usize>)>>,
}

impl Model {
    fn new(features: u64, pairs: u16) -> Arc<Model> {
        Arc::new(Model {
            features: features | feature::VERSION_1 | MAC,
            pairs,
            accepted: SpinLock::new(0),
            status: SpinLock::new(0),
            queues: SpinLock::new(Vec::new()),
        })
    }

    /// The next request on a queue.
    fn take(&self, index: u16) -> Option<Chain> {
        let mut queues = self.queues.lock();
        queues.iter_mut().find(|queue| queue.0 == index)?.1.take()
    }

    /// Puts frames into the buffers of a receive queue, the first behind a header, and interrupts.
    fn deliver(&self, card: &VirtioNet, index: u16, parts: &[&[u8]]) {
        let mut queues = self.queues.lock();
        let device = &mut queues.iter_mut().find(|queue| queue.0 == index).unwrap().1;
        for part in parts {
            let chain = device.take().unwrap();
            let written = device.write(&chain, part);
            device.finish(&chain, written);
        }
        interrupt(core::ptr::from_ref(&card.pairs[usize::from(index / 2)]) as usize);
    }

    /// Answers one command on the control queue; returns it.
    fn command(&self, status: u8) -> Vec<u8> {
        let index = 2 * self.pairs;
        loop {
            if let Some(chain) = self.take(index) {
                let mut queues = self.queues.lock();
                let device = &mut queues.iter_mut().find(|queue| queue.0 == index).unwrap().1;
                let command = device.read(&chain);
                let written = device.write(&chain, &[status]);
                device.finish(&chain, written);
                return command;
            }
            std::thread::yield_now();
        }
    }
}

impl Transport for Model {
    fn device_type(&self) -> u32 {
        device_type::NET
    }
    fn device_features(&self) -> u64 {
        self.features
    }
    fn set_driver_features(&self, features: u64) {
        *self.accepted.lock() = features;
    }
    fn status(&self) -> u8 {
        *self.status.lock()
    }
    fn set_status(&self, status: u8) {
        *self.status.lock() = status;
    }
    fn queue_max(&self, queue: u16) -> u16 {
        if queue <= 2 * self.pairs { 256 } else { 0 }
    }
    fn start_queue(
        &self,
        queue: u16,
        size: u16,
        addresses: [usize; 3],
        handler: Option<Handler>,
    ) -> Result<Doorbell> {
        let device = Device::new(size, addresses);
        self.queues.lock().push((queue, device, handler.map(|handler| handler.cpu)));
        Ok(Doorbell::None)
    }
    fn config_u8(&self, offset: usize) -> u8 {
        match offset {
            0..6 => [2, 0, 0, 0, 0, 1][offset],
            8 => self.pairs as u8,
            _ => 0,
        }
    }
}

/// A frame of TCP over IPv4 from one port to another, without options.
fn frame(from: u16, to: u16) -> Packet {
    let mut bytes = alloc::vec![0; ETHERNET + 40];
    bytes[ETHERNET] = 0x45;
    bytes[ETHERNET + 12..][..8].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[ETHERNET + 20..][..2].copy_from_slice(&from.to_be_bytes());
    bytes[ETHERNET + 22..][..2].copy_from_slice(&to.to_be_bytes());
    Packet::from_slice(&bytes).unwrap()
}

#[test]
fn each_cpu_gets_a_pair_and_a_connection_stays_on_its_own() {
    let model = Model::new(CSUM | CTRL_VQ | MQ, 8);
    let device = model.clone();
    let answers = std::thread::spawn(move || device.command(0));
    let card = start(model.clone(), 4).unwrap();
    assert_eq!(answers.join().unwrap(), [4, 0, 4, 0]);
    // Of the eight pairs four are in use, and the control queue comes after all eight.
    let mut started: Vec<_> = model.queues.lock().iter().map(|queue| (queue.0, queue.2)).collect();
    let control = started.pop();
    assert_eq!(control, Some((16, None)));
    let expected: Vec<_> = (0..8).map(|index| (index, Some(usize::from(index / 2)))).collect();
    assert_eq!(started, expected);

    let mut used = [0; 4];
    for port in 40_000..40_064 {
        for _ in 0..3 {
            card.transmit(frame(80, port));
        }
        let counts: Vec<_> = (0..4u16)
            .map(|pair| core::iter::from_fn(|| model.take(2 * pair + 1)).count())
            .collect();
        let whole = counts.iter().position(|&count| count == 3);
        used[whole.expect("all of one connection on one queue")] += 1;
    }
    assert!(used.iter().all(|&count| count > 4), "{used:?}");
}

#[test]
fn without_several_queues_or_cpus_there_is_one_pair() {
    for (features, cpus) in [(CSUM, 4), (CSUM | CTRL_VQ | MQ, 1), (CSUM | CTRL_VQ, 4)] {
        let model = Model::new(features, 8);
        let card = start(model.clone(), cpus).unwrap();
        assert_eq!(card.pairs.len(), 1);
        assert_eq!(model.queues.lock().len(), 2);
        assert_eq!(*model.accepted.lock() & MQ, 0);
    }
}

#[test]
fn a_device_that_refuses_its_pairs_is_refused() {
    let model = Model::new(CTRL_VQ | MQ, 2);
    let device = model.clone();
    let answers = std::thread::spawn(move || device.command(1));
    assert_eq!(start(model, 2).err(), Some(Errno::EIO));
    answers.join().unwrap();
}

#[test]
fn a_large_frame_fills_several_buffers() {
    // Without mergeable buffers there is nowhere to put one.
    let model = Model::new(GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6, 1);
    start(model.clone(), 1).unwrap();
    assert_eq!(*model.accepted.lock() & (GUEST_TSO4 | GUEST_TSO6), 0);

    let tso = GUEST_TSO4 | GUEST_TSO6;
    let model = Model::new(GUEST_CSUM | MRG_RXBUF | tso, 1);
    let card = start(model.clone(), 1).unwrap();
    assert_eq!(*model.accepted.lock() & tso, tso);
    let mut first = alloc::vec![0; HEADER];
    (first[0], first[1], first[10]) = (NEEDS_CSUM, GSO_TCPV4, 34);
    first.extend_from_slice(frame(80, 40_000).bytes());
    first.resize(packet::SMALL, 1);
    let (middle, last) = ([2; packet::SMALL], [3; 9]);
    let mut parts: Vec<&[u8]> = alloc::vec![&first[..]];
    parts.resize(33, &middle[..]);
    parts.push(&last[..]);
    let stack = Stack::new(7);
    model.deliver(&card, 0, &parts);
    let (packets, bytes) = (&stack.stats.rx_packets, &stack.stats.rx_bytes);
    // More than IP can carry is cut, not taken for another frame.
    assert!(!card.poll(&stack));
    assert_eq!(packets.load(Ordering::Relaxed), 1);
    assert_eq!(bytes.load(Ordering::Relaxed), packet::MAX_FRAME as u64);
    // The buffers are the device's again.
    assert_eq!(core::iter::from_fn(|| model.take(0)).count(), 256);
}
