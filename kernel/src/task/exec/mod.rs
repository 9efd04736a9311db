//! Program execution (execve(2)).
//!
//! [`prepare`] does everything that can fail, without touching the calling task; [`commit`] then
//! replaces its program.

pub mod area;
pub mod elf;
mod load;
pub mod privilege;
pub mod script;
pub mod stack;

use super::process::Process;
use super::rlimit::Rlimits;
use super::session::Terminal;
use super::signal::{Actions, AltStack};
use super::thread::{Comm, Parts};
use super::{Creds, Task, current_arc, exit, family, sched};
use crate::arch::user::UserContext;
use crate::arch::{PAGE_SIZE, fpu};
use crate::errno::{Errno, Result};
use crate::fs::perm::{self, Subject};
use crate::fs::walk::Resolver;
use crate::fs::{FdTable, File, FileType, FsContext, Path, mount, ops};
use crate::mm::{AddressSpace, MapFlags, Prot};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use dock2uni_format::status::Use;
use linux_raw_sys::auxvec::*;
use linux_raw_sys::general::{O_RDONLY, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK};
use privilege::{FileCaps, FileIdentity};

/// A program file, checked to be executable by whoever asked.
pub struct Opened {
    /// The file.
    pub file: Arc<File>,
    /// Where it is.
    pub path: Path,
}

/// A program ready to run.
pub struct Image {
    space: Arc<AddressSpace>,
    path: Path,
    comm: Comm,
    start: usize,
    sp: usize,
    areas: [usize; 4],
    creds: Creds,
    secure: bool,
}

/// Opens a program. EACCES if it isn't a regular file that `resolver.who` may execute.
pub fn open_program(resolver: &Resolver<'_>, name: &[u8]) -> Result<Opened> {
    open_path(resolver.who, resolver.lookup(name, true)?)
}

fn open_path(who: &dyn Subject, path: Path) -> Result<Opened> {
    if path.dentry.kind() != Some(FileType::Regular)
        || path.mount.flags().contains(mount::Flags::NOEXEC)
    {
        return Err(Errno::EACCES);
    }
    perm::check(who, path.inode()?, perm::EXEC)?;
    // Half of a program would run.
    if path.dentry.is_written() {
        return Err(Errno::ETXTBSY);
    }
    let file = ops::open_found(&perm::Kernel, path.clone(), O_RDONLY, false)?;
    if crate::witness::on() {
        crate::witness::file(&path, Use::Executed);
    }
    Ok(Opened { file, path })
}

fn identity(path: &Path) -> Option<FileIdentity> {
    if path.mount.flags().contains(mount::Flags::NOSUID) {
        return None;
    }
    let inode = path.inode().ok()?;
    let access = inode.access();
    let caps = inode.xattr(b"security.capability").ok().flatten();
    let caps = caps.and_then(|bytes| FileCaps::parse(&bytes));
    Some(FileIdentity { mode: access.mode, uid: access.uid, gid: access.gid, caps })
}

/// What to run.
pub struct Request<'a> {
    /// Program file.
    pub program: Opened,
    /// Its name as given (`AT_EXECFN`, and what a script's interpreter gets).
    pub name: Vec<u8>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// Resolves interpreters.
    pub resolver: &'a Resolver<'a>,
    /// Who asks.
    pub creds: &'a Creds,
    /// Its limits.
    pub rlimits: Rlimits,
    /// The descriptor behind `name` is closed on exec: a script's interpreter couldn't open it.
    pub unreachable: bool,
}

