//! Local ports of one protocol: who may bind what, and ephemeral ports.

use super::addr::IpAddr;
use super::settings;
use crate::errno::{Errno, Result};
use crate::map::{Several, Tree};
use crate::sync::SpinLock;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

/// What a socket asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Address; unspecified means all.
    pub addr: IpAddr,
    /// An IPv6 wildcard that covers IPv4 as well.
    pub dual: bool,
    /// `SO_REUSEADDR`.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// Owner: `SO_REUSEPORT` shares within one user only.
    pub uid: u32,
    /// Datagram sockets with `SO_REUSEADDR` share freely; stream sockets don't while one listens.
    pub stream: bool,
}

struct Binding {
    id: u64,
    request: Request,
    listening: bool,
}

/// Keeps a port until dropped by [`Ports::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    id: u64,
    /// The port.
    pub port: u16,
}

/// The ports of one protocol.
pub struct Ports {
    bindings: SpinLock<Tree<Several<Binding>>>,
    next_id: AtomicU64,
}

fn overlap(a: &Request, b: &Request) -> bool {
    let covers = |wild: &Request, addr: &IpAddr| {
        wild.addr.is_unspecified() && (wild.addr.is_ipv4() == addr.is_ipv4() || wild.dual)
    };
    a.addr == b.addr || covers(a, &b.addr) || covers(b, &a.addr)
}

fn conflict(old: &Binding, new: &Request, listening: bool) -> bool {
    if !overlap(&old.request, new) {
        return false;
    }
    let old_request = &old.request;
    if old_request.reuse_port && new.reuse_port && old_request.uid == new.uid {
        return false;
    }
    let shared = old_request.reuse_addr && new.reuse_addr;
    !(shared && (!new.stream || !(old.listening || listening)))
}

impl Ports {
    /// All free.
    pub fn new() -> Ports {
        Ports { bindings: SpinLock::new(Tree::new()), next_id: AtomicU64::new(1) }
    }

    /// Binds `port`. EADDRINUSE if somebody has it.
    pub fn bind(&self, port: u16, request: Request) -> Result<Bound> {
        let mut bindings = self.bindings.lock();
        let list = bindings.get_or_insert_with(u128::from(port), Box::default);
        if list.iter().any(|old| conflict(old, &request, false)) {
            return Err(Errno::EADDRINUSE);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        list.push(Binding { id, request, listening: false });
        Ok(Bound { id, port })
    }

    /// Binds a free ephemeral port for which `usable` holds, looking from a random place.
    pub fn bind_any(
        &self,
        random: u64,
        request: Request,
        mut usable: impl FnMut(u16) -> bool,
    ) -> Result<Bound> {
        let range = settings::ports();
        let count = u32::from(range.end() - range.start()) + 1;
        let first = (random % u64::from(count)) as u32;
        // Ports bound to port zero aren't shared, whatever the options say.
        let alone = Request { reuse_addr: false, reuse_port: false, ..request };
        for step in 0..count {
            let port = range.start() + ((first + step) % count) as u16;
            let taken = self
                .bindings
                .lock()
                .get(u128::from(port))
                .is_some_and(|list| list.iter().any(|old| conflict(old, &alone, false)));
            if taken || settings::is_reserved(port) || !usable(port) {
                continue;
            }
            if let Ok(bound) = self.bind(port, request) {
                return Ok(bound);
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// The socket starts to listen. EADDRINUSE if another one on the port listens and doesn't
    /// share.
    pub fn listen(&self, bound: &Bound) -> Result<()> {
        let mut bindings = self.bindings.lock();
        let list = bindings.get_mut(u128::from(bound.port)).ok_or(Errno::EINVAL)?;
        let mine = list.iter().find(|old| old.id == bound.id).ok_or(Errno::EINVAL)?.request;
        let others = list.iter().filter(|old| old.id != bound.id && old.listening);
        if others.into_iter().any(|old| conflict(old, &mine, true)) {
            return Err(Errno::EADDRINUSE);
        }
        for old in list.iter_mut().filter(|old| old.id == bound.id) {
            old.listening = true;
        }
        Ok(())
    }

    /// Gives a port back.
    pub fn release(&self, bound: &Bound) {
        let mut bindings = self.bindings.lock();
        if let Some(list) = bindings.get_mut(u128::from(bound.port)) {
            list.retain(|old| old.id != bound.id);
            if list.is_empty() {
                bindings.remove(u128::from(bound.port));
            }
        }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Ports::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn request(addr: &str) -> Request {
        Request {
            addr: addr.parse().unwrap(),
            dual: false,
            reuse_addr: false,
            reuse_port: false,
            uid: 0,
            stream: true,
        }
    }

    #[test]
    fn addresses_that_overlap_conflict() {
        let cases = [
            ("0.0.0.0", false, "0.0.0.0", false, true),
            ("0.0.0.0", false, "10.0.0.1", false, true),
            ("10.0.0.2", false, "10.0.0.1", false, false),
            ("::", true, "0.0.0.0", false, true),
            ("::", false, "0.0.0.0", false, false),
            ("::1", false, "127.0.0.1", false, false),
        ];
        for (a, a_dual, b, b_dual, conflicts) in cases {
            let ports = Ports::new();
            ports.bind(80, Request { dual: a_dual, ..request(a) }).unwrap();
            let second = ports.bind(80, Request { dual: b_dual, ..request(b) });
            assert_eq!(second.is_err(), conflicts, "{a} {b}");
        }
    }

    #[test]
    fn sharing_needs_both_sides() {
        let ports = Ports::new();
        let reuse = Request { reuse_addr: true, ..request("0.0.0.0") };
        let first = ports.bind(80, reuse).unwrap();
        assert!(ports.bind(80, request("0.0.0.0")).is_err());
        let second = ports.bind(80, reuse).unwrap();
        ports.listen(&first).unwrap();
        assert_eq!(ports.listen(&second), Err(Errno::EADDRINUSE));
        assert!(ports.bind(80, reuse).is_err(), "one listens");
        ports.release(&first);
        ports.listen(&second).unwrap();

        let share = Request { reuse_port: true, ..request("0.0.0.0") };
        let first = ports.bind(81, share).unwrap();
        let second = ports.bind(81, share).unwrap();
        assert!(ports.bind(81, Request { uid: 5, ..share }).is_err());
        ports.listen(&first).unwrap();
        ports.listen(&second).unwrap();
    }

    #[test]
    fn ephemeral_ports_run_out_only_when_all_are_taken() {
        let ports = Ports::new();
        let count = settings::ports().count();
        let mut all: Vec<u16> = (0..count)
            .map(|at| ports.bind_any(at as u64 * 7, request("0.0.0.0"), |_| true).unwrap().port)
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(ports.bind_any(0, request("0.0.0.0"), |_| true).is_err());
    }
}
