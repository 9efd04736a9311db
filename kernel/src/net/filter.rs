//! Socket filters: programs that say how much of a packet a socket gets (socket(7),
//! `SO_ATTACH_FILTER`), and which of those that share a port (`SO_ATTACH_REUSEPORT_CBPF`).

use super::settings;
use crate::bpf::{self, Input, Program, View};
use crate::errno::{Errno, Result};
use crate::sync::SpinLock;
use core::sync::atomic::{AtomicBool, Ordering};
use linux_raw_sys::net::SO_DETACH_REUSEPORT_BPF;

/// A place for a program, beside what receives.
#[derive(Default)]
pub struct Slot {
    /// There is one. Spares the lock, since there seldom is.
    set: AtomicBool,
    program: SpinLock<Option<Program>>,
}

impl Slot {
    /// With this program.
    pub fn new(program: Option<Program>) -> Slot {
        Slot { set: AtomicBool::new(program.is_some()), program: SpinLock::new(program) }
    }

    /// Changes the program.
    pub fn replace(&self, program: Option<Program>) {
        let mut slot = self.program.lock();
        self.set.store(program.is_some(), Ordering::Relaxed);
        let old = core::mem::replace(&mut *slot, program);
        drop(slot);
        drop(old);
    }

    /// The program.
    pub fn get(&self) -> Option<Program> {
        if !self.set.load(Ordering::Relaxed) {
            return None;
        }
        self.program.lock().clone()
    }

    /// Bytes of a packet that are wanted, from the program's own data on; 0: it is dropped. All
    /// without a program.
    pub fn wanted(&self, packet: View<'_>) -> usize {
        wanted(self.get().as_ref(), packet)
    }
}

/// As [`Slot::wanted`], by a program that was at hand.
pub fn wanted(program: Option<&Program>, packet: View<'_>) -> usize {
    program.map_or(usize::MAX, |program| bpf::run(program, Input::Packet(packet)) as usize)
}

/// Those that share a port, as they see each other (`SO_REUSEPORT`). By default a socket is alone.
#[derive(Default)]
pub struct Sharing {
    /// The user whose sockets may share; `None`: the socket is alone.
    pub owner: Option<u32>,
    /// Chooses one of the group.
    pub selector: Slot,
}

impl Sharing {
    /// A socket of the user `owner`, or one that doesn't share.
    pub fn new(owner: Option<u32>, selector: Option<Program>) -> Sharing {
        Sharing { owner, selector: Slot::new(selector) }
    }

    /// Whether both may share a port, as far as it depends on whose they are.
    pub fn is_with(&self, other: &Sharing) -> bool {
        self.owner.is_some() && self.owner == other.owner
    }

    /// What [`selector`] says of an option of a socket that has its port.
    pub fn change(&self, name: u32, value: &[u8]) -> Result<Option<Program>> {
        selector(name, value, self.owner.is_some(), self.selector.get().is_some())
    }

    /// Becomes one of the group that `other` belongs to.
    pub fn join(&self, other: &Sharing) {
        self.selector.replace(other.selector.get());
    }
}

/// Chooses one of `count` that share a port: by their program, which sees what the transport
/// carries, or by `hash`. `count` is not 0.
pub fn choose(selector: Option<Program>, count: usize, payload: &[u8], hash: u64) -> usize {
    let asked = selector
        .map(|program| bpf::run(&program, Input::Packet(View::plain(payload))) as usize)
        .filter(|&choice| choice < count);
    asked.unwrap_or((hash % count as u64) as usize)
}

/// What `SO_ATTACH_REUSEPORT_CBPF` or `SO_DETACH_REUSEPORT_BPF` sets for a socket that `shares` its
/// port, or will. EINVAL for one that doesn't, ENOENT for removing what isn't there.
pub fn selector(name: u32, value: &[u8], shares: bool, has: bool) -> Result<Option<Program>> {
    match name {
        SO_DETACH_REUSEPORT_BPF if !has => Err(Errno::ENOENT),
        SO_DETACH_REUSEPORT_BPF => Ok(None),
        _ if shares && value.len() > settings::OPTIONS.size() => Err(Errno::ENOMEM),
        _ if shares => bpf::decode(value, true).map(|program| Some(program.into())),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::Insn;
    use alloc::sync::Arc;

    fn program<const N: usize>(insns: [(u16, u32); N]) -> Program {
        let all = insns.map(|(code, k)| Insn { code, jt: 0, jf: 0, k });
        assert!(bpf::validate(&all, true));
        Arc::new(all)
    }

    #[test]
    fn a_program_chooses_among_those_that_share() {
        // The first byte of the payload.
        let first = program([(0x30, 0), (0x16, 0)]);
        assert_eq!(choose(Some(first.clone()), 3, &[2], 0), 2);
        assert_eq!(choose(Some(first.clone()), 3, &[7], 4), 1, "no such socket");
        assert_eq!(choose(Some(first), 3, &[], 4), 0, "no such byte");
        assert_eq!(choose(None, 3, &[2], 4), 1);
    }

    #[test]
    fn a_slot_says_how_much_is_wanted() {
        let slot = Slot::default();
        assert_eq!(slot.wanted(View::plain(&[1, 2, 3])), usize::MAX);
        slot.replace(Some(program([(0x06, 2)])));
        assert_eq!(slot.wanted(View::plain(&[1, 2, 3])), 2);
        slot.replace(None);
        assert_eq!(slot.wanted(View::plain(&[1, 2, 3])), usize::MAX);
    }
}
