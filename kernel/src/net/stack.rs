//! One network stack: its addresses and routes, the way packets take through it, and its timers.
//!
//! The kernel has one ([`crate::net::stack`]); tests make as many as they like and join them by
//! wires.

use super::addr::{Cidr, IpAddr, Ipv4Addr, Ipv6Addr};
use super::dhcp::Dhcp;
use super::edge::{self, Neighbors};
use super::ip::{self, protocol};
use super::packet::Packet;
use super::ports::Ports;
use super::{dhcp6, fragment, groups, icmp, nd, raw, tap, tcp, udp};
use crate::arch::{MAX_CPUS, cpu};
use crate::map::{Sorted, Tree, pair};
use crate::sync::{Once, SpinLock, WaitQueue, preempt_disable};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Packets that may wait on a processor's loopback before more are dropped.
const LOOPBACK_QUEUE: usize = 4096;

/// What a network device can do for us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Completes partial transport checksums.
    pub checksum: bool,
    /// Segments TCP over IPv4.
    pub tso4: bool,
    /// Segments TCP over IPv6.
    pub tso6: bool,
}

/// An Ethernet device.
pub trait NetDevice: Send + Sync {
    /// Hardware address.
    fn mac(&self) -> [u8; 6];
    /// Largest IP packet in bytes.
    fn mtu(&self) -> usize;
    /// Offloads that [`Packet::offload`] may ask for.
    fn offloads(&self) -> Offloads;
    /// Queues a frame; drops it when overloaded. The device need not be told before
    /// [`kick`](NetDevice::kick).
    fn transmit(&self, frame: Packet);
    /// End of a batch of frames.
    fn kick(&self);
    /// Pairs of queues in use.
    fn queues(&self) -> usize;
    /// Hands received frames to [`Stack::input_frame`]; softirq context. Returns whether there may
    /// be more.
    fn poll(&self, stack: &Arc<Stack>) -> bool;
}

/// Paths narrower than the device that are remembered.
const MAX_PATHS: usize = 256;
/// For how long (net.ipv4.route.mtu_expires), in nanoseconds.
const PATH_LIFE: u64 = 600_000_000_000;

/// How packets to one destination leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// They stay here.
    pub loopback: bool,
    /// IPv6.
    pub v6: bool,
    /// Whose hardware address they get.
    pub next_hop: IpAddr,
    /// The hardware address, if it is a group's.
    pub group: Option<[u8; 6]>,
}

/// Addresses, routes and resolver data.
#[derive(Clone, Debug, Default)]
pub struct NetConfig {
    /// Addresses of eth0 with their networks.
    pub addresses: Vec<Cidr>,
    /// IPv4 default gateway.
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 default gateway (a link-local address).
    pub gateway6: Option<Ipv6Addr>,
    /// Resolvers.
    pub dns: Vec<IpAddr>,
    /// They were given: nobody else's are used.
    pub dns_fixed: bool,
    /// Search domains.
    pub search: Vec<alloc::string::String>,
    /// Multicast groups that sockets have joined.
    pub groups: Vec<IpAddr>,
    /// IPv6 comes from the boot record: routers have no say.
    pub fixed6: bool,
}

impl NetConfig {
    /// Takes a resolver that somebody on the network names.
    pub fn add_dns(&mut self, server: IpAddr) {
        if !self.dns_fixed && self.dns.len() < 3 && !self.dns.contains(&server) {
            self.dns.push(server);
        }
    }
}

/// What a timer entry is about.
pub enum Timeout {
    /// A connection.
    Conn(Weak<tcp::Conn>),
    /// Unanswered neighbour queries.
    Neighbors,
    /// The DHCP client.
    Dhcp,
    /// Router solicitation, and what routers gave us for a time.
    Routers,
    /// The DHCPv6 client.
    Dhcp6,
    /// TIME_WAIT tombstones.
    Tombs,
}

/// Counters for /proc/net/dev and /proc/net/snmp.
#[derive(Debug, Default)]
pub struct Stats {
    /// Frames received and sent on eth0.
    pub rx_packets: AtomicU64,
    /// Bytes received on eth0.
    pub rx_bytes: AtomicU64,
    /// Frames sent on eth0.
    pub tx_packets: AtomicU64,
    /// Bytes sent on eth0.
    pub tx_bytes: AtomicU64,
    /// Malformed or unwanted packets.
    pub rx_dropped: AtomicU64,
    /// Packets over loopback.
    pub lo_packets: AtomicU64,
    /// Bytes over loopback.
    pub lo_bytes: AtomicU64,
}

