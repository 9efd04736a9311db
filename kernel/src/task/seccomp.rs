//! Seccomp filters (seccomp(2)): classic BPF over the call's number and arguments.

use super::signal::{self, SigInfo, Signal};
use super::thread::Work;
use super::{Task, creds::cap, current, exit, trace};
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::io::get_user_slice;
use alloc::sync::Arc;
use alloc::vec::Vec;

const MAX_INSNS: usize = 4096;
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

/// One `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A filter and those installed before it.
pub struct Filter {
    program: Vec<Insn>,
    older: Option<Arc<Filter>>,
    total: usize,
    /// It is the program of strict mode, whose end is SIGKILL.
    strict: bool,
}

/// `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
pub type Data = [u32; 16];

/// What a program looks at.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// A system call.
    Call(&'a Data),
    /// A packet, its protocol (an Ethernet type) and its kind (`PACKET_HOST`, ...).
    Packet(&'a [u8], u16, u8),
}

impl Input<'_> {
    fn len(&self) -> u32 {
        match self {
            Input::Call(_) => 64,
            Input::Packet(bytes, ..) => bytes.len() as u32,
        }
    }

    /// Loads `size` bytes at `at`; packets are in network order. `None`: they are not there.
    fn load(&self, at: u32, size: usize) -> Option<u32> {
        /// Above it lies what is known besides the packet's bytes (`SKF_AD_OFF`).
        const BESIDES: u32 = 0xffff_f000;
        match *self {
            Input::Call(data) => data.get(at as usize / 4).copied(),
            Input::Packet(_, protocol, kind) if at >= BESIDES => match at - BESIDES {
                0 => Some(protocol.into()),
                4 => Some(kind.into()),
                8 => Some(2),
                _ => None,
            },
            Input::Packet(bytes, ..) => {
                let at = at as usize;
                let bytes = bytes.get(at..at.checked_add(size)?)?;
                Some(bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte)))
            }
        }
    }
}

/// Reads the program that a `struct sock_fprog` points to; `packets`: it looks at packets. EINVAL
/// if it can't run.
pub fn read_program(fprog: [u64; 2], packets: bool) -> Result<Vec<Insn>> {
    let mut raw = alloc::vec![0u64; program_len(fprog)?];
    get_user_slice(fprog[1] as usize, &mut raw)?;
    let decode = |word: &u64| Insn {
        code: *word as u16,
        jt: (word >> 16) as u8,
        jf: (word >> 24) as u8,
        k: (word >> 32) as u32,
    };
    let program: Vec<Insn> = raw.iter().map(decode).collect();
    if validate(&program, packets) { Ok(program) } else { Err(Errno::EINVAL) }
}

