//! What the filesystems ask of the rest of the kernel, in one place.

use super::perm::cap;
use super::pipe::Holder;
use crate::arch::PAGE_SIZE;
use crate::errno::Result;
use crate::sync::WaitMode;
use crate::task::signal::{SigInfo, Signal, code, send_to_task};
use crate::task::{self, Process, Task, current, current_arc, sched};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::{RLIMIT_FSIZE, RLIMIT_NOFILE};

/// The current task wrote to a pipe that nobody reads: SIGPIPE.
pub fn broken_pipe() {
    signal_current(Signal::PIPE);
}

/// Whom the current task's pipes are charged to.
pub fn pipe_holder() -> Holder {
    // Tests run without tasks.
    if crate::arch::cpu::current_task().is_null() {
        return Holder { uid: 0, resource: true, exempt: true };
    }
    current().with_creds(|creds| {
        let resource = creds.capable(cap::SYS_RESOURCE);
        let exempt = resource || creds.capable(cap::SYS_ADMIN);
        Holder { uid: creds.uid, resource, exempt }
    })
}

/// The current task hit `RLIMIT_FSIZE`: SIGXFSZ.
pub fn file_too_large() {
    signal_current(Signal::XFSZ);
}

fn signal_current(signal: Signal) {
    // Tests run without tasks.
    if !crate::arch::cpu::current_task().is_null() {
        // It is said to come from the task itself.
        let uid = current().with_creds(|creds| creds.uid);
        let info = SigInfo::sent_by(signal, code::SI_USER, current().pid(), uid);
        send_to_task(&current_arc(), signal, info);
    }
}

/// `RLIMIT_NOFILE` of the current process.
pub fn descriptor_limit() -> u64 {
    current().process().rlimit(RLIMIT_NOFILE)
}

/// `RLIMIT_FSIZE` of the current process, in bytes.
pub fn file_size_limit() -> u64 {
    current().process().rlimit(RLIMIT_FSIZE)
}

/// Number of the current process.
pub fn pid() -> i32 {
    current().pid()
}

/// Gives the current task a descriptor table of its own (`CLOSE_RANGE_UNSHARE`).
pub fn unshare_files() -> Result<()> {
    let task = current();
    let files = task.files();
    // References: the task's and ours.
    if Arc::strong_count(&files) > 2 {
        drop(task.set_files(Some(Arc::new(files.fork()?))));
    }
    Ok(())
}

/// Bytes of memory that the kernel manages.
pub fn total_memory() -> u64 {
    memory().0
}

/// Bytes of memory: all, and free or easily freed.
pub fn memory() -> (u64, u64) {
    let page = PAGE_SIZE as u64;
    let stat = memory_stat();
    let clean = stat.cached.saturating_sub(stat.shared);
    (stat.total * page, (stat.free + clean) * page)
}

/// Frames by use.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStat {
    /// All.
    pub total: u64,
    /// Unused.
    pub free: u64,
    /// In page caches.
    pub cached: u64,
    /// Those of tmpfs and shared memory.
    pub shared: u64,
    /// Private memory of processes.
    pub anon: u64,
    /// The kernel's heap.
    pub slab: u64,
}

/// Frames by use, now.
pub fn memory_stat() -> MemoryStat {
    let info = crate::mm::meminfo();
    let frames = |bytes: usize| (bytes / PAGE_SIZE) as u64;
    let rest = info.total.saturating_sub(info.free + info.cached + info.slab);
    MemoryStat {
        total: frames(info.total),
        free: frames(info.free),
        cached: frames(info.cached),
        shared: frames(info.shmem),
        // Page tables and kernel stacks are a small part of what is left.
        anon: frames(rest),
        slab: frames(info.slab),
    }
}

/// Thousands of cycles per second of the clock counter.
pub fn cpu_khz() -> u64 {
    // Measured once against the monotonic clock since boot.
    static KHZ: crate::sync::Once<u64> = crate::sync::Once::new();
    *KHZ.get_or_init(|| {
        let ms = (crate::time::now_ns() / 1_000_000).max(1);
        crate::arch::clock::cycles() / ms
    })
}

/// Whether the current task should leave a long loop: a signal is pending.
pub fn interrupted() -> bool {
    !crate::arch::cpu::current_task().is_null() && current().wait_disturbed(WaitMode::Interruptible)
}

/// Numbers of all processes, in order.
pub fn pids() -> Vec<i32> {
    task::pid::processes().iter().map(|process| process.pid()).filter(|&pid| pid > 0).collect()
}

/// Whether a file is the program of a process.
pub fn is_running(inode: &Arc<dyn super::Inode>) -> bool {
    let wanted = super::inode::identity(inode);
    task::pid::processes().iter().any(|process| {
        let exe = process.exe();
        let exe = exe.as_ref().and_then(|path| path.inode().ok());
        exe.is_some_and(|inode| super::inode::identity(inode) == wanted)
    })
}

/// Whether any process has an open file of which this holds. It is asked with a descriptor table locked.
pub fn any_open(wanted: &dyn Fn(&Arc<super::File>) -> bool) -> bool {
    let threads = task::pid::processes().into_iter().flat_map(|process| process.threads());
    threads.filter_map(|task| task.try_files()).any(|files| files.any(wanted))
}

/// Calls `f` for what each thread sees of the namespace.
pub fn each_context(f: &dyn Fn(&super::FsContext)) {
    for process in task::pid::processes() {
        for context in process.threads().iter().filter_map(|task| task.try_fs()) {
            f(&context);
        }
    }
}

/// Number of threads.
pub fn thread_count() -> usize {
    task::pid::processes().iter().map(|process| process.threads().len()).sum()
}

/// Number of threads that run or could.
pub fn running_count() -> usize {
    sched::runnable().max(1)
}

/// The number given out last.
pub fn last_pid() -> i32 {
    task::pid::last()
}

/// Switches between tasks since boot.
pub fn context_switches() -> u64 {
    sched::switches()
}

/// User and system time since boot, in nanoseconds.
pub fn cpu_times() -> (u64, u64) {
    let mut sum = (0, 0);
    for process in task::pid::processes() {
        // What children used that were waited for is in the books of their parents.
        for usage in [process.usage(), process.children_usage()] {
            sum = (sum.0 + usage.user_ns, sum.1 + usage.system_ns);
        }
    }
    sum
}

/// Load averages over 1, 5 and 15 minutes, in hundredths.
pub fn load_average() -> [u64; 3] {
    sched::load().map(|load| load * 100 / 2048)
}

/// State letter of a thread, or of a process without one.
pub fn state(process: &Process, task: Option<&Task>) -> char {
    match task {
        _ if process.is_zombie() => 'Z',
        Some(task) => char::from(task.sched.state_letter()),
        None => 'Z',
    }
}

/// Whether writing to a file leaves its set-user-ID and set-group-ID bits (`CAP_FSETID`).
pub fn keeps_set_ids() -> bool {
    // Tests run without tasks.
    !crate::arch::cpu::current_task().is_null() && current().capable(super::perm::cap::FSETID)
}
