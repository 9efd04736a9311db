//! Sockets at the beginning and the end of what they are: connecting, refused, shut down, dissolved.

use crate::harness::{ok, pause_ms};
use libc::*;
use std::io::{Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;

cases![
    a_socket_connects_to_itself,
    a_refusal_is_told_once,
    a_connecting_socket_is_shut_down,
    nothing_is_left_to_shut_down_of_what_is_over,
    what_is_truncated_is_not_copied,
    tcp_tells_when_data_came,
    a_timeout_below_zero_is_none,
    receiving_nothing_waits_for_something,
    the_senders_buffer_is_what_counts,
    an_association_takes_what_it_brought,
    a_datagram_socket_that_is_shut_down_is_empty,
    the_last_datagrams_time_can_be_asked_for,
    either_family_is_connected_to,
    options_of_another_family_are_none,
];

const IP_RECVERR: c_int = 11;
const SIOCGSTAMP: c_ulong = 0x8906;

fn v4(port: u16, ip: Ipv4Addr) -> sockaddr_in {
    let mut name: sockaddr_in = unsafe { zeroed() };
    name.sin_family = AF_INET as u16;
    (name.sin_port, name.sin_addr.s_addr) = (port.to_be(), u32::from(ip).to_be());
    name
}

fn socket_of(kind: c_int) -> OwnedFd {
    unsafe { OwnedFd::from_raw_fd(ok(socket(AF_INET, kind, 0))) }
}

fn connect_to(fd: &impl AsRawFd, to: SocketAddr) -> c_int {
    let name = v4(to.port(), Ipv4Addr::LOCALHOST);
    unsafe { connect(fd.as_raw_fd(), (&raw const name).cast(), size_of::<sockaddr_in>() as u32) }
}

fn events(fd: &impl AsRawFd, wanted: c_short) -> c_short {
    let mut one = pollfd { fd: fd.as_raw_fd(), events: wanted, revents: 0 };
    ok(unsafe { poll(&mut one, 1, 20_000) });
    one.revents
}

fn error_of(fd: &impl AsRawFd) -> i32 {
    let (mut value, mut len) = (-1i32, 4);
    let at = (&raw mut value).cast();
    ok(unsafe { getsockopt(fd.as_raw_fd(), SOL_SOCKET, SO_ERROR, at, &mut len) });
    value
}

fn take(fd: &impl AsRawFd, buf: &mut [u8], flags: c_int) -> isize {
    unsafe { recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags) }
}

fn set(fd: &impl AsRawFd, level: c_int, name: c_int, value: i32) -> c_int {
    unsafe { setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), 4) }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// A call failed with this error.
fn refused(result: impl TryInto<i64>, errno: i32) {
    let error = std::io::Error::last_os_error().raw_os_error();
    assert_eq!((result.try_into().ok(), error), (Some(-1), Some(errno)));
}

/// A port of this machine where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn a_socket_connects_to_itself() {
    let raw = socket_of(SOCK_STREAM);
    let name = v4(0, Ipv4Addr::LOCALHOST);
    ok(unsafe { bind(raw.as_raw_fd(), (&raw const name).cast(), 16) });
    let mut stream = TcpStream::from(raw);
    let own = stream.local_addr().unwrap();
    ok(connect_to(&stream, own));
    assert_eq!(stream.peer_addr().unwrap(), own);
    let sent: Vec<u8> = (0..300_000u32).map(|at| ((at * 7) >> 3) as u8).collect();
    let mut reader = stream.try_clone().unwrap();
    let wanted = sent.clone();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == wanted);
    });
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    reader.join().unwrap();
}

fn a_refusal_is_told_once() {
    let (fd, to) = (socket_of(SOCK_STREAM | SOCK_NONBLOCK), nobody());
    refused(connect_to(&fd, to), EINPROGRESS);
    assert_ne!(events(&fd, 0) & POLLERR, 0);
    let mut byte = [0];
    refused(take(&fd, &mut byte, MSG_PEEK), ECONNREFUSED);
    assert_eq!(take(&fd, &mut byte, MSG_PEEK), 0);
    // The attempt is over for connect(2) only when that was told, too.
    refused(connect_to(&fd, to), ECONNABORTED);
    refused(connect_to(&fd, to), EINPROGRESS);
}

