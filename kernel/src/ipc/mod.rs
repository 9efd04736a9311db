//! System V semaphores and message queues, POSIX message queues (sysvipc(7), mq_overview(7)), and
//! keys (keyrings(7)).
//!
//! Shared memory segments are `mm::shm`; they use the permissions from here.

pub mod ids;
pub mod keys;
pub mod mqueue;
pub mod msg;
pub mod sem;

pub use ids::{Ids, Object};

use crate::errno::{Errno, Result};
use crate::task::{Process, current};
use linux_raw_sys::general::{CAP_IPC_OWNER, CAP_SYS_ADMIN};

/// `IPC_PRIVATE`
pub const PRIVATE: i32 = 0;
/// `IPC_CREAT`
pub const CREAT: u32 = 0o1000;
/// `IPC_EXCL`
pub const EXCL: u32 = 0o2000;
/// `IPC_NOWAIT`
pub const NOWAIT: u32 = 0o4000;
/// Permission to read, as a digit of a mode.
pub const READ: u32 = 4;
/// Permission to alter, as a digit of a mode.
pub const WRITE: u32 = 2;

/// Who asks: ids and capabilities, as credentials(7) has them.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Effective user.
    pub euid: u32,
    /// Effective group.
    pub egid: u32,
    /// Whether a group is the caller's.
    pub in_group: &'a dyn Fn(u32) -> bool,
    /// `CAP_IPC_OWNER`
    pub override_access: bool,
    /// `CAP_SYS_ADMIN`
    pub admin: bool,
    /// Process.
    pub pid: i32,
}

/// Runs `f` as the current task.
pub fn with_caller<R>(f: impl FnOnce(&Caller<'_>) -> R) -> R {
    let creds = current().creds();
    f(&Caller {
        euid: creds.euid,
        egid: creds.egid,
        in_group: &|gid| creds.in_groups(gid),
        override_access: creds.capable(CAP_IPC_OWNER),
        admin: creds.capable(CAP_SYS_ADMIN),
        pid: current().pid(),
    })
}

/// Key, owner, creator and mode of an object (`struct ipc_perm`).
#[derive(Clone, Copy, Debug)]
pub struct Perm {
    /// Key; [`PRIVATE`] for none.
    pub key: i32,
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// Creator.
    pub cuid: u32,
    /// Creator's group.
    pub cgid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Perm {
    /// A new object's.
    pub fn new(key: i32, mode: u32, caller: &Caller<'_>) -> Perm {
        let (uid, gid) = (caller.euid, caller.egid);
        Perm { key, uid, gid, cuid: uid, cgid: gid, mode: mode & 0o777 }
    }

    /// Whether the caller may do what the digit `wanted` says.
    pub fn allows(&self, caller: &Caller<'_>, wanted: u32) -> bool {
        let granted = if [self.uid, self.cuid].contains(&caller.euid) {
            self.mode >> 6
        } else if [self.gid, self.cgid]
            .iter()
            .any(|&gid| gid == caller.egid || (caller.in_group)(gid))
        {
            self.mode >> 3
        } else {
            self.mode
        };
        caller.override_access || wanted & !granted & 0o7 == 0
    }

    /// EACCES unless the caller may do what the digit `wanted` says.
    pub fn check(&self, caller: &Caller<'_>, wanted: u32) -> Result<()> {
        if self.allows(caller, wanted) { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// EPERM unless the caller may change or remove the object.
    pub fn check_owner(&self, caller: &Caller<'_>) -> Result<()> {
        let owner = caller.admin || [self.uid, self.cuid].contains(&caller.euid);
        if owner { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Changes owner and permission bits (`IPC_SET`).
    pub fn set(&mut self, uid: u32, gid: u32, mode: u32) {
        (self.uid, self.gid) = (uid, gid);
        self.mode = self.mode & !0o777 | mode & 0o777;
    }

    /// `struct ipc64_perm` of x86-64, as words.
    pub fn to_words(&self, sequence: i32) -> [u64; 6] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let first = pair(self.key as u32, self.uid);
        let mode = pair(self.cgid, self.mode);
        [first, pair(self.gid, self.cuid), mode, sequence as u64 & 0xffff, 0, 0]
    }
}

/// Seconds since the epoch.
pub fn now() -> i64 {
    (crate::time::realtime_ns() / crate::time::SECOND) as i64
}

/// A process ends: its semaphore adjustments are undone.
pub fn process_exited(process: &Process) {
    sem::undo_all(process.pid());
}
