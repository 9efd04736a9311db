//! signal(7).

use crate::harness::pipe;
use crate::harness::*;
use libc::*;
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

cases![
    handler_gets_siginfo_of_kill,
    blocked_signal_waits_and_is_merged,
    realtime_signals_queue_in_order,
    mask_during_handler_includes_the_signal,
    nodefer_and_resethand_work,
    restart_flag_decides_about_read,
    poll_never_restarts,
    nanosleep_tells_what_is_left,
    alternate_stack_is_used,
    fault_handler_sees_the_address,
    handler_can_leave_by_siglongjmp_like_context_change,
    sigsuspend_swaps_the_mask,
    sigtimedwait_takes_without_handler,
    kill_and_stop_cannot_be_caught,
    ignored_signals_vanish,
    exec_resets_handlers_keeps_ignored,
    default_actions_terminate_or_ignore,
    sigpipe_on_broken_pipe,
    sigqueue_carries_a_value,
    floating_point_state_survives_handlers,
    handlers_change_the_state_that_comes_back,
    a_frame_without_magic_words_has_the_legacy_state,
    null_and_invalid_arguments_fail,
];

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static SENDER: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicUsize = AtomicUsize::new(0);
static ADDR: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    COUNT.fetch_add(1, SeqCst);
    LAST.store(signal, SeqCst);
    if !info.is_null() {
        unsafe {
            CODE.store((*info).si_code, SeqCst);
            SENDER.store((*info).si_pid(), SeqCst);
            VALUE.store((*info).si_value().sival_ptr as usize, SeqCst);
        }
    }
}

unsafe fn install(
    signal: c_int,
    flags: c_int,
    handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void),
) {
    unsafe {
        let mut action: sigaction = zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = SA_SIGINFO | flags;
        ok(sigaction(signal, &action, null_mut()));
    }
}

fn set_of(signals: &[c_int]) -> sigset_t {
    unsafe {
        let mut set: sigset_t = zeroed();
        sigemptyset(&mut set);
        for &signal in signals {
            sigaddset(&mut set, signal);
        }
        set
    }
}

fn handler_gets_siginfo_of_kill() {
    unsafe {
        install(SIGUSR1, 0, note);
        ok(kill(getpid(), SIGUSR1));
        assert_eq!((COUNT.load(SeqCst), LAST.load(SeqCst)), (1, SIGUSR1));
        assert_eq!((CODE.load(SeqCst), SENDER.load(SeqCst)), (SI_USER, getpid()));
        ok(raise(SIGUSR1));
        assert_eq!(CODE.load(SeqCst), SI_TKILL);
    }
}

fn blocked_signal_waits_and_is_merged() {
    unsafe {
        install(SIGUSR1, 0, note);
        let set = set_of(&[SIGUSR1]);
        let mut old: sigset_t = zeroed();
        ok(sigprocmask(SIG_BLOCK, &set, &mut old));
        for _ in 0..3 {
            kill(getpid(), SIGUSR1);
        }
        assert_eq!(COUNT.load(SeqCst), 0);
        let mut pending: sigset_t = zeroed();
        ok(sigpending(&mut pending));
        assert_eq!(sigismember(&pending, SIGUSR1), 1);
        ok(sigprocmask(SIG_SETMASK, &old, null_mut()));
        assert_eq!(COUNT.load(SeqCst), 1, "a standard signal is pending at most once");
    }
}

static ORDER: std::sync::Mutex<Vec<(i32, usize)>> = std::sync::Mutex::new(Vec::new());

extern "C" fn record(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    ORDER.lock().unwrap().push((signal, unsafe { (*info).si_value().sival_ptr as usize }));
}