struct Timers {
    /// By deadline and serial number.
    entries: Tree<Box<Timeout>>,
    serial: u64,
    /// Earliest deadline that the clock has been asked for.
    armed: u64,
}

impl Timers {
    fn earliest(&self) -> Option<u64> {
        self.entries.first().map(|(key, _)| (key >> 64) as u64)
    }
}

/// A network stack.
pub struct Stack {
    /// Given by tests; 0: the machine's clock.
    test_clock: AtomicU64,
    /// Driven by softirqs and hardware timers.
    live: AtomicBool,
    entropy: AtomicU64,
    device: Once<Arc<dyn NetDevice>>,
    config: SpinLock<NetConfig>,
    /// Packets that stay here, by the processor that sent them.
    loopback: [SpinLock<VecDeque<Packet>>; MAX_CPUS],
    timers: SpinLock<Timers>,
    kick: AtomicBool,
    mtu: AtomicUsize,
    /// TCP end points.
    pub tcp: tcp::Table,
    /// TCP ports in use.
    pub tcp_ports: Ports,
    /// UDP sockets.
    pub udp: udp::Table,
    /// UDP ports in use.
    pub udp_ports: Ports,
    /// UDP-Lite sockets, whose ports are their own.
    pub udplite: udp::Table,
    /// UDP-Lite ports in use.
    pub udplite_ports: Ports,
    /// Raw sockets.
    pub raw: raw::Table,
    /// Packet sockets.
    pub taps: tap::Table,
    /// Hardware addresses of neighbours.
    pub neighbors: SpinLock<Neighbors>,
    /// DHCP client.
    pub dhcp: SpinLock<Dhcp>,
    /// Router discovery.
    pub routers: SpinLock<nd::Routers>,
    /// DHCPv6 client.
    pub dhcp6: SpinLock<dhcp6::Dhcp6>,
    /// Datagrams of which pieces have come.
    fragments: SpinLock<fragment::Fragments>,
    /// Largest packets to some destinations, and until when that is believed.
    paths: SpinLock<Sorted<IpAddr, (usize, u64)>>,
    /// Woken when addresses change.
    pub configured: WaitQueue,
    /// Counters.
    pub stats: Stats,
}

impl Stack {
    /// A stack without devices or addresses other than loopback. `seed`: random.
    pub fn new(seed: u64) -> Arc<Stack> {
        Arc::new(Stack {
            test_clock: AtomicU64::new(0),
            live: AtomicBool::new(false),
            entropy: AtomicU64::new(seed),
            device: Once::new(),
            config: SpinLock::new(NetConfig::default()),
            loopback: [const { SpinLock::new(VecDeque::new()) }; MAX_CPUS],
            timers: SpinLock::new(Timers { entries: Tree::new(), serial: 0, armed: u64::MAX }),
            kick: AtomicBool::new(false),
            mtu: AtomicUsize::new(1500),
            tcp: tcp::Table::new(seed.rotate_left(7) ^ 0x5851_f42d_4c95_7f2d),
            tcp_ports: Ports::new(),
            udp: udp::Table::new(),
            udp_ports: Ports::new(),
            udplite: udp::Table::new(),
            udplite_ports: Ports::new(),
            raw: raw::Table::default(),
            taps: tap::Table::default(),
            neighbors: SpinLock::new(Neighbors::new()),
            dhcp: SpinLock::new(Dhcp::new()),
            routers: SpinLock::new(nd::Routers::new()),
            dhcp6: SpinLock::new(dhcp6::Dhcp6::default()),
            fragments: SpinLock::new(fragment::Fragments::default()),
            paths: SpinLock::new(Sorted::new()),
            configured: WaitQueue::new(),
            stats: Stats::default(),
        })
    }

    /// The sockets and ports of UDP, or of UDP-Lite.
    pub fn datagrams(&self, lite: bool) -> (&udp::Table, &Ports) {
        match lite {
            false => (&self.udp, &self.udp_ports),
            true => (&self.udplite, &self.udplite_ports),
        }
    }

    /// Monotonic nanoseconds.
    pub fn now(&self) -> u64 {
        match self.test_clock.load(Ordering::Relaxed) {
            0 => crate::arch::clock::now_ns(),
            now => now,
        }
    }

    /// Replaces the clock; for tests.
    pub fn set_clock(&self, now: u64) {
        self.test_clock.store(now, Ordering::Relaxed);
    }

