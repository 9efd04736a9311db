//! ptrace(2), as strace(1) and debuggers use it.

use crate::harness::{c, child, ok, pause_ms, wait_for};
use libc::*;
use std::mem::zeroed;
use std::ptr::null_mut;

cases! {
    a_child_asks_to_be_traced_and_its_memory_is_read_and_written,
    calls_stop_at_both_ends_and_tell_what_they_are,
    seized_tasks_are_interrupted_and_let_go,
    stopped_tasks_are_seized_and_listened_to,
    a_program_is_followed_from_its_first_stop_on,
    children_and_threads_of_a_tracee_are_traced_as_well,
    programs_that_are_executed_announce_themselves,
    signals_are_shown_replaced_and_dropped,
    single_steps_take_one_instruction,
    vector_registers_are_read_and_set,
    calls_can_be_replaced,
    attaching_stops_and_the_tracers_end_frees,
    tracing_is_permitted_and_checked,
}

const SYSGOOD: i32 = SIGTRAP | 0x80;

unsafe fn request(what: u32, pid: pid_t, addr: usize, data: usize) -> i64 {
    unsafe { ptrace(what, pid, addr, data) as i64 }
}

/// Waits for a task; returns the status.
fn wait_any(pid: pid_t) -> (pid_t, i32) {
    let mut status = 0;
    let got = ok(unsafe { waitpid(pid, &mut status, __WALL) });
    (got, status)
}

#[track_caller]
fn stopped_by(pid: pid_t) -> i32 {
    let (_, status) = wait_any(pid);
    assert!(WIFSTOPPED(status), "{status:#x}");
    status >> 8
}

/// A child that is traced from its start and stopped.
fn traced(body: impl FnOnce() -> i32) -> pid_t {
    let pid = child(|| {
        unsafe {
            ok(request(PTRACE_TRACEME, 0, 0, 0));
            raise(SIGSTOP);
        }
        body()
    });
    assert_eq!(stopped_by(pid), SIGSTOP);
    pid
}

const NT_PRFPREG: usize = 2;
const NT_X86_XSTATE: usize = 0x202;

fn vector_registers_are_read_and_set() {
    // xmm3 and the rounding of the x87 unit, before and after a stop.
    let pid = traced(|| unsafe {
        let mut pair = [0x1122_3344_5566_7788u64, 0x99aa_bbcc_ddee_ff00];
        let mut control = 0x0f7fu16;
        std::arch::asm!(
            "movups xmm3, [{pair}]",
            "fldcw [{control}]",
            "int3",
            "movups [{pair}], xmm3",
            "fnstcw [{control}]",
            pair = in(reg) &mut pair,
            control = in(reg) &mut control,
            out("xmm3") _,
        );
        i32::from(pair != [5, 6] || control != 0x037f)
    });
    unsafe {
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped_by(pid), SIGTRAP);
        let mut area = [0u64; 1024];
        let mut iov = iovec { iov_base: area.as_mut_ptr().cast(), iov_len: 8192 };
        let set = |what, kind, iov: &mut iovec| request(what, pid, kind, &raw mut *iov as usize);
        ok(set(PTRACE_GETREGSET, NT_PRFPREG, &mut iov));
        assert_eq!(iov.iov_len, 512);
        assert_eq!(area[0] as u16, 0x0f7f);
        assert_eq!(area[26..28], [0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00]);
        let mut same = [0u64; 64];
        ok(request(PTRACE_GETFPREGS, pid, 0, same.as_mut_ptr() as usize));
        assert_eq!(same[..58], area[..58]);
        (same[0], same[26], same[27]) = (same[0] & !0xffff | 0x037f, 1, 2);
        ok(request(PTRACE_SETFPREGS, pid, 0, same.as_mut_ptr() as usize));
        iov.iov_len = 8192;
        ok(set(PTRACE_GETREGSET, NT_X86_XSTATE, &mut iov));
        let size = iov.iov_len;
        assert!((576..8192).contains(&size), "{size}");
        assert_eq!(area[26..28], [1, 2]);
        // Which components there are, and which of them are in use.
        assert!(area[58] & 3 == 3 && area[64] & 2 == 2, "{:x} {:x}", area[58], area[64]);
        let mut changed = area;
        (changed[26], changed[27]) = (5, 6);
        let mut iov = iovec { iov_base: changed.as_mut_ptr().cast(), iov_len: size - 8 };
        fails!(set(PTRACE_SETREGSET, NT_X86_XSTATE, &mut iov), EFAULT);
        iov.iov_len = size;
        ok(set(PTRACE_SETREGSET, NT_X86_XSTATE, &mut iov));
        iov.iov_len = 12;
        fails!(set(PTRACE_GETREGSET, NT_PRFPREG, &mut iov), EINVAL);
        ok(request(PTRACE_CONT, pid, 0, 0));
    }
    assert_eq!(wait_for(pid), 0);
}

