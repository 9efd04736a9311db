//! Interrupt and exception entry.
//!
//! Every vector enters on an interrupt stack, since prebuilt code may keep data below its stack
//! pointer (the red zone) that a push there would destroy. From kernel mode the stub moves the
//! frame to 128 bytes below the interrupted stack pointer and goes on there, so that the interrupt
//! stack is free again: handlers nest, may be preempted and may sleep. From user mode the registers
//! go to the [`UserContext`](super::user::UserContext) and `user::enter` returns.
//!
//! NMI, double fault and machine check can hit the two instructions at which GS isn't the kernel's;
//! they stay on their stacks and find out from the GS base itself.

use super::cpu::{KERNEL_RSP, USER_CONTEXT};
use super::gdt::{KERNEL_CS, Pointer};
use super::user::offsets as ctx;
use super::{cpu, insn, irq, uaccess};
use crate::arch::USER_END;
use crate::log::emergency;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::offset_of;

/// Registers of interrupted kernel code.
#[repr(C)]
pub struct TrapFrame {
    pub xmm: [[u64; 2]; 16],
    pub r15: usize,
    pub r14: usize,
    pub r13: usize,
    pub r12: usize,
    pub r11: usize,
    pub r10: usize,
    pub r9: usize,
    pub r8: usize,
    pub rdi: usize,
    pub rsi: usize,
    pub rbp: usize,
    pub rbx: usize,
    pub rdx: usize,
    pub rcx: usize,
    pub rax: usize,
    pub vector: usize,
    pub error: usize,
    pub rip: usize,
    pub cs: usize,
    pub rflags: usize,
    pub rsp: usize,
    pub ss: usize,
}

const _: () = assert!(size_of::<TrapFrame>() == 432 && offset_of!(TrapFrame, vector) == 376);

