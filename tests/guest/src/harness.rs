//! Runs cases and gives them what most of them need.

use std::ffi::CString;
use std::time::{Duration, Instant};

/// A name and what it checks.
pub type Case = (&'static str, fn());

/// After this a case counts as hung.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// What a case leaves behind is gone by then, once it is told to.
const CLEANING_LIMIT: Duration = Duration::from_secs(10);
/// Process ID of the case that runs.
static CASE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

/// Makes a table of cases named `module::function`.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const CASES: &[$crate::harness::Case] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name as fn())),*];
    };
}

/// Checks that a call fails with the given errno.
macro_rules! fails {
    ($call:expr, $errno:ident) => {{
        *libc::__errno_location() = 0;
        let result = $call as i64;
        let errno = *libc::__errno_location();
        assert!(
            result == -1 && errno == libc::$errno,
            "{}: got {result}, errno {errno}, expected {}",
            stringify!($call),
            stringify!($errno)
        );
    }};
}

/// Runs what the arguments select; returns the exit status.
pub fn main(cases: &[Case]) -> i32 {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some("--exec-probe") = words.first().map(String::as_str) {
        return crate::exec::probe(&words[1..]);
    }
    if let [option, dir, last] = &words[..]
        && option.starts_with("--volume-")
    {
        let more = option == "--volume-load";
        return crate::volume::load(dir.as_ref(), last.parse().unwrap_or(0), more);
    }
    match words.first().map(String::as_str) {
        Some("--fuzz") => return crate::fuzz::main(&words[1..]),
        Some("--soak") => return crate::soak::main(&words[1..]),
        Some("--soak-child") => return 0,
        Some("--connections") => return crate::crowd::main(&words[1..]),
        Some("--directory" | "--large-file") => return crate::bulk::main(&words),
        Some("--fill" | "--failing" | "--resolver") => return crate::trouble::main(&words),
        Some("--scale" | "--fork-resident") => return crate::cpus::main(&words),
        Some("--pressure") => return crate::pressure::main(&words[1..]),
        _ => {}
    }
    if words == ["--list"] {
        cases.iter().for_each(|(name, _)| println!("{}", short(name)));
        return 0;
    }
    let (times, words) = match &words[..] {
        [option, count, words @ ..] if option == "--times" => (count.parse().unwrap_or(1), words),
        words => (1, words),
    };
    let (cases, words) = match words {
        [option, name] if option == "--after" => {
            let Some(at) = cases.iter().position(|case| short(case.0) == name) else {
                eprintln!("no case is called `{name}`");
                return 2;
            };
            (&cases[at + 1..], &[][..])
        }
        words => (cases, words),
    };
    // What a case's processes leave behind becomes ours, whatever session they have moved to.
    ok(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) });
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in (0..times).flat_map(|_| cases) {
        let name = short(name);
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let started = Instant::now();
        match run(*case) {
            Ok(()) => {
                passed += 1;
                println!("ok {name} ({} ms)", started.elapsed().as_millis());
            }
            Err(why) => {
                failed += 1;
                println!("not ok {name}: {why}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    i32::from(failed > 0)
}

fn short(name: &str) -> &str {
    name.split_once("::").map_or(name, |(_, rest)| rest)
}

fn run(case: fn()) -> Result<(), String> {
    use std::io::Write;
    std::io::stdout().flush().unwrap();
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            libc::setpgid(0, 0);
            // Rust's start-up code ignores SIGPIPE, and whoever started us may ignore others (nohup).
            for signal in 1..=64 {
                libc::signal(signal, libc::SIG_DFL);
            }
            CASE.store(libc::getpid(), std::sync::atomic::Ordering::Relaxed);
            // Of a process that had the same number, in an earlier run on Linux.
            let _ = std::fs::remove_dir_all(place(libc::getpid()));
            let outcome = std::panic::catch_unwind(case);
            libc::_exit(if outcome.is_ok() { 0 } else { 101 });
        }
        // A limit of its own (alarm(2)) would not end a case that blocks the signal, is traced, or
        // uses that timer itself.
        let hung = !ends_within(pid, TIME_LIMIT);
        if hung {
            println!("still there after {TIME_LIMIT:?}:");
            describe(pid, 1);
            libc::kill(pid, libc::SIGKILL);
        }
        let status = wait_for(pid);
        // What the case left behind must not disturb the next one.
        libc::kill(-pid, libc::SIGKILL);
        let orphans = end_children();
        let _ = std::fs::remove_dir_all(place(pid));
        if hung {
            return Err(format!("not ended after {TIME_LIMIT:?}"));
        }
        if libc::WIFSIGNALED(status) {
            return Err(format!("killed by signal {}", libc::WTERMSIG(status)));
        }
        match libc::WEXITSTATUS(status) {
            0 => orphans,
            code => Err(format!("exit status {code}")),
        }
    }
}

/// Whether the process ends in this time. It isn't waited for.
fn ends_within(pid: libc::pid_t, limit: Duration) -> bool {
    let fd = ok(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }) as i32;
    let deadline = Instant::now() + limit;
    let ended = loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        match unsafe { libc::poll(&mut poll, 1, left) } {
            0 => break false,
            1 => break true,
            _ => {
                let error = std::io::Error::last_os_error();
                assert_eq!(error.raw_os_error(), Some(libc::EINTR), "poll: {error}");
            }
        }
    };
    unsafe { libc::close(fd) };
    ended
}

