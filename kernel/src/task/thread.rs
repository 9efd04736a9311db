//! One thread of execution.

use super::own::OwnCell;
use super::pid::PidRef;
use super::sched::Entity;
use super::signal::{SigSet, TaskSignals};
use super::{Creds, Process};
use crate::arch::cpu;
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::fs::{FdTable, FsContext};
use crate::live::{Kind, Live};
use crate::mm::AddressSpace;
use crate::sync::{IrqLock, SpinLock, WaitMode, WaitQueue};
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

/// Longest thread name, terminator included (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

bitflags::bitflags! {
    /// Reasons to look around before going back to user mode.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Work: u32 {
        /// A signal may be deliverable.
        const SIGNAL = 1 << 0;
        /// The process is ending, or this thread must end for execve(2).
        const DIE = 1 << 1;
        /// The CPU or the running state changed: rseq area must be updated.
        const RSEQ = 1 << 2;
        /// The temporary signal mask must be taken back.
        const RESTORE_MASK = 1 << 3;
        /// Somebody traces it.
        const TRACE = 1 << 4;
        /// A seccomp filter is installed.
        const SECCOMP = 1 << 5;
        /// The process is told to stop.
        const STOP = 1 << 6;
        /// Job control stopped the process, or let it go on, and a tracer is to hear of that.
        const RETRAP = 1 << 7;
        /// What must be seen to before the program runs on, however late it came up.
        const URGENT = Self::SIGNAL.bits()
            | Self::DIE.bits()
            | Self::RSEQ.bits()
            | Self::RESTORE_MASK.bits()
            | Self::STOP.bits()
            | Self::RETRAP.bits();
    }
}

/// One thread of execution: of a process, or of the kernel.
pub struct Task {
    _live: Live,
    tid: AtomicI32,
    pub(super) pid_ref: SpinLock<Option<PidRef>>,
    process: Arc<Process>,
    comm: SpinLock<[u8; COMM_LEN]>,
    work: AtomicU32,
    pub(super) signal: IrqLock<TaskSignals>,
    mm: OwnCell<AddressSpace>,
    files: OwnCell<FdTable>,
    fs: OwnCell<FsContext>,
    creds: OwnCell<Creds>,
    /// The scheduler's part.
    pub sched: Entity,
    user: UnsafeCell<UserContext>,
    /// Where to store 0 and wake a futex at exit (set_tid_address(2)).
    pub(super) clear_child_tid: AtomicUsize,
    /// Head of the robust futex list (set_robust_list(2)).
    pub(super) robust_list: AtomicUsize,
    /// rseq(2) area, signature; 0 if not registered.
    pub(super) rseq: AtomicUsize,
    pub(super) rseq_signature: AtomicU32,
    /// Signal on the parent's death (prctl(2) `PR_SET_PDEATHSIG`).
    pub(super) pdeath_signal: AtomicU32,
    /// Timer slack in nanoseconds.
    pub(super) timer_slack: AtomicUsize,
    /// What it was when the task was made.
    pub(super) usual_slack: AtomicUsize,
    /// Memory policy (set_mempolicy(2)): mode and flags, and above them the node mask.
    pub(super) memory_policy: AtomicU32,
    /// Seccomp filters, newest first.
    pub(super) seccomp: SpinLock<Option<Arc<super::seccomp::Filter>>>,
    /// Who traces it, and what it has stopped for.
    pub(super) trace: SpinLock<super::trace::Traced>,
    /// Last CPU exception in user mode: vector, error code, address.
    fault: [AtomicUsize; 3],
    /// What vfork(2)'s parent waits for.
    pub(super) vfork_done: SpinLock<Option<Arc<Completion>>>,
    /// How an interrupted sleep goes on (restart_syscall(2)).
    pub(super) restart: SpinLock<Option<super::signal::Restart>>,
    /// Class and level of ioprio_set(2).
    pub io_priority: AtomicU32,
    /// Exit status of a thread that ended (wait status word).
    pub(super) exit_status: AtomicI32,
}

// SAFETY: `user` is touched only by the task itself and by whoever builds it before it runs (or by
// the scheduler while it switches the task out, on the task's own CPU); everything else is locked
// or atomic.
unsafe impl Sync for Task {}
// SAFETY: as above.
unsafe impl Send for Task {}

