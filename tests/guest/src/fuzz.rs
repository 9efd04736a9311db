//! Random system calls: valid, edge and wild arguments from several threads, in processes that may
//! die of them. The kernel must stay up, answer, and get its memory back.
//!
//! ```text
//! guest-tests --fuzz SECONDS [SEED]
//! ```
//!
//! A seed makes the same calls with the same arguments in every thread; how they interleave is the
//! scheduler's. Each round names its seed before it starts, so the last line printed says what to
//! run again.

use std::io::Write;
use std::time::{Duration, Instant};

/// Threads of a round.
const THREADS: u64 = 3;
/// Calls of each thread in a round.
const CALLS: u32 = 2000;
/// After which a round is killed.
const ROUND_LIMIT: Duration = Duration::from_secs(8);
/// How long the end of a killed process may take: it may have memory to give back, and the machine
/// others to serve.
const KILL_LIMIT: Duration = Duration::from_secs(180);
/// Highest call number tried.
const LAST_CALL: u64 = 470;

/// Calls that would end the experiment rather than tell something: the machine's end, signals to
/// everybody (as root they reach the harness), waiting for nothing, and a clock that runs away.
const SPARED: &[i64] = &[
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_pause,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigreturn,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    // What lies below a new mount is out of reach of those who clear up.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsconfig,
    libc::SYS_acct,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setpriority,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setattr,
    libc::SYS_prlimit64,
    libc::SYS_setrlimit,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
];

/// The generator xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Places that arguments point to.
struct Places {
    /// Readable and writable memory with something in it.
    memory: usize,
    /// The last bytes before a hole.
    edge: usize,
    /// Mapped, but not accessible.
    forbidden: usize,
    /// A path that exists.
    path: usize,
}

const MEMORY: usize = 1 << 16;

impl Places {
    fn new(random: &mut Random, path: &std::ffi::CStr) -> Places {
        unsafe {
            let map = |len, prot| {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) as usize
            };
            let memory = map(MEMORY + 4096, libc::PROT_READ | libc::PROT_WRITE);
            libc::munmap((memory + MEMORY) as *mut libc::c_void, 4096);
            for at in (0..MEMORY / 2).step_by(8) {
                // Small numbers, so that structures make sense now and then.
                let word = random.next() >> random.below(64);
                ((memory + at) as *mut u64).write(word);
            }
            Places {
                memory,
                edge: memory + MEMORY - 8,
                forbidden: map(4096, libc::PROT_NONE),
                path: path.as_ptr() as usize,
            }
        }
    }
}

fn argument(random: &mut Random, places: &Places) -> usize {
    const NUMBERS: [usize; 24] = [
        0,
        1,
        2,
        3,
        4,
        8,
        16,
        127,
        128,
        255,
        4095,
        4096,
        4097,
        65535,
        65536,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 32,
        isize::MAX as usize,
        isize::MIN as usize,
        usize::MAX,
        usize::MAX - 4095,
        -100isize as usize,
    ];
    match random.below(16) {
        0..=2 => random.below(12) as usize,
        3..=4 => random.one_of(&NUMBERS),
        5..=8 => places.memory + random.below(MEMORY as u64 / 2) as usize / 8 * 8,
        9 => places.path,
        10 => places.edge + random.below(8) as usize,
        11 => random.one_of(&[places.forbidden, 8, 0x7fff_ffff_f000, 0xffff_8000_0000_0000]),
        12 => 1 << random.below(64),
        13 => random.next() as usize,
        14 => random.below(4096) as usize,
        _ => random.next() as u32 as usize,
    }
}

/// Numbers and arguments of what one thread does.
fn calls(seed: u64, path: &std::ffi::CStr) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let places = Places::new(&mut random, path);
    for _ in 0..CALLS {
        let number = random.below(LAST_CALL) as i64;
        let a: [usize; 6] = std::array::from_fn(|_| argument(&mut random, &places));
        if SPARED.contains(&number) {
            continue;
        }
        // A new process would do the rest of the round as well: fork alone, and end there.
        if [libc::SYS_fork, libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3].contains(&number) {
            unsafe {
                let pid = libc::syscall(libc::SYS_fork) as i32;
                if pid == 0 {
                    libc::_exit(0);
                }
            }
            continue;
        }
        unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    }
}

/// One round in a process of its own group.
fn round(seed: u64) -> End {
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            libc::setpgid(0, 0);
            let dir = format!("/tmp/fuzz-{seed}");
            let _ = std::fs::create_dir_all(&dir);
            let _ = std::env::set_current_dir(&dir);
            let _ = std::fs::write("file", [7; 5000]);
            // What is printed is of no use, and reading would wait.
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            for fd in 0..3 {
                libc::dup2(null, fd);
            }
            if seed % 2 == 1 {
                // Most programs are not root.
                libc::chmod(c".".as_ptr(), 0o777);
                libc::setgid(65534);
                libc::setuid(65534);
            }
            libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
            libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0);
            libc::open(c"file".as_ptr(), libc::O_RDWR);
            libc::pipe2([0; 2].as_mut_ptr(), libc::O_NONBLOCK);
            libc::epoll_create1(0);
            libc::eventfd(0, libc::EFD_NONBLOCK);
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| std::thread::spawn(move || calls(seed ^ thread << 32, c"file")))
                .collect();
            for thread in threads {
                let _ = thread.join();
            }
            libc::_exit(0);
        }
        let status = end_of(pid);
        libc::kill(-pid, libc::SIGKILL);
        // As the main process of a VM we inherit what it left behind.
        while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        status
    }
}

