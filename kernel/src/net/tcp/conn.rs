//! One TCP connection as sockets see it: a transmission control block behind one lock, with
//! readiness, errors and deadlines.

use super::input::Verdict;
use super::listener::Listener;
use super::options::TcpOptions;
use super::output::Pulse;
use super::segment::Segment;
use super::table::Key;
use super::tcb::{LastSegment, NEVER, State, Tcb};
use crate::errno::Errno;
use crate::event::Events;
use crate::net::addr::SocketAddr;
use crate::net::filter::Slot;
use crate::net::owner::Owner;
use crate::net::settings;
use crate::net::stack::{Route, Stack, Timeout};
use crate::sync::{SpinGuard, SpinLock, WaitQueue};
use alloc::sync::{Arc, Weak};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SECOND: u64 = 1_000_000_000;
/// How long an accepted SYN waits for the handshake to end (Linux: five retries).
const SYNACK_TIMEOUT: u64 = 63 * SECOND;
/// How long unacknowledged data is retried without `TCP_USER_TIMEOUT` (Linux: tcp_retries2).
const DATA_TIMEOUT: u64 = 924 * SECOND;

/// A connection, from its first SYN to the last reference to it.
pub struct Conn {
    /// Our end.
    pub local: SocketAddr,
    /// Their end.
    pub remote: SocketAddr,
    /// Hash key made of both.
    pub key: Key,
    /// Readiness changes are announced here.
    pub queue: Arc<WaitQueue>,
    /// The stack it lives in.
    pub stack: Arc<Stack>,
    inner: SpinLock<Inner>,
    /// Deadline of the timer entry that stands for us; `u64::MAX`: none.
    armed: AtomicU64,
    /// It waits for the end of its handshake with a listener.
    pub half_open: AtomicBool,
    /// Whose it is.
    pub owner: Owner,
    /// Which segments the socket wants.
    pub filter: Slot,
}

/// The lock's contents.
pub struct Inner {
    tcb: Tcb,
    /// The listener that a half-open connection belongs to.
    parent: Option<Weak<Listener>>,
    /// A descriptor (or an accept queue) refers to it.
    pub owned: bool,
    /// Pending SO_ERROR.
    error: Option<Errno>,
    /// State after the last step.
    seen: State,
    /// `shutdown(SHUT_RD)` was called.
    pub read_shut: bool,
    /// Somebody found no room to write; announce room.
    pub no_space: bool,
    /// Abort at this time.
    give_up: u64,
    /// A listener with `TCP_DEFER_ACCEPT` gets it then, data or not.
    deferred_until: u64,
}

impl Deref for Inner {
    type Target = Tcb;
    fn deref(&self) -> &Tcb {
        &self.tcb
    }
}

impl DerefMut for Inner {
    fn deref_mut(&mut self) -> &mut Tcb {
        &mut self.tcb
    }
}

impl Inner {
    /// Present TCP state.
    pub fn state(&self) -> State {
        self.tcb.state
    }
    /// Takes the pending error.
    pub fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }
    /// The pending error.
    pub fn error(&self) -> Option<Errno> {
        self.error
    }
    /// Present readiness, as tcp_poll in Linux computes it.
    pub fn events(&mut self) -> Events {
        let state = self.state();
        let mut events = Events::empty();
        if self.error.is_some() {
            events |= Events::ERR;
        }
        let write_shut = !self.may_send() && !self.connecting();
        let read_shut = self.read_shut || self.peer_done();
        if state == State::Closed || (read_shut && write_shut) {
            events |= Events::HUP;
        }
        if read_shut {
            events |= Events::IN | Events::RDNORM | Events::RDHUP;
        }
        if self.connecting() {
            return events;
        }
        if self.readable() > 0 {
            events |= Events::IN | Events::RDNORM;
        }
        if self.urgent.is_some_and(|urgent| !urgent.taken && urgent.byte.is_some()) {
            events |= Events::PRI;
        }
        if write_shut || self.spacious() {
            events |= Events::OUT | Events::WRNORM;
        } else {
            self.no_space = true;
        }
        events
    }
    /// Whether a half-open connection belongs into the accept queue now.
    fn handshake_done(&mut self, now: u64) -> bool {
        match self.state() {
            State::Established if self.options().defer_accept > 0 && self.readable() == 0 => {
                if self.deferred_until == NEVER {
                    let wait = u64::from(self.options().defer_accept) * SECOND;
                    self.deferred_until = now + wait;
                }
                now >= self.deferred_until
            }
            State::Established | State::CloseWait => true,
            _ => false,
        }
    }
}

