//! Sockets: TCP, UDP, unix, netlink.

use crate::harness::*;
use crate::harness::{pipe, read, write};
use libc::*;
use std::io::{Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

cases![
    tcp_carries_data_both_ways,
    tcp_moves_a_megabyte,
    tcp_half_close,
    tcp_refused_and_bad_addresses,
    tcp_nonblocking_connect_and_accept,
    tcp_reset_is_reported,
    tcp_options_round_trip,
    tcp_over_ipv6_and_dual_stack,
    tcp_backlog_keeps_connections,
    tcp_many_short_connections,
    tcp_linger_zero_resets,
    tcp_peek_waitall_and_dontwait,
    tcp_epoll_readiness,
    tcp_address_in_use,
    tcp_reuse_port_shares,
    tcp_timeouts,
    tcp_accept_across_fork,
    udp_keeps_datagrams,
    udp_connected_filters,
    udp_truncates,
    reading_nothing_takes_nothing,
    unix_stream_and_names,
    unix_passes_descriptors,
    unix_passes_credentials,
    unix_datagrams_and_packets,
    unix_abstract_names,
    unix_errors,
    sendmsg_and_sendmmsg,
    wrong_states_fail,
    interfaces_are_listed,
];

fn local(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap()
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(local(&listener)).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    (client, server)
}

fn option(fd: i32, level: c_int, name: c_int) -> i32 {
    let mut value = -1i32;
    let mut len = 4 as socklen_t;
    ok(unsafe { getsockopt(fd, level, name, (&raw mut value).cast(), &mut len) });
    value
}

fn set_option(fd: i32, level: c_int, name: c_int, value: i32) {
    ok(unsafe { setsockopt(fd, level, name, (&raw const value).cast(), 4) });
}

fn tcp_carries_data_both_ways() {
    let (mut client, mut server) = pair();
    client.write_all(b"request").unwrap();
    let mut buf = [0u8; 64];
    let n = server.read(&mut buf).unwrap();
    assert_eq!(&buf[..n], b"request");
    server.write_all(b"response").unwrap();
    drop(server);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"response");
}

fn tcp_moves_a_megabyte() {
    let (mut client, mut server) = pair();
    let data: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7) as u8).collect();
    let copy = data.clone();
    let writer = std::thread::spawn(move || client.write_all(&copy).unwrap());
    let mut got = Vec::new();
    server.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == data);
}

fn tcp_half_close() {
    let (mut client, mut server) = pair();
    client.write_all(b"all of it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    server.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"all of it");
    server.write_all(b"answer").unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    unsafe { signal(SIGPIPE, SIG_IGN) };
    let error = client.write(b"x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EPIPE));
}

fn tcp_refused_and_bad_addresses() {
    let unused = local(&TcpListener::bind("127.0.0.1:0").unwrap());
    let error = TcpStream::connect(unused).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(ECONNREFUSED));
    let error = TcpListener::bind("192.0.2.77:0").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EADDRNOTAVAIL));
}

fn tcp_nonblocking_connect_and_accept() {
    unsafe {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        fails!(accept4(listener.as_raw_fd(), null_mut(), null_mut(), 0), EAGAIN);
        let fd = ok(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
        let address = sockaddr_in {
            sin_family: AF_INET as u16,
            sin_port: local(&listener).port().to_be(),
            sin_addr: in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
            sin_zero: [0; 8],
        };
        let result = connect(fd, (&raw const address).cast(), size_of::<sockaddr_in>() as u32);
        if result == -1 {
            assert_eq!(*__errno_location(), EINPROGRESS);
        }
        let mut fds = [pollfd { fd, events: POLLOUT, revents: 0 }];
        assert_eq!(poll(fds.as_mut_ptr(), 1, 5000), 1);
        assert_eq!(fds[0].revents, POLLOUT);
        assert_eq!(option(fd, SOL_SOCKET, SO_ERROR), 0);
        if result == -1 {
            // The first call after a connection made in the background says so, the next ones
            // refuse.
            ok(connect(fd, (&raw const address).cast(), size_of::<sockaddr_in>() as u32));
        }
        fails!(connect(fd, (&raw const address).cast(), size_of::<sockaddr_in>() as u32), EISCONN);
        let mut fds = [pollfd { fd: listener.as_raw_fd(), events: POLLIN, revents: 0 }];
        assert_eq!(poll(fds.as_mut_ptr(), 1, 5000), 1);
        let accepted =
            ok(accept4(listener.as_raw_fd(), null_mut(), null_mut(), SOCK_NONBLOCK | SOCK_CLOEXEC));
        assert_eq!(fcntl(accepted, F_GETFD), FD_CLOEXEC);
        fails!(recv(accepted, [0u8; 4].as_mut_ptr().cast(), 4, 0), EAGAIN);
    }
}

fn tcp_reset_is_reported() {
    unsafe {
        signal(SIGPIPE, SIG_IGN);
        let (client, server) = pair();
        // Closing with unread data resets the connection.
        (&client).write_all(b"unread").unwrap();
        pause_ms(20);
        drop(server);
        pause_ms(20);
        let mut fds = [pollfd { fd: client.as_raw_fd(), events: POLLIN, revents: 0 }];
        assert_eq!(poll(fds.as_mut_ptr(), 1, 5000), 1);
        assert!(fds[0].revents & (POLLERR | POLLHUP) != 0, "{:#x}", fds[0].revents);
        let error = (&client).read(&mut [0u8; 4]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ECONNRESET));
        let error = (&client).write(b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EPIPE));
    }
}

