//! execve(2).

use crate::harness::pipe;
use crate::harness::*;
use libc::*;
use std::ptr::null;

cases![
    arguments_and_environment_arrive,
    missing_and_unfit_programs_fail,
    scripts_run_their_interpreter,
    close_on_exec_is_honoured,
    other_threads_end,
    too_many_arguments_fail,
    auxiliary_vector_is_sane,
    a_program_that_is_written_to_does_not_run,
];

/// What the program checks when it was executed by one of the cases; returns the exit status.
pub fn probe(args: &[String]) -> i32 {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["args", a, b] => i32::from(
            !(a == "one" && b.is_empty() && std::env::var("PROBE").as_deref() == Ok("x=y")),
        ),
        ["signals"] => unsafe {
            let mut action: sigaction = std::mem::zeroed();
            sigaction(SIGUSR1, null(), &mut action);
            let reset = action.sa_sigaction == SIG_DFL;
            sigaction(SIGUSR2, null(), &mut action);
            let kept = action.sa_sigaction == SIG_IGN;
            let mut mask: sigset_t = std::mem::zeroed();
            sigprocmask(SIG_BLOCK, null(), &mut mask);
            i32::from(!(reset && kept && sigismember(&mask, SIGTERM) == 1))
        },
        ["fds", closed, open] => unsafe {
            let state = |fd: &str| fcntl(fd.parse().unwrap(), F_GETFD);
            i32::from(!(state(closed) == -1 && state(open) == 0))
        },
        ["places"] => {
            let local = 0u8;
            println!("{} {}", &raw const local as usize, unsafe { sbrk(0) } as usize);
            0
        }
        ["threads"] => {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().count();
            i32::from(!(tasks == 1 && unsafe { getpid() == gettid() }))
        }
        // As the interpreter of a script: our path, the script's one argument, the script, its
        // arguments.
        ["script and more", script, "arg"] => i32::from(!script.ends_with("/script")),
        _ => 99,
    }
}

/// Replaces this process by this program with `--exec-probe` and `args`. Returns only on failure.
pub fn run_self(args: &[&str]) -> i32 {
    let mut all = vec![c("guest-tests"), c("--exec-probe")];
    all.extend(args.iter().map(|arg| c(arg)));
    exec(&c("/proc/self/exe"), &all)
}

