//! The way into a call and out of it.

use super::{dispatch, lock, name, signal};
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::task::{Work, current, seccomp, trace};
use crate::{log, witness};
use linux_raw_sys::general::__NR_rt_sigreturn;

/// Makes the call that the program asked for; the result goes to `rax`.
pub fn enter(context: &mut UserContext) {
    if current().work().contains(Work::TRACE) {
        context.rax = Errno::ENOSYS.as_ret() as usize;
        trace::on_syscall(context, trace::Kind::Entry);
        // The tracer may have made another call of it, or none.
        if context.orig_rax != usize::MAX {
            make(context);
        }
        trace::on_syscall(context, trace::Kind::Exit);
    } else {
        make(context);
    }
}

fn make(context: &mut UserContext) {
    let number = context.orig_rax;
    if number == __NR_rt_sigreturn as usize {
        signal::rt_sigreturn(context);
        return;
    }
    lock::check(number);
    let args = [context.rdi, context.rsi, context.rdx, context.r10, context.r8, context.r9];
    let traced = log::tracing();
    if traced {
        trace_entry(number, args);
    }
    if witness::on() {
        witness::call(number);
    }
    let refused = if current().filters_calls() { seccomp::check(context) } else { None };
    let result = match refused {
        Some(result) => result,
        None => dispatch::dispatch(context, number, &args),
    };
    if traced {
        trace_exit(number, &result);
    }
    match result {
        // execve(2) has replaced the registers.
        Ok(_) if context.orig_rax == usize::MAX => {}
        Ok(value) => context.rax = value,
        Err(error) => {
            context.rax = error.as_ret() as usize;
            if signal::wants_delivery(context.rax) {
                // Another thread may have taken the signal meanwhile; the call goes on all the
                // same.
                current().add_work(Work::SIGNAL);
            }
        }
    }
}

#[cold]
fn trace_entry(number: usize, [a, b, c, d, e, f]: [usize; 6]) {
    let (task, name) = (current(), name(number).unwrap_or("syscall"));
    let (tid, comm) = (task.tid(), task.comm());
    crate::error!("[{tid} {comm}] {name}({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x}, {f:#x})");
}

#[cold]
fn trace_exit(number: usize, result: &Result<usize>) {
    let (task, name) = (current(), name(number).unwrap_or("syscall"));
    let (tid, comm) = (task.tid(), task.comm());
    match result {
        Ok(value) => crate::error!("[{tid} {comm}] {name} = {value:#x}"),
        Err(error) => crate::error!("[{tid} {comm}] {name} = -1 {error:?}"),
    }
}
