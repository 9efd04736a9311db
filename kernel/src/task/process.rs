//! Processes: what threads of one program share.

use super::login::Login;
use super::pid::PidRef;
use super::rlimit::{Rlimit, Rlimits};
use super::signal::{Actions, Pending, SigSet};
use super::thread::Comm;
use super::{Creds, Task, family::Links};
use crate::errno::Result;
use crate::fs::Path;
use crate::live::{Kind, Live};
use crate::sync::{IrqLock, Once, SpinLock, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// A thread group.
pub struct Process {
    _live: Live,
    pid: i32,
    pub(super) pid_ref: SpinLock<Option<PidRef>>,
    /// Parent and children. Written under the family lock.
    pub(super) links: SpinLock<Links>,
    pub(super) group: Membership,
    /// Signal state, and the list of threads.
    pub signal: IrqLock<GroupSignals>,
    /// Woken when a child changes state.
    pub child_events: Arc<WaitQueue>,
    /// Woken when it has ended (pidfd_open(2)).
    pub exit_events: Arc<WaitQueue>,
    /// Woken when a signal arrives (signalfd(2)).
    pub signal_events: Arc<WaitQueue>,
    rlimits: IrqLock<Rlimits>,
    /// The program file.
    exe: SpinLock<Option<Path>>,
    /// Where arguments and environment lie on the stack: start and end of each.
    pub(super) arg_area: [AtomicUsize; 4],
    /// Wait status once it has ended.
    pub(super) exit_status: AtomicI32,
    /// Signal that tells the parent of the end; 0 for none.
    pub(super) exit_signal: AtomicI32,
    /// Whether its parent traced it when it ended.
    pub(super) traced_to_the_end: AtomicBool,
    zombie: AtomicBool,
    /// Its parent isn't the one that made it.
    pub(super) adopted: AtomicBool,
    pub(super) reaped: AtomicBool,
    pub(super) remains: SpinLock<Option<Remains>>,
    /// Its core file, while that is written and then.
    pub(super) core: SpinLock<Option<Arc<super::coredump::Dump>>>,
    /// `/proc/PID/coredump_filter`
    pub core_filter: AtomicU32,
    /// CPU time of threads that ended, and of children that were waited for.
    pub(super) spent: SpinLock<Spent>,
    /// Monotonic start time in nanoseconds.
    pub start_ns: AtomicU64,
    /// `PR_SET_CHILD_SUBREAPER`.
    pub(super) subreaper: AtomicBool,
    /// `PR_SET_DUMPABLE`.
    pub(super) dumpable: AtomicU32,
    /// `personality(2)`.
    pub(super) personality: AtomicU32,
    /// The OOM killer's bias (`/proc/PID/oom_score_adj`).
    pub oom_score_adj: AtomicI32,
    /// The least bias that anybody may give it: what one with CAP_SYS_RESOURCE gave it last.
    pub oom_score_adj_min: AtomicI32,
    /// Who has logged in (`/proc/PID/loginuid`).
    pub login: Login,
    /// Has called execve(2) since fork (setpgid(2)).
    pub(super) did_exec: AtomicBool,
    /// Interval and POSIX timers.
    pub(super) timers: SpinLock<super::timers::ProcessTimers>,
    /// The controlling terminal, shared by the session.
    pub(super) terminal: SpinLock<Option<Arc<dyn super::session::Terminal>>>,
    /// membarrier(2) registrations.
    pub(super) membarrier: AtomicU32,
    /// Seconds of CPU time at the last SIGXCPU.
    pub(super) cpu_warned: AtomicU64,
    /// Tasks that it traces.
    pub(super) tracees: SpinLock<super::trace::Tracees>,
    /// Contexts of asynchronous I/O.
    pub aio: SpinLock<Vec<Arc<crate::event::aio::Context>>>,
}

/// What others may still see of a thread that has ended, for as long as its process was not waited
/// for.
#[derive(Clone)]
pub struct Remains {
    /// Its name.
    pub comm: Comm,
    /// Its identity.
    pub creds: Arc<Creds>,
    /// Its nice value.
    pub nice: i32,
}

impl Remains {
    /// Of a thread, ended or not.
    pub fn of(task: &Task) -> Remains {
        Remains { comm: task.comm(), creds: task.creds(), nice: task.sched.nice() }
    }
}

/// Process group and session.
pub(super) struct Membership {
    pub pgid: AtomicI32,
    pub sid: AtomicI32,
    pub refs: SpinLock<Option<(PidRef, PidRef)>>,
}

/// CPU time and faults, in nanoseconds and counts.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// User time.
    pub user_ns: u64,
    /// System time.
    pub system_ns: u64,
    /// Faults served without I/O.
    pub minor_faults: u64,
    /// Faults that read.
    pub major_faults: u64,
    /// Switches because the task waited.
    pub voluntary: u64,
    /// Switches because its time was up.
    pub involuntary: u64,
    /// Largest resident set, in KiB.
    pub max_rss: u64,
    /// Bytes that were read and written, and calls that did (`/proc/PID/io`).
    pub moved: [u64; 4],
}

