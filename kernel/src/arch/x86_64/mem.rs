//! The memory functions that compilers call. Written in assembler, so they can't be compiled into
//! calls of themselves.
//!
//! Large blocks are moved by string instructions on processors that say they are fast at them
//! (ERMS), which is as fast as memory. QEMU's translator says so as well, and then moves byte after
//! byte; there and on older processors eight bytes go through a general register at a time: the
//! translator keeps those in registers of the host's and vector registers in memory, so that
//! 16-byte moves take twice the time.

use super::insn::cpuid;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether string instructions are the fastest way to move and fill large blocks.
pub(super) static FAST_STRINGS: AtomicBool = AtomicBool::new(false);
/// From this length on, in bytes, they make up for what they take to start.
pub(super) const LARGE: usize = 512;

/// Finds out what this processor is fast at.
pub(super) fn init() {
    const ERMS: u32 = 1 << 9;
    let fast = cpuid(7, 0).ebx & ERMS != 0 && !super::is_emulated();
    FAST_STRINGS.store(fast, Ordering::Relaxed);
}

global_asm!(
    r#"
    .section .text.mem, "ax"
    .globl memcpy
    .globl memmove
    .globl memset
    .globl memcmp
    .globl bcmp
    .globl strlen
    .globl rust_eh_personality
    .globl _Unwind_Resume

    .balign 16
memmove:
    movq %rdi, %rcx
    subq %rsi, %rcx             /* unsigned dst - src < len: copy from the end */
    cmpq %rdx, %rcx
    jb memmove_down
memcpy:
    movq %rdi, %rax
    cmpq $16, %rdx
    jb 4f
    cmpq $32, %rdx
    ja 1f
    /* 16 to 32: both ends, which may overlap */
    movups (%rsi), %xmm0
    movups -16(%rsi, %rdx), %xmm1
    movups %xmm0, (%rdi)
    movups %xmm1, -16(%rdi, %rdx)
    ret
1:  /* the last 16 bytes are read first: with overlap they may be overwritten before their turn */
    movups -16(%rsi, %rdx), %xmm4
    leaq -16(%rdi, %rdx), %r8
    cmpq $64, %rdx
    jb 3f
    cmpq ${large}, %rdx
    jb 2f
    cmpb $0, {fast}(%rip)
    jne 10f
2:  .irp at, 0, 8, 16, 24, 32, 40, 48, 56
    movq \at(%rsi), %rcx
    movq %rcx, \at(%rdi)
    .endr
    addq $64, %rsi
    addq $64, %rdi
    subq $64, %rdx
    cmpq $64, %rdx
    jae 2b
3:  cmpq $16, %rdx
    jb 5f
    movups (%rsi), %xmm0
    movups %xmm0, (%rdi)
    addq $16, %rsi
    addq $16, %rdi
    subq $16, %rdx
    jmp 3b
5:  movups %xmm4, (%r8)
    ret
4:  cmpq $8, %rdx
    jb 6f
    movq (%rsi), %rcx
    movq -8(%rsi, %rdx), %r8
    movq %rcx, (%rdi)
    movq %r8, -8(%rdi, %rdx)
    ret
6:  cmpq $4, %rdx
    jb 7f
    movl (%rsi), %ecx
    movl -4(%rsi, %rdx), %r8d
    movl %ecx, (%rdi)
    movl %r8d, -4(%rdi, %rdx)
    ret
7:  testq %rdx, %rdx
    jz 8f
    movzbl (%rsi), %ecx
    movzbl -1(%rsi, %rdx), %r8d
    cmpq $3, %rdx
    jne 9f
    movzbl 1(%rsi), %r9d
    movb %r9b, 1(%rdi)
9:  movb %cl, (%rdi)
    movb %r8b, -1(%rdi, %rdx)
8:  ret
10: movq %rdx, %rcx
    rep movsb
    ret

    .balign 16
memmove_down:
    movq %rdi, %rax
    cmpq $16, %rdx
    jb 4b                       /* small sizes load everything before they store */
    cmpq $32, %rdx
    ja 1f
    movups (%rsi), %xmm0
    movups -16(%rsi, %rdx), %xmm1
    movups %xmm0, (%rdi)
    movups %xmm1, -16(%rdi, %rdx)
    ret
1:  movups (%rsi), %xmm4        /* the first 16 bytes, stored last */
2:  cmpq $64, %rdx
    jb 3f
    .irp at, 8, 16, 24, 32, 40, 48, 56, 64
    movq -\at(%rsi, %rdx), %rcx
    movq %rcx, -\at(%rdi, %rdx)
    .endr
    subq $64, %rdx
    jmp 2b
3:  cmpq $16, %rdx
    jb 5f
    movups -16(%rsi, %rdx), %xmm0
    movups %xmm0, -16(%rdi, %rdx)
    subq $16, %rdx
    jmp 3b
5:  movups %xmm4, (%rdi)
    ret

    .balign 16
memset:
    movq %rdi, %rax
    movzbl %sil, %ecx
    movabsq $0x0101010101010101, %r8
    imulq %r8, %rcx
    cmpq $16, %rdx
    jb 4f
    movq %rcx, %xmm0
    punpcklqdq %xmm0, %xmm0
    leaq -16(%rdi, %rdx), %r8
    cmpq $64, %rdx
    jb 3f
    cmpq ${large}, %rdx
    jb 2f
    cmpb $0, {fast}(%rip)
    jne 10f
2:  .irp at, 0, 8, 16, 24, 32, 40, 48, 56
    movq %rcx, \at(%rdi)
    .endr
    addq $64, %rdi
    subq $64, %rdx
    cmpq $64, %rdx
    jae 2b
3:  cmpq $16, %rdx
    jb 5f
    movups %xmm0, (%rdi)
    addq $16, %rdi
    subq $16, %rdx
    jmp 3b
5:  movups %xmm0, (%r8)
    ret
4:  cmpq $8, %rdx
    jb 6f
    movq %rcx, (%rdi)
    movq %rcx, -8(%rdi, %rdx)
    ret
6:  cmpq $4, %rdx
    jb 7f
    movl %ecx, (%rdi)
    movl %ecx, -4(%rdi, %rdx)
    ret
7:  testq %rdx, %rdx
    jz 8f
    movb %cl, (%rdi)
    movb %cl, -1(%rdi, %rdx)
    shrq $1, %rdx
    movb %cl, (%rdi, %rdx)
8:  ret
10: movq %rax, %r8
    movl %ecx, %eax
    movq %rdx, %rcx
    rep stosb
    movq %r8, %rax
    ret

    .balign 16
bcmp:
memcmp:
    xorl %ecx, %ecx
1:  leaq 8(%rcx), %r9
    cmpq %rdx, %r9
    ja 2f
    movq (%rdi, %rcx), %rax
    movq (%rsi, %rcx), %r8
    cmpq %r8, %rax
    jne 3f
    movq %r9, %rcx
    jmp 1b
3:  bswapq %rax
    bswapq %r8
    cmpq %r8, %rax
    sbbl %eax, %eax
    orl $1, %eax
    ret
2:  cmpq %rdx, %rcx
    jae 4f
    movzbl (%rdi, %rcx), %eax
    movzbl (%rsi, %rcx), %r8d
    incq %rcx
    subl %r8d, %eax
    jz 2b
    ret
4:  xorl %eax, %eax
    ret

strlen:
    movq $-1, %rax
1:  incq %rax
    cmpb $0, (%rdi, %rax)
    jne 1b
    ret

    /* Prebuilt core and alloc refer to these; with panic=abort nothing calls them. */
rust_eh_personality:
_Unwind_Resume:
    ud2
"#,
    fast = sym FAST_STRINGS,
    large = const LARGE,
    options(att_syntax)
);
