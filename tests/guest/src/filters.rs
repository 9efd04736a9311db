//! Programs at sockets: what they let in, and whom they choose.

use crate::harness::{ok, read, scratch};
use libc::*;
use std::io::{Read, Write};
use std::mem::size_of;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::ptr::null_mut;
use std::time::Duration;

cases!(
    datagrams_are_dropped_and_cut,
    datagrams_are_judged_with_their_headers,
    segments_are_dropped,
    unix_datagrams_are_tossed_in_silence,
    filters_are_locked_and_removed,
    broken_filters_are_refused,
    a_program_chooses_among_datagram_sockets,
    a_program_chooses_among_listeners,
    only_those_that_share_have_one_choose,
    raw_sockets_hear_the_types_they_want,
);

const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_LEN: u16 = 0x80;
const SUB: u16 = 0x14;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;
/// Offsets from here on are from the network header (`SKF_NET_OFF`).
const NETWORK: u32 = -0x10_0000_i32 as u32;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn set(fd: RawFd, name: c_int, value: *const c_void, len: usize) -> c_int {
    unsafe { setsockopt(fd, SOL_SOCKET, name, value, len as socklen_t) }
}

fn set_int(fd: RawFd, name: c_int, value: c_int) -> c_int {
    set(fd, name, (&raw const value).cast(), size_of::<c_int>())
}

fn attach(fd: RawFd, name: c_int, program: &mut [sock_filter]) -> c_int {
    let fprog = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(fd, name, (&raw const fprog).cast(), size_of::<sock_fprog>())
}

fn always(fd: RawFd, bytes: u32) {
    ok(attach(fd, SO_ATTACH_FILTER, &mut [insn(RETURN, 0, 0, bytes)]));
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn datagrams_are_dropped_and_cut() {
    let (server, client) = (udp(), udp());
    client.connect(server.local_addr().unwrap()).unwrap();
    // Those whose first byte behind the header is `x`, and of these the first two bytes.
    let mut program = [
        insn(LOAD_BYTE, 0, 0, 8),
        insn(JUMP_EQUAL, 0, 1, b'x'.into()),
        insn(RETURN, 0, 0, 10),
        insn(RETURN, 0, 0, 0),
    ];
    ok(attach(server.as_raw_fd(), SO_ATTACH_FILTER, &mut program));
    for text in [&b"no"[..], b"xyz", b"", b"xx"] {
        client.send(text).unwrap();
    }
    let mut buf = [0; 16];
    assert_eq!(server.recv(&mut buf).unwrap(), 2);
    assert_eq!(&buf[..2], b"xy");
    assert_eq!(server.recv(&mut buf).unwrap(), 2);
    assert_eq!(&buf[..2], b"xx");
    // Less than the header is no datagram without data, but one.
    always(server.as_raw_fd(), 1);
    client.send(b"abc").unwrap();
    assert_eq!(server.recv(&mut buf).unwrap(), 0);
}

fn datagrams_are_judged_with_their_headers() {
    let (server, first, second) = (udp(), udp(), udp());
    let port = first.local_addr().unwrap().port();
    // UDP in IPv4, from one port, with a length.
    let mut program = [
        insn(LOAD_BYTE, 0, 0, NETWORK + 9),
        insn(JUMP_EQUAL, 0, 5, 17),
        insn(LOAD_HALF, 0, 0, 0),
        insn(JUMP_EQUAL, 0, 3, port.into()),
        insn(LOAD_LEN, 0, 0, 0),
        insn(SUB, 0, 0, 1),
        insn(RETURN_A, 0, 0, 0),
        insn(RETURN, 0, 0, 0),
    ];
    ok(attach(server.as_raw_fd(), SO_ATTACH_FILTER, &mut program));
    for socket in [&second, &first] {
        socket.send_to(b"text", server.local_addr().unwrap()).unwrap();
    }
    let mut buf = [0; 16];
    let (len, from) = server.recv_from(&mut buf).unwrap();
    assert_eq!((&buf[..len], from), (&b"tex"[..], first.local_addr().unwrap()));
}

fn segments_are_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    always(listener.as_raw_fd(), 0);
    let socket = ok(unsafe { socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0) });
    let mut addr: sockaddr_in = unsafe { std::mem::zeroed() };
    addr.sin_family = AF_INET as u16;
    addr.sin_port = listener.local_addr().unwrap().port().to_be();
    addr.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
    let len = size_of::<sockaddr_in>() as u32;
    unsafe { fails!(connect(socket, (&raw const addr).cast(), len), EINPROGRESS) };
    let mut wait = pollfd { fd: socket, events: POLLOUT, revents: 0 };
    assert_eq!(unsafe { poll(&mut wait, 1, 100) }, 0, "nobody hears of it");
    ok(set_int(listener.as_raw_fd(), SO_DETACH_FILTER, 0));
    // Called again after a second.
    assert_eq!(unsafe { poll(&mut wait, 1, 20_000) }, 1);
    let mut client = unsafe { TcpStream::from_raw_fd(socket) };
    client.set_nonblocking(false).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    // What is cut from a segment is sent again.
    always(server.as_raw_fd(), 60);
    let text: Vec<u8> = (0..200).collect();
    client.write_all(&text[..]).unwrap();
    let mut buf = [0; 200];
    let some = server.read(&mut buf).unwrap();
    assert!(some <= 40, "{some}");
    ok(set_int(server.as_raw_fd(), SO_DETACH_FILTER, 0));
    server.read_exact(&mut buf[some..]).unwrap();
    assert_eq!(buf[..], text[..]);
    // What was at the listener goes to those it accepts.
    always(listener.as_raw_fd(), u32::MAX);
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    ok(set_int(server.as_raw_fd(), SO_DETACH_FILTER, 0));
    unsafe { fails!(set_int(server.as_raw_fd(), SO_DETACH_FILTER, 0), ENOENT) };
}