fn registers(pid: pid_t) -> user_regs_struct {
    unsafe {
        let mut regs: user_regs_struct = zeroed();
        let mut iov = iovec { iov_base: (&raw mut regs).cast(), iov_len: 1000 };
        ok(request(PTRACE_GETREGSET, pid, 1, &raw mut iov as usize));
        assert_eq!(iov.iov_len, size_of::<user_regs_struct>());
        let mut same: user_regs_struct = zeroed();
        ok(request(PTRACE_GETREGS, pid, 0, &raw mut same as usize));
        assert_eq!((same.rip, same.rsp, same.orig_rax), (regs.rip, regs.rsp, regs.orig_rax));
        regs
    }
}

fn a_child_asks_to_be_traced_and_its_memory_is_read_and_written() {
    static mut WORD: u64 = 0x1122_3344_5566_7788;
    let pid = traced(|| unsafe { ((&raw const WORD).read_volatile() == 77) as i32 });
    unsafe {
        let at = &raw const WORD as usize;
        *__errno_location() = 0;
        assert_eq!(request(PTRACE_PEEKDATA, pid, at, 0), 0x1122_3344_5566_7788);
        ok(request(PTRACE_POKEDATA, pid, at, 77));
        fails!(request(PTRACE_PEEKDATA, pid, 8, 0), EIO);
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(text.contains(&format!("\nTracerPid:\t{}\n", getpid())));
        let rip = request(PTRACE_PEEKUSER, pid, 16 * 8, 0);
        assert_eq!(rip as u64, registers(pid).rip);
        ok(request(PTRACE_CONT, pid, 0, 0));
    }
    assert_eq!(WEXITSTATUS(wait_any(pid).1), 1);
}

#[repr(C)]
#[derive(Default, Debug)]
struct Info {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    ip: u64,
    sp: u64,
    nr: u64,
    args: [u64; 6],
    more: u64,
}

fn info(pid: pid_t) -> Info {
    let mut info = Info::default();
    let size = size_of::<Info>();
    let len = ok(unsafe { request(0x420e, pid, size, &raw mut info as usize) });
    assert_eq!(len, [24, 80, 33, 84][usize::from(info.op)]);
    assert_eq!(info.arch, 0xc000_003e);
    info
}

fn calls_stop_at_both_ends_and_tell_what_they_are() {
    let pid = traced(|| unsafe {
        syscall(SYS_getpriority, 0x1234, 5);
        syscall(SYS_getppid) as i32 & 0x7f
    });
    unsafe {
        ok(request(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD as usize));
        assert_eq!(info(pid).op, 0);
        let next = || {
            ok(request(PTRACE_SYSCALL, pid, 0, 0));
            stopped_by(pid)
        };
        // The rest of raise(3) comes first.
        loop {
            assert_eq!(next(), SYSGOOD);
            let entry = info(pid);
            if entry.op == 1 && entry.nr == SYS_getpriority as u64 {
                assert_eq!(entry.args[..2], [0x1234, 5]);
                break;
            }
        }
        let regs = registers(pid);
        assert_eq!((regs.orig_rax, regs.rdi, regs.rsi), (SYS_getpriority as u64, 0x1234, 5));
        assert_eq!(regs.rax as i64, -i64::from(ENOSYS));
        assert_eq!((regs.cs, regs.ss), (0x33, 0x2b));
        assert_eq!(next(), SYSGOOD);
        let exit = info(pid);
        assert_eq!((exit.op, exit.nr as i64), (2, -i64::from(EINVAL)));
        assert_eq!(exit.args[0] & 0xff, 1);
        assert_eq!(next(), SYSGOOD);
        assert_eq!((info(pid).op, info(pid).nr), (1, SYS_getppid as u64));
        assert_eq!(next(), SYSGOOD);
        assert_eq!((info(pid).op, info(pid).nr), (2, getpid() as u64));
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(WEXITSTATUS(wait_any(pid).1), getpid() & 0x7f);
    }
}

