//! What TCP, UDP and packet sockets do beyond the everyday.

use crate::harness::*;
use crate::harness::{read, write};
use libc::*;
use std::io::{Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Not in the libc crate.
const SIOCATMARK: c_ulong = 0x8905;

cases![
    urgent_bytes_are_out_of_band,
    urgent_bytes_stay_inline_when_asked,
    tcp_info_tells_the_truth,
    tcp_window_closes_and_opens,
    a_listener_may_wait_for_data,
    many_connections_stay_open,
    large_datagrams,
    groups_on_this_machine,
    echo_by_a_raw_socket,
    echo_by_a_socket_that_needs_no_rights,
    low_ports_are_for_whom_the_setting_says,
    packet_sockets,
    segment_size_and_congestion_options,
    links_may_be_asked_to_be_what_they_are,
];

/// Asks the kernel by rtnetlink(7) for these flags of a link; returns the errno of the answer.
fn set_link(fd: i32, index: i32, flags: u32, change: u32) -> i32 {
    const RTM_NEWLINK: u16 = 16;
    let mut request = Vec::new();
    // struct nlmsghdr: length, type, NLM_F_REQUEST | NLM_F_ACK, sequence, port; struct ifinfomsg
    request.extend(32u32.to_ne_bytes());
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend(5u16.to_ne_bytes());
    request.extend([7u32, 0, 0].map(u32::to_ne_bytes).as_flattened());
    request.extend(index.to_ne_bytes());
    request.extend([flags, change].map(u32::to_ne_bytes).as_flattened());
    write(fd, &request);
    let answer = read(fd, 4096);
    let int = |at: usize| i32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
    assert_eq!((answer[4], int(8)), (2, 7), "NLMSG_ERROR and the sequence");
    -int(16)
}

fn links_may_be_asked_to_be_what_they_are() {
    // SAFETY: sockets, and ioctls with a structure that lives.
    unsafe {
        let fd = ok(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        let mut lo = interface("lo");
        ok(ioctl(fd, SIOCGIFINDEX, &mut lo));
        let index = lo.ifr_ifru.ifru_ifindex;
        ok(ioctl(fd, SIOCGIFADDR, &mut lo));
        ok(ioctl(fd, SIOCSIFADDR, &lo));
        ok(ioctl(fd, SIOCGIFMTU, &mut lo));
        ok(ioctl(fd, SIOCSIFMTU, &lo));
        ok(ioctl(fd, SIOCGIFFLAGS, &mut lo));
        lo.ifr_ifru.ifru_flags |= IFF_UP as c_short;
        ok(ioctl(fd, SIOCSIFFLAGS, &lo));
        let netlink = ok(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
        assert_eq!(set_link(netlink, index, IFF_UP as u32, IFF_UP as u32), 0);
        assert_eq!(set_link(netlink, 12_345, IFF_UP as u32, IFF_UP as u32), ENODEV);
        // Only a VM's are nobody else's, and always up.
        if in_vm() {
            assert_eq!(set_link(netlink, index, 0, IFF_UP as u32), EPERM);
            lo.ifr_ifru.ifru_flags &= !IFF_UP as c_short;
            fails!(ioctl(fd, SIOCSIFFLAGS, &lo), EPERM);
        }
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn set_option(fd: i32, level: c_int, name: c_int, value: i32) {
    let len = size_of::<i32>() as socklen_t;
    // SAFETY: setsockopt(2) with a value that lives.
    ok(unsafe { setsockopt(fd, level, name, (&raw const value).cast(), len) });
}

fn poll_for(fd: i32, events: c_short) -> c_short {
    let mut poll = pollfd { fd, events, revents: 0 };
    // SAFETY: poll(2) on one entry that lives.
    ok(unsafe { libc::poll(&mut poll, 1, 10_000) });
    poll.revents
}

fn send_urgent(stream: &TcpStream, bytes: &[u8]) {
    // SAFETY: send(2) from a live buffer.
    let n = unsafe { send(stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), MSG_OOB) };
    assert_eq!(n, bytes.len() as isize);
}

fn urgent(stream: &TcpStream, flags: c_int) -> Result<u8, i32> {
    let mut byte = 0u8;
    // SAFETY: recv(2) of one byte into a live buffer.
    let n = unsafe { recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, MSG_OOB | flags) };
    if n == 1 { Ok(byte) } else { Err(errno()) }
}

fn at_mark(stream: &TcpStream) -> bool {
    let mut value = 0i32;
    // SAFETY: SIOCATMARK stores an int.
    ok(unsafe { ioctl(stream.as_raw_fd(), SIOCATMARK, &mut value) });
    value != 0
}

fn urgent_bytes_are_out_of_band() {
    let (mut client, mut server) = pair();
    assert_eq!(urgent(&server, 0), Err(EINVAL));
    client.write_all(b"abc").unwrap();
    send_urgent(&client, b"de!");
    client.write_all(b"fgh").unwrap();
    assert_ne!(poll_for(server.as_raw_fd(), POLLPRI) & POLLPRI, 0);
    assert_eq!(urgent(&server, MSG_PEEK), Ok(b'!'));
    assert_eq!(urgent(&server, 0), Ok(b'!'));
    assert_eq!(urgent(&server, 0), Err(EINVAL), "only once");
    assert!(!at_mark(&server));
    let mut buf = [0; 64];
    // A read stops at the mark, however much there is behind.
    let mut got = 0;
    while got < 5 {
        got += server.read(&mut buf[got..]).unwrap();
    }
    assert_eq!(&buf[..got], b"abcde");
    assert!(at_mark(&server));
    let mut got = 0;
    while got < 3 {
        got += server.read(&mut buf[got..]).unwrap();
    }
    assert_eq!(&buf[..got], b"fgh");
    assert!(!at_mark(&server));
}

fn urgent_bytes_stay_inline_when_asked() {
    let (client, mut server) = pair();
    set_option(server.as_raw_fd(), SOL_SOCKET, SO_OOBINLINE, 1);
    send_urgent(&client, b"x!");
    drop(client);
    assert_eq!(urgent(&server, 0), Err(EINVAL));
    let mut all = Vec::new();
    server.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"x!");
}

fn tcp_info_tells_the_truth() {
    let (mut client, mut server) = pair();
    client.write_all(&[7; 10_000]).unwrap();
    server.read_exact(&mut [0; 10_000]).unwrap();
    server.write_all(b"ok").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    let info = |stream: &TcpStream| {
        let mut info = [0u8; 256];
        let mut len = info.len() as socklen_t;
        // SAFETY: getsockopt(2) into a live buffer of the length given.
        let result = unsafe {
            getsockopt(
                stream.as_raw_fd(),
                IPPROTO_TCP,
                TCP_INFO,
                info.as_mut_ptr().cast(),
                &mut len,
            )
        };
        ok(result);
        assert!(len >= 160, "{len}");
        info
    };
    let word = |info: &[u8], at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().unwrap());
    let long = |info: &[u8], at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().unwrap());
    let (client, server) = (info(&client), info(&server));
    assert_eq!((client[0], server[0]), (1, 1), "established");
    assert_ne!(client[5] & 6, 0, "selective acknowledgements, scaled windows");
    assert!(word(&client, 68) > 0, "a round-trip time");
    assert!(word(&client, 80) >= 10, "a congestion window");
    assert!(word(&client, 8) >= 200_000, "a timeout");
    assert_eq!(long(&server, 128), 10_000, "bytes received");
    assert!(long(&client, 120) >= 10_000, "bytes acknowledged");
    assert!(word(&server, 140) >= 2 && word(&client, 136) >= 2, "segments");
    assert_eq!(word(&client, 100), 0, "nothing was sent twice");
}

