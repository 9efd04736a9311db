//! What keeps programs from each other and from the kernel.

use crate::harness::{c, child, ok, read, wait_for};
use libc::*;
use std::fs;
use std::io::Read;

cases! {
    every_start_has_its_own_places,
    memory_of_the_kernel_is_out_of_reach,
    text_is_not_writable_and_data_does_not_run,
    no_file_tells_where_the_kernel_is,
    vulnerabilities_are_listed,
}

/// Where a fresh start of this program has its stack and heap.
fn places() -> (usize, usize) {
    let (out, into) = crate::harness::pipe();
    let exe = fs::read_link("/proc/self/exe").unwrap();
    let name = c(exe.to_str().unwrap());
    let pid = child(|| unsafe {
        dup2(into, 1);
        let args = [name.as_ptr(), c"--exec-probe".as_ptr(), c"places".as_ptr(), std::ptr::null()];
        execv(name.as_ptr(), args.as_ptr());
        1
    });
    assert_eq!(wait_for(pid), 0);
    let text = String::from_utf8(read(out, 200)).unwrap();
    let mut words = text.split_whitespace().map(|word| word.parse().unwrap());
    (words.next().unwrap(), words.next().unwrap())
}

fn every_start_has_its_own_places() {
    let mut seen: Vec<_> = (0..6).map(|_| places()).collect();
    let (stacks, heaps): (Vec<_>, Vec<_>) = seen.drain(..).unzip();
    for mut places in [stacks, heaps] {
        places.sort();
        places.dedup();
        assert!(places.len() >= 5, "{places:x?}");
    }
}

/// The signal that ends `body`; 0 if it returns.
fn signal_of(body: impl FnOnce()) -> i32 {
    let status = wait_for(child(|| {
        let none = rlimit { rlim_cur: 0, rlim_max: 0 };
        unsafe { setrlimit(RLIMIT_CORE, &none) };
        body();
        0
    }));
    if WIFSIGNALED(status) { WTERMSIG(status) } else { 0 }
}

fn memory_of_the_kernel_is_out_of_reach() {
    let places = [
        0xffff_ffff_8020_0000usize,
        0xffff_ffff_c020_0000,
        0xffff_8000_0000_1000,
        0xffff_c000_0000_0000,
    ];
    for place in places {
        assert_eq!(signal_of(|| crate::harness::touch(place as *const u8)), SIGSEGV);
        unsafe {
            let (out, _) = crate::harness::pipe();
            fails!(libc::read(out, place as *mut c_void, 1), EFAULT);
            fails!(write(1, place as *const c_void, 1), EFAULT);
            fails!(
                mmap(
                    place as *mut c_void,
                    4096,
                    PROT_READ,
                    MAP_PRIVATE | MAP_ANON | MAP_FIXED,
                    -1,
                    0
                ),
                ENOMEM
            );
        }
    }
}

fn text_is_not_writable_and_data_does_not_run() {
    let code = places as *const () as *mut u8;
    assert_eq!(signal_of(|| unsafe { code.write_volatile(0xc3) }), SIGSEGV);
    // `ret`, on the stack, in the heap, in fresh memory.
    let on_stack = [0xc3u8; 16];
    let in_heap = Box::new([0xc3u8; 16]);
    let fresh = unsafe {
        let at =
            mmap(std::ptr::null_mut(), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
        at.cast::<u8>().write(0xc3);
        at as usize
    };
    for place in [on_stack.as_ptr() as usize, in_heap.as_ptr() as usize, fresh] {
        let run = || {
            let code: extern "C" fn() = unsafe { std::mem::transmute(place) };
            code();
        };
        assert_eq!(signal_of(run), SIGSEGV);
    }
    unsafe {
        ok(mprotect(fresh as *mut c_void, 4096, PROT_READ | PROT_EXEC));
    }
    let code: extern "C" fn() = unsafe { std::mem::transmute(fresh) };
    code();
}

/// Whether a text has an address of the upper half of memory, the kernel's.
fn has_kernel_address(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_ascii_hexdigit());
    words
        .filter(|word| word.len() == 16)
        .any(|word| word.starts_with("ffff") && word != "ffffffffffffffff")
}

fn no_file_tells_where_the_kernel_is() {
    assert!(has_kernel_address("x ffffffff81000000 y") && !has_kernel_address("7fffffffe000"));
    child_without_privilege(|| {
        for name in ["stat", "status", "wchan", "syscall", "maps", "smaps", "stack", "limits", "io"]
        {
            let text = fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
            // The page of old system calls has a fixed place in the upper half.
            let text: Vec<&str> = text.lines().filter(|line| !line.contains("vsyscall")).collect();
            // Signal masks look like addresses.
            let masks = ["Sig", "Shd", "Cap"];
            for line in text {
                assert!(
                    masks.iter().any(|mask| line.starts_with(mask)) || !has_kernel_address(line),
                    "{name}: {line}"
                );
            }
        }
        for name in [
            "kallsyms",
            "modules",
            "timer_list",
            "iomem",
            "net/unix",
            "net/tcp",
            "net/udp",
            "net/netlink",
            "locks",
        ] {
            let Ok(file) = fs::File::open(format!("/proc/{name}")) else { continue };
            let mut text = String::new();
            // The start of it: some are long.
            let _ = file.take(16 << 10).read_to_string(&mut text);
            assert!(!has_kernel_address(&text), "{name}");
        }
    });
}

fn child_without_privilege(body: impl FnOnce()) {
    crate::harness::child_passes(|| {
        unsafe { ok(setresuid(65534, 65534, 65534)) };
        body();
    });
}

fn vulnerabilities_are_listed() {
    let dir = "/sys/devices/system/cpu/vulnerabilities";
    for name in ["meltdown", "spectre_v1", "spectre_v2", "mds", "l1tf", "retbleed"] {
        let text = fs::read_to_string(format!("{dir}/{name}")).unwrap();
        let known = ["Not affected\n", "Vulnerable", "Mitigation: ", "Unknown"];
        assert!(known.iter().any(|start| text.starts_with(start)), "{name}: {text}");
        assert!(text.ends_with('\n'));
    }
    assert!(fs::read_dir(dir).unwrap().count() >= 6);
}
