//! Power: off, reset, and the power button.

use super::firmware::{self, Power, Register};
use super::insn::{inb, inw, outb, outl, outw};
use super::irq::{self, Line};
use super::{mmio, panic};
use crate::{debug, error};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// PM1 bits (ACPI 6.5, 4.8.3).
const POWER_BUTTON: u16 = 1 << 8;
const SCI_ENABLED: u16 = 1;
const SLEEP_ENABLE: u16 = 1 << 13;
/// QEMU's `isa-debug-exit`, at the port that QEMU's documentation uses: status is twice the value
/// plus one.
const DEBUG_EXIT: u16 = 0x501;

static BUTTON: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
/// Event selector of the generic event device.
static GED: AtomicUsize = AtomicUsize::new(0);

/// Ends the virtual machine. `status` reaches the host through the debug-exit device if there is
/// one.
pub fn power_off(status: u8) -> ! {
    irq::disable();
    debug_exit(status);
    stop()
}

/// Resets the machine.
pub fn reboot() -> ! {
    irq::disable();
    if let Some((register, value)) = firmware::get().power().and_then(|power| power.reset) {
        write(register, value);
    }
    // SAFETY: the keyboard controller's reset pulse.
    unsafe { outb(0x64, 0xfe) };
    triple_fault()
}

/// Tells QEMU to exit with `2 * status + 1`, if it has the device. A status of zero is left to an
/// orderly power-off.
pub(super) fn debug_exit(status: u8) {
    let asked = super::boot_info::get().is_some_and(|boot| boot.option("d2u.debug-exit").is_some());
    if asked && status != 0 {
        // SAFETY: the boot line says that the port is the debug-exit device.
        unsafe { outl(DEBUG_EXIT, u32::from(status)) };
    }
}

/// Powers off by whatever means there are.
pub(super) fn stop() -> ! {
    if let Some(power) = firmware::get().power() {
        sleep_s5(power);
    }
    // A machine without ACPI: `-no-reboot` turns the reset into an exit.
    // SAFETY: the keyboard controller's reset pulse.
    unsafe { outb(0x64, 0xfe) };
    triple_fault()
}

fn sleep_s5(power: &Power) {
    let [a, b] = power.s5.unwrap_or_default();
    if let Some(control) = power.sleep_control.filter(|_| power.reduced) {
        const ENABLE: u8 = 1 << 5;
        write(control, a << 2 | ENABLE);
    } else if power.s5.is_some() {
        for (port, kind) in power.pm1_control.into_iter().zip([a, b]).filter(|(port, _)| *port != 0)
        {
            // SAFETY: the FADT names the port as PM1 control.
            unsafe { outw(port, inw(port) & SCI_ENABLED | u16::from(kind) << 10 | SLEEP_ENABLE) };
        }
    } else {
        return;
    }
    // The request takes effect asynchronously.
    for _ in 0..100_000_000 {
        core::hint::spin_loop();
    }
}

fn write(register: Register, value: u8) {
    if register.port {
        if let Ok(port) = u16::try_from(register.address) {
            // SAFETY: the FADT names the port for this purpose.
            unsafe { outb(port, value) };
        }
    } else if let Ok(at) = mmio::map(register.address as usize, 1) {
        // SAFETY: just mapped; the FADT names the register for this purpose.
        unsafe { at.write_volatile(value) };
    }
}

/// An empty interrupt table: the next exception resets the CPU.
fn triple_fault() -> ! {
    let empty = super::gdt::Pointer { limit: 0, base: 0 };
    // SAFETY: the machine ends here.
    unsafe {
        core::arch::asm!("lidt [{}]", "int3", in(reg) &raw const empty);
    }
    panic::halt()
}

/// Calls `pressed`, from the interrupt handler, each time the power button is pressed.
pub fn on_button(pressed: fn()) {
    BUTTON.store(pressed as *mut (), Ordering::Release);
    let Some(power) = firmware::get().power() else {
        return debug!("power: no ACPI, no power button");
    };
    let result = if let Some((address, interrupt)) = power.ged {
        mmio::map(address as usize, 4).and_then(|selector| {
            GED.store(selector as usize, Ordering::Release);
            irq::register(Line::Edge(interrupt), generic_event, 0)
        })
    } else if power.pm1_event[0] != 0 && power.pm1_event_len >= 4 {
        enable_acpi(power);
        let result = irq::register(Line::Level(power.sci), system_control, 0);
        let enable = power.pm1_event[0] + u16::from(power.pm1_event_len / 2);
        // SAFETY: the FADT names the ports as PM1 status and enable.
        unsafe {
            outw(power.pm1_event[0], POWER_BUTTON);
            outw(enable, POWER_BUTTON);
        }
        result
    } else {
        return debug!("power: no power button");
    };
    if let Err(why) = result {
        error!("power: no interrupt for the power button ({why:?}); stop requests will be missed");
    }
}

fn enable_acpi(power: &Power) {
    let (port, value) = power.enable;
    let control = power.pm1_control[0];
    if port == 0 || control == 0 || firmware::pm1(control) & SCI_ENABLED != 0 {
        return;
    }
    // SAFETY: the FADT names the port and the value.
    unsafe { outb(port, value) };
    for _ in 0..100_000 {
        if firmware::pm1(control) & SCI_ENABLED != 0 {
            return;
        }
        // SAFETY: reading the POST port takes time and does nothing.
        unsafe { inb(0x80) };
    }
    error!("power: the firmware didn't enable ACPI; stop requests will be missed");
}

fn pressed() {
    let button = BUTTON.load(Ordering::Acquire);
    if !button.is_null() {
        // SAFETY: only `on_button` stores here, and it stores `fn()` pointers.
        let button = unsafe { core::mem::transmute::<*mut (), fn()>(button) };
        button();
    }
}

/// System control interrupt: the power button is the only event enabled.
fn system_control(_arg: usize) {
    let Some(power) = firmware::get().power() else { return };
    if firmware::pm1(power.pm1_event[0]) & POWER_BUTTON != 0 {
        // SAFETY: the FADT names the port as PM1 status; writing the bit clears it.
        unsafe { outw(power.pm1_event[0], POWER_BUTTON) };
        pressed();
    }
}

/// Generic event device: reading the selector gives the events and clears them.
fn generic_event(_arg: usize) {
    /// QEMU's event bits: memory hot-plug, power button, NVDIMM hot-plug.
    const BUTTON_EVENT: u32 = 1 << 1;
    let selector = GED.load(Ordering::Acquire) as *const u32;
    // SAFETY: `on_button` has mapped the register before it registered the handler.
    if unsafe { selector.read_volatile() } & BUTTON_EVENT != 0 {
        pressed();
    }
}