fn tcp_window_closes_and_opens() {
    let (mut client, mut server) = pair();
    client.set_nonblocking(true).unwrap();
    let chunk = [0x5a; 65536];
    let mut sent = 0;
    loop {
        match client.write(&chunk) {
            Ok(n) => sent += n,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                if poll_briefly(client.as_raw_fd(), POLLOUT) & POLLOUT == 0 {
                    break;
                }
            }
        }
    }
    let mut pending = 0i32;
    // SAFETY: SIOCOUTQ stores an int.
    ok(unsafe { ioctl(client.as_raw_fd(), TIOCOUTQ, &mut pending) });
    assert!(pending > 0 && pending as usize <= sent);
    let mut got = 0;
    let mut buf = vec![0; 1 << 20];
    while got < sent {
        got += server.read(&mut buf).unwrap();
    }
    assert_eq!(got, sent);
    assert_ne!(poll_for(client.as_raw_fd(), POLLOUT) & POLLOUT, 0);
}

fn poll_briefly(fd: i32, events: c_short) -> c_short {
    let mut poll = pollfd { fd, events, revents: 0 };
    // SAFETY: poll(2) on one entry that lives.
    ok(unsafe { libc::poll(&mut poll, 1, 200) });
    poll.revents
}

fn a_listener_may_wait_for_data() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_option(listener.as_raw_fd(), IPPROTO_TCP, TCP_DEFER_ACCEPT, 30);
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    client.write_all(b"now").unwrap();
    assert_ne!(poll_for(listener.as_raw_fd(), POLLIN) & POLLIN, 0);
    let (mut server, _) = listener.accept().unwrap();
    server.set_nonblocking(false).unwrap();
    server.read_exact(&mut [0; 3]).unwrap();
}