fn realtime_signals_queue_in_order() {
    unsafe {
        let (low, high) = (SIGRTMIN() + 1, SIGRTMIN() + 2);
        install(low, 0, record);
        install(high, 0, record);
        let set = set_of(&[low, high]);
        sigprocmask(SIG_BLOCK, &set, null_mut());
        for (signal, value) in [(high, 1), (low, 2), (low, 3), (high, 4)] {
            ok(sigqueue(getpid(), signal, sigval { sival_ptr: value as *mut c_void }));
        }
        // One at a time: unblocking both would nest the handlers.
        while let Some(next) = {
            let mut pending: sigset_t = zeroed();
            sigpending(&mut pending);
            [low, high].into_iter().find(|&signal| sigismember(&pending, signal) == 1)
        } {
            let mut info: siginfo_t = zeroed();
            assert_eq!(sigwaitinfo(&set, &mut info), next);
            ORDER.lock().unwrap().push((next, info.si_value().sival_ptr as usize));
        }
        assert_eq!(*ORDER.lock().unwrap(), [(low, 2), (low, 3), (high, 1), (high, 4)]);
    }
}

static MASKED: AtomicI32 = AtomicI32::new(0);

extern "C" fn look_at_mask(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    unsafe {
        let mut now: sigset_t = zeroed();
        sigprocmask(SIG_BLOCK, null(), &mut now);
        MASKED.store(sigismember(&now, SIGUSR1) | sigismember(&now, SIGUSR2) << 1, SeqCst);
    }
}

fn mask_during_handler_includes_the_signal() {
    unsafe {
        let mut action: sigaction = zeroed();
        action.sa_sigaction = look_at_mask as *const () as usize;
        action.sa_flags = SA_SIGINFO;
        action.sa_mask = set_of(&[SIGUSR2]);
        ok(sigaction(SIGUSR1, &action, null_mut()));
        raise(SIGUSR1);
        assert_eq!(MASKED.load(SeqCst), 3);
        let mut after: sigset_t = zeroed();
        sigprocmask(SIG_BLOCK, null(), &mut after);
        assert_eq!(sigismember(&after, SIGUSR1), 0, "the mask is restored");
    }
}

fn nodefer_and_resethand_work() {
    unsafe {
        install(SIGUSR1, SA_NODEFER, look_at_mask);
        raise(SIGUSR1);
        assert_eq!(MASKED.load(SeqCst), 0);
        install(SIGUSR1, SA_RESETHAND, note);
        raise(SIGUSR1);
        let mut now: sigaction = zeroed();
        sigaction(SIGUSR1, null(), &mut now);
        assert_eq!(now.sa_sigaction, SIG_DFL);
    }
}

/// Sends `signal` to this process after a while, from a child.
fn send_later(signal: c_int, ms: u64) -> pid_t {
    let me = unsafe { getpid() };
    child(move || {
        pause_ms(ms);
        unsafe { kill(me, signal) };
        0
    })
}

/// While `f` waits, a child sends `signal` to this process: more than once, since the first may come
/// before the wait has begun.
fn disturbed<R>(signal: c_int, f: impl FnOnce() -> R) -> R {
    let me = unsafe { getpid() };
    let helper = child(move || {
        loop {
            pause_ms(30);
            unsafe { kill(me, signal) };
        }
    });
    let result = f();
    unsafe { kill(helper, SIGKILL) };
    wait_for(helper);
    result
}

fn restart_flag_decides_about_read() {
    unsafe {
        let (r, w) = pipe();
        let mut byte = 0u8;
        install(SIGUSR1, 0, note);
        disturbed(SIGUSR1, || fails!(libc::read(r, (&raw mut byte).cast(), 1), EINTR));
        let before = COUNT.load(SeqCst);
        install(SIGUSR1, SA_RESTART, note);
        let me = getpid();
        let helper = child(|| {
            pause_ms(30);
            kill(me, SIGUSR1);
            pause_ms(30);
            crate::harness::write(w, b"z");
            0
        });
        assert_eq!(libc::read(r, (&raw mut byte).cast(), 1), 1);
        assert_eq!((byte, COUNT.load(SeqCst)), (b'z', before + 1));
        wait_for(helper);
    }
}