fn unix_datagrams_are_tossed_in_silence() {
    let path = format!("{}/socket", scratch());
    let server = UnixDatagram::bind(&path).unwrap();
    let client = UnixDatagram::unbound().unwrap();
    // As many bytes as the first one says.
    let mut program = [insn(LOAD_BYTE, 0, 0, 0), insn(RETURN_A, 0, 0, 0)];
    ok(attach(server.as_raw_fd(), SO_ATTACH_FILTER, &mut program));
    for text in [&[0, 1, 2][..], &[2, 3, 4], &[9, 5]] {
        assert_eq!(client.send_to(text, &path).unwrap(), text.len());
    }
    let mut buf = [0; 16];
    assert_eq!(server.recv(&mut buf).unwrap(), 2);
    assert_eq!(buf[..2], [2, 3]);
    assert_eq!(server.recv(&mut buf).unwrap(), 2);
    assert_eq!(buf[..2], [9, 5]);
    // Streams have no packets.
    let (mut one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    always(other.as_raw_fd(), 0);
    one.write_all(b"text").unwrap();
    let mut buf = [0; 4];
    other.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"text");
}

fn filters_are_locked_and_removed() {
    let socket = udp();
    let fd = socket.as_raw_fd();
    unsafe {
        fails!(set_int(fd, SO_DETACH_FILTER, 0), ENOENT);
        always(fd, 7);
        always(fd, 8);
        ok(set_int(fd, SO_DETACH_FILTER, 0));
        always(fd, 8);
        ok(set_int(fd, SO_LOCK_FILTER, 1));
        let mut program = [insn(RETURN, 0, 0, 0)];
        fails!(attach(fd, SO_ATTACH_FILTER, &mut program), EPERM);
        fails!(set_int(fd, SO_DETACH_FILTER, 0), EPERM);
        fails!(set_int(fd, SO_LOCK_FILTER, 0), EPERM);
        ok(set_int(fd, SO_LOCK_FILTER, 1));
        let (mut value, mut len) = (0, size_of::<c_int>() as u32);
        ok(getsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, (&raw mut value).cast(), &mut len));
        assert_eq!((value, len), (1, 4));
    }
}

fn broken_filters_are_refused() {
    let socket = udp();
    let fd = socket.as_raw_fd();
    unsafe {
        fails!(attach(fd, SO_ATTACH_FILTER, &mut []), EINVAL);
        // No end, a jump behind it, a load that there is not.
        fails!(attach(fd, SO_ATTACH_FILTER, &mut [insn(LOAD_LEN, 0, 0, 0)]), EINVAL);
        let mut far = [insn(JUMP_EQUAL, 9, 0, 0), insn(RETURN, 0, 0, 0)];
        fails!(attach(fd, SO_ATTACH_FILTER, &mut far), EINVAL);
        let mut unknown = [insn(0x38, 0, 0, 0), insn(RETURN, 0, 0, 0)];
        fails!(attach(fd, SO_ATTACH_FILTER, &mut unknown), EINVAL);
        let mut fprog = sock_fprog { len: 1, filter: null_mut() };
        let size = size_of::<sock_fprog>();
        fails!(set(fd, SO_ATTACH_FILTER, (&raw const fprog).cast(), size), EINVAL);
        fprog.filter = null_mut::<sock_filter>().wrapping_add(1);
        fails!(set(fd, SO_ATTACH_FILTER, (&raw const fprog).cast(), size), EFAULT);
        fails!(set(fd, SO_ATTACH_FILTER, (&raw const fprog).cast(), size - 8), EINVAL);
    }
}