fn many_connections_stay_open() {
    const COUNT: usize = 1500;
    // SAFETY: setrlimit(2) reads the structure.
    let raised = unsafe { setrlimit(RLIMIT_NOFILE, &rlimit { rlim_cur: 4096, rlim_max: 4096 }) };
    let count = if raised == 0 { COUNT } else { 400 };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut open = Vec::new();
    for _ in 0..count {
        let client = TcpStream::connect(to).unwrap();
        open.push((client, listener.accept().unwrap().0));
    }
    for (at, (client, server)) in open.iter_mut().enumerate().rev() {
        client.write_all(&at.to_ne_bytes()).unwrap();
        let mut bytes = [0; 8];
        server.read_exact(&mut bytes).unwrap();
        server.write_all(&bytes).unwrap();
    }
    for (at, (client, _)) in open.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(usize::from_ne_bytes(bytes), at);
    }
}

fn large_datagrams() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let data: Vec<u8> = (0..65_507u32).map(|at| (at / 3) as u8).collect();
    let to = server.local_addr().unwrap();
    assert_eq!(client.send_to(&data, to).unwrap(), data.len());
    let mut buf = vec![0; 70_000];
    assert_eq!(server.recv(&mut buf).unwrap(), data.len());
    assert_eq!(buf[..data.len()], data);
    let error = client.send_to(&vec![0; 65_508], to).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EMSGSIZE));
}

fn groups_on_this_machine() {
    let group = Ipv4Addr::new(239, 77, 1, 2);
    let server = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = server.local_addr().unwrap().port();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    server.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
    let again = server.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(EADDRINUSE));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let interface = in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() };
    let len = size_of::<in_addr>() as socklen_t;
    // SAFETY: setsockopt(2) with a value that lives.
    let result = unsafe {
        setsockopt(
            client.as_raw_fd(),
            IPPROTO_IP,
            IP_MULTICAST_IF,
            (&raw const interface).cast(),
            len,
        )
    };
    ok(result);
    client.send_to(b"all of you", (group, port)).unwrap();
    let mut buf = [0; 32];
    assert_eq!(server.recv(&mut buf).unwrap(), 10);
    server.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
    let error = server.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EADDRNOTAVAIL));
}

