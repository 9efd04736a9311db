//! Switching between kernel stacks.

use core::arch::global_asm;

/// A task that doesn't run: where its stack was left. Callee-saved registers are on that stack.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    rsp: usize,
}

impl Context {
    /// For the task that runs already; filled in by its first [`switch`].
    pub const fn empty() -> Context {
        Context { rsp: 0 }
    }

    /// A task that will call `entry(arg)` on the stack that ends at `stack_top` (16-byte aligned),
    /// with interrupts as they are in whoever switches to it.
    ///
    /// # Safety
    /// At least a page below `stack_top` is writable and belongs to the task.
    pub unsafe fn new_kernel(
        stack_top: usize,
        entry: extern "C" fn(usize) -> !,
        arg: usize,
    ) -> Context {
        let start = context_start as *const () as usize;
        // As `switch` pops them, with rbp 0 to end backtraces; two words stay, so that the stack is
        // aligned at the call.
        let words = [0, 0, arg, entry as usize, 0, 0, start, 0, 0];
        let rsp = stack_top - size_of_val(&words);
        // SAFETY: the caller's promise.
        unsafe { (rsp as *mut [usize; 9]).write(words) };
        Context { rsp }
    }
}

global_asm!(
    r#"
    .section .text.context, "ax"
    .balign 16
    .globl context_switch
context_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret

    .globl context_start
context_start:
    movq %r13, %rdi
    call *%r12
    ud2
"#,
    options(att_syntax)
);

unsafe extern "C" {
    fn context_switch(prev: *mut Context, next: *const Context);
    fn context_start();
}

/// Leaves the running task in `prev` and goes on with `next`; returns when somebody switches back
/// to `prev`, perhaps on another CPU.
///
/// # Safety
/// Interrupts are off; `prev` is the running task's, `next` was left by `switch` or made by
/// `new_kernel`, and its stack is alive and not in use on another CPU.
#[inline]
pub unsafe fn switch(prev: *mut Context, next: *const Context) {
    // SAFETY: the caller's promise.
    unsafe { context_switch(prev, next) }
}
