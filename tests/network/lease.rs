//! A DHCP server whose resolvers change: `/etc/resolv.conf` follows, unless somebody else has it.

use super::common::layout::{ImageSpec, Layout, tar};
use super::common::vm::{Vm, can_boot, dock2uni};
use super::{PATIENCE, common};
use dock2uni::source::image::Compression;
use serde_json::json;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// What the server gives as resolver, 10.9.0.N, and how many leases it has given with it.
struct Server {
    resolver: AtomicU8,
    given: AtomicUsize,
}

/// Serves one machine whose Ethernet frames are the datagrams of `socket`. Leases are to be renewed
/// every second.
fn serve(socket: &UdpSocket, server: &Server) {
    const IP: usize = 14;
    const BOOTP: usize = IP + 28;
    const OPTIONS: usize = BOOTP + 240;
    let mut frame = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut frame) {
        let frame = &frame[..len];
        if len < OPTIONS || frame[12..14] != [8, 0] || frame[IP + 22..IP + 24] != [0, 67] {
            continue;
        }
        let kind = match frame[OPTIONS..].windows(3).find(|option| option[..2] == [53, 1]) {
            Some([_, _, 1]) => 2,
            Some([_, _, 3]) => 5,
            _ => continue,
        };
        let resolver = server.resolver.load(SeqCst);
        let mut options = vec![53, 1, kind, 54, 4, 10, 9, 0, 1, 51, 4, 0, 0, 14, 16];
        options.extend([58, 4, 0, 0, 0, 1, 1, 4, 255, 255, 255, 0, 3, 4, 10, 9, 0, 1]);
        options.extend([6, 4, 10, 9, 0, resolver, 255]);
        let mut reply = vec![0u8; OPTIONS];
        reply[..6].copy_from_slice(&frame[6..12]);
        reply[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 8, 0]);
        let total = (OPTIONS - IP + options.len()) as u16;
        reply[IP..IP + 2].copy_from_slice(&[0x45, 0]);
        reply[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
        reply[IP + 8..IP + 10].copy_from_slice(&[64, 17]);
        reply[IP + 12..IP + 20].copy_from_slice(&[10, 9, 0, 1, 255, 255, 255, 255]);
        let words =
            reply[IP..IP + 20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        reply[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
        reply[IP + 20..IP + 24].copy_from_slice(&[0, 67, 0, 68]);
        reply[IP + 24..IP + 26].copy_from_slice(&(total - 20).to_be_bytes());
        reply[BOOTP..BOOTP + 3].copy_from_slice(&[2, 1, 6]);
        // Transaction and hardware address are the client's.
        reply[BOOTP + 4..BOOTP + 8].copy_from_slice(&frame[BOOTP + 4..BOOTP + 8]);
        reply[BOOTP + 16..BOOTP + 20].copy_from_slice(&[10, 9, 0, 2]);
        reply[BOOTP + 28..BOOTP + 44].copy_from_slice(&frame[BOOTP + 28..BOOTP + 44]);
        reply[BOOTP + 236..].copy_from_slice(&[99, 130, 83, 99]);
        reply.extend(options);
        if socket.send_to(&reply, from).is_err() {
            return;
        }
        if kind == 5 {
            server.given.fetch_add(1, SeqCst);
        }
    }
}

/// A VM on that server's network, whose program writes a file of its own once it sees 10.9.0.54.
fn start(options: &[&str], dir: &tempfile::TempDir) -> (Vm, Arc<Server>) {
    let program = fs::read(common::guest::program(true)).unwrap();
    let mut layout = Layout::new();
    let image = layout.image(&ImageSpec {
        layers: vec![(tar(&[("guest-tests", &program)]), Compression::None)],
        config: json!({"Entrypoint": ["/guest-tests", "--resolver", "10.9.0.54"]}),
        ..ImageSpec::default()
    });
    layout.name(image, "latest");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ours = socket.local_addr().unwrap().port();
    let theirs = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let qemu = dir.path().join("qemu");
    let inet = |end: &str, port| format!("{end}.type=inet,{end}.host=127.0.0.1,{end}.port={port}");
    let script = format!(
        "#!/bin/bash\nexec qemu-system-x86_64 \"${{@/#user,id=net*/dgram,id=net,{},{}}}\"\n",
        inet("local", theirs),
        inet("remote", ours),
    );
    fs::write(&qemu, script).unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Arc::new(Server { resolver: AtomicU8::new(53), given: AtomicUsize::new(0) });
    let serving = server.clone();
    std::thread::spawn(move || serve(&socket, &serving));
    let vm = Vm::start(
        dock2uni()
            .args(["run", "--accel", "tcg"])
            .args(options)
            .arg(format!("oci:{}:latest", layout.path().display()))
            .env("DOCK2UNI_STORE", dir.path().join("store"))
            .env("DOCK2UNI_QEMU", qemu),
    );
    // The image is read while the VM starts.
    std::mem::forget(layout);
    (vm, server)
}

impl Server {
    /// Changes the resolver, and waits until that was said twice: when the second is asked for, the
    /// first has been worked on.
    fn change(&self, resolver: u8) {
        self.resolver.store(resolver, SeqCst);
        let before = self.given.load(SeqCst);
        let deadline = Instant::now() + PATIENCE;
        while self.given.load(SeqCst) < before + 3 {
            assert!(Instant::now() < deadline, "the lease is not renewed");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn resolvers_follow_the_lease_until_a_program_has_its_own() {
    if !can_boot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut vm, server) = start(&[], &dir);
    vm.wait_for("resolv.conf: nameserver 10.9.0.53", PATIENCE);
    server.change(54);
    vm.wait_for("resolv.conf: nameserver 10.9.0.54", PATIENCE);
    vm.wait_for("resolv.conf: nameserver 192.0.2.1", PATIENCE);
    server.change(55);
    for _ in 0..3 {
        let line = vm.wait_for("resolv.conf:", PATIENCE);
        assert_eq!(line, "resolv.conf: nameserver 192.0.2.1");
    }
    assert!(!vm.text().contains("10.9.0.55"), "{}", vm.text());
}

#[test]
fn resolvers_that_the_user_names_stay() {
    if !can_boot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut vm, server) = start(&["--dns", "192.0.2.9"], &dir);
    vm.wait_for("resolv.conf: nameserver 192.0.2.9", PATIENCE);
    server.change(54);
    let line = vm.wait_for("resolv.conf:", PATIENCE);
    assert_eq!(line, "resolv.conf: nameserver 192.0.2.9");
    assert!(!vm.text().contains("10.9.0.5"), "{}", vm.text());
}