fn echo_by_a_raw_socket() {
    // SAFETY: geteuid(2) can't fail.
    if unsafe { geteuid() } != 0 {
        return;
    }
    // SAFETY: a new descriptor, closed at the end of the case.
    let fd = ok(unsafe { socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP) });
    let mut request = [8u8, 0, 0, 0, 0x77, 0x66, 0, 1, b'p', b'i', b'n', b'g'];
    let sum: u32 = request.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    // SAFETY: an all-zero address is a value of its type.
    let mut to: sockaddr_in = unsafe { zeroed() };
    to.sin_family = AF_INET as _;
    to.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
    let len = size_of::<sockaddr_in>() as socklen_t;
    // SAFETY: sendto(2) from live memory.
    let sent = unsafe {
        sendto(fd, request.as_ptr().cast(), request.len(), 0, (&raw const to).cast(), len)
    };
    assert_eq!(sent, request.len() as isize);
    // The socket hears the request as well.
    loop {
        assert_ne!(poll_for(fd, POLLIN) & POLLIN, 0);
        let mut buf = [0u8; 256];
        // SAFETY: recv(2) into live memory.
        let n = unsafe { recv(fd, buf.as_mut_ptr().cast(), buf.len(), 0) };
        assert!(n >= 32);
        assert_eq!(buf[0], 0x45, "the IP header comes along");
        if buf[20] == 0 && buf[24..26] == [0x77, 0x66] {
            assert_eq!(&buf[28..32], b"ping");
            break;
        }
    }
    // SAFETY: the descriptor is ours.
    ok(unsafe { close(fd) });
}

fn packet_sockets() {
    const ARP: u16 = 0x0806;
    // SAFETY: geteuid(2) can't fail.
    if unsafe { geteuid() } != 0 {
        return;
    }
    let kind = SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    // SAFETY: a new descriptor, closed at the end of the case.
    let fd = ok(unsafe { socket(AF_PACKET, kind, i32::from(ARP.to_be())) });
    // SAFETY: an all-zero address is a value of its type.
    let mut addr: sockaddr_ll = unsafe { zeroed() };
    let mut len = size_of::<sockaddr_ll>() as socklen_t;
    // SAFETY: getsockname(2) into live memory of the length given.
    ok(unsafe { getsockname(fd, (&raw mut addr).cast(), &mut len) });
    assert_eq!((addr.sll_family, addr.sll_protocol), (AF_PACKET as u16, ARP.to_be()));
    addr.sll_ifindex = 0x7fff;
    let len = size_of::<sockaddr_ll>() as socklen_t;
    // SAFETY: bind(2) with a live address.
    assert_eq!(unsafe { bind(fd, (&raw const addr).cast(), len) }, -1);
    assert_eq!(errno(), ENODEV);
    // Nothing is wanted: `ret 0`.
    let mut program = [sock_filter { code: 6, jt: 0, jf: 0, k: 0 }];
    let attach = |len: u16, program: &mut [sock_filter]| {
        let filter = sock_fprog { len, filter: program.as_mut_ptr() };
        let size = size_of::<sock_fprog>() as socklen_t;
        // SAFETY: setsockopt(2) with a program that lives.
        unsafe { setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, (&raw const filter).cast(), size) }
    };
    ok(attach(1, &mut program));
    program[0].code = 0xffff;
    assert_eq!(attach(1, &mut program), -1);
    assert_eq!(errno(), EINVAL);
    assert_eq!(attach(0, &mut program), -1);
    let mut byte = 0u8;
    // SAFETY: recv(2) into live memory.
    assert_eq!(unsafe { recv(fd, (&raw mut byte).cast(), 1, 0) }, -1);
    assert_eq!(errno(), EAGAIN);
    set_option(fd, SOL_SOCKET, SO_DETACH_FILTER, 0);
    let nothing = 0i32;
    // SAFETY: setsockopt(2) with a value that lives; then the descriptor is ours to close.
    unsafe {
        let value = (&raw const nothing).cast();
        assert_eq!(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, value, 4), -1);
        assert_eq!(errno(), ENOENT);
        ok(close(fd));
    }
}

