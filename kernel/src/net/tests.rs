use super::addr::*;
use super::filter::Sharing;
use super::packet::Packet;
use super::stack::*;
use super::tcp::{Conn, Listener, State, TcpOptions};
use crate::errno::Errno;
use crate::event::Events;
use crate::io::{IoDst, IoSrc};
use crate::sync::{SpinLock, WaitQueue};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

const SECOND: u64 = 1_000_000_000;

/// One end of a cable.
pub struct Cable {
    mac: [u8; 6],
    pub out: SpinLock<VecDeque<Packet>>,
}

impl NetDevice for Cable {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
    fn transmit(&self, frame: Packet) {
        assert!(frame.len() <= 1514);
        self.out.lock().push_back(frame);
    }
    fn queues(&self) -> usize {
        1
    }
    fn kick(&self) {}
    fn poll(&self, _stack: &Arc<Stack>) -> bool {
        false
    }
}

/// Two stacks, a cable between them, and a clock.
pub struct World {
    pub ends: [(Arc<Stack>, Arc<Cable>); 2],
    pub now: u64,
    /// Of a hundred frames so many are lost, duplicated, or damaged.
    pub loss: u64,
    pub duplicates: u64,
    pub damage: u64,
    /// Nanoseconds one way, and what may come on top by chance, which changes the order.
    pub delay: u64,
    pub jitter: u64,
    /// Bytes per second of each direction; 0: no limit. A queue of `QUEUE` bytes is in front.
    pub rate: u64,
    random: u64,
    pub carried: usize,
    busy_until: [u64; 2],
    flying: alloc::collections::BTreeMap<(u64, usize), (usize, Packet)>,
}

/// Room in front of a link with a rate.
const QUEUE: u64 = 512 * 1024;

impl World {
    pub fn new() -> World {
        let end = |n: u8| {
            let stack = Stack::new(u64::from(n) + 77);
            let cable =
                Arc::new(Cable { mac: [2, 0, 0, 0, 0, n], out: SpinLock::new(VecDeque::new()) });
            stack.set_clock(SECOND);
            stack.attach(cable.clone());
            let v4 = Cidr { addr: Ipv4Addr::new(10, 0, 0, n).into(), prefix: 24 };
            stack.configure(|config| config.addresses.push(v4));
            super::nd::start(&stack);
            (stack, cable)
        };
        World {
            ends: [end(1), end(2)],
            now: SECOND,
            loss: 0,
            duplicates: 0,
            damage: 0,
            delay: 0,
            jitter: 0,
            rate: 0,
            random: 1,
            carried: 0,
            busy_until: [0; 2],
            flying: Default::default(),
        }
    }

    /// A number below `below`.
    fn chance(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % below.max(1)
    }

    /// Puts a frame on the cable.
    fn fly(&mut self, from: usize, frame: &Packet) {
        self.carried += 1;
        assert!(self.carried < 1_000_000, "a storm");
        if self.chance(100) < self.loss {
            return;
        }
        let mut copy = Packet::from_slice(frame.bytes()).unwrap();
        if self.chance(100) < self.damage {
            let at = self.chance(copy.len() as u64) as usize;
            copy.bytes_mut()[at] ^= 1 << self.chance(8);
        }
        let mut at = self.now + self.delay + self.chance(self.jitter);
        if self.rate > 0 {
            let start = self.busy_until[from].max(self.now);
            if (start - self.now) * self.rate / SECOND > QUEUE {
                return;
            }
            self.busy_until[from] = start + frame.len() as u64 * SECOND / self.rate;
            at += self.busy_until[from] - self.now;
        }
        self.flying.insert((at, self.carried), (1 - from, copy));
    }

