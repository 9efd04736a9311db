//! Processes: clone(2), execve(2), wait4(2), exit(2), process groups, prctl(2).

use super::fs_path::{file, lookup, path_arg, place_of};
use crate::arch::USER_END;
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::event::pidfd::PidFd;
use crate::io::{get_user, get_user_slice, get_user_str, put_user};
use crate::task::creds::{self, cap};
use crate::task::process::Usage;
use crate::task::rlimit::Rlimit;
use crate::task::wait::{self, Who};
use crate::task::{
    Process, current, exec, exit, family, find_process, fork, seccomp, signal, timers,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general::*;

const CSIGNAL: u64 = 0xff;

/// clone(2)
pub fn clone(context: &mut UserContext, args: [usize; 6]) -> Result<usize> {
    let [flags, stack, parent_tid, child_tid, tls, _] = args;
    let flags = flags as u64;
    let exit_signal = (flags & CSIGNAL) as u32;
    let flags = flags & 0xffff_ffff & !CSIGNAL;
    // The two share an argument.
    if flags & u64::from(CLONE_PIDFD) != 0 && flags & u64::from(CLONE_PARENT_SETTID) != 0 {
        return Err(Errno::EINVAL);
    }
    let pidfd = parent_tid;
    fork::clone(
        context,
        fork::Args { flags, parent_tid, pidfd, child_tid, exit_signal, stack, tls },
    )
}

/// fork(2)
pub fn fork(context: &mut UserContext) -> Result<usize> {
    fork::clone(context, fork::Args { exit_signal: SIGCHLD, ..Default::default() })
}

/// vfork(2)
pub fn vfork(context: &mut UserContext) -> Result<usize> {
    let flags = u64::from(CLONE_VFORK | CLONE_VM);
    fork::clone(context, fork::Args { flags, exit_signal: SIGCHLD, ..Default::default() })
}

/// clone3(2)
pub fn clone3(context: &mut UserContext, addr: usize, size: usize) -> Result<usize> {
    const FIRST: usize = 64;
    const KNOWN: usize = 88;
    if size < FIRST {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut raw = alloc::vec![0u8; size];
    get_user_slice(addr, &mut raw)?;
    if raw.iter().skip(KNOWN).any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    let word = |at: usize| {
        let mut bytes = [0; 8];
        if let Some(found) = raw.get(at * 8..at * 8 + 8) {
            bytes.copy_from_slice(found);
        }
        u64::from_le_bytes(bytes)
    };
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, len, tls, tids] =
        [0, 1, 2, 3, 4, 5, 6, 7, 9].map(word);
    let thread = u64::from(CLONE_THREAD | CLONE_PARENT);
    // Flags of the upper half: handlers go, other than with the ones that are shared.
    let known = u64::from(u32::MAX) | CLONE_CLEAR_SIGHAND;
    let clears = CLONE_CLEAR_SIGHAND | u64::from(CLONE_SIGHAND);
    if flags & CSIGNAL != 0
        || flags & !known != 0
        || flags & clears == clears
        || exit_signal > 64
        || flags & thread != 0 && exit_signal != 0
        || (stack == 0) != (len == 0)
        || flags & u64::from(CLONE_DETACHED) != 0
    {
        return Err(Errno::EINVAL);
    }
    if tids != 0 {
        return Err(Errno::EPERM);
    }
    let top = if stack == 0 { 0 } else { stack.checked_add(len).ok_or(Errno::EINVAL)? };
    let args = fork::Args {
        flags,
        parent_tid: parent_tid as usize,
        pidfd: pidfd as usize,
        child_tid: child_tid as usize,
        exit_signal: exit_signal as u32,
        stack: top as usize,
        tls: tls as usize,
    };
    fork::clone(context, args)
}

/// Strings of a null-terminated pointer array; a null array is an empty one. E2BIG if they are too
/// long together.
fn strings(addr: usize, budget: &mut usize) -> Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    if addr == 0 {
        return Ok(out);
    }
    for at in 0.. {
        let pointer: usize = get_user(addr + at * 8)?;
        if pointer == 0 {
            break;
        }
        let string = get_user_str(pointer, exec::stack::MAX_STRING, Errno::E2BIG)?;
        *budget = budget.checked_sub(string.len() + 9).ok_or(Errno::E2BIG)?;
        out.push(string);
    }
    Ok(out)
}