fn poll_never_restarts() {
    unsafe {
        let (r, _w) = pipe();
        install(SIGUSR1, SA_RESTART, note);
        let mut fds = [pollfd { fd: r, events: POLLIN, revents: 0 }];
        disturbed(SIGUSR1, || fails!(poll(fds.as_mut_ptr(), 1, -1), EINTR));
        let epoll = ok(epoll_create1(0));
        let mut event: epoll_event = zeroed();
        disturbed(SIGUSR1, || fails!(epoll_wait(epoll, &mut event, 1, -1), EINTR));
    }
}

fn nanosleep_tells_what_is_left() {
    unsafe {
        install(SIGUSR1, SA_RESTART, note);
        let wish = timespec { tv_sec: 50, tv_nsec: 0 };
        let mut left: timespec = zeroed();
        disturbed(SIGUSR1, || fails!(nanosleep(&wish, &mut left), EINTR));
        assert!(left.tv_sec >= 10 && left.tv_sec < 50, "{} s left", left.tv_sec);
        // A stop and continue in between goes unnoticed.
        let pid = child(|| {
            let wish = timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            nanosleep(&wish, null_mut())
        });
        pause_ms(50);
        kill(pid, SIGSTOP);
        pause_ms(20);
        kill(pid, SIGCONT);
        assert_eq!(wait_for(pid), 0);
    }
}

extern "C" fn note_stack(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    let local = 0u8;
    ADDR.store(&raw const local as usize, SeqCst);
    unsafe {
        let mut now: stack_t = zeroed();
        sigaltstack(null(), &mut now);
        CODE.store(now.ss_flags, SeqCst);
        let other = stack_t { ss_sp: null_mut(), ss_flags: SS_DISABLE, ss_size: 0 };
        let refused = sigaltstack(&other, null_mut()) == -1 && *__errno_location() == EPERM;
        LAST.store(i32::from(refused), SeqCst);
    }
}

fn alternate_stack_is_used() {
    unsafe {
        let mut memory = vec![0u8; 64 * 1024];
        let stack =
            stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
        ok(sigaltstack(&stack, null_mut()));
        install(SIGUSR1, SA_ONSTACK, note_stack);
        raise(SIGUSR1);
        let range = memory.as_ptr() as usize..memory.as_ptr() as usize + memory.len();
        assert!(range.contains(&ADDR.load(SeqCst)));
        assert_eq!((CODE.load(SeqCst), LAST.load(SeqCst)), (SS_ONSTACK, 1));
        let tiny = stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: 100 };
        fails!(sigaltstack(&tiny, null_mut()), ENOMEM);
        let bad = stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0x40, ss_size: 65536 };
        fails!(sigaltstack(&bad, null_mut()), EINVAL);
    }
}

extern "C" fn skip_fault(_signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    unsafe {
        ADDR.store((*info).si_addr() as usize, SeqCst);
        CODE.store((*info).si_code, SeqCst);
        COUNT.fetch_add(1, SeqCst);
        // The faulting instruction below is two bytes long: mov [rax], ecx.
        let context = &mut *context.cast::<ucontext_t>();
        context.uc_mcontext.gregs[REG_RIP as usize] += 2;
    }
}

fn fault_handler_sees_the_address() {
    unsafe {
        install(SIGSEGV, 0, skip_fault);
        let page = mmap(null_mut(), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) as usize;
        std::arch::asm!("mov [rax], ecx", in("rax") page + 16, in("ecx") 1);
        assert_eq!((ADDR.load(SeqCst), CODE.load(SeqCst)), (page + 16, 2 /* SEGV_ACCERR */));
        munmap(page as *mut c_void, 4096);
        std::arch::asm!("mov [rax], ecx", in("rax") page + 8, in("ecx") 1);
        assert_eq!((ADDR.load(SeqCst), CODE.load(SeqCst)), (page + 8, 1 /* SEGV_MAPERR */));
        assert_eq!(COUNT.load(SeqCst), 2);
    }
}