/// A socket of `kind` that shares `port`, which is chosen if it is 0. It listens if it can.
fn sharing(kind: c_int, port: &mut u16) -> RawFd {
    unsafe {
        let fd = ok(socket(AF_INET, kind | SOCK_CLOEXEC, 0));
        ok(set_int(fd, SO_REUSEPORT, 1));
        let mut addr: sockaddr_in = std::mem::zeroed();
        let mut len = size_of::<sockaddr_in>() as u32;
        addr.sin_family = AF_INET as u16;
        addr.sin_port = port.to_be();
        addr.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
        ok(bind(fd, (&raw const addr).cast(), len));
        ok(getsockname(fd, (&raw mut addr).cast(), &mut len));
        *port = u16::from_be(addr.sin_port);
        if kind == SOCK_STREAM {
            ok(listen(fd, 16));
        }
        fd
    }
}

/// The place of the one that is readable first.
fn readable(fds: &[RawFd]) -> usize {
    let mut all: Vec<_> = fds.iter().map(|&fd| pollfd { fd, events: POLLIN, revents: 0 }).collect();
    ok(unsafe { poll(all.as_mut_ptr(), all.len() as u64, 10_000) });
    all.iter().position(|it| it.revents != 0).expect("one is readable")
}

fn a_program_chooses_among_datagram_sockets() {
    let mut port = 0;
    let mut fds: Vec<RawFd> = (0..3).map(|_| sharing(SOCK_DGRAM, &mut port)).collect();
    // The first byte of what the datagram carries.
    let mut first = [insn(LOAD_BYTE, 0, 0, 0), insn(RETURN_A, 0, 0, 0)];
    ok(attach(fds[1], SO_ATTACH_REUSEPORT_CBPF, &mut first));
    // Who comes later belongs to it.
    fds.push(sharing(SOCK_DGRAM, &mut port));
    let client = udp();
    for choice in [2u8, 0, 3, 1, 3, 0] {
        client.send_to(&[choice], (Ipv4Addr::LOCALHOST, port)).unwrap();
        let at = readable(&fds);
        assert_eq!(at, usize::from(choice));
        assert_eq!(read(fds[at], 4), [choice]);
    }
    // A socket that there is not: somebody gets it.
    client.send_to(&[200], (Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(read(fds[readable(&fds)], 4), [200]);
    // The program stays when its socket goes.
    unsafe { close(fds.remove(1)) };
    client.send_to(&[0], (Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(readable(&fds), 0);
}

fn a_program_chooses_among_listeners() {
    let mut port = 0;
    let fds: Vec<RawFd> = (0..3).map(|_| sharing(SOCK_STREAM, &mut port)).collect();
    for choice in [1, 2, 0] {
        let mut program = [insn(RETURN, 0, 0, choice)];
        ok(attach(fds[0], SO_ATTACH_REUSEPORT_CBPF, &mut program));
        for _ in 0..4 {
            let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            assert_eq!(readable(&fds), choice as usize);
            let fd = unsafe { accept(fds[choice as usize], null_mut(), null_mut()) };
            unsafe { close(ok(fd)) };
        }
    }
    ok(set_int(fds[2], SO_DETACH_REUSEPORT_BPF, 0));
    unsafe { fails!(set_int(fds[0], SO_DETACH_REUSEPORT_BPF, 0), ENOENT) };
}

fn only_those_that_share_have_one_choose() {
    let socket = udp();
    let mut program = [insn(RETURN, 0, 0, 0)];
    unsafe {
        fails!(attach(socket.as_raw_fd(), SO_ATTACH_REUSEPORT_CBPF, &mut program), EINVAL);
    }
}

fn raw_sockets_hear_the_types_they_want() {
    const ICMP_FILTER: c_int = 1;
    const SOL_RAW: c_int = 255;
    unsafe {
        let fd = ok(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
        // Everything but replies is blocked.
        let blocked: u32 = !1;
        let value: *const c_void = (&raw const blocked).cast();
        ok(setsockopt(fd, SOL_RAW, ICMP_FILTER, value, 4));
        let (mut shown, mut len) = (0u32, 4);
        ok(getsockopt(fd, SOL_RAW, ICMP_FILTER, (&raw mut shown).cast(), &mut len));
        assert_eq!((shown, len), (blocked, 4));
        let mut addr: sockaddr_in = std::mem::zeroed();
        addr.sin_family = AF_INET as u16;
        addr.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
        let size = size_of::<sockaddr_in>() as u32;
        // An echo request: type 8, its checksum, identifier 0x1234.
        let echo = [8u8, 0, 0xe5, 0xcb, 0x12, 0x34, 0, 0];
        ok(sendto(fd, echo.as_ptr().cast(), 8, 0, (&raw const addr).cast(), size));
        let packet = loop {
            let packet = read(fd, 64);
            // Others on this machine may be answered meanwhile.
            if packet[24..26] == [0x12, 0x34] {
                break packet;
            }
        };
        assert_eq!(packet[20], 0, "the reply, not the request");
        let udp = ok(socket(AF_INET, SOCK_RAW, IPPROTO_UDP));
        fails!(setsockopt(udp, SOL_RAW, ICMP_FILTER, value, 4), EOPNOTSUPP);
    }
}