/// What a task is made of; `None` parts are for kernel threads.
pub struct Parts {
    /// Its number; `None` for kernel threads without one.
    pub pid: Option<PidRef>,
    /// The process it belongs to.
    pub process: Arc<Process>,
    /// Name.
    pub comm: [u8; COMM_LEN],
    /// Memory.
    pub mm: Option<Arc<AddressSpace>>,
    /// Descriptors.
    pub files: Option<Arc<FdTable>>,
    /// Root, working directory, umask.
    pub fs: Option<Arc<FsContext>>,
    /// Identity.
    pub creds: Arc<Creds>,
    /// Registers.
    pub user: UserContext,
    /// Scheduling state.
    pub sched: Entity,
    /// Signal mask and alternate stack.
    pub signal: TaskSignals,
}

impl Task {
    /// Puts a task together. It does not run until the scheduler is told to wake it.
    pub fn new(parts: Parts) -> Arc<Task> {
        let task = Arc::new(Task {
            _live: Live::new(Kind::Tasks),
            tid: AtomicI32::new(parts.pid.as_ref().map_or(0, PidRef::number)),
            pid_ref: SpinLock::new(parts.pid),
            process: parts.process,
            comm: SpinLock::new(parts.comm),
            work: AtomicU32::new(0),
            signal: IrqLock::new(parts.signal),
            mm: OwnCell::new(parts.mm),
            files: OwnCell::new(parts.files),
            fs: OwnCell::new(parts.fs),
            creds: OwnCell::new(Some(parts.creds)),
            sched: parts.sched,
            user: UnsafeCell::new(parts.user),
            clear_child_tid: AtomicUsize::new(0),
            robust_list: AtomicUsize::new(0),
            rseq: AtomicUsize::new(0),
            rseq_signature: AtomicU32::new(0),
            pdeath_signal: AtomicU32::new(0),
            timer_slack: AtomicUsize::new(50_000),
            usual_slack: AtomicUsize::new(50_000),
            memory_policy: AtomicU32::new(0),
            seccomp: SpinLock::new(None),
            trace: SpinLock::default(),
            fault: [const { AtomicUsize::new(0) }; 3],
            vfork_done: SpinLock::new(None),
            restart: SpinLock::new(None),
            io_priority: AtomicU32::new(0),
            exit_status: AtomicI32::new(0),
        });
        if let Some(pid) = &*task.pid_ref.lock() {
            pid.bind_task(&task);
        }
        task
    }

