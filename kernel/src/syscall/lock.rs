//! `--lock-syscalls`: only the calls on a list can be made. And the recording from which such a list
//! is made.

use crate::task::{current, exit, signal::Signal};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use dock2uni_format::syscalls::{ALWAYS, COUNT, Set, name};

static ACTIVE: AtomicBool = AtomicBool::new(false);
static LOCKED: AtomicBool = AtomicBool::new(false);
/// Calls that may be made; without a list, those that were.
static CALLS: [AtomicU64; COUNT / 64] = [const { AtomicU64::new(0) }; COUNT / 64];

/// Allows these calls and no others, from now on. Once, before the first program starts.
pub fn lock(calls: &[u16]) {
    for &call in calls.iter().chain(&ALWAYS) {
        if let Some(word) = CALLS.get(usize::from(call) / 64) {
            word.fetch_or(1 << (call % 64), Relaxed);
        }
    }
    LOCKED.store(true, Relaxed);
    ACTIVE.store(true, Relaxed);
}

/// Notes the calls that are made, from now on; has no effect with a list.
pub fn record() {
    ACTIVE.store(true, Relaxed);
}

/// What was recorded.
pub fn recorded() -> Option<Set> {
    let recording = ACTIVE.load(Relaxed) && !LOCKED.load(Relaxed);
    recording.then(|| core::array::from_fn(|at| CALLS[at].load(Relaxed)))
}

/// Ends the current process if it may not make call `number`.
#[inline]
pub fn check(number: usize) {
    if ACTIVE.load(Relaxed) {
        look(number);
    }
}

fn look(number: usize) {
    let bit = 1 << (number % 64);
    let Some(word) = CALLS.get(number / 64) else { return refuse(number) };
    if word.load(Relaxed) & bit == 0 {
        if LOCKED.load(Relaxed) {
            refuse(number);
        }
        word.fetch_or(bit, Relaxed);
    }
}

#[cold]
fn refuse(number: usize) {
    if LOCKED.load(Relaxed) {
        let (comm, pid) = (current().comm(), current().pid());
        let name = name(number).unwrap_or("?");
        crate::error!("{comm}[{pid}]: killed: system call {name}({number}) is not on the list");
        exit::exit_group(Signal::SYS.number().into());
    }
}