fn a_connecting_socket_is_shut_down() {
    let listener = socket_of(SOCK_STREAM);
    let name = v4(0, Ipv4Addr::LOCALHOST);
    ok(unsafe { bind(listener.as_raw_fd(), (&raw const name).cast(), 16) });
    ok(unsafe { listen(listener.as_raw_fd(), 0) });
    let listener = TcpListener::from(listener);
    let to = listener.local_addr().unwrap();
    // One is let in, and whoever comes then has to wait.
    let _first = TcpStream::connect(to).unwrap();
    for how in [SHUT_RD, SHUT_WR, SHUT_RDWR] {
        let fd = socket_of(SOCK_STREAM | SOCK_NONBLOCK);
        refused(connect_to(&fd, to), EINPROGRESS);
        ok(unsafe { shutdown(fd.as_raw_fd(), how) });
        assert_eq!(events(&fd, 0), POLLERR | POLLHUP);
        assert_eq!(error_of(&fd), ECONNRESET);
    }
}

fn nothing_is_left_to_shut_down_of_what_is_over() {
    let (client, server) = pair();
    let both = |stream: &TcpStream, how| unsafe { shutdown(stream.as_raw_fd(), how) };
    ok(both(&server, SHUT_WR));
    ok(both(&server, SHUT_WR));
    ok(both(&client, SHUT_RDWR));
    for _ in 0..1000 {
        if both(&server, SHUT_WR) != 0 {
            break;
        }
        pause_ms(10);
    }
    refused(both(&server, SHUT_WR), ENOTCONN);
    assert_eq!(server.peer_addr().unwrap_err().raw_os_error(), Some(ENOTCONN));
}

fn what_is_truncated_is_not_copied() {
    let (mut client, server) = pair();
    client.write_all(b"thrown away, kept").unwrap();
    let mut buf = [0u8; 13];
    for flags in [MSG_PEEK, 0] {
        assert_eq!(take(&server, &mut buf, flags | MSG_TRUNC | MSG_WAITALL), 13);
        assert_eq!(buf, [0; 13]);
    }
    assert_eq!(take(&server, &mut buf, 0), 4);
    assert_eq!(&buf[..4], b"kept");
}

/// Types of the control messages that came, with the bytes that did.
fn kinds(fd: &impl AsRawFd, room: usize) -> (isize, Vec<(c_int, c_int)>) {
    let (mut bytes, mut control) = (vec![0u8; room], [0u64; 32]);
    let mut part = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: room };
    unsafe {
        let mut header: msghdr = zeroed();
        (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 256);
        let got = recvmsg(fd.as_raw_fd(), &mut header, MSG_DONTWAIT);
        let mut found = Vec::new();
        let mut at = CMSG_FIRSTHDR(&header);
        while !at.is_null() {
            found.push(((*at).cmsg_level, (*at).cmsg_type));
            at = CMSG_NXTHDR(&header, at);
        }
        (got, found)
    }
}