fn tcp_options_round_trip() {
    let (client, _server) = pair();
    let fd = client.as_raw_fd();
    for (level, name) in [
        (IPPROTO_TCP, TCP_NODELAY),
        (SOL_SOCKET, SO_KEEPALIVE),
        (SOL_SOCKET, SO_REUSEADDR),
        (IPPROTO_TCP, TCP_CORK),
    ] {
        assert_eq!(option(fd, level, name), 0);
        set_option(fd, level, name, 1);
        assert_eq!(option(fd, level, name), 1);
    }
    for (name, value) in [(TCP_KEEPIDLE, 30), (TCP_KEEPINTVL, 5), (TCP_KEEPCNT, 3)] {
        set_option(fd, IPPROTO_TCP, name, value);
        assert_eq!(option(fd, IPPROTO_TCP, name), value);
    }
    assert_eq!(
        (option(fd, SOL_SOCKET, SO_TYPE), option(fd, SOL_SOCKET, SO_DOMAIN)),
        (SOCK_STREAM, AF_INET)
    );
    assert_eq!(
        (option(fd, SOL_SOCKET, SO_PROTOCOL), option(fd, SOL_SOCKET, SO_ACCEPTCONN)),
        (IPPROTO_TCP, 0)
    );
    set_option(fd, SOL_SOCKET, SO_RCVBUF, 30_000);
    assert_eq!(option(fd, SOL_SOCKET, SO_RCVBUF), 60_000, "Linux doubles it");
    assert!(option(fd, IPPROTO_TCP, TCP_MAXSEG) >= 536);
    unsafe {
        let value = 1;
        fails!(setsockopt(fd, SOL_SOCKET, 9999, (&raw const value).cast(), 4), ENOPROTOOPT);
        fails!(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, (&raw const value).cast(), 1), EINVAL);
        let mut info: [u8; 104] = [0; 104];
        let mut len = 104 as socklen_t;
        ok(getsockopt(fd, IPPROTO_TCP, TCP_INFO, info.as_mut_ptr().cast(), &mut len));
        assert_eq!(info[0], 1, "TCP_ESTABLISHED");
        let mut n = 0;
        ok(ioctl(fd, FIONREAD, &mut n));
        assert_eq!(n, 0);
    }
}

fn tcp_over_ipv6_and_dual_stack() {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let port = local(&listener).port();
    let six = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), Ipv6Addr::LOCALHOST);
    let four = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (_server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    assert_eq!(peer.port(), four.local_addr().unwrap().port());
    drop(six);
    unsafe {
        let fd = ok(socket(AF_INET6, SOCK_STREAM, 0));
        set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
        let mut address: sockaddr_in6 = zeroed();
        address.sin6_family = AF_INET6 as u16;
        ok(bind(fd, (&raw const address).cast(), size_of::<sockaddr_in6>() as u32));
        ok(listen(fd, 5));
        let mut len = size_of::<sockaddr_in6>() as u32;
        ok(getsockname(fd, (&raw mut address).cast(), &mut len));
        let port = u16::from_be(address.sin6_port);
        let error = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ECONNREFUSED));
    }
}

