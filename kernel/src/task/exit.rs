//! How threads and processes end (exit_group(2), _exit(2)).

use super::process::{Report, Stop};
use super::signal::{self, ActionFlags, SIG_IGN, SigInfo, Signal, code, send};
use super::thread::Work;
use super::{Process, Remains, Task, current, current_arc, family, sched};
use crate::event::Events;
use crate::sync::Once;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// What boot code wants to be told.
pub trait MainExit: Send + Sync {
    /// The image's main process has ended with this wait status. Called in its last thread, after
    /// its files are closed.
    fn main_exited(&self, status: i32);
}

static MAIN_EXIT: Once<&'static dyn MainExit> = Once::new();

/// Names what is called when the main process ends.
pub fn on_main_exit(hook: &'static dyn MainExit) {
    let _ = MAIN_EXIT.set(hook);
}

/// Ends the whole process of the current task with a wait status (`code << 8`, or a signal number).
pub fn exit_group(status: i32) -> ! {
    tell_tracer(status);
    let process = current().process();
    {
        let mut group = process.signal.lock();
        send::kill_group(&mut group, status);
    }
    exit_thread(status)
}

/// `PTRACE_O_TRACEEXIT`: a last look at the task, unless it is being killed.
fn tell_tracer(status: i32) {
    use super::trace;
    let task = current();
    if task.work().contains(Work::TRACE) && !task.work().contains(Work::DIE) {
        // SAFETY: this is the task itself, and it never goes back to where else the context is used.
        let context = unsafe { task.user_context() };
        trace::on_event(context, trace::event::EXIT, status as usize);
    }
}

/// Ends the current thread. `status` counts if it is the last one and nobody has said otherwise.
pub fn exit_thread(status: i32) -> ! {
    tell_tracer(status);
    super::coredump::join();
    let task = current_arc();
    let process = task.process().clone();
    task.exit_status.store(status, Ordering::Relaxed);
    release_resources(&task);
    let is_leader = task.tid() == process.pid();
    let remains = Remains::of(&task);
    let mut slot = process.remains.lock();
    let old = if is_leader || slot.is_none() { slot.replace(remains) } else { Some(remains) };
    drop(slot);
    drop(old);
    let number = task.pid_ref.lock().take();
    if let Some(number) = number.filter(|_| !is_leader) {
        number.unbind_task();
    }
    // While the process still counts this thread: once it counts none, another thread may end it and
    // the parent reap it, and a tracer that is the parent would hear of the end twice.
    let ended_with = process.signal.lock().group_exit.unwrap_or(status);
    super::trace::tracee_exits(&task, ended_with);
    process.spent.lock().threads.add(&task.sched.usage());
    let last = {
        let mut group = process.signal.lock();
        group.threads.retain(|other| !Arc::ptr_eq(other, &task));
        // Others may have waited for this one to stop, or to end.
        if let Stop::Stopping(signal, count) = group.stop
            && count >= group.threads.len()
            && !group.threads.is_empty()
        {
            group.stop = Stop::Stopped(signal);
        }
        let status = group.group_exit.unwrap_or(status);
        process.exit_status.store(status, Ordering::Relaxed);
        group.threads.is_empty()
    };
    if last {
        exit_process(&process);
    } else {
        // execve(2) waits for the other threads.
        process.child_events.wake_all(Events::ALL);
    }
    drop(process);
    drop(task);
    sched::exit_current()
}

/// Gives back everything a thread holds. The order matters: memory first, so that a parent in
/// vfork(2) goes on and joiners see the thread gone only when it no longer touches their memory.
fn release_resources(task: &Arc<Task>) {
    release_memory(task);
    drop(task.set_files(None));
    drop(task.set_fs(None));
}

/// Leaves the address space: at exit, and in execve(2) just before the new one is set.
pub(super) fn release_memory(task: &Arc<Task>) {
    super::futex::robust::release_all(task);
    task.rseq.store(0, Ordering::Relaxed);
    let mm = task.set_mm(None);
    if let Some(mm) = &mm {
        task.process().spent.lock().threads.saw_resident(mm.peak_resident());
    }
    sched::reload_mm();
    drop(mm);
    let waiting = task.vfork_done.lock().take();
    if let Some(parent) = waiting {
        parent.complete();
    }
}

