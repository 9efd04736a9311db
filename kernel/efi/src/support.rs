//! What compilers call, and what is left when something goes wrong.

use core::arch::global_asm;
use core::panic::PanicInfo;

// In assembler, so that they can't be compiled into calls of themselves.
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
memmove:
    movq %rdi, %rax
    subq %rsi, %rax
    cmpq %rdx, %rax
    jae memcpy
    movq %rdi, %rax             /* they overlap: from the end */
    leaq -1(%rdi, %rdx), %rdi
    leaq -1(%rsi, %rdx), %rsi
    movq %rdx, %rcx
    std
    rep movsb
    cld
    ret
memcpy:
    movq %rdi, %rax
    movq %rdx, %rcx
    shrq $3, %rcx
    rep movsq
    movl %edx, %ecx
    andl $7, %ecx
    rep movsb
    ret
memset:
    movq %rdi, %r8
    movl %esi, %eax
    movq %rdx, %rcx
    rep stosb
    movq %r8, %rax
    ret
bcmp:
memcmp:
    xorl %eax, %eax
    movq %rdx, %rcx
    cmpq %rcx, %rcx
    repe cmpsb
    je 1f
    movzbl -1(%rdi), %ecx
    movzbl -1(%rsi), %eax
    xchgl %ecx, %eax
    subl %eax, %ecx
    movl %ecx, %eax
    negl %eax
1:  ret
strlen:
    movq $-1, %rax
1:  incq %rax
    cmpb $0, (%rdi, %rax)
    jne 1b
    ret
    /* Prebuilt core refers to these; with panic=abort nothing calls them. */
rust_eh_personality:
_Unwind_Resume:
    ud2
"#,
    options(att_syntax)
);

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
