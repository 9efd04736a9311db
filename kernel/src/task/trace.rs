//! Being traced (ptrace(2)): stops that the tracer hears of by waitpid(2), and what it may see and
//! change meanwhile.
//!
//! A task that stops leaves a copy of its registers with its [`Trace`]; the tracer works on the copy,
//! and the task takes it over when it goes on. So nobody but the task itself touches its context.

use super::process::Process;
use super::signal::{self, SigInfo, Signal, send};
use super::thread::Work;
use super::wait::Who;
use super::{Task, current, current_arc, sched};
use crate::arch::fpu;
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::sync::WaitMode;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general::{CLONE_PTRACE, CLONE_UNTRACED, CLONE_VFORK, SIGCHLD};

/// `PTRACE_O_*`.
pub mod option {
    #![allow(missing_docs, reason = "the names are those of ptrace(2)")]
    pub const TRACESYSGOOD: u32 = 1;
    pub const TRACEEXEC: u32 = 1 << 4;
    pub const TRACESECCOMP: u32 = 1 << 7;
    pub const EXITKILL: u32 = 1 << 20;
    /// Those that exist here.
    pub const KNOWN: u32 = TRACESYSGOOD | 0x6e | TRACEEXEC | TRACESECCOMP | EXITKILL;
}

/// `PTRACE_EVENT_*`; option bit `n` asks for event `n`.
pub mod event {
    #![allow(missing_docs, reason = "the names are those of ptrace(2)")]
    pub const FORK: u32 = 1;
    pub const VFORK: u32 = 2;
    pub const CLONE: u32 = 3;
    pub const EXEC: u32 = 4;
    pub const VFORK_DONE: u32 = 5;
    pub const EXIT: u32 = 6;
    pub const SECCOMP: u32 = 7;
    pub const STOP: u32 = 128;
}

/// Registers in the order of `struct user_regs_struct`.
pub type Registers = [usize; 27];
/// Index of `orig_rax`.
pub const ORIG_RAX: usize = 15;
const RIP: usize = 16;
const FLAGS: usize = 18;
const TRAP_FLAG: usize = 1 << 8;

/// How a stopped task goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Until the next event.
    Cont,
    /// Until the next system call begins or ends.
    Syscall,
    /// For one instruction.
    Step,
}

/// What a task is stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A system call begins.
    Entry,
    /// It has ended.
    Exit,
    /// A filter asks the tracer.
    Seccomp,
    /// A signal is about to be delivered.
    Signal,
    /// Anything else.
    Other,
}

/// One stop.
pub struct Stop {
    /// What for.
    pub kind: Kind,
    /// Bits 8 and up of the wait status.
    pub code: u32,
    /// The signal's information (`PTRACE_GETSIGINFO`).
    pub info: SigInfo,
    /// `PTRACE_GETEVENTMSG`
    pub message: usize,
    /// Registers.
    pub registers: Registers,
    /// Floating-point and vector registers, as a signal frame has them; empty without memory for it.
    pub fpu: Vec<u8>,
    /// The tracer has changed those.
    pub fpu_changed: bool,
    /// The tracer has been told.
    reported: bool,
    /// The tracer lets it go on, with this signal (0 for none).
    resumed: Option<u32>,
    /// The tracer leaves it in this stop until job control has something new (`PTRACE_LISTEN`).
    listening: bool,
}

/// A task's side of being traced.
#[derive(Default)]
pub struct Traced {
    by: Option<Trace>,
    /// The stop that a former tracer let it go from, until it runs and takes the registers over.
    /// Meanwhile another may trace it.
    left: Option<Stop>,
}

/// A traced task's relation to its tracer.
pub struct Trace {
    tracer: Weak<Process>,
    /// `PTRACE_O_*`
    pub options: u32,
    seized: bool,
    how: Resume,
    /// `PTRACE_INTERRUPT` asks for a stop.
    interrupt: bool,
    /// The stop it is in.
    pub stop: Option<Stop>,
}

/// What a tracer has.
#[derive(Default)]
pub struct Tracees {
    live: Vec<Arc<Task>>,
    /// Ended ones that aren't children: number and wait status.
    ended: Vec<(i32, i32)>,
    /// The tracer is ending, and gets no more.
    closed: bool,
}

/// Makes `process` the tracer of `task`, unless it is ending. EPERM if the task has one.
pub fn attach(task: &Arc<Task>, process: &Arc<Process>, seized: bool, options: u32) -> Result<()> {
    let stopped = begin(task, process, seized, options)?;
    settle(task, process, seized, stopped);
    Ok(())
}

