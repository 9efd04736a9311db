//! Core files: that they are written, where, and that a debugger finds in them what was.

use crate::harness::{child, in_vm, ok, scratch, wait_for};
use libc::*;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

cases!(
    a_core_file_has_memory_and_registers,
    a_core_file_has_every_thread,
    there_is_no_core_file_without_leave,
    a_core_file_ends_at_its_limit,
    core_files_are_named_by_the_pattern,
    memory_is_left_out_as_asked,
);

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Whether core files are put beside the program as `core`: elsewhere they go to whom the system says.
fn plain() -> bool {
    let pattern = std::fs::read_to_string(PATTERN).unwrap();
    let by_pid = std::fs::read_to_string("/proc/sys/kernel/core_uses_pid").unwrap();
    (pattern.as_str(), by_pid.as_str()) == ("core\n", "0\n")
}

fn limit(bytes: u64) {
    let limit = rlimit { rlim_cur: bytes, rlim_max: RLIM_INFINITY };
    ok(unsafe { setrlimit(RLIMIT_CORE, &limit) });
}

/// Runs `body`, which ends by a signal, in a directory of its own; returns that, its number and its
/// wait status.
fn crash(body: impl FnOnce()) -> (PathBuf, i32, i32) {
    let dir = PathBuf::from(scratch());
    let pid = child(|| {
        std::env::set_current_dir(&dir).unwrap();
        limit(RLIM_INFINITY);
        body();
        0
    });
    let status = wait_for(pid);
    (dir, pid, status)
}

fn dumped(status: i32, signal: i32) -> bool {
    assert!(WIFSIGNALED(status) && WTERMSIG(status) == signal, "{status:#x}");
    WCOREDUMP(status)
}

struct Core {
    file: std::fs::File,
    /// Address, length in the file, offset.
    memory: Vec<[u64; 3]>,
    /// Kind and body.
    notes: Vec<(u32, Vec<u8>)>,
}

impl Core {
    fn read(path: &Path) -> Core {
        // Not all of it: most of a core file may be holes.
        let file = std::fs::File::open(path).unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len().min(256 << 10) as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(bytes[..20], *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0");
        let (mut memory, mut notes) = (Vec::new(), Vec::new());
        for number in 0..usize::from(bytes[56]) | usize::from(bytes[57]) << 8 {
            let at = word(32) as usize + number * 56;
            if half(at) == 1 {
                memory.push([word(at + 16), word(at + 32), word(at + 8)]);
                continue;
            }
            assert_eq!(half(at), 4);
            let mut at = word(at + 8) as usize;
            let end = at + word(word(32) as usize + number * 56 + 32) as usize;
            while at < end {
                let [name, len] = [at, at + 4].map(|at| half(at) as usize);
                let body = at + 12 + name.next_multiple_of(4);
                notes.push((half(at + 8), bytes[body..body + len].to_vec()));
                at = body + len.next_multiple_of(4);
            }
        }
        Core { file, memory, notes }
    }

    fn notes(&self, kind: u32) -> Vec<&[u8]> {
        self.notes.iter().filter(|note| note.0 == kind).map(|note| &note.1[..]).collect()
    }

    /// A word of memory, if the file has it.
    fn word(&self, address: u64) -> Option<u64> {
        let inside = |part: &&[u64; 3]| (part[0]..part[0] + part[1]).contains(&address);
        let [start, _, offset] = *self.memory.iter().find(inside)?;
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, offset + address - start).unwrap();
        Some(u64::from_le_bytes(word))
    }
}

static MARK: AtomicU64 = AtomicU64::new(0);