/// How a round ended.
enum End {
    Itself,
    Died,
    /// Killed because its time was up: it waited for something, and may have turned its alarms off.
    Late,
}

/// Waits for a round. What SIGKILL doesn't end within [`KILL_LIMIT`] is the kernel's fault.
fn end_of(pid: libc::pid_t) -> End {
    let started = Instant::now();
    let mut late = false;
    loop {
        let mut status = 0;
        if unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } == pid {
            return match (late, libc::WIFEXITED(status)) {
                (true, _) => End::Late,
                (_, true) => End::Itself,
                _ => End::Died,
            };
        }
        if !late && started.elapsed() > ROUND_LIMIT {
            late = true;
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        assert!(started.elapsed() < ROUND_LIMIT + KILL_LIMIT, "process {pid} can't be killed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number of /proc/dock2uni/counters; `None` on Linux.
pub fn counter(name: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/dock2uni/counters").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// Removes what rounds leave in memory: their files, and System V objects.
fn tidy() {
    if let Ok(entries) = std::fs::read_dir("/tmp") {
        for entry in entries.flatten() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    unsafe {
        for id in objects("shm") {
            libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
        }
        for id in objects("sem") {
            libc::semctl(id, 0, libc::IPC_RMID);
        }
        for id in objects("msg") {
            libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut());
        }
    }
}

fn objects(kind: &str) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
    let id = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
    text.lines().skip(1).filter_map(id).collect()
}

/// What must not grow: name, and by how much it may differ.
///
/// The heap's bytes in use depend on names and files at hand; pages beyond the heap and stacks are
/// those of page tables and of the programs that run.
pub const WATCHED: [(&str, i64); 8] = [
    ("tasks", 0),
    ("processes", 0),
    ("address_spaces", 0),
    ("files", 0),
    ("sockets", 0),
    // Mounts without a place (of pipes, of memfd_create(2)) are made at first use.
    ("mounts", 4),
    // Connections that have ended stay known for a minute (TIME_WAIT).
    ("heap_bytes", 1 << 20),
    ("frames_other", 64),
];

/// Frames in use, without what can be dropped.
pub fn frames_in_use() -> Option<i64> {
    let [total, free, cached] = ["frames_total", "frames_free", "frames_cached"].map(counter);
    Some(total? - free? - cached?)
}

/// All counters as one line.
pub fn counters() -> String {
    let text = std::fs::read_to_string("/proc/dock2uni/counters").unwrap_or_default();
    text.trim_end().replace('\n', ", ")
}

/// The present numbers of [`WATCHED`], after what ends by itself has ended, and without what is only
/// remembered.
pub fn settle() -> Vec<Option<i64>> {
    std::thread::sleep(Duration::from_millis(300));
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
    WATCHED.iter().map(|(name, _)| counter(name)).collect()
}

/// Compares with an earlier [`settle`]; names what grew.
pub fn grown(before: &[Option<i64>], after: &[Option<i64>]) -> Vec<String> {
    let pairs = before.iter().zip(after).zip(WATCHED);
    let grew = |((before, after), (name, slack)): ((&Option<i64>, &Option<i64>), (&str, i64))| {
        let (before, after) = ((*before)?, (*after)?);
        (after > before + slack).then(|| format!("{name} grew from {before} to {after}"))
    };
    pairs.filter_map(grew).collect()
}

/// Frames that may stay in use: heap and page tables keep some for the next time.
const FRAME_SLACK: i64 = 4096;

/// Runs rounds for so long; returns the exit status.
pub fn main(words: &[String]) -> i32 {
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let Some(seconds) = number(0) else {
        eprintln!("usage: guest-tests --fuzz SECONDS [SEED]");
        return 2;
    };
    let first = number(1).unwrap_or(1);
    // The first rounds fill caches that stay.
    for warm in 0..2 {
        round(first ^ 1 << 60 ^ warm);
    }
    tidy();
    let (before, frames) = (settle(), frames_in_use());
    println!("counters: {}", counters());
    let started = Instant::now();
    let mut seed = first;
    let mut ends = [0u64; 3];
    while started.elapsed() < Duration::from_secs(seconds) {
        println!("round {seed}");
        let _ = std::io::stdout().flush();
        ends[round(seed) as usize] += 1;
        seed += 1;
        if seed % 64 == 0 {
            tidy();
        }
    }
    tidy();
    let (after, frames_after) = (settle(), frames_in_use());
    let mut wrong = grown(&before, &after);
    if let (Some(before), Some(after)) = (frames, frames_after)
        && after > before + FRAME_SLACK
    {
        wrong.push(format!("frames in use grew from {before} to {after}"));
    }
    for line in &wrong {
        println!("leak: {line}");
    }
    println!("counters: {}", counters());
    let [ended, died, late] = ends;
    println!(
        "fuzz: {} rounds from seed {first}: {ended} ended, {died} died, {late} ran out of time; \
         {} leaks; frames in use {frames:?} before, {frames_after:?} after",
        seed - first,
        wrong.len()
    );
    i32::from(!wrong.is_empty())
}