/// `PTRACE_ATTACH`: it stops by SIGSTOP, before it does anything else.
pub fn attach_stopping(task: &Arc<Task>, process: &Arc<Process>) -> Result<()> {
    let stopped = begin(task, process, false, 0)?;
    signal::send_to_task(task, Signal::STOP, SigInfo::new(Signal::STOP, signal::code::SI_USER));
    settle(task, process, false, stopped);
    Ok(())
}

/// Returns whether job control has stopped the process.
fn begin(task: &Arc<Task>, process: &Arc<Process>, seized: bool, options: u32) -> Result<bool> {
    let mut tracees = process.tracees.lock();
    let mut traced = task.trace.lock();
    if traced.by.is_some() || task.is_kernel() {
        return Err(Errno::EPERM);
    }
    if tracees.closed {
        return Ok(false);
    }
    let tracer = Arc::downgrade(process);
    traced.by =
        Some(Trace { tracer, options, seized, how: Resume::Cont, interrupt: false, stop: None });
    task.add_work(Work::TRACE);
    let stopped = task.process().signal.lock().stop.signal().is_some();
    if stopped {
        // It leaves the stop of job control for one that the tracer hears of.
        task.add_work(Work::RETRAP);
    }
    tracees.live.push(task.clone());
    Ok(stopped)
}

/// Lets a new tracee see to it, and one that stood still get from the stop of job control to one of
/// the tracer's: who asks next sees nothing of the way.
fn settle(task: &Arc<Task>, process: &Process, seized: bool, stopped: bool) {
    if !sched::resume(task) || !stopped {
        return;
    }
    let trapped = || {
        let slot = task.trace.lock();
        let Some(trace) = &slot.by else { return Some(()) };
        // SIGCONT may have been faster.
        let goes_on = || !seized && task.process().signal.lock().stop.signal().is_none();
        (trace.stop.is_some() || goes_on()).then_some(())
    };
    // Only what kills the tracer ends the wait early.
    let _ = process.child_events.wait(WaitMode::Killable, None, trapped);
}

/// The tracer's number; 0 without one.
pub fn tracer_of(task: &Task) -> i32 {
    let tracer = task.trace.lock().by.as_ref().and_then(|trace| trace.tracer.upgrade());
    tracer.map_or(0, |tracer| tracer.pid())
}

/// Calls `f` with the stop that a tracee of the current process is in. ESRCH if it isn't its
/// tracee, or isn't stopped.
pub fn with_stopped<R>(
    task: &Task,
    f: impl FnOnce(&mut Stop, &mut u32, bool) -> Result<R>,
) -> Result<R> {
    let mut slot = task.trace.lock();
    let trace = slot.by.as_mut().filter(|trace| is_mine(trace)).ok_or(Errno::ESRCH)?;
    let Trace { options, seized, stop, .. } = trace;
    let stop = stop.as_mut().filter(|stop| stop.resumed.is_none() && !stop.listening);
    f(stop.ok_or(Errno::ESRCH)?, options, *seized)
}

fn is_mine(trace: &Trace) -> bool {
    core::ptr::eq(trace.tracer.as_ptr(), Arc::as_ptr(current().process()))
}

/// Lets a stopped tracee go on, with a signal in place of the one it stopped for (0 for none).
pub fn resume(task: &Arc<Task>, how: Resume, signal: u32) -> Result<()> {
    with_stopped(task, |stop, _, _| {
        stop.resumed = Some(signal);
        if how == Resume::Step {
            stop.registers[FLAGS] |= TRAP_FLAG;
        }
        Ok(())
    })?;
    if let Some(trace) = task.trace.lock().by.as_mut() {
        trace.how = how;
    }
    sched::resume(task);
    Ok(())
}

/// `PTRACE_DETACH`
pub fn detach(task: &Arc<Task>, signal: u32) -> Result<()> {
    with_stopped(task, |stop, _, _| {
        stop.resumed = Some(signal);
        Ok(())
    })?;
    release(task);
    forget(current().process(), task);
    sched::resume(task);
    Ok(())
}

/// Nobody traces `task` any more. Returns the options it was traced with.
fn release(task: &Task) -> Option<u32> {
    let mut traced = task.trace.lock();
    let Trace { options, stop, .. } = traced.by.take()?;
    if let Some(stop) = stop {
        traced.left = Some(Stop { resumed: stop.resumed.or(Some(0)), ..stop });
    }
    task.remove_work(Work::TRACE);
    Some(options)
}

fn forget(tracer: &Process, task: &Task) {
    tracer.tracees.lock().live.retain(|other| !core::ptr::eq(&**other, task));
}

