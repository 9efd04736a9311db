//! virtio over PCI (virtio 1.2, section 4.1), with MSI-X.

use super::{Doorbell, Handler, Transport};
use crate::arch::{cpu, irq, mmio};
use crate::drivers::pci::{self, Address, Msix};
use crate::errno::{Errno, Result};
use crate::sync::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;

const VENDOR: u16 = 0x1af4;
const CAP_VENDOR: u8 = 0x09;
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const DEVICE: u8 = 4;
const NO_VECTOR: u16 = 0xffff;

const DEVICE_FEATURE_SELECT: usize = 0x00;
const DEVICE_FEATURE: usize = 0x04;
const DRIVER_FEATURE_SELECT: usize = 0x08;
const DRIVER_FEATURE: usize = 0x0c;
const CONFIG_VECTOR: usize = 0x10;
const STATUS: usize = 0x14;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_SIZE: usize = 0x18;
const QUEUE_VECTOR: usize = 0x1a;
const QUEUE_ENABLE: usize = 0x1c;
const QUEUE_NOTIFY_OFF: usize = 0x1e;
const QUEUE_DESC: usize = 0x20;
const QUEUE_DRIVER: usize = 0x28;
const QUEUE_DEVICE: usize = 0x30;
const COMMON_LEN: usize = 0x38;

/// One device.
struct Pci {
    kind: u32,
    common: Window,
    notify: Window,
    multiplier: usize,
    device: Option<Window>,
    msix: Msix,
    /// Handlers with the vectors that serve them.
    vectors: SpinLock<Vec<(usize, u16)>>,
}

/// Mapped registers.
#[derive(Clone, Copy)]
struct Window {
    base: usize,
    len: usize,
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, offset: usize) -> $type {
            if offset + size_of::<$type>() > self.len {
                return 0;
            }
            // SAFETY: inside the mapped window (just checked); registers are naturally aligned.
            unsafe { ((self.base + offset) as *const $type).read_volatile() }
        }
        #[allow(dead_code, reason = "not every width is written")]
        fn $write(&self, offset: usize, value: $type) {
            if offset + size_of::<$type>() > self.len {
                return;
            }
            // SAFETY: as above.
            unsafe { ((self.base + offset) as *mut $type).write_volatile(value) }
        }
    };
}

impl Window {
    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);

    fn write64(&self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}

/// Every virtio device on PCI.
pub fn find() -> Vec<Arc<dyn Transport>> {
    let mut found: Vec<Arc<dyn Transport>> = Vec::new();
    if !pci::present() {
        return found;
    }
    for address in pci::functions() {
        let Some((VENDOR, device)) = address.id() else { continue };
        match open(&address, device) {
            Ok(transport) => found.push(Arc::new(transport)),
            Err(error) => crate::error!(
                "virtio: PCI device {device:#06x} at {:02x}:{:02x}.{} refused: {error:?}; \
                 it must be modern (disable-legacy=on or transitional) and have MSI-X",
                address.bus,
                address.device,
                address.function
            ),
        }
    }
    found
}

fn open(address: &Address, device: u16) -> Result<Pci> {
    let kind = match device {
        // Transitional devices: the type is the subsystem number.
        0x1000..=0x103f => address.read(0x2c) >> 16,
        0x1040..=0x107f => u32::from(device) - 0x1040,
        _ => return Err(Errno::ENODEV),
    };
    address.enable();
    let (mut common, mut notify, mut config, mut multiplier) = (None, None, None, 0);
    for (cap, at) in address.capabilities() {
        if cap != CAP_VENDOR {
            continue;
        }
        let (kind, bar) = (address.read_u8(at + 3), address.read_u8(at + 4));
        let slot = match kind {
            COMMON => &mut common,
            NOTIFY => &mut notify,
            DEVICE => &mut config,
            _ => continue,
        };
        // The first of a kind is the preferred one.
        if slot.is_some() {
            continue;
        }
        let (offset, len) = (address.read(at + 8) as usize, address.read(at + 12) as usize);
        let Ok(bar) = address.bar(bar) else { continue };
        if len == 0 || len > 1 << 20 {
            continue;
        }
        let start = bar.checked_add(offset).ok_or(Errno::ENODEV)?;
        *slot = Some(Window { base: mmio::map(start, len)? as usize, len });
        if kind == NOTIFY {
            multiplier = address.read(at + 16) as usize;
        }
    }
    let common = common.filter(|window| window.len >= COMMON_LEN).ok_or(Errno::ENODEV)?;
    Ok(Pci {
        kind,
        common,
        notify: notify.ok_or(Errno::ENODEV)?,
        multiplier,
        device: config,
        msix: Msix::enable(address)?,
        vectors: SpinLock::new(Vec::new()),
    })
}

