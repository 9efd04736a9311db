//! User mode as a call: [`enter`] runs the program until it needs the kernel and returns why.

use super::cpu::{CANARY, KERNEL_RSP, SCRATCH, USER_CONTEXT};
use super::fpu::FpuState;
use super::gdt::{USER_CS, USER_DS};
use super::insn::wrmsr;
use super::trap::{FIRST_IRQ, PAGE_FAULT};
use super::{cpu, insn, irq, random};
use crate::arch::USER_END;
use crate::errno::Result;
use core::arch::global_asm;
use core::mem::offset_of;

/// Registers of a thread in user mode.
#[repr(C, align(16))]
pub struct UserContext {
    xmm: [[u64; 2]; 16],
    pub rax: usize,
    pub rbx: usize,
    pub rcx: usize,
    pub rdx: usize,
    pub rsi: usize,
    pub rdi: usize,
    pub rbp: usize,
    pub rsp: usize,
    pub r8: usize,
    pub r9: usize,
    pub r10: usize,
    pub r11: usize,
    pub r12: usize,
    pub r13: usize,
    pub r14: usize,
    pub r15: usize,
    pub rip: usize,
    pub rflags: usize,
    vector: usize,
    error: usize,
    /// `rax` at the last syscall entry: its number. -1 if user mode was left otherwise.
    pub orig_rax: usize,
    pub fs_base: usize,
    pub gs_base: usize,
    /// What is left of the register state: x87, upper vector halves.
    pub fpu: FpuState,
}

/// Field offsets for the entry code.
pub(super) mod offsets {
    use super::UserContext;
    use core::mem::offset_of;
    macro_rules! offsets {
        ($($name:ident = $field:ident),*) => {
            $(pub const $name: usize = offset_of!(UserContext, $field);)*
        };
    }
    offsets!(
        RAX = rax,
        RBX = rbx,
        RCX = rcx,
        RDX = rdx,
        RSI = rsi,
        RDI = rdi,
        RBP = rbp,
        RSP = rsp
    );
    offsets!(R8 = r8, R9 = r9, R10 = r10, R11 = r11, R12 = r12, R13 = r13, R14 = r14, R15 = r15);
    offsets!(RIP = rip, RFLAGS = rflags, VECTOR = vector, ERROR = error);
}
use offsets as ctx;

const _: () = assert!(offset_of!(UserContext, xmm) == 0);

/// Why user mode was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserExit {
    /// `syscall`: the number is in `orig_rax`, arguments in rdi, rsi, rdx, r10, r8, r9; the result
    /// goes to rax.
    Syscall,
    /// An exception.
    Fault {
        /// Exception vector (SDM vol. 3, table 7-1).
        vector: u8,
        /// Error code; for page faults bit 0 is "present", bit 1 "write", bit 4 "instruction
        /// fetch".
        error: u32,
        /// Faulting address of a page fault, else the instruction's.
        addr: usize,
    },
    /// An interrupt was handled, or work is pending: see [`crate::sync::softirq::run_pending`].
    Interrupt,
}

/// RFLAGS bits that programs may set: CF PF AF ZF SF TF DF OF RF AC ID.
const USER_FLAGS: usize = 0x0025_0dd5;

impl UserContext {
    /// The state in which a program starts. ENOMEM if there is no memory for its registers.
    pub fn new(rip: usize, rsp: usize) -> Result<UserContext> {
        Ok(UserContext {
            xmm: [[0; 2]; 16],
            rax: 0,
            rbx: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            rbp: 0,
            rsp,
            r8: 0,
            r9: 0,
            r10: 0,
            r11: 0,
            r12: 0,
            r13: 0,
            r14: 0,
            r15: 0,
            rip,
            rflags: 0x202,
            vector: 0,
            error: 0,
            orig_rax: usize::MAX,
            fs_base: 0,
            gs_base: 0,
            fpu: FpuState::new()?,
        })
    }

    /// A copy for a new thread. ENOMEM if there is no memory for its registers.
    pub fn try_clone(&mut self) -> Result<UserContext> {
        let fpu = self.fpu.try_clone()?;
        Ok(UserContext { fpu, ..*self })
    }

    /// Sets the flags that programs may set and keeps the others (sigreturn).
    pub fn set_user_flags(&mut self, flags: usize) {
        self.rflags = flags & USER_FLAGS | 0x202;
    }

    /// The floating-point state as a signal frame carries it, in XSAVE standard format with Linux's
    /// trailer; [`super::fpu::signal_size`] bytes long.
    pub fn signal_fpu(&mut self) -> &[u8] {
        self.fpu.signal_frame(&self.xmm)
    }

