//! Calls, switches, processes and threads.

use crate::peer::wait;
use crate::{Case, fastest, ok};
use std::ffi::CString;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

pub const CASES: &[Case] = &[
    ("getppid", getppid),
    ("clock_gettime", clock_gettime),
    ("futex, round trip of 2 threads", futexes),
    ("thread: create, join", threads),
    ("fork, exit, wait", fork),
    ("fork, exit, wait, with 64 MiB", fork_large),
    ("fork, exec, exit, wait", fork_exec),
    ("posix_spawn, exit, wait", spawn),
    ("signal to itself", signal),
];

fn getppid() -> f64 {
    fastest(|count| {
        for _ in 0..count {
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
    })
}

fn clock_gettime() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    fastest(|count| {
        for _ in 0..count {
            unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        }
    })
}

/// A word that two threads hand to each other: there and back.
fn futexes() -> f64 {
    static TURN: AtomicI32 = AtomicI32::new(0);
    static END: AtomicBool = AtomicBool::new(false);
    fn hand_over(to: i32) {
        TURN.store(to, Ordering::SeqCst);
        let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        ok(unsafe { libc::syscall(libc::SYS_futex, TURN.as_ptr(), wake, 1) });
    }
    fn wait_for(turn: i32) {
        let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        while TURN.load(Ordering::SeqCst) != turn {
            let none = null::<libc::timespec>();
            unsafe { libc::syscall(libc::SYS_futex, TURN.as_ptr(), wait, 1 - turn, none) };
        }
    }
    let other = std::thread::spawn(|| {
        while !END.load(Ordering::SeqCst) {
            wait_for(1);
            hand_over(0);
        }
    });
    let result = fastest(|count| {
        for _ in 0..count {
            hand_over(1);
            wait_for(0);
        }
    });
    END.store(true, Ordering::SeqCst);
    hand_over(1);
    other.join().unwrap();
    result
}

fn threads() -> f64 {
    extern "C" fn nothing(_: *mut libc::c_void) -> *mut libc::c_void {
        null_mut()
    }
    fastest(|count| {
        for _ in 0..count {
            let mut thread = 0;
            unsafe {
                assert_eq!(libc::pthread_create(&mut thread, null(), nothing, null_mut()), 0);
                assert_eq!(libc::pthread_join(thread, null_mut()), 0);
            }
        }
    })
}

fn fork() -> f64 {
    fastest(|count| {
        for _ in 0..count {
            match ok(unsafe { libc::fork() }) {
                0 => unsafe { libc::_exit(0) },
                child => wait(child as libc::pid_t),
            }
        }
    })
}

fn fork_large() -> f64 {
    const SIZE: usize = 64 << 20;
    let memory = crate::memory::map(SIZE, -1);
    // In pages, as a program's heap is after a while: large ones would make it a matter of 32.
    ok(unsafe { libc::madvise(memory.cast(), SIZE, libc::MADV_NOHUGEPAGE) });
    crate::memory::touch(memory, SIZE);
    let result = fork();
    crate::memory::unmap(memory, SIZE);
    result
}

/// This program, as one that does nothing.
fn nothing() -> [CString; 2] {
    let path = std::env::current_exe().unwrap();
    [path.to_str().unwrap(), "--nothing"].map(|word| CString::new(word).unwrap())
}

fn fork_exec() -> f64 {
    let words = nothing();
    let argv = [words[0].as_ptr(), words[1].as_ptr(), null()];
    let env = [null()];
    fastest(|count| {
        for _ in 0..count {
            match ok(unsafe { libc::fork() }) {
                0 => unsafe {
                    libc::execve(argv[0], argv.as_ptr(), env.as_ptr());
                    libc::_exit(1)
                },
                child => wait(child as libc::pid_t),
            }
        }
    })
}

fn spawn() -> f64 {
    let words = nothing();
    let argv = [words[0].as_ptr().cast_mut(), words[1].as_ptr().cast_mut(), null_mut()];
    let env = [null_mut()];
    fastest(|count| {
        for _ in 0..count {
            let mut child = 0;
            let result = unsafe {
                let (argv, env) = (argv.as_ptr(), env.as_ptr());
                libc::posix_spawn(&mut child, words[0].as_ptr(), null(), null(), argv, env)
            };
            assert_eq!(result, 0);
            wait(child);
        }
    })
}

fn signal() -> f64 {
    extern "C" fn handler(_: libc::c_int) {}
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
    let pid = unsafe { libc::getpid() };
    fastest(|count| {
        for _ in 0..count {
            unsafe { libc::kill(pid, libc::SIGUSR1) };
        }
    })
}
