//! What firmware tables say about the machine: ACPI, or the MP table where there is no ACPI
//! (microvm).
//!
//! The tables are input from outside: every access is checked against the table's length, and a
//! broken table is left out with a message.

use super::boot_info::BootInfo;
use super::insn::{inb, inw};
use super::paging::phys_to_virt;
use crate::arch::MAX_CPUS;
use crate::sync::Once;
use crate::{debug, error};
use alloc::vec::Vec;

/// An I/O APIC.
#[derive(Clone, Copy, Debug)]
pub struct IoApicInfo {
    /// Physical address of its registers.
    pub address: u32,
    /// First global system interrupt it serves.
    pub first_gsi: u32,
}

/// A PCI configuration window (MCFG).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Physical address of bus 0.
    pub base: u64,
    /// PCI segment group.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

/// A register named by ACPI's generic address structure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// Whether it is an I/O port (else memory).
    pub port: bool,
    /// Address.
    pub address: u64,
}

/// Power management, from the FADT.
#[derive(Clone, Debug, Default)]
pub struct Power {
    /// Hardware-reduced ACPI: no PM1 registers.
    pub reduced: bool,
    /// SCI's interrupt.
    pub sci: u32,
    /// PM1a and PM1b event ports; 0 if absent.
    pub pm1_event: [u16; 2],
    /// Bytes of an event block.
    pub pm1_event_len: u8,
    /// PM1a and PM1b control ports; 0 if absent.
    pub pm1_control: [u16; 2],
    /// PM timer port; 0 if absent.
    pub pm_timer: u16,
    /// Port and value that turn ACPI mode on; port 0 if it always is.
    pub enable: (u16, u8),
    /// Reset register and the value to write.
    pub reset: Option<(Register, u8)>,
    /// Sleep control register (reduced hardware).
    pub sleep_control: Option<Register>,
    /// SLP_TYPa and SLP_TYPb of S5.
    pub s5: Option<[u8; 2]>,
    /// Base address and interrupt of a generic event device.
    pub ged: Option<(u64, u32)>,
}

/// What the tables say.
#[derive(Default)]
pub struct Firmware {
    cpus: Vec<u32>,
    ioapics: Vec<IoApicInfo>,
    overrides: Vec<Override>,
    ecam: Vec<Ecam>,
    power: Option<Power>,
    dsdt: Option<&'static [u8]>,
}

#[derive(Clone, Copy)]
struct Override {
    isa: u32,
    gsi: u32,
    low: bool,
    level: bool,
}

static FIRMWARE: Once<Firmware> = Once::new();

/// What the tables say; empty before [`init`].
pub fn get() -> &'static Firmware {
    static NONE: Firmware = Firmware {
        cpus: Vec::new(),
        ioapics: Vec::new(),
        overrides: Vec::new(),
        ecam: Vec::new(),
        power: None,
        dsdt: None,
    };
    FIRMWARE.get().unwrap_or(&NONE)
}

impl Firmware {
    /// APIC IDs of the CPUs that can be started, the boot CPU among them.
    pub fn cpus(&self) -> &[u32] {
        &self.cpus
    }
    /// I/O APICs.
    pub fn ioapics(&self) -> &[IoApicInfo] {
        &self.ioapics
    }
    /// Where an ISA interrupt arrives if not at its own number: interrupt, active low,
    /// level-triggered.
    pub fn isa_override(&self, isa: u32) -> Option<(u32, bool, bool)> {
        let found = self.overrides.iter().find(|entry| entry.isa == isa)?;
        Some((found.gsi, found.low, found.level))
    }
    /// PCI configuration windows.
    pub fn ecam(&self) -> &[Ecam] {
        &self.ecam
    }
    /// Power management; `None` without ACPI.
    pub fn power(&self) -> Option<&Power> {
        self.power.as_ref()
    }
    /// Bytecode of the DSDT.
    pub fn dsdt(&self) -> Option<&'static [u8]> {
        self.dsdt
    }
}

/// Reads the tables.
pub(super) fn init(boot: &BootInfo) {
    let mut firmware = Firmware::default();
    match find_rsdp(boot) {
        Some(rsdp) => read_acpi(boot, rsdp, &mut firmware),
        None => debug!("acpi: no root pointer"),
    }
    if firmware.cpus.is_empty() && firmware.ioapics.is_empty() {
        read_mp_table(&mut firmware);
    }
    if firmware.ioapics.is_empty() {
        // Where every PC has its first one; the driver checks that something answers.
        firmware.ioapics.push(IoApicInfo { address: 0xfec0_0000, first_gsi: 0 });
    }
    let _ = FIRMWARE.set(firmware);
}