fn seized_tasks_are_interrupted_and_let_go() {
    let pid = child(|| {
        pause_ms(20_000);
        0
    });
    unsafe {
        fails!(request(PTRACE_SEIZE, pid, 1, 0), EIO);
        ok(request(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD as usize));
        // It goes on until it is told.
        fails!(request(PTRACE_CONT, pid, 0, 0), ESRCH);
        pause_ms(20);
        ok(request(PTRACE_INTERRUPT, pid, 0, 0));
        assert_eq!(stopped_by(pid), SIGTRAP | PTRACE_EVENT_STOP << 8);
        ok(request(PTRACE_SYSCALL, pid, 0, 0));
        pause_ms(20);
        ok(request(PTRACE_INTERRUPT, pid, 0, 0));
        let why = stopped_by(pid);
        assert!(why == SIGTRAP | PTRACE_EVENT_STOP << 8 || why == SYSGOOD, "{why:#x}");
        ok(request(PTRACE_DETACH, pid, 0, 0));
        pause_ms(20);
        assert_eq!(waitpid(pid, null_mut(), WNOHANG), 0);
        kill(pid, SIGTERM);
        assert_eq!(WTERMSIG(wait_for(pid)), SIGTERM);
    }
}

const STOPPED: i32 = SIGSTOP | PTRACE_EVENT_STOP << 8;
const TOLD: i32 = SIGTRAP | PTRACE_EVENT_STOP << 8;

/// A child that stops itself, untraced, and has been seen to.
fn halted() -> pid_t {
    let pid = child(|| {
        unsafe { raise(SIGSTOP) };
        5
    });
    let mut status = 0;
    assert_eq!(ok(unsafe { waitpid(pid, &mut status, WUNTRACED) }), pid);
    assert!(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "{status:#x}");
    pid
}

