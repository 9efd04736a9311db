//! The code of the vDSO, position independent and self-contained: it is copied into the image,
//! never run where it is linked.
//!
//! `r8` points at the data page ([`super::Data`]); the offsets below are its fields. The data page
//! lies right before the image, and the image builder puts this code [`CODE_OFFSET`] bytes into it.

use core::arch::global_asm;

/// Where the code starts in the image.
pub const CODE_OFFSET: usize = 0x400;

global_asm!(
    r#"
    .pushsection .rodata.vdso, "a"
    .balign 16
    .globl d2u_vdso_start
d2u_vdso_start:

    /* Monotonic nanoseconds in rax; carry set if only the kernel can tell. Spoils rcx, rdx, r9, r10. */
    .macro monotonic
1:  mov r10d, dword ptr [r8]
    test r10d, 1
    jnz 2f
    cmp dword ptr [r8 + 4], 0
    je 3f
    lfence
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, qword ptr [r8 + 8]
    mul qword ptr [r8 + 16]
    shrd rax, rdx, 32
    add rax, qword ptr [r8 + 24]
    mov r9, qword ptr [r8 + 32]
    cmp r10d, dword ptr [r8]
    jne 1b
    clc
    jmp 4f
2:  pause
    jmp 1b
3:  stc
4:
    .endm

    /* Whole seconds of the nanoseconds in rax to rdx, by a reciprocal: division is slow, above all in
       an emulator. floor(n / 10^9) = ((n >> 9) * ceil(2^75 / 5^9)) >> 75 for all 64-bit n. Leaves
       what remains in rcx; spoils rax. */
    .macro seconds
    mov rcx, rax
    shr rax, 9
    movabs rdx, 0x44b82fa09b5a53
    mul rdx
    shr rdx, 11
    imul rax, rdx, 1000000000
    sub rcx, rax
    .endm

    .globl d2u_vdso_clock_gettime
d2u_vdso_clock_gettime:                 /* (edi: clock, rsi: struct timespec *) */
    lea r8, [rip + d2u_vdso_start - {back}]
    cmp edi, 11
    ja 8f
    mov eax, 0x8f3                      /* clocks 0, 1, 4, 5, 6, 7, 11 */
    bt eax, edi
    jnc 8f
    monotonic
    jc 8f
    mov edx, 0x821                      /* wall clocks: 0, 5, 11 */
    bt edx, edi
    jnc 5f
    add rax, r9
5:  seconds
    mov qword ptr [rsi], rdx
    mov qword ptr [rsi + 8], rcx
    xor eax, eax
    ret
8:  mov eax, 228
    syscall
    ret

    .globl d2u_vdso_gettimeofday
d2u_vdso_gettimeofday:                  /* (rdi: struct timeval *, rsi: struct timezone *) */
    lea r8, [rip + d2u_vdso_start - {back}]
    test rsi, rsi
    jnz 8f
    test rdi, rdi
    jz 6f
    monotonic
    jc 8f
    add rax, r9
    seconds
    mov qword ptr [rdi], rdx
    imul rcx, rcx, 274877907            /* nanoseconds / 1000: ceil(2^38 / 1000) */
    shr rcx, 38
    mov qword ptr [rdi + 8], rcx
6:  xor eax, eax
    ret
8:  mov eax, 96
    syscall
    ret

    .globl d2u_vdso_time
d2u_vdso_time:                          /* (rdi: time_t *) */
    lea r8, [rip + d2u_vdso_start - {back}]
    monotonic
    jc 8f
    add rax, r9
    seconds
    mov rax, rdx
    test rdi, rdi
    jz 5f
    mov qword ptr [rdi], rax
5:  ret
8:  mov eax, 201
    syscall
    ret

    .globl d2u_vdso_getcpu
d2u_vdso_getcpu:
    mov eax, 309
    syscall
    ret

    .globl d2u_vdso_end
d2u_vdso_end:
    .purgem monotonic
    .purgem seconds
    .popsection
    "#,
    back = const super::IMAGE_OFFSET + CODE_OFFSET,
);

unsafe extern "C" {
    static d2u_vdso_start: u8;
    static d2u_vdso_clock_gettime: u8;
    static d2u_vdso_gettimeofday: u8;
    static d2u_vdso_time: u8;
    static d2u_vdso_getcpu: u8;
    static d2u_vdso_end: u8;
}

/// Names and code offsets of the functions.
pub fn functions() -> [(&'static str, usize); 4] {
    let start = &raw const d2u_vdso_start as usize;
    [
        ("__vdso_clock_gettime", &raw const d2u_vdso_clock_gettime as usize - start),
        ("__vdso_gettimeofday", &raw const d2u_vdso_gettimeofday as usize - start),
        ("__vdso_time", &raw const d2u_vdso_time as usize - start),
        ("__vdso_getcpu", &raw const d2u_vdso_getcpu as usize - start),
    ]
}

/// The machine code.
pub fn bytes() -> &'static [u8] {
    let start = &raw const d2u_vdso_start;
    let len = &raw const d2u_vdso_end as usize - start as usize;
    // SAFETY: both symbols delimit one read-only section laid down by the assembler above.
    unsafe { core::slice::from_raw_parts(start, len) }
}