/// What to do with a connection after a step.
enum Fate {
    Keep,
    /// Forget it.
    Remove,
    /// Replace it by a tombstone.
    TimeWait(LastSegment),
}

impl Conn {
    fn with(
        stack: &Arc<Stack>,
        local: SocketAddr,
        remote: SocketAddr,
        queue: Arc<WaitQueue>,
        tcb: Tcb,
        parent: Option<&Arc<Listener>>,
        patience: u64,
    ) -> Arc<Conn> {
        let inner = Inner {
            seen: tcb.state,
            tcb,
            parent: parent.map(Arc::downgrade),
            owned: true,
            error: None,
            read_shut: false,
            no_space: false,
            give_up: stack.now() + patience,
            deferred_until: NEVER,
        };
        Arc::new(Conn {
            local,
            remote,
            key: Key::new(local, remote),
            queue,
            stack: stack.clone(),
            inner: SpinLock::new(inner),
            armed: AtomicU64::new(NEVER),
            half_open: AtomicBool::new(parent.is_some()),
            owner: Owner::default(),
            filter: Slot::new(parent.and_then(|listener| listener.filter.get())),
        })
    }

    /// A connection to be made; [`push`](Conn::push) sends its SYN.
    pub fn connect(
        stack: &Arc<Stack>,
        local: SocketAddr,
        remote: SocketAddr,
        route: Route,
        queue: Arc<WaitQueue>,
        options: TcpOptions,
    ) -> Arc<Conn> {
        let iss = stack.tcp.initial(&Key::new(local, remote), stack.now());
        let mut tcb = Tcb::new(stack, local, remote, route, iss, options);
        tcb.connect();
        // 1 + 2 + 4 + ... seconds.
        let patience = ((2u64 << options.syn_count.clamp(1, 16)) - 1) * SECOND;
        Conn::with(stack, local, remote, queue, tcb, None, patience)
    }

    /// Half of a connection: the answer to a SYN.
    pub fn accept(
        listener: &Arc<Listener>,
        local: SocketAddr,
        remote: SocketAddr,
        route: Route,
        syn: &Segment<'_>,
    ) -> Arc<Conn> {
        let stack = listener.stack();
        let iss = stack.tcp.initial(&Key::new(local, remote), stack.now());
        let options = *listener.options.lock();
        let mut tcb = Tcb::new(stack, local, remote, route, iss, options);
        tcb.accept(syn);
        let queue = Arc::new(WaitQueue::new());
        Conn::with(stack, local, remote, queue, tcb, Some(listener), SYNACK_TIMEOUT)
    }

    /// A connection whose SYN was answered by a cookie, which `segment` brings back.
    pub fn resume(
        listener: &Arc<Listener>,
        local: SocketAddr,
        remote: SocketAddr,
        route: Route,
        segment: &Segment<'_>,
        mss: u16,
    ) -> Arc<Conn> {
        let stack = listener.stack();
        let options = *listener.options.lock();
        let iss = segment.ack.wrapping_sub(1);
        let mut tcb = Tcb::new(stack, local, remote, route, iss, options);
        tcb.resume(segment.seq, mss, segment.window);
        let queue = Arc::new(WaitQueue::new());
        Conn::with(stack, local, remote, queue, tcb, Some(listener), SYNACK_TIMEOUT)
    }