fn stopped_tasks_are_seized_and_listened_to() {
    unsafe {
        let pid = halted();
        ok(request(PTRACE_SEIZE, pid, 0, 0));
        assert_eq!(stopped_by(pid), STOPPED);
        // It stays stopped, and is told of the end of that.
        ok(request(PTRACE_LISTEN, pid, 0, 0));
        pause_ms(20);
        assert_eq!(waitpid(pid, null_mut(), WNOHANG), 0);
        fails!(request(PTRACE_CONT, pid, 0, 0), ESRCH);
        fails!(request(PTRACE_LISTEN, pid, 0, 0), ESRCH);
        // An interruption while it listens shows the same stop again.
        ok(request(PTRACE_INTERRUPT, pid, 0, 0));
        assert_eq!(stopped_by(pid), STOPPED);
        ok(request(PTRACE_LISTEN, pid, 0, 0));
        kill(pid, SIGCONT);
        assert_eq!(stopped_by(pid), TOLD);
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped_by(pid), SIGCONT);
        fails!(request(PTRACE_LISTEN, pid, 0, 0), EIO);
        ok(request(PTRACE_CONT, pid, 0, SIGCONT as usize));
        assert_eq!(WEXITSTATUS(wait_for(pid)), 5);

        // The news wait for a tracer that isn't listening yet.
        let pid = halted();
        ok(request(PTRACE_SEIZE, pid, 0, 0));
        assert_eq!(stopped_by(pid), STOPPED);
        kill(pid, SIGCONT);
        ok(request(PTRACE_LISTEN, pid, 0, 0));
        assert_eq!(stopped_by(pid), TOLD);
        ok(request(PTRACE_DETACH, pid, 0, 0));
        assert_eq!(WEXITSTATUS(wait_for(pid)), 5);

        // The older way stops it as well, first for its stop and then for the signal of that way.
        let pid = halted();
        ok(request(PTRACE_ATTACH, pid, 0, 0));
        assert_eq!(stopped_by(pid), SIGSTOP);
        ok(request(PTRACE_DETACH, pid, 0, 0));
        kill(pid, SIGCONT);
        assert_eq!(WEXITSTATUS(wait_for(pid)), 5);

        // Who has stopped already is there for the tracer at once, whichever way it is attached.
        for (how, told) in [(PTRACE_ATTACH, SIGSTOP), (PTRACE_SEIZE, STOPPED)] {
            for _ in 0..20 {
                let pid = halted();
                ok(request(how, pid, 0, 0));
                let mut registers: user_regs_struct = zeroed();
                ok(request(PTRACE_GETREGS, pid, 0, (&raw mut registers).addr()));
                assert_ne!(registers.rip, 0);
                assert_eq!(stopped_by(pid), told);
                ok(request(PTRACE_DETACH, pid, 0, 0));
                kill(pid, SIGCONT);
                assert_eq!(WEXITSTATUS(wait_for(pid)), 5);
            }
        }
        // Or it goes on, if SIGCONT is faster; it stops all the same, for one signal or the other.
        for _ in 0..20 {
            let pid = child(|| {
                raise(SIGSTOP);
                pause_ms(60_000);
                0
            });
            let mut status = 0;
            ok(waitpid(pid, &mut status, WUNTRACED));
            assert!(WIFSTOPPED(status));
            let waker = child(|| kill(pid, SIGCONT));
            ok(request(PTRACE_ATTACH, pid, 0, 0));
            assert!([SIGSTOP, SIGCONT].contains(&stopped_by(pid)));
            assert_eq!(wait_for(waker), 0);
            kill(pid, SIGKILL);
            assert_eq!(WTERMSIG(wait_for(pid)), SIGKILL);
        }
    }
}

fn a_program_is_followed_from_its_first_stop_on() {
    // What strace does: seizes a child that is stopping and lets it go on at once. Whichever comes
    // first, the child ends.
    for _ in 0..30 {
        let pid = halted();
        unsafe {
            ok(request(PTRACE_SEIZE, pid, 0, 0));
            ok(request(PTRACE_INTERRUPT, pid, 0, 0));
            kill(pid, SIGCONT);
            loop {
                let (_, status) = wait_any(pid);
                if WIFEXITED(status) {
                    assert_eq!(WEXITSTATUS(status), 5);
                    break;
                }
                let (signal, event) = (status >> 8 & 0xff, status >> 16);
                if event == PTRACE_EVENT_STOP && signal != SIGTRAP {
                    ok(request(PTRACE_LISTEN, pid, 0, 0));
                } else {
                    let pass = if event == 0 { signal } else { 0 };
                    ok(request(PTRACE_CONT, pid, 0, pass as usize));
                }
            }
        }
    }
}

