//! Core files (core(5)): the memory and registers of a process that a signal ends, for a debugger.
//!
//! The thread that takes the signal writes the file. The others are told to end, leave their
//! registers on their way out, and wait until it is written. SIGKILL ends the writing.

mod image;
pub mod pattern;

use super::exec::area::{arguments, auxiliary_vector};
use super::process::Stop;
use super::signal::{SigInfo, Signal, send};
use super::thread::Work;
use super::trace::{self, Registers};
use super::{Process, Task, current};
use crate::arch::PAGE_SIZE;
use crate::arch::user::UserContext;
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::fs::walk::{Resolve, Resolver};
use crate::fs::{File, mount, ops, walk};
use crate::io::IoSrc;
use crate::log::Limit;
use crate::mm::{AddressSpace, MapInfo, Prot, VmFlags};
use crate::sync::{SpinLock, WaitQueue};
use crate::time::realtime_ns;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use image::{Facts, MappedFile, Segment, Thread};
use linux_raw_sys::general::{O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR, RLIMIT_CORE};

/// `WCOREFLAG` of a wait status.
pub const DUMPED: i32 = 0x80;
/// The kinds of memory that are written unless `/proc/PID/coredump_filter` says otherwise.
pub const DEFAULT_FILTER: u32 = 0x33;
/// Bits that a filter may have; those beyond [`ELF_HEADERS`] are for memory that there is none of.
pub const KNOWN_FILTER: u32 = 0x1ff;

// Bits of the filter.
const ANON_PRIVATE: u32 = 1 << 0;
const ANON_SHARED: u32 = 1 << 1;
const MAPPED_PRIVATE: u32 = 1 << 2;
const MAPPED_SHARED: u32 = 1 << 3;
const ELF_HEADERS: u32 = 1 << 4;

/// A dump under way.
#[derive(Default)]
pub struct Dump {
    /// Those that have arrived.
    threads: SpinLock<Vec<Thread>>,
    writer: i32,
    over: AtomicBool,
    queue: WaitQueue,
}

/// Writes the core file of the current process, which `signal` ends, and returns its wait status.
/// Nothing but the process's end may follow.
pub(super) fn dump(context: &mut UserContext, signal: Signal, info: &SigInfo) -> i32 {
    let task = current();
    let process = task.process();
    let status = i32::from(signal.number());
    let pattern = pattern::get();
    if process.rlimit(RLIMIT_CORE) == 0 || pattern.is_empty() || process.dumpable() != 1 {
        return status;
    }
    let dump = Arc::new(Dump { writer: task.tid(), ..Dump::default() });
    let mut slot = process.core.lock();
    if slot.is_some() {
        return status;
    }
    *slot = Some(dump.clone());
    drop(slot);
    let mut written = None;
    if claim(process, task, status) {
        gather(process, &dump);
        let result = write(context, process, &dump, (signal, info), &pattern, &mut written);
        say(process, written.as_deref(), result);
    }
    // As on Linux, one that was cut off counts as well.
    let status = if written.is_some() { status | DUMPED } else { status };
    if written.is_some() {
        process.signal.lock().group_exit = Some(status);
    }
    dump.over.store(true, Relaxed);
    dump.queue.wake_all(Events::ALL);
    status
}

/// Tells on the console what became of it: the file's name, and its length or what was wrong.
fn say(process: &Process, name: Option<&[u8]>, result: Result<u64>) {
    static LIMIT: Limit = Limit::new();
    if !LIMIT.allows("core files") {
        return;
    }
    let (comm, pid) = (current().comm(), process.pid());
    let name = name.map(<[u8]>::escape_ascii);
    match (name, result) {
        (Some(name), Ok(len)) => crate::error!("{comm}[{pid}]: core file {name}, {len} bytes"),
        (Some(name), Err(Errno::EFBIG)) => {
            crate::error!("{comm}[{pid}]: core file {name}, cut off at its limit");
        }
        (Some(name), Err(error)) => {
            crate::error!("{comm}[{pid}]: core file {name}, cut off by error {}", error.0);
        }
        (None, Err(error)) => crate::error!("{comm}[{pid}]: no core file: error {}", error.0),
        (None, Ok(_)) => {}
    }
}