fn exit_process(process: &Arc<Process>) {
    super::trace::tracer_exits(process);
    super::acct::process_exited(process, process.exit_status.load(Ordering::Relaxed));
    process.timers.lock().clear();
    crate::ipc::process_exited(process);
    drop(core::mem::take(&mut *process.aio.lock()));
    let leads = process.sid() == process.pid();
    let terminal = process.terminal.lock().take();
    if let Some(terminal) = terminal.filter(|_| leads) {
        terminal.disowned(true);
        super::session::release_terminal(process.sid());
    }
    process.set_exe(None);
    if process.is_init()
        && let Some(hook) = MAIN_EXIT.get()
    {
        hook.main_exited(process.exit_status.load(Ordering::Relaxed));
    }
    let adopted = {
        let family = family::lock();
        hang_up_orphans(&family, process);
        let adopted = family.orphan(process);
        if let Some((heir, children)) = &adopted {
            for child in children {
                child.adopted.store(true, Ordering::Relaxed);
                if child.is_zombie() {
                    signal_parent(&family, child, heir);
                }
            }
        }
        adopted
    };
    if let Some((heir, children)) = adopted {
        for child in children {
            death_of_parent(&child);
            if child.is_zombie() {
                wake_parent(&child, &heir);
            }
        }
    }
    // One step for whoever waits: see `signal_parent`.
    let parent = {
        let family = family::lock();
        process.set_zombie();
        let parent = process.parent();
        if let Some(parent) = &parent {
            signal_parent(&family, process, parent);
        }
        parent
    };
    match parent {
        Some(parent) => wake_parent(process, &parent),
        None => reap(process),
    }
    process.exit_events.wake_all(Events::IN);
}

/// Whether the main process takes no notice of a child that it did not make: it neither catches nor
/// blocks SIGCHLD, and none of its threads waits. Such a child would stay a zombie for ever.
fn is_unwanted(child: &Process, parent: &Process) -> bool {
    let chld = Signal::CHLD;
    child.adopted.load(Ordering::Relaxed)
        && parent.is_init()
        && parent.child_events.is_empty()
        && !parent.signal.lock().actions.get(chld).is_caught()
        && !parent.threads().iter().any(|thread| thread.signal_sets().1.has(chld))
}

/// `PR_SET_PDEATHSIG`.
fn death_of_parent(child: &Arc<Process>) {
    for thread in child.threads() {
        let number = thread.pdeath_signal.load(Ordering::Relaxed);
        if let Some(signal) = Signal::new(number) {
            signal::send_to_process(child, signal, SigInfo::new(signal, code::SI_USER));
        }
    }
}

/// A group that becomes orphaned by this exit and has stopped members gets SIGHUP and SIGCONT
/// (POSIX).
fn hang_up_orphans(family: &family::FamilyGuard, process: &Arc<Process>) {
    let mut groups: alloc::vec::Vec<i32> = process
        .children()
        .iter()
        .filter(|child| child.sid() == process.sid())
        .map(|c| c.pgid())
        .collect();
    groups.push(process.pgid());
    groups.dedup();
    for pgid in groups {
        let members = family.group(pgid);
        let stopped = members.iter().any(|member| {
            !Arc::ptr_eq(member, process) && matches!(member.signal.lock().stop, Stop::Stopped(_))
        });
        if stopped && family.is_orphaned(pgid, Some(process)) {
            for member in &members {
                signal::send_to_process(member, Signal::HUP, SigInfo::kernel(Signal::HUP));
                signal::send_to_process(member, Signal::CONT, SigInfo::kernel(Signal::CONT));
            }
        }
    }
}