extern "C" fn redirect(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    unsafe {
        let context = &mut *context.cast::<ucontext_t>();
        context.uc_mcontext.gregs[REG_RBX as usize] = 0x1234;
        sigaddset(&mut context.uc_sigmask, SIGUSR2);
    }
}

fn handler_can_leave_by_siglongjmp_like_context_change() {
    unsafe {
        install(SIGUSR1, 0, redirect);
        let (pid, tid) = (getpid(), gettid());
        let rbx: usize;
        // tgkill through the raw instruction, so that the handler runs with our register in place.
        std::arch::asm!(
            "push rbx", "mov ebx, 1", "syscall", "mov rcx, rbx", "pop rbx",
            inout("rax") SYS_tgkill => _, in("rdi") pid as usize, in("rsi") tid as usize,
            in("rdx") SIGUSR1 as usize, out("rcx") rbx, out("r11") _,
        );
        assert_eq!(rbx, 0x1234, "registers come back from the frame");
        let mut now: sigset_t = zeroed();
        sigprocmask(SIG_BLOCK, null(), &mut now);
        assert_eq!(sigismember(&now, SIGUSR2), 1, "so does the mask");
    }
}

fn sigsuspend_swaps_the_mask() {
    unsafe {
        install(SIGUSR1, 0, look_at_mask);
        install(SIGUSR2, 0, note);
        let both = set_of(&[SIGUSR1, SIGUSR2]);
        sigprocmask(SIG_BLOCK, &both, null_mut());
        raise(SIGUSR2);
        let only_two = set_of(&[SIGUSR2]);
        let helper = send_later(SIGUSR1, 30);
        fails!(sigsuspend(&only_two), EINTR);
        assert_eq!(COUNT.load(SeqCst), 0, "SIGUSR2 stayed blocked");
        assert_eq!(MASKED.load(SeqCst), 3);
        let mut now: sigset_t = zeroed();
        sigprocmask(SIG_BLOCK, null(), &mut now);
        assert_eq!(sigismember(&now, SIGUSR1), 1, "the old mask is back");
        wait_for(helper);
    }
}

fn sigtimedwait_takes_without_handler() {
    unsafe {
        let set = set_of(&[SIGUSR1]);
        sigprocmask(SIG_BLOCK, &set, null_mut());
        let none = timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let mut info: siginfo_t = zeroed();
        fails!(sigtimedwait(&set, &mut info, &none), EAGAIN);
        kill(getpid(), SIGUSR1);
        assert_eq!(sigtimedwait(&set, &mut info, &none), SIGUSR1);
        assert_eq!(info.si_pid(), getpid());
        let helper = send_later(SIGUSR1, 30);
        assert_eq!(sigwaitinfo(&set, &mut info), SIGUSR1);
        assert_eq!(info.si_pid(), helper);
        wait_for(helper);
    }
}

fn kill_and_stop_cannot_be_caught() {
    unsafe {
        let mut action: sigaction = zeroed();
        action.sa_sigaction = SIG_IGN;
        for signal in [SIGKILL, SIGSTOP] {
            fails!(sigaction(signal, &action, null_mut()), EINVAL);
        }
        let set = set_of(&[SIGKILL, SIGSTOP, SIGUSR1]);
        sigprocmask(SIG_SETMASK, &set, null_mut());
        let mut now: sigset_t = zeroed();
        sigprocmask(SIG_SETMASK, null(), &mut now);
        assert_eq!((sigismember(&now, SIGKILL), sigismember(&now, SIGUSR1)), (0, 1));
    }
}