impl Usage {
    /// So many bytes were resident at once.
    pub fn saw_resident(&mut self, bytes: usize) {
        self.max_rss = self.max_rss.max(bytes as u64 / 1024);
    }

    /// Adds another usage.
    pub fn add(&mut self, other: &Usage) {
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
        self.max_rss = self.max_rss.max(other.max_rss);
        for (sum, more) in self.moved.iter_mut().zip(other.moved) {
            *sum += more;
        }
    }
}

/// What ended threads and waited-for children used.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    /// Threads of this process that ended.
    pub threads: Usage,
    /// Children that were waited for, with their own.
    pub children: Usage,
}

/// Job control state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Runs.
    None,
    /// Told to stop by this signal; so many threads have.
    Stopping(u8, usize),
    /// All threads have stopped.
    Stopped(u8),
}

impl Stop {
    /// The signal that stops, or has stopped, the process.
    pub fn signal(self) -> Option<u8> {
        match self {
            Stop::None => None,
            Stop::Stopping(signal, _) | Stop::Stopped(signal) => Some(signal),
        }
    }
}

/// A state change that waitpid(2) has not reported yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Stopped by this signal.
    Stopped(u8),
    /// Continued by SIGCONT.
    Continued,
}

/// Signal state that the threads share.
pub struct GroupSignals {
    /// Signals for the process, taken by any thread.
    pub pending: Pending,
    /// Actions.
    pub actions: Arc<Actions>,
    /// Threads that have not ended, leader first while it lives.
    pub threads: Vec<Arc<Task>>,
    /// Wait status with which the whole process is ending.
    pub group_exit: Option<i32>,
    /// Thread that runs execve(2) and has told the others to end.
    pub exec_by: Option<i32>,
    /// Job control.
    pub stop: Stop,
    /// For waitpid(2).
    pub report: Option<Report>,
}

