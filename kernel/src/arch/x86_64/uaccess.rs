//! Access to user memory that survives faults.
//!
//! Each instruction that touches user memory has an entry in the exception table: if the page fault
//! handler can't bring the page in, execution goes on at the entry's fix-up, which finishes byte by
//! byte up to the faulting one, so that the counts returned are exact.

use super::insn::{cpuid, read_cr4, write_cr4};
use super::mem;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

global_asm!(
    r#"
    .macro EXTABLE from, to
    .pushsection .extable, "a"
    .balign 8
    .quad \from, \to
    .popsection
    .endm

    .section .text.uaccess, "ax"
    /* 0x90 x 3 become STAC and CLAC when the CPU has SMAP. */
    .globl uaccess_stac0
    .globl uaccess_stac1
    .globl uaccess_stac2
    .globl uaccess_stac3
    .globl uaccess_stac4
    .globl uaccess_clac0
    .globl uaccess_clac1
    .globl uaccess_clac2
    .globl uaccess_clac3
    .globl uaccess_clac4

    /* rdi: destination, rsi: source, rdx: length; returns the bytes not copied. */
    .balign 16
    .globl uaccess_copy
uaccess_copy:
uaccess_stac0: .byte 0x90, 0x90, 0x90
    cmpq $64, %rdx
    jb 2f
    cmpq ${large}, %rdx
    jb 1f
    cmpb $0, {fast}(%rip)
    jne 5f
1:  .irp at, 0, 8, 16, 24, 32, 40, 48, 56
11: movq \at(%rsi), %rcx
12: movq %rcx, \at(%rdi)
    EXTABLE 11b, 3f
    EXTABLE 12b, 3f
    .endr
    addq $64, %rsi
    addq $64, %rdi
    subq $64, %rdx
    cmpq $64, %rdx
    jae 1b
2:  cmpq $8, %rdx
    jb 3f
21: movq (%rsi), %rcx
22: movq %rcx, (%rdi)
    addq $8, %rsi
    addq $8, %rdi
    subq $8, %rdx
    jmp 2b
3:  testq %rdx, %rdx
    jz 4f
31: movb (%rsi), %cl
32: movb %cl, (%rdi)
    incq %rsi
    incq %rdi
    decq %rdx
    jmp 3b
4:  movq %rdx, %rax
uaccess_clac0: .byte 0x90, 0x90, 0x90
    ret
5:  movq %rdx, %rcx
51: rep movsb
52: movq %rcx, %rdx             /* what a fault has left */
    jmp 3b
    EXTABLE 51b, 52b
    EXTABLE 21b, 3b
    EXTABLE 22b, 3b
    EXTABLE 31b, 4b
    EXTABLE 32b, 4b

    /* rdi: destination, rsi: length; returns the bytes not zeroed. */
    .balign 16
    .globl uaccess_clear
uaccess_clear:
uaccess_stac1: .byte 0x90, 0x90, 0x90
    xorl %ecx, %ecx
1:  cmpq $32, %rsi
    jb 3f
11: movq %rcx, (%rdi)
12: movq %rcx, 8(%rdi)
13: movq %rcx, 16(%rdi)
14: movq %rcx, 24(%rdi)
    addq $32, %rdi
    subq $32, %rsi
    jmp 1b
3:  testq %rsi, %rsi
    jz 4f
31: movb %cl, (%rdi)
    incq %rdi
    decq %rsi
    jmp 3b
4:  movq %rsi, %rax
uaccess_clac1: .byte 0x90, 0x90, 0x90
    ret
    EXTABLE 11b, 3b
    EXTABLE 12b, 3b
    EXTABLE 13b, 3b
    EXTABLE 14b, 3b
    EXTABLE 31b, 4b

    /* rdi: address, esi: expected, edx: new, rcx: where to put what was seen; returns 0, or 1 on a fault. */
    .balign 16
    .globl uaccess_cmpxchg
uaccess_cmpxchg:
uaccess_stac2: .byte 0x90, 0x90, 0x90
    movl %esi, %eax
1:  lock cmpxchgl %edx, (%rdi)
    movl %eax, (%rcx)
    xorl %eax, %eax
2:
uaccess_clac2: .byte 0x90, 0x90, 0x90
    ret
3:  movl $1, %eax
    jmp 2b
    EXTABLE 1b, 3b

    /* rdi: address, rsi: where to put the value; returns 0, or 1 on a fault. */
    .balign 16
    .globl uaccess_load
uaccess_load:
uaccess_stac3: .byte 0x90, 0x90, 0x90
1:  movl (%rdi), %eax
    movl %eax, (%rsi)
    xorl %eax, %eax
2:
uaccess_clac3: .byte 0x90, 0x90, 0x90
    ret
3:  movl $1, %eax
    jmp 2b
    EXTABLE 1b, 3b

    /* rdi: address, esi: value; returns 0, or 1 on a fault. */
    .balign 16
    .globl uaccess_store
uaccess_store:
uaccess_stac4: .byte 0x90, 0x90, 0x90
1:  movl %esi, (%rdi)
    xorl %eax, %eax
2:
uaccess_clac4: .byte 0x90, 0x90, 0x90
    ret
3:  movl $1, %eax
    jmp 2b
    EXTABLE 1b, 3b
"#,
    fast = sym mem::FAST_STRINGS,
    large = const mem::LARGE,
    options(att_syntax)
);

