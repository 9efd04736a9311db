//! ptrace(2): what a tracer asks of its tracees.

use super::pidfd::check_inspect;
use crate::errno::{Errno, Result};
use crate::io::{get_user, put_user, put_user_slice};
use crate::task::signal::{SigInfo, SigSet, Signal, send_to_process};
use crate::task::trace::{self, Kind, LEGACY, ORIG_RAX, Registers, Resume, SPARE, option};
use crate::task::{Task, current, current_arc, find_task};
use alloc::sync::Arc;
use linux_raw_sys::ptrace::*;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const NT_PRSTATUS: usize = 1;
const NT_PRFPREG: usize = 2;
const NT_X86_XSTATE: usize = 0x202;
const REGISTERS: usize = size_of::<Registers>();

/// ptrace(2)
pub fn ptrace(request: u32, pid: i32, addr: usize, data: usize) -> Result<usize> {
    if request == PTRACE_TRACEME {
        let parent = current().process().parent().ok_or(Errno::EPERM)?;
        trace::attach(&current_arc(), &parent, false, 0)?;
        return Ok(0);
    }
    let task = find_task(pid).ok_or(Errno::ESRCH)?;
    match request {
        PTRACE_ATTACH | PTRACE_SEIZE => start(&task, request == PTRACE_SEIZE, addr, data),
        PTRACE_INTERRUPT => trace::interrupt(&task).map(|()| 0),
        PTRACE_KILL => {
            // Works on running tracees as well.
            if trace::tracer_of(&task) != current().pid() {
                return Err(Errno::ESRCH);
            }
            send_to_process(task.process(), Signal::KILL, SigInfo::kernel(Signal::KILL));
            Ok(0)
        }
        _ => stopped(&task, request, addr, data),
    }
}

fn start(task: &Arc<Task>, seize: bool, addr: usize, options: usize) -> Result<usize> {
    let options = if seize { checked(options).map_err(|_| Errno::EIO)? } else { 0 };
    if seize && addr != 0 {
        return Err(Errno::EIO);
    }
    if Arc::ptr_eq(task.process(), current().process()) {
        return Err(Errno::EPERM);
    }
    check_inspect(task)?;
    match seize {
        true => trace::attach(task, current().process(), true, options)?,
        false => trace::attach_stopping(task, current().process())?,
    }
    Ok(0)
}

fn checked(options: usize) -> Result<u32> {
    let options = u32::try_from(options).map_err(|_| Errno::EINVAL)?;
    if options & !option::KNOWN == 0 { Ok(options) } else { Err(Errno::EINVAL) }
}

/// Requests for which the tracee must be stopped.
fn stopped(task: &Arc<Task>, request: u32, addr: usize, data: usize) -> Result<usize> {
    let signal = || match u32::try_from(data) {
        Ok(0) => Ok(0),
        Ok(number) if Signal::new(number).is_some() => Ok(number),
        _ => Err(Errno::EIO),
    };
    let registers = || trace::with_stopped(task, |stop, _, _| Ok(stop.registers));
    match request {
        PTRACE_CONT => trace::resume(task, Resume::Cont, signal()?)?,
        PTRACE_SYSCALL => trace::resume(task, Resume::Syscall, signal()?)?,
        PTRACE_SINGLESTEP => trace::resume(task, Resume::Step, signal()?)?,
        PTRACE_DETACH => trace::detach(task, signal()?)?,
        PTRACE_SETOPTIONS => {
            let new = checked(data)?;
            trace::with_stopped(task, |_, options, _| {
                *options = new;
                Ok(())
            })?;
        }
        PTRACE_PEEKTEXT | PTRACE_PEEKDATA => {
            registers()?;
            let mut word = [0; 8];
            task.mm().ok_or(Errno::EIO)?.peek(addr, &mut word).map_err(|_| Errno::EIO)?;
            put_user(data, &word)?;
        }
        PTRACE_POKETEXT | PTRACE_POKEDATA => {
            registers()?;
            let mm = task.mm().ok_or(Errno::EIO)?;
            mm.poke(addr, &data.to_ne_bytes()).map_err(|_| Errno::EIO)?;
        }
        PTRACE_PEEKUSR => {
            let registers = registers()?;
            // Debug registers and the rest of `struct user` read as zero.
            let value = match addr {
                at if at % 8 != 0 || at >= 912 => return Err(Errno::EIO),
                at => registers.get(at / 8).copied().unwrap_or(0),
            };
            put_user(data, &value)?;
        }
        PTRACE_POKEUSR => {
            let mut registers = registers()?;
            let slot = registers.get_mut(addr / 8).filter(|_| addr.is_multiple_of(8));
            *slot.ok_or(Errno::EIO)? = data;
            store(task, registers)?;
        }
        PTRACE_GETREGS => put_user(data, &registers()?)?,
        PTRACE_SETREGS => {
            registers()?;
            store(task, get_user(data)?)?;
        }
        PTRACE_GETREGSET | PTRACE_SETREGSET if addr == NT_PRSTATUS => {
            register_set(task, request == PTRACE_SETREGSET, data)?;
        }
        PTRACE_GETREGSET | PTRACE_SETREGSET => {
            let [base, len] = get_user::<[usize; 2]>(data)?;
            if !matches!(addr, NT_PRFPREG | NT_X86_XSTATE) || len % 8 != 0 {
                return Err(Errno::EINVAL);
            }
            let done = float_set(task, addr, request == PTRACE_SETREGSET, base, len)?;
            put_user(data + 8, &done)?;
        }
        PTRACE_GETFPREGS | PTRACE_SETFPREGS => {
            float_set(task, NT_PRFPREG, request == PTRACE_SETFPREGS, data, LEGACY)?;
        }
        PTRACE_GETSIGINFO => {
            let info = trace::with_stopped(task, |stop, _, _| match stop.info.signo {
                0 => Err(Errno::EINVAL),
                _ => Ok(stop.info),
            })?;
            put_user(data, &info.to_user())?;
        }
        PTRACE_SETSIGINFO => {
            let info = SigInfo::from_user(&get_user(data)?);
            trace::with_stopped(task, |stop, _, _| {
                stop.info = info;
                Ok(())
            })?;
        }
        PTRACE_GETEVENTMSG => {
            let message = trace::with_stopped(task, |stop, _, _| Ok(stop.message))?;
            put_user(data, &message)?;
        }
        PTRACE_GETSIGMASK => {
            registers()?;
            if addr != 8 {
                return Err(Errno::EINVAL);
            }
            put_user(data, &task.signal_sets().1.0)?;
        }
        PTRACE_SETSIGMASK => {
            registers()?;
            if addr != 8 {
                return Err(Errno::EINVAL);
            }
            task.replace_mask(SigSet(get_user(data)?));
        }
        PTRACE_GET_SYSCALL_INFO => return syscall_info(task, addr, data),
        PTRACE_LISTEN => trace::listen(task)?,
        _ => {
            registers()?;
            return Err(Errno::EIO);
        }
    }
    Ok(0)
}