fn tcp_backlog_keeps_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let clients: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(local(&listener)).unwrap()).collect();
    for (i, mut client) in clients.iter().enumerate() {
        client.write_all(&[i as u8]).unwrap();
    }
    for i in 0..20 {
        let (mut server, _) = listener.accept().unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], i, "accepted in order, with the data that came early");
    }
}

fn tcp_many_short_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = local(&listener);
    let server = std::thread::spawn(move || {
        for _ in 0..1000 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&byte).unwrap();
        }
    });
    for i in 0..1000u32 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[i as u8]).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got, [i as u8]);
    }
    server.join().unwrap();
}

fn tcp_linger_zero_resets() {
    unsafe {
        let (client, server) = pair();
        let off = linger { l_onoff: 1, l_linger: 0 };
        ok(setsockopt(
            server.as_raw_fd(),
            SOL_SOCKET,
            SO_LINGER,
            (&raw const off).cast(),
            size_of::<linger>() as u32,
        ));
        drop(server);
        pause_ms(20);
        let error = (&client).read(&mut [0u8; 4]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ECONNRESET));
    }
}

fn tcp_peek_waitall_and_dontwait() {
    unsafe {
        let (client, mut server) = pair();
        let fd = client.as_raw_fd();
        let mut buf = [0u8; 8];
        fails!(recv(fd, buf.as_mut_ptr().cast(), 8, MSG_DONTWAIT), EAGAIN);
        server.write_all(b"abc").unwrap();
        assert_eq!(recv(fd, buf.as_mut_ptr().cast(), 8, MSG_PEEK), 3);
        let mut n = 0;
        ok(ioctl(fd, FIONREAD, &mut n));
        assert_eq!(n, 3);
        let late = std::thread::spawn(move || {
            pause_ms(30);
            server.write_all(b"defgh").unwrap();
            server
        });
        assert_eq!(recv(fd, buf.as_mut_ptr().cast(), 8, MSG_WAITALL), 8);
        assert_eq!(&buf, b"abcdefgh");
        drop(late.join().unwrap());
        assert_eq!(recv(fd, buf.as_mut_ptr().cast(), 8, MSG_WAITALL), 0);
    }
}

fn tcp_epoll_readiness() {
    unsafe {
        let (client, mut server) = pair();
        let epoll = ok(epoll_create1(0));
        let all = (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) as u32;
        let mut event = epoll_event { events: all, u64: 1 };
        ok(epoll_ctl(epoll, EPOLL_CTL_ADD, client.as_raw_fd(), &mut event));
        let wait = |timeout| {
            let mut got: epoll_event = zeroed();
            let n = ok(epoll_wait(epoll, &mut got, 1, timeout));
            if n == 0 { 0 } else { got.events }
        };
        assert_eq!(wait(1000), EPOLLOUT as u32);
        assert_eq!(wait(0), 0);
        server.write_all(b"x").unwrap();
        assert_eq!(wait(5000), (EPOLLIN | EPOLLOUT) as u32);
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(wait(5000), (EPOLLIN | EPOLLOUT | EPOLLRDHUP) as u32);
        client.shutdown(Shutdown::Write).unwrap();
        pause_ms(20);
        assert_eq!(wait(5000) & (EPOLLHUP | EPOLLRDHUP) as u32, (EPOLLHUP | EPOLLRDHUP) as u32);
    }
}

fn tcp_address_in_use() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = TcpListener::bind(local(&listener)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EADDRINUSE));
    // With connections still in TIME_WAIT the address can be taken again (SO_REUSEADDR, which std
    // sets).
    let address = local(&listener);
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    drop(server);
    drop(client);
    drop(listener);
    TcpListener::bind(address).unwrap();
}

