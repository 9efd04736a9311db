use super::tcp::TcpSocket;
use super::udp::UdpSocket;
use super::*;
use crate::net::addr::{SocketAddr, UnixName};
use crate::net::netlink::NetlinkSocket;
use crate::net::stack::Stack;
use crate::net::unix::UnixSocket;
use linux_raw_sys::net::*;

fn stack() -> Arc<Stack> {
    let stack = Stack::new(5);
    stack.set_clock(1_000_000_000);
    stack
}

fn inet(text: &str) -> Address {
    Address::Inet(text.parse::<SocketAddr>().unwrap())
}

fn settle(stack: &Arc<Stack>) {
    while stack.run_loopback(1000) {}
}

fn send(socket: &dyn Socket, bytes: &[u8]) -> Result<usize> {
    send_with(socket, None, bytes, Vec::new())
}

fn send_with(
    socket: &dyn Socket,
    to: Option<Address>,
    bytes: &[u8],
    control: Vec<Control>,
) -> Result<usize> {
    let mut src = IoSrc::kernel(bytes);
    let mut message = Outgoing { to, src: &mut src, flags: 0, control, nonblock: true };
    socket.send(&Caller::kernel(), &mut message)
}

fn receive(socket: &dyn Socket, len: usize, flags: u32) -> Result<(Vec<u8>, Vec<Control>, u32)> {
    let mut buf = alloc::vec![0; len];
    let mut dst = IoDst::kernel(&mut buf);
    let mut message = Incoming::new(&mut dst, flags, true);
    let n = socket.receive(&mut message)?;
    let (control, out_flags) = (message.control, message.out_flags);
    buf.truncate(n.min(len));
    Ok((buf, control, out_flags))
}

fn events(socket: &dyn Socket) -> Events {
    socket.poll(&mut PollTable::query())
}

fn connected(stack: &Arc<Stack>) -> (Arc<TcpSocket>, Arc<dyn Socket>) {
    let who = Caller::kernel();
    let server = TcpSocket::new(stack, true);
    server.bind(&who, &inet("[::]:80")).unwrap();
    server.listen(&who, 5).unwrap();
    let client = TcpSocket::new(stack, false);
    assert_eq!(client.connect(&who, &inet("127.0.0.1:80"), true), Err(Errno::EINPROGRESS));
    settle(stack);
    assert_eq!(client.connect(&who, &inet("127.0.0.1:80"), true), Ok(()));
    assert_eq!(client.connect(&who, &inet("127.0.0.1:80"), true), Err(Errno::EISCONN));
    assert_eq!(events(&*server), Events::IN | Events::RDNORM);
    let (accepted, peer) = server.accept(true).unwrap();
    assert!(
        matches!(peer, Address::Inet(SocketAddr::V6(v6)) if v6.ip().to_ipv4_mapped().is_some())
    );
    server.close(true);
    (client, accepted)
}

#[test]
fn a_tcp_life_through_the_socket_calls() {
    let stack = stack();
    let (client, server) = connected(&stack);
    assert_eq!(receive(&*server, 10, 0).err(), Some(Errno::EAGAIN));
    assert_eq!(send(&*client, b"hello").unwrap(), 5);
    settle(&stack);
    assert_eq!(events(&*server), Events::IN | Events::RDNORM | Events::OUT | Events::WRNORM);
    assert_eq!(receive(&*server, 10, MSG_PEEK).ok().unwrap().0, b"hello");
    assert_eq!(receive(&*server, 2, 0).ok().unwrap().0, b"he");
    assert_eq!(receive(&*server, 10, 0).ok().unwrap().0, b"llo");
    client.shutdown(Shutdown { read: false, write: true }).unwrap();
    settle(&stack);
    assert!(events(&*server).contains(Events::IN | Events::RDHUP));
    assert_eq!(receive(&*server, 10, 0).ok().unwrap().0, b"");
    assert_eq!(send(&*client, b"x"), Err(Errno::EPIPE));
    assert_eq!(send(&*server, b"late").unwrap(), 4);
    settle(&stack);
    assert_eq!(receive(&*client, 10, 0).ok().unwrap().0, b"late");
    server.close(true);
    settle(&stack);
    assert!(events(&*client).contains(Events::HUP | Events::RDHUP | Events::IN));
    client.close(true);
    settle(&stack);
    // The acknowledgement of the last FIN is delayed.
    stack.set_clock(1_100_000_000);
    stack.run_timers();
    settle(&stack);
    assert_eq!(stack.tcp.connections(), 0);
}

