//! I/O APICs: from interrupt lines to vectors.

use super::irq::Line;
use super::{cpu, firmware, mmio};
use crate::debug;
use crate::errno::{Errno, Result};
use crate::sync::{IrqLock, Once};
use alloc::vec::Vec;

const SELECT: usize = 0;
const WINDOW: usize = 0x10;
const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

struct IoApic {
    registers: *mut u8,
    first: u32,
    lines: u32,
}

// SAFETY: registers are reached under the lock only.
unsafe impl Send for IoApic {}

impl IoApic {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: the registers are mapped for good; the lock around keeps select and window
        // together.
        unsafe {
            self.registers.add(SELECT).cast::<u32>().write_volatile(register);
            self.registers.add(WINDOW).cast::<u32>().read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as above.
        unsafe {
            self.registers.add(SELECT).cast::<u32>().write_volatile(register);
            self.registers.add(WINDOW).cast::<u32>().write_volatile(value);
        }
    }
}

static IOAPICS: Once<IrqLock<Vec<IoApic>>> = Once::new();

/// Finds the controllers and masks all their lines.
pub(super) fn init() {
    let mut found = Vec::new();
    for described in firmware::get().ioapics() {
        let Ok(registers) = mmio::map(described.address as usize, 0x20) else { continue };
        let mut ioapic = IoApic { registers, first: described.first_gsi, lines: 0 };
        let version = ioapic.read(VERSION);
        if version == u32::MAX {
            continue;
        }
        ioapic.lines = (version >> 16 & 0xff) + 1;
        for line in 0..ioapic.lines {
            ioapic.write(REDIRECTION + 2 * line, MASKED);
        }
        debug!(
            "ioapic: {:#x}, interrupts {}..{}",
            described.address,
            ioapic.first,
            ioapic.first + ioapic.lines
        );
        found.push(ioapic);
    }
    let _ = IOAPICS.set(IrqLock::new(found));
}

/// Where a line arrives and how.
pub(super) struct Route {
    /// Global system interrupt.
    pub gsi: u32,
    flags: u32,
}

/// Looks a line up. ENODEV if there is no controller for it.
pub(super) fn route(line: Line) -> Result<Route> {
    let route = match line {
        Line::Edge(gsi) => Route { gsi, flags: 0 },
        Line::Level(gsi) => Route { gsi, flags: LEVEL | ACTIVE_LOW },
        Line::LevelHigh(gsi) => Route { gsi, flags: LEVEL },
        Line::Isa(irq) => match firmware::get().isa_override(irq) {
            None => Route { gsi: irq, flags: 0 },
            Some((gsi, low, level)) => Route {
                gsi,
                flags: if low { ACTIVE_LOW } else { 0 } | if level { LEVEL } else { 0 },
            },
        },
    };
    let ioapics = IOAPICS.get().ok_or(Errno::ENODEV)?.lock();
    let known = ioapics.iter().any(|ioapic| ioapic.has(route.gsi));
    if known { Ok(route) } else { Err(Errno::ENODEV) }
}

impl IoApic {
    fn has(&self, gsi: u32) -> bool {
        gsi >= self.first && gsi - self.first < self.lines
    }
}

/// Sends a line to the boot CPU at `vector`.
pub(super) fn program(route: &Route, vector: u8) -> Result<()> {
    let ioapics = IOAPICS.get().ok_or(Errno::ENODEV)?.lock();
    let ioapic = ioapics.iter().find(|ioapic| ioapic.has(route.gsi)).ok_or(Errno::ENODEV)?;
    let register = REDIRECTION + 2 * (route.gsi - ioapic.first);
    ioapic.write(register, MASKED);
    ioapic.write(register + 1, cpu::apic_id(0) << 24);
    ioapic.write(register, u32::from(vector) | route.flags);
    Ok(())
}
