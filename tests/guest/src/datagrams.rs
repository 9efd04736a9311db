//! What comes with datagrams besides their bytes: ancillary data both ways, errors, segmentation.

use crate::harness::{ok, read, write};
use libc::*;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd};

cases![
    one_datagram_is_sent_otherwise,
    a_dual_socket_is_told_by_both_levels,
    the_source_is_chosen_among_our_addresses,
    failures_are_queued,
    a_long_message_is_cut_into_datagrams,
    corked_parts_become_one_datagram,
    memberships_are_not_handed_on,
    udp_lite_is_a_protocol_of_its_own,
    tcp_tells_what_is_left,
    fast_open_without_a_cookie,
];

const UDP_SEGMENT: c_int = 103;
const MCAST_JOIN_GROUP: c_int = 42;
const MCAST_LEAVE_GROUP: c_int = 45;
const TCP_INQ: c_int = 36;
const TCP_FASTOPEN_CONNECT: c_int = 30;

/// A control message: level, type, data.
type Message = (c_int, c_int, Vec<u8>);

fn int(value: i32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

fn set(socket: &impl AsRawFd, level: c_int, name: c_int, value: i32) {
    let at = (&raw const value).cast();
    ok(unsafe { setsockopt(socket.as_raw_fd(), level, name, at, 4) });
}

/// sendmsg(2) with control messages, to the connected peer; -1 with errno if it fails.
fn send(socket: &impl AsRawFd, bytes: &[u8], messages: &[Message]) -> isize {
    let mut control = Vec::new();
    for (level, kind, data) in messages {
        control.extend((16 + data.len()).to_ne_bytes());
        control.extend(level.to_ne_bytes());
        control.extend(kind.to_ne_bytes());
        control.extend(data);
        control.resize(control.len().next_multiple_of(8), 0);
    }
    unsafe {
        let mut part = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut header: msghdr = zeroed();
        (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), control.len());
        sendmsg(socket.as_raw_fd(), &header, 0)
    }
}

/// recvmsg(2): data, control messages, flags, and the port of the sender's address.
fn receive(socket: &impl AsRawFd, flags: c_int) -> Option<(Vec<u8>, Vec<Message>, c_int, u16)> {
    let (mut bytes, mut control) = (vec![0u8; 4096], [0u64; 64]);
    unsafe {
        let mut name: sockaddr_in6 = zeroed();
        let mut part = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut header: msghdr = zeroed();
        (header.msg_name, header.msg_namelen) = ((&raw mut name).cast(), 28);
        (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 512);
        let got = recvmsg(socket.as_raw_fd(), &mut header, flags);
        bytes.truncate(usize::try_from(got).ok()?);
        let mut messages = Vec::new();
        let mut at = CMSG_FIRSTHDR(&header);
        while !at.is_null() {
            let len = (*at).cmsg_len as usize - CMSG_LEN(0) as usize;
            let data = std::slice::from_raw_parts(CMSG_DATA(at), len).to_vec();
            messages.push(((*at).cmsg_level, (*at).cmsg_type, data));
            at = CMSG_NXTHDR(&header, at);
        }
        Some((bytes, messages, header.msg_flags, u16::from_be(name.sin6_port)))
    }
}

fn pair(addr: &str) -> (UdpSocket, UdpSocket) {
    let [one, other] = [addr; 2].map(|addr| UdpSocket::bind(addr).unwrap());
    one.connect(other.local_addr().unwrap()).unwrap();
    (one, other)
}