/// Instructions of a `struct sock_fprog`. EINVAL for none and for too many.
fn program_len(fprog: [u64; 2]) -> Result<usize> {
    match usize::from(fprog[0] as u16) {
        len @ 1..=MAX_INSNS => Ok(len),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether a program can run: known instructions, jumps forward and inside, loads inside the data
/// (of a call; what a packet lacks ends the program), a return at the end.
pub fn validate(program: &[Insn], packets: bool) -> bool {
    let len = program.len();
    if len == 0 || len > MAX_INSNS {
        return false;
    }
    let one = |(at, insn): (usize, &Insn)| {
        let inside = |offset: usize| at + 1 + offset < len;
        match insn.code {
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 | 0xb1 if packets => true,
            0x20 => insn.k < 64 && insn.k % 4 == 0,
            0x00 | 0x01 | 0x80 | 0x81 | 0x06 | 0x16 | 0x07 | 0x87 => true,
            0x60 | 0x61 | 0x02 | 0x03 => insn.k < 16,
            0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x44 | 0x4c | 0x54 | 0x5c | 0xa4 | 0xac => {
                true
            }
            0x34 => insn.k != 0,
            0x64 | 0x74 => insn.k < 32,
            0x3c | 0x6c | 0x7c | 0x84 => true,
            0x05 => (insn.k as usize) < len && inside(insn.k as usize),
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                inside(insn.jt.into()) && inside(insn.jf.into())
            }
            _ => false,
        }
    };
    program.iter().enumerate().all(one) && matches!(program[len - 1].code, 0x06 | 0x16)
}

/// Runs a validated program.
pub fn run(program: &[Insn], input: Input<'_>) -> u32 {
    let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
    let mut mem = [0u32; 16];
    while let Some(insn) = program.get(pc) {
        pc += 1;
        let k = insn.k;
        let operand = if insn.code & 0x08 != 0 { x } else { k };
        let mut jump = |taken: bool| pc += usize::from(if taken { insn.jt } else { insn.jf });
        match insn.code {
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 => {
                let size = [4, 2, 1][usize::from(insn.code >> 3 & 3) % 3];
                let at = if insn.code & 0x40 != 0 { x.wrapping_add(k) } else { k };
                match input.load(at, size) {
                    Some(value) => a = value,
                    // For a packet: not wanted.
                    None => return 0,
                }
            }
            0xb1 => match input.load(k, 1) {
                Some(byte) => x = (byte & 15) * 4,
                None => return 0,
            },
            0x00 => a = k,
            0x01 => x = k,
            0x80 => a = input.len(),
            0x81 => x = input.len(),
            0x60 => a = mem[k as usize],
            0x61 => x = mem[k as usize],
            0x02 => mem[k as usize] = a,
            0x03 => mem[k as usize] = x,
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x14 | 0x1c => a = a.wrapping_sub(operand),
            0x24 | 0x2c => a = a.wrapping_mul(operand),
            0x34 | 0x3c => match a.checked_div(operand) {
                Some(quotient) => a = quotient,
                None => return RET_KILL_THREAD,
            },
            0x44 | 0x4c => a |= operand,
            0x54 | 0x5c => a &= operand,
            0x64 | 0x6c => a = a.checked_shl(operand).unwrap_or(0),
            0x74 | 0x7c => a = a.checked_shr(operand).unwrap_or(0),
            0x84 => a = a.wrapping_neg(),
            0xa4 | 0xac => a ^= operand,
            0x05 => pc += k as usize,
            0x15 | 0x1d => jump(a == operand),
            0x25 | 0x2d => jump(a > operand),
            0x35 | 0x3d => jump(a >= operand),
            0x45 | 0x4d => jump(a & operand != 0),
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return k,
            0x16 => return a,
            _ => return RET_KILL_PROCESS,
        }
    }
    RET_KILL_PROCESS
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
    let program = read_program(fprog, false)?;
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
            crate::error!(
                "{}[{}]: system call {nr} refused by seccomp",
                current().comm(),
                current().pid()
            );
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

    #[test]
    fn programs_that_could_run_astray_are_refused() {
        let ret = Insn { code: 0x06, jt: 0, jf: 0, k: 0 };
        for insn in [
            Insn { code: 0x05, jt: 0, jf: 0, k: 1 },
            Insn { code: 0x05, jt: 0, jf: 0, k: u32::MAX },
            Insn { code: 0x15, jt: 1, jf: 0, k: 0 },
            Insn { code: 0x20, jt: 0, jf: 0, k: 64 },
            Insn { code: 0x20, jt: 0, jf: 0, k: 2 },
            Insn { code: 0x02, jt: 0, jf: 0, k: 16 },
            Insn { code: 0x34, jt: 0, jf: 0, k: 0 },
            Insn { code: 0x30, jt: 0, jf: 0, k: 0 },
        ] {
            assert!(!validate(&[insn, ret], false), "{insn:?}");
        }
        assert!(!validate(&[], false) && !validate(&[Insn { code: 0, jt: 0, jf: 0, k: 0 }], false));
    }

    #[test]
    fn packets_are_judged_by_their_bytes() {
        let insn = |code: u16, k: u32, jt: u8, jf: u8| Insn { code, jt, jf, k };
        // Of UDP in IPv4, the destination port 68, behind options of any length.
        let program = [
            insn(0x30, 9, 0, 0),
            insn(0x15, 17, 0, 4),
            insn(0xb1, 0, 0, 0),
            insn(0x48, 2, 0, 0),
            insn(0x15, 68, 0, 1),
            insn(0x06, u32::MAX, 0, 0),
            insn(0x06, 0, 0, 0),
        ];
        assert!(validate(&program, true) && !validate(&program, false));
        let mut packet = [0u8; 40];
        (packet[0], packet[9], packet[27]) = (0x46, 17, 68);
        let judge = |packet: &[u8]| run(&program, Input::Packet(packet, 0x800, 0));
        assert_eq!(judge(&packet), u32::MAX);
        assert_eq!(judge(&packet[..27]), 0, "too short");
        packet[0] = 0x45;
        assert_eq!(judge(&packet), 0);
        let kind = [insn(0x20, 0xffff_f000, 0, 0), insn(0x16, 0, 0, 0)];
        assert_eq!(run(&kind, Input::Packet(&[], 0x806, 0)), 0x806);
    }
}