fn exec(path: &std::ffi::CStr, args: &[std::ffi::CString]) -> i32 {
    let mut argv: Vec<*const c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(null());
    let env = [c"PROBE=x=y".as_ptr(), c"PATH=/bin".as_ptr(), null()];
    unsafe { execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    98
}

fn expect_success(body: impl FnOnce() -> i32) {
    let status = wait_for(child(body));
    assert!(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status {status:#x}");
}

fn write_script(name: &str, text: &[u8], mode: mode_t) -> std::ffi::CString {
    let path = format!("{}/{name}", scratch());
    std::fs::write(&path, text).unwrap();
    let path = c(&path);
    ok(unsafe { chmod(path.as_ptr(), mode) });
    path
}

fn arguments_and_environment_arrive() {
    expect_success(|| run_self(&["args", "one", ""]));
}

fn missing_and_unfit_programs_fail() {
    unsafe {
        let argv = [c"x".as_ptr(), null()];
        fails!(execve(c"/no/such/program".as_ptr(), argv.as_ptr(), argv[1..].as_ptr()), ENOENT);
        fails!(execve(c"/tmp".as_ptr(), argv.as_ptr(), argv[1..].as_ptr()), EACCES);
        fails!(execve(c"".as_ptr(), argv.as_ptr(), argv[1..].as_ptr()), ENOENT);
        for (name, text, mode, error) in [
            ("plain", &b"no magic"[..], 0o700, ENOEXEC),
            ("empty", b"", 0o700, ENOEXEC),
            ("noexec", b"#!/bin/sh\n", 0o600, EACCES),
            ("lost", b"#!/no/such/interpreter\n", 0o700, ENOENT),
            ("short-elf", b"\x7fELF\x02\x01\x01", 0o700, ENOEXEC),
        ] {
            let path = write_script(name, text, mode);
            execve(path.as_ptr(), argv.as_ptr(), argv[1..].as_ptr());
            assert_eq!(*__errno_location(), error, "{name}");
        }
    }
}

fn scripts_run_their_interpreter() {
    let me = std::fs::read_link("/proc/self/exe").unwrap();
    let copy = format!("{}/probe", scratch());
    std::fs::copy(me, &copy).unwrap();
    // "--exec-probe" has to be the first word, so a script of a script brings the rest.
    let text = format!("#!{copy} --exec-probe\n");
    let path = write_script("script", text.as_bytes(), 0o700);
    let status = wait_for(child(|| exec(&path, &[c("ignored"), c("args")])));
    assert_eq!(WEXITSTATUS(status), 99, "the interpreter ran and found unknown words");
    let loop_path = c(&format!("{}/loop", scratch()));
    write_script("loop", format!("#!{}\n", loop_path.to_str().unwrap()).as_bytes(), 0o700);
    unsafe {
        let argv = [c"x".as_ptr(), null()];
        fails!(execve(loop_path.as_ptr(), argv.as_ptr(), argv[1..].as_ptr()), ELOOP);
    }
}

fn close_on_exec_is_honoured() {
    let (r, w) = pipe();
    unsafe { ok(fcntl(r, F_SETFD, FD_CLOEXEC)) };
    expect_success(|| run_self(&["fds", &r.to_string(), &w.to_string()]));
}

fn other_threads_end() {
    expect_success(|| {
        for _ in 0..3 {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
        }
        pause_ms(10);
        run_self(&["threads"])
    });
    // From a thread that isn't the leader: it takes over the process ID.
    expect_success(|| {
        std::thread::spawn(|| run_self(&["threads"])).join().unwrap_or(97);
        96
    });
}

fn too_many_arguments_fail() {
    let long = c(&"x".repeat(200_000));
    let code = exec(&c("/proc/self/exe"), &[c("a"), long]);
    assert_eq!((code, std::io::Error::last_os_error().raw_os_error()), (98, Some(E2BIG)));
}

fn auxiliary_vector_is_sane() {
    unsafe {
        assert_eq!(getauxval(AT_PAGESZ), 4096);
        assert_eq!(getauxval(AT_CLKTCK), 100);
        assert_eq!(
            (getauxval(AT_UID), getauxval(AT_EGID)),
            (u64::from(getuid()), u64::from(getegid()))
        );
        assert_eq!(getauxval(AT_SECURE), 0);
        let random = std::slice::from_raw_parts(getauxval(AT_RANDOM) as *const u8, 16);
        assert!(random.iter().any(|&byte| byte != 0));
        let name = std::ffi::CStr::from_ptr(getauxval(AT_EXECFN) as *const c_char);
        assert!(!name.is_empty());
        assert!(getauxval(AT_PHNUM) > 0 && getauxval(AT_ENTRY) != 0);
    }
}

fn a_program_that_is_written_to_does_not_run() {
    let copy = format!("{}/program", scratch());
    std::fs::copy("/proc/self/exe", &copy).unwrap();
    let run = || {
        let status = wait_for(child(|| unsafe {
            let argv = [c(&copy), c("--list")];
            let argv = [argv[0].as_ptr(), argv[1].as_ptr(), null()];
            close(1);
            ok(open(c"/dev/null".as_ptr(), O_WRONLY));
            execv(argv[0], argv.as_ptr());
            *__errno_location()
        }));
        assert!(WIFEXITED(status), "{status:#x}");
        WEXITSTATUS(status)
    };
    assert_eq!(run(), 0);
    let writer = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
    assert_eq!(run(), ETXTBSY);
    let second = writer.try_clone().unwrap();
    drop(writer);
    assert_eq!(run(), ETXTBSY);
    drop(second);
    assert_eq!(run(), 0);
    // Who reads it is in nobody's way.
    let _reader = std::fs::File::open(&copy).unwrap();
    assert_eq!(run(), 0);
}