    /// Carries frames until both sides are quiet, as far as no time passes.
    pub fn settle(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..2 {
                moved |= self.ends[from].0.run_loopback(usize::MAX);
                while let Some(frame) = { self.ends[from].1.out.lock().pop_front() } {
                    moved = true;
                    self.fly(from, &frame);
                    if self.chance(100) < self.duplicates {
                        self.fly(from, &frame);
                    }
                }
            }
            while let Some(first) = self.flying.first_entry()
                && first.key().0 <= self.now
            {
                moved = true;
                let (to, frame) = first.remove();
                self.ends[to].0.input_frame(frame);
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets time pass, with everything that happens in it.
    pub fn pass(&mut self, ns: u64) {
        let end = self.now + ns;
        loop {
            self.settle();
            let next = self.ends.iter().filter_map(|(stack, _)| stack.next_timeout()).min();
            let landing = self.flying.first_key_value().map(|(&(at, _), _)| at);
            let next = next.unwrap_or(u64::MAX).min(landing.unwrap_or(u64::MAX));
            self.now = next.max(self.now).min(end);
            for (stack, _) in &self.ends {
                stack.set_clock(self.now);
                stack.run_timers();
            }
            if self.now == end {
                self.settle();
                return;
            }
        }
    }

    pub fn listen(
        &self,
        end: usize,
        addr: &str,
        backlog: usize,
        options: TcpOptions,
    ) -> Arc<Listener> {
        let stack = &self.ends[end].0;
        let (queue, sharing) = (Arc::new(WaitQueue::new()), Sharing::default());
        let addr = addr.parse().unwrap();
        let listener = Listener::new(stack, addr, true, backlog, queue, options, sharing);
        stack.tcp.listen(listener.clone());
        listener
    }

    pub fn connect(&self, end: usize, to: &str, port: u16) -> Arc<Conn> {
        let stack = &self.ends[end].0;
        let to: SocketAddr = to.parse().unwrap();
        let route = stack.route(&to.ip()).unwrap();
        let local = SocketAddr::new(stack.source(&to.ip()).unwrap(), port);
        let queue = Arc::new(WaitQueue::new());
        let options = TcpOptions::default();
        let conn = Conn::connect(stack, local, to, route, queue, options);
        stack.tcp.insert(&conn).unwrap();
        conn.push(conn.lock());
        conn
    }
}

pub fn send(conn: &Arc<Conn>, bytes: &[u8]) -> usize {
    let mut inner = conn.lock();
    let (n, _) = inner.write(&mut IoSrc::kernel(bytes));
    conn.push(inner);
    n
}

pub fn receive(conn: &Arc<Conn>) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let mut inner = conn.lock();
        let mut buf = [0; 4096];
        let (n, _) = inner.peek(0, &mut IoDst::kernel(&mut buf), false, false);
        if n == 0 {
            conn.after_nothing(inner);
            return out;
        }
        conn.after_read(inner, n, false);
        out.extend(&buf[..n]);
    }
}

pub fn state(conn: &Conn) -> State {
    conn.lock().state()
}

#[test]
fn a_connection_opens_carries_data_and_closes() {
    for to in ["10.0.0.2:80", "[fe80::ff:fe00:2]:80"] {
        let mut world = World::new();
        let listener = world.listen(1, "[::]:80", 5, TcpOptions::default());
        let client = world.connect(0, to, 40000);
        world.settle();
        assert_eq!(state(&client), State::Established, "{to}");
        let server = listener.accept().unwrap();
        send(&client, b"GET / HTTP/1.1\r\n\r\n");
        world.settle();
        assert_eq!(receive(&server), b"GET / HTTP/1.1\r\n\r\n");
        send(&server, b"200 OK");
        world.settle();
        assert_eq!(receive(&client), b"200 OK");
        server.close(false);
        world.pass(SECOND / 10);
        assert!(client.lock().events().contains(Events::RDHUP | Events::IN));
        assert_eq!(state(&client), State::CloseWait);
        client.close(false);
        world.pass(SECOND / 10);
        assert_eq!(world.ends[0].0.tcp.connections(), 0);
        assert_eq!(world.ends[1].0.tcp.connections(), 0);
        assert_eq!(world.ends[1].0.tcp.tombs(), 1, "who closes first waits");
    }
}

#[test]
fn loopback_works_at_every_address() {
    let mut world = World::new();
    let listener = world.listen(0, "[::]:80", 5, TcpOptions::default());
    for (n, to) in ["127.0.0.1:80", "127.1.2.3:80", "[::1]:80", "10.0.0.1:80"].iter().enumerate() {
        let client = world.connect(0, to, 40000 + n as u16);
        world.settle();
        let server = listener.accept().expect(to);
        let big = alloc::vec![7u8; 30000];
        let sent = send(&client, &big);
        let mut got = Vec::new();
        for _ in 0..10 {
            world.pass(SECOND / 10);
            got.extend(receive(&server));
        }
        assert_eq!(got.len(), sent);
    }
}

#[test]
fn nobody_listening_means_refused() {
    let mut world = World::new();
    let client = world.connect(0, "10.0.0.2:81", 40000);
    world.settle();
    assert_eq!(client.lock().take_error(), Some(Errno::ECONNREFUSED));
    assert_eq!(state(&client), State::Closed);
    assert_eq!(world.ends[0].0.tcp.connections(), 0);
}

