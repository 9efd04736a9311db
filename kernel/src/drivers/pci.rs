//! PCI: configuration space by ports or by ECAM, capabilities, base addresses, MSI-X.

use crate::arch::{firmware, mmio, port};
use crate::errno::{Errno, Result};
use crate::sync::{IrqLock, Once};
use alloc::vec::Vec;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const COMMAND: u16 = 0x04;
const HEADER_TYPE: u16 = 0x0e;
const BARS: u16 = 0x10;
const CAPABILITIES: u16 = 0x34;
const STATUS_CAPABILITIES: u32 = 1 << 20;
const COMMAND_MEMORY: u32 = 2;
const COMMAND_MASTER: u32 = 4;
const COMMAND_INTX_OFF: u32 = 1 << 10;
const CAP_MSIX: u8 = 0x11;

/// A function's place on its bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Bus.
    pub bus: u8,
    /// Device, below 32.
    pub device: u8,
    /// Function, below 8.
    pub function: u8,
}

enum Access {
    /// Mapped configuration space: virtual address of bus `first`, and the last bus.
    Ecam {
        base: usize,
        first: u8,
        last: u8,
    },
    Ports,
    Absent,
}

static ACCESS: Once<Access> = Once::new();
static PORTS: IrqLock<()> = IrqLock::new(());

fn access() -> &'static Access {
    ACCESS.get_or_init(|| {
        if let Some(ecam) = firmware::get().ecam().iter().find(|ecam| ecam.segment == 0) {
            let buses = usize::from(ecam.last_bus - ecam.first_bus) + 1;
            // One bus is enough to see what is there; bridges may lead to more of it.
            if let Ok(base) = mmio::map(ecam.base as usize, buses.min(4) << 20) {
                let last = ecam.first_bus + buses.min(4) as u8 - 1;
                return Access::Ecam { base: base as usize, first: ecam.first_bus, last };
            }
        }
        // SAFETY: the configuration ports of every PC with PCI; without it nothing answers.
        let answer = unsafe {
            port::outl(ADDRESS, 1 << 31);
            port::inl(ADDRESS)
        };
        if answer == 1 << 31 { Access::Ports } else { Access::Absent }
    })
}

/// Whether there is a PCI host bridge.
pub fn present() -> bool {
    !matches!(access(), Access::Absent)
}

impl Address {
    /// Reads a configuration word; all ones where nothing answers.
    pub fn read(&self, offset: u16) -> u32 {
        match access() {
            Access::Ecam { base, first, last } if (*first..=*last).contains(&self.bus) => {
                let at = self.mapped(*base, *first, offset);
                // SAFETY: inside the mapped configuration space, aligned.
                unsafe { (at as *const u32).read_volatile() }
            }
            Access::Ports => {
                let _guard = PORTS.lock();
                // SAFETY: configuration reads have no side effects on memory.
                unsafe {
                    port::outl(ADDRESS, self.selector(offset));
                    port::inl(DATA)
                }
            }
            _ => u32::MAX,
        }
    }

    /// Writes a configuration word.
    pub fn write(&self, offset: u16, value: u32) {
        match access() {
            Access::Ecam { base, first, last } if (*first..=*last).contains(&self.bus) => {
                let at = self.mapped(*base, *first, offset);
                // SAFETY: inside the mapped configuration space, aligned.
                unsafe { (at as *mut u32).write_volatile(value) }
            }
            Access::Ports => {
                let _guard = PORTS.lock();
                // SAFETY: callers write registers of devices that they own.
                unsafe {
                    port::outl(ADDRESS, self.selector(offset));
                    port::outl(DATA, value);
                }
            }
            _ => {}
        }
    }

    fn mapped(&self, base: usize, first: u8, offset: u16) -> usize {
        let function = usize::from(self.device & 31) << 3 | usize::from(self.function & 7);
        let offset = usize::from(offset & 0xffc);
        base + (usize::from(self.bus - first) << 20) + (function << 12) + offset
    }

    fn selector(&self, offset: u16) -> u32 {
        let function = u32::from(self.device & 31) << 3 | u32::from(self.function & 7);
        1 << 31 | u32::from(self.bus) << 16 | function << 8 | u32::from(offset & 0xfc)
    }

    /// Reads a byte.
    pub fn read_u8(&self, offset: u16) -> u8 {
        (self.read(offset & !3) >> (8 * (offset & 3))) as u8
    }