/// Loads a program into a new address space. Nothing is changed yet.
pub fn prepare(mut request: Request<'_>) -> Result<Image> {
    /// Scripts whose interpreters are scripts.
    const MAX_DEPTH: usize = 5;
    let mut execfn = request.name.clone();
    for depth in 0.. {
        if depth > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        let head = read_head(&request.program)?;
        if !head.starts_with(b"#!") {
            break;
        }
        if request.unreachable {
            return Err(Errno::ENOENT);
        }
        let (interpreter, argument) = script::parse(&head)?;
        let mut argv = Vec::from([interpreter.to_vec()]);
        argv.extend(argument.map(<[u8]>::to_vec));
        argv.push(execfn);
        argv.extend(request.argv.drain(..).skip(1));
        request.argv = argv;
        execfn = interpreter.to_vec();
        request.program = open_program(request.resolver, interpreter)?;
    }
    if request.argv.is_empty() {
        request.argv.push(Vec::new());
    }
    let (creds, secure) = privilege::transform(request.creds, identity(&request.program.path));
    let space = AddressSpace::new()?;
    let limits = [
        (&space.limits.stack, RLIMIT_STACK),
        (&space.limits.address_space, RLIMIT_AS),
        (&space.limits.data, RLIMIT_DATA),
        (&space.limits.locked, RLIMIT_MEMLOCK),
    ];
    for (slot, resource) in limits {
        slot.store(request.rlimits.get(resource)?.soft, Relaxed);
    }
    let loaded = load::load(&space, &request.program, request.resolver)?;
    let vdso = map_vdso(&space);
    let auxv = auxiliary(&loaded, &creds, secure, vdso);
    let top = space.layout().stack_top;
    let mut random = [0; 16];
    crate::random::fill(&mut random);
    let contents = stack::Contents {
        argv: &request.argv,
        envp: &request.envp,
        execfn: &request.name,
        random,
        auxv: &auxv,
    };
    let built =
        stack::build(top, &contents, stack::limit(request.rlimits.get(RLIMIT_STACK)?.soft))?;
    map_stack(&space, top, &built, loaded.exec_stack)?;
    let base = execfn.rsplit(|&byte| byte == b'/').next().unwrap_or(&execfn);
    // A script keeps its own name.
    let own = request.name.rsplit(|&byte| byte == b'/').next().unwrap_or(base);
    Ok(Image {
        space,
        path: request.program.path,
        comm: Comm::new(own),
        start: loaded.start,
        sp: built.sp,
        areas: built.areas,
        creds,
        secure,
    })
}

fn read_head(opened: &Opened) -> Result<Vec<u8>> {
    let mut head = alloc::vec![0; script::HEAD_LEN];
    let mut dst = crate::io::IoDst::kernel(&mut head);
    let n = opened.file.ops.read_at(&opened.file, 0, &mut dst)?;
    head.truncate(n);
    Ok(head)
}

fn map_stack(
    space: &AddressSpace,
    top: usize,
    built: &stack::Stack,
    executable: bool,
) -> Result<()> {
    /// Mapped from the start; the rest grows as it is touched.
    const INITIAL: usize = 128 * 1024;
    let low = (built.sp - INITIAL) & !(PAGE_SIZE - 1);
    let mut prot = Prot::READ | Prot::WRITE;
    prot.set(Prot::EXEC, executable);
    let flags = MapFlags::PRIVATE
        | MapFlags::ANONYMOUS
        | MapFlags::FIXED
        | MapFlags::GROWSDOWN
        | MapFlags::MAIN_STACK;
    space.mmap(low, top - low, prot, Prot::all(), flags, None)?;
    space.write_bytes(built.sp, &built.bytes)
}

#[cfg(guest)]
fn map_vdso(space: &AddressSpace) -> Option<usize> {
    crate::time::vdso::map_into(space)
}

#[cfg(not(guest))]
fn map_vdso(_space: &AddressSpace) -> Option<usize> {
    None
}

