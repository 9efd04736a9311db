//! Signals that tell of readiness (fcntl(2): `F_SETOWN`, `F_SETSIG`, `O_ASYNC`).
//!
//! A description with `O_ASYNC` observes its own wait queues. Wake-ups come with interrupts off and a
//! queue locked, where no signal can be sent to a group: they are noted, and a softirq sends.

use super::{Events, PollTable};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::sync::{IrqLock, Observer, Registration, SpinLock, softirq};
use crate::task::signal::{SigInfo, Signal, send_to_process, send_to_task};
use crate::task::{Process, current, family, find_process, find_task};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use linux_raw_sys::general::{F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, FASYNC};

/// Who gets the signal. Numbers, so that whoever ends is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `F_OWNER_*`
    pub kind: u32,
    /// Its number; 0 for nobody.
    pub id: i32,
}

/// What a description has of it. Empty for nearly all.
#[derive(Default)]
pub struct Sigio(SpinLock<Option<Box<State>>>);

struct State {
    told: Arc<Told>,
    /// Where changes are heard of, with `O_ASYNC`.
    registrations: Vec<Registration>,
}

/// What the softirq needs.
struct Told {
    settings: SpinLock<Settings>,
    /// Events that nobody has been told of yet.
    events: AtomicU32,
}

#[derive(Clone, Copy)]
struct Settings {
    owner: Owner,
    /// User and effective user who chose the owner: they must be allowed to signal it.
    users: [u32; 2],
    /// 0 stands for SIGIO without a word about the cause.
    signal: u32,
    fd: i32,
}

/// Descriptions with something to tell.
static DUE: IrqLock<Vec<Arc<Told>>> = IrqLock::new(Vec::new());

/// The observer. `notify` has no counted reference to itself to hand on, hence the one inside.
struct Ear(Arc<Told>);

impl Observer for Ear {
    fn notify(&self, events: Events) -> bool {
        let mut due = DUE.lock();
        if self.0.events.fetch_or(events.bits(), Relaxed) == 0 {
            if due.try_reserve(1).is_err() {
                self.0.events.store(0, Relaxed);
                return false;
            }
            due.push(self.0.clone());
        }
        drop(due);
        softirq::raise(softirq::Kind::Signals);
        false
    }
}

impl Sigio {
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.0.lock();
        f(state.get_or_insert_with(|| {
            let owner = Owner { kind: F_OWNER_PID, id: 0 };
            let settings = Settings { owner, users: [0; 2], signal: 0, fd: -1 };
            let told = Told { settings: SpinLock::new(settings), events: AtomicU32::new(0) };
            Box::new(State { told: Arc::new(told), registrations: Vec::new() })
        }))
    }

    fn settings(&self) -> Option<Settings> {
        let state = self.0.lock();
        state.as_ref().map(|state| *state.told.settings.lock())
    }

    /// Who gets the signal; number 0 if nobody does, or they are gone.
    pub fn owner(&self) -> Owner {
        let none = Owner { kind: F_OWNER_PID, id: 0 };
        let owner = self.settings().map_or(none, |settings| settings.owner);
        if owner.exists() { owner } else { Owner { id: 0, ..owner } }
    }

    /// Chooses who gets the signal. ESRCH if there is no such thing.
    pub fn set_owner(&self, owner: Owner) -> Result<()> {
        if owner.id != 0 && !owner.exists() {
            return Err(Errno::ESRCH);
        }
        let users = current().with_creds(|creds| [creds.uid, creds.euid]);
        self.with(|state| {
            let mut settings = state.told.settings.lock();
            (settings.owner, settings.users) = (owner, users);
        });
        Ok(())
    }

    /// The signal (`F_GETSIG`).
    pub fn signal(&self) -> u32 {
        self.settings().map_or(0, |settings| settings.signal)
    }

    /// Chooses the signal. EINVAL if there is none of that number.
    pub fn set_signal(&self, number: u32) -> Result<()> {
        if number != 0 && Signal::new(number).is_none() {
            return Err(Errno::EINVAL);
        }
        self.with(|state| state.told.settings.lock().signal = number);
        Ok(())
    }
}

/// Tells whoever a description's signals are for that something happened that no event stands for.
#[derive(Clone)]
pub struct Teller(Arc<Told>);

impl Teller {
    /// Sends the signal. Task context, and no locks held that signals take.
    pub fn tell(&self) {
        let settings = *self.0.settings.lock();
        // POLL_MSG, and what poll(2) would say.
        settings.deliver(3, 0x441);
    }
}

