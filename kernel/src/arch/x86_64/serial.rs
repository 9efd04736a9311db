//! The first serial port: a polled 16550, output always, input by interrupt when somebody wants it.

use super::insn::{inb, outb};
use super::irq;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

const COM1: u16 = 0x3f8;
const COM1_GSI: u32 = 4;
const DATA: u16 = COM1;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const FIFO_CONTROL: u16 = COM1 + 2;
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;
const SCRATCH: u16 = COM1 + 7;
const DATA_READY: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bytes the transmit FIFO takes when it is empty.
const FIFO: usize = 16;

static PRESENT: AtomicBool = AtomicBool::new(false);
static RECEIVER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// 115200 8N1, FIFOs on, interrupts off.
pub(super) fn init() {
    // SAFETY: the ISA serial port belongs to this module.
    unsafe {
        outb(SCRATCH, 0x5a);
        if inb(SCRATCH) != 0x5a {
            return;
        }
        outb(INTERRUPT_ENABLE, 0);
        outb(LINE_CONTROL, 0x80);
        outb(DATA, 1);
        outb(INTERRUPT_ENABLE, 0);
        outb(LINE_CONTROL, 3);
        // Cleared, and an interrupt for every 14 bytes or a pause: QEMU hands over no more at a time
        // than the level, however much is waiting.
        outb(FIFO_CONTROL, 0xc7);
        // DTR, RTS, and OUT2, which gates the interrupt line.
        outb(MODEM_CONTROL, 0xb);
    }
    PRESENT.store(true, Ordering::Relaxed);
}

/// Writes bytes as they are. Lines of several CPUs may mix; callers that mind hold a lock.
pub fn write(bytes: &[u8]) {
    if !PRESENT.load(Ordering::Relaxed) {
        return;
    }
    for chunk in bytes.chunks(FIFO) {
        // SAFETY: the ISA serial port belongs to this module.
        unsafe {
            while inb(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
                core::hint::spin_loop();
            }
            for &byte in chunk {
                outb(DATA, byte);
            }
        }
    }
}

/// The next received byte, if there is one.
pub fn read() -> Option<u8> {
    if !PRESENT.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the ISA serial port belongs to this module.
    unsafe { (inb(LINE_STATUS) & DATA_READY != 0).then(|| inb(DATA)) }
}

/// Calls `receive`, from the interrupt handler, whenever bytes have arrived; it fetches them with
/// [`read`].
pub fn on_receive(receive: fn()) {
    if !PRESENT.load(Ordering::Relaxed) {
        return;
    }
    RECEIVER.store(receive as *mut (), Ordering::Release);
    fn handle(_arg: usize) {
        let receive = RECEIVER.load(Ordering::Acquire);
        if !receive.is_null() {
            // SAFETY: only `on_receive` stores here, and it stores `fn()` pointers.
            let receive = unsafe { core::mem::transmute::<*mut (), fn()>(receive) };
            receive();
        }
    }
    if irq::register(irq::Line::Isa(COM1_GSI), handle, 0).is_ok() {
        // SAFETY: the ISA serial port belongs to this module.
        unsafe { outb(INTERRUPT_ENABLE, 1) };
    }
}

/// Whether the port may interrupt for received bytes; without, they wait in it and behind it.
pub fn accept(yes: bool) {
    // SAFETY: the ISA serial port belongs to this module.
    unsafe { outb(INTERRUPT_ENABLE, u8::from(yes)) };
}