/// Whether the direct map has a range: low memory and everything the memory map calls RAM or ACPI.
fn is_mapped(boot: &BootInfo, paddr: usize, len: usize) -> bool {
    let Some(end) = paddr.checked_add(len) else { return false };
    end <= 0x10_0000
        || boot.regions().iter().any(|region| {
            let range = region.range();
            range.start <= paddr && end <= range.end
        })
}

/// Memory that firmware filled. Tables may lie in what the memory map calls reserved, which the
/// direct map lacks. `None` if it can't be mapped.
fn bytes(boot: &BootInfo, paddr: usize, len: usize) -> Option<&'static [u8]> {
    let at = if is_mapped(boot, paddr, len) {
        phys_to_virt(paddr) as *const u8
    } else {
        super::mmio::map(paddr, len).ok()?.cast_const()
    };
    // SAFETY: mapped for good, and reserved for firmware, so nobody writes there.
    Some(unsafe { core::slice::from_raw_parts(at, len) })
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn find_rsdp(boot: &BootInfo) -> Option<&'static [u8]> {
    let valid = |rsdp: &'static [u8]| {
        (rsdp.starts_with(b"RSD PTR ") && sums_to_zero(&rsdp[..20])).then_some(rsdp)
    };
    if boot.rsdp() != 0
        && let Some(rsdp) = bytes(boot, boot.rsdp(), 36).and_then(valid)
    {
        return Some(rsdp);
    }
    // ACPI 6.5, 5.2.5.1: first KiB of the EBDA, or 0xe0000 to 0xfffff, at 16-byte steps.
    let area = bytes(boot, 0xe_0000, 0x2_0000)?;
    area.windows(36).step_by(16).find_map(valid)
}

/// A table by its address: header checked, length bounded.
fn table(boot: &BootInfo, paddr: usize) -> Option<&'static [u8]> {
    const HEADER: usize = 36;
    const MAX: usize = 4 << 20;
    let len = u32_at(bytes(boot, paddr, HEADER)?, 4)? as usize;
    if !(HEADER..MAX).contains(&len) {
        return None;
    }
    bytes(boot, paddr, len).filter(|table| sums_to_zero(table))
}

fn read_acpi(boot: &BootInfo, rsdp: &'static [u8], firmware: &mut Firmware) {
    let (root, width) = match (rsdp[15], u64_at(rsdp, 24), u32_at(rsdp, 16)) {
        (2.., Some(xsdt), _) if xsdt != 0 => (xsdt as usize, 8),
        (_, _, Some(rsdt)) => (rsdt as usize, 4),
        _ => return,
    };
    let Some(root) = table(boot, root) else {
        return error!("acpi: the root table is damaged; interrupts and power-off may not work");
    };
    for entry in root[36..].chunks_exact(width) {
        let address = if width == 8 { u64_at(entry, 0) } else { u32_at(entry, 0).map(u64::from) };
        let Some(table) = address.and_then(|address| table(boot, address as usize)) else {
            debug!("acpi: a table is damaged, left out");
            continue;
        };
        match &table[..4] {
            b"APIC" => read_madt(table, firmware),
            b"FACP" => read_fadt(boot, table, firmware),
            b"MCFG" => read_mcfg(table, firmware),
            _ => {}
        }
    }
}

/// Multiple APIC description table (ACPI 6.5, 5.2.12).
fn read_madt(table: &[u8], firmware: &mut Firmware) {
    const ENABLED: u32 = 1;
    let mut rest = table.get(44..).unwrap_or(&[]);
    while let [kind, len, ..] = *rest {
        let len = usize::from(len);
        if len < 2 || len > rest.len() {
            return debug!("acpi: an entry of the MADT is damaged");
        }
        let entry = &rest[..len];
        rest = &rest[len..];
        // An entry too short for its kind is left out.
        let _ = (|| {
            match kind {
                0 if u32_at(entry, 4)? & ENABLED != 0 => {
                    firmware.add_cpu(u32::from(u8_at(entry, 3)?));
                }
                9 if u32_at(entry, 8)? & ENABLED != 0 => firmware.add_cpu(u32_at(entry, 4)?),
                1 => firmware
                    .ioapics
                    .push(IoApicInfo { address: u32_at(entry, 4)?, first_gsi: u32_at(entry, 8)? }),
                2 => {
                    let flags = u16_at(entry, 8)?;
                    firmware.overrides.push(Override {
                        isa: u32::from(u8_at(entry, 3)?),
                        gsi: u32_at(entry, 4)?,
                        low: flags & 3 == 3,
                        level: flags >> 2 & 3 == 3,
                    });
                }
                _ => {}
            }
            Some(())
        })();
    }
}

impl Firmware {
    fn add_cpu(&mut self, apic_id: u32) {
        if self.cpus.len() < MAX_CPUS && !self.cpus.contains(&apic_id) {
            self.cpus.push(apic_id);
        }
    }
}