fn arguments(argv: usize, envp: usize) -> Result<(Vec<Vec<u8>>, Vec<Vec<u8>>)> {
    let mut budget = exec::stack::limit(current().process().rlimit(RLIMIT_STACK));
    Ok((strings(argv, &mut budget)?, strings(envp, &mut budget)?))
}

/// execve(2)
pub fn execve(context: &mut UserContext, path: usize, argv: usize, envp: usize) -> Result<usize> {
    execveat(context, AT_FDCWD, path, argv, envp, 0)
}

/// execveat(2)
pub fn execveat(
    context: &mut UserContext,
    dirfd: i32,
    path: usize,
    argv: usize,
    envp: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = path_arg(path)?;
    let by_fd = name.is_empty() && flags & AT_EMPTY_PATH != 0;
    let place = if by_fd {
        place_of(dirfd)?
    } else {
        lookup(dirfd, &name, flags & AT_SYMLINK_NOFOLLOW == 0)?
    };
    if place.dentry.kind() == Some(crate::fs::FileType::Symlink) {
        return Err(Errno::ELOOP);
    }
    let opened = exec::open_for_current(place)?;
    let cloexec = dirfd >= 0 && current().files().cloexec(dirfd).unwrap_or(false);
    let relative = dirfd != AT_FDCWD && !name.starts_with(b"/");
    let shown = match (by_fd, relative) {
        (true, _) => alloc::format!("/dev/fd/{dirfd}").into_bytes(),
        (_, true) => [alloc::format!("/dev/fd/{dirfd}/").as_bytes(), &name].concat(),
        _ => name,
    };
    let (argv, envp) = arguments(argv, envp)?;
    exec::exec(context, opened, shown, argv, envp, cloexec && (by_fd || relative))?;
    Ok(0)
}

/// exit(2)
pub fn exit(status: i32) -> ! {
    exit::exit_thread((status & 0xff) << 8)
}

/// exit_group(2)
pub fn exit_group(status: i32) -> ! {
    exit::exit_group((status & 0xff) << 8)
}

/// `struct rusage` as words: two times, then 14 counters.
fn rusage(usage: &Usage) -> [u64; 18] {
    let mut out = [0; 18];
    for (at, ns) in [(0, usage.user_ns), (2, usage.system_ns)] {
        out[at] = ns / 1_000_000_000;
        out[at + 1] = ns % 1_000_000_000 / 1000;
    }
    out[4] = usage.max_rss;
    (out[8], out[9]) = (usage.minor_faults, usage.major_faults);
    (out[16], out[17]) = (usage.voluntary, usage.involuntary);
    out
}

/// wait4(2)
pub fn wait4(pid: i32, status: usize, options: u32, usage: usize) -> Result<usize> {
    let known = wait::WNOHANG | wait::WSTOPPED | wait::WCONTINUED | wait::WNOTHREAD | wait::WALL;
    if options & !(known | wait::WCLONE) != 0 {
        return Err(Errno::EINVAL);
    }
    let who = match pid {
        -1 => Who::Any,
        0 => Who::Group(current().process().pgid()),
        i32::MIN => return Err(Errno::ESRCH),
        pid if pid < 0 => Who::Group(-pid),
        pid => Who::Pid(pid),
    };
    let Some(event) = wait::wait(who, options | wait::WEXITED)? else { return Ok(0) };
    if status != 0 {
        put_user(status, &event.status)?;
    }
    if usage != 0 {
        put_user(usage, &rusage(&event.usage))?;
    }
    Ok(event.pid as usize)
}