    /// From now on softirqs and timers drive the stack.
    pub fn go_live(&self) {
        self.live.store(true, Ordering::Release);
    }

    /// An unpredictable number (splitmix64 over a random seed, stirred with the cycle counter).
    pub fn random(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64 ^ crate::arch::clock::cycles() << 1;
        let mut z = self.entropy.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Attaches eth0. Only the first device counts.
    pub fn attach(&self, device: Arc<dyn NetDevice>) {
        self.mtu.store(device.mtu(), Ordering::Relaxed);
        let _ = self.device.set(device);
    }

    /// eth0, if there is one.
    pub fn device(&self) -> Option<&Arc<dyn NetDevice>> {
        self.device.get()
    }

    /// Largest IP packet on eth0.
    pub fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Largest IP packet on the path to `dst`, as far as is known.
    pub fn path_mtu(&self, dst: &IpAddr) -> usize {
        match self.paths.lock().get(dst) {
            Some(&(mtu, until)) if until > self.now() => mtu.min(self.mtu()),
            _ => self.mtu(),
        }
    }

    /// A router says that the path to `dst` takes `mtu` bytes. Nothing below what every path takes
    /// is believed (Linux: min_pmtu; RFC 8200).
    pub fn learn_path(&self, dst: IpAddr, mtu: usize) {
        let mtu = mtu.max(if dst.is_ipv6() { 1280 } else { 552 });
        if mtu >= self.mtu() {
            return;
        }
        let mut paths = self.paths.lock();
        if paths.len() >= MAX_PATHS {
            let now = self.now();
            paths.retain(|_, (_, until)| *until > now);
        }
        if paths.len() < MAX_PATHS || paths.contains_key(&dst) {
            paths.insert(dst, (mtu, self.now() + PATH_LIFE));
        }
    }

    /// What eth0 can do.
    pub fn offloads(&self) -> Offloads {
        self.device.get().map(|device| device.offloads()).unwrap_or_default()
    }

    /// A copy of addresses and routes.
    pub fn config(&self) -> NetConfig {
        self.config.lock().clone()
    }

    /// Changes addresses and routes.
    pub fn configure(&self, change: impl FnOnce(&mut NetConfig)) {
        change(&mut self.config.lock());
        self.configured.wake_all(crate::event::Events::ALL);
    }

    /// Whether packets to `addr` are for us.
    pub fn is_local(&self, addr: &IpAddr) -> bool {
        addr.is_loopback() || self.config.lock().addresses.iter().any(|cidr| cidr.addr == *addr)
    }

    /// Whether `addr` is a broadcast or a multicast group we listen to.
    pub fn is_group(&self, addr: &IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) if v4.is_broadcast() => true,
            IpAddr::V4(v4) if v4.is_multicast() => {
                v4.octets() == [224, 0, 0, 1] || self.config.lock().groups.contains(addr)
            }
            IpAddr::V4(v4) => {
                self.config.lock().addresses.iter().any(|cidr| cidr.broadcast() == Some(*v4))
            }
            IpAddr::V6(v6) if v6.is_multicast() => {
                let all_nodes = matches!(v6.segments(), [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 1]);
                let config = self.config.lock();
                let solicited = |cidr: &Cidr| match cidr.addr {
                    IpAddr::V6(own) => groups::solicited_node(&own) == *v6,
                    IpAddr::V4(_) => false,
                };
                all_nodes || config.groups.contains(addr) || config.addresses.iter().any(solicited)
            }
            IpAddr::V6(_) => false,
        }
    }

    /// The way to `dst`; `None`: unreachable.
    pub fn route(&self, dst: &IpAddr) -> Option<Route> {
        let v6 = dst.is_ipv6();
        if dst.is_loopback() || dst.is_unspecified() {
            return Some(Route { loopback: true, v6, next_hop: *dst, group: None });
        }
        let config = self.config.lock();
        if config.addresses.iter().any(|cidr| cidr.addr == *dst) {
            return Some(Route { loopback: true, v6, next_hop: *dst, group: None });
        }
        self.device.get()?;
        let direct = dst.is_multicast()
            || matches!(dst, IpAddr::V4(v4) if v4.is_broadcast())
            || matches!(dst, IpAddr::V6(v6) if v6.is_unicast_link_local())
            || config.addresses.iter().any(|cidr| cidr.contains(dst));
        let next_hop = if direct {
            *dst
        } else if v6 {
            config.gateway6?.into()
        } else {
            config.gateway4?.into()
        };
        let broadcast = |cidr: &Cidr| match dst {
            IpAddr::V4(v4) => cidr.broadcast() == Some(*v4),
            IpAddr::V6(_) => false,
        };
        let group = match edge::group_mac(dst) {
            None if config.addresses.iter().any(broadcast) => Some(edge::BROADCAST),
            group => group,
        };
        Some(Route { loopback: false, v6, next_hop, group })
    }

    /// The way back to the sender of a packet.
    pub fn route_back(&self, src: &IpAddr, loopback: bool) -> Option<Route> {
        if loopback {
            return Some(Route { loopback, v6: src.is_ipv6(), next_hop: *src, group: None });
        }
        self.route(src).filter(|route| !route.loopback)
    }

    /// The source address for packets to `dst`; `None`: we have none that fits.
    pub fn source(&self, dst: &IpAddr) -> Option<IpAddr> {
        if dst.is_loopback() || dst.is_unspecified() {
            return Some(match dst {
                IpAddr::V4(v4) if v4.is_loopback() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let config = self.config.lock();
        let same = |cidr: &&Cidr| cidr.addr.is_ipv4() == dst.is_ipv4();
        let candidates = || config.addresses.iter().filter(same);
        if let Some(own) = candidates().find(|cidr| cidr.addr == *dst) {
            return Some(own.addr);
        }
        if let Some(near) = candidates().find(|cidr| cidr.contains(dst)) {
            return Some(near.addr);
        }
        // A global address for far destinations (RFC 6724 rule 2, simplified).
        let link_local =
            |addr: &IpAddr| matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let wanted = link_local(dst);
        candidates()
            .find(|cidr| link_local(&cidr.addr) == wanted)
            .or_else(|| candidates().next())
            .map(|cidr| cidr.addr)
    }

    /// Sends an IP packet. Broken or unroutable packets vanish, as on a wire.
    pub fn output(&self, packet: Packet, route: &Route) {
        if route.loopback {
            return self.loop_back(packet);
        }
        edge::output(self, packet, route);
    }

    /// Sends a frame.
    pub fn transmit(&self, frame: Packet) {
        let Some(device) = self.device.get() else { return };
        if !self.taps.is_empty() {
            self.taps.input(frame.bytes(), tap::OUTGOING);
        }
        self.stats.tx_packets.fetch_add(1, Ordering::Relaxed);
        self.stats.tx_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        device.transmit(frame);
        if self.live.load(Ordering::Relaxed) {
            // Inside a softirq or a socket call one kick at the end serves the whole batch.
            if !self.kick.swap(true, Ordering::Relaxed) {
                self.raise();
            }
        } else {
            device.kick();
        }
    }

    /// Sends a datagram, in pieces if need be. EMSGSIZE where it doesn't fit and `whole` is asked for.
    pub fn output_datagram(
        &self,
        packet: Packet,
        route: &Route,
        dst: &IpAddr,
        whole: bool,
    ) -> crate::errno::Result<()> {
        let mtu = self.path_mtu(dst);
        if route.loopback || packet.len() <= mtu {
            self.output(packet, route);
        } else if whole {
            return Err(crate::errno::Errno::EMSGSIZE);
        } else {
            fragment::output(self, &packet, route, mtu);
        }
        Ok(())
    }

    /// A packet that stays here.
    pub fn loop_back(&self, mut packet: Packet) {
        // Nothing was cut or summed by a device, and nothing needs to be.
        packet.offload.checksum = true;
        packet.offload.segment = 0;
        self.stats.lo_packets.fetch_add(1, Ordering::Relaxed);
        self.stats.lo_bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        // Whoever sends delivers, before it goes on: another processor that took one of the packets
        // and was kept up would deliver them out of order, and after send(2) has returned.
        let _here = preempt_disable();
        let mut queue = self.loopback[cpu::id()].lock();
        if queue.len() < LOOPBACK_QUEUE {
            queue.push_back(packet);
        }
        drop(queue);
        self.raise();
    }

    /// Asks for [`run`](Stack::run) soon.
    pub fn raise(&self) {
        if self.live.load(Ordering::Relaxed) {
            crate::sync::softirq::raise(crate::sync::softirq::Kind::Net);
        }
    }

    /// Everything that is due: received frames, loopback, timers, notifications. Softirq context.
    pub fn run(self: &Arc<Self>) {
        // Bounded, so that a flood leaves the CPU to tasks between rounds.
        let mut more = false;
        for _ in 0..8 {
            more = self.device.get().is_some_and(|device| device.poll(self));
            more |= self.run_loopback(256);
            if !more {
                break;
            }
        }
        self.run_timers();
        if self.kick.swap(false, Ordering::Relaxed)
            && let Some(device) = self.device.get()
        {
            device.kick();
        }
        if more {
            self.raise();
        }
    }

    /// Delivers up to `budget` packets that this processor sent and that stay here; returns whether
    /// there are more. The caller stays on the processor.
    pub fn run_loopback(self: &Arc<Self>, budget: usize) -> bool {
        let queue = &self.loopback[cpu::id()];
        for _ in 0..budget {
            let Some(packet) = queue.lock().pop_front() else { return false };
            self.input_ip(packet, true);
        }
        !queue.lock().is_empty()
    }

    /// A frame from eth0.
    pub fn input_frame(self: &Arc<Self>, frame: Packet) {
        self.stats.rx_packets.fetch_add(1, Ordering::Relaxed);
        self.stats.rx_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        if !self.taps.is_empty() {
            let mac = self.device.get().map(|device| device.mac()).unwrap_or_default();
            self.taps.input(frame.bytes(), tap::kind(frame.bytes(), mac));
        }
        edge::input(self, frame);
    }

    /// An IP packet for demultiplexing.
    pub fn input_ip(self: &Arc<Self>, packet: Packet, loopback: bool) {
        let header = match ip::parse(packet.bytes()) {
            Ok(header) => header,
            Err(ip::Malformed::Fragment) => {
                let whole = self.fragments.lock().input(packet, self.now());
                // It has no fragment header any more, so this ends.
                if let Some(whole) = whole {
                    self.input_ip(whole, loopback);
                }
                return;
            }
            Err(ip::Malformed::Header) => {
                self.stats.rx_dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        // Loopback addresses on the wire are lies.
        if !loopback && (header.src.is_loopback() || header.dst.is_loopback()) {
            self.stats.rx_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if !self.raw.is_empty() {
            self.raw.input(&packet, &header);
        }
        match header.protocol {
            protocol::TCP => tcp::input(self, &packet, &header, loopback),
            protocol::UDP | protocol::UDPLITE => udp::input(self, packet, &header, loopback),
            groups::IGMP if header.src.is_ipv4() => groups::input(self, &packet, &header, loopback),
            protocol::ICMP if header.src.is_ipv4() => icmp::input(self, &packet, &header, loopback),
            protocol::ICMPV6 if header.src.is_ipv6() => nd::input(self, &packet, &header, loopback),
            _ => {}
        }
    }

    /// Asks for `what` to be looked after at `deadline`.
    pub fn set_timeout(&self, deadline: u64, what: Timeout) {
        let mut timers = self.timers.lock();
        let serial = timers.serial;
        timers.serial += 1;
        timers.entries.insert(pair(deadline, serial), Box::new(what));
        if deadline < timers.armed {
            timers.armed = deadline;
            if self.live.load(Ordering::Relaxed) {
                super::arm_timer(deadline);
            }
        }
    }

    /// The earliest deadline; `None`: nothing to wait for.
    pub fn next_timeout(&self) -> Option<u64> {
        self.timers.lock().earliest()
    }

    /// Looks after everything whose deadline has passed.
    pub fn run_timers(self: &Arc<Self>) {
        if self.timers.lock().armed > self.now() {
            return;
        }
        let now = self.now();
        loop {
            let mut timers = self.timers.lock();
            let due = match timers.earliest() {
                Some(deadline) if deadline <= now => timers.entries.pop_first(),
                later => {
                    timers.armed = later.unwrap_or(u64::MAX);
                    None
                }
            };
            let Some((_, what)) = due else {
                if timers.armed != u64::MAX && self.live.load(Ordering::Relaxed) {
                    super::arm_timer(timers.armed);
                }
                return;
            };
            drop(timers);
            match *what {
                Timeout::Conn(conn) => {
                    if let Some(conn) = conn.upgrade() {
                        conn.expired();
                    }
                }
                Timeout::Neighbors => edge::retry(self),
                Timeout::Dhcp => super::dhcp::expired(self),
                Timeout::Routers => nd::expired(self),
                Timeout::Dhcp6 => dhcp6::expired(self),
                Timeout::Tombs => {
                    self.tcp.expire(now);
                    if self.tcp.tombs() > 0 {
                        self.set_timeout(now + tcp::TIME_WAIT / 8, Timeout::Tombs);
                    }
                }
            }
        }
    }
}