/// `PTRACE_INTERRUPT`
pub fn interrupt(task: &Arc<Task>) -> Result<()> {
    {
        let mut slot = task.trace.lock();
        let trace = slot.by.as_mut().filter(|trace| is_mine(trace)).ok_or(Errno::ESRCH)?;
        if !trace.seized {
            return Err(Errno::EIO);
        }
        trace.interrupt = true;
    }
    send::alert(task);
    sched::resume(task);
    Ok(())
}

/// `PTRACE_LISTEN`: a process that job control stopped stays so; the tracer hears when that changes.
/// EIO outside of such a stop.
pub fn listen(task: &Arc<Task>) -> Result<()> {
    with_stopped(task, |stop, _, seized| {
        if !seized || stop.code >> 8 != event::STOP {
            return Err(Errno::EIO);
        }
        stop.listening = true;
        Ok(())
    })?;
    // There may be news already.
    sched::resume(task);
    Ok(())
}

/// The tracer ends: its tracees go on alone, or end with it.
pub(super) fn tracer_exits(process: &Process) {
    let none = Tracees { closed: true, ..Tracees::default() };
    let tracees = core::mem::replace(&mut *process.tracees.lock(), none).live;
    for task in tracees {
        let Some(options) = release(&task) else { continue };
        if options & option::EXITKILL != 0 {
            signal::send_to_process(task.process(), Signal::KILL, SigInfo::kernel(Signal::KILL));
        }
        sched::resume(&task);
    }
}

/// A traced task ends. Its parent hears of a process's end by itself.
pub(super) fn tracee_exits(task: &Arc<Task>, status: i32) {
    let Some(trace) = task.trace.lock().by.take() else { return };
    let Some(tracer) = trace.tracer.upgrade() else { return };
    forget(&tracer, task);
    let process = task.process();
    let child = process.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &tracer));
    if task.tid() != process.pid() || !child {
        tracer.tracees.lock().ended.push((task.tid(), status));
        notify(&tracer, task, signal::code::CLD_EXITED, status >> 8);
    } else {
        process.traced_to_the_end.store(true, Relaxed);
    }
}

fn notify(tracer: &Arc<Process>, task: &Task, code: i32, value: i32) {
    let info = SigInfo::child(code, task.tid(), task.process().uid(), value, 0, 0);
    signal::send_to_process(tracer, Signal::CHLD, info);
    tracer.child_events.wake_all(Events::ALL);
}