    /// Vendor and device number; `None`: nothing there.
    pub fn id(&self) -> Option<(u16, u16)> {
        let word = self.read(0);
        (word as u16 != 0xffff).then_some((word as u16, (word >> 16) as u16))
    }

    /// Capabilities: (kind, offset).
    pub fn capabilities(&self) -> Vec<(u8, u16)> {
        let mut all = Vec::new();
        if self.read(COMMAND) & STATUS_CAPABILITIES == 0 {
            return all;
        }
        let mut at = u16::from(self.read_u8(CAPABILITIES) & 0xfc);
        // No more fit into the space, so a loop in the list ends here.
        while at >= 0x40 && all.len() < 48 {
            all.push((self.read_u8(at), at));
            at = u16::from(self.read_u8(at + 1) & 0xfc);
        }
        all
    }

    /// Physical address of a memory base address register. ENODEV if it is an I/O register or
    /// unset.
    pub fn bar(&self, index: u8) -> Result<usize> {
        if index > 5 {
            return Err(Errno::ENODEV);
        }
        let at = BARS + 4 * u16::from(index);
        let low = self.read(at);
        if low & 1 != 0 {
            return Err(Errno::ENODEV);
        }
        let mut addr = u64::from(low & !15);
        if low >> 1 & 3 == 2 && index < 5 {
            addr |= u64::from(self.read(at + 4)) << 32;
        }
        if addr == 0 { Err(Errno::ENODEV) } else { Ok(addr as usize) }
    }

    /// Lets the device reach memory and answer there; line interrupts go off.
    pub fn enable(&self) {
        let command = self.read(COMMAND) & 0xffff;
        self.write(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_OFF);
    }
}

/// Every function on the buses that can be reached from bus 0.
pub fn functions() -> Vec<Address> {
    let mut found = Vec::new();
    let mut buses = alloc::vec![0u8];
    let mut at = 0;
    while at < buses.len() {
        let bus = buses[at];
        at += 1;
        for device in 0..32 {
            let first = Address { bus, device, function: 0 };
            if first.id().is_none() {
                continue;
            }
            let several = first.read_u8(HEADER_TYPE) & 0x80 != 0;
            for function in 0..if several { 8 } else { 1 } {
                let address = Address { bus, device, function };
                if address.id().is_none() {
                    continue;
                }
                found.push(address);
                // A bridge: its secondary bus.
                if address.read_u8(HEADER_TYPE) & 0x7f == 1 {
                    let secondary = address.read_u8(0x19);
                    if secondary != 0 && !buses.contains(&secondary) {
                        buses.push(secondary);
                    }
                }
            }
        }
    }
    found
}

/// A device's MSI-X table.
pub struct Msix {
    table: usize,
    /// Number of vectors.
    pub len: u16,
}

impl Msix {
    /// Switches a device to MSI-X, all vectors masked. ENODEV if it has none.
    pub fn enable(address: &Address) -> Result<Msix> {
        let capabilities = address.capabilities();
        let found = capabilities.iter().find(|(kind, _)| *kind == CAP_MSIX);
        let (_, at) = *found.ok_or(Errno::ENODEV)?;
        let control = address.read(at);
        let len = (control >> 16 & 0x7ff) as u16 + 1;
        let place = address.read(at + 4);
        let bar = address.bar((place & 7) as u8)?;
        let table = mmio::map(bar + (place & !7) as usize, usize::from(len) * 16)? as usize;
        let msix = Msix { table, len };
        for vector in 0..len {
            msix.word(vector, 3, 1);
        }
        // Enabled, function mask off.
        address.write(at, control & !(1 << 30) | 1 << 31);
        Ok(msix)
    }

    /// Points a vector at a CPU and unmasks it.
    pub fn set(&self, vector: u16, (address, data): (u64, u32)) -> Result<()> {
        if vector >= self.len {
            return Err(Errno::ENOSPC);
        }
        self.word(vector, 0, address as u32);
        self.word(vector, 1, (address >> 32) as u32);
        self.word(vector, 2, data);
        self.word(vector, 3, 0);
        Ok(())
    }

    fn word(&self, vector: u16, index: usize, value: u32) {
        let at = self.table + usize::from(vector) * 16 + index * 4;
        // SAFETY: inside the mapped table; callers keep `vector` below `len`.
        unsafe { (at as *mut u32).write_volatile(value) }
    }
}
