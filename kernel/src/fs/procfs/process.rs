//! /proc/PID and /proc/PID/task/TID.

use super::system::ticks;
use super::{GONE, locks, maps, mounts, net, number};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::fs::inode::Inode;
use crate::fs::nsfs::{self, NamespaceFile};
use crate::fs::perm::cap;
use crate::fs::pseudo::{
    Changing, Dir, Emit, Entry, Key, Kind, Text, entry, entry_of, parse_number,
};
use crate::fs::walk::name_of;
use crate::fs::{FdTable, File, FileType, FsContext, Path, hooks};
use crate::mm::MapInfo;
use crate::say;
use crate::task::inspect::{Identity, may_inspect};
use crate::task::{self, Login, Process, Remains, Task, coredump, current};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use dock2uni_ext4::sort;
use linux_raw_sys::general::{CAP_CHECKPOINT_RESTORE, CLONE_NEWNS};

/// The thread an entry is about: a given one, or the process's main thread.
pub fn find(key: &Key) -> Result<Arc<Task>> {
    if key.tid != 0 {
        return task::find_task(key.tid).ok_or(GONE);
    }
    process(key)?.main_thread().ok_or(GONE)
}

/// The process an entry is about.
pub fn process(key: &Key) -> Result<Arc<Process>> {
    task::find_process(key.pid).ok_or(GONE)
}

/// What is known of the thread an entry is about, even if it has ended and its process was not
/// waited for.
fn known(key: &Key) -> Result<Remains> {
    match find(key) {
        Ok(task) => Ok(Remains::of(&task)),
        Err(error) if key.tid != 0 && key.tid != key.pid => Err(error),
        Err(error) => process(key)?.remains().ok_or(error),
    }
}

/// The process whose directory an inode is, if it is one.
pub fn of_directory(inode: &Arc<dyn Inode>) -> Option<Arc<Process>> {
    let (key, entry) = entry_of(inode)?;
    let directory = core::ptr::eq(entry, &raw const PROCESS) && key.tid == 0;
    if directory { task::find_process(key.pid) } else { None }
}

/// Whether an entry still stands for something.
pub fn alive(key: &Key) -> bool {
    match key {
        Key { pid: 0, .. } => true,
        Key { tid: 0, .. } => task::find_process(key.pid).is_some(),
        Key { pid, tid, .. } if pid == tid => task::find_process(*pid).is_some(),
        Key { tid, .. } => task::find_task(*tid).is_some(),
    }
}

/// Owner of an entry: of processes, their effective IDs. Those that are not to be looked into keep
/// what not everybody may enter from their own user, too.
pub fn owner(key: &Key, entry: &Entry) -> (u32, u32) {
    if key.pid == 0 {
        return (0, 0);
    }
    let (Ok(Remains { creds, .. }), Ok(process)) = (known(key), process(key)) else {
        return (0, 0);
    };
    let open = entry.kind.file_type() == FileType::Directory && entry.mode == 0o555;
    let shown = open || process.dumpable() == 1 && !process.is_zombie();
    if shown { (creds.euid, creds.egid) } else { (0, 0) }
}

/// Whether the caller may enter a directory whatever its mode says: its own descriptors.
pub fn opens(key: &Key, entry: &Entry) -> bool {
    key.pid != 0 && matches!(entry.name, "fd" | "fdinfo") && key.pid == current().pid()
}

/// The thread, unless it has ended. EACCES if the caller may not look into the process.
pub fn check_access(key: &Key) -> Result<Option<Arc<Task>>> {
    let theirs = known(key)?.creds;
    let may = may_inspect(&*process(key)?, &theirs, Identity::Filesystem);
    if may { Ok(find(key).ok()) } else { Err(Errno::EACCES) }
}

/// An entry that the owner alone may read.
const fn private(name: &'static str, kind: Kind) -> Entry {
    Entry { name, mode: 0o400, kind }
}

/// A link to a namespace of a process.
macro_rules! namespace {
    ($name:literal, $kind:expr) => {
        entry(
            $name,
            Kind::Magic(
                |key| Ok(namespace(key, &$kind)?.text().into_bytes()),
                |key| Ok(namespace(key, &$kind)?.place()),
            ),
        )
    };
}

