//! HEALTHCHECK by Docker's rules, system call lists, and what becomes of processes nobody waits for:
//! what `dock2uni run` shows of it.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::layout::{Layout, busybox};
use common::vm::{Vm, can_boot, dock2uni};
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

fn run(image: &Layout, store: &TempDir, options: &[&str], command: &[&str]) -> Vm {
    Vm::start(
        dock2uni()
            .args(["run", "--accel", "tcg"])
            .args(options)
            .arg(image.path())
            .args(command)
            .env("DOCK2UNI_STORE", store.path()),
    )
}

#[test]
fn health_follows_the_checks() {
    if !can_boot() {
        return;
    }
    let second = 1_000_000_000u64;
    let image = busybox(
        json!({
            "Cmd": ["/bin/sh", "-c", "busybox sleep 2; echo > /ok; busybox sleep 4; \
                                      busybox rm /ok; busybox sleep 1000"],
            "Env": ["FILE=/ok"],
            "Healthcheck": {
                "Test": ["CMD-SHELL", "[ -e $FILE ] || { echo no $FILE; exit 3; }"],
                "Interval": second / 2,
                "Retries": 2,
                "StartPeriod": 60 * second,
                "StartInterval": second / 2,
            },
        }),
        &[],
        None,
    );
    let store = tempfile::tempdir().unwrap();
    let mut vm = run(&image, &store, &[], &[]);
    vm.wait_for("health: starting", PATIENCE);
    // Failures don't count in the start period, but they are told.
    vm.wait_for("health check failed: exit status 3: no /ok", PATIENCE);
    vm.wait_for("health: healthy", PATIENCE);
    vm.wait_for("health: unhealthy", PATIENCE);
    assert_eq!(vm.text().matches("health: ").count(), 3, "{}", vm.text());
    drop(vm);

    // Options replace the image's; a check that hangs is killed, and its children with it.
    let options = ["--health-cmd", "busybox sleep 50; echo never", "--health-timeout", "500ms"];
    let more =
        ["--health-interval", "200ms", "--health-retries", "1", "--health-start-period", "0"];
    let mut vm = run(&image, &store, &[&options[..], &more].concat(), &[]);
    vm.wait_for("health check failed: took longer than 500 ms", PATIENCE);
    vm.wait_for("health: unhealthy", PATIENCE);
    drop(vm);
    let quick = ["sh", "-c", "busybox sleep 2"];
    let mut vm = run(&image, &store, &["--no-healthcheck"], &quick);
    assert_eq!((vm.wait(PATIENCE), vm.text()), (0, String::new()));
}

#[test]
fn calls_that_are_not_on_the_list_are_fatal_and_named() {
    if !can_boot() {
        return;
    }
    let image = busybox(json!({"Cmd": ["/bin/busybox", "true"]}), &[], None);
    let store = tempfile::tempdir().unwrap();
    let mut vm = run(&image, &store, &["--lock-syscalls", "auto"], &[]);
    assert_eq!(vm.wait(PATIENCE), 125);
    assert!(vm.text().starts_with("error: no system calls of this image"), "{}", vm.text());

    // What was recorded is enough to do the same again, and for nothing else.
    let mut vm = run(&image, &store, &["--record-syscalls"], &["busybox", "echo", "hello"]);
    assert_eq!((vm.wait(PATIENCE), vm.text()), (0, "hello".to_owned()));
    let locked = ["--lock-syscalls", "auto"];
    let mut vm = run(&image, &store, &locked, &["busybox", "echo", "again"]);
    assert_eq!((vm.wait(PATIENCE), vm.text()), (0, "again".to_owned()));
    let mut vm = run(&image, &store, &locked, &["busybox", "mkdir", "/new"]);
    assert_eq!(vm.wait(PATIENCE), 128 + 31, "{}", vm.text());
    let said = "busybox[1]: killed: system call mkdir(83) is not on the list";
    assert!(vm.text().contains(said), "{}", vm.text());

    // A list by hand; a mistake in it is named.
    let list = store.path().join("list");
    fs::write(&list, "read\nwrit\n").unwrap();
    let options = ["--lock-syscalls", list.to_str().unwrap()];
    let mut vm = run(&image, &store, &options, &[]);
    assert_eq!(vm.wait(PATIENCE), 125);
    assert!(vm.text().contains(":2: `writ` is no system call"), "{}", vm.text());
}