fn one_datagram_is_sent_otherwise() {
    let (one, other) = pair("127.0.0.1:0");
    set(&other, IPPROTO_IP, IP_RECVTTL, 1);
    set(&other, IPPROTO_IP, IP_RECVTOS, 1);
    // All bits are the program's, those of ECN as well.
    set(&one, IPPROTO_IP, IP_TOS, 2);
    let got = |one: &UdpSocket, wishes: &[Message]| {
        assert_eq!(send(one, b"x", wishes), 1);
        receive(&other, 0).unwrap().1
    };
    let usual = [(IPPROTO_IP, IP_TTL, int(64)), (IPPROTO_IP, IP_TOS, vec![2])];
    assert_eq!(got(&one, &[]), usual);
    let wishes = [(IPPROTO_IP, IP_TTL, int(9)), (IPPROTO_IP, IP_TOS, int(0xb9))];
    let told = [(IPPROTO_IP, IP_TTL, int(9)), (IPPROTO_IP, IP_TOS, vec![0xb9])];
    assert_eq!(got(&one, &wishes), told);
    assert_eq!(got(&one, &[]), usual);
    unsafe {
        fails!(send(&one, b"x", &[(IPPROTO_IP, IP_TTL, int(0))]), EINVAL);
        fails!(send(&one, b"x", &[(IPPROTO_IP, IP_TOS, int(256))]), EINVAL);
        fails!(send(&one, b"x", &[(IPPROTO_IP, 250, int(0))]), EINVAL);
    }
    let (one, other) = pair("[::1]:0");
    set(&other, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
    set(&other, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    let wishes = [(IPPROTO_IPV6, IPV6_HOPLIMIT, int(7)), (IPPROTO_IPV6, IPV6_TCLASS, int(3))];
    assert_eq!(send(&one, b"x", &wishes), 1);
    let mut told = receive(&other, 0).unwrap().1;
    told.sort();
    let mut wishes = wishes.to_vec();
    wishes.sort();
    assert_eq!(told, wishes);
}

fn a_dual_socket_is_told_by_both_levels() {
    let server = UdpSocket::bind("[::]:0").unwrap();
    set(&server, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    set(&server, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    client.connect(("127.0.0.1", port)).unwrap();
    client.send(b"x").unwrap();
    // Of IPv4 datagrams the address is told, as a mapped one, and nothing else.
    let (_, messages, ..) = receive(&server, 0).unwrap();
    let [(IPPROTO_IPV6, IPV6_PKTINFO, info)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(info[..16], std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
    set(&server, IPPROTO_IP, IP_PKTINFO, 1);
    set(&server, IPPROTO_IP, IP_RECVTOS, 1);
    client.send(b"x").unwrap();
    let (_, messages, ..) = receive(&server, 0).unwrap();
    let kinds: Vec<_> = messages.iter().map(|(level, kind, _)| (*level, *kind)).collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    for kind in [(IPPROTO_IPV6, IPV6_PKTINFO), (IPPROTO_IP, IP_PKTINFO), (IPPROTO_IP, IP_TOS)] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}

fn the_source_is_chosen_among_our_addresses() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("0.0.0.0:0").unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    let info = |octets: [u8; 4]| {
        let data = [[0; 4], octets, [0; 4]].concat();
        [(IPPROTO_IP, IP_PKTINFO, data)]
    };
    assert_eq!(send(&client, b"x", &info([127, 0, 0, 2])), 1);
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.2");
    unsafe { fails!(send(&client, b"x", &info([192, 0, 2, 77])), ENETUNREACH) };
    unsafe { fails!(send(&client, b"x", &[(IPPROTO_IP, IP_PKTINFO, vec![0; 8])]), EINVAL) };
}

fn failures_are_queued() {
    // A port where nobody listens.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ready = |events: c_short| {
        let mut poll = pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
        ok(unsafe { libc::poll(&mut poll, 1, 60_000) });
        poll.revents
    };
    assert!(receive(&socket, MSG_ERRQUEUE).is_none());
    // Who isn't connected hears nothing, unless it asks. Another socket, for news of what it sends could
    // come after this one has asked.
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    deaf.send_to(b"lost", nobody).unwrap();
    set(&socket, IPPROTO_IP, IP_RECVERR, 1);
    socket.send_to(b"found", nobody).unwrap();
    assert_eq!(ready(0) & POLLERR, POLLERR);
    let (bytes, messages, flags, port) = receive(&socket, MSG_ERRQUEUE).unwrap();
    assert_eq!(
        (&bytes[..], port, flags & MSG_ERRQUEUE),
        (&b"found"[..], nobody.port(), MSG_ERRQUEUE)
    );
    let [(IPPROTO_IP, IP_RECVERR, data)] = &messages[..] else { panic!("{messages:?}") };
    // struct sock_extended_err, and who told.
    let want = [ECONNREFUSED as u8, 0, 0, 0, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(data[..16], want);
    assert_eq!(data[16..24], [AF_INET as u8, 0, 0, 0, 127, 0, 0, 1]);
    assert!(receive(&deaf, MSG_ERRQUEUE).is_none());
    let mut poll = pollfd { fd: deaf.as_raw_fd(), events: 0, revents: 0 };
    assert_eq!(ok(unsafe { libc::poll(&mut poll, 1, 0) }), 0);
    // Reading the queue took the pending error as well.
    assert!(receive(&socket, MSG_ERRQUEUE).is_none());
    assert_eq!(ready(POLLOUT) & POLLERR, 0);
    // A failing call and the queue tell of the same.
    socket.connect(nobody).unwrap();
    socket.send(b"again").unwrap();
    assert_eq!(ready(0) & POLLERR, POLLERR);
    assert_eq!(socket.send(b"not sent").unwrap_err().raw_os_error(), Some(ECONNREFUSED));
    assert_eq!(ready(0) & POLLERR, POLLERR);
    assert_eq!(receive(&socket, MSG_ERRQUEUE).unwrap().0, b"again");
    // Turned off, what waits is forgotten.
    socket.send(b"forgotten").unwrap();
    assert_eq!(ready(0) & POLLERR, POLLERR);
    set(&socket, IPPROTO_IP, IP_RECVERR, 0);
    assert!(receive(&socket, MSG_ERRQUEUE).is_none());
}

fn a_long_message_is_cut_into_datagrams() {
    let (one, other) = pair("127.0.0.1:0");
    let sizes = || {
        let mut sizes = Vec::new();
        while let Some((bytes, ..)) = receive(&other, MSG_DONTWAIT) {
            sizes.push(bytes.len());
        }
        sizes
    };
    let message = vec![7u8; 1000];
    assert_eq!(
        send(&one, &message, &[(SOL_UDP, UDP_SEGMENT, 300u16.to_ne_bytes().to_vec())]),
        1000
    );
    assert_eq!(sizes(), [300, 300, 300, 100]);
    set(&one, SOL_UDP, UDP_SEGMENT, 600);
    assert_eq!(send(&one, &message, &[]), 1000);
    assert_eq!(send(&one, &message[..600], &[]), 600);
    assert_eq!(sizes(), [600, 400, 600]);
    unsafe { fails!(send(&one, &message, &[(SOL_UDP, UDP_SEGMENT, int(1))]), EINVAL) };
}

fn udp_lite_is_a_protocol_of_its_own() {
    const UDPLITE: c_int = 136;
    const SEND_COVERAGE: c_int = 10;
    const RECEIVE_COVERAGE: c_int = 11;
    let get = |socket: &UdpSocket, level, name| unsafe {
        let (mut value, mut len) = (-1i32, 4);
        ok(getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len));
        value
    };
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        // Ports are its own.
        let ordinary = UdpSocket::bind(addr).unwrap();
        let addr = ordinary.local_addr().unwrap();
        let open = || unsafe {
            let family = if addr.is_ipv4() { AF_INET } else { AF_INET6 };
            UdpSocket::from_raw_fd(ok(socket(family, SOCK_DGRAM, UDPLITE)))
        };
        let (server, client) = (open(), open());
        unsafe {
            let mut name: sockaddr_in6 = zeroed();
            let mut len = size_of::<sockaddr_in6>() as socklen_t;
            ok(getsockname(ordinary.as_raw_fd(), (&raw mut name).cast(), &mut len));
            ok(bind(server.as_raw_fd(), (&raw const name).cast(), len));
        }
        client.connect(addr).unwrap();
        assert_eq!(get(&server, SOL_SOCKET, SO_PROTOCOL), UDPLITE);
        for (given, kept) in [(20, 20), (0, 0), (3, 8), (-7, 8), (70_000, 65_535), (12, 12)] {
            set(&client, UDPLITE, SEND_COVERAGE, given);
            assert_eq!(get(&client, IPPROTO_UDP, SEND_COVERAGE), kept);
        }
        assert_eq!(client.send(b"partly covered").unwrap(), 14);
        let mut bytes = [0; 20];
        let (len, from) = server.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..len], from), (&b"partly covered"[..], client.local_addr().unwrap()));
        server.send_to(b"back", from).unwrap();
        assert_eq!(client.recv(&mut bytes).unwrap(), 4);
        // Too little is covered; then enough; then, where all must be, a part and all.
        for (least, too_little, enough) in [(16, 12, 16), (0, 17, 0)] {
            set(&server, UDPLITE, RECEIVE_COVERAGE, least);
            for (covered, text) in [(too_little, b"too little"), (enough, b"enough now")] {
                set(&client, UDPLITE, SEND_COVERAGE, covered);
                client.send(text).unwrap();
            }
            let len = server.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], b"enough now");
        }
        assert_eq!(get(&ordinary, UDPLITE, RECEIVE_COVERAGE), 0);
        let eight = 8i32;
        let at = (&raw const eight).cast();
        let plain = ordinary.as_raw_fd();
        unsafe { fails!(setsockopt(plain, UDPLITE, RECEIVE_COVERAGE, at, 4), ENOPROTOOPT) };
        ordinary.set_nonblocking(true).unwrap();
        assert!(ordinary.recv(&mut bytes).is_err());
    }
}