macro_rules! common {
    ($($more:expr),* $(,)?) => {
        &[
            entry("attr", Kind::Dir(&super::EMPTY)),
            private("auxv", Kind::Text(maps::auxv)),
            entry("cgroup", Kind::Const("0::/\n")),
            entry("cmdline", Kind::Text(maps::cmdline)),
            entry("comm", Kind::Setting(comm, set_comm)),
            entry("cwd", Kind::Magic(cwd_text, cwd)),
            private("environ", Kind::Text(maps::environ)),
            entry("exe", Kind::Magic(exe_text, exe)),
            FD,
            FDINFO,
            entry("gid_map", Kind::Const("         0          0 4294967295\n")),
            private("io", Kind::Text(io)),
            entry("limits", Kind::Text(limits)),
            entry("loginuid", Kind::Setting(loginuid, set_loginuid)),
            MAP_FILES,
            entry("maps", Kind::Text(maps::maps)),
            entry("mem", Kind::Open(maps::open_mem)),
            entry("mountinfo", Kind::Text(mounts::mountinfo)),
            entry("mounts", Kind::Text(mounts::mounts)),
            entry("mountstats", Kind::Text(mounts::mountstats)),
            entry("net", Kind::Dir(&net::NET)),
            Entry { name: "ns", mode: 0o511, kind: Kind::Dir(&NS) },
            entry("oom_adj", Kind::Const("0\n")),
            entry("oom_score", Kind::Text(oom_score)),
            entry("oom_score_adj", Kind::Setting(oom_score_adj, set_oom_score_adj)),
            private("personality", Kind::Text(personality)),
            entry("projid_map", Kind::Const("         0          0 4294967295\n")),
            entry("root", Kind::Magic(root_text, root)),
            entry("sched", Kind::Const("")),
            entry("schedstat", Kind::Text(schedstat)),
            entry("sessionid", Kind::Text(sessionid)),
            entry("setgroups", Kind::Const("allow\n")),
            entry("smaps", Kind::Text(maps::smaps)),
            entry("smaps_rollup", Kind::Text(maps::smaps_rollup)),
            entry("stat", Kind::Text(stat)),
            entry("statm", Kind::Text(statm)),
            entry("status", Kind::Text(status)),
            entry("uid_map", Kind::Const("         0          0 4294967295\n")),
            entry("wchan", Kind::Const("0")),
            $($more),*
        ]
    };
}

pub static PROCESS: Entry = entry(
    "process",
    Kind::Dir(&Dir::fixed(common![
        entry("coredump_filter", Kind::Setting(core_filter, set_core_filter)),
        entry(
            "task",
            Kind::Dir(&Dir {
                entries: &[],
                changing: Some(Changing { find: find_thread, list: list_threads }),
            })
        ),
        Entry {
            name: "timerslack_ns",
            mode: 0o666,
            kind: Kind::Setting(timer_slack, set_timer_slack),
        },
    ])),
);

static THREAD: Entry =
    entry("thread", Kind::Dir(&Dir::fixed(common![entry("children", Kind::Text(children)),])));

fn find_thread(key: &Key, name: &[u8]) -> Option<(Key, &'static Entry)> {
    let tid = number(name)?;
    let lives = task::find_task(tid).is_some_and(|task| task.pid() == key.pid);
    // The leader is there until its process is waited for.
    (lives || tid == key.pid).then_some((Key { tid, ..*key }, &THREAD))
}

fn list_threads(key: &Key, from: u64, emit: Emit<'_>) {
    let Ok(process) = process(key) else { return };
    let mut tids: Vec<i32> = process.threads().iter().map(|task| task.tid()).collect();
    if !tids.contains(&key.pid) {
        tids.push(key.pid);
    }
    sort::plain(&mut tids);
    for tid in tids {
        let next = tid as u64 + 1;
        if next > from && !emit(next, format!("{tid}").as_bytes(), FileType::Directory) {
            return;
        }
    }
}

fn children(key: &Key, out: &mut Text) -> Result<()> {
    for child in process(key)?.children() {
        say!(out, "{} ", child.pid());
    }
    Ok(())
}

// Descriptors.

