//! Segments, task state segment and interrupt stacks of a CPU.
//!
//! The selectors are Linux's: programs see theirs in signal frames.

use super::insn::wrmsr;
use core::arch::asm;

/// Kernel code selector.
pub const KERNEL_CS: u16 = 0x10;
/// Kernel data selector.
pub const KERNEL_DS: u16 = 0x18;
/// User data selector.
pub const USER_DS: u16 = 0x2b;
/// User 64-bit code selector.
pub const USER_CS: u16 = 0x33;
const TSS_SELECTOR: u16 = 0x40;

/// Bytes of each interrupt stack.
pub const IST_STACK: usize = 8192;
/// Interrupt stacks of a CPU: all vectors; NMI; double fault and machine check.
pub const IST_STACKS: usize = 3;

/// Task state segment (SDM vol. 3, 9.7).
#[repr(C, packed(4))]
struct Tss {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map: u16,
}

/// Descriptor table and TSS of one CPU.
#[repr(C, align(16))]
pub struct Segments {
    gdt: [u64; 10],
    tss: Tss,
}

impl Segments {
    /// Segments without interrupt stacks.
    pub const fn new() -> Segments {
        Segments {
            gdt: [
                0,
                0,
                0x00af_9b00_0000_ffff,
                0x00cf_9300_0000_ffff,
                0x00cf_fb00_0000_ffff,
                0x00cf_f300_0000_ffff,
                0x00af_fb00_0000_ffff,
                0,
                0,
                0,
            ],
            tss: Tss {
                reserved0: 0,
                rsp: [0; 3],
                reserved1: 0,
                ist: [0; 7],
                reserved2: 0,
                reserved3: 0,
                // Past the limit: no I/O port is open to user mode.
                io_map: size_of::<Tss>() as u16,
            },
        }
    }

    /// Makes these the segments of this CPU.
    ///
    /// # Safety
    /// `self` stays where it is forever, on this CPU alone; `stacks` is [`IST_STACKS`] x
    /// [`IST_STACK`] bytes that nobody else uses.
    pub unsafe fn load(&mut self, stacks: usize) {
        for (index, ist) in [1, 2, 3].into_iter().enumerate() {
            let top = stacks + (index + 1) * IST_STACK;
            self.tss.ist[ist - 1] = top as u64;
        }
        self.tss.ist[3] = self.tss.ist[2];
        let base = &raw const self.tss as u64;
        let limit = size_of::<Tss>() as u64 - 1;
        self.gdt[8] = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        self.gdt[9] = base >> 32;
        let pointer =
            Pointer { limit: size_of_val(&self.gdt) as u16 - 1, base: &raw const self.gdt as u64 };
        // SAFETY: the table has flat segments at the selectors loaded here; GS base is written by
        // `cpu::init`, which runs after this, since loading the selector clears it.
        unsafe {
            asm!(
                "lgdt [{pointer}]",
                "mov ds, {data:e}",
                "mov es, {data:e}",
                "mov ss, {data:e}",
                "mov fs, {zero:e}",
                "mov gs, {zero:e}",
                "push {code}",
                "lea {scratch}, [rip + 2f]",
                "push {scratch}",
                "retfq",
                "2:",
                "ltr {tss:x}",
                pointer = in(reg) &raw const pointer,
                data = in(reg) u32::from(KERNEL_DS),
                zero = in(reg) 0u32,
                code = in(reg) u64::from(KERNEL_CS),
                scratch = out(reg) _,
                tss = in(reg) TSS_SELECTOR,
            );
        }
        const MSR_STAR: u32 = 0xc000_0081;
        let star = u64::from(KERNEL_CS) << 32 | 0x23 << 48;
        // SAFETY: SYSCALL loads 0x10/0x18, SYSRET 0x2b/0x33: the segments above.
        unsafe { wrmsr(MSR_STAR, star) };
    }
}

/// Operand of `lgdt` and `lidt`.
#[repr(C, packed)]
pub(super) struct Pointer {
    pub limit: u16,
    pub base: u64,
}