fn a_core_file_has_memory_and_registers() {
    if !plain() {
        return;
    }
    let (dir, pid, status) = crash(|| {
        MARK.store(0x1234_5678_9abc, Ordering::Relaxed);
        // A page that nobody ever touches takes no room.
        let empty = unsafe {
            mmap(
                std::ptr::null_mut(),
                64 << 20,
                PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(empty, MAP_FAILED);
        // A write to nowhere, with a value that the registers keep.
        unsafe {
            std::arch::asm!("mov qword ptr [rax], 1", in("rax") 0x40, in("r14") 0x77_u64, in("rdi") empty);
        }
    });
    assert!(dumped(status, SIGSEGV));
    let path = dir.join("core");
    let meta = std::fs::metadata(&path).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((meta.mode() & 0o7777, meta.nlink()), (0o600, 1));
    assert!(meta.blocks() * 512 < 64 << 20, "{}", meta.blocks());
    let core = Core::read(&path);
    let address = (&raw const MARK) as u64;
    assert_eq!(core.word(address), Some(0x1234_5678_9abc));
    // Registers begin at 112, and r14 is the second of them.
    let status = core.notes(1);
    let word = |note: &[u8], at: usize| u64::from_le_bytes(note[at..at + 8].try_into().unwrap());
    assert_eq!((status.len(), status[0].len()), (1, 336));
    assert_eq!((word(status[0], 32) as i32, status[0][12]), (pid, SIGSEGV as u8));
    assert_eq!((word(status[0], 112 + 8), word(status[0], 112 + 80)), (0x77, 0x40));
    let stack = word(status[0], 112 + 19 * 8);
    assert!(core.word(stack & !7).is_some(), "its stack is there");
    // What it was, whom the signal was from, and what its memory was.
    let process = core.notes(3);
    assert_eq!((process[0].len(), word(process[0], 24) as i32), (136, pid));
    assert!(process[0][40..].starts_with(b"guest-tests\0"));
    let info = core.notes(0x5349_4749);
    assert_eq!((info[0][0], word(info[0], 16)), (SIGSEGV as u8, 0x40));
    assert!(core.notes(6)[0].len() > 64, "the auxiliary vector");
    let files = core.notes(0x4649_4c45)[0];
    let program = std::env::current_exe().unwrap();
    let name = program.as_os_str().as_encoded_bytes();
    assert!(files.windows(name.len()).any(|part| part == name));
    assert_eq!(core.notes(2)[0].len(), 512);
}

fn a_core_file_has_every_thread() {
    if !plain() {
        return;
    }
    let (dir, _, status) = crash(|| {
        static START: Barrier = Barrier::new(6);
        for _ in 0..4 {
            std::thread::spawn(|| {
                START.wait();
                loop {
                    unsafe { pause() };
                }
            });
        }
        std::thread::spawn(|| {
            START.wait();
            loop {
                MARK.fetch_add(1, Ordering::Relaxed);
            }
        });
        START.wait();
        // One that isn't the leader is the one to blame.
        std::thread::spawn(|| std::process::abort()).join().unwrap();
    });
    assert!(dumped(status, SIGABRT));
    let core = Core::read(&dir.join("core"));
    let threads = core.notes(1);
    assert_eq!(threads.len(), 7);
    let mut numbers: Vec<i32> =
        threads.iter().map(|note| i32::from_le_bytes(note[32..36].try_into().unwrap())).collect();
    let process = core.notes(3)[0];
    let pid = i32::from_le_bytes(process[24..28].try_into().unwrap());
    assert!(numbers[0] != pid, "the one that took the signal comes first");
    numbers.sort_unstable();
    numbers.dedup();
    assert!(numbers.len() == 7 && numbers.contains(&pid));
    assert_eq!(core.notes(2).len(), 7);
}

fn there_is_no_core_file_without_leave() {
    if !plain() {
        return;
    }
    let forbidding: [fn(); 3] = [
        || limit(0),
        || assert_eq!(unsafe { prctl(PR_SET_DUMPABLE, 0) }, 0),
        || std::fs::create_dir("core").unwrap(),
    ];
    for (number, forbid) in forbidding.into_iter().enumerate() {
        let (dir, _, status) = crash(|| {
            forbid();
            unsafe { raise(SIGQUIT) };
        });
        assert!(!dumped(status, SIGQUIT), "{number}");
        assert!(!dir.join("core").is_file());
        std::fs::remove_dir_all(dir).unwrap();
    }
    // What was there is another file.
    let (dir, _, status) = crash(|| {
        std::fs::write("core", "mine").unwrap();
        std::fs::hard_link("core", "other").unwrap();
        unsafe { raise(SIGQUIT) };
    });
    assert!(dumped(status, SIGQUIT));
    assert_eq!(std::fs::read(dir.join("other")).unwrap(), b"mine");
    assert!(std::fs::metadata(dir.join("core")).unwrap().len() > 4096);
}

fn a_core_file_ends_at_its_limit() {
    if !plain() {
        return;
    }
    let (dir, _, status) = crash(|| {
        limit(64 << 10);
        unsafe { raise(SIGABRT) };
    });
    assert!(dumped(status, SIGABRT));
    let meta = std::fs::metadata(dir.join("core")).unwrap();
    // Holes count for nothing.
    let room = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
    assert!(meta.len() >= 4096 && room < 256 << 10, "{} {room}", meta.len());
}

fn core_files_are_named_by_the_pattern() {
    if !plain() {
        return;
    }
    let dir = scratch();
    std::fs::create_dir(format!("{dir}/cores")).unwrap();
    // On Linux the pattern is everybody's.
    if !in_vm() {
        return;
    }
    std::fs::write(PATTERN, format!("{dir}/cores/%e.%p.%s\n")).unwrap();
    let shown = std::fs::read_to_string(PATTERN);
    let (_, pid, status) = crash(|| {
        ok(unsafe { prctl(PR_SET_NAME, c"a/b".as_ptr()) });
        unsafe { raise(SIGABRT) };
    });
    std::fs::write(PATTERN, "core\n").unwrap();
    assert_eq!(shown.unwrap(), format!("{dir}/cores/%e.%p.%s\n"));
    assert!(dumped(status, SIGABRT));
    let name = format!("{dir}/cores/a!b.{pid}.{SIGABRT}");
    assert!(std::fs::metadata(&name).unwrap().len() > 4096);
}

fn memory_is_left_out_as_asked() {
    if !plain() {
        return;
    }
    let map = |flags: c_int| unsafe {
        let at =
            mmap(std::ptr::null_mut(), 4096, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
        assert_ne!(at, MAP_FAILED);
        at.cast::<u64>().write(0x5555);
        at as u64
    };
    let (private, secret, shared) = (map(MAP_PRIVATE), map(MAP_PRIVATE), map(MAP_SHARED));
    ok(unsafe { madvise(secret as *mut c_void, 4096, MADV_DONTDUMP) });
    for (filter, kept) in
        [("0x33", [true, false, true]), ("0x32", [false, false, true]), ("1", [true, false, false])]
    {
        let (dir, _, status) = crash(|| {
            std::fs::write("/proc/self/coredump_filter", filter).unwrap();
            unsafe { raise(SIGABRT) };
        });
        assert!(dumped(status, SIGABRT));
        let core = Core::read(&dir.join("core"));
        let found = [private, secret, shared].map(|at| core.word(at) == Some(0x5555));
        assert_eq!(found, kept, "{filter}");
    }
}