fn tcp_tells_when_data_came() {
    let (mut client, server) = pair();
    client.write_all(b"before").unwrap();
    ok(set(&server, SOL_SOCKET, SO_TIMESTAMP, 1));
    // Linux begins to note times a little after it was asked to.
    for _ in 0..1000 {
        client.write_all(b"after").unwrap();
        assert_ne!(events(&server, POLLIN) & POLLIN, 0);
        let (got, kinds) = kinds(&server, 100);
        assert!(got > 0);
        if kinds == [(SOL_SOCKET, SCM_TIMESTAMP)] {
            return;
        }
        assert_eq!(kinds, []);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("nothing has a time");
}

fn a_timeout_below_zero_is_none() {
    let fd = socket_of(SOCK_STREAM);
    refused(set(&fd, IPPROTO_TCP, TCP_USER_TIMEOUT, -1), EINVAL);
    ok(set(&fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 100));
}

fn receiving_nothing_waits_for_something() {
    let (mut client, server) = pair();
    let (mut near, far) = UnixStream::pair().unwrap();
    let zero = |fd: &dyn AsRawFd| unsafe {
        let mut header: msghdr = zeroed();
        recvmsg(fd.as_raw_fd(), &mut header, MSG_DONTWAIT)
    };
    refused(zero(&server), EAGAIN);
    refused(zero(&far), EAGAIN);
    client.write_all(b"x").unwrap();
    near.write_all(b"x").unwrap();
    assert_ne!(events(&server, POLLIN) & POLLIN, 0);
    for fd in [&server as &dyn AsRawFd, &far] {
        assert_eq!(zero(fd), 0);
        assert_eq!(unsafe { read(fd.as_raw_fd(), null_mut(), 0) }, 0);
        let mut byte = [0];
        assert_eq!(unsafe { recv(fd.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0) }, 1);
    }
}

fn the_senders_buffer_is_what_counts() {
    let (near, _far) = UnixStream::pair().unwrap();
    let data = [0u8; 16384];
    let send_some =
        || unsafe { send(near.as_raw_fd(), data.as_ptr().cast(), data.len(), MSG_DONTWAIT) };
    assert!(send_some() > 0);
    ok(set(&near, SOL_SOCKET, SO_SNDBUF, 4096));
    refused(send_some(), EAGAIN);
    ok(set(&near, SOL_SOCKET, SO_SNDBUF, 100_000));
    assert_ne!(events(&near, POLLOUT) & POLLOUT, 0);
    assert!(send_some() > 0);
}

fn own_name(fd: &impl AsRawFd) -> (Ipv4Addr, u16) {
    let (mut name, mut len) = (v4(0, Ipv4Addr::UNSPECIFIED), 16);
    ok(unsafe { getsockname(fd.as_raw_fd(), (&raw mut name).cast(), &mut len) });
    (u32::from_be(name.sin_addr.s_addr).into(), u16::from_be(name.sin_port))
}

fn dissolve(fd: &impl AsRawFd) {
    let none: sockaddr_storage = unsafe { zeroed() };
    ok(unsafe { connect(fd.as_raw_fd(), (&raw const none).cast(), 16) });
}

fn an_association_takes_what_it_brought() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    // Neither address nor port was asked for.
    let fd = socket_of(SOCK_DGRAM);
    ok(connect_to(&fd, to));
    assert_eq!(own_name(&fd).0, Ipv4Addr::LOCALHOST);
    dissolve(&fd);
    assert_eq!(own_name(&fd), (Ipv4Addr::UNSPECIFIED, 0));
    // AF_UNSPEC is any address of IPv4.
    let any: sockaddr_storage = unsafe { zeroed() };
    ok(unsafe { bind(fd.as_raw_fd(), (&raw const any).cast(), 16) });
    // The port was.
    let spare = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = spare.local_addr().unwrap().port();
    drop(spare);
    let fd = socket_of(SOCK_DGRAM);
    let name = v4(port, Ipv4Addr::UNSPECIFIED);
    ok(unsafe { bind(fd.as_raw_fd(), (&raw const name).cast(), 16) });
    ok(connect_to(&fd, to));
    assert_eq!(own_name(&fd), (Ipv4Addr::LOCALHOST, port));
    dissolve(&fd);
    assert_eq!(own_name(&fd), (Ipv4Addr::UNSPECIFIED, port));
    // The address was.
    let fixed = UdpSocket::bind("127.0.0.1:0").unwrap();
    fixed.connect(to).unwrap();
    dissolve(&fixed);
    assert_eq!(own_name(&fixed).0, Ipv4Addr::LOCALHOST);
}

