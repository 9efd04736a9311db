//! System V semaphores: semget(2), semop(2), semctl(2).

use super::time::get_time;
use crate::errno::{Errno, Result};
use crate::io::{get_user, get_user_slice, put_user, put_user_slice};
use crate::ipc::sem::{self, Op, SETS, Set, State};
use crate::ipc::{READ, ids, with_caller};
use crate::setting::Setting;
use alloc::vec;
use alloc::vec::Vec;

const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;
const IPC_INFO: u32 = 3;
const GETPID: u32 = 11;
const GETVAL: u32 = 12;
const GETALL: u32 = 13;
const GETNCNT: u32 = 14;
const GETZCNT: u32 = 15;
const SETVAL: u32 = 16;
const SETALL: u32 = 17;
const SEM_STAT: u32 = 18;
const SEM_INFO: u32 = 19;
const SEM_STAT_ANY: u32 = 20;

/// semget(2)
pub fn semget(key: i32, count: i32, flags: u32) -> Result<usize> {
    with_caller(|caller| sem::get(key, count, flags, caller)).map(|id| id as usize)
}

/// semop(2), and semtimedop(2) with a relative timeout.
pub fn semtimedop(id: i32, ops: usize, count: usize, timeout: usize) -> Result<usize> {
    if count == 0 || id < 0 {
        return Err(Errno::EINVAL);
    }
    if count > sem::MAX_OPS.size() {
        return Err(Errno::E2BIG);
    }
    let mut raw = vec![[0u16; 3]; count];
    get_user_slice(ops, &mut raw)?;
    let ops: Vec<Op> = raw
        .into_iter()
        .map(|[number, change, flags]| Op { number, change: change as i16, flags: flags.into() })
        .collect();
    let deadline = match timeout {
        0 => None,
        addr => Some(crate::time::now_ns().saturating_add(get_time(addr, 1)?)),
    };
    let set = SETS.find(id)?;
    with_caller(|caller| set.operate(&ops, deadline, caller)).map(|()| 0)
}

/// `struct semid64_ds` of x86-64.
fn stat(id: i32, state: &State) -> [u64; 13] {
    let mut out = [0u64; 13];
    out[..6].copy_from_slice(&state.perm.to_words(ids::sequence(id)));
    out[6] = state.otime as u64;
    out[8] = state.ctime as u64;
    out[10] = state.sems.len() as u64;
    out
}

/// Copies what `f` reads of a set that the caller may read.
fn look<R>(set: &Set, f: impl FnOnce(&State) -> Result<R>) -> Result<R> {
    with_caller(|caller| {
        let state = set.state.lock();
        state.perm.check(caller, READ)?;
        f(&state)
    })
}

/// `struct seminfo`; returns the highest slot in use.
fn info(to: usize, used: bool) -> Result<usize> {
    let limit = |setting: &Setting| setting.get() as u32;
    let (mut sets, mut all) = (20, limit(&sem::MAX_IN_ALL));
    if used {
        let list = SETS.list();
        sets = list.len() as u32;
        all = list.iter().map(|(_, set)| set.state.lock().sems.len() as u32).sum();
    }
    let most = limit(&SETS.limit);
    // semmap, semmni, semmns, semmnu, semmsl, semopm, semume, semusz, semvmx, semaem.
    let out = [
        limit(&sem::MAX_IN_ALL),
        most,
        limit(&sem::MAX_IN_ALL),
        limit(&sem::MAX_IN_ALL),
        limit(&sem::MAX_IN_SET),
        limit(&sem::MAX_OPS),
        limit(&sem::MAX_OPS),
        sets,
        sem::MAX_VALUE as u32,
        if used { all } else { sem::MAX_VALUE as u32 },
    ];
    put_user(to, &out)?;
    Ok(SETS.highest() as usize)
}

/// semctl(2)
pub fn semctl(id: i32, number: i32, command: u32, arg: usize) -> Result<usize> {
    /// `IPC_64`: glibc sets it for some calls on other machines.
    const IPC_64: u32 = 0x100;
    let command = command & !IPC_64;
    match command {
        IPC_INFO | SEM_INFO => return info(arg, command == SEM_INFO),
        SEM_STAT | SEM_STAT_ANY => {
            let any = command == SEM_STAT_ANY;
            let (id, set) = with_caller(|caller| SETS.at(id, any, caller))?;
            let words = stat(id, &set.state.lock());
            put_user(arg, &words)?;
            return Ok(id as usize);
        }
        IPC_RMID => return with_caller(|caller| sem::remove(id, caller)).map(|()| 0),
        _ => {}
    }
    let set = SETS.find(id)?;
    let count = set.state.lock().sems.len();
    let at = || usize::try_from(number).ok().filter(|&at| at < count).ok_or(Errno::EINVAL);
    match command {
        IPC_STAT => {
            let words = look(&set, |state| Ok(stat(id, state)))?;
            put_user(arg, &words)?;
            Ok(0)
        }
        IPC_SET => {
            let [_key, uid, gid, _cuid, _cgid, mode]: [u32; 6] = get_user(arg)?;
            with_caller(|caller| {
                let mut state = set.state.lock();
                state.perm.check_owner(caller)?;
                state.perm.set(uid, gid, mode);
                state.ctime = crate::ipc::now();
                Ok(0)
            })
        }
        GETALL => {
            let values: Vec<u16> =
                look(&set, |state| Ok(state.sems.iter().map(|sem| sem.value as u16).collect()))?;
            put_user_slice(arg, &values)?;
            Ok(0)
        }
        SETALL => {
            let mut values = vec![0u16; count];
            get_user_slice(arg, &mut values)?;
            with_caller(|caller| set.assign(0, &values, caller)).map(|()| 0)
        }
        SETVAL => {
            let value = u16::try_from(arg as i32).map_err(|_| Errno::ERANGE)?;
            let at = at()?;
            with_caller(|caller| set.assign(at, &[value], caller)).map(|()| 0)
        }
        GETVAL | GETPID | GETNCNT | GETZCNT => {
            let sem = look(&set, |state| Ok(state.sems[at()?]))?;
            Ok(match command {
                GETVAL => sem.value as usize,
                GETPID => sem.pid as usize,
                GETNCNT => sem.growing as usize,
                _ => sem.zero as usize,
            })
        }
        _ => Err(Errno::EINVAL),
    }
}