fn read_mcfg(table: &[u8], firmware: &mut Firmware) {
    for entry in table.get(44..).unwrap_or(&[]).chunks_exact(16) {
        let (Some(base), Some(segment)) = (u64_at(entry, 0), u16_at(entry, 8)) else { continue };
        firmware.ecam.push(Ecam { base, segment, first_bus: entry[10], last_bus: entry[11] });
    }
}

/// Fixed ACPI description table (ACPI 6.5, 5.2.9).
fn read_fadt(boot: &BootInfo, table: &[u8], firmware: &mut Firmware) {
    const HW_REDUCED: u32 = 1 << 20;
    const RESET_SUPPORTED: u32 = 1 << 10;
    let port = |at: usize| u32_at(table, at).and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    let register = |at: usize| {
        let (space, address) = (u8_at(table, at)?, u64_at(table, at + 4)?);
        (space <= 1 && address != 0).then_some(Register { port: space == 1, address })
    };
    let flags = u32_at(table, 112).unwrap_or(0);
    let mut power = Power {
        reduced: flags & HW_REDUCED != 0,
        sci: u32::from(u16_at(table, 46).unwrap_or(9)),
        pm1_event: [port(56), port(60)],
        pm1_control: [port(64), port(68)],
        pm_timer: port(76),
        pm1_event_len: u8_at(table, 88).unwrap_or(4),
        enable: (port(48), u8_at(table, 52).unwrap_or(0)),
        reset: register(116).zip(u8_at(table, 128)).filter(|_| flags & RESET_SUPPORTED != 0),
        sleep_control: register(244),
        s5: None,
        ged: None,
    };
    let dsdt = match u64_at(table, 140) {
        Some(address) if address != 0 => Some(address as usize),
        _ => u32_at(table, 40).map(|address| address as usize),
    };
    let dsdt = dsdt.and_then(|address| self::table(boot, address));
    if let Some(dsdt) = dsdt {
        let code = dsdt.get(36..).unwrap_or(&[]);
        power.s5 = super::aml::s5(code);
        power.ged = super::aml::generic_event_device(code);
        firmware.dsdt = Some(code);
    } else {
        error!("acpi: the DSDT is damaged or missing; the machine can't power off by itself");
    }
    firmware.power = Some(power);
}

/// MultiProcessor specification 1.4: CPUs and I/O APICs where there is no ACPI.
fn read_mp_table(firmware: &mut Firmware) {
    // SAFETY: the first MiB is mapped and firmware's.
    let low = unsafe { core::slice::from_raw_parts(phys_to_virt(0x8_0000) as *const u8, 0x8_0000) };
    let pointer = low
        .windows(16)
        .step_by(16)
        .find(|window| window.starts_with(b"_MP_") && sums_to_zero(window));
    let Some(config) = pointer.and_then(|pointer| u32_at(pointer, 4)) else {
        return debug!("mp: no table; one CPU, default interrupt controller");
    };
    let Some(table) = (config as usize).checked_sub(0x8_0000).and_then(|at| low.get(at..)) else {
        return debug!("mp: the table is out of reach");
    };
    if !table.starts_with(b"PCMP") {
        return debug!("mp: the table is damaged");
    }
    let count = u16_at(table, 34).unwrap_or(0);
    let mut rest = table.get(44..).unwrap_or(&[]);
    for _ in 0..count {
        let Some(&kind) = rest.first() else { return };
        let len = if kind == 0 { 20 } else { 8 };
        let Some((entry, tail)) = rest.split_at_checked(len) else { return };
        rest = tail;
        const USABLE: u8 = 1;
        match kind {
            0 if entry[3] & USABLE != 0 => firmware.add_cpu(u32::from(entry[1])),
            2 if entry[3] & USABLE != 0 => {
                if let Some(address) = u32_at(entry, 4) {
                    let first_gsi = firmware.ioapics.len() as u32 * 24;
                    firmware.ioapics.push(IoApicInfo { address, first_gsi });
                }
            }
            _ => {}
        }
    }
}

/// The PM timer's value: 24 or 32 bits at 3.579545 MHz.
pub(super) fn pm_timer(port: u16) -> u32 {
    // SAFETY: the FADT names the port as the timer, which can only be read.
    unsafe { super::insn::inl(port) & 0xff_ffff }
}

/// Reads a byte of the CMOS clock.
pub(super) fn cmos(register: u8) -> u8 {
    // SAFETY: index and data of the clock; bit 7 keeps NMI as firmware left it (enabled).
    unsafe {
        super::insn::outb(0x70, register);
        inb(0x71)
    }
}

/// Reads a 16-bit port of the PM1 block.
pub(super) fn pm1(port: u16) -> u16 {
    // SAFETY: the FADT names the port as a PM1 register; reading has no effect.
    unsafe { inw(port) }
}