fn tcp_reuse_port_shares() {
    unsafe {
        let bound = |port: u16| {
            let fd = ok(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
            set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
            let mut address: sockaddr_in = zeroed();
            address.sin_family = AF_INET as u16;
            address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
            address.sin_port = port.to_be();
            ok(bind(fd, (&raw const address).cast(), size_of::<sockaddr_in>() as u32));
            ok(listen(fd, 100));
            let mut len = size_of::<sockaddr_in>() as u32;
            ok(getsockname(fd, (&raw mut address).cast(), &mut len));
            (fd, u16::from_be(address.sin_port))
        };
        let (first, port) = bound(0);
        let (second, _) = bound(port);
        let _clients: Vec<TcpStream> =
            (0..60).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        pause_ms(20);
        let count = |fd| (0..).take_while(|_| accept(fd, null_mut(), null_mut()) >= 0).count();
        let (a, b) = (count(first), count(second));
        assert_eq!(a + b, 60);
        assert!(a > 5 && b > 5, "{a} and {b}");
    }
}

fn tcp_timeouts() {
    let (client, _server) = pair();
    client.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
    let start = Instant::now();
    let error = (&client).read(&mut [0u8; 4]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EAGAIN));
    assert!(start.elapsed() >= Duration::from_millis(39));
    assert_eq!(client.read_timeout().unwrap(), Some(Duration::from_millis(40)));
}

fn tcp_accept_across_fork() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let workers: Vec<i32> = (0..2)
        .map(|_| {
            child(|| {
                for _ in 0..10 {
                    let (mut stream, _) = listener.accept().unwrap();
                    let pid = unsafe { getpid() };
                    stream.write_all(&pid.to_ne_bytes()).unwrap();
                }
                0
            })
        })
        .collect();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(local(&listener)).unwrap();
        let mut pid = [0; 4];
        stream.read_exact(&mut pid).unwrap();
        assert!(workers.contains(&i32::from_ne_bytes(pid)));
    }
    workers.into_iter().for_each(|pid| assert_eq!(wait_for(pid), 0));
}

fn udp_keeps_datagrams() {
    let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let to = b.local_addr().unwrap();
    a.send_to(b"one", to).unwrap();
    a.send_to(b"", to).unwrap();
    a.send_to(&[9; 9000], to).unwrap();
    let mut buf = [0u8; 10_000];
    assert_eq!(b.recv_from(&mut buf).unwrap(), (3, a.local_addr().unwrap()));
    assert_eq!(b.recv_from(&mut buf).unwrap().0, 0);
    assert_eq!(b.recv_from(&mut buf).unwrap().0, 9000);
    let error = a.send_to(&[0; 70_000], to).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EMSGSIZE));
    b.set_nonblocking(true).unwrap();
    assert_eq!(b.recv(&mut buf).unwrap_err().raw_os_error(), Some(EAGAIN));
}

fn udp_connected_filters() {
    let a = UdpSocket::bind("127.0.0.1:0").unwrap();
    let b = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    a.connect(b.local_addr().unwrap()).unwrap();
    stranger.send_to(b"no", a.local_addr().unwrap()).unwrap();
    b.send_to(b"yes", a.local_addr().unwrap()).unwrap();
    let mut buf = [0u8; 8];
    assert_eq!(a.recv(&mut buf).unwrap(), 3);
    // A refused datagram is reported on the next call.
    let gone = b.local_addr().unwrap();
    drop(b);
    a.connect(gone).unwrap();
    a.send(b"x").unwrap();
    pause_ms(20);
    assert_eq!(a.send(b"y").unwrap_err().raw_os_error(), Some(ECONNREFUSED));
}

fn udp_truncates() {
    unsafe {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        a.send_to(b"long datagram", a.local_addr().unwrap()).unwrap();
        let mut buf = [0u8; 4];
        assert_eq!(recv(a.as_raw_fd(), buf.as_mut_ptr().cast(), 4, MSG_TRUNC | MSG_PEEK), 13);
        assert_eq!(recv(a.as_raw_fd(), buf.as_mut_ptr().cast(), 4, 0), 4);
        fails!(recv(a.as_raw_fd(), buf.as_mut_ptr().cast(), 4, MSG_DONTWAIT), EAGAIN);
    }
}

fn reading_nothing_takes_nothing() {
    let nothing = |fd: i32| unsafe { libc::read(fd, [0u8; 1].as_mut_ptr().cast(), 0) };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(local(&listener)).unwrap();
    let (here, _there) = UnixStream::pair().unwrap();
    for fd in [client.as_raw_fd(), here.as_raw_fd()] {
        assert_eq!(nothing(fd), 0, "nothing is there, and nobody waits for it");
    }
    let a = UdpSocket::bind("127.0.0.1:0").unwrap();
    a.send_to(b"datagram", a.local_addr().unwrap()).unwrap();
    let mut buf = [0u8; 9];
    assert_eq!(nothing(a.as_raw_fd()), 0);
    assert_eq!(a.recv(&mut buf).unwrap(), 8, "it stays for who has room");
}