fn tcp_tells_what_is_left() {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    set(&server, IPPROTO_TCP, TCP_INQ, 1);
    client.write_all(&[1; 5000]).unwrap();
    let mut byte = [0u8; 5000];
    // Until all of it is there.
    let peek = MSG_PEEK | MSG_WAITALL;
    assert_eq!(unsafe { recv(server.as_raw_fd(), byte.as_mut_ptr().cast(), 5000, peek) }, 5000);
    let (bytes, messages, ..) = receive(&server, 0).unwrap();
    assert_eq!((bytes.len(), messages), (4096, vec![(IPPROTO_TCP, TCP_INQ, int(904))]));
    drop(client);
    let mut poll = pollfd { fd: server.as_raw_fd(), events: POLLRDHUP, revents: 0 };
    ok(unsafe { libc::poll(&mut poll, 1, 60_000) });
    // The end of the stream is something to read.
    let (bytes, messages, ..) = receive(&server, 0).unwrap();
    assert_eq!((bytes.len(), messages), (904, vec![(IPPROTO_TCP, TCP_INQ, int(1))]));
    let two = 2i32;
    let at = (&raw const two).cast();
    unsafe { fails!(setsockopt(server.as_raw_fd(), IPPROTO_TCP, TCP_INQ, at, 4), EINVAL) };
}

