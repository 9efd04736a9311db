//! The local APIC: x2APIC by MSR when the CPU has it, else xAPIC by MMIO.

use super::insn::{cpuid, rdmsr, wrmsr};
use super::{cpu, irq, mmio};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

const MSR_APIC_BASE: u32 = 0x1b;
const ENABLE: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;

/// Registers, as xAPIC offsets; the x2APIC MSR is `0x800 + offset / 16`.
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const EOI: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const ICR: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const MASKED: u32 = 1 << 16;
const TSC_DEADLINE: u32 = 0b10 << 17;
const DELIVERY_PENDING: u32 = 1 << 12;

static MODE_X2: AtomicBool = AtomicBool::new(false);
static REGISTERS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

#[inline]
fn read(register: u32) -> u32 {
    if MODE_X2.load(Ordering::Relaxed) {
        // SAFETY: x2APIC is on, so its registers exist.
        return unsafe { rdmsr(0x800 + register / 16) } as u32;
    }
    // SAFETY: `init` has mapped the registers.
    unsafe {
        REGISTERS.load(Ordering::Relaxed).add(register as usize).cast::<u32>().read_volatile()
    }
}

#[inline]
fn write(register: u32, value: u32) {
    if MODE_X2.load(Ordering::Relaxed) {
        // SAFETY: x2APIC is on, so its registers exist.
        return unsafe { wrmsr(0x800 + register / 16, u64::from(value)) };
    }
    // SAFETY: `init` has mapped the registers.
    unsafe {
        let registers = REGISTERS.load(Ordering::Relaxed);
        registers.add(register as usize).cast::<u32>().write_volatile(value);
    }
}

/// Finds the APIC and sets up the boot CPU's.
pub(super) fn init() {
    const CPUID_X2APIC: u32 = 1 << 21;
    if cpuid(1, 0).ecx & CPUID_X2APIC != 0 {
        MODE_X2.store(true, Ordering::Relaxed);
    } else {
        // SAFETY: every x86_64 machine that we run on has an APIC.
        let base = unsafe { rdmsr(MSR_APIC_BASE) } as usize & 0x000f_ffff_ffff_f000;
        match mmio::map(base, 4096) {
            Ok(registers) => REGISTERS.store(registers, Ordering::Relaxed),
            Err(_) => panic!("no memory to map the local APIC"),
        }
    }
    init_cpu();
}

/// Sets up this CPU's APIC: everything masked but what the kernel sends itself.
pub(super) fn init_cpu() {
    // SAFETY: enabling the APIC, in the mode that `init` chose, changes nothing else.
    unsafe {
        let mut base = rdmsr(MSR_APIC_BASE) | ENABLE;
        if MODE_X2.load(Ordering::Relaxed) {
            base |= X2APIC;
        }
        wrmsr(MSR_APIC_BASE, base);
    }
    write(TASK_PRIORITY, 0);
    for register in [LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(register, MASKED | u32::from(irq::SPURIOUS));
    }
    write(SPURIOUS, 1 << 8 | u32::from(irq::SPURIOUS));
    cpu::set_apic_id(cpu::id(), id());
}

/// This CPU's APIC ID.
pub(super) fn id() -> u32 {
    let id = read(ID);
    if MODE_X2.load(Ordering::Relaxed) { id } else { id >> 24 }
}

/// Acknowledges the interrupt in service.
#[inline]
pub(super) fn end_of_interrupt() {
    write(EOI, 0);
}

/// What to send to another CPU.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    /// An interrupt vector.
    Vector(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// Reset, into the wait for start-up.
    Init,
    /// Start at this page of low memory.
    Startup(u8),
}

/// Sends a message to one CPU.
pub(super) fn send(apic_id: u32, message: Message) {
    const LEVEL_ASSERT: u32 = 1 << 14;
    let command = match message {
        Message::Vector(vector) => u32::from(vector),
        Message::Nmi => 0x400,
        Message::Init => 0x500,
        Message::Startup(page) => 0x600 | u32::from(page),
    } | LEVEL_ASSERT;
    if MODE_X2.load(Ordering::Relaxed) {
        // x2APIC writes aren't ordered after earlier stores by themselves.
        // SAFETY: a fence, and the register exists.
        unsafe {
            core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
            wrmsr(0x830, u64::from(apic_id) << 32 | u64::from(command));
        }
        return;
    }
    // An interrupt handler that sends between the two halves would redirect ours.
    let was_enabled = irq::disable_save();
    write(ICR_HIGH, apic_id << 24);
    write(ICR, command);
    while read(ICR) & DELIVERY_PENDING != 0 {
        core::hint::spin_loop();
    }
    irq::restore(was_enabled);
}

/// Prepares the timer for [`timer_start`] (divided by 16).
pub(super) fn timer_oneshot_mode() {
    write(TIMER_DIVIDE, 0b0011);
    write(LVT_TIMER, u32::from(irq::TIMER));
}

/// Prepares the timer for [`timer_deadline`].
pub(super) fn timer_deadline_mode() {
    write(LVT_TIMER, TSC_DEADLINE | u32::from(irq::TIMER));
    // The mode must be set before the MSR is written (SDM vol. 3, 11.5.4.1).
    // SAFETY: a fence.
    unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
}

/// Starts the timer; 0 stops it.
#[inline]
pub(super) fn timer_start(count: u32) {
    write(TIMER_INITIAL, count);
}

/// What is left of the count.
pub(super) fn timer_left() -> u32 {
    read(TIMER_CURRENT)
}

/// Arms the timer for a value of the time-stamp counter; 0 stops it.
#[inline]
pub(super) fn timer_deadline(tsc: u64) {
    const MSR_TSC_DEADLINE: u32 = 0x6e0;
    // SAFETY: only used when CPUID names the feature.
    unsafe { wrmsr(MSR_TSC_DEADLINE, tsc) };
}