fn unix_stream_and_names() {
    let path = format!("{}/stream.sock", scratch());
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    drop(client);
    let mut all = String::new();
    server.read_to_string(&mut all).unwrap();
    assert_eq!(all, "hello");
    assert_eq!(server.local_addr().unwrap().as_pathname().unwrap().to_str().unwrap(), path);
    assert!(server.peer_addr().unwrap().is_unnamed());
    assert_eq!(UnixListener::bind(&path).unwrap_err().raw_os_error(), Some(EADDRINUSE));
    drop(listener);
    assert_eq!(UnixStream::connect(&path).unwrap_err().raw_os_error(), Some(ECONNREFUSED));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(UnixStream::connect(&path).unwrap_err().raw_os_error(), Some(ENOENT));
}

/// Sends one byte with a control message.
unsafe fn send_control(fd: i32, kind: c_int, payload: &[u8]) {
    unsafe {
        let mut control = [0u64; 16];
        let mut byte = 1u8;
        let mut part = iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut msg: msghdr = zeroed();
        (msg.msg_iov, msg.msg_iovlen) = (&mut part, 1);
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = CMSG_SPACE(payload.len() as u32) as usize;
        let header = CMSG_FIRSTHDR(&msg);
        ((*header).cmsg_level, (*header).cmsg_type) = (SOL_SOCKET, kind);
        (*header).cmsg_len = CMSG_LEN(payload.len() as u32) as usize;
        CMSG_DATA(header).copy_from(payload.as_ptr(), payload.len());
        assert_eq!(ok(sendmsg(fd, &msg, 0) as i64), 1);
    }
}

/// Receives one byte; returns the control message's type and payload, and the flags.
unsafe fn receive_control(
    fd: i32,
    space: usize,
    flags: c_int,
) -> (Option<(c_int, Vec<u8>)>, c_int) {
    unsafe {
        let mut control = [0u64; 16];
        let mut byte = 0u8;
        let mut part = iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut msg: msghdr = zeroed();
        (msg.msg_iov, msg.msg_iovlen) = (&mut part, 1);
        (msg.msg_control, msg.msg_controllen) = (control.as_mut_ptr().cast(), space);
        assert_eq!(ok(recvmsg(fd, &mut msg, flags) as i64), 1);
        let header = CMSG_FIRSTHDR(&msg);
        let message = (!header.is_null()).then(|| {
            let len = (*header).cmsg_len as usize - CMSG_LEN(0) as usize;
            ((*header).cmsg_type, std::slice::from_raw_parts(CMSG_DATA(header), len).to_vec())
        });
        (message, msg.msg_flags)
    }
}

fn unix_passes_descriptors() {
    unsafe {
        let (a, b) = UnixStream::pair().unwrap();
        let (r, w) = pipe();
        send_control(a.as_raw_fd(), SCM_RIGHTS, &r.to_ne_bytes());
        close(r);
        write(w, b"through a passed descriptor");
        let (message, flags) = receive_control(b.as_raw_fd(), 64, MSG_CMSG_CLOEXEC);
        let (kind, payload) = message.unwrap();
        assert_eq!((kind, flags & MSG_CTRUNC), (SCM_RIGHTS, 0));
        let got = i32::from_ne_bytes(payload.try_into().unwrap());
        assert_eq!(fcntl(got, F_GETFD), FD_CLOEXEC);
        assert_eq!(read(got, 99), b"through a passed descriptor");
        // Too little room: the descriptor is dropped and the flag says so.
        send_control(a.as_raw_fd(), SCM_RIGHTS, &got.to_ne_bytes());
        let (message, flags) = receive_control(b.as_raw_fd(), 8, 0);
        assert!(message.is_none() && flags & MSG_CTRUNC != 0);
        fails!(
            {
                let mut msg: msghdr = zeroed();
                let mut control = [0u64; 4];
                let mut part = iovec { iov_base: (&raw mut control).cast(), iov_len: 1 };
                (msg.msg_iov, msg.msg_iovlen) = (&mut part, 1);
                let mut control = [0u64; 4];
                (msg.msg_control, msg.msg_controllen) =
                    (control.as_mut_ptr().cast(), CMSG_SPACE(4) as usize);
                let header = CMSG_FIRSTHDR(&msg);
                ((*header).cmsg_level, (*header).cmsg_type) = (SOL_SOCKET, SCM_RIGHTS);
                (*header).cmsg_len = CMSG_LEN(4) as usize;
                CMSG_DATA(header).copy_from(999i32.to_ne_bytes().as_ptr(), 4);
                sendmsg(a.as_raw_fd(), &msg, 0)
            },
            EBADF
        );
    }
}

