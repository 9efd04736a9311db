//! fork(2), wait(2), process groups, sessions, exit.

use crate::harness::*;
use crate::harness::{pipe, read, write};
use libc::*;
use std::ptr::null_mut;

cases![
    exit_status_reaches_the_parent,
    killed_child_reports_its_signal,
    wait_without_children_fails,
    wnohang_returns_at_once,
    waitid_can_leave_the_child_waitable,
    orphans_go_to_the_reaper,
    subreaper_adopts_orphans,
    parent_death_signal_arrives,
    process_groups_can_be_waited_for,
    sessions_follow_their_rules,
    vfork_shares_memory_until_exec_or_exit,
    fork_copies_memory_both_ways,
    many_children_are_all_reaped,
    who_reaps_has_been_signalled,
    stopped_and_continued_children_are_reported,
    ignored_sigchld_reaps_by_itself,
    descriptors_are_shared_with_offsets,
    rusage_of_children_adds_up,
    cpu_time_is_limited,
];

fn exit_status_reaches_the_parent() {
    for code in [0, 1, 42, 255] {
        let status = wait_for(child(|| code));
        assert!(WIFEXITED(status));
        assert_eq!(WEXITSTATUS(status), code);
    }
    // Only the low eight bits travel.
    let status = wait_for(child(|| 0x1234));
    assert_eq!(WEXITSTATUS(status), 0x34);
}

fn killed_child_reports_its_signal() {
    for signal in [SIGKILL, SIGTERM, SIGUSR1, SIGRTMIN()] {
        let pid = child(|| {
            loop {
                unsafe { pause() };
            }
        });
        ok(unsafe { kill(pid, signal) });
        let status = wait_for(pid);
        assert!(WIFSIGNALED(status), "{status:#x}");
        assert_eq!(WTERMSIG(status), signal);
    }
    let status = wait_for(child(|| unsafe { abort() }));
    assert_eq!(WTERMSIG(status), SIGABRT);
}

fn wait_without_children_fails() {
    unsafe {
        fails!(waitpid(-1, null_mut(), 0), ECHILD);
        fails!(waitpid(1 << 21, null_mut(), 0), ECHILD);
        let pid = child(|| 0);
        fails!(waitpid(pid, null_mut(), 0x0010_0000), EINVAL);
        fails!(waitpid(-(pid + 12345), null_mut(), 0), ECHILD);
        wait_for(pid);
        fails!(kill(pid, 0), ESRCH);
    }
}

fn wnohang_returns_at_once() {
    let (r, w) = pipe();
    let pid = child(|| {
        unsafe { close(w) };
        read(r, 1);
        0
    });
    let mut status = 0;
    assert_eq!(unsafe { waitpid(pid, &mut status, WNOHANG) }, 0);
    unsafe { close(w) };
    assert_eq!(wait_for(pid), 0);
}

fn waitid_can_leave_the_child_waitable() {
    unsafe {
        let pid = child(|| 7);
        for options in [WEXITED | WNOWAIT, WEXITED] {
            let mut info: siginfo_t = std::mem::zeroed();
            ok(waitid(P_PID, pid as id_t, &mut info, options));
            assert_eq!((info.si_signo, info.si_code), (SIGCHLD, CLD_EXITED));
            assert_eq!((info.si_pid(), info.si_status()), (pid, 7));
        }
        let mut info: siginfo_t = std::mem::zeroed();
        fails!(waitid(P_PID, pid as id_t, &mut info, WEXITED), ECHILD);
        fails!(waitid(P_ALL, 0, &mut info, 0), EINVAL);
    }
}

fn orphans_go_to_the_reaper() {
    let (r, w) = pipe();
    let middle = child(|| {
        let me = unsafe { getpid() };
        child(|| {
            while unsafe { getppid() } == me {
                pause_ms(1);
            }
            write(w, b"adopted");
            0
        });
        0
    });
    wait_for(middle);
    assert_eq!(read(r, 16), b"adopted");
}

fn subreaper_adopts_orphans() {
    unsafe { ok(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) };
    let me = unsafe { getpid() };
    let middle = child(|| {
        let parent = unsafe { getpid() };
        child(|| {
            while unsafe { getppid() } == parent {
                pause_ms(1);
            }
            (unsafe { getppid() } != me) as i32
        });
        0
    });
    wait_for(middle);
    let mut status = -1;
    let grandchild = ok(unsafe { wait(&mut status) });
    assert!(grandchild != middle);
    assert_eq!(status, 0);
}

