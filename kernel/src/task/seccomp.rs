//! Seccomp filters (seccomp(2)): programs over the call's number and arguments.

use super::signal::{self, SigInfo, Signal};
use super::thread::Work;
use super::{Task, creds::cap, current, exit, trace};
use crate::arch::user::UserContext;
use crate::bpf::{self, Data, Input, Insn, program_len, run};
use crate::errno::{Errno, Result};
use crate::io::get_user_slice;
use crate::log::Limit;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Instructions of all filters of a task together.
const MAX_TOTAL: usize = 32768;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// A filter and those installed before it.
pub struct Filter {
    program: Vec<Insn>,
    older: Option<Arc<Filter>>,
    total: usize,
    /// It is the program of strict mode, whose end is SIGKILL.
    strict: bool,
}

/// seccomp(2) and prctl(2) `PR_SET_SECCOMP`.
pub fn seccomp(operation: u32, flags: u32, args: usize) -> Result<usize> {
    const SET_MODE_STRICT: u32 = 0;
    const SET_MODE_FILTER: u32 = 1;
    const GET_ACTION_AVAIL: u32 = 2;
    match operation {
        SET_MODE_STRICT if flags == 0 && args == 0 => install(strict(), true),
        SET_MODE_FILTER => set_filter(flags, args),
        GET_ACTION_AVAIL if flags == 0 => {
            let action: u32 = crate::io::get_user(args)?;
            let known =
                [RET_KILL_PROCESS, RET_KILL_THREAD, RET_TRAP, RET_ERRNO, RET_LOG, RET_ALLOW];
            if known.contains(&action) { Ok(0) } else { Err(Errno::EOPNOTSUPP) }
        }
        _ => Err(Errno::EINVAL),
    }
}

/// read, write, exit and rt_sigreturn only.
fn strict() -> Vec<Insn> {
    let jump = |k: u32, jt: u8| Insn { code: 0x15, jt, jf: 0, k };
    let ret = |k: u32| Insn { code: 0x06, jt: 0, jf: 0, k };
    let load = Insn { code: 0x20, jt: 0, jf: 0, k: 0 };
    [load, jump(0, 4), jump(1, 3), jump(60, 2), jump(15, 1), ret(RET_KILL_THREAD), ret(RET_ALLOW)]
        .into()
}

fn set_filter(flags: u32, args: usize) -> Result<usize> {
    const TSYNC: u32 = 1;
    const LOG: u32 = 2;
    const SPEC_ALLOW: u32 = 4;
    if flags & !(TSYNC | LOG | SPEC_ALLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut fprog = [0u64; 2];
    get_user_slice(args, &mut fprog)?;
    // Before the caller's rights, as in Linux.
    program_len(fprog)?;
    let creds = current().creds();
    if !creds.no_new_privs && !creds.capable(cap::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let program = bpf::decode(&bpf::read(fprog)?, false)?;
    install(program, false)?;
    if flags & TSYNC != 0 {
        let task = current();
        let filter = task.seccomp.lock().clone();
        for thread in task.process().threads() {
            *thread.seccomp.lock() = filter.clone();
            thread.add_work(Work::SECCOMP);
        }
    }
    Ok(0)
}

fn install(program: Vec<Insn>, strict: bool) -> Result<usize> {
    let task = current();
    let mut slot = task.seccomp.lock();
    let total = program.len() + slot.as_ref().map_or(0, |older| older.total + 4);
    if total > MAX_TOTAL {
        return Err(Errno::ENOMEM);
    }
    let older = slot.take();
    *slot = Some(Arc::new(Filter { program, older, total, strict }));
    drop(slot);
    task.add_work(Work::SECCOMP);
    Ok(0)
}

/// Asks the filters about the call that `context` makes. `Some` is its result instead of making it.
pub fn check(context: &mut UserContext) -> Option<Result<usize>> {
    let task = current();
    let filter = task.seccomp.lock().clone();
    let nr = context.orig_rax as u32;
    let mut data: Data = [0; 16];
    data[..4].copy_from_slice(&[
        nr,
        AUDIT_ARCH_X86_64,
        context.rip as u32,
        (context.rip >> 32) as u32,
    ]);
    let args = [context.rdi, context.rsi, context.rdx, context.r10, context.r8, context.r9];
    for (slot, arg) in data[4..].chunks_exact_mut(2).zip(args) {
        slot.copy_from_slice(&[arg as u32, (arg >> 32) as u32]);
    }
    let mut verdict = RET_ALLOW;
    let mut at = filter.as_ref();
    while let Some(filter) = at {
        let next = run(&filter.program, Input::Call(&data));
        if filter.strict && next == RET_KILL_THREAD {
            exit::exit_thread(Signal::KILL.number().into());
        }
        // The strictest action wins: the smallest as a signed number.
        if ((next & 0xffff_0000) as i32) < (verdict & 0xffff_0000) as i32 {
            verdict = next;
        }
        at = filter.older.as_ref();
    }
    apply(context, verdict, nr)
}

fn apply(context: &mut UserContext, verdict: u32, nr: u32) -> Option<Result<usize>> {
    let value = verdict as u16;
    match verdict & 0xffff_0000 {
        RET_ALLOW | RET_LOG => None,
        RET_ERRNO => Some(Err(Errno(value.min(4095)))),
        RET_TRACE if trace::on_event(context, trace::event::SECCOMP, value.into()) => None,
        // Nobody traces or nobody listens.
        RET_TRACE | RET_USER_NOTIF => Some(Err(Errno::ENOSYS)),
        RET_TRAP => {
            signal::send::force(Signal::SYS, SigInfo::seccomp(value, context.rip, nr));
            Some(Ok(context.orig_rax))
        }
        RET_KILL_THREAD => exit::exit_thread(Signal::SYS.number().into()),
        _ => {
            static LIMIT: Limit = Limit::new();
            if LIMIT.allows("calls refused by seccomp") {
                let (comm, pid) = (current().comm(), current().pid());
                crate::error!("{comm}[{pid}]: system call {nr} refused by seccomp");
            }
            exit::exit_group(Signal::SYS.number().into())
        }
    }
}

/// How many filters a task has.
pub fn filters(task: &Task) -> usize {
    let mut count = 0;
    let mut at = task.seccomp.lock().clone();
    while let Some(filter) = at {
        count += 1;
        at = filter.older.clone();
    }
    count
}

/// `PR_GET_SECCOMP`: 2 with filters, else 0. In strict mode nobody can ask.
pub fn mode() -> usize {
    if current().seccomp.lock().is_some() { 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::validate;

    #[test]
    fn the_strict_program_allows_four_calls() {
        let program = strict();
        assert!(validate(&program, false));
        let verdict = |nr: u32| {
            let mut data = [0; 16];
            data[0] = nr;
            run(&program, Input::Call(&data))
        };
        for nr in [0, 1, 60, 15] {
            assert_eq!(verdict(nr), RET_ALLOW);
        }
        assert_eq!((verdict(2), verdict(59)), (RET_KILL_THREAD, RET_KILL_THREAD));
    }
}
