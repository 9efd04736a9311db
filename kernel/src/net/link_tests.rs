//! Fragments, narrow paths, routers, groups: what happens between IP and the link.

use super::addr::*;
use super::checksum;
use super::filter::Sharing;
use super::ip::{self, protocol};
use super::packet::Packet;
use super::tests::{World, receive, send, state};
use super::udp::{self, Endpoint, Sending};
use crate::errno::Errno;
use crate::net::tcp::{State, TcpOptions};
use crate::sync::WaitQueue;
use alloc::sync::Arc;
use alloc::vec::Vec;

const SECOND: u64 = 1_000_000_000;

fn socket(world: &World, end: usize, addr: &str) -> Arc<Endpoint> {
    let (queue, sharing) = (Arc::new(WaitQueue::new()), Sharing::default());
    let endpoint = Endpoint::new(addr.parse().unwrap(), false, 1 << 20, queue, sharing);
    world.ends[end].0.udp.insert(endpoint.clone());
    endpoint
}

fn addr6(n: u8) -> Ipv6Addr {
    let prefix = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    super::edge::eui64(&prefix, [2, 0, 0, 0, 0, n])
}

#[test]
fn large_datagrams_travel_in_pieces_in_any_order() {
    for to in [IpAddr::from([10, 0, 0, 2]), addr6(2).into()] {
        let mut world = World::new();
        world.pass(SECOND);
        (world.jitter, world.duplicates) = (1_000_000, 20);
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let server = socket(&world, 1, &SocketAddr::new(any, 53).to_string());
        for len in [1472, 1473, 9000, 60_000] {
            let data: Vec<u8> = (0..len).map(|at: usize| (at / 7) as u8).collect();
            let packet = Packet::from_slice(&data).unwrap();
            let from = SocketAddr::new(any, 9);
            udp::send(&world.ends[0].0, from, SocketAddr::new(to, 53), packet, 64, 0).unwrap();
            world.pass(SECOND);
            assert_eq!(server.take().expect("arrives").packet.bytes(), data, "{to} {len}");
            while server.take().is_some() {}
        }
        let how = Sending { ttl: 64, tos: 0, whole: true, echo: false, lite: None };
        let packet = Packet::from_slice(&[0; 2000]).unwrap();
        let sent = udp::send_as(
            &world.ends[0].0,
            SocketAddr::new(any, 9),
            SocketAddr::new(to, 53),
            packet,
            how,
        );
        assert_eq!(sent, Err(Errno::EMSGSIZE));
    }
}

#[test]
fn udp_lite_sums_what_it_is_asked_to() {
    for to in [IpAddr::from([10, 0, 0, 2]), addr6(2).into()] {
        let mut world = World::new();
        world.pass(SECOND);
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let local = SocketAddr::new(any, 53);
        let ordinary = socket(&world, 1, &local.to_string());
        let (queue, sharing) = (Arc::new(WaitQueue::new()), Sharing::default());
        let server = Endpoint::new(local, false, 1 << 20, queue, sharing);
        world.ends[1].0.udplite.insert(server.clone());
        // What arrives if the byte `at` of the payload is damaged on the way.
        let mut sent = |covered: u16, damage: Option<usize>| {
            let packet = Packet::from_slice(b"sixteen bytes...").unwrap();
            let how = Sending { ttl: 9, tos: 0, whole: false, echo: false, lite: Some(covered) };
            let from = SocketAddr::new(any, 9);
            let target = SocketAddr::new(to, 53);
            udp::send_as(&world.ends[0].0, from, target, packet, how).unwrap();
            if let Some(at) = damage {
                let mut out = world.ends[0].1.out.lock();
                let frame = out.back_mut().unwrap().bytes_mut();
                let payload = frame.len() - 16;
                frame[payload + at] ^= 0x40;
            }
            world.pass(SECOND);
            server.take().map(|datagram| datagram.packet.bytes().to_vec())
        };
        let whole = Some(b"sixteen bytes...".to_vec());
        // The neighbour is known from here on.
        assert_eq!(sent(0, None), whole, "{to}");
        assert_eq!(sent(0, Some(15)), None);
        assert_eq!(sent(1, Some(0)).unwrap()[..2], *b"3i", "the header is covered alone");
        assert_eq!(sent(12, Some(4)).unwrap()[4], b'e' ^ 0x40);
        assert_eq!(sent(12, Some(3)), None);
        assert_eq!(sent(24, Some(15)), None);
        assert_eq!(sent(u16::MAX, None), whole);
        server.set_coverage(Some(12));
        assert_eq!((sent(11, None), sent(12, None)), (None, whole.clone()));
        server.set_coverage(Some(0));
        assert_eq!((sent(23, None), sent(24, None)), (None, whole));
        assert!(ordinary.take().is_none(), "ports are not shared with UDP");
    }
}