fn parent_death_signal_arrives() {
    let (r, w) = pipe();
    let middle = child(|| {
        let (ready_r, ready_w) = pipe();
        child(|| unsafe {
            ok(prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0));
            let mut set: sigset_t = std::mem::zeroed();
            sigaddset(&mut set, SIGTERM);
            sigprocmask(SIG_BLOCK, &set, null_mut());
            write(ready_w, b"x");
            let mut signal = 0;
            sigwait(&set, &mut signal);
            write(w, &[signal as u8]);
            0
        });
        read(ready_r, 1);
        0
    });
    wait_for(middle);
    assert_eq!(read(r, 1), [SIGTERM as u8]);
}

fn process_groups_can_be_waited_for() {
    unsafe {
        let leader = child(|| {
            pause();
            0
        });
        ok(setpgid(leader, leader));
        let member = child(|| {
            pause();
            0
        });
        ok(setpgid(member, leader));
        assert_eq!(getpgid(member), leader);
        ok(kill(-leader, SIGTERM));
        let mut seen = [ok(waitpid(-leader, null_mut(), 0)), ok(waitpid(-leader, null_mut(), 0))];
        seen.sort();
        let mut expected = [leader, member];
        expected.sort();
        assert_eq!(seen, expected);
        fails!(waitpid(-leader, null_mut(), 0), ECHILD);
        fails!(kill(-leader, 0), ESRCH);
        fails!(setpgid(0, -1), EINVAL);
        fails!(setpgid(1 << 21, 0), ESRCH);
    }
}

fn sessions_follow_their_rules() {
    child_passes(|| unsafe {
        let me = getpid();
        assert_eq!(ok(setsid()), me);
        assert_eq!((getsid(0), getpgrp()), (me, me));
        fails!(setsid(), EPERM);
        fails!(setpgid(0, 0), EPERM);
        // A group of another session can't be joined.
        let pid = child(|| {
            pause();
            0
        });
        fails!(setpgid(pid, getppid()), EPERM);
        kill(pid, SIGKILL);
        wait_for(pid);
    });
}

fn vfork_shares_memory_until_exec_or_exit() {
    unsafe {
        let mut word = 1u32;
        let shared = &raw mut word;
        // Through clone(2): Rust can't call vfork(2), which returns twice on one stack.
        let mut stack = vec![0u8; 64 * 1024];
        extern "C" fn body(arg: *mut c_void) -> c_int {
            unsafe { arg.cast::<u32>().write_volatile(2) };
            0
        }
        let top = stack.as_mut_ptr().add(stack.len());
        let pid = ok(clone(body, top.cast(), CLONE_VM | CLONE_VFORK | SIGCHLD, shared.cast()));
        assert_eq!(shared.read_volatile(), 2, "the parent waits until the child is gone");
        assert_eq!(wait_for(pid), 0);
    }
}

fn fork_copies_memory_both_ways() {
    let mut pages = vec![1u8; 1 << 20];
    let (to_child_r, to_child_w) = pipe();
    let pid = child(|| {
        assert_eq!(read(to_child_r, 1).len(), 1);
        assert!(pages.iter().all(|&byte| byte == 1), "the parent's writes are not seen");
        pages.fill(3);
        0
    });
    pages.fill(2);
    write(to_child_w, b"x");
    assert_eq!(wait_for(pid), 0);
    assert!(pages.iter().all(|&byte| byte == 2), "the child's writes are not seen");
}

/// Whoever learns of a child's end without sleeping must not get its SIGCHLD later, in the middle of
/// something else.
fn who_reaps_has_been_signalled() {
    unsafe {
        let mut set: sigset_t = std::mem::zeroed();
        sigemptyset(&mut set);
        sigaddset(&mut set, SIGCHLD);
        ok(sigprocmask(SIG_BLOCK, &set, null_mut()));
        let at_once = timespec { tv_sec: 0, tv_nsec: 0 };
        for options in [0, WNOWAIT] {
            for round in 0..100 {
                let pid = child(|| 0);
                let mut info: siginfo_t = std::mem::zeroed();
                while info.si_pid() == 0 {
                    ok(waitid(P_PID, pid as id_t, &mut info, WEXITED | WNOHANG | options));
                }
                let signal = sigtimedwait(&set, null_mut(), &at_once);
                assert_eq!(signal, SIGCHLD, "round {round}");
                if options == WNOWAIT {
                    wait_for(pid);
                }
            }
        }
    }
}

fn many_children_are_all_reaped() {
    let mut pids: Vec<i32> = (0..200).map(|i| child(move || i & 0x7f)).collect();
    while !pids.is_empty() {
        let pid = ok(unsafe { wait(null_mut()) });
        let at = pids.iter().position(|&known| known == pid).expect("a child of ours");
        pids.swap_remove(at);
    }
    unsafe { fails!(wait(null_mut()), ECHILD) };
}