/// waitid(2)
pub fn waitid(kind: u32, id: i32, info: usize, options: u32, usage: usize) -> Result<usize> {
    const P_ALL: u32 = 0;
    const P_PID: u32 = 1;
    const P_PGID: u32 = 2;
    const P_PIDFD: u32 = 3;
    let wanted = wait::WSTOPPED | wait::WEXITED | wait::WCONTINUED;
    let known =
        wanted | wait::WNOHANG | wait::WNOWAIT | wait::WNOTHREAD | wait::WALL | wait::WCLONE;
    if options & !known != 0 || options & wanted == 0 {
        return Err(Errno::EINVAL);
    }
    let who = match kind {
        P_ALL => Who::Any,
        P_PID if id > 0 => Who::Pid(id),
        P_PGID if id > 0 => Who::Group(id),
        P_PGID if id == 0 => Who::Group(current().process().pgid()),
        P_PIDFD if id >= 0 => {
            let file = file(id)?;
            let process = PidFd::process(&file)?;
            if file.nonblocking() && options & wait::WNOHANG == 0 {
                let event = wait::wait(Who::Pid(process.pid()), options | wait::WNOHANG)?;
                return tell(Some(event.ok_or(Errno::EAGAIN)?), info, usage);
            }
            Who::Pid(process.pid())
        }
        _ => return Err(Errno::EINVAL),
    };
    tell(wait::wait(who, options)?, info, usage)
}

fn tell(event: Option<wait::Event>, info: usize, usage: usize) -> Result<usize> {
    if info != 0 {
        let words = event.as_ref().map_or([0; 16], |event| event.info.to_user());
        put_user(info, &words)?;
    }
    if let Some(event) = event.filter(|_| usage != 0) {
        put_user(usage, &rusage(&event.usage))?;
    }
    Ok(0)
}

/// getrusage(2)
pub fn getrusage(who: i32, to: usize) -> Result<usize> {
    let task = current();
    let mut usage = match who {
        0 => task.process().usage(),
        // What was resident is told of the process.
        1 => Usage { max_rss: task.process().max_rss(), ..task.sched.usage() },
        -1 => task.process().children_usage(),
        _ => return Err(Errno::EINVAL),
    };
    if who >= 0
        && let Some(bytes) = task.with_mm(|mm| mm.peak_resident())
    {
        usage.saw_resident(bytes);
    }
    put_user(to, &rusage(&usage))?;
    Ok(0)
}

/// times(2)
pub fn times(to: usize) -> Result<usize> {
    const TICK: u64 = 10_000_000;
    if to != 0 {
        let process = current().process();
        let (own, children) = (process.usage(), process.children_usage());
        let times = [own.user_ns, own.system_ns, children.user_ns, children.system_ns];
        put_user(to, &times.map(|ns| ns / TICK))?;
    }
    Ok((crate::time::now_ns() / TICK) as usize)
}

/// setpgid(2)
pub fn setpgid(pid: i32, pgid: i32) -> Result<usize> {
    family::set_group(current().process(), pid, pgid).map(|()| 0)
}

fn process_or_self(pid: i32) -> Result<Arc<Process>> {
    match pid {
        0 => Ok(current().process().clone()),
        pid => find_process(pid).ok_or(Errno::ESRCH),
    }
}

/// getpgid(2)
pub fn getpgid(pid: i32) -> Result<usize> {
    Ok(process_or_self(pid)?.pgid() as usize)
}

/// getsid(2)
pub fn getsid(pid: i32) -> Result<usize> {
    Ok(process_or_self(pid)?.sid() as usize)
}

/// setsid(2)
pub fn setsid() -> Result<usize> {
    Ok(family::new_session(current().process())? as usize)
}

