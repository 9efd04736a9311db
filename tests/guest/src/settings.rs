//! /proc/sys: that settings do what they say.

use crate::harness::{child_passes, in_vm, interface, ok, scratch};
use libc::*;
use std::fs::{read_to_string, write};
use std::mem::size_of;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::ptr::null_mut;

cases!(
    queues_of_listeners_are_bounded,
    ports_come_from_the_range,
    new_sockets_have_the_defaults,
    congestion_is_chosen,
    buffers_are_bounded,
    pings_and_foreign_addresses_need_leave,
    unix_queues_are_bounded,
    objects_of_system_v_are_bounded,
    settings_keep_what_they_can_not_be,
    memory_is_promised_as_set,
    mappings_and_watches_are_bounded,
);

/// Whether settings of the network and of IPC are the process's own: it is alone in the VM, and has
/// namespaces of its own elsewhere.
fn alone() -> bool {
    if in_vm() {
        return true;
    }
    unsafe {
        if unshare(CLONE_NEWNET | CLONE_NEWIPC) != 0 {
            return false;
        }
        let mut request = interface("lo");
        request.ifr_ifru.ifru_flags = IFF_UP as c_short;
        let fd = ok(socket(AF_INET, SOCK_DGRAM, 0));
        ok(ioctl(fd, SIOCSIFFLAGS, &request));
        ok(close(fd));
        true
    }
}

/// Runs `body` with settings changed, and puts them back. Others may run after it.
fn with(settings: &[(&str, &str)], body: impl FnOnce()) {
    child_passes(|| {
        if !alone() {
            return;
        }
        let path = |name: &str| format!("/proc/sys/{name}");
        let before: Vec<_> =
            settings.iter().map(|(name, _)| read_to_string(path(name)).unwrap()).collect();
        for (name, value) in settings {
            write(path(name), value).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        for ((name, _), value) in settings.iter().zip(before) {
            write(path(name), value).unwrap();
        }
        assert!(result.is_ok());
    });
}

fn option(fd: c_int, level: c_int, name: c_int) -> c_int {
    let (mut value, mut len) = (0, size_of::<c_int>() as u32);
    ok(unsafe { getsockopt(fd, level, name, (&raw mut value).cast(), &mut len) });
    value
}

fn set_option(fd: c_int, name: c_int, value: c_int) {
    let len = size_of::<c_int>() as u32;
    ok(unsafe { setsockopt(fd, SOL_SOCKET, name, (&raw const value).cast(), len) });
}

fn queues_of_listeners_are_bounded() {
    with(&[("net/core/somaxconn", "3")], || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ok(unsafe { listen(listener.as_raw_fd(), 100) });
        let mut info = [0u8; 104];
        let mut len = 104;
        let to = info.as_mut_ptr().cast();
        ok(unsafe { getsockopt(listener.as_raw_fd(), IPPROTO_TCP, TCP_INFO, to, &mut len) });
        // tcpi_sacked is a listener's limit.
        assert_eq!(info[28], 3);
    });
}

fn ports_come_from_the_range() {
    let range = ("net/ipv4/ip_local_port_range", "40000 40002");
    let reserved = ("net/ipv4/ip_local_reserved_ports", "40000-40001,99");
    with(&[range, reserved], || {
        let range = read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        assert_eq!(range, "40000\t40002\n");
        let reserved = read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap();
        assert_eq!(reserved, "99,40000-40001\n");
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(first.local_addr().unwrap().port(), 40002);
        let second = UdpSocket::bind("127.0.0.1:0");
        assert_eq!(second.unwrap_err().raw_os_error(), Some(EADDRINUSE));
        UdpSocket::bind("127.0.0.1:40000").unwrap();
    });
}

fn new_sockets_have_the_defaults() {
    let settings = [
        ("net/ipv4/tcp_keepalive_time", "123"),
        ("net/ipv4/tcp_keepalive_intvl", "45"),
        ("net/ipv4/tcp_keepalive_probes", "6"),
        ("net/ipv4/tcp_syn_retries", "2"),
    ];
    with(&settings, || {
        let fd = ok(unsafe { socket(AF_INET, SOCK_STREAM, 0) });
        let names = [TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT];
        assert_eq!(names.map(|name| option(fd, IPPROTO_TCP, name)), [123, 45, 6, 2]);
    });
}

