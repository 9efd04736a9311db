//! The memory functions that compilers call. Written in assembler, so they can't be compiled into
//! calls of themselves.
//!
//! Unrolled 16-byte moves rather than string instructions: under emulation those are interpreted
//! byte by byte, and on hardware both run at memory speed for the sizes that a kernel moves.

use core::arch::global_asm;

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
2:  movups (%rsi), %xmm0
    movups 16(%rsi), %xmm1
    movups 32(%rsi), %xmm2
    movups 48(%rsi), %xmm3
    movups %xmm0, (%rdi)
    movups %xmm1, 16(%rdi)
    movups %xmm2, 32(%rdi)
    movups %xmm3, 48(%rdi)
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
    movups -16(%rsi, %rdx), %xmm0
    movups -32(%rsi, %rdx), %xmm1
    movups -48(%rsi, %rdx), %xmm2
    movups -64(%rsi, %rdx), %xmm3
    movups %xmm0, -16(%rdi, %rdx)
    movups %xmm1, -32(%rdi, %rdx)
    movups %xmm2, -48(%rdi, %rdx)
    movups %xmm3, -64(%rdi, %rdx)
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
2:  movups %xmm0, (%rdi)
    movups %xmm0, 16(%rdi)
    movups %xmm0, 32(%rdi)
    movups %xmm0, 48(%rdi)
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
    options(att_syntax)
);
