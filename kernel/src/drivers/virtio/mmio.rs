//! virtio over MMIO (virtio 1.2, section 4.2), version 2 register layout.

use super::{Doorbell, Handler, Transport};
use crate::arch::irq::{self, Line};
use crate::arch::{cpu, mmio};
use crate::errno::{Errno, Result};
use crate::sync::{IrqLock, Once};
use alloc::sync::Arc;
use alloc::vec::Vec;

const MAGIC: usize = 0x000;
const VERSION: usize = 0x004;
const DEVICE_ID: usize = 0x008;
const DEVICE_FEATURES: usize = 0x010;
const DEVICE_FEATURES_SEL: usize = 0x014;
const DRIVER_FEATURES: usize = 0x020;
const DRIVER_FEATURES_SEL: usize = 0x024;
const QUEUE_SEL: usize = 0x030;
const QUEUE_NUM_MAX: usize = 0x034;
const QUEUE_NUM: usize = 0x038;
const QUEUE_READY: usize = 0x044;
const QUEUE_NOTIFY: usize = 0x050;
const INTERRUPT_STATUS: usize = 0x060;
const INTERRUPT_ACK: usize = 0x064;
const STATUS: usize = 0x070;
const QUEUE_DESC: usize = 0x080;
const QUEUE_DRIVER: usize = 0x090;
const QUEUE_DEVICE: usize = 0x0a0;
const CONFIG: usize = 0x100;
const WINDOW: usize = 0x200;

/// "virt".
const MAGIC_VALUE: u32 = 0x7472_6976;
/// One device.
pub struct Mmio {
    base: usize,
    gsi: u32,
    device: u32,
    handlers: Arc<Handlers>,
    connected: Once<()>,
}

struct Handlers {
    base: usize,
    list: IrqLock<Vec<Handler>>,
}

fn read(base: usize, offset: usize) -> u32 {
    // SAFETY: `base` is a mapped register window and the offset lies in it, aligned.
    u32::from_le(unsafe { ((base + offset) as *const u32).read_volatile() })
}

fn write(base: usize, offset: usize, value: u32) {
    // SAFETY: as in `read`.
    unsafe { ((base + offset) as *mut u32).write_volatile(value.to_le()) }
}

/// Every device that the command line names (`virtio_mmio.device=SIZE@BASE:IRQ`), or else that the
/// firmware's tables name.
pub fn find(cmdline: &str) -> Vec<Arc<dyn Transport>> {
    let mut found: Vec<Arc<dyn Transport>> = Vec::new();
    let named = cmdline.split_ascii_whitespace();
    for spec in named.filter_map(|word| word.strip_prefix("virtio_mmio.device=")) {
        match parse(spec) {
            Some((base, gsi)) => found.extend(open(base, gsi)),
            None => crate::error!("virtio: `virtio_mmio.device={spec}` is not SIZE@BASE:IRQ"),
        }
    }
    if found.is_empty() {
        let dsdt = crate::arch::firmware::get().dsdt().unwrap_or_default();
        for (base, gsi) in acpi(dsdt) {
            found.extend(open(base, gsi));
        }
    }
    found
}

/// Devices with the hardware ID `LNRO0005` in a DSDT: base address and interrupt. Their resources
/// are plain templates, so no AML needs to be run: a Memory32Fixed and an Extended Interrupt
/// descriptor (ACPI 6.5, section 6.4.3) follow the ID.
fn acpi(dsdt: &[u8]) -> Vec<(usize, u32)> {
    const REACH: usize = 128;
    let mut found = Vec::new();
    for at in (0..dsdt.len()).filter(|&at| dsdt[at..].starts_with(b"LNRO0005")) {
        let tail = &dsdt[at + 8..dsdt.len().min(at + REACH)];
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let memory = tail.windows(12).find(|item| item[..3] == [0x86, 9, 0]);
        let interrupt = tail.windows(9).find(|item| item[..3] == [0x89, 6, 0] && item[4] == 1);
        if let (Some(memory), Some(interrupt)) = (memory, interrupt) {
            found.push((word(&memory[4..]) as usize, word(&interrupt[5..])));
        }
    }
    found
}

