//! A VM on a network of the host: a tap device with several queues, and large frames both ways.

mod common;
#[path = "network/lease.rs"]
mod lease;

use std::process::Command;
use std::time::Duration;

use common::layout::busybox;
use common::vm::{Vm, can_boot};
use rustix::process::Signal;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(180);

/// Sends back what it gets, a process for each connection.
const ECHO: &str = r#"
    #include <arpa/inet.h>
    #include <signal.h>
    #include <sys/socket.h>
    #include <unistd.h>
    int main(void) {
        static char buffer[65536];
        struct sockaddr_in here = {AF_INET, htons(7)};
        int listener = socket(AF_INET, SOCK_STREAM, 0);
        signal(SIGCHLD, SIG_IGN);
        if (bind(listener, (void *)&here, sizeof here) || listen(listener, 16)) return 1;
        for (;;) {
            int one = accept(listener, 0, 0);
            if (!fork()) {
                for (ssize_t got; (got = read(one, buffer, sizeof buffer)) > 0;)
                    for (ssize_t at = 0, put; at < got; at += put)
                        if ((put = write(one, buffer + at, got - at)) < 0) _exit(1);
                _exit(0);
            }
            close(one);
        }
    }
"#;

/// Eight connections at once, each with bytes of its own.
const CLIENT: &str = r#"
import random, socket, threading
SIZE, ok = 4 << 20, []
def talk(seed):
    data = random.Random(seed).randbytes(SIZE)
    with socket.create_connection(("10.9.0.2", 7), 150) as one:
        threading.Thread(target=lambda: (one.sendall(data), one.shutdown(socket.SHUT_WR))).start()
        back = bytearray()
        while part := one.recv(1 << 16):
            back += part
    ok.append(bytes(back) == data)
threads = [threading.Thread(target=talk, args=(seed,)) for seed in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert ok == [True] * 8, ok
"#;

/// The tool in a network of its own, after `script`: only root may make one with a tap device. What
/// /sys shows are the devices of the network in which it was mounted.
fn alone(script: &str) -> Option<Command> {
    let tun = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
    if !can_boot() {
        return None;
    }
    if !rustix::process::geteuid().is_root() || tun.is_err() {
        eprintln!("SKIPPED: a tap device takes root and /dev/net/tun");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--mount",
        "bash",
        "-euc",
        &format!("mount -t sysfs sysfs /sys; {script}"),
        "bash",
        env!("CARGO_BIN_EXE_dock2uni"),
    ]);
    Some(command)
}

fn echo_on(machine: &str) {
    let script = r#"
        ip tuntap add dev d2u0 mode tap multi_queue
        ip addr add 10.9.0.1/24 dev d2u0
        ip link set d2u0 up
        exec "$@"
    "#;
    let Some(mut command) = alone(script) else { return };
    let application = "/app & cd /sys/class/net/eth0; busybox ls queues; \
        trap 'cd statistics; echo $(busybox cat rx_bytes rx_packets); exit 0' TERM; \
        echo all is ready; while :; do busybox sleep 1; done";
    let config = json!({"Cmd": ["/bin/sh", "-c", application], "Env": ["PATH=/bin"]});
    let image = busybox(config, &[], Some(ECHO));
    let store = tempfile::tempdir().unwrap();
    let options = "run --accel tcg --cpus 2 --tap d2u0 --ip 10.9.0.2/24 --machine";
    let mut vm = Vm::start(
        command
            .args(options.split(' '))
            .arg(machine)
            .arg(image.path())
            .env("DOCK2UNI_STORE", store.path()),
    );
    vm.wait_for("all is ready", PATIENCE);
    let queues: Vec<&str> =
        vm.seen.iter().map(String::as_str).filter(|line| line.contains("x-")).collect();
    assert_eq!(queues, ["rx-0", "rx-1", "tx-0", "tx-1"]);

    let target = vm.id().to_string();
    common::run(Command::new("nsenter").args(["-t", &target, "-n", "python3", "-c", CLIENT]));
    vm.signal(Signal::TERM);
    assert_eq!(vm.wait(PATIENCE), 0, "{}", vm.text());
    let counters = vm.seen.last().unwrap().split(' ');
    let counters: Vec<f64> = counters.map(|number| number.parse().unwrap()).collect();
    // Many of the frames that came were longer than any that a wire carries.
    assert!(counters[0] / counters[1] > 1600.0, "{counters:?}");
}

#[test]
fn several_queues_and_large_frames_carry_what_they_are_given() {
    echo_on("q35");
}

#[test]
fn so_they_do_without_pci() {
    echo_on("microvm");
}

#[test]
fn what_is_no_tap_device_is_refused() {
    let Some(mut command) = alone("ip link set lo up; exec \"$@\"") else { return };
    let image = busybox(json!({"Cmd": ["/bin/sh"]}), &[], None);
    let store = tempfile::tempdir().unwrap();
    command.args(["run", "--accel", "tcg", "--tap", "lo"]);
    let output = common::output(command.arg(image.path()).env("DOCK2UNI_STORE", store.path()));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("the network device `lo` is no tap device"), "{text}");
    assert!(text.contains("hint: make one: `ip tuntap add"), "{text}");
}