    /// Takes floating-point state from a signal frame: `read` fills a buffer with its bytes from an
    /// offset on. `None` resets the state, as for a null `fpstate`; so does a frame that can't be read.
    pub fn restore_signal_fpu(
        &mut self,
        read: Option<impl FnMut(usize, &mut [u8]) -> Result<()>>,
    ) -> Result<()> {
        self.fpu.restore_signal(&mut self.xmm, read)
    }

    /// Puts the floating-point state back to what a program starts with (execve).
    pub fn reset_fpu(&mut self) {
        self.xmm = [[0; 2]; 16];
        self.fpu.reset();
    }

    /// To call with preemption off before another task takes this CPU, if this one may have run in
    /// user mode.
    pub fn switch_out(&mut self) {
        self.fpu.switch_out();
    }
}

global_asm!(
    r#"
    .section .text.user, "ax"
    .balign 16
    .globl user_enter
user_enter:                     /* rdi: context, esi: whether SYSRET will do */
    pushq %rbp
    movq %rsp, %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %gs:{canary}
    pushq $0                    /* keeps the stack aligned */
    movq %rdi, %gs:{user_context}
    movq %rsp, %gs:{kernel_rsp}
    movaps 0(%rdi), %xmm0
    movaps 16(%rdi), %xmm1
    movaps 32(%rdi), %xmm2
    movaps 48(%rdi), %xmm3
    movaps 64(%rdi), %xmm4
    movaps 80(%rdi), %xmm5
    movaps 96(%rdi), %xmm6
    movaps 112(%rdi), %xmm7
    movaps 128(%rdi), %xmm8
    movaps 144(%rdi), %xmm9
    movaps 160(%rdi), %xmm10
    movaps 176(%rdi), %xmm11
    movaps 192(%rdi), %xmm12
    movaps 208(%rdi), %xmm13
    movaps 224(%rdi), %xmm14
    movaps 240(%rdi), %xmm15
    movq {rax}(%rdi), %rax
    movq {rbx}(%rdi), %rbx
    movq {rdx}(%rdi), %rdx
    movq {rbp}(%rdi), %rbp
    movq {r8}(%rdi), %r8
    movq {r9}(%rdi), %r9
    movq {r10}(%rdi), %r10
    movq {r12}(%rdi), %r12
    movq {r13}(%rdi), %r13
    movq {r14}(%rdi), %r14
    movq {r15}(%rdi), %r15
    testl %esi, %esi
    jz 1f
    movq {rsi}(%rdi), %rsi
    movq {rip}(%rdi), %rcx
    movq {rflags}(%rdi), %r11
    movq {rsp}(%rdi), %rsp
    movq {rdi}(%rdi), %rdi
    swapgs
    sysretq
1:  pushq ${user_ds}
    pushq {rsp}(%rdi)
    pushq {rflags}(%rdi)
    pushq ${user_cs}
    pushq {rip}(%rdi)
    movq {r11}(%rdi), %r11
    movq {rcx}(%rdi), %rcx
    movq {rsi}(%rdi), %rsi
    movq {rdi}(%rdi), %rdi
    swapgs
    iretq

    .balign 16
    .globl syscall_entry
syscall_entry:                  /* interrupts are off; rcx: rip, r11: flags, rsp: the user's */
    swapgs
    movq %rsp, %gs:{scratch}
    movq %gs:{user_context}, %rsp
    movq %rax, {rax}(%rsp)
    movq %rbx, {rbx}(%rsp)
    movq %rcx, {rcx}(%rsp)
    movq %rdx, {rdx}(%rsp)
    movq %rsi, {rsi}(%rsp)
    movq %rdi, {rdi}(%rsp)
    movq %rbp, {rbp}(%rsp)
    movq %r8, {r8}(%rsp)
    movq %r9, {r9}(%rsp)
    movq %r10, {r10}(%rsp)
    movq %r11, {r11}(%rsp)
    movq %r12, {r12}(%rsp)
    movq %r13, {r13}(%rsp)
    movq %r14, {r14}(%rsp)
    movq %r15, {r15}(%rsp)
    movq %rcx, {rip}(%rsp)
    movq %r11, {rflags}(%rsp)
    movq %gs:{scratch}, %rcx
    movq %rcx, {rsp}(%rsp)
    movq %rsp, %rdi
    movq %gs:{kernel_rsp}, %rsp
    xorl %eax, %eax

    /* Registers are in the context at rdi, the stack is `user_enter`'s: return eax from it. */
    .globl user_leave
user_leave:
    movaps %xmm0, 0(%rdi)
    movaps %xmm1, 16(%rdi)
    movaps %xmm2, 32(%rdi)
    movaps %xmm3, 48(%rdi)
    movaps %xmm4, 64(%rdi)
    movaps %xmm5, 80(%rdi)
    movaps %xmm6, 96(%rdi)
    movaps %xmm7, 112(%rdi)
    movaps %xmm8, 128(%rdi)
    movaps %xmm9, 144(%rdi)
    movaps %xmm10, 160(%rdi)
    movaps %xmm11, 176(%rdi)
    movaps %xmm12, 192(%rdi)
    movaps %xmm13, 208(%rdi)
    movaps %xmm14, 224(%rdi)
    movaps %xmm15, 240(%rdi)
    addq $8, %rsp
    popq %rcx
    cmpq %rcx, %gs:{canary}
    jne 2f
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
2:  call {damaged}
"#,
    damaged = sym damaged,
    canary = const CANARY,
    user_context = const USER_CONTEXT,
    kernel_rsp = const KERNEL_RSP,
    scratch = const SCRATCH,
    user_ds = const USER_DS,
    user_cs = const USER_CS,
    rax = const ctx::RAX, rbx = const ctx::RBX, rcx = const ctx::RCX, rdx = const ctx::RDX,
    rsi = const ctx::RSI, rdi = const ctx::RDI, rbp = const ctx::RBP, r8 = const ctx::R8,
    r9 = const ctx::R9, r10 = const ctx::R10, r11 = const ctx::R11, r12 = const ctx::R12,
    r13 = const ctx::R13, r14 = const ctx::R14, r15 = const ctx::R15, rsp = const ctx::RSP,
    rip = const ctx::RIP, rflags = const ctx::RFLAGS,
    options(att_syntax)
);