fn congestion_is_chosen() {
    let name = |fd| {
        let (mut name, mut len) = ([0u8; 16], 16);
        let to = name.as_mut_ptr().cast();
        ok(unsafe { getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, to, &mut len) });
        String::from_utf8(name.split(|&byte| byte == 0).next().unwrap().to_vec()).unwrap()
    };
    let choose = |fd, name: &str| unsafe {
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.as_ptr().cast(), name.len() as u32)
    };
    let make = || ok(unsafe { socket(AF_INET, SOCK_STREAM, 0) });
    with(&[("net/ipv4/tcp_congestion_control", "reno")], || {
        let fd = make();
        assert_eq!(name(fd), "reno");
        ok(choose(fd, "cubic"));
        assert_eq!(name(fd), "cubic");
        unsafe { fails!(choose(fd, "nobody's"), ENOENT) };
        let path = "/proc/sys/net/ipv4/tcp_congestion_control";
        assert_eq!(write(path, "nobody's").unwrap_err().raw_os_error(), Some(ENOENT));
        // Accepted connections go as their listener.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ok(choose(client.as_raw_fd(), "cubic"));
        let (server, _) = listener.accept().unwrap();
        let fds = [client.as_raw_fd(), server.as_raw_fd()];
        assert_eq!(fds.map(name), ["cubic", "reno"]);
    });
}

fn buffers_are_bounded() {
    if !in_vm() {
        // Those of the machine, whatever the namespace.
        return;
    }
    with(&[("net/core/rmem_max", "10000"), ("net/core/wmem_default", "30000")], || {
        let fd = ok(unsafe { socket(AF_INET, SOCK_DGRAM, 0) });
        assert_eq!(option(fd, SOL_SOCKET, SO_SNDBUF), 30000);
        set_option(fd, SO_RCVBUF, 50000);
        assert_eq!(option(fd, SOL_SOCKET, SO_RCVBUF), 20000);
        set_option(fd, SO_RCVBUFFORCE, 50000);
        assert_eq!(option(fd, SOL_SOCKET, SO_RCVBUF), 100_000);
    });
}

fn pings_and_foreign_addresses_need_leave() {
    let ping = || unsafe { socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP) };
    with(&[("net/ipv4/ping_group_range", "1 0")], || unsafe { fails!(ping(), EACCES) });
    with(&[("net/ipv4/ping_group_range", "0 2147483647")], || {
        ok(ping());
    });
    let bind = || UdpSocket::bind("192.0.2.1:0").map_err(|error| error.raw_os_error().unwrap());
    with(&[], || assert_eq!(bind().map(drop), Err(EADDRNOTAVAIL)));
    with(&[("net/ipv4/ip_nonlocal_bind", "1")], || assert!(bind().is_ok()));
}

fn unix_queues_are_bounded() {
    with(&[("net/unix/max_dgram_qlen", "2")], || {
        let path = format!("{}/socket", scratch());
        let server = UnixDatagram::bind(&path).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.set_nonblocking(true).unwrap();
        // One more than its length says.
        assert_eq!((0..10).take_while(|_| client.send_to(b"x", &path).is_ok()).count(), 3);
        drop(server);
        // A pair has no queue that others could fill.
        let (one, _other) = UnixDatagram::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let sent = (0..5000).take_while(|_| one.send(b"x").is_ok()).count();
        assert!((100..1000).contains(&sent), "{sent}");
    });
}

fn objects_of_system_v_are_bounded() {
    let settings = [
        ("kernel/msgmax", "10"),
        ("kernel/shmmax", "8192"),
        ("kernel/sem", "2 1000 1 4"),
        ("fs/mqueue/msg_max", "3"),
    ];
    with(&settings, || unsafe {
        let queue = ok(msgget(IPC_PRIVATE, 0o600));
        let mut message = [0u64; 8];
        message[0] = 1;
        fails!(msgsnd(queue, message.as_ptr().cast(), 11, 0), EINVAL);
        ok(msgsnd(queue, message.as_ptr().cast(), 10, 0));
        ok(msgctl(queue, IPC_RMID, null_mut()));
        fails!(shmget(IPC_PRIVATE, 8193, 0o600), EINVAL);
        let segment = ok(shmget(IPC_PRIVATE, 8192, 0o600));
        ok(shmctl(segment, IPC_RMID, null_mut()));
        fails!(semget(IPC_PRIVATE, 3, 0o600), EINVAL);
        let set = ok(semget(IPC_PRIVATE, 2, 0o600));
        let mut ops = [sembuf { sem_num: 0, sem_op: 1, sem_flg: 0 }; 2];
        fails!(semop(set, ops.as_mut_ptr(), 2), E2BIG);
        ok(semop(set, ops.as_mut_ptr(), 1));
        ok(semctl(set, 0, IPC_RMID));
    });
}

