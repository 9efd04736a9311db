//! virtio 1.x drivers, over PCI and memory-mapped transports. Legacy (pre-1.0) devices are refused.
//!
//! A [`Transport`] hides how a device is reached; drivers for block, network, entropy and console
//! devices sit on it and compile for the host as well, where tests play the device.

pub mod blk;
pub mod console;
#[cfg(guest)]
pub mod mmio;
pub mod net;
pub mod ninep;
#[cfg(guest)]
pub mod pci;
pub mod queue;
pub mod rng;

use crate::errno::{Errno, Result};
use alloc::sync::Arc;
use queue::Queue;

/// Device types (virtio 1.2, section 5).
pub mod device_type {
    #![allow(missing_docs, reason = "the names say it")]
    pub const NET: u32 = 1;
    pub const BLOCK: u32 = 2;
    pub const CONSOLE: u32 = 3;
    pub const ENTROPY: u32 = 4;
    pub const NINEP: u32 = 9;
}

/// Feature bits that every device type has.
pub mod feature {
    /// Indirect descriptors.
    pub const INDIRECT: u64 = 1 << 28;
    /// Event indices instead of flags.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// virtio 1.0 or later.
    pub const VERSION_1: u64 = 1 << 32;
}

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const FAILED: u8 = 128;

/// Tells a device that a queue has new requests.
#[derive(Clone, Copy, Debug)]
pub enum Doorbell {
    /// PCI: 16 bits to the queue's notification address.
    Half(usize, u16),
    /// MMIO: 32 bits to the notification register.
    Word(usize, u32),
    /// Nobody listens (tests poll).
    None,
}

impl Doorbell {
    /// Rings it.
    pub fn ring(&self) {
        match *self {
            // SAFETY: the transport made the address from mapped device memory that stays mapped.
            Doorbell::Half(addr, queue) => unsafe { (addr as *mut u16).write_volatile(queue) },
            // SAFETY: as above.
            Doorbell::Word(addr, queue) => unsafe { (addr as *mut u32).write_volatile(queue) },
            Doorbell::None => {}
        }
    }
}

/// What to call on an interrupt: with interrupts off, so only `IrqLock`s.
#[derive(Clone, Copy)]
pub struct Handler {
    /// Function.
    pub function: fn(usize),
    /// Its argument: one vector per argument, where the transport has vectors.
    pub arg: usize,
    /// The CPU on which it should run, where the transport lets us choose.
    pub cpu: usize,
}

/// One virtio device on some bus.
pub trait Transport: Send + Sync {
    /// Device type number.
    fn device_type(&self) -> u32;
    /// Feature bits that the device offers.
    fn device_features(&self) -> u64;
    /// Accepts feature bits.
    fn set_driver_features(&self, features: u64);
    /// Device status.
    fn status(&self) -> u8;
    /// Changes the device status; 0 resets and returns when the device is reset.
    fn set_status(&self, status: u8);
    /// Largest size of a queue; 0: there is none of that number.
    fn queue_max(&self, queue: u16) -> u16;
    /// Puts a queue into service.
    fn start_queue(
        &self,
        queue: u16,
        size: u16,
        addresses: [usize; 3],
        handler: Option<Handler>,
    ) -> Result<Doorbell>;
    /// Reads a byte of the device's configuration.
    fn config_u8(&self, offset: usize) -> u8;
    /// Configuration words are read in their own width by those transports that care.
    fn config_u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.config_u8(offset), self.config_u8(offset + 1)])
    }
    /// As [`config_u16`](Transport::config_u16).
    fn config_u32(&self, offset: usize) -> u32 {
        u32::from(self.config_u16(offset)) | u32::from(self.config_u16(offset + 2)) << 16
    }
    /// As [`config_u16`](Transport::config_u16).
    fn config_u64(&self, offset: usize) -> u64 {
        u64::from(self.config_u32(offset)) | u64::from(self.config_u32(offset + 4)) << 32
    }
}

/// Resets a device and agrees on features: of `wanted`, what it offers. ENODEV for a legacy device.
pub fn negotiate(transport: &dyn Transport, wanted: u64) -> Result<u64> {
    transport.set_status(0);
    transport.set_status(ACKNOWLEDGE | DRIVER);
    let offered = transport.device_features();
    if offered & feature::VERSION_1 == 0 {
        transport.set_status(FAILED);
        return Err(Errno::ENODEV);
    }
    let features = offered & (wanted | feature::VERSION_1);
    transport.set_driver_features(features);
    transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    if transport.status() & FEATURES_OK == 0 {
        transport.set_status(FAILED);
        return Err(Errno::ENODEV);
    }
    Ok(features)
}

/// Tells the device that the driver is ready.
pub fn ready(transport: &dyn Transport) {
    transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

/// Makes a queue of at most `want` entries and puts it into service. ENODEV if the device has no
/// such queue.
pub fn start_queue<T>(
    transport: &dyn Transport,
    index: u16,
    want: u16,
    features: u64,
    handler: Option<Handler>,
) -> Result<(Queue<T>, Doorbell)> {
    let max = transport.queue_max(index).min(want);
    if max == 0 {
        return Err(Errno::ENODEV);
    }
    let size = 1 << max.ilog2();
    let event_idx = features & feature::EVENT_IDX != 0;
    let queue = Queue::new(size, event_idx, features & feature::INDIRECT != 0)?;
    let doorbell = transport.start_queue(index, size, queue.addresses(), handler)?;
    Ok((queue, doorbell))
}

/// Starts the driver for a device; devices nobody drives are left alone.
pub fn attach(transport: Arc<dyn Transport>) -> Result<()> {
    match transport.device_type() {
        device_type::NET => net::attach(transport),
        device_type::BLOCK => blk::attach(transport),
        device_type::CONSOLE => console::attach(transport),
        device_type::ENTROPY => rng::attach(transport),
        device_type::NINEP => ninep::attach(transport),
        _ => Ok(()),
    }
}

/// Finds every virtio device and starts its driver. `cmdline` may name memory-mapped ones.
#[cfg(guest)]
pub fn probe(cmdline: &str) {
    for transport in mmio::find(cmdline).into_iter().chain(pci::find()) {
        let kind = transport.device_type();
        if let Err(error) = attach(transport) {
            crate::error!("virtio: device of type {kind} refused: {error:?}");
        }
    }
}