fn children_and_threads_of_a_tracee_are_traced_as_well() {
    let pid = child(|| {
        pause_ms(100);
        let inner = child(|| 5);
        let status = wait_for(inner);
        let thread = std::thread::spawn(|| unsafe { syscall(SYS_gettid) });
        thread.join().unwrap();
        WEXITSTATUS(status)
    });
    unsafe {
        let options = PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEVFORK;
        ok(request(PTRACE_SEIZE, pid, 0, options as usize));
        let (mut events, mut starts, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        while ended.len() < 3 {
            let (tid, status) = wait_any(-1);
            if WIFEXITED(status) {
                ended.push((tid, WEXITSTATUS(status)));
                continue;
            }
            assert!(WIFSTOPPED(status), "{status:#x}");
            let (signal, event) = (status >> 8 & 0xff, status >> 16);
            match event {
                PTRACE_EVENT_FORK | PTRACE_EVENT_CLONE => {
                    let mut number = 0u64;
                    ok(request(PTRACE_GETEVENTMSG, tid, 0, &raw mut number as usize));
                    events.push((event, number as pid_t));
                }
                PTRACE_EVENT_STOP => starts.push(tid),
                _ => {}
            }
            let pass = if event == 0 { signal as usize } else { 0 };
            ok(request(PTRACE_CONT, tid, 0, pass));
        }
        let made: Vec<pid_t> = events.iter().map(|event| event.1).collect();
        assert_eq!(
            events.iter().map(|event| event.0).collect::<Vec<_>>(),
            [PTRACE_EVENT_FORK, PTRACE_EVENT_CLONE]
        );
        starts.sort();
        assert_eq!(starts, made);
        ended.sort();
        assert_eq!(ended[..2], [(pid, 5), (made[0], 5)]);
        // The process may end while its thread, joined already, is on its last steps.
        let (thread, status) = ended[2];
        assert!(thread == made[1] && (status == 0 || status == 5), "{thread} {status}");
        fails!(waitpid(-1, null_mut(), __WALL), ECHILD);
    }
}

fn programs_that_are_executed_announce_themselves() {
    let exe = std::fs::read_link("/proc/self/exe").unwrap();
    let name = c(exe.to_str().unwrap());
    let run = || unsafe {
        let args = [name.as_ptr(), c"--list".as_ptr(), std::ptr::null()];
        let null = open(c"/dev/null".as_ptr(), O_WRONLY);
        dup2(null, 1);
        execv(name.as_ptr(), args.as_ptr());
        1
    };
    unsafe {
        // Without the option it is an ordinary SIGTRAP.
        let pid = traced(run);
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped_by(pid), SIGTRAP);
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(WEXITSTATUS(wait_any(pid).1), 0);
        let pid = traced(run);
        ok(request(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC as usize));
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped_by(pid), SIGTRAP | PTRACE_EVENT_EXEC << 8);
        let mut former = 0u64;
        ok(request(PTRACE_GETEVENTMSG, pid, 0, &raw mut former as usize));
        assert_eq!(former, pid as u64);
        ok(request(PTRACE_DETACH, pid, 0, 0));
        assert_eq!(WEXITSTATUS(wait_for(pid)), 0);
    }
}

fn signals_are_shown_replaced_and_dropped() {
    let pid = traced(|| unsafe {
        raise(SIGUSR1);
        raise(SIGTERM);
        7
    });
    unsafe {
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped_by(pid), SIGUSR1);
        let mut info: siginfo_t = zeroed();
        ok(request(PTRACE_GETSIGINFO, pid, 0, &raw mut info as usize));
        assert_eq!((info.si_signo, info.si_code, info.si_pid()), (SIGUSR1, SI_TKILL, pid));
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped_by(pid), SIGTERM);
        fails!(request(PTRACE_CONT, pid, 0, 999), EIO);
        ok(request(PTRACE_CONT, pid, 0, SIGKILL as usize));
        assert_eq!(WTERMSIG(wait_any(pid).1), SIGKILL);
        // Ignored signals are shown as well; SIGKILL is not.
        let pid = traced(|| {
            signal(SIGUSR2, SIG_IGN);
            raise(SIGUSR2);
            pause_ms(20_000);
            0
        });
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped_by(pid), SIGUSR2);
        ok(request(PTRACE_CONT, pid, 0, SIGUSR2 as usize));
        kill(pid, SIGKILL);
        assert_eq!(WTERMSIG(wait_any(pid).1), SIGKILL);
    }
}