#[test]
fn an_absent_host_times_out() {
    let mut world = World::new();
    // A neighbour that is known and silent.
    world.connect(0, "10.0.0.2:80", 39999);
    world.settle();
    world.loss = 100;
    let client = world.connect(0, "10.0.0.2:80", 40000);
    world.pass(126 * SECOND);
    assert_eq!(state(&client), State::SynSent);
    world.pass(3 * SECOND);
    assert_eq!(client.lock().take_error(), Some(Errno::ETIMEDOUT));
}

#[test]
fn closing_with_unread_data_resets() {
    let mut world = World::new();
    let listener = world.listen(1, "0.0.0.0:80", 5, TcpOptions::default());
    let client = world.connect(0, "10.0.0.2:80", 40000);
    world.settle();
    let server = listener.accept().unwrap();
    send(&client, b"unread");
    world.settle();
    server.close(false);
    world.settle();
    let mut inner = client.lock();
    assert_eq!(inner.take_error(), Some(Errno::ECONNRESET));
    assert!(inner.events().contains(Events::HUP | Events::RDHUP));
    drop(inner);
    assert_eq!(world.ends[1].0.tcp.tombs(), 0);
}

#[test]
fn the_backlog_limits_what_waits_for_accept() {
    let mut world = World::new();
    let listener = world.listen(1, "0.0.0.0:80", 2, TcpOptions::default());
    let mut clients = Vec::new();
    for n in 0..5 {
        clients.push(world.connect(0, "10.0.0.2:80", 40000 + n));
        world.settle();
    }
    // One more than the backlog, as in Linux.
    let up = clients.iter().filter(|client| state(client) == State::Established).count();
    assert_eq!((up, listener.lengths().0), (3, 3));
    while listener.accept().is_some() {}
    world.pass(4 * SECOND);
    let up = clients.iter().filter(|client| state(client) == State::Established).count();
    assert_eq!(up, 5);
}

#[test]
fn a_syn_flood_costs_bounded_memory_and_honest_clients_get_in() {
    let mut world = World::new();
    let listener = world.listen(1, "0.0.0.0:80", 8, TcpOptions::default());
    let mut packets = Vec::new();
    for n in 0..2000u16 {
        let client = world.connect(0, "10.0.0.2:80", 1000 + n);
        world.ends[0].0.tcp.remove(&client);
        // ARP first.
        if n == 0 {
            world.settle();
        }
        packets.extend(world.ends[0].1.out.lock().drain(..));
    }
    for packet in packets {
        world.ends[1].0.input_frame(packet);
    }
    world.ends[1].1.out.lock().clear();
    assert!(world.ends[1].0.tcp.connections() <= 64);
    let honest = world.connect(0, "10.0.0.2:80", 50000);
    world.settle();
    assert_eq!(state(&honest), State::Established);
    let server = listener.accept().expect("by a cookie");
    send(&honest, b"hello");
    world.settle();
    assert_eq!(receive(&server), b"hello");
    send(&server, &[7; 100_000]);
    world.pass(SECOND);
    assert_eq!(receive(&honest).len(), 100_000);
    world.pass(200 * SECOND);
    assert_eq!(world.ends[1].0.tcp.connections(), 1);
}

#[test]
fn thousands_of_short_connections_leave_nothing_behind() {
    // An unoptimised build takes a millisecond for each.
    let count = if cfg!(debug_assertions) { 5_000 } else { 50_000 };
    let mut world = World::new();
    let listener = world.listen(1, "0.0.0.0:80", 5, TcpOptions::default());
    for n in 0..count {
        let client = world.connect(0, "10.0.0.2:80", 1024 + n as u16);
        world.settle();
        let server = listener.accept().expect("accept");
        send(&client, b"x");
        world.settle();
        assert_eq!(receive(&server), b"x");
        server.close(false);
        world.settle();
        client.close(false);
        world.settle();
    }
    for (stack, _) in &world.ends {
        assert_eq!(stack.tcp.connections(), 0);
        assert!(stack.tcp.tombs() <= 16 * 1024);
    }
    world.pass(100 * SECOND);
    assert_eq!(world.ends[1].0.tcp.tombs(), 0);
    assert!(world.ends[1].0.next_timeout().is_none());
}