#[test]
fn overlapping_and_endless_fragments_cost_nothing_for_long() {
    use super::fragment::Fragments;
    let mut fragments = Fragments::default();
    let piece = |id: u16, offset: u16, more: bool, len: usize| {
        let mut packet = Packet::from_slice(&alloc::vec![7; len]).unwrap();
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        ip::prepend(&mut packet, &src, &dst, protocol::UDP, 64, 0);
        let head = &mut packet.bytes_mut()[..20];
        head[4..6].copy_from_slice(&id.to_be_bytes());
        let field = (offset / 8) | (u16::from(more) << 13);
        head[6..8].copy_from_slice(&field.to_be_bytes());
        checksum::fill(0, head, 10);
        packet
    };
    assert!(fragments.input(piece(1, 0, true, 800), 0).is_none());
    assert!(fragments.input(piece(1, 792, true, 800), 0).is_none(), "overlaps");
    assert!(fragments.input(piece(1, 800, false, 8), 0).is_none(), "all of it was dropped");
    assert!(fragments.input(piece(2, 1600, false, 8), 0).is_none());
    assert!(fragments.input(piece(2, 800, true, 800), 0).is_none());
    assert_eq!(fragments.input(piece(2, 0, true, 800), 0).unwrap().len(), 20 + 1608);
    assert!(fragments.input(piece(3, 65528, false, 800), 0).is_none(), "too long");
    for id in 0..5000 {
        assert!(fragments.input(piece(id, 8, true, 1400), u64::from(id)).is_none());
    }
    // Too old.
    assert!(fragments.input(piece(4999, 0, true, 8), 60 * SECOND).is_none());
    assert!(fragments.input(piece(4999, 1408, false, 8), 60 * SECOND).is_none());
}

#[test]
fn a_narrow_path_is_learnt_by_tcp() {
    let mut world = World::new();
    let listener = world.listen(1, "0.0.0.0:80", 5, TcpOptions::default());
    let client = world.connect(0, "10.0.0.2:80", 40000);
    world.settle();
    let server = listener.accept().unwrap();
    assert_eq!(server.lock().mss(), 1460);
    send(&server, &[1; 5000]);
    // A router in between quotes the first packet and says 1,000.
    let frame = world.ends[1].1.out.lock().pop_front().unwrap();
    world.ends[1].1.out.lock().clear();
    let mut quote = alloc::vec![3, 4, 0, 0, 0, 0, 3, 232];
    quote.extend(&frame.bytes()[14..14 + 28]);
    let mut forged = quote.clone();
    // Another sequence number: somebody guesses.
    forged[8 + 24] ^= 0x40;
    for (mut body, mss) in [(forged, 1460), (quote, 960)] {
        checksum::fill(0, &mut body, 2);
        let mut packet = Packet::from_slice(&body).unwrap();
        let (src, dst) = ([10, 0, 0, 254].into(), [10, 0, 0, 2].into());
        ip::prepend(&mut packet, &src, &dst, protocol::ICMP, 64, 0);
        world.ends[1].0.input_ip(packet, false);
        assert_eq!(server.lock().mss(), mss);
    }
    assert!(world.ends[1].1.out.lock().iter().all(|frame| frame.len() <= 1014));
    world.pass(SECOND);
    assert_eq!(receive(&client).len(), 5000);
    assert_eq!(world.ends[1].0.path_mtu(&[10, 0, 0, 1].into()), 1000);
}

#[test]
fn an_absent_neighbour_is_unreachable_after_three_seconds() {
    let mut world = World::new();
    let client = world.connect(0, "10.0.0.9:80", 40000);
    world.pass(4 * SECOND);
    assert_eq!(state(&client), State::Closed);
    assert_eq!(client.lock().take_error(), Some(Errno::EHOSTUNREACH));
}

/// A router advertisement from end 1 for all of end 0.
fn advertise(world: &mut World, lifetime: u16, flags: u8, options: &[u8]) {
    let mut body = alloc::vec![134, 0, 0, 0, 64, flags];
    body.extend(lifetime.to_be_bytes());
    body.extend([0; 8]);
    body.extend(options);
    let (src, dst) = (addr6(2).into(), IpAddr::from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)));
    let sum = checksum::pseudo_header(&src, &dst, protocol::ICMPV6, body.len());
    checksum::fill(sum, &mut body, 2);
    let mut packet = Packet::from_slice(&body).unwrap();
    ip::prepend(&mut packet, &src, &dst, protocol::ICMPV6, 255, 0);
    world.ends[0].0.input_ip(packet, false);
}

fn prefix_option(valid: u32) -> Vec<u8> {
    let mut option = alloc::vec![3, 4, 64, 0xc0];
    option.extend(valid.to_be_bytes());
    option.extend(valid.to_be_bytes());
    option.extend([0; 4]);
    option.extend(Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 0).octets());
    option
}