/// Kills and reaps all children there are, and those they leave.
fn end_children() -> Result<(), String> {
    let deadline = Instant::now() + CLEANING_LIMIT;
    let children = || children_of(unsafe { libc::getpid() });
    loop {
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) } {
            0 if Instant::now() > deadline => {
                children().into_iter().for_each(|pid| describe(pid, 1));
                return Err("left processes that SIGKILL doesn't end".into());
            }
            0 => {
                for pid in children() {
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
                pause_ms(1);
            }
            -1 => {
                let error = std::io::Error::last_os_error();
                assert_eq!(error.raw_os_error(), Some(libc::ECHILD), "waitpid: {error}");
                return Ok(());
            }
            _ => {}
        }
    }
}

fn children_of(pid: libc::pid_t) -> Vec<libc::pid_t> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|w| w.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Prints what the threads of a process and of those below it wait for.
fn describe(pid: libc::pid_t, depth: usize) {
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let path = task.path();
        let file = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let state = state_in(&file("stat")).unwrap_or('?');
        println!(
            "{:indent$}{} of {pid} ({}): {state}, in {}, call {}",
            "",
            task.file_name().to_string_lossy(),
            file("comm").trim(),
            file("wchan"),
            file("syscall").trim(),
            indent = 2 * depth,
        );
    }
    // Whoever forks for ever isn't followed for ever.
    if depth < 10 {
        children_of(pid).into_iter().for_each(|child| describe(child, depth + 1));
    }
}

/// The state that a text of proc_pid_stat(5) tells, behind the name in parentheses.
fn state_in(stat: &str) -> Option<char> {
    stat.rsplit(") ").next()?.chars().next()
}

/// Waits for one child; returns its wait status.
pub fn wait_for(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    loop {
        let got = unsafe { libc::waitpid(pid, &mut status, 0) };
        if got == pid {
            return status;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EINTR), "waitpid({pid}): {error}");
    }
}

/// Runs `body` in a child process; returns its process ID. The child exits with what `body`
/// returns.
pub fn child(body: impl FnOnce() -> i32) -> libc::pid_t {
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        unsafe { libc::_exit(outcome.unwrap_or(101)) }
    }
    pid
}

/// Runs `body` in a child and expects it to exit with 0.
pub fn child_passes(body: impl FnOnce()) {
    let status = wait_for(child(|| {
        body();
        0
    }));
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "child failed: {status:#x}");
}

/// Panics with the call's name if it returned -1.
#[track_caller]
pub fn ok<T: TryInto<i64> + Copy>(result: T) -> T {
    assert!(result.try_into().ok() != Some(-1), "{}", std::io::Error::last_os_error());
    result
}

/// A NUL-terminated copy.
pub fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn place(case: libc::pid_t) -> String {
    format!("/tmp/guest-tests-{case}")
}

/// A directory of the case's own, under a memory-backed or writable place; removed when it has ended.
pub fn scratch() -> String {
    // By the case's own process ID, so that its children find the same place.
    let path = place(CASE.load(std::sync::atomic::Ordering::Relaxed));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Two connected descriptors: read end, write end.
pub fn pipe() -> (i32, i32) {
    let mut fds = [0; 2];
    ok(unsafe { libc::pipe(fds.as_mut_ptr()) });
    (fds[0], fds[1])
}

/// Reads up to `len` bytes.
#[track_caller]
pub fn read(fd: i32, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    let n = unsafe { libc::read(fd, buf.as_mut_ptr().cast(), len) };
    assert!(n >= 0, "read: {}", std::io::Error::last_os_error());
    buf.truncate(n as usize);
    buf
}

/// Writes all of it in one call.
#[track_caller]
pub fn write(fd: i32, bytes: &[u8]) {
    let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    assert_eq!(n, bytes.len() as isize, "write: {}", std::io::Error::last_os_error());
}

/// Sleeps.
pub fn pause_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Returns once the process or thread sleeps for a while, as those do that wait for something; one on
/// its way there may sleep for a moment.
pub fn until_asleep(number: i32) {
    let state = || state_in(&std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap());
    let mut seen = 0;
    while seen < 5 {
        seen = if state() == Some('S') { seen + 1 } else { 0 };
        pause_ms(1);
    }
}

/// Whether this is the VM, where settings and devices are nobody else's.
pub fn in_vm() -> bool {
    std::fs::exists("/proc/dock2uni").unwrap_or(false)
}

/// What ioctl(2) wants to know of an interface (netdevice(7)): its name, and nothing else yet.
pub fn interface(name: &str) -> libc::ifreq {
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// Reads the byte at an address, for the fault it may cause.
pub fn touch(at: *const u8) {
    unsafe { at.read_volatile() };
}