fn single_steps_take_one_instruction() {
    let pid = traced(|| 3);
    unsafe {
        let mut last = registers(pid).rip;
        for _ in 0..20 {
            ok(request(PTRACE_SINGLESTEP, pid, 0, 0));
            assert_eq!(stopped_by(pid), SIGTRAP);
            let now = registers(pid).rip;
            assert_ne!(now, last);
            last = now;
        }
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(WEXITSTATUS(wait_any(pid).1), 3);
    }
}

fn calls_can_be_replaced() {
    let pid = traced(|| unsafe { (syscall(SYS_getpriority, 0, 0) == 4242) as i32 });
    unsafe {
        ok(request(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD as usize));
        loop {
            ok(request(PTRACE_SYSCALL, pid, 0, 0));
            assert_eq!(stopped_by(pid), SYSGOOD);
            let mut regs = registers(pid);
            if regs.orig_rax == SYS_getpriority as u64 {
                // None, then with a result of our own.
                regs.orig_rax = u64::MAX;
                ok(request(PTRACE_SETREGS, pid, 0, &raw mut regs as usize));
                ok(request(PTRACE_SYSCALL, pid, 0, 0));
                assert_eq!(stopped_by(pid), SYSGOOD);
                let mut regs = registers(pid);
                assert_eq!(regs.rax as i64, -i64::from(ENOSYS));
                regs.rax = 4242;
                ok(request(PTRACE_SETREGS, pid, 0, &raw mut regs as usize));
                break;
            }
        }
        ok(request(PTRACE_CONT, pid, 0, 0));
        assert_eq!(WEXITSTATUS(wait_any(pid).1), 1);
    }
}

fn attaching_stops_and_the_tracers_end_frees() {
    let (gate, go) = crate::harness::pipe();
    let pid = child(|| {
        crate::harness::read(gate, 1);
        6
    });
    let tracer = |kill: bool| {
        let tracer = child(|| unsafe {
            let options = if kill { PTRACE_O_EXITKILL as usize } else { 0 };
            ok(request(PTRACE_ATTACH, pid, 0, 0));
            assert_eq!(stopped_by(pid), SIGSTOP);
            ok(request(PTRACE_SETOPTIONS, pid, 0, options));
            0
        });
        assert_eq!(wait_for(tracer), 0);
    };
    tracer(false);
    tracer(false);
    unsafe { kill(pid, SIGCONT) };
    crate::harness::write(go, b"!");
    assert_eq!(WEXITSTATUS(wait_for(pid)), 6);
    let pid_to_kill = child(|| {
        pause_ms(20_000);
        6
    });
    let killer = child(|| unsafe {
        ok(request(PTRACE_SEIZE, pid_to_kill, 0, PTRACE_O_EXITKILL as usize));
        0
    });
    assert_eq!(wait_for(killer), 0);
    assert_eq!(WTERMSIG(wait_for(pid_to_kill)), SIGKILL);
}

fn tracing_is_permitted_and_checked() {
    unsafe {
        fails!(request(PTRACE_ATTACH, getpid(), 0, 0), EPERM);
        fails!(request(PTRACE_ATTACH, 4_000_000, 0, 0), ESRCH);
        let pid = child(|| {
            pause_ms(20_000);
            0
        });
        fails!(request(PTRACE_CONT, pid, 0, 0), ESRCH);
        fails!(request(PTRACE_SEIZE, pid, 0, 1 << 30), EIO);
        let status = wait_for(child(|| {
            ok(setresuid(65534, 65534, 65534));
            fails!(request(PTRACE_SEIZE, pid, 0, 0), EPERM);
            0
        }));
        assert_eq!(status, 0);
        ok(request(PTRACE_SEIZE, pid, 0, 0));
        fails!(request(PTRACE_SEIZE, pid, 0, 0), EPERM);
        ok(request(PTRACE_INTERRUPT, pid, 0, 0));
        stopped_by(pid);
        fails!(request(0x7777, pid, 0, 0), EIO);
        fails!(request(PTRACE_GETREGSET, pid, 12345, 0), EFAULT);
        kill(pid, SIGKILL);
        assert_eq!(WTERMSIG(wait_any(pid).1), SIGKILL);
    }
}
