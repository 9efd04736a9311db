//! User mode: entry, system calls, faults, interrupts, vector registers, and access to user memory.

use crate::arch::user::{UserContext, UserExit, enter};
use crate::arch::{clock, irq, paging, phys_to_virt, uaccess};
use crate::mm::PageRef;
use crate::sync::softirq;
use crate::time::{Timer, TimerTarget};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::global_asm;

const CODE: usize = 0x40_0000;
const DATA: usize = 0x40_1000;

global_asm!(
    r#"
    .section .rodata.selftest_user, "a"
    .globl selftest_user_start
    .globl selftest_user_end
selftest_user_start:
    /* a system call returns with its registers, also in ymm when there is AVX */
    movq $0x1122334455667788, %rax
    movq %rax, %xmm7
    movl $7, %edi
    movl $39, %eax
    syscall
    movq %xmm7, %rdx
    movl $40, %eax
    syscall
    /* loop until an interrupt's work has set the word */
1:  cmpl $0, 0x401000
    je 1b
    movq %xmm7, %rdx
    movl $41, %eax
    syscall
    /* a page fault, a privileged instruction, a division */
    movl $0x7fff0000, %eax
    movl (%rax), %ecx
    nop
    cli
    nop
    xorl %ecx, %ecx
    divl %ecx
selftest_user_end:
"#,
    options(att_syntax)
);

unsafe extern "C" {
    static selftest_user_start: u8;
    static selftest_user_end: u8;
}

struct Nudge;
impl TimerTarget for Nudge {
    fn expired(&self) {
        softirq::raise(softirq::Kind::Misc);
    }
}

/// A root with two user pages: code at [`CODE`] and data at [`DATA`]. Gives the frames so that they
/// stay.
fn user_root() -> Result<(usize, Vec<PageRef>), crate::Errno> {
    let frames: Vec<PageRef> = (0..6).map(|_| PageRef::alloc(true)).collect::<Result<_, _>>()?;
    let word = |frame: &PageRef, index: usize| (frame.as_ptr() as *mut usize).wrapping_add(index);
    // SAFETY: the frames are this function's own.
    unsafe {
        for index in 256..512 {
            let kernel = (phys_to_virt(paging::kernel_root()) as *const usize).add(index).read();
            word(&frames[0], index).write(kernel);
        }
        word(&frames[0], 0).write(frames[1].paddr() | 7);
        word(&frames[1], 0).write(frames[2].paddr() | 7);
        word(&frames[2], 2).write(frames[3].paddr() | 7);
        word(&frames[3], 0).write(frames[4].paddr() | 5);
        word(&frames[3], 1).write(frames[5].paddr() | 7 | 1 << 63);
        let start = &raw const selftest_user_start;
        let len = (&raw const selftest_user_end).offset_from(start) as usize;
        core::ptr::copy_nonoverlapping(start, frames[4].as_ptr(), len);
    }
    Ok((frames[0].paddr(), frames))
}

/// Runs the program above step by step.
pub fn run() -> Result<(), &'static str> {
    let (root, frames) = user_root().map_err(|_| "no memory")?;
    // SAFETY: the root has the kernel's half and lives until the end of the function, after which
    // nothing runs.
    unsafe { paging::activate(root) };
    irq::enable();
    let mut context = UserContext::new(CODE, DATA + 4096).map_err(|_| "no memory")?;
    let mut next = || loop {
        match enter(&mut context, || false) {
            UserExit::Interrupt => softirq::run_pending(),
            exit => {
                // Kernel code uses the vector registers between two entries.
                core::hint::black_box(alloc::format!("{exit:?}"));
                return (exit, context.orig_rax, context.rdx, context.rip, {
                    // The program goes on behind a faulting instruction: each is two bytes or one
                    // and a no-op.
                    if exit != UserExit::Syscall {
                        context.rip += 2;
                    }
                    context.rdi
                });
            }
        }
    };
    let (exit, number, _, _, arg) = next();
    if (exit, number, arg) != (UserExit::Syscall, 39, 7) {
        return Err("the first system call didn't arrive");
    }
    const PATTERN: usize = 0x1122_3344_5566_7788;
    let (exit, number, seen, ..) = next();
    if (exit, number, seen) != (UserExit::Syscall, 40, PATTERN) {
        return Err("a system call changed a vector register");
    }
    softirq::register(softirq::Kind::Misc, || {
        // SAFETY: in user space, aligned.
        unsafe { uaccess::store_u32(DATA, 1) };
    });
    let timer = Timer::new(Arc::new(Nudge));
    timer.arm(clock::now_ns() + 5_000_000);
    let (exit, number, seen, ..) = next();
    if (exit, number, seen) != (UserExit::Syscall, 41, PATTERN) {
        return Err("an interrupt changed a vector register");
    }
    let (exit, ..) = next();
    if exit != (UserExit::Fault { vector: 14, error: 4, addr: 0x7fff_0000 }) {
        return Err("the page fault wasn't reported");
    }
    let (exit, _, _, rip, _) = next();
    if !matches!(exit, UserExit::Fault { vector: 13, .. }) {
        crate::error!("{exit:?} at {rip:#x}");
        return Err("the privileged instruction wasn't reported");
    }
    let (exit, ..) = next();
    if !matches!(exit, UserExit::Fault { vector: 0, .. }) {
        return Err("the division wasn't reported");
    }
    drop(frames);
    access()
}

/// Copies that reach into absent pages say how far they came.
fn access() -> Result<(), &'static str> {
    let mut buffer = [7u8; 200];
    // SAFETY: all addresses lie in user space.
    unsafe {
        if uaccess::copy_to_user(DATA + 4096 - 77, buffer.as_ptr(), 200) != 123 {
            return Err("a copy to user memory came to a wrong end");
        }
        if uaccess::copy_from_user(buffer.as_mut_ptr(), DATA + 4096 - 150, 200) != 50 {
            return Err("a copy from user memory came to a wrong end");
        }
        if buffer[72] != 0 || buffer[73] != 7 || buffer[149] != 7 {
            return Err("a copy from user memory gave wrong bytes");
        }
        if uaccess::clear_user(DATA + 4096 - 33, 40) != 7 {
            return Err("clearing user memory came to a wrong end");
        }
        if uaccess::copy_to_user(CODE, buffer.as_ptr(), 10) != 10 {
            return Err("read-only user memory was written");
        }
        if uaccess::load_u32(0x1000).is_some() || uaccess::cmpxchg_u32(DATA, 1, 5) != Some(1) {
            return Err("a word of user memory was read wrongly");
        }
        if uaccess::load_u32(DATA) != Some(5) {
            return Err("a word of user memory wasn't replaced");
        }
    }
    Ok(())
}