fn unix_passes_credentials() {
    unsafe {
        let (a, b) = UnixStream::pair().unwrap();
        set_option(b.as_raw_fd(), SOL_SOCKET, SO_PASSCRED, 1);
        (&a).write_all(b"x").unwrap();
        let (message, _) = receive_control(b.as_raw_fd(), 64, 0);
        let (kind, payload) = message.unwrap();
        assert_eq!(kind, SCM_CREDENTIALS);
        let creds = &*payload.as_ptr().cast::<ucred>();
        assert_eq!((creds.pid, creds.uid, creds.gid), (getpid(), getuid(), getgid()));
        let mut peer: ucred = zeroed();
        let mut len = size_of::<ucred>() as u32;
        ok(getsockopt(a.as_raw_fd(), SOL_SOCKET, SO_PEERCRED, (&raw mut peer).cast(), &mut len));
        assert_eq!((peer.pid, peer.uid), (getpid(), getuid()));
    }
}

fn unix_datagrams_and_packets() {
    unsafe {
        let (a, b) = UnixDatagram::pair().unwrap();
        a.send(b"one").unwrap();
        a.send(b"two").unwrap();
        let mut buf = [0u8; 16];
        assert_eq!(b.recv(&mut buf).unwrap(), 3);
        assert_eq!(b.recv(&mut buf[..2]).unwrap(), 2, "the rest of a datagram is lost");
        let mut fds = [0; 2];
        ok(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds.as_mut_ptr()));
        write(fds[0], b"packet");
        write(fds[0], b"next");
        assert_eq!((read(fds[1], 99), read(fds[1], 99)), (b"packet".to_vec(), b"next".to_vec()));
        close(fds[0]);
        assert_eq!(read(fds[1], 99), b"");
        let path = format!("{}/dgram.sock", scratch());
        let named = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"to a name", &path).unwrap();
        assert_eq!(named.recv(&mut buf).unwrap(), 9);
    }
}

fn unix_abstract_names() {
    unsafe {
        let mut address: sockaddr_un = zeroed();
        address.sun_family = AF_UNIX as u16;
        let name = format!("guest-tests-{}", getpid());
        for (slot, byte) in address.sun_path[1..].iter_mut().zip(name.bytes()) {
            *slot = byte as c_char;
        }
        let len = (2 + 1 + name.len()) as u32;
        let listener = ok(socket(AF_UNIX, SOCK_STREAM, 0));
        ok(bind(listener, (&raw const address).cast(), len));
        ok(listen(listener, 5));
        let client = ok(socket(AF_UNIX, SOCK_STREAM, 0));
        ok(connect(client, (&raw const address).cast(), len));
        let server = ok(accept(listener, null_mut(), null_mut()));
        write(client, b"abstract");
        assert_eq!(read(server, 99), b"abstract");
        let again = ok(socket(AF_UNIX, SOCK_STREAM, 0));
        fails!(bind(again, (&raw const address).cast(), len), EADDRINUSE);
        for fd in [listener, server, client] {
            close(fd);
        }
        ok(bind(again, (&raw const address).cast(), len));
    }
}