impl Process {
    /// A process without threads.
    pub(super) fn new(
        pid: Option<PidRef>,
        group: Option<(PidRef, PidRef)>,
        actions: Arc<Actions>,
        rlimits: Rlimits,
        exit_signal: i32,
    ) -> Arc<Process> {
        let process = Arc::new(Process {
            _live: Live::new(Kind::Processes),
            pid: pid.as_ref().map_or(0, PidRef::number),
            pid_ref: SpinLock::new(pid),
            links: SpinLock::default(),
            group: Membership {
                pgid: AtomicI32::new(group.as_ref().map_or(0, |(pgid, _)| pgid.number())),
                sid: AtomicI32::new(group.as_ref().map_or(0, |(_, sid)| sid.number())),
                refs: SpinLock::new(group),
            },
            signal: IrqLock::new(GroupSignals {
                pending: Pending::default(),
                actions,
                threads: Vec::new(),
                group_exit: None,
                exec_by: None,
                stop: Stop::None,
                report: None,
            }),
            child_events: Arc::default(),
            exit_events: Arc::default(),
            adopted: AtomicBool::new(false),
            signal_events: Arc::default(),
            rlimits: IrqLock::new(rlimits),
            exe: SpinLock::new(None),
            arg_area: [const { AtomicUsize::new(0) }; 4],
            exit_status: AtomicI32::new(0),
            exit_signal: AtomicI32::new(exit_signal),
            traced_to_the_end: AtomicBool::new(false),
            zombie: AtomicBool::new(false),
            reaped: AtomicBool::new(false),
            remains: SpinLock::new(None),
            core: SpinLock::new(None),
            core_filter: AtomicU32::new(super::coredump::DEFAULT_FILTER),
            spent: SpinLock::default(),
            start_ns: AtomicU64::new(crate::arch::clock::now_ns()),
            subreaper: AtomicBool::new(false),
            dumpable: AtomicU32::new(1),
            personality: AtomicU32::new(0),
            oom_score_adj: AtomicI32::new(0),
            oom_score_adj_min: AtomicI32::new(0),
            login: Login::default(),
            did_exec: AtomicBool::new(false),
            timers: SpinLock::default(),
            terminal: SpinLock::new(None),
            membarrier: AtomicU32::new(0),
            cpu_warned: AtomicU64::new(0),
            tracees: SpinLock::default(),
            aio: SpinLock::default(),
        });
        if let Some(pid) = &*process.pid_ref.lock() {
            pid.bind_process(&process);
        }
        process
    }