impl Pci {
    /// The table entry that interrupts for `handler`; queues of one driver share one.
    fn vector(&self, handler: Handler) -> Result<u16> {
        let mut vectors = self.vectors.lock();
        if let Some(&(_, vector)) = vectors.iter().find(|(arg, _)| *arg == handler.arg) {
            return Ok(vector);
        }
        let vector = vectors.len() as u16;
        let message = irq::alloc_msi_vector(handler.cpu, handler.function, handler.arg)?;
        self.msix.set(vector, message)?;
        vectors.push((handler.arg, vector));
        Ok(vector)
    }
}

impl Transport for Pci {
    fn device_type(&self) -> u32 {
        self.kind
    }
    fn device_features(&self) -> u64 {
        self.common.write32(DEVICE_FEATURE_SELECT, 0);
        let low = self.common.read32(DEVICE_FEATURE);
        self.common.write32(DEVICE_FEATURE_SELECT, 1);
        u64::from(low) | u64::from(self.common.read32(DEVICE_FEATURE)) << 32
    }
    fn set_driver_features(&self, features: u64) {
        self.common.write32(DRIVER_FEATURE_SELECT, 0);
        self.common.write32(DRIVER_FEATURE, features as u32);
        self.common.write32(DRIVER_FEATURE_SELECT, 1);
        self.common.write32(DRIVER_FEATURE, (features >> 32) as u32);
    }
    fn status(&self) -> u8 {
        self.common.read8(STATUS)
    }
    fn set_status(&self, status: u8) {
        self.common.write8(STATUS, status);
        while status == 0 && self.common.read8(STATUS) != 0 {
            cpu::relax();
        }
        if status == 0 {
            self.common.write16(CONFIG_VECTOR, NO_VECTOR);
        }
    }
    fn queue_max(&self, queue: u16) -> u16 {
        self.common.write16(QUEUE_SELECT, queue);
        self.common.read16(QUEUE_SIZE)
    }
    fn start_queue(
        &self,
        queue: u16,
        size: u16,
        [desc, driver, device]: [usize; 3],
        handler: Option<Handler>,
    ) -> Result<Doorbell> {
        let vector = match handler {
            Some(handler) => self.vector(handler)?,
            None => NO_VECTOR,
        };
        self.common.write16(QUEUE_SELECT, queue);
        self.common.write16(QUEUE_SIZE, size);
        self.common.write16(QUEUE_VECTOR, vector);
        if self.common.read16(QUEUE_VECTOR) != vector {
            return Err(Errno::ENOSPC);
        }
        self.common.write64(QUEUE_DESC, desc as u64);
        self.common.write64(QUEUE_DRIVER, driver as u64);
        self.common.write64(QUEUE_DEVICE, device as u64);
        let offset = usize::from(self.common.read16(QUEUE_NOTIFY_OFF)) * self.multiplier;
        if offset + 2 > self.notify.len {
            return Err(Errno::ENODEV);
        }
        self.common.write16(QUEUE_ENABLE, 1);
        Ok(Doorbell::Half(self.notify.base + offset, queue))
    }
    fn config_u8(&self, offset: usize) -> u8 {
        self.device.map_or(0, |window| window.read8(offset))
    }
    fn config_u16(&self, offset: usize) -> u16 {
        self.device.map_or(0, |window| window.read16(offset))
    }
    fn config_u32(&self, offset: usize) -> u32 {
        self.device.map_or(0, |window| window.read32(offset))
    }
}
