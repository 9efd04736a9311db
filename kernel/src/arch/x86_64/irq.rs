//! The interrupt flag, interrupt vectors and their handlers.

use super::{apic, ioapic};
use crate::errno::{Errno, Result};
use crate::sync::IrqLock;
use core::arch::asm;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Vectors of devices; the rest up to 255 is the kernel's own.
const FIRST_DEVICE: usize = 0x30;
const LAST_DEVICE: usize = 0xef;
/// Another CPU asks for a look at the pending work.
pub(super) const RESCHEDULE: u8 = 0xf0;
/// Another CPU changed page tables.
pub(super) const FLUSH: u8 = 0xf1;
/// The local APIC's timer.
pub(super) const TIMER: u8 = 0xf2;
/// The local APIC's spurious interrupt: needs no acknowledgement.
pub(super) const SPURIOUS: u8 = 0xff;

/// Disables interrupts.
#[inline]
pub fn disable() {
    // SAFETY: masking interrupts is always allowed. Not `nomem`: accesses stay on their side.
    unsafe { asm!("cli", options(nostack)) };
}

/// Enables interrupts.
#[inline]
pub fn enable() {
    // SAFETY: handlers only need what is set up before interrupts are first enabled.
    unsafe { asm!("sti", options(nostack)) };
}

/// Whether interrupts are enabled.
#[inline]
pub fn enabled() -> bool {
    let flags: usize;
    // SAFETY: reads the flags through the stack.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(nomem, preserves_flags)) };
    flags & super::trap::RFLAGS_IF != 0
}

/// Disables interrupts and returns whether they were enabled.
#[inline]
pub fn disable_save() -> bool {
    let was = enabled();
    disable();
    was
}

/// Restores what [`disable_save`] returned.
#[inline]
pub fn restore(was_enabled: bool) {
    if was_enabled {
        enable();
    }
}

/// An interrupt line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// ISA interrupt, with the firmware's overrides applied.
    Isa(u32),
    /// Global system interrupt, edge-triggered, active high (virtio-mmio).
    Edge(u32),
    /// Global system interrupt, level-triggered, active low (PCI, ACPI).
    Level(u32),
    /// Global system interrupt, level-triggered, active high.
    LevelHigh(u32),
}

struct Slot {
    handler: AtomicPtr<()>,
    arg: AtomicUsize,
}

static SLOTS: [Slot; 256] =
    [const { Slot { handler: AtomicPtr::new(core::ptr::null_mut()), arg: AtomicUsize::new(0) } };
        256];

/// Vectors given out so far, and which global interrupt each serves.
static VECTORS: IrqLock<Vectors> =
    IrqLock::new(Vectors { next: FIRST_DEVICE, lines: [None; LAST_DEVICE - FIRST_DEVICE + 1] });

struct Vectors {
    next: usize,
    lines: [Option<u32>; LAST_DEVICE - FIRST_DEVICE + 1],
}

/// Names the function that handles a line. It runs with interrupts off. ENODEV if no interrupt
/// controller has the line, EBUSY if it has a handler, ENOSPC if vectors are used up.
pub fn register(line: Line, handler: fn(usize), arg: usize) -> Result<()> {
    let route = ioapic::route(line)?;
    let mut vectors = VECTORS.lock();
    if vectors.lines.contains(&Some(route.gsi)) {
        return Err(Errno::EBUSY);
    }
    let vector = take_vector(&mut vectors, handler, arg)?;
    vectors.lines[vector - FIRST_DEVICE] = Some(route.gsi);
    drop(vectors);
    ioapic::program(&route, vector as u8)
}

/// A vector for message-signalled interrupts of one source, sent to CPU `cpu`: message address and
/// data. ENOSPC if vectors are used up.
pub fn alloc_msi_vector(cpu: usize, handler: fn(usize), arg: usize) -> Result<(u64, u32)> {
    let vector = take_vector(&mut VECTORS.lock(), handler, arg)?;
    // Without interrupt remapping a message reaches APIC IDs up to 255; CPUs beyond get theirs at
    // the boot CPU.
    let apic_id = match super::cpu::apic_id(cpu) {
        id if id < 256 => id,
        _ => super::cpu::apic_id(0),
    };
    Ok((0xfee0_0000 | u64::from(apic_id) << 12, vector as u32))
}

/// Interrupts this CPU, by a vector of [`alloc_msi_vector`].
pub fn interrupt_self(vector: u8) {
    apic::send(super::cpu::apic_id(super::cpu::id()), apic::Message::Vector(vector));
}

fn take_vector(vectors: &mut Vectors, handler: fn(usize), arg: usize) -> Result<usize> {
    let vector = vectors.next;
    if vector > LAST_DEVICE {
        return Err(Errno::ENOSPC);
    }
    vectors.next += 1;
    SLOTS[vector].arg.store(arg, Ordering::Relaxed);
    SLOTS[vector].handler.store(handler as *mut (), Ordering::Release);
    Ok(vector)
}

/// Runs the handler of a vector and acknowledges it. Interrupts are off.
pub(super) fn dispatch(vector: usize) {
    match vector as u8 {
        SPURIOUS => return,
        TIMER => super::clock::timer_interrupt(),
        RESCHEDULE => super::ipi::reschedule_interrupt(),
        FLUSH => super::ipi::flush_interrupt(),
        _ => {
            let slot = &SLOTS[vector & 255];
            let handler = slot.handler.load(Ordering::Acquire);
            if !handler.is_null() {
                // SAFETY: only `take_vector` stores here, and it stores `fn(usize)` pointers.
                let handler = unsafe { core::mem::transmute::<*mut (), fn(usize)>(handler) };
                handler(slot.arg.load(Ordering::Relaxed));
            }
        }
    }
    apic::end_of_interrupt();
}