#[test]
fn orphans_are_reaped_where_the_main_process_does_not_care() {
    if !can_boot() {
        return;
    }
    let source = r#"
        #include <errno.h>
        #include <signal.h>
        #include <stdio.h>
        #include <sys/wait.h>
        #include <unistd.h>
        int main(void) {
            int fds[2], orphan;
            pipe(fds);
            pid_t middle = fork();
            if (middle == 0) {
                pid_t orphan = fork();
                if (orphan == 0) { usleep(200000); _exit(0); }
                write(fds[1], &orphan, sizeof orphan);
                _exit(0);
            }
            waitpid(middle, 0, 0);
            read(fds[0], &orphan, sizeof orphan);
            for (int i = 0; i < 500; i++) {
                if (kill(orphan, 0) == -1 && errno == ESRCH) { puts("gone"); return 0; }
                usleep(10000);
            }
            puts("a zombie");
            return 1;
        }
    "#;
    let image = busybox(json!({"Cmd": ["/app"]}), &[], Some(source));
    let store = tempfile::tempdir().unwrap();
    let mut vm = run(&image, &store, &[], &[]);
    assert_eq!((vm.wait(PATIENCE), vm.text()), (0, "gone".to_owned()));
}

#[test]
fn a_crash_report_has_registers_callers_and_maps() {
    if !can_boot() {
        return;
    }
    let source = r#"
        __attribute__((noinline)) void deepest(volatile int *at) { *at = 1; }
        __attribute__((noinline)) void deeper(volatile int *at) { deepest(at); *at = 2; }
        int main(void) { deeper((int *)0x1230); return 0; }
    "#;
    let image = busybox(json!({"Cmd": ["/app"]}), &[], Some(source));
    let store = tempfile::tempdir().unwrap();
    let mut vm = run(&image, &store, &[], &[]);
    assert_eq!(vm.wait(PATIENCE), 128 + 11, "{}", vm.text());
    let text = vm.text();
    assert!(text.starts_with("app[1]: SIGSEGV at 0x1230, ip /app+0x"), "{text}");
    assert!(text.contains(" rdi 1230\n") && text.contains("\n  rip "), "{text}");
    assert!(text.contains("\n  called from /app+0x"), "{text}");
    assert!(text.contains("\n  map "), "{text}");
    // Addresses of the kernel are in the upper half.
    assert!(!text.contains("ffff8") && !text.contains("ffffffff"), "{text}");
}