unsafe extern "C" {
    fn uaccess_copy(dst: usize, src: usize, len: usize) -> usize;
    fn uaccess_clear(dst: usize, len: usize) -> usize;
    fn uaccess_cmpxchg(addr: usize, old: u32, new: u32, seen: *mut u32) -> u32;
    fn uaccess_load(addr: usize, value: *mut u32) -> u32;
    fn uaccess_store(addr: usize, value: u32) -> u32;
    static uaccess_stac0: u8;
    static uaccess_stac1: u8;
    static uaccess_stac2: u8;
    static uaccess_stac3: u8;
    static uaccess_stac4: u8;
    static uaccess_clac0: u8;
    static uaccess_clac1: u8;
    static uaccess_clac2: u8;
    static uaccess_clac3: u8;
    static uaccess_clac4: u8;
    static __extable_start: [usize; 2];
    static __extable_end: [usize; 2];
}

/// Copies `len` bytes from user address `src`; returns how many were *not* copied.
///
/// # Safety
/// `dst` must be valid for `len` bytes of writes. `src..src + len` must lie in user space.
#[inline]
pub unsafe fn copy_from_user(dst: *mut u8, src: usize, len: usize) -> usize {
    // SAFETY: the caller's promise; faults are handled.
    unsafe { uaccess_copy(dst as usize, src, len) }
}

/// Copies `len` bytes to user address `dst`; returns how many were *not* copied.
///
/// # Safety
/// `src` must be valid for `len` bytes of reads. `dst..dst + len` must lie in user space.
#[inline]
pub unsafe fn copy_to_user(dst: usize, src: *const u8, len: usize) -> usize {
    // SAFETY: the caller's promise; faults are handled.
    unsafe { uaccess_copy(dst, src as usize, len) }
}

/// Zeroes `len` bytes at user address `dst`; returns how many were *not* zeroed.
///
/// # Safety
/// `dst..dst + len` must lie in user space.
pub unsafe fn clear_user(dst: usize, len: usize) -> usize {
    // SAFETY: the caller's promise; faults are handled.
    unsafe { uaccess_clear(dst, len) }
}

/// Atomically replaces the word at `addr` by `new` if it is `old`; `None` on a fault, else what it
/// held.
///
/// # Safety
/// `addr` must be four-byte aligned and lie in user space.
pub unsafe fn cmpxchg_u32(addr: usize, old: u32, new: u32) -> Option<u32> {
    let mut seen = 0;
    // SAFETY: the caller's promise; faults are handled.
    let fault = unsafe { uaccess_cmpxchg(addr, old, new, &raw mut seen) };
    (fault == 0).then_some(seen)
}

/// Atomically loads the word at `addr`; `None` on a fault.
///
/// # Safety
/// `addr` must be four-byte aligned and lie in user space.
pub unsafe fn load_u32(addr: usize) -> Option<u32> {
    let mut value = 0;
    // SAFETY: the caller's promise; faults are handled.
    let fault = unsafe { uaccess_load(addr, &raw mut value) };
    (fault == 0).then_some(value)
}

/// Atomically stores the word at `addr`; `None` on a fault.
///
/// # Safety
/// `addr` must be four-byte aligned and lie in user space.
pub unsafe fn store_u32(addr: usize, value: u32) -> Option<()> {
    // SAFETY: the caller's promise; faults are handled.
    let fault = unsafe { uaccess_store(addr, value) };
    (fault == 0).then_some(())
}

/// Where to go on after a fault of the instruction at `rip`, if it is one that touches user memory.
pub(super) fn fixup(rip: usize) -> Option<usize> {
    // SAFETY: the linker script bounds the table by these symbols.
    let table = unsafe {
        let start = &raw const __extable_start;
        let end = &raw const __extable_end;
        core::slice::from_raw_parts(start, end.offset_from(start) as usize)
    };
    table.iter().find(|entry| entry[0] == rip).map(|entry| entry[1])
}

const SMEP: u32 = 1 << 7;
const SMAP: u32 = 1 << 20;
const UMIP: u32 = 1 << 2;

/// Puts STAC and CLAC around the accessors if the CPU has SMAP. Before text becomes read-only.
///
/// # Safety
/// Kernel text is writable and no other CPU runs.
pub(super) unsafe fn patch() {
    if cpuid(7, 0).ebx & SMAP == 0 {
        return;
    }
    // SAFETY: each symbol names three bytes of no-ops in text, which the caller says is writable.
    unsafe {
        for at in [
            &raw const uaccess_stac0,
            &raw const uaccess_stac1,
            &raw const uaccess_stac2,
            &raw const uaccess_stac3,
            &raw const uaccess_stac4,
        ] {
            at.cast_mut().cast::<[u8; 3]>().write([0x0f, 0x01, 0xcb]);
        }
        for at in [
            &raw const uaccess_clac0,
            &raw const uaccess_clac1,
            &raw const uaccess_clac2,
            &raw const uaccess_clac3,
            &raw const uaccess_clac4,
        ] {
            at.cast_mut().cast::<[u8; 3]>().write([0x0f, 0x01, 0xca]);
        }
    }
    PATCHED.store(true, Ordering::Release);
}

static PATCHED: AtomicBool = AtomicBool::new(false);

/// Turns on what keeps the kernel from touching or running user memory by mistake.
pub(super) fn init_cpu() {
    let leaf = cpuid(7, 0);
    let mut cr4 = read_cr4();
    if leaf.ebx & SMEP != 0 {
        cr4 |= 1 << 20;
    }
    if leaf.ebx & SMAP != 0 && PATCHED.load(Ordering::Acquire) {
        cr4 |= 1 << 21;
    }
    if leaf.ecx & UMIP != 0 {
        cr4 |= 1 << 11;
    }
    // SAFETY: the kernel maps its own memory as supervisor memory and touches user memory through
    // this module only.
    unsafe { write_cr4(cr4) };
}