global_asm!(
    r#"
    .section .text.trap, "ax"
    .balign 16
    .globl trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if !((vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))
    pushq $0
    .endif
    pushq $vector
    .if (vector == 2) || (vector == 8) || (vector == 18)
    jmp trap_paranoid
    .else
    jmp trap_common
    .endif
    .set vector, vector + 1
    .endr

    .macro SAVE_REGS
    movq %r15, 256(%rsp)
    movq %r14, 264(%rsp)
    movq %r13, 272(%rsp)
    movq %r12, 280(%rsp)
    movq %r11, 288(%rsp)
    movq %r10, 296(%rsp)
    movq %r9, 304(%rsp)
    movq %r8, 312(%rsp)
    movq %rdi, 320(%rsp)
    movq %rsi, 328(%rsp)
    movq %rbp, 336(%rsp)
    movq %rbx, 344(%rsp)
    movq %rdx, 352(%rsp)
    movaps %xmm0, 0(%rsp)
    movaps %xmm1, 16(%rsp)
    movaps %xmm2, 32(%rsp)
    movaps %xmm3, 48(%rsp)
    movaps %xmm4, 64(%rsp)
    movaps %xmm5, 80(%rsp)
    movaps %xmm6, 96(%rsp)
    movaps %xmm7, 112(%rsp)
    movaps %xmm8, 128(%rsp)
    movaps %xmm9, 144(%rsp)
    movaps %xmm10, 160(%rsp)
    movaps %xmm11, 176(%rsp)
    movaps %xmm12, 192(%rsp)
    movaps %xmm13, 208(%rsp)
    movaps %xmm14, 224(%rsp)
    movaps %xmm15, 240(%rsp)
    .endm

    .macro RESTORE_REGS
    movaps 0(%rsp), %xmm0
    movaps 16(%rsp), %xmm1
    movaps 32(%rsp), %xmm2
    movaps 48(%rsp), %xmm3
    movaps 64(%rsp), %xmm4
    movaps 80(%rsp), %xmm5
    movaps 96(%rsp), %xmm6
    movaps 112(%rsp), %xmm7
    movaps 128(%rsp), %xmm8
    movaps 144(%rsp), %xmm9
    movaps 160(%rsp), %xmm10
    movaps 176(%rsp), %xmm11
    movaps 192(%rsp), %xmm12
    movaps 208(%rsp), %xmm13
    movaps 224(%rsp), %xmm14
    movaps 240(%rsp), %xmm15
    movq 256(%rsp), %r15
    movq 264(%rsp), %r14
    movq 272(%rsp), %r13
    movq 280(%rsp), %r12
    movq 288(%rsp), %r11
    movq 296(%rsp), %r10
    movq 304(%rsp), %r9
    movq 312(%rsp), %r8
    movq 320(%rsp), %rdi
    movq 328(%rsp), %rsi
    movq 336(%rsp), %rbp
    movq 344(%rsp), %rbx
    movq 352(%rsp), %rdx
    movq 360(%rsp), %rcx
    movq 368(%rsp), %rax
    .endm

    .balign 16
trap_common:
    testb $3, 24(%rsp)
    jnz trap_user
    pushq %rax
    pushq %rcx
    movq 56(%rsp), %rax
    subq $128 + 432, %rax
    andq $-16, %rax
    movq 16(%rsp), %rcx
    movq %rcx, 376(%rax)
    movq 24(%rsp), %rcx
    movq %rcx, 384(%rax)
    movq 32(%rsp), %rcx
    movq %rcx, 392(%rax)
    movq 40(%rsp), %rcx
    movq %rcx, 400(%rax)
    movq 48(%rsp), %rcx
    movq %rcx, 408(%rax)
    movq 56(%rsp), %rcx
    movq %rcx, 416(%rax)
    movq 64(%rsp), %rcx
    movq %rcx, 424(%rax)
    movq 0(%rsp), %rcx
    movq %rcx, 360(%rax)
    movq 8(%rsp), %rcx
    movq %rcx, 368(%rax)
    movq %rax, %rsp
    SAVE_REGS
    pushq $2                    /* direction and alignment-check flags clear */
    popfq
    movq %rsp, %rdi
    call {kernel_trap}
    RESTORE_REGS
    addq $392, %rsp
    iretq

    /* NMI, double fault, machine check: on their own stacks, GS of whoever was interrupted. */
trap_paranoid:
    subq $376, %rsp
    movq %rcx, 360(%rsp)
    movq %rax, 368(%rsp)
    SAVE_REGS
    pushq $2
    popfq
    movl $0xc0000101, %ecx
    rdmsr
    xorl %ebx, %ebx
    testl %edx, %edx            /* the kernel's GS base is in the upper half */
    js 1f
    swapgs
    movl $1, %ebx
1:  movq %rsp, %rdi
    call {paranoid_trap}
    testl %ebx, %ebx
    jz 2f
    swapgs
2:  RESTORE_REGS
    addq $392, %rsp
    iretq

trap_user:
    swapgs
    pushq %rax
    movq %gs:{user_context}, %rax
    movq %rbx, {rbx}(%rax)
    movq %rcx, {rcx}(%rax)
    movq %rdx, {rdx}(%rax)
    movq %rsi, {rsi}(%rax)
    movq %rdi, {rdi}(%rax)
    movq %rbp, {rbp}(%rax)
    movq %r8, {r8}(%rax)
    movq %r9, {r9}(%rax)
    movq %r10, {r10}(%rax)
    movq %r11, {r11}(%rax)
    movq %r12, {r12}(%rax)
    movq %r13, {r13}(%rax)
    movq %r14, {r14}(%rax)
    movq %r15, {r15}(%rax)
    popq {rax}(%rax)
    popq {vector}(%rax)
    popq {error}(%rax)
    popq {rip}(%rax)
    addq $8, %rsp
    popq {rflags}(%rax)
    popq {rsp}(%rax)
    movq %gs:{kernel_rsp}, %rsp
    pushq $2                    /* direction, alignment-check and nested-task flags clear */
    popfq
    movq %rax, %rdi
    movl $1, %eax
    jmp user_leave
"#,
    kernel_trap = sym kernel_trap,
    paranoid_trap = sym paranoid_trap,
    user_context = const USER_CONTEXT,
    kernel_rsp = const KERNEL_RSP,
    rax = const ctx::RAX, rbx = const ctx::RBX, rcx = const ctx::RCX, rdx = const ctx::RDX,
    rsi = const ctx::RSI, rdi = const ctx::RDI, rbp = const ctx::RBP, r8 = const ctx::R8,
    r9 = const ctx::R9, r10 = const ctx::R10, r11 = const ctx::R11, r12 = const ctx::R12,
    r13 = const ctx::R13, r14 = const ctx::R14, r15 = const ctx::R15, rsp = const ctx::RSP,
    rip = const ctx::RIP, rflags = const ctx::RFLAGS, vector = const ctx::VECTOR,
    error = const ctx::ERROR,
    options(att_syntax)
);

unsafe extern "C" {
    static trap_stubs: [[u8; 16]; 256];
}

/// Page fault.
pub const PAGE_FAULT: usize = 14;
/// First vector of interrupts; below are exceptions.
pub const FIRST_IRQ: usize = 32;
/// Interrupts were enabled.
pub const RFLAGS_IF: usize = 1 << 9;

#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; 256]>);
// SAFETY: written by the boot CPU before others run, read by hardware alone afterwards.
unsafe impl Sync for Idt {}
static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