fn ignored_signals_vanish() {
    unsafe {
        signal(SIGUSR1, SIG_IGN);
        kill(getpid(), SIGUSR1);
        let set = set_of(&[SIGUSR1]);
        sigprocmask(SIG_BLOCK, &set, null_mut());
        kill(getpid(), SIGUSR1);
        signal(SIGUSR1, SIG_IGN);
        let mut pending: sigset_t = zeroed();
        sigpending(&mut pending);
        assert_eq!(sigismember(&pending, SIGUSR1), 0, "ignoring drops what is pending");
    }
}

fn exec_resets_handlers_keeps_ignored() {
    unsafe {
        install(SIGUSR1, 0, note);
        signal(SIGUSR2, SIG_IGN);
        let set = set_of(&[SIGTERM]);
        sigprocmask(SIG_BLOCK, &set, null_mut());
        let status = wait_for(child(|| crate::exec::run_self(&["signals"])));
        assert_eq!(WEXITSTATUS(status), 0);
    }
}

fn default_actions_terminate_or_ignore() {
    for (sig, dies) in [
        (SIGCHLD, false),
        (SIGURG, false),
        (SIGWINCH, false),
        (SIGCONT, false),
        (SIGHUP, true),
        (SIGALRM, true),
        (SIGPIPE, true),
    ] {
        let status = wait_for(child(move || {
            unsafe { raise(sig) };
            9
        }));
        if dies {
            assert_eq!(WTERMSIG(status), sig);
        } else {
            assert_eq!(WEXITSTATUS(status), 9, "signal {sig} is ignored by default");
        }
    }
}

fn sigpipe_on_broken_pipe() {
    unsafe {
        let (r, w) = pipe();
        close(r);
        signal(SIGPIPE, SIG_IGN);
        fails!(libc::write(w, c"x".as_ptr().cast(), 1), EPIPE);
        signal(SIGPIPE, SIG_DFL);
        let status = wait_for(child(|| libc::write(w, c"x".as_ptr().cast(), 1) as i32));
        assert_eq!(WTERMSIG(status), SIGPIPE);
    }
}

fn sigqueue_carries_a_value() {
    unsafe {
        install(SIGUSR1, 0, note);
        ok(sigqueue(getpid(), SIGUSR1, sigval { sival_ptr: 0xabcd as *mut c_void }));
        assert_eq!((VALUE.load(SeqCst), CODE.load(SeqCst)), (0xabcd, SI_QUEUE));
    }
}

extern "C" fn spoil_registers(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    unsafe { std::arch::asm!("pcmpeqd xmm6, xmm6", "fninit", "fldpi", out("xmm6") _) };
}

fn floating_point_state_survives_handlers() {
    unsafe {
        install(SIGUSR1, 0, spoil_registers);
        let (pid, tid) = (getpid(), gettid());
        let (xmm, control): (u64, u32);
        let mut word = 0u16;
        std::arch::asm!(
            "movq xmm6, {value}", "syscall", "movq {out}, xmm6", "fnstcw [{word}]",
            value = in(reg) 0x1122_3344_5566_7788u64, out = lateout(reg) xmm, word = in(reg) &mut word,
            inout("rax") SYS_tgkill => _, in("rdi") pid as usize, in("rsi") tid as usize,
            in("rdx") SIGUSR1 as usize, out("rcx") _, out("r11") _, out("xmm6") _,
        );
        control = u32::from(word);
        assert_eq!((xmm, control), (0x1122_3344_5566_7788, 0x37f));
    }
}

const PATTERN: u64 = 0x1122_3344_5566_7788;