    /// Thread number.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }
    /// Takes over another number (the leader's, in a multithreaded execve(2)); returns the old one.
    pub(super) fn take_pid(self: &Arc<Self>, pid: PidRef) -> Option<PidRef> {
        self.tid.store(pid.number(), Ordering::Relaxed);
        pid.bind_task(self);
        self.pid_ref.lock().replace(pid)
    }
    /// The process this thread belongs to.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }
    /// Number of the process.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }
    /// Name of the thread, up to 15 bytes.
    pub fn comm(&self) -> Comm {
        Comm(*self.comm.lock())
    }
    /// Renames the thread; longer names are cut.
    pub fn set_comm(&self, name: &[u8]) {
        *self.comm.lock() = Comm::new(name).0;
    }
    /// Its memory; `None` for kernel threads and tasks that are past using it.
    pub fn mm(&self) -> Option<Arc<AddressSpace>> {
        self.mm.get(self)
    }
    /// Runs `f` on the memory without counting a reference; fast for the current task.
    pub fn with_mm<R>(&self, f: impl FnOnce(&AddressSpace) -> R) -> Option<R> {
        self.mm.with(self, f)
    }
    /// Replaces the memory. Own task only.
    pub(super) fn set_mm(&self, mm: Option<Arc<AddressSpace>>) -> Option<Arc<AddressSpace>> {
        self.mm.replace(mm)
    }
    /// Its descriptors. Panics in a kernel thread, which has none.
    pub fn files(&self) -> Arc<FdTable> {
        self.try_files().expect("kernel threads open no files")
    }
    /// Its descriptors; `None` for kernel threads and tasks that have ended.
    pub fn try_files(&self) -> Option<Arc<FdTable>> {
        self.files.get(self)
    }
    /// Runs `f` on the descriptors without counting a reference. EBADF if there are none any more.
    pub fn with_files<R>(&self, f: impl FnOnce(&FdTable) -> Result<R>) -> Result<R> {
        self.files.with(self, f).unwrap_or(Err(Errno::EBADF))
    }
    /// Replaces the descriptors. Own task only.
    pub fn set_files(&self, files: Option<Arc<FdTable>>) -> Option<Arc<FdTable>> {
        self.files.replace(files)
    }
    /// Root, working directory and umask. Panics in a kernel thread, which has none.
    pub fn fs(&self) -> Arc<FsContext> {
        self.try_fs().expect("kernel threads have no working directory")
    }
    /// Root, working directory and umask; `None` for kernel threads and tasks that have ended.
    pub fn try_fs(&self) -> Option<Arc<FsContext>> {
        self.fs.get(self)
    }
    /// Replaces root, working directory and umask. Own task only.
    pub fn set_fs(&self, fs: Option<Arc<FsContext>>) -> Option<Arc<FsContext>> {
        self.fs.replace(fs)
    }
    /// Its identity.
    pub fn creds(&self) -> Arc<Creds> {
        // `creds` is made `Some` at construction and only ever replaced by another `Some`.
        self.creds.get(self).unwrap_or_else(|| Arc::new(Creds::root()))
    }
    /// Runs `f` on the identity without counting a reference.
    pub fn with_creds<R>(&self, f: impl FnOnce(&Creds) -> R) -> R {
        match self.creds.get(self) {
            Some(creds) => f(&creds),
            None => f(&Creds::root()),
        }
    }
    /// Replaces the identity. Own task only.
    pub fn set_creds(&self, creds: Creds) {
        drop(self.creds.replace(Some(Arc::new(creds))));
    }
    /// Whether its effective capabilities include `number` (see [`super::creds::cap`]).
    pub fn capable(&self, number: u32) -> bool {
        self.creds.with(self, |creds| creds.capable(number)).unwrap_or(false)
    }
    /// Whether it is a thread of the kernel.
    pub fn is_kernel(&self) -> bool {
        self.process.pid() == 0
    }
    /// The saved user registers of the current task.
    ///
    /// # Safety
    /// Only the task itself calls this (or the builder of a task that doesn't run yet), and holds
    /// one such reference at a time.
    #[allow(clippy::mut_from_ref, reason = "exclusive by the function's contract")]
    pub unsafe fn user_context(&self) -> &mut UserContext {
        // SAFETY: the caller promises exclusive use.
        unsafe { &mut *self.user.get() }
    }

    /// The task leaves its CPU: registers that only the CPU holds are saved.
    pub(super) fn leave_cpu(&self) {
        // SAFETY: the scheduler calls this for the running task on its own CPU, outside of
        // `user_context`'s users.
        unsafe { &mut *self.user.get() }.switch_out();
    }

    /// Whether seccomp filters must be asked about each call.
    #[inline]
    pub fn filters_calls(&self) -> bool {
        self.work().contains(Work::SECCOMP)
    }
    /// Where to store 0 and wake a futex at exit.
    pub fn set_clear_child_tid(&self, addr: usize) {
        self.clear_child_tid.store(addr, Ordering::Relaxed);
    }
    /// `PR_SET_PDEATHSIG`
    pub fn set_pdeath_signal(&self, number: u32) {
        self.pdeath_signal.store(number, Ordering::Relaxed);
    }
    /// `PR_GET_PDEATHSIG`
    pub fn pdeath_signal(&self) -> u32 {
        self.pdeath_signal.load(Ordering::Relaxed)
    }
    /// `PR_SET_TIMERSLACK`; 0 is the default: its parent's, when it was made.
    pub fn set_timer_slack(&self, ns: usize) {
        let usual = self.usual_slack.load(Ordering::Relaxed);
        self.timer_slack.store(if ns == 0 { usual } else { ns }, Ordering::Relaxed);
    }
    /// Memory policy, 0 by default.
    pub fn memory_policy(&self) -> u32 {
        self.memory_policy.load(Ordering::Relaxed)
    }
    /// set_mempolicy(2)
    pub fn set_memory_policy(&self, policy: u32) {
        self.memory_policy.store(policy, Ordering::Relaxed);
    }
    /// `PR_GET_TIMERSLACK`
    pub fn timer_slack(&self) -> usize {
        self.timer_slack.load(Ordering::Relaxed)
    }
    /// Alternate signal stack.
    pub fn altstack(&self) -> super::signal::AltStack {
        self.signal.lock().altstack
    }
    /// Replaces the alternate signal stack.
    pub fn set_altstack(&self, stack: super::signal::AltStack) {
        self.signal.lock().altstack = stack;
    }
    /// Signals that sigtimedwait(2) waits for.
    pub fn set_awaited(&self, set: super::signal::SigSet) {
        self.signal.lock().awaited = set;
    }
    /// Replaces the blocked signals of a task that is stopped.
    pub fn replace_mask(&self, mask: super::signal::SigSet) {
        self.signal.lock().mask = mask.blockable();
        self.add_work(Work::SIGNAL);
    }
    /// Forgets pending signals of this thread.
    pub fn discard_pending(&self, which: super::signal::SigSet) {
        self.signal.lock().pending.discard(which);
    }