fn auxiliary(
    loaded: &load::Loaded,
    creds: &Creds,
    secure: bool,
    vdso: Option<usize>,
) -> Vec<(u32, usize)> {
    // Fixed and red-zone-sized parts of a signal frame, for AT_MINSIGSTKSZ.
    const FRAME: usize = 440 + 128 + 64 + 16;
    let mut auxv = Vec::new();
    auxv.extend(vdso.map(|at| (AT_SYSINFO_EHDR, at)));
    auxv.extend([
        (AT_MINSIGSTKSZ, FRAME + fpu::signal_size()),
        (AT_PAGESZ, PAGE_SIZE),
        (AT_CLKTCK, 100),
        (AT_PHDR, loaded.phdr),
        (AT_PHENT, elf::PHDR_LEN),
        (AT_PHNUM, loaded.phnum),
        (AT_BASE, loaded.base),
        (AT_FLAGS, 0),
        (AT_ENTRY, loaded.entry),
        (AT_UID, creds.uid as usize),
        (AT_EUID, creds.euid as usize),
        (AT_GID, creds.gid as usize),
        (AT_EGID, creds.egid as usize),
        (AT_SECURE, usize::from(secure)),
        (AT_HWCAP2, 0),
    ]);
    auxv
}

/// Replaces the program of the current task. Fails only before anything has changed.
pub fn commit(context: &mut UserContext, image: Image) -> Result<()> {
    let task = current_arc();
    let process = task.process().clone();
    exit::end_other_threads(&task)?;
    if task.tid() != process.pid() {
        // The leader is gone; this thread takes its number.
        let number = process.pid_ref.lock().as_ref().map(super::pid::PidRef::again);
        if let Some(old) = number.and_then(|number| task.take_pid(number)) {
            old.unbind_task();
        }
    }
    exit::release_memory(&task);
    image.space.take_limits(|resource| process.rlimit(resource));
    drop(task.set_mm(Some(image.space.clone())));
    sched::reload_mm();
    unshare_files(&task);
    {
        let mut group = process.signal.lock();
        let actions = Arc::new(group.actions.fork());
        actions.reset_caught();
        group.actions = actions;
        task.signal.lock().altstack = AltStack::DISABLED;
    }
    process.exec_timers();
    describe(&task, &process, &image);
    start_registers(context, image.start, image.sp);
    Ok(())
}

fn unshare_files(task: &Task) {
    if let Some(files) = task.try_files() {
        // Two: the task's and this one.
        if Arc::strong_count(&files) > 2
            && let Ok(own) = files.fork()
        {
            drop(task.set_files(Some(Arc::new(own))));
        }
    }
    task.files().close_on_exec();
}

fn describe(task: &Task, process: &Process, image: &Image) {
    task.set_comm(image.comm.bytes());
    process.set_exe(Some(image.path.clone()));
    for (slot, value) in process.arg_area.iter().zip(image.areas) {
        slot.store(value, Relaxed);
    }
    if image.secure {
        task.pdeath_signal.store(0, Relaxed);
    }
    process.dumpable.store(u32::from(!image.secure), Relaxed);
    process.did_exec.store(true, Relaxed);
    task.set_creds(image.creds.clone());
}

fn start_registers(context: &mut UserContext, start: usize, sp: usize) {
    context.reset_fpu();
    for register in [
        &mut context.rax,
        &mut context.rbx,
        &mut context.rcx,
        &mut context.rdx,
        &mut context.rsi,
        &mut context.rdi,
        &mut context.rbp,
        &mut context.r8,
        &mut context.r9,
        &mut context.r10,
        &mut context.r11,
        &mut context.r12,
        &mut context.r13,
        &mut context.r14,
        &mut context.r15,
        &mut context.fs_base,
        &mut context.gs_base,
    ] {
        *register = 0;
    }
    context.rip = start;
    context.rsp = sp;
    context.rflags = 0x202;
    context.orig_rax = usize::MAX;
}

/// A process that the kernel starts: the main one of an image, or a health check.
pub struct Main<'a> {
    /// Program and arguments; the program is looked up in PATH if it has no slash, as Docker does.
    pub argv: &'a [Vec<u8>],
    /// Environment.
    pub envp: &'a [Vec<u8>],
    /// Identity.
    pub creds: Creds,
    /// Root, working directory, umask.
    pub fs: FsContext,
    /// Standard streams.
    pub files: FdTable,
    /// Controlling terminal.
    pub terminal: Option<Arc<dyn Terminal>>,
    /// Its limits.
    pub rlimits: Rlimits,
}