/// Makes `task` the one that ends the process: the others are told to end. Returns whether it is.
fn claim(process: &Process, task: &Task, status: i32) -> bool {
    let mut group = process.signal.lock();
    if group.group_exit.is_some() {
        return false;
    }
    group.group_exit = Some(status);
    group.stop = Stop::None;
    for thread in group.threads.iter().filter(|thread| thread.tid() != task.tid()) {
        send::doom(thread);
    }
    true
}

/// Waits until every other thread has left its registers, or is past the place where it would.
fn gather(process: &Process, dump: &Dump) {
    process.child_events.wait_uninterruptible(|| {
        let threads = process.signal.lock().threads.len();
        (threads <= dump.threads.lock().len() + 1).then_some(())
    });
}

/// A thread ends: if the process's core file is written, it leaves its registers for that and waits.
pub(super) fn join() {
    let task = current();
    let process = task.process();
    let Some(dump) = process.core.lock().clone() else { return };
    if dump.writer == task.tid() {
        return;
    }
    // SAFETY: this is the task itself, and it never goes back to where else the context is used.
    let thread = of(task, unsafe { task.user_context() });
    dump.threads.lock().push(thread);
    process.child_events.wake_all(Events::ALL);
    dump.queue.wait_uninterruptible(|| dump.over.load(Relaxed).then_some(()));
}

fn of(task: &Task, context: &mut UserContext) -> Thread {
    let registers: Registers = trace::registers(context);
    let area = context.signal_fpu();
    let float = [false, true].map(|all| trace::float_registers(area, all).unwrap_or_default());
    let (pending, blocked) = task.signal_sets();
    let usage = task.sched.usage();
    let times = [usage.user_ns, usage.system_ns];
    Thread { tid: task.tid(), registers, float, signals: [pending.0, blocked.0], times }
}

/// Writes the file and returns its length. Once there is one, `written` is its name.
fn write(
    context: &mut UserContext,
    process: &Arc<Process>,
    dump: &Dump,
    (signal, info): (Signal, &SigInfo),
    pattern: &[u8],
    written: &mut Option<Vec<u8>>,
) -> Result<u64> {
    let task = current();
    let limit = process.rlimit(RLIMIT_CORE);
    let space = task.mm().ok_or(Errno::ESRCH)?;
    let maps = space.vmas();
    let mut threads = Vec::from([of(task, context)]);
    threads.append(&mut *dump.threads.lock());
    let facts = facts(process, &space, &maps, (signal, info));
    let names = pattern::Names {
        pid: process.pid(),
        tid: task.tid(),
        ids: facts.ids,
        signal: facts.signal,
        time: realtime_ns() / 1_000_000_000,
        limit,
        comm: facts.comm.clone(),
        program: process.exe().map(|path| name_of(&path)).unwrap_or_default(),
        host: crate::uts::HOST.get(),
    };
    let name = pattern::expand(pattern, &names, pattern::USES_PID.load(Relaxed) != 0);
    let file = create(&name)?;
    *written = Some(name);
    let filter = process.core_filter.load(Relaxed);
    let segments: Vec<Segment> = maps.iter().map(|map| segment(&space, map, filter)).collect();
    let mut out = Output { file: &file, at: 0, end: 0, room: limit };
    out.bytes(&image::head(&facts, &threads, &segments)?)?;
    let mut page = [0; PAGE_SIZE];
    for segment in &segments {
        let (mut at, end) = (segment.start, segment.start + segment.kept);
        while at < end {
            if task.work().contains(Work::DIE) {
                return Err(Errno::EINTR);
            }
            let next = if segment.file { at } else { space.next_resident(at, end) };
            if next > at {
                out.at += (next - at) as u64;
                at = next;
                continue;
            }
            match space.resident_page(at, &mut page)? {
                true => out.bytes(&page)?,
                false => out.at += PAGE_SIZE as u64,
            }
            at += PAGE_SIZE;
        }
    }
    out.finish()?;
    Ok(out.at)
}

