//! Fixed addresses, DHCP clients in the guest, and two machines on one wire.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::common::http::get;
use crate::common::lab::{Lab, PATIENCE};
use crate::common::vm::{can_boot, free_port};
use rustix::process::Signal;
use tempfile::TempDir;

#[test]
fn fixed_addresses_and_names_are_there_from_the_start() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("busybox");
    let script = "ip addr; ip route; cat /etc/resolv.conf /etc/hosts; ping -c 1 10.1.2.1";
    let options = [
        "--ip=10.1.2.3/24",
        "--ip=fd00:1::5/64",
        "--gateway=10.1.2.1",
        "--dns=10.1.2.2",
        "--dns-search=example.org",
        "--add-host=db:10.1.2.9",
    ];
    let (code, text) = lab.finish(&options, &["sh", "-c", script]);
    assert_eq!(code, 0, "{text}");
    for expected in [
        "inet 10.1.2.3/24",
        "inet6 fd00:1::5/64",
        "default via 10.1.2.1",
        "nameserver 10.1.2.2",
        "search example.org",
        "10.1.2.9\tdb",
        "1 packets received",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let (code, text) = lab.finish(&["--network=none"], &["ip", "addr"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("127.0.0.1/8") && !text.contains("inet 10."), "{text}");
    // Who asks for a lease by packet sockets gets one.
    let client = ["udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", "/bin/true"];
    let (code, text) = lab.finish(&[], &client);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("lease of 10.0.2.15 obtained"), "{text}");
}

#[test]
fn forwarded_ports_reach_a_fixed_address() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("go");
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:8080");
    let mut vm = lab.run(&["-p", &publish, "--ip=10.7.0.20/24", "--gateway=10.7.0.1"], &[]);
    assert!(get(port, "/").contains("hello from go"), "{}", vm.text());
    vm.signal(Signal::TERM);
    assert_eq!(vm.wait(PATIENCE), 0, "{}", vm.text());
}

/// A QEMU whose network is `netdev` and whose card has the last byte `mac`.
fn qemu(dir: &Path, netdev: &str, mac: u8) -> PathBuf {
    let path = dir.join(format!("qemu-{mac}"));
    let text = format!(
        "#!/bin/bash\nargs=()\nfor word; do case $word in\n\
         user,id=net*) word={netdev},id=net;;\n\
         *,netdev=net*) word+=,mac=52:54:00:00:00:0{mac};;\n\
         esac; args+=(\"$word\"); done\n\
         exec qemu-system-x86_64 \"${{args[@]}}\"\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn two_machines_on_a_wire_talk_by_both_protocols() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("busybox");
    let dir = TempDir::new().unwrap();
    let port = free_port();
    let listen = qemu(dir.path(), &format!("socket,listen=127.0.0.1:{port}"), 1);
    let connect = qemu(dir.path(), &format!("socket,connect=127.0.0.1:{port}"), 2);
    let first = ["--qemu", listen.to_str().unwrap(), "--ip=10.9.0.1/24", "--ip=fd00:9::1/64"];
    let serve = "mkdir /www; dd if=/dev/zero of=/www/file bs=1M count=2; \
                 httpd -p 80 -h /www; httpd -p [::]:81 -h /www; echo serving; exec sleep 600";
    let mut server = lab.run(&first, &["sh", "-c", serve]);
    server.wait_for("serving", PATIENCE);
    let second = ["--qemu", connect.to_str().unwrap(), "--ip=10.9.0.2/24", "--ip=fd00:9::2/64"];
    // Pings of three fragments as well.
    let ask = "ping -c 2 10.9.0.1 && ping6 -c 2 fd00:9::1 && ping -c 2 -s 4000 10.9.0.1 && \
               ping6 -c 2 -s 4000 fd00:9::1 && \
               wget -q -O - http://10.9.0.1/file | wc -c && \
               wget -q -O - 'http://[fd00:9::1]:81/file' | wc -c";
    let (code, text) = lab.finish(&second, &["sh", "-c", ask]);
    assert_eq!(code, 0, "{text} {}", server.text());
    assert_eq!(text.matches("2 packets received").count(), 4, "{text}");
    assert_eq!(text.matches("2097152").count(), 2, "{text}");
    server.signal(Signal::TERM);
    server.wait(PATIENCE);
}