#[test]
fn a_new_syn_takes_over_addresses_in_time_wait() {
    let mut world = World::new();
    let listener = world.listen(1, "0.0.0.0:80", 5, TcpOptions::default());
    for _ in 0..3 {
        let client = world.connect(0, "10.0.0.2:80", 40000);
        world.pass(5 * SECOND);
        assert_eq!(state(&client), State::Established);
        listener.accept().unwrap().close(false);
        world.settle();
        client.close(false);
        world.pass(SECOND);
        assert_eq!(world.ends[1].0.tcp.tombs().min(1), 1);
    }
}

#[test]
fn a_dead_peer_is_noticed_by_keep_alive() {
    let mut world = World::new();
    let options = TcpOptions {
        keep_alive: true,
        keep_idle: 10,
        keep_interval: 5,
        keep_count: 3,
        ..TcpOptions::default()
    };
    let listener = world.listen(1, "0.0.0.0:80", 5, options);
    let client = world.connect(0, "10.0.0.2:80", 40000);
    world.settle();
    let server = listener.accept().unwrap();
    world.pass(100 * SECOND);
    assert_eq!(state(&server), State::Established, "answered probes keep it up");
    world.ends[0].0.tcp.remove(&client);
    world.loss = 100;
    world.pass(30 * SECOND);
    assert_eq!(server.lock().take_error(), Some(Errno::ETIMEDOUT));
}

#[test]
fn datagrams_reach_the_best_fitting_socket() {
    let mut world = World::new();
    let stack = world.ends[1].0.clone();
    let endpoint = |addr: &str| {
        let queue = Arc::new(WaitQueue::new());
        let (local, sharing) = (addr.parse().unwrap(), Sharing::default());
        let endpoint = super::udp::Endpoint::new(local, false, 8192, queue, sharing);
        stack.udp.insert(endpoint.clone());
        endpoint
    };
    let wild = endpoint("0.0.0.0:53");
    let exact = endpoint("10.0.0.2:53");
    let connected = endpoint("10.0.0.2:53");
    connected.connect("10.0.0.2:53".parse().unwrap(), Some("10.0.0.1:9".parse().unwrap()));
    let from = |port: u16, to: &str| {
        let packet = Packet::from_slice(b"question").unwrap();
        let from = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        super::udp::send(&world.ends[0].0, from, to.parse().unwrap(), packet, 64, 0).unwrap();
    };
    from(8, "10.0.0.2:53");
    from(9, "10.0.0.2:53");
    from(8, "10.0.0.255:53");
    world.settle();
    assert_eq!(exact.take().unwrap().packet.bytes(), b"question");
    assert_eq!(connected.take().unwrap().from, "10.0.0.1:9".parse().unwrap());
    assert_eq!(wild.take().unwrap().from, "10.0.0.1:8".parse().unwrap());
    assert!(wild.take().is_none() && exact.take().is_none() && connected.take().is_none());
}

#[test]
fn a_closed_port_is_reported_to_a_connected_socket() {
    let mut world = World::new();
    for (local, remote) in [("10.0.0.1:9", "10.0.0.2:9"), ("127.0.0.1:9", "127.0.0.1:8")] {
        let stack = world.ends[0].0.clone();
        let queue = Arc::new(WaitQueue::new());
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        let sharing = Sharing::default();
        let endpoint = super::udp::Endpoint::new(local, false, 8192, queue, sharing);
        endpoint.connect(local, Some(remote));
        stack.udp.insert(endpoint.clone());
        let packet = Packet::from_slice(b"x").unwrap();
        super::udp::send(&stack, local, remote, packet, 64, 0).unwrap();
        world.settle();
        assert_eq!(endpoint.take_error(), Some(Errno::ECONNREFUSED));
        stack.udp.remove(&endpoint);
    }
}

#[test]
fn random_frames_do_no_harm() {
    let mut world = World::new();
    let _listener = world.listen(1, "[::]:80", 5, TcpOptions::default());
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    let kinds = [[8u8, 0], [0x86, 0xdd], [8, 6]];
    for _ in 0..100_000 {
        let len = (random() % 200) as usize;
        let mut bytes: Vec<u8> = (0..len + 14).map(|_| random() as u8).collect();
        bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        bytes[12..14].copy_from_slice(&kinds[random() as usize % 3]);
        if len >= 40 {
            bytes[14] = if bytes[12] == 8 { 0x45 } else { 0x60 };
            let len = (len as u16).to_be_bytes();
            bytes[16..18].copy_from_slice(&len);
            bytes[23] = [1, 6, 17][random() as usize % 3];
            super::checksum::fill(0, &mut bytes[14..34], 10);
        }
        world.ends[1].0.input_frame(Packet::from_slice(&bytes).unwrap());
    }
    world.settle();
}
