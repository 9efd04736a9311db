//! clone(2) with threads, futex(2), robust lists, scheduling calls.

use crate::harness::*;
use crate::harness::{pipe, read, write};
use libc::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

cases![
    threads_share_memory_and_join,
    mutexes_exclude,
    condition_variables_wake,
    thread_ids_and_names,
    futex_compares_before_waiting,
    futex_wait_times_out,
    futex_wakes_the_asked_number,
    futex_requeue_moves_waiters,
    futex_bitsets_select,
    shared_futex_works_across_processes,
    robust_list_marks_dead_owner,
    exit_group_ends_all_threads,
    main_thread_may_leave_first,
    signals_go_to_a_thread_that_takes_them,
    affinity_round_trips,
    yield_and_priorities,
    thread_local_data_is_private,
    kill_ends_every_thread,
    preemption_lets_others_run,
];

fn futex(
    word: &AtomicU32,
    op: i32,
    value: u32,
    timeout: *const timespec,
    word2: *const AtomicU32,
    value3: u32,
) -> i64 {
    unsafe { syscall(SYS_futex, word.as_ptr(), op, value, timeout, word2, value3) }
}

fn threads_share_memory_and_join() {
    let counter = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..16)
        .map(|i| {
            let counter = counter.clone();
            std::thread::spawn(move || {
                counter.fetch_add(i, SeqCst);
                i * 2
            })
        })
        .collect();
    let sum: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!((sum, counter.load(SeqCst)), (240, 120));
}

