//! The stack frame of a signal handler: `struct rt_sigframe` of x86-64 Linux, which libraries and
//! language runtimes read and change.
//!
//! ```text
//! sp + 0    return address: the restorer
//!    + 8    uc_flags, uc_link
//!    + 24   uc_stack: sp, flags, size
//!    + 48   r8-r15 rdi rsi rbp rbx rdx rax rcx rsp rip rflags | cs gs fs ss | err trapno oldmask cr2 | fpstate | 8 spare
//!    + 304  uc_sigmask
//!    + 312  siginfo (128 bytes)
//!    + 440  end; above, aligned to 64: floating-point state
//! ```

use super::{Action, ActionFlags, AltStack, SS_ONSTACK, SigInfo, SigSet, Signal};
use crate::arch::fpu;
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::io::{check_user, get_user_slice, put_user_slice};
use crate::task::current;

const WORDS: usize = 55;
const SIZE: usize = WORDS * 8;
/// Word index of each part.
const UC: usize = 1;
const STACK: usize = 3;
const REGS: usize = 6;
const FPSTATE: usize = 29;
const MASK: usize = 38;
const INFO: usize = 39;
/// The ABI lets leaf functions use this much below the stack pointer.
const RED_ZONE: usize = 128;
/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`
const UC_FLAGS: u64 = 7;
/// cs and ss as user code has them.
const SELECTORS: u64 = 0x2b << 48 | 0x33;

/// Makes the frame and lets the context continue in the handler. EFAULT if the stack can't hold it.
pub fn push(
    context: &mut UserContext,
    signal: Signal,
    action: &Action,
    info: &SigInfo,
    mask: SigSet,
    altstack: AltStack,
) -> Result<()> {
    let on_alt = altstack.contains(context.rsp);
    let top = if action.flags.contains(ActionFlags::ONSTACK)
        && altstack.flags & super::SS_DISABLE == 0
        && !on_alt
    {
        altstack.base + altstack.size
    } else {
        context.rsp.checked_sub(RED_ZONE).ok_or(Errno::EFAULT)?
    };
    let fpu_len = fpu::signal_size();
    let fpu_at = top.checked_sub(fpu_len).ok_or(Errno::EFAULT)? & !63;
    let sp = (fpu_at.checked_sub(SIZE).ok_or(Errno::EFAULT)? & !15) - 8;
    if on_alt && !altstack.contains(sp) {
        return Err(Errno::EFAULT);
    }
    check_user(sp, top - sp)?;

    put_user_slice(fpu_at, context.signal_fpu())?;

    let mut frame = [0u64; WORDS];
    frame[0] = action.restorer as u64;
    frame[UC] = UC_FLAGS;
    let stack_flags = altstack.flags | if on_alt { SS_ONSTACK } else { 0 };
    frame[STACK] = altstack.base as u64;
    frame[STACK + 1] = u64::from(stack_flags);
    frame[STACK + 2] = altstack.size as u64;
    for (slot, register) in frame[REGS..].iter_mut().zip(registers(context)) {
        *slot = *register as u64;
    }
    frame[REGS + 18] = SELECTORS;
    let [trap, error, cr2] = current().last_fault();
    frame[REGS + 19] = error as u64;
    frame[REGS + 20] = trap as u64;
    frame[REGS + 21] = mask.0;
    frame[REGS + 22] = cr2 as u64;
    frame[FPSTATE] = fpu_at as u64;
    frame[MASK] = mask.0;
    frame[INFO..].copy_from_slice(&info.to_user());
    put_user_slice(sp, &frame)?;

    context.rsp = sp;
    context.rip = action.handler;
    context.rdi = signal.number().into();
    context.rsi = sp + INFO * 8;
    context.rdx = sp + UC * 8;
    context.rax = 0;
    // The ABI wants the direction flag clear; single-stepping must not go on in the handler.
    const DF_RF_TF: usize = 1 << 10 | 1 << 16 | 1 << 8;
    let flags = context.rflags & !DF_RF_TF;
    context.set_user_flags(flags);
    Ok(())
}

/// rt_sigreturn(2): takes everything back from the frame. EFAULT if it can't be read.
pub fn pop(context: &mut UserContext) -> Result<()> {
    let mut frame = [0u64; WORDS];
    get_user_slice(context.rsp.wrapping_sub(8), &mut frame)?;
    let task = current();
    let altstack = AltStack {
        base: frame[STACK] as usize,
        flags: frame[STACK + 1] as u32 & (super::SS_DISABLE | super::SS_AUTODISARM),
        size: frame[STACK + 2] as usize,
    };
    task.signal.lock().altstack = altstack;
    super::set_mask(SigSet(frame[MASK]));
    let fpu_at = frame[FPSTATE] as usize;
    let read = |at: usize, out: &mut [u8]| get_user_slice(fpu_at.wrapping_add(at), out);
    context.restore_signal_fpu((fpu_at != 0).then_some(read))?;
    for (register, slot) in registers_mut(context).into_iter().zip(&frame[REGS..]) {
        *register = *slot as usize;
    }
    context.set_user_flags(frame[REGS + 17] as usize);
    // What comes back in rax is the program's, not the result of a call to restart.
    context.orig_rax = usize::MAX;
    Ok(())
}

fn registers(c: &UserContext) -> [&usize; 18] {
    [
        &c.r8, &c.r9, &c.r10, &c.r11, &c.r12, &c.r13, &c.r14, &c.r15, &c.rdi, &c.rsi, &c.rbp,
        &c.rbx, &c.rdx, &c.rax, &c.rcx, &c.rsp, &c.rip, &c.rflags,
    ]
}

fn registers_mut(c: &mut UserContext) -> [&mut usize; 17] {
    [
        &mut c.r8, &mut c.r9, &mut c.r10, &mut c.r11, &mut c.r12, &mut c.r13, &mut c.r14,
        &mut c.r15, &mut c.rdi, &mut c.rsi, &mut c.rbp, &mut c.rbx, &mut c.rdx, &mut c.rax,
        &mut c.rcx, &mut c.rsp, &mut c.rip,
    ]
}
