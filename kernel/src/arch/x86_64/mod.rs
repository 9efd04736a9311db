//! x86_64 in a virtual machine.

mod aml;
mod apic;
mod backtrace;
mod boot;
pub mod boot_info;
pub mod clock;
pub mod context;
pub mod cpu;
mod early;
pub mod firmware;
pub mod fpu;
mod gdt;
mod insn;
mod ioapic;
pub mod ipi;
pub mod irq;
pub mod kstack;
mod mem;
pub mod mmio;
pub mod paging;
mod panic;
pub mod paravirt;
pub mod port;
pub mod power;
pub mod random;
mod relocate;
pub mod serial;
pub mod smp;
pub mod speculation;
mod start;
mod trap;
pub mod uaccess;
pub mod user;

pub use boot_info::BootInfo;
pub use insn::has_bmi2;
pub use paging::{moved, phys_to_virt, virt_to_phys};
pub use paravirt::is_emulated;

/// Writes to the console without locks or allocation.
pub fn console_write(bytes: &[u8]) {
    serial::write(bytes);
}

/// Orders stores before later loads, as a device sees them.
///
/// QEMU before 8.1 translates a fence to nothing where the machine has one CPU, although its devices
/// run beside that CPU: an event index written here could pass an index read there, and the
/// notification that either side counts on would never come. `pause` leaves the translated code, for
/// which QEMU takes locks, which are fences.
pub fn device_fence() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    if cpu::count() == 1 && is_emulated() {
        core::hint::spin_loop();
    }
}

/// Waits for an interrupt, unless work is pending. Interrupts are on before and after.
pub fn idle() {
    irq::disable();
    if cpu::pending() == 0 {
        // SAFETY: the interrupt that ends the halt can't come between `sti` and `hlt`.
        unsafe { core::arch::asm!("sti", "hlt", options(nomem, nostack)) };
    } else {
        irq::enable();
    }
}

/// Finds out about the machine: firmware tables, interrupt controllers, clocks. Needs the kernel
/// heap.
pub fn init(boot: &'static BootInfo) {
    mask_legacy_interrupts();
    firmware::init(boot);
    apic::init();
    ioapic::init();
    clock::init(boot.entry_tsc());
}

/// The old interrupt controllers deliver nothing, not even spurious interrupts below vector 32.
fn mask_legacy_interrupts() {
    // SAFETY: initialisation sequence of the two 8259s, then all lines masked; absent ones ignore
    // it.
    unsafe {
        for (port, value) in [
            (0x20, 0x11u8),
            (0xa0, 0x11),
            (0x21, 0x20),
            (0xa1, 0x28),
            (0x21, 4),
            (0xa1, 2),
            (0x21, 1),
            (0xa1, 1),
            (0x21, 0xff),
            (0xa1, 0xff),
        ] {
            insn::outb(port, value);
        }
    }
}