#[test]
fn a_full_send_buffer_announces_room_once_it_drains() {
    let stack = stack();
    let (client, server) = connected(&stack);
    let big = alloc::vec![1u8; 1 << 20];
    let mut sent = 0;
    loop {
        match send(&*client, &big) {
            Ok(n) => sent += n,
            Err(error) => {
                assert_eq!(error, Errno::EAGAIN);
                break;
            }
        }
        settle(&stack);
    }
    assert!(!events(&*client).contains(Events::OUT));
    let mut got = 0;
    let mut now = 1_000_000_000;
    while got < sent {
        got += receive(&*server, 1 << 20, 0).map_or(0, |(bytes, ..)| bytes.len());
        settle(&stack);
        now += 1_000_000;
        stack.set_clock(now);
        stack.run_timers();
    }
    assert!(events(&*client).contains(Events::OUT));
}

#[test]
fn a_socket_may_connect_to_itself() {
    let stack = stack();
    let who = Caller::kernel();
    let socket = TcpSocket::new(&stack, false);
    socket.bind(&who, &inet("127.0.0.1:7777")).unwrap();
    assert_eq!(socket.connect(&who, &inet("127.0.0.1:7777"), true), Err(Errno::EINPROGRESS));
    settle(&stack);
    assert!(events(&*socket).contains(Events::OUT));
    assert_eq!(socket.peer(), Ok(socket.local()));
    assert_eq!(send(&*socket, b"to myself"), Ok(9));
    settle(&stack);
    assert_eq!(receive(&*socket, 100, 0).unwrap().0, b"to myself");
    socket.shutdown(Shutdown { read: false, write: true }).unwrap();
    settle(&stack);
    assert_eq!(receive(&*socket, 100, 0).unwrap().0, b"");
}

#[test]
fn a_refused_connect_reports_by_so_error_and_may_be_tried_again() {
    let stack = stack();
    let who = Caller::kernel();
    let client = TcpSocket::new(&stack, false);
    assert_eq!(events(&*client), Events::OUT | Events::WRNORM | Events::HUP);
    for _ in 0..2 {
        assert_eq!(client.connect(&who, &inet("127.0.0.1:9"), true), Err(Errno::EINPROGRESS));
        settle(&stack);
        assert!(events(&*client).contains(Events::ERR | Events::HUP));
        assert_eq!(client.option(SOL_SOCKET, SO_ERROR).unwrap(), 111i32.to_ne_bytes());
        assert_eq!(client.option(SOL_SOCKET, SO_ERROR).unwrap(), 0i32.to_ne_bytes());
        // connect(2) has to hear of it as well.
        assert_eq!(client.connect(&who, &inet("127.0.0.1:9"), true), Err(Errno::ECONNABORTED));
    }
    assert_eq!(client.peer(), Err(Errno::ENOTCONN));
}

#[test]
fn linger_zero_resets() {
    let stack = stack();
    let (client, server) = connected(&stack);
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    client.set_option(&Caller::kernel(), SOL_SOCKET, SO_LINGER, &linger).unwrap();
    client.close(false);
    settle(&stack);
    assert_eq!(receive(&*server, 1, 0).err(), Some(Errno::ECONNRESET));
    assert_eq!(receive(&*server, 1, 0).ok().unwrap().0, b"");
}

#[test]
fn udp_sockets_exchange_datagrams_and_truncate() {
    let stack = stack();
    let who = Caller::kernel();
    let server = UdpSocket::new(&stack, true, false);
    server.bind(&who, &inet("[::]:53")).unwrap();
    let client = UdpSocket::new(&stack, false, false);
    send_with(&*client, Some(inet("127.0.0.1:53")), b"question", Vec::new()).unwrap();
    settle(&stack);
    let (bytes, _, flags) = receive(&*server, 4, MSG_PEEK).unwrap();
    assert_eq!((bytes.as_slice(), flags), (&b"ques"[..], MSG_TRUNC));
    assert_eq!(receive(&*server, 99, 0).ok().unwrap().0, b"question");
    assert_eq!(send(&*server, b"x"), Err(Errno::EDESTADDRREQ));
}

