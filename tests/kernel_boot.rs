//! Boots the kernel alone, on every machine type it supports, and runs the checks built into it.
//!
//! Needs `qemu-system-x86_64`; emulation (TCG) is enough.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The kernel's path; built once for all tests.
fn kernel() -> &'static str {
    static KERNEL: OnceLock<String> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kernel-build");
        let built = Command::new(script).output().expect("scripts/kernel-build starts");
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "the kernel doesn't build:\n{errors}");
        String::from_utf8(built.stdout).expect("a path").trim().to_owned()
    })
}

/// Boots and gives what the kernel printed until the machine went off. With `press` the power
/// button is pressed, by QEMU's monitor, once the kernel has asked for it on the console.
fn boot(machine: &[&str], line: &str, press: bool) -> String {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "tcg", "-cpu", "max", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-kernel", kernel(), "-append", line])
        .args(machine)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let socket = std::env::temp_dir().join(format!("d2u-monitor-{}", std::process::id()));
    if press {
        command.arg("-monitor").arg(format!("unix:{},server=on,wait=off", socket.display()));
    }
    let mut qemu = command.spawn().expect("qemu-system-x86_64 starts");
    let mut output = qemu.stdout.take().expect("piped");
    let reader = thread::spawn(move || {
        let (mut text, mut chunk) = (Vec::new(), [0; 512]);
        let mut asked = !press;
        let mut monitor = None;
        while let Ok(len @ 1..) = output.read(&mut chunk) {
            text.extend_from_slice(&chunk[..len]);
            if !asked && String::from_utf8_lossy(&text).trim_end().ends_with("power button") {
                asked = true;
                let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("monitor");
                stream.write_all(b"system_powerdown\n").expect("monitor");
                // Closing it at once could lose the command.
                monitor = Some(stream);
            }
        }
        drop(monitor);
        let _ = std::fs::remove_file(&socket);
        String::from_utf8_lossy(&text).into_owned()
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    while qemu.try_wait().expect("qemu is our child").is_none() {
        if Instant::now() > deadline {
            qemu.kill().expect("qemu is our child");
            panic!("the machine doesn't go off; it printed:\n{}", reader.join().expect("reader"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    reader.join().expect("reader")
}

#[track_caller]
fn passes(machine: &[&str], check: &str) {
    let text = boot(machine, &format!("d2u.selftest={check}"), false);
    assert!(text.contains(&format!("selftest {check}: ok")), "{machine:?}:\n{text}");
}

#[test]
fn the_kernel_is_at_most_a_megabyte_and_a_half() {
    // Kernels for development, or built elsewhere, are as large as they are.
    if option_env!("D2U_KERNEL_PROFILE").is_some() || option_env!("D2U_KERNEL").is_some() {
        return;
    }
    let len = dock2uni::guest::kernel().unwrap().len();
    assert!(len <= 3 << 19, "the kernel has {len} bytes");
}

#[test]
fn every_machine_type_boots_and_powers_off() {
    for machine in ["q35", "pc", "microvm", "microvm,acpi=off,pit=off,pic=off,rtc=off"] {
        passes(&["-M", machine, "-m", "32"], "boot");
        passes(&["-M", machine, "-m", "64", "-smp", "4"], "boot");
    }
}

#[test]
fn memory_above_4_gib_is_mapped() {
    passes(&["-M", "q35", "-m", "5G"], "boot");
}

#[test]
fn a_panic_names_functions() {
    let text = boot(&["-M", "q35", "-m", "64"], "d2u.selftest=panic", false);
    assert!(text.contains("kernel panic on CPU 0"), "{text}");
    // Down to the entry; what lies between is the optimiser's to inline.
    assert!(text.contains(" panic_fmt+"), "{text}");
    assert!(text.contains(" arch::x86_64::boot::start+"), "{text}");
}

#[test]
fn exceptions_in_the_kernel_are_reported() {
    for (check, expected) in [
        ("opcode", "invalid opcode in the kernel"),
        ("overflow", "kernel stack overflow"),
        ("text", "page fault in the kernel"),
    ] {
        let text = boot(&["-M", "q35", "-m", "64"], &format!("d2u.selftest={check}"), false);
        assert!(text.contains(expected), "{check}:\n{text}");
    }
}

#[test]
fn interrupts_spare_the_red_zone() {
    passes(&["-M", "q35", "-m", "64"], "redzone");
}

#[test]
fn interrupts_do_not_pile_up_on_the_stack() {
    passes(&["-M", "q35", "-m", "64"], "storm");
}

#[test]
fn timers_fire_in_order_and_never_early() {
    passes(&["-M", "q35", "-m", "64"], "timers");
    passes(&["-M", "microvm", "-m", "64"], "timers");
}

#[test]
fn user_mode_keeps_its_registers_and_its_limits() {
    passes(&["-M", "q35", "-m", "64"], "user");
    passes(&["-M", "q35", "-m", "64", "-cpu", "qemu64"], "user");
}

#[test]
fn all_cpus_work() {
    for (machine, cpus) in [("q35", 2), ("q35", 4), ("pc", 3), ("microvm", 2)] {
        let count = cpus.to_string();
        let line = "d2u.selftest=smp";
        let text = boot(&["-M", machine, "-m", "64", "-smp", &count], line, false);
        assert!(text.contains(&format!("selftest: {cpus} CPUs")), "{machine}:\n{text}");
        assert!(text.contains("selftest smp: ok"), "{machine}:\n{text}");
    }
}

#[test]
fn every_boot_has_its_own_place() {
    let moved = |machine: &[&str], words: &str| {
        let text = boot(machine, &format!("d2u.selftest=place {words}"), false);
        let at = text.find("moved by 0x").unwrap_or_else(|| panic!("{text}"));
        let digits = text[at + 11..].split_whitespace().next().expect("a number");
        u64::from_str_radix(digits, 16).expect("a number")
    };
    // With a generator of random numbers in the CPU, and without.
    for cpu in ["max", "qemu64"] {
        let machine = ["-M", "q35", "-m", "64", "-cpu", cpu];
        let places: Vec<u64> = (0..3).map(|_| moved(&machine, "")).collect();
        assert!(places.iter().all(|&place| (1 << 30..2 << 30).contains(&place)), "{places:x?}");
        assert!(places.iter().all(|&place| place.is_multiple_of(4096)), "{places:x?}");
        assert!(places[0] != places[1] || places[1] != places[2], "{places:x?}");
    }
    assert_eq!(moved(&["-M", "q35", "-m", "64"], "nokaslr"), 0);
    assert!(moved(&["-M", "q35", "-m", "64"], "xnokaslr nokaslry") > 0);
}

/// What is printed of the kernel are addresses of its file, which tell nothing about where it is.
#[test]
fn reports_do_not_tell_where_the_kernel_is() {
    for check in ["panic", "opcode", "text"] {
        let text = boot(&["-M", "q35", "-m", "64"], &format!("d2u.selftest={check}"), false);
        let high = text.split(|c: char| !c.is_ascii_hexdigit() && c != 'x').filter_map(|word| {
            let digits = word.strip_prefix("0x").unwrap_or(word);
            let value = u64::from_str_radix(digits, 16).ok()?;
            (0xffff_ffff_8000_0000..0xffff_ffff_ffff_0000).contains(&value).then_some(value)
        });
        let high: Vec<u64> = high.collect();
        assert!(!high.is_empty(), "{text}");
        assert!(high.iter().all(|&value| value < 0xffff_ffff_c000_0000), "{text}");
    }
}

#[test]
fn the_power_button_is_noticed() {
    for machine in ["q35", "pc", "microvm"] {
        let text = boot(&["-M", machine, "-m", "64"], "d2u.selftest=button", true);
        assert!(text.contains("selftest button: ok"), "{machine}:\n{text}");
    }
}

/// The entry code saves the 16 xmm registers; what lies above them survives because the kernel
/// never touches it.
#[test]
fn the_kernel_has_no_avx_code() {
    let unstripped = format!("{}.debug", kernel());
    let listing = Command::new("objdump").args(["-d", &unstripped]).output().expect("objdump");
    assert!(listing.status.success());
    let listing = String::from_utf8_lossy(&listing.stdout);
    assert!(listing.contains("xmm0"), "no disassembly");
    let first = listing.lines().find(|line| line.contains("%ymm") || line.contains("%zmm"));
    assert_eq!(first, None);
}