fn number(text: &str) -> Option<usize> {
    match text.strip_prefix("0x") {
        Some(hex) => usize::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `SIZE@BASE:IRQ[:ID]`; the size isn't needed.
fn parse(spec: &str) -> Option<(usize, u32)> {
    let (_, place) = spec.split_once('@')?;
    let mut parts = place.split(':');
    let base = number(parts.next()?)?;
    let gsi = number(parts.next()?)?;
    Some((base, gsi as u32))
}

fn open(paddr: usize, gsi: u32) -> Option<Arc<dyn Transport>> {
    let base = mmio::map(paddr, WINDOW).ok()? as usize;
    if read(base, MAGIC) != MAGIC_VALUE {
        return None;
    }
    let device = read(base, DEVICE_ID);
    if device == 0 {
        return None;
    }
    if read(base, VERSION) != 2 {
        crate::error!(
            "virtio: legacy device at {paddr:#x}; start QEMU with `-global \
             virtio-mmio.force-legacy=false`"
        );
        return None;
    }
    let handlers = Arc::new(Handlers { base, list: IrqLock::new(Vec::new()) });
    Some(Arc::new(Mmio { base, gsi, device, handlers, connected: Once::new() }))
}

fn interrupt(arg: usize) {
    // SAFETY: `connect` leaked one reference as the argument.
    let handlers = unsafe { &*(arg as *const Handlers) };
    let status = read(handlers.base, INTERRUPT_STATUS);
    if status == 0 {
        return;
    }
    write(handlers.base, INTERRUPT_ACK, status);
    for handler in handlers.list.lock().iter() {
        (handler.function)(handler.arg);
    }
}

impl Mmio {
    fn connect(&self, handler: Handler) -> Result<()> {
        let mut list = self.handlers.list.lock();
        // Queues of one driver share handler and argument.
        if !list.iter().any(|old| old.arg == handler.arg) {
            list.push(handler);
        }
        drop(list);
        if self.connected.set(()).is_ok() {
            let arg = Arc::into_raw(self.handlers.clone()) as usize;
            irq::register(Line::Edge(self.gsi), interrupt, arg)?;
        }
        Ok(())
    }
}

impl Transport for Mmio {
    fn device_type(&self) -> u32 {
        self.device
    }
    fn device_features(&self) -> u64 {
        write(self.base, DEVICE_FEATURES_SEL, 0);
        let low = read(self.base, DEVICE_FEATURES);
        write(self.base, DEVICE_FEATURES_SEL, 1);
        u64::from(low) | u64::from(read(self.base, DEVICE_FEATURES)) << 32
    }
    fn set_driver_features(&self, features: u64) {
        write(self.base, DRIVER_FEATURES_SEL, 0);
        write(self.base, DRIVER_FEATURES, features as u32);
        write(self.base, DRIVER_FEATURES_SEL, 1);
        write(self.base, DRIVER_FEATURES, (features >> 32) as u32);
    }
    fn status(&self) -> u8 {
        read(self.base, STATUS) as u8
    }
    fn set_status(&self, status: u8) {
        write(self.base, STATUS, status.into());
        while status == 0 && read(self.base, STATUS) != 0 {
            cpu::relax();
        }
    }
    fn queue_max(&self, queue: u16) -> u16 {
        write(self.base, QUEUE_SEL, queue.into());
        read(self.base, QUEUE_NUM_MAX).min(u16::MAX.into()) as u16
    }
    fn start_queue(
        &self,
        queue: u16,
        size: u16,
        [desc, driver, device]: [usize; 3],
        handler: Option<Handler>,
    ) -> Result<Doorbell> {
        write(self.base, QUEUE_SEL, queue.into());
        if read(self.base, QUEUE_READY) != 0 {
            return Err(Errno::EBUSY);
        }
        if let Some(handler) = handler {
            self.connect(handler)?;
            write(self.base, QUEUE_SEL, queue.into());
        }
        write(self.base, QUEUE_NUM, size.into());
        for (register, address) in
            [(QUEUE_DESC, desc), (QUEUE_DRIVER, driver), (QUEUE_DEVICE, device)]
        {
            write(self.base, register, address as u32);
            write(self.base, register + 4, (address >> 32) as u32);
        }
        write(self.base, QUEUE_READY, 1);
        Ok(Doorbell::Word(self.base + QUEUE_NOTIFY, queue.into()))
    }
    fn config_u8(&self, offset: usize) -> u8 {
        let at = self.base + CONFIG + offset;
        // SAFETY: inside the mapped window; drivers read the fields of their device's layout only.
        unsafe { (at as *const u8).read_volatile() }
    }
}