/// What lay on the kernel's stack while the program ran is not what was left there.
extern "C" fn damaged() -> ! {
    panic!("the kernel's stack was overwritten while a program ran")
}

unsafe extern "C" {
    fn user_enter(context: *mut UserContext, sysret: u32) -> u32;
    fn syscall_entry();
}

const MSR_FS_BASE: u32 = 0xc000_0100;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// Runs the program whose registers `context` holds until it needs the kernel.
///
/// Called from the task's main loop with interrupts on and nothing locked. Returns
/// [`UserExit::Interrupt`] at once while work is pending on this CPU, or `urgent` for the task. With
/// interrupts off the answer holds until the program runs: whatever comes up later interrupts it.
#[inline]
pub fn enter(context: &mut UserContext, urgent: impl FnOnce() -> bool) -> UserExit {
    irq::disable();
    if cpu::pending() != 0 || urgent() {
        irq::enable();
        return UserExit::Interrupt;
    }
    // SAFETY: interrupts are off, so this stays the CPU's own slot.
    let this = unsafe { &mut *cpu::this() };
    if this.fs_base != context.fs_base {
        this.fs_base = context.fs_base;
        // SAFETY: `set_fs_base` and friends keep the value in user space.
        unsafe { wrmsr(MSR_FS_BASE, context.fs_base as u64) };
    }
    if this.gs_base != context.gs_base {
        this.gs_base = context.gs_base;
        // SAFETY: as above; the kernel's own base is in `GS_BASE` now.
        unsafe { wrmsr(MSR_KERNEL_GS_BASE, context.gs_base as u64) };
    }
    context.fpu.load(this);
    // Returning to an address that isn't canonical would fault in kernel mode.
    if context.rip >= USER_END {
        irq::enable();
        return UserExit::Fault { vector: 13, error: 0, addr: context.rip };
    }
    const TF: usize = 1 << 8;
    const RF: usize = 1 << 16;
    let sysret = context.rcx == context.rip
        && context.r11 == context.rflags
        && context.rflags & (TF | RF) == 0;
    // SAFETY: interrupts are off; the context's flags, selectors and bases are fit for user mode.
    let trap = unsafe { user_enter(context, u32::from(sysret)) };
    if trap == 0 {
        context.orig_rax = context.rax;
        irq::enable();
        return UserExit::Syscall;
    }
    context.orig_rax = usize::MAX;
    if context.vector >= FIRST_IRQ {
        irq::dispatch(context.vector);
        irq::enable();
        return UserExit::Interrupt;
    }
    let addr = if context.vector == PAGE_FAULT { insn::read_cr2() } else { context.rip };
    irq::enable();
    UserExit::Fault { vector: context.vector as u8, error: context.error as u32, addr }
}

/// Sets up the syscall instruction on this CPU.
pub(super) fn init_cpu() {
    const MSR_LSTAR: u32 = 0xc000_0082;
    const MSR_FMASK: u32 = 0xc000_0084;
    // TF IF DF NT AC IOPL
    const MASK: u64 = 0x4_7700;
    // SAFETY: the entry code expects exactly this mask. Nothing else uses the slot's canary, and this
    // CPU hasn't been in user mode yet.
    unsafe {
        (*cpu::this()).canary = random::seed_word();
        wrmsr(MSR_LSTAR, syscall_entry as *const () as u64);
        wrmsr(MSR_FMASK, MASK);
    }
}