#[test]
fn strace_follows_processes() {
    if !can_boot() {
        return;
    }
    let script = "busybox echo one; busybox true & wait; exit 4";
    let image = busybox(json!({"Env": ["PATH=/bin"]}), &["/usr/bin/strace"], None);
    let store = tempfile::tempdir().unwrap();
    let command =
        ["/usr/bin/strace", "-f", "-e", "trace=execve,write,exit_group", "sh", "-c", script];
    let mut vm = run(&image, &store, &[], &command);
    assert_eq!(vm.wait(PATIENCE), 4, "{}", vm.text());
    let text = vm.text();
    for expected in [
        "execve(\"/bin/sh\", [\"sh\", \"-c\"",
        // busybox runs itself again by /proc.
        "[\"busybox\", \"echo\", \"one\"], 0x",
        "write(1, \"one\\n\", 4",
        "exit_group(0)",
        "exit_group(4)",
        "+++ exited with 4 +++",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(text.matches("+++ exited with 0 +++").count() >= 2, "{text}");
    assert!(!text.contains("unimplemented"), "{text}");
}

#[test]
fn limits_and_settings_are_as_asked() {
    if !can_boot() {
        return;
    }
    let shell = "ulimit -Sn; ulimit -Hn; ulimit -c; busybox cat /proc/sys/net/core/somaxconn; \
                 busybox cat /proc/sys/kernel/core_pattern; busybox grep -c eth0 /proc/net/if_inet6; busybox sleep 3";
    let image = busybox(
        json!({
            "Cmd": ["/bin/sh", "-c", shell],
            "Healthcheck": {"Test": ["CMD-SHELL", "ulimit -Sn; false"], "Interval": 500_000_000u64},
        }),
        &[],
        None,
    );
    let store = tempfile::tempdir().unwrap();
    let limits = ["--ulimit", "nofile=100:200", "--ulimit", "core=7", "--ulimit", "core=-1"];
    let settings = [
        ["--sysctl", "net.core.somaxconn=77"],
        ["--sysctl", "kernel.core_pattern=/data/%e"],
        ["--sysctl", "net.ipv6.conf.all.disable_ipv6=1"],
    ];
    let health = ["--health-start-period", "60s", "--health-start-interval", "500ms"];
    let options = [&limits[..], &settings.concat(), &health].concat();
    let mut vm = run(&image, &store, &options, &[]);
    // A check has the same.
    vm.wait_for("health check failed: exit status 1: 100", PATIENCE);
    assert_eq!(vm.wait(PATIENCE), 0, "{}", vm.text());
    let text = vm.text();
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("health")).collect();
    assert_eq!(lines, ["100", "200", "unlimited", "77", "/data/%e", "0"], "{text}");

    // What can't be is said before anything boots, or by the kernel if only it knows.
    for (options, why) in [
        (["--ulimit", "nofile=5:4"], "`nofile=5:4` is not a limit"),
        (["--sysctl", "kernel.panic=1"], "the guest's kernel has no setting `kernel.panic`"),
    ] {
        let mut vm = run(&image, &store, &options, &[]);
        assert_eq!(vm.wait(PATIENCE), 2, "{}", vm.text());
        assert!(vm.text().contains(why), "{}", vm.text());
    }
    let mut vm = run(&image, &store, &["--sysctl", "net.core.somaxconn=x"], &[]);
    assert_eq!(vm.wait(PATIENCE), 126, "{}", vm.text());
    assert!(vm.text().contains("the setting net.core.somaxconn=x can't be made"), "{}", vm.text());
}

#[test]
fn a_debugger_reads_a_core_file_from_a_volume() {
    if !can_boot() {
        return;
    }
    let source = r#"
        double table[2] = {1.5, 42.5};
        __attribute__((noinline)) static void inner(double by) {
            volatile double product = table[1] * by;
            if (product > 80) *(volatile int *)8 = 1;
        }
        __attribute__((noinline)) static void outer(int depth) {
            if (depth == 0) inner(2.0); else outer(depth - 1);
            __asm__ volatile("");
        }
        int main(void) { outer(2); return 0; }
    "#;
    let image =
        busybox(json!({"Cmd": ["/bin/sh", "-c", "/app; echo status $?"]}), &[], Some(source));
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volume = format!("{}:/cores", dir.path().display());
    let options = [
        ["--ulimit", "core=-1"],
        ["--sysctl", "kernel.core_pattern=/cores/%e.%s"],
        ["-v", &volume],
    ];
    let mut vm = run(
        &image,
        &store,
        &options.concat(),
        &["sh", "-c", "busybox cp /app /cores; /app; echo status $?"],
    );
    assert_eq!(vm.wait(PATIENCE), 0, "{}", vm.text());
    assert!(vm.text().contains("status 139"), "{}", vm.text());
    assert!(vm.text().contains("core file /cores/app.11, "), "{}", vm.text());
    let output = common::run(
        Command::new("gdb")
            .args(["-nx", "-batch", "-ex", "bt", "-ex", "p *(double(*)[2])&table"])
            .args(["app", "app.11"])
            .current_dir(dir.path()),
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Program terminated with signal SIGSEGV"), "{text}");
    for name in ["#0 ", " inner ", " outer ", " main "] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(text.contains("{1.5, 42.5}"), "{text}");
}
