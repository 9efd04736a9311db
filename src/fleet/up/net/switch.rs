//! An Ethernet switch over stream sockets.
//!
//! QEMU's wire format (`-netdev stream`): each frame after its length, four bytes, big-endian. A port
//! has a thread that reads and one that writes; between them is a bounded queue, and a frame that
//! finds it full is dropped, as on any other switch, so that a VM that has stopped reading holds
//! nobody up.
//!
//! A VM's address is known beforehand: nothing is learned, and a frame with another one's address as
//! its source goes nowhere. Ports without a network in common don't reach each other.

use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, RwLock};
use std::thread;

use super::dns::Zone;
use super::translate::{Translator, Verdict};
use super::{RESOLVER, frame};

/// Longest frame: more than any that a virtio device of QEMU sends without offloads.
const MAX_FRAME: usize = 65_550;
/// Frames that may wait for one port.
const QUEUE: usize = 1024;
const RESOLVER_PORT: u16 = 53;

/// A segment. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Switch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    zone: Zone,
    translator: Translator,
    ports: RwLock<Ports>,
}

#[derive(Debug, Default)]
struct Ports {
    machines: HashMap<[u8; 6], Port>,
    gateway: Option<Port>,
    /// Number of the next port, to tell an old one from its successor.
    next: u64,
}

#[derive(Clone, Debug)]
struct Port {
    number: u64,
    networks: u64,
    frames: SyncSender<Arc<[u8]>>,
}

/// Who is at the other end of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A VM with this address.
    Machine([u8; 6]),
    /// The way out.
    Gateway,
}

impl Switch {
    /// A switch that knows these names and services.
    pub fn new(zone: Zone, translator: Translator) -> Switch {
        Switch { shared: Arc::new(Shared { zone, translator, ports: RwLock::default() }) }
    }

    /// Adds a port and returns the socket for its other end. A port ends with its socket; one for the
    /// same end takes its place.
    ///
    /// # Errors
    /// If there are no more sockets or threads.
    pub fn attach(&self, end: End, networks: u64) -> io::Result<UnixStream> {
        let (near, far) = UnixStream::pair()?;
        let (frames, queue) = mpsc::sync_channel(QUEUE);
        let number = {
            let mut ports = self.shared.ports.write().unwrap_or_else(|p| p.into_inner());
            ports.next += 1;
            let port = Port { number: ports.next, networks, frames };
            match end {
                End::Machine(mac) => drop(ports.machines.insert(mac, port)),
                End::Gateway => ports.gateway = Some(port),
            }
            ports.next
        };
        let writer = near.try_clone()?;
        thread::Builder::new().name("switch out".into()).spawn(move || {
            // Its end is the port's; the reader notices as well.
            let _ = write(writer, &queue);
        })?;
        let shared = self.shared.clone();
        thread::Builder::new().name("switch in".into()).spawn(move || {
            let _ = read(&near, |frame| shared.forward(end, networks, frame));
            shared.detach(end, number);
            let _ = near.shutdown(std::net::Shutdown::Both);
        })?;
        Ok(far)
    }
}

impl Shared {
    fn detach(&self, end: End, number: u64) {
        let mut ports = self.ports.write().unwrap_or_else(|poison| poison.into_inner());
        let ours = |port: &Port| port.number == number;
        match end {
            End::Machine(mac) => {
                if ports.machines.get(&mac).is_some_and(ours) {
                    ports.machines.remove(&mac);
                }
            }
            End::Gateway => ports.gateway = ports.gateway.take().filter(|port| !ours(port)),
        }
    }

    /// Sends a frame where it belongs.
    fn forward(&self, from: End, networks: u64, frame: &[u8]) {
        let translated = match (from, self.translator.translate(frame)) {
            (End::Gateway, _) | (_, Verdict::Same) => None,
            (_, Verdict::Frame(frame)) => Some(frame),
            (_, Verdict::Dropped) => return,
        };
        let frame = translated.as_deref().unwrap_or(frame);
        let (Some(to), Some(source)) = (frame::destination(frame), frame::source(frame)) else {
            return;
        };
        let ports = self.ports.read().unwrap_or_else(|poison| poison.into_inner());
        if let End::Machine(mac) = from {
            if source != mac {
                return;
            }
            if let Some(reply) = self.resolved(networks, frame) {
                if let Some(port) = ports.machines.get(&mac) {
                    port.send(&reply.into());
                }
                return;
            }
        }
        let frame: Arc<[u8]> = frame.into();
        let group = to[0] & 1 == 1;
        let reaches = |port: &Port| port.networks & networks != 0;
        if let (Some(port), false) = (ports.machines.get(&to), group) {
            // The gateway answers who has its addresses even to those that don't get through it:
            // the resolver is one of them.
            if reaches(port) || from == End::Gateway && frame::is_arp(&frame) {
                port.send(&frame);
            }
            return;
        }
        if group {
            for (mac, port) in &ports.machines {
                if End::Machine(*mac) != from && reaches(port) {
                    port.send(&frame);
                }
            }
        }
        if let Some(port) = &ports.gateway
            && from != End::Gateway
            && (reaches(port) || frame::is_arp(&frame))
        {
            port.send(&frame);
        }
    }

