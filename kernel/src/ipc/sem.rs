//! System V semaphores (semget(2), semop(2), semctl(2)).

use super::{Caller, Ids, NOWAIT, Object, Perm, READ, WRITE, now};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::map::Sorted;
use crate::setting::Setting;
use crate::sync::{SpinLock, WaitError, WaitMode, WaitQueue};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Most semaphores in a set (`SEMMSL`).
pub static MAX_IN_SET: Setting = Setting::new(32000, 0, 65535);
/// Most semaphores in all (`SEMMNS`).
pub static MAX_IN_ALL: Setting = Setting::new(1_024_000_000, 0, i32::MAX as i64);
/// Most operations of one call (`SEMOPM`).
pub static MAX_OPS: Setting = Setting::new(500, 0, 65535);
/// Largest value (`SEMVMX`).
pub const MAX_VALUE: i32 = 32767;
/// `SEM_UNDO`
const UNDO: u32 = 0x1000;

/// All sets.
pub static SETS: Ids<Set> = Ids::new();
/// Processes with adjustments to undo, over all sets: exits look at the sets only if there are any.
static UNDOS: AtomicUsize = AtomicUsize::new(0);

/// One operation (`struct sembuf`).
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Semaphore in the set.
    pub number: u16,
    /// What to add, or 0 to wait for zero.
    pub change: i16,
    /// `IPC_NOWAIT`, `SEM_UNDO`.
    pub flags: u32,
}

/// One semaphore.
#[derive(Clone, Copy, Default)]
pub struct Sem {
    /// Its value.
    pub value: i32,
    /// The process that changed it last.
    pub pid: i32,
    /// Tasks that wait for it to grow.
    pub growing: u32,
    /// Tasks that wait for it to be zero.
    pub zero: u32,
}

/// Attributes and values of a set.
pub struct State {
    /// Permissions.
    pub perm: Perm,
    /// Last semop(2), seconds since the epoch.
    pub otime: i64,
    /// Last change by semctl(2).
    pub ctime: i64,
    /// The semaphores.
    pub sems: Vec<Sem>,
    /// What is to be added when a process ends.
    undo: Sorted<i32, Vec<i16>>,
    removed: bool,
}

/// A set of semaphores.
pub struct Set {
    /// What changes.
    pub state: SpinLock<State>,
    queue: WaitQueue,
}

impl Object for Set {
    fn perm(&self) -> Perm {
        self.state.lock().perm
    }
}

/// semget(2)
pub fn get(key: i32, count: i32, flags: u32, caller: &Caller<'_>) -> Result<i32> {
    let count =
        usize::try_from(count).ok().filter(|&n| n <= MAX_IN_SET.size()).ok_or(Errno::EINVAL)?;
    let found = |set: &Set| match set.state.lock().sems.len() {
        present if count > present => Err(Errno::EINVAL),
        _ => Ok(()),
    };
    SETS.get(key, flags, caller, found, |perm| {
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        let mut sems = Vec::new();
        sems.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        sems.resize(count, Sem::default());
        let undo = Sorted::new();
        let state = State { perm, otime: 0, ctime: now(), sems, undo, removed: false };
        Ok(Set { state: SpinLock::new(state), queue: WaitQueue::new() })
    })
}

/// What stopped a list of operations.
enum Stuck {
    /// This operation must wait.
    At(Op),
    Failed(Errno),
}

impl State {
    /// Does all operations or none.
    fn try_all(&mut self, ops: &[Op], pid: i32) -> core::result::Result<(), Stuck> {
        for (done, op) in ops.iter().enumerate() {
            if let Err(stuck) = self.try_one(*op, pid) {
                for op in ops[..done].iter().rev() {
                    self.sems[usize::from(op.number)].value -= i32::from(op.change);
                    self.note(*op, pid, -op.change);
                }
                return Err(stuck);
            }
        }
        for op in ops {
            self.sems[usize::from(op.number)].pid = pid;
        }
        self.otime = now();
        Ok(())
    }

    fn try_one(&mut self, op: Op, pid: i32) -> core::result::Result<(), Stuck> {
        let sem = &mut self.sems[usize::from(op.number)];
        let value = sem.value + i32::from(op.change);
        if value < 0 || op.change == 0 && value != 0 {
            return Err(Stuck::At(op));
        }
        if value > MAX_VALUE {
            return Err(Stuck::Failed(Errno::ERANGE));
        }
        if op.flags & UNDO != 0 {
            let undone = self.undo.get(&pid).map_or(0, |adjust| adjust[usize::from(op.number)]);
            if undone.checked_sub(op.change).is_none() {
                return Err(Stuck::Failed(Errno::ERANGE));
            }
        }
        self.sems[usize::from(op.number)].value = value;
        self.note(op, pid, op.change);
        Ok(())
    }

    /// Remembers that `change` is to be undone.
    fn note(&mut self, op: Op, pid: i32, change: i16) {
        if op.flags & UNDO == 0 || change == 0 {
            return;
        }
        let count = self.sems.len();
        let adjust = self.undo.get_or_insert_with(pid, || {
            UNDOS.fetch_add(1, Relaxed);
            vec![0; count]
        });
        // In range: checked before the operation was done, and taking it back leads to where it was.
        adjust[usize::from(op.number)] = adjust[usize::from(op.number)].wrapping_sub(change);
    }

    fn waiting(&mut self, op: Op, count: u32) {
        let sem = &mut self.sems[usize::from(op.number)];
        let slot = if op.change == 0 { &mut sem.zero } else { &mut sem.growing };
        *slot = slot.wrapping_add(count);
    }