fn mutexes_exclude() {
    let value = Arc::new(Mutex::new(0u64));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let value = value.clone();
            std::thread::spawn(move || {
                for _ in 0..5000 {
                    let mut guard = value.lock().unwrap();
                    let seen = *guard;
                    if seen.is_multiple_of(64) {
                        std::thread::yield_now();
                    }
                    *guard = seen + 1;
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*value.lock().unwrap(), 20_000);
}

fn condition_variables_wake() {
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    let threads: Vec<_> = (0..4)
        .map(|me| {
            let pair = pair.clone();
            std::thread::spawn(move || {
                for round in 0..50 {
                    let mut turn = pair.0.lock().unwrap();
                    while *turn != round * 4 + me {
                        turn = pair.1.wait(turn).unwrap();
                    }
                    *turn += 1;
                    pair.1.notify_all();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let (lock, condvar) = &*pair;
    let (_guard, result) =
        condvar.wait_timeout(lock.lock().unwrap(), Duration::from_millis(20)).unwrap();
    assert!(result.timed_out());
}

fn thread_ids_and_names() {
    let main = unsafe { (getpid(), gettid()) };
    assert_eq!(main.0, main.1);
    let (ready, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (a, b) = (ready.clone(), go.clone());
    let thread = std::thread::Builder::new().name("named-thread".into()).spawn(move || {
        a.wait();
        b.wait();
        unsafe { (getpid(), gettid()) }
    });
    ready.wait();
    let names: Vec<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path().join("comm")).unwrap())
        .collect();
    assert!(names.iter().any(|name| name == "named-thread\n"), "{names:?}");
    go.wait();
    let (pid, tid) = thread.unwrap().join().unwrap();
    assert_eq!(pid, main.0);
    assert_ne!(tid, main.1);
}

fn futex_compares_before_waiting() {
    let word = AtomicU32::new(5);
    unsafe {
        fails!(futex(&word, FUTEX_WAIT, 4, std::ptr::null(), std::ptr::null(), 0), EAGAIN);
        fails!(syscall(SYS_futex, 1usize, FUTEX_WAIT, 0, 0, 0, 0), EINVAL);
        fails!(syscall(SYS_futex, 4usize, FUTEX_WAIT, 0, 0, 0, 0), EFAULT);
        fails!(futex(&word, 99, 0, std::ptr::null(), std::ptr::null(), 0), ENOSYS);
        fails!(futex(&word, FUTEX_WAIT_BITSET, 5, std::ptr::null(), std::ptr::null(), 0), EINVAL);
    }
    assert_eq!(futex(&word, FUTEX_WAKE, 9, std::ptr::null(), std::ptr::null(), 0), 0);
}

fn futex_wait_times_out() {
    let word = AtomicU32::new(0);
    let short = timespec { tv_sec: 0, tv_nsec: 30_000_000 };
    let start = Instant::now();
    unsafe {
        fails!(futex(&word, FUTEX_WAIT_PRIVATE(), 0, &short, std::ptr::null(), 0), ETIMEDOUT);
        assert!(start.elapsed() >= Duration::from_millis(30));
        let mut at: timespec = std::mem::zeroed();
        for (clock, flag) in [(CLOCK_MONOTONIC, 0), (CLOCK_REALTIME, FUTEX_CLOCK_REALTIME)] {
            clock_gettime(clock, &mut at);
            at.tv_nsec += 20_000_000;
            if at.tv_nsec >= 1_000_000_000 {
                (at.tv_sec, at.tv_nsec) = (at.tv_sec + 1, at.tv_nsec - 1_000_000_000);
            }
            let op = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | flag;
            fails!(futex(&word, op, 0, &at, std::ptr::null(), !0), ETIMEDOUT);
        }
        let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
        fails!(futex(&word, FUTEX_WAIT, 0, &bad, std::ptr::null(), 0), EINVAL);
    }
}

#[allow(non_snake_case, reason = "named like the constant it stands for")]
fn FUTEX_WAIT_PRIVATE() -> i32 {
    FUTEX_WAIT | FUTEX_PRIVATE_FLAG
}

/// Starts `n` threads that wait on `word`, and returns when they do.
fn waiters(word: &Arc<AtomicU32>, n: usize, bits: u32) -> Vec<std::thread::JoinHandle<()>> {
    let (announce, numbers) = std::sync::mpsc::channel();
    let threads = (0..n)
        .map(|_| {
            let (word, announce) = (word.clone(), announce.clone());
            std::thread::spawn(move || {
                announce.send(unsafe { gettid() }).unwrap();
                while word.load(SeqCst) == 0 {
                    let op = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG;
                    if futex(&word, op, 0, std::ptr::null(), std::ptr::null(), bits) == 0 {
                        return;
                    }
                }
            })
        })
        .collect();
    numbers.iter().take(n).for_each(crate::harness::until_asleep);
    threads
}

fn wake(word: &AtomicU32, n: u32) -> i64 {
    futex(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, n, std::ptr::null(), std::ptr::null(), 0)
}

fn futex_wakes_the_asked_number() {
    let word = Arc::new(AtomicU32::new(0));
    let threads = waiters(&word, 5, !0);
    assert_eq!(wake(&word, 2), 2);
    assert_eq!(wake(&word, u32::MAX >> 1), 3);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn futex_requeue_moves_waiters() {
    let (word, other) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
    let threads = waiters(&word, 4, !0);
    let op = FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG;
    unsafe {
        fails!(futex(&word, op, 1, std::ptr::without_provenance::<timespec>(2), &other, 9), EAGAIN)
    };
    assert_eq!(futex(&word, op, 1, std::ptr::without_provenance::<timespec>(2), &other, 0), 3);
    assert_eq!(wake(&other, 9), 2);
    assert_eq!(wake(&word, 9), 1);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn futex_bitsets_select() {
    let word = Arc::new(AtomicU32::new(0));
    let (two, one) = (waiters(&word, 2, 2), waiters(&word, 1, 1));
    let wake_bits = |bits| {
        let op = FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG;
        futex(&word, op, 9, std::ptr::null(), std::ptr::null(), bits)
    };
    assert_eq!(wake_bits(4), 0);
    assert_eq!(wake_bits(1), 1);
    assert_eq!(wake_bits(!0), 2);
    two.into_iter().chain(one).for_each(|thread| thread.join().unwrap());
}

fn shared_page() -> *mut c_void {
    let page = unsafe {
        mmap(null_mut(), 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
    };
    assert_ne!(page, MAP_FAILED);
    page
}

fn shared_futex_works_across_processes() {
    let word = unsafe { &*shared_page().cast::<AtomicU32>() };
    let pid = child(|| {
        while word.load(SeqCst) == 0 {
            futex(word, FUTEX_WAIT, 0, std::ptr::null(), std::ptr::null(), 0);
        }
        word.load(SeqCst) as i32
    });
    pause_ms(30);
    word.store(7, SeqCst);
    futex(word, FUTEX_WAKE, 1, std::ptr::null(), std::ptr::null(), 0);
    assert_eq!(WEXITSTATUS(wait_for(pid)), 7);
}

fn robust_list_marks_dead_owner() {
    unsafe {
        let mutex = shared_page().cast::<pthread_mutex_t>();
        let mut attr: pthread_mutexattr_t = std::mem::zeroed();
        pthread_mutexattr_init(&mut attr);
        pthread_mutexattr_setpshared(&mut attr, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&mut attr, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(mutex, &attr);
        let pid = child(|| {
            pthread_mutex_lock(mutex);
            0
        });
        wait_for(pid);
        assert_eq!(pthread_mutex_lock(mutex), EOWNERDEAD);
        assert_eq!(pthread_mutex_consistent(mutex), 0);
        assert_eq!(pthread_mutex_unlock(mutex), 0);
    }
}

fn exit_group_ends_all_threads() {
    let status = wait_for(child(|| {
        for _ in 0..4 {
            std::thread::spawn(|| {
                loop {
                    std::hint::spin_loop();
                }
            });
        }
        pause_ms(5);
        std::thread::spawn(|| unsafe { _exit(21) }).join().unwrap();
        0
    }));
    assert_eq!(WEXITSTATUS(status), 21);
}

fn main_thread_may_leave_first() {
    let (r, w) = pipe();
    let pid = child(|| {
        std::thread::spawn(move || {
            pause_ms(50);
            write(w, b"later");
            unsafe { _exit(5) }
        });
        unsafe { syscall(SYS_exit, 1) };
        0
    });
    assert_eq!(read(r, 9), b"later");
    assert_eq!(WEXITSTATUS(wait_for(pid)), 5);
}

static GOT: AtomicU32 = AtomicU32::new(0);

extern "C" fn remember_thread(_signal: c_int) {
    GOT.store(unsafe { gettid() } as u32, SeqCst);
}

fn signals_go_to_a_thread_that_takes_them() {
    unsafe {
        signal(SIGUSR1, remember_thread as *const () as usize);
        let ready = Arc::new(Barrier::new(2));
        let inner = ready.clone();
        let thread = std::thread::spawn(move || {
            inner.wait();
            let tid = gettid();
            while GOT.load(SeqCst) == 0 {
                pause_ms(1);
            }
            tid
        });
        let mut set: sigset_t = std::mem::zeroed();
        sigaddset(&mut set, SIGUSR1);
        pthread_sigmask(SIG_BLOCK, &set, null_mut());
        ready.wait();
        ok(kill(getpid(), SIGUSR1));
        let tid = thread.join().unwrap();
        assert_eq!(GOT.load(SeqCst), tid as u32);
    }
}

fn affinity_round_trips() {
    unsafe {
        let mut set: cpu_set_t = std::mem::zeroed();
        ok(sched_getaffinity(0, size_of::<cpu_set_t>(), &mut set));
        let first = (0..CPU_SETSIZE as usize).find(|&cpu| CPU_ISSET(cpu, &set)).unwrap();
        let mut one: cpu_set_t = std::mem::zeroed();
        CPU_SET(first, &mut one);
        ok(sched_setaffinity(0, size_of::<cpu_set_t>(), &one));
        assert_eq!(sched_getcpu(), first as i32);
        let mut now: cpu_set_t = std::mem::zeroed();
        ok(sched_getaffinity(0, size_of::<cpu_set_t>(), &mut now));
        assert_eq!(CPU_COUNT(&now), 1);
        let none: cpu_set_t = std::mem::zeroed();
        fails!(sched_setaffinity(0, size_of::<cpu_set_t>(), &none), EINVAL);
        ok(sched_setaffinity(0, size_of::<cpu_set_t>(), &set));
    }
}

fn yield_and_priorities() {
    unsafe {
        ok(sched_yield());
        assert_eq!(sched_getscheduler(0), SCHED_OTHER);
        assert_eq!(
            (sched_get_priority_min(SCHED_FIFO), sched_get_priority_max(SCHED_FIFO)),
            (1, 99)
        );
        let before = getpriority(PRIO_PROCESS, 0);
        ok(setpriority(PRIO_PROCESS, 0, before + 5));
        assert_eq!(getpriority(PRIO_PROCESS, 0), before + 5);
        fails!(setpriority(9, 0, 0), EINVAL);
    }
}

fn thread_local_data_is_private() {
    thread_local!(static SLOT: std::cell::Cell<usize> = const { std::cell::Cell::new(1) });
    SLOT.set(2);
    let seen = std::thread::spawn(|| SLOT.replace(3)).join().unwrap();
    assert_eq!((seen, SLOT.get()), (1, 2));
}

fn kill_ends_every_thread() {
    let pid = child(|| {
        for _ in 0..3 {
            std::thread::spawn(|| {
                loop {
                    pause_ms(1000);
                }
            });
        }
        loop {
            std::hint::spin_loop();
        }
    });
    pause_ms(30);
    unsafe { kill(pid, SIGKILL) };
    assert_eq!(WTERMSIG(wait_for(pid)), SIGKILL);
}

fn preemption_lets_others_run() {
    let stop = Arc::new(AtomicBool::new(false));
    // More spinners than CPUs: without preemption the main thread would never run again.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let threads: Vec<_> = (0..cpus + 1)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(SeqCst) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let start = Instant::now();
    pause_ms(50);
    stop.store(true, SeqCst);
    assert!(start.elapsed() < Duration::from_secs(20));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