const FD: Entry = Entry {
    name: "fd",
    mode: 0o500,
    kind: Kind::Dir(&Dir {
        entries: &[],
        changing: Some(Changing {
            find: |key, name| Some((open_fd(key, name)?, &FD_LINK)),
            list: |key, from, emit| list_fds(key, from, FileType::Symlink, emit),
        }),
    }),
};

const FDINFO: Entry = Entry {
    name: "fdinfo",
    mode: 0o500,
    kind: Kind::Dir(&Dir {
        entries: &[],
        changing: Some(Changing {
            find: |key, name| Some((open_fd(key, name)?, &FDINFO_FILE)),
            list: |key, from, emit| list_fds(key, from, FileType::Regular, emit),
        }),
    }),
};

static FD_LINK: Entry = Entry { name: "fd", mode: 0o700, kind: Kind::Magic(fd_text, fd_place) };
static FDINFO_FILE: Entry = Entry { name: "fdinfo", mode: 0o400, kind: Kind::Text(fdinfo) };

fn open_fd(key: &Key, name: &[u8]) -> Option<Key> {
    let fd = number(name)?;
    let found = Key { index: fd as u64, ..*key };
    file_of(&found).ok()?;
    Some(found)
}

fn file_of(key: &Key) -> Result<Arc<File>> {
    descriptor_of(key).map(|(_, file)| file)
}

/// An open file, and the table that it is in.
fn descriptor_of(key: &Key) -> Result<(Arc<FdTable>, Arc<File>)> {
    let files = check_access(key)?.and_then(|task| task.try_files()).ok_or(GONE)?;
    let file = files.get_any(key.index as i32).map_err(|_| Errno::ENOENT)?;
    Ok((files, file))
}

fn list_fds(key: &Key, from: u64, kind: FileType, emit: Emit<'_>) {
    let task = check_access(key).ok().flatten();
    let Some(files) = task.and_then(|task| task.try_files()) else { return };
    let mut from = from as usize;
    let mut fds = [0; 64];
    loop {
        let count = files.open_from(from, &mut fds);
        for &fd in &fds[..count] {
            if !emit(fd as u64 + 1, format!("{fd}").as_bytes(), kind) {
                return;
            }
            from = fd + 1;
        }
        if count < fds.len() {
            return;
        }
    }
}

/// The name of an open file as the caller sees it.
pub fn file_name(file: &File) -> Vec<u8> {
    match &file.path {
        Some(path) => name_of(path, &current().fs().root()),
        None => file.ops.describe().into_bytes(),
    }
}

fn fd_text(key: &Key) -> Result<Vec<u8>> {
    Ok(file_name(&*file_of(key)?))
}

fn fd_place(key: &Key) -> Result<Path> {
    let file = file_of(key)?;
    Ok(match &file.path {
        Some(path) => path.clone(),
        None => crate::fs::anon::place(file.inode()),
    })
}

fn fdinfo(key: &Key, out: &mut Text) -> Result<()> {
    let (files, file) = descriptor_of(key)?;
    let pos = *file.pos.lock();
    let mount = file.path.as_ref().map_or(0, |path| path.mount.id);
    let ino = file.with_inode(|inode| inode.metadata().ino);
    say!(out, "pos:\t{pos}\nflags:\t0{:o}\nmnt_id:\t{mount}\nino:\t{ino}\n", file.flags());
    locks::of_descriptor(&file, &files, out);
    out.bytes(file.ops.details().as_bytes());
    if let Ok(process) = crate::event::pidfd::PidFd::process(&file) {
        let pid = if process.is_reaped() { -1 } else { process.pid() };
        say!(out, "Pid:\t{pid}\nNSpid:\t{pid}\n");
    }
    Ok(())
}

// Places.

fn visible(path: &Path) -> Result<Vec<u8>> {
    Ok(name_of(path, &current().fs().root()))
}

/// Where the process is. ENOENT if it has ended.
fn places(key: &Key) -> Result<Arc<FsContext>> {
    check_access(key)?.and_then(|task| task.try_fs()).ok_or(Errno::ENOENT)
}

fn cwd(key: &Key) -> Result<Path> {
    Ok(places(key)?.cwd())
}

fn cwd_text(key: &Key) -> Result<Vec<u8>> {
    visible(&cwd(key)?)
}