fn unix_errors() {
    unsafe {
        signal(SIGPIPE, SIG_IGN);
        let (a, b) = UnixStream::pair().unwrap();
        drop(b);
        assert_eq!((&a).write(b"x").unwrap_err().raw_os_error(), Some(EPIPE));
        assert_eq!((&a).read(&mut [0]).unwrap(), 0);
        let fd = ok(socket(AF_UNIX, SOCK_STREAM, 0));
        let address = sockaddr { sa_family: AF_UNIX as u16, sa_data: [0; 14] };
        fails!(connect(fd, &address, 1), EINVAL);
        fails!(socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
    }
}

fn sendmsg_and_sendmmsg() {
    unsafe {
        let (a, b) = UnixDatagram::pair().unwrap();
        let mut parts = [
            iovec { iov_base: c"ab".as_ptr() as *mut c_void, iov_len: 2 },
            iovec { iov_base: c"cd".as_ptr() as *mut c_void, iov_len: 2 },
        ];
        let mut messages: [mmsghdr; 2] = zeroed();
        for message in &mut messages {
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (parts.as_mut_ptr(), 2);
        }
        assert_eq!(sendmmsg(a.as_raw_fd(), messages.as_mut_ptr(), 2, 0), 2);
        assert_eq!([messages[0].msg_len, messages[1].msg_len], [4, 4]);
        let mut buf = [[0u8; 8]; 2];
        let mut into: [iovec; 2] = zeroed();
        for i in 0..2 {
            into[i] = iovec { iov_base: buf[i].as_mut_ptr().cast(), iov_len: 8 };
            messages[i] = zeroed();
            (messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen) = (&mut into[i], 1);
        }
        assert_eq!(recvmmsg(b.as_raw_fd(), messages.as_mut_ptr(), 2, 0, null_mut()), 2);
        assert_eq!((messages[1].msg_len, &buf[1][..4]), (4, &b"abcd"[..]));
    }
}

fn wrong_states_fail() {
    unsafe {
        let fd = ok(socket(AF_INET, SOCK_STREAM, 0));
        fails!(accept(fd, null_mut(), null_mut()), EINVAL);
        fails!(recv(fd, [0u8; 4].as_mut_ptr().cast(), 4, 0), ENOTCONN);
        fails!(shutdown(fd, SHUT_RDWR), ENOTCONN);
        let mut address: sockaddr_in = zeroed();
        let mut len = size_of::<sockaddr_in>() as u32;
        fails!(getpeername(fd, (&raw mut address).cast(), &mut len), ENOTCONN);
        ok(getsockname(fd, (&raw mut address).cast(), &mut len));
        assert_eq!((address.sin_family, address.sin_port), (AF_INET as u16, 0));
        let (r, _w) = pipe();
        fails!(listen(r, 5), ENOTSOCK);
        fails!(getsockname(r, (&raw mut address).cast(), &mut len), ENOTSOCK);
        fails!(socket(AF_INET, 99, 0), EINVAL);
        fails!(socket(99, SOCK_STREAM, 0), EAFNOSUPPORT);
        fails!(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
        let datagram = ok(socket(AF_INET, SOCK_DGRAM, 0));
        fails!(listen(datagram, 5), EOPNOTSUPP);
        fails!(send(datagram, c"x".as_ptr().cast(), 1, 0), EDESTADDRREQ);
        fails!(bind(fd, (&raw const address).cast(), 3), EINVAL);
    }
}

fn interfaces_are_listed() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
    socket.recv(&mut [0]).unwrap();
    unsafe {
        let mut list: *mut ifaddrs = null_mut();
        ok(getifaddrs(&mut list));
        let (mut found, mut counted) = (false, false);
        let mut at = list;
        while !at.is_null() {
            let name = std::ffi::CStr::from_ptr((*at).ifa_name).to_str().unwrap();
            let address = (*at).ifa_addr;
            if name == "lo" && !address.is_null() && i32::from((*address).sa_family) == AF_INET {
                let address = &*address.cast::<sockaddr_in>();
                found |= address.sin_addr.s_addr == u32::from_ne_bytes([127, 0, 0, 1]);
                assert!(
                    (*at).ifa_flags & (IFF_UP | IFF_LOOPBACK) as u32
                        == (IFF_UP | IFF_LOOPBACK) as u32
                );
            }
            if name == "lo" && !address.is_null() && i32::from((*address).sa_family) == AF_PACKET {
                // struct rtnl_link_stats: packets received, packets sent.
                let data = (*at).ifa_data.cast::<[u32; 2]>();
                assert!(!data.is_null(), "no counters");
                counted |= *data != [0, 0];
            }
            at = (*at).ifa_next;
        }
        freeifaddrs(list);
        assert!(found, "127.0.0.1 on lo");
        assert!(counted, "packets through lo");
        assert!(if_nametoindex(c"lo".as_ptr()) > 0);
    }
}