/// What waitpid(2) finds among the tracees: number and status. `Err` if none is meant.
pub(super) fn scan(process: &Process, who: Who, keep: bool) -> Result<Option<(i32, i32)>> {
    let mut tracees = process.tracees.lock();
    let meant = |tid: i32, task: Option<&Task>| match who {
        Who::Any => true,
        Who::Pid(pid) => pid == tid,
        Who::Group(pgid) => task.is_some_and(|task| task.process().pgid() == pgid),
    };
    if let Some(at) = tracees.ended.iter().position(|(tid, _)| meant(*tid, None)) {
        let found = tracees.ended[at];
        if !keep {
            tracees.ended.remove(at);
        }
        return Ok(Some(found));
    }
    let mut any = false;
    for task in &tracees.live {
        if !meant(task.tid(), Some(task)) {
            continue;
        }
        any = true;
        let mut slot = task.trace.lock();
        let stop = slot.by.as_mut().and_then(|trace| trace.stop.as_mut());
        if let Some(stop) = stop.filter(|stop| !stop.reported && stop.resumed.is_none()) {
            stop.reported = !keep;
            return Ok(Some((task.tid(), (stop.code << 8 | 0x7f) as i32)));
        }
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

/// Stops the current task and tells its tracer; returns the signal that the tracer lets through.
/// `None` without a tracer.
fn stop(
    context: &mut UserContext,
    kind: Kind,
    code: u32,
    info: SigInfo,
    message: usize,
) -> Option<u32> {
    let task = current_arc();
    let mut fpu = Vec::new();
    if task.trace.lock().by.is_some() && fpu.try_reserve_exact(fpu::signal_size()).is_ok() {
        fpu.extend_from_slice(context.signal_fpu());
    }
    let tracer = {
        let mut slot = task.trace.lock();
        let trace = slot.by.as_mut()?;
        let registers = registers(context);
        trace.stop = Some(Stop {
            kind,
            code,
            info,
            message,
            registers,
            fpu,
            fpu_changed: false,
            reported: false,
            resumed: None,
            listening: false,
        });
        // Whatever it stops for, the tracer has it stopped.
        trace.interrupt = false;
        trace.tracer.upgrade()
    };
    let tracer = tracer?;
    notify(&tracer, &task, signal::code::CLD_TRAPPED, (code & 0xff) as i32);
    let waits = || {
        let slot = task.trace.lock();
        let Some(Trace { stop: Some(stop), interrupt, .. }) = &slot.by else { return false };
        let news = *interrupt || task.work().contains(Work::RETRAP);
        let ends = stop.resumed.is_some() || stop.listening && news;
        !ends && !task.work().contains(Work::DIE)
    };
    while waits() {
        sched::stop_current(waits);
    }
    let mut slot = task.trace.lock();
    let left = slot.left.take();
    let done = left.or_else(|| slot.by.as_mut()?.stop.take())?;
    drop(slot);
    if done.listening && done.resumed.is_none() {
        // News, or an interruption: both are told by another stop.
        task.add_work(Work::RETRAP);
    }
    copy_in(context, &done.registers);
    if done.fpu_changed {
        // An area that is too short is none.
        let read = |at: usize, out: &mut [u8]| {
            let part = done.fpu.get(at..).and_then(|rest| rest.get(..out.len()));
            out.copy_from_slice(part.ok_or(Errno::EINVAL)?);
            Ok(())
        };
        let _ = context.restore_signal_fpu(Some(read));
    }
    Some(done.resumed.unwrap_or(0))
}

/// Stops for an event, if the tracer asked for it. Returns whether it did.
pub(super) fn on_event(context: &mut UserContext, event: u32, message: usize) -> bool {
    let asked = |trace: &Trace| trace.options & 1 << event != 0;
    if !current().trace.lock().by.as_ref().is_some_and(asked) {
        return false;
    }
    let trap = Signal::TRAP;
    let kind = if event == event::SECCOMP { Kind::Seccomp } else { Kind::Other };
    let code = event << 8 | u32::from(trap.number());
    stop(context, kind, code, SigInfo::new(trap, code as i32), message);
    true
}

/// A signal is about to be delivered: what the tracer makes of it.
pub(super) fn on_signal(context: &mut UserContext, info: &SigInfo) -> Option<(Signal, SigInfo)> {
    if info.signo == Signal::TRAP.number().into() {
        context.set_user_flags(context.rflags & !TRAP_FLAG);
    }
    let Some(chosen) = stop(context, Kind::Signal, info.signo as u32, *info, 0) else {
        return Some((Signal::new(info.signo as u32)?, *info));
    };
    let signal = Signal::new(chosen)?;
    let same = chosen == info.signo as u32;
    Some((signal, if same { *info } else { SigInfo::new(signal, signal::code::SI_USER) }))
}

/// Stops if the tracer asked for that by `PTRACE_INTERRUPT` (or has just got a new tracee), or is to
/// hear what job control did ([`Work::RETRAP`]).
pub(super) fn on_interrupt(context: &mut UserContext) {
    let task = current();
    let (seized, signal, tracer) = {
        let mut slot = task.trace.lock();
        // Under this lock: news that come later are told by another stop.
        let group = task.process().signal.lock();
        let news = task.work().contains(Work::RETRAP);
        task.remove_work(Work::RETRAP);
        let Some(trace) = slot.by.as_mut() else { return };
        if !core::mem::take(&mut trace.interrupt) && !news {
            return;
        }
        (trace.seized, group.stop.signal(), trace.tracer.upgrade())
    };
    let trap = Signal::TRAP.number();
    let code = match (seized, signal) {
        (true, signal) => event::STOP << 8 | u32::from(signal.unwrap_or(trap)),
        (false, Some(signal)) => signal.into(),
        (false, None) => {
            // There is no stop to wait for in [`settle`].
            if let Some(tracer) = tracer {
                tracer.child_events.wake_all(Events::ALL);
            }
            return;
        }
    };
    let info = Signal::new(code & 0xff).map_or(SigInfo::default(), |signal| match seized {
        true => SigInfo::new(signal, code as i32),
        false => SigInfo::kernel(signal),
    });
    stop(context, Kind::Other, code, info, 0);
}

/// Stops before or after a system call, if the tracer follows those.
pub fn on_syscall(context: &mut UserContext, kind: Kind) {
    let good = match &current().trace.lock().by {
        Some(trace) if trace.how == Resume::Syscall => trace.options & option::TRACESYSGOOD,
        _ => return,
    };
    let trap = Signal::TRAP;
    let code = u32::from(trap.number()) | good << 7;
    let info = SigInfo::new(trap, code as i32);
    // A signal that the tracer sends along is an ordinary one here.
    if let Some(signal) = stop(context, kind, code, info, 0).and_then(Signal::new) {
        let task = current_arc();
        signal::send_to_task(&task, signal, SigInfo::new(signal, signal::code::SI_USER));
    }
}

/// A task was made by a traced one: traces it as well if the tracer wants that. Returns the event to
/// stop for once the child runs.
pub(super) fn on_clone(child: &Arc<Task>, flags: u32, exit_signal: u32) -> Option<u32> {
    let event = if flags & CLONE_VFORK != 0 {
        event::VFORK
    } else if exit_signal == SIGCHLD {
        event::FORK
    } else {
        event::CLONE
    };
    let (tracer, options, seized) = {
        let slot = current().trace.lock();
        let trace = slot.by.as_ref()?;
        (trace.tracer.upgrade()?, trace.options, trace.seized)
    };
    let wanted = options & 1 << event != 0 && flags & CLONE_UNTRACED == 0;
    if (wanted || flags & CLONE_PTRACE != 0) && attach(child, &tracer, seized, options).is_ok() {
        if seized {
            if let Some(trace) = child.trace.lock().by.as_mut() {
                trace.interrupt = true;
            }
        } else {
            let stop = Signal::STOP;
            child.signal.lock().pending.push(stop, SigInfo::new(stop, 0), usize::MAX);
        }
        child.add_work(Work::SIGNAL);
    }
    wanted.then_some(event)
}

/// The current task runs another program.
pub(super) fn on_exec(context: &mut UserContext, former: i32) {
    let Some(seized) = current().trace.lock().by.as_ref().map(|trace| trace.seized) else { return };
    if !on_event(context, event::EXEC, former as usize) && !seized {
        let trap = Signal::TRAP;
        signal::send_to_task(&current_arc(), trap, SigInfo::new(trap, 0));
    }
}

/// Segment registers as user code has them.
const CS: usize = 0x33;
const SS: usize = 0x2b;

/// The registers of a context.
pub fn registers(c: &UserContext) -> Registers {
    [
        c.r15, c.r14, c.r13, c.r12, c.rbp, c.rbx, c.r11, c.r10, c.r9, c.r8, c.rax, c.rcx, c.rdx,
        c.rsi, c.rdi, c.orig_rax, c.rip, CS, c.rflags, c.rsp, SS, c.fs_base, c.gs_base, 0, 0, 0, 0,
    ]
}

fn copy_in(c: &mut UserContext, new: &Registers) {
    let before = registers(c);
    if before == *new {
        return;
    }
    let fields = [
        &mut c.r15,
        &mut c.r14,
        &mut c.r13,
        &mut c.r12,
        &mut c.rbp,
        &mut c.rbx,
        &mut c.r11,
        &mut c.r10,
        &mut c.r9,
        &mut c.r8,
        &mut c.rax,
        &mut c.rcx,
        &mut c.rdx,
        &mut c.rsi,
        &mut c.rdi,
        &mut c.orig_rax,
        &mut c.rip,
    ];
    for (field, value) in fields.into_iter().zip(new) {
        *field = *value;
    }
    debug_assert_eq!(new[RIP], c.rip);
    c.rsp = new[19];
    (c.fs_base, c.gs_base) = (new[21], new[22]);
    c.set_user_flags(new[FLAGS]);
}

/// Bytes of the legacy floating-point registers (`struct user_fpregs_struct`).
pub const LEGACY: usize = 512;
/// Where they leave room: what signal frames and register sets say of themselves.
pub const SPARE: core::ops::Range<usize> = 464..LEGACY;

/// Floating-point registers from a signal frame's area: the legacy ones, or all there are, in the
/// standard form of XSAVE with the features' bits in the spare bytes. `None` if they are not there.
pub fn float_registers(area: &[u8], all: bool) -> Option<Vec<u8>> {
    // A signal frame ends with a word that marks its end.
    let size = if all { area.len().saturating_sub(4) } else { LEGACY };
    if area.len() < LEGACY || size < LEGACY {
        return None;
    }
    let mut view = area[..size].to_vec();
    view[SPARE].fill(0);
    if all {
        let bits = SPARE.start + 8..SPARE.start + 16;
        view[SPARE.start..][..8].copy_from_slice(&area[bits]);
    }
    Some(view)
}

/// Whether registers from a tracer can be loaded: no address above user memory where the CPU would
/// fault on it in the kernel.
pub fn acceptable(registers: &Registers) -> bool {
    let limit = crate::arch::USER_END;
    registers[21] < limit && registers[22] < limit
}
