//! From the PVH entry (32-bit, paging off) to Rust in the high half.
//!
//! The boot tables map the first 4 GiB twice, in place and at the direct map, with 2 MiB pages, and
//! the first GiB at -2 GiB. [`super::relocate`] moves the kernel on from there, and
//! [`super::paging::init`] replaces them.
//!
//! Source of the entry state: Xen's `docs/misc/pvh.pandoc`; every loader of ours enters the same
//! way.

use core::arch::global_asm;

/// Bytes of the stack that start-up runs on; it becomes the boot CPU's idle stack.
pub const BOOT_STACK: usize = 32 * 1024;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_start32

    .section .boot.bss, "aw", @nobits
    .balign 4096
boot_pml4:      .skip 4096
boot_pdpt_low:  .skip 4096
boot_pdpt_high: .skip 4096
boot_pd:        .skip 4 * 4096
    .globl boot_pdpt_high
    .globl boot_moved
boot_moved:     .skip 5 * 4096

    .section .boot.data, "aw"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdtr:
    .word 31
    .quad boot_gdt

    .section .boot.text, "ax"
    .code32
    .globl pvh_start32
pvh_start32:
    cld
    cli
    movl %ebx, %esi
    movl $boot_pdpt_low + 3, boot_pml4
    movl $boot_pdpt_low + 3, boot_pml4 + 256 * 8
    movl $boot_pdpt_high + 3, boot_pml4 + 511 * 8
    movl $boot_pd + 3, boot_pdpt_high + 510 * 8
    movl $boot_pd + 3, %eax
    movl $boot_pdpt_low, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    decl %ecx
    jnz 1b
    movl $0x83, %eax
    movl $boot_pd, %edi
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    decl %ecx
    jnz 2b

    movl %cr4, %eax
    orl $0x6a0, %eax            /* PAE PGE OSFXSR OSXMMEXCPT */
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax            /* SCE LME NXE */
    wrmsr
    movl %cr0, %eax
    andl $0x9ffffff3, %eax      /* CD NW TS EM off */
    orl $0x80010023, %eax       /* PG WP NE MP PE */
    movl %eax, %cr0
    lgdt boot_gdtr
    ljmp $0x10, $start64_low

    .code64
start64_low:
    movl $0x18, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl %esi, %edi
    movabsq $start64_high, %rax
    jmp *%rax

    .section .bss.boot_stack, "aw", @nobits
    .balign 4096
    .globl boot_stack_guard
boot_stack_guard: .skip 4096
boot_stack: .skip {stack}
    .globl boot_stack_top
boot_stack_top:

    .section .text.start64_high, "ax"
    .globl start64_high
start64_high:
    movq $boot_stack_top, %rsp
    xorl %ebp, %ebp
    rdtsc
    shlq $32, %rdx
    leaq (%rax, %rdx), %rsi
    pushq %rdi
    pushq %rsi
    call {relocate}
    popq %rsi
    popq %rdi
    movq $1f, %rax              /* mended by now, as is the address below */
    jmp *%rax
1:  movq $boot_stack_top, %rsp
    call {main}
    ud2
"#,
    stack = const BOOT_STACK,
    main = sym start,
    relocate = sym super::relocate::relocate,
    options(att_syntax)
);

/// First Rust code: `start_info` is the physical address of the `hvm_start_info`, `tsc` the time of
/// entry.
extern "C" fn start(start_info: usize, tsc: u64) -> ! {
    super::start::boot_cpu(start_info, tsc)
}