fn fast_open_without_a_cookie() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    unsafe {
        let mut to: sockaddr_in = zeroed();
        (to.sin_family, to.sin_port) = (AF_INET as u16, port.to_be());
        to.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
        let (addr, len) = ((&raw const to).cast::<sockaddr>(), 16);
        let by_send = ok(socket(AF_INET, SOCK_STREAM, 0));
        let sent = sendto(by_send, b"one".as_ptr().cast(), 3, MSG_FASTOPEN, addr, len);
        assert_eq!(ok(sent), 3);
        let by_option = ok(socket(AF_INET, SOCK_STREAM, 0));
        set(&std::os::fd::BorrowedFd::borrow_raw(by_option), IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
        ok(connect(by_option, addr, len));
        write(by_option, b"two");
        for text in [b"one", b"two"] {
            let (server, _) = listener.accept().unwrap();
            assert_eq!(read(server.as_raw_fd(), 9), text);
        }
    }
}

fn corked_parts_become_one_datagram() {
    const UDP_CORK: c_int = 1;
    let (one, other) = pair("127.0.0.1:0");
    let part = |bytes: &[u8], flags| unsafe {
        ok(libc::send(one.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)) as usize
    };
    let none = || receive(&other, MSG_DONTWAIT).is_none();
    assert_eq!(part(b"first ", MSG_MORE), 6);
    assert_eq!(part(b"second ", MSG_MORE), 7);
    assert!(none());
    assert_eq!(part(b"third", 0), 5);
    assert_eq!(receive(&other, 0).unwrap().0, b"first second third");
    // The option holds all back until it is taken off.
    set(&one, IPPROTO_UDP, UDP_CORK, 1);
    part(b"a", 0);
    part(b"", 0);
    part(b"b", 0);
    assert!(none());
    set(&one, IPPROTO_UDP, UDP_CORK, 0);
    assert_eq!(receive(&other, 0).unwrap().0, b"ab");
    // An empty call ends it as well.
    part(b"c", MSG_MORE);
    part(b"", 0);
    assert_eq!(receive(&other, 0).unwrap().0, b"c");
    // What gets too long is lost altogether.
    part(&[1; 40000], MSG_MORE);
    let (fd, more) = (one.as_raw_fd(), [2u8; 40000]);
    unsafe { fails!(libc::send(fd, more.as_ptr().cast(), more.len(), MSG_MORE), EMSGSIZE) };
    part(b"whole", 0);
    assert_eq!(receive(&other, 0).unwrap().0, b"whole");
    assert!(none());
}

fn memberships_are_not_handed_on() {
    unsafe {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // struct group_req: the loopback interface, and an address.
        let mut group = [0u32; 34];
        group[0] = 1;
        group[2] = u32::from(AF_INET as u16);
        group[3] = u32::from_ne_bytes([224, 0, 0, 77]);
        let membership = |fd: i32, name| {
            let len = size_of_val(&group) as socklen_t;
            setsockopt(fd, IPPROTO_IP, name, (&raw const group).cast(), len)
        };
        ok(membership(listener.as_raw_fd(), MCAST_JOIN_GROUP));
        // The older way isn't for streams.
        fails!(membership(listener.as_raw_fd(), IP_ADD_MEMBERSHIP), EPROTO);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        fails!(membership(accepted.as_raw_fd(), MCAST_LEAVE_GROUP), EADDRNOTAVAIL);
        drop(accepted);
        ok(membership(listener.as_raw_fd(), MCAST_LEAVE_GROUP));
    }
}