#[test]
fn unix_streams_carry_bytes_and_descriptors() {
    let (a, b) = UnixSocket::pair(SOCK_STREAM, Ucred { pid: 7, uid: 8, gid: 9 });
    assert_eq!(send(&*a, b"one").unwrap(), 3);
    assert_eq!(send(&*a, b"two").unwrap(), 3);
    assert_eq!(receive(&*b, 4, 0).ok().unwrap().0, b"onet");
    assert_eq!(receive(&*b, 4, 0).ok().unwrap().0, b"wo");
    assert_eq!(receive(&*b, 4, 0).err(), Some(Errno::EAGAIN));

    let (passed, other) = UnixSocket::pair(SOCK_STREAM, Ucred::default());
    let file = SocketFile::open(passed, Ucred::default(), 0);
    send_with(&*a, None, b"fd", alloc::vec![Control::Rights(alloc::vec![file])]).unwrap();
    send(&*a, b"more").unwrap();
    let (bytes, control, _) = receive(&*b, 99, 0).unwrap();
    assert_eq!(bytes, b"fd", "data with descriptors ends a read");
    let [Control::Rights(files)] = control.as_slice() else { panic!() };
    of(&files[0]).unwrap();
    drop(control);
    assert!(events(&*other).contains(Events::HUP), "the last reference closed it");

    assert_eq!(b.option(SOL_SOCKET, SO_PEERCRED).unwrap()[..4], 7u32.to_ne_bytes());
    a.close(true);
    assert_eq!(receive(&*b, 99, 0).ok().unwrap().0, b"more");
    assert_eq!(receive(&*b, 99, 0).ok().unwrap().0, b"");
    assert_eq!(send(&*b, b"x"), Err(Errno::EPIPE));
}

#[test]
fn unix_listeners_by_abstract_name() {
    let who = Caller::kernel();
    let name = Address::Unix(UnixName::Abstract(b"listener-test".to_vec()));
    let server = UnixSocket::new(SOCK_STREAM);
    let client = UnixSocket::new(SOCK_STREAM);
    assert_eq!(client.connect(&who, &name, true), Err(Errno::ECONNREFUSED));
    server.bind(&who, &name).unwrap();
    assert_eq!(UnixSocket::new(SOCK_STREAM).bind(&who, &name), Err(Errno::EADDRINUSE));
    server.listen(&who, 0).unwrap();
    client.connect(&who, &name, true).unwrap();
    send(&*client, b"early").unwrap();
    let third = UnixSocket::new(SOCK_STREAM);
    assert_eq!(third.connect(&who, &name, true), Err(Errno::EAGAIN), "the backlog is full");
    let (accepted, peer) = server.accept(true).unwrap();
    assert_eq!(peer, Address::Unix(UnixName::Unnamed));
    assert_eq!(accepted.local(), name);
    assert_eq!(receive(&*accepted, 9, 0).ok().unwrap().0, b"early");
    third.connect(&who, &name, true).unwrap();
    server.close(true);
    assert!(events(&*third).contains(Events::HUP), "nobody accepted it");
    assert_eq!(UnixSocket::new(SOCK_STREAM).bind(&who, &name), Ok(()));
}

#[test]
fn unix_datagrams_keep_their_borders() {
    let (a, b) = UnixSocket::pair(SOCK_DGRAM, Ucred::default());
    send(&*a, b"first").unwrap();
    send(&*a, b"").unwrap();
    send(&*a, b"second").unwrap();
    assert_eq!(receive(&*b, 3, 0).ok().unwrap().0, b"fir");
    assert_eq!(receive(&*b, 99, 0).ok().unwrap().0, b"");
    assert_eq!(receive(&*b, 99, 0).ok().unwrap().0, b"second");
    while send(&*a, &[0; 1000]).is_ok() {}
    assert_eq!(send(&*a, &[0; 1000]), Err(Errno::EAGAIN));
    assert!(!events(&*a).contains(Events::OUT));
    receive(&*b, 9, 0).unwrap();
}

#[test]
fn netlink_dumps_what_getifaddrs_reads() {
    let socket = NetlinkSocket::new(&stack(), 0);
    let mut request = Vec::new();
    request.extend(20u32.to_ne_bytes());
    request.extend(22u16.to_ne_bytes());
    request.extend(0x301u16.to_ne_bytes());
    request.extend(77u32.to_ne_bytes());
    request.extend([0; 8]);
    send(&*socket, &request).unwrap();
    let (bytes, ..) = receive(&*socket, 9000, 0).unwrap();
    let mut rest = bytes.as_slice();
    let mut kinds = Vec::new();
    while let Some(head) = rest.first_chunk::<16>() {
        let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        kinds.push(u16::from_ne_bytes([head[4], head[5]]));
        assert_eq!(head[8..12], 77u32.to_ne_bytes());
        rest = &rest[len.next_multiple_of(4)..];
    }
    // 127.0.0.1, ::1, done.
    assert_eq!(kinds, [20, 20, 3]);
    // Nobody may change anything.
    request[4..6].copy_from_slice(&20u16.to_ne_bytes());
    send(&*socket, &request).unwrap();
    let (bytes, ..) = receive(&*socket, 9000, 0).unwrap();
    assert_eq!(bytes[16..20], (-1i32).to_ne_bytes());
}