fn store(task: &Task, registers: Registers) -> Result<()> {
    if !trace::acceptable(&registers) {
        return Err(Errno::EIO);
    }
    trace::with_stopped(task, |stop, _, _| {
        stop.registers = registers;
        Ok(())
    })
}

fn register_set(task: &Task, set: bool, iov: usize) -> Result<()> {
    let mut registers = trace::with_stopped(task, |stop, _, _| Ok(stop.registers))?;
    let [base, len] = get_user::<[usize; 2]>(iov)?;
    if len % 8 != 0 {
        return Err(Errno::EINVAL);
    }
    let len = len.min(REGISTERS);
    let part = &mut registers[..len / 8];
    if set {
        crate::io::get_user_slice(base, part)?;
        store(task, registers)?;
    } else {
        put_user_slice(base, part)?;
    }
    put_user(iov + 8, &len)
}

/// Reads or sets floating-point registers: the legacy ones, or (`NT_X86_XSTATE`) all there are, in the
/// standard form of XSAVE with the features' bits in the spare bytes. Returns how many bytes it was.
fn float_set(task: &Task, kind: usize, set: bool, base: usize, len: usize) -> Result<usize> {
    let mut area = trace::with_stopped(task, |stop, _, _| Ok(stop.fpu.clone()))?;
    let whole = kind == NT_X86_XSTATE;
    let mut view = trace::float_registers(&area, whole).ok_or(Errno::ENODEV)?;
    let size = view.len();
    let mut spare = [0; 48];
    spare.copy_from_slice(&area[SPARE]);
    let len = len.min(size);
    if !set {
        put_user_slice(base, &view[..len])?;
        return Ok(len);
    }
    if whole && len != size {
        return Err(Errno::EFAULT);
    }
    crate::io::get_user_slice(base, &mut view[..len])?;
    // The upper half of MXCSR is reserved.
    if view[26..28] != [0; 2] {
        return Err(Errno::EINVAL);
    }
    area[..size].copy_from_slice(&view);
    area[SPARE].copy_from_slice(&spare);
    if let Some(bits) = area.get_mut(LEGACY).filter(|_| !whole) {
        // The legacy parts are in use from here on.
        *bits |= 3;
    }
    trace::with_stopped(task, |stop, _, _| {
        (stop.fpu, stop.fpu_changed) = (area, true);
        Ok(())
    })?;
    Ok(len)
}

/// `struct ptrace_syscall_info`; returns how long it is, of which `size` bytes at most are stored.
fn syscall_info(task: &Task, size: usize, to: usize) -> Result<usize> {
    let (kind, r, message) =
        trace::with_stopped(task, |stop, _, _| Ok((stop.kind, stop.registers, stop.message)))?;
    let (op, len) = match kind {
        Kind::Entry => (1, 80),
        Kind::Exit => (2, 33),
        Kind::Seccomp => (3, 84),
        Kind::Signal | Kind::Other => (0, 24),
    };
    let mut words = [0u64; 11];
    words[0] = op | u64::from(AUDIT_ARCH_X86_64) << 32;
    (words[1], words[2]) = (r[16] as u64, r[19] as u64);
    if kind == Kind::Exit {
        let result = r[10] as isize;
        words[3] = result as u64;
        words[4] = u64::from((-4095..0).contains(&result));
    } else {
        // rdi, rsi, rdx, r10, r8, r9
        let args = [ORIG_RAX, 14, 13, 12, 7, 9, 8];
        for (slot, at) in words[3..].iter_mut().zip(args) {
            *slot = r[at] as u64;
        }
        words[10] = message as u64;
    }
    let mut bytes = [0; 88];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    put_user_slice(to, &bytes[..len.min(size)])?;
    Ok(len)
}