    pub(super) fn set_last_fault(&self, fault: [usize; 3]) {
        for (slot, value) in self.fault.iter().zip(fault) {
            slot.store(value, Ordering::Relaxed);
        }
    }
    /// Last CPU exception in user mode: vector, error code, address.
    pub fn last_fault(&self) -> [usize; 3] {
        [0, 1, 2].map(|at: usize| self.fault[at].load(Ordering::Relaxed))
    }

    /// Adds reasons to look around before user mode. Does not interrupt a running task; see
    /// `sched::kick`.
    pub fn add_work(&self, work: Work) {
        self.work.fetch_or(work.bits(), Ordering::SeqCst);
    }
    /// Removes reasons.
    pub fn remove_work(&self, work: Work) {
        self.work.fetch_and(!work.bits(), Ordering::SeqCst);
    }
    /// Reasons to look around before user mode.
    pub fn work(&self) -> Work {
        Work::from_bits_retain(self.work.load(Ordering::Relaxed))
    }

    /// Signals pending for this thread alone, and those it blocks (/proc/PID/status).
    pub fn signal_sets(&self) -> (SigSet, SigSet) {
        let signal = self.signal.lock();
        (signal.pending.set(), signal.mask)
    }

    /// Announces that the task is about to sleep; a wake-up from here on makes `sched::block`
    /// return at once.
    pub fn prepare_to_sleep(&self, mode: WaitMode) {
        self.sched.prepare_to_sleep(mode);
    }
    /// Back to running, whether or not it slept.
    pub fn finish_sleep(&self) {
        self.sched.finish_sleep();
    }
    /// Whether a pending signal forbids sleeping in `mode`.
    pub fn wait_disturbed(&self, mode: WaitMode) -> bool {
        let work = self.work();
        match mode {
            WaitMode::Interruptible => work.intersects(Work::SIGNAL | Work::DIE | Work::STOP),
            WaitMode::Killable => work.intersects(Work::DIE),
            WaitMode::Uninterruptible => false,
        }
    }
}

/// A thread's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Comm(pub [u8; COMM_LEN]);

impl Comm {
    /// A name cut to what fits.
    pub fn new(name: &[u8]) -> Comm {
        let mut comm = [0; COMM_LEN];
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len()).min(COMM_LEN - 1);
        comm[..end].copy_from_slice(&name[..end]);
        Comm(comm)
    }
    /// The name without terminator.
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(COMM_LEN);
        &self.0[..end]
    }
}

impl core::fmt::Display for Comm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.bytes().escape_ascii().fmt(f)
    }
}

/// Something that happens once and that others wait for.
#[derive(Default)]
pub struct Completion {
    done: AtomicU32,
    queue: WaitQueue,
}

impl Completion {
    /// It has happened.
    pub fn complete(&self) {
        self.done.store(1, Ordering::Release);
        self.queue.wake_all(crate::event::Events::ALL);
    }
    /// Waits until it happens, or until a fatal signal.
    pub fn wait_killable(&self) -> bool {
        let done = || (self.done.load(Ordering::Acquire) != 0).then_some(());
        self.queue.wait(WaitMode::Killable, None, done).is_ok()
    }
}

/// The task this CPU runs.
///
/// The reference is good for as long as the calling task runs; don't store it.
pub fn current() -> &'static Task {
    // SAFETY: the scheduler keeps the running task alive, and the caller runs on it.
    unsafe { cpu::current_task().as_ref() }.expect("no task runs yet")
}

/// The task this CPU runs, as a counted reference.
pub fn current_arc() -> Arc<Task> {
    let task: *const Task = current();
    // SAFETY: tasks live in `Arc`s only, and the running one has at least the scheduler's
    // reference.
    unsafe {
        Arc::increment_strong_count(task);
        Arc::from_raw(task)
    }
}
