//! What a file is ready for, and how to hear of changes.

use crate::sync::{Observer, Registration, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;

bitflags::bitflags! {
    /// Readiness bits with the values of poll(2) and epoll_ctl(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Events: u32 {
        /// There is data to read.
        const IN = 0x001;
        /// Out-of-band data.
        const PRI = 0x002;
        /// Writing won't block.
        const OUT = 0x004;
        /// Error condition.
        const ERR = 0x008;
        /// Hang-up.
        const HUP = 0x010;
        /// Not an open descriptor (poll only).
        const NVAL = 0x020;
        /// Normal data; as `IN`.
        const RDNORM = 0x040;
        /// Priority band data.
        const RDBAND = 0x080;
        /// Writing normal data won't block; as `OUT`.
        const WRNORM = 0x100;
        /// Writing priority data won't block.
        const WRBAND = 0x200;
        /// A message (unused by Linux).
        const MSG = 0x400;
        /// The peer has shut down its writing half.
        const RDHUP = 0x2000;
        /// Every bit: a wake-up that doesn't know what changed.
        const ALL = 0x27ff;
    }
}

/// Collects the wait queues that a file's `poll` depends on.
///
/// With an observer it also registers it on each; without one it only lets `poll` report the
/// present state.
pub struct PollTable<'a> {
    observer: Option<&'a Arc<dyn Observer>>,
    exclusive: bool,
    registrations: Vec<Registration>,
}

impl<'a> PollTable<'a> {
    /// Only asks for the present state.
    pub fn query() -> PollTable<'static> {
        PollTable { observer: None, exclusive: false, registrations: Vec::new() }
    }

    /// Registers `observer` with every queue the file names.
    pub fn observing(observer: &'a Arc<dyn Observer>, exclusive: bool) -> PollTable<'a> {
        PollTable { observer: Some(observer), exclusive, registrations: Vec::new() }
    }

    /// Called by a file's `poll`, before it looks at its state: "my readiness changes are announced
    /// here".
    #[inline]
    pub fn register(&mut self, queue: &Arc<WaitQueue>) {
        if let Some(observer) = self.observer {
            self.observe(queue, observer);
        }
    }

    #[cold]
    fn observe(&mut self, queue: &Arc<WaitQueue>, observer: &Arc<dyn Observer>) {
        self.registrations.push(queue.observe(observer.clone(), self.exclusive));
    }

    /// The registrations made; the observer listens until they are dropped.
    pub fn into_registrations(self) -> Vec<Registration> {
        self.registrations
    }
}