fn root(key: &Key) -> Result<Path> {
    Ok(places(key)?.root())
}

fn root_text(key: &Key) -> Result<Vec<u8>> {
    visible(&root(key)?)
}

fn exe(key: &Key) -> Result<Path> {
    check_access(key)?;
    process(key)?.exe().ok_or(Errno::ENOENT)
}

fn exe_text(key: &Key) -> Result<Vec<u8>> {
    visible(&exe(key)?)
}

/// The namespaces that a process is in.
static NS: Dir = Dir::fixed(&[
    namespace!("cgroup", nsfs::CGROUP),
    namespace!("ipc", nsfs::IPC),
    namespace!("mnt", nsfs::MNT),
    namespace!("net", nsfs::NET),
    namespace!("pid", nsfs::PID),
    namespace!("pid_for_children", nsfs::PID),
    namespace!("time", nsfs::TIME),
    namespace!("time_for_children", nsfs::TIME),
    namespace!("user", nsfs::USER),
    namespace!("uts", nsfs::UTS),
]);

fn namespace(key: &Key, kind: &'static nsfs::Kind) -> Result<NamespaceFile> {
    let task = check_access(key)?.ok_or(Errno::ENOENT)?;
    let mounts = match kind.flag {
        CLONE_NEWNS => Some(task.try_fs().ok_or(Errno::ENOENT)?.namespace().clone()),
        _ => None,
    };
    Ok(NamespaceFile { kind, mounts })
}

/// Files that are mapped, by the addresses of the mappings; a key holds the first page's number.
const MAP_FILES: Entry = Entry {
    name: "map_files",
    mode: 0o500,
    kind: Kind::Dir(&Dir {
        entries: &[],
        changing: Some(Changing { find: find_mapped, list: list_mapped }),
    }),
};

static MAP_FILE: Entry =
    Entry { name: "map_files", mode: 0o700, kind: Kind::Magic(mapped_text, mapped_place) };

/// The mappings of files.
fn mappings(key: &Key) -> Result<impl Iterator<Item = MapInfo>> {
    let space = check_access(key)?.and_then(|task| task.mm()).ok_or(Errno::ENOENT)?;
    let named = |map: &MapInfo| map.file.as_ref().is_some_and(|file| file.path.is_some());
    Ok(space.vmas().into_iter().filter(named))
}

fn range_name(map: &MapInfo) -> String {
    format!("{:x}-{:x}", map.start, map.end)
}

fn find_mapped(key: &Key, name: &[u8]) -> Option<(Key, &'static Entry)> {
    let map = mappings(key).ok()?.find(|map| range_name(map).as_bytes() == name)?;
    Some((Key { index: (map.start / PAGE_SIZE) as u64, ..*key }, &MAP_FILE))
}

fn list_mapped(key: &Key, from: u64, emit: Emit<'_>) {
    let Ok(maps) = mappings(key) else { return };
    for map in maps {
        let next = (map.start / PAGE_SIZE) as u64 + 1;
        if next > from && !emit(next, range_name(&map).as_bytes(), FileType::Symlink) {
            return;
        }
    }
}

fn mapped(key: &Key) -> Result<Path> {
    let start = key.index as usize * PAGE_SIZE;
    let map = mappings(key)?.find(|map| map.start == start).ok_or(Errno::ENOENT)?;
    map.file.and_then(|file| file.path.clone()).ok_or(Errno::ENOENT)
}

/// Whoever follows such a link opens what may have no name any more.
fn mapped_place(key: &Key) -> Result<Path> {
    let may = [task::creds::cap::SYS_ADMIN, CAP_CHECKPOINT_RESTORE];
    if may.iter().any(|&cap| current().capable(cap)) { mapped(key) } else { Err(Errno::EPERM) }
}

fn mapped_text(key: &Key) -> Result<Vec<u8>> {
    visible(&mapped(key)?)
}

// Texts.

fn comm(key: &Key, out: &mut Text) -> Result<()> {
    out.bytes(known(key)?.comm.bytes());
    say!(out, "\n");
    Ok(())
}