/// Fills the interrupt descriptor table, which all CPUs share.
pub(super) fn init_idt() {
    // SAFETY: the boot CPU is alone.
    let idt = unsafe { &mut *IDT.0.get() };
    for (vector, gate) in idt.iter_mut().enumerate() {
        // SAFETY: the address is taken, nothing is read.
        let stub = unsafe { &raw const trap_stubs[vector] } as u64;
        let ist = match vector {
            2 => 2,
            8 => 3,
            18 => 4,
            _ => 1u64,
        };
        // User mode may raise #BP and #OF itself.
        let dpl = if vector == 3 || vector == 4 { 3 } else { 0u64 };
        gate[0] = stub & 0xffff
            | u64::from(KERNEL_CS) << 16
            | ist << 32
            | (0x8e | dpl << 5) << 40
            | (stub >> 16 & 0xffff) << 48;
        gate[1] = stub >> 32;
    }
}

/// Makes this CPU use the table.
pub(super) fn load_idt() {
    let pointer = Pointer { limit: size_of::<Idt>() as u16 - 1, base: IDT.0.get() as u64 };
    // SAFETY: the table is complete.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
}

extern "C" fn kernel_trap(frame: &mut TrapFrame) {
    if frame.vector >= FIRST_IRQ {
        irq::dispatch(frame.vector);
        crate::sync::softirq::finish_interrupt();
        return;
    }
    if frame.vector == PAGE_FAULT {
        let addr = insn::read_cr2();
        if addr < USER_END && user_access_fault(frame, addr) {
            return;
        }
        panic_on_fault(frame, addr);
    }
    if let Some(fixup) = uaccess::fixup(frame.rip) {
        frame.rip = fixup;
        return;
    }
    panic_on_fault(frame, 0);
}

/// A fault of kernel code on a user address. Only the user accessors may cause one.
fn user_access_fault(frame: &mut TrapFrame, addr: usize) -> bool {
    let Some(fixup) = uaccess::fixup(frame.rip) else { return false };
    if cpu::preempt_count() == 0 && frame.rflags & RFLAGS_IF != 0 {
        let write = frame.error & 2 != 0;
        irq::enable();
        let handled = crate::mm::handle_fault(addr, write, false).is_ok();
        irq::disable();
        if handled {
            return true;
        }
    }
    frame.rip = fixup;
    true
}

extern "C" fn paranoid_trap(frame: &mut TrapFrame) {
    if frame.vector == 2 {
        if super::panic::halt_requested() {
            super::panic::halt();
        }
        // Nobody sends other NMIs to a virtual machine but its operator, who wants to know where it
        // is.
        emergency(format_args!("NMI on CPU {}: {frame}\n", cpu::id()));
        super::backtrace::print(frame.rip, frame.rbp);
        return;
    }
    panic_on_fault(frame, insn::read_cr2());
}

#[cold]
fn panic_on_fault(frame: &TrapFrame, addr: usize) -> ! {
    const NAMES: [&str; 22] = [
        "divide error",
        "debug",
        "NMI",
        "breakpoint",
        "overflow",
        "bound range",
        "invalid opcode",
        "device not available",
        "double fault",
        "coprocessor overrun",
        "invalid TSS",
        "segment not present",
        "stack fault",
        "general protection",
        "page fault",
        "reserved",
        "x87 error",
        "alignment check",
        "machine check",
        "SIMD error",
        "virtualization",
        "control protection",
    ];
    let name = NAMES.get(frame.vector).unwrap_or(&"reserved");
    let overflow = frame.vector == PAGE_FAULT && super::kstack::is_guard(addr);
    let why = if overflow { " (kernel stack overflow)" } else { "" };
    super::panic::fatal(
        format_args!(
            "{name} in the kernel{why}, address {:#x}, error {:#x}\n{frame}",
            super::backtrace::linked(addr),
            frame.error
        ),
        frame.rip,
        frame.rbp,
    )
}

impl fmt::Display for TrapFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers = [
            ("rip", self.rip),
            ("rsp", self.rsp),
            ("rax", self.rax),
            ("rbx", self.rbx),
            ("rcx", self.rcx),
            ("rdx", self.rdx),
            ("rsi", self.rsi),
            ("rdi", self.rdi),
            ("rbp", self.rbp),
            ("r8 ", self.r8),
            ("r9 ", self.r9),
            ("r10", self.r10),
            ("r11", self.r11),
            ("r12", self.r12),
            ("r13", self.r13),
            ("r14", self.r14),
            ("r15", self.r15),
        ];
        write!(f, "  flags {:x}", self.rflags)?;
        for (index, (name, value)) in registers.into_iter().enumerate() {
            let gap = if index % 4 == 0 { "\n " } else { "" };
            // Where the kernel is, is nobody's business: addresses as they were linked.
            write!(f, "{gap} {name} {:016x}", super::backtrace::linked(value))?;
        }
        Ok(())
    }
}