/// Sends the thread a signal with the pattern in both halves of ymm6. Returns what they hold behind
/// the handler; the upper half is the pattern if the CPU has none.
fn signal_with_vectors() -> (u64, u64) {
    let low: u64;
    let mut high = PATTERN;
    unsafe {
        let (pid, tid) = (getpid() as usize, gettid() as usize);
        if std::arch::is_x86_feature_detected!("avx") {
            std::arch::asm!(
                "vmovq xmm6, {value}", "vinsertf128 ymm6, ymm6, xmm6, 1", "syscall",
                "vmovq {low}, xmm6", "vextractf128 xmm7, ymm6, 1", "vmovq {high}, xmm7",
                "vzeroupper",
                value = in(reg) PATTERN, low = out(reg) low, high = out(reg) high,
                inout("rax") SYS_tgkill => _, in("rdi") pid, in("rsi") tid,
                in("rdx") SIGUSR1 as usize, out("rcx") _, out("r11") _,
                out("xmm6") _, out("xmm7") _,
            );
        } else {
            std::arch::asm!(
                "movq xmm6, {value}", "syscall", "movq {low}, xmm6",
                value = in(reg) PATTERN, low = out(reg) low,
                inout("rax") SYS_tgkill => _, in("rdi") pid, in("rsi") tid,
                in("rdx") SIGUSR1 as usize, out("rcx") _, out("r11") _, out("xmm6") _,
            );
        }
    }
    (low, high)
}

fn frame_of(context: *mut c_void) -> *mut _libc_fpstate {
    unsafe { (*context.cast::<ucontext_t>()).uc_mcontext.fpregs }
}

extern "C" fn change_frame(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    unsafe { (*frame_of(context))._xmm[6].element = [5, 6, 0, 0] };
}

extern "C" fn forget_frame(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    unsafe { (*context.cast::<ucontext_t>()).uc_mcontext.fpregs = null_mut() };
}

fn handlers_change_the_state_that_comes_back() {
    unsafe {
        install(SIGUSR1, 0, note);
        assert_eq!(signal_with_vectors(), (PATTERN, PATTERN));
        install(SIGUSR1, 0, change_frame);
        assert_eq!(signal_with_vectors(), (5 | 6 << 32, PATTERN));
        install(SIGUSR1, 0, forget_frame);
        assert_eq!(signal_with_vectors().0, 0);
    }
}

/// As a program does that builds frames by the rules of before XSAVE.
extern "C" fn spoil_magic(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    const MAGIC: usize = 464;
    unsafe { frame_of(context).cast::<u8>().add(MAGIC).cast::<u32>().write(0) };
}

/// The word behind the extended state.
extern "C" fn spoil_end(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    const EXTENDED_SIZE: usize = 468;
    unsafe {
        let frame = frame_of(context).cast::<u8>();
        let size = frame.add(EXTENDED_SIZE).cast::<u32>().read() as usize;
        if size > 512 {
            frame.add(size - 4).cast::<u32>().write_unaligned(0);
        }
    }
}

fn a_frame_without_magic_words_has_the_legacy_state() {
    let upper = if std::arch::is_x86_feature_detected!("avx") { 0 } else { PATTERN };
    for spoil in [spoil_magic, spoil_end] {
        unsafe { install(SIGUSR1, 0, spoil) };
        assert_eq!(signal_with_vectors(), (PATTERN, upper));
        // The next frame is whole again.
        unsafe { install(SIGUSR1, 0, note) };
        assert_eq!(signal_with_vectors(), (PATTERN, PATTERN));
    }
}

fn null_and_invalid_arguments_fail() {
    unsafe {
        fails!(kill(getpid(), 99), EINVAL);
        fails!(kill(1 << 22, SIGTERM), ESRCH);
        ok(kill(getpid(), 0));
        fails!(syscall(SYS_rt_sigaction, SIGUSR1, 0, 0, 4), EINVAL);
        fails!(syscall(SYS_rt_sigaction, 65, 0, 0, 8), EINVAL);
        fails!(syscall(SYS_rt_sigaction, SIGUSR1, 8, 0, 8), EFAULT);
        fails!(syscall(SYS_rt_sigprocmask, 9, &set_of(&[]), 0, 8), EINVAL);
        fails!(syscall(SYS_tgkill, -1, gettid(), SIGUSR1), EINVAL);
        fails!(syscall(SYS_tgkill, getpid() + 100_000, gettid(), SIGUSR1), ESRCH);
    }
}