fn set_comm(key: &Key, bytes: &[u8]) -> Result<()> {
    let task = find(key)?;
    // Threads of one process may name each other.
    if task.pid() != current().pid() {
        return Err(Errno::EINVAL);
    }
    let end = bytes.iter().position(|&byte| byte == 0 || byte == b'\n').unwrap_or(bytes.len());
    task.set_comm(&bytes[..end]);
    Ok(())
}

fn core_filter(key: &Key, out: &mut Text) -> Result<()> {
    // Those that have ended have no memory of which it could say something.
    if find(key).is_ok_and(|task| task.mm().is_some()) {
        say!(out, "{:08x}\n", process(key)?.core_filter.load(Relaxed));
    }
    Ok(())
}

fn set_core_filter(key: &Key, bytes: &[u8]) -> Result<()> {
    let value = u32::try_from(parse_number(bytes)?).map_err(|_| Errno::EINVAL)?;
    process(key)?.core_filter.store(value & coredump::KNOWN_FILTER, Relaxed);
    Ok(())
}

fn timer_slack(key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "{}\n", find(key)?.timer_slack());
    Ok(())
}

fn set_timer_slack(key: &Key, bytes: &[u8]) -> Result<()> {
    let task = find(key)?;
    if task.pid() != current().pid() && !current().capable(task::creds::cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    task.set_timer_slack(usize::try_from(parse_number(bytes)?).map_err(|_| Errno::EINVAL)?);
    Ok(())
}

fn oom_score_adj(key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "{}\n", process(key)?.oom_score_adj.load(Relaxed));
    Ok(())
}

fn set_oom_score_adj(key: &Key, bytes: &[u8]) -> Result<()> {
    let value = parse_number(bytes)?;
    let value = i32::try_from(value).ok().filter(|value| (-1000..=1000).contains(value));
    let value = value.ok_or(Errno::EINVAL)?;
    let process = process(key)?;
    if current().creds().capable(cap::SYS_RESOURCE) {
        process.oom_score_adj_min.store(value, Relaxed);
    } else if value < process.oom_score_adj_min.load(Relaxed) {
        return Err(Errno::EACCES);
    }
    process.oom_score_adj.store(value, Relaxed);
    Ok(())
}

/// Thousandths as Linux shows them: two thirds of what memory and bias come to, so that a process
/// without either has 666.
fn oom_score(key: &Key, out: &mut Text) -> Result<()> {
    let process = process(key)?;
    let score = crate::task::oom::score(&process).map_or(0, |pages| {
        let total = crate::mm::frame::total_frames().max(1) as u64;
        (1000 + pages * 1000 / total) * 2 / 3
    });
    say!(out, "{score}\n");
    Ok(())
}

fn loginuid(key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "{}", process(key)?.login.uid());
    Ok(())
}

/// Everybody may say once who has logged in; after that it takes CAP_AUDIT_CONTROL (pam_loginuid(8)).
fn set_loginuid(key: &Key, bytes: &[u8]) -> Result<()> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let uid = text.trim_end().parse::<u32>().map_err(|_| Errno::EINVAL)?;
    let process = process(key)?;
    let free =
        process.login.uid() == Login::NONE || current().capable(task::creds::cap::AUDIT_CONTROL);
    if process.pid() != current().process().pid() || !free {
        return Err(Errno::EPERM);
    }
    process.login.set(uid);
    Ok(())
}

fn sessionid(key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "{}", process(key)?.login.session());
    Ok(())
}

/// What read(2) and write(2) moved. What of it came from disks and went there is not told apart by
/// process.
fn io(key: &Key, out: &mut Text) -> Result<()> {
    let usage = if key.tid != 0 { find(key)?.sched.usage() } else { process(key)?.usage() };
    let names = ["rchar", "wchar", "syscr", "syscw"];
    for (name, value) in names.into_iter().zip(usage.moved) {
        say!(out, "{name}: {value}\n");
    }
    say!(out, "read_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n");
    Ok(())
}

fn personality(key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "{:08x}\n", process(key)?.set_personality(None));
    Ok(())
}

fn schedstat(key: &Key, out: &mut Text) -> Result<()> {
    let usage = process(key)?.usage();
    let switches = usage.voluntary + usage.involuntary;
    say!(out, "{} 0 {switches}\n", usage.user_ns + usage.system_ns);
    Ok(())
}