    /// The answer to a question for a name that we know.
    fn resolved(&self, networks: u64, frame: &[u8]) -> Option<Vec<u8>> {
        let asked = frame::datagram(frame).filter(|d| d.to == (RESOLVER, RESOLVER_PORT))?;
        frame::answer(frame, &asked, &self.zone.answer(asked.payload, networks)?)
    }
}

impl Port {
    fn send(&self, frame: &Arc<[u8]>) {
        // Full, or gone: the frame is lost, and whoever misses it sends it again.
        let _ = self.frames.try_send(frame.clone());
    }
}

fn read(from: &UnixStream, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 << 10, from);
    let mut frame = Vec::new();
    loop {
        let mut len = [0; 4];
        reader.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len) as usize;
        if len > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        frame.resize(len, 0);
        reader.read_exact(&mut frame)?;
        each(&frame);
    }
}

fn write(to: UnixStream, frames: &Receiver<Arc<[u8]>>) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(256 << 10, to);
    while let Ok(first) = frames.recv() {
        let mut next = Some(first);
        // What waits goes out together.
        while let Some(frame) = next {
            writer.write_all(&(frame.len() as u32).to_be_bytes())?;
            writer.write_all(&frame)?;
            next = frames.try_recv().ok();
        }
        writer.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::dns::Name;
    use super::super::{address, mac};
    use super::*;
    use std::time::Duration;

    struct Machine(UnixStream, [u8; 6]);

    impl Machine {
        fn new(switch: &Switch, number: usize, networks: u64) -> Machine {
            let mac = mac(address(number));
            let socket = switch.attach(End::Machine(mac), networks).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            Machine(socket, mac)
        }

        fn send(&mut self, to: [u8; 6], text: &str) {
            let frame = [&to[..], &self.1, &[0x88, 0xb5], text.as_bytes()].concat();
            self.raw(&frame);
        }

        fn raw(&mut self, frame: &[u8]) {
            self.0.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
            self.0.write_all(frame).unwrap();
        }

        fn receive(&mut self) -> Vec<u8> {
            let mut len = [0; 4];
            self.0.read_exact(&mut len).unwrap();
            let mut frame = vec![0; u32::from_be_bytes(len) as usize];
            self.0.read_exact(&mut frame).unwrap();
            frame
        }

        fn text(&mut self) -> String {
            String::from_utf8(self.receive()[14..].to_vec()).unwrap()
        }
    }

    const ALL: [u8; 6] = [0xff; 6];

    #[test]
    fn frames_go_where_they_belong() {
        let switch = Switch::new(Zone::default(), Translator::default());
        let mut a = Machine::new(&switch, 0, 1);
        let mut b = Machine::new(&switch, 1, 3);
        let mut c = Machine::new(&switch, 2, 2);
        let gateway = switch.attach(End::Gateway, 1).unwrap();
        let mut gateway = Machine(gateway, [0x52, 0x55, 10, 0, 2, 2]);
        a.send(b.1, "to b");
        // a and c have no network in common.
        a.send(c.1, "to c");
        a.send(ALL, "to all");
        // Whoever says to be another isn't heard.
        let forged = [&b.1[..], &c.1, &[0x88, 0xb5], b"forged"].concat();
        a.raw(&forged);
        a.send(gateway.1, "out");
        assert_eq!((b.text(), b.text()), ("to b".into(), "to all".into()));
        assert_eq!((gateway.text(), gateway.text()), ("to all".into(), "out".into()));
        c.send(gateway.1, "out");
        c.send(b.1, "from c");
        assert_eq!(b.text(), "from c");
        gateway.send(ALL, "from outside");
        assert_eq!((a.text(), b.text()), ("from outside".into(), "from outside".into()));
        // Nothing but this was for c.
        b.send(c.1, "last");
        assert_eq!(c.text(), "last");
        // The gateway got nothing of c's.
        a.send(gateway.1, "last");
        assert_eq!(gateway.text(), "last");
    }

    #[test]
    fn a_port_that_is_taken_anew_works_and_one_that_does_not_read_holds_nobody_up() {
        let switch = Switch::new(Zone::default(), Translator::default());
        let mut a = Machine::new(&switch, 0, 1);
        let stuck = Machine::new(&switch, 1, 1);
        let mut c = Machine::new(&switch, 2, 1);
        let big = "x".repeat(1400);
        for _ in 0..4000 {
            a.send(stuck.1, &big);
        }
        a.send(c.1, "through");
        assert_eq!(c.text(), "through");
        drop(stuck);
        let mut fresh = Machine::new(&switch, 1, 1);
        a.send(fresh.1, "hello");
        assert_eq!(fresh.text(), "hello");
    }

    #[test]
    fn names_are_answered_on_the_way() {
        let name = Name { name: "db".into(), address: address(7), networks: 1 };
        let switch = Switch::new(Zone::new(vec![name]), Translator::default());
        let mut a = Machine::new(&switch, 0, 1);
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02db\0\0\x01\0\x01";
        a.raw(&frame::tests::query(query));
        let reply = a.receive();
        let reply = frame::datagram(&reply).unwrap();
        assert!(reply.payload.ends_with(&address(7).octets()), "{reply:?}");
    }
}