impl Sigio {
    /// For signals that name the descriptor `fd`. The current process gets them unless somebody was
    /// chosen.
    pub fn teller(&self, fd: i32) -> Teller {
        let users = current().with_creds(|creds| [creds.uid, creds.euid]);
        let pid = current().pid();
        self.with(|state| {
            let mut settings = state.told.settings.lock();
            settings.fd = fd;
            if settings.owner.id == 0 {
                settings.owner = Owner { kind: F_OWNER_PID, id: pid };
                settings.users = users;
            }
            drop(settings);
            Teller(state.told.clone())
        })
    }

    /// Nobody gets signals any more, and the signal is SIGIO again.
    pub fn forget(&self) {
        let mut state = self.0.lock();
        if let Some(state) = state.as_mut() {
            let mut settings = state.told.settings.lock();
            (settings.owner.id, settings.signal) = (0, 0);
        }
    }
}

impl Owner {
    fn exists(self) -> bool {
        match self.kind {
            F_OWNER_TID => find_task(self.id).is_some(),
            F_OWNER_PGRP => !family::lock().group(self.id).is_empty(),
            _ => find_process(self.id).is_some(),
        }
    }
}

/// Turns `O_ASYNC` of a description on or off; `fd` is the descriptor that signals will name. Nothing
/// happens to files that can't tell.
pub fn set_async(file: &File, fd: i32, on: bool) {
    if !file.ops.asynchronous() || on == (file.flags() & FASYNC != 0) {
        return;
    }
    softirq::register(softirq::Kind::Signals, send_due);
    let registrations = if on {
        let told = file.sigio.with(|state| {
            state.told.settings.lock().fd = fd;
            state.told.clone()
        });
        let observer: Arc<dyn Observer> = Arc::new(Ear(told));
        let mut table = PollTable::observing(&observer, false);
        file.ops.poll(file, &mut table);
        table.into_registrations()
    } else {
        Vec::new()
    };
    // What was there goes without the lock: queues have their own.
    drop(file.sigio.with(|state| core::mem::replace(&mut state.registrations, registrations)));
    file.update_flags(FASYNC, if on { FASYNC } else { 0 });
}

/// Softirq context.
fn send_due() {
    loop {
        // Bound first: the lock is not held while signals are sent.
        let next = DUE.lock().pop();
        let Some(told) = next else { return };
        let events = Events::from_bits_truncate(told.events.swap(0, Relaxed));
        let settings = *told.settings.lock();
        settings.send(events);
    }
}

impl Settings {
    /// Sends what `events` mean.
    fn send(&self, events: Events) {
        // `POLL_*` of sigaction(2), and what poll(2) would say.
        let [code, band] = if events.contains(Events::IN) {
            [1, 0x041]
        } else if events.contains(Events::OUT) {
            [2, 0x304]
        } else if events.contains(Events::PRI) {
            [5, 0x082]
        } else if events.contains(Events::HUP) {
            [6, 0x018]
        } else if events.contains(Events::ERR) {
            [4, 0x008]
        } else {
            return;
        };
        self.deliver(code, band);
    }

    fn deliver(&self, code: i32, band: i32) {
        let (signal, info) = match Signal::new(self.signal) {
            None => (Signal::IO, SigInfo::kernel(Signal::IO)),
            Some(signal) => {
                let body = [band as u64, u64::from(self.fd as u32), 0, 0];
                (signal, SigInfo { body, ..SigInfo::new(signal, code) })
            }
        };
        let id = self.owner.id;
        match self.owner.kind {
            F_OWNER_TID => {
                if let Some(task) = find_task(id).filter(|task| self.may(task.process())) {
                    send_to_task(&task, signal, info);
                }
            }
            F_OWNER_PGRP if id != 0 => {
                let members = family::lock().group(id);
                for process in members.iter().filter(|process| self.may(process)) {
                    send_to_process(process, signal, info);
                }
            }
            _ => {
                if let Some(process) = find_process(id).filter(|process| self.may(process)) {
                    send_to_process(&process, signal, info);
                }
            }
        }
    }

    /// Whether whoever chose the owner may signal it (kill(2)).
    fn may(&self, process: &Process) -> bool {
        self.users[1] == 0
            || process.main_thread().is_none_or(|thread| {
                let theirs = thread.creds();
                [theirs.uid, theirs.suid].iter().any(|id| self.users.contains(id))
            })
    }
}
