//! Clocks, sleeping, timers.

use crate::harness::*;
use libc::*;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

cases![
    clocks_move_and_agree,
    cpu_clocks_count_work_only,
    sleeping_takes_its_time,
    absolute_sleep_ends_at_its_time,
    interval_timers_fire,
    posix_timers_fire_and_count_overruns,
    posix_timers_of_cpu_clocks,
    a_timer_has_a_place_of_its_own_among_signals,
    alarm_replaces_itself,
    bad_arguments_fail,
    times_and_uptime,
];

fn now(clock: clockid_t) -> Duration {
    unsafe {
        let mut at: timespec = zeroed();
        ok(clock_gettime(clock, &mut at));
        assert!((0..1_000_000_000).contains(&at.tv_nsec));
        Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
    }
}

fn clocks_move_and_agree() {
    for clock in [
        CLOCK_REALTIME,
        CLOCK_MONOTONIC,
        CLOCK_BOOTTIME,
        CLOCK_MONOTONIC_RAW,
        CLOCK_REALTIME_COARSE,
        CLOCK_MONOTONIC_COARSE,
        CLOCK_TAI,
    ] {
        let before = now(clock);
        pause_ms(15);
        let passed = now(clock) - before;
        assert!(
            passed >= Duration::from_millis(5) && passed < Duration::from_secs(10),
            "clock {clock}: {passed:?}"
        );
        let mut step: timespec = unsafe { zeroed() };
        ok(unsafe { clock_getres(clock, &mut step) });
        assert!(step.tv_sec == 0 && step.tv_nsec > 0);
    }
    let mut last = now(CLOCK_MONOTONIC);
    for _ in 0..20_000 {
        let next = now(CLOCK_MONOTONIC);
        assert!(next >= last, "time went back");
        last = next;
    }
    let mut tv: timeval = unsafe { zeroed() };
    ok(unsafe { gettimeofday(&mut tv, null_mut()) });
    let apart = now(CLOCK_REALTIME).as_secs() as i64 - tv.tv_sec;
    assert!((0..=1).contains(&apart));
    assert!(tv.tv_sec > 1_700_000_000, "the wall clock is set");
    assert!((unsafe { libc::time(null_mut()) } - tv.tv_sec).abs() <= 1);
}

fn cpu_clocks_count_work_only() {
    // A processor that the host takes away meanwhile counts as used, so one of many tries will do.
    let idle = || {
        let before = now(CLOCK_PROCESS_CPUTIME_ID);
        pause_ms(60);
        now(CLOCK_PROCESS_CPUTIME_ID) - before < Duration::from_millis(30)
    };
    assert!((0..100).any(|_| idle()), "sleeping takes CPU time");
    let (before, wall) = (now(CLOCK_THREAD_CPUTIME_ID), Instant::now());
    while wall.elapsed() < Duration::from_millis(60) {
        std::hint::spin_loop();
    }
    assert!(now(CLOCK_THREAD_CPUTIME_ID) - before > Duration::from_millis(2));
}

fn sleeping_takes_its_time() {
    for ms in [1, 10, 50] {
        let start = Instant::now();
        pause_ms(ms);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(ms), "{ms} ms took {took:?}");
        assert!(took < Duration::from_millis(ms + 30_000), "{ms} ms took {took:?}");
    }
}

fn absolute_sleep_ends_at_its_time() {
    unsafe {
        for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
            let target = now(clock) + Duration::from_millis(40);
            let at = timespec {
                tv_sec: target.as_secs() as i64,
                tv_nsec: i64::from(target.subsec_nanos()),
            };
            assert_eq!(clock_nanosleep(clock, TIMER_ABSTIME, &at, null_mut()), 0);
            assert!(now(clock) >= target);
            // A time in the past is over at once.
            assert_eq!(clock_nanosleep(clock, TIMER_ABSTIME, &zeroed(), null_mut()), 0);
        }
        assert_eq!(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &zeroed(), null_mut()), EINVAL);
        let now: timespec = zeroed();
        for clock in [
            CLOCK_THREAD_CPUTIME_ID,
            CLOCK_MONOTONIC_RAW,
            CLOCK_REALTIME_COARSE,
            CLOCK_MONOTONIC_COARSE,
        ] {
            fails!(syscall(SYS_clock_nanosleep, clock, 0, &now, 0), EOPNOTSUPP);
        }
    }
}

static TICKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn tick(_signal: c_int) {
    TICKS.fetch_add(1, SeqCst);
}

fn interval_timers_fire() {
    unsafe {
        signal(SIGALRM, tick as *const () as usize);
        let step = timeval { tv_sec: 0, tv_usec: 10_000 };
        let start = Instant::now();
        ok(setitimer(ITIMER_REAL, &itimerval { it_interval: step, it_value: step }, null_mut()));
        while TICKS.load(SeqCst) < 4 {
            assert!(start.elapsed() < Duration::from_secs(20));
            pause_ms(5);
        }
        assert!(start.elapsed() >= Duration::from_millis(40));
        let mut old: itimerval = zeroed();
        ok(setitimer(ITIMER_REAL, &zeroed(), &mut old));
        assert_eq!(old.it_interval.tv_usec, 10_000);
        signal(SIGVTALRM, tick as *const () as usize);
        let before = TICKS.load(SeqCst);
        ok(setitimer(
            ITIMER_VIRTUAL,
            &itimerval { it_interval: zeroed(), it_value: step },
            null_mut(),
        ));
        let start = Instant::now();
        while TICKS.load(SeqCst) == before {
            assert!(start.elapsed() < Duration::from_secs(50), "no SIGVTALRM while computing");
            std::hint::spin_loop();
        }
    }
}

fn posix_timers_fire_and_count_overruns() {
    unsafe {
        let mut set: sigset_t = zeroed();
        sigaddset(&mut set, SIGRTMIN());
        sigprocmask(SIG_BLOCK, &set, null_mut());
        let mut event: sigevent = zeroed();
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGRTMIN();
        event.sigev_value = sigval { sival_ptr: 0x77 as *mut c_void };
        let mut timer: timer_t = zeroed();
        ok(timer_create(CLOCK_MONOTONIC, &mut event, &mut timer));
        let step = timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        ok(timer_settime(timer, 0, &itimerspec { it_interval: step, it_value: step }, null_mut()));
        pause_ms(60);
        let mut info: siginfo_t = zeroed();
        assert_eq!(sigwaitinfo(&set, &mut info), SIGRTMIN());
        assert_eq!((info.si_code, info.si_value().sival_ptr as usize), (SI_TIMER, 0x77));
        assert!(timer_getoverrun(timer) >= 5, "{}", timer_getoverrun(timer));
        ok(timer_delete(timer));
        fails!(timer_gettime(timer, &mut zeroed()), EINVAL);
    }
}