/// Starts the image's main process, number 1; see [`spawn`].
pub fn spawn_main(main: Main<'_>) -> Result<Arc<Process>> {
    if super::pid::last() != 0 {
        return Err(Errno::EBUSY);
    }
    spawn(main)
}

/// Starts a process without a parent, leader of its session and group. ENOENT if the program
/// doesn't exist; other errors as from execve(2).
pub fn spawn(main: Main<'_>) -> Result<Arc<Process>> {
    let resolver = Resolver {
        root: main.fs.root(),
        start: main.fs.cwd(),
        who: &main.creds,
        resolve: crate::fs::walk::Resolve::empty(),
    };
    let (name, program) = find_main(&resolver, main.argv, main.envp)?;
    let rlimits = main.rlimits;
    let image = prepare(Request {
        program,
        name,
        argv: main.argv.to_vec(),
        envp: main.envp.to_vec(),
        resolver: &resolver,
        creds: &main.creds,
        rlimits: rlimits.clone(),
        unreachable: false,
    })?;
    let pid = super::pid::PidRef::alloc()?;
    let process = Process::new(Some(pid.again()), None, Arc::new(Actions::new()), rlimits, 0);
    family::found_session(&process)?;
    if let Some(terminal) = main.terminal {
        super::session::grant_terminal(&process, terminal);
    }
    let mut user = UserContext::new(image.start, image.sp)?;
    start_registers(&mut user, image.start, image.sp);
    let task = Task::new(Parts {
        pid: Some(pid),
        process: process.clone(),
        comm: image.comm.0,
        mm: Some(image.space.clone()),
        files: Some(Arc::new(main.files)),
        fs: Some(Arc::new(main.fs)),
        creds: Arc::new(image.creds.clone()),
        user,
        sched: sched::Entity::for_user(None)?,
        signal: super::signal::TaskSignals::new(super::signal::SigSet::EMPTY, AltStack::DISABLED),
    });
    describe(&task, &process, &image);
    process.signal.lock().threads.push(task.clone());
    sched::start(&task);
    Ok(process)
}

/// The program of the main process: by its path, or in the directories of PATH.
fn find_main(
    resolver: &Resolver<'_>,
    argv: &[Vec<u8>],
    envp: &[Vec<u8>],
) -> Result<(Vec<u8>, Opened)> {
    let name = argv.first().filter(|name| !name.is_empty()).ok_or(Errno::ENOENT)?;
    if name.contains(&b'/') {
        return Ok((name.clone(), open_program(resolver, name)?));
    }
    let path = envp.iter().rev().find_map(|entry| entry.strip_prefix(b"PATH="));
    let path = path.unwrap_or(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut error = Errno::ENOENT;
    for directory in path.split(|&byte| byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let full = [directory, name].join(&b'/');
        match open_program(resolver, &full) {
            Ok(opened) => return Ok((full, opened)),
            Err(Errno::EACCES) => error = Errno::EACCES,
            Err(_) => {}
        }
    }
    Err(error)
}

/// execveat(2) on behalf of the current task; `opened` is the program that `name` names.
pub fn exec(
    context: &mut UserContext,
    opened: Opened,
    name: Vec<u8>,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
    unreachable: bool,
) -> Result<()> {
    let task = current_arc();
    let (fs, creds) = (task.fs(), task.creds());
    let resolver = Resolver {
        root: fs.root(),
        start: fs.cwd(),
        who: &*creds,
        resolve: crate::fs::walk::Resolve::empty(),
    };
    let image = prepare(Request {
        program: opened,
        name,
        argv,
        envp,
        resolver: &resolver,
        creds: &creds,
        rlimits: task.process().rlimits(),
        unreachable,
    })?;
    let former = task.tid();
    commit(context, image)?;
    super::trace::on_exec(context, former);
    Ok(())
}

/// Opens a program that a path or descriptor names, for the current task.
pub fn open_for_current(path: Path) -> Result<Opened> {
    let creds = super::current().creds();
    open_path(&*creds, path)
}