fn a_datagram_socket_that_is_shut_down_is_empty() {
    let one = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    refused(unsafe { shutdown(one.as_raw_fd(), SHUT_RD) }, ENOTCONN);
    let mut buf = [0; 8];
    refused(take(&one, &mut buf, MSG_DONTWAIT), EAGAIN);
    one.connect(other.local_addr().unwrap()).unwrap();
    other.send_to(b"late", one.local_addr().unwrap()).unwrap();
    ok(unsafe { shutdown(one.as_raw_fd(), SHUT_RD) });
    assert_ne!(events(&one, POLLIN | POLLRDHUP) & POLLRDHUP, 0);
    assert_eq!(take(&one, &mut buf, 0), 4);
    refused(take(&one, &mut buf, MSG_DONTWAIT), EAGAIN);
    // Only who would sleep hears of the end.
    assert_eq!(take(&one, &mut buf, 0), 0);
}

fn the_last_datagrams_time_can_be_asked_for() {
    let (one, other) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut time = [0i64; 2];
    let ask = |time: &mut [i64; 2]| unsafe { ioctl(one.as_raw_fd(), SIOCGSTAMP, time) };
    refused(ask(&mut time), ENOENT);
    let send = || {
        other.send_to(b"x", one.local_addr().unwrap()).unwrap();
        assert_ne!(events(&one, POLLIN) & POLLIN, 0);
        kinds(&one, 10).1
    };
    assert_eq!(send(), []);
    ok(ask(&mut time));
    assert!(time[0] > 1_600_000_000 && time[1] < 1_000_000);
    ok(set(&one, SOL_SOCKET, SO_TIMESTAMP, 1));
    assert_eq!(send(), [(SOL_SOCKET, SCM_TIMESTAMP)]);
}

fn either_family_is_connected_to() {
    unsafe {
        let fd = OwnedFd::from_raw_fd(ok(socket(AF_INET6, SOCK_DGRAM, 0)));
        // What getaddrinfo(3) does to learn of sources; the port doesn't matter.
        ok(connect_to(&fd, "127.0.0.1:0".parse().unwrap()));
        let (mut name, mut len): (sockaddr_in6, u32) = (zeroed(), 28);
        ok(getsockname(fd.as_raw_fd(), (&raw mut name).cast(), &mut len));
        assert_eq!(name.sin6_addr.s6_addr[8..], [0, 0, 0xff, 0xff, 127, 0, 0, 1]);
        let only = OwnedFd::from_raw_fd(ok(socket(AF_INET6, SOCK_DGRAM, 0)));
        ok(set(&only, IPPROTO_IPV6, IPV6_V6ONLY, 1));
        refused(connect_to(&only, "127.0.0.1:9".parse().unwrap()), EAFNOSUPPORT);
        let stream = OwnedFd::from_raw_fd(ok(socket(AF_INET6, SOCK_STREAM, 0)));
        assert_eq!(connect_to(&stream, "127.0.0.1:9".parse().unwrap()), -1);
    }
}

fn options_of_another_family_are_none() {
    let fd = socket_of(SOCK_DGRAM);
    refused(set(&fd, IPPROTO_IPV6, IPV6_RECVERR, 1), ENOPROTOOPT);
    let (mut value, mut len) = (0i32, 4);
    let at = (&raw mut value).cast();
    let got = unsafe { getsockopt(fd.as_raw_fd(), IPPROTO_IPV6, IPV6_RECVERR, at, &mut len) };
    refused(got, EOPNOTSUPP);
    // Failures of IPv6 are not kept by the option of IPv4.
    let six = unsafe { OwnedFd::from_raw_fd(ok(socket(AF_INET6, SOCK_DGRAM, 0))) };
    ok(set(&six, IPPROTO_IP, IP_RECVERR, 1));
    let closed = UdpSocket::bind("[::1]:0").unwrap();
    let to = closed.local_addr().unwrap();
    drop(closed);
    let six = UdpSocket::from(six);
    six.connect(to).unwrap();
    six.send(b"x").unwrap();
    assert_ne!(events(&six, POLLIN) & POLLERR, 0);
    let mut buf = [0; 8];
    refused(take(&six, &mut buf, MSG_ERRQUEUE), EAGAIN);
    refused(take(&six, &mut buf, MSG_DONTWAIT), ECONNREFUSED);
}