fn posix_timers_of_cpu_clocks() {
    for clock in [CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID] {
        unsafe {
            let mut set: sigset_t = zeroed();
            sigaddset(&mut set, SIGUSR2);
            sigprocmask(SIG_BLOCK, &set, null_mut());
            let mut event: sigevent = zeroed();
            (event.sigev_notify, event.sigev_signo) = (SIGEV_SIGNAL, SIGUSR2);
            let mut timer: timer_t = zeroed();
            ok(timer_create(clock, &mut event, &mut timer));
            let step = timespec { tv_sec: 0, tv_nsec: 30_000_000 };
            let used = now(clock);
            let spec = itimerspec { it_interval: step, it_value: step };
            ok(timer_settime(timer, 0, &spec, null_mut()));
            let mut left: itimerspec = zeroed();
            ok(timer_gettime(timer, &mut left));
            assert!(left.it_value.tv_nsec > 0 && left.it_value.tv_nsec <= step.tv_nsec);
            // Time that passes is none that is used.
            pause_ms(100);
            let mut pending: sigset_t = zeroed();
            if now(clock) - used < Duration::from_millis(20) {
                ok(sigpending(&mut pending));
                assert_eq!(sigismember(&pending, SIGUSR2), 0);
            }
            let start = Instant::now();
            while sigismember(&pending, SIGUSR2) == 0 {
                assert!(start.elapsed() < Duration::from_secs(50), "clock {clock}");
                ok(sigpending(&mut pending));
            }
            assert!(now(clock) - used >= Duration::from_millis(29));
            let mut info: siginfo_t = zeroed();
            assert_eq!(sigwaitinfo(&set, &mut info), SIGUSR2);
            assert_eq!(info.si_code, SI_TIMER);
            ok(timer_delete(timer));
            let at_once = timespec { tv_sec: 0, tv_nsec: 0 };
            while sigtimedwait(&set, null_mut(), &at_once) != -1 {}
        }
    }
    unsafe {
        fails!(timer_create(99, null_mut(), &mut zeroed()), EINVAL);
        // To the kernel, a timer that starts threads sends signals.
        let mut event = [0u64, SIGRTMIN() as u64 | 2 << 32, 0, 0, 0, 0, 0, 0];
        let mut timer = 0i32;
        ok(syscall(SYS_timer_create, CLOCK_REALTIME, event.as_mut_ptr(), &raw mut timer));
    }
}

fn a_timer_has_a_place_of_its_own_among_signals() {
    unsafe {
        let mut set: sigset_t = zeroed();
        sigaddset(&mut set, SIGUSR1);
        sigprocmask(SIG_BLOCK, &set, null_mut());
        kill(getpid(), SIGUSR1);
        let mut event: sigevent = zeroed();
        (event.sigev_notify, event.sigev_signo) = (SIGEV_SIGNAL, SIGUSR1);
        let mut timer: timer_t = zeroed();
        ok(timer_create(CLOCK_MONOTONIC, &mut event, &mut timer));
        // So many expirations that their count doesn't fit: it stays at the highest.
        let spec = itimerspec {
            it_interval: timespec { tv_sec: 0, tv_nsec: 1 },
            it_value: timespec { tv_sec: 0, tv_nsec: 1 },
        };
        ok(timer_settime(timer, TIMER_ABSTIME, &spec, null_mut()));
        let mut info: siginfo_t = zeroed();
        // The signal from before comes first, and the timer's is not merged into it.
        assert_eq!(sigwaitinfo(&set, &mut info), SIGUSR1);
        assert_eq!(info.si_code, SI_USER);
        assert_eq!(sigwaitinfo(&set, &mut info), SIGUSR1);
        assert_eq!(info.si_code, SI_TIMER);
        ok(timer_settime(timer, 0, &zeroed(), null_mut()));
        fails!(timer_settime(timer, 0, std::ptr::null(), null_mut()), EINVAL);
        ok(timer_delete(timer));
    }
}

fn alarm_replaces_itself() {
    unsafe {
        alarm(300);
        assert!((250..=300).contains(&alarm(200)));
        assert!((150..=200).contains(&alarm(0)));
    }
}

fn bad_arguments_fail() {
    unsafe {
        let mut at: timespec = zeroed();
        fails!(clock_gettime(99, &mut at), EINVAL);
        fails!(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 8), EFAULT);
        let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
        fails!(nanosleep(&bad, null_mut()), EINVAL);
        let bad = timespec { tv_sec: -1, tv_nsec: 0 };
        fails!(nanosleep(&bad, null_mut()), EINVAL);
        fails!(setitimer(9, &zeroed(), null_mut()), EINVAL);
    }
}

fn times_and_uptime() {
    unsafe {
        let mut t: tms = zeroed();
        assert!(times(&mut t) > 0);
        let mut info: sysinfo = zeroed();
        ok(sysinfo(&mut info));
        assert!(info.totalram > 0 && info.freeram < info.totalram && info.procs > 0);
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
        assert!((seconds - info.uptime as f64).abs() < 5.0);
    }
}