fn stopped_and_continued_children_are_reported() {
    unsafe {
        let pid = child(|| {
            loop {
                pause();
            }
        });
        let mut status = 0;
        ok(kill(pid, SIGSTOP));
        assert_eq!(waitpid(pid, &mut status, WUNTRACED), pid);
        assert!(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
        assert_eq!(waitpid(pid, &mut status, WUNTRACED | WNOHANG), 0, "reported once");
        ok(kill(pid, SIGCONT));
        assert_eq!(waitpid(pid, &mut status, WCONTINUED), pid);
        assert!(WIFCONTINUED(status));
        ok(kill(pid, SIGSTOP));
        ok(kill(pid, SIGKILL));
        let mut status = wait_for(pid);
        if WIFSTOPPED(status) {
            status = wait_for(pid);
        }
        assert_eq!(WTERMSIG(status), SIGKILL, "SIGKILL ends a stopped process");
    }
}

fn ignored_sigchld_reaps_by_itself() {
    unsafe {
        signal(SIGCHLD, SIG_IGN);
        let pid = child(|| 3);
        // wait(2) blocks until the last child is gone and then fails.
        fails!(waitpid(pid, null_mut(), 0), ECHILD);
        signal(SIGCHLD, SIG_DFL);
    }
}

fn descriptors_are_shared_with_offsets() {
    let path = c(&format!("{}/offset", scratch()));
    unsafe {
        let fd = ok(open(path.as_ptr(), O_RDWR | O_CREAT | O_TRUNC, 0o600));
        wait_for(child(|| {
            write(fd, b"child");
            0
        }));
        write(fd, b"+parent");
        assert_eq!(lseek(fd, 0, SEEK_CUR), 12);
        lseek(fd, 0, SEEK_SET);
        assert_eq!(read(fd, 99), b"child+parent");
    }
}

/// Minor faults of this process and of children it waited for, from /proc/self/stat.
fn own_faults() -> (i64, i64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[7].parse().unwrap(), fields[8].parse().unwrap())
}

fn rusage_of_children_adds_up() {
    unsafe {
        let (before, _) = own_faults();
        let pid = child(|| {
            // 32 MiB, page by page.
            let mut memory = vec![0u8; 32 << 20];
            memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            std::hint::black_box(&memory);
            assert!(own_faults().0 > 0);
            let mut used: rusage = std::mem::zeroed();
            while used.ru_utime.tv_sec == 0 && used.ru_utime.tv_usec < 20_000 {
                (0..100_000u64).for_each(|i| _ = std::hint::black_box(i));
                ok(getrusage(RUSAGE_SELF, &mut used));
            }
            0
        });
        let mut status = 0;
        let mut usage: rusage = std::mem::zeroed();
        assert_eq!(ok(wait4(pid, &mut status, 0, &mut usage)), pid);
        assert_eq!(status, 0);
        assert!(usage.ru_maxrss > 32 << 10 && usage.ru_minflt > 0, "{}", usage.ru_maxrss);
        usage = std::mem::zeroed();
        ok(getrusage(RUSAGE_CHILDREN, &mut usage));
        assert!(usage.ru_maxrss > 32 << 10 && usage.ru_minflt > 0, "{}", usage.ru_maxrss);
        let (after, children) = own_faults();
        assert!(after >= before && children == usage.ru_minflt);
        assert!(usage.ru_utime.tv_sec > 0 || usage.ru_utime.tv_usec > 0, "no user time counted");
        fails!(getrusage(77, &mut usage), EINVAL);
    }
}

fn cpu_time_is_limited() {
    extern "C" fn count(_: i32) {
        COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    static COUNT: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);
    let (r, w) = pipe();
    // The limit is inherited, and counts anew.
    let pid = child(|| unsafe {
        let limit = rlimit { rlim_cur: 1, rlim_max: 2 };
        ok(setrlimit(RLIMIT_CPU, &limit));
        let inner = child(|| {
            signal(SIGXCPU, count as *const () as usize);
            let mut told = 0;
            loop {
                let count = COUNT.load(std::sync::atomic::Ordering::Relaxed);
                if count > told {
                    told = count;
                    write(w, b"x");
                }
            }
        });
        WTERMSIG(wait_for(inner))
    });
    assert_eq!(WEXITSTATUS(wait_for(pid)), SIGKILL);
    assert_eq!(read(r, 10), b"x");
}