const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

fn limits(key: &Key, out: &mut Text) -> Result<()> {
    let process = process(key)?;
    say!(out, "Limit                     Soft Limit           Hard Limit           Units     \n");
    for (resource, (name, unit)) in LIMITS.iter().enumerate() {
        let limit = process.rlimit_pair(resource as u32)?;
        say!(out, "{name:<25} ");
        for value in [limit.soft, limit.hard] {
            match value {
                u64::MAX => say!(out, "{:<20} ", "unlimited"),
                value => say!(out, "{value:<20} "),
            }
        }
        say!(out, "{unit:<10}\n");
    }
    Ok(())
}

fn statm(key: &Key, out: &mut Text) -> Result<()> {
    process(key)?;
    let size = maps::sizes(key);
    let [total, resident, shared, data] =
        [size.virtual_size, size.resident, size.resident_file + size.resident_shmem, size.data]
            .map(|bytes| bytes / PAGE_SIZE);
    let text = maps::text_size(key) / PAGE_SIZE as u64;
    say!(out, "{total} {resident} {shared} {text} 0 {data} 0\n");
    Ok(())
}

fn stat(key: &Key, out: &mut Text) -> Result<()> {
    let process = process(key)?;
    let task = find(key).ok();
    let id = if key.tid != 0 { key.tid } else { process.pid() };
    say!(out, "{id} (");
    let Remains { comm, nice, .. } = known(key)?;
    out.bytes(comm.bytes());
    let state = hooks::state(&process, task.as_deref());
    let terminal = process.terminal();
    let (tty, foreground) =
        terminal.map_or((0, -1), |terminal| (terminal.device(), terminal.foreground()));
    say!(
        out,
        ") {state} {} {} {} {tty} {foreground} 0 ",
        process.ppid(),
        process.pgid(),
        process.sid()
    );
    let (usage, children) = (process.usage(), process.children_usage());
    say!(
        out,
        "{} {} {} {} ",
        usage.minor_faults,
        children.minor_faults,
        usage.major_faults,
        children.major_faults
    );
    let [user, system, child_user, child_system] =
        [usage.user_ns, usage.system_ns, children.user_ns, children.system_ns].map(ticks);
    let start = ticks(process.start_ns.load(Relaxed));
    let size = maps::sizes(key);
    say!(out, "{user} {system} {child_user} {child_system} {} {nice} ", 20 + nice);
    say!(out, "{} 0 {start} {} ", process.threads().len().max(1), size.virtual_size);
    say!(out, "{} 18446744073709551615 ", size.resident / PAGE_SIZE);
    // Code, stack and signals of others are nobody's business; those of one's own are found
    // elsewhere.
    let (arg_start, arg_end) = process.arg_range();
    let (env_start, env_end) = process.env_range();
    let (pending, ignored, caught) = process.signal_summary();
    let [pending, ignored, caught] = [pending, ignored, caught].map(|set| set.0 & 0x7fff_ffff);
    say!(out, "0 0 0 0 0 {pending} 0 {ignored} {caught} 0 0 0 17 0 0 0 0 0 0 0 0 0 ");
    say!(out, "{arg_start} {arg_end} {env_start} {env_end} 0\n");
    Ok(())
}