    /// The process that kernel threads belong to: number 0, no parent.
    pub fn kernel() -> &'static Arc<Process> {
        static KERNEL: Once<Arc<Process>> = Once::new();
        KERNEL.get_or_init(|| Process::new(None, None, Arc::default(), Rlimits::default(), 0))
    }

    /// Process number.
    pub fn pid(&self) -> i32 {
        self.pid
    }
    /// Process group.
    pub fn pgid(&self) -> i32 {
        self.group.pgid.load(Ordering::Relaxed)
    }
    /// Session.
    pub fn sid(&self) -> i32 {
        self.group.sid.load(Ordering::Relaxed)
    }
    /// Number of the parent; 0 for the main process.
    pub fn ppid(&self) -> i32 {
        self.parent().map_or(0, |parent| parent.pid)
    }
    /// The parent.
    pub fn parent(&self) -> Option<Arc<Process>> {
        self.links.lock().parent.upgrade()
    }
    /// Children, zombies included.
    pub fn children(&self) -> Vec<Arc<Process>> {
        self.links.lock().children.clone()
    }
    /// Threads that have not ended.
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.signal.lock().threads.clone()
    }
    /// The leader, or another thread once it has ended; `None` for a zombie.
    pub fn main_thread(&self) -> Option<Arc<Task>> {
        self.signal.lock().threads.first().cloned()
    }
    /// What is known of its leader, or of another thread, once that has ended.
    pub fn remains(&self) -> Option<Remains> {
        self.remains.lock().clone()
    }
    /// Whether its core file is being written, or was.
    pub fn dumps_core(&self) -> bool {
        self.core.lock().is_some()
    }
    /// Whether it has ended and waits to be reaped.
    pub fn is_zombie(&self) -> bool {
        self.zombie.load(Ordering::Acquire)
    }
    /// Wait status; meaningful once it has ended.
    pub fn exit_status(&self) -> i32 {
        self.exit_status.load(Ordering::Relaxed)
    }
    /// Whether it has ended and been waited for.
    pub fn is_reaped(&self) -> bool {
        self.is_zombie() && self.pid_ref.lock().is_none()
    }
    pub(super) fn set_zombie(&self) {
        self.zombie.store(true, Ordering::Release);
    }
    /// Its soft limit for one resource (`RLIMIT_*`); an unknown resource has none.
    pub fn rlimit(&self, resource: u32) -> u64 {
        self.rlimits.lock().get(resource).map_or(super::rlimit::INFINITY, |limit| limit.soft)
    }
    /// Both limits for one resource. EINVAL for an unknown one.
    pub fn rlimit_pair(&self, resource: u32) -> Result<Rlimit> {
        self.rlimits.lock().get(resource)
    }
    /// Sets limits; see [`Rlimits::set`].
    pub fn set_rlimit(&self, resource: u32, limit: Rlimit, privileged: bool) -> Result<()> {
        self.rlimits.lock().set(resource, limit, privileged)?;
        if let Some(space) = self.main_thread().and_then(|task| task.mm()) {
            space.take_limits(|resource| self.rlimit(resource));
        }
        Ok(())
    }
    pub(super) fn rlimits(&self) -> Rlimits {
        self.rlimits.lock().clone()
    }
    /// The program file, for /proc/PID/exe.
    pub fn exe(&self) -> Option<Path> {
        self.exe.lock().clone()
    }
    pub(super) fn set_exe(&self, exe: Option<Path>) {
        let old = core::mem::replace(&mut *self.exe.lock(), exe);
        drop(old);
    }
    /// Where the arguments lie in its memory: start and end.
    pub fn arg_range(&self) -> (usize, usize) {
        let [start, end, ..] = &self.arg_area;
        (start.load(Ordering::Relaxed), end.load(Ordering::Relaxed))
    }
    /// Where the environment lies in its memory: start and end.
    pub fn env_range(&self) -> (usize, usize) {
        let [.., start, end] = &self.arg_area;
        (start.load(Ordering::Relaxed), end.load(Ordering::Relaxed))
    }
    /// Real user ID of its main thread.
    pub fn uid(&self) -> u32 {
        match self.main_thread() {
            Some(thread) => thread.with_creds(|creds| creds.uid),
            None => self.remains().map_or(0, |remains| remains.creds.uid),
        }
    }
    /// `PR_SET_DUMPABLE`
    pub fn set_dumpable(&self, dumpable: u32) {
        self.dumpable.store(dumpable, Ordering::Relaxed);
    }
    /// `PR_GET_DUMPABLE`
    pub fn dumpable(&self) -> u32 {
        self.dumpable.load(Ordering::Relaxed)
    }
    /// `PR_SET_CHILD_SUBREAPER`
    pub fn set_subreaper(&self, subreaper: bool) {
        self.subreaper.store(subreaper, Ordering::Relaxed);
    }
    /// `PR_GET_CHILD_SUBREAPER`
    pub fn is_subreaper(&self) -> bool {
        self.subreaper.load(Ordering::Relaxed)
    }
    /// personality(2): the old value, replaced if there is a new one.
    pub fn set_personality(&self, new: Option<u32>) -> u32 {
        match new {
            Some(new) => self.personality.swap(new, Ordering::Relaxed),
            None => self.personality.load(Ordering::Relaxed),
        }
    }
    /// Adds a membarrier(2) registration.
    pub fn register_membarrier(&self, bit: u32) {
        self.membarrier.fetch_or(bit, Ordering::Relaxed);
    }
    /// membarrier(2) registrations.
    pub fn membarriers(&self) -> u32 {
        self.membarrier.load(Ordering::Relaxed)
    }
    /// execve(2) deletes POSIX timers and asynchronous I/O, and keeps interval timers.
    pub(super) fn exec_timers(&self) {
        let deleted = core::mem::take(&mut self.timers.lock().posix);
        drop(deleted);
        drop(core::mem::take(&mut *self.aio.lock()));
    }
    /// Whether it is the image's main process.
    pub fn is_init(&self) -> bool {
        self.pid == 1
    }
    /// Signals pending for the process, ignored ones and caught ones (/proc/PID/status).
    pub fn signal_summary(&self) -> (SigSet, SigSet, SigSet) {
        let signal = self.signal.lock();
        let (ignored, caught) = signal.actions.summary();
        (signal.pending.set(), ignored, caught)
    }
    /// CPU time and counts of all its threads, ended ones included.
    pub fn usage(&self) -> Usage {
        let mut sum = self.spent.lock().threads;
        for thread in self.threads() {
            sum.add(&thread.sched.usage());
        }
        sum
    }
    /// Largest resident set in KiB, as of when its last thread ended or it last ran another program.
    pub fn max_rss(&self) -> u64 {
        self.spent.lock().threads.max_rss
    }
    /// CPU time and counts of children that were waited for.
    pub fn children_usage(&self) -> Usage {
        self.spent.lock().children
    }
}