#[test]
fn routers_lend_addresses_for_a_time() {
    let mut world = World::new();
    let stack = world.ends[0].0.clone();
    let own = super::edge::eui64(&Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 0), [2, 0, 0, 0, 0, 1]);
    let mut options = prefix_option(10_000);
    options.extend([25, 3, 0, 0, 0, 0, 0, 60]);
    options.extend(Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 53).octets());
    advertise(&mut world, 1800, 0, &options);
    let config = stack.config();
    assert!(config.addresses.iter().any(|cidr| cidr.addr == own));
    assert_eq!(config.gateway6, Some(addr6(2)));
    assert_eq!(config.dns, [IpAddr::from(Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 53))]);
    // Nobody can take it away at once.
    advertise(&mut world, 1800, 0, &prefix_option(0));
    world.pass(1900 * SECOND);
    let config = stack.config();
    assert_eq!(config.gateway6, None, "its lifetime is over");
    assert!(config.addresses.iter().any(|cidr| cidr.addr == own));
    world.pass(6000 * SECOND);
    assert!(!stack.config().addresses.iter().any(|cidr| cidr.addr == own));
}

#[test]
fn an_address_that_somebody_has_is_given_up() {
    let world = World::new();
    let stack = world.ends[0].0.clone();
    let own = addr6(1);
    let object = |world: &World| {
        let mut body = alloc::vec![136, 0, 0, 0, 0x20, 0, 0, 0];
        body.extend(own.octets());
        let all = IpAddr::from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        let sum = checksum::pseudo_header(&own.into(), &all, protocol::ICMPV6, body.len());
        checksum::fill(sum, &mut body, 2);
        let mut packet = Packet::from_slice(&body).unwrap();
        ip::prepend(&mut packet, &own.into(), &all, protocol::ICMPV6, 255, 0);
        world.ends[0].0.input_ip(packet, false);
    };
    object(&world);
    assert!(!stack.is_local(&own.into()));
    // Later it is an attack.
    let mut world = World::new();
    world.pass(5 * SECOND);
    object(&world);
    assert!(world.ends[0].0.is_local(&own.into()));
}

#[test]
fn stateless_dhcp_brings_resolvers_and_domains() {
    let mut world = World::new();
    let server = socket(&world, 1, "[::]:547");
    world.ends[1].0.configure(|config| {
        config.groups.push(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2).into());
    });
    advertise(&mut world, 1800, 0x40, &[]);
    world.pass(SECOND);
    let request = server.take().expect("asked");
    let bytes = request.packet.bytes();
    assert_eq!(bytes[0], 11);
    let mut reply = bytes[..4].to_vec();
    reply[0] = 7;
    reply.extend([0, 23, 0, 16]);
    reply.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 53).octets());
    reply.extend(b"\0\x18\0\x0d\x07example\x03org\0");
    let packet = Packet::from_slice(&reply).unwrap();
    let from = "[::]:547".parse().unwrap();
    udp::send(&world.ends[1].0, from, request.from, packet, 64, 0).unwrap();
    world.pass(SECOND);
    let config = world.ends[0].0.config();
    assert_eq!(config.dns, ["fd00::35".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.search, ["example.org"]);
}

#[test]
fn members_of_a_group_hear_it_and_are_reported() {
    let mut world = World::new();
    world.pass(SECOND);
    let group: IpAddr = [239, 1, 2, 3].into();
    let members = [socket(&world, 1, "0.0.0.0:5000"), socket(&world, 1, "0.0.0.0:5000")];
    let here = socket(&world, 0, "0.0.0.0:5000");
    let say = |world: &mut World, echo: bool| {
        let packet = Packet::from_slice(b"hello").unwrap();
        let how = Sending { ttl: 1, tos: 0, whole: false, echo, lite: None };
        let from = "0.0.0.0:9".parse().unwrap();
        udp::send_as(&world.ends[0].0, from, SocketAddr::new(group, 5000), packet, how).unwrap();
        world.settle();
    };
    say(&mut world, true);
    assert!(members[0].take().is_none(), "nobody has joined");
    for (stack, _) in &world.ends {
        stack.configure(|config| config.groups.push(group));
    }
    super::groups::changed(&world.ends[1].0, group, true);
    let report = world.ends[1].1.out.lock().pop_back().unwrap();
    let bytes = report.bytes();
    assert_eq!(bytes[..6], [1, 0, 0x5e, 0, 0, 22]);
    assert_eq!((bytes[14], bytes[23], bytes[38]), (0x46, 2, 0x22));
    assert_eq!(bytes[46..54], [4, 0, 0, 0, 239, 1, 2, 3]);
    assert!(checksum::verify(0, &bytes[14..38]) && checksum::verify(0, &bytes[38..54]));
    say(&mut world, true);
    for member in members.iter().chain([&here]) {
        assert_eq!(member.take().expect("hears").packet.bytes(), b"hello");
    }
    say(&mut world, false);
    assert!(here.take().is_none() && members[1].take().is_some());
}