fn status(key: &Key, out: &mut Text) -> Result<()> {
    let process = process(key)?;
    let Remains { comm, creds, .. } = known(key)?;
    let task = find(key).ok();
    let id = if key.tid != 0 { key.tid } else { process.pid() };
    let state = hooks::state(&process, task.as_deref());
    say!(out, "Name:\t");
    out.bytes(comm.bytes());
    if let Some(fs) = task.as_ref().and_then(|task| task.try_fs()) {
        say!(out, "\nUmask:\t{:04o}", fs.umask());
    }
    say!(
        out,
        "\nState:\t{state} ({})\n",
        match state {
            'R' => "running",
            'S' => "sleeping",
            'D' => "disk sleep",
            'T' => "stopped",
            'Z' => "zombie",
            _ => "unknown",
        }
    );
    say!(out, "Tgid:\t{}\nNgid:\t0\nPid:\t{id}\n", process.pid());
    let tracer = task.as_deref().map_or(0, crate::task::trace::tracer_of);
    say!(out, "PPid:\t{}\nTracerPid:\t{tracer}\n", process.ppid());
    say!(out, "Uid:\t{}\t{}\t{}\t{}\n", creds.uid, creds.euid, creds.suid, creds.fsuid);
    say!(out, "Gid:\t{}\t{}\t{}\t{}\n", creds.gid, creds.egid, creds.sgid, creds.fsgid);
    let files = task.as_ref().and_then(|task| task.try_files());
    say!(out, "FDSize:\t{}\nGroups:\t", files.map_or(0, |files| files.capacity()));
    for group in creds.groups.iter() {
        say!(out, "{group} ");
    }
    let (pid, group, session) = (process.pid(), process.pgid(), process.sid());
    say!(out, "\nNStgid:\t{pid}\nNSpid:\t{id}\nNSpgid:\t{group}\nNSsid:\t{session}\n");
    if task.as_ref().is_some_and(|task| task.mm().is_some()) {
        memory(key, out);
    }
    say!(out, "Threads:\t{}\n", process.threads().len().max(1));
    let (shared, ignored, caught) = process.signal_summary();
    let (pending, blocked) = task.as_ref().map(|task| task.signal_sets()).unwrap_or_default();
    say!(out, "SigQ:\t0/{}\n", process.rlimit(linux_raw_sys::general::RLIMIT_SIGPENDING));
    say!(
        out,
        "SigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\n",
        pending.0,
        shared.0,
        blocked.0
    );
    say!(out, "SigIgn:\t{:016x}\nSigCgt:\t{:016x}\n", ignored.0, caught.0);
    say!(out, "CapInh:\t{:016x}\nCapPrm:\t{:016x}\n", creds.inheritable.0, creds.permitted.0);
    say!(out, "CapEff:\t{:016x}\nCapBnd:\t{:016x}\n", creds.effective.0, creds.bounding.0);
    say!(out, "CapAmb:\t{:016x}\nNoNewPrivs:\t{}\n", creds.ambient.0, u8::from(creds.no_new_privs));
    let filters = task.as_deref().map_or(0, crate::task::seccomp::filters);
    let mode = if filters > 0 { 2 } else { 0 };
    say!(out, "Seccomp:\t{mode}\nSeccomp_filters:\t{filters}\n");
    say!(out, "Speculation_Store_Bypass:\tnot vulnerable\n");
    let cpus = crate::arch::cpu::count();
    let mask = u64::MAX >> (64 - cpus.clamp(1, 64));
    say!(out, "Cpus_allowed:\t{mask:x}\nCpus_allowed_list:\t");
    match cpus {
        1 => say!(out, "0\n"),
        cpus => say!(out, "0-{}\n", cpus - 1),
    }
    say!(out, "Mems_allowed:\t1\nMems_allowed_list:\t0\n");
    let usage = process.usage();
    say!(out, "voluntary_ctxt_switches:\t{}\n", usage.voluntary);
    say!(out, "nonvoluntary_ctxt_switches:\t{}\n", usage.involuntary);
    Ok(())
}

/// The part of a status that is about memory.
fn memory(key: &Key, out: &mut Text) {
    let size = maps::sizes(key);
    let kib = |bytes: usize| bytes / 1024;
    for (name, value) in [
        ("VmPeak", kib(size.virtual_size)),
        ("VmSize", kib(size.virtual_size)),
        ("VmLck", kib(size.locked)),
        ("VmPin", 0),
        ("VmHWM", kib(size.peak_resident)),
        ("VmRSS", kib(size.resident)),
        ("RssAnon", kib(size.resident_anon)),
        ("RssFile", kib(size.resident_file)),
        ("RssShmem", kib(size.resident_shmem)),
        ("VmData", kib(size.data)),
        ("VmStk", kib(size.stack)),
        ("VmExe", kib(maps::text_size(key) as usize)),
        ("VmLib", 0),
        ("VmPTE", kib(maps::table_size(key))),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ] {
        say!(out, "{name}:\t{value:8} kB\n");
    }
    let dumping = process(key).is_ok_and(|process| process.dumps_core());
    say!(out, "CoreDumping:\t{}\nTHP_enabled:\t0\n", u8::from(dumping));
}