    /// Sets values; what processes would undo of them is forgotten.
    fn assign(&mut self, first: usize, values: &[u16], pid: i32) {
        for (at, &value) in values.iter().enumerate() {
            let sem = &mut self.sems[first + at];
            (sem.value, sem.pid) = (i32::from(value), pid);
            self.undo.values_mut().for_each(|adjust| adjust[first + at] = 0);
        }
        self.ctime = now();
    }
}

impl Set {
    /// semtimedop(2): all operations, or none; waits until `deadline` (monotonic nanoseconds).
    pub fn operate(&self, ops: &[Op], deadline: Option<u64>, caller: &Caller<'_>) -> Result<()> {
        let mut waits_at: Option<Op> = None;
        let mut attempt = || {
            let mut state = self.state.lock();
            if let Some(op) = waits_at.take() {
                state.waiting(op, u32::MAX);
            }
            if state.removed {
                return Some(Err(Errno::EIDRM));
            }
            match state.try_all(ops, caller.pid) {
                Ok(()) => Some(Ok(())),
                Err(Stuck::Failed(errno)) => Some(Err(errno)),
                Err(Stuck::At(op)) if op.flags & NOWAIT != 0 => Some(Err(Errno::EAGAIN)),
                Err(Stuck::At(op)) => {
                    state.waiting(op, 1);
                    waits_at = Some(op);
                    None
                }
            }
        };
        {
            let state = self.state.lock();
            let count = state.sems.len();
            if ops.iter().any(|op| usize::from(op.number) >= count) {
                return Err(Errno::EFBIG);
            }
            let alters = ops.iter().any(|op| op.change != 0);
            state.perm.check(caller, if alters { WRITE } else { READ })?;
        }
        let outcome = self.queue.wait(WaitMode::Interruptible, deadline, &mut attempt);
        if let Some(op) = waits_at {
            self.state.lock().waiting(op, u32::MAX);
        }
        match outcome {
            Ok(result) => {
                result?;
                self.queue.wake_all(Events::ALL);
                Ok(())
            }
            Err(WaitError::TimedOut) => Err(Errno::EAGAIN),
            // Never restarted, whatever the handler's flags (signal(7)).
            Err(WaitError::Interrupted) => Err(Errno::EINTR),
        }
    }

    /// `SETVAL` and `SETALL`.
    pub fn assign(&self, first: usize, values: &[u16], caller: &Caller<'_>) -> Result<()> {
        {
            let mut state = self.state.lock();
            if state.removed {
                return Err(Errno::EIDRM);
            }
            state.perm.check(caller, WRITE)?;
            if values.iter().any(|&value| i32::from(value) > MAX_VALUE) {
                return Err(Errno::ERANGE);
            }
            state.assign(first, values, caller.pid);
        }
        self.queue.wake_all(Events::ALL);
        Ok(())
    }
}

/// `IPC_RMID`
pub fn remove(id: i32, caller: &Caller<'_>) -> Result<()> {
    let set = SETS.remove(id, caller)?;
    {
        let mut state = set.state.lock();
        state.removed = true;
        UNDOS.fetch_sub(core::mem::take(&mut state.undo).len(), Relaxed);
    }
    set.queue.wake_all(Events::ALL);
    Ok(())
}

/// Adds what a process that ends has asked for.
pub fn undo_all(pid: i32) {
    if UNDOS.load(Relaxed) == 0 {
        return;
    }
    for (_, set) in SETS.list() {
        {
            let mut state = set.state.lock();
            let Some(adjust) = state.undo.remove(&pid) else { continue };
            UNDOS.fetch_sub(1, Relaxed);
            for (sem, change) in state.sems.iter_mut().zip(adjust) {
                if change != 0 {
                    sem.value = (sem.value + i32::from(change)).clamp(0, MAX_VALUE);
                    sem.pid = pid;
                }
            }
            state.otime = now();
        }
        set.queue.wake_all(Events::ALL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn caller(pid: i32) -> Caller<'static> {
        let in_group = &|_| false;
        Caller { euid: 0, egid: 0, in_group, override_access: true, admin: true, pid }
    }

    fn op(number: u16, change: i16, flags: u32) -> Op {
        Op { number, change, flags: flags | NOWAIT }
    }

    fn values(set: &Arc<Set>) -> Vec<i32> {
        set.state.lock().sems.iter().map(|sem| sem.value).collect()
    }

    #[test]
    fn operations_happen_together_or_not_at_all() {
        let (me, other) = (caller(7001), caller(7002));
        let id = get(super::super::PRIVATE, 2, 0o600, &me).unwrap();
        let set = SETS.find(id).unwrap();
        set.operate(&[op(0, 3, 0), op(1, 1, UNDO)], None, &me).unwrap();
        assert_eq!(set.operate(&[op(0, -1, 0), op(1, -2, UNDO)], None, &me), Err(Errno::EAGAIN));
        assert_eq!(values(&set), [3, 1]);
        set.operate(&[op(0, -2, UNDO), op(1, 0, 0)], None, &me).unwrap_err();
        set.operate(&[op(0, -2, UNDO)], None, &other).unwrap();
        assert_eq!(set.operate(&[op(2, 1, 0)], None, &me), Err(Errno::EFBIG));
        assert_eq!(set.operate(&[op(0, 32767, 0)], None, &me), Err(Errno::ERANGE));
        undo_all(other.pid);
        assert_eq!(values(&set), [3, 1]);
        undo_all(me.pid);
        assert_eq!(values(&set), [3, 0]);
        remove(id, &me).unwrap();
        assert_eq!(set.operate(&[op(0, 1, 0)], None, &me), Err(Errno::EIDRM));
        assert!(matches!(SETS.find(id), Err(Errno::EINVAL)));
    }
}