/// SIGCHLD to the parent. The family is locked from before the child is a zombie until the signal is
/// there, and whoever reaps locks it: the parent cannot return from waitpid(2) first, go on, and be
/// interrupted in what it does next.
fn signal_parent(_family: &family::FamilyGuard, process: &Process, parent: &Arc<Process>) {
    let number = process.exit_signal.load(Ordering::Relaxed);
    if let Some(signal) = Signal::new(number as u32) {
        let info = SigInfo { signo: number, ..child_info(process) };
        signal::send_to_process(parent, signal, info);
    }
}

/// Wakes the parent's waitpid(2); reaps at once if the parent doesn't care.
fn wake_parent(process: &Arc<Process>, parent: &Arc<Process>) {
    let mut reap_now = is_unwanted(process, parent);
    if process.exit_signal.load(Ordering::Relaxed) == i32::from(Signal::CHLD.number()) {
        let action = parent.signal.lock().actions.get(Signal::CHLD);
        reap_now |= action.handler == SIG_IGN || action.flags.contains(ActionFlags::NOCLDWAIT);
    }
    if reap_now {
        reap(process);
    }
    parent.child_events.wake_all(Events::ALL);
}

/// What SIGCHLD and waitid(2) say about a process that ended.
pub(super) fn child_info(process: &Process) -> SigInfo {
    let status = process.exit_status.load(Ordering::Relaxed);
    let (cause, value) = match status & 0x7f {
        0 => (code::CLD_EXITED, status >> 8 & 0xff),
        signal if status & 0x80 != 0 => (code::CLD_DUMPED, signal),
        signal => (code::CLD_KILLED, signal),
    };
    let usage = process.usage();
    let ticks = |ns: u64| ns / 10_000_000;
    let uid = process.uid();
    SigInfo::child(cause, process.pid(), uid, value, ticks(usage.user_ns), ticks(usage.system_ns))
}

/// SIGCHLD about a stop or a continuation.
pub(super) fn notify_parent_of_job(process: &Arc<Process>, report: Report) {
    let Some(parent) = process.parent() else { return };
    let (cause, value) = match report {
        Report::Stopped(signal) => (code::CLD_STOPPED, i32::from(signal)),
        Report::Continued => (code::CLD_CONTINUED, i32::from(Signal::CONT.number())),
    };
    let action = parent.signal.lock().actions.get(Signal::CHLD);
    if !action.flags.contains(ActionFlags::NOCLDSTOP) {
        let info = SigInfo::child(cause, process.pid(), process.uid(), value, 0, 0);
        signal::send_to_process(&parent, Signal::CHLD, info);
    }
    parent.child_events.wake_all(Events::ALL);
}

/// Removes a zombie: its number becomes free.
pub(super) fn reap(process: &Arc<Process>) {
    family::lock().disown(process);
    let number = process.pid_ref.lock().take();
    if let Some(number) = number {
        number.unbind_task();
        number.unbind_process();
    }
    let group = process.group.refs.lock().take();
    drop(group);
}

/// Ends the other threads of the current process, for execve(2). EAGAIN if the process is ending or
/// another thread does the same.
pub(super) fn end_other_threads(task: &Arc<Task>) -> crate::Result<()> {
    let process = task.process();
    {
        let mut group = process.signal.lock();
        if group.group_exit.is_some() || group.exec_by.is_some() {
            return Err(crate::Errno::EAGAIN);
        }
        if group.threads.len() == 1 {
            return Ok(());
        }
        group.exec_by = Some(task.tid());
        for thread in group.threads.iter().filter(|thread| !Arc::ptr_eq(thread, task)) {
            send::doom(thread);
        }
    }
    let alone = || (process.signal.lock().threads.len() == 1).then_some(());
    let result = process.child_events.wait(crate::sync::WaitMode::Killable, None, alone);
    process.signal.lock().exec_by = None;
    result.map_err(|_| crate::Errno::EAGAIN)
}

/// Whether the current task has been told to end; then it does.
pub(super) fn die_if_doomed(task: &Task) {
    if task.work().contains(Work::DIE) {
        let status = task.process().signal.lock().group_exit.unwrap_or(0);
        exit_thread(status);
    }
}