fn facts(
    process: &Arc<Process>,
    space: &AddressSpace,
    maps: &[MapInfo],
    (signal, info): (Signal, &SigInfo),
) -> Facts {
    let (task, creds) = (current(), current().creds());
    let children = process.children_usage();
    let files = maps.iter().filter_map(|map| {
        let path = map.file.as_ref()?.path.as_ref()?;
        let page = map.offset / PAGE_SIZE as u64;
        Some(MappedFile { start: map.start, end: map.end, page, name: name_of(path) })
    });
    Facts {
        signal: signal.number(),
        info: info.to_user(),
        family: [process.ppid(), process.pgid(), process.sid()],
        pid: process.pid(),
        ids: [creds.uid, creds.gid],
        nice: task.sched.nice(),
        comm: task.comm().bytes().to_vec(),
        args: arguments(process, space),
        children: [children.user_ns, children.system_ns],
        auxv: auxiliary_vector(process, space),
        files: files.collect(),
    }
}

fn name_of(path: &crate::fs::Path) -> Vec<u8> {
    mount::root().map(|root| walk::name_of(path, root)).unwrap_or_default()
}

/// Makes the file, in place of what had its name (core(5)).
fn create(name: &[u8]) -> Result<Arc<File>> {
    let (creds, context) = (current().creds(), current().fs());
    let root = context.root();
    let start = if name.first() == Some(&b'/') { root.clone() } else { context.cwd() };
    let resolver = Resolver { root, start, who: &*creds, resolve: Resolve::empty() };
    // What can't be removed is in the way, of which the next step speaks.
    let _ = ops::unlink(&resolver, name);
    ops::open(&resolver, name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0o600, 0)
}

/// How much of a mapping is written (core(5), "Controlling which mappings are written to the core
/// dump").
fn segment(space: &AddressSpace, map: &MapInfo, filter: u32) -> Segment {
    let len = map.end - map.start;
    let wants = |bit: u32| filter & bit != 0;
    let all = if map.flags.contains(VmFlags::VDSO) {
        true
    } else if map.flags.contains(VmFlags::DONT_DUMP) {
        false
    } else if map.shared {
        wants(if map.file.is_some() { MAPPED_SHARED } else { ANON_SHARED })
    } else if map.file.is_some() {
        // What was written to is nobody else's.
        wants(MAPPED_PRIVATE)
            || wants(ANON_PRIVATE) && space.smaps(map.start, map.end).anonymous > 0
    } else {
        wants(ANON_PRIVATE)
    };
    let elf = || {
        let mut magic = [0; 4];
        let first = map.file.is_some() && map.offset == 0 && map.prot.contains(Prot::READ);
        first && space.peek(map.start, &mut magic).is_ok() && magic == *b"\x7fELF"
    };
    let dumped = !map.flags.contains(VmFlags::DONT_DUMP);
    let kept = match all {
        true => len,
        false if wants(ELF_HEADERS) && dumped && elf() => PAGE_SIZE,
        false => 0,
    };
    let bits = [(Prot::READ, 4), (Prot::WRITE, 2), (Prot::EXEC, 1)];
    let flags = bits.iter().filter(|(prot, _)| map.prot.contains(*prot)).map(|(_, bit)| bit).sum();
    Segment { start: map.start, len, kept, flags, file: map.object.is_some() }
}

/// The file as it grows.
struct Output<'a> {
    file: &'a File,
    at: u64,
    /// Where the last byte that is no hole ends.
    end: u64,
    /// Bytes that may still be written; holes are free.
    room: u64,
}

impl Output<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let len = bytes.len() as u64;
        self.room = self.room.checked_sub(len).ok_or(Errno::EFBIG)?;
        let mut done = 0;
        while done < bytes.len() {
            let mut src = IoSrc::kernel(&bytes[done..]);
            let (moved, _) = self.file.ops.write_at(self.file, self.at + done as u64, &mut src)?;
            if moved == 0 {
                return Err(Errno::ENOSPC);
            }
            done += moved;
        }
        self.at += len;
        self.end = self.at;
        Ok(())
    }

    /// A hole at the end belongs to the file.
    fn finish(&mut self) -> Result<()> {
        if self.end < self.at {
            self.file.inode().truncate(self.at)?;
        }
        Ok(())
    }
}