    /// Takes the lock.
    pub fn lock(&self) -> SpinGuard<'_, Inner> {
        self.inner.lock()
    }

    /// A segment for this connection. Returns whether it is to be answered by a reset.
    pub fn input(self: &Arc<Self>, segment: &Segment<'_>) -> bool {
        let now = self.stack.now();
        let mut inner = self.inner.lock();
        let before = (inner.readable(), inner.queued());
        if !inner.owned && inner.unread(segment) {
            inner.tcb.abort(&self.stack);
            self.step(inner, now, before, false);
            return false;
        }
        let urgent = inner.urgent.map(|urgent| urgent.seq);
        let verdict = inner.input(segment, now);
        let called = inner.urgent.map(|urgent| urgent.seq) != urgent;
        self.step(inner, now, before, true);
        if called {
            self.queue.wake_all(Events::PRI);
        }
        verdict == Verdict::Stray
    }

    /// After the application changed something: sends what can be sent and releases the lock.
    pub fn push(self: &Arc<Self>, inner: SpinGuard<'_, Inner>) {
        let before = (inner.readable(), inner.queued());
        let now = self.stack.now();
        self.step(inner, now, before, false);
    }

    /// After the application has read `taken` bytes (`inline`: the urgent one among them): tells the
    /// peer of new room if that's worth a segment.
    pub fn after_read(
        self: &Arc<Self>,
        mut inner: SpinGuard<'_, Inner>,
        taken: usize,
        inline: bool,
    ) {
        let now = self.stack.now();
        if inner.consume(taken, inline, now) {
            self.push(inner);
        }
    }

    /// After the application has found nothing to read: acknowledges what came before.
    pub fn after_nothing(self: &Arc<Self>, mut inner: SpinGuard<'_, Inner>) {
        if inner.starved() {
            self.push(inner);
        }
    }

    /// A deadline has passed.
    pub fn expired(self: &Arc<Self>) {
        self.armed.store(NEVER, Ordering::Relaxed);
        let now = self.stack.now();
        let mut inner = self.inner.lock();
        let before = (inner.readable(), inner.queued());
        let pulse = inner.expired(&self.stack, now);
        if now >= inner.give_up || pulse == Pulse::Dead {
            self.end(&mut inner, Errno::ETIMEDOUT);
        }
        self.step(inner, now, before, false);
    }

    fn end(&self, inner: &mut Inner, error: Errno) {
        if inner.owned && inner.error.is_none() {
            inner.error = Some(error);
        }
        inner.give_up = NEVER;
        inner.abort(&self.stack);
    }

    /// A router or the peer's host says that packets don't arrive. Only a connection that is being
    /// made fails of it (RFC 1122, 4.2.3.9).
    pub fn unreachable(self: &Arc<Self>, error: Errno) {
        let mut inner = self.inner.lock();
        if inner.state() == State::SynSent {
            self.end(&mut inner, error);
            self.push(inner);
        }
    }

    /// The path takes packets of `mtu` bytes at most.
    pub fn path_mtu(self: &Arc<Self>, mtu: usize) {
        let mut inner = self.inner.lock();
        inner.tcb.path_mtu(mtu);
        self.push(inner);
    }

    /// Sends what can be sent, then acts on what has changed. `before`: readable bytes and those of
    /// the send buffer.
    fn step(
        self: &Arc<Self>,
        mut inner: SpinGuard<'_, Inner>,
        now: u64,
        before: (usize, usize),
        from_peer: bool,
    ) {
        // Sent under the lock, so that segments leave in order.
        inner.output(&self.stack, now);
        let state = inner.state();
        let was = core::mem::replace(&mut inner.seen, state);
        let mut events = Events::empty();
        if inner.readable() > before.0 {
            events |= Events::IN | Events::RDNORM;
        }
        if state != was {
            events |= self.changed(&mut inner, was, state, from_peer);
        }
        if inner.no_space && inner.spacious() {
            inner.no_space = false;
            events |= Events::OUT | Events::WRNORM;
        }
        self.set_give_up(&mut inner, before.1, from_peer, now);
        let parent = inner.parent.clone();
        let ready = parent.is_some() && inner.handshake_done(now);
        let refused = parent.is_some() && state == State::Closed;
        if ready {
            inner.parent = None;
            self.half_open.store(false, Ordering::Relaxed);
        }
        self.arm(&inner, now);
        let fate = match state {
            State::Closed => Fate::Remove,
            State::TimeWait if !inner.owned => Fate::TimeWait(inner.last()),
            _ => Fate::Keep,
        };
        drop(inner);
        match fate {
            Fate::Keep => {}
            Fate::Remove => self.stack.tcp.remove(self),
            Fate::TimeWait(last) => {
                if self.stack.tcp.time_wait(self, last, now) {
                    self.stack.set_timeout(now + super::TIME_WAIT, Timeout::Tombs);
                }
            }
        }
        if let Some(listener) = parent.and_then(|parent| parent.upgrade()) {
            if ready {
                listener.established(self);
            } else if refused {
                self.half_open.store(false, Ordering::Relaxed);
                listener.refused();
            }
        }
        if !events.is_empty() {
            self.queue.wake_all(events);
        }
    }

    /// The state has changed: what to announce.
    fn changed(&self, inner: &mut Inner, was: State, state: State, from_peer: bool) -> Events {
        use State::*;
        match (was, state) {
            (SynSent | SynReceived, Established) => {
                inner.give_up = NEVER;
                Events::OUT | Events::WRNORM
            }
            (_, CloseWait | Closing | TimeWait | LastAck) => {
                if matches!(was, SynSent | SynReceived) {
                    inner.give_up = NEVER;
                }
                let mut events = Events::IN | Events::RDNORM | Events::RDHUP;
                if state != CloseWait {
                    events |= Events::HUP;
                }
                events
            }
            (_, Closed) => {
                let error = match was {
                    SynSent => Some(Errno::ECONNREFUSED),
                    CloseWait => Some(Errno::EPIPE),
                    Established | FinWait1 | FinWait2 | Closing => Some(Errno::ECONNRESET),
                    _ => None,
                };
                // Only a reset by the peer is news; who aborts knows, and timeouts have set
                // ETIMEDOUT.
                if from_peer && inner.error.is_none() {
                    inner.error = error;
                }
                Events::IN
                    | Events::RDNORM
                    | Events::OUT
                    | Events::WRNORM
                    | Events::RDHUP
                    | Events::HUP
                    | Events::ERR
            }
            _ => Events::empty(),
        }
    }

    fn set_give_up(&self, inner: &mut Inner, queued_before: usize, from_peer: bool, now: u64) {
        use State::*;
        match inner.state() {
            SynSent | SynReceived | Listen | Closed => return,
            _ => {}
        }
        if !inner.owned {
            // An orphan: it may finish sending as long as the peer answers.
            let progress = inner.queued() < queued_before;
            if inner.give_up == NEVER || progress {
                inner.give_up = now + settings::FIN_TIMEOUT.get() as u64 * SECOND;
            }
            return;
        }
        if inner.queued() == 0 {
            inner.give_up = NEVER;
        } else if from_peer || inner.give_up == NEVER || queued_before == 0 {
            inner.give_up = now
                + match inner.options().user_timeout {
                    0 => DATA_TIMEOUT,
                    ms => u64::from(ms) * 1_000_000,
                };
        }
    }

    /// Makes sure that a timer comes in time. Later deadlines keep an earlier timer, which then
    /// does nothing: so the usual exchange, which moves deadlines back and forth, touches no timer
    /// queue.
    fn arm(self: &Arc<Self>, inner: &Inner, now: u64) {
        let mut deadline = inner.deadline().min(inner.give_up);
        if inner.parent.is_some() {
            deadline = deadline.min(inner.deferred_until);
        }
        if deadline < self.armed.load(Ordering::Relaxed) {
            // Never in the past: a deadline that can't be met now must not spin.
            let deadline = deadline.max(now + 1_000_000);
            self.armed.store(deadline, Ordering::Relaxed);
            self.stack.set_timeout(deadline, Timeout::Conn(Arc::downgrade(self)));
        }
    }

    /// The last descriptor is gone: FIN, or RST if data would be lost or `SO_LINGER` says so.
    pub fn close(self: &Arc<Self>, reset: bool) {
        let mut inner = self.inner.lock();
        if !inner.owned {
            return;
        }
        inner.owned = false;
        self.owner.set(0, self.owner.uid());
        inner.give_up = NEVER;
        if reset || inner.readable() > 0 {
            inner.abort(&self.stack);
        } else {
            inner.tcb.close();
        }
        self.push(inner);
    }
}