/// prlimit64(2)
pub fn prlimit64(pid: i32, resource: u32, new: usize, old: usize) -> Result<usize> {
    let target = process_or_self(pid)?;
    if !Arc::ptr_eq(&target, current().process()) {
        let mine = current().creds();
        let same = target.uid() == mine.uid;
        if !same && !mine.capable(cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
    }
    let before = target.rlimit_pair(resource)?;
    if new != 0 {
        let [soft, hard] = get_user::<[u64; 2]>(new)?;
        let privileged = current().capable(cap::SYS_RESOURCE);
        target.set_rlimit(resource, Rlimit { soft, hard }, privileged)?;
        timers::cpu::watch_limit(&target);
        if let Some(mm) = target.main_thread().and_then(|thread| thread.mm()) {
            let slot = match resource {
                RLIMIT_AS => Some(&mm.limits.address_space),
                RLIMIT_DATA => Some(&mm.limits.data),
                RLIMIT_STACK => Some(&mm.limits.stack),
                RLIMIT_MEMLOCK => Some(&mm.limits.locked),
                _ => None,
            };
            if let Some(slot) = slot {
                slot.store(soft, Relaxed);
            }
        }
    }
    if old != 0 {
        put_user(old, &[before.soft, before.hard])?;
    }
    Ok(0)
}

/// arch_prctl(2)
pub fn arch_prctl(context: &mut UserContext, code: u32, addr: usize) -> Result<usize> {
    const SET_GS: u32 = 0x1001;
    const SET_FS: u32 = 0x1002;
    const GET_FS: u32 = 0x1003;
    const GET_GS: u32 = 0x1004;
    const GET_CPUID: u32 = 0x1011;
    const SET_CPUID: u32 = 0x1012;
    match code {
        SET_GS | SET_FS if addr >= USER_END => return Err(Errno::EPERM),
        SET_GS => context.gs_base = addr,
        SET_FS => context.fs_base = addr,
        GET_FS => put_user(addr, &context.fs_base)?,
        GET_GS => put_user(addr, &context.gs_base)?,
        // The instruction is let through, always: no processor we run on need be able to stop it.
        GET_CPUID => return Ok(1),
        SET_CPUID => return Err(Errno::ENODEV),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// set_tid_address(2)
pub fn set_tid_address(addr: usize) -> Result<usize> {
    current().set_clear_child_tid(addr);
    Ok(current().tid() as usize)
}

/// prctl(2)
pub fn prctl(option: u32, args: [usize; 4]) -> Result<usize> {
    use linux_raw_sys::prctl::*;
    let [a, b, c, d] = args;
    let task = current();
    // Arguments that mean nothing must be 0, so that they can come to mean something.
    let rest = b | c | d;
    match option {
        PR_SET_NAME => {
            let mut name = [0u8; 15];
            let text = get_user_str(a, 16, Errno::EINVAL).or_else(|_| {
                get_user_slice(a, &mut name)?;
                Ok::<_, Errno>(name.to_vec())
            })?;
            task.set_comm(&text);
        }
        PR_GET_NAME => put_user(a, &task.comm().0)?,
        PR_SET_PDEATHSIG if a <= 64 => task.set_pdeath_signal(a as u32),
        PR_GET_PDEATHSIG => put_user(a, &task.pdeath_signal())?,
        PR_SET_DUMPABLE if a <= 1 => task.process().set_dumpable(a as u32),
        PR_GET_DUMPABLE => return Ok(task.process().dumpable() as usize),
        PR_SET_NO_NEW_PRIVS if a == 1 && rest == 0 => {
            let mut new = (*task.creds()).clone();
            new.no_new_privs = true;
            task.set_creds(new);
        }
        PR_GET_NO_NEW_PRIVS if a | rest == 0 => return Ok(task.creds().no_new_privs.into()),
        PR_SET_CHILD_SUBREAPER => task.process().set_subreaper(a != 0),
        PR_GET_CHILD_SUBREAPER => put_user(a, &i32::from(task.process().is_subreaper()))?,
        PR_SET_TIMERSLACK => task.set_timer_slack(a),
        PR_GET_TIMERSLACK => return Ok(task.timer_slack()),
        PR_SET_KEEPCAPS if a <= 1 => {
            let mut new = (*task.creds()).clone();
            new.securebits &= !creds::SECBIT_KEEP_CAPS;
            new.securebits |= if a == 1 { creds::SECBIT_KEEP_CAPS } else { 0 };
            task.set_creds(new);
        }
        PR_GET_KEEPCAPS => {
            return Ok((task.creds().securebits & creds::SECBIT_KEEP_CAPS != 0).into());
        }
        PR_GET_SECUREBITS => return Ok(task.creds().securebits as usize),
        PR_SET_SECUREBITS if a < 256 => {
            if !task.capable(cap::SETPCAP) {
                return Err(Errno::EPERM);
            }
            let mut new = (*task.creds()).clone();
            new.securebits = a as u32;
            task.set_creds(new);
        }
        PR_CAPBSET_READ if a <= cap::LAST as usize => {
            return Ok(task.creds().bounding.has(a as u32).into());
        }
        PR_CAPBSET_DROP if a <= cap::LAST as usize => {
            if !task.capable(cap::SETPCAP) {
                return Err(Errno::EPERM);
            }
            let mut new = (*task.creds()).clone();
            new.bounding = new.bounding.minus(creds::CapSet(1 << a));
            task.set_creds(new);
        }
        // PR_CAP_AMBIENT_CLEAR_ALL takes no capability either.
        PR_CAP_AMBIENT if c | d != 0 || a == 4 && b != 0 => return Err(Errno::EINVAL),
        PR_CAP_AMBIENT => return super::cred::ambient(a as u32, b),
        PR_SET_SECCOMP => {
            return match a {
                1 => seccomp::seccomp(0, 0, 0),
                2 => seccomp::seccomp(1, 0, b),
                _ => Err(Errno::EINVAL),
            };
        }
        PR_GET_SECCOMP => return Ok(seccomp::mode()),
        // One huge page size, one timing method, no machine check policy: accepted, nothing to
        // change.
        PR_SET_THP_DISABLE if rest == 0 => {}
        PR_SET_TIMING if a == 0 => {}
        PR_MCE_KILL => {}
        PR_GET_THP_DISABLE if a | rest == 0 => return Ok(0),
        PR_GET_TIMING => return Ok(0),
        PR_SET_VMA => {}
        PR_GET_TSC => put_user(a, &1u32)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// personality(2)
pub fn personality(persona: u32) -> Result<usize> {
    let process = current().process();
    Ok(process.set_personality((persona != u32::MAX).then_some(persona)) as usize)
}

/// reboot(2): the main process, or who may, ends the machine.
pub fn reboot(magic: u32, magic2: u32, command: u32) -> Result<usize> {
    const MAGIC: u32 = 0xfee1_dead;
    const SECOND: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    const CAD_ON: u32 = 0x89ab_cdef;
    const CAD_OFF: u32 = 0;
    if !current().capable(cap::SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    if magic != MAGIC || !SECOND.contains(&magic2) {
        return Err(Errno::EINVAL);
    }
    match command {
        CAD_ON | CAD_OFF => Ok(0),
        // Halt, power off, restart: as in a container, the main process dies and with it
        // everything.
        0xcdef_0123 | 0x4321_fedc | 0x0123_4567 | 0xa1b2_c3d4 => {
            if let Some(main) = find_process(1) {
                let kill = signal::Signal::KILL;
                let info = signal::SigInfo::kernel(kill);
                signal::send::send(&main, None, kill, info, signal::send::Force::Outside)?;
            }
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// membarrier(2). Every return to user mode here follows a full barrier on that CPU, so making each
/// CPU enter the kernel is enough.
pub fn membarrier(command: i32, flags: u32) -> Result<usize> {
    const QUERY: i32 = 0;
    const GLOBAL: i32 = 1;
    const GLOBAL_EXPEDITED: i32 = 2;
    const REGISTER_GLOBAL_EXPEDITED: i32 = 4;
    const PRIVATE_EXPEDITED: i32 = 8;
    const REGISTER_PRIVATE_EXPEDITED: i32 = 16;
    const PRIVATE_SYNC_CORE: i32 = 32;
    const REGISTER_PRIVATE_SYNC_CORE: i32 = 64;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let process = current().process();
    match command {
        QUERY => Ok(0x7f),
        REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE_EXPEDITED | REGISTER_PRIVATE_SYNC_CORE => {
            process.register_membarrier(command as u32);
            Ok(0)
        }
        GLOBAL | GLOBAL_EXPEDITED => barrier_everywhere(),
        PRIVATE_EXPEDITED | PRIVATE_SYNC_CORE => {
            if process.membarriers() & (command as u32) << 1 == 0 {
                return Err(Errno::EPERM);
            }
            barrier_everywhere()
        }
        _ => Err(Errno::EINVAL),
    }
}

fn barrier_everywhere() -> Result<usize> {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    // Waits for every other CPU to take the interrupt, which serialises it.
    crate::arch::ipi::flush_tlb(crate::task::sched::online_cpus(), 0, 0);
    Ok(0)
}