fn settings_keep_what_they_can_not_be() {
    with(&[], || {
        for (name, value) in [
            ("net/ipv4/ip_local_port_range", "5 4"),
            ("net/ipv4/ip_local_port_range", "x"),
            ("net/core/somaxconn", "-1"),
            ("net/ipv4/tcp_syn_retries", "1000"),
            ("net/ipv4/ip_local_reserved_ports", "7-x"),
            ("net/ipv4/tcp_keepalive_time", "soon"),
        ] {
            let path = format!("/proc/sys/{name}");
            let before = read_to_string(&path).unwrap();
            let error = write(&path, value).expect_err(name);
            assert_eq!(error.raw_os_error(), Some(EINVAL), "{name}");
            assert_eq!(read_to_string(&path).unwrap(), before);
        }
        // Several numbers may be fewer than there are.
        let sem = read_to_string("/proc/sys/kernel/sem").unwrap();
        write("/proc/sys/kernel/sem", "77").unwrap();
        let mut words: Vec<&str> = sem.split_whitespace().collect();
        words[0] = "77";
        assert_eq!(read_to_string("/proc/sys/kernel/sem").unwrap(), words.join("\t") + "\n");
        write("/proc/sys/kernel/sem", &sem).unwrap();
    });
}

fn reserve(len: usize, prot: c_int, flags: c_int) -> *mut c_void {
    unsafe { mmap(null_mut(), len, prot, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) }
}

fn memory_is_promised_as_set() {
    if !in_vm() {
        return;
    }
    const BOTH: c_int = PROT_READ | PROT_WRITE;
    let huge = 1 << 40;
    let total = unsafe { sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) } as usize;
    with(&[("vm/overcommit_memory", "0")], || {
        assert_eq!(reserve(huge, BOTH, 0), MAP_FAILED);
        // Each may fit, all together need not; what isn't written isn't promised.
        assert!((0..4).all(|_| reserve(total / 2, BOTH, 0) != MAP_FAILED));
        assert_ne!(reserve(huge, BOTH, MAP_NORESERVE), MAP_FAILED);
        assert_ne!(reserve(huge, PROT_READ, 0), MAP_FAILED);
        child_passes(|| ());
    });
    with(&[("vm/overcommit_memory", "1")], || {
        assert_ne!(reserve(huge, BOTH, 0), MAP_FAILED);
        child_passes(|| ());
    });
    with(&[("vm/overcommit_memory", "2"), ("vm/overcommit_ratio", "50")], || {
        let kib = |name: &str| {
            let text = read_to_string("/proc/meminfo").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<usize>().unwrap()
        };
        let limit = kib("CommitLimit") << 10;
        assert!(limit.abs_diff(total / 2) < 1 << 20, "{limit} of {total}");
        let before = kib("Committed_AS");
        let part = limit / 2;
        let first = reserve(part, BOTH, 0);
        assert_ne!(first, MAP_FAILED);
        assert!(kib("Committed_AS") - before >= part >> 10);
        // Neither more, nor by other ways.
        assert_eq!(reserve(part, BOTH, MAP_NORESERVE), MAP_FAILED);
        let silent = reserve(part, PROT_READ, 0);
        assert_ne!(silent, MAP_FAILED);
        unsafe {
            fails!(mprotect(silent, part, BOTH), ENOMEM);
            fails!(fork(), ENOMEM);
            ok(munmap(first, part));
            ok(mprotect(silent, part, BOTH));
            ok(munmap(silent, part));
        }
        child_passes(|| ());
    });
}

fn mappings_and_watches_are_bounded() {
    if !in_vm() {
        return;
    }
    with(&[("vm/max_map_count", "200")], || {
        // No two of them join.
        let kinds = [PROT_READ, PROT_READ | PROT_WRITE];
        let made = (0..400).take_while(|at| reserve(4096, kinds[at % 2], 0) != MAP_FAILED).count();
        assert!((100..200).contains(&made), "{made}");
    });
    let limits = [("fs/inotify/max_user_instances", "2"), ("fs/inotify/max_user_watches", "3")];
    with(&limits, || unsafe {
        let first = ok(inotify_init());
        let second = ok(inotify_init());
        fails!(inotify_init(), EMFILE);
        let watch = |fd, name: &std::ffi::CStr| inotify_add_watch(fd, name.as_ptr(), IN_MODIFY);
        let one = ok(watch(first, c"/tmp"));
        ok(watch(first, c"/"));
        ok(watch(second, c"/tmp"));
        fails!(watch(second, c"/"), ENOSPC);
        // The same one again is no other.
        ok(watch(second, c"/tmp"));
        ok(inotify_rm_watch(first, one));
        ok(watch(second, c"/"));
        ok(close(first));
        ok(watch(second, c"/proc"));
        ok(inotify_init());
    });
}
