//! New tasks (clone(2), clone3(2), fork(2), vfork(2)).

use super::creds::cap;
use super::pid::PidRef;
use super::process::Stop;
use super::sched::Entity;
use super::signal::{AltStack, TaskSignals};
use super::thread::{Completion, Parts, Work};
use super::{Creds, Process, Task, current, current_arc, family, sched, trace};
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::event::pidfd::PidFd;
use crate::io::put_user;
use crate::syscall::install_file;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general::*;

/// Arguments of clone3(2) that we know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Args {
    /// `CLONE_*`.
    pub flags: u64,
    /// Where to store the child's number in the parent.
    pub parent_tid: usize,
    /// Where to store a descriptor of the child (`CLONE_PIDFD`).
    pub pidfd: usize,
    /// Where the child's number goes in the child.
    pub child_tid: usize,
    /// Signal that tells the parent of the end.
    pub exit_signal: u32,
    /// Initial stack pointer; 0 for the parent's.
    pub stack: usize,
    /// Thread pointer.
    pub tls: usize,
}

/// Namespaces: but for those of mounts, there is one of each.
const NAMESPACES: u32 =
    CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

fn check(flags: u32, exit_signal: u32) -> Result<()> {
    let has = |bits: u32| flags & bits == bits;
    let needs = |what: u32, other: u32| has(what) && !has(other);
    if needs(CLONE_THREAD, CLONE_SIGHAND) || needs(CLONE_SIGHAND, CLONE_VM) || exit_signal > 64 {
        return Err(Errno::EINVAL);
    }
    let excluded = has(CLONE_NEWNS | CLONE_FS)
        || has(CLONE_NEWUSER | CLONE_FS)
        || has(CLONE_NEWIPC | CLONE_SYSVSEM)
        || flags & CLONE_THREAD != 0 && flags & (CLONE_NEWUSER | CLONE_NEWPID) != 0;
    if excluded {
        return Err(Errno::EINVAL);
    }
    if flags & NAMESPACES != 0 || has(CLONE_NEWNS) && !current().capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if has(CLONE_PIDFD) && flags & (CLONE_THREAD | CLONE_DETACHED) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// unshare(2): what the task shared with others of its process becomes its own.
pub fn unshare(flags: u32) -> Result<usize> {
    const OWN: u32 = CLONE_FILES | CLONE_FS | CLONE_SYSVSEM;
    // Threads can't part with what makes them threads.
    const PROCESS: u32 = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;
    const NEWTIME: u32 = 0x80;
    if flags & !(OWN | PROCESS | NAMESPACES | CLONE_NEWNS | NEWTIME) != 0 {
        return Err(Errno::EINVAL);
    }
    let task = current_arc();
    if flags & PROCESS != 0 && task.process().threads().len() > 1 {
        return Err(Errno::EINVAL);
    }
    let apart = flags & CLONE_NEWNS != 0;
    if flags & (NAMESPACES | NEWTIME) != 0 || apart && !task.capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if flags & CLONE_FILES != 0 {
        let own = Arc::new(task.files().fork()?);
        drop(task.set_files(Some(own)));
    }
    if flags & CLONE_FS != 0 || apart {
        let fs = task.fs();
        let own = if apart { fs.fork_namespace()? } else { fs.fork() };
        drop(task.set_fs(Some(Arc::new(own))));
    }
    if flags & CLONE_SYSVSEM != 0 {
        crate::ipc::process_exited(task.process());
    }
    Ok(0)
}

/// Makes a task that continues where the caller is, with result 0. Returns its number.
pub fn clone(context: &mut UserContext, args: Args) -> Result<usize> {
    let flags = args.flags as u32;
    check(flags, args.exit_signal)?;
    let has = |bit: u32| flags & bit != 0;
    let parent = current_arc();
    check_limit(&parent)?;

    let mut user = context.try_clone()?;
    user.rax = 0;
    user.orig_rax = usize::MAX;
    if args.stack != 0 {
        user.rsp = args.stack;
    }
    if has(CLONE_SETTLS) {
        if args.tls >= crate::arch::USER_END {
            return Err(Errno::EPERM);
        }
        user.fs_base = args.tls;
    }
    let mm = parent.mm().ok_or(Errno::ESRCH)?;
    let mm = if has(CLONE_VM) { mm } else { mm.fork()? };
    let files = parent.files();
    let files = if has(CLONE_FILES) { files } else { Arc::new(files.fork()?) };
    let fs = parent.fs();
    let fs = match (has(CLONE_NEWNS), has(CLONE_FS)) {
        (true, _) => Arc::new(fs.fork_namespace()?),
        (_, true) => fs,
        _ => Arc::new(fs.fork()),
    };
    let (mask, altstack) = {
        let state = parent.signal.lock();
        // A thread in the parent's memory must not run on the parent's alternate stack; vfork's
        // child may.
        let keeps = !has(CLONE_VM) || has(CLONE_VFORK);
        (state.mask, if keeps { state.altstack } else { AltStack::DISABLED })
    };
    let pid = PidRef::alloc()?;
    let number = pid.number();
    let process = if has(CLONE_THREAD) {
        parent.process().clone()
    } else {
        new_process(&parent, &pid, args.flags, args.exit_signal)
    };
    let mut creds = parent.creds();
    if creds.keyrings.differ(has(CLONE_THREAD)) {
        let keyrings = creds.keyrings.inherited(has(CLONE_THREAD));
        creds = Arc::new(Creds { keyrings, ..(*creds).clone() });
    }
    let child = Task::new(Parts {
        pid: Some(pid),
        process,
        comm: parent.comm().0,
        mm: Some(mm),
        files: Some(files),
        fs: Some(fs),
        creds,
        user,
        sched: Entity::for_user(Some(&parent.sched))?,
        signal: TaskSignals::new(mask, altstack),
    });
    inherit(&parent, &child, &args);
    let done = has(CLONE_VFORK).then(|| {
        let done = Arc::new(Completion::default());
        *child.vfork_done.lock() = Some(done.clone());
        done
    });
    if has(CLONE_PARENT_SETTID) {
        put_user(args.parent_tid, &number)?;
    }
    if has(CLONE_PIDFD) {
        let fd = install_file(PidFd::open(child.process().clone(), 0), true)? as i32;
        if let Err(fault) = put_user(args.pidfd, &fd) {
            parent.files().close(fd)?;
            return Err(fault);
        }
    }
    attach(&parent, &child, flags)?;
    if has(CLONE_CHILD_SETTID) {
        set_child_tid(&child, args.child_tid, number)?;
    }
    let event = trace::on_clone(&child, flags, args.exit_signal);
    sched::start(&child);
    if let Some(event) = event {
        trace::on_event(context, event, number as usize);
    }
    if let Some(done) = done {
        done.wait_killable();
        trace::on_event(context, trace::event::VFORK_DONE, number as usize);
    }
    Ok(number as usize)
}

fn check_limit(parent: &Task) -> Result<()> {
    let limit = parent.process().rlimit(RLIMIT_NPROC);
    let uid = parent.with_creds(|creds| creds.uid);
    if limit == super::rlimit::INFINITY || uid == 0 {
        return Ok(());
    }
    let of_user = super::pid::processes().iter().filter(|process| process.uid() == uid).count();
    if of_user as u64 >= limit { Err(Errno::EAGAIN) } else { Ok(()) }
}

fn new_process(parent: &Task, pid: &PidRef, flags: u64, exit_signal: u32) -> Arc<Process> {
    let from = parent.process();
    let actions = from.signal.lock().actions.clone();
    let shared = flags & u64::from(CLONE_SIGHAND) != 0;
    let actions = if shared { actions } else { Arc::new(actions.fork()) };
    if flags & CLONE_CLEAR_SIGHAND != 0 {
        actions.reset_caught();
    }
    let group = family::membership_of(from);
    let process =
        Process::new(Some(pid.again()), group, actions, from.rlimits(), exit_signal as i32);
    process.set_exe(from.exe());
    for (to, from) in process.arg_area.iter().zip(&from.arg_area) {
        to.store(from.load(Relaxed), Relaxed);
    }
    process.dumpable.store(from.dumpable.load(Relaxed), Relaxed);
    process.core_filter.store(from.core_filter.load(Relaxed), Relaxed);
    process.personality.store(from.personality.load(Relaxed), Relaxed);
    process.oom_score_adj.store(from.oom_score_adj.load(Relaxed), Relaxed);
    process.oom_score_adj_min.store(from.oom_score_adj_min.load(Relaxed), Relaxed);
    process.login.take_over(&from.login);
    *process.terminal.lock() = from.terminal();
    super::timers::cpu::watch_limit(&process);
    process
}

fn inherit(parent: &Task, child: &Task, args: &Args) {
    let flags = args.flags as u32;
    if flags & CLONE_CHILD_CLEARTID != 0 {
        child.clear_child_tid.store(args.child_tid, Relaxed);
    }
    for slack in [&child.timer_slack, &child.usual_slack] {
        slack.store(parent.timer_slack.load(Relaxed), Relaxed);
    }
    child.memory_policy.store(parent.memory_policy.load(Relaxed), Relaxed);
    *child.seccomp.lock() = parent.seccomp.lock().clone();
    let inherited = parent.work() & Work::SECCOMP;
    if flags & CLONE_VM == 0 {
        // The copy of memory has a copy of the registered area.
        child.rseq.store(parent.rseq.load(Relaxed), Relaxed);
        child.rseq_signature.store(parent.rseq_signature.load(Relaxed), Relaxed);
    }
    child.add_work(inherited | Work::RSEQ);
}

/// Makes the child visible: to its process's list of threads, or to its parent. EINTR-like if a
/// signal came first.
fn attach(parent: &Arc<Task>, child: &Arc<Task>, flags: u32) -> Result<()> {
    let process = child.process();
    if flags & CLONE_THREAD != 0 {
        let mut group = process.signal.lock();
        if group.group_exit.is_some() || group.exec_by.is_some() {
            return Err(Errno::ERESTARTNOINTR);
        }
        if group.stop != Stop::None {
            child.add_work(Work::STOP);
        }
        group.threads.push(child.clone());
        return Ok(());
    }
    process.signal.lock().threads.push(child.clone());
    let adopter = if flags & CLONE_PARENT != 0 { parent.process().parent() } else { None };
    let adopter = adopter.unwrap_or_else(|| parent.process().clone());
    family::lock().adopt(&adopter, process);
    Ok(())
}

fn set_child_tid(child: &Arc<Task>, addr: usize, number: i32) -> Result<()> {
    // The child's memory may be a copy that isn't loaded here. As on Linux a bad address is not an
    // error.
    if let Some(mm) = child.mm() {
        let _ = mm.write_bytes(addr, &number.to_le_bytes());
    }
    Ok(())
}