fn segment_size_and_congestion_options() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_option(listener.as_raw_fd(), IPPROTO_TCP, TCP_MAXSEG, 1000);
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut mss = 0i32;
    let mut len = size_of::<i32>() as socklen_t;
    // SAFETY: getsockopt(2) into live memory.
    let result = unsafe {
        getsockopt(client.as_raw_fd(), IPPROTO_TCP, TCP_MAXSEG, (&raw mut mss).cast(), &mut len)
    };
    ok(result);
    // With or without timestamps.
    assert!((980..=1000).contains(&mss), "{mss}");
    let mut name = [0u8; 16];
    let mut len = 16 as socklen_t;
    // SAFETY: getsockopt(2) into live memory.
    let result = unsafe {
        getsockopt(
            client.as_raw_fd(),
            IPPROTO_TCP,
            TCP_CONGESTION,
            name.as_mut_ptr().cast(),
            &mut len,
        )
    };
    ok(result);
    // The one in use may always be named.
    // SAFETY: setsockopt(2) from live memory.
    let result = unsafe {
        setsockopt(client.as_raw_fd(), IPPROTO_TCP, TCP_CONGESTION, name.as_ptr().cast(), len)
    };
    ok(result);
    let none = b"none-such";
    // SAFETY: setsockopt(2) from live memory.
    let result = unsafe {
        setsockopt(
            client.as_raw_fd(),
            IPPROTO_TCP,
            TCP_CONGESTION,
            none.as_ptr().cast(),
            none.len() as socklen_t,
        )
    };
    assert_eq!((result, errno()), (-1, ENOENT));
}

/// The first two numbers of a setting.
fn setting(name: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn echo_by_a_socket_that_needs_no_rights() {
    crate::harness::child_passes(|| {
        let range = setting("ping_group_range");
        // SAFETY: only this process changes.
        let as_nobody = unsafe { setgid(65534) == 0 && setuid(65534) == 0 };
        // SAFETY: a new descriptor, closed with the process.
        let fd = unsafe { socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP) };
        if as_nobody && !(range[0]..=range[1]).contains(&65534) {
            assert_eq!((fd, errno()), (-1, EACCES));
        }
        if fd < 0 {
            return;
        }
        // SAFETY: an all-zero address is a value of its type.
        let mut to: sockaddr_in = unsafe { zeroed() };
        to.sin_family = AF_INET as _;
        to.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
        let len = size_of::<sockaddr_in>() as socklen_t;
        // SAFETY: sendto(2) from live memory.
        let send = |bytes: &[u8]| unsafe {
            sendto(fd, bytes.as_ptr().cast(), bytes.len(), 0, (&raw const to).cast(), len)
        };
        // A redirection isn't for everybody to send, nor is a header of IP.
        assert_eq!((send(&[5, 0, 0, 0, 0, 0, 0, 0]), errno()), (-1, EINVAL));
        assert_eq!(send(&[8, 0, 0, 0, 0, 0, 0, 1, b'p', b'i', b'n', b'g']), 12);
        assert_ne!(poll_for(fd, POLLIN) & POLLIN, 0);
        let mut buf = [0u8; 64];
        // SAFETY: recv(2) into live memory.
        assert_eq!(unsafe { recv(fd, buf.as_mut_ptr().cast(), buf.len(), 0) }, 12);
        assert_eq!((buf[0], &buf[8..12]), (0, &b"ping"[..]));
    });
}

fn low_ports_are_for_whom_the_setting_says() {
    crate::harness::child_passes(|| {
        let first = setting("ip_unprivileged_port_start")[0];
        // SAFETY: only this process changes.
        if unsafe { setuid(65534) } == 0 {
            let port = 463;
            let bound = UdpSocket::bind(("127.0.0.1", port)).map_err(|error| error.raw_os_error());
            match u64::from(port) < first {
                true => assert_eq!(bound.err(), Some(Some(EACCES))),
                false => assert!(bound.is_ok()),
            }
        }
    });
}
